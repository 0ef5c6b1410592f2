/* How a cluster's endpoints are chosen: lb_policy with its settings, and the typed
 * policies in their place. Defaults are Envoy's. */
#include "mesh/xds/hd_xds_int.h"
#include "mesh/hd_mesh_cluster.h"
#include "ext/lb_client_wrr.pb-c.h"
#include "ext/lb_least_request.pb-c.h"
#include "ext/lb_maglev.pb-c.h"
#include "ext/lb_peak_ewma.pb-c.h"
#include "ext/lb_random.pb-c.h"
#include "ext/lb_ring_hash.pb-c.h"
#include "ext/lb_round_robin.pb-c.h"
#include "ext/lb_wrr_locality.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define RING_MIN 1024
#define DEPTH_MAX 4 /* policies within policies */
#define ZONE_SIZE_MIN 6

typedef PbCluster__Cluster cluster_t;

typedef struct {
    hd_xds_t *x;
    hd_cluster_t *c;
    hd_mesh_cluster_t *mesh;
    hd_zones_t zones; /* as far as it is said */
} lb_t;

/* --- parts that policies share --- */

static double percent_of(const PbType__Percent *p, double unset)
{
    return p != NULL ? hd_min(hd_max(p->value, 0.0), 100.0) : unset;
}

static hd_rc_t set_slow_start(lb_t *l, const Pb__Duration *window,
                              const PbCore__RuntimeDouble *aggression,
                              const PbType__Percent *least, hd_err_t *err)
{
    hd_slow_start_t *s = &l->mesh->slow_start;

    s->aggression = aggression != NULL ? aggression->default_value : 1;
    s->min_percent = percent_of(least, 10);
    if (s->aggression <= 0)
        return hd_err_set(err, HD_E_RESOURCE, "slow start's aggression %g: above 0",
                          s->aggression);
    return hd_xds_ms(window, 0, "slow_start_window", &s->window_ms, err);
}

static hd_rc_t set_old_slow_start(lb_t *l, const PbCluster__Cluster__SlowStartConfig *m,
                                  hd_err_t *err)
{
    return m == NULL ? HD_OK
                     : set_slow_start(l, m->slow_start_window, m->aggression,
                                      m->min_weight_percent, err);
}

static hd_rc_t set_new_slow_start(lb_t *l, const PbLbCommon__SlowStartConfig *m,
                                  hd_err_t *err)
{
    return m == NULL ? HD_OK
                     : set_slow_start(l, m->slow_start_window, m->aggression,
                                      m->min_weight_percent, err);
}

static uint32_t count_of(const Pb__UInt64Value *n, uint64_t unset)
{
    return (uint32_t)hd_min(n != NULL ? n->value : unset, (uint64_t)UINT32_MAX);
}

static void set_zones(lb_t *l, const PbType__Percent *enabled,
                      const Pb__UInt64Value *min_size, bool fails_in_panic)
{
    l->zones.enabled = (uint32_t)(percent_of(enabled, 100) * 100);
    l->zones.min_size = count_of(min_size, ZONE_SIZE_MIN);
    l->mesh->fails_in_panic = fails_in_panic;
}

static void set_typed_zones(lb_t *l,
                            const PbLbCommon__LocalityLbConfig__ZoneAwareLbConfig *m)
{
    set_zones(l, m->routing_enabled, m->min_cluster_size, m->fail_traffic_on_panic);
    l->zones.by_weight =
        m->locality_basis ==
        PB_LB_COMMON__LOCALITY_LB_CONFIG__ZONE_AWARE_LB_CONFIG__LOCALITY_BASIS__HEALTHY_HOSTS_WEIGHT;
    if (m->force_local_zone != NULL)
        l->zones.force_min = hd_pb_u32(m->force_local_zone->min_size, 1);
    else if (m->force_locality_direct_routing)
        l->zones.force_min = 1;
}

static void set_locality(lb_t *l, const PbLbCommon__LocalityLbConfig *m)
{
    if (m == NULL)
        return;
    if (m->locality_config_specifier_case ==
        PB_LB_COMMON__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_LOCALITY_WEIGHTED_LB_CONFIG)
        l->mesh->locality_weighted = true;
    else if (
        m->locality_config_specifier_case ==
        PB_LB_COMMON__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_ZONE_AWARE_LB_CONFIG)
        set_typed_zones(l, m->zone_aware_lb_config);
}

