/* hd_cluster: what an upstream is, as data, and the table by which http and stream ask
 * for an endpoint without knowing how it is chosen (src/mesh fills it). ◆
 *
 * A cluster's root names its endpoints by slot (HD_RES_ENDPOINTS). State that outlives
 * versions: gauges on the cluster's slot (HD_CG_…) and a state of each endpoint in the
 * state arena, found by cluster and address.
 */
#pragma once
#include "core/loom/hd_gauge.h"
#include "core/net/hd_sticky.h"
#include "core/net/hd_tls.h"
#include <stdatomic.h>

typedef enum {
    HD_LB_ROUND_ROBIN,
    HD_LB_LEAST_REQUEST,
    HD_LB_RANDOM,
    HD_LB_RING_HASH,
    HD_LB_MAGLEV,
    HD_LB_ORIGINAL_DST,
    HD_LB_KEY_HASH,  /* nginx's hash: remainder of a key's CRC */
    HD_LB_IP_HASH,   /* nginx's ip_hash */
    HD_LB_PEAK_EWMA, /* by response times and requests under way */
} hd_lb_policy_t;

typedef enum {
    HD_UP_HTTP1,
    HD_UP_HTTP2,
    HD_UP_SAME, /* as downstream spoke */
    HD_UP_AUTO, /* by ALPN */
    HD_UP_RAW,  /* none: bytes of a tunnel */
} hd_up_protocol_t;

/* Gauges of a cluster's slot: slot->gauges_first + … */
enum { HD_CG_CONNS, HD_CG_PENDING, HD_CG_REQUESTS, HD_CG_RETRIES, HD_CG_POOLS, HD_CG_N };

/* Limits of requests of routing priority HIGH, and their own gauges. */
typedef struct {
    hd_gauge_id_t gauges_first; /* HD_CG_N of them */
    uint32_t max[HD_CG_N];      /* by HD_CG_…; UINT32_MAX: none */
    uint32_t retry_budget_permille, retry_budget_min;
} hd_breakers_t;

typedef struct {
    hd_str_t key, value;
} hd_kv_t;

/* How active checks ask an endpoint, where not as all others. */
typedef struct {
    hd_addr_t addr;    /* AF_UNSPEC: as requests */
    uint16_t port;     /* 0: the check's, or the address's */
    bool is_unchecked; /* none are made: it counts as well */
    hd_str_t host;     /* empty: the check's */
} hd_endpoint_check_t;

/* What few endpoints have. */
typedef struct {
    hd_str_t route;        /* nginx's `route=` of sticky sessions; empty: none */
    hd_str_t workload;     /* istio's "name;namespace;canonical;revision;cluster" */
    const hd_kv_t *labels; /* envoy.lb: for subsets */
    const hd_kv_t *transport_match; /* envoy.transport_socket_match: tlsMode, tunnel */
    uint32_t labels_n, transport_match_n;
    const hd_endpoint_check_t *check; /* NULL: as all others */
} hd_endpoint_more_t;

typedef struct {
    hd_addr_t addr;
    uint32_t weight; /* at least 1 */
    /* nginx's; 0: none. slow_start: after it was given up for a while. */
    uint32_t max_conns;
    uint64_t max_fails : 20, fail_timeout_s : 17, slow_start_ms : 27;
    uint8_t
        health; /* 0 unknown, 1 healthy, 2 unhealthy, 3 draining, 4 timeout, 5 degraded */
    bool backup, down;
    uint8_t priority;
    uint16_t locality;                 /* index into localities */
    hd_str_t hostname;                 /* as configured; for logs and auto SNI/host */
    const hd_endpoint_more_t *more;    /* NULL: all of it is empty */
    struct hd_endpoint_state_s *state; /* in the state arena */
} hd_endpoint_t;

/* Never NULL. */
static inline const hd_endpoint_more_t *hd_endpoint_more(const hd_endpoint_t *e)
{
    static const hd_endpoint_more_t none;

    return e->more != NULL ? e->more : &none;
}
/* A copy, in <pool>, of what a file says of <e>; <is_sticky>: it has a route, by its
 * address if no other. NULL: nothing. */
