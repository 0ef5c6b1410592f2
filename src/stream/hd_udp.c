#include "stream/hd_udp.h"
#include "core/base/hd_log.h"
#include "core/net/hd_datagram.h"
#include "stream/hd_session.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATAGRAM_BYTES 65536 /* the largest one, and a byte */
#define BATCH 16             /* datagrams of one system call */
#define TURN_DATAGRAMS 64    /* of one socket: then it's the others' turn */
#define WAITING_MAX 16       /* datagrams of a client whose upstream isn't chosen yet */
#define CONTROL_BYTES CMSG_SPACE(sizeof(struct in6_pktinfo))
#define TABLE_MIN 64

typedef struct udp_s udp_t;

/* A copy, in the session's pool. */
typedef struct waiting_s {
    struct waiting_s *next;
    size_t len;
    char data[];
} waiting_t;

/* A listener's socket, here: its sessions by client. */
typedef struct {
    hd_datagram_socket_t *socket;
    hd_pool_t *pool; /* this and the tables: each is twice the one before */
    udp_t **table;   /* chains; room is a power of two */
    uint32_t room, listed_n, n;
    hd_link_t all; /* sessions that answer by this socket, listed or not */
    bool told;     /* that there are too many */
    hd_series_t sessions_total;
} server_t;

struct udp_s {
    hd_session_t s;   /* first: ops get this */
    server_t *server; /* NULL: it has a socket of its own, or waits for it */
    hd_link_t of_server;
    udp_t *next; /* of the same place of the table */
    uint32_t hash;
    bool is_listed;    /* the client's datagrams come here */
    bool has_upstream; /* bytes may go */
    hd_watch_t up;     /* fd -1: none */
    hd_watch_t own;    /* the socket of its own towards the client; fd -1: none */
    hd_socket_wait_t wait_up, wait_own;
    bool waits_up, waits_own; /* the broker makes it */
    hd_post_t more;           /* a socket had more than a turn's share */
    hd_timer_t idle;
    waiting_t *waiting, **waiting_end; /* until an upstream has answered: sent again */
    uint32_t waiting_n;
    uint64_t requests, responses;
};

static const hd_session_ops_t ops;
static const hd_conn_handler_t handler;
static void on_more(hd_post_t *p);

static udp_t *udp_of(hd_session_t *s)
{
    return (udp_t *)s;
}

static const hd_udp_conf_t *conf_of(const udp_t *u)
{
    return &u->s.conf->udp;
}

/* --- metrics --- */

static void count_sessions(const udp_t *u)
{
    static const char *const labels[] = {"listener", NULL};
    static const hd_family_t family = {.name = "heddle_udp_sessions_total",
                                       .help = "UDP sessions begun.",
                                       .kind = HD_COUNTER,
                                       .labels = labels};
    const hd_listener_t *l = u->s.listener->root;
    hd_member_t *m = u->s.member;

    if (u->server->sessions_total == 0)
        u->server->sessions_total =
            hd_series_enter(m, hd_family_enter(m, &family), &l->name);
    hd_counter_add(m, u->server->sessions_total, 1);
}

static void count_dropped(hd_member_t *m, hd_str_t listener, const char *why, unsigned n)
{
    static const char *const labels[] = {"listener", "why", NULL};
    static const hd_family_t family = {
        .name = "heddle_udp_dropped_total",
        .help = "UDP datagrams that went no further: too many sessions, or the socket "
                "towards client or upstream took no more.",
        .kind = HD_COUNTER,
        .labels = labels};
    const hd_str_t values[] = {listener, hd_str_c(why)};

    if (n > 0)
        hd_counter_add(m, hd_series_enter(m, hd_family_enter(m, &family), values), n);
}

static hd_str_t listener_name(const udp_t *u)
{
    return ((const hd_listener_t *)u->s.listener->root)->name;
}

/* --- the table --- */

static uint32_t hash_of(const hd_addr_t *remote, const hd_addr_t *local)
{
    return hd_addr_hash(remote) * 31 + hd_addr_hash(local);
}

