/* The server's side of a weft against a peer that isn't a well-behaved Heddle: frames
 * made by hand, byte by byte, out of order, without end. */
#include "http/hd_weft.h"
#include "http/hd_service.h"
#include "http_test.h"

static int fd;            /* the peer's end */
static hd_conn_t *server; /* ours */

enum { HELLO = 1, HEAD, DATA, TRAILERS, CREDIT, RESET, GOAWAY, PING, END = 0x80 };

static void put32(unsigned char *to, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        to[i] = (unsigned char)(v >> (24 - 8 * i));
}

static void send_bytes(const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            hd_loop_turn(loop, 1);
        } else {
            return; /* it has closed: the test sees */
        }
    }
}

static void frame(unsigned type, uint32_t id, const void *payload, size_t len)
{
    unsigned char head[8];

    put32(head, (uint32_t)len << 8 | type);
    put32(head + 4, id);
    send_bytes(head, sizeof(head));
    send_bytes(payload, len);
}

static void number(unsigned type, uint32_t id, uint32_t v)
{
    unsigned char payload[4];

    put32(payload, v);
    frame(type, id, payload, sizeof(payload));
}

static void text(unsigned type, uint32_t id, const char *s)
{
    frame(type, id, s, strlen(s));
}

static bool knows_ping; /* the peer */

static void hello(void)
{
    unsigned char payload[12] = {1, knows_ping};

    put32(payload + 4, 100);
    put32(payload + 8, HD_WEFT_CREDIT);
    frame(HELLO, 0, payload, sizeof(payload));
}

static void open_link(void)
{
    hd_addr_t none = {.family = AF_UNSPEC};
    hd_http_entry_t entry;
    int ends[2];

    hd_bug_on(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0);
    fd = ends[0];
    server = hd_conn_create(loop, ends[1], &none, &err);
    hd_bug_on(server == NULL);
    hd_http_entry_init(&entry, server,
                       &(hd_entrance_t){listener_slot, NULL, filter_chain});
    hd_weft_serve(server, &entry);
}

/* What came, as text: "HELLO HEAD/1 DATA/1:5E …"; the payload of the last HEAD in
 * <last_head>. */
static char last_head[70000];
static bool is_closed;
static unsigned char in[1 << 20];
static size_t in_n;

static const char *heard(void)
{
    static const char *const names[] = {"?",      "HELLO", "HEAD",   "DATA", "TRAILERS",
                                        "CREDIT", "RESET", "GOAWAY", "PING", "?"};
    static char out[4096];
    size_t at = 0, n = 0;
    ssize_t got;

    turn_some(loop);
    while ((got = recv(fd, in + in_n, sizeof(in) - in_n, 0)) > 0) {
        in_n += (size_t)got;
        turn_some(loop);
    }
    is_closed = got == 0 || (got < 0 && errno != EAGAIN);
    out[0] = '\0';
    while (in_n - at >= 8) {
        size_t len = (size_t)in[at] << 16 | (size_t)in[at + 1] << 8 | in[at + 2];
        unsigned type = in[at + 3] & 0x3f, id = in[at + 7];

        if (in_n - at - 8 < len)
            break;
        if (type == HEAD)
            snprintf(last_head, sizeof(last_head), "%.*s", (int)len,
                     (const char *)in + at + 8);
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%s/%u:%zu%s", n > 0 ? " " : "",
                              names[type < 9 ? type : 9], id, type == HEAD ? 0 : len,
                              in[at + 3] & END ? "E" : "");
        if (n > sizeof(out) - 64)
            n = 0;
        at += 8 + len;
    }
    memmove(in, in + at, in_n - at);
    in_n -= at;
    return out;
}

static void close_link(const char *after)
{
    close(fd);
    turn_some(loop);
    in_n = 0;
    is_int(hd_requests_active(), 0, "%s: no request is left", after);
    is_int(hd_conns_open(loop), 0, "%s: no conn is left", after);
    is_int(hd_blocks_in_use(), 0, "%s: no block is in use", after);
}

