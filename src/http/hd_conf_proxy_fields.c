/* proxy_set_header, proxy_redirect, proxy_cookie_… and the like: fields towards the
 * upstream and of its responses. */
#include "http/hd_conf_proxy_int.h"
#include "http/hd_proxy_int.h"

#define LIST_MAX 200

hd_rc_t hd_conf_proxy_set_header(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;
    uint32_t n = cf->is_first ? 0 : pc->set_headers_n;
    hd_conf_proxy_header_t *list;
    hd_expr_t *value;

    if (!hd_http_is_field_name(args[0]))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is not a field name",
                          HD_STR_ARG(args[0]));
    if (n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d proxy_set_header here", LIST_MAX);
    if (hd_expr_compile(cf, args[1], &value, err) != HD_OK)
        return HD_ERROR;
    list = hd_pool_new_n(cf->pool, hd_conf_proxy_header_t, n + 1);
    if (n > 0)
        memcpy(list, pc->set_headers, n * sizeof(*list));
    list[n] =
        (hd_conf_proxy_header_t){.name = hd_str_dup(cf->pool, args[0]), .value = value};
    pc->set_headers = list;
    pc->set_headers_n = n + 1;
    return HD_OK;
}

static hd_rc_t add_name(hd_conf_t *cf, hd_str_t name, const hd_str_t **list, uint32_t *n,
                        hd_err_t *err)
{
    hd_str_t *longer;

    if (cf->is_first)
        *n = 0;
    if (*n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d fields here", LIST_MAX);
    longer = hd_pool_new_n(cf->pool, hd_str_t, *n + 1);
    if (*n > 0)
        memcpy(longer, *list, *n * sizeof(*longer));
    longer[(*n)++] = hd_str_dup(cf->pool, name);
    *list = longer;
    return HD_OK;
}

hd_rc_t hd_conf_proxy_hide_header(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                  hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;

    return add_name(cf, args[0], &pc->hidden, &pc->hidden_n, err);
}

hd_rc_t hd_conf_proxy_pass_header(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                  hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;

    return add_name(cf, args[0], &pc->passed, &pc->passed_n, err);
}

/* The pattern of a rule: "~regex" or text with variables. */
static hd_rc_t read_pattern(hd_conf_t *cf, hd_str_t arg, bool ignore_case,
                            hd_match_t *regex, const hd_expr_t **text, hd_err_t *err)
{
    hd_expr_t *expr;

    if (hd_str_has_prefix(arg, HD_STR("~"))) { /* of nothing: matches all */
        size_t at = hd_str_has_prefix(arg, HD_STR("~*")) ? 2 : 1;

        *regex = (hd_match_t){.kind = HD_MATCH_REGEX,
                              .part = true,
                              .ignore_case = ignore_case || at == 2,
                              .text = hd_str_dup(cf->pool, hd_str_sub(arg, at, arg.len))};
        return hd_match_check(regex, err);
    }
    if (hd_expr_compile(cf, arg, &expr, err) != HD_OK)
        return HD_ERROR;
    *text = expr;
    return HD_OK;
}

/* FROM TO */
static hd_rc_t add_rule(hd_conf_t *cf, const hd_str_t *args, bool ignore_case,
                        const hd_proxy_redirect_t **rules, uint32_t *n, hd_err_t *err)
{
    hd_proxy_redirect_t *list;
    hd_expr_t *to;

    if (*n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d %s here", LIST_MAX,
                          cf->directive->name);
    list = hd_pool_new_n(cf->pool, hd_proxy_redirect_t, *n + 1);
    if (*n > 0)
        memcpy(list, *rules, *n * sizeof(*list));
    if (read_pattern(cf, args[0], ignore_case, &list[*n].regex, &list[*n].from, err) !=
            HD_OK ||
        hd_expr_compile(cf, args[1], &to, err) != HD_OK)
        return HD_ERROR;
    list[(*n)++].to = to;
    *rules = list;
    return HD_OK;
}

/* proxy_redirect off | default | FROM TO */
hd_rc_t hd_conf_proxy_set_redirect(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                   hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;
    hd_proxy_filter_t *f = &pc->filter;

    if (cf->is_first) {
        f->redirects_n = 0;
        pc->no_redirect = true; /* until `default` says otherwise */
    }
    if (cf->node->args_n == 1) {
        pc->no_redirect = !hd_str_eq(args[0], HD_STR("default"));
        return !pc->no_redirect || hd_str_eq(args[0], HD_STR("off"))
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF,
                                "invalid parameter \"%.*s\": off, default, or FROM TO",
                                HD_STR_ARG(args[0]));
    }
    return add_rule(cf, args, false, &f->redirects, &f->redirects_n, err);
}

