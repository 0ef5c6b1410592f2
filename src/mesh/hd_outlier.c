#include "mesh/hd_outlier.h"
#include "core/base/hd_log.h"
#include "core/loom/hd_series.h"
#include "core/os/hd_os.h"
#include "mesh/hd_endpoint_state.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#define load(word) atomic_load_explicit(word, memory_order_relaxed)
#define store(word, value) atomic_store_explicit(word, value, memory_order_relaxed)
#define add(word, n) atomic_fetch_add_explicit(word, n, memory_order_relaxed)

static const char *const names[HD_OUTLIER_KINDS_N] = {
    [HD_OUTLIER_5XX] = "consecutive_5xx",
    [HD_OUTLIER_GATEWAY] = "consecutive_gateway_failure",
    [HD_OUTLIER_LOCAL] = "consecutive_local_origin_failure",
    [HD_OUTLIER_SUCCESS_RATE] = "success_rate",
    [HD_OUTLIER_LOCAL_SUCCESS_RATE] = "local_origin_success_rate",
    [HD_OUTLIER_FAILURE_PERCENTAGE] = "failure_percentage",
    [HD_OUTLIER_LOCAL_FAILURE_PERCENTAGE] = "local_origin_failure_percentage",
};

const char *hd_outlier_name(hd_outlier_kind_t kind)
{
    return names[kind];
}

hd_outlier_conf_t hd_outlier_defaults(void)
{
    return (hd_outlier_conf_t){
        .consecutive_5xx = 5,
        .consecutive_gateway = 5,
        .consecutive_local = 5,
        .interval_ms = 10000,
        .base_ejection_ms = 30000,
        .max_ejection_ms = 300000,
        .success_rate_hosts = 5,
        .success_rate_requests = 100,
        .success_rate_stdev = 1900,
        .failure_percent = 85,
        .failure_hosts = 5,
        .failure_requests = 50,
        .max_percent = 10,
        .enforce_5xx = 100,
        .enforce_local = 100,
        .enforce_success_rate = 100,
        .enforce_local_success_rate = 100,
        .uneject_by_check = true,
    };
}

/* --- metrics --- */

static void count(hd_member_t *m, const hd_cluster_t *c, const char *kind,
                  const char *outcome)
{
    static const char *const labels[] = {"cluster", "kind", "outcome", NULL};
    static const hd_family_t family = {
        .name = "heddle_outlier_ejections_total",
        .help = "Endpoints found to be outliers: ejected, or why they weren't.",
        .kind = HD_COUNTER,
        .labels = labels};
    const hd_str_t values[] = {c->name, hd_str_c(kind), hd_str_c(outcome)};

    hd_counter_add(m, hd_series_enter(m, hd_family_enter(m, &family), values), 1);
}

static void show_active(hd_member_t *m, const hd_cluster_t *c, uint32_t n)
{
    static const char *const labels[] = {"cluster", NULL};
    static const hd_family_t family = {.name = "heddle_outlier_ejections_active",
                                       .help = "Endpoints ejected now.",
                                       .kind = HD_SERIES_GAUGE,
                                       .labels = labels};

    hd_series_set(m, hd_series_enter(m, hd_family_enter(m, &family), &c->name), n);
}

/* --- ejecting --- */

static uint32_t random_below(uint32_t n)
{
    uint32_t r;

    hd_os_random(&r, sizeof(r));
    return r % n;
}

/* A place among those that may be ejected at once (Envoy: strictly below the share). */
static bool try_take_place(const hd_outlier_conf_t *o, const hd_endpoints_t *eps)
{
    uint32_t n = load(&eps->state->ejected_n);

    do {
        if ((uint64_t)(n + 1) * 100 > (uint64_t)o->max_percent * eps->n &&
            !(n == 0 && o->always_one))
            return false;
    } while (!atomic_compare_exchange_weak(&eps->state->ejected_n, &n, n + 1));
    return true;
}

static void give_place(const hd_endpoints_t *eps)
{
    uint32_t n = load(&eps->state->ejected_n);

    while (n > 0 && !atomic_compare_exchange_weak(&eps->state->ejected_n, &n, n - 1))
        ;
}

