/* Regions: building, retiring, reclaiming.
 *
 * Why a retired region is free once every awake member has announced a number >= seq:
 * the writer stores the slot, then the number, then reads the members' turns; a member
 * reads the number, stores its turn, then reads slots; all of these are seq_cst. If the
 * writer misses a member's turn, that turn comes later in the one order, and so do its
 * reads of slots: they find the new version. If it sees seq or more, the member began
 * after the slot was stored. Only then its pins are read: it can add none any more.
 */
#include "core/loom/hd_region.h"
#include "core/loom/hd_arena_int.h"
#include "core/os/hd_os.h"
#include <stdlib.h>
#include <string.h>

#define PIECE_MIN 256
#define PIECE_MAX (256 * 1024)

/* Entries */

/* A full arena still has room for what a writer needs to open it. */
#define OWN_ENTRIES 16

static bool take_entry(hd_arena_t *a, bool is_own, uint32_t *index)
{
    uint32_t n = hd_load(&a->head->regions_n, relaxed);

    if (!is_own && n - a->free_entries_n + OWN_ENTRIES >= a->regions_max)
        return false;
    if (a->free_entries_n > 0) {
        *index = a->free_entries[--a->free_entries_n];
        return true;
    }
    if (!hd_arena_reserve_regions(a, n + 1))
        return false;
    *index = n;
    hd_store(&a->head->regions_n, n + 1, release);
    return true;
}

void *hd_arena_grow(void *items, size_t n, size_t *room, size_t item_bytes)
{
    if (n < *room)
        return items;
    *room = hd_max(*room * 2, (size_t)64);
    items = realloc(items, *room * item_bytes);
    hd_bug_on(items == NULL);
    return items;
}

static void give_entry(hd_arena_t *a, uint32_t index)
{
    a->free_entries = hd_arena_grow(a->free_entries, a->free_entries_n,
                                    &a->free_entries_room, sizeof(*a->free_entries));
    a->free_entries[a->free_entries_n++] = index;
}

static void set_entry_state(hd_arena_t *a, uint32_t index, hd_region_state_t state)
{
    uint64_t word = hd_load(&a->regions[index].word, relaxed);

    hd_store(&a->regions[index].word, (word & ~(uint64_t)3) | state, release);
}

static hd_region_t *region_of(const hd_arena_t *a, uint32_t index)
{
    hd_piece_t *first = hd_piece_at(a, a->regions[index].first);

    return first == NULL ? NULL : (hd_region_t *)(first + 1);
}

static void note_reserved(hd_arena_t *a)
{
    uint64_t bytes = (a->data.pages_used + a->secret.pages_used) * HD_PAGE;

    if (hd_load(&a->shared->bytes_reserved, relaxed) != bytes)
        hd_store(&a->shared->bytes_reserved, bytes, relaxed);
}

bool hd_region_holds(hd_member_t *m, const hd_region_t *r, const void *p)
{
    const hd_arena_t *a = m->arenas[r->arena];
    const hd_piece_t *piece = (const hd_piece_t *)r - 1;

    for (;;) {
        if ((const char *)p >= (const char *)piece &&
            (const char *)p < (const char *)piece + piece->bytes)
            return true;
        if (piece->next == 0)
            return false;
        piece = (const hd_piece_t *)(a->base + piece->next);
    }
}

/* Freeing */

static void free_secrets(hd_arena_t *a, hd_region_t *r)
{
    uint64_t at, next;

    for (at = r->_secrets; at != 0; at = next) {
        hd_piece_t *p = (hd_piece_t *)(a->secret_base + (at - 1));
        size_t bytes = p->bytes;

        next = p->next;
        r->_secrets = next; /* a death here loses the piece to rebuild, which wipes it */
        hd_loom_step();
        hd_os_wipe(p, bytes);
        hd_space_free(&a->secret, p, bytes);
    }
}

void hd_region_free(hd_arena_t *a, hd_region_t *r)
{
    uint32_t index = r->index;
    hd_piece_t *p = (hd_piece_t *)r - 1;
    uint64_t next;

    if (hd_entry_state(hd_load(&a->regions[index].word, relaxed)) != HD_REGION_BUILDING)
        hd_slots_count_refs(a, r, false);
    free_secrets(a, r);
    set_entry_state(a, index, HD_REGION_FREE); /* from here on its memory is free */
    r->magic = 0;
    for (;;) {
        next = p->next;
        hd_space_free(&a->data, p, p->bytes);
        if (next == 0)
            break;
        p = (hd_piece_t *)(a->base + next);
    }
    give_entry(a, index);
    note_reserved(a);
}

