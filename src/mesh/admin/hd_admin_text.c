/* /memory, /clusters, /listeners: what is in force, from the loom itself. */
#include "core/loom/hd_gauge.h"
#include "core/net/hd_cluster.h"
#include "mesh/admin/hd_admin_int.h"
#include "mesh/hd_check.h"
#include "mesh/hd_endpoint_state.h"

#include <stdio.h>

static const char *const arena_names[HD_ARENAS_MAX] = {"files", "dynamic"};

bool hd_admin_memory(hd_admin_answer_t *a)
{
    hd_admin_put(a, HD_STR("{\"arenas\":{"));
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        hd_arena_stats_t s = {0};

        if (hd_proc.arenas[i] != NULL)
            hd_arena_get_stats(hd_proc.arenas[i], hd_loop_now_ns(a->req->loop), &s);
        hd_admin_print(
            a,
            "%s\"%s\":{\"regions_live\":%llu,\"regions_retired\":%llu,"
            "\"bytes_live\":%llu,\"bytes_retired\":%llu,"
            "\"bytes_reserved\":%llu,\"bytes_max\":%llu,"
            "\"retired_oldest_ms\":%llu,\"batches\":%llu,\"slots\":%llu,"
            "\"published\":%llu,\"unchanged\":%llu}",
            i > 0 ? "," : "", arena_names[i], (unsigned long long)s.regions_live,
            (unsigned long long)s.regions_retired, (unsigned long long)s.bytes_live,
            (unsigned long long)s.bytes_retired, (unsigned long long)s.bytes_reserved,
            (unsigned long long)s.bytes_max, (unsigned long long)s.retired_oldest_ms,
            (unsigned long long)s.batches, (unsigned long long)s.slots,
            (unsigned long long)s.published, (unsigned long long)s.unchanged);
    }
    hd_admin_print(a, "},\"state_bytes\":%zu}\n", hd_state_bytes_used(hd_proc.state));
    return false;
}

/* The next slot in force of <type>, over both arenas; NULL: no more. */
static const hd_region_t *next_region(hd_admin_answer_t *a, hd_res_type_t type)
{
    while (a->step < HD_ARENAS_MAX) {
        const hd_arena_t *arena = hd_proc.arenas[a->step];

        while (arena != NULL && (a->slot = hd_slot_next(arena, a->slot)) != NULL) {
            const hd_region_t *r =
                a->slot->type == type ? hd_slot_get(a->req->member, a->slot) : NULL;

            if (r != NULL)
                return r;
        }
        a->slot = NULL;
        a->step++;
    }
    return NULL;
}

static void put_counts(hd_admin_answer_t *a, const hd_cluster_t *c)
{
    static const char *const names[HD_CG_N] = {[HD_CG_CONNS] = "connections",
                                               [HD_CG_PENDING] = "pending",
                                               [HD_CG_REQUESTS] = "requests",
                                               [HD_CG_RETRIES] = "retries",
                                               [HD_CG_POOLS] = "pools"};

    for (uint32_t i = 0; i < HD_CG_N && i < a->slot->gauges_n; i++)
        hd_admin_print(a, "%.*s::active_%s::%u\n", HD_STR_ARG(c->name), names[i],
                       hd_gauge_sum(hd_proc.state, a->slot->gauges_first + i));
    for (uint32_t i = 0; c->high != NULL && i < HD_CG_N; i++)
        hd_admin_print(a, "%.*s::high_priority::active_%s::%u\n", HD_STR_ARG(c->name),
                       names[i], hd_gauge_sum(hd_proc.state, c->high->gauges_first + i));
}

/* A line of Envoy's /clusters. */
static void put_fact(hd_admin_answer_t *a, const hd_cluster_t *c, hd_str_t addr,
                     const char *what, hd_str_t value)
{
    hd_admin_print(a, "%.*s::%.*s::%s::%.*s\n", HD_STR_ARG(c->name), HD_STR_ARG(addr),
                   what, HD_STR_ARG(value));
}

static void put_number(hd_admin_answer_t *a, const hd_cluster_t *c, hd_str_t addr,
                       const char *what, uint32_t n)
{
    char text[16];
    int len = snprintf(text, sizeof(text), "%u", n);

    put_fact(a, c, addr, what, hd_str_n(text, (size_t)len));
}

