/* A call is a request whose client is a caller of ours: it brings its route, and what the
 * proxy action gives it goes to callbacks. */
#include "core/hd_call.h"
#include "http/hd_codec.h"
#include "http/hd_request_int.h"

struct hd_call_s {
    hd_req_t *req; /* NULL: over for the engine */
    const hd_call_user_t *user;
    void *arg;
    hd_route_t route;
    hd_proxy_conf_t proxy;
    hd_weighted_t target;
    bool is_cancelled;
};

static void send_head(hd_req_t *req, bool is_interim)
{
    hd_call_t *call = req->client_state;

    if (is_interim || req->is_local_reply || call->is_cancelled)
        return; /* a local answer says that the call failed: on_finished tells why */
    if (call->user->on_head != NULL)
        call->user->on_head(call, req->res.status, &req->res.headers);
}

static void send_body(hd_req_t *req, hd_chain_t *body)
{
    hd_call_t *call = req->client_state;

    if (!req->is_local_reply && !call->is_cancelled && call->user->on_body != NULL)
        call->user->on_body(call, body);
    hd_chain_free(body);
}

static bool is_full(hd_req_t *req)
{
    (void)req; /* callers take what comes */
    return false;
}

static void want_body(hd_req_t *req)
{
    hd_call_t *call = req->client_state;

    if (!call->is_cancelled && call->user->on_writable != NULL)
        call->user->on_writable(call);
}

static void abort_call(hd_req_t *req, uint32_t h2_error)
{
    (void)h2_error;
    if (req->err == NULL)
        hd_ignore(hd_req_err(req, HD_E_RESET, "the response was cut off"));
}

/* The last word, from the engine's own posted event. */
static void on_finished(hd_req_t *req)
{
    hd_call_t *call = req->client_state;
    hd_err_t err = {.code = HD_E_RESET, .text = "no answer"};
    bool is_good = req->err == NULL && !req->is_local_reply && req->response_started;

    if (call->is_cancelled)
        return;
    if (req->err != NULL)
        err = *req->err;
    call->is_cancelled = true;
    call->user->on_end(call, req->res_trailers.n > 0 ? &req->res_trailers : NULL,
                       is_good ? NULL : &err);
}

static const hd_client_ops_t call_client = {
    .name = "call",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .want_body = want_body,
    .abort = abort_call,
    .on_finished = on_finished,
};

static void fill_head(hd_req_t *req, const hd_call_spec_t *spec)
{
    hd_req_head_t *head = &req->head;
    ssize_t at;

    head->method = hd_str_dup(req->pool, spec->method);
    head->scheme =
        spec->scheme.len > 0 ? hd_str_dup(req->pool, spec->scheme) : HD_STR("http");
    head->authority = hd_str_dup_lower(req->pool, spec->authority);
    head->raw_path = hd_str_dup(req->pool, spec->path);
    at = hd_str_find_char(head->raw_path, '?');
    head->path = at < 0 ? head->raw_path : hd_str_sub(head->raw_path, 0, (size_t)at);
    if (at >= 0)
        head->query = hd_str_sub(head->raw_path, (size_t)at + 1, SIZE_MAX);
    head->method_id = hd_http_method_id(head->method);
    head->version = spec->protocol == HD_UP_HTTP2 ? HD_HTTP_20 : HD_HTTP_11;
    head->has_body = head->method_id != HD_M_GET && head->method_id != HD_M_HEAD;
    head->content_length = HD_LEN_UNKNOWN;
    hd_headers_init(&head->headers, req->pool, spec->headers_n + 2);
    for (uint32_t i = 0; i < spec->headers_n; i++)
        hd_headers_add(&head->headers, hd_str_dup(req->pool, spec->headers[i].key),
                       hd_str_dup(req->pool, spec->headers[i].value));
    hd_headers_mark_hops(&head->headers);
}

static void let_cluster_go(void *arg)
{
    const hd_call_t *call = arg;

    hd_slot_let_go(call->req->member, call->target.cluster);
}

hd_call_t *hd_call_start(hd_loop_t *loop, hd_member_t *m, const hd_call_spec_t *spec,
                         const hd_call_user_t *user, void *arg, hd_err_t *err)
{
    hd_req_t *req;
    hd_call_t *call;

    if (spec->cluster == NULL) {
        hd_ignore(hd_err_set(err, HD_E_NO_CLUSTER, "a call to no cluster"));
        return NULL;
    }
    req = hd_request_create(NULL, loop, m, &call_client, NULL);
    call = hd_pool_new(req->pool, hd_call_t);
    req->client_state = call;
    call->req = req;
    call->user = user;
    call->arg = arg;
    hd_slot_hold(m, spec->cluster);
    hd_pool_defer(req->pool, let_cluster_go, call);
    fill_head(req, spec);
    call->target = (hd_weighted_t){.cluster = spec->cluster,
                                   .cluster_name = spec->cluster->name,
                                   .weight = 1,
                                   .fixed = spec->fixed};
    call->proxy = (hd_proxy_conf_t){
        .targets = &call->target,
        .targets_n = 1,
        .weights_total = 1,
        .protocol = spec->protocol,
        .has_protocol = true,
        .tls = spec->tls,
        .tries_max = 1,
    };
    call->route = (hd_route_t){
        .name = HD_STR("call"), .action = HD_ACT_PROXY, .proxy = &call->proxy};
    req->route = &call->route;
    req->target = &call->target;
    /* the whole, not from the end of our half on: a stream's may be open for long */
    if (spec->timeout_ms > 0)
        hd_timer_set(loop, &req->deadline, spec->timeout_ms);
    hd_request_start(req, NULL);
    return call;
}

void *hd_call_arg(const hd_call_t *call)
{
    return call->arg;
}

void hd_call_send(hd_call_t *call, hd_chain_t *body)
{
    if (call->is_cancelled || call->req->body_ended) {
        hd_chain_free(body);
        return;
    }
    hd_request_give_body(call->req, body);
}

bool hd_call_is_full(const hd_call_t *call)
{
    return !call->is_cancelled && hd_request_is_full(call->req);
}

void hd_call_cancel(hd_call_t *call)
{
    if (call->is_cancelled)
        return;
    call->is_cancelled = true;
    hd_request_client_gone(call->req, HD_E_NONE, "call cancelled");
}
