/* The response: through the filters in reverse order, then to the client. */
#include "core/net/hd_tunnel.h"
#include "http/hd_action_tunnel.h"
#include "http/hd_http_xds.h"
#include "http/hd_pace.h"
#include "http/hd_part.h"
#include "http/hd_request_int.h"
#include "http/hd_try.h"

/* hd_req_t.response_step */
enum {
    NOTHING,   /* no head yet */
    FILTERING, /* the head is with the filters; body waits */
    SENT,      /* the client has the head */
};

#define WAIT_BYTES 65536
#define H2_INTERNAL_ERROR 2

static void pass_body(hd_req_t *req);

/* Bytes of the response that a filter has put back. */
typedef struct hd_rest_s {
    struct hd_rest_s *next; /* of one further from the client */
    hd_chain_t bytes;
    uint16_t filter_at; /* as response_body_filter_at */
} hd_rest_t;

static void free_rests(hd_req_t *req)
{
    for (hd_rest_t *rest = req->rests; rest != NULL; rest = rest->next)
        hd_chain_free(&rest->bytes);
}

void hd_response_clear(hd_req_t *req)
{
    req->response_step = NOTHING;
    req->fields_n_plus_1 = 0;
    req->parked &= (uint8_t) ~(HD_HOOK_RESPONSE | HD_HOOK_RESPONSE_BODY);
    hd_chain_free(&req->response_wait);
    hd_chain_free(&req->response_held);
    free_rests(req);
    if (hd_unlikely(req->pace != NULL))
        hd_pace_stop(req);
    req->response_body_filter_at = 0;
    req->part = NULL;
    req->may_be_cut = false;
    req->wanted_charset = HD_STR_NONE;
    if (req->tunnel_up != NULL)
        hd_conn_reset(req->tunnel_up);
    req->tunnel_up = NULL;
}

unsigned hd_response_fields_n(const hd_req_t *req)
{
    return req->fields_n_plus_1 > 0 ? req->fields_n_plus_1 - 1u : req->res.headers.n;
}

void hd_response_keep_upstream(hd_req_t *req)
{
    hd_headers_t *kept;

    if (hd_likely(req->upstream_status == 0 || req->is_local_reply))
        return;
    kept = hd_pool_alloc(req->pool, sizeof(*kept));
    *kept = req->res.headers;
    kept->n = (uint16_t)hd_response_fields_n(req);
    req->up_headers = kept;
    req->is_local_reply = true; /* nothing of it is an answer any more */
}

void hd_response_abort(hd_req_t *req)
{
    if (req->response_ended)
        return;
    req->client->abort(req, H2_INTERNAL_ERROR);
    hd_chain_free(&req->response_wait);
    hd_chain_free(&req->response_held);
    free_rests(req);
    hd_request_end_response(req);
}

/* --- Upgrade and CONNECT --- */

/* In the words for other requests: who broke it off. */
static void note_tunnel_error(hd_req_t *req, const hd_tunnel_result_t *result)
{
    static const struct {
        const char *by;
        uint64_t flag;
        const char *details;
    } ends[] = {
        {"downstream", HD_RF(DOWNSTREAM_CLOSED), "downstream_remote_disconnect"},
        {"upstream", HD_RF(UPSTREAM_CLOSED),
         "upstream_reset_after_response_started{connection_termination}"},
        {"idle", HD_RF(STREAM_IDLE), "stream_idle_timeout"},
        {"deaf", HD_RF(UPSTREAM_TIMEOUT), "response_timeout"},
    };

    hd_ignore(hd_req_err(req, result->err->code, "%s", result->err->text));
    for (size_t i = 0; i < hd_countof(ends); i++) {
        if (strcmp(result->ended_by, ends[i].by) == 0) {
            hd_request_add_flag(req, ends[i].flag);
            req->details = ends[i].details;
            req->client_gone |= i == 0;
        }
    }
}

static void on_tunnel_end(void *arg, const hd_tunnel_result_t *result)
{
    hd_req_t *req = arg;

    req->bytes_received += result->bytes_down_up;
    req->bytes_sent += result->bytes_up_down;
    req->tunnel = NULL;
    hd_proxy_end_tunnel(req, result->bytes_down_up, result->bytes_up_down);
    if (result->err != NULL && result->err->code != HD_E_NONE)
        note_tunnel_error(req, result);
    hd_request_log(req); /* while the conns are still there */
    hd_request_end_response(req);
}

