/* hd_conn: a connection: a stack of byte-stream layers, of which only the lowest has a
 * descriptor. ◆
 *
 *     codec or tunnel            the handler: one owner at a time, told of events
 *     --------------- top
 *     TLS                        any number of layers: read, writev, flush, shutdown,
 * close PROXY protocol socket | pipe | h2 stream
 *     --------------- bottom
 *
 * Reading: on_readable says that bytes or the end may be there; hd_conn_read takes them.
 * After a short read the conn knows itself drained and is_readable is false until the
 * next event: the owner doesn't read again. When the peer's end is known (peer_closing),
 * is_readable stays set until it was read. An owner that stops reading (back-pressure)
 * just doesn't call read; is_readable stays set, and it calls again when it wants more.
 * Writing: hd_conn_send moves a chain into the output queue; one flush a turn hands it to
 * the layers (one writev, or one SSL_write per 16 KB and one send). on_writable comes
 * when the queue has fallen below the low mark after it had passed the high one. Closing:
 * hd_conn_close flushes what is queued within the turn or lingers for it up to
 * <linger_ms>; hd_conn_reset drops it. Afterwards the handler hears nothing more; the
 * memory goes at the end of the turn. on_closed is called at most once, when an error
 * ended it that the owner didn't meet in hd_conn_read (connect, handshake, a reset, a
 * failed write); c->err says why; the owner still calls hd_conn_close. Bytes that came
 * before a reset are offered first: on_readable, then on_closed.
 *
 *   CONNECTING -> HANDSHAKE -> OPEN -> (peer_closed: half) -> CLOSING -> gone
 */
#pragma once
#include "core/base/hd_buf.h"
#include "core/base/hd_err.h"
#include "core/net/hd_socket.h"

typedef struct hd_conn_s hd_conn_t;
typedef struct hd_layer_s hd_layer_t;
struct hd_attrs_s;

#define HD_IO_AGAIN (-1) /* nothing now; an event will tell */
#define HD_IO_ERROR (-2) /* c->err is set */

/* What a layer does to the one below it by l->below->ops. <l->below> is NULL for the
 * bottom. read: >0 bytes, 0 the peer's end, HD_IO_…; once drained it answers HD_IO_AGAIN
 * without a system call, so reading until then costs nothing. writev: bytes taken, or
 * HD_IO_…; less than given means that no more goes until HD_EV_WRITE comes. */
typedef struct {
    const char *name;
    bool reads_all; /* a short read means drained: the conn doesn't ask again */
    ssize_t (*read)(hd_layer_t *l, void *to, size_t len);
    ssize_t (*writev)(hd_layer_t *l, const struct iovec *iov, int n);
    /* Pushes down what the layer itself holds back; HD_AGAIN: not all went. May be NULL.
     * The conn calls it for each layer, from the top, at the end of each flush. */
    hd_rc_t (*flush)(hd_layer_t *l);
    /* Our half: FIN, close_notify, END_STREAM; of this layer only, the conn goes on to
     * the one below once it is flushed. Called again after HD_AGAIN. */
    hd_rc_t (*shutdown)(hd_layer_t *l);
    /* Frees the layer; the one below is still there, and closed next by the conn. */
    void (*close)(hd_layer_t *l, bool reset);
    /* An event of the layer below (HD_EV_…). Answers what of it is passed upwards, 0:
     * nothing (a handshake goes on). NULL: pass all. */
    unsigned (*on_event)(hd_layer_t *l, unsigned events);
} hd_layer_ops_t;

struct hd_layer_s {
    const hd_layer_ops_t *ops;
    hd_layer_t *below, *above;
    hd_conn_t *conn;
};

typedef struct {
    void (*on_open)(hd_conn_t *c); /* connected and all handshakes done; may be NULL */
    void (*on_readable)(hd_conn_t *c);
    void (*on_writable)(hd_conn_t *c);
    void (*on_closed)(hd_conn_t *c);
    void (*on_due)(hd_conn_t *c); /* hd_conn_set_timer's time has come */
    /* What the peer's identity was taken from holds no longer (hd_tls_watch.c): the conn
     * is to end once what is under way is done. From the loop only. NULL: it goes on. */
    void (*on_stale)(hd_conn_t *c);
    /* Since when the peer owes the next thing and nothing else is under way: monotonic
     * ns; 0: something is. NULL: always. */
    uint64_t (*idle_since)(const hd_conn_t *c);
    /* Its place is needed, and idle_since isn't 0: ends it within this call. */
    void (*on_reuse)(hd_conn_t *c);
} hd_conn_handler_t;

