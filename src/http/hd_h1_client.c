/* The upstream's side of HTTP/1: one exchange at a time over a pooled conn. */
#include "http/hd_chars.h"
#include "http/hd_codec.h"
#include "http/hd_h1_input.h"
#include "http/hd_h1_write.h"

typedef enum {
    IDLE,        /* no exchange; whatever arrives ends the conn */
    HEAD,        /* waits for a response head (interim ones too) */
    LENGTH,      /* body of known length */
    CHUNKED,     /* body in chunks */
    TRAILERS,    /* the field section after the last chunk */
    UNTIL_CLOSE, /* body that ends with the conn */
    TUNNEL,      /* 101 or 2xx to CONNECT: the bytes are the taker's */
} h1_state_t;

typedef struct {
    hd_upconn_t *up;
    hd_exchange_t *x;  /* NULL: none */
    hd_block_t *block; /* received bytes [from, to); NULL while idle */
    size_t from, to, scan_from;
    hd_h1_input_t *longer; /* has a head that is longer than a block, then <block>
                              nothing; of the exchange's pool; NULL */
    uint64_t left;
    uint64_t sent_before, ack_mark; /* the conn's, when the exchange began */
    hd_chunked_t chunked;
    uint16_t interims_n;
    uint8_t state;
    bool was_head, was_connect, keep_alive, paused;
    bool request_chunked, request_done, response_done;
    bool wants_upgrade, is_http10;
    bool much_comes; /* the last read filled all its room */
} h1_client_t;

#define SPLICE_ABOVE 65536 /* that much of a body must be to come */
/* The last bytes of a body are read: so what lies behind it is seen, too, and the socket
 * is known to be empty. */
#define SPLICE_NOT_LAST 4096
#define SPLICE_LITTLE 8192 /* when so few come, it isn't worth it */

static const hd_h1_limits_t limits = {
    .bytes_max = HD_UP_HEAD_BYTES, .fields_max = HD_FIELDS_MAX, .underscores = true};

static void drop_block(h1_client_t *h)
{
    if (h->block != NULL)
        hd_block_unref(h->block);
    h->block = NULL;
    h->from = h->to = h->scan_from = 0;
    h->longer = NULL;
}

static hd_str_t received(const h1_client_t *h)
{
    if (hd_unlikely(h->longer != NULL))
        return hd_h1_input_bytes(h->longer);
    return hd_str_n(h->block->data + h->from, h->to - h->from);
}

static uint32_t head_bytes_max(const h1_client_t *h)
{
    return h->x->head_bytes_max > 0 ? h->x->head_bytes_max : limits.bytes_max;
}

/* It ended about when it was used again, before a byte of an answer. */
static void note_lost_race(h1_client_t *h)
{
    const hd_conn_t *c = h->up->conn;

    if (h->state != HEAD || h->interims_n > 0 || h->from != h->to || h->longer != NULL)
        return;
    if (h->x->is_reused_conn)
        hd_upconn_peer_closed(h->up);
    /* Can't anything of the request have come to the peer's notice? Then it may go
     * elsewhere, even if repeating it weren't safe. */
    if (c->bytes_out == h->sent_before || hd_conn_has_missed(c, h->ack_mark))
        h->x->head_written = false;
}

/* The exchange failed: its user hears of it, the conn is of no further use. */
static void end_badly(h1_client_t *h, hd_exchange_end_t why, const hd_err_t *err)
{
    hd_exchange_t *x = h->x;
    hd_upconn_t *up = h->up;

    if (x != NULL && (why == HD_XR_CLOSED || why == HD_XR_RESET))
        note_lost_race(h);
    h->x = NULL;
    up->draining = true;
    drop_block(h);
    if (x != NULL)
        x->user->on_end(x, why, err);
    hd_upconn_gone(up);
}

static void refuse(h1_client_t *h, hd_exchange_end_t how, const char *why)
{
    hd_err_t err = {0};

    hd_ignore(
        hd_err_set(&err, HD_E_PROTOCOL, "upstream sent an invalid response: %s", why));
    end_badly(h, how, &err);
}

static void refuse_long(h1_client_t *h)
{
    hd_err_t err = {0};

    hd_exchange_too_large(&err, head_bytes_max(h), hd_exchange_fields_max(h->x),
                          hd_h1_longest_field(received(h), NULL));
    end_badly(h, HD_XR_TOO_LARGE, &err);
}