/* Building */

static hd_piece_t *take_piece(hd_arena_t *a, size_t bytes)
{
    hd_piece_t *p = hd_space_alloc(&a->data, bytes);

    if (p == NULL)
        return NULL;
    hd_loom_step();
    p->bytes = hd_space_round(bytes);
    p->next = 0;
    memset(p + 1, 0, p->bytes - sizeof(*p)); /* gaps count in a hash of the content */
    return p;
}

/* What is left of the last piece goes back: no more comes into it. */
static void trim_last(hd_builder_t *b)
{
    hd_piece_t *last = b->last;
    size_t bytes = last->bytes, used = (size_t)(b->at - (char *)last);
    size_t kept = hd_space_trimmed(bytes, used);

    if (kept == bytes)
        return;
    hd_loom_step();
    last->bytes = kept;
    hd_space_trim(&b->arena->data, last, bytes, used);
    b->end = (char *)last + kept;
    b->total -= bytes - kept;
}

static bool add_piece(hd_builder_t *b, size_t need)
{
    size_t want = hd_min(hd_max(b->total / 2, (size_t)PIECE_MIN), (size_t)PIECE_MAX);
    hd_piece_t *p = take_piece(b->arena, hd_max(want, need));

    if (p == NULL && want > need)
        p = take_piece(b->arena, need);
    if (p == NULL)
        return false;
    trim_last(b);
    hd_loom_step();
    b->last->next = hd_arena_offset(b->arena, p);
    b->last = p;
    b->total += p->bytes;
    b->at = (char *)(p + 1);
    b->end = (char *)p + p->bytes;
    return true;
}

static void *take_bytes(void *owner, size_t bytes, size_t align)
{
    hd_builder_t *b = owner;
    char *at = (char *)hd_align_up((uintptr_t)b->at, align);

    hd_loom_step();
    if (at > b->end || (size_t)(b->end - at) < bytes) {
        if (bytes > b->arena->bytes || !add_piece(b, bytes + sizeof(hd_piece_t)))
            return NULL;
        at = b->at;
    }
    b->at = at + bytes;
    return at;
}

static const hd_pool_source_t region_source = {.take = take_bytes};

bool hd_region_begin(hd_builder_t *b, hd_arena_t *a, hd_res_type_t type, hd_str_t name,
                     hd_str_t source, size_t size_hint, hd_err_t *err)
{
    size_t head = sizeof(hd_piece_t) + sizeof(hd_region_t);
    size_t want = size_hint == 0 ? 512 : head + size_hint + name.len + source.len + 32;
    uint64_t version = hd_load(&a->head->version, relaxed) + 1;
    hd_piece_t *p = NULL;
    hd_region_t *r;
    uint32_t index;

    if (!take_entry(a, type == HD_RES_NONE, &index)) {
        hd_ignore(hd_err_set(err, HD_E_LIMIT, "the arena holds %u resources already",
                             a->regions_max));
        return false;
    }
    if (size_hint < a->bytes)
        p = take_piece(a, want);
    if (p == NULL) {
        give_entry(a, index);
        hd_ignore(hd_err_set(err, HD_E_LIMIT,
                             "no room in the arena (%zu MB): raise loom_size",
                             (a->bytes - a->data_at) >> 20));
        return false;
    }
    r = (hd_region_t *)(p + 1);
    memset(r, 0, sizeof(*r));
    r->magic = HD_REGION_MAGIC;
    r->arena = (uint8_t)a->id;
    r->type = (uint8_t)type;
    r->index = index;
    r->version = version;
    atomic_init(&r->state, HD_REGION_BUILDING);
    hd_store(&a->head->version, version, relaxed);
    a->regions[index].first = hd_arena_offset(a, p);
    hd_store(&a->regions[index].word, version << 2 | HD_REGION_BUILDING, release);
    *b = (hd_builder_t){.arena = a, .region = r, .first = p, .last = p};
    b->at = (char *)(r + 1);
    b->end = (char *)p + p->bytes;
    b->total = p->bytes;
    b->pool = hd_pool_create_on(&region_source, b);
    r->name = hd_str_dup(b->pool, name);
    r->source = hd_str_dup(b->pool, source);
    b->at = (char *)hd_align_up((uintptr_t)b->at, 8);
    b->content = b->at;
    b->content_in = b->last;
    return true;
}

