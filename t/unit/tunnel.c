/* Tunnels: bytes both ways, half-close, resets, back-pressure, idle time, the spliced
 * way. */
#include "core/net/hd_tunnel.h"
#include "core/os/hd_clock.h"
#include "nettest.h"
#include <dirent.h>

static hd_loop_t *loop;
static hd_err_t err;
static hd_tunnel_t *tunnel;
static hd_conn_t *down, *up;
static int client, server; /* the far ends */

static uint64_t extra_ns;
static uint64_t shifted_clock(void)
{
    return hd_clock_mono_ns() + extra_ns;
}

static int ends_n;
static hd_tunnel_result_t result;
static hd_err_t result_err;

static void on_end(void *arg, const hd_tunnel_result_t *r)
{
    ok(arg == &ends_n && down->state == HD_CONN_OPEN && up->state == HD_CONN_OPEN,
       "told while both conns are there");
    ends_n++;
    result = *r;
    hd_err_clear(&result_err);
    if (r->err != NULL)
        result_err = *r->err;
}

static hd_conn_t *make_conn(int *peer)
{
    hd_addr_t none = {.family = AF_UNSPEC};
    hd_conn_t *c;
    int fds[2];

    tcp_pair(fds);
    *peer = fds[1];
    c = hd_conn_create(loop, fds[0], &none, &err);
    if (c == NULL)
        exit(1);
    return c;
}

static void start(const hd_tunnel_conf_t *conf)
{
    static const hd_tunnel_conf_t none;

    down = make_conn(&client);
    up = make_conn(&server);
    up->is_upstream = true;
    ends_n = 0;
    tunnel = hd_tunnel_start(down, up, conf != NULL ? conf : &none, on_end, &ends_n);
    turn_some(loop);
}

static void is_over(void)
{
    turn_until(loop, hd_conns_open(loop) == 0);
    is_int(ends_n, 1, "it ended once");
    close(client);
    close(server);
    hd_loop_turn(loop, 0);
}

static int open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d != NULL && readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void test_small_and_half_close(void)
{
    char buf[100];

    start(NULL);
    ok(send(client, "hello", 5, 0) == 5);
    is_int(peer_read(loop, server, buf, 5), 5);
    is_mem(buf, "hello", 5);
    ok(send(server, "world!", 6, 0) == 6);
    is_int(peer_read(loop, client, buf, 6), 6);
    is_mem(buf, "world!", 6);
    turn_some(loop);
    is_int(hd_blocks_in_use(), 0, "a tunnel that idles owns no block");

    shutdown(client, SHUT_WR);
    is_int(peer_read(loop, server, buf, 1), 0, "the client's end goes to the server");
    is_int(ends_n, 0, "but the other way is open");
    ok(send(server, "the answer", 10, 0) == 10);
    is_int(peer_read(loop, client, buf, 10), 10);
    shutdown(server, SHUT_WR);
    is_int(peer_read(loop, client, buf, 1), 0);
    is_over();
    ok(result.err == NULL && strcmp(result.ended_by, "downstream") == 0 &&
           result.bytes_down_up == 5 && result.bytes_up_down == 16,
       "in good order, first by the client");
}

/* Bytes that a peer wrote before the tunnel was there, and an end. */
static void test_start_late(void)
{
    char buf[100];

    down = make_conn(&client);
    up = make_conn(&server);
    ok(send(server, "greeting", 8, 0) == 8);
    shutdown(server, SHUT_WR);
    turn_some(loop);
    is_int(hd_conn_read(up, buf, 5), 5);
    ends_n = 0;
    tunnel = hd_tunnel_start(down, up, &(hd_tunnel_conf_t){0}, on_end, &ends_n);
    is_int(peer_read(loop, client, buf, 100), 3,
           "what was left and the end are passed on");
    shutdown(client, SHUT_WR);
    is_over();
    is_str(result.ended_by, "upstream");

    down = make_conn(&client);
    up = make_conn(&server);
    shutdown(server, SHUT_WR);
    shutdown(client, SHUT_WR);
    turn_until(loop, up->peer_closing && down->peer_closing);
    ok(hd_conn_read(up, buf, 5) == 0 && hd_conn_read(down, buf, 5) == 0);
    ends_n = 0;
    tunnel = hd_tunnel_start(down, up, &(hd_tunnel_conf_t){0}, on_end, &ends_n);
    is_int(ends_n, 0, "even when nothing is left, not from within its start");
    is_over();
}

/* Pushes <total> bytes through both ways at once. */
typedef struct {
    int from, to;
    size_t sent, got;
    uint32_t sent_sum, got_sum;
} flow_t;

