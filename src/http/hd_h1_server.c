/* The client's side of HTTP/1: requests out of a conn's bytes, one after the other, and
 * their responses back. Pipelined requests wait in the block until the one before is
 * answered. */
#include "http/hd_chars.h"
#include "http/hd_codec.h"
#include "http/hd_h1_write.h"

#include <stdlib.h>

typedef enum {
    IDLE,     /* between requests: nothing received; no block */
    HEAD,     /* the first bytes of a head are there */
    LENGTH,   /* body of known length: <left> bytes */
    CHUNKED,  /* body in chunks */
    TRAILERS, /* the field section after the last chunk */
    ANSWER,   /* the request is complete, its response isn't */
    GONE,     /* closing, or handed to a tunnel */
} h1_state_t;

typedef struct {
    hd_conn_t *conn;
    hd_req_t *req; /* NULL between requests */
    hd_http_entry_t entry;
    hd_block_t *block; /* received bytes [from, to); NULL when none */
    uint32_t from, to;
    size_t scan_from;
    char *long_head; /* a head longer than a block, heap; NULL */
    size_t long_len, long_room;
    uint64_t left;
    hd_timer_t timer;
    hd_link_t link;          /* in <conns>, for drain */
    uint64_t bytes_out_seen; /* at the last look of the send time-out */
    uint32_t requests_n, timeout_ms;
    hd_chunked_t chunked;
    uint8_t state;
    bool response_chunked, response_done, close_after, is_draining, wants_continue,
        is_aborted;
    bool body_paused, discards;
} h1_server_t;

static hd_link_t conns = {&conns, &conns};

/* Heads may be this long if nothing else is configured; nginx: 4 buffers of 8 KB. */
#define HEAD_BYTES_MAX 32768
#define HEAD_FIELDS_MAX 100
#define LINGER_MS 5000
#define DISCARD_BYTES_MAX 65536

static void process(h1_server_t *h);

static void drop_block(h1_server_t *h)
{
    if (h->block != NULL)
        hd_block_unref(h->block);
    h->block = NULL;
    h->from = h->to = 0;
    h->scan_from = 0;
}

static void free_server(h1_server_t *h)
{
    drop_block(h);
    free(h->long_head);
    hd_list_remove(&h->link);
    hd_timer_stop(h->conn->loop, &h->timer);
    free(h);
}

/* Ends the conn; <linger>: what is queued still goes out, and unread bytes are drained so
 * that a reset doesn't overtake the answer. */
static void end_conn(h1_server_t *h, bool linger)
{
    hd_conn_t *c = h->conn;

    hd_bug_on(h->req != NULL);
    free_server(h);
    if (linger)
        hd_conn_close(c, LINGER_MS);
    else
        hd_conn_reset(c);
}

static void set_timer(h1_server_t *h, uint64_t ms)
{
    h->timeout_ms = (uint32_t)hd_min(ms, UINT32_MAX);
    if (ms == 0)
        hd_timer_stop(h->conn->loop, &h->timer);
    else
        hd_timer_set(h->conn->loop, &h->timer, ms);
}

/* The client is gone or broke the protocol: the request ends by itself. */
static void lose_client(h1_server_t *h, hd_err_code_t code, const char *why)
{
    hd_req_t *req = h->req;

    h->req = NULL;
    h->state = GONE;
    if (req != NULL)
        hd_request_client_gone(req, code, why);
    end_conn(h, false);
}

static const hd_http_conf_t *http_conf(h1_server_t *h)
{
    return hd_http_entry_refresh(&h->entry, h->conn);
}

/* --- the response --- */

static bool may_have_body(const hd_req_t *req)
{
    unsigned status = req->res.status;

    return req->head.method_id != HD_M_HEAD && status >= 200 && status != 204 &&
           status != 304;
}

