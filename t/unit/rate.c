/* The table of token buckets: nginx's excess, exact over threads, bounded, and the bucket
 * that is full first makes room. What comes between two steps: rate_interleave.c. */
#include "core/base/hd_rate.h"
#include "t/lib/tap.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { BYTES = HD_RATES_BYTES_MIN, THREADS = 4, KEYS = 7, BURST = 99 };

#define SECOND UINT64_C(1000000000)

static hd_rates_t *make(void)
{
    void *memory = aligned_alloc(64, BYTES);

    memset(memory, 0, BYTES);
    hd_rates_init(memory, 12345);
    return memory;
}

static void test_excess(void)
{
    hd_rates_t *t = make();
    hd_rate_conf_t two = {.token_ns = SECOND, .burst = 2};
    uint64_t excess = 77, now = 1000 * SECOND;
    hd_str_t k = HD_STR("k");

    ok(hd_rates_try_take(t, BYTES, k, &two, now, &excess) && excess == 0,
       "the first is no excess");
    ok(hd_rates_try_take(t, BYTES, k, &two, now, &excess) && excess == 1000, "one more");
    ok(hd_rates_try_take(t, BYTES, k, &two, now, &excess) && excess == 2000,
       "up to the burst");
    ok(!hd_rates_try_take(t, BYTES, k, &two, now, &excess) && excess == 3000, "too many");
    ok(!hd_rates_try_take(t, BYTES, k, &two, now + SECOND / 2, &excess) && excess == 2500,
       "too many after half the time");
    ok(hd_rates_try_take(t, BYTES, k, &two, now + SECOND, &excess) && excess == 2000,
       "one came back");
    ok(hd_rates_try_take(t, BYTES, HD_STR("other"), &two, now, &excess) && excess == 0,
       "another key has its own");
    hd_rates_give_back(t, BYTES, k, &two);
    ok(hd_rates_try_take(t, BYTES, k, &two, now + SECOND, &excess) && excess == 2000,
       "what is given back can be taken");
    ok(hd_rates_try_take(t, BYTES, k, &two, now + 100 * SECOND, &excess) && excess == 0,
       "full after a long time, and not more than full");
    free(t);
}

static void test_bound(void)
{
    hd_rates_t *t = make();
    hd_rate_conf_t one = {.token_ns = SECOND, .burst = 0};
    uint64_t excess, kept = 0, now = 5 * SECOND;
    char name[32];

    for (int i = 0; i < 100000; i++) {
        hd_str_t k = hd_str_n(name, (size_t)snprintf(name, sizeof(name), "%d", i));

        now += 64;
        hd_bug_on(!hd_rates_try_take(t, BYTES, k, &one, now, &excess));
    }
    for (int i = 99900; i < 100000; i++) {
        hd_str_t k = hd_str_n(name, (size_t)snprintf(name, sizeof(name), "%d", i));

        hd_rates_give_back(t, BYTES, HD_STR("none"), &one);
        kept += !hd_rates_try_take(t, BYTES, k, &one, now, &excess);
    }
    ok(kept == 100, "of many more keys than there is room for the newest are known");
    free(t);
}

static hd_rates_t *shared;
static _Atomic unsigned taken[KEYS];

static void *take_many(void *arg)
{
    hd_rate_conf_t rate = {.token_ns = 3600 * SECOND, .burst = BURST};
    uint64_t excess;

    (void)arg;
    for (int i = 0; i < KEYS * 500; i++) {
        char name[2] = {(char)('a' + i % KEYS), 0};

        if (hd_rates_try_take(shared, BYTES, hd_str_n(name, 1), &rate,
                              SECOND + (uint64_t)i, &excess))
            atomic_fetch_add(&taken[i % KEYS], 1);
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[THREADS];
    unsigned right = 0;

    shared = make();
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, take_many, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < KEYS; i++)
        right += taken[i] == BURST + 1;
    ok(right == KEYS, "threads together take exactly what there is");
    free(shared);
}

int main(void)
{
    test_excess();
    test_bound();
    test_threads();
    return done_testing();
}
