/* The upstream's side of a weft: many exchanges over one pooled conn to another Heddle.
 */
#include "http/hd_weft.h"

typedef struct weft_client_s weft_client_t;

/* In the request's pool: it is over when its exchange is. */
typedef struct {
    hd_weft_stream_t st; /* first: callbacks get it */
    weft_client_t *client;
    hd_exchange_t *x;
    unsigned interims_n;
    bool was_head, head_given, paused;
    bool is_refused; /* the peer's GOAWAY didn't count it */
    bool is_large;   /* its head is longer than a peer takes */
} stream_t;

struct weft_client_s {
    hd_weft_t w; /* first: callbacks get it */
    hd_upconn_t *up;
    hd_link_t lost; /* streams that could not be opened */
    bool is_ending;
};

static const hd_h1_limits_t limits = {
    .bytes_max = 131072, .fields_max = HD_FIELDS_MAX, .underscores = true};

/* The exchange is over for its user, and with it the stream, whatever is left of the
 * request. */
static void let_go(stream_t *s)
{
    weft_client_t *h = s->client;

    s->x = NULL;
    if (hd_weft_is_open(&s->st) && !(s->st.end_sent && s->st.in_ended))
        hd_weft_reset(&h->w, &s->st, HD_WEFT_CANCEL);
    hd_weft_close(&h->w, &s->st);
    hd_list_remove(&s->st.link);
    hd_upconn_release(h->up, true);
}

static void end_exchange(stream_t *s, hd_exchange_end_t why, const hd_err_t *err)
{
    hd_exchange_t *x = s->x;

    if (x == NULL)
        return;
    let_go(s);
    x->user->on_end(x, why, err);
}

/* Exchanges for which there was no room end here, out of their user's call. */
static void end_lost(weft_client_t *h)
{
    while (!hd_list_is_empty(&h->lost)) {
        stream_t *s = (stream_t *)hd_list_entry(h->lost.next, hd_weft_stream_t, link);
        hd_err_t err = {0};

        if (s->is_large)
            hd_ignore(
                hd_err_set(&err, HD_E_LIMIT, "a request head longer than a link takes"));
        end_exchange(s, s->is_large ? HD_XR_TOO_LARGE : HD_XR_REFUSED, &err);
    }
}

static void end_conn(weft_client_t *h, hd_exchange_end_t why, const hd_err_t *err)
{
    hd_weft_stream_t *st;
    uint32_t at = 0;

    if (h->is_ending)
        return;
    h->is_ending = true;
    h->up->draining = true;
    end_lost(h);
    while ((st = hd_weft_next(&h->w, &at)) != NULL)
        end_exchange((stream_t *)st, ((stream_t *)st)->is_refused ? HD_XR_REFUSED : why,
                     err);
    hd_upconn_gone(h->up);
}

/* --- the request --- */

static void put_head(hd_h1_writer_t *w, const hd_req_t *req, bool has_body,
                     int64_t length)
{
    const hd_req_head_t *head = &req->head;
    const hd_field_t *te = hd_headers_get(&head->headers, HD_H_TE);

    hd_h1_put_str(w, hd_req_up_method(req));
    hd_h1_put(w, " ", 1);
    hd_h1_put_str(w, hd_req_up_path(req));
    hd_h1_put_lit(w, " HTTP/1.1\r\nHost: ");
    hd_h1_put_str(w, hd_req_up_host(req));
    hd_h1_put(w, "\r\n", 2);
    if (te != NULL && hd_str_eq_nocase(te->value, HD_STR("trailers"))) /* gRPC's */
        hd_h1_put_lit(w, "TE: trailers\r\n");
    if (length >= 0 &&
        (has_body || hd_headers_get(&head->headers, HD_H_CONTENT_LENGTH) != NULL))
        hd_h1_put_length(w, length);
    hd_h1_put_fields(w, &head->headers);
    hd_h1_put(w, "\r\n", 2);
}