static void answer_here(void)
{
    reset_conf();
    route->action = HD_ACT_ANSWER;
    route->status = 200;
}

#define GET "GET /up HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST "POST /up HTTP/1.1\r\nHost: a\r\n"

static void test_good(void)
{
    answer_here();
    open_link();
    is_str(heard(), "HELLO/0:12", "HELLO comes unasked");
    hello();
    text(HEAD | END, 0x10001, GET);
    is_str(heard(), "HEAD/1:0E", "a request and its answer");
    ok(strncmp(last_head, "HTTP/1.1 200 OK\r\n", 17) == 0, "as a head of HTTP/1");
    text(HEAD | END, 0x20001, GET);
    is_str(heard(), "HEAD/1:0E", "the index is free again");
    text(HEAD, 0x10002, POST "Content-Length: 5\r\n\r\n");
    text(DATA, 0x10002, "he");
    text(DATA | END, 0x10002, "llo");
    is_str(heard(), "HEAD/2:0E", "a body");
    text(HEAD, 0x10003, POST "\r\n");
    text(DATA, 0x10003, "abc");
    text(TRAILERS | END, 0x10003, "X-T: 1\r\n\r\n");
    is_str(heard(), "HEAD/3:0E", "trailers");
    text(DATA, 0x70003, "late");
    number(CREDIT, 0x70003, 5);
    number(RESET, 0x70003, 0);
    is_str(heard(), "", "frames of streams that are over are ignored");
    ok(!is_closed, "and harm nobody");
    close_link("good");
}

static void test_slow(void)
{
    unsigned char bytes[200];
    size_t n = 0, len = strlen(GET);

    answer_here();
    open_link();
    hello();
    put32(bytes, (uint32_t)len << 8 | HEAD | END);
    put32(bytes + 4, 0x10000);
    memcpy(bytes + 8, GET, len);
    for (n = 0; n < len + 8; n++) {
        send_bytes(bytes + n, 1);
        hd_loop_turn(loop, 0);
    }
    is_str(heard(), "HELLO/0:12 HEAD/0:0E", "byte by byte");
    close_link("slow");
}

static void test_long_head(void)
{
    static char head[60000];
    size_t n = (size_t)snprintf(head, sizeof(head), "GET /up HTTP/1.1\r\nHost: a\r\nX: ");

    answer_here();
    memset(head + n, 'x', 40000);
    memcpy(head + n + 40000, "\r\n\r\n", 5);
    open_link();
    hello();
    text(HEAD | END, 0x10000, head);
    text(HEAD | END, 0x10001, GET);
    is_str(heard(), "HELLO/0:12 HEAD/0:0E HEAD/1:0E",
           "a head of 40 KB, and one behind it");
    http->head_bytes_max = 8192;
    text(HEAD | END, 0x20000, head);
    is_int(strncmp(heard(), "HEAD/0:0", 8), 0, "one beyond the limit");
    ok(strncmp(last_head, "HTTP/1.1 431 ", 13) == 0, "is answered 431");
    ok(!is_closed, "and the link goes on");
    http->head_bytes_max = 0;
    close_link("long head");
}

/* Heads that aren't requests: refused, one by one. */
static void test_bad_heads(void)
{
    static const char *const heads[] = {
        "GET /up HTTP/1.1\r\nHost: a\r\n\r\nmore",
        "GET /up HTTP/1.1\r\nHost: a\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "",
        "\r\n\r\n",
    };

    answer_here();
    open_link();
    hello();
    hd_ignore(heard() == NULL);
    for (unsigned i = 0; i < hd_countof(heads); i++) {
        text(HEAD | END, 0x10000 * (i + 1), heads[i]);
        hd_ignore(heard() == NULL);
        ok(strncmp(last_head, "HTTP/1.1 400 ", 13) == 0 && !is_closed, "head %u: 400", i);
        last_head[0] = '\0';
    }
    text(HEAD | END, 0x10001, GET);
    hd_ignore(heard() == NULL);
    ok(strncmp(last_head, "HTTP/1.1 200 ", 13) == 0, "the link goes on");
    close_link("bad heads");
}

