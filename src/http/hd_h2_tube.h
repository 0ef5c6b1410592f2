/* hd_h2_tube: an h2 stream as a conn, for Upgrade and CONNECT over HTTP/2 (RFC 8441,
 * RFC 9113 §8.5): one end of a pipe is the stream's, the other goes to a tunnel. Bytes
 * and ends pass both ways with back-pressure; a reset of either side resets the other. */
#pragma once
#include "core/net/hd_conn.h"

typedef struct hd_h2_tube_s hd_h2_tube_t;

/* What the stream does for it; never called from within a call made to the tube. */
typedef struct {
    void (*send)(void *stream, hd_chain_t *bytes); /* moved; END flag: our half is over */
    bool (*is_full)(void *stream);
    void (*on_room)(void *stream);  /* what was given went on: credit is due */
    void (*on_reset)(void *stream); /* the tunnel broke; the tube is gone */
} hd_h2_tube_ops_t;

/* *other: the end for the tunnel. NULL: <err>. */
hd_h2_tube_t *hd_h2_tube_open(hd_loop_t *loop, const hd_h2_tube_ops_t *ops, void *stream,
                              hd_conn_t **other, hd_err_t *err);
void hd_h2_tube_give(hd_h2_tube_t *t, hd_chain_t *bytes); /* of the peer; moved */
void hd_h2_tube_end(hd_h2_tube_t *t);                     /* the peer's half is over */
bool hd_h2_tube_is_full(const hd_h2_tube_t *t);
void hd_h2_tube_pull(hd_h2_tube_t *t); /* the stream has room again */
/* The stream is over: in order or by a reset. <t> is gone. */
void hd_h2_tube_close(hd_h2_tube_t *t, bool reset);
