/* CDS. Defaults are Envoy's. */
#include "mesh/xds/hd_xds_int.h"
#include "core/base/hd_map.h"
#include "http/hd_headers.h"
#include "mesh/hd_breakers.h"
#include "mesh/hd_mesh_cluster.h"
#include "mesh/hd_endpoint_state.h"
#include "mesh/hd_outlier.h"
#include "ext/upstream_http.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define HTTP_OPTIONS "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
#define CONNECT_TIMEOUT_MS 5000
#define HEAD_KB 80
#define ORIGINAL_DST_HEADER "x-envoy-original-dst-host"
#define IDLE_TIMEOUT_MS 3600000
#define KEEPALIVE 1024 /* idle conns a worker keeps: Envoy has no bound */

typedef PbCluster__Cluster cluster_t;

/* c->more, made with the first setting that lies there. */
static hd_cluster_more_t *get_more(hd_xds_t *x, hd_cluster_t *c)
{
    if (c->more == NULL)
        c->more = hd_pool_new(x->cf.pool, hd_cluster_more_t);
    return (hd_cluster_more_t *)c->more;
}

/* --- limits and health --- */

static void set_budget(const PbCluster__CircuitBreakers__Thresholds__RetryBudget *msg,
                       uint32_t *permille, uint32_t *least)
{
    double percent;

    if (msg == NULL)
        return;
    percent = msg->budget_percent != NULL ? msg->budget_percent->value : 20;
    *permille = (uint32_t)(hd_min(hd_max(percent, 0.1), 100.0) * 10);
    *least = hd_pb_u32(msg->min_retry_concurrency, 3);
}

/* Clusters that routes of priority HIGH lead to; of the process: few, no more than there
 * are clusters. */
typedef struct high_s {
    struct high_s *next;      /* to be built once more */
    bool is_queued, is_known; /* known: its cluster has been built with limits */
    size_t len;
    char name[];
} high_t;

static hd_map_t *highs;
static high_t *high_queue;

static high_t *find_high(hd_str_t cluster)
{
    return highs != NULL ? hd_map_get(highs, cluster) : NULL;
}

void hd_xds_want_high(hd_str_t cluster)
{
    high_t *h = find_high(cluster);

    if (highs == NULL)
        highs = hd_map_create();
    if (h == NULL) {
        h = calloc(1, sizeof(*h) + cluster.len);
        hd_bug_on(h == NULL);
        h->len = cluster.len;
        memcpy(h->name, cluster.data, cluster.len);
        hd_ignore(hd_map_put(highs, hd_str_n(h->name, h->len), h) == NULL);
    }
    if (h->is_known || h->is_queued)
        return;
    h->is_queued = true;
    h->next = high_queue;
    high_queue = h;
}

bool hd_xds_take_high(hd_str_t *name)
{
    high_t *h = high_queue;

    if (h == NULL)
        return false;
    high_queue = h->next;
    h->is_queued = false;
    *name = hd_str_n(h->name, h->len);
    return true;
}

static hd_rc_t set_high(hd_xds_t *x, const PbCluster__CircuitBreakers__Thresholds *t,
                        hd_cluster_t *c, hd_err_t *err)
{
    hd_breakers_t *high = hd_pool_new(x->cf.pool, hd_breakers_t);

    high->max[HD_CG_CONNS] = hd_pb_u32(t->max_connections, HD_BREAKER_DEFAULT);
    high->max[HD_CG_PENDING] = hd_pb_u32(t->max_pending_requests, HD_BREAKER_DEFAULT);
    high->max[HD_CG_REQUESTS] = hd_pb_u32(t->max_requests, HD_BREAKER_DEFAULT);
    high->max[HD_CG_RETRIES] = hd_pb_u32(t->max_retries, HD_BREAKER_RETRIES);
    high->max[HD_CG_POOLS] = hd_pb_u32(t->max_connection_pools, HD_GAUGE_NO_LIMIT);
    set_budget(t->retry_budget, &high->retry_budget_permille, &high->retry_budget_min);
    if (!hd_breakers_add_high(x->env->member, x->out->slot, high))
        return hd_err_set(err, HD_E_LIMIT, "no room for the gauges of priority HIGH");
    c->high = high;
    return HD_OK;
}

