/* How an endpoint is chosen: the cluster's current version, its endpoints' current
 * version, the priority, the policy's choice among those of it that may serve. */
#include "mesh/hd_balance_int.h"
#include "core/base/hd_hashes.h"
#include "core/os/hd_clock.h"
#include "mesh/hd_balance.h"
#include "mesh/hd_check.h"
#include "mesh/hd_outlier.h"

#include <stdatomic.h>
#include <stdio.h>

#define HASH_LOOKS 64  /* places of a table looked at before it is given up */
#define NGINX_LOOKS 20 /* nginx's number of rehashes */

typedef struct {
    hd_member_t *m;
    hd_pick_t *p;
    hd_lb_view_t *v;
    hd_lb_group_t *g;
    uint64_t now_ns;
    bool counted; /* the chosen one's requests gauge is up */
} choice_t;

/* --- who may be taken --- */

static bool was_tried(const hd_pick_t *p, const hd_addr_t *addr)
{
    for (uint32_t i = 0; i < p->tried_n; i++) {
        if (hd_addr_eq(&p->tried[i], addr))
            return true;
    }
    return false;
}

/* Counts the request at once where the endpoint has a limit, so that it isn't overshot.
 */
static bool try_count(choice_t *c, const hd_endpoint_t *e)
{
    if (e->max_conns == 0 || e->state == NULL || e->state->requests == HD_GAUGE_NONE)
        return true;
    c->counted = hd_gauge_try_up(c->m, e->state->requests, e->max_conns);
    return c->counted;
}

/* <untried>: not where an earlier try of this request went. On true it is taken. */
static bool try_take(choice_t *c, uint32_t at, bool untried)
{
    const hd_endpoint_t *e = &c->v->eps->items[at];

    return !(untried && was_tried(c->p, &e->addr)) &&
           hd_outlier_try_begin(e, c->now_ns) && try_count(c, e);
}

static uint32_t take_next(choice_t *c, hd_lb_list_t *list, bool untried)
{
    for (uint32_t i = 0; i <= c->p->tried_n + 1; i++) {
        uint32_t at = hd_lb_list_next(c->m, c->v, list, c->now_ns);

        if (try_take(c, at, untried))
            return at;
    }
    return HD_LB_NOBODY;
}

/* nginx: whoever is asked in another's place doesn't lose his turn by it. If he did, each
 * request would begin with the dead one of two. */
static uint32_t take_again(choice_t *c, hd_lb_list_t *list)
{
    uint32_t turn = list->turn, at;

    list->turn = (turn + (uint32_t)hd_lb_random(c->v)) & INT32_MAX;
    at = take_next(c, list, true);
    list->turn = turn & INT32_MAX;
    return at;
}

/* The policy's choice, and more choices while it can't be taken; then whoever can. */
static uint32_t take_from(choice_t *c, hd_lb_list_t *list, bool untried)
{
    uint32_t start, at;

    if (list->n == 0)
        return HD_LB_NOBODY;
    at = untried && c->p->tried_n > 0 && c->v->conf->is_nginx
             ? take_again(c, list)
             : take_next(c, list, untried);
    if (at != HD_LB_NOBODY)
        return at;
    start = (uint32_t)(hd_lb_random(c->v) % list->n);
    for (uint32_t i = 0; i < list->n; i++) {
        at = list->at[(start + i) % list->n];
        c->v->steps++;
        if (try_take(c, at, untried))
            return at;
    }
    return HD_LB_NOBODY;
}

/* --- hashing --- */

static bool is_on(const choice_t *c, hd_lb_which_t which, uint32_t at)
{
    uint8_t health = c->v->health[at];

    return which == HD_LB_HEALTHY    ? health == HD_EP_HEALTHY
           : which == HD_LB_DEGRADED ? health == HD_EP_DEGRADED
                                     : health != HD_LB_OUT;
}

