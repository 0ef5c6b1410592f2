/* HD_ACT_PROXY: runs the tries, keeps the body for another one, passes the winner's
 * response on. */
#include "http/hd_body_file.h"
#include "http/hd_proxy_int.h"
#include "http/hd_sub.h"
#include "http/hd_temp_file.h"

#define REPLAY_BYTES 65536          /* where nothing else is configured */
#define REQUEST_BUFFER_BYTES 262144 /* buffer_request: beyond it, a temp file */

static void on_backoff(hd_timer_t *t)
{
    hd_proxy_t *p = hd_container_of(t, hd_proxy_t, backoff);

    hd_request_wake(p->req);
}

/* Asked of a cluster that chooses by it alone: a cookie is made for no other, as in
 * Envoy. */
static bool wants_hash(const hd_proxy_t *p)
{
    const hd_region_t *r = p->cluster != NULL && p->conf->hashes_n > 0
                               ? hd_slot_get(p->req->member, p->cluster)
                               : NULL;
    const hd_cluster_t *c = r != NULL ? r->root : NULL;

    return c != NULL && (c->lb == HD_LB_RING_HASH || c->lb == HD_LB_MAGLEV);
}

/* Its cluster is known now, and the body, where it is read first: $request_body may be
 * sent in a field. */
static hd_rc_t prepare(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    p->is_prepared = true;
    if (hd_proxy_prepare(p) != HD_OK)
        return HD_ERROR;
    if (wants_hash(p))
        hd_proxy_hash(p);
    if (p->conf->shadows_n > 0)
        hd_shadows_start(req, p->conf->shadows, p->conf->shadows_n);
    return HD_OK;
}

/* What was waited for has come. */
static void go_on(hd_proxy_t *p)
{
    if (p->waits_for_body || p->waits_for_name)
        return;
    if (p->is_prepared || prepare(p) == HD_OK)
        hd_proxy_start_try(p);
    else if (p->req->action == p && !p->is_over)
        hd_proxy_answer_failure(p, HD_FAIL_INTERNAL);
}

void hd_proxy_begin(hd_proxy_t *p)
{
    p->waits_for_body = false;
    go_on(p);
}

/* gRPC over HTTP/2, "Timeout": at most eight digits and a unit. */
static bool parse_grpc_timeout(hd_str_t text, uint64_t *ms)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'H', 3600000000000ull}, {'M', 60000000000ull}, {'S', 1000000000ull},
                 {'m', 1000000},          {'u', 1000},           {'n', 1}};
    uint64_t n;

    if (text.len < 2 || text.len > 9 ||
        !hd_str_to_u64(hd_str_sub(text, 0, text.len - 1), 99999999, &n))
        return false;
    for (size_t i = 0; i < hd_countof(units); i++) {
        if (units[i].unit == text.data[text.len - 1]) {
            *ms = hd_max(n * units[i].ns / 1000000, (uint64_t)1);
            return true;
        }
    }
    return false;
}

/* A gRPC client may say how long it waits (VS-ROUTE-8): from now on, since its messages
 * may go on for as long. */
void hd_proxy_set_grpc_deadline(hd_proxy_t *p)
{
    const hd_proxy_conf_t *conf = p->conf;
    const hd_field_t *f = conf->has_grpc_timeout
                              ? hd_headers_get(&p->req->head.headers, HD_H_GRPC_TIMEOUT)
                              : NULL;
    uint64_t ms;

    if (f == NULL || !parse_grpc_timeout(f->value, &ms))
        return;
    if (conf->max_grpc_timeout_ms > 0)
        ms = hd_min(ms, (uint64_t)conf->max_grpc_timeout_ms);
    p->req->has_grpc_deadline = true;
    hd_timer_set(p->req->loop, &p->req->deadline, ms);
}

/* A client's own deadline stands for it. */
static void set_duration(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (req->http != NULL && req->http->is_xds &&
        (p->conf->has_duration || req->has_grpc_deadline))
        hd_request_set_duration(req, req->has_grpc_deadline ? 0 : p->conf->duration_ms);
}

void hd_proxy_set_deadline(hd_proxy_t *p)
{
    if (p->conf->timeout_ms > 0 && !p->req->has_grpc_deadline)
        hd_timer_set(p->req->loop, &p->req->deadline, p->conf->timeout_ms);
}

static void stop_waiting(hd_proxy_t *p)
{
    if (p->waits_for_name)
        hd_resolving->stop(&p->wait);
    p->waits_for_name = false;
}

static void free_ahead(hd_proxy_t *p)
{
    if (p->ahead == NULL)
        return;
    hd_timer_stop(p->req->loop, &p->ahead->slow);
    hd_ahead_free(p->ahead);
}

/* Whatever a finished request still holds. */
static void free_proxy(void *arg)
{
    hd_proxy_t *p = arg;

    stop_waiting(p);
    for (hd_try_t *t = p->req->tries; t != NULL; t = t->next) {
        if (t->proxy == p)
            hd_try_release(t);
    }
    hd_chain_free(&p->replay);
    hd_chain_free(&p->held);
    hd_temp_file_close(&p->temp_fd);
    free_ahead(p);
    if (p->named != NULL)
        hd_slot_let_go(p->req->member, p->named);
}

/* Is the name answered that it waits for? */
static void look_again(hd_proxy_t *p)
{
    hd_rc_t rc = hd_proxy_find_cluster(p);

    if (rc == HD_AGAIN)
        return;
    stop_waiting(p);
    if (rc != HD_OK)
        hd_proxy_answer_failure(p, HD_FAIL_NO_CLUSTER);
    else
        go_on(p);
}

