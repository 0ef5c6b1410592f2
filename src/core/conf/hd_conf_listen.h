/* hd_conf_listen: `listen ADDRESS [parameters]`, the same in http and stream. */
#pragma once
#include "core/base/hd_array.h"
#include "core/conf/hd_conf.h"

#define HD_CONF_LISTENS_MAX 512

typedef struct {
    hd_socket_spec_t socket; /* with its address */
    hd_str_t name;           /* the address as text: names the listener */
    bool is_ssl, is_http2, is_default, proxy_protocol, original_dst;
    bool has_options;      /* of the socket: stand once for an address */
    const hd_node_t *node; /* where it was said; good while configuration is built */
} hd_conf_listen_t;

/* Parses one `listen` directive. Adds what it names (a host name: all its addresses) to
 * <listens>, items hd_conf_listen_t with strings in cf->temp. */
hd_rc_t hd_conf_parse_listen(hd_conf_t *cf, const hd_str_t *args, bool is_stream,
                             hd_array_t *listens, hd_err_t *err) HD_MUST_CHECK;
/* The address of a server that has no `listen`: port 80, or 8000 for an ordinary user. */
hd_rc_t hd_conf_default_listen(hd_conf_t *cf, hd_array_t *listens,
                               hd_err_t *err) HD_MUST_CHECK;
/* Merges what a second server says of the same address: options once, ssl by any. Says
 * which other place is in the way. */
hd_rc_t hd_conf_merge_listen(hd_conf_listen_t *to, const hd_conf_listen_t *from,
                             hd_err_t *err) HD_MUST_CHECK;
