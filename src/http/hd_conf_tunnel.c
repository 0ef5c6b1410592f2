/* tunnel_pass and what goes with it (nginx's tunnel module): CONNECT ends here, its bytes
 * go to a server. Directives and route are the proxy's; HD_ACT_TUNNEL makes the
 * difference. */
#include "http/hd_conf_tunnel.h"
#include "core/conf/hd_conf_cluster.h"
#include "http/hd_conf_derived.h"
#include "http/hd_conf_proxy_int.h"

static hd_conf_derived_t tunnel;

/* Nothing of HTTP stands in it: no scheme, no path, no port that goes without saying. */
static hd_rc_t set_pass(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t addr = cf->node->args_n > 0 ? args[0] : HD_STR("$host:$request_port");
    hd_conf_proxy_t *pc = conf;
    hd_expr_t *expr;

    if (addr.len == 0 || (hd_str_find_char(addr, '/') >= 0 &&
                          !hd_str_has_prefix(addr, HD_STR("unix:"))))
        return hd_err_set(err, HD_E_CONF,
                          "invalid \"%.*s\": HOST:PORT, unix:PATH or an upstream's name "
                          "is expected",
                          HD_STR_ARG(addr));
    pc->pass_of = hd_http_build_of(cf)->place->id;
    pc->cluster = pc->any = NULL;
    pc->url = NULL;
    pc->is_variable = hd_str_find_char(addr, '$') >= 0;
    pc->host_port = hd_str_dup(cf->pool, addr);
    pc->no_redirect = pc->no_buffering = pc->no_request_buffering = true;
    if (!pc->is_variable)
        return hd_conf_cluster->slot_for(cf, pc->host_port, 0, false, &pc->cluster, err);
    if (hd_expr_compile(cf, addr, &expr, err) != HD_OK)
        return HD_ERROR;
    pc->url = expr;
    return hd_conf_cluster->any_slot(cf, false, &pc->any, err);
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t own[] = {
    {.name = "tunnel_pass",
     .scope = HD_IN_SERVER | HD_IN_LOCATION | HD_IN_IF,
     .args_n = 0,
     .args_max = 1,
     .set = set_pass,
     .help = "[HOST:PORT|unix:PATH|UPSTREAM]: where CONNECT leads to, with variables if "
             "need be; $host:$request_port. Other methods get 405"},
    {.name = "tunnel_buffer_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = offsetof(hd_conf_proxy_t, accepted),
     .help = "SIZE: accepted; a tunnel holds no memory while nothing waits in it"},
};

static const hd_conf_enum_t next_names[] = {{"error", HD_NEXT_ERROR},
                                            {"timeout", HD_NEXT_TIMEOUT},
                                            {"denied", HD_NEXT_DENIED},
                                            {"off", HD_NEXT_OFF},
                                            {NULL, 0}};

/* The proxy's; <help>: what it is for here, NULL: the same. */
static const struct {
    const char *name, *help;
    const void *post;
} taken[] = {
    {"proxy_allow_upstream", NULL, NULL},
    {"proxy_bind", NULL, NULL},
    {"proxy_bind_dynamic", NULL, NULL},
    {"proxy_connect_timeout", NULL, NULL},
    {"proxy_next_upstream",
     "error|timeout|denied|off …: when the next server is tried; error timeout",
     next_names},
    {"proxy_next_upstream_timeout", NULL, NULL},
    {"proxy_next_upstream_tries", NULL, NULL},
    {"proxy_read_timeout",
     "TIME: a tunnel in which nothing goes either way for so long is ended; 60s", NULL},
    {"proxy_send_lowat", NULL, NULL},
    {"proxy_send_timeout",
     "TIME: a tunnel whose server takes nothing of what waits for it for so long is ended; "
     "60s",
     NULL},
    {"proxy_socket_keepalive", NULL, NULL},
};

void hd_tunnel_register(void)
{
    for (size_t i = 0; i < hd_countof(own); i++)
        hd_conf_derived_add(&tunnel, &own[i]);
    for (size_t i = 0; i < hd_countof(taken); i++) {
        hd_directive_t *d =
            hd_conf_derived_take(&tunnel, &hd_proxy_module, taken[i].name, "tunnel_");

        d->help = taken[i].help != NULL ? taken[i].help : d->help;
        d->post = taken[i].post != NULL ? taken[i].post : d->post;
    }
    hd_conf_derived_register(&tunnel, "tunnel", &hd_proxy_module);
}

hd_rc_t hd_http_tunnel_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                             hd_err_t *err)
{
    const hd_conf_proxy_t *pc = hd_http_look(cf, &tunnel.module);
    hd_conf_t at;
    hd_proxy_conf_t *proxy;
    hd_rc_t rc;

    if (!hd_http_proxy_passes(pc, place))
        return HD_DECLINED;
    hd_conf_derived_enter(cf, &tunnel, &at);
    rc = hd_http_proxy_route(&at, place, route, err);
    if (rc != HD_OK)
        return rc;
    proxy = hd_pool_new(cf->pool, hd_proxy_conf_t);
    *proxy = *route->proxy;
    proxy->cluster_expr = proxy->uri; /* a name, no URL */
    proxy->uri = NULL;
    route->proxy = proxy;
    route->action = HD_ACT_TUNNEL;
    hd_http_build_of(cf)->has_tunnel = true;
    return HD_OK;
}
