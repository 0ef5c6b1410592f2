/* What a request costs in system calls: one recv, one send; registered once; nothing more
 * for an owner that queues in pieces, or whose conns are all ready in one turn. */
#include "nettest.h"
#include <sys/epoll.h>
#include <sys/syscall.h>

/* These stand before the C library's. */
static long recvs, sends, ctls;

ssize_t recv(int fd, void *to, size_t len, int flags)
{
    recvs++;
    return syscall(SYS_recvfrom, fd, to, len, flags, NULL, NULL);
}

ssize_t send(int fd, const void *from, size_t len, int flags)
{
    sends++;
    return syscall(SYS_sendto, fd, from, len, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    sends++;
    return syscall(SYS_sendmsg, fd, msg, flags);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *ev)
{
    ctls++;
    return (int)syscall(SYS_epoll_ctl, epoll, op, fd, ev);
}

#define CONNS 10
#define ROUNDS 100

static hd_loop_t *loop;
static hd_err_t err;
static int answered;

/* An answer in three pieces for each request. */
static void on_readable(hd_conn_t *c)
{
    char buf[1000];
    hd_chain_t chain;

    while (c->is_readable && hd_conn_read(c, buf, sizeof(buf)) > 0) {
        hd_chain_init(&chain);
        hd_chain_add(&chain, NULL, "head ", 5, 0);
        hd_chain_add(&chain, NULL, "body ", 5, 0);
        hd_conn_send(c, &chain);
        if (!hd_conn_try_send_copy(c, "tail", 4))
            exit(1);
        answered++;
    }
}

static const hd_conn_handler_t handler = {.on_readable = on_readable};

/* A layer that passes on what it reads piece by piece and must be asked again. */
static ssize_t slow_read(hd_layer_t *l, void *to, size_t len)
{
    return l->below->ops->read(l->below, to, len);
}

static ssize_t slow_writev(hd_layer_t *l, const struct iovec *iov, int n)
{
    return l->below->ops->writev(l->below, iov, n);
}

static hd_rc_t slow_shutdown(hd_layer_t *l)
{
    (void)l;
    return HD_OK;
}

static void slow_close(hd_layer_t *l, bool reset)
{
    (void)l;
    (void)reset;
}

static const hd_layer_ops_t slow_ops = {.name = "slow",
                                        .read = slow_read,
                                        .writev = slow_writev,
                                        .shutdown = slow_shutdown,
                                        .close = slow_close};

int main(void)
{
    hd_layer_t slow = {.ops = &slow_ops};
    hd_addr_t none = {.family = AF_UNSPEC};
    hd_conn_t *conns[CONNS];
    int fds[CONNS][2], wrong = 0;
    char buf[100];

    alarm(HANG_S);
    loop = hd_loop_create(NULL, 100, &err);
    for (int i = 0; i < CONNS; i++) {
        tcp_pair(fds[i]);
        conns[i] = hd_conn_create(loop, fds[i][0], &none, &err);
        hd_conn_set_handler(conns[i], &handler, NULL);
        if (i == 0)
            hd_conn_push(conns[i], &slow);
    }
    turn_some(loop);
    ok(recvs == 0 && sends == 0, "conns that say nothing aren't asked");
    is_int(ctls, CONNS, "each is registered once");
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CONNS; i++)
            wrong += write(fds[i][1], "GET", 3) != 3;
        turn_until(loop, answered == (round + 1) * CONNS);
        for (int i = 0; i < CONNS; i++) {
            wait_readable(fds[i][1]);
            wrong += read(fds[i][1], buf, sizeof(buf)) != 14 ||
                     memcmp(buf, "head body tail", 14) != 0;
        }
    }
    is_int(wrong, 0, "%d requests", CONNS * ROUNDS);
    is_int(recvs, CONNS * ROUNDS,
           "one recv each: none after a short one, below a layer either");
    is_int(sends, CONNS * ROUNDS, "one send each, whatever the pieces");
    is_int(ctls, CONNS, "and not one epoll_ctl more");
    for (int i = 0; i < CONNS; i++) {
        hd_conn_close(conns[i], 0);
        close(fds[i][1]);
    }
    hd_loop_destroy(loop);
    is_int(ctls, CONNS, "nor to close");
    return done_testing();
}
