/* RDS, and the routes that stand in a listener: virtual hosts with their lists. */
#include "mesh/xds/hd_xds_int.h"
#include "core/base/hd_map.h"

#include <string.h>

#define ANSWER_BYTES_MAX 4096

static hd_rc_t set_routes(hd_xds_t *x, const PbRoute__VirtualHost *msg, hd_vhost_t *vh,
                          hd_err_t *err)
{
    hd_matches_t *matches = hd_pool_new(x->cf.pool, hd_matches_t);
    hd_route_match_t *items = hd_pool_new_n(x->cf.pool, hd_route_match_t, msg->n_routes);
    hd_route_t *routes = hd_pool_new_n(x->cf.pool, hd_route_t, msg->n_routes);

    for (size_t i = 0; i < msg->n_routes; i++) {
        const PbRoute__Route *r = msg->routes[i];

        if (hd_xds_route_match(x, r->match, &items[i], err) != HD_OK ||
            hd_xds_route_action(x, r, msg, &items[i], &routes[i], err) != HD_OK)
            return hd_err_prefix(err, "route %zu \"%s\": ", i, r->name);
        items[i].route = &routes[i];
    }
    matches->items = items;
    matches->n = (uint32_t)msg->n_routes;
    vh->router = HD_ROUTER_MATCHES;
    vh->routes = matches;
    return HD_OK;
}

/* "*" is wild at one end only. */
static hd_rc_t set_domains(hd_xds_t *x, const PbRoute__VirtualHost *msg, hd_vhost_t *vh,
                           hd_err_t *err)
{
    hd_str_t *domains;

    if (msg->n_domains == 0)
        return hd_err_set(err, HD_E_RESOURCE, "it has no domain");
    domains = hd_pool_new_n(x->cf.pool, hd_str_t, msg->n_domains);
    for (size_t i = 0; i < msg->n_domains; i++) {
        const char *d = msg->domains[i];
        const char *star = strchr(d, '*');

        if (*d == '\0' || *d == '~' || (star != NULL && star != d && star[1] != '\0') ||
            (star == d && strchr(d + 1, '*') != NULL))
            return hd_err_set(err, HD_E_RESOURCE,
                              "domain \"%s\": right are whole names, and a \"*\" at "
                              "one end",
                              d);
        domains[i] = hd_str_dup_lower(x->cf.pool, hd_str_c(d));
    }
    vh->domains = domains;
    vh->domains_n = (uint32_t)msg->n_domains;
    return HD_OK;
}

static hd_rc_t set_vhost(hd_xds_t *x, const PbRoute__VirtualHost *msg, hd_vhost_t *vh,
                         hd_err_t *err)
{
    vh->name = hd_xds_str(x, msg->name);
    if (vh->name.len == 0)
        return hd_err_set(err, HD_E_RESOURCE, "it has no name");
    if (msg->require_tls == PB_ROUTE__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__EXTERNAL_ONLY)
        return hd_err_set(err, HD_E_RESOURCE,
                          "require_tls EXTERNAL_ONLY: not known here which requests are "
                          "external");
    vh->require_tls =
        msg->require_tls == PB_ROUTE__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__ALL;
    vh->attempt_count_to_upstream = msg->include_request_attempt_count;
    vh->attempt_count_in_response = msg->include_attempt_count_in_response;
    vh->tells_timeout_retry = msg->include_is_timeout_retry_header;
    if (set_domains(x, msg, vh, err) != HD_OK || set_routes(x, msg, vh, err) != HD_OK ||
        hd_xds_header_ops(x, msg->request_headers_to_add, msg->n_request_headers_to_add,
                          msg->request_headers_to_remove,
                          msg->n_request_headers_to_remove, &vh->request_ops,
                          &vh->request_ops_n, err) != HD_OK ||
        hd_xds_header_ops(x, msg->response_headers_to_add, msg->n_response_headers_to_add,
                          msg->response_headers_to_remove,
                          msg->n_response_headers_to_remove, &vh->response_ops,
                          &vh->response_ops_n, err) != HD_OK)
        return HD_ERROR;
    return hd_xds_overrides(x, (hd_xds_override_t *const *)msg->typed_per_filter_config,
                            msg->n_typed_per_filter_config, NULL, &vh->filters,
                            &vh->filters_n, err);
}

/* Names tell virtual hosts apart in statistics; Envoy wants them unique, too. */
static hd_rc_t check_names(hd_xds_t *x, const hd_routes_t *routes, hd_err_t *err)
{
    hd_map_t *names = hd_map_create();
    hd_rc_t rc = HD_OK;

    (void)x;
    for (uint32_t i = 0; i < routes->vhosts_n && rc == HD_OK; i++) {
        if (hd_map_put(names, routes->vhosts[i].name, names) != NULL)
            rc = hd_err_set(err, HD_E_RESOURCE, "two virtual hosts are called \"%.*s\"",
                            HD_STR_ARG(routes->vhosts[i].name));
    }
    hd_map_destroy(names);
    return rc;
}

hd_rc_t hd_xds_routes(hd_xds_t *x, const PbRoute__RouteConfiguration *msg,
                      const void **root, hd_err_t *err)
{
    hd_routes_t *routes = hd_pool_new(x->cf.pool, hd_routes_t);
    hd_vhost_t *vhosts = hd_pool_new_n(x->cf.pool, hd_vhost_t, msg->n_virtual_hosts);

    routes->name = hd_xds_str(x, msg->name);
    routes->ignore_port = msg->ignore_port_in_host_matching;
    routes->specific_wins = msg->most_specific_header_mutations_wins;
    x->routes = msg;
    x->must_exist = hd_pb_bool(msg->validate_clusters, false);
    x->answer_bytes_max =
        hd_pb_u32(msg->max_direct_response_body_size_bytes, ANSWER_BYTES_MAX);
    for (size_t i = 0; i < msg->n_virtual_hosts; i++) {
        if (set_vhost(x, msg->virtual_hosts[i], &vhosts[i], err) != HD_OK)
            return hd_err_prefix(err, "virtual host %zu \"%s\": ", i,
                                 msg->virtual_hosts[i]->name);
    }
    routes->vhosts = vhosts;
    routes->vhosts_n = (uint32_t)msg->n_virtual_hosts;
    if (check_names(x, routes, err) != HD_OK ||
        hd_routes_index(x->cf.pool, routes, false, err) != HD_OK ||
        hd_xds_header_ops(x, msg->request_headers_to_add, msg->n_request_headers_to_add,
                          msg->request_headers_to_remove,
                          msg->n_request_headers_to_remove, &routes->request_ops,
                          &routes->request_ops_n, err) != HD_OK ||
        hd_xds_header_ops(x, msg->response_headers_to_add, msg->n_response_headers_to_add,
                          msg->response_headers_to_remove,
                          msg->n_response_headers_to_remove, &routes->response_ops,
                          &routes->response_ops_n, err) != HD_OK ||
        hd_xds_overrides(x, (hd_xds_override_t *const *)msg->typed_per_filter_config,
                         msg->n_typed_per_filter_config, NULL, &routes->filters,
                         &routes->filters_n, err) != HD_OK)
        return HD_ERROR;
    *root = routes;
    return HD_OK;
}
