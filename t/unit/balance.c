/* Which endpoint is chosen: orders, distributions, priorities, localities, hashing, and
 * how many endpoints a choice looks at. Random numbers have a fixed seed. */
#include "loom_test.h"
#include "core/base/hd_asan.h"
#include "core/base/hd_hashes.h"
#include "mesh/hd_balance.h"
#include "mesh/hd_balance_int.h"

#include <malloc.h>
#include <stdatomic.h>

#define N_MAX 1000

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *m;
static hd_slot_t *cluster_slot, *endpoints_slot;
static hd_err_t err;

/* What the next publish puts. */
static hd_endpoint_t items[N_MAX];
static uint32_t items_n;
static hd_locality_t localities[8];
static uint32_t localities_n;
static hd_cluster_t cluster;
static hd_mesh_cluster_t conf;

static void start(void)
{
    static const hd_state_conf_t state_conf = {.regions_max = 4096,
                                               .gauges_max = 65536,
                                               .series_max = 64,
                                               .cells_bytes = 4 << 20,
                                               .labels_bytes = 1 << 20};

    state = hd_state_create(&state_conf, &err);
    arena = loom_arena(state, HD_ARENA_DYNAMIC, (size_t)64 << 20);
    m = hd_member_start(state, 0, HD_MEMBER_AGENT, &err);
    hd_member_add_arena(m, arena);
    hd_ignore(hd_arena_open_writer(arena, m, &err) == 0);
    cluster_slot = hd_slot_find_or_add(arena, HD_RES_CLUSTER, HD_STR("c"), &err);
    endpoints_slot = hd_slot_find_or_add(arena, HD_RES_ENDPOINTS, HD_STR("c"), &err);
    hd_ignore(hd_slot_add_gauges(arena, cluster_slot, HD_CG_N, &err) == 0);
    hd_turn_begin(m);
}

/* <n> endpoints of weight 1, healthy, round robin, Envoy's way. */
static void reset(uint32_t n)
{
    memset(items, 0, sizeof(items));
    memset(localities, 0, sizeof(localities));
    localities_n = 0;
    items_n = n;
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (hd_endpoint_t){.weight = 1, .health = 1};
        items[i].addr.family = AF_INET;
        items[i].addr.port = 80;
        memcpy(items[i].addr.v4, (uint8_t[]){10, 0, (uint8_t)(i >> 8), (uint8_t)i}, 4);
    }
    conf = (hd_mesh_cluster_t){.bias = 1};
    cluster = (hd_cluster_t){.name = HD_STR("c"), .panic_percent = 50, .lb_choices = 2};
}

static void publish(void)
{
    hd_batch_t *b = hd_batch_begin(arena);
    hd_pool_t *pool, *temp = hd_pool_create(0);
    hd_region_t *r = hd_batch_region(b, HD_RES_ENDPOINTS, HD_STR("c"), HD_STR("test:1"),
                                     0, &pool, &err);
    hd_endpoints_t *eps = hd_pool_new(pool, hd_endpoints_t);
    hd_endpoint_t *copy = hd_pool_alloc(pool, (items_n + 1) * sizeof(*copy));
    hd_locality_t *locs = hd_pool_alloc(pool, sizeof(localities));
    hd_mesh_cluster_t *mesh;
    hd_cluster_t *c;

    memcpy(copy, items, items_n * sizeof(*copy));
    memcpy(locs, localities, sizeof(localities));
    *eps = (hd_endpoints_t){.items = copy,
                            .n = items_n,
                            .localities = locs,
                            .localities_n = localities_n,
                            .overprovisioning_factor = 140};
    hd_endpoints_attach_state(m, HD_STR("c"), eps, true);
    if (cluster.lb == HD_LB_PEAK_EWMA)
        hd_endpoints_count(m, HD_STR("c"));
    if (conf.table.kind != HD_TABLE_NONE)
        hd_tables_build(eps, &conf.table, pool, temp);
    hd_ignore(hd_batch_put(b, endpoints_slot, r, eps, 0, &err) == 0);
    r = hd_batch_region(b, HD_RES_CLUSTER, HD_STR("c"), HD_STR("test:1"), 0, &pool, &err);
    c = hd_pool_new(pool, hd_cluster_t);
    mesh = hd_pool_new(pool, hd_mesh_cluster_t);
    *mesh = conf;
    *c = cluster;
    c->mesh = mesh;
    c->endpoints = endpoints_slot;
    hd_ignore(hd_batch_put(b, cluster_slot, r, c, 0, &err) == 0);
    hd_ignore(hd_batch_publish(b, 1) == 0);
    hd_pool_destroy(temp);
    hd_turn_sleep(m);
    hd_turn_begin(m);
}

static hd_lb_view_t *view(void)
{
    hd_pick_t p = {.cluster_slot = cluster_slot,
                   .cluster_region = hd_slot_get(m, cluster_slot),
                   .endpoints_region = hd_slot_get(m, endpoints_slot)};

    p.cluster = p.cluster_region->root;
    return hd_lb_view(m, &p, hd_clock_mono_ns(), &err);
}