/* Where we know the cluster that we belong to, all others are chosen from by zones
 * (Envoy), except by hashes and weights of localities. */
static hd_rc_t put_zones(lb_t *l, hd_err_t *err)
{
    const hd_xds_self_t *self = l->x->env->self;
    hd_lb_policy_t lb = l->c->lb;
    hd_zones_t *to;

    if (self == NULL || self->local_cluster.len == 0 || l->mesh->locality_weighted ||
        l->zones.enabled == 0 || hd_str_eq(self->local_cluster, l->c->name) ||
        (lb != HD_LB_ROUND_ROBIN && lb != HD_LB_LEAST_REQUEST && lb != HD_LB_RANDOM))
        return HD_OK;
    l->mesh->zones = to = hd_pool_new(l->x->cf.pool, hd_zones_t);
    *to = l->zones;
    to->region = hd_str_dup(l->x->cf.pool, self->region);
    to->zone = hd_str_dup(l->x->cf.pool, self->zone);
    to->subzone = hd_str_dup(l->x->cf.pool, self->subzone);
    to->local = hd_xds_slot(l->x, HD_XDS_CLUSTER, self->local_cluster, err);
    return to->local != NULL ? HD_OK : HD_ERROR;
}

static hd_rc_t set_balance(lb_t *l, const Pb__UInt32Value *percent, hd_err_t *err)
{
    l->mesh->balance_percent = hd_pb_u32(percent, 0);
    if (l->mesh->balance_percent > 0 && l->mesh->balance_percent < 100)
        return hd_err_set(err, HD_E_RESOURCE, "hash_balance_factor %u: 100 or more",
                          l->mesh->balance_percent);
    return HD_OK;
}

static hd_rc_t set_hashing(lb_t *l, const PbLbCommon__ConsistentHashingLbConfig *m,
                           hd_err_t *err)
{
    if (m == NULL)
        return HD_OK;
    l->mesh->table.by_hostname = m->use_hostname_for_hashing;
    return set_balance(l, m->hash_balance_factor, err);
}

static hd_rc_t set_least(lb_t *l, const Pb__UInt32Value *choices,
                         const PbCore__RuntimeDouble *bias, hd_err_t *err)
{
    l->c->lb = HD_LB_LEAST_REQUEST;
    l->c->lb_choices = hd_pb_u32(choices, 2);
    l->mesh->bias = bias != NULL ? bias->default_value : 1;
    if (l->c->lb_choices < 2)
        return hd_err_set(err, HD_E_RESOURCE, "choice_count %u: 2 or more",
                          l->c->lb_choices);
    return l->mesh->bias >= 0
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE, "active_request_bias %g: 0 or more",
                            l->mesh->bias);
}

static hd_rc_t set_ring(lb_t *l, const Pb__UInt64Value *min, const Pb__UInt64Value *max,
                        bool is_murmur, hd_err_t *err)
{
    uint64_t at_most = max != NULL ? max->value : HD_RING_MAX;
    uint64_t at_least = min != NULL ? min->value : hd_min(at_most, (uint64_t)RING_MIN);

    l->c->lb = HD_LB_RING_HASH;
    if (at_most == 0 || at_most > HD_RING_MAX || at_least > at_most)
        return hd_err_set(err, HD_E_RESOURCE,
                          "minimum_ring_size %llu, maximum_ring_size %llu: the one is "
                          "at most the other, which is at most %u",
                          (unsigned long long)at_least, (unsigned long long)at_most,
                          HD_RING_MAX);
    l->mesh->table.kind = is_murmur ? HD_TABLE_RING_MURMUR2 : HD_TABLE_RING_XX;
    l->mesh->table.min = (uint32_t)hd_max(at_least, (uint64_t)1);
    l->mesh->table.max = (uint32_t)at_most;
    return HD_OK;
}

static bool is_prime(uint64_t n)
{
    for (uint64_t d = 2; d * d <= n; d++) {
        if (n % d == 0)
            return false;
    }
    return n > 1;
}

static hd_rc_t set_maglev(lb_t *l, const Pb__UInt64Value *size, hd_err_t *err)
{
    uint64_t n = size != NULL ? size->value : HD_MAGLEV_DEFAULT;

    l->c->lb = HD_LB_MAGLEV;
    if (n > HD_MAGLEV_MAX || !is_prime(n) || n < 3)
        return hd_err_set(err, HD_E_RESOURCE,
                          "Maglev's table_size %llu: a prime of at most %u",
                          (unsigned long long)n, HD_MAGLEV_MAX);
    l->mesh->table.kind = HD_TABLE_MAGLEV;
    l->mesh->table.max = (uint32_t)n;
    return HD_OK;
}

