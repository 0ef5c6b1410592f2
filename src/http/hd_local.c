/* Answers made here: error pages in nginx's plain form, or as Envoy says them; gRPC
 * clients get a gRPC status. Server and Date of any response. */
#include "hd_version.h"
#include "core/hd_grpc.h"
#include "http/hd_h1_write.h"
#include "http/hd_request_int.h"
#include <stdio.h>
#include <time.h>

#define SERVER "heddle"
#define SERVER_TOKENS "heddle/" HD_VERSION

/* --- what every response gets --- */

hd_str_t hd_http_date(hd_loop_t *loop)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static _Thread_local char texts[2][32]; /* a reader may still hold the last one */
    static _Thread_local int64_t at_s = -1;
    static _Thread_local unsigned current;
    int64_t now_s = hd_loop_wall_ns(loop) / 1000000000;

    if (now_s != at_s) {
        time_t t = (time_t)now_s;
        struct tm tm;

        at_s = now_s;
        current ^= 1;
        gmtime_r(&t, &tm);
        snprintf(texts[current], sizeof(texts[current]),
                 "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + tm.tm_wday * 3,
                 (unsigned)tm.tm_mday % 100, months + tm.tm_mon * 3,
                 (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 100,
                 (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
    }
    return (hd_str_t){texts[current], 29};
}

static void put(hd_req_t *req, hd_header_id_t id, hd_str_t name, hd_str_t value,
                bool overwrite)
{
    hd_field_t *f = hd_headers_get(&req->res.headers, id);

    if (f == NULL)
        hd_headers_add_id(&req->res.headers, id, name, value);
    else if (overwrite)
        f->value = value;
}

void hd_local_sign(hd_req_t *req)
{
    const hd_http_conf_t *http = req->http;
    const hd_proxy_conf_t *proxy;
    hd_str_t server;

    if (req->conn == NULL && http == NULL) /* a call of our own */
        return;
    if (http != NULL && http->is_xds) {
        server = http->server_name;
        if (server.len == 0 && req->is_local_reply)
            server = HD_STR(SERVER);
        if (server.len > 0 && http->server_header != 2)
            put(req, HD_H_SERVER, HD_STR("server"), server, http->server_header == 0);
        put(req, HD_H_DATE, HD_STR("date"), hd_http_date(req->loop), false);
        return;
    }
    if (http != NULL && http->server_name.len > 0)
        server = http->server_name;
    else
        server = req->loc->server_tokens ? HD_STR(SERVER_TOKENS) : HD_STR(SERVER);
    proxy = req->is_local_reply || req->route == NULL ? NULL : req->route->proxy;
    /* who passes the upstream's passes that it has none, too */
    if (proxy == NULL || !proxy->pass_server)
        put(req, HD_H_SERVER, HD_STR("Server"), server, true);
    if (proxy == NULL || !proxy->pass_date)
        put(req, HD_H_DATE, HD_STR("Date"), hd_http_date(req->loop), true);
}

/* --- local answers --- */

typedef struct {
    hd_chain_t body;
    uint64_t not_before_ns; /* auth_delay; 0: it isn't held back */
} local_t;

static hd_rc_t start(hd_req_t *req)
{
    local_t *local = req->action;

    if (hd_unlikely(req->delays_denial)) {
        req->delays_denial = false;
        local->not_before_ns =
            hd_loop_now_ns(req->loop) + req->loc->auth_delay_ms * 1000000;
        return hd_req_wait_ms(req, req->loc->auth_delay_ms);
    }
    hd_response_start(req);
    hd_response_give_body(req, &local->body);
    return HD_AGAIN;
}

/* Whatever woke it: not before its time. */
static void on_wake(hd_req_t *req)
{
    local_t *local = req->action;

    if (local->not_before_ns == 0 || hd_timer_is_set(&req->timer))
        return;
    local->not_before_ns = 0;
    hd_ignore(start(req)); /* HD_AGAIN: until the response is over */
}

/* Nobody is left to be held back. */
static bool ends_with_client(hd_req_t *req)
{
    return ((const local_t *)req->action)->not_before_ns != 0;
}

const hd_action_ops_t hd_local_action = {.name = "local",
                                         .start = start,
                                         .on_wake = on_wake,
                                         .ends_with_client = ends_with_client};

static void free_local(void *arg)
{
    hd_chain_free(&((local_t *)arg)->body);
}

/* nginx's plain page; of a status that has no words, none. */
static hd_str_t html_page(hd_req_t *req, unsigned status)
{
    hd_str_t reason = status == 401   ? HD_STR("Authorization Required")
                      : status == 302 ? HD_STR("Found")
                                      : hd_http_reason(status);
    const char *server = req->loc->server_tokens ? SERVER_TOKENS : SERVER;
    const char *words = status == 400 ? hd_http_tls_words(req->local_code) : NULL;
    char title[64];

    if (reason.len == 0)
        return HD_STR("");
    if (words != NULL)
        return hd_str_printf(req->pool,
                             "<html>\r\n<head><title>400 %s</title></head>\r\n<body>\r\n"
                             "<center><h1>400 Bad Request</h1></center>\r\n"
                             "<center>%s</center>\r\n<hr><center>%s</center>\r\n"
                             "</body>\r\n</html>\r\n",
                             words, words, server);
    snprintf(title, sizeof(title), "%u %.*s", status, HD_STR_ARG(reason));
    return hd_str_printf(req->pool,
                         "<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n"
                         "<center><h1>%s</h1></center>\r\n<hr><center>%s</center>\r\n"
                         "</body>\r\n</html>\r\n",
                         title, title, server);
}

/* Envoy's words; empty where it sends none. */
static hd_str_t plain_words(hd_req_t *req, unsigned status)
{
    uint64_t f = req->flags;

    if (f & HD_RF(NO_HEALTHY))
        return HD_STR("no healthy upstream");
    if (status == 504 && (f & HD_RF(UPSTREAM_TIMEOUT)))
        return HD_STR("upstream request timeout");
    if (f & HD_RF(STREAM_IDLE))
        return HD_STR("stream timeout");
    if (f & HD_RF(DURATION_TIMEOUT))
        return HD_STR("downstream duration timeout");
    if (f & HD_RF(UPSTREAM_DURATION))
        return HD_STR("upstream max stream duration reached");
    if (f & HD_RF(UPSTREAM_OVERFLOW))
        return HD_STR("upstream connect error or disconnect/reset before headers. reset "
                      "reason: overflow");
    if (f & HD_RF(UPSTREAM_CONNECT))
        return req->err != NULL && req->err->code == HD_E_TIMEOUT
                   ? HD_STR("upstream connect error or disconnect/reset before headers. "
                            "reset reason: connection timeout")
                   : HD_STR("upstream connect error or disconnect/reset before headers. "
                            "reset reason: remote connection failure");
    if (f & HD_RF(UPSTREAM_CLOSED))
        return HD_STR("upstream connect error or disconnect/reset before headers. reset "
                      "reason: connection termination");
    if (f & HD_RF(UPSTREAM_RESET))
        return HD_STR("upstream connect error or disconnect/reset before headers. reset "
                      "reason: remote reset");
    if (f & HD_RF(UPSTREAM_PROTOCOL))
        return HD_STR("upstream connect error or disconnect/reset before headers. reset "
                      "reason: protocol error");
    if (f & HD_RF(OVERLOAD))
        return HD_STR("overloaded");
    if (status == 413)
        return HD_STR("Payload Too Large");
    if (status == 408)
        return HD_STR("Request Timeout");
    return HD_STR("");
}

bool hd_req_is_grpc(hd_req_t *req)
{
    const hd_field_t *f = req->head.headers.n == 0
                              ? NULL
                              : hd_headers_get(&req->head.headers, HD_H_CONTENT_TYPE);

    return f != NULL && hd_str_has_prefix_nocase(f->value, HD_STR("application/grpc")) &&
           (f->value.len == 16 || f->value.data[16] == '+' || f->value.data[16] == ';') &&
           !req->is_sub; /* who asked reads HTTP's status: 200 would let in */
}

/* A trailers-only answer: gRPC clients don't read bodies (gRPC over HTTP/2). */
static void answer_grpc(hd_req_t *req, unsigned code, hd_str_t words)
{
    hd_headers_t *h = &req->res.headers;

    req->res.status = 200;
    req->res.content_length = HD_LEN_UNKNOWN;
    req->res.has_body = false;
    hd_headers_add_id(h, HD_H_CONTENT_TYPE, HD_STR("content-type"),
                      HD_STR("application/grpc"));
    if (hd_headers_get(h, HD_H_GRPC_STATUS) != NULL) /* add_header's word */
        return;
    hd_headers_add_id(h, HD_H_GRPC_STATUS, HD_STR("grpc-status"),
                      hd_str_printf(req->pool, "%u", code));
    if (words.len > 0)
        hd_headers_add_id(h, HD_H_GRPC_MESSAGE, HD_STR("grpc-message"),
                          hd_grpc_escape(req->pool, words));
}

/* By xDS the answer was gRPC's before the route added its fields: of several the route's
 * stays, as in Envoy. */
static void keep_last(hd_headers_t *h, hd_header_id_t id)
{
    hd_field_t *f = hd_headers_get(h, id), *next;

    while (f != NULL && (next = hd_headers_find_next(h, f)) != NULL) {
        f->flags |= HD_FIELD_REMOVED;
        f = next;
    }
}

/* What tells of a body that isn't sent. */
static void remove_body_fields(hd_headers_t *h)
{
    static const hd_str_t names[] = {
        HD_STR_INIT("accept-ranges"), HD_STR_INIT("content-encoding"),
        HD_STR_INIT("content-range"), HD_STR_INIT("content-type"),
        HD_STR_INIT("etag"),          HD_STR_INIT("last-modified")};

    for (size_t i = 0; i < hd_countof(names); i++)
        hd_headers_remove(h, names[i]);
}

void hd_local_speak_grpc(hd_req_t *req)
{
    hd_headers_t *h = &req->res.headers;
    unsigned status = req->res.status;

    if (hd_likely(!req->is_local_reply) || req->http == NULL || !hd_req_is_grpc(req))
        return;
    if (req->http->is_xds) {
        keep_last(h, HD_H_GRPC_STATUS);
        keep_last(h, HD_H_GRPC_MESSAGE);
    } else if (status >= 300) {
        remove_body_fields(h);
        answer_grpc(req, hd_grpc_status_from_http(status), hd_http_reason(status));
    }
}

static void init_head(hd_req_t *req, unsigned status)
{
    req->res = (hd_res_head_t){
        .status = status, .content_length = 0, .version = HD_HTTP_11, .is_local = true};
    hd_headers_init(&req->res.headers, req->pool, 8);
    hd_headers_init(&req->res_trailers, req->pool, 0);
    req->is_local_reply = true;
}

bool hd_local_is_closing(unsigned status)
{
    return status == 400 || status == 413 || status == 414 || status == 500 ||
           status == 501;
}

/* An answer of our own in place of whatever was under way; NULL: too late for one. */
static local_t *begin_local(hd_req_t *req, unsigned status, uint64_t flag,
                            const char *details)
{
    local_t *local;

    if (req->response_started || req->response_ended)
        return NULL;
    hd_request_act(req, NULL); /* lets go of the tries first: they may still add flags */
    hd_response_keep_upstream(req);
    hd_response_clear(req);
    hd_request_add_flag(req, flag);
    req->details = details;
    req->has_own_text = req->delays_denial = false;
    init_head(req, status);
    local = hd_pool_new(req->pool, local_t);
    hd_pool_defer(req->pool, free_local, local); /* it may never be started */
    req->action = local;
    hd_request_act(req, &hd_local_action);
    return local;
}

void hd_response_local_grpc(hd_req_t *req, uint32_t code, hd_str_t words, uint64_t flag,
                            const char *details)
{
    local_t *local = begin_local(req, 200, flag, details);

    if (local == NULL)
        return;
    answer_grpc(req, code, words);
    hd_chain_set_flags(&local->body, HD_SLICE_END);
}

void hd_response_local(hd_req_t *req, unsigned status, hd_str_t type, hd_str_t body,
                       uint64_t flag, const char *details)
{
    bool is_xds = req->http != NULL && req->http->is_xds;
    local_t *local = begin_local(req, status, flag, details);

    if (local == NULL)
        return;
    if (body.data == NULL && status >= 300)
        req->error_status = 0; /* an error by itself, in the place of an error page too */
    if (body.data == NULL && !is_xds && hd_local_is_closing(status))
        req->no_keepalive = true;
    if (body.data == NULL && status >= 300 && status != 304) {
        body = is_xds ? plain_words(req, status) : html_page(req, status);
        type = is_xds ? HD_STR("text/plain") : HD_STR("text/html");
    }
    if (is_xds && hd_req_is_grpc(req)) {
        answer_grpc(req, hd_grpc_status_from_http(status), body);
    } else {
        if (body.len > 0 && !hd_chain_try_add_copy(&local->body, body.data, body.len))
            body.len = 0; /* no block left: an answer without its page */
        type = type.len > 0 ? hd_str_dup(req->pool, type) : req->loc->default_type;
        if (body.len > 0 && status != 204 && type.len > 0)
            hd_headers_add_id(&req->res.headers, HD_H_CONTENT_TYPE,
                              is_xds ? HD_STR("content-type") : HD_STR("Content-Type"),
                              type);
        req->res.content_length = status == 304 ? HD_LEN_UNKNOWN : (int64_t)body.len;
        req->res.has_body = body.len > 0 && req->head.method_id != HD_M_HEAD &&
                            status >= 200 && status != 204 && status != 304;
    }
    hd_chain_set_flags(&local->body, HD_SLICE_END);
}