static void put_framing(h1_server_t *h, hd_h1_writer_t *w, const hd_req_t *req)
{
    int64_t length = req->res.content_length;

    h->response_chunked = false;
    if (!may_have_body(req)) {
        /* what a GET would have had (RFC 9110 §8.6); never with 1xx and 204 */
        if (length >= 0 && req->res.status != 204 && req->res.status >= 200) {
            hd_h1_put_lit(w, "Content-Length: ");
            hd_h1_put_u64(w, (uint64_t)length);
            hd_h1_put(w, "\r\n", 2);
        }
    } else if (length >= 0) {
        hd_h1_put_lit(w, "Content-Length: ");
        hd_h1_put_u64(w, (uint64_t)length);
        hd_h1_put(w, "\r\n", 2);
    } else if (req->head.version >= HD_HTTP_11) {
        hd_h1_put_lit(w, "Transfer-Encoding: chunked\r\n");
        h->response_chunked = true;
    } else {
        h->close_after = true; /* HTTP/1.0: the body ends with the conn */
    }
}

static void put_status_line(hd_h1_writer_t *w, const hd_res_head_t *res)
{
    hd_str_t reason = res->reason.len > 0 ? res->reason : hd_http_reason(res->status);
    char code[4] = {(char)('0' + res->status / 100 % 10),
                    (char)('0' + res->status / 10 % 10), (char)('0' + res->status % 10),
                    ' '};

    hd_h1_put_lit(w, "HTTP/1.1 ");
    hd_h1_put(w, code, sizeof(code));
    hd_h1_put_str(w, reason);
    hd_h1_put(w, "\r\n", 2);
}

static void send_head(hd_req_t *req, bool is_interim)
{
    h1_server_t *h = req->client_state;
    hd_chain_t out;
    hd_h1_writer_t w;

    if (is_interim && req->head.version < HD_HTTP_11)
        return; /* RFC 9110 §15.2 */
    hd_chain_init(&out);
    hd_h1_writer_init(&w, &out);
    put_status_line(&w, &req->res);
    if (req->res.status == 101) {
        const hd_field_t *f = hd_headers_get(&req->res.headers, HD_H_UPGRADE);

        hd_h1_put_lit(&w, "Connection: upgrade\r\nUpgrade: ");
        hd_h1_put_str(&w, f != NULL ? f->value : req->head.protocol);
        hd_h1_put(&w, "\r\n", 2);
    } else if (!is_interim) {
        bool is_tunnel =
            req->head.method_id == HD_M_CONNECT && req->res.status / 100 == 2;

        h->close_after |= req->no_keepalive || !req->head.keep_alive || h->is_draining;
        if (!is_tunnel) {
            put_framing(h, &w, req);
            if (h->close_after)
                hd_h1_put_lit(&w, "Connection: close\r\n");
            else if (req->head.version == HD_HTTP_10 ||
                     hd_headers_get(&req->head.headers, HD_H_CONNECTION) != NULL)
                hd_h1_put_lit(&w, "Connection: keep-alive\r\n");
        }
    }
    hd_h1_put_fields(&w, &req->res.headers);
    hd_h1_put(&w, "\r\n", 2);
    if (!hd_h1_writer_end(&w)) {
        hd_chain_free(&out);
        hd_conn_reset(h->conn); /* on_closed doesn't come: the timer finds it */
        return;
    }
    if (!is_interim)
        req->head_bytes_sent += out.bytes;
    hd_conn_send(h->conn, &out);
}

static void send_body(hd_req_t *req, hd_chain_t *body)
{
    h1_server_t *h = req->client_state;
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    size_t content = body->bytes;
    hd_chain_t out;

    hd_chain_init(&out);
    if (!may_have_body(req)) {
        hd_chain_free(body);
    } else if (!h->response_chunked) {
        hd_chain_move(&out, body);
    } else if (!hd_h1_try_chunk(&out, body, &req->res_trailers)) {
        hd_chain_free(&out);
        h->close_after = true;
    } else {
        req->framing_bytes_sent += out.bytes - content;
    }
    h->response_done |= is_last;
    hd_conn_send(h->conn, &out);
}

static bool is_full(hd_req_t *req)
{
    h1_server_t *h = req->client_state;

    return hd_conn_is_high(h->conn);
}

