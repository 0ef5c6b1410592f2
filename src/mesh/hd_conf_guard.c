#include "mesh/hd_conf_guard.h"
#include "mesh/hd_breakers.h"

#define IN_UPSTREAM (HD_IN_UPSTREAM | HD_IN_STREAM_UPSTREAM)

/* NAME=VALUE; false: no '='. */
bool hd_guard_split(hd_str_t arg, hd_str_t *name, hd_str_t *value)
{
    ssize_t eq = hd_str_find_char(arg, '=');

    if (eq <= 0)
        return false;
    *name = hd_str_sub(arg, 0, (size_t)eq);
    *value = hd_str_sub(arg, (size_t)eq + 1, arg.len);
    return true;
}

hd_rc_t hd_guard_read_number(hd_str_t name, hd_str_t value, uint32_t max, uint32_t *to,
                             hd_err_t *err)
{
    uint64_t n;

    if (!hd_str_to_u64(value, max, &n))
        return hd_err_set(err, HD_E_CONF,
                          "%.*s=\"%.*s\": a number from 0 to %u is expected",
                          HD_STR_ARG(name), HD_STR_ARG(value), max);
    *to = (uint32_t)n;
    return HD_OK;
}

/* "20%" */
static hd_rc_t read_percent(hd_str_t name, hd_str_t value, uint32_t *to, hd_err_t *err)
{
    uint64_t n;

    if (value.len == 0 || value.data[value.len - 1] != '%' ||
        !hd_str_to_u64(hd_str_sub(value, 0, value.len - 1), 100, &n))
        return hd_err_set(err, HD_E_CONF,
                          "%.*s=\"%.*s\": a share from 0%% to 100%% is expected",
                          HD_STR_ARG(name), HD_STR_ARG(value));
    *to = (uint32_t)n;
    return HD_OK;
}

/* --- circuit_breaker --- */

static hd_rc_t set_breaker(hd_breakers_t *b, hd_str_t name, hd_str_t value, hd_err_t *err)
{
    static const char *const names[HD_CG_N] = {[HD_CG_CONNS] = "connections",
                                               [HD_CG_PENDING] = "pending",
                                               [HD_CG_REQUESTS] = "requests",
                                               [HD_CG_RETRIES] = "retries",
                                               [HD_CG_POOLS] = "pools"};

    for (size_t i = 0; i < HD_CG_N; i++) {
        if (hd_str_eq(name, hd_str_c(names[i])))
            return hd_guard_read_number(name, value, HD_GAUGE_NO_LIMIT - 1, &b->max[i],
                                        err);
    }
    if (hd_str_eq(name, HD_STR("retry_budget"))) {
        if (read_percent(name, value, &b->retry_budget_permille, err) != HD_OK)
            return HD_ERROR;
        b->retry_budget_permille *= 10;
        return HD_OK;
    }
    if (hd_str_eq(name, HD_STR("retry_budget_min")))
        return hd_guard_read_number(name, value, HD_GAUGE_NO_LIMIT - 1,
                                    &b->retry_budget_min, err);
    return hd_err_set(
        err, HD_E_CONF,
        "unknown parameter \"%.*s\"; allowed are connections=, pending=, "
        "requests=, retries=, pools=, retry_budget=, retry_budget_min=, and "
        "priority=high",
        HD_STR_ARG(name));
}

