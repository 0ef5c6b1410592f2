/* hd_conf_ssl: nginx's ssl_* directives of servers (http and stream) and proxy_ssl_* of
 * their upstreams: to TLS settings. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/hd_module.h"

extern const hd_module_t hd_ssl_module, hd_proxy_ssl_module;

/* At start: names of certificates may have variables from then on. */
void hd_conf_tls_register(void);

/* The settings of a server block, <cf> being that block's: in cf->pool. *tls NULL: there
 * is no certificate. <alpn>: wire form. */
hd_rc_t hd_conf_ssl_server(hd_conf_t *cf, hd_str_t alpn, const hd_tls_conf_t **tls,
                           hd_err_t *err) HD_MUST_CHECK;
void hd_conf_ssl_warn(const hd_conf_t *cf); /* of what has no effect as it is set */
bool hd_conf_ssl_has_cert(const hd_conf_t *cf); /* or rejects all handshakes */
bool hd_conf_ssl_verifies(const hd_conf_t *cf); /* asks clients for certificates */
uint32_t hd_conf_ssl_handshake_timeout_ms(const hd_conf_t *cf);
/* The settings towards an upstream named <host> (without port). */
hd_rc_t hd_conf_ssl_upstream(hd_conf_t *cf, hd_str_t host, hd_str_t alpn,
                             const hd_tls_conf_t **tls, hd_err_t *err) HD_MUST_CHECK;
/* No proxy_ssl_name says how the upstream is called: its host does. *is_sent: by SNI. */
bool hd_conf_ssl_is_by_host(const hd_conf_t *cf, bool *is_sent);
/* $upstream_last_server_name: that of each server is. */
bool hd_conf_ssl_is_by_server(const hd_conf_t *cf);
/* proxy_ssl_name with (other) variables, in cf->pool; NULL: it has none. *is_sent: by SNI. */
hd_rc_t hd_conf_ssl_name(hd_conf_t *cf, const struct hd_expr_s **name, bool *is_sent,
                         hd_err_t *err) HD_MUST_CHECK;
/* stream: proxy_ssl on. */
bool hd_conf_ssl_upstream_is_on(const hd_conf_t *cf);
