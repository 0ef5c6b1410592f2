/* core/loom under load: the same work as threads of one process (for TSan), as processes
 * of which some are killed at any moment, and as members that take turns in one thread.
 * Readers check all that they read; counts and gauges are exact in the end. */
#include "core/loom/hd_batch.h"
#include "core/loom/hd_companion.h"
#include "core/loom/hd_gauge.h"
#include "core/loom/hd_series.h"
#include "loom_test.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define TURNS 4000
#define KILLS 60
#else
#define TURNS 20000
#define KILLS 300
#endif

#define NAMES 40
#define BATCHES_A_NAME 16
#define WORKERS 4
#define WRITER_ROW 0
#define HEALER_ROW 1
#define FIRST_WORKER_ROW 2
#define LIMIT 5
#define SETS 8
#define HELD_MAX 4

/* What the test itself knows; shared by all, written by one each, but for <up_now>. */
typedef struct {
    _Atomic uint64_t turns[WORKERS];
    _Atomic uint64_t begun[WORKERS], done[WORKERS]; /* additions to counters */
    _Atomic int up_now; /* of the limited gauge, by those that live */
    _Atomic uint32_t overshot, broken, refused, healed, batches, companions;
    _Atomic bool stop;
} facts_t;

static hd_state_t *state;
static hd_arena_t *arena;
static facts_t *facts;
static hd_gauge_id_t gauge;

static const char *const labels[] = {"set", NULL};
static const hd_family_t family = {
    .name = "done_total", .help = "", .kind = HD_COUNTER, .labels = labels};

/* The writer: one batch a step. */

typedef struct {
    hd_member_t *m;
    uint32_t seed;
} writer_t;

/* One of NAMES that are in use for a while: new ones come up as others go down. */
static hd_str_t any_name(uint32_t *seed, char *room, size_t bytes)
{
    uint32_t i = loom_random(seed) % NAMES +
                 (uint32_t)(atomic_load(&facts->batches) / BATCHES_A_NAME);

    return hd_str_n(room, (size_t)snprintf(room, bytes, "cluster-%u", i));
}

/* The one that went out of use last; removed again and again. */
static void remove_oldest(const writer_t *w, hd_batch_t *b)
{
    uint32_t i = (uint32_t)(atomic_load(&facts->batches) / BATCHES_A_NAME);
    char room[32];
    hd_slot_t *slot;

    snprintf(room, sizeof(room), "cluster-%u", i - 1);
    slot = i == 0 ? NULL
                  : hd_slot_find(w->m, arena, HD_RES_CLUSTER, hd_str_c(room));
    if (slot != NULL)
        hd_batch_remove(b, slot);
}

static void writer_step(writer_t *w)
{
    hd_batch_t *b = hd_batch_begin(arena);
    uint32_t n = loom_random(&w->seed) % 6 + 1;

    for (uint32_t i = 0; i < n; i++) {
        char room[32];
        hd_str_t name = any_name(&w->seed, room, sizeof(room));
        hd_slot_t *slot = hd_slot_find_or_add(arena, HD_RES_CLUSTER, name, &loom_err);

        if (loom_random(&w->seed) % 10 == 0)
            hd_batch_remove(b, slot);
        else if (loom_put_in(b, slot, loom_random(&w->seed) & 0xffffff,
                             loom_random(&w->seed) % 20, true) != HD_OK)
            atomic_fetch_add(loom_err.code == HD_E_LIMIT ? &facts->refused
                                                         : &facts->broken,
                             1); /* full while a reader's turn waits for a CPU */
    }
    remove_oldest(w, b);
    if (loom_random(&w->seed) % 20 == 0)
        hd_batch_abort(b);
    else
        hd_batch_publish(b, hd_clock_mono_ns());
    hd_arena_reclaim(arena, hd_clock_mono_ns());
    atomic_fetch_add(&facts->batches, 1);
}

static bool open_writer(writer_t *w, uint32_t seed)
{
    hd_err_t err = {.code = HD_E_NONE};

    w->seed = seed;
    w->m = hd_member_start(state, WRITER_ROW, HD_MEMBER_LOADER, &err);
    if (w->m != NULL && hd_arena_open_writer(arena, w->m, &err) == HD_OK)
        return true;
    fprintf(stderr, "# %s\n", err.text);
    return false;
}

/* A worker: reads, pins, counts. */

typedef struct {
    hd_member_t *m;
    uint32_t seed, no;
    const hd_region_t *held[HELD_MAX];
    const hd_slot_t *slot; /* held, too, and what it was called */
    char slot_name[32];
    hd_family_id_t family;
    uint32_t ups;
} worker_t;

