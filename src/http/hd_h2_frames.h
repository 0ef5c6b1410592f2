/* hd_h2_frames: the frames of an HTTP/2 conn seen from outside: heads only, before
 * nghttp2 gets their bytes. What nghttp2 lets pass is refused here: a stream id below
 * the last one, frames on a stream that its sender has ended, header blocks without end.
 *
 * Embedded in a session; zeroed memory with <is_server> and <block_bytes_max> set is one
 * that expects the peer's first frame. Pure: no session, no conn.
 */
#pragma once
#include "http/hd_h2_budget.h"

#define HD_H2_HEAD_BYTES 9
#define HD_H2_PREFACE_BYTES 24

typedef struct {
    bool is_server;           /* what comes is a client's */
    uint8_t preface;          /* of it so much is still to come */
    uint32_t block_bytes_max; /* of a header block as it is sent; 0: no limit */
    /* of the frame under way */
    uint8_t _head[HD_H2_HEAD_BYTES + 4], _have;
    uint32_t _left; /* of its payload */
    /* of the header block under way */
    uint32_t _block_bytes, _continuations;
    int32_t _last_id;
    uint64_t _seen, _ended; /* of _last_id and the 63 before: begun, ended by the peer */
} hd_h2_frames_t;

typedef struct {
    uint32_t error;               /* an HTTP/2 error code: the conn's; 0: none */
    const char *why;              /* static */
    uint32_t counts[HD_H2_KINDS]; /* what is allowed but rare */
    uint32_t good;                /* bytes up to the frame in fault, or all */
} hd_h2_verdict_t;

/* Frames beside HEADERS that a header block of so many bytes may take; 0: of any number.
 */
static inline uint32_t hd_h2_continuations_max(uint32_t block_bytes_max)
{
    return hd_max(8u, block_bytes_max / 8192); /* half of the usual frames' size */
}

/* Looks at the next <n> bytes, up to the first fault. */
hd_h2_verdict_t hd_h2_frames_pass(hd_h2_frames_t *f, const uint8_t *bytes, uint32_t n);
