/* The acceptor of a loop: which sockets belong to which listeners, and accept itself. */
#include "core/base/hd_log.h"
#include "core/net/hd_clients.h"
#include "core/net/hd_conn_int.h"
#include "core/net/hd_datagram.h"
#include "core/net/hd_listener.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACCEPTS_OWN 64    /* in one turn, of a socket of this process alone */
#define ACCEPTS_SHARED 8  /* of one that others wait for too: they get their share */
#define ACCEPTS_LAST 4096 /* when it stops */
#define PAUSE_MS 250
#define FEW_PLACES 16      /* conns_max over this is few: then idle conns make room */
#define LOOK_AGAIN_MS 10   /* for idle ones, where none was found */
#define TELL_REUSE_MS 1000 /* a line in the log at most so often */

typedef struct socket_s {
    struct socket_s *next;
    hd_acceptor_t *acceptor;
    hd_watch_t watch;
    hd_addr_t addr;
    const hd_slot_t *slot; /* whose conns it brings; NULL: nobody's now */
    int fd;
    bool exclusive;
    bool was_used; /* had a listener; without one it is closed. Else it came early */
    bool is_datagram;
    hd_datagram_socket_t datagram;
} socket_t;

const hd_datagram_server_t *hd_datagram_server;

typedef struct {
    hd_addr_t addr;
    const hd_slot_t *slot; /* NULL: free */
    bool bind, is_datagram, v6only;
} place_t;

struct hd_acceptor_s {
    hd_loop_t *loop;
    uint32_t conns_max;
    struct {
        const hd_arena_t *arena;
        uint64_t arrived; /* so many had come when the list was made */
    } arenas[HD_ARENAS_MAX];
    uint32_t arenas_n;
    const hd_slot_t **slots; /* all that are listeners' and have a version; held */
    uint32_t slots_n, slots_room;
    place_t *places; /* by address: open addressing, a power of two */
    uint32_t places_room;
    socket_t *sockets;
    hd_timer_t resume;
    bool is_paused;
    bool told;                 /* of this shortage */
    uint64_t look_ns, tell_ns; /* not before: see make_room */
};

/* Places: listeners by address */

static place_t *find_place(const hd_acceptor_t *a, const hd_addr_t *addr,
                           bool is_datagram)
{
    uint32_t at = hd_addr_hash(addr);

    for (;; at++) {
        place_t *p = &a->places[at & (a->places_room - 1)];

        if (p->slot == NULL ||
            (p->is_datagram == is_datagram && hd_addr_eq(&p->addr, addr)))
            return p;
    }
}

static const hd_listener_t *listener_of(const hd_acceptor_t *a, const hd_slot_t *slot)
{
    const hd_region_t *r = hd_slot_get(hd_loop_member(a->loop), slot);

    return r != NULL ? r->root : NULL;
}

static void drop_gone_slots(hd_acceptor_t *a)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < a->slots_n; i++) {
        if (listener_of(a, a->slots[i]) != NULL)
            a->slots[kept++] = a->slots[i];
        else
            hd_slot_let_go(hd_loop_member(a->loop), a->slots[i]);
    }
    a->slots_n = kept;
}

static void add_slot(hd_acceptor_t *a, const hd_slot_t *slot)
{
    if (a->slots_n == a->slots_room) {
        a->slots_room = a->slots_room == 0 ? 16 : a->slots_room * 2;
        a->slots = hd_net_realloc(a->slots, sizeof(hd_slot_t *) * a->slots_room);
    }
    a->slots[a->slots_n++] = slot;
    hd_slot_hold(hd_loop_member(a->loop), slot);
}

/* By a slot's id: in which arenas, a bit each, the list has it. The caller frees it. */
static uint8_t *mark_known(const hd_acceptor_t *a, uint32_t *n)
{
    uint8_t *known;

    *n = 0;
    for (uint32_t i = 0; i < a->slots_n; i++)
        *n = hd_max(*n, a->slots[i]->id + 1);
    known = calloc(*n + (size_t)1, 1);
    hd_bug_on(known == NULL);
    for (uint32_t i = 0; i < a->slots_n; i++)
        known[a->slots[i]->id] |= (uint8_t)(1u << a->slots[i]->arena);
    return known;
}

/* New ones go behind: who has an address keeps it. */
static void add_new_slots(hd_acceptor_t *a, const hd_arena_t *arena)
{
    const hd_slot_t *slot = NULL;
    uint32_t n;
    uint8_t *known = mark_known(a, &n);

    while ((slot = hd_slot_next(arena, slot)) != NULL)
        if (slot->type == HD_RES_LISTENER && listener_of(a, slot) != NULL &&
            (slot->id >= n || (known[slot->id] >> slot->arena & 1) == 0))
            add_slot(a, slot);
    free(known);
}

