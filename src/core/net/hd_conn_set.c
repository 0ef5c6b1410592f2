/* The conns of a loop. Slabs of cells: a conn costs its cell and nothing else, and one
 * that was closed is found again while it is still in the cache. What was closed in a
 * turn is freed at its end, so that callbacks may close any conn, their own too. */
#include "core/base/hd_asan.h"
#include "core/net/hd_clients.h"
#include "core/net/hd_conn_int.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CELLS_A_SLAB 64
#define HIGH_KB                                                                          \
    32 /* two blocks: more would have left the CPU's cache when they are sent */
#define LOW_KB 16

#define NEW_NS 100000000u /* of a new conn the first bytes are on their way */

#define LOCALS_N 64 /* recent local addresses that new conns may share */

_Static_assert(sizeof(hd_conn_cell_t) <= 288, "an idle conn is a promise");

typedef struct slab_s {
    struct slab_s *next;
    hd_conn_cell_t cells[CELLS_A_SLAB];
} slab_t;

typedef struct hd_conn_set_s {
    slab_t *slabs;
    hd_conn_t *free;                 /* by _next */
    hd_conn_t *first_out, *last_out; /* to be flushed, by _next */
    hd_link_t dead;                  /* by _wake */
    size_t open;
    hd_local_t *locals[LOCALS_N]; /* by hash */
} hd_conn_set_t;

static atomic_uint_fast64_t last_id;

static void hide(hd_conn_t *c)
{
    hd_asan_poison((char *)c + sizeof(*c), sizeof(hd_conn_cell_t) - sizeof(*c));
    hd_asan_poison(c, offsetof(hd_conn_t, _next));
}

static void show(hd_conn_t *c)
{
    hd_asan_unpoison(c, sizeof(hd_conn_cell_t));
}

static void add_slab(hd_conn_set_t *set)
{
    slab_t *slab = hd_net_realloc(NULL, sizeof(*slab));

    memset(slab, 0, sizeof(*slab));
    slab->next = set->slabs;
    set->slabs = slab;
    for (size_t i = CELLS_A_SLAB; i-- > 0;) {
        hd_conn_t *c = &slab->cells[i].conn;

        c->state = HD_CONN_CLOSED;
        c->_next = set->free;
        set->free = c;
        hide(c);
    }
}

static void release_local(hd_local_t *local)
{
    if (local != NULL && --local->refs == 0)
        free(local);
}

void hd_conn_set_local(hd_conn_t *c, const hd_addr_t *local)
{
    hd_local_t **recent = &c->loop->conns->locals[hd_addr_hash(local) % LOCALS_N];

    if (*recent == NULL || !hd_addr_eq(&(*recent)->addr, local)) {
        release_local(*recent);
        *recent = hd_net_realloc(NULL, sizeof(**recent));
        **recent = (hd_local_t){.refs = 1, .addr = *local};
    }
    (*recent)->refs++;
    c->_local = *recent;
}

static void flush_conns(hd_loop_t *loop)
{
    hd_conn_set_t *set = loop->conns;
    hd_conn_t *c;

    while ((c = set->first_out) != NULL) {
        set->first_out = c->_next;
        if (set->first_out == NULL)
            set->last_out = NULL;
        c->_next = NULL;
        c->_flags &= (uint16_t)~HD_CF_LISTED;
        hd_conn_flush(c);
        if (c->state == HD_CONN_CLOSING)
            hd_conn_step_closing(c);
    }
}

static void reap_conns(hd_loop_t *loop)
{
    hd_conn_set_t *set = loop->conns;

    while (!hd_list_is_empty(&set->dead)) {
        hd_conn_t *c = hd_list_entry(set->dead.next, hd_conn_t, _wake._link);

        if ((c->_flags & HD_CF_LISTED) != 0)
            flush_conns(loop); /* takes it off that list; closed ones do nothing */
        hd_list_remove(&c->_wake._link);
        if ((c->_flags & HD_CF_CLIENT) != 0)
            hd_clients_leave(HD_CLIENTS_ACTIVE);
        if (c->pool != NULL)
            hd_pool_destroy(c->pool);
        c->pool = NULL;
        release_local(c->_local);
        c->_local = NULL;
        c->_next = set->free;
        set->free = c;
        hide(c);
    }
}

void hd_conns_each(hd_loop_t *loop, void (*look)(hd_conn_t *c, void *arg), void *arg)
{
    slab_t *slab = loop->conns != NULL ? loop->conns->slabs : NULL;

    for (; slab != NULL; slab = slab->next) {
        for (size_t i = 0; i < CELLS_A_SLAB; i++) {
            hd_conn_t *c = &slab->cells[i].conn;

            hd_asan_unpoison(&c->state, sizeof(c->state));
            if (c->state != HD_CONN_CLOSED)
                look(c, arg);
        }
    }
}

/* --- places taken back from who idles --- */

typedef struct {
    hd_conn_t *conn;
    uint64_t since_ns;
} idle_conn_t;

