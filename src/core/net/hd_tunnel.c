#include "core/net/hd_tunnel.h"
#include "core/net/hd_hangup.h"
#include "core/net/hd_loop_int.h"
#include "core/net/hd_splice.h"
#include <stdlib.h>

#define FULL_READS 4        /* running, before a way is spliced */
#define COPY_BELOW 4096     /* smaller reads are copied behind what waits already */
#define NO_BLOCK_MS 10      /* until a block may be free again */
#define PATIENCE_MS 3600000 /* with who takes nothing, if no idle time is set */

/* One direction. */
typedef struct {
    hd_conn_t *from, *to;
    uint64_t bytes;
    uint64_t rate; /* bytes a second; 0: no limit */
    hd_splice_t splice;
    unsigned full_reads;
    bool ended; /* <from>'s end was read and passed on */
} way_t;

struct hd_tunnel_s {
    hd_loop_t *loop;
    way_t up, down; /* towards the upstream, towards the client */
    hd_tunnel_conf_t conf;
    hd_timer_t idle, no_block, rate, deaf;
    uint64_t taken;                     /* by the upstream, when <deaf> was set */
    uint64_t started_ns, first_byte_ns; /* of the upstream's bytes; 0: none */
    hd_post_t start;
    const char *first_end; /* who ended first */
    void (*on_end)(void *arg, const hd_tunnel_result_t *result);
    void *arg;
};

static const hd_conn_handler_t tunnel_handler;

/* The end */

/* What is queued when the streams have ended goes out as it would have before: <idle_ms>
 * is how long nothing may go. Whoever gets less than all sees a reset. */
static void close_one(hd_conn_t *c, const hd_err_t *err, const hd_conn_t *cause,
                      uint64_t idle_ms)
{
    static const hd_linger_t linger = {.time_ms = 30000};
    bool was_reset = err != NULL && err->code == HD_E_RESET;

    /* A reset is passed on, so that a stream cut short doesn't look complete. But not
     * past bytes that are still on their way. */
    if (was_reset && (cause == NULL || cause == c || hd_chain_is_empty(&c->out)))
        hd_conn_reset(c);
    else if (err == NULL || was_reset)
        hd_hangup(c, idle_ms > 0 ? idle_ms : PATIENCE_MS, linger);
    else if (!hd_chain_is_empty(&c->out))
        hd_conn_reset(c);
    else
        hd_conn_close(c, 0);
}

static void end_tunnel(hd_tunnel_t *t, const char *by, const hd_err_t *err,
                       const hd_conn_t *cause)
{
    hd_conn_t *down = t->up.from, *up = t->up.to;
    hd_err_t why = {.code = HD_E_NONE};
    hd_tunnel_result_t result = {.bytes_down_up = t->up.bytes,
                                 .bytes_up_down = t->down.bytes,
                                 .ended_by = by,
                                 .err = err};

    hd_timer_stop(t->loop, &t->idle);
    hd_timer_stop(t->loop, &t->no_block);
    hd_timer_stop(t->loop, &t->rate);
    hd_timer_stop(t->loop, &t->deaf);
    hd_post_cancel(&t->start);
    hd_splice_close(&t->up.splice);
    hd_splice_close(&t->down.splice);
    t->on_end(t->arg, &result);
    if (err != NULL)
        why = *err; /* lies in one of the conns */
    close_one(down, err != NULL ? &why : NULL, cause, t->conf.idle_timeout_ms);
    close_one(up, err != NULL ? &why : NULL, cause, t->conf.idle_timeout_ms);
    free(t);
}

static const char *name_of(const hd_tunnel_t *t, const hd_conn_t *c)
{
    return c == t->up.from ? "downstream" : "upstream";
}

static void fail_tunnel(hd_tunnel_t *t, hd_conn_t *c)
{
    static const hd_err_t unknown = {.code = HD_E_RESET, .text = "closed"};

    end_tunnel(t, name_of(t, c), c->err != NULL ? c->err : &unknown, c);
}

