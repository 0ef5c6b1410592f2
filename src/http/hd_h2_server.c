/* The client's side of HTTP/2: each h2 stream is a request (RFC 9113). */
#include "http/hd_chars.h"
#include "http/hd_request_int.h"
#include "core/net/hd_overload.h"
#include "core/net/hd_tunnel.h"
#include "http/hd_h2_session.h"
#include "http/hd_h2_tube.h"
#include "http/hd_websocket.h"

#include <stdlib.h>

#define HEAD_BYTES_MAX 65536
#define HEAD_FIELDS_MAX 200
#define STREAMS_MAX 128 /* nginx's default */
#define IDLE_TIMEOUT_MS 75000
#define HEAD_TIMEOUT_MS 60000
#define GOODBYE_MS 1000 /* for the answer to a PING: the client has heard of the end */
#define LINGER_MS 5000
#define EARNED_BY_REQUEST 5
/* Of a body that nobody wants so much is read, and for so long, before it is cut off. */
#define UNWANTED_BYTES 65536
#define UNWANTED_MS 2000

typedef struct h2_server_s h2_server_t;

typedef struct {
    h2_server_t *server;
    hd_req_t *req; /* NULL once it has finished */
    int32_t id;
    hd_link_t link;
    hd_h2_out_t out;
    hd_h2_tube_t *tube;   /* the stream is a tunnel's end; NULL: not, or it is over */
    hd_req_t *tunnel_req; /* whose; NULL: it has finished */
    hd_chain_t early;     /* what came for a tunnel that isn't there yet */
    hd_timer_t timer;     /* the client doesn't take, or doesn't send */
    uint64_t data_ns;     /* when some of the body last came */
    uint32_t head_bytes, unconsumed;
    uint32_t unwanted;   /* so much of the body may still come; see stop_body */
    unsigned bad_status; /* the head breaks a rule of ours: answered with this */
    const char *bad_why;
    bool started, closed, remote_ended, in_trailers;
    bool was_reset; /* by the client */
    bool end_sent;    /* our END_STREAM is out */
    bool is_aborted;  /* by us, for no fault of the client */
    bool is_large;    /* its head is: counted once */
    bool is_unwanted; /* and the rest of the request is dropped */
    bool is_connect;  /* what follows the head are a tunnel's bytes */
    bool is_long;     /* the request's body, by its announcement, or it waits for 100 */
    bool head_only;   /* it goes with the head: gRPC's Trailers-Only among them */
} h2_stream_t;

struct h2_server_s {
    hd_h2_session_t s; /* first: callbacks get it */
    hd_http_entry_t entry;
    hd_timer_t timer, unwanted; /* idle; bodies that are dropped */
    hd_timer_t goodbye;         /* between GOAWAY's two steps */
    hd_link_t link, streams;
    uint32_t head_bytes_max, fields_max, requests_n, requests_max;
    uint64_t head_timeout_ms;
    uint64_t idle_ms, born_ns;
    bool is_draining, is_final; /* GOAWAY's two steps */
    bool has_settings;
    bool in_head; /* a field section is begun, and its end outstanding */
};

static hd_link_t conns = {&conns, &conns};

static void set_idle_timer(h2_server_t *h)
{
    hd_timer_set(h->s.conn->loop, &h->timer,
                 h->is_final      ? 1
                 : h->is_draining ? GOODBYE_MS
                                  : h->idle_ms);
}

/* The stream is over, and with it the tunnel: while its request's conn is still there to
 * be logged. */
static void end_tunnel(h2_stream_t *st)
{
    hd_req_t *req = st->tunnel_req;
    hd_h2_tube_t *tube = st->tube;

    st->tunnel_req = NULL;
    st->tube = NULL;
    if (tube != NULL)
        hd_h2_tube_close(tube, true);
    if (req == NULL)
        return;
    req->client = &hd_client_gone;
    if (req->tunnel == NULL)
        return;
    req->client_gone = true;
    hd_ignore(hd_req_err(req, HD_E_RESET, "client ended the tunnel's stream"));
    hd_tunnel_stop(req->tunnel, true);
}

static void free_stream(h2_stream_t *st)
{
    h2_server_t *h = st->server;

    end_tunnel(st);
    hd_list_remove(&st->link);
    hd_h2_out_free(&st->out);
    hd_chain_free(&st->early);
    hd_timer_stop(h->s.conn->loop, &st->timer);
    h->s.streams--;
    free(st);
    if (h->s.streams == 0)
        set_idle_timer(h);
}

static void free_if_over(h2_stream_t *st)
{
    if (st->closed && st->req == NULL && st->tunnel_req == NULL)
        free_stream(st);
}

/* Requests under way lose their client. */
static hd_conn_t *let_go(h2_server_t *h, hd_err_code_t code, const char *why)
{
    hd_conn_t *c = h->s.conn;

    hd_list_each(link, &h->streams)
    {
        h2_stream_t *st = hd_list_entry(link, h2_stream_t, link);
        hd_req_t *req = st->req;

        st->req = NULL;
        st->closed = true;
        if (req != NULL)
            hd_request_client_gone(req, code, why);
        free_stream(st);
    }
    hd_timer_stop(c->loop, &h->timer);
    hd_timer_stop(c->loop, &h->unwanted);
    hd_timer_stop(c->loop, &h->goodbye);
    hd_list_remove(&h->link);
    hd_http_entry_let_go(&h->entry, c);
    hd_h2_session_deinit(&h->s);
    free(h);
    return c;
}