/* Keep-Alive: timeout=N, in seconds (RFC 2068 §19.7.1.1, still sent by many). */
static void note_keep_alive(h1_client_t *h, const hd_headers_t *headers)
{
    const hd_field_t *f = hd_headers_get(headers, HD_H_KEEP_ALIVE);
    hd_str_t rest, param;
    uint64_t s;

    if (hd_likely(f == NULL))
        return;
    rest = f->value;
    while (hd_str_split(&rest, ',', &param)) {
        param = hd_str_trim(param);
        if (hd_str_has_prefix_nocase(param, HD_STR("timeout=")) &&
            hd_str_to_u64(hd_str_sub(param, 8, param.len), 1000000, &s))
            hd_upconn_peer_told(h->up, (uint32_t)s * 1000);
    }
}

/* Both messages are over: the conn is free for the next exchange, or it isn't worth it.
 */
static void finish_if_done(h1_client_t *h)
{
    bool reusable;

    if (!h->response_done || h->x != NULL)
        return;
    /* an end that came along with the last bytes was told then, and won't be again; who
     * was asked to change the protocol may yet think that it has */
    reusable = h->request_done && h->keep_alive && !h->is_http10 && h->from == h->to &&
               !h->up->conn->peer_closing && !h->wants_upgrade;
    if (h->from == h->to || !reusable)
        drop_block(h);
    h->state = IDLE;
    hd_upconn_release(h->up, reusable);
}

static void give_body(h1_client_t *h, hd_str_t bytes, unsigned flags)
{
    hd_exchange_t *x = h->x;
    hd_chain_t body;

    hd_chain_init(&body);
    hd_chain_add(&body, bytes.len > 0 ? h->block : NULL, bytes.data, bytes.len, flags);
    if (flags & HD_SLICE_END) {
        h->response_done = true;
        h->x = NULL;
    }
    x->user->on_body(x, &body);
    hd_chain_free(&body);
}

/* The head's strings are slices of what was received: it lives as long as the exchange.
 */
static bool hold_head(h1_client_t *h, size_t used)
{
    hd_h1_input_t *in = h->longer;
    bool good;

    h->scan_from = 0;
    if (hd_likely(in == NULL)) {
        h->from += used;
        hd_block_ref(h->block);
        hd_pool_defer(h->x->pool, (void (*)(void *))hd_block_unref, h->block);
        return true;
    }
    good = hd_h1_input_hold_head(in, h->x->pool, used);
    h->block = in->block; /* what follows the head */
    h->from = in->from;
    h->to = in->to;
    in->block = NULL;
    h->longer = NULL;
    return good;
}

/* Each reader consumes what it can of [from, to); false: needs more bytes, or the
 * exchange is over and <h> must not be touched. */
static bool read_head(h1_client_t *h)
{
    hd_exchange_t *x = h->x;
    const char *why = "";
    bool until_close, was_long;
    hd_h1_limits_t own = limits;
    hd_h1_rc_t rc;
    size_t used;

    own.bytes_max = head_bytes_max(h);
    own.fields_max = hd_exchange_fields_max(h->x);
    rc = hd_h1_parse_response(received(h), &h->scan_from, &own, x->pool, h->was_head,
                              h->was_connect, &x->res, &h->keep_alive, &until_close,
                              &used, &why);
    if (rc == HD_H1_MORE)
        return false;
    if (rc != HD_H1_OK) {
        if (rc == HD_H1_TOO_LONG)
            refuse_long(h);
        else
            refuse(h, HD_XR_PROTOCOL, why);
        return false;
    }
    was_long = h->longer != NULL;
    if (!hold_head(h, used)) {
        refuse(h, HD_XR_TOO_LARGE, "no memory for it");
        return false;
    }
    hd_headers_mark_hops(&x->res.headers);

    if (x->res.status == 101 || (h->was_connect && x->res.status / 100 == 2)) {
        if (x->res.status == 101 && !h->wants_upgrade) {
            refuse(h, HD_XR_PROTOCOL, "101 that nobody asked for");
            return false;
        }
        x->upgraded = true;
        h->state = TUNNEL;
        if (h->to > h->from) /* bytes of the new protocol that came with the head */
            hd_conn_unread(h->up->conn, h->block, h->block->data + h->from,
                           h->to - h->from);
        h->from = h->to;
        x->user->on_head(x);
        return false;
    }
    if (x->res.status < 200) {
        h->interims_n += was_long ? HD_LONG_INTERIM : 1;
        if (h->interims_n > HD_INTERIMS_MAX) {
            refuse(h, HD_XR_PROTOCOL, "interim responses without end");
            return false;
        }
        x->user->on_interim(x);
        return h->x == x;
    }
    note_keep_alive(h, &x->res.headers);
    if (!x->res.has_body) {
        hd_block_t *block = h->block;

        if (hd_likely(block != NULL))
            hd_block_ref(block);
        x->user->on_head(x);
        if (h->x == x)
            give_body(h, HD_STR_NONE, HD_SLICE_END);
        if (hd_likely(block != NULL))
            hd_block_unref(block);
        finish_if_done(h);
        return false;
    }
    h->left = (uint64_t)x->res.content_length;
    h->chunked = (hd_chunked_t){0};
    h->state = until_close                               ? UNTIL_CLOSE
               : x->res.content_length == HD_LEN_UNKNOWN ? CHUNKED
                                                         : LENGTH;
    x->user->on_head(x);
    return h->x == x;
}

