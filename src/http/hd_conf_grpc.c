/* grpc_pass and what goes with it: the proxy's own directives under other names, with
 * HTTP/2 spoken upstream and nothing held back. Their settings are the proxy's structs;
 * a route is made by the proxy's code from those. */
#include "http/hd_conf_grpc.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"

#include <stdio.h>

#define DERIVED_MAX 40
#define NAME_BYTES 40

/* --- directives made of the proxy's --- */

typedef struct {
    hd_module_t module;
    hd_directive_t directives[DERIVED_MAX + 1];
    char names[DERIVED_MAX][NAME_BYTES];
} derived_t;

static derived_t grpc_proxy, grpc_ssl;

static const hd_directive_t *find(const hd_module_t *m, const char *name)
{
    const hd_directive_t *d = m->directives;

    while (d->name != NULL && strcmp(d->name, name) != 0)
        d++;
    return d->name != NULL ? d : NULL;
}

/* "proxy_x" as "grpc_x", in an http block. */
static void derive(derived_t *to, unsigned at, const hd_directive_t *from)
{
    hd_bug_on(at == DERIVED_MAX);
    (void)snprintf(to->names[at], NAME_BYTES, "grpc_%s", from->name + strlen("proxy_"));
    to->directives[at] = *from;
    to->directives[at].name = to->names[at];
    to->directives[at].scope &= HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION;
}

/* --- grpc_pass --- */

/* A directive of the proxy, applied to the settings that grpc_pass has. */
static hd_rc_t apply(hd_conf_t *cf, const char *name, hd_str_t arg, void *conf,
                     hd_err_t *err)
{
    hd_conf_t at = *cf;

    at.directive = find(&hd_proxy_module, name);
    hd_bug_on(at.directive == NULL);
    return at.directive->set(&at, &arg, conf, err);
}

static hd_rc_t set_pass(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool is_tls = hd_str_has_prefix_nocase(args[0], HD_STR("grpcs://"));
    hd_str_t rest = args[0];

    if (is_tls || hd_str_has_prefix_nocase(args[0], HD_STR("grpc://")))
        rest = hd_str_sub(rest, is_tls ? 8 : 7, rest.len);
    if (rest.len == 0 || hd_str_find(rest, HD_STR("://")) >= 0 ||
        (hd_str_find_char(rest, '/') >= 0 && !hd_str_has_prefix(rest, HD_STR("unix:"))))
        return hd_err_set(err, HD_E_CONF,
                          "invalid \"%.*s\": [grpc://|grpcs://]UPSTREAM is expected, "
                          "without a path",
                          HD_STR_ARG(args[0]));
    rest = hd_str_printf(cf->pool, "%s%.*s", is_tls ? "https://" : "http://",
                         HD_STR_ARG(rest));
    if (apply(cf, "proxy_http_version", HD_STR("2"), conf, err) != HD_OK ||
        apply(cf, "proxy_redirect", HD_STR("off"), conf, err) != HD_OK ||
        apply(cf, "proxy_buffering", HD_STR("off"), conf, err) != HD_OK ||
        apply(cf, "proxy_request_buffering", HD_STR("off"), conf, err) != HD_OK)
        return HD_ERROR;
    return apply(cf, "proxy_pass", rest, conf, err);
}

static const hd_directive_t pass = {
    .name = "grpc_pass",
    .scope = HD_IN_LOCATION | HD_IN_IF | HD_IN_LIMIT_EXCEPT,
    .args_n = 1,
    .set = set_pass,
    .help = "[grpc://|grpcs://]UPSTREAM: where gRPC requests go, over HTTP/2; errors of "
            "ours are gRPC statuses for who asks by gRPC",
};

/* --- deadlines --- */

typedef struct {
    bool honours_timeout;
    uint64_t timeout_max_ms; /* 0: as the client says */
} grpc_conf_t;

