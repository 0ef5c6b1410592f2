#include "mesh/hd_endpoint_state.h"

#include "core/base/hd_hashes.h"
#include "core/os/hd_clock.h"
#include "core/proc/hd_process.h"
#include "mesh/hd_outlier.h"

#include <stdatomic.h>
#include <string.h>

#define CELL_KIND 0x45504e54u /* "EPNT" */
#define ALL_KIND 0x45504e53u  /* "EPNS" */

#define NAME_MAX_BYTES 256
#define NEW_MIN 256u
#define SWEEP_NS UINT64_C(60000000000)

/* The writer's: cells made since the last sweep, and left by it. */
static uint32_t made_n, left_n;
static uint64_t swept_ns;

static char *put(char *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    return to + len;
}

/* Cluster and address in few bytes, 22 for IPv4: a cluster has tens of endpoints, and
 * each would repeat its name. Two hashes of it are as good: 128 bits. */
static hd_str_t cell_name(hd_str_t cluster, const hd_addr_t *addr,
                          char out[NAME_MAX_BYTES])
{
    uint64_t hashes[2] = {hd_xxh64(cluster.data, cluster.len, 0),
                          hd_xxh64(cluster.data, cluster.len, 1)};
    char *to = put(out, hashes, sizeof(hashes));

    to = put(to, &addr->port, sizeof(addr->port));
    if (addr->family == AF_INET)
        to = put(to, addr->v4, sizeof(addr->v4));
    else if (addr->family == AF_INET6)
        to = put(put(to, addr->v6, sizeof(addr->v6)), &addr->scope, sizeof(addr->scope));
    else if (addr->family == AF_UNIX)
        to = put(put(to, "unix:", 5), addr->path.data,
                 hd_min(addr->path.len, (size_t)(NAME_MAX_BYTES - 32)));
    return hd_str_n(out, (size_t)(to - out));
}

/* Conns are counted by themselves, and only where they are limited. */
static hd_str_t conns_name(hd_str_t name, char out[NAME_MAX_BYTES + 8])
{
    memcpy(out, "conns ", 6);
    memcpy(out + 6, name.data, name.len);
    return hd_str_n(out, name.len + 6);
}

void hd_endpoint_attach_state(hd_member_t *m, hd_str_t cluster, hd_endpoint_t *e,
                              bool shared)
{
    char room[NAME_MAX_BYTES];
    hd_str_t name = cell_name(cluster, &e->addr, room);

    e->state = hd_cell_get(m, CELL_KIND, name, sizeof(hd_endpoint_state_t));
    if (e->state == NULL)
        return;
    if (!hd_cell_is_own(m, e->state))
        atomic_store_explicit(&e->state->is_lent, true, memory_order_release);
    if (e->state->requests == HD_GAUGE_NONE)
        e->state->requests = hd_cell_gauges(m, CELL_KIND, name, 1);
    if (e->max_conns > 0 && e->state->conns == HD_GAUGE_NONE) {
        char conns[sizeof(room) + 8];

        e->state->conns = hd_gauge_get(m, conns_name(name, conns), 1);
    }
    if (e->state->has_total != (shared || e->max_conns > 0)) {
        e->state->has_total = !e->state->has_total;
        hd_gauge_share(m, e->state->requests, e->state->has_total);
    }
    if (e->max_conns > 0)
        hd_gauge_share(m, e->state->conns, true);
}

