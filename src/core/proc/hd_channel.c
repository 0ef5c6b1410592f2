#include "core/proc/hd_channel.h"
#include "core/base/hd_log.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct hd_channel_s {
    hd_watch_t watch;
    hd_loop_t *loop;
    void (*on_message)(void *arg, const hd_msg_head_t *head, const void *payload,
                       int *fds);
    void (*on_closed)(void *arg);
    void *arg;
    uint64_t last_seq;
    bool is_busy;      /* a callback runs */
    bool is_destroyed; /* in that callback: freed behind it */
};

/* One for all: a message is handled before the next is read. */
static _Alignas(16) char payload[HD_CHANNEL_BYTES];

hd_rc_t hd_channel_pair(int fds[2], hd_err_t *err)
{
    int bytes = 1 << 20; /* as much as the system allows; fewer will do */

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        return hd_err_set_sys(err, errno, "socketpair()");
    for (int i = 0; i < 2; i++)
        hd_ignore(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)));
    return HD_OK;
}

typedef union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * HD_CHANNEL_FDS)];
} control_t;

static unsigned take_fds(struct msghdr *msg, int *fds)
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t bytes = c->cmsg_len - CMSG_LEN(0);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < bytes / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (n < HD_CHANNEL_FDS)
                fds[n++] = fd;
            else
                hd_ignore(close(fd)); /* more than any of ours sends */
        }
    }
    return n;
}

static void close_fds(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (fds[i] >= 0)
            hd_ignore(close(fds[i])); /* nobody took it */
}

typedef enum { GOT_ONE, GOT_NONE, GOT_END } got_t;

static got_t receive(hd_channel_t *ch)
{
    hd_msg_head_t head = {0};
    struct iovec iov[2] = {{&head, sizeof(head)}, {payload, sizeof(payload)}};
    control_t control;
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = 2,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control)};
    int fds[HD_CHANNEL_FDS];
    unsigned fds_n;
    ssize_t n;

    do
        n = recvmsg(ch->watch.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? GOT_NONE : GOT_END;
    if (n == 0)
        return GOT_END;
    fds_n = take_fds(&msg, fds);
    if ((size_t)n < sizeof(head) || head.len != (size_t)n - sizeof(head) ||
        head.fds_n != fds_n || head.type == HD_MSG_NONE || head.type >= HD_MSG_TYPES_N ||
        (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        hd_log(HD_LOG_ALERT,
               "a broken message on a channel: type %u, %u bytes of %zd, "
               "%u descriptors of %u",
               head.type, head.len, n, head.fds_n, fds_n);
        close_fds(fds, fds_n);
        return GOT_END;
    }
    ch->on_message(ch->arg, &head, payload, fds);
    close_fds(fds, fds_n);
    return GOT_ONE;
}

static void on_ready(hd_watch_t *w, unsigned events)
{
    hd_channel_t *ch = hd_container_of(w, hd_channel_t, watch);
    got_t got = GOT_ONE;

    (void)events;
    if (w->fd < 0)
        return; /* closed before */
    ch->is_busy = true;
    while (!ch->is_destroyed && got == GOT_ONE)
        got = receive(ch);
    if (!ch->is_destroyed && got == GOT_END) {
        hd_watch_stop(ch->loop, &ch->watch);
        ch->on_closed(ch->arg);
    }
    ch->is_busy = false;
    if (ch->is_destroyed)
        free(ch);
}

hd_channel_t *hd_channel_create(hd_loop_t *loop, int fd,
                                void (*on_message)(void *arg, const hd_msg_head_t *head,
                                                   const void *payload, int *fds),
                                void (*on_closed)(void *arg), void *arg, hd_err_t *err)
{
    hd_channel_t *ch = calloc(1, sizeof(*ch));

    hd_bug_on(ch == NULL);
    ch->loop = loop;
    ch->on_message = on_message;
    ch->on_closed = on_closed;
    ch->arg = arg;
    hd_watch_init(&ch->watch);
    if (hd_watch_start(loop, &ch->watch, fd, on_ready, err) != HD_OK) {
        hd_ignore(close(fd)); /* nothing was sent yet */
        free(ch);
        return NULL;
    }
    return ch;
}

void hd_channel_destroy(hd_channel_t *ch)
{
    int fd;

    if (ch == NULL || ch->is_destroyed)
        return;
    fd = ch->watch.fd;
    hd_watch_stop(ch->loop, &ch->watch);
    hd_ignore(close(fd)); /* what was sent before lies in the peer's queue */
    ch->watch.fd = -1;
    ch->is_destroyed = true;
    if (!ch->is_busy)
        free(ch);
}

void hd_channel_drain(hd_channel_t *ch)
{
    on_ready(&ch->watch, HD_EV_READ);
}

int hd_channel_fd(const hd_channel_t *ch)
{
    return ch->watch.fd;
}

uint64_t hd_channel_send(hd_channel_t *ch, hd_msg_type_t type, const void *bytes,
                         size_t len, const int *fds, unsigned fds_n, hd_err_t *err)
{
    hd_msg_head_t head = {.type = (uint16_t)type,
                          .fds_n = (uint16_t)fds_n,
                          .len = (uint32_t)len,
                          .seq = ch->last_seq + 1};
    struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)bytes, len}};
    control_t control;
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = len > 0 ? 2 : 1};
    ssize_t n;

    hd_bug_on(len > HD_CHANNEL_BYTES || fds_n > HD_CHANNEL_FDS);
    if (ch->is_destroyed) {
        hd_ignore(hd_err_set(err, HD_E_RESET, "the channel is closed"));
        return 0;
    }
    if (fds_n > 0) {
        struct cmsghdr *c = &control.align;

        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fds_n);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fds_n);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fds_n);
    }
    do
        n = sendmsg(ch->watch.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        hd_ignore(hd_err_set_sys(err, errno, "sending message %u on a channel", type));
        return 0;
    }
    return ch->last_seq = head.seq;
}
