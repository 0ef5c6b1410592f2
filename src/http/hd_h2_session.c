#include "http/hd_h2_session.h"
#include "hd_auto_config.h"

#include <endian.h>
#include <string.h>

#define FRAME_HEAD_BYTES 9
#define EARNING_BYTES 1024         /* DATA of so much speaks for the peer that takes it */
#define SERVED_WINDOW 4096         /* of a stream, left open by what it takes */
#define READS_PER_TURN 8           /* of a block each, then others get their turn */
#define SEND_HEAD_BYTES (16 << 20) /* whoever makes it has a limit of its own */

/* --- output --- */

static void hand_over(hd_h2_session_t *s)
{
    if (s->out_at > s->out_from)
        hd_chain_add(&s->out, s->out_block, s->out_block->data + s->out_from,
                     s->out_at - s->out_from, 0);
    s->out_from = s->out_at;
}

static void on_again(hd_famine_t *f, bool is_over)
{
    hd_h2_session_t *s = hd_container_of(f, hd_h2_session_t, famine);

    if (is_over) {
        hd_ignore(hd_conn_fail(s->conn, HD_E_LIMIT, "HTTP/2: no block left"));
        s->is_broken = true;
        hd_conn_wake(s->conn); /* its owner sees that it is over */
        return;
    }
    hd_h2_session_flush_later(s);
    if (s->conn->is_readable)
        hd_conn_wake(s->conn);
}

/* Room for <bytes> in one piece. False: no block, for now. */
static bool make_room(hd_h2_session_t *s, size_t bytes)
{
    hd_block_t *fresh;

    if (s->out_block != NULL && HD_BLOCK_BYTES - s->out_at >= bytes)
        return true;
    fresh = hd_block_try_take();
    if (fresh == NULL) {
        hd_famine_wait(&s->famine);
        return false;
    }
    hd_famine_end(&s->famine);
    if (s->out_block != NULL) {
        hand_over(s);
        hd_block_unref(s->out_block);
    }
    s->out_block = fresh;
    s->out_from = s->out_at = 0;
    return true;
}

static void put(hd_h2_session_t *s, const uint8_t *data, size_t len)
{
    memcpy(s->out_block->data + s->out_at, data, len);
    s->out_at += len;
}

/* nghttp2 ends a conn whose peer opens more streams than it was told, where a stream's
 * error is due (RFC 9113 §5.1.2): the peer is told the number, which stands first in our
 * first frame, and nghttp2 is not. */
