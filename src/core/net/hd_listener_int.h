/* hd_listener_int: what the files of the listener share. */
#pragma once
#include "core/net/hd_listener.h"

/* One listener filter. HD_OK: has looked; HD_AGAIN: waits for bytes; HD_ERROR: c->err,
 * the conn is to be closed. */
hd_rc_t hd_inspect_proxy(hd_conn_t *c);
hd_rc_t hd_inspect_original_dst(hd_conn_t *c);
hd_rc_t hd_inspect_tls(hd_conn_t *c);
hd_rc_t hd_inspect_http(hd_conn_t *c);

/* "http/1.0", "http/1.1" or "h2c" by the first bytes. HD_DECLINED: something else. */
hd_rc_t hd_guess_http(hd_str_t bytes, hd_str_t *protocol);