static void push(flow_t *f, size_t total)
{
    static char buf[65536];
    ssize_t n;

    if (f->sent < total) {
        size_t want = hd_min(sizeof(buf), total - f->sent);

        for (size_t i = 0; i < want; i += 64)
            buf[i] = (char)((f->sent + i) / 64 * 7);
        n = send(f->from, buf, want, 0);
        if (n > 0) {
            f->sent_sum = add_sum(f->sent_sum, buf, (size_t)n);
            f->sent += (size_t)n;
        }
    }
    while ((n = recv(f->to, buf, sizeof(buf), 0)) > 0) {
        f->got_sum = add_sum(f->got_sum, buf, (size_t)n);
        f->got += (size_t)n;
    }
}

static void test_bulk(size_t total, bool both)
{
    flow_t there = {0}, back = {0};
    int files, most = 0;

    start(NULL);
    there.from = back.to = client;
    there.to = back.from = server;
    files = open_files();
    while (there.got < total || (both && back.got < total)) {
        push(&there, total);
        if (both)
            push(&back, total);
        hd_loop_turn(loop, 0);
        most = hd_max(most, open_files());
    }
    ok(there.got == total && there.sent_sum == there.got_sum, "%zu bytes there", total);
    if (both)
        ok(back.got == total && back.sent_sum == back.got_sum, "and back");
    ok(most >= files + (both ? 4 : 2), "spliced: there was a pipe each way");
    is_int(hd_blocks_in_use(), 0);
    for (int i = 0; i < 10; i++) { /* a trickle: the pipe isn't worth it any more */
        char b;

        ok(send(client, "x", 1, 0) == 1);
        is_int(peer_read(loop, server, &b, 1), 1);
        ok(!both || send(server, "y", 1, 0) == 1);
        is_int(!both || peer_read(loop, client, &b, 1) == 1, 1);
    }
    is_int(open_files(), files, "the pipes are closed when little comes");
    close(client);
    close(server);
    is_over();
    ok(result.bytes_down_up == total + 10 &&
       result.bytes_up_down == (both ? total + 10 : 0));
}

/* Ends right behind a bulk that lies in pipe and queues. */
static void test_bulk_then_end(void)
{
    static char buf[65536];
    flow_t there = {0};
    size_t total = 8 << 20;

    start(NULL);
    there.from = client;
    there.to = server;
    while (there.sent < total) {
        push(&there, total);
        hd_loop_turn(loop, 0);
    }
    shutdown(client, SHUT_WR);
    for (;;) {
        ssize_t n = recv(server, buf, sizeof(buf), 0);

        if (n == 0)
            break;
        if (n > 0) {
            there.got_sum = add_sum(there.got_sum, buf, (size_t)n);
            there.got += (size_t)n;
        }
        hd_loop_turn(loop, 0);
    }
    ok(there.got == total && there.got_sum == there.sent_sum, "the end comes behind all");
    close(server);
    is_over();
}

static void test_back_pressure(void)
{
    static char buf[65536];
    size_t sent = 0, idle = 0, got = 0, blocks = 0;

    start(NULL);
    while (idle < 50) { /* nobody reads at the server */
        ssize_t n = send(client, buf, sizeof(buf), 0);

        sent += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        blocks = hd_max(blocks, hd_blocks_in_use());
        hd_loop_turn(loop, 1);
    }
    ok(blocks <= 2 * 65536 / HD_BLOCK_BYTES, "a queue within its mark: %zu blocks",
       blocks);
    while (got < sent) {
        got += peer_read(loop, server, buf, hd_min(sizeof(buf), sent - got));
        hd_loop_turn(loop, 0);
    }
    is_int(got, sent, "and all goes on when it reads");
    close(client);
    close(server);
    is_over();
}

static void test_trickle_to_deaf(void)
{
    static char buf[65536];
    size_t idle = 0, before;
    int yes = 1;

    start(NULL);
    while (idle < 50) {
        ssize_t n = send(client, buf, 1000, 0);

        idle = n > 0 ? 0 : idle + 1;
        hd_loop_turn(loop, n > 0 ? 0 : 1);
        if (hd_conn_is_high(up) || !up->is_writable)
            break;
    }
    before = hd_blocks_in_use();
    setsockopt(client, IPPROTO_TCP, 1 /* TCP_NODELAY */, &yes, sizeof(yes));
    for (int i = 0; i < 2000 && !hd_conn_is_high(up); i++) {
        hd_ignore(send(client, "z", 1, 0) != 1);
        hd_loop_turn(loop, 0);
    }
    ok(hd_blocks_in_use() <= before + 2,
       "a byte at a time to one who doesn't read: %zu blocks after %zu",
       hd_blocks_in_use(), before);
    hd_tunnel_stop(tunnel, true);
    is_over();
}