static bool read_length(h1_client_t *h)
{
    hd_str_t bytes = {h->block->data + h->from, hd_min(h->left, h->to - h->from)};

    h->from += bytes.len;
    h->left -= bytes.len;
    if (h->left > 0) {
        give_body(h, bytes, 0);
        return h->x != NULL;
    }
    give_body(h, bytes, HD_SLICE_END);
    finish_if_done(h);
    return false;
}

static bool read_chunked(h1_client_t *h)
{
    hd_str_t bytes = {h->block->data + h->from, h->to - h->from}, content;
    const char *why = "";
    hd_exchange_t *x = h->x;
    size_t used = 0;
    hd_h1_rc_t rc = hd_chunked_next(&h->chunked, bytes, &content, &used, &why);

    if (rc == HD_H1_BAD) {
        refuse(h, HD_XR_PROTOCOL, why);
        return false;
    }
    h->from += used;
    if (content.len > 0)
        give_body(h, content, 0);
    if (h->x != x)
        return false;
    if (rc == HD_H1_OK)
        h->state = TRAILERS;
    return true;
}

static bool read_trailers(h1_client_t *h)
{
    hd_str_t bytes = {h->block->data + h->from, h->to - h->from};
    hd_exchange_t *x = h->x;
    const char *why = "";
    size_t used;
    hd_h1_rc_t rc =
        hd_h1_parse_trailers(bytes, &limits, x->pool, &x->trailers, &used, &why);

    if (rc == HD_H1_MORE)
        return false;
    if (rc != HD_H1_OK) {
        refuse(h, HD_XR_PROTOCOL, why);
        return false;
    }
    h->from += used;
    if (x->trailers.n > 0) {
        hd_block_ref(h->block);
        hd_pool_defer(x->pool, (void (*)(void *))hd_block_unref, h->block);
    }
    give_body(h, HD_STR_NONE, HD_SLICE_END | (x->trailers.n > 0 ? HD_SLICE_TRAILERS : 0));
    finish_if_done(h);
    return false;
}

static bool read_until_close(h1_client_t *h)
{
    hd_str_t bytes = {h->block->data + h->from, h->to - h->from};

    h->from = h->to;
    give_body(h, bytes, 0);
    return h->x != NULL;
}

static bool (*const readers[])(h1_client_t *h) = {
    [HEAD] = read_head,
    [LENGTH] = read_length,
    [CHUNKED] = read_chunked,
    [TRAILERS] = read_trailers,
    [UNTIL_CLOSE] = read_until_close,
};

/* Consumes what lies in the block. */
static void read_on(h1_client_t *h)
{
    while (h->x != NULL && !h->paused && (h->from < h->to || h->longer != NULL) &&
           readers[h->state] != NULL) {
        if (!readers[h->state](h))
            break;
    }
}

/* Room for the next recv: the rest of an unfinished head moves to the front of a fresh
 * block when others hold slices of this one. False: no block, or the head fills a whole
 * one. */
