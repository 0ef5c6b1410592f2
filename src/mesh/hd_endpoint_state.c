/* States of endpoints, in cells of the state arena: *runs* of them, in a list under their
 * cluster's name.
 *
 *   head (hd_endpoints_state_t) -> run -> run -> ...
 *                                   |      |
 *                                states  states, and their counts where somebody looks
 *
 * The first version of a cluster makes a run for all of its endpoints; later ones take
 * what is free in the runs that are there, and make more for the rest. Only the writer
 * follows the list: endpoints point to their states. Each of the two writers has heads of
 * its own, so that neither touches the other's list.
 *
 * A writer may die anywhere: a run that isn't in the list (yet, or any more) has no state
 * in use and goes with the next sweep.
 */
#include "mesh/hd_endpoint_state.h"

#include "core/base/hd_hashes.h"
#include "core/os/hd_clock.h"
#include "core/proc/hd_process.h"
#include "mesh/hd_outlier.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Of cells; the second writer's heads have the next number. */
#define HEAD_KIND 0x45504e53u   /* "EPNS" */
#define RUN_KIND 0x45504e52u    /* "EPNR" */
#define COUNTS_KIND 0x45504e43u /* "EPNC" */

#define RUN_MAX 64u /* states; their gauges are neighbours, and must be found */
#define NEW_MIN 256u
#define SWEEP_NS UINT64_C(60000000000)

typedef struct hd_endpoint_run_s {
    struct hd_endpoint_run_s *next;
    struct hd_endpoints_state_s *head;
    uint32_t number, n; /* <number> and the head's name are its own */
    hd_endpoint_state_t states[];
} run_t;

/* The writer's: states made since the last sweep, and left by it. */
static uint32_t made_n, left_n;
static uint64_t swept_ns;

/* --- names of cells and gauges: at most 24 bytes, which cost nothing --- */

typedef struct {
    char bytes[24];
} name_t;

static hd_str_t put_name(name_t *to, const uint64_t head[2], const void *more,
                         size_t len)
{
    memcpy(to->bytes, head, 16);
    memcpy(to->bytes + 16, more, len);
    return hd_str_n(to->bytes, 16 + len);
}

static hd_str_t run_name(name_t *to, const run_t *r)
{
    return put_name(to, r->head->name, &r->number, sizeof(r->number));
}

/* Conns are counted by themselves, and only where they are limited. */
static hd_str_t conns_name(name_t *to, const hd_endpoint_state_t *s)
{
    return put_name(to, s->all->name, &s->key, sizeof(s->key));
}

/* Tells addresses of one cluster apart; not 0. */
static uint64_t key_of(const hd_addr_t *addr)
{
    uint64_t seed = (uint64_t)addr->family << 16 | addr->port, key;

    switch (addr->family) {
    case AF_INET:
        key = hd_xxh64(addr->v4, sizeof(addr->v4), seed);
        break;
    case AF_INET6:
        key = hd_xxh64(addr->v6, sizeof(addr->v6), seed | (uint64_t)addr->scope << 32);
        break;
    case AF_UNIX:
        key = hd_xxh64(addr->path.data, addr->path.len, seed);
        break;
    default:
        key = seed;
    }
    return key != 0 ? key : 1;
}

/* --- runs --- */

/* Two hashes of a cluster's name are as good as it is: 128 bits. */
static hd_endpoints_state_t *head_of(hd_member_t *m, hd_str_t cluster)
{
    uint64_t hashes[2] = {hd_xxh64(cluster.data, cluster.len, 0),
                          hd_xxh64(cluster.data, cluster.len, 1)};
    hd_endpoints_state_t *head = hd_cell_get(
        m, HEAD_KIND + (uint32_t)hd_cell_part(m),
        hd_str_n((const char *)hashes, sizeof(hashes)), sizeof(hd_endpoints_state_t));

    if (head != NULL)
        memcpy(head->name, hashes, sizeof(hashes));
    return head;
}

static size_t run_bytes(uint32_t n)
{
    return sizeof(run_t) + n * sizeof(hd_endpoint_state_t);
}

/* Nobody finds it before it is in the list. */
static run_t *add_run(hd_member_t *m, hd_endpoints_state_t *head, uint32_t n)
{
    run_t like = {.next = head->runs, .head = head, .number = ++head->runs_n, .n = n};
    hd_gauge_id_t first;
    name_t name;
    run_t *r;

    r = hd_cell_get(m, RUN_KIND, run_name(&name, &like), run_bytes(n));
    if (r == NULL)
        return NULL;
    *r = like;
    first = hd_cell_gauges(m, RUN_KIND, run_name(&name, r), n);
    for (uint32_t i = 0; i < n; i++)
        r->states[i].requests = first != HD_GAUGE_NONE ? first + i : HD_GAUGE_NONE;
    atomic_signal_fence(memory_order_release);
    head->runs = r;
    return r;
}