static void test_bad_bodies(void)
{
    answer_here();
    loc->client_max_body_size = 0;
    route->action = HD_ACT_PROXY; /* it waits for an upstream: the body is of interest */
    lb.rc = HD_AGAIN;
    open_link();
    hello();
    hd_ignore(heard() == NULL);
    text(HEAD, 0x10000, POST "Content-Length: 5\r\n\r\n");
    text(DATA, 0x10000, "hello!");
    is_str(heard(), "RESET/0:4", "more than announced");
    text(HEAD, 0x20000, POST "Content-Length: 5\r\n\r\n");
    text(DATA | END, 0x20000, "hell");
    is_str(heard(), "RESET/0:4", "less than announced");
    text(HEAD, 0x30000, POST "\r\n");
    text(TRAILERS | END, 0x30000, "no colon\r\n\r\n");
    is_str(heard(), "RESET/0:4", "trailers that are none");
    ok(!is_closed, "the link goes on");
    text(HEAD, 0x40000, POST "\r\n");
    number(RESET, 0x40000, 0);
    is_str(heard(), "", "a reset of the client's");
    is_int(hd_requests_active(), 0, "ends the request");
    close_link("bad bodies");
}

/* Each ends the link, and nothing else. */
static void test_fatal(void)
{
    static char big[1100000];
    static const char *const why[] = {
        "no HELLO",
        "another version",
        "two HELLOs",
        "DATA beyond its credit",
        "a second GOAWAY",
        "an id that is open",
        "id 0",
        "an unknown type",
        "CREDIT of 0",
        "too much CREDIT",
        "a short RESET",
        "a HEAD too long",
        "DATA after its end",
    };

    for (unsigned i = 0; i < hd_countof(why); i++) {
        answer_here();
        route->action = HD_ACT_PROXY;
        lb.rc = HD_AGAIN;
        open_link();
        if (i > 1)
            hello();
        if (i > 1 && i != 4 && i != 6)
            text(HEAD, 0x10000, POST "\r\n");
        switch (i) {
        case 0:
            text(HEAD | END, 0x10000, GET);
            break;
        case 1:
            frame(HELLO, 0, "\2\0\0\0\0\0\0\1\0\1\0\0", 12);
            break;
        case 2:
            hello();
            break;
        case 3:
            frame(DATA, 0x10000, big, sizeof(big));
            break;
        case 4:
            text(GOAWAY, 0, "");
            text(GOAWAY, 0, "");
            break;
        case 5:
            text(HEAD | END, 0x20000, GET);
            break;
        case 6:
            text(HEAD | END, 0, GET);
            break;
        case 7:
            frame(9, 0x10000, "", 0);
            break;
        case 8:
            number(CREDIT, 0x10000, 0);
            break;
        case 9:
            number(CREDIT, 0x10000, INT32_MAX);
            break;
        case 10:
            frame(RESET, 0x10000, "\0\0", 2);
            break;
        case 11:
            frame(HEAD, 0x10001, big, sizeof(big));
            break;
        default:
            text(DATA | END, 0x10000, "x");
            text(DATA | END, 0x10000, "x");
        }
        hd_ignore(heard() == NULL);
        ok(is_closed, "%s: closed", why[i]);
        close_link(why[i]);
    }
}

/* What costs the peer nothing, again and again: a bounded number of times. <served>: each
 * time a request ends well, too. */
