/* The proxy action over HTTP/1 upstreams: sockets of the test. What a try's end means,
 * retries as a module asks for them, bodies, time-outs, the race with a closing conn. */

#include "http/hd_peer_idle.h"
#include "http_test.h"

/* A module that says what the test wants of a try's result. */
typedef struct {
    int unused;
} judge_t;

static hd_verdict_t verdict;
static uint64_t verdict_wait_ms;
static hd_try_result_t results[8];
static unsigned results_n;

static hd_verdict_t on_try_result(hd_req_t *req, const void *conf,
                                  const hd_try_result_t *r, uint64_t *wait_ms)
{
    (void)req;
    (void)conf;
    if (results_n < hd_countof(results))
        results[results_n++] = *r;
    *wait_ms = verdict_wait_ms;
    return verdict;
}

static const hd_module_t judge = {.abi = HD_MODULE_ABI,
                                  .name = "judge",
                                  .conf_size = sizeof(judge_t),
                                  .on_try_result = on_try_result};
static judge_t judge_conf;
static hd_filter_conf_t chain[1];
static hd_addr_t up_addr;
static uint16_t rerouter_number;

#define OK_5 "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Up: yes\r\n\r\nhello"

static void reset(void)
{
    hd_upool_close_all(loop);
    turn_some(loop);
    hd_peer_idle_forget(); /* tests close in unheard-of ways */
    reset_conf();
    set_upstream(&up_addr);
    verdict = HD_TRY_DONE;
    verdict_wait_ms = 0;
    results_n = 0;
    route->filters = chain;
    route->filters_n = 1;
    route->filters_are_chain = true;
}

static void test_get(void)
{
    const char *head;
    int fd;

    reset();
    start_request("GET", "/up?x=1");
    fd = up_accept();
    head = up_read(fd, "\r\n\r\n");
    ok(strncmp(head, "GET /up?x=1 HTTP/1.1\r\nHost: example.org\r\n", 41) == 0, "%.60s",
       head);
    up_write(fd, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;");
    is_mem(client.body, "hello", 5);
    ok(strstr(client.fields, "X-Up: yes\n") != NULL, "the upstream's fields");
    is_int(lb.last_result, HD_RESULT_OK);
    is_int(lb.last_status, 200);
    check_clean("get");

    start_request("GET", "/up");
    up_read(fd, "\r\n\r\n");
    up_write(fd, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "a second one on the same conn");
    is_int(hd_upool_conns(), 1);
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS), 1,
           "which counts while it idles");
    close(fd);
    turn_until(loop, hd_upool_conns() == 0);
    pass("its end is noticed while it idles");
    check_clean("keep-alive");
}

static void test_no_body_answers(void)
{
    static const char *const rows[] = {
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"a\"\r\n\r\n"};
    int fd;

    reset();
    start_request("HEAD", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "HEAD");
    is_int(client.body_n, 0);
    for (size_t i = 0; i < hd_countof(rows); i++) {
        start_request("GET", "/up");
        up_read(fd, "\r\n\r\n");
        up_write(fd, rows[i]);
        finish_request();
        ok(client.status == (i == 0 ? 204u : 304u) && client.body_n == 0, "%.12s",
           rows[i]);
    }
    is_int(hd_upool_conns(), 1, "all on one conn");
    close(fd);
    check_clean("no body");
}

static void test_interim(void)
{
    int fd;

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: "
                 "</a>\r\n\r\n" OK_5);
    finish_request();
    is_str(client.seen, "interim 103;head 200;end;finished;",
           "103 passes, 100 is ours (RFC 9110 15.2)");
    close(fd);
    check_clean("interim");
}

static void test_trailers(void)
{
    int fd;

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n");
    finish_request();
    ok(client.has_trailers && client.body_n == 3);
    close(fd);
    check_clean("trailers");
}

