/* How a slot ends: names that are gone are given back.
 *
 *   used --nothing in it, named by no region, held by nobody--> going (cell: FREE)
 *   going --every awake member has begun a turn since--> out (of the index)
 *   out --every awake member has begun a turn since--> free: for another name
 *
 * Who names it: the writer counts the words in published regions that are its address,
 * once when a region is published and once when that is freed; regions never change. A
 * word that only looks like one keeps a slot longer and does no harm. Who holds it:
 * hd_slot_hold, a row a member. Both are looked at before a slot goes; holds once more
 * when no turn is left that can have found it by its name before: then it is taken back,
 * as it is if it is named again meanwhile.
 *
 * The two waits. After the first nobody can come upon the slot any more but by a cell of
 * the index that he read, and he would find it FREE; after the second nobody is left who
 * read such a cell and compares its name. Deciding loads are seq_cst, as in hd_region.c.
 *
 * While a batch is open nothing goes: its builders have slots in their hands.
 *
 * A writer's death: a slot that is FREE and has a name is taken back, one without a name
 * is free. What regions name is counted anew.
 */
#include "core/loom/hd_arena_int.h"
#include "core/loom/hd_gauge.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTED = 1, OUT = 2 }; /* a slot's marks: among the idle; out of the index */

static hd_slot_gone_pt *on_gone; /* of the program: set at its start */

void hd_slots_on_gone(hd_slot_gone_pt *gone)
{
    on_gone = gone;
}

static uint64_t cell_of(const hd_slot_t *slot)
{
    return hd_load(&slot->_cell, relaxed);
}

/* Nothing is in it, and nothing was asked for. */
static bool is_idle(const hd_slot_t *slot)
{
    return cell_of(slot) == HD_SLOT_ABSENT || cell_of(slot) == HD_SLOT_REMOVED;
}

static bool is_held(const hd_arena_t *a, uint32_t id)
{
    const hd_state_t *s = a->state;
    uint32_t n = hd_members_n(s);

    for (uint32_t i = 0; i < n; i++)
        if (id < hd_load(&s->head->rows[i].holds_n[a->id], acquire) &&
            hd_load(&hd_holds_of(s, (int)i, (int)a->id)[id], acquire) != 0)
            return true;
    return false;
}

void hd_slot_consider(hd_arena_t *a, const hd_slot_t *slot)
{
    uint32_t id = slot->id;

    if ((a->slot_marks[id] & LISTED) != 0 || a->slot_refs[id] > 0 || !is_idle(slot))
        return;
    a->slot_marks[id] |= LISTED;
    a->idle_slots =
        hd_arena_grow(a->idle_slots, a->idle_n, &a->idle_room, sizeof(*a->idle_slots));
    a->idle_slots[a->idle_n++] = id;
}

void hd_slot_take_back(hd_arena_t *a, hd_slot_t *slot)
{
    if (cell_of(slot) == HD_SLOT_FREE)
        hd_store(&slot->_cell, HD_SLOT_ABSENT, seq_cst);
    hd_slot_consider(a, slot);
}

/* Whom regions name */

static void add_ref(hd_arena_t *a, uint32_t id)
{
    hd_slot_t *slot = &a->slots[id];

    a->slot_refs[id]++;
    if (id < hd_load(&a->head->slots_n, relaxed) && cell_of(slot) == HD_SLOT_FREE &&
        slot->name.data != NULL && (a->slot_marks[id] & OUT) == 0)
        hd_slot_take_back(a, slot); /* it was going */
}

static void remove_ref(hd_arena_t *a, uint32_t id)
{
    hd_assert(a->slot_refs[id] > 0);
    if (a->slot_refs[id] > 0 && --a->slot_refs[id] == 0 &&
        id < hd_load(&a->head->slots_n, relaxed))
        hd_slot_consider(a, &a->slots[id]);
}

void hd_slots_count_refs(hd_arena_t *a, const hd_region_t *r, bool is_added)
{
    void (*count)(hd_arena_t *, uint32_t) = is_added ? add_ref : remove_ref;
    const hd_piece_t *p = (const hd_piece_t *)r - 1;
    const char *at = (const char *)(r + 1);
    uint64_t span = (uint64_t)a->regions_max * sizeof(hd_slot_t);

    if (a->slot_refs == NULL || r->slot == NULL) /* being opened; the index */
        return;
    count(a, r->slot->id);
    for (;;) {
        const char *end = (const char *)p + p->bytes;

        for (; at < end; at += sizeof(uint64_t)) {
            uint64_t word;

            memcpy(&word, at, sizeof(word));
            word -= (uintptr_t)a->slots;
            if (hd_unlikely(word < span) && word % sizeof(hd_slot_t) == 0)
                count(a, (uint32_t)(word / sizeof(hd_slot_t)));
        }
        if (p->next == 0)
            return;
        p = (const hd_piece_t *)(a->base + p->next);
        at = (const char *)(p + 1);
    }
}

/* Freeing */

hd_str_t hd_slot_gauges_name(const hd_slot_t *slot, char *small, size_t room,
                             hd_pool_t **pool)
{
    int n = snprintf(small, room, "slot %u.%u %.*s", slot->arena, slot->type,
                     HD_STR_ARG(slot->name));

    *pool = NULL;
    if ((size_t)n < room)
        return hd_str_n(small, (size_t)n);
    *pool = hd_pool_create(0);
    return hd_str_printf(*pool, "slot %u.%u %.*s", slot->arena, slot->type,
                         HD_STR_ARG(slot->name));
}