static unsigned flood(unsigned kind, bool served)
{
    unsigned n;

    answer_here();
    open_link();
    hello();
    hd_ignore(heard() == NULL);
    text(HEAD, 0x10063, POST "\r\n"); /* for frames that want an open stream */
    for (n = 1; n <= (served ? 12000 : 60000) && !is_closed; n++) {
        uint32_t id = (1 + n % 0x7000) << 16;

        route->action = HD_ACT_PROXY;
        lb.rc = HD_AGAIN;
        switch (kind) {
        case 0: /* rapid reset */
            text(HEAD | END, id, GET);
            number(RESET, id, 0);
            break;
        case 1: /* MadeYouReset */
            text(HEAD, id, POST "Content-Length: 1\r\n\r\n");
            text(DATA | END, id, "xx");
            break;
        case 2:
            text(HEAD, id, POST "\r\n");
            text(TRAILERS | END, id, "no colon\r\n\r\n");
            break;
        case 3:
            text(DATA, 0x10063, "");
            break;
        case 4:
            number(CREDIT, 0x10063, 1);
            break;
        case 5:
            text(PING, 0, "");
            break;
        default:
            text(HEAD | END, 0x10000 + 900, GET);
        }
        if (served) {
            turn_some(loop);
            route->action = HD_ACT_ANSWER;
            text(HEAD | END, id | 1, GET);
            turn_some(loop);
        }
        if (n % 100 == 0)
            hd_ignore(heard() == NULL);
    }
    if (!is_closed)
        number(RESET, 0x10063, 0);
    hd_ignore(heard() == NULL);
    close_link("a flood");
    return n;
}

static void test_floods(void)
{
    static const struct {
        const char *name;
        unsigned least, most;
    } floods[] = {
        {"reset", 10000, 10200},        {"longer than announced", 10000, 10200},
        {"bad trailers", 10000, 10200}, {"empty DATA", 50000, 50200},
        {"CREDIT of 1", 50000, 50200},  {"PING", 25000, 25200},
        {"an index beyond", 25000, 25200},
    };
    unsigned n;

    for (unsigned i = 0; i < hd_countof(floods); i++) {
        n = flood(i, false);
        ok(n >= floods[i].least && n <= floods[i].most, "%s: ends after %u",
           floods[i].name, n);
        is_closed = false;
    }
    n = flood(0, true);
    ok(n > 12000, "but not that of a peer whose requests end well, too");
}

/* A sign of life is given when asked for; and asked for, if the peer knows how. */
static void test_ping(void)
{
    answer_here();
    http->h2_ping_ms = 100;
    http->h2_ping_timeout_ms = 300;
    knows_ping = true;
    open_link();
    hello();
    text(PING, 0, "");
    is_str(heard(), "HELLO/0:12 PING/0:0E", "PING is answered");
    for (unsigned i = 0; i < 5; i++) {
        tick(101);
        is_str(heard(), "PING/0:0", "and sent");
        tick(201);
        is_str(heard(), "", "one at a time");
        text(PING | END, 0, "");
        hd_ignore(heard() == NULL);
    }
    tick(101);
    is_str(heard(), "PING/0:0", "again");
    tick(301);
    hd_ignore(heard() == NULL);
    ok(is_closed, "who doesn't answer is dead");
    close_link("ping");

    knows_ping = false;
    open_link();
    hello();
    hd_ignore(heard() == NULL);
    for (unsigned i = 0; i < 5; i++)
        tick(301);
    is_str(heard(), "", "an older peer isn't asked");
    ok(!is_closed, "nor closed for it");
    close_link("no ping");

    open_link();
    tick(101);
    is_str(heard(), "HELLO/0:12", "HELLO itself is waited for");
    tick(301);
    hd_ignore(heard() == NULL);
    ok(is_closed, "not for ever");
    close_link("no hello");
}

