#include "control/hd_translate_int.h"
#include "ext/raw_buffer.pb-c.h"
#include "ext/upstream_http.pb-c.h"

#include <stdlib.h>

#define CONNECT_TIMEOUT_NS 10000000000ll /* MC: connectTimeout */
#define BIND_INBOUND "127.0.0.6"         /* interception leaves this source alone */

char *hd_tr_cluster_name(hd_tr_t *t, int64_t port, hd_str_t subset, hd_str_t host)
{
    return hd_tr_printf(t, "outbound|%lld|%.*s|%.*s", (long long)port, HD_STR_ARG(subset),
                        HD_STR_ARG(host));
}

char *hd_tr_inbound_name(hd_tr_t *t, int64_t port)
{
    return hd_tr_printf(t, "inbound|%lld||", (long long)port);
}

/* --- policies: the rule's blocks, overridden by those for the port, then by the subset's
 * --- */

typedef struct {
    const hd_dr_lb_t *lb;
    const hd_connection_pool_t *pool;
    const hd_outlier_t *outlier;
    const hd_client_tls_t *tls;
    const hd_retry_budget_t *retry_budget;
} policy_t;

static void override(policy_t *p, const hd_traffic_blocks_t *b)
{
    p->lb = b->lb != NULL ? b->lb : p->lb;
    p->pool = b->pool != NULL ? b->pool : p->pool;
    p->outlier = b->outlier != NULL ? b->outlier : p->outlier;
    p->tls = b->tls != NULL ? b->tls : p->tls;
    p->retry_budget = b->retry_budget != NULL ? b->retry_budget : p->retry_budget;
}

/* What stands for the port replaces the rest, also what it leaves out (DR-11). */
static void replace(policy_t *p, const hd_traffic_blocks_t *b)
{
    p->lb = b->lb;
    p->pool = b->pool;
    p->outlier = b->outlier;
    p->tls = b->tls;
    p->retry_budget = b->retry_budget != NULL ? b->retry_budget : p->retry_budget;
}

static void apply_policy(policy_t *p, const hd_traffic_policy_t *tp, int64_t port)
{
    if (tp == NULL)
        return;
    override(p, &tp->blocks);
    for (hd_each(pp, tp->ports)) {
        if (pp->port == port)
            replace(p, &pp->blocks);
    }
}

/* DR-CP-15 */
static PbCluster__CircuitBreakers__Thresholds__RetryBudget *
retry_budget(hd_tr_t *t, const hd_retry_budget_t *b)
{
    PbCluster__CircuitBreakers__Thresholds__RetryBudget *msg =
        HD_TR_NEW(t, PbCluster__CircuitBreakers__Thresholds__RetryBudget,
                  pb_cluster__circuit_breakers__thresholds__retry_budget);

    msg->budget_percent = HD_TR_NEW(t, PbType__Percent, pb_type__percent);
    msg->budget_percent->value =
        b->percent_ppm == HD_UNSET ? 20 : (double)b->percent_ppm / 10000;
    msg->min_retry_concurrency =
        hd_tr_u32(t, b->min_concurrency == HD_UNSET ? 3 : b->min_concurrency);
    return msg;
}

static PbCluster__CircuitBreakers *breakers(hd_tr_t *t, const policy_t *p)
{
    PbCluster__CircuitBreakers *cb =
        HD_TR_NEW(t, PbCluster__CircuitBreakers, pb_cluster__circuit_breakers);
    PbCluster__CircuitBreakers__Thresholds *th =
        HD_TR_NEW(t, PbCluster__CircuitBreakers__Thresholds,
                  pb_cluster__circuit_breakers__thresholds);
    const hd_connection_pool_t *pool = p->pool;

#define LIMIT(field)                                                                     \
    hd_tr_u32(t, pool != NULL && pool->field > 0 ? pool->field : UINT32_MAX)
    th->max_connections = LIMIT(max_connections);
    th->max_pending_requests = LIMIT(max_pending_requests);
    th->max_requests = LIMIT(max_requests);
    th->max_retries = LIMIT(max_retries);
#undef LIMIT
    if (p->retry_budget != NULL)
        th->retry_budget = retry_budget(t, p->retry_budget);
    HD_TR_ADD(t, cb, thresholds, th);
    return cb;
}