void *hd_region_add_secret(hd_builder_t *b, size_t bytes)
{
    hd_arena_t *a = b->arena;
    size_t want = bytes + sizeof(hd_piece_t);
    hd_piece_t *p = bytes < a->secret_bytes ? hd_space_alloc(&a->secret, want) : NULL;

    if (p == NULL)
        return NULL;
    hd_loom_step();
    p->bytes = hd_space_round(want);
    p->next = b->region->_secrets;
    memset(p + 1, 0, bytes);
    hd_loom_step();
    b->region->_secrets = (uint64_t)((char *)p - a->secret_base) + 1;
    if (b->region->secret == NULL)
        b->region->secret = p + 1;
    note_reserved(a);
    return p + 1;
}

/* Content */

/* A pointer into the region counts as where it leads to, wherever the region lies: counted
 * from where the content begins or, to a name before it, from its piece's begin. One to a
 * slot, or a slot's name, is the same in each build. */
static uint64_t normal_word(const hd_builder_t *b, uint64_t word)
{
    const hd_arena_t *a = b->arena;
    uint64_t before = 0;
    bool is_content = false;

    if (word < (uintptr_t)a->base || word >= (uintptr_t)a->base + a->bytes)
        return word;
    for (const hd_piece_t *p = b->first;; p = (hd_piece_t *)(a->base + p->next)) {
        uint64_t start = (uintptr_t)p, from = start, end = start + p->bytes;

        if (p == b->content_in) {
            from = (uintptr_t)b->content;
            is_content = true;
        }
        if (word >= start && word <= end) /* the end is an empty string's */
            return is_content && word >= from ? 1 + before + (word - from)
                                              : ~(word - start);
        before += is_content ? end - from : 0;
        if (p->next == 0)
            return word;
    }
}

uint64_t hd_region_hash(const hd_builder_t *b, const void *root)
{
    uint64_t words[64];
    uint64_t hash = normal_word(b, (uintptr_t)root);
    const char *from = b->content;
    const hd_piece_t *p = b->content_in; /* names may fill a piece of their own */

    for (;;) {
        const char *end = p == b->last ? b->at : (const char *)p + p->bytes;
        size_t n = 0;

        for (const char *at = from; at < end; at += sizeof(words[0])) {
            uint64_t word = 0;

            memcpy(&word, at, hd_min(sizeof(word), (size_t)(end - at)));
            words[n++] = normal_word(b, word);
            if (n == hd_countof(words) || at + sizeof(word) >= end) {
                hash = hd_hash64(words, n * sizeof(words[0]), hash);
                n = 0;
            }
        }
        if (p == b->last)
            return hash > 1 ? hash : 2; /* 0 and HD_CONTENT_BUILT mean something */
        p = (const hd_piece_t *)(b->arena->base + p->next);
        from = (const char *)(p + 1);
    }
}

void hd_region_end(hd_builder_t *b, const hd_slot_t *slot, const void *root,
                   uint64_t content_hash)
{
    hd_region_t *r = b->region;

    hd_pool_destroy(b->pool);
    trim_last(b);
    r->bytes = b->total;
    r->slot = slot;
    r->root = root;
    r->content_hash = content_hash;
    note_reserved(b->arena);
}

void hd_region_drop(hd_builder_t *b)
{
    hd_pool_destroy(b->pool);
    hd_region_free(b->arena, b->region);
}

/* Publishing and retiring */

void hd_region_publish(hd_arena_t *a, hd_region_t *r)
{
    hd_slots_count_refs(a, r, true);
    set_entry_state(a, r->index, HD_REGION_LIVE);
    hd_store(&r->state, HD_REGION_LIVE, release);
    if (r->type != HD_RES_NONE)
        hd_bump(&a->shared->regions_live, 1, relaxed);
    if (r->type != HD_RES_NONE)
        hd_bump(&a->shared->published, 1, relaxed);
    hd_bump(&a->shared->bytes_live, r->bytes, relaxed);
}