static void seed(uint64_t n)
{
    view()->random = n;
}

static uint32_t index_of(const hd_endpoint_t *e)
{
    return (
        uint32_t)(e -
                  ((const hd_endpoints_t *)hd_slot_get(m, endpoints_slot)->root)->items);
}

/* The index chosen, held until <p> is released; HD_LB_NOBODY. */
static uint32_t pick(hd_pick_t *p)
{
    hd_err_clear(&err);
    p->cluster_slot = cluster_slot;
    return hd_mesh_balancer.pick(m, p, NULL, &err) == HD_OK ? index_of(p->endpoint)
                                                            : HD_LB_NOBODY;
}

static uint32_t pick_like(hd_pick_t p, hd_pick_result_t result)
{
    uint32_t at = pick(&p);

    if (at != HD_LB_NOBODY)
        hd_mesh_balancer.release(m, &p, result, result == HD_RESULT_OK ? 200 : 0);
    return at;
}

static uint32_t next(void)
{
    return pick_like((hd_pick_t){0}, HD_RESULT_OK);
}

static const char *order(uint32_t n)
{
    static char text[256];

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = next();

        text[i] = at == HD_LB_NOBODY ? '-' : (char)('a' + at);
    }
    text[n] = '\0';
    return text;
}

static uint32_t counts[N_MAX];

static void count(uint32_t n)
{
    memset(counts, 0, sizeof(counts));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = next();

        if (at != HD_LB_NOBODY)
            counts[at]++;
    }
}

static bool is_near(uint32_t n, uint32_t want, uint32_t off)
{
    if (n + off >= want && n <= want + off)
        return true;
    diag("%u, wanted %u +- %u", n, want, off);
    return false;
}

static void eject(uint32_t at, bool on)
{
    const hd_endpoints_t *eps = hd_slot_get(m, endpoints_slot)->root;

    atomic_store(&eps->items[at].state->ejected_until_ns, on ? UINT64_MAX : 0);
    hd_endpoint_health_changed(&eps->items[at]);
}

/* --- policies --- */

static void test_round_robin(void)
{
    reset(3);
    publish();
    is_str(order(6), "abcabc", "round robin");
    items[0].weight = 5;
    publish();
    view()->whole.levels[0].lists[HD_LB_HEALTHY].turn = 0;
    is_str(order(14), "aabacaaaabacaa", "smooth by weight, as nginx");
    for (uint32_t i = 0; i < 3; i++)
        items[i].weight = 1000003 + i;
    publish();
    ok(view()->whole.levels[0].lists[HD_LB_HEALTHY].order->edf.n == 3,
       "weights of too long a period go by deadlines");
    count(3000);
    ok(is_near(counts[0], 1000, 1) && is_near(counts[1], 1000, 1), "as evenly");
    reset(2);
    items[0].weight = 70001;
    items[1].weight = 30001;
    publish();
    count(1000);
    ok(is_near(counts[0], 700, 1), "and by weight");
}

static void test_least_request(void)
{
    hd_pick_t held[8] = {{0}};
    uint32_t seen = 0;

    reset(4);
    cluster.lb = HD_LB_LEAST_REQUEST;
    publish();
    for (int i = 0; i < 4; i++)
        seen |= 1u << pick(&held[i]);
    is_int(seen, 15, "four at a time go to four");
    for (int i = 0; i < 4; i++)
        hd_mesh_balancer.release(m, &held[i], HD_RESULT_OK, 200);
    items[0].weight = 3;
    publish();
    count(600);
    ok(is_near(counts[0], 300, 1), "at rest by weight");
    memset(held, 0, sizeof(held));
    for (uint32_t i = 0; i < 6; i++)
        hd_ignore(pick(&held[i]) == 0);
    memset(counts, 0, sizeof(counts));
    for (uint32_t i = 0; i < 6; i++)
        counts[index_of(held[i].endpoint)]++;
    ok(counts[0] >= 2, "and under load");
    for (int i = 0; i < 6; i++)
        hd_mesh_balancer.release(m, &held[i], HD_RESULT_OK, 200);

    reset(N_MAX);
    cluster.lb = HD_LB_LEAST_REQUEST;
    publish();
    seed(7);
    count(20000);
    seen = 0;
    for (uint32_t i = 0; i < N_MAX; i++)
        seen += counts[i] > 0;
    ok(is_near(seen, 1000, 0), "two choices of a thousand: all get some");
    /* one that is always busy never wins against an idle one */
    reset(20);
    cluster.lb = HD_LB_LEAST_REQUEST;
    publish();
    seed(7);
    memset(held, 0, sizeof(held));
    seen = pick(&held[0]);
    count(4000);
    ok(is_near(counts[seen], 4000 / 400, 10),
       "a busy one is chosen only if both choices fall on it");
    hd_mesh_balancer.release(m, &held[0], HD_RESULT_OK, 200);
    conf.looks_at_all = true;
    publish();
    memset(held, 0, sizeof(held));
    seen = pick(&held[0]);
    count(1000);
    is_int(counts[seen], 0, "FULL_SCAN: never");
    hd_mesh_balancer.release(m, &held[0], HD_RESULT_OK, 200);
    is_int(
        hd_gauge_sum(state, ((const hd_endpoints_t *)hd_slot_get(m, endpoints_slot)->root)
                                ->items[seen]
                                .state->requests),
        0, "no request is left counted");
}