static hd_rc_t set_default_high(hd_xds_t *x, hd_str_t name, hd_cluster_t *c,
                                hd_err_t *err)
{
    static const PbCluster__CircuitBreakers__Thresholds none =
        PB_CLUSTER__CIRCUIT_BREAKERS__THRESHOLDS__INIT;

    find_high(name)->is_known = true;
    if (c->high != NULL)
        return HD_OK;
    x->out->has_default_high = true;
    return set_high(x, &none, c, err);
}

/* Of several thresholds of one priority the first counts, as in Envoy. */
static hd_rc_t set_breakers(hd_xds_t *x, hd_str_t name,
                            const PbCluster__CircuitBreakers *msg, hd_cluster_t *c,
                            hd_err_t *err)
{
    bool is_set = false;

    c->max_conns = c->max_pending = c->max_requests = HD_BREAKER_DEFAULT;
    c->max_retries = HD_BREAKER_RETRIES;
    c->max_pools = HD_GAUGE_NO_LIMIT;
    for (size_t i = 0; msg != NULL && i < msg->n_thresholds; i++) {
        const PbCluster__CircuitBreakers__Thresholds *t = msg->thresholds[i];

        if (t->priority == PB_CORE__ROUTING_PRIORITY__HIGH) {
            if (c->high == NULL && set_high(x, t, c, err) != HD_OK)
                return HD_ERROR;
            continue;
        }
        if (is_set)
            continue;
        is_set = true;
        c->max_conns = hd_pb_u32(t->max_connections, HD_BREAKER_DEFAULT);
        c->max_pending = hd_pb_u32(t->max_pending_requests, HD_BREAKER_DEFAULT);
        c->max_requests = hd_pb_u32(t->max_requests, HD_BREAKER_DEFAULT);
        c->max_retries = hd_pb_u32(t->max_retries, HD_BREAKER_RETRIES);
        c->max_pools = hd_pb_u32(t->max_connection_pools, HD_GAUGE_NO_LIMIT);
        set_budget(t->retry_budget, &c->retry_budget_permille, &c->retry_budget_min);
    }
    return find_high(name) != NULL ? set_default_high(x, name, c, err) : HD_OK;
}

static uint8_t percent_of(const Pb__UInt32Value *msg, uint8_t unset)
{
    return (uint8_t)hd_min(hd_pb_u32(msg, unset), 100u);
}

static hd_rc_t check_percents(const PbCluster__OutlierDetection *msg, hd_err_t *err)
{
    const struct {
        const Pb__UInt32Value *value;
        const char *name;
    } all[] = {
        {msg->max_ejection_percent, "max_ejection_percent"},
        {msg->enforcing_consecutive_5xx, "enforcing_consecutive_5xx"},
        {msg->enforcing_consecutive_gateway_failure,
         "enforcing_consecutive_gateway_failure"},
        {msg->enforcing_consecutive_local_origin_failure,
         "enforcing_consecutive_local_origin_failure"},
        {msg->enforcing_success_rate, "enforcing_success_rate"},
        {msg->enforcing_local_origin_success_rate, "enforcing_local_origin_success_rate"},
        {msg->failure_percentage_threshold, "failure_percentage_threshold"},
        {msg->enforcing_failure_percentage, "enforcing_failure_percentage"},
        {msg->enforcing_failure_percentage_local_origin,
         "enforcing_failure_percentage_local_origin"},
    };

    for (size_t i = 0; i < hd_countof(all); i++) {
        if (hd_pb_u32(all[i].value, 0) > 100)
            return hd_err_set(err, HD_E_RESOURCE, "outlier_detection.%s %u: at most 100",
                              all[i].name, all[i].value->value);
    }
    return HD_OK;
}

