/* One attempt: its steps, and what its exchange tells. */
#include "http/hd_action_tunnel.h"
#include "http/hd_http_xds.h"
#include "http/hd_proxy_int.h"
#include "http/hd_stay.h"
#include <stdio.h>
#include <string.h>

static void run(hd_try_t *t);

static void fail(hd_try_t *t, hd_fail_t why, hd_pick_result_t result, const hd_err_t *err)
{
    hd_try_result_t r = {
        .result = result,
        .grpc_status = UINT32_MAX,
        .attempt = t->attempt,
        .head_sent = t->x != NULL && t->x->head_written,
        .is_reused_conn = t->was_reused,
        .is_denied = why == HD_FAIL_DENIED,
    };

    if (err != NULL && err->code != HD_E_NONE)
        hd_req_log(t->req, HD_LOG_INFO, "try %u: %s", t->attempt, err->text);
    hd_try_end(t, result);
    hd_proxy_on_fail(t->proxy, t, why, &r);
}

/* On which conn it was, and since when: what a log asks when it failed. */
static const char *describe(const hd_try_t *t, char *text, size_t room)
{
    uint64_t now_ns = hd_loop_now_ns(t->req->loop);
    unsigned long long ms = (now_ns - t->connected_ns) / 1000000;

    if (t->was_reused)
        snprintf(text, room,
                 "%llu ms after it was sent on a reused connection (idle %u ms)", ms,
                 t->idle_ms);
    else
        snprintf(text, room, "%llu ms after it was sent on a new connection", ms);
    return text;
}

/* --- time-outs --- */

/* <ms> (0: never), or what is left until <at_ns> if that is less. */
static uint64_t sooner(uint64_t ms, uint64_t at_ns, uint64_t now_ns)
{
    uint64_t left_ms = at_ns > now_ns ? (at_ns - now_ns + 999999) / 1000000 : 1;

    return ms == 0 ? left_ms : hd_min(ms, left_ms);
}

/* How long the upstream may let us wait for its next bytes, or for room; 0: for ever.
 * While it has room for more of the body than there is, it is the client that we wait
 * for. */
static uint64_t patience_ms(const hd_try_t *t)
{
    const hd_proxy_conf_t *conf = t->proxy->conf;

    if (t->step != HD_TRY_STEP_SEND)
        return conf->read_timeout_ms;
    if (t->x != NULL && !t->x->upconn->codec->is_full(t->x))
        return 0;
    return conf->send_timeout_ms > 0 ? conf->send_timeout_ms : conf->read_timeout_ms;
}

/* The next of: time between bytes, and the whole try's. */
void hd_try_push_timer(hd_try_t *t)
{
    uint64_t now_ns = hd_loop_now_ns(t->req->loop);
    uint64_t ms = patience_ms(t), idle_ms = hd_request_idle_ms(t->req, t->proxy->conf);

    t->is_idle_next = idle_ms > 0 && (ms == 0 || idle_ms < ms);
    if (t->is_idle_next)
        ms = idle_ms;
    if (t->is_paused) /* the client is slow: its codec watches it */
        ms = 0;
    if (t->step != HD_TRY_STEP_BODY && t->until_ns != UINT64_MAX)
        ms = sooner(ms, t->until_ns, now_ns);
    if (hd_unlikely(t->over_ns != UINT64_MAX))
        ms = sooner(ms, t->over_ns, now_ns);
    if (ms > 0)
        hd_timer_set(t->req->loop, &t->timer, ms);
    else if (hd_timer_is_set(&t->timer))
        hd_timer_stop(t->req->loop, &t->timer);
}

/* Longer than its cluster allows: we end it ourselves, which says nothing about the
 * endpoint. Another try may follow, as after a reset (Envoy). */
static void on_over(hd_try_t *t)
{
    hd_try_result_t r = {.result = HD_RESULT_RESET,
                         .status = t->status,
                         .grpc_status = UINT32_MAX,
                         .attempt = t->attempt,
                         .head_sent = t->x != NULL && t->x->head_written,
                         .is_reused_conn = t->was_reused};
    bool is_body = t->step == HD_TRY_STEP_BODY;
    char text[96];

    hd_ignore(hd_req_err(t->req, HD_E_TIMEOUT,
                         "upstream takes longer than max_stream_duration allows, %s",
                         describe(t, text, sizeof(text))));
    hd_try_end(t, HD_RESULT_CANCELLED);
    if (is_body)
        hd_proxy_cut_body(t->proxy, 504, HD_RF(UPSTREAM_DURATION),
                          "upstream_max_stream_duration_reached");
    else
        hd_proxy_on_fail(t->proxy, t, HD_FAIL_DURATION, &r);
}