static void test_random(void)
{
    reset(4);
    cluster.lb = HD_LB_RANDOM;
    items[0].weight = 7;
    publish();
    seed(11);
    count(4000);
    ok(is_near(counts[0], 1000, 90) && is_near(counts[3], 1000, 90),
       "random, whatever the weights (Envoy)");
    conf.is_nginx = true;
    publish();
    seed(11);
    count(4000);
    ok(is_near(counts[0], 2800, 120) && is_near(counts[3], 400, 60), "by weight (nginx)");
}

static _Atomic uint64_t *latency_of(const hd_endpoints_t *eps, uint32_t at)
{
    return &hd_endpoint_counts(&eps->items[at])->latency;
}

static void test_peak_ewma(void)
{
    const hd_endpoints_t *eps;

    reset(4);
    cluster.lb = HD_LB_PEAK_EWMA;
    conf.decay_ms = 10000;
    conf.looks_at_all = true;
    publish();
    eps = hd_slot_get(m, endpoints_slot)->root;
    for (uint32_t i = 0; i < 4; i++)
        hd_lb_observe(&conf, &eps->items[i], (i == 2 ? 1u : 9u) * 1000000000ull,
                      hd_clock_mono_ns());
    is_int(next(), 2, "least time: the fastest");
    is_int(atomic_load(latency_of(eps, 0)) >> 32, 9000000, "in microseconds");
    hd_lb_observe(&conf, &eps->items[2], 30000000000u, hd_clock_mono_ns());
    is_int(atomic_load(latency_of(eps, 2)) >> 32, 30000000,
           "a peak counts at once");
    ok(next() != 2, "and leads away");
    hd_lb_observe(&conf, &eps->items[2], 1000000000u,
                  hd_clock_mono_ns() + 10000ull * 1000000);
    ok(is_near((uint32_t)(atomic_load(latency_of(eps, 2)) >> 32),
               (uint32_t)(30000000 * 0.3679 + 1000000 * 0.6321), 20000),
       "after the decay time a third of it is left");
    conf.looks_at_all = false;
    items[1].weight = 1;
    publish();
    eps = hd_slot_get(m, endpoints_slot)->root;
    for (uint32_t i = 0; i < 4; i++)
        atomic_store(latency_of(eps, i), 0);
    hd_lb_observe(&conf, &eps->items[3], 1000000000u, hd_clock_mono_ns());
    seed(9);
    memset(counts, 0, sizeof(counts));
    for (int i = 0; i < 400; i++) { /* held shortly: nothing is observed of a failure */
        uint32_t at = pick_like((hd_pick_t){0}, HD_RESULT_CANCELLED);

        counts[at]++;
    }
    ok(is_near(counts[3], 400 / 16, 14), "two choices: the slow one if both fall on it");
}

/* --- health, priorities, localities --- */

static void test_health(void)
{
    reset(4);
    publish();
    eject(1, true);
    count(300);
    ok(counts[1] == 0 && is_near(counts[0], 100, 1), "an ejected one gets nothing");
    eject(1, false);
    count(400);
    ok(is_near(counts[1], 100, 1), "until it is back");
    eject(0, true);
    eject(1, true);
    eject(2, true);
    count(400);
    ok(is_near(counts[0], 100, 1), "below the panic threshold health isn't looked at");
    cluster.panic_percent = 0;
    publish();
    count(400);
    is_int(counts[3], 400, "no threshold: all to the healthy one");
    eject(3, true);
    is_int(next(), HD_LB_NOBODY, "none is healthy: 503 UH rather than panic");
    is_int(err.code, HD_E_NO_HEALTHY);
    for (uint32_t i = 0; i < 4; i++)
        eject(i, false);
    items[0].health = 3;
    items[1].health = 2;
    items[2].health = 5;
    cluster.panic_percent = 50;
    publish();
    seed(3);
    count(1000);
    /* a quarter healthy, a quarter degraded: not below 50 %; 35 to 35 */
    ok(counts[0] == 0 && counts[1] == 0 && is_near(counts[3], 500, 60) &&
           is_near(counts[2], 500, 60),
       "degraded ones take what the healthy can't");
    items[1].health = 1;
    items[0].health = 1;
    publish();
    count(300);
    is_int(counts[2], 0, "who are enough: none for a degraded one");
}

