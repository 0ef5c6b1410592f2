#include "core/loom/hd_slot.h"
#include "core/loom/hd_arena_int.h"
#include "core/loom/hd_gauge.h"
#include <string.h>

#define INDEX_CELLS_MIN 64

const hd_region_t *hd_slot_get(hd_member_t *m, const hd_slot_t *slot)
{
    uint64_t cell = hd_load(&slot->_cell, seq_cst);

    hd_assert(m->is_awake || m->arenas[slot->arena]->writer == m);
    (void)m;
    return hd_cell_region(cell);
}

hd_slot_state_t hd_slot_state(const hd_slot_t *slot)
{
    uint64_t state = hd_load(&slot->_cell, acquire) & HD_CELL_STATE;

    return state == HD_SLOT_FREE ? HD_SLOT_REMOVED : (hd_slot_state_t)state;
}

hd_region_t *hd_slot_set(hd_slot_t *slot, hd_region_t *r, hd_slot_state_t state)
{
    hd_region_t *old = hd_cell_region(hd_load(&slot->_cell, relaxed));

    hd_store(&slot->_cell, (uint64_t)(uintptr_t)r | state, seq_cst);
    return old == r ? NULL : old;
}

/* The index of names */

static uint32_t hash_name(const hd_arena_t *a, hd_res_type_t type, hd_str_t name)
{
    return (uint32_t)hd_hash64(name.data, name.len, a->head->seed + type);
}

static hd_slot_index_t *get_index(const hd_arena_t *a)
{
    uint64_t at = hd_load(&a->head->index, seq_cst);

    /* The root is written once, before the index is published. */
    return at == 0 ? NULL
                   : (hd_slot_index_t *)(uintptr_t)((hd_region_t *)(uintptr_t)at)->root;
}

/* A reader looks at the slot's state first: the name of one that is FREE may be gone. To
 * the writer those that are going are there. */
static hd_slot_t *find_slot(const hd_arena_t *a, hd_res_type_t type, hd_str_t name,
                            bool is_writer)
{
    uint32_t hash = hash_name(a, type, name);
    const hd_slot_index_t *index = get_index(a);

    if (index == NULL)
        return NULL;
    for (uint32_t i = hash;; i++) { /* never full */
        uint64_t cell = hd_load(&index->cells[i & index->mask], acquire);
        hd_slot_t *slot;

        if (cell == 0)
            return NULL;
        if (cell >> 32 != hash || (uint32_t)cell == HD_CELL_GONE)
            continue;
        slot = &a->slots[(uint32_t)cell - 1];
        if (!is_writer && hd_load(&slot->_cell, seq_cst) == HD_SLOT_FREE)
            continue;
        if (slot->type == type && hd_str_eq(slot->name, name))
            return slot;
    }
}

static void add_to_index(hd_arena_t *a, hd_slot_index_t *index, const hd_slot_t *slot)
{
    uint32_t hash = hash_name(a, slot->type, slot->name);
    uint32_t i = hash;

    while (hd_load(&index->cells[i & index->mask], relaxed) != 0)
        i++;
    hd_store(&index->cells[i & index->mask], (uint64_t)hash << 32 | (slot->id + 1),
             release);
    a->index_n++;
}

void hd_slots_index_remove(hd_arena_t *a, const hd_slot_t *slot)
{
    uint32_t hash = hash_name(a, slot->type, slot->name);
    hd_slot_index_t *index = get_index(a);
    uint64_t mine = (uint64_t)hash << 32 | (slot->id + 1);
    uint32_t i = hash;

    while (hd_load(&index->cells[i & index->mask], relaxed) != mine) {
        hd_bug_on(hd_load(&index->cells[i & index->mask], relaxed) == 0);
        i++;
    }
    hd_store(&index->cells[i & index->mask], (uint64_t)hash << 32 | HD_CELL_GONE,
             release);
}

static size_t cells_for(uint32_t names)
{
    size_t cells = INDEX_CELLS_MIN;

    while (cells < (size_t)names * 2 + 2)
        cells *= 2;
    return cells;
}

