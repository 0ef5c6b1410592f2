/* hd_xds_node: who we are to a control plane: JSON to envoy.config.core.v3.Node. */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

typedef struct {
    /* over what the JSON says; empty: not given */
    hd_str_t id, cluster, locality; /* "region/zone/subzone" */
    hd_str_t json;         /* {"id", "cluster", "metadata", "locality"}; empty: none */
    const hd_str_t *extra; /* further metadata: name, value, name, value … */
    uint32_t extra_n;      /* of both together */
} hd_xds_node_t;

typedef struct {
    hd_str_t bytes; /* the encoded Node */
    hd_str_t id, namespace_, service_account, cluster_id;
    hd_str_t region, zone, subzone; /* all empty: not known */
} hd_xds_node_out_t;

/* Into <pool>. The error says which member is wrong. */
hd_rc_t hd_xds_node_build(const hd_xds_node_t *node, hd_pool_t *pool,
                          hd_xds_node_out_t *out, hd_err_t *err) HD_MUST_CHECK;