static void on_timer(hd_timer_t *timer)
{
    hd_try_t *t = hd_container_of(timer, hd_try_t, timer);
    hd_req_t *req = t->req;
    char text[96];

    if (hd_unlikely(hd_loop_now_ns(req->loop) >= t->over_ns)) {
        on_over(t);
        return;
    }
    if (t->step == HD_TRY_STEP_BODY) {
        hd_ignore(hd_req_err(req, HD_E_TIMEOUT,
                             "upstream timed out while reading response, %s",
                             describe(t, text, sizeof(text))));
        hd_try_end(t, HD_RESULT_TIMEOUT);
        if (t->is_idle_next)
            hd_proxy_cut_body(t->proxy, 504, HD_RF(STREAM_IDLE), "stream_idle_timeout");
        else
            hd_proxy_cut_body(t->proxy, 504, HD_RF(UPSTREAM_TIMEOUT), "response_timeout");
        return;
    }
    if (t->until_ns != UINT64_MAX && hd_loop_now_ns(req->loop) >= t->until_ns) {
        t->until_ns = UINT64_MAX; /* a hedge leaves this one running */
        hd_proxy_on_timeout(t->proxy, t);
        return;
    }
    hd_ignore(hd_req_err(req, HD_E_TIMEOUT, "upstream timed out while %s, %s",
                         t->step == HD_TRY_STEP_SEND
                             ? "sending request"
                             : "reading response header from upstream",
                         describe(t, text, sizeof(text))));
    fail(t, t->is_idle_next ? HD_FAIL_IDLE : HD_FAIL_SILENT, HD_RESULT_TIMEOUT, NULL);
}

/* --- the exchange --- */

/* What its conn carried meanwhile: of HTTP/2, where others share it, theirs, too. */
static void count_bytes(hd_try_t *t, const hd_exchange_t *x)
{
    const hd_conn_t *c = x->upconn != NULL ? x->upconn->conn : NULL;

    if (c == NULL)
        return;
    t->bytes_received = c->bytes_in - t->conn_in;
    t->bytes_sent = c->bytes_out - t->conn_out;
}

/* A condition, as nginx reads it. */
static bool holds(hd_req_t *req, const hd_expr_t *e)
{
    hd_str_t value;

    return hd_expr_eval(e, req, &value) == HD_OK && value.len > 0 &&
           !hd_str_eq(value, HD_STR("0"));
}

/* early_hints: some clients can't stand what HTTP/1.1 allows. */
static bool takes_hints(hd_req_t *req)
{
    const hd_expr_t *const *e = req->loc->early_hints;

    if (hd_likely(e == NULL))
        return true;
    while (*e != NULL && !holds(req, *e))
        e++;
    return *e != NULL;
}

static void on_interim(hd_exchange_t *x)
{
    hd_try_t *t = x->owner;
    hd_req_t *req = t->req;
    hd_res_head_t final = req->res;

    hd_try_push_timer(t);
    /* ours was sent when the body was wanted */
    if (x->res.status == 100 || (t->proxy->winner != NULL && t->proxy->winner != t) ||
        (x->res.status == 103 && !takes_hints(req)))
        return;
    req->res = x->res;
    hd_response_interim(req);
    req->res = final;
}

static void on_head(hd_exchange_t *x)
{
    hd_try_t *t = x->owner;

    t->status = x->res.status;
    t->head_ns = hd_loop_now_ns(t->req->loop);
    hd_proxy_on_head(t->proxy, t);
}

/* The upstream's trailers; add_trailer's join those of the answer alone. */
static void take_trailers(hd_try_t *t, const hd_exchange_t *x)
{
    hd_headers_t *kept = hd_pool_new(t->req->pool, hd_headers_t);

    *kept = x->trailers;
    t->trailers = kept;
    if (!t->proxy->conf->drops_trailers)
        t->req->res_trailers = x->trailers;
}

static void on_body(hd_exchange_t *x, hd_chain_t *body)
{
    hd_try_t *t = x->owner;

    t->body_bytes += body->bytes;
    if (hd_chain_flags(body) & HD_SLICE_END) {
        if (hd_chain_flags(body) & HD_SLICE_TRAILERS)
            take_trailers(t, x);
        count_bytes(t, x);
        t->x = NULL; /* it ends with this call */
        hd_try_end(t, HD_RESULT_OK);
    }
    hd_proxy_on_body(t->proxy, t, body);
}

static bool takes_pipes(const hd_exchange_t *x)
{
    const hd_try_t *t = x->owner;

    return t->step == HD_TRY_STEP_BODY && hd_proxy_takes_pipes(t->proxy, t);
}

static void on_writable(hd_exchange_t *x)
{
    hd_try_t *t = x->owner;

    hd_try_push_timer(t);
    hd_proxy_on_writable(t->proxy);
}

/* May the same request go out once more without anybody noticing? The conn was closed by
 * the peer while it idled, before a byte of an answer. */
