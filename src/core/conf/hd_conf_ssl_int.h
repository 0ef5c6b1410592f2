/* What hd_conf_ssl.c and hd_conf_proxy_ssl.c share. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/net/hd_tls.h"

/* A setter for ssl_protocols; .offset is of an uint8_t. */
hd_rc_t hd_conf_set_tls_versions(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err);
void hd_conf_tls_versions(uint8_t versions, hd_tls_conf_t *tls);
/* A setter for ssl_verify_depth; .offset is of an uint16_t, hd_tls_conf_t's. */
hd_rc_t hd_conf_set_tls_depth(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err);

/* A setter for ssl_conf_command; .offset is of a hd_str_t, which grows. */
hd_rc_t hd_conf_add_tls_command(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err);
/* A setter for ssl_key_log; .offset is of a hd_str_t. */
hd_rc_t hd_conf_set_key_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err);
/* Into the settings; the master is asked for the file. */
hd_rc_t hd_conf_need_key_log(hd_conf_t *cf, hd_str_t path, hd_tls_conf_t *tls,
                             hd_err_t *err) HD_MUST_CHECK;
/* A path made absolute, or "data:" and the text, or, with variables, what stands there.
 */
hd_rc_t hd_conf_tls_path(hd_conf_t *cf, hd_str_t arg, hd_str_t *path, hd_err_t *err);

/* nginx's cache of certificates whose names have variables; zeros: off. */
typedef struct {
    uint32_t max, idle_s, valid_s;
} hd_conf_tls_cache_t;
/* A setter for ssl_certificate_cache; .offset is of a hd_conf_tls_cache_t. */
hd_rc_t hd_conf_set_tls_cache(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err);

/* What directives of certificates said. Paths by hd_conf_tls_path. */
typedef struct {
    const hd_str_t *certs, *keys;
    uint32_t n; /* of both */
    hd_str_t passwords;
    const hd_conf_tls_cache_t *cache;
    bool is_early; /* named in the handshake: there is no request yet */
} hd_conf_tls_pairs_t;
/* One of them has variables: then all are read when they are needed, as by nginx. */
bool hd_conf_tls_has_variables(const hd_conf_tls_pairs_t *p);
/* Into <tls>'s pairs. */
hd_rc_t hd_conf_tls_put_pairs(hd_conf_t *cf, const hd_conf_tls_pairs_t *p,
                              hd_tls_conf_t *tls, hd_err_t *err) HD_MUST_CHECK;
