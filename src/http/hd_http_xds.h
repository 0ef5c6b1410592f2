/* hd_http_xds: what Envoy's HttpConnectionManager and router do to heads; called by the
 * engine where http->is_xds. */
#pragma once
#include "http/hd_request.h"

void hd_http_xds_request(hd_req_t *req); /* before routing */
/* Before a try's head goes out. */
void hd_http_xds_try(hd_req_t *req, const hd_proxy_conf_t *proxy, uint32_t attempt);
void hd_http_xds_response(hd_req_t *req); /* before the response filters */