static udp_t *find(const server_t *sv, uint32_t hash, const hd_addr_t *remote,
                   const hd_addr_t *local)
{
    udp_t *u = sv->room > 0 ? sv->table[hash & (sv->room - 1)] : NULL;

    while (u != NULL && (u->hash != hash || !hd_addr_eq(&u->s.down->remote, remote) ||
                         !hd_addr_eq(hd_conn_socket_local(u->s.down), local)))
        u = u->next;
    return u;
}

static void grow(server_t *sv)
{
    uint32_t room = sv->room == 0 ? TABLE_MIN : sv->room * 2;
    udp_t **table = hd_pool_new_n(sv->pool, udp_t *, room);

    for (uint32_t i = 0; i < sv->room; i++) {
        udp_t *next;

        for (udp_t *u = sv->table[i]; u != NULL; u = next) {
            next = u->next;
            u->next = table[u->hash & (room - 1)];
            table[u->hash & (room - 1)] = u;
        }
    }
    sv->table = table;
    sv->room = room;
}

static void list(udp_t *u)
{
    server_t *sv = u->server;

    if (sv->listed_n >= sv->room)
        grow(sv);
    u->next = sv->table[u->hash & (sv->room - 1)];
    sv->table[u->hash & (sv->room - 1)] = u;
    u->is_listed = true;
    sv->listed_n++;
}

/* The client's next datagram begins another session. */
static void unlist(udp_t *u)
{
    udp_t **at;

    if (!u->is_listed)
        return;
    at = &u->server->table[u->hash & (u->server->room - 1)];
    while (*at != u)
        at = &(*at)->next;
    *at = u->next;
    u->is_listed = false;
    u->server->listed_n--;
}

static void leave_server(udp_t *u)
{
    unlist(u);
    if (u->server == NULL)
        return;
    hd_list_remove(&u->of_server);
    u->server->n--;
    u->server = NULL;
}

/* --- the end --- */

static void drop_upstream(hd_session_t *s)
{
    udp_t *u = udp_of(s);

    if (u->waits_up)
        hd_socket_cancel(&u->wait_up);
    u->waits_up = u->has_upstream = false;
    if (u->up.fd >= 0)
        hd_watch_close(s->loop, &u->up);
    hd_watch_init(&u->up);
}

static void close_down(hd_session_t *s)
{
    udp_t *u = udp_of(s);

    leave_server(u);
    drop_upstream(s);
    if (u->waits_own)
        hd_socket_cancel(&u->wait_own);
    if (u->own.fd >= 0)
        hd_watch_close(s->loop, &u->own);
    hd_watch_init(&u->own);
    hd_post_cancel(&u->more);
    hd_timer_stop(s->loop, &u->idle);
    hd_conn_close(s->down, 0); /* <s> lies in its pool */
}

static void count(hd_session_t *s)
{
    s->count.bytes_received = s->down->bytes_in;
    s->count.bytes_sent = s->down->bytes_out;
}

static void end(udp_t *u, hd_pick_result_t result)
{
    hd_session_end(&u->s, result);
    close_down(&u->s);
}

/* All that was expected has come (nginx's proxy_requests and proxy_responses). */
static bool is_complete(const udp_t *u)
{
    const hd_udp_conf_t *c = conf_of(u);

    if (c->requests > 0 && u->requests < c->requests)
        return false;
    return c->has_responses && u->responses >= u->requests * c->responses;
}

static void on_idle(hd_timer_t *t)
{
    udp_t *u = hd_container_of(t, udp_t, idle);
    const hd_udp_conf_t *c = conf_of(u);

    u->s.ended_by = "idle";
    if (c->has_responses && u->responses < u->requests * c->responses) {
        hd_ignore(hd_err_set(&u->s.err, HD_E_TIMEOUT, "upstream timed out"));
        u->s.status = 502;
        u->s.flags = "UT";
        end(u, HD_RESULT_TIMEOUT);
    } else {
        end(u, HD_RESULT_OK);
    }
}

static void touch(udp_t *u)
{
    if (u->s.conf->idle_timeout_ms > 0)
        hd_timer_set(u->s.loop, &u->idle, u->s.conf->idle_timeout_ms);
}

