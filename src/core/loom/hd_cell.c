/* Cells and the names of gauges: a *part* of the state arena for each of the two writers.
 *
 *   head | tables of names (each size twice) | records | memory of cells and long names
 *
 * A record is complete before its state is USED, and its name is in the table after
 * that; it leaves the table before its state is DROPPED, and is used again only once
 * every awake member has begun a turn since. So readers take no lock. The writer's half
 * (free records, free memory, free gauges) is private and made anew when one starts.
 */
#include "core/loom/hd_cell_int.h"
#include "core/loom/hd_gauge.h"
#include <stdlib.h>
#include <string.h>

#define TABLE_CELLS(k) ((size_t)64 << (k))
#define TABLES 12
#define RECORDS_MAX ((uint32_t)TABLE_CELLS(TABLES - 1) / 2)
#define GONE UINT32_MAX /* a cell whose name was removed: a search goes on past it */

typedef struct {
    _Atomic uint32_t state; /* 0: free */
    uint32_t kind, hash, name_len;
    uint64_t at;    /* the memory, from the part's start: cell, then name if it is long */
    uint32_t took;  /* 0: there is no memory */
    uint32_t bytes; /* a cell's */
    uint32_t first, n; /* gauges */
    char name[24];     /* one that isn't long; no NUL */
} record_t;

_Static_assert(sizeof(record_t) == 64, "a cell costs its bytes and a line");

enum { RECORD_FREE, RECORD_USED, RECORD_DROPPED };

typedef enum { OWNER_SLOT, OWNER_CELL, OWNERS } owner_t;

struct hd_part_shared_s {
    _Atomic uint32_t table; /* which one is in use, and a count of changes above it */
    _Atomic uint32_t records_n;
};

struct hd_part_s {
    hd_state_t *state;
    hd_part_shared_t *shared;
    int id;
    hd_space_t space;
    uint32_t *free_records;
    uint32_t free_n;
    struct {
        uint32_t record;
        uint64_t seq; /* 0: not given one yet */
    } * dropped;
    uint32_t dropped_n;
    uint32_t used_n; /* cells of the table that are not free */
    uint8_t *gauges; /* taken: one byte each, of this part's half */
    uint32_t gauges_from, gauges_n, gauges_at[OWNERS];
    /* Whose gauges lie in a group: slots' mostly have totals, cells' mostly don't, and
     * are kept apart so that pages of totals are not touched for nothing. */
    uint8_t *groups;
};

static size_t tables_bytes(void)
{
    size_t bytes = 0;

    for (unsigned k = 0; k < TABLES; k++)
        bytes += 2 * hd_align_up(TABLE_CELLS(k) * sizeof(uint64_t), HD_PAGE);
    return bytes;
}

static size_t records_bytes(void)
{
    return hd_align_up(RECORDS_MAX * sizeof(record_t), HD_PAGE);
}

size_t hd_part_layout(const hd_state_conf_t *conf)
{
    return HD_PAGE + tables_bytes() + records_bytes() + conf->cells_bytes;
}

static _Atomic uint64_t *table_at(hd_part_shared_t *p, uint32_t word, size_t *cells)
{
    unsigned which = (word & 255) % (2 * TABLES);
    char *at = (char *)p + HD_PAGE;

    for (unsigned k = 0; k < which / 2; k++)
        at += 2 * hd_align_up(TABLE_CELLS(k) * sizeof(uint64_t), HD_PAGE);
    if (which % 2 != 0)
        at += hd_align_up(TABLE_CELLS(which / 2) * sizeof(uint64_t), HD_PAGE);
    *cells = TABLE_CELLS(which / 2);
    return (_Atomic uint64_t *)at;
}

static record_t *record_at(hd_part_shared_t *p, uint32_t i)
{
    return (record_t *)((char *)p + HD_PAGE + tables_bytes()) + i;
}

static size_t memory_at(void)
{
    return HD_PAGE + tables_bytes() + records_bytes();
}

static const char *name_of(hd_part_shared_t *p, const record_t *r)
{
    return r->name_len <= sizeof(r->name) ? r->name : (const char *)p + r->at + r->bytes;
}

static uint32_t hash_of(uint32_t kind, hd_str_t name)
{
    return (uint32_t)hd_hash64(name.data, name.len, kind);
}

/* Finding */