static void loads(const char *what, uint32_t n, const hd_priority_t *in, uint32_t panic,
                  const char *want)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_str_t text = HD_STR("");
    hd_priority_t list[4];

    memcpy(list, in, n * sizeof(*list));
    hd_priorities_set_loads(list, n, 140, panic);
    for (uint32_t i = 0; i < n; i++)
        text = hd_str_printf(pool, "%.*s%s%u%s", HD_STR_ARG(text), i > 0 ? " " : "",
                             list[i].healthy_load, list[i].in_panic ? "!" : "");
    for (uint32_t i = 0; i < n; i++) {
        if (list[i].degraded_load > 0)
            text = hd_str_printf(pool, "%.*s d%u:%u", HD_STR_ARG(text), i,
                                 list[i].degraded_load);
    }
    is_str(hd_str_to_c(pool, text), want, "%s", what);
    hd_pool_destroy(pool);
}

#define P(h, d, t)                                                                       \
    {                                                                                    \
        .healthy = h, .degraded = d, .total = t                                          \
    }

/* Envoy's documentation, "Priority levels" and "Panic threshold": its tables. */
static void test_priorities(void)
{
    loads("P=0 72 %, P=1 72 %", 2, (hd_priority_t[]){P(72, 0, 100), P(72, 0, 100)}, 50,
          "100 0");
    loads("P=0 71 %", 2, (hd_priority_t[]){P(71, 0, 100), P(72, 0, 100)}, 50, "99 1");
    loads("P=0 50 %", 2, (hd_priority_t[]){P(50, 0, 100), P(72, 0, 100)}, 50, "70 30");
    loads("P=0 25 %", 2, (hd_priority_t[]){P(25, 0, 100), P(100, 0, 100)}, 50, "35 65");
    loads("25 % and 25 %: normalised", 2, (hd_priority_t[]){P(25, 0, 100), P(25, 0, 100)},
          0, "50 50");
    loads("none in P=0", 2, (hd_priority_t[]){P(0, 0, 100), P(100, 0, 100)}, 50, "0 100");
    loads("three: 20 % 20 % 10 %", 3,
          (hd_priority_t[]){P(20, 0, 100), P(20, 0, 100), P(10, 0, 100)}, 0, "40 40 20");
    loads("all in panic: by size", 2, (hd_priority_t[]){P(0, 0, 30), P(0, 0, 10)}, 50,
          "75! 25!");
    loads("none, no panic: to the first", 2, (hd_priority_t[]){P(0, 0, 30), P(0, 0, 10)},
          0, "100 0");
    loads("degraded before the next priority's lack", 2,
          (hd_priority_t[]){P(40, 20, 100), P(0, 0, 10)}, 0, "67 0 d0:33");
    reset(6);
    for (uint32_t i = 2; i < 4; i++)
        items[i].priority = 1;
    for (uint32_t i = 4; i < 6; i++)
        items[i].priority = 2;
    publish();
    seed(5);
    count(100);
    is_int(counts[0] + counts[1], 100, "the best priority");
    eject(0, true);
    count(1000);
    ok(is_near(counts[1], 700, 45) && is_near(counts[2] + counts[3], 300, 45) &&
           counts[4] == 0,
       "half of it: 70 %% stay (DR-LOC-9)");
    eject(1, true);
    count(100);
    is_int(counts[2] + counts[3], 100, "none of it: the next");
    eject(0, false);
    eject(1, false);
}

static void test_localities(void)
{
    reset(4);
    localities_n = 3;
    localities[0].weight = 3;
    localities[1].weight = 1;
    items[2].locality = items[3].locality = 1;
    conf.locality_weighted = true;
    publish();
    count(400);
    ok(is_near(counts[0], 150, 1) && is_near(counts[1], 150, 1) &&
           is_near(counts[2], 50, 1) && is_near(counts[3], 50, 1),
       "localities by their weights, their endpoints in turn");
    eject(0, true);
    eject(1, true);
    cluster.panic_percent = 0;
    publish();
    count(100);
    ok(counts[2] + counts[3] == 100, "one without anybody healthy gets nothing");
    eject(0, false);
    count(1000);
    /* 3 * min(1, 1.4 * 1/2) = 2.1 against 1 */
    ok(is_near(counts[0], 677, 2), "half of it: weight times 0.7");
    eject(1, false);
    localities[0].weight = localities[1].weight = 0;
    publish();
    count(400);
    ok(is_near(counts[0], 100, 1), "no weights: all alike");
}