/* Time */

static bool is_half_closed(const hd_tunnel_t *t)
{
    return t->up.ended || t->down.ended;
}

static void touch(hd_tunnel_t *t)
{
    uint64_t ms = t->conf.idle_timeout_ms;

    if (is_half_closed(t) && t->conf.half_close_timeout_ms != 0)
        ms = t->conf.half_close_timeout_ms;
    if (ms != 0)
        hd_timer_set(t->loop, &t->idle, ms);
}

static void on_idle(hd_timer_t *timer)
{
    hd_tunnel_t *t = hd_container_of(timer, hd_tunnel_t, idle);
    hd_err_t err = {.code = HD_E_NONE};

    (void)hd_err_set(&err, HD_E_TIMEOUT, "nothing was sent either way for too long");
    end_tunnel(t, "idle", &err, NULL);
}

/* The upstream's queue is full: from now on it has to take something now and then. */
static void watch_deaf(hd_tunnel_t *t, const way_t *w)
{
    if (w != &t->up || t->conf.send_timeout_ms == 0 || hd_timer_is_set(&t->deaf))
        return;
    t->taken = w->to->bytes_out;
    hd_timer_set(t->loop, &t->deaf, t->conf.send_timeout_ms);
}

static void on_deaf(hd_timer_t *timer)
{
    hd_tunnel_t *t = hd_container_of(timer, hd_tunnel_t, deaf);
    hd_err_t err = {.code = HD_E_NONE};

    if (t->up.to->bytes_out != t->taken) { /* slow, not deaf */
        if (!t->up.to->is_writable)
            watch_deaf(t, &t->up);
        return;
    }
    (void)hd_err_set(&err, HD_E_TIMEOUT, "the upstream took nothing for too long");
    end_tunnel(t, "deaf", &err, NULL);
}

/* Moving bytes. Each of these says false when the tunnel is gone. */

/* <from> has ended: so does our half towards <to>. */
static bool pass_end(hd_tunnel_t *t, way_t *w)
{
    w->ended = true;
    hd_splice_close(&w->splice);
    if (t->first_end == NULL)
        t->first_end = name_of(t, w->from);
    if ((t->up.ended && t->down.ended) || t->conf.ends_together) {
        end_tunnel(t, t->first_end, NULL, NULL);
        return false;
    }
    hd_conn_shutdown(w->to);
    touch(t);
    return true;
}

static void queue(way_t *w, hd_block_t *b, const char *data, size_t n)
{
    hd_chain_t chain;

    if (n < COPY_BELOW && !hd_chain_is_empty(&w->to->out) &&
        hd_conn_try_send_copy(w->to, data, n))
        return;
    hd_chain_init(&chain);
    hd_chain_add(&chain, b, data, n, 0);
    hd_conn_send(w->to, &chain);
}

/* What emptied its socket goes at once, out of the block that all ways then share: it is
 * still in the cache, and costs no slice. More may follow what filled a block: both go
 * with one call at the turn's end. */
static void pass_on(way_t *w, hd_block_t *b, size_t n)
{
    size_t sent = n < HD_BLOCK_BYTES ? hd_conn_try_write(w->to, b->data, n) : 0;

    if (sent < n)
        queue(w, b, b->data + sent, n - sent);
}

static void note_moved(hd_tunnel_t *t, way_t *w, size_t n)
{
    if (w->bytes == 0 && w == &t->down)
        t->first_byte_ns = hd_loop_now_ns(t->loop);
    w->bytes += n;
}

/* How much may go now, as nginx counts: <rate> a second, the first one at once. 0: the
 * timer tells when. */
static size_t allowance(hd_tunnel_t *t, const way_t *w)
{
    uint64_t ms = (hd_loop_now_ns(t->loop) - t->started_ns) / 1000000;
    uint64_t all;

    if (w->rate == 0)
        return SIZE_MAX;
    all = w->rate * (ms / 1000 + 1);
    if (all > w->bytes)
        return all - w->bytes;
    if (!hd_timer_is_set(&t->rate))
        hd_timer_set(t->loop, &t->rate, 1000 - ms % 1000);
    return 0;
}

