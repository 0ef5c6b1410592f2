/* hd_overload: what a worker still takes when it has more to do than it can.
 *
 * Two pressures, each against a limit of the configuration:
 *
 *   memory  pages of this process alone.  CALM --save--> SAVING --refuse--> REFUSING, and
 *           back some points lower. SAVING: idle conns end, those that were answered
 *           aren't kept, what was kept for its next use is given back. REFUSING: all new
 *           work is refused besides.
 *   lag     how long what is ready waits for the loop: the longest turn of each window of
 *           HD_OVERLOAD_WINDOW_MS. While it is above the limit, a growing share of new
 *           work is refused; once well below it, a shrinking one. A single slow turn
 *           does nothing.
 *
 * One loop of the process is watched. Without limits nothing is measured; with them a turn
 * costs a few comparisons, and the size of the process is read at most ten times a second.
 * Who begins something new reads hd_overload_now; no system call, no lock.
 */
#pragma once
#include "core/loom/hd_member.h"
#include "core/net/hd_loop.h"

#define HD_OVERLOAD_WINDOW_MS 100
#define HD_OVERLOAD_ALL 1000 /* shares are of this */

typedef struct {
    uint64_t memory_bytes; /* 0: no limit */
    uint32_t save_percent, refuse_percent;
    uint64_t lag_ms; /* 0: no limit */
} hd_overload_conf_t;

/* --- the controller: time and measures are arguments --- */

typedef enum {
    HD_MEMORY_CALM,
    HD_MEMORY_SAVING,
    HD_MEMORY_REFUSING
} hd_memory_level_t;

/* The level at <bytes>, coming from <was>. <conf> has a memory limit. */
hd_memory_level_t hd_overload_memory(const hd_overload_conf_t *conf,
                                     hd_memory_level_t was, uint64_t bytes);

/* Zeroed: at rest. */
typedef struct {
    uint32_t share;        /* of new work that is refused, of HD_OVERLOAD_ALL */
    uint32_t over_windows; /* in a row, up to two: the first alone is an accident */
} hd_lag_control_t;

/* The end of a window whose lag was <pressure> thousandths of the limit. */
void hd_overload_lag(hd_lag_control_t *lag, uint64_t pressure);

/* --- the process's --- */

typedef struct {
    uint32_t share;     /* of new work that is refused, of HD_OVERLOAD_ALL; 0: none */
    bool saves_memory;  /* conns aren't kept for another request */
    bool is_for_memory; /* that is why work is refused; else for lag */
} hd_overload_now_t;
extern hd_overload_now_t hd_overload_now; /* read only; of the loop's thread */

/* Whether this piece of new work is refused, by chance where it is a share; counted if so. */
bool hd_overload_refuses(void);

/* In a turn, at the start of a process that serves and again at each change: <conf> is in
 * force for <loop>; NULL: no limits. <worker_no> tells its figures from other workers'. */
void hd_overload_set(hd_loop_t *loop, const hd_overload_conf_t *conf, uint32_t worker_no);
void hd_overload_stop(void); /* before the loop goes */
