/* Pools of upstream conns: who shares one, who waits, limits, idle and worn conns, what a
 * new configuration drains. */
#include "http_test.h"
#include "http/hd_peer_idle.h"

typedef struct {
    hd_pool_wait_t wait;
    hd_pick_t pick;
    hd_upconn_t *u;
    bool failed;
    hd_err_code_t code;
    hd_exchange_t *x;
} want_t;

static hd_addr_t up_addr;
static hd_pool_t *pool;

static const hd_exchange_user_t no_user = {0};

static void on_conn(hd_pool_wait_t *w, hd_upconn_t *u, const hd_err_t *e)
{
    want_t *want = hd_container_of(w, want_t, wait);

    want->u = u;
    want->failed = u == NULL;
    want->code = u == NULL ? e->code : HD_E_NONE;
    if (u != NULL)
        want->x = hd_exchange_begin(u, pool, &no_user, want);
}

static hd_upool_key_t key_now(void)
{
    return (hd_upool_key_t){
        .cluster = cluster_slot, .addr = up_addr, .protocol = HD_UP_HTTP1};
}

static hd_rc_t get_by(want_t *w, const hd_upool_key_t *key, bool fresh)
{
    hd_rc_t rc;

    memset(w, 0, sizeof(*w));
    w->wait.on_conn = on_conn;
    w->pick.cluster_slot = cluster_slot;
    w->pick.cluster = cluster;
    w->pick.addr = key->addr;
    hd_err_clear(&err);
    rc = hd_upool_get(loop, member, key, &w->pick, 5000,
                      fresh ? HD_UPOOL_FRESH : HD_UPOOL_ANY, &w->u, &w->wait, &err);
    if (rc == HD_OK)
        w->x = hd_exchange_begin(w->u, pool, &no_user, w);
    return rc;
}

static hd_rc_t get(want_t *w)
{
    hd_upool_key_t key = key_now();

    return get_by(w, &key, false);
}

/* Nothing was sent: the conn goes back as it was. */
static void put_back(want_t *w)
{
    w->x->upconn->codec->cancel(w->x);
    w->x = NULL;
}

static unsigned gauge(unsigned which)
{
    return hd_gauge_sum(state, cluster_slot->gauges_first + which);
}

static void reset(void)
{
    int fd;

    hd_upool_close_all(loop);
    turn_some(loop);
    fcntl(up_listen_fd, F_SETFL, O_NONBLOCK);
    while ((fd = accept(up_listen_fd, NULL, NULL)) >= 0) /* or its queue is full once */
        close(fd);
    reset_conf();
    for (unsigned i = 0; i < HD_CG_N; i++)
        hd_gauge_share(member, cluster_slot->gauges_first + i, true);
}

static void test_reuse(void)
{
    want_t a, b;

    reset();
    is_int(get(&a), HD_AGAIN, "the first waits for a conn");
    is_int(gauge(HD_CG_PENDING), 1);
    turn_until(loop, a.u != NULL);
    is_int(gauge(HD_CG_PENDING), 0);
    is_int(gauge(HD_CG_CONNS), 1);
    put_back(&a);
    is_int(get(&b), HD_OK, "the second gets it at once");
    ok(b.u == a.u);
    put_back(&b);
    is_int(hd_upool_conns(), 1);
}

/* Each part of the key by itself, of the same length where it is a text: the table's hash
 * has lengths in it, so that only the comparison tells these apart. */