/* One read of at most <max> bytes into a block, queued. Bytes, or as hd_conn_read;
 * *no_block: there was none. */
static ssize_t copy_some(hd_tunnel_t *t, way_t *w, size_t max, bool *no_block)
{
    hd_block_t *b = hd_block_try_take();
    ssize_t n;

    *no_block = b == NULL;
    if (b == NULL)
        return HD_IO_AGAIN;
    n = hd_conn_read(w->from, b->data, hd_min(max, (size_t)HD_BLOCK_BYTES));
    if (n > 0) {
        pass_on(w, b, (size_t)n);
        note_moved(t, w, (size_t)n);
        w->full_reads = n == HD_BLOCK_BYTES ? w->full_reads + 1 : 0;
    }
    hd_block_unref(b);
    return n;
}

/* A full queue is offered to the kernel at once: the turn's end would be late for bulk.
 */
static bool has_room(way_t *w)
{
    if (hd_conn_is_high(w->to))
        hd_conn_flush(w->to);
    return !hd_conn_is_high(w->to);
}

static bool try_start_splice(way_t *w)
{
    if (w->full_reads < FULL_READS || !w->from->is_readable || w->rate != 0)
        return false;
    hd_conn_flush(w->to);
    if (!hd_splice_may(w->from, w->to))
        return false;
    w->full_reads = 0; /* without a pipe: not again before some more */
    return hd_splice_try_open(&w->splice);
}

static bool copy(hd_tunnel_t *t, way_t *w)
{
    size_t moved = 0;

    while (w->from->is_readable && has_room(w)) {
        size_t may = allowance(t, w);
        bool no_block;
        ssize_t n;

        if (may == 0)
            break;
        if (moved >= HD_CONN_TURN_BYTES) {
            hd_conn_yield(w->from);
            break;
        }
        n = copy_some(t, w, may, &no_block);
        if (n == 0)
            return pass_end(t, w);
        if (n == HD_IO_ERROR) {
            fail_tunnel(t, w->from);
            return false;
        }
        if (no_block)
            hd_timer_set(t->loop, &t->no_block, NO_BLOCK_MS);
        if (n < 0)
            break;
        moved += (size_t)n;
        if (try_start_splice(w)) {
            hd_conn_wake(w->from);
            break;
        }
    }
    if (moved > 0)
        touch(t);
    if (hd_conn_is_high(w->to))
        watch_deaf(t, w);
    return true;
}

static bool run_splice(hd_tunnel_t *t, way_t *w)
{
    size_t moved;
    hd_splice_end_t end =
        hd_splice_run(&w->splice, w->from, w->to, HD_CONN_TURN_BYTES, &moved);

    if (moved > 0) {
        note_moved(t, w, moved);
        hd_splice_count(hd_loop_member(t->loop), moved);
        touch(t);
    }
    switch (end) {
    case HD_SPLICE_DRY:
        if (hd_splice_is_idle(&w->splice))
            hd_splice_close(&w->splice);
        return true;
    case HD_SPLICE_MORE:
        hd_conn_yield(w->from);
        return true;
    case HD_SPLICE_FULL: /* on_writable comes */
        watch_deaf(t, w);
        return true;
    case HD_SPLICE_ENDED:
        return pass_end(t, w);
    case HD_SPLICE_FROM_FAILED:
        fail_tunnel(t, w->from);
        return false;
    case HD_SPLICE_TO_FAILED:
        fail_tunnel(t, w->to);
        return false;
    }
    return true;
}

static bool pump(hd_tunnel_t *t, way_t *w)
{
    if (w->ended)
        return true;
    return hd_splice_is_open(&w->splice) ? run_splice(t, w) : copy(t, w);
}