static bool may_repeat(const hd_try_t *t, hd_exchange_end_t why)
{
    if (t->is_repeated || t->status != 0 || t->proxy->replay_lost ||
        t->step >= HD_TRY_STEP_BODY)
        return false;
    if (why == HD_XR_REFUSED)
        return true;
    if (!t->was_reused || (why != HD_XR_CLOSED && why != HD_XR_RESET))
        return false;
    return hd_method_is_idempotent(hd_req_up_method_id(t->req)) || !t->x->head_written;
}

/* It is within the budget of retries, and given back with them. */
static bool try_count_repeat(hd_try_t *t)
{
    if (t->counted_retry != HD_GAUGE_NONE ||
        hd_cluster_try_count(t->req->member, t->pick.cluster_slot, t->pick.cluster,
                             t->pick.is_high, HD_CG_RETRIES, &t->counted_retry))
        return true;
    hd_request_add_flag(t->req, HD_RF(UPSTREAM_OVERFLOW));
    return false;
}

/* In the middle of an answer, which the client can't be told of any more. */
static void fail_body(hd_try_t *t, hd_exchange_end_t why)
{
    hd_try_end(t, HD_RESULT_RESET);
    if (why == HD_XR_PROTOCOL)
        hd_proxy_cut_body(t->proxy, 502, HD_RF(UPSTREAM_PROTOCOL),
                          "upstream_reset_after_response_started{protocol_error}");
    else if (why == HD_XR_CLOSED)
        hd_proxy_cut_body(
            t->proxy, 502, HD_RF(UPSTREAM_CLOSED),
            "upstream_reset_after_response_started{connection_termination}");
    else
        hd_proxy_cut_body(t->proxy, 502, HD_RF(UPSTREAM_RESET),
                          "upstream_reset_after_response_started{remote_reset}");
}

static void on_end(hd_exchange_t *x, hd_exchange_end_t why, const hd_err_t *err)
{
    static const hd_fail_t fails[] = {
        [HD_XR_CLOSED] = HD_FAIL_CLOSED, [HD_XR_RESET] = HD_FAIL_RESET,
        [HD_XR_STREAM] = HD_FAIL_RESET,  [HD_XR_PROTOCOL] = HD_FAIL_PROTOCOL,
        [HD_XR_REFUSED] = HD_FAIL_RESET, [HD_XR_TOO_LARGE] = HD_FAIL_PROTOCOL};
    hd_try_t *t = x->owner;
    char text[96];
    hd_try_result_t r = {
        .result = HD_RESULT_RESET,
        .status = t->status,
        .grpc_status = UINT32_MAX,
        .attempt = t->attempt,
        .head_sent = x->head_written,
        .is_reused_conn = t->was_reused,
        .refused_stream = why == HD_XR_REFUSED,
        .is_invalid = why == HD_XR_PROTOCOL || why == HD_XR_TOO_LARGE,
    };

    /* The budget is for peers that have too much to do, not for our ignorance. */
    if (may_repeat(t, why) && (x->was_unaware || try_count_repeat(t))) {
        t->x = NULL;
        t->is_repeated = true;
        t->step = HD_TRY_STEP_CONNECT;
        hd_timer_stop(t->req->loop, &t->timer);
        hd_request_wake(t->req); /* resumed in CONNECT: we stand in the codec here */
        return;
    }
    count_bytes(t, x);
    t->x = NULL;
    if (err != NULL && err->code != HD_E_NONE)
        hd_ignore(hd_req_err(t->req, err->code, "%s%s, %s",
                             why == HD_XR_RESET ? "upstream reset the connection: " : "",
                             err->text, describe(t, text, sizeof(text))));
    /* The conn itself was reset, not a stream of it: Envoy's "connection termination". */
    if (why == HD_XR_RESET && err != NULL && err->sys_errno != 0)
        why = HD_XR_CLOSED;
    if (t->step == HD_TRY_STEP_BODY) {
        fail_body(t, why);
        return;
    }
    hd_try_end(t, HD_RESULT_RESET);
    hd_proxy_on_fail(t->proxy, t, fails[why], &r);
}

static const hd_exchange_user_t exchange_user = {
    .on_interim = on_interim,
    .on_head = on_head,
    .on_body = on_body,
    .on_writable = on_writable,
    .takes_pipes = takes_pipes,
    .on_end = on_end,
};

/* --- the steps --- */

static hd_rc_t ask_modules(hd_try_t *t)
{
    hd_req_t *req = t->req;

    if (!(req->hooks & HD_HOOK_PICK))
        return HD_OK;
    for (uint32_t i = 0; i < req->chain_n; i++) {
        const hd_filter_conf_t *f = &req->chain[i];
        const hd_module_t *mod = hd_filter_module(f);
        hd_rc_t rc;

        if (mod == NULL || mod->on_pick == NULL)
            continue;
        req->running = f;
        rc = mod->on_pick(req, f->conf, &t->pick);
        req->running = NULL;
        if (rc == HD_AGAIN || rc == HD_ERROR)
            return rc;
    }
    return HD_OK;
}