static record_t *find_in_table(hd_part_shared_t *p, uint32_t word, uint32_t kind,
                               hd_str_t name, uint32_t hash, _Atomic uint64_t **where)
{
    size_t cells;
    _Atomic uint64_t *table = table_at(p, word, &cells);

    for (size_t i = 0; i < cells; i++) {
        _Atomic uint64_t *cell = &table[(hash + i) & (cells - 1)];
        uint64_t v = hd_load(cell, acquire);
        record_t *r;

        if (v == 0)
            break;
        if (v >> 32 != hash || (uint32_t)v == GONE || (uint32_t)v > RECORDS_MAX)
            continue;
        r = record_at(p, (uint32_t)v - 1);
        if (hd_load(&r->state, acquire) != RECORD_USED || r->kind != kind ||
            r->name_len != name.len || memcmp(name_of(p, r), name.data, name.len) != 0)
            continue;
        *where = cell;
        return r;
    }
    return NULL;
}

/* A miss counts only if the table didn't change under the search. */
static record_t *find(hd_part_shared_t *p, uint32_t kind, hd_str_t name,
                      _Atomic uint64_t **where)
{
    uint32_t hash = hash_of(kind, name), word = hd_load(&p->table, acquire), again;
    record_t *r;

    for (;; word = again) {
        r = find_in_table(p, word, kind, name, hash, where);
        again = hd_load(&p->table, acquire);
        if (r != NULL || again == word)
            return r;
    }
}

/* The writer's half */

static void enter(hd_part_t *p, _Atomic uint64_t *table, size_t cells, uint32_t record)
{
    uint32_t hash = record_at(p->shared, record)->hash;
    size_t i = hash;

    while (hd_load(&table[i & (cells - 1)], relaxed) != 0)
        i++;
    hd_store(&table[i & (cells - 1)], (uint64_t)hash << 32 | (record + 1), release);
    p->used_n++;
}

/* Moves all names that are in use to a table with room for one more: the other one of
 * this size, or one of the next. */
static bool move_names(hd_part_t *p, uint32_t live_n)
{
    uint32_t word = hd_load(&p->shared->table, relaxed);
    uint32_t which = (word & 255) % (2 * TABLES), n;
    size_t cells;
    _Atomic uint64_t *table;

    n = hd_load(&p->shared->records_n, relaxed);
    (void)table_at(p->shared, word, &cells);
    which = which % 2 == 0 ? which + 1 : which - 1;
    if ((size_t)live_n * 2 >= cells)
        which = (which / 2 + 1) * 2;
    if (which >= 2 * TABLES)
        return false;
    table = table_at(p->shared, which, &cells);
    for (size_t i = 0; i < cells; i++)
        if (hd_load(&table[i], relaxed) != 0)
            hd_store(&table[i], 0, relaxed);
    p->used_n = 0;
    for (uint32_t i = 0; i < n; i++)
        if (hd_load(&record_at(p->shared, i)->state, relaxed) == RECORD_USED)
            enter(p, table, cells, i);
    hd_store(&p->shared->table, ((word >> 8) + 1) << 8 | which, release);
    return true;
}

static uint32_t records_used(const hd_part_t *p)
{
    return hd_load(&p->shared->records_n, relaxed) - p->free_n - p->dropped_n;
}

static bool take_record(hd_part_t *p, uint32_t *record)
{
    uint32_t n = hd_load(&p->shared->records_n, relaxed);

    if (p->free_n > 0) {
        *record = p->free_records[--p->free_n];
        return true;
    }
    if (n >= RECORDS_MAX)
        return false;
    *record = n;
    hd_store(&p->shared->records_n, n + 1, release);
    return true;
}

static void *grow(void *items, uint32_t n, size_t item_bytes)
{
    if ((n & (n - 1)) != 0) /* room is a power of two */
        return items;
    items = realloc(items, (size_t)(n == 0 ? 1 : n * 2) * item_bytes);
    hd_bug_on(items == NULL);
    return items;
}

static void give_record(hd_part_t *p, uint32_t record)
{
    p->free_records = grow(p->free_records, p->free_n, sizeof(*p->free_records));
    p->free_records[p->free_n++] = record;
}

