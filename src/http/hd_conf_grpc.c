/* grpc_pass and what goes with it: the proxy's own directives under other names, with
 * HTTP/2 spoken upstream and nothing held back. Their settings are the proxy's structs;
 * a route is made by the proxy's code from those. */
#include "http/hd_conf_grpc.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_derived.h"

static hd_conf_derived_t grpc_proxy, grpc_ssl;

/* --- grpc_pass --- */

static hd_rc_t set_pass(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    static const struct {
        const char *name, *value;
    } fixed[] = {{"proxy_http_version", "2"},
                 {"proxy_redirect", "off"},
                 {"proxy_buffering", "off"},
                 {"proxy_request_buffering", "off"}};
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
    for (size_t i = 0; i < hd_countof(fixed); i++) {
        if (hd_conf_derived_apply(cf, fixed[i].name, hd_str_c(fixed[i].value), conf,
                                  err) != HD_OK)
            return HD_ERROR;
    }
    return hd_conf_derived_apply(cf, "proxy_pass", rest, conf, err);
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
        "proxy_allow_upstream",      "proxy_bind",
        "proxy_bind_dynamic",        "proxy_buffer_size",
        "proxy_connect_timeout",     "proxy_hide_header",
        "proxy_ignore_headers",      "proxy_intercept_errors",
        "proxy_next_upstream",       "proxy_next_upstream_timeout",
        "proxy_next_upstream_tries", "proxy_pass_header",
        "proxy_read_timeout",        "proxy_send_timeout",
        "proxy_set_header",          "proxy_socket_keepalive"};

    hd_conf_derived_add(&grpc_proxy, &pass);
    for (size_t i = 0; i < hd_countof(taken); i++)
        (void)hd_conf_derived_take(&grpc_proxy, &hd_proxy_module, taken[i], "grpc_");
    for (const hd_directive_t *d = hd_proxy_ssl_module.directives; d->name != NULL; d++) {
        if (d->scope & HD_IN_LOCATION)
            (void)hd_conf_derived_take(&grpc_ssl, &hd_proxy_ssl_module, d->name, "grpc_");
    }
    hd_ignore(hd_module_add(&grpc_module) == 0);
    hd_conf_derived_register(&grpc_proxy, "grpc_proxy", &hd_proxy_module);
    hd_conf_derived_register(&grpc_ssl, "grpc_ssl", &hd_proxy_ssl_module);
}

hd_rc_t hd_http_grpc_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                           hd_err_t *err)
{
    const grpc_conf_t *gc = hd_http_look(cf, &grpc_module);
    hd_conf_t at;
    hd_proxy_conf_t *proxy;
    hd_rc_t rc;

    if (!hd_http_proxy_passes(hd_http_look(cf, &grpc_proxy.module), place))
        return HD_DECLINED;
    hd_conf_derived_enter(cf, &grpc_proxy, &at);
    at.confs[hd_module_number(&hd_proxy_ssl_module)] =
        cf->confs[hd_module_number(&grpc_ssl.module)];
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