/* Endpoints that earlier tries went to. */
static void list_tried(hd_try_t *t)
{
    hd_addr_t *tried;
    uint8_t *priorities;
    uint32_t n = 0;

    if (t->attempt == 1)
        return;
    tried = hd_pool_alloc(t->req->pool, t->req->tries_n * sizeof(*tried));
    priorities = hd_pool_alloc(t->req->pool, t->req->tries_n);
    for (const hd_try_t *other = t->next; other != NULL; other = other->next) {
        if (other->pick.addr.family != AF_UNSPEC && other->proxy == t->proxy) {
            tried[n] = other->pick.addr;
            priorities[n++] = other->pick.priority;
        }
    }
    t->pick.tried = tried;
    t->pick.tried_priorities = priorities;
    t->pick.tried_n = n;
}

/* Its place among the cluster's active requests, taken when it has a conn: until then it
 * is pending. A try that is repeated has it already. */
static bool try_count_request(hd_try_t *t)
{
    if (t->counted_request != HD_GAUGE_NONE || t->pick.fixed != NULL)
        return true;
    return hd_cluster_try_count(t->req->member, t->pick.cluster_slot, t->pick.cluster,
                                t->pick.is_high, HD_CG_REQUESTS, &t->counted_request);
}

/* A header may name another destination, where the cluster says so; one that is no
 * address is none (Envoy). */
static void set_original_dst(hd_try_t *t, const hd_cluster_t *c)
{
    bool found;
    hd_str_t value = hd_req_header(t->req, c->more->original_dst_header, &found);
    hd_addr_t addr;

    if (found && hd_addr_parse(t->req->pool, value, 0, &addr, NULL) == HD_OK &&
        addr.family != AF_UNIX && addr.port != 0)
        t->pick.original_dst = addr;
}

/* What nginx-style clusters hash: their key's value, the client's address. */
static void set_key(hd_try_t *t)
{
    hd_req_t *req = t->req;
    const hd_slot_t *slot = t->pick.cluster_slot;
    const hd_region_t *r = slot != NULL ? hd_slot_get(req->member, slot) : NULL;
    const hd_cluster_t *c = r != NULL ? r->root : NULL;

    if (c == NULL)
        return;
    if (c->hash_key != NULL && hd_expr_eval(c->hash_key, req, &t->pick.key) != HD_OK)
        t->pick.key = HD_STR_NONE;
    if (hd_unlikely(c->more != NULL) && c->more->original_dst_header.len > 0)
        set_original_dst(t, c);
    if (hd_unlikely(c->sticky != NULL))
        hd_stay_ask(t, c);
    if (c->lb == HD_LB_IP_HASH && req->conn != NULL)
        t->pick.client = hd_request_peer(req);
}

static hd_rc_t pick(hd_try_t *t)
{
    hd_req_t *req = t->req;
    hd_err_t err = {0};
    hd_rc_t rc = ask_modules(t);

    set_key(t);
    if (rc == HD_OK)
        rc = hd_balancer->pick(req->member, &t->pick, &req->wake, &err);
    if (rc == HD_AGAIN)
        return rc;
    if (rc != HD_OK) {
        hd_ignore(hd_req_err(req, err.code != HD_E_NONE ? err.code : HD_E_INTERNAL, "%s",
                             err.code == HD_E_NO_HEALTHY
                                 ? "no live upstreams while connecting to upstream"
                             : err.text[0] != '\0' ? err.text
                                                   : "no upstream was chosen"));
        fail(t,
             err.code == HD_E_NO_CLUSTER   ? HD_FAIL_NO_CLUSTER
             : err.code == HD_E_NO_HEALTHY ? HD_FAIL_NO_HEALTHY
                                           : HD_FAIL_INTERNAL,
             HD_RESULT_CANCELLED, &err);
        return HD_ERROR;
    }
    t->is_picked = true;
    if (t->proxy->conf->tls != NULL &&
        (!t->proxy->conf->has_scheme_var || t->proxy->is_https))
        t->pick.tls =
            t->proxy->conf->tls; /* proxy_ssl_*: the route's before the cluster's */
    return HD_OK;
}

static hd_up_protocol_t protocol_of(const hd_try_t *t)
{
    const hd_proxy_conf_t *conf = t->proxy->conf;
    hd_up_protocol_t p = conf->has_protocol ? conf->protocol : t->pick.cluster->protocol;

    if (hd_unlikely(hd_action_is_tunnel(t->req)))
        return HD_UP_RAW;
    if (p == HD_UP_SAME)
        p = t->req->head.version == HD_HTTP_20 ? HD_UP_HTTP2 : HD_UP_HTTP1;
    return p;
}