/* --- lb_policy --- */

static hd_rc_t set_by_enum(lb_t *l, const cluster_t *msg, hd_err_t *err)
{
    int with = (int)msg->lb_config_case;
    const PbCluster__Cluster__LeastRequestLbConfig *least;
    const PbCluster__Cluster__RingHashLbConfig *ring;

    switch (msg->lb_policy) {
    case PB_CLUSTER__CLUSTER__LB_POLICY__ROUND_ROBIN:
        l->c->lb = HD_LB_ROUND_ROBIN;
        if (with != PB_CLUSTER__CLUSTER__LB_CONFIG_ROUND_ROBIN_LB_CONFIG)
            return HD_OK;
        return set_old_slow_start(l, msg->round_robin_lb_config->slow_start_config, err);
    case PB_CLUSTER__CLUSTER__LB_POLICY__LEAST_REQUEST:
        if (with != PB_CLUSTER__CLUSTER__LB_CONFIG_LEAST_REQUEST_LB_CONFIG)
            return set_least(l, NULL, NULL, err);
        least = msg->least_request_lb_config;
        if (set_least(l, least->choice_count, least->active_request_bias, err) != HD_OK)
            return HD_ERROR;
        return set_old_slow_start(l, least->slow_start_config, err);
    case PB_CLUSTER__CLUSTER__LB_POLICY__RANDOM:
        l->c->lb = HD_LB_RANDOM;
        return HD_OK;
    case PB_CLUSTER__CLUSTER__LB_POLICY__RING_HASH:
        if (with != PB_CLUSTER__CLUSTER__LB_CONFIG_RING_HASH_LB_CONFIG)
            return set_ring(l, NULL, NULL, false, err);
        ring = msg->ring_hash_lb_config;
        return set_ring(
            l, ring->minimum_ring_size, ring->maximum_ring_size,
            ring->hash_function ==
                PB_CLUSTER__CLUSTER__RING_HASH_LB_CONFIG__HASH_FUNCTION__MURMUR_HASH_2,
            err);
    case PB_CLUSTER__CLUSTER__LB_POLICY__MAGLEV:
        return set_maglev(l,
                          with == PB_CLUSTER__CLUSTER__LB_CONFIG_MAGLEV_LB_CONFIG
                              ? msg->maglev_lb_config->table_size
                              : NULL,
                          err);
    case PB_CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED:
        return HD_OK; /* by its type */
    default:
        return hd_err_set(err, HD_E_RESOURCE, "lb_policy %d isn't known here",
                          (int)msg->lb_policy);
    }
}

static hd_rc_t set_common(lb_t *l, const PbCluster__Cluster__CommonLbConfig *m,
                          hd_err_t *err)
{
    if (m == NULL)
        return HD_OK;
    if (m->locality_config_specifier_case ==
        PB_CLUSTER__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_LOCALITY_WEIGHTED_LB_CONFIG)
        l->mesh->locality_weighted = true;
    else if (
        m->locality_config_specifier_case ==
        PB_CLUSTER__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_ZONE_AWARE_LB_CONFIG)
        set_zones(l, m->zone_aware_lb_config->routing_enabled,
                  m->zone_aware_lb_config->min_cluster_size,
                  m->zone_aware_lb_config->fail_traffic_on_panic);
    if (m->consistent_hashing_lb_config == NULL)
        return HD_OK;
    l->mesh->table.by_hostname =
        m->consistent_hashing_lb_config->use_hostname_for_hashing;
    return set_balance(l, m->consistent_hashing_lb_config->hash_balance_factor, err);
}

/* --- subsets --- */

typedef PbCluster__Cluster__LbSubsetConfig subset_config_t;
typedef PbCluster__Cluster__LbSubsetConfig__LbSubsetSelector selector_t;

static int compare_texts(const void *a, const void *b)
{
    return hd_str_cmp(*(const hd_str_t *)a, *(const hd_str_t *)b);
}