/* Beyond the number of streams: not among the first, which couldn't know it. */
static void test_streams_max(void)
{
    answer_here();
    http->h2_streams = 2;
    open_link();
    hello();
    hd_ignore(heard() == NULL);
    text(HEAD | END, 0x1ffff, GET);
    is_str(heard(), "RESET/255:4", "an index beyond all is refused");
    for (unsigned i = 1; i < 100; i++)
        text(HEAD | END, 0x10000 + i, GET);
    hd_ignore(heard() == NULL);
    text(HEAD | END, 0x20002, GET);
    is_str(heard(), "RESET/2:4", "one beyond the number is refused");
    text(HEAD | END, 0x20001, GET);
    is_str(heard(), "HEAD/1:0E", "one below it is served");
    http->h2_streams = 0;
    close_link("the number of streams");
}

/* A peer isn't waited for while we take nothing; then it has its time. */
static void test_patience(void)
{
    static char bytes[60000];
    hd_req_t *req;

    answer_here();
    route->action = HD_ACT_PROXY;
    lb.rc = HD_AGAIN;
    loc->client_max_body_size = 0;
    loc->client_body_timeout_ms = 5000;
    open_link();
    hello();
    hd_ignore(heard() == NULL);
    text(HEAD, 0x10001, POST "\r\n");
    hd_ignore(heard() == NULL);
    for (unsigned i = 0; i < 2; i++)
        frame(DATA, 0x10001, bytes, sizeof(bytes));
    is_str(heard(), "", "a body that nobody takes");
    req = hd_container_of(lb.wake, hd_req_t, wake);
    ok(hd_request_is_full(req), "to the brim");
    for (unsigned i = 0; i < 10; i++)
        tick(1001);
    is_str(heard(), "", "is not the peer's fault");
    req->client->want_body(req);
    for (unsigned i = 0; i < 4; i++)
        tick(1001);
    ok(strstr(heard(), "HEAD") == NULL, "once it is taken the peer has its time");
    for (unsigned i = 0; i < 3; i++)
        tick(1001);
    ok(strstr(heard(), "HEAD/1:0") != NULL, "and not more");
    ok(strncmp(last_head, "HTTP/1.1 408 ", 13) == 0, "408");
    loc->client_body_timeout_ms = 60000;
    close_link("patience");
}

/* Answered before its body has come: the rest isn't waited for. */
static void test_early_answer(void)
{
    answer_here();
    loc->client_max_body_size = 10;
    open_link();
    hello();
    hd_ignore(heard() == NULL);
    text(HEAD, 0x10001, POST "Content-Length: 100\r\n\r\n");
    ok(strstr(heard(), "E RESET/1:4") != NULL, "an answer and the end of the stream");
    ok(strncmp(last_head, "HTTP/1.1 413 ", 13) == 0, "413");
    text(DATA, 0x10001, "late");
    is_str(heard(), "", "the rest is passed over");
    loc->client_max_body_size = 0;
    close_link("an early answer");
}

/* A drained link serves what is there and what crosses GOAWAY; what comes later may be
 * repeated elsewhere. */
static void test_drain(void)
{
    hd_post_t *first;

    answer_here();
    route->action = HD_ACT_PROXY;
    lb.rc = HD_AGAIN;
    open_link();
    hello();
    text(HEAD | END, 0x10000, GET);
    hd_ignore(heard() == NULL);
    first = lb.wake;
    hd_weft_drain(loop, &(hd_drain_round_t){.no = 1, .left = 1});
    is_str(heard(), "GOAWAY/0:0", "GOAWAY");
    text(HEAD | END, 0x10001, GET);
    is_str(heard(), "", "what crosses it is served, too");
    number(RESET, 0x10001, 0);
    tick(5001);
    text(HEAD | END, 0x10002, GET);
    is_str(heard(), "RESET/2:4", "what comes much later is refused");
    lb.rc = HD_ERROR;
    lb.code = HD_E_NO_HEALTHY;
    hd_post(loop, first);
    is_int(strncmp(heard(), "HEAD/0:0", 8), 0, "the first one is answered");
    ok(!is_closed, "the client closes, not we");
    tick(5001);
    hd_ignore(heard() == NULL);
    ok(is_closed, "but if it doesn't");
    close_link("drain");
}