static void end_ejection(const hd_cluster_t *c, const hd_endpoints_t *eps,
                         const hd_endpoint_t *e, uint64_t until)
{
    char text[HD_ADDR_TEXT_MAX];

    if (!atomic_compare_exchange_strong(&e->state->ejected_until_ns, &until, 0))
        return;
    give_place(eps);
    hd_endpoint_health_changed(e);
    hd_log(HD_LOG_NOTICE, "upstream \"%.*s\": server %.*s is used again",
           HD_STR_ARG(c->name), HD_STR_ARG(hd_addr_print(&e->addr, text)));
}

/* Those whose time ends until <by_ns>. */
static void end_due(const hd_cluster_t *c, const hd_endpoints_t *eps, uint64_t by_ns)
{
    for (uint32_t i = 0; i < eps->n; i++) {
        const hd_endpoint_t *e = &eps->items[i];
        uint64_t until = e->state != NULL ? load(&e->state->ejected_until_ns) : 0;

        if (until != 0 && until <= by_ns)
            end_ejection(c, eps, e, until);
    }
}

/* base × times ejected, at most max_ejection_time; then the jitter. */
static uint64_t ejection_ms(const hd_outlier_conf_t *o, hd_endpoint_counts_t *n)
{
    uint64_t max = hd_max(o->max_ejection_ms, o->base_ejection_ms);
    uint32_t times = load(&n->ejections);

    if ((uint64_t)times * o->base_ejection_ms < max)
        times = add(&n->ejections, 1) + 1;
    return hd_min((uint64_t)times * o->base_ejection_ms, max) +
           (o->jitter_ms > 0 ? random_below(o->jitter_ms + 1) : 0);
}

static void eject(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                  const hd_endpoint_t *e, hd_outlier_kind_t kind, uint8_t enforced,
                  uint64_t now_ns)
{
    const hd_outlier_conf_t *o = c->outlier;
    uint64_t until = load(&e->state->ejected_until_ns), ms;
    char text[HD_ADDR_TEXT_MAX];

    if (until > now_ns || eps->state == NULL)
        return;
    if (random_below(100) >= enforced) {
        count(m, c, names[kind], "not_enforced");
        return;
    }
    end_due(c, eps, now_ns);
    if (!try_take_place(o, eps)) {
        count(m, c, names[kind], "overflow");
        return;
    }
    ms = ejection_ms(o, hd_endpoint_counts(e));
    until = 0;
    if (!atomic_compare_exchange_strong(&e->state->ejected_until_ns, &until,
                                        now_ns + ms * 1000000)) {
        give_place(eps); /* another worker did it */
        return;
    }
    hd_endpoint_health_changed(e);
    count(m, c, names[kind], "ejected");
    hd_log(HD_LOG_WARN, "upstream \"%.*s\": server %.*s is ejected for %llu ms: %s",
           HD_STR_ARG(c->name), HD_STR_ARG(hd_addr_print(&e->addr, text)),
           (unsigned long long)ms, names[kind]);
}

/* --- Envoy's judgement of a request --- */

/* True once <allowed> failures in a row are full. The counter starts anew then, whether
 * or not it ejects. */
static bool is_full(_Atomic uint32_t *failures, uint32_t allowed)
{
    if (allowed == 0 || add(failures, 1) + 1 < allowed)
        return false;
    store(failures, 0);
    return true;
}

static void reset(_Atomic uint32_t *failures)
{
    if (load(failures) != 0) /* else the line stays as it is in all caches */
        store(failures, 0);
}

/* Requests and good ones of the interval: [requests:32][good:32]. */
static void note_rate(_Atomic uint64_t *window, bool is_good)
{
    add(window, (uint64_t)1 << 32 | is_good);
}

