/* hd_action_tunnel: HD_ACT_TUNNEL, a CONNECT that ends here. */
#pragma once
#include "http/hd_request.h"

extern const hd_action_ops_t hd_tunnel_action;
