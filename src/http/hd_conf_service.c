#include "http/hd_conf_service.h"
#include "http/hd_http_conf.h"
#include "http/hd_service.h"

/* Streams of days (xDS) have no limit of body or time. */
static const hd_http_loc_t *make_loc(hd_pool_t *pool)
{
    hd_http_loc_t *loc = hd_pool_new(pool, hd_http_loc_t);

    *loc = hd_http_loc_defaults;
    loc->client_max_body_size = 0;
    loc->default_type = HD_STR_NONE;
    return loc;
}

static hd_rc_t make_routes(hd_pool_t *pool, hd_str_t service, const hd_http_loc_t *loc,
                           const hd_routes_t **out, hd_err_t *err)
{
    hd_routes_t *routes = hd_pool_new(pool, hd_routes_t);
    hd_vhost_t *vhost = hd_pool_new(pool, hd_vhost_t);
    hd_matches_t *matches = hd_pool_new(pool, hd_matches_t);
    hd_route_match_t *match = hd_pool_new(pool, hd_route_match_t);
    hd_route_t *route = hd_pool_new(pool, hd_route_t);
    hd_str_t *any = hd_pool_new(pool, hd_str_t);

    *any = hd_str_dup(pool, HD_STR("*"));
    route->name = hd_str_dup(pool, service);
    route->action = HD_ACT_SERVICE;
    route->service = hd_service_find(service);
    route->loc = loc;
    match->path.kind = HD_MATCH_ANY;
    match->route = route;
    matches->items = match;
    matches->n = 1;
    vhost->name = route->name;
    vhost->domains = any;
    vhost->domains_n = 1;
    vhost->router = HD_ROUTER_MATCHES;
    vhost->routes = matches;
    vhost->loc = loc;
    routes->name = route->name;
    routes->vhosts = vhost;
    routes->vhosts_n = 1;
    *out = routes;
    if (route->service == 0)
        return hd_err_set(err, HD_E_INTERNAL, "there is no service %.*s",
                          HD_STR_ARG(service));
    return hd_routes_index(pool, routes, false, err);
}

static hd_rc_t fill_listener(hd_conf_t *cf, hd_pool_t *pool, hd_listener_t *l,
                             hd_str_t address, hd_str_t service, hd_err_t *err)
{
    hd_filter_chain_t *chain = hd_pool_new(pool, hd_filter_chain_t);
    hd_http_conf_t *http = hd_pool_new(pool, hd_http_conf_t);

    (void)cf;
    if (hd_addr_parse(pool, address, 0, &l->addr, err) != HD_OK)
        return HD_ERROR;
    if (l->addr.family != AF_UNIX && l->addr.port == 0)
        return hd_err_set(err, HD_E_CONF, "no port in \"%.*s\"", HD_STR_ARG(address));
    l->socket = (hd_socket_spec_t){.bind = l->addr,
                                   .type = SOCK_STREAM,
                                   .listen = true,
                                   .v6only = true,
                                   .nodelay = true};
    l->bind = true;
    http->loc = make_loc(pool);
    http->normalize_path = true;
    if (make_routes(pool, service, http->loc, &http->inline_routes, err) != HD_OK)
        return HD_ERROR;
    chain->name = hd_str_dup(pool, service);
    chain->protocol = hd_http_protocol();
    chain->protocol_conf = http;
    l->chains = chain;
    l->chains_n = 1;
    return HD_OK;
}

hd_rc_t hd_conf_put_service(hd_conf_t *cf, hd_str_t address, hd_str_t service,
                            unsigned roles, hd_err_t *err)
{
    hd_str_t name =
        hd_str_printf(cf->temp, "%.*s %.*s", HD_STR_ARG(service), HD_STR_ARG(address));
    hd_pool_t *pool = cf->temp;
    hd_region_t *r = NULL;
    hd_slot_t *slot = NULL;
    hd_listener_t *l;
    hd_rc_t rc;

    if (cf->batch != NULL) {
        slot = hd_slot_find_or_add(cf->arena, HD_RES_LISTENER, name, err);
        if (slot == NULL)
            return HD_ERROR;
        r = hd_batch_region(cf->batch, HD_RES_LISTENER, name, hd_conf_place(cf), 0, &pool,
                            err);
        if (r == NULL)
            return HD_ERROR;
    }
    l = hd_pool_new(pool, hd_listener_t);
    l->name = hd_str_dup(pool, name);
    if (fill_listener(cf, pool, l, address, service, err) != HD_OK ||
        hd_build_need_listen_for(cf, &l->socket, roles, err) != HD_OK)
        return HD_ERROR;
    if (r == NULL)
        return HD_OK;
    rc = hd_batch_put(cf->batch, slot, r, l, HD_CONTENT_BUILT, err);
    return rc == HD_DONE ? HD_OK : rc;
}
