/* hd_tcp: protocol "tcp": each conn to an upstream's, both ways, until both have ended.
 * Its settings are data in the listener's region, built by nginx's stream {} and by xDS's
 * tcp_proxy.
 *
 *   PICK -> CONNECT -> (PROXY header, TLS) -> TUNNEL -> end
 *     ^________| another server, while there is one that wasn't tried
 */
#pragma once
#include "core/conf/hd_value_map.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_listener.h"
#include "core/net/hd_resolve.h"

#define HD_TCP_RATE_MAX (UINT64_C(1) << 40)

typedef struct {
    const hd_slot_t *cluster;
    hd_str_t name; /* as configured, for logs */
    uint32_t weight;
    const hd_kv_t *subset;
    uint32_t subset_n;
} hd_tcp_target_t;

/* What UDP has besides (nginx's proxy_requests, proxy_responses). */
typedef struct {
    uint64_t requests;  /* of one session; 0: no limit */
    uint64_t responses; /* expected for each of them, where has_responses */
    bool has_responses;
    uint32_t sessions_max; /* of a worker; 0: no limit */
} hd_udp_conf_t;

/* `set $name value`. */
typedef struct {
    hd_attr_t attr;
    const hd_expr_t *value;
} hd_tcp_set_t;

typedef struct hd_tcp_conf_s {
    const hd_tcp_target_t *targets;
    uint32_t targets_n, weights_total;
    const hd_expr_t *pass; /* names the cluster for each conn anew; NULL: by <targets> */
    /* Of <pass>: the cluster of hosts that are no cluster's name, and who is asked for
     * them (NULL: nobody). */
    const hd_slot_t *any;
    const hd_resolver_t *resolver;
    bool tls_by_host, sni_by_host; /* TLS: the host is the peer's name; it is sent */
    const hd_expr_t *tls_name;     /* or what this says is; NULL: it doesn't */
    uint32_t connect_timeout_ms;   /* 0: the cluster's */
    uint32_t tries_max;            /* servers asked; 0: each one once */
    uint64_t tries_time_ms;        /* no further one is asked after it; 0: no limit */
    uint64_t idle_timeout_ms;      /* no byte either way; 0: none */
    uint64_t lifetime_ms;          /* of the client's connection; 0: no limit */
    const hd_expr_t *upload_rate, *download_rate; /* sizes a second; NULL: no limit */
    const hd_expr_t *bind; /* where conns come from; NULL: as the cluster says */
    bool transparent;      /* it may be no address of this machine */
    uint8_t proxy_version; /* of the PROXY head before anything else; 0: the cluster's */
    bool ends_together;    /* one side's end is the other's (nginx), else half-close */
    bool hash_source_ip, keepalive, no_nodelay;
    bool has_hash; /* <hash>, the same for all */
    uint64_t hash;
    const hd_tls_conf_t *tls; /* overrides the cluster's; NULL: as the cluster says */
    hd_str_t stat_prefix;
    hd_udp_conf_t udp;
    const hd_tcp_set_t *sets; /* in order, before all else */
    uint32_t sets_n;
    const hd_expr_t *answer; /* `return`: what the client gets; NULL: it is proxied */
    const hd_value_maps_t *maps;
    const hd_region_t *region;              /* of the maps' regexes */
    const struct hd_log_place_s *error_log; /* NULL: the program's */
} hd_tcp_conf_t;

/* The number of protocol "tcp"; registers it when first asked, at process start. */
uint16_t hd_tcp_protocol(void);

size_t hd_tcp_sessions(void); /* open in this process, UDP's too */
/* Ends those whose server isn't well any more, where its cluster says so
 * (close_connections_on_host_health_failure). After a change of health or a batch. */
void hd_tcp_refresh(void);

/* For hd_session.c: the session of a conn of this protocol, and its upstream's conn. */
struct hd_session_s;
struct hd_session_s *hd_tcp_session_of(const hd_conn_t *c);
const hd_conn_t *hd_tcp_upstream_of(const struct hd_session_s *s);
