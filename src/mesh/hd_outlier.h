/* hd_outlier: passive health: an endpoint that fails is left alone for a while. Two ways
 * of judging share what is counted, one truth for all workers:
 *   - Envoy's outlier detection (DR-OD-…): failures in a row eject at once; success rates
 *     and failure percentages are compared once an interval, by the agent.
 *   - nginx's max_fails and fail_timeout: so many failures within the time; afterwards
 * one request goes there to try.
 *
 * An ejection is one swap of the endpoint's word (0: in; else until when it is out), and
 * holds one of the places that max_ejection_percent allows, taken before it and given
 * back by whoever ends it. It ends in effect when its time is over, without anybody's
 * help; the place is given back by the agent's sweep, or by the next who needs one.
 *
 * Elsewhere: who asks (hd_balance), active checks (hd_health).
 */
#pragma once
#include "core/net/hd_cluster.h"

/* All times in ms, shares in percent. Defaults are Envoy's. */
typedef struct hd_outlier_conf_s {
    uint32_t consecutive_5xx, consecutive_gateway, consecutive_local; /* 0: off */
    uint32_t interval_ms, base_ejection_ms, max_ejection_ms, jitter_ms;
    uint32_t success_rate_hosts, success_rate_requests, success_rate_stdev; /* ‰ */
    uint32_t failure_percent, failure_hosts, failure_requests;
    uint8_t max_percent;
    uint8_t enforce_5xx, enforce_gateway, enforce_local;
    uint8_t enforce_success_rate, enforce_local_success_rate;
    uint8_t enforce_failure, enforce_local_failure;
    bool split;      /* failures to connect and time-outs are judged by themselves */
    bool always_one; /* one may be ejected whatever max_percent says */
    bool uneject_by_check; /* a good active check ends an ejection */
} hd_outlier_conf_t;

typedef enum {
    HD_OUTLIER_5XX,
    HD_OUTLIER_GATEWAY,
    HD_OUTLIER_LOCAL,
    HD_OUTLIER_SUCCESS_RATE,
    HD_OUTLIER_LOCAL_SUCCESS_RATE,
    HD_OUTLIER_FAILURE_PERCENTAGE,
    HD_OUTLIER_LOCAL_FAILURE_PERCENTAGE,
    HD_OUTLIER_KINDS_N,
} hd_outlier_kind_t;

hd_outlier_conf_t hd_outlier_defaults(void);
/* How the kinds are called in logs and metrics. */
const char *hd_outlier_name(hd_outlier_kind_t kind);

/* May <e> get requests, as far as passive health says? If not, <*until_ns> is lowered to
 * when it may again. */
bool hd_outlier_may_serve(const hd_endpoint_t *e, uint64_t now_ns, uint64_t *until_ns);
/* It was chosen: false if it is on trial after its fail_timeout, and another worker's
 * request tries it already. */
bool hd_outlier_try_begin(const hd_endpoint_t *e, uint64_t now_ns);
/* How a request there ended; may eject. <was_failure>: another server is asked because of
 * the status (proxy_next_upstream). */
void hd_outlier_report(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                       const hd_endpoint_t *e, hd_pick_result_t result, unsigned status,
                       bool was_failure, uint64_t now_ns);
/* A good active check ends an ejection, if the cluster says so. */
void hd_outlier_checked(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                        const hd_endpoint_t *e);

/* --- by the agent --- */
/* What is due at <now_ns>: ended ejections are taken back, rates compared once an
 * interval, counts of ejections corrected that a dead worker left wrong. */
void hd_outlier_sweep(hd_member_t *m, const hd_cluster_t *c, const hd_endpoints_t *eps,
                      uint64_t now_ns);