const hd_endpoint_more_t *hd_endpoint_copy_more(hd_pool_t *pool, const hd_endpoint_t *e,
                                                bool is_sticky);

typedef struct {
    hd_str_t region, zone, subzone;
    uint32_t weight;
    uint8_t priority;
} hd_locality_t;

typedef struct {
    const hd_endpoint_t *items;
    uint32_t n;
    const hd_locality_t *localities;
    uint32_t localities_n;
    uint32_t overprovisioning_factor; /* percent; 140 */
    bool weighted_priority_health;    /* a priority's health by weights, not by numbers */
    const struct hd_table_s *tables;  /* consistent hashing's, made with it: hd_table.h */
    uint32_t tables_n;
    struct hd_endpoints_state_s *state; /* its cell in the state arena */
} hd_endpoints_t;

/* In the state arena: of all endpoints under one name. */
typedef struct hd_endpoints_state_s {
    /* Goes up with each change of one's health: lists made of the healthy ones are old.
     */
    _Atomic uint32_t health_seq;
    _Atomic uint32_t ejected_n; /* by outlier detection, over all of them */
    _Atomic uint32_t is_used;   /* something was asked of it once */
    /* Its writer's, see hd_endpoint_state.c: versions built so far; runs of states, and
     * the number of the last one; of the name; is it in a version; is it counted? */
    uint32_t versions_n, runs_n;
    struct hd_endpoint_run_s *runs;
    uint64_t name[2];
    bool is_marked, is_counted;
    /* the agent's own */
    uint32_t ejected_wrong, ejected_shown;
    uint64_t compare_at_ns;
} hd_endpoints_state_t;

/* What changes with each request, on a line of its own, where something looks at it:
 * outlier detection, or a choice by response times. */
typedef struct {
    /* outlier detection: how often it was ejected; failures in a row;
     * [requests:32][good:32] of the interval */
    _Atomic uint32_t ejections, failures_5xx, failures_gateway, failures_local;
    _Atomic uint64_t window, window_local;
    _Atomic uint64_t latency; /* hd_balance_latency.c's word */
} __attribute__((aligned(HD_CACHE_LINE))) hd_endpoint_counts_t;

/* In the state arena: shared by all workers, atomics only. Written seldom. */
typedef struct hd_endpoint_state_s {
    hd_gauge_id_t requests;       /* active requests, shared total: for least-request */
    hd_gauge_id_t conns;          /* where max_conns limits them; else HD_GAUGE_NONE */
    _Atomic uint32_t health;      /* active health checks' word: hd_checked_t */
    _Atomic uint32_t fails;       /* nginx's: failures */
    _Atomic uint64_t accessed_ns; /* when it last failed */
    _Atomic uint64_t checked_ns;  /* when it last failed or was tried again */
    _Atomic uint64_t ejected_until_ns; /* by outlier detection; 0: it isn't */
    _Atomic uint64_t warm_since_ns;    /* new, or well again, since: for slow start */
    _Atomic(hd_endpoint_counts_t *) counts; /* NULL: nobody looks at them */
    struct hd_endpoints_state_s *all;       /* of its name */
    /* Its writer's: of its address, 0: free; the version it was last built into;
     * <requests> is shared; is it in a version? */
    uint64_t key;
    uint32_t seen;
    bool has_total, is_marked;
    _Atomic uint8_t wanted; /* a worker was refused at max_conns: give an idle one up */
} hd_endpoint_state_t;

/* NULL: nobody looks at them. */
static inline hd_endpoint_counts_t *hd_endpoint_counts(const hd_endpoint_t *e)
{
    return e->state == NULL
               ? NULL
               : atomic_load_explicit(&e->state->counts, memory_order_acquire);
}

