/* hd_model_traffic: Istio's networking kinds, as checked data. Spec ids (VS-…, DR-…,
 * GW-…, SC-…) say where each field's meaning is written.
 *
 * Hosts are resolved to FQDNs in lower case (HOST-1), gateways to NS/NAME or "mesh"
 * (HOST-6). Durations are in ns, HD_UNSET where not given; percentages in parts per
 * million (12.5 % is 125000).
 */
#pragma once
#include "control/hd_model_k8s.h"

/* ---- VirtualService ---- */

typedef struct {
    hd_str_t host;
    hd_str_t subset; /* may be unset */
    int64_t port;    /* HD_UNSET: VS-ROUTE-15 */
} hd_destination_t;

typedef struct {
    hd_labels_t set, add;
    hd_strs_t remove;
} hd_header_edits_t;

typedef struct {
    hd_header_edits_t request, response;
} hd_header_ops_t;

typedef struct {
    hd_destination_t destination;
    int64_t weight; /* HD_UNSET: 0; a single destination gets all (VS-ROUTE-16) */
    hd_header_ops_t headers;
} hd_route_dest_t;
typedef HD_LIST(hd_route_dest_t) hd_route_dests_t;

typedef struct {
    hd_str_t name;
    const hd_strmatch_t *uri, *scheme, *method, *authority; /* NULL: any */
    hd_keymatches_t headers, without_headers, query_params;
    bool ignore_uri_case;
    int64_t port; /* HD_UNSET: any */
    hd_labels_t source_labels;
    hd_str_t source_namespace;
    hd_strs_t gateways; /* resolved; empty: those of the VirtualService (VS-MATCH-12) */
    hd_str_t stat_prefix;
} hd_http_match_t;

typedef struct {
    hd_str_t uri, authority;             /* data NULL: not set */
    hd_str_t regex_match, regex_rewrite; /* uriRegexRewrite */
} hd_rewrite_t;

typedef enum {
    HD_DERIVE_NONE,
    HD_DERIVE_FROM_PROTOCOL_DEFAULT,
    HD_DERIVE_FROM_REQUEST_PORT,
} hd_derive_port_t;

typedef struct {
    hd_str_t uri, prefix_rewrite, authority, scheme; /* data NULL: not set */
    int64_t port;                                    /* HD_UNSET */
    hd_derive_port_t derive_port;
    int64_t code; /* 301 where not given */
} hd_redirect_t;

typedef struct {
    int64_t status;
    hd_str_t body; /* bytes are decoded; data NULL: none */
} hd_direct_response_t;

typedef struct {
    int64_t attempts;           /* HD_UNSET: 2; 0 disables */
    int64_t per_try_timeout_ns; /* HD_UNSET */
    hd_str_t retry_on;          /* as written, checked; unset: the default (VS-RETRY-3) */
    hd_strs_t conditions;       /* its words */
    hd_nums_t status_codes;     /* its numbers (VS-RETRY-8) */
    int64_t remote_localities;  /* 0, 1 or HD_UNSET */
    int64_t ignore_previous_hosts; /* 0, 1 or HD_UNSET (VS-RETRY-5) */
    int64_t backoff_ns;            /* HD_UNSET: 25 ms */
} hd_retries_t;

typedef struct {
    int64_t delay_ns;          /* HD_UNSET: no delay */
    int64_t delay_ppm;         /* 0 where not given (VS-FAULT-1) */
    int64_t abort_http_status; /* HD_UNSET */
    int64_t abort_grpc_status; /* HD_UNSET; a number (14 for UNAVAILABLE) */
    int64_t abort_ppm;
} hd_fault_t;

typedef struct {
    hd_destination_t destination;
    int64_t ppm; /* 1000000 where not given */
} hd_mirror_t;

typedef enum {
    HD_PREFLIGHT_UNSPECIFIED,
    HD_PREFLIGHT_FORWARD,
    HD_PREFLIGHT_IGNORE,
} hd_preflights_t;

typedef struct {
    hd_strmatches_t allow_origins; /* legacy allowOrigin is in it */
    hd_strs_t allow_methods, allow_headers, expose_headers;
    int64_t max_age_ns;
    int64_t allow_credentials; /* 0, 1 or HD_UNSET */
    hd_preflights_t unmatched_preflights;
} hd_cors_t;

typedef struct {
    hd_str_t name, ns; /* ns: the root's own where not given */
} hd_delegate_t;

/* Exactly one of route, redirect, direct_response, delegate (VS-ROUTE-14). */
typedef struct {
    hd_str_t name;
    HD_LIST(hd_http_match_t) match;
    hd_route_dests_t route;
    const hd_redirect_t *redirect;
    const hd_direct_response_t *direct_response;
    const hd_delegate_t *delegate;
    const hd_rewrite_t *rewrite;
    int64_t timeout_ns; /* HD_UNSET: none (VS-ROUTE-8) */
    const hd_retries_t *retries;
    const hd_fault_t *fault;
    HD_LIST(hd_mirror_t) mirrors; /* mirror + mirrorPercentage is the first of it */
    const hd_cors_t *cors;
    hd_header_ops_t headers;
    uint32_t line;
} hd_http_route_t;