bool hd_slots_index(hd_arena_t *a, uint64_t now_ns, hd_err_t *err)
{
    uint32_t n = hd_load(&a->head->slots_n, relaxed);
    uint64_t old = hd_load(&a->head->index, relaxed);
    uint64_t seq = hd_load(&a->shared->seq, relaxed) + 1;
    size_t cells = cells_for(hd_slots_used(a));
    hd_slot_index_t *index;
    hd_builder_t b;

    if (!hd_region_begin(&b, a, HD_RES_NONE, HD_STR("slots"), HD_STR_NONE,
                         sizeof(*index) + cells * sizeof(index->cells[0]), err))
        return false;
    index = hd_pool_calloc(b.pool, sizeof(*index) + cells * sizeof(index->cells[0]));
    if (hd_pool_has_failed(b.pool)) {
        hd_region_drop(&b);
        hd_ignore(hd_err_set(err, HD_E_LIMIT, "no room for the index of slots"));
        return false;
    }
    index->mask = (uint32_t)cells - 1;
    a->index_n = 0;
    for (uint32_t i = 0; i < n; i++)
        if (hd_slot_is_named(a, &a->slots[i]))
            add_to_index(a, index, &a->slots[i]);
    hd_region_end(&b, NULL, index, 0);
    hd_region_publish(a, b.region);
    hd_store(&a->head->index, (uint64_t)(uintptr_t)b.region, seq_cst);
    if (old != 0)
        hd_region_retire(a, (hd_region_t *)(uintptr_t)old, seq, now_ns);
    hd_store(&a->shared->seq, seq, seq_cst);
    return true;
}

/* Into the first cell of its chain that holds none; false: it would be too full. */
static bool try_add_to_index(hd_arena_t *a, hd_slot_index_t *index, const hd_slot_t *slot)
{
    uint32_t hash = hash_name(a, slot->type, slot->name), i = hash;
    uint64_t cell;

    while ((cell = hd_load(&index->cells[i & index->mask], relaxed)) != 0 &&
           (uint32_t)cell != HD_CELL_GONE)
        i++;
    if (cell == 0 && (a->index_n + 1) * (uint64_t)4 > (uint64_t)index->mask * 3)
        return false;
    hd_store(&index->cells[i & index->mask], (uint64_t)hash << 32 | (slot->id + 1),
             release);
    a->index_n += cell == 0;
    return true;
}

/* The index that is there, put right: it may lack what its writer added last, and have
 * what that took away. False: it has no room. */
static bool mend_index(hd_arena_t *a)
{
    hd_slot_index_t *index = get_index(a);
    uint32_t n = hd_load(&a->head->slots_n, relaxed);

    if (index == NULL)
        return false;
    a->index_n = 0;
    for (size_t i = 0; i <= index->mask; i++) {
        uint64_t cell = hd_load(&index->cells[i], relaxed);
        uint32_t id = (uint32_t)cell;

        if (cell == 0)
            continue;
        a->index_n++;
        if (id != HD_CELL_GONE &&
            (id - 1 >= n || !hd_slot_is_named(a, &a->slots[id - 1]) ||
             hash_name(a, a->slots[id - 1].type, a->slots[id - 1].name) != cell >> 32))
            hd_store(&index->cells[i], (cell >> 32) << 32 | HD_CELL_GONE, release);
    }
    for (uint32_t i = 0; i < n; i++) {
        const hd_slot_t *slot = &a->slots[i];

        if (hd_slot_is_named(a, slot) &&
            find_slot(a, slot->type, slot->name, true) != slot &&
            !try_add_to_index(a, index, slot))
            return false;
    }
    return true;
}

bool hd_slots_reindex(hd_arena_t *a, uint64_t now_ns, hd_err_t *err)
{
    if (hd_slots_index(a, now_ns, err))
        return true;
    if (!mend_index(a))
        return false;
    hd_err_clear(err);
    return true;
}

