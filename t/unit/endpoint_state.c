/* What outlives versions of endpoints goes once no version has them: ever-new endpoints
 * take no more shared memory than a few rounds of them do. */
#include "loom_test.h"
#include "mesh/hd_endpoint_state.h"

#include <stdatomic.h>

#define EACH 50
#define ROUNDS 200 /* of EACH: 10,000 endpoints */

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *writer, *worker;
static hd_slot_t *slot;
static hd_err_t err;
static hd_member_t *left[64]; /* as dead processes leave them */
static uint32_t left_n;

static void open_writer(void)
{
    writer = hd_member_start(state, 0, HD_MEMBER_AGENT, &err);
    hd_member_add_arena(writer, arena);
    if (hd_arena_open_writer(arena, writer, &err) != HD_OK)
        printf("Bail out! %s\n", err.text);
    slot = hd_slot_find_or_add(arena, HD_RES_ENDPOINTS, HD_STR("c"), &err);
}

static void setup(void)
{
    /* cells of 10,000 endpoints don't fit by far */
    static const hd_state_conf_t conf = {.regions_max = 4096,
                                         .gauges_max = 8192,
                                         .series_max = 64,
                                         .cells_bytes = 512 << 10,
                                         .labels_bytes = 1 << 20};

    state = hd_state_create(&conf, &err);
    arena = loom_arena(state, HD_ARENA_DYNAMIC, (size_t)16 << 20);
    open_writer();
    worker = hd_member_start(state, 1, HD_MEMBER_WORKER, &err);
    hd_member_add_arena(worker, arena);
}

static void teardown(void)
{
    hd_member_stop(worker);
    hd_member_stop(writer);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

/* EACH endpoints from number <first> on, in force. */
static const hd_endpoints_t *publish(uint32_t first, uint32_t max_conns)
{
    hd_batch_t *b = hd_batch_begin(arena);
    hd_pool_t *pool;
    hd_region_t *r = hd_batch_region(b, HD_RES_ENDPOINTS, HD_STR("c"), HD_STR("test:1"),
                                     0, &pool, &err);
    hd_endpoints_t *eps = hd_pool_new(pool, hd_endpoints_t);
    hd_endpoint_t *items = hd_pool_new_n(pool, hd_endpoint_t, EACH);

    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t n = first + i;

        items[i] = (hd_endpoint_t){.weight = 1, .max_conns = max_conns};
        items[i].addr.family = AF_INET;
        items[i].addr.port = 80;
        memcpy(items[i].addr.v4, (uint8_t[]){10, 0, (uint8_t)(n >> 8), (uint8_t)n}, 4);
    }
    *eps = (hd_endpoints_t){.items = items, .n = EACH};
    hd_endpoints_attach_state(writer, HD_STR("c"), eps, false);
    hd_ignore(hd_batch_put(b, slot, r, eps, 0, &err) == HD_OK);
    hd_ignore(hd_batch_publish(b, 1) > 0);
    return eps;
}

static bool all_have_state(const hd_endpoints_t *eps)
{
    for (uint32_t i = 0; i < eps->n; i++)
        if (eps->items[i].state == NULL ||
            eps->items[i].state->requests == HD_GAUGE_NONE ||
            (eps->items[i].max_conns > 0 &&
             eps->items[i].state->conns == HD_GAUGE_NONE))
            return false;
    return true;
}

static void reclaim(void)
{
    hd_ignore(hd_arena_reclaim(arena, 1) == 0);
}

static void test_ever_new(uint32_t max_conns)
{
    size_t early = 0;
    bool all = true;

    setup();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        all = all && all_have_state(publish(i * EACH, max_conns));
        reclaim();
        if (i == ROUNDS / 4)
            early = hd_state_bytes_used(state);
    }
    ok(all, "each of %d endpoints got its state", ROUNDS * EACH);
    ok(hd_state_bytes_used(state) <= early * 3 / 2,
       "about the memory of the first: %zu, %zu", early, hd_state_bytes_used(state));
    teardown();
}

static void sweep(void)
{
    reclaim();
    hd_endpoint_states_sweep(writer, arena);
    reclaim(); /* what was dropped waits for turns */
    reclaim();
}

/* A version that a request holds keeps what it points to; so does the one in force. */
static void test_kept(void)
{
    const hd_endpoints_t *held, *live;
    hd_endpoint_state_t *state_of_held;
    const hd_region_t *r;

    setup();
    held = publish(0, 0);
    state_of_held = held->items[3].state;
    hd_turn_begin(worker);
    r = hd_slot_get(worker, slot);
    hd_pin(worker, r);
    hd_turn_sleep(worker);
    atomic_store(&state_of_held->ejected_until_ns, 7);
    live = publish(EACH, 0);
    atomic_store(&live->items[3].state->ejected_until_ns, 8);
    sweep();
    ok(atomic_load(&state_of_held->ejected_until_ns) == 7 &&
           atomic_load(&live->items[3].state->ejected_until_ns) == 8,
       "those of a pinned version stay, and those in force");
    ok(publish(0, 0)->items[3].state == state_of_held, "found again by name");
    hd_turn_begin(worker);
    hd_unpin(worker, r);
    hd_turn_sleep(worker);
    sweep();
    ok(atomic_load(&state_of_held->ejected_until_ns) == 7, "they are in force again");
    live = publish(EACH, 0);
    ok(atomic_load(&live->items[3].state->ejected_until_ns) == 0,
       "those in no version began anew");
    sweep();
    ok(publish(0, 0)->items[3].state->ejected_until_ns == 0, "the others, too");
    teardown();
}

/* A pooled conn outlives its version: the cell stays for as long as it is counted. */
static void test_counted(void)
{
    hd_endpoint_state_t *s;
    hd_gauge_id_t conns;

    setup();
    s = publish(0, 5)->items[0].state;
    conns = s->conns;
    hd_gauge_up(worker, conns);
    publish(EACH, 5);
    reclaim();
    sweep();
    ok(publish(0, 5)->items[0].state == s && s->conns == conns, "kept while counted");
    publish(EACH, 5);
    hd_gauge_down(worker, conns);
    reclaim();
    atomic_store(&s->wanted, 1);
    sweep();
    s = publish(0, 5)->items[0].state;
    ok(s != NULL && atomic_load(&s->wanted) == 0, "then no more");
    teardown();
}

/* The next writer gives back what the one before it left: nothing is torn down. */
static void next_writer(void)
{
    left[left_n++] = writer; /* its private memory went with it */
    hd_member_reap(state, hd_member_index(writer));
    open_writer();
}

static void test_next_writer(void)
{
    size_t early = 0;
    bool all = true;

    setup();
    for (uint32_t i = 0; i < 60; i++) {
        all = all && all_have_state(publish(i * EACH, 5));
        if (i % 2 == 1)
            next_writer();
        reclaim();
        hd_endpoint_states_sweep(writer, arena);
        if (i % 3 == 1)
            next_writer();
        reclaim();
        if (i == 20)
            early = hd_state_bytes_used(state);
    }
    ok(all && hd_state_bytes_used(state) <= early * 3 / 2,
       "writers come and go: %zu, %zu bytes",
       early, hd_state_bytes_used(state));
    teardown();
}

int main(void)
{
    hd_endpoint_state_register();
    test_ever_new(0);
    test_ever_new(5);
    test_kept();
    test_counted();
    test_next_writer();
    return done_testing();
}