/* Sends until nothing goes any more. */
static size_t fill(void)
{
    static char buf[65536];
    size_t sent = 0;

    for (size_t idle = 0; idle < 50;) {
        ssize_t n = send(client, buf, sizeof(buf), 0);

        sent += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        hd_loop_turn(loop, 1);
    }
    return sent;
}

static void test_deaf(void)
{
    hd_tunnel_conf_t conf = {.send_timeout_ms = 600000}; /* longer than the test runs */
    static char buf[65536];
    size_t sent, got = 0;

    start(&conf);
    sent = fill();
    extra_ns += 300000000000u;
    turn_some(loop);
    is_int(ends_n, 0, "an upstream that takes nothing has its time");
    while (got < sent) {
        got += peer_read(loop, server, buf, hd_min(sizeof(buf), sent - got));
        hd_loop_turn(loop, 0);
    }
    extra_ns += 3600000000000u;
    turn_some(loop);
    is_int(ends_n, 0, "one that has taken all may rest");
    fill();
    for (int times = 0; times < 2 && ends_n == 0;
         times++) { /* its time may be half over */
        extra_ns += 700000000000u;
        turn_some(loop);
    }
    ok(ends_n == 1 && strcmp(result.ended_by, "deaf") == 0 &&
           result_err.code == HD_E_TIMEOUT,
       "one that takes nothing for longer is given up");
    is_over();

    start(&conf);
    ok(send(server, "x", 1, 0) == 1);
    is_int(peer_read(loop, client, buf, 1), 1);
    extra_ns += 3600000000000u;
    turn_some(loop);
    is_int(ends_n, 0, "where nothing waits there is no such time");
    hd_tunnel_stop(tunnel, true);
    is_over();
}

