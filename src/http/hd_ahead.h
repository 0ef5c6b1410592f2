/* hd_ahead: what of an upstream's response was read ahead of a client that takes it
 * slowly, so that the upstream's conn is free early (nginx's proxy_buffering): in memory
 * up to proxy_buffers, then in a file without a name up to proxy_max_temp_file_size. In
 * the request's pool, but for blocks and the file: hd_ahead_free.
 *
 * In order: <chain> (memory and ranges of the file), then <tail> (memory that is to be
 * written when there is enough of it for a call). Room in the file is used again once all
 * of it was sent.
 */
#pragma once
#include "http/hd_request.h"

typedef struct {
    hd_req_t *req;
    const hd_proxy_conf_t *conf;
    hd_chain_t chain, tail;
    size_t memory_bytes;  /* of <chain> */
    hd_open_file_t *file; /* NULL: none yet */
    int64_t file_at;      /* where it is written next */
    bool is_lent;         /* pages of the file were given to a socket */
    bool has_failed;      /* no file can be had: memory alone */
    /* The proxy's: whether the upstream is read ahead by now, or is still held back,
     * since when, for how long before that in all, and what looks at that; how the body
     * fails behind what is kept (0: not). */
    bool is_on;
    uint64_t paused_ns, waited_ns;
    hd_timer_t slow;
    unsigned cut_status;
    uint64_t cut_flag;
    const char *cut_details;
} hd_ahead_t;

hd_ahead_t *hd_ahead_create(hd_req_t *req, const hd_proxy_conf_t *conf);
static inline bool hd_ahead_is_empty(const hd_ahead_t *a)
{
    return hd_chain_is_empty(&a->chain) && hd_chain_is_empty(&a->tail);
}
/* Neither memory nor the file takes more: the upstream is to be held back. */
bool hd_ahead_is_full(const hd_ahead_t *a);
/* Takes all of <body>, also where it is full. A file that fails is logged, once, and done
 * without. */
void hd_ahead_add(hd_ahead_t *a, hd_chain_t *body);
/* Gives the response what its client takes now. HD_OK: all that, or the client is full;
 * HD_AGAIN: no block is left to read into; HD_ERROR: the file can't be read (req->err).
 */
hd_rc_t hd_ahead_give(hd_ahead_t *a) HD_MUST_CHECK;
void hd_ahead_free(hd_ahead_t *a); /* harmless when it was freed */
