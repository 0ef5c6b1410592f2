/* Requests that want a conn. HTTP/1: one that waits starts a conn of its own, but takes
 * whichever is free first. HTTP/2: one conn being opened serves all that wait. */
#include "http/hd_upool_int.h"
#include "http/hd_peer_idle.h"

#define STARVED_MS 10        /* how often a pool at max_conns looks again */
#define LOOK_AFTER_MS 3      /* a younger conn isn't worth a system call */
#define STREAMS_EXPECTED 100 /* of an HTTP/2 conn not yet open */
#define AHEAD_MAX 3          /* conns that one request may have opened ahead (Envoy) */

/* Conns being opened cover all that wait? */
static bool is_covered(const hd_upool_t *p)
{
    uint64_t each = p->multiplexes ? STREAMS_EXPECTED : 1;

    return p->connecting_n * each >= p->waits_n;
}

void hd_upool_cancel(hd_pool_wait_t *w)
{
    hd_upool_t *p = w->_pool;

    if (p == NULL)
        return;
    w->_pool = NULL;
    hd_list_remove(&w->_link);
    p->waits_n--;
    p->cluster->waits_n--;
    if (w->_pending != HD_GAUGE_NONE)
        hd_gauge_down(p->m, w->_pending);
    if (p->waits_n == 0)
        hd_post(p->loop, &p->serve); /* it may be unused now */
}

static void fail_wait(hd_pool_wait_t *w, const hd_err_t *err)
{
    hd_upool_cancel(w);
    w->on_conn(w, NULL, err);
}

void hd_upool_fail_waits(hd_upool_t *p, const hd_err_t *err)
{
    uint32_t n =
        p->multiplexes ? (p->connecting_n == 0 ? p->waits_n : 1) : !is_covered(p);

    p->is_serving = true; /* callbacks may come back to this pool */
    while (n-- > 0 && !hd_list_is_empty(&p->waits))
        fail_wait(hd_list_entry(p->waits.next, hd_pool_wait_t, _link), err);
    p->is_serving = false;
    hd_post(p->loop, &p->serve);
}

static bool try_add_wait(hd_upool_t *p, hd_pool_wait_t *w)
{
    hd_breaker_t b = p->cluster->pending;

    if (b.gauge != HD_GAUGE_NONE && !hd_gauge_try_up(p->m, b.gauge, b.max))
        return false;
    w->_pending = b.gauge;
    w->_pool = p;
    hd_list_add_last(&p->waits, &w->_link);
    p->waits_n++;
    p->cluster->waits_n++;
    return true;
}

/* Has it idled too long? A request that can't be repeated asks more, and learns. Never one
 * that was opened just now, for those that wait: with an upstream that lets no conn idle
 * (Keep-Alive: timeout=0) nobody would ever get one. */
static bool is_stale(const hd_upool_t *p, const hd_pooled_t *uc, hd_upool_want_t want)
{
    uint32_t idle_ms;
    hd_rc_t rc;

    if (!uc->is_idle)
        return false;
    idle_ms = hd_pooled_idle_ms(p, uc);
    if (uc->u.exchanges == 0 && idle_ms == 0)
        return false;
    if (idle_ms >= hd_peer_idle_usable(p->hash, false))
        return true;
    if (want != HD_UPOOL_SURE)
        return false;
    rc = idle_ms < LOOK_AFTER_MS ? HD_OK : hd_conn_look(uc->u.conn);
    if (rc == HD_DONE || (rc == HD_AGAIN && uc->u.streams_max == 1))
        return true;
    if (uc->u.exchanges == 0 || idle_ms < hd_peer_idle_usable(p->hash, true))
        return false;
    if (idle_ms >= LOOK_AFTER_MS)
        hd_peer_idle_open(p->hash, idle_ms);
    return true;
}

