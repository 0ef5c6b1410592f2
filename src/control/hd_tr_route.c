#include "control/hd_tr_route_int.h"

/* --- VirtualServices --- */

static bool has_gateway(const hd_strs_t *list, const char *gateway)
{
    return hd_strs_has(list, hd_str_c(gateway));
}

/* Whether a match can hold for this proxy and port at all (VS-MATCH-9 … 12). */
static bool is_for(const hd_tr_place_t *s, const hd_http_match_t *m)
{
    if (m->gateways.n > 0 && !has_gateway(&m->gateways, s->gateway))
        return false;
    if (m->port != HD_UNSET && m->port != s->port)
        return false;
    if (m->source_labels.n > 0 && !hd_labels_match(&m->source_labels, hd_tr_labels(s->t)))
        return false;
    return m->source_namespace.len == 0 ||
           hd_str_eq(m->source_namespace, s->t->proxy->ns);
}

static void add_route(const hd_tr_place_t *s, PbRoute__VirtualHost *vh,
                      const hd_object_t *vs, const hd_http_route_t *http,
                      const hd_http_match_t *m)
{
    hd_tr_t *t = s->t;
    PbRoute__Route *route = HD_TR_NEW(t, PbRoute__Route, pb_route__route);
    Pb__Struct *istio = hd_tr_struct(t);

    route->name =
        m != NULL && m->name.len > 0
            ? hd_tr_printf(t, "%.*s.%.*s", HD_STR_ARG(http->name), HD_STR_ARG(m->name))
            : hd_tr_text(t, http->name);
    route->match = hd_tr_route_match(t, m);
    hd_tr_set_action(s, route, http);
    hd_tr_struct_text(t, istio, "config",
                      hd_tr_printf(t,
                                   "/apis/networking.istio.io/v1/namespaces/%.*s/"
                                   "virtual-service/%.*s",
                                   HD_STR_ARG(vs->ns), HD_STR_ARG(vs->name)));
    hd_tr_metadata(t, &route->metadata, "istio", istio);
    route->decorator = HD_TR_NEW(t, PbRoute__Decorator, pb_route__decorator);
    route->decorator->operation = hd_tr_printf(t, "%s/*", vh->name);
    HD_TR_ADD(t, vh, routes, route);
}

static bool catches_all(const hd_http_match_t *m)
{
    return (m->uri == NULL || (m->uri->kind == HD_STRMATCH_PREFIX &&
                               hd_str_eq(m->uri->value, HD_STR("/")))) &&
           m->headers.n == 0 && m->without_headers.n == 0 && m->query_params.n == 0 &&
           m->method == NULL && m->authority == NULL && m->scheme == NULL;
}

/* One Route for each match. True: the last one has no conditions, so that what comes
 * behind can't be reached. */
static bool add_http_route(const hd_tr_place_t *s, PbRoute__VirtualHost *vh,
                           const hd_object_t *vs, const hd_http_route_t *http)
{
    if (http->match.n == 0) {
        add_route(s, vh, vs, http, NULL);
        return true;
    }
    for (hd_each(m, http->match)) {
        if (!is_for(s, m))
            continue;
        add_route(s, vh, vs, http, m);
        if (catches_all(m))
            return true;
    }
    return false;
}

static bool add_delegated(const hd_tr_place_t *s, PbRoute__VirtualHost *vh,
                          const hd_object_t *vs, const hd_http_route_t *root)
{
    const hd_object_t *delegate = hd_tr_find_delegate(s->t, vs, root->delegate);

    if (delegate == NULL)
        return false;
    for (hd_each(own, delegate->virtual_service->http)) {
        hd_http_route_t http;

        if (hd_tr_merge_delegate(s->t, root, own, &http) &&
            add_http_route(s, vh, vs, &http))
            return true;
    }
    return false;
}

void hd_tr_add_routes(const hd_tr_place_t *s, PbRoute__VirtualHost *vh,
                      const hd_object_t *vs)
{
    for (hd_each(http, vs->virtual_service->http)) {
        if (http->delegate != NULL ? add_delegated(s, vh, vs, http)
                                   : add_http_route(s, vh, vs, http))
            return;
    }
}

/* The oldest of those that list exactly <host> and count here. */
static const hd_object_t *find_vs_of(const hd_tr_place_t *s, hd_str_t host)
{
    size_t n;
    const hd_object_t *const *list = hd_model_virtual_services_of(s->t->model, host, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (vs->http.n > 0 && has_gateway(&vs->gateways, s->gateway) &&
            hd_tr_sees_vs(s->t, list[i]))
            return list[i];
    }
    return NULL;
}

/* The VirtualService of a host for these routes: the most specific host that covers it
 * (HOST-5), the oldest of those. */
static const hd_object_t *find_vs(const hd_tr_place_t *s, hd_str_t host)
{
    const hd_object_t *found = find_vs_of(s, host);
    char wild[256];

    hd_part_depend_host(s->t->part, HD_DEP_VS, host);
    for (size_t i = 1; found == NULL && i < host.len && host.len < sizeof(wild); i++) {
        if (host.data[i] != '.')
            continue;
        wild[0] = '*';
        memcpy(wild + 1, host.data + i, host.len - i);
        found = find_vs_of(s, hd_str_n(wild, host.len - i + 1));
    }
    return found != NULL ? found : find_vs_of(s, HD_STR("*"));
}

