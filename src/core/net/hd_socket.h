/* hd_socket: every socket is made here. ◆
 *
 * Where a spec exceeds the process's rights (ports below 1024, another network namespace,
 * IP_TRANSPARENT, marks), the master's broker makes it and passes it over the channel:
 * then the answer is HD_AGAIN and comes by callback. Callers must be ready for both.
 */
#pragma once
#include "core/net/hd_addr.h"
#include "core/net/hd_loop.h"

typedef struct {
    hd_addr_t bind;  /* AF_UNSPEC: not bound; else family decides */
    uint16_t family; /* when not bound */
    uint8_t type;    /* SOCK_STREAM, SOCK_DGRAM */
    bool listen;     /* then backlog counts */
    bool reuseport, transparent, freebind, v6only, nodelay;
    int backlog;        /* 0: 511 */
    int rcvbuf, sndbuf; /* bytes; 0: the kernel's */
    int fastopen;       /* conns that may wait whose first packet had data; 0: off */
    uint32_t mark;      /* SO_MARK; 0: none */
    int32_t netns;      /* a namespace known to the broker; 0: our own */
    uint32_t keepalive_idle_s, keepalive_interval_s, keepalive_probes; /* 0: off */
} hd_socket_spec_t;

typedef struct hd_socket_wait_s {
    /* <fd> -1: <err>. Not called after hd_socket_cancel. */
    void (*on_socket)(struct hd_socket_wait_s *w, int fd, const hd_err_t *err);
    uint64_t _ticket;
} hd_socket_wait_t;

/* HD_OK: *fd, non-blocking, close-on-exec, the caller's. HD_AGAIN: <wait> is called back.
 * HD_ERROR: <err>, with errno kept. */
hd_rc_t hd_socket_open(hd_loop_t *loop, const hd_socket_spec_t *spec, int *fd,
                       hd_socket_wait_t *wait, hd_err_t *err) HD_MUST_CHECK;
void hd_socket_cancel(hd_socket_wait_t *wait);

/* Filled by core/proc: how a process asks the broker. NULL: no broker, all is done here.
 */
typedef struct {
    bool (*is_beyond_rights)(const hd_socket_spec_t *spec);
    hd_rc_t (*ask)(hd_loop_t *loop, const hd_socket_spec_t *spec, hd_socket_wait_t *wait,
                   hd_err_t *err);
    void (*cancel)(hd_socket_wait_t *wait);
} hd_socket_broker_t;
extern const hd_socket_broker_t *hd_socket_broker;
/* What the broker itself (and hd_socket_open) does: in this process, at once. */
hd_rc_t hd_socket_make(const hd_socket_spec_t *spec, int *fd,
                       hd_err_t *err) HD_MUST_CHECK;
/* What <to> says otherwise than <from> and what may change while <fd> listens: sizes,
 * backlog, keep-alive, fast open, transparency, delays. */
hd_rc_t hd_socket_adjust(int fd, const hd_socket_spec_t *from, const hd_socket_spec_t *to,
                         hd_err_t *err) HD_MUST_CHECK;
