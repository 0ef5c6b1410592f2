/* core/loom: death at every store, of a writer, a worker and a reaper. After each, what
 * the design promises holds: every version that can be read is whole, no region and no
 * page is lost, gauges come back to 0, counters say what was counted. */
#include "core/loom/hd_arena_int.h"
#include "core/loom/hd_gauge.h"
#include "core/loom/hd_series.h"
#include "core/os/hd_os.h"
#include "loom_test.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef HD_DEBUG
int main(void)
{
    printf("1..0 # SKIP deaths are placed in debug builds (--with-debug)\n");
    return 0;
}
#else

#define STEPS_MAX 100000

/* Forks are dear under a sanitizer: every so-manieth store there. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STRIDE 11
#else
#define STRIDE 1
#endif

static hd_state_t *state;
static hd_arena_t *arena;

typedef enum { KILLED, DONE, FAILED } end_t;

/* Runs <fn> in a process that dies at its <n>-th step; 0: never. */
static end_t run(int (*fn)(uint64_t), uint64_t n)
{
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(fn(n));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return FAILED;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return KILLED;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? DONE : FAILED;
}

#define MUST(cond)                                                                       \
    do {                                                                                 \
        if (!(cond)) {                                                                   \
            diag("%s:%d: %s %s", __FILE__, __LINE__, #cond, loom_err.text);              \
            return 1;                                                                    \
        }                                                                                \
    } while (0)

/* The writer */

#define WRITER_ROW 0

static void put_some(hd_batch_t *b, uint32_t seed, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        char name[32];
        hd_res_type_t type = (hd_res_type_t)(HD_RES_SECRET + i % 5);

        snprintf(name, sizeof(name), "resource-%u", i);
        if (loom_put(b, arena, type, name, seed + i, i % 9 * 6) != HD_OK)
            diag("%s", loom_err.text);
    }
}

/* Everything a writer does: builds, publishes, removes, drops, grows the index of names,
 * reclaims, makes and drops gauges and cells. */
static int writer_life(uint64_t n)
{
    hd_member_t *m = hd_member_start(state, WRITER_ROW, HD_MEMBER_LOADER, &loom_err);
    hd_batch_t *b;
    hd_slot_t *slot;

    MUST(m != NULL);
    hd_loom_kill_at(n);
    MUST(hd_arena_open_writer(arena, m, &loom_err) == HD_OK);
    b = hd_batch_begin(arena);
    put_some(b, 100, 0, 12);
    hd_batch_publish(b, 1);
    slot = hd_slot_find(m, arena, HD_RES_SECRET, HD_STR("resource-0"));
    MUST(slot != NULL && hd_slot_add_gauges(arena, slot, 4, &loom_err) == HD_OK);
    hd_gauge_share(m, slot->gauges_first, true);
    MUST(hd_cell_get(m, 1, HD_STR("cell"), 100) != NULL);
    b = hd_batch_begin(arena);
    put_some(b, 200, 4, 8);
    hd_batch_remove(b, slot);
    hd_batch_set_state(b, hd_slot_find(m, arena, HD_RES_ENDPOINTS, HD_STR("resource-1")),
                       HD_SLOT_WARMING);
    hd_batch_publish(b, 1);
    hd_arena_reclaim(arena, 1);
    hd_cell_drop(m, 1, HD_STR("cell"));
    b = hd_batch_begin(arena);
    put_some(b, 300, 8, 60); /* more names than the first index holds */
    hd_batch_remove_others(b);
    hd_batch_publish(b, 1);
    for (int i = 0; i < 4; i++) /* names that are gone go in steps */
        hd_arena_reclaim(arena, 1);
    MUST(hd_slots_used(arena) == 52);
    b = hd_batch_begin(arena);
    put_some(b, 400, 60, 66); /* their places are taken again */
    hd_batch_publish(b, 1);
    hd_arena_reclaim(arena, 1);
    return 0;
}

static uint32_t count_entries(hd_region_state_t wanted)
{
    uint32_t n = hd_load(&arena->head->regions_n, relaxed), found = 0;

    for (uint32_t i = 0; i < n; i++)
        found += hd_entry_state(hd_load(&arena->regions[i].word, relaxed)) == wanted;
    return found;
}