/* <host>: the service's, for retries and hashing; unset: neither. */
static void add_default_route(hd_tr_t *t, PbRoute__VirtualHost *vh, const char *cluster,
                              const char *name, hd_str_t host)
{
    PbRoute__Route *route = HD_TR_NEW(t, PbRoute__Route, pb_route__route);
    PbRoute__RouteAction *a = HD_TR_NEW(t, PbRoute__RouteAction, pb_route__route_action);

    route->name = (char *)(uintptr_t)name;
    route->match = hd_tr_route_match(t, NULL);
    route->action_case = PB_ROUTE__ROUTE__ACTION_ROUTE;
    route->route = a;
    a->cluster_specifier_case = PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER;
    a->cluster = (char *)(uintptr_t)cluster;
    a->timeout = hd_tr_duration(t, 0);
    a->max_grpc_timeout = a->timeout;
    if (host.len > 0) {
        a->retry_policy = hd_tr_retry_policy(t, NULL);
        hd_tr_set_hash(t, a, host);
    }
    HD_TR_ADD(t, vh, routes, route);
}

/* --- domains --- */

static void add_domain(hd_tr_t *t, PbRoute__VirtualHost *vh, const char *domain,
                       int64_t with_port)
{
    HD_TR_ADD(t, vh, domains, (char *)(uintptr_t)domain);
    if (with_port != HD_UNSET)
        HD_TR_ADD(t, vh, domains,
                  hd_tr_printf(t, "%s:%lld", domain, (long long)with_port));
}

/* A name and what a client in its namespace may shorten it to (istio-to-xds §7). */
static void add_domains(hd_tr_t *t, PbRoute__VirtualHost *vh, const hd_object_t *svc,
                        hd_str_t host, int64_t with_port)
{
    add_domain(t, vh, hd_tr_text(t, host), with_port);
    add_domain(t, vh, hd_tr_printf(t, "%.*s.", HD_STR_ARG(host)), with_port);
    if (svc->kind == HD_KIND_SERVICE) {
        if (hd_str_eq(svc->ns, t->proxy->ns))
            add_domain(t, vh, hd_tr_text(t, svc->name), with_port);
        add_domain(
            t, vh,
            hd_tr_printf(t, "%.*s.%.*s.svc", HD_STR_ARG(svc->name), HD_STR_ARG(svc->ns)),
            with_port);
        add_domain(
            t, vh,
            hd_tr_printf(t, "%.*s.%.*s", HD_STR_ARG(svc->name), HD_STR_ARG(svc->ns)),
            with_port);
    }
    for (hd_each(vip, svc->service->addresses)) {
        if (hd_str_find_char(*vip, '/') >= 0)
            continue;
        add_domain(t, vh,
                   hd_str_find_char(*vip, ':') >= 0
                       ? hd_tr_printf(t, "[%.*s]", HD_STR_ARG(*vip))
                       : hd_tr_text(t, *vip),
                   with_port);
    }
}

/* A domain stands once in a table: the first virtual host has it. */
static void add_vhost(const hd_tr_place_t *s, PbRoute__RouteConfiguration *rc,
                      PbRoute__VirtualHost *vh)
{
    hd_tr_t *t = s->t;
    size_t kept = 0;

    for (size_t d = 0; d < vh->n_domains; d++) {
        hd_str_t domain = hd_str_c(vh->domains[d]);

        if (hd_map_get(s->domains, domain) != NULL)
            continue;
        hd_map_put(s->domains, domain, vh);
        vh->domains[kept++] = vh->domains[d];
    }
    vh->n_domains = kept;
    vh->include_request_attempt_count = true;
    if (kept > 0)
        HD_TR_ADD(t, rc, virtual_hosts, vh);
}

PbRoute__RouteConfiguration *hd_tr_new_table(hd_tr_t *t, char *name)
{
    PbRoute__RouteConfiguration *rc =
        HD_TR_NEW(t, PbRoute__RouteConfiguration, pb_route__route_configuration);

    rc->name = name;
    rc->validate_clusters = hd_tr_bool(t, false);
    rc->max_direct_response_body_size_bytes = hd_tr_u32(t, 1048576);
    return rc;
}

/* --- sidecars --- */

static void add_service_vhost(const hd_tr_place_t *s, PbRoute__RouteConfiguration *rc,
                              const hd_object_t *svc, hd_str_t host,
                              const hd_service_port_t *port, bool is_proxy)
{
    hd_tr_t *t = s->t;
    hd_tr_place_t here = {
        .t = t, .gateway = "mesh", .port = port->number, .domains = s->domains};
    PbRoute__VirtualHost *vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);
    const hd_object_t *vs = find_vs(&here, host);

    vh->name = hd_tr_printf(t, "%.*s:%lld", HD_STR_ARG(host), (long long)port->number);
    add_domains(t, vh, svc, host, is_proxy ? port->number : HD_UNSET);
    if (vs != NULL)
        hd_tr_add_routes(&here, vh, vs);
    if (vh->n_routes == 0 && vs == NULL)
        add_default_route(t, vh, hd_tr_cluster_name(t, port->number, HD_STR_NONE, host),
                          "default", host);
    add_vhost(s, rc, vh);
}

