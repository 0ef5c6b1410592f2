/* How many conns and pools there may be, over all workers: a place is counted before it
 * is taken, and given up to who waits for it. */
#include "http/hd_upool_int.h"

#include <stdatomic.h>

#define ASK_MS 20      /* other workers are asked at most so often */
#define SLICE_MS 200   /* a conn's turn while others wait */
#define GIVE_UP_MS 100 /* how often a holder of idle conns looks who waits */

void (*hd_upool_ask)(void);

bool hd_upool_has_limits(const hd_upool_t *p)
{
    return p->cluster->conns.max != UINT32_MAX || p->endpoint != NULL;
}

bool hd_upool_is_full(const hd_upool_t *p)
{
    hd_breaker_t c = p->cluster->conns;

    return (c.gauge != HD_GAUGE_NONE && hd_gauge_read(p->m, c.gauge) >= c.max) ||
           (p->endpoint != NULL && p->endpoint->conns != HD_GAUGE_NONE &&
            hd_gauge_read(p->m, p->endpoint->conns) >= p->endpoint_max);
}

bool hd_upool_is_wanted_elsewhere(const hd_upool_cluster_t *c)
{
    return c->conns.max != UINT32_MAX && c->conns.gauge != HD_GAUGE_NONE &&
           hd_gauge_read(c->m, c->conns.gauge) >= c->conns.max &&
           hd_gauge_read(c->m, c->pending.gauge) > c->waits_n;
}

bool hd_upool_is_endpoint_wanted(const hd_upool_t *p)
{
    return p->endpoint != NULL &&
           atomic_load_explicit(&p->endpoint->wanted, memory_order_relaxed) != 0 &&
           atomic_exchange_explicit(&p->endpoint->wanted, 0, memory_order_relaxed) != 0;
}

/* Gives up what others wait for. True: conns stay that may be asked for. */
static bool yield_idle(hd_upool_cluster_t *c)
{
    bool again = false;

    if (c->idle_n > 0 && hd_upool_is_wanted_elsewhere(c))
        hd_pooled_close(hd_list_entry(c->idle.next, hd_pooled_t, idle_link));
    hd_list_each(link, &c->idle)
    {
        hd_pooled_t *uc = hd_list_entry(link, hd_pooled_t, idle_link);

        again |= hd_upool_has_limits(uc->u.pool);
        if (hd_upool_is_endpoint_wanted(uc->u.pool))
            hd_pooled_close(uc);
    }
    return again;
}

void hd_upool_on_look(hd_timer_t *t)
{
    hd_upool_cluster_t *c = hd_container_of(t, hd_upool_cluster_t, look);

    if (yield_idle(c))
        hd_timer_set(c->loop, t, GIVE_UP_MS);
}

void hd_upool_look_later(hd_upool_t *p)
{
    if (hd_upool_has_limits(p) && !hd_timer_is_set(&p->cluster->look))
        hd_timer_set(p->loop, &p->cluster->look, GIVE_UP_MS);
}

void hd_upool_yield(hd_member_t *m)
{
    if (hd_upool_table.clusters.next == NULL)
        return;
    hd_list_each(link, &hd_upool_table.clusters)
    {
        hd_upool_cluster_t *c = hd_list_entry(link, hd_upool_cluster_t, link);

        if (c->m == m)
            hd_ignore(yield_idle(c));
    }
}

/* Refused: holders of idle conns in other workers are rung up. */
static void ask_others(hd_upool_t *p)
{
    hd_upool_cluster_t *c = p->cluster;
    uint64_t now_ns = hd_loop_now_ns(p->loop);

    if (c->asked_ns != 0 && now_ns - c->asked_ns < (uint64_t)ASK_MS * 1000000)
        return;
    c->asked_ns = now_ns;
    if (hd_upool_ask != NULL)
        hd_upool_ask();
}

/* This worker has more of the cluster's conns than its share of those who want one. */
static bool has_more_than_share(const hd_upool_cluster_t *c, uint32_t pending)
{
    uint64_t all = (uint64_t)hd_gauge_read(c->m, c->conns.gauge) + pending;
    uint64_t mine = (uint64_t)c->conns_n + c->waits_n;

    return c->conns_n > (c->conns.max * mine + all - 1) / all;
}

