/* hd_conf_cluster: how directives of http and stream name upstreams without knowing mesh;
 * the table is filled by src/mesh. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/net/hd_cluster.h"

typedef struct {
    /* The cluster for `proxy_pass`'s host part: an upstream {} block's name, or
     * host:port, for which a cluster of its own is built in cf->batch (names are resolved
     * by the agent). */
    hd_rc_t (*slot_for)(hd_conf_t *cf, hd_str_t host_port, uint16_t default_port,
                        bool is_stream, const hd_slot_t **slot, hd_err_t *err);
    /* The cluster of those who are told an address with each request (hd_pick_t.addrs):
     * names that variables make. */
    hd_rc_t (*any_slot)(hd_conf_t *cf, bool is_stream, const hd_slot_t **slot,
                        hd_err_t *err);
} hd_conf_cluster_t;

extern const hd_conf_cluster_t *hd_conf_cluster;
