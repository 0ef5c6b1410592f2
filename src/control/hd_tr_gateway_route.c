#include "control/hd_tr_route_int.h"

/* A server's host as a domain: "*" stays, others as they are. */
bool hd_tr_serves_host(const hd_server_t *server, hd_str_t vs_ns, hd_str_t host,
                       hd_str_t *narrow)
{
    for (hd_each(h, server->hosts)) {
        if (!hd_str_eq(h->ns, HD_STR("*")) && !hd_str_eq(h->ns, vs_ns))
            continue;
        if (hd_host_intersects(h->host, host, narrow))
            return true;
    }
    return false;
}

static PbRoute__VirtualHost *vhost_of(PbRoute__RouteConfiguration *rc, const char *domain)
{
    for (size_t v = 0; v < rc->n_virtual_hosts; v++) {
        if (strcmp(rc->virtual_hosts[v]->domains[0], domain) == 0)
            return rc->virtual_hosts[v];
    }
    return NULL;
}

char *hd_tr_gateway_destination(hd_tr_t *t, const hd_server_t *server,
                                const hd_destination_t *d)
{
    hd_tr_place_t s = {.t = t, .port = server->port.number, .any_port = true};

    return hd_tr_destination(&s, d);
}

/* VirtualServices of one host on one gateway are joined, the oldest first (VS-12). */
static PbRoute__VirtualHost *need_vhost(const hd_tr_place_t *s,
                                        PbRoute__RouteConfiguration *rc, hd_str_t host)
{
    hd_tr_t *t = s->t;
    char *domain = hd_tr_text(t, host);
    PbRoute__VirtualHost *vh = vhost_of(rc, domain);

    if (vh == NULL) {
        vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);
        vh->name = hd_tr_printf(t, "%s:%lld", domain, (long long)s->port);
        vh->include_request_attempt_count = true;
        HD_TR_ADD(t, vh, domains, domain);
        HD_TR_ADD(t, rc, virtual_hosts, vh);
    }
    return vh;
}

/* Whatever comes for one of the server's hosts is sent to HTTPS (GW-TLS-1). */
static void add_redirects(const hd_tr_place_t *s, PbRoute__RouteConfiguration *rc,
                          const hd_server_t *server)
{
    for (hd_each(h, server->hosts))
        need_vhost(s, rc, h->host)->require_tls =
            PB_ROUTE__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__ALL;
}

/* A VirtualService's host meets each of the server's hosts that it may serve (GW-9); in a
 * virtual host it stands once, however many of its hosts lead there. */
static void join_host(const hd_tr_place_t *s, PbRoute__RouteConfiguration *rc,
                      const hd_server_t *server, const hd_object_t *vs, hd_str_t host)
{
    for (hd_each(h, server->hosts)) {
        PbRoute__VirtualHost *vh;
        hd_str_t narrow, pair;

        if ((!hd_str_eq(h->ns, HD_STR("*")) && !hd_str_eq(h->ns, vs->ns)) ||
            !hd_host_intersects(h->host, host, &narrow))
            continue;
        vh = need_vhost(s, rc, narrow);
        pair = hd_str_printf(s->t->pool, "%p %p", (const void *)vh, (const void *)vs);
        if (hd_map_put(s->domains, pair, vh) == NULL)
            hd_tr_add_routes(s, vh, vs);
    }
}

static bool is_catch_all(const PbRoute__RouteMatch *m)
{
    return m->path_specifier_case == PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX &&
           strcmp(m->prefix, "/") == 0 && m->n_headers == 0 && m->n_query_parameters == 0;
}

/* What takes all comes behind what other VirtualServices of the host take (VS-12). */
static void sort_routes(hd_tr_t *t, PbRoute__VirtualHost *vh)
{
    PbRoute__Route **sorted = hd_pool_new_n(t->pool, PbRoute__Route *, vh->n_routes + 1);
    size_t n = 0;

    for (int last = 0; last < 2; last++) {
        for (size_t i = 0; i < vh->n_routes; i++) {
            if (is_catch_all(vh->routes[i]->match) == (last == 1))
                sorted[n++] = vh->routes[i];
        }
    }
    vh->routes = sorted;
}

static void add_server(hd_tr_t *t, PbRoute__RouteConfiguration *rc, hd_map_t *joined,
                       const hd_object_t *gateway, const hd_server_t *server)
{
    hd_tr_place_t s = {.t = t,
                       .gateway = hd_tr_printf(t, "%.*s/%.*s", HD_STR_ARG(gateway->ns),
                                               HD_STR_ARG(gateway->name)),
                       .port = server->port.number,
                       .any_port = true,
                       .domains = joined};
    size_t n;
    const hd_object_t *const *list = hd_model_list(t->model, HD_KIND_VIRTUAL_SERVICE, &n);

    hd_part_depend(t->part, HD_DEP_GATEWAY, hd_str_c(s.gateway), HD_STR_NONE);
    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (!hd_strs_has(&vs->gateways, hd_str_c(s.gateway)) ||
            !hd_is_exported(&vs->export_to, list[i]->ns, gateway->ns))
            continue;
        for (hd_each(h, vs->hosts))
            join_host(&s, rc, server, list[i], *h);
    }
    if (server->tls != NULL && server->tls->https_redirect)
        add_redirects(&s, rc, server);
}

PbRoute__RouteConfiguration *hd_tr_gateway_routes(hd_tr_t *t, int64_t target)
{
    PbRoute__RouteConfiguration *rc =
        hd_tr_new_table(t, hd_tr_printf(t, "http.%lld", (long long)target));
    hd_map_t *joined = hd_map_create();
    size_t n;
    const hd_object_t *const *list = hd_tr_list(t, HD_KIND_GATEWAY, &n);

    rc->ignore_port_in_host_matching = true;
    for (size_t i = 0; i < n; i++) {
        const hd_gateway_t *gw = list[i]->gateway;

        if (!hd_labels_match(&gw->selector, hd_tr_labels(t)))
            continue;
        for (hd_each(server, gw->servers)) {
            if (hd_proto_is_http(server->port.protocol) &&
                hd_tr_gateway_target(t, server->port.number, true) == target)
                add_server(t, rc, joined, list[i], server);
        }
    }
    hd_map_destroy(joined);
    for (size_t v = 0; v < rc->n_virtual_hosts; v++)
        sort_routes(t, rc->virtual_hosts[v]);
    if (rc->n_virtual_hosts == 0) { /* an empty table answers 404 to all */
        PbRoute__VirtualHost *vh =
            HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);

        vh->name = hd_tr_printf(t, "blackhole:%lld", (long long)target);
        HD_TR_ADD(t, vh, domains, "*");
        HD_TR_ADD(t, rc, virtual_hosts, vh);
    }
    return rc;
}