bool hd_upool_is_others_turn(const hd_upool_t *p, const hd_pooled_t *uc)
{
    const hd_upool_cluster_t *c = p->cluster;
    bool is_over = hd_loop_now_ns(p->loop) - uc->u.born_ns > SLICE_MS * 1000000ull;

    if (is_over && hd_upool_is_endpoint_wanted(p))
        return true;
    return hd_upool_is_wanted_elsewhere(c) &&
           (is_over || has_more_than_share(c, hd_gauge_read(c->m, c->pending.gauge)));
}

/* An idle conn of this cluster (<state>: to this endpoint); NULL: none. */
static hd_pooled_t *find_idle(const hd_upool_cluster_t *c,
                              const hd_endpoint_state_t *state)
{
    hd_list_each(link, &c->idle)
    {
        hd_pooled_t *uc = hd_list_entry(link, hd_pooled_t, idle_link);

        if (state == NULL || uc->u.pool->endpoint == state)
            return uc;
    }
    return NULL;
}

/* One place: free, or made so by closing an idle conn. */
static bool try_count_at(hd_upool_t *p, hd_breaker_t b, const hd_endpoint_state_t *state)
{
    hd_pooled_t *idle;

    if (hd_gauge_try_up(p->m, b.gauge, b.max))
        return true;
    idle = find_idle(p->cluster, state);
    if (idle == NULL)
        return false;
    hd_pooled_close(idle);
    return hd_gauge_try_up(p->m, b.gauge, b.max);
}

bool hd_upool_try_count_conn(hd_upool_t *p, hd_gauge_id_t counted[2])
{
    hd_breaker_t of_endpoint = {p->endpoint != NULL ? p->endpoint->conns : HD_GAUGE_NONE,
                                p->endpoint_max};
    hd_breaker_t of_cluster = p->cluster->conns;

    counted[0] = counted[1] = HD_GAUGE_NONE;
    if (hd_upool_has_limits(p) && hd_loop_now_ns(p->loop) < p->cluster->hold_off_ns)
        return false;
    if (of_cluster.gauge != HD_GAUGE_NONE && !try_count_at(p, of_cluster, NULL)) {
        /* as many requests as conns: none idles, but for those of HTTP/2, whose holders
         * look by themselves */
        if (hd_gauge_read(p->m, p->cluster->requests) <
            hd_gauge_read(p->m, of_cluster.gauge))
            ask_others(p);
        return false;
    }
    counted[0] = of_cluster.gauge;
    if (of_endpoint.gauge != HD_GAUGE_NONE &&
        !try_count_at(p, of_endpoint, p->endpoint)) {
        if (counted[0] != HD_GAUGE_NONE)
            hd_gauge_down(p->m, counted[0]);
        atomic_store_explicit(&p->endpoint->wanted, 1, memory_order_relaxed);
        ask_others(p);
        return false;
    }
    counted[1] = of_endpoint.gauge;
    return true;
}

static bool has_active(const hd_upool_t *p)
{
    hd_list_each(link, &p->ready)
    {
        if (hd_list_entry(link, hd_pooled_t, u.link)->u.active > 0)
            return true;
    }
    return !hd_list_is_empty(&p->busy);
}

/* Ends another pool of the cluster that nobody uses now. False: there is none. */
static bool try_end_idle_pool(const hd_upool_t *but)
{
    for (size_t i = 0; i < hd_upool_table.room; i++) {
        for (hd_upool_t *p = hd_upool_table.buckets[i]; p != NULL; p = p->next) {
            if (p == but || p->cluster != but->cluster || p->waits_n > 0 ||
                p->counted == HD_GAUGE_NONE || p->connecting_n > 0 || has_active(p))
                continue;
            hd_upool_drain(p);
            hd_gauge_down(p->m, p->counted);
            p->counted = HD_GAUGE_NONE;
            return true;
        }
    }
    return false;
}

bool hd_upool_try_count(hd_upool_t *p)
{
    hd_breaker_t b = p->cluster->pools;

    if (p->counted != HD_GAUGE_NONE || b.gauge == HD_GAUGE_NONE ||
        b.max == HD_GAUGE_NO_LIMIT)
        return true;
    while (!hd_gauge_try_up(p->m, b.gauge, b.max)) {
        if (!try_end_idle_pool(p))
            return false;
    }
    p->counted = b.gauge;
    return true;
}
