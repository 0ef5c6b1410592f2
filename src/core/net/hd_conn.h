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
 * next event: the owner doesn't read again. An owner that stops reading (back-pressure)
 * just doesn't call read; is_readable stays set, and it calls again when it wants more.
 * Writing: hd_conn_send moves a chain into the output queue; one flush a turn hands it to
 * the layers (one writev, or one SSL_write per 16 KB and one send). on_writable comes
 * when the queue has fallen below the low mark after it had passed the high one. Closing:
 * hd_conn_close flushes what is queued within the turn or lingers for it up to
 * <linger_ms>; hd_conn_reset drops it. Afterwards the handler hears nothing more; the
 * memory goes at the end of the turn. on_closed is called at most once, when the peer or
 * an error ended it; c->err says why; the owner still calls hd_conn_close.
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

/* What a layer does. <l->below> is NULL for the bottom. Results as hd_conn_read/_writev.
 */
typedef struct {
    const char *name;
    ssize_t (*read)(hd_layer_t *l, void *to, size_t len);
    ssize_t (*writev)(hd_layer_t *l, const struct iovec *iov, int n);
    /* Pushes down what the layer itself holds back; HD_AGAIN: not all went. */
    hd_rc_t (*flush)(hd_layer_t *l);
    hd_rc_t (*shutdown)(hd_layer_t *l); /* our half: FIN, close_notify, END_STREAM */
    void (*close)(hd_layer_t *l, bool reset); /* and free the layer */
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
} hd_conn_handler_t;

typedef enum {
    HD_CONN_CONNECTING,
    HD_CONN_HANDSHAKE, /* the stack is not open yet: waits for the peer's handshake bytes
                        */
    HD_CONN_OPEN,
    HD_CONN_CLOSING, /* ours is over; waits for queued output, at most linger_ms */
    HD_CONN_CLOSED,
} hd_conn_state_t;

/* Facts that layers found out, for those above and for attributes. Made lazily, in
 * c->pool. */
typedef struct hd_conn_facts_s {
    hd_addr_t original_dst;                  /* AF_UNSPEC: none */
    hd_addr_t proxied_remote, proxied_local; /* from PROXY protocol or HBONE */
    hd_str_t sni;                            /* as asked for, lower case */
    hd_str_t alpn;                           /* negotiated */
    hd_str_t offered_alpn;                   /* the ClientHello's list in wire form */
    hd_str_t transport;    /* "tls", "raw_buffer" as seen by the inspector */
    hd_str_t app_protocol; /* "http/1.1", "h2c", "" as seen by the inspector */
    /* The peer's verified identity; set solely by the TLS or HBONE layer. */
    hd_str_t peer_principal; /* spiffe://TD/ns/NS/sa/SA; empty: none */
    hd_str_t local_principal;
    struct hd_tls_peer_s *tls; /* certificate facts, see hd_tls.h; NULL: not TLS */
} hd_conn_facts_t;

struct hd_conn_s {
    hd_layer_t *top, *bottom;
    hd_loop_t *loop;
    const hd_conn_handler_t *handler;
    void *owner;              /* the handler's */
    uint64_t id;              /* "*5" in logs; unique in the process */
    hd_chain_t in;            /* bytes peeked by listener filters or layers, read first */
    hd_chain_t out;           /* the output queue */
    hd_pool_t *pool;          /* NULL until hd_conn_pool */
    hd_conn_facts_t *facts;   /* NULL until hd_conn_facts */
    struct hd_attrs_s *attrs; /* attributes of the conn, inherited by internal hops */
    hd_err_t *err;            /* NULL: none; in the pool */
    hd_addr_t remote, local;  /* of the bottom */
    uint64_t bytes_in, bytes_out;
    uint8_t state; /* hd_conn_state_t, changed by move_conn in hd_conn.c only */
    bool is_readable, is_writable;
    bool peer_closed; /* the end was read: no more bytes come */
    bool out_was_high;
    bool is_upstream;
    hd_post_t _flush, _wake;
};

/* A conn over a connected descriptor (taken), e.g. an accepted one. The handler hears
 * from it in this turn if something is there. NULL: <err>, fd closed. */
hd_conn_t *hd_conn_create(hd_loop_t *loop, int fd, const hd_addr_t *remote,
                          hd_err_t *err);
/* Starts to connect: on_open or on_closed follows, never from within this call. <bind>
 * NULL or a spec whose bind, mark … apply. <timeout_ms> bounds CONNECTING and HANDSHAKE
 * together. */
hd_conn_t *hd_conn_connect(hd_loop_t *loop, const hd_addr_t *to,
                           const hd_socket_spec_t *bind, uint64_t timeout_ms,
                           const hd_conn_handler_t *handler, void *owner, hd_err_t *err);
/* Two conns, each the other's peer, in this process. */
hd_rc_t hd_conn_create_pipe(hd_loop_t *loop, hd_conn_t *ends[2], hd_err_t *err);

/* On top of the stack; a layer that needs a handshake sets HD_CONN_HANDSHAKE first. */
void hd_conn_push(hd_conn_t *c, hd_layer_t *l);
/* A layer's handshake is over (or failed, c->err set): used by layers. */
void hd_conn_handshake_done(hd_conn_t *c, bool good);

void hd_conn_set_handler(hd_conn_t *c, const hd_conn_handler_t *handler, void *owner);
hd_pool_t *hd_conn_pool(hd_conn_t *c);
hd_conn_facts_t *hd_conn_facts(hd_conn_t *c);
/* Frees pool, facts and input block of a conn that idles, as far as nothing lives there.
 */
void hd_conn_trim(hd_conn_t *c);

/* >0 bytes; 0: the peer's end; HD_IO_AGAIN; HD_IO_ERROR. */
ssize_t hd_conn_read(hd_conn_t *c, void *to, size_t len);
/* Puts <len> bytes of <block> back in front of what is to be read (inspectors). */
void hd_conn_unread(hd_conn_t *c, hd_block_t *block, const char *data, size_t len);
/* Moves <chain> to the output queue; flushed at the end of the turn. */
void hd_conn_send(hd_conn_t *c, hd_chain_t *chain);
/* Copies bytes to the queue. False: block ceiling. */
bool hd_conn_try_send_copy(hd_conn_t *c, const char *data, size_t len) HD_MUST_CHECK;
void hd_conn_flush(hd_conn_t *c); /* now rather than at the turn's end */
/* Marks for on_writable, bytes; default 64 KB and 16 KB. */
void hd_conn_set_marks(hd_conn_t *c, size_t high, size_t low);
bool hd_conn_is_high(const hd_conn_t *c);
/* Our half ends after what is queued (FIN). */
void hd_conn_shutdown(hd_conn_t *c);
void hd_conn_close(hd_conn_t *c, uint64_t linger_ms);
void hd_conn_reset(hd_conn_t *c);
/* Posts on_readable (bytes are left that the owner didn't take). */
void hd_conn_wake(hd_conn_t *c);
/* Sets c->err (the first reason stays) and returns HD_ERROR. */
hd_rc_t hd_conn_fail(hd_conn_t *c, hd_err_code_t code, const char *fmt, ...)
    HD_PRINTF(3, 4);
/* The address policies see: PROXY/HBONE's if there is one, else the socket's. */
const hd_addr_t *hd_conn_remote(const hd_conn_t *c);
const hd_addr_t *hd_conn_local(const hd_conn_t *c); /* the original destination, if any */
/* The bottom's descriptor when the stack is a bare socket, else -1 (splice). */
int hd_conn_bare_fd(const hd_conn_t *c);
size_t hd_conns_open(const hd_loop_t *loop);
