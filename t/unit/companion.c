/* core/loom/hd_companion: made once, ended with their owner, shared by content. */
#include "core/loom/hd_companion.h"
#include "loom_test.h"

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *writer, *m;
static int made_n, destroyed_n;

static void *make(hd_member_t *member, const void *owner, const void *arg, hd_err_t *err)
{
    (void)member, (void)owner;
    if (arg != NULL && strcmp(arg, "fail") == 0) {
        made_n++;
        hd_ignore(hd_err_set(err, HD_E_CONF, "no such thing"));
        return NULL;
    }
    made_n++;
    return malloc(1);
}

static void destroy(hd_member_t *member, void *companion)
{
    (void)member;
    destroyed_n++;
    free(companion);
}

static const hd_companion_type_t one = {"one", make, destroy};
static const hd_companion_type_t two = {"two", make, destroy};

/* Holds on to one by content, as a resource's TLS settings do. */
static void *make_user(hd_member_t *member, const void *owner, const void *arg,
                       hd_err_t *err)
{
    (void)owner;
    made_n++;
    return hd_companion_of_content(member, &one, HD_STR("tls 1.2"), arg, err);
}

static void destroy_user(hd_member_t *member, void *companion)
{
    destroyed_n++;
    hd_companion_release(member, &one, companion);
}

static const hd_companion_type_t user = {"user", make_user, destroy_user};

static void setup(void)
{
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, 0);
    writer = hd_member_start(state, -1, HD_MEMBER_LOADER, &loom_err);
    m = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    if (hd_arena_open_writer(arena, writer, &loom_err) != HD_OK)
        printf("Bail out! %s\n", loom_err.text);
    hd_member_add_arena(m, arena);
    made_n = destroyed_n = 0;
}

static void teardown(void)
{
    hd_member_stop(m);
    is_int(made_n, destroyed_n, "all are destroyed with their member");
    hd_member_stop(writer);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

static hd_slot_t *publish(const char *name, uint32_t seed)
{
    hd_batch_t *b = hd_batch_begin(arena);

    if (loom_put(b, arena, HD_RES_CLUSTER, name, seed, 5) != HD_OK)
        diag("%s", loom_err.text);
    hd_batch_publish(b, 0);
    hd_arena_reclaim(arena, 0);
    return hd_slot_find(writer, arena, HD_RES_CLUSTER, hd_str_c(name));
}

static void remove_it(hd_slot_t *slot)
{
    hd_batch_t *b = hd_batch_begin(arena);

    hd_batch_remove(b, slot);
    hd_batch_publish(b, 0);
    hd_arena_reclaim(arena, 0);
}

static void next_turn(void)
{
    hd_turn_sleep(m);
    hd_turn_begin(m);
}

static void test_of_region(void)
{
    hd_slot_t *slot;
    const hd_region_t *r;
    void *c, *d;
    hd_err_t err = {.code = HD_E_NONE};

    setup();
    slot = publish("a", 1);
    hd_turn_begin(m);
    r = hd_slot_get(m, slot);
    c = hd_companion_of_region(m, &one, r, NULL, &err);
    ok(c != NULL && hd_companion_of_region(m, &one, r, NULL, &err) == c && made_n == 1,
       "made once");
    d = hd_companion_of_region(m, &two, r, NULL, &err);
    ok(d != c && made_n == 2, "another of another type");
    ok(hd_companion_of_part(m, &one, r, &r->root, NULL, &err) != c && made_n == 3,
       "and of a part");
    ok(hd_companion_of_part(m, &one, r, &r->name, "fail", &err) == NULL && made_n == 4);
    is_str(err.text, "no such thing", "why it failed");
    hd_err_clear(&err);
    ok(hd_companion_of_part(m, &one, r, &r->name, "fail", &err) == NULL && made_n == 4,
       "tried once");
    is_str(err.text, "no such thing", "and told again");

    hd_pin(m, r);
    publish("a", 2);
    next_turn();
    is_int(destroyed_n, 0, "pinned: they stay");
    ok(hd_companion_of_region(m, &one, r, NULL, &err) == c, "and are found");
    ok(hd_companion_of_region(m, &one, hd_slot_get(m, slot), NULL, &err) != c,
       "the new version has its own");
    next_turn();
    hd_unpin(m, r);
    is_int(destroyed_n, 0, "not in the turn that still may use them");
    next_turn();
    is_int(destroyed_n, 3, "but in the next");
    hd_arena_reclaim(arena, 0);
    publish("b", 3); /* in the place of the old one, perhaps */
    next_turn();
    is_int(destroyed_n, 3, "the new version's stays");
    hd_turn_sleep(m);
    made_n--; /* the failed one */
    teardown();
}

static void test_of_slot(void)
{
    hd_slot_t *slot;
    const hd_region_t *r;
    void *c;

    setup();
    slot = publish("a", 1);
    hd_turn_begin(m);
    c = hd_companion_of_slot(m, &one, slot, NULL, NULL);
    r = hd_slot_get(m, slot);
    hd_pin(m, r);
    publish("a", 2);
    next_turn();
    ok(hd_companion_of_slot(m, &one, slot, NULL, NULL) == c, "outlives versions");
    remove_it(slot);
    next_turn();
    is_int(destroyed_n, 0, "removed, but a version of it is pinned");
    hd_unpin(m, r);
    next_turn();
    is_int(destroyed_n, 1, "gone with the last pin");
    hd_turn_sleep(m);
    teardown();
}

static void test_of_content(void)
{
    hd_slot_t *a, *b;
    void *c, *d;

    setup();
    a = publish("a", 1);
    b = publish("b", 1);
    hd_turn_begin(m);
    c = hd_companion_of_region(m, &user, hd_slot_get(m, a), NULL, NULL);
    d = hd_companion_of_region(m, &user, hd_slot_get(m, b), NULL, NULL);
    ok(c == d && made_n == 3, "equal content shares one");
    ok(hd_companion_of_content(m, &one, HD_STR("tls 1.3"), NULL, NULL) != c,
       "other content doesn't");
    is_int(hd_companion_count(m), 4, "counted");
    remove_it(a);
    next_turn();
    is_int(destroyed_n, 1, "one user gone");
    remove_it(b);
    next_turn();
    is_int(destroyed_n, 3, "with the last one it goes, too");
    hd_turn_sleep(m);
    teardown();
}

static void test_many(void)
{
    hd_slot_t *slot;
    const hd_region_t *r;
    bool all = true;

    setup();
    slot = publish("a", 1);
    hd_turn_begin(m);
    r = hd_slot_get(m, slot);
    for (uintptr_t i = 1; i <= 5000; i++)
        all = all && hd_companion_of_part(m, &one, r, (char *)r + i, NULL, NULL) != NULL;
    for (uintptr_t i = 1; i <= 5000; i++)
        all = all && hd_companion_of_part(m, &one, r, (char *)r + i, NULL, NULL) != NULL;
    ok(all && made_n == 5000, "5000 parts, each made once");
    publish("a", 2);
    next_turn();
    ok(destroyed_n == 5000 && hd_companion_count(m) == 0, "all go together");
    hd_turn_sleep(m);
    teardown();
}

int main(void)
{
    test_of_region();
    test_of_slot();
    test_of_content();
    test_many();
    return done_testing();
}
