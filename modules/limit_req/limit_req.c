/* limit_req: how many requests a second, for each value of a key, over all workers:
 *     limit_req_zone $binary_remote_addr zone=one:10m rate=10r/s;
 *     limit_req zone=one burst=20 delay=5;
 * What is more than the burst is refused (503), what is more than the delay waits. */
#include "hd_module.h"
#include "lib/limit.h"
#include "lib/rand.h"

#define CELL_KIND 0x4c524551u /* "LREQ" */
#define LIMITS_MAX 16
#define BURST_MAX 1000000u
#define NO_DELAY UINT32_MAX

typedef struct {
    limit_zone_t base;
    hd_rates_t *table; /* in the state arena; NULL: nothing but a test of the file */
    uint64_t token_ns;
} zone_t;

typedef struct {
    limit_use_t use;
    uint32_t burst;
    uint32_t delay; /* so many in excess don't wait */
} limit_t;

typedef struct {
    limit_zones_t zones;
    limit_t *limits;
    uint32_t limits_n;
    hd_attr_t told; /* $limit_req_status */
    uint32_t status, log_level;
    bool dry_run;
} limit_conf_t;

static const zone_t *zone_of(const limit_t *l)
{
    return (const zone_t *)l->use.zone;
}

/* --- directives --- */

static bool take_prefix(hd_str_t *arg, const char *prefix)
{
    if (!hd_str_has_prefix(*arg, hd_str_c(prefix)))
        return false;
    *arg = hd_str_sub(*arg, strlen(prefix), arg->len);
    return true;
}

/* NAME:SIZE */
static hd_rc_t parse_zone(hd_conf_t *cf, hd_str_t text, zone_t *zone, hd_err_t *err)
{
    ssize_t colon = hd_str_find_char(text, ':');

    if (colon <= 0)
        return hd_err_set(err, HD_E_CONF,
                          "invalid zone \"%.*s\": zone=NAME:SIZE is meant",
                          HD_STR_ARG(text));
    return limit_parse_zone(cf, text, (size_t)colon, HD_RATES_BYTES_MIN, &zone->base.name,
                            &zone->base.bytes, err);
}

static hd_rc_t parse_rate(hd_str_t text, uint64_t *token_ns, hd_err_t *err)
{
    uint64_t n, per_s = hd_str_has_suffix(text, HD_STR("r/m")) ? 60 : 1;

    if (text.len < 4 || (per_s == 1 && !hd_str_has_suffix(text, HD_STR("r/s"))) ||
        !hd_str_to_u64(hd_str_sub(text, 0, text.len - 3), 1000000, &n) || n == 0)
        return hd_err_set(err, HD_E_CONF,
                          "invalid rate \"%.*s\": 1 to 1000000, with r/s or r/m",
                          HD_STR_ARG(text));
    *token_ns = per_s * UINT64_C(1000000000) / n;
    return HD_OK;
}

/* Its memory: found again by the next configuration if key and size are the same. */
static hd_rc_t make_table(hd_conf_t *cf, hd_str_t key, zone_t *zone, hd_err_t *err)
{
    hd_str_t name = hd_str_printf(cf->temp, "%.*s %zu %.*s", HD_STR_ARG(zone->base.name),
                                  zone->base.bytes, HD_STR_ARG(key));

    if (cf->member == NULL)
        return HD_OK;
    zone->table = hd_cell_get(cf->member, CELL_KIND, name, zone->base.bytes);
    if (zone->table == NULL)
        return hd_err_set(err, HD_E_LIMIT,
                          "no room for zone \"%.*s\" of %zu bytes: all zones together "
                          "have some 60 MB",
                          HD_STR_ARG(zone->base.name), zone->base.bytes);
    hd_rates_init(zone->table, rand_next());
    return HD_OK;
}

