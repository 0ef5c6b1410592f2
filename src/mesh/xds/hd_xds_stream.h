/* hd_xds_stream: the aggregated stream to a control plane (ADS over gRPC): subscriptions,
 * answers, ACK and NACK, delta or state of the world (xds-transport.md). In the agent.
 *
 *   CLOSED --back-off--> OPENING --first answer--> OPEN --end--> CLOSED
 *
 * Losing the stream never removes anything.
 */
#pragma once
#include "mesh/xds/hd_xds_ca.h"
#include "mesh/xds/hd_xds_peer.h"
#include "mesh/xds/hd_xds_store.h"

typedef struct hd_xstream_s hd_xstream_t;

/* <conf> and <ca> must outlive the stream. With a CA it is asked for roots, too, and <ca>
 * is told of these; NULL: none. Starts at once. */
hd_xstream_t *hd_xstream_create(hd_proc_t *p, hd_xstore_t *store,
                                const hd_xds_conf_t *conf, hd_xca_t *ca, hd_pool_t *pool);
void hd_xstream_destroy(hd_xstream_t *x);
/* What is needed of <kind> has changed (hd_xstore_user_t). */
void hd_xstream_needs_changed(hd_xstream_t *x, hd_xds_kind_t kind);

typedef struct {
    bool is_open;
    uint64_t streams, ended, answers, acks, nacks;
    hd_str_t last_end; /* why the last stream ended; lent */
    uint64_t nacks_by_kind[HD_XDS_KINDS_N];
    bool is_answered[HD_XDS_KINDS_N]; /* since the process began */
    bool is_asked[HD_XDS_KINDS_N];    /* on the stream there is */
} hd_xstream_stats_t;
void hd_xstream_get_stats(const hd_xstream_t *x, hd_xstream_stats_t *stats);
