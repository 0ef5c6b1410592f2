#include "control/hd_grpc_server.h"
#include "core/hd_grpc.h"
#include "core/net/hd_loop.h"
#include "http/hd_service.h"

#include <stdio.h>
#include <stdlib.h>

#define TABLES_MAX 8

struct hd_grpc_stream_s {
    hd_req_t *req;
    const hd_grpc_method_t *method;
    void *state;
    hd_chain_t in;
    bool head_sent, ended, closed;
};

static const hd_grpc_method_t *tables[TABLES_MAX];
static unsigned tables_n;

void hd_grpc_server_add(const hd_grpc_method_t *methods)
{
    hd_bug_on(tables_n == TABLES_MAX);
    tables[tables_n++] = methods;
}

static const hd_grpc_method_t *find_method(hd_str_t path)
{
    for (unsigned t = 0; t < tables_n; t++) {
        for (const hd_grpc_method_t *m = tables[t]; m->path != NULL; m++) {
            if (hd_str_eq(path, hd_str_c(m->path)))
                return m;
        }
    }
    return NULL;
}

/* --- answers --- */

static void add_status(hd_headers_t *h, hd_pool_t *pool, unsigned status, hd_str_t text)
{
    hd_headers_add(h, HD_STR("grpc-status"), hd_str_printf(pool, "%u", status));
    if (text.len > 0)
        hd_headers_add(h, HD_STR("grpc-message"),
                       hd_grpc_escape(pool, hd_str_dup(pool, text)));
}

static void start_head(hd_req_t *req)
{
    req->res.status = 200;
    req->res.version = HD_HTTP_20;
    req->res.content_length = HD_LEN_UNKNOWN;
    req->res.has_body = true;
    req->res.is_local = true;
    hd_headers_init(&req->res.headers, req->pool, 4);
    hd_headers_add(&req->res.headers, HD_STR("content-type"), HD_STR("application/grpc"));
}

static void send_head(hd_grpc_stream_t *s)
{
    if (s->head_sent)
        return;
    s->head_sent = true;
    start_head(s->req);
    hd_response_start(s->req);
}

void hd_grpc_stream_send(hd_grpc_stream_t *s, const void *bytes, size_t len)
{
    hd_chain_t out;

    if (s->ended)
        return;
    send_head(s);
    hd_chain_init(&out);
    if (!hd_grpc_try_add_message(&out, bytes, len)) {
        hd_chain_free(&out);
        hd_grpc_stream_end(s, HD_GRPC_RESOURCE_EXHAUSTED,
                           HD_STR("no memory for the message"));
        return;
    }
    hd_response_give_body(s->req, &out);
}

bool hd_grpc_stream_is_full(hd_grpc_stream_t *s)
{
    return s->head_sent && hd_response_is_full(s->req);
}

/* An operator sees who isn't let in; a caller that asks for ever costs a line a second. */
static void tell_refused(const hd_grpc_stream_t *s, hd_str_t text)
{
    static uint64_t told_ns, untold;
    uint64_t now_ns = hd_loop_now_ns(s->req->loop);
    char from[HD_ADDR_TEXT_MAX], more[64] = "";
    hd_str_t addr = hd_addr_print(&s->req->conn->remote, from);

    if (told_ns != 0 && now_ns - told_ns < 1000000000u) {
        untold++;
        return;
    }
    if (untold > 0)
        snprintf(more, sizeof(more), "; %llu more since the last such line",
                 (unsigned long long)untold);
    hd_log(HD_LOG_WARN, "control: a call of %.*s from %.*s is refused: %.*s%s",
           HD_STR_ARG(s->req->head.path), HD_STR_ARG(addr), HD_STR_ARG(text), more);
    told_ns = now_ns;
    untold = 0;
}

/* Trailers-Only where nothing was sent yet (gRPC over HTTP/2, Responses). */
void hd_grpc_stream_end(hd_grpc_stream_t *s, unsigned status, hd_str_t text)
{
    hd_req_t *req = s->req;
    hd_chain_t out;

    if (s->ended)
        return;
    s->ended = true;
    if (status == HD_GRPC_UNAUTHENTICATED || status == HD_GRPC_PERMISSION_DENIED)
        tell_refused(s, text);
    hd_chain_init(&out);
    if (!s->head_sent) {
        s->head_sent = true;
        start_head(req);
        req->res.has_body = false;
        add_status(&req->res.headers, req->pool, status, text);
        hd_response_start(req);
        hd_chain_set_flags(&out, HD_SLICE_END);
    } else {
        hd_headers_init(&req->res_trailers, req->pool, 2);
        add_status(&req->res_trailers, req->pool, status, text);
        hd_chain_set_flags(&out, HD_SLICE_END | HD_SLICE_TRAILERS);
    }
    hd_response_give_body(req, &out);
    hd_chain_free(&out);
}