static void judge_status(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                         const hd_endpoint_t *e, unsigned status, uint64_t now_ns)
{
    const hd_outlier_conf_t *o = c->outlier;
    hd_endpoint_counts_t *s = hd_endpoint_counts(e);

    if (o->enforce_success_rate > 0 || o->enforce_failure > 0)
        note_rate(&s->window, status < 500);
    if (status < 500) {
        reset(&s->failures_5xx);
        reset(&s->failures_gateway);
        return;
    }
    if (status < 502 || status > 504)
        reset(&s->failures_gateway);
    else if (is_full(&s->failures_gateway, o->consecutive_gateway))
        eject(m, c, eps, e, HD_OUTLIER_GATEWAY, o->enforce_gateway, now_ns);
    if (is_full(&s->failures_5xx, o->consecutive_5xx))
        eject(m, c, eps, e, HD_OUTLIER_5XX, o->enforce_5xx, now_ns);
}

static void judge_local(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                        const hd_endpoint_t *e, bool is_good, uint64_t now_ns)
{
    const hd_outlier_conf_t *o = c->outlier;
    hd_endpoint_counts_t *s = hd_endpoint_counts(e);

    if (o->enforce_local_success_rate > 0 || o->enforce_local_failure > 0)
        note_rate(&s->window_local, is_good);
    if (is_good)
        reset(&s->failures_local);
    else if (is_full(&s->failures_local, o->consecutive_local))
        eject(m, c, eps, e, HD_OUTLIER_LOCAL, o->enforce_local, now_ns);
}

static void judge(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                  const hd_endpoint_t *e, hd_pick_result_t result, unsigned status,
                  uint64_t now_ns)
{
    bool is_local = result != HD_RESULT_OK;

    if (c->outlier->split) {
        judge_local(m, c, eps, e, !is_local, now_ns);
        if (is_local)
            return;
    }
    if (is_local)
        status = result == HD_RESULT_TIMEOUT ? 504 : 503;
    judge_status(m, c, eps, e, status, now_ns);
}

/* --- nginx's --- */

static uint64_t fail_timeout_ns(const hd_endpoint_t *e)
{
    return (uint64_t)e->fail_timeout_s * 1000000000;
}

static bool has_failed(const hd_endpoint_t *e)
{
    return e->max_fails > 0 && load(&e->state->fails) >= e->max_fails;
}

static void fail(const hd_cluster_t *c, const hd_endpoint_t *e, uint64_t now_ns)
{
    hd_endpoint_state_t *s = e->state;
    uint64_t timeout_ns = fail_timeout_ns(e);
    char text[HD_ADDR_TEXT_MAX];

    store(&s->accessed_ns, now_ns);
    store(&s->checked_ns, now_ns);
    if (add(&s->fails, 1) + 1 < e->max_fails)
        return;
    hd_endpoint_health_changed(e);
    hd_log(HD_LOG_WARN,
           "upstream server temporarily disabled: %.*s of \"%.*s\", for %llu s",
           HD_STR_ARG(hd_addr_print(&e->addr, text)), HD_STR_ARG(c->name),
           (unsigned long long)(timeout_ns / 1000000000));
}

/* One that was tried again after its time lives; failures before that are forgotten. */
static void succeed(const hd_cluster_t *c, const hd_endpoint_t *e, uint64_t now_ns)
{
    hd_endpoint_state_t *s = e->state;
    bool was_out;

    if (load(&s->fails) == 0 || load(&s->accessed_ns) >= load(&s->checked_ns))
        return;
    was_out = has_failed(e);
    store(&s->fails, 0);
    if (!was_out)
        return;
    if (c->outlier == NULL)
        store(&s->ejected_until_ns, now_ns); /* slow_start counts from here */
    hd_endpoint_health_changed(e);
}

/* --- what the balancer asks and tells --- */

bool hd_outlier_may_serve(const hd_endpoint_t *e, uint64_t now_ns, uint64_t *until_ns)
{
    uint64_t until = 0;

    if (e->state == NULL)
        return true;
    if (has_failed(e))
        until = load(&e->state->checked_ns) + fail_timeout_ns(e) + 1;
    until = hd_max(until, load(&e->state->ejected_until_ns));
    if (until <= now_ns)
        return true;
    *until_ns = hd_min(*until_ns, until);
    return false;
}

