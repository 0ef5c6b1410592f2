/* Listeners (istio-to-xds §5, §6, §8): a sidecar's outbound and inbound ones, a
 * gateway's. Two shapes of a sidecar: with interception (virtualOutbound, virtualInbound,
 * and what they hand over to), and without (INTERCEPTION_MODE NONE): real addresses, an
 * explicit proxy port. */
#include "control/hd_translate_int.h"
#include "ext/http_fault.pb-c.h"
#include "ext/http_router.pb-c.h"
#include "ext/log_file.pb-c.h"
#include "ext/lst_http_inspector.pb-c.h"
#include "ext/lst_original_dst.pb-c.h"
#include "ext/lst_tls_inspector.pb-c.h"
#include "ext/net_tcp_proxy.pb-c.h"
#include "istio/stats.pb-c.h"

#define OUTBOUND_PORT 15001
#define INBOUND_PORT 15006
#define OWN_PORTS_MAX 64
#define PORTS_MAX 256

/* Istio's default access log (TEL-*). */
static const char log_format[] =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" "
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "
    "%CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" "
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" "
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% "
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

static PbAccesslog__AccessLog *access_log(hd_tr_t *t)
{
    PbAccesslog__AccessLog *log =
        HD_TR_NEW(t, PbAccesslog__AccessLog, pb_accesslog__access_log);
    PbLogFile__FileAccessLog *file =
        HD_TR_NEW(t, PbLogFile__FileAccessLog, pb_log_file__file_access_log);
    PbCore__SubstitutionFormatString *format = HD_TR_NEW(
        t, PbCore__SubstitutionFormatString, pb_core__substitution_format_string);

    format->format_case = PB_CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE;
    format->text_format_source = HD_TR_NEW(t, PbCore__DataSource, pb_core__data_source);
    format->text_format_source->specifier_case =
        PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING;
    format->text_format_source->inline_string = (char *)(uintptr_t)log_format;
    file->path = "/dev/stdout";
    file->access_log_format_case =
        PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT;
    file->log_format = format;
    log->name = "envoy.access_loggers.file";
    log->config_type_case = PB_ACCESSLOG__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG;
    log->typed_config = hd_tr_any(t, file);
    return log;
}

/* --- filters --- */

static void add_http_filter(hd_tr_t *t, PbHcm__HttpConnectionManager *hcm,
                            const char *name, const void *config)
{
    PbHcm__HttpFilter *f = HD_TR_NEW(t, PbHcm__HttpFilter, pb_hcm__http_filter);

    f->name = (char *)(uintptr_t)name;
    f->config_type_case = PB_HCM__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG;
    f->typed_config = hd_tr_any(t, config);
    HD_TR_ADD(t, hcm, http_filters, f);
}

static PbListener__Filter *network_filter(hd_tr_t *t, const char *name,
                                          const void *config)
{
    PbListener__Filter *f = HD_TR_NEW(t, PbListener__Filter, pb_listener__filter);

    f->name = (char *)(uintptr_t)name;
    f->config_type_case = PB_LISTENER__FILTER__CONFIG_TYPE_TYPED_CONFIG;
    f->typed_config = hd_tr_any(t, config);
    return f;
}

static PbListener__ListenerFilter *listener_filter(hd_tr_t *t, const char *name,
                                                   const void *config)
{
    PbListener__ListenerFilter *f =
        HD_TR_NEW(t, PbListener__ListenerFilter, pb_listener__listener_filter);

    f->name = (char *)(uintptr_t)name;
    f->config_type_case = PB_LISTENER__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG;
    f->typed_config = hd_tr_any(t, config);
    return f;
}

static void add_http_inspector(hd_tr_t *t, PbListener__Listener *l)
{
    HD_TR_ADD(t, l, listener_filters,
              listener_filter(t, "envoy.filters.listener.http_inspector",
                              HD_TR_NEW(t, PbLstHttpInspector__HttpInspector,
                                        pb_lst_http_inspector__http_inspector)));
}

static void add_tls_inspector(hd_tr_t *t, PbListener__Listener *l)
{
    HD_TR_ADD(t, l, listener_filters,
              listener_filter(t, "envoy.filters.listener.tls_inspector",
                              HD_TR_NEW(t, PbLstTlsInspector__TlsInspector,
                                        pb_lst_tls_inspector__tls_inspector)));
}

/* --- HTTP connection managers --- */

typedef enum { OUTBOUND, INBOUND, GATEWAY } side_t;

