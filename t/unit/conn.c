/* A conn over a socket: short reads, ends, resets, marks, closing with output queued,
 * connecting, and what an idle one costs. */
#include "core/base/hd_asan.h"
#include "nettest.h"
#include <malloc.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static hd_loop_t *loop;
static hd_err_t err;
static owner_t o;
static char big[8 << 20]; /* more than the kernel takes at once */

static uint64_t fake_ns;
static uint64_t fake_clock(void)
{
    return fake_ns;
}

static bool send_text(hd_conn_t *c, const char *text)
{
    return hd_conn_try_send_copy(c, text, strlen(text));
}

static void test_short_reads(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    char buf[100];

    is_int(o.readables, 0, "nothing there: nothing said");
    ok(hd_conn_read(c, buf, 100) == HD_IO_AGAIN && !c->is_readable);
    ok(send(peer, "hello", 5, 0) == 5);
    turn_until(loop, o.readables > 0);
    ok(c->is_readable && hd_conn_read(c, buf, 3) == 3, "a full read");
    ok(c->is_readable, "leaves it readable");
    ok(hd_conn_read(c, buf, 100) == 2 && !c->is_readable, "a short one drains it");
    ok(hd_conn_read(c, buf, 100) == HD_IO_AGAIN);
    turn_some(loop);
    is_int(o.readables, 1, "told once");
    ok(send(peer, "again", 5, 0) == 5);
    turn_until(loop, o.readables == 2);
    ok(hd_conn_read(c, buf, 100) == 5 && c->bytes_in == 10,
       "a new edge, and bytes are counted");

    ok(send(peer, "kept", 4, 0) == 4);
    turn_until(loop, o.readables == 3);
    turn_some(loop);
    ok(o.readables == 3 && c->is_readable, "who doesn't read isn't asked again");
    hd_conn_wake(c);
    hd_loop_turn(loop, 0);
    is_int(o.readables, 4, "unless it wakes itself");
    hd_conn_close(c, 0);
    is_int(hd_conns_open(loop), 0);
    close(peer);
}

static void test_half_close(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    char buf[100];

    ok(send(peer, "bye", 3, 0) == 3);
    shutdown(peer, SHUT_WR);
    turn_until(loop, c->peer_closing);
    is_int(hd_conn_read(c, buf, 100), 3, "bytes before the end");
    ok(c->is_readable && !c->peer_closed, "the end is still to be read");
    is_int(hd_conn_read(c, buf, 100), 0, "the end");
    ok(c->peer_closed && !c->is_readable && hd_conn_read(c, buf, 100) == 0);
    is_int(o.closes, 0, "an end in order is no error");
    ok(send_text(c, "answer"), "our half is open");
    hd_conn_shutdown(c);
    is_int(peer_read(loop, peer, buf, 100), 6, "the queue goes before our FIN");
    is_mem(buf, "answer", 6);
    hd_conn_close(c, 0);
    close(peer);
}

static void reset_fd(int fd)
{
    struct linger hard = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fd);
}

static void test_reset_by_peer(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    char buf[100];

    reset_fd(peer);
    turn_until(loop, o.closes > 0);
    ok(o.closes == 1 && c->err != NULL && c->err->code == HD_E_RESET,
       "who doesn't read is told of a reset: %s", c->err->text);
    hd_ignore(!send_text(c, "x")); /* harmless */
    hd_conn_close(c, 1000);
    turn_some(loop);
    is_int(hd_conns_open(loop), 0, "there is nothing to linger for");

    c = conn_and_peer(loop, &o, &peer);
    o.read_all = true;
    reset_fd(peer);
    turn_until(loop, o.failed);
    turn_some(loop);
    is_int(o.closes, 0, "who met the error in a read isn't told again");
    is_int(hd_conn_read(c, buf, 100), HD_IO_ERROR, "it stays an error");
    hd_conn_close(c, 0);

    /* An upstream that answers and resets: the answer is read first. */
    c = conn_and_peer(loop, &o, &peer);
    c->is_upstream = true;
    ok(send(peer, "413", 3, 0) == 3);
    reset_fd(peer);
    turn_until(loop, o.readables > 0 && c->peer_closing);
    turn_some(loop);
    is_int(o.closes, 0, "not told while its bytes are unread");
    is_int(hd_conn_read(c, buf, 100), 3);
    is_int(hd_conn_read(c, buf, 100), HD_IO_ERROR, "then the error");
    hd_conn_close(c, 0);
}

