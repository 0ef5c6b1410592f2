/* core/loom: a reader's turn begins at every store of a writer, a healer runs at every
 * store of a step, a step at every one of a healer. */
#include "core/loom/hd_gauge.h"
#include "core/loom/hd_arena_int.h"
#include "loom_test.h"

#include <pthread.h>
#include <semaphore.h>

#ifndef HD_DEBUG
int main(void)
{
    printf("1..0 # SKIP stores are steps in debug builds (--with-debug)\n");
    return 0;
}
#else

#define SLOTS 3

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *writer, *reader;
static hd_slot_t *slots[SLOTS];
static const hd_region_t *seen[SLOTS];
static bool begun;

static void setup(void)
{
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, 4 << 20);
    writer = hd_member_start(state, -1, HD_MEMBER_LOADER, &loom_err);
    reader = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    if (hd_arena_open_writer(arena, writer, &loom_err) != HD_OK)
        printf("Bail out! %s\n", loom_err.text);
    hd_member_add_arena(reader, arena);
}

static void teardown(void)
{
    hd_member_stop(reader);
    hd_member_stop(writer);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

static void begin_turn(void *arg)
{
    (void)arg;
    begun = true;
    hd_turn_begin(reader);
    for (int i = 0; i < SLOTS; i++)
        seen[i] = hd_slot_get(reader, slots[i]);
}

static void publish_all(uint32_t seed)
{
    hd_batch_t *b = hd_batch_begin(arena);

    for (uint32_t i = 0; i < SLOTS; i++) {
        char name[8] = {(char)('a' + i), '\0'};

        slots[i] = hd_slot_find_or_add(arena, (hd_res_type_t)(HD_RES_SECRET + i),
                                       hd_str_c(name), &loom_err);
        if (seed % 5 == 4 && i == 1)
            hd_batch_remove(b, slots[i]);
        else if (loom_put_in(b, slots[i], seed + i, 4, true) != HD_OK)
            diag("%s", loom_err.text);
    }
    hd_batch_publish(b, 1);
    hd_arena_reclaim(arena, 1);
}

static void test_reader_in_writer(void)
{
    uint32_t seed = 1;
    uint64_t n = 0;
    bool good = true;

    setup();
    publish_all(seed);
    do {
        begun = false;
        hd_loom_call_at(++n, begin_turn, NULL);
        publish_all(++seed);
        hd_loom_call_at(0, NULL, NULL);
        if (!begun)
            break;
        publish_all(++seed); /* and once more while the turn lasts */
        for (int i = 0; i < SLOTS; i++)
            good = good && (seen[i] == NULL || loom_is_whole(seen[i]));
        hd_turn_sleep(reader);
        good = good && hd_arena_reclaim(arena, 1) == 0;
    } while (good);
    ok(good && n > 50, "what a turn begun at any of %lu stores read stays until its end",
       (long)n - 1);
    teardown();
}

/* A reader that finds a name by itself, and holds what it found. */

static hd_slot_t *found, *held;

static void find_and_hold(void *arg)
{
    hd_str_t name = HD_STR("comes and goes");

    (void)arg;
    begun = true;
    hd_turn_begin(reader);
    found = hd_slot_find(reader, arena, HD_RES_CLUSTER, name);
    if (found != NULL && !hd_str_eq(found->name, name))
        diag("another's name");
    held = found;
    if (held != NULL)
        hd_slot_hold(reader, held);
}

static bool goes(hd_str_t name)
{
    hd_batch_t *b = hd_batch_begin(arena);

    hd_batch_remove(b, hd_slot_find_or_add(arena, HD_RES_CLUSTER, name, &loom_err));
    hd_batch_publish(b, 1);
    for (int i = 0; i < 6; i++)
        hd_ignore(hd_arena_reclaim(arena, 1) == 0);
    return hd_slots_used(arena) == SLOTS;
}

static bool comes(hd_str_t name)
{
    hd_batch_t *b = hd_batch_begin(arena);
    bool good = loom_put(b, arena, HD_RES_CLUSTER, name.data, 1, 3) == HD_OK;

    hd_batch_publish(b, 1);
    return good;
}

/* While it is held, and the turn lasts, the slot is nobody else's; afterwards it goes. */
static bool held_slot_stays(hd_str_t name)
{
    bool good;

    for (int i = 0; i < 6; i++)
        hd_ignore(hd_arena_reclaim(arena, 1) == 0);
    good = comes(HD_STR("another")) && hd_str_eq(held->name, name) &&
           hd_slot_state(held) != HD_SLOT_LIVE;
    hd_turn_sleep(reader);
    for (int i = 0; i < 6; i++)
        hd_ignore(hd_arena_reclaim(arena, 1) == 0);
    good = good && hd_str_eq(held->name, name);
    good = good && comes(name) && hd_slot_state(held) == HD_SLOT_LIVE;
    hd_slot_let_go(reader, held);
    return good && !goes(name) && goes(HD_STR("another"));
}

static void test_holder_in_writer(void)
{
    hd_str_t name = HD_STR("comes and goes");
    uint64_t n = 0;
    bool good = true;

    setup();
    publish_all(1);
    do {
        begun = false;
        held = NULL;
        good = comes(name);
        hd_loom_call_at(++n, find_and_hold, NULL);
        good &= goes(name) || held != NULL || begun;
        hd_loom_call_at(0, NULL, NULL);
        if (held != NULL)
            good = good && held_slot_stays(name);
        else if (begun)
            hd_turn_sleep(reader);
        good = good && goes(name);
    } while (good && begun);
    ok(good && n > 15, "a name found and held at any of %lu stores stays until it is let go",
       (long)n - 1);
    teardown();
}

/* Gauges */

static hd_gauge_id_t gauge;
static size_t healed;

static void heal(void *arg)
{
    (void)arg;
    begun = true;
    healed += hd_gauge_heal(writer);
}

static void step(void *up)
{
    if (up == NULL)
        hd_gauge_down(reader, gauge);
    else if (!hd_gauge_try_up(reader, gauge, 100))
        diag("refused");
}

static void step_in_between(void *up)
{
    begun = true;
    step(up);
}

static bool is_even(void)
{
    return hd_gauge_read(writer, gauge) == hd_gauge_sum(state, gauge);
}

static void test_healer_in_step(void)
{
    bool good = true;
    uint64_t n = 0;

    setup();
    gauge = hd_gauge_get(writer, HD_STR("g"), 1);
    hd_gauge_share(writer, gauge, true);
    do {
        begun = false;
        hd_loom_call_at(++n, heal, NULL);
        step(&gauge);
        step(&gauge);
        step(NULL);
        good = good && is_even();
    } while (good && begun);
    hd_loom_call_at(0, NULL, NULL);
    ok(good && n > 8 && healed == 0,
       "a healer at any of %lu stores of a step heals nothing", (long)n - 1);
    while (hd_gauge_sum(state, gauge) > 0)
        hd_gauge_down(reader, gauge);
    teardown();
}

/* A difference as a death leaves it: the total one too high. */
static void make_lost_step(void)
{
    atomic_fetch_add(&state->totals[gauge].word, 1);
}

static void test_step_in_healer(void)
{
    bool good = true;

    setup();
    gauge = hd_gauge_get(writer, HD_STR("g"), 1);
    hd_gauge_share(writer, gauge, true);
    hd_gauge_up(reader, gauge);
    for (uint64_t n = 1; n < 5 && good; n++) {
        for (int up = 0; up < 2; up++) {
            make_lost_step();
            begun = false;
            hd_loom_call_at(n, step_in_between, up ? &gauge : NULL);
            hd_gauge_heal(writer);
            hd_loom_call_at(0, NULL, NULL);
            if (!begun)
                step(up ? &gauge : NULL);
            hd_gauge_heal(writer);
            good = good && is_even(); /* down to 0, then up to 1 again */
        }
        good = good && hd_gauge_sum(state, gauge) == 1;
    }
    ok(good, "a step at any store of a healer is not lost");
    hd_gauge_down(reader, gauge);
    teardown();
}

/* A step that waits for a CPU at its <k>-th store, goes on while a healer is at its
 * <j>-th, and waits again <l> stores later until the healer has finished. It must neither
 * be healed away nor heal twice. */

typedef struct {
    uint64_t k, l;
    bool up, is_done;
    pthread_t thread;
} stepper_t;

static sem_t stopped, go;

static void stop_here(void *arg)
{
    stepper_t *s = arg;

    if (s->l != 0)
        hd_loom_call_at(s->l, stop_here, s);
    s->l = 0;
    sem_post(&stopped);
    sem_wait(&go);
}

static void *stepper(void *arg)
{
    stepper_t *s = arg;

    hd_loom_call_at(s->k, stop_here, s);
    step(s->up ? &gauge : NULL);
    hd_loom_call_at(0, NULL, NULL);
    s->is_done = true;
    sem_post(&stopped);
    return NULL;
}

static void go_on(void *arg)
{
    stepper_t *s = arg;

    begun = true;
    if (s->is_done)
        return;
    sem_post(&go);
    sem_wait(&stopped);
}

static bool overlaps_well(uint64_t k, uint64_t l, uint64_t j, bool up, bool lost)
{
    uint32_t before = hd_gauge_sum(state, gauge);
    stepper_t s = {.k = k, .l = l, .up = up};

    if (lost)
        make_lost_step();
    begun = false;
    pthread_create(&s.thread, NULL, stepper, &s);
    sem_wait(&stopped);
    hd_loom_call_at(j, go_on, &s);
    hd_gauge_heal(writer);
    hd_loom_call_at(0, NULL, NULL);
    while (!s.is_done)
        go_on(&s);
    pthread_join(s.thread, NULL);
    if (hd_gauge_read(writer, gauge) < hd_gauge_sum(state, gauge))
        return false; /* too low: a limit could be overshot */
    hd_gauge_heal(writer);
    return is_even() && hd_gauge_sum(state, gauge) == (up ? before + 1 : before - 1);
}

static void test_overlap(void)
{
    bool good = true;
    int n = 0;

    setup();
    sem_init(&stopped, 0, 0);
    sem_init(&go, 0, 0);
    gauge = hd_gauge_get(writer, HD_STR("g"), 1);
    hd_gauge_share(writer, gauge, true);
    hd_gauge_up(reader, gauge);
    for (uint64_t k = 1; k <= 5 && good; k++)
        for (uint64_t l = 0; l <= 4 && good; l++)
            for (uint64_t j = 1; j <= 4 && good; j++)
                for (int lost = 0; lost < 2 && good; lost++, n += 2)
                    good = overlaps_well(k, l, j, true, lost) &&
                           overlaps_well(k, l, j, false, lost);
    ok(good, "a step that waits at any store while a healer works stays one step (%d)",
       n);
    hd_gauge_down(reader, gauge);
    teardown();
}

int main(void)
{
    test_overlap();
    test_reader_in_writer();
    test_holder_in_writer();
    test_healer_in_step();
    test_step_in_healer();
    return done_testing();
}
#endif
