/* hd_datagram: the datagram sockets that listeners have, and who serves them: src/stream
 * fills the table. The acceptor owns them; each worker has its own (SO_REUSEPORT), so
 * that a client's datagrams come to one worker.
 */
#pragma once
#include "core/net/hd_addr.h"
#include "core/loom/hd_slot.h"
#include "core/net/hd_loop.h"

typedef struct {
    hd_loop_t *loop;
    int fd;
    hd_addr_t addr;        /* what it is bound to */
    const hd_slot_t *slot; /* the listener whose it is; NULL: nobody's now */
    uint32_t conns_max;
    void *owner; /* the server's own */
} hd_datagram_socket_t;

typedef struct {
    /* There are datagrams; comes again while there are. */
    void (*on_readable)(hd_datagram_socket_t *s);
    /* It is closed when this returns: the listener was removed, or the process drains. */
    void (*on_close)(hd_datagram_socket_t *s);
} hd_datagram_server_t;

/* NULL: nobody serves any. */
extern const hd_datagram_server_t *hd_datagram_server;