static void refresh_slots(hd_acceptor_t *a)
{
    drop_gone_slots(a);
    for (uint32_t i = 0; i < a->arenas_n; i++) {
        const hd_arena_t *arena = a->arenas[i].arena;
        uint64_t arrived = hd_slots_arrived(arena, HD_RES_LISTENER);

        if (arrived == a->arenas[i].arrived)
            continue;
        a->arenas[i].arrived = arrived;
        add_new_slots(a, arena);
    }
}

/* The first listener of an address has it; one that binds goes before one that doesn't.
 */
static void add_place(hd_acceptor_t *a, const hd_slot_t *slot, const hd_addr_t *addr,
                      const hd_socket_spec_t *socket, bool bind)
{
    bool is_datagram = socket->type == SOCK_DGRAM;
    place_t *p = find_place(a, addr, is_datagram);

    if (p->slot != NULL && (p->bind || !bind))
        return;
    *p = (place_t){.addr = hd_addr_keep(addr),
                   .slot = slot,
                   .bind = bind,
                   .is_datagram = is_datagram,
                   .v6only = socket->v6only};
}

static void add_places(hd_acceptor_t *a, const hd_slot_t *slot)
{
    const hd_listener_t *l = listener_of(a, slot);

    if (l == NULL || l->addr.family == AF_UNSPEC)
        return;
    add_place(a, slot, &l->addr, &l->socket, l->bind);
    for (uint32_t i = 0; i < l->more_n; i++)
        add_place(a, slot, &l->more[i].bind, &l->more[i], l->bind);
}

static void rebuild_places(hd_acceptor_t *a)
{
    uint32_t room = 16, n = a->slots_n;

    for (uint32_t i = 0; i < a->slots_n; i++) {
        const hd_listener_t *l = listener_of(a, a->slots[i]);

        n += l != NULL ? l->more_n : 0;
    }
    while (room < n * 2)
        room *= 2;
    a->places = hd_net_realloc(a->places, sizeof(place_t) * room);
    memset(a->places, 0, sizeof(place_t) * room);
    a->places_room = room;
    for (uint32_t i = 0; i < a->slots_n; i++)
        add_places(a, a->slots[i]);
}

const hd_slot_t *hd_acceptor_find(const hd_acceptor_t *a, const hd_addr_t *to)
{
    hd_addr_t any = {.family = to->family, .port = to->port};
    const hd_slot_t *slot;
    const place_t *p;

    if (a->places_room == 0)
        return NULL;
    slot = find_place(a, to, false)->slot;
    if (slot == NULL)
        slot = find_place(a, &any, false)->slot;
    if (slot != NULL || to->family != AF_INET)
        return slot;
    any.family = AF_INET6; /* [::] may take both */
    p = find_place(a, &any, false);
    return p->v6only ? NULL : p->slot;
}

/* Pausing */

static void on_listen_ready(hd_watch_t *w, unsigned events);
static void pause_all(hd_acceptor_t *a, const char *why);

static void start_socket(socket_t *s)
{
    hd_err_t err = {.code = HD_E_NONE};

    if (s->watch._index != UINT32_MAX || s->acceptor->is_paused || s->slot == NULL)
        return;
    if (hd_watch_start_listen(s->acceptor->loop, &s->watch, s->fd, s->exclusive,
                              on_listen_ready, &err) == HD_OK)
        return;
    /* While it was paused others (upstream conns) took its place: later, then. */
    if (err.code == HD_E_LIMIT)
        pause_all(s->acceptor, err.text);
    else
        hd_log(HD_LOG_ALERT, "listening on \"%.*s\": %s", HD_STR_ARG(s->slot->name),
               err.text);
}

static void stop_socket(socket_t *s)
{
    hd_watch_stop(s->acceptor->loop, &s->watch);
    hd_watch_init(&s->watch);
}

static void on_resume(hd_timer_t *t)
{
    hd_acceptor_t *a = hd_container_of(t, hd_acceptor_t, resume);

    a->is_paused = false;
    for (socket_t *s = a->sockets; s != NULL; s = s->next)
        start_socket(s);
}

/* The shortage is the process's: to be woken for the same conns again and again would not
 * end it. */
static void pause_all(hd_acceptor_t *a, const char *why)
{
    if (!a->told)
        hd_log(HD_LOG_CRIT, "accept is paused for %d ms at a time: %s", PAUSE_MS, why);
    a->told = true;
    a->is_paused = true;
    hd_listener_stats.pauses++;
    for (socket_t *s = a->sockets; s != NULL; s = s->next)
        stop_socket(s);
    hd_timer_set(a->loop, &a->resume, PAUSE_MS);
}

/* Accepting */

static bool is_wildcard(const hd_addr_t *a)
{
    return hd_addr_is_any(a);
}