static void test_keys(void)
{
    const hd_slot_t *other_slot =
        hd_slot_find_or_add(arena, HD_RES_CLUSTER, HD_STR("other"), &err);
    hd_upool_key_t all = key_now(), other;
    want_t a, b;

    all.source_identity = HD_STR("spiffe://a");
    all.sni = HD_STR("one.test");
    all.verify_host = HD_STR("one.test");
    all.own_cert = HD_STR("ann.crt");
    all.own_key = HD_STR("ann.key");
    all.bind = (hd_addr_t){.family = AF_INET, .v4 = {127, 0, 0, 1}};

#define DIFFERS(what, ...)                                                               \
    reset();                                                                             \
    get_by(&a, &all, false);                                                             \
    turn_until(loop, a.u != NULL);                                                       \
    put_back(&a);                                                                        \
    is_int(get_by(&b, &all, false), HD_OK, "the same key shares it");                    \
    put_back(&b);                                                                        \
    other = all;                                                                         \
    __VA_ARGS__;                                                                         \
    ok(get_by(&b, &other, false) != HD_OK, "no conn is shared across " what);            \
    hd_upool_cancel(&b.wait)

    DIFFERS("protocols", other.protocol = HD_UP_AUTO);
    DIFFERS("TLS settings", other.tls_hash = 1);
    DIFFERS("certificates", other.secret_version = 7);
    DIFFERS("identities", other.source_identity = HD_STR("spiffe://b"));
    DIFFERS("no identity", other.source_identity = HD_STR_NONE);
    DIFFERS("server names", other.sni = HD_STR("two.test"));
    DIFFERS("names that the peer must have", other.verify_host = HD_STR("two.test"));
    DIFFERS("names of our certificate", other.own_cert = HD_STR("bob.crt"));
    DIFFERS("no certificate of ours", other.own_cert = other.own_key = HD_STR_NONE);
    DIFFERS("names of its key", other.own_key = HD_STR("bob.key"));
    DIFFERS("marks", other.mark = 1);
    DIFFERS("namespaces", other.netns = 1);
    DIFFERS("bind addresses", other.bind.v4[3] = 2);
    DIFFERS("no bind address", other.bind = (hd_addr_t){0});
    DIFFERS("transparency", other.transparent = true);
    DIFFERS("endpoints (original destinations)", other.addr.port ^= 1);
    DIFFERS("clusters", other.cluster = other_slot);
    DIFFERS("priorities", other.is_high = true);
    DIFFERS("offers of weft", other.offers_weft = true);

    all.proxy_version = 1;
    all.proxy_source = all.proxy_local =
        (hd_addr_t){.family = AF_INET, .v4 = {1, 2, 3, 4}, .port = 1000};
    DIFFERS("PROXY versions", other.proxy_version = 2);
    DIFFERS("PROXY sources", other.proxy_source.v4[3] = 5);
    DIFFERS("PROXY sources' ports", other.proxy_source.port = 1001);
    DIFFERS("PROXY destinations", other.proxy_local.v4[3] = 5);
    DIFFERS("PROXY destinations' ports", other.proxy_local.port = 1001);
}

/* Waiting takes whatever is free first; each that waits has a conn under way. */
static void test_queue(void)
{
    want_t a, b, c;

    reset();
    cluster->max_conns = 1;
    get(&a);
    is_int(get(&b), HD_AGAIN);
    is_int(get(&c), HD_AGAIN);
    is_int(hd_upool_conns(), 1, "max_conns");
    turn_until(loop, a.u != NULL);
    turn_some(loop);
    ok(b.u == NULL && c.u == NULL, "the others wait");
    put_back(&a);
    ok(b.u == NULL, "not served from within a codec's call");
    turn_some(loop);
    ok(b.u == a.u && c.u == NULL, "in order");
    hd_upool_cancel(&c.wait);
    put_back(&b);
    turn_some(loop);
    ok(c.u == NULL && !c.failed, "who has cancelled hears nothing");
    is_int(gauge(HD_CG_PENDING), 0);

    reset();
    cluster->max_pending = 1;
    is_int(get(&a), HD_AGAIN);
    is_int(get(&b), HD_ERROR, "max_pending");
    is_int(err.code, HD_E_LIMIT);
    turn_until(loop, a.u != NULL);
    put_back(&a);

    reset();
    cluster->max_conns = 1;
    get(&a);
    turn_until(loop, a.u != NULL);
    get(&b);
    tick(5001);
    turn_until(loop, b.failed);
    is_int(b.code, HD_E_TIMEOUT, "nobody waits for ever");
    put_back(&a);
}

