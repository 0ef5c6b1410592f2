/* hd_breakers: what a cluster's circuit breakers need in shared state; by writers, while
 * they build a cluster. Who counts: core/net/hd_cluster.h. */
#pragma once
#include "core/net/hd_cluster.h"

#define HD_BREAKER_DEFAULT 1024u /* Envoy's, where nothing else is configured */
#define HD_BREAKER_RETRIES 3u

/* Gauges of the cluster's requests of priority HIGH, found or made. False: no room. */
bool hd_breakers_add_high(hd_member_t *m, const hd_slot_t *slot,
                          hd_breakers_t *high) HD_MUST_CHECK;
/* Gives a shared total to each gauge whose limit is finite, or that a retry budget reads;
 * takes it from the others. <slot> has its gauges. */
void hd_breakers_share(hd_member_t *m, const hd_slot_t *slot, const hd_cluster_t *c);
/* By the program, at its start: what a cluster has here goes with its name. */
void hd_breakers_register(void);
