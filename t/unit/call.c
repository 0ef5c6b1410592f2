/* Calls of our own, and HTTP/2 both ways in one process: a call goes out over our HTTP/2
 * client to a conn that our HTTP/2 server serves, where a service echoes. */
#include "http/hd_h2_server_int.h"
#include "core/hd_call.h"
#include "core/hd_grpc.h"
#include "http/hd_service.h"
#include "http_test.h"

static bool breaks;

/* --- the service: echoes the body, ends with trailers --- */

static hd_rc_t echo_start(hd_req_t *req, const void *conf)
{
    (void)conf;
    req->res = (hd_res_head_t){
        .status = 200, .has_body = true, .content_length = HD_LEN_UNKNOWN};
    hd_headers_init(&req->res.headers, req->pool, 4);
    hd_headers_init(&req->res_trailers, req->pool, 4);
    hd_headers_add(&req->res.headers, HD_STR("content-type"), HD_STR("application/grpc"));
    hd_headers_add(&req->res_trailers, HD_STR("grpc-status"), HD_STR("0"));
    if (breaks)
        return hd_req_abort(req, NULL);
    hd_response_start(req);
    return HD_AGAIN;
}

static void echo_body(hd_req_t *req, hd_chain_t *body)
{
    if (hd_chain_flags(body) & HD_SLICE_END)
        hd_chain_set_flags(body, HD_SLICE_END | HD_SLICE_TRAILERS);
    hd_response_give_body(req, body);
}

static unsigned echo_cancelled;

static void echo_cancel(hd_req_t *req)
{
    (void)req;
    echo_cancelled++;
}

static const hd_service_t echo = {.name = "echo",
                                  .on_start = echo_start,
                                  .on_body = echo_body,
                                  .on_cancel = echo_cancel};

/* --- the caller --- */

typedef struct {
    unsigned status;
    hd_chain_t body;
    size_t got;
    bool ended, failed, has_trailers;
    char why[HD_ERR_TEXT_MAX];
    hd_call_t *call;
} caller_t;

static void on_head(hd_call_t *call, unsigned status, const hd_headers_t *headers)
{
    (void)headers;
    ((caller_t *)hd_call_arg(call))->status = status;
}

static void on_body(hd_call_t *call, hd_chain_t *body)
{
    caller_t *c = hd_call_arg(call);

    c->got += body->bytes;
    hd_chain_move(&c->body, body);
}

static void on_end(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *e)
{
    caller_t *c = hd_call_arg(call);

    c->ended = true;
    c->failed = e != NULL;
    c->has_trailers = trailers != NULL;
    if (e != NULL)
        snprintf(c->why, sizeof(c->why), "%s", e->text);
    c->call = NULL;
}

static const hd_call_user_t user = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

static void start_call(caller_t *c, uint64_t timeout_ms)
{
    hd_call_spec_t spec = {
        .cluster = cluster_slot,
        .method = HD_STR("POST"),
        .authority = HD_STR("example.org"),
        .path = HD_STR("/up/method"),
        .timeout_ms = timeout_ms,
        .protocol = HD_UP_HTTP2,
    };

    memset(c, 0, sizeof(*c));
    c->call = hd_call_start(loop, member, &spec, &user, c, &err);
}

static void send_message(caller_t *c, const char *text, bool is_last)
{
    hd_chain_t body;

    hd_chain_init(&body);
    if (text != NULL)
        hd_bug_on(!hd_grpc_try_add_message(&body, text, strlen(text)));
    if (is_last)
        hd_chain_set_flags(&body, HD_SLICE_END);
    hd_call_send(c->call, &body);
}

/* Whatever connects to the listening socket is served as HTTP/2. */
static hd_conn_t *serve_one(void)
{
    hd_addr_t none = {.family = AF_UNSPEC};
    hd_conn_t *c = hd_conn_create(loop, up_accept(), &none, &err);
    hd_http_entry_t entry;

    hd_bug_on(c == NULL);
    hd_http_entry_init(&entry, c, &(hd_entrance_t){listener_slot, NULL, filter_chain});
    hd_h2_serve(c, &entry);
    return c;
}

