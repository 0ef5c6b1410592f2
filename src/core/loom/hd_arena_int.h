/* hd_arena_int: an arena's inside: what lies in its memfd, and the handle of a process.
 *
 *   head page | slots[] | regions[] (where each region is and its state) | pages
 *
 * All of it is written by the one writer, in an order that lets it die at any store: a
 * thing is complete before the store that makes it reachable, and unreachable before its
 * memory is used again. Reachable means: below slots_n, or a word in regions[] that is
 * not FREE. What is free is kept in private memory only.
 */
#pragma once
#include "core/loom/hd_loom_int.h"
#include "core/loom/hd_slot.h"
#include "core/loom/hd_space_int.h"

#define HD_ARENA_BASE 0x7e8000000000u
#define HD_ARENA_SPAN ((uint64_t)64 << 30)
#define HD_ARENA_SECRET_AT ((uint64_t)32 << 30)
#define HD_ARENA_MAGIC 0x616e657261646864u

/* version << 2 | hd_region_state_t */
typedef struct {
    _Atomic uint64_t word;
    uint64_t first; /* offset of its first piece */
} hd_region_entry_t;

#define hd_entry_state(word) ((hd_region_state_t)((word)&3))
#define hd_entry_version(word) ((word) >> 2)

/* Before each piece of a region, and before a slot's name. */
typedef struct {
    uint64_t bytes; /* with this head, as the space gave them */
    uint64_t next;  /* offset of the next piece; 0: none */
} hd_piece_t;

typedef struct {
    _Atomic uint64_t magic; /* stored last */
    uint64_t seed;
    _Atomic uint64_t version;   /* last one given to a region */
    _Atomic uint64_t index;     /* address of the region with the slots' names */
    _Atomic uint32_t slots_n;   /* complete ones */
    _Atomic uint32_t regions_n; /* entries ever used */
    _Atomic uint64_t arrived[HD_RES_TYPES_N]; /* see hd_slots_arrived */
} hd_arena_head_t;

/* The index of names: root of a region of type HD_RES_NONE. */
typedef struct {
    uint32_t mask;
    _Atomic uint64_t cells[]; /* hash << 32 | slot id + 1; 0: free */
#define HD_CELL_GONE UINT32_MAX /* for id + 1: a search goes on past it */
} hd_slot_index_t;

typedef struct {
    uint32_t index;
    uint64_t seq; /* free to go once every awake member has announced it */
    uint64_t since_ns;
} hd_retired_t;

/* A slot on its way out, see hd_slot_life.c. */
typedef struct {
    uint32_t id;
    uint64_t seq; /* a step further once every awake member has announced it */
} hd_going_t;

struct hd_arena_s {
    hd_arena_id_t id;
    hd_state_t *state;
    char *base, *secret_base;
    size_t bytes, secret_bytes; /* of the files */
    size_t data_at;             /* offset of the pages */
    uint32_t regions_max;
    int fd, ro_fd, secret_fd, secret_ro_fd;
    enum { HD_NOT_MAPPED, HD_MAPPED_RO, HD_MAPPED_RW } mapped;

    hd_arena_head_t *head;
    hd_slot_t *slots;
    hd_region_entry_t *regions;
    hd_arena_shared_t *shared; /* in the state arena */

    /* the writer's */
    hd_member_t *writer;
    hd_space_t data, secret;
    size_t slots_reserved, regions_reserved; /* bytes */
    uint32_t *free_entries;
    size_t free_entries_n, free_entries_room;
    hd_retired_t *retired;
    size_t retired_n, retired_room;
    uint32_t index_n;    /* cells of the index that are not free */
    uint32_t batches_n;  /* open ones */
    uint32_t *slot_refs; /* by slot: words of published regions that are its address */
    uint8_t *slot_marks;
    uint32_t *idle_slots, *free_slots;
    hd_going_t *going;
    size_t idle_n, held_n, idle_room, free_slots_n, free_slots_room, going_n, going_room;
};

/* hd_arena.c: the tables' pages up to item <n> may be written; false: no room. */
bool hd_arena_reserve_slots(hd_arena_t *a, uint32_t n) HD_MUST_CHECK;
bool hd_arena_reserve_regions(hd_arena_t *a, uint32_t n) HD_MUST_CHECK;

/* The writer leaves: what it knew privately is gone, the arena stays. */
void hd_arena_close_writer(hd_arena_t *a);

/* hd_region.c */

/* A private list of the writer's with room for one more: <items>, moved at need. */
void *hd_arena_grow(void *items, size_t n, size_t *room, size_t item_bytes);

/* A region being built. */
typedef struct {
    hd_arena_t *arena;
    hd_region_t *region;
    hd_piece_t *first, *last;
    char *at, *end; /* room of the last piece */
    char *content;  /* behind the names */
    hd_piece_t *content_in;
    size_t total;
    hd_pool_t *pool;
} hd_builder_t;