/* DR-OD-*: success rate is never enforced. */
static PbCluster__OutlierDetection *outlier(hd_tr_t *t, const hd_outlier_t *o)
{
    PbCluster__OutlierDetection *d =
        HD_TR_NEW(t, PbCluster__OutlierDetection, pb_cluster__outlier_detection);

    d->enforcing_success_rate = hd_tr_u32(t, 0);
    if (o->consecutive_5xx != HD_UNSET) {
        d->consecutive_5xx = hd_tr_u32(t, o->consecutive_5xx);
        d->enforcing_consecutive_5xx = hd_tr_u32(t, o->consecutive_5xx > 0 ? 100 : 0);
    }
    if (o->consecutive_gateway != HD_UNSET) {
        d->consecutive_gateway_failure = hd_tr_u32(t, o->consecutive_gateway);
        d->enforcing_consecutive_gateway_failure =
            hd_tr_u32(t, o->consecutive_gateway > 0 ? 100 : 0);
    }
    if (o->interval_ns != HD_UNSET)
        d->interval = hd_tr_duration(t, o->interval_ns);
    if (o->base_ejection_ns != HD_UNSET)
        d->base_ejection_time = hd_tr_duration(t, o->base_ejection_ns);
    if (o->max_ejection_percent != HD_UNSET)
        d->max_ejection_percent = hd_tr_u32(t, o->max_ejection_percent);
    if (o->split_local) {
        d->split_external_local_origin_errors = true;
        if (o->consecutive_local != HD_UNSET) {
            d->consecutive_local_origin_failure = hd_tr_u32(t, o->consecutive_local);
            d->enforcing_consecutive_local_origin_failure =
                hd_tr_u32(t, o->consecutive_local > 0 ? 100 : 0);
        }
        d->enforcing_local_origin_success_rate = hd_tr_u32(t, 0);
    }
    return d;
}

static void set_lb(PbCluster__Cluster *c, const hd_dr_lb_t *lb)
{
    switch (lb != NULL ? lb->kind : HD_DR_LB_UNSPECIFIED) {
    case HD_DR_LB_ROUND_ROBIN:
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__ROUND_ROBIN;
        break;
    case HD_DR_LB_RANDOM:
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__RANDOM;
        break;
    case HD_DR_LB_CONSISTENT_HASH:
        c->lb_policy = lb->hash->maglev ? PB_CLUSTER__CLUSTER__LB_POLICY__MAGLEV
                                        : PB_CLUSTER__CLUSTER__LB_POLICY__RING_HASH;
        break;
    default:
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__LEAST_REQUEST;
    }
}

#define HTTP_OPTIONS "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

/* HTTP/1 without anything to say has no entry. */
static void set_http_options(hd_tr_t *t, PbCluster__Cluster *c, hd_proto_t protocol,
                             const hd_connection_pool_t *pool)
{
    PbUpstreamHttp__HttpProtocolOptions *o = HD_TR_NEW(
        t, PbUpstreamHttp__HttpProtocolOptions, pb_upstream_http__http_protocol_options);
    PbUpstreamHttp__HttpProtocolOptions__ExplicitHttpConfig *ex =
        HD_TR_NEW(t, PbUpstreamHttp__HttpProtocolOptions__ExplicitHttpConfig,
                  pb_upstream_http__http_protocol_options__explicit_http_config);
    bool is_h2 = hd_proto_is_http2(protocol) ||
                 (pool != NULL && pool->h2_upgrade == HD_H2_UPGRADE);
    bool has_common = pool != NULL && (pool->http_idle_timeout_ns != HD_UNSET ||
                                       pool->max_connection_duration_ns > 0 ||
                                       pool->max_requests_per_connection > 0);
    PbCluster__Cluster__TypedExtensionProtocolOptionsEntry *e;

    if (!is_h2 && !has_common)
        return;
    o->upstream_protocol_options_case =
        PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_EXPLICIT_HTTP_CONFIG;
    o->explicit_http_config = ex;
    if (is_h2) {
        ex->protocol_config_case =
            PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP2_PROTOCOL_OPTIONS;
        ex->http2_protocol_options =
            HD_TR_NEW(t, PbCore__Http2ProtocolOptions, pb_core__http2_protocol_options);
        if (pool != NULL && pool->max_concurrent_streams > 0)
            ex->http2_protocol_options->max_concurrent_streams =
                hd_tr_u32(t, pool->max_concurrent_streams);
    } else {
        ex->protocol_config_case =
            PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP_PROTOCOL_OPTIONS;
        ex->http_protocol_options =
            HD_TR_NEW(t, PbCore__Http1ProtocolOptions, pb_core__http1_protocol_options);
    }
    if (has_common) {
        PbCore__HttpProtocolOptions *common =
            HD_TR_NEW(t, PbCore__HttpProtocolOptions, pb_core__http_protocol_options);

        if (pool->http_idle_timeout_ns != HD_UNSET)
            common->idle_timeout = hd_tr_duration(t, pool->http_idle_timeout_ns);
        if (pool->max_connection_duration_ns > 0)
            common->max_connection_duration =
                hd_tr_duration(t, pool->max_connection_duration_ns);
        if (pool->max_requests_per_connection > 0)
            common->max_requests_per_connection =
                hd_tr_u32(t, pool->max_requests_per_connection);
        o->common_http_protocol_options = common;
    }
    e = HD_TR_NEW(t, PbCluster__Cluster__TypedExtensionProtocolOptionsEntry,
                  pb_cluster__cluster__typed_extension_protocol_options_entry);
    e->key = HTTP_OPTIONS;
    e->value = hd_tr_any(t, o);
    HD_TR_ADD(t, c, typed_extension_protocol_options, e);
}