/* What wakes it */

static way_t *way_from(hd_tunnel_t *t, const hd_conn_t *c)
{
    return t->up.from == c ? &t->up : &t->down;
}

static way_t *way_to(hd_tunnel_t *t, const hd_conn_t *c)
{
    return t->up.to == c ? &t->up : &t->down;
}

static void on_readable(hd_conn_t *c)
{
    (void)pump(c->owner, way_from(c->owner, c));
}

static void on_writable(hd_conn_t *c)
{
    hd_tunnel_t *t = c->owner;

    if (c == t->up.to)
        hd_timer_stop(t->loop, &t->deaf);
    (void)pump(t, way_to(t, c));
}

static void on_closed(hd_conn_t *c)
{
    fail_tunnel(c->owner, c);
}

static const hd_conn_handler_t tunnel_handler = {
    .on_readable = on_readable,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

static void pump_both(hd_tunnel_t *t)
{
    if (pump(t, &t->up))
        (void)pump(t, &t->down);
}

static void on_no_block(hd_timer_t *timer)
{
    pump_both(hd_container_of(timer, hd_tunnel_t, no_block));
}

static void on_rate(hd_timer_t *timer)
{
    pump_both(hd_container_of(timer, hd_tunnel_t, rate));
}

/* What happened before the tunnel was there is told to nobody any more. */
static bool take_over(hd_tunnel_t *t, way_t *w)
{
    if (w->from->state != HD_CONN_OPEN || hd_conn_is_dead(w->from)) {
        fail_tunnel(t, w->from);
        return false;
    }
    if (w->from->peer_closed && w->from->_in == NULL)
        return pass_end(t, w);
    return pump(t, w);
}

static void on_start(hd_post_t *p)
{
    hd_tunnel_t *t = hd_container_of(p, hd_tunnel_t, start);

    if (take_over(t, &t->up))
        (void)take_over(t, &t->down);
}

hd_tunnel_t *hd_tunnel_start(hd_conn_t *down, hd_conn_t *up, const hd_tunnel_conf_t *conf,
                             void (*on_end)(void *arg, const hd_tunnel_result_t *result),
                             void *arg)
{
    hd_tunnel_t *t = hd_net_realloc(NULL, sizeof(*t));

    *t = (hd_tunnel_t){.loop = down->loop,
                       .up = {.from = down, .to = up, .rate = conf->up_rate},
                       .down = {.from = up, .to = down, .rate = conf->down_rate},
                       .conf = *conf,
                       .started_ns = hd_loop_now_ns(down->loop),
                       .on_end = on_end,
                       .arg = arg};
    hd_splice_init(&t->up.splice);
    hd_splice_init(&t->down.splice);
    hd_timer_init(&t->idle, on_idle);
    hd_timer_init(&t->no_block, on_no_block);
    hd_timer_init(&t->rate, on_rate);
    hd_timer_init(&t->deaf, on_deaf);
    hd_post_init(&t->start, on_start);
    hd_conn_set_handler(down, &tunnel_handler, t);
    hd_conn_set_handler(up, &tunnel_handler, t);
    hd_post(t->loop, &t->start);
    touch(t);
    return t;
}

void *hd_tunnel_arg(const hd_conn_t *c)
{
    return c->handler == &tunnel_handler ? ((const hd_tunnel_t *)c->owner)->arg : NULL;
}

uint64_t hd_tunnel_first_byte_ns(const hd_tunnel_t *t)
{
    return t->first_byte_ns;
}

void hd_tunnel_stop(hd_tunnel_t *t, bool reset)
{
    static const hd_err_t stopped = {.code = HD_E_RESET,
                                     .text = "the tunnel was stopped"};

    end_tunnel(t, "drain", reset ? &stopped : NULL, NULL);
}

void hd_tunnel_fail(hd_tunnel_t *t, const char *by, const hd_err_t *err)
{
    end_tunnel(t, by, err, NULL);
}