static void set_common(hd_tr_t *t, PbHcm__HttpConnectionManager *hcm, side_t side)
{
    PbHcm__HttpConnectionManager__UpgradeConfig *up =
        HD_TR_NEW(t, PbHcm__HttpConnectionManager__UpgradeConfig,
                  pb_hcm__http_connection_manager__upgrade_config);

    up->upgrade_type = "websocket";
    HD_TR_ADD(t, hcm, upgrade_configs, up);
    HD_TR_ADD(t, hcm, access_log, access_log(t));
    hcm->use_remote_address = hd_tr_bool(t, side == GATEWAY);
    hcm->stream_idle_timeout = hd_tr_duration(t, 0);
    hcm->normalize_path = hd_tr_bool(t, true);
    hcm->path_with_escaped_slashes_action =
        PB_HCM__HTTP_CONNECTION_MANAGER__PATH_WITH_ESCAPED_SLASHES_ACTION__KEEP_UNCHANGED;
    hcm->proxy_100_continue = true;
    if (t->proxy->takes_http10) {
        hcm->http_protocol_options =
            HD_TR_NEW(t, PbCore__Http1ProtocolOptions, pb_core__http1_protocol_options);
        hcm->http_protocol_options->accept_http_10 = true;
    }
    if (side != OUTBOUND)
        hcm->server_name = "istio-envoy";
    if (side == OUTBOUND)
        return;
    hcm->forward_client_cert_details =
        side == GATEWAY
            ? PB_HCM__HTTP_CONNECTION_MANAGER__FORWARD_CLIENT_CERT_DETAILS__SANITIZE_SET
            : PB_HCM__HTTP_CONNECTION_MANAGER__FORWARD_CLIENT_CERT_DETAILS__APPEND_FORWARD;
    hcm->set_current_client_cert_details =
        HD_TR_NEW(t, PbHcm__HttpConnectionManager__SetCurrentClientCertDetails,
                  pb_hcm__http_connection_manager__set_current_client_cert_details);
    hcm->set_current_client_cert_details->subject = hd_tr_bool(t, true);
    hcm->set_current_client_cert_details->uri = true;
    hcm->set_current_client_cert_details->dns = true;
}

/* Of Istio's standard metrics. Envoy has the filter only in Istio's build of it. */
static PbStats__PluginConfig *stats_conf(hd_tr_t *t, bool ignores_host)
{
    PbStats__PluginConfig *stats =
        HD_TR_NEW(t, PbStats__PluginConfig, pb_stats__plugin_config);

    stats->disable_host_header_fallback = ignores_host;
    return stats;
}

static PbListener__Filter *hcm_filter(hd_tr_t *t, side_t side, const char *stat_prefix,
                                      const char *rds,
                                      PbRoute__RouteConfiguration *routes)
{
    PbHcm__HttpConnectionManager *hcm =
        HD_TR_NEW(t, PbHcm__HttpConnectionManager, pb_hcm__http_connection_manager);

    hcm->stat_prefix = (char *)(uintptr_t)stat_prefix;
    if (routes != NULL) {
        hcm->route_specifier_case =
            PB_HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG;
        hcm->route_config = routes;
    } else {
        hcm->route_specifier_case = PB_HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_RDS;
        hcm->rds = HD_TR_NEW(t, PbHcm__Rds, pb_hcm__rds);
        hcm->rds->config_source = hd_tr_ads(t);
        hcm->rds->route_config_name = (char *)(uintptr_t)rds;
    }
    if (side != OUTBOUND) /* AP-EVAL-12 */
        hd_tr_rbac_filters(t, hcm);
    add_http_filter(t, hcm, "envoy.filters.http.fault",
                    HD_TR_NEW(t, PbHttpFault__HTTPFault, pb_http_fault__httpfault));
    if (t->proxy->is_heddle)
        add_http_filter(t, hcm, "istio.stats", stats_conf(t, side != OUTBOUND));
    add_http_filter(t, hcm, "envoy.filters.http.router",
                    HD_TR_NEW(t, PbHttpRouter__Router, pb_http_router__router));
    set_common(t, hcm, side);
    return network_filter(t, "envoy.filters.network.http_connection_manager", hcm);
}

static PbListener__Filter *tcp_filter(hd_tr_t *t, const char *cluster)
{
    PbNetTcpProxy__TcpProxy *tcp =
        HD_TR_NEW(t, PbNetTcpProxy__TcpProxy, pb_net_tcp_proxy__tcp_proxy);

    tcp->stat_prefix = (char *)(uintptr_t)cluster;
    tcp->cluster_specifier_case = PB_NET_TCP_PROXY__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER;
    tcp->cluster = (char *)(uintptr_t)cluster;
    return network_filter(t, "envoy.filters.network.tcp_proxy", tcp);
}

static PbListener__FilterChain *chain(hd_tr_t *t, const char *name,
                                      PbListener__Filter *filter)
{
    PbListener__FilterChain *c =
        HD_TR_NEW(t, PbListener__FilterChain, pb_listener__filter_chain);

    c->name = (char *)(uintptr_t)name;
    if (filter != NULL)
        HD_TR_ADD(t, c, filters, filter);
    return c;
}

