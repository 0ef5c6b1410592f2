/* HttpConnectionManager: an HTTP server's settings and its filters. Defaults are Envoy's.
 */
#include "mesh/xds/hd_xds_int.h"
#include "ext/http_router.pb-c.h"
#include "http/hd_chars.h"
#include "http/hd_h2_budget.h"

#include <string.h>
#include <strings.h>

#define HEAD_KB 60
#define FIELDS_MAX 100
#define STREAM_IDLE_MS 300000
#define IDLE_MS 3600000
#define DRAIN_MS 5000
#define STREAMS_MAX 1024

typedef PbHcm__HttpConnectionManager hcm_t;

#define UNDERSCORES(action)                                                              \
    PB_CORE__HTTP_PROTOCOL_OPTIONS__HEADERS_WITH_UNDERSCORES_ACTION__##action

static hd_rc_t set_codec(const hcm_t *msg, hd_http_conf_t *conf, hd_err_t *err)
{
    switch (msg->codec_type) {
    case PB_HCM__HTTP_CONNECTION_MANAGER__CODEC_TYPE__AUTO:
        conf->codec = HD_CODEC_AUTO;
        return HD_OK;
    case PB_HCM__HTTP_CONNECTION_MANAGER__CODEC_TYPE__HTTP1:
        conf->codec = HD_CODEC_HTTP1;
        return HD_OK;
    case PB_HCM__HTTP_CONNECTION_MANAGER__CODEC_TYPE__HTTP2:
        conf->codec = HD_CODEC_HTTP2;
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "codec_type %d: HTTP/3 isn't supported",
                          (int)msg->codec_type);
    }
}

static hd_rc_t set_routes(hd_xds_t *x, const hcm_t *msg, hd_http_conf_t *conf,
                          hd_err_t *err)
{
    const void *root;

    switch (msg->route_specifier_case) {
    case PB_HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_RDS:
        conf->routes =
            hd_xds_need(x, HD_XDS_ROUTES, hd_str_c(msg->rds->route_config_name),
                        msg->rds->config_source, err);
        return conf->routes != NULL ? HD_OK : hd_err_prefix(err, "rds: ");
    case PB_HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG:
        if (hd_xds_routes(x, msg->route_config, &root, err) != HD_OK)
            return hd_err_prefix(err, "route_config: ");
        conf->inline_routes = root;
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "it names no routes");
    }
}

static bool is_router(const PbHcm__HttpFilter *f)
{
    return f->config_type_case == PB_HCM__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG &&
           hd_pb_any_is(f->typed_config, HD_PB(pb_http_router__router));
}

static hd_rc_t add_filter(hd_xds_t *x, const PbHcm__HttpFilter *msg,
                          hd_filter_conf_t *list, hd_http_conf_t *conf, hd_err_t *err)
{
    hd_filter_conf_t *to = &list[conf->filters_n];
    hd_rc_t rc;

    if (msg->config_type_case != PB_HCM__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG)
        return hd_err_set(err, HD_E_RESOURCE,
                          "its settings don't stand in it (ECDS isn't supported)");
    if (is_router(msg))
        return hd_err_set(err, HD_E_RESOURCE, "the router must be the last filter");
    rc = hd_xds_extension(x, HD_XDS_EXT_HTTP, msg->typed_config, msg->is_optional,
                          &to->module, &to->conf, err);
    if (rc != HD_OK)
        return rc == HD_DECLINED ? HD_OK : HD_ERROR;
    to->name = hd_xds_str(x, msg->name);
    to->is_disabled = msg->disabled;
    conf->filters_n++;
    return HD_OK;
}

/* Retry policies are no filter in xDS: a module has them, by their type, and its place
 * is where the router is. Routes bring the settings. */
static void add_retry(hd_xds_t *x, hd_filter_conf_t *list, hd_http_conf_t *conf)
{
    hd_filter_conf_t *to = &list[conf->filters_n];
    const hd_xds_type_t *type;

    to->module = hd_xds_module_of(HD_STR(HD_XDS_RETRY_URL), false, &type);
    if (to->module == UINT16_MAX)
        return;
    to->name = hd_xds_str(x, HD_XDS_RETRY_URL);
    conf->filters_n++;
}

static hd_rc_t set_filters(hd_xds_t *x, const hcm_t *msg, hd_http_conf_t *conf,
                           hd_err_t *err)
{
    size_t n = msg->n_http_filters;
    const PbHttpRouter__Router *router;
    hd_filter_conf_t *list;

    if (n == 0 || !is_router(msg->http_filters[n - 1]))
        return hd_err_set(err, HD_E_RESOURCE, "its last HTTP filter isn't the router");
    router = hd_xds_unpack(x, msg->http_filters[n - 1]->typed_config,
                           HD_PB(pb_http_router__router), err);
    if (router == NULL)
        return hd_err_prefix(err, "the router: ");
    conf->suppress_envoy_headers = router->suppress_envoy_headers;
    list = hd_pool_new_n(x->cf.pool, hd_filter_conf_t, n);
    conf->filters = list;
    for (size_t i = 0; i + 1 < n; i++) {
        if (add_filter(x, msg->http_filters[i], list, conf, err) != HD_OK)
            return hd_err_prefix(err, "HTTP filter \"%s\": ", msg->http_filters[i]->name);
    }
    add_retry(x, list, conf);
    return HD_OK;
}

