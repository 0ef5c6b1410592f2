/* hd_tr_cluster_int: what the files that make clusters share. hd_tr_policy.c turns a
 * DestinationRule's blocks into a cluster's settings, hd_tr_endpoint.c gathers a
 * service's endpoints, hd_tr_cluster.c puts clusters together. */
#pragma once
#include "control/hd_translate_int.h"

/* The rule's blocks, overridden by those for the port, then by the subset's. */
typedef struct {
    const hd_dr_lb_t *lb;
    const hd_connection_pool_t *pool;
    const hd_outlier_t *outlier;
    const hd_client_tls_t *tls;
    const hd_retry_budget_t *retry_budget;
} hd_tr_policy_t;

/* <tp> NULL: nothing changes. */
void hd_tr_apply_policy(hd_tr_policy_t *p, const hd_traffic_policy_t *tp, int64_t port);
PbCluster__CircuitBreakers *hd_tr_breakers(hd_tr_t *t, const hd_tr_policy_t *p);
PbCluster__OutlierDetection *hd_tr_outlier(hd_tr_t *t, const hd_outlier_t *o);
void hd_tr_set_lb(PbCluster__Cluster *c, const hd_dr_lb_t *lb);
void hd_tr_set_http_options(hd_tr_t *t, PbCluster__Cluster *c, hd_proto_t protocol,
                            const hd_connection_pool_t *pool);
/* For a cluster of whatever destination a client meant. */
void hd_tr_set_passthrough_options(hd_tr_t *t, PbCluster__Cluster *c);
void hd_tr_set_keepalive(hd_tr_t *t, PbCluster__Cluster *c,
                         const hd_connection_pool_t *pool);

/* Endpoints being gathered, with whom they may be. */
typedef struct {
    hd_tr_t *t;
    PbEndpoint__ClusterLoadAssignment *cla;
    const hd_labels_t *subset;          /* NULL: all */
    hd_str_t ids[HD_TR_IDENTITIES_MAX]; /* identities, each once */
    uint32_t ids_n;
    bool is_ready; /* Kubernetes says so of the ones being added */
} hd_tr_endpoints_t;

/* <pod>, <node>: NULL where they aren't known. */
void hd_tr_add_endpoint(hd_tr_endpoints_t *e, hd_str_t ip, int64_t port, int64_t weight,
                        const hd_object_t *pod, const hd_k8s_node_t *node);
/* All of <svc> for <port>. */
void hd_tr_gather(hd_tr_endpoints_t *e, const hd_object_t *svc,
                  const hd_service_port_t *port);