/* The host of an authority: what a certificate may say. */
static hd_str_t host_of(hd_str_t authority)
{
    ssize_t at;

    if (authority.len > 0 && authority.data[0] == '[') {
        at = hd_str_find_char(authority, ']');
        return hd_str_sub(authority, 1, at > 0 ? (size_t)at - 1 : authority.len);
    }
    at = hd_str_find_char(authority, ':');
    return at >= 0 ? hd_str_sub(authority, 0, (size_t)at) : authority;
}

/* The same, as far as SNI may say it (RFC 6066 §3: no address). */
static hd_str_t sni_of(hd_str_t authority)
{
    hd_str_t host = host_of(authority);
    hd_addr_t ip;

    return host.len == 0 || authority.data[0] == '[' || hd_addr_parse_ip(host, &ip)
               ? HD_STR_NONE
               : host;
}

/* Over mutual TLS the upstream may be a Heddle, too, whose requests of this identity go
 * over one conn (hd_weft.h). Tunnels need a conn of their own, and so do heads that may
 * be longer than a weft takes. */
static bool may_multiplex(const hd_try_t *t)
{
    const hd_req_head_t *head = &t->req->head;
    const hd_http_conf_t *http = t->req->http;

    return !t->proxy->conf->no_multiplex && t->pick.tls->trust != NULL &&
           !head->is_upgrade && head->method_id != HD_M_CONNECT &&
           (http == NULL || http->head_bytes_max <= HD_WEFT_HEAD_BYTES);
}

/* The name that variables made is the peer's, or the server's own. */
static void fill_tls_host(const hd_try_t *t, hd_str_t host, hd_upool_key_t *key)
{
    if (t->proxy->conf->sni_by_host)
        key->sni = sni_of(host);
    key->verify_host = host_of(host);
}

/* What Envoy takes from endpoint and request: auto_host_sni, auto_sni, which counts more,
 * auto_san_validation. */
static void fill_tls_auto(const hd_try_t *t, const hd_tls_conf_t *tls,
                          hd_upool_key_t *key)
{
    const hd_cluster_t *c = t->pick.cluster;

    if (tls->sni_by_endpoint && t->pick.endpoint != NULL &&
        t->pick.endpoint->hostname.len > 0)
        key->sni = t->pick.endpoint->hostname;
    if (c->auto_sni)
        key->sni = sni_of(hd_req_up_host(t->req));
    if (c->auto_san)
        key->verify_host = host_of(hd_req_up_host(t->req));
}

static void fill_tls_key(const hd_try_t *t, hd_upool_key_t *key)
{
    const hd_tls_conf_t *tls = t->pick.tls;
    const hd_region_t *r;

    key->tls_hash = tls->hash;
    key->sni = tls->sni;
    fill_tls_auto(t, tls, key);
    if (hd_unlikely(t->proxy->conf->tls_by_server) && t->pick.endpoint != NULL &&
        t->pick.endpoint->hostname.len > 0)
        fill_tls_host(t, t->pick.endpoint->hostname, key);
    else if (t->proxy->conf->tls_by_host && t->proxy->addrs_n > 0)
        fill_tls_host(t, t->proxy->cluster_name, key);
    if (tls->certs_n == 0)
        return;
    key->offers_weft = may_multiplex(t);
    r = hd_slot_get(t->req->member, tls->certs[0]);
    if (r != NULL) {
        key->secret_version = r->version;
        key->source_identity = ((const hd_secret_t *)r->root)->spiffe_id;
    }
}

/* The client's own conn is told to the upstream, so no other client's requests go there.
 */
static void fill_proxy_key(const hd_try_t *t, hd_upool_key_t *key)
{
    const hd_conn_t *c = t->req->conn;

    key->proxy_version = t->pick.proxy_version;
    if (c == NULL || hd_conn_remote(c)->family == AF_UNIX ||
        hd_conn_local(c)->family == AF_UNIX)
        return;
    key->proxy_source = *hd_conn_remote(c);
    key->proxy_local = *hd_conn_local(c);
}

static void fill_key(const hd_try_t *t, hd_upool_key_t *key)
{
    *key = (hd_upool_key_t){
        .cluster = t->pick.cluster_slot,
        .addr = t->pick.addr,
        .bind = t->proxy->bind.family != AF_UNSPEC
                    ? t->proxy->bind
                    : *hd_cluster_bind(t->pick.cluster, t->pick.addr.family),
        .transparent = t->proxy->conf->bind_transparent,
        .probes_idle = t->proxy->conf->socket_keepalive,
        .protocol = (uint8_t)protocol_of(t),
        .is_high = t->pick.is_high && t->pick.cluster->high != NULL,
    };
    if (t->pick.tls != NULL)
        fill_tls_key(t, key);
    if (t->pick.proxy_version != 0)
        fill_proxy_key(t, key);
}

/* The peer's name, where it has variables. False: the try has failed: nothing to be
 * verified by would be anybody. */
