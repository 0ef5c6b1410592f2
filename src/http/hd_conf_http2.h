/* hd_conf_http2: the settings of HTTP/2 towards clients. */
#pragma once
#include "core/hd_module.h"
#include "http/hd_http_conf.h"

extern const hd_module_t hd_http2_module;
void hd_http2_fill(const hd_conf_t *cf, hd_http_conf_t *http);