static void test_write_fails(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);

    c->is_upstream = true;
    o.read_all = true;
    ok(send(peer, "early", 5, 0) == 5);
    turn_until(loop, o.got == 5);
    close(peer);
    /* The first write is answered by a reset, one after it fails. */
    while (o.closes == 0 && !o.failed) {
        hd_ignore(!send_text(c, "x"));
        hd_loop_turn(loop, 1);
    }
    ok(o.closes + o.failed == 1 && c->err != NULL, "a failed write is told once");
    ok(hd_chain_is_empty(&c->out), "and what was queued is gone");
    hd_conn_close(c, 0);
    turn_some(loop);
}

static void test_marks(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    uint32_t sum = 0, want = 0;
    size_t sent = 0, got = 0;

    static char buf[65536];

    hd_conn_set_marks(c, 128 * 1024, 32 * 1024);
    while (!hd_conn_is_high(c)) {
        if (!hd_conn_try_send_copy(c, big + sent % 1000, 65536))
            break;
        want = add_sum(want, big + sent % 1000, 65536);
        sent += 65536;
        hd_loop_turn(loop, 0);
    }
    ok(c->out.bytes >= 128 * 1024 && o.writables == 0, "over the high mark");
    while (o.writables == 0) {
        ssize_t n = recv(peer, buf, sizeof(buf), 0);

        if (n > 0) {
            sum = add_sum(sum, buf, (size_t)n);
            got += (size_t)n;
        }
        hd_loop_turn(loop, 0);
    }
    ok(c->out.bytes <= 32 * 1024 && !hd_conn_is_high(c), "told at the low mark");
    while (got < sent) {
        ssize_t n = recv(peer, buf, sizeof(buf), 0);

        if (n > 0) {
            sum = add_sum(sum, buf, (size_t)n);
            got += (size_t)n;
        }
        hd_loop_turn(loop, 0);
    }
    ok(sum == want && c->bytes_out == sent, "all %zu bytes came, in order", sent);
    is_int(o.writables, 1, "told once");
    hd_conn_want_writable(c);
    hd_loop_turn(loop, 0);
    is_int(o.writables, 2, "and when asked for");
    hd_conn_close(c, 0);
    close(peer);
}

static void test_small_sends_keep_few_blocks(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    size_t before = hd_blocks_in_use();

    while (c->is_writable) {
        if (!hd_conn_try_send_copy(c, big, 262144))
            break;
        hd_loop_turn(loop, 0);
    }
    before = hd_blocks_in_use() - before;
    for (int i = 0; i < 1000; i++) { /* as a proxy moves one byte of a block */
        hd_block_t *b = hd_block_try_take();
        hd_chain_t chain;

        hd_chain_init(&chain);
        hd_chain_add(&chain, b, b->data, 1, 0);
        hd_block_unref(b);
        hd_conn_send(c, &chain);
    }
    ok(hd_blocks_in_use() <= before + 2, "1000 sends of a byte don't keep 1000 blocks");
    hd_conn_reset(c);
    close(peer);
    turn_some(loop);
    is_int(hd_blocks_in_use(), 0, "all blocks are back");
}