/* The conn is over. */
static void end_conn(h2_server_t *h, hd_err_code_t code, const char *why, bool linger)
{
    hd_conn_t *c = let_go(h, code, why);

    if (linger)
        hd_conn_close(c, LINGER_MS);
    else
        hd_conn_reset(c);
}

/* --- the client's slowness --- */

static bool is_waiting_for_body(const h2_stream_t *st)
{
    return st->req != NULL && !st->remote_ended && st->unconsumed == 0 &&
           st->req->is_acting && !st->req->is_tunnel && !st->req->response_started;
}

/* How long the client may do nothing while it is waited for; 0: nobody waits for it, or
 * no matter how long. *since_ns: when it last did something. */
static uint64_t patience_ms(const h2_stream_t *st, uint64_t *since_ns)
{
    const hd_req_t *req = st->req;
    const hd_http_loc_t *loc =
        req != NULL && req->loc != NULL ? req->loc : &hd_http_loc_defaults;
    uint64_t idle_ms =
        req != NULL && req->http != NULL ? req->http->stream_idle_timeout_ms : 0;

    if (st->out.chain.bytes > 0) {
        *since_ns = st->out.moved_ns;
        return loc->send_timeout_ms > 0 ? loc->send_timeout_ms : idle_ms;
    }
    if (is_waiting_for_body(st)) {
        *since_ns = st->data_ns;
        return loc->client_body_timeout_ms; /* xDS: the request's own time-outs */
    }
    return 0;
}

/* The stream's timer is set at most once in its time: what moved meanwhile is seen when
 * it is due. */
static void watch(h2_stream_t *st)
{
    uint64_t since_ns, ms;

    if (hd_timer_is_set(&st->timer) || st->closed)
        return;
    ms = patience_ms(st, &since_ns);
    if (ms > 0)
        hd_timer_set(st->server->s.conn->loop, &st->timer, ms);
}

static void end_conn(h2_server_t *h, hd_err_code_t code, const char *why, bool linger);

/* Of a client that doesn't even take frames nothing is left to be told. */
static void on_slow_reader(h2_stream_t *st)
{
    h2_server_t *h = st->server;

    hd_h2_count(&h->s.budget, HD_H2_SLOW, 1);
    if (hd_conn_is_high(h->s.conn)) {
        end_conn(h, HD_E_TIMEOUT, "client timed out while reading the response", false);
        return;
    }
    st->is_aborted = true;
    nghttp2_submit_rst_stream(h->s.ng, NGHTTP2_FLAG_NONE, st->id,
                              NGHTTP2_ENHANCE_YOUR_CALM);
    hd_h2_session_flush_later(&h->s);
}

static void on_stream_due(hd_timer_t *t)
{
    h2_stream_t *st = hd_container_of(t, h2_stream_t, timer);
    hd_loop_t *loop = st->server->s.conn->loop;
    uint64_t since_ns, ms = patience_ms(st, &since_ns), idle_ms;

    if (ms == 0)
        return;
    idle_ms = (hd_loop_now_ns(loop) - since_ns) / 1000000;
    if (idle_ms < ms)
        hd_timer_set(loop, t, ms - idle_ms);
    else if (st->out.chain.bytes > 0)
        on_slow_reader(st);
    else
        hd_request_reject(st->req, 408,
                          "client timed out while sending its request body");
}

/* --- the response: what hd_request.h asks of a client --- */

static void send_head(hd_req_t *req, bool is_interim)
{
    h2_stream_t *st = req->client_state;
    hd_h2_session_t *s = &st->server->s;
    nghttp2_data_provider provider = hd_h2_provider();
    nghttp2_nv nv[HD_FIELDS_MAX + 4];
    char status[HD_U64_DIGITS_MAX], length[HD_U64_DIGITS_MAX];
    bool is_tunnel = req->tunnel_up != NULL;
    size_t n = 0;
    int rc;

    if (st->closed || (is_interim && req->res.status == 101)) /* RFC 9113 §8.6 */
        return;
    if (is_tunnel && req->res.status == 101)
        hd_websocket_answer_h2(req); /* RFC 8441 §5: it is 200 here */
    nv[n++] = hd_h2_nv(HD_STR(":status"), hd_str_from_u64(req->res.status, status));
    n = hd_h2_put_fields(nv, n, HD_FIELDS_MAX, &req->res.headers);
    if (!is_interim && !is_tunnel && req->res.content_length >= 0 &&
        req->res.status != 204)
        nv[n++] = hd_h2_nv(HD_STR("content-length"),
                           hd_str_from_u64((uint64_t)req->res.content_length, length));
    st->head_only = !is_interim && !is_tunnel && !req->res.has_body;
    st->out.ended |= st->head_only;
    st->out.chunk_bytes = (uint32_t)req->loc->h2_chunk_bytes;
    for (size_t i = 0; i < n; i++)
        req->head_bytes_sent += nv[i].namelen + nv[i].valuelen;
    if (is_interim)
        rc = nghttp2_submit_headers(s->ng, NGHTTP2_FLAG_NONE, st->id, NULL, nv, n, NULL);
    else
        rc = nghttp2_submit_response(s->ng, st->id, nv, n,
                                     st->head_only ? NULL : &provider);
    if (rc != 0)
        nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id,
                                  NGHTTP2_INTERNAL_ERROR);
    hd_h2_session_flush_later(s);
}

