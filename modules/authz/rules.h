/* rules: policies with one action between them, as data in the region being built. */
#pragma once
#include "cond.h"
#include "xds/rbac.pb-c.h"

typedef enum { RULES_ALLOW, RULES_DENY, RULES_LOG } rules_action_t;

typedef struct {
    hd_str_t name;
    const char *details; /* "rbac_access_denied_matched_policy[NAME]" */
    cond_t cond;
} policy_t;

typedef struct {
    rules_action_t action;
    uint32_t policies_n;
    const policy_t *policies; /* the first that matches is the effective one */
} rules_t;

/* All zero: nothing is asked here. */
typedef struct {
    const rules_t *rules[2]; /* enforced in this order; NULL: none */
    const rules_t *shadow;   /* counted only */
    hd_str_t shadow_prefix;  /* before the policy's name in counts */
    const hd_region_t *region;
} authz_conf_t;

/* One policy; name and details are made here. */
void policy_init(hd_pool_t *pool, policy_t *p, hd_str_t name, cond_t cond);

/* `authz …`: one policy more in <conf>, or none. */
hd_rc_t authz_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);

/* envoy.config.rbac.v3.RBAC; NULL message: NULL. What decides about access and isn't
 * understood is refused, never skipped. */
hd_rc_t rules_read(hd_conf_t *cf, const PbRbac__RBAC *msg, const rules_t **rules,
                   hd_err_t *err) HD_MUST_CHECK;
