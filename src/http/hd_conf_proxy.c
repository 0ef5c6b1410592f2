/* proxy_pass and what goes with it. */
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_resolver.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"
#include "http/hd_proxy_filter.h"

#define LIST_MAX 200
#define VERSION_10 1000                       /* beside hd_up_protocol_t */
#define BUFFER_BYTES (8 * 4096)               /* nginx's default: 8 of a page */
#define TEMP_FILE_MAX (1024ull * 1024 * 1024) /* the same */
#define TRIES_MAX 64 /* where nginx has no limit but the number of servers */

typedef struct {
    hd_str_t name;
    const hd_expr_t *value;
} set_header_t;

typedef struct {
    hd_proxy_filter_t filter; /* what runs with each request; first, see is_used */
    uint32_t pass_of;         /* the place of proxy_pass: not inherited */
    bool is_https, is_variable, has_uri;
    bool has_scheme_var;      /* the scheme, too, comes from variables */
    hd_str_t host_port, uri;  /* of proxy_pass without variables */
    const hd_expr_t *url;     /* with variables */
    const hd_slot_t *cluster; /* NULL: by <url> */
    const hd_slot_t *any;     /* of hosts that <url> makes; NULL: it makes none */
    const set_header_t *set_headers;
    uint32_t set_headers_n;
    const hd_str_t *hidden, *passed; /* response fields */
    uint32_t hidden_n, passed_n;
    uint64_t connect_timeout_ms, send_timeout_ms, read_timeout_ms; /* 0: 60 s */
    uint64_t accepted, head_bytes;                                 /* 0: 16 KB */
    uint64_t buffer_bytes, temp_write_bytes;                       /* 0: the default */
    uint64_t temp_max_plus_1;                                      /* 0: the default */
    hd_str_t temp_path;
    uint32_t version; /* VERSION_…; 0: 1.1 */
    const hd_expr_t *method, *body, *bind, *limit_rate;
    bool bind_transparent, drops_headers, drops_body;
    uint32_t ignores; /* HD_IGNORES_… */
    uint32_t is_high;
    bool no_buffering, no_request_buffering, no_redirect, intercepts, no_multiplex;
    bool ignore_client_abort;
} proxy_conf_t;

static const proxy_conf_t *conf_of(const hd_conf_t *cf)
{
    return hd_http_look(cf, &hd_proxy_module);
}

/* --- proxy_pass --- */

static bool may_have_uri(const hd_place_t *p)
{
    return p->kind == HD_PLACE_PREFIX || p->kind == HD_PLACE_EXACT;
}