static void set_peer(const hcm_t *msg, hd_http_conf_t *conf)
{
    const PbHcm__HttpConnectionManager__SetCurrentClientCertDetails *d =
        msg->set_current_client_cert_details;

    conf->use_remote_address = hd_pb_bool(msg->use_remote_address, false);
    conf->xff_trusted_hops = msg->xff_num_trusted_hops;
    conf->skip_xff_append = msg->skip_xff_append;
    conf->xfcc = (hd_xfcc_t)hd_min((unsigned)msg->forward_client_cert_details,
                                   (unsigned)HD_XFCC_ALWAYS_FORWARD_ONLY);
    if (d == NULL)
        return;
    conf->xfcc_subject = hd_pb_bool(d->subject, false);
    conf->xfcc_cert = d->cert;
    conf->xfcc_chain = d->chain;
    conf->xfcc_dns = d->dns;
    conf->xfcc_uri = d->uri;
}

static hd_rc_t set_upgrades(hd_xds_t *x, const hcm_t *msg, hd_http_conf_t *conf,
                            hd_err_t *err)
{
    hd_upgrade_t *list = hd_pool_new_n(x->cf.pool, hd_upgrade_t, msg->n_upgrade_configs);

    for (size_t i = 0; i < msg->n_upgrade_configs; i++) {
        const PbHcm__HttpConnectionManager__UpgradeConfig *u = msg->upgrade_configs[i];

        if (u->n_filters > 0)
            return hd_err_set(err, HD_E_RESOURCE,
                              "upgrade_configs: filters of its own aren't supported");
        list[i] = (hd_upgrade_t){.type = hd_xds_str(x, u->upgrade_type),
                                 .is_on = hd_pb_bool(u->enabled, true)};
        if (strcasecmp(u->upgrade_type, "websocket") == 0)
            conf->upgrade_websocket = list[i].is_on;
    }
    conf->upgrades = (hd_upgrades_t){list, (uint32_t)msg->n_upgrade_configs};
    return HD_OK;
}

static hd_rc_t set_path_rules(const hcm_t *msg, hd_http_conf_t *conf, hd_err_t *err)
{
    conf->normalize_path = hd_pb_bool(msg->normalize_path, false);
    conf->merge_slashes = msg->merge_slashes;
    switch (msg->path_with_escaped_slashes_action) {
    case PB_HCM__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__IMPLEMENTATION_SPECIFIC_DEFAULT:
    case PB_HCM__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__KEEP_UNCHANGED:
        conf->escaped_slashes = 0;
        return HD_OK;
    case PB_HCM__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__REJECT_REQUEST:
        conf->escaped_slashes = 1;
        return HD_OK;
    case PB_HCM__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__UNESCAPE_AND_REDIRECT:
        conf->escaped_slashes = 2;
        return HD_OK;
    case PB_HCM__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__UNESCAPE_AND_FORWARD:
        conf->escaped_slashes = 3;
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "path_with_escaped_slashes_action %d",
                          (int)msg->path_with_escaped_slashes_action);
    }
}

static hd_rc_t set_times(const hcm_t *msg, hd_http_conf_t *conf, hd_err_t *err)
{
    const PbCore__HttpProtocolOptions *c = msg->common_http_protocol_options;

    conf->idle_timeout_ms = IDLE_MS;
    if (hd_xds_ms64(msg->stream_idle_timeout, STREAM_IDLE_MS, "stream_idle_timeout",
                    &conf->stream_idle_timeout_ms, err) != HD_OK ||
        hd_xds_ms64(msg->request_timeout, 0, "request_timeout", &conf->request_timeout_ms,
                    err) != HD_OK ||
        hd_xds_ms64(msg->request_headers_timeout, 0, "request_headers_timeout",
                    &conf->header_timeout_ms, err) != HD_OK ||
        hd_xds_ms64(msg->drain_timeout, DRAIN_MS, "drain_timeout",
                    &conf->drain_timeout_ms, err) != HD_OK)
        return HD_ERROR;
    if (c == NULL)
        return HD_OK;
    if (hd_xds_ms64(c->idle_timeout, IDLE_MS, "idle_timeout", &conf->idle_timeout_ms,
                    err) != HD_OK ||
        hd_xds_ms64(c->max_connection_duration, 0, "max_connection_duration",
                    &conf->max_conn_duration_ms, err) != HD_OK)
        return HD_ERROR;
    return hd_xds_ms64(c->max_stream_duration, 0, "max_stream_duration",
                       &conf->max_stream_duration_ms, err);
}

