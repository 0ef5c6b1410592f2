/* Which fields have an effect here. Of each message that the decoders read: names of the
 * fields that are read; "!name" is refused when it is set, since without it something
 * else would happen to traffic than was asked for. Whatever is set beside these is
 * accepted and noted (it ends in the config dump). t/mesh/xds-no-effect.txt, made by
 * tools/xds-effect, is the proof: a field called read here that changes nothing is found
 * there. */
#include "mesh/xds/hd_xds_int.h"
#include "core/base/hd_map.h"
#include "proto/hd_pb_reflect.h"

#include <string.h>

#define CLUSTER "envoy.config.cluster.v3."
#define ENDPOINT "envoy.config.endpoint.v3."
#define LISTENER "envoy.config.listener.v3."
#define ROUTE "envoy.config.route.v3."
#define CORE "envoy.config.core.v3."
#define HCM "envoy.extensions.filters.network.http_connection_manager.v3."
#define TLS "envoy.extensions.transport_sockets.tls.v3."
#define TCP "envoy.extensions.filters.network.tcp_proxy.v3."
#define UDP "envoy.extensions.filters.udp.udp_proxy.v3."
#define UP "envoy.extensions.upstreams.http.v3."

typedef struct {
    const char *message, *fields;
} entry_t;

static const entry_t entries[] = {
    {CLUSTER "Cluster",
     "name type !cluster_type eds_cluster_config connect_timeout lb_policy "
     "max_requests_per_connection circuit_breakers http_protocol_options "
     "http2_protocol_options outlier_detection upstream_bind_config "
     "original_dst_lb_config least_request_lb_config ring_hash_lb_config "
     "maglev_lb_config round_robin_lb_config lb_subset_config transport_socket metadata "
     "protocol_selection common_lb_config alt_stat_name common_http_protocol_options "
     "upstream_connection_options load_assignment typed_extension_protocol_options "
     "filters load_balancing_policy dns_lookup_family transport_socket_matches "
     "dns_refresh_rate dns_resolvers respect_dns_ttl dns_failure_refresh_rate "
     "use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config dns_jitter "
     "upstream_http_protocol_options !connection_pool_per_downstream_connection "
     "!upstream_config health_checks close_connections_on_host_health_failure "
     "wait_for_warm_on_init preconnect_policy"},
    {CLUSTER "Cluster.PreconnectPolicy", "per_upstream_preconnect_ratio"},
    {CLUSTER "Cluster.EdsClusterConfig", "eds_config service_name"},
    {CLUSTER "Cluster.CommonLbConfig",
     "healthy_panic_threshold zone_aware_lb_config locality_weighted_lb_config "
     "consistent_hashing_lb_config "
     "override_host_status"},
    {CORE "HealthStatusSet", "statuses"},
    {CLUSTER "Cluster.CommonLbConfig.ConsistentHashingLbConfig",
     "use_hostname_for_hashing hash_balance_factor"},
    {CLUSTER "Cluster.LeastRequestLbConfig",
     "choice_count active_request_bias slow_start_config"},
    {CLUSTER "Cluster.RoundRobinLbConfig", "slow_start_config"},
    {CLUSTER "Cluster.SlowStartConfig",
     "slow_start_window aggression min_weight_percent"},
    {CLUSTER "Cluster.RingHashLbConfig",
     "minimum_ring_size hash_function maximum_ring_size"},
    {CLUSTER "Cluster.MaglevLbConfig", "table_size"},
    {CLUSTER "Cluster.LbSubsetConfig",
     "fallback_policy default_subset subset_selectors locality_weight_aware "
     "scale_locality_weight panic_mode_any list_as_any metadata_fallback_policy "
     "allow_redundant_keys"},
    {CLUSTER "Cluster.LbSubsetConfig.LbSubsetSelector",
     "keys fallback_policy fallback_keys_subset"},
    {CLUSTER "Cluster.OriginalDstLbConfig",
     "use_http_header http_header_name upstream_port_override !metadata_key"},
    {CLUSTER "Cluster.TransportSocketMatch", "name match transport_socket"},
    {CLUSTER "CircuitBreakers", "thresholds !per_host_thresholds"},
    {CLUSTER "CircuitBreakers.Thresholds",
     "priority max_connections max_pending_requests max_requests max_retries "
     "max_connection_pools retry_budget"},
    {CLUSTER "CircuitBreakers.Thresholds.RetryBudget",
     "budget_percent min_retry_concurrency"},
    {CLUSTER "OutlierDetection",
     "consecutive_5xx interval base_ejection_time max_ejection_percent "
     "enforcing_consecutive_5xx consecutive_gateway_failure "
     "enforcing_consecutive_gateway_failure split_external_local_origin_errors "
     "consecutive_local_origin_failure enforcing_consecutive_local_origin_failure "
     "enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume "
     "success_rate_stdev_factor enforcing_local_origin_success_rate "
     "failure_percentage_threshold enforcing_failure_percentage "
     "enforcing_failure_percentage_local_origin failure_percentage_minimum_hosts "
     "failure_percentage_request_volume max_ejection_time max_ejection_time_jitter "
     "successful_active_health_check_uneject_host always_eject_one_host"},
    {CORE "Http1ProtocolOptions",
     "accept_http_10 default_host_for_http_10 !send_fully_qualified_url"},
    {CORE "Http2ProtocolOptions",
     "max_concurrent_streams initial_stream_window_size initial_connection_window_size "
     "connection_keepalive allow_connect"},
    {CORE "KeepaliveSettings", "interval timeout"},
    {CORE "HealthCheck",
     "timeout interval interval_jitter unhealthy_threshold healthy_threshold alt_port "
     "reuse_connection http_health_check tcp_health_check grpc_health_check "
     "!custom_health_check no_traffic_interval unhealthy_interval "
     "unhealthy_edge_interval healthy_edge_interval interval_jitter_percent "
     "always_log_health_check_failures initial_jitter transport_socket_match_criteria "
     "no_traffic_healthy_interval always_log_health_check_success"},
    {CORE "HealthCheck.HttpHealthCheck",
     "host path receive request_headers_to_add !request_headers_to_remove "
     "expected_statuses codec_client_type !service_name_matcher retriable_statuses "
     "method !send"},
    {CORE "HealthCheck.TcpHealthCheck", "send receive !proxy_protocol_config"},
    {CORE "HealthCheck.GrpcHealthCheck", "service_name authority initial_metadata"},
    {CORE "HealthCheck.Payload", "text binary"},
    {CLUSTER "UpstreamConnectionOptions", "tcp_keepalive"},
    {CLUSTER "LoadBalancingPolicy", "policies"},
    {CLUSTER "Filter", "name typed_config !config_discovery"},
    {UP "HttpProtocolOptions",
     "common_http_protocol_options upstream_http_protocol_options explicit_http_config "
     "use_downstream_protocol_config auto_config !http_filters"},
    {UP "HttpProtocolOptions.ExplicitHttpConfig",
     "http_protocol_options http2_protocol_options !http3_protocol_options"},
    {UP "HttpProtocolOptions.UseDownstreamHttpConfig", "http2_protocol_options"},
    {UP "HttpProtocolOptions.AutoHttpConfig", "http2_protocol_options"},

    {ENDPOINT "ClusterLoadAssignment", "cluster_name endpoints policy"},
    {ENDPOINT "ClusterLoadAssignment.Policy",
     "!drop_overloads overprovisioning_factor weighted_priority_health"},
    {ENDPOINT "LocalityLbEndpoints",
     "locality lb_endpoints load_balancing_weight priority !load_balancer_endpoints "
     "!leds_cluster_locality_config"},
    {ENDPOINT "LbEndpoint",
     "endpoint !endpoint_name health_status metadata load_balancing_weight"},
    {ENDPOINT "Endpoint", "address hostname health_check_config"},
    {ENDPOINT "Endpoint.HealthCheckConfig",
     "port_value hostname address disable_active_health_check"},

    {LISTENER "Listener",
     "name address filter_chains use_original_dst per_connection_buffer_limit_bytes "
     "listener_filters transparent freebind listener_filters_timeout traffic_direction "
     "continue_on_listener_filters_timeout udp_listener_config !api_listener "
     "tcp_backlog_size default_filter_chain bind_to_port internal_listener "
     "enable_reuse_port access_log !filter_chain_matcher additional_addresses "
     "!fcds_config "
     "tcp_keepalive !socket_options bypass_overload_manager"},
    {LISTENER "AdditionalAddress", "address !socket_options tcp_keepalive"},
    {LISTENER "UdpListenerConfig", "!quic_options"},
    {UDP "UdpProxyConfig",
     "stat_prefix cluster matcher idle_timeout !use_original_src_ip hash_policies "
     "!use_per_packet_load_balancing access_log !session_filters !tunneling_config"},
    {UDP "UdpProxyConfig.HashPolicy", "source_ip key"},
    {UDP "Route", "cluster"},
    {LISTENER "ListenerFilter", "name typed_config !config_discovery filter_disabled"},
    {LISTENER "ListenerFilterChainMatchPredicate",
     "or_match !and_match !not_match any_match destination_port_range"},
    {LISTENER "FilterChain",
     "filter_chain_match filters name transport_socket transport_socket_connect_timeout "
     "!use_proxy_proto"},
    {LISTENER "FilterChainMatch",
     "prefix_ranges source_prefix_ranges source_ports destination_port "
     "transport_protocol application_protocols server_names source_type "
     "direct_source_prefix_ranges"},
    {LISTENER "Filter", "name typed_config !config_discovery"},
    {"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
     "!allow_requests_without_proxy_protocol !disallowed_versions"},
    {"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
     "!close_connection_on_client_hello_parsing_errors"},

    {HCM "HttpConnectionManager",
     "codec_type stat_prefix rds route_config http_filters http_protocol_options "
     "http2_protocol_options server_name drain_timeout access_log use_remote_address "
     "generate_request_id "
     "forward_client_cert_details set_current_client_cert_details "
     "xff_num_trusted_hops skip_xff_append upgrade_configs stream_idle_timeout "
     "request_timeout max_request_headers_kb normalize_path preserve_external_request_id "
     "merge_slashes server_header_transformation common_http_protocol_options "
     "always_set_request_id_in_response !local_reply_config strip_matching_host_port "
     "strip_any_host_port request_headers_timeout path_with_escaped_slashes_action "
     "!original_ip_detection_extensions !strip_trailing_host_dot "
     "!scheme_header_transformation !typed_header_validation_config "
     "!append_x_forwarded_port !early_header_mutation_extensions !via"},
    {HCM "Rds", "config_source route_config_name"},
    {HCM "HttpFilter", "name typed_config !config_discovery is_optional disabled"},
    {HCM "HttpConnectionManager.UpgradeConfig", "upgrade_type !filters enabled"},
    {HCM "HttpConnectionManager.SetCurrentClientCertDetails",
     "subject cert dns uri chain !issuer"},
    {"envoy.extensions.filters.http.router.v3.Router",
     "suppress_envoy_headers !strict_check_headers !upstream_http_filters"},
    {TCP "TcpProxy",
     "stat_prefix cluster weighted_clusters access_log max_connect_attempts idle_timeout "
     "metadata_match hash_policy !tunneling_config max_downstream_connection_duration"},
    {TCP "TcpProxy.WeightedCluster", "clusters"},
    {TCP "TcpProxy.WeightedCluster.ClusterWeight", "name weight metadata_match"},

    {ROUTE "RouteConfiguration",
     "name virtual_hosts !vhds response_headers_to_add response_headers_to_remove "
     "request_headers_to_add validate_clusters request_headers_to_remove "
     "request_mirror_policies most_specific_header_mutations_wins max_direct_response_body_size_bytes "
     "ignore_port_in_host_matching !ignore_path_parameters_in_path_matching "
     "typed_per_filter_config !internal_only_headers"},
    {ROUTE "VirtualHost",
     "name domains routes require_tls request_headers_to_add response_headers_to_add "
     "response_headers_to_remove request_headers_to_remove typed_per_filter_config "
     "retry_policy include_request_attempt_count !hedge_policy !matcher "
     "include_attempt_count_in_response include_is_timeout_retry_header "
     "request_mirror_policies "
     "!retry_policy_typed_config"},
    {ROUTE "RetryPolicy",
     "retry_on num_retries per_try_timeout retry_priority retry_host_predicate "
     "retriable_status_codes retry_back_off retriable_headers retriable_request_headers "
     "!per_try_idle_timeout !retry_options_predicates"},
    {ROUTE "Route",
     "match route redirect direct_response request_headers_to_add "
     "response_headers_to_add response_headers_to_remove request_headers_to_remove "
     "typed_per_filter_config name"},
    {ROUTE "RouteMatch",
     "prefix path safe_regex connect_matcher path_separated_prefix !path_match_policy "
     "case_sensitive headers query_parameters grpc runtime_fraction tls_context "
     "!dynamic_metadata !filter_state"},
    {ROUTE "RouteMatch.TlsContextMatchOptions", "presented !validated"},
    {ROUTE "HeaderMatcher",
     "name exact_match range_match present_match prefix_match suffix_match "
     "safe_regex_match contains_match string_match invert_match "
     "treat_missing_header_as_empty"},
    {ROUTE "QueryParameterMatcher", "name string_match present_match"},
    {ROUTE "RouteAction",
     "cluster cluster_header weighted_clusters !cluster_specifier_plugin metadata_match "
     "prefix_rewrite host_rewrite_literal auto_host_rewrite priority "
     "host_rewrite_header "
     "host_rewrite_path_regex timeout request_mirror_policies retry_policy hash_policy "
     "cluster_not_found_response_code max_grpc_timeout idle_timeout upgrade_configs "
     "!hedge_policy !max_internal_redirects regex_rewrite !retry_policy_typed_config "
     "!internal_redirect_policy max_stream_duration append_x_forwarded_host "
     "!path_rewrite_policy"},
    {ROUTE "RouteAction.UpgradeConfig", "upgrade_type enabled connect_config"},
    {ROUTE "RouteAction.UpgradeConfig.ConnectConfig",
     "!proxy_protocol_config !allow_post"},
    {ROUTE "RouteAction.MaxStreamDuration",
     "max_stream_duration grpc_timeout_header_max"},
    {ROUTE "RouteAction.HashPolicy",
     "header cookie connection_properties query_parameter !filter_state terminal"},
    {ROUTE "RouteAction.HashPolicy.Header", "header_name regex_rewrite"},
    {ROUTE "RouteAction.HashPolicy.Cookie", "name ttl path attributes"},
    {ROUTE "RouteAction.HashPolicy.CookieAttribute", "name value"},
    {ROUTE "WeightedCluster", "clusters !header_name !use_hash_policy"},
    {ROUTE "WeightedCluster.ClusterWeight",
     "name weight metadata_match request_headers_to_add response_headers_to_add "
     "response_headers_to_remove request_headers_to_remove typed_per_filter_config "
     "host_rewrite_literal !cluster_header"},
    {ROUTE "RedirectAction",
     "host_redirect path_redirect prefix_rewrite regex_rewrite response_code "
     "https_redirect scheme_redirect strip_query port_redirect"},
    {ROUTE "DirectResponseAction", "status body !body_format"},
    {ROUTE "FilterConfig", "config is_optional disabled"},

    {CORE "HeaderValueOption", "header append append_action keep_empty_value"},
    {CORE "HeaderValue", "key value !raw_value"},
    {CORE "SocketAddress",
     "protocol address port_value ipv4_compat !named_port !resolver_name "
     "!network_namespace_filepath"},
    {CORE "EnvoyInternalAddress", "server_listener_name"},
    {CLUSTER "Cluster.RefreshRate", "base_interval max_interval"},
    {CORE "DnsResolutionConfig", "resolvers dns_resolver_options"},
    {CORE "DnsResolverOptions", "use_tcp_for_dns_lookups no_default_search_domain"},
    {"envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
     "resolvers dns_resolver_options use_resolvers_as_fallback"},
    {CORE "Pipe", "path"},
    {CORE "CidrRange", "address_prefix prefix_len"},
    {CORE "BindConfig", "source_address !socket_options additional_source_addresses "
                        "extra_source_addresses !local_address_selector"},
    {CORE "ExtraSourceAddress", "address !socket_options"},
    {CORE "HttpProtocolOptions",
     "idle_timeout max_headers_count max_connection_duration max_stream_duration "
     "headers_with_underscores_action max_requests_per_connection "
     "max_response_headers_kb"},
    {CORE "UpstreamHttpProtocolOptions",
     "auto_sni auto_san_validation !override_auto_sni_header"},
    {CORE "TcpKeepalive", "keepalive_probes keepalive_time keepalive_interval"},

    {TLS "Secret", "name tls_certificate validation_context session_ticket_keys"},
    {TLS "TlsCertificate",
     "certificate_chain private_key password ocsp_staple !private_key_provider !pkcs12"},
    {"envoy.extensions.transport_sockets.proxy_protocol.v3."
     "ProxyProtocolUpstreamTransport",
     "config transport_socket !tlv_as_pool_key"},
    {CORE "ProxyProtocolConfig", "version !pass_through_tlvs !added_tlvs"},
    {TLS "CommonTlsContext",
     "tls_params tls_certificates validation_context "
     "validation_context_sds_secret_config combined_validation_context "
     "!validation_context_certificate_provider_instance alpn_protocols "
     "tls_certificate_sds_secret_configs !tls_certificate_certificate_provider_instance "
     "!custom_handshaker !tls_certificate_provider_instance"},
    {TLS "CommonTlsContext.CombinedCertificateValidationContext",
     "default_validation_context validation_context_sds_secret_config "
     "!validation_context_certificate_provider_instance"},
    {TLS "CertificateValidationContext",
     "trusted_ca verify_certificate_hash verify_certificate_spki "
     "!require_signed_certificate_timestamp crl allow_expired_certificate "
     "match_subject_alt_names trust_chain_verification custom_validator_config "
     "!ca_certificate_provider_instance only_verify_leaf_cert_crl "
     "match_typed_subject_alt_names max_verify_depth !system_root_certs"},
    {TLS "SubjectAltNameMatcher", "san_type matcher oid"},
    {TLS "TlsParameters",
     "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites "
     "ecdh_curves signature_algorithms !compliance_policies"},
    {TLS "UpstreamTlsContext",
     "common_tls_context sni max_session_keys auto_host_sni auto_sni_san_validation"},
    {TLS "DownstreamTlsContext",
     "common_tls_context require_client_certificate !require_sni session_ticket_keys "
     "session_ticket_keys_sds_secret_config disable_stateless_session_resumption "
     "session_timeout ocsp_staple_policy disable_stateful_session_resumption "
     "prefer_client_ciphers"},
    {TLS "SdsSecretConfig", "name sds_config"},
    {TLS "TlsSessionTicketKeys", "keys"},
    {TLS "SPIFFECertValidatorConfig", "trust_domains !trust_bundles"},
    {TLS "SPIFFECertValidatorConfig.TrustDomain", "name trust_bundle"},
};