static void send_body(hd_req_t *req, hd_chain_t *body)
{
    h2_stream_t *st = req->client_state;

    if (st->closed || st->head_only) {
        hd_chain_free(body);
        return;
    }
    if (req->head.method_id == HD_M_HEAD || req->res.status == 204 ||
        req->res.status == 304)
        hd_chain_drop(body, body->bytes);
    if (st->out.chain.bytes == 0)
        st->out.moved_ns = hd_loop_now_ns(req->loop); /* from now on it waits */
    hd_h2_out_add(&st->server->s, st->id, &st->out, body, &req->res_trailers);
    watch(st);
}

static bool is_full(hd_req_t *req)
{
    h2_stream_t *st = req->client_state;

    if (st->out.chain.bytes > HD_H2_STREAM_OUT_HIGH)
        st->out.was_high = true;
    return st->out.was_high;
}

/* The request's body was taken: the stream's credit is returned. */
static void want_body(hd_req_t *req)
{
    h2_stream_t *st = req->client_state;

    if (st->closed)
        return;
    st->data_ns = hd_loop_now_ns(req->loop);
    watch(st);
    if (st->unconsumed == 0)
        return;
    nghttp2_session_consume_stream(st->server->s.ng, st->id, st->unconsumed);
    st->unconsumed = 0;
    hd_h2_session_flush_later(&st->server->s);
}

static void abort_response(hd_req_t *req, uint32_t h2_error)
{
    h2_stream_t *st = req->client_state;

    if (st->closed)
        return;
    st->is_aborted = true;
    nghttp2_submit_rst_stream(st->server->s.ng, NGHTTP2_FLAG_NONE, st->id, h2_error);
    hd_h2_session_flush_later(&st->server->s);
}

/* RFC 9113 §8.1: a whole response before a whole request: we want no more of it. */
static void cut_body(h2_stream_t *st)
{
    st->is_unwanted = false;
    nghttp2_submit_rst_stream(st->server->s.ng, NGHTTP2_FLAG_NONE, st->id,
                              NGHTTP2_NO_ERROR);
    hd_h2_session_flush_later(&st->server->s);
}

/* The response is out, and the request isn't all there: what is short is read to its end,
 * since clients take a reset for a failure. Not before the response is out: a reset
 * overtakes what is queued. */
static void stop_body(h2_stream_t *st)
{
    hd_conn_t *c = st->server->s.conn;

    if (st->closed || st->remote_ended || !st->end_sent || st->req != NULL ||
        st->is_unwanted || st->tube != NULL)
        return;
    if (st->is_long) {
        cut_body(st);
        return;
    }
    st->is_unwanted = true;
    st->unwanted = UNWANTED_BYTES;
    if (!hd_timer_is_set(&st->server->unwanted))
        hd_timer_set(c->loop, &st->server->unwanted, UNWANTED_MS);
}

static void drop_data(h2_stream_t *st, size_t len)
{
    if (!st->is_unwanted)
        return;
    if (len > st->unwanted)
        cut_body(st);
    else
        st->unwanted -= (uint32_t)len;
}

static void on_unwanted_due(hd_timer_t *t)
{
    h2_server_t *h = hd_container_of(t, h2_server_t, unwanted);

    hd_list_each(link, &h->streams)
    {
        h2_stream_t *st = hd_list_entry(link, h2_stream_t, link);

        if (st->is_unwanted)
            cut_body(st);
    }
}

static void on_finished(hd_req_t *req)
{
    h2_stream_t *st = req->client_state;

    st->req = NULL;
    if (!st->is_aborted)
        hd_h2_budget_earn(&st->server->s.budget, EARNED_BY_REQUEST);
    stop_body(st);
    free_if_over(st);
}

/* --- a stream that becomes a tunnel's end --- */

static void tube_send(void *arg, hd_chain_t *bytes)
{
    h2_stream_t *st = arg;

    if (st->out.chain.bytes == 0)
        st->out.moved_ns = hd_loop_now_ns(st->server->s.conn->loop);
    hd_h2_out_add(&st->server->s, st->id, &st->out, bytes, NULL);
    watch(st);
}

static bool tube_is_full(void *arg)
{
    h2_stream_t *st = arg;

    st->out.was_high |= st->out.chain.bytes > HD_H2_STREAM_OUT_HIGH;
    return st->out.was_high;
}

static void return_credit(h2_stream_t *st)
{
    if (st->unconsumed == 0 || st->closed)
        return;
    nghttp2_session_consume_stream(st->server->s.ng, st->id, st->unconsumed);
    st->unconsumed = 0;
    hd_h2_session_flush_later(&st->server->s);
}

static void tube_on_room(void *arg)
{
    return_credit(arg);
}