/* A record with memory for <bytes> and the name, zeroed; not USED yet. */
static record_t *add_record(hd_part_t *p, uint32_t kind, hd_str_t name, size_t bytes)
{
    bool is_long = name.len > sizeof(((record_t *)NULL)->name);
    size_t cells, want = hd_align_up(bytes + (is_long ? name.len : 0), HD_CACHE_LINE);
    uint32_t record;
    record_t *r;
    char *at = (char *)p->shared;

    (void)table_at(p->shared, hd_load(&p->shared->table, relaxed), &cells);
    if ((size_t)(p->used_n + 1) * 4 > cells * 3 && !move_names(p, records_used(p) + 1))
        return NULL;
    if (bytes > UINT32_MAX / 2 || name.len > UINT32_MAX / 4 || !take_record(p, &record))
        return NULL;
    if (want > 0)
        at = hd_space_alloc(&p->space, want);
    if (at == NULL) {
        give_record(p, record);
        return NULL;
    }
    hd_loom_step();
    r = record_at(p->shared, record);
    if (want > 0)
        memset(at, 0, want);
    memcpy(is_long ? at + bytes : r->name, name.data, name.len);
    r->kind = kind;
    r->hash = hash_of(kind, name);
    r->name_len = (uint32_t)name.len;
    r->at = (uint64_t)(at - (char *)p->shared);
    r->took = want > 0 ? (uint32_t)hd_space_round(want) : 0;
    r->bytes = (uint32_t)bytes;
    r->first = r->n = 0;
    return r;
}

static void use_record(hd_part_t *p, record_t *r)
{
    size_t cells;
    _Atomic uint64_t *table =
        table_at(p->shared, hd_load(&p->shared->table, relaxed), &cells);

    hd_store(&r->state, RECORD_USED, release);
    enter(p, table, cells, (uint32_t)(r - record_at(p->shared, 0)));
}

static void add_dropped(hd_part_t *p, uint32_t record)
{
    p->dropped = grow(p->dropped, p->dropped_n, sizeof(*p->dropped));
    p->dropped[p->dropped_n].record = record;
    p->dropped[p->dropped_n++].seq = 0;
}

static void drop_record(hd_part_t *p, record_t *r, _Atomic uint64_t *where)
{
    hd_store(where, (hd_load(where, relaxed) & ~(uint64_t)UINT32_MAX) | GONE, release);
    hd_store(&r->state, RECORD_DROPPED, release);
    add_dropped(p, (uint32_t)(r - record_at(p->shared, 0)));
}

static uint8_t *group_of(const hd_part_t *p, uint32_t i)
{
    return &p->groups[(p->gauges_from + i) / HD_GAUGE_GROUP];
}

static void mark_gauges(hd_part_t *p, uint32_t i, uint32_t n, owner_t owner)
{
    memset(&p->gauges[i], 1, n);
    for (uint32_t at = i; at < i + n; at++)
        if (*group_of(p, at) == 0)
            *group_of(p, at) = (uint8_t)owner + 1;
}

/* Gauges of a part are neighbours in its half of all gauges; 0 is none. */
static hd_gauge_id_t take_gauges(hd_part_t *p, uint32_t n, owner_t owner)
{
    uint32_t run = 0, i = p->gauges_at[owner];

    if (n == 0 || n > p->gauges_n)
        return HD_GAUGE_NONE;
    for (uint32_t tried = 0; tried < p->gauges_n + n; tried++) {
        bool is_free;

        if (i == p->gauges_n)
            i = run = 0; /* neighbours don't reach around the end */
        is_free = p->gauges[i] == 0 &&
                  (*group_of(p, i) == 0 || *group_of(p, i) == (uint8_t)owner + 1);
        run = is_free ? run + 1 : 0;
        i++;
        if (run == n) {
            mark_gauges(p, i - n, n, owner);
            p->gauges_at[owner] = i;
            return p->gauges_from + i - n;
        }
    }
    return HD_GAUGE_NONE;
}

static owner_t owner_of(uint32_t kind)
{
    return kind == HD_CELL_GAUGES ? OWNER_SLOT : OWNER_CELL;
}

static bool may_free(hd_part_t *p, const record_t *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (hd_gauge_sum(p->state, r->first + i) != 0)
            return false;
    return true;
}

static void free_record(hd_part_t *p, uint32_t record)
{
    record_t *r = record_at(p->shared, record);

    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t id = r->first + i;
        hd_total_t *total = &p->state->totals[id];

        if (hd_gauge_may_be_shared(p->state, id) && hd_load(&total->word, relaxed) != 0)
            hd_store(&total->word, 0, relaxed);
        p->gauges[r->first + i - p->gauges_from] = 0;
    }
    if (r->n > 0) { /* taken again before others, so that no more pages are touched */
        uint32_t *at = &p->gauges_at[owner_of(r->kind)];

        *at = hd_min(*at, r->first - p->gauges_from);
    }
    hd_store(&r->state, RECORD_FREE, release);
    if (r->took > 0)
        hd_space_free(&p->space, (char *)p->shared + r->at, r->took);
    give_record(p, record);
}

