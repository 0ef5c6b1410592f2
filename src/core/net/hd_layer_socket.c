/* The bottom layer over a descriptor, and how it comes to be: accepted or connected. */
#include "core/base/hd_log.h"
#include "core/net/hd_conn_int.h"
#include "core/net/hd_splice.h"
#include "core/os/hd_os.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <unistd.h>

#define SENDFILE_MAX 0x7ffff000u /* what the kernel takes at once */

/* A socket that the broker is asked for. */
typedef struct hd_socket_ask_s {
    hd_socket_wait_t wait;
    hd_conn_t *conn; /* NULL: not needed any more */
} hd_socket_ask_t;

static const hd_layer_ops_t socket_ops;

static hd_layer_socket_t *socket_of(const hd_layer_t *l)
{
    return hd_container_of(l, hd_layer_socket_t, layer);
}

static hd_layer_socket_t *cell_socket(hd_conn_t *c)
{
    return &hd_container_of(c, hd_conn_cell_t, conn)->socket;
}

bool hd_layer_is_socket(const hd_layer_t *l)
{
    return l->ops == &socket_ops;
}

static int fd_of(const hd_layer_t *l)
{
    return socket_of(l)->watch.fd;
}

static bool is_reset(int error)
{
    return error == ECONNRESET || error == EPIPE || error == ENOTCONN;
}

static ssize_t fail_io(hd_conn_t *c, const char *what, int error)
{
    hd_err_code_t code = error == ETIMEDOUT ? HD_E_TIMEOUT
                         : is_reset(error)  ? HD_E_RESET
                                            : HD_E_SYS;

    if (c->err == NULL) {
        (void)hd_conn_fail(c, code, "%s() failed: %s", what, strerror(error));
        c->err->sys_errno = error;
    }
    return HD_IO_ERROR;
}

/* The layer */

static ssize_t socket_read(hd_layer_t *l, void *to, size_t len)
{
    hd_conn_t *c = l->conn;
    ssize_t n;

    if ((c->_flags & (HD_CF_DRAINED | HD_CF_CONNECTING)) != 0)
        return HD_IO_AGAIN;
    do
        n = recv(fd_of(l), to, len, 0);
    while (n < 0 && errno == EINTR);
    if (n >= 0) {
        /* Less than asked: no second call. Unless the end is known to be there: its
         * event came already and won't come again. */
        if (n > 0 && (size_t)n < len && !c->peer_closing)
            c->_flags |= HD_CF_DRAINED;
        return n;
    }
    if (errno != EAGAIN)
        return fail_io(c, "recv", errno);
    c->_flags |= HD_CF_DRAINED;
    return HD_IO_AGAIN;
}

