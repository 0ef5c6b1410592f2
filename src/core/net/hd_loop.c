#include "core/net/hd_loop.h"
#include "core/base/hd_log.h"
#include "core/net/hd_loop_int.h"
#include "core/os/hd_clock.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NO_SLOT UINT32_MAX
#define NS_PER_MS 1000000u

void *hd_net_realloc(void *old, size_t bytes)
{
    void *p = realloc(old, bytes);

    hd_bug_on(p == NULL); /* exhausted memory is the end */
    return p;
}

static void read_clocks(hd_loop_t *loop)
{
    loop->now_ns = loop->mono_ns();
    loop->wall_ns = hd_clock_wall_ns();
    hd_log_set_time(loop->wall_ns);
}

/* sendfile and splice know no MSG_NOSIGNAL. */
static void ignore_sigpipe(void)
{
    struct sigaction sa = {.sa_handler = SIG_IGN};

    hd_ignore(sigaction(SIGPIPE, &sa, NULL)); /* fails for no valid signal */
}

hd_loop_t *hd_loop_create(hd_member_t *member, size_t watches_max, hd_err_t *err)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    hd_loop_t *loop;

    if (fd < 0) {
        hd_err_set_sys(err, errno, "epoll_create1");
        return NULL;
    }
    ignore_sigpipe();
    loop = hd_net_realloc(NULL, sizeof(*loop));
    memset(loop, 0, offsetof(hd_loop_t, events));
    loop->member = member;
    loop->epoll_fd = fd;
    loop->slots_max = (uint32_t)hd_min(watches_max, (size_t)NO_SLOT);
    loop->free_slot = NO_SLOT;
    hd_list_init(&loop->posted);
    hd_list_init(&loop->flushed);
    hd_list_init(&loop->next);
    hd_watch_init(&loop->ring);
    loop->mono_ns = hd_clock_mono_ns;
    read_clocks(loop);
    return loop;
}

void hd_loop_destroy(hd_loop_t *loop)
{
    if (loop == NULL)
        return;
    if (loop->destroy_conns != NULL)
        loop->destroy_conns(loop);
    hd_ignore(close(loop->epoll_fd)); /* nothing to lose in it */
    free(loop->slots);
    free(loop->heap);
    free(loop);
}

hd_member_t *hd_loop_member(const hd_loop_t *loop)
{
    return loop->member;
}

uint64_t hd_loop_now_ns(const hd_loop_t *loop)
{
    return loop->now_ns;
}

int64_t hd_loop_wall_ns(const hd_loop_t *loop)
{
    return loop->wall_ns;
}

void hd_loop_set_clock(hd_loop_t *loop, uint64_t (*mono_ns)(void))
{
    loop->mono_ns = mono_ns;
    loop->now_ns = mono_ns();
}

/* Descriptors */

static bool grow_slots(hd_loop_t *loop)
{
    uint32_t n = loop->slots_n;
    uint64_t want = n == 0 ? 64 : (uint64_t)n * 2;
    uint32_t room = (uint32_t)hd_min(want, (uint64_t)loop->slots_max);

    if (room == n)
        return false;
    loop->slots = hd_net_realloc(loop->slots, sizeof(*loop->slots) * room);
    loop->slots_n = room;
    return true;
}

/* One that was used before, else the next: untouched pages cost nothing. */
static bool find_slot(hd_loop_t *loop, uint32_t *index)
{
    *index = loop->free_slot;
    if (*index != NO_SLOT)
        return true;
    if (loop->slots_used == loop->slots_n && !grow_slots(loop))
        return false;
    *index = loop->slots_used++;
    loop->slots[*index] = (hd_watch_slot_t){.next_free = NO_SLOT};
    loop->free_slot = *index;
    return true;
}

static void free_slot(hd_loop_t *loop, uint32_t index)
{
    hd_watch_slot_t *slot = &loop->slots[index];

    slot->watch = NULL;
    slot->generation++;
    slot->next_free = loop->free_slot;
    loop->free_slot = index;
}

