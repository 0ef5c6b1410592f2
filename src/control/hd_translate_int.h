/* hd_translate_int: what the parts of translation share: messages built in a pool, packed
 * once.
 *
 *   hd_tr_part.c      parts: what was made of which objects
 *   hd_tr_message.c   small messages that occur everywhere
 *   hd_tr_scope.c     what a proxy may see
 *   hd_tr_port.c      ports of the proxy's own workload; names of clusters
 *   hd_tr_cluster.c   services to clusters and endpoints (CDS, EDS); what it shares with
 *                     hd_tr_policy.c and hd_tr_endpoint.c is in hd_tr_cluster_int.h
 *   hd_tr_route.c     VirtualServices to routes (RDS); what it shares with
 *                     hd_tr_gateway_route.c and hd_tr_action.c is in hd_tr_route_int.h
 *   hd_tr_delegate.c  routes that another VirtualService goes on with
 *   hd_tr_listener.c  listeners of sidecars and gateways (LDS)
 *   hd_tr_tls.c       mutual TLS: modes, contexts
 *   hd_tr_rbac.c      AuthorizationPolicies to RBAC filters
 *
 * Names, orders and defaults are istiod's (istio-to-xds), so that either half can be
 * replaced.
 */
#pragma once
#include "control/hd_model_k8s.h"
#include "control/hd_model_policy.h"
#include "control/hd_model_traffic.h"
#include "control/hd_translate.h"
#include "proto/hd_pb.h"
#include "ext/hcm.pb-c.h"
#include "ext/tls.pb-c.h"
#include "xds/accesslog.pb-c.h"
#include "xds/cluster.pb-c.h"
#include "xds/core.pb-c.h"
#include "xds/endpoint.pb-c.h"
#include "xds/listener.pb-c.h"
#include "xds/rbac.pb-c.h"
#include "xds/route.pb-c.h"
#include "xds/type.pb-c.h"
#include "xds/type_matcher.pb-c.h"

#define HD_TR_IDENTITIES_MAX 64

/* One translation for one proxy. */
typedef struct {
    hd_pool_t *pool;  /* of the part being made; the view's between parts */
    hd_pb_arena_t pb; /* of packed parts */
    hd_model_t *model;
    hd_str_t trust_domain;
    const hd_proxy_t *proxy;
    hd_view_t *view;
    hd_parts_t *parts;
    hd_xres_shelf_t *shelf;
    hd_translator_stats_t *stats;
    hd_part_t *part; /* being made */
    hd_pool_t *view_pool;
    uint64_t serial;            /* of this translation */
    hd_str_t class_name;        /* what parts for several proxies see of the proxy */
    hd_str_t self_name;         /* all of it */
    hd_labels_t _labels;        /* sorted; hd_tr_labels */
    const hd_object_t *sidecar; /* the resource that says what is seen; NULL: none */
    hd_map_t *brought;          /* hosts that imported VirtualServices bring along */
    uint64_t brought_hash;
    hd_str_t labels_text;
} hd_tr_t;

/* --- parts (hd_tr_part.c): each lookup within one enters what it depends on --- */

/* A part of this name for all proxies of a class, or for this proxy alone (<is_self>).
 * False: the view has it already, from before. True: its resources are put now, until
 * hd_tr_end. The name is "LETTER/rest"; sees_all: exports don't limit it (gateways). */
bool hd_tr_begin(hd_tr_t *t, bool is_self, bool sees_all, const char *fmt, ...)
    HD_PRINTF(4, 5);
void hd_tr_end(hd_tr_t *t);
/* The proxy's labels: the part is for proxies of equal labels from here on. */
const hd_labels_t *hd_tr_labels(hd_tr_t *t);
void hd_tr_depend_kind(hd_tr_t *t, hd_kind_t kind);
void hd_tr_depend_object(hd_tr_t *t, const hd_object_t *obj);
void hd_tr_depend_port(hd_tr_t *t, int64_t port);
const hd_object_t *const *hd_tr_list(hd_tr_t *t, hd_kind_t kind, size_t *n);
const hd_object_t *const *hd_tr_list_ns(hd_tr_t *t, hd_kind_t kind, hd_str_t ns,
                                        size_t *n);