static void test_slow_start(void)
{
    const hd_endpoints_t *eps;
    uint64_t before_ns;

    reset(2);
    publish();
    conf.slow_start = (hd_slow_start_t){20000, 1, 10};
    publish();
    eps = hd_slot_get(m, endpoints_slot)->root;
    atomic_store(&eps->items[0].state->warm_since_ns, 1);
    atomic_store(&eps->items[1].state->warm_since_ns, hd_clock_mono_ns());
    hd_endpoint_health_changed(&eps->items[0]);
    count(1100);
    ok(is_near(counts[1], 100, 2), "a new one begins with a tenth (DR-LB-10)");
    atomic_store(&eps->items[1].state->warm_since_ns, hd_clock_mono_ns() - 10000000000u);
    count(1500);
    ok(is_near(counts[1], 500, 5), "half of the time later with half");
    items_n = 3;
    items[2] = items[0];
    items[2].addr.v4[0] = 11;
    before_ns = hd_clock_mono_ns();
    publish();
    eps = hd_slot_get(m, endpoints_slot)->root;
    ok(atomic_load(&eps->items[2].state->warm_since_ns) >= before_ns,
       "one that comes later is new");
    is_int(atomic_load(&eps->items[0].state->warm_since_ns), 1, "the others aren't");
    items_n = 2;
    publish();
    items_n = 3;
    before_ns = hd_clock_mono_ns();
    publish();
    eps = hd_slot_get(m, endpoints_slot)->root;
    ok(atomic_load(&eps->items[2].state->warm_since_ns) >= before_ns,
       "and so is one that was away");
}

static void test_tried(void)
{
    hd_addr_t tried[2];

    reset(3);
    publish();
    tried[0] = items[0].addr;
    tried[1] = items[2].addr;
    memset(counts, 0, sizeof(counts));
    for (int i = 0; i < 30; i++)
        counts[pick_like((hd_pick_t){.tried = tried, .tried_n = 2}, HD_RESULT_OK)]++;
    is_int(counts[1], 30, "where earlier tries went is avoided");
    items_n = 1;
    publish();
    is_int(pick_like((hd_pick_t){.tried = tried, .tried_n = 1}, HD_RESULT_OK), 0,
           "unless there is nobody else");
}

static void test_limits(void)
{
    hd_pick_t held[3] = {{0}};

    reset(2);
    conf.is_nginx = true;
    items[0].max_conns = items[1].max_conns = 1;
    publish();
    ok(pick(&held[0]) != pick(&held[1]), "max_conns: each has one");
    is_int(pick(&held[2]), HD_LB_NOBODY, "and no more");
    hd_mesh_balancer.release(m, &held[0], HD_RESULT_OK, 200);
    ok(pick(&held[2]) != HD_LB_NOBODY, "until one is free");
    hd_mesh_balancer.release(m, &held[1], HD_RESULT_OK, 200);
    hd_mesh_balancer.release(m, &held[2], HD_RESULT_OK, 200);
}

static void test_backup(void)
{
    reset(3);
    conf.is_nginx = true;
    items[2].backup = true;
    items[0].max_fails = items[1].max_fails = 1;
    items[0].fail_timeout_s = items[1].fail_timeout_s = 1000;
    publish();
    count(100);
    is_int(counts[2], 0, "a backup waits");
    hd_ignore(pick_like((hd_pick_t){0}, HD_RESULT_CONNECT) == 0);
    count(100);
    is_int(counts[2], 0, "while one of the others serves");
    hd_ignore(pick_like((hd_pick_t){0}, HD_RESULT_CONNECT) == 0);
    count(100);
    is_int(counts[2], 100, "and then has it all");
    eject(0, false);
    eject(1, false);
}

/* --- subsets --- */

