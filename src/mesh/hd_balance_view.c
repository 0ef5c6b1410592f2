/* A worker's view of a cluster's endpoints: versions, health, lists.
 *
 * Of a cluster that a worker has used stays a head, the cluster's companion; the view is
 * one of versions: it goes with them, and when nobody asks for it in a while, and is made
 * anew at need. Where all endpoints are well and of one priority, as they mostly are, it
 * has no other memory, and its lists neither: each is the whole. */
#include "core/os/hd_clock.h"
#include "mesh/hd_balance_int.h"
#include "core/net/hd_sticky.h"
#include "mesh/hd_check.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define UNUSED_NS UINT64_C(10000000000) /* then a view is let go */

static const hd_mesh_cluster_t plain_conf = {.bias = 1};

typedef struct hd_lb_head_s {
    hd_lb_view_t *view; /* NULL: not asked for lately */
    uint32_t choices;   /* made by views before it, so that it goes on behind them */
} head_t;

/* Heads found lately, by their slot. */
typedef struct {
    const hd_member_t *m;
    const hd_slot_t *slot;
    head_t *head;
} found_t;

#define FOUND_N 32

static _Thread_local hd_link_t views; /* by use, the latest in front */
static _Thread_local found_t lately[FOUND_N];

static void *create_head(hd_member_t *m, const void *owner, const void *arg,
                         hd_err_t *err)
{
    head_t *h = calloc(1, sizeof(*h));

    (void)m, (void)owner, (void)arg, (void)err;
    hd_bug_on(h == NULL);
    return h;
}

static void destroy_view(hd_lb_view_t *v)
{
    v->head->view = NULL;
    v->head->choices = v->whole.choices;
    hd_list_remove(&v->used);
    if (v->pool != NULL)
        hd_pool_destroy(v->pool);
    if (v->lists != NULL)
        hd_pool_destroy(v->lists);
    free(v);
}

static void destroy_head(hd_member_t *m, void *companion)
{
    head_t *h = companion;

    (void)m;
    for (uint32_t i = 0; i < FOUND_N; i++) {
        if (lately[i].head == h)
            lately[i] = (found_t){0};
    }
    if (h->view != NULL)
        destroy_view(h->view);
    free(h);
}

static const hd_companion_type_t head_type = {
    .name = "endpoints view", .create = create_head, .destroy = destroy_head};

static head_t *head_of(hd_member_t *m, const hd_slot_t *slot, hd_err_t *err)
{
    found_t *f = &lately[((uintptr_t)slot >> 5) % FOUND_N];

    if (f->slot == slot && f->m == m)
        return f->head;
    *f = (found_t){m, slot, hd_companion_of_slot(m, &head_type, slot, NULL, err)};
    return f->head;
}

/* <v> is in use; of those that aren't one goes each time. */
static void keep_in_use(hd_lb_view_t *v, uint64_t now_ns)
{
    hd_lb_view_t *last = hd_list_entry(views.prev, hd_lb_view_t, used);

    v->used_ns = now_ns;
    if (views.next != &v->used) {
        hd_list_remove(&v->used);
        hd_list_add_first(&views, &v->used);
    }
    if (last != v && now_ns > last->used_ns + UNUSED_NS)
        destroy_view(last);
}

hd_pool_t *hd_lb_pool(hd_lb_view_t *v)
{
    if (v->pool == NULL)
        v->pool = hd_pool_create(0);
    return v->pool;
}

hd_lb_more_t *hd_lb_more(hd_lb_view_t *v)
{
    if (v->more == NULL)
        v->more = hd_pool_new(hd_lb_pool(v), hd_lb_more_t);
    return v->more;
}

hd_pool_t *hd_lb_lists_pool(hd_lb_view_t *v)
{
    if (v->lists == NULL)
        v->lists = hd_pool_create(0);
    return v->lists;
}

/* 0, 1, 2, ...: at least <n> numbers, for all views of the thread. */
static const uint32_t *count_to(uint32_t n)
{
    static _Thread_local uint32_t *runs[32]; /* of 64, 128, ... */
    uint32_t room = 64, which = 0;

    while (room < n) {
        room *= 2;
        which++;
    }
    if (runs[which] != NULL)
        return runs[which];
    runs[which] = malloc(room * sizeof(*runs[which]));
    hd_bug_on(runs[which] == NULL);
    for (uint32_t i = 0; i < room; i++)
        runs[which][i] = i;
    return runs[which];
}

