/* hd_model: everything the control plane knows of the mesh: typed, checked objects by
 * kind, namespace and name; lookups; and what has changed since the translation last
 * looked.
 *
 * Lives in the control process, used by its loop's thread alone. Sources
 * (hd_source_dir.h) fill it unit by unit; a unit is a file. Several units may hold an
 * object of one key: the first by unit name and document is in force, the others are
 * reported and step in when it goes.
 *
 *   decode -> hd_model_put_unit … -> hd_model_commit -> on_commit -> translation reads
 * hd_model_changes -> hd_model_clear_changes
 *
 * An object in the model never changes but for its place. What is replaced or removed
 * lives until hd_model_clear_changes, as the change's <was>; nobody keeps pointers to
 * objects beyond that, except to those that no change names.
 */
#pragma once
#include "control/hd_model_base.h"
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"

typedef enum {
    HD_KIND_NAMESPACE,
    HD_KIND_NODE,
    HD_KIND_SERVICE,
    HD_KIND_ENDPOINT_SLICE,
    HD_KIND_POD,
    HD_KIND_SERVICE_ENTRY,
    HD_KIND_WORKLOAD_ENTRY,
    HD_KIND_VIRTUAL_SERVICE,
    HD_KIND_DESTINATION_RULE,
    HD_KIND_GATEWAY,
    HD_KIND_SIDECAR,
    HD_KIND_AUTHORIZATION_POLICY,
    HD_KIND_PEER_AUTHENTICATION,
    HD_KIND_REQUEST_AUTHENTICATION,
    HD_KIND_TELEMETRY,
    HD_KIND_N,
} hd_kind_t;

const char *hd_kind_name(hd_kind_t kind);   /* "VirtualService" */
const char *hd_kind_plural(hd_kind_t kind); /* "virtualservices" */

typedef struct hd_object_s {
    hd_kind_t kind;
    hd_str_t ns; /* "" for Namespace and Node */
    hd_str_t name;
    hd_str_t api_version; /* as written */
    hd_labels_t labels, annotations;
    int64_t created_s; /* creationTimestamp, Unix time; 0 where not given: the oldest */
    hd_place_t place;
    uint64_t generation; /* the commit that brought it */
    union {              /* by kind; the struct's header is beside its name */
        const struct hd_namespace_s *namespace_;            /* hd_model_k8s.h */
        const struct hd_k8s_node_s *node;                   /* hd_model_k8s.h */
        const struct hd_mesh_service_s *service;            /* also SERVICE_ENTRY */
        const struct hd_endpoint_slice_s *slice;            /* hd_model_k8s.h */
        const struct hd_pod_s *pod;                         /* hd_model_k8s.h */
        const struct hd_workload_entry_s *workload_entry;   /* hd_model_k8s.h */
        const struct hd_virtual_service_s *virtual_service; /* hd_model_traffic.h */
        const struct hd_destination_rule_s *destination_rule;
        const struct hd_gateway_s *gateway;
        const struct hd_sidecar_s *sidecar;
        const struct hd_authz_policy_s *authz; /* hd_model_policy.h */
        const struct hd_peer_auth_s *peer_auth;
        const struct hd_request_auth_s *request_auth;
        const struct hd_telemetry_s *telemetry;
        void *spec;
    };
    uint64_t _digest; /* of its document's content: equal means unchanged */
    hd_pool_t *_pool;
    struct hd_object_s *_next_same; /* of the same key, by unit and document */
    uint32_t _refs;
    bool _marked;
} hd_object_t;

/* Only for who makes objects (decoders): an object in a pool of its own. */
hd_object_t *hd_object_create(void);
void hd_object_destroy(hd_object_t *obj);

typedef struct hd_model_s hd_model_t;

typedef struct {
    hd_str_t cluster_domain; /* "cluster.local" */
    hd_str_t root_namespace; /* "istio-system" (MC-17) */
    size_t objects_max;      /* 0: 200000 */
} hd_model_conf_t;

/* <conf> NULL or unset fields: the defaults. */
hd_model_t *hd_model_create(const hd_model_conf_t *conf);
void hd_model_destroy(hd_model_t *model);
hd_str_t hd_model_cluster_domain(const hd_model_t *model);
hd_str_t hd_model_root_namespace(const hd_model_t *model);

/* ---- for sources ---- */

typedef enum {
    HD_STATUS_ERROR,   /* what is written is not in force; the last good is, if any */
    HD_STATUS_WARNING, /* in force, but probably not what was meant */
    HD_STATUS_INFO,
} hd_severity_t;

/* One finding. Codes are those of `istioctl analyze` (IST0101) and Kiali (KIA1107) where
 * there is one, else "" (errors of form). */
