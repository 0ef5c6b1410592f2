/* hd_h1_input: what an HTTP/1 client has sent and nobody has consumed yet: the bytes
 * [from, to) of a block, or a head that is longer than a block in a buffer of its own.
 * An upstream's long head is received by it, too (hd_h1_client.c).
 * Embedded in its conn's codec; zeroed memory is an empty one. Between requests it holds
 * no memory. */
#pragma once
#include "http/hd_request.h"

typedef struct {
    hd_block_t *block; /* NULL when none */
    uint32_t from, to;
    size_t scan_from; /* of a head: up to here there is no end of it */
    char *_long;      /* a head longer than a block, heap; NULL */
    size_t _long_len, _long_room;
} hd_h1_input_t;

/* Drops all. */
void hd_h1_input_free(hd_h1_input_t *in);
/* The block alone, between two requests. */
void hd_h1_input_drop_block(hd_h1_input_t *in);

static inline bool hd_h1_input_has_bytes(const hd_h1_input_t *in)
{
    return in->from < in->to || in->_long != NULL;
}

/* All that is there, one run. */
static inline hd_str_t hd_h1_input_bytes(const hd_h1_input_t *in)
{
    if (hd_unlikely(in->_long != NULL))
        return hd_str_n(in->_long, in->_long_len);
    return in->block == NULL ? HD_STR_NONE
                             : hd_str_n(in->block->data + in->from, in->to - in->from);
}

/* Empty lines before a request line go (RFC 9112 §2.2), a few of them. */
void hd_h1_input_skip_empty_lines(hd_h1_input_t *in);
/* Reads once from <c>, as hd_conn_read. <head_max>: a head may become so long; 0: no head
 * is being read. HD_IO_ERROR without c->err: the blocks' ceiling. */
ssize_t hd_h1_input_receive(hd_h1_input_t *in, hd_conn_t *c, size_t head_max);
/* The first <used> bytes are a head whose strings <pool>'s owner keeps: consumes them,
 * and has their memory live as long as <pool>. False: the blocks' ceiling. */
bool hd_h1_input_hold_head(hd_h1_input_t *in, hd_pool_t *pool, size_t used) HD_MUST_CHECK;
/* <pool>'s owner keeps strings of the block, too. */
void hd_h1_input_hold_block(const hd_h1_input_t *in, hd_pool_t *pool);