bool hd_outlier_try_begin(const hd_endpoint_t *e, uint64_t now_ns)
{
    hd_endpoint_state_t *s = e->state;
    uint64_t checked;

    if (s == NULL || e->max_fails == 0 || load(&s->fails) == 0)
        return true;
    checked = load(&s->checked_ns);
    if (now_ns - checked <= fail_timeout_ns(e))
        return !has_failed(e);
    /* the time is over: one request, of whichever worker, tries it */
    return atomic_compare_exchange_strong(&s->checked_ns, &checked, now_ns) ||
           !has_failed(e);
}

void hd_outlier_report(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                       const hd_endpoint_t *e, hd_pick_result_t result, unsigned status,
                       bool was_failure, uint64_t now_ns)
{
    if (e->state == NULL || result == HD_RESULT_CANCELLED)
        return;
    if (e->max_fails > 0) {
        if (result != HD_RESULT_OK || was_failure)
            fail(c, e, now_ns);
        else
            succeed(c, e, now_ns);
    }
    if (c->outlier != NULL && hd_endpoint_counts(e) != NULL)
        judge(m, c, eps, e, result, status, now_ns);
}

void hd_outlier_checked(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                        const hd_endpoint_t *e)
{
    hd_endpoint_counts_t *s = hd_endpoint_counts(e);
    uint64_t until = s != NULL ? load(&e->state->ejected_until_ns) : 0;

    (void)m;
    if (c->outlier == NULL || !c->outlier->uneject_by_check || until == 0)
        return;
    store(&s->ejections, 0);
    reset(&s->failures_5xx);
    reset(&s->failures_gateway);
    reset(&s->failures_local);
    end_ejection(c, eps, e, until);
}

/* --- the interval --- */

typedef struct {
    const hd_endpoint_t *endpoint;
    double rate; /* of good ones, percent */
    uint32_t requests;
} rate_t;

/* Hosts that had enough requests; those ejected aren't judged again. */
static uint32_t take_rates(const hd_endpoints_t *eps, bool is_local, rate_t *rates,
                           uint64_t now_ns)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < eps->n; i++) {
        hd_endpoint_counts_t *s = hd_endpoint_counts(&eps->items[i]);
        uint64_t window;

        if (s == NULL)
            continue;
        window = atomic_exchange(is_local ? &s->window_local : &s->window, 0);
        if (window >> 32 == 0 || load(&eps->items[i].state->ejected_until_ns) > now_ns)
            continue;
        rates[n++] = (rate_t){.endpoint = &eps->items[i],
                              .rate = 100.0 * (uint32_t)window / (double)(window >> 32),
                              .requests = (uint32_t)(window >> 32)};
    }
    return n;
}

/* Below the mean by so many standard deviations. */
static void compare_rates(hd_member_t *m, const hd_cluster_t *c,
                          const hd_endpoints_t *eps, const rate_t *rates, uint32_t n,
                          bool is_local, uint64_t now_ns)
{
    const hd_outlier_conf_t *o = c->outlier;
    double sum = 0, squares = 0, mean, least;
    uint32_t valid = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (rates[i].requests < o->success_rate_requests)
            continue;
        sum += rates[i].rate;
        valid++;
    }
    if (valid == 0 || valid < o->success_rate_hosts)
        return;
    mean = sum / valid;
    for (uint32_t i = 0; i < n; i++)
        if (rates[i].requests >= o->success_rate_requests)
            squares += (rates[i].rate - mean) * (rates[i].rate - mean);
    least = mean - o->success_rate_stdev / 1000.0 * sqrt(squares / valid);
    for (uint32_t i = 0; i < n; i++)
        if (rates[i].requests >= o->success_rate_requests && rates[i].rate < least)
            eject(m, c, eps, rates[i].endpoint,
                  is_local ? HD_OUTLIER_LOCAL_SUCCESS_RATE : HD_OUTLIER_SUCCESS_RATE,
                  is_local ? o->enforce_local_success_rate : o->enforce_success_rate,
                  now_ns);
}

