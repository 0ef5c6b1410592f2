#include "core/net/hd_conn.h"
#include "core/base/hd_log.h"
#include "core/net/hd_conn_int.h"
#include <stdio.h>

/* Facts stay while a conn idles: room for what most have, a server name and protocols and
 * between sidecars two principals. */
#define POOL_BYTES (sizeof(hd_conn_facts_t) + 240)
#define DRAIN_BYTES 16384 /* of a closing conn's peer, dropped by one read */
#define DRAIN_READS 8     /* in one turn */

static void move_conn(hd_conn_t *c, hd_conn_state_t from, hd_conn_state_t to)
{
    hd_bug_on(c->state != from);
    c->state = (uint8_t)to;
}

static bool is_open(const hd_conn_t *c)
{
    return c->state == HD_CONN_OPEN;
}

static bool is_over(const hd_conn_t *c)
{
    return c->state == HD_CONN_CLOSING || c->state == HD_CONN_CLOSED;
}

/* Telling the owner */

static void tell_readable(hd_conn_t *c)
{
    c->_events &= (uint8_t)~HD_TELL_READABLE;
    if (is_open(c) && c->handler != NULL)
        c->handler->on_readable(c);
}

static void tell_writable(hd_conn_t *c)
{
    c->_events &= (uint8_t)~HD_TELL_WRITABLE;
    if (!is_open(c) || c->handler == NULL || !hd_conn_may_tell_writable(c))
        return;
    c->_flags &= (uint16_t)~HD_CF_WANT_WRITABLE;
    if (c->handler->on_writable != NULL)
        c->handler->on_writable(c);
}

static void tell_closed(hd_conn_t *c)
{
    if (is_over(c) || (c->_flags & HD_CF_TOLD) != 0)
        return;
    c->_flags |= HD_CF_TOLD;
    hd_timer_stop(c->loop, &c->_timer);
    if (c->handler != NULL && c->handler->on_closed != NULL)
        c->handler->on_closed(c);
}

static void tell_open(hd_conn_t *c)
{
    if (!is_open(c) || c->handler == NULL)
        return;
    if (c->handler->on_open != NULL)
        c->handler->on_open(c);
    if (c->is_readable)
        tell_readable(c);
}

void hd_conn_tell_later(hd_conn_t *c, unsigned what)
{
    c->_events |= (uint8_t)what;
    hd_post(c->loop, &c->_wake);
}

static void on_wake(hd_post_t *p)
{
    hd_conn_t *c = hd_container_of(p, hd_conn_t, _wake);
    unsigned what = c->_events;

    c->_events = 0;
    if ((what & HD_TELL_BOTTOM) != 0)
        hd_conn_on_bottom(c, what & HD_TELL_BOTTOM);
    if ((what & HD_TELL_OPEN) != 0)
        tell_open(c);
    else if ((what & HD_TELL_READABLE) != 0)
        tell_readable(c);
    if ((what & HD_TELL_WRITABLE) != 0)
        tell_writable(c);
    if ((what & HD_TELL_CLOSED) != 0)
        tell_closed(c);
}

/* After a reset nothing more comes or goes; but what came before it is still there for
 * who asked for it (an early answer), so an upstream's is read first. A client's owner may
 * have all that it wants to read and be at its answer: it wouldn't learn by reading. */
static void tell_reset(hd_conn_t *c)
{
    if (!is_open(c))
        return;
    if (c->is_upstream && ((c->_flags & HD_CF_READ_FAILED) != 0 ||
                           (hd_layer_is_socket(c->bottom) &&
                            hd_layer_socket_has_unread(c->bottom))))
        return;
    (void)hd_conn_fail(c, HD_E_RESET, "the peer reset the connection");
    tell_closed(c);
}

/* Events */

static void deliver(hd_conn_t *c, unsigned events)
{
    bool has_input = (events & (HD_EV_READ | HD_EV_HUP | HD_EV_ERR)) != 0;

    if ((events & (HD_EV_HUP | HD_EV_ERR)) != 0)
        c->peer_closing = true;
    if (has_input)
        c->is_readable = true;
    if ((events & HD_EV_WRITE) != 0) {
        c->is_writable = true;
        if (hd_conn_has_output(c))
            hd_conn_flush(c);
    }
    if (c->state == HD_CONN_CLOSING) {
        hd_conn_step_closing(c);
        return;
    }
    if (has_input)
        tell_readable(c);
    if ((c->_flags & HD_CF_WANT_WRITABLE) != 0)
        tell_writable(c);
    if ((events & HD_EV_ERR) != 0)
        tell_reset(c);
}

