/* Rows and totals. A total's word is [shared:1][changes:31][total:32]: each step changes
 * it, so that the healer's compare-and-swap fails if anything moved while it looked.
 *
 * A member's step on a shared total: row->step = gauge; the two stores; row->step = 0.
 * The healer, for one gauge: reads the word; nobody steps the gauge; sums the rows; still
 * nobody steps it; swaps the word for the sum. A step whose swap of the total came before
 * the healer's first read is either finished (its row is in the sum) or still announced.
 * One that moved its row before the sum was taken is either still announced at the second
 * look, or has changed the word since. One that begins later has moved nothing yet.
 */
#include "core/loom/hd_gauge.h"
#include "core/loom/hd_loom_int.h"

#define SHARED ((uint64_t)1 << 63)
#define CHANGE ((uint64_t)1 << 32)

static uint32_t total_of(uint64_t word)
{
    return (uint32_t)word;
}

/* The word after one more change, with <total>. */
static uint64_t next_word(uint64_t word, uint32_t total)
{
    return (word & SHARED) | ((word + CHANGE) & ~(SHARED | UINT32_MAX)) | total;
}

static uint64_t load_word(const hd_state_t *s, hd_gauge_id_t id)
{
    return hd_gauge_may_be_shared(s, id) ? hd_load(&s->totals[id].word, acquire) : 0;
}

static bool is_shared(const hd_state_t *s, hd_gauge_id_t id)
{
    return hd_gauge_may_be_shared(s, id) &&
           (hd_load(&s->totals[id].word, relaxed) & SHARED) != 0;
}

static _Atomic uint32_t *row_of(const hd_state_t *s, uint32_t member, hd_gauge_id_t id)
{
    return &s->gauges[(size_t)member * s->conf.gauges_max + id];
}

/* Says which gauge is being stepped. Whoever sees what follows sees this too: the swap of
 * the total (up) or the row's store (down) releases it. */
static void begin_step(hd_member_t *m, hd_gauge_id_t id)
{
    hd_store(&m->row->step, id, relaxed);
}

static void end_step(hd_member_t *m)
{
    hd_store(&m->row->step, 0, release);
}

static void grow_row(hd_member_t *m, hd_gauge_id_t id)
{
    uint32_t n =
        (uint32_t)hd_min(hd_align_up(id + 1, 256), (size_t)m->state->conf.gauges_max);

    hd_store(&m->row->gauges_n, n, release);
    m->gauges_n = n;
}

static bool is_usable(hd_member_t *m, hd_gauge_id_t id)
{
    if (hd_likely(id - 1 < m->gauges_n - 1 && m->gauges_n != 0))
        return true;
    if (id == HD_GAUGE_NONE || id >= m->state->conf.gauges_max)
        return false;
    grow_row(m, id);
    return true;
}

/* Takes the total up by one below <limit>. */
static bool try_raise_total(hd_member_t *m, hd_gauge_id_t id, uint32_t limit)
{
    _Atomic uint64_t *total = &m->state->totals[id].word;
    uint64_t word = hd_load(total, relaxed);

    do {
        if ((word & SHARED) == 0)
            return true; /* taken away meanwhile */
        if (total_of(word) >= limit)
            return false;
        hd_loom_step();
    } while (
        !atomic_compare_exchange_weak(total, &word, next_word(word, total_of(word) + 1)));
    return true;
}

static void lower_total(const hd_state_t *s, hd_gauge_id_t id, uint32_t n)
{
    _Atomic uint64_t *total = &s->totals[id].word;
    uint64_t word = load_word(s, id);

    do {
        if ((word & SHARED) == 0)
            return;
        hd_loom_step();
    } while (!atomic_compare_exchange_weak(
        total, &word, next_word(word, total_of(word) - hd_min(n, total_of(word)))));
}

bool hd_gauge_try_up(hd_member_t *m, hd_gauge_id_t id, uint32_t limit)
{
    bool may;

    if (!is_usable(m, id))
        return true;
    if (!is_shared(m->state, id)) {
        hd_bump(&m->gauges[id], 1, release);
        return true;
    }
    begin_step(m, id);
    may = try_raise_total(m, id, limit);
    if (may)
        hd_bump(&m->gauges[id], 1, release);
    end_step(m);
    return may;
}

void hd_gauge_up(hd_member_t *m, hd_gauge_id_t id)
{
    bool may = hd_gauge_try_up(m, id, HD_GAUGE_NO_LIMIT);

    hd_bug_on(!may); /* four thousand million of them */
}

void hd_gauge_down(hd_member_t *m, hd_gauge_id_t id)
{
    if (!is_usable(m, id))
        return;
    hd_assert(hd_load(&m->gauges[id], relaxed) > 0);
    if (!is_shared(m->state, id)) {
        hd_bump(&m->gauges[id], (uint32_t)-1, release);
        return;
    }
    begin_step(m, id);
    hd_bump(&m->gauges[id], (uint32_t)-1, release);
    lower_total(m->state, id, 1);
    end_step(m);
}

uint32_t hd_gauge_sum(hd_state_t *s, hd_gauge_id_t id)
{
    uint32_t n = hd_members_n(s), sum = 0;

    if (id == HD_GAUGE_NONE || id >= s->conf.gauges_max)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (id < hd_load(&s->head->rows[i].gauges_n, acquire))
            sum += hd_load(row_of(s, i, id), acquire);
    return sum;
}

