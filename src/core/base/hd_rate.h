/* hd_rate: a table of token buckets by key (GCRA, ITU-T I.371), exact over all workers.
 *
 * Lives in shared memory of a fixed size: any worker may call at any time, nobody locks.
 * Zeroed memory is an empty table; a key that is not there has a full bucket. When there
 * is no room, the bucket that has been full the longest, or will be full first, makes
 * room. Time is an argument (monotonic), so a test needs no sleep.
 *
 * As in nginx a bucket isn't empty but in excess: the first request is none, each one
 * more adds one, and time takes away one each token_ns.
 */
#pragma once
#include "core/base/hd_str.h"

#define HD_RATES_BYTES_MIN 32768

typedef struct hd_rates_s hd_rates_t; /* the memory itself, aligned to 8 bytes */

typedef struct {
    uint64_t token_ns; /* one token comes back in this time; at least 64 */
    uint32_t burst;    /* how many may be in excess */
} hd_rate_conf_t;

/* Once, by who makes it or finds it again: keys are hashed with this seed, if they have
 * none yet. */
void hd_rates_init(hd_rates_t *t, uint64_t seed);
/* Takes one at <now_ns>. False: that would be too many, and nothing was taken.
 * *excess_milli: how far in excess it is (would be), in thousandths. <bytes>: of the
 * memory, at least HD_RATES_BYTES_MIN and always the same. */
bool hd_rates_try_take(hd_rates_t *t, size_t bytes, hd_str_t key,
                       const hd_rate_conf_t *conf, uint64_t now_ns,
                       uint64_t *excess_milli) HD_MUST_CHECK;
/* Gives one back that was taken, for what was refused for another reason. */
void hd_rates_give_back(hd_rates_t *t, size_t bytes, hd_str_t key,
                        const hd_rate_conf_t *conf);
