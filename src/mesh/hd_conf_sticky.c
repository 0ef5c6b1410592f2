#include "mesh/hd_conf_sticky.h"

#include "core/hd_module.h"
#include "core/os/hd_os.h"

#define CELL_KIND 0x53544b59u /* "STKY" */
#define TIMEOUT_MS 600000     /* nginx's */
#define ZONE_MIN 32768
#define ZONE_MAX (1 << 26)
#define VARIABLES_MAX 16

/* What is being built; lists lie in cf->temp until they are whole. */
typedef struct {
    hd_sticky_t s;
    const hd_expr_t *lookup[VARIABLES_MAX], *create[VARIABLES_MAX];
    hd_str_t zone; /* NAME:SIZE */
} build_t;

static hd_rc_t add_variable(hd_conf_t *cf, hd_str_t text, const hd_expr_t **list,
                            uint32_t *n, hd_err_t *err)
{
    hd_expr_t *expr;

    if (text.len < 2 || text.data[0] != '$')
        return hd_err_set(err, HD_E_CONF, "invalid variable name \"%.*s\"",
                          HD_STR_ARG(text));
    if (*n == VARIABLES_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d variables", VARIABLES_MAX);
    if (hd_expr_compile(cf, text, &expr, err) != HD_OK)
        return HD_ERROR;
    list[(*n)++] = expr;
    return HD_OK;
}

static hd_rc_t set_expires(hd_str_t value, hd_sticky_t *s, hd_err_t *err)
{
    uint64_t ms;

    s->expires_s = HD_STICKY_EXPIRES_MAX;
    if (hd_str_eq(value, HD_STR("max")))
        return HD_OK;
    if (hd_parse_msec(value, &ms, err) != HD_OK)
        return hd_err_prefix(err, "expires=: ");
    s->expires_s = (int64_t)(ms / 1000);
    return HD_OK;
}

static hd_rc_t set_samesite(hd_conf_t *cf, hd_str_t value, hd_sticky_t *s, hd_err_t *err)
{
    hd_expr_t *expr;

    if (hd_str_find_char(value, '$') < 0 && !hd_str_eq_nocase(value, HD_STR("strict")) &&
        !hd_str_eq_nocase(value, HD_STR("lax")) &&
        !hd_str_eq_nocase(value, HD_STR("none")))
        return hd_err_set(err, HD_E_CONF,
                          "invalid samesite \"%.*s\": strict, lax, none or a variable",
                          HD_STR_ARG(value));
    if (hd_expr_compile(cf, value, &expr, err) != HD_OK)
        return HD_ERROR;
    s->samesite = expr;
    return HD_OK;
}

static bool take(hd_str_t arg, hd_str_t name, hd_str_t *value)
{
    *value = hd_str_sub(arg, name.len, arg.len);
    return hd_str_has_prefix(arg, name) && value->len > 0;
}

static hd_rc_t set_cookie_parameter(hd_conf_t *cf, hd_str_t arg, build_t *b,
                                    hd_err_t *err)
{
    hd_sticky_t *s = &b->s;
    hd_expr_t *expr;
    hd_str_t value;

    if (take(arg, HD_STR("expires="), &value))
        return set_expires(value, s, err);
    if (take(arg, HD_STR("samesite="), &value))
        return set_samesite(cf, value, s, err);
    if (take(arg, HD_STR("domain="), &value)) {
        if (hd_expr_compile(cf, value, &expr, err) != HD_OK)
            return HD_ERROR;
        s->domain = expr;
        return HD_OK;
    }
    if (take(arg, HD_STR("path="), &value)) {
        s->path = hd_str_dup(cf->pool, value);
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("httponly")))
        s->httponly = true;
    else if (hd_str_eq(arg, HD_STR("secure")))
        s->secure = true;
    else
        return hd_err_set(err, HD_E_CONF,
                          "unknown parameter \"%.*s\"; allowed are expires=, domain=, "
                          "httponly, samesite=, secure, path=",
                          HD_STR_ARG(arg));
    return HD_OK;
}

static hd_rc_t set_learn_parameter(hd_conf_t *cf, hd_str_t arg, build_t *b, hd_err_t *err)
{
    hd_sticky_t *s = &b->s;
    hd_str_t value;
    uint64_t ms;

    if (take(arg, HD_STR("create="), &value))
        return add_variable(cf, value, b->create, &s->create_n, err);
    if (take(arg, HD_STR("lookup="), &value))
        return add_variable(cf, value, b->lookup, &s->lookup_n, err);
    if (take(arg, HD_STR("zone="), &value)) {
        b->zone = value;
        return HD_OK;
    }
    if (take(arg, HD_STR("timeout="), &value)) {
        if (hd_parse_msec(value, &ms, err) != HD_OK)
            return HD_ERROR;
        s->timeout_ms = (uint32_t)hd_min(ms, (uint64_t)UINT32_MAX);
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("header"))) {
        s->at_head = true;
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("sync")))
        return hd_err_set(err, HD_E_CONF,
                          "sync between machines belongs to nginx's commercial edition; "
                          "workers share sessions without it");
    return hd_err_set(err, HD_E_CONF,
                      "unknown parameter \"%.*s\"; allowed are create=, lookup=, zone=, "
                      "timeout=, header",
                      HD_STR_ARG(arg));
}