static void send_continue(h1_server_t *h)
{
    hd_chain_t out;

    h->wants_continue = false;
    hd_chain_init(&out);
    hd_chain_add(&out, NULL, "HTTP/1.1 100 Continue\r\n\r\n", 25, 0);
    hd_conn_send(h->conn, &out);
}

static void want_body(hd_req_t *req)
{
    h1_server_t *h = req->client_state;

    if (h->wants_continue && !req->response_started)
        send_continue(h);
    if (h->body_paused) {
        h->body_paused = false;
        hd_conn_wake(h->conn);
    }
}

/* on_finished follows and ends the conn. */
static void abort_response(hd_req_t *req, uint32_t h2_error)
{
    h1_server_t *h = req->client_state;

    (void)h2_error;
    h->is_aborted = h->close_after = true;
}

/* The request is over: on to the next one, or the conn ends. A body that the client is
 * still sending is read and dropped if that is cheaper than a new conn. */
static void on_finished(hd_req_t *req)
{
    h1_server_t *h = req->client_state;

    h->req = NULL;
    if (h->state == ANSWER && !h->close_after) {
        h->state = h->from < h->to ? HEAD : IDLE;
        h->scan_from = 0;
        h->body_paused = false;
        if (h->state == HEAD || h->conn->is_readable || h->conn->peer_closed)
            hd_conn_wake(h->conn);
        if (h->state == IDLE) {
            drop_block(h);
            hd_conn_trim(h->conn);
        }
        return;
    }
    if (!h->close_after && !h->wants_continue &&
        (h->state == CHUNKED || (h->state == LENGTH && h->left <= DISCARD_BYTES_MAX))) {
        h->discards = true;
        h->left = h->state == LENGTH ? h->left : 0;
        hd_conn_wake(h->conn);
        return;
    }
    h->state = GONE;
    end_conn(h, !h->is_aborted);
}

static hd_conn_t *take_conn(hd_req_t *req)
{
    h1_server_t *h = req->client_state;
    hd_conn_t *c = h->conn;

    if (h->from < h->to)
        hd_conn_unread(c, h->block, h->block->data + h->from, h->to - h->from);
    h->req = NULL;
    h->state = GONE;
    free_server(h);
    return c;
}

static const hd_client_ops_t client_ops = {
    .name = "http/1",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .want_body = want_body,
    .abort = abort_response,
    .on_finished = on_finished,
    .take_conn = take_conn,
};

/* --- the request --- */

static hd_h1_limits_t limits_of(const hd_http_conf_t *http)
{
    hd_h1_limits_t l = {.bytes_max = HEAD_BYTES_MAX,
                        .fields_max = HEAD_FIELDS_MAX,
                        .underscores = http->is_xds,
                        .ignore_invalid = true};

    if (http->head_bytes_max > 0)
        l.bytes_max = http->head_bytes_max;
    if (http->fields_max > 0)
        l.fields_max = http->fields_max;
    if (http->loc != NULL && !http->is_xds) {
        l.underscores = http->loc->underscores_in_headers;
        l.ignore_invalid = http->loc->ignore_invalid_headers;
    }
    return l;
}

/* <bytes>: the head, or what there is of it. */
static unsigned status_of(hd_h1_rc_t rc, hd_str_t bytes, size_t bytes_max)
{
    switch (rc) {
    case HD_H1_TOO_LONG: /* a request line alone beyond the limit: RFC 9110 §15.5.15 */
        return hd_str_find_char(hd_str_sub(bytes, 0, bytes_max), '\n') < 0 ? 414 : 431;
    case HD_H1_VERSION:
        return 505;
    case HD_H1_TE:
        return 501;
    default:
        return 400;
    }
}

static hd_str_t received(const h1_server_t *h)
{
    if (h->long_head != NULL)
        return hd_str_n(h->long_head, h->long_len);
    return h->block == NULL ? HD_STR_NONE
                            : hd_str_n(h->block->data + h->from, h->to - h->from);
}

