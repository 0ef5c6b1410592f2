/* core/loom: cells, gauges, series: exact over members, deaths and restarts. */
#include "core/loom/hd_gauge.h"
#include "core/loom/hd_series.h"
#include "loom_test.h"
#include <unistd.h>

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *writer, *a, *b, *volatile dead[8];
static int dead_n;

static void setup(void)
{
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_DYNAMIC, 0);
    writer = hd_member_start(state, -1, HD_MEMBER_AGENT, &loom_err);
    a = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    b = hd_member_start(state, -1, HD_MEMBER_WORKER, &loom_err);
    if (hd_arena_open_writer(arena, writer, &loom_err) != HD_OK)
        printf("Bail out! %s\n", loom_err.text);
    hd_member_add_arena(a, arena);
    hd_member_add_arena(b, arena);
}

/* As if the process of <m> had been killed here. */
static void die(hd_member_t **m)
{
    int index = hd_member_index(*m);
    hd_member_kind_t kind = hd_member_kind(*m);

    dead[dead_n++] = *m; /* its private memory went with it */
    hd_member_reap(state, index);
    *m = hd_member_start(state, index, kind, &loom_err);
}

static void teardown(void)
{
    hd_member_stop(a);
    hd_member_stop(b);
    hd_member_stop(writer);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

static void reopen_writer(void)
{
    die(&writer);
    if (hd_arena_open_writer(arena, writer, &loom_err) != HD_OK)
        printf("Bail out! %s\n", loom_err.text);
}

static void test_cells(void)
{
    uint64_t *cell, *again;
    hd_gauge_id_t owned;
    bool all = true;

    setup();
    ok(hd_cell_get(a, 1, HD_STR("bucket"), 32) == NULL, "only a writer makes cells");
    cell = hd_cell_get(writer, 1, HD_STR("bucket"), 32);
    ok(cell != NULL && cell[0] == 0 && cell[3] == 0 && (uintptr_t)cell % 64 == 0,
       "zeroed, on a cache line of its own");
    cell[0] = 42;
    ok(hd_cell_get(a, 1, HD_STR("bucket"), 32) == cell, "others find it");
    ok(hd_cell_get(a, 2, HD_STR("bucket"), 32) == NULL, "not under another kind");
    ok(hd_cell_get(writer, 1, HD_STR("bucket"), 64) == NULL, "nor of another size");
    owned = hd_cell_gauges(writer, 1, HD_STR("bucket"), 2);
    ok(owned != HD_GAUGE_NONE &&
           hd_cell_gauges(writer, 1, HD_STR("bucket"), 2) == owned &&
           hd_cell_gauges(a, 1, HD_STR("bucket"), 2) == owned,
       "its own gauges, found again");
    ok(hd_cell_gauges(writer, 1, HD_STR("bucket"), 3) == HD_GAUGE_NONE &&
           hd_cell_gauges(writer, 1, HD_STR("none"), 1) == HD_GAUGE_NONE,
       "not more than it has, none without a cell");
    hd_gauge_up(a, owned + 1);
    for (int i = 0; i < 1000; i++) {
        char name[32];

        snprintf(name, sizeof(name), "cell %d", i);
        again = hd_cell_get(writer, 3, hd_str_c(name), 16);
        all = all && again != NULL && again[0] == 0;
        if (again != NULL)
            again[0] = (uint64_t)i;
    }
    reopen_writer();
    for (int i = 0; i < 1000; i++) {
        char name[32];

        snprintf(name, sizeof(name), "cell %d", i);
        again = hd_cell_get(a, 3, hd_str_c(name), 16);
        all = all && again != NULL && again[0] == (uint64_t)i;
    }
    ok(all, "1000 of them, found again by the next writer");
    ok(hd_cell_get(writer, 1, HD_STR("bucket"), 32) == cell && cell[0] == 42);

    hd_turn_begin(a);
    hd_cell_drop(writer, 1, HD_STR("bucket"));
    ok(hd_cell_get(a, 1, HD_STR("bucket"), 32) == NULL, "dropped");
    hd_arena_reclaim(arena, 0);
    hd_arena_reclaim(arena, 0);
    again = hd_cell_get(writer, 1, HD_STR("new"), 32);
    ok(again != cell && cell[0] == 42, "its memory waits for turns");
    hd_turn_sleep(a);
    hd_arena_reclaim(arena, 0);
    ok(hd_cell_get(writer, 1, HD_STR("newest"), 32) != cell,
       "and until its gauges are 0");
    hd_gauge_down(a, owned + 1);
    hd_arena_reclaim(arena, 0);
    again = hd_cell_get(writer, 1, HD_STR("newer"), 32);
    ok(again == cell && cell[0] == 0, "then it is another's");

    for (int i = 0; i < 200000 && all; i++) { /* names come and go */
        char name[32];

        snprintf(name, sizeof(name), "round %d", i);
        all = hd_cell_get(writer, 9, hd_str_c(name), 8) != NULL;
        hd_cell_drop(writer, 9, hd_str_c(name));
        if (i % 100 == 0)
            hd_arena_reclaim(arena, 0);
    }
    ok(all, "200000 names in turn need no more room");
    teardown();
}

static void test_gauges(void)
{
    hd_gauge_id_t g, h;

    setup();
    g = hd_gauge_get(writer, HD_STR("cluster a"), 4);
    ok(g != HD_GAUGE_NONE && hd_gauge_get(writer, HD_STR("cluster a"), 4) == g);
    ok(hd_gauge_get(a, HD_STR("cluster b"), 4) == HD_GAUGE_NONE, "writers make them");
    hd_gauge_up(a, g);
    hd_gauge_up(b, g);
    ok(hd_gauge_try_up(b, g, 1), "no shared total, no limit");
    is_int(hd_gauge_read(a, g), 3, "the sum of rows");
    hd_gauge_share(writer, g, true);
    is_int(hd_gauge_read(a, g), 3, "a total starts with it");
    ok(!hd_gauge_try_up(a, g, 3) && hd_gauge_try_up(a, g, 4) && !hd_gauge_try_up(b, g, 4),
       "limits are never overshot");
    is_int(hd_gauge_sum(state, g), 4, "rows agree");
    hd_gauge_down(b, g);
    is_int(hd_gauge_read(b, g), 3, "down");
    is_int(hd_gauge_read(a, g + 1), 0, "neighbours don't move");

    die(&b);
    ok(hd_gauge_read(a, g) == 2 && hd_gauge_sum(state, g) == 2,
       "a dead member's share is taken back");
    is_int(hd_gauge_heal(writer), 0, "nothing left to heal");
    hd_gauge_up(b, g);
    reopen_writer();
    ok(hd_gauge_get(writer, HD_STR("cluster a"), 4) == g && hd_gauge_read(a, g) == 3,
       "they outlive their writer");

    hd_gauge_drop(writer, HD_STR("cluster a"));
    h = hd_gauge_get(writer, HD_STR("cluster a"), 4);
    ok(h != g, "the next of that name is new");
    hd_arena_reclaim(arena, 0);
    hd_arena_reclaim(arena, 0);
    is_int(hd_gauge_read(a, g), 3, "the old one lives while counted");
    hd_gauge_down(a, g);
    hd_gauge_down(a, g);
    hd_gauge_down(b, g);
    hd_arena_reclaim(arena, 0);
    for (int i = 0; i < 508; i++) { /* as many as there are: the freed ones come again */
        char name[16];

        snprintf(name, sizeof(name), "g%d", i);
        if (hd_gauge_get(writer, hd_str_c(name), 1) == g)
            h = g;
    }
    ok(h == g, "and is used again after");
    hd_gauge_down(a, HD_GAUGE_NONE);
    ok(hd_gauge_try_up(a, HD_GAUGE_NONE, 0), "none counts nothing");
    teardown();
}

static const char *const labels[] = {"code", "method", NULL};
static const double bounds[] = {1, 5, 10};
static const hd_family_t requests = {
    .name = "requests_total", .help = "Requests.", .kind = HD_COUNTER, .labels = labels};
static const hd_family_t durations = {.name = "duration_ms",
                                      .help = "How long.",
                                      .kind = HD_HISTOGRAM,
                                      .labels = labels,
                                      .buckets = bounds,
                                      .buckets_n = 3};
static const hd_family_t open_now = {
    .name = "open", .help = "Open now.", .kind = HD_SERIES_GAUGE};
static const hd_family_t few = {.name = "few_total",
                                .help = "",
                                .kind = HD_COUNTER,
                                .labels = labels + 1,
                                .series_max = 3};

static bool find_view(const char *family, const char *first_label, hd_series_view_t *view)
{
    uint32_t at = 0;

    while (hd_series_next(state, &at, view))
        if (hd_str_eq(view->family, hd_str_c(family)) &&
            (first_label == NULL ||
             hd_str_eq(view->label_values[0], hd_str_c(first_label))))
            return true;
    return false;
}

static void test_series(void)
{
    hd_str_t ok_get[] = {HD_STR("200"), HD_STR("GET")};
    hd_str_t bad_get[] = {HD_STR("500"), HD_STR("GET")};
    const char *other_labels[] = {"code", NULL};
    hd_family_t other = requests;
    hd_family_id_t f, d, g;
    hd_series_t s, t, u;
    hd_series_view_t v;
    uint32_t at = 0, n = 0;

    setup();
    f = hd_family_enter(a, &requests);
    d = hd_family_enter(b, &durations);
    g = hd_family_enter(b, &open_now);
    ok(f != 0 && d != 0 && g != 0 && hd_family_enter(b, &requests) == f, "families");
    other.labels = other_labels;
    is_int(hd_family_enter(b, &other), 0, "the same name with other labels");
    ok(!hd_series_next(state, &at, &v), "nothing to show yet");
    s = hd_series_enter(a, f, ok_get);
    ok(s != 0 && hd_series_enter(b, f, ok_get) == s, "one series for one label set");
    t = hd_series_enter(b, f, bad_get);
    ok(t != 0 && t != s, "another for another");
    hd_counter_add(a, s, 3);
    hd_counter_add(b, s, 4);
    hd_counter_add(b, t, 1);
    hd_counter_add(b, 0, 1);
    hd_counter_add(b, UINT32_MAX, 1);
    ok(find_view("requests_total", "200", &v) && v.value == 7, "summed");
    ok(v.labels_n == 2 && hd_str_eq(v.label_names[1], HD_STR("method")) &&
           hd_str_eq(v.label_values[1], HD_STR("GET")) &&
           hd_str_eq(v.help, HD_STR("Requests.")) && v.kind == HD_COUNTER,
       "with all that a scrape says of it");

    u = hd_series_enter(a, d, ok_get);
    hd_histogram_observe(a, &durations, u, 0.5);
    hd_histogram_observe(a, &durations, u, 5);
    hd_histogram_observe(b, &durations, u, 5.25);
    hd_histogram_observe(b, &durations, u, 1e9);
    hd_histogram_observe(b, &durations, u, -1);
    ok(find_view("duration_ms", "200", &v) && v.count == 5 && v.buckets[0] == 2 &&
           v.buckets[1] == 1 && v.buckets[2] == 1 && v.buckets[3] == 1,
       "buckets: at most the bound");
    ok(v.sum > 1000000010.7 && v.sum < 1000000010.8 && v.bounds[2] == 10, "sum");

    hd_series_set(a, hd_series_enter(a, g, NULL), 5);
    hd_series_set(b, hd_series_enter(b, g, NULL), 2);
    ok(find_view("open", NULL, &v) && v.value == 7 && v.labels_n == 0, "a gauge");
    die(&b);
    ok(find_view("open", NULL, &v) && v.value == 5, "a dead member's share is gone");
    ok(find_view("requests_total", "200", &v) && v.value == 7, "its counts are not");
    hd_counter_add(b, s, 1);
    ok(find_view("requests_total", "200", &v) && v.value == 8, "its heir goes on");
    at = 0;
    while (hd_series_next(state, &at, &v))
        n++;
    is_int(n, 4, "each once");
    teardown();
}

static void test_cardinality(void)
{
    hd_family_id_t f;
    hd_series_t s[10];
    hd_series_view_t v;
    static char long_value[20000];
    hd_str_t value;
    bool same = true;

    setup();
    f = hd_family_enter(a, &few);
    for (int i = 0; i < 10; i++) {
        char text[16];

        snprintf(text, sizeof(text), "v%d", i);
        value = hd_str_c(text);
        s[i] = hd_series_enter(a, f, &value);
        hd_counter_add(a, s[i], 1);
    }
    for (int i = 3; i < 10; i++)
        same = same && s[i] == s[9];
    ok(same && s[0] != s[9] && s[1] != s[9], "beyond its maximum: one overflow series");
    ok(find_view("few_total", "_overflow", &v) && v.value == 8, "which counts the rest");
    is_int(hd_series_folded(state), 8, "and it is known how many were folded");
    value = HD_STR("v1");
    ok(hd_series_enter(b, f, &value) == s[1], "those that are in are found");

    memset(long_value, 'x', sizeof(long_value));
    value = hd_str_n(long_value, sizeof(long_value));
    f = hd_family_enter(a, &(hd_family_t){.name = "long_total",
                                          .help = "",
                                          .kind = HD_COUNTER,
                                          .labels = labels + 1});
    hd_counter_add(a, hd_series_enter(a, f, &value), 1);
    ok(find_view("long_total", NULL, &v) && v.label_values[0].len == 1024,
       "a long value is cut");
    teardown();
}

static void test_full_table(void)
{
    hd_family_id_t f;
    hd_family_t family = requests;
    hd_series_view_t v;
    uint64_t total = 0;
    uint32_t at = 0, n = 0;

    setup();
    family.series_max = 1000000;
    f = hd_family_enter(a, &family);
    for (int i = 0; i < 20000; i++) {
        char text[16];
        hd_str_t values[2] = {hd_str_n(text, 0), HD_STR("GET")};

        values[0].len = (size_t)snprintf(text, sizeof(text), "%d", i);
        hd_counter_add(i % 2 ? a : b, hd_series_enter(i % 2 ? a : b, f, values), 1);
    }
    while (hd_series_next(state, &at, &v)) {
        total += v.value;
        n++;
    }
    ok(n > 4000 && n < 20000, "%u series fitted", n);
    is_int(total, 20000, "nothing is lost when the table is full");
    is_int(hd_series_folded(state), 20000 - (n - 1),
           "and all that were folded are counted");
    teardown();
}

static uint64_t carried_value(hd_state_t *s, const char *family, const char *first_label)
{
    hd_state_t *mine = state;
    hd_series_view_t v = {.value = 0};
    bool is_there;

    state = s;
    is_there = find_view(family, first_label, &v);
    state = mine;
    return !is_there ? UINT64_MAX : v.kind == HD_HISTOGRAM ? v.count : v.value;
}

/* From one state to the next by name: as often as one likes, and never backwards. */
static void test_carry(void)
{
    hd_str_t get[] = {HD_STR("200"), HD_STR("GET")};
    hd_str_t values[] = {HD_STR("v0"), HD_STR("v1"), HD_STR("w0"), HD_STR("w1")};
    hd_family_t other = requests;
    hd_family_id_t f, d, few_there;
    hd_state_t *next;
    hd_member_t *carrier, *worker;
    hd_err_t err = {0};

    setup();
    next = hd_state_create(NULL, &err);
    worker = hd_member_start(next, 0, HD_MEMBER_WORKER, &err);
    carrier = hd_member_start(next, 5, HD_MEMBER_TOOL, &err);

    f = hd_family_enter(a, &requests);
    d = hd_family_enter(a, &durations);
    hd_counter_add(a, hd_series_enter(a, f, get), 3);
    hd_counter_add(b, hd_series_enter(b, f, get), 4);
    hd_histogram_observe(a, &durations, hd_series_enter(a, d, get), 7.5);
    hd_series_set(a, hd_series_enter(a, hd_family_enter(a, &open_now), NULL), 9);

    /* The next state counts already: in a series of its own, and in a family of three
     * that has no room for another two. */
    hd_counter_add(worker,
                   hd_series_enter(worker, hd_family_enter(worker, &requests), get), 10);
    few_there = hd_family_enter(worker, &few);
    f = hd_family_enter(a, &few);
    for (int i = 0; i < 4; i++) {
        if (i < 2)
            hd_counter_add(a, hd_series_enter(a, f, &values[i]), 5);
        else
            hd_counter_add(worker, hd_series_enter(worker, few_there, &values[i]), 1);
    }

    hd_series_carry(carrier, state);
    is_int(carried_value(next, "requests_total", "200"), 17, "both are in the sum");
    is_int(carried_value(next, "duration_ms", "200"), 1, "a histogram, too");
    is_int(carried_value(next, "open", NULL), UINT64_MAX, "a gauge is not");
    is_int(carried_value(next, "few_total", "_overflow"), 10,
           "what has no room there is in the overflow series");
    hd_counter_add(b, hd_series_enter(b, hd_family_enter(b, &requests), get), 1);
    hd_series_carry(carrier, state);
    hd_series_carry(carrier, state);
    is_int(carried_value(next, "requests_total", "200"), 18,
           "again: what was counted since");
    is_int(carried_value(next, "few_total", "_overflow"), 10, "and nothing twice");

    hd_member_stop(carrier);
    hd_member_reap(next, 5);
    is_int(carried_value(next, "requests_total", "200"), 18,
           "it stays without its member");

    other.name = "shape_total";
    hd_counter_add(a, hd_series_enter(a, hd_family_enter(a, &other), get), 2);
    other.kind = HD_HISTOGRAM;
    other.buckets = bounds;
    other.buckets_n = 3;
    ok(hd_family_enter(worker, &other) != 0, "a family that has another shape there");
    carrier = hd_member_start(next, 5, HD_MEMBER_TOOL, &err);
    hd_series_carry(carrier, state);
    is_int(carried_value(next, "shape_total", "200"), UINT64_MAX, "begins anew");
    is_int(carried_value(next, "requests_total", "200"), 18, "the others don't");
    hd_member_stop(carrier);
    hd_member_stop(worker);
    hd_state_destroy(next);
    teardown();
}

/* As another program sees it: for reading, and only if it is laid out in the same way. */
static void test_other_program(void)
{
    hd_state_conf_t small = {.gauges_max = 1024};
    hd_str_t get[] = {HD_STR("200"), HD_STR("GET")};
    hd_err_t err = {0};
    hd_state_t *mine = hd_state_create(NULL, &err), *other;
    hd_member_t *m = hd_member_start(mine, 3, HD_MEMBER_WORKER, &err);

    hd_counter_add(m, hd_series_enter(m, hd_family_enter(m, &requests), get), 6);
    other = hd_state_open_other(dup(hd_state_fd(mine)), &err);
    ok(other != NULL, "the same layout: it is opened");
    is_int(carried_value(other, "requests_total", "200"), 6, "and read");
    ok(hd_member_is_there(other, 3) && !hd_member_is_there(other, 4), "its members, too");
    hd_member_stop(m);
    ok(!hd_member_is_there(other, 3), "as they come and go");
    hd_state_destroy(other);
    hd_state_destroy(mine);

    mine = hd_state_create(&small, &err);
    ok(hd_state_open_other(dup(hd_state_fd(mine)), &err) == NULL, "another layout: no");
    hd_state_destroy(mine);
    ok(hd_state_open_other(dup(STDERR_FILENO), &err) == NULL, "no state at all: no");
}

int main(void)
{
    test_cells();
    test_gauges();
    test_series();
    test_cardinality();
    test_full_table();
    test_carry();
    test_other_program();
    return done_testing();
}
