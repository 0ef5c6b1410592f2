/* hd_state: the state arena: what all processes of a generation share and write: members,
 * turns, pins, gauges, counters, cells.
 *
 * One sparse memfd, made by the master before the first fork, mapped read-write by all at
 * one address. Its layout depends on hd_state_conf_t and HD_STATE_LAYOUT only;
 * layout_hash says whether another binary may take it over (USR2). Nothing read from it
 * is trusted as a length or an index without a bound.
 *
 * Cells are named runs of zeroed memory for modules and clusters (token buckets, outlier
 * and balancer state, endpoint state): keyed by kind and name, found again by the next
 * version of whatever uses them. They are allocated by the two writers, each from a part
 * of its own, and used by anyone with atomics.
 */
#pragma once
#include "core/base/hd_str.h"
#include "core/loom/hd_member.h"

#define HD_ARENAS_MAX 2

typedef struct {
    uint32_t regions_max; /* an arena; default 131072 */
    uint32_t gauges_max;  /* default 65536 */
    uint32_t series_max;  /* counter words a member; default 262144 */
    size_t cells_bytes;   /* a writer's part; default 64 MB (sparse) */
    size_t labels_bytes;  /* interned label sets; default 32 MB (sparse) */
} hd_state_conf_t;

typedef struct hd_state_s hd_state_t;

/* A memfd with the given layout, mapped into this process. Zero fields mean defaults.
 * Forked children inherit the mapping. */
hd_state_t *hd_state_create(const hd_state_conf_t *conf, hd_err_t *err) HD_MUST_CHECK;
void hd_state_destroy(hd_state_t *state);
/* Another program's, for reading alone: whose counts are to be carried over. <fd> is
 * taken. NULL: <err>: another layout, or no state at all. */
hd_state_t *hd_state_open_other(int fd, hd_err_t *err) HD_MUST_CHECK;
int hd_state_fd(const hd_state_t *state); /* lent: to leave to another program */
uint64_t hd_state_layout_hash(const hd_state_t *state);
size_t hd_state_bytes_used(const hd_state_t *state);

/* A cell of <bytes> under (<kind>, <name>; one of at most 24 bytes costs nothing): found
 * or, by a writer, made zeroed. NULL: not there and <m> is no writer, another size, or no
 * room. Lives until hd_cell_drop. */
void *hd_cell_get(hd_member_t *m, uint32_t kind, hd_str_t name, size_t bytes);
/* By its writer, when no resource names it and its counts are 0. */
void hd_cell_drop(hd_member_t *m, uint32_t kind, hd_str_t name);
/* By a writer: drops the cells of <kind> among its own of which <is_over> says so. The
 * name is lent until then; it may drop gauges. Returns how many are left. */
uint32_t hd_cells_drop_if(hd_member_t *m, uint32_t kind,
                          bool (*is_over)(hd_member_t *m, hd_str_t name, void *cell));
/* Whose the cells are that <m> makes: HD_ARENAS_MAX - 1 at most; 0 if it is no writer. */
int hd_cell_part(const hd_member_t *m);