const hd_object_t *hd_tr_get(hd_tr_t *t, hd_kind_t kind, hd_str_t ns, hd_str_t name);
const hd_object_t *const *hd_tr_slices_of(hd_tr_t *t, const hd_object_t *svc, size_t *n);
const hd_object_t *hd_tr_pod_by_ip(hd_tr_t *t, hd_str_t ip);
/* As the proxy's namespace means <host>. */
const hd_object_t *hd_tr_find_service(hd_tr_t *t, hd_str_t host);
size_t hd_tr_find_rules(hd_tr_t *t, hd_str_t service_ns, hd_str_t host,
                        const hd_object_t **rules, size_t max);

/* --- what the proxy sees (hd_tr_scope.c) --- */

void hd_tr_choose_scope(hd_tr_t *t);
void hd_tr_end_scope(hd_tr_t *t);
/* The part depends on which Sidecar is chosen, and what it brings along. */
void hd_tr_depend_scope(hd_tr_t *t);
bool hd_tr_sees(hd_tr_t *t, const hd_object_t *svc); /* any of its hosts */
/* One host of a service that is exported to the proxy. */
bool hd_tr_sees_host(hd_tr_t *t, const hd_object_t *svc, hd_str_t host);
bool hd_tr_sees_vs(hd_tr_t *t, const hd_object_t *vs);
/* What no service has isn't passed through (SC-16). */
bool hd_tr_is_registry_only(const hd_tr_t *t);

/* --- messages (hd_tr_message.c) --- */