/* RFC 9113 §8.5: a TCP connection that broke is CONNECT_ERROR. */
static void tube_on_reset(void *arg)
{
    h2_stream_t *st = arg;

    st->tube = NULL;
    if (st->closed)
        return;
    st->is_aborted = true;
    nghttp2_submit_rst_stream(st->server->s.ng, NGHTTP2_FLAG_NONE, st->id,
                              NGHTTP2_CONNECT_ERROR);
    hd_h2_session_flush_later(&st->server->s);
}

static const hd_h2_tube_ops_t tube_ops = {.send = tube_send,
                                          .is_full = tube_is_full,
                                          .on_room = tube_on_room,
                                          .on_reset = tube_on_reset};

/* What a client's ops do for a request that is a tunnel: it has none any more, but the
 * stream wants to know when it is over. */
static hd_client_ops_t tunnel_ops;

static void on_tunnel_finished(hd_req_t *req)
{
    h2_stream_t *st = req->client_state;

    st->tunnel_req = NULL;
    free_if_over(st);
}

static hd_conn_t *take_conn(hd_req_t *req)
{
    h2_stream_t *st = req->client_state;
    hd_err_t err = {0};
    hd_conn_t *other;

    if (st->closed)
        return NULL;
    st->tube = hd_h2_tube_open(req->loop, &tube_ops, st, &other, &err);
    if (st->tube == NULL)
        return NULL;
    st->req = NULL;
    st->tunnel_req = req;
    tunnel_ops = hd_client_gone;
    tunnel_ops.on_finished = on_tunnel_finished;
    req->client = &tunnel_ops;
    hd_h2_tube_give(st->tube, &st->early);
    if (st->remote_ended)
        hd_h2_tube_end(st->tube);
    return_credit(st);
    return other;
}

static const hd_client_ops_t client_ops = {
    .name = "http/2",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .want_body = want_body,
    .abort = abort_response,
    .on_finished = on_finished,
    .take_conn = take_conn,
};

/* --- the request: frames to heads and bodies --- */

static h2_stream_t *stream_of(hd_h2_session_t *s, int32_t id)
{
    return nghttp2_session_get_stream_user_data(s->ng, id);
}

static hd_h2_out_t *out_of(hd_h2_session_t *s, int32_t id)
{
    h2_stream_t *st = stream_of(s, id);

    return st == NULL ? NULL : &st->out;
}

static void on_out_drained(hd_h2_session_t *s, int32_t id)
{
    h2_stream_t *st = stream_of(s, id);

    if (st == NULL)
        return;
    if (st->tube != NULL)
        hd_h2_tube_pull(st->tube);
    else if (st->req != NULL)
        hd_request_on_drained(st->req);
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    h2_server_t *h = user;
    h2_stream_t *st;

    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        st = stream_of(&h->s, frame->hd.stream_id);
        if (st != NULL && st->req != NULL) {
            st->in_trailers = true;
            hd_headers_init(&st->req->trailers, st->req->pool, 4);
        }
        return 0;
    }
    st = calloc(1, sizeof(*st));
    if (st == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    st->server = h;
    st->id = frame->hd.stream_id;
    hd_chain_init(&st->out.chain);
    hd_chain_init(&st->early);
    hd_list_add_last(&h->streams, &st->link);
    h->s.streams++;
    h->in_head = true;
    hd_timer_set(h->s.conn->loop, &h->timer, h->head_timeout_ms);
    hd_timer_init(&st->timer, on_stream_due);
    st->data_ns = hd_loop_now_ns(h->s.conn->loop);
    st->req = hd_request_create(h->s.conn, h->s.conn->loop,
                                hd_loop_member(h->s.conn->loop), &client_ops, st);
    hd_headers_init(&st->req->head.headers, st->req->pool, 16);
    st->req->head.version = HD_HTTP_20;
    st->req->head.keep_alive = true;
    nghttp2_session_set_stream_user_data(ng, st->id, st);
    return 0;
}

static void refuse_head(h2_stream_t *st, unsigned status, const char *why)
{
    if (st->bad_status == 0) {
        st->bad_status = status;
        st->bad_why = why;
    }
}

static bool take_pseudo(h2_stream_t *st, hd_str_t name, hd_str_t value)
{
    hd_req_head_t *head = &st->req->head;

    if (hd_str_eq(name, HD_STR(":method")))
        head->method = hd_str_dup(st->req->pool, value);
    else if (hd_str_eq(name, HD_STR(":path")))
        head->raw_path = hd_str_dup(st->req->pool, value);
    else if (hd_str_eq(name, HD_STR(":scheme")))
        head->scheme = hd_str_dup(st->req->pool, value);
    else if (hd_str_eq(name, HD_STR(":authority")))
        head->authority = hd_str_dup_lower(st->req->pool, value);
    else if (hd_str_eq(name, HD_STR(":protocol")))
        head->protocol = hd_str_dup(st->req->pool, value);
    else
        return false;
    return true;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len,
                     uint8_t flags, void *user)
{
    h2_server_t *h = user;
    h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);
    hd_headers_t *to;

    (void)ng, (void)flags;
    if (st == NULL || st->req == NULL)
        return 0;
    /* what is decoded counts, not what came over the wire (HPACK bombs) */
    st->head_bytes += (uint32_t)(name_len + value_len + 32);
    to = st->in_trailers ? &st->req->trailers : &st->req->head.headers;
    if (st->head_bytes > h->head_bytes_max || to->n >= h->fields_max) {
        refuse_head(st, 431, "request head too large");
        if (!st->is_large)
            hd_ignore(hd_h2_glitch(&h->s, HD_H2_LARGE_HEADS, 1));
        st->is_large = true;
        if (st->head_bytes <= 4 * h->head_bytes_max)
            return 0;
        /* far beyond the limit it is an attack on our time and our memory of fields */
        if (!h->s.is_ending) {
            hd_ignore(
                hd_conn_fail(h->s.conn, HD_E_LIMIT, "HTTP/2: a huge field section"));
            hd_h2_session_goaway(&h->s, NGHTTP2_ENHANCE_YOUR_CALM);
        }
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (name_len > 0 && name[0] == ':') {
        if (!st->in_trailers)
            take_pseudo(st, hd_str_n((const char *)name, name_len),
                        hd_str_n((const char *)value, value_len));
        return 0;
    }
    if (!hd_h2_add_field(to, name, name_len, value, value_len))
        refuse_head(st, 431, "too many fields");
    return 0;
}