void hd_slots_index_fit(hd_arena_t *a, uint64_t now_ns)
{
    const hd_slot_index_t *index = get_index(a);
    hd_err_t err = {.code = HD_E_NONE};

    if (index != NULL && index->mask + (size_t)1 >= 2 * cells_for(hd_slots_used(a)))
        hd_ignore(!hd_slots_index(a, now_ns, &err)); /* no room: the old one serves */
}

/* Finding and adding */

hd_slot_t *hd_slot_find(hd_member_t *m, const hd_arena_t *a, hd_res_type_t type,
                        hd_str_t name)
{
    hd_slot_t *found = NULL;

    hd_assert(m->is_awake || (a != NULL && a->writer == m));
    if (a != NULL)
        return find_slot(a, type, name, false);
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        hd_slot_t *slot;

        if (m->arenas[i] == NULL || hd_load(&m->arenas[i]->head->magic, acquire) == 0)
            continue;
        slot = find_slot(m->arenas[i], type, name, false);
        if (slot != NULL && hd_cell_region(hd_load(&slot->_cell, acquire)) != NULL)
            return slot;
        if (found == NULL)
            found = slot;
    }
    return found;
}

/* The writer may be between turns: it announces one for this look. */
bool hd_slot_has_clash(hd_arena_t *a, hd_res_type_t type, hd_str_t name)
{
    hd_member_t *m = a->writer;
    bool clash = false;

    for (int i = 0; i < HD_ARENAS_MAX && !clash; i++) {
        const hd_arena_t *other = m->arenas[i];
        const hd_slot_t *slot;

        if (other == NULL || other == a || hd_load(&other->head->magic, acquire) == 0)
            continue;
        if (!m->is_awake)
            hd_store(&m->row->turn[i], hd_load(&other->shared->seq, seq_cst), seq_cst);
        slot = find_slot(other, type, name, false);
        clash = slot != NULL && hd_cell_region(hd_load(&slot->_cell, acquire)) != NULL;
        if (!m->is_awake)
            hd_store(&m->row->turn[i], 0, release);
    }
    return clash;
}

/* A place for a slot: one that is free again, or the next. */
static bool take_place(hd_arena_t *a, uint32_t *id)
{
    uint32_t n = hd_load(&a->head->slots_n, relaxed);

    if (a->free_slots_n > 0) {
        *id = a->free_slots[--a->free_slots_n];
        return true;
    }
    if (!hd_arena_reserve_slots(a, n + 1))
        return false;
    memset(&a->slots[n], 0, sizeof(a->slots[n]));
    a->slots[n].id = n;
    a->slots[n].arena = (uint8_t)a->id;
    atomic_init(&a->slots[n]._cell, HD_SLOT_FREE);
    *id = n;
    hd_store(&a->head->slots_n, n + 1, release);
    return true;
}

/* NULL: no room. The name comes last but for the state: with a name it is whole. */
static hd_slot_t *add_slot(hd_arena_t *a, hd_res_type_t type, hd_str_t name)
{
    hd_slot_t *slot;
    hd_piece_t *p;
    uint32_t id;

    if (name.len > a->bytes || !take_place(a, &id))
        return NULL;
    p = hd_space_alloc(&a->data, sizeof(*p) + name.len + 1);
    if (p == NULL) {
        hd_slot_give_free(a, id);
        return NULL;
    }
    hd_loom_step();
    p->bytes = hd_space_round(sizeof(*p) + name.len + 1);
    p->next = 0;
    memcpy(p + 1, name.data, name.len);
    ((char *)(p + 1))[name.len] = '\0';
    slot = &a->slots[id];
    slot->type = (uint8_t)type;
    slot->name.len = name.len;
    hd_loom_step();
    atomic_signal_fence(memory_order_seq_cst); /* another process may go on from here */
    slot->name.data = (char *)(p + 1);
    hd_store(&slot->_cell, HD_SLOT_ABSENT, release);
    hd_store(&a->shared->slots, hd_slots_used(a), relaxed);
    hd_slot_consider(a, slot);
    return slot;
}

