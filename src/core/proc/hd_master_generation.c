/* Generations: processes with arenas and state of their own.
 *
 *   HUP -> a loader finds what living processes can't follow -GENERATION-> it ends
 *       -> LOADING:  the next generation's own loader reads anew, builds, publishes
 *       -> WARMING:  its agent and control start; until these are ready, and the agent
 * has its first whole configuration from the control plane (or gave up)
 *       -> STARTING: its workers start; until all are ready, and the generation before
 * has handed over
 *       -> IN_FORCE, the other DRAINING: in one turn the new workers get the listening
 *                    sockets and the old ones are told to quit
 *       -> handing over: the old agent ends, its counters are carried over, and only then
 *                    the new agent answers for both: no counter goes back
 *
 * Until IN_FORCE the new ones are held: they have no listening socket, so whatever fails
 * before leaves all as it was and costs no connection. The sockets are the master's:
 * connections wait in their queues meanwhile.
 *
 * A generation that drains is freed when its last process has ended and what that counted
 * is carried over; the oldest first, for counts come down the line.
 */
#include "core/proc/hd_master_int.h"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOK_MS 100   /* how often we look whether an old binary's agent has gone */
#define LATE_MS 2000  /* for an agent's last answers, and a control's */
#define CARRY_MS 5000 /* how often counters of what drains are carried over */

static uint32_t last_no;
static hd_timer_t carry_timer;

hd_generation_t *hd_generation_next(const hd_generation_t *g)
{
    if (g == NULL)
        return hd_master.next != NULL ? hd_master.next : hd_master.gen;
    return g == hd_master.next ? hd_master.gen : g->older;
}

void hd_generation_use(hd_generation_t *g)
{
    hd_master.p->state = g->state;
    memcpy(hd_master.p->arenas, g->arenas, sizeof(g->arenas));
    memcpy(hd_rings, g->rings, sizeof(g->rings));
    hd_master.p->settings = g->step != HD_GEN_LOADING ? &g->settings : NULL;
}

static void drop(hd_generation_t *g)
{
    hd_proc_t p = {.state = g->state};

    memcpy(p.arenas, g->arenas, sizeof(g->arenas));
    hd_drop_shared(&p);
    for (int i = 0; i < HD_RINGS_MAX; i++)
        if (g->rings[i] >= 0)
            hd_ignore(close(g->rings[i])); /* an eventfd */
}

/* --- making one --- */

static void on_late(hd_timer_t *t)
{
    hd_generation_t *g = hd_container_of(t, hd_generation_t, late);

    hd_child_tell(&g->agent, SIGKILL);
    hd_child_tell(&g->control, SIGKILL);
}

static hd_generation_t *last_draining(void);
static bool has_agent(const hd_generation_t *g);

static void on_carry_due(hd_timer_t *t)
{
    if (hd_master.gen->agent.is_held && has_agent(last_draining()))
        hd_timer_set(hd_master.loop, t, LOOK_MS); /* it answers itself */
    else
        hd_carry_start();
}

hd_generation_t *hd_generation_create(const hd_settings_t *s, hd_err_t *err)
{
    hd_generation_t *g = calloc(1, sizeof(*g)), *in_force = hd_master.gen;
    hd_proc_t p = {0};
    hd_rc_t rc;

    hd_bug_on(g == NULL);
    rc = hd_make_shared(&p, s, err);
    g->no = ++last_no;
    hd_settings_copy(&g->settings, s);
    g->agent_as = in_force != NULL && in_force->agent_as == HD_BY_AGENT
                      ? HD_BY_OTHER_AGENT
                      : HD_BY_AGENT;
    g->state = p.state;
    memcpy(g->arenas, p.arenas, sizeof(g->arenas));
    memcpy(g->rings, hd_rings, sizeof(g->rings));
    hd_timer_init(&g->late, on_late);
    for (uint32_t i = 0; i < HD_WORKERS_MAX; i++)
        g->worker_of[i] = i;
    hd_children_init(g);
    if (in_force == NULL)
        hd_timer_init(&carry_timer, on_carry_due);
    else
        hd_generation_use(in_force);
    if (rc == HD_OK)
        return g;
    drop(g);
    free(g);
    return NULL;
}

void hd_generation_add_foreign(int fd)
{
    hd_err_t err = {0};
    hd_state_t *state = hd_state_open_other(fd, &err);
    hd_generation_t *g;

    if (state == NULL) {
        hd_log(HD_LOG_NOTICE,
               "the old binary's state isn't taken: %s: counters begin anew", err.text);
        return;
    }
    g = calloc(1, sizeof(*g));
    hd_bug_on(g == NULL);
    g->step = HD_GEN_DRAINING;
    g->is_foreign = true;
    g->state = state;
    memset(g->rings, -1, sizeof(g->rings));
    hd_timer_init(&g->late, on_late);
    hd_children_init(g);
    hd_master.gen->older = g;
    hd_master.gen->agent.is_held = true;
    hd_timer_set(hd_master.loop, &carry_timer, LOOK_MS);
}

bool hd_generation_fits(const hd_generation_t *g, const hd_settings_t *s)
{
    return g->settings.workers_n == s->workers_n &&
           g->settings.loom_bytes_max == s->loom_bytes_max;
}

void hd_generation_leave_others(hd_generation_t *g)
{
    for (hd_generation_t *other = hd_generation_next(NULL); other != NULL;
         other = hd_generation_next(other))
        if (other != g)
            drop(other);
}

/* --- one takes over from another --- */

static bool is_empty(hd_generation_t *g)
{
    for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c))
        if (c->pid != 0)
            return false;
    return true;
}