uint32_t hd_gauge_read(hd_member_t *m, hd_gauge_id_t id)
{
    uint64_t word;

    if (id == HD_GAUGE_NONE || id >= m->state->conf.gauges_max)
        return 0;
    word = load_word(m->state, id);
    return (word & SHARED) != 0 ? total_of(word) : hd_gauge_sum(m->state, id);
}

static unsigned part_of(const hd_state_t *s, hd_gauge_id_t id)
{
    unsigned part = HD_ARENAS_MAX - 1;

    while (id < hd_gauges_from(s, part))
        part--;
    return part;
}

/* The two writers may share a word of bits. */
static void add_group(hd_state_t *s, uint32_t group)
{
    hd_loom_step();
    atomic_fetch_or(&s->total_groups[group / 64], (uint64_t)1 << group % 64);
}

/* Steps that begin while this runs may be in neither or in both: healed within a second.
 */
void hd_gauge_share(hd_member_t *m, hd_gauge_id_t id, bool shared)
{
    hd_state_t *s = m->state;
    uint64_t word;

    if (id == HD_GAUGE_NONE || id >= s->conf.gauges_max)
        return;
    word = load_word(s, id);
    if (((word & SHARED) != 0) == shared)
        return;
    hd_raise(&s->head->totals_n[part_of(s, id)], id + 1);
    add_group(s, id / HD_GAUGE_GROUP);
    hd_store(&s->totals[id].word,
             shared ? SHARED | (next_word(word, hd_gauge_sum(s, id)) & ~SHARED)
                    : next_word(word, 0) & ~SHARED,
             seq_cst);
}

/* Healing */

static bool is_stepped(const hd_state_t *s, hd_gauge_id_t id)
{
    uint32_t n = hd_members_n(s);

    for (uint32_t i = 0; i < n; i++)
        if (hd_load(&s->head->rows[i].step, seq_cst) == id)
            return true;
    return false;
}

typedef enum { HEALTHY, HEALED, MOVING } heal_t;

static heal_t heal_one(hd_state_t *s, hd_gauge_id_t id)
{
    uint64_t word = hd_gauge_may_be_shared(s, id) ? atomic_load(&s->totals[id].word) : 0;
    uint32_t sum;

    hd_loom_step(); /* no store: here and below a test lets others run */
    if ((word & SHARED) == 0)
        return HEALTHY;
    if (is_stepped(s, id))
        return MOVING;
    hd_loom_step();
    sum = hd_gauge_sum(s, id);
    hd_loom_step();
    if (sum == total_of(word))
        return HEALTHY;
    if (is_stepped(s, id))
        return MOVING;
    hd_loom_step();
    return atomic_compare_exchange_strong(&s->totals[id].word, &word,
                                          next_word(word, sum))
               ? HEALED
               : MOVING;
}

/* Looks at what is in use only: reading a page of the arena for the first time makes it.
 */
static size_t heal_part(hd_state_t *s, unsigned part)
{
    uint32_t n = hd_min(hd_load(&s->head->totals_n[part], acquire), s->conf.gauges_max);
    size_t healed = 0;

    for (hd_gauge_id_t id = hd_gauges_from(s, part); id < n; id++) {
        uint64_t word = load_word(s, id);

        if ((word & SHARED) != 0 && total_of(word) != hd_gauge_sum(s, id))
            healed += heal_one(s, id) == HEALED;
    }
    return healed;
}

size_t hd_gauge_heal(hd_member_t *m)
{
    size_t healed = 0;

    for (unsigned part = 0; part < HD_ARENAS_MAX; part++)
        healed += heal_part(m->state, part);
    return healed;
}

/* Reaping. The dead member's own step is announced while its row is taken back, so that
 * no healer subtracts it a second time; a reaper that dies is run again and finds the row
 * 0, which leaves the total too high until healed. */

bool hd_gauges_are_zero(const hd_state_t *s, int index)
{
    uint32_t n =
        hd_min(hd_load(&s->head->rows[index].gauges_n, relaxed), s->conf.gauges_max);

    for (uint32_t id = 0; id < n; id++)
        if (hd_load(row_of(s, (uint32_t)index, id), relaxed) != 0)
            return false;
    return true;
}

#define HEAL_TRIES 1000 /* then it is the agent's: the gauge is in full use */

static void heal_now(hd_state_t *s, hd_gauge_id_t id)
{
    if (id == HD_GAUGE_NONE || id >= s->conf.gauges_max)
        return;
    for (int i = 0; i < HEAL_TRIES && heal_one(s, id) == MOVING; i++)
        ;
}

void hd_gauges_reap(hd_state_t *s, int index)
{
    hd_row_t *row = &s->head->rows[index];
    uint32_t n = hd_min(hd_load(&row->gauges_n, acquire), s->conf.gauges_max);
    hd_gauge_id_t stepped = hd_load(&row->step, acquire);

    for (hd_gauge_id_t id = 1; id < n; id++) {
        uint32_t held = hd_load(row_of(s, (uint32_t)index, id), relaxed);

        if (held == 0)
            continue;
        hd_store(&row->step, id, seq_cst);
        hd_store(row_of(s, (uint32_t)index, id), 0, release);
        lower_total(s, id, held);
    }
    if (hd_load(&row->step, relaxed) != 0)
        hd_store(&row->step, 0, release);
    heal_now(s, stepped);
}