static void test_reset(void)
{
    struct linger hard = {1, 0};
    char b;

    start(NULL);
    setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(client);
    client = dup(server);
    turn_until(loop, ends_n > 0);
    ok(result_err.code == HD_E_RESET && strcmp(result.ended_by, "downstream") == 0, "%s",
       result_err.text);
    wait_readable(server);
    ok(recv(server, &b, 1, 0) < 0 && errno == ECONNRESET,
       "a reset is passed on as one: a stream cut short doesn't look whole");
    is_over();

    /* What came before it is delivered. */
    start(NULL);
    ok(send(server, "last words", 10, 0) == 10);
    setsockopt(server, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(server);
    server = dup(client);
    {
        char buf[20];

        is_int(peer_read(loop, client, buf, sizeof(buf)), 10,
               "bytes before a reset arrive");
    }
    turn_until(loop, ends_n > 0);
    is_str(result.ended_by, "upstream");
    close(client);
    close(server);
    client = server = -1;
    is_over();
}

#define TAIL_BYTES 150000

/* The upstream has said all, and the client takes it slowly: more is queued than the
 * sockets hold. */
static void say_all_to_slow_client(const hd_tunnel_conf_t *conf)
{
    static char data[TAIL_BYTES];
    int small = 4096;

    start(conf);
    hd_conn_set_marks(down, TAIL_BYTES, 0); /* so that the end is read at once */
    setsockopt(hd_conn_bare_fd(down), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    setsockopt(client, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    memset(data, 'd', sizeof(data));
    ok(send(server, data, sizeof(data), 0) == TAIL_BYTES);
    shutdown(server, SHUT_WR);
    turn_until(loop, ends_n > 0);
    is_str(result.ended_by, "upstream");
    turn_some(loop);
    ok(!hd_chain_is_empty(&down->out), "the sockets don't hold it all");
}

static void test_slow_tail(void)
{
    static const hd_tunnel_conf_t conf = {.idle_timeout_ms = 600000,
                                          .ends_together = true},
                                  timeless = {.ends_together = true};
    static char buf[TAIL_BYTES];
    size_t got = 0;

    say_all_to_slow_client(&conf);
    for (int i = 0; i < 2; i++) { /* each pause is below the idle time */
        extra_ns += 590000000000u;
        turn_some(loop);
        got += peer_read(loop, client, buf, 60000);
    }
    got += peer_read(loop, client, buf, TAIL_BYTES);
    is_int(got, TAIL_BYTES, "what was queued at the end arrives, however long it takes");
    is_int(recv(client, buf, 1, 0), 0, "and so does the end");
    shutdown(client, SHUT_WR);
    is_over();

    say_all_to_slow_client(&timeless);
    extra_ns += 1800000000000u;
    turn_some(loop);
    is_int(peer_read(loop, client, buf, TAIL_BYTES), TAIL_BYTES,
           "without an idle time, too");
    shutdown(client, SHUT_WR);
    is_over();

    say_all_to_slow_client(&conf);
    for (int i = 0; i < 2; i++) { /* the first time may have seen something taken */
        extra_ns += 601000000000u;
        turn_some(loop);
    }
    got = peer_read(loop, client, buf, TAIL_BYTES);
    ok(got < TAIL_BYTES && errno == ECONNRESET, "who takes nothing is reset at last");
    is_over();
}

static void test_idle(void)
{
    hd_tunnel_conf_t conf = {.idle_timeout_ms = 60000, .half_close_timeout_ms = 1000};
    char buf[10];

    start(&conf);
    extra_ns += 59000000000u;
    turn_some(loop);
    ok(send(client, "x", 1, 0) == 1);
    is_int(peer_read(loop, server, buf, 1), 1);
    extra_ns += 59000000000u;
    turn_some(loop);
    is_int(ends_n, 0, "each byte begins the time anew");
    extra_ns += 2000000000u;
    turn_until(loop, ends_n > 0);
    ok(strcmp(result.ended_by, "idle") == 0 && result_err.code == HD_E_TIMEOUT);
    is_over();

    start(&conf);
    shutdown(client, SHUT_WR);
    is_int(peer_read(loop, server, buf, 1), 0);
    extra_ns += 900000000u;
    turn_some(loop);
    ok(send(server, "x", 1, 0) == 1);
    is_int(peer_read(loop, client, buf, 1), 1);
    extra_ns += 900000000u;
    turn_some(loop);
    is_int(ends_n, 0, "after one side's end: the shorter time, anew with each byte");
    extra_ns += 200000000u;
    turn_until(loop, ends_n > 0);
    is_str(result.ended_by, "idle");
    is_over();
}

static void test_block_ceiling(void)
{
    static char buf[200000];
    hd_block_t *held[4];
    size_t got;

    start(NULL);
    for (int i = 0; i < 4; i++)
        held[i] = hd_block_try_take();
    hd_blocks_set_max(4);
    ok(send(client, buf, 100000, 0) == 100000);
    turn_some(loop);
    ok(recv(server, buf, 1, 0) < 0 && ends_n == 0, "no block left: it waits");
    for (int i = 0; i < 4; i++)
        hd_block_unref(held[i]);
    got = 0;
    while (got < 100000) {
        got += peer_read(loop, server, buf, 100000 - got);
    }
    is_int(got, 100000, "and goes on by itself once there is one");
    hd_blocks_set_max(SIZE_MAX);
    hd_tunnel_stop(tunnel, false);
    is_str(result.ended_by, "drain");
    ok(result.err == NULL);
    close(client);
    close(server);
    client = server = -1;
    is_over();
}

/* Stacks without a descriptor. */
static void test_pipes(void)
{
    static char data[300000];
    static owner_t far[2];
    hd_conn_t *a[2], *b[2];

    ok(hd_conn_create_pipe(loop, a, &err) == HD_OK &&
       hd_conn_create_pipe(loop, b, &err) == HD_OK);
    memset(far, 0, sizeof(far));
    far[0].read_all = far[1].read_all = true;
    hd_conn_set_handler(a[0], &owner_handler, &far[0]);
    hd_conn_set_handler(b[1], &owner_handler, &far[1]);
    down = a[1];
    up = b[0];
    ends_n = 0;
    tunnel = hd_tunnel_start(down, up, &(hd_tunnel_conf_t){0}, on_end, &ends_n);
    memset(data, 'd', sizeof(data));
    ok(hd_conn_try_send_copy(a[0], data, sizeof(data)));
    hd_conn_shutdown(a[0]);
    turn_until(loop, far[1].ended);
    is_int(far[1].got, sizeof(data), "pipe to pipe, more than they hold, and the end");
    ok(hd_conn_try_send_copy(b[1], data, 5));
    hd_conn_close(b[1], 0);
    turn_until(loop, far[0].ended);
    is_int(far[0].got, 5);
    hd_conn_close(a[0], 0);
    client = server = -1;
    is_over();
}

int main(void)
{
    alarm(HANG_S);
    loop = hd_loop_create(NULL, 100, &err);
    hd_loop_set_clock(loop, shifted_clock);
    test_small_and_half_close();
    test_start_late();
    test_bulk(48 << 20, false);
    test_bulk(16 << 20, true);
    test_bulk_then_end();
    test_back_pressure();
    test_trickle_to_deaf();
    test_reset();
    test_slow_tail();
    test_idle();
    test_deaf();
    test_block_ceiling();
    test_pipes();
    hd_loop_destroy(loop);
    is_int(hd_blocks_in_use(), 0);
    return done_testing();
}
