#include "core/loom/hd_loom_debug.h"

#ifdef HD_DEBUG
#include <signal.h>

static _Thread_local uint64_t steps, kill_step, call_step;
static _Thread_local void (*call)(void *arg);
static _Thread_local void *call_arg;

void hd_loom_kill_at(uint64_t n)
{
    kill_step = n == 0 ? 0 : steps + n;
}

void hd_loom_call_at(uint64_t n, void (*fn)(void *arg), void *arg)
{
    call_step = n == 0 ? 0 : steps + n;
    call = fn;
    call_arg = arg;
}

uint64_t hd_loom_steps(void)
{
    return steps;
}

void hd_loom_step(void)
{
    if (++steps == kill_step)
        raise(SIGKILL);
    if (steps == call_step) {
        call_step = 0; /* its own steps call nobody */
        call(call_arg);
    }
}
#else
typedef int hd_loom_debug_unused_t; /* a file is never empty */
#endif
