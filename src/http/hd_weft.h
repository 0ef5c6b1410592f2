/* hd_weft: the protocol between two Heddles: many requests of one identity over one
 * mutual TLS connection, the frames of a whole loop turn in one write. ◆
 *
 * Agreed on by ALPN (HD_WEFT_ALPN), which a client offers beside what it would offer
 * anyway. Heads are HTTP/1.1 text, so that both ends parse them once, strictly, by the
 * parser that they have; framing is the frames' alone: no Transfer-Encoding.
 *
 *   frame: payload's length (3 bytes), type and flags (1), stream id (4), payload
 *
 * All of it is big-endian. The first frame of each side is HELLO.
 *
 *   HEAD      a request opens its stream; a response answers it, 1xx ones before it
 *   DATA      body, within the stream's credit
 *   TRAILERS  fields after the body; always the last frame of its message
 *   CREDIT    so many more bytes of body are taken: u32
 *   RESET     the stream is over for both, at once: u32, a hd_weft_reset_t
 *   GOAWAY    no new streams, please: those that are here are served, and those that
 *             cross it on their way. With a u32, how many HEADs came so far, it is the
 *             last frame: what was sent after them wasn't begun
 *   PING      answered by another one with the flag END, if HELLO has promised that
 *   HELLO     u8 version, u8 1: PING is answered, 2 bytes 0, u32 streams at once, u32
 * credit that a stream begins with: at least HD_WEFT_CREDIT, which is what counts until
 * it came
 *
 * A stream's id is the client's choice: an index below the server's number of streams in
 * its low 16 bits, which is free again once the stream is over for the client, and a
 * serial number above. Frames of a stream that is over are ignored. A client that hasn't
 * heard HELLO yet takes the number for HD_WEFT_STREAMS_FIRST; an index beyond the number
 * is refused, but not among the first requests, whose sender couldn't know.
 *
 * Both sides: what they share is here; hd_weft_client.c and hd_weft_server.c are the
 * codecs.
 */
#pragma once
#include "http/hd_famine.h"
#include "http/hd_codec.h"
#include "http/hd_h1_write.h"
#include "http/hd_h2_budget.h"
#include "http/hd_ping.h"

#define HD_WEFT_ALPN "heddle-weft/1"
#define HD_WEFT_CREDIT 65536u
#define HD_WEFT_STREAMS_MAX 1024u
#define HD_WEFT_STREAMS_FIRST 100u

typedef enum {
    HD_WEFT_CANCEL = 0,   /* not wanted any more */
    HD_WEFT_REFUSED = 1,  /* not begun: may be repeated */
    HD_WEFT_PROTOCOL = 2, /* the peer broke the protocol */
    HD_WEFT_INTERNAL = 3, /* it can't be completed */
} hd_weft_reset_t;

typedef struct hd_weft_s hd_weft_t;

/* One message each way. Embedded in a side's stream; zeroed, then hd_weft_open. */
typedef struct {
    uint32_t id;
    uint32_t no;         /* client: of the link's HEADs, from 1 on */
    uint32_t credit;     /* bytes that the peer takes yet */
    uint32_t window;     /* bytes that it may still send */
    uint32_t owed;       /* consumed and not yet credited */
    uint32_t held;       /* received and not consumed: the user is full */
    int64_t in_left;     /* of the received Content-Length; HD_LEN_UNKNOWN */
    hd_chain_t out;      /* body that waits for credit, or for the conn */
    hd_chain_t trailers; /* their text; empty: none */
    uint64_t moved_ns;   /* when some of our body went last, or began to wait */
    hd_link_t link;      /* in weft->waiting while <out> waits */
    bool is_waiting, was_high;
    bool out_ended, end_sent; /* our message's end is known; is out */
    bool in_ended;            /* the peer's message is complete */
} hd_weft_stream_t;

/* What a side hears; from hd_weft_read and hd_weft_on_writable. */
typedef struct {
    /* <text>: a head, good for this call; hd_weft_hold keeps it. A server opens the
     * stream. <st> NULL: none of that id is open. False: the conn is to end. */
    bool (*on_head)(hd_weft_t *w, uint32_t id, hd_weft_stream_t *st, hd_str_t text,
                    uint8_t flags);
    void (*on_data)(hd_weft_t *w, hd_weft_stream_t *st, hd_chain_t *body);
    void (*on_trailers)(hd_weft_t *w, hd_weft_stream_t *st, hd_str_t text);
    /* Its message is complete. */
    void (*on_end)(hd_weft_t *w, hd_weft_stream_t *st);
    /* The stream is over (already closed here). */
    void (*on_reset)(hd_weft_t *w, hd_weft_stream_t *st, uint32_t code);
    /* Streams above <no> weren't begun. NULL: clients just close. */
    void (*on_goaway)(hd_weft_t *w, uint32_t no);
    void (*on_hello)(hd_weft_t *w); /* NULL: nothing to learn from it */
    /* There is room for more of its body again. */
    void (*on_drained)(hd_weft_t *w, hd_weft_stream_t *st);
    /* All of a body that had to wait is on its way now; NULL: no matter. */
    void (*on_sent)(hd_weft_t *w, hd_weft_stream_t *st);
} hd_weft_user_t;