typedef enum {
    HD_CONN_CONNECTING,
    HD_CONN_HANDSHAKE, /* the stack is not open yet: waits for the peer's handshake bytes
                        */
    HD_CONN_OPEN,
    HD_CONN_CLOSING, /* ours is over; waits for queued output, at most linger_ms */
    HD_CONN_CLOSED,
} hd_conn_state_t;

/* Whose conn it really is; AF_UNSPEC: not told. */
typedef struct {
    hd_addr_t remote, local;
    hd_str_t tlvs; /* of PROXY protocol 2, see hd_proxy_next_tlv */
} hd_proxied_t;

/* Facts that layers found out, for those above and for attributes. Made lazily, in
 * c->pool. */
typedef struct hd_conn_facts_s {
    hd_addr_t original_dst;      /* AF_UNSPEC: none */
    const hd_proxied_t *proxied; /* by PROXY protocol or HBONE; NULL: not */
    hd_str_t sni;                /* as asked for, lower case */
    hd_str_t alpn;               /* negotiated */
    hd_str_t offered_alpn;       /* the ClientHello's list in wire form */
    hd_str_t transport;          /* "tls", "raw_buffer" as seen by the inspector */
    hd_str_t app_protocol;       /* "http/1.1", "h2c", "" as seen by the inspector */
    /* The peer's verified identity; set solely by the TLS or HBONE layer. */
    hd_str_t peer_principal; /* spiffe://TD/ns/NS/sa/SA; empty: none */
    hd_str_t local_principal;
    struct hd_tls_peer_s *tls; /* ask hd_tls_peer, which gathers them */
    uint16_t offered_version;  /* of TLS, the highest: 0x0300 to 0x0304; 0: none known */
    bool proxied_untrusted;    /* who told <proxied> isn't believed: known, not gone by */
} hd_conn_facts_t;

/* Private parts begin with _: hd_conn_int.h says what they mean. Ten thousand of them
 * idle, so what only few need lies elsewhere. */
struct hd_conn_s {
    hd_layer_t *top, *bottom;
    hd_loop_t *loop;
    const hd_conn_handler_t *handler;
    void *owner;              /* the handler's */
    uint64_t id;              /* "*5" in logs; unique in the process */
    hd_chain_t *_in;          /* peeked by filters or layers, read first; NULL: nothing */
    hd_chain_t out;           /* the output queue */
    hd_pool_t *pool;          /* NULL until hd_conn_pool */
    hd_conn_facts_t *facts;   /* NULL until hd_conn_facts */
    struct hd_attrs_s *attrs; /* attributes of the conn, inherited by internal hops */
    hd_err_t *err;            /* NULL: none; in the pool */
    hd_addr_t remote;         /* of the bottom */
    struct hd_local_s *_local; /* hd_conn_socket_local */
    uint64_t bytes_in, bytes_out;
    uint64_t opened_ns; /* when it was accepted, or its connecting began */
    uint8_t state;      /* hd_conn_state_t, changed by move_conn in hd_conn.c only */
    bool is_readable, is_writable;
    bool peer_closing; /* the peer's end or reset is known, maybe behind unread bytes */
    bool peer_closed;  /* the end was read: no more bytes come */
    bool is_upstream;
    uint8_t _events;
    uint16_t protocol; /* hd_protocol_register's number of who serves it; 0: nobody yet */
    uint16_t _flags;
    uint16_t _high_kb, _low_kb;
    hd_conn_t *_next; /* to be flushed */
    hd_post_t _wake;
    hd_timer_t _timer; /* of connecting and handshake; the owner's; of lingering */
};

/* A conn over a connected descriptor (taken), e.g. an accepted one, OPEN. What is there
 * already is heard of at the loop's next wait. <remote>'s path is kept as it is. NULL:
 * <err>, fd closed. */
hd_conn_t *hd_conn_create(hd_loop_t *loop, int fd, const hd_addr_t *remote,
                          hd_err_t *err);
/* Starts to connect: on_open or on_closed follows, never from within this call; layers
 * may be pushed meanwhile. <bind> NULL or a spec whose bind, mark … apply. <timeout_ms>
 * bounds CONNECTING and HANDSHAKE together; 0: none. NULL: refused at once, <err>. */
hd_conn_t *hd_conn_connect(hd_loop_t *loop, const hd_addr_t *to,
                           const hd_socket_spec_t *bind, uint64_t timeout_ms,
                           const hd_conn_handler_t *handler, void *owner, hd_err_t *err);