static void test_refused(void)
{
    hd_addr_t dead;
    int fd = tcp_listen(&dead);

    close(fd);
    reset();
    set_upstream(&dead);
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 502;end;finished;", "nobody listens");
    is_int(lb.last_result, HD_RESULT_CONNECT);
    is_int(results_n, 1);
    ok(!results[0].head_sent && results[0].status == 0);
    check_clean("refused");

    reset();
    set_upstream(&dead);
    http->is_xds = true;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 503;end;finished;", "xDS: 503 UF");
    ok(strncmp(client.body, "upstream connect error", 22) == 0);
    check_clean("refused, xds");

    reset();
    verdict = HD_TRY_RETRY;
    lb.addrs[0] = dead;
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    verdict = HD_TRY_DONE;
    up_write(fd, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "a retry saves it");
    is_int(lb.picks, 2);
    close(fd);
    check_clean("retried");

    reset();
    verdict = HD_TRY_RETRY;
    set_upstream(&dead);
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 502;end;finished;");
    is_int(lb.picks, 3, "tries_max ends it");
    check_clean("retries used up");
}

static void test_balancer_says_no(void)
{
    reset();
    lb.rc = HD_ERROR;
    lb.code = HD_E_NO_HEALTHY;
    http->is_xds = true;
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 503;end;finished;");
    is_mem(client.body, "no healthy upstream", 19);
    check_clean("no healthy");

    reset();
    lb.rc = HD_AGAIN;
    start_request("GET", "/up");
    turn_some(loop);
    ok(lb.wake != NULL && client.seen[0] == '\0', "the balancer may wait");
    lb.rc = HD_OK;
    hd_post(loop, lb.wake);
    {
        int fd = up_accept();

        up_read(fd, "\r\n\r\n");
        up_write(fd, OK_5);
        finish_request();
        close(fd);
    }
    is_str(client.seen, "head 200;end;finished;");
    check_clean("balancer waits");
}

static void test_retry_on_status(void)
{
    int first, second;

    reset();
    verdict = HD_TRY_RETRY;
    verdict_wait_ms = 25;
    start_request("GET", "/up");
    first = up_accept();
    up_read(first, "\r\n\r\n");
    up_write(first, "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
    turn_until(loop, results_n == 1);
    is_int(results[0].status, 503);
    ok(results[0].attempt == 1 && results[0].result == HD_RESULT_OK);
    turn_some(loop);
    is_int(lb.picks, 1, "back-off");
    tick(26);
    second = up_accept();
    up_read(second, "\r\n\r\n");
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_RETRIES), 1,
           "the retry is counted");
    verdict = HD_TRY_DONE;
    up_write(second, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;");
    is_int(results[1].attempt, 2);
    close(first);
    close(second);
    check_clean("retry on status");
}

static void test_retry_limit(void)
{
    int fd;

    reset();
    verdict = HD_TRY_RETRY;
    cluster->max_retries = 0;
    hd_gauge_share(member, cluster_slot->gauges_first + HD_CG_RETRIES, true);
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
    finish_request();
    is_str(client.seen, "head 503;end;finished;", "no place for a retry");
    is_int(lb.picks, 1);
    close(fd);
    check_clean("retry limit");
}

static void test_request_limit(void)
{
    hd_gauge_id_t g = cluster_slot->gauges_first + HD_CG_REQUESTS;

    reset();
    cluster->max_requests = 1;
    hd_gauge_share(member, g, true);
    hd_gauge_up(member, g);
    start_request("GET", "/up");
    finish_request();
    is_str(client.seen, "head 503;end;finished;", "max_requests is reached");
    hd_gauge_down(member, g);
    close(up_accept()); /* a request is active once it has a conn, before it is pending */
    check_clean("request limit");
}

/* --- request bodies --- */