static const hd_str_t *sort_keys(lb_t *l, char *const *keys, size_t n, uint32_t *out_n)
{
    hd_str_t *list = hd_pool_new_n(l->x->cf.pool, hd_str_t, n + 1);

    for (size_t i = 0; i < n; i++)
        list[i] = hd_xds_str(l->x, keys[i]);
    qsort(list, n, sizeof(*list), compare_texts);
    *out_n = (uint32_t)n;
    return list;
}

static bool has_keys(const hd_subset_selector_t *s, const hd_str_t *keys, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (bsearch(&keys[i], s->keys, s->keys_n, sizeof(*keys), compare_texts) == NULL)
            return false;
    }
    return true;
}

static hd_rc_t set_selector(lb_t *l, const selector_t *m, hd_subset_selector_t *to,
                            hd_err_t *err)
{
    if (m->n_keys == 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "lb_subset_config: a selector without keys");
    to->keys = sort_keys(l, (char *const *)m->keys, m->n_keys, &to->keys_n);
    to->fallback_keys = sort_keys(l, (char *const *)m->fallback_keys_subset,
                                  m->n_fallback_keys_subset, &to->fallback_keys_n);
    to->fallback = (uint8_t)m->fallback_policy; /* numbered as HD_SUBSET_FALLBACK_… */
    if (to->fallback > HD_SUBSET_FALLBACK_KEYS)
        return hd_err_set(err, HD_E_RESOURCE, "lb_subset_config: fallback_policy %u",
                          to->fallback);
    if (to->fallback == HD_SUBSET_FALLBACK_KEYS
            ? to->fallback_keys_n == 0 || to->fallback_keys_n >= to->keys_n ||
                  !has_keys(to, to->fallback_keys, to->fallback_keys_n)
            : to->fallback_keys_n > 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "lb_subset_config: fallback_keys_subset has some of the "
                          "selector's keys, and fewer; for KEYS_SUBSET alone");
    return HD_OK;
}

static hd_rc_t set_subsets(lb_t *l, const subset_config_t *m, hd_err_t *err)
{
    hd_subsets_t *s;
    hd_subset_selector_t *list;

    if (m == NULL || m->n_subset_selectors == 0)
        return HD_OK; /* Envoy: without selectors there are no subsets */
    s = hd_pool_new(l->x->cf.pool, hd_subsets_t);
    list = hd_pool_new_n(l->x->cf.pool, hd_subset_selector_t, m->n_subset_selectors);
    s->selectors = list;
    s->selectors_n = (uint32_t)m->n_subset_selectors;
    s->fallback = (uint8_t)(m->fallback_policy + 1);
    if (s->fallback > HD_SUBSET_FALLBACK_DEFAULT)
        return hd_err_set(err, HD_E_RESOURCE, "lb_subset_config: fallback_policy %d",
                          (int)m->fallback_policy);
    s->panics_to_any = m->panic_mode_any;
    s->locality_aware = m->locality_weight_aware;
    s->allows_more_keys = m->allow_redundant_keys;
    s->scales_localities = m->scale_locality_weight;
    s->has_fallback_list =
        m->metadata_fallback_policy ==
        PB_CLUSTER__CLUSTER__LB_SUBSET_CONFIG__LB_SUBSET_METADATA_FALLBACK_POLICY__FALLBACK_LIST;
    hd_xds_labels(l->x, m->default_subset, &s->default_labels, &s->default_labels_n);
    for (size_t i = 0; i < m->n_subset_selectors; i++) {
        if (set_selector(l, m->subset_selectors[i], &list[i], err) != HD_OK)
            return HD_ERROR;
    }
    l->mesh->subsets = s;
    return HD_OK;
}

/* --- typed policies --- */

/* HD_DECLINED: not known here; the next in the list counts. */
static hd_rc_t set_typed(lb_t *l, const PbCluster__LoadBalancingPolicy *msg,
                         unsigned depth, hd_err_t *err);

static hd_rc_t set_typed_round_robin(lb_t *l, const void *msg, unsigned depth,
                                     hd_err_t *err)
{
    const PbLbRoundRobin__RoundRobin *m = msg;

    (void)depth;
    l->c->lb = HD_LB_ROUND_ROBIN;
    set_locality(l, m->locality_lb_config);
    return set_new_slow_start(l, m->slow_start_config, err);
}

