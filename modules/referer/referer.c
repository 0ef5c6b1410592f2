/* referer: where a client comes from, by its own word:
 *     valid_referers none blocked server_names *.example.com example.*
 * www.a.org/galleries/
 *                    ~\.google\.;
 *     if ($invalid_referer) { return 403; }
 * Good against links to pictures from elsewhere, no access control. */
#include "hd_module.h"

#define NAMES_MAX 10000

typedef struct {
    hd_str_t host; /* lower case; "*.x": x's names, "x.*": names that begin so */
    hd_str_t path; /* what the URI begins with; empty: any */
    hd_match_t regex;
    bool is_regex;
} source_t;

typedef struct {
    const source_t *sources;
    uint32_t n;
    bool none, blocked; /* no field; one without http:// or https:// */
    bool is_set;
} referer_conf_t;

static hd_rc_t add(hd_conf_t *cf, referer_conf_t *rc, hd_str_t arg, hd_err_t *err)
{
    source_t *list, *s;
    ssize_t slash = hd_str_find_char(arg, '/');

    if (rc->n == NAMES_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d sources", NAMES_MAX);
    list = hd_pool_new_n(cf->pool, source_t, rc->n + 1);
    if (rc->n > 0)
        memcpy(list, rc->sources, rc->n * sizeof(*list));
    s = &list[rc->n++];
    rc->sources = list;
    if (arg.len > 1 && arg.data[0] == '~') {
        s->is_regex = true;
        s->regex =
            (hd_match_t){.kind = HD_MATCH_REGEX,
                         .part = true,
                         .ignore_case = true,
                         .text = hd_str_dup(cf->pool, hd_str_sub(arg, 1, arg.len))};
        return hd_match_check(&s->regex, err);
    }
    if (arg.len == 0 || slash == 0)
        return hd_err_set(err, HD_E_CONF, "invalid server name \"%.*s\"",
                          HD_STR_ARG(arg));
    if (slash > 0)
        s->path = hd_str_dup(cf->pool, hd_str_sub(arg, (size_t)slash, arg.len));
    s->host = hd_str_dup_lower(cf->pool,
                               hd_str_sub(arg, 0, slash < 0 ? arg.len : (size_t)slash));
    return HD_OK;
}

/* Those of the server around. */
static hd_rc_t add_server_names(hd_conf_t *cf, referer_conf_t *rc, hd_err_t *err)
{
    const hd_node_t *block = cf->node->parent;

    while (block != NULL && !hd_str_eq(block->name, HD_STR("server")))
        block = block->parent;
    for (const hd_node_t *n = block != NULL ? block->first : NULL; n != NULL;
         n = n->next) {
        if (!hd_str_eq(n->name, HD_STR("server_name")))
            continue;
        for (uint32_t i = 0; i < n->args_n; i++) {
            hd_str_t name = n->args[i];

            if (name.len == 0 || name.data[0] == '$')
                continue;
            if (name.data[0] == '.' &&
                add(cf, rc, hd_str_sub(name, 1, name.len), err) != HD_OK)
                return HD_ERROR;
            if (name.data[0] == '.')
                name = hd_str_printf(cf->temp, "*%.*s", HD_STR_ARG(name));
            if (add(cf, rc, name, err) != HD_OK)
                return HD_ERROR;
        }
    }
    return HD_OK;
}

static hd_rc_t set_referers(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    referer_conf_t *rc = conf;

    if (cf->is_first)
        *rc = (referer_conf_t){.is_set = true};
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_rc_t result = HD_OK;

        if (hd_str_eq(args[i], HD_STR("none")))
            rc->none = true;
        else if (hd_str_eq(args[i], HD_STR("blocked")))
            rc->blocked = true;
        else if (hd_str_eq(args[i], HD_STR("server_names")))
            result = add_server_names(cf, rc, err);
        else
            result = add(cf, rc, args[i], err);
        if (result != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

/* --- requests --- */

static bool is_host(hd_str_t pattern, hd_str_t host)
{
    if (hd_str_has_prefix(pattern, HD_STR("*.")))
        return hd_str_has_suffix(host, hd_str_sub(pattern, 1, pattern.len));
    if (hd_str_has_suffix(pattern, HD_STR(".*")))
        return hd_str_has_prefix(host, hd_str_sub(pattern, 0, pattern.len - 1));
    return hd_str_eq(pattern, host);
}

/* <rest>: what stands behind the scheme. */
static bool is_known(const referer_conf_t *rc, hd_req_t *req, hd_str_t rest)
{
    size_t host_len = 0, path_at;
    hd_str_t host, path;

    while (host_len < rest.len && rest.data[host_len] != '/' &&
           rest.data[host_len] != ':')
        host_len++;
    for (path_at = host_len; path_at < rest.len && rest.data[path_at] != '/';)
        path_at++;
    host = hd_str_dup_lower(hd_req_pool(req), hd_str_sub(rest, 0, host_len));
    path = hd_str_sub(rest, path_at, rest.len);
    for (uint32_t i = 0; i < rc->n; i++) {
        const source_t *s = &rc->sources[i];

        if (s->is_regex ? hd_req_match(req, &s->regex, rest)
                        : is_host(s->host, host) && hd_str_has_prefix(path, s->path))
            return true;
    }
    return false;
}

static bool is_valid(const referer_conf_t *rc, hd_req_t *req)
{
    bool found;
    hd_str_t field = hd_req_header(req, HD_STR("Referer"), &found);

    if (!found)
        return rc->none;
    if (field.len < 8) /* nginx: too short for a scheme and a host */
        return rc->blocked;
    if (hd_str_has_prefix_nocase(field, HD_STR("http://")))
        return is_known(rc, req, hd_str_sub(field, 7, field.len));
    if (hd_str_has_prefix_nocase(field, HD_STR("https://")))
        return is_known(rc, req, hd_str_sub(field, 8, field.len));
    return rc->blocked;
}

static void get_invalid(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out);

static const hd_attr_def_t attributes[] = {
    {.name = "invalid_referer",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,
     .get = get_invalid,
     .help = "empty if the Referer is one of valid_referers, else \"1\""},
    {0},
};

static const hd_directive_t directives[] = {
    {.name = "valid_referers",
     .scope = HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_referers,
     .help = "none | blocked | server_names | NAME[/PATH] | ~REGEX …: for which Referer "
             "$invalid_referer is empty"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "referer",
    .directives = directives,
    .conf_size = sizeof(referer_conf_t),
    .attributes = attributes,
};

static void get_invalid(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    const referer_conf_t *rc = hd_req_conf(of->req, &hd_module);

    (void)rest;
    out->type = HD_VAL_STR;
    out->str =
        rc == NULL || !rc->is_set || is_valid(rc, of->req) ? HD_STR("") : HD_STR("1");
}