/* Which transport an endpoint gets: the first whose labels the endpoint has. */
typedef struct {
    hd_str_t name;
    const hd_kv_t *match;
    uint32_t match_n;
    const hd_tls_conf_t *tls; /* NULL: plain */
    uint8_t proxy_version;    /* of the PROXY head before all else; 0: none */
    bool is_unsupported;      /* endpoints that it fits aren't used (tunnels) */
} hd_transport_match_t;

/* What few clusters have. */
typedef struct {
    hd_str_t original_dst_header; /* HD_LB_ORIGINAL_DST: may name another; empty: none */
    uint32_t tcp_keepalive_idle_s, tcp_keepalive_interval_s, tcp_keepalive_probes;
    /* How long a request may take of one of its conns, the answer's body included
     * (Envoy's max_stream_duration); 0: as long as it likes. */
    uint32_t stream_ms;
    /* HTTP/1: so many conns for each request under way or waiting, in percent (Envoy's
     * per_upstream_preconnect_ratio); 0: they are opened when requests want them. */
    uint32_t preconnect_percent;
    uint32_t head_bytes_max; /* of a response's head, instead of the route's; 0: that */
    uint32_t fields_max;     /* of a response (Envoy's max_headers_count); 0: as many as go */
    hd_addr_t other_bind;    /* instead of <bind> for addresses of its family */
} hd_cluster_more_t;

typedef struct hd_cluster_s {
    hd_str_t name;
    hd_str_t alt_stat_name;
    const hd_slot_t *endpoints; /* HD_RES_ENDPOINTS; NULL: original destination or none */
    /* Of a file's cluster whose servers are names: the agent's HD_RES_ENDPOINTS of this
     * name, in the dynamic arena; empty: none. */
    hd_str_t resolved;
    hd_lb_policy_t lb;
    uint32_t lb_choices; /* least request: how many are compared; 2 */
    /* What is hashed when the route doesn't say (nginx's hash); NULL: nothing. */
    const struct hd_expr_s *hash_key;
    hd_up_protocol_t protocol;
    uint32_t connect_timeout_ms;
    uint32_t max_conns, max_pending, max_requests, max_retries; /* UINT32_MAX: none */
    uint32_t max_pools;
    uint32_t retry_budget_permille, retry_budget_min; /* 0: max_retries holds */
    const hd_breakers_t *high; /* of priority HIGH; NULL: counted with the others */
    uint32_t idle_timeout_ms;  /* of pooled conns; 0: none */
    uint32_t keepalive; /* idle conns a worker keeps: nginx's keepalive N; 0: none */
    uint32_t requests_per_conn;                /* 0: no limit */
    uint32_t conn_lifetime_ms;                 /* 0: none */
    uint32_t max_streams;                      /* HTTP/2; 0: the peer's */
    uint32_t h2_stream_window, h2_conn_window; /* bytes; 0: ours */
    uint32_t h2_ping_ms, h2_ping_timeout_ms;   /* PING each so often; 0: none */
    const hd_tls_conf_t *tls;                  /* when no transport match applies */
    const hd_transport_match_t *transports;
    uint32_t transports_n;
    bool auto_sni, auto_san;
    bool closes_failed; /* conns to an endpoint that active checks give up are drained */
    bool is_per_client; /* requests_per_conn is for one client's, not for a link */
    bool is_logical;    /* its one endpoint moves, and conns to where it was go on */
    uint8_t proxy_version;         /* as <tls>: PROXY protocol, 1 or 2; 0: none */
    hd_addr_t bind;                /* AF_UNSPEC: any */
    const hd_cluster_more_t *more; /* NULL: all of it is 0 */
    /* What telemetry says of the destination (metadata "istio".services[0]) */
    hd_str_t service_host, service_name, service_namespace;
    bool is_external;
    const struct hd_outlier_conf_s *outlier; /* mesh/hd_outlier.h; NULL: off */
    const struct hd_check_conf_s *check;     /* mesh/hd_check.h; NULL: none */
    const hd_sticky_t *sticky;               /* sessions stay with a server; NULL: no */
    uint32_t panic_percent; /* healthy share below which health is ignored */
    const void
        *mesh; /* what only src/mesh reads (subsets, slow start …); in the region */
} hd_cluster_t;