/* Bounded loads (Mirrokni et al., 2018): has it its share and <balance_percent> of it? */
static double load_share(const choice_t *c, const hd_lb_list_t *list, uint32_t at)
{
    const hd_endpoint_t *e = &c->v->eps->items[at];
    const hd_slot_t *slot = c->p->cluster_slot;
    uint64_t all = slot->gauges_n > HD_CG_REQUESTS
                       ? hd_gauge_read(c->m, slot->gauges_first + HD_CG_REQUESTS)
                       : 0;
    double slots = (double)(((all + 1) * c->v->conf->balance_percent + 99) / 100) *
                   e->weight / (double)list->total;
    uint64_t whole = (uint64_t)slots + ((double)(uint64_t)slots < slots);

    return e->state != NULL && e->state->requests != HD_GAUGE_NONE
               ? hd_gauge_read(c->m, e->state->requests) /
                     (double)hd_max(whole, (uint64_t)1)
               : 0;
}

/* The place's owner is full: others by chance that the hash decides, so that the same
 * keys spill to the same endpoints. */
static uint32_t spill(const choice_t *c, const hd_lb_list_t *list, uint64_t hash,
                      uint32_t at)
{
    double load = load_share(c, list, at), least = load;
    uint32_t best = at;

    for (uint32_t i = 0; load >= 1 && i < hd_min(4 * list->n, (uint32_t)HASH_LOOKS);
         i++) {
        at = list->at[hd_xxh64(&hash, sizeof(hash), i + 1) % list->n];
        load = load_share(c, list, at);
        c->v->steps++;
        if (load < least && !was_tried(c->p, &c->v->eps->items[at].addr)) {
            best = at;
            least = load;
        }
    }
    return best;
}

static uint32_t take_by_table(choice_t *c, const hd_lb_level_t *level,
                              hd_lb_which_t which, uint64_t hash, uint32_t looks)
{
    for (uint32_t i = 0; level->table != NULL && level->table->n > 0 && i < looks; i++) {
        uint32_t at = hd_table_find(level->table, hash, i);

        c->v->steps++;
        if (!is_on(c, which, at) || !try_take(c, at, true))
            continue;
        return c->v->conf->balance_percent > 0 ? spill(c, &level->lists[which], hash, at)
                                               : at;
    }
    return HD_LB_NOBODY;
}

/* nginx's `hash KEY`: a place among all weights by a remainder; where its owner can't
 * serve, the key with a number in front leads further. */
static uint32_t take_by_key(choice_t *c, const hd_lb_level_t *level)
{
    const hd_lb_list_t *all = &level->lists[HD_LB_ALL];
    uint32_t sum = 0;

    for (uint32_t i = 0; all->n > 0 && i < NGINX_LOOKS; i++) {
        char number[16];
        int len = i > 0 ? snprintf(number, sizeof(number), "%u", i) : 0;
        uint32_t crc = hd_crc32(0, number, (size_t)len), at;

        crc = hd_crc32(crc, c->p->key.data, c->p->key.len);
        sum += crc >> 16 & 0x7fff;
        at = hd_lb_list_at(c->v, all, sum % all->total);
        c->v->steps++;
        if (is_on(c, HD_LB_HEALTHY, at) && try_take(c, at, true))
            return at;
    }
    return HD_LB_NOBODY;
}

/* nginx's ip_hash: three bytes of an IPv4 address, all of an IPv6 one. */
static uint32_t take_by_address(choice_t *c, const hd_lb_level_t *level)
{
    const hd_lb_list_t *all = &level->lists[HD_LB_ALL];
    const hd_addr_t *a = c->p->client;
    uint32_t len = a == NULL               ? 0
                   : a->family == AF_INET  ? 3
                   : a->family == AF_INET6 ? 16
                                           : 0;
    uint32_t hash = 89;

    for (uint32_t i = 0; all->n > 0 && i < NGINX_LOOKS; i++) {
        uint32_t at;

        for (uint32_t b = 0; b < len; b++)
            hash = (hash * 113 + a->v6[b]) % 6271;
        at = hd_lb_list_at(c->v, all, hash % all->total);
        c->v->steps++;
        if (is_on(c, HD_LB_HEALTHY, at) && try_take(c, at, true))
            return at;
    }
    return HD_LB_NOBODY;
}

/* --- nginx's way: the first priority that has anybody --- */

