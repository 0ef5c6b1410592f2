/* The request engine without an upstream: the order of steps, filters that wait, answer,
 * fail and ask for another route, the response's way back, a client that leaves. */
#include "http_test.h"

/* A filter that does what its conf says, and notes that it was called. */
typedef struct {
    char name;
    hd_rc_t rc;          /* of the first call; later ones: HD_OK */
    hd_rc_t response_rc; /* the same for the response's head */
    hd_rc_t body_rc, response_body_rc;
    bool answers, response_answers, aborts, moves;
} filter_t;

static char calls[512];

static void called(const char *what, const filter_t *f, hd_req_t *req)
{
    size_t n = strlen(calls);

    snprintf(calls + n, sizeof(calls) - n, "%s%c%s ", what, f->name,
             hd_req_is_resumed(req) ? "+" : "");
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const filter_t *f = conf;

    called("q", f, req);
    if (hd_req_is_resumed(req))
        return HD_OK;
    if (f->answers)
        return hd_req_answer(req, 403, HD_STR_NONE, HD_STR("denied"), "RBAC", "no");
    if (f->aborts)
        return hd_req_abort(req, "FI");
    if (f->moves) {
        req->head.authority = HD_STR("other.example");
        hd_req_find_route_anew(req);
    }
    if (f->rc == HD_ERROR)
        return hd_req_fail(req, 500, HD_E_MODULE, "broken");
    return f->rc;
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const filter_t *f = conf;

    called("s", f, req);
    if (hd_req_is_resumed(req))
        return HD_OK;
    if (f->response_answers)
        return hd_req_answer(req, 418, HD_STR_NONE, HD_STR("instead"), NULL, "x");
    return f->response_rc;
}

static hd_rc_t on_request_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    const filter_t *f = conf;

    (void)body;
    called("b", f, req);
    return hd_req_is_resumed(req) ? HD_OK : f->body_rc;
}

static hd_rc_t on_response_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    const filter_t *f = conf;

    (void)body;
    called("r", f, req);
    return hd_req_is_resumed(req) ? HD_OK : f->response_body_rc;
}

static void on_log(hd_req_t *req, const void *conf)
{
    called("l", conf, req);
}

static const hd_module_t module = {
    .abi = HD_MODULE_ABI,
    .name = "test",
    .conf_size = sizeof(filter_t),
    .on_request_headers = on_request_headers,
    .on_response_headers = on_response_headers,
    .on_request_body = on_request_body,
    .on_response_body = on_response_body,
    .on_log = on_log,
};

/* An action of the test: answers 200 "hello" at once, or when told. */
static bool action_waits;
static char action_seen[256];
static size_t action_body_n;

static void see(const char *what)
{
    size_t n = strlen(action_seen);

    snprintf(action_seen + n, sizeof(action_seen) - n, "%s", what);
}

static void respond(hd_req_t *req)
{
    hd_chain_t body;

    req->res = (hd_res_head_t){.status = 200, .has_body = true, .content_length = 5};
    hd_headers_init(&req->res.headers, req->pool, 4);
    hd_headers_init(&req->res_trailers, req->pool, 0);
    hd_response_start(req);
    hd_chain_init(&body);
    hd_chain_add(&body, NULL, "hello", 5, HD_SLICE_END);
    hd_response_give_body(req, &body);
}

static hd_rc_t action_start(hd_req_t *req)
{
    see("start;");
    if (!action_waits)
        respond(req);
    return HD_AGAIN;
}

static void action_give_body(hd_req_t *req, hd_chain_t *body)
{
    (void)req;
    action_body_n += body->bytes;
    if (hd_chain_flags(body) & HD_SLICE_END)
        see("body end;");
    hd_chain_free(body);
}

static void action_cancel(hd_req_t *req)
{
    (void)req;
    see("cancel;");
}

static const hd_action_ops_t action = {.name = "test",
                                       .start = action_start,
                                       .give_body = action_give_body,
                                       .cancel = action_cancel};

static filter_t a, b, c;
static hd_filter_conf_t chain[3];

static void reset(void)
{
    reset_conf();
    a = (filter_t){.name = 'a'};
    b = (filter_t){.name = 'b'};
    c = (filter_t){.name = 'c'};
    calls[0] = action_seen[0] = '\0';
    action_waits = false;
    action_body_n = 0;
    route->action = HD_ACT_FILE;
    route->filters = chain;
    route->filters_n = 3;
    route->filters_are_chain = true;
}

static void test_order(void)
{
    reset();
    start_request("GET", "/up");
    is_str(calls, "", "nothing runs within the codec's call");
    finish_request();
    is_str(calls, "qa qb qc sc sb sa rc rb ra la lb lc ", "there and back");
    is_str(client.seen, "head 200;end;finished;");
    is_str(action_seen, "start;cancel;");
    check_clean("order");
}