typedef enum { READ, REFUSED, NO_EFFECT } effect_t;

static bool is_word(hd_str_t word, const char *name, bool *refused)
{
    *refused = word.len > 0 && word.data[0] == '!';
    return hd_str_eq(hd_str_sub(word, *refused, word.len), hd_str_c(name));
}

static effect_t look_up(const entry_t *e, const char *field)
{
    hd_str_t rest = hd_str_c(e->fields), word;
    bool refused;

    while (hd_str_split(&rest, ' ', &word)) {
        if (is_word(word, field, &refused))
            return refused ? REFUSED : READ;
    }
    return NO_EFFECT;
}

static const entry_t *find_entry(const char *message)
{
    static hd_map_t *by_name; /* of the process; entries are static */

    if (by_name == NULL) {
        by_name = hd_map_create();
        for (size_t i = 0; i < hd_countof(entries); i++)
            hd_bug_on(hd_map_put(by_name, hd_str_c(entries[i].message),
                                 (void *)&entries[i]) != NULL);
    }
    return hd_map_get(by_name, hd_str_c(message));
}

typedef struct {
    hd_xds_t *x;
    hd_err_t *err;
    bool refused;
} walk_t;

static void visit(void *arg, const hd_pb_place_t *at)
{
    const entry_t *e = find_entry(at->message->descriptor->name);
    walk_t *w = arg;

    if (at->field == NULL) {
        hd_xds_note(w->x, "%s: an unknown field", at->path);
        return;
    }
    if (e == NULL || w->refused)
        return;
    switch (look_up(e, at->field->name)) {
    case READ:
        return;
    case REFUSED:
        w->refused = true;
        hd_ignore(hd_err_set(w->err, HD_E_RESOURCE, "%s isn't supported", at->path));
        return;
    case NO_EFFECT:
        hd_xds_note(w->x, "%s: no effect", at->path);
    }
}

hd_rc_t hd_xds_check_fields(hd_xds_t *x, const void *msg, hd_err_t *err)
{
    walk_t w = {.x = x, .err = err};
    hd_pb_rc_t rc = hd_pb_walk(msg, HD_XDS_MEMORY_MAX, visit, &w);

    if (rc != HD_PB_OK)
        return hd_err_set(err, HD_E_RESOURCE,
                          "what one of its Anys holds can't be "
                          "decoded");
    return w.refused ? HD_ERROR : HD_OK;
}
