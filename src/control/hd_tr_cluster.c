#include "control/hd_tr_cluster_int.h"
#include "ext/raw_buffer.pb-c.h"

#define CONNECT_TIMEOUT_NS 10000000000ll /* MC: connectTimeout */
#define BIND_INBOUND "127.0.0.6"         /* interception leaves this source alone */

/* --- outbound clusters --- */

/* metadata "istio": what telemetry says of the destination. */
static void set_metadata(hd_tr_t *t, PbCluster__Cluster *c, const hd_object_t *svc,
                         hd_str_t host, hd_str_t subset, const hd_object_t *rule)
{
    Pb__Struct *s = hd_tr_struct(t), *istio = hd_tr_struct(t);
    Pb__Value **list = hd_pool_alloc(t->pool, sizeof(*list));

    hd_tr_struct_text(t, s, "host", hd_tr_text(t, host));
    hd_tr_struct_text(t, s, "name", hd_tr_text(t, svc->name));
    hd_tr_struct_text(t, s, "namespace", hd_tr_text(t, svc->ns));
    list[0] = hd_tr_value_struct(t, s);
    if (rule != NULL)
        hd_tr_struct_text(
            t, istio, "config",
            hd_tr_printf(t,
                         "/apis/networking.istio.io/v1alpha3/namespaces/%.*s/"
                         "destination-rule/%.*s",
                         HD_STR_ARG(rule->ns), HD_STR_ARG(rule->name)));
    if (subset.len > 0)
        hd_tr_struct_text(t, istio, "subset", hd_tr_text(t, subset));
    hd_tr_struct_value(t, istio, "services", hd_tr_value_list(t, list, 1));
    hd_tr_metadata(t, &c->metadata, "istio", istio);
}

typedef struct {
    const hd_object_t *svc;
    hd_str_t host;
    const hd_service_port_t *port;
    hd_str_t subset;
    const hd_labels_t *subset_labels;
    const hd_object_t *rule;
    hd_tr_policy_t policy;
} outbound_t;

static PbCluster__Cluster__TransportSocketMatch *
socket_match(hd_tr_t *t, const char *name, PbCore__TransportSocket *socket)
{
    PbCluster__Cluster__TransportSocketMatch *m =
        HD_TR_NEW(t, PbCluster__Cluster__TransportSocketMatch,
                  pb_cluster__cluster__transport_socket_match);

    m->name = (char *)(uintptr_t)name;
    m->match = hd_tr_struct(t);
    m->transport_socket = socket;
    return m;
}

static PbCore__TransportSocket *raw_socket(hd_tr_t *t)
{
    return hd_tr_socket(t, "envoy.transport_sockets.raw_buffer",
                        HD_TR_NEW(t, PbRawBuffer__RawBuffer, pb_raw_buffer__raw_buffer));
}

/* Auto mTLS: endpoints that have a sidecar get mutual TLS, others plain text; a rule's
 * own mode goes before (DR-TLS-*), and nobody gets it where the namespace's (or the
 * mesh's) PeerAuthentication turns it off. SIMPLE and MUTUAL are for services outside the
 * mesh.
 */
static void set_transport(hd_tr_t *t, PbCluster__Cluster *c, const outbound_t *o,
                          const hd_strs_t *identities)
{
    const hd_client_tls_t *tls = o->policy.tls;
    char *sni = hd_tr_printf(t, "outbound_.%lld_.%.*s_.%.*s", (long long)o->port->number,
                             HD_STR_ARG(o->subset), HD_STR_ARG(o->host));
    bool is_h2 = hd_proto_is_http2(o->port->protocol) ||
                 (o->policy.pool != NULL && o->policy.pool->h2_upgrade == HD_H2_UPGRADE);
    PbCluster__Cluster__TransportSocketMatch *m;

    if (tls != NULL && tls->mode == HD_CLIENT_TLS_ISTIO_MUTUAL) {
        c->transport_socket = hd_tr_upstream_mtls(
            t, tls->sni.len > 0 ? hd_tr_text(t, tls->sni) : sni,
            tls->subject_alt_names.n > 0 ? &tls->subject_alt_names : identities, is_h2);
        return;
    }
    if (tls == NULL &&
        o->svc->service->external) { /* whatever it is, it has no sidecar */
        HD_TR_ADD(t, c, transport_socket_matches,
                  socket_match(t, "tlsMode-disabled", raw_socket(t)));
        return;
    }
    if (tls != NULL ||
        hd_tr_mtls_mode(t, o->svc->ns, NULL, o->port->number) == HD_MTLS_DISABLE)
        return;
    m = socket_match(t, "tlsMode-istio", hd_tr_upstream_mtls(t, sni, identities, is_h2));
    hd_tr_struct_text(t, m->match, "tlsMode", "istio");
    HD_TR_ADD(t, c, transport_socket_matches, m);
    HD_TR_ADD(t, c, transport_socket_matches,
              socket_match(t, "tlsMode-disabled", raw_socket(t)));
}