static hd_rc_t set_typed_least(lb_t *l, const void *msg, unsigned depth, hd_err_t *err)
{
    const PbLbLeastRequest__LeastRequest *m = msg;

    (void)depth;
    if (set_least(l, m->choice_count, m->active_request_bias, err) != HD_OK)
        return HD_ERROR;
    l->mesh->looks_at_all =
        m->selection_method ==
            PB_LB_LEAST_REQUEST__LEAST_REQUEST__SELECTION_METHOD__FULL_SCAN ||
        (m->enable_full_scan != NULL && m->enable_full_scan->value);
    set_locality(l, m->locality_lb_config);
    return set_new_slow_start(l, m->slow_start_config, err);
}

static hd_rc_t set_typed_random(lb_t *l, const void *msg, unsigned depth, hd_err_t *err)
{
    const PbLbRandom__Random *m = msg;

    (void)depth, (void)err;
    l->c->lb = HD_LB_RANDOM;
    set_locality(l, m->locality_lb_config);
    return HD_OK;
}

static hd_rc_t set_typed_ring(lb_t *l, const void *msg, unsigned depth, hd_err_t *err)
{
    const PbLbRingHash__RingHash *m = msg;

    (void)depth;
    if (set_ring(l, m->minimum_ring_size, m->maximum_ring_size,
                 m->hash_function ==
                     PB_LB_RING_HASH__RING_HASH__HASH_FUNCTION__MURMUR_HASH_2,
                 err) != HD_OK)
        return HD_ERROR;
    l->mesh->table.by_hostname = m->use_hostname_for_hashing;
    l->mesh->locality_weighted = m->locality_weighted_lb_config != NULL;
    if (set_balance(l, m->hash_balance_factor, err) != HD_OK)
        return HD_ERROR;
    return set_hashing(l, m->consistent_hashing_lb_config, err);
}

static hd_rc_t set_typed_maglev(lb_t *l, const void *msg, unsigned depth, hd_err_t *err)
{
    const PbLbMaglev__Maglev *m = msg;

    (void)depth;
    if (set_maglev(l, m->table_size, err) != HD_OK)
        return HD_ERROR;
    l->mesh->locality_weighted = m->locality_weighted_lb_config != NULL;
    return set_hashing(l, m->consistent_hashing_lb_config, err);
}

static hd_rc_t set_typed_locality(lb_t *l, const void *msg, unsigned depth, hd_err_t *err)
{
    const PbLbWrrLocality__WrrLocality *m = msg;

    if (m->endpoint_picking_policy == NULL)
        return hd_err_set(err, HD_E_RESOURCE,
                          "WrrLocality without an endpoint_picking_policy");
    l->mesh->locality_weighted = true;
    return set_typed(l, m->endpoint_picking_policy, depth + 1, err);
}

static hd_rc_t set_typed_ewma(lb_t *l, const void *msg, unsigned depth, hd_err_t *err)
{
    const PbLbPeakEwma__PeakEwma *m = msg;

    (void)depth;
    l->c->lb = HD_LB_PEAK_EWMA;
    if (hd_xds_ms(m->decay_time, 10000, "decay_time", &l->mesh->decay_ms, err) != HD_OK)
        return HD_ERROR;
    return l->mesh->decay_ms > 0
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE, "decay_time is above 0");
}

static hd_rc_t refuse_client_wrr(lb_t *l, const void *msg, unsigned depth, hd_err_t *err)
{
    (void)l, (void)msg, (void)depth;
    hd_ignore(hd_err_set(err, HD_E_RESOURCE,
                         "client_side_weighted_round_robin needs endpoints' load "
                         "reports (ORCA), which aren't read here"));
    return HD_DECLINED;
}

static hd_rc_t set_any(lb_t *l, const Pb__Any *any, unsigned depth, hd_err_t *err)
{
    static const struct {
        const ProtobufCMessageDescriptor *type;
        hd_rc_t (*set)(lb_t *l, const void *msg, unsigned depth, hd_err_t *err);
    } policies[] = {
        {HD_PB(pb_lb_round_robin__round_robin), set_typed_round_robin},
        {HD_PB(pb_lb_least_request__least_request), set_typed_least},
        {HD_PB(pb_lb_random__random), set_typed_random},
        {HD_PB(pb_lb_ring_hash__ring_hash), set_typed_ring},
        {HD_PB(pb_lb_maglev__maglev), set_typed_maglev},
        {HD_PB(pb_lb_peak_ewma__peak_ewma), set_typed_ewma},
        {HD_PB(pb_lb_wrr_locality__wrr_locality), set_typed_locality},
        {HD_PB(pb_lb_client_wrr__client_side_weighted_round_robin), refuse_client_wrr},
    };

    for (size_t i = 0; i < hd_countof(policies); i++) {
        const void *msg;

        if (!hd_pb_any_is(any, policies[i].type))
            continue;
        msg = hd_xds_unpack(l->x, any, policies[i].type, err);
        return msg != NULL ? policies[i].set(l, msg, depth, err) : HD_ERROR;
    }
    return HD_DECLINED;
}