uint64_t hd_lb_random(hd_lb_view_t *v)
{
    v->random ^= v->random << 13;
    v->random ^= v->random >> 7;
    v->random ^= v->random << 17;
    return v->random * 0x2545f4914f6cdd1du >> 1;
}

/* --- labels --- */

static bool has_labels(const hd_kv_t *have, uint32_t have_n, const hd_kv_t *want,
                       uint32_t want_n)
{
    for (uint32_t w = 0; w < want_n; w++) {
        uint32_t h = 0;

        while (h < have_n && !(hd_str_eq(have[h].key, want[w].key) &&
                               hd_str_eq(have[h].value, want[w].value)))
            h++;
        if (h == have_n)
            return false;
    }
    return true;
}

const hd_transport_match_t *hd_lb_transport(const hd_cluster_t *c, const hd_endpoint_t *e)
{
    const hd_kv_t *have = e != NULL ? hd_endpoint_more(e)->transport_match : NULL;
    uint32_t have_n = e != NULL ? hd_endpoint_more(e)->transport_match_n : 0;

    for (uint32_t i = 0; i < c->transports_n; i++) {
        const hd_transport_match_t *t = &c->transports[i];

        if (has_labels(have, have_n, t->match, t->match_n))
            return t;
    }
    return NULL;
}

/* Its transport is one that we can't speak: it isn't reached by another one. */
static bool is_out(const hd_cluster_t *c, const hd_endpoint_t *e)
{
    const hd_transport_match_t *t = c->transports_n > 0 ? hd_lb_transport(c, e) : NULL;

    return e->down || (t != NULL && t->is_unsupported);
}

/* --- lists --- */

static bool hashes_over_all(const hd_lb_view_t *v)
{
    return v->cluster->lb == HD_LB_KEY_HASH || v->cluster->lb == HD_LB_IP_HASH;
}

static bool belongs(const hd_lb_view_t *v, hd_lb_which_t which, uint32_t at)
{
    switch (which) {
    case HD_LB_HEALTHY:
        return v->health[at] == HD_EP_HEALTHY;
    case HD_LB_DEGRADED:
        return v->health[at] == HD_EP_DEGRADED;
    default: /* in panic nobody is too ill, nor draining (Envoy); nginx's places by
              * remainder stay when a server is down */
        return hashes_over_all(v) || v->health[at] != HD_LB_OUT;
    }
}

void hd_lb_fill_list(hd_lb_view_t *v, const hd_lb_group_t *g, const uint32_t *at,
                     uint32_t n, hd_lb_which_t which, hd_lb_list_t *list, uint64_t now_ns)
{
    uint32_t found = 0, *own;

    *list = (hd_lb_list_t){.at = at};
    for (uint32_t i = 0; i < n; i++)
        list->n += belongs(v, which, at[i]);
    if (list->n > 0 && list->n < n) {
        list->at = own = hd_pool_alloc(hd_lb_lists_pool(v), list->n * sizeof(*own));
        for (uint32_t i = 0; i < n; i++) {
            if (belongs(v, which, at[i]))
                own[found++] = at[i];
        }
    }
    hd_lb_list_prepare(v, list, v->start + g->choices, now_ns);
}

/* Of a subset: so much of its locality's weight as it has of its endpoints. */
static double scaled_weight(const hd_lb_view_t *v, const hd_lb_group_t *g, uint32_t rank,
                            uint32_t locality, uint32_t total)
{
    double weight = v->eps->localities[locality].weight;
    uint32_t all = 0;

    if (g == &v->whole || !v->conf->subsets->scales_localities)
        return weight;
    for (uint32_t i = 0; i < v->eps->n; i++) {
        all += v->eps->items[i].locality == locality && v->health[i] != HD_LB_OUT &&
               hd_endpoint_rank(&v->eps->items[i]) == rank;
    }
    return all > 0 ? round(weight * total / all) : 0;
}

/* Envoy's effective weight of a locality: less when few of its endpoints serve. */
static double locality_weight(const hd_lb_view_t *v, double weight, uint32_t serve,
                              uint32_t total)
{
    double share =
        total == 0 ? 0 : v->eps->overprovisioning_factor / 100.0 * serve / total;

    return weight * hd_min(share, 1.0);
}