static hd_rc_t start_watch(hd_loop_t *loop, hd_watch_t *w, int fd, uint32_t how,
                           void (*on_ready)(hd_watch_t *w, unsigned events),
                           hd_err_t *err)
{
    struct epoll_event ev = {.events = how};
    hd_watch_slot_t *slot;
    uint32_t index;

    if (!find_slot(loop, &index))
        return hd_err_set(
            err, HD_E_LIMIT,
            "all %u places for descriptors are taken: raise worker_connections",
            loop->slots_max);
    slot = &loop->slots[index];
    ev.data.u64 = (uint64_t)slot->generation << 32 | index;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
        return hd_err_set_sys(err, errno, "epoll_ctl(ADD, %d)", fd);
    loop->free_slot = slot->next_free;
    slot->watch = w;
    *w = (hd_watch_t){.fd = fd, ._index = index, .on_ready = on_ready};
    return HD_OK;
}

hd_rc_t hd_watch_start(hd_loop_t *loop, hd_watch_t *w, int fd,
                       void (*on_ready)(hd_watch_t *w, unsigned events), hd_err_t *err)
{
    return start_watch(loop, w, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, on_ready,
                       err);
}

hd_rc_t hd_watch_start_listen(hd_loop_t *loop, hd_watch_t *w, int fd, bool exclusive,
                              void (*on_ready)(hd_watch_t *w, unsigned events),
                              hd_err_t *err)
{
    return start_watch(loop, w, fd, EPOLLIN | (exclusive ? EPOLLEXCLUSIVE : 0), on_ready,
                       err);
}

static bool is_watching(const hd_loop_t *loop, const hd_watch_t *w)
{
    return w->fd >= 0 && w->_index < loop->slots_used &&
           loop->slots[w->_index].watch == w;
}

void hd_watch_stop(hd_loop_t *loop, hd_watch_t *w)
{
    if (!is_watching(loop, w))
        return;
    /* Fails only when the caller closed it first: then it is gone from there too. */
    hd_ignore(epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL) != 0);
    free_slot(loop, w->_index);
    w->_index = NO_SLOT;
}

void hd_watch_close(hd_loop_t *loop, hd_watch_t *w)
{
    if (is_watching(loop, w))
        free_slot(loop, w->_index);
    if (w->fd >= 0)
        hd_ignore(close(w->fd)); /* a socket: what could be told was told by then */
    hd_watch_init(w);
}

static unsigned to_events(uint32_t ready)
{
    unsigned events = 0;

    if ((ready & EPOLLIN) != 0)
        events |= HD_EV_READ;
    if ((ready & EPOLLOUT) != 0)
        events |= HD_EV_WRITE;
    if ((ready & (EPOLLRDHUP | EPOLLHUP)) != 0)
        events |= HD_EV_HUP;
    if ((ready & EPOLLERR) != 0)
        events |= HD_EV_ERR;
    return events;
}

static void run_events(hd_loop_t *loop, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t index = (uint32_t)loop->events[i].data.u64;
        uint32_t generation = (uint32_t)(loop->events[i].data.u64 >> 32);
        hd_watch_slot_t *slot;

        hd_bug_on(index >= loop->slots_used);
        slot = &loop->slots[index];
        if (slot->watch == NULL || slot->generation != generation)
            continue; /* stopped since it was fetched */
        loop->stats.events++;
        slot->watch->on_ready(slot->watch, to_events(loop->events[i].events));
    }
}

static void on_ring_ready(hd_watch_t *w, unsigned events)
{
    hd_loop_t *loop = hd_container_of(w, hd_loop_t, ring);
    uint64_t rings;
    ssize_t n;

    (void)events;
    do
        n = read(w->fd, &rings, sizeof(rings));
    while (n < 0 && errno == EINTR);
    loop->on_ring(loop->ring_arg);
}

hd_rc_t hd_loop_set_ring(hd_loop_t *loop, int eventfd, void (*on_ring)(void *arg),
                         void *arg, hd_err_t *err)
{
    hd_watch_stop(loop, &loop->ring);
    loop->on_ring = on_ring;
    loop->ring_arg = arg;
    return hd_watch_start(loop, &loop->ring, eventfd, on_ring_ready, err);
}