static void *make_companion(hd_member_t *m, const void *owner, const void *arg,
                            hd_err_t *err)
{
    const hd_region_t *r = owner;
    uint32_t *seed = malloc(sizeof(*seed));

    (void)m, (void)arg, (void)err;
    *seed = loom_seed_of(r);
    return seed;
}

static void destroy_companion(hd_member_t *m, void *companion)
{
    (void)m;
    free(companion);
}

static const hd_companion_type_t companion_type = {"test", make_companion,
                                                   destroy_companion};

static void check(const worker_t *w, const hd_region_t *r)
{
    const uint32_t *seed = hd_companion_of_region(w->m, &companion_type, r, NULL, NULL);

    if (!loom_is_whole(r) || seed == NULL || *seed != loom_seed_of(r))
        atomic_fetch_add(&facts->broken, 1);
}

static void let_slot_go(worker_t *w)
{
    if (w->slot != NULL && !hd_str_eq(w->slot->name, hd_str_c(w->slot_name)))
        atomic_fetch_add(&facts->broken, 1);
    if (w->slot != NULL)
        hd_slot_let_go(w->m, w->slot);
    w->slot = NULL;
}

static void hold_slot(worker_t *w, const hd_slot_t *slot)
{
    if (w->slot != NULL) {
        if (loom_random(&w->seed) % 4 == 0)
            let_slot_go(w);
        return;
    }
    if (slot == NULL)
        return;
    hd_slot_hold(w->m, slot);
    w->slot = slot;
    snprintf(w->slot_name, sizeof(w->slot_name), "%.*s", HD_STR_ARG(slot->name));
}

static void worker_reads(worker_t *w)
{
    char room[32];
    hd_str_t name = any_name(&w->seed, room, sizeof(room));
    hd_slot_t *slot = hd_slot_find(w->m, arena, HD_RES_CLUSTER, name);
    const hd_region_t *r = slot == NULL ? NULL : hd_slot_get(w->m, slot);
    const hd_region_t **held = &w->held[loom_random(&w->seed) % HELD_MAX];

    hold_slot(w, slot);
    if (*held != NULL) { /* from an earlier turn */
        check(w, *held);
        if (loom_random(&w->seed) % 3 != 0)
            return;
        hd_unpin(w->m, *held);
        *held = NULL;
    }
    if (r == NULL)
        return;
    check(w, r);
    if (loom_random(&w->seed) % 4 == 0) {
        hd_pin(w->m, r);
        *held = r;
    }
}

static void worker_goes_up_and_down(worker_t *w)
{
    if (w->ups > 0 && loom_random(&w->seed) % 2 == 0) {
        atomic_fetch_sub(&facts->up_now, 1);
        hd_gauge_down(w->m, gauge);
        w->ups--;
    } else if (hd_gauge_try_up(w->m, gauge, LIMIT)) {
        if (atomic_fetch_add(&facts->up_now, 1) >= LIMIT)
            atomic_fetch_add(&facts->overshot, 1);
        w->ups++;
    }
}

static void worker_counts(worker_t *w)
{
    char text[8] = {(char)('a' + loom_random(&w->seed) % SETS), '\0'};
    hd_str_t set = hd_str_c(text);
    hd_series_t s = hd_series_enter(w->m, w->family, &set);

    atomic_fetch_add(&facts->begun[w->no], 1);
    hd_counter_add(w->m, s, 1);
    atomic_fetch_add(&facts->done[w->no], 1);
}

static void worker_step(worker_t *w, bool with_gauge)
{
    hd_turn_begin(w->m);
    for (int i = 0; i < 3; i++)
        worker_reads(w);
    if (with_gauge)
        worker_goes_up_and_down(w);
    worker_counts(w);
    hd_turn_sleep(w->m);
    atomic_fetch_add(&facts->turns[w->no], 1);
}

static bool open_worker(worker_t *w, uint32_t no, uint32_t seed)
{
    hd_err_t err = {.code = HD_E_NONE};

    *w = (worker_t){.no = no, .seed = seed};
    w->m = hd_member_start(state, (int)(FIRST_WORKER_ROW + no), HD_MEMBER_WORKER, &err);
    if (w->m != NULL && hd_arena_open_reader(arena, w->m, &err) == HD_OK) {
        w->family = hd_family_enter(w->m, &family);
        return w->family != 0;
    }
    fprintf(stderr, "# %s\n", err.text);
    return false;
}

static void close_worker(worker_t *w)
{
    let_slot_go(w);
    for (int i = 0; i < HELD_MAX; i++)
        if (w->held[i] != NULL)
            hd_unpin(w->m, w->held[i]);
    for (; w->ups > 0; w->ups--) {
        atomic_fetch_sub(&facts->up_now, 1);
        hd_gauge_down(w->m, gauge);
    }
    atomic_fetch_add(&facts->companions, (uint32_t)hd_companion_count(w->m));
    hd_member_stop(w->m);
}

