/* faults: the kernel on its bad days. Preloaded (Heddle/Faults.pm), it stands before the
 * C library's calls on stream sockets that are watched edge-triggered, and does by a seed
 * what the kernel may do but seldom does: it takes and gives little, says "not now",
 * tells events late, apart, in another order, of many in one turn, and connects at once.
 *
 * It is as honest as the kernel: whatever it held back or cut short is followed by an
 * event that tells what then is, a few waits later at most. Who hangs has lost a wake-up.
 *
 * HD_FAULTS=SEED; without it nothing is done. Each fork goes on by a seed of its own.
 * HD_FAULTS_LOG=FILE, which is there: what was done, a line for each process that ended
 * well. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS_MAX 8192
#define IOV_MAX_N 64
#define NOT_NOW 12      /* of a hundred calls say EAGAIN */
#define SHORT 60        /* of a hundred, those among them, do less than they could */
#define AT_ONCE_MS 1000 /* for a connection to stand before connect returns */

#define REAL(name) ((__typeof__(&name))real(#name, &real_##name))

static void *real_recv, *real_send, *real_sendmsg, *real_splice, *real_sendfile,
    *real_connect, *real_close, *real_epoll_ctl, *real_epoll_wait;

/* A watched socket. */
typedef struct {
    int epoll_fd; /* 0: not watched so */
    epoll_data_t data;
    uint8_t is_owed; /* an event is to come: in so many waits */
} watched_t;

static watched_t watched[FDS_MAX];
static int fds_max; /* those above were never watched */
static uint64_t state;
static uint32_t forks_n;
static char log_path[256];
static unsigned long put_off_n, cut_n, held_back_n; /* calls, calls, events */

static void *real(const char *name, void **at)
{
    if (*at == NULL)
        *at = dlsym(RTLD_NEXT, name);
    return *at;
}

/* splitmix64 (Steele, Lea, Flood; public domain) */
static uint32_t rnd(uint32_t n)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 8) % n;
}

static void before_fork(void)
{
    forks_n++;
}

static void in_child(void)
{
    put_off_n = cut_n = held_back_n = 0;
    if (state != 0)
        state += (uint64_t)forks_n << 40;
}

__attribute__((constructor)) static void start(void)
{
    const char *seed = getenv("HD_FAULTS"), *path = getenv("HD_FAULTS_LOG");

    state = seed != NULL ? strtoull(seed, NULL, 10) : 0;
    snprintf(log_path, sizeof(log_path), "%s", path != NULL ? path : "");
    pthread_atfork(before_fork, NULL, in_child);
}

__attribute__((destructor)) static void tell(void)
{
    char line[128];
    int fd, n = snprintf(line, sizeof(line), "put off %lu, cut %lu, held back %lu\n",
                         put_off_n, cut_n, held_back_n);

    if (log_path[0] == '\0' || state == 0 ||
        (fd = open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC)) < 0)
        return;
    if (write(fd, line, (size_t)n) != n)
        abort();
    close(fd);
}

static int is_played_with(int fd)
{
    return state != 0 && fd >= 0 && fd < FDS_MAX && watched[fd].epoll_fd != 0;
}

static void owe(int fd)
{
    if (watched[fd].is_owed == 0)
        watched[fd].is_owed = (uint8_t)(1 + rnd(3));
}

/* Says "not now" to a call. */
static int is_put_off(int fd, uint32_t dice)
{
    if (dice >= NOT_NOW)
        return 0;
    owe(fd);
    put_off_n++;
    errno = EAGAIN;
    return 1;
}

/* How much of <len> the kernel is asked for. */
static size_t cut(size_t len, uint32_t dice)
{
    if (dice >= SHORT || len < 2)
        return len;
    cut_n++;
    if (rnd(3) == 0 && len > 16)
        len = 16;
    return 1 + rnd((uint32_t)(len > 1 << 20 ? 1 << 20 : len));
}

/* --- watching --- */

int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *ev)
{
    int type = 0, rc = REAL(epoll_ctl)(epoll_fd, op, fd, ev);
    socklen_t len = sizeof(type);

    if (rc != 0 || fd < 0 || fd >= FDS_MAX)
        return rc;
    watched[fd] = (watched_t){.epoll_fd = 0};
    if (op == EPOLL_CTL_ADD && (ev->events & EPOLLET) != 0 &&
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM) {
        watched[fd] = (watched_t){.epoll_fd = epoll_fd, .data = ev->data};
        fds_max = fd >= fds_max ? fd + 1 : fds_max;
    }
    return rc;
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS_MAX)
        watched[fd] = (watched_t){.epoll_fd = 0};
    return REAL(close)(fd);
}

static int fd_of(int epoll_fd, epoll_data_t data)
{
    for (int fd = 0; fd < fds_max; fd++)
        if (watched[fd].epoll_fd == epoll_fd && watched[fd].data.u64 == data.u64)
            return fd;
    return -1;
}

/* What an edge-triggered event would tell now. */
static uint32_t now(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};

    return poll(&p, 1, 0) == 1 ? (uint32_t)p.revents : 0;
}

static int has_owed(int epoll_fd)
{
    for (int fd = 0; fd < fds_max; fd++)
        if (watched[fd].epoll_fd == epoll_fd && watched[fd].is_owed != 0)
            return 1;
    return 0;
}

