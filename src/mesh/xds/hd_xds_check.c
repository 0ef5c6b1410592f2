/* HealthCheck of a cluster. Defaults are Envoy's. */
#include "mesh/hd_check.h"
#include "http/hd_chars.h"
#include "mesh/xds/hd_xds_int.h"
#include "core/os/hd_clock.h"

#include <string.h>

#define NO_TRAFFIC_MS 60000

typedef PbCore__HealthCheck check_t;

static const char *const methods[] = {"GET",    "GET",     "HEAD",    "POST",  "PUT",
                                      "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

static int hex_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* <text> is hex. */
static hd_rc_t set_payload(hd_xds_t *x, const PbCore__HealthCheck__Payload *msg,
                           hd_str_t *to, hd_err_t *err)
{
    hd_str_t hex = HD_STR_NONE;
    char *bytes;

    if (msg->payload_case == PB_CORE__HEALTH_CHECK__PAYLOAD__PAYLOAD_BINARY) {
        *to = hd_str_dup(x->cf.pool,
                         hd_str_n((const char *)msg->binary.data, msg->binary.len));
        return HD_OK;
    }
    if (msg->payload_case == PB_CORE__HEALTH_CHECK__PAYLOAD__PAYLOAD_TEXT)
        hex = hd_str_c(msg->text);
    if (hex.len == 0 || hex.len % 2 != 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "a payload's text is an even number of hex digits");
    bytes = hd_pool_alloc(x->cf.pool, hex.len / 2);
    for (size_t i = 0; i < hex.len / 2; i++) {
        int high = hex_of(hex.data[2 * i]), low = hex_of(hex.data[2 * i + 1]);

        if (high < 0 || low < 0)
            return hd_err_set(err, HD_E_RESOURCE, "a payload's text \"%.*s\": hex digits",
                              HD_STR_ARG(hex));
        bytes[i] = (char)(high << 4 | low);
    }
    *to = hd_str_n(bytes, hex.len / 2);
    return HD_OK;
}

static hd_rc_t set_receive(hd_xds_t *x, PbCore__HealthCheck__Payload *const *msgs,
                           size_t n, hd_check_conf_t *k, hd_err_t *err)
{
    hd_str_t *list = n > 0 ? hd_pool_new_n(x->cf.pool, hd_str_t, n) : NULL;

    for (size_t i = 0; i < n; i++) {
        if (set_payload(x, msgs[i], &list[i], err) != HD_OK)
            return hd_err_prefix(err, "receive: ");
    }
    k->receive = list;
    k->receive_n = (uint32_t)n;
    return HD_OK;
}

/* Envoy's ranges leave their end out. */
static hd_rc_t set_ranges(hd_xds_t *x, PbType__Int64Range *const *msgs, size_t n,
                          const hd_status_range_t **to, uint32_t *to_n, hd_err_t *err)
{
    hd_status_range_t *list =
        n > 0 ? hd_pool_new_n(x->cf.pool, hd_status_range_t, n) : NULL;

    for (size_t i = 0; i < n; i++) {
        if (msgs[i]->start < 100 || msgs[i]->end > 600 || msgs[i]->start >= msgs[i]->end)
            return hd_err_set(err, HD_E_RESOURCE,
                              "statuses [%lld, %lld): within [100, 600) is right",
                              (long long)msgs[i]->start, (long long)msgs[i]->end);
        list[i] =
            (hd_status_range_t){(uint32_t)msgs[i]->start, (uint32_t)msgs[i]->end - 1};
    }
    *to = list;
    *to_n = (uint32_t)n;
    return HD_OK;
}

/* What a check sends stays within its line. */
static hd_rc_t set_headers(hd_xds_t *x, PbCore__HeaderValueOption *const *msgs, size_t n,
                           hd_check_conf_t *k, hd_err_t *err)
{
    hd_kv_t *list = n > 0 ? hd_pool_new_n(x->cf.pool, hd_kv_t, n) : NULL;
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++) {
        const PbCore__HeaderValue *h = msgs[i]->header;

        if (h == NULL)
            continue;
        if (!hd_http_is_field_name(hd_str_c(h->key)) ||
            !hd_http_is_field_value(hd_str_c(h->value)))
            return hd_err_set(err, HD_E_RESOURCE, "\"%s: %s\" is no header field", h->key,
                              h->value);
        list[count++] = (hd_kv_t){hd_xds_str(x, h->key), hd_xds_str(x, h->value)};
    }
    k->headers = list;
    k->headers_n = count;
    return HD_OK;
}