static void test_close_with_output(void)
{
    int peer, unread = 0;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    static char buf[sizeof(big) + 1];

    ok(send_text(c, "last words"));
    hd_conn_close(c, 0);
    is_int(peer_read(loop, peer, buf, 100), 10,
           "close sends what is queued within the turn");
    close(peer);

    /* More than the kernel takes, and the peer has sent what nobody reads: without
     * lingering a reset would destroy the answer. */
    c = conn_and_peer(loop, &o, &peer);
    ok(send(peer, "POST", 4, 0) == 4);
    ok(hd_conn_try_send_copy(c, big, sizeof(big)));
    hd_conn_close(c, 60000);
    hd_loop_turn(loop, 0);
    is_int(hd_conns_open(loop), 1, "it lingers");
    ok(send(peer, " more", 5, 0) == 5);
    is_int(peer_read(loop, peer, buf, sizeof(buf)), sizeof(big),
           "all is delivered, then our end");
    is_mem(buf, big, sizeof(big));
    ok(ioctl(peer, FIONREAD, &unread) == 0 && unread == 0);
    turn_some(loop);
    is_int(hd_conns_open(loop), 1, "it waits for the peer's end");
    close(peer);
    turn_until(loop, hd_conns_open(loop) == 0);
    ok(o.closes == 0, "the owner heard nothing after it had closed");

    /* A peer that never ends: the time does. */
    c = conn_and_peer(loop, &o, &peer);
    hd_conn_close(c, 50);
    turn_until(loop, hd_conns_open(loop) == 0);
    pass("lingering ends by its time");
    is_int(recv(peer, buf, 1, 0), 0, "in order");
    close(peer);
}

static void test_reset(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    char b;

    hd_conn_reset(c);
    ok(recv(peer, &b, 1, 0) < 0 && errno == ECONNRESET, "the peer sees a reset");
    hd_loop_turn(loop, 0);
    close(peer);
}

/* --- connecting --- */

static void test_connect(void)
{
    hd_addr_t to;
    int l = tcp_listen(&to), fd;
    hd_conn_t *c;
    char buf[10];

    memset(&o, 0, sizeof(o));
    c = hd_conn_connect(loop, &to, NULL, 10000, &owner_handler, &o, &err);
    ok(c != NULL && c->state == HD_CONN_CONNECTING && o.opens == 0 && c->is_upstream);
    ok(send_text(c, "early"), "sending before it is open is allowed");
    turn_until(loop, o.opens > 0);
    fd = accept(l, NULL, NULL);
    is_int(recv(fd, buf, 5, MSG_WAITALL), 5, "what was queued goes once it is open");
    close(l);
    hd_conn_close(c, 0);
    close(fd);

    memset(&o, 0, sizeof(o));
    c = hd_conn_connect(loop, &to, NULL, 10000, &owner_handler, &o, &err);
    if (c != NULL)
        turn_until(loop, o.closes > 0);
    ok(c != NULL && o.opens == 0 && c->err->sys_errno == ECONNREFUSED, "refused: %s",
       c != NULL ? c->err->text : err.text);
    hd_conn_close(c, 0);

    memset(&o, 0, sizeof(o));
    c = hd_conn_connect(loop, &to, NULL, 0, &owner_handler, &o, &err);
    hd_conn_close(c, 0);
    turn_some(loop);
    ok(o.opens == 0 && o.closes == 0 && hd_conns_open(loop) == 0,
       "one that is given up says nothing");
}

/* A listener whose queue is full takes no more: the kernel drops our SYN. */
static void test_connect_timeout(void)
{
    hd_addr_t to;
    int l = tcp_listen(&to);
    struct sockaddr_storage ss;
    socklen_t len = hd_addr_to_sockaddr(&to, &ss);
    int fill[4];
    hd_conn_t *c;

    ok(listen(l, 0) == 0);
    for (int i = 0; i < 4; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        hd_ignore(connect(fill[i], (struct sockaddr *)&ss, len) != 0);
    }
    memset(&o, 0, sizeof(o));
    c = hd_conn_connect(loop, &to, NULL, 5000, &owner_handler, &o, &err);
    fake_ns = hd_loop_now_ns(loop);
    hd_loop_set_clock(loop, fake_clock);
    turn_some(loop);
    is_int(o.opens + o.closes, 0, "it hangs");
    fake_ns += 5000000000u;
    hd_loop_turn(loop, 0);
    ok(o.closes == 1 && c->err->code == HD_E_TIMEOUT, "%s", c->err->text);
    hd_conn_close(c, 0);
    hd_loop_turn(loop, 0);
    for (int i = 0; i < 4; i++)
        close(fill[i]);
    close(l);
}

