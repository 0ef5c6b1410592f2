/* What hd_conf_ssl.c and hd_conf_proxy_ssl.c share. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/net/hd_tls.h"

/* A setter for ssl_protocols; .offset is of an uint8_t. */
hd_rc_t hd_conf_set_tls_versions(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err);
void hd_conf_tls_versions(uint8_t versions, hd_tls_conf_t *tls);

/* A setter for ssl_conf_command; .offset is of a hd_str_t, which grows. */
hd_rc_t hd_conf_add_tls_command(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err);
/* A setter of what is read and has no effect, the reason being in .post. */
hd_rc_t hd_conf_tls_no_effect(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err);
/* A setter for ssl_key_log; .offset is of a hd_str_t. */
hd_rc_t hd_conf_set_key_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err);
/* Into the settings; the master is asked for the file. */
hd_rc_t hd_conf_need_key_log(hd_conf_t *cf, hd_str_t path, hd_tls_conf_t *tls,
                             hd_err_t *err) HD_MUST_CHECK;
/* A path, or "data:" and the text; variables are refused. */
hd_rc_t hd_conf_tls_path(hd_conf_t *cf, hd_str_t arg, hd_str_t *path, hd_err_t *err);
