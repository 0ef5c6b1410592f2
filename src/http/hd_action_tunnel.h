/* hd_action_tunnel: HD_ACT_TUNNEL, a CONNECT that ends here. */
#pragma once
#include "http/hd_request.h"

extern const hd_action_ops_t hd_tunnel_action;
/* <req> is answered by it: its upstream is spoken to by its client alone. */
bool hd_action_is_tunnel(const hd_req_t *req);