/* One without bytes, OPEN: what is known of a UDP client. <remote> and <local> are
 * copied, IP addresses. */
hd_conn_t *hd_conn_create_bare(hd_loop_t *loop, const hd_addr_t *remote,
                               const hd_addr_t *local);
/* Two conns, each the other's peer, in this process. */
hd_rc_t hd_conn_create_pipe(hd_loop_t *loop, hd_conn_t *ends[2], hd_err_t *err);

/* On top of the stack; bytes that were peeked before (c->in) are <l>'s to read. */
void hd_conn_push(hd_conn_t *c, hd_layer_t *l);
/* By a layer being pushed that needs a handshake: HD_CONN_HANDSHAKE now, or once
 * connected. From now on the layer's on_event drives it. */
void hd_conn_await_handshake(hd_conn_t *c);
/* Bounds the handshake that goes on; 0: no bound. */
void hd_conn_set_handshake_timeout(hd_conn_t *c, uint64_t timeout_ms);
/* A layer's handshake is over (or failed, c->err set): used by layers. on_open or
 * on_closed is posted. */
void hd_conn_handshake_done(hd_conn_t *c, bool good);

/* The new owner is told by on_readable if bytes or the end may be there. The timer is its
 * own, not set. */
void hd_conn_set_handler(hd_conn_t *c, const hd_conn_handler_t *handler, void *owner);
/* The conn's own timer, lent to its owner while it is OPEN: on_due comes in <after_ms>
 * unless it is set anew; 0: never. */
void hd_conn_set_timer(hd_conn_t *c, uint64_t after_ms);
uint64_t hd_conn_due_ns(const hd_conn_t *c); /* its timer's time; UINT64_MAX: not set */
hd_pool_t *hd_conn_pool(hd_conn_t *c);
hd_conn_facts_t *hd_conn_facts(hd_conn_t *c);
/* Frees the pool of a conn that idles when the conn itself keeps nothing there (facts,
 * attributes, an error). The owner calls it with nothing of its own in it. */
void hd_conn_trim(hd_conn_t *c);

/* >0 bytes; 0: the peer's end; HD_IO_AGAIN; HD_IO_ERROR. <len> not 0. */
ssize_t hd_conn_read(hd_conn_t *c, void *to, size_t len);
/* As hd_conn_read, of at most <max> bytes, but from the socket into <pipe>, without
 * coming up here. Only while hd_conn_splices. */
ssize_t hd_conn_read_pipe(hd_conn_t *c, hd_pipe_t *pipe, size_t max);
/* Is it a bare socket of which nothing was read ahead? */
bool hd_conn_splices(const hd_conn_t *c);
/* For inspectors: reads what is there but leaves it to be read; *bytes is all that was
 * peeked so far, one run of at most HD_BLOCK_BYTES. HD_OK: new bytes came; HD_AGAIN:
 * none; HD_DONE: the peer's end; HD_ERROR: c->err (also when the block is full). */
hd_rc_t hd_conn_peek(hd_conn_t *c, hd_str_t *bytes);
/* Drops the first <len> bytes of what was peeked. */
void hd_conn_drop_peeked(hd_conn_t *c, size_t len);
/* Puts <len> bytes of <block> back in front of what is to be read (inspectors). */
void hd_conn_unread(hd_conn_t *c, hd_block_t *block, const char *data, size_t len);
/* Moves <chain> to the output queue; flushed at the end of the turn. Ranges of files in
 * it are read when their turn comes; one that can't be read breaks the conn. */
void hd_conn_send(hd_conn_t *c, hd_chain_t *chain);
/* Do ranges of files, and pipes, go to the socket without a copy here? Not to be
 * given to in-process pipes, whose other end couldn't read them. */
bool hd_conn_sends_files(const hd_conn_t *c);
/* Copies bytes to the queue. False: block ceiling. */
bool hd_conn_try_send_copy(hd_conn_t *c, const char *data, size_t len) HD_MUST_CHECK;
/* Offers bytes to the kernel at once, where nothing is queued and the stack is a bare
 * socket: how many are done with (0: none), the rest is the caller's to send. A failure
 * is told as that of a flush, with the bytes lost as if they had been queued. */
