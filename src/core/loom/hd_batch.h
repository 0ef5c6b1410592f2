/* hd_batch: publishing. Build regions, put them into slots, publish all in one go. ◆
 *
 * Bottom-up by resource type (secrets, endpoints, clusters, routes, listeners), removals
 * last and top-down. Each slot's store is a commit of its own; a reader within one turn
 * may see new clusters under old routes, never the reverse. A writer that dies half-way
 * leaves some slots new and some old, each of them whole; the next writer's full batch
 * completes it.
 *
 *   begin -> (region -> build in its pool -> put | drop) … -> publish | abort
 *
 * What a batch names outside memory (listening sockets, log files) must be open in all
 * workers first: the caller sees to that between building and publish
 * (core/proc/hd_publish.h).
 */
#pragma once
#include "core/loom/hd_slot.h"

typedef struct hd_batch_s hd_batch_t;

hd_batch_t *hd_batch_begin(hd_arena_t *a);

/* Starts a region. Its pool is *pool; build everything of the resource there, and nothing
 * that points out of it but to slots of this arena. <size_hint> 0: unknown. NULL: no room
 * for a head. */
hd_region_t *hd_batch_region(hd_batch_t *b, hd_res_type_t type, hd_str_t name,
                             hd_str_t source, size_t size_hint, hd_pool_t **pool,
                             hd_err_t *err);
/* Memory for private keys of the region being built: zeroed on release, not dumped. */
void *hd_batch_secret(hd_batch_t *b, hd_region_t *r, size_t bytes, hd_err_t *err);

/* As content_hash: the hash of what was built. Two builds are equal if all that they
 * wrote is, pointers into the region aside; so nothing in it may differ from build to
 * build (a time, a random seed, a padding byte that came from the stack) or the region is
 * taken for a new one, which costs its companions and does no harm. */
#define HD_CONTENT_BUILT UINT64_C(1)

/* Names the finished region as <slot>'s next version. A region whose pool has failed is
 * refused (HD_ERROR, the batch goes on without it). Same content_hash as the live version
 * (both not 0): dropped and HD_DONE, nothing to publish. */
hd_rc_t hd_batch_put(hd_batch_t *b, hd_slot_t *slot, hd_region_t *r, const void *root,
                     uint64_t content_hash, hd_err_t *err) HD_MUST_CHECK;
void hd_batch_drop(hd_batch_t *b, hd_region_t *r);
/* Was that name put (or found unchanged) in this batch? */
bool hd_batch_has(const hd_batch_t *b, hd_res_type_t type, hd_str_t name);
void hd_batch_remove(hd_batch_t *b, hd_slot_t *slot);
/* Takes back what this batch would do to <slot>: its present version stays. */
void hd_batch_undo(hd_batch_t *b, hd_slot_t *slot);
void hd_batch_set_state(hd_batch_t *b, hd_slot_t *slot, hd_slot_state_t state);
/* Every LIVE slot of the arena that got no put in this batch is removed: a whole new
 * configuration (the loader's way). */
void hd_batch_remove_others(hd_batch_t *b);

/* Commits, retires what was replaced, bumps the arena's sequence number. The caller rings
 * the workers afterwards. <b> is gone. Returns how many slots changed. */
size_t hd_batch_publish(hd_batch_t *b, uint64_t now_ns);
/* The same in two steps. First all but the removals of what others name: listeners go
 * now, the routes, clusters and secrets of those that are still being served by one stay.
 * What is left stands in <b>, for hd_batch_publish a while later; hd_batch_abort leaves
 * it to the next whole configuration. *left_n: how many slots will change then. */
size_t hd_batch_publish_first(hd_batch_t *b, uint64_t now_ns, size_t *left_n);
void hd_batch_abort(hd_batch_t *b);
