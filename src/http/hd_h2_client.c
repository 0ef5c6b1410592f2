/* The upstream's side of HTTP/2: many exchanges over one pooled conn. */
#include "http/hd_chars.h"
#include "http/hd_h2_session.h"
#include "http/hd_h2_tube.h"
#include "http/hd_websocket.h"

#include <stdlib.h>

#define STREAMS_MAX 100 /* until the peer's SETTINGS say otherwise (RFC 9113 §6.5.2) */

typedef struct h2_client_s h2_client_t;

typedef struct {
    h2_client_t *client;
    hd_exchange_t *x; /* NULL: its user is done with it */
    int32_t id;
    hd_link_t link;
    hd_h2_out_t out;
    hd_h2_tube_t *tube; /* the stream is a tunnel's end; NULL: not, or it is over */
    hd_req_t *waits;    /* for the peer's SETTINGS, to be sent (RFC 8441 §3) */
    uint32_t head_bytes, unconsumed, interims_n;
    hd_str_t large;   /* the head is beyond the limit, by this field (of <x>'s pool) */
    bool cannot;      /* the peer can't do what is asked for */
    bool holds_place; /* as a tunnel, at the pool, until it is over */
    hd_req_t *req;    /* good as long as <x> is */
    bool is_tunnel, is_upgrade; /* asks for a tunnel, and how */
    bool paused, head_given, ended, closed, refused, in_trailers;
    bool bad_status; /* RFC 9113 §8.3.2 with RFC 9110 §15: below 100 is none */
    bool is_endless; /* interim responses without end */
    bool is_early;   /* begun before the peer's SETTINGS had come */
} h2_stream_t;

struct h2_client_s {
    hd_h2_session_t s; /* first: callbacks get it */
    hd_upconn_t *up;
    hd_link_t streams;
    bool is_ending, has_settings;
};

static h2_stream_t *stream_of(hd_h2_session_t *s, int32_t id)
{
    hd_h2_out_t *out = hd_h2_out_of(s, id);

    return out == NULL ? NULL : hd_container_of(out, h2_stream_t, out);
}

static void on_out_drained(hd_h2_out_t *out)
{
    h2_stream_t *st = hd_container_of(out, h2_stream_t, out);

    if (st->tube != NULL)
        hd_h2_tube_pull(st->tube);
    else if (st->x != NULL)
        st->x->user->on_writable(st->x);
}

static void free_stream(h2_stream_t *st)
{
    hd_upconn_t *up = st->holds_place ? st->client->up : NULL;

    if (st->tube != NULL)
        hd_h2_tube_close(st->tube, true);
    hd_list_remove(&st->link);
    /* nghttp2 may close it later than we do: what is queued yet is sent at the conn's end
     */
    nghttp2_session_set_stream_user_data(st->client->s.ng, st->id, NULL);
    hd_h2_out_free(&st->out);
    st->client->s.streams--;
    free(st);
    if (up != NULL)
        hd_upconn_release(up, true); /* last: it may end the conn */
}

/* The exchange is over for its user; the stream may live on until nghttp2 has closed it.
 */
static void let_go(h2_stream_t *st)
{
    h2_client_t *h = st->client;

    st->x = NULL;
    hd_upconn_release(h->up, true);
}

static void end_exchange(h2_stream_t *st, hd_exchange_end_t why, const hd_err_t *err)
{
    hd_exchange_t *x = st->x;

    if (x == NULL)
        return;
    let_go(st);
    x->user->on_end(x, why, err);
}

static void end_conn(h2_client_t *h, hd_exchange_end_t why, const hd_err_t *err)
{
    if (h->is_ending)
        return;
    h->is_ending = true;
    h->up->draining = true;
    hd_list_each(link, &h->streams)
    {
        h2_stream_t *st = hd_list_entry(link, h2_stream_t, link);

        st->closed = true;
        end_exchange(st, st->refused ? HD_XR_REFUSED : why, err);
        free_stream(st);
    }
    hd_upconn_gone(h->up);
}

/* --- the request --- */

