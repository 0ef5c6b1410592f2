/* What every process that serves does: modules and hooks started, batches heard of, the
 * graceful end. Worker, agent, control, and all of them in one with master_process off.
 */
#include "core/base/hd_spare.h"
#include "core/net/hd_clients.h"
#include "core/proc/hd_process_int.h"
#include <stdlib.h>

#define QUIT_LOOK_MS 20 /* how often is_idle is asked while draining */

#define TRIM_MS 10000 /* memory that was of no use for so long is given back */

/* Between two rounds of draining. Idle conns end one round at least after the last was
 * accepted: of one that has just come the first request is on its way, and nobody could
 * repeat it for the client. */
#define ROUND_MS 200
#define PATIENCE 5 /* rounds, where there is time for it */

static hd_timer_t quit_timer, drain_timer, late_timer, trim_timer;
static hd_drain_round_t drain_round;

/* --- L4 filters of modules --- */

static hd_rc_t run_filters(hd_conn_t *c, const hd_filter_chain_t *chain, uint32_t from)
{
    for (uint32_t i = from; i < chain->filters_n; i++) {
        const hd_net_filter_t *f = &chain->filters[i];
        const hd_module_t *m = hd_module_get(f->module);
        hd_rc_t rc;

        if (m == NULL || m->on_conn == NULL)
            continue;
        rc = m->on_conn(c, f->conf);
        if (rc != HD_OK)
            return rc;
    }
    return HD_OK;
}

/* --- start, batches --- */

static hd_rc_t start_modules(hd_proc_t *p, hd_err_t *err)
{
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        const hd_module_t *m = hd_module_get(i);

        if (m->on_process_start != NULL &&
            m->on_process_start(p->member, p->loop, err) != HD_OK)
            return hd_err_prefix(err, "module %s: ", m->name);
    }
    return HD_OK;
}

void hd_on_ring(void *arg)
{
    hd_proc_t *p = arg;

    if (p->acceptor != NULL && !p->is_quitting)
        hd_acceptor_refresh(p->acceptor);
    hd_hooks_batch(p);
}

static void on_trim(hd_timer_t *t)
{
    hd_ignore(hd_spares_trim() == 0);
    hd_timer_set(hd_proc.loop, t, TRIM_MS);
}

static void on_late(hd_timer_t *t)
{
    (void)t;
    hd_log(HD_LOG_NOTICE,
           "%zu connections are still open after worker_shutdown_timeout: "
           "they are closed",
           hd_conns_open(hd_proc.loop));
    hd_loop_stop(hd_proc.loop);
}

hd_rc_t hd_serve_start(hd_proc_t *p, hd_err_t *err)
{
    hd_listener_run_filters = run_filters;
    hd_files_set_loop(p->loop);
    hd_turn_begin(p->member); /* what was published before is read as in a turn */
    if (p->kind == HD_PROC_WORKER || p->kind == HD_PROC_SINGLE)
        hd_clients_start(p->member);
    if (start_modules(p, err) != HD_OK || hd_hooks_start(p, err) != HD_OK)
        return HD_ERROR;
    hd_turn_begin(p->member); /* hooks that had a turn of their own have ended it */
    hd_on_ring(p);
    hd_turn_sleep(p->member);
    hd_timer_init(&late_timer, on_late);
    hd_timer_init(&trim_timer, on_trim);
    hd_timer_set(p->loop, &trim_timer, TRIM_MS);
    return HD_OK;
}

/* --- the end --- */

static void on_quit_look(hd_timer_t *t)
{
    if (hd_hooks_idle(&hd_proc) && hd_conns_open(hd_proc.loop) == 0)
        hd_loop_stop(hd_proc.loop);
    else
        hd_timer_set(hd_proc.loop, t, QUIT_LOOK_MS);
}

static void on_drain_due(hd_timer_t *t)
{
    for (uint16_t i = 1; hd_protocol_get(i) != NULL; i++)
        if (hd_protocol_get(i)->drain != NULL)
            hd_protocol_get(i)->drain(hd_proc.loop, &drain_round);
    drain_round.no++;
    if (drain_round.left > 1)
        drain_round.left--;
    hd_timer_set(hd_proc.loop, t, ROUND_MS);
}

/* Only clients of workers come in such numbers that it helps to spread them. */
static void begin_draining(const hd_proc_t *p)
{
    bool is_spread = p->settings->drain_time_ms >= ROUND_MS &&
                     (p->kind == HD_PROC_WORKER || p->kind == HD_PROC_SINGLE);
    uint64_t rounds = is_spread ? p->settings->drain_time_ms / ROUND_MS : 1;

    drain_round = (hd_drain_round_t){
        .left = (uint32_t)hd_min(rounds, (uint64_t)UINT32_MAX),
        .patience = is_spread ? (uint32_t)hd_min(rounds, (uint64_t)PATIENCE) : 1};
    hd_timer_init(&drain_timer, on_drain_due);
    hd_timer_set(p->loop, &drain_timer, 0);
}

static void bound(const hd_proc_t *p)
{
    if (p->settings->shutdown_timeout_ms > 0 && !hd_timer_is_set(&late_timer))
        hd_timer_set(p->loop, &late_timer, p->settings->shutdown_timeout_ms);
}

/* The agent and control are there until the last worker has ended: their time begins when
 * they are told to quit. */
void hd_serve_leave(hd_proc_t *p)
{
    p->is_leaving = true;
    if (p->kind == HD_PROC_WORKER || p->kind == HD_PROC_SINGLE)
        bound(p);
}

void hd_serve_quit(hd_proc_t *p)
{
    if (p->is_quitting)
        return;
    p->is_quitting = true;
    if (p->acceptor != NULL)
        hd_acceptor_stop(p->acceptor);
    begin_draining(p);
    hd_hooks_quit(p);
    hd_timer_init(&quit_timer, on_quit_look);
    hd_timer_set(p->loop, &quit_timer, 0);
    bound(p);
}

void hd_serve_stop(hd_proc_t *p)
{
    hd_hooks_stop(p);
    for (uint16_t i = hd_modules_n(); i-- > 0;)
        if (hd_module_get(i)->on_process_stop != NULL)
            hd_module_get(i)->on_process_stop(p->member);
    if (p->acceptor != NULL)
        hd_acceptor_destroy(p->acceptor);
    p->acceptor = NULL;
    hd_files_destroy();
}