/* Empty lines before a request line are skipped (RFC 9112 §2.2), a few of them. */
static void skip_empty_lines(h1_server_t *h)
{
    for (unsigned i = 0; i < 2 && h->long_head == NULL && h->scan_from == 0; i++) {
        if (h->to - h->from < 2 || memcmp(h->block->data + h->from, "\r\n", 2) != 0)
            return;
        h->from += 2;
    }
}

static void begin_body(h1_server_t *h, const hd_req_t *req)
{
    h->wants_continue = req->head.expects_continue && h->from == h->to;
    h->body_paused = h->discards = false;
    if (!req->head.has_body) {
        h->state = ANSWER;
    } else if (req->head.content_length == HD_LEN_UNKNOWN) {
        h->state = CHUNKED;
        h->chunked = (hd_chunked_t){0};
    } else {
        h->state = LENGTH;
        h->left = (uint64_t)req->head.content_length;
    }
}

/* What of a long head's buffer lies behind the head goes back into a block. */
static bool keep_rest(h1_server_t *h, size_t used)
{
    size_t rest = h->long_len - used;

    drop_block(h);
    if (rest > 0) {
        h->block = hd_block_try_take();
        if (h->block == NULL || rest > HD_BLOCK_BYTES)
            return false;
        memcpy(h->block->data, h->long_head + used, rest);
        h->to = (uint32_t)rest;
    }
    return true;
}

/* The bytes that the head's strings are slices of live as long as the request. */
static bool hold_head(h1_server_t *h, hd_req_t *req, size_t used)
{
    if (h->long_head != NULL) {
        char *head = h->long_head;
        bool good = keep_rest(h, used);

        hd_pool_defer(req->pool, free, head);
        h->long_head = NULL;
        h->long_len = h->long_room = 0;
        return good;
    }
    hd_block_ref(h->block);
    hd_pool_defer(req->pool, (void (*)(void *))hd_block_unref, h->block);
    h->from += (uint32_t)used;
    return true;
}

/* True: a request was begun, go on with its body. */
static bool read_head(h1_server_t *h)
{
    const hd_http_conf_t *http = http_conf(h);
    hd_h1_limits_t limits;
    const char *why = "";
    size_t head_len = 0, used = 0, scan_again = 0;
    hd_str_t bytes;
    hd_h1_rc_t rc;
    hd_req_t *req;

    if (http == NULL) { /* the listener is gone or has other TLS settings now */
        h->state = GONE;
        end_conn(h, true);
        return false;
    }
    skip_empty_lines(h);
    bytes = received(h);
    limits = limits_of(http);
    rc = hd_h1_scan_head(bytes, &h->scan_from, limits.bytes_max, &head_len, &why);
    if (rc == HD_H1_MORE)
        return false;

    req = hd_request_create(h->conn, h->conn->loop, hd_loop_member(h->conn->loop),
                            &client_ops, h);
    h->req = req;
    h->response_done = false;
    h->scan_from = 0;
    if (rc == HD_H1_OK)
        rc = hd_h1_parse_request(bytes, &scan_again, &limits, req->pool, &req->head,
                                 &used, &why);
    if (rc == HD_H1_OK && !hold_head(h, req, used))
        rc = HD_H1_TOO_LONG;
    if (rc == HD_H1_OK &&
        hd_http_normalize_path(req->head.raw_path, http, req->pool, &req->head.path,
                               &req->head.query) != HD_OK) {
        rc = HD_H1_BAD;
        why = "bad path";
    }
    if (rc != HD_H1_OK) {
        hd_request_set_entry(req, &h->entry);
        h->close_after = true;
        h->state = ANSWER;
        set_timer(h, LINGER_MS);
        hd_request_reject(req, status_of(rc, bytes, limits.bytes_max), why);
        return false;
    }
    req->head_bytes_received = used;
    req->head.scheme = hd_tls_is_on(h->conn) ? HD_STR("https") : HD_STR("http");
    hd_headers_mark_hops(&req->head.headers);
    h->requests_n++;
    if (http->requests_per_conn > 0 && h->requests_n >= http->requests_per_conn)
        h->close_after = true;
    begin_body(h, req);
    set_timer(h, http->loc != NULL ? http->loc->client_body_timeout_ms : 60000);
    hd_request_start(req, &h->entry);
    return h->req == req;
}