/* Ended by on_readable, never from within its user's call. */
static void lose(stream_t *s)
{
    hd_list_init(&s->st.link);
    hd_list_add_last(&s->client->lost, &s->st.link);
    hd_conn_wake(s->client->w.conn);
}

static void send_head(hd_exchange_t *x, hd_req_t *req, bool has_body, int64_t length)
{
    weft_client_t *h = x->upconn->_codec;
    stream_t *s = hd_pool_new(x->pool, stream_t);
    uint8_t flags = has_body ? 0 : HD_WEFT_END;

    s->client = h;
    s->x = x;
    s->was_head = hd_req_up_method_id(req) == HD_M_HEAD;
    x->_codec = s;
    if (!hd_weft_try_open(&h->w, &s->st, 0)) {
        h->up->draining = true;
        lose(s);
        return;
    }
    if (h->up->is_http2)
        flags |= HD_WEFT_VERSION2;
    put_head(hd_weft_begin_head(&h->w), req, has_body, length);
    s->is_large = !hd_weft_end_head(&h->w, &s->st, flags);
    x->head_written = !s->is_large;
    if (s->is_large) {
        hd_weft_close(&h->w, &s->st);
        lose(s);
    }
}

static void send_body(hd_exchange_t *x, hd_chain_t *body, const hd_headers_t *trailers)
{
    stream_t *s = x->_codec;

    if (s == NULL || s->x != x)
        hd_chain_free(body);
    else
        hd_weft_send_body(&s->client->w, &s->st, body, trailers);
}

static bool is_full(hd_exchange_t *x)
{
    stream_t *s = x->_codec;

    return hd_weft_is_full(&s->st);
}

static void pause(hd_exchange_t *x, bool paused)
{
    stream_t *s = x->_codec;

    if (s == NULL || s->x != x)
        return;
    s->paused = paused;
    if (paused || s->st.held == 0)
        return;
    hd_weft_consume(&s->client->w, &s->st, s->st.held);
    s->st.held = 0;
}

static void cancel(hd_exchange_t *x)
{
    stream_t *s = x->_codec;

    if (s == NULL) /* nothing was sent yet */
        hd_upconn_release(x->upconn, true);
    else if (s->x == x)
        let_go(s);
}

static const hd_client_codec_t codec = {
    .name = "weft",
    .is_for_many = true,
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .pause = pause,
    .cancel = cancel,
};

/* --- the response --- */

static void refuse_as(stream_t *s, hd_exchange_end_t how, const hd_err_t *err)
{
    hd_weft_reset(&s->client->w, &s->st, HD_WEFT_PROTOCOL);
    end_exchange(s, how, err);
}

static void refuse(stream_t *s, const char *why)
{
    hd_err_t err = {0};

    hd_ignore(
        hd_err_set(&err, HD_E_PROTOCOL, "upstream sent an invalid response: %s", why));
    refuse_as(s, HD_XR_PROTOCOL, &err);
}

static void give_end(stream_t *s, unsigned flags)
{
    hd_exchange_t *x = s->x;
    hd_chain_t body;

    hd_chain_init(&body);
    hd_chain_set_flags(&body, HD_SLICE_END | flags);
    let_go(s);
    x->user->on_body(x, &body);
    hd_chain_free(&body);
}