/* The first one that is known counts. */
static hd_rc_t set_typed(lb_t *l, const PbCluster__LoadBalancingPolicy *msg,
                         unsigned depth, hd_err_t *err)
{
    hd_err_t why = {0};

    for (size_t i = 0; depth < DEPTH_MAX && i < msg->n_policies; i++) {
        const PbCore__TypedExtensionConfig *e = msg->policies[i]->typed_extension_config;
        hd_rc_t rc = HD_DECLINED;

        if (e != NULL && e->typed_config != NULL)
            rc = set_any(l, e->typed_config, depth, &why);
        if (rc == HD_ERROR)
            return hd_err_set(err, why.code, "load_balancing_policy: %s", why.text);
        if (rc == HD_OK)
            return HD_OK;
    }
    return hd_err_set(err, HD_E_RESOURCE,
                      "none of its load balancing policies is known here%s%s",
                      why.code != HD_E_NONE ? ": " : "", why.text);
}

/* In which states an endpoint goes on to serve sessions that stay with it. */
static void set_override_status(const PbCore__HealthStatusSet *msg,
                                hd_mesh_cluster_t *mesh)
{
    if (msg == NULL)
        return;
    mesh->sticky_health = 1u << 7; /* said, if only to say none */
    for (size_t i = 0; i < msg->n_statuses; i++) {
        if ((unsigned)msg->statuses[i] <= PB_CORE__HEALTH_STATUS__DEGRADED)
            mesh->sticky_health |= (uint8_t)(1u << msg->statuses[i]);
    }
}

/* What would have no effect beside a typed policy, as in Envoy. */
static hd_rc_t check_common(const cluster_t *msg, hd_err_t *err)
{
    const PbCluster__Cluster__CommonLbConfig *m = msg->common_lb_config;

    if (m != NULL && m->healthy_panic_threshold != NULL &&
        !(m->healthy_panic_threshold->value >= 0 &&
          m->healthy_panic_threshold->value <= 100))
        return hd_err_set(err, HD_E_RESOURCE, "healthy_panic_threshold %g: 0 to 100",
                          m->healthy_panic_threshold->value);
    if (msg->load_balancing_policy == NULL || m == NULL ||
        ((int)m->locality_config_specifier_case == 0 &&
         m->consistent_hashing_lb_config == NULL))
        return HD_OK;
    return hd_err_set(err, HD_E_RESOURCE,
                      "beside load_balancing_policy common_lb_config has no zones, "
                      "locality weights or hashing: the policy has them");
}

hd_rc_t hd_xds_lb(hd_xds_t *x, const cluster_t *msg, hd_cluster_t *c,
                  hd_mesh_cluster_t *mesh, hd_err_t *err)
{
    lb_t l = {.x = x,
              .c = c,
              .mesh = mesh,
              .zones = {.enabled = 10000, .min_size = ZONE_SIZE_MIN}};
    const PbCluster__Cluster__CommonLbConfig *common = msg->common_lb_config;

    c->lb_choices = 2;
    mesh->bias = 1;
    c->panic_percent = 50;
    if (check_common(msg, err) != HD_OK)
        return HD_ERROR;
    if (common != NULL) {
        c->panic_percent =
            (uint32_t)(percent_of(common->healthy_panic_threshold, 50) + 0.5);
        set_override_status(common->override_host_status, mesh);
    }
    if (msg->load_balancing_policy != NULL
            ? set_typed(&l, msg->load_balancing_policy, 0, err) != HD_OK
            : set_by_enum(&l, msg, err) != HD_OK || set_common(&l, common, err) != HD_OK)
        return HD_ERROR;
    mesh->table.by_locality = mesh->locality_weighted;
    if (put_zones(&l, err) != HD_OK)
        return HD_ERROR;
    return set_subsets(&l, msg->lb_subset_config, err);
}
