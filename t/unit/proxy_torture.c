/* Many requests at once whose clients, upstreams, filters, balancer and clock do what
 * they like, by a seed: whatever comes together, each request ends once, and at the end
 * nothing is left over. HD_TORTURE_SEED=N repeats one. */
#include "http_test.h"

#define LIVE_MAX 12
#define UPS_MAX 24

typedef struct {
    client_t c;
    bool wants_body; /* of its request there is more to send */
} slot_t;

static slot_t slots[LIVE_MAX];
static int ups[UPS_MAX];
static unsigned ups_n;
static uint32_t seed;
static unsigned answered, finished, gone;

static uint32_t rnd(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 10) % n;
}

/* --- a filter of moods --- */

typedef struct {
    int unused;
} moody_t;

static hd_req_t *parked[64];
static unsigned parked_n;

static hd_rc_t park(hd_req_t *req)
{
    if (parked_n < hd_countof(parked)) {
        parked[parked_n++] = req;
        return HD_AGAIN;
    }
    return HD_OK;
}

static hd_rc_t mood(hd_req_t *req, bool may_answer)
{
    if (hd_req_is_resumed(req))
        return HD_OK;
    switch (rnd(24)) {
    case 0:
        return park(req);
    case 1:
        return hd_req_wait_ms(req, rnd(50));
    case 2:
        return may_answer
                   ? hd_req_answer(req, 403, HD_STR_NONE, HD_STR("no"), "RBAC", "x")
                   : HD_OK;
    case 3:
        return may_answer ? hd_req_fail(req, 500, HD_E_MODULE, "moody") : HD_OK;
    case 4:
        return may_answer && rnd(4) == 0 ? hd_req_abort(req, "FI") : HD_OK;
    default:
        return HD_OK;
    }
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    (void)conf;
    return mood(req, true);
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    (void)conf;
    return mood(req, rnd(2) == 0);
}

static hd_rc_t on_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    (void)conf;
    (void)body;
    return mood(req, false);
}

static hd_rc_t on_response_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    if (!hd_req_is_resumed(req) && rnd(60) == 0)
        return HD_ERROR;
    return on_body(req, conf, body);
}

static hd_verdict_t on_try_result(hd_req_t *req, const void *conf,
                                  const hd_try_result_t *r, uint64_t *wait_ms)
{
    (void)req;
    (void)conf;
    *wait_ms = rnd(2) * rnd(40);
    if (r->result == HD_RESULT_TIMEOUT && rnd(2) == 0)
        return HD_TRY_HEDGE;
    return rnd(2) == 0 ? HD_TRY_RETRY : HD_TRY_DONE;
}

static void on_log(hd_req_t *req, const void *conf)
{
    (void)conf;
    for (unsigned i = 0; i < parked_n; i++) {
        if (parked[i] == req)
            parked[i--] = parked[--parked_n];
    }
}

static const hd_module_t moody = {.abi = HD_MODULE_ABI,
                                  .name = "moody",
                                  .conf_size = sizeof(moody_t),
                                  .on_request_headers = on_request_headers,
                                  .on_request_body = on_body,
                                  .on_response_headers = on_response_headers,
                                  .on_response_body = on_response_body,
                                  .on_try_result = on_try_result,
                                  .on_log = on_log};
static moody_t conf_a, conf_b;
static hd_filter_conf_t chain[2];

/* --- moves --- */

static void begin(slot_t *s)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT"};
    const char *method = methods[rnd(4)];
    hd_req_t *req;

    memset(s, 0, sizeof(*s));
    req = hd_request_create(NULL, loop, member, &client_ops, &s->c);
    s->c.req = req;
    req->head.method = hd_str_c(method);
    req->head.method_id = hd_http_method_id(req->head.method);
    req->head.scheme = HD_STR("http");
    req->head.authority = HD_STR("example.org");
    req->head.raw_path = req->head.path = rnd(20) == 0 ? HD_STR("/none") : HD_STR("/up");
    req->head.version = HD_HTTP_11;
    hd_headers_init(&req->head.headers, req->pool, 4);
    if (method[0] == 'P') {
        req->head.has_body = true;
        req->head.content_length = HD_LEN_UNKNOWN;
        s->wants_body = true;
    }
    proxy->buffer_request = rnd(4) == 0;
    proxy->try_timeout_ms = rnd(2) * 60;
    proxy->read_timeout_ms = rnd(2) * 100;
    proxy->timeout_ms = rnd(3) == 0 ? 150 : 0;
    http->is_xds = rnd(2) == 0;
    hd_request_start(req, test_entry());
}

static void move_client(slot_t *s)
{
    static char piece[20000];
    hd_chain_t body;

    if (s->c.req == NULL) {
        begin(s);
        return;
    }
    switch (rnd(8)) {
    case 0:
        hd_request_client_gone(s->c.req, HD_E_RESET, "left");
        s->c.req = NULL;
        gone++;
        break;
    case 1:
    case 2:
    case 3:
        if (!s->wants_body || hd_request_is_full(s->c.req))
            break;
        hd_chain_init(&body);
        hd_bug_on(!hd_chain_try_add_copy(&body, piece, rnd(sizeof(piece))));
        if (rnd(2) == 0) {
            hd_chain_set_flags(&body, HD_SLICE_END);
            s->wants_body = false;
        }
        hd_request_give_body(s->c.req, &body);
        break;
    case 4:
        s->c.is_full = !s->c.is_full;
        if (!s->c.is_full)
            hd_request_on_drained(s->c.req);
        break;
    case 5:
        if (s->wants_body && rnd(8) == 0) {
            s->wants_body = false;
            hd_request_reject(s->c.req, 400, "bad chunk");
        }
        break;
    default:
        break;
    }
}