/* All that should run by now do, and have what they need. */
static bool is_complete(hd_generation_t *g)
{
    for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c))
        if (hd_child_is_wanted(c) &&
            (!c->is_ready || (c->kind != HD_PROC_WORKER && !c->is_warm)))
            return false;
    return true;
}

static void begin_draining(hd_generation_t *g)
{
    for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c)) {
        hd_timer_stop(hd_master.loop, &c->respawn);
        hd_child_tell(c, c->kind == HD_PROC_LOADER ? SIGTERM : SIGQUIT);
    }
    hd_timer_set(hd_master.loop, &g->late, LATE_MS);
}

/* Does it answer for figures still? */
static bool has_agent(const hd_generation_t *g)
{
    return g->is_foreign
               ? hd_upgrade_is_old_there() && hd_member_is_there(g->state, HD_ROW_AGENT)
               : g->agent.pid != 0;
}

/* The one that was in force before; NULL: it has gone, or there was none. */
static hd_generation_t *last_draining(void)
{
    hd_generation_t *g = hd_master.gen->older;

    while (g != NULL && g->step != HD_GEN_DRAINING)
        g = g->older;
    return g;
}

static void switch_over(void)
{
    hd_generation_t *old = hd_master.gen, *next = hd_master.next;

    next->older = old;
    next->step = HD_GEN_IN_FORCE;
    hd_master.gen = next;
    hd_master.next = NULL;
    hd_generation_use(next);
    old->step = HD_GEN_DRAINING;
    hd_master_put_in_force(&old->settings);
    hd_sockets_forget(old->agent_as);
    for (hd_child_t *c = hd_child_at(next, 0); c != NULL; c = hd_child_after(c))
        if (c->is_held && c->kind != HD_PROC_AGENT)
            hd_sockets_release(c);
    begin_draining(old);
    hd_log(HD_LOG_NOTICE, "reload done: generation %u is in force, %u drains", next->no,
           old->no);
    if (hd_master.phase == HD_MASTER_RUNNING && !hd_master.reload_again)
        hd_master_tell_serving();
    if (old->agent.pid == 0)
        hd_carry_start();
    hd_master_reload_again();
}

void hd_generation_begin(void)
{
    hd_generation_t *next = hd_master.next;

    hd_settings_copy(&next->settings, hd_master.shared);
    next->step = HD_GEN_WARMING;
    hd_master_spawn_all(next);
    hd_generation_advance();
}

void hd_generation_advance(void)
{
    hd_generation_t *next = hd_master.next;

    if (next == NULL || next->step == HD_GEN_LOADING || !is_complete(next))
        return;
    if (next->step == HD_GEN_WARMING) {
        next->step = HD_GEN_STARTING;
        hd_master_spawn_all(next);
    } else if (!hd_master.gen->agent.is_held) {
        switch_over();
    }
}

void hd_generation_abandon(void)
{
    hd_generation_t *g = hd_master.next;

    if (g == NULL)
        return;
    hd_master.next = NULL;
    g->step = HD_GEN_ABANDONED;
    g->older = hd_master.gen->older; /* until all of it have ended */
    hd_master.gen->older = g;
    hd_sockets_forget(g->agent_as);
    for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c)) {
        hd_timer_stop(hd_master.loop, &c->respawn);
        hd_child_tell(c, c->kind == HD_PROC_LOADER ? SIGTERM : SIGKILL);
    }
}

/* --- the end of one --- */

static void remove_generation(hd_generation_t *g)
{
    hd_generation_t **at = &hd_master.gen;

    while (*at != g)
        at = &(*at)->older;
    *at = g->older;
    hd_timer_stop(hd_master.loop, &g->late);
    if (g->is_foreign)
        hd_log(HD_LOG_NOTICE, "the old binary has ended; what it counted goes on here");
    else if (g->step == HD_GEN_DRAINING)
        hd_log(HD_LOG_NOTICE, "generation %u has drained", g->no);
    drop(g);
    free(g);
    hd_sockets_close_logs();
}

static void free_abandoned(void)
{
    hd_generation_t *older;

    for (hd_generation_t *g = hd_master.gen; g != NULL; g = older) {
        older = g->older;
        if (g->step == HD_GEN_ABANDONED && is_empty(g))
            remove_generation(g);
    }
}

static hd_generation_t *oldest_draining(void)
{
    hd_generation_t *found = NULL;

    for (hd_generation_t *g = hd_master.gen; g != NULL; g = g->older)
        if (g->step == HD_GEN_DRAINING)
            found = g;
    return found;
}

void hd_generation_release(void)
{
    if (hd_master.gen->agent.is_held)
        hd_sockets_release(&hd_master.gen->agent);
}

void hd_generation_on_carried(void)
{
    hd_generation_t *g;

    while ((g = oldest_draining()) != NULL && g->is_carried)
        remove_generation(g);
    if (g == NULL)
        hd_timer_stop(hd_master.loop, &carry_timer);
    else if (hd_master.phase <= HD_MASTER_LEAVING)
        hd_timer_set(hd_master.loop, &carry_timer, CARRY_MS);
    g = last_draining();
    if (g != NULL && has_agent(g))
        return; /* it still answers itself; its end asks for the next round */
    hd_generation_release();
    hd_generation_advance();
}

void hd_generation_on_death(hd_child_t *c)
{
    bool is_draining = c->gen->step == HD_GEN_DRAINING;

    free_abandoned(); /* <c> may be gone */
    if (!is_draining || hd_master.phase == HD_MASTER_STOPPING)
        return;
    if (!has_agent(last_draining())) /* not before it has given its last figures */
        hd_carry_start();
}

void hd_generations_destroy(void)
{
    while (hd_master.gen != NULL) {
        hd_generation_t *g = hd_master.gen;

        hd_master.gen = g->older;
        drop(g);
        free(g);
    }
}