static void add_retired(hd_arena_t *a, hd_region_t *r, uint64_t seq, uint64_t now_ns)
{
    a->retired =
        hd_arena_grow(a->retired, a->retired_n, &a->retired_room, sizeof(*a->retired));
    a->retired[a->retired_n++] =
        (hd_retired_t){.index = r->index, .seq = seq, .since_ns = now_ns};
    set_entry_state(a, r->index, HD_REGION_RETIRED);
    hd_store(&r->state, HD_REGION_RETIRED, release);
    hd_bump(&a->shared->regions_retired, 1, relaxed);
    hd_bump(&a->shared->bytes_retired, r->bytes, relaxed);
    if (a->retired_n == 1)
        hd_store(&a->shared->retired_since_ns, now_ns, relaxed);
}

void hd_region_retire(hd_arena_t *a, hd_region_t *r, uint64_t seq, uint64_t now_ns)
{
    if (r->type != HD_RES_NONE)
        hd_bump(&a->shared->regions_live, (uint64_t)-1, relaxed);
    hd_bump(&a->shared->bytes_live, -r->bytes, relaxed);
    add_retired(a, r, seq, now_ns);
}

/* The lowest number that an awake member has announced. */
static uint64_t lowest_turn(const hd_state_t *s, int arena)
{
    uint64_t lowest = UINT64_MAX;
    uint32_t n = hd_members_n(s);

    for (uint32_t i = 0; i < n; i++) {
        uint64_t turn = hd_load(&s->head->rows[i].turn[arena], seq_cst);

        if (turn != 0)
            lowest = hd_min(lowest, turn);
    }
    return lowest;
}

static bool is_pinned(const hd_arena_t *a, uint32_t index)
{
    const hd_state_t *s = a->state;
    uint32_t n = hd_members_n(s);

    for (uint32_t i = 0; i < n; i++)
        if (index < hd_load(&s->head->rows[i].pins_n[a->id], acquire) &&
            hd_load(&hd_pins_of(s, (int)i, (int)a->id)[index], acquire) != 0)
            return true;
    return false;
}

static hd_arena_freed_pt *on_freed; /* of the program: set at its start */

void hd_arena_on_freed(hd_arena_freed_pt *freed)
{
    on_freed = freed;
}

bool hd_arena_is_writer(const hd_arena_t *a, const hd_member_t *m)
{
    return a->writer == m;
}

bool hd_arena_each_used(hd_arena_t *a, hd_res_type_t type,
                        void (*visit)(const hd_region_t *r))
{
    uint32_t n = hd_load(&a->head->regions_n, relaxed);

    for (uint32_t i = 0; i < n; i++)
        if (hd_entry_state(hd_load(&a->regions[i].word, relaxed)) == HD_REGION_BUILDING)
            return false;
    for (uint32_t i = 0; i < n; i++) {
        const hd_region_t *r;

        if (hd_entry_state(hd_load(&a->regions[i].word, relaxed)) == HD_REGION_FREE)
            continue;
        r = region_of(a, i);
        if (r->type == type)
            visit(r);
    }
    return true;
}

size_t hd_arena_reclaim(hd_arena_t *a, uint64_t now_ns)
{
    uint64_t floor = lowest_turn(a->state, (int)a->id);
    uint64_t oldest_ns = 0;
    size_t kept = 0, n = a->retired_n;

    for (size_t i = 0; i < n; i++) {
        hd_retired_t it = a->retired[i];
        hd_region_t *r = region_of(a, it.index);

        if (it.seq > floor || is_pinned(a, it.index)) {
            a->retired[kept++] = it;
            if (oldest_ns == 0 || it.since_ns < oldest_ns)
                oldest_ns = it.since_ns;
            continue;
        }
        hd_bump(&a->shared->regions_retired, (uint64_t)-1, relaxed);
        hd_bump(&a->shared->bytes_retired, -r->bytes, relaxed);
        hd_region_free(a, r);
    }
    a->retired_n = kept;
    if (hd_load(&a->shared->retired_since_ns, relaxed) != oldest_ns)
        hd_store(&a->shared->retired_since_ns, oldest_ns, relaxed);
    hd_slots_reclaim(a, floor, now_ns);
    if (n > kept && on_freed != NULL)
        on_freed(a->writer, a, n - kept);
    if (a->writer->parts[a->id] != NULL)
        hd_part_reclaim(a->writer->parts[a->id], floor, &a->shared->seq);
    return a->retired_n; /* an index may have been replaced just now */
}

