/* modules/limit_conn: at every step of a worker that brings a new key another brings it, too,
 * or a third key, and at every step of that one a third worker; or a worker dies there. A
 * key has one place, so its limit is never overshot. */
#include "hd_module.h"
#include "loom_test.h"
#include <setjmp.h>
#include <stdatomic.h>

static void step(void);

static uint64_t load(const _Atomic uint64_t *p)
{
    step();
    return atomic_load(p);
}

static bool swap(_Atomic uint64_t *p, uint64_t *old, uint64_t new)
{
    step();
    return atomic_compare_exchange_strong(p, old, new);
}

/* The code itself, with a step before each look at shared memory. */
#undef atomic_load
#undef atomic_compare_exchange_strong
#define atomic_load(p) load(p)
#define atomic_compare_exchange_strong(p, old, new) swap(p, old, new)
#include "modules/limit_conn/limit_conn.c"

enum { WORKERS = 3, KEYS_N = WAYS, DEATHS_MAX = 1000 };

static hd_state_t *state;
static hd_member_t *workers[WORKERS];
static table_t *table;
static hd_pool_t *pool; /* whose end gives all places back */
static zone_t zone;
static limit_t limit = {.use = {.zone = &zone.base}, .max = 1};
static int at[WORKERS];         /* at which step of each the next one comes; -1: never */
static int steps[WORKERS], depth; /* taken so far; which of them runs */
static unsigned entered;
static bool dies;
static jmp_buf death;
static hd_member_t *dead[DEATHS_MAX];
static hd_pool_t *dead_pools[DEATHS_MAX];

static void enter(void)
{
    entered += try_enter(workers[depth], pool, &limit, HD_STR("key"));
}

static void step(void)
{
    if (depth >= WORKERS - 1 || steps[depth]++ != at[depth])
        return;
    if (dies)
        longjmp(death, 1);
    depth++;
    enter();
    depth--;
}

static void forget(void)
{
    memset((void *)table->keys, 0, KEYS_N * sizeof(table->keys[0]));
}

static void begin(int first, int second)
{
    memset(steps, 0, sizeof(steps));
    at[0] = first;
    at[1] = second;
    at[2] = -1;
    depth = 0;
    entered = 0;
    pool = hd_pool_create(0);
}

static unsigned in_use(void)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < KEYS_N; i++)
        n += hd_gauge_sum(state, table->gauges + i);
    return n;
}

static void test_together(void)
{
    unsigned ways = 0, wrong = 0, left = 0;
    bool was_last = false;

    for (int i = 0; !was_last; i++) {
        bool was_last_of = false;

        for (int k = 0; !was_last_of; k++) {
            forget();
            begin(i, k);
            enter();
            ways++;
            wrong += entered != 1 || in_use() != 1;
            hd_pool_destroy(pool);
            left += in_use();
            was_last_of = steps[1] <= k;
            was_last = steps[0] <= i;
        }
    }
    ok(ways > 100, "one within the other in %u ways", ways);
    is_int(wrong, 0, "one of them is in");
    is_int(left, 0, "and leaves");
}

static void test_death(void)
{
    volatile unsigned wrong = 0, deaths = 0;
    volatile bool was_last = false;

    for (volatile int i = 0; !was_last; i++) {
        forget();
        begin(i, -1);
        dies = true;
        if (setjmp(death) == 0) {
            enter();
            was_last = true;
        } else {
            deaths++;
        }
        dies = false;
        if (!was_last) { /* what the master does for it */
            int index = hd_member_index(workers[0]);

            hd_bug_on(deaths > DEATHS_MAX);
            dead[deaths - 1] = workers[0]; /* its private memory went with it */
            dead_pools[deaths - 1] = pool;
            hd_member_reap(state, index);
            workers[0] = hd_member_start(state, index, HD_MEMBER_WORKER, &loom_err);
        } else {
            hd_pool_destroy(pool);
        }
        begin(-1, -1);
        depth = 1;
        enter();
        enter();
        wrong += entered != 1;
        hd_pool_destroy(pool);
    }
    ok(deaths > 10, "a worker dies at each of its %u steps", deaths);
    is_int(wrong, 0, "others go on with the key");
}

int main(void)
{
    hd_arena_t *arena;
    hd_gauge_id_t first;
    hd_member_t *writer;

    state = loom_state();
    writer = hd_member_start(state, -1, HD_MEMBER_LOADER, &loom_err);
    arena = loom_arena(state, HD_ARENA_FILES, 4 << 20);
    hd_bug_on(hd_arena_open_writer(arena, writer, &loom_err) != HD_OK);
    for (int i = 0; i < WORKERS; i++)
        workers[i] = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    table = calloc(1, sizeof(*table) + KEYS_N * sizeof(table->keys[0]));
    first = hd_gauge_get(writer, HD_STR("keys"), KEYS_N);
    hd_bug_on(first == HD_GAUGE_NONE);
    for (uint32_t i = 0; i < KEYS_N; i++)
        hd_gauge_share(writer, first + i, true);
    table->seed = 12345;
    table->gauges = first;
    table->keys_n = KEYS_N;
    zone.table = table;
    test_together();
    test_death();
    for (int i = 0; i < WORKERS; i++)
        hd_member_stop(workers[i]);
    hd_member_stop(writer);
    hd_arena_destroy(arena);
    free(table);
    return done_testing();
}