static void test_labels(void)
{
    static const hd_kv_t v1[] = {{HD_STR("version"), HD_STR("v1")}},
                         v2[] = {{HD_STR("version"), HD_STR("v2")}},
                         v3[] = {{HD_STR("version"), HD_STR("v3")}};
    static const hd_str_t keys[] = {HD_STR("version")},
                          two[] = {HD_STR("env"), HD_STR("version")};
    static const hd_kv_t both[] = {{HD_STR("version"), HD_STR("v1")},
                                   {HD_STR("env"), HD_STR("test")}};
    hd_subset_selector_t selectors[2] = {
        {.keys = keys, .keys_n = 1},
        {.keys = two, .keys_n = 2, .fallback_keys = keys, .fallback_keys_n = 1}};
    hd_subsets_t subsets = {.selectors = selectors,
                            .selectors_n = 2,
                            .fallback = HD_SUBSET_FALLBACK_NONE,
                            .default_labels = v2,
                            .default_labels_n = 1};
    hd_endpoint_more_t of_v1 = {.labels = v1, .labels_n = 1};
    hd_endpoint_more_t of_v2 = {.labels = v2, .labels_n = 1};
    hd_pick_t want = {.subset = v1, .subset_n = 1};

    reset(4);
    conf.subsets = &subsets;
    for (uint32_t i = 0; i < 4; i++)
        items[i].more = i < 3 ? &of_v1 : &of_v2;
    publish();
    memset(counts, 0, sizeof(counts));
    for (int i = 0; i < 30; i++)
        counts[pick_like(want, HD_RESULT_OK)]++;
    ok(counts[0] == 10 && counts[1] == 10 && counts[2] == 10, "a subset, in turn");
    want.subset = v2;
    is_int(pick_like(want, HD_RESULT_OK), 3, "another one");
    want.subset = v3;
    is_int(pick_like(want, HD_RESULT_OK), HD_LB_NOBODY, "one that nobody is in");
    is_int(next(), HD_LB_NOBODY, "NO_FALLBACK: no labels, nobody");
    subsets.fallback = HD_SUBSET_FALLBACK_DEFAULT;
    is_int(next(), 3, "DEFAULT_SUBSET");
    is_int(pick_like(want, HD_RESULT_OK), 3, "for labels that nobody has, too");
    subsets.fallback = HD_SUBSET_FALLBACK_ANY;
    count(40);
    is_int(counts[0], 10, "ANY_ENDPOINT");
    subsets.fallback = HD_SUBSET_FALLBACK_NONE;
    want.subset = both;
    want.subset_n = 2;
    is_int(pick_like(want, HD_RESULT_OK), HD_LB_NOBODY, "two keys: one is missing");
    selectors[1].fallback = HD_SUBSET_FALLBACK_KEYS;
    ok(pick_like(want, HD_RESULT_OK) < 3, "KEYS_SUBSET: by the other alone");
    selectors[1].fallback = HD_SUBSET_FALLBACK_DEFAULT;
    is_int(pick_like(want, HD_RESULT_OK), 3, "a selector's own fallback");
    subsets.selectors_n = 1;
    is_int(pick_like(want, HD_RESULT_OK), HD_LB_NOBODY, "no selector for such keys");
    subsets.allows_more_keys = true;
    ok(pick_like(want, HD_RESULT_OK) < 3, "allow_redundant_keys: one for some of them");
    conf.subsets = NULL;
    publish();
}

/* --- hashing --- */

static uint32_t by_hash(uint64_t hash)
{
    return pick_like((hd_pick_t){.hash = hash, .has_hash = true}, HD_RESULT_OK);
}

#define KEYS 10000

/* Of KEYS keys: how many each has, and how many move when one goes. */
static void test_hash(const char *what, hd_lb_policy_t lb, hd_table_spec_t spec,
                      uint32_t off)
{
    static uint32_t owner[KEYS];
    uint32_t moved = 0, spread = 0, gone = 0;
    hd_lb_view_t *v;

    reset(10);
    cluster.lb = lb;
    conf.table = spec;
    items[9].weight = 2;
    publish();
    v = view();
    ok(v->whole.levels[0].table ==
           ((const hd_endpoints_t *)hd_slot_get(m, endpoints_slot)->root)->tables,
       "%s: the table is the one in the loom", what);
    memset(counts, 0, sizeof(counts));
    for (uint64_t i = 0; i < KEYS; i++)
        counts[owner[i] = by_hash(hd_xxh64(&i, sizeof(i), 0))]++;
    for (uint32_t i = 0; i < 9; i++)
        spread += is_near(counts[i], KEYS / 11, off);
    ok(spread == 9 && is_near(counts[9], 2 * KEYS / 11, 2 * off), "%s: spread", what);
    eject(4, true);
    for (uint64_t i = 0; i < KEYS; i++) {
        uint32_t at = by_hash(hd_xxh64(&i, sizeof(i), 0));

        moved += at != owner[i] && owner[i] != 4;
        gone += at == 4;
    }
    ok(moved == 0 && gone == 0, "%s: one is ejected: only its keys move", what);
    eject(4, false);
    items[4] = items[9];
    items_n = 9;
    publish();
    moved = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        uint32_t at = by_hash(hd_xxh64(&i, sizeof(i), 0));

        moved += owner[i] != 4 && at != (owner[i] == 9 ? 4 : owner[i]);
    }
    ok(moved < KEYS / 10, "%s: one is removed: %u of %u others move", what, moved,
       KEYS - counts[4]);
}

static void test_bounded(void)
{
    hd_pick_t held[20] = {{0}};
    uint32_t owner;

    reset(4);
    cluster.lb = HD_LB_RING_HASH;
    conf.table =
        (hd_table_spec_t){.kind = HD_TABLE_RING_XX, .min = 1024, .max = HD_RING_MAX};
    conf.balance_percent = 150;
    publish();
    memset(counts, 0, sizeof(counts));
    owner = by_hash(42);
    for (int i = 0; i < 20; i++) {
        held[i] = (hd_pick_t){.hash = 42, .has_hash = true};
        hd_gauge_up(m, cluster_slot->gauges_first + HD_CG_REQUESTS);
        counts[pick(&held[i])]++;
    }
    /* 20 requests, 150 % of a quarter */
    ok(counts[owner] >= 6 && counts[owner] <= 9,
       "one key's requests: its endpoint has %u of 20", counts[owner]);
    for (int i = 0; i < 20; i++) {
        hd_mesh_balancer.release(m, &held[i], HD_RESULT_OK, 200);
        hd_gauge_down(m, cluster_slot->gauges_first + HD_CG_REQUESTS);
    }
    is_int(by_hash(42), owner, "at rest all are its own");
}