/* The end of a chain of bytes, whose sessions are counted as HTTP's requests are. */
static void add_tcp(hd_tr_t *t, PbListener__FilterChain *c, PbListener__Filter *tcp)
{
    if (t->proxy->is_heddle)
        HD_TR_ADD(t, c, filters, network_filter(t, "istio.stats", stats_conf(t, false)));
    HD_TR_ADD(t, c, filters, tcp);
}

static PbListener__FilterChain *tcp_chain(hd_tr_t *t, const char *name,
                                          PbListener__Filter *tcp)
{
    PbListener__FilterChain *c = chain(t, name, NULL);

    add_tcp(t, c, tcp);
    return c;
}

static PbListener__FilterChainMatch *match_of(hd_tr_t *t, PbListener__FilterChain *c)
{
    if (c->filter_chain_match == NULL)
        c->filter_chain_match =
            HD_TR_NEW(t, PbListener__FilterChainMatch, pb_listener__filter_chain_match);
    return c->filter_chain_match;
}

static PbListener__Listener *listener(hd_tr_t *t, const char *name, hd_str_t ip,
                                      int64_t port, bool is_inbound)
{
    PbListener__Listener *l = HD_TR_NEW(t, PbListener__Listener, pb_listener__listener);

    l->name = (char *)(uintptr_t)name;
    l->address = hd_tr_address(t, ip, port);
    l->traffic_direction = is_inbound ? PB_CORE__TRAFFIC_DIRECTION__INBOUND
                                      : PB_CORE__TRAFFIC_DIRECTION__OUTBOUND;
    return l;
}

static void put(hd_tr_t *t, const PbListener__Listener *l)
{
    hd_tr_put(t, HD_VIEW_LISTENERS, l->name, l);
}

static void put_routes(hd_tr_t *t, const PbRoute__RouteConfiguration *rc)
{
    hd_tr_put(t, HD_VIEW_ROUTES, rc->name, rc);
}

/* --- inbound --- */

/* Where an inbound chain leads: to a port of the workload's own, or to one that no
 * service has (catch-all), which is passed through, under the same rules. */
typedef struct {
    const char *http_name, *tcp_name; /* of the chains */
    const char *stat_prefix;          /* of the HTTP ones */
    const char *cluster;
    hd_proto_t protocol;
    int64_t service_port; /* 0: of no service */
    int64_t match_port;   /* HD_UNSET: any */
} inbound_t;

/* What Istio's clients offer by ALPN: for HTTP, for anything else. */
static const char *const http_alpns[] = {"istio-http/1.0", "istio-http/1.1", "istio-h2",
                                         NULL};
static const char *const tcp_alpns[] = {"istio-peer-exchange", "istio", NULL};
static const char *const istio_alpns[] = {
    "istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2", NULL};
/* What the HTTP inspector says of plain text. */
static const char *const plain_alpns[] = {"http/1.1", "h2c", NULL};

/* One row of the table of istio-to-xds §6. */
typedef struct {
    const char *transport;    /* "tls" or "raw_buffer" */
    const char *const *alpns; /* NULL: any */
    bool is_http, terminates;
} inbound_row_t;

static void add_inbound_chain(hd_tr_t *t, PbListener__Listener *l, const inbound_t *in,
                              const inbound_row_t *row)
{
    PbListener__FilterChain *c =
        HD_TR_NEW(t, PbListener__FilterChain, pb_listener__filter_chain);

    c->name = (char *)(uintptr_t)(row->is_http ? in->http_name : in->tcp_name);
    if (row->is_http) {
        HD_TR_ADD(t, c, filters,
                  hcm_filter(t, INBOUND, in->stat_prefix, NULL,
                             hd_tr_inbound_routes(t, in->cluster, in->service_port)));
    } else {
        hd_tr_network_rbac_filters(t, c);
        add_tcp(t, c, tcp_filter(t, in->cluster));
    }
    match_of(t, c)->transport_protocol = (char *)(uintptr_t)row->transport;
    for (unsigned i = 0; row->alpns != NULL && row->alpns[i] != NULL; i++)
        HD_TR_ADD(t, match_of(t, c), application_protocols,
                  (char *)(uintptr_t)row->alpns[i]);
    if (in->match_port != HD_UNSET)
        match_of(t, c)->destination_port = hd_tr_u32(t, in->match_port);
    if (row->terminates)
        c->transport_socket = hd_tr_downstream_mtls(t, row->is_http);
    HD_TR_ADD(t, l, filter_chains, c);
}

enum { SPEAKS_HTTP, SPEAKS_TCP, SPEAKS_ANY };
#define ROWS_MAX 6

