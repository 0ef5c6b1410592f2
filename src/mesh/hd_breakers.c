#include "mesh/hd_breakers.h"

#include <stdio.h>

bool hd_breakers_add_high(hd_member_t *m, hd_str_t cluster, hd_breakers_t *high)
{
    char name[512];
    int n = snprintf(name, sizeof(name), "priority high %.*s", HD_STR_ARG(cluster));

    high->gauges_first =
        hd_gauge_get(m, hd_str_n(name, hd_min((size_t)n, sizeof(name) - 1)), HD_CG_N);
    return high->gauges_first != HD_GAUGE_NONE;
}

static void share(hd_member_t *m, const hd_slot_t *slot, const hd_cluster_t *c,
                  bool is_high)
{
    uint32_t budget = is_high ? c->high->retry_budget_permille : c->retry_budget_permille;

    for (unsigned i = 0; i < HD_CG_N; i++) {
        hd_breaker_t b = hd_cluster_breaker(slot, c, is_high, i);
        bool is_read = budget > 0 &&
                       (i == HD_CG_REQUESTS || i == HD_CG_PENDING || i == HD_CG_RETRIES);

        hd_gauge_share(m, b.gauge, b.max != HD_GAUGE_NO_LIMIT || is_read);
    }
}

void hd_breakers_share(hd_member_t *m, const hd_slot_t *slot, const hd_cluster_t *c)
{
    share(m, slot, c, false);
    if (c->high != NULL)
        share(m, slot, c, true);
}
