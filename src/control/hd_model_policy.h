/* hd_model_policy: Istio's security and telemetry kinds, as checked data (AP-…, PA-…,
 * RA-…).
 *
 * Values keep their forms ("abc", "abc*", "*abc", "*": AP-VAL-1); who translates them
 * applies them.
 */
#pragma once
#include "control/hd_model_base.h"

/* ATT-4 */
typedef struct {
    hd_str_t group, kind, name, ns;
} hd_target_ref_t;
typedef HD_LIST(hd_target_ref_t) hd_target_refs_t;

/* ---- AuthorizationPolicy ---- */

typedef enum {
    HD_AUTHZ_ALLOW,
    HD_AUTHZ_DENY,
    HD_AUTHZ_AUDIT,
    HD_AUTHZ_CUSTOM,
} hd_authz_action_t;

/* A list and its not… list (AP-EVAL-8). Both empty: not given, matches all. */
typedef struct {
    hd_strs_t is, is_not;
} hd_values_t;

typedef struct {
    hd_values_t principals, request_principals, namespaces, service_accounts, ip_blocks,
        remote_ip_blocks, trust_domains;
} hd_authz_source_t;

typedef struct {
    hd_values_t hosts, ports, methods, paths;
} hd_authz_operation_t;

typedef struct {
    hd_str_t key; /* one of AP-WHEN-* */
    hd_values_t values;
} hd_authz_condition_t;

typedef struct {
    HD_LIST(hd_authz_source_t) from;
    HD_LIST(hd_authz_operation_t) to;
    HD_LIST(hd_authz_condition_t) when;
} hd_authz_rule_t;

typedef struct hd_authz_policy_s {
    hd_labels_t selector; /* empty: the namespace, or the mesh in the root namespace */
    hd_target_refs_t targets;
    hd_authz_action_t action;
    hd_str_t provider;              /* HD_AUTHZ_CUSTOM */
    HD_LIST(hd_authz_rule_t) rules; /* ALLOW without rules denies all (AP-EVAL-3) */
    bool dry_run;                   /* annotation istio.io/dry-run (AP-DRY-1) */
} hd_authz_policy_t;

/* ---- PeerAuthentication ---- */

typedef enum {
    HD_MTLS_UNSET, /* falls through to the next level (PA-5) */
    HD_MTLS_DISABLE,
    HD_MTLS_PERMISSIVE,
    HD_MTLS_STRICT,
} hd_mtls_mode_t;

typedef struct {
    int64_t port; /* the workload's, not the service's (PA-3) */
    hd_mtls_mode_t mode;
} hd_port_mtls_t;

typedef struct hd_peer_auth_s {
    hd_labels_t selector; /* empty: namespace- or mesh-wide */
    hd_mtls_mode_t mode;
    HD_LIST(hd_port_mtls_t) ports;
} hd_peer_auth_t;

/* ---- RequestAuthentication: decoded; not yet translated ---- */

typedef struct {
    hd_str_t name, prefix;
} hd_jwt_header_t;

typedef struct {
    hd_str_t header, claim;
} hd_jwt_claim_t;

typedef struct {
    hd_str_t issuer;
    hd_strs_t audiences;
    hd_str_t jwks_uri, jwks;
    HD_LIST(hd_jwt_header_t) from_headers;
    hd_strs_t from_params, from_cookies;
    hd_str_t output_payload_to_header;
    HD_LIST(hd_jwt_claim_t) output_claims;
    bool forward_original_token;
    int64_t timeout_ns; /* HD_UNSET: 5 s */
    hd_strs_t space_delimited_claims;
} hd_jwt_rule_t;

typedef struct hd_request_auth_s {
    hd_labels_t selector;
    hd_target_refs_t targets;
    HD_LIST(hd_jwt_rule_t) rules;
} hd_request_auth_t;

/* ---- Telemetry: its top-level fields are checked by name; not yet translated ---- */

typedef struct hd_telemetry_s {
    hd_labels_t selector;
    hd_target_refs_t targets;
} hd_telemetry_t;