static void reset(void)
{
    hd_upool_close_all(loop);
    turn_some(loop);
    reset_conf();
    breaks = false;
    route->action = HD_ACT_SERVICE;
    route->service = hd_service_find(HD_STR("echo"));
    cluster->protocol = HD_UP_HTTP2;
}

static void test_call(const hd_addr_t *addr)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    caller_t c;
    hd_conn_t *server;

    reset();
    set_upstream(addr);
    start_call(&c, 0);
    ok(c.call != NULL && !c.ended, "nothing is called back at once");
    server = serve_one();
    send_message(&c, "one", false);
    turn_until(loop, c.got == 8);
    is_int(c.status, 200, "the head came before the end");
    is_int(hd_grpc_take_message(&c.body, 100, &bytes, &len, &err), HD_OK);
    ok(len == 3 && memcmp(bytes, "one", 3) == 0, "a message went there and back");
    free(bytes);
    send_message(&c, "two", true);
    turn_until(loop, c.ended);
    ok(!c.failed && c.has_trailers, "and trailers at the end");
    is_int(c.got, 16);
    hd_chain_free(&c.body);
    check_clean("call");

    start_call(&c, 0);
    send_message(&c, NULL, true);
    turn_until(loop, c.ended);
    ok(!c.failed, "another over the same conn");
    is_int(hd_upool_conns(), 1);
    hd_chain_free(&c.body);
    check_clean("second call");

    start_call(&c, 0);
    send_message(&c, "x", false);
    turn_until(loop, c.got > 0);
    hd_call_cancel(c.call);
    turn_until(loop, echo_cancelled == 1);
    ok(!c.ended, "no callback after cancel; the server hears of it");
    hd_chain_free(&c.body);
    check_clean("cancel");

    start_call(&c, 50);
    send_message(&c, "x", false);
    turn_until(loop, c.got > 0);
    tick(51);
    turn_until(loop, c.ended);
    ok(c.failed, "time-out of the whole: %s", c.why);
    turn_until(loop, echo_cancelled == 2);
    hd_chain_free(&c.body);
    check_clean("timeout");

    breaks = true;
    start_call(&c, 0);
    send_message(&c, NULL, true);
    turn_until(loop, c.ended);
    ok(c.failed, "reset by the server: %s", c.why);
    hd_chain_free(&c.body);
    check_clean("reset");
    breaks = false;

    hd_h2_server_end(server->owner, HD_E_RESET, "reset by the test", false);
    turn_until(loop, hd_upool_conns() == 0);
    pass("the server's conn is gone");
}

static void test_refused(void)
{
    hd_addr_t dead;
    caller_t c;
    int fd = tcp_listen(&dead);

    close(fd);
    reset();
    set_upstream(&dead);
    start_call(&c, 0);
    turn_until(loop, c.ended);
    ok(c.failed && c.status == 0, "no head, a reason: %s", c.why);
    hd_chain_free(&c.body);
    check_clean("refused");
}

/* A client over HTTP/1's engine, an upstream over HTTP/2: many streams on one conn. */
static void test_many_streams(const hd_addr_t *addr)
{
    static caller_t callers[50];
    unsigned ended = 0;

    reset();
    set_upstream(addr);
    for (unsigned i = 0; i < 50; i++) {
        start_call(&callers[i], 0);
        send_message(&callers[i], "hello", true);
    }
    hd_loop_turn(loop, 0);
    is_int(hd_upool_conns(), 1, "one conn is opened for all that wait");
    serve_one();
    while (ended < 50) {
        hd_loop_turn(loop, 1);
        ended = 0;
        for (unsigned i = 0; i < 50; i++)
            ended += callers[i].ended && !callers[i].failed;
    }
    is_int(hd_upool_conns(), 1, "50 calls over it");
    for (unsigned i = 0; i < 50; i++)
        hd_chain_free(&callers[i].body);
    check_clean("many streams");
}