static uint32_t hash_as_nginx(choice_t *c)
{
    const hd_lb_level_t *level = &c->g->levels[0];

    if (c->v->cluster->lb == HD_LB_IP_HASH)
        return take_by_address(c, level);
    if (c->p->key.len == 0)
        return HD_LB_NOBODY;
    if (c->v->cluster->lb == HD_LB_KEY_HASH)
        return take_by_key(c, level);
    if (c->v->cluster->lb == HD_LB_RING_HASH)
        return take_by_table(c, level, HD_LB_HEALTHY,
                             hd_crc32(0, c->p->key.data, c->p->key.len), NGINX_LOOKS);
    return HD_LB_NOBODY;
}

static uint32_t choose_as_nginx(choice_t *c)
{
    uint32_t at = c->g->levels_n > 0 ? hash_as_nginx(c) : HD_LB_NOBODY;

    for (int untried = 1; at == HD_LB_NOBODY && untried >= 0; untried--) {
        for (uint32_t i = 0; at == HD_LB_NOBODY && i < c->g->levels_n; i++)
            at = take_from(c, &c->g->levels[i].lists[HD_LB_HEALTHY], untried);
    }
    return at;
}

/* --- Envoy's way: a priority by its load, a locality by its weight --- */

static hd_lb_list_t *locality_list(const choice_t *c, hd_lb_level_t *level,
                                   hd_lb_which_t which)
{
    hd_lb_localities_t *by =
        level->localities != NULL && which != HD_LB_ALL ? &level->localities[which] : NULL;
    uint32_t l;

    if (level->zones != NULL && which != HD_LB_ALL)
        return hd_lb_zones_choose(c->v, level, which);
    if (by == NULL || by->turns.n == 0)
        return &level->lists[which];
    l = hd_edf_peek(&by->turns);
    hd_edf_turn(&by->turns, by->weights[l]);
    return &by->lists[l];
}

/* Retries leave the priorities that were tried (previous_priorities): the others share
 * the load as if those had nobody. When all were tried it begins anew. */
static uint32_t choose_priority(const choice_t *c, uint64_t number, bool *degraded)
{
    const hd_pick_t *p = c->p;
    uint32_t n = c->g->levels_n, left = 0;
    hd_priority_t list[HD_LB_RANKS_MAX];

    if (p->priorities_frequency == 0 || p->tried_priorities == NULL ||
        p->tried_n < p->priorities_frequency)
        return hd_priorities_choose(c->g->priorities, n, number, degraded);
    for (uint32_t i = 0; i < n; i++) {
        list[i] = c->g->priorities[i];
        for (uint32_t t = p->tried_n % p->priorities_frequency; t < p->tried_n; t++) {
            if (p->tried_priorities[t] == c->g->levels[i].rank)
                list[i].healthy = list[i].degraded = 0;
        }
        left += list[i].healthy + list[i].degraded > 0;
    }
    if (left == 0)
        return hd_priorities_choose(c->g->priorities, n, number, degraded);
    hd_priorities_set_loads(list, n, c->v->eps->overprovisioning_factor, 0);
    return hd_priorities_choose(list, n, number, degraded);
}

static uint32_t choose_as_envoy(choice_t *c)
{
    uint64_t number = c->p->has_hash ? c->p->hash : hd_lb_random(c->v);
    hd_lb_which_t which;
    hd_lb_level_t *level;
    hd_lb_list_t *list;
    bool degraded;
    uint32_t i, at = HD_LB_NOBODY;

    if (c->g->levels_n == 0)
        return HD_LB_NOBODY;
    i = choose_priority(c, number, &degraded);
    level = &c->g->levels[i];
    if (c->g->priorities[i].in_panic && c->v->conf->fails_in_panic)
        return HD_LB_NOBODY;
    which = c->g->priorities[i].in_panic ? HD_LB_ALL
            : degraded                   ? HD_LB_DEGRADED
                                         : HD_LB_HEALTHY;
    if (level->table != NULL)
        at = take_by_table(c, level, which, number, HASH_LOOKS);
    if (at != HD_LB_NOBODY)
        return at;
    list = locality_list(c, level, which);
    at = take_from(c, list, !c->p->may_repeat);
    if (at == HD_LB_NOBODY && list != &level->lists[which]) { /* then elsewhere */
        list = &level->lists[which];
        at = take_from(c, list, !c->p->may_repeat);
    }
    return at != HD_LB_NOBODY ? at : take_from(c, list, false);
}

