/* hd_conf_guard: what guards an upstream: the directives of `upstream {}` beside its
 * servers and its balancing: circuit_breaker, outlier_detection. */
#pragma once
#include "core/hd_module.h"
#include "core/net/hd_cluster.h"
#include "mesh/hd_outlier.h"

extern const hd_module_t hd_guard_module;

typedef struct {
    hd_breakers_t breakers[2]; /* [0] default, [1] priority HIGH; no gauges yet */
    bool has_breakers[2];
    hd_outlier_conf_t outlier;
    uint32_t min_health; /* percent, of outlier_detection */
    bool has_outlier;
} hd_guard_conf_t;

/* Of the upstream block being built; zeroed where it is of no block (proxy_pass to an
 * address). Added to the hash of what is published. */
uint64_t hd_guard_hash(const hd_guard_conf_t *g, uint64_t h);
/* Writes the settings into <c>, which lies in <pool>, and makes its gauges. */
hd_rc_t hd_guard_apply(hd_conf_t *cf, const hd_guard_conf_t *g, hd_slot_t *slot,
                       hd_cluster_t *c, hd_pool_t *pool, hd_err_t *err) HD_MUST_CHECK;
