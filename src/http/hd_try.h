/* hd_try: one attempt to have a request answered by an upstream. A request holds up to
 * proxy->tries_max of them; the first good head wins, the rest are reset. ◆
 *
 *   PICK -> CONNECT -> SEND -> HEAD -> BODY -> END
 *     |        |         |       |       (won)
 *     +--------+---------+-------+--> judged (on_try_result of modules): done, retry,
 * hedge
 *
 * The request's body is kept for another try up to proxy->replay_bytes; beyond it no try
 * follows. A conn that was kept alive and closed before a byte of the answer: the request
 * is repeated once on a fresh conn where that is safe (idempotent, or the peer has
 * received no byte of it, or refused it), as long as the budget of retries lets it, but
 * not as a try of its own.
 *
 * A try's outcome is reported as soon as it is known: a failure at the response's head,
 * else at its end. Its pick is released when another try follows it, else at the
 * request's end: the log still asks where it went.
 */
#pragma once
#include "http/hd_upool.h"

typedef enum {
    HD_TRY_STEP_PICK, /* asks the balancer; may wait for a name or an on-demand cluster */
    HD_TRY_STEP_CONNECT, /* waits for the pool: a conn, or a place under the limits */
    HD_TRY_STEP_SEND,    /* head and body on their way */
    HD_TRY_STEP_HEAD,    /* all was sent: waits for the response's head */
    HD_TRY_STEP_BODY,    /* won: the body passes through */
    HD_TRY_STEP_END,
} hd_try_step_t;

struct hd_proxy_s;

typedef struct hd_try_s {
    hd_req_t *req;
    struct hd_proxy_s *proxy;
    struct hd_try_s *next;
    hd_pick_t pick;
    hd_pool_wait_t wait; /* in CONNECT */
    hd_exchange_t *x;    /* NULL: none */
    uint8_t step;
    uint32_t attempt; /* 1: the first */
    uint64_t start_ns, sent_ns, connected_ns, head_ns, end_ns;
    uint64_t until_ns;          /* per-try time-out; UINT64_MAX: none */
    uint64_t over_ns;           /* its cluster's max_stream_duration; UINT64_MAX: none */
    hd_timer_t timer;           /* the next of: per-try, send, read time-out */
    uint64_t body_bytes;        /* of its response */
    uint64_t conn_in, conn_out; /* its conn's counts when it was sent on it … */
    uint64_t bytes_received, bytes_sent; /* … and by how much they had grown at its end */
    const hd_headers_t *trailers;        /* of its response; NULL: none */
    int64_t temp_at;                     /* so much of the request's temp file was sent */
    unsigned status;                     /* of its response; 0: none */
    uint32_t idle_ms;                    /* its conn's, before it */
    hd_str_t peer_principal, own_principal; /* on the conn; in the request's pool */
    hd_pick_result_t result;
    bool is_waiting, is_picked, is_repeated, is_paused, was_reused;
    bool is_tunnel;    /* it became one: it counts as a request until that has ended */
    bool is_idle_next; /* its timer is an idle time-out of xDS's, not the try's own */
    hd_gauge_id_t counted_request, counted_retry; /* HD_GAUGE_NONE: not counted */
} hd_try_t;

extern const hd_action_ops_t
    hd_proxy_action; /* HD_ACT_PROXY: hd_proxy.c runs the tries */

/* Puts what X-Accel-Redirect kept (req->kept) into the answer. */
void hd_proxy_put_kept(hd_req_t *req);
/* The body that the request was passed on with, if it is complete, lies in memory and has
 * at most HD_BLOCK_BYTES; NULL: none. */
const hd_chain_t *hd_proxy_request_body(const hd_req_t *req);
/* The tunnel that <req> became is over; so many bytes went each way. */
void hd_proxy_end_tunnel(hd_req_t *req, uint64_t to_upstream, uint64_t to_client);
/* Fills what a log asks of the upstream. */
void hd_proxy_get_info(hd_req_t *req, hd_req_info_t *info);