/* Another process, a reader, between two writers. */
static int reader_looks(uint64_t n)
{
    hd_member_t *m = hd_member_start(state, 1, HD_MEMBER_WORKER, &loom_err);

    (void)n;
    MUST(m != NULL && hd_arena_open_reader(arena, m, &loom_err) == HD_OK);
    hd_turn_begin(m);
    for (hd_slot_t *s = hd_slot_next(arena, NULL); s != NULL;
         s = hd_slot_next(arena, s)) {
        const hd_region_t *r = hd_slot_get(m, s);

        MUST(r == NULL || (loom_is_whole(r) && r->slot == s));
        MUST((r != NULL) ==
             (hd_slot_state(s) == HD_SLOT_LIVE || hd_slot_state(s) == HD_SLOT_WARMING));
    }
    hd_turn_sleep(m);
    hd_member_stop(m);
    return 0;
}

/* Nothing is reserved but what is in use (and a page of each table that a dead writer was
 * about to begin). */
static bool file_has_what_it_should(void)
{
    size_t has = hd_os_file_bytes(arena->fd);
    size_t should = HD_PAGE + arena->slots_reserved + arena->regions_reserved +
                    arena->data.pages_used * HD_PAGE;

    return has >= should && has <= should + (size_t)2 * HD_PAGE;
}

/* The next writer: finds all, completes what the dead one began, then removes all. */
static int next_writer(uint64_t n)
{
    hd_member_t *m = hd_member_start(state, WRITER_ROW, HD_MEMBER_LOADER, &loom_err);
    uint32_t in_slots = 0;
    hd_batch_t *b;

    (void)n;
    MUST(m != NULL && hd_arena_open_writer(arena, m, &loom_err) == HD_OK);
    MUST(hd_arena_reclaim(arena, 1) == 0);
    for (hd_slot_t *s = hd_slot_next(arena, NULL); s != NULL;
         s = hd_slot_next(arena, s)) {
        const hd_region_t *r = hd_slot_get(m, s);

        MUST(hd_slot_find(m, arena, (hd_res_type_t)s->type, s->name) == s);
        MUST(r == NULL || loom_is_whole(r));
        in_slots += r != NULL;
    }
    MUST(count_entries(HD_REGION_LIVE) == in_slots + 1); /* and the index */
    MUST(count_entries(HD_REGION_BUILDING) == 0);
    MUST(count_entries(HD_REGION_RETIRED) == 0);
    MUST(hd_load(&arena->shared->regions_live, relaxed) == in_slots);
    MUST(file_has_what_it_should());
    MUST(hd_os_file_bytes(arena->secret_fd) == arena->secret.pages_used * HD_PAGE);
    hd_part_close(m->parts[0]); /* once more: records as the dead writer left them */
    m->parts[0] = hd_part_open(state, 0, &loom_err);
    MUST(m->parts[0] != NULL);

    b = hd_batch_begin(arena);
    put_some(b, 300, 8, 60);
    hd_batch_remove_others(b);
    hd_batch_publish(b, 1);
    MUST(hd_arena_reclaim(arena, 1) == 0);
    MUST(count_entries(HD_REGION_LIVE) == 52 + 1);
    b = hd_batch_begin(arena);
    hd_batch_remove_others(b);
    hd_batch_publish(b, 1);
    MUST(hd_arena_reclaim(arena, 1) == 0);
    MUST(count_entries(HD_REGION_LIVE) == 1);
    for (int i = 0; i < 4; i++)
        hd_ignore(hd_arena_reclaim(arena, 1) == 0);
    MUST(hd_slots_used(arena) == 0 && hd_arena_slots_going(arena) == 0);
    MUST(file_has_what_it_should());
    hd_member_stop(m);
    return 0;
}

/* And nothing of the secrets is left once nobody has one. */
static int last_writer(uint64_t n)
{
    hd_member_t *m = hd_member_start(state, WRITER_ROW, HD_MEMBER_LOADER, &loom_err);

    (void)n;
    MUST(m != NULL && hd_arena_open_writer(arena, m, &loom_err) == HD_OK);
    MUST(hd_os_file_bytes(arena->secret_fd) == 0);
    MUST(file_has_what_it_should());
    hd_member_stop(m);
    return 0;
}

