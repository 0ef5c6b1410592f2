/* The client's side of HTTP/2: what a request asks of its client, and clients that are
 * slow to take or to send. */
#include "http/hd_h2_server_int.h"
#include "http/hd_websocket.h"

#define UNWANTED_MS 2000 /* so long a body that nobody wants is read */

/* How long the client may do nothing while it is waited for, and *since_ns: when it last
 * did something. */
static uint64_t patience_ms(const hd_h2_stream_t *st, uint64_t *since_ns)
{
    bool has_output = st->out.chain.bytes > 0;

    *since_ns = has_output ? st->out.moved_ns : st->data_ns;
    return hd_request_patience_ms(st->req, has_output,
                                  !st->remote_ended && st->unconsumed == 0);
}

void hd_h2_stream_watch(hd_h2_stream_t *st)
{
    uint64_t since_ns, ms;

    if (hd_timer_is_set(&st->timer) || st->closed)
        return;
    ms = patience_ms(st, &since_ns);
    if (ms > 0)
        hd_timer_set(st->server->s.conn->loop, &st->timer, ms);
}

/* Of a client that doesn't even take frames nothing is left to be told. */
static void on_slow_reader(hd_h2_stream_t *st)
{
    hd_h2_server_t *h = st->server;

    hd_h2_count(&h->s.budget, HD_H2_SLOW, 1);
    if (hd_conn_is_high(h->s.conn)) {
        hd_h2_server_end(h, HD_E_TIMEOUT, "client timed out while reading the response",
                         st->req != NULL && st->req->loc->timedout == HD_TIMEDOUT_CLOSES
                             ? HD_H2_END_CLOSING
                             : HD_H2_END_RESETTING);
        return;
    }
    st->is_aborted = true;
    nghttp2_submit_rst_stream(h->s.ng, NGHTTP2_FLAG_NONE, st->id,
                              NGHTTP2_ENHANCE_YOUR_CALM);
    hd_h2_session_flush_later(&h->s);
}

void hd_h2_stream_on_due(hd_timer_t *t)
{
    hd_h2_stream_t *st = hd_container_of(t, hd_h2_stream_t, timer);
    hd_loop_t *loop = st->server->s.conn->loop;
    uint64_t since_ns, ms, idle_ms;
    hd_req_t *req = st->req;

    if (st->closed) {
        st->req = NULL;
        if (req != NULL)
            hd_request_client_gone(req, HD_E_RESET, "the client had gone before");
        hd_h2_stream_free_if_over(st);
        return;
    }
    ms = patience_ms(st, &since_ns);
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

void hd_h2_stream_return_credit(hd_h2_stream_t *st)
{
    if (st->unconsumed == 0 || st->closed)
        return;
    nghttp2_session_consume_stream(st->server->s.ng, st->id, st->unconsumed);
    st->unconsumed = 0;
    hd_h2_session_flush_later(&st->server->s);
}

static void send_head(hd_req_t *req, bool is_interim)
{
    hd_h2_stream_t *st = req->client_state;
    hd_h2_session_t *s = &st->server->s;
    nghttp2_data_provider provider = hd_h2_provider();
    nghttp2_nv nv[HD_FIELDS_MAX + 4];
    char status[HD_U64_DIGITS_MAX], length[HD_U64_DIGITS_MAX];
    bool is_tunnel = req->tunnel_up != NULL;
    size_t n = 0;
    int rc;

    if (st->closed && !is_interim) /* it has gone on without its client up to here */
        hd_timer_set(req->loop, &st->timer, 1);
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
    hd_h2_stream_t *st = req->client_state;

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
    hd_h2_stream_watch(st);
}

static bool is_full(hd_req_t *req)
{
    hd_h2_stream_t *st = req->client_state;

    if (st->out.chain.bytes > HD_H2_STREAM_OUT_HIGH)
        st->out.was_high = true;
    return st->out.was_high;
}

/* The request's body was taken: the stream's credit is returned. */
static void want_body(hd_req_t *req)
{
    hd_h2_stream_t *st = req->client_state;

    if (st->closed)
        return;
    st->data_ns = hd_loop_now_ns(req->loop);
    hd_h2_stream_watch(st);
    hd_h2_stream_return_credit(st);
}

/* What there is of the response goes first: nghttp2 drops what is queued of a stream that
 * is reset. */
static void abort_response(hd_req_t *req, uint32_t h2_error)
{
    hd_h2_stream_t *st = req->client_state;
    hd_h2_session_t *s = &st->server->s;
    int32_t id = st->id;

    if (st->closed)
        return;
    if (req->response_started && !s->in_recv && !s->in_send) {
        hd_h2_session_flush(s);
        if (stream_of(s, id) != st || st->closed)
            return;
    }
    st->is_aborted = true;
    nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, h2_error);
    hd_h2_session_flush_later(s);
}

/* RFC 9113 §8.1: a whole response before a whole request: we want no more of it. */
static void cut_body(hd_h2_stream_t *st)
{
    st->is_unwanted = false;
    nghttp2_submit_rst_stream(st->server->s.ng, NGHTTP2_FLAG_NONE, st->id,
                              NGHTTP2_NO_ERROR);
    hd_h2_session_flush_later(&st->server->s);
}

void hd_h2_stream_stop_body(hd_h2_stream_t *st)
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
    st->unwanted = HD_H2_UNWANTED_BYTES;
    if (!hd_timer_is_set(&st->server->unwanted))
        hd_timer_set(c->loop, &st->server->unwanted, UNWANTED_MS);
}

void hd_h2_stream_drop_data(hd_h2_stream_t *st, size_t len)
{
    if (!st->is_unwanted)
        return;
    if (len > st->unwanted)
        cut_body(st);
    else
        st->unwanted -= (uint32_t)len;
}

void hd_h2_server_on_unwanted(hd_timer_t *t)
{
    hd_h2_server_t *h = hd_container_of(t, hd_h2_server_t, unwanted);

    hd_list_each(link, &h->streams)
    {
        hd_h2_stream_t *st = hd_list_entry(link, hd_h2_stream_t, link);

        if (st->is_unwanted)
            cut_body(st);
    }
}

static void on_finished(hd_req_t *req)
{
    hd_h2_stream_t *st = req->client_state;

    st->req = NULL;
    if (!st->is_aborted && !st->was_reset)
        hd_h2_budget_earn(&st->server->s.budget, HD_H2_EARNED_BY_REQUEST);
    hd_h2_stream_stop_body(st);
    hd_h2_stream_free_if_over(st);
}

const hd_client_ops_t hd_h2_server_ops = {
    .name = "http/2",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .want_body = want_body,
    .abort = abort_response,
    .on_finished = on_finished,
    .take_conn = hd_h2_tunnel_take_conn,
};