void hd_conn_on_bottom(hd_conn_t *c, unsigned events)
{
    hd_layer_t *above;

    if (c->state == HD_CONN_CLOSED)
        return;
    for (hd_layer_t *l = c->bottom->above; l != NULL && events != 0; l = above) {
        above = l->above; /* a replay layer may vanish while the one above reads */
        if (l->ops->on_event != NULL && c->state != HD_CONN_CLOSING)
            events = l->ops->on_event(l, events);
    }
    if (events != 0 && c->state != HD_CONN_CLOSED)
        deliver(c, events);
}

void hd_conn_post_bottom(hd_conn_t *c, unsigned events)
{
    hd_conn_tell_later(c, events & HD_TELL_BOTTOM);
}

void hd_conn_connected(hd_conn_t *c, bool good, unsigned events)
{
    if (!good) {
        tell_closed(c);
        return;
    }
    c->_flags &= (uint16_t)~HD_CF_CONNECTING;
    c->is_writable = true;
    if ((c->_flags & HD_CF_HANDSHAKE_NEXT) != 0) {
        move_conn(c, HD_CONN_CONNECTING, HD_CONN_HANDSHAKE);
        hd_conn_on_bottom(c, events | HD_EV_WRITE);
        return;
    }
    move_conn(c, HD_CONN_CONNECTING, HD_CONN_OPEN);
    hd_timer_stop(c->loop, &c->_timer);
    if (hd_conn_has_output(c))
        hd_conn_set_list(c);
    if ((events & ~(unsigned)HD_EV_WRITE) != 0)
        hd_conn_post_bottom(c, events);
    tell_open(c);
}

static void on_conn_timer(hd_timer_t *t)
{
    hd_conn_t *c = hd_container_of(t, hd_conn_t, _timer);

    if (c->state == HD_CONN_CLOSING) {
        c->_flags |= HD_CF_BROKEN; /* what is left is lost */
        hd_conn_step_closing(c);
        return;
    }
    if (c->state == HD_CONN_OPEN) {
        if (c->handler != NULL && c->handler->on_due != NULL)
            c->handler->on_due(c);
        return;
    }
    (void)hd_conn_fail(c, HD_E_TIMEOUT, "%s",
                       c->state == HD_CONN_CONNECTING ? "timed out while connecting"
                                                      : "timed out during the handshake");
    tell_closed(c);
}

/* Layers */

void hd_conn_set_bottom(hd_conn_t *c, hd_layer_t *l, const hd_layer_ops_t *ops)
{
    *l = (hd_layer_t){.ops = ops, .conn = c};
    c->top = c->bottom = l;
    hd_post_init(&c->_wake, on_wake);
    hd_timer_init(&c->_timer, on_conn_timer);
}

static void push(hd_conn_t *c, hd_layer_t *l)
{
    l->conn = c;
    l->below = c->top;
    l->above = NULL;
    c->top->above = l;
    c->top = l;
}

void hd_conn_push(hd_conn_t *c, hd_layer_t *l)
{
    if (c->_in != NULL) {
        push(c, hd_layer_replay_create(c->_in));
        hd_conn_free_peeked(c);
        hd_conn_post_bottom(c, HD_EV_READ);
    }
    if (c->is_readable)
        hd_conn_post_bottom(c, HD_EV_READ);
    push(c, l);
}

void hd_conn_await_handshake(hd_conn_t *c)
{
    if (c->state == HD_CONN_CONNECTING)
        c->_flags |= HD_CF_HANDSHAKE_NEXT;
    else if (c->state != HD_CONN_HANDSHAKE)
        move_conn(c, HD_CONN_OPEN, HD_CONN_HANDSHAKE);
}