/* Of a TLS route (VS-TLS-*: sni_hosts set) or a TCP route (VS-TCP-*). */
typedef struct {
    hd_strs_t sni_hosts, destination_subnets;
    int64_t port; /* HD_UNSET */
    hd_labels_t source_labels;
    hd_str_t source_namespace;
    hd_strs_t gateways; /* resolved */
} hd_l4_match_t;

typedef struct {
    HD_LIST(hd_l4_match_t) match;
    hd_route_dests_t route;
    uint32_t line;
} hd_l4_route_t;

typedef struct hd_virtual_service_s {
    hd_strs_t hosts;    /* resolved; empty: a delegate */
    hd_strs_t gateways; /* resolved: NS/NAME, "mesh"; {"mesh"} where not given (VS-2) */
    HD_LIST(hd_http_route_t) http;
    HD_LIST(hd_l4_route_t) tls;
    HD_LIST(hd_l4_route_t) tcp;
    hd_strs_t export_to;
} hd_virtual_service_t;

/* ---- DestinationRule ---- */

typedef enum {
    HD_DR_LB_UNSPECIFIED, /* LEAST_REQUEST (DR-LB-1) */
    HD_DR_LB_LEAST_REQUEST,
    HD_DR_LB_ROUND_ROBIN,
    HD_DR_LB_RANDOM,
    HD_DR_LB_PASSTHROUGH,
    HD_DR_LB_CONSISTENT_HASH,
} hd_dr_lb_kind_t;

typedef struct {
    hd_str_t header, cookie, query_param; /* one of these … */
    bool source_ip;                       /* … or this */
    hd_str_t cookie_path;
    int64_t cookie_ttl_ns; /* HD_UNSET: none is generated; 0: a session's (DR-LB-6) */
    hd_labels_t cookie_attributes;
    bool maglev;
    int64_t ring_size;  /* HD_UNSET: 1024 */
    int64_t table_size; /* HD_UNSET: 65537 */
} hd_hash_t;

typedef struct {
    hd_str_t from;
    HD_LIST(hd_pair_t) to; /* locality -> decimal percent */
} hd_distribute_t;

typedef struct {
    hd_str_t from, to;
} hd_failover_t;

typedef struct {
    int64_t enabled; /* 0, 1 or HD_UNSET: as if 1 */
    HD_LIST(hd_distribute_t) distribute;
    HD_LIST(hd_failover_t) failover;
    hd_strs_t failover_priority;
    int64_t min_cluster_size; /* zoneAwareLbSetting's */
} hd_locality_lb_t;

typedef struct {
    hd_dr_lb_kind_t kind;
    const hd_hash_t *hash; /* HD_DR_LB_CONSISTENT_HASH */
    const hd_locality_lb_t *locality, *zone_aware;
    int64_t warmup_ns; /* HD_UNSET: none (DR-LB-10) */
    double warmup_min_percent, warmup_aggression;
} hd_dr_lb_t;

typedef struct {
    int64_t time_ns, interval_ns, probes;
} hd_keepalive_t;

typedef enum {
    HD_H2_UPGRADE_DEFAULT,
    HD_H2_DO_NOT_UPGRADE,
    HD_H2_UPGRADE,
} hd_h2_upgrade_t;

/* DR-CP-*; 0 in a limit means its default (DR-CP-16) and is stored as HD_UNSET. */
typedef struct {
    int64_t max_connections, connect_timeout_ns, tcp_idle_timeout_ns;
    int64_t max_connection_duration_ns;
    const hd_keepalive_t *tcp_keepalive;
    int64_t max_pending_requests, max_requests, max_requests_per_connection, max_retries;
    int64_t http_idle_timeout_ns, max_concurrent_streams;
    int64_t h2_ping_interval_ns, h2_ping_timeout_ns;
    hd_h2_upgrade_t h2_upgrade;
    bool use_client_protocol;
} hd_connection_pool_t;

/* DR-OD-* */
typedef struct {
    int64_t consecutive_5xx;     /* HD_UNSET: 5; 0 disables */
    int64_t consecutive_gateway; /* HD_UNSET: off */
    int64_t consecutive_local;   /* HD_UNSET: 5, with split_local */
    bool split_local;
    int64_t interval_ns, base_ejection_ns;
    int64_t max_ejection_percent, min_health_percent;
    hd_nums_t http_error_codes;
} hd_outlier_t;

typedef enum {
    HD_CLIENT_TLS_DISABLE,
    HD_CLIENT_TLS_SIMPLE,
    HD_CLIENT_TLS_MUTUAL,
    HD_CLIENT_TLS_ISTIO_MUTUAL,
} hd_client_tls_mode_t;