/* Never NULL. */
static inline const hd_cluster_more_t *hd_cluster_more(const hd_cluster_t *c)
{
    static const hd_cluster_more_t none;

    return c->more != NULL ? c->more : &none;
}

/* The address that conns to one of <family> (AF_…) come from; of AF_UNSPEC: any. */
static inline const hd_addr_t *hd_cluster_bind(const hd_cluster_t *c, int family)
{
    const hd_addr_t *other = &hd_cluster_more(c)->other_bind;

    return other->family != AF_UNSPEC && other->family == family ? other : &c->bind;
}

/* The endpoints' current version; NULL: there are none, or none are known yet. */
const hd_region_t *hd_cluster_endpoints(hd_member_t *m, const hd_cluster_t *c);
/* Who is asked is said with each request (HD_LB_ORIGINAL_DST). */
static inline bool hd_cluster_has_endpoints(const hd_cluster_t *c)
{
    return c->endpoints != NULL || c->resolved.len > 0;
}

/* A question whose answer is known: active checks. Counts nowhere. */
typedef struct {
    const hd_cluster_t *cluster; /* settings in use; not the slot's version */
    const hd_endpoint_t *endpoint;
    hd_addr_t addr;
    const hd_tls_conf_t *tls;
} hd_fixed_pick_t;

/* One try's question and answer; lives in the try. */
typedef struct hd_pick_s {
    /* asked */
    const hd_slot_t *cluster_slot;
    uint64_t hash; /* for consistent hashing; has_hash */
    bool has_hash;
    hd_str_t key;            /* hd_cluster_t.hash_key's value; NULL data: none */
    const hd_addr_t *client; /* HD_LB_IP_HASH; NULL: unknown */
    /* Labels the endpoint must have; behind each entry without a key (data NULL) others
     * that may be asked for in their place (metadata_fallback_policy). */
    const hd_kv_t *subset;
    uint32_t subset_n;
    hd_addr_t original_dst; /* HD_LB_ORIGINAL_DST */
    const hd_addr_t *addrs; /* HD_LB_ORIGINAL_DST: one of these instead; NULL: none */
    uint32_t addrs_n;
    /* hd_sticky_hash of a route, else of an address as text: the endpoint that is asked
     * if it may serve; 0: any. Strictly: else nobody. */
    uint64_t sticky;
    bool is_sticky_strict;
    const hd_addr_t
        *tried; /* endpoints of earlier tries: avoided while others are there */
    const uint8_t *tried_priorities; /* theirs; NULL: unknown */
    uint32_t tried_n;                /* the last one first */
    bool may_repeat;                 /* they aren't avoided */
    /* At each so-manieth try the priorities of all tries so far are avoided from then on
     * (Envoy's previous_priorities); 0: never. */
    uint32_t priorities_frequency;
    /* By a module: this endpoint, if the cluster has it and it may serve; AF_UNSPEC:
     * none. <wanted_only>: else none at all. Not where an earlier try went. */
    hd_addr_t wanted;
    bool wanted_only;
    uint32_t try_timeout_ms;      /* of this try, by a module; 0: as the route says */
    const hd_fixed_pick_t *fixed; /* NULL: the balancer chooses */
    bool is_high;                 /* routing priority HIGH: limits of its own */
    /* answered; pinned until release */
    const hd_region_t *cluster_region, *endpoints_region;
    const hd_cluster_t *cluster;
    const hd_endpoint_t *endpoint; /* NULL for original destination */
    hd_addr_t addr;
    const hd_tls_conf_t *tls; /* by transport match; NULL: plain */
    uint8_t proxy_version;    /* likewise: PROXY head; 0: none */
    bool counted;             /* the endpoint's requests gauge is up */
    uint8_t priority;         /* the endpoint's */
    bool was_failure; /* another server is asked because of the status it answered */
    bool is_reported;
    uint64_t picked_ns;
    /* told at release, monotonic: when the response's head came, when all was over; 0:
     * unknown */
    uint64_t head_ns, end_ns;
} hd_pick_t;