static void set_keepalive(hd_tr_t *t, PbCluster__Cluster *c,
                          const hd_connection_pool_t *pool)
{
    const hd_keepalive_t *k = pool != NULL ? pool->tcp_keepalive : NULL;
    PbCore__TcpKeepalive *msg;

    if (k == NULL)
        return;
    msg = HD_TR_NEW(t, PbCore__TcpKeepalive, pb_core__tcp_keepalive);
    if (k->probes > 0)
        msg->keepalive_probes = hd_tr_u32(t, k->probes);
    if (k->time_ns > 0)
        msg->keepalive_time = hd_tr_u32(t, k->time_ns / 1000000000);
    if (k->interval_ns > 0)
        msg->keepalive_interval = hd_tr_u32(t, k->interval_ns / 1000000000);
    c->upstream_connection_options = HD_TR_NEW(t, PbCluster__UpstreamConnectionOptions,
                                               pb_cluster__upstream_connection_options);
    c->upstream_connection_options->tcp_keepalive = msg;
}

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

/* --- endpoints --- */

typedef struct {
    hd_tr_t *t;
    PbEndpoint__ClusterLoadAssignment *cla;
    const hd_labels_t *subset;          /* NULL: all */
    hd_str_t ids[HD_TR_IDENTITIES_MAX]; /* identities, each once */
    uint32_t ids_n;
    bool is_ready; /* Kubernetes says so of the ones being added */
} endpoints_t;

static void add_identity(endpoints_t *e, hd_str_t ns, hd_str_t account)
{
    hd_str_t id = hd_str_printf(e->t->pool, "spiffe://%.*s/ns/%.*s/sa/%.*s",
                                HD_STR_ARG(e->t->trust_domain), HD_STR_ARG(ns),
                                HD_STR_ARG(account));

    for (uint32_t i = 0; i < e->ids_n; i++) {
        if (hd_str_eq(e->ids[i], id))
            return;
    }
    if (e->ids_n < HD_TR_IDENTITIES_MAX)
        e->ids[e->ids_n++] = id;
}

static PbEndpoint__LocalityLbEndpoints *locality_of(endpoints_t *e, hd_str_t region,
                                                    hd_str_t zone, hd_str_t sub_zone)
{
    hd_tr_t *t = e->t;
    PbEndpoint__LocalityLbEndpoints *l;
    char *r = hd_tr_text(t, region), *z = hd_tr_text(t, zone),
         *s = hd_tr_text(t, sub_zone);

    for (size_t i = 0; i < e->cla->n_endpoints; i++) {
        l = e->cla->endpoints[i];
        if (strcmp(l->locality->region, r) == 0 && strcmp(l->locality->zone, z) == 0 &&
            strcmp(l->locality->sub_zone, s) == 0)
            return l;
    }
    l = HD_TR_NEW(t, PbEndpoint__LocalityLbEndpoints, pb_endpoint__locality_lb_endpoints);
    l->locality = HD_TR_NEW(t, PbCore__Locality, pb_core__locality);
    l->locality->region = r;
    l->locality->zone = z;
    l->locality->sub_zone = s;
    l->load_balancing_weight = hd_tr_u32(t, 0);
    HD_TR_ADD(t, e->cla, endpoints, l);
    return l;
}