/* DR-TLS-* */
typedef struct {
    hd_client_tls_mode_t mode;
    hd_str_t client_certificate, private_key, ca_certificates, ca_crl, credential_name;
    hd_strs_t subject_alt_names;
    hd_str_t sni;
    int64_t insecure_skip_verify; /* 0, 1 or HD_UNSET */
} hd_client_tls_t;

typedef struct {
    int64_t percent_ppm, min_concurrency, interval_ns;
} hd_retry_budget_t;

typedef struct {
    bool post; /* else CONNECT */
    hd_str_t host;
    int64_t port;
} hd_dr_tunnel_t;

/* Blocks override each other as wholes (DR-11, DR-12); NULL: not given. */
typedef struct {
    const hd_dr_lb_t *lb;
    const hd_connection_pool_t *pool;
    const hd_outlier_t *outlier;
    const hd_client_tls_t *tls;
    const hd_dr_tunnel_t *tunnel;
    const hd_retry_budget_t *retry_budget;
    int64_t proxy_protocol; /* 1, 2 or HD_UNSET */
} hd_traffic_blocks_t;

typedef struct {
    int64_t port;
    hd_traffic_blocks_t blocks;
} hd_port_policy_t;

typedef struct {
    hd_traffic_blocks_t blocks;
    HD_LIST(hd_port_policy_t) ports; /* portLevelSettings */
} hd_traffic_policy_t;

typedef struct {
    hd_str_t name;
    hd_labels_t labels; /* empty: all endpoints (DR-14) */
    const hd_traffic_policy_t *policy;
    uint32_t line;
} hd_subset_t;

typedef struct hd_destination_rule_s {
    hd_str_t host; /* resolved; may be a wildcard */
    const hd_traffic_policy_t *policy;
    HD_LIST(hd_subset_t) subsets;
    hd_strs_t export_to;
    hd_labels_t selector; /* workloadSelector; empty: none */
} hd_destination_rule_t;

/* ---- Gateway ---- */

typedef enum {
    HD_SERVER_TLS_PASSTHROUGH, /* the default (GW-TLS-2) */
    HD_SERVER_TLS_SIMPLE,
    HD_SERVER_TLS_MUTUAL,
    HD_SERVER_TLS_OPTIONAL_MUTUAL,
    HD_SERVER_TLS_AUTO_PASSTHROUGH,
    HD_SERVER_TLS_ISTIO_MUTUAL,
} hd_server_tls_mode_t;

typedef struct {
    bool https_redirect;
    hd_server_tls_mode_t mode;
    hd_str_t server_certificate, private_key, ca_certificates, ca_crl;
    hd_strs_t credential_names; /* credentialName, too */
    hd_str_t ca_cert_credential_name;
    hd_strs_t subject_alt_names, verify_spki, verify_hash, cipher_suites;
    hd_str_t min_version, max_version; /* "TLSV1_2" …, unset: default */
} hd_server_tls_t;

typedef struct {
    int64_t number;
    hd_str_t name;
    hd_proto_t protocol;
} hd_port_t;

typedef struct {
    hd_str_t ns;   /* "*" any, or a namespace ("." is resolved); GW-4 */
    hd_str_t host; /* lower case */
} hd_scoped_host_t;
typedef HD_LIST(hd_scoped_host_t) hd_scoped_hosts_t;

typedef struct {
    hd_port_t port;
    hd_str_t bind, name;
    hd_scoped_hosts_t hosts;
    const hd_server_tls_t *tls;
    uint32_t line;
} hd_server_t;

typedef struct hd_gateway_s {
    hd_labels_t selector; /* pods of any namespace (GW-1); empty: all */
    HD_LIST(hd_server_t) servers;
} hd_gateway_t;

/* ---- Sidecar: what is imported and the outbound mode are translated ---- */

typedef struct {
    const hd_port_t *port; /* NULL: none given */
    hd_str_t bind, capture_mode;
    hd_scoped_hosts_t hosts; /* ns "~": none; a leading "~" of ns marks an exclusion */
} hd_sidecar_egress_t;

typedef struct {
    hd_port_t port;
    hd_str_t bind, capture_mode, default_endpoint;
    const hd_connection_pool_t *pool;
    const hd_server_tls_t *tls;
} hd_sidecar_ingress_t;

typedef enum {
    HD_OUTBOUND_UNSET,
    HD_OUTBOUND_ALLOW_ANY,
    HD_OUTBOUND_REGISTRY_ONLY,
} hd_outbound_mode_t;

typedef struct hd_sidecar_s {
    hd_labels_t selector; /* empty: the whole namespace */
    HD_LIST(hd_sidecar_egress_t) egress;
    HD_LIST(hd_sidecar_ingress_t) ingress;
    const hd_connection_pool_t *inbound_pool;
    hd_outbound_mode_t outbound_mode;
    const hd_destination_t *egress_proxy;
} hd_sidecar_t;
