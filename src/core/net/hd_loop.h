/* hd_loop: one event loop: descriptors, timers, posted events, turns.
 *
 *   turn: hd_turn_begin -> ready descriptors -> due timers -> posted events (until none;
 * new ones of this turn included) -> flush of conns with output -> hd_turn_sleep ->
 * epoll_wait
 *
 * Whatever one turn does is bounded, so that nobody waits behind others for long: so many
 * descriptors (HD_LOOP_EVENTS, those that were ready for longest), timers and posted
 * events; what is left is the next turn's, which doesn't wait. Who has more to do than a
 * turn's share posts himself by hd_post_next.
 *
 * Time is read once a turn. Everything here belongs to the loop's own thread.
 */
#pragma once
#include "core/base/hd_list.h"
#include "core/loom/hd_member.h"

typedef struct hd_loop_s hd_loop_t;

/* <member> may be NULL (a loop without shared memory: tests, tools). */
hd_loop_t *hd_loop_create(hd_member_t *member, size_t watches_max,
                          hd_err_t *err) HD_MUST_CHECK;
void hd_loop_destroy(hd_loop_t *loop);
void hd_loop_run(hd_loop_t *loop); /* until hd_loop_stop */
/* One turn; waits at most <wait_ms> (-1: until an event). */
void hd_loop_turn(hd_loop_t *loop, int wait_ms);
void hd_loop_stop(hd_loop_t *loop);
hd_member_t *hd_loop_member(const hd_loop_t *loop);
/* For tests: where monotonic time comes from. Takes effect at once. */
void hd_loop_set_clock(hd_loop_t *loop, uint64_t (*mono_ns)(void));
uint64_t hd_loop_now_ns(const hd_loop_t *loop); /* monotonic, of this turn */
int64_t hd_loop_wall_ns(const hd_loop_t *loop); /* wall clock, of this turn */

/* --- descriptors --- */
enum { HD_EV_READ = 1, HD_EV_WRITE = 2, HD_EV_HUP = 4, HD_EV_ERR = 8 };

typedef struct hd_watch_s {
    int fd;
    uint32_t _index;
    void (*on_ready)(struct hd_watch_s *w, unsigned events); /* HD_EV_… */
} hd_watch_t;

/* Registers for reading and writing, edge-triggered, once. The watch is embedded in its
 * owner. HD_ERROR: table full or epoll refused; <err>. */
hd_rc_t hd_watch_start(hd_loop_t *loop, hd_watch_t *w, int fd,
                       void (*on_ready)(hd_watch_t *w, unsigned events),
                       hd_err_t *err) HD_MUST_CHECK;
/* Level-triggered and read-only: for listening sockets (<exclusive>: EPOLLEXCLUSIVE, for
 * one that several processes share). */
hd_rc_t hd_watch_start_listen(hd_loop_t *loop, hd_watch_t *w, int fd, bool exclusive,
                              void (*on_ready)(hd_watch_t *w, unsigned events),
                              hd_err_t *err) HD_MUST_CHECK;
/* No event of <w> comes after this returns, not even one already fetched in this turn.
 * The fd is the caller's to close. Harmless when not started. */
void hd_watch_stop(hd_loop_t *loop, hd_watch_t *w);
/* The same, and closes the fd: without a system call to deregister it. */
void hd_watch_close(hd_loop_t *loop, hd_watch_t *w);
static inline void hd_watch_init(hd_watch_t *w)
{
    *w = (hd_watch_t){.fd = -1, ._index = UINT32_MAX, .on_ready = NULL};
}

/* --- timers --- */
#define HD_LOOP_TIMERS_MAX 4096 /* in one turn */
typedef struct hd_timer_s {
    uint64_t at_ns; /* when it is due; UINT64_MAX: not set */
    uint32_t _heap_at;
    void (*on_due)(struct hd_timer_s *t);
} hd_timer_t;

void hd_timer_init(hd_timer_t *t, void (*on_due)(hd_timer_t *t));
/* Due <after_ms> from this turn's time. Moving it later is O(1) (the heap learns of it
 * when the old time comes), so that idle time-outs may be pushed on for every request. */
void hd_timer_set(hd_loop_t *loop, hd_timer_t *t, uint64_t after_ms);
void hd_timer_stop(hd_loop_t *loop, hd_timer_t *t);
static inline bool hd_timer_is_set(const hd_timer_t *t)
{
    return t->at_ns != UINT64_MAX;
}

/* --- posted events --- */
typedef struct hd_post_s {
    hd_link_t _link;
    void (*on_post)(struct hd_post_s *p);
} hd_post_t;

void hd_post_init(hd_post_t *p, void (*on_post)(hd_post_t *p));
#define HD_LOOP_POSTED_MAX 4096 /* of a turn */
/* Runs in this turn or the next; once, however often it is posted before it ran. */
void hd_post(hd_loop_t *loop, hd_post_t *p);
/* Not before the next turn, after what is ready then: what is left when one has had its
 * share of this turn. Where it is posted already that stays. */
void hd_post_next(hd_loop_t *loop, hd_post_t *p);
void hd_post_cancel(hd_post_t *p);

/* --- output --- */
/* Runs after the posted events of this turn, before conns are flushed: a codec that
 * gathers (HTTP/2) makes its frames here. hd_post_cancel takes it back. */
void hd_loop_flush_later(hd_loop_t *loop, hd_post_t *p);

/* Rings: an eventfd by which another process wakes the loop (one a batch). */
hd_rc_t hd_loop_set_ring(hd_loop_t *loop, int eventfd, void (*on_ring)(void *arg),
                         void *arg, hd_err_t *err) HD_MUST_CHECK;

typedef struct {
    uint64_t turns, events, posted, timers_due;
    uint64_t turn_ns_max; /* the longest turn since last read: the loop's lag */
} hd_loop_stats_t;
void hd_loop_take_stats(hd_loop_t *loop, hd_loop_stats_t *stats);