/* "name;namespace;canonical;revision;cluster" */
static void add_workload(endpoints_t *e, PbEndpoint__LbEndpoint *lb,
                         const hd_object_t *pod)
{
    hd_tr_t *t = e->t;
    Pb__Struct *istio = hd_tr_struct(t);
    hd_str_t canonical =
        hd_labels_get(&pod->labels, HD_STR("service.istio.io/canonical-name"));
    hd_str_t revision =
        hd_labels_get(&pod->labels, HD_STR("service.istio.io/canonical-revision"));

    if (canonical.len == 0)
        canonical = hd_labels_get(&pod->labels, HD_STR("app"));
    if (revision.len == 0)
        revision = hd_labels_get(&pod->labels, HD_STR("version"));
    hd_tr_struct_text(t, istio, "workload",
                      hd_tr_printf(t, "%.*s;%.*s;%.*s;%.*s;%.*s", HD_STR_ARG(pod->name),
                                   HD_STR_ARG(pod->ns), HD_STR_ARG(canonical),
                                   HD_STR_ARG(revision),
                                   HD_STR_ARG(t->proxy->cluster_id)));
    hd_tr_metadata(t, &lb->metadata, "istio", istio);
}

static bool has_sidecar(const hd_object_t *pod)
{
    return hd_str_eq(hd_labels_get(&pod->labels, HD_STR("security.istio.io/tlsMode")),
                     HD_STR("istio"));
}

static void add_endpoint(endpoints_t *e, hd_str_t ip, int64_t port, int64_t weight,
                         const hd_object_t *pod, const hd_k8s_node_t *node)
{
    hd_tr_t *t = e->t;
    PbEndpoint__LbEndpoint *lb =
        HD_TR_NEW(t, PbEndpoint__LbEndpoint, pb_endpoint__lb_endpoint);
    PbEndpoint__LocalityLbEndpoints *l =
        locality_of(e, node != NULL ? node->region : HD_STR_NONE,
                    node != NULL ? node->zone : HD_STR_NONE,
                    node != NULL ? node->subzone : HD_STR_NONE);

    lb->host_identifier_case = PB_ENDPOINT__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT;
    lb->endpoint = HD_TR_NEW(t, PbEndpoint__Endpoint, pb_endpoint__endpoint);
    lb->endpoint->address = hd_tr_address(t, ip, port);
    if (e->is_ready)
        lb->health_status = PB_CORE__HEALTH_STATUS__HEALTHY;
    lb->load_balancing_weight = hd_tr_u32(t, weight);
    if (pod != NULL) {
        if (has_sidecar(pod) &&
            hd_tr_mtls_mode(t, pod->ns, &pod->labels, port) != HD_MTLS_DISABLE) {
            Pb__Struct *match = hd_tr_struct(t);

            hd_tr_struct_text(t, match, "tlsMode", "istio");
            hd_tr_metadata(t, &lb->metadata, "envoy.transport_socket_match", match);
        }
        add_workload(e, lb, pod);
        add_identity(e, pod->ns, pod->pod->service_account);
    }
    HD_TR_ADD(t, l, lb_endpoints, lb);
    l->load_balancing_weight->value += (uint32_t)weight;
}

static const hd_k8s_node_t *node_named(hd_tr_t *t, hd_str_t name)
{
    const hd_object_t *o =
        name.len > 0 ? hd_tr_get(t, HD_KIND_NODE, HD_STR(""), name) : NULL;

    return o != NULL ? o->node : NULL;
}

static int64_t slice_port(const hd_endpoint_slice_t *s, const hd_service_port_t *port)
{
    for (hd_each(p, s->ports)) {
        if (hd_str_eq(p->name, port->name))
            return p->number;
    }
    return HD_UNSET;
}

