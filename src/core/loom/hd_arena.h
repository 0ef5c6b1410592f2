/* hd_arena: where resources lie: a sparse memfd mapped at the same address in every
 * process, so that plain pointers work everywhere; one writer; regions in it. ◆
 *
 * A *region* is one resource with all that it owns: bump-allocated, published once, never
 * changed after, freed at once. Its pool is what builders get as `cf->pool`.
 *
 *   BUILDING --batch publish--> LIVE --replaced or removed--> RETIRED --turns and pins-->
 * FREE
 *
 * The writer reserves memory (fallocate) before it writes: a full arena refuses the
 * resource and never raises SIGBUS. Small regions share pages by size class; whole free
 * runs are punched out. Free lists are private to the writer and rebuilt from slots and
 * region heads when a writer starts; what no slot reaches is retired anew. Readers map
 * through a read-only descriptor and close it. Debug builds fill freed regions.
 *
 * A region's *secret* part (private keys) lies in a separate area: not dumped into cores,
 * not in /config_dump nor the snapshot, zeroed on release.
 */
#pragma once
#include "core/base/hd_pool.h"
#include "core/loom/hd_state.h"

typedef enum { HD_ARENA_FILES = 0, HD_ARENA_DYNAMIC = 1 } hd_arena_id_t;

typedef struct hd_arena_s hd_arena_t;

/* What a region is; the order is the order of publishing (bottom-up). */
typedef enum {
    HD_RES_NONE = 0,
    HD_RES_SETTINGS, /* process-wide: logs, limits, module data */
    HD_RES_SECRET,
    HD_RES_ENDPOINTS,
    HD_RES_CLUSTER,
    HD_RES_ROUTES, /* a route table: virtual hosts and their routers */
    HD_RES_POLICY, /* anything else that modules name */
    HD_RES_LISTENER,
    HD_RES_TYPES_N,
} hd_res_type_t;

typedef enum {
    HD_REGION_FREE = 0,
    HD_REGION_BUILDING, /* only its writer knows it */
    HD_REGION_LIVE,     /* in a slot, or about to be stored there */
    HD_REGION_RETIRED,  /* waits for turns and pins */
} hd_region_state_t;

/* The head of a region; lies in the arena. Read-only for all but its writer. */
typedef struct hd_region_s {
    uint32_t magic;        /* HD_REGION_MAGIC while not free */
    uint8_t arena;         /* hd_arena_id_t */
    uint8_t type;          /* hd_res_type_t */
    _Atomic uint8_t state; /* hd_region_state_t */
    uint8_t _reserved;
    uint32_t index; /* its column in the table of pins */
    uint32_t _reserved2;
    uint64_t version;             /* unique in the arena, grows */
    uint64_t bytes;               /* with this head and what packing wastes */
    uint64_t content_hash;        /* of what it was built from; 0: unknown */
    hd_str_t name;                /* lies in the region */
    hd_str_t source;              /* "file:line" or "xds:TYPE:version", for people */
    const struct hd_slot_s *slot; /* whose version it is */
    const void *root;             /* the resource itself: hd_cluster_t, … by <type> */
    const void *secret;           /* in the secret area, or NULL */
    uint64_t _secrets;            /* its pieces there: offset + 1 */
} hd_region_t;

#define HD_REGION_MAGIC 0x6d6f6f6cu

#define HD_ARENA_BYTES_MAX ((size_t)31 << 30)

typedef struct {
    uint64_t base;           /* 0: 0x7e8000000000 + id * 64 GB */
    size_t bytes_max;        /* ceiling, directive loom_size; default 1 GB (sparse) */
    size_t secret_bytes_max; /* default 64 MB */
} hd_arena_conf_t;

/* By the master: makes the memfd and maps it nowhere. Children open it as below. Whoever
 * plays several members in one process opens the writer first, and shares the handle. */
hd_arena_t *hd_arena_create(hd_arena_id_t id, const hd_arena_conf_t *conf,
                            hd_state_t *state, hd_err_t *err) HD_MUST_CHECK;
/* In the process that writes: maps read-write, rebuilds free lists and indexes. There is
 * one writer at a time: the master sees to that. */
hd_rc_t hd_arena_open_writer(hd_arena_t *a, hd_member_t *m, hd_err_t *err) HD_MUST_CHECK;
/* In a reader: maps read-only and closes what could be written through. */
hd_rc_t hd_arena_open_reader(hd_arena_t *a, hd_member_t *m, hd_err_t *err) HD_MUST_CHECK;
/* Unmaps. Its members are stopped by then. */
void hd_arena_destroy(hd_arena_t *a);

typedef struct {
    uint64_t regions_live, regions_retired;
    uint64_t bytes_live, bytes_retired, bytes_reserved, bytes_max;
    uint64_t retired_oldest_ms; /* age of the oldest retired region; 0: none */
    uint64_t batches, slots;
    uint64_t published; /* regions put in force so far */
    uint64_t unchanged; /* built, found equal to what is in force, and dropped */
} hd_arena_stats_t;

/* From any process, with the arena open or not; counts are kept in the state arena. */
void hd_arena_get_stats(const hd_arena_t *a, uint64_t now_ns, hd_arena_stats_t *stats);

/* Pins a region beyond the turn; a counter store, no atomic read-modify-write. Pinning
 * what was read in this turn is always good. Balanced by hd_unpin, in the same member. */
void hd_pin(hd_member_t *m, const hd_region_t *r);
void hd_unpin(hd_member_t *m, const hd_region_t *r);

/* By the writer: calls for each region of <type> that somebody may use: in force, or
 * retired and not yet freed. False: one of them is being built, nothing was called. */
bool hd_arena_each_used(hd_arena_t *a, hd_res_type_t type,
                        void (*visit)(const hd_region_t *r)) HD_MUST_CHECK;
bool hd_arena_is_writer(const hd_arena_t *a, const hd_member_t *m);

/* Who keeps cells for what lies in regions is called after each reclaim that freed some,
 * in whatever process writes: <n> regions of <a>. Set once, before an arena is opened. */
typedef void hd_arena_freed_pt(hd_member_t *writer, hd_arena_t *a, size_t n);
void hd_arena_on_freed(hd_arena_freed_pt *freed);

/* By the writer, on a timer and after each batch: frees what every member has passed a
 * turn since and nobody pins. Returns how many are still retired. */
size_t hd_arena_reclaim(hd_arena_t *a, uint64_t now_ns);