/* --- towards the client --- */

/* Our address, where the socket has several; 0: no control message is needed. */
static size_t put_local(char *control, const server_t *sv, const hd_addr_t *local)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)control;

    if (!hd_addr_is_any(&sv->socket->addr))
        return 0;
    memset(control, 0, CONTROL_BYTES);
    if (local->family == AF_INET && sv->socket->addr.family == AF_INET) {
        struct in_pktinfo *info = (struct in_pktinfo *)(void *)CMSG_DATA(c);

        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof(*info));
        memcpy(&info->ipi_spec_dst, local->v4, 4);
        return CMSG_SPACE(sizeof(*info));
    } else {
        struct in6_pktinfo *info = (struct in6_pktinfo *)(void *)CMSG_DATA(c);

        c->cmsg_level = IPPROTO_IPV6;
        c->cmsg_type = IPV6_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof(*info));
        memcpy(&info->ipi6_addr, local->v6, 16);
        return CMSG_SPACE(sizeof(*info));
    }
}

/* A full socket loses datagrams, as a network does. */
static void send_to_client(udp_t *u, struct iovec *parts, unsigned n)
{
    char control[CONTROL_BYTES] __attribute__((aligned(8)));
    struct mmsghdr messages[BATCH];
    struct sockaddr_storage ss;
    socklen_t ss_len = 0;
    size_t control_len = 0;
    int fd = u->own.fd, sent;

    if (fd < 0 && u->server != NULL) {
        fd = u->server->socket->fd;
        ss_len = hd_addr_to_sockaddr(&u->s.down->remote, &ss);
        control_len = put_local(control, u->server, hd_conn_socket_local(u->s.down));
    }
    memset(messages, 0, n * sizeof(messages[0]));
    for (unsigned i = 0; i < n; i++) {
        messages[i].msg_hdr =
            (struct msghdr){.msg_name = ss_len > 0 ? &ss : NULL,
                            .msg_namelen = ss_len,
                            .msg_iov = &parts[i],
                            .msg_iovlen = 1,
                            .msg_control = control_len > 0 ? control : NULL,
                            .msg_controllen = control_len};
    }
    sent = fd >= 0 ? sendmmsg(fd, messages, n, MSG_NOSIGNAL) : -1;
    for (int i = 0; i < sent; i++)
        u->s.down->bytes_out += parts[i].iov_len;
    count_dropped(u->s.member, listener_name(u), "client", n - (unsigned)hd_max(sent, 0));
}

static void answer(hd_session_t *s, hd_str_t text)
{
    struct iovec part = {(char *)(uintptr_t)text.data, text.len};

    send_to_client(udp_of(s), &part, 1);
}

/* --- towards the upstream --- */

static bool is_refusal(int error)
{
    return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH;
}

/* HD_ERROR: an ICMP message came of an earlier datagram. */
static hd_rc_t send_upstream(udp_t *u, const char *data, size_t len)
{
    ssize_t n = send(u->up.fd, data, len, MSG_NOSIGNAL);

    if (n >= 0) {
        u->s.last_try->bytes_sent += (uint64_t)n;
        return HD_OK;
    }
    if (is_refusal(errno))
        return hd_err_set_sys(&u->s.err, errno, "send() failed");
    count_dropped(u->s.member, listener_name(u), "upstream", 1);
    return HD_OK;
}

/* Nobody is there: another server gets what the client has said, if none has answered. */
static void on_refused(udp_t *u)
{
    if (u->responses > 0) { /* it was there, and may be again */
        hd_err_clear(&u->s.err);
        return;
    }
    hd_session_lose_try(&u->s, HD_RESULT_CONNECT);
}

static void keep(udp_t *u, const char *data, size_t len)
{
    waiting_t *w;

    if (u->responses > 0 || u->waiting_n == WAITING_MAX)
        return;
    w = hd_pool_alloc(hd_conn_pool(u->s.down), sizeof(*w) + len);
    w->next = NULL;
    w->len = len;
    if (len > 0)
        memcpy(w->data, data, len);
    *u->waiting_end = w;
    u->waiting_end = &w->next;
    u->waiting_n++;
}

