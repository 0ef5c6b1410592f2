/* Certificates whose names have variables, of ssl_… and proxy_ssl_…: what a handshake
 * needs to find them. */
#include "core/conf/hd_conf_secret.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_conf_ssl_int.h"
#include "core/conf/hd_expr.h"

#include <limits.h>

static bool has_variables(hd_str_t text)
{
    return hd_str_find_char(text, '$') >= 0; /* PEM has none */
}

hd_rc_t hd_conf_tls_path(hd_conf_t *cf, hd_str_t arg, hd_str_t *path, hd_err_t *err)
{
    if (hd_str_has_prefix(arg, HD_STR("engine:")) ||
        hd_str_has_prefix(arg, HD_STR("store:")))
        return hd_err_set(err, HD_E_CONF,
                          "a file is expected, or data: and PEM text, not \"%.*s\"",
                          HD_STR_ARG(arg));
    if (arg.len == 0 || has_variables(arg) || hd_str_has_prefix(arg, HD_STR("data:")))
        *path = hd_str_dup(cf->pool, arg);
    else
        *path = hd_conf_path(cf, arg, true);
    return HD_OK;
}

static hd_rc_t set_seconds(hd_str_t text, uint32_t *to, hd_err_t *err)
{
    uint64_t ms;

    if (hd_parse_msec(text, &ms, err) != HD_OK)
        return HD_ERROR;
    *to = (uint32_t)hd_min(ms / 1000, (uint64_t)INT_MAX);
    return HD_OK;
}

hd_rc_t hd_conf_set_tls_cache(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    hd_conf_tls_cache_t *cache =
        (hd_conf_tls_cache_t *)(void *)((char *)conf + cf->directive->offset);
    uint64_t max = 0;

    *cache = (hd_conf_tls_cache_t){0};
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    cache->idle_s = 10;
    cache->valid_s = 60;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_str_t rest = args[i], name;
        hd_rc_t rc = HD_ERROR;

        hd_ignore(hd_str_split(&rest, '=', &name));
        if (hd_str_eq(name, HD_STR("max")) && hd_str_to_u64(rest, INT_MAX, &max) &&
            max > 0)
            rc = HD_OK;
        else if (hd_str_eq(name, HD_STR("inactive")))
            rc = set_seconds(rest, &cache->idle_s, NULL);
        else if (hd_str_eq(name, HD_STR("valid")))
            rc = set_seconds(rest, &cache->valid_s, NULL);
        if (rc != HD_OK)
            return hd_err_set(err, HD_E_CONF,
                              "invalid parameter \"%.*s\": off, or max=N [inactive=TIME] "
                              "[valid=TIME]",
                              HD_STR_ARG(args[i]));
    }
    if (max == 0)
        return hd_err_set(err, HD_E_CONF, "\"%s\" must have the \"max\" parameter",
                          cf->directive->name);
    cache->max = (uint32_t)max;
    return HD_OK;
}

bool hd_conf_tls_has_variables(const hd_conf_tls_pairs_t *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (has_variables(p->certs[i]) || has_variables(p->keys[i]))
            return true;
    return false;
}

static hd_rc_t compile(hd_conf_t *cf, const hd_conf_tls_pairs_t *p, hd_str_t text,
                       hd_str_t *copy, const hd_expr_t **out, hd_err_t *err)
{
    hd_expr_t *e;

    if (hd_expr_compile(cf, text, &e, err) != HD_OK)
        return HD_ERROR;
    for (uint32_t i = 0; i < e->n && p->is_early; i++) {
        const hd_attr_t *a = &e->parts[i].attr;

        if (a->def != 0 && (hd_attr_def(a->def)->flags & HD_ATTR_REQ) != 0 &&
            hd_attr_conn_def(a->def) == NULL)
            return hd_err_set(
                err, HD_E_CONF,
                "\"$%.*s\" in the name of a certificate: it is of a request, "
                "and the handshake is before it; $ssl_server_name is known",
                HD_STR_ARG(a->name));
    }
    *copy = hd_str_dup(cf->pool, text);
    *out = e;
    return HD_OK;
}

hd_rc_t hd_conf_tls_put_pairs(hd_conf_t *cf, const hd_conf_tls_pairs_t *p,
                              hd_tls_conf_t *tls, hd_err_t *err)
{
    hd_conf_secret_t files = {.passwords = p->passwords};
    hd_tls_pair_t *pairs = hd_pool_new_n(cf->pool, hd_tls_pair_t, p->n);

    for (uint32_t i = 0; i < p->n; i++) {
        if (compile(cf, p, p->certs[i], &pairs[i].cert_text, &pairs[i].cert, err) !=
                HD_OK ||
            compile(cf, p, p->keys[i], &pairs[i].key_text, &pairs[i].key, err) != HD_OK)
            return HD_ERROR;
    }
    tls->pairs = pairs;
    tls->pairs_n = p->n;
    tls->pairs_dir = hd_conf_path(cf, HD_STR(""), true);
    tls->pairs_kept = p->cache->max;
    tls->pairs_idle_s = p->cache->idle_s;
    tls->pairs_valid_s = p->cache->valid_s;
    return p->passwords.len > 0 ? hd_conf_secret_slot(cf, &files, &tls->passphrases, err)
                                : HD_OK;
}

/* --- when they are needed --- */

/* Groups of maps' regular expressions are of no use to requests: they go with <pool>. */
static hd_rc_t eval_name(hd_conn_t *c, const hd_expr_t *name, hd_pool_t *pool,
                         hd_str_t *out, hd_err_t *err)
{
    hd_attr_of_t of = {.conn = c, .pool = pool, .member = hd_loop_member(c->loop)};
    struct hd_attrs_s *own = c->attrs;
    hd_rc_t rc;

    if (own == NULL)
        c->attrs = hd_attrs_create(pool);
    rc = hd_expr_eval_of(name, &of, out);
    c->attrs = own;
    if (rc != HD_OK)
        return hd_err_set(err, HD_E_INTERNAL, "no value for a certificate's name");
    if (hd_str_climbs(*out) > 0 && hd_expr_climbs(name, *out))
        return hd_err_set(err, HD_E_PROTOCOL, "unsafe name of a certificate \"%.*s\"",
                          HD_STR_ARG(*out));
    return HD_OK;
}

void hd_conf_tls_register(void)
{
    hd_tls_name_eval = eval_name;
}
