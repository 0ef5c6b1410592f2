/* The client's side of HTTP/2: frames to requests' heads and bodies. */
#include "http/hd_h2_server_int.h"
#include "core/net/hd_overload.h"
#include "core/net/hd_tls.h"
#include "http/hd_chars.h"
#include "http/hd_websocket.h"

#include <stdlib.h>

void hd_h2_stream_free(hd_h2_stream_t *st)
{
    hd_h2_server_t *h = st->server;

    hd_h2_tunnel_end(st);
    hd_list_remove(&st->link);
    hd_h2_out_free(&st->out);
    hd_chain_free(&st->early);
    hd_timer_stop(h->s.conn->loop, &st->timer);
    h->s.streams--;
    free(st);
    if (h->s.streams == 0)
        hd_h2_server_set_idle_timer(h);
}

void hd_h2_stream_free_if_over(hd_h2_stream_t *st)
{
    if (st->closed && st->req == NULL && st->tunnel_req == NULL)
        hd_h2_stream_free(st);
}

void hd_h2_request_on_drained(hd_h2_out_t *out)
{
    hd_h2_stream_t *st = hd_container_of(out, hd_h2_stream_t, out);

    if (st->tube != NULL)
        hd_h2_tube_pull(st->tube);
    else if (st->req != NULL)
        hd_request_on_drained(st->req);
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    hd_h2_server_t *h = user;
    hd_h2_stream_t *st;

    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        st = stream_of(&h->s, frame->hd.stream_id);
        if (st != NULL && st->req != NULL) {
            st->in_trailers = true;
            hd_headers_init(&st->req->trailers, st->req->pool, 4);
        }
        return 0;
    }
    if (h->streams_open >= h->s.streams_max) {
        nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_REFUSED_STREAM);
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
    h->streams_open++;
    h->in_head = true;
    hd_timer_set(h->s.conn->loop, &h->timer, h->head_timeout_ms);
    hd_timer_init(&st->timer, hd_h2_stream_on_due);
    st->data_ns = hd_loop_now_ns(h->s.conn->loop);
    st->req = hd_request_create(h->s.conn, h->s.conn->loop,
                                hd_loop_member(h->s.conn->loop), &hd_h2_server_ops, st);
    hd_headers_init(&st->req->head.headers, st->req->pool, 16);
    st->req->head.version = HD_HTTP_20;
    /* What :scheme says is the client's word: redirects, X-Forwarded-Proto and who must
     * come over TLS go by the connection, as over HTTP/1 (RFC 9110 §7.4). */
    st->req->head.scheme = hd_tls_is_on(h->s.conn) ? HD_STR("https") : HD_STR("http");
    st->req->head.keep_alive = true;
    nghttp2_session_set_stream_user_data(ng, st->id, &st->out);
    return 0;
}

static void refuse_head(hd_h2_stream_t *st, unsigned status, const char *why)
{
    if (st->bad_status == 0) {
        st->bad_status = status;
        st->bad_why = why;
    }
}

static hd_headers_t *fields_of(const hd_h2_stream_t *st)
{
    return st->in_trailers ? &st->req->trailers : &st->req->head.headers;
}

/* As HTTP/1 would write it. */
static bool is_long_line(const hd_h2_server_t *h, size_t name_len, size_t value_len)
{
    return hd_unlikely(name_len + value_len + 4 > h->head_line_max);
}

/* The head is beyond a limit with this field, which isn't taken any more: which limit,
 * and the longest of all so far. */
static void refuse_large(hd_h2_stream_t *st, hd_str_t name, size_t value_len)
{
    hd_h2_server_t *h = st->server;
    const hd_headers_t *fields = fields_of(st);
    size_t longest = name.len + value_len;
    bool is_line = is_long_line(h, name.len, value_len);
    bool is_many = st->head_bytes <= h->head_bytes_max, is_target;
    uint32_t max;

    if (st->is_large)
        return;
    for (uint32_t i = 0; i < fields->n; i++) {
        const hd_field_t *f = &fields->fields[i];

        if (f->name.len + f->value.len <= longest)
            continue;
        longest = f->name.len + f->value.len;
        name = f->name;
    }
    is_target = hd_str_eq(name, HD_STR(":path")); /* RFC 9110 §15.5.15 */
    refuse_head(st, is_target ? 414 : 431, "request head too large");
    max = is_line ? h->head_line_max : is_many ? h->fields_max : h->head_bytes_max;
    hd_http_say_limit(st->req, h->is_xds,
                      is_many && !is_line ? HD_LIMIT_FIELDS
                      : is_target         ? HD_LIMIT_TARGET
                      : is_line           ? HD_LIMIT_LINE
                                          : HD_LIMIT_HEAD,
                      max, name);
    st->is_large = true;
    hd_ignore(hd_h2_glitch(&h->s, HD_H2_LARGE_HEADS, 1));
}