size_t hd_conn_try_write(hd_conn_t *c, const char *data, size_t len) HD_MUST_CHECK;
void hd_conn_flush(hd_conn_t *c); /* now rather than at the turn's end */
/* By a layer that holds bytes back: it is flushed at the end of the turn. */
void hd_conn_flush_later(hd_conn_t *c);
/* Marks for on_writable, bytes (kept in KB, below 64 MB); default 32 KB and 16 KB. */
void hd_conn_set_marks(hd_conn_t *c, size_t high, size_t low);
bool hd_conn_is_high(const hd_conn_t *c);
/* on_writable comes once the queue is at or below the low mark and the stack takes more.
 */
void hd_conn_want_writable(hd_conn_t *c);
/* Our half ends after what is queued (FIN). */
void hd_conn_shutdown(hd_conn_t *c);
/* <linger_ms> 0: what the kernel takes in this turn goes, the rest is lost. Else what is
 * queued goes, then our half ends, then the peer's bytes are read and dropped until its
 * end, all within <linger_ms>: so that an answer isn't lost by a reset (RFC 9112 §9.6).
 */
void hd_conn_close(hd_conn_t *c, uint64_t linger_ms);
/* Was it opened more than <ms> ago? <ms> 0: no. */
bool hd_conn_is_older(const hd_conn_t *c, uint64_t ms);
void hd_conn_reset(hd_conn_t *c);
/* Posts on_readable (bytes are left that the owner didn't take). */
void hd_conn_wake(hd_conn_t *c);
/* The same, for the next turn: more is there than one may take while others wait. */
void hd_conn_yield(hd_conn_t *c);
/* How much an owner may read in one turn where nothing else holds it up. */
#define HD_CONN_TURN_BYTES (256 * 1024)
/* Sets c->err (the first reason stays) and returns HD_ERROR. */
hd_rc_t hd_conn_fail(hd_conn_t *c, hd_err_code_t code, const char *fmt, ...)
    HD_PRINTF(3, 4);
/* The address policies see: PROXY/HBONE's if there is one, else the socket's. */
const hd_addr_t *hd_conn_remote(const hd_conn_t *c);
const hd_addr_t *hd_conn_local(const hd_conn_t *c); /* the original destination, if any */
/* Where it was going when it came to us: as NAT, TPROXY or a PROXY head say. AF_UNSPEC: to
 * us, so whoever passed it on there would pass it on to himself. */
const hd_addr_t *hd_conn_original_dst(const hd_conn_t *c);
/* The bottom's own address; AF_UNSPEC: not known (a conn that we made). */
const hd_addr_t *hd_conn_socket_local(const hd_conn_t *c);
/* The address that the socket itself has here, asked of the kernel: of upstream conns,
 * whose own isn't kept. False: it is over no socket. */
bool hd_conn_ask_local(const hd_conn_t *c, hd_addr_t *local);
/* An error has ended it, and on_closed won't tell a new owner any more. */
bool hd_conn_is_dead(const hd_conn_t *c);
/* Asks the kernel about a conn that idles, without reading: HD_OK nothing is there,
 * HD_AGAIN bytes are, HD_DONE it has ended. One system call; HD_OK for a stack that isn't
 * over a socket. */
hd_rc_t hd_conn_look(const hd_conn_t *c);
/* What the peer's kernel has confirmed at most, of all that was sent so far; for
 * hd_conn_has_missed. A bare socket knows it by itself, else this is a system call. 0:
 * not known. */
uint64_t hd_conn_ack_mark(const hd_conn_t *c);
/* The peer has closed; had it, when it did so, received not a byte of what was sent since
 * <mark>? Its FIN would have confirmed them (RFC 9293 §3.4), so it can't have acted on
 * them. False: it may have. */
bool hd_conn_has_missed(const hd_conn_t *c, uint64_t mark);
/* The bottom's descriptor when the stack is a bare socket, else -1 (splice). */
int hd_conn_bare_fd(const hd_conn_t *c);
/* Its socket, whatever lies above it, for questions to the kernel alone; -1: none. */
int hd_conn_fd(const hd_conn_t *c);
size_t hd_conns_open(const hd_loop_t *loop);
/* Each conn that is there; <look> may end any of them. One made meanwhile may be left
 * out. */
void hd_conns_each(hd_loop_t *loop, void (*look)(hd_conn_t *c, void *arg), void *arg);
/* Ends conns that idle (idle_since), those that have done so for longest: an eighth of
 * them, at least one, at most <most> and HD_CONNS_REUSE_MAX. How many have ended. Looks at
 * every conn. */
#define HD_CONNS_REUSE_MAX 32
size_t hd_conns_reuse(hd_loop_t *loop, size_t most);