static hd_rc_t set_outlier_times(const PbCluster__OutlierDetection *msg,
                                 hd_outlier_conf_t *o, hd_err_t *err)
{
    if (hd_xds_ms(msg->interval, o->interval_ms, "outlier_detection.interval",
                  &o->interval_ms, err) != HD_OK ||
        hd_xds_ms(msg->base_ejection_time, o->base_ejection_ms,
                  "outlier_detection.base_ejection_time", &o->base_ejection_ms,
                  err) != HD_OK ||
        hd_xds_ms(msg->max_ejection_time, o->max_ejection_ms,
                  "outlier_detection.max_ejection_time", &o->max_ejection_ms,
                  err) != HD_OK)
        return HD_ERROR;
    if (msg->max_ejection_time != NULL && o->max_ejection_ms < o->base_ejection_ms)
        return hd_err_set(
            err, HD_E_RESOURCE,
            "outlier_detection: max_ejection_time below base_ejection_time");
    if (o->interval_ms == 0 || o->base_ejection_ms == 0 || o->max_ejection_ms == 0)
        return hd_err_set(err, HD_E_RESOURCE, "outlier_detection: a time of 0");
    return hd_xds_ms(msg->max_ejection_time_jitter, 0,
                     "outlier_detection.max_ejection_time_jitter", &o->jitter_ms, err);
}

static hd_rc_t set_outlier(hd_xds_t *x, const PbCluster__OutlierDetection *msg,
                           hd_cluster_t *c, hd_err_t *err)
{
    hd_outlier_conf_t *o;

    if (msg == NULL)
        return HD_OK;
    if (check_percents(msg, err) != HD_OK)
        return HD_ERROR;
    c->outlier = o = hd_pool_new(x->cf.pool, hd_outlier_conf_t);
    *o = hd_outlier_defaults();
    o->consecutive_5xx = hd_pb_u32(msg->consecutive_5xx, 5);
    o->consecutive_gateway = hd_pb_u32(msg->consecutive_gateway_failure, 5);
    o->consecutive_local = hd_pb_u32(msg->consecutive_local_origin_failure, 5);
    o->split = msg->split_external_local_origin_errors;
    o->max_percent = percent_of(msg->max_ejection_percent, o->max_percent);
    o->enforce_5xx = percent_of(msg->enforcing_consecutive_5xx, o->enforce_5xx);
    o->enforce_gateway =
        percent_of(msg->enforcing_consecutive_gateway_failure, o->enforce_gateway);
    o->enforce_local =
        percent_of(msg->enforcing_consecutive_local_origin_failure, o->enforce_local);
    o->enforce_success_rate =
        percent_of(msg->enforcing_success_rate, o->enforce_success_rate);
    o->enforce_local_success_rate = percent_of(msg->enforcing_local_origin_success_rate,
                                               o->enforce_local_success_rate);
    o->enforce_failure = percent_of(msg->enforcing_failure_percentage, 0);
    o->enforce_local_failure =
        percent_of(msg->enforcing_failure_percentage_local_origin, 0);
    o->success_rate_hosts = hd_pb_u32(msg->success_rate_minimum_hosts, 5);
    o->success_rate_requests = hd_pb_u32(msg->success_rate_request_volume, 100);
    o->success_rate_stdev = hd_pb_u32(msg->success_rate_stdev_factor, 1900);
    o->failure_percent = percent_of(msg->failure_percentage_threshold, 85);
    o->failure_hosts = hd_pb_u32(msg->failure_percentage_minimum_hosts, 5);
    o->failure_requests = hd_pb_u32(msg->failure_percentage_request_volume, 50);
    o->uneject_by_check =
        hd_pb_bool(msg->successful_active_health_check_uneject_host, true);
    o->always_one = hd_pb_bool(msg->always_eject_one_host, false);
    return set_outlier_times(msg, o, err);
}

/* --- protocol --- */