/* connection_keepalive: a peer that is silent to PING is dead, one that answers isn't. */
static void test_ping(const hd_addr_t *addr)
{
    caller_t c;
    int fd;

    reset();
    set_upstream(addr);
    cluster->h2_ping_ms = 100;
    cluster->h2_ping_timeout_ms = 300;
    start_call(&c, 0);
    send_message(&c, "x", true);
    fd = up_accept();
    turn_some(loop);
    hd_bug_on(send(fd, "\0\0\0\4\0\0\0\0\0", 9, MSG_NOSIGNAL) != 9); /* SETTINGS */
    turn_some(loop);
    tick(101);
    ok(!c.ended, "PING is sent");
    tick(301);
    turn_some(loop);
    ok(c.ended && c.failed, "its answer doesn't come: %s", c.why);
    is_int(hd_upool_conns(), 0, "the conn is ended");
    hd_chain_free(&c.body);
    close(fd);
    check_clean("dead peer");

    cluster->h2_ping_ms = 100;
    cluster->h2_ping_timeout_ms = 300;
    start_call(&c, 0);
    serve_one();
    send_message(&c, "x", false);
    turn_until(loop, c.got > 0);
    for (int i = 0; i < 20; i++) {
        tick(101);
        turn_some(loop);
    }
    ok(!c.ended, "who answers stays");
    send_message(&c, "x", true);
    turn_until(loop, c.ended);
    ok(!c.failed, "to the end");
    hd_chain_free(&c.body);
    check_clean("living peer");
    hd_upool_close_all(loop);
    turn_some(loop);
}

static void test_grpc_text(void)
{
    hd_pool_t *p = hd_pool_create(0);
    hd_str_t s = hd_grpc_escape(p, HD_STR("50% \xc3\xa4\n"));

    is_mem(s.data, "50%25 %C3%A4%0A", 15);
    s = hd_grpc_unescape(p, s);
    is_mem(s.data, "50% \xc3\xa4\n", 7);
    is_int(hd_grpc_unescape(p, HD_STR("%zz%4")).len, 5, "what isn't well encoded stays");
    is_int(hd_grpc_status_from_http(503), 14);
    is_str(hd_grpc_status_name(14), "Unavailable");
    hd_pool_destroy(p);
}

static void test_grpc_frames(void)
{
    hd_chain_t in;
    uint8_t *bytes;
    size_t len;

    hd_chain_init(&in);
    ok(hd_chain_try_add_copy(&in, "\0\0\0\0", 4));
    is_int(hd_grpc_take_message(&in, 10, &bytes, &len, &err), HD_AGAIN, "half a head");
    ok(hd_chain_try_add_copy(&in, "\3ab", 3));
    is_int(hd_grpc_take_message(&in, 10, &bytes, &len, &err), HD_AGAIN, "half a body");
    ok(hd_chain_try_add_copy(&in, "c\1", 2));
    is_int(hd_grpc_take_message(&in, 10, &bytes, &len, &err), HD_OK);
    ok(len == 3 && memcmp(bytes, "abc", 3) == 0);
    free(bytes);
    ok(hd_chain_try_add_copy(&in, "\0\0\0\0", 4));
    is_int(hd_grpc_take_message(&in, 10, &bytes, &len, &err), HD_ERROR, "compressed");
    hd_chain_free(&in);
    hd_err_clear(&err);
    ok(hd_chain_try_add_copy(&in, "\0\377\377\377\377", 5));
    is_int(hd_grpc_take_message(&in, 10, &bytes, &len, &err), HD_ERROR, "too long");
    hd_chain_free(&in);
}

int main(void)
{
    hd_addr_t addr;

    hd_ignore(hd_service_register(&echo) == 0);
    start_bench();
    addr = lb.addrs[0];
    test_call(&addr);
    test_refused();
    test_many_streams(&addr);
    test_ping(&addr);
    test_grpc_text();
    test_grpc_frames();
    hd_upool_close_all(loop);
    turn_some(loop);
    end_bench();
    return done_testing();
}