/* Some of the events that came are put off, or tell but a part. */
static int hold_back(int epoll_fd, struct epoll_event *evs, int n)
{
    int kept = 0;

    for (int i = 0; i < n; i++) {
        int fd = fd_of(epoll_fd, evs[i].data);
        uint32_t dice = rnd(100), part = rnd(2) == 0 ? EPOLLIN : EPOLLOUT;

        if (fd >= 0 && dice < 50) {
            owe(fd);
            held_back_n++;
        }
        if (fd >= 0 && dice < 30)
            continue;
        if (fd >= 0 && dice < 50 && (evs[i].events & part) != 0)
            evs[i].events &= part;
        evs[kept++] = evs[i];
    }
    return kept;
}

static int add_owed(int epoll_fd, struct epoll_event *evs, int n, int max)
{
    for (int fd = 0; fd < fds_max && n < max; fd++) {
        watched_t *w = &watched[fd];
        int is_told = 0;

        if (w->epoll_fd != epoll_fd || w->is_owed == 0 || --w->is_owed != 0)
            continue;
        for (int i = 0; i < n && !is_told; i++)
            is_told = evs[i].data.u64 == w->data.u64;
        if (is_told)
            w->is_owed = 1; /* that may be but a part */
        else
            evs[n++] = (struct epoll_event){.events = now(fd), .data = w->data};
    }
    return n;
}

int epoll_wait(int epoll_fd, struct epoll_event *evs, int max, int timeout)
{
    int n;

    if (state == 0)
        return REAL(epoll_wait)(epoll_fd, evs, max, timeout);
    n = REAL(epoll_wait)(epoll_fd, evs, max, has_owed(epoll_fd) ? 0 : timeout);
    if (n < 0)
        return n;
    n = hold_back(epoll_fd, evs, n);
    n = add_owed(epoll_fd, evs, n, max);
    for (int i = n - 1; i > 0; i--) {
        int other = (int)rnd((uint32_t)i + 1);
        struct epoll_event ev = evs[i];

        evs[i] = evs[other];
        evs[other] = ev;
    }
    return n;
}

/* --- moving --- */

ssize_t recv(int fd, void *to, size_t len, int flags)
{
    uint32_t dice = rnd(100);
    size_t less;
    ssize_t n;

    if (!is_played_with(fd) || (flags & MSG_PEEK) != 0)
        return REAL(recv)(fd, to, len, flags);
    if (is_put_off(fd, dice))
        return -1;
    less = cut(len, dice);
    n = REAL(recv)(fd, to, less, flags);
    if (less < len && n == (ssize_t)less)
        owe(fd);
    return n;
}

/* For calls whose buffer's size the compiler knows. */
ssize_t __recv_chk(int fd, void *to, size_t len, size_t room, int flags);
ssize_t __recv_chk(int fd, void *to, size_t len, size_t room, int flags)
{
    if (len > room)
        abort();
    return recv(fd, to, len, flags);
}

ssize_t send(int fd, const void *from, size_t len, int flags)
{
    uint32_t dice = rnd(100);
    size_t less;

    if (!is_played_with(fd))
        return REAL(send)(fd, from, len, flags);
    if (is_put_off(fd, dice))
        return -1;
    less = cut(len, dice);
    if (less < len)
        owe(fd);
    return REAL(send)(fd, from, less, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct iovec iov[IOV_MAX_N];
    struct msghdr part = *msg;
    size_t all = 0, less, at = 0;
    uint32_t dice = rnd(100);
    int n = 0;

    if (!is_played_with(fd) || msg->msg_iovlen > IOV_MAX_N)
        return REAL(sendmsg)(fd, msg, flags);
    if (is_put_off(fd, dice))
        return -1;
    for (size_t i = 0; i < msg->msg_iovlen; i++)
        all += msg->msg_iov[i].iov_len;
    less = cut(all, dice);
    if (less < all)
        owe(fd);
    for (size_t i = 0; i < msg->msg_iovlen && at < less; i++) {
        iov[n] = msg->msg_iov[i];
        if (iov[n].iov_len > less - at)
            iov[n].iov_len = less - at;
        at += iov[n++].iov_len;
    }
    part.msg_iov = iov;
    part.msg_iovlen = (size_t)n;
    return REAL(sendmsg)(fd, &part, flags);
}

ssize_t splice(int from, off64_t *from_at, int to, off64_t *to_at, size_t len,
               unsigned flags)
{
    int fd = is_played_with(from) ? from : to;
    uint32_t dice = rnd(100);

    if (is_played_with(fd)) {
        if (is_put_off(fd, dice))
            return -1;
        len = cut(len, dice);
    }
    return REAL(splice)(from, from_at, to, to_at, len, flags);
}

ssize_t sendfile(int to, int from, off_t *at, size_t len)
{
    uint32_t dice = rnd(100);

    if (is_played_with(to)) {
        if (is_put_off(to, dice))
            return -1;
        len = cut(len, dice);
    }
    return REAL(sendfile)(to, from, at, len);
}

int connect(int fd, const struct sockaddr *to, socklen_t len)
{
    int rc = REAL(connect)(fd, to, len), error = 0;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t error_len = sizeof(error);

    if (state == 0 || rc == 0 || errno != EINPROGRESS || rnd(3) != 0)
        return rc;
    if (poll(&p, 1, AT_ONCE_MS) == 1 && (p.revents & (POLLERR | POLLHUP)) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) == 0 && error == 0)
        return 0;
    errno = error != 0 ? error : EINPROGRESS;
    return -1;
}