static hd_rc_t add_zone(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    limit_conf_t *lc = conf;
    zone_t *zone = hd_pool_new(cf->pool, zone_t);

    for (uint32_t i = 1; i < cf->node->args_n; i++) {
        hd_str_t arg = args[i];
        hd_rc_t rc = take_prefix(&arg, "zone=") ? parse_zone(cf, arg, zone, err)
                     : take_prefix(&arg, "rate=")
                         ? parse_rate(arg, &zone->token_ns, err)
                         : hd_err_set(err, HD_E_CONF,
                                      "invalid parameter "
                                      "\"%.*s\": zone= and rate= "
                                      "are allowed",
                                      HD_STR_ARG(arg));

        if (rc != HD_OK)
            return rc;
    }
    if (zone->base.name.len == 0 || zone->token_ns == 0)
        return hd_err_set(err, HD_E_CONF, "both zone=NAME:SIZE and rate= are needed");
    if (limit_add_zone(cf, &lc->zones, &zone->base, args[0], err) != HD_OK)
        return HD_ERROR;
    return make_table(cf, args[0], zone, err);
}

static hd_rc_t parse_limit(hd_conf_t *cf, hd_str_t arg, limit_t *l, hd_err_t *err)
{
    hd_str_t value = arg;
    uint64_t n;

    if (take_prefix(&value, "zone=") && value.len > 0) {
        l->use.name = hd_str_dup(cf->pool, value);
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("nodelay"))) {
        l->delay = NO_DELAY;
        return HD_OK;
    }
    if (take_prefix(&value, "burst=")) {
        if (hd_str_to_u64(value, BURST_MAX, &n) && n > 0) {
            l->burst = (uint32_t)n;
            return HD_OK;
        }
    } else if (take_prefix(&value, "delay=")) {
        if (hd_str_to_u64(value, BURST_MAX, &n) && n > 0) {
            l->delay = (uint32_t)n;
            return HD_OK;
        }
    }
    return hd_err_set(err, HD_E_CONF,
                      "invalid parameter \"%.*s\": zone=NAME, burst=N, delay=N (1 to %u) "
                      "and nodelay are allowed",
                      HD_STR_ARG(arg), BURST_MAX);
}