static void set_eds(hd_tr_t *t, PbCluster__Cluster *c)
{
    PbCluster__Cluster__EdsClusterConfig *eds = HD_TR_NEW(
        t, PbCluster__Cluster__EdsClusterConfig, pb_cluster__cluster__eds_cluster_config);

    eds->eds_config = hd_tr_ads(t);
    eds->service_name = c->name;
    c->eds_cluster_config = eds;
}

static void set_type(PbCluster__Cluster *c, PbCluster__Cluster__DiscoveryType type)
{
    c->cluster_discovery_type_case = PB_CLUSTER__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE;
    c->type = type;
}

/* As long as its TTL says, a minute if it says nothing. */
static void set_dns(hd_tr_t *t, PbCluster__Cluster *c)
{
    c->dns_lookup_family = PB_CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V4_ONLY;
    c->dns_refresh_rate = hd_tr_duration(t, 60000000000ll);
    c->dns_jitter = hd_tr_duration(t, 100000000);
    c->respect_dns_ttl = true;
}

/* Health is always respected: a cluster of which all endpoints are ill answers 503. */
static PbCluster__Cluster__CommonLbConfig *outbound_lb(hd_tr_t *t, const hd_outlier_t *o)
{
    PbCluster__Cluster__CommonLbConfig *lb = HD_TR_NEW(
        t, PbCluster__Cluster__CommonLbConfig, pb_cluster__cluster__common_lb_config);

    lb->healthy_panic_threshold = HD_TR_NEW(t, PbType__Percent, pb_type__percent);
    if (o != NULL && o->min_health_percent > 0)
        lb->healthy_panic_threshold->value = (double)o->min_health_percent;
    return lb;
}

static void put_outbound(hd_tr_t *t, const outbound_t *o)
{
    PbCluster__Cluster *c = HD_TR_NEW(t, PbCluster__Cluster, pb_cluster__cluster);
    hd_tr_endpoints_t e = {.t = t, .subset = o->subset_labels};
    hd_resolution_t resolution = o->svc->service->resolution;
    hd_strs_t identities;

    /* nobody's connections have an original destination that a gateway could use */
    if (resolution == HD_RESOLVE_NONE && t->proxy->kind == HD_PROXY_ROUTER)
        resolution = HD_RESOLVE_STATIC;

    c->name = hd_tr_cluster_name(t, o->port->number, o->subset, o->host);
    c->alt_stat_name = hd_tr_printf(t, "%s;", c->name);
    c->connect_timeout =
        hd_tr_duration(t, o->policy.pool != NULL && o->policy.pool->connect_timeout_ns > 0
                              ? o->policy.pool->connect_timeout_ns
                              : CONNECT_TIMEOUT_NS);
    e.cla = HD_TR_NEW(t, PbEndpoint__ClusterLoadAssignment,
                      pb_endpoint__cluster_load_assignment);
    e.cla->cluster_name = c->name;
    hd_tr_gather(&e, o->svc, o->port);
    for (hd_each(san, o->svc->service->subject_alt_names)) {
        if (e.ids_n < HD_TR_IDENTITIES_MAX)
            e.ids[e.ids_n++] = *san;
    }
    identities = (hd_strs_t){.items = e.ids, .n = e.ids_n};
    hd_tr_set_lb(c, o->policy.lb);
    c->circuit_breakers = hd_tr_breakers(t, &o->policy);
    c->common_lb_config = outbound_lb(t, o->policy.outlier);
    if (o->policy.outlier != NULL)
        c->outlier_detection = hd_tr_outlier(t, o->policy.outlier);
    hd_tr_set_http_options(t, c, o->port->protocol, o->policy.pool);
    hd_tr_set_keepalive(t, c, o->policy.pool);
    set_metadata(t, c, o->svc, o->host, o->subset, o->rule);
    if (resolution == HD_RESOLVE_STATIC) {
        set_type(c, PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__EDS);
        set_eds(t, c);
        set_transport(t, c, o, &identities);
        hd_tr_put(t, HD_VIEW_ENDPOINTS, c->name, e.cla);
    } else if (resolution == HD_RESOLVE_DNS || resolution == HD_RESOLVE_DNS_ROUND_ROBIN) {
        set_type(c, resolution == HD_RESOLVE_DNS
                        ? PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__STRICT_DNS
                        : PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS);
        if (e.cla->n_endpoints == 0) /* the host is its own endpoint (SE-12) */
            hd_tr_add_endpoint(&e, o->host, o->port->number, 1, NULL, NULL);
        c->load_assignment = e.cla;
        set_dns(t, c);
        set_transport(t, c, o, &identities);
    } else { /* the original destination */
        set_type(c, PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST);
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED;
        if (o->svc->service->external)
            set_transport(t, c, o, &identities);
    }
    hd_tr_put(t, HD_VIEW_CLUSTERS, c->name, c);
}