/* What nghttp2 leaves to us of RFC 9113 §8.3.1 and of our own strictness. */
static void check_head(h2_stream_t *st)
{
    hd_req_head_t *head = &st->req->head;
    hd_field_t *host = hd_headers_get(&head->headers, HD_H_HOST);

    head->method_id = 0;
    if (hd_span(head->method, HD_CH_TOKEN) != head->method.len || head->method.len == 0)
        refuse_head(st, 400, "bad method");
    if (head->authority.len == 0 && host != NULL)
        head->authority = hd_str_dup_lower(st->req->pool, host->value);
    else if (host != NULL && !hd_str_eq_nocase(host->value, head->authority))
        refuse_head(st, 400, "Host differs from :authority");
    if (!hd_http_is_authority(head->authority))
        refuse_head(st, 400, "bad :authority");
    st->is_connect = hd_str_eq(head->method, HD_STR("CONNECT"));
    if (head->protocol.len > 0 && !hd_http_is_protocol(head->protocol))
        refuse_head(st, 400, "bad :protocol"); /* it may go into a field of HTTP/1 */
    if (st->is_connect && head->protocol.len == 0) {
        if (hd_str_find_char(head->authority, ':') < 0)
            refuse_head(st, 400, "CONNECT needs host:port");
        return;
    }
    if (head->raw_path.len == 0 ||
        hd_span(head->raw_path, HD_CH_TARGET) != head->raw_path.len ||
        (head->raw_path.data[0] != '/' && !(hd_str_eq(head->raw_path, HD_STR("*")) &&
                                            hd_str_eq(head->method, HD_STR("OPTIONS")))))
        refuse_head(st, 400, "bad :path");
}

/* Cookie crumbs become one field again (RFC 9113 §8.2.3). */
static void join_cookies(hd_req_t *req)
{
    hd_headers_t *h = &req->head.headers;
    hd_field_t *first = hd_headers_get(h, HD_H_COOKIE);

    if (first == NULL || hd_headers_find_next(h, first) == NULL)
        return;
    hd_headers_set(h, HD_STR("cookie"),
                   hd_headers_joined(h, HD_STR("cookie"), req->pool, NULL));
}

/* RFC 9113 §6.8: first the client is asked to begin nothing more; then, when it has heard
 * of it, what it has begun is the last. */
static void begin_drain(h2_server_t *h)
{
    if (h->is_draining || h->s.is_ending)
        return;
    h->is_draining = true;
    hd_h2_session_notice(&h->s);
    hd_timer_set(h->s.conn->loop, &h->goodbye, GOODBYE_MS);
}

/* The second step: GOAWAY with the last stream. */
static void finish_drain(h2_server_t *h)
{
    if (h->is_final)
        return;
    h->is_final = true;
    hd_timer_stop(h->s.conn->loop, &h->goodbye);
    hd_h2_session_goaway(&h->s, NGHTTP2_NO_ERROR);
    if (h->s.streams == 0)
        set_idle_timer(h);
}

static void on_goodbye(hd_timer_t *t)
{
    finish_drain(hd_container_of(t, h2_server_t, goodbye));
}

/* keepalive_requests, keepalive_time, and their like by xDS. */
static bool is_worn(const h2_server_t *h, const hd_http_conf_t *http)
{
    uint64_t age_ms = (hd_loop_now_ns(h->s.conn->loop) - h->born_ns) / 1000000;
    uint32_t max = http->is_xds || http->loc == NULL ? http->requests_per_conn
                                                     : http->loc->keepalive_requests;

    return (max > 0 && h->requests_n >= max) ||
           (http->max_conn_duration_ms > 0 && age_ms >= http->max_conn_duration_ms);
}