static uint64_t load_u64(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

void hd_endpoints_attach_state(hd_member_t *m, hd_str_t cluster, hd_endpoints_t *eps,
                               bool shared)
{
    uint64_t now_ns = hd_clock_mono_ns(), before_ns;

    eps->state = hd_cell_get(m, ALL_KIND, cluster, sizeof(*eps->state));
    before_ns = eps->state != NULL ? eps->state->built_ns : 0;
    if (eps->state != NULL)
        eps->state->built_ns = now_ns;
    if (eps->state != NULL && !hd_cell_is_own(m, eps->state))
        atomic_store_explicit(&eps->state->is_lent, true, memory_order_release);
    for (uint32_t i = 0; i < eps->n; i++) {
        hd_endpoint_t *e = (hd_endpoint_t *)&eps->items[i];
        uint64_t seen_ns;

        hd_endpoint_attach_state(m, cluster, e, shared);
        if (e->state == NULL)
            continue;
        if (e->state->all != eps->state)
            e->state->all = eps->state;
        seen_ns = load_u64(&e->state->seen_ns);
        made_n += seen_ns == 0;
        if (seen_ns == 0 || seen_ns < before_ns)
            atomic_store_explicit(&e->state->warm_since_ns, now_ns, memory_order_relaxed);
        atomic_store_explicit(&e->state->seen_ns, now_ns, memory_order_relaxed);
    }
}

/* Cells of endpoints that are in no version any more: not in force, not kept by a
 * request. To look at all of them costs time, so there must be many new ones, or a while
 * gone by. */

static void mark(const hd_region_t *r)
{
    const hd_endpoints_t *eps = r->root;

    if (eps->state != NULL)
        eps->state->is_marked = true;
    for (uint32_t i = 0; i < eps->n; i++)
        if (eps->items[i].state != NULL)
            eps->items[i].state->is_marked = true;
}

/* A conn that is counted outlasts its version: its pool knows the cell. */
static bool is_over(hd_member_t *m, hd_str_t name, void *cell)
{
    hd_endpoint_state_t *s = cell;
    char conns[NAME_MAX_BYTES + 8];

    if (s->is_marked || atomic_load_explicit(&s->is_lent, memory_order_acquire) ||
        hd_gauge_sum(hd_member_state(m), s->conns) != 0) {
        s->is_marked = false;
        return false;
    }
    if (s->conns != HD_GAUGE_NONE)
        hd_gauge_drop(m, conns_name(name, conns));
    return true;
}

static bool are_over(hd_member_t *m, hd_str_t name, void *cell)
{
    hd_endpoints_state_t *s = cell;
    bool was_marked = s->is_marked;

    (void)m;
    (void)name;
    s->is_marked = false;
    return !was_marked && !atomic_load_explicit(&s->is_lent, memory_order_acquire);
}

static bool mark_all(hd_member_t *m, hd_arena_t *a)
{
    if (!hd_arena_each_used(a, HD_RES_ENDPOINTS, mark))
        return false;
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        hd_arena_t *other = hd_proc.arenas[i];

        if (other != NULL && other != a && hd_arena_is_writer(other, m) &&
            !hd_arena_each_used(other, HD_RES_ENDPOINTS, mark))
            return false;
    }
    return true;
}

void hd_endpoint_states_sweep(hd_member_t *m, hd_arena_t *a)
{
    if (!mark_all(m, a))
        return; /* marks that are left keep theirs until the next time */
    swept_ns = hd_clock_mono_ns();
    made_n = 0;
    left_n = hd_cells_drop_if(m, CELL_KIND, is_over);
    hd_ignore(hd_cells_drop_if(m, ALL_KIND, are_over) > 0);
}

static void on_freed(hd_member_t *m, hd_arena_t *a, size_t n)
{
    (void)n;
    if (made_n >= hd_max(left_n / 2, NEW_MIN) ||
        hd_clock_mono_ns() - swept_ns >= SWEEP_NS)
        hd_endpoint_states_sweep(m, a);
}

void hd_endpoint_state_register(void)
{
    hd_arena_on_freed(on_freed);
}

bool hd_endpoint_is_full(hd_member_t *m, const hd_endpoint_t *e)
{
    return e->max_conns > 0 && e->state != NULL && e->state->requests != HD_GAUGE_NONE &&
           hd_gauge_read(m, e->state->requests) >= e->max_conns;
}

bool hd_endpoint_is_ejected(const hd_endpoint_t *e, uint64_t now_ns)
{
    uint64_t until_ns = UINT64_MAX;

    return !hd_outlier_may_serve(e, now_ns, &until_ns);
}

void hd_endpoint_health_changed(const hd_endpoint_t *e)
{
    /* release: who sees the new number sees what changed before it */
    if (e->state != NULL && e->state->all != NULL)
        atomic_fetch_add_explicit(&e->state->all->health_seq, 1, memory_order_release);
}

hd_endpoint_health_t hd_endpoint_health(const hd_endpoint_t *e, uint64_t now_ns,
                                        uint64_t *until_ns)
{
    if (e->health == 3)
        return HD_EP_DRAINING;
    if (e->health == 2 || e->health == 4 || !hd_outlier_may_serve(e, now_ns, until_ns))
        return HD_EP_UNHEALTHY;
    return e->health == 5 ? HD_EP_DEGRADED : HD_EP_HEALTHY;
}
