/* bodies: what modules that change responses by their media types have in common: lists
 * of types, as of gzip_types and sub_filter_types, and validators. */
#pragma once
#include "hd_module.h"

#define TYPES_MAX 200

typedef struct {
    const hd_str_t *list; /* lower case; NULL: the module's own default */
    uint32_t n;
    bool any; /* a star stands in it */
} types_t;

/* The directive's setter: what it names besides text/html, which is always there. */
__attribute__((unused)) static hd_rc_t types_set(hd_conf_t *cf, const hd_str_t *args,
                                                 types_t *t, hd_err_t *err)
{
    uint32_t before = cf->is_first ? 0 : t->n, n = cf->node->args_n;
    hd_str_t *list;

    if (before + n > TYPES_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d types", TYPES_MAX);
    if (cf->is_first)
        t->any = false;
    list = hd_pool_new_n(cf->pool, hd_str_t, before + n + 1);
    if (before > 0)
        memcpy(list, t->list, before * sizeof(*list));
    else
        list[before++] = hd_str_dup(cf->pool, HD_STR("text/html"));
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq(args[i], HD_STR("*")))
            t->any = true;
        list[before + i] = hd_str_dup_lower(cf->pool, args[i]);
    }
    t->list = list;
    t->n = before + n;
    return HD_OK;
}

/* Is <type>, a Content-Type with or without parameters, one of them? Without a list:
 * text/html alone. One that isn't there is one of any. */
__attribute__((unused)) static bool types_have(const types_t *t, hd_str_t type)
{
    ssize_t end = hd_str_find_char(type, ';');

    if (t->any)
        return true;
    if (end >= 0)
        type = hd_str_sub(type, 0, (size_t)end);
    type = hd_str_trim(type);
    if (t->n == 0)
        return hd_str_eq_nocase(type, HD_STR("text/html"));
    for (uint32_t i = 0; i < t->n; i++) {
        if (hd_str_eq_nocase(type, t->list[i]))
            return true;
    }
    return false;
}

/* <out> in <body>'s place, whose bytes are all used: as much of a message as it was. */
__attribute__((unused)) static void bodies_replace(hd_chain_t *body, hd_chain_t *out)
{
    unsigned flags = hd_chain_flags(body);

    hd_chain_free(body);
    hd_chain_move(body, out);
    if (flags != 0)
        hd_chain_set_flags(body, flags);
}

/* A response whose bytes change: a validator of other bytes is a weak one (RFC 9110
 * §8.8.1). */
__attribute__((unused)) static hd_rc_t bodies_weaken_etag(hd_req_t *req)
{
    bool found;
    hd_str_t tag = hd_res_header(req, HD_STR("ETag"), &found);

    if (!found || hd_str_has_prefix(tag, HD_STR("W/")))
        return HD_OK;
    if (tag.len == 0 || tag.data[0] != '"') {
        hd_res_remove_header(req, HD_STR("ETag"));
        return HD_OK;
    }
    return hd_res_set_header(req, HD_STR("ETag"),
                             hd_str_printf(hd_req_pool(req), "W/%.*s", HD_STR_ARG(tag)));
}