static hd_rc_t set_host(hd_xds_t *x, const char *host, hd_str_t *to, hd_err_t *err)
{
    if (!hd_http_is_field_value(hd_str_c(host)))
        return hd_err_set(err, HD_E_RESOURCE, "host \"%s\": what a field may have", host);
    *to = hd_xds_str(x, host);
    return HD_OK;
}

static hd_rc_t set_http(hd_xds_t *x, const PbCore__HealthCheck__HttpHealthCheck *msg,
                        hd_check_conf_t *k, hd_err_t *err)
{
    k->kind = HD_CHECK_HTTP;
    if (*msg->path != '/')
        return hd_err_set(err, HD_E_RESOURCE, "path \"%s\": it begins with /", msg->path);
    if (hd_span(hd_str_c(msg->path), HD_CH_TARGET) < strlen(msg->path))
        return hd_err_set(err, HD_E_RESOURCE, "path \"%s\": what a request line may have",
                          msg->path);
    if ((size_t)msg->method >= hd_countof(methods) ||
        msg->method == PB_CORE__REQUEST_METHOD__CONNECT)
        return hd_err_set(err, HD_E_RESOURCE, "method %d", (int)msg->method);
    if (msg->codec_client_type == PB_TYPE__CODEC_CLIENT_TYPE__HTTP3)
        return hd_err_set(err, HD_E_RESOURCE, "HTTP/3: not supported");
    k->method = hd_xds_str(x, methods[msg->method]);
    k->path = hd_xds_str(x, msg->path);
    k->is_h2 = msg->codec_client_type == PB_TYPE__CODEC_CLIENT_TYPE__HTTP2;
    if (set_host(x, msg->host, &k->host, err) != HD_OK ||
        set_headers(x, msg->request_headers_to_add, msg->n_request_headers_to_add, k,
                    err) != HD_OK ||
        set_ranges(x, msg->expected_statuses, msg->n_expected_statuses, &k->expected,
                   &k->expected_n, err) != HD_OK ||
        set_ranges(x, msg->retriable_statuses, msg->n_retriable_statuses, &k->retriable,
                   &k->retriable_n, err) != HD_OK)
        return HD_ERROR;
    return set_receive(x, msg->receive, msg->n_receive, k, err);
}

static hd_rc_t set_grpc(hd_xds_t *x, const PbCore__HealthCheck__GrpcHealthCheck *msg,
                        hd_check_conf_t *k, hd_err_t *err)
{
    k->kind = HD_CHECK_GRPC;
    k->service = hd_xds_str(x, msg->service_name);
    if (set_host(x, msg->authority, &k->host, err) != HD_OK ||
        set_headers(x, msg->initial_metadata, msg->n_initial_metadata, k, err) != HD_OK)
        return HD_ERROR;
    return k->service.len <= 127
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE, "service_name of %zu bytes: at most 127",
                            k->service.len);
}

static hd_rc_t set_kind(hd_xds_t *x, const check_t *msg, hd_check_conf_t *k,
                        hd_err_t *err)
{
    switch (msg->health_checker_case) {
    case PB_CORE__HEALTH_CHECK__HEALTH_CHECKER_HTTP_HEALTH_CHECK:
        return set_http(x, msg->http_health_check, k, err);
    case PB_CORE__HEALTH_CHECK__HEALTH_CHECKER_TCP_HEALTH_CHECK:
        k->kind = HD_CHECK_TCP;
        if (msg->tcp_health_check->send != NULL &&
            set_payload(x, msg->tcp_health_check->send, &k->send, err) != HD_OK)
            return hd_err_prefix(err, "send: ");
        return set_receive(x, msg->tcp_health_check->receive,
                           msg->tcp_health_check->n_receive, k, err);
    case PB_CORE__HEALTH_CHECK__HEALTH_CHECKER_GRPC_HEALTH_CHECK:
        return set_grpc(x, msg->grpc_health_check, k, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "of a kind that isn't known here: HTTP, gRPC or TCP");
    }
}

