/* A pooled conn: ready, busy, idle, closed. */
#include "http/hd_upool_int.h"
#include "http/hd_peer_idle.h"

#define HOLD_OFF_MS 20 /* who gave way lets others have what came free */

void hd_pooled_unlist_idle(hd_pooled_t *uc)
{
    if (!uc->is_idle)
        return;
    uc->is_idle = false;
    hd_list_remove(&uc->idle_link);
    uc->u.pool->cluster->idle_n--;
    uc->u.pool->idle_n--;
}

void hd_pooled_uncount(void *arg)
{
    hd_pooled_t *uc = arg;

    for (size_t i = 0; i < hd_countof(uc->conns); i++) {
        if (uc->conns[i] != HD_GAUGE_NONE)
            hd_gauge_down(uc->m, uc->conns[i]);
        uc->conns[i] = HD_GAUGE_NONE;
    }
}

/* Out of its pool; the count of conns is another matter. */
static void take_out(hd_pooled_t *uc)
{
    hd_upool_t *p = uc->u.pool;

    if (p == NULL)
        return;
    hd_pooled_unlist_idle(uc);
    hd_list_remove(&uc->u.link);
    if (!uc->is_open)
        p->connecting_n--;
    p->conns_n--;
    p->cluster->conns_n--;
    hd_upool_table.conns_n--;
    hd_timer_stop(p->loop, &uc->u.idle);
    uc->u.pool = NULL;
    uc->u.draining = true;
    hd_post(p->loop,
            &p->serve); /* somebody may wait for its place; or it is unused now */
}

void hd_pooled_close(hd_pooled_t *uc)
{
    hd_conn_t *c = uc->u.conn;
    bool is_busy = uc->u.active > 0;

    take_out(uc);
    if (c == NULL)
        return;
    uc->u.conn = NULL;
    if (is_busy || !uc->is_open)
        hd_conn_reset(c);
    else
        hd_conn_close(c, 0);
    /* only now, or another worker's could be there before this one is gone; one that
     * still says goodbye (TLS) is counted until it has */
    if (c->state == HD_CONN_CLOSED)
        hd_pooled_uncount(uc);
}

uint32_t hd_pooled_idle_ms(const hd_upool_t *p, const hd_pooled_t *uc)
{
    return (uint32_t)hd_min((hd_loop_now_ns(p->loop) - uc->idle_since_ns) / 1000000,
                            (uint64_t)UINT32_MAX);
}

void hd_upconn_peer_closed(hd_upconn_t *u)
{
    hd_pooled_t *uc = hd_container_of(u, hd_pooled_t, u);

    if (u->pool != NULL)
        hd_peer_idle_closed(u->pool->hash,
                            uc->is_idle ? hd_pooled_idle_ms(u->pool, uc) : u->idle_ms);
}

void hd_upconn_peer_told(hd_upconn_t *u, uint32_t idle_ms)
{
    if (u->pool != NULL)
        hd_peer_idle_told(u->pool->hash, idle_ms);
}

void hd_pooled_on_idle(hd_timer_t *t)
{
    hd_pooled_t *uc = hd_container_of(t, hd_pooled_t, u.idle);

    if (uc->u.active > 0) /* else it is set anew when it idles */
        return;
    hd_peer_idle_open(uc->u.pool->hash, hd_pooled_idle_ms(uc->u.pool, uc));
    hd_pooled_close(uc);
}

bool hd_pooled_is_worn(const hd_upool_t *p, const hd_pooled_t *uc)
{
    const hd_upool_limits_t *l = &p->limits;
    bool is_link = uc->u.codec != NULL && uc->u.codec->is_for_many;
    uint32_t max = is_link && l->is_per_client ? 0 : l->requests_per_conn;

    /* Opened for those that wait: however late it comes, the next would come no sooner.
     */
    if (p->waits_n > 0 && uc->u.exchanges == 0)
        return false;
    /* Who waited when the draining began is still this pool's to serve: no other will. */
    if ((p->is_draining && p->waits_n == 0) || (max > 0 && uc->u.exchanges >= max))
        return true;
    return l->conn_lifetime_ms > 0 && hd_loop_now_ns(p->loop) - uc->u.born_ns >
                                          (uint64_t)l->conn_lifetime_ms * 1000000;
}

/* How much of its time is left. */
static uint32_t life_left_ms(const hd_upool_t *p, const hd_pooled_t *uc)
{
    uint64_t lived_ms = (hd_loop_now_ns(p->loop) - uc->u.born_ns) / 1000000;
    uint64_t max_ms = p->limits.conn_lifetime_ms;

    return max_ms == 0 ? UINT32_MAX : (uint32_t)(max_ms - hd_min(max_ms, lived_ms));
}