static void give_body(h1_server_t *h, hd_str_t bytes, unsigned flags)
{
    hd_chain_t body;

    if (h->req == NULL) /* discarded */
        return;
    hd_chain_init(&body);
    hd_chain_add(&body, bytes.len > 0 ? h->block : NULL, bytes.data, bytes.len, flags);
    hd_request_give_body(h->req, &body);
    hd_chain_free(&body);
}

/* The request's last byte was read. */
static bool end_body(h1_server_t *h, unsigned flags)
{
    h->state = ANSWER;
    if (h->discards) {
        h->discards = false;
        h->state = h->from < h->to ? HEAD : IDLE;
        h->scan_from = 0;
        return true;
    }
    give_body(h, HD_STR_NONE, HD_SLICE_END | flags);
    return false;
}

static void refuse_body(h1_server_t *h, const char *why)
{
    hd_req_t *req = h->req;

    h->close_after = true;
    if (req == NULL) {
        h->state = GONE;
        end_conn(h, true);
    } else if (req->response_started) {
        lose_client(h, HD_E_PROTOCOL, why);
    } else {
        h->state = ANSWER;
        hd_request_reject(req, 400, why);
    }
}

static bool read_length(h1_server_t *h)
{
    hd_str_t bytes = {h->block->data + h->from,
                      hd_min(h->left, (uint64_t)(h->to - h->from))};
    hd_req_t *req = h->req;

    h->from += (uint32_t)bytes.len;
    h->left -= bytes.len;
    if (h->left > 0) {
        give_body(h, bytes, 0);
        return h->req == req && h->state == LENGTH;
    }
    if (h->discards)
        return end_body(h, 0);
    h->state = ANSWER;
    give_body(h, bytes, HD_SLICE_END);
    return false;
}

static bool read_chunked(h1_server_t *h)
{
    hd_str_t bytes = {h->block->data + h->from, h->to - h->from}, content;
    hd_req_t *req = h->req;
    const char *why = "";
    size_t used = 0;
    hd_h1_rc_t rc = hd_chunked_next(&h->chunked, bytes, &content, &used, &why);

    if (rc == HD_H1_BAD) {
        refuse_body(h, why);
        return false;
    }
    h->from += (uint32_t)used;
    if (h->discards && (h->left += content.len) > DISCARD_BYTES_MAX) {
        h->state = GONE;
        end_conn(h, true);
        return false;
    }
    if (rc == HD_H1_OK)
        h->state = TRAILERS;
    if (content.len > 0) {
        give_body(h, content, 0);
        if (h->req != req)
            return false;
    }
    return h->state == CHUNKED || h->state == TRAILERS;
}

static bool read_trailers(h1_server_t *h)
{
    hd_str_t bytes = {h->block->data + h->from, h->to - h->from};
    hd_h1_limits_t limits = {.bytes_max = 8192, .fields_max = 50, .underscores = true};
    hd_pool_t *pool = h->req != NULL ? h->req->pool : hd_pool_create(0);
    hd_headers_t unused, *trailers = h->req != NULL ? &h->req->trailers : &unused;
    const char *why = "";
    size_t used = 0;
    hd_h1_rc_t rc = hd_h1_parse_trailers(bytes, &limits, pool, trailers, &used, &why);
    bool has_any = rc == HD_H1_OK && trailers->n > 0;

    if (h->req == NULL)
        hd_pool_destroy(pool);
    if (rc == HD_H1_MORE)
        return false;
    if (rc != HD_H1_OK) {
        refuse_body(h, why);
        return false;
    }
    h->from += (uint32_t)used;
    if (has_any && h->req != NULL) {
        hd_block_ref(h->block);
        hd_pool_defer(h->req->pool, (void (*)(void *))hd_block_unref, h->block);
    }
    return end_body(h, has_any ? HD_SLICE_TRAILERS : 0);
}