static hd_rc_t set_pass(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_place_t *place = hd_http_build_of(cf)->place;
    proxy_conf_t *pc = conf;
    hd_str_t rest = args[0];
    hd_expr_t *expr;
    ssize_t slash;

    pc->pass_of = place->id;
    pc->cluster = pc->any = NULL;
    pc->url = NULL;
    pc->is_variable = hd_str_find_char(args[0], '$') >= 0;
    pc->is_https = hd_str_has_prefix_nocase(args[0], HD_STR("https://"));
    if (pc->is_https || hd_str_has_prefix_nocase(args[0], HD_STR("http://")))
        rest = hd_str_sub(args[0], pc->is_https ? 8 : 7, args[0].len);
    else if (!hd_str_has_prefix(args[0], HD_STR("$")))
        return hd_err_set(
            err, HD_E_CONF,
            "invalid URL prefix in \"%.*s\": http:// or https:// is expected",
            HD_STR_ARG(args[0]));
    if (pc->is_variable) {
        if (hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
            return HD_ERROR;
        pc->url = expr;
    }
    pc->has_scheme_var = pc->is_variable && rest.data == args[0].data;
    slash = hd_str_has_prefix(rest, HD_STR("unix:"))
                ? hd_str_find(hd_str_sub(rest, 5, rest.len), HD_STR(":/"))
                : hd_str_find_char(rest, '/');
    if (slash >= 0 && hd_str_has_prefix(rest, HD_STR("unix:")))
        slash += 6; /* unix:/path:/uri */
    pc->has_uri = slash >= 0;
    pc->host_port = slash < 0 ? rest : hd_str_sub(rest, 0, (size_t)slash);
    pc->uri = slash < 0 ? HD_STR_NONE : hd_str_sub(rest, (size_t)slash, rest.len);
    if (hd_str_has_prefix(pc->host_port, HD_STR("unix:")) &&
        hd_str_has_suffix(pc->host_port, HD_STR(":")))
        pc->host_port.len--;
    if (pc->host_port.len == 0)
        return hd_err_set(err, HD_E_CONF, "no host in upstream \"%.*s\"",
                          HD_STR_ARG(args[0]));
    pc->host_port = hd_str_dup(cf->pool, pc->host_port);
    pc->uri = hd_str_dup(cf->pool, pc->uri);
    if (pc->has_uri && !pc->is_variable && !may_have_uri(hd_http_location_of(place)))
        return hd_err_set(err, HD_E_CONF,
                          "\"proxy_pass\" cannot have URI part in location given by "
                          "regular expression, or inside named location");
    if (hd_str_find_char(pc->host_port, '$') >= 0)
        return hd_conf_cluster->any_slot(cf, false, &pc->any, err);
    return hd_conf_cluster->slot_for(cf, pc->host_port, pc->is_https ? 443 : 80, false,
                                     &pc->cluster, err);
}

/* --- lists --- */

static hd_rc_t set_header(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    proxy_conf_t *pc = conf;
    uint32_t n = cf->is_first ? 0 : pc->set_headers_n;
    set_header_t *list;
    hd_expr_t *value;

    if (!hd_http_is_field_name(args[0]))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is not a field name",
                          HD_STR_ARG(args[0]));
    if (n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d proxy_set_header here", LIST_MAX);
    if (hd_expr_compile(cf, args[1], &value, err) != HD_OK)
        return HD_ERROR;
    list = hd_pool_new_n(cf->pool, set_header_t, n + 1);
    if (n > 0)
        memcpy(list, pc->set_headers, n * sizeof(*list));
    list[n] = (set_header_t){.name = hd_str_dup(cf->pool, args[0]), .value = value};
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

static hd_rc_t hide_header(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    proxy_conf_t *pc = conf;

    return add_name(cf, args[0], &pc->hidden, &pc->hidden_n, err);
}

static hd_rc_t pass_header(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    proxy_conf_t *pc = conf;

    return add_name(cf, args[0], &pc->passed, &pc->passed_n, err);
}

/* proxy_redirect off | default | FROM TO */
static hd_rc_t set_redirect(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    proxy_conf_t *pc = conf;
    hd_proxy_filter_t *f = &pc->filter;
    hd_proxy_redirect_t *list, *r;
    hd_expr_t *to, *from;

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
    if (f->redirects_n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d proxy_redirect here", LIST_MAX);
    list = hd_pool_new_n(cf->pool, hd_proxy_redirect_t, f->redirects_n + 2);
    if (f->redirects_n > 0)
        memcpy(list, f->redirects, f->redirects_n * sizeof(*list));
    r = &list[f->redirects_n++];
    f->redirects = list;
    if (hd_expr_compile(cf, args[1], &to, err) != HD_OK)
        return HD_ERROR;
    r->to = to;
    if (args[0].len > 1 && args[0].data[0] == '~') {
        size_t at = args[0].data[1] == '*' ? 2 : 1;

        r->regex = (hd_match_t){
            .kind = HD_MATCH_REGEX,
            .part = true,
            .ignore_case = at == 2,
            .text = hd_str_dup(cf->pool, hd_str_sub(args[0], at, args[0].len))};
        return hd_match_check(&r->regex, err);
    }
    if (hd_expr_compile(cf, args[0], &from, err) != HD_OK)
        return HD_ERROR;
    r->from = from;
    return HD_OK;
}

/* --- proxy_cookie_… --- */

/* The pattern of a rule: "~regex" or text with variables. */
static hd_rc_t read_pattern(hd_conf_t *cf, hd_str_t arg, bool ignore_case,
                            hd_match_t *regex, const hd_expr_t **text, hd_err_t *err)
{
    hd_expr_t *expr;

    if (arg.len > 1 && arg.data[0] == '~') {
        size_t at = arg.data[1] == '*' ? 2 : 1;

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

/* off | FROM TO */
static hd_rc_t add_cookie_rule(hd_conf_t *cf, const hd_str_t *args, bool ignore_case,
                               const hd_proxy_redirect_t **rules, uint32_t *n,
                               hd_err_t *err)
{
    hd_proxy_redirect_t *list;
    hd_expr_t *to;

    if (cf->is_first)
        *n = 0;
    if (cf->node->args_n == 1)
        return hd_str_eq(args[0], HD_STR("off"))
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF,
                                "invalid parameter \"%.*s\": off, or FROM TO",
                                HD_STR_ARG(args[0]));
    if (*n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d of them here", LIST_MAX);
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

static hd_rc_t set_cookie_domain(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    hd_proxy_filter_t *f = &((proxy_conf_t *)conf)->filter;

    return add_cookie_rule(cf, args, true, &f->domains, &f->domains_n, err);
}

static hd_rc_t set_cookie_path(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    hd_proxy_filter_t *f = &((proxy_conf_t *)conf)->filter;

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
static hd_rc_t set_cookie_flags(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err)
{
    hd_proxy_filter_t *f = &((proxy_conf_t *)conf)->filter;
    hd_proxy_cookie_flags_t *list, *item;

    if (cf->is_first)
        f->flags_n = 0;
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    if (f->flags_n == LIST_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d of them here", LIST_MAX);
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

/* --- towards the upstream --- */

static hd_rc_t set_expr(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_expr_t **to =
        (const hd_expr_t **)(void *)((char *)conf + cf->directive->offset);
    hd_expr_t *expr;

    if (hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
        return HD_ERROR;
    *to = expr;
    return HD_OK;
}

static hd_rc_t set_rate(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint64_t n;

    if (hd_str_find_char(args[0], '$') < 0 &&
        hd_parse_size(args[0], INT64_MAX, &n, err) != HD_OK)
        return HD_ERROR;
    return set_expr(cf, args, conf, err);
}

static hd_rc_t set_method(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    if (hd_str_find_char(args[0], '$') < 0 && !hd_http_is_field_name(args[0]))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is not a method",
                          HD_STR_ARG(args[0]));
    return set_expr(cf, args, conf, err);
}

/* proxy_bind ADDRESS [transparent] | off */
static hd_rc_t set_bind(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    proxy_conf_t *pc = conf;
    hd_addr_t addr;

    pc->bind = NULL;
    pc->bind_transparent = false;
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    if (cf->node->args_n == 2) {
        if (!hd_str_eq(args[1], HD_STR("transparent")))
            return hd_err_set(err, HD_E_CONF, "invalid parameter \"%.*s\": transparent",
                              HD_STR_ARG(args[1]));
        pc->bind_transparent = true;
    }
    if (hd_str_find_char(args[0], '$') < 0 &&
        hd_addr_parse(cf->temp, args[0], 0, &addr, err) != HD_OK)
        return HD_ERROR;
    return set_expr(cf, args, conf, err);
}

static hd_rc_t set_ignored(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } fields[] = {{"X-Accel-Redirect", HD_IGNORES_REDIRECT},
                  {"X-Accel-Expires", 0},
                  {"X-Accel-Limit-Rate", HD_IGNORES_LIMIT_RATE},
                  {"X-Accel-Buffering", HD_IGNORES_BUFFERING},
                  {"X-Accel-Charset", 0},
                  {"Expires", 0},
                  {"Cache-Control", 0},
                  {"Set-Cookie", 0},
                  {"Vary", 0}};
    proxy_conf_t *pc = conf;

    pc->ignores = 0;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        size_t k = 0;

        while (k < hd_countof(fields) &&
               !hd_str_eq_nocase(args[i], hd_str_c(fields[k].name)))
            k++;
        if (k == hd_countof(fields))
            return hd_err_set(err, HD_E_CONF,
                              "invalid value \"%.*s\"; allowed are X-Accel-Redirect, "
                              "X-Accel-Expires, X-Accel-Limit-Rate, X-Accel-Buffering, "
                              "X-Accel-Charset, Expires, Cache-Control, Set-Cookie, Vary",
                              HD_STR_ARG(args[i]));
        pc->ignores |= fields[k].bit;
    }
    return HD_OK;
}

/* --- proxy_next_upstream --- */

static const hd_conf_enum_t next_names[] = {
    {"error", HD_NEXT_ERROR},
    {"timeout", HD_NEXT_TIMEOUT},
    {"invalid_header", HD_NEXT_INVALID},
    {"http_500", HD_NEXT_500},
    {"http_502", HD_NEXT_502},
    {"http_503", HD_NEXT_503},
    {"http_504", HD_NEXT_504},
    {"http_403", HD_NEXT_403},
    {"http_404", HD_NEXT_404},
    {"http_429", HD_NEXT_429},
    {"non_idempotent", HD_NEXT_NON_IDEMPOTENT},
    {"off", HD_NEXT_OFF},
    {NULL, 0},
};

static hd_rc_t set_next(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    proxy_conf_t *pc = conf;

    pc->filter.next = 0;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        const hd_conf_enum_t *e = next_names;

        while (e->name != NULL && !hd_str_eq(args[i], hd_str_c(e->name)))
            e++;
        if (e->name == NULL)
            return hd_err_set(err, HD_E_CONF,
                              "invalid value \"%.*s\"; allowed are error, timeout, "
                              "invalid_header, http_500, http_502, http_503, http_504, "
                              "http_403, http_404, http_429, non_idempotent, off",
                              HD_STR_ARG(args[i]));
        pc->filter.next |= e->value;
    }
    return HD_OK;
}

/* --- buffering --- */

/* proxy_buffers N SIZE */
static hd_rc_t set_buffers(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    proxy_conf_t *pc = conf;
    uint64_t n, size;

    (void)cf;
    if (!hd_str_to_u64(args[0], 1000000, &n) || n < 2)
        return hd_err_set(err, HD_E_CONF,
                          "invalid number of buffers \"%.*s\": 2 and more",
                          HD_STR_ARG(args[0]));
    if (hd_parse_size(args[1], 1u << 30, &size, err) != HD_OK)
        return HD_ERROR;
    if (size == 0)
        return hd_err_set(err, HD_E_CONF, "buffers of no bytes: 1 and more");
    pc->buffer_bytes = n * size;
    return HD_OK;
}

static hd_rc_t set_temp_max(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    proxy_conf_t *pc = conf;
    uint64_t size;

    (void)cf;
    if (hd_parse_size(args[0], INT64_MAX - 1, &size, err) != HD_OK)
        return HD_ERROR;
    pc->temp_max_plus_1 = size + 1;
    return HD_OK;
}

/* proxy_temp_path PATH [LEVEL …]; kept with its NUL, for open(2). */
static hd_rc_t set_temp_path(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    proxy_conf_t *pc = conf;

    (void)err;
    pc->temp_path = hd_str_printf(cf->pool, "%.*s%c",
                                  HD_STR_ARG(hd_conf_path(cf, args[0], false)), '\0');
    return HD_OK;
}

static hd_rc_t set_inverse(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool *flag = (bool *)((char *)conf + cf->directive->offset);

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    *flag = !*flag;
    return HD_OK;
}

/* --- to a route --- */

/* Client's fields that take the connection's side only never pass; the rest of nginx's
 * defaults (Host $proxy_host) is proxy->host. */
static void put_request_ops(hd_conf_t *cf, const proxy_conf_t *pc, hd_weighted_t *target)
{
    hd_header_op_conf_t *ops;

    if (pc->set_headers_n == 0)
        return;
    ops = hd_pool_new_n(cf->pool, hd_header_op_conf_t, pc->set_headers_n);
    for (uint32_t i = 0; i < pc->set_headers_n; i++)
        ops[i] = (hd_header_op_conf_t){.name = pc->set_headers[i].name,
                                       .value = pc->set_headers[i].value,
                                       .how = HD_HOP_SET};
    target->request_ops = ops;
    target->request_ops_n = pc->set_headers_n;
}

static bool has_name(const hd_str_t *list, uint32_t n, hd_str_t name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq_nocase(list[i], name))
            return true;
    }
    return false;
}

static void put_response_ops(hd_conf_t *cf, const proxy_conf_t *pc, hd_route_t *route)
{
    uint32_t n = pc->hidden_n + route->response_ops_n, at = 0;
    hd_header_op_conf_t *ops;

    if (pc->hidden_n == 0)
        return;
    /* what is hidden goes before add_header adds */
    ops = hd_pool_new_n(cf->pool, hd_header_op_conf_t, n);
    for (uint32_t i = 0; i < pc->hidden_n; i++) {
        if (!has_name(pc->passed, pc->passed_n, pc->hidden[i]))
            ops[at++] = (hd_header_op_conf_t){
                .name = pc->hidden[i], .how = HD_HOP_REMOVE, .always = true};
    }
    for (uint32_t i = 0; i < route->response_ops_n; i++)
        ops[at++] = route->response_ops[i];
    route->response_ops = ops;
    route->response_ops_n = at;
}

static uint32_t time_or(uint64_t ms, uint32_t otherwise)
{
    return ms == 0 ? otherwise : (uint32_t)hd_min(ms, UINT32_MAX);
}

static hd_str_t without_port(hd_str_t host_port)
{
    ssize_t colon = hd_str_find_char(host_port, ':');

    if (host_port.len > 0 && host_port.data[0] == '[') {
        ssize_t end = hd_str_find_char(host_port, ']');

        return end < 0 ? host_port : hd_str_sub(host_port, 0, (size_t)end + 1);
    }
    return colon < 0 ? host_port : hd_str_sub(host_port, 0, (size_t)colon);
}

/* nginx: Location: <what proxy_pass names> becomes <the location>. */
static hd_rc_t put_default_redirect(hd_conf_t *cf, proxy_conf_t *pc,
                                    const hd_place_t *place, hd_err_t *err)
{
    hd_proxy_filter_t *f = &pc->filter;
    hd_proxy_redirect_t *list;
    hd_expr_t *from, *to;

    if (pc->no_redirect || pc->is_variable)
        return HD_OK;
    list = hd_pool_new_n(cf->pool, hd_proxy_redirect_t, f->redirects_n + 1);
    if (f->redirects_n > 0)
        memcpy(list, f->redirects, f->redirects_n * sizeof(*list));
    if (hd_expr_compile(cf,
                        hd_str_printf(cf->temp, "%s%.*s%.*s",
                                      pc->is_https ? "https://" : "http://",
                                      HD_STR_ARG(pc->host_port),
                                      HD_STR_ARG(pc->has_uri ? pc->uri : HD_STR("/"))),
                        &from, err) != HD_OK ||
        hd_expr_compile(cf, pc->has_uri ? place->path : HD_STR("/"), &to, err) != HD_OK)
        return HD_ERROR;
    list[f->redirects_n++] = (hd_proxy_redirect_t){.from = from, .to = to};
    f->redirects = list;
    return HD_OK;
}

static hd_rc_t put_tls(hd_conf_t *cf, const proxy_conf_t *pc, hd_proxy_conf_t *proxy,
                       hd_err_t *err)
{
    bool is_h2 = pc->version == HD_UP_HTTP2;

    if (!pc->is_https && !pc->has_scheme_var)
        return HD_OK;
    if (pc->any != NULL)
        proxy->tls_by_host = hd_conf_ssl_is_by_host(cf, &proxy->sni_by_host);
    return hd_conf_ssl_upstream(
        cf, pc->any != NULL ? HD_STR_NONE : without_port(pc->host_port),
        is_h2 ? HD_STR("\x02h2") : HD_STR_NONE, &proxy->tls, err);
}

bool hd_http_proxy_passes(const void *conf, const hd_place_t *place)
{
    return hd_http_is_of(place, ((const proxy_conf_t *)conf)->pass_of);
}

hd_rc_t hd_http_proxy_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                            hd_err_t *err)
{
    proxy_conf_t *pc;
    hd_proxy_conf_t *proxy;
    hd_weighted_t *target;

    if (!hd_http_proxy_passes(conf_of(cf), place))
        return HD_DECLINED;
    pc = hd_conf_of(cf, &hd_proxy_module);
    proxy = hd_pool_new(cf->pool, hd_proxy_conf_t);
    target = hd_pool_new(cf->pool, hd_weighted_t);
    put_request_ops(cf, pc, target);
    *proxy = (hd_proxy_conf_t){
        .targets = target,
        .targets_n = 1,
        .weights_total = 1,
        .protocol = pc->version == HD_UP_HTTP2 ? HD_UP_HTTP2 : HD_UP_HTTP1,
        .is_high = pc->is_high != 0,
        .has_protocol = true,
        .uri = pc->is_variable ? pc->url : NULL,
        .has_uri = pc->has_uri && !pc->is_variable,
        .uri_prefix = pc->uri,
        .any = pc->any,
        .resolver = pc->any != NULL ? hd_conf_resolver(cf) : NULL,
        .is_https = pc->is_https,
        .has_scheme_var = pc->has_scheme_var,
        .connect_timeout_ms = time_or(pc->connect_timeout_ms, 60000),
        .send_timeout_ms = time_or(pc->send_timeout_ms, 60000),
        .read_timeout_ms = time_or(pc->read_timeout_ms, 60000),
        .buffer_request = !pc->no_request_buffering,
        .buffer_response = !pc->no_buffering,
        .tries_max = pc->filter.tries > 0 ? pc->filter.tries : TRIES_MAX,
        .pass_errors = !pc->intercepts,
        .no_multiplex = pc->no_multiplex,
        .ignore_client_abort = pc->ignore_client_abort,
        .no_cluster_status = 502,
        .method = pc->method,
        .body = pc->body,
        .bind = pc->bind,
        .bind_transparent = pc->bind_transparent,
        .limit_rate = pc->limit_rate,
        .no_request_headers = pc->drops_headers,
        .no_request_body = pc->drops_body,
        .is_http10 = pc->version == VERSION_10,
        .ignores = pc->ignores,
        .head_bytes_max = (uint32_t)hd_min(pc->head_bytes, (uint64_t)UINT32_MAX),
        .buffer_bytes = pc->buffer_bytes > 0 ? (size_t)pc->buffer_bytes : BUFFER_BYTES,
        .temp_write_bytes = (size_t)hd_min(
            pc->temp_write_bytes > 0 ? pc->temp_write_bytes : HD_BLOCK_BYTES,
            pc->buffer_bytes > 0 ? pc->buffer_bytes : BUFFER_BYTES),
        .temp_file_max =
            pc->temp_max_plus_1 > 0 ? pc->temp_max_plus_1 - 1 : TEMP_FILE_MAX,
        .temp_path = pc->temp_path,
    };
    target->cluster = pc->cluster;
    target->cluster_name = pc->host_port;
    target->weight = 1;
    if (pc->cluster != NULL)
        proxy->host = hd_str_has_prefix(pc->host_port, HD_STR("unix:")) ? HD_STR_NONE
                                                                        : pc->host_port;
    else
        proxy->host_is_upstreams = true;
    if (pc->cluster != NULL && proxy->host.len == 0)
        proxy->host = hd_str_dup(cf->pool, HD_STR("localhost")); /* as nginx says */
    if (pc->filter.next == 0)
        pc->filter.next = HD_NEXT_ERROR | HD_NEXT_TIMEOUT;
    proxy->pass_server = has_name(pc->passed, pc->passed_n, HD_STR("Server"));
    proxy->pass_date = has_name(pc->passed, pc->passed_n, HD_STR("Date"));
    if (put_tls(cf, pc, proxy, err) != HD_OK ||
        put_default_redirect(cf, pc, place, err) != HD_OK)
        return hd_conf_blame(cf, hd_conf_find(place->node, HD_STR("proxy_pass")), err);
    put_response_ops(cf, pc, route);
    proxy->filter = &pc->filter;
    route->action = HD_ACT_PROXY;
    route->proxy = proxy;
    return HD_OK;
}

static const hd_conf_enum_t versions[] = {
    {"1.0", VERSION_10}, {"1.1", HD_UP_HTTP1}, {"2", HD_UP_HTTP2}, {NULL, 0}};

static const hd_conf_enum_t priorities[] = {{"default", 0}, {"high", 1}, {NULL, 0}};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)
#define AT(field) offsetof(proxy_conf_t, field)

static const hd_directive_t directives[] = {
    {.name = "proxy_pass",
     .scope = HD_IN_LOCATION | HD_IN_IF | HD_IN_LIMIT_EXCEPT,
     .args_n = 1,
     .set = set_pass,
     .help = "http[s]://UPSTREAM[URI]: where requests go; a URI replaces what the "
             "location matched"},
    {.name = "proxy_set_header",
     .scope = IN_ANY,
     .args_n = 2,
     .repeats = true,
     .set = set_header,
     .help = "NAME VALUE: a field towards the upstream; empty: none. A block with one "
             "inherits none. Host is $proxy_host if not given"},
    {.name = "proxy_http_version",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(version),
     .post = versions,
     .help = "1.0|1.1|2: spoken with the upstream; 1.1"},
    {.name = "proxy_method",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_method,
     .offset = AT(method),
     .help = "METHOD: towards the upstream, in place of the client's"},
    {.name = "proxy_set_body",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_expr,
     .offset = AT(body),
     .help = "TEXT: the request's body towards the upstream"},
    {.name = "proxy_pass_request_headers",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(drops_headers),
     .help = "on|off: the client's fields go to the upstream; on"},
    {.name = "proxy_pass_request_body",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(drops_body),
     .help = "on|off: the client's body goes to the upstream; on. Off, Content-Length "
             "doesn't go either"},
    {.name = "proxy_bind",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .set = set_bind,
     .offset = AT(bind),
     .help = "ADDRESS [transparent]|off: where connections to servers come from; "
             "transparent: an address that isn't ours"},
    {.name = "proxy_ignore_headers",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_ignored,
     .help = "NAME …: fields of a response that have no effect; of these, "
             "X-Accel-Redirect, X-Accel-Buffering and X-Accel-Limit-Rate have one"},
    {.name = "proxy_cookie_domain",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_cookie_domain,
     .help = "off|FROM TO: how Domain in Set-Cookie is changed"},
    {.name = "proxy_cookie_path",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_cookie_path,
     .help = "off|FROM TO: how Path in Set-Cookie is changed"},
    {.name = "proxy_cookie_flags",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_cookie_flags,
     .help = "off|COOKIE FLAG …: Secure, HttpOnly and SameSite in Set-Cookie"},
    {.name = "proxy_priority",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(is_high),
     .post = priorities,
     .help = "default|high: which of the group's circuit_breaker limits count; default"},
    {.name = "proxy_connect_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(connect_timeout_ms),
     .help = "TIME: for connecting to a server; 60s"},
    {.name = "proxy_send_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(send_timeout_ms),
     .help = "TIME: between two writes to a server; 60s"},
    {.name = "proxy_read_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(read_timeout_ms),
     .help = "TIME: between two reads from a server; 60s"},
    {.name = "proxy_buffering",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_buffering),
     .help = "on|off: the response of a client that is slow is read ahead, into "
             "proxy_buffers and then a file, so that the server is free early; on. "
             "X-Accel-Buffering of a response says otherwise"},
    {.name = "proxy_request_buffering",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_request_buffering),
     .help = "on|off: a request's body is read before a server is asked; on"},
    {.name = "proxy_buffers",
     .scope = IN_ANY,
     .args_n = 2,
     .set = set_buffers,
     .help = "N SIZE: of a response that is read ahead, N times SIZE bytes are in "
             "memory; 8 4k"},
    {.name = "proxy_buffer_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(head_bytes),
     .help = "SIZE: a response's head may be so long, up to 16 KB; 16k"},
    {.name = "proxy_busy_buffers_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; what a client has been given is sent whatever it is"},
    {.name = "proxy_send_lowat",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; nginx doesn't heed it on Linux either"},
    {.name = "proxy_max_temp_file_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_temp_max,
     .help = "SIZE: of a response that is read ahead, what proxy_buffers don't hold goes "
             "to a file of so much; 1024m; 0: none"},
    {.name = "proxy_temp_file_write_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(temp_write_bytes),
     .help = "SIZE: gathered before it is written to that file; 16k"},
    {.name = "proxy_temp_path",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 4,
     .set = set_temp_path,
     .help = "PATH [LEVEL …]: the folder of those files, which have no name, so that "
             "LEVEL has no effect; /tmp"},
    {.name = "proxy_limit_rate",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_rate,
     .offset = AT(limit_rate),
     .help = "SIZE: bytes a second that a response is read with, where proxy_buffering "
             "is on; 0: no limit"},
    {.name = "proxy_redirect",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_redirect,
     .help = "default|off|FROM TO: how Location and Refresh of responses are changed; "
             "default"},
    {.name = "proxy_hide_header",
     .scope = IN_ANY,
     .args_n = 1,
     .repeats = true,
     .set = hide_header,
     .help = "NAME: a response field that isn't passed on"},
    {.name = "proxy_pass_header",
     .scope = IN_ANY,
     .args_n = 1,
     .repeats = true,
     .set = pass_header,
     .help = "NAME: passes on a field that is hidden otherwise, as Server and Date are"},
    {.name = "proxy_ignore_client_abort",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(ignore_client_abort),
     .help = "on|off: a request goes on upstream when its client closes its side; off"},
    {.name = "proxy_multiplex",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_multiplex),
     .help =
         "on|off: over mutual TLS, another Heddle is recognised and gets the requests "
         "of one identity over one connection; on"},
    {.name = "proxy_intercept_errors",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(intercepts),
     .help = "on|off: error_page applies to the upstream's answers, too; off"},
    {.name = "proxy_next_upstream",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_next,
     .help =
         "error|timeout|invalid_header|http_500|…|non_idempotent|off …: when the next "
         "server is asked; error timeout"},
    {.name = "proxy_next_upstream_tries",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(filter.tries),
     .help = "N: at most so many servers are asked; 0: all there are"},
    {.name = "proxy_next_upstream_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(filter.tries_time_ms),
     .help = "TIME: after it no further server is asked; 0: no limit"},
    {0},
};

const hd_module_t hd_proxy_module = {
    .abi = HD_MODULE_ABI,
    .name = "proxy",
    .directives = directives,
    .conf_size = sizeof(proxy_conf_t),
    .phase = HD_PHASE_CONTENT,
    .on_response_headers = hd_proxy_filter_response,
    .on_try_result = hd_proxy_filter_result,
};
