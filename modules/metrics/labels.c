#include "metrics.h"

#define COMMON_LABELS                                                                    \
    "reporter", "source_workload", "source_canonical_service",                           \
        "source_canonical_revision", "source_workload_namespace", "source_principal",    \
        "source_app", "source_version", "source_cluster", "destination_workload",        \
        "destination_workload_namespace", "destination_principal", "destination_app",    \
        "destination_version", "destination_service", "destination_canonical_service",   \
        "destination_canonical_revision", "destination_service_name",                    \
        "destination_service_namespace", "destination_cluster", "request_protocol",      \
        "response_flags", "connection_security_policy"

static const char *const http_labels[] = {COMMON_LABELS, "response_code",
                                          "grpc_response_status", NULL};
static const char *const tcp_labels[] = {COMMON_LABELS, NULL};

_Static_assert(hd_countof(http_labels) == L_HTTP_N + 1, "a name for each label");
_Static_assert(hd_countof(tcp_labels) == L_TCP_N + 1, "a name for each label");

/* METRIC-14 */
static const double buckets[] = {0.5,   1,      5,      10,      25,     50,    100,
                                 250,   500,    1000,   2500,    5000,   10000, 30000,
                                 60000, 300000, 600000, 1800000, 3600000};

#define HTTP_HISTOGRAM(what, about)                                                      \
    {                                                                                    \
        .name = "istio_" what, .help = about, .kind = HD_HISTOGRAM, .buckets = buckets,  \
        .buckets_n = hd_countof(buckets), .labels = http_labels                          \
    }
#define TCP_COUNTER(what, about)                                                         \
    {                                                                                    \
        .name = "istio_tcp_" what, .help = about, .kind = HD_COUNTER,                    \
        .labels = tcp_labels                                                             \
    }

const hd_family_t metrics_families[M_N] = {
    [M_REQUESTS] = {.name = "istio_requests_total",
                    .help = "Requests that ended",
                    .kind = HD_COUNTER,
                    .labels = http_labels},
    [M_DURATION] = HTTP_HISTOGRAM("request_duration_milliseconds",
                                  "From a request's first byte to its response's last"),
    [M_REQUEST_BYTES] =
        HTTP_HISTOGRAM("request_bytes", "Size of requests, head and body"),
    [M_RESPONSE_BYTES] =
        HTTP_HISTOGRAM("response_bytes", "Size of responses, head and body"),
    [M_TCP_OPENED] =
        TCP_COUNTER("connections_opened_total", "Connections that were set up"),
    [M_TCP_CLOSED] = TCP_COUNTER("connections_closed_total", "Connections that ended"),
    [M_TCP_SENT] = TCP_COUNTER("sent_bytes_total", "Bytes sent to the client"),
    [M_TCP_RECEIVED] =
        TCP_COUNTER("received_bytes_total", "Bytes received from the client"),
};

static void put(hd_str_t *values, unsigned label, hd_str_t value)
{
    values[label] = value.len > 0 ? value : HD_STR("unknown"); /* MLABEL-17 */
}

static const struct {
    unsigned source, destination;
    size_t at; /* in workload_names_t */
} workload_labels[] = {
    {L_SOURCE_WORKLOAD, L_DESTINATION_WORKLOAD, offsetof(workload_names_t, name)},
    {L_SOURCE_WORKLOAD_NAMESPACE, L_DESTINATION_WORKLOAD_NAMESPACE,
     offsetof(workload_names_t, namespace)},
    {L_SOURCE_APP, L_DESTINATION_APP, offsetof(workload_names_t, app)},
    {L_SOURCE_VERSION, L_DESTINATION_VERSION, offsetof(workload_names_t, version)},
    {L_SOURCE_CANONICAL_SERVICE, L_DESTINATION_CANONICAL_SERVICE,
     offsetof(workload_names_t, service)},
    {L_SOURCE_CANONICAL_REVISION, L_DESTINATION_CANONICAL_REVISION,
     offsetof(workload_names_t, revision)},
    {L_SOURCE_CLUSTER, L_DESTINATION_CLUSTER, offsetof(workload_names_t, cluster)},
};