static void test_body(void)
{
    const char *text;
    hd_req_t *req;
    int fd;

    reset();
    req = start_with_body("POST", 10);
    give(req, "01234", false);
    fd = up_accept();
    text = up_read(fd, "01234");
    ok(strstr(text, "Content-Length: 10\r\n") != NULL, "streamed as it comes");
    give(req, "56789", true);
    up_read(fd, "56789");
    up_write(fd, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;");
    is_int(hd_upool_conns(), 1);

    req = start_with_body("POST", HD_LEN_UNKNOWN);
    turn_some(loop);
    give(req, "abc", false);
    text = up_read(fd, "abc\r\n");
    ok(strstr(text, "Transfer-Encoding: chunked\r\n") != NULL, "chunked");
    give(req, "", true);
    up_read(fd, "0\r\n\r\n");
    up_write(fd, OK_5);
    finish_request();
    close(fd);
    check_clean("body");

    reset();
    proxy->buffer_request = true;
    req = start_with_body("POST", HD_LEN_UNKNOWN);
    give(req, "abc", false);
    turn_some(loop);
    is_int(lb.picks, 0, "buffered: no upstream before the end of it");
    give(req, "def", true);
    fd = up_accept();
    text = up_read(fd, "abcdef");
    ok(strstr(text, "Content-Length: 6\r\n") != NULL, "then its length is known");
    up_write(fd, OK_5);
    finish_request();
    close(fd);
    check_clean("buffered body");
}

static void test_body_replay(void)
{
    static char big[70001];
    hd_req_t *req;
    int fd;

    reset();
    verdict = HD_TRY_RETRY;
    req = start_with_body("POST", 6);
    give(req, "abc", false);
    fd = up_accept();
    up_read(fd, "abc");
    up_write(fd, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    turn_until(loop, results_n == 1);
    close(fd);
    verdict = HD_TRY_DONE;
    give(req, "def", true);
    fd = up_accept();
    up_read(fd, "abcdef");
    up_write(fd, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "the window is sent again");
    close(fd);
    check_clean("replay");

    reset();
    verdict = HD_TRY_RETRY;
    memset(big, 'x', sizeof(big) - 1);
    req = start_with_body("POST", sizeof(big) - 1);
    give(req, big, true);
    fd = up_accept();
    up_read(fd, "\r\n\r\nxxx");
    up_write(fd, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    finish_request();
    is_str(client.seen, "head 503;end;finished;", "beyond the window no try follows");
    is_int(lb.picks, 1);
    close(fd);
    check_clean("no replay");
}

static void test_early_answer(void)
{
    hd_req_t *req;
    int fd;

    reset();
    req = start_with_body("POST", 1000);
    give(req, "begin", false);
    fd = up_accept();
    up_read(fd, "begin");
    up_write(fd, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "an answer before the body's end");
    is_int(hd_upool_conns(), 0, "that conn is of no further use");
    close(fd);
    check_clean("early answer");
}

/* error_page and the like: what was read of the body goes to the next action, too. */
static unsigned reroutes_left;

static hd_rc_t reroute_errors(hd_req_t *req, const void *conf)
{
    (void)conf;
    if (hd_res_status(req) != 503 || reroutes_left == 0)
        return HD_OK;
    reroutes_left--;
    return HD_REROUTE;
}

static const hd_module_t rerouter = {.abi = HD_MODULE_ABI,
                                     .name = "rerouter",
                                     .conf_size = sizeof(judge_t),
                                     .on_response_headers = reroute_errors};

static void test_reroute_with_body(void)
{
    static hd_filter_conf_t with_rerouter[1];
    hd_req_t *req;
    int fd;

    reset();
    with_rerouter[0] = chain[0];
    with_rerouter[0].module = rerouter_number;
    route->filters = with_rerouter;
    reroutes_left = 1;
    req = start_with_body("POST", 6);
    give(req, "abc", false);
    fd = up_accept();
    up_read(fd, "abc");
    up_write(fd, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    turn_until(loop, reroutes_left == 0);
    close(fd);
    give(req, "def", true);
    fd = up_accept();
    up_read(fd, "abcdef");
    up_write(fd, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;");
    close(fd);
    check_clean("reroute with body");
}

/* --- upstreams that break --- */

static void test_closed(void)
{
    int fd;

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    close(fd);
    finish_request();
    is_str(client.seen, "head 502;end;finished;", "closed before the head");
    is_int(results_n, 1);
    ok(results[0].head_sent && !results[0].is_reused_conn);
    is_int(lb.last_result, HD_RESULT_RESET);
    check_clean("closed");

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    turn_until(loop, client.body_n == 5);
    close(fd);
    finish_request();
    is_str(client.seen, "head 200;abort;finished;", "closed within the body");
    check_clean("closed in body");

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "garbage\r\n\r\n");
    finish_request();
    is_str(client.seen, "head 502;end;finished;", "garbage");
    close(fd);
    check_clean("garbage");

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "HTTP/1.1 200 OK\r\n\r\nuntil the end");
    turn_until(loop, client.body_n == 13);
    close(fd);
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "a body until the end of the conn");
    check_clean("until close");
}

/* A conn kept alive and closed meanwhile: the request goes out once more, on a fresh
 * conn, and nobody counts it. */
static void test_race(void)
{
    static const struct {
        const char *method;
        bool repeats;
    } rows[] = {{"GET", true}, {"PUT", true}, {"POST", false}};

    for (size_t i = 0; i < hd_countof(rows); i++) {
        int fd, fresh;

        reset();
        start_request("GET", "/up");
        fd = up_accept();
        up_read(fd, "\r\n\r\n");
        up_write(fd, OK_5);
        finish_request();
        start_request(rows[i].method, "/up");
        up_read(fd, "\r\n\r\n");
        close(fd); /* after it was sent, before a byte of the answer */
        if (rows[i].repeats) {
            fresh = up_accept();
            up_read(fresh, "\r\n\r\n");
            up_write(fresh, OK_5);
            finish_request();
            is_str(client.seen, "head 200;end;finished;", "%s", rows[i].method);
            is_int(results_n, 2, "judged as two good answers only");
            is_int(lb.picks, 2, "and picked once");
            close(fresh);
        } else {
            finish_request();
            is_str(client.seen, "head 502;end;finished;", "%s isn't idempotent",
                   rows[i].method);
        }
        check_clean("race");
    }
}

/* Never twice: the fresh conn is closed, too. */
static void test_race_once(void)
{
    int fd;

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, OK_5);
    finish_request();
    start_request("GET", "/up");
    up_read(fd, "\r\n\r\n");
    close(fd);
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    close(fd);
    finish_request();
    is_str(client.seen, "head 502;end;finished;");
    check_clean("race once");
}

/* --- time --- */

static void test_timeouts(void)
{
    int fd;

    reset();
    proxy->read_timeout_ms = 1000;
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    tick(1001);
    finish_request();
    is_str(client.seen, "head 504;end;finished;", "no head in time");
    is_int(lb.last_result, HD_RESULT_TIMEOUT);
    close(fd);
    check_clean("read timeout");

    reset();
    proxy->read_timeout_ms = 1000;
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    turn_until(loop, client.body_n == 5);
    tick(900);
    up_write(fd, "w");
    turn_until(loop, client.body_n == 6);
    tick(900);
    is_str(client.seen, "head 200;", "each byte moves it on");
    tick(200);
    finish_request();
    is_str(client.seen, "head 200;abort;finished;", "no more bytes in time");
    close(fd);
    check_clean("body timeout");

    reset();
    proxy->timeout_ms = 500;
    verdict = HD_TRY_RETRY;
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    tick(501);
    finish_request();
    is_str(client.seen, "head 504;end;finished;", "the whole request's time is over");
    is_int(lb.picks, 1, "and no retry follows");
    close(fd);
    check_clean("overall timeout");

    reset();
    proxy->try_timeout_ms = 100;
    verdict = HD_TRY_RETRY;
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    tick(101);
    close(fd);
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, OK_5);
    verdict = HD_TRY_DONE;
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "per try");
    is_int(results[0].result, HD_RESULT_TIMEOUT);
    close(fd);
    check_clean("per-try timeout");
}