static bool take_pseudo(hd_h2_stream_t *st, hd_str_t name, hd_str_t value)
{
    hd_req_head_t *head = &st->req->head;

    if (hd_str_eq(name, HD_STR(":method")))
        head->method = hd_str_dup(st->req->pool, value);
    else if (hd_str_eq(name, HD_STR(":path")))
        head->raw_path = hd_str_dup(st->req->pool, value);
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
    hd_h2_server_t *h = user;
    hd_h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);
    hd_str_t field = hd_str_n((const char *)name, name_len);
    hd_headers_t *to;

    (void)ng, (void)flags;
    if (st == NULL || st->req == NULL)
        return 0;
    /* what is decoded counts, not what came over the wire (HPACK bombs) */
    st->head_bytes += (uint32_t)(name_len + value_len + 32);
    to = fields_of(st);
    if (st->head_bytes > h->head_bytes_max || to->n >= h->fields_max ||
        is_long_line(h, name_len, value_len)) {
        refuse_large(st, field, value_len);
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
            take_pseudo(st, field, hd_str_n((const char *)value, value_len));
        return 0;
    }
    if (!hd_h2_add_field(to, name, name_len, value, value_len))
        refuse_head(st, 431, "too many fields");
    return 0;
}

/* What nghttp2 leaves to us of RFC 9113 §8.3.1 and of our own strictness. */
static void check_head(hd_h2_stream_t *st)
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
        if (!hd_http_is_connect_target(head->authority))
            refuse_head(st, 400, "CONNECT needs host:port");
        return;
    }
    if (head->raw_path.len == 0 ||
        hd_span(head->raw_path, HD_CH_TARGET) != head->raw_path.len ||
        (head->raw_path.data[0] != '/' && !(hd_str_eq(head->raw_path, HD_STR("*")) &&
                                            hd_str_eq(head->method, HD_STR("OPTIONS")))))
        refuse_head(st, 400, "bad :path");
}

/* As over HTTP/1. */
static void take_odd_fields_off(hd_h2_stream_t *st, const hd_http_conf_t *http)
{
    hd_headers_t *fields = &st->req->head.headers;
    hd_h1_limits_t l = hd_http_limits(http, 0, 0);

    if (l.odd_fields == HD_ODD_PASS)
        return;
    for (uint32_t i = 0; i < fields->n; i++) {
        hd_field_t *f = &fields->fields[i];

        if (!hd_h1_is_odd_name(f->name, &l))
            continue;
        f->flags |= HD_FIELD_REMOVED;
        if (l.odd_fields == HD_ODD_REFUSE)
            refuse_head(st, 400, "odd character in a field name");
    }
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

static void start_request(hd_h2_server_t *h, hd_h2_stream_t *st, bool ended)
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
    h->times = hd_http_times(http);
    check_head(st);
    take_odd_fields_off(st, http);
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
    st->is_long = head->content_length > HD_H2_UNWANTED_BYTES || head->expects_continue;
    st->req->head_bytes_received = st->head_bytes;
    if (st->bad_status == 0 && head->method_id != HD_M_CONNECT &&
        hd_http_take_path(st->req, http) != HD_OK)
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
    if (h->entry.is_old || hd_overload_now.saves_memory ||
        hd_http_is_worn(http, h->s.conn, h->requests_n))
        hd_h2_server_begin_drain(h);
}

static void give_end(hd_h2_stream_t *st, unsigned flags)
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

/* The trailers may be beyond a limit, or end a request that was refused already. */
static void take_trailers(hd_h2_stream_t *st)
{
    if (st->req == NULL || st->bad_status == 0) {
        give_end(st, st->req != NULL && st->req->trailers.n > 0 ? HD_SLICE_TRAILERS : 0);
        return;
    }
    st->remote_ended = true;
    hd_request_reject(st->req, st->bad_status, st->bad_why);
}