/* The head is out: the two conns become one byte stream. */
static void start_tunnel(hd_req_t *req)
{
    const hd_proxy_conf_t *proxy = req->route != NULL ? req->route->proxy : NULL;
    hd_tunnel_conf_t conf = {0};
    hd_conn_t *up = req->tunnel_up, *down;
    const hd_client_ops_t *client = req->client;

    if (proxy != NULL)
        conf.idle_timeout_ms = hd_request_idle_ms(req, proxy);
    if (proxy != NULL && conf.idle_timeout_ms == 0)
        conf.idle_timeout_ms = proxy->read_timeout_ms;
    if (hd_action_is_tunnel(req) && proxy != NULL)
        conf.send_timeout_ms = proxy->send_timeout_ms;
    req->tunnel_up = NULL;
    hd_timer_stop(req->loop, &req->deadline);
    down = req->client->take_conn == NULL ? NULL : req->client->take_conn(req);
    if (down == NULL) {
        hd_conn_reset(up);
        hd_response_abort(req);
        return;
    }
    if (req->client == client)
        req->client = &hd_client_gone; /* the codec has let go */
    req->is_tunnel = true;
    req->tunnel = hd_tunnel_start(down, up, &conf, on_tunnel_end, req);
}

void hd_request_tunnel(hd_req_t *req, hd_conn_t *up)
{
    req->tunnel_up = up;
    hd_response_start(req);
}

/* --- the head --- */

static bool filters_body(const hd_req_t *req, size_t at)
{
    const hd_module_t *mod = hd_filter_module(&req->chain[at]);

    return mod != NULL &&
           (mod->on_response_body != NULL || mod->on_response_trailers != NULL) &&
           (at >= 64 || !(req->body_skips >> at & 1));
}

static bool has_body_filter(const hd_req_t *req)
{
    for (size_t i = 0; i < req->chain_n; i++) {
        if (filters_body(req, i))
            return true;
    }
    return false;
}

static void send_head(hd_req_t *req)
{
    if (hd_unlikely(req->may_be_cut) && !hd_part_start(req))
        return; /* answered anew */
    req->response_step = SENT;
    req->response_started = true;
    req->has_body_filter = (req->hooks & HD_HOOK_RESPONSE_BODY) && has_body_filter(req);
    hd_local_speak_grpc(req);
    if (req->res.has_body && (req->head.method_id == HD_M_HEAD || req->res.status < 200 ||
                              req->res.status == 204 || req->res.status == 304))
        req->res.has_body = false;
    req->client->send_head(req, false);
    if (hd_unlikely(req->has_rate || req->loc->limit_rate != NULL) && req->res.has_body &&
        !req->is_sub && req->tunnel_up == NULL)
        hd_pace_start(req);
    if (req->tunnel_up != NULL)
        start_tunnel(req);
}

/* A response filter's word other than "go on" or "wait". */
static void obey_filter(hd_req_t *req, hd_rc_t rc)
{
    if (rc == HD_REROUTE) {
        hd_request_reroute(req, req->reroute_to);
        return;
    }
    if (rc == HD_DONE && (req->action_ops == &hd_local_action || req->response_ended))
        return; /* answered anew: that response passes the filters that are left */
    hd_response_fail(req, 500, 0, "response_filter_failed");
}

static bool filter_head(hd_req_t *req)
{
    while (req->response_filter_at > 0) {
        const hd_filter_conf_t *f = &req->chain[req->response_filter_at - 1];
        const hd_module_t *mod = hd_filter_module(f);
        hd_rc_t rc;

        if (mod == NULL || mod->on_response_headers == NULL) {
            req->response_filter_at--;
            continue;
        }
        req->running = f;
        req->is_resumed = (req->parked & HD_HOOK_RESPONSE) != 0;
        req->parked &= (uint8_t)~HD_HOOK_RESPONSE;
        req->response_filters_n = (uint16_t)(req->response_filter_at - 1);
        rc = mod->on_response_headers(req, f->conf);
        req->running = NULL;
        if (rc == HD_AGAIN) {
            req->parked |= HD_HOOK_RESPONSE;
            return false;
        }
        if (rc != HD_OK && rc != HD_DECLINED) {
            obey_filter(req, rc);
            return false;
        }
        req->response_filter_at--;
    }
    return true;
}

static bool has_trailers(const hd_req_t *req)
{
    return req->route != NULL && req->route->trailer_ops_n > 0 && req->res.has_body &&
           req->head.version >= HD_HTTP_11 && req->head.method_id != HD_M_HEAD &&
           hd_header_ops_has_trailers(req);
}