static hd_pooled_t *take_ready(hd_upool_t *p, hd_upool_want_t want)
{
    hd_list_each(link, &p->ready)
    {
        hd_pooled_t *uc = hd_list_entry(link, hd_pooled_t, u.link);

        if (want == HD_UPOOL_FRESH && uc->u.exchanges > 0)
            continue;
        if (is_stale(p, uc, want)) {
            if (uc->u.streams_max == 1) /* those behind it idle longer */
                break;
            continue;
        }
        if (uc->u.draining || uc->u.active >= hd_pooled_streams_max(p, uc)) {
            hd_pooled_settle(p, uc);
            continue;
        }
        if (hd_pooled_is_worn(p, uc)) {
            uc->u.draining = true;
            if (uc->u.active == 0)
                hd_pooled_close(uc);
            else
                hd_pooled_settle(p, uc);
            continue;
        }
        uc->u.idle_ms = uc->is_idle ? hd_pooled_idle_ms(p, uc) : 0;
        hd_pooled_unlist_idle(uc);
        if (uc->u.active + 1 >=
            hd_pooled_streams_max(p, uc)) { /* this exchange fills it */
            hd_list_remove(&uc->u.link);
            hd_list_add_last(&p->busy, &uc->u.link);
        }
        return uc;
    }
    return NULL;
}

/* The first that waits and can be served, with its conn; NULL: none. */
static hd_pool_wait_t *match_wait(hd_upool_t *p, hd_pooled_t **uc)
{
    hd_list_each(link, &p->waits)
    {
        hd_pool_wait_t *w = hd_list_entry(link, hd_pool_wait_t, _link);

        *uc = take_ready(p, w->_want);
        if (*uc != NULL)
            return w;
        if (w->_want == HD_UPOOL_ANY)
            break;
    }
    return NULL;
}

void hd_upool_serve(hd_upool_t *p)
{
    hd_pool_wait_t *w;
    hd_pooled_t *uc;

    if (p->is_serving) /* callbacks may come back to this pool */
        return;
    p->is_serving = true;
    while ((w = match_wait(p, &uc)) != NULL) {
        hd_upool_cancel(w);
        w->on_conn(w, &uc->u, NULL);
    }
    while (!is_covered(p)) {
        hd_err_t err = {0};
        hd_rc_t rc;

        w = hd_list_entry(p->waits.next, hd_pool_wait_t, _link);
        rc = hd_upool_connect(p, w->_pick, w->_timeout_ms, &err);
        if (rc == HD_ERROR) {
            fail_wait(w, &err);
        } else if (rc == HD_AGAIN) {
            if (!hd_timer_is_set(&p->starved))
                hd_timer_set(p->loop, &p->starved, STARVED_MS);
            break;
        }
    }
    p->is_serving = false;
    if (p->is_draining &&
        p->waits_n == 0) /* what was opened for them, and came too late */
        hd_upool_drain(p);
    hd_upool_destroy_if_unused(p);
}

static hd_pool_wait_t *find_expired(hd_upool_t *p, uint64_t now_ns)
{
    hd_list_each(link, &p->waits)
    {
        hd_pool_wait_t *w = hd_list_entry(link, hd_pool_wait_t, _link);

        if (now_ns >= w->_until_ns)
            return w;
    }
    return NULL;
}

/* At max_conns: the conn that others (other workers, too) held may be free now. */
void hd_upool_on_starved(hd_timer_t *t)
{
    hd_upool_t *p = hd_container_of(t, hd_upool_t, starved);
    uint64_t now_ns = hd_loop_now_ns(p->loop);
    hd_pool_wait_t *w;
    hd_err_t err = {0};

    hd_ignore(hd_err_set(&err, HD_E_TIMEOUT, "no upstream connection became free"));
    p->is_serving = true;
    while (!is_covered(p) && (w = find_expired(p, now_ns)) != NULL)
        fail_wait(w, &err);
    p->is_serving = false;
    hd_upool_serve(p);
}

/* More conns than requests, where the cluster says so. */
static bool wants_ahead(const hd_upool_t *p)
{
    uint64_t active = p->conns_n - p->connecting_n - p->idle_n;
    uint32_t spare = p->connecting_n > p->waits_n ? p->connecting_n - p->waits_n : 0;

    return (p->waits_n + active) * p->limits.preconnect_percent >
               (uint64_t)p->conns_n * 100 &&
           p->cluster->idle_n + spare < p->limits.keepalive && !hd_upool_is_full(p);
}

static void connect_ahead(hd_upool_t *p, const hd_pick_t *pick, uint64_t timeout_ms)
{
    hd_err_t err = {0};

    if (p->multiplexes || p->key.protocol == HD_UP_RAW)
        return;
    for (int i = 0; i < AHEAD_MAX && wants_ahead(p); i++) {
        if (hd_upool_connect(p, pick, timeout_ms, &err) != HD_OK)
            return; /* whoever wants one will hear why */
    }
}

