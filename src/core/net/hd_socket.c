#include "core/net/hd_socket.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const hd_socket_broker_t *hd_socket_broker;

static bool set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

static bool is_inet(int family)
{
    return family == AF_INET || family == AF_INET6;
}

/* One table instead of a ladder: what the spec asks for, in the order in which the kernel
 * wants to hear it (before bind). */
static hd_rc_t set_options(const hd_socket_spec_t *spec, int family, int fd,
                           hd_err_t *err)
{
    bool inet = is_inet(family), tcp = inet && spec->type == SOCK_STREAM;
    bool v6 = family == AF_INET6;
    bool tells_local = inet && spec->type == SOCK_DGRAM &&
                       spec->bind.family != AF_UNSPEC && hd_addr_is_any(&spec->bind);
    bool late_port =
        tcp && !spec->listen && spec->bind.family != AF_UNSPEC && spec->bind.port == 0;
    bool alive = tcp && spec->keepalive_idle_s != 0;
    const struct {
        bool wanted;
        int level, name, value;
        const char *text;
    } options[] = {
        {inet && spec->listen, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"},
        {inet && spec->reuseport, SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT"},
        {v6, IPPROTO_IPV6, IPV6_V6ONLY, spec->v6only, "IPV6_V6ONLY"},
        {inet && spec->transparent, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
         v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1, "IP_TRANSPARENT"},
        {inet && spec->freebind, IPPROTO_IP, IP_FREEBIND, 1, "IP_FREEBIND"},
        /* Which of our addresses a datagram came to. */
        {tells_local && !v6, IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO"},
        {tells_local && v6, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"},
        {spec->mark != 0, SOL_SOCKET, SO_MARK, (int)spec->mark, "SO_MARK"},
        {spec->rcvbuf > 0, SOL_SOCKET, SO_RCVBUF, spec->rcvbuf, "SO_RCVBUF"},
        {spec->sndbuf > 0, SOL_SOCKET, SO_SNDBUF, spec->sndbuf, "SO_SNDBUF"},
        /* What a listening socket has of these, accepted ones inherit. */
        {tcp && spec->nodelay, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"},
        {tcp && spec->fastopen > 0, IPPROTO_TCP, TCP_FASTOPEN, spec->fastopen,
         "TCP_FASTOPEN"},
        {alive, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE"},
        {alive, IPPROTO_TCP, TCP_KEEPIDLE, (int)spec->keepalive_idle_s, "TCP_KEEPIDLE"},
        {alive && spec->keepalive_interval_s != 0, IPPROTO_TCP, TCP_KEEPINTVL,
         (int)spec->keepalive_interval_s, "TCP_KEEPINTVL"},
        {alive && spec->keepalive_probes != 0, IPPROTO_TCP, TCP_KEEPCNT,
         (int)spec->keepalive_probes, "TCP_KEEPCNT"},
        /* The port is chosen at connect, when the whole 4-tuple is known: a bound source
         * address doesn't use up ports. */
        {late_port, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1, "IP_BIND_ADDRESS_NO_PORT"},
    };

    for (size_t i = 0; i < hd_countof(options); i++) {
        if (options[i].wanted &&
            !set_option(fd, options[i].level, options[i].name, options[i].value))
            return hd_err_set_sys(err, errno, "setsockopt(%s)", options[i].text);
    }
    return HD_OK;
}

/* A unix socket's file outlives a process that crashed: nobody listens there any more. */
static bool is_stale_path(const struct sockaddr_storage *ss, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool is_stale;

    if (fd < 0)
        return false;
    is_stale =
        connect(fd, (const struct sockaddr *)ss, len) != 0 && errno == ECONNREFUSED;
    hd_ignore(close(fd)); /* was only asked a question */
    return is_stale;
}

static hd_rc_t bind_socket(const hd_socket_spec_t *spec, int fd, hd_err_t *err)
{
    char text[HD_ADDR_TEXT_MAX];
    struct sockaddr_storage ss;
    socklen_t len = hd_addr_to_sockaddr(&spec->bind, &ss);
    const struct sockaddr_un *un = (const struct sockaddr_un *)&ss;

    if (bind(fd, (struct sockaddr *)&ss, len) == 0)
        return HD_OK;
    if (errno == EADDRINUSE && spec->listen && spec->bind.family == AF_UNIX &&
        un->sun_path[0] != '\0') {
        if (is_stale_path(&ss, len) && unlink(un->sun_path) == 0 &&
            bind(fd, (struct sockaddr *)&ss, len) == 0)
            return HD_OK;
        errno = EADDRINUSE;
    }
    return hd_err_set_sys(err, errno, "bind() to %.*s failed",
                          HD_STR_ARG(hd_addr_print(&spec->bind, text)));
}

static bool open_to_all(const hd_addr_t *addr)
{
    struct sockaddr_storage ss;

    hd_ignore(hd_addr_to_sockaddr(addr, &ss) == 0);
    return chmod(((const struct sockaddr_un *)&ss)->sun_path, 0666) == 0;
}

static int backlog_of(const hd_socket_spec_t *spec)
{
    return spec->backlog > 0 ? spec->backlog : 511;
}

static hd_rc_t prepare(const hd_socket_spec_t *spec, int family, int fd, hd_err_t *err)
{
    char text[HD_ADDR_TEXT_MAX];

    if (set_options(spec, family, fd, err) != HD_OK)
        return HD_ERROR;
    if (spec->bind.family != AF_UNSPEC && bind_socket(spec, fd, err) != HD_OK)
        return HD_ERROR;
    /* as nginx does: who may reach it is said by the directory it is in */
    if (spec->listen && spec->bind.family == AF_UNIX && spec->bind.path.data[0] != '@' &&
        !open_to_all(&spec->bind))
        return hd_err_set_sys(err, errno, "chmod() of %.*s failed",
                              HD_STR_ARG(hd_addr_print(&spec->bind, text)));
    if (spec->listen && listen(fd, backlog_of(spec)) != 0)
        return hd_err_set_sys(err, errno, "listen() on %.*s failed",
                              HD_STR_ARG(hd_addr_print(&spec->bind, text)));
    return HD_OK;
}

hd_rc_t hd_socket_make(const hd_socket_spec_t *spec, int *fd, hd_err_t *err)
{
    int family = spec->bind.family != AF_UNSPEC ? spec->bind.family : spec->family;
    int made = socket(family, spec->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    *fd = -1;
    if (made < 0)
        return hd_err_set_sys(err, errno, "socket()");
    if (prepare(spec, family, made, err) != HD_OK) {
        hd_ignore(close(made)); /* never used */
        return HD_ERROR;
    }
    *fd = made;
    return HD_OK;
}

hd_rc_t hd_socket_adjust(int fd, const hd_socket_spec_t *from, const hd_socket_spec_t *to,
                         hd_err_t *err)
{
    bool inet = is_inet(to->bind.family), v6 = to->bind.family == AF_INET6;
    bool tcp = inet && to->type == SOCK_STREAM, alive = tcp && to->keepalive_idle_s != 0;
    const struct {
        bool has_changed;
        int level, name, value;
        const char *text;
    } options[] = {
        {inet && from->transparent != to->transparent, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
         v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, to->transparent, "IP_TRANSPARENT"},
        {to->rcvbuf > 0 && from->rcvbuf != to->rcvbuf, SOL_SOCKET, SO_RCVBUF, to->rcvbuf,
         "SO_RCVBUF"},
        {to->sndbuf > 0 && from->sndbuf != to->sndbuf, SOL_SOCKET, SO_SNDBUF, to->sndbuf,
         "SO_SNDBUF"},
        {tcp && from->nodelay != to->nodelay, IPPROTO_TCP, TCP_NODELAY, to->nodelay,
         "TCP_NODELAY"},
        {tcp && from->fastopen != to->fastopen, IPPROTO_TCP, TCP_FASTOPEN, to->fastopen,
         "TCP_FASTOPEN"},
        {tcp && (from->keepalive_idle_s != 0) != alive, SOL_SOCKET, SO_KEEPALIVE, alive,
         "SO_KEEPALIVE"},
        {alive && from->keepalive_idle_s != to->keepalive_idle_s, IPPROTO_TCP,
         TCP_KEEPIDLE, (int)to->keepalive_idle_s, "TCP_KEEPIDLE"},
        {alive && to->keepalive_interval_s != 0 &&
             from->keepalive_interval_s != to->keepalive_interval_s,
         IPPROTO_TCP, TCP_KEEPINTVL, (int)to->keepalive_interval_s, "TCP_KEEPINTVL"},
        {alive && to->keepalive_probes != 0 &&
             from->keepalive_probes != to->keepalive_probes,
         IPPROTO_TCP, TCP_KEEPCNT, (int)to->keepalive_probes, "TCP_KEEPCNT"},
    };

    for (size_t i = 0; i < hd_countof(options); i++) {
        if (options[i].has_changed &&
            !set_option(fd, options[i].level, options[i].name, options[i].value))
            return hd_err_set_sys(err, errno, "setsockopt(%s)", options[i].text);
    }
    if (to->listen && from->backlog != to->backlog && listen(fd, backlog_of(to)) != 0)
        return hd_err_set_sys(err, errno, "listen()");
    return HD_OK;
}

hd_rc_t hd_socket_open(hd_loop_t *loop, const hd_socket_spec_t *spec, int *fd,
                       hd_socket_wait_t *wait, hd_err_t *err)
{
    *fd = -1;
    if (hd_socket_broker != NULL && hd_socket_broker->is_beyond_rights(spec))
        return hd_socket_broker->ask(loop, spec, wait, err);
    if (spec->netns != 0)
        return hd_err_set(err, HD_E_INTERNAL,
                          "a socket in another network namespace needs the broker");
    return hd_socket_make(spec, fd, err);
}

void hd_socket_cancel(hd_socket_wait_t *wait)
{
    if (hd_socket_broker != NULL)
        hd_socket_broker->cancel(wait);
}
