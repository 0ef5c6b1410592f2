/* hd_model_int: the inside of the model, for hd_model*.c and hd_check.c. */
#pragma once
#include "control/hd_model.h"
#include "control/hd_status_list.h"
#include "core/base/hd_list.h"
#include "core/base/hd_map.h"

/* What is known of one key: the objects that claim it, and which of them is in force. */
typedef struct {
    hd_link_t of_kind; /* in hd_model_t.kinds */
    hd_link_t touched; /* in hd_model_t.touched, between put and commit */
    hd_link_t changed; /* in hd_model_t.changed, between commit and clear */
    hd_kind_t kind;
    hd_object_t *first;    /* by unit and document; each holds a reference */
    hd_object_t *in_force; /* as of the last commit; a reference */
    hd_object_t *was;      /* as of the last clear, while changed; a reference */
    uint64_t generation;
    hd_str_t key;  /* of the model's map; of this allocation */
    size_t ns_len; /* where the key's parts end */
} hd_cell_t;

typedef struct {
    hd_pool_t *pool;
    hd_str_t name;
    hd_object_t **objs;
    size_t n;
    hd_statuses_t statuses;
} hd_unit_t;

/* Objects in force, sorted by (k1, k2), then age; built when first asked for. */
typedef struct {
    hd_str_t k1, k2;
    const hd_object_t *obj;
} hd_index_entry_t;

typedef struct {
    hd_pool_t *pool; /* NULL: not built since the last commit */
    hd_index_entry_t *entries;
    const hd_object_t **objs;
    size_t n;
} hd_index_t;

struct hd_model_s {
    hd_pool_t *pool;
    hd_str_t cluster_domain, root_namespace;
    size_t objects_n, objects_max;
    hd_map_t *cells; /* key -> hd_cell_t */
    hd_map_t *units; /* name -> hd_unit_t */
    hd_link_t kinds[HD_KIND_N];
    hd_link_t touched, changed;
    bool dirty; /* something was put or removed since the last commit */
    uint64_t generation;
    void (*on_commit)(void *arg);
    void *arg;

    hd_index_t by_age[HD_KIND_N], by_ns[HD_KIND_N], slices, hosts, vs_hosts, pod_ips;
    hd_pool_t *changes_pool;
    hd_change_t *changes;
    size_t changes_n;
    hd_pool_t *statuses_pool;
    hd_statuses_t statuses;
};

/* hd_model_lookup.c: forgets the indexes of a kind's objects; of all kinds. */
void hd_model_drop_indexes(hd_model_t *model, hd_kind_t kind);
void hd_model_drop_all_indexes(hd_model_t *model);
/* hd_check.c: findings of references between objects. */
void hd_model_check(hd_model_t *model, hd_status_list_t *list);
