/* hd_edf: earliest deadline first: items in turn by weight, in O(log n) a turn, where a
 * weight may differ each time (load, slow start). An item of weight 2 comes twice as
 * often as one of weight 1; equal deadlines go in order of filing. Memory is the
 * caller's pool. */
#pragma once
#include "core/base/hd_pool.h"

typedef struct {
    double deadline;
    uint64_t filed; /* the how-many-th filing it was */
    uint32_t item;
} hd_edf_entry_t;

typedef struct {
    hd_edf_entry_t *_heap;
    uint32_t n;
    uint64_t _filings;
    uint32_t steps; /* of the last turn: entries looked at, for tests of its cost */
} hd_edf_t;

/* Room for <n_max> items. */
void hd_edf_init(hd_edf_t *edf, hd_pool_t *pool, uint32_t n_max);
/* Before the first turn. <weight> is above 0. */
void hd_edf_add(hd_edf_t *edf, uint32_t item, double weight);
/* Whose turn it is; n is not 0. */
uint32_t hd_edf_peek(const hd_edf_t *edf);
/* That one had its turn, and comes again by <weight>. */
void hd_edf_turn(hd_edf_t *edf, double weight);