static void test_no_filters(void)
{
    reset();
    route->filters_n = 0;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 200;end;finished;");
    ok(strstr(client.fields, "Server: heddle\n") != NULL, "a Server field");
    ok(strstr(client.fields, "Date: ") != NULL && strstr(client.fields, " GMT\n") != NULL,
       "and a Date (RFC 9110 5.6.7)");
    is_mem(client.body, "hello", 5);
    check_clean("no filters");
}

static void test_wait(void)
{
    reset();
    b.rc = HD_AGAIN;
    start_request("GET", "/up");
    turn_some(loop);
    is_str(calls, "qa qb ", "the second filter waits");
    hd_request_wake(client.req);
    turn_some(loop);
    is_str(calls, "qa qb ", "another's wake isn't meant for it");
    hd_req_wake(client.req);
    is_str(calls, "qa qb ", "waking posts");
    finish_request();
    is_str(calls, "qa qb qb+ qc sc sb sa rc rb ra la lb lc ",
           "the same callback resumes");
    check_clean("wait");
}

static void test_answer(void)
{
    reset();
    b.answers = true;
    start_request("GET", "/up");
    finish_request();
    is_str(calls, "qa qb sc sb sa rc rb ra la lb lc ",
           "an answer: response filters and the log still run");
    is_str(client.seen, "head 403;end;finished;");
    is_mem(client.body, "denied", 6);
    is_str(action_seen, "", "the action never ran");
    check_clean("answer");

    reset();
    b.rc = HD_ERROR;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 500;end;finished;", "a failure is answered once");
    ok(strstr(client.body, "<center><h1>500 Internal Server Error</h1></center>") != NULL,
       "with nginx's page");
    check_clean("failure");

    reset();
    b.aborts = true;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "abort;finished;", "no byte of an answer");
    is_str(calls, "qa qb la lb lc ");
    check_clean("abort");
}

static void test_response_filters(void)
{
    reset();
    b.response_rc = HD_AGAIN;
    start_request("GET", "/up");
    turn_some(loop);
    is_str(client.seen, "", "the head is held up");
    hd_req_wake(client.req);
    finish_request();
    is_str(calls, "qa qb qc sc sb sb+ sa rc rb ra la lb lc ", "then the body follows");
    is_str(client.seen, "head 200;end;finished;");
    check_clean("response wait");

    reset();
    b.response_body_rc = HD_AGAIN;
    start_request("GET", "/up");
    turn_some(loop);
    is_str(client.seen, "head 200;", "the body is held up");
    is_int(client.body_n, 0);
    hd_req_wake(client.req);
    finish_request();
    is_str(client.seen, "head 200;end;finished;");
    is_mem(client.body, "hello", 5);
    check_clean("response body wait");

    reset();
    b.response_answers = true;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 418;end;finished;", "a response filter's own answer");
    is_mem(client.body, "instead", 7);
    is_str(calls, "qa qb qc sc sb sa rc rb ra la lb lc ", "passes the filters left");
    check_clean("response answer");

    reset();
    b.response_body_rc = HD_ERROR;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 200;abort;finished;",
           "after the head nothing but an abort can be said");
    is_int(client.body_n, 0, "and no byte follows");
    check_clean("response body failure");
}

static void test_request_body(void)
{
    hd_req_t *req;

    reset();
    b.rc = HD_AGAIN;
    b.body_rc = HD_AGAIN;
    action_waits = true;
    req = start_with_body("POST", 10);
    give(req, "01234", false);
    turn_some(loop);
    is_int(action_body_n, 0, "body waits while request filters do");
    hd_req_wake(req);
    turn_some(loop);
    is_int(action_body_n, 0, "then a body filter waits");
    give(req, "56789", true);
    is_int(action_body_n, 0);
    hd_req_wake(req);
    turn_some(loop);
    is_int(action_body_n, 5, "let go piece by piece");
    hd_req_wake(req);
    turn_some(loop);
    is_str(action_seen, "start;body end;");
    is_int(action_body_n, 10, "all of it came");
    ok(client.wanted > 0, "the client was asked for the body");
    respond(req);
    finish_request();
    check_clean("request body");

    reset();
    loc->client_max_body_size = 8;
    start_with_body("POST", 9);
    finish_request();
    is_str(client.seen, "head 413;end;finished;", "too long by Content-Length");
    is_str(action_seen, "", "and nobody was asked");
    action_waits = true;
    req = start_with_body("POST", HD_LEN_UNKNOWN);
    turn_some(loop);
    give(req, "0123456", false);
    give(req, "78", false);
    finish_request();
    is_str(client.seen, "head 413;end;finished;", "too long by count");
    check_clean("large body");
}

static hd_rc_t rerouting_start(hd_req_t *req)
{
    hd_request_reroute(req, HD_STR("/up/again"));
    return HD_AGAIN;
}

static const hd_action_ops_t rerouting = {.name = "reroute", .start = rerouting_start};