/* A datagram of the client's. The session may be gone after. */
static void pass_up(udp_t *u, const char *data, size_t len)
{
    const hd_udp_conf_t *c = conf_of(u);

    u->s.down->bytes_in += len;
    u->requests++;
    keep(u, data, len);
    touch(u);
    if (c->requests > 0 && u->requests >= c->requests)
        unlist(u);
    if (!u->has_upstream)
        return; /* it waits */
    if (send_upstream(u, data, len) != HD_OK)
        on_refused(u);
    else if (is_complete(u))
        end(u, HD_RESULT_OK);
}

static void pass_down(udp_t *u, struct iovec *parts, unsigned n)
{
    hd_session_try_t *t = u->s.last_try;

    if (t->first_byte_ns == 0)
        t->first_byte_ns = hd_loop_now_ns(u->s.loop);
    for (unsigned i = 0; i < n; i++)
        t->bytes_received += parts[i].iov_len;
    if (u->responses == 0)
        hd_balancer->report(u->s.member, &u->s.pick, HD_RESULT_OK, 0);
    u->responses += n;
    u->waiting = NULL;
    u->waiting_end = &u->waiting;
    send_to_client(u, parts, n);
}

static char *buffers(void)
{
    static _Thread_local char *all; /* untouched pages of it cost nothing */

    if (all == NULL)
        all = malloc((size_t)BATCH * DATAGRAM_BYTES);
    hd_bug_on(all == NULL);
    return all;
}

/* What came at once: 0: none; below 0: an ICMP message, errno. */
static int receive(int fd, struct mmsghdr *messages, struct iovec *parts,
                   struct sockaddr_storage *from, char *control)
{
    char *to = buffers();
    int n;

    memset(messages, 0, BATCH * sizeof(*messages));
    for (unsigned i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){to + (size_t)i * DATAGRAM_BYTES, DATAGRAM_BYTES};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        if (from != NULL) {
            messages[i].msg_hdr.msg_name = &from[i];
            messages[i].msg_hdr.msg_namelen = sizeof(from[i]);
            messages[i].msg_hdr.msg_control = control + i * CONTROL_BYTES;
            messages[i].msg_hdr.msg_controllen = CONTROL_BYTES;
        }
    }
    do
        n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    for (int i = 0; i < n; i++)
        parts[i].iov_len = messages[i].msg_len;
    return n;
}

/* Its sockets are edge-triggered: what is left there, behind an ICMP message too, nobody
 * will tell of again. The session may be gone after. */
static void take_answers(udp_t *u)
{
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];

    for (int done = 0; done < TURN_DATAGRAMS;) {
        int n = receive(u->up.fd, messages, parts, NULL, NULL);

        if (n == 0)
            return;
        if (n < 0) {
            bool was_there = u->responses > 0;

            hd_ignore(hd_err_set_sys(&u->s.err, errno, "recv() failed"));
            on_refused(u);
            if (!was_there) /* the socket may be another one */
                return;
            done++;
            continue;
        }
        touch(u);
        pass_down(u, parts, (unsigned)n);
        if (is_complete(u)) {
            end(u, HD_RESULT_OK);
            return;
        }
        if (n < BATCH)
            return;
        done += n;
    }
    hd_post_next(u->s.loop, &u->more);
}

static void on_upstream_ready(hd_watch_t *w, unsigned events)
{
    (void)events;
    take_answers(hd_container_of(w, udp_t, up));
}