/* istio-to-xds §6, PA-11, PA-12: by protocol and mode; the first row without a transport
 * ends a cell. */
static const inbound_row_t rows[3][HD_MTLS_STRICT + 1][ROWS_MAX] = {
    [SPEAKS_HTTP] = {[HD_MTLS_PERMISSIVE] = {{"tls", istio_alpns, true, true},
                                             {"raw_buffer", NULL, true, false}},
                     [HD_MTLS_STRICT] = {{"tls", NULL, true, true}},
                     [HD_MTLS_DISABLE] = {{"raw_buffer", NULL, true, false}}},
    [SPEAKS_TCP] = {[HD_MTLS_PERMISSIVE] = {{"tls", istio_alpns, false, true},
                                            {"tls", NULL, false, false},
                                            {"raw_buffer", NULL, false, false}},
                    [HD_MTLS_STRICT] = {{"tls", NULL, false, true}},
                    [HD_MTLS_DISABLE] = {{"raw_buffer", NULL, false, false}}},
    [SPEAKS_ANY] = {[HD_MTLS_PERMISSIVE] = {{"tls", http_alpns, true, true},
                                            {"raw_buffer", plain_alpns, true, false},
                                            {"tls", tcp_alpns, false, true},
                                            {"raw_buffer", NULL, false, false},
                                            {"tls", NULL, false, false}},
                    [HD_MTLS_STRICT] = {{"tls", http_alpns, true, true},
                                        {"tls", NULL, false, true}},
                    [HD_MTLS_DISABLE] = {{"raw_buffer", plain_alpns, true, false},
                                         {"raw_buffer", NULL, false, false}}},
};

static void add_inbound_chains(hd_tr_t *t, PbListener__Listener *l, const inbound_t *in,
                               hd_mtls_mode_t mode)
{
    const inbound_row_t *row = rows[hd_proto_is_http(in->protocol)  ? SPEAKS_HTTP
                                    : in->protocol == HD_PROTO_AUTO ? SPEAKS_ANY
                                                                    : SPEAKS_TCP][mode];

    for (; row->transport != NULL; row++)
        add_inbound_chain(t, l, in, row);
}

static void add_own_port(hd_tr_t *t, PbListener__Listener *l, const hd_tr_own_port_t *own,
                         bool match_port)
{
    long long target = own->target;
    inbound_t in = {.http_name = hd_tr_printf(t, "0.0.0.0_%lld", target),
                    .stat_prefix = hd_tr_printf(t, "inbound_0.0.0.0_%lld;", target),
                    .cluster = hd_tr_inbound_name(t, target),
                    .protocol = own->port->protocol,
                    .service_port = own->port->number,
                    .match_port = match_port ? target : HD_UNSET};

    in.tcp_name = in.http_name;
    add_inbound_chains(t, l, &in,
                       hd_tr_mtls_mode(t, t->proxy->ns, hd_tr_labels(t), own->target));
}

/* Without interception: a listener on the pod's own address for each port. */
static void put_plain_inbound(hd_tr_t *t)
{
    hd_tr_own_port_t own[OWN_PORTS_MAX];
    size_t n = hd_tr_own_ports(t, own, hd_countof(own));

    for (size_t i = 0; i < n; i++) {
        PbListener__Listener *l =
            listener(t,
                     hd_tr_printf(t, "%.*s_%lld", HD_STR_ARG(t->proxy->ips[0]),
                                  (long long)own[i].target),
                     t->proxy->ips[0], own[i].target, true);

        add_tls_inspector(t, l);
        if (own[i].port->protocol == HD_PROTO_AUTO)
            add_http_inspector(t, l);
        add_own_port(t, l, &own[i], false);
        put(t, l);
    }
}

/* Ports that a PeerAuthentication names and no service has (PA-6). */
static void add_named_ports(hd_tr_t *t, PbListener__Listener *l, const inbound_t *rest,
                            const hd_tr_own_port_t *own, size_t own_n)
{
    int64_t done[OWN_PORTS_MAX];
    size_t done_n = 0, n;
    const hd_object_t *const *list =
        hd_tr_list_ns(t, HD_KIND_PEER_AUTHENTICATION, t->proxy->ns, &n);

    for (size_t i = 0; i < own_n; i++)
        done[done_n++] = own[i].target;
    for (size_t i = 0; i < n; i++) {
        const hd_peer_auth_t *pa = list[i]->peer_auth;

        if (pa->selector.n == 0 || !hd_labels_match(&pa->selector, hd_tr_labels(t)))
            continue;
        for (hd_each(p, pa->ports)) {
            inbound_t in = *rest;
            size_t at = 0;

            while (at < done_n && done[at] != p->port)
                at++;
            if (at < done_n || done_n == OWN_PORTS_MAX)
                continue;
            done[done_n++] = in.match_port = p->port;
            add_inbound_chains(
                t, l, &in, hd_tr_mtls_mode(t, t->proxy->ns, hd_tr_labels(t), p->port));
        }
    }
}

