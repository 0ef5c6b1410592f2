/* hd_conf_tunnel: tunnel_pass and its directives. */
#pragma once
#include "http/hd_conf_int.h"

void hd_tunnel_register(void); /* its module, after the proxy's */
/* HD_DECLINED: there is no tunnel_pass in this place. */
hd_rc_t hd_http_tunnel_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                             hd_err_t *err);
