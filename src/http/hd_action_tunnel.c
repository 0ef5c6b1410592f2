/* HD_ACT_TUNNEL: a CONNECT ends here: its bytes go on to an endpoint as they are (RFC
 * 9110 §9.3.6; nginx's tunnel_pass, Envoy's connect_config). The endpoint is found, tried
 * and counted as for any request that is passed on: the action is the proxy's, but that
 * nothing is spoken on the upstream's conn (hd_raw_client.c), and that a client that has
 * closed its side gets its tunnel, whose other half is open. */
#include "http/hd_action_tunnel.h"
#include "http/hd_try.h"

static hd_rc_t start(hd_req_t *req)
{
    return hd_proxy_action.start(req);
}

static void on_wake(hd_req_t *req)
{
    hd_proxy_action.on_wake(req);
}

static void cancel(hd_req_t *req)
{
    hd_proxy_action.cancel(req);
}

const hd_action_ops_t hd_tunnel_action = {
    .name = "tunnel", .start = start, .on_wake = on_wake, .cancel = cancel};

bool hd_action_is_tunnel(const hd_req_t *req)
{
    return req->action_ops == &hd_tunnel_action;
}