static void test_writer(void)
{
    uint64_t n;
    bool good = true;
    end_t end = KILLED;

    for (n = 1; n < STEPS_MAX && good && end == KILLED; n += STRIDE) {
        state = loom_state();
        arena = loom_arena(state, HD_ARENA_FILES, 8 << 20);
        end = run(writer_life, n);
        hd_member_reap(state, WRITER_ROW);
        good = end != FAILED && run(reader_looks, 0) == DONE &&
               run(next_writer, 0) == DONE && run(last_writer, 0) == DONE;
        hd_arena_destroy(arena);
        hd_state_destroy(state);
    }
    ok(good && end == DONE && n > 200, "a writer may die at each of %lu stores",
       (long)n - STRIDE);
}

/* Writers that die one after another in one arena, at ever later stores: nothing piles
 * up. */
static void test_writers_in_turn(void)
{
    bool good = true;

    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, 8 << 20);
    for (uint64_t n = 1; n < 2000 && good; n += 17) {
        good = run(writer_life, n) != FAILED;
        hd_member_reap(state, WRITER_ROW);
    }
    good = good && run(reader_looks, 0) == DONE && run(next_writer, 0) == DONE &&
           run(last_writer, 0) == DONE;
    ok(good, "nor do deaths in one arena pile up");
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

/* The worker */

#define WORKER_ROW 2
#define SETS 6

typedef struct {
    volatile uint64_t begun, done; /* additions to the counters, before and after each */
    volatile uint64_t observed, seen;
} progress_t;

static progress_t *progress;
static hd_gauge_id_t gauge;
static hd_member_t *parent;

static const char *const labels[] = {"set", NULL};
static const double bounds[] = {1, 2};
static const hd_family_t counter = {
    .name = "c_total", .help = "", .kind = HD_COUNTER, .labels = labels};
static const hd_family_t histogram = {.name = "h",
                                      .help = "",
                                      .kind = HD_HISTOGRAM,
                                      .labels = labels,
                                      .buckets = bounds,
                                      .buckets_n = 2};
static const hd_family_t level = {
    .name = "g", .help = "", .kind = HD_SERIES_GAUGE, .labels = labels};

static int worker_life(uint64_t n)
{
    hd_member_t *m;
    hd_family_id_t c, h, g;

    hd_loom_kill_at(n);
    m = hd_member_start(state, WORKER_ROW, HD_MEMBER_WORKER, &loom_err);
    MUST(m != NULL);
    c = hd_family_enter(m, &counter);
    h = hd_family_enter(m, &histogram);
    g = hd_family_enter(m, &level);
    MUST(c != 0 && h != 0 && g != 0);
    for (uint32_t i = 0; i < SETS; i++) {
        char text[8] = {(char)('a' + i), '\0'};
        hd_str_t set = hd_str_c(text);
        hd_series_t s;

        MUST(hd_gauge_try_up(m, gauge, 5));
        hd_gauge_up(m, gauge + 1);
        s = hd_series_enter(m, c, &set);
        progress->begun++;
        hd_counter_add(m, s, 1);
        progress->done++;
        s = hd_series_enter(m, h, &set);
        progress->observed++;
        hd_histogram_observe(m, &histogram, s, i);
        progress->seen++;
        hd_series_set(m, hd_series_enter(m, g, &set), 7);
        if (i >= 2)
            hd_gauge_down(m, gauge);
        hd_gauge_down(m, gauge + 1);
    }
    hd_gauge_down(m, gauge);
    hd_gauge_down(m, gauge);
    hd_member_stop(m);
    return 0;
}

/* Whoever takes its place goes on with the same series. */
static int next_worker(uint64_t n)
{
    hd_member_t *m = hd_member_start(state, WORKER_ROW, HD_MEMBER_WORKER, &loom_err);
    hd_family_id_t c, g;

    (void)n;
    MUST(m != NULL);
    c = hd_family_enter(m, &counter);
    g = hd_family_enter(m, &level);
    MUST(c != 0 && hd_family_enter(m, &histogram) != 0 && g != 0);
    for (uint32_t i = 0; i < SETS; i++) {
        char text[8] = {(char)('a' + i), '\0'};
        hd_str_t set = hd_str_c(text);

        progress->begun++;
        hd_counter_add(m, hd_series_enter(m, c, &set), 1);
        progress->done++;
        hd_series_set(m, hd_series_enter(m, g, &set), 0);
    }
    hd_member_stop(m);
    return 0;
}