void hd_part_reclaim(hd_part_t *p, uint64_t floor, _Atomic uint64_t *seq)
{
    uint32_t kept = 0;
    bool raise_seq = false;

    for (uint32_t i = 0; i < p->dropped_n; i++) {
        uint32_t record = p->dropped[i].record;
        uint64_t after = p->dropped[i].seq;

        if (after != 0 && after <= floor && may_free(p, record_at(p->shared, record))) {
            free_record(p, record);
            continue;
        }
        if (after == 0) {
            after = hd_load(seq, relaxed) + 1;
            raise_seq = true;
        }
        p->dropped[kept].record = record;
        p->dropped[kept++].seq = after;
    }
    p->dropped_n = kept;
    if (raise_seq)
        hd_store(seq, hd_load(seq, relaxed) + 1, seq_cst);
}

/* False: the record's fields don't fit the part. */
static bool reopen_record(hd_part_t *p, uint32_t i)
{
    record_t *r = record_at(p->shared, i);
    uint32_t state = hd_load(&r->state, acquire);
    _Atomic uint64_t *where;

    if (state == RECORD_FREE) {
        give_record(p, i);
        return true;
    }
    if ((r->took > 0 && !hd_space_mark(&p->space, (char *)p->shared + r->at, r->took)) ||
        (uint64_t)r->bytes + (r->name_len > sizeof(r->name) ? r->name_len : 0) > r->took)
        return false;
    if (r->n > 0) {
        if (r->first < p->gauges_from || r->n > p->gauges_n ||
            r->first - p->gauges_from > p->gauges_n - r->n)
            return false;
        mark_gauges(p, r->first - p->gauges_from, r->n, owner_of(r->kind));
    }
    if (state == RECORD_DROPPED)
        add_dropped(p, i);
    else if (find(p->shared, r->kind, hd_str_n(name_of(p->shared, r), r->name_len),
                  &where) == NULL)
        use_record(p, r); /* its writer died just before */
    return true;
}

static void count_used_cells(hd_part_t *p)
{
    size_t cells;
    _Atomic uint64_t *table =
        table_at(p->shared, hd_load(&p->shared->table, relaxed), &cells);

    for (size_t i = 0; i < cells; i++)
        p->used_n += hd_load(&table[i], relaxed) != 0;
}

hd_part_t *hd_part_open(hd_state_t *s, int id, hd_err_t *err)
{
    hd_part_t *p = calloc(1, sizeof(*p));
    uint32_t half = s->conf.gauges_max / HD_ARENAS_MAX, n;

    hd_bug_on(p == NULL);
    p->state = s;
    p->shared = s->parts[id];
    p->id = id;
    p->gauges_from = hd_gauges_from(s, (unsigned)id);
    p->gauges_n = half * (uint32_t)(id + 1) - p->gauges_from;
    p->gauges = calloc(1, p->gauges_n);
    p->groups = calloc(1, s->conf.gauges_max / HD_GAUGE_GROUP + 1);
    hd_bug_on(p->gauges == NULL || p->groups == NULL);
    hd_space_init(&p->space, (char *)p->shared + memory_at(), s->conf.cells_bytes, s->fd,
                  (size_t)((char *)p->shared - s->at) + memory_at());
    n = hd_load(&p->shared->records_n, relaxed);
    count_used_cells(p);
    for (uint32_t i = 0; i < n; i++) {
        if (n <= RECORDS_MAX && reopen_record(p, i))
            continue;
        hd_ignore(hd_err_set(err, HD_E_INTERNAL, "record %u of shared cells is bad", i));
        hd_part_close(p);
        return NULL;
    }
    hd_space_finish(&p->space, false);
    return p;
}

void hd_part_close(hd_part_t *p)
{
    if (p == NULL)
        return;
    hd_space_deinit(&p->space);
    free(p->free_records);
    free(p->dropped);
    free(p->gauges);
    free(p->groups);
    free(p);
}

/* For cells and gauges alike */

/* In any part; <*at> is which. */
static record_t *find_anywhere(hd_state_t *s, uint32_t kind, hd_str_t name, int *at,
                               _Atomic uint64_t **where)
{
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        record_t *r = find(s->parts[i], kind, name, where);

        if (r != NULL) {
            *at = i;
            return r;
        }
    }
    return NULL;
}

static hd_part_t *part_of(const hd_member_t *m)
{
    for (int i = 0; i < HD_ARENAS_MAX; i++)
        if (m->parts[i] != NULL)
            return m->parts[i];
    return NULL;
}