/* Who looks for Envoy's lines finds them: flags of health, load, place. */
static void put_as_envoy(hd_admin_answer_t *a, const hd_cluster_t *c,
                         const hd_endpoints_t *eps, const hd_endpoint_t *e, hd_str_t addr,
                         uint64_t now_ns)
{
    static const char *const flags[] = {"healthy",
                                        "healthy",
                                        "/failed_eds_health",
                                        "/failed_eds_health",
                                        "/failed_eds_health",
                                        "/eds_degraded"};
    const hd_locality_t *l =
        e->locality < eps->localities_n ? &eps->localities[e->locality] : NULL;

    put_fact(a, c, addr, "health_flags",
             hd_str_c(hd_endpoint_is_ejected(e, now_ns) ? "/failed_outlier_check"
                                                        : flags[hd_min(e->health, 5u)]));
    put_number(a, c, addr, "rq_active",
               e->state != NULL && e->state->requests != HD_GAUGE_NONE
                   ? hd_gauge_sum(hd_proc.state, e->state->requests)
                   : 0);
    put_fact(a, c, addr, "hostname", e->hostname);
    put_number(a, c, addr, "priority", e->priority);
    put_fact(a, c, addr, "region", l != NULL ? l->region : HD_STR(""));
    put_fact(a, c, addr, "zone", l != NULL ? l->zone : HD_STR(""));
    put_fact(a, c, addr, "sub_zone", l != NULL ? l->subzone : HD_STR(""));
}

static void put_endpoints(hd_admin_answer_t *a, const hd_cluster_t *c)
{
    static const char *const health[] = {"unknown",  "healthy", "unhealthy",
                                         "draining", "timeout", "degraded"};
    const hd_region_t *r = hd_cluster_endpoints(a->req->member, c);
    const hd_endpoints_t *eps = r != NULL ? r->root : NULL;
    uint64_t now_ns = hd_loop_now_ns(a->req->loop);

    for (uint32_t i = 0; eps != NULL && i < eps->n; i++) {
        const hd_endpoint_t *e = &eps->items[i];
        char text[HD_ADDR_TEXT_MAX];
        hd_str_t addr = hd_addr_print(&e->addr, text);

        hd_admin_print(a, "%.*s::%.*s::health::%s%s%s\n%.*s::%.*s::weight::%u\n",
                       HD_STR_ARG(c->name), HD_STR_ARG(addr),
                       health[hd_min(e->health, 5u)],
                       hd_endpoint_is_ejected(e, now_ns) ? ",ejected" : "",
                       hd_check_may_serve(c, e) ? "" : ",failed_active_hc",
                       HD_STR_ARG(c->name), HD_STR_ARG(addr), e->weight);
        if (e->state != NULL && e->state->requests != HD_GAUGE_NONE)
            hd_admin_print(a, "%.*s::%.*s::active_requests::%u\n", HD_STR_ARG(c->name),
                           HD_STR_ARG(addr),
                           hd_gauge_sum(hd_proc.state, e->state->requests));
        put_as_envoy(a, c, eps, e, addr, now_ns);
    }
}

bool hd_admin_clusters(hd_admin_answer_t *a)
{
    while (!hd_admin_is_slice_full(a)) {
        const hd_region_t *r = next_region(a, HD_RES_CLUSTER);
        const hd_cluster_t *c;

        if (r == NULL)
            return false;
        c = r->root;
        hd_admin_print(a, "%.*s::source::%.*s\n", HD_STR_ARG(c->name),
                       HD_STR_ARG(r->source));
        put_counts(a, c);
        put_endpoints(a, c);
    }
    return true;
}

static void put_listener(hd_admin_answer_t *a, const hd_listener_t *l,
                         const hd_addr_t *addr)
{
    char text[HD_ADDR_TEXT_MAX];

    hd_admin_print(a, "%.*s::%.*s%s\n", HD_STR_ARG(l->name),
                   HD_STR_ARG(hd_addr_print(addr, text)),
                   l->bind ? "" : " (by original destination)");
}

bool hd_admin_listeners(hd_admin_answer_t *a)
{
    while (!hd_admin_is_slice_full(a)) {
        const hd_region_t *r = next_region(a, HD_RES_LISTENER);
        const hd_listener_t *l;

        if (r == NULL)
            return false;
        l = r->root;
        put_listener(a, l, &l->addr);
        for (uint32_t i = 0; i < l->more_n; i++)
            put_listener(a, l, &l->more[i].bind);
    }
    return true;
}
