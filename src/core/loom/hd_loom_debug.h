/* hd_loom_debug: death placed, not hoped for. In debug builds every store into the loom
 * and the state arena passes a step first; a test has the process killed at the n-th. In
 * other builds there are no steps. */
#pragma once
#include <stdint.h>

#ifdef HD_DEBUG
/* SIGKILL for this thread's process before its <n>-th step from now; 0: never. */
void hd_loom_kill_at(uint64_t n);
/* Calls <fn> before its <n>-th step from now, as if another had run just there. */
void hd_loom_call_at(uint64_t n, void (*fn)(void *arg), void *arg);
/* Steps of this thread so far. */
uint64_t hd_loom_steps(void);

void hd_loom_step(void);
#else
#define hd_loom_step() ((void)0)
#endif
