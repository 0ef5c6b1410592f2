/* What the decoders share. A function builds its part in x->cf.pool (the region), works
 * in x->env->temp, and says why it refuses in <err>; the caller puts the place in front.
 */
#pragma once
#include "core/hd_module.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_listener.h"
#include "http/hd_http_conf.h"
#include "mesh/hd_mesh_cluster.h"
#include "mesh/xds/hd_xds.h"
#include "proto/hd_pb.h"
#include "proto/hd_pb_value.h"
#include "stream/hd_tcp.h"
#include "ext/hcm.pb-c.h"
#include "ext/tls.pb-c.h"
#include "xds/accesslog.pb-c.h"
#include "xds/cluster.pb-c.h"
#include "xds/core.pb-c.h"
#include "xds/endpoint.pb-c.h"
#include "xds/listener.pb-c.h"
#include "xds/route.pb-c.h"
#include "xds/type_matcher.pb-c.h"

/* One resource being built. */
typedef struct {
    hd_conf_t cf; /* what modules get: pool, temp, region, batch, arena, member, build */
    const hd_xds_env_t *env;
    hd_xds_built_t *out;
    hd_pb_arena_t pb;         /* of decoded messages */
    hd_node_t node;           /* the place, for hd_conf_place */
    const hd_dns_conf_t *dns; /* how names of the cluster being built are resolved */
    bool must_exist;          /* validate_clusters of the routes being built */
    const PbRoute__RouteConfiguration *routes; /* those */
    uint32_t answer_bytes_max;
    hd_table_spec_t table; /* of the cluster being built, for its inline endpoints */
    bool reads_load;       /* likewise: their requests are counted in totals */
} hd_xds_t;

/* A choice of endpoints by the policy looks at how many requests each has. */
bool hd_xds_reads_load(hd_lb_policy_t lb);
/* As hd_xds_want_table, which comes first: with totals of their requests. */
void hd_xds_want_load(hd_str_t endpoints);

/* --- hd_xds_build.c --- */
/* Adds to the notes, once each. */
void hd_xds_note(hd_xds_t *x, const char *fmt, ...) HD_PRINTF(2, 3);
/* The slot of another resource. */
const hd_slot_t *hd_xds_slot(hd_xds_t *x, hd_xds_kind_t kind, hd_str_t name,
                             hd_err_t *err);
/* The same, and the resource is not warm before it is there. <source> tells how long that
 * is waited for and who has it; it may be NULL. */
const hd_slot_t *hd_xds_need(hd_xds_t *x, hd_xds_kind_t kind, hd_str_t name,
                             const PbCore__ConfigSource *source, hd_err_t *err);
/* The slot of a cluster that requests or connections are led to. */
const hd_slot_t *hd_xds_led_to(hd_xds_t *x, hd_str_t name, hd_err_t *err);
/* What <any> holds, as <type>; NULL: <err>. */
void *hd_xds_unpack(hd_xds_t *x, const Pb__Any *any,
                    const ProtobufCMessageDescriptor *type, hd_err_t *err);

/* --- hd_xds_fields.c --- */
/* Holds every field that is set in <msg>, and in what its Anys hold, against the tables
 * of what has an effect here. HD_ERROR: one of them must not be ignored. */
hd_rc_t hd_xds_check_fields(hd_xds_t *x, const void *msg, hd_err_t *err) HD_MUST_CHECK;

/* --- hd_xds_value.c --- */
hd_str_t hd_xds_str(hd_xds_t *x, const char *s); /* copied to the region */
/* Milliseconds, at most UINT32_MAX; negative ones are refused. */
hd_rc_t hd_xds_ms(const Pb__Duration *d, uint32_t unset, const char *what, uint32_t *ms,
                  hd_err_t *err) HD_MUST_CHECK;
/* connection_keepalive: how often PING is sent, and how long its answer may take. */
void hd_xds_ping(const PbCore__KeepaliveSettings *msg, uint32_t *interval_ms,
                 uint32_t *timeout_ms);