static void put_virtual_inbound(hd_tr_t *t)
{
    static const inbound_t rest = {.http_name = "virtualInbound-catchall-http",
                                   .tcp_name = "virtualInbound",
                                   .stat_prefix = "InboundPassthroughCluster;",
                                   .cluster = "InboundPassthroughCluster",
                                   .protocol = HD_PROTO_AUTO,
                                   .match_port = HD_UNSET};
    PbListener__Listener *l =
        listener(t, "virtualInbound", HD_STR("0.0.0.0"), INBOUND_PORT, true);
    hd_tr_own_port_t own[OWN_PORTS_MAX];
    size_t n = hd_tr_own_ports(t, own, hd_countof(own));
    PbListener__FilterChain *c;

    HD_TR_ADD(t, l, listener_filters,
              listener_filter(t, "envoy.filters.listener.original_dst",
                              HD_TR_NEW(t, PbLstOriginalDst__OriginalDst,
                                        pb_lst_original_dst__original_dst)));
    add_tls_inspector(t, l);
    add_http_inspector(t, l);
    l->continue_on_listener_filters_timeout = true;
    c = tcp_chain(t, "virtualInbound-blackhole", tcp_filter(t, "BlackHoleCluster"));
    match_of(t, c)->destination_port = hd_tr_u32(t, INBOUND_PORT);
    HD_TR_ADD(t, l, filter_chains, c);
    add_inbound_chains(t, l, &rest,
                       hd_tr_mtls_mode(t, t->proxy->ns, hd_tr_labels(t), HD_UNSET));
    for (size_t i = 0; i < n; i++)
        add_own_port(t, l, &own[i], true);
    add_named_ports(t, l, &rest, own, n);
    put(t, l);
}

/* --- outbound --- */

static const char *passthrough(const hd_tr_t *t)
{
    return hd_tr_is_registry_only(t) ? "BlackHoleCluster" : "PassthroughCluster";
}

static void put_virtual_outbound(hd_tr_t *t)
{
    PbListener__Listener *l =
        listener(t, "virtualOutbound", HD_STR("0.0.0.0"), OUTBOUND_PORT, false);
    PbListener__FilterChain *c =
        tcp_chain(t, "virtualOutbound-blackhole", tcp_filter(t, "BlackHoleCluster"));

    l->use_original_dst = hd_tr_bool(t, true);
    match_of(t, c)->destination_port = hd_tr_u32(t, OUTBOUND_PORT);
    HD_TR_ADD(t, l, filter_chains, c);
    c = tcp_chain(t, "virtualOutbound-catchall-tcp", tcp_filter(t, passthrough(t)));
    HD_TR_ADD(t, l, filter_chains, c);
    put(t, l);
}

static void put_http_port(hd_tr_t *t, int64_t port)
{
    char *name = hd_tr_printf(t, "0.0.0.0_%lld", (long long)port);
    PbListener__Listener *l = listener(t, name, HD_STR("0.0.0.0"), port, false);
    PbListener__FilterChain *c =
        chain(t, "",
              hcm_filter(t, OUTBOUND, hd_tr_printf(t, "outbound_%s;", name),
                         hd_tr_printf(t, "%lld", (long long)port), NULL));

    l->bind_to_port = hd_tr_bool(t, false);
    match_of(t, c)->transport_protocol = "raw_buffer";
    HD_TR_ADD(t, match_of(t, c), application_protocols, "http/1.1");
    HD_TR_ADD(t, match_of(t, c), application_protocols, "h2c");
    HD_TR_ADD(t, l, filter_chains, c);
    l->default_filter_chain =
        tcp_chain(t, "PassthroughFilterChain", tcp_filter(t, passthrough(t)));
    add_http_inspector(t, l);
    l->listener_filters_timeout = hd_tr_duration(t, 0);
    l->continue_on_listener_filters_timeout = true;
    put(t, l);
}

static void put_tcp_port(hd_tr_t *t, const hd_mesh_service_t *svc, hd_str_t host,
                         const hd_service_port_t *p)
{
    for (hd_each(vip, svc->addresses)) {
        PbListener__Listener *l;

        if (hd_str_find_char(*vip, '/') >= 0)
            continue;
        l = listener(t,
                     hd_tr_printf(t, "%.*s_%lld", HD_STR_ARG(*vip), (long long)p->number),
                     *vip, p->number, false);
        l->bind_to_port = hd_tr_bool(t, false);
        HD_TR_ADD(t, l, filter_chains,
                  tcp_chain(t, "",
                            tcp_filter(
                                t, hd_tr_cluster_name(t, p->number, HD_STR_NONE, host))));
        put(t, l);
    }
}

