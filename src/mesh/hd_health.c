#include "mesh/hd_health.h"
#include "core/net/hd_cluster.h"
#include "core/proc/hd_process.h"
#include "mesh/hd_check.h"
#include "mesh/hd_outlier.h"

#define SWEEP_MS 250
#define WARM_NS UINT64_C(30000000000) /* longer nobody waits for checks' first answers */

static struct {
    hd_proc_t *proc;
    hd_timer_t sweep;
    uint64_t began_ns;
} agent;

/* Calls for each cluster in force with its endpoints. Within a turn. */
static void each_cluster(hd_proc_t *p,
                         void (*visit)(const hd_cluster_t *c, const hd_endpoints_t *eps))
{
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        const hd_slot_t *slot = NULL;

        while (p->arenas[i] != NULL &&
               (slot = hd_slot_next(p->arenas[i], slot)) != NULL) {
            const hd_region_t *r =
                slot->type == HD_RES_CLUSTER ? hd_slot_get(p->member, slot) : NULL;
            const hd_cluster_t *c = r != NULL ? r->root : NULL;

            r = c != NULL ? hd_cluster_endpoints(p->member, c) : NULL;
            if (r != NULL)
                visit(c, r->root);
        }
    }
}

/* --- outlier detection --- */

static bool is_sweep_needed;

static void sweep_cluster(const hd_cluster_t *c, const hd_endpoints_t *eps)
{
    /* with ejections, but no detection any more: once more, behind those that still come */
    is_sweep_needed |=
        c->outlier != NULL ||
        (eps->state != NULL &&
         atomic_load_explicit(&eps->state->ejected_n, memory_order_relaxed) > 0);
    hd_outlier_sweep(agent.proc->member, c, eps, hd_loop_now_ns(agent.proc->loop));
}

static void sweep(hd_proc_t *p)
{
    is_sweep_needed = false;
    each_cluster(p, sweep_cluster);
    if (is_sweep_needed && !p->is_quitting)
        hd_timer_set(p->loop, &agent.sweep, SWEEP_MS);
}

static void on_sweep(hd_timer_t *t)
{
    (void)t;
    sweep(agent.proc);
}

/* --- life --- */

static hd_rc_t on_start(hd_proc_t *p, hd_err_t *err)
{
    (void)err;
    agent.proc = p;
    agent.began_ns = hd_loop_now_ns(p->loop);
    hd_timer_init(&agent.sweep, on_sweep);
    hd_turn_begin(p->member);
    sweep(p);
    hd_check_refresh(p);
    return HD_OK;
}

static void on_batch(hd_proc_t *p)
{
    if (!hd_timer_is_set(&agent.sweep))
        sweep(p);
    if (!p->is_quitting)
        hd_check_refresh(p);
}

/* Before a new generation takes over, or it is said that all are ready, it is known which
 * servers are well. */
static bool is_warm(hd_proc_t *p)
{
    return hd_loop_now_ns(p->loop) - agent.began_ns > WARM_NS || hd_checks_are_warm(p);
}

static void on_quit(hd_proc_t *p)
{
    hd_check_stop(p);
}

static void on_stop(hd_proc_t *p)
{
    hd_check_stop(p);
    if (agent.proc != NULL)
        hd_timer_stop(p->loop, &agent.sweep);
    agent.proc = NULL;
}

static const hd_process_hooks_t hooks = {
    .name = "health",
    .kinds = 1u << HD_PROC_AGENT,
    .on_start = on_start,
    .on_batch = on_batch,
    .is_warm = is_warm,
    .on_quit = on_quit,
    .on_stop = on_stop,
};

void hd_health_register(void)
{
    hd_process_add_hooks(&hooks);
}