/* --- a response beyond the client's credit waits for more of it, others pass --- */

#define BIG 200000

static hd_rc_t big_start(hd_req_t *req, const void *conf)
{
    static char body[BIG];
    hd_chain_t chain;

    (void)conf;
    memset(body, 'b', sizeof(body));
    req->res =
        (hd_res_head_t){.status = 200, .has_body = true, .content_length = sizeof(body)};
    hd_headers_init(&req->res.headers, req->pool, 4);
    hd_response_start(req);
    hd_chain_init(&chain);
    hd_chain_add(&chain, NULL, body, sizeof(body), HD_SLICE_END);
    hd_response_give_body(req, &chain);
    return HD_AGAIN;
}

static const hd_service_t big = {.name = "big", .on_start = big_start};

static size_t count_received(void)
{
    static unsigned char bytes[1 << 20];
    size_t got = 0;

    turn_some(loop);
    for (ssize_t n; (n = recv(fd, bytes + got, sizeof(bytes) - got, 0)) > 0;
         turn_some(loop))
        got += (size_t)n;
    return got;
}

static void test_credit(void)
{
    size_t got;

    answer_here();
    route->action = HD_ACT_SERVICE;
    route->service = hd_service_find(HD_STR("big"));
    open_link();
    hello();
    text(HEAD | END, 0x10000, GET);
    got = count_received();
    ok(got > HD_WEFT_CREDIT && got < HD_WEFT_CREDIT + 2000, "64 KB and no more: %zu",
       got);
    route->action = HD_ACT_ANSWER;
    text(HEAD | END, 0x10001, GET);
    is_str(heard(), "HEAD/1:0E", "another one is answered meanwhile");
    number(CREDIT, 0x10000, 1000000);
    got = count_received();
    ok(got > BIG - HD_WEFT_CREDIT && got < BIG, "the rest follows: %zu", got);
    is_int(hd_requests_active(), 0, "and the request is over");
    text(HEAD | END, 0x20000, GET);
    is_str(heard(), "HEAD/0:0E", "its place is free again");
    close_link("credit");
}

/* Good frames with bytes changed by chance: nothing crashes, nothing is left. */
static void test_noise(void)
{
    uint64_t seed = 42;

    for (unsigned round = 0; round < 400; round++) {
        unsigned char bytes[400];
        size_t n = 0, len = strlen(POST "Content-Length: 5\r\n\r\n");

        answer_here();
        open_link();
        hello();
        put32(bytes, (uint32_t)len << 8 | HEAD);
        put32(bytes + 4, 0x10000);
        memcpy(bytes + 8, POST "Content-Length: 5\r\n\r\n", len);
        n = 8 + len;
        put32(bytes + n, 5u << 8 | DATA | END);
        put32(bytes + n + 4, 0x10000);
        memcpy(bytes + n + 8, "hello", 5);
        n += 13;
        for (unsigned i = 0; i < 1 + round % 5; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            bytes[(seed >> 33) % n] = (unsigned char)(seed >> 24);
        }
        send_bytes(bytes, n);
        hd_ignore(heard() == NULL);
        close(fd);
        turn_some(loop);
        in_n = 0;
        if (hd_requests_active() != 0 || hd_conns_open(loop) != 0) {
            ok(false, "round %u leaves something behind", round);
            return;
        }
    }
    is_int(hd_blocks_in_use(), 0, "400 rounds of noise: no block is in use");
}

int main(void)
{
    hd_ignore(hd_service_register(&big) == 0);
    start_bench();
    test_good();
    test_slow();
    test_long_head();
    test_bad_heads();
    test_bad_bodies();
    test_fatal();
    test_floods();
    test_ping();
    test_streams_max();
    test_patience();
    test_early_answer();
    test_drain();
    test_credit();
    test_noise();
    end_bench();
    return done_testing();
}
