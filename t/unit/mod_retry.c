/* modules/retry: how long it waits before a try: anywhere below a bound that doubles from
 * base to max, so that clients which failed together don't come back together (VS-RETRY-6). */
#include "modules/retry/retry.c"
#include "tap.h"

#define DRAWS 20000

/* Of many waits: all are below <bound>, and they are spread over all of it. */
static void waits_below(const retry_conf_t *rc, uint32_t attempt, uint64_t bound)
{
    uint64_t least = UINT64_MAX, most = 0, sum = 0;

    for (int i = 0; i < DRAWS; i++) {
        uint64_t ms = wait_before(rc, attempt);

        least = hd_min(least, ms);
        most = hd_max(most, ms);
        sum += ms;
    }
    ok(most < bound, "before try %u: below %d ms", attempt + 1, (int)bound);
    ok(least < bound / 50 && most >= bound - bound / 50, "and all over it");
    ok(sum / DRAWS > bound * 45 / 100 && sum / DRAWS < bound * 55 / 100, "evenly");
}

int main(void)
{
    retry_conf_t rc = {.base_ms = 100, .max_ms = 1000}, even = {.base_ms = 1, .max_ms = 1};
    static const uint64_t bounds[] = {100, 200, 400, 800, 1000, 1000};

    for (uint32_t i = 0; i < hd_countof(bounds); i++)
        waits_below(&rc, i + 1, bounds[i]);
    waits_below(&rc, 100, 1000);
    ok(wait_before(&even, 1) == 0, "a bound of 1 ms is no wait");
    return done_testing();
}
