/* hd_ping: a multiplexed conn asks its peer for a sign of life each so often (HTTP/2's
 * PING, weft's); who doesn't give it in time is dead. */
#pragma once
#include "core/net/hd_loop.h"

typedef struct hd_ping_s hd_ping_t;

struct hd_ping_s {
    hd_timer_t timer;
    hd_loop_t *loop;
    uint64_t every_ms, timeout_ms;
    bool waits; /* for the answer */
    /* Time to ask; <is_dead>: it wasn't answered. */
    void (*on_due)(hd_ping_t *p, bool is_dead);
};

void hd_ping_init(hd_ping_t *p, hd_loop_t *loop,
                  void (*on_due)(hd_ping_t *p, bool is_dead));
/* <every_ms> 0: never. */
void hd_ping_start(hd_ping_t *p, uint64_t every_ms, uint64_t timeout_ms);
/* An answer came; harmless where none was awaited. */
void hd_ping_answered(hd_ping_t *p);
void hd_ping_stop(hd_ping_t *p); /* with its conn */
