/* metrics: settings and labels of Istio's standard metrics (METRIC-1 to METRIC-17,
 * MLABEL-1 to MLABEL-25). */
#pragma once
#include "workload.h"

enum {
    L_REPORTER,
    L_SOURCE_WORKLOAD,
    L_SOURCE_CANONICAL_SERVICE,
    L_SOURCE_CANONICAL_REVISION,
    L_SOURCE_WORKLOAD_NAMESPACE,
    L_SOURCE_PRINCIPAL,
    L_SOURCE_APP,
    L_SOURCE_VERSION,
    L_SOURCE_CLUSTER,
    L_DESTINATION_WORKLOAD,
    L_DESTINATION_WORKLOAD_NAMESPACE,
    L_DESTINATION_PRINCIPAL,
    L_DESTINATION_APP,
    L_DESTINATION_VERSION,
    L_DESTINATION_SERVICE,
    L_DESTINATION_CANONICAL_SERVICE,
    L_DESTINATION_CANONICAL_REVISION,
    L_DESTINATION_SERVICE_NAME,
    L_DESTINATION_SERVICE_NAMESPACE,
    L_DESTINATION_CLUSTER,
    L_REQUEST_PROTOCOL,
    L_RESPONSE_FLAGS,
    L_CONNECTION_SECURITY_POLICY,
    L_TCP_N, /* TCP has the ones above */
    L_RESPONSE_CODE = L_TCP_N,
    L_GRPC_RESPONSE_STATUS,
    L_HTTP_N,
};

typedef enum {
    M_REQUESTS,
    M_DURATION,
    M_REQUEST_BYTES,
    M_RESPONSE_BYTES,
    M_HTTP_N,
    M_TCP_OPENED = M_HTTP_N,
    M_TCP_CLOSED,
    M_TCP_SENT,
    M_TCP_RECEIVED,
    M_N,
} metric_t;

typedef enum {
    SIDE_BY_LISTENER, /* inbound ones report as destination, others as source */
    SIDE_SOURCE,
    SIDE_DESTINATION,
} side_t;

/* All zero: not used here. */
typedef struct {
    bool is_on;     /* counts */
    bool exchanges; /* tells peers who we are, and reads who they are */
    bool is_filter; /* by xDS: the filter says for which side it exchanges … */
    bool asks_downstream, asks_upstream, tells_downstream, tells_upstream; /* … here */
    bool skips_external;
    bool no_host_fallback; /* MLABEL-19 */
    uint8_t side;          /* side_t */
    uint32_t report_ms;    /* of sessions that go on; 0: only at the end */
    uint16_t dropped;      /* metrics, 1 << metric_t */
    uint32_t removed[M_N]; /* labels, 1 << L_… */
    uint32_t stamp;        /* of all above */
    /* at the main level: who we are; not set: as xDS's node says */
    bool is_named;
    workload_names_t self;
    hd_str_t self_host, self_id;
} metrics_conf_t;

/* Directives and xDS types; see metrics.c. */
hd_rc_t metrics_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
hd_rc_t metrics_set_workload(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err);
hd_rc_t metrics_build_stats(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                            hd_err_t *err);
hd_rc_t metrics_build_exchange(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                               hd_err_t *err);

/* Of stream. */
void metrics_on_session(hd_conn_t *c, const void *conf, hd_session_event_t event);

/* Who we are; made once and when it changes. */
typedef struct {
    workload_names_t names;
    hd_str_t host; /* of our own service, for requests that reach us; may be empty */
    hd_str_t header, id; /* as told to peers; empty: nothing is known */
} metrics_self_t;
const metrics_self_t *metrics_self(hd_member_t *m);

/* A label set is filled from these; NULL or empty: unknown. */
typedef struct {
    bool is_source; /* which side reports */
    const metrics_self_t *self;
    const workload_names_t *peer; /* the other side */
    hd_str_t source_principal, destination_principal;
    const hd_cluster_t *cluster;
    hd_str_t cluster_name;
    hd_str_t host; /* as asked for, where it may stand for the service; empty: not */
} metrics_facts_t;
void metrics_fill(const metrics_facts_t *f, hd_str_t *values);

extern const hd_family_t metrics_families[M_N];
/* The series of <values> for <metric>, with the labels that <conf> removes left empty. */
hd_series_t metrics_enter(hd_member_t *m, const metrics_conf_t *conf, metric_t metric,
                          const hd_str_t *values);

extern const hd_module_t hd_module;
