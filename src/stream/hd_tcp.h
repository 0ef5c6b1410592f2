/* hd_tcp: protocol "tcp": each conn to an upstream's, both ways, until both have ended.
 * Its settings are data in the listener's region, built by nginx's stream {} and by xDS's
 * tcp_proxy.
 *
 *   PICK -> CONNECT -> (PROXY header, TLS) -> TUNNEL -> end
 *     ^________| another server, while there is one that wasn't tried
 */
#pragma once
#include "core/conf/hd_expr.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_listener.h"
#include "core/net/hd_resolve.h"

typedef struct {
    const hd_slot_t *cluster;
    hd_str_t name; /* as configured, for logs */
    uint32_t weight;
    const hd_kv_t *subset;
    uint32_t subset_n;
} hd_tcp_target_t;

typedef struct hd_tcp_conf_s {
    const hd_tcp_target_t *targets;
    uint32_t targets_n, weights_total;
    const hd_expr_t *pass; /* names the cluster for each conn anew; NULL: by <targets> */
    /* Of <pass>: the cluster of hosts that are no cluster's name, and who is asked for
     * them (NULL: nobody). */
    const hd_slot_t *any;
    const hd_resolver_t *resolver;
    bool tls_by_host, sni_by_host; /* TLS: the host is the peer's name; it is sent */
    uint32_t connect_timeout_ms;   /* 0: the cluster's */
    uint32_t tries_max;            /* servers asked; 0: each one once */
    uint64_t idle_timeout_ms;      /* no byte either way; 0: none */
    bool send_proxy_protocol;      /* version 1, before anything else */
    bool hash_source_ip;
    const hd_tls_conf_t *tls; /* overrides the cluster's; NULL: as the cluster says */
    hd_str_t stat_prefix;
} hd_tcp_conf_t;

/* The number of protocol "tcp"; registers it when first asked, at process start. */
uint16_t hd_tcp_protocol(void);

/* Facts of a conn's session, within on_conn_log; false: the conn is none of ours. */
typedef struct {
    hd_str_t cluster, upstream; /* address; empty: none was reached */
    uint64_t bytes_received, bytes_sent, duration_ns;
    const char *ended_by;
    const hd_err_t *err;
    bool connected;
    const hd_cluster_t *cluster_conf; /* in this turn */
    const hd_endpoint_t *endpoint;
} hd_tcp_info_t;
bool hd_tcp_get_info(const hd_conn_t *c, hd_tcp_info_t *info);

size_t hd_tcp_sessions(void); /* open in this process */