void *hd_tr_message(hd_tr_t *t, const ProtobufCMessageDescriptor *type);
/* A fresh message: HD_TR_NEW(t, PbCluster__Cluster, pb_cluster__cluster). */
#define HD_TR_NEW(t, Type, name) ((Type *)hd_tr_message(t, HD_PB(name)))
void *hd_tr_grow(hd_tr_t *t, void *items, size_t n, size_t item_bytes);
/* Appends to a repeated field. */
#define HD_TR_ADD(t, msg, field, item)                                                   \
    do {                                                                                 \
        (msg)->field =                                                                   \
            hd_tr_grow(t, (msg)->field, (msg)->n_##field, sizeof((msg)->field[0]));      \
        (msg)->field[(msg)->n_##field++] = (item);                                       \
    } while (0)
char *hd_tr_text(hd_tr_t *t, hd_str_t s);
char *hd_tr_printf(hd_tr_t *t, const char *fmt, ...) HD_PRINTF(2, 3);
Pb__Any *hd_tr_any(hd_tr_t *t, const void *msg);
Pb__BoolValue *hd_tr_bool(hd_tr_t *t, bool value);
Pb__UInt32Value *hd_tr_u32(hd_tr_t *t, int64_t value);
Pb__Duration *hd_tr_duration(hd_tr_t *t, int64_t ns);
PbType__FractionalPercent *hd_tr_ppm(hd_tr_t *t, int64_t ppm);
Pb__Struct *hd_tr_struct(hd_tr_t *t);
void hd_tr_struct_text(hd_tr_t *t, Pb__Struct *s, const char *key, const char *text);
void hd_tr_struct_value(hd_tr_t *t, Pb__Struct *s, const char *key, Pb__Value *value);
Pb__Value *hd_tr_value_struct(hd_tr_t *t, Pb__Struct *s);
Pb__Value *hd_tr_value_list(hd_tr_t *t, Pb__Value **items, size_t n);
/* <msg>'s metadata under <filter>: *metadata is made if it is NULL. */
void hd_tr_metadata(hd_tr_t *t, PbCore__Metadata **metadata, const char *filter,
                    Pb__Struct *s);
PbCore__Address *hd_tr_address(hd_tr_t *t, hd_str_t ip, int64_t port);
PbCore__ConfigSource *hd_tr_ads(hd_tr_t *t);
PbMatcher__StringMatcher *hd_tr_exact(hd_tr_t *t, const char *text);
PbMatcher__StringMatcher *hd_tr_prefix(hd_tr_t *t, const char *text);
PbMatcher__RegexMatcher *hd_tr_regex(hd_tr_t *t, const char *regex);
PbCore__TransportSocket *hd_tr_socket(hd_tr_t *t, const char *name, const void *context);
/* Packs <msg> and puts it into the view. */
void hd_tr_put(hd_tr_t *t, hd_view_kind_t kind, const char *name, const void *msg);

/* --- hd_tr_port.c --- */

/* "outbound|PORT|SUBSET|HOST" */
char *hd_tr_cluster_name(hd_tr_t *t, int64_t port, hd_str_t subset, hd_str_t host);
/* "inbound|PORT||" */
char *hd_tr_inbound_name(hd_tr_t *t, int64_t port);

/* A port that the proxy's own workload serves, by its services. */
typedef struct {
    const hd_object_t *service; /* Service or ServiceEntry */
    const hd_service_port_t *port;
    int64_t target; /* the workload's port */
} hd_tr_own_port_t;

/* Each target port once, the oldest service's first; returns how many, at most <max>. */
size_t hd_tr_own_ports(hd_tr_t *t, hd_tr_own_port_t *ports, size_t max);
/* Where a gateway listens for <port>: what the Service before it makes of that port
 * (GW-2). Within a part only if <enters>, which enters what it depends on. */
int64_t hd_tr_gateway_target(hd_tr_t *t, int64_t port, bool enters);

/* --- hd_tr_cluster.c --- */

void hd_tr_outbound_clusters(hd_tr_t *t);
/* One for each port that the proxy's own workload serves. */
void hd_tr_inbound_clusters(hd_tr_t *t);
void hd_tr_fixed_clusters(hd_tr_t *t);

/* --- hd_tr_route.c, hd_tr_gateway_route.c --- */

/* "PORT" of a sidecar, "http_proxy", "http.PORT" of a gateway. */
PbRoute__RouteConfiguration *hd_tr_sidecar_routes(hd_tr_t *t, int64_t port);
/* <target>: the port where the gateway listens. */
PbRoute__RouteConfiguration *hd_tr_gateway_routes(hd_tr_t *t, int64_t target);
/* The cluster that a VirtualService attached to a gateway's server means. */
char *hd_tr_gateway_destination(hd_tr_t *t, const hd_server_t *server,
                                const hd_destination_t *d);
/* Whether a VirtualService of <vs_ns> may serve <host> there; *narrow, the narrower of
 * the two. */
bool hd_tr_serves_host(const hd_server_t *server, hd_str_t vs_ns, hd_str_t host,
                       hd_str_t *narrow);
/* All to <cluster>; <port>: the service's, 0 for ports of no service. */
PbRoute__RouteConfiguration *hd_tr_inbound_routes(hd_tr_t *t, const char *cluster,
                                                  int64_t port);

/* --- hd_tr_delegate.c --- */

/* The VirtualService that a route of <root> goes on with; NULL: there is none. */
const hd_object_t *hd_tr_find_delegate(hd_tr_t *t, const hd_object_t *root,
                                       const hd_delegate_t *delegate);
/* <own>, a route of the delegate, within the one of the root. False: no request fits
 * both. */
bool hd_tr_merge_delegate(hd_tr_t *t, const hd_http_route_t *root,
                          const hd_http_route_t *own, hd_http_route_t *out);

/* --- hd_tr_listener.c --- */

void hd_tr_sidecar_listeners(hd_tr_t *t);
void hd_tr_gateway_listeners(hd_tr_t *t);

/* --- hd_tr_tls.c --- */

/* What PeerAuthentication says of a workload's port (PA-1 … PA-6). */
hd_mtls_mode_t hd_tr_mtls_mode(hd_tr_t *t, hd_str_t ns, const hd_labels_t *labels,
                               int64_t port);
PbCore__TransportSocket *hd_tr_downstream_mtls(hd_tr_t *t, bool is_http);
PbCore__TransportSocket *hd_tr_upstream_mtls(hd_tr_t *t, const char *sni,
                                             const hd_strs_t *identities, bool is_http2);

/* --- hd_tr_rbac.c --- */

/* The HTTP filters for the proxy's workload, in order AUDIT, DENY, ALLOW, into <hcm>. */
void hd_tr_rbac_filters(hd_tr_t *t, PbHcm__HttpConnectionManager *hcm);
/* The same for connections whose requests nobody reads, in the same order (AP-TCP-*). */
void hd_tr_network_rbac_filters(hd_tr_t *t, PbListener__FilterChain *chain);