static size_t put_pseudo(nghttp2_nv *nv, const hd_req_t *req, hd_str_t scheme)
{
    const hd_req_head_t *head = &req->head;
    size_t n = 0;

    nv[n++] = hd_h2_nv(HD_STR(":method"), hd_req_up_method(req));
    if (head->method_id != HD_M_CONNECT) {
        nv[n++] = hd_h2_nv(HD_STR(":scheme"), scheme);
        nv[n++] = hd_h2_nv(HD_STR(":path"), hd_req_up_path(req));
    }
    nv[n++] = hd_h2_nv(HD_STR(":authority"), hd_req_up_host(req));
    if (head->is_upgrade) { /* RFC 8441 §4 */
        nv[0] = hd_h2_nv(HD_STR(":method"), HD_STR("CONNECT"));
        nv[n++] = hd_h2_nv(HD_STR(":protocol"), head->protocol);
    }
    return n;
}

/* Has the peer said that it can? */
static bool may_connect(const h2_client_t *h)
{
    return nghttp2_session_get_remote_settings(
               h->s.ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

/* Nothing was sent: ended by on_readable, never from within the user's call. */
static void refuse(h2_stream_t *st)
{
    st->id = 0;
    st->waits = NULL;
    st->refused = true;
    hd_conn_wake(st->client->s.conn);
}

static void submit(h2_stream_t *st, hd_req_t *req, bool has_body, int64_t length)
{
    h2_client_t *h = st->client;
    nghttp2_data_provider provider = hd_h2_provider();
    const hd_field_t *te = hd_headers_get(&req->head.headers, HD_H_TE);
    bool is_tls = hd_tls_is_on(h->s.conn);
    nghttp2_nv nv[HD_FIELDS_MAX + 8];
    char digits[HD_U64_DIGITS_MAX];
    size_t n;

    if (req->head.is_upgrade && !may_connect(h)) { /* RFC 8441 §3 */
        st->cannot = true;
        refuse(st);
        return;
    }
    n = put_pseudo(nv, req, is_tls ? HD_STR("https") : HD_STR("http"));
    n = hd_h2_put_fields(nv, n, HD_FIELDS_MAX, &req->head.headers);
    if (te != NULL &&
        hd_str_eq_nocase(te->value, HD_STR("trailers"))) /* gRPC asks for it */
        nv[n++] = hd_h2_nv(HD_STR("te"), HD_STR("trailers"));
    if (length >= 0 && !st->is_tunnel &&
        (has_body || hd_headers_get(&req->head.headers, HD_H_CONTENT_LENGTH)))
        nv[n++] =
            hd_h2_nv(HD_STR("content-length"), hd_str_from_u64((uint64_t)length, digits));
    st->waits = NULL;
    st->id = nghttp2_submit_request(
        h->s.ng, NULL, nv, n, has_body || st->is_tunnel ? &provider : NULL, &st->out);
    if (st->id < 0) { /* ids used up, or GOAWAY came */
        h->up->draining = true;
        refuse(st);
        return;
    }
    st->x->head_written = true;
    hd_h2_session_flush_later(&h->s);
}

static void send_head(hd_exchange_t *x, hd_req_t *req, bool has_body, int64_t length)
{
    h2_client_t *h = x->upconn->_codec;
    h2_stream_t *st = calloc(1, sizeof(*st));

    hd_bug_on(st == NULL);
    st->client = h;
    st->x = x;
    st->req = req;
    st->is_early = !h->has_settings;
    st->is_upgrade = req->head.is_upgrade;
    st->is_tunnel = st->is_upgrade || req->head.method_id == HD_M_CONNECT;
    hd_chain_init(&st->out.chain);
    hd_list_add_last(&h->streams, &st->link);
    h->s.streams++;
    x->_codec = st;
    if (req->head.is_upgrade && !h->has_settings)
        st->waits = req;
    else
        submit(st, req, has_body, length);
}

/* The peer has said what it can: those who ask for a tunnel by extended CONNECT go now.
 */
static void send_waiting(h2_client_t *h)
{
    hd_list_each(link, &h->streams)
    {
        h2_stream_t *st = hd_list_entry(link, h2_stream_t, link);

        if (st->waits != NULL)
            submit(st, st->waits, false, 0);
    }
}

static void send_body(hd_exchange_t *x, hd_chain_t *body, const hd_headers_t *trailers)
{
    h2_stream_t *st = x->_codec;

    if (st == NULL || st->closed || st->x != x || st->id == 0) {
        hd_chain_free(body);
        return;
    }
    hd_h2_out_add(&st->client->s, st->id, &st->out, body, trailers);
}

static bool is_full(hd_exchange_t *x)
{
    h2_stream_t *st = x->_codec;

    if (st->out.chain.bytes > HD_H2_STREAM_OUT_HIGH)
        st->out.was_high = true;
    return st->out.was_high;
}

static void return_credit(h2_stream_t *st)
{
    if (st->unconsumed == 0 || st->closed)
        return;
    nghttp2_session_consume_stream(st->client->s.ng, st->id, st->unconsumed);
    st->unconsumed = 0;
    hd_h2_session_flush_later(&st->client->s);
}

static void pause(hd_exchange_t *x, bool paused)
{
    h2_stream_t *st = x->_codec;

    if (st == NULL || st->x != x)
        return;
    st->paused = paused;
    if (!paused)
        return_credit(st);
}

static void cancel(hd_exchange_t *x)
{
    h2_stream_t *st = x->_codec;
    h2_client_t *h = x->upconn->_codec;

    if (st == NULL) { /* nothing was sent yet */
        hd_upconn_release(x->upconn, true);
        return;
    }
    if (st->x != x)
        return;
    if (st->id > 0 && !st->closed) {
        nghttp2_submit_rst_stream(h->s.ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
        hd_h2_session_flush_later(&h->s);
        let_go(st);
        return;
    }
    let_go(st);
    free_stream(st);
}

/* --- a stream that becomes a tunnel's end --- */

static void tube_send(void *arg, hd_chain_t *bytes)
{
    h2_stream_t *st = arg;

    hd_h2_out_add(&st->client->s, st->id, &st->out, bytes, NULL);
}

static bool tube_is_full(void *arg)
{
    h2_stream_t *st = arg;

    st->out.was_high |= st->out.chain.bytes > HD_H2_STREAM_OUT_HIGH;
    return st->out.was_high;
}

static void tube_on_room(void *arg)
{
    return_credit(arg);
}

static void tube_on_reset(void *arg)
{
    h2_stream_t *st = arg;

    st->tube = NULL;
    if (st->closed)
        return;
    nghttp2_submit_rst_stream(st->client->s.ng, NGHTTP2_FLAG_NONE, st->id,
                              NGHTTP2_CANCEL);
    hd_h2_session_flush_later(&st->client->s);
}

static const hd_h2_tube_ops_t tube_ops = {.send = tube_send,
                                          .is_full = tube_is_full,
                                          .on_room = tube_on_room,
                                          .on_reset = tube_on_reset};

static hd_conn_t *take_conn(hd_exchange_t *x)
{
    h2_stream_t *st = x->_codec;
    hd_err_t err = {0};
    hd_conn_t *other;

    st->tube = hd_h2_tube_open(st->client->s.conn->loop, &tube_ops, st, &other, &err);
    if (st->tube == NULL) {
        cancel(x);
        return NULL;
    }
    st->x = NULL;
    st->holds_place = true;
    return other;
}

const hd_client_codec_t hd_h2_client = {
    .name = "h2",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .pause = pause,
    .cancel = cancel,
    .take_conn = take_conn,
};

/* --- the response --- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    h2_client_t *h = user;
    h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);

    (void)ng;
    if (st == NULL || st->x == NULL)
        return 0;
    st->head_bytes = 0;
    st->in_trailers = st->head_given;
    hd_headers_init(st->in_trailers ? &st->x->trailers : &st->x->res.headers, st->x->pool,
                    st->in_trailers ? 4 : 16);
    return 0;
}

static uint32_t head_bytes_max(const hd_exchange_t *x)
{
    return x->head_bytes_max > 0 ? x->head_bytes_max : HD_UP_HEAD_BYTES;
}

/* Not taken: the stream is reset, and the log says why. */
static int refuse_large(h2_stream_t *st, hd_str_t name, size_t value_len)
{
    const hd_headers_t *fields = st->in_trailers ? &st->x->trailers : &st->x->res.headers;
    size_t longest = name.len + value_len;

    for (uint32_t i = 0; i < fields->n; i++) {
        const hd_field_t *f = &fields->fields[i];

        if (f->name.len + f->value.len <= longest)
            continue;
        longest = f->name.len + f->value.len;
        name = f->name;
    }
    st->large = hd_str_dup(st->x->pool, name);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len,
                     uint8_t flags, void *user)
{
    h2_client_t *h = user;
    h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);
    hd_headers_t *to;
    uint64_t status = 0;

    (void)ng, (void)flags;
    if (st == NULL || st->x == NULL)
        return 0;
    st->head_bytes += (uint32_t)(name_len + value_len + 32);
    to = st->in_trailers ? &st->x->trailers : &st->x->res.headers;
    if (st->head_bytes > head_bytes_max(st->x) || to->n >= hd_exchange_fields_max(st->x))
        return refuse_large(st, hd_str_n((const char *)name, name_len), value_len);
    if (name_len > 0 && name[0] == ':') {
        if (!hd_str_eq(hd_str_n((const char *)name, name_len), HD_STR(":status")))
            return 0;
        st->bad_status =
            !hd_str_to_u64(hd_str_n((const char *)value, value_len), 999, &status) ||
            status < 100;
        st->x->res.status = (unsigned)status;
        return st->bad_status ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
    }
    return hd_h2_add_field(to, name, name_len, value, value_len)
               ? 0
               : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void give_end(h2_stream_t *st)
{
    hd_exchange_t *x = st->x;
    hd_chain_t body;

    st->ended = true;
    if (st->tube != NULL)
        hd_h2_tube_end(st->tube);
    if (x == NULL)
        return;
    hd_chain_init(&body);
    hd_chain_set_flags(&body, HD_SLICE_END | (x->trailers.n > 0 ? HD_SLICE_TRAILERS : 0));
    st->x = NULL;
    x->user->on_body(x, &body);
    hd_chain_free(&body);
    hd_upconn_release(st->client->up, true);
}

static void take_head(h2_stream_t *st, bool ended)
{
    hd_exchange_t *x = st->x;
    const hd_field_t *f = hd_headers_get(&x->res.headers, HD_H_CONTENT_LENGTH);
    uint64_t length;

    x->res.version = HD_HTTP_20;
    x->res.content_length = HD_LEN_UNKNOWN;
    if (f != NULL && hd_str_to_u64(f->value, INT64_MAX, &length))
        x->res.content_length = (int64_t)length;
    hd_headers_mark_hops(&x->res.headers);
    if (x->res.status < 200) {
        if (++st->interims_n <= HD_INTERIMS_MAX) {
            x->user->on_interim(x);
            return;
        }
        st->is_endless = true;
        nghttp2_submit_rst_stream(st->client->s.ng, NGHTTP2_FLAG_NONE, st->id,
                                  NGHTTP2_PROTOCOL_ERROR);
        hd_h2_session_flush_later(&st->client->s);
        return;
    }
    if (st->is_tunnel && x->res.status / 100 == 2 && !ended) {
        if (st->is_upgrade)
            hd_websocket_from_h2_answer(st->req, &x->res, x->pool);
        x->upgraded = true;
        st->head_given = true;
        x->user->on_head(x);
        return;
    }
    x->res.has_body = !ended;
    if (ended && f == NULL && x->res.status != 304 &&
        hd_req_up_method_id(st->req) != HD_M_HEAD) /* theirs is said by nobody */
        x->res.content_length = 0;
    st->head_given = true;
    x->user->on_head(x);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    h2_client_t *h = user;
    h2_stream_t *st = NULL;
    bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    switch (frame->hd.type) {
    case NGHTTP2_SETTINGS: {
        uint32_t max = nghttp2_session_get_remote_settings(
            ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

        hd_upconn_set_streams(h->up, hd_min(max, 1000u));
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK) && !h->has_settings) {
            h->has_settings = true;
            send_waiting(h);
        }
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            hd_ignore(hd_h2_glitch(&h->s, HD_H2_SETTINGS_SENT, 1));
        return 0;
    }
    case NGHTTP2_GOAWAY:
        h->s.goaway_received = true;
        h->up->draining = true;
        hd_list_each(link, &h->streams)
        {
            h2_stream_t *other = hd_list_entry(link, h2_stream_t, link);

            if (other->id > frame->goaway.last_stream_id)
                other->refused = true; /* RFC 9113 §6.8: not processed, may be repeated */
        }
        return 0;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            hd_ignore(hd_h2_session_pong(&h->s, frame));
        else
            hd_ignore(hd_h2_glitch(&h->s, HD_H2_PINGS, 1));
        return 0;
    case NGHTTP2_HEADERS:
        st = stream_of(&h->s, frame->hd.stream_id);
        if (st == NULL || st->x == NULL)
            return 0;
        if (!st->head_given)
            take_head(st, ended);
        if (ended && st->head_given)
            give_end(st);
        return 0;
    case NGHTTP2_DATA:
        st = stream_of(&h->s, frame->hd.stream_id);
        if (ended && st != NULL && st->head_given)
            give_end(st);
        return 0;
    default:
        return 0;
    }
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *user)
{
    h2_client_t *h = user;
    h2_stream_t *st = stream_of(&h->s, id);
    hd_chain_t body;

    (void)flags;
    nghttp2_session_consume_connection(ng, len);
    if (st != NULL && st->tube != NULL) {
        hd_chain_init(&body);
        hd_chain_add(&body, h->s.in_block, (const char *)data, len, 0);
        hd_h2_tube_give(st->tube, &body);
        st->unconsumed += (uint32_t)len;
        if (!hd_h2_tube_is_full(st->tube))
            return_credit(st);
        return 0;
    }
    if (st == NULL || st->x == NULL || !st->head_given) {
        nghttp2_session_consume_stream(ng, id, len);
        return 0;
    }
    hd_chain_init(&body);
    hd_chain_add(&body, h->s.in_block, (const char *)data, len, 0);
    st->x->user->on_body(st->x, &body);
    hd_chain_free(&body);
    if (st->x != NULL && st->paused)
        st->unconsumed += (uint32_t)len;
    else
        nghttp2_session_consume_stream(ng, id, len);
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *user)
{
    h2_client_t *h = user;
    h2_stream_t *st = stream_of(&h->s, id);
    hd_err_t err = {0};

    (void)ng;
    if (st == NULL)
        return 0;
    st->closed = true;
    if (st->tube != NULL && error == NGHTTP2_NO_ERROR) { /* both halves are over */
        hd_h2_tube_close(st->tube, false);
        st->tube = NULL;
    }
    st->refused |= error == NGHTTP2_REFUSED_STREAM;
    if (st->x != NULL)
        st->x->was_unaware = st->refused && st->is_early;
    if (st->x != NULL && st->large.len > 0) {
        hd_exchange_too_large(&err, head_bytes_max(st->x), hd_exchange_fields_max(st->x),
                              st->large);
        end_exchange(st, HD_XR_TOO_LARGE, &err);
    } else if (st->x != NULL && st->is_endless) {
        hd_ignore(hd_err_set(&err, HD_E_PROTOCOL,
                             "upstream sent an invalid response: interim responses "
                             "without end"));
        end_exchange(st, HD_XR_PROTOCOL, &err);
    } else if (st->x != NULL && st->bad_status) {
        hd_ignore(hd_err_set(&err, HD_E_PROTOCOL, "upstream sent a bad :status"));
        end_exchange(st, HD_XR_PROTOCOL, &err);
    } else if (st->x != NULL) {
        hd_ignore(
            hd_err_set(&err, error == NGHTTP2_PROTOCOL_ERROR ? HD_E_PROTOCOL : HD_E_RESET,
                       "upstream reset the stream: %s", nghttp2_http2_strerror(error)));
        end_exchange(st,
                     st->refused                       ? HD_XR_REFUSED
                     : error == NGHTTP2_PROTOCOL_ERROR ? HD_XR_PROTOCOL
                                                       : HD_XR_STREAM,
                     &err);
    }
    free_stream(st);
    return 0;
}

/* --- the conn --- */

/* Exchanges that could not be submitted end here, out of their user's call. */
static void end_refused(h2_client_t *h)
{
    hd_err_t err = {0};

    hd_list_each(link, &h->streams)
    {
        h2_stream_t *st = hd_list_entry(link, h2_stream_t, link);

        if (st->id == 0 && st->waits == NULL) {
            if (st->cannot)
                hd_ignore(hd_err_set(&err, HD_E_PROTOCOL,
                                     "upstream offers no extended CONNECT (RFC 8441)"));
            end_exchange(st, st->cannot ? HD_XR_PROTOCOL : HD_XR_REFUSED, &err);
            free_stream(st);
        }
    }
}

/* The peer ended it while nothing was under way: it lets conns idle for so long. */
static void note_idle_end(h2_client_t *h, bool was_idle)
{
    if (was_idle && !h->s.is_broken && hd_list_is_empty(&h->streams))
        hd_upconn_peer_closed(h->up);
}

static void on_readable(hd_conn_t *c)
{
    h2_client_t *h = c->owner;
    bool was_idle = hd_list_is_empty(&h->streams);
    hd_err_t err = {0};
    bool is_over;
    hd_rc_t rc;

    end_refused(h);
    rc = hd_h2_session_read(&h->s);
    is_over = hd_h2_session_is_over(&h->s);
    if (rc == HD_ERROR || rc == HD_DONE || (h->s.goaway_received && h->s.streams == 0))
        note_idle_end(h, was_idle);
    if (hd_h2_session_is_peers_fault(&h->s) && (rc == HD_ERROR || is_over)) {
        hd_ignore(hd_err_set(&err, HD_E_PROTOCOL, "upstream sent an invalid response: %s",
                             c->err->text));
        end_conn(h, HD_XR_PROTOCOL, &err);
    } else if (rc == HD_ERROR) {
        end_conn(h, h->s.is_broken ? HD_XR_CLOSED : HD_XR_RESET, c->err);
    } else if (rc == HD_DONE) {
        hd_ignore(hd_err_set(&err, HD_E_RESET, "upstream closed the connection"));
        end_conn(h, HD_XR_CLOSED, &err);
    } else if (is_over || (h->s.goaway_received && h->s.streams == 0)) {
        end_conn(h, HD_XR_CLOSED, c->err);
    }
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    h2_client_t *h = user;

    (void)ng;
    hd_h2_session_sent(&h->s, frame);
    return 0;
}

static void on_writable(hd_conn_t *c)
{
    h2_client_t *h = c->owner;

    hd_h2_session_flush_later(&h->s);
}

static void on_closed(hd_conn_t *c)
{
    h2_client_t *h = c->owner;

    note_idle_end(h, !h->is_ending && h->up->exchanges > 0);
    end_conn(h, HD_XR_RESET, c->err);
}

static void on_stale(hd_conn_t *c)
{
    hd_upconn_stale(((h2_client_t *)c->owner)->up);
}

static uint64_t idle_since(const hd_conn_t *c)
{
    return hd_upconn_idle_since(((h2_client_t *)c->owner)->up);
}

static const hd_conn_handler_t handler = {.on_stale = on_stale,
                                          .idle_since = idle_since,
                                          .on_reuse = on_stale,
                                          .on_readable = on_readable,
                                          .on_writable = on_writable,
                                          .on_closed = on_closed};

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *cb;

    if (nghttp2_session_callbacks_new(&cb) != 0)
        return NULL;
    hd_h2_session_callbacks(cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    return cb;
}

/* With the conn's pool, when all is over. */
static void destroy_client(void *arg)
{
    h2_client_t *h = arg;

    hd_list_each(link, &h->streams)
    {
        h2_stream_t *st = hd_list_entry(link, h2_stream_t, link);

        st->holds_place = false; /* the pool is done with the conn */
        free_stream(st);
    }
    hd_h2_session_deinit(&h->s);
}

hd_rc_t hd_h2_client_open(hd_upconn_t *u, hd_err_t *err)
{
    static nghttp2_session_callbacks *callbacks;
    const hd_cluster_t *cluster = hd_upconn_cluster(u);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
         cluster != NULL && cluster->h2_stream_window > 0 ? cluster->h2_stream_window
                                                          : HD_H2_STREAM_WINDOW},
    };
    uint32_t conn_window = cluster != NULL && cluster->h2_conn_window > 0
                               ? cluster->h2_conn_window
                               : HD_H2_CONN_WINDOW;
    hd_pool_t *pool = hd_conn_pool(u->conn);
    h2_client_t *h = hd_pool_new(pool, h2_client_t);

    if (callbacks == NULL)
        callbacks = make_callbacks();
    if (callbacks == NULL ||
        hd_h2_session_init(&h->s, u->conn, callbacks, false, 0, h) != HD_OK)
        return hd_err_set(err, HD_E_INTERNAL, "no memory for an HTTP/2 session");
    h->up = u;
    h->s.on_out_drained = on_out_drained;
    hd_list_init(&h->streams);
    hd_pool_defer(pool, destroy_client, h);
    u->_codec = h;
    u->codec = &hd_h2_client;
    u->streams_max = hd_upconn_streams_expected(u, STREAMS_MAX);
    hd_conn_set_handler(u->conn, &handler, h);
    nghttp2_submit_settings(h->s.ng, NGHTTP2_FLAG_NONE, settings, hd_countof(settings));
    nghttp2_session_set_local_window_size(h->s.ng, NGHTTP2_FLAG_NONE, 0,
                                          (int32_t)conn_window);
    if (cluster != NULL)
        hd_ping_start(&h->s.ping, cluster->h2_ping_ms, cluster->h2_ping_timeout_ms);
    hd_h2_session_flush_later(&h->s);
    return HD_OK;
}
