/* hd_endpoint_state: what outlives versions of a cluster's endpoints: counts and passive
 * health, one cell an endpoint, keyed by cluster and address, in the state arena. */
#pragma once
#include "core/net/hd_cluster.h"

/* By a writer, while it builds endpoints: finds or makes the cell of <e> (state stays
 * NULL when there is no room: the endpoint then has no shared state). <shared>: its count
 * of requests is read on the request's way (least request). */
void hd_endpoint_attach_state(hd_member_t *m, hd_str_t cluster, hd_endpoint_t *e,
                              bool shared);
/* By its writer, when the endpoint is in no version any more. */
void hd_endpoint_drop_state(hd_member_t *m, hd_str_t cluster, const hd_addr_t *addr);
/* Has it as many requests (of all workers) as its max_conns allows? */
bool hd_endpoint_is_full(hd_member_t *m, const hd_endpoint_t *e);
bool hd_endpoint_is_ejected(const hd_endpoint_t *e, uint64_t now_ns);
/* Counts a request's outcome; may eject. */
void hd_endpoint_report(const hd_cluster_t *c, const hd_endpoint_t *e,
                        hd_pick_result_t result, unsigned status, uint64_t now_ns);