/* VS-ROUTE-8 */
static void test_grpc_timeout(void)
{
    static const struct {
        const char *timeout;
        uint32_t max_ms, due_ms;
    } rows[] = {{"200m", 0, 200}, {"9S", 300, 300}, {"100000u", 0, 100}, {"x", 0, 500}};

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_req_t *req;
        int fd;

        reset();
        proxy->timeout_ms = 500;
        proxy->has_grpc_timeout = true;
        proxy->max_grpc_timeout_ms = rows[i].max_ms;
        req = new_request("GET", "/up");
        hd_headers_add(&req->head.headers, HD_STR("grpc-timeout"),
                       hd_str_c(rows[i].timeout));
        hd_request_start(req, test_entry());
        fd = up_accept();
        up_read(fd, "\r\n\r\n");
        tick(rows[i].due_ms - 1);
        is_str(client.seen, "", "grpc-timeout: %s: not yet", rows[i].timeout);
        tick(2);
        finish_request();
        is_int(client.status, 504, "after %u ms", rows[i].due_ms);
        close(fd);
        check_clean("grpc-timeout");
    }
}

/* The first goes on beside the second; the first good head wins, the other is reset. */
static void test_hedge(void)
{
    char byte;
    int first, second;

    reset();
    proxy->try_timeout_ms = 100;
    verdict = HD_TRY_HEDGE;
    start_request("GET", "/up");
    first = up_accept();
    up_read(first, "\r\n\r\n");
    tick(101);
    second = up_accept();
    up_read(second, "\r\n\r\n");
    verdict = HD_TRY_DONE;
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_REQUESTS), 2,
           "two are under way");
    up_write(first, OK_5);
    finish_request();
    is_str(client.seen, "head 200;end;finished;", "the slow one won after all");
    while (recv(second, &byte, 1, 0) < 0 && errno == EAGAIN)
        hd_loop_turn(loop, 1);
    pass("the other conn was ended");
    close(first);
    close(second);
    check_clean("hedge");
}

