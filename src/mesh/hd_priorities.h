/* hd_priorities: how much of the traffic each priority gets, by how many of its endpoints
 * are well: Envoy's rules (its "Priority levels", "Degraded endpoints" and "Panic
 * threshold"), as whole percents. No state, no memory. */
#pragma once
#include "core/base/hd_types.h"

typedef struct {
    /* asked: endpoints, or weights, of the priority */
    uint64_t healthy, degraded, total;
    /* answered */
    uint8_t healthy_load,
        degraded_load; /* percent; over all priorities they sum to 100 */
    bool in_panic;     /* health is not looked at */
} hd_priority_t;

/* <overprovisioning> in percent (140); <panic_percent>: below that share of endpoints a
 * priority is in panic; 0: never. */
void hd_priorities_set_loads(hd_priority_t *list, uint32_t n, uint32_t overprovisioning,
                             uint32_t panic_percent);
/* Where a number (random, or a request's hash) leads; *degraded: to its degraded
 * endpoints. */
uint32_t hd_priorities_choose(const hd_priority_t *list, uint32_t n, uint64_t number,
                              bool *degraded);
