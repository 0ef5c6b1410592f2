/* The client's side of HTTP/2: a stream that becomes a tunnel's end (CONNECT, RFC 9113
 * §8.5; extended CONNECT, RFC 8441). */
#include "http/hd_h2_server_int.h"
#include "core/net/hd_tunnel.h"

void hd_h2_tunnel_end(hd_h2_stream_t *st)
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

static void tube_send(void *arg, hd_chain_t *bytes)
{
    hd_h2_stream_t *st = arg;

    if (st->out.chain.bytes == 0)
        st->out.moved_ns = hd_loop_now_ns(st->server->s.conn->loop);
    hd_h2_out_add(&st->server->s, st->id, &st->out, bytes, NULL);
    hd_h2_stream_watch(st);
}

static bool tube_is_full(void *arg)
{
    hd_h2_stream_t *st = arg;

    st->out.was_high |= st->out.chain.bytes > HD_H2_STREAM_OUT_HIGH;
    return st->out.was_high;
}

static void tube_on_room(void *arg)
{
    hd_h2_stream_return_credit(arg);
}

/* RFC 9113 §8.5: a TCP connection that broke is CONNECT_ERROR. */
static void tube_on_reset(void *arg)
{
    hd_h2_stream_t *st = arg;

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
    hd_h2_stream_t *st = req->client_state;

    st->tunnel_req = NULL;
    hd_h2_stream_free_if_over(st);
}

hd_conn_t *hd_h2_tunnel_take_conn(hd_req_t *req)
{
    hd_h2_stream_t *st = req->client_state;
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
    hd_h2_stream_return_credit(st);
    return other;
}

void hd_h2_tunnel_take_data(hd_h2_stream_t *st, const uint8_t *data, size_t len)
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
        hd_h2_stream_return_credit(st);
}