static bool make_room(h1_client_t *h)
{
    hd_block_t *fresh;
    size_t rest = h->to - h->from;

    if (h->block != NULL && rest == 0 && h->block->refs == 1) {
        h->from = h->to = h->scan_from = 0;
        return true;
    }
    if (h->block != NULL && h->to < HD_BLOCK_BYTES &&
        (rest == 0 || HD_BLOCK_BYTES - h->to > 1024))
        return true;
    if (rest == HD_BLOCK_BYTES)
        return false;
    fresh = hd_block_try_take();
    if (fresh == NULL)
        return false;
    if (rest > 0)
        memcpy(fresh->data, h->block->data + h->from, rest);
    if (h->block != NULL)
        hd_block_unref(h->block);
    h->block = fresh;
    h->from = 0;
    h->to = rest;
    return true;
}

/* The peer's end. Only a body that lasts until then ends well. */
static void on_end_of_stream(h1_client_t *h)
{
    hd_exchange_t *x = h->x;
    hd_err_t err = {0};

    if (x == NULL) {
        end_badly(h, HD_XR_CLOSED, NULL);
        return;
    }
    if (h->state == UNTIL_CLOSE && h->up->conn->err == NULL) {
        h->keep_alive = false;
        if (h->block == NULL && !make_room(h)) {
            refuse(h, HD_XR_TOO_LARGE, "no memory for it");
            return;
        }
        give_body(h, HD_STR_NONE, HD_SLICE_END);
        finish_if_done(h);
        return;
    }
    hd_ignore(
        hd_err_set(&err, HD_E_RESET, "upstream closed the connection %s",
                   h->state == HEAD ? "before its response" : "within its response"));
    end_badly(h, HD_XR_CLOSED, &err);
}

/* Much of a body is to come, at once, and nobody looks at it: it needn't come up here. */
static bool may_splice(const h1_client_t *h)
{
    return h->much_comes && h->state == LENGTH && h->left >= SPLICE_ABOVE &&
           h->from == h->to && h->x->user->takes_pipes != NULL &&
           hd_conn_splices(h->up->conn) && h->x->user->takes_pipes(h->x);
}

/* As hd_conn_read, with what came given away; HD_IO_AGAIN also without a pipe, and then
 * <much_comes> no longer holds. */
static ssize_t splice_body(h1_client_t *h)
{
    hd_pipe_t *pipe = hd_pipe_try_take();
    hd_chain_t body;
    ssize_t n;

    if (pipe == NULL) {
        h->much_comes = false;
        return HD_IO_AGAIN;
    }
    n = hd_conn_read_pipe(
        h->up->conn, pipe,
        (size_t)hd_min(h->left - SPLICE_NOT_LAST, (uint64_t)HD_PIPE_BYTES));
    hd_chain_init(&body);
    if (n > 0)
        hd_chain_add_pipe(&body, pipe, (size_t)n, 0);
    hd_pipe_unref(pipe);
    if (n > 0) {
        h->left -= (uint64_t)n;
        h->much_comes = n >= SPLICE_LITTLE;
        h->x->user->on_body(h->x, &body);
        hd_chain_free(&body);
    }
    return n;
}

/* The conn has ended, or failed. */
static void end_reading(h1_client_t *h, ssize_t n)
{
    if (n == HD_IO_ERROR)
        end_badly(h, HD_XR_RESET, h->up->conn->err);
    else
        on_end_of_stream(h);
}

static void free_input(void *arg)
{
    hd_h1_input_free(arg);
}

/* There is no room: on in a buffer of its own, if it is a head that may be so long.
 * False: it isn't, and the exchange is over. */
static bool lengthen(h1_client_t *h)
{
    if (h->to - h->from < HD_BLOCK_BYTES) {
        refuse(h, HD_XR_TOO_LARGE, "no memory for it");
        return false;
    }
    if (h->state != HEAD || head_bytes_max(h) <= HD_BLOCK_BYTES) {
        refuse_long(h);
        return false;
    }
    h->longer = hd_pool_new(h->x->pool, hd_h1_input_t);
    *h->longer = (hd_h1_input_t){.block = h->block, .to = (uint32_t)h->to};
    hd_pool_defer(h->x->pool, free_input, h->longer);
    h->block = NULL;
    h->from = h->to = 0;
    return true;
}

