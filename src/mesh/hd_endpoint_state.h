/* hd_endpoint_state: what outlives versions of a cluster's endpoints: counts and passive
 * health, by cluster and address, in the state arena. */
#pragma once
#include "core/net/hd_cluster.h"

/* By a writer, while it builds endpoints under the name <cluster>: finds or makes their
 * states (state stays NULL where there is no room: those have no shared state). <shared>:
 * their counts of requests are read on the request's way (least request). What wasn't in
 * the version built before is new, and warms up. */
void hd_endpoints_attach_state(hd_member_t *m, hd_str_t cluster, hd_endpoints_t *eps,
                               bool shared);
/* By the same writer: their hd_endpoint_counts are looked at, those of endpoints that are
 * there, in force or not, and of those to come. <m> NULL: nothing. */
void hd_endpoints_count(hd_member_t *m, hd_str_t cluster);
/* By the writer <m> of <a>: the states of endpoints that are in no version any more, nor
 * counted, go. None if something is being built. It is done by itself now and then, once
 * registered at the program's start. */
void hd_endpoint_states_sweep(hd_member_t *m, hd_arena_t *a);
void hd_endpoint_state_register(void);
/* Has it as many requests (of all workers) as its max_conns allows? */
bool hd_endpoint_is_full(hd_member_t *m, const hd_endpoint_t *e);
bool hd_endpoint_is_ejected(const hd_endpoint_t *e, uint64_t now_ns);

typedef enum {
    HD_EP_HEALTHY,
    HD_EP_DEGRADED,  /* serves where too few are healthy */
    HD_EP_UNHEALTHY, /* serves in panic */
    HD_EP_DRAINING,  /* counts as unhealthy, as discovery says: not by checks */
} hd_endpoint_health_t;

/* What discovery, health checks and outlier detection say together. <*until_ns> is
 * lowered to when that may end by itself. */
hd_endpoint_health_t hd_endpoint_health(const hd_endpoint_t *e, uint64_t now_ns,
                                        uint64_t *until_ns);
/* Whoever changed what hd_endpoint_health looks at says so: workers then make their lists
 * anew. Any member, any time. */
void hd_endpoint_health_changed(const hd_endpoint_t *e);