static void start_request(h2_server_t *h, h2_stream_t *st, bool ended)
{
    const hd_http_conf_t *http = hd_http_entry_refresh(&h->entry, h->s.conn);
    hd_req_head_t *head = &st->req->head;
    const hd_field_t *f = hd_headers_get(&head->headers, HD_H_CONTENT_LENGTH);
    uint64_t length;

    st->started = true;
    h->in_head = false;
    hd_timer_stop(h->s.conn->loop, &h->timer);
    st->req->conn_requests = ++h->requests_n;
    if (http == NULL) { /* the listener is gone: the client may repeat it elsewhere */
        hd_req_t *req = st->req;

        hd_h2_session_goaway(&h->s, NGHTTP2_NO_ERROR);
        nghttp2_submit_rst_stream(h->s.ng, NGHTTP2_FLAG_NONE, st->id,
                                  NGHTTP2_REFUSED_STREAM);
        st->req = NULL;
        hd_request_client_gone(req, HD_E_NO_ROUTE, "listener is gone");
        return;
    }
    check_head(st);
    if (st->is_connect && head->protocol.len > 0 && st->bad_status == 0)
        hd_websocket_from_h2(st->req);
    head->method_id = hd_http_method_id(head->method);
    head->content_length = HD_LEN_UNKNOWN;
    if (ended)
        head->content_length = 0;
    else if (f != NULL && hd_str_to_u64(f->value, INT64_MAX, &length))
        head->content_length = (int64_t)length;
    head->has_body = !ended && !st->is_connect;
    if (st->is_connect)
        head->content_length = 0;
    f = hd_headers_get(&head->headers, HD_H_EXPECT);
    head->expects_continue =
        f != NULL && !ended && hd_str_eq_nocase(f->value, HD_STR("100-continue"));
    st->is_long = head->content_length > UNWANTED_BYTES || head->expects_continue;
    st->req->head_bytes_received = st->head_bytes;
    if (st->bad_status == 0 && head->method_id != HD_M_CONNECT &&
        hd_http_normalize_path(head->raw_path, http, st->req->pool, &head->path,
                               &head->query) != HD_OK)
        refuse_head(st, 400, "bad path");
    if (st->bad_status != 0) {
        hd_request_set_entry(st->req, &h->entry);
        hd_http_entry_let_go(&h->entry, h->s.conn);
        hd_request_reject(st->req, st->bad_status, st->bad_why);
        return;
    }
    join_cookies(st->req);
    hd_headers_mark_hops(&head->headers);
    hd_request_start(st->req, &h->entry);
    hd_http_entry_let_go(&h->entry, h->s.conn);
    if (h->entry.is_old || hd_overload_now.saves_memory || is_worn(h, http))
        begin_drain(h);
}

static void give_end(h2_stream_t *st, unsigned flags)
{
    hd_chain_t body;

    st->remote_ended = true;
    if (st->tube != NULL)
        hd_h2_tube_end(st->tube);
    if (st->req == NULL || st->bad_status != 0 || st->is_connect)
        return;
    hd_chain_init(&body);
    hd_chain_set_flags(&body, HD_SLICE_END | flags);
    hd_request_give_body(st->req, &body);
    hd_chain_free(&body);
}

static int on_headers_recv(h2_server_t *h, const nghttp2_frame *frame)
{
    h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);
    bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    if (st == NULL)
        return 0;
    if (!st->started) {
        st->remote_ended = ended;
        start_request(h, st, ended);
    } else if (st->in_trailers) {
        give_end(st, st->req != NULL && st->req->trailers.n > 0 ? HD_SLICE_TRAILERS : 0);
    }
    return 0;
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    h2_server_t *h = user;
    h2_stream_t *st;

    (void)ng;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        return on_headers_recv(h, frame);
    case NGHTTP2_DATA:
        st = stream_of(&h->s, frame->hd.stream_id);
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            if (st != NULL)
                give_end(st, 0);
        } else if (frame->hd.length == 0) {
            hd_ignore(hd_h2_glitch(&h->s, HD_H2_EMPTY, 1));
        }
        return 0;
    case NGHTTP2_RST_STREAM: /* on_stream_close follows */
        st = stream_of(&h->s, frame->hd.stream_id);
        if (st != NULL)
            st->was_reset = true;
        hd_ignore(hd_h2_glitch(&h->s, HD_H2_RESETS, 1));
        return 0;
    case NGHTTP2_PING:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            hd_ignore(hd_h2_glitch(&h->s, HD_H2_PINGS, 1));
        else if (hd_h2_session_pong(&h->s, frame) && h->is_draining)
            finish_drain(h);
        return 0;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK) && h->has_settings)
            hd_ignore(hd_h2_glitch(&h->s, HD_H2_SETTINGS_SENT, 1));
        h->has_settings = true; /* the first is everybody's */
        return 0;
    case NGHTTP2_PRIORITY:
        hd_ignore(hd_h2_glitch(&h->s, HD_H2_PRIORITIES, 1));
        return 0;
    default:
        return 0;
    }
}

