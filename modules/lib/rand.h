/* rand: numbers for percentages and jitter, seeded for each process; not for secrets. */
#pragma once
#include "hd_module.h"
#include <sys/random.h>

__attribute__((unused)) static uint64_t rand_next(void)
{
    static _Thread_local uint64_t x;

    if (x == 0 && getrandom(&x, sizeof(x), GRND_NONBLOCK) != (ssize_t)sizeof(x))
        x = (uint64_t)(uintptr_t)&x; /* no entropy yet: as the addresses fell */
    x |= x == 0;
    x ^= x << 13; /* xorshift64 (Marsaglia, 2003) */
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}