static void on_readable(hd_conn_t *c)
{
    h1_client_t *h = c->owner;
    size_t got = 0;

    if (h->state == IDLE) { /* nothing may come now: an end, or bytes nobody asked for */
        if (c->peer_closing)
            hd_upconn_peer_closed(h->up);
        end_badly(h, HD_XR_CLOSED, NULL);
        return;
    }
    read_on(h); /* left over from a pause */
    while (h->x != NULL && !h->paused && h->state != TUNNEL && c->is_readable) {
        ssize_t n;
        size_t room;

        if (got >= HD_CONN_TURN_BYTES) {
            hd_conn_yield(c);
            return;
        }
        if (hd_unlikely(may_splice(h))) {
            n = splice_body(h);
            if (n > 0)
                got += (size_t)n;
            if (n > 0 || (n == HD_IO_AGAIN && !h->much_comes))
                continue;
            if (n != HD_IO_AGAIN)
                end_reading(h, n);
            return;
        }
        if (hd_unlikely(h->longer == NULL && !make_room(h)) && !lengthen(h))
            return;
        if (hd_unlikely(h->longer != NULL)) {
            n = hd_h1_input_receive(h->longer, c, head_bytes_max(h));
            room = SIZE_MAX;
        } else {
            room = HD_BLOCK_BYTES - h->to;
            n = hd_conn_read(c, h->block->data + h->to, room);
        }
        if (n == HD_IO_AGAIN)
            return;
        if (n <= 0) {
            end_reading(h, n);
            return;
        }
        h->much_comes = (size_t)n == room;
        if (hd_likely(h->longer == NULL))
            h->to += (size_t)n;
        got += (size_t)n;
        read_on(h);
    }
}

static void on_writable(hd_conn_t *c)
{
    h1_client_t *h = c->owner;

    if (h->x != NULL)
        h->x->user->on_writable(h->x);
}

static void on_closed(hd_conn_t *c)
{
    h1_client_t *h = c->owner;

    if (h->state == IDLE)
        hd_upconn_peer_closed(h->up);
    end_badly(h, HD_XR_RESET, c->err);
}

static void on_stale(hd_conn_t *c)
{
    hd_upconn_stale(((h1_client_t *)c->owner)->up);
}

static uint64_t idle_since(const hd_conn_t *c)
{
    const h1_client_t *h = c->owner;

    return h->state == IDLE ? hd_upconn_idle_since(h->up) : 0;
}

static const hd_conn_handler_t handler = {.on_stale = on_stale,
                                          .idle_since = idle_since,
                                          .on_reuse = on_stale,
                                          .on_readable = on_readable,
                                          .on_writable = on_writable,
                                          .on_closed = on_closed};

static void free_client(void *arg)
{
    h1_client_t *h = arg;

    drop_block(h);
}

hd_rc_t hd_h1_client_open(hd_upconn_t *u, hd_err_t *err)
{
    hd_pool_t *pool = hd_conn_pool(u->conn);
    h1_client_t *h = hd_pool_new(pool, h1_client_t);

    (void)err;
    h->up = u;
    u->_codec = h;
    u->codec = &hd_h1_client;
    u->streams_max = 1;
    hd_pool_defer(pool, free_client, h);
    hd_conn_set_handler(u->conn, &handler, h);
    return HD_OK;
}

/* The client's word; or as Envoy does, where the method asks for one (RFC 9110 §8.6):
 * there are servers that answer 411. */
static bool tells_no_body(const hd_req_t *req)
{
    unsigned m = req->head.method_id;

    if (hd_headers_get(&req->head.headers, HD_H_CONTENT_LENGTH) != NULL)
        return true;
    return req->http != NULL && req->http->is_xds && !req->head.is_upgrade &&
           (m == HD_M_POST || m == HD_M_PUT || m == HD_M_PATCH);
}

static void put_framing(hd_h1_writer_t *w, h1_client_t *h, const hd_req_t *req,
                        bool has_body, int64_t length)
{
    h->request_chunked = has_body && length == HD_LEN_UNKNOWN;
    if (h->request_chunked) {
        hd_h1_put_lit(w, "Transfer-Encoding: chunked\r\n");
    } else if (has_body || (length == 0 && tells_no_body(req))) {
        hd_h1_put_length(w, length);
    }
}