/* Gauges as at rest: the parent holds 2 of the first, nobody any of the second. */
static bool gauges_are_right(void)
{
    return hd_gauge_sum(state, gauge) == 2 && hd_gauge_read(parent, gauge) == 2 &&
           hd_gauge_sum(state, gauge + 1) == 0;
}

static bool counts_are_right(uint64_t at_least, uint64_t at_most, uint64_t seen_min,
                             uint64_t seen_max)
{
    hd_series_view_t v;
    uint64_t counted = 0, observed = 0, levels = 0;
    uint32_t at = 0;
    bool known[3][SETS] = {{false}};

    while (hd_series_next(state, &at, &v)) {
        unsigned i = (unsigned)(v.label_values[0].data[0] - 'a');
        int f = v.kind == HD_COUNTER ? 0 : v.kind == HD_HISTOGRAM ? 1 : 2;

        if (i >= SETS || known[f][i]) /* a label set that was entered twice */
            return false;
        known[f][i] = true;
        counted += f == 0 ? v.value : 0;
        observed += f == 1 ? v.count : 0;
        levels += f == 2 ? v.value : 0;
    }
    return counted >= at_least && counted <= at_most && observed >= seen_min &&
           observed <= seen_max && levels == 0;
}

static void begin_worker_round(void)
{
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, 1 << 20);
    memset(progress, 0, sizeof(*progress));
    parent = hd_member_start(state, 3, HD_MEMBER_AGENT, &loom_err);
    hd_ignore(hd_arena_open_writer(arena, parent, &loom_err) != HD_OK);
    gauge = hd_gauge_get(parent, HD_STR("g"), 2);
    hd_gauge_share(parent, gauge, true);
    hd_gauge_up(parent, gauge);
    hd_gauge_up(parent, gauge);
}

static void end_worker_round(void)
{
    hd_gauge_down(parent, gauge);
    hd_gauge_down(parent, gauge);
    hd_member_stop(parent);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

static uint64_t test_worker(void)
{
    uint64_t n;
    bool good = true;
    end_t end = KILLED;

    for (n = 1; n < STEPS_MAX && good && end == KILLED; n++) {
        begin_worker_round();
        end = run(worker_life, n);
        good =
            end != FAILED && hd_gauge_read(parent, gauge) >= hd_gauge_sum(state, gauge);
        hd_member_reap(state, WORKER_ROW);
        good = good && gauges_are_right() && hd_gauge_heal(parent) == 0 &&
               counts_are_right(progress->done, progress->begun, progress->seen,
                                progress->observed);
        good = good && run(next_worker, 0) == DONE &&
               counts_are_right(progress->done, progress->begun, progress->seen,
                                progress->observed) &&
               progress->begun - progress->done <= 1;
        if (!good)
            diag("after a death at store %lu", (long)n);
        end_worker_round();
    }
    ok(good && end == DONE && n > 100, "a worker may die at each of %lu stores",
       (long)n - 2);
    return n - 2;
}

static int reaper_life(uint64_t n)
{
    hd_loom_kill_at(n);
    hd_member_reap(state, WORKER_ROW);
    return 0;
}

/* The master that reaps may die as well, and its successor reaps again. */
static void test_reaper(uint64_t worker_steps)
{
    bool good = true;
    uint64_t deaths = 0;

    for (uint64_t w = 1; w <= worker_steps && good; w += 5 * STRIDE) {
        end_t end = KILLED;

        for (uint64_t n = 1; good && end == KILLED; n++) {
            begin_worker_round();
            good = run(worker_life, w) == KILLED;
            end = run(reaper_life, n);
            deaths += end == KILLED;
            good = good && end != FAILED &&
                   hd_gauge_read(parent, gauge) >= hd_gauge_sum(state, gauge);
            hd_member_reap(state, WORKER_ROW);
            hd_gauge_heal(parent);
            good = good && gauges_are_right() && run(next_worker, 0) == DONE &&
                   counts_are_right(progress->done, progress->begun, progress->seen,
                                    progress->observed);
            if (!good)
                diag("worker died at %lu, reaper at %lu", (long)w, (long)n);
            end_worker_round();
        }
    }
    ok(good && deaths > 50, "a reaper may die at any store (%lu deaths)", (long)deaths);
}

int main(void)
{
    progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    test_writer();
    test_writers_in_turn();
    test_reaper(test_worker());
    return done_testing();
}
#endif
