/* hd_mesh_cluster: what only src/mesh reads of a cluster (hd_cluster_t.mesh): how its
 * endpoints are chosen, beyond the policy's name. */
#pragma once
#include "mesh/hd_table.h"

/* New endpoints begin with a part of their share (Envoy's SlowStartConfig). */
typedef struct {
    uint32_t window_ms; /* 0: none */
    double aggression;  /* 1: linear */
    double min_percent; /* of the weight, at least; 10 */
} hd_slow_start_t;

/* Where a request goes whose labels lead to nobody. */
typedef enum {
    HD_SUBSET_FALLBACK_UNSET, /* of a selector: as the cluster says */
    HD_SUBSET_FALLBACK_NONE,
    HD_SUBSET_FALLBACK_ANY,
    HD_SUBSET_FALLBACK_DEFAULT,
    HD_SUBSET_FALLBACK_KEYS, /* of a selector: with fewer of its keys */
} hd_subset_fallback_t;

/* Requests with just these keys go to the endpoints that have their values. */
typedef struct {
    const hd_str_t *keys, *fallback_keys; /* sorted */
    uint32_t keys_n, fallback_keys_n;
    uint8_t fallback; /* hd_subset_fallback_t */
} hd_subset_selector_t;

typedef struct {
    const hd_subset_selector_t *selectors;
    uint32_t selectors_n;
    uint8_t fallback;
    bool panics_to_any, locality_aware, allows_more_keys;
    bool scales_localities; /* their weights, by how many of theirs are in the subset */
    bool has_fallback_list; /* a request's labels may come with others to try */
    const hd_kv_t *default_labels;
    uint32_t default_labels_n;
} hd_subsets_t;

/* Zone-aware routing: where we are, and how much of the traffic follows. */
typedef struct {
    hd_str_t region, zone, subzone; /* ours */
    const hd_slot_t *local;         /* the cluster that we belong to */
    uint32_t enabled;               /* of 10,000 requests */
    uint32_t min_size;              /* fewer healthy endpoints: as if there were no zones */
    uint32_t force_min; /* so many healthy ones in our zone get all; 0: by shares */
    bool by_weight;     /* endpoints count by their weights */
} hd_zones_t;

typedef struct {
    uint16_t
        port_override; /* HD_LB_ORIGINAL_DST: instead of the destination's; 0: none */
    /* nginx's ways: a priority serves while it has anybody, weights count for random,
     * least_conn looks at all */
    bool is_nginx;
    bool looks_at_all;        /* least request: FULL_SCAN */
    double bias;              /* least request: how much load counts against weight; 1 */
    uint32_t decay_ms;        /* peak EWMA: how long a time counts; not 0 there */
    bool by_last_byte;        /* peak EWMA: until the end, else until the head */
    bool by_connect;          /* or, of stream, until it is connected */
    hd_table_spec_t table;    /* of consistent hashing */
    uint32_t balance_percent; /* hash_balance_factor: of the average load; 0: no bound */
    bool locality_weighted;
    bool fails_in_panic;
    uint8_t sticky_health; /* bits by hd_endpoint_t.health that hd_pick_t.sticky may lead
                              to; 0: all but unhealthy, draining, timeout */
    hd_slow_start_t slow_start;
    const hd_zones_t *zones;     /* NULL: requests don't care where they go */
    const hd_subsets_t *subsets; /* NULL: labels of requests don't count */
} hd_mesh_cluster_t;
