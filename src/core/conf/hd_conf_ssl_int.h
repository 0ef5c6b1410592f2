/* What hd_conf_ssl.c and hd_conf_proxy_ssl.c share. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/net/hd_tls.h"

/* A setter for ssl_protocols; .offset is of an uint8_t. */
hd_rc_t hd_conf_set_tls_versions(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err);
void hd_conf_tls_versions(uint8_t versions, hd_tls_conf_t *tls);