/* Where nothing was counted before. */
static void add_counts(hd_member_t *m, run_t *r)
{
    hd_endpoint_counts_t *counts;
    name_t name;

    if (atomic_load_explicit(&r->states[0].counts, memory_order_relaxed) != NULL)
        return;
    counts = hd_cell_get(m, COUNTS_KIND, run_name(&name, r), r->n * sizeof(*counts));
    for (uint32_t i = r->n; counts != NULL && i-- > 0;)
        atomic_store_explicit(&r->states[i].counts, &counts[i], memory_order_release);
}

static void drop_run(hd_member_t *m, run_t *r)
{
    run_t **at = r->head != NULL ? &r->head->runs : NULL;
    name_t name;

    if (at == NULL)
        return; /* its writer died before it filled it */
    while (*at != NULL && *at != r)
        at = &(*at)->next;
    if (*at == r)
        *at = r->next;
    hd_cell_drop(m, COUNTS_KIND, run_name(&name, r));
}

void hd_endpoints_count(hd_member_t *m, hd_str_t cluster)
{
    hd_endpoints_state_t *head = m != NULL ? head_of(m, cluster) : NULL;

    if (head == NULL)
        return;
    head->is_counted = true;
    for (run_t *r = head->runs; r != NULL; r = r->next)
        add_counts(m, r);
}

/* --- who has which --- */

/* What is there of a cluster, while a version is built. */
typedef struct {
    hd_endpoint_state_t **by_key; /* mask + 1 places; NULL: free */
    uint32_t mask;
    hd_endpoint_state_t **spare; /* free states */
    uint32_t spare_n;
} known_t;

static hd_endpoint_state_t **place_of(const known_t *k, uint64_t key)
{
    uint32_t at = (uint32_t)(key >> 32);

    while (k->by_key[at & k->mask] != NULL && k->by_key[at & k->mask]->key != key)
        at++;
    return &k->by_key[at & k->mask];
}

static void gather(known_t *k, const hd_endpoints_state_t *head, uint32_t wanted_n)
{
    uint32_t n = 0, room = 16;

    for (const run_t *r = head->runs; r != NULL; r = r->next)
        n += r->n;
    while (room < (n + wanted_n) * 2)
        room *= 2;
    *k = (known_t){.by_key = calloc(room, sizeof(*k->by_key)),
                   .mask = room - 1,
                   .spare = calloc(n + wanted_n + 1, sizeof(*k->spare))};
    hd_bug_on(k->by_key == NULL || k->spare == NULL);
    for (run_t *r = head->runs; r != NULL; r = r->next) {
        for (uint32_t i = r->n; i-- > 0;) {
            if (r->states[i].key == 0)
                k->spare[k->spare_n++] = &r->states[i];
            else
                *place_of(k, r->states[i].key) = &r->states[i];
        }
    }
}

static void forget(known_t *k)
{
    free(k->by_key);
    free(k->spare);
}

/* How many of <eps> have no state yet. */
static uint32_t count_new(const known_t *k, const hd_endpoints_t *eps)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < eps->n; i++)
        n += *place_of(k, key_of(&eps->items[i].addr)) == NULL;
    return n;
}

/* Makes so many free states as are missing: fewer where there is no room. */
static void add_spare(hd_member_t *m, hd_endpoints_state_t *head, known_t *k,
                      uint32_t wanted_n)
{
    while (k->spare_n < wanted_n) {
        run_t *r = add_run(m, head, hd_min(wanted_n - k->spare_n, RUN_MAX));

        if (r == NULL)
            return;
        if (head->is_counted)
            add_counts(m, r);
        for (uint32_t i = r->n; i-- > 0;)
            k->spare[k->spare_n++] = &r->states[i];
    }
}

static hd_endpoint_state_t *take_state(known_t *k, hd_endpoints_state_t *head,
                                       const hd_addr_t *addr)
{
    uint64_t key = key_of(addr);
    hd_endpoint_state_t **at = place_of(k, key), *s = *at;

    if (s != NULL || k->spare_n == 0)
        return s;
    s = *at = k->spare[--k->spare_n];
    s->all = head;
    s->key = key;
    made_n++;
    return s;
}

