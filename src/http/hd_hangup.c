#include "http/hd_hangup.h"
#include "core/net/hd_loop.h"

#include <stdlib.h>

#define SEND_TIMEOUT_MS 60000
#define LINGER_MS 5000

typedef struct {
    hd_conn_t *conn;
    hd_timer_t timer;
    uint64_t bytes_seen, timeout_ms;
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

static void on_readable(hd_conn_t *c)
{
    (void)c; /* dropped when our half has ended */
}

static void on_writable(hd_conn_t *c)
{
    if (is_all_out(c))
        hd_conn_close(let_go(c->owner), LINGER_MS);
    else
        hd_conn_want_writable(c);
}

static void on_closed(hd_conn_t *c)
{
    hd_conn_reset(let_go(c->owner));
}

static const hd_conn_handler_t handler = {
    .on_readable = on_readable, .on_writable = on_writable, .on_closed = on_closed};

static void on_due(hd_timer_t *t)
{
    hangup_t *h = hd_container_of(t, hangup_t, timer);

    if (h->conn->bytes_out == h->bytes_seen) {
        hd_conn_reset(let_go(h));
        return;
    }
    h->bytes_seen = h->conn->bytes_out;
    hd_timer_set(h->conn->loop, t, h->timeout_ms);
}

void hd_hangup(hd_conn_t *c, uint64_t send_timeout_ms)
{
    hangup_t *h;

    hd_conn_flush(c);
    if (is_all_out(c) || c->state != HD_CONN_OPEN || hd_conn_is_dead(c)) {
        hd_conn_close(c, LINGER_MS);
        return;
    }
    h = calloc(1, sizeof(*h));
    hd_bug_on(h == NULL);
    h->conn = c;
    h->bytes_seen = c->bytes_out;
    h->timeout_ms = send_timeout_ms > 0 ? send_timeout_ms : SEND_TIMEOUT_MS;
    hd_timer_init(&h->timer, on_due);
    hd_timer_set(c->loop, &h->timer, h->timeout_ms);
    hd_conn_set_handler(c, &handler, h);
    hd_conn_set_marks(c, 0, 0);
    hd_conn_want_writable(c);
}