static void fill_localities(hd_lb_view_t *v, const hd_lb_group_t *g, uint32_t rank,
                            hd_lb_localities_t *by, const uint32_t *at, uint32_t n,
                            hd_lb_which_t which, uint64_t now_ns)
{
    hd_pool_t *pool = hd_lb_lists_pool(v);
    uint32_t room = v->eps->localities_n, *rest = hd_pool_alloc(pool, n * sizeof(*rest));
    uint32_t *totals = hd_pool_calloc(pool, (room + 1) * sizeof(*totals));

    by->lists = hd_pool_new_n(pool, hd_lb_list_t, room + 1);
    by->weights = hd_pool_new_n(pool, double, room + 1);
    hd_edf_init(&by->turns, pool, room);
    for (uint32_t i = 0; i < n; i++)
        totals[v->eps->items[at[i]].locality] += v->health[at[i]] != HD_LB_OUT;
    for (uint32_t l = 0; l < room; l++) {
        uint32_t *part = rest, part_n = 0; /* a list may keep it: the next is behind it */
        hd_lb_list_t *list = &by->lists[l];
        double weight;

        if (totals[l] == 0 || v->eps->localities[l].weight == 0)
            continue;
        for (uint32_t i = 0; i < n; i++) {
            if (v->eps->items[at[i]].locality == l)
                part[part_n++] = at[i];
        }
        rest += part_n;
        hd_lb_fill_list(v, g, part, part_n, which, list, now_ns);
        weight = locality_weight(v, scaled_weight(v, g, rank, l, totals[l]), list->n,
                                 totals[l]);
        by->weights[l] = weight;
        if (list->n > 0 && weight > 0)
            hd_edf_add(&by->turns, l, weight);
    }
}

static void count_health(const hd_lb_view_t *v, const uint32_t *at, uint32_t n,
                         hd_priority_t *p)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t one = v->eps->weighted_priority_health ? v->eps->items[at[i]].weight : 1;

        p->total += v->health[at[i]] != HD_LB_OUT ? one : 0;
        p->healthy += v->health[at[i]] == HD_EP_HEALTHY ? one : 0;
        p->degraded += v->health[at[i]] == HD_EP_DEGRADED ? one : 0;
    }
}

/* The table that came with the endpoints; else one of our own, made once a version. */
static const hd_table_t *table_for(hd_lb_view_t *v, const hd_lb_group_t *g, uint32_t rank,
                                   const uint32_t *at, uint32_t n)
{
    hd_table_t *own;

    if (v->conf->table.kind == HD_TABLE_NONE)
        return NULL;
    for (uint32_t i = 0; g == &v->whole && i < v->eps->tables_n; i++) {
        if (v->eps->tables[i].priority == rank &&
            hd_table_spec_eq(&v->eps->tables[i].spec, &v->conf->table))
            return &v->eps->tables[i];
    }
    for (uint32_t i = 0; i < g->levels_n; i++) {
        if (g->levels[i].rank == rank && g->levels[i].table != NULL)
            return g->levels[i].table;
    }
    own = hd_pool_new(hd_lb_pool(v), hd_table_t);
    hd_table_build(own, &v->conf->table, v->eps, at, n, v->pool);
    return own;
}

static void fill_level(hd_lb_view_t *v, const hd_lb_group_t *g, hd_lb_level_t *level,
                       hd_priority_t *priority, const uint32_t *at, uint32_t n,
                       uint64_t now_ns)
{
    const hd_table_t *table = table_for(v, g, level->rank, at, n);

    *level = (hd_lb_level_t){.rank = level->rank, .table = table};
    *priority = (hd_priority_t){0};
    count_health(v, at, n, priority);
    if (v->conf->locality_weighted &&
        (g == &v->whole || v->conf->subsets->locality_aware))
        level->localities =
            hd_pool_new_n(hd_lb_lists_pool(v), hd_lb_localities_t, HD_LB_ALL);
    for (int which = 0; which < HD_LB_LISTS_N; which++) {
        hd_lb_fill_list(v, g, at, n, which, &level->lists[which], now_ns);
        if (level->localities != NULL && which < HD_LB_ALL)
            fill_localities(v, g, level->rank, &level->localities[which], at, n, which,
                            now_ns);
    }
    if (v->conf->zones != NULL)
        hd_lb_zones_fill(v, g, level, at, n, now_ns);
}

static uint32_t find_ranks(const hd_lb_view_t *v, hd_lb_group_t *g)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->members_n; i++) {
        uint32_t rank = hd_endpoint_rank(&v->eps->items[g->members[i]]), at = 0;

        while (at < n && g->levels[at].rank < rank)
            at++;
        if (at < n && g->levels[at].rank == rank)
            continue;
        memmove(&g->levels[at + 1], &g->levels[at], (n - at) * sizeof(*g->levels));
        g->levels[at] = (hd_lb_level_t){.rank = rank};
        n++;
    }
    return n;
}

