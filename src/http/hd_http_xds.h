/* hd_http_xds: what Envoy's HttpConnectionManager and router do to heads; called by the
 * engine where http->is_xds. */
#pragma once
#include "http/hd_request.h"

void hd_http_xds_request(hd_req_t *req); /* before routing */
/* Before a try's head goes out. */
void hd_http_xds_try(hd_req_t *req, const hd_proxy_conf_t *proxy, uint32_t attempt);
/* A route's other host, upstream; what the client asked for is told. */
void hd_http_xds_set_host(hd_req_t *req, const hd_proxy_conf_t *proxy, hd_str_t host);
void hd_http_xds_routed(hd_req_t *req);   /* the router's words, before header changes */
void hd_http_xds_response(hd_req_t *req); /* before the response filters */
/* Did the client come by TLS, here or to the proxy before us that is believed? */
bool hd_http_xds_came_by_tls(const hd_req_t *req);
