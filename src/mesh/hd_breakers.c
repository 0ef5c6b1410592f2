#include "mesh/hd_breakers.h"

#include <stdio.h>

static hd_str_t high_name(const hd_slot_t *slot, char *room, size_t bytes)
{
    int n = snprintf(room, bytes, "priority high %u %.*s", slot->arena,
                     HD_STR_ARG(slot->name));

    return hd_str_n(room, hd_min((size_t)n, bytes - 1));
}

bool hd_breakers_add_high(hd_member_t *m, const hd_slot_t *slot, hd_breakers_t *high)
{
    char room[512];

    high->gauges_first = hd_gauge_get(m, high_name(slot, room, sizeof(room)), HD_CG_N);
    return high->gauges_first != HD_GAUGE_NONE;
}

static void on_gone(hd_member_t *writer, const hd_slot_t *slot)
{
    char room[512];

    if (slot->type == HD_RES_CLUSTER)
        hd_gauge_drop(writer, high_name(slot, room, sizeof(room)));
}

void hd_breakers_register(void)
{
    hd_slots_on_gone(on_gone);
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
