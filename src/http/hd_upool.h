/* hd_upool: pools of upstream conns, per worker. ◆
 *
 * The key holds whatever the peer could see differ; two requests share a conn only if all
 * of it is equal. Limits are the cluster's gauges, exact over all workers: idle pooled
 * conns count against max_conns; a worker that is refused asks for one to be given up
 * (cluster: by the gauge of those that wait; endpoint: by the word in its state).
 */
#pragma once
#include "http/hd_codec.h"

typedef struct {
    const hd_slot_t *cluster;
    hd_addr_t addr;           /* endpoint, or original destination */
    uint64_t tls_hash;        /* settings: SNI, SANs, ALPN, secrets' names; 0: plain */
    uint64_t secret_version;  /* of the certificate in use */
    hd_str_t source_identity; /* whose certificate: workload; empty: none */
    hd_str_t sni;             /* per request (auto_sni) */
    hd_str_t own_cert, own_key; /* names of our certificate, where they have variables */
    hd_str_t verify_host;     /* likewise: whose certificate it must be; empty: as set */
    hd_addr_t proxy_source, proxy_local; /* PROXY protocol's; IP or AF_UNSPEC */
    hd_addr_t bind;
    uint32_t mark;
    int32_t netns;
    bool transparent;
    bool probes_idle;      /* TCP keep-alive, whatever the cluster says */
    uint8_t protocol;      /* hd_up_protocol_t asked for */
    uint8_t proxy_version; /* of the PROXY head; 0: none */
    bool is_high;          /* counted with the cluster's limits of priority HIGH */
    bool offers_weft; /* by ALPN, beside the protocol: the peer may be a Heddle, too */
} hd_upool_key_t;

/* Which of a pool's conns will do. */
typedef enum {
    HD_UPOOL_ANY,
    HD_UPOOL_SURE,  /* not one that its peer may just have closed: the request couldn't be
                       repeated */
    HD_UPOOL_FRESH, /* one that has carried nothing yet */
} hd_upool_want_t;

typedef struct hd_pool_wait_s {
    /* <u> with room for one exchange, which is to be begun within this call; or NULL:
     * <err> says why (HD_E_TIMEOUT, HD_E_TLS …). Never from within hd_upool_get. */
    void (*on_conn)(struct hd_pool_wait_s *w, hd_upconn_t *u, const hd_err_t *err);
    hd_link_t _link;
    struct hd_upool_s *_pool;
    const hd_pick_t *_pick;
    hd_gauge_id_t _pending; /* counted there */
    uint64_t _until_ns, _timeout_ms;
    uint8_t _want;
} hd_pool_wait_t;

/* A conn for <key>, whose strings are copied when they are new. HD_OK: *u, on which an
 * exchange is to be begun at once. HD_AGAIN: <wait> is called; <pick> and <wait> stay in
 * place until then or hd_upool_cancel. HD_ERROR: <err>; HD_E_LIMIT: max_pending or
 * max_pools is reached. */
hd_rc_t hd_upool_get(hd_loop_t *loop, hd_member_t *m, const hd_upool_key_t *key,
                     const hd_pick_t *pick, uint64_t connect_timeout_ms,
                     hd_upool_want_t want, hd_upconn_t **u, hd_pool_wait_t *wait,
                     hd_err_t *err) HD_MUST_CHECK;
void hd_upool_cancel(hd_pool_wait_t *wait);
/* What hd_upool_get or on_conn gave isn't wanted after all; within the same call. */
void hd_upool_put_back(hd_upconn_t *u);
/* How other workers are asked: rings them up, so that they yield. Set at process start;
 * NULL: there are none. */
extern void (*hd_upool_ask)(void);
/* Idle conns that others wait for (other workers ask by a ring) are given up. */
void hd_upool_yield(hd_member_t *m);
/* After a batch: conns of removed endpoints, old secrets or removed clusters are drained.
 */
void hd_upool_refresh(hd_member_t *m);
void hd_upool_close_all(hd_loop_t *loop);
size_t hd_upool_conns(void); /* open or being opened, in this process */