/* --- sessions that stay with an endpoint --- */

#define STICKY_HEALTH                                                                    \
    (1u << 0 | 1u << 1 | 1u << 5)        /* Envoy's: unknown, well, degraded             \
                                          */
#define STICKY_NGINX (1u << 0 | 1u << 3) /* `drain`: those, and no others */

/* May an endpoint be asked by those who stay with it, as it is now? */
static bool may_stay(const choice_t *c, uint32_t at)
{
    uint32_t health = c->v->eps->items[at].health;
    uint32_t allowed = c->v->conf->is_nginx             ? STICKY_NGINX
                       : c->v->conf->sticky_health != 0 ? c->v->conf->sticky_health
                                                        : STICKY_HEALTH;

    switch (c->v->health[at]) {
    case HD_LB_OUT:
        return false;
    case HD_EP_UNHEALTHY: /* checks or failures say so, too */
        return (allowed & 1u << 2) != 0;
    default:
        return (allowed & 1u << hd_min(health, 7u)) != 0;
    }
}

static uint32_t choose_sticky(choice_t *c)
{
    uint32_t at = hd_lb_find_route(c->v, c->p->sticky);

    return at != HD_LB_NOBODY && may_stay(c, at) && try_take(c, at, true) ? at
                                                                          : HD_LB_NOBODY;
}

/* --- the answer --- */

/* The transport that the endpoint's labels ask for, else the cluster's. */
static const hd_tls_conf_t *choose_tls(const hd_cluster_t *c, const hd_endpoint_t *e)
{
    const hd_transport_match_t *t = hd_lb_transport(c, e);

    return t != NULL ? t->tls : c->tls;
}

static uint8_t choose_proxy(const hd_cluster_t *c, const hd_endpoint_t *e)
{
    const hd_transport_match_t *t = hd_lb_transport(c, e);

    return t != NULL ? t->proxy_version : c->proxy_version;
}

static void answer(hd_pick_t *p, const hd_endpoint_t *e, const hd_addr_t *addr)
{
    p->endpoint = e;
    p->priority = e != NULL ? e->priority : 0;
    p->addr = *addr;
    p->tls = choose_tls(p->cluster, e);
    p->proxy_version = choose_proxy(p->cluster, e);
}

static void let_go(hd_member_t *m, hd_pick_t *p)
{
    if (p->endpoints_region != NULL)
        hd_unpin(m, p->endpoints_region);
    if (p->cluster_region != NULL)
        hd_unpin(m, p->cluster_region);
    p->endpoints_region = p->cluster_region = NULL;
    p->cluster = NULL;
    p->endpoint = NULL;
}

static hd_rc_t no_healthy(hd_member_t *m, hd_pick_t *p, hd_err_t *err)
{
    hd_str_t name = p->cluster_slot->name;

    let_go(m, p);
    return hd_err_set(err, HD_E_NO_HEALTHY, "no endpoint of %.*s may serve",
                      HD_STR_ARG(name));
}

/* Checks of what nobody uses are rarer (no_traffic_interval). */
static void note_use(const hd_endpoints_t *eps)
{
    if (eps->state != NULL &&
        atomic_load_explicit(&eps->state->is_used, memory_order_relaxed) == 0)
        atomic_store_explicit(&eps->state->is_used, 1, memory_order_relaxed);
}

/* The endpoint that a module asks for. */
static uint32_t choose_wanted(choice_t *c)
{
    for (uint32_t i = 0; i < c->g->members_n; i++) {
        uint32_t at = c->g->members[i];

        if (hd_addr_eq(&c->v->eps->items[at].addr, &c->p->wanted))
            return (c->v->health[at] == HD_EP_HEALTHY ||
                    c->v->health[at] == HD_EP_DEGRADED) &&
                           try_take(c, at, true)
                       ? at
                       : HD_LB_NOBODY;
    }
    return HD_LB_NOBODY;
}