static bool (*const readers[])(h1_server_t *h) = {
    [IDLE] = read_head,
    [HEAD] = read_head,
    [LENGTH] = read_length,
    [CHUNKED] = read_chunked,
    [TRAILERS] = read_trailers,
    [ANSWER] = NULL,
    [GONE] = NULL,
};

static bool has_bytes(const h1_server_t *h)
{
    return h->from < h->to || h->long_head != NULL;
}

/* Consumes what was received as far as it goes; <h> may be gone afterwards. */
static void process(h1_server_t *h)
{
    while (has_bytes(h) && readers[h->state] != NULL) {
        if (h->req != NULL && hd_request_is_full(h->req)) {
            h->body_paused = true;
            return;
        }
        if (!readers[h->state](h))
            return;
    }
}

/* A head that doesn't fit into what is left of its block moves to the front of a fresh
 * one, or, beyond a block, to a buffer of its own. */
static bool make_room(h1_server_t *h)
{
    size_t rest = h->to - h->from;
    hd_block_t *fresh;

    if (h->block != NULL && rest == 0 && h->block->refs == 1) {
        h->from = h->to = 0;
        return true;
    }
    if (h->block != NULL && (size_t)HD_BLOCK_BYTES - h->to > 1024)
        return true;
    fresh = hd_block_try_take();
    if (fresh == NULL)
        return false;
    if (rest > 0)
        memcpy(fresh->data, h->block->data + h->from, rest);
    if (h->block != NULL)
        hd_block_unref(h->block);
    h->block = fresh;
    h->from = 0;
    h->to = (uint32_t)rest;
    return true;
}

static void lengthen_head(h1_server_t *h, const hd_http_conf_t *http)
{
    size_t max =
        http != NULL && http->head_bytes_max > 0 ? http->head_bytes_max : HEAD_BYTES_MAX;

    h->long_room = max + HD_BLOCK_BYTES;
    h->long_head = malloc(h->long_room);
    hd_bug_on(h->long_head == NULL);
    h->long_len = h->to - h->from;
    memcpy(h->long_head, h->block->data + h->from, h->long_len);
    drop_block(h);
}

static ssize_t receive(h1_server_t *h)
{
    ssize_t n;

    if (h->long_head == NULL && h->state <= HEAD && h->from == 0 &&
        (size_t)HD_BLOCK_BYTES - h->to <= 1024 && h->block != NULL) {
        size_t scan = h->scan_from;

        lengthen_head(h, http_conf(h));
        h->scan_from = scan;
    }
    if (h->long_head != NULL) {
        n = hd_conn_read(h->conn, h->long_head + h->long_len,
                         hd_min(h->long_room - h->long_len, (size_t)HD_BLOCK_BYTES));
        if (n > 0)
            h->long_len += (size_t)n;
        return n;
    }
    if (!make_room(h))
        return HD_IO_ERROR;
    n = hd_conn_read(h->conn, h->block->data + h->to, HD_BLOCK_BYTES - h->to);
    if (n > 0)
        h->to += (uint32_t)n;
    return n;
}

static void set_read_timer(h1_server_t *h)
{
    const hd_http_conf_t *http;

    if (h->state != HEAD && h->state != IDLE)
        return;
    http = http_conf(h);
    if (h->state == HEAD) {
        if (h->timeout_ms == 0 || h->requests_n > 0)
            set_timer(h, http != NULL && http->header_timeout_ms > 0
                             ? http->header_timeout_ms
                             : 60000);
    } else {
        uint64_t ms =
            http != NULL && http->idle_timeout_ms > 0 ? http->idle_timeout_ms : 75000;

        if (http != NULL && http->loc != NULL && !http->is_xds)
            ms = http->loc->keepalive_timeout_ms;
        set_timer(h, ms);
    }
}

static void on_end_of_stream(h1_server_t *h)
{
    if (h->state == IDLE) {
        h->state = GONE;
        end_conn(h, false);
        return;
    }
    if (h->state == ANSWER) /* half-closed: it may still read our answer */
        h->close_after = true;
    else
        lose_client(h, HD_E_RESET, "client closed the connection within its request");
}