static bool name_peer(hd_try_t *t, hd_upool_key_t *key)
{
    const hd_expr_t *e = t->proxy->conf->tls_name;
    hd_str_t name = HD_STR_NONE;

    if (hd_likely(e == NULL) || t->pick.tls == NULL)
        return true;
    if (hd_expr_eval(e, t->req, &name) == HD_OK &&
        (name.len == 0 || memchr(name.data, '\0', name.len) == NULL))
        fill_tls_host(t, name, key);
    if (key->verify_host.len > 0)
        return true;
    hd_ignore(hd_req_err(t->req, HD_E_CONF, "no name of the upstream \"%.*s\"",
                         HD_STR_ARG(name)));
    fail(t, HD_FAIL_CONNECT, HD_RESULT_CANCELLED, NULL);
    return false;
}

/* The names of our certificate, where they have variables. False: the try has failed. */
static bool name_own_cert(hd_try_t *t, hd_upool_key_t *key)
{
    const hd_tls_pair_t *p = t->pick.tls != NULL ? t->pick.tls->pairs : NULL;

    if (hd_likely(p == NULL))
        return true;
    if (hd_expr_eval(p->cert, t->req, &key->own_cert) == HD_OK &&
        hd_expr_eval(p->key, t->req, &key->own_key) == HD_OK &&
        !hd_expr_climbs(p->cert, key->own_cert) && !hd_expr_climbs(p->key, key->own_key))
        return true;
    hd_ignore(hd_req_err(t->req, HD_E_CONF,
                         "unsafe name of a certificate \"%.*s\" with key \"%.*s\"",
                         HD_STR_ARG(key->own_cert), HD_STR_ARG(key->own_key)));
    fail(t, HD_FAIL_INTERNAL, HD_RESULT_CANCELLED, NULL);
    return false;
}

static hd_fail_t fail_of(const hd_err_t *err)
{
    return err->code == HD_E_LIMIT     ? HD_FAIL_OVERFLOW
           : err->code == HD_E_TIMEOUT ? HD_FAIL_CONNECT_TIMEOUT
                                       : HD_FAIL_CONNECT;
}

static void fail_connect(hd_try_t *t, const hd_err_t *err)
{
    /* nginx's words: the address stands behind them, in `upstream: "…"` */
    if (err->sys_errno != 0 &&
        hd_str_has_prefix(hd_str_c(err->text), HD_STR("connect()")))
        hd_ignore(hd_req_err(t->req, err->code,
                             "connect() failed (%d: %s) while connecting to upstream",
                             err->sys_errno, strerror(err->sys_errno)));
    else
        hd_ignore(
            hd_req_err(t->req, err->code, "%s while connecting to upstream", err->text));
    if (err->code == HD_E_INTERNAL ||
        hd_err_is_shortage(err)) /* no fault of the server */
        fail(t, HD_FAIL_INTERNAL, HD_RESULT_CANCELLED, NULL);
    else
        fail(t, fail_of(err),
             err->code == HD_E_LIMIT ? HD_RESULT_CANCELLED : HD_RESULT_CONNECT, err);
}

/* It may go with its length rather than in chunks. */
static bool is_whole_body(const hd_proxy_t *p)
{
    return p->body_complete && !p->replay_lost &&
           (p->req->trailers.n == 0 || p->drops_body || p->conf->is_http10);
}