static void test_known_hashes(void)
{
    static const struct {
        const char *text;
        uint64_t xx, murmur;
    } rows[] = {
        /* xxHash's own test vectors; what libstdc++'s std::hash<std::string> gives */
        {"", 0xef46db3751d8e999u, 0x553e93901e462a6eu},
        {"a", 0xd24ec4f1a98c6e5bu, 0x454ddee488c1ed6bu},
        {"0123456789abcdef0123456789abcdefXYZ", 0, 0x187aa92dd1bccaecu},
        {"127.0.0.1:8080_0", 0, 0xde6d9b1548538b53u},
        {"Nobody inspects the spammish repetition", 0xfbcea83c8a378bf1u, 0},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        size_t len = strlen(rows[i].text);

        if (rows[i].xx != 0)
            ok(hd_xxh64(rows[i].text, len, 0) == rows[i].xx, "XXH64 of \"%s\"",
               rows[i].text);
        if (rows[i].murmur != 0)
            ok(hd_murmur64(rows[i].text, len, HD_MURMUR_SEED) == rows[i].murmur,
               "MurmurHash64A of \"%s\"", rows[i].text);
    }
    is_int(hd_crc32(0, "123456789", 9), 0xcbf43926, "CRC-32");
    is_int(hd_crc32(hd_crc32(0, "1234", 4), "56789", 5), 0xcbf43926, "in two steps");
}

/* --- what a choice costs --- */

static void cost(const char *what, hd_lb_policy_t lb, uint32_t steps_max)
{
    uint32_t most = 0;
    hd_lb_view_t *v;

    cluster.lb = lb;
    publish();
    v = view();
    for (uint64_t i = 0; i < 500; i++) {
        uint64_t hash = hd_xxh64(&i, sizeof(i), 0);
        hd_pick_t p = {.hash = hash,
                       .has_hash = conf.table.kind != HD_TABLE_NONE,
                       .key = hd_str_n((char *)&hash, 8),
                       .client = &items[i].addr};

        hd_ignore(pick(&p) == 0);
        most = hd_max(most, v->steps);
        hd_mesh_balancer.release(m, &p, HD_RESULT_OK, 200);
    }
    ok(most > 0 && most <= steps_max, "%s: %u steps at most for one of %d", what, most,
       N_MAX);
}

/* log2(1000) is 10. */
static void test_cost(void)
{
    reset(N_MAX);
    cost("round robin", HD_LB_ROUND_ROBIN, 1);
    cost("least request", HD_LB_LEAST_REQUEST, 3);
    cost("random", HD_LB_RANDOM, 1);
    conf.decay_ms = 10000;
    cost("peak EWMA", HD_LB_PEAK_EWMA, 2);
    conf.is_nginx = true;
    cost("hash", HD_LB_KEY_HASH, 2);
    cost("ip_hash", HD_LB_IP_HASH, 2);
    conf.is_nginx = false;
    for (uint32_t i = 0; i < N_MAX; i++)
        items[i].weight = 1000 + i * 7 % 101;
    cost("round robin by weight", HD_LB_ROUND_ROBIN, 21);
    cost("least request by weight", HD_LB_LEAST_REQUEST, 21);
    conf.is_nginx = true;
    cost("random by weight", HD_LB_RANDOM, 11);
    cost("hash by weight", HD_LB_KEY_HASH, 12);
    conf.is_nginx = false;
    conf.table =
        (hd_table_spec_t){.kind = HD_TABLE_RING_XX, .min = 1024, .max = HD_RING_MAX};
    cost("ring hash", HD_LB_RING_HASH, 1);
    conf.table = (hd_table_spec_t){.kind = HD_TABLE_MAGLEV, .max = HD_MAGLEV_DEFAULT};
    cost("Maglev", HD_LB_MAGLEV, 1);
    conf.table = (hd_table_spec_t){0};
    localities_n = 4;
    for (uint32_t i = 0; i < N_MAX; i++) {
        items[i].locality = (uint16_t)(i % 4);
        items[i].priority = (uint8_t)(i % 3);
        localities[i % 4].weight = i % 4 + 1;
    }
    conf.locality_weighted = true;
    cost("by priority, locality and weight", HD_LB_ROUND_ROBIN, 21);
}

/* --- what a worker holds --- */

#if defined(__GLIBC__) && !defined(HD_ASAN)

#define CLUSTERS 400

