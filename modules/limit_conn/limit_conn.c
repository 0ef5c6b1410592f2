/* limit_conn: how many requests at a time (in stream: connections), for each value of a
 * key, over all workers:
 *     limit_conn_zone $binary_remote_addr zone=addr:10m;
 *     limit_conn addr 5;
 * Each key has a gauge, so that a worker's death gives its places back. */
#include "hd_module.h"
#include "lib/limit.h"
#include "lib/rand.h"
#include <stdatomic.h>

#define CELL_KIND 0x4c434f4eu /* "LCON" */
#define LIMITS_MAX 16
#define CONNS_MAX 65535u
#define ZONE_BYTES_MIN 32768
#define WAYS 16
#define KEYS_MAX 8192u
#define CLAIM UINT64_C(1) /* in a key: it doesn't count yet */
#define TRIES_MAX 64

/* In the state arena. A place changes its key only while its gauge is 0: who wants it
 * puts a claim there first and then steps the gauge, who uses it steps the gauge first and
 * then looks at the key again; so one of the two sees the other. A new key has one place,
 * however many workers bring it at once: each, with its claim, looks for those of others,
 * takes them back, and only then, if its own still stands, makes it count; of two one sees
 * the other's. The claim of a worker that died is taken over or back likewise. */
typedef struct {
    uint64_t seed;
    hd_gauge_id_t gauges; /* the first; one a key */
    uint32_t keys_n;
    _Atomic uint64_t keys[]; /* hashes; 0: free */
} table_t;

typedef struct {
    limit_zone_t base;
    table_t *table; /* NULL: nothing but a test of the file */
} zone_t;

typedef struct {
    limit_use_t use;
    uint32_t max;
} limit_t;

typedef struct {
    limit_zones_t zones;
    limit_t *limits;
    uint32_t limits_n;
    hd_attr_t told; /* $limit_conn_status */
    uint32_t status, log_level;
    bool dry_run;
} limit_conf_t;

static const zone_t *zone_of(const limit_t *l)
{
    return (const zone_t *)l->use.zone;
}

/* --- directives --- */

/* zone=NAME:SIZE */
static hd_rc_t parse_zone(hd_conf_t *cf, hd_str_t arg, zone_t *zone, hd_err_t *err)
{
    hd_str_t text = hd_str_sub(arg, 5, arg.len);
    ssize_t colon = hd_str_find_char(text, ':');

    if (!hd_str_has_prefix(arg, HD_STR("zone=")) || colon <= 0)
        return hd_err_set(err, HD_E_CONF,
                          "invalid parameter \"%.*s\": zone=NAME:SIZE is meant",
                          HD_STR_ARG(arg));
    return limit_parse_zone(cf, text, (size_t)colon, ZONE_BYTES_MIN, &zone->base.name,
                            &zone->base.bytes, err);
}

/* Its memory and gauges: found again by the next configuration if key and size are the
 * same. */
static hd_rc_t make_table(hd_conf_t *cf, hd_str_t key, zone_t *zone, hd_err_t *err)
{
    hd_str_t name =
        hd_str_printf(cf->temp, "%slimit_conn %.*s %zu %.*s",
                      (cf->scope & HD_IN_STREAM) != 0 ? "stream " : "",
                      HD_STR_ARG(zone->base.name), zone->base.bytes, HD_STR_ARG(key));
    uint32_t n = (uint32_t)hd_min(zone->base.bytes / 64, (size_t)KEYS_MAX) / WAYS * WAYS;
    table_t *t;

    if (cf->member == NULL)
        return HD_OK;
    t = hd_cell_get(cf->member, CELL_KIND, name, sizeof(*t) + n * sizeof(t->keys[0]));
    if (t != NULL && t->gauges == HD_GAUGE_NONE) {
        hd_gauge_id_t first = hd_gauge_get(cf->member, name, n);

        for (uint32_t i = 0; first != HD_GAUGE_NONE && i < n; i++)
            hd_gauge_share(cf->member, first + i, true);
        t->seed = rand_next();
        t->keys_n = n;
        t->gauges = first;
    }
    if (t == NULL || t->gauges == HD_GAUGE_NONE)
        return hd_err_set(err, HD_E_LIMIT,
                          "no room for zone \"%.*s\" of %u keys: all zones and clusters "
                          "together have some 65000 gauges",
                          HD_STR_ARG(zone->base.name), n);
    zone->table = t;
    return HD_OK;
}

static hd_rc_t add_zone(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    limit_conf_t *lc = conf;
    zone_t *zone = hd_pool_new(cf->pool, zone_t);

    if (parse_zone(cf, args[1], zone, err) != HD_OK)
        return HD_ERROR;
    if (limit_add_zone(cf, &lc->zones, &zone->base, args[0], err) != HD_OK)
        return HD_ERROR;
    return make_table(cf, args[0], zone, err);
}