ssize_t hd_layer_socket_send(hd_layer_t *l, const struct iovec *iov, int n, bool more)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                         .msg_iovlen = (size_t)n};
    ssize_t sent;

    if ((l->conn->_flags & HD_CF_CONNECTING) != 0)
        return HD_IO_AGAIN;
    do {
        if (n == 1) /* spares the kernel the copying of msghdr and iovec */
            sent = send(fd_of(l), iov[0].iov_base, iov[0].iov_len,
                        MSG_NOSIGNAL | (more ? MSG_MORE : 0));
        else
            sent = sendmsg(fd_of(l), &msg, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN ? HD_IO_AGAIN : fail_io(l->conn, "send", errno);
}

static ssize_t socket_writev(hd_layer_t *l, const struct iovec *iov, int n)
{
    return hd_layer_socket_send(l, iov, n, false);
}

ssize_t hd_layer_socket_sendfile(hd_layer_t *l, int fd, int64_t offset, size_t len)
{
    off_t at = (off_t)offset;
    ssize_t sent;

    do
        sent = sendfile(fd_of(l), fd, &at, hd_min(len, (size_t)SENDFILE_MAX));
    while (sent < 0 && errno == EINTR);
    if (sent > 0)
        return sent;
    if (sent < 0)
        return errno == EAGAIN ? HD_IO_AGAIN : fail_io(l->conn, "sendfile", errno);
    (void)hd_conn_fail(l->conn, HD_E_SYS, "a file became shorter while it was sent");
    hd_log_conn(HD_LOG_ERROR, l->conn->id, "%s",
                l->conn->err->text); /* no peer's fault */
    return HD_IO_ERROR;
}

static ssize_t splice_some(int from, int to, size_t len)
{
    ssize_t n;

    do
        n = splice(from, NULL, to, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    return n;
}

ssize_t hd_layer_socket_splice_in(hd_layer_t *l, hd_pipe_t *pipe, size_t max)
{
    ssize_t n = splice_some(fd_of(l), pipe->fd[1], max);

    if (n > 0)
        pipe->in += (size_t)n;
    if (n >= 0)
        return n;
    if (errno != EAGAIN)
        return fail_io(l->conn, "splice", errno);
    l->conn->_flags |= HD_CF_DRAINED; /* the pipe was empty: it was the socket */
    return HD_IO_AGAIN;
}

ssize_t hd_layer_socket_splice_out(hd_layer_t *l, hd_pipe_t *pipe, size_t len)
{
    ssize_t n = splice_some(pipe->fd[0], fd_of(l), len);

    if (n > 0) {
        pipe->out += (size_t)n;
        hd_splice_count(hd_loop_member(l->conn->loop), (size_t)n);
        return n;
    }
    hd_bug_on(n == 0); /* we hold the end that goes in, and there are bytes */
    return errno == EAGAIN ? HD_IO_AGAIN : fail_io(l->conn, "splice", errno);
}

bool hd_layer_socket_has_unread(const hd_layer_t *l)
{
    int n = 0;

    return ioctl(fd_of(l), FIONREAD, &n) == 0 && n > 0;
}

hd_rc_t hd_conn_look(const hd_conn_t *c)
{
    ssize_t n;
    char byte;

    if (!hd_layer_is_socket(c->bottom))
        return HD_OK;
    do
        n = recv(fd_of(c->bottom), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return HD_AGAIN;
    return n < 0 && errno == EAGAIN ? HD_OK : HD_DONE;
}

static bool is_inet(const hd_conn_t *c)
{
    return hd_layer_is_socket(c->bottom) &&
           (c->remote.family == AF_INET || c->remote.family == AF_INET6);
}

uint64_t hd_conn_ack_mark(const hd_conn_t *c)
{
    uint64_t acked;

    if (!is_inet(c))
        return 0;
    if (c->top == c->bottom) /* the SYN is counted, too */
        return c->bytes_out + 1;
    return hd_os_tcp_acked(fd_of(c->bottom), &acked) == 0 ? acked : 0;
}

bool hd_conn_has_missed(const hd_conn_t *c, uint64_t mark)
{
    uint64_t acked;

    /* A reset alone confirms nothing; after a FIN the kernel says EPIPE in its place. */
    if (mark == 0 || !is_inet(c) ||
        (c->err != NULL && (c->top != c->bottom || c->err->sys_errno != EPIPE)))
        return false;
    return hd_os_tcp_acked(fd_of(c->bottom), &acked) == 0 && acked <= mark;
}

static hd_rc_t socket_shutdown(hd_layer_t *l)
{
    if ((l->conn->_flags & HD_CF_SHUT_DONE) != 0)
        return HD_OK;
    /* ENOTCONN: the peer has reset it; reading tells. */
    hd_ignore(shutdown(fd_of(l), SHUT_WR) != 0);
    return HD_OK;
}

static void socket_close(hd_layer_t *l, bool reset)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    hd_layer_socket_t *s = socket_of(l);

    if (s->watch.fd < 0) { /* waits for the broker */
        if (s->ask != NULL) {
            hd_socket_cancel(&s->ask->wait);
            free(s->ask);
            s->ask = NULL;
        }
        return;
    }
    if (reset) /* fails on unix sockets, where an early close tells as much */
        hd_ignore(setsockopt(s->watch.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)) !=
                  0);
    hd_watch_close(l->conn->loop, &s->watch);
}

static const hd_layer_ops_t socket_ops = {
    .name = "socket",
    .reads_all = true,
    .read = socket_read,
    .writev = socket_writev,
    .shutdown = socket_shutdown,
    .close = socket_close,
};

/* Events */

static void finish_connect(hd_conn_t *c, unsigned events)
{
    char text[HD_ADDR_TEXT_MAX];
    socklen_t len = sizeof(int);
    int error = 0;

    if (getsockopt(cell_socket(c)->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error == 0 && (events & HD_EV_WRITE) == 0)
        return;
    if (error != 0) {
        (void)hd_conn_fail(c, error == ETIMEDOUT ? HD_E_TIMEOUT : HD_E_SYS,
                           "connect() to %.*s failed: %s",
                           HD_STR_ARG(hd_addr_print(&c->remote, text)), strerror(error));
        c->err->sys_errno = error;
    }
    hd_conn_connected(c, error == 0, events);
}

static void on_socket_ready(hd_watch_t *w, unsigned events)
{
    hd_layer_socket_t *s = hd_container_of(w, hd_layer_socket_t, watch);
    hd_conn_t *c = s->layer.conn;

    if ((events & (HD_EV_READ | HD_EV_HUP | HD_EV_ERR)) != 0)
        c->_flags &= (uint16_t)~HD_CF_DRAINED;
    if ((c->_flags & HD_CF_CONNECTING) != 0)
        finish_connect(c, events);
    else
        hd_conn_on_bottom(c, events);
}

/* Accepted */

static hd_conn_t *make_conn(hd_loop_t *loop, const hd_addr_t *remote)
{
    hd_conn_t *c = hd_conn_set_take(loop);
    hd_layer_socket_t *s = cell_socket(c);

    hd_conn_set_bottom(c, &s->layer, &socket_ops);
    hd_watch_init(&s->watch);
    c->remote = *remote;
    c->_flags = HD_CF_DRAINED; /* what is there already comes as an event */
    return c;
}

hd_conn_t *hd_conn_create(hd_loop_t *loop, int fd, const hd_addr_t *remote, hd_err_t *err)
{
    hd_conn_t *c = make_conn(loop, remote);

    c->state = HD_CONN_OPEN;
    c->is_writable = true;
    if (hd_watch_start(loop, &cell_socket(c)->watch, fd, on_socket_ready, err) != HD_OK) {
        hd_ignore(close(fd)); /* was never used */
        hd_watch_init(&cell_socket(c)->watch);
        hd_conn_reset(c);
        return NULL;
    }
    return c;
}

/* Connected */

static hd_rc_t start_connect(hd_conn_t *c, int fd, hd_err_t *err)
{
    char text[HD_ADDR_TEXT_MAX];
    struct sockaddr_storage ss;
    socklen_t len = hd_addr_to_sockaddr(&c->remote, &ss);
    int rc;

    do
        rc = connect(fd, (struct sockaddr *)&ss, len);
    while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno != EINPROGRESS) {
        (void)hd_err_set_sys(err, errno, "connect() to %.*s failed",
                             HD_STR_ARG(hd_addr_print(&c->remote, text)));
        hd_ignore(close(fd)); /* was never used */
        return HD_ERROR;
    }
    /* Registered only now: an unconnected socket would tell of its end at once. A
     * connection that stands already tells so by its first event. */
    if (hd_watch_start(c->loop, &cell_socket(c)->watch, fd, on_socket_ready, err) ==
        HD_OK)
        return HD_OK;
    hd_ignore(close(fd)); /* was never used */
    hd_watch_init(&cell_socket(c)->watch);
    return HD_ERROR;
}

static void on_socket(hd_socket_wait_t *w, int fd, const hd_err_t *err)
{
    hd_socket_ask_t *ask = hd_container_of(w, hd_socket_ask_t, wait);
    hd_conn_t *c = ask->conn;
    hd_err_t reason = {.code = HD_E_NONE};

    free(ask);
    hd_watch_init(&cell_socket(c)->watch);
    if (fd >= 0 && start_connect(c, fd, &reason) == HD_OK)
        return;
    if (fd < 0 && err != NULL)
        reason = *err;
    (void)hd_conn_fail(c, reason.code != HD_E_NONE ? reason.code : HD_E_SYS, "%s",
                       reason.code != HD_E_NONE ? reason.text : "no socket");
    c->err->sys_errno = reason.sys_errno;
    hd_conn_tell_later(c, HD_TELL_CLOSED);
}

static hd_rc_t open_socket(hd_conn_t *c, const hd_socket_spec_t *spec, hd_err_t *err)
{
    hd_socket_ask_t *ask = NULL;
    int fd = -1;
    hd_rc_t rc;

    if (hd_socket_broker != NULL) {
        ask = hd_net_realloc(NULL, sizeof(*ask));
        *ask = (hd_socket_ask_t){.wait = {.on_socket = on_socket}, .conn = c};
    }
    rc = hd_socket_open(c->loop, spec, &fd, ask != NULL ? &ask->wait : NULL, err);
    if (rc == HD_AGAIN) {
        cell_socket(c)->ask = ask;
        return HD_OK;
    }
    free(ask);
    return rc == HD_OK ? start_connect(c, fd, err) : rc;
}

hd_conn_t *hd_conn_connect(hd_loop_t *loop, const hd_addr_t *to,
                           const hd_socket_spec_t *bind, uint64_t timeout_ms,
                           const hd_conn_handler_t *handler, void *owner, hd_err_t *err)
{
    hd_socket_spec_t spec = {.nodelay = true};
    hd_addr_t remote = hd_addr_keep(to);
    hd_conn_t *c = make_conn(loop, &remote);

    if (bind != NULL)
        spec = *bind;
    spec.type = SOCK_STREAM;
    spec.family = to->family;
    c->state = HD_CONN_CONNECTING;
    c->is_upstream = true;
    c->_flags |= HD_CF_CONNECTING;
    c->handler = handler;
    c->owner = owner;
    if (open_socket(c, &spec, err) != HD_OK) {
        hd_conn_reset(c);
        return NULL;
    }
    if (timeout_ms != 0)
        hd_timer_set(loop, &c->_timer, timeout_ms);
    return c;
}