static void on_upstream_socket(udp_t *u, int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = hd_addr_to_sockaddr(&u->s.pick.addr, &ss);
    hd_err_t err = {.code = HD_E_NONE};

    if (connect(fd, (const struct sockaddr *)&ss, len) != 0) {
        hd_ignore(hd_err_set_sys(&u->s.err, errno, "connect() failed"));
        hd_ignore(close(fd)); /* never used */
        hd_session_lose_try(&u->s, HD_RESULT_CONNECT);
        return;
    }
    if (hd_watch_start(u->s.loop, &u->up, fd, on_upstream_ready, &err) != HD_OK) {
        u->s.err = err;
        hd_ignore(close(fd)); /* as above */
        hd_watch_init(&u->up);
        hd_session_fail(&u->s, HD_RESULT_CANCELLED);
        return;
    }
    u->has_upstream = true;
    hd_session_connected(&u->s);
    for (const waiting_t *w = u->waiting; w != NULL; w = w->next) {
        if (send_upstream(u, w->data, w->len) != HD_OK) {
            on_refused(u);
            return;
        }
    }
    if (is_complete(u))
        end(u, HD_RESULT_OK);
}

static void on_brokered_upstream(hd_socket_wait_t *w, int fd, const hd_err_t *err)
{
    udp_t *u = hd_container_of(w, udp_t, wait_up);

    u->waits_up = false;
    if (fd >= 0) {
        on_upstream_socket(u, fd);
        return;
    }
    u->s.err = *err;
    hd_session_lose_try(&u->s, HD_RESULT_CONNECT);
}

static void connect_upstream(hd_session_t *s)
{
    udp_t *u = udp_of(s);
    hd_socket_spec_t spec = {.bind =
                                 *hd_cluster_bind(s->pick.cluster, s->pick.addr.family),
                             .type = SOCK_DGRAM,
                             .family = s->pick.addr.family};
    int fd;
    hd_rc_t rc = HD_ERROR;

    u->wait_up.on_socket = on_brokered_upstream;
    if (s->pick.addr.family == AF_UNIX)
        hd_ignore(hd_err_set(&s->err, HD_E_CONF, "no datagrams to unix sockets"));
    else if (hd_session_set_bind(s, &spec) == HD_OK)
        rc = hd_socket_open(s->loop, &spec, &fd, &u->wait_up, &s->err);
    if (rc == HD_AGAIN)
        u->waits_up = true;
    else if (rc == HD_OK)
        on_upstream_socket(u, fd);
    else
        hd_session_lose_try(s, HD_RESULT_CONNECT);
}

static const hd_session_ops_t ops = {.protocol = "UDP",
                                     .connect = connect_upstream,
                                     .drop_upstream = drop_upstream,
                                     .count = count,
                                     .answer = answer,
                                     .close = close_down};

/* --- clients --- */

static void ignore(hd_conn_t *c)
{
    (void)c; /* it carries no bytes */
}

static void on_reset(hd_conn_t *c)
{
    hd_session_fail(c->owner, HD_RESULT_CANCELLED);
}

static const hd_conn_handler_t handler = {
    .on_readable = ignore, .on_writable = ignore, .on_closed = on_reset};

/* Modules say whether the client may. Its conn is closed when it may not. */
static bool is_admitted(hd_conn_t *c, const hd_filter_chain_t *chain)
{
    hd_rc_t rc = HD_OK;

    if (chain->filters_n > 0 && hd_listener_run_filters != NULL)
        rc = hd_listener_run_filters(c, chain, 0);
    return rc == HD_OK;
}

static bool has_room(server_t *sv, const hd_tcp_conf_t *conf)
{
    const char *why = NULL;

    if (conf->udp.sessions_max > 0 && sv->n >= conf->udp.sessions_max)
        why = "all sessions of the server are in use: raise proxy_sessions_max";
    else if (hd_conns_open(sv->socket->loop) >= sv->socket->conns_max)
        why = "all connections are in use: raise worker_connections";
    if (why != NULL) {
        if (!sv->told)
            hd_log(HD_LOG_CRIT, "datagrams of new clients are dropped: %s", why);
        count_dropped(hd_loop_member(sv->socket->loop), sv->socket->slot->name,
                      "sessions", 1);
    }
    sv->told = why != NULL;
    return why == NULL;
}