void hd_conn_set_handshake_timeout(hd_conn_t *c, uint64_t timeout_ms)
{
    if (c->state != HD_CONN_HANDSHAKE)
        return;
    if (timeout_ms == 0)
        hd_timer_stop(c->loop, &c->_timer);
    else
        hd_timer_set(c->loop, &c->_timer, timeout_ms);
}

void hd_conn_handshake_done(hd_conn_t *c, bool good)
{
    if (c->state != HD_CONN_HANDSHAKE)
        return;
    hd_timer_stop(c->loop, &c->_timer);
    if (!good) {
        hd_conn_tell_later(c, HD_TELL_CLOSED);
        return;
    }
    move_conn(c, HD_CONN_HANDSHAKE, HD_CONN_OPEN);
    c->is_readable = true; /* the layer may hold bytes that came with the handshake */
    hd_conn_tell_later(c, HD_TELL_OPEN);
    hd_conn_set_list(c);
}

/* Owner, pool, facts */

void hd_conn_set_handler(hd_conn_t *c, const hd_conn_handler_t *handler, void *owner)
{
    c->handler = handler;
    c->owner = owner;
    c->is_readable |= c->_in != NULL;
    if (!is_open(c))
        return;
    hd_timer_stop(c->loop, &c->_timer);
    if (c->is_readable)
        hd_conn_wake(c);
}

uint64_t hd_conn_due_ns(const hd_conn_t *c)
{
    return c->_timer.at_ns;
}

void hd_conn_set_timer(hd_conn_t *c, uint64_t after_ms)
{
    if (!is_open(c))
        return;
    if (after_ms == 0)
        hd_timer_stop(c->loop, &c->_timer);
    else
        hd_timer_set(c->loop, &c->_timer, after_ms);
}

void hd_conn_wake(hd_conn_t *c)
{
    hd_conn_tell_later(c, HD_TELL_READABLE);
}

static void tell_next_turn(hd_conn_t *c, unsigned what)
{
    c->_events |= (uint8_t)what;
    hd_post_next(c->loop, &c->_wake);
}

void hd_conn_yield(hd_conn_t *c)
{
    tell_next_turn(c, HD_TELL_READABLE);
}

hd_pool_t *hd_conn_pool(hd_conn_t *c)
{
    if (c->pool == NULL)
        c->pool = hd_pool_create(POOL_BYTES);
    return c->pool;
}

hd_conn_facts_t *hd_conn_facts(hd_conn_t *c)
{
    if (c->facts == NULL)
        c->facts = hd_pool_new(hd_conn_pool(c), hd_conn_facts_t);
    return c->facts;
}

void hd_conn_trim(hd_conn_t *c)
{
    if (c->pool == NULL || c->facts != NULL || c->attrs != NULL || c->err != NULL)
        return;
    hd_pool_destroy(c->pool);
    c->pool = NULL;
}

hd_rc_t hd_conn_fail(hd_conn_t *c, hd_err_code_t code, const char *fmt, ...)
{
    char text[HD_ERR_TEXT_MAX];
    va_list args;

    if (c->err != NULL)
        return HD_ERROR;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    c->err = hd_pool_new(hd_conn_pool(c), hd_err_t);
    return hd_err_set(c->err, code, "%s", text);
}

const hd_addr_t *hd_conn_remote(const hd_conn_t *c)
{
    if (c->facts != NULL && c->facts->proxied != NULL && !c->facts->proxied_untrusted &&
        c->facts->proxied->remote.family != AF_UNSPEC)
        return &c->facts->proxied->remote;
    return &c->remote;
}

static const hd_addr_t unknown;

const hd_addr_t *hd_conn_original_dst(const hd_conn_t *c)
{
    if (c->facts != NULL && c->facts->original_dst.family != AF_UNSPEC)
        return &c->facts->original_dst;
    if (c->facts != NULL && c->facts->proxied != NULL)
        return &c->facts->proxied->local;
    return &unknown;
}

const hd_addr_t *hd_conn_local(const hd_conn_t *c)
{
    const hd_addr_t *dst = hd_conn_original_dst(c);

    return dst->family != AF_UNSPEC ? dst : hd_conn_socket_local(c);
}

const hd_addr_t *hd_conn_socket_local(const hd_conn_t *c)
{
    return c->_local != NULL ? &c->_local->addr : &unknown;
}

