/* hd_conf_http: nginx's `http { … }` block: directives to listener, route table and
 * secret resources. The parts of the block are modules like any other: settings
 * (hd_conf_core.c), locations (hd_conf_location.c), proxy_pass (hd_conf_proxy.c), answers
 * and headers (hd_conf_answer.c). */
#pragma once
#include "core/hd_module.h"

/* Registers all of them; once, at process start, behind hd_http_register. */
void hd_http_conf_register(void);