/* Nothing goes on before the answer; what comes meanwhile is bounded by the window. */
static void take_tunnel_data(h2_stream_t *st, const uint8_t *data, size_t len)
{
    hd_chain_t bytes;

    hd_chain_init(&bytes);
    hd_chain_add(&bytes, st->server->s.in_block, (const char *)data, len, 0);
    st->unconsumed += (uint32_t)len;
    if (st->tube == NULL) {
        hd_chain_move(&st->early, &bytes);
        return;
    }
    hd_h2_tube_give(st->tube, &bytes);
    if (!hd_h2_tube_is_full(st->tube))
        return_credit(st);
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *user)
{
    h2_server_t *h = user;
    h2_stream_t *st = stream_of(&h->s, id);
    hd_chain_t body;

    (void)flags;
    nghttp2_session_consume_connection(ng, len);
    if (st != NULL)
        st->data_ns = hd_loop_now_ns(h->s.conn->loop);
    if (st != NULL && st->is_connect && (st->tube != NULL || st->req != NULL)) {
        take_tunnel_data(st, data, len);
        return 0;
    }
    if (st == NULL || st->req == NULL || st->bad_status != 0) {
        nghttp2_session_consume_stream(ng, id, len);
        if (st != NULL)
            drop_data(st, len);
        return 0;
    }
    hd_chain_init(&body);
    hd_chain_add(&body, h->s.in_block, (const char *)data, len, 0);
    hd_request_give_body(st->req, &body);
    hd_chain_free(&body);
    if (st->req != NULL && hd_request_is_full(st->req))
        st->unconsumed += (uint32_t)len;
    else
        nghttp2_session_consume_stream(ng, id, len);
    return 0;
}

/* Resets that the peer provokes cost it as its own do. */
static void count_reset(h2_server_t *h, const nghttp2_frame *frame)
{
    const h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);
    uint32_t error = frame->rst_stream.error_code;

    if (error == NGHTTP2_NO_ERROR || (st != NULL && st->is_aborted))
        return;
    hd_ignore(hd_h2_glitch(
        &h->s, error == NGHTTP2_REFUSED_STREAM ? HD_H2_REFUSED : HD_H2_PROVOKED, 1));
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    h2_server_t *h = user;
    h2_stream_t *st;

    (void)ng;
    if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        st = stream_of(&h->s, frame->hd.stream_id);
        if (st != NULL) {
            st->end_sent = true;
            stop_body(st);
        }
    }
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        count_reset(h, frame);
    hd_h2_session_sent(&h->s, frame);
    return 0;
}

static void end_tunnel_if_broken(h2_stream_t *st, uint32_t error)
{
    if (error != NGHTTP2_NO_ERROR)
        end_tunnel(st);
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *user)
{
    h2_server_t *h = user;
    h2_stream_t *st = stream_of(&h->s, id);
    hd_req_t *req;

    if (st == NULL)
        return 0;
    nghttp2_session_set_stream_user_data(ng, id, NULL);
    st->closed = true;
    hd_h2_out_free(&st->out);
    if (st->tube != NULL && error == NGHTTP2_NO_ERROR) { /* both halves are over */
        hd_h2_tube_close(st->tube, false);
        st->tube = NULL;
    }
    end_tunnel_if_broken(st, error);
    req = st->req;
    if (req != NULL && (error != NGHTTP2_NO_ERROR || !st->started || !st->out.ended)) {
        st->req = NULL;
        if (st->was_reset)
            hd_request_client_reset(req, error == NGHTTP2_REFUSED_STREAM);
        else
            hd_request_client_gone(req, HD_E_RESET, "the client's stream was reset");
    }
    free_if_over(st);
    return 0;
}

/* --- the conn --- */

static void on_readable(hd_conn_t *c)
{
    h2_server_t *h = c->owner;
    hd_rc_t rc = hd_h2_session_read(&h->s);

    if (rc == HD_DONE)
        end_conn(h, HD_E_RESET, "client closed the connection", true);
    else if (rc == HD_ERROR)
        end_conn(h, HD_E_PROTOCOL, c->err != NULL ? c->err->text : "broken", false);
    else if (hd_h2_session_is_over(&h->s))
        end_conn(h, HD_E_RESET, "connection ended", true);
}

static void on_writable(hd_conn_t *c)
{
    h2_server_t *h = c->owner;

    hd_h2_session_flush_later(&h->s);
}

static void on_closed(hd_conn_t *c)
{
    end_conn(c->owner, HD_E_RESET, "client reset the connection", false);
}

static void on_stale(hd_conn_t *c)
{
    begin_drain(c->owner);
}

static uint64_t idle_since(const hd_conn_t *c)
{
    const h2_server_t *h = c->owner;

    if (h->s.streams > 0 || h->in_head || h->timer.at_ns == UINT64_MAX)
        return 0;
    return h->is_draining ? h->born_ns : h->timer.at_ns - h->idle_ms * 1000000;
}

/* The client learns that nothing of it is lost. */
static void on_reuse(hd_conn_t *c)
{
    h2_server_t *h = c->owner;

    hd_h2_session_goaway(&h->s, NGHTTP2_NO_ERROR);
    hd_h2_session_flush(&h->s);
    hd_conn_flush(c);
    hd_conn_close(let_go(h, HD_E_LIMIT, "its place was needed"), 0);
}

static const hd_conn_handler_t handler = {.on_stale = on_stale,
                                          .idle_since = idle_since,
                                          .on_reuse = on_reuse,
                                          .on_readable = on_readable,
                                          .on_writable = on_writable,
                                          .on_closed = on_closed};