static void add_slice(endpoints_t *e, const hd_object_t *svc,
                      const hd_endpoint_slice_t *s, const hd_service_port_t *port)
{
    int64_t number = slice_port(s, port);

    if (number == HD_UNSET)
        return;
    for (hd_each(ep, s->endpoints)) {
        if ((!ep->ready && !svc->service->publish_not_ready) || ep->terminating)
            continue;
        for (hd_each(ip, ep->addresses)) {
            const hd_object_t *pod = hd_tr_pod_by_ip(e->t, *ip);

            if (e->subset != NULL && e->subset->n > 0 &&
                (pod == NULL || !hd_labels_match(e->subset, &pod->labels)))
                continue;
            add_endpoint(e, *ip, number, 1, pod,
                         node_named(e->t, ep->node_name.len > 0 ? ep->node_name
                                          : pod != NULL         ? pod->pod->node_name
                                                                : HD_STR_NONE));
        }
    }
}

/* "region/zone/subzone" */
static hd_k8s_node_t place_of(hd_str_t locality)
{
    hd_k8s_node_t place = {0};
    hd_str_t *const parts[] = {&place.region, &place.zone, &place.subzone};

    for (unsigned i = 0; i < hd_countof(parts) && locality.len > 0; i++) {
        ssize_t slash = hd_str_find_char(locality, '/');
        size_t end = slash < 0 || i == 2 ? locality.len : (size_t)slash;

        *parts[i] = hd_str_sub(locality, 0, end);
        locality = hd_str_sub(locality, end < locality.len ? end + 1 : end, locality.len);
    }
    return place;
}

/* An endpoint of a ServiceEntry; "unix://" ones are left out. <labels>: a WorkloadEntry
 * has some of its own and some of its metadata. */
static void add_entry(endpoints_t *e, const hd_workload_entry_t *w,
                      const hd_labels_t *labels, const hd_service_port_t *port)
{
    hd_str_t mapped = hd_labels_get(&w->ports, port->name);
    hd_k8s_node_t place = place_of(w->locality);
    uint64_t number = (uint64_t)(port->target != HD_UNSET ? port->target : port->number);

    if (mapped.len > 0 && !hd_str_to_u64(mapped, 65535, &number))
        return;
    if (w->address.len == 0 || hd_str_has_prefix(w->address, HD_STR("unix://")) ||
        (e->subset != NULL && !hd_labels_match(e->subset, labels)))
        return;
    add_endpoint(e, w->address, (int64_t)number, w->weight == HD_UNSET ? 1 : w->weight,
                 NULL, &place);
}

/* WorkloadEntries and Pods that its selector fits (SE-*, WE-*). */
static void add_selected(endpoints_t *e, const hd_object_t *svc,
                         const hd_service_port_t *port)
{
    const hd_labels_t *selector = &svc->service->selector;
    int64_t number = port->target != HD_UNSET ? port->target : port->number;
    size_t n;
    const hd_object_t *const *list =
        hd_tr_list_ns(e->t, HD_KIND_WORKLOAD_ENTRY, svc->ns, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_workload_entry_t *w = list[i]->workload_entry;

        if (!hd_labels_match(selector, &w->labels))
            continue;
        add_entry(e, w, &w->labels, port);
        if (w->service_account.len > 0)
            add_identity(e, svc->ns, w->service_account);
    }
    list = hd_tr_list_ns(e->t, HD_KIND_POD, svc->ns, &n);
    for (size_t i = 0; i < n; i++) {
        const hd_pod_t *pod = list[i]->pod;

        if (!pod->ready || pod->ip.len == 0 ||
            !hd_labels_match(selector, &list[i]->labels) ||
            (e->subset != NULL && !hd_labels_match(e->subset, &list[i]->labels)))
            continue;
        add_endpoint(e, pod->ip, number, 1, list[i], node_named(e->t, pod->node_name));
    }
}

static void add_entries(endpoints_t *e, const hd_object_t *svc,
                        const hd_service_port_t *port)
{
    for (hd_each(w, svc->service->endpoints))
        add_entry(e, w, &w->labels, port);
    if (svc->service->selector.n > 0)
        add_selected(e, svc, port);
}

static void gather(endpoints_t *e, const hd_object_t *svc, const hd_service_port_t *port)
{
    size_t n;
    const hd_object_t *const *slices;

    if (svc->kind == HD_KIND_SERVICE_ENTRY) {
        add_entries(e, svc, port);
        return;
    }
    slices = hd_tr_slices_of(e->t, svc, &n);
    e->is_ready = true;
    for (size_t i = 0; i < n; i++)
        add_slice(e, svc, slices[i]->slice, port);
}