/* One limit of a cluster and the gauge it holds: HD_GAUGE_NONE: nothing is counted. Who
 * counts up keeps the gauge's id for counting down: another version may say another. */
typedef struct {
    hd_gauge_id_t gauge;
    uint32_t max;
} hd_breaker_t;
hd_breaker_t hd_cluster_breaker(const hd_slot_t *slot, const hd_cluster_t *c,
                                bool is_high, unsigned which);
/* How many retries may be under way now: a share of the requests that are active or wait
 * (retry_budget), else a number. */
uint32_t hd_cluster_retries_max(hd_member_t *m, const hd_slot_t *slot,
                                const hd_cluster_t *c, bool is_high);
/* Counts <which> up where it is limited; false: the limit is reached. *<counted>: to be
 * counted down, HD_GAUGE_NONE: nothing. */
bool hd_cluster_try_count(hd_member_t *m, const hd_slot_t *slot, const hd_cluster_t *c,
                          bool is_high, unsigned which,
                          hd_gauge_id_t *counted) HD_MUST_CHECK;

/* What was counted for a conn is counted down once it is closed for good, lingering
 * included: the peer never sees more of them than the limit says. <c> NULL: at once. */
void hd_conn_count(hd_conn_t *c, hd_member_t *m, hd_gauge_id_t counted);

typedef enum {
    HD_RESULT_OK,      /* a response, see status */
    HD_RESULT_CONNECT, /* could not connect */
    HD_RESULT_TIMEOUT,
    HD_RESULT_RESET,
    HD_RESULT_CANCELLED, /* we gave up: says nothing about the endpoint */
} hd_pick_result_t;

typedef struct {
    /* HD_OK: answered. HD_ERROR: HD_E_NO_CLUSTER (503 NC), HD_E_NO_HEALTHY (503 UH).
     * HD_AGAIN: on-demand or DNS, <wake> is posted. */
    hd_rc_t (*pick)(hd_member_t *m, hd_pick_t *p, hd_post_t *wake, hd_err_t *err);
    /* Tells the outcome (passive health) as soon as it is known, before anybody else can
     * know it: who asks for an endpoint after a client has seen the failure that ejects
     * one, in whichever worker, doesn't get that one. Only a pick's first is heard. */
    void (*report)(hd_member_t *m, hd_pick_t *p, hd_pick_result_t result,
                   unsigned status);
    /* Reports, where that wasn't done, and lets go of pins and counts. Once a pick. */
    void (*release)(hd_member_t *m, hd_pick_t *p, hd_pick_result_t result,
                    unsigned status);
    /* The transport that an endpoint's labels ask for, else the cluster's; NULL: plain.
     */
    const hd_tls_conf_t *(*tls_of)(const hd_cluster_t *c, const hd_endpoint_t *e);
    /* Healthy or degraded now: not ejected, not failing its checks, not draining. */
    bool (*may_serve)(const hd_cluster_t *c, const hd_endpoint_t *e, uint64_t now_ns);
    /* Do active checks say that it is well, or nothing yet? */
    bool (*is_well)(const hd_cluster_t *c, const hd_endpoint_t *e);
} hd_balancer_t;

/* Filled by src/mesh at process start; never NULL in a worker. */
extern const hd_balancer_t *hd_balancer;

/* What may be picked from, as it is in this turn; NULL: nothing (yet). For on_pick, which
 * chooses by <p->wanted>; hd_endpoint_load tells how many requests one has now, in all
 * workers. */
const hd_endpoints_t *hd_pick_endpoints(hd_member_t *m, const hd_pick_t *p);
uint64_t hd_endpoint_load(hd_member_t *m, const hd_endpoint_t *e);