/* An idle conn of another pool makes room under the cluster's limit. */
static void test_room(void)
{
    hd_upool_key_t other = key_now();
    want_t a, b;

    reset();
    cluster->max_conns = 1;
    get(&a);
    turn_until(loop, a.u != NULL);
    put_back(&a);
    other.mark = 0;
    other.sni = HD_STR("other");
    is_int(get_by(&b, &other, false), HD_AGAIN);
    turn_until(loop, b.u != NULL);
    is_int(gauge(HD_CG_CONNS), 1, "one was given up for the other");
    put_back(&b);
}

/* What idles here is given up when another worker waits at the limit. */
static void test_given_up(void)
{
    want_t a;

    reset();
    cluster->max_conns = 1;
    get(&a);
    turn_until(loop, a.u != NULL);
    put_back(&a);
    tick(101);
    is_int(hd_upool_conns(), 1, "nobody waits");
    hd_gauge_up(member, cluster_slot->gauges_first + HD_CG_PENDING); /* elsewhere */
    tick(101);
    is_int(hd_upool_conns(), 0, "somebody does");
    hd_gauge_down(member, cluster_slot->gauges_first + HD_CG_PENDING);
}

/* A pool is a key: one that only idles makes room for another. */
static void test_pools(void)
{
    hd_upool_key_t other = key_now();
    want_t a, b;

    reset();
    cluster->max_pools = 1;
    other.sni = HD_STR("other");
    get(&a);
    turn_until(loop, a.u != NULL);
    is_int(get_by(&b, &other, false), HD_ERROR, "max_pools: the other one is in use");
    is_int(err.code, HD_E_LIMIT);
    put_back(&a);
    is_int(get_by(&b, &other, false), HD_AGAIN, "it idles: it ends");
    turn_until(loop, b.u != NULL);
    is_int(gauge(HD_CG_POOLS), 1);
    is_int(get(&a), HD_ERROR, "and the other way round");
    put_back(&b);
}

static void test_refused(void)
{
    hd_upool_key_t key = key_now();
    want_t a, b;
    int fd;

    reset();
    fd = tcp_listen(&key.addr);
    close(fd);
    get_by(&a, &key, false);
    get_by(&b, &key, false);
    turn_until(loop, a.failed && b.failed);
    pass("each hears that nobody listens");
    turn_some(loop);
    is_int(hd_upool_conns(), 0);
    is_int(gauge(HD_CG_CONNS), 0);
    is_int(gauge(HD_CG_PENDING), 0);
}

/* Two conns for each request: when the first can't be opened the other may still be. */
static void test_ahead(void)
{
    static const hd_cluster_more_t twice = {.preconnect_percent = 200};
    hd_upool_key_t key = key_now();
    want_t a;
    int fd;

    reset();
    cluster->more = &twice;
    get(&a);
    is_int(hd_upool_conns(), 2, "one more than asked for");
    turn_until(loop, a.u != NULL);
    turn_some(loop);
    is_int(hd_upool_conns(), 2);
    put_back(&a);
    is_int(get(&a), HD_OK);
    is_int(hd_upool_conns(), 2, "there are two for one");
    put_back(&a);

    reset();
    cluster->more = &twice;
    fd = tcp_listen(&key.addr);
    close(fd);
    get_by(&a, &key, false);
    turn_until(loop, a.failed);
    turn_some(loop);
    is_int(hd_upool_conns(), 0, "nobody listens: it hears so once both have failed");
    cluster->more = NULL;
}