/* Posted events */

void hd_post_init(hd_post_t *p, void (*on_post)(hd_post_t *p))
{
    hd_list_init(&p->_link);
    p->on_post = on_post;
}

static void add_post(hd_link_t *list, hd_post_t *p)
{
    if (hd_list_is_empty(&p->_link)) /* not on any list */
        hd_list_add_last(list, &p->_link);
}

void hd_post(hd_loop_t *loop, hd_post_t *p)
{
    add_post(&loop->posted, p);
}

void hd_post_next(hd_loop_t *loop, hd_post_t *p)
{
    add_post(&loop->next, p);
}

void hd_loop_flush_later(hd_loop_t *loop, hd_post_t *p)
{
    add_post(&loop->flushed, p);
}

void hd_post_cancel(hd_post_t *p)
{
    hd_list_remove(&p->_link);
}

/* What was posted for this turn, behind what is posted already. */
static void take_next(hd_loop_t *loop)
{
    while (!hd_list_is_empty(&loop->next)) {
        hd_link_t *link = loop->next.next;

        hd_list_remove(link);
        hd_list_add_last(&loop->posted, link);
    }
}

static void run_posts(hd_loop_t *loop, hd_link_t *list)
{
    for (unsigned n = 0; n < HD_LOOP_POSTED_MAX && !hd_list_is_empty(list); n++) {
        hd_post_t *p = hd_list_entry(list->next, hd_post_t, _link);

        hd_list_remove(&p->_link);
        loop->stats.posted++;
        p->on_post(p);
    }
}

/* Turns */

static int wait_for(hd_loop_t *loop, int wait_ms)
{
    uint64_t ns, ms;

    if (wait_ms == 0 || loop->has_output || !hd_list_is_empty(&loop->posted) ||
        !hd_list_is_empty(&loop->flushed) || !hd_list_is_empty(&loop->next))
        return 0;
    ns = hd_timers_wait_ns(loop);
    if (ns == UINT64_MAX)
        return wait_ms;
    ms = ns / NS_PER_MS + (ns % NS_PER_MS != 0); /* never early: it would spin */
    if (wait_ms >= 0 && ms > (uint64_t)wait_ms)
        return wait_ms;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

static void flush(hd_loop_t *loop)
{
    do {
        run_posts(loop, &loop->flushed);
        loop->has_output = false;
        if (loop->flush_conns != NULL)
            loop->flush_conns(loop);
    } while (loop->has_output);
}

void hd_loop_turn(hd_loop_t *loop, int wait_ms)
{
    int n =
        epoll_wait(loop->epoll_fd, loop->events, HD_LOOP_EVENTS, wait_for(loop, wait_ms));
    uint64_t took_ns;

    hd_bug_on(n < 0 && errno != EINTR);
    if (loop->member != NULL)
        hd_turn_begin(loop->member);
    read_clocks(loop);
    take_next(loop);
    run_events(loop, n);
    hd_timers_run(loop);
    run_posts(loop, &loop->posted);
    flush(loop);
    if (loop->reap_conns != NULL)
        loop->reap_conns(loop);
    loop->stats.turns++;
    took_ns = loop->mono_ns() - loop->now_ns;
    loop->stats.turn_ns_max = hd_max(loop->stats.turn_ns_max, took_ns);
    if (loop->on_turn != NULL)
        loop->on_turn(loop, took_ns, n == HD_LOOP_EVENTS);
    if (loop->member != NULL)
        hd_turn_sleep(loop->member);
}

void hd_loop_run(hd_loop_t *loop)
{
    while (!loop->is_stopping)
        hd_loop_turn(loop, -1);
    loop->is_stopping = false;
}

void hd_loop_stop(hd_loop_t *loop)
{
    loop->is_stopping = true;
}

void hd_loop_take_stats(hd_loop_t *loop, hd_loop_stats_t *stats)
{
    *stats = loop->stats;
    loop->stats.turn_ns_max = 0;
}