void hd_response_start(hd_req_t *req)
{
    bool is_xds;

    hd_assert(!req->response_started);
    req->response_step = FILTERING;
    req->response_filter_at = hd_min(req->chain_n, req->response_filters_n);
    req->body_skips = 0;
    if (hd_unlikely(req->error_status != 0)) {
        req->res.status = req->error_status;
        req->res.reason = HD_STR_NONE;
        if (req->error_status == 204) /* error_page … =204: nothing has no type */
            hd_headers_remove(&req->res.headers, HD_STR("Content-Type"));
    }
    if (hd_unlikely(req->kept != NULL))
        hd_proxy_put_kept(req);
    req->fields_n_plus_1 = (uint16_t)(req->res.headers.n + 1);
    is_xds = req->http != NULL && req->http->is_xds;
    if (is_xds)
        hd_http_xds_routed(req);
    hd_header_ops_response(req);
    if (is_xds)
        hd_http_xds_response(req);
    hd_local_sign(req);
    if (hd_unlikely(has_trailers(req)) &&
        req->head.version < HD_HTTP_20) /* only chunks have them */
        req->res.content_length = HD_LEN_UNKNOWN;
    if (!(req->hooks & HD_HOOK_RESPONSE) || filter_head(req))
        send_head(req);
}

void hd_response_interim(hd_req_t *req)
{
    if (req->response_step == NOTHING)
        req->client->send_head(req, true);
}

/* --- the body --- */

/* A response without a body keeps only its end. */
void hd_response_pass(hd_req_t *req, hd_chain_t *body)
{
    unsigned flags = hd_chain_flags(body);

    if (hd_unlikely((flags & HD_SLICE_END) != 0 && has_trailers(req))) {
        hd_header_ops_trailers(req);
        if (req->res_trailers.n > 0)
            hd_chain_set_flags(body, HD_SLICE_TRAILERS);
        flags = hd_chain_flags(body);
    }
    if (hd_unlikely(!req->res.has_body && body->bytes > 0)) {
        hd_chain_free(body);
        hd_chain_set_flags(body, flags);
    }
    req->bytes_sent += body->bytes;
    if (!hd_chain_is_empty(body))
        req->client->send_body(req, body);
    hd_chain_free(body);
    if (flags & HD_SLICE_END)
        hd_request_end_response(req);
}

static void send_body(hd_req_t *req, hd_chain_t *body)
{
    if (hd_unlikely(req->part != NULL))
        hd_part_cut(req, body);
    if (hd_likely(req->pace == NULL) || hd_pace_pass(req, body))
        hd_response_pass(req, body);
}

static hd_rc_t run_body_filter(hd_req_t *req, const hd_module_t *mod,
                               const hd_filter_conf_t *f)
{
    hd_rc_t rc = HD_OK;

    req->running = f;
    req->is_resumed = (req->parked & HD_HOOK_RESPONSE_BODY) != 0;
    req->parked &= (uint8_t)~HD_HOOK_RESPONSE_BODY;
    if (mod->on_response_body != NULL)
        rc = mod->on_response_body(req, f->conf, &req->response_held);
    if (rc == HD_OK && mod->on_response_trailers != NULL &&
        (hd_chain_flags(&req->response_held) & HD_SLICE_TRAILERS))
        rc = mod->on_response_trailers(req, f->conf);
    req->running = NULL;
    return rc == HD_DECLINED ? HD_OK : rc;
}

/* What is held goes through the filters that it hasn't passed; <response_body_filter_at>
 * counts those passed, from the last. */
static hd_rc_t filter_body(hd_req_t *req)
{
    while (req->response_body_filter_at < req->chain_n) {
        size_t at = (size_t)req->chain_n - 1 - req->response_body_filter_at;

        if (filters_body(req, at)) {
            const hd_filter_conf_t *f = &req->chain[at];
            hd_rc_t rc = run_body_filter(req, hd_filter_module(f), f);

            if (rc == HD_AGAIN)
                req->parked |= HD_HOOK_RESPONSE_BODY;
            if (rc != HD_OK)
                return rc;
        }
        req->response_body_filter_at++;
    }
    req->response_body_filter_at = 0;
    return HD_OK;
}

void hd_res_put_back(hd_req_t *req, hd_chain_t *bytes)
{
    hd_rest_t **at = &req->rests, *rest;

    while (*at != NULL && (*at)->filter_at > req->response_body_filter_at)
        at = &(*at)->next;
    rest = *at;
    if (rest == NULL || rest->filter_at != req->response_body_filter_at) {
        rest = hd_pool_new(req->pool, hd_rest_t);
        rest->filter_at = req->response_body_filter_at;
        rest->next = *at;
        *at = rest;
    }
    hd_chain_move(&rest->bytes, bytes);
}