static void test_connect_at_once(void)
{
    hd_addr_t to = {.family = AF_UNIX, .path = HD_STR_INIT("/nonexistent/socket")};
    hd_socket_spec_t spec = {.type = SOCK_STREAM, .listen = true};
    char text[HD_ADDR_TEXT_MAX];
    hd_conn_t *c;
    int l;

    memset(&o, 0, sizeof(o));
    hd_err_clear(&err);
    c = hd_conn_connect(loop, &to, NULL, 1000, &owner_handler, &o, &err);
    ok(c == NULL && err.sys_errno == ENOENT && o.closes == 0, "refused at once: %s",
       err.text);
    hd_err_clear(&err);
    snprintf(text, sizeof(text), "@heddle-test-%d", (int)getpid());
    spec.bind = (hd_addr_t){.family = AF_UNIX, .path = hd_str_c(text)};
    ok(hd_socket_make(&spec, &l, &err) == HD_OK, "%s", err.text);
    c = hd_conn_connect(loop, &spec.bind, NULL, 1000, &owner_handler, &o, &err);
    ok(c != NULL && o.opens == 0, "connected at once, but told by the loop");
    turn_until(loop, o.opens > 0);
    pass("an abstract unix socket");
    hd_conn_close(c, 0);
    close(l);
    hd_loop_turn(loop, 0);
}

/* --- a layer --- */

typedef struct {
    hd_layer_t layer;
    bool open;
    char key;
    int events;
} xor_t;

static ssize_t xor_read(hd_layer_t *l, void *to, size_t len)
{
    ssize_t n = l->below->ops->read(l->below, to, hd_min(len, (size_t)3));

    for (ssize_t i = 0; i < n; i++)
        ((char *)to)[i] ^= ((xor_t *)l)->key;
    return n;
}

static ssize_t xor_writev(hd_layer_t *l, const struct iovec *iov, int n)
{
    char buf[100];
    size_t len = hd_min(iov->iov_len, sizeof(buf));
    struct iovec out = {buf, len};

    (void)n;
    for (size_t i = 0; i < len; i++)
        buf[i] = ((char *)iov->iov_base)[i] ^ ((xor_t *)l)->key;
    return l->below->ops->writev(l->below, &out, 1);
}

static hd_rc_t xor_shutdown(hd_layer_t *l)
{
    (void)l;
    return HD_OK;
}

static void xor_close(hd_layer_t *l, bool reset)
{
    (void)reset;
    ((xor_t *)l)->open = false;
}

/* The handshake: one byte of the peer's, the key. */
static unsigned xor_on_event(hd_layer_t *l, unsigned events)
{
    xor_t *x = (xor_t *)l;

    x->events++;
    if (x->key == 0 && l->below->ops->read(l->below, &x->key, 1) == 1)
        hd_conn_handshake_done(l->conn, true);
    return x->key != 0 ? events : 0;
}

static const hd_layer_ops_t xor_ops = {
    .name = "xor",
    .read = xor_read,
    .writev = xor_writev,
    .shutdown = xor_shutdown,
    .close = xor_close,
    .on_event = xor_on_event,
};