static int on_headers_recv(hd_h2_server_t *h, const nghttp2_frame *frame)
{
    hd_h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);
    bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    if (st == NULL)
        return 0;
    if (!st->started) {
        if (st->req != NULL)
            st->req->head_wire_bytes = (uint32_t)frame->hd.length;
        st->remote_ended = ended;
        start_request(h, st, ended);
    } else if (st->in_trailers) {
        take_trailers(st);
    }
    return 0;
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    hd_h2_server_t *h = user;
    hd_h2_stream_t *st;

    (void)ng;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        return on_headers_recv(h, frame);
    case NGHTTP2_DATA:
        st = stream_of(&h->s, frame->hd.stream_id);
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            if (st != NULL)
                give_end(st, 0);
        } else if (frame->hd.length <= frame->data.padlen) { /* of padding at most */
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
            hd_h2_server_finish_drain(h);
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

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *user)
{
    hd_h2_server_t *h = user;
    hd_h2_stream_t *st = stream_of(&h->s, id);
    hd_chain_t body;

    (void)flags;
    nghttp2_session_consume_connection(ng, len);
    if (st != NULL)
        st->data_ns = hd_loop_now_ns(h->s.conn->loop);
    if (st != NULL && st->is_connect && (st->tube != NULL || st->req != NULL)) {
        hd_h2_tunnel_take_data(st, data, len);
        return 0;
    }
    if (st == NULL || st->req == NULL || st->bad_status != 0) {
        nghttp2_session_consume_stream(ng, id, len);
        if (st != NULL)
            hd_h2_stream_drop_data(st, len);
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
static void count_reset(hd_h2_server_t *h, const nghttp2_frame *frame)
{
    const hd_h2_stream_t *st = stream_of(&h->s, frame->hd.stream_id);
    uint32_t error = frame->rst_stream.error_code;

    if (error == NGHTTP2_NO_ERROR || (st != NULL && st->is_aborted))
        return;
    hd_ignore(hd_h2_glitch(
        &h->s, error == NGHTTP2_REFUSED_STREAM ? HD_H2_REFUSED : HD_H2_PROVOKED, 1));
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    hd_h2_server_t *h = user;
    hd_h2_stream_t *st;

    (void)ng;
    if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        st = stream_of(&h->s, frame->hd.stream_id);
        if (st != NULL) {
            st->end_sent = true;
            hd_h2_stream_stop_body(st);
        }
    }
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        count_reset(h, frame);
    hd_h2_session_sent(&h->s, frame);
    return 0;
}

/* nghttp2 found its head malformed, and has reset the stream. */
static void lose_misread(hd_h2_server_t *h, hd_req_t *req)
{
    if (hd_http_entry_refresh(&h->entry, h->s.conn) == NULL) {
        hd_request_client_gone(req, HD_E_NO_ROUTE, "listener is gone");
        return;
    }
    hd_request_misread(req, &h->entry);
    hd_http_entry_let_go(&h->entry, h->s.conn);
}

/* The client has reset its request; those that nobody waits for any more are bounded as
 * those that somebody does. */
static bool goes_on(const hd_h2_server_t *h, hd_req_t *req)
{
    if (h->s.streams > h->s.streams_max || !hd_request_outlives_client(req))
        return false;
    hd_request_add_flag(req, HD_RF(DOWNSTREAM_RESET));
    return true;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *user)
{
    hd_h2_server_t *h = user;
    hd_h2_stream_t *st = stream_of(&h->s, id);
    hd_req_t *req;

    if (st == NULL)
        return 0;
    nghttp2_session_set_stream_user_data(ng, id, NULL);
    st->closed = true;
    h->streams_open--;
    hd_h2_out_free(&st->out);
    if (st->tube != NULL && error == NGHTTP2_NO_ERROR) { /* both halves are over */
        hd_h2_tube_close(st->tube, false);
        st->tube = NULL;
    }
    if (error != NGHTTP2_NO_ERROR)
        hd_h2_tunnel_end(st);
    req = st->req;
    if (req != NULL && st->was_reset && goes_on(h, req))
        return 0;
    if (req != NULL && (error != NGHTTP2_NO_ERROR || !st->started || !st->out.ended)) {
        st->req = NULL;
        if (st->was_reset)
            hd_request_client_reset(req, error == NGHTTP2_REFUSED_STREAM);
        else if (!st->started)
            lose_misread(h, req);
        else
            hd_request_client_gone(req, HD_E_RESET, "the client's stream was reset");
    }
    hd_h2_stream_free_if_over(st);
    return 0;
}

nghttp2_session_callbacks *hd_h2_request_callbacks(void)
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