static void drop_gauges(hd_arena_t *a, hd_slot_t *slot)
{
    char small[256];
    hd_pool_t *pool;
    hd_str_t name = hd_slot_gauges_name(slot, small, sizeof(small), &pool);

    hd_loom_step();
    slot->gauges_n = 0;
    slot->gauges_first = HD_GAUGE_NONE;
    hd_gauge_drop(a->writer, name);
    if (pool != NULL)
        hd_pool_destroy(pool);
}

void hd_slot_give_free(hd_arena_t *a, uint32_t id)
{
    a->free_slots = hd_arena_grow(a->free_slots, a->free_slots_n, &a->free_slots_room,
                                  sizeof(*a->free_slots));
    a->free_slots[a->free_slots_n++] = id;
}

static void free_slot(hd_arena_t *a, uint32_t id)
{
    hd_slot_t *slot = &a->slots[id];
    hd_piece_t *name = (hd_piece_t *)(uintptr_t)slot->name.data - 1;

    if (on_gone != NULL)
        on_gone(a->writer, slot);
    drop_gauges(a, slot);
    hd_loom_step();
    slot->name = HD_STR_NONE; /* from here on it is free */
    hd_loom_step();
    hd_space_free(&a->data, name, name->bytes);
    a->slot_marks[id] = 0;
    hd_slot_give_free(a, id);
    hd_store(&a->shared->slots, hd_slots_used(a), relaxed);
}

uint32_t hd_slots_used(const hd_arena_t *a)
{
    return hd_load(&a->head->slots_n, relaxed) - (uint32_t)a->free_slots_n;
}

bool hd_slot_is_named(const hd_arena_t *a, const hd_slot_t *slot)
{
    return slot->name.data != NULL && (a->slot_marks[slot->id] & OUT) == 0;
}

/* The idle ones that nobody can have: readers don't find them from here on. */
static bool let_idle_go(hd_arena_t *a, uint64_t seq)
{
    size_t kept = 0, n = a->idle_n;
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        uint32_t id = a->idle_slots[i];
        hd_slot_t *slot = &a->slots[id];

        if (a->slot_refs[id] == 0 && is_idle(slot) && is_held(a, id)) {
            a->idle_slots[kept++] = id;
            continue;
        }
        a->slot_marks[id] &= (uint8_t)~LISTED;
        if (a->slot_refs[id] > 0 || !is_idle(slot))
            continue;
        hd_store(&slot->_cell, HD_SLOT_FREE, seq_cst);
        a->going =
            hd_arena_grow(a->going, a->going_n, &a->going_room, sizeof(*a->going));
        a->going[a->going_n++] = (hd_going_t){.id = id, .seq = seq};
        any = true;
    }
    a->idle_n = a->held_n = kept;
    return any;
}

/* One step on for those whose wait is over. True: some wait for <seq> now. */
static bool move_going(hd_arena_t *a, uint64_t floor, uint64_t seq)
{
    size_t kept = 0, n = a->going_n;
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        hd_going_t it = a->going[i];
        hd_slot_t *slot = &a->slots[it.id];
        bool is_out = (a->slot_marks[it.id] & OUT) != 0;

        if (cell_of(slot) != HD_SLOT_FREE) { /* named again */
            hd_slot_consider(a, slot);
            continue;
        }
        if (it.seq > floor) {
            a->going[kept++] = it;
        } else if (is_out) {
            free_slot(a, it.id);
        } else if (is_held(a, it.id)) { /* somebody had found it before */
            hd_slot_take_back(a, slot);
        } else {
            hd_slots_index_remove(a, slot);
            a->slot_marks[it.id] |= OUT;
            a->going[kept++] = (hd_going_t){.id = it.id, .seq = seq};
            any = true;
        }
    }
    a->going_n = kept;
    return any;
}

void hd_slots_reclaim(hd_arena_t *a, uint64_t floor, uint64_t now_ns)
{
    uint64_t seq = hd_load(&a->shared->seq, relaxed) + 1;
    size_t free_before = a->free_slots_n;
    bool any = move_going(a, floor, seq);

    if (a->batches_n == 0)
        any |= let_idle_go(a, seq);
    if (any)
        hd_store(&a->shared->seq, seq, seq_cst);
    if (a->free_slots_n > free_before)
        hd_slots_index_fit(a, now_ns);
}

size_t hd_arena_slots_going(const hd_arena_t *a)
{
    return a->going_n + a->idle_n - a->held_n;
}

/* A writer's start and end */

void hd_slots_open(hd_arena_t *a)
{
    a->slot_refs = calloc(a->regions_max, sizeof(*a->slot_refs));
    a->slot_marks = calloc(a->regions_max, 1);
    hd_bug_on(a->slot_refs == NULL || a->slot_marks == NULL);
    a->batches_n = 0;
}

void hd_slots_close(hd_arena_t *a)
{
    free(a->slot_refs);
    free(a->slot_marks);
    free(a->idle_slots);
    free(a->going);
    free(a->free_slots);
    a->slot_refs = a->idle_slots = a->free_slots = NULL;
    a->slot_marks = NULL;
    a->going = NULL;
    a->idle_n = a->held_n = a->idle_room = a->going_n = a->going_room = 0;
    a->free_slots_n = a->free_slots_room = 0;
}