static hd_rc_t set_breakers(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    const hd_str_t high = HD_STR("priority=high");
    hd_guard_conf_t *g = conf;
    hd_breakers_t *b;
    bool is_high = false;

    for (uint32_t i = 0; i < cf->node->args_n; i++)
        is_high |= hd_str_eq(args[i], high);
    if (g->has_breakers[is_high])
        return hd_err_set(err, HD_E_CONF, "\"circuit_breaker\"%s stands here twice",
                          is_high ? " priority=high" : "");
    g->has_breakers[is_high] = true;
    b = &g->breakers[is_high];
    for (size_t i = 0; i < HD_CG_N; i++)
        b->max[i] = HD_GAUGE_NO_LIMIT;
    b->retry_budget_min = 3;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_str_t name = args[i], value = HD_STR_NONE;

        if (hd_str_eq(args[i], high))
            continue;
        if (!hd_guard_split(args[i], &name, &value))
            return hd_err_set(err, HD_E_CONF, "\"%.*s\": NAME=VALUE is expected",
                              HD_STR_ARG(args[i]));
        if (set_breaker(b, name, value, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t apply_breakers(hd_conf_t *cf, const hd_guard_conf_t *g, hd_slot_t *slot,
                              hd_cluster_t *c, hd_pool_t *pool, hd_err_t *err)
{
    const hd_breakers_t *b = &g->breakers[0];
    hd_breakers_t *high;

    if (g->has_breakers[0]) {
        c->max_conns = b->max[HD_CG_CONNS];
        c->max_pending = b->max[HD_CG_PENDING];
        c->max_requests = b->max[HD_CG_REQUESTS];
        c->max_retries = b->max[HD_CG_RETRIES];
        c->max_pools = b->max[HD_CG_POOLS];
        c->retry_budget_permille = b->retry_budget_permille;
        c->retry_budget_min = b->retry_budget_min;
    }
    if (cf->member == NULL) /* -t: nothing is counted */
        return HD_OK;
    /* what had limits before keeps its gauges: conns may still be counted there */
    if (g->has_breakers[0] && hd_slot_add_gauges(cf->arena, slot, HD_CG_N, err) != HD_OK)
        return HD_ERROR;
    if (g->has_breakers[1]) {
        high = hd_pool_new(pool, hd_breakers_t);
        *high = g->breakers[1];
        if (!hd_breakers_add_high(cf->member, slot, high))
            return hd_err_set(err, HD_E_LIMIT, "no room for the gauges of \"%.*s\"",
                              HD_STR_ARG(c->name));
        c->high = high;
    }
    hd_breakers_share(cf->member, slot, c);
    return HD_OK;
}

/* --- outlier_detection --- */

typedef enum { NUMBER, SHARE, TIME, PERMILLE } unit_t;

static const struct {
    const char *name;
    size_t offset;
    unit_t unit;
    bool is_byte;
} outlier_parameters[] = {
#define P(name, field, unit)                                                             \
    {                                                                                    \
        name, offsetof(hd_outlier_conf_t, field), unit,                                  \
            sizeof(((hd_outlier_conf_t *)0)->field) == 1                                 \
    }
    P("consecutive_5xx", consecutive_5xx, NUMBER),
    P("consecutive_gateway", consecutive_gateway, NUMBER),
    P("consecutive_local", consecutive_local, NUMBER),
    P("interval", interval_ms, TIME),
    P("base_ejection_time", base_ejection_ms, TIME),
    P("max_ejection_time", max_ejection_ms, TIME),
    P("jitter", jitter_ms, TIME),
    P("max_ejection_percent", max_percent, SHARE),
    P("success_rate_hosts", success_rate_hosts, NUMBER),
    P("success_rate_requests", success_rate_requests, NUMBER),
    P("success_rate_stdev", success_rate_stdev, NUMBER),
    P("failure_percentage", failure_percent, SHARE),
    P("failure_hosts", failure_hosts, NUMBER),
    P("failure_requests", failure_requests, NUMBER),
    P("enforce_5xx", enforce_5xx, SHARE),
    P("enforce_gateway", enforce_gateway, SHARE),
    P("enforce_local", enforce_local, SHARE),
    P("enforce_success_rate", enforce_success_rate, SHARE),
    P("enforce_local_success_rate", enforce_local_success_rate, SHARE),
    P("enforce_failure_percentage", enforce_failure, SHARE),
    P("enforce_local_failure_percentage", enforce_local_failure, SHARE),
#undef P
};

hd_rc_t hd_guard_read_time(hd_str_t name, hd_str_t value, uint32_t *ms, hd_err_t *err)
{
    uint64_t n;

    if (hd_parse_msec(value, &n, err) != HD_OK)
        return HD_ERROR;
    if (n == 0 || n > UINT32_MAX)
        return hd_err_set(err, HD_E_CONF, "%.*s=\"%.*s\": from 1ms to 49 days",
                          HD_STR_ARG(name), HD_STR_ARG(value));
    *ms = (uint32_t)n;
    return HD_OK;
}

static hd_rc_t set_outlier_parameter(hd_guard_conf_t *g, hd_str_t name, hd_str_t value,
                                     hd_err_t *err)
{
    for (size_t i = 0; i < hd_countof(outlier_parameters); i++) {
        char *at = (char *)&g->outlier + outlier_parameters[i].offset;
        uint32_t n = 0;
        hd_rc_t rc;

        if (!hd_str_eq(name, hd_str_c(outlier_parameters[i].name)))
            continue;
        rc = outlier_parameters[i].unit == TIME ? hd_guard_read_time(name, value, &n, err)
             : outlier_parameters[i].unit == SHARE
                 ? read_percent(name, value, &n, err)
                 : hd_guard_read_number(name, value, UINT32_MAX, &n, err);
        if (outlier_parameters[i].is_byte)
            *(uint8_t *)at = (uint8_t)n;
        else
            *(uint32_t *)at = n;
        return rc;
    }
    return hd_err_set(err, HD_E_CONF,
                      "unknown parameter \"%.*s\"; allowed are consecutive_5xx=, "
                      "consecutive_gateway=, consecutive_local=, interval=, "
                      "base_ejection_time=, max_ejection_time=, jitter=, "
                      "max_ejection_percent=, success_rate_…=, "
                      "failure_…=, enforce_…=, split, always_eject_one",
                      HD_STR_ARG(name));
}

static hd_rc_t set_outlier(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_guard_conf_t *g = conf;
    hd_str_t name, value;

    g->has_outlier = true;
    g->outlier = hd_outlier_defaults();
    g->outlier.enforce_success_rate = g->outlier.enforce_local_success_rate = 0;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (hd_str_eq(args[i], HD_STR("split")))
            g->outlier.split = true;
        else if (hd_str_eq(args[i], HD_STR("always_eject_one")))
            g->outlier.always_one = true;
        else if (!hd_guard_split(args[i], &name, &value))
            return set_outlier_parameter(g, args[i], HD_STR_NONE, err);
        else if (set_outlier_parameter(g, name, value, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static void apply_outlier(const hd_guard_conf_t *g, hd_cluster_t *c, hd_pool_t *pool)
{
    hd_outlier_conf_t *o;

    if (!g->has_outlier)
        return;
    c->outlier = o = hd_pool_new(pool, hd_outlier_conf_t);
    *o = g->outlier;
}

/* --- the block's end --- */

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t mix_str(uint64_t h, hd_str_t s)
{
    h = mix(h, &s.len, sizeof(s.len));
    return mix(h, s.data, s.len);
}

static uint64_t hash_check(const hd_check_conf_t *k, uint64_t h)
{
    h = mix(h, k, offsetof(hd_check_conf_t, method));
    h = mix(h, k->expected, k->expected_n * sizeof(*k->expected));
    h = mix_str(mix_str(mix_str(h, k->path), k->host), k->service);
    h = mix_str(h, k->send);
    return k->receive_n > 0 ? mix_str(h, k->receive[0]) : h;
}

static uint64_t hash_match(const hd_node_t *match, uint64_t h)
{
    for (const hd_node_t *n = match != NULL ? match->first : NULL; n != NULL;
         n = n->next) {
        h = mix_str(h, n->name);
        for (uint32_t i = 0; i < n->args_n; i++)
            h = mix_str(h, n->args[i]);
    }
    return h;
}

uint64_t hd_guard_hash(const hd_guard_conf_t *g, uint64_t h)
{
    h = mix(h, g->breakers, sizeof(g->breakers));
    h = mix(h, g->has_breakers, sizeof(g->has_breakers));
    h = mix(h, &g->outlier, sizeof(g->outlier));
    for (const hd_check_draft_t *d = g->checks; d != NULL; d = d->next)
        h = hash_check(&d->check, hash_match(d->match, h));
    return h;
}

hd_rc_t hd_guard_apply(hd_conf_t *cf, const hd_guard_conf_t *g, hd_slot_t *slot,
                       hd_cluster_t *c, hd_pool_t *pool, hd_err_t *err)
{
    cf->build->needs_agent |= g->has_outlier || g->checks != NULL;
    apply_outlier(g, c, pool);
    if (hd_conf_apply_check(cf, g, c, pool, err) != HD_OK)
        return HD_ERROR;
    return apply_breakers(cf, g, slot, c, pool, err);
}

static const hd_directive_t directives[] = {
    {.name = "circuit_breaker",
     .scope = IN_UPSTREAM,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_breakers,
     .help = "[priority=high] [connections=N] [pending=N] [requests=N] [retries=N] "
             "[pools=N] [retry_budget=N%] [retry_budget_min=N]: limits of the whole "
             "group, exact over all workers; what exceeds one is answered 503"},
    {.name = "outlier_detection",
     .scope = IN_UPSTREAM,
     .args_n = 0,
     .args_max = HD_ARGS_ANY,
     .set = set_outlier,
     .help =
         "[consecutive_5xx=N] [consecutive_gateway=N] [consecutive_local=N] [split] "
         "[interval=TIME] [base_ejection_time=TIME] [max_ejection_time=TIME] "
         "[jitter=TIME] [max_ejection_percent=N%] [always_eject_one] "
         "[success_rate_hosts=N] [success_rate_requests=N] "
         "[success_rate_stdev=N] [failure_percentage=N%] [failure_hosts=N] "
         "[failure_requests=N] [enforce_5xx|gateway|local|success_rate|"
         "local_success_rate|failure_percentage|local_failure_percentage=N%]: servers "
         "that fail are left alone for a while; meanings and defaults are Envoy's, "
         "success rates are off"},
    {.name = "health_check",
     .scope = IN_UPSTREAM,
     .args_n = 0,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = hd_conf_set_check,
     .help = "[interval=TIME] [jitter=TIME] [timeout=TIME] [fails=N] [passes=N] "
             "[uri=PATH] [host=NAME] [status=200-399] [port=N] [type=http|grpc|tcp] "
             "[grpc_service=NAME] [send=TEXT] [expect=TEXT] [match=NAME] [mandatory] "
             "[persistent]: the "
             "agent asks each server whether it is well; every 5s, one failure or one "
             "success decides; of several checks all must be good"},
    {.name = "match",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 1,
     .repeats = true,
     .block = hd_conf_enter_match,
     .help =
         "NAME { status [!] 200-399 …; header [!] NAME [=|!=|~|!~ VALUE]; body ~|!~ "
         "REGEX; send TEXT; expect [~] TEXT; }: what a health_check's answer must be; "
         "all of it"},
    {0},
};

const hd_module_t hd_guard_module = {
    .abi = HD_MODULE_ABI,
    .name = "upstream_guard",
    .directives = directives,
    .conf_size = sizeof(hd_guard_conf_t),
};
