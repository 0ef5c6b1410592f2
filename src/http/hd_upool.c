/* Pools of upstream conns. A worker has one pool for each key and, for what is limited
 * by cluster (idle conns), a list of a cluster's idle conns, oldest first.
 *
 *   connecting -> ready (room for an exchange) <-> busy -> closed
 *
 * HTTP/1: a waiting request starts a conn of its own, but takes whichever is free first.
 * HTTP/2: one conn being opened serves all that wait. */
#include "http/hd_upool.h"
#include "core/net/hd_proxy_protocol.h"
#include "core/base/hd_log.h"
#include "http/hd_peer_idle.h"
#include "http/hd_weft.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define BUCKETS_MIN 64
#define STARVED_MS 10        /* how often a pool at max_conns looks again */
#define HOLD_OFF_MS 20       /* who gave way lets others have what came free */
#define SLICE_MS 200         /* a conn's turn while others wait */
#define ASK_MS 20            /* other workers are asked at most so often */
#define GIVE_UP_MS 100       /* how often a holder of idle conns looks who waits */
#define LOOK_AFTER_MS 3      /* a younger conn isn't worth a system call */
#define STREAMS_EXPECTED 100 /* of an HTTP/2 conn not yet open */

typedef struct upcluster_s {
    hd_link_t link;
    const hd_slot_t *slot;
    bool is_high;
    hd_link_t idle; /* upconn_t.idle_link, oldest first */
    uint32_t idle_n, pools_n, waits_n;
    hd_breaker_t conns, pending, pools;
    hd_gauge_id_t requests;
    uint64_t asked_ns, hold_off_ns;
    uint32_t conns_n; /* open or being opened here */
    hd_loop_t *loop;
    hd_member_t *m;
    hd_timer_t look; /* set while there are idle conns under a finite max_conns */
} upcluster_t;

typedef struct {
    uint32_t idle_timeout_ms, keepalive, requests_per_conn, conn_lifetime_ms, max_streams;
    uint64_t version; /* of the cluster they are from */
} limits_t;

struct hd_upool_s {
    hd_upool_key_t key; /* strings are its own */
    uint64_t hash;
    struct hd_upool_s *next; /* in its bucket */
    upcluster_t *cluster;
    hd_loop_t *loop;
    hd_member_t *m;
    hd_link_t ready, busy, connecting;
    hd_link_t waits;
    uint32_t conns_n, connecting_n, waits_n;
    limits_t limits;
    hd_endpoint_state_t *endpoint; /* where max_conns is its own; NULL: it isn't */
    uint32_t endpoint_max;
    hd_gauge_id_t counted;   /* among the cluster's pools */
    const hd_slot_t *secret; /* whose version is in the key; NULL: none */
    bool multiplexes;        /* a conn carries many: hoped, or as conns have shown */
    bool is_draining, is_serving;
    hd_post_t serve;
    hd_timer_t starved;
};

typedef struct {
    hd_upconn_t u;
    hd_link_t idle_link;
    hd_member_t *m;
    hd_gauge_id_t conns[2]; /* counted there: cluster's, endpoint's */
    uint64_t idle_since_ns;
    bool is_idle, is_open;
} upconn_t;

static _Thread_local struct {
    struct hd_upool_s **buckets;
    size_t room, n, conns_n;
    hd_link_t clusters;
} table;

void (*hd_upool_ask)(void);

typedef struct hd_upool_s upool_t;

static void close_conn(upconn_t *uc);
static void serve_waits(upool_t *p);

/* --- keys --- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

/* No string is hashed: those that differ under one address and TLS settings are few, and
 * is_same_key tells them apart. */
static uint64_t hash_key(const hd_upool_key_t *k)
{
    uint64_t h = mix((uintptr_t)k->cluster, k->tls_hash ^ k->secret_version);
    uint64_t a = 0, b = 0;

    if (k->addr.family == AF_INET) {
        memcpy(&a, k->addr.v4, 4);
    } else if (k->addr.family == AF_INET6) {
        memcpy(&a, k->addr.v6, 8);
        memcpy(&b, k->addr.v6 + 8, 8);
    } else {
        a = k->addr.path.len;
    }
    h = mix(h, a ^ (uint64_t)k->addr.port << 48);
    return mix(h, b ^ k->protocol ^ (uint64_t)k->offers_weft << 4 ^
                      (uint64_t)k->proxy_source.port << 32 ^
                      (uint64_t)k->source_identity.len << 8 ^ (uint64_t)k->sni.len << 16);
}

