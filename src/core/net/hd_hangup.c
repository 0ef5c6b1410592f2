#include "core/net/hd_hangup.h"
#include "core/net/hd_loop.h"

#include <stdlib.h>

#define SEND_TIMEOUT_MS 60000
#define WASTE_BYTES 16384

typedef struct {
    hd_conn_t *conn;
    hd_timer_t timer;
    uint64_t bytes_seen, timeout_ms;
    hd_linger_t linger;
    uint64_t until_ns; /* 0: not all is out */
} hangup_t;

static bool is_all_out(const hd_conn_t *c)
{
    return hd_chain_is_empty(&c->out) && c->is_writable;
}

static hd_conn_t *let_go(hangup_t *h)
{
    hd_conn_t *c = h->conn;

    hd_timer_stop(c->loop, &h->timer);
    free(h);
    return c;
}

static void on_closed(hd_conn_t *c)
{
    hd_conn_reset(let_go(c->owner));
}

/* --- all is out --- */

/* Until the client sends more, or its time is over. False: it is, and the conn gone. */
static bool await_more(hangup_t *h)
{
    uint64_t now_ns = hd_loop_now_ns(h->conn->loop), left_ms;

    if (now_ns >= h->until_ns) {
        hd_conn_close(let_go(h), 0);
        return false;
    }
    left_ms = (h->until_ns - now_ns) / 1000000 + 1;
    if (h->linger.gap_ms > 0)
        left_ms = hd_min(left_ms, (uint64_t)h->linger.gap_ms);
    hd_timer_set(h->conn->loop, &h->timer, left_ms);
    return true;
}

static void on_waste(hd_conn_t *c)
{
    static _Thread_local char waste[WASTE_BYTES];
    size_t dropped = 0;
    ssize_t n = 0;

    while (dropped < HD_CONN_TURN_BYTES &&
           (n = hd_conn_read(c, waste, sizeof(waste))) > 0)
        dropped += (size_t)n;
    if (n == 0 || n == HD_IO_ERROR)
        hd_conn_close(let_go(c->owner), 0);
    else if (dropped > 0 && await_more(c->owner) && n != HD_IO_AGAIN)
        hd_conn_yield(c);
}

static void on_still_writable(hd_conn_t *c)
{
    (void)c; /* nothing follows */
}

static const hd_conn_handler_t lingering = {
    .on_readable = on_waste, .on_writable = on_still_writable, .on_closed = on_closed};

static void linger(hangup_t *h)
{
    hd_conn_t *c = h->conn;

    if (h->linger.time_ms == 0 || c->peer_closed) {
        hd_conn_close(let_go(h), 0);
        return;
    }
    h->until_ns = hd_loop_now_ns(c->loop) + h->linger.time_ms * 1000000ull;
    hd_conn_shutdown(c);
    hd_conn_set_handler(c, &lingering, h);
    if (await_more(h))
        hd_conn_wake(c);
}

/* --- until then --- */

static void on_readable(hd_conn_t *c)
{
    (void)c; /* dropped when our half has ended */
}

static void on_writable(hd_conn_t *c)
{
    if (is_all_out(c))
        linger(c->owner);
    else
        hd_conn_want_writable(c);
}

static const hd_conn_handler_t handler = {
    .on_readable = on_readable, .on_writable = on_writable, .on_closed = on_closed};

static void on_due(hd_timer_t *t)
{
    hangup_t *h = hd_container_of(t, hangup_t, timer);

    if (h->until_ns > 0) {
        hd_conn_close(let_go(h), 0);
        return;
    }
    if (h->conn->bytes_out == h->bytes_seen) {
        hd_conn_reset(let_go(h));
        return;
    }
    h->bytes_seen = h->conn->bytes_out;
    hd_timer_set(h->conn->loop, t, h->timeout_ms);
}

void hd_hangup(hd_conn_t *c, uint64_t send_timeout_ms, hd_linger_t how)
{
    hangup_t *h;

    hd_conn_flush(c);
    if (c->state != HD_CONN_OPEN || hd_conn_is_dead(c)) {
        hd_conn_close(c, how.gap_ms > 0 ? how.gap_ms : how.time_ms);
        return;
    }
    h = calloc(1, sizeof(*h));
    hd_bug_on(h == NULL);
    h->conn = c;
    h->linger = how;
    h->bytes_seen = c->bytes_out;
    h->timeout_ms = send_timeout_ms > 0 ? send_timeout_ms : SEND_TIMEOUT_MS;
    hd_timer_init(&h->timer, on_due);
    if (is_all_out(c)) {
        linger(h);
        return;
    }
    hd_timer_set(c->loop, &h->timer, h->timeout_ms);
    hd_conn_set_handler(c, &handler, h);
    hd_conn_set_marks(c, 0, 0);
    hd_conn_want_writable(c);
}