static udp_t *begin(server_t *sv, const hd_addr_t *remote, const hd_addr_t *local,
                    uint32_t hash)
{
    const hd_slot_t *slot = sv->socket->slot;
    const hd_region_t *r =
        slot != NULL ? hd_slot_get(hd_loop_member(sv->socket->loop), slot) : NULL;
    const hd_listener_t *l = r != NULL ? r->root : NULL;
    const hd_filter_chain_t *chain = l != NULL ? l->default_chain : NULL;
    hd_conn_t *c;
    udp_t *u;

    if (chain == NULL || !has_room(sv, chain->protocol_conf))
        return NULL;
    c = hd_conn_create_bare(sv->socket->loop, remote, local);
    c->protocol = hd_udp_protocol();
    u = (udp_t *)hd_session_create(c, &(hd_entrance_t){slot, r, chain}, &ops, sizeof(*u));
    hd_watch_init(&u->up);
    hd_watch_init(&u->own);
    hd_post_init(&u->more, on_more);
    hd_timer_init(&u->idle, on_idle);
    u->waiting_end = &u->waiting;
    u->server = sv;
    hd_list_add_last(&sv->all, &u->of_server);
    sv->n++;
    u->hash = hash;
    hd_conn_set_handler(c, &handler, u);
    count_sessions(u);
    if (!is_admitted(c, chain)) {
        hd_session_refuse(&u->s, 403);
        close_down(&u->s);
        return NULL;
    }
    list(u);
    return u;
}

/* As Envoy's: the session's server fails its checks, and another one may serve. */
static bool is_forsaken(const udp_t *u)
{
    const hd_pick_t *p = &u->s.pick;
    uint64_t now_ns = hd_loop_now_ns(u->s.loop);
    const hd_endpoints_t *all;

    if (!u->s.is_picked || p->endpoint == NULL || p->cluster->check == NULL ||
        hd_balancer->is_well(p->cluster, p->endpoint))
        return false;
    all = hd_pick_endpoints(u->s.member, p);
    for (uint32_t i = 0; all != NULL && i < all->n; i++) {
        if (hd_balancer->may_serve(p->cluster, &all->items[i], now_ns))
            return true;
    }
    return false;
}

static void take(server_t *sv, const hd_addr_t *remote, const hd_addr_t *local,
                 const char *data, size_t len)
{
    uint32_t hash = hash_of(remote, local);
    udp_t *u = find(sv, hash, remote, local);
    bool is_new;

    if (u != NULL && is_forsaken(u)) {
        end(u, HD_RESULT_CANCELLED);
        u = NULL;
    }
    is_new = u == NULL;
    if (is_new)
        u = begin(sv, remote, local, hash);
    if (u == NULL)
        return;
    pass_up(u, data, len);
    if (is_new)
        hd_session_start(&u->s);
}

static hd_addr_t local_of(const server_t *sv, struct msghdr *m)
{
    hd_addr_t local = sv->socket->addr;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            const struct in_pktinfo *info = (const void *)CMSG_DATA(c);

            memcpy(local.v4, &info->ipi_addr, 4);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            const struct in6_pktinfo *info = (const void *)CMSG_DATA(c);

            memcpy(local.v6, &info->ipi6_addr, 16);
        }
    }
    return local;
}

static server_t *server_of(hd_datagram_socket_t *socket)
{
    server_t *sv = socket->owner;

    if (sv == NULL) {
        hd_pool_t *pool = hd_pool_create(0);

        sv = hd_pool_new(pool, server_t);
        sv->pool = pool;
        sv->socket = socket;
        hd_list_init(&sv->all);
        socket->owner = sv;
    }
    return sv;
}

static void on_readable(hd_datagram_socket_t *socket)
{
    server_t *sv = server_of(socket);
    char control[BATCH * CONTROL_BYTES] __attribute__((aligned(8)));
    struct sockaddr_storage from[BATCH];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];

    for (int done = 0; done < TURN_DATAGRAMS;) {
        int n = receive(socket->fd, messages, parts, from, control);

        if (n <= 0) /* an ICMP message of a client that has gone is nobody's */
            return;
        for (int i = 0; i < n; i++) {
            struct msghdr *m = &messages[i].msg_hdr;
            hd_addr_t remote, local = local_of(sv, m);

            hd_addr_from_sockaddr((const struct sockaddr *)&from[i], m->msg_namelen,
                                  &remote);
            if (remote.port != 0) /* nobody could be answered there */
                take(sv, &remote, &local, parts[i].iov_base, parts[i].iov_len);
        }
        done += n;
        if (n < BATCH)
            return; /* level-triggered */
    }
}

