/* mesh/hd_outlier: who is ejected, when, for how long, over several workers; nginx's
 * max_fails. */
#include "mesh/hd_outlier.h"
#include "loom_test.h"
#include "mesh/hd_endpoint_state.h"

#include <stdatomic.h>

#define SECOND 1000000000ull
#define HOSTS 6

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *agent, *a, *b;
static hd_outlier_conf_t conf;
static hd_cluster_t cluster = {.name = HD_STR_INIT("c"), .outlier = &conf};
static hd_endpoint_t hosts[HOSTS];
static hd_endpoints_t eps = {.items = hosts};
static uint64_t now_ns;

/* <n> endpoints without a past. */
static void reset(uint32_t n)
{
    static int round;
    char name[32];

    snprintf(name, sizeof(name), "cluster %d", round++);
    conf = hd_outlier_defaults();
    conf.enforce_success_rate = conf.enforce_local_success_rate = 0;
    conf.max_percent = 100;
    memset(hosts, 0, sizeof(hosts));
    for (uint16_t i = 0; i < n; i++)
        hosts[i].addr =
            (hd_addr_t){.family = AF_INET, .v4 = {127, 0, 0, 1}, .port = 1000 + i};
    eps.n = n;
    hd_endpoints_attach_state(agent, hd_str_c(name), &eps, false);
    hd_endpoints_count(agent, hd_str_c(name));
    now_ns += 1000 * SECOND;
    hd_outlier_sweep(agent, &cluster, &eps, now_ns);
}

static void setup(void)
{
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_DYNAMIC, 0);
    agent = hd_member_start(state, -1, HD_MEMBER_AGENT, &loom_err);
    a = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    b = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    if (hd_arena_open_writer(arena, agent, &loom_err) != HD_OK)
        printf("Bail out! %s\n", loom_err.text);
    reset(HOSTS);
    now_ns = SECOND;
}

