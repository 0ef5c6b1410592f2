/* hd_h1_write: HTTP/1 heads and chunk framing as text, straight into blocks. Framing and
 * hop-by-hop fields are always made anew (RFC 9110 §7.6.1). */
#pragma once
#include "http/hd_request.h"

typedef struct {
    hd_chain_t *out;
    hd_block_t *block; /* being filled; one reference is the writer's */
    size_t from, at;   /* of the block: not yet in <out> */
    bool failed;       /* block ceiling, or longer than a head may be */
} hd_h1_writer_t;

void hd_h1_writer_init(hd_h1_writer_t *w, hd_chain_t *out);
void hd_h1_put_slow(hd_h1_writer_t *w, const char *data, size_t len);
static inline void hd_h1_put(hd_h1_writer_t *w, const char *data, size_t len)
{
    if (hd_unlikely(w->block == NULL || len > HD_BLOCK_BYTES - w->at || len == 0)) {
        hd_h1_put_slow(w, data, len);
        return;
    }
    memcpy(w->block->data + w->at, data, len);
    w->at += len;
}
void hd_h1_put_u64(hd_h1_writer_t *w, uint64_t n);
static inline void hd_h1_put_str(hd_h1_writer_t *w, hd_str_t s)
{
    hd_h1_put(w, s.data, s.len);
}
#define hd_h1_put_lit(w, lit) hd_h1_put(w, "" lit, sizeof(lit) - 1)
void hd_h1_put_length(hd_h1_writer_t *w, int64_t length); /* the field; from 0 on */
/* Room for <len> bytes in one piece, to be filled in later; <len> at most a block. NULL:
 * failed. */
char *hd_h1_reserve(hd_h1_writer_t *w, size_t len);
/* Bytes written so far. */
static inline size_t hd_h1_written(const hd_h1_writer_t *w)
{
    return w->out->bytes + (w->at - w->from);
}
/* <chain> (moved) comes next, by reference. */
void hd_h1_put_chain(hd_h1_writer_t *w, hd_chain_t *chain);
/* Every live field of <h> that may be forwarded; not Content-Length, Host. */
void hd_h1_put_fields(hd_h1_writer_t *w, const hd_headers_t *h);
/* HTTP/1.1, status and its words: <res>'s own, else the standard ones. */
void hd_h1_put_status_line(hd_h1_writer_t *w, const hd_res_head_t *res);
/* Hands what was written to the chain; false: failed, nothing usable was written. */
bool hd_h1_writer_end(hd_h1_writer_t *w) HD_MUST_CHECK;

/* Wraps <body> (moved) into chunks on <out>; with END the last chunk and <trailers> (may
 * be NULL). False: block ceiling. */
bool hd_h1_try_chunk(hd_chain_t *out, hd_chain_t *body,
                     const hd_headers_t *trailers) HD_MUST_CHECK;
hd_str_t hd_http_reason(unsigned status); /* the standard phrase; empty: none */
