/* hd_slot: a stable cell: a name and type, and the current version of what it names. ◆
 *
 * Resources refer to one another through slots: updating one of 10,000 clusters touches
 * one slot. A slot stays where it is as long as it has a version, a region in use names
 * it, or somebody holds it: so resources keep pointers to slots, and requests, which pin
 * these resources, too. Who keeps one beyond the turn without such a pin holds it. After
 * that it is given back, and may be another name's. A slot also owns what must outlive versions: balancer
 * state, circuit-breaker gauges, outlier state, statistics (cells and gauges named after
 * it, see hd_state.h).
 *
 *   ABSENT     nobody has it: a route to it answers 503 (response flag NC)
 *   REQUESTED  asked for, nothing came yet
 *   WARMING    a version came and waits for what it needs; the old one, if any, serves
 *   LIVE       hd_slot_get gives the current version
 *   REMOVED    was there; as ABSENT, until a new version comes
 *
 * State and pointer are one word, stored once: readers never see half a change.
 */
#pragma once
#include "core/loom/hd_arena.h"

typedef enum {
    HD_SLOT_ABSENT = 0,
    HD_SLOT_REQUESTED,
    HD_SLOT_WARMING,
    HD_SLOT_LIVE,
    HD_SLOT_REMOVED,
} hd_slot_state_t;

typedef struct hd_slot_s {
    _Atomic uint64_t _cell; /* region address | state */
    uint32_t id;            /* its place in its arena */
    uint8_t arena, type;
    uint16_t _reserved;
    /* gauges of this slot: hd_gauge ids, see hd_gauge.h; 0: none */
    uint32_t gauges_first;
    uint32_t gauges_n;
    hd_str_t name; /* in the arena */
} hd_slot_t;

/* The current version, NULL when there is none. Good until the turn's end, or longer once
 * pinned. <m> is asserted to be awake in debug builds. */
const hd_region_t *hd_slot_get(hd_member_t *m, const hd_slot_t *slot);
hd_slot_state_t hd_slot_state(const hd_slot_t *slot);

/* Keeps <slot> beyond the turn in which it was found; a counter store, no atomic
 * read-modify-write. Balanced by hd_slot_let_go, in the same member. */
void hd_slot_hold(hd_member_t *m, const hd_slot_t *slot);
void hd_slot_let_go(hd_member_t *m, const hd_slot_t *slot);

/* By anyone who is awake: the slot of that name, NULL if none. One hash look-up in shared
 * memory. <a> NULL: in any arena that <m> has added, one that is live first. */
hd_slot_t *hd_slot_find(hd_member_t *m, const hd_arena_t *a, hd_res_type_t type,
                        hd_str_t name);
/* By the writer: found or made (ABSENT). It stays at least until the next reclaim that
 * finds no batch open. NULL: arena full, or the name is LIVE in another
 * arena that the writer's member has added. */
hd_slot_t *hd_slot_find_or_add(hd_arena_t *a, hd_res_type_t type, hd_str_t name,
                               hd_err_t *err);
/* By the writer, before the slot's first version is published: gives it <n> neighbouring
 * gauges. They are found again by the name if they were there. Repeating it is harmless.
 */
hd_rc_t hd_slot_add_gauges(hd_arena_t *a, hd_slot_t *slot, uint32_t n,
                           hd_err_t *err) HD_MUST_CHECK;
/* All slots in order of id; start with NULL. For dumps and rebuilding. Goes on from a
 * slot of an earlier turn, too. */
hd_slot_t *hd_slot_next(const hd_arena_t *a, const hd_slot_t *slot);
/* Grows with each slot of <type> that got a version while it had none: who knows all of
 * them and finds it as before knows that there are no others. */
uint64_t hd_slots_arrived(const hd_arena_t *a, hd_res_type_t type);

/* By the writer: how many slots will be given back without anybody's letting go. */
size_t hd_arena_slots_going(const hd_arena_t *a);
/* Who keeps something in shared state by a slot's name is told that nobody has the slot
 * any more, by whatever process writes. Set once, before an arena is opened. */
typedef void hd_slot_gone_pt(hd_member_t *writer, const hd_slot_t *slot);
void hd_slots_on_gone(hd_slot_gone_pt *gone);
