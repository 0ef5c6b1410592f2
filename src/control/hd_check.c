/* References between objects: hosts, subsets, gateways, selectors. A dangling one is a
 * warning: what can be used of the object stays in force. Codes are those of `istioctl
 * analyze` and of Kiali. */
#include "control/hd_model_int.h"
#include "control/hd_model_k8s.h"
#include "control/hd_model_policy.h"
#include "control/hd_model_traffic.h"

typedef struct {
    hd_model_t *model;
    hd_status_list_t *list;
    const hd_object_t *obj;
    hd_map_t *owners; /* a host on mesh -> the oldest VirtualService that has it */
} check_t;

static void HD_PRINTF(4, 5)
    warn(const check_t *c, const char *code, uint32_t line, const char *fmt, ...)
{
    hd_status_t s = {.severity = HD_STATUS_WARNING,
                     .code = hd_str_c(code),
                     .place = c->obj->place,
                     .kind = hd_str_c(hd_kind_name(c->obj->kind)),
                     .ns = c->obj->ns,
                     .name = c->obj->name};
    va_list args;

    if (line != 0)
        s.place.line = line;
    va_start(args, fmt);
    s.text = hd_str_vprintf(c->list->pool, fmt, args);
    va_end(args);
    hd_status_list_add(c->list, &s);
}

/* --- VirtualService --- */

#define RULES_MAX 32

static bool has_subset(const hd_object_t *const *rules, size_t n, hd_str_t name)
{
    for (size_t i = 0; i < n; i++) {
        for (hd_each(s, rules[i]->destination_rule->subsets)) {
            if (hd_str_eq(s->name, name))
                return true;
        }
    }
    return false;
}

static void check_destination(const check_t *c, const hd_destination_t *dest,
                              uint32_t line)
{
    const hd_object_t *rules[RULES_MAX];
    const hd_object_t *service = hd_model_find_service(c->model, dest->host, c->obj->ns);
    const hd_mesh_service_t *svc;
    bool found = dest->port == HD_UNSET;

    if (service == NULL) {
        warn(c, "IST0101", line, "no service has the host %.*s: requests get 503",
             HD_STR_ARG(dest->host)); /* ERR-3 */
        return;
    }
    svc = service->service;
    for (hd_each(port, svc->ports))
        found |= port->number == dest->port;
    if (!found)
        warn(c, "IST0101", line, "%.*s has no port %lld", HD_STR_ARG(dest->host),
             (long long)dest->port);
    if (dest->port == HD_UNSET && svc->ports.n > 1) /* VS-ROUTE-15 */
        warn(c, "IST0112", line,
             "%.*s has several ports and the destination names none: the request's own "
             "is used",
             HD_STR_ARG(dest->host));
    if (dest->subset.len > 0) {
        size_t n = hd_model_find_rules(c->model, c->obj->ns, service->ns, dest->host,
                                       rules, RULES_MAX);

        if (!has_subset(rules, n, dest->subset)) /* ERR-5 */
            warn(c, "IST0101", line,
                 "no DestinationRule gives %.*s a subset %.*s: requests get 503",
                 HD_STR_ARG(dest->host), HD_STR_ARG(dest->subset));
    }
}

static void check_gateways(const check_t *c, const hd_virtual_service_t *vs)
{
    for (hd_each(name, vs->gateways)) {
        ssize_t slash = hd_str_find_char(*name, '/');
        hd_str_t ns, of;

        if (slash < 0)
            continue; /* mesh */
        ns = hd_str_sub(*name, 0, (size_t)slash);
        of = hd_str_sub(*name, (size_t)slash + 1, name->len);
        if (hd_model_get(c->model, HD_KIND_GATEWAY, ns, of) == NULL)
            warn(c, "IST0101", 0, "no Gateway %.*s", HD_STR_ARG(*name));
    }
}

