/* hd_try: one attempt to have a request answered by an upstream. A request holds up to
 * proxy->tries_max of them; the first good head wins, the rest are reset. ◆
 *
 *   PICK -> CONNECT -> SEND -> HEAD -> BODY -> (won) END
 *     |        |         |       |
 *     +--------+---------+-------+--> judged (on_try_result of modules): done, retry,
 * hedge
 *
 * The request's body is kept for another try up to proxy->replay_bytes; beyond it no try
 * follows. A conn that was kept alive and closed before a byte of the answer: the request
 * is repeated once on a fresh conn where that is safe (idempotent, or no byte written, or
 * refused), without counting as a retry.
 */
#pragma once
#include "http/hd_codec.h"

typedef enum {
    HD_TRY_STEP_PICK, /* asks the balancer; may wait for a name or an on-demand cluster */
    HD_TRY_STEP_CONNECT, /* waits for the pool: a conn, or a place under the limits */
    HD_TRY_STEP_SEND,    /* head and body on their way */
    HD_TRY_STEP_HEAD,    /* waits for the response's head */
    HD_TRY_STEP_BODY,    /* won: the body passes through */
    HD_TRY_STEP_END,
} hd_try_step_t;

typedef struct hd_try_s {
    hd_req_t *req;
    struct hd_try_s *next;
    hd_pick_t pick;
    struct hd_pool_wait_s *wait; /* in CONNECT */
    hd_exchange_t *x;
    uint8_t step;
    uint32_t attempt; /* 1: the first */
    uint64_t start_ns;
    hd_timer_t timer; /* per-try time-out, connect, idle */
    bool counted_request, counted_retry;
} hd_try_t;

extern const hd_action_ops_t
    hd_proxy_action; /* HD_ACT_PROXY: hd_proxy.c runs the tries */