static hd_rc_t add_limit(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    limit_conf_t *lc = conf;
    uint32_t n = cf->is_first ? 0 : lc->limits_n;
    limit_t *list = hd_pool_new_n(cf->pool, limit_t, n + 1);

    if (n == LIMITS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d limit_req here", LIMITS_MAX);
    if (n > 0)
        memcpy(list, lc->limits, n * sizeof(*list));
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (parse_limit(cf, args[i], &list[n], err) != HD_OK)
            return HD_ERROR;
    }
    if (list[n].use.name.len == 0)
        return hd_err_set(err, HD_E_CONF, "zone=NAME is needed");
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq(list[i].use.name, list[n].use.name))
            return hd_err_set(err, HD_E_CONF, "zone \"%.*s\" is used here already",
                              HD_STR_ARG(list[n].use.name));
    }
    if (hd_attr_key(cf->pool, HD_STR("limit_req_status"), false, &lc->told, err) != HD_OK)
        return HD_ERROR;
    lc->limits = list;
    lc->limits_n = n + 1;
    return HD_OK;
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    limit_conf_t *lc = conf;

    (void)cf;
    for (uint32_t i = 0; i < lc->limits_n; i++) {
        if (limit_use_zone(&lc->zones, &lc->limits[i].use, "limit_req", err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

/* --- on a request --- */

typedef struct {
    const limit_t *limit; /* that refuses, or that makes it wait longest; NULL: none */
    uint64_t excess;      /* thousandths */
    uint64_t wait_ms;
    bool is_refused;
} outcome_t;

static uint64_t wait_for(const limit_t *l, uint64_t excess)
{
    uint64_t free = (uint64_t)l->delay * 1000;

    if (l->delay == NO_DELAY || excess <= free)
        return 0;
    return (excess - free) * (zone_of(l)->token_ns / 1000) / 1000000;
}

/* All limits or none: who is refused by one hasn't used up the others. */
static outcome_t ask(hd_req_t *req, const limit_conf_t *lc)
{
    outcome_t out = {0};
    hd_str_t keys[LIMITS_MAX];
    uint64_t now_ns = hd_loop_now_ns(hd_req_loop(req));

    for (uint32_t i = 0; i < lc->limits_n; i++) {
        const limit_t *l = &lc->limits[i];
        const zone_t *z = zone_of(l);
        hd_rate_conf_t rate = {.token_ns = z->token_ns, .burst = l->burst};
        uint64_t excess, ms;

        if (hd_expr_eval(z->base.key, req, &keys[i]) != HD_OK || z->table == NULL)
            keys[i] = HD_STR_NONE;
        if (keys[i].len == 0) /* no key, no limit */
            continue;
        if (!hd_rates_try_take(z->table, z->base.bytes, keys[i], &rate, now_ns,
                               &excess)) {
            for (uint32_t k = 0; k < i; k++) {
                z = zone_of(&lc->limits[k]);
                rate.token_ns = z->token_ns;
                if (keys[k].len > 0)
                    hd_rates_give_back(z->table, z->base.bytes, keys[k], &rate);
            }
            return (outcome_t){.limit = l, .excess = excess, .is_refused = true};
        }
        ms = wait_for(l, excess);
        if (out.limit == NULL || ms > out.wait_ms)
            out = (outcome_t){.limit = l, .excess = excess, .wait_ms = ms};
    }
    return out;
}

static void log_outcome(hd_req_t *req, const limit_conf_t *lc, const outcome_t *o)
{
    hd_log_level_t level = lc->log_level != 0 ? lc->log_level : HD_LOG_ERROR;

    if (!o->is_refused) /* a delay is worth less */
        level++;
    hd_req_log(req, level, "%s requests%s, excess: %llu.%03llu by zone \"%.*s\"",
               o->is_refused ? "limiting" : "delaying", lc->dry_run ? ", dry run" : "",
               (unsigned long long)(o->excess / 1000),
               (unsigned long long)(o->excess % 1000), HD_STR_ARG(o->limit->use.name));
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const limit_conf_t *lc = conf;
    outcome_t o;

    if (lc->limits_n == 0 || hd_req_is_sub(req) || hd_req_is_resumed(req) ||
        limit_is_told(req, &lc->told))
        return HD_OK;
    o = ask(req, lc);
    if (o.limit == NULL)
        return HD_OK;
    if (o.is_refused || o.wait_ms > 0)
        log_outcome(req, lc, &o);
    if (o.is_refused) {
        limit_tell(req, &lc->told,
                   lc->dry_run ? HD_STR("REJECTED_DRY_RUN") : HD_STR("REJECTED"));
        return lc->dry_run ? HD_OK
                           : hd_req_answer(req, lc->status != 0 ? lc->status : 503,
                                           HD_STR_NONE, HD_STR_NONE, "RL", "limit_req");
    }
    if (o.wait_ms == 0) {
        limit_tell(req, &lc->told, HD_STR("PASSED"));
        return HD_OK;
    }
    limit_tell(req, &lc->told,
               lc->dry_run ? HD_STR("DELAYED_DRY_RUN") : HD_STR("DELAYED"));
    return lc->dry_run ? HD_OK : hd_req_wait_ms(req, o.wait_ms);
}

static const hd_attr_def_t attributes[] = {
    {.name = "limit_req_status",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_KEPT | HD_ATTR_SETTABLE,
     .get = limit_get_status,
     .help = "PASSED, DELAYED, REJECTED, DELAYED_DRY_RUN or REJECTED_DRY_RUN"},
    {0},
};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "limit_req_zone",
     .scope = HD_IN_HTTP,
     .args_n = 3,
     .repeats = true,
     .set = add_zone,
     .help =
         "KEY zone=NAME:SIZE rate=Nr/s|Nr/m: counts requests for each value of KEY, in "
         "memory that all workers share"},
    {.name = "limit_req",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 3,
     .repeats = true,
     .set = add_limit,
     .help =
         "zone=NAME [burst=N] [nodelay | delay=N]: no more than the zone's rate; N more "
         "may come at once, and wait unless nodelay"},
    {.name = "limit_req_status",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = offsetof(limit_conf_t, status),
     .post = &limit_statuses,
     .help = "STATUS: of the answer to a request that is too many (503)"},
    {.name = "limit_req_log_level",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = offsetof(limit_conf_t, log_level),
     .post = limit_levels,
     .help =
         "info | notice | warn | error: of a refused request's line; a delay's is one "
         "lower (error)"},
    {.name = "limit_req_dry_run",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(limit_conf_t, dry_run),
     .help = "on | off: count and log, but neither refuse nor delay (off)"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "limit_req",
    .directives = directives,
    .attributes = attributes,
    .conf_size = sizeof(limit_conf_t),
    .phase = HD_PHASE_PREACCESS,
    .follows_rewrite = true,
    .on_conf = on_conf,
    .on_request_headers = on_request_headers,
};
