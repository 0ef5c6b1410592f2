/* core/base/hd_rate: at every step of one that brings a new key another brings it, too, and
 * at every step of that one a third; or a worker dies there. The key has one bucket: its
 * tokens are taken once. */
#include "core/base/hd_hashes.h"
#include "core/base/hd_rate.h"
#include "t/lib/tap.h"
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>

static void step(void);

static uint64_t load(const _Atomic uint64_t *p)
{
    step();
    return atomic_load(p);
}

static bool exchange(_Atomic uint64_t *p, uint64_t *old, uint64_t new)
{
    step();
    return atomic_compare_exchange_strong(p, old, new);
}

/* The code itself, with a step before each look at shared memory. */
#undef atomic_load
#undef atomic_load_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#define atomic_load(p) load(p)
#define atomic_load_explicit(p, order) load(p)
#define atomic_compare_exchange_strong(p, old, new) exchange(p, old, new)
#define atomic_compare_exchange_weak(p, old, new) exchange(p, old, new)
#include "core/base/hd_rate.c"

enum { BYTES = HD_RATES_BYTES_MIN, DEPTH = 3 };

#define HOUR UINT64_C(3600000000000)

static hd_rates_t *table;
static int at[DEPTH];         /* at which step of each the next one comes; -1: never */
static int steps[DEPTH], depth; /* taken so far; which of them runs */
static unsigned taken;
static bool dies;
static jmp_buf death;

static void take(uint32_t burst)
{
    hd_rate_conf_t rate = {.token_ns = HOUR, .burst = burst};
    uint64_t excess;

    taken += hd_rates_try_take(table, BYTES, HD_STR("key"), &rate, 1000 * HOUR, &excess);
}

static void step(void)
{
    if (depth >= DEPTH || steps[depth]++ != at[depth])
        return;
    if (dies)
        longjmp(death, 1);
    depth++;
    take(0);
    depth--;
}

static void begin(void)
{
    depth = DEPTH; /* no steps of its own */
    memset(table, 0, BYTES);
    hd_rates_init(table, 12345);
    memset(steps, 0, sizeof(steps));
    depth = 0;
    taken = 0;
}

static void test_together(void)
{
    unsigned ways = 0, wrong = 0;
    bool was_last = false;

    for (int i = 0; !was_last; i++) {
        bool was_last_of = false;

        for (int k = 0; !was_last_of; k++) {
            at[0] = i;
            at[1] = k;
            at[2] = -1;
            begin();
            take(0);
            ways++;
            wrong += taken != 1;
            was_last_of = steps[1] <= k;
            was_last = steps[0] <= i;
        }
    }
    ok(ways > 100, "one within the other in %u ways", ways);
    is_int(wrong, 0, "one of them has the token");
}

static void test_death(void)
{
    volatile unsigned wrong = 0, deaths = 0;
    volatile bool was_last = false;

    for (volatile int i = 0; !was_last; i++) {
        at[0] = i;
        at[1] = at[2] = -1;
        begin();
        dies = true;
        if (setjmp(death) == 0) {
            take(1);
            was_last = true;
        } else {
            deaths++;
        }
        dies = false;
        at[0] = -1;
        taken = 0;
        for (int k = 0; k < 5; k++)
            take(1);
        wrong += taken < 1 || taken > 2; /* the dead one may have had the other */
    }
    ok(deaths > 10, "a worker dies at each of its %u steps", deaths);
    is_int(wrong, 0, "others go on, with one bucket");
}

int main(void)
{
    table = aligned_alloc(64, BYTES);
    test_together();
    test_death();
    free(table);
    return done_testing();
}