static void test_layer(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    xor_t x = {.layer = {.ops = &xor_ops}, .open = true};
    hd_str_t bytes;
    char buf[32];

    o.read_all = false;
    ok(send(peer, "\x01`bc", 4, 0) == 4);
    turn_until(loop, o.readables > 0);
    ok(hd_conn_peek(c, &bytes) == HD_OK && bytes.len == 4, "an inspector looks");
    ok(hd_conn_peek(c, &bytes) == HD_AGAIN && bytes.len == 4);
    hd_conn_push(c, &x.layer);
    hd_conn_await_handshake(c);
    ok(c->state == HD_CONN_HANDSHAKE && hd_conn_bare_fd(c) == -1);
    ok(send_text(c, "abc"), "queued meanwhile");
    o.read_all = true;
    turn_until(loop, o.opens > 0);
    turn_until(loop, o.got == 3);
    is_str(o.text, "acb", "what was peeked is the layer's to read");
    is_int(peer_read(loop, peer, buf, 3), 3);
    is_mem(buf, "`cb", 3, "the queue goes through the layer");
    ok(send(peer, "0123456789", 10, 0) == 10);
    turn_until(loop, o.got == 13);
    is_str(o.text, "acb1032547698", "a layer that gives less than asked is asked again");
    ok(!c->is_readable);
    shutdown(peer, SHUT_WR);
    turn_until(loop, o.ended);
    hd_conn_close(c, 0);
    ok(!x.open, "the layer is closed with its conn");
    close(peer);
    hd_loop_turn(loop, 0);
}

static void test_peek(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    hd_str_t bytes;
    char buf[32];

    ok(send(peer, "ab", 2, 0) == 2);
    turn_until(loop, o.readables == 1);
    ok(hd_conn_peek(c, &bytes) == HD_OK && hd_conn_peek(c, &bytes) == HD_AGAIN);
    ok(send(peer, "cd", 2, 0) == 2);
    turn_until(loop, o.readables == 2);
    ok(hd_conn_peek(c, &bytes) == HD_OK && bytes.len == 4);
    is_mem(bytes.data, "abcd", 4, "peeked bytes are one run");
    is_int(hd_blocks_in_use(), 1, "in one block");
    hd_conn_drop_peeked(c, 1);
    shutdown(peer, SHUT_WR);
    turn_until(loop, c->peer_closing);
    ok(hd_conn_peek(c, &bytes) == HD_DONE && bytes.len == 3, "the end behind them");
    is_int(hd_conn_read(c, buf, sizeof(buf)), 3);
    is_int(hd_blocks_in_use(), 0);
    is_int(hd_conn_read(c, buf, sizeof(buf)), 0, "and is read in its turn");
    hd_conn_close(c, 0);
    close(peer);

    c = conn_and_peer(loop, &o, &peer);
    for (int i = 0; i < 2; i++)
        hd_ignore(send(peer, big, HD_BLOCK_BYTES, 0) < 0);
    while (hd_conn_peek(c, &bytes) != HD_ERROR)
        hd_loop_turn(loop, 1);
    ok(bytes.len == HD_BLOCK_BYTES && c->err->code == HD_E_LIMIT, "a ceiling: %s",
       c->err->text);
    hd_conn_reset(c);
    close(peer);
    hd_loop_turn(loop, 0);
}

/* --- files --- */

static void test_file(void)
{
    int peer;
    hd_conn_t *c = conn_and_peer(loop, &o, &peer);
    FILE *f = tmpfile();
    static char buf[300000];
    hd_open_file_t *file;
    hd_chain_t chain;

    ok(f != NULL && fwrite(big, 1, 200000, f) == 200000 && fflush(f) == 0);
    file = hd_open_file_create(dup(fileno(f)));
    hd_chain_init(&chain);
    hd_chain_add(&chain, NULL, "head:", 5, 0);
    hd_chain_add_file(&chain, file, 100, 150000, 0);
    hd_chain_add(&chain, NULL, ":tail", 5, HD_SLICE_END);
    hd_conn_send(c, &chain);
    hd_conn_shutdown(c);
    is_int(peer_read(loop, peer, buf, sizeof(buf)), 150010,
           "memory, a file's range, memory");
    ok(memcmp(buf, "head:", 5) == 0 && memcmp(buf + 5, big + 100, 150000) == 0 &&
       memcmp(buf + 150005, ":tail", 5) == 0);
    hd_conn_close(c, 0);
    close(peer);

    c = conn_and_peer(loop, &o, &peer);
    hd_chain_add_file(&chain, file, 199990, 20, 0);
    hd_conn_send(c, &chain);
    turn_until(loop, o.closes > 0);
    ok(strstr(c->err->text, "shorter") != NULL, "%s", c->err->text);
    hd_conn_close(c, 0);
    hd_loop_turn(loop, 0);
    is_int(file->refs, 1, "what was sent or dropped let the file go");
    hd_open_file_unref(file);
    close(peer);
    fclose(f);
}

