/* client: a client's end of a conn that our server serves, and the bytes of an input.
 * Whoever includes it has a loop with a clock of its own and a listener (http_test.h has
 * them). */
#pragma once
#include "http/hd_codec.h"
#include "http/hd_http.h"

/* How the peer behaves: bits of an input's first byte that targets share. */
enum { UPSTREAM = 1, DEAF = 4, PIECES = 8, CLOSES = 16, TUNNEL = 32 };

/* --- the peer's bytes --- */

static uint8_t bytes[300000];
static size_t bytes_n;

TAP_UNUSED static void put(const void *data, size_t n)
{
    if (bytes_n + n <= sizeof(bytes)) {
        memcpy(bytes + bytes_n, data, n);
        bytes_n += n;
    }
}

/* --- the peer --- */

static bool is_deaf, peer_closed;
/* What the client got of late. */
static char answer[400000];
static size_t answer_n;

static void on_readable(hd_conn_t *c)
{
    ssize_t n;

    while (!is_deaf &&
           (n = hd_conn_read(c, answer + answer_n, sizeof(answer) - answer_n)) > 0)
        answer_n = answer_n + (size_t)n < sizeof(answer) ? answer_n + (size_t)n : 0;
}

static void on_writable(hd_conn_t *c)
{
    (void)c;
}

static void on_closed(hd_conn_t *c)
{
    peer_closed = true;
    hd_conn_reset(c);
}

static const hd_conn_handler_t peer = {
    .on_readable = on_readable, .on_writable = on_writable, .on_closed = on_closed};

TAP_UNUSED static void write_all(hd_conn_t *c, unsigned how)
{
    size_t step = how & PIECES ? 7 : sizeof(bytes);

    for (size_t at = 0; at < bytes_n && !peer_closed; at += step) {
        hd_chain_t out;

        hd_chain_init(&out);
        hd_bug_on(!hd_chain_try_add_copy(&out, (const char *)bytes + at,
                                         hd_min(step, bytes_n - at)));
        hd_conn_send(c, &out);
        if (how & PIECES)
            hd_loop_turn(loop, 0);
    }
    turn_some(loop);
}

typedef void serve_pt(hd_conn_t *c, const hd_http_entry_t *entry);

/* A client's end of a conn that our server <serve>s. */
TAP_UNUSED static hd_conn_t *connect_client(unsigned how, serve_pt *serve)
{
    hd_conn_t *ends[2];
    hd_http_entry_t entry;

    is_deaf = (how & DEAF) != 0;
    peer_closed = false;
    answer_n = 0;
    hd_bug_on(hd_conn_create_pipe(loop, ends, &err) != HD_OK);
    hd_conn_set_handler(ends[1], &peer, NULL);
    hd_http_entry_init(&entry, ends[0],
                       &(hd_entrance_t){listener_slot, NULL, filter_chain});
    serve(ends[0], &entry);
    return ends[1];
}

/* All that was taken is given back, at last when time is over. */
TAP_UNUSED static void check_nothing_left(void)
{
    for (int i = 0; i < 20 && (hd_conns_open(loop) > 0 || hd_requests_active() > 0); i++)
        tick(5000);
    if (hd_requests_active() != 0 || hd_conns_open(loop) != 0 ||
        hd_blocks_in_use() != 0) {
        fprintf(stderr, "left: %zu requests, %zu conns, %zu blocks\n",
                hd_requests_active(), hd_conns_open(loop), hd_blocks_in_use());
        abort();
    }
}
