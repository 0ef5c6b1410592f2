#include "mesh/hd_priorities.h"

static uint32_t availability(uint64_t n, uint64_t total, uint32_t overprovisioning)
{
    return total == 0 ? 0 : (uint32_t)hd_min(overprovisioning * n / total, 100u);
}

/* All that is there, at most 100. */
static uint32_t sum_availability(const hd_priority_t *list, uint32_t n,
                                 uint32_t overprovisioning)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += availability(list[i].healthy, list[i].total, overprovisioning) +
               availability(list[i].degraded, list[i].total, overprovisioning);
    return hd_min(sum, 100u);
}

/* Fills up priority after priority; returns what is left of <rest>. *first: the first
 * that can serve; UINT32_MAX: none yet. */
static uint32_t fill(hd_priority_t *list, uint32_t n, uint32_t overprovisioning,
                     bool degraded, uint32_t rest, uint32_t sum, uint32_t *first)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t can = availability(degraded ? list[i].degraded : list[i].healthy,
                                    list[i].total, overprovisioning);
        uint32_t load = sum == 0 ? 0 : hd_min(rest, can * 100 / sum);

        if (can > 0 && *first == UINT32_MAX)
            *first = i;
        *(degraded ? &list[i].degraded_load : &list[i].healthy_load) = (uint8_t)load;
        rest -= load;
    }
    return rest;
}

/* Nothing serves properly: by numbers alone. */
static void share_by_size(hd_priority_t *list, uint32_t n)
{
    uint64_t total = 0;
    uint32_t rest = 100, first = UINT32_MAX;

    for (uint32_t i = 0; i < n; i++)
        total += list[i].total;
    for (uint32_t i = 0; i < n; i++) {
        list[i].degraded_load = 0;
        list[i].healthy_load = total == 0 ? 0 : (uint8_t)(100 * list[i].total / total);
        rest -= list[i].healthy_load;
        if (list[i].total > 0 && first == UINT32_MAX)
            first = i;
    }
    list[first == UINT32_MAX ? 0 : first].healthy_load += rest;
}

static bool is_in_panic(const hd_priority_t *p, uint32_t panic_percent)
{
    /* in floating point, or 49.5 % would be 49 */
    double well =
        p->total == 0 ? 0 : 100.0 * (double)(p->healthy + p->degraded) / (double)p->total;

    return well < panic_percent;
}

void hd_priorities_set_loads(hd_priority_t *list, uint32_t n, uint32_t overprovisioning,
                             uint32_t panic_percent)
{
    uint32_t sum = sum_availability(list, n, overprovisioning), rest;
    uint32_t first = UINT32_MAX, first_degraded = UINT32_MAX;
    bool all_panic = true;

    if (n == 0)
        return;
    rest = fill(list, n, overprovisioning, false, 100, sum, &first);
    rest = fill(list, n, overprovisioning, true, rest, sum, &first_degraded);
    if (first != UINT32_MAX)
        list[first].healthy_load += rest;
    else if (first_degraded != UINT32_MAX)
        list[first_degraded].degraded_load += rest;
    for (uint32_t i = 0; i < n; i++)
        list[i].in_panic = false;
    if (sum == 0 && panic_percent == 0) { /* none will be found there, which is right */
        list[0].healthy_load = 100;
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        list[i].in_panic = sum < 100 && is_in_panic(&list[i], panic_percent);
        all_panic = all_panic && list[i].in_panic;
    }
    if (all_panic)
        share_by_size(list, n);
}

uint32_t hd_priorities_choose(const hd_priority_t *list, uint32_t n, uint64_t number,
                              bool *degraded)
{
    uint32_t at = (uint32_t)(number % 100) + 1, sum = 0;

    *degraded = false;
    for (uint32_t i = 0; i < n; i++) {
        sum += list[i].healthy_load;
        if (at <= sum)
            return i;
    }
    *degraded = true;
    for (uint32_t i = 0; i < n; i++) {
        sum += list[i].degraded_load;
        if (at <= sum)
            return i;
    }
    *degraded = false;
    return 0; /* no priority at all */
}
