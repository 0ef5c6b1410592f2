#include "http/hd_weft.h"

#include <stdlib.h>

#define FRAME_HEAD_BYTES 8u
#define FRAME_LEN_MAX 0xffffffu
#define FRAME_BYTES_MAX 16384u        /* of DATA that we send: others get their turn */
#define HEAD_BYTES_MAX (1024u * 1024) /* a HEAD or TRAILERS frame's payload */
#define COPY_MAX 4096u /* a body up to here is copied behind its frame's head */
#define CREDIT_BYTES (256u * 1024)
#define OUT_HIGH_BYTES (64u * 1024)
#define OUT_LOW_BYTES (16u * 1024)
#define CONN_HIGH_BYTES (512u * 1024)
#define CONN_LOW_BYTES (64u * 1024)
#define READS_PER_TURN 16
#define VERSION 1
#define ANSWERS_PING 1 /* of HELLO */

/* A stream that is opened and reset costs us both ends of it (CVE-2023-44487, by the
 * peer's fault: CVE-2025-8671). A peer stands for many clients, each of whom pays where
 * it comes in: 10,000 at once, 1,000 a second and one for each request that ends well. */
#define BUDGET 50000
#define CREDIT_TINY 64 /* below it is counted (CVE-2019-9511) */

enum { HELLO = 1, HEAD, DATA, TRAILERS, CREDIT, RESET, GOAWAY, PING };
#define TYPE_MASK 0x3f

/* --- bytes --- */

static void put_u32(char *to, uint32_t v)
{
    to[0] = (char)(v >> 24);
    to[1] = (char)(v >> 16);
    to[2] = (char)(v >> 8);
    to[3] = (char)v;
}