static void put_service_port(hd_tr_t *t, const hd_object_t *svc, hd_str_t host,
                             const hd_service_port_t *port)
{
    const hd_object_t *rules[8];
    size_t rules_n = hd_tr_find_rules(t, svc->ns, host, rules, hd_countof(rules));
    outbound_t base = {.svc = svc, .host = host, .port = port};

    hd_tr_depend_object(t, svc);
    for (size_t i = 0; i < rules_n; i++) {
        const hd_destination_rule_t *dr = rules[i]->destination_rule;

        if (dr->selector.n > 0 && !hd_labels_match(&dr->selector, hd_tr_labels(t)))
            continue;
        base.rule = rules[i];
        hd_tr_apply_policy(&base.policy, dr->policy, port->number);
        for (hd_each(s, dr->subsets)) {
            outbound_t sub = base;

            sub.subset = s->name;
            sub.subset_labels = &s->labels;
            hd_tr_apply_policy(&sub.policy, s->policy, port->number);
            put_outbound(t, &sub);
        }
    }
    put_outbound(t, &base);
}

void hd_tr_outbound_clusters(hd_tr_t *t)
{
    static const hd_kind_t kinds[] = {HD_KIND_SERVICE, HD_KIND_SERVICE_ENTRY};

    if (hd_tr_begin(t, false, false, "which services")) { /* without resources */
        hd_tr_depend_kind(t, HD_KIND_SERVICE);
        hd_tr_depend_kind(t, HD_KIND_SERVICE_ENTRY);
        hd_tr_end(t);
    }
    for (unsigned k = 0; k < hd_countof(kinds); k++) {
        size_t n;
        const hd_object_t *const *list = hd_model_list(t->model, kinds[k], &n);

        for (size_t i = 0; i < n; i++) {
            const hd_mesh_service_t *svc = list[i]->service;

            if (!hd_tr_sees(t, list[i]) || svc->resolution == HD_RESOLVE_ALIAS ||
                svc->resolution == HD_RESOLVE_DYNAMIC_DNS)
                continue;
            for (hd_each(host, svc->hosts)) {
                if ((hd_host_is_wildcard(*host) && svc->resolution != HD_RESOLVE_NONE) ||
                    !hd_tr_sees_host(t, list[i], *host))
                    continue;
                for (hd_each(port, svc->ports)) {
                    if (port->protocol == HD_PROTO_UDP ||
                        !hd_tr_begin(t, false, false, "cluster of %s %.*s/%.*s %.*s:%lld",
                                     hd_kind_plural(kinds[k]), HD_STR_ARG(list[i]->ns),
                                     HD_STR_ARG(list[i]->name), HD_STR_ARG(*host),
                                     (long long)port->number))
                        continue;
                    put_service_port(t, list[i], *host, port);
                    hd_tr_end(t);
                }
            }
        }
    }
}

/* --- the proxy's own workload --- */

/* The pool settings of a rule hold on the server's side, too. */
static hd_tr_policy_t inbound_policy(hd_tr_t *t, const hd_tr_own_port_t *own)
{
    const hd_object_t *rules[4];
    hd_tr_policy_t p = {0};
    size_t n =
        hd_tr_find_rules(t, own->service->ns, own->service->service->hosts.items[0],
                         rules, hd_countof(rules));

    for (size_t i = 0; i < n; i++)
        hd_tr_apply_policy(&p, rules[i]->destination_rule->policy, own->port->number);
    if (t->sidecar != NULL && t->sidecar->sidecar->inbound_pool != NULL) /* SC-14 */
        p.pool = t->sidecar->sidecar->inbound_pool;
    return p;
}

