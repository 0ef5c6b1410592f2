/* engine: the whole engine in one process, for targets that are a peer of it: bytes to a
 * client's conn, bytes as an upstream's answer to a call of our own, and at the end
 * nothing that was taken is left: requests, blocks, conns, picks. */
#pragma once
#include "core/hd_call.h"
#include "http/hd_service.h"
#include "../../t/lib/http_test.h"
#include "client.h"

/* --- what answers --- */

static void echo_body(hd_req_t *req, hd_chain_t *body)
{
    if (hd_chain_flags(body) & HD_SLICE_END)
        hd_chain_set_flags(body, HD_SLICE_END | HD_SLICE_TRAILERS);
    hd_response_give_body(req, body);
}

static hd_rc_t echo_start(hd_req_t *req, const void *conf)
{
    hd_chain_t none;

    (void)conf;
    req->res = (hd_res_head_t){
        .status = 200, .has_body = true, .content_length = HD_LEN_UNKNOWN};
    hd_headers_init(&req->res.headers, req->pool, 4);
    hd_headers_init(&req->res_trailers, req->pool, 4);
    hd_headers_add(&req->res_trailers, HD_STR("grpc-status"), HD_STR("0"));
    hd_response_start(req);
    if (!req->head.has_body) {
        hd_chain_init(&none);
        hd_chain_set_flags(&none, HD_SLICE_END);
        echo_body(req, &none);
    }
    return HD_AGAIN;
}

static void echo_cancel(hd_req_t *req)
{
    (void)req;
}

static const hd_service_t echo = {.name = "echo",
                                  .on_start = echo_start,
                                  .on_body = echo_body,
                                  .on_cancel = echo_cancel};

/* --- the client --- */

/* Our server <serve>s a client that sends the bytes. */
TAP_UNUSED static void fuzz_client(unsigned how, serve_pt *serve, void (*meanwhile)(void))
{
    hd_conn_t *c = connect_client(how, serve);

    write_all(c, how);
    if (meanwhile != NULL)
        meanwhile();
    if (!peer_closed && (how & CLOSES))
        hd_conn_close(c, 0);
    else if (!peer_closed)
        tick(70000);
    if (!peer_closed && !(how & CLOSES))
        hd_conn_reset(c);
}

/* --- the call --- */

static hd_call_t *call;

static void on_head(hd_call_t *c, unsigned status, const hd_headers_t *headers)
{
    (void)c, (void)status, (void)headers;
}

static void on_body(hd_call_t *c, hd_chain_t *body)
{
    (void)c;
    hd_chain_free(body);
}

static void on_end(hd_call_t *c, const hd_headers_t *trailers, const hd_err_t *e)
{
    (void)c, (void)trailers, (void)e;
    call = NULL;
}

static const hd_call_user_t user = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

/* A call of our own is answered by the bytes. */
TAP_UNUSED static void fuzz_upstream(unsigned how, hd_up_protocol_t protocol)
{
    hd_call_spec_t spec = {
        .cluster = cluster_slot,
        .method = HD_STR("POST"),
        .authority = HD_STR("example.org"),
        .path = HD_STR("/up/method"),
        .timeout_ms = 10000,
        .protocol = protocol,
    };
    hd_chain_t body;
    int fd;

    call = hd_call_start(loop, member, &spec, &user, NULL, &err);
    fd = up_accept();
    hd_chain_init(&body);
    hd_bug_on(!hd_chain_try_add_copy(&body, "a body", 6));
    hd_chain_set_flags(&body, HD_SLICE_END);
    if (call != NULL)
        hd_call_send(call, &body);
    hd_chain_free(&body);
    turn_some(loop);
    hd_ignore(
        send(fd, bytes, hd_min(bytes_n, (size_t)60000), MSG_NOSIGNAL | MSG_DONTWAIT) < 0);
    turn_some(loop);
    if (how & CLOSES)
        close(fd);
    turn_some(loop);
    tick(11000);
    turn_some(loop);
    if (call != NULL)
        hd_call_cancel(call);
    call = NULL;
    if (!(how & CLOSES))
        close(fd);
    hd_upool_close_all(loop);
}

TAP_UNUSED static void check_end(void)
{
    check_nothing_left();
    if (lb.picks != lb.releases) {
        fprintf(stderr, "left: %u picks of %u\n", lb.picks - lb.releases, lb.picks);
        abort();
    }
}

TAP_UNUSED static void start_engine(void)
{
    static bool is_started;

    if (is_started)
        return;
    is_started = true;
    hd_ignore(hd_service_register(&echo) == 0);
    start_bench();
    alarm(0); /* a bench of tests ends itself */
    route->action = HD_ACT_SERVICE;
    route->service = hd_service_find(HD_STR("echo"));
    route_match->path.text = HD_STR("/");
}