/* --- back-pressure --- */

static void test_back_pressure(void)
{
    static char piece[16385];
    size_t sent = 0;
    int fd;

    reset();
    memset(piece, 'y', sizeof(piece) - 1);
    start_request("GET", "/up");
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    client.is_full = true;
    up_write(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    turn_until(loop, client.status == 200);
    for (int i = 0; i < 2000; i++) {
        ssize_t n = send(fd, piece, sizeof(piece) - 1, MSG_NOSIGNAL);

        sent += n > 0 ? (size_t)n : 0;
        hd_loop_turn(loop, 0);
    }
    ok(client.body_n < 200000, "a full client stops the upstream (%zu bytes)",
       client.body_n);
    ok(sent < 32000000, "whose socket fills");
    client.is_full = false;
    hd_request_on_drained(client.req);
    turn_until(loop, client.body_n > 1000000);
    pass("then it goes on");
    hd_request_client_gone(client.req, HD_E_RESET, "enough");
    close(fd);
    check_clean("back-pressure");
}

/* --- a client that leaves --- */

static void test_gone(void)
{
    for (int place = 0; place < 6; place++) {
        hd_req_t *req;
        int fd = -1;

        reset();
        lb.rc = place == 1 ? HD_AGAIN : HD_OK;
        verdict = place == 5 ? HD_TRY_RETRY : HD_TRY_DONE;
        verdict_wait_ms = 1000;
        req = place == 3 ? start_with_body("POST", 100) : start_request("GET", "/up");
        if (place >= 1)
            hd_loop_turn(loop, 0);
        if (place >= 2)
            fd = up_accept();
        if (place == 3)
            give(req, "some", false);
        if (place >= 3)
            up_read(fd, "\r\n\r\n");
        if (place == 4) {
            up_write(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            turn_until(loop, client.body_n == 5);
        } else if (place == 5) {
            up_write(fd, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
            turn_until(loop, results_n == 1);
        }
        hd_request_client_gone(req, HD_E_RESET, "gone");
        check_clean("gone");
        if (fd >= 0)
            close(fd);
        ok(lb.picks == 0 || lb.last_result != HD_RESULT_CONNECT,
           "place %d says nothing bad of the endpoint", place);
    }
}

/* --- Upgrade --- */

static hd_req_t *new_upgrade(void)
{
    hd_req_t *req = new_request("GET", "/up");

    req->head.is_upgrade = true;
    req->head.protocol = HD_STR("websocket");
    return req;
}

static void test_upgrade(void)
{
    hd_conn_t *ends[2];
    hd_req_t *req;
    owner_t o = {.read_all = true};
    const char *head;
    char buf[16];
    int fd;

    reset();
    proxy->allow_upgrade = true;
    hd_bug_on(hd_conn_create_pipe(loop, ends, &err) != HD_OK);
    hd_conn_set_handler(ends[1], &owner_handler, &o);
    req = new_upgrade();
    client.conn = ends[0];
    hd_request_start(req, test_entry());
    fd = up_accept();
    head = up_read(fd, "\r\n\r\n");
    ok(strstr(head, "Connection: upgrade\r\nUpgrade: websocket\r\n") != NULL, "%s", head);
    up_write(fd, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                 "Upgrade: websocket\r\n\r\nfirst");
    turn_until(loop, o.got == 5);
    is_str(client.seen, "head 101;taken;");
    is_mem(o.text, "first", 5, "bytes behind the head belong to the tunnel");
    ok(hd_conn_try_send_copy(ends[1], "ping", 4));
    is_int(peer_read(loop, fd, buf, 4), 4, "and back");
    is_int(hd_requests_active(), 1, "a tunnel is a request still");
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS), 1,
           "its conn counts though it left the pool");
    close(fd);
    turn_until(loop, o.ended);
    hd_conn_close(ends[1], 0);
    turn_until(loop, hd_requests_active() == 0);
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS), 0);
    check_clean("upgrade");

    reset();
    hd_request_start(new_upgrade(), test_entry());
    fd = up_accept();
    head = up_read(fd, "\r\n\r\n");
    ok(strstr(head, "pgrade") == NULL, "nginx: not passed unless configured");
    up_write(fd, OK_5);
    finish_request();
    close(fd);
    check_clean("no upgrade");

    reset();
    http->is_xds = true;
    hd_request_start(new_upgrade(), test_entry());
    finish_request();
    is_int(client.status, 403, "xDS: refused unless configured");
    check_clean("upgrade refused");
}