/* --- idle --- */

#define IDLE 10000

/* In a process of its own, for a process may not have descriptors for both ends: connects
 * <n> times, sends a byte on each and waits for the end of <control>. */
static pid_t start_clients(const hd_addr_t *to, int n, const int control[2])
{
    struct sockaddr_storage ss;
    socklen_t len = hd_addr_to_sockaddr(to, &ss);
    pid_t pid = fork();
    char b;

    if (pid != 0)
        return pid;
    close(control[1]);
    for (int i = 0; i < n; i++) {
        int fd = socket(ss.ss_family, SOCK_STREAM, 0);

        if (fd < 0 || connect(fd, (struct sockaddr *)&ss, len) != 0 ||
            send(fd, "x", 1, 0) != 1)
            _exit(1);
    }
    _exit(read(control[0], &b, 1) == 0 ? 0 : 1);
}

static void raise_files(void)
{
    struct rlimit files;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static void test_idle(void)
{
    static hd_conn_t *conns[IDLE];
    hd_socket_spec_t spec = {.type = SOCK_STREAM, .listen = true};
    hd_addr_t none = {.family = AF_UNSPEC};
    size_t before, bytes, pools = 0;
    char text[HD_ADDR_TEXT_MAX];
    int n = 0, l, control[2], status = -1;
    pid_t clients;

    raise_files();
    snprintf(text, sizeof(text), "@heddle-idle-%d", (int)getpid());
    spec.bind = (hd_addr_t){.family = AF_UNIX, .path = hd_str_c(text)};
    ok(hd_socket_make(&spec, &l, &err) == HD_OK && pipe(control) == 0);
    clients = start_clients(&spec.bind, IDLE, control);
    hd_blocks_trim(0);
    before = mallinfo2().uordblks;
    memset(&o, 0, sizeof(o));
    o.read_all = true;
    while (n < IDLE) {
        int fd;

        wait_readable(l);
        fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        conns[n] = fd >= 0 ? hd_conn_create(loop, fd, &none, &err) : NULL;
        if (conns[n] == NULL)
            break;
        hd_conn_set_handler(conns[n++], &owner_handler, &o);
        hd_loop_turn(loop, 0);
    }
    turn_until(loop, o.got == (size_t)n);
    for (int i = 0; i < n; i++)
        pools += conns[i]->pool != NULL;
    is_int(n, IDLE, "10,000 conns that were used and now idle");
    ok(pools == 0 && hd_blocks_in_use() == 0, "none owns a pool or a block");
    hd_blocks_trim(0);
    bytes = mallinfo2().uordblks - before;
#ifndef HD_ASAN
    ok(bytes / IDLE <= 352, "%zu bytes each: the conn, its socket layer, its place",
       bytes / IDLE);
#else
    diag("%zu bytes each, under ASan", bytes / IDLE);
#endif
    for (int i = 0; i < n; i++)
        hd_conn_close(conns[i], 0);
    hd_loop_turn(loop, 0);
    is_int(hd_conns_open(loop), 0);
    close(control[1]);
    waitpid(clients, &status, 0);
    is_int(status, 0, "the clients were served");
    close(control[0]);
    close(l);
}

int main(void)
{
    alarm(HANG_S);
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)(i * 31 + i / 251);
    loop = hd_loop_create(NULL, 30000, &err);
    test_short_reads();
    test_half_close();
    test_reset_by_peer();
    test_write_fails();
    test_marks();
    test_small_sends_keep_few_blocks();
    test_close_with_output();
    test_reset();
    test_connect();
    test_connect_at_once();
    test_layer();
    test_peek();
    test_file();
    test_idle();
    test_connect_timeout(); /* last: the clock is a fake one from here */
    is_int(hd_conns_open(loop), 0);
    hd_loop_destroy(loop);
    is_int(hd_blocks_in_use(), 0);
    return done_testing();
}