static hd_rc_t set_times(const check_t *msg, hd_check_conf_t *k, hd_err_t *err)
{
    const struct {
        const Pb__Duration *from;
        const char *name;
        uint32_t *to;
        uint32_t unset;
    } times[] = {
        {msg->timeout, "timeout", &k->timeout_ms, 0},
        {msg->interval, "interval", &k->interval_ms, 0},
        {msg->interval_jitter, "interval_jitter", &k->jitter_ms, 0},
        {msg->initial_jitter, "initial_jitter", &k->initial_jitter_ms, 0},
        {msg->no_traffic_interval, "no_traffic_interval", &k->no_traffic_ms,
         NO_TRAFFIC_MS},
        {msg->no_traffic_healthy_interval, "no_traffic_healthy_interval",
         &k->no_traffic_healthy_ms, 0},
        {msg->unhealthy_interval, "unhealthy_interval", &k->unhealthy_ms, 0},
        {msg->unhealthy_edge_interval, "unhealthy_edge_interval", &k->unhealthy_edge_ms,
         0},
        {msg->healthy_edge_interval, "healthy_edge_interval", &k->healthy_edge_ms, 0},
    };

    for (size_t i = 0; i < hd_countof(times); i++) {
        if (hd_xds_ms(times[i].from, times[i].unset, times[i].name, times[i].to, err) !=
            HD_OK)
            return HD_ERROR;
    }
    if (k->timeout_ms == 0 || k->interval_ms == 0)
        return hd_err_set(err, HD_E_RESOURCE, "timeout and interval are required");
    return HD_OK;
}

static hd_rc_t set_check(hd_xds_t *x, const check_t *check, hd_cluster_t *c,
                         hd_check_conf_t *k, hd_err_t *err)
{
    k->starts_down = true;
    k->reuse = hd_pb_bool(check->reuse_connection, true);
    k->jitter_percent = check->interval_jitter_percent;
    k->log_failures = check->always_log_health_check_failures;
    k->log_successes = check->always_log_health_check_success;
    k->unhealthy_threshold = hd_max(hd_pb_u32(check->unhealthy_threshold, 1), 1u);
    k->healthy_threshold = hd_max(hd_pb_u32(check->healthy_threshold, 1), 1u);
    if (hd_pb_u32(check->alt_port, 0) > 65535)
        return hd_err_set(err, HD_E_RESOURCE, "alt_port %u",
                          hd_pb_u32(check->alt_port, 0));
    k->port = (uint16_t)hd_pb_u32(check->alt_port, 0);
    if (set_times(check, k, err) != HD_OK || set_kind(x, check, k, err) != HD_OK)
        return HD_ERROR;
    if (k->host.len == 0)
        k->host = c->name;
    hd_xds_labels(x, check->transport_socket_match_criteria, &k->transport_match,
                  &k->transport_match_n);
    return HD_OK;
}

/* Envoy keeps a cluster's version that had no checks until each endpoint of the next one
 * was asked once; here they go on to serve until then. */
static uint64_t checked_since(const hd_xds_t *x, const hd_cluster_t *c)
{
    hd_member_t *m = x->env->member;
    const hd_slot_t *slot;
    const hd_region_t *r;
    const hd_cluster_t *before;

    if (x->env->batch == NULL || m == NULL)
        return 0;
    slot = hd_slot_find(m, x->env->arena, HD_RES_CLUSTER, c->name);
    r = slot != NULL ? hd_slot_get(m, slot) : NULL;
    before = r != NULL ? r->root : NULL;
    return before == NULL          ? 0
           : before->check == NULL ? hd_clock_mono_ns()
                                   : before->check->since_ns;
}

/* Envoy takes one. Of several all must be well, as of nginx's. */
hd_rc_t hd_xds_health_check(hd_xds_t *x, const PbCluster__Cluster *msg, hd_cluster_t *c,
                            hd_err_t *err)
{
    const hd_check_conf_t **to = &c->check;
    uint64_t since_ns;

    if (msg->n_health_checks == 0)
        return HD_OK;
    if (msg->n_health_checks > HD_CHECKS_MAX)
        return hd_err_set(err, HD_E_RESOURCE, "health_checks: at most %d", HD_CHECKS_MAX);
    since_ns = checked_since(x, c);
    for (size_t i = 0; i < msg->n_health_checks; i++) {
        hd_check_conf_t *k = hd_pool_new(x->cf.pool, hd_check_conf_t);

        if (set_check(x, msg->health_checks[i], c, k, err) != HD_OK)
            return hd_err_prefix(err, "health_checks: ");
        k->since_ns = since_ns;
        k->no_wait = !hd_pb_bool(msg->wait_for_warm_on_init, true);
        *to = k;
        to = &k->next;
    }
    return HD_OK;
}