static void take_head(stream_t *s, hd_str_t text, bool ended)
{
    hd_exchange_t *x = s->x;
    hd_h1_limits_t own = limits;
    bool keep_alive, until_close;
    const char *why = "";
    size_t used, scan_from = 0;
    hd_h1_rc_t rc;

    if (x->head_bytes_max > 0)
        own.bytes_max = hd_min(own.bytes_max, x->head_bytes_max);
    own.fields_max = hd_exchange_fields_max(x);
    hd_weft_hold(&s->client->w, x->pool); /* of a bad one something may be logged, too */
    rc = hd_h1_parse_response(text, &scan_from, &own, x->pool, s->was_head, false,
                              &x->res, &keep_alive, &until_close, &used, &why);
    if (rc == HD_H1_TOO_LONG) {
        hd_err_t err = {0};

        hd_exchange_too_large(&err, own.bytes_max, own.fields_max,
                              hd_h1_longest_field(text, NULL));
        refuse_as(s, HD_XR_TOO_LARGE, &err);
        return;
    }
    if (rc != HD_H1_OK || used != text.len ||
        hd_headers_get(&x->res.headers, HD_H_TRANSFER_ENCODING) != NULL ||
        x->res.status == 101) {
        refuse(s, rc == HD_H1_MORE || *why == '\0' ? "bad head" : why);
        return;
    }
    hd_headers_mark_hops(&x->res.headers);
    if (x->res.status < 200) {
        s->interims_n += text.len > HD_BLOCK_BYTES ? HD_LONG_INTERIM : 1;
        if (ended)
            refuse(s, "it ends with an interim response");
        else if (s->interims_n > HD_INTERIMS_MAX)
            refuse(s, "interim responses without end");
        else
            x->user->on_interim(x);
        return;
    }
    if (hd_headers_get(&x->res.headers, HD_H_CONTENT_LENGTH) == NULL)
        x->res.content_length = ended && x->res.has_body ? 0 : HD_LEN_UNKNOWN;
    if (!ended)
        s->st.in_left = x->res.content_length;
    else if (x->res.has_body && x->res.content_length > 0) {
        refuse(s, "its body is missing");
        return;
    }
    x->res.has_body = !ended;
    s->head_given = true;
    x->user->on_head(x);
    if (ended && s->x == x) {
        s->st.in_ended = true;
        give_end(s, 0);
    }
}

static bool on_head(hd_weft_t *w, uint32_t id, hd_weft_stream_t *st, hd_str_t text,
                    uint8_t flags)
{
    stream_t *s = (stream_t *)st;

    (void)w, (void)id;
    if (s == NULL)
        return true;
    if (s->head_given)
        return false;
    take_head(s, text, (flags & HD_WEFT_END) != 0);
    return true;
}

static void on_data(hd_weft_t *w, hd_weft_stream_t *st, hd_chain_t *body)
{
    stream_t *s = (stream_t *)st;
    uint32_t len = (uint32_t)body->bytes;

    if (!s->head_given) {
        refuse(s, "a body before its head");
        return;
    }
    s->x->user->on_body(s->x, body);
    if (s->x != NULL && s->paused)
        st->held += len;
    else
        hd_weft_consume(w, st, len);
}

static void on_trailers(hd_weft_t *w, hd_weft_stream_t *st, hd_str_t text)
{
    stream_t *s = (stream_t *)st;
    const char *why = "";
    size_t used;

    hd_weft_hold(w, s->x->pool);
    if (!s->head_given ||
        hd_h1_parse_trailers(text, &limits, s->x->pool, &s->x->trailers, &used, &why) !=
            HD_H1_OK ||
        used != text.len)
        refuse(s, "bad trailers");
}

static void on_end(hd_weft_t *w, hd_weft_stream_t *st)
{
    stream_t *s = (stream_t *)st;

    (void)w;
    if (!s->head_given)
        refuse(s, "no head");
    else
        give_end(s, s->x->trailers.n > 0 ? HD_SLICE_TRAILERS : 0);
}

static void on_reset(hd_weft_t *w, hd_weft_stream_t *st, uint32_t code)
{
    static const char *const names[] = {"cancelled", "refused", "protocol error",
                                        "internal error"};
    hd_err_t err = {0};

    (void)w;
    hd_ignore(hd_err_set(&err, code == HD_WEFT_PROTOCOL ? HD_E_PROTOCOL : HD_E_RESET,
                         "upstream reset the stream: %s",
                         names[hd_min(code, (uint32_t)HD_WEFT_INTERNAL)]));
    end_exchange((stream_t *)st,
                 code == HD_WEFT_REFUSED    ? HD_XR_REFUSED
                 : code == HD_WEFT_PROTOCOL ? HD_XR_PROTOCOL
                                            : HD_XR_STREAM,
                 &err);
}