hd_slot_t *hd_slot_find_or_add(hd_arena_t *a, hd_res_type_t type, hd_str_t name,
                               hd_err_t *err)
{
    hd_slot_t *slot = find_slot(a, type, name, true);
    hd_slot_index_t *index;

    if (hd_slot_has_clash(a, type, name)) {
        hd_ignore(hd_err_set(err, HD_E_RESOURCE,
                             "\"%.*s\" is defined both in a file and by the control "
                             "plane: rename one of them",
                             HD_STR_ARG(name)));
        return NULL;
    }
    if (slot != NULL) {
        hd_slot_take_back(a, slot);
        return slot;
    }
    index = get_index(a);
    if (index == NULL || (a->index_n + 1) * (uint64_t)4 > (uint64_t)index->mask * 3) {
        if (!hd_slots_index(a, 0, err))
            return NULL;
        index = get_index(a);
    }
    slot = add_slot(a, type, name);
    if (slot == NULL) {
        hd_ignore(hd_err_set(err, HD_E_LIMIT,
                             "no room for another resource's name (%u): raise loom_size",
                             hd_slots_used(a)));
        return NULL;
    }
    add_to_index(a, index, slot);
    return slot;
}

hd_rc_t hd_slot_add_gauges(hd_arena_t *a, hd_slot_t *slot, uint32_t n, hd_err_t *err)
{
    char small[256];
    hd_pool_t *pool;
    hd_str_t name;
    hd_gauge_id_t first;

    if (slot->gauges_n >= n)
        return HD_OK;
    name = hd_slot_gauges_name(slot, small, sizeof(small), &pool);
    first = hd_gauge_get(a->writer, name, n);
    if (pool != NULL)
        hd_pool_destroy(pool);
    if (first == HD_GAUGE_NONE)
        return hd_err_set(err, HD_E_LIMIT, "no room for the gauges of \"%.*s\"",
                          HD_STR_ARG(slot->name));
    hd_loom_step();
    slot->gauges_first = first;
    hd_loom_step();
    slot->gauges_n = n;
    return HD_OK;
}

hd_slot_t *hd_slot_next(const hd_arena_t *a, const hd_slot_t *slot)
{
    uint32_t n = hd_load(&a->head->slots_n, acquire);

    for (uint32_t id = slot == NULL ? 0 : slot->id + 1; id < n; id++)
        if (hd_load(&a->slots[id]._cell, seq_cst) != HD_SLOT_FREE)
            return &a->slots[id];
    return NULL;
}

uint64_t hd_slots_arrived(const hd_arena_t *a, hd_res_type_t type)
{
    return hd_load(&a->head->arrived[type], acquire);
}

bool hd_slots_mark(hd_arena_t *a, hd_err_t *err)
{
    uint32_t n = hd_load(&a->head->slots_n, relaxed);

    if (n > a->regions_max || !hd_arena_reserve_slots(a, n)) {
        hd_ignore(hd_err_set(err, HD_E_INTERNAL, "the arena's table of slots is bad"));
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        const char *name = a->slots[i].name.data;
        hd_piece_t *p = NULL;

        if (name == NULL) {
            if (hd_load(&a->slots[i]._cell, relaxed) != HD_SLOT_FREE)
                hd_store(&a->slots[i]._cell, HD_SLOT_FREE, seq_cst);
            hd_slot_give_free(a, i);
            continue;
        }

        if (name >= a->base && name < a->base + a->bytes)
            p = hd_piece_at(a, hd_arena_offset(a, name) - sizeof(*p));
        if (p == NULL || !hd_space_mark(&a->data, p, p->bytes)) {
            hd_ignore(hd_err_set(err, HD_E_INTERNAL, "slot %u of the arena is bad", i));
            return false;
        }
        hd_slot_take_back(a, &a->slots[i]);
    }
    return true;
}