/* proxy_cookie_domain, proxy_cookie_path: off | FROM TO */
static hd_rc_t add_cookie_rule(hd_conf_t *cf, const hd_str_t *args, bool ignore_case,
                               const hd_proxy_redirect_t **rules, uint32_t *n,
                               hd_err_t *err)
{
    if (cf->is_first)
        *n = 0;
    if (cf->node->args_n == 1)
        return hd_str_eq(args[0], HD_STR("off"))
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF,
                                "invalid parameter \"%.*s\": off, or FROM TO",
                                HD_STR_ARG(args[0]));
    return add_rule(cf, args, ignore_case, rules, n, err);
}

hd_rc_t hd_conf_proxy_set_cookie_domain(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                        hd_err_t *err)
{
    hd_proxy_filter_t *f = &((hd_conf_proxy_t *)conf)->filter;

    return add_cookie_rule(cf, args, true, &f->domains, &f->domains_n, err);
}

hd_rc_t hd_conf_proxy_set_cookie_path(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                      hd_err_t *err)
{
    hd_proxy_filter_t *f = &((hd_conf_proxy_t *)conf)->filter;

    return add_cookie_rule(cf, args, false, &f->paths, &f->paths_n, err);
}

static const struct {
    const char *word;
    uint8_t on, off;
    const char *samesite;
} cookie_flags[] = {
    {"secure", HD_COOKIE_SECURE, 0, NULL},
    {"nosecure", 0, HD_COOKIE_SECURE, NULL},
    {"httponly", HD_COOKIE_HTTPONLY, 0, NULL},
    {"nohttponly", 0, HD_COOKIE_HTTPONLY, NULL},
    {"samesite=strict", HD_COOKIE_SAMESITE, 0, "Strict"},
    {"samesite=lax", HD_COOKIE_SAMESITE, 0, "Lax"},
    {"samesite=none", HD_COOKIE_SAMESITE, 0, "None"},
    {"nosamesite", 0, HD_COOKIE_SAMESITE, NULL},
};

/* proxy_cookie_flags off | COOKIE FLAG … */
hd_rc_t hd_conf_proxy_set_cookie_flags(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                       hd_err_t *err)
{
    hd_proxy_filter_t *f = &((hd_conf_proxy_t *)conf)->filter;
    hd_proxy_cookie_flags_t *list, *item;

    if (cf->is_first)
        f->flags_n = 0;
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    if (f->flags_n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d %s here", LIST_MAX,
                          cf->directive->name);
    list = hd_pool_new_n(cf->pool, hd_proxy_cookie_flags_t, f->flags_n + 1);
    if (f->flags_n > 0)
        memcpy(list, f->flags, f->flags_n * sizeof(*list));
    item = &list[f->flags_n];
    if (read_pattern(cf, args[0], true, &item->regex, &item->name, err) != HD_OK)
        return HD_ERROR;
    for (uint32_t i = 1; i < cf->node->args_n; i++) {
        size_t k = 0;

        while (k < hd_countof(cookie_flags) &&
               !hd_str_eq(args[i], hd_str_c(cookie_flags[k].word)))
            k++;
        if (k == hd_countof(cookie_flags))
            return hd_err_set(err, HD_E_CONF,
                              "invalid flag \"%.*s\"; allowed are secure, httponly, "
                              "samesite=strict|lax|none, each also with no before it",
                              HD_STR_ARG(args[i]));
        item->on |= cookie_flags[k].on;
        item->off |= cookie_flags[k].off;
        if (cookie_flags[k].samesite != NULL)
            item->samesite = hd_str_dup(cf->pool, hd_str_c(cookie_flags[k].samesite));
    }
    f->flags_n++;
    f->flags = list;
    return HD_OK;
}

hd_rc_t hd_conf_proxy_set_ignored(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                  hd_err_t *err)
{
    static const hd_str_t others[] = {HD_STR_INIT("Expires"),
                                      HD_STR_INIT("Cache-Control"),
                                      HD_STR_INIT("Set-Cookie"), HD_STR_INIT("Vary")};
    hd_conf_proxy_t *pc = conf;

    pc->ignores = 0;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        uint32_t bit = hd_proxy_accel_bit(args[i]);
        size_t k = 0;

        while (bit == 0 && k < hd_countof(others) &&
               !hd_str_eq_nocase(args[i], others[k]))
            k++;
        if (k == hd_countof(others))
            return hd_err_set(err, HD_E_CONF,
                              "invalid value \"%.*s\"; allowed are X-Accel-Redirect, "
                              "X-Accel-Expires, X-Accel-Limit-Rate, X-Accel-Buffering, "
                              "X-Accel-Charset, Expires, Cache-Control, Set-Cookie, Vary",
                              HD_STR_ARG(args[i]));
        pc->ignores |= bit;
    }
    return HD_OK;
}