static hd_rc_t set_limits(hd_xds_t *x, const hcm_t *msg, hd_http_conf_t *conf,
                          hd_err_t *err)
{
    const PbCore__HttpProtocolOptions *c = msg->common_http_protocol_options;
    const PbCore__Http1ProtocolOptions *h1 = msg->http_protocol_options;
    const PbCore__Http2ProtocolOptions *h2 = msg->http2_protocol_options;
    uint32_t kb = hd_pb_u32(msg->max_request_headers_kb, HEAD_KB);

    if (kb == 0 || kb > 8192)
        return hd_err_set(err, HD_E_RESOURCE, "max_request_headers_kb %u: 1 to 8192", kb);
    conf->head_bytes_max = kb * 1024;
    conf->fields_max = FIELDS_MAX;
    conf->h2_streams = STREAMS_MAX;
    if (c != NULL) {
        conf->fields_max = hd_pb_u32(c->max_headers_count, FIELDS_MAX);
        conf->requests_per_conn = hd_pb_u32(c->max_requests_per_connection, 0);
    }
    if (h1 != NULL) {
        conf->accepts_http10 = h1->accept_http_10;
        conf->http10_host = hd_xds_str(x, h1->default_host_for_http_10);
        if (conf->http10_host.len > 0 && !hd_http_is_authority(conf->http10_host))
            return hd_err_set(err, HD_E_RESOURCE,
                              "default_host_for_http_10 \"%s\" is no host",
                              h1->default_host_for_http_10);
    }
    if (h2 != NULL) {
        conf->h2_streams = hd_pb_u32(h2->max_concurrent_streams, STREAMS_MAX);
        conf->h2_stream_window = hd_pb_u32(h2->initial_stream_window_size, 0);
        conf->h2_conn_window = hd_pb_u32(h2->initial_connection_window_size, 0);
        hd_xds_ping(h2->connection_keepalive, &conf->h2_ping_ms,
                    &conf->h2_ping_timeout_ms);
    }
    return HD_OK;
}

/* A location's settings: what Envoy has no counterpart of limits nothing. */
static hd_rc_t make_loc(hd_xds_t *x, const hcm_t *msg, hd_http_conf_t *conf,
                        hd_err_t *err)
{
    hd_http_loc_t *loc = hd_pool_new(x->cf.pool, hd_http_loc_t);
    const PbCore__HttpProtocolOptions *c = msg->common_http_protocol_options;
    int underscores =
        c != NULL ? (int)c->headers_with_underscores_action : (int)UNDERSCORES(ALLOW);

    if (underscores < UNDERSCORES(ALLOW) || underscores > UNDERSCORES(DROP_HEADER))
        return hd_err_set(err, HD_E_RESOURCE, "headers_with_underscores_action %d",
                          underscores);

    *loc = (hd_http_loc_t){.keepalive_timeout_ms = conf->idle_timeout_ms,
                           .keepalive_requests = conf->requests_per_conn,
                           .keepalive_time_ms = conf->max_conn_duration_ms,
                           .lingering_time_ms = 1000, /* delayed_close_timeout */
                           .underscores_in_headers = underscores == UNDERSCORES(ALLOW),
                           .ignore_invalid_headers = underscores != UNDERSCORES(REJECT_REQUEST),
                           .merge_slashes = conf->merge_slashes};
    conf->loc = loc;
    return HD_OK;
}

hd_rc_t hd_xds_hcm(hd_xds_t *x, const hcm_t *msg, const hd_http_conf_t **out,
                   hd_err_t *err)
{
    hd_http_conf_t *conf = hd_pool_new(x->cf.pool, hd_http_conf_t);

    conf->is_xds = true;
    conf->stat_prefix = hd_xds_str(x, msg->stat_prefix);
    if (conf->stat_prefix.len == 0)
        return hd_err_set(err, HD_E_RESOURCE, "it has no stat_prefix");
    conf->server_name =
        hd_xds_str(x, *msg->server_name != '\0' ? msg->server_name : "envoy");
    conf->server_header =
        (uint8_t)hd_min((unsigned)msg->server_header_transformation, 2u);
    conf->generate_request_id = hd_pb_bool(msg->generate_request_id, true);
    conf->preserve_request_id = msg->preserve_external_request_id;
    conf->always_set_request_id = msg->always_set_request_id_in_response;
    conf->strip_port =
        msg->strip_port_mode_case ==
            PB_HCM__HTTP_CONNECTION_MANAGER__STRIP_PORT_MODE_STRIP_ANY_HOST_PORT &&
        msg->strip_any_host_port;
    conf->strip_own_port = msg->strip_matching_host_port;
    set_peer(msg, conf);
    if (set_codec(msg, conf, err) != HD_OK || set_times(msg, conf, err) != HD_OK ||
        set_limits(x, msg, conf, err) != HD_OK ||
        set_upgrades(x, msg, conf, err) != HD_OK ||
        set_path_rules(msg, conf, err) != HD_OK ||
        set_filters(x, msg, conf, err) != HD_OK ||
        set_routes(x, msg, conf, err) != HD_OK ||
        hd_xds_http_logs(x, msg->access_log, msg->n_access_log, &conf->logs,
                         &conf->logs_n, err) != HD_OK ||
        make_loc(x, msg, conf, err) != HD_OK)
        return HD_ERROR;
    conf->h2_clients = hd_h2_clients_get(x->cf.member);
    *out = conf;
    return HD_OK;
}
