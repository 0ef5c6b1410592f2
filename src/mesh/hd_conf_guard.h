/* hd_conf_guard: what guards an upstream: the directives of `upstream {}` beside its
 * servers and its balancing: circuit_breaker, outlier_detection,
 * health_check. */
#pragma once
#include "core/hd_module.h"
#include "core/net/hd_cluster.h"
#include "mesh/hd_check.h"
#include "mesh/hd_outlier.h"

extern const hd_module_t hd_guard_module;

/* A health_check; in cf->temp with all it names. */
typedef struct hd_check_draft_s {
    hd_check_conf_t check;
    const hd_node_t *match; /* its block; NULL: none */
    struct hd_check_draft_s *next;
} hd_check_draft_t;

typedef struct {
    hd_breakers_t breakers[2]; /* [0] default, [1] priority HIGH; no gauges yet */
    bool has_breakers[2];
    hd_outlier_conf_t outlier;
    bool has_outlier;
    hd_check_draft_t *checks; /* in order; NULL: none */
} hd_guard_conf_t;

/* Of the upstream block being built; zeroed where it is of no block (proxy_pass to an
 * address). Added to the hash of what is published. */
uint64_t hd_guard_hash(const hd_guard_conf_t *g, uint64_t h);
/* Writes the settings into <c>, which lies in <pool>, and makes its gauges. */
hd_rc_t hd_guard_apply(hd_conf_t *cf, const hd_guard_conf_t *g, hd_slot_t *slot,
                       hd_cluster_t *c, hd_pool_t *pool, hd_err_t *err) HD_MUST_CHECK;

/* --- what its directives share --- */
/* NAME=VALUE; false: no '='. */
bool hd_guard_split(hd_str_t arg, hd_str_t *name, hd_str_t *value);
hd_rc_t hd_guard_read_number(hd_str_t name, hd_str_t value, uint32_t max, uint32_t *to,
                             hd_err_t *err) HD_MUST_CHECK;
/* Not 0, at most UINT32_MAX ms. */
hd_rc_t hd_guard_read_time(hd_str_t name, hd_str_t value, uint32_t *ms,
                           hd_err_t *err) HD_MUST_CHECK;
/* hd_conf_check.c */
hd_rc_t hd_conf_set_check(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
hd_rc_t hd_conf_apply_check(hd_conf_t *cf, const hd_guard_conf_t *g, hd_cluster_t *c,
                            hd_pool_t *pool, hd_err_t *err) HD_MUST_CHECK;
/* Of a `match` block: what a check's response must be, into <k>, in <pool>. */
hd_rc_t hd_conf_read_match(hd_conf_t *cf, const hd_node_t *match, hd_check_conf_t *k,
                           hd_pool_t *pool, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_conf_enter_match(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err);
