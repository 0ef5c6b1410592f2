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
} hd_tunnel_conf_t;

typedef struct {
    uint64_t bytes_down_up, bytes_up_down;
    const char *ended_by; /* "downstream", "upstream", "idle", "drain" */
    const hd_err_t *err;  /* NULL: in good order */
} hd_tunnel_result_t;

/* Takes both conns (their handlers become the tunnel's). <on_end> is called once, with
 * both conns still there but about to be closed. */
hd_tunnel_t *hd_tunnel_start(hd_conn_t *down, hd_conn_t *up, const hd_tunnel_conf_t *conf,
                             void (*on_end)(void *arg, const hd_tunnel_result_t *result),
                             void *arg);
/* Ends it now ("drain"); <on_end> is called from within. */
void hd_tunnel_stop(hd_tunnel_t *t, bool reset);