/* There is no block to write it into. */
static void refuse_request(h1_client_t *h)
{
    hd_err_t err = {0};

    hd_ignore(hd_err_set(&err, HD_E_LIMIT, "no memory for the request"));
    end_badly(h, HD_XR_TOO_LARGE, &err);
}

static void send_head(hd_exchange_t *x, hd_req_t *req, bool has_body, int64_t length)
{
    h1_client_t *h = x->upconn->_codec;
    const hd_req_head_t *head = &req->head;
    uint8_t method_id = hd_req_up_method_id(req);
    hd_chain_t out;
    hd_h1_writer_t w;

    h->x = x;
    h->state = HEAD;
    h->sent_before = x->upconn->conn->bytes_out;
    h->ack_mark = x->is_reused_conn && !hd_method_is_idempotent(method_id)
                      ? hd_conn_ack_mark(x->upconn->conn)
                      : 0;
    h->was_head = method_id == HD_M_HEAD;
    h->was_connect = method_id == HD_M_CONNECT;
    h->is_http10 = x->is_http10;
    h->wants_upgrade = head->is_upgrade;
    h->request_done = !has_body;
    h->response_done = h->paused = false;
    h->interims_n = 0;
    h->scan_from = 0;

    hd_chain_init(&out);
    hd_h1_writer_init(&w, &out);
    hd_h1_put_str(&w, hd_req_up_method(req));
    hd_h1_put(&w, " ", 1);
    hd_h1_put_str(&w, h->was_connect ? head->authority : hd_req_up_path(req));
    if (hd_unlikely(x->is_http10))
        hd_h1_put_lit(&w, " HTTP/1.0\r\nConnection: close\r\nHost: ");
    else
        hd_h1_put_lit(&w, " HTTP/1.1\r\nHost: ");
    hd_h1_put_str(&w, hd_req_up_host(req));
    hd_h1_put(&w, "\r\n", 2);
    if (head->is_upgrade) {
        hd_h1_put_lit(&w, "Connection: upgrade\r\nUpgrade: ");
        hd_h1_put_str(&w, head->protocol);
        hd_h1_put(&w, "\r\n", 2);
    }
    put_framing(&w, h, req, has_body, length);
    hd_h1_put_fields(&w, &head->headers);
    hd_h1_put(&w, "\r\n", 2);
    if (!hd_h1_writer_end(&w)) {
        hd_chain_free(&out);
        refuse_request(h);
        return;
    }
    x->head_written = true;
    hd_conn_send(x->upconn->conn, &out);
}

static void send_body(hd_exchange_t *x, hd_chain_t *body, const hd_headers_t *trailers)
{
    h1_client_t *h = x->upconn->_codec;
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    hd_chain_t out;

    hd_chain_init(&out);
    if (!h->request_chunked) {
        hd_chain_move(&out, body);
    } else if (!hd_h1_try_chunk(&out, body, trailers)) {
        hd_chain_free(&out);
        refuse_request(h);
        return;
    }
    h->request_done |= is_last;
    hd_conn_send(x->upconn->conn, &out);
}

static bool is_full(hd_exchange_t *x)
{
    return hd_conn_is_high(x->upconn->conn);
}

static void pause(hd_exchange_t *x, bool paused)
{
    h1_client_t *h = x->upconn->_codec;

    if (h->x != x)
        return;
    if (h->paused && !paused)
        hd_conn_wake(x->upconn->conn);
    h->paused = paused;
}

static void cancel(hd_exchange_t *x)
{
    hd_upconn_t *up = x->upconn;
    h1_client_t *h = up->_codec;

    if (h->x != x && x->head_written)
        return; /* it was over already */
    h->x = NULL;
    if (!x->head_written) {
        h->state = IDLE;
        hd_upconn_release(up, true);
        return;
    }
    up->draining = true;
    drop_block(h);
    hd_upconn_gone(up);
}

static hd_conn_t *take_conn(hd_exchange_t *x)
{
    hd_upconn_t *up = x->upconn;
    h1_client_t *h = up->_codec;
    hd_conn_t *c = up->conn;

    h->x = NULL;
    drop_block(h);
    up->conn =
        NULL; /* the pool keeps the count until the tunnel's end: see hd_upconn_gone */
    hd_upconn_gone(up);
    return c;
}

const hd_client_codec_t hd_h1_client = {
    .name = "http/1.1",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .pause = pause,
    .cancel = cancel,
    .take_conn = take_conn,
};
