/* hd_pool: a lifetime. What is allocated in it, and what was deferred to its end, goes at
 * once.
 *
 * Kinds: an ordinary pool takes blocks from malloc (generation, conn, request); a
 * region's pool (core/loom) takes them from shared memory. The interface is the same, so
 * that a builder need not know where what it builds will live. Allocation never returns
 * NULL. On an ordinary pool exhausted memory ends the process; a region that can't grow
 * is marked failed, the rest lands in scratch memory that goes with the pool, and
 * publishing refuses it. Not thread-safe: a pool has one user at a time.
 */
#pragma once
#include "core/base/hd_types.h"

typedef struct hd_pool_s hd_pool_t;

/* Where memory comes from, piece by piece: the source packs. <align> is 1 or 16. <take>
 * may return NULL (exhausted): see above. */
typedef struct {
    void *(*take)(void *owner, size_t bytes, size_t align);
    void (*free_all)(void *owner); /* at destroy; NULL: the owner frees elsewhere */
} hd_pool_source_t;

/* <first_bytes> is a guess of the total, 0 for a small default. */
hd_pool_t *hd_pool_create(size_t first_bytes);
/* A pool over <source>; the pool's own head lives in ordinary memory. */
hd_pool_t *hd_pool_create_on(const hd_pool_source_t *source, void *owner);
/* Runs what was deferred, last first, then frees all. */
void hd_pool_destroy(hd_pool_t *pool);
/* Runs what was deferred and empties it, keeping the first block for the next user. */
void hd_pool_reset(hd_pool_t *pool);

void *hd_pool_alloc(hd_pool_t *pool, size_t bytes);  /* aligned to 16 */
void *hd_pool_calloc(hd_pool_t *pool, size_t bytes); /* zeroed */
void *hd_pool_alloc_unaligned(hd_pool_t *pool, size_t bytes);
#define hd_pool_new(pool, type) ((type *)hd_pool_calloc(pool, sizeof(type)))
#define hd_pool_new_n(pool, type, n)                                                     \
    ((type *)hd_pool_calloc(pool, sizeof(type) * (size_t)(n)))

/* <fn>(<arg>) runs at the pool's end. In a region's pool it runs when building ends,
 * since data in the arena owns nothing outside it. */
void hd_pool_defer(hd_pool_t *pool, void (*fn)(void *arg), void *arg);

bool hd_pool_has_failed(const hd_pool_t *pool); /* a region's: could not grow */
size_t hd_pool_bytes(const hd_pool_t *pool);    /* handed out so far */
