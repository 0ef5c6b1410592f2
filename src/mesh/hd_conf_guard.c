#include "mesh/hd_conf_guard.h"
#include "mesh/hd_breakers.h"

#define IN_UPSTREAM (HD_IN_UPSTREAM | HD_IN_STREAM_UPSTREAM)

/* NAME=VALUE; false: no '='. */
static bool split_parameter(hd_str_t arg, hd_str_t *name, hd_str_t *value)
{
    ssize_t eq = hd_str_find_char(arg, '=');

    if (eq <= 0)
        return false;
    *name = hd_str_sub(arg, 0, (size_t)eq);
    *value = hd_str_sub(arg, (size_t)eq + 1, arg.len);
    return true;
}

static hd_rc_t read_number(hd_str_t name, hd_str_t value, uint32_t max, uint32_t *to,
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
            return read_number(name, value, HD_GAUGE_NO_LIMIT - 1, &b->max[i], err);
    }
    if (hd_str_eq(name, HD_STR("retry_budget"))) {
        if (read_percent(name, value, &b->retry_budget_permille, err) != HD_OK)
            return HD_ERROR;
        b->retry_budget_permille *= 10;
        return HD_OK;
    }
    if (hd_str_eq(name, HD_STR("retry_budget_min")))
        return read_number(name, value, HD_GAUGE_NO_LIMIT - 1, &b->retry_budget_min, err);
    return hd_err_set(
        err, HD_E_CONF,
        "unknown parameter \"%.*s\"; allowed are connections=, pending=, "
        "requests=, retries=, pools=, retry_budget=, retry_budget_min=, and "
        "priority=high as the first one",
        HD_STR_ARG(name));
}

static hd_rc_t set_breakers(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    hd_guard_conf_t *g = conf;
    bool is_high = hd_str_eq(args[0], HD_STR("priority=high"));
    hd_breakers_t *b = &g->breakers[is_high];

    if (g->has_breakers[is_high])
        return hd_err_set(err, HD_E_CONF, "\"circuit_breaker\"%s stands here twice",
                          is_high ? " priority=high" : "");
    g->has_breakers[is_high] = true;
    for (size_t i = 0; i < HD_CG_N; i++)
        b->max[i] = HD_GAUGE_NO_LIMIT;
    b->retry_budget_min = 3;
    for (uint32_t i = is_high; i < cf->node->args_n; i++) {
        hd_str_t name = args[i], value = HD_STR_NONE;

        if (!split_parameter(args[i], &name, &value))
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
        if (!hd_breakers_add_high(cf->member, c->name, high))
            return hd_err_set(err, HD_E_LIMIT, "no room for the gauges of \"%.*s\"",
                              HD_STR_ARG(c->name));
        c->high = high;
    }
    hd_breakers_share(cf->member, slot, c);
    return HD_OK;
}

/* --- the block's end --- */

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

uint64_t hd_guard_hash(const hd_guard_conf_t *g, uint64_t h)
{
    h = mix(h, g->breakers, sizeof(g->breakers));
    return mix(h, g->has_breakers, sizeof(g->has_breakers));
}

hd_rc_t hd_guard_apply(hd_conf_t *cf, const hd_guard_conf_t *g, hd_slot_t *slot,
                       hd_cluster_t *c, hd_pool_t *pool, hd_err_t *err)
{
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
    {0},
};

const hd_module_t hd_guard_module = {
    .abi = HD_MODULE_ABI,
    .name = "upstream_guard",
    .directives = directives,
    .conf_size = sizeof(hd_guard_conf_t),
};