static void teardown(void)
{
    hd_member_stop(a);
    hd_member_stop(b);
    hd_member_stop(agent);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

static void tell(hd_member_t *m, int host, hd_pick_result_t result, unsigned status)
{
    hd_outlier_report(m, &cluster, &eps, &hosts[host], result, status, false, now_ns);
}

static void tell_n(int host, unsigned status, int n)
{
    for (int i = 0; i < n; i++)
        tell(i % 2 == 0 ? a : b, host, HD_RESULT_OK, status);
}

static bool is_in(int host)
{
    uint64_t until_ns = UINT64_MAX;

    return hd_outlier_may_serve(&hosts[host], now_ns, &until_ns);
}

static int ejected(void)
{
    int n = 0;

    for (uint32_t i = 0; i < eps.n; i++)
        n += !is_in((int)i);
    return n;
}

/* DR-OD-2, DR-OD-13 */
static void test_consecutive(void)
{
    uint32_t seq;

    reset(HOSTS);
    seq = atomic_load(&eps.state->health_seq);
    tell_n(0, 500, 4);
    ok(is_in(0), "four in a row");
    tell_n(0, 200, 1);
    tell_n(0, 500, 4);
    ok(is_in(0), "a good one begins anew");
    is_int(atomic_load(&eps.state->health_seq), seq, "nothing changed for the balancers");
    tell(b, 0, HD_RESULT_OK, 500);
    ok(!is_in(0), "the fifth, whichever worker had it");
    ok(atomic_load(&eps.state->health_seq) != seq, "which they hear");
    ok(is_in(1), "the others stay");

    reset(HOSTS);
    conf.enforce_5xx = 0;
    tell_n(0, 503, 5);
    ok(is_in(0), "not enforced");
    conf.enforce_gateway = 100;
    conf.consecutive_gateway = 3;
    tell_n(1, 503, 2);
    tell_n(1, 500, 1);
    tell_n(1, 504, 2);
    ok(is_in(1), "gateway errors: 500 is none");
    tell_n(1, 502, 1);
    ok(!is_in(1), "three in a row");
}

/* DR-OD-8, DR-OD-9 */
static void test_local(void)
{
    reset(HOSTS);
    for (int i = 0; i < 5; i++)
        tell(a, 0, i % 2 == 0 ? HD_RESULT_CONNECT : HD_RESULT_TIMEOUT, 0);
    ok(!is_in(0), "failures of our own count as 5xx");
    for (int i = 0; i < 10; i++)
        tell(a, 1, HD_RESULT_CANCELLED, 0);
    ok(is_in(1), "what was given up says nothing");

    reset(HOSTS);
    conf.split = true;
    conf.consecutive_local = 3;
    conf.consecutive_5xx = 2;
    tell(a, 0, HD_RESULT_CONNECT, 0);
    tell(a, 0, HD_RESULT_RESET, 0);
    tell(a, 0, HD_RESULT_OK, 500);
    ok(is_in(0), "split: a response, even a bad one, is no failure to connect");
    tell(a, 0, HD_RESULT_CONNECT, 0);
    tell(a, 0, HD_RESULT_CONNECT, 0);
    ok(is_in(0), "and a failure to connect is no 5xx");
    tell(b, 0, HD_RESULT_CONNECT, 0);
    ok(!is_in(0), "three of them");
}

/* DR-OD-4, DR-OD-5 */
static void test_time(void)
{
    reset(HOSTS);
    conf.base_ejection_ms = 1000;
    conf.max_ejection_ms = 2500;
    tell_n(0, 500, 5);
    now_ns += SECOND - 1;
    ok(!is_in(0), "base_ejection_time");
    now_ns += 1;
    ok(is_in(0), "is over by itself");
    is_int(atomic_load(&eps.state->ejected_n), 1, "its place is still taken");
    hd_outlier_sweep(agent, &cluster, &eps, now_ns);
    is_int(atomic_load(&eps.state->ejected_n), 0, "the agent gives it back");
    tell_n(0, 500, 5);
    now_ns += 2 * SECOND - 1;
    ok(!is_in(0), "the second time twice as long");
    now_ns += 1;
    ok(is_in(0));
    tell_n(0, 500, 5);
    now_ns += 2500 * SECOND / 1000 - 1;
    ok(!is_in(0), "the third time at most max_ejection_time");
    now_ns += 1;
    ok(is_in(0));
    for (int i = 0; i < 4; i++) {
        now_ns += conf.interval_ms * 1000000ull;
        hd_outlier_sweep(agent, &cluster, &eps, now_ns);
    }
    tell_n(0, 500, 5);
    now_ns += SECOND;
    ok(is_in(0), "good intervals are forgiven");

    reset(HOSTS);
    conf.base_ejection_ms = 1000;
    conf.jitter_ms = 500;
    for (int i = 0; i < HOSTS; i++)
        tell_n(i, 500, 5);
    now_ns += SECOND - 1;
    is_int(ejected(), HOSTS, "jitter only makes it longer");
    now_ns += SECOND / 2 + 1;
    is_int(ejected(), 0, "and not by more than it says");
}

/* DR-OD-6: as a real Envoy does it: 60 % of four are two, 10 % of four are none. */
static void test_share(void)
{
    reset(4);
    conf.max_percent = 60;
    for (int i = 0; i < 4; i++)
        tell_n(i, 500, 5);
    is_int(ejected(), 2, "60 percent of four");
    now_ns += 30 * SECOND;
    tell_n(2, 500, 5);
    tell_n(3, 500, 5);
    ok(is_in(0) && is_in(1) && !is_in(2) && !is_in(3),
       "places of those whose time is over are free, without a sweep");
    reset(4);
    conf.max_percent = 10;
    tell_n(0, 500, 5);
    is_int(ejected(), 0, "10 percent of four");
    conf.always_one = true;
    tell_n(0, 500, 5);
    tell_n(1, 500, 5);
    is_int(ejected(), 1, "always_eject_one_host");

    reset(4);
    conf.max_percent = 25;
    atomic_store(&eps.state->ejected_n, 1); /* a worker died with a place in its hand */
    tell_n(0, 500, 5);
    is_int(ejected(), 0, "a lost place");
    hd_outlier_sweep(agent, &cluster, &eps, now_ns);
    hd_outlier_sweep(agent, &cluster, &eps, now_ns);
    tell_n(0, 500, 5);
    is_int(ejected(), 1, "is found");
}

static void next_interval(void)
{
    now_ns += conf.interval_ms * 1000000ull;
    hd_outlier_sweep(agent, &cluster, &eps, now_ns);
}

static void tell_rate(int host, int good, int bad)
{
    tell_n(host, 200, good);
    for (int i = 0; i < bad; i++)
        tell(b, host, HD_RESULT_OK, 500);
}

static void test_rates(void)
{
    reset(HOSTS);
    conf.consecutive_5xx = 0;
    conf.enforce_success_rate = 100;
    for (int i = 0; i < HOSTS; i++)
        tell_rate(i, i == 3 ? 60 : 99, i == 3 ? 40 : 1);
    is_int(ejected(), 0, "success rates are compared at the interval's end");
    next_interval();
    ok(!is_in(3) && ejected() == 1, "far below the others");
    now_ns += 60 * SECOND;
    for (int i = 0; i < HOSTS; i++)
        tell_rate(i, i == 3 ? 59 : 99, i == 3 ? 40 : 1); /* 99 requests */
    next_interval();
    is_int(ejected(), 0, "too few requests to tell");
    for (int i = 0; i < 4; i++)
        tell_rate(i, i == 3 ? 60 : 99, i == 3 ? 40 : 1);
    next_interval();
    is_int(ejected(), 0, "too few hosts to tell");

    reset(HOSTS);
    conf.consecutive_5xx = 0;
    conf.enforce_failure = 100;
    conf.failure_percent = 50;
    for (int i = 0; i < HOSTS; i++)
        tell_rate(i, i < 2 ? 24 : 26, i < 2 ? 26 : 24);
    next_interval();
    ok(!is_in(0) && !is_in(1) && ejected() == 2, "failure percentage");

    reset(HOSTS);
    conf.consecutive_local = 0;
    conf.split = true;
    conf.enforce_local_failure = 100;
    for (int i = 0; i < HOSTS; i++)
        for (int k = 0; k < 50; k++)
            tell(a, i, i == 5 ? HD_RESULT_CONNECT : HD_RESULT_OK, 200);
    next_interval();
    ok(!is_in(5) && ejected() == 1, "the same of failures to connect");
}

static void test_check(void)
{
    reset(HOSTS);
    tell_n(0, 500, 5);
    conf.uneject_by_check = false;
    hd_outlier_checked(agent, &cluster, &eps, &hosts[0]);
    ok(!is_in(0), "an active check has no say");
    conf.uneject_by_check = true;
    hd_outlier_checked(agent, &cluster, &eps, &hosts[0]);
    ok(is_in(0), "or it ends the ejection");
    is_int(atomic_load(&eps.state->ejected_n), 0);
}

/* nginx: ngx_http_upstream_round_robin.c's fails, checked, accessed. */
static void test_max_fails(void)
{
    hd_endpoint_t *e = &hosts[0];

    reset(2);
    cluster.outlier = NULL;
    e->max_fails = 2;
    e->fail_timeout_s = 10;
    tell(a, 0, HD_RESULT_CONNECT, 0);
    tell(a, 0, HD_RESULT_OK, 500);
    ok(is_in(0), "one failure; a status is none");
    hd_outlier_report(b, &cluster, &eps, e, HD_RESULT_OK, 503, true, now_ns);
    ok(!is_in(0), "unless another server was asked for it");
    now_ns += 10 * SECOND;
    ok(!is_in(0), "for fail_timeout");
    now_ns += 1;
    ok(is_in(0), "then it may be tried");
    ok(hd_outlier_try_begin(e, now_ns), "by one");
    ok(!hd_outlier_try_begin(e, now_ns) && !is_in(0), "and nobody else");
    tell(b, 0, HD_RESULT_CONNECT, 0);
    ok(!is_in(0), "in vain");
    now_ns += 10 * SECOND + 1;
    ok(hd_outlier_try_begin(e, now_ns));
    tell(a, 0, HD_RESULT_OK, 200);
    ok(is_in(0) && hd_outlier_try_begin(e, now_ns), "it lives");
    tell(a, 0, HD_RESULT_CONNECT, 0);
    ok(is_in(0), "and has all its failures again");
    cluster.outlier = &conf;
}

int main(void)
{
    setup();
    test_consecutive();
    test_local();
    test_time();
    test_share();
    test_rates();
    test_check();
    test_max_fails();
    teardown();
    return done_testing();
}
