#include "core/loom/hd_loom_debug.h"

#ifdef HD_DEBUG
#include <signal.h>

static _Thread_local uint64_t steps, kill_step;

void hd_loom_kill_at(uint64_t n)
{
    kill_step = n == 0 ? 0 : steps + n;
}

uint64_t hd_loom_steps(void)
{
    return steps;
}

void hd_loom_step(void)
{
    if (++steps == kill_step)
        raise(SIGKILL);
}
#else
typedef int hd_loom_debug_unused_t; /* a file is never empty */
#endif