static uint32_t choose(choice_t *c)
{
    uint32_t at = c->p->wanted.family != AF_UNSPEC ? choose_wanted(c) : HD_LB_NOBODY;

    if (at != HD_LB_NOBODY || c->p->wanted_only)
        return at;
    if (c->p->sticky != 0)
        at = choose_sticky(c);
    if (at != HD_LB_NOBODY || c->p->is_sticky_strict)
        return at;
    return c->v->conf->is_nginx ? choose_as_nginx(c) : choose_as_envoy(c);
}

static uint32_t choose_in(choice_t *c, const hd_kv_t *labels, uint32_t n)
{
    c->g = hd_lb_subset(c->v, labels, n, c->now_ns);
    if (c->g == NULL)
        return HD_LB_NOBODY;
    c->g->choices++;
    return choose(c);
}

/* How many labels stand before the next ones (hd_pick_t.subset). */
static uint32_t count_labels(const hd_kv_t *labels, uint32_t n)
{
    uint32_t i = 0;

    while (i < n && labels[i].key.data != NULL)
        i++;
    return i;
}

/* Of several lists of labels the first is what is asked for; where the cluster says
 * FALLBACK_LIST, the others are asked for in its place, one after the other. */
static uint32_t choose_by_labels(choice_t *c)
{
    const hd_kv_t *labels = c->p->subset;
    uint32_t all = c->p->subset_n, n = count_labels(labels, all), at = HD_LB_NOBODY;

    if (n == all || !c->v->conf->subsets->has_fallback_list)
        return choose_in(c, labels, n);
    for (uint32_t from = n + 1; at == HD_LB_NOBODY && from <= all; from += n + 1) {
        n = count_labels(labels + from, all - from);
        at = choose_in(c, labels + from, n);
    }
    return at;
}

static hd_rc_t pick_endpoint(hd_member_t *m, hd_pick_t *p, hd_err_t *err)
{
    choice_t c = {.m = m, .p = p, .now_ns = hd_clock_mono_ns()};
    uint32_t at;

    p->endpoints_region = hd_cluster_endpoints(m, p->cluster);
    if (p->endpoints_region == NULL)
        return no_healthy(m, p, err);
    hd_pin(m, p->endpoints_region);
    c.v = hd_lb_view(m, p, c.now_ns, err);
    if (c.v == NULL)
        return no_healthy(m, p, err);
    note_use(c.v->eps);
    at = hd_unlikely(c.v->conf->subsets != NULL) ? choose_by_labels(&c)
                                                 : choose_in(&c, NULL, 0);
    if (at == HD_LB_NOBODY && !p->wanted_only && !p->is_sticky_strict &&
        c.v->conf->subsets != NULL && c.v->conf->subsets->panics_to_any && c.g != NULL &&
        c.g != &c.v->whole) {
        c.g = &c.v->whole;
        at = choose_as_envoy(&c);
    }
    if (at == HD_LB_NOBODY)
        return no_healthy(m, p, err);
    answer(p, &c.v->eps->items[at], &c.v->eps->items[at].addr);
    p->is_reported = false;
    p->picked_ns = c.now_ns;
    p->counted = c.counted;
    if (!p->counted && p->endpoint->state != NULL &&
        p->endpoint->state->requests != HD_GAUGE_NONE) {
        hd_gauge_up(m, p->endpoint->state->requests);
        p->counted = true;
    }
    return HD_OK;
}

/* A name's addresses in turn, those that weren't tried before the others. */
static hd_addr_t choose_address(const hd_pick_t *p)
{
    static _Thread_local uint32_t turn;
    uint32_t start = turn++;

    for (uint32_t i = 0; i < p->addrs_n; i++) {
        const hd_addr_t *a = &p->addrs[(start % p->addrs_n + i) % p->addrs_n];

        if (!was_tried(p, a))
            return *a;
    }
    return p->addrs[start % p->addrs_n];
}

static hd_rc_t pick_original_dst(hd_member_t *m, hd_pick_t *p, hd_err_t *err)
{
    const hd_mesh_cluster_t *mesh = p->cluster->mesh;
    hd_addr_t addr = p->addrs_n > 0 ? choose_address(p) : p->original_dst;

    if (addr.family == AF_UNSPEC)
        return no_healthy(m, p, err);
    if (mesh != NULL && mesh->port_override != 0)
        addr.port = mesh->port_override;
    answer(p, NULL, &addr);
    return HD_OK;
}

