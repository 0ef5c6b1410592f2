/* hd_loom_int: what only core/loom sees: the layout of the state arena, the member's
 * private half, and how shared words are stored.
 *
 * Memory orders. A slot's cell, a writer's sequence number and a member's announced turn
 * are seq_cst: reclamation rests on their one total order (see hd_region.c). A word that
 * publishes others is stored with release; a counter that one member writes and others
 * read is relaxed. Each store passes hd_loom_step, so that a test can place a death
 * there.
 */
#pragma once
#include "core/base/hd_list.h"
#include "core/loom/hd_arena.h"
#include "core/loom/hd_loom_debug.h"
#include <stdatomic.h>

#define hd_store(p, v, order)                                                            \
    do {                                                                                 \
        hd_loom_step();                                                                  \
        atomic_store_explicit(p, v, memory_order_##order);                               \
    } while (0)
#define hd_load(p, order) atomic_load_explicit(p, memory_order_##order)
/* By the only writer of *p. */
#define hd_bump(p, n, order)                                                             \
    do {                                                                                 \
        hd_loom_step();                                                                  \
        atomic_store_explicit(p, hd_load(p, relaxed) + (n), memory_order_##order);       \
    } while (0)

#define HD_STATE_LAYOUT 5
#define HD_PAGE 4096

/* A member's row: what it alone writes (and its reaper once it is dead). */
typedef struct {
    _Atomic uint32_t kind; /* hd_member_kind_t; NONE: free */
    _Atomic uint32_t pid;
    _Atomic uint64_t turn[HD_ARENAS_MAX]; /* sequence number announced; 0: asleep */
    _Atomic uint32_t step;                /* the gauge it is stepping, see hd_gauge.c */
    /* How far its columns are in use, so that others touch no page beyond. */
    _Atomic uint32_t pins_n[HD_ARENAS_MAX], holds_n[HD_ARENAS_MAX], gauges_n, words_n;
} __attribute__((aligned(2 * HD_CACHE_LINE))) hd_row_t;

/* Of an arena, by its writer. */
typedef struct {
    _Atomic uint64_t seq; /* starts at 1; one more with each batch */
    _Atomic uint64_t regions_live, regions_retired, bytes_live, bytes_retired,
        bytes_reserved, retired_since_ns, batches, slots, published, unchanged;
} __attribute__((aligned(2 * HD_CACHE_LINE))) hd_arena_shared_t;

/* A run of label memory or counter words that one member fills. */
typedef struct {
    _Atomic uint32_t owner; /* member index + 1; 0: nobody's, any may take it */
    _Atomic uint32_t used;  /* bytes or words published */
} hd_chunk_t;

#define HD_LABEL_CHUNK_BYTES 16384
#define HD_WORD_CHUNK 64 /* words */
#define HD_SERIES_TABLES 7
#define HD_SERIES_TABLE_CELLS(i) ((size_t)256 << (2 * (i)))

typedef struct {
    uint64_t magic, layout_hash;
    _Atomic uint32_t members_n; /* rows ever used */
    _Atomic uint32_t families;  /* newest family's record */
    _Atomic uint32_t label_chunks_n, word_chunks_n;
    _Atomic uint32_t totals_n[HD_ARENAS_MAX]; /* a part's shared totals lie below */
    hd_arena_shared_t arenas[HD_ARENAS_MAX];
    hd_row_t rows[HD_MEMBERS_MAX];
} hd_state_head_t;

/* [shared:1][changes:31][total:32] on a line of its own */
typedef struct {
    _Atomic uint64_t word;
} __attribute__((aligned(HD_CACHE_LINE))) hd_total_t;

/* Where a part's things lie, see hd_cell.c. */
typedef struct hd_part_shared_s hd_part_shared_t;
typedef struct hd_part_s hd_part_t; /* its writer's private half */

struct hd_state_s {
    char *at;
    size_t bytes;
    int fd;
    hd_state_conf_t conf;
    hd_state_head_t *head;
    _Atomic uint32_t *pins;   /* [member][arena][region] */
    _Atomic uint32_t *holds;  /* [member][arena][slot] */
    _Atomic uint32_t *gauges; /* [member][gauge] */
    hd_total_t *totals;       /* [gauge]: a group of 64 is a page */
    /* One bit a group: a total in it has been shared. Looked at first, so that a page of
     * totals that nobody needs isn't touched. */
    _Atomic uint64_t *total_groups;
    _Atomic uint64_t *words; /* [member][word] */
    _Atomic uint64_t *tables[HD_SERIES_TABLES];
    hd_chunk_t *label_chunks, *word_chunks;
    uint32_t label_chunks_max, word_chunks_max;
    char *labels;
    hd_part_shared_t *parts[HD_ARENAS_MAX];
    size_t part_bytes;
};

typedef struct hd_companions_s hd_companions_t;

struct hd_member_s {
    hd_state_t *state;
    hd_row_t *row;
    int index;
    hd_member_kind_t kind;
    bool is_awake;
    bool companions_dirty;                 /* some may have lost their owner */
    /* this member's columns */
    _Atomic uint32_t *pins[HD_ARENAS_MAX], *holds[HD_ARENAS_MAX];
    _Atomic uint32_t *gauges;
    _Atomic uint64_t *words;
    uint32_t pins_n[HD_ARENAS_MAX], holds_n[HD_ARENAS_MAX]; /* as in the row */
    uint32_t gauges_n, words_n;
    hd_arena_t *arenas[HD_ARENAS_MAX];                 /* by id; NULL: not added */
    uint64_t seen_seq[HD_ARENAS_MAX];
    hd_part_t *parts[HD_ARENAS_MAX];  /* of which it is the writer */
    uint32_t label_chunk, word_chunk; /* being filled; number + 1 */
    hd_companions_t *companions;
};

static inline _Atomic uint32_t *hd_pins_of(const hd_state_t *s, int member, int arena)
{
    return s->pins +
           ((size_t)member * HD_ARENAS_MAX + (size_t)arena) * s->conf.regions_max;
}

static inline _Atomic uint32_t *hd_holds_of(const hd_state_t *s, int member, int arena)
{
    return s->holds +
           ((size_t)member * HD_ARENAS_MAX + (size_t)arena) * s->conf.regions_max;
}

static inline uint32_t hd_members_n(const hd_state_t *s)
{
    uint32_t n = hd_load(&s->head->members_n, seq_cst);

    return hd_min(n, (uint32_t)HD_MEMBERS_MAX);
}

#define HD_GAUGE_GROUP 64

static inline bool hd_gauge_may_be_shared(const hd_state_t *s, uint32_t id)
{
    uint32_t group = id / HD_GAUGE_GROUP;

    return (hd_load(&s->total_groups[group / 64], relaxed) >> group % 64 & 1) != 0;
}

/* Raises *p to at least <n>; several may do so at once. */
static inline void hd_raise(_Atomic uint32_t *p, uint32_t n)
{
    uint32_t old = hd_load(p, relaxed);

    while (old < n) {
        hd_loom_step();
        if (atomic_compare_exchange_weak(p, &old, n))
            return;
    }
}

/* hd_member.c */
void hd_member_grow_pins(hd_member_t *m, int arena, uint32_t n);

/* The gauges of an arena's writer: ids from here on, up to the next part's. */
static inline uint32_t hd_gauges_from(const hd_state_t *s, unsigned part)
{
    return part == 0 ? 1 : s->conf.gauges_max / HD_ARENAS_MAX * part;
}

/* hd_gauge.c: takes back what member <index> held; its row is nobody's. */
void hd_gauges_reap(hd_state_t *s, int index);
bool hd_gauges_are_zero(const hd_state_t *s, int index);

/* hd_labels.c: finishes or forgets what member <index> was entering, gives its chunks
 * back. */
void hd_labels_reap(hd_state_t *s, int index);
/* hd_series.c: zeroes the member's words of gauges. */
void hd_series_reap(hd_state_t *s, int index);

/* hd_cell.c: the writer's half of a part. */
size_t hd_part_layout(const hd_state_conf_t *conf); /* bytes of a part */
hd_part_t *hd_part_open(hd_state_t *s, int id, hd_err_t *err);
void hd_part_close(hd_part_t *p);
/* Frees what was dropped before every awake member's turn began. <floor>: the lowest turn
 * announced; <seq>: the part's arena's number, raised if something waits for it. */
void hd_part_reclaim(hd_part_t *p, uint64_t floor, _Atomic uint64_t *seq);

/* hd_companion.c */
void hd_companions_sweep(hd_member_t *m);
/* The member let go of a region: a companion may have waited for that. */
void hd_companions_unpinned(hd_member_t *m);
void hd_companions_destroy(hd_member_t *m);