static uint32_t get_u32(const char *from)
{
    const unsigned char *p = (const unsigned char *)from;

    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_frame_head(char *to, size_t len, uint8_t type, uint32_t id)
{
    put_u32(to, (uint32_t)len << 8 | type);
    put_u32(to + 4, id);
}

hd_rc_t hd_weft_fail(hd_weft_t *w, const char *why)
{
    w->is_broken = true;
    return hd_conn_fail(w->conn, HD_E_PROTOCOL, "weft: %s", why);
}

/* What an honest Heddle does rarely or never, as with HTTP/2. */
static void count_glitch(hd_weft_t *w, hd_h2_kind_t kind)
{
    if (w->is_broken ||
        hd_h2_budget_take(&w->budget, kind, 1, hd_loop_now_ns(w->conn->loop)))
        return;
    w->is_broken = true;
    hd_ignore(hd_conn_fail(w->conn, HD_E_LIMIT, "weft: too much of \"%s\"",
                           hd_h2_kind_name(kind)));
    hd_conn_wake(w->conn); /* it may be found out from outside of a read */
}

/* --- output --- */

void hd_weft_flush(hd_weft_t *w)
{
    hd_post_cancel(&w->_flush);
    if (!hd_h1_writer_end(&w->_writer)) { /* half a frame may be in it */
        hd_chain_free(&w->_out);
        w->is_broken = true;
        hd_ignore(hd_conn_fail(w->conn, HD_E_LIMIT, "weft: no block left to write into"));
        hd_conn_wake(w->conn);
    }
    hd_h1_writer_init(&w->_writer, &w->_out);
    hd_conn_send(w->conn, &w->_out);
}

static void on_flush(hd_post_t *p)
{
    hd_weft_flush(hd_container_of(p, hd_weft_t, _flush));
}

static void flush_later(hd_weft_t *w)
{
    hd_loop_flush_later(w->conn->loop, &w->_flush);
}

static bool is_congested(const hd_weft_t *w)
{
    return hd_conn_is_high(w->conn) || w->_out.bytes > CONN_HIGH_BYTES;
}

/* A frame of fixed payload. */
static void put_frame(hd_weft_t *w, uint8_t type, uint32_t id, const char *payload,
                      size_t len)
{
    char *to = hd_h1_reserve(&w->_writer, FRAME_HEAD_BYTES + len);

    flush_later(w);
    if (to == NULL)
        return;
    put_frame_head(to, len, type, id);
    if (len > 0)
        memcpy(to + FRAME_HEAD_BYTES, payload, len);
}

static void put_number(hd_weft_t *w, uint8_t type, uint32_t id, uint32_t number)
{
    char payload[4];

    put_u32(payload, number);
    put_frame(w, type, id, payload, sizeof(payload));
}

/* The head of the frame being written lies at <_frame>; its length is known at the end.
 */
hd_h1_writer_t *hd_weft_begin_head(hd_weft_t *w)
{
    w->_frame = hd_h1_reserve(&w->_writer, FRAME_HEAD_BYTES);
    w->_frame_at = hd_h1_written(&w->_writer);
    return &w->_writer;
}

bool hd_weft_end_head(hd_weft_t *w, hd_weft_stream_t *st, uint8_t flags)
{
    size_t len = hd_h1_written(&w->_writer) - w->_frame_at;

    flush_later(w);
    if (w->_frame == NULL || w->_writer.failed)
        return true;
    if (len > HEAD_BYTES_MAX) {
        put_frame_head(w->_frame, len, DATA, 0); /* of a stream that never is */
        if (len > FRAME_LEN_MAX)
            hd_ignore(hd_weft_fail(w, "a head beyond all bounds"));
        return false;
    }
    put_frame_head(w->_frame, len, HEAD | flags, st->id);
    st->end_sent |= (flags & HD_WEFT_END) != 0;
    st->out_ended |= st->end_sent;
    return true;
}

static bool is_memory(const hd_chain_t *c)
{
    for (const hd_slice_t *s = c->first; s != NULL; s = s->next) {
        if (s->len > 0 && s->kind != HD_SLICE_BLOCK)
            return false;
    }
    return true;
}

/* The first <len> bytes of <from>, as one frame. */
static void put_data(hd_weft_t *w, hd_weft_stream_t *st, hd_chain_t *from, size_t len,
                     bool is_last)
{
    char *to = hd_h1_reserve(&w->_writer, FRAME_HEAD_BYTES);
    hd_chain_t part;

    flush_later(w);
    if (to != NULL)
        put_frame_head(to, len, DATA | (is_last ? HD_WEFT_END : 0), st->id);
    if (len == from->bytes && len <= COPY_MAX && is_memory(from)) {
        for (const hd_slice_t *s = from->first; s != NULL; s = s->next)
            hd_h1_put(&w->_writer, s->data, s->len);
        hd_chain_free(from);
    } else {
        hd_chain_init(&part);
        hd_chain_move_bytes(&part, from, len);
        hd_h1_put_chain(&w->_writer, &part);
    }
    st->credit -= (uint32_t)len;
    st->moved_ns = hd_loop_now_ns(w->conn->loop);
    st->end_sent |= is_last;
}

static void put_trailers(hd_weft_t *w, hd_weft_stream_t *st)
{
    char *to = hd_h1_reserve(&w->_writer, FRAME_HEAD_BYTES);

    flush_later(w);
    if (to != NULL)
        put_frame_head(to, st->trailers.bytes, TRAILERS | HD_WEFT_END, st->id);
    hd_h1_put_chain(&w->_writer, &st->trailers);
    st->end_sent = true;
}

/* Sends of <body> what credit allows, <frames> frames at most. What is left waits. */
static void push_body(hd_weft_t *w, hd_weft_stream_t *st, hd_chain_t *body,
                      unsigned frames)
{
    bool has_trailers = st->trailers.bytes > 0;

    while (body->bytes > 0 && st->credit > 0 && frames > 0 && !is_congested(w)) {
        size_t len =
            hd_min(hd_min(body->bytes, (size_t)st->credit), (size_t)FRAME_BYTES_MAX);

        put_data(w, st, body, len, len == body->bytes && st->out_ended && !has_trailers);
        frames--;
    }
    if (body->bytes > 0 || !st->out_ended || st->end_sent)
        return;
    if (has_trailers)
        put_trailers(w, st);
    else
        put_frame(w, DATA | HD_WEFT_END, st->id, NULL, 0);
    st->end_sent = true;
}

static void set_waiting(hd_weft_t *w, hd_weft_stream_t *st, bool waits)
{
    if (st->is_waiting)
        hd_list_remove(&st->link);
    st->is_waiting = waits;
    if (waits)
        hd_list_add_last(&w->waiting, &st->link);
}

/* <st> may be closed by what its user does. */
static void push_waiting(hd_weft_t *w, hd_weft_stream_t *st, unsigned frames)
{
    push_body(w, st, &st->out, frames);
    if (st->out.bytes == 0)
        hd_chain_free(&st->out);
    set_waiting(w, st, st->out.bytes > 0);
    if (st->end_sent) {
        st->was_high = false;
        if (w->user->on_sent != NULL)
            w->user->on_sent(w, st);
    } else if (st->was_high && st->out.bytes < OUT_LOW_BYTES) {
        st->was_high = false;
        w->user->on_drained(w, st);
    }
}

void hd_weft_on_writable(hd_weft_t *w)
{
    /* One frame each, until the conn is full again or nobody has anything to send. */
    for (bool moved = true; moved && !is_congested(w) && !w->is_broken;) {
        hd_link_t round;

        moved = false;
        hd_list_init(&round);
        if (hd_list_is_empty(&w->waiting))
            return;
        round = w->waiting; /* those who wait now; new ones join the other list */
        round.next->prev = round.prev->next = &round;
        hd_list_init(&w->waiting);
        while (!hd_list_is_empty(&round)) {
            hd_weft_stream_t *st = hd_list_entry(round.next, hd_weft_stream_t, link);

            moved |= st->credit > 0 && !is_congested(w);
            push_waiting(w, st, 1);
        }
    }
}

static void keep_trailers(hd_weft_stream_t *st, const hd_headers_t *trailers)
{
    hd_h1_writer_t text;

    if (trailers == NULL || trailers->n == 0 || st->trailers.bytes > 0)
        return;
    hd_h1_writer_init(&text, &st->trailers);
    hd_h1_put_fields(&text, trailers);
    hd_h1_put_lit(&text, "\r\n");
    if (!hd_h1_writer_end(&text) || st->trailers.bytes > HEAD_BYTES_MAX)
        hd_chain_free(&st->trailers); /* at the memory's ceiling they are what goes */
}

void hd_weft_send_body(hd_weft_t *w, hd_weft_stream_t *st, hd_chain_t *body,
                       const hd_headers_t *trailers)
{
    unsigned flags = hd_chain_flags(body);

    if (!hd_weft_is_open(st) || st->out_ended) {
        hd_chain_free(body);
        return;
    }
    if (flags & HD_SLICE_TRAILERS)
        keep_trailers(st, trailers);
    st->out_ended = (flags & HD_SLICE_END) != 0;
    if (!st->is_waiting)
        push_body(w, st, body, UINT32_MAX);
    if (body->bytes > 0) {
        hd_chain_move(&st->out, body);
        if (!st->is_waiting) {
            st->moved_ns = hd_loop_now_ns(w->conn->loop);
            set_waiting(w, st, true);
        }
    }
    hd_chain_free(body);
}

bool hd_weft_is_full(hd_weft_stream_t *st)
{
    st->was_high |= st->out.bytes > OUT_HIGH_BYTES;
    return st->was_high;
}

void hd_weft_reset(hd_weft_t *w, hd_weft_stream_t *st, hd_weft_reset_t code)
{
    if (!hd_weft_is_open(st))
        return;
    put_number(w, RESET, st->id, code);
    hd_weft_close(w, st);
    if (code == HD_WEFT_PROTOCOL && w->budget.is_server)
        count_glitch(w, HD_H2_PROVOKED);
}

void hd_weft_refuse(hd_weft_t *w, uint32_t id)
{
    put_number(w, RESET, id, HD_WEFT_REFUSED);
    count_glitch(w, HD_H2_REFUSED);
}

void hd_weft_goaway(hd_weft_t *w)
{
    if (w->goaway_sent)
        return;
    w->goaway_sent = true;
    w->goaway_ns = hd_loop_now_ns(w->conn->loop);
    put_frame(w, GOAWAY, 0, NULL, 0);
}

void hd_weft_last_goaway(hd_weft_t *w)
{
    put_number(w, GOAWAY, 0, w->heads_n);
}

void hd_weft_consume(hd_weft_t *w, hd_weft_stream_t *st, uint32_t bytes)
{
    st->owed += bytes;
    if (st->owed < CREDIT_BYTES / 2 || st->in_ended || !hd_weft_is_open(st))
        return;
    put_number(w, CREDIT, st->id, st->owed);
    st->window += st->owed;
    st->owed = 0;
}

static void on_ping_due(hd_ping_t *p, bool is_dead)
{
    hd_weft_t *w = hd_container_of(p, hd_weft_t, ping);

    if (w->is_broken)
        return;
    if (is_dead) {
        w->is_broken = true;
        hd_ignore(hd_conn_fail(w->conn, HD_E_TIMEOUT, "weft: PING isn't answered"));
        hd_conn_wake(w->conn); /* its owner sees that it is over */
    } else if (w->answers_ping) {
        put_frame(w, PING, 0, NULL, 0);
    } else if (w->hello_received) { /* an older peer; else HELLO is the answer */
        hd_ping_answered(p);
    }
}

static void take_ping(hd_weft_t *w, bool is_answer)
{
    if (is_answer) {
        hd_ping_answered(&w->ping);
        return;
    }
    count_glitch(w, HD_H2_PINGS);
    put_frame(w, PING | HD_WEFT_END, 0, NULL, 0);
}

/* --- streams --- */

#define INDEX_MASK 0xffffu

hd_weft_stream_t *hd_weft_find(const hd_weft_t *w, uint32_t id)
{
    uint32_t index = id & INDEX_MASK;
    hd_weft_stream_t *st = index < w->_room ? w->_streams[index] : NULL;

    return st != NULL && st->id == id ? st : NULL;
}

hd_weft_stream_t *hd_weft_next(const hd_weft_t *w, uint32_t *at)
{
    while (*at < w->_room) {
        hd_weft_stream_t *st = w->_streams[(*at)++];

        if (st != NULL)
            return st;
    }
    return NULL;
}

/* The next free index, as far as the peer lets us; looked for from the last one on. */
static bool choose_id(hd_weft_t *w, uint32_t *id)
{
    uint32_t room = hd_min(w->_room, w->peer_streams);

    for (uint32_t i = 0; i < room; i++) {
        uint32_t index = w->_next_index++ % room;

        if (w->_streams[index] != NULL)
            continue;
        if (++w->_serial > INDEX_MASK)
            w->_serial = 1; /* so that no id is 0 */
        *id = w->_serial << 16 | index;
        return true;
    }
    return false;
}

bool hd_weft_try_open(hd_weft_t *w, hd_weft_stream_t *st, uint32_t id)
{
    if (id == 0) {
        if (!choose_id(w, &id))
            return false;
        st->no = ++w->heads_n;
    }
    if ((id & INDEX_MASK) >= w->_room || w->_streams[id & INDEX_MASK] != NULL)
        return false;
    w->_streams[id & INDEX_MASK] = st;
    w->streams_n++;
    st->id = id;
    st->credit = w->peer_credit;
    st->window = CREDIT_BYTES;
    st->in_left = HD_LEN_UNKNOWN;
    hd_chain_init(&st->out);
    hd_chain_init(&st->trailers);
    hd_list_init(&st->link);
    return true;
}

void hd_weft_close(hd_weft_t *w, hd_weft_stream_t *st)
{
    if (!hd_weft_is_open(st))
        return;
    w->_streams[st->id & INDEX_MASK] = NULL;
    w->streams_n--;
    set_waiting(w, st, false);
    hd_chain_free(&st->out);
    hd_chain_free(&st->trailers);
    st->id = 0;
}

/* --- input --- */

static void drop_input(hd_weft_t *w)
{
    if (w->_block != NULL)
        hd_block_unref(w->_block);
    w->_block = NULL;
    w->_from = w->_to = 0;
}

void hd_weft_hold(hd_weft_t *w, hd_pool_t *pool)
{
    if (w->_long != NULL) {
        hd_pool_defer(pool, free, w->_long);
        w->_long = NULL;
        return;
    }
    hd_block_ref(w->_block);
    hd_pool_defer(pool, (void (*)(void *))hd_block_unref, w->_block);
}

static bool is_alive(const hd_weft_t *w)
{
    return !w->is_broken && w->conn->state == HD_CONN_OPEN;
}

static hd_rc_t take_hello(hd_weft_t *w, hd_str_t payload)
{
    uint32_t streams, credit;

    if (payload.len < 12 || payload.data[0] != VERSION)
        return hd_weft_fail(w, "a HELLO of another version");
    streams = get_u32(payload.data + 4);
    credit = get_u32(payload.data + 8);
    if (w->hello_received || streams == 0 || credit < HD_WEFT_CREDIT ||
        credit > INT32_MAX)
        return hd_weft_fail(w, "a bad HELLO");
    w->hello_received = true;
    w->answers_ping = (payload.data[1] & ANSWERS_PING) != 0;
    hd_ping_answered(&w->ping);
    w->peer_streams = hd_min(streams, HD_WEFT_STREAMS_MAX);
    for (uint32_t i = 0; i < w->_room; i++) { /* those opened before it came */
        if (w->_streams[i] != NULL)
            w->_streams[i]->credit += credit - w->peer_credit;
    }
    w->peer_credit = credit;
    if (w->user->on_hello != NULL)
        w->user->on_hello(w);
    hd_weft_on_writable(w);
    return HD_OK;
}

static hd_rc_t take_credit(hd_weft_t *w, hd_weft_stream_t *st, uint32_t bytes)
{
    if (bytes == 0 || bytes > INT32_MAX)
        return hd_weft_fail(w, "bad CREDIT");
    if (st == NULL)
        return HD_OK;
    if (st->credit > INT32_MAX - bytes)
        return hd_weft_fail(w, "CREDIT beyond 2^31");
    st->credit += bytes;
    if (bytes < CREDIT_TINY)
        count_glitch(w, HD_H2_TINY_WINDOWS);
    if (st->is_waiting)
        push_waiting(w, st, UINT32_MAX);
    return HD_OK;
}

static hd_rc_t take_reset(hd_weft_t *w, hd_weft_stream_t *st, uint32_t code)
{
    if (w->budget.is_server) /* a server's are no more than the requests that it got */
        count_glitch(w, HD_H2_RESETS);
    if (st == NULL || w->is_broken)
        return HD_OK;
    hd_weft_close(w, st);
    w->user->on_reset(w, st, code);
    return HD_OK;
}

/* The peer's message is complete; or it isn't what was announced. */
static hd_rc_t take_end(hd_weft_t *w, hd_weft_stream_t *st)
{
    if (st->in_left > 0) {
        hd_weft_reset(w, st, HD_WEFT_PROTOCOL);
        w->user->on_reset(w, st, HD_WEFT_PROTOCOL);
        return HD_OK;
    }
    st->in_ended = true;
    w->user->on_end(w, st);
    return HD_OK;
}

static hd_rc_t take_trailers(hd_weft_t *w, hd_weft_stream_t *st, hd_str_t text)
{
    if (st == NULL)
        return HD_OK;
    if (st->in_ended)
        return hd_weft_fail(w, "TRAILERS after the end");
    w->user->on_trailers(w, st, text);
    return hd_weft_is_open(st) && is_alive(w) ? take_end(w, st) : HD_OK;
}

static hd_rc_t take_goaway(hd_weft_t *w, hd_str_t payload)
{
    bool is_last = payload.len == 4;

    if (w->is_last_received || (w->goaway_received && !is_last))
        return hd_weft_fail(w, "a second GOAWAY");
    w->goaway_received = true;
    w->is_last_received = is_last;
    if (w->user->on_goaway != NULL)
        w->user->on_goaway(w, is_last ? get_u32(payload.data) : w->heads_n);
    return HD_OK;
}

/* A whole frame but DATA. */
static hd_rc_t take_frame(hd_weft_t *w, uint8_t type, uint32_t id, hd_str_t payload)
{
    hd_weft_stream_t *st = hd_weft_find(w, id);

    if (!w->hello_received && (type & TYPE_MASK) != HELLO)
        return hd_weft_fail(w, "no HELLO");
    switch (type & TYPE_MASK) {
    case HELLO:
        return take_hello(w, payload);
    case HEAD:
        if (!w->user->on_head(w, id, st, payload, type & (uint8_t)~TYPE_MASK))
            return hd_weft_fail(w, "a HEAD out of place");
        return HD_OK;
    case TRAILERS:
        return take_trailers(w, st, payload);
    case CREDIT:
        return payload.len == 4 ? take_credit(w, st, get_u32(payload.data))
                                : hd_weft_fail(w, "bad CREDIT");
    case RESET:
        return payload.len == 4 ? take_reset(w, st, get_u32(payload.data))
                                : hd_weft_fail(w, "bad RESET");
    case GOAWAY:
        return take_goaway(w, payload);
    case PING:
        take_ping(w, (type & HD_WEFT_END) != 0);
        return HD_OK;
    default:
        return hd_weft_fail(w, "a frame of an unknown type");
    }
}

static size_t payload_max(uint8_t type)
{
    switch (type & TYPE_MASK) {
    case HEAD:
    case TRAILERS:
        return HEAD_BYTES_MAX;
    case DATA:
        return FRAME_LEN_MAX;
    default:
        return 64;
    }
}

static hd_rc_t begin_data(hd_weft_t *w, uint8_t type, uint32_t id, uint32_t len)
{
    hd_weft_stream_t *st = hd_weft_find(w, id);

    if (!w->hello_received)
        return hd_weft_fail(w, "no HELLO");
    w->_data_left = len;
    w->_data_id = id;
    w->_data_flags = type & (uint8_t)~TYPE_MASK;
    w->_has_data = true;
    if (st == NULL)
        return HD_OK;
    if (st->in_ended)
        return hd_weft_fail(w, "DATA after the end");
    if (len > st->window)
        return hd_weft_fail(w, "DATA beyond its credit");
    if (len == 0 && !(type & HD_WEFT_END)) /* (CVE-2019-9518) */
        count_glitch(w, HD_H2_EMPTY);
    st->window -= len;
    if (st->in_left != HD_LEN_UNKNOWN && (st->in_left -= len) < 0) {
        hd_weft_reset(w, st, HD_WEFT_PROTOCOL);
        w->user->on_reset(w, st, HD_WEFT_PROTOCOL);
    }
    return HD_OK;
}

/* What is there of the DATA frame being read. */
static hd_rc_t take_data(hd_weft_t *w)
{
    uint32_t len = hd_min(w->_data_left, w->_to - w->_from);
    hd_weft_stream_t *st = hd_weft_find(w, w->_data_id);
    hd_chain_t body;

    w->_from += len;
    w->_data_left -= len;
    w->_has_data = w->_data_left > 0;
    if (st != NULL && len > 0) {
        hd_chain_init(&body);
        hd_chain_add(&body, w->_block, w->_block->data + w->_from - len, len, 0);
        w->user->on_data(w, st, &body);
        hd_chain_free(&body);
        st = is_alive(w) ? hd_weft_find(w, w->_data_id) : NULL;
    }
    if (!w->_has_data && (w->_data_flags & HD_WEFT_END) && st != NULL)
        return take_end(w, st);
    return HD_OK;
}

/* A frame that doesn't fit into what is left of its block, let alone into one. */
static void lengthen(hd_weft_t *w, size_t bytes)
{
    w->_long = malloc(bytes);
    hd_bug_on(w->_long == NULL);
    w->_long_room = bytes;
    w->_long_len = w->_to - w->_from;
    memcpy(w->_long, w->_block->data + w->_from, w->_long_len);
    drop_input(w);
}

/* HD_OK: a frame was taken, or a part of one; HD_AGAIN: more bytes are needed. */
static hd_rc_t take_next(hd_weft_t *w)
{
    size_t have = w->_to - w->_from;
    const char *at;
    uint32_t word, len, id;
    uint8_t type;

    if (w->_has_data)
        return w->_data_left > 0 && have == 0 ? HD_AGAIN : take_data(w);
    if (have < FRAME_HEAD_BYTES)
        return HD_AGAIN;
    at = w->_block->data + w->_from;
    word = get_u32(at);
    id = get_u32(at + 4);
    len = word >> 8;
    type = (uint8_t)word;
    if (len > payload_max(type))
        return hd_weft_fail(w, "a frame too long");
    if ((type & TYPE_MASK) == DATA) {
        w->_from += FRAME_HEAD_BYTES;
        return begin_data(w, type, id, len);
    }
    if (have - FRAME_HEAD_BYTES < len) {
        if (FRAME_HEAD_BYTES + len > HD_BLOCK_BYTES)
            lengthen(w, FRAME_HEAD_BYTES + len);
        return HD_AGAIN;
    }
    w->_from += FRAME_HEAD_BYTES + len;
    return take_frame(w, type, id, hd_str_n(at + FRAME_HEAD_BYTES, len));
}

static hd_rc_t take_long(hd_weft_t *w)
{
    char *frame = w->_long;
    hd_rc_t rc;

    if (w->_long_len < w->_long_room)
        return HD_AGAIN;
    rc = take_frame(w, (uint8_t)get_u32(frame), get_u32(frame + 4),
                    hd_str_n(frame + FRAME_HEAD_BYTES, w->_long_len - FRAME_HEAD_BYTES));
    free(w->_long); /* NULL: it is held */
    w->_long = NULL;
    return rc;
}

/* What is left of a frame moves to the front of a fresh block when its own is full. */
static bool make_room(hd_weft_t *w)
{
    uint32_t rest = w->_to - w->_from;
    hd_block_t *fresh;

    if (w->_block != NULL && rest == 0 && w->_block->refs == 1) {
        w->_from = w->_to = 0;
        return true;
    }
    if (w->_block != NULL && w->_to < HD_BLOCK_BYTES && rest == 0)
        return true;
    if (w->_block != NULL && HD_BLOCK_BYTES - w->_to >= 4096)
        return true;
    fresh = hd_block_try_take();
    if (fresh == NULL) {
        hd_famine_wait(&w->_famine);
        return false;
    }
    hd_famine_end(&w->_famine);
    if (rest > 0)
        memcpy(fresh->data, w->_block->data + w->_from, rest);
    drop_input(w);
    w->_block = fresh;
    w->_to = rest;
    return true;
}

static ssize_t receive(hd_weft_t *w)
{
    ssize_t n;

    if (w->_long != NULL) {
        n = hd_conn_read(w->conn, w->_long + w->_long_len, w->_long_room - w->_long_len);
        w->_long_len += n > 0 ? (size_t)n : 0;
        return n;
    }
    if (!make_room(w))
        return HD_IO_AGAIN;
    n = hd_conn_read(w->conn, w->_block->data + w->_to, HD_BLOCK_BYTES - w->_to);
    w->_to += n > 0 ? (uint32_t)n : 0;
    return n;
}

hd_rc_t hd_weft_read(hd_weft_t *w)
{
    if (w->is_broken)
        return HD_ERROR;
    for (unsigned i = 0; i < READS_PER_TURN && w->conn->is_readable; i++) {
        ssize_t n = receive(w);
        hd_rc_t rc;

        if (n == HD_IO_AGAIN)
            break;
        if (n <= 0)
            return n == 0 ? HD_DONE : HD_ERROR;
        do
            rc = w->_long != NULL ? take_long(w) : take_next(w);
        while (rc == HD_OK && is_alive(w));
        if (rc == HD_ERROR || w->is_broken)
            return HD_ERROR;
        if (!is_alive(w))
            return HD_OK;
    }
    if (w->_from == w->_to)
        drop_input(w); /* an idle conn owns no block */
    if (w->conn->is_readable && !hd_timer_is_set(&w->_famine.timer))
        hd_conn_yield(w->conn);
    return HD_OK;
}

static void on_again(hd_famine_t *f, bool is_over)
{
    hd_weft_t *w = hd_container_of(f, hd_weft_t, _famine);

    if (is_over) {
        w->is_broken = true;
        hd_ignore(hd_conn_fail(w->conn, HD_E_LIMIT, "weft: no block left"));
    }
    if (is_over || w->conn->is_readable)
        hd_conn_wake(w->conn);
}

/* --- life --- */

void hd_weft_init(hd_weft_t *w, hd_conn_t *c, const hd_weft_user_t *user,
                  uint32_t streams, bool is_server)
{
    char hello[12] = {VERSION, ANSWERS_PING};

    w->conn = c;
    w->user = user;
    w->peer_streams = HD_WEFT_STREAMS_FIRST;
    w->peer_credit = HD_WEFT_CREDIT;
    streams = hd_min(streams, HD_WEFT_STREAMS_MAX);
    w->_room = hd_max(streams, HD_WEFT_STREAMS_FIRST);
    w->_streams = calloc(w->_room, sizeof(*w->_streams));
    hd_bug_on(w->_streams == NULL);
    w->budget = (hd_h2_budget_t){.member = hd_loop_member(c->loop),
                                 .at_ns = hd_loop_now_ns(c->loop),
                                 .max = BUDGET,
                                 .left = BUDGET,
                                 .is_server = is_server};
    hd_list_init(&w->waiting);
    hd_famine_init(&w->_famine, c, on_again);
    hd_ping_init(&w->ping, c->loop, on_ping_due);
    hd_chain_init(&w->_out);
    hd_h1_writer_init(&w->_writer, &w->_out);
    hd_post_init(&w->_flush, on_flush);
    hd_conn_set_marks(c, CONN_HIGH_BYTES, CONN_LOW_BYTES);
    put_u32(hello + 4, streams);
    put_u32(hello + 8, CREDIT_BYTES);
    put_frame(w, HELLO, 0, hello, sizeof(hello));
}

void hd_weft_deinit(hd_weft_t *w)
{
    hd_post_cancel(&w->_flush);
    hd_famine_stop(&w->_famine);
    hd_ping_stop(&w->ping);
    hd_ignore(hd_h1_writer_end(&w->_writer));
    hd_chain_free(&w->_out);
    drop_input(w);
    free(w->_long);
    free(w->_streams);
    w->_long = NULL;
    w->_streams = NULL;
    w->_room = 0;
}