/* A writer's start */

static bool mark_pieces(hd_arena_t *a, uint64_t first)
{
    hd_piece_t *p = hd_piece_at(a, first);

    for (;;) { /* a piece marked twice ends a loop */
        if (p == NULL || !hd_space_mark(&a->data, p, p->bytes))
            return false;
        if (p->next == 0)
            return true;
        p = hd_piece_at(a, p->next);
    }
}

static bool mark_secrets(hd_arena_t *a, uint64_t at)
{
    while (at != 0) {
        hd_piece_t *p = (hd_piece_t *)(a->secret_base + (at - 1));

        if (at > a->secret_bytes - sizeof(*p) || (at - 1) % 16 != 0 ||
            !hd_space_mark(&a->secret, p, p->bytes))
            return false;
        at = p->next;
    }
    return true;
}

bool hd_regions_mark(hd_arena_t *a, hd_err_t *err)
{
    uint32_t n = hd_load(&a->head->regions_n, relaxed);

    if (n > a->regions_max || !hd_arena_reserve_regions(a, n)) {
        hd_ignore(hd_err_set(err, HD_E_INTERNAL, "the arena's table of regions is bad"));
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t word = hd_load(&a->regions[i].word, acquire);
        hd_region_t *r;

        if (hd_entry_state(word) == HD_REGION_FREE) {
            give_entry(a, i);
            continue;
        }
        r = mark_pieces(a, a->regions[i].first) ? region_of(a, i) : NULL;
        if (r == NULL || r->magic != HD_REGION_MAGIC || r->index != i ||
            !mark_secrets(a, r->_secrets)) {
            hd_ignore(hd_err_set(err, HD_E_INTERNAL, "region %u of the arena is bad", i));
            return false;
        }
    }
    return true;
}

/* Is it the current version of its slot, or the index? */
static bool is_reached(const hd_arena_t *a, const hd_region_t *r)
{
    const hd_slot_t *slot = r->slot;

    if (r->type == HD_RES_NONE)
        return hd_load(&a->head->index, relaxed) == (uint64_t)(uintptr_t)r;
    if (slot < a->slots || slot >= a->slots + hd_load(&a->head->slots_n, relaxed))
        return false;
    return hd_cell_region(hd_load(&slot->_cell, relaxed)) == r;
}

void hd_regions_retire_lost(hd_arena_t *a, uint64_t seq, uint64_t now_ns)
{
    uint32_t n = hd_load(&a->head->regions_n, relaxed);

    hd_store(&a->shared->regions_retired, 0, relaxed);
    hd_store(&a->shared->bytes_retired, 0, relaxed);
    hd_store(&a->shared->retired_since_ns, 0, relaxed);
    for (uint32_t i = 0; i < n; i++) {
        hd_region_state_t state = hd_entry_state(hd_load(&a->regions[i].word, relaxed));
        hd_region_t *r;

        if (state == HD_REGION_FREE)
            continue;
        r = region_of(a, i);
        if (state == HD_REGION_BUILDING)
            hd_region_free(a, r); /* nobody else ever knew it */
        else if (!is_reached(a, r))
            add_retired(a, r, seq, now_ns);
    }
}

void hd_regions_count(hd_arena_t *a)
{
    uint32_t n = hd_load(&a->head->regions_n, relaxed);
    uint64_t live = 0, bytes = 0;

    for (uint32_t i = 0; i < n; i++) {
        hd_region_state_t state = hd_entry_state(hd_load(&a->regions[i].word, relaxed));
        const hd_region_t *r;

        if (state == HD_REGION_FREE)
            continue;
        r = region_of(a, i);
        hd_slots_count_refs(a, r, true);
        if (state != HD_REGION_LIVE)
            continue;
        live += r->type != HD_RES_NONE;
        bytes += r->bytes;
    }
    hd_store(&a->shared->regions_live, live, relaxed);
    hd_store(&a->shared->bytes_live, bytes, relaxed);
    hd_store(&a->shared->slots, hd_slots_used(a), relaxed);
    note_reserved(a);
}