/* Hosts of VirtualServices that no service of this port has: virtual hosts of their own,
 * on port 80 (istio-to-xds §7). */
static void add_vs_hosts(const hd_tr_place_t *s, PbRoute__RouteConfiguration *rc)
{
    hd_tr_t *t = s->t;
    size_t n;
    const hd_object_t *const *list = hd_tr_list(t, HD_KIND_VIRTUAL_SERVICE, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (vs->http.n == 0 || !has_gateway(&vs->gateways, s->gateway) ||
            !hd_tr_sees_vs(t, list[i]))
            continue;
        for (hd_each(h, vs->hosts)) {
            PbRoute__VirtualHost *vh;
            char *domain = hd_tr_text(t, *h);

            if (hd_map_get(s->domains, *h) != NULL)
                continue;
            vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);
            vh->name = hd_tr_printf(t, "%s:80", domain);
            HD_TR_ADD(t, vh, domains, domain);
            hd_tr_add_routes(s, vh, list[i]);
            add_vhost(s, rc, vh);
        }
    }
}

static void add_catch_all(const hd_tr_place_t *s, PbRoute__RouteConfiguration *rc,
                          bool is_proxy)
{
    hd_tr_t *t = s->t;
    PbRoute__VirtualHost *vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);

    HD_TR_ADD(t, vh, domains, "*");
    if (!is_proxy && !hd_tr_is_registry_only(t)) {
        vh->name = "allow_any";
        add_default_route(t, vh, "PassthroughCluster", "allow_any", HD_STR_NONE);
    } else { /* nowhere to pass it to: an explicit proxy, or SC-16 */
        PbRoute__Route *route = HD_TR_NEW(t, PbRoute__Route, pb_route__route);

        vh->name = "block_all";
        route->name = "block_all";
        route->match = hd_tr_route_match(t, NULL);
        route->action_case = PB_ROUTE__ROUTE__ACTION_DIRECT_RESPONSE;
        route->direct_response =
            HD_TR_NEW(t, PbRoute__DirectResponseAction, pb_route__direct_response_action);
        route->direct_response->status = 502;
        HD_TR_ADD(t, vh, routes, route);
    }
    add_vhost(s, rc, vh);
}

/* <port> 0: the explicit proxy's table, with all ports. */
PbRoute__RouteConfiguration *hd_tr_sidecar_routes(hd_tr_t *t, int64_t port)
{
    static const hd_kind_t kinds[] = {HD_KIND_SERVICE, HD_KIND_SERVICE_ENTRY};
    bool is_proxy = port == 0;
    PbRoute__RouteConfiguration *rc =
        hd_tr_new_table(t, is_proxy ? hd_tr_printf(t, "http_proxy")
                                    : hd_tr_printf(t, "%lld", (long long)port));
    hd_tr_place_t s = {
        .t = t, .gateway = "mesh", .port = port, .domains = hd_map_create()};

    if (is_proxy) {
        hd_tr_depend_kind(t, HD_KIND_SERVICE);
        hd_tr_depend_kind(t, HD_KIND_SERVICE_ENTRY);
    } else {
        hd_tr_depend_port(t, port);
    }
    rc->ignore_port_in_host_matching = !is_proxy;
    for (unsigned k = 0; k < hd_countof(kinds); k++) {
        size_t n;
        const hd_object_t *const *list = hd_model_list(t->model, kinds[k], &n);

        for (size_t i = 0; i < n; i++) {
            const hd_mesh_service_t *svc = list[i]->service;

            if (!hd_tr_sees(t, list[i]))
                continue;
            for (hd_each(host, svc->hosts)) {
                for (hd_each(p, svc->ports)) {
                    if ((is_proxy || p->number == port) &&
                        (hd_proto_is_http(p->protocol) || p->protocol == HD_PROTO_AUTO) &&
                        !hd_host_is_wildcard(*host) && hd_tr_sees_host(t, list[i], *host))
                        add_service_vhost(&s, rc, list[i], *host, p, is_proxy);
                }
            }
        }
    }
    if (port == 80)
        add_vs_hosts(&s, rc);
    add_catch_all(&s, rc, is_proxy);
    hd_map_destroy(s.domains);
    return rc;
}

PbRoute__RouteConfiguration *hd_tr_inbound_routes(hd_tr_t *t, const char *cluster,
                                                  int64_t port)
{
    PbRoute__RouteConfiguration *rc = hd_tr_new_table(t, hd_tr_printf(t, "%s", cluster));
    PbRoute__VirtualHost *vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);

    vh->name = hd_tr_printf(t, "inbound|http|%lld", (long long)port);
    HD_TR_ADD(t, vh, domains, "*");
    add_default_route(t, vh, rc->name, "default", HD_STR_NONE);
    HD_TR_ADD(t, rc, virtual_hosts, vh);
    return rc;
}
