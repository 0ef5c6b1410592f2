/* core/loom: slots, batches, turns, pins, reclamation, limits, a writer's start. */
#include "core/loom/hd_gauge.h"
#include "loom_test.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *writer, *reader;
static hd_member_t *volatile dead; /* its private memory would have gone with it */

static void setup(size_t bytes_max)
{
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, bytes_max);
    writer = hd_member_start(state, -1, HD_MEMBER_LOADER, &loom_err);
    reader = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    if (hd_arena_open_writer(arena, writer, &loom_err) != HD_OK ||
        hd_arena_open_reader(arena, reader, &loom_err) != HD_OK)
        printf("Bail out! %s\n", loom_err.text);
}

static void teardown(void)
{
    hd_member_stop(reader);
    hd_member_stop(writer);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

static hd_arena_stats_t stats_now(void)
{
    hd_arena_stats_t stats;

    hd_arena_get_stats(arena, hd_clock_mono_ns(), &stats);
    return stats;
}

static void publish(hd_res_type_t type, const char *name, uint32_t seed, uint32_t nodes_n)
{
    hd_batch_t *b = hd_batch_begin(arena);

    if (loom_put(b, arena, type, name, seed, nodes_n) != HD_OK)
        diag("%s", loom_err.text);
    hd_batch_publish(b, hd_clock_mono_ns());
}

static void remove_one(hd_slot_t *slot)
{
    hd_batch_t *b = hd_batch_begin(arena);

    hd_batch_remove(b, slot);
    hd_batch_publish(b, hd_clock_mono_ns());
}

static void test_publish_and_read(void)
{
    hd_batch_t *b;
    hd_slot_t *slot;
    const hd_region_t *r;

    setup(0);
    slot = hd_slot_find_or_add(arena, HD_RES_CLUSTER, HD_STR("a"), &loom_err);
    is_int(hd_slot_state(slot), HD_SLOT_ABSENT, "a new slot is absent");
    publish(HD_RES_CLUSTER, "a", 7, 100);
    hd_turn_begin(reader);
    ok(hd_slot_find(reader, arena, HD_RES_CLUSTER, HD_STR("a")) == slot, "found");
    ok(hd_slot_find(reader, arena, HD_RES_LISTENER, HD_STR("a")) == NULL,
       "a name belongs to its type");
    r = hd_slot_get(reader, slot);
    ok(r != NULL && loom_is_whole(r) && loom_seed_of(r) == 7, "the version is whole");
    ok(r->slot == slot && r->type == HD_RES_CLUSTER && hd_str_eq(r->name, HD_STR("a")) &&
           hd_str_eq(r->source, HD_STR("test:1")) && r->bytes > 100,
       "its head tells what it is");
    is_int(hd_slot_state(slot), HD_SLOT_LIVE, "live");
    hd_turn_sleep(reader);

    b = hd_batch_begin(arena);
    hd_batch_set_state(b, slot, HD_SLOT_WARMING);
    is_int(hd_batch_publish(b, 0), 1, "a state is a change");
    hd_turn_begin(reader);
    ok(hd_slot_state(slot) == HD_SLOT_WARMING && hd_slot_get(reader, slot) == r,
       "warming: the old version serves");
    hd_turn_sleep(reader);

    remove_one(slot);
    hd_turn_begin(reader);
    ok(hd_slot_state(slot) == HD_SLOT_REMOVED && hd_slot_get(reader, slot) == NULL,
       "removed");
    hd_turn_sleep(reader);
    teardown();
}

static void test_content(void)
{
    hd_batch_t *b;
    hd_slot_t *slot;
    hd_region_t *r;
    hd_pool_t *pool;

    setup(0);
    slot = hd_slot_find_or_add(arena, HD_RES_ROUTES, HD_STR("r"), &loom_err);
    for (int i = 0; i < 2; i++) {
        hd_rc_t rc;

        b = hd_batch_begin(arena);
        r = hd_batch_region(b, HD_RES_ROUTES, HD_STR("r"), HD_STR_NONE, 100, &pool,
                            &loom_err);
        rc = hd_batch_put(b, slot, r, hd_pool_calloc(pool, 64), 4711, &loom_err);
        is_int(rc, i == 0 ? HD_OK : HD_DONE, "equal content is put once");
        hd_batch_remove_others(b);
        is_int(hd_batch_publish(b, 0), i == 0 ? 1 : 0, "and published once");
    }
    is_int(hd_slot_state(slot), HD_SLOT_LIVE, "it isn't one of the others");
    is_int(stats_now().regions_live, 1, "one region");

    b = hd_batch_begin(arena);
    ok(loom_put(b, arena, HD_RES_CLUSTER, "c", 1, 3) == HD_OK &&
       loom_put(b, arena, HD_RES_CLUSTER, "c", 2, 3) == HD_OK);
    hd_batch_remove_others(b);
    is_int(hd_batch_publish(b, 0), 2, "the second put of a slot wins; the rest goes");
    is_int(hd_slot_state(slot), HD_SLOT_REMOVED, "removed as one of the others");
    slot = hd_slot_find(writer, arena, HD_RES_CLUSTER, HD_STR("c"));
    is_int(loom_seed_of(hd_slot_get(writer, slot)), 2, "the second");

    b = hd_batch_begin(arena);
    ok(loom_put(b, arena, HD_RES_CLUSTER, "c", 3, 50) == HD_OK &&
       loom_put(b, arena, HD_RES_SECRET, "s", 3, 50) == HD_OK);
    r = hd_batch_region(b, HD_RES_POLICY, HD_STR("p"), HD_STR_NONE, 0, &pool, &loom_err);
    ok(r != NULL);
    hd_batch_abort(b);
    is_int(loom_seed_of(hd_slot_get(writer, slot)), 2,
           "an aborted batch changes nothing");
    hd_arena_reclaim(arena, hd_clock_mono_ns());
    is_int(stats_now().regions_live, 1, "and leaves nothing");
    teardown();
}

/* A name and a source that fill a piece of their own, wherever the next piece lies. */
static void test_content_of_long_names(void)
{
    char name[1200], source[600];
    hd_slot_t *slot;
    unsigned same = 0, other = 0;
    uint32_t seed = 7;

    memset(name, 'n', sizeof(name));
    memset(source, 's', sizeof(source));
    setup(4 << 20);
    slot = hd_slot_find_or_add(arena, HD_RES_POLICY, (hd_str_t){name, 1100}, &loom_err);
    for (uint32_t i = 0; i < 400; i++) {
        hd_batch_t *b;
        hd_pool_t *pool;
        hd_region_t *r;
        struct {
            uint32_t number;
            const char *name;
            const void *self;
        } *content;
        hd_rc_t rc;
        char other_name[] = {(char)('a' + loom_random(&seed) % 16), 0};

        publish(HD_RES_ROUTES, other_name, i, loom_random(&seed) % 20); /* holes */
        b = hd_batch_begin(arena);
        r = hd_batch_region(b, HD_RES_POLICY, slot->name, (hd_str_t){source, i / 4 % 10 * 50},
                            0, &pool, &loom_err);
        hd_bug_on(r == NULL);
        content = hd_pool_calloc(pool, sizeof(*content));
        content->number = i / 4;
        content->name = r->name.data;
        content->self = content;
        rc = hd_batch_put(b, slot, r, content, HD_CONTENT_BUILT, &loom_err);
        hd_bug_on(rc == HD_ERROR);
        same += i % 4 != 0 && rc == HD_DONE;
        other += i % 4 == 0 && rc == HD_OK;
        hd_batch_publish(b, 0);
        hd_arena_reclaim(arena, hd_clock_mono_ns());
    }
    is_int(same, 300, "equal content behind long names is equal");
    is_int(other, 100, "other content is not");
    teardown();
}

static void test_turns_and_pins(void)
{
    hd_slot_t *slot;
    const hd_region_t *r;

    setup(0);
    publish(HD_RES_CLUSTER, "a", 1, 10);
    hd_turn_begin(reader);
    slot = hd_slot_find(reader, arena, HD_RES_CLUSTER, HD_STR("a"));
    r = hd_slot_get(reader, slot);
    publish(HD_RES_CLUSTER, "a", 2, 10);
    is_int(hd_arena_reclaim(arena, 0), 1, "kept while the turn lasts");
    ok(loom_is_whole(r), "and good");
    ok(loom_seed_of(hd_slot_get(reader, slot)) == 2, "the slot has the new one already");
    hd_pin(reader, r);
    hd_turn_sleep(reader);
    is_int(hd_arena_reclaim(arena, 0), 1, "pinned: kept beyond the turn");
    hd_turn_begin(reader);
    ok(loom_is_whole(r), "a turn later");
    hd_pin(reader, r);
    hd_unpin(reader, r);
    hd_turn_sleep(reader);
    is_int(hd_arena_reclaim(arena, 0), 1, "still one pin");
    ok(stats_now().bytes_retired > 0 && stats_now().regions_retired == 1);
    hd_unpin(reader, r);
    is_int(hd_arena_reclaim(arena, 0), 0, "unpinned: freed");
    ok(stats_now().bytes_retired == 0 && stats_now().regions_retired == 0 &&
       stats_now().retired_oldest_ms == 0);

    hd_turn_begin(reader);
    hd_pin(reader, hd_slot_get(reader, slot));
    publish(HD_RES_CLUSTER, "a", 3, 10);
    is_int(hd_arena_reclaim(arena, 0), 1, "kept");
    dead = reader; /* it just stops here */
    hd_member_reap(state, hd_member_index(dead));
    is_int(hd_arena_reclaim(arena, 0), 0, "a dead member's turn and pins are taken back");
    hd_member_reap(state, hd_member_index(reader));
    reader = hd_member_start(state, hd_member_index(reader), HD_MEMBER_WORKER, &loom_err);
    ok(reader != NULL, "its row is free again");
    ok(hd_member_start(state, hd_member_index(reader), HD_MEMBER_WORKER, &loom_err) ==
           NULL,
       "and taken now: %s", loom_err.text);
    teardown();
}

static void test_full_arena(void)
{
    hd_batch_t *b;
    hd_slot_t *slot;
    uint64_t before;
    int n = 0;
    bool whole = true;

    setup(1 << 20);
    b = hd_batch_begin(arena);
    for (;; n++) {
        char name[16];

        snprintf(name, sizeof(name), "c%d", n);
        if (loom_put(b, arena, HD_RES_CLUSTER, name, (uint32_t)n, 100) != HD_OK)
            break;
    }
    ok(n > 20 && loom_err.code == HD_E_LIMIT, "full after %d: %s", n, loom_err.text);
    is_int(hd_batch_publish(b, 0), n, "the batch goes on without it");
    for (slot = hd_slot_next(arena, NULL); slot != NULL; slot = hd_slot_next(arena, slot))
        if (hd_slot_get(writer, slot) != NULL)
            whole = whole && loom_is_whole(hd_slot_get(writer, slot)) && n-- > 0;
    ok(whole && n == 0, "all others are whole");
    before = stats_now().bytes_reserved;
    ok(before <= 1 << 20);
    b = hd_batch_begin(arena);
    hd_batch_remove_others(b);
    hd_batch_publish(b, 0);
    is_int(hd_arena_reclaim(arena, 0), 0, "all removed");
    ok(stats_now().bytes_reserved < before / 5, "pages are given back");
    publish(HD_RES_CLUSTER, "c1", 5, 1000);
    slot = hd_slot_find(writer, arena, HD_RES_CLUSTER, HD_STR("c1"));
    ok(loom_is_whole(hd_slot_get(writer, slot)), "and room for others");

    b = hd_batch_begin(arena);
    is_int(loom_put(b, arena, HD_RES_CLUSTER, "big", 1, 20000), HD_ERROR,
           "one too large is refused");
    hd_batch_abort(b);
    hd_arena_reclaim(arena, 0);
    is_int(stats_now().regions_live, 1, "without a trace");
    teardown();
}

static void test_same_bytes_after_many_rounds(void)
{
    uint64_t after_first = 0;

    setup(0);
    for (int round = 0; round < 200; round++) {
        hd_batch_t *b = hd_batch_begin(arena);

        for (uint32_t i = 0; i < 40; i++) {
            char name[16];
            uint32_t seed = (uint32_t)round % 20 * 100 + i; /* sizes come again */

            snprintf(name, sizeof(name), "n%u", i);
            if (loom_put(b, arena, i % 2 ? HD_RES_SECRET : HD_RES_CLUSTER, name, seed,
                         i % 7 * 10) != HD_OK)
                diag("%s", loom_err.text);
        }
        hd_batch_publish(b, 0);
        hd_arena_reclaim(arena, 0);
        if (round == 119)
            after_first = stats_now().bytes_reserved;
    }
    ok(stats_now().bytes_reserved <= after_first + after_first / 100,
       "bytes after 200 rounds: %lu, after 120: %lu", (long)stats_now().bytes_reserved,
       (long)after_first);
    is_int(stats_now().regions_live, 40, "40 live");
    teardown();
}

static bool all_zero(const unsigned char *p, size_t n)
{
    while (n > 0 && *p == 0)
        p++, n--;
    return n == 0;
}

static void test_secrets(void)
{
    hd_slot_t *slot;
    const loom_thing_t *t;
    const unsigned char *secret;

    setup(0);
    publish(HD_RES_SECRET, "other", 3, 1); /* keeps the page in use */
    publish(HD_RES_SECRET, "s", 9, 1);
    slot = hd_slot_find(writer, arena, HD_RES_SECRET, HD_STR("s"));
    t = hd_slot_get(writer, slot)->root;
    secret = t->secret;
    ok(secret != NULL && hd_slot_get(writer, slot)->secret == secret && secret[31] == 9,
       "a secret lies apart");
    remove_one(slot);
    hd_arena_reclaim(arena, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(HD_DEBUG)
    ok(all_zero(secret, 32), "zeroed on release");
#else
    (void)all_zero; /* freed memory is poisoned or filled here */
    pass("released");
#endif
    teardown();
}

static void test_clash(void)
{
    hd_arena_t *dynamic;
    hd_member_t *agent;
    hd_batch_t *b;
    hd_slot_t *slot;

    setup(0);
    dynamic = loom_arena(state, HD_ARENA_DYNAMIC, 0);
    agent = hd_member_start(state, -1, HD_MEMBER_AGENT, &loom_err);
    ok(hd_arena_open_writer(dynamic, agent, &loom_err) == HD_OK);
    hd_member_add_arena(agent, arena);
    publish(HD_RES_CLUSTER, "a", 1, 10);
    ok(hd_slot_find_or_add(dynamic, HD_RES_CLUSTER, HD_STR("a"), &loom_err) == NULL,
       "a name belongs to one writer: %s", loom_err.text);
    ok(hd_slot_find_or_add(dynamic, HD_RES_ROUTES, HD_STR("a"), &loom_err) != NULL,
       "(of another type it may)");
    slot = hd_slot_find_or_add(dynamic, HD_RES_CLUSTER, HD_STR("b"), &loom_err);
    publish(HD_RES_CLUSTER, "b", 1, 10);
    b = hd_batch_begin(dynamic);
    hd_err_clear(&loom_err);
    is_int(loom_put_in(b, slot, 1, 1, false), HD_ERROR, "later, too");
    remove_one(hd_slot_find(writer, arena, HD_RES_CLUSTER, HD_STR("b")));
    is_int(loom_put_in(b, slot, 1, 1, false), HD_OK, "free again once removed");
    is_int(hd_batch_publish(b, 0), 1, "published");
    hd_member_stop(agent);
    hd_arena_destroy(dynamic);
    teardown();
}

/* Reader and writer as processes: the reader's mapping is read-only, and a crash in the
 * writer loses nothing. */
static int reader_process(int from_writer, int to_parent)
{
    hd_member_t *m = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    hd_slot_t *slot;
    char c = 'n';

    if (m == NULL || hd_arena_open_reader(arena, m, &loom_err) != HD_OK ||
        read(from_writer, &c, 1) != 1)
        return 1;
    hd_turn_begin(m);
    slot = hd_slot_find(m, arena, HD_RES_CLUSTER, HD_STR("a"));
    c = slot != NULL && loom_is_whole(hd_slot_get(m, slot)) ? 'y' : 'n';
    if (write(to_parent, &c, 1) != 1)
        return 1;
    slot->gauges_n = 5; /* must raise SIGSEGV */
    return 0;
}

static void test_processes(void)
{
    int to_reader[2], to_parent[2], status;
    char c = 'n';
    pid_t pid;

    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, 0);
    ok(pipe(to_reader) == 0 && pipe(to_parent) == 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would talk */
        _exit(reader_process(to_reader[0], to_parent[1]));
    }
    writer = hd_member_start(state, -1, HD_MEMBER_LOADER, &loom_err);
    ok(hd_arena_open_writer(arena, writer, &loom_err) == HD_OK);
    publish(HD_RES_CLUSTER, "a", 1, 500);
    ok(write(to_reader[1], "x", 1) == 1 && read(to_parent[0], &c, 1) == 1 && c == 'y',
       "another process reads it at the same address");
    ok(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGSEGV,
       "a reader can't write");
    reader = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    teardown();
}

/* Readers that don't come round keep everything: a writer that starts anew then must
 * still be able to, or it could never free anything. */
static void test_full_of_entries(void)
{
    bool opens = true;
    int n = 0;

    setup(0);
    publish(HD_RES_CLUSTER, "c", 0, 2);
    hd_turn_begin(reader);
    for (;; n++) {
        hd_batch_t *b = hd_batch_begin(arena);
        hd_rc_t rc = loom_put(b, arena, HD_RES_CLUSTER, "c", (uint32_t)n, 2);

        hd_batch_publish(b, 0);
        hd_arena_reclaim(arena, 0);
        if (rc != HD_OK)
            break;
    }
    ok(n > 4000 && loom_err.code == HD_E_LIMIT, "full after %d: %s", n, loom_err.text);
    for (int i = 0; i < 3; i++)
        opens = opens && hd_arena_open_writer(arena, writer, &loom_err) == HD_OK;
    ok(opens, "a writer still starts, several times");
    hd_turn_sleep(reader);
    hd_arena_reclaim(arena, 0);
    is_int(stats_now().regions_retired, 0, "and frees it all once the reader is through");
    publish(HD_RES_CLUSTER, "c", 7, 2);
    is_int(loom_seed_of(hd_slot_get(
               writer, hd_slot_find(writer, arena, HD_RES_CLUSTER, HD_STR("c")))),
           7, "then there is room");
    teardown();
}

static void test_many_slots(void)
{
    hd_batch_t *b;
    bool all = true;

    setup(0);
    b = hd_batch_begin(arena);
    for (uint32_t i = 0; i < 3000; i++) {
        char name[64];

        snprintf(name, sizeof(name), "outbound|%u||svc-%u.default.svc", i, i * 7);
        all = all && loom_put(b, arena, HD_RES_CLUSTER, name, i, 2) == HD_OK;
    }
    is_int(hd_batch_publish(b, 0), 3000, "3000 at once");
    hd_arena_reclaim(arena, 0);
    for (uint32_t i = 0; i < 3000; i++) {
        char name[64];
        hd_slot_t *slot;

        snprintf(name, sizeof(name), "outbound|%u||svc-%u.default.svc", i, i * 7);
        slot = hd_slot_find(writer, arena, HD_RES_CLUSTER, hd_str_c(name));
        all = all && slot != NULL && loom_seed_of(hd_slot_get(writer, slot)) == i;
    }
    ok(all, "each found by its name");
    is_int(stats_now().slots, 3000, "counted");
    teardown();
}

/* Names that are gone */

typedef struct {
    const hd_slot_t *to;
} pointer_t;

/* <name>'s next version names <to>. */
static const hd_region_t *publish_pointer(const char *name, const hd_slot_t *to)
{
    hd_slot_t *slot = hd_slot_find_or_add(arena, HD_RES_ROUTES, hd_str_c(name), &loom_err);
    hd_batch_t *b = hd_batch_begin(arena);
    hd_pool_t *pool;
    hd_region_t *r = hd_batch_region(b, HD_RES_ROUTES, slot->name, HD_STR("test:1"), 0,
                                     &pool, &loom_err);
    pointer_t *p = hd_pool_new(pool, pointer_t);

    p->to = to;
    if (hd_batch_put(b, slot, r, p, 0, &loom_err) != HD_OK)
        diag("%s", loom_err.text);
    hd_batch_publish(b, 0);
    return hd_slot_get(writer, slot);
}

static uint64_t slots_after(int reclaims)
{
    for (int i = 0; i < reclaims; i++)
        hd_ignore(hd_arena_reclaim(arena, 0) == 0);
    return stats_now().slots;
}

static hd_slot_t *slot_of(hd_res_type_t type, const char *name)
{
    return hd_slot_find(writer, arena, type, hd_str_c(name));
}

static void test_named_by_regions(void)
{
    hd_slot_t *slot, *routes;
    const hd_region_t *old;

    setup(0);
    publish(HD_RES_CLUSTER, "c", 1, 2);
    slot = slot_of(HD_RES_CLUSTER, "c");
    publish_pointer("r", slot);
    routes = slot_of(HD_RES_ROUTES, "r");
    remove_one(slot);
    is_int(slots_after(6), 2, "a name that a version in force has in it stays");
    hd_turn_begin(reader);
    old = hd_slot_get(reader, routes);
    hd_pin(reader, old);
    hd_turn_sleep(reader);
    publish_pointer("r", NULL);
    is_int(slots_after(6), 2, "and one that a pinned version has");
    ok(slot_of(HD_RES_CLUSTER, "c") == slot, "under its name");
    publish(HD_RES_CLUSTER, "c", 2, 2);
    ok(loom_seed_of(hd_slot_get(writer, ((const pointer_t *)old->root)->to)) == 2,
       "so that what comes back under it is found by the old version");
    remove_one(slot);
    hd_unpin(reader, old);
    is_int(slots_after(1), 2, "not at once");
    is_int(slots_after(4), 1, "but then it goes");
    ok(slot_of(HD_RES_CLUSTER, "c") == NULL && hd_slot_next(arena, NULL) == routes &&
           hd_slot_next(arena, routes) == NULL,
       "nobody finds it");
    publish(HD_RES_SECRET, "another", 3, 1);
    ok(slot_of(HD_RES_SECRET, "another") == slot, "its place is another's");
    teardown();
}

static void test_held_and_found(void)
{
    hd_slot_t *slot, *again;
    hd_batch_t *b;

    setup(0);
    publish(HD_RES_CLUSTER, "c", 1, 2);
    slot = slot_of(HD_RES_CLUSTER, "c");
    hd_turn_begin(reader);
    hd_slot_hold(reader, slot);
    hd_turn_sleep(reader);
    remove_one(slot);
    is_int(slots_after(6), 1, "what a member holds stays");
    is_int((long)hd_arena_slots_going(arena), 0, "and the writer needn't wait for that");
    hd_turn_begin(reader);
    hd_slot_let_go(reader, slot);
    hd_ignore(hd_arena_reclaim(arena, 0) == 0);
    is_int((long)hd_arena_slots_going(arena), 1, "then it has to");
    is_int(slots_after(6), 1, "as long as the turn lasts in which it was let go");
    ok(hd_slot_state(slot) == HD_SLOT_REMOVED, "it says that it is gone");
    again = hd_slot_find_or_add(arena, HD_RES_CLUSTER, HD_STR("c"), &loom_err);
    ok(again == slot, "named again meanwhile, it is the same");
    hd_turn_sleep(reader);
    b = hd_batch_begin(arena);
    is_int(slots_after(6), 1, "nothing goes while a batch is open");
    hd_batch_abort(b);
    is_int(slots_after(6), 0, "only then");
    hd_turn_begin(reader);
    hd_slot_hold(reader, hd_slot_find_or_add(arena, HD_RES_CLUSTER, HD_STR("d"), &loom_err));
    hd_turn_sleep(reader);
    hd_member_break_off(reader);
    is_int(slots_after(6), 0, "who leaves holds nothing");
    reader = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    teardown();
}

static void test_gauges_go(void)
{
    hd_slot_t *slot;
    hd_gauge_id_t first;

    setup(0);
    publish(HD_RES_CLUSTER, "c", 1, 2);
    slot = slot_of(HD_RES_CLUSTER, "c");
    ok(hd_slot_add_gauges(arena, slot, 4, &loom_err) == HD_OK, "gauges");
    first = slot->gauges_first;
    hd_gauge_up(reader, first);
    remove_one(slot);
    slots_after(6);
    publish(HD_RES_CLUSTER, "c", 1, 2);
    slot = slot_of(HD_RES_CLUSTER, "c");
    ok(slot->gauges_n == 0 && hd_slot_add_gauges(arena, slot, 4, &loom_err) == HD_OK &&
           slot->gauges_first != first,
       "what is still counted somewhere isn't given to another");
    hd_gauge_down(reader, first);
    remove_one(slot);
    slots_after(8);
    for (int i = 0; i < 300; i++) { /* of 1024 gauges in all, for both writers */
        publish(HD_RES_CLUSTER, "d", 1, 2);
        slot = slot_of(HD_RES_CLUSTER, "d");
        if (hd_slot_add_gauges(arena, slot, 4, &loom_err) != HD_OK)
            diag("round %d: %s", i, loom_err.text);
        remove_one(slot);
        slots_after(8);
    }
    ok(loom_err.code == HD_E_NONE, "gauges come back");
    teardown();
}

static void put_world(uint32_t epoch, uint32_t n)
{
    hd_batch_t *b = hd_batch_begin(arena);

    for (uint32_t i = 0; i < n; i++) {
        char name[64];

        snprintf(name, sizeof(name), "outbound|80||svc-%06u.ns-%06u", i, epoch);
        if (loom_put(b, arena, HD_RES_CLUSTER, name, i, 2) != HD_OK)
            diag("%s", loom_err.text);
    }
    hd_batch_remove_others(b);
    hd_batch_publish(b, 0);
}

static void test_ever_new_names(void)
{
    hd_arena_stats_t first = {0}, last;
    size_t state_bytes = 0;

    setup(0);
    for (uint32_t epoch = 0; epoch < 200; epoch++) {
        put_world(epoch, 100);
        slots_after(6);
        if (epoch == 100) { /* by then short and long ones lie as they come */
            first = stats_now();
            state_bytes = hd_state_bytes_used(state);
        }
    }
    last = stats_now();
    is_int(last.slots, first.slots, "10,000 names later there are as many slots");
    is_int(last.regions_live, first.regions_live, "and regions");
    ok(last.bytes_live <= first.bytes_live &&
           last.bytes_reserved <= first.bytes_reserved + 32 * 1024,
       "and bytes: %lu of %lu before, %lu of %lu now", (long)first.bytes_live,
       (long)first.bytes_reserved, (long)last.bytes_live, (long)last.bytes_reserved);
    is_int((long)hd_state_bytes_used(state), (long)state_bytes, "and shared state");
    ok(hd_arena_open_writer(arena, writer, &loom_err) == HD_OK, "another writer opens it");
    is_int(stats_now().slots, first.slots, "and counts the same");
    put_world(0, 3000);
    slots_after(6);
    put_world(1, 10);
    slots_after(6);
    ok(stats_now().bytes_live < 64 * 1024, "the index of many is gone with them: %lu bytes",
       (long)stats_now().bytes_live);
    teardown();
}

int main(void)
{
    test_publish_and_read();
    test_content();
    test_content_of_long_names();
    test_turns_and_pins();
    test_full_arena();
    test_full_of_entries();
    test_same_bytes_after_many_rounds();
    test_secrets();
    test_clash();
    test_processes();
    test_many_slots();
    test_named_by_regions();
    test_held_and_found();
    test_gauges_go();
    test_ever_new_names();
    return done_testing();
}