bool hd_region_begin(hd_builder_t *b, hd_arena_t *a, hd_res_type_t type, hd_str_t name,
                     hd_str_t source, size_t size_hint, hd_err_t *err) HD_MUST_CHECK;
void *hd_region_add_secret(hd_builder_t *b, size_t bytes);
/* Of what was built so far, without its name and source: equal for equal content,
 * wherever it lies. Not 0. */
uint64_t hd_region_hash(const hd_builder_t *b, const void *root);
/* Ends building: the pool is gone, the end of the last piece given back. */
void hd_region_end(hd_builder_t *b, const hd_slot_t *slot, const void *root,
                   uint64_t content_hash);
/* Ends building, and the region. */
void hd_region_drop(hd_builder_t *b);
/* One that nobody can know. */
void hd_region_free(hd_arena_t *a, hd_region_t *r);
/* May be stored where readers find it. */
void hd_region_publish(hd_arena_t *a, hd_region_t *r);
/* No reader whose turn began after <seq> can find it. */
void hd_region_retire(hd_arena_t *a, hd_region_t *r, uint64_t seq, uint64_t now_ns);
/* At a writer's start. */
bool hd_regions_mark(hd_arena_t *a, hd_err_t *err) HD_MUST_CHECK;
void hd_regions_retire_lost(hd_arena_t *a, uint64_t seq, uint64_t now_ns);
void hd_regions_count(hd_arena_t *a);

static inline uint64_t hd_arena_offset(const hd_arena_t *a, const void *at)
{
    return (uint64_t)((const char *)at - a->base);
}

/* NULL if no piece can lie there. */
static inline hd_piece_t *hd_piece_at(const hd_arena_t *a, uint64_t offset)
{
    if (offset < a->data_at || offset > a->bytes - sizeof(hd_piece_t) || offset % 16 != 0)
        return NULL;
    return (hd_piece_t *)(a->base + offset);
}

/* hd_slot.c */
#define HD_CELL_STATE 15u

static inline hd_region_t *hd_cell_region(uint64_t cell)
{
    return (hd_region_t *)(uintptr_t)(cell & ~(uint64_t)HD_CELL_STATE);
}

/* A cell's state beside hd_slot_state_t: nobody's, or going. As REMOVED to readers. */
#define HD_SLOT_FREE 5u

bool hd_slots_mark(hd_arena_t *a, hd_err_t *err) HD_MUST_CHECK;
/* A new index over all slots that have a name. */
bool hd_slots_index(hd_arena_t *a, uint64_t now_ns, hd_err_t *err) HD_MUST_CHECK;
/* The same for a writer that opens the arena: where there is no room for another index (what
 * an update that didn't fit has left may lie everywhere), the one that is there serves on. */
bool hd_slots_reindex(hd_arena_t *a, uint64_t now_ns, hd_err_t *err) HD_MUST_CHECK;
void hd_slots_index_remove(hd_arena_t *a, const hd_slot_t *slot);
/* A smaller index, if there are far fewer names than it has room for. */
void hd_slots_index_fit(hd_arena_t *a, uint64_t now_ns);
/* The name is LIVE in another arena that the writer's member reads. */
bool hd_slot_has_clash(hd_arena_t *a, hd_res_type_t type, hd_str_t name);
/* Stores the cell: the commit. Returns the region that was there, if it is another. */
hd_region_t *hd_slot_set(hd_slot_t *slot, hd_region_t *r, hd_slot_state_t state);

/* hd_slot_life.c */
void hd_slots_open(hd_arena_t *a); /* before anything is marked */
void hd_slots_close(hd_arena_t *a);
/* <r> is published, or about to be freed. */
void hd_slots_count_refs(hd_arena_t *a, const hd_region_t *r, bool is_added);
/* It may be idle now: looked at by the next reclaim. */
void hd_slot_consider(hd_arena_t *a, const hd_slot_t *slot);
/* One that is going, or was when its writer died, is in use again. */
void hd_slot_take_back(hd_arena_t *a, hd_slot_t *slot);
void hd_slot_give_free(hd_arena_t *a, uint32_t id);
void hd_slots_reclaim(hd_arena_t *a, uint64_t floor, uint64_t now_ns);
uint32_t hd_slots_used(const hd_arena_t *a);
/* It belongs into the index. */
bool hd_slot_is_named(const hd_arena_t *a, const hd_slot_t *slot);
/* The name of its gauges, in <small> or in *pool, which the caller destroys then. */
hd_str_t hd_slot_gauges_name(const hd_slot_t *slot, char *small, size_t room,
                             hd_pool_t **pool);