enum {
    HD_WEFT_END = 0x80,     /* the message ends with this frame */
    HD_WEFT_VERSION2 = 0x40 /* of a request's HEAD: between the sidecars it would have
                               been HTTP/2 */
};

struct hd_weft_s {
    hd_conn_t *conn;
    const hd_weft_user_t *user;
    uint32_t peer_streams, peer_credit; /* of its HELLO */
    uint32_t streams_n;                 /* open */
    uint32_t heads_n;                   /* received; client: streams opened so far */
    hd_h2_budget_t budget;              /* for what costs a peer nothing */
    hd_link_t waiting;                  /* streams whose body waits, next first */
    hd_ping_t ping; /* started by a side; one that isn't answered breaks the conn */
    bool is_broken, hello_received, answers_ping, goaway_sent, goaway_received,
        is_last_received;
    uint64_t goaway_ns;          /* when it was sent */
    hd_weft_stream_t **_streams; /* by index; of _room */
    uint32_t _room, _next_index, _serial;
    hd_chain_t _out; /* frames of this turn */
    char *_frame;    /* the HEAD frame being written: where its own head goes */
    size_t _frame_at;
    hd_h1_writer_t _writer;
    hd_post_t _flush;
    /* input: [from, to) of a block, or a frame that is longer in a buffer of its own */
    hd_block_t *_block;
    uint32_t _from, _to;
    hd_famine_t _famine;
    char *_long;
    size_t _long_len, _long_room;
    uint32_t _data_left, _data_id; /* of the DATA frame being read */
    uint8_t _data_flags;
    bool _has_data;
};

/* In <c>'s pool or the owner's memory, zeroed. <streams>: how many the peer may open, or
 * (client) have open at most. Says HELLO. */
void hd_weft_init(hd_weft_t *w, hd_conn_t *c, const hd_weft_user_t *user,
                  uint32_t streams, bool is_server);
void hd_weft_deinit(hd_weft_t *w);

/* HD_OK; HD_DONE: the peer's end; HD_ERROR: c->err. After each call of the user's it
 * looks whether the conn still lives. */
hd_rc_t hd_weft_read(hd_weft_t *w);
/* The conn takes more: what waits goes out, in turn. */
void hd_weft_on_writable(hd_weft_t *w);
/* What was made ready goes to the conn now, not at the end of the turn. */
void hd_weft_flush(hd_weft_t *w);
/* The text that on_head or on_trailers got lives as long as <pool>. */
void hd_weft_hold(hd_weft_t *w, hd_pool_t *pool);

/* NULL: none open of that id. */
hd_weft_stream_t *hd_weft_find(const hd_weft_t *w, uint32_t id);
/* Walks the open streams, which may be closed meanwhile: start with *at = 0. NULL: that
 * was all. */
hd_weft_stream_t *hd_weft_next(const hd_weft_t *w, uint32_t *at);
/* Enters a stream. Client: <id> 0, one is chosen; false: no room. Server: false: the id
 * is taken or beyond what was announced. */
bool hd_weft_try_open(hd_weft_t *w, hd_weft_stream_t *st, uint32_t id) HD_MUST_CHECK;
/* It is over: its id may be used again, what waits is dropped. Harmless when closed. */
void hd_weft_close(hd_weft_t *w, hd_weft_stream_t *st);
static inline bool hd_weft_is_open(const hd_weft_stream_t *st)
{
    return st->id != 0;
}

/* A head is written between these two, into what hd_weft_begin_head lends. */
hd_h1_writer_t *hd_weft_begin_head(hd_weft_t *w);
/* False: it is longer than a peer takes, which passes over it. */
bool hd_weft_end_head(hd_weft_t *w, hd_weft_stream_t *st, uint8_t flags) HD_MUST_CHECK;
/* Moves <body>; its flags END and TRAILERS count. <trailers> may be NULL. */
void hd_weft_send_body(hd_weft_t *w, hd_weft_stream_t *st, hd_chain_t *body,
                       const hd_headers_t *trailers);
bool hd_weft_is_full(hd_weft_stream_t *st);
/* The user has taken <bytes> that it was given. */
void hd_weft_consume(hd_weft_t *w, hd_weft_stream_t *st, uint32_t bytes);
/* A stream that wasn't opened: the peer may repeat it, and pays for the words. */
void hd_weft_refuse(hd_weft_t *w, uint32_t id);
/* Tells the peer, and closes. */
void hd_weft_reset(hd_weft_t *w, hd_weft_stream_t *st, hd_weft_reset_t code);
void hd_weft_goaway(hd_weft_t *w);
/* Nothing more is read: the conn is closed at once. */
void hd_weft_last_goaway(hd_weft_t *w);
/* The peer broke the protocol: the conn ends. Returns HD_ERROR. */
hd_rc_t hd_weft_fail(hd_weft_t *w, const char *why);

/* Server side, and client side of a conn that agreed on it (hd_codec.h). */
void hd_weft_serve(hd_conn_t *c, const hd_http_entry_t *entry);
void hd_weft_drain(hd_loop_t *loop, const hd_drain_round_t *round);
hd_rc_t hd_weft_client_open(hd_upconn_t *u, hd_err_t *err) HD_MUST_CHECK;
