/* hd_h2_session: what both sides of an HTTP/2 conn share: an nghttp2 session over a conn,
 * frames gathered once a turn, bodies passed by reference, credit, and the budget of
 * what costs a peer nothing.
 *
 * Credit: automatic WINDOW_UPDATE is off. The conn's is returned on receipt, a stream's
 * when its bytes were consumed, so that one slow stream never stalls the rest. Output:
 * whatever is submitted in a turn is turned into frames by one flush, which stops at the
 * conn's high mark and goes on when it has drained. Where no block is to be had both ways
 * wait for a moment.
 */
#pragma once
#include "http/hd_famine.h"
#include "http/hd_codec.h"
#include "http/hd_h2_frames.h"
#include "http/hd_ping.h"

#include <nghttp2/nghttp2.h>

#define HD_H2_STREAM_WINDOW (256 * 1024)
#define HD_H2_CONN_WINDOW (1024 * 1024)
#define HD_H2_STREAM_OUT_HIGH (64 * 1024)
#define HD_H2_STREAM_OUT_LOW (16 * 1024)

typedef struct hd_h2_session_s hd_h2_session_t;

/* A body on its way out; embedded in a side's stream. */
typedef struct {
    hd_chain_t chain;
    hd_headers_t trailers;    /* copied: the message may go before its frames do */
    hd_pool_t *trailers_pool; /* NULL: none */
    uint64_t moved_ns;        /* when some of it last went */
    uint32_t chunk_bytes;     /* of a DATA frame at most; 0: as the peer allows */
    bool ended, deferred, was_high;
} hd_h2_out_t;

struct hd_h2_session_s {
    nghttp2_session *ng;
    hd_conn_t *conn;
    hd_post_t flush;
    hd_chain_t out;        /* frames of this flush */
    hd_block_t *out_block; /* being filled with frame heads */
    size_t out_from, out_at;
    hd_block_t *in_block; /* being read: data chunks are slices of it */
    hd_h2_budget_t budget;
    uint32_t streams;     /* that have not been freed */
    uint32_t streams_max; /* which the peer is told; 0: nothing */
    bool has_told_streams;
    bool in_recv, in_send, is_broken, goaway_sent, goaway_received;
    bool is_ending;        /* GOAWAY with an error: nothing more is read */
    hd_h2_frames_t frames; /* looks at what comes before nghttp2 does */
    hd_ping_t ping;     /* started by a side; one that isn't answered breaks the conn */
    bool is_blocked;    /* the last flush stopped: the conn has enough */
    hd_famine_t famine; /* there was no block; it goes on then */
    /* <out> fell below the low mark after having been high. */
    void (*on_out_drained)(hd_h2_out_t *out);
};

/* A stream's output is what nghttp2 keeps as its user data: a side sets it when it makes
 * a stream of its own around it. NULL: that is gone. */
static inline hd_h2_out_t *hd_h2_out_of(const hd_h2_session_t *s, int32_t stream_id)
{
    return nghttp2_session_get_stream_user_data(s->ng, stream_id);
}

/* nghttp2 callbacks that both sides share are put into <cb>. */
void hd_h2_session_callbacks(nghttp2_session_callbacks *cb);
/* <block_bytes_max>: of the peer's header blocks as they are sent; 0: no limit. HD_ERROR:
 * out of memory in nghttp2. */
hd_rc_t hd_h2_session_init(hd_h2_session_t *s, hd_conn_t *c,
                           nghttp2_session_callbacks *cb, bool is_server,
                           uint32_t block_bytes_max, void *user);
void hd_h2_session_deinit(hd_h2_session_t *s);
/* Frames go out at the end of the turn. */
void hd_h2_session_flush_later(hd_h2_session_t *s);
void hd_h2_session_flush(hd_h2_session_t *s); /* into the conn's output, now */
/* Reads what the conn has and feeds it; HD_OK, HD_AGAIN: there is no block, the conn is
 * woken later; HD_DONE: the peer's end; HD_ERROR: broken, the protocol's own error was
 * sent where there is one. */
hd_rc_t hd_h2_session_read(hd_h2_session_t *s);
/* Nothing more is to be read or written. */
bool hd_h2_session_is_over(const hd_h2_session_t *s);
/* It ends, or has ended, because the peer broke the protocol; conn->err says how. */
bool hd_h2_session_is_peers_fault(const hd_h2_session_t *s);
void hd_h2_session_goaway(hd_h2_session_t *s, uint32_t error);
/* First step of a graceful end (RFC 9113 §6.8): the peer is asked to begin nothing more;
 * what it has begun is still taken. The answer to a PING sent with it, by which the peer
 * has heard of it, is told by hd_h2_session_pong. */
void hd_h2_session_notice(hd_h2_session_t *s);
/* By a side that uses it, for each frame that is sent. */
void hd_h2_session_sent(hd_h2_session_t *s, const nghttp2_frame *frame);
/* By the sides, for each PING with ACK. True: it answers hd_h2_session_notice. */
bool hd_h2_session_pong(hd_h2_session_t *s, const nghttp2_frame *frame);
/* <n> times what a well-behaved peer does rarely (hd_h2_budget.h): beyond its budget the
 * conn ends with ENHANCE_YOUR_CALM. False: it ends. */
bool hd_h2_glitch(hd_h2_session_t *s, hd_h2_kind_t kind, uint32_t n);

/* Queues <body> (moved) on a stream whose data provider is hd_h2_provider; <trailers>
 * count when it is flagged so. */
void hd_h2_out_add(hd_h2_session_t *s, int32_t stream_id, hd_h2_out_t *out,
                   hd_chain_t *body, const hd_headers_t *trailers);
void hd_h2_out_free(hd_h2_out_t *out);
nghttp2_data_provider hd_h2_provider(void);

/* A field as nghttp2 wants it (names are copied and lowered by it). */
static inline nghttp2_nv hd_h2_nv(hd_str_t name, hd_str_t value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.data, (uint8_t *)(uintptr_t)value.data,
                        name.len, value.len, NGHTTP2_NV_FLAG_NONE};
}
/* Appends every field that may be forwarded; Host and framing are left out. */
size_t hd_h2_put_fields(nghttp2_nv *nv, size_t n, size_t max, const hd_headers_t *h);
/* A field as received, copied into <h>'s pool; false: a limit was met. */
bool hd_h2_add_field(hd_headers_t *h, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len);
