/* limit: what limit_req and limit_conn have in common: zones and who uses them, words of
 * their directives, and a status that is told once a request. */
#pragma once
#include "hd_module.h"

__attribute__((unused)) static const hd_conf_enum_t limit_levels[] = {
    {"info", HD_LOG_INFO},
    {"notice", HD_LOG_NOTICE},
    {"warn", HD_LOG_WARN},
    {"error", HD_LOG_ERROR},
    {0}};
__attribute__((unused)) static const hd_conf_limits_t limit_statuses = {400, 599};

/* A zone; first in what a module keeps of it. */
typedef struct {
    hd_str_t name;
    const hd_expr_t *key;
    size_t bytes;
} limit_zone_t;

typedef struct {
    const limit_zone_t *const *list;
    uint32_t n;
} limit_zones_t;

/* A zone by its name, which may be declared further below; first in a limit. */
typedef struct {
    hd_str_t name;
    const limit_zone_t *zone; /* NULL: not looked for yet */
} limit_use_t;

__attribute__((unused)) static const limit_zone_t *limit_find_zone(const limit_zones_t *z,
                                                                   hd_str_t name)
{
    for (uint32_t i = 0; i < z->n; i++) {
        if (hd_str_eq(z->list[i]->name, name))
            return z->list[i];
    }
    return NULL;
}

/* <zone>, which has its name, is among them; its key is compiled. */
__attribute__((unused)) static hd_rc_t limit_add_zone(hd_conf_t *cf, limit_zones_t *z,
                                                      limit_zone_t *zone, hd_str_t key,
                                                      hd_err_t *err)
{
    const limit_zone_t **list;
    hd_expr_t *expr;

    if (limit_find_zone(z, zone->name) != NULL)
        return hd_err_set(err, HD_E_CONF, "%s \"%.*s\" is there already",
                          cf->directive->name, HD_STR_ARG(zone->name));
    if (hd_expr_compile(cf, key, &expr, err) != HD_OK)
        return HD_ERROR;
    zone->key = expr;
    list = hd_pool_new_n(cf->pool, const limit_zone_t *, z->n + 1);
    if (z->n > 0)
        memcpy(list, z->list, z->n * sizeof(*list));
    list[z->n++] = zone;
    z->list = list;
    return HD_OK;
}

/* At the end of a block, by the module of that <name>. */
__attribute__((unused)) static hd_rc_t
limit_use_zone(const limit_zones_t *z, limit_use_t *use, const char *name, hd_err_t *err)
{
    if (use->zone == NULL)
        use->zone = limit_find_zone(z, use->name);
    if (use->zone != NULL)
        return HD_OK;
    return hd_err_set(err, HD_E_CONF, "%s: there is no %s_zone \"%.*s\"", name, name,
                      HD_STR_ARG(use->name));
}

/* NAME:SIZE, whose colon is at <colon>. */
__attribute__((unused)) static hd_rc_t limit_parse_zone(hd_conf_t *cf, hd_str_t text,
                                                        size_t colon, size_t bytes_min,
                                                        hd_str_t *name, size_t *bytes,
                                                        hd_err_t *err)
{
    uint64_t n;

    if (hd_parse_size(hd_str_sub(text, colon + 1, text.len), 1 << 26, &n, err) != HD_OK)
        return HD_ERROR;
    if (n < bytes_min)
        return hd_err_set(err, HD_E_CONF, "zone \"%.*s\" is too small: 32k or more",
                          HD_STR_ARG(text));
    *name = hd_str_dup(cf->pool, hd_str_sub(text, 0, colon));
    *bytes = n;
    return HD_OK;
}

/* The variable's value, for all of the request. */
__attribute__((unused)) static void limit_tell(hd_req_t *req, const hd_attr_t *told,
                                               hd_str_t what)
{
    hd_attr_of_t of = hd_req_attr_of(req);

    hd_ignore(hd_attr_set(
        &of, told, (hd_val_t){.type = HD_VAL_STR, .str = what})); /* it can be set */
}

/* Once a request, wherever it is sent on to. */
__attribute__((unused)) static bool limit_is_told(hd_req_t *req, const hd_attr_t *told)
{
    hd_attr_of_t of = hd_req_attr_of(req);
    hd_val_t value;

    hd_attr_get(&of, told, &value);
    return value.type != HD_VAL_NONE;
}

__attribute__((unused)) static void limit_get_status(const hd_attr_of_t *of,
                                                     hd_str_t rest, hd_val_t *out)
{
    (void)of;
    (void)rest;
    out->type = HD_VAL_NONE; /* until it was asked */
}
