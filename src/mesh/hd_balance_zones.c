/* Zone-aware routing (Envoy's "Zone aware routing"): as much as possible stays in our own
 * locality, while each endpoint of the upstream gets about its share. What share of the
 * requests begins in which locality is told by the cluster that we belong to: its healthy
 * endpoints stand for proxies like this one. */
#include "mesh/hd_balance_int.h"
#include "mesh/hd_check.h"

#include <stdatomic.h>

#define ALL 10000u /* shares are parts of it */
#define LOCALITIES_MAX 64

/* A place, and how much of both clusters is in it. */
typedef struct {
    const hd_locality_t *at;
    uint64_t ours, theirs; /* healthy ones, or their weights */
} place_t;

static bool is_same(const hd_locality_t *a, const hd_locality_t *b)
{
    return hd_str_eq(a->region, b->region) && hd_str_eq(a->zone, b->zone) &&
           hd_str_eq(a->subzone, b->subzone);
}

static bool is_own(const hd_zones_t *zones, const hd_locality_t *l)
{
    return hd_str_eq(l->region, zones->region) && hd_str_eq(l->zone, zones->zone) &&
           hd_str_eq(l->subzone, zones->subzone);
}

bool hd_lb_zones_look(hd_member_t *m, hd_lb_view_t *v)
{
    const hd_region_t *r = hd_slot_get(m, v->conf->zones->local);
    const hd_region_t *eps;
    hd_lb_local_t now = {.cluster = r != NULL ? r->root : NULL}, *before;
    bool is_new;

    eps = now.cluster != NULL ? hd_cluster_endpoints(m, now.cluster) : NULL;
    if (eps != NULL) {
        now.eps = eps->root;
        now.region = eps;
        now.version = eps->version;
        if (now.eps->state != NULL)
            now.seq =
                atomic_load_explicit(&now.eps->state->health_seq, memory_order_acquire);
    }
    before = &hd_lb_more(v)->local;
    is_new = before->region != now.region || before->seq != now.seq ||
             before->version != now.version;
    *before = now;
    return is_new;
}

/* --- the cluster that we belong to --- */

typedef struct {
    uint32_t total, healthy, serving; /* of the first priority */
    uint32_t localities;              /* that have endpoints */
    bool has_own;                     /* ours has */
    uint64_t amount;                  /* of the healthy ones */
} local_t;

static uint64_t amount_of(const hd_zones_t *zones, const hd_endpoint_t *e)
{
    return zones->by_weight ? e->weight : 1;
}

static place_t *find_place(place_t *places, uint32_t n, const hd_locality_t *l)
{
    for (uint32_t i = 0; i < n; i++) {
        if (is_same(places[i].at, l))
            return &places[i];
    }
    return NULL;
}

static local_t count_local(hd_lb_view_t *v, place_t *places, uint32_t n, uint64_t now_ns)
{
    const hd_endpoints_t *eps = v->more->local.eps;
    const hd_zones_t *zones = v->conf->zones;
    const hd_locality_t *seen[2] = {NULL, NULL};
    local_t sum = {0};

    for (uint32_t i = 0; i < eps->n; i++) {
        const hd_endpoint_t *e = &eps->items[i];
        const hd_locality_t *l = &eps->localities[e->locality];
        hd_endpoint_health_t health = hd_endpoint_health(e, now_ns, &v->old_at_ns);
        place_t *place;

        if (e->priority > 0 || e->down)
            continue;
        sum.total++;
        sum.has_own |= is_own(zones, l);
        if (sum.localities < 2 && (seen[0] == NULL || !is_same(seen[0], l)))
            seen[sum.localities++] = l;
        if (!hd_check_may_serve(v->more->local.cluster, e))
            continue;
        sum.serving += health == HD_EP_HEALTHY || health == HD_EP_DEGRADED;
        if (health != HD_EP_HEALTHY)
            continue;
        sum.healthy++;
        sum.amount += amount_of(zones, e);
        place = find_place(places, n, l);
        if (place != NULL)
            place->ours += amount_of(zones, e);
    }
    return sum;
}

/* In panic nobody knows who is there. */
static bool is_usable(const hd_lb_view_t *v, const local_t *sum)
{
    return sum->localities >= 2 && sum->has_own &&
           100.0 * sum->serving / sum->total >= v->cluster->panic_percent;
}

/* --- who gets what --- */