/* <shared>: its count of requests is read on the request's way. */
static void set_gauges(hd_member_t *m, const hd_endpoint_t *e, bool shared)
{
    hd_endpoint_state_t *s = e->state;
    bool has_total = shared || e->max_conns > 0;
    name_t name;

    if (s->has_total != has_total) {
        s->has_total = has_total;
        hd_gauge_share(m, s->requests, has_total);
    }
    if (e->max_conns == 0)
        return;
    if (s->conns == HD_GAUGE_NONE)
        s->conns = hd_gauge_get(m, conns_name(&name, s), 1);
    hd_gauge_share(m, s->conns, true);
}

/* It is in the version being built; new if it wasn't in the one before. */
static void see(hd_endpoint_state_t *s, uint64_t now_ns)
{
    uint32_t version = s->all->versions_n;

    if (s->seen == 0 || (s->seen != version && s->seen + 1 != version))
        atomic_store_explicit(&s->warm_since_ns, now_ns, memory_order_relaxed);
    s->seen = version;
}

void hd_endpoints_attach_state(hd_member_t *m, hd_str_t cluster, hd_endpoints_t *eps,
                               bool shared)
{
    hd_endpoints_state_t *head = head_of(m, cluster);
    uint64_t now_ns = hd_clock_mono_ns();
    known_t known;

    eps->state = head;
    if (head == NULL)
        return;
    head->versions_n++;
    gather(&known, head, eps->n);
    add_spare(m, head, &known, count_new(&known, eps));
    for (uint32_t i = 0; i < eps->n; i++) {
        hd_endpoint_t *e = (hd_endpoint_t *)&eps->items[i];

        e->state = take_state(&known, head, &e->addr);
        if (e->state == NULL)
            continue;
        see(e->state, now_ns);
        set_gauges(m, e, shared);
    }
    forget(&known);
}

/* --- the end ---
 *
 * Of states that are in no version any more: not in force, not kept by a request. To look
 * at all of them costs time, so there must be many new ones, or a while gone by. */

static void mark(const hd_region_t *r)
{
    const hd_endpoints_t *eps = r->root;

    if (eps->state != NULL)
        eps->state->is_marked = true;
    for (uint32_t i = 0; i < eps->n; i++)
        if (eps->items[i].state != NULL)
            eps->items[i].state->is_marked = true;
}

/* A conn that is counted outlasts its version: its pool knows the state. */
static bool is_used(hd_member_t *m, const hd_endpoint_state_t *s)
{
    return s->is_marked || hd_gauge_sum(hd_member_state(m), s->conns) != 0 ||
           hd_gauge_sum(hd_member_state(m), s->requests) != 0;
}

/* The counts first: whoever finds it free finds them as new. */
static void free_state(hd_member_t *m, hd_endpoint_state_t *s)
{
    hd_gauge_id_t requests = s->requests;
    hd_endpoint_counts_t *counts =
        atomic_load_explicit(&s->counts, memory_order_relaxed);
    name_t name;

    if (s->conns != HD_GAUGE_NONE)
        hd_gauge_drop(m, conns_name(&name, s));
    if (s->has_total)
        hd_gauge_share(m, requests, false);
    if (counts != NULL)
        memset(counts, 0, sizeof(*counts));
    memset(s, 0, sizeof(*s));
    s->requests = requests;
    atomic_store_explicit(&s->counts, counts, memory_order_relaxed);
}

static bool is_over(hd_member_t *m, hd_str_t name, void *cell)
{
    run_t *r = cell;
    uint32_t used_n = 0;

    (void)name;
    for (uint32_t i = 0; i < r->n; i++) {
        hd_endpoint_state_t *s = &r->states[i];

        if (s->key != 0 && is_used(m, s)) {
            s->is_marked = false;
            used_n++;
        } else if (s->key != 0) {
            free_state(m, s);
        }
    }
    left_n += used_n;
    if (used_n == 0)
        drop_run(m, r);
    return used_n == 0;
}

static bool are_over(hd_member_t *m, hd_str_t name, void *cell)
{
    hd_endpoints_state_t *head = cell;
    bool was_marked = head->is_marked;

    (void)m;
    (void)name;
    head->is_marked = false;
    return !was_marked && head->runs == NULL;
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
    made_n = left_n = 0;
    hd_ignore(hd_cells_drop_if(m, RUN_KIND, is_over) > 0);
    for (uint32_t part = 0; part < HD_ARENAS_MAX; part++)
        hd_ignore(hd_cells_drop_if(m, HEAD_KIND + part, are_over) > 0);
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