static void put_cluster(hd_batch_t *b, hd_slot_t **slot, uint32_t number)
{
    hd_pool_t *pool;
    hd_str_t name;
    char text[32];
    hd_slot_t *eps_slot;
    hd_region_t *r;
    hd_endpoints_t *eps;
    hd_endpoint_t *copy;
    hd_cluster_t *c;

    name = hd_str_n(text, (size_t)snprintf(text, sizeof(text), "cluster %u", number));
    eps_slot = hd_slot_find_or_add(arena, HD_RES_ENDPOINTS, name, &err);
    *slot = hd_slot_find_or_add(arena, HD_RES_CLUSTER, name, &err);
    r = hd_batch_region(b, HD_RES_ENDPOINTS, name, HD_STR("test:1"), 0, &pool, &err);
    eps = hd_pool_new(pool, hd_endpoints_t);
    copy = hd_pool_new_n(pool, hd_endpoint_t, items_n);
    memcpy(copy, items, items_n * sizeof(*copy));
    *eps = (hd_endpoints_t){
        .items = copy, .n = items_n, .overprovisioning_factor = 140};
    hd_endpoints_attach_state(m, name, eps, false);
    hd_ignore(hd_batch_put(b, eps_slot, r, eps, 0, &err) == 0);
    r = hd_batch_region(b, HD_RES_CLUSTER, name, HD_STR("test:1"), 0, &pool, &err);
    c = hd_pool_new(pool, hd_cluster_t);
    *c = cluster;
    c->endpoints = eps_slot;
    hd_ignore(hd_batch_put(b, *slot, r, c, 0, &err) == 0);
}

/* Much later: what else was used is let go, one at a time. */
static bool use_later(hd_slot_t *slot)
{
    hd_pick_t p = {.cluster_slot = slot, .cluster_region = hd_slot_get(m, slot)};

    p.cluster = p.cluster_region->root;
    p.endpoints_region = hd_slot_get(m, p.cluster->endpoints);
    return hd_lb_view(m, &p, hd_clock_mono_ns() + 60000000000u, &err) != NULL;
}

static bool use(hd_slot_t *slot)
{
    hd_pick_t p = {.cluster_slot = slot};

    if (hd_mesh_balancer.pick(m, &p, NULL, &err) != HD_OK)
        return false;
    hd_mesh_balancer.release(m, &p, HD_RESULT_OK, 200);
    return true;
}

/* A cluster of ten endpoints, by a worker that has used it: while it is in use, and once
 * it wasn't for a while. Shared state is what all workers have together. */
static void test_memory(void)
{
    static hd_slot_t *slots[CLUSTERS];
    hd_batch_t *b = hd_batch_begin(arena);
    size_t shared = hd_state_bytes_used(state), before, busy, rest;
    bool all = true;

    reset(10);
    for (uint32_t i = 0; i < CLUSTERS; i++)
        put_cluster(b, &slots[i], i);
    hd_ignore(hd_batch_publish(b, 1) == 0);
    hd_turn_sleep(m);
    hd_turn_begin(m);
    ok(use(slots[0]) && use_later(slots[0]), "the clusters of other tests are out of use");
    before = mallinfo2().uordblks;
    for (uint32_t i = 1; i < CLUSTERS; i++)
        all = all && use(slots[i]);
    busy = (mallinfo2().uordblks - before) / (CLUSTERS - 1);
    ok(all && busy <= 512, "a cluster in use: %zu bytes of a worker", busy);
    for (uint32_t i = 1; i < CLUSTERS; i++)
        all = all && use_later(slots[0]);
    rest = (mallinfo2().uordblks - before) / (CLUSTERS - 1);
    ok(all && rest > 0 && rest <= 144, "one that was used: %zu", rest);
    ok(use(slots[CLUSTERS - 1]), "which can be used again");
    shared = (hd_state_bytes_used(state) - shared) / CLUSTERS;
    ok(shared + 4 * rest <= 4 * 512, "of all workers: %zu", shared);
}
#else
static void test_memory(void)
{
    ok(true, "another allocator: nothing to count");
}
#endif

int main(void)
{
    start();
    test_known_hashes();
    test_round_robin();
    test_least_request();
    test_random();
    test_peak_ewma();
    test_health();
    test_priorities();
    test_localities();
    test_slow_start();
    test_tried();
    test_limits();
    test_backup();
    test_labels();
    test_hash(
        "ring by XXH64", HD_LB_RING_HASH,
        (hd_table_spec_t){.kind = HD_TABLE_RING_XX, .min = 1024, .max = HD_RING_MAX},
        350);
    test_hash(
        "ring by MurmurHash2", HD_LB_RING_HASH,
        (hd_table_spec_t){.kind = HD_TABLE_RING_MURMUR2, .min = 1024, .max = HD_RING_MAX},
        350);
    test_hash("Maglev", HD_LB_MAGLEV,
              (hd_table_spec_t){.kind = HD_TABLE_MAGLEV, .max = HD_MAGLEV_DEFAULT}, 120);
    test_bounded();
    test_cost();
    test_memory();
    hd_turn_sleep(m);
    hd_member_stop(m);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
    return done_testing();
}