static void drop(hd_member_t *m, uint32_t kind, hd_str_t name)
{
    _Atomic uint64_t *where;
    int at;
    record_t *r = find_anywhere(m->state, kind, name, &at, &where);

    if (r != NULL && m->parts[at] != NULL)
        drop_record(m->parts[at], r, where);
}

void *hd_cell_get(hd_member_t *m, uint32_t kind, hd_str_t name, size_t bytes)
{
    _Atomic uint64_t *where;
    hd_part_t *p;
    int at;
    record_t *r = find_anywhere(m->state, kind, name, &at, &where);

    hd_bug_on(kind == HD_CELL_GAUGES);
    if (r != NULL)
        return r->bytes == bytes ? (char *)m->state->parts[at] + r->at : NULL;
    p = part_of(m);
    if (p == NULL)
        return NULL;
    r = add_record(p, kind, name, bytes);
    if (r == NULL)
        return NULL;
    use_record(p, r);
    return (char *)p->shared + r->at;
}

void hd_cell_drop(hd_member_t *m, uint32_t kind, hd_str_t name)
{
    drop(m, kind, name);
}

int hd_cell_part(const hd_member_t *m)
{
    const hd_part_t *p = part_of(m);

    return p != NULL ? p->id : 0;
}

static uint32_t drop_if(hd_member_t *m, hd_part_t *p, uint32_t kind,
                        bool (*is_over)(hd_member_t *m, hd_str_t name, void *cell))
{
    uint32_t n = hd_load(&p->shared->records_n, relaxed), left = 0;

    for (uint32_t i = 0; i < n; i++) {
        record_t *r = record_at(p->shared, i);
        hd_str_t name;
        _Atomic uint64_t *where;

        if (hd_load(&r->state, relaxed) != RECORD_USED || r->kind != kind)
            continue;
        name = hd_str_n(name_of(p->shared, r), r->name_len);
        if (is_over(m, name, (char *)p->shared + r->at) &&
            find(p->shared, kind, name, &where) == r)
            drop_record(p, r, where);
        else
            left++;
    }
    return left;
}

uint32_t hd_cells_drop_if(hd_member_t *m, uint32_t kind,
                          bool (*is_over)(hd_member_t *m, hd_str_t name, void *cell))
{
    uint32_t left = 0;

    for (int i = 0; i < HD_ARENAS_MAX; i++)
        if (m->parts[i] != NULL)
            left += drop_if(m, m->parts[i], kind, is_over);
    return left;
}

hd_gauge_id_t hd_cell_gauges(hd_member_t *m, uint32_t kind, hd_str_t name, uint32_t n)
{
    _Atomic uint64_t *where;
    hd_gauge_id_t first;
    int at;
    record_t *r = find_anywhere(m->state, kind, name, &at, &where);

    if (r == NULL)
        return HD_GAUGE_NONE;
    if (r->n > 0)
        return r->n >= n ? r->first : HD_GAUGE_NONE;
    first = m->parts[at] == NULL ? HD_GAUGE_NONE
                                 : take_gauges(m->parts[at], n, owner_of(kind));
    if (first == HD_GAUGE_NONE)
        return HD_GAUGE_NONE;
    hd_loom_step();
    r->first = first;
    hd_loom_step(); /* a death before here gives them back: they have no owner */
    r->n = n;
    return first;
}

hd_gauge_id_t hd_gauge_get(hd_member_t *m, hd_str_t name, uint32_t n)
{
    _Atomic uint64_t *where;
    hd_part_t *p = part_of(m);
    hd_gauge_id_t first;
    int at;
    record_t *r = find_anywhere(m->state, HD_CELL_GAUGES, name, &at, &where);

    if (r != NULL)
        return r->n >= n ? r->first : HD_GAUGE_NONE;
    first = p == NULL ? HD_GAUGE_NONE : take_gauges(p, n, OWNER_SLOT);
    if (first == HD_GAUGE_NONE)
        return HD_GAUGE_NONE;
    r = add_record(p, HD_CELL_GAUGES, name, 0);
    if (r == NULL) {
        memset(&p->gauges[first - p->gauges_from], 0, n);
        return HD_GAUGE_NONE;
    }
    r->first = first;
    r->n = n;
    use_record(p, r);
    return first;
}

void hd_gauge_drop(hd_member_t *m, hd_str_t name)
{
    drop(m, HD_CELL_GAUGES, name);
}