/* VS-8: the older one owns a host on mesh. Objects come oldest first. */
static void check_owner(const check_t *c, const hd_virtual_service_t *vs)
{
    if (!hd_strs_has(&vs->gateways, HD_STR("mesh")))
        return;
    for (hd_each(host, vs->hosts)) {
        const hd_object_t *older = hd_map_get(c->owners, *host);

        if (older == NULL)
            hd_map_put(c->owners, *host, (void *)c->obj);
        else if (older != c->obj && hd_is_exported(&older->virtual_service->export_to,
                                                   older->ns, c->obj->ns))
            warn(c, "IST0109", 0,
                 "the host %.*s is that of VirtualService %.*s/%.*s, too: this one "
                 "is ignored for it",
                 HD_STR_ARG(*host), HD_STR_ARG(older->ns), HD_STR_ARG(older->name));
    }
}

static void check_virtual_service(const check_t *c)
{
    const hd_virtual_service_t *vs = c->obj->virtual_service;

    for (hd_each(route, vs->http)) {
        for (hd_each(dest, route->route))
            check_destination(c, &dest->destination, route->line);
        for (hd_each(mirror, route->mirrors))
            check_destination(c, &mirror->destination, route->line);
    }
    for (hd_each(tls, vs->tls)) {
        for (hd_each(dest, tls->route))
            check_destination(c, &dest->destination, tls->line);
    }
    for (hd_each(tcp, vs->tcp)) {
        for (hd_each(dest, tcp->route))
            check_destination(c, &dest->destination, tcp->line);
    }
    check_gateways(c, vs);
}

/* --- the other kinds --- */

static bool selects_any(const check_t *c, const hd_labels_t *selector, hd_str_t ns)
{
    size_t n;
    const hd_object_t *const *pods =
        ns.len == 0 ? hd_model_list(c->model, HD_KIND_POD, &n)
                    : hd_model_list_ns(c->model, HD_KIND_POD, ns, &n);
    const hd_object_t *const *entries;

    for (size_t i = 0; i < n; i++) {
        if (hd_labels_match(selector, &pods[i]->labels))
            return true;
    }
    entries = ns.len == 0 ? hd_model_list(c->model, HD_KIND_WORKLOAD_ENTRY, &n)
                          : hd_model_list_ns(c->model, HD_KIND_WORKLOAD_ENTRY, ns, &n);
    for (size_t i = 0; i < n; i++) {
        if (hd_labels_match(selector, &entries[i]->workload_entry->labels))
            return true;
    }
    return false;
}

static void check_destination_rule(const check_t *c)
{
    static const hd_kind_t with_hosts[] = {HD_KIND_SERVICE, HD_KIND_SERVICE_ENTRY};
    const hd_destination_rule_t *r = c->obj->destination_rule;
    size_t n;
    const hd_object_t *const *list;

    if (!hd_host_is_wildcard(r->host)) {
        if (hd_model_find_service(c->model, r->host, c->obj->ns) == NULL)
            warn(c, "KIA0202", 0, "no service has the host %.*s: the rule has no effect",
                 HD_STR_ARG(r->host));
        return;
    }
    for (size_t k = 0; k < hd_countof(with_hosts); k++) {
        list = hd_model_list(c->model, with_hosts[k], &n);
        for (size_t i = 0; i < n; i++) {
            for (hd_each(host, list[i]->service->hosts)) {
                if (hd_host_covers(r->host, *host))
                    return;
            }
        }
    }
    warn(c, "KIA0202", 0, "no service has a host like %.*s: the rule has no effect",
         HD_STR_ARG(r->host));
}

static void check_selector(const check_t *c, const hd_labels_t *selector,
                           const char *code)
{
    bool everywhere = c->obj->kind == HD_KIND_GATEWAY || /* GW-1 */
                      (hd_str_eq(c->obj->ns, c->model->root_namespace) &&
                       c->obj->kind != HD_KIND_PEER_AUTHENTICATION); /* ATT-2, PA-6 */

    if (selector->n > 0 &&
        !selects_any(c, selector, everywhere ? HD_STR("") : c->obj->ns))
        warn(c, code, 0, "no workload has the labels of its selector");
}

