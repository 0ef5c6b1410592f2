/* hd_table: consistent hashing's tables: from a hash to an endpoint, so that a change of
 * the endpoints moves few keys.
 *
 * Made with the endpoints by whoever publishes them, and read in place by all workers;
 * a worker makes one itself where the policy came later than the endpoints. One table a
 * priority, over all of its endpoints, healthy or not: who may not serve is walked past,
 * so that the table needn't change with health.
 *
 *   rings (Envoy's, nginx's): points on a circle, the first at or behind the hash
 *   Maglev: the hash's remainder is the place (Eisenbud et al., NSDI 2016)
 */
#pragma once
#include "core/net/hd_cluster.h"

typedef enum {
    HD_TABLE_NONE,
    HD_TABLE_RING_XX,      /* points by XXH64 of "ADDRESS_N" */
    HD_TABLE_RING_MURMUR2, /* by MurmurHash64A */
    HD_TABLE_KETAMA, /* nginx's `hash … consistent`: 160 points a weight, CRC-32 */
    HD_TABLE_MAGLEV,
} hd_table_kind_t;

typedef struct {
    uint8_t kind;                  /* hd_table_kind_t */
    bool by_hostname, by_locality; /* weights are shares of their locality's */
    uint32_t min, max; /* points of a ring; Maglev: max is the size, a prime */
} hd_table_spec_t;

#define HD_RING_MAX (8u << 20) /* Envoy's bound, and its default */
#define HD_MAGLEV_MAX 5000011u /* sizes are below (Envoy's bound) */
#define HD_MAGLEV_DEFAULT 65537u

typedef struct hd_table_s {
    hd_table_spec_t spec;
    uint32_t priority; /* hd_endpoint_rank */
    uint32_t n;
    const uint64_t *hashes; /* of a ring's points, rising; NULL: Maglev */
    const uint32_t *owners; /* indexes into the endpoints */
} hd_table_t;

/* nginx's backup servers come after all priorities. */
static inline uint32_t hd_endpoint_rank(const hd_endpoint_t *e)
{
    return e->priority + (e->backup ? 256u : 0u);
}

bool hd_table_spec_eq(const hd_table_spec_t *a, const hd_table_spec_t *b);
/* Over those <n> of <items> that <at> names, in <pool>. <localities> may be NULL. */
void hd_table_build(hd_table_t *t, const hd_table_spec_t *spec, const hd_endpoints_t *eps,
                    const uint32_t *at, uint32_t n, hd_pool_t *pool);
/* One a priority, into <eps>; <temp> for the work. */
void hd_tables_build(hd_endpoints_t *eps, const hd_table_spec_t *spec, hd_pool_t *pool,
                     hd_pool_t *temp);
/* Where the hash leads; then, for <attempt> 1, 2, …, further candidates. An index into
 * the endpoints. */
uint32_t hd_table_find(const hd_table_t *t, uint64_t hash, uint32_t attempt);