static void on_goaway(hd_weft_t *w, uint32_t no)
{
    hd_weft_stream_t *st;
    uint32_t at = 0;

    ((weft_client_t *)w)->up->draining = true;
    while ((st = hd_weft_next(w, &at)) != NULL)
        ((stream_t *)st)->is_refused = (int32_t)(st->no - no) > 0;
}

static void on_hello(hd_weft_t *w)
{
    weft_client_t *h = (weft_client_t *)w;

    hd_upconn_set_streams(h->up, w->peer_streams);
}

static void on_drained(hd_weft_t *w, hd_weft_stream_t *st)
{
    stream_t *s = (stream_t *)st;

    (void)w;
    if (s->x != NULL)
        s->x->user->on_writable(s->x);
}

static const hd_weft_user_t weft_user = {
    .on_head = on_head,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_end = on_end,
    .on_reset = on_reset,
    .on_goaway = on_goaway,
    .on_hello = on_hello,
    .on_drained = on_drained,
};

/* --- the conn --- */

static void on_readable(hd_conn_t *c)
{
    weft_client_t *h = c->owner;
    hd_err_t err = {0};
    hd_rc_t rc;

    end_lost(h);
    rc = hd_weft_read(&h->w);
    if (rc == HD_ERROR) {
        end_conn(h,
                 !h->w.is_broken                ? HD_XR_RESET
                 : c->err->code == HD_E_TIMEOUT ? HD_XR_CLOSED
                                                : HD_XR_PROTOCOL,
                 c->err);
    } else if (rc == HD_DONE) {
        hd_ignore(hd_err_set(&err, HD_E_RESET, "upstream closed the connection"));
        end_conn(h, HD_XR_CLOSED, &err);
    } else if (h->w.goaway_received && h->w.streams_n == 0) {
        end_conn(h, HD_XR_CLOSED, c->err);
    }
}

static void on_writable(hd_conn_t *c)
{
    hd_weft_on_writable(&((weft_client_t *)c->owner)->w);
}

static void on_closed(hd_conn_t *c)
{
    end_conn(c->owner, HD_XR_RESET, c->err);
}

static void on_stale(hd_conn_t *c)
{
    hd_upconn_stale(((weft_client_t *)c->owner)->up);
}

static uint64_t idle_since(const hd_conn_t *c)
{
    return hd_upconn_idle_since(((weft_client_t *)c->owner)->up);
}

static const hd_conn_handler_t handler = {.on_stale = on_stale,
                                          .idle_since = idle_since,
                                          .on_reuse = on_stale,
                                          .on_readable = on_readable,
                                          .on_writable = on_writable,
                                          .on_closed = on_closed};

static void destroy_client(void *arg)
{
    hd_weft_deinit(&((weft_client_t *)arg)->w);
}

hd_rc_t hd_weft_client_open(hd_upconn_t *u, hd_err_t *err)
{
    const hd_cluster_t *cluster = hd_upconn_cluster(u);
    hd_pool_t *pool = hd_conn_pool(u->conn);
    weft_client_t *h = hd_pool_new(pool, weft_client_t);

    (void)err;
    h->up = u;
    hd_list_init(&h->lost);
    hd_pool_defer(pool, destroy_client, h);
    hd_conn_set_handler(u->conn, &handler, h);
    hd_weft_init(&h->w, u->conn, &weft_user, HD_WEFT_STREAMS_MAX, false);
    if (cluster != NULL)
        hd_ping_start(&h->w.ping, cluster->h2_ping_ms, cluster->h2_ping_timeout_ms);
    u->_codec = h;
    u->codec = &codec;
    u->streams_max = hd_upconn_streams_expected(u, h->w.peer_streams);
    return HD_OK;
}