static hd_rc_t set_timeout_max(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    grpc_conf_t *gc = conf;

    (void)cf;
    gc->honours_timeout = !hd_str_eq(args[0], HD_STR("off"));
    gc->timeout_max_ms = 0;
    return gc->honours_timeout ? hd_parse_msec(args[0], &gc->timeout_max_ms, err) : HD_OK;
}

static const hd_directive_t directives[] = {
    {.name = "grpc_timeout_header_max",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = set_timeout_max,
     .help =
         "TIME|off: a request to grpc_pass ends with DEADLINE_EXCEEDED after the time "
         "that its client allows by grpc-timeout, at most TIME (0: no limit); off"},
    {0},
};

static const hd_module_t grpc_module = {
    .abi = HD_MODULE_ABI,
    .name = "grpc",
    .directives = directives,
    .conf_size = sizeof(grpc_conf_t),
};

/* --- modules and routes --- */

void hd_grpc_register(void)
{
    static const char *const taken[] = {
        "bind",          "buffer_size",           "connect_timeout",
        "hide_header",   "ignore_headers",        "intercept_errors",
        "next_upstream", "next_upstream_timeout", "next_upstream_tries",
        "pass_header",   "read_timeout",          "send_timeout",
        "set_header",    "socket_keepalive"};
    const hd_directive_t *d;
    unsigned n = 0;

    grpc_proxy.directives[n++] = pass;
    for (size_t i = 0; i < hd_countof(taken); i++) {
        char name[NAME_BYTES];

        (void)snprintf(name, sizeof(name), "proxy_%s", taken[i]);
        if ((d = find(&hd_proxy_module, name)) != NULL)
            derive(&grpc_proxy, n++, d);
    }
    grpc_proxy.module = (hd_module_t){.abi = HD_MODULE_ABI,
                                      .name = "grpc_proxy",
                                      .directives = grpc_proxy.directives,
                                      .conf_size = hd_proxy_module.conf_size};
    n = 0;
    for (d = hd_proxy_ssl_module.directives; d->name != NULL; d++) {
        if (d->scope & HD_IN_LOCATION)
            derive(&grpc_ssl, n++, d);
    }
    grpc_ssl.module = (hd_module_t){.abi = HD_MODULE_ABI,
                                    .name = "grpc_ssl",
                                    .directives = grpc_ssl.directives,
                                    .conf_size = hd_proxy_ssl_module.conf_size};
    hd_ignore(hd_module_add(&grpc_module) == 0);
    hd_ignore(hd_module_add(&grpc_proxy.module) == 0);
    hd_ignore(hd_module_add(&grpc_ssl.module) == 0);
}

hd_rc_t hd_http_grpc_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                           hd_err_t *err)
{
    const grpc_conf_t *gc = hd_http_look(cf, &grpc_module);
    uint16_t number = hd_module_number(&hd_proxy_module);
    void **confs;
    hd_conf_t at = *cf; /* where the proxy's settings are those of gRPC */
    hd_proxy_conf_t *proxy;
    hd_rc_t rc;

    if (!hd_http_proxy_passes(hd_http_look(cf, &grpc_proxy.module), place))
        return HD_DECLINED;
    confs = hd_pool_new_n(cf->temp, void *, hd_modules_n());
    memcpy(confs, cf->confs, hd_modules_n() * sizeof(*confs));
    confs[number] =
        hd_conf_copy(cf, number, cf->confs[hd_module_number(&grpc_proxy.module)]);
    confs[hd_module_number(&hd_proxy_ssl_module)] =
        cf->confs[hd_module_number(&grpc_ssl.module)];
    at.confs = confs;
    rc = hd_http_proxy_route(&at, place, route, err);
    if (rc != HD_OK)
        return rc;
    proxy = hd_pool_new(cf->pool, hd_proxy_conf_t);
    *proxy = *route->proxy;
    proxy->is_grpc = true;
    proxy->has_grpc_timeout = gc->honours_timeout;
    proxy->max_grpc_timeout_ms = (uint32_t)hd_min(gc->timeout_max_ms, UINT32_MAX);
    route->proxy = proxy;
    return HD_OK;
}
