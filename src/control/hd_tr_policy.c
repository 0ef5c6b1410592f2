#include "control/hd_tr_cluster_int.h"
#include "ext/upstream_http.pb-c.h"

static void override(hd_tr_policy_t *p, const hd_traffic_blocks_t *b)
{
    p->lb = b->lb != NULL ? b->lb : p->lb;
    p->pool = b->pool != NULL ? b->pool : p->pool;
    p->outlier = b->outlier != NULL ? b->outlier : p->outlier;
    p->tls = b->tls != NULL ? b->tls : p->tls;
    p->retry_budget = b->retry_budget != NULL ? b->retry_budget : p->retry_budget;
}

/* What stands for the port replaces the rest, also what it leaves out (DR-11). */
static void replace(hd_tr_policy_t *p, const hd_traffic_blocks_t *b)
{
    p->lb = b->lb;
    p->pool = b->pool;
    p->outlier = b->outlier;
    p->tls = b->tls;
    p->retry_budget = b->retry_budget != NULL ? b->retry_budget : p->retry_budget;
}

void hd_tr_apply_policy(hd_tr_policy_t *p, const hd_traffic_policy_t *tp, int64_t port)
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

PbCluster__CircuitBreakers *hd_tr_breakers(hd_tr_t *t, const hd_tr_policy_t *p)
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
PbCluster__OutlierDetection *hd_tr_outlier(hd_tr_t *t, const hd_outlier_t *o)
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

void hd_tr_set_lb(PbCluster__Cluster *c, const hd_dr_lb_t *lb)
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
void hd_tr_set_http_options(hd_tr_t *t, PbCluster__Cluster *c, hd_proto_t protocol,
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

void hd_tr_set_keepalive(hd_tr_t *t, PbCluster__Cluster *c,
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

/* Whatever the client speaks, to wherever it meant to go; idle ones for five minutes. */
void hd_tr_set_passthrough_options(hd_tr_t *t, PbCluster__Cluster *c)
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