/* Head, and as much of the body as is there. */
static void send_request(hd_try_t *t, hd_upconn_t *u)
{
    hd_proxy_t *p = t->proxy;
    hd_req_t *req = t->req;
    const hd_cluster_more_t *more = t->pick.cluster->more;
    hd_chain_t body;
    bool has_body = p->has_body;
    int64_t length = p->length;
    uint64_t timeout_ms;

    if (!try_count_request(t)) {
        hd_upool_put_back(u);
        hd_ignore(hd_req_err(req, HD_E_LIMIT, "upstream \"%.*s\" has %u active requests",
                             HD_STR_ARG(t->pick.cluster->name),
                             hd_cluster_breaker(t->pick.cluster_slot, t->pick.cluster,
                                                t->pick.is_high, HD_CG_REQUESTS)
                                 .max));
        fail(t, HD_FAIL_OVERFLOW, HD_RESULT_CANCELLED, NULL);
        return;
    }
    if (hd_unlikely(p->conf->is_http10 && has_body && length == HD_LEN_UNKNOWN &&
                    !is_whole_body(p))) {
        hd_upool_put_back(u);
        hd_ignore(hd_req_err(req, HD_E_LIMIT,
                             "a body of unknown length is beyond what is kept of it, and "
                             "HTTP/1.0 has no chunks"));
        hd_try_end(t, HD_RESULT_CANCELLED);
        hd_response_fail(req, 411, 0, "length_required");
        return;
    }
    t->connected_ns = hd_loop_now_ns(req->loop);
    t->x = hd_exchange_begin(u, req->pool, &exchange_user, t);
    hd_bug_on(t->x == NULL); /* the pool gave it for just this */
    t->was_reused = t->x->is_reused_conn;
    t->conn_in = u->conn->bytes_in;
    t->conn_out = u->conn->bytes_out;
    t->idle_ms = u->idle_ms;
    t->x->is_http10 = p->conf->is_http10;
    t->x->head_bytes_max =
        more != NULL && more->head_bytes_max > 0
            ? hd_min(more->head_bytes_max, (uint32_t)HD_WEFT_HEAD_BYTES)
            : p->conf->head_bytes_max;
    t->x->fields_max = more != NULL ? more->fields_max : 0;
    if (u->conn->facts != NULL && u->conn->facts->peer_principal.len > 0) {
        t->peer_principal = hd_str_dup(req->pool, u->conn->facts->peer_principal);
        t->own_principal = hd_str_dup(req->pool, u->conn->facts->local_principal);
    }
    t->step = HD_TRY_STEP_SEND;
    if (p->conf->host_is_upstreams && req->http != NULL && req->http->is_xds &&
        t->pick.endpoint != NULL && t->pick.endpoint->hostname.len > 0 &&
        !hd_str_eq(req->up_host, t->pick.endpoint->hostname)) /* auto_host_rewrite */
        hd_http_xds_set_host(req, p->conf, t->pick.endpoint->hostname);
    if (req->http != NULL && req->http->is_xds)
        hd_http_xds_try(req, p->conf, t->attempt);
    if (req->upstream_start_ns == 0)
        req->upstream_start_ns = t->connected_ns;
    if (has_body && is_whole_body(p))
        length = (int64_t)p->replay.bytes +
                 p->temp_bytes; /* all is here: no need for chunks */
    u->codec->send_head(t->x, req, has_body, has_body ? length : 0);
    if (t->x == NULL) /* it ended at once; on_end was told */
        return;
    timeout_ms =
        t->pick.try_timeout_ms > 0 ? t->pick.try_timeout_ms : p->conf->try_timeout_ms;
    if (timeout_ms > 0)
        t->until_ns = t->connected_ns + timeout_ms * 1000000;
    if (hd_unlikely(more != NULL) && more->stream_ms > 0)
        t->over_ns = t->connected_ns + more->stream_ms * UINT64_C(1000000);
    if (!has_body) {
        t->step = HD_TRY_STEP_HEAD;
        hd_try_push_timer(t);
        return;
    }
    hd_chain_init(&body);
    if (p->replay_lost)
        hd_chain_move(&body, &p->held);
    else
        hd_chain_share(&body, &p->replay);
    if (!hd_chain_is_empty(&body))
        hd_try_send_body(t, &body);
    else
        hd_try_push_timer(t);
    hd_proxy_send_temp(p, t);
    if (t->x != NULL && !req->body_ended && !p->drops_body) /* there is room for it now */
        req->client->want_body(req);
}

void hd_try_send_body(hd_try_t *t, hd_chain_t *body)
{
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;

    t->x->upconn->codec->send_body(t->x, body, &t->req->trailers);
    hd_chain_free(body);
    if (t->x == NULL)
        return;
    if (is_last && t->step == HD_TRY_STEP_SEND)
        t->step = HD_TRY_STEP_HEAD;
    hd_try_push_timer(t);
}

static void on_conn(hd_pool_wait_t *w, hd_upconn_t *u, const hd_err_t *err)
{
    hd_try_t *t = hd_container_of(w, hd_try_t, wait);

    t->is_waiting = false;
    if (u == NULL)
        fail_connect(t, err);
    else
        send_request(t, u);
}

static void get_conn(hd_try_t *t)
{
    const hd_proxy_conf_t *conf = t->proxy->conf;
    hd_upool_key_t key;
    hd_upconn_t *u = NULL;
    hd_err_t err = {0};
    uint64_t ms = conf->connect_timeout_ms > 0 ? conf->connect_timeout_ms
                                               : t->pick.cluster->connect_timeout_ms;
    hd_rc_t rc;

    fill_key(t, &key);
    if (!name_peer(t, &key) || !name_own_cert(t, &key))
        return;
    t->wait.on_conn = on_conn;
    rc = hd_upool_get(t->req->loop, t->req->member, &key, &t->pick, ms,
                      t->is_repeated ? HD_UPOOL_FRESH
                      : hd_method_is_idempotent(hd_req_up_method_id(t->req))
                          ? HD_UPOOL_ANY
                          : HD_UPOOL_SURE,
                      &u, &t->wait, &err);
    if (rc == HD_AGAIN)
        t->is_waiting = true;
    else if (rc == HD_OK)
        send_request(t, u);
    else
        fail_connect(t, &err);
}

