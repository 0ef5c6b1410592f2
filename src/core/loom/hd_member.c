#include "core/loom/hd_member.h"
#include "core/loom/hd_arena_int.h"
#include <stdlib.h>
#include <unistd.h>

static bool try_take_row(hd_state_t *s, int index, hd_member_kind_t kind)
{
    uint32_t free_kind = HD_MEMBER_NONE;

    hd_raise(&s->head->members_n, (uint32_t)index + 1);
    hd_loom_step();
    return atomic_compare_exchange_strong(&s->head->rows[index].kind, &free_kind,
                                          (uint32_t)kind);
}

static int take_row(hd_state_t *s, int index, hd_member_kind_t kind)
{
    if (index >= 0)
        return index < HD_MEMBERS_MAX && try_take_row(s, index, kind) ? index : -1;
    for (int i = 0; i < HD_MEMBERS_MAX; i++)
        if (hd_load(&s->head->rows[i].kind, relaxed) == HD_MEMBER_NONE &&
            try_take_row(s, i, kind))
            return i;
    return -1;
}

static void clear_counts(_Atomic uint32_t *counts, uint32_t n, uint32_t max)
{
    n = hd_min(n, max);
    for (uint32_t i = 0; i < n; i++)
        if (hd_load(&counts[i], relaxed) != 0)
            hd_store(&counts[i], 0, release);
}

/* What a dead one left behind in row <index>. */
static void clear_row(hd_state_t *s, int index)
{
    hd_row_t *row = &s->head->rows[index];
    uint32_t max = s->conf.regions_max;

    for (int a = 0; a < HD_ARENAS_MAX; a++) {
        clear_counts(hd_pins_of(s, index, a), hd_load(&row->pins_n[a], acquire), max);
        clear_counts(hd_holds_of(s, index, a), hd_load(&row->holds_n[a], acquire), max);
        hd_store(&row->turn[a], 0, release);
    }
    hd_gauges_reap(s, index);
    hd_labels_reap(s, index);
    hd_series_reap(s, index);
}

hd_member_t *hd_member_start(hd_state_t *s, int index, hd_member_kind_t kind,
                             hd_err_t *err)
{
    int at = take_row(s, index, kind);
    hd_member_t *m;

    if (at < 0) {
        hd_ignore(hd_err_set(err, HD_E_LIMIT,
                             index < 0 ? "all %d member rows are taken"
                                       : "a member row (of %d) is taken: its last owner "
                                         "was not reaped",
                             HD_MEMBERS_MAX));
        return NULL;
    }
    m = calloc(1, sizeof(*m));
    hd_bug_on(m == NULL);
    m->state = s;
    m->index = at;
    m->kind = kind;
    m->row = &s->head->rows[at];
    for (int a = 0; a < HD_ARENAS_MAX; a++) {
        m->pins[a] = hd_pins_of(s, at, a);
        m->holds[a] = hd_holds_of(s, at, a);
        m->pins_n[a] = hd_min(hd_load(&m->row->pins_n[a], relaxed), s->conf.regions_max);
        m->holds_n[a] =
            hd_min(hd_load(&m->row->holds_n[a], relaxed), s->conf.regions_max);
    }
    m->gauges = s->gauges + (size_t)at * s->conf.gauges_max;
    m->gauges_n = hd_min(hd_load(&m->row->gauges_n, relaxed), s->conf.gauges_max);
    m->words = s->words + (size_t)at * s->conf.series_max;
    m->words_n = hd_min(hd_load(&m->row->words_n, relaxed), s->conf.series_max);
    hd_store(&m->row->pid, (uint32_t)getpid(), relaxed);
    return m;
}

__attribute__((unused)) static bool holds_nothing(const hd_member_t *m)
{
    for (int a = 0; a < HD_ARENAS_MAX; a++) {
        for (uint32_t i = 0; i < m->pins_n[a]; i++)
            if (hd_load(&m->pins[a][i], relaxed) != 0)
                return false;
        for (uint32_t i = 0; i < m->holds_n[a]; i++)
            if (hd_load(&m->holds[a][i], relaxed) != 0)
                return false;
    }
    return hd_gauges_are_zero(m->state, m->index);
}

void hd_member_stop(hd_member_t *m)
{
    hd_companions_destroy(m); /* they hold slots */
    hd_assert(holds_nothing(m));
    hd_member_break_off(m);
}