static void on_due(hd_timer_t *t)
{
    h2_server_t *h = hd_container_of(t, h2_server_t, timer);

    if (h->in_head) { /* a request's head within the time for one */
        if (!h->s.is_ending)
            hd_h2_session_goaway(&h->s, NGHTTP2_ENHANCE_YOUR_CALM);
        h->in_head = false;
        return;
    }
    if (h->s.streams > 0)
        return;
    if (!h->is_draining) {
        begin_drain(h);
        return;
    }
    if (!h->is_final) {
        finish_drain(h);
        return;
    }
    end_conn(h, HD_E_TIMEOUT, "idle", true);
}

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *cb;

    if (nghttp2_session_callbacks_new(&cb) != 0)
        return NULL;
    hd_h2_session_callbacks(cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    return cb;
}

static void submit_settings(h2_server_t *h, const hd_http_conf_t *http)
{
    uint32_t stream_window = http != NULL && http->h2_stream_window > 0
                                 ? http->h2_stream_window
                                 : HD_H2_STREAM_WINDOW;
    uint32_t conn_window = http != NULL && http->h2_conn_window > 0 ? http->h2_conn_window
                                                                    : HD_H2_CONN_WINDOW;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
         http != NULL && http->h2_streams > 0 ? http->h2_streams : STREAMS_MAX},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h->head_bytes_max},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}, /* last: left out if not so */
    };
    size_t n = hd_countof(settings) - (http->upgrade_websocket ? 0 : 1);

    nghttp2_submit_settings(h->s.ng, NGHTTP2_FLAG_NONE, settings, n);
    nghttp2_session_set_local_window_size(h->s.ng, NGHTTP2_FLAG_NONE, 0,
                                          (int32_t)conn_window);
}

/* Peers that showed who they are have the conn's budget alone, and a larger one: one
 * address of theirs, or one conn between two proxies, may stand for many clients. */
static void set_budget(h2_server_t *h, const hd_http_conf_t *http)
{
    hd_h2_budget_t *b = &h->s.budget;
    const hd_conn_t *c = h->s.conn;
    bool is_known = c->facts != NULL && c->facts->peer_principal.len > 0;

    if (http->h2_budget > 0 || is_known)
        b->max = b->left = http->h2_budget > 0 ? http->h2_budget : HD_H2_CLIENT_BUDGET;
    if (is_known)
        return;
    b->client_max =
        http->h2_client_budget > 0 ? http->h2_client_budget : HD_H2_CLIENT_BUDGET;
    b->clients = http->h2_clients;
    b->client_key = hd_h2_client_key(hd_conn_remote(c));
}

void hd_h2_serve(hd_conn_t *c, const hd_http_entry_t *entry)
{
    static nghttp2_session_callbacks *callbacks;
    const hd_http_conf_t *http = entry->chain->protocol_conf;
    h2_server_t *h = calloc(1, sizeof(*h));

    if (callbacks == NULL)
        callbacks = make_callbacks();
    hd_bug_on(h == NULL || callbacks == NULL);
    h->entry = *entry;
    h->head_bytes_max = http->head_bytes_max > 0 ? http->head_bytes_max : HEAD_BYTES_MAX;
    h->fields_max = http->fields_max > 0 ? http->fields_max : HEAD_FIELDS_MAX;
    h->head_timeout_ms =
        http->header_timeout_ms > 0 ? http->header_timeout_ms : HEAD_TIMEOUT_MS;
    if (hd_h2_session_init(&h->s, c, callbacks, true, h) != HD_OK) {
        hd_http_entry_let_go(&h->entry, c);
        free(h);
        hd_conn_reset(c);
        return;
    }
    set_budget(h, http);
    h->s.frames.block_bytes_max = hd_max(h->head_bytes_max, (uint32_t)65536);
    h->s.out_of = out_of;
    h->s.on_out_drained = on_out_drained;
    hd_list_init(&h->streams);
    hd_list_add_last(&conns, &h->link);
    hd_timer_init(&h->timer, on_due);
    hd_timer_init(&h->unwanted, on_unwanted_due);
    hd_timer_init(&h->goodbye, on_goodbye);
    h->born_ns = hd_loop_now_ns(c->loop);
    h->idle_ms = http->loc != NULL && http->loc->keepalive_timeout_ms > 0
                     ? http->loc->keepalive_timeout_ms
                     : IDLE_TIMEOUT_MS;
    hd_conn_set_handler(c, &handler, h);
    submit_settings(h, http);
    hd_h2_session_keepalive(&h->s, http->h2_ping_ms, http->h2_ping_timeout_ms);
    hd_h2_session_flush_later(&h->s);
    set_idle_timer(h);
    if (c->is_readable)
        hd_conn_wake(c);
}

static bool is_untold(const h2_server_t *h, const hd_loop_t *loop)
{
    return h->s.conn->loop == loop && !h->is_draining;
}

/* Not in the first round: a conn that is new has its first requests on their way. */
void hd_h2_drain(hd_loop_t *loop, const hd_drain_round_t *round)
{
    size_t n = 0;

    hd_list_each(link, &conns)
    {
        n += is_untold(hd_list_entry(link, h2_server_t, link), loop);
    }
    n = round->no > 0 ? hd_drain_share(round, n) : 0;
    hd_list_each(link, &conns)
    {
        h2_server_t *h = hd_list_entry(link, h2_server_t, link);

        if (n == 0)
            break;
        if (!is_untold(h, loop))
            continue;
        n--;
        begin_drain(h);
    }
}