/* --- the service --- */

static void close_stream(void *arg)
{
    hd_grpc_stream_t *s = arg;

    if (s->closed)
        return;
    s->closed = s->ended = true;
    hd_chain_free(&s->in);
    if (s->method != NULL && s->method->on_closed != NULL)
        s->method->on_closed(s, s->state);
}

static hd_rc_t on_start(hd_req_t *req, const void *conf)
{
    const hd_field_t *type = hd_headers_get(&req->head.headers, HD_H_CONTENT_TYPE);
    hd_grpc_stream_t *s;

    (void)conf;
    if (req->head.method_id != HD_M_POST || type == NULL ||
        !hd_str_has_prefix(type->value, HD_STR("application/grpc"))) {
        hd_response_local(req, 415, HD_STR("text/plain"), HD_STR("gRPC is spoken here\n"),
                          0, "not_grpc");
        return HD_AGAIN;
    }
    s = hd_pool_new(req->pool, hd_grpc_stream_t);
    s->req = req;
    hd_chain_init(&s->in);
    req->action = s;
    s->method = find_method(req->head.path);
    hd_pool_defer(req->pool, close_stream, s); /* at the latest with the request */
    if (s->method == NULL) {
        hd_grpc_stream_end(s, HD_GRPC_UNIMPLEMENTED, HD_STR("no such method"));
        return HD_AGAIN;
    }
    s->state = hd_pool_calloc(req->pool, s->method->state_size);
    s->method->on_open(s, s->state);
    return HD_AGAIN;
}

static void on_body(hd_req_t *req, hd_chain_t *body)
{
    hd_grpc_stream_t *s = req->action;
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    uint8_t *bytes;
    size_t len;

    if (s == NULL || s->ended || s->method == NULL)
        return;
    hd_chain_move(&s->in, body);
    while (!s->ended) {
        hd_err_t err = {0};
        hd_rc_t rc =
            hd_grpc_take_message(&s->in, s->method->message_max, &bytes, &len, &err);

        if (rc == HD_AGAIN)
            break;
        if (rc != HD_OK) {
            hd_grpc_stream_end(s, HD_GRPC_INTERNAL, hd_str_c(err.text));
            return;
        }
        s->method->on_message(s, s->state, hd_str_n((const char *)bytes, len));
        free(bytes);
    }
    if (is_last && !s->ended)
        s->method->on_half_close(s, s->state);
}

static void on_drained(hd_req_t *req)
{
    hd_grpc_stream_t *s = req->action;

    if (s != NULL && !s->ended && s->method != NULL && s->method->on_drained != NULL)
        s->method->on_drained(s, s->state);
}

static void on_cancel(hd_req_t *req)
{
    if (req->action != NULL)
        close_stream(req->action);
}

static const hd_service_t service = {
    .name = "grpc",
    .on_start = on_start,
    .on_body = on_body,
    .on_drained = on_drained,
    .on_cancel = on_cancel,
};

void hd_grpc_server_register(void)
{
    hd_ignore(hd_service_register(&service) == 0);
}

/* --- what methods ask --- */

hd_pool_t *hd_grpc_stream_pool(hd_grpc_stream_t *s)
{
    return s->req->pool;
}

hd_loop_t *hd_grpc_stream_loop(hd_grpc_stream_t *s)
{
    return s->req->loop;
}

hd_str_t hd_grpc_stream_metadata(hd_grpc_stream_t *s, hd_str_t name)
{
    const hd_field_t *f = hd_headers_find(&s->req->head.headers, name);

    return f != NULL ? f->value : HD_STR_NONE;
}

hd_str_t hd_grpc_stream_token(hd_grpc_stream_t *s)
{
    hd_str_t value = hd_grpc_stream_metadata(s, HD_STR("authorization"));

    if (!hd_str_has_prefix_nocase(value, HD_STR("bearer ")))
        return HD_STR_NONE;
    return hd_str_trim(hd_str_sub(value, 7, value.len));
}

hd_str_t hd_grpc_stream_peer(hd_grpc_stream_t *s)
{
    const hd_conn_t *c = s->req->conn;

    return c != NULL && c->facts != NULL ? c->facts->peer_principal : HD_STR_NONE;
}