static hd_rc_t add_limit(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    limit_conf_t *lc = conf;
    uint32_t n = cf->is_first ? 0 : lc->limits_n;
    limit_t *list = hd_pool_new_n(cf->pool, limit_t, n + 1);
    uint64_t max;

    if (n == LIMITS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d limit_conn here", LIMITS_MAX);
    if (!hd_str_to_u64(args[1], CONNS_MAX, &max) || max == 0)
        return hd_err_set(err, HD_E_CONF,
                          "invalid number of connections \"%.*s\": 1 to %u",
                          HD_STR_ARG(args[1]), CONNS_MAX);
    if (n > 0)
        memcpy(list, lc->limits, n * sizeof(*list));
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq(list[i].use.name, args[0]))
            return hd_err_set(err, HD_E_CONF, "zone \"%.*s\" is used here already",
                              HD_STR_ARG(args[0]));
    }
    list[n] =
        (limit_t){.use = {.name = hd_str_dup(cf->pool, args[0])}, .max = (uint32_t)max};
    if (hd_attr_key(cf->pool, HD_STR("limit_conn_status"), false, &lc->told, err) !=
        HD_OK)
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
        if (limit_use_zone(&lc->zones, &lc->limits[i].use, "limit_conn", err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

/* --- on a request --- */

static uint64_t hash_key(const table_t *t, hd_str_t key)
{
    uint64_t h = hd_xxh64(key.data, key.len, t->seed);

    h &= ~CLAIM;
    return h != 0 ? h : 2 * CLAIM;
}

static bool try_swap(table_t *t, uint32_t at, uint64_t old, uint64_t new)
{
    return atomic_compare_exchange_strong(&t->keys[at], &old, new);
}

/* Puts a claim where nobody is in; others' claims are left as long as there is another
 * place. UINT32_MAX: all are in use. */
static uint32_t claim(hd_member_t *m, table_t *t, uint32_t set, uint64_t key)
{
    for (uint32_t i = 0; i < 2 * WAYS; i++) {
        uint32_t at = set + i % WAYS;
        uint64_t old = atomic_load(&t->keys[at]);

        if (((old & CLAIM) != 0 && i < WAYS) || hd_gauge_read(m, t->gauges + at) > 0 ||
            !try_swap(t, at, old, key | CLAIM))
            continue;
        if (hd_gauge_try_up(m, t->gauges + at, 1)) { /* nobody was in */
            hd_gauge_down(m, t->gauges + at);        /* first: it is nobody's place */
            return at;
        }
        (void)try_swap(t, at, key | CLAIM, old);
    }
    return UINT32_MAX;
}

/* Takes back others' claims of the key. False: it counts already, at another place. */
static bool is_alone(table_t *t, uint32_t set, uint32_t mine, uint64_t key)
{
    for (uint32_t at = set; at < set + WAYS; at++) {
        uint64_t theirs = key | CLAIM;

        if (at == mine || atomic_compare_exchange_strong(&t->keys[at], &theirs, 0))
            continue;
        if (theirs == key)
            return false;
    }
    return true;
}

/* The place of <key> in its set, found or made; UINT32_MAX: all are in use. */
static uint32_t find_or_add(hd_member_t *m, table_t *t, uint64_t key)
{
    uint32_t set = (uint32_t)(key % (t->keys_n / WAYS)) * WAYS;

    for (int tries = 0; tries < TRIES_MAX; tries++) {
        uint32_t at;
        bool is_first;

        for (at = set; at < set + WAYS; at++) {
            if (atomic_load(&t->keys[at]) == key)
                return at;
        }
        at = claim(m, t, set, key);
        if (at == UINT32_MAX)
            return at;
        is_first = is_alone(t, set, at, key);
        if (try_swap(t, at, key | CLAIM, is_first ? key : 0) && is_first)
            return at;
    }
    return UINT32_MAX;
}

typedef struct {
    hd_member_t *member;
    hd_gauge_id_t gauge;
} place_t;

static void give_back(void *arg)
{
    const place_t *p = arg;

    hd_gauge_down(p->member, p->gauge);
}

/* A place until <pool> ends, the request's or conn's. */
static bool try_enter(hd_member_t *m, hd_pool_t *pool, const limit_t *l, hd_str_t name)
{
    table_t *t = zone_of(l)->table;
    uint64_t key = hash_key(t, name);

    for (int tries = 0; tries < TRIES_MAX; tries++) {
        uint32_t at = find_or_add(m, t, key);

        if (at == UINT32_MAX)
            return false;
        if (!hd_gauge_try_up(m, t->gauges + at, l->max)) {
            if (atomic_load(&t->keys[at]) == key)
                return false;
        } else if (atomic_load(&t->keys[at]) == key) {
            place_t *p = hd_pool_new(pool, place_t);

            *p = (place_t){.member = m, .gauge = t->gauges + at};
            hd_pool_defer(pool, give_back, p);
            return true;
        } else {
            hd_gauge_down(m, t->gauges + at);
        }
    }
    return false;
}

static void log_limit(hd_req_t *req, const limit_conf_t *lc, const limit_t *l)
{
    hd_log_level_t level = lc->log_level != 0 ? lc->log_level : HD_LOG_ERROR;

    hd_req_log(req, level, "limiting connections%s by zone \"%.*s\"",
               lc->dry_run ? ", dry run," : "", HD_STR_ARG(l->use.name));
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const limit_conf_t *lc = conf;
    hd_str_t key;

    if (lc->limits_n == 0 || hd_req_is_sub(req) || limit_is_told(req, &lc->told))
        return HD_OK;
    for (uint32_t i = 0; i < lc->limits_n; i++) {
        const limit_t *l = &lc->limits[i];

        if (zone_of(l)->table == NULL ||
            hd_expr_eval(l->use.zone->key, req, &key) != HD_OK ||
            key.len == 0) /* no key, no limit */
            continue;
        if (try_enter(hd_req_member(req), hd_req_pool(req), l, key)) {
            limit_tell(req, &lc->told, HD_STR("PASSED"));
            continue;
        }
        log_limit(req, lc, l);
        limit_tell(req, &lc->told,
                   lc->dry_run ? HD_STR("REJECTED_DRY_RUN") : HD_STR("REJECTED"));
        return lc->dry_run ? HD_OK
                           : hd_req_answer(req, lc->status != 0 ? lc->status : 503,
                                           HD_STR_NONE, HD_STR_NONE, "RL", "limit_conn");
    }
    return HD_OK;
}

/* Of stream: the conn has its places until it is closed. */
static hd_rc_t on_conn(hd_conn_t *c, const void *conf)
{
    const limit_conf_t *lc = conf;
    hd_attr_of_t of = {
        .conn = c, .pool = hd_conn_pool(c), .member = hd_loop_member(c->loop)};
    char text[HD_ADDR_TEXT_MAX];
    hd_str_t key;

    for (uint32_t i = 0; i < lc->limits_n; i++) {
        const limit_t *l = &lc->limits[i];

        if (zone_of(l)->table == NULL ||
            hd_expr_eval_of(l->use.zone->key, &of, &key) != HD_OK || key.len == 0 ||
            try_enter(of.member, of.pool, l, key))
            continue;
        hd_log_conn(lc->log_level != 0 ? lc->log_level : HD_LOG_ERROR, c->id,
                    "limiting connections%s by zone \"%.*s\", client: %.*s",
                    lc->dry_run ? ", dry run," : "", HD_STR_ARG(l->use.name),
                    HD_STR_ARG(hd_addr_print_ip(hd_conn_remote(c), text)));
        return lc->dry_run ? HD_OK
                           : hd_conn_fail(c, HD_E_LIMIT, "limited by zone \"%.*s\"",
                                          HD_STR_ARG(l->use.name));
    }
    return HD_OK;
}

static const hd_attr_def_t attributes[] = {
    {.name = "limit_conn_status",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_KEPT | HD_ATTR_SETTABLE,
     .get = limit_get_status,
     .help = "PASSED, REJECTED or REJECTED_DRY_RUN"},
    {0},
};

#define IN_ANY                                                                           \
    (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_STREAM | HD_IN_STREAM_SERVER)

static const hd_directive_t directives[] = {
    {.name = "limit_conn_zone",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 2,
     .repeats = true,
     .set = add_zone,
     .help =
         "KEY zone=NAME:SIZE: counts requests under way, in stream connections, for each "
         "value of KEY, in memory that all workers share"},
    {.name = "limit_conn",
     .scope = IN_ANY,
     .args_n = 2,
     .repeats = true,
     .set = add_limit,
     .help =
         "ZONE N: no more than N requests at a time for each value of the zone's key"},
    {.name = "limit_conn_status",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = offsetof(limit_conf_t, status),
     .post = &limit_statuses,
     .help = "STATUS: of the answer to a request that is too many (503)"},
    {.name = "limit_conn_log_level",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = offsetof(limit_conf_t, log_level),
     .post = limit_levels,
     .help = "info | notice | warn | error: of a refused request's line (error)"},
    {.name = "limit_conn_dry_run",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(limit_conf_t, dry_run),
     .help = "on | off: count and log, but don't refuse (off)"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "limit_conn",
    .directives = directives,
    .attributes = attributes,
    .conf_size = sizeof(limit_conf_t),
    .phase = HD_PHASE_PREACCESS,
    .order = 1, /* behind limit_req, as in nginx */
    .follows_rewrite = true,
    .on_conf = on_conf,
    .on_request_headers = on_request_headers,
    .on_conn = on_conn,
};
