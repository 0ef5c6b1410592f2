/* A new binary takes over, as nginx does it on the fly:
 *
 *   USR2 -> the pid file becomes FILE.oldbin; the program's file is executed, with all
 *           listening sockets; both programs serve
 *   WINCH -> the old one's workers, agent and control end gracefully; its master stays
 *   QUIT, TERM to the old one: it has made way
 *   HUP to the old one: its processes start again, by what they had: nothing is read;
 *   QUIT, TERM to the new one: the old one has its pid file back, and its processes
 *
 * Processes that end on WINCH may serve what is open for days. So a worker that starts
 * again has another number: of the same seat (its remainder by the number of workers), to
 * which its part of sockets of its own (reuseport) belongs.
 */
#include "core/proc/hd_inherited.h"
#include "core/proc/hd_master_int.h"
#include "core/proc/hd_notify.h"
#include "core/proc/hd_pid_file.h"
#include "core/base/hd_buf.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t new_binary; /* 0: none */
static pid_t old_master; /* that started us so; 0: none did */

void hd_upgrade_init(bool is_inheriting)
{
    old_master = is_inheriting ? getppid() : 0;
}

bool hd_upgrade_is_old_there(void)
{
    return old_master > 1 && getppid() == old_master;
}

pid_t hd_upgrade_successor(void)
{
    return new_binary;
}

bool hd_upgrade_shares_sockets(void)
{
    return new_binary != 0 || hd_upgrade_is_old_there();
}

/* --- USR2 --- */

typedef struct {
    hd_pool_t *pool;
    hd_str_t list, lent;
} environment_t;

static void add_socket(void *arg, int fd, bool is_lent)
{
    environment_t *e = arg;

    e->list = hd_str_printf(e->pool, "%.*s%d;", HD_STR_ARG(e->list), fd);
    if (is_lent)
        e->lent = hd_str_printf(e->pool, "%.*s%d;", HD_STR_ARG(e->lent), fd);
    hd_ignore(fcntl(fd, F_SETFD, 0)); /* not closed on exec; if it were, it is missed */
}

/* In a child of its own. Everything else is closed on exec. */
HD_NORETURN static void execute(void)
{
    environment_t e = {
        .pool = hd_pool_create(0), .list = HD_STR(""), .lent = HD_STR("")};
    const hd_options_t *o = hd_master.options;
    int state;

    hd_sockets_each(add_socket, &e);
    hd_signals_unblock();
    signal(SIGPIPE, SIG_DFL);
    state = hd_state_fd(hd_master.gen->state);
    hd_ignore(fcntl(state, F_SETFD, 0)); /* closed on exec, it is missed */
    hd_notify_hand_on();
    if (setenv(HD_INHERITED_NAME, e.list.data, 1) == 0 &&
        setenv(HD_INHERITED_LENT_NAME, e.lent.data, 1) == 0 &&
        setenv(HD_INHERITED_STATE_NAME, hd_str_printf(e.pool, "%d", state).data, 1) == 0)
        execv(o->program.data, o->argv);
    hd_log(HD_LOG_ALERT, "execve() \"%s\" failed: %s", o->program.data, strerror(errno));
    _exit(1);
}

static const char *why_not(void)
{
    if (hd_master.phase != HD_MASTER_RUNNING)
        return "processes are starting or ending";
    if (new_binary != 0)
        return "one was started already: end that, or this one";
    if (hd_upgrade_is_old_there())
        return "the old binary's master is still there: end that first";
    return NULL;
}

void hd_upgrade_start(void)
{
    const char *why = why_not();
    hd_err_t err = {0};

    if (why != NULL) {
        hd_log(HD_LOG_NOTICE, "no new binary is started: %s", why);
        return;
    }
    hd_log(HD_LOG_NOTICE, "changing binary");
    if (hd_pid_file_step_aside(&err) != HD_OK) {
        hd_log(HD_LOG_ALERT, "%s: no new binary is started", err.text);
        return;
    }
    new_binary = fork();
    if (new_binary == 0)
        execute();
    if (new_binary > 0) {
        hd_log(HD_LOG_NOTICE, "start new binary process %d", (int)new_binary);
        return;
    }
    new_binary = 0;
    hd_log(HD_LOG_ALERT, "fork() failed while starting a new binary: %s",
           strerror(errno));
    if (hd_pid_file_step_back(&err) != HD_OK)
        hd_log(HD_LOG_ALERT, "%s", err.text);
}

/* --- WINCH, and back --- */

void hd_upgrade_wind_down(void)
{
    hd_generation_t *g = hd_master.gen;

    if (hd_master.phase != HD_MASTER_RUNNING || hd_master.is_wound_down)
        return;
    hd_log(HD_LOG_NOTICE, "gracefully shutting down worker processes");
    hd_master.is_wound_down = true;
    hd_generation_abandon();
    for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c)) {
        if (c->kind == HD_PROC_LOADER)
            continue;
        hd_timer_stop(hd_master.loop, &c->respawn);
        hd_child_tell(c, SIGQUIT);
    }
}

/* The number for a new worker of <seat>: one whose process has ended. None has: the same,
 * and it starts when that one ends. */
static uint32_t free_number(hd_generation_t *g, uint32_t seat)
{
    uint32_t no;

    for (no = seat; no < HD_WORKERS_MAX; no += g->settings.workers_n)
        if (g->workers[no].pid == 0)
            return no;
    return seat;
}

static bool make_ring(hd_generation_t *g, uint32_t no)
{
    if (g->rings[no] < 0)
        g->rings[no] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (g->rings[no] < 0)
        hd_log(HD_LOG_ALERT, "eventfd(): %s", strerror(errno));
    return g->rings[no] >= 0;
}

static void restart(void)
{
    hd_generation_t *g = hd_master.gen;

    hd_master.is_wound_down = false;
    for (uint32_t seat = 0; seat < g->settings.workers_n; seat++) {
        uint32_t no = free_number(g, seat);

        if (make_ring(g, no))
            g->worker_of[seat] = no;
    }
    hd_generation_use(g);
    hd_master_spawn_all(g);
}

bool hd_upgrade_on_hup(void)
{
    bool is_enough = new_binary != 0;

    if (hd_master.is_wound_down)
        restart();
    else if (is_enough)
        hd_log(HD_LOG_NOTICE, "nothing is read while a new binary is there");
    return is_enough;
}

bool hd_upgrade_on_end(pid_t pid, int status)
{
    hd_err_t err = {0};

    if (pid != new_binary || new_binary == 0)
        return false;
    new_binary = 0;
    hd_log(HD_LOG_NOTICE, "new binary process %d %s %d", (int)pid,
           WIFSIGNALED(status) ? "exited on signal" : "exited with code",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (hd_master.phase > HD_MASTER_RUNNING)
        return true;
    if (hd_pid_file_step_back(&err) != HD_OK)
        hd_log(HD_LOG_ALERT, "%s", err.text);
    if (hd_master.is_wound_down)
        restart();
    return true;
}