static void tell_streams(hd_h2_session_t *s, uint8_t *settings)
{
    uint8_t *entry = settings + FRAME_HEAD_BYTES;

    hd_bug_on(settings[3] != NGHTTP2_SETTINGS ||
              entry[1] != NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    memcpy(entry + 2, &(uint32_t){htobe32(s->streams_max)}, 4);
    s->has_told_streams = true;
}

/* What has gathered so far is enough for the conn, or for one flush. */
static bool is_full(hd_h2_session_t *s)
{
    s->is_blocked = hd_conn_is_high(s->conn) || s->out.bytes > HD_H2_STREAM_OUT_HIGH * 2;
    return s->is_blocked;
}

static ssize_t on_send(nghttp2_session *ng, const uint8_t *data, size_t len, int flags,
                       void *user)
{
    hd_h2_session_t *s = user;
    size_t n;

    (void)ng, (void)flags;
    if (is_full(s) || !make_room(s, 1))
        return NGHTTP2_ERR_WOULDBLOCK;
    n = hd_min(len, (size_t)HD_BLOCK_BYTES - s->out_at); /* the rest comes again */
    put(s, data, n);
    if (s->streams_max > 0 && !s->has_told_streams)
        tell_streams(s, (uint8_t *)s->out_block->data + s->out_at - n);
    return (ssize_t)n;
}

static ssize_t on_read_source(nghttp2_session *ng, int32_t stream_id, uint8_t *buf,
                              size_t len, uint32_t *flags, nghttp2_data_source *source,
                              void *user)
{
    hd_h2_session_t *s = user;
    hd_h2_out_t *out = hd_h2_out_of(s, stream_id);
    size_t n;

    (void)ng, (void)buf, (void)source;
    if (out == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    n = hd_min(out->chain.bytes, len);
    if (out->chunk_bytes > 0)
        n = hd_min(n, (size_t)out->chunk_bytes);
    if (n == 0 && !out->ended) {
        out->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == out->chain.bytes && out->ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (out->trailers_pool != NULL) {
            nghttp2_nv nv[HD_FIELDS_MAX];
            size_t nv_n = hd_h2_put_fields(nv, 0, HD_FIELDS_MAX, &out->trailers);

            if (nghttp2_submit_trailer(ng, stream_id, nv, nv_n) == 0)
                *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        }
    }
    return (ssize_t)n;
}

/* A window of a few bytes that is opened again and again (CVE-2019-9511) earns nothing.
 */
static void serve(hd_h2_session_t *s, int32_t id)
{
    if (nghttp2_session_get_stream_remote_window_size(s->ng, id) >= SERVED_WINDOW)
        hd_h2_budget_serve(&s->budget);
}

/* A DATA frame: its head is written, its content moves by reference. */
static int on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head,
                        size_t len, nghttp2_data_source *source, void *user)
{
    hd_h2_session_t *s = user;
    int32_t id = frame->hd.stream_id;
    hd_h2_out_t *out = hd_h2_out_of(s, id);

    (void)ng, (void)source;
    if (is_full(s))
        return NGHTTP2_ERR_WOULDBLOCK;
    if (out == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (!make_room(s, FRAME_HEAD_BYTES))
        return NGHTTP2_ERR_WOULDBLOCK;
    if (len > 0)
        serve(s, id);
    put(s, head, FRAME_HEAD_BYTES);
    if (len > 0) {
        hand_over(s);
        hd_chain_move_bytes(&s->out, &out->chain, len);
        out->moved_ns = hd_loop_now_ns(s->conn->loop);
        if (len >= EARNING_BYTES)
            hd_h2_budget_earn(&s->budget, 1);
    }
    if (out->was_high && out->chain.bytes < HD_H2_STREAM_OUT_LOW) {
        out->was_high = false;
        s->on_out_drained(out);
    }
    return 0;
}

void hd_h2_session_flush(hd_h2_session_t *s)
{
    int rc;

    if (s->is_broken)
        return;
    s->in_send = true;
    s->is_blocked = false;
    rc = nghttp2_session_send(s->ng);
    s->in_send = false;
    if (s->out_block != NULL) {
        hand_over(s);
        hd_block_unref(s->out_block);
        s->out_block = NULL;
    }
    hd_conn_send(s->conn, &s->out);
    if (s->is_blocked) /* also where the conn's marks are so high that it isn't full */
        hd_conn_want_writable(s->conn);
    if (rc != 0) {
        hd_ignore(
            hd_conn_fail(s->conn, HD_E_PROTOCOL, "HTTP/2: %s", nghttp2_strerror(rc)));
        s->is_broken = true;
        hd_conn_wake(s->conn);
    } else if (hd_h2_session_is_over(s)) {
        hd_conn_wake(s->conn); /* its owner sees that it is over */
    }
}

static void on_flush(hd_post_t *p)
{
    hd_h2_session_flush(hd_container_of(p, hd_h2_session_t, flush));
}

void hd_h2_session_flush_later(hd_h2_session_t *s)
{
    hd_loop_flush_later(s->conn->loop, &s->flush);
}

static void keep_trailers(hd_h2_out_t *out, const hd_headers_t *trailers)
{
    out->trailers_pool = hd_pool_create(0);
    hd_headers_init(&out->trailers, out->trailers_pool, trailers->n);
    for (unsigned i = 0; i < trailers->n; i++) {
        const hd_field_t *f = &trailers->fields[i];

        if (!(f->flags & (HD_FIELD_REMOVED | HD_FIELD_HOP)))
            hd_headers_add(&out->trailers, hd_str_dup(out->trailers_pool, f->name),
                           hd_str_dup(out->trailers_pool, f->value));
    }
}

void hd_h2_out_add(hd_h2_session_t *s, int32_t stream_id, hd_h2_out_t *out,
                   hd_chain_t *body, const hd_headers_t *trailers)
{
    unsigned flags = hd_chain_flags(body);

    out->ended |= (flags & HD_SLICE_END) != 0;
    if ((flags & HD_SLICE_TRAILERS) && trailers != NULL && trailers->n > 0 &&
        out->trailers_pool == NULL)
        keep_trailers(out, trailers);
    if (body->bytes > 0)
        hd_chain_move(&out->chain, body);
    else
        hd_chain_free(body);
    out->was_high |= out->chain.bytes > HD_H2_STREAM_OUT_HIGH;
    if (out->deferred) {
        out->deferred = false;
        /* fails for a closed stream, of which on_stream_close told */
        hd_ignore(nghttp2_session_resume_data(s->ng, stream_id) != 0);
    }
    hd_h2_session_flush_later(s);
}

void hd_h2_out_free(hd_h2_out_t *out)
{
    hd_chain_free(&out->chain);
    if (out->trailers_pool != NULL)
        hd_pool_destroy(out->trailers_pool);
    out->trailers_pool = NULL;
}

nghttp2_data_provider hd_h2_provider(void)
{
    return (nghttp2_data_provider){.read_callback = on_read_source};
}

size_t hd_h2_put_fields(nghttp2_nv *nv, size_t n, size_t max, const hd_headers_t *h)
{
    for (unsigned i = 0; i < h->n && n < max; i++) {
        const hd_field_t *f = &h->fields[i];

        if (f->flags & (HD_FIELD_REMOVED | HD_FIELD_HOP))
            continue;
        if (f->id == HD_H_CONTENT_LENGTH || f->id == HD_H_HOST ||
            f->id == HD_H_CONNECTION || f->id == HD_H_TRANSFER_ENCODING ||
            f->id == HD_H_KEEP_ALIVE || f->id == HD_H_UPGRADE ||
            f->id == HD_H_PROXY_CONNECTION)
            continue; /* RFC 9113 §8.2.2, and what the caller writes itself */
        nv[n] = hd_h2_nv(f->name, f->value);
        if (f->flags & HD_FIELD_NEVER_INDEX)
            nv[n].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
        n++;
    }
    return n;
}

/* --- input --- */

bool hd_h2_add_field(hd_headers_t *h, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len)
{
    char *copy = hd_pool_alloc_unaligned(h->pool, name_len + value_len + 1);

    memcpy(copy, name, name_len);
    memcpy(copy + name_len, value, value_len);
    return hd_headers_add(h, hd_str_n(copy, name_len),
                          hd_str_n(copy + name_len, value_len)) != NULL;
}

bool hd_h2_glitch(hd_h2_session_t *s, hd_h2_kind_t kind, uint32_t n)
{
    if (s->is_ending)
        return false;
    if (hd_h2_budget_take(&s->budget, kind, n, hd_loop_now_ns(s->conn->loop)))
        return true;
    hd_ignore(hd_conn_fail(s->conn, HD_E_LIMIT, "HTTP/2: too much of \"%s\"",
                           hd_h2_kind_name(kind)));
    hd_h2_session_goaway(s, NGHTTP2_ENHANCE_YOUR_CALM);
    return false;
}

void hd_h2_session_goaway(hd_h2_session_t *s, uint32_t error)
{
    int32_t last = nghttp2_session_get_last_proc_stream_id(s->ng);

    s->goaway_sent = true;
    s->is_ending |= error != NGHTTP2_NO_ERROR;
    if (error != NGHTTP2_NO_ERROR)
        nghttp2_session_terminate_session2(s->ng, last, error);
    else
        nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE, last, error, NULL, 0);
    hd_h2_session_flush_later(s);
}

/* --- PING --- */

static const uint8_t notice_ping[8] = "goodbye", keepalive_ping[8] = "hello";

void hd_h2_session_notice(hd_h2_session_t *s)
{
    hd_ignore(nghttp2_submit_shutdown_notice(s->ng) != 0);
    hd_h2_session_flush_later(s);
}

/* nghttp2 sends PING before all else that waits, so it is submitted behind GOAWAY. */
void hd_h2_session_sent(hd_h2_session_t *s, const nghttp2_frame *frame)
{
    const nghttp2_goaway *g = &frame->goaway;
    const char *error;

    if (frame->hd.type != NGHTTP2_GOAWAY)
        return;
    if (g->last_stream_id == INT32_MAX)
        hd_ignore(nghttp2_submit_ping(s->ng, NGHTTP2_FLAG_NONE, notice_ping) != 0);
    if (g->error_code == NGHTTP2_NO_ERROR)
        return;
    /* What nghttp2 found by itself stands in its GOAWAY; what we found was said. */
    error = nghttp2_http2_strerror(g->error_code);
    if (g->opaque_data_len > 0)
        hd_ignore(hd_conn_fail(s->conn, HD_E_PROTOCOL, "HTTP/2: %s: %.*s", error,
                               (int)g->opaque_data_len, (const char *)g->opaque_data));
    else
        hd_ignore(hd_conn_fail(s->conn, HD_E_PROTOCOL, "HTTP/2: %s", error));
}

bool hd_h2_session_pong(hd_h2_session_t *s, const nghttp2_frame *frame)
{
    const uint8_t *data = frame->ping.opaque_data;

    if (memcmp(data, notice_ping, sizeof(notice_ping)) == 0)
        return true;
    if (memcmp(data, keepalive_ping, sizeof(keepalive_ping)) == 0)
        hd_ping_answered(&s->ping);
    return false;
}

static void on_ping_due(hd_ping_t *p, bool is_dead)
{
    hd_h2_session_t *s = hd_container_of(p, hd_h2_session_t, ping);

    if (s->is_broken || s->is_ending)
        return;
    if (is_dead) {
        hd_ignore(hd_conn_fail(s->conn, HD_E_TIMEOUT, "HTTP/2: PING isn't answered"));
        s->is_broken = true;
        hd_conn_wake(s->conn); /* its owner sees that it is over */
        return;
    }
    hd_ignore(nghttp2_submit_ping(s->ng, NGHTTP2_FLAG_NONE, keepalive_ping) != 0);
    hd_h2_session_flush_later(s);
}

static hd_rc_t feed(hd_h2_session_t *s, const uint8_t *bytes, size_t n)
{
    ssize_t used;

    s->in_recv = true;
    used = nghttp2_session_mem_recv(s->ng, bytes, n);
    s->in_recv = false;
    hd_h2_session_flush_later(s);
    if (used >= 0)
        return HD_OK;
    s->is_broken = true;
    return hd_conn_fail(s->conn, HD_E_PROTOCOL, "HTTP/2: %s",
                        nghttp2_strerror((int)used));
}

/* What came goes to nghttp2 up to the first frame in fault, which ends the conn. */
static hd_rc_t take_input(hd_h2_session_t *s, const uint8_t *bytes, uint32_t n)
{
    hd_h2_verdict_t v = hd_h2_frames_pass(&s->frames, bytes, n);

    if (v.good > 0 && feed(s, bytes, v.good) != HD_OK)
        return HD_ERROR;
    for (int kind = 0; kind < HD_H2_KINDS; kind++) {
        if (v.counts[kind] > 0)
            hd_ignore(hd_h2_glitch(s, (hd_h2_kind_t)kind, v.counts[kind]));
    }
    if (v.error != 0 && !s->is_ending) {
        hd_ignore(hd_conn_fail(s->conn, HD_E_PROTOCOL, "HTTP/2: %s", v.why));
        hd_h2_session_goaway(s, v.error);
    }
    return HD_OK;
}

hd_rc_t hd_h2_session_read(hd_h2_session_t *s)
{
    for (unsigned i = 0; i < READS_PER_TURN && s->conn->is_readable && !s->is_ending;
         i++) {
        hd_block_t *block = hd_block_try_take();
        ssize_t n;
        hd_rc_t rc;

        if (block == NULL) {
            hd_famine_wait(&s->famine);
            return HD_AGAIN;
        }
        hd_famine_end(&s->famine);
        n = hd_conn_read(s->conn, block->data, HD_BLOCK_BYTES);
        if (n <= 0) {
            hd_block_unref(block);
            return n == 0 ? HD_DONE : n == HD_IO_AGAIN ? HD_OK : HD_ERROR;
        }
        s->in_block = block;
        rc = take_input(s, (const uint8_t *)block->data, (uint32_t)n);
        s->in_block = NULL;
        hd_block_unref(block);
        if (rc != HD_OK)
            return rc;
    }
    if (s->conn->is_readable && !s->is_ending)
        hd_conn_yield(s->conn);
    return HD_OK;
}

bool hd_h2_session_is_over(const hd_h2_session_t *s)
{
    return s->is_broken ||
           (!nghttp2_session_want_read(s->ng) && !nghttp2_session_want_write(s->ng));
}

bool hd_h2_session_is_peers_fault(const hd_h2_session_t *s)
{
    const hd_err_t *err = s->conn->err;

    return err != NULL && (err->code == HD_E_PROTOCOL ||
                           (s->is_ending && err->code == HD_E_LIMIT)); /* a glitch */
}

/* --- life --- */

void hd_h2_session_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_send_callback(cb, on_send);
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
}