/* The members of that rank; mostly all. */
static const uint32_t *find_ranked(hd_lb_view_t *v, const hd_lb_group_t *g, uint32_t rank,
                                   uint32_t *n)
{
    uint32_t *at;

    *n = g->members_n;
    if (g->levels_n == 1)
        return g->members;
    at = hd_pool_alloc(hd_lb_lists_pool(v), g->members_n * sizeof(*at));
    *n = 0;
    for (uint32_t i = 0; i < g->members_n; i++) {
        if (hd_endpoint_rank(&v->eps->items[g->members[i]]) == rank)
            at[(*n)++] = g->members[i];
    }
    return at;
}

/* The ranks are found once a version, what is in them at each change of health. */
static void fill_group(hd_lb_view_t *v, hd_lb_group_t *g, uint64_t now_ns)
{
    if (g->levels == NULL) {
        hd_lb_level_t room[HD_LB_RANKS_MAX];

        g->levels = room;
        g->levels_n = find_ranks(v, g);
        g->levels = &v->level;
        g->priorities = &v->priority;
        if (g != &v->whole || g->levels_n > 1) {
            g->levels = hd_pool_alloc(hd_lb_pool(v), g->levels_n * sizeof(*g->levels));
            g->priorities = hd_pool_new_n(v->pool, hd_priority_t, g->levels_n);
        }
        memcpy(g->levels, room, g->levels_n * sizeof(*g->levels));
    }
    for (uint32_t l = 0; l < g->levels_n; l++) {
        uint32_t n;
        const uint32_t *at = find_ranked(v, g, g->levels[l].rank, &n);

        fill_level(v, g, &g->levels[l], &g->priorities[l], at, n, now_ns);
    }
    hd_priorities_set_loads(g->priorities, g->levels_n, v->eps->overprovisioning_factor,
                            v->cluster->panic_percent);
}

/* --- when it is old --- */

static uint32_t read_seq(const hd_endpoints_t *eps)
{
    return eps->state != NULL
               ? atomic_load_explicit(&eps->state->health_seq, memory_order_acquire)
               : 0;
}

static uint8_t health_of(hd_lb_view_t *v, const hd_endpoint_t *e, uint64_t now_ns)
{
    hd_endpoint_health_t health = hd_endpoint_health(e, now_ns, &v->old_at_ns);

    return health != HD_EP_DRAINING && !hd_check_may_serve(v->cluster, e)
               ? HD_EP_UNHEALTHY
               : health;
}

static void refresh(hd_lb_view_t *v, uint64_t now_ns)
{
    v->health_seq = read_seq(v->eps); /* before the look: a change meanwhile isn't lost */
    v->old_at_ns = UINT64_MAX;
    if (v->lists != NULL)
        hd_pool_reset(v->lists);
    for (uint32_t i = 0; i < v->eps->n; i++) {
        if (v->health[i] != HD_LB_OUT)
            v->health[i] = health_of(v, &v->eps->items[i], now_ns);
    }
    fill_group(v, &v->whole, now_ns);
    for (hd_lb_subset_t *s = v->more != NULL ? v->more->subsets : NULL; s != NULL;
         s = s->next)
        fill_group(v, &s->group, now_ns);
}

static hd_lb_view_t *create_view(hd_member_t *m, head_t *h, const hd_pick_t *p,
                                 uint64_t now_ns)
{
    const hd_endpoints_t *eps = p->endpoints_region->root;
    hd_lb_view_t *v = calloc(1, sizeof(*v) + eps->n);

    hd_bug_on(v == NULL);
    v->head = h;
    h->view = v;
    v->random = now_ns ^ (uintptr_t)h ^ (uint64_t)hd_member_index(m) << 32;
    v->random |= 1;
    /* worker n starts at the n-th endpoint, or all of them would send their first
     * requests to the same one */
    v->start = (uint32_t)hd_member_index(m);
    v->cluster_region = p->cluster_region;
    v->cluster_version = p->cluster_region->version;
    v->endpoints_region = p->endpoints_region;
    v->endpoints_version = p->endpoints_region->version;
    v->cluster = p->cluster;
    v->conf = v->cluster->mesh != NULL ? v->cluster->mesh : &plain_conf;
    v->eps = eps;
    v->whole = (hd_lb_group_t){
        .members = count_to(eps->n), .members_n = eps->n, .choices = h->choices};
    for (uint32_t i = 0; i < eps->n; i++)
        v->health[i] = is_out(v->cluster, &eps->items[i]) ? HD_LB_OUT : 0;
    if (views.next == NULL)
        hd_list_init(&views);
    hd_list_add_first(&views, &v->used);
    return v;
}