/* Setting up and judging */

static void begin(void)
{
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, 64 << 20);
    memset(facts, 0, sizeof(*facts));
}

/* By a writer. */
static void make_gauge(hd_member_t *m)
{
    gauge = hd_gauge_get(m, HD_STR("limited"), 1);
    hd_gauge_share(m, gauge, true);
}

static uint64_t sum(const _Atomic uint64_t *of)
{
    uint64_t n = 0;

    for (int i = 0; i < WORKERS; i++)
        n += atomic_load(&of[i]);
    return n;
}

static void reclaim_all(void)
{
    for (int i = 0; i < 4; i++) /* names go in steps */
        hd_arena_reclaim(arena, 0);
}

static uint64_t counted(void)
{
    hd_series_view_t v;
    uint32_t at = 0;
    uint64_t n = 0;

    while (hd_series_next(state, &at, &v))
        n += v.value;
    return n;
}

static void judge(const char *how, bool some_died)
{
    hd_arena_stats_t stats;
    uint64_t n = counted();

    hd_arena_get_stats(arena, hd_clock_mono_ns(), &stats);
    is_int(atomic_load(&facts->broken), 0, "%s: all that was read was whole", how);
    is_int(atomic_load(&facts->overshot), 0, "%s: the limit was never overshot", how);
    is_int(hd_gauge_sum(state, gauge), 0, "%s: gauges are 0 at rest", how);
    if (some_died)
        ok(n >= sum(facts->done) && n <= sum(facts->begun),
           "%s: counters say what was counted (%lu of %lu to %lu)", how, (long)n,
           (long)sum(facts->done), (long)sum(facts->begun));
    else
        is_int(n, sum(facts->done), "%s: counters are exact", how);
    ok(atomic_load(&facts->batches) > 10 && sum(facts->turns) > 1000,
       "%s: %u batches, %lu turns, %u refused", how, atomic_load(&facts->batches),
       (long)sum(facts->turns), atomic_load(&facts->refused));
    is_int(stats.regions_retired, 0, "%s: nothing stays retired", how);
    ok(stats.slots <= NAMES + NAMES / 2, "%s: names that are gone went (%lu slots)", how,
       (long)stats.slots);
}

/* Threads */

static void *writer_thread(void *arg)
{
    while (!atomic_load(&facts->stop)) {
        writer_step(arg);
    }
    return NULL;
}

/* A healer must never find anything while nobody dies, however threads are scheduled. */
static void *healer_thread(void *arg)
{
    while (!atomic_load(&facts->stop)) {
        atomic_fetch_add(&facts->healed, (uint32_t)hd_gauge_heal(arg));
        (void)counted();
        sched_yield();
    }
    return NULL;
}

static void *worker_thread(void *arg)
{
    for (int i = 0; i < TURNS || atomic_load(&facts->batches) < 100; i++)
        worker_step(arg, true);
    return NULL;
}