static hd_rc_t set_common_http(hd_xds_t *x, const PbCore__HttpProtocolOptions *msg,
                               hd_cluster_t *c, hd_err_t *err)
{
    uint32_t stream_ms, head_kb;

    if (msg == NULL)
        return HD_OK;
    head_kb = hd_pb_u32(msg->max_response_headers_kb, HEAD_KB);
    c->requests_per_conn =
        hd_pb_u32(msg->max_requests_per_connection, c->requests_per_conn);
    if (hd_xds_ms(msg->idle_timeout, IDLE_TIMEOUT_MS, "idle_timeout", &c->idle_timeout_ms,
                  err) != HD_OK ||
        hd_xds_ms(msg->max_stream_duration, 0, "max_stream_duration", &stream_ms, err) !=
            HD_OK)
        return HD_ERROR;
    if (stream_ms > 0)
        get_more(x, c)->stream_ms = stream_ms;
    if (head_kb == 0 || head_kb > 8192)
        return hd_err_set(err, HD_E_RESOURCE, "max_response_headers_kb %u: 1 to 8192",
                          head_kb);
    if (msg->max_response_headers_kb != NULL)
        get_more(x, c)->head_bytes_max = head_kb * 1024;
    if (msg->max_headers_count != NULL && msg->max_headers_count->value == 0)
        return hd_err_set(err, HD_E_RESOURCE, "max_headers_count 0: 1 or more");
    if (msg->max_headers_count != NULL)
        get_more(x, c)->fields_max = hd_min(msg->max_headers_count->value, HD_FIELDS_MAX);
    return hd_xds_ms(msg->max_connection_duration, 0, "max_connection_duration",
                     &c->conn_lifetime_ms, err);
}

static hd_rc_t check_range(const Pb__UInt32Value *value, const char *name, uint32_t least,
                           hd_err_t *err)
{
    return value == NULL || (value->value >= least && value->value <= INT32_MAX)
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE, "http2_protocol_options.%s %u: %u to %d",
                            name, value->value, least, INT32_MAX);
}

static hd_rc_t set_h2(const PbCore__Http2ProtocolOptions *msg, hd_cluster_t *c,
                      hd_err_t *err)
{
    if (msg == NULL)
        return HD_OK;
    if (check_range(msg->max_concurrent_streams, "max_concurrent_streams", 1, err) !=
            HD_OK ||
        check_range(msg->initial_stream_window_size, "initial_stream_window_size", 65535,
                    err) != HD_OK ||
        check_range(msg->initial_connection_window_size, "initial_connection_window_size",
                    65535, err) != HD_OK)
        return HD_ERROR;
    c->max_streams = hd_pb_u32(msg->max_concurrent_streams, 0);
    c->h2_stream_window = hd_pb_u32(msg->initial_stream_window_size, 0);
    c->h2_conn_window = hd_pb_u32(msg->initial_connection_window_size, 0);
    hd_xds_ping(msg->connection_keepalive, &c->h2_ping_ms, &c->h2_ping_timeout_ms);
    return HD_OK;
}

typedef PbUpstreamHttp__HttpProtocolOptions http_options_t;

static hd_rc_t
set_explicit(const PbUpstreamHttp__HttpProtocolOptions__ExplicitHttpConfig *m,
             hd_cluster_t *c, hd_err_t *err)
{
    switch (m->protocol_config_case) {
    case PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP_PROTOCOL_OPTIONS:
        c->protocol = HD_UP_HTTP1;
        return HD_OK;
    case PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP2_PROTOCOL_OPTIONS:
        c->protocol = HD_UP_HTTP2;
        return set_h2(m->http2_protocol_options, c, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE, "HTTP/3 to an upstream: not supported");
    }
}

static hd_rc_t set_http_options(hd_xds_t *x, const http_options_t *m, hd_cluster_t *c,
                                hd_err_t *err)
{
    if (m->upstream_http_protocol_options != NULL) {
        c->auto_sni = m->upstream_http_protocol_options->auto_sni;
        c->auto_san = m->upstream_http_protocol_options->auto_san_validation;
    }
    if (set_common_http(x, m->common_http_protocol_options, c, err) != HD_OK)
        return HD_ERROR;
    switch (m->upstream_protocol_options_case) {
    case PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_EXPLICIT_HTTP_CONFIG:
        return set_explicit(m->explicit_http_config, c, err);
    case PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_USE_DOWNSTREAM_PROTOCOL_CONFIG:
        c->protocol = HD_UP_SAME;
        return set_h2(m->use_downstream_protocol_config->http2_protocol_options, c, err);
    case PB_UPSTREAM_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_AUTO_CONFIG:
        c->protocol = HD_UP_AUTO;
        return set_h2(m->auto_config->http2_protocol_options, c, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "HttpProtocolOptions without a choice of protocol");
    }
}