static void share_out(const hd_lb_view_t *v, hd_lb_zones_t *z, const place_t *places,
                      uint64_t ours_all, uint64_t theirs_all, uint32_t own_healthy)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < z->n; i++) {
        uint64_t ours = ours_all > 0 ? ALL * places[i].ours / ours_all : 0;
        uint64_t theirs = theirs_all > 0 ? ALL * places[i].theirs / theirs_all : 0;

        if (i == z->own) {
            z->is_direct = theirs > 0 && theirs >= ours;
            z->own_share = ours > 0 ? (uint32_t)(theirs * ALL / ours) : 0;
        } else if (theirs > ours) {
            sum += theirs - ours;
        }
        z->residual[i] = sum;
    }
    if (v->conf->zones->force_min > 0 && own_healthy >= v->conf->zones->force_min)
        z->is_direct = true;
}

static void fill_lists(hd_lb_view_t *v, const hd_lb_group_t *g, hd_lb_zones_t *z,
                       const place_t *places, const uint32_t *at, uint32_t n,
                       uint64_t now_ns)
{
    hd_pool_t *pool = hd_lb_lists_pool(v);

    for (int which = 0; which < HD_LB_ALL; which++) {
        uint32_t *rest = hd_pool_alloc(pool, n * sizeof(*rest));

        z->lists[which] = hd_pool_new_n(pool, hd_lb_list_t, z->n);
        for (uint32_t p = 0; p < z->n; p++) {
            uint32_t *part = rest, part_n = 0; /* a list may keep it */

            for (uint32_t i = 0; i < n; i++) {
                if (is_same(&v->eps->localities[v->eps->items[at[i]].locality],
                            places[p].at))
                    part[part_n++] = at[i];
            }
            rest += part_n;
            hd_lb_fill_list(v, g, part, part_n, which, &z->lists[which][p], now_ns);
        }
    }
}

void hd_lb_zones_fill(hd_lb_view_t *v, const hd_lb_group_t *g, hd_lb_level_t *level,
                      const uint32_t *at, uint32_t n, uint64_t now_ns)
{
    const hd_zones_t *zones = v->conf->zones;
    hd_lb_zones_t *z;
    place_t places[LOCALITIES_MAX];
    uint32_t places_n = 0, healthy = 0, own = UINT32_MAX, own_healthy = 0;
    uint64_t theirs = 0;
    local_t local;

    if (v->more->local.eps == NULL || v->more->local.eps->n == 0 || level->rank > 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        const hd_endpoint_t *e = &v->eps->items[at[i]];
        const hd_locality_t *l = &v->eps->localities[e->locality];
        place_t *place = find_place(places, places_n, l);

        if (v->health[at[i]] == HD_LB_OUT)
            continue;
        if (place == NULL) {
            if (places_n == LOCALITIES_MAX)
                return; /* so many zones: none of them is near */
            place = &places[places_n];
            *place = (place_t){.at = l};
            own = is_own(zones, l) ? places_n : own;
            places_n++;
        }
        if (v->health[at[i]] != HD_EP_HEALTHY)
            continue;
        healthy++;
        own_healthy += own != UINT32_MAX && place == &places[own];
        place->theirs += amount_of(zones, e);
        theirs += amount_of(zones, e);
    }
    if (places_n < 2 || healthy < zones->min_size)
        return;
    local = count_local(v, places, places_n, now_ns);
    if (!is_usable(v, &local))
        return;
    level->zones = z = hd_pool_new(hd_lb_lists_pool(v), hd_lb_zones_t);
    z->n = places_n;
    z->own = own;
    z->residual = hd_pool_calloc(hd_lb_lists_pool(v), places_n * sizeof(*z->residual));
    share_out(v, z, places, local.amount, theirs, own_healthy);
    fill_lists(v, g, z, places, at, n, now_ns);
}

static uint32_t choose_place(hd_lb_view_t *v, const hd_lb_zones_t *z)
{
    uint64_t number, most = z->residual[z->n - 1];
    uint32_t i = 0;

    if (z->is_direct || hd_lb_random(v) % ALL < z->own_share)
        return z->own;
    if (most == 0) /* by rounding: nowhere is room */
        return (uint32_t)(hd_lb_random(v) % z->n);
    number = hd_lb_random(v) % most;
    while (number >= z->residual[i])
        i++;
    return i;
}

hd_lb_list_t *hd_lb_zones_choose(hd_lb_view_t *v, hd_lb_level_t *level,
                                 hd_lb_which_t which)
{
    hd_lb_zones_t *z = level->zones;
    hd_lb_list_t *list;

    if (v->conf->zones->enabled < ALL && hd_lb_random(v) % ALL >= v->conf->zones->enabled)
        return &level->lists[which];
    list = &z->lists[which][choose_place(v, z)];
    return list->n > 0 ? list : &level->lists[which];
}
