#include "core/net/hd_loop_int.h"
#include <stdlib.h>

#define NOT_SET UINT64_MAX
#define NS_PER_MS 1000000u

/* The heap: 4-ary, since a node's children share a cache line and there are half as many
 * levels to go through. An item's time is when the heap looks at its timer: not after the
 * timer's own, so that moving a timer later need not touch the heap. */

static void put_item(hd_loop_t *loop, uint32_t at, hd_heap_item_t item)
{
    loop->heap[at] = item;
    item.timer->_heap_at = at + 1;
}

static void sift_up(hd_loop_t *loop, uint32_t at, hd_heap_item_t item)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 4;

        if (loop->heap[parent].at_ns <= item.at_ns)
            break;
        put_item(loop, at, loop->heap[parent]);
        at = parent;
    }
    put_item(loop, at, item);
}

static uint32_t first_child(const hd_loop_t *loop, uint32_t at)
{
    uint64_t child = (uint64_t)at * 4 + 1;
    uint32_t best, end;

    if (child >= loop->heap_n)
        return UINT32_MAX;
    best = (uint32_t)child;
    end = (uint32_t)hd_min(child + 4, (uint64_t)loop->heap_n);
    for (uint32_t i = best + 1; i < end; i++) {
        if (loop->heap[i].at_ns < loop->heap[best].at_ns)
            best = i;
    }
    return best;
}

static void sift_down(hd_loop_t *loop, uint32_t at, hd_heap_item_t item)
{
    uint32_t child;

    while ((child = first_child(loop, at)) != UINT32_MAX) {
        if (item.at_ns <= loop->heap[child].at_ns)
            break;
        put_item(loop, at, loop->heap[child]);
        at = child;
    }
    put_item(loop, at, item);
}

static void push_item(hd_loop_t *loop, hd_heap_item_t item)
{
    if (loop->heap_n == loop->heap_room) {
        loop->heap_room = loop->heap_room == 0 ? 64 : loop->heap_room * 2;
        loop->heap = hd_net_realloc(loop->heap, sizeof(item) * loop->heap_room);
    }
    sift_up(loop, loop->heap_n++, item);
}

static void remove_item(hd_loop_t *loop, uint32_t at)
{
    hd_heap_item_t last = loop->heap[--loop->heap_n];

    loop->heap[at].timer->_heap_at = 0;
    if (at == loop->heap_n)
        return;
    if (at > 0 && last.at_ns < loop->heap[(at - 1) / 4].at_ns)
        sift_up(loop, at, last);
    else
        sift_down(loop, at, last);
}

void hd_timer_init(hd_timer_t *t, void (*on_due)(hd_timer_t *t))
{
    *t = (hd_timer_t){.at_ns = NOT_SET, .on_due = on_due};
}

void hd_timer_set(hd_loop_t *loop, hd_timer_t *t, uint64_t after_ms)
{
    uint64_t most_ms = (NOT_SET - 1 - loop->now_ns) / NS_PER_MS;
    /* Never this turn's time itself: a timer that sets itself again would hold the turn.
     */
    uint64_t after_ns = after_ms == 0 ? 1 : hd_min(after_ms, most_ms) * NS_PER_MS;
    hd_heap_item_t item = {loop->now_ns + after_ns, t};

    t->at_ns = item.at_ns;
    if (t->_heap_at == 0)
        push_item(loop, item);
    else if (item.at_ns < loop->heap[t->_heap_at - 1].at_ns)
        sift_up(loop, t->_heap_at - 1, item);
}

void hd_timer_stop(hd_loop_t *loop, hd_timer_t *t)
{
    t->at_ns = NOT_SET;
    if (t->_heap_at != 0)
        remove_item(loop, t->_heap_at - 1);
}

void hd_timers_run(hd_loop_t *loop)
{
    unsigned n = 0;

    while (loop->heap_n > 0 && loop->heap[0].at_ns <= loop->now_ns &&
           n < HD_LOOP_TIMERS_MAX) {
        hd_timer_t *t = loop->heap[0].timer;

        if (t->at_ns > loop->heap[0].at_ns) { /* was moved later since */
            sift_down(loop, 0, (hd_heap_item_t){t->at_ns, t});
            continue;
        }
        remove_item(loop, 0);
        t->at_ns = NOT_SET;
        loop->stats.timers_due++;
        n++;
        t->on_due(t);
    }
}

uint64_t hd_timers_wait_ns(const hd_loop_t *loop)
{
    if (loop->heap_n == 0)
        return UINT64_MAX;
    return loop->heap[0].at_ns <= loop->now_ns ? 0 : loop->heap[0].at_ns - loop->now_ns;
}