static void test_threads(void)
{
    pthread_t writer, healer, threads[WORKERS];
    worker_t workers[WORKERS];
    writer_t w;
    hd_member_t *h;

    begin();
    if (!open_writer(&w, 1))
        return;
    make_gauge(w.m);
    h = hd_member_start(state, HEALER_ROW, HD_MEMBER_AGENT, &loom_err);
    pthread_create(&writer, NULL, writer_thread, &w);
    pthread_create(&healer, NULL, healer_thread, h);
    for (uint32_t i = 0; i < WORKERS; i++) {
        if (!open_worker(&workers[i], i, i + 10))
            return;
        pthread_create(&threads[i], NULL, worker_thread, &workers[i]);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        close_worker(&workers[i]);
    }
    atomic_store(&facts->stop, true);
    pthread_join(writer, NULL);
    pthread_join(healer, NULL);
    reclaim_all();
    judge("threads", false);
    is_int(hd_gauge_read(h, gauge), 0, "threads: the total too");
    is_int(atomic_load(&facts->healed), 0, "threads: no step was taken for a lost one");
    ok(atomic_load(&facts->companions) <= WORKERS * (NAMES + HELD_MAX),
       "threads: companions went with their regions");
    hd_member_stop(h);
    hd_member_stop(w.m);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

/* One thread */

static void test_one_thread(void)
{
    worker_t workers[WORKERS];
    writer_t w;

    begin();
    if (!open_writer(&w, 2))
        return;
    make_gauge(w.m);
    for (uint32_t i = 0; i < WORKERS; i++)
        if (!open_worker(&workers[i], i, i + 20))
            return;
    for (int i = 0; i < TURNS; i++) {
        worker_step(&workers[i % WORKERS], true);
        if (i % 7 == 0)
            writer_step(&w);
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        close_worker(&workers[i]);
    reclaim_all();
    judge("one thread", false);
    hd_member_stop(w.m);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

/* Processes */

static int writer_process(uint32_t seed)
{
    writer_t w;

    if (!open_writer(&w, seed))
        return 1;
    while (!atomic_load(&facts->stop))
        writer_step(&w);
    reclaim_all();
    hd_member_stop(w.m);
    return 0;
}

static int worker_process(uint32_t no, uint32_t seed)
{
    worker_t w;

    if (!open_worker(&w, no, seed))
        return 1;
    while (!atomic_load(&facts->stop)) {
        /* <up_now> would be wrong after a kill: the total is judged instead */
        worker_step(&w, false);
        if (hd_gauge_try_up(w.m, gauge, LIMIT))
            w.ups++;
        if (hd_gauge_read(w.m, gauge) > LIMIT)
            atomic_fetch_add(&facts->overshot, 1);
        if (w.ups > 0 && loom_random(&w.seed) % 2 == 0) {
            hd_gauge_down(w.m, gauge);
            w.ups--;
        }
    }
    for (; w.ups > 0; w.ups--)
        hd_gauge_down(w.m, gauge);
    close_worker(&w);
    return 0;
}

static pid_t start(uint32_t role, uint32_t seed)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        hd_ignore(alarm(300)); /* never left behind */
        _exit(role == 0 ? writer_process(seed) : worker_process(role - 1, seed));
    }
    return pid;
}

static int row_of(uint32_t role)
{
    return role == 0 ? WRITER_ROW : FIRST_WORKER_ROW + (int)role - 1;
}

static uint64_t progress_of(uint32_t role)
{
    return role == 0 ? atomic_load(&facts->batches)
                     : atomic_load(&facts->turns[role - 1]);
}

/* Lets <role> get on by a step or two: then the kill falls anywhere. False, and said why,
 * if <pid> ended by itself; it is still to be waited for. */
static bool let_run(pid_t pid, uint32_t role, uint32_t steps)
{
    uint64_t from = progress_of(role);
    siginfo_t ended = {0};

    while (progress_of(role) < from + steps) {
        if (waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
            ended.si_pid == pid) {
            fprintf(stderr, "# role %u ended by itself: %s %d\n", role,
                    ended.si_code == CLD_EXITED ? "status" : "signal", ended.si_status);
            return false;
        }
        sched_yield();
    }
    return true;
}

static void test_processes(void)
{
    pid_t pids[WORKERS + 1];
    uint32_t seed = 77, bad = 0;
    hd_member_t *m;
    int status;
    writer_t w;

    begin();
    m = hd_member_start(state, HEALER_ROW, HD_MEMBER_MASTER, &loom_err);
    pids[0] = fork(); /* makes the gauge; it is found again by its name */
    if (pids[0] == 0) {
        if (!open_writer(&w, 5))
            _exit(1);
        make_gauge(w.m);
        hd_member_stop(w.m);
        _exit(0);
    }
    hd_ignore(waitpid(pids[0], &status, 0) < 0);
    gauge = hd_gauge_get(m, HD_STR("limited"), 1);
    for (uint32_t i = 0; i <= WORKERS; i++)
        pids[i] = start(i, i + 100);
    for (uint32_t k = 0; k < KILLS && bad == 0; k++) {
        uint32_t role = loom_random(&seed) % (WORKERS + 1);

        if (!let_run(pids[role], role, 1 + loom_random(&seed) % 20))
            bad++;
        kill(pids[role], SIGKILL);
        if (waitpid(pids[role], &status, 0) != pids[role] || !WIFSIGNALED(status) ||
            WTERMSIG(status) != SIGKILL)
            bad++;
        hd_member_reap(state, row_of(role));
        hd_gauge_heal(m);
        pids[role] = start(role, k + 1000);
    }
    for (uint32_t i = 0; i <= WORKERS; i++)
        if (!let_run(pids[i], i, 5))
            bad++;
    atomic_store(&facts->stop, true);
    for (uint32_t i = 0; i <= WORKERS; i++)
        if (waitpid(pids[i], &status, 0) != pids[i] || !WIFEXITED(status) ||
            WEXITSTATUS(status) != 0)
            bad++;
    hd_gauge_heal(m);
    is_int(bad, 0, "processes: nobody died but those who were killed");
    is_int(hd_gauge_read(m, gauge), 0, "processes: the total is 0");
    pids[0] = start(0, 9); /* <stop> is set: it just reclaims */
    hd_ignore(waitpid(pids[0], &status, 0) < 0);
    judge("processes", true);
    hd_member_stop(m);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

int main(void)
{
    facts = mmap(NULL, sizeof(*facts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                 -1, 0);
    hd_ignore(alarm(600)); /* a test that hangs is a failure */
    test_one_thread();
    test_processes();
    test_threads();
    return done_testing();
}