static hd_rc_t make_sessions(hd_conf_t *cf, build_t *b, hd_err_t *err)
{
    ssize_t colon = hd_str_find_char(b->zone, ':');
    hd_sticky_t *s = &b->s;
    uint64_t bytes, seed;

    if (s->create_n == 0 || s->lookup_n == 0 || b->zone.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "\"learn\" wants create=, lookup= and zone=NAME:SIZE");
    if (colon <= 0 || hd_parse_size(hd_str_sub(b->zone, (size_t)colon + 1, b->zone.len),
                                    ZONE_MAX, &bytes, NULL) != HD_OK)
        return hd_err_set(err, HD_E_CONF, "invalid zone \"%.*s\": NAME:SIZE, up to 64m",
                          HD_STR_ARG(b->zone));
    if (bytes < ZONE_MIN)
        return hd_err_set(err, HD_E_CONF, "zone \"%.*s\" is too small: 32k or more",
                          HD_STR_ARG(b->zone));
    if (cf->member == NULL)
        return HD_OK;
    s->sessions = hd_cell_get(cf->member, CELL_KIND, b->zone, bytes);
    if (s->sessions == NULL)
        return hd_err_set(err, HD_E_LIMIT,
                          "no room for zone \"%.*s\": all zones together have some 60 MB",
                          HD_STR_ARG(b->zone));
    hd_os_random(&seed, sizeof(seed));
    hd_sessions_init(s->sessions, bytes, seed);
    return HD_OK;
}

static const hd_expr_t *const *copy(hd_pool_t *pool, const hd_expr_t **list, uint32_t n)
{
    const hd_expr_t **to = hd_pool_new_n(pool, const hd_expr_t *, n + 1);

    memcpy(to, list, n * sizeof(*to));
    return to;
}

static hd_rc_t read_parameters(hd_conf_t *cf, const hd_node_t *node, build_t *b,
                               hd_err_t *err)
{
    bool is_cookie = b->s.kind == HD_STICKY_COOKIE;

    if (is_cookie) {
        if (!hd_http_is_field_name(node->args[1]))
            return hd_err_set(err, HD_E_CONF, "\"%.*s\" is no cookie's name",
                              HD_STR_ARG(node->args[1]));
        b->s.cookie = hd_str_dup(cf->pool, node->args[1]);
    }
    for (uint32_t i = is_cookie ? 2 : 1; i < node->args_n; i++) {
        hd_str_t arg = node->args[i];
        hd_rc_t rc = is_cookie ? set_cookie_parameter(cf, arg, b, err)
                     : b->s.kind == HD_STICKY_LEARN
                         ? set_learn_parameter(cf, arg, b, err)
                         : add_variable(cf, arg, b->lookup, &b->s.lookup_n, err);

        if (rc != HD_OK)
            return rc;
    }
    return b->s.kind == HD_STICKY_LEARN ? make_sessions(cf, b, err) : HD_OK;
}

hd_rc_t hd_conf_make_sticky(hd_conf_t *cf, const hd_node_t *node, hd_pool_t *pool,
                            const hd_sticky_t **sticky, hd_err_t *err)
{
    static const char *const kinds[] = {[HD_STICKY_COOKIE] = "cookie",
                                        [HD_STICKY_ROUTE] = "route",
                                        [HD_STICKY_LEARN] = "learn"};
    build_t b = {.s = {.expires_s = HD_STICKY_EXPIRES_NONE, .timeout_ms = TIMEOUT_MS}};
    hd_conf_t inside = *cf;
    hd_sticky_t *to;

    inside.pool = pool;
    while (b.s.kind < hd_countof(kinds) &&
           !hd_str_eq(node->args[0], hd_str_c(kinds[b.s.kind])))
        b.s.kind++;
    if (b.s.kind == hd_countof(kinds))
        return hd_err_set(err, HD_E_CONF, "unknown method \"%.*s\": cookie, route, learn",
                          HD_STR_ARG(node->args[0]));
    if (read_parameters(&inside, node, &b, err) != HD_OK)
        return HD_ERROR;
    *sticky = to = hd_pool_new(pool, hd_sticky_t);
    *to = b.s;
    to->lookup = copy(pool, b.lookup, b.s.lookup_n);
    to->create = copy(pool, b.create, b.s.create_n);
    return HD_OK;
}

hd_rc_t hd_conf_check_sticky(hd_conf_t *cf, hd_err_t *err)
{
    const hd_sticky_t *sticky;

    return hd_conf_make_sticky(cf, cf->node, cf->temp, &sticky, err);
}