/* proxy_allow_upstream and the like: which server it is counts, too. That its client may
 * not go there says nothing about the server. */
static bool is_allowed(hd_try_t *t)
{
    const hd_expr_t *const *e = t->proxy->conf->allow;

    if (hd_likely(e == NULL))
        return true;
    while (*e != NULL && holds(t->req, *e))
        e++;
    if (*e == NULL)
        return true;
    hd_ignore(hd_req_err(t->req, HD_E_DENIED,
                         "access to the upstream forbidden by \"allow_upstream\""));
    t->status = 403; /* for $upstream_status */
    fail(t, HD_FAIL_DENIED, HD_RESULT_CANCELLED, NULL);
    return false;
}

/* proxy_bind_dynamic */
static bool bind_each(hd_try_t *t)
{
    const hd_proxy_conf_t *conf = t->proxy->conf;

    if (hd_likely(!conf->binds_each) || conf->bind == NULL ||
        hd_proxy_eval_bind(t->proxy) == HD_OK)
        return true;
    fail(t, HD_FAIL_INTERNAL, HD_RESULT_CANCELLED, NULL);
    return false;
}

static void run(hd_try_t *t)
{
    if (t->step == HD_TRY_STEP_PICK) {
        if (pick(t) != HD_OK) /* waits, or has failed */
            return;
        if (!is_allowed(t) || !bind_each(t))
            return;
        t->step = HD_TRY_STEP_CONNECT;
    }
    if (t->step == HD_TRY_STEP_CONNECT && !t->is_waiting)
        get_conn(t);
}

void hd_try_resume(hd_try_t *t)
{
    if (t->step <= HD_TRY_STEP_CONNECT)
        run(t);
}

void hd_try_start(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    hd_try_t *t = hd_pool_new(req->pool, hd_try_t);
    const hd_weighted_t *target = req->target;

    t->req = req;
    t->proxy = p;
    t->next = req->tries;
    req->tries = t;
    req->tries_n++;
    t->attempt = ++p->attempts;
    t->start_ns = hd_loop_now_ns(req->loop);
    t->until_ns = t->over_ns = UINT64_MAX;
    t->result = HD_RESULT_CANCELLED;
    t->counted_retry = p->retry_counted;
    p->retry_counted = HD_GAUGE_NONE; /* the try's now */
    hd_timer_init(&t->timer, on_timer);
    t->pick.cluster_slot = p->cluster;
    t->pick.addrs = p->addrs;
    t->pick.addrs_n = p->addrs_n;
    t->pick.is_high = p->conf->is_high;
    t->pick.hash = p->hash;
    t->pick.has_hash = p->has_hash;
    if (target != NULL) {
        t->pick.subset = target->subset;
        t->pick.subset_n = target->subset_n;
        t->pick.fixed = target->fixed;
    }
    if (req->conn != NULL && req->conn->facts != NULL)
        t->pick.original_dst = *hd_conn_original_dst(req->conn);
    list_tried(t);
    run(t);
}

/* --- its end --- */

static void uncount(hd_member_t *m, hd_gauge_id_t *gauge)
{
    if (*gauge != HD_GAUGE_NONE)
        hd_gauge_down(m, *gauge);
    *gauge = HD_GAUGE_NONE;
}

void hd_try_end(hd_try_t *t, hd_pick_result_t result)
{
    hd_member_t *m = t->req->member;
    hd_exchange_t *x = t->x;

    if (t->step == HD_TRY_STEP_END)
        return;
    t->step = HD_TRY_STEP_END;
    t->result = result;
    t->end_ns = hd_loop_now_ns(t->req->loop);
    if (hd_timer_is_set(&t->timer))
        hd_timer_stop(t->req->loop, &t->timer);
    if (t->is_waiting) {
        t->is_waiting = false;
        hd_upool_cancel(&t->wait);
    }
    t->x = NULL;
    if (x != NULL) {
        count_bytes(t, x);
        if (result == HD_RESULT_TIMEOUT)
            hd_exchange_timed_out(x);
        x->upconn->codec->cancel(x);
    }
    if (!t->is_tunnel)
        uncount(m, &t->counted_request);
    uncount(m, &t->counted_retry);
    if (t->is_picked && result != HD_RESULT_CANCELLED)
        hd_balancer->report(m, &t->pick, result, t->status);
}

void hd_try_release(hd_try_t *t)
{
    uncount(t->req->member, &t->counted_request); /* a tunnel's, until now */
    if (!t->is_picked)
        return;
    t->is_picked = false;
    if (t->pick.addr.family == AF_UNIX) /* a log may still print it */
        t->pick.addr.path = hd_str_dup(t->req->pool, t->pick.addr.path);
    t->pick.head_ns = t->head_ns;
    t->pick.end_ns = t->end_ns;
    hd_balancer->release(t->req->member, &t->pick, t->result, t->status);
}