int hd_conn_fd(const hd_conn_t *c)
{
    if (c->bottom == NULL || !hd_layer_is_socket(c->bottom))
        return -1;
    return ((const hd_layer_socket_t *)c->bottom)->watch.fd;
}

bool hd_conn_ask_local(const hd_conn_t *c, hd_addr_t *local)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    int fd = hd_conn_fd(c);

    if (fd < 0 || getsockname(fd, (struct sockaddr *)&ss, &len) != 0)
        return false;
    hd_addr_from_sockaddr((struct sockaddr *)&ss, len, local);
    if (local->family == AF_UNIX)
        *local = (hd_addr_t){.family = AF_UNIX}; /* its name lies on our stack */
    return true;
}

bool hd_conn_is_dead(const hd_conn_t *c)
{
    return (c->_flags & HD_CF_TOLD) != 0;
}

int hd_conn_bare_fd(const hd_conn_t *c)
{
    if (c->top != c->bottom || !hd_layer_is_socket(c->bottom) || !is_open(c))
        return -1;
    return ((const hd_layer_socket_t *)c->bottom)->watch.fd;
}

/* Closing */

static void finish(hd_conn_t *c, bool reset)
{
    hd_layer_t *below;

    if (c->state == HD_CONN_CLOSED)
        return;
    hd_timer_stop(c->loop, &c->_timer);
    for (hd_layer_t *l = c->top; l != NULL; l = below) {
        below = l->below;
        l->ops->close(l, reset);
    }
    c->top = c->bottom = NULL;
    hd_conn_free_peeked(c);
    hd_chain_free(&c->out);
    c->handler = NULL;
    c->_events = 0;
    move_conn(c, c->state, HD_CONN_CLOSED);
    hd_conn_set_give(c);
}

/* Reads and drops what the peer still sends. True: it has ended too, or failed. */
static bool has_drained(hd_conn_t *c)
{
    char waste[DRAIN_BYTES];

    for (int i = 0; i < DRAIN_READS; i++) {
        ssize_t n = c->bottom->ops->read(c->bottom, waste, sizeof(waste));

        if (n == HD_IO_AGAIN)
            return false;
        if (n <= 0)
            return true;
    }
    tell_next_turn(c, HD_EV_READ); /* the others' turn */
    return false;
}

void hd_conn_step_closing(hd_conn_t *c)
{
    bool may_wait = hd_timer_is_set(&c->_timer);

    if (c->state != HD_CONN_CLOSING)
        return;
    if ((c->_flags & HD_CF_BROKEN) != 0 || !may_wait) {
        finish(c, false);
        return;
    }
    if (hd_conn_has_output(c))
        return;
    if (c->peer_closed) {
        finish(c, false);
        return;
    }
    if ((c->_flags & HD_CF_SHUT_DONE) == 0) {
        c->_flags |= HD_CF_SHUT_WANTED;
        hd_conn_flush(c);
        if ((c->_flags & HD_CF_SHUT_DONE) == 0)
            return; /* comes again with HD_EV_WRITE */
    }
    c->_flags |= HD_CF_DRAINING;
    if (has_drained(c))
        finish(c, false);
}

void hd_conn_close(hd_conn_t *c, uint64_t linger_ms)
{
    bool was_open = is_open(c);

    if (is_over(c))
        return;
    c->handler = NULL;
    c->owner = NULL;
    c->_events &= HD_TELL_BOTTOM;
    if (!was_open || (c->_flags & (HD_CF_BROKEN | HD_CF_READ_FAILED | HD_CF_TOLD)) != 0 ||
        (linger_ms == 0 && !hd_conn_has_output(c))) {
        finish(c, false);
        return;
    }
    hd_conn_set_timer(c, linger_ms);
    move_conn(c, HD_CONN_OPEN, HD_CONN_CLOSING);
    hd_conn_free_peeked(c);
    hd_conn_set_list(c);
}

bool hd_conn_is_older(const hd_conn_t *c, uint64_t ms)
{
    return ms > 0 && (hd_loop_now_ns(c->loop) - c->opened_ns) / 1000000 > ms;
}

void hd_conn_reset(hd_conn_t *c)
{
    finish(c, true);
}