static void test_idle(void)
{
    want_t a, b;

    reset();
    cluster->idle_timeout_ms = 1000;
    get(&a);
    turn_until(loop, a.u != NULL);
    put_back(&a);
    tick(900);
    is_int(get(&b), HD_OK);
    tick(900);
    is_int(hd_upool_conns(), 1, "a busy conn doesn't idle out");
    put_back(&b);
    tick(900);
    is_int(hd_upool_conns(), 1, "used: its time begins anew");
    tick(200);
    is_int(hd_upool_conns(), 0, "idle for too long");

    reset();
    cluster->keepalive = 1;
    get(&a);
    get(&b);
    turn_until(loop, a.u != NULL && b.u != NULL);
    put_back(&a);
    put_back(&b);
    turn_some(loop);
    is_int(hd_upool_conns(), 1, "so many are kept and no more");

    reset();
    cluster->keepalive = 0;
    get(&a);
    turn_until(loop, a.u != NULL);
    put_back(&a);
    turn_some(loop);
    is_int(hd_upool_conns(), 0, "none");
}

static void test_worn(void)
{
    want_t a;

    reset();
    cluster->requests_per_conn = 2;
    get(&a);
    turn_until(loop, a.u != NULL);
    put_back(&a);
    is_int(get(&a), HD_OK);
    put_back(&a);
    turn_some(loop);
    is_int(hd_upool_conns(), 0, "two requests wear it out");

    reset();
    cluster->conn_lifetime_ms = 1000;
    get(&a);
    turn_until(loop, a.u != NULL);
    put_back(&a);
    tick(1001);
    is_int(get(&a), HD_AGAIN, "too old");
    turn_until(loop, a.u != NULL);
    put_back(&a);
    tick(999);
    turn_some(loop);
    is_int(hd_upool_conns(), 1, "its time isn't over");
    tick(2);
    turn_some(loop);
    is_int(hd_upool_conns(), 0, "an idle one ends with its time");
}

static void test_fresh(void)
{
    hd_upool_key_t key = key_now();
    want_t a, b;

    reset();
    get(&a);
    turn_until(loop, a.u != NULL);
    put_back(&a);
    a.u->exchanges = 1; /* as if it had carried one */
    is_int(get_by(&b, &key, true), HD_AGAIN, "a fresh one is asked for");
    turn_until(loop, b.u != NULL);
    ok(b.u != a.u);
    put_back(&b);
}

/* What a conn carries is cancelled: it may come too late to be used again. */
static void carry_one(want_t *w)
{
    hd_req_t *req = new_request("GET", "/up");

    w->x->upconn->codec->send_head(w->x, req, false, 0);
    w->x->upconn->codec->cancel(w->x);
    w->x = NULL;
    hd_request_client_gone(req, HD_E_RESET, "left");
    turn_some(loop);
}

/* Whether <w> gets its conn while time passes, <ms> in each turn: a conn that isn't given
 * to who waits for it is opened again and again, so turns are counted. */
static bool is_served(const want_t *w, uint64_t ms)
{
    for (int i = 0; i < 500 && w->u == NULL; i++) {
        now_ns += ms * 1000000;
        hd_loop_turn(loop, 1);
    }
    return w->u != NULL;
}

/* A conn that comes when it is past its time, or of an upstream that lets none idle, is
 * still for who waits for it. */
static void test_late(void)
{
    want_t a, b;

    reset();
    cluster->conn_lifetime_ms = 1;
    get(&a);
    ok(is_served(&a, 10), "older than it may get when it opens: used once");
    if (a.u != NULL)
        put_back(&a);

    reset();
    get(&a);
    turn_until(loop, a.u != NULL);
    hd_upconn_peer_told(a.u, 0); /* Keep-Alive: timeout=0 */
    carry_one(&a);
    is_int(get(&b), HD_AGAIN);
    ok(is_served(&b, 0), "none may idle: a fresh one is used");
    is_int(hd_upool_conns(), 1, "and it was the first");
    if (b.u != NULL)
        put_back(&b);
    is_int(get(&a), HD_AGAIN, "what idles isn't");
    ok(is_served(&a, 0), "but another fresh one");
    if (a.u != NULL)
        put_back(&a);
    hd_peer_idle_forget();
}

static hd_endpoint_t *the_endpoint;