static hd_rc_t start(hd_req_t *req)
{
    const hd_proxy_conf_t *conf = req->route->proxy;
    hd_proxy_t *p = hd_pool_new(req->pool, hd_proxy_t);
    hd_rc_t rc;

    req->action = p;
    p->req = req;
    p->conf = conf;
    p->drops_body = conf->body != NULL || conf->no_request_body;
    p->has_body = req->head.has_body && !p->drops_body;
    p->length = p->drops_body ? 0 : req->head.content_length;
    p->replay_max = conf->replay_bytes > 0 ? conf->replay_bytes : REPLAY_BYTES;
    p->temp_fd = -1;
    if (conf->buffer_request || conf->is_http10)
        p->replay_max = req->loc != NULL && req->loc->body_buffer_bytes > 0
                            ? (size_t)req->loc->body_buffer_bytes
                            : hd_max(p->replay_max, (size_t)REQUEST_BUFFER_BYTES);
    hd_timer_init(&p->backoff, on_backoff);
    hd_pool_defer(req->pool, free_proxy, p);
    if (p->drops_body && req->head.has_body && req->body_text != NULL)
        hd_chain_free(req->body_text); /* an earlier one's: it comes again */
    if (hd_unlikely(req->loc->body_in_file != HD_BODY_IN_MEMORY) &&
        hd_proxy_open_body_file(p) != HD_OK)
        return HD_ERROR;
    hd_proxy_set_grpc_deadline(p);
    set_duration(p);
    rc = hd_proxy_find_cluster(p);
    req->cluster_name = p->cluster_name;
    if (rc == HD_ERROR) {
        hd_proxy_answer_failure(p, HD_FAIL_NO_CLUSTER);
        return HD_DONE;
    }
    p->waits_for_name = rc == HD_AGAIN;
    if (req->body_ended && !req->head.has_body) {
        p->body_complete = true;
        hd_proxy_set_deadline(p);
    } else if (conf->buffer_request || p->drops_body || conf->is_http10) {
        p->waits_for_body = true;
        return HD_AGAIN;
    }
    if (!p->waits_for_name && prepare(p) != HD_OK)
        return HD_ERROR;
    hd_proxy_begin(p);
    return HD_AGAIN;
}

static void on_wake(hd_req_t *req)
{
    hd_proxy_t *p = hd_proxy_of(req);

    if (p->is_over)
        return;
    if (hd_unlikely(p->waits_for_name)) {
        look_again(p);
        return;
    }
    if (p->retry_due && !hd_timer_is_set(&p->backoff)) {
        hd_proxy_start_try(p);
        return;
    }
    for (hd_try_t *t = req->tries; t != NULL; t = t->next) {
        if (t->proxy == p)
            hd_try_resume(t);
    }
    if (hd_unlikely(p->temp_fd >= 0))
        hd_proxy_send_temps(p);
    if (hd_unlikely(p->waits_for_rate) && !hd_timer_is_set(&p->backoff))
        p->waits_for_rate = false;
    if (hd_unlikely(p->ahead != NULL || p->conf->limit_rate != NULL))
        hd_proxy_on_drained(req);
}

static void cancel(hd_req_t *req)
{
    hd_proxy_t *p = hd_proxy_of(req);

    p->is_over = true;
    stop_waiting(p);
    for (hd_try_t *t = req->tries; t != NULL; t = t->next) {
        if (t->proxy == p)
            hd_try_end(t, HD_RESULT_CANCELLED);
    }
    hd_proxy_drop_retry(p);
    hd_timer_stop(req->loop, &req->deadline);
    hd_proxy_give_back(p);
    hd_proxy_keep_text(p);
    hd_chain_free(&p->replay);
    hd_chain_free(&p->held);
    hd_temp_file_close(&p->temp_fd);
    free_ahead(p);
}

/* Nobody waits for it any more, as far as one can tell: the upstream is spared. */
static bool ends_with_client(hd_req_t *req)
{
    const hd_proxy_t *p = req->action;

    return !p->conf->ignore_client_abort;
}

const hd_action_ops_t hd_proxy_action = {
    .name = "proxy",
    .start = start,
    .give_body = hd_proxy_give_body,
    .is_full = hd_proxy_is_full,
    .on_drained = hd_proxy_on_drained,
    .on_wake = on_wake,
    .ends_with_client = ends_with_client,
    .cancel = cancel,
};

/* The try that a log tells of: the winner, else the last. */
static const hd_try_t *telling_try(const hd_req_t *req)
{
    for (const hd_try_t *t = req->tries; t != NULL; t = t->next) {
        if (t->proxy->winner == t)
            return t;
    }
    return req->tries;
}

void hd_proxy_end_tunnel(hd_req_t *req, uint64_t to_upstream, uint64_t to_client)
{
    hd_try_t *t = req->tries != NULL ? req->tries->proxy->winner : NULL;

    if (t == NULL)
        return;
    t->bytes_sent += to_upstream;
    t->bytes_received += to_client;
    t->body_bytes += to_client;
    t->end_ns = req->upstream_end_ns = hd_loop_now_ns(req->loop);
}

void hd_proxy_get_info(hd_req_t *req, hd_req_info_t *info)
{
    const hd_try_t *t = telling_try(req);

    if (t == NULL)
        return;
    info->upstream_is_reused = t->was_reused;
    info->upstream_peer = t->peer_principal;
    info->upstream_self = t->own_principal;
    if (!t->is_picked)
        return;
    info->cluster_conf = t->pick.cluster;
    info->endpoint = t->pick.endpoint;
    if (info->upstream_host.len == 0) {
        char text[HD_ADDR_TEXT_MAX];

        info->upstream_host = hd_str_dup(req->pool, hd_addr_print(&t->pick.addr, text));
    }
}