/* KIA0601: a port whose name says no protocol is found out by its first bytes. */
static void check_service(const check_t *c)
{
    for (hd_each(port, c->obj->service->ports)) {
        if (port->protocol == HD_PROTO_AUTO)
            warn(c, "KIA0601", 0,
                 "port %lld: neither its name (http-…, grpc-…, tcp-…) nor appProtocol "
                 "says what it speaks: found out by the first bytes",
                 (long long)port->number);
    }
}

/* --- what is read and checked, but has no effect yet: said aloud --- */

#define NO_EFFECT(c, line, what)                                                         \
    warn(c, "", line, "%s: not supported yet, no effect", what)

static void check_unsupported_routes(const check_t *c)
{
    const hd_virtual_service_t *vs = c->obj->virtual_service;

    if (vs->tcp.n + vs->tls.n > 0 && hd_strs_has(&vs->gateways, HD_STR("mesh")))
        NO_EFFECT(c, 0, "spec: tcp, tls for the gateway \"mesh\"");
    for (hd_each(http, vs->http)) {
        if (http->cors != NULL)
            NO_EFFECT(c, http->line, "spec: http: corsPolicy");
    }
}

static void check_servers(const check_t *c)
{
    for (hd_each(s, c->obj->gateway->servers)) {
        if (s->port.protocol == HD_PROTO_HTTPS ||
            (hd_proto_is_tls(s->port.protocol) &&
             (s->tls == NULL || s->tls->mode != HD_SERVER_TLS_PASSTHROUGH)))
            NO_EFFECT(c, s->line, "spec: servers: a server that ends TLS");
    }
}

static void check_sidecar(const check_t *c)
{
    const hd_sidecar_t *s = c->obj->sidecar;

    if (s->ingress.n > 0)
        NO_EFFECT(c, 0, "spec: ingress");
    if (s->egress_proxy != NULL)
        NO_EFFECT(c, 0, "spec: outboundTrafficPolicy: egressProxy");
    for (hd_each(e, s->egress)) {
        if (e->port != NULL || e->bind.len > 0)
            NO_EFFECT(c, 0, "spec: egress: port and bind (its hosts count for all)");
    }
}

static void check_policy(const check_t *c)
{
    if (c->obj->authz->action == HD_AUTHZ_CUSTOM)
        warn(c, "", 0,
             "action CUSTOM: providers are not supported yet: what it matches is denied");
}

static void check_object(const check_t *c)
{
    switch (c->obj->kind) {
    case HD_KIND_SERVICE:
        check_service(c);
        break;
    case HD_KIND_VIRTUAL_SERVICE:
        check_virtual_service(c);
        check_owner(c, c->obj->virtual_service);
        check_unsupported_routes(c);
        break;
    case HD_KIND_DESTINATION_RULE:
        check_destination_rule(c);
        break;
    case HD_KIND_GATEWAY:
        check_selector(c, &c->obj->gateway->selector, "IST0101");
        check_servers(c);
        break;
    case HD_KIND_SIDECAR:
        check_selector(c, &c->obj->sidecar->selector, "KIA0004");
        check_sidecar(c);
        break;
    case HD_KIND_AUTHORIZATION_POLICY:
        check_selector(c, &c->obj->authz->selector, "KIA0004");
        check_policy(c);
        break;
    case HD_KIND_PEER_AUTHENTICATION:
        check_selector(c, &c->obj->peer_auth->selector, "KIA0004");
        break;
    default:
        break;
    }
}

void hd_model_check(hd_model_t *model, hd_status_list_t *list)
{
    static const hd_kind_t kinds[] = {
        HD_KIND_SERVICE, HD_KIND_VIRTUAL_SERVICE,      HD_KIND_DESTINATION_RULE,
        HD_KIND_GATEWAY, HD_KIND_AUTHORIZATION_POLICY, HD_KIND_PEER_AUTHENTICATION,
        HD_KIND_SIDECAR};
    hd_map_t *owners = hd_map_create();

    for (size_t k = 0; k < hd_countof(kinds); k++) {
        size_t n;
        const hd_object_t *const *objs = hd_model_list(model, kinds[k], &n);

        for (size_t i = 0; i < n; i++)
            check_object(&(check_t){model, list, objs[i], owners});
    }
    hd_map_destroy(owners);
}