static void test_reroute(void)
{
    reset();
    hd_action_register(HD_ACT_INTERNAL, &rerouting);
    route->action = HD_ACT_INTERNAL;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 500;end;finished;", "ten reroutes, then it is enough");
    is_int(strlen(calls),
           11 * strlen("qa qb qc ") + strlen("sc sb sa rc rb ra la lb lc "),
           "filters ran anew each time");
    check_clean("reroute");

    reset();
    a.rc = HD_REROUTE;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 500;end;finished;", "a filter that always reroutes");
    check_clean("filter reroute");
}

/* A filter's change leads to another route; the chain doesn't begin again. */
static void test_route_anew(void)
{
    reset();
    route->filters_are_chain = false;
    route->filters_n = 0;
    http->is_xds = true;
    http->filters = chain;
    http->filters_n = 3;
    b.moves = true;
    start_request("GET", "/up");
    finish_request();
    is_str(calls, "qa qb qc sc sb sa rc rb ra la lb lc ", "each filter ran once");
    is_str(client.seen, "head 200;end;finished;");
    check_clean("route anew");
}

static void test_no_route(void)
{
    reset();
    start_request("GET", "/elsewhere");
    finish_request();
    is_str(client.seen, "head 404;end;finished;");
    check_clean("no route");

    reset();
    start_request("HEAD", "/elsewhere");
    finish_request();
    is_str(client.seen, "head 404;end;finished;");
    is_int(client.body_n, 0, "HEAD: no body (RFC 9110 9.3.2)");
    check_clean("no route, HEAD");
}

/* The client leaves in each place where a request can stand. */
static void test_gone(void)
{
    hd_req_t *req;

    for (int place = 0; place < 6; place++) {
        reset();
        action_waits = place == 3;
        a.rc = place == 1 ? HD_AGAIN : HD_OK;
        b.response_rc = place == 4 ? HD_AGAIN : HD_OK;
        b.response_body_rc = place == 5 ? HD_AGAIN : HD_OK;
        b.body_rc = place == 2 ? HD_AGAIN : HD_OK;
        req = place == 2 ? start_with_body("POST", 5) : start_request("GET", "/up");
        if (place == 2) {
            action_waits = true;
            give(req, "12345", true);
        }
        if (place > 0)
            turn_some(loop);
        hd_request_client_gone(req, HD_E_RESET, "gone");
        client.seen[0] = '\0';
        turn_some(loop);
        is_str(client.seen, "", "place %d: nobody speaks to a client that is gone",
               place);
        ok(strstr(calls, "la lb lc ") != NULL || place == 0, "it is logged");
        check_clean("gone");
    }
}

static void test_reject(void)
{
    hd_req_t *req;

    reset();
    req = new_request("GET", "/up");
    hd_request_set_entry(req, test_entry());
    hd_request_reject(req, 400, "bad");
    finish_request();
    is_str(client.seen, "head 400;end;finished;");
    check_clean("reject");

    reset();
    action_waits = true;
    req = start_with_body("POST", HD_LEN_UNKNOWN);
    turn_some(loop);
    hd_request_reject(req, 400, "bad chunk");
    give(req, "late", true);
    finish_request();
    is_str(client.seen, "head 400;end;finished;", "in the middle of a body");
    is_str(action_seen, "start;cancel;", "the action was let go of");
    check_clean("reject in body");
}

static void test_deadline(void)
{
    reset();
    http->request_timeout_ms = 1000;
    action_waits = true;
    start_with_body("POST", 10);
    turn_some(loop);
    tick(999);
    is_str(client.seen, "", "not yet");
    tick(2);
    finish_request();
    is_str(client.seen, "head 408;end;finished;", "the body didn't come in time");
    http->request_timeout_ms = 0;
    check_clean("deadline");
}

static void test_memory(void)
{
    hd_req_t *req;

    reset();
    route->filters_n = 0;
    for (int i = 0; i < 100; i++) {
        start_request("GET", "/up");
        finish_request();
    }
    req = start_request("GET", "/up");
    ok(hd_pool_bytes(req->pool) < 4096, "a request begins with %zu bytes",
       hd_pool_bytes(req->pool));
    finish_request();
    ok(sizeof(hd_req_t) < 2048, "hd_req_t has %zu", sizeof(hd_req_t));
    check_clean("memory");
}

int main(void)
{
    uint16_t number;

    start_bench();
    number = add_module(&module);
    hd_action_register(HD_ACT_FILE, &action);
    chain[0] = (hd_filter_conf_t){.name = HD_STR("a"), .module = number, .conf = &a};
    chain[1] = (hd_filter_conf_t){.name = HD_STR("b"), .module = number, .conf = &b};
    chain[2] = (hd_filter_conf_t){.name = HD_STR("c"), .module = number, .conf = &c};
    test_order();
    test_no_filters();
    test_wait();
    test_answer();
    test_response_filters();
    test_request_body();
    test_reroute();
    test_route_anew();
    test_no_route();
    test_gone();
    test_reject();
    test_deadline();
    test_memory();
    end_bench();
    return done_testing();
}