void hd_member_break_off(hd_member_t *m)
{
    hd_companions_destroy(m);
    if (m->is_awake)
        hd_turn_sleep(m);
    for (int a = 0; a < HD_ARENAS_MAX; a++)
        if (m->arenas[a] != NULL && m->arenas[a]->writer == m)
            hd_arena_close_writer(m->arenas[a]);
    clear_row(m->state, m->index);
    hd_store(&m->row->kind, HD_MEMBER_NONE, release);
    free(m);
}

bool hd_member_is_there(const hd_state_t *s, int index)
{
    return hd_load(&s->head->rows[index].kind, acquire) != HD_MEMBER_NONE;
}

void hd_member_reap(hd_state_t *s, int index)
{
    hd_bug_on(index < 0 || index >= HD_MEMBERS_MAX);
    if (hd_load(&s->head->rows[index].kind, acquire) == HD_MEMBER_NONE)
        return;
    clear_row(s, index);
    hd_store(&s->head->rows[index].kind, HD_MEMBER_NONE, release);
}

int hd_member_index(const hd_member_t *m)
{
    return m->index;
}

hd_member_kind_t hd_member_kind(const hd_member_t *m)
{
    return m->kind;
}

hd_state_t *hd_member_state(const hd_member_t *m)
{
    return m->state;
}

void hd_turn_begin(hd_member_t *m)
{
    for (int a = 0; a < HD_ARENAS_MAX; a++) {
        uint64_t seq;

        if (m->arenas[a] == NULL)
            continue;
        seq = hd_load(&m->state->head->arenas[a].seq, seq_cst);
        hd_store(&m->row->turn[a], seq, seq_cst);
        if (seq != m->seen_seq[a]) {
            m->seen_seq[a] = seq;
            m->companions_dirty = true;
        }
    }
    m->is_awake = true;
    if (hd_unlikely(m->companions_dirty))
        hd_companions_sweep(m);
}

void hd_turn_sleep(hd_member_t *m)
{
    for (int a = 0; a < HD_ARENAS_MAX; a++)
        if (m->arenas[a] != NULL)
            hd_store(&m->row->turn[a], 0, release);
    m->is_awake = false;
}

/* Pins */

void hd_member_grow_pins(hd_member_t *m, int arena, uint32_t n)
{
    n = (uint32_t)hd_min(hd_align_up(n, 256), (size_t)m->state->conf.regions_max);
    hd_store(&m->row->pins_n[arena], n, release);
    m->pins_n[arena] = n;
}

void hd_pin(hd_member_t *m, const hd_region_t *r)
{
    _Atomic uint32_t *pins = m->pins[r->arena];

    hd_assert(r->magic == HD_REGION_MAGIC);
    if (hd_unlikely(r->index >= m->pins_n[r->arena]))
        hd_member_grow_pins(m, r->arena, r->index + 1);
    hd_bump(&pins[r->index], 1, relaxed); /* the turn's end publishes it */
}

void hd_unpin(hd_member_t *m, const hd_region_t *r)
{
    uint32_t index = r->index;
    uint8_t arena = r->arena;
    uint32_t n = hd_load(&m->pins[arena][index], relaxed);

    hd_assert(r->magic == HD_REGION_MAGIC && n > 0);
    hd_store(&m->pins[arena][index], n - 1, release); /* <r> may be gone now */
    if (n == 1)
        hd_companions_unpinned(m);
}

/* Holds */

void hd_slot_hold(hd_member_t *m, const hd_slot_t *slot)
{
    _Atomic uint32_t *holds = m->holds[slot->arena];

    if (hd_unlikely(slot->id >= m->holds_n[slot->arena])) {
        uint32_t n = (uint32_t)hd_min(hd_align_up(slot->id + 1, 256),
                                      (size_t)m->state->conf.regions_max);

        hd_store(&m->row->holds_n[slot->arena], n, release);
        m->holds_n[slot->arena] = n;
    }
    hd_bump(&holds[slot->id], 1, relaxed); /* the turn's end publishes it */
}

void hd_slot_let_go(hd_member_t *m, const hd_slot_t *slot)
{
    _Atomic uint32_t *hold = &m->holds[slot->arena][slot->id];
    uint32_t n = hd_load(hold, relaxed);

    hd_assert(n > 0);
    hd_store(hold, n - 1, release); /* <slot> may be another's now */
}