static hd_rc_t set_protocol(hd_xds_t *x, const cluster_t *msg, hd_cluster_t *c,
                            hd_err_t *err)
{
    const http_options_t *m;

    c->idle_timeout_ms = IDLE_TIMEOUT_MS;
    c->keepalive = KEEPALIVE;
    c->requests_per_conn = hd_pb_u32(msg->max_requests_per_connection, 0);
    c->protocol = msg->http2_protocol_options != NULL ? HD_UP_HTTP2 : HD_UP_HTTP1;
    if (msg->protocol_selection ==
        PB_CLUSTER__CLUSTER__CLUSTER_PROTOCOL_SELECTION__USE_DOWNSTREAM_PROTOCOL)
        c->protocol = HD_UP_SAME;
    if (set_h2(msg->http2_protocol_options, c, err) != HD_OK)
        return HD_ERROR;
    if (msg->upstream_http_protocol_options != NULL) {
        c->auto_sni = msg->upstream_http_protocol_options->auto_sni;
        c->auto_san = msg->upstream_http_protocol_options->auto_san_validation;
    }
    if (set_common_http(x, msg->common_http_protocol_options, c, err) != HD_OK)
        return HD_ERROR;
    for (size_t i = 0; i < msg->n_typed_extension_protocol_options; i++) {
        const Pb__Any *any = msg->typed_extension_protocol_options[i]->value;

        if (strcmp(msg->typed_extension_protocol_options[i]->key, HTTP_OPTIONS) != 0)
            return hd_err_set(err, HD_E_RESOURCE, "protocol options %s aren't known here",
                              msg->typed_extension_protocol_options[i]->key);
        m = hd_xds_unpack(x, any, HD_PB(pb_upstream_http__http_protocol_options), err);
        if (m == NULL || set_http_options(x, m, c, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

/* --- transport --- */

/* As Envoy's default selector: one further address, of the other family. */
static hd_rc_t set_other_bind(hd_xds_t *x, const PbCore__SocketAddress *msg,
                              hd_cluster_t *c, hd_err_t *err)
{
    hd_addr_t *other = &get_more(x, c)->other_bind;

    if (msg == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "an address is missing");
    if (hd_xds_socket_addr(msg, other, err) != HD_OK)
        return HD_ERROR;
    if (other->family == c->bind.family)
        return hd_err_set(err, HD_E_RESOURCE,
                          "it is of the same family as source_address");
    return HD_OK;
}

static hd_rc_t set_bind(hd_xds_t *x, const PbCore__BindConfig *msg, hd_cluster_t *c,
                        hd_err_t *err)
{
    size_t more;
    hd_rc_t rc = HD_OK;

    if (msg == NULL)
        return HD_OK;
    more = msg->n_extra_source_addresses + msg->n_additional_source_addresses;
    if (msg->source_address == NULL)
        return more == 0 ? HD_OK
                         : hd_err_set(err, HD_E_RESOURCE,
                                      "upstream_bind_config: further source addresses "
                                      "without source_address");
    if (more > 1)
        return hd_err_set(err, HD_E_RESOURCE,
                          "upstream_bind_config: one further source address is allowed");
    if (hd_xds_socket_addr(msg->source_address, &c->bind, err) != HD_OK)
        return hd_err_prefix(err, "upstream_bind_config: ");
    if (msg->n_extra_source_addresses > 0)
        rc = set_other_bind(x, msg->extra_source_addresses[0]->address, c, err);
    else if (more > 0)
        rc = set_other_bind(x, msg->additional_source_addresses[0], c, err);
    return rc == HD_OK
               ? HD_OK
               : hd_err_prefix(err, "upstream_bind_config: extra_source_addresses: ");
}

static void set_keepalive(hd_xds_t *x, const PbCluster__UpstreamConnectionOptions *msg,
                          hd_cluster_t *c)
{
    const PbCore__TcpKeepalive *k = msg != NULL ? msg->tcp_keepalive : NULL;
    hd_cluster_more_t *more;

    if (k == NULL)
        return;
    more = get_more(x, c);
    more->tcp_keepalive_idle_s = hd_pb_u32(k->keepalive_time, 7200);
    more->tcp_keepalive_interval_s = hd_pb_u32(k->keepalive_interval, 75);
    more->tcp_keepalive_probes = hd_pb_u32(k->keepalive_probes, 9);
}

static hd_rc_t set_transports(hd_xds_t *x, const cluster_t *msg, hd_cluster_t *c,
                              hd_err_t *err)
{
    size_t n = msg->n_transport_socket_matches;
    hd_transport_match_t *list =
        n > 0 ? hd_pool_new_n(x->cf.pool, hd_transport_match_t, n) : NULL;
    hd_rc_t rc =
        hd_xds_upstream_tls(x, msg->transport_socket, &c->proxy_version, &c->tls, err);

    if (rc == HD_DECLINED)
        return hd_err_set(err, HD_E_RESOURCE,
                          "transport_socket: internal_upstream (HBONE) "
                          "isn't supported yet");
    if (rc != HD_OK)
        return hd_err_prefix(err, "transport_socket: ");
    for (size_t i = 0; i < n; i++) {
        const PbCluster__Cluster__TransportSocketMatch *m =
            msg->transport_socket_matches[i];

        list[i].name = hd_xds_str(x, m->name);
        hd_xds_labels(x, m->match, &list[i].match, &list[i].match_n);
        rc = hd_xds_upstream_tls(x, m->transport_socket, &list[i].proxy_version,
                                 &list[i].tls, err);
        if (rc == HD_ERROR)
            return hd_err_prefix(err, "transport_socket_matches \"%s\": ", m->name);
        list[i].is_unsupported = rc == HD_DECLINED;
        if (rc == HD_DECLINED)
            hd_xds_note(x,
                        "transport_socket_matches \"%s\": tunnels aren't supported "
                        "yet: endpoints that it fits aren't used",
                        m->name);
    }
    c->transports = list;
    c->transports_n = (uint32_t)n;
    return HD_OK;
}

static hd_rc_t set_preconnect(hd_xds_t *x,
                              const PbCluster__Cluster__PreconnectPolicy *msg,
                              hd_cluster_t *c, hd_err_t *err)
{
    double ratio = msg != NULL && msg->per_upstream_preconnect_ratio != NULL
                       ? msg->per_upstream_preconnect_ratio->value
                       : 1;

    if (!(ratio >= 1 && ratio <= 3))
        return hd_err_set(err, HD_E_RESOURCE,
                          "per_upstream_preconnect_ratio %g: from 1 to 3", ratio);
    if (ratio > 1)
        get_more(x, c)->preconnect_percent = (uint32_t)(ratio * 100 + 0.5);
    return HD_OK;
}

/* --- where its endpoints come from --- */

static hd_rc_t set_original_dst(hd_xds_t *x, const cluster_t *msg, hd_cluster_t *c,
                                hd_mesh_cluster_t *mesh, hd_err_t *err)
{
    const PbCluster__Cluster__OriginalDstLbConfig *od =
        msg->lb_config_case == PB_CLUSTER__CLUSTER__LB_CONFIG_ORIGINAL_DST_LB_CONFIG
            ? msg->original_dst_lb_config
            : NULL;

    if (msg->lb_policy != PB_CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED)
        return hd_err_set(err, HD_E_RESOURCE,
                          "an ORIGINAL_DST cluster needs lb_policy CLUSTER_PROVIDED");
    c->lb = HD_LB_ORIGINAL_DST;
    if (od != NULL && od->use_http_header) {
        hd_str_t name = hd_str_c(*od->http_header_name != '\0' ? od->http_header_name
                                                               : ORIGINAL_DST_HEADER);

        if (!hd_http_is_field_name(name))
            return hd_err_set(err, HD_E_RESOURCE, "http_header_name: not a field name");
        get_more(x, c)->original_dst_header = hd_str_dup_lower(x->cf.pool, name);
    }
    if (od == NULL || od->upstream_port_override == NULL)
        return HD_OK;
    if (od->upstream_port_override->value > 65535)
        return hd_err_set(err, HD_E_RESOURCE, "upstream_port_override %u",
                          od->upstream_port_override->value);
    mesh->port_override = (uint16_t)od->upstream_port_override->value;
    return HD_OK;
}

static hd_rc_t set_eds(hd_xds_t *x, const cluster_t *msg, hd_cluster_t *c,
                       const hd_mesh_cluster_t *mesh, hd_err_t *err)
{
    const PbCluster__Cluster__EdsClusterConfig *eds = msg->eds_cluster_config;
    const char *name =
        eds != NULL && *eds->service_name != '\0' ? eds->service_name : msg->name;

    if (eds == NULL || eds->eds_config == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "an EDS cluster without eds_config");
    if (msg->load_assignment != NULL)
        return hd_err_set(err, HD_E_RESOURCE, "an EDS cluster with a load_assignment");
    hd_xds_want_table(hd_str_c(name), &mesh->table);
    if (hd_xds_reads_load(c->lb))
        hd_xds_want_load(hd_str_c(name));
    c->endpoints = hd_xds_need(x, HD_XDS_ENDPOINTS, hd_str_c(name), eds->eds_config, err);
    return c->endpoints != NULL ? HD_OK : HD_ERROR;
}

static size_t count_endpoints(const PbEndpoint__ClusterLoadAssignment *msg)
{
    size_t n = 0;

    for (size_t i = 0; msg != NULL && i < msg->n_endpoints; i++)
        n += msg->endpoints[i]->n_lb_endpoints;
    return n;
}

static hd_rc_t set_type(hd_xds_t *x, const cluster_t *msg, hd_cluster_t *c,
                        hd_mesh_cluster_t *mesh, hd_err_t *err)
{
    bool is_dns = msg->type == PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__STRICT_DNS ||
                  msg->type == PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS;

    if (msg->cluster_discovery_type_case ==
        PB_CLUSTER__CLUSTER__CLUSTER_DISCOVERY_TYPE_CLUSTER_TYPE)
        return hd_err_set(err, HD_E_RESOURCE, "a cluster of type %s: not supported",
                          msg->cluster_type->name);
    if (msg->type == PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST)
        return set_original_dst(x, msg, c, mesh, err);
    if (msg->lb_policy == PB_CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED)
        return hd_err_set(err, HD_E_RESOURCE,
                          "lb_policy CLUSTER_PROVIDED belongs to ORIGINAL_DST only");
    if (msg->type == PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__EDS)
        return set_eds(x, msg, c, mesh, err);
    if (msg->type == PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS &&
        count_endpoints(msg->load_assignment) != 1)
        return hd_err_set(err, HD_E_RESOURCE,
                          "a LOGICAL_DNS cluster has exactly one endpoint");
    if (is_dns && hd_xds_dns(x, msg, &x->dns, err) != HD_OK)
        return HD_ERROR;
    x->out->needs_no_names = !hd_pb_bool(msg->wait_for_warm_on_init, true);
    c->is_logical = is_dns && x->dns->is_logical;
    x->reads_load = hd_xds_reads_load(c->lb);
    return hd_xds_inline_endpoints(x, msg->load_assignment, hd_str_c(msg->name), is_dns,
                                   &c->endpoints, err);
}

/* --- what telemetry says of it --- */

static void set_service(hd_xds_t *x, const PbCore__Metadata *msg, hd_cluster_t *c)
{
    const Pb__Struct *istio = hd_xds_metadata(msg, "istio"), *service = NULL;
    const Pb__Value *list = hd_pb_struct_get(istio, "services");
    const Pb__Value *external = hd_pb_struct_get(istio, "external");

    c->is_external = external != NULL &&
                     external->kind_case == PB__VALUE__KIND_BOOL_VALUE &&
                     external->bool_value;
    if (list != NULL && list->kind_case == PB__VALUE__KIND_LIST_VALUE &&
        list->list_value->n_values > 0 &&
        list->list_value->values[0]->kind_case == PB__VALUE__KIND_STRUCT_VALUE)
        service = list->list_value->values[0]->struct_value;
    c->service_host = hd_xds_str(x, hd_pb_struct_text(service, "host", ""));
    c->service_name = hd_xds_str(x, hd_pb_struct_text(service, "name", ""));
    c->service_namespace = hd_xds_str(x, hd_pb_struct_text(service, "namespace", ""));
}

/* The region has it already. */
static hd_str_t cluster_name(hd_xds_t *x, const char *name)
{
    const hd_region_t *r = x->cf.region;

    return r != NULL && hd_str_eq(r->name, hd_str_c(name)) ? r->name
                                                           : hd_xds_str(x, name);
}

/* "outbound|80||host;": the ';' ends the name for statistics only. */
static hd_str_t stat_name(hd_xds_t *x, const char *name)
{
    size_t len = strlen(name);

    if (len > 0 && name[len - 1] == ';')
        len--;
    return len == 0 ? HD_STR_NONE : hd_str_dup(x->cf.pool, hd_str_n(name, len));
}

/* Upstream network filters (Istio's exchange of metadata). */
static hd_rc_t check_filters(hd_xds_t *x, const cluster_t *msg, hd_err_t *err)
{
    for (size_t i = 0; i < msg->n_filters; i++) {
        const void *conf;
        uint16_t module;

        if (hd_xds_extension(x, HD_XDS_EXT_NETWORK, msg->filters[i]->typed_config, false,
                             &module, &conf, err) != HD_DECLINED)
            return hd_err_prefix(err, "filters: an upstream filter can't be run here: ");
    }
    return HD_OK;
}

hd_rc_t hd_xds_cluster(hd_xds_t *x, const cluster_t *msg, const void **root,
                       hd_err_t *err)
{
    hd_cluster_t *c = hd_pool_new(x->cf.pool, hd_cluster_t);
    hd_mesh_cluster_t *mesh = hd_pool_new(x->cf.pool, hd_mesh_cluster_t);

    c->mesh = mesh;
    c->name = cluster_name(x, msg->name);
    c->alt_stat_name = stat_name(x, msg->alt_stat_name);
    if (hd_xds_ms(msg->connect_timeout, CONNECT_TIMEOUT_MS, "connect_timeout",
                  &c->connect_timeout_ms, err) != HD_OK)
        return HD_ERROR;
    if (c->connect_timeout_ms == 0)
        return hd_err_set(err, HD_E_RESOURCE, "connect_timeout is 0");
    if (hd_xds_lb(x, msg, c, mesh, err) != HD_OK)
        return HD_ERROR;
    x->table = mesh->table;
    c->closes_failed = msg->close_connections_on_host_health_failure;
    if (set_breakers(x, c->name, msg->circuit_breakers, c, err) != HD_OK)
        return HD_ERROR;
    set_keepalive(x, msg->upstream_connection_options, c);
    set_service(x, msg->metadata, c);
    if (hd_xds_health_check(x, msg, c, err) != HD_OK ||
        set_outlier(x, msg->outlier_detection, c, err) != HD_OK ||
        set_protocol(x, msg, c, err) != HD_OK ||
        set_preconnect(x, msg->preconnect_policy, c, err) != HD_OK ||
        set_bind(x, msg->upstream_bind_config, c, err) != HD_OK ||
        check_filters(x, msg, err) != HD_OK || set_transports(x, msg, c, err) != HD_OK ||
        set_type(x, msg, c, mesh, err) != HD_OK)
        return HD_ERROR;
    if (c->endpoints != NULL && (c->outlier != NULL || c->lb == HD_LB_PEAK_EWMA))
        hd_endpoints_count(x->env->member, c->endpoints->name);
    *root = c;
    return HD_OK;
}