static void put_workload(hd_str_t *values, bool is_source, const workload_names_t *w)
{
    static const workload_names_t nobody;
    const char *names = (const char *)(w != NULL ? w : &nobody);

    for (size_t i = 0; i < hd_countof(workload_labels); i++)
        put(values,
            is_source ? workload_labels[i].source : workload_labels[i].destination,
            *(const hd_str_t *)(names + workload_labels[i].at));
}

static hd_str_t without_port(hd_str_t host)
{
    size_t at = host.len;

    while (at > 0 && host.data[at - 1] >= '0' && host.data[at - 1] <= '9')
        at--;
    return at > 1 && host.data[at - 1] == ':' ? hd_str_sub(host, 0, at - 1) : host;
}

/* "reviews.shop.svc.cluster.local" is the service reviews of the namespace shop. */
static void put_service_host(hd_str_t *values, hd_str_t host)
{
    hd_str_t rest = host, name, ns;

    put(values, L_DESTINATION_SERVICE, host);
    if (hd_str_find(host, HD_STR(".svc.")) > 0 && hd_str_split(&rest, '.', &name) &&
        hd_str_split(&rest, '.', &ns) && hd_str_has_prefix(rest, HD_STR("svc."))) {
        put(values, L_DESTINATION_SERVICE_NAME, name);
        put(values, L_DESTINATION_SERVICE_NAMESPACE, ns);
    } else {
        put(values, L_DESTINATION_SERVICE_NAME, host);
    }
}

/* MLABEL-9 to -11, -19, -20 */
static void put_service(const metrics_facts_t *f, hd_str_t *values)
{
    const hd_cluster_t *c = f->cluster;

    put(values, L_DESTINATION_SERVICE_NAMESPACE,
        f->is_source ? HD_STR_NONE : f->self->names.namespace);
    if (c != NULL && c->service_host.len > 0) {
        put(values, L_DESTINATION_SERVICE, c->service_host);
        put(values, L_DESTINATION_SERVICE_NAME,
            c->service_name.len > 0 ? c->service_name : c->service_host);
        if (c->service_namespace.len > 0)
            put(values, L_DESTINATION_SERVICE_NAMESPACE, c->service_namespace);
        return;
    }
    if (!f->is_source && f->self->host.len > 0) {
        put_service_host(values, f->self->host);
        return;
    }
    put(values, L_DESTINATION_SERVICE_NAME, HD_STR_NONE);
    put_service_host(values, without_port(f->host));
    if (hd_str_eq(f->cluster_name, HD_STR("PassthroughCluster")) ||
        hd_str_eq(f->cluster_name, HD_STR("BlackHoleCluster")) ||
        hd_str_has_prefix(f->cluster_name, HD_STR("InboundPassthroughCluster")))
        put(values, L_DESTINATION_SERVICE_NAME, f->cluster_name);
}

void metrics_fill(const metrics_facts_t *f, hd_str_t *values)
{
    const workload_names_t *self = &f->self->names;

    values[L_REPORTER] = f->is_source ? HD_STR("source") : HD_STR("destination");
    put_workload(values, true, f->is_source ? self : f->peer);
    put_workload(values, false, f->is_source ? f->peer : self);
    put(values, L_SOURCE_PRINCIPAL, f->source_principal);
    put(values, L_DESTINATION_PRINCIPAL, f->destination_principal);
    put_service(f, values);
    values[L_CONNECTION_SECURITY_POLICY] =
        f->is_source                  ? HD_STR("unknown") /* MLABEL-16 */
        : f->source_principal.len > 0 ? HD_STR("mutual_tls")
                                      : HD_STR("none");
}

hd_series_t metrics_enter(hd_member_t *m, const metrics_conf_t *conf, metric_t metric,
                          const hd_str_t *values)
{
    static hd_family_id_t ids[M_N];
    hd_str_t kept[L_HTTP_N];
    unsigned n = metric < M_HTTP_N ? L_HTTP_N : L_TCP_N;

    if (conf->dropped & 1u << metric)
        return 0;
    if (ids[metric] == 0)
        ids[metric] = hd_family_enter(m, &metrics_families[metric]);
    if (ids[metric] == 0)
        return 0;
    for (unsigned i = 0; i < n; i++)
        kept[i] = conf->removed[metric] & 1u << i ? HD_STR_NONE : values[i];
    return hd_series_enter(m, ids[metric], kept);
}
