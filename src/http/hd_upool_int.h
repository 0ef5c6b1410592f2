/* hd_upool_int: pools of upstream conns, a file a noun. A worker has one pool for each
 * key and, for what is limited by cluster (idle conns), a list of a cluster's idle conns,
 * oldest first.
 *
 *   connecting -> ready (room for an exchange) <-> busy -> closed
 *
 *   hd_upool.c          requests: those that wait get conns, in their order
 *   hd_upool_table.c    from key to pool; pools whose key is no longer current
 *   hd_upool_conn.c     a pooled conn: ready, busy, idle, closed
 *   hd_upool_connect.c  conns that are being opened
 *   hd_upool_limits.c   how many conns and pools there may be, over all workers
 *
 * What ends a conn or gives one out may call back into the pool's users: a pool goes in a
 * post alone (hd_upool_destroy_if_unused), never below a caller that stands in it. */
#pragma once
#include "http/hd_upool.h"

typedef struct hd_upool_cluster_s {
    hd_link_t link;
    const hd_slot_t *slot;
    bool is_high;
    hd_link_t idle; /* hd_pooled_t.idle_link, oldest first */
    uint32_t idle_n, pools_n, waits_n;
    hd_breaker_t conns, pending, pools;
    hd_gauge_id_t requests;
    uint64_t asked_ns, hold_off_ns;
    uint32_t conns_n; /* open or being opened here */
    hd_loop_t *loop;
    hd_member_t *m;
    hd_timer_t look; /* set while there are idle conns under a finite max_conns */
} hd_upool_cluster_t;

typedef struct {
    uint32_t idle_timeout_ms, keepalive, requests_per_conn, conn_lifetime_ms, max_streams;
    uint32_t preconnect_percent;
    bool is_per_client; /* hd_cluster_t's */
    uint64_t version;   /* of the cluster they are from */
} hd_upool_limits_t;

typedef struct hd_upool_s {
    hd_upool_key_t key; /* strings are its own */
    uint64_t hash;
    struct hd_upool_s *next; /* in its bucket */
    hd_upool_cluster_t *cluster;
    hd_loop_t *loop;
    hd_member_t *m;
    hd_link_t ready, busy, connecting;
    hd_link_t waits;
    uint32_t conns_n, connecting_n, idle_n, waits_n;
    hd_upool_limits_t limits;
    hd_endpoint_state_t *endpoint; /* where max_conns is its own; NULL: it isn't */
    uint32_t endpoint_max;
    uint32_t peer_streams; /* that a conn may carry, as the peer said last; 0: nothing */
    hd_gauge_id_t counted; /* among the cluster's pools */
    const hd_slot_t *secret; /* whose version is in the key; NULL: none */
    bool multiplexes;        /* a conn carries many: hoped, or as conns have shown */
    bool is_draining, is_serving;
    hd_post_t serve;
    hd_timer_t starved;
} hd_upool_t;

typedef struct {
    hd_upconn_t u;
    hd_link_t idle_link;
    hd_member_t *m;
    hd_gauge_id_t conns[2]; /* counted there: cluster's, endpoint's */
    uint64_t idle_since_ns;
    bool is_idle, is_open;
} hd_pooled_t;

extern _Thread_local struct hd_upool_table_s {
    struct hd_upool_s **buckets;
    size_t room, n, conns_n;
    hd_link_t clusters;
} hd_upool_table;

/* --- hd_upool.c --- */
/* Those that wait get what is ready, in their order; conns are opened for the rest. The
 * pool may be gone afterwards. */
void hd_upool_serve(hd_upool_t *p);
/* An attempt failed: HTTP/1, the one that waits longest, unless others are being opened
 * for all that wait; HTTP/2, all whom this conn would have served. */
void hd_upool_fail_waits(hd_upool_t *p, const hd_err_t *err);
void hd_upool_on_starved(hd_timer_t *t); /* for the pool's timer: at max_conns */

/* --- hd_upool_table.c --- */
uint64_t hd_upool_hash(const hd_upool_key_t *k);
/* One that takes requests; NULL: there is none. <hash>: of <key>. */
hd_upool_t *hd_upool_find(const hd_upool_key_t *key, uint64_t hash);
/* The key's strings are copied. It stays until hd_upool_destroy_if_unused. */
hd_upool_t *hd_upool_create(hd_loop_t *loop, hd_member_t *m, const hd_upool_key_t *key,
                            uint64_t hash);
/* Once nothing is left in it; in a post, since its callers may still stand in it. */
void hd_upool_destroy_if_unused(hd_upool_t *p);
/* The secret whose version is in the key, held; NULL: none. */
void hd_upool_set_secret(hd_upool_t *p, const hd_slot_t *slot);
/* It serves no new request; its conns end with what they carry. */
void hd_upool_drain(hd_upool_t *p);

/* --- hd_upool_conn.c --- */
void hd_pooled_close(hd_pooled_t *uc);
void hd_pooled_unlist_idle(hd_pooled_t *uc); /* it is in use; nothing if it wasn't idle */
void hd_pooled_uncount(void *uc);            /* its gauges go down, once */
/* For how long it has idled; <uc> idles. */
uint32_t hd_pooled_idle_ms(const hd_upool_t *p, const hd_pooled_t *uc);
/* It has served as much or as long as it may. */
bool hd_pooled_is_worn(const hd_upool_t *p, const hd_pooled_t *uc);
/* Exchanges that it may carry at once; the peer's SETTINGS may change it. */
uint32_t hd_pooled_streams_max(const hd_upool_t *p, const hd_pooled_t *uc);
/* Where it belongs by its room: ready (the last used first) or busy. */
void hd_pooled_settle(hd_upool_t *p, hd_pooled_t *uc);
void hd_pooled_on_idle(hd_timer_t *t); /* for the conn's timer */

/* --- hd_upool_connect.c --- */
/* HD_AGAIN: max_conns is reached. HD_ERROR: <err>. */
hd_rc_t hd_upool_connect(hd_upool_t *p, const hd_pick_t *pick, uint64_t timeout_ms,
                         hd_err_t *err) HD_MUST_CHECK;

/* --- hd_upool_limits.c --- */
bool hd_upool_has_limits(const hd_upool_t *p); /* max_conns of its cluster or endpoint */
bool hd_upool_is_full(const hd_upool_t *p);    /* one of them is reached */
/* A conn idles under such a limit: from time to time it is looked whether others wait. */
void hd_upool_look_later(hd_upool_t *p);
/* Another worker waits for a conn, and there is no place but what idles here. */
bool hd_upool_is_wanted_elsewhere(const hd_upool_cluster_t *c);
/* Another worker was refused at this endpoint's max_conns; who sees it first answers. */
bool hd_upool_is_endpoint_wanted(const hd_upool_t *p);
/* Nothing idles anywhere, and requests wait here and elsewhere: a worker that has a conn
 * must not keep it for its own for ever. */
bool hd_upool_is_others_turn(const hd_upool_t *p, const hd_pooled_t *uc);
/* A place under the cluster's limit and the endpoint's: where it is counted. */
bool hd_upool_try_count_conn(hd_upool_t *p, hd_gauge_id_t counted[2]) HD_MUST_CHECK;
/* A place among the cluster's pools; one that has only idle conns makes room. */
bool hd_upool_try_count(hd_upool_t *p) HD_MUST_CHECK;
void hd_upool_on_look(hd_timer_t *t); /* for the cluster's timer */
