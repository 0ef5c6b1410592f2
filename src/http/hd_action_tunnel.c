/* HD_ACT_TUNNEL: a CONNECT ends here: its bytes go on to an endpoint as they are
 * (RFC 9110 §9.3.6; Envoy's connect_config). */
#include "http/hd_action_tunnel.h"
#include "core/net/hd_proxy_protocol.h"
#include "http/hd_request_int.h"

typedef struct {
    hd_req_t *req;
    hd_pick_t pick;
    hd_conn_t *up; /* being opened; NULL: none, or given to the tunnel */
    bool is_picked;
} tunnel_t;

/* At the request's end: the log still asks where it went. */
static void free_tunnel(void *arg)
{
    tunnel_t *t = arg;

    if (t->is_picked)
        hd_balancer->release(t->req->member, &t->pick,
                             t->req->response_started && !t->req->is_local_reply
                                 ? HD_RESULT_OK
                             : t->req->client_gone ? HD_RESULT_CANCELLED
                                                   : HD_RESULT_CONNECT,
                             0);
}

static void on_open(hd_conn_t *c)
{
    tunnel_t *t = c->owner;
    hd_req_t *req = t->req;

    t->up = NULL;
    hd_balancer->report(req->member, &t->pick, HD_RESULT_OK, 0);
    req->res = (hd_res_head_t){.status = 200, .content_length = HD_LEN_UNKNOWN};
    hd_headers_init(&req->res.headers, req->pool, 4);
    hd_headers_init(&req->res_trailers, req->pool, 0);
    req->is_local_reply = false;
    req->upstream_head_ns = hd_loop_now_ns(req->loop);
    hd_request_tunnel(req, c);
}

static void on_early_bytes(hd_conn_t *c)
{
    (void)c; /* they stay unread until the tunnel has the conn */
}

static void on_closed(hd_conn_t *c)
{
    tunnel_t *t = c->owner;

    t->up = NULL;
    hd_balancer->report(t->req->member, &t->pick, HD_RESULT_CONNECT, 0);
    if (c->err != NULL)
        hd_ignore(hd_req_err(t->req, c->err->code, "%s", c->err->text));
    hd_conn_reset(c);
    hd_response_fail(t->req, 503, HD_RF(UPSTREAM_CONNECT),
                     "upstream_reset_before_response_started{connection_failure}");
}

static const hd_conn_handler_t connecting = {
    .on_open = on_open, .on_readable = on_early_bytes, .on_closed = on_closed};

static hd_rc_t refuse(hd_req_t *req, const hd_err_t *err)
{
    uint64_t flag = err->code == HD_E_NO_CLUSTER   ? HD_RF(NO_CLUSTER)
                    : err->code == HD_E_NO_HEALTHY ? HD_RF(NO_HEALTHY)
                    : err->code == HD_E_LIMIT      ? HD_RF(UPSTREAM_OVERFLOW)
                                                   : HD_RF(UPSTREAM_CONNECT);

    hd_ignore(hd_req_err(req, err->code, "%s", err->text));
    hd_response_local(req, 503, HD_STR_NONE, HD_STR_NONE, flag, "upstream_unavailable");
    return HD_DONE;
}

static hd_rc_t open_conn(tunnel_t *t, hd_err_t *err)
{
    const hd_cluster_t *cluster = t->pick.cluster;
    hd_gauge_id_t counted;
    hd_socket_spec_t spec = {.bind = cluster->bind,
                             .family = t->pick.addr.family,
                             .type = SOCK_STREAM,
                             .nodelay = t->pick.addr.family != AF_UNIX};

    if (!hd_cluster_try_count(t->req->member, t->pick.cluster_slot, cluster, false,
                              HD_CG_CONNS, &counted))
        return hd_err_set(err, HD_E_LIMIT, "max_connections of %.*s is reached",
                          HD_STR_ARG(cluster->name));
    t->up = hd_conn_connect(t->req->loop, &t->pick.addr, &spec,
                            cluster->connect_timeout_ms, &connecting, t, err);
    hd_conn_count(t->up, t->req->member, counted);
    if (t->up == NULL)
        return HD_ERROR;
    t->up->is_upstream = true;
    if (t->pick.proxy_version != 0 && t->req->conn != NULL &&
        hd_proxy_push(t->up, t->pick.proxy_version, hd_conn_remote(t->req->conn),
                      hd_conn_local(t->req->conn), HD_STR_NONE, err) != HD_OK)
        return HD_ERROR;
    if (t->pick.tls != NULL && hd_tls_push_client(t->up, t->pick.tls, NULL, err) != HD_OK)
        return HD_ERROR;
    return HD_OK;
}

static hd_rc_t pick_and_open(tunnel_t *t)
{
    hd_err_t err = {0};
    hd_rc_t rc = hd_balancer->pick(t->req->member, &t->pick, &t->req->wake, &err);

    if (rc == HD_AGAIN)
        return rc;
    if (rc != HD_OK)
        return refuse(t->req, &err);
    t->is_picked = true;
    t->req->cluster_name = t->pick.cluster->name;
    return open_conn(t, &err) == HD_OK ? HD_AGAIN : refuse(t->req, &err);
}

static hd_rc_t start(hd_req_t *req)
{
    tunnel_t *t = hd_pool_new(req->pool, tunnel_t);

    req->action = t;
    t->req = req;
    if (req->target == NULL || req->target->cluster == NULL)
        return hd_req_fail(req, 503, HD_E_NO_CLUSTER, "the route names no cluster");
    t->pick.cluster_slot = req->target->cluster;
    t->pick.subset = req->target->subset;
    t->pick.subset_n = req->target->subset_n;
    if (req->conn != NULL && req->conn->facts != NULL)
        t->pick.original_dst = req->conn->facts->original_dst;
    req->upstream_start_ns = hd_loop_now_ns(req->loop);
    hd_pool_defer(req->pool, free_tunnel, t);
    return pick_and_open(t);
}

static void on_wake(hd_req_t *req)
{
    tunnel_t *t = req->action;

    if (!t->is_picked)
        hd_ignore(pick_and_open(t) != HD_OK); /* a failure has answered */
}

static void cancel(hd_req_t *req)
{
    tunnel_t *t = req->action;
    hd_conn_t *up = t->up;

    t->up = NULL;
    if (up != NULL)
        hd_conn_reset(up);
}

const hd_action_ops_t hd_tunnel_action = {
    .name = "tunnel", .start = start, .on_wake = on_wake, .cancel = cancel};