static void make_idle(hd_upool_t *p, hd_pooled_t *uc)
{
    uint32_t keep_ms;

    /* Who was to have it is gone, and what its peer says first is for nobody else. */
    if (p->key.protocol == HD_UP_RAW && p->waits_n == 0) {
        hd_pooled_close(uc);
        return;
    }
    hd_upool_look_later(p);
    uc->is_idle = true;
    hd_list_add_last(&p->cluster->idle, &uc->idle_link);
    p->cluster->idle_n++;
    p->idle_n++;
    uc->idle_since_ns = hd_loop_now_ns(p->loop);
    if (uc->u.exchanges > 1) /* it was open then, and has served */
        hd_peer_idle_open(p->hash, uc->u.idle_ms);
    uc->u.idle_ms = 0;
    keep_ms = hd_peer_idle_keep(p->hash);
    if (p->limits.idle_timeout_ms > 0)
        keep_ms = hd_min(keep_ms, p->limits.idle_timeout_ms);
    keep_ms = hd_min(keep_ms, life_left_ms(p, uc));
    if (keep_ms != UINT32_MAX)
        hd_timer_set(p->loop, &uc->u.idle, keep_ms);
    if (p->waits_n > 0)
        return;
    if (p->cluster->idle_n > p->limits.keepalive ||
        hd_upool_is_wanted_elsewhere(p->cluster))
        hd_pooled_close(hd_list_entry(p->cluster->idle.next, hd_pooled_t, idle_link));
    else if (hd_upool_is_endpoint_wanted(p))
        hd_pooled_close(uc);
}

uint32_t hd_pooled_streams_max(const hd_upool_t *p, const hd_pooled_t *uc)
{
    uint32_t max = uc->u.streams_max;

    return p->limits.max_streams > 0 ? hd_min(max, p->limits.max_streams) : max;
}

void hd_upconn_set_streams(hd_upconn_t *u, uint32_t n)
{
    u->streams_max = n;
    if (u->pool != NULL)
        u->pool->peer_streams = n;
}

uint32_t hd_upconn_streams_expected(const hd_upconn_t *u, uint32_t most)
{
    uint32_t last = u->pool != NULL ? u->pool->peer_streams : 0;

    return last > 0 ? hd_min(last, most) : most;
}

void hd_pooled_settle(hd_upool_t *p, hd_pooled_t *uc)
{
    hd_list_remove(&uc->u.link);
    if (uc->u.draining || uc->u.active >= hd_pooled_streams_max(p, uc)) {
        hd_list_add_last(&p->busy, &uc->u.link);
        return;
    }
    hd_list_add_first(&p->ready, &uc->u.link);
    if (uc->u.active == 0 && !uc->is_idle)
        make_idle(p, uc);
}

void hd_upconn_release(hd_upconn_t *u, bool reusable)
{
    hd_pooled_t *uc = hd_container_of(u, hd_pooled_t, u);
    hd_upool_t *p = u->pool;

    u->active--;
    if (p == NULL)
        return;
    if (u->streams_max == 1 && !reusable)
        u->draining = true;
    if (hd_pooled_is_worn(p, uc))
        u->draining = true;
    if (u->active == 0 && p->waits_n > 0 && hd_upool_has_limits(p) &&
        hd_upool_is_others_turn(p, uc)) {
        p->cluster->hold_off_ns = hd_loop_now_ns(p->loop) + HOLD_OFF_MS * 1000000ull;
        u->draining = true;
    }
    if (u->draining && u->active == 0) {
        hd_pooled_close(uc);
        return;
    }
    hd_pooled_settle(p, uc);
    if (p->waits_n > 0)
        hd_post(p->loop, &p->serve); /* not at once: the codec is in the middle of it */
}

void hd_upool_put_back(hd_upconn_t *u)
{
    hd_pooled_t *uc = hd_container_of(u, hd_pooled_t, u);
    uint64_t since_ns = uc->idle_since_ns;

    if (u->pool == NULL)
        return;
    u->idle_ms = 0;
    hd_pooled_settle(u->pool, uc);
    if (uc->is_idle) /* all the time */
        uc->idle_since_ns = since_ns;
    if (u->pool != NULL && u->pool->waits_n > 0)
        hd_post(u->pool->loop, &u->pool->serve);
}

void hd_upconn_gone(hd_upconn_t *u)
{
    hd_pooled_t *uc = hd_container_of(u, hd_pooled_t, u);

    if (u->conn != NULL)
        hd_pooled_close(uc);
    else
        take_out(uc); /* taken for a tunnel: counted until that conn ends */
}

uint64_t hd_upconn_idle_since(const hd_upconn_t *u)
{
    const hd_pooled_t *uc = hd_container_of(u, hd_pooled_t, u);

    return uc->is_idle ? uc->idle_since_ns : 0;
}

void hd_upconn_stale(hd_upconn_t *u)
{
    hd_pooled_t *uc = hd_container_of(u, hd_pooled_t, u);

    u->draining = true;
    if (u->pool == NULL)
        return;
    if (u->active == 0)
        hd_pooled_close(uc);
    else
        hd_pooled_settle(u->pool, uc);
}

const hd_cluster_t *hd_upconn_cluster(const hd_upconn_t *u)
{
    const hd_region_t *r = u->pool == NULL ? NULL
                                           : hd_slot_get(hd_loop_member(u->pool->loop),
                                                         u->pool->key.cluster);

    return r != NULL ? r->root : NULL;
}