/* To the application: where interception is off, at an explicit address (APP_ADDRESS of
 * the node, a setting of ours; 127.0.0.1 as Istio has it); else the original destination.
 */
static void put_inbound(hd_tr_t *t, const hd_tr_own_port_t *own)
{
    PbCluster__Cluster *c = HD_TR_NEW(t, PbCluster__Cluster, pb_cluster__cluster);
    const hd_connection_pool_t *pool;
    hd_tr_policy_t policy = inbound_policy(t, own);

    c->name = hd_tr_inbound_name(t, own->target);
    c->alt_stat_name = hd_tr_printf(t, "%s;", c->name);
    pool = policy.pool;
    c->connect_timeout = hd_tr_duration(t, pool != NULL && pool->connect_timeout_ns > 0
                                               ? pool->connect_timeout_ns
                                               : CONNECT_TIMEOUT_NS);
    c->circuit_breakers = hd_tr_breakers(t, &policy);
    hd_tr_set_keepalive(t, c, pool);
    c->common_lb_config = HD_TR_NEW(t, PbCluster__Cluster__CommonLbConfig,
                                    pb_cluster__cluster__common_lb_config);
    hd_tr_set_http_options(t, c, own->port->protocol, pool);
    set_metadata(t, c, own->service, own->service->service->hosts.items[0], HD_STR_NONE,
                 NULL);
    if (hd_str_eq(t->proxy->interception_mode, HD_STR("NONE"))) {
        hd_tr_endpoints_t e = {.t = t};
        hd_str_t app = t->proxy->app_address;

        set_type(c, PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC);
        e.cla = HD_TR_NEW(t, PbEndpoint__ClusterLoadAssignment,
                          pb_endpoint__cluster_load_assignment);
        e.cla->cluster_name = c->name;
        hd_tr_add_endpoint(&e, app.len > 0 ? app : HD_STR("127.0.0.1"), own->target, 1,
                           NULL, NULL);
        c->load_assignment = e.cla;
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__ROUND_ROBIN;
    } else {
        set_type(c, PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST);
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED;
        c->upstream_bind_config = HD_TR_NEW(t, PbCore__BindConfig, pb_core__bind_config);
        c->upstream_bind_config->source_address =
            hd_tr_address(t, HD_STR(BIND_INBOUND), 0)->socket_address;
        c->cleanup_interval = hd_tr_duration(t, 9223372035ll * 1000000000);
    }
    hd_tr_put(t, HD_VIEW_CLUSTERS, c->name, c);
}

void hd_tr_inbound_clusters(hd_tr_t *t)
{
    hd_tr_own_port_t ports[64];
    size_t n;

    if (!hd_tr_begin(t, true, false, "inbound clusters"))
        return;
    n = hd_tr_own_ports(t, ports, hd_countof(ports));
    for (size_t i = 0; i < n; i++)
        put_inbound(t, &ports[i]);
    hd_tr_end(t);
}

static void put_fixed(hd_tr_t *t, const char *name, bool is_original, bool is_inbound)
{
    PbCluster__Cluster *c = HD_TR_NEW(t, PbCluster__Cluster, pb_cluster__cluster);
    hd_tr_policy_t none = {0};

    c->name = (char *)(uintptr_t)name;
    c->alt_stat_name = hd_tr_printf(t, "%s;", name);
    c->connect_timeout = hd_tr_duration(t, CONNECT_TIMEOUT_NS);
    set_type(c, is_original ? PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST
                            : PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC);
    if (is_original) {
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED;
        c->circuit_breakers = hd_tr_breakers(t, &none);
        c->alt_stat_name = "PassthroughCluster;"; /* both count as one */
        hd_tr_set_passthrough_options(t, c);
    }
    if (is_inbound) {
        c->upstream_bind_config = HD_TR_NEW(t, PbCore__BindConfig, pb_core__bind_config);
        c->upstream_bind_config->source_address =
            hd_tr_address(t, HD_STR(BIND_INBOUND), 0)->socket_address;
    }
    hd_tr_put(t, HD_VIEW_CLUSTERS, name, c);
}

void hd_tr_fixed_clusters(hd_tr_t *t)
{
    if (!hd_tr_begin(t, false, false, "fixed clusters"))
        return;
    put_fixed(t, "BlackHoleCluster", false, false);
    if (t->proxy->kind == HD_PROXY_SIDECAR) {
        put_fixed(t, "PassthroughCluster", true, false);
        put_fixed(t, "InboundPassthroughCluster", true, true);
    }
    hd_tr_end(t);
}