static void on_readable(hd_conn_t *c)
{
    h1_server_t *h = c->owner;

    if (has_bytes(h)) { /* pipelined, or left over from a pause */
        process(h);
        if (c->owner != h || c->state >= HD_CONN_CLOSING)
            return;
    }
    while (h->state != ANSWER && !h->body_paused && c->is_readable) {
        ssize_t n = receive(h);

        if (n == HD_IO_AGAIN)
            break;
        if (n == HD_IO_ERROR) {
            lose_client(h, HD_E_RESET, "client reset the connection");
            return;
        }
        if (n == 0) {
            on_end_of_stream(h);
            return;
        }
        if (h->state == IDLE) {
            h->state = HEAD;
            h->timeout_ms = 0;
            set_read_timer(h);
        }
        process(h);
        if (c->owner != h || c->state >= HD_CONN_CLOSING)
            return;
    }
    if (h->state == IDLE) {
        drop_block(h);
        set_read_timer(h);
    }
}

static void on_writable(hd_conn_t *c)
{
    h1_server_t *h = c->owner;

    if (h->req != NULL)
        hd_request_on_drained(h->req);
}

static void on_closed(hd_conn_t *c)
{
    lose_client(c->owner, HD_E_RESET, "client reset the connection");
}

static const hd_conn_handler_t handler = {
    .on_readable = on_readable, .on_writable = on_writable, .on_closed = on_closed};

/* What a time-out means depends on what we waited for. */
static void on_due(hd_timer_t *t)
{
    h1_server_t *h = hd_container_of(t, h1_server_t, timer);
    hd_req_t *req;

    switch (h->state) {
    case IDLE:
        h->state = GONE;
        end_conn(h, true);
        return;
    case HEAD:
        h->close_after = true;
        h->state = ANSWER;
        req = hd_request_create(h->conn, h->conn->loop, hd_loop_member(h->conn->loop),
                                &client_ops, h);
        h->req = req;
        set_timer(h, LINGER_MS);
        hd_request_reject(req, 408, "request head timeout");
        return;
    case LENGTH:
    case CHUNKED:
    case TRAILERS:
        if (h->body_paused) { /* we wait for the upstream, not for the client */
            set_timer(h, h->timeout_ms);
            return;
        }
        req = h->req;
        h->close_after = true;
        if (req == NULL) {
            h->state = GONE;
            end_conn(h, true);
        } else if (req->response_started) {
            lose_client(h, HD_E_TIMEOUT, "client body timeout");
        } else {
            h->state = ANSWER;
            set_timer(h, LINGER_MS);
            hd_request_reject(req, 408, "request body timeout");
        }
        return;
    default: /* ANSWER: does the client take what we send? */
        if (!hd_chain_is_empty(&h->conn->out) &&
            h->conn->bytes_out == h->bytes_out_seen) {
            lose_client(h, HD_E_TIMEOUT, "client doesn't read its response");
            return;
        }
        h->bytes_out_seen = h->conn->bytes_out;
        set_timer(h, h->timeout_ms);
    }
}

void hd_h1_serve(hd_conn_t *c, const hd_slot_t *listener, const hd_filter_chain_t *chain)
{
    h1_server_t *h = calloc(1, sizeof(*h));

    hd_bug_on(h == NULL);
    h->conn = c;
    hd_http_entry_init(&h->entry, listener, chain);
    h->state = IDLE;
    hd_timer_init(&h->timer, on_due);
    hd_list_add_last(&conns, &h->link);
    hd_conn_set_handler(c, &handler, h);
    h->timeout_ms = 0;
    set_timer(h, 60000);
    if (c->is_readable || c->in.bytes > 0)
        hd_conn_wake(c);
}

void hd_h1_drain(hd_loop_t *loop)
{
    hd_list_each(link, &conns)
    {
        h1_server_t *h = hd_list_entry(link, h1_server_t, link);

        if (h->conn->loop != loop)
            continue;
        h->is_draining = true;
        if (h->state == IDLE && !h->conn->is_readable) {
            h->state = GONE;
            end_conn(h, true);
        }
    }
}
