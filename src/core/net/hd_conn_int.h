/* hd_conn_int: what conn, its bottom layers and the tunnel share. */
#pragma once
#include "core/net/hd_conn.h"
#include "core/net/hd_loop_int.h"

/* c->_flags */
enum {
    HD_CF_CONNECTING = 1 << 0,     /* the socket isn't connected: reads and writes wait */
    HD_CF_DRAINED = 1 << 1,        /* the bottom has nothing until HD_EV_READ comes */
    HD_CF_LISTED = 1 << 2,         /* on the set's list of conns to be flushed */
    HD_CF_HIGH = 1 << 3,           /* was over the high mark, is not below the low one */
    HD_CF_WANT_WRITABLE = 1 << 4,  /* on_writable is owed */
    HD_CF_SHUT_WANTED = 1 << 5,    /* our half ends after the queue */
    HD_CF_SHUT_DONE = 1 << 6,      /* it has ended */
    HD_CF_BROKEN = 1 << 7,         /* a write failed: nothing goes any more */
    HD_CF_TOLD = 1 << 8,           /* the owner knows that it is over: no on_closed */
    HD_CF_HANDSHAKE_NEXT = 1 << 9, /* once connected */
    HD_CF_HOLDS = 1 << 10,         /* a layer could not flush all */
    HD_CF_END_READ = 1 << 11,      /* the end came behind bytes: told by the next read */
    HD_CF_READ_FAILED = 1 << 12,   /* the same with an error */
    HD_CF_CLIENT = 1 << 14,        /* counted (hd_clients.h) */
    HD_CF_DRAINING = 1 << 13,      /* CLOSING, our half has ended: reads are dropped */
};

/* c->_events: what _wake will tell. The lower four are HD_EV_… of the bottom. */
enum {
    HD_TELL_BOTTOM = 0x0f,
    HD_TELL_OPEN = 0x10,
    HD_TELL_READABLE = 0x20,
    HD_TELL_WRITABLE = 0x40,
    HD_TELL_CLOSED = 0x80,
};

typedef struct {
    hd_layer_t layer;
    union {
        hd_watch_t watch;
        struct { /* watch.fd is -1: the broker makes the socket, or nothing is there */
            uint64_t _fd_and_index;
            struct hd_socket_ask_s *ask; /* in the place of watch.on_ready */
        };
    };
} hd_layer_socket_t;

/* What a conn over a socket costs. */
typedef struct {
    hd_conn_t conn;
    hd_layer_socket_t socket;
} hd_conn_cell_t;

/* A local address, which most conns of a listener share. */
typedef struct hd_local_s {
    uint32_t refs;
    hd_addr_t addr;
} hd_local_t;

/* hd_conn_set.c: the conns of a loop, in slabs; freed at the end of the turn. */
hd_conn_t *hd_conn_set_take(hd_loop_t *loop); /* zeroed but for id, loop, marks */
void hd_conn_set_give(hd_conn_t *c);          /* is closed */
void hd_conn_set_list(hd_conn_t *c);          /* to be flushed in this turn */
void hd_conn_set_local(hd_conn_t *c, const hd_addr_t *local); /* once; path: kept as is */

/* hd_conn.c */
void hd_conn_set_bottom(hd_conn_t *c, hd_layer_t *l, const hd_layer_ops_t *ops);
/* An event of the bottom, passed up through the layers; from the loop only. */
void hd_conn_on_bottom(hd_conn_t *c, unsigned events);
/* The same, posted. */
void hd_conn_post_bottom(hd_conn_t *c, unsigned events);
/* The bottom has connected (or not, c->err): from the loop only. */
void hd_conn_connected(hd_conn_t *c, bool good, unsigned events);
void hd_conn_tell_later(hd_conn_t *c, unsigned what);
void hd_conn_step_closing(hd_conn_t *c);
/* hd_conn_io.c */
hd_chain_t *hd_conn_peeked(hd_conn_t *c); /* makes it, if there is none */
void hd_conn_free_peeked(hd_conn_t *c);
bool hd_conn_has_output(const hd_conn_t *c);
bool hd_conn_may_tell_writable(const hd_conn_t *c);
hd_rc_t hd_conn_shut_layers(hd_conn_t *c);

/* hd_layer_socket.c */
bool hd_layer_is_socket(const hd_layer_t *l);
ssize_t hd_layer_socket_send(hd_layer_t *l, const struct iovec *iov, int n, bool more);
ssize_t hd_layer_socket_sendfile(hd_layer_t *l, int fd, int64_t offset, size_t len);
ssize_t hd_layer_socket_splice_in(hd_layer_t *l, hd_pipe_t *pipe, size_t max);
ssize_t hd_layer_socket_splice_out(hd_layer_t *l, hd_pipe_t *pipe, size_t len);
bool hd_layer_socket_has_unread(const hd_layer_t *l);
/* hd_layer_pipe.c */
bool hd_layer_is_pipe(const hd_layer_t *l);
/* Moves from <out> what fits to the other end; bytes, or HD_IO_…. */
ssize_t hd_layer_pipe_move(hd_layer_t *l, hd_chain_t *out);
/* hd_layer_replay.c: gives <bytes> (taken) to the layer above first, then vanishes. */
hd_layer_t *hd_layer_replay_create(hd_chain_t *bytes);
