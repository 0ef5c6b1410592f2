#include "core/os/hd_clock.h"
#include <time.h>

static struct timespec read_clock(clockid_t id)
{
    struct timespec ts = {0, 0};

    (void)clock_gettime(id, &ts); /* can't fail for these two clocks */
    return ts;
}

uint64_t hd_clock_mono_ns(void)
{
    struct timespec ts = read_clock(CLOCK_MONOTONIC);

    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int64_t hd_clock_wall_ns(void)
{
    struct timespec ts = read_clock(CLOCK_REALTIME);

    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