/* What the client connected to. Asked for only where the listener's address doesn't say
 * it. With TPROXY it may be another one than the socket listens on: where it was going.
 */
static void set_local(hd_conn_t *c, const socket_t *s, const hd_listener_t *l, int fd)
{
    bool is_transparent = l != NULL && l->socket.transparent;
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    hd_addr_t local = s->addr;

    if ((is_wildcard(&s->addr) || is_transparent) &&
        getsockname(fd, (struct sockaddr *)&ss, &len) == 0)
        hd_addr_from_sockaddr((struct sockaddr *)&ss, len, &local);
    if (l != NULL && l->unmaps_v4)
        hd_addr_unmap(&local);
    hd_conn_set_local(c, &local);
    if (is_transparent && (local.port != s->addr.port ||
                           (!is_wildcard(&s->addr) && !hd_addr_eq_ip(&local, &s->addr))))
        hd_conn_facts(c)->original_dst = local;
}

static void enter(socket_t *s, int fd, const struct sockaddr_storage *ss, socklen_t len)
{
    hd_acceptor_t *a = s->acceptor;
    const hd_listener_t *l = listener_of(a, s->slot);
    hd_err_t err = {.code = HD_E_NONE};
    hd_addr_t remote;
    hd_conn_t *c;

    hd_addr_from_sockaddr((const struct sockaddr *)ss, len, &remote);
    if (remote.family == AF_UNIX)
        remote = (hd_addr_t){.family = AF_UNIX}; /* the name lies on our stack */
    if (l != NULL && l->unmaps_v4)
        hd_addr_unmap(&remote);
    c = hd_conn_create(a->loop, fd, &remote, &err);
    if (c == NULL) {
        pause_all(a, err.text);
        return;
    }
    set_local(c, s, l, fd);
    hd_listener_stats.accepted++;
    c->_flags |= HD_CF_CLIENT;
    hd_clients_accepted();
    hd_listener_enter(c, s->slot);
}

/* As nginx's reusable connections: where places become few, those that idle longest give
 * theirs up. False: none did. */
static bool make_room(hd_acceptor_t *a, const char *why)
{
    uint64_t now_ns = hd_loop_now_ns(a->loop);
    size_t n = hd_conns_reuse(a->loop, HD_CONNS_REUSE_MAX);

    if (n == 0) {
        a->look_ns = now_ns + (uint64_t)LOOK_AGAIN_MS * 1000000;
        return false;
    }
    hd_clients_reused(n);
    if (now_ns >= a->tell_ns) {
        a->tell_ns = now_ns + (uint64_t)TELL_REUSE_MS * 1000000;
        hd_log(HD_LOG_WARN, "%s: idle connections are closed for new ones", why);
    }
    return true;
}

static bool has_room(hd_acceptor_t *a)
{
    size_t open = hd_conns_open(a->loop);
    bool is_full = open >= a->conns_max;

    if (hd_likely(!is_full && a->conns_max - open > a->conns_max / FEW_PLACES))
        return true;
    if (is_full || hd_loop_now_ns(a->loop) >= a->look_ns)
        hd_ignore(!make_room(a, "worker_connections are not enough"));
    return hd_conns_open(a->loop) < a->conns_max;
}