typedef struct {
    hd_severity_t severity;
    hd_str_t code;
    hd_place_t place;
    hd_str_t kind, ns, name; /* the object's; empty where it couldn't be read */
    hd_str_t text;           /* without the place */
} hd_status_t;
typedef HD_LIST(hd_status_t) hd_statuses_t;

/* What stays of a unit's former objects that <objs> doesn't hold. */
typedef enum {
    HD_KEEP_NONE,
    HD_KEEP_NAMED, /* those that an error among <statuses> names: its last good version */
    HD_KEEP_ALL,   /* the unit couldn't be read whole */
} hd_keep_t;

/* Replaces what <unit> (a file's name) brings. Takes the objects, lends the array; copies
 * <statuses>. An object equal to the one it replaces changes nothing but the place.
 * Nothing is in force before hd_model_commit. HD_ERROR: objects_max would be passed;
 * nothing was changed, and the objects are destroyed. */
hd_rc_t hd_model_put_unit(hd_model_t *model, hd_str_t unit, hd_object_t **objs, size_t n,
                          const hd_statuses_t *statuses, hd_keep_t keep,
                          hd_err_t *err) HD_MUST_CHECK;
void hd_model_remove_unit(hd_model_t *model, hd_str_t unit);
/* Units in no order; start with *at = 0. */
bool hd_model_next_unit(const hd_model_t *model, size_t *at, hd_str_t *unit);

/* Makes what was put in force: one generation more if anything differs, references are
 * checked anew, on_commit is called (also if only statuses changed). */
void hd_model_commit(hd_model_t *model);
/* One callback; <arg> is the caller's. */
void hd_model_set_on_commit(hd_model_t *model, void (*on_commit)(void *arg), void *arg);

/* ---- what has changed ---- */

typedef struct {
    hd_kind_t kind;
    hd_str_t ns, name;
    uint64_t generation;    /* of its last change */
    const hd_object_t *was; /* as of the last clear; NULL: new since */
    const hd_object_t *is;  /* in force; NULL: removed */
} hd_change_t;

uint64_t hd_model_generation(const hd_model_t *model); /* 0: nothing was ever in it */
/* Each key that differs from the last clear, once, in order of kind, namespace, name.
 * Lent until the next commit or clear. */
const hd_change_t *hd_model_changes(hd_model_t *model, size_t *n);
void hd_model_clear_changes(hd_model_t *model);

/* All findings: errors first, then by place. Lent until the next commit. */
const hd_status_t *hd_model_statuses(hd_model_t *model, size_t *n);
/* "reviews.yaml:12: unknown field …"; in <pool>. */
hd_str_t hd_status_print(hd_pool_t *pool, const hd_status_t *status);

/* ---- lookups: all are lent until the next commit ---- */

/* NULL if there is none. */
const hd_object_t *hd_model_get(const hd_model_t *model, hd_kind_t kind, hd_str_t ns,
                                hd_str_t name);
/* All of a kind, oldest first, ties by name, then namespace (EXP-5). NULL for none. */
const hd_object_t *const *hd_model_list(hd_model_t *model, hd_kind_t kind, size_t *n);
/* The same within one namespace. */
const hd_object_t *const *hd_model_list_ns(hd_model_t *model, hd_kind_t kind, hd_str_t ns,
                                           size_t *n);
/* The EndpointSlices of a Service, oldest first. */
const hd_object_t *const *hd_model_slices_of(hd_model_t *model, hd_str_t ns,
                                             hd_str_t service, size_t *n);
/* The Pod with this address that isn't on the host's network; NULL if none. */
const hd_object_t *hd_model_pod_by_ip(hd_model_t *model, hd_str_t ip);
/* Services and ServiceEntries of exactly this host (a wildcard too), best first: Services
 * before ServiceEntries, then oldest. */
const hd_object_t *const *hd_model_services_of(hd_model_t *model, hd_str_t host,
                                               size_t *n);
/* The one that a client in <ns> means by <host> (FQDN): of its own namespace first, then
 * as above, of those it sees (SC-10, EXP-1); a wildcard ServiceEntry if nothing is exact.
 * NULL if none. */
const hd_object_t *hd_model_find_service(hd_model_t *model, hd_str_t host, hd_str_t ns);
/* The VirtualServices that list exactly this host (a wildcard too), oldest first. */
const hd_object_t *const *hd_model_virtual_services_of(hd_model_t *model, hd_str_t host,
                                                       size_t *n);
/* The DestinationRules that a client in <client_ns> uses for <host>, whose service lies
 * in <service_ns> (may be unset): of the first namespace that has any, those of the most
 * specific host, oldest first (DR-6, DR-7). At most <max>; returns how many. Merging
 * them and workload selectors (DR-8, DR-9) is the caller's. */
size_t hd_model_find_rules(hd_model_t *model, hd_str_t client_ns, hd_str_t service_ns,
                           hd_str_t host, const hd_object_t **rules, size_t max);