static bool is_same_str(hd_str_t a, hd_str_t b)
{
    return a.len == b.len &&
           (a.data == b.data || a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool is_same_addr(const hd_addr_t *a, const hd_addr_t *b)
{
    return a->family == b->family && (a->family == AF_UNSPEC || hd_addr_eq(a, b));
}

static bool is_same_key(const hd_upool_key_t *a, const hd_upool_key_t *b)
{
    return a->cluster == b->cluster && a->tls_hash == b->tls_hash &&
           a->secret_version == b->secret_version && a->protocol == b->protocol &&
           a->offers_weft == b->offers_weft && a->is_high == b->is_high &&
           a->mark == b->mark && a->netns == b->netns &&
           a->transparent == b->transparent && is_same_addr(&a->addr, &b->addr) &&
           is_same_addr(&a->bind, &b->bind) && a->proxy_version == b->proxy_version &&
           is_same_addr(&a->proxy_source, &b->proxy_source) &&
           is_same_addr(&a->proxy_local, &b->proxy_local) &&
           is_same_str(a->source_identity, b->source_identity) &&
           is_same_str(a->sni, b->sni) && is_same_str(a->verify_host, b->verify_host);
}

static char *copy_str(char *at, hd_str_t *s)
{
    if (s->len > 0)
        memcpy(at, s->data, s->len);
    s->data = at;
    return at + s->len;
}

static size_t path_bytes(const hd_addr_t *a)
{
    return a->family == AF_UNIX ? a->path.len : 0;
}

/* --- the table --- */

static void on_look(hd_timer_t *t);

static upcluster_t *cluster_of(const hd_slot_t *slot, bool is_high)
{
    upcluster_t *c;

    if (table.clusters.next == NULL)
        hd_list_init(&table.clusters);
    hd_list_each(link, &table.clusters)
    {
        c = hd_list_entry(link, upcluster_t, link);
        if (c->slot == slot && c->is_high == is_high)
            return c;
    }
    c = calloc(1, sizeof(*c));
    hd_bug_on(c == NULL);
    c->slot = slot;
    c->is_high = is_high;
    c->conns.max = UINT32_MAX;
    hd_list_init(&c->idle);
    hd_timer_init(&c->look, on_look);
    hd_list_add_first(&table.clusters, &c->link);
    return c;
}

static void grow_table(void)
{
    size_t room = table.room == 0 ? BUCKETS_MIN : table.room * 2;
    upool_t **buckets = calloc(room, sizeof(*buckets));

    hd_bug_on(buckets == NULL);
    for (size_t i = 0; i < table.room; i++) {
        upool_t *p, *next;

        for (p = table.buckets[i]; p != NULL; p = next) {
            next = p->next;
            p->next = buckets[p->hash & (room - 1)];
            buckets[p->hash & (room - 1)] = p;
        }
    }
    free(table.buckets);
    table.buckets = buckets;
    table.room = room;
}

static void on_serve(hd_post_t *post)
{
    serve_waits(hd_container_of(post, upool_t, serve));
}

static void on_starved(hd_timer_t *t);

static upool_t *create_pool(hd_loop_t *loop, hd_member_t *m, const hd_upool_key_t *key,
                            uint64_t hash)
{
    upool_t *p = calloc(1, sizeof(*p) + key->source_identity.len + key->sni.len +
                               key->verify_host.len + path_bytes(&key->addr) +
                               path_bytes(&key->bind));
    char *at = (char *)(p + 1);

    hd_bug_on(p == NULL);
    p->key = *key;
    at = copy_str(at, &p->key.source_identity);
    at = copy_str(at, &p->key.sni);
    at = copy_str(at, &p->key.verify_host);
    if (key->addr.family == AF_UNIX)
        at = copy_str(at, &p->key.addr.path);
    if (key->bind.family == AF_UNIX)
        copy_str(at, &p->key.bind.path);
    p->hash = hash;
    p->loop = loop;
    p->m = m;
    hd_list_init(&p->ready);
    hd_list_init(&p->busy);
    hd_list_init(&p->connecting);
    hd_list_init(&p->waits);
    hd_post_init(&p->serve, on_serve);
    hd_timer_init(&p->starved, on_starved);
    p->cluster = cluster_of(key->cluster, key->is_high);
    p->multiplexes = key->protocol == HD_UP_HTTP2 || key->offers_weft;
    p->cluster->loop = loop;
    p->cluster->m = m;
    p->cluster->pools_n++;
    if (table.n >= table.room)
        grow_table();
    p->next = table.buckets[hash & (table.room - 1)];
    table.buckets[hash & (table.room - 1)] = p;
    table.n++;
    return p;
}

static upool_t *find_pool(const hd_upool_key_t *key, uint64_t hash)
{
    upool_t *p;

    if (table.room == 0)
        return NULL;
    for (p = table.buckets[hash & (table.room - 1)]; p != NULL; p = p->next) {
        if (p->hash == hash && !p->is_draining && is_same_key(&p->key, key))
            return p;
    }
    return NULL;
}

/* Once nothing is left in it; in a post, since its callers may still stand in it. */
static void destroy_if_unused(upool_t *p)
{
    upool_t **at;

    if (p->conns_n > 0 || p->waits_n > 0)
        return;
    if (p->counted != HD_GAUGE_NONE)
        hd_gauge_down(p->m, p->counted);
    for (at = &table.buckets[p->hash & (table.room - 1)]; *at != p; at = &(*at)->next)
        ;
    *at = p->next;
    table.n--;
    if (--p->cluster->pools_n == 0) {
        hd_timer_stop(p->loop, &p->cluster->look);
        hd_list_remove(&p->cluster->link);
        free(p->cluster);
    }
    hd_post_cancel(&p->serve);
    hd_timer_stop(p->loop, &p->starved);
    free(p);
}

/* --- conns --- */

static void unlist_idle(upconn_t *uc)
{
    if (!uc->is_idle)
        return;
    uc->is_idle = false;
    hd_list_remove(&uc->idle_link);
    uc->u.pool->cluster->idle_n--;
}

static void uncount(void *arg)
{
    upconn_t *uc = arg;

    for (size_t i = 0; i < hd_countof(uc->conns); i++) {
        if (uc->conns[i] != HD_GAUGE_NONE)
            hd_gauge_down(uc->m, uc->conns[i]);
        uc->conns[i] = HD_GAUGE_NONE;
    }
}

/* Out of its pool; the count of conns is another matter. */
static void take_out(upconn_t *uc)
{
    upool_t *p = uc->u.pool;

    if (p == NULL)
        return;
    unlist_idle(uc);
    hd_list_remove(&uc->u.link);
    if (!uc->is_open)
        p->connecting_n--;
    p->conns_n--;
    p->cluster->conns_n--;
    table.conns_n--;
    hd_timer_stop(p->loop, &uc->u.idle);
    uc->u.pool = NULL;
    uc->u.draining = true;
    hd_post(p->loop,
            &p->serve); /* somebody may wait for its place; or it is unused now */
}

static void close_conn(upconn_t *uc)
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
        uncount(uc);
}

static uint32_t idle_ms_of(const upool_t *p, const upconn_t *uc)
{
    return (uint32_t)hd_min((hd_loop_now_ns(p->loop) - uc->idle_since_ns) / 1000000,
                            (uint64_t)UINT32_MAX);
}

void hd_upconn_peer_closed(hd_upconn_t *u)
{
    upconn_t *uc = hd_container_of(u, upconn_t, u);

    if (u->pool != NULL)
        hd_peer_idle_closed(u->pool->hash,
                            uc->is_idle ? idle_ms_of(u->pool, uc) : u->idle_ms);
}

void hd_upconn_peer_told(hd_upconn_t *u, uint32_t idle_ms)
{
    if (u->pool != NULL)
        hd_peer_idle_told(u->pool->hash, idle_ms);
}

static void on_idle(hd_timer_t *t)
{
    upconn_t *uc = hd_container_of(t, upconn_t, u.idle);

    if (uc->u.active > 0) /* else it is set anew when it idles */
        return;
    hd_peer_idle_open(uc->u.pool->hash, idle_ms_of(uc->u.pool, uc));
    close_conn(uc);
}

static bool is_worn(const upool_t *p, const upconn_t *uc)
{
    const limits_t *l = &p->limits;

    if (p->is_draining ||
        (l->requests_per_conn > 0 && uc->u.exchanges >= l->requests_per_conn))
        return true;
    return l->conn_lifetime_ms > 0 && hd_loop_now_ns(p->loop) - uc->u.born_ns >
                                          (uint64_t)l->conn_lifetime_ms * 1000000;
}

/* Another worker waits for a conn, and there is no place but what idles here. */
static bool is_wanted_elsewhere(const upcluster_t *c)
{
    return c->conns.max != UINT32_MAX && c->conns.gauge != HD_GAUGE_NONE &&
           hd_gauge_read(c->m, c->conns.gauge) >= c->conns.max &&
           hd_gauge_read(c->m, c->pending.gauge) > c->waits_n;
}

/* Another worker was refused at this endpoint's max_conns; who sees it first answers. */
static bool is_endpoint_wanted(const upool_t *p)
{
    return p->endpoint != NULL &&
           atomic_load_explicit(&p->endpoint->wanted, memory_order_relaxed) != 0 &&
           atomic_exchange_explicit(&p->endpoint->wanted, 0, memory_order_relaxed) != 0;
}

static bool has_limits(const upool_t *p)
{
    return p->cluster->conns.max != UINT32_MAX || p->endpoint != NULL;
}

/* Gives up what others wait for. True: conns stay that may be asked for. */
static bool yield_idle(upcluster_t *c)
{
    bool again = false;

    if (c->idle_n > 0 && is_wanted_elsewhere(c))
        close_conn(hd_list_entry(c->idle.next, upconn_t, idle_link));
    hd_list_each(link, &c->idle)
    {
        upconn_t *uc = hd_list_entry(link, upconn_t, idle_link);

        again |= has_limits(uc->u.pool);
        if (is_endpoint_wanted(uc->u.pool))
            close_conn(uc);
    }
    return again;
}

static void on_look(hd_timer_t *t)
{
    upcluster_t *c = hd_container_of(t, upcluster_t, look);

    if (yield_idle(c))
        hd_timer_set(c->loop, t, GIVE_UP_MS);
}

void hd_upool_yield(hd_member_t *m)
{
    if (table.clusters.next == NULL)
        return;
    hd_list_each(link, &table.clusters)
    {
        upcluster_t *c = hd_list_entry(link, upcluster_t, link);

        if (c->m == m)
            hd_ignore(yield_idle(c));
    }
}

/* Refused: holders of idle conns in other workers are rung up. */
static void ask_others(upool_t *p)
{
    upcluster_t *c = p->cluster;
    uint64_t now_ns = hd_loop_now_ns(p->loop);

    if (c->asked_ns != 0 && now_ns - c->asked_ns < (uint64_t)ASK_MS * 1000000)
        return;
    c->asked_ns = now_ns;
    if (hd_upool_ask != NULL)
        hd_upool_ask();
}

static void make_idle(upool_t *p, upconn_t *uc)
{
    uint32_t keep_ms;

    if (has_limits(p) && !hd_timer_is_set(&p->cluster->look))
        hd_timer_set(p->loop, &p->cluster->look, GIVE_UP_MS);
    uc->is_idle = true;
    hd_list_add_last(&p->cluster->idle, &uc->idle_link);
    p->cluster->idle_n++;
    uc->idle_since_ns = hd_loop_now_ns(p->loop);
    if (uc->u.exchanges > 1) /* it was open then, and has served */
        hd_peer_idle_open(p->hash, uc->u.idle_ms);
    uc->u.idle_ms = 0;
    keep_ms = hd_peer_idle_keep(p->hash);
    if (p->limits.idle_timeout_ms > 0)
        keep_ms = hd_min(keep_ms, p->limits.idle_timeout_ms);
    if (keep_ms != UINT32_MAX)
        hd_timer_set(p->loop, &uc->u.idle, keep_ms);
    if (p->waits_n > 0)
        return;
    if (p->cluster->idle_n > p->limits.keepalive || is_wanted_elsewhere(p->cluster))
        close_conn(hd_list_entry(p->cluster->idle.next, upconn_t, idle_link));
    else if (is_endpoint_wanted(p))
        close_conn(uc);
}

/* Exchanges that it may carry at once; the peer's SETTINGS may change it. */
static uint32_t streams_max(const upool_t *p, const upconn_t *uc)
{
    uint32_t max = uc->u.streams_max;

    return p->limits.max_streams > 0 ? hd_min(max, p->limits.max_streams) : max;
}

/* Where it belongs by its room: ready (the last used first) or busy. */
static void settle_conn(upool_t *p, upconn_t *uc)
{
    hd_list_remove(&uc->u.link);
    if (uc->u.draining || uc->u.active >= streams_max(p, uc)) {
        hd_list_add_last(&p->busy, &uc->u.link);
        return;
    }
    hd_list_add_first(&p->ready, &uc->u.link);
    if (uc->u.active == 0 && !uc->is_idle)
        make_idle(p, uc);
}

/* This worker has more of the cluster's conns than its share of those who want one. */
static bool has_more_than_share(const upcluster_t *c, uint32_t pending)
{
    uint64_t all = (uint64_t)hd_gauge_read(c->m, c->conns.gauge) + pending;
    uint64_t mine = (uint64_t)c->conns_n + c->waits_n;

    return c->conns_n > (c->conns.max * mine + all - 1) / all;
}

/* Nothing idles anywhere, and requests wait here and elsewhere: a worker that has a conn
 * must not keep it for its own for ever. */
static bool is_others_turn(const upool_t *p, const upconn_t *uc)
{
    const upcluster_t *c = p->cluster;
    bool is_over = hd_loop_now_ns(p->loop) - uc->u.born_ns > SLICE_MS * 1000000ull;

    if (is_over && is_endpoint_wanted(p))
        return true;
    return is_wanted_elsewhere(c) &&
           (is_over || has_more_than_share(c, hd_gauge_read(c->m, c->pending.gauge)));
}

void hd_upconn_release(hd_upconn_t *u, bool reusable)
{
    upconn_t *uc = hd_container_of(u, upconn_t, u);
    upool_t *p = u->pool;

    u->active--;
    if (p == NULL)
        return;
    if (u->streams_max == 1 && !reusable)
        u->draining = true;
    if (is_worn(p, uc))
        u->draining = true;
    if (u->active == 0 && p->waits_n > 0 && has_limits(p) && is_others_turn(p, uc)) {
        p->cluster->hold_off_ns = hd_loop_now_ns(p->loop) + HOLD_OFF_MS * 1000000ull;
        u->draining = true;
    }
    if (u->draining && u->active == 0) {
        close_conn(uc);
        return;
    }
    settle_conn(p, uc);
    if (p->waits_n > 0)
        hd_post(p->loop, &p->serve); /* not at once: the codec is in the middle of it */
}

void hd_upool_put_back(hd_upconn_t *u)
{
    upconn_t *uc = hd_container_of(u, upconn_t, u);
    uint64_t since_ns = uc->idle_since_ns;

    if (u->pool == NULL)
        return;
    u->idle_ms = 0;
    settle_conn(u->pool, uc);
    if (uc->is_idle) /* all the time */
        uc->idle_since_ns = since_ns;
    if (u->pool != NULL && u->pool->waits_n > 0)
        hd_post(u->pool->loop, &u->pool->serve);
}

void hd_upconn_gone(hd_upconn_t *u)
{
    upconn_t *uc = hd_container_of(u, upconn_t, u);

    if (u->conn != NULL)
        close_conn(uc);
    else
        take_out(uc); /* taken for a tunnel: counted until that conn ends */
}

/* --- connecting --- */

static void fail_wait(hd_pool_wait_t *w, const hd_err_t *err)
{
    hd_upool_cancel(w);
    w->on_conn(w, NULL, err);
}

/* An attempt failed: HTTP/1, the one that waits longest; HTTP/2, all whom this conn would
 * have served. */
static void fail_waits(upool_t *p, const hd_err_t *err)
{
    uint32_t n = p->multiplexes && p->connecting_n == 0 ? p->waits_n : 1;

    p->is_serving = true; /* callbacks may come back to this pool */
    while (n-- > 0 && !hd_list_is_empty(&p->waits))
        fail_wait(hd_list_entry(p->waits.next, hd_pool_wait_t, _link), err);
    p->is_serving = false;
    hd_post(p->loop, &p->serve);
}

static void on_connect_failed(hd_conn_t *c)
{
    upconn_t *uc = c->owner;
    upool_t *p = uc->u.pool;
    hd_err_t err = {0};

    if (c->err != NULL)
        err = *c->err;
    else
        hd_ignore(hd_err_set(&err, HD_E_RESET,
                             "upstream closed the connection while "
                             "it was being opened"));
    close_conn(uc);
    fail_waits(p, &err);
}

static bool has_alpn(const hd_conn_t *c, hd_str_t name)
{
    return c->facts != NULL && hd_str_eq(c->facts->alpn, name);
}

/* The codec that was agreed on. */
static hd_rc_t open_codec(upool_t *p, upconn_t *uc, hd_err_t *err)
{
    hd_conn_t *c = uc->u.conn;

    uc->u.is_http2 = p->key.protocol == HD_UP_HTTP2 ||
                     (p->key.protocol == HD_UP_AUTO && has_alpn(c, HD_STR("h2")));
    p->multiplexes = true;
    if (p->key.offers_weft && has_alpn(c, HD_STR(HD_WEFT_ALPN)))
        return hd_weft_client_open(&uc->u, err);
    if (uc->u.is_http2)
        return hd_h2_client_open(&uc->u, err);
    p->multiplexes = false;
    return hd_h1_client_open(&uc->u, err);
}

static void on_open(hd_conn_t *c)
{
    upconn_t *uc = c->owner;
    upool_t *p = uc->u.pool;
    hd_err_t err = {0};

    if (open_codec(p, uc, &err) != HD_OK) {
        close_conn(uc);
        fail_waits(p, &err);
        return;
    }
    p->connecting_n--;
    uc->is_open = true;
    settle_conn(p, uc);
    serve_waits(p);
}

static void on_early_bytes(hd_conn_t *c)
{
    (void)c; /* they stay unread until the codec has the conn */
}

static const hd_conn_handler_t connecting_handler = {
    .on_open = on_open, .on_readable = on_early_bytes, .on_closed = on_connect_failed};

/* An idle conn of this cluster (<state>: to this endpoint); NULL: none. */
static upconn_t *find_idle(const upcluster_t *c, const hd_endpoint_state_t *state)
{
    hd_list_each(link, &c->idle)
    {
        upconn_t *uc = hd_list_entry(link, upconn_t, idle_link);

        if (state == NULL || uc->u.pool->endpoint == state)
            return uc;
    }
    return NULL;
}

/* One place: free, or made so by closing an idle conn. */
static bool try_count_at(upool_t *p, hd_breaker_t b, const hd_endpoint_state_t *state)
{
    upconn_t *idle;

    if (hd_gauge_try_up(p->m, b.gauge, b.max))
        return true;
    idle = find_idle(p->cluster, state);
    if (idle == NULL)
        return false;
    close_conn(idle);
    return hd_gauge_try_up(p->m, b.gauge, b.max);
}

/* A place under the cluster's limit and the endpoint's. */
static bool try_count_conn(upool_t *p, hd_gauge_id_t counted[2])
{
    hd_breaker_t of_endpoint = {p->endpoint != NULL ? p->endpoint->conns : HD_GAUGE_NONE,
                                p->endpoint_max};
    hd_breaker_t of_cluster = p->cluster->conns;

    counted[0] = counted[1] = HD_GAUGE_NONE;
    if (has_limits(p) && hd_loop_now_ns(p->loop) < p->cluster->hold_off_ns)
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

static void fill_spec(const upool_t *p, const hd_cluster_t *cluster,
                      hd_socket_spec_t *spec)
{
    const hd_cluster_more_t *more = hd_cluster_more(cluster);

    *spec = (hd_socket_spec_t){
        .bind = p->key.bind,
        .family = p->key.addr.family,
        .type = SOCK_STREAM,
        .nodelay = p->key.addr.family != AF_UNIX,
        .transparent = p->key.transparent,
        .mark = p->key.mark,
        .netns = p->key.netns,
        .keepalive_idle_s = more->tcp_keepalive_idle_s,
        .keepalive_interval_s = more->tcp_keepalive_interval_s,
        .keepalive_probes = more->tcp_keepalive_probes,
    };
}

/* A sidecar chooses its filter chain by what is offered (istio.alpn): between Istio's
 * workloads the offer tells that HTTP follows, and which. Elsewhere: as configured. */
static hd_str_t mesh_alpn(const upool_t *p, hd_str_t offered)
{
    hd_str_t one;

    for (size_t at = 0; at < offered.len; at += 1 + one.len) {
        one = hd_str_sub(offered, at + 1, (unsigned char)offered.data[at]);
        if (hd_str_eq(one, HD_STR("istio")))
            return p->key.protocol == HD_UP_HTTP2
                       ? HD_STR("\010istio-h2\005istio\002h2")
                       : HD_STR("\016istio-http/1.1\005istio\010http/1.1");
    }
    return HD_STR_NONE;
}

/* What is offered anyway, and behind it that we'd rather speak weft: who doesn't know it
 * takes the other. */
static hd_str_t offer_weft(const upool_t *p, hd_str_t alpn, char *to, size_t room)
{
    static const char weft[] = "\015" HD_WEFT_ALPN;

    if (!p->key.offers_weft)
        return alpn;
    if (alpn.len == 0)
        alpn = p->key.protocol == HD_UP_HTTP2 ? HD_STR("\002h2") : HD_STR("\010http/1.1");
    if (alpn.len + sizeof(weft) > room)
        return alpn;
    memcpy(to, alpn.data, alpn.len);
    memcpy(to + alpn.len, weft, sizeof(weft) - 1);
    return hd_str_n(to, alpn.len + sizeof(weft) - 1);
}

static hd_rc_t push_tls(upool_t *p, hd_conn_t *c, const hd_pick_t *pick, hd_err_t *err)
{
    char addr[HD_ADDR_TEXT_MAX], key[512], alpn[256];
    hd_str_t text = hd_addr_print(&p->key.addr, addr);
    hd_tls_client_t ask = {0};
    int n;

    if (pick->tls == NULL)
        return HD_OK;
    n = snprintf(key, sizeof(key), "%.*s|%llu|%.*s|%.*s", HD_STR_ARG(text),
                 (unsigned long long)p->key.secret_version,
                 HD_STR_ARG(p->key.verify_host), HD_STR_ARG(p->key.source_identity));
    ask.session_key = hd_str_n(key, hd_min((size_t)n, sizeof(key) - 1));
    if (!hd_str_eq(p->key.sni, pick->tls->sni))
        ask.sni = p->key.sni;
    ask.alpn = mesh_alpn(p, pick->tls->alpn);
    ask.alpn =
        offer_weft(p, ask.alpn.len > 0 ? ask.alpn : pick->tls->alpn, alpn, sizeof(alpn));
    if (pick->cluster->auto_san && p->key.sni.len > 0)
        ask.verify_host = p->key.sni;
    if (p->key.verify_host.len > 0)
        ask.verify_host = p->key.verify_host;
    return hd_tls_push_client(c, pick->tls, &ask, err);
}

/* HD_AGAIN: max_conns is reached. */
static hd_rc_t start_connect(upool_t *p, const hd_pick_t *pick, uint64_t timeout_ms,
                             hd_err_t *err)
{
    hd_gauge_id_t counted[2];
    hd_socket_spec_t spec;
    hd_conn_t *c;
    upconn_t *uc;

    if (!try_count_conn(p, counted))
        return HD_AGAIN;
    fill_spec(p, pick->cluster, &spec);
    c = hd_conn_connect(p->loop, &p->key.addr, &spec, timeout_ms, &connecting_handler,
                        NULL, err);
    if (c == NULL) {
        for (size_t i = 0; i < hd_countof(counted); i++)
            if (counted[i] != HD_GAUGE_NONE)
                hd_gauge_down(p->m, counted[i]);
        return HD_ERROR;
    }
    uc = hd_pool_new(hd_conn_pool(c), upconn_t);
    uc->u.conn = c;
    uc->u.pool = p;
    uc->u.born_ns = hd_loop_now_ns(p->loop);
    uc->m = p->m;
    memcpy(uc->conns, counted, sizeof(counted));
    hd_pool_defer(hd_conn_pool(c), uncount, uc);
    hd_timer_init(&uc->u.idle, on_idle);
    hd_list_init(&uc->idle_link);
    hd_list_add_last(&p->connecting, &uc->u.link);
    p->conns_n++;
    p->cluster->conns_n++;
    p->connecting_n++;
    table.conns_n++;
    c->is_upstream = true;
    hd_conn_set_handler(c, &connecting_handler, uc);
    if ((p->key.proxy_version != 0 &&
         hd_proxy_push(c, p->key.proxy_version, &p->key.proxy_source, &p->key.proxy_local,
                       HD_STR_NONE, err) != HD_OK) ||
        push_tls(p, c, pick, err) != HD_OK) {
        close_conn(uc);
        return HD_ERROR;
    }
    return HD_OK;
}

/* Conns being opened cover all that wait? */
static bool is_covered(const upool_t *p)
{
    uint64_t each = p->multiplexes ? STREAMS_EXPECTED : 1;

    return p->connecting_n * each >= p->waits_n;
}

/* --- waiting --- */

void hd_upool_cancel(hd_pool_wait_t *w)
{
    upool_t *p = w->_pool;

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

static bool try_add_wait(upool_t *p, hd_pool_wait_t *w)
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

/* Has it idled too long? A request that can't be repeated asks more, and learns. */
static bool is_stale(const upool_t *p, const upconn_t *uc, hd_upool_want_t want)
{
    uint32_t idle_ms;
    hd_rc_t rc;

    if (!uc->is_idle)
        return false;
    idle_ms = idle_ms_of(p, uc);
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

static upconn_t *take_ready(upool_t *p, hd_upool_want_t want)
{
    hd_list_each(link, &p->ready)
    {
        upconn_t *uc = hd_list_entry(link, upconn_t, u.link);

        if (want == HD_UPOOL_FRESH && uc->u.exchanges > 0)
            continue;
        if (is_stale(p, uc, want)) {
            if (uc->u.streams_max == 1) /* those behind it idle longer */
                break;
            continue;
        }
        if (uc->u.draining || uc->u.active >= streams_max(p, uc)) {
            settle_conn(p, uc);
            continue;
        }
        if (is_worn(p, uc)) {
            uc->u.draining = true;
            if (uc->u.active == 0)
                close_conn(uc);
            else
                settle_conn(p, uc);
            continue;
        }
        uc->u.idle_ms = uc->is_idle ? idle_ms_of(p, uc) : 0;
        unlist_idle(uc);
        if (uc->u.active + 1 >= streams_max(p, uc)) { /* this exchange fills it */
            hd_list_remove(&uc->u.link);
            hd_list_add_last(&p->busy, &uc->u.link);
        }
        return uc;
    }
    return NULL;
}

/* The first that waits and can be served, with its conn; NULL: none. */
static hd_pool_wait_t *match_wait(upool_t *p, upconn_t **uc)
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

/* Those that wait get what is ready, in their order; conns are opened for the rest. */
static void serve_waits(upool_t *p)
{
    hd_pool_wait_t *w;
    upconn_t *uc;

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
        rc = start_connect(p, w->_pick, w->_timeout_ms, &err);
        if (rc == HD_ERROR) {
            fail_wait(w, &err);
        } else if (rc == HD_AGAIN) {
            if (!hd_timer_is_set(&p->starved))
                hd_timer_set(p->loop, &p->starved, STARVED_MS);
            break;
        }
    }
    p->is_serving = false;
    destroy_if_unused(p);
}

static hd_pool_wait_t *find_expired(upool_t *p, uint64_t now_ns)
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
static void on_starved(hd_timer_t *t)
{
    upool_t *p = hd_container_of(t, upool_t, starved);
    uint64_t now_ns = hd_loop_now_ns(p->loop);
    hd_pool_wait_t *w;
    hd_err_t err = {0};

    hd_ignore(hd_err_set(&err, HD_E_TIMEOUT, "no upstream connection became free"));
    p->is_serving = true;
    while (!is_covered(p) && (w = find_expired(p, now_ns)) != NULL)
        fail_wait(w, &err);
    p->is_serving = false;
    serve_waits(p);
}

/* --- for tries --- */

static void set_limits(upool_t *p, const hd_pick_t *pick)
{
    const hd_cluster_t *c = pick->cluster;

    p->limits = (limits_t){
        .idle_timeout_ms = c->idle_timeout_ms,
        .keepalive = c->keepalive,
        .requests_per_conn = c->requests_per_conn,
        .conn_lifetime_ms = c->conn_lifetime_ms,
        .max_streams = c->max_streams,
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
        p->secret = pick->tls->certs[0];
}

uint64_t hd_upconn_idle_since(const hd_upconn_t *u)
{
    const upconn_t *uc = hd_container_of(u, upconn_t, u);

    return uc->is_idle ? uc->idle_since_ns : 0;
}

void hd_upconn_stale(hd_upconn_t *u)
{
    upconn_t *uc = hd_container_of(u, upconn_t, u);

    u->draining = true;
    if (u->pool == NULL)
        return;
    if (u->active == 0)
        close_conn(uc);
    else
        settle_conn(u->pool, uc);
}

static void drain_pool(upool_t *p)
{
    p->is_draining = true;
    hd_list_each(link, &p->ready)
    {
        upconn_t *uc = hd_list_entry(link, upconn_t, u.link);

        uc->u.draining = true;
        if (uc->u.active == 0)
            close_conn(uc);
        else
            settle_conn(p, uc);
    }
    hd_list_each(link, &p->busy)
    {
        hd_list_entry(link, upconn_t, u.link)->u.draining = true;
    }
}

static bool has_active(const upool_t *p)
{
    hd_list_each(link, &p->ready)
    {
        if (hd_list_entry(link, upconn_t, u.link)->u.active > 0)
            return true;
    }
    return !hd_list_is_empty(&p->busy);
}

/* Ends another pool of the cluster that nobody uses now. False: there is none. */
static bool try_end_idle_pool(const upool_t *but)
{
    for (size_t i = 0; i < table.room; i++) {
        for (upool_t *p = table.buckets[i]; p != NULL; p = p->next) {
            if (p == but || p->cluster != but->cluster || p->waits_n > 0 ||
                p->counted == HD_GAUGE_NONE || p->connecting_n > 0 || has_active(p))
                continue;
            drain_pool(p);
            hd_gauge_down(p->m, p->counted);
            p->counted = HD_GAUGE_NONE;
            return true;
        }
    }
    return false;
}

/* nginx's max_conns: it stands on the endpoint, whose version may say another. */
static void set_endpoint(upool_t *p, const hd_endpoint_t *e)
{
    bool is_limited = e != NULL && e->max_conns > 0 && e->state != NULL;

    p->endpoint = is_limited ? e->state : NULL;
    p->endpoint_max = is_limited ? e->max_conns : 0;
}

/* A place among the cluster's pools; one that has only idle conns makes room. */
static bool try_count_pool(upool_t *p)
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

hd_rc_t hd_upool_get(hd_loop_t *loop, hd_member_t *m, const hd_upool_key_t *key,
                     const hd_pick_t *pick, uint64_t connect_timeout_ms,
                     hd_upool_want_t want, hd_upconn_t **u, hd_pool_wait_t *wait,
                     hd_err_t *err)
{
    uint64_t hash = hash_key(key);
    upool_t *p = find_pool(key, hash);
    upconn_t *uc;

    if (p == NULL)
        p = create_pool(loop, m, key, hash);
    if (pick->cluster_region == NULL ||
        p->limits.version != pick->cluster_region->version)
        set_limits(p, pick);
    set_endpoint(p, pick->endpoint);
    if (p->conns_n + p->waits_n == 0 && !try_count_pool(p)) {
        hd_post(loop, &p->serve); /* it goes */
        return hd_err_set(err, HD_E_LIMIT, "the cluster has its %u connection pools",
                          p->cluster->pools.max);
    }
    uc = p->waits_n > 0 && want != HD_UPOOL_FRESH ? NULL : take_ready(p, want);
    if (uc != NULL) {
        *u = &uc->u;
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
        hd_rc_t rc = start_connect(p, pick, connect_timeout_ms, err);

        if (rc == HD_ERROR) {
            hd_upool_cancel(wait);
            return HD_ERROR;
        }
        if (rc == HD_AGAIN && !hd_timer_is_set(&p->starved))
            hd_timer_set(loop, &p->starved, STARVED_MS);
    }
    return HD_AGAIN;
}

/* --- draining --- */

static bool has_tls(const hd_cluster_t *c, uint64_t hash)
{
    if (c->tls != NULL && c->tls->hash == hash)
        return true;
    for (uint32_t i = 0; i < c->transports_n; i++) {
        if (c->transports[i].tls != NULL && c->transports[i].tls->hash == hash)
            return true;
    }
    return false;
}

static bool has_endpoint(hd_member_t *m, const hd_cluster_t *c, const hd_addr_t *addr)
{
    const hd_region_t *r;
    const hd_endpoints_t *eps;

    if (c->is_logical || !hd_cluster_has_endpoints(c)) /* original destination: any */
        return true;
    r = hd_cluster_endpoints(m, c);
    if (r == NULL)
        return false;
    eps = r->root;
    for (uint32_t i = 0; i < eps->n; i++) {
        if (hd_addr_eq(&eps->items[i].addr, addr))
            return !c->closes_failed || hd_balancer->is_well(c, &eps->items[i]);
    }
    return false;
}

/* Would a request of now still come to this pool? TLS settings of a route's own aren't
 * found in the cluster; they are in the key, so a pool that lost its route just idles
 * out. */
static bool is_current(hd_member_t *m, const upool_t *p)
{
    const hd_region_t *r = hd_slot_get(m, p->key.cluster);
    const hd_region_t *secret = p->secret == NULL ? NULL : hd_slot_get(m, p->secret);
    const hd_cluster_t *c;

    if (r == NULL)
        return false;
    c = r->root;
    if (p->secret != NULL && (secret == NULL || secret->version != p->key.secret_version))
        return false;
    if (p->key.tls_hash == 0 && c->tls != NULL && c->transports_n == 0)
        return false;
    if (p->key.tls_hash != 0 && (c->tls != NULL || c->transports_n > 0) &&
        !has_tls(c, p->key.tls_hash))
        return false;
    return has_endpoint(m, c, &p->key.addr);
}

static void drain_where(hd_member_t *m, bool all)
{
    for (size_t i = 0; i < table.room; i++) {
        for (upool_t *p = table.buckets[i]; p != NULL; p = p->next) {
            if (!p->is_draining && p->m == m && (all || !is_current(m, p)))
                drain_pool(p);
        }
    }
}

void hd_upool_refresh(hd_member_t *m)
{
    drain_where(m, false);
}

void hd_upool_close_all(hd_loop_t *loop)
{
    for (size_t i = 0; i < table.room; i++) {
        upool_t *p, *next;

        for (p = table.buckets[i]; p != NULL; p = next) {
            next = p->next;
            if (p->loop != loop)
                continue;
            p->is_draining = true;
            p->is_serving = true;
            while (!hd_list_is_empty(&p->ready))
                close_conn(hd_list_entry(p->ready.next, upconn_t, u.link));
            while (!hd_list_is_empty(&p->busy))
                close_conn(hd_list_entry(p->busy.next, upconn_t, u.link));
            while (!hd_list_is_empty(&p->connecting))
                close_conn(hd_list_entry(p->connecting.next, upconn_t, u.link));
            p->is_serving = false;
            destroy_if_unused(p);
        }
    }
    if (table.n == 0) {
        free(table.buckets);
        table.buckets = NULL;
        table.room = 0;
    }
}

const hd_cluster_t *hd_upconn_cluster(const hd_upconn_t *u)
{
    const hd_region_t *r = u->pool == NULL ? NULL
                                           : hd_slot_get(hd_loop_member(u->pool->loop),
                                                         u->pool->key.cluster);

    return r != NULL ? r->root : NULL;
}

size_t hd_upool_conns(void)
{
    return table.conns_n;
}
