/* What listener filters and layers make of first bytes: the HTTP inspector's guesses; the
 * PROXY layer's head, before all else; sockets that a broker makes. */
#include "core/net/hd_listener_int.h"
#include "core/net/hd_proxy_protocol.h"
#include "nettest.h"

static hd_loop_t *loop;
static hd_err_t err;
static owner_t o;

/* xds-resources: "request line -> http/1.0 / http/1.1; HTTP/2 preface -> h2c; else
 * nothing; gives up at first impossible byte". */
static void test_guess(void)
{
    static const struct {
        const char *bytes, *want; /* "more", "none", or the protocol */
    } rows[] = {
        {"GET / HTTP/1.1\r\n", "http/1.1"},
        {"GET / HTTP/1.0\r\n", "http/1.0"},
        {"GET / HTTP/1.1", "http/1.1"},
        {"\r\nGET / HTTP/1.1\r\n", "http/1.1"},
        {"PROPFIND http://x/%20?y HTTP/1.1\r\n", "http/1.1"},
        {"OPTIONS * HTTP/1.1\r\n", "http/1.1"},
        {"CONNECT a:1 HTTP/1.1\r\n", "http/1.1"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "h2c"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxyz", "h2c"},
        {"PRI * HTTP/2.0\r\n", "more"},
        {"PR", "more"},
        {"PRIV / HTTP/1.1\r\n", "http/1.1"},
        {"G", "more"},
        {"GET", "more"},
        {"GET ", "more"},
        {"GET /", "more"},
        {"GET / ", "more"},
        {"GET / HTTP/1.", "more"},
        {"\r\n", "more"},
        {"PRI * HTTP/2.0\r\n\r\nXX", "none"},
        {"GET / HTTP/2.0\r\n", "none"},
        {"GET / HTTP/1.2\r\n", "none"},
        {"GET / HTTQ", "none"},
        {"GET  / HTTP/1.1\r\n", "none"},
        {"GET /\r\n", "none"},
        {" GET / HTTP/1.1\r\n", "none"},
        {"GET\t/ HTTP/1.1\r\n", "none"},
        {"GET(", "none"},
        {"220 mail.example ESMTP\r\n", "none"},
        {"\x16\x03\x01", "none"},
        {"\r\n\r\n\r\nGET / HTTP/1.1\r\n", "none"},
        {"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "none"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        hd_str_t protocol;
        hd_rc_t rc = hd_guess_http(hd_str_c(rows[i].bytes), &protocol);

        is_str(rc == HD_OK      ? protocol.data
               : rc == HD_AGAIN ? "more"
                                : "none",
               rows[i].want, "\"%s\"", rows[i].bytes);
    }
    {
        hd_str_t protocol;

        ok(hd_guess_http(hd_str_n("GET /\0 HTTP/1.1\r\n", 17), &protocol) ==
                   HD_DECLINED &&
               hd_guess_http(hd_str_n("G\0", 2), &protocol) == HD_DECLINED,
           "zero bytes");
    }
}

static void test_proxy_layer(void)
{
    hd_addr_t to, from, at;
    int l = tcp_listen(&to), fd;
    hd_proxy_head_t head;
    hd_conn_t *c;
    char buf[200];

    hd_ignore(hd_addr_parse(NULL, HD_STR("[fd00::1]:5"), 0, &from, &err) != HD_OK);
    hd_ignore(hd_addr_parse(NULL, HD_STR("[fd00::2]:6"), 0, &at, &err) != HD_OK);
    memset(&o, 0, sizeof(o));
    o.read_all = true;
    c = hd_conn_connect(loop, &to, NULL, 0, &owner_handler, &o, &err);
    ok(hd_proxy_push(c, 2, &from, &at, HD_STR_NONE, &err) == HD_OK &&
       c->top != c->bottom);
    turn_until(loop, o.opens > 0);
    fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    is_int(peer_read(loop, fd, buf, 52), 52, "the head goes even if nothing else does");
    ok(hd_proxy_parse(hd_str_n(buf, 52), &head, &err) == HD_OK &&
       hd_addr_eq(&head.remote, &from) && hd_addr_eq(&head.local, &at));
    ok(hd_conn_try_send_copy(c, "payload", 7) && write(fd, "answer", 6) == 6);
    is_int(peer_read(loop, fd, buf, 7), 7);
    is_mem(buf, "payload", 7, "the bytes behind it");
    turn_until(loop, o.got == 6);
    hd_conn_close(c, 0);
    close(fd);
    close(l);
    hd_loop_turn(loop, 0);
}

/* --- the broker --- */

static hd_socket_wait_t *waiting;
static int asks_n, cancels_n;

static bool is_beyond(const hd_socket_spec_t *spec)
{
    return spec->mark != 0;
}

static hd_rc_t ask(hd_loop_t *lp, const hd_socket_spec_t *spec, hd_socket_wait_t *wait,
                   hd_err_t *e)
{
    (void)lp;
    (void)spec;
    (void)e;
    asks_n++;
    waiting = wait;
    return HD_AGAIN;
}

static void cancel(hd_socket_wait_t *wait)
{
    cancels_n += wait == waiting;
    waiting = NULL;
}

static const hd_socket_broker_t broker = {
    .is_beyond_rights = is_beyond, .ask = ask, .cancel = cancel};

static void test_broker(void)
{
    hd_socket_spec_t marked = {.mark = 1337},
                     plain = {.family = AF_INET, .type = SOCK_STREAM};
    hd_err_t refusal = {.code = HD_E_SYS, .sys_errno = 1, .text = "the broker says no"};
    hd_addr_t to;
    int l = tcp_listen(&to), fd;
    hd_conn_t *c;

    hd_socket_broker = &broker;
    for (int i = 0; i < 4; i++) {
        memset(&o, 0, sizeof(o));
        c = hd_conn_connect(loop, &to, i < 3 ? &marked : NULL, 5000, &owner_handler, &o,
                            &err);
        turn_some(loop);
        ok(c != NULL && asks_n == (i < 3 ? i + 1 : 3));
        if (i == 0) {
            ok(hd_socket_make(&plain, &fd, &err) == HD_OK && o.opens == 0);
            waiting->on_socket(waiting, fd, NULL);
            turn_until(loop, o.opens > 0);
            pass("the broker's socket is connected");
        } else if (i == 1) {
            waiting->on_socket(waiting, -1, &refusal);
            turn_until(loop, o.closes > 0);
            ok(strcmp(c->err->text, "the broker says no") == 0 && c->err->sys_errno == 1,
               "its refusal is the reason");
        } else if (i == 3) {
            turn_until(loop, o.opens > 0);
            pass("what is within our rights isn't asked for");
        }
        hd_conn_close(c, 0);
        is_int(cancels_n, i >= 2, "who gives up while waiting cancels");
        hd_loop_turn(loop, 0);
    }
    hd_socket_broker = NULL;
    close(l);
}

static void test_sockets(void)
{
    hd_socket_spec_t spec = {.type = SOCK_STREAM,
                             .listen = true,
                             .reuseport = true,
                             .nodelay = true,
                             .keepalive_idle_s = 30,
                             .keepalive_interval_s = 5,
                             .keepalive_probes = 3};
    char path[64];
    int a, b, value;
    socklen_t len = sizeof(value);
    struct sockaddr_in in;
    socklen_t in_len = sizeof(in);

    hd_ignore(!hd_addr_parse_ip(HD_STR("127.0.0.1"), &spec.bind));
    hd_err_clear(&err);
    ok(hd_socket_make(&spec, &a, &err) == HD_OK, "%s", err.text);
    getsockname(a, (struct sockaddr *)&in, &in_len);
    spec.bind.port = ntohs(in.sin_port);
    ok(hd_socket_make(&spec, &b, &err) == HD_OK, "SO_REUSEPORT: one each");
    ok(getsockopt(b, IPPROTO_TCP, 1 /* TCP_NODELAY */, &value, &len) == 0 && value == 1);
    ok(fcntl(a, F_GETFL) & O_NONBLOCK && fcntl(a, F_GETFD) & FD_CLOEXEC);
    close(b);
    spec.reuseport = false;
    ok(hd_socket_make(&spec, &b, &err) == HD_ERROR && b == -1 &&
           err.sys_errno == EADDRINUSE,
       "a port in use: %s", err.text);
    close(a);
    hd_err_clear(&err);
    spec.netns = 7;
    ok(hd_socket_open(loop, &spec, &a, NULL, &err) == HD_ERROR, "%s", err.text);

    snprintf(path, sizeof(path), "/tmp/heddle-inspect-%d", (int)getpid());
    spec = (hd_socket_spec_t){.type = SOCK_STREAM, .listen = true};
    spec.bind = (hd_addr_t){.family = AF_UNIX, .path = hd_str_c(path)};
    hd_err_clear(&err);
    ok(hd_socket_make(&spec, &a, &err) == HD_OK, "%s", err.text);
    ok(hd_socket_make(&spec, &b, &err) == HD_ERROR, "a unix socket in use stays");
    close(a);
    ok(hd_socket_make(&spec, &a, &err) == HD_OK, "one that a crash left behind doesn't");
    close(a);
    unlink(path);
}

int main(void)
{
    alarm(HANG_S);
    loop = hd_loop_create(NULL, 100, &err);
    test_guess();
    test_proxy_layer();
    test_broker();
    test_sockets();
    hd_loop_destroy(loop);
    return done_testing();
}