static void drop_up(unsigned i)
{
    if (rnd(2) == 0) { /* a reset */
        struct linger l = {.l_onoff = 1, .l_linger = 0};

        setsockopt(ups[i], SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    }
    close(ups[i]);
    ups[i] = ups[--ups_n];
}

/* An upstream reads what is there, and sometimes says something. */
static void move_up(unsigned i)
{
    static const char *const words[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 None\r\n\r\n",
        "HTTP/1.1 103 Early\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome",
        "garbage\r\n\r\n",
    };
    static char buf[65536];
    const char *word;
    ssize_t n = recv(ups[i], buf, sizeof(buf), 0);

    if (n == 0 || (n < 0 && errno != EAGAIN) || rnd(16) == 0) {
        drop_up(i);
        return;
    }
    if (rnd(3) != 0)
        return;
    word = words[rnd(hd_countof(words))];
    hd_ignore(send(ups[i], word, strlen(word), MSG_NOSIGNAL) < 0);
}

static void accept_all(void)
{
    int fd;

    fcntl(up_listen_fd, F_SETFL, O_NONBLOCK);
    while (ups_n < UPS_MAX && (fd = accept(up_listen_fd, NULL, NULL)) >= 0) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        ups[ups_n++] = fd;
    }
}

static void move_balancer(void)
{
    if (lb.rc == HD_AGAIN && lb.wake != NULL)
        lb.wake = NULL; /* its request may be gone: the clock wakes the others */
    lb.rc = rnd(12) == 0 ? HD_ERROR : HD_OK;
    lb.code = rnd(2) == 0 ? HD_E_NO_HEALTHY : HD_E_NO_CLUSTER;
}

static void wake_one(void)
{
    if (parked_n == 0)
        return;
    hd_req_wake(parked[rnd(parked_n)]);
}

static void look_at_clients(void)
{
    for (unsigned i = 0; i < LIVE_MAX; i++) {
        const char *head = strstr(slots[i].c.seen, "head ");

        if (slots[i].c.seen[0] == '\0')
            continue;
        hd_bug_on(head != NULL && strstr(head + 1, "head ") != NULL); /* answered twice */
        if (strstr(slots[i].c.seen, "finished;") != NULL) {
            finished++;
            answered += head != NULL;
            slots[i].c.seen[0] = '\0';
        }
    }
}

static void run(uint32_t with, const hd_addr_t *addr)
{
    seed = with;
    reset_conf();
    set_upstream(addr);
    proxy->tries_max = 3;
    proxy->connect_timeout_ms = 200;
    route->filters = chain;
    route->filters_n = 2;
    route->filters_are_chain = true;
    cluster->max_conns = 8;
    cluster->max_pending = 6;
    cluster->max_requests = 10;
    cluster->max_retries = 3;
    cluster->keepalive = 4;
    cluster->idle_timeout_ms = 80;
    for (int step = 0; step < 400; step++) {
        move_client(&slots[rnd(LIVE_MAX)]);
        if (ups_n > 0)
            move_up(rnd(ups_n));
        accept_all();
        if (rnd(4) == 0)
            wake_one();
        if (rnd(6) == 0)
            move_balancer();
        if (rnd(5) == 0)
            now_ns += rnd(60) * 1000000ull;
        hd_loop_turn(loop, 0);
        look_at_clients();
    }
    for (unsigned i = 0; i < LIVE_MAX; i++) {
        if (slots[i].c.req != NULL)
            hd_request_client_gone(slots[i].c.req, HD_E_RESET, "the end");
        slots[i].c.req = NULL;
    }
    while (ups_n > 0)
        drop_up(0);
    turn_some(loop);
}

int main(void)
{
    const char *one = getenv("HD_TORTURE_SEED");
    hd_addr_t addr;
    uint16_t number;
    unsigned bad = 0;

    start_bench();
    addr = lb.addrs[0];
    number = add_module(&moody);
    chain[0] = (hd_filter_conf_t){.name = HD_STR("a"), .module = number, .conf = &conf_a};
    chain[1] = (hd_filter_conf_t){.name = HD_STR("b"), .module = number, .conf = &conf_b};
    for (unsigned i = 0; i < HD_CG_N; i++)
        hd_gauge_share(member, cluster_slot->gauges_first + i, true);
    for (uint32_t s = 1; s <= 150; s++) {
        uint32_t with = one != NULL ? (uint32_t)atoi(one) : s;
        unsigned left = 0;

        run(with, &addr);
        for (unsigned i = HD_CG_PENDING; i < HD_CG_N; i++)
            left += hd_gauge_sum(state, cluster_slot->gauges_first + i);
        if (left > 0 || hd_requests_active() > 0 || lb.picks != lb.releases ||
            hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS) !=
                hd_upool_conns()) {
            bad++;
            diag("seed %u: %u counted, %zu requests, %u picks, %u releases", with, left,
                 hd_requests_active(), lb.picks, lb.releases);
        }
        if (one != NULL)
            break;
    }
    is_int(bad, 0, "whatever happened, nothing is left over");
    ok(answered > 500 && gone > 500, "much happened: %u answered, %u finished, %u left",
       answered, finished, gone);
    hd_upool_close_all(loop);
    turn_some(loop);
    end_bench();
    return done_testing();
}