/* --- outbound clusters --- */

typedef struct {
    const hd_object_t *svc;
    hd_str_t host;
    const hd_service_port_t *port;
    hd_str_t subset;
    const hd_labels_t *subset_labels;
    const hd_object_t *rule;
    policy_t policy;
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
    endpoints_t e = {.t = t, .subset = o->subset_labels};
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
    gather(&e, o->svc, o->port);
    for (hd_each(san, o->svc->service->subject_alt_names)) {
        if (e.ids_n < HD_TR_IDENTITIES_MAX)
            e.ids[e.ids_n++] = *san;
    }
    identities = (hd_strs_t){.items = e.ids, .n = e.ids_n};
    set_lb(c, o->policy.lb);
    c->circuit_breakers = breakers(t, &o->policy);
    c->common_lb_config = outbound_lb(t, o->policy.outlier);
    if (o->policy.outlier != NULL)
        c->outlier_detection = outlier(t, o->policy.outlier);
    set_http_options(t, c, o->port->protocol, o->policy.pool);
    set_keepalive(t, c, o->policy.pool);
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
            add_endpoint(&e, o->host, o->port->number, 1, NULL, NULL);
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
        apply_policy(&base.policy, dr->policy, port->number);
        for (hd_each(s, dr->subsets)) {
            outbound_t sub = base;

            sub.subset = s->name;
            sub.subset_labels = &s->labels;
            apply_policy(&sub.policy, s->policy, port->number);
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

/* In the proxy's own pod. */
static int64_t target_port(hd_tr_t *t, const hd_service_port_t *port)
{
    const hd_object_t *pod;

    if (port->target != HD_UNSET)
        return port->target;
    if (port->target_name.len == 0)
        return port->number;
    pod = hd_model_pod_by_ip(t->model, t->proxy->ips[0]);
    if (pod == NULL)
        return HD_UNSET;
    for (hd_each(p, pod->pod->ports)) {
        if (hd_str_eq(p->name, port->target_name))
            return p->number;
    }
    return HD_UNSET;
}

int64_t hd_tr_gateway_target(hd_tr_t *t, int64_t port, bool enters)
{
    size_t n;
    const hd_object_t *const *list =
        hd_model_list_ns(t->model, HD_KIND_SERVICE, t->proxy->ns, &n);

    if (enters) {
        hd_part_depend(t->part, HD_DEP_IN_NS, hd_str_c(hd_kind_plural(HD_KIND_SERVICE)),
                       t->proxy->ns);
        hd_ignore(hd_tr_pod_by_ip(t, t->proxy->ips[0]) == NULL);
    }
    for (size_t i = 0; i < n; i++) {
        const hd_mesh_service_t *svc = list[i]->service;

        if (svc->selector.n == 0 || !hd_labels_match(&svc->selector, &t->_labels))
            continue;
        for (hd_each(p, svc->ports)) {
            int64_t target = p->number == port ? target_port(t, p) : HD_UNSET;

            if (target != HD_UNSET)
                return target;
        }
    }
    return port;
}

size_t hd_tr_own_ports(hd_tr_t *t, hd_tr_own_port_t *ports, size_t max)
{
    size_t n, found = 0;
    const hd_object_t *const *list;

    hd_ignore(hd_tr_pod_by_ip(t, t->proxy->ips[0]) == NULL); /* names of its ports */
    list = hd_tr_list_ns(t, HD_KIND_SERVICE, t->proxy->ns, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_mesh_service_t *svc = list[i]->service;

        if (svc->selector.n == 0 || !hd_labels_match(&svc->selector, hd_tr_labels(t)))
            continue;
        for (hd_each(port, svc->ports)) {
            int64_t target = target_port(t, port);
            size_t at = 0;

            while (at < found && ports[at].target != target)
                at++;
            if (at < found || found == max || target == HD_UNSET ||
                port->protocol == HD_PROTO_UDP)
                continue;
            ports[found++] =
                (hd_tr_own_port_t){.service = list[i], .port = port, .target = target};
        }
    }
    return found;
}

/* The pool settings of a rule hold on the server's side, too. */
static policy_t inbound_policy(hd_tr_t *t, const hd_tr_own_port_t *own)
{
    const hd_object_t *rules[4];
    policy_t p = {0};
    size_t n =
        hd_tr_find_rules(t, own->service->ns, own->service->service->hosts.items[0],
                         rules, hd_countof(rules));

    for (size_t i = 0; i < n; i++)
        apply_policy(&p, rules[i]->destination_rule->policy, own->port->number);
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
    policy_t policy = inbound_policy(t, own);

    c->name = hd_tr_inbound_name(t, own->target);
    c->alt_stat_name = hd_tr_printf(t, "%s;", c->name);
    pool = policy.pool;
    c->connect_timeout = hd_tr_duration(t, pool != NULL && pool->connect_timeout_ns > 0
                                               ? pool->connect_timeout_ns
                                               : CONNECT_TIMEOUT_NS);
    c->circuit_breakers = breakers(t, &policy);
    set_keepalive(t, c, pool);
    c->common_lb_config = HD_TR_NEW(t, PbCluster__Cluster__CommonLbConfig,
                                    pb_cluster__cluster__common_lb_config);
    set_http_options(t, c, own->port->protocol, pool);
    set_metadata(t, c, own->service, own->service->service->hosts.items[0], HD_STR_NONE,
                 NULL);
    if (hd_str_eq(t->proxy->interception_mode, HD_STR("NONE"))) {
        endpoints_t e = {.t = t};
        hd_str_t app = t->proxy->app_address;

        set_type(c, PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC);
        e.cla = HD_TR_NEW(t, PbEndpoint__ClusterLoadAssignment,
                          pb_endpoint__cluster_load_assignment);
        e.cla->cluster_name = c->name;
        add_endpoint(&e, app.len > 0 ? app : HD_STR("127.0.0.1"), own->target, 1, NULL,
                     NULL);
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

/* Whatever the client speaks, to wherever it meant to go; idle ones for five minutes. */
static void set_passthrough_options(hd_tr_t *t, PbCluster__Cluster *c)
{
    PbUpstreamHttp__HttpProtocolOptions *o = HD_TR_NEW(
        t, PbUpstreamHttp__HttpProtocolOptions, pb_upstream_http__http_protocol_options);
    PbUpstreamHttp__HttpProtocolOptions__UseDownstreamHttpConfig *use =
        HD_TR_NEW(t, PbUpstreamHttp__HttpProtocolOptions__UseDownstreamHttpConfig,
                  pb_upstream_http__http_protocol_options__use_downstream_http_config);
    PbCluster__Cluster__TypedExtensionProtocolOptionsEntry *e =
        HD_TR_NEW(t, PbCluster__Cluster__TypedExtensionProtocolOptionsEntry,
                  pb_cluster__cluster__typed_extension_protocol_options_entry);

    use->http_protocol_options =
        HD_TR_NEW(t, PbCore__Http1ProtocolOptions, pb_core__http1_protocol_options);
    use->http2_protocol_options =
        HD_TR_NEW(t, PbCore__Http2ProtocolOptions, pb_core__http2_protocol_options);
    o->upstream_protocol_options_case =
        PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_USE_DOWNSTREAM_PROTOCOL_CONFIG;
    o->use_downstream_protocol_config = use;
    o->common_http_protocol_options =
        HD_TR_NEW(t, PbCore__HttpProtocolOptions, pb_core__http_protocol_options);
    o->common_http_protocol_options->idle_timeout = hd_tr_duration(t, 300000000000ll);
    e->key = HTTP_OPTIONS;
    e->value = hd_tr_any(t, o);
    HD_TR_ADD(t, c, typed_extension_protocol_options, e);
}

static void put_fixed(hd_tr_t *t, const char *name, bool is_original, bool is_inbound)
{
    PbCluster__Cluster *c = HD_TR_NEW(t, PbCluster__Cluster, pb_cluster__cluster);
    policy_t none = {0};

    c->name = (char *)(uintptr_t)name;
    c->alt_stat_name = hd_tr_printf(t, "%s;", name);
    c->connect_timeout = hd_tr_duration(t, CONNECT_TIMEOUT_NS);
    set_type(c, is_original ? PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST
                            : PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC);
    if (is_original) {
        c->lb_policy = PB_CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED;
        c->circuit_breakers = breakers(t, &none);
        c->alt_stat_name = "PassthroughCluster;"; /* both count as one */
        set_passthrough_options(t, c);
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
