/* Counters from one generation to the next: in a process of its own, for it reads what
 * others wrote and may die of it, or never end. */
#include "core/loom/hd_series.h"
#include "core/proc/hd_master_int.h"
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define LATE_MS 10000

static pid_t carrier; /* 0: none is at work */
static bool is_wanted_again;
static hd_timer_t late;

static hd_generation_t *before(const hd_generation_t *g)
{
    hd_generation_t *older = g->older;

    while (older != NULL && older->step != HD_GEN_DRAINING)
        older = older->older;
    return older;
}

/* From the oldest on, so that what it has counted since comes through. */
static bool carry_into(const hd_generation_t *g)
{
    hd_generation_t *from = before(g);
    hd_err_t err = {0};
    hd_member_t *m;

    if (from == NULL)
        return true; /* what came before is in its row for good */
    if (!carry_into(from))
        return false;
    m = hd_member_start(g->state, HD_ROW_CARRY, HD_MEMBER_TOOL, &err);
    if (m == NULL)
        return false;
    hd_series_carry(m, from->state);
    hd_member_stop(m);
    return true;
}

static void on_late(hd_timer_t *t)
{
    (void)t;
    hd_ignore(kill(carrier, SIGKILL)); /* or it has just ended */
}

static void mark_ended(hd_generation_t *g)
{
    g->is_carried = !g->is_foreign || !hd_upgrade_is_old_there();
    for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c))
        g->is_carried = g->is_carried && c->pid == 0;
}

void hd_carry_start(void)
{
    is_wanted_again = carrier != 0;
    if (is_wanted_again)
        return;
    for (hd_generation_t *g = before(hd_master.gen); g != NULL; g = before(g))
        mark_ended(g); /* what it counts from here on is nothing */
    carrier = fork();
    if (carrier == 0)
        _exit(carry_into(hd_master.gen) ? 0 : 1);
    if (carrier > 0) {
        hd_timer_init(&late, on_late);
        hd_timer_set(hd_master.loop, &late, LATE_MS);
        return;
    }
    hd_log(HD_LOG_ALERT, "fork() failed: %s: counters are not carried over",
           strerror(errno));
    carrier = 0;
    hd_generation_on_carried();
}

bool hd_carry_on_end(pid_t pid, int status)
{
    if (pid != carrier || carrier == 0)
        return false;
    carrier = 0;
    hd_timer_stop(hd_master.loop, &late);
    for (hd_generation_t *g = hd_master.gen; g != NULL; g = g->older)
        if (!g->is_foreign)
            hd_member_reap(g->state, HD_ROW_CARRY);
    if (status != 0)
        hd_log(HD_LOG_ALERT,
               "counters of older generations could not be carried over: the process "
               "%s %d",
               WIFSIGNALED(status) ? "exited on signal" : "exited with code",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (is_wanted_again)
        hd_carry_start();
    else
        hd_generation_on_carried();
    return true;
}

void hd_carry_stop(void)
{
    if (carrier == 0)
        return;
    hd_ignore(kill(carrier, SIGKILL));
    while (waitpid(carrier, NULL, 0) < 0 && errno == EINTR)
        ;
    carrier = 0;
}
