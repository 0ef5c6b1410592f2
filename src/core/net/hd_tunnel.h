/* hd_tunnel: two conns become one byte stream each way: TCP proxying, Upgrade, CONNECT.
 * Half-close is passed on; back-pressure is by the conns' marks; splice is the fast path
 * where both stacks are bare sockets and a direction has filled its buffer several times
 * running. */
#pragma once
#include "core/net/hd_conn.h"

typedef struct hd_tunnel_s hd_tunnel_t;

typedef struct {
    uint64_t idle_timeout_ms;       /* nothing either way; 0: none */
    uint64_t half_close_timeout_ms; /* the same after one side's end; 0: as before */
    uint64_t send_timeout_ms; /* the upstream takes nothing of much that waits; 0: none */
    uint64_t up_rate, down_rate;    /* bytes a second towards the upstream and the client,
                                       averaged since the start; 0: no limit */
    bool ends_together; /* one side's end ends both, once what was read has been sent */
} hd_tunnel_conf_t;

typedef struct {
    uint64_t bytes_down_up, bytes_up_down;
    const char *ended_by; /* "downstream", "upstream", "idle", "deaf", "drain" */
    const hd_err_t *err;  /* NULL: in good order */
} hd_tunnel_result_t;

/* Takes both conns (their handlers become the tunnel's). <on_end> is called once, with
 * both conns still there but about to be closed. */
hd_tunnel_t *hd_tunnel_start(hd_conn_t *down, hd_conn_t *up, const hd_tunnel_conf_t *conf,
                             void (*on_end)(void *arg, const hd_tunnel_result_t *result),
                             void *arg);
/* <arg> of the tunnel that has <c>; NULL: no tunnel has it. */
void *hd_tunnel_arg(const hd_conn_t *c);
/* When the first byte came from the upstream, monotonic; 0: none did. */
uint64_t hd_tunnel_first_byte_ns(const hd_tunnel_t *t);
/* Ends it now ("drain"); <on_end> is called from within. */
void hd_tunnel_stop(hd_tunnel_t *t, bool reset);
/* The same for a reason, and without waiting for peers that don't end, too. <by> lasts. */
void hd_tunnel_fail(hd_tunnel_t *t, const char *by, const hd_err_t *err);
