/* hd_model_k8s: what Kubernetes tells of services and workloads, and Istio's ServiceEntry
 * and WorkloadEntry, which say the same of what lies outside of it.
 *
 * Fields of the Kubernetes API that a mesh has no use for are checked by name and left
 * out (hd_decode_k8s.c lists them).
 */
#pragma once
#include "control/hd_model_base.h"

/* What a port speaks (PROTO-1 to PROTO-4). */
typedef enum {
    HD_PROTO_AUTO, /* by the first bytes */
    HD_PROTO_HTTP,
    HD_PROTO_HTTP2,
    HD_PROTO_GRPC,
    HD_PROTO_GRPC_WEB,
    HD_PROTO_HTTPS,
    HD_PROTO_TLS,
    HD_PROTO_TCP, /* mysql, redis and mongo too: no filter of ours */
    HD_PROTO_UDP,
    HD_PROTO_HTTP_PROXY, /* a Sidecar's egress only */
} hd_proto_t;

static inline bool hd_proto_is_http(hd_proto_t p)
{
    return p >= HD_PROTO_HTTP && p <= HD_PROTO_GRPC_WEB;
}
static inline bool hd_proto_is_http2(hd_proto_t p)
{
    return p >= HD_PROTO_HTTP2 && p <= HD_PROTO_GRPC_WEB;
}
static inline bool hd_proto_is_tls(hd_proto_t p)
{
    return p == HD_PROTO_HTTPS || p == HD_PROTO_TLS;
}

typedef struct hd_namespace_s {
    bool injects; /* label istio-injection: enabled, or istio.io/rev */
} hd_namespace_t;

typedef struct hd_k8s_node_s {
    hd_str_t region, zone, subzone; /* DR-LOC-2: of its labels; may be unset */
} hd_k8s_node_t;

typedef struct {
    hd_str_t name; /* unset where a service has one port only and gives none */
    int64_t number;
    int64_t target;       /* HD_UNSET: target_name says it */
    hd_str_t target_name; /* a container port's name */
    hd_proto_t protocol;
} hd_service_port_t;

typedef enum {
    HD_RESOLVE_STATIC,          /* endpoints by IP: a ClusterIP service, SE STATIC */
    HD_RESOLVE_NONE,            /* the original destination: headless, SE NONE (SE-10) */
    HD_RESOLVE_DNS,             /* SE-12 */
    HD_RESOLVE_DNS_ROUND_ROBIN, /* SE-13 */
    HD_RESOLVE_DYNAMIC_DNS,     /* SE-14 */
    HD_RESOLVE_ALIAS,           /* ExternalName: routes use external_name (VS-ROUTE-17) */
} hd_resolution_t;

/* WE-1 to WE-7; also a ServiceEntry's own endpoints. */
typedef struct hd_workload_entry_s {
    hd_str_t
        address; /* IP, DNS name (only with HD_RESOLVE_DNS…), "unix:///path", or unset */
    hd_labels_t ports; /* a service port's name -> decimal number */
    hd_labels_t labels;
    hd_str_t network, locality, service_account;
    int64_t weight; /* HD_UNSET: 1 */
} hd_workload_entry_t;

/* Of both a Kubernetes Service and a ServiceEntry: one thing for routes, clusters and
 * policies. obj->kind says which it is. */
typedef struct hd_mesh_service_s {
    hd_strs_t hosts; /* lower case; a Service's one FQDN, or a ServiceEntry's list */
    hd_strs_t
        addresses; /* VIPs; a ServiceEntry's may be CIDRs. Empty: headless or none */
    HD_LIST(hd_service_port_t) ports;
    hd_resolution_t resolution;
    bool external;          /* MESH_EXTERNAL (SE-4): no auto mTLS, no identity */
    bool headless;          /* clusterIP: None */
    bool publish_not_ready; /* not-ready endpoints are used too */
    bool internal_local;    /* internalTrafficPolicy: Local */
    hd_str_t external_name; /* HD_RESOLVE_ALIAS */
    hd_labels_t
        selector;        /* of pods, or a ServiceEntry's workloadSelector; may be empty */
    hd_strs_t export_to; /* empty: the mesh's default */
    /* A ServiceEntry's alone */
    HD_LIST(hd_workload_entry_t) endpoints;
    hd_strs_t subject_alt_names;
} hd_mesh_service_t;

typedef struct {
    hd_str_t name;
    int64_t number; /* HD_UNSET: all ports */
    hd_str_t app_protocol;
} hd_slice_port_t;

typedef struct {
    hd_strs_t addresses;
    bool ready;       /* a condition that isn't given counts as true (Kubernetes) */
    bool serving;     /* not given: as ready */
    bool terminating; /* not given: false */
    hd_str_t hostname, node_name, zone;
    hd_str_t target_kind, target_ns, target_name; /* the Pod behind it; may be unset */
} hd_slice_endpoint_t;

typedef struct hd_endpoint_slice_s {
    hd_str_t service; /* label kubernetes.io/service-name; same namespace */
    hd_str_t address_type;
    HD_LIST(hd_slice_port_t) ports;
    HD_LIST(hd_slice_endpoint_t) endpoints;
} hd_endpoint_slice_t;

typedef struct {
    hd_str_t name;
    int64_t number;
} hd_container_port_t;

typedef struct hd_pod_s {
    hd_str_t service_account; /* "default" where the pod names none */
    hd_str_t ip;
    hd_strs_t ips; /* the first is <ip> */
    hd_str_t node_name, host_ip, phase;
    bool ready; /* condition Ready is True */
    bool host_network;
    HD_LIST(hd_container_port_t) ports; /* of all its containers */
} hd_pod_t;