hd_rc_t hd_h2_session_init(hd_h2_session_t *s, hd_conn_t *c,
                           nghttp2_session_callbacks *cb, bool is_server,
                           uint32_t block_bytes_max, void *user)
{
    nghttp2_option *option;
    int rc;

    if (nghttp2_option_new(&option) != 0)
        return HD_ERROR;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_max_outbound_ack(option, 1000);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_send_header_block_length(option, SEND_HEAD_BYTES);
#ifdef HD_HAVE_NGHTTP2_CONTINUATIONS
    nghttp2_option_set_max_continuations(option,
                                         hd_h2_continuations_max(block_bytes_max));
#endif
    rc = is_server ? nghttp2_session_server_new2(&s->ng, cb, user, option)
                   : nghttp2_session_client_new2(&s->ng, cb, user, option);
    nghttp2_option_del(option);
    if (rc != 0)
        return HD_ERROR;
    s->conn = c;
    s->frames.is_server = is_server;
    s->frames.block_bytes_max = block_bytes_max;
    s->frames.preface = is_server ? HD_H2_PREFACE_BYTES : 0;
    s->budget = (hd_h2_budget_t){.member = hd_loop_member(c->loop),
                                 .max = HD_H2_BUDGET,
                                 .left = HD_H2_BUDGET,
                                 .at_ns = hd_loop_now_ns(c->loop),
                                 .is_server = is_server};
    hd_post_init(&s->flush, on_flush);
    hd_ping_init(&s->ping, c->loop, on_ping_due);
    hd_famine_init(&s->famine, c, on_again);
    hd_chain_init(&s->out);
    return HD_OK;
}

void hd_h2_session_deinit(hd_h2_session_t *s)
{
    hd_post_cancel(&s->flush);
    hd_ping_stop(&s->ping);
    hd_famine_stop(&s->famine);
    hd_chain_free(&s->out);
    if (s->out_block != NULL)
        hd_block_unref(s->out_block);
    s->out_block = NULL;
    nghttp2_session_del(s->ng);
    s->ng = NULL;
}
