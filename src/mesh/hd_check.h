/* hd_check: active health checks: the agent alone asks each endpoint, all workers read
 * the result in the endpoint's shared state.
 *
 *   none -> (first answer) -> healthy <-> unhealthy
 *
 * The first answer decides at once; after it so many in a row change the state. An answer
 * of HTTP or gRPC that isn't as expected, of a status that isn't retriable, is a failure
 * that needs no others (Envoy; a file's are all retriable). Of
 * several checks each has states of its own, and all must be well (as in nginx).
 */
#pragma once
#include "core/loom/hd_match.h"
#include "core/net/hd_cluster.h"

/* hd_endpoint_state_t.health: two bits a check of its cluster, the first one's lowest */
typedef enum { HD_CHECK_NONE, HD_CHECK_HEALTHY, HD_CHECK_UNHEALTHY } hd_checked_t;
#define HD_CHECKS_MAX 16

typedef enum { HD_CHECK_HTTP, HD_CHECK_GRPC, HD_CHECK_TCP } hd_check_kind_t;

typedef struct {
    uint32_t from, to; /* both included */
} hd_status_range_t;

/* A field that a response must have, or must not. */
typedef struct {
    hd_str_t name;
    hd_match_t value; /* HD_MATCH_ANY: it is there; inverted: there is none that fits */
} hd_check_field_t;

/* Data in the cluster's region; times in ms. */
typedef struct hd_check_conf_s {
    hd_check_kind_t kind;
    uint32_t interval_ms, timeout_ms, jitter_ms, jitter_percent, initial_jitter_ms;
    uint32_t no_traffic_ms; /* instead of <interval_ms> while nobody asked the cluster */
    uint32_t no_traffic_healthy_ms; /* for those that are well */
    uint32_t unhealthy_ms, unhealthy_edge_ms, healthy_edge_ms; /* in these states */
    uint32_t unhealthy_threshold, healthy_threshold;
    uint16_t port;    /* 0: the endpoint's */
    bool reuse;       /* one connection for all checks */
    bool starts_down; /* not used before the first good answer */
    bool no_wait;     /* nor does anything wait for that (wait_for_warm_on_init) */
    bool is_h2;
    bool log_failures, log_successes; /* all of them, not only changes */
    /* HTTP, gRPC */
    hd_str_t method, path;
    hd_str_t host; /* empty: the endpoint's name, or the cluster's */
    /* Instead of the endpoint's, where a transport is chosen by labels; NULL: those */
    const hd_kv_t *transport_match;
    uint32_t transport_match_n;
    const hd_kv_t *headers;
    uint32_t headers_n;
    const hd_status_range_t *expected, *retriable;
    uint32_t expected_n, retriable_n;
    bool is_unexpected; /* <expected> lists statuses that fail */
    const hd_check_field_t *fields;
    uint32_t fields_n;
    const hd_match_t *body; /* of HTTP's body, or of what TCP answers; NULL: any */
    hd_str_t service;       /* gRPC's */
    /* TCP: <send> first; HTTP, TCP: what must come, in this order */
    hd_str_t send;
    const hd_str_t *receive;
    uint32_t receive_n;
    /* When checks came to a cluster that had none (monotonic; 0: with it): who was there
     * before serves until its first answer, <starts_down> or not. */
    uint64_t since_ns;
    const struct hd_check_conf_s *next; /* another check of the cluster; NULL: the last */
} hd_check_conf_t;

/* May <e> serve, as far as active checks of <c> say? */
bool hd_check_may_serve(const hd_cluster_t *c, const hd_endpoint_t *e);

/* --- by the agent --- */
struct hd_proc_s;
/* Clusters or endpoints may have changed: checks begin and end. */
void hd_check_refresh(struct hd_proc_s *p);
/* Of all clusters in force: who doesn't serve before its first answer has got one. */
bool hd_checks_are_warm(struct hd_proc_s *p);
void hd_check_stop(struct hd_proc_s *p);