static hd_rc_t pick(hd_member_t *m, hd_pick_t *p, hd_post_t *wake, hd_err_t *err)
{
    (void)wake;
    p->cluster_region = p->cluster_slot != NULL ? hd_slot_get(m, p->cluster_slot) : NULL;
    if (p->cluster_region == NULL)
        return hd_err_set(err, HD_E_NO_CLUSTER, "there is no cluster %.*s",
                          HD_STR_ARG(p->cluster_slot != NULL ? p->cluster_slot->name
                                                             : HD_STR("of that name")));
    hd_pin(m, p->cluster_region);
    p->cluster = p->fixed != NULL ? p->fixed->cluster : p->cluster_region->root;
    if (p->fixed != NULL) {
        p->addr = p->fixed->addr;
        p->tls = p->fixed->tls;
        p->proxy_version = choose_proxy(p->cluster, p->fixed->endpoint);
        return HD_OK;
    }
    if (p->cluster->lb == HD_LB_ORIGINAL_DST)
        return pick_original_dst(m, p, err);
    return pick_endpoint(m, p, err);
}

/* An answer tells how long its endpoint takes, whatever the status. */
static void observe(const hd_pick_t *p, hd_pick_result_t result, uint64_t now_ns)
{
    const hd_mesh_cluster_t *conf = p->cluster->mesh;
    uint64_t until_ns;

    if (p->cluster->lb != HD_LB_PEAK_EWMA || hd_endpoint_counts(p->endpoint) == NULL ||
        conf->by_connect || (result != HD_RESULT_OK && result != HD_RESULT_TIMEOUT))
        return;
    until_ns = conf->by_last_byte || p->head_ns == 0 ? p->end_ns : p->head_ns;
    if (until_ns == 0)
        until_ns = now_ns;
    if (until_ns > p->picked_ns)
        hd_lb_observe(conf, p->endpoint, until_ns - p->picked_ns, now_ns);
}

/* It is there: at once, since a session may last for days. */
static void observe_connect(const hd_pick_t *p, hd_pick_result_t result)
{
    const hd_mesh_cluster_t *conf = p->cluster->mesh;
    uint64_t now_ns;

    if (conf == NULL || !conf->by_connect || hd_endpoint_counts(p->endpoint) == NULL ||
        result != HD_RESULT_OK)
        return;
    now_ns = hd_clock_mono_ns();
    hd_lb_observe(conf, p->endpoint, now_ns - p->picked_ns, now_ns);
}

static void report(hd_member_t *m, hd_pick_t *p, hd_pick_result_t result, unsigned status)
{
    if (p->endpoint == NULL || p->is_reported)
        return;
    p->is_reported = true;
    observe_connect(p, result);
    hd_outlier_report(m, p->cluster, p->endpoints_region->root, p->endpoint, result,
                      status, p->was_failure, hd_clock_mono_ns());
}

static void release(hd_member_t *m, hd_pick_t *p, hd_pick_result_t result,
                    unsigned status)
{
    report(m, p, result, status);
    if (p->endpoint != NULL) {
        observe(p, result, hd_clock_mono_ns());
        if (p->counted)
            hd_gauge_down(m, p->endpoint->state->requests);
    }
    p->counted = false;
    let_go(m, p);
}

static bool may_serve(const hd_cluster_t *c, const hd_endpoint_t *e, uint64_t now_ns)
{
    uint64_t until_ns = UINT64_MAX;
    hd_endpoint_health_t health = hd_endpoint_health(e, now_ns, &until_ns);

    return (health == HD_EP_HEALTHY || health == HD_EP_DEGRADED) && !e->down &&
           hd_check_may_serve(c, e);
}

const hd_balancer_t hd_mesh_balancer = {.pick = pick,
                                        .report = report,
                                        .release = release,
                                        .tls_of = choose_tls,
                                        .may_serve = may_serve,
                                        .is_well = hd_check_may_serve};