/* TLS of hosts that have no address of their own is told apart by SNI. */
static bool is_by_sni(const hd_mesh_service_t *svc, const hd_service_port_t *p)
{
    return hd_proto_is_tls(p->protocol) && svc->addresses.n == 0;
}

static void add_sni_chains(hd_tr_t *t, PbListener__Listener *l, const hd_object_t *svc,
                           int64_t port)
{
    for (hd_each(host, svc->service->hosts)) {
        PbListener__FilterChain *c;

        if (!hd_tr_sees_host(t, svc, *host))
            continue;
        c = tcp_chain(t, "",
                      tcp_filter(t, hd_tr_cluster_name(t, port, HD_STR_NONE, *host)));
        HD_TR_ADD(t, match_of(t, c), server_names, hd_tr_text(t, *host));
        HD_TR_ADD(t, l, filter_chains, c);
    }
}

/* Of all hosts on <port>; what none of them is meant by passes through. */
static void put_sni_port(hd_tr_t *t, int64_t port)
{
    static const hd_kind_t kinds[] = {HD_KIND_SERVICE, HD_KIND_SERVICE_ENTRY};
    PbListener__Listener *l;

    if (!hd_tr_begin(t, false, false, "listener by SNI %lld", (long long)port))
        return;
    hd_tr_depend_port(t, port);
    l = listener(t, hd_tr_printf(t, "0.0.0.0_%lld", (long long)port), HD_STR("0.0.0.0"),
                 port, false);
    l->bind_to_port = hd_tr_bool(t, false);
    add_tls_inspector(t, l);
    l->listener_filters_timeout = hd_tr_duration(t, 0);
    l->continue_on_listener_filters_timeout = true;
    for (unsigned k = 0; k < hd_countof(kinds); k++) {
        size_t n;
        const hd_object_t *const *list = hd_model_list(t->model, kinds[k], &n);

        for (size_t i = 0; i < n; i++) {
            const hd_mesh_service_t *svc = list[i]->service;

            for (hd_each(p, svc->ports)) {
                if (p->number == port && is_by_sni(svc, p) && hd_tr_sees(t, list[i]))
                    add_sni_chains(t, l, list[i], port);
            }
        }
    }
    l->default_filter_chain =
        tcp_chain(t, "PassthroughFilterChain", tcp_filter(t, passthrough(t)));
    put(t, l);
    hd_tr_end(t);
}

static void put_tcp_ports(hd_tr_t *t, const hd_object_t *svc, const hd_service_port_t *p)
{
    if (is_by_sni(svc->service, p)) {
        put_sni_port(t, p->number);
        return;
    }
    if (!hd_tr_begin(t, false, false, "listeners of %s %.*s/%.*s:%lld",
                     hd_kind_plural(svc->kind), HD_STR_ARG(svc->ns),
                     HD_STR_ARG(svc->name), (long long)p->number))
        return;
    hd_tr_depend_object(t, svc);
    for (hd_each(host, svc->service->hosts)) {
        if (hd_tr_sees_host(t, svc, *host))
            put_tcp_port(t, svc->service, *host, p);
    }
    hd_tr_end(t);
}

/* The listener depends on nothing, the routes on much. */
static void put_http_ports(hd_tr_t *t, int64_t port)
{
    if (hd_tr_begin(t, false, false, "listener %lld", (long long)port)) {
        put_http_port(t, port);
        hd_tr_end(t);
    }
    if (hd_tr_begin(t, false, false, "routes %lld", (long long)port)) {
        put_routes(t, hd_tr_sidecar_routes(t, port));
        hd_tr_end(t);
    }
}

/* Each port that any visible service has; hd_tr_outbound_clusters has entered that the
 * view depends on which services there are. */
static void put_outbound_ports(hd_tr_t *t)
{
    static const hd_kind_t kinds[] = {HD_KIND_SERVICE, HD_KIND_SERVICE_ENTRY};
    int64_t done[PORTS_MAX];
    size_t done_n = 0;

    for (unsigned k = 0; k < hd_countof(kinds); k++) {
        size_t n;
        const hd_object_t *const *list = hd_model_list(t->model, kinds[k], &n);

        for (size_t i = 0; i < n; i++) {
            const hd_mesh_service_t *svc = list[i]->service;

            if (!hd_tr_sees(t, list[i]))
                continue;
            for (hd_each(p, svc->ports)) {
                size_t at = 0;

                if (p->protocol == HD_PROTO_UDP)
                    continue;
                if (!hd_proto_is_http(p->protocol) && p->protocol != HD_PROTO_AUTO) {
                    put_tcp_ports(t, list[i], p);
                    continue;
                }
                while (at < done_n && done[at] != p->number)
                    at++;
                if (at == done_n && done_n < PORTS_MAX) {
                    done[done_n++] = p->number;
                    put_http_ports(t, p->number);
                }
            }
        }
    }
}