static bool is_of(const hd_lb_view_t *v, const hd_pick_t *p)
{
    return v->cluster_region == p->cluster_region &&
           v->cluster_version == p->cluster_region->version &&
           v->endpoints_region == p->endpoints_region &&
           v->endpoints_version == p->endpoints_region->version;
}

static uint64_t route_of(const hd_endpoint_t *e)
{
    hd_str_t route = hd_endpoint_more(e)->route;
    char text[HD_ADDR_TEXT_MAX];

    return hd_sticky_hash(route.len > 0 ? route : hd_addr_print(&e->addr, text));
}

static hd_lb_routes_t *index_routes(hd_lb_view_t *v)
{
    uint32_t room = 4;
    hd_lb_routes_t *routes;

    while (room < v->eps->n * 2)
        room *= 2;
    routes = hd_pool_calloc(hd_lb_pool(v), sizeof(*routes) + room * sizeof(*routes->at));
    routes->mask = room - 1;
    for (uint32_t i = 0; i < v->eps->n; i++) {
        uint32_t at = (uint32_t)route_of(&v->eps->items[i]);

        while (routes->at[at & routes->mask] != 0)
            at++;
        routes->at[at & routes->mask] = i + 1;
    }
    return routes;
}

uint32_t hd_lb_find_route(hd_lb_view_t *v, uint64_t route)
{
    hd_lb_more_t *more = hd_lb_more(v);
    uint32_t at = (uint32_t)route, found;

    if (more->routes == NULL)
        more->routes = index_routes(v);
    while ((found = more->routes->at[at++ & more->routes->mask]) != 0) {
        v->steps++;
        if (route_of(&v->eps->items[found - 1]) == route)
            return found - 1;
    }
    return HD_LB_NOBODY;
}

hd_lb_view_t *hd_lb_view(hd_member_t *m, const hd_pick_t *p, uint64_t now_ns,
                         hd_err_t *err)
{
    head_t *h = head_of(m, p->cluster_slot, err);
    hd_lb_view_t *v;
    bool is_old;

    if (h == NULL)
        return NULL;
    if (h->view != NULL && !is_of(h->view, p))
        destroy_view(h->view);
    is_old = h->view == NULL;
    v = is_old ? create_view(m, h, p, now_ns) : h->view;
    keep_in_use(v, now_ns);
    if (hd_unlikely(v->conf->zones != NULL))
        is_old |= hd_lb_zones_look(m, v);
    if (is_old || now_ns >= v->old_at_ns || v->health_seq != read_seq(v->eps))
        refresh(v, now_ns);
    v->steps = 0;
    return v;
}

hd_lb_group_t *hd_lb_group(hd_lb_view_t *v, const hd_kv_t *labels, uint32_t n,
                           uint64_t now_ns)
{
    hd_lb_subset_t **at, *s;
    uint32_t *members;
    hd_pool_t *pool;
    hd_kv_t *copy;

    if (n == 0)
        return &v->whole;
    for (at = &hd_lb_more(v)->subsets; (s = *at) != NULL; at = &s->next) {
        v->steps++;
        if (s->labels_n == n && has_labels(s->labels, n, labels, n))
            return s->group.members_n > 0 ? &s->group : NULL;
    }
    pool = hd_lb_pool(v);
    *at = s = hd_pool_new(pool, hd_lb_subset_t);
    copy = hd_pool_alloc(pool, n * sizeof(*copy));
    for (uint32_t i = 0; i < n; i++)
        copy[i] =
            (hd_kv_t){hd_str_dup(pool, labels[i].key), hd_str_dup(pool, labels[i].value)};
    s->labels = copy;
    s->labels_n = n;
    s->group.members = members = hd_pool_alloc(pool, v->eps->n * sizeof(*members));
    for (uint32_t i = 0; i < v->eps->n; i++) {
        const hd_endpoint_more_t *more = hd_endpoint_more(&v->eps->items[i]);

        if (has_labels(more->labels, more->labels_n, labels, n))
            members[s->group.members_n++] = i;
    }
    fill_group(v, &s->group, now_ns);
    return s->group.members_n > 0 ? &s->group : NULL;
}