static void compare_failures(hd_member_t *m, const hd_cluster_t *c,
                             const hd_endpoints_t *eps, const rate_t *rates, uint32_t n,
                             bool is_local, uint64_t now_ns)
{
    const hd_outlier_conf_t *o = c->outlier;
    uint32_t valid = 0;

    for (uint32_t i = 0; i < n; i++)
        valid += rates[i].requests >= o->failure_requests;
    if (valid == 0 || valid < o->failure_hosts)
        return;
    for (uint32_t i = 0; i < n; i++)
        if (rates[i].requests >= o->failure_requests &&
            100.0 - rates[i].rate >= o->failure_percent)
            eject(m, c, eps, rates[i].endpoint,
                  is_local ? HD_OUTLIER_LOCAL_FAILURE_PERCENTAGE
                           : HD_OUTLIER_FAILURE_PERCENTAGE,
                  is_local ? o->enforce_local_failure : o->enforce_failure, now_ns);
}

static void compare(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                    bool is_local, uint64_t now_ns)
{
    const hd_outlier_conf_t *o = c->outlier;
    bool by_rate =
        (is_local ? o->enforce_local_success_rate : o->enforce_success_rate) > 0;
    bool by_share = (is_local ? o->enforce_local_failure : o->enforce_failure) > 0;
    rate_t *rates;
    uint32_t n;

    if ((!by_rate && !by_share) || (is_local && !o->split))
        return;
    rates = calloc(eps->n + 1, sizeof(*rates));
    hd_bug_on(rates == NULL);
    n = take_rates(eps, is_local, rates, now_ns);
    if (by_rate)
        compare_rates(m, c, eps, rates, n, is_local, now_ns);
    if (by_share)
        compare_failures(m, c, eps, rates, n, is_local, now_ns);
    free(rates);
}

/* A worker that died between taking a place and using it, or the other way round, leaves
 * the count wrong; what is wrong at two sweeps in the same way is no step under way. */
static void heal_count(const hd_endpoints_t *eps, uint32_t ejected)
{
    uint32_t n = load(&eps->state->ejected_n);
    uint32_t wrong = n == ejected ? 0 : n + 1;

    if (wrong != 0 && eps->state->ejected_wrong == wrong)
        hd_ignore(!atomic_compare_exchange_strong(&eps->state->ejected_n, &n, ejected));
    eps->state->ejected_wrong = wrong;
}

void hd_outlier_sweep(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                      uint64_t now_ns)
{
    hd_endpoints_state_t *h = eps->state;
    uint32_t ejected = 0;

    if (h == NULL)
        return;
    if (c->outlier == NULL) { /* any more, if there are any */
        if (load(&h->ejected_n) > 0)
            end_due(c, eps, UINT64_MAX);
        store(&h->ejected_n, 0);
        if (h->ejected_shown != 0)
            show_active(m, c, 0);
        h->ejected_shown = 0;
        return;
    }
    end_due(c, eps, now_ns);
    if (now_ns >= h->compare_at_ns) {
        if (h->compare_at_ns != 0) { /* else the first interval begins */
            for (uint32_t i = 0; i < eps->n; i++) {
                hd_endpoint_counts_t *s = hd_endpoint_counts(&eps->items[i]);

                if (s != NULL && load(&eps->items[i].state->ejected_until_ns) == 0 &&
                    load(&s->ejections) > 0)
                    hd_ignore(add(&s->ejections, -1u) == 0);
            }
            compare(m, c, eps, false, now_ns);
            compare(m, c, eps, true, now_ns);
        }
        h->compare_at_ns = now_ns + (uint64_t)c->outlier->interval_ms * 1000000;
    }
    for (uint32_t i = 0; i < eps->n; i++)
        ejected += eps->items[i].state != NULL &&
                   load(&eps->items[i].state->ejected_until_ns) != 0;
    heal_count(eps, ejected);
    if (ejected > 0 || h->ejected_shown != 0)
        show_active(m, c, ejected);
    h->ejected_shown = ejected;
}
