/* hd_conf_grpc: grpc_pass and its directives. */
#pragma once
#include "http/hd_conf_int.h"

void hd_grpc_register(void); /* its modules, after the proxy's */
/* HD_DECLINED: there is no grpc_pass in this place. */
hd_rc_t hd_http_grpc_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                           hd_err_t *err);