/* --- sockets of sessions' own --- */

/* An ICMP message: the client has gone. It ends by its time, like one that is mute.
 * False: the session has ended. */
static bool take_requests(udp_t *u)
{
    hd_conn_t *c = u->s.down;
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];

    for (int done = 0; done < TURN_DATAGRAMS;) {
        int n = receive(u->own.fd, messages, parts, NULL, NULL);

        for (int i = 0; i < n; i++) {
            pass_up(u, parts[i].iov_base, parts[i].iov_len);
            if (c->handler != &handler)
                return false;
        }
        if (n >= 0 && n < BATCH)
            return true;
        done += n < 0 ? 1 : n;
    }
    hd_post_next(u->s.loop, &u->more);
    return true;
}

static void on_own_ready(hd_watch_t *w, unsigned events)
{
    (void)events;
    hd_ignore(take_requests(hd_container_of(w, udp_t, own)));
}

static void on_more(hd_post_t *p)
{
    udp_t *u = hd_container_of(p, udp_t, more);

    if ((u->own.fd < 0 || take_requests(u)) && u->up.fd >= 0)
        take_answers(u);
}

static void start_own(udp_t *u, int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = hd_addr_to_sockaddr(&u->s.down->remote, &ss);
    hd_err_t err = {.code = HD_E_NONE};

    if (connect(fd, (const struct sockaddr *)&ss, len) == 0 &&
        hd_watch_start(u->s.loop, &u->own, fd, on_own_ready, &err) == HD_OK)
        return;
    hd_ignore(close(fd)); /* never used */
    hd_watch_init(&u->own);
    end(u, HD_RESULT_OK);
}

static void on_brokered_own(hd_socket_wait_t *w, int fd, const hd_err_t *err)
{
    udp_t *u = hd_container_of(w, udp_t, wait_own);

    (void)err;
    u->waits_own = false;
    if (fd >= 0)
        start_own(u, fd);
    else
        end(u, HD_RESULT_OK);
}

/* Its client's datagrams came by the listener's socket, which is closed now. */
static void make_own(udp_t *u)
{
    const hd_addr_t *local = hd_conn_socket_local(u->s.down);
    hd_socket_spec_t spec = {.bind = *local,
                             .type = SOCK_DGRAM,
                             .reuseport = true,
                             .v6only = local->family == AF_INET6};
    hd_err_t err = {.code = HD_E_NONE};
    hd_rc_t rc;
    int fd;

    leave_server(u);
    u->wait_own.on_socket = on_brokered_own;
    rc = hd_socket_open(u->s.loop, &spec, &fd, &u->wait_own, &err);
    if (rc == HD_OK)
        start_own(u, fd);
    else if (rc == HD_AGAIN)
        u->waits_own = true;
    else
        end(u, HD_RESULT_OK);
}

static void on_close(hd_datagram_socket_t *socket)
{
    server_t *sv = socket->owner;

    if (sv == NULL)
        return;
    while (!hd_list_is_empty(&sv->all))
        make_own(hd_list_entry(sv->all.next, udp_t, of_server));
    socket->owner = NULL;
    hd_pool_destroy(sv->pool);
}

static const hd_datagram_server_t datagram_server = {.on_readable = on_readable,
                                                     .on_close = on_close};

/* No conn comes this way. */
static void on_conn(hd_conn_t *c, const hd_entrance_t *in)
{
    (void)in;
    hd_conn_close(c, 0);
}

uint16_t hd_udp_protocol(void)
{
    static const hd_protocol_t protocol = {.name = "udp", .on_conn = on_conn};
    static uint16_t number;

    if (number == 0) {
        number = hd_protocol_register(&protocol);
        hd_datagram_server = &datagram_server;
        hd_stream_maps_register();
    }
    return number;
}

hd_session_t *hd_udp_session_of(const hd_conn_t *c)
{
    return c->handler == &handler ? c->owner : NULL;
}