/* --- CONNECT that ends here --- */

static hd_req_t *new_connect(hd_conn_t *conn)
{
    hd_req_t *req = new_request("CONNECT", "/up");

    client.conn = conn;
    route->action = HD_ACT_TUNNEL;
    route_match->connect_only = true;
    return req;
}

static void test_connect(void)
{
    hd_conn_t *ends[2];
    owner_t o = {.read_all = true};
    hd_addr_t dead;
    char buf[16];
    int fd;

    reset();
    http->is_xds = true;
    hd_bug_on(hd_conn_create_pipe(loop, ends, &err) != HD_OK);
    hd_conn_set_handler(ends[1], &owner_handler, &o);
    hd_request_start(new_connect(ends[0]), test_entry());
    fd = up_accept();
    turn_until(loop, client.seen[0] != '\0');
    is_str(client.seen, "head 200;taken;");
    ok(hd_conn_try_send_copy(ends[1], "ping", 4));
    is_int(peer_read(loop, fd, buf, 4), 4, "bytes pass");
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS), 1, "counted");
    hd_conn_close(ends[1], 0);
    is_int(peer_read(loop, fd, buf, 1), 0, "the client's half ends");
    is_int(hd_requests_active(), 1, "the other half is open still");
    close(fd);
    turn_until(loop, hd_requests_active() == 0);
    is_int(lb.last_result, HD_RESULT_OK);
    check_clean("connect");

    reset();
    http->is_xds = true;
    fd = tcp_listen(&dead);
    close(fd);
    set_upstream(&dead);
    hd_request_start(new_connect(NULL), test_entry());
    finish_request();
    is_int(client.status, 503, "nobody listens");
    is_int(lb.last_result, HD_RESULT_CONNECT);
    check_clean("connect refused");

    reset();
    hd_request_start(new_connect(NULL), test_entry());
    finish_request();
    is_int(client.status, 405, "nginx: no");
    check_clean("no connect");
}