typedef struct {
    idle_conn_t oldest[HD_CONNS_REUSE_MAX]; /* oldest first */
    size_t n, idle_n;
} idle_conns_t;

/* 0: it doesn't idle. One that has said all and drops what the client still sends is as
 * good as idle. */
static uint64_t idle_since(const hd_conn_t *c)
{
    if (c->state == HD_CONN_CLOSING)
        return (c->_flags & HD_CF_DRAINING) != 0 ? c->opened_ns : 0;
    if (c->state == HD_CONN_CLOSED || c->handler == NULL ||
        c->handler->idle_since == NULL || c->is_readable ||
        !hd_chain_is_empty(&c->out))
        return 0;
    if (c->bytes_in == 0 && hd_loop_now_ns(c->loop) - c->opened_ns < NEW_NS)
        return 0;
    return c->handler->idle_since(c);
}

static void note_idle(hd_conn_t *c, void *arg)
{
    idle_conns_t *idle = arg;
    uint64_t since_ns = idle_since(c);
    size_t at;

    if (since_ns == 0)
        return;
    idle->idle_n++;
    if (idle->n == HD_CONNS_REUSE_MAX &&
        since_ns >= idle->oldest[HD_CONNS_REUSE_MAX - 1].since_ns)
        return;
    at = idle->n < HD_CONNS_REUSE_MAX ? idle->n++ : HD_CONNS_REUSE_MAX - 1;
    for (; at > 0 && idle->oldest[at - 1].since_ns > since_ns; at--)
        idle->oldest[at] = idle->oldest[at - 1];
    idle->oldest[at] = (idle_conn_t){c, since_ns};
}

size_t hd_conns_reuse(hd_loop_t *loop, size_t most)
{
    idle_conns_t idle = {.n = 0};
    size_t n, ended = 0;

    hd_conns_each(loop, note_idle, &idle);
    n = hd_min(hd_max(idle.idle_n / 8, (size_t)1), hd_min(most, idle.n));
    for (size_t i = 0; i < n; i++) {
        hd_conn_t *c = idle.oldest[i].conn;

        if (idle_since(c) == 0) /* it went with one before it */
            continue;
        if (c->state == HD_CONN_CLOSING)
            hd_conn_reset(c);
        else if (hd_conn_look(c) != HD_AGAIN) /* else it speaks, and wasn't heard yet */
            c->handler->on_reuse(c);
        else
            continue;
        ended++;
    }
    return ended;
}

static void reset_one(hd_conn_t *c, void *arg)
{
    (void)arg;
    hd_conn_reset(c);
}

static void destroy_conns(hd_loop_t *loop)
{
    hd_conn_set_t *set = loop->conns;
    slab_t *slab;

    hd_conns_each(loop, reset_one, NULL);
    reap_conns(loop);
    for (size_t i = 0; i < LOCALS_N; i++)
        release_local(set->locals[i]);
    while ((slab = set->slabs) != NULL) {
        set->slabs = slab->next;
        hd_asan_unpoison(slab, sizeof(*slab));
        free(slab);
    }
    free(set);
    loop->conns = NULL;
}

static hd_conn_set_t *make_set(hd_loop_t *loop)
{
    hd_conn_set_t *set = hd_net_realloc(NULL, sizeof(*set));

    *set = (hd_conn_set_t){.slabs = NULL};
    hd_list_init(&set->dead);
    loop->conns = set;
    loop->flush_conns = flush_conns;
    loop->reap_conns = reap_conns;
    loop->destroy_conns = destroy_conns;
    return set;
}

hd_conn_t *hd_conn_set_take(hd_loop_t *loop)
{
    hd_conn_set_t *set = loop->conns != NULL ? loop->conns : make_set(loop);
    hd_conn_t *c;

    if (set->free == NULL)
        add_slab(set);
    c = set->free;
    set->free = c->_next;
    show(c);
    memset(c, 0, sizeof(hd_conn_cell_t));
    c->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    c->loop = loop;
    c->opened_ns = hd_loop_now_ns(loop);
    c->_high_kb = HIGH_KB;
    c->_low_kb = LOW_KB;
    set->open++;
    return c;
}

void hd_conn_set_give(hd_conn_t *c)
{
    hd_conn_set_t *set = c->loop->conns;

    hd_post_cancel(&c->_wake);
    hd_list_add_last(&set->dead, &c->_wake._link);
    set->open--;
}

void hd_conn_set_list(hd_conn_t *c)
{
    hd_conn_set_t *set = c->loop->conns;

    if ((c->_flags & HD_CF_LISTED) != 0)
        return;
    c->_flags |= HD_CF_LISTED;
    c->_next = NULL;
    if (set->last_out != NULL)
        set->last_out->_next = c;
    else
        set->first_out = c;
    set->last_out = c;
    c->loop->has_output = true;
}

size_t hd_conns_open(const hd_loop_t *loop)
{
    return loop->conns != NULL ? loop->conns->open : 0;
}
