#include "core/net/hd_cluster.h"

const hd_balancer_t *hd_balancer;

const hd_region_t *hd_cluster_endpoints(hd_member_t *m, const hd_cluster_t *c)
{
    const hd_slot_t *slot = c->endpoints;

    if (c->resolved.len > 0)
        slot = hd_slot_find(m, NULL, HD_RES_ENDPOINTS, c->resolved);
    return slot != NULL ? hd_slot_get(m, slot) : NULL;
}

static uint32_t max_of(const hd_cluster_t *c, unsigned which)
{
    switch (which) {
    case HD_CG_CONNS:
        return c->max_conns;
    case HD_CG_PENDING:
        return c->max_pending;
    case HD_CG_REQUESTS:
        return c->max_requests;
    case HD_CG_RETRIES:
        return c->max_retries;
    default:
        return c->max_pools;
    }
}

hd_breaker_t hd_cluster_breaker(const hd_slot_t *slot, const hd_cluster_t *c,
                                bool is_high, unsigned which)
{
    if (is_high && c->high != NULL)
        return (hd_breaker_t){c->high->gauges_first + which, c->high->max[which]};
    return (hd_breaker_t){which < slot->gauges_n ? slot->gauges_first + which
                                                 : HD_GAUGE_NONE,
                          max_of(c, which)};
}

static uint32_t read_count(hd_member_t *m, const hd_slot_t *slot, const hd_cluster_t *c,
                           bool is_high, unsigned which)
{
    return hd_gauge_read(m, hd_cluster_breaker(slot, c, is_high, which).gauge);
}

uint32_t hd_cluster_retries_max(hd_member_t *m, const hd_slot_t *slot,
                                const hd_cluster_t *c, bool is_high)
{
    const hd_breakers_t *high = is_high ? c->high : NULL;
    uint32_t permille =
        high != NULL ? high->retry_budget_permille : c->retry_budget_permille;
    uint32_t least = high != NULL ? high->retry_budget_min : c->retry_budget_min;
    uint64_t n;

    if (permille == 0)
        return hd_cluster_breaker(slot, c, is_high, HD_CG_RETRIES).max;
    n = (uint64_t)read_count(m, slot, c, is_high, HD_CG_REQUESTS) +
        read_count(m, slot, c, is_high, HD_CG_PENDING);
    return hd_max((uint32_t)(n * permille / 1000), least);
}

bool hd_cluster_try_count(hd_member_t *m, const hd_slot_t *slot, const hd_cluster_t *c,
                          bool is_high, unsigned which, hd_gauge_id_t *counted)
{
    hd_breaker_t b = hd_cluster_breaker(slot, c, is_high, which);

    *counted = HD_GAUGE_NONE;
    if (b.gauge == HD_GAUGE_NONE)
        return true;
    if (which == HD_CG_RETRIES)
        b.max = hd_cluster_retries_max(m, slot, c, is_high);
    if (!hd_gauge_try_up(m, b.gauge, b.max))
        return false;
    *counted = b.gauge;
    return true;
}

const hd_endpoints_t *hd_pick_endpoints(hd_member_t *m, const hd_pick_t *p)
{
    const hd_region_t *r =
        p->cluster_slot != NULL ? hd_slot_get(m, p->cluster_slot) : NULL;
    const hd_cluster_t *c = r != NULL ? r->root : NULL;

    r = c != NULL && c->endpoints != NULL ? hd_slot_get(m, c->endpoints) : NULL;
    return r != NULL ? r->root : NULL;
}

uint64_t hd_endpoint_load(hd_member_t *m, const hd_endpoint_t *e)
{
    return e->state != NULL && e->state->requests != HD_GAUGE_NONE
               ? hd_gauge_read(m, e->state->requests)
               : 0;
}

typedef struct {
    hd_member_t *member;
    hd_gauge_id_t gauge;
} count_t;

static void uncount(void *arg)
{
    const count_t *count = arg;

    hd_gauge_down(count->member, count->gauge);
}

void hd_conn_count(hd_conn_t *c, hd_member_t *m, hd_gauge_id_t counted)
{
    count_t *count;

    if (counted == HD_GAUGE_NONE)
        return;
    if (c == NULL) {
        hd_gauge_down(m, counted);
        return;
    }
    count = hd_pool_new(hd_conn_pool(c), count_t);
    *count = (count_t){m, counted};
    hd_pool_defer(hd_conn_pool(c), uncount, count);
}

const hd_endpoint_more_t *hd_endpoint_copy_more(hd_pool_t *pool, const hd_endpoint_t *e,
                                                bool is_sticky)
{
    hd_str_t route = hd_endpoint_more(e)->route;
    hd_endpoint_more_t *more;

    if (route.len == 0 && !is_sticky)
        return NULL;
    more = hd_pool_new(pool, hd_endpoint_more_t);
    more->route =
        route.len > 0 ? hd_str_dup(pool, route) : hd_sticky_route(pool, &e->addr);
    return more;
}
