/* hd_series: counters and histograms in shared memory, by label set, without a lock or an
 * atomic read-modify-write on a request's way.
 *
 * A *family* is a metric name with its kind; a *series* is one label set of it: an index
 * into each member's block of 64-bit words ([member][word]) that only this member writes.
 * A scrape sums the blocks. Counts survive a worker's death and a reload. A request
 * hashes no labels: the index is cached per conn and route (hd_series_cache_t in
 * src/http).
 *
 * Entry is lock-free in two steps: reserve a record, fill it, publish it with one
 * compare-and-swap; a dead member's reservation is reclaimed. When the table is full or a
 * family has its maximum, the family's overflow series (all labels "_overflow") is given,
 * and what was folded is counted.
 */
#pragma once
#include "core/loom/hd_state.h"

typedef enum { HD_COUNTER, HD_HISTOGRAM, HD_SERIES_GAUGE } hd_series_kind_t;

#define HD_LABELS_MAX 32
#define HD_BUCKETS_MAX 24

typedef struct {
    const char *name; /* Prometheus name, without _bucket etc. */
    const char *help;
    hd_series_kind_t kind;
    const char *const *labels; /* names, NULL-terminated; order is the order of values */
    const double *buckets;     /* upper bounds, growing; a histogram's */
    uint32_t buckets_n;
    uint32_t series_max; /* 0: the state's share */
} hd_family_t;

typedef uint32_t hd_series_t; /* first word; 0: none (adding to it does nothing) */
typedef uint32_t hd_family_id_t;

/* Enters a family; the same name gives the same id in every process. 0: another kind or
 * other labels under this name, or no room. <family> must live as long as the process. */
hd_family_id_t hd_family_enter(hd_member_t *m, const hd_family_t *family);
/* Finds or enters the series of <values> (one per label, in order). Never fails:
 * overflow. */
hd_series_t hd_series_enter(hd_member_t *m, hd_family_id_t family,
                            const hd_str_t *values);

/* By the member's own thread; a plain store. */
void hd_counter_add(hd_member_t *m, hd_series_t s, uint64_t n);
/* This member's share of an HD_SERIES_GAUGE; a dead member's share is 0. */
void hd_series_set(hd_member_t *m, hd_series_t s, uint64_t value);
/* <value> in the buckets' unit; also adds to sum (in thousandths) and count. */
void hd_histogram_observe(hd_member_t *m, const hd_family_t *family, hd_series_t s,
                          double value);

/* A counter's or gauge's value, over all members, dead or not. */
uint64_t hd_series_sum(hd_state_t *state, hd_series_t s);
/* What was entered as an overflow series for want of room, over all members. */
uint64_t hd_series_folded(hd_state_t *state);

/* Walks all series for a scrape without blocking anyone: <at> starts 0; false at the end.
 * A family's series come one after another, the newest first; what is entered meanwhile
 * may be missed. The view's strings live as long as the state. Words are summed over all
 * members, dead or not. Overflow series that nobody counted in are left out. */
typedef struct {
    hd_str_t family, help;
    hd_series_kind_t kind;
    uint32_t labels_n;
    hd_str_t label_names[HD_LABELS_MAX], label_values[HD_LABELS_MAX];
    uint64_t value; /* a counter's */
    /* a histogram's, not cumulative; the last is +Inf */
    uint64_t buckets[HD_BUCKETS_MAX + 1];
    double bounds[HD_BUCKETS_MAX];
    uint32_t buckets_n;
    double sum;
    uint64_t count;
} hd_series_view_t;

bool hd_series_next(hd_state_t *state, uint32_t *at, hd_series_view_t *view);

/* Counters and histograms of another state, by name, become what <m> has counted here:
 * its row, which is used for nothing else, holds their sums. May be done again at any
 * time: then it holds what they are by then, and none has gone back meanwhile. Left out:
 * gauges, and families that have another shape here. */
void hd_series_carry(hd_member_t *m, hd_state_t *from);
