#include "core/base/hd_pool.h"
#include "core/base/hd_asan.h"
#include "core/base/hd_log.h"
#include <stdlib.h>
#include <string.h>

#define ALIGN 16
/* The default first block with the pool's head: what malloc serves from its quick lists.
 */
#define FIRST_BYTES 1008
#define GROW_MAX_BYTES (32 * 1024)
#define LARGE_BYTES (8 * 1024) /* from here a piece has a block of its own */

typedef struct block_s {
    struct block_s *next;
    size_t bytes; /* of the whole block */
} block_t;

typedef struct deferred_s {
    struct deferred_s *next;
    void (*fn)(void *arg);
    void *arg;
} deferred_t;

struct hd_pool_s {
    char *_at, *_end; /* free room of the current block */
    size_t _bytes;
    deferred_t *_deferred;
    block_t *_blocks;   /* later ones, newest first */
    size_t _grow_bytes; /* of the next block */
    char *_last;        /* the end of the first block, which the head shares */
    const hd_pool_source_t *_source;
    void *_owner;
    bool _has_failed;
};

static char *first_room(hd_pool_t *pool)
{
    return (char *)pool + hd_align_up(sizeof(*pool), ALIGN);
}

static void *take_memory(size_t bytes)
{
    void *p = malloc(bytes);

    if (hd_unlikely(p == NULL)) {
        hd_log(HD_LOG_EMERG, "out of memory (%zu bytes)", bytes);
        abort();
    }
    return p;
}

hd_pool_t *hd_pool_create(size_t first_bytes)
{
    size_t head = hd_align_up(sizeof(hd_pool_t), ALIGN);
    size_t total = FIRST_BYTES;
    hd_pool_t *pool;

    if (first_bytes != 0) {
        hd_bug_on(first_bytes > SIZE_MAX / 2);
        total = head + hd_align_up(first_bytes, ALIGN);
    }
    pool = take_memory(total);
    memset(pool, 0, sizeof(*pool));
    pool->_last = (char *)pool + (total & ~(size_t)(ALIGN - 1));
    pool->_at = first_room(pool);
    pool->_end = pool->_last;
    pool->_grow_bytes = hd_min(hd_max(total * 2, (size_t)4096), (size_t)GROW_MAX_BYTES);
    hd_asan_poison(pool->_at, (size_t)(pool->_end - pool->_at));
    return pool;
}

hd_pool_t *hd_pool_create_on(const hd_pool_source_t *source, void *owner)
{
    size_t head = hd_align_up(sizeof(hd_pool_t), ALIGN);
    hd_pool_t *pool = take_memory(head);

    memset(pool, 0, sizeof(*pool));
    pool->_last = pool->_at = pool->_end = (char *)pool + head;
    pool->_grow_bytes = 4096;
    pool->_source = source;
    pool->_owner = owner;
    return pool;
}

static void run_deferred(hd_pool_t *pool)
{
    deferred_t *d;

    while ((d = pool->_deferred) != NULL) {
        pool->_deferred = d->next; /* first: what runs may defer more */
        d->fn(d->arg);
    }
}

static void free_blocks(hd_pool_t *pool)
{
    block_t *b, *next;

    for (b = pool->_blocks; b != NULL; b = next) {
        next = b->next;
        hd_asan_unpoison(b, b->bytes);
        free(b);
    }
    pool->_blocks = NULL;
}

void hd_pool_destroy(hd_pool_t *pool)
{
    run_deferred(pool);
    free_blocks(pool);
    if (pool->_source != NULL && pool->_source->free_all != NULL)
        pool->_source->free_all(pool->_owner);
    hd_asan_unpoison(first_room(pool), (size_t)(pool->_last - first_room(pool)));
    free(pool);
}

void hd_pool_reset(hd_pool_t *pool)
{
    run_deferred(pool);
    free_blocks(pool);
    if (pool->_source != NULL && pool->_source->free_all != NULL)
        pool->_source->free_all(pool->_owner);
    pool->_at = first_room(pool);
    pool->_end = pool->_last;
    pool->_bytes = 0;
    pool->_has_failed = false;
    hd_asan_poison(pool->_at, (size_t)(pool->_end - pool->_at));
}

static block_t *add_block(hd_pool_t *pool, size_t room)
{
    size_t head = hd_align_up(sizeof(block_t), ALIGN);
    block_t *b;

    hd_bug_on(room > SIZE_MAX / 2);
    b = take_memory(head + room);
    b->bytes = head + room;
    b->next = pool->_blocks;
    pool->_blocks = b;
    hd_asan_poison((char *)b + head, room);
    return b;
}

/* The current block has no room for <need> bytes. */
static char *alloc_slow(hd_pool_t *pool, size_t need)
{
    size_t head = hd_align_up(sizeof(block_t), ALIGN);
    block_t *b;

    if (need >= LARGE_BYTES)
        return (char *)add_block(pool, need) + head;
    b = add_block(pool, hd_max(pool->_grow_bytes - head, need));
    pool->_grow_bytes = hd_min(pool->_grow_bytes * 2, (size_t)GROW_MAX_BYTES);
    pool->_at = (char *)b + head + need;
    pool->_end = (char *)b + b->bytes;
    return (char *)b + head;
}

static void *alloc_from_source(hd_pool_t *pool, size_t bytes, size_t align)
{
    void *p = pool->_has_failed ? NULL : pool->_source->take(pool->_owner, bytes, align);

    if (p == NULL)
        pool->_has_failed = true; /* the rest lands in scratch memory of the pool */
    else
        pool->_bytes += bytes;
    return p;
}

/* A deferral's own record must not take room in a region. */
static void *alloc_scratch(hd_pool_t *pool, size_t bytes, size_t align)
{
    char *at = (char *)hd_align_up((uintptr_t)pool->_at, align);
    size_t need = bytes + HD_ASAN_GAP;

    if (hd_likely(at <= pool->_end && (size_t)(pool->_end - at) >= need && need >= bytes))
        pool->_at = at + need;
    else
        at = alloc_slow(pool, hd_align_up(need, ALIGN));
    hd_asan_unpoison(at, bytes);
    return at;
}

static void *alloc_aligned(hd_pool_t *pool, size_t bytes, size_t align)
{
    hd_bug_on(bytes > SIZE_MAX / 4);
    if (hd_unlikely(pool->_source != NULL)) {
        void *p = alloc_from_source(pool, bytes, align);

        if (p != NULL)
            return p;
    }
    pool->_bytes += bytes;
    return alloc_scratch(pool, bytes, align);
}

void *hd_pool_alloc(hd_pool_t *pool, size_t bytes)
{
    return alloc_aligned(pool, bytes, ALIGN);
}

void *hd_pool_calloc(hd_pool_t *pool, size_t bytes)
{
    return memset(alloc_aligned(pool, bytes, ALIGN), 0, bytes);
}

void *hd_pool_alloc_unaligned(hd_pool_t *pool, size_t bytes)
{
    return alloc_aligned(pool, bytes, 1);
}

void hd_pool_defer(hd_pool_t *pool, void (*fn)(void *arg), void *arg)
{
    deferred_t *d = alloc_scratch(pool, sizeof(*d), ALIGN);

    *d = (deferred_t){pool->_deferred, fn, arg};
    pool->_deferred = d;
}

bool hd_pool_has_failed(const hd_pool_t *pool)
{
    return pool->_has_failed;
}

size_t hd_pool_bytes(const hd_pool_t *pool)
{
    return pool->_bytes;
}
