/* nettest: what the tests of core/net share: a loop, TCP pairs, an owner that records
 * what it hears. Waiting is for a condition: turn_until(loop, x) turns the loop as long
 * as it takes; a test that would hang is ended by its alarm. */
#pragma once
#include "core/net/hd_conn.h"
#include "tap.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HANG_S 120

#define turn_until(loop, cond)                                                           \
    do {                                                                                 \
        while (!(cond))                                                                  \
            hd_loop_turn(loop, -1);                                                      \
    } while (0)

/* A few turns in which what should not happen could. */
TAP_UNUSED static void turn_some(hd_loop_t *loop)
{
    for (int i = 0; i < 5; i++)
        hd_loop_turn(loop, 0);
}

TAP_UNUSED static int tcp_listen(hd_addr_t *addr)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&in, len) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &len) != 0) {
        perror("tcp_listen");
        exit(1);
    }
    hd_addr_from_sockaddr((struct sockaddr *)&in, len, addr);
    return fd;
}

/* Two ends of a TCP connection over loopback, both non-blocking. */
TAP_UNUSED static void tcp_pair(int fds[2])
{
    struct sockaddr_storage ss;
    hd_addr_t addr;
    int l = tcp_listen(&addr);
    socklen_t len = hd_addr_to_sockaddr(&addr, &ss);

    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fds[0], (struct sockaddr *)&ss, len) != 0) {
        perror("tcp_pair");
        exit(1);
    }
    fds[1] = accept(l, NULL, NULL);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    close(l);
}

/* Blocks until <fd> has something to read. */
TAP_UNUSED static void wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    while (poll(&p, 1, -1) != 1) {
    }
}

typedef struct {
    int opens, readables, writables, closes;
    bool read_all; /* read whatever is told of */
    size_t read_n; /* by one call; 0: the whole buffer */
    size_t got;    /* bytes read */
    uint32_t sum;  /* of the bytes, in order */
    bool ended, failed;
    char text[65536]; /* the first bytes */
} owner_t;

TAP_UNUSED static uint32_t add_sum(uint32_t sum, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum = sum * 16777619u + (unsigned char)data[i] + 1;
    return sum;
}

/* One read; what hd_conn_read said. */
TAP_UNUSED static ssize_t owner_read(hd_conn_t *c, owner_t *o)
{
    static char buf[65536];
    ssize_t n = hd_conn_read(c, buf, o->read_n != 0 ? o->read_n : sizeof(buf));

    if (n > 0) {
        size_t room = sizeof(o->text) - 1 - hd_min(o->got, sizeof(o->text) - 1);

        memcpy(o->text + hd_min(o->got, sizeof(o->text) - 1), buf,
               hd_min((size_t)n, room));
        o->got += (size_t)n;
        o->sum = add_sum(o->sum, buf, (size_t)n);
    }
    o->ended |= n == 0;
    o->failed |= n == HD_IO_ERROR;
    return n;
}

TAP_UNUSED static void owner_on_open(hd_conn_t *c)
{
    ((owner_t *)c->owner)->opens++;
}

TAP_UNUSED static void owner_on_readable(hd_conn_t *c)
{
    owner_t *o = c->owner;

    o->readables++;
    while (o->read_all && c->is_readable && owner_read(c, o) > 0) {
    }
}

TAP_UNUSED static void owner_on_writable(hd_conn_t *c)
{
    ((owner_t *)c->owner)->writables++;
}

TAP_UNUSED static void owner_on_closed(hd_conn_t *c)
{
    ((owner_t *)c->owner)->closes++;
}

TAP_UNUSED static const hd_conn_handler_t owner_handler = {
    .on_open = owner_on_open,
    .on_readable = owner_on_readable,
    .on_writable = owner_on_writable,
    .on_closed = owner_on_closed,
};

/* A conn over a TCP pair; *peer is the other end, a plain descriptor. */
TAP_UNUSED static hd_conn_t *conn_and_peer(hd_loop_t *loop, owner_t *o, int *peer)
{
    static hd_err_t err;
    hd_addr_t none = {.family = AF_UNSPEC};
    hd_conn_t *c;
    int fds[2];

    tcp_pair(fds);
    *peer = fds[1];
    memset(o, 0, sizeof(*o));
    c = hd_conn_create(loop, fds[0], &none, &err);
    if (c == NULL) {
        diag("%s", err.text);
        exit(1);
    }
    hd_conn_set_handler(c, &owner_handler, o);
    turn_some(loop);
    return c;
}

/* Reads from a plain descriptor until it has <want> bytes or the end; bytes read. */
TAP_UNUSED static size_t peer_read(hd_loop_t *loop, int fd, char *to, size_t want)
{
    size_t got = 0;

    while (got < want) {
        ssize_t n = recv(fd, to + got, want - got, 0);

        if (n > 0)
            got += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            break;
        else
            hd_loop_turn(loop, 1);
    }
    return got;
}