/* A workload that names its own sidecar's address: Host says the service. */
static void put_explicit_proxy(hd_tr_t *t)
{
    char *name = hd_tr_printf(t, "%.*s_%u", HD_STR_ARG(t->proxy->ips[0]),
                              t->proxy->http_proxy_port);
    PbListener__Listener *l =
        listener(t, name, t->proxy->ips[0], t->proxy->http_proxy_port, false);

    HD_TR_ADD(t, l, filter_chains,
              chain(t, "",
                    hcm_filter(t, OUTBOUND, hd_tr_printf(t, "outbound_%s;", name),
                               "http_proxy", NULL)));
    put(t, l);
}

void hd_tr_sidecar_listeners(hd_tr_t *t)
{
    bool intercepts = !hd_str_eq(t->proxy->interception_mode, HD_STR("NONE"));

    if (intercepts)
        put_outbound_ports(t);
    if (hd_tr_begin(t, true, false, "own listeners")) {
        if (intercepts) {
            put_virtual_outbound(t);
            put_virtual_inbound(t);
        } else {
            put_plain_inbound(t);
        }
        if (t->proxy->http_proxy_port != 0)
            put_explicit_proxy(t);
        hd_tr_end(t);
    }
    if (t->proxy->http_proxy_port != 0 &&
        hd_tr_begin(t, false, false, "routes http_proxy")) {
        put_routes(t, hd_tr_sidecar_routes(t, 0));
        hd_tr_end(t);
    }
}

/* --- gateways: HTTP, TCP, and TLS passed through by SNI. Servers that end TLS are left
 * out (a gateway's credentials aren't served yet). --- */

typedef enum { SERVES_HTTP, SERVES_SNI, SERVES_TCP, SERVES_NOTHING } serves_t;

static serves_t what_serves(const hd_server_t *s)
{
    if (hd_proto_is_http(s->port.protocol))
        return SERVES_HTTP;
    if (s->tls != NULL && s->tls->mode == HD_SERVER_TLS_PASSTHROUGH)
        return SERVES_SNI;
    return s->tls == NULL && s->port.protocol == HD_PROTO_TCP ? SERVES_TCP
                                                              : SERVES_NOTHING;
}

static PbListener__Filter *tcp_route_filter(hd_tr_t *t, const hd_server_t *server,
                                            const hd_route_dests_t *dests)
{
    PbNetTcpProxy__TcpProxy *tcp;

    if (dests->n == 1)
        return tcp_filter(
            t, hd_tr_gateway_destination(t, server, &dests->items[0].destination));
    tcp = HD_TR_NEW(t, PbNetTcpProxy__TcpProxy, pb_net_tcp_proxy__tcp_proxy);
    tcp->cluster_specifier_case =
        PB_NET_TCP_PROXY__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS;
    tcp->weighted_clusters = HD_TR_NEW(t, PbNetTcpProxy__TcpProxy__WeightedCluster,
                                       pb_net_tcp_proxy__tcp_proxy__weighted_cluster);
    for (hd_each(d, *dests)) {
        PbNetTcpProxy__TcpProxy__WeightedCluster__ClusterWeight *w;

        if (d->weight <= 0)
            continue;
        w = HD_TR_NEW(t, PbNetTcpProxy__TcpProxy__WeightedCluster__ClusterWeight,
                      pb_net_tcp_proxy__tcp_proxy__weighted_cluster__cluster_weight);
        w->name = hd_tr_gateway_destination(t, server, &d->destination);
        w->weight = (uint32_t)d->weight;
        tcp->stat_prefix = w->name;
        HD_TR_ADD(t, tcp->weighted_clusters, clusters, w);
    }
    return network_filter(t, "envoy.filters.network.tcp_proxy", tcp);
}

/* A chain for each match that can hold here; without SNI, the first route is all. */
static void add_l4_route(hd_tr_t *t, PbListener__Listener *l, const hd_server_t *server,
                         const hd_object_t *vs, const hd_l4_route_t *route, bool by_sni)
{
    for (hd_each(m, route->match)) {
        PbListener__FilterChain *c;
        hd_str_t narrow;

        if (m->port != HD_UNSET && m->port != server->port.number)
            continue;
        c = tcp_chain(t, "", tcp_route_filter(t, server, &route->route));
        for (hd_each(sni, m->sni_hosts)) {
            if (by_sni && hd_tr_serves_host(server, vs->ns, *sni, &narrow))
                HD_TR_ADD(t, match_of(t, c), server_names, hd_tr_text(t, *sni));
        }
        if (by_sni ? c->filter_chain_match != NULL : l->n_filter_chains == 0)
            HD_TR_ADD(t, l, filter_chains, c);
    }
    if (route->match.n == 0 && !by_sni && l->n_filter_chains == 0)
        HD_TR_ADD(t, l, filter_chains,
                  tcp_chain(t, "", tcp_route_filter(t, server, &route->route)));
}