/* HD_OK: one was accepted; HD_AGAIN: none is there; HD_ERROR: paused. */
static hd_rc_t accept_one(socket_t *s)
{
    hd_acceptor_t *a = s->acceptor;
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    int fd;

    if (!has_room(a)) {
        pause_all(a, "all connections are in use: raise worker_connections");
        return HD_ERROR;
    }
    do
        fd = accept4(s->fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (fd < 0 && errno == EMFILE && make_room(a, "files are not enough"));
    if (fd >= 0) {
        enter(s, fd, &ss, len);
        return a->is_paused ? HD_ERROR : HD_OK;
    }
    switch (errno) {
    case EAGAIN:
        a->told = false; /* the shortage, if there was one, is over */
        return HD_AGAIN;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        pause_all(a, strerror(errno));
        return HD_ERROR;
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
    case EOPNOTSUPP:
        hd_log(HD_LOG_ALERT, "accept() failed: %s", strerror(errno));
        stop_socket(s);
        return HD_ERROR;
    default: /* the client gave up, or its network did (accept(2)): the next one */
        return HD_OK;
    }
}

static void on_listen_ready(hd_watch_t *w, unsigned events)
{
    socket_t *s = hd_container_of(w, socket_t, watch);
    int most = s->exclusive ? ACCEPTS_SHARED : ACCEPTS_OWN;

    (void)events;
    if (s->is_datagram) {
        hd_datagram_server->on_readable(&s->datagram);
        return;
    }
    while (most-- > 0 && s->slot != NULL && accept_one(s) == HD_OK) {
    }
}

/* Sockets and listeners */

static void close_socket(socket_t *s)
{
    stop_socket(s);
    if (s->is_datagram)
        hd_datagram_server->on_close(&s->datagram);
    hd_ignore(close(s->fd)); /* listens only */
    free(s);
}

static void set_slot(const hd_acceptor_t *a, socket_t *s)
{
    const place_t *p = find_place(a, &s->addr, s->is_datagram);

    s->slot = s->datagram.slot = p->slot != NULL && p->bind ? p->slot : NULL;
}

void hd_acceptor_refresh(hd_acceptor_t *a)
{
    socket_t **at = &a->sockets;

    refresh_slots(a);
    rebuild_places(a);
    while (*at != NULL) {
        socket_t *s = *at;

        set_slot(a, s);
        if (s->slot == NULL && s->was_used) {
            *at = s->next;
            close_socket(s);
            continue;
        }
        s->was_used = s->slot != NULL;
        start_socket(s);
        at = &s->next;
    }
}

void hd_acceptor_add_fd(hd_acceptor_t *a, const hd_addr_t *addr, uint8_t type, int fd,
                        bool exclusive)
{
    socket_t *s;
    char text[HD_ADDR_TEXT_MAX];

    if (type != SOCK_STREAM && hd_datagram_server == NULL) {
        hd_log(HD_LOG_ALERT, "a datagram socket for %.*s, which nobody serves",
               HD_STR_ARG(hd_addr_print(addr, text)));
        hd_ignore(close(fd)); /* never used */
        return;
    }
    /* Whoever made it: a client that leaves between epoll and accept must not block us.
     */
    hd_ignore(fcntl(fd, F_SETFL, O_NONBLOCK) != 0);
    s = hd_net_realloc(NULL, sizeof(*s));
    *s = (socket_t){
        .acceptor = a, .addr = hd_addr_keep(addr), .fd = fd, .exclusive = exclusive};
    s->is_datagram = type != SOCK_STREAM;
    s->datagram = (hd_datagram_socket_t){
        .loop = a->loop, .fd = fd, .addr = s->addr, .conns_max = a->conns_max};
    hd_watch_init(&s->watch);
    s->next = a->sockets;
    a->sockets = s;
    if (a->places_room != 0)
        set_slot(a, s);
    s->was_used = s->slot != NULL;
    start_socket(s);
}

void hd_acceptor_drop_fds(hd_acceptor_t *a, const hd_addr_t *addr, uint8_t type)
{
    socket_t **at = &a->sockets;

    while (*at != NULL) {
        socket_t *s = *at;

        if (s->slot != NULL || s->is_datagram != (type == SOCK_DGRAM) ||
            !hd_addr_eq(&s->addr, addr)) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        close_socket(s);
    }
}

void hd_acceptor_add_arena(hd_acceptor_t *a, const hd_arena_t *arena)
{
    hd_bug_on(a->arenas_n == HD_ARENAS_MAX);
    a->arenas[a->arenas_n++].arena = arena;
}

hd_acceptor_t *hd_acceptor_create(hd_loop_t *loop, uint32_t conns_max)
{
    hd_acceptor_t *a = hd_net_realloc(NULL, sizeof(*a));

    *a = (hd_acceptor_t){.loop = loop, .conns_max = conns_max};
    hd_timer_init(&a->resume, on_resume);
    loop->acceptor = a;
    return a;
}

/* Who waits in a queue of this process alone would be reset. And who waits in one that it
 * shares may have woken this process and no other (EPOLLEXCLUSIVE): he would wait until
 * the next one comes. After the watch has ended only others are woken. */
static void accept_last(socket_t *s)
{
    int most = ACCEPTS_LAST;

    stop_socket(s);
    if (s->is_datagram) /* what waits is for who has the socket next */
        return;
    while (most-- > 0 && s->slot != NULL && accept_one(s) == HD_OK) {
    }
}

static void close_all(hd_acceptor_t *a)
{
    socket_t *s;

    while ((s = a->sockets) != NULL) {
        a->sockets = s->next;
        close_socket(s);
    }
    hd_timer_stop(a->loop, &a->resume);
}

void hd_acceptor_stop(hd_acceptor_t *a)
{
    for (socket_t *s = a->sockets; s != NULL; s = s->next)
        accept_last(s);
    close_all(a);
}

void hd_acceptor_destroy(hd_acceptor_t *a)
{
    if (a == NULL)
        return;
    close_all(a); /* nobody is accepted any more */
    a->loop->acceptor = NULL;
    for (uint32_t i = 0; i < a->slots_n; i++)
        hd_slot_let_go(hd_loop_member(a->loop), a->slots[i]);
    free(a->slots);
    free(a->places);
    free(a);
}