/* --- what Envoy adds --- */

static void test_xds_fields(void)
{
    hd_conn_t *ends[2];
    hd_req_t *req;
    const char *head;
    int fd;

    reset();
    http->is_xds = http->generate_request_id = http->use_remote_address = true;
    http->server_name = HD_STR("istio-envoy");
    proxy->timeout_ms = 15000;
    hd_bug_on(hd_conn_create_pipe(loop, ends, &err) != HD_OK);
    ends[0]->remote = (hd_addr_t){.family = AF_INET, .port = 1, .v4 = {10, 0, 0, 7}};
    req = new_request("GET", "/up");
    req->conn = ends[0];
    hd_headers_add(&req->head.headers, HD_STR("X-Forwarded-For"), HD_STR("1.2.3.4"));
    hd_headers_add(&req->head.headers, HD_STR("x-envoy-retry-on"), HD_STR("5xx"));
    hd_headers_add(&req->head.headers, HD_STR("X-Forwarded-Client-Cert"),
                   HD_STR("By=forged"));
    hd_request_start(req, test_entry());
    fd = up_accept();
    head = up_read(fd, "\r\n\r\n");
    ok(strcasestr(head, "x-forwarded-for: 1.2.3.4,10.0.0.7\r\n") != NULL, "XFF-1\n%s",
       head);
    ok(strcasestr(head, "x-envoy-external-address: 10.0.0.7\r\n") != NULL, "XFF-2");
    ok(strcasestr(head, "x-forwarded-proto: http\r\n") != NULL);
    ok(strcasestr(head, "retry-on") == NULL, "x-envoy-* of strangers go");
    ok(strcasestr(head, "forged") == NULL, "XFCC-5: a forged certificate goes");
    ok(strcasestr(head, "x-request-id: ") != NULL, "TRACE-1");
    ok(strcasestr(head, "x-envoy-expected-rq-timeout-ms: 15000\r\n") != NULL);
    up_write(fd, "HTTP/1.1 200 OK\r\nserver: up\r\ncontent-length: 0\r\n\r\n");
    finish_request();
    ok(strstr(client.fields, "server: istio-envoy\n") != NULL, "%s", client.fields);
    ok(strstr(client.fields, "x-envoy-upstream-service-time: ") != NULL);
    hd_conn_close(ends[0], 0);
    hd_conn_close(ends[1], 0);
    close(fd);
    check_clean("xds");
} /* Memory and conns are used again and again. */
static void test_many(void)
{
    int fd;

    reset();
    start_request("GET", "/up");
    fd = up_accept();
    for (int i = 0; i < 200; i++) {
        up_read(fd, "\r\n\r\n");
        up_write(fd, OK_5);
        finish_request();
        start_request("GET", "/up");
    }
    up_read(fd, "\r\n\r\n");
    up_write(fd, OK_5);
    finish_request();
    is_int(hd_upool_conns(), 1, "200 requests, one conn");
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS), 1);
    close(fd);
    check_clean("many");
}

int main(void)
{
    start_bench();
    up_addr = lb.addrs[0];
    chain[0] = (hd_filter_conf_t){
        .name = HD_STR("judge"), .module = add_module(&judge), .conf = &judge_conf};
    rerouter_number = add_module(&rerouter);
    test_get();
    test_no_body_answers();
    test_interim();
    test_trailers();
    test_refused();
    test_balancer_says_no();
    test_retry_on_status();
    test_retry_limit();
    test_request_limit();
    test_body();
    test_body_replay();
    test_reroute_with_body();
    test_early_answer();
    test_closed();
    test_race();
    test_race_once();
    test_timeouts();
    test_grpc_timeout();
    test_hedge();
    test_back_pressure();
    test_gone();
    test_upgrade();
    test_connect();
    test_xds_fields();
    test_many();
    hd_upool_close_all(loop);
    turn_some(loop);
    end_bench();
    return done_testing();
}