static void add_l4_chains(hd_tr_t *t, PbListener__Listener *l, const hd_object_t *gateway,
                          const hd_server_t *server)
{
    bool by_sni = what_serves(server) == SERVES_SNI;
    hd_str_t name = hd_str_printf(t->pool, "%.*s/%.*s", HD_STR_ARG(gateway->ns),
                                  HD_STR_ARG(gateway->name));
    size_t n;
    const hd_object_t *const *list = hd_model_list(t->model, HD_KIND_VIRTUAL_SERVICE, &n);

    hd_part_depend(t->part, HD_DEP_GATEWAY, name, HD_STR_NONE);
    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (!hd_strs_has(&vs->gateways, name) ||
            !hd_is_exported(&vs->export_to, list[i]->ns, gateway->ns))
            continue;
        if (by_sni) {
            for (hd_each(route, vs->tls))
                add_l4_route(t, l, server, list[i], route, true);
        } else {
            for (hd_each(route, vs->tcp))
                add_l4_route(t, l, server, list[i], route, false);
        }
    }
}

static hd_str_t bind_of(const hd_server_t *s)
{
    return s->bind.len > 0 ? s->bind : HD_STR("0.0.0.0");
}

/* All servers of one address; the first says what is spoken there (GW-11). */
static void put_gateway_listener(hd_tr_t *t, const hd_server_t *first, int64_t target)
{
    serves_t serves = what_serves(first);
    hd_str_t bind = bind_of(first);
    char *name = hd_tr_printf(t, "%.*s_%lld", HD_STR_ARG(bind), (long long)target);
    PbListener__Listener *l;
    size_t n;
    const hd_object_t *const *list = hd_tr_list(t, HD_KIND_GATEWAY, &n);

    /* several gateways on one machine can't all have 0.0.0.0 */
    if (first->bind.len == 0 && hd_str_eq(t->proxy->interception_mode, HD_STR("NONE")))
        bind = t->proxy->ips[0];
    l = listener(t, name, bind, target, false);
    if (serves == SERVES_SNI)
        add_tls_inspector(t, l);
    if (serves == SERVES_HTTP)
        HD_TR_ADD(
            t, l, filter_chains,
            chain(t, "",
                  hcm_filter(t, GATEWAY, hd_tr_printf(t, "outbound_%s;", name),
                             hd_tr_printf(t, "http.%lld", (long long)target), NULL)));
    for (size_t i = 0; serves != SERVES_HTTP && i < n; i++) {
        if (!hd_labels_match(&list[i]->gateway->selector, hd_tr_labels(t)))
            continue;
        for (hd_each(server, list[i]->gateway->servers)) {
            if (what_serves(server) == serves &&
                hd_str_eq(bind_of(server), bind_of(first)) &&
                hd_tr_gateway_target(t, server->port.number, true) == target)
                add_l4_chains(t, l, list[i], server);
        }
    }
    if (l->n_filter_chains > 0)
        put(t, l);
}

static void put_server(hd_tr_t *t, const hd_server_t *server)
{
    int64_t target = hd_tr_gateway_target(t, server->port.number, false);
    hd_str_t bind = bind_of(server);

    if (hd_tr_begin(t, true, true, "gateway listener %.*s:%lld", HD_STR_ARG(bind),
                    (long long)target)) {
        put_gateway_listener(t, server, target);
        hd_tr_end(t);
    }
    if (what_serves(server) == SERVES_HTTP &&
        hd_tr_begin(t, true, true, "gateway routes %lld", (long long)target)) {
        put_routes(t, hd_tr_gateway_routes(t, target));
        hd_tr_end(t);
    }
}

void hd_tr_gateway_listeners(hd_tr_t *t)
{
    size_t n;
    const hd_object_t *const *list = hd_model_list(t->model, HD_KIND_GATEWAY, &n);

    if (hd_tr_begin(t, true, true, "which gateways")) { /* without resources */
        hd_tr_depend_kind(t, HD_KIND_GATEWAY);
        hd_ignore(hd_tr_gateway_target(t, 0, true) == 0);
        hd_tr_end(t);
    }
    for (size_t i = 0; i < n; i++) {
        const hd_gateway_t *gw = list[i]->gateway;

        if (!hd_labels_match(&gw->selector, &t->_labels)) /* "labels" has entered them */
            continue;
        for (hd_each(server, gw->servers)) {
            if (what_serves(server) != SERVES_NOTHING)
                put_server(t, server);
        }
    }
}