/* The next bytes for the filters: those that one has put back go before all that is
 * further from the client. False: there are none. */
static bool take_next(hd_req_t *req)
{
    for (hd_rest_t *rest = req->rests; rest != NULL; rest = rest->next) {
        if (!hd_chain_is_empty(&rest->bytes)) {
            hd_chain_move(&req->response_held, &rest->bytes);
            req->response_body_filter_at = rest->filter_at;
            return true;
        }
    }
    hd_chain_move(&req->response_held, &req->response_wait);
    return !hd_chain_is_empty(&req->response_held);
}

/* Lets in what waits, once the head is out. */
static void pass_body(hd_req_t *req)
{
    if (!req->has_body_filter) {
        if (!hd_chain_is_empty(&req->response_wait))
            send_body(req, &req->response_wait);
        return;
    }
    if ((req->parked & HD_HOOK_RESPONSE_BODY) && !req->may_resume)
        return;
    while (!req->response_ended &&
           (!hd_chain_is_empty(&req->response_held) ||
            (req->parked & HD_HOOK_RESPONSE_BODY) || take_next(req))) {
        hd_rc_t rc = filter_body(req);

        if (rc == HD_AGAIN)
            return;
        if (rc != HD_OK) { /* the head is out: nothing else can be said */
            hd_ignore(hd_req_err(req, HD_E_MODULE, "a filter failed on the response"));
            hd_response_abort(req);
            return;
        }
        send_body(req, &req->response_held);
    }
}

void hd_response_give_body(hd_req_t *req, hd_chain_t *body)
{
    /* an action that was let go of (a filter answered instead) may still speak */
    if (hd_unlikely(req->response_ended || !req->is_acting)) {
        hd_chain_free(body);
        return;
    }
    if (hd_likely(req->response_step == SENT && !req->has_body_filter &&
                  !req->is_tunnel)) {
        send_body(req, body);
        return;
    }
    hd_chain_move(&req->response_wait, body);
    if (req->response_step == SENT)
        pass_body(req);
}

void hd_response_resume(hd_req_t *req)
{
    bool was_full = hd_response_is_full(req);

    if (req->response_step == FILTERING) {
        if (!(req->parked & HD_HOOK_RESPONSE) || !req->may_resume)
            return;
        if (!filter_head(req))
            return;
        send_head(req);
    }
    if (req->response_step == SENT && !req->is_tunnel)
        pass_body(req);
    if (was_full && !hd_response_is_full(req))
        hd_request_on_drained(req);
}

/* Bytes that haven't passed the filters. */
static size_t waiting_bytes(const hd_req_t *req)
{
    size_t bytes = req->response_wait.bytes + req->response_held.bytes;

    for (const hd_rest_t *rest = req->rests; rest != NULL; rest = rest->next)
        bytes += rest->bytes.bytes;
    return bytes;
}

static bool is_client_full(const hd_req_t *req)
{
    if (hd_unlikely(req->pace != NULL) && hd_pace_is_holding(req))
        return true;
    return req->response_started && !req->response_ended &&
           req->client->is_full((hd_req_t *)(uintptr_t)req);
}

bool hd_response_is_full(const hd_req_t *req)
{
    return waiting_bytes(req) >= WAIT_BYTES || is_client_full(req);
}

bool hd_res_is_full(hd_req_t *req)
{
    bool is_full = is_client_full(req);

    req->waits_for_room |= is_full;
    return is_full;
}

bool hd_response_takes_files(hd_req_t *req)
{
    return req->response_step == SENT && !req->has_body_filter && req->part == NULL &&
           req->client->sends_files != NULL && req->client->sends_files(req);
}

void hd_response_fail(hd_req_t *req, unsigned status, uint64_t flag, const char *details)
{
    if (req->response_ended)
        return;
    if (!req->response_started) {
        hd_response_local(req, status, HD_STR_NONE, HD_STR_NONE, flag, details);
        return;
    }
    hd_request_add_flag(req, flag);
    req->details = details;
    hd_request_act(req, NULL);
    if (req->tunnel != NULL) {
        hd_tunnel_t *tunnel = req->tunnel;

        hd_tunnel_stop(tunnel, true); /* calls on_tunnel_end */
        return;
    }
    hd_response_abort(req);
}