/* The cluster has one endpoint, ours. */
static void set_endpoint(void)
{
    hd_slot_t *eps_slot;
    hd_endpoints_t *eps;
    hd_pool_t *region_pool;
    hd_region_t *r;
    hd_batch_t *b;

    hd_turn_begin(member);
    eps_slot = hd_slot_find_or_add(arena, HD_RES_ENDPOINTS, HD_STR("up"), &err);
    b = hd_batch_begin(arena);
    r = hd_batch_region(b, HD_RES_ENDPOINTS, HD_STR("up"), HD_STR("test:3"), 0,
                        &region_pool, &err);
    eps = hd_pool_new(region_pool, hd_endpoints_t);
    the_endpoint = hd_pool_new(region_pool, hd_endpoint_t);
    the_endpoint->addr = up_addr;
    eps->items = the_endpoint;
    eps->n = 1;
    hd_bug_on(hd_batch_put(b, eps_slot, r, eps, 0, &err) != HD_OK);
    hd_batch_publish(b, hd_clock_mono_ns());
    cluster->endpoints = eps_slot;
    hd_turn_begin(member);
}

static void drain_by_refresh(void)
{
    the_endpoint->addr.port++;
    hd_turn_begin(member);
    hd_upool_refresh(member);
    the_endpoint->addr.port--;
}

/* A pool that is drained while its first conns are being opened: who waits is served, and
 * nothing is left of it. */
static void test_drained_while_opening(void)
{
    hd_upool_key_t key = key_now();
    want_t a, b, c;

    reset();
    set_endpoint();
    get(&a);
    get(&b);
    drain_by_refresh();
    ok(is_served(&a, 0) && is_served(&b, 0), "who waited when it was drained got a conn");
    if (a.u == NULL || b.u == NULL) /* nobody ever will */
        return;
    is_int(get(&c), HD_AGAIN, "the next one is another pool's");
    turn_until(loop, c.u != NULL);
    put_back(&a);
    put_back(&b);
    turn_some(loop);
    is_int(hd_upool_conns(), 1, "theirs are closed when they are free");
    put_back(&c);

    reset();
    set_endpoint();
    key.protocol = HD_UP_HTTP2;
    get_by(&a, &key, false);
    get_by(&b, &key, false);
    drain_by_refresh();
    ok(is_served(&a, 0) && is_served(&b, 0) && a.u == b.u, "HTTP/2: one conn for both");
    put_back(&a);
    put_back(&b);
    turn_some(loop);
    is_int(hd_upool_conns(), 0, "and none is left");

    reset();
    set_endpoint();
    get(&a);
    drain_by_refresh();
    hd_upool_cancel(&a.wait);
    is_int(hd_upool_conns(), 1);
    while (hd_upool_conns() > 0) /* it opens, and nobody waits any more */
        hd_loop_turn(loop, 1);
    pass("nor one that came when nobody waited");
    cluster->endpoints = NULL;
}

/* The cluster's new version has another address: the old conns go. */
static void test_refresh(void)
{
    want_t a, busy;

    reset();
    set_endpoint();
    get(&a);
    get(&busy);
    turn_until(loop, a.u != NULL && busy.u != NULL);
    put_back(&a);
    hd_upool_refresh(member);
    is_int(hd_upool_conns(), 2, "all is as it was");
    the_endpoint->addr.port++;
    hd_upool_refresh(member);
    turn_some(loop);
    is_int(hd_upool_conns(), 1, "the idle conn of an endpoint that went is closed");
    put_back(&busy);
    turn_some(loop);
    is_int(hd_upool_conns(), 0, "the busy one when it is free");
    cluster->endpoints = NULL;
}

int main(void)
{
    start_bench();
    up_addr = lb.addrs[0];
    pool = hd_pool_create(0);
    test_reuse();
    test_keys();
    test_queue();
    test_room();
    test_given_up();
    test_pools();
    test_refused();
    test_idle();
    test_ahead();
    test_worn();
    test_fresh();
    test_late();
    test_drained_while_opening();
    test_refresh();
    hd_upool_close_all(loop);
    turn_some(loop);
    hd_pool_destroy(pool);
    end_bench();
    return done_testing();
}
