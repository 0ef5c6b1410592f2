/* hd_loop_int: what only core/net may see of a loop. */
#pragma once
#include "core/net/hd_loop.h"
#include <sys/epoll.h>

#define HD_LOOP_EVENTS 512 /* fetched by one epoll_wait */

/* Where a descriptor's events go. The generation goes up when the watch is stopped, and
 * travels with each event: one fetched before is then of no one. */
typedef struct {
    hd_watch_t *watch; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
} hd_watch_slot_t;

typedef struct {
    uint64_t at_ns; /* not after timer->at_ns */
    hd_timer_t *timer;
} hd_heap_item_t;

struct hd_loop_s {
    hd_member_t *member;
    int epoll_fd;
    bool is_stopping;
    bool has_output; /* conns are to be flushed: don't wait */

    hd_watch_slot_t *slots;
    uint32_t slots_n, slots_used, slots_max; /* used: ever; those behind are untouched */
    uint32_t free_slot;

    hd_heap_item_t *heap; /* 4-ary: children of i at 4i+1 … 4i+4 */
    uint32_t heap_n, heap_room;

    hd_link_t posted, flushed;
    hd_link_t next; /* posted for the next turn */

    uint64_t (*mono_ns)(void);
    uint64_t now_ns;
    int64_t wall_ns;

    hd_watch_t ring;
    void (*on_ring)(void *arg);
    void *ring_arg;

    /* Set by hd_conn_set when the first conn is made. */
    struct hd_conn_set_s *conns;
    void (*flush_conns)(hd_loop_t *loop);
    void (*reap_conns)(hd_loop_t *loop);
    void (*destroy_conns)(hd_loop_t *loop);
    struct hd_acceptor_s *acceptor;
    /* At the end of each turn; NULL: nobody asks. <is_full>: more may be ready than was
     * fetched. */
    void (*on_turn)(hd_loop_t *loop, uint64_t took_ns, bool is_full);

    hd_loop_stats_t stats;
    struct epoll_event events[HD_LOOP_EVENTS];
};

/* hd_timer.c */
void hd_timers_run(hd_loop_t *loop);
/* Until the first one may be due; UINT64_MAX: none is set. */
uint64_t hd_timers_wait_ns(const hd_loop_t *loop);

/* Memory for the net's own tables; exhausted memory ends the process. */
void *hd_net_realloc(void *old, size_t bytes);