static void set_limits(hd_upool_t *p, const hd_pick_t *pick)
{
    const hd_cluster_t *c = pick->cluster;

    p->limits = (hd_upool_limits_t){
        .idle_timeout_ms = c->idle_timeout_ms,
        .keepalive = c->keepalive,
        .requests_per_conn = c->requests_per_conn,
        .is_per_client = c->is_per_client,
        .conn_lifetime_ms = c->conn_lifetime_ms,
        .max_streams = c->max_streams,
        .preconnect_percent = hd_cluster_more(c)->preconnect_percent,
        .version = pick->cluster_region != NULL ? pick->cluster_region->version : 0,
    };
    p->cluster->conns =
        hd_cluster_breaker(p->key.cluster, c, p->key.is_high, HD_CG_CONNS);
    p->cluster->pending =
        hd_cluster_breaker(p->key.cluster, c, p->key.is_high, HD_CG_PENDING);
    p->cluster->requests =
        hd_cluster_breaker(p->key.cluster, c, p->key.is_high, HD_CG_REQUESTS).gauge;
    p->cluster->pools =
        hd_cluster_breaker(p->key.cluster, c, p->key.is_high, HD_CG_POOLS);
    if (pick->fixed != NULL)
        p->cluster->conns.gauge = p->cluster->pending.gauge = p->cluster->pools.gauge =
            HD_GAUGE_NONE;
    if (pick->tls != NULL && pick->tls->certs_n > 0)
        hd_upool_set_secret(p, pick->tls->certs[0]);
}

/* nginx's max_conns: it stands on the endpoint, whose version may say another. */
static void set_endpoint(hd_upool_t *p, const hd_endpoint_t *e)
{
    bool is_limited = e != NULL && e->max_conns > 0 && e->state != NULL;

    p->endpoint = is_limited ? e->state : NULL;
    p->endpoint_max = is_limited ? e->max_conns : 0;
}

hd_rc_t hd_upool_get(hd_loop_t *loop, hd_member_t *m, const hd_upool_key_t *key,
                     const hd_pick_t *pick, uint64_t connect_timeout_ms,
                     hd_upool_want_t want, hd_upconn_t **u, hd_pool_wait_t *wait,
                     hd_err_t *err)
{
    uint64_t hash = hd_upool_hash(key);
    hd_upool_t *p = hd_upool_find(key, hash);
    hd_pooled_t *uc;

    if (p == NULL)
        p = hd_upool_create(loop, m, key, hash);
    if (pick->cluster_region == NULL ||
        p->limits.version != pick->cluster_region->version)
        set_limits(p, pick);
    set_endpoint(p, pick->endpoint);
    if (p->conns_n + p->waits_n == 0 && !hd_upool_try_count(p)) {
        hd_post(loop, &p->serve); /* it goes */
        return hd_err_set(err, HD_E_LIMIT, "the cluster has its %u connection pools",
                          p->cluster->pools.max);
    }
    uc = p->waits_n > 0 && want != HD_UPOOL_FRESH ? NULL : take_ready(p, want);
    if (uc != NULL) {
        *u = &uc->u;
        if (hd_unlikely(p->limits.preconnect_percent != 0))
            connect_ahead(p, pick, connect_timeout_ms);
        return HD_OK;
    }
    wait->_pick = pick;
    wait->_timeout_ms = connect_timeout_ms;
    wait->_until_ns =
        connect_timeout_ms == 0
            ? UINT64_MAX
            : hd_loop_now_ns(loop) + hd_min(connect_timeout_ms, 1000000000u) * 1000000;
    wait->_want = (uint8_t)want;
    if (!try_add_wait(p, wait)) {
        hd_post(loop, &p->serve); /* a pool without conns goes */
        return hd_err_set(err, HD_E_LIMIT, "too many requests wait for a connection");
    }
    if (!is_covered(p)) {
        hd_rc_t rc = hd_upool_connect(p, pick, connect_timeout_ms, err);

        if (rc == HD_ERROR) {
            hd_upool_cancel(wait);
            return HD_ERROR;
        }
        if (rc == HD_AGAIN && !hd_timer_is_set(&p->starved))
            hd_timer_set(loop, &p->starved, STARVED_MS);
    }
    if (hd_unlikely(p->limits.preconnect_percent != 0))
        connect_ahead(p, pick, connect_timeout_ms);
    return HD_AGAIN;
}
