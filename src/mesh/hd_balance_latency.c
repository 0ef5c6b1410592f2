/* How long an endpoint takes: peak EWMA (as Finagle and linkerd have it): a moving
 * average that jumps up to each longer time at once and comes down by and by. One word an
 * endpoint, over all workers: microseconds above, milliseconds of the clock below. Of two
 * workers that write at once one observation is lost, which an average bears. */
#include "mesh/hd_balance_int.h"

#include <math.h>
#include <stdatomic.h>

#define MICROS_UNKNOWN 10000 /* while nothing was seen: Envoy's default_rtt */

static double decay(const hd_mesh_cluster_t *conf, uint64_t word, uint64_t now_ns)
{
    uint32_t age_ms = (uint32_t)(now_ns / 1000000) - (uint32_t)word;

    if (age_ms > INT32_MAX) /* a clock of another worker is ahead */
        age_ms = 0;
    return exp(-(double)age_ms / conf->decay_ms);
}

void hd_lb_observe(const hd_mesh_cluster_t *conf, const hd_endpoint_t *e,
                   uint64_t took_ns, uint64_t now_ns)
{
    hd_endpoint_counts_t *counts = hd_endpoint_counts(e);
    uint64_t word = atomic_load_explicit(&counts->latency, memory_order_relaxed);
    double took = (double)(took_ns / 1000), average = (double)(word >> 32), keep;

    if (word != 0 && took < average) {
        keep = decay(conf, word, now_ns);
        took = average * keep + took * (1 - keep);
    }
    took = hd_min(hd_max(took, 1.0), (double)UINT32_MAX);
    atomic_store_explicit(&counts->latency,
                          (uint64_t)took << 32 | (uint32_t)(now_ns / 1000000),
                          memory_order_relaxed);
}

/* What the next request would wait, by weight. An average fades with time, so that a slow
 * endpoint is tried again. */
double hd_lb_cost(const hd_lb_view_t *v, const hd_endpoint_t *e, uint32_t requests,
                  uint64_t now_ns)
{
    hd_endpoint_counts_t *counts = hd_endpoint_counts(e);
    uint64_t word = counts != NULL
                        ? atomic_load_explicit(&counts->latency, memory_order_relaxed)
                        : 0;
    double micros = word == 0 ? (requests == 0 ? 0 : MICROS_UNKNOWN)
                              : (double)(word >> 32) * decay(v->conf, word, now_ns);

    return micros * (requests + 1.0) / e->weight;
}