hd_rc_t hd_xds_ms64(const Pb__Duration *d, uint64_t unset, const char *what, uint64_t *ms,
                    hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_match(hd_xds_t *x, const PbMatcher__StringMatcher *msg, hd_match_t *match,
                     hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_regex(hd_xds_t *x, const PbMatcher__RegexMatcher *msg, hd_match_t *match,
                     hd_err_t *err) HD_MUST_CHECK;
/* Pattern (which may match a part) and substitution. */
hd_rc_t hd_xds_rewrite(hd_xds_t *x, const PbMatcher__RegexMatchAndSubstitute *msg,
                       hd_match_t *match, hd_str_t *subst, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_socket_addr(const PbCore__SocketAddress *msg, hd_addr_t *addr,
                           hd_err_t *err) HD_MUST_CHECK;
/* An IP address or a path. */
hd_rc_t hd_xds_addr(hd_xds_t *x, const PbCore__Address *msg, hd_addr_t *addr,
                    hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_cidrs(hd_xds_t *x, PbCore__CidrRange *const *msgs, size_t n,
                     const hd_cidr_t **cidrs, uint32_t *cidrs_n,
                     hd_err_t *err) HD_MUST_CHECK;
/* Text inline or in the environment; files only for what isn't secret of others. */
hd_rc_t hd_xds_data(hd_xds_t *x, const PbCore__DataSource *msg, hd_str_t *text,
                    hd_err_t *err) HD_MUST_CHECK;
const Pb__Struct *hd_xds_metadata(const PbCore__Metadata *msg, const char *filter);
/* Members that are strings, numbers or booleans, as text; of a list each, under the one
 * key. */
void hd_xds_labels(hd_xds_t *x, const Pb__Struct *s, const hd_kv_t **kv, uint32_t *n);
/* What a route asks of endpoints' labels (hd_pick_t.subset): those of <first>, then of
 * <second> whose keys <first> hasn't; with the lists of "fallback_list" behind them. Each
 * may be NULL. */
hd_rc_t hd_xds_wanted_labels(hd_xds_t *x, const PbCore__Metadata *first,
                             const PbCore__Metadata *second, const hd_kv_t **kv,
                             uint32_t *n, hd_err_t *err) HD_MUST_CHECK;

/* --- hd_xds_format.c --- */
/* Envoy's "text %OPERATOR(argument)%" as an expression. */
hd_rc_t hd_xds_format(hd_xds_t *x, hd_str_t text, hd_expr_t **expr,
                      hd_err_t *err) HD_MUST_CHECK;
/* Removals first, then the others, as Envoy evaluates them. */
hd_rc_t hd_xds_header_ops(hd_xds_t *x, PbCore__HeaderValueOption *const *add,
                          size_t add_n, const char *const *remove, size_t remove_n,
                          const hd_header_op_conf_t **ops, uint32_t *ops_n,
                          hd_err_t *err) HD_MUST_CHECK;

/* --- hd_xds_ext.c --- */
typedef enum {
    HD_XDS_EXT_HTTP,     /* HTTP filter */
    HD_XDS_EXT_ROUTE,    /* its settings on a route */
    HD_XDS_EXT_NETWORK,  /* network filter, upstream network filter */
    HD_XDS_EXT_LOG,      /* access logger of HTTP */
    HD_XDS_EXT_CONN_LOG, /* access logger of TCP */
} hd_xds_ext_t;

/* An extension's module and settings. HD_OK; HD_DECLINED: known and without effect here
 * (noted); HD_ERROR: refused. <optional>: an unknown one is noted rather than refused. */
hd_rc_t hd_xds_extension(hd_xds_t *x, hd_xds_ext_t kind, const Pb__Any *any,
                         bool optional, uint16_t *module, const void **conf,
                         hd_err_t *err) HD_MUST_CHECK;
/* By URL and bytes, where the message stands in the open (RetryPolicy, AccessLog). */
hd_rc_t hd_xds_extension_of(hd_xds_t *x, hd_xds_ext_t kind, hd_str_t url, hd_str_t bytes,
                            bool optional, uint16_t *module, const void **conf,
                            hd_err_t *err) HD_MUST_CHECK;
/* Does a module have that type? */
uint16_t hd_xds_module_of(hd_str_t url, bool is_network, const hd_xds_type_t **type);
/* "type.googleapis.com/X" of "anything/X". */
hd_str_t hd_xds_plain_url(hd_xds_t *x, const char *url);
hd_rc_t hd_xds_http_logs(hd_xds_t *x, PbAccesslog__AccessLog *const *msgs, size_t n,
                         const hd_filter_conf_t **logs, uint32_t *logs_n,
                         hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_conn_logs(hd_xds_t *x, PbAccesslog__AccessLog *const *msgs, size_t n,
                         const hd_net_filter_t **logs, uint32_t *logs_n,
                         hd_err_t *err) HD_MUST_CHECK;
#define HD_XDS_RETRY_URL "type.googleapis.com/envoy.config.route.v3.RetryPolicy"
#define HD_XDS_LOG_URL "type.googleapis.com/envoy.config.accesslog.v3.AccessLog"

/* --- hd_xds_tls.c --- */
/* A transport socket; NULL *tls: plain. HD_DECLINED: one that we don't have but know
 * (internal_upstream). */
/* *proxy: the version of the PROXY head that goes before; 0: none. */
hd_rc_t hd_xds_upstream_tls(hd_xds_t *x, const PbCore__TransportSocket *msg,
                            uint8_t *proxy, const hd_tls_conf_t **tls,
                            hd_err_t *err) HD_MUST_CHECK;
uint64_t hd_xds_secret_hash(const hd_secret_t *texts);
/* What a validation context trusts (roots, lists, domains), lent or in env->temp; nothing
 * there: HD_DECLINED. */
hd_rc_t hd_xds_trust_texts(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                           hd_secret_t *texts, hd_err_t *err) HD_MUST_CHECK;
/* What it asks of peers beside that, in x->cf.pool; NULL: nothing. */
hd_rc_t hd_xds_checks(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                      const hd_tls_checks_t **checks, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_cert_texts(hd_xds_t *x, const PbTls__TlsCertificate *msg,
                          hd_secret_t *texts, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_ticket_keys(hd_xds_t *x, const PbTls__TlsSessionTicketKeys *msg,
                           hd_secret_t *texts, hd_err_t *err) HD_MUST_CHECK;
/* <is_http>: what the chain serves; then other Heddles may multiplex over mutual TLS. */
hd_rc_t hd_xds_downstream_tls(hd_xds_t *x, const PbCore__TransportSocket *msg,
                              bool is_http, const hd_tls_conf_t **tls,
                              hd_err_t *err) HD_MUST_CHECK;

/* --- the decoders; *root is in x->cf.pool --- */
hd_rc_t hd_xds_cluster(hd_xds_t *x, const PbCluster__Cluster *msg, const void **root,
                       hd_err_t *err) HD_MUST_CHECK;
/* hd_xds_dns.c: how the cluster's names are resolved, in env->temp. */
hd_rc_t hd_xds_dns(hd_xds_t *x, const PbCluster__Cluster *msg, const hd_dns_conf_t **dns,
                   hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_endpoints(hd_xds_t *x, const PbEndpoint__ClusterLoadAssignment *msg,
                         const void **root, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_listener(hd_xds_t *x, const PbListener__Listener *msg, const void **root,
                        hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_secret(hd_xds_t *x, const PbTls__Secret *msg, const void **root,
                      hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_routes(hd_xds_t *x, const PbRoute__RouteConfiguration *msg,
                      const void **root, hd_err_t *err) HD_MUST_CHECK;

/* --- parts of them --- */
/* A cluster's own load_assignment (may be NULL), as the resource <name> beside it. */
hd_rc_t hd_xds_inline_endpoints(hd_xds_t *x, const PbEndpoint__ClusterLoadAssignment *msg,
                                hd_str_t name, bool resolves, const hd_slot_t **slot,
                                hd_err_t *err) HD_MUST_CHECK;
/* hd_xds_lb.c: c->lb, lb_choices, panic_percent, and most of <mesh>. */
hd_rc_t hd_xds_lb(hd_xds_t *x, const PbCluster__Cluster *msg, hd_cluster_t *c,
                  hd_mesh_cluster_t *mesh, hd_err_t *err) HD_MUST_CHECK;
/* hd_xds_endpoints.c: endpoints of that name come with such a table from now on (kind
 * NONE: without). Kept in this process: a cluster is built before its endpoints come. */
/* A route of priority HIGH leads to <cluster>: it has limits for it, Envoy's defaults if
 * it says none. They cost gauges, so clusters that nobody asks so have none. */
void hd_xds_want_high(hd_str_t cluster);
void hd_xds_want_table(hd_str_t endpoints, const hd_table_spec_t *spec);
/* hd_xds_check.c: active health checks */
hd_rc_t hd_xds_health_check(hd_xds_t *x, const PbCluster__Cluster *msg, hd_cluster_t *c,
                            hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_hcm(hd_xds_t *x, const PbHcm__HttpConnectionManager *msg,
                   const hd_http_conf_t **conf, hd_err_t *err) HD_MUST_CHECK;
/* Sets protocol_conf, and adds its access loggers to the chain's filters. */
hd_rc_t hd_xds_tcp_proxy(hd_xds_t *x, const Pb__Any *any, hd_filter_chain_t *chain,
                         hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_xds_add_conn_logs(hd_xds_t *x, PbAccesslog__AccessLog *const *msgs, size_t n,
                             hd_filter_chain_t *chain, hd_err_t *err) HD_MUST_CHECK;
/* hd_xds_udp.c: the same for udp_proxy. */
hd_rc_t hd_xds_udp_proxy(hd_xds_t *x, const Pb__Any *any, hd_filter_chain_t *chain,
                         hd_err_t *err) HD_MUST_CHECK;
/* hd_xds_route_match.c */
hd_rc_t hd_xds_route_match(hd_xds_t *x, const PbRoute__RouteMatch *msg,
                           hd_route_match_t *match, hd_err_t *err) HD_MUST_CHECK;
/* hd_xds_route_action.c: <defaults> are the virtual host's. */
hd_rc_t hd_xds_route_action(hd_xds_t *x, const PbRoute__Route *msg,
                            const PbRoute__VirtualHost *vhost,
                            const hd_route_match_t *match, hd_route_t *route,
                            hd_err_t *err) HD_MUST_CHECK;
/* A map of settings by filter name, and a retry policy (or NULL) as one more. */
typedef PbRoute__VirtualHost__TypedPerFilterConfigEntry hd_xds_override_t;
hd_rc_t hd_xds_overrides(hd_xds_t *x, hd_xds_override_t *const *msgs, size_t n,
                         const PbRoute__RetryPolicy *retry,
                         const hd_filter_conf_t **filters, uint32_t *filters_n,
                         hd_err_t *err) HD_MUST_CHECK;
