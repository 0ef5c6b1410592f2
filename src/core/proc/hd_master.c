/* The master: forks and supervises. It never parses and never touches traffic. */
#include "core/proc/hd_inherited.h"
#include "core/proc/hd_master_int.h"
#include "core/proc/hd_pid_file.h"
#include "core/proc/hd_publish.h"
#include "core/net/hd_tls.h"
#include "core/os/hd_clock.h"
#include "core/os/hd_os.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define QUICK_NS 1000000000u /* a death within this of the start is a quick one */
#define BACK_OFF_MS 100
#define BACK_OFF_MAX_MS 5000
#define KILL_AGAIN_MS 1000
#define KILL_MS 10000 /* what doesn't end on TERM is killed after this */

hd_master_t hd_master;

/* --- children --- */

hd_child_t *hd_child_at(hd_generation_t *g, uint32_t i)
{
    switch (i) {
    case HD_WORKERS_MAX:
        return &g->agent;
    case HD_WORKERS_MAX + 1:
        return &g->control;
    case HD_WORKERS_MAX + 2:
        return &g->loader;
    default:
        return &g->workers[i];
    }
}

hd_child_t *hd_child_after(const hd_child_t *c)
{
    uint32_t i = c->kind == HD_PROC_WORKER    ? c->no
                 : c->kind == HD_PROC_AGENT   ? HD_WORKERS_MAX
                 : c->kind == HD_PROC_CONTROL ? HD_WORKERS_MAX + 1
                                              : HD_WORKERS_MAX + 2;

    return i + 1 < HD_CHILDREN_MAX ? hd_child_at(c->gen, i + 1) : NULL;
}

static const char *name_of(const hd_child_t *c)
{
    switch (c->kind) {
    case HD_PROC_WORKER:
        return "worker";
    case HD_PROC_AGENT:
        return "agent";
    case HD_PROC_CONTROL:
        return "control";
    default:
        return "loader";
    }
}

static int row_of(const hd_child_t *c)
{
    switch (c->kind) {
    case HD_PROC_WORKER:
        return (int)c->no;
    case HD_PROC_AGENT:
        return HD_ROW_AGENT;
    case HD_PROC_CONTROL:
        return HD_ROW_CONTROL;
    default:
        return HD_ROW_LOADER;
    }
}

bool hd_child_is_wanted(const hd_child_t *c)
{
    const hd_settings_t *s = &c->gen->settings;
    hd_gen_step_t step = c->gen->step;

    if (hd_master.phase > HD_MASTER_LEAVING || hd_master.is_wound_down)
        return false;
    switch (c->kind) {
    case HD_PROC_WORKER:
        return (step == HD_GEN_STARTING || step == HD_GEN_IN_FORCE) &&
               c->no == c->gen->worker_of[c->no % hd_max(s->workers_n, 1u)];
    case HD_PROC_AGENT:
        return step >= HD_GEN_WARMING && step <= HD_GEN_IN_FORCE && s->has_agent;
    case HD_PROC_CONTROL:
        return step >= HD_GEN_WARMING && step <= HD_GEN_IN_FORCE && s->has_control;
    default:
        return false; /* a loader comes for a reload, and goes */
    }
}

bool hd_child_send(hd_child_t *c, hd_msg_type_t type, const void *payload, size_t len,
                   const int *fds, unsigned fds_n)
{
    hd_err_t err = {0};

    if (c->channel == NULL)
        return false;
    if (hd_channel_send(c->channel, type, payload, len, fds, fds_n, &err) != 0)
        return true;
    if (err.sys_errno == EPIPE || err.sys_errno == ECONNRESET)
        return false; /* it has ended: SIGCHLD is on its way */
    hd_log(HD_LOG_ALERT, "%s process %d doesn't hear: %s; it is replaced", name_of(c),
           (int)c->pid, err.text);
    hd_ignore(kill(c->pid, SIGKILL)); /* gone already, or its end is told by SIGCHLD */
    return false;
}

/* --- what an agent asks for --- */

/* May it publish? One that has to go may not, and nobody needs what it asked for. */
static bool is_agent_at_work(const hd_child_t *c)
{
    return c->kind == HD_PROC_AGENT &&
           (c->gen == hd_master.gen || c->gen == hd_master.next);
}

static void on_agent_prepared(hd_requester_t by, const hd_err_t *err)
{
    hd_generation_t *g = hd_master.gen->agent_as == by ? hd_master.gen : hd_master.next;
    const char *text = err != NULL ? err->text : "";

    if (err != NULL)
        hd_sockets_abort(by);
    else
        hd_sockets_commit(by, false);
    if (g->agent.pid != 0)
        hd_ignore(hd_child_send(&g->agent, HD_MSG_PREPARED, text, strlen(text), NULL, 0));
}

static void on_agent_message(hd_generation_t *g, const hd_msg_head_t *head,
                             const void *payload)
{
    hd_requester_t by = g->agent_as;
    hd_listen_item_t item;

    switch (head->type) {
    case HD_MSG_NEED_LISTEN:
    case HD_MSG_FREE_LISTEN:
        if (head->len != sizeof(item))
            return;
        memcpy(&item, payload, sizeof(item));
        if (!hd_listen_item_fix(&item))
            return;
        item.roles = HD_ROLE_WORKERS;
        if (head->type == HD_MSG_FREE_LISTEN)
            hd_sockets_free(by, &item);
        else
            hd_ignore(hd_sockets_need(by, &item, &g->agent_err));
        break;
    case HD_MSG_NEED_LOG:
        hd_ignore(hd_sockets_need_log(by, hd_str_n(payload, head->len), &g->agent_err));
        break;
    case HD_MSG_PREPARE:
        if (g->agent_err.code != HD_E_NONE)
            on_agent_prepared(by, &g->agent_err);
        else
            hd_sockets_prepare(by, on_agent_prepared);
        hd_err_clear(&g->agent_err);
        break;
    default:
        break;
    }
}

/* --- what any child says --- */

static void tell_started(void)
{
    if (hd_master.phase != HD_MASTER_STARTING)
        return;
    hd_each_child(g, c)
    {
        if (hd_child_is_wanted(c) && !c->is_ready)
            return;
    }
    hd_master.phase = HD_MASTER_RUNNING;
    hd_log(HD_LOG_NOTICE, "all processes are ready");
    hd_master_tell_serving();
    if (hd_master.started_fd < 0)
        return;
    hd_ignore(write(hd_master.started_fd, "", 1) != 1); /* whoever started us has gone */
    hd_ignore(close(hd_master.started_fd));
    hd_master.started_fd = -1;
    if (hd_log_fd() != STDERR_FILENO)
        hd_ignore(dup2(hd_log_fd(), STDERR_FILENO) < 0); /* the terminal is not ours */
}

/* Of its own generation. Lost when that is away or behind: the worker says it again. */
static void pass_to_agent(hd_generation_t *g, const hd_msg_head_t *head,
                          const void *payload)
{
    hd_err_t err = {0};

    if (g->agent.channel != NULL)
        hd_ignore(hd_channel_send(g->agent.channel, HD_MSG_ASK, payload, head->len, NULL,
                                  0, &err) == 0);
}

/* What the agent's first configuration didn't ask for either isn't ours. */
static void leave_inherited(void)
{
    const hd_generation_t *g = hd_master.gen;

    if (hd_master.phase == HD_MASTER_RUNNING &&
        (g->agent.is_warm || !g->settings.has_agent)) {
        hd_inherited_tell_unused();
        hd_inherited_close();
    }
}

static void on_message(void *arg, const hd_msg_head_t *head, const void *payload,
                       int *fds)
{
    hd_child_t *c = arg;
    uint64_t seq;

    (void)fds;
    if (c->kind == HD_PROC_LOADER) {
        hd_master_on_loader_message(head, payload);
        return;
    }
    switch (head->type) {
    case HD_MSG_READY:
        c->is_ready = true;
        tell_started();
        hd_generation_advance();
        leave_inherited();
        break;
    case HD_MSG_WARM:
        c->is_warm = true;
        hd_generation_advance();
        leave_inherited();
        break;
    case HD_MSG_ACK:
        if (head->len == sizeof(seq)) {
            memcpy(&seq, payload, sizeof(seq));
            hd_sockets_on_ack(c, seq);
        }
        break;
    case HD_MSG_ASK:
        pass_to_agent(c->gen, head, payload);
        break;
    case HD_MSG_SOCKET:
        hd_broker_serve(c->channel, head, payload);
        break;
    default:
        if (is_agent_at_work(c))
            on_agent_message(c->gen, head, payload);
        break;
    }
}

/* It ended (SIGCHLD tells how), or it said what no child of ours says. */
static void on_closed(void *arg)
{
    hd_child_t *c = arg;

    if (c->pid != 0 && c->is_ready && !c->was_told &&
        hd_master.phase <= HD_MASTER_LEAVING)
        hd_ignore(kill(c->pid, SIGKILL)); /* a zombie doesn't mind */
}

/* In the child: lets go of what is the master's own. */
static void leave_master(void)
{
    hd_each_child(g, c)
    {
        if (c->channel != NULL)
            hd_ignore(close(hd_channel_fd(c->channel))); /* it has its own end */
    }
    hd_inherited_close();
    hd_ignore(close(hd_master.signals.watch.fd));
    if (hd_master.started_fd >= 0)
        hd_ignore(close(hd_master.started_fd));
    hd_loop_destroy(hd_master.loop);
}

HD_NORETURN static void run_child(hd_child_t *c, int fd)
{
    hd_master.self = c;
    leave_master();
    hd_generation_leave_others(c->gen);
    hd_proc.kind = c->kind;
    hd_proc.worker_no = c->no;
    if (c->kind != HD_PROC_LOADER)
        exit(hd_child_main(&hd_proc, fd));
    hd_master_give_listens(&hd_proc); /* it listens nowhere: all are closed */
    hd_signals_unblock();
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the master to pass on */
    exit(hd_loader_main(&hd_proc, hd_master.options, hd_master.shared, fd));
}

void hd_master_fork(hd_child_t *c)
{
    hd_err_t err = {0};
    int fds[2];

    if (hd_channel_pair(fds, &err) != HD_OK) {
        hd_log(HD_LOG_ALERT, "%s", err.text);
        hd_timer_set(hd_master.loop, &c->respawn, BACK_OFF_MAX_MS);
        return;
    }
    hd_tls_advance_ticket_seed((int64_t)time(NULL));
    c->is_ready = c->is_warm = c->was_told = false;
    if (c->gen == hd_master.next)
        c->is_held = true;
    c->started_ns = hd_clock_mono_ns();
    hd_generation_use(c->gen);
    c->pid = fork();
    if (c->pid == 0) {
        hd_ignore(close(fds[0]));
        run_child(c, fds[1]);
    }
    hd_generation_use(hd_master.gen);
    hd_ignore(close(fds[1]));
    if (c->pid < 0) {
        hd_log(HD_LOG_ALERT, "fork() failed while spawning a %s process: %s", name_of(c),
               strerror(errno));
        hd_ignore(close(fds[0]));
        c->pid = 0;
        hd_timer_set(hd_master.loop, &c->respawn, BACK_OFF_MAX_MS);
        return;
    }
    hd_log(HD_LOG_NOTICE, "start %s process %d", name_of(c), (int)c->pid);
    c->channel =
        hd_channel_create(hd_master.loop, fds[0], on_message, on_closed, c, &err);
    if (c->channel == NULL) {
        hd_log(HD_LOG_ALERT, "%s", err.text);
        hd_ignore(kill(c->pid, SIGKILL)); /* SIGCHLD brings the next */
    }
}

static void on_respawn(hd_timer_t *t)
{
    hd_child_t *c = hd_container_of(t, hd_child_t, respawn);

    if (c->pid != 0)
        return;
    if (c->kind == HD_PROC_LOADER)
        hd_master_on_loader_end(W_EXITCODE(1, 0));
    else if (hd_child_is_wanted(c))
        hd_master_fork(c);
}

void hd_child_tell(hd_child_t *c, int signo)
{
    if (c->pid == 0)
        return;
    c->was_told = true;
    hd_ignore(kill(c->pid, signo)); /* or it has just ended */
}

void hd_master_spawn_all(hd_generation_t *g)
{
    for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c)) {
        if (c->kind == HD_PROC_LOADER)
            continue;
        if (hd_child_is_wanted(c) && c->pid == 0 && !hd_timer_is_set(&c->respawn))
            hd_master_fork(c);
        else if (!hd_child_is_wanted(c) && c->pid != 0)
            hd_child_tell(c, SIGQUIT); /* its block is gone */
    }
    tell_started();
}

/* --- deaths --- */

static void log_death(const hd_child_t *c, int status)
{
    bool was_told = (hd_master.phase > HD_MASTER_LEAVING || c->was_told) &&
                    WIFSIGNALED(status) && (WTERMSIG(status) == SIGTERM || c->was_told);

    if (WIFSIGNALED(status) && !was_told)
        hd_log(HD_LOG_ALERT, "%s process %d exited on signal %d%s", name_of(c),
               (int)c->pid, WTERMSIG(status), WCOREDUMP(status) ? " (core dumped)" : "");
    else if (!was_told && WEXITSTATUS(status) != 0 && c->kind != HD_PROC_LOADER)
        hd_log(HD_LOG_ALERT, "%s process %d exited with code %d", name_of(c), (int)c->pid,
               WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        hd_log(HD_LOG_NOTICE, "%s process %d ended on signal %d", name_of(c), (int)c->pid,
               WTERMSIG(status));
    else
        hd_log(HD_LOG_NOTICE, "%s process %d exited with code %d", name_of(c),
               (int)c->pid, WEXITSTATUS(status));
}

static void replace(hd_child_t *c)
{
    bool was_quick = hd_clock_mono_ns() - c->started_ns < QUICK_NS;
    uint64_t wait_ms;

    c->quick_deaths = was_quick ? c->quick_deaths + 1 : 0;
    if (c->quick_deaths < 2) {
        hd_master_fork(c);
        return;
    }
    wait_ms = hd_min((uint64_t)BACK_OFF_MS << hd_min(c->quick_deaths, 10u),
                     (uint64_t)BACK_OFF_MAX_MS);
    hd_log(HD_LOG_ALERT,
           "the %s process ended %u times within a second of its start: the "
           "next starts in %llu ms",
           name_of(c), c->quick_deaths, (unsigned long long)wait_ms);
    hd_timer_set(hd_master.loop, &c->respawn, wait_ms);
}

static void look_whether_over(void)
{
    bool workers_left = false, any_left = false;

    if (hd_master.phase <= HD_MASTER_LEAVING)
        return;
    hd_each_child(g, c)
    {
        any_left = any_left || c->pid != 0;
        workers_left = workers_left || (c->kind == HD_PROC_WORKER && c->pid != 0);
    }
    if (!any_left) {
        hd_loop_stop(hd_master.loop);
    } else if (!workers_left && hd_master.phase == HD_MASTER_QUITTING) {
        /* Metrics, certificates and discovery were there until the last conn ended. */
        hd_child_tell(&hd_master.gen->agent, SIGQUIT);
        hd_child_tell(&hd_master.gen->control, SIGQUIT);
    }
}

static const char *print_end(int status, char *to, size_t bytes)
{
    (void)snprintf(to, bytes, "%s %d",
                   WIFSIGNALED(status) ? "exited on signal" : "exited with code",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return to;
}

/* One of the generation to come: it isn't given a second one. */
static void give_up_next(const hd_child_t *c, int status)
{
    char why[128], end[64];

    (void)snprintf(why, sizeof(why), "the new %s process %s", name_of(c),
                   print_end(status, end, sizeof(end)));
    hd_master_fail(why);
    hd_master_reload_again();
}

static void on_worker_or_service_death(hd_child_t *c, bool was_ready, int status)
{
    if (is_agent_at_work(c)) {
        hd_err_clear(&c->gen->agent_err);
        hd_sockets_abort(c->gen->agent_as);
    }
    if (!hd_child_is_wanted(c))
        return;
    if (c->gen == hd_master.next) {
        give_up_next(c, status);
    } else if (hd_master.phase == HD_MASTER_STARTING && !was_ready) {
        hd_tell(HD_LOG_EMERG, "the %s process could not start", name_of(c));
        hd_master_stop(1);
    } else {
        replace(c);
    }
}

static void on_death(hd_child_t *c, int status)
{
    bool was_ready = c->is_ready;

    log_death(c, status);
    if (c->kind == HD_PROC_LOADER && c->channel != NULL)
        hd_channel_drain(c->channel); /* its reason may lie there still */
    hd_member_reap(c->gen->state, row_of(c));
    c->pid = 0;
    c->is_ready = c->is_warm = false;
    hd_channel_destroy(c->channel);
    c->channel = NULL;
    hd_sockets_on_death(c);
    if (c->kind == HD_PROC_LOADER)
        hd_master_on_loader_end(status);
    else
        on_worker_or_service_death(c, was_ready, status);
    hd_generation_on_death(c);
    look_whether_over();
}

static hd_child_t *child_of(pid_t pid)
{
    hd_each_child(g, c)
    {
        if (c->pid == pid)
            return c;
    }
    return NULL;
}

static void reap_children(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        hd_child_t *c = child_of(pid);

        if (c != NULL)
            on_death(c, status);
        else if (!hd_carry_on_end(pid, status))
            hd_ignore(hd_upgrade_on_end(pid, status)); /* or nobody of ours */
    }
}

/* --- the end --- */

static void signal_all(int signo)
{
    hd_each_child(g, c)
    {
        hd_child_tell(c, signo);
    }
}

/* Again until they have: nothing that was missed may keep us. */
static void on_kill_due(hd_timer_t *t)
{
    reap_children();
    signal_all(SIGKILL);
    hd_timer_set(hd_master.loop, t, KILL_AGAIN_MS);
}

void hd_master_stop(int status)
{
    if (hd_master.phase == HD_MASTER_STOPPING)
        return;
    if (hd_master.phase <= HD_MASTER_RUNNING)
        hd_master_tell_ending();
    hd_timer_stop(hd_master.loop, &hd_master.leave_timer); /* it would begin to quit */
    hd_master.phase = HD_MASTER_STOPPING;
    hd_master.status = status;
    signal_all(SIGTERM);
    hd_timer_set(hd_master.loop, &hd_master.kill_timer, KILL_MS);
    look_whether_over();
}

/* The listening sockets close, and workers drain. */
static void begin_quitting(void)
{
    hd_timer_stop(hd_master.loop, &hd_master.leave_timer);
    hd_master.phase = HD_MASTER_QUITTING;
    hd_generation_release(); /* figures are there to the end */
    hd_sockets_close_all();
    hd_each_child(g, c)
    {
        if (c->kind == HD_PROC_LOADER)
            hd_child_tell(c, SIGTERM);
        else if (c->kind == HD_PROC_WORKER)
            hd_child_tell(c, SIGQUIT);
    }
    look_whether_over();
}

static void on_leave_due(hd_timer_t *t)
{
    (void)t;
    begin_quitting();
}

/* So long we go on, not ready; 0 where somebody else has the sockets, too: whoever comes
 * finds that one. */
static uint64_t leave_ms(void)
{
    const hd_settings_t *s = &hd_master.gen->settings;

    if (hd_upgrade_shares_sockets() || hd_master.is_wound_down)
        return 0;
    return s->shutdown_timeout_ms > 0
               ? hd_min(s->shutdown_delay_ms, s->shutdown_timeout_ms)
               : s->shutdown_delay_ms;
}

/* Until the last worker has ended the agent says that we aren't ready, unless another
 * program has taken over and is. */
static void tell_leaving(void)
{
    if (hd_upgrade_shares_sockets())
        return;
    hd_master.p->is_leaving = true; /* for those that start yet */
    hd_each_child(g, c)
    {
        if (c->kind != HD_PROC_LOADER && c->channel != NULL)
            hd_ignore(hd_child_send(c, HD_MSG_LEAVING, NULL, 0, NULL, 0));
    }
}

static void quit(void)
{
    uint64_t ms;

    if (hd_master.phase == HD_MASTER_STARTING) {
        hd_master_stop(0);
        return;
    }
    if (hd_master.phase == HD_MASTER_LEAVING) {
        begin_quitting(); /* told twice: at once */
        return;
    }
    if (hd_master.phase != HD_MASTER_RUNNING)
        return;
    hd_log(HD_LOG_NOTICE, "gracefully shutting down");
    hd_master_tell_ending();
    hd_master.phase = HD_MASTER_LEAVING;
    hd_generation_abandon();
    tell_leaving();
    ms = leave_ms();
    if (ms == 0)
        begin_quitting();
    else
        hd_timer_set(hd_master.loop, &hd_master.leave_timer, ms);
}

/* Each signal in each phase; t/proxy/signals.t goes through them, also while generations
 * are made or drain. "no": it is but logged, where somebody waits for it.
 *
 *               STARTING       RUNNING        LEAVING     QUITTING    STOPPING
 *   TERM, INT   stop           stop           stop        stop        -
 *   QUIT        stop           leave          quit        -           -
 *   HUP         then a reload  reload         no          no          no
 *   USR1        -              reopen logs    the same    the same    the same
 *   USR2        no             a new binary   no          no          no
 *   WINCH       -              wind down      -           -           -
 *
 * Leaving ends by its timer; quitting when the last worker has ended, and then the rest;
 * stopping after KILL_MS at the latest, since what is left by then is killed. */
static void on_signal(int signo)
{
    switch (signo) {
    case SIGCHLD:
        reap_children();
        break;
    case SIGTERM:
    case SIGINT:
        hd_master_stop(0);
        break;
    case SIGQUIT:
        quit();
        break;
    case SIGHUP:
        if (hd_upgrade_on_hup())
            break;
        if (hd_master.phase == HD_MASTER_RUNNING)
            hd_master_tell_reloading();
        hd_master_reload(); /* while all starts, too: then once that is published */
        break;
    case SIGUSR2:
        hd_upgrade_start();
        break;
    case SIGWINCH:
        /* As nginx: in the foreground it tells of the terminal's size. */
        if (hd_master.gen->settings.daemon)
            hd_upgrade_wind_down();
        break;
    case SIGUSR1:
        if (hd_master.phase == HD_MASTER_STARTING)
            break;
        hd_log(HD_LOG_NOTICE, "reopening logs"); /* what drains writes there, too */
        hd_sockets_reopen_logs(false);
        break;
    default:
        break;
    }
}

/* --- start --- */

void hd_children_init(hd_generation_t *g)
{
    for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++) {
        hd_child_t *c = hd_child_at(g, i);

        c->gen = g;
        c->kind = i < HD_WORKERS_MAX ? HD_PROC_WORKER : HD_PROC_LOADER;
        c->no = i < HD_WORKERS_MAX ? i : 0;
        hd_timer_init(&c->respawn, on_respawn);
    }
    g->agent.kind = HD_PROC_AGENT;
    g->control.kind = HD_PROC_CONTROL;
}

static hd_rc_t start(hd_err_t *err)
{
    int state;

    hd_tls_make_ticket_seed();
    hd_timer_init(&hd_master.leave_timer, on_leave_due);
    hd_timer_init(&hd_master.kill_timer, on_kill_due);
    hd_master.gen = hd_generation_create(hd_master.shared, err);
    if (hd_master.gen == NULL)
        return HD_ERROR;
    hd_generation_use(hd_master.gen);
    hd_master.loop = hd_loop_create(NULL, 4 * HD_CHILDREN_MAX + 16, err);
    if (hd_master.loop == NULL)
        return HD_ERROR;
    hd_master_start_alive();
    state = hd_inherited_state();
    if (state >= 0)
        hd_generation_add_foreign(state);
    return hd_signals_start(&hd_master.signals, hd_master.loop, on_signal, err);
}

int hd_master_run(hd_proc_t *p, const hd_options_t *options, hd_settings_t *settings,
                  int started_fd)
{
    char title[256];
    hd_err_t err = {0};

    hd_master.p = p;
    hd_master.options = options;
    hd_master.shared = settings;
    hd_master.started_fd = started_fd;
    p->kind = HD_PROC_MASTER;
    (void)snprintf(title, sizeof(title), "master process -c %s", options->conf.data);
    hd_os_set_title(title);
    if (start(&err) != HD_OK) {
        hd_tell(HD_LOG_EMERG, "%s", err.text);
        return 1;
    }
    hd_master_reload();
    hd_loop_run(hd_master.loop);
    hd_log(HD_LOG_NOTICE, "exit");
    hd_carry_stop();
    hd_sockets_close_all();
    hd_pid_file_remove();
    hd_signals_stop(&hd_master.signals);
    hd_loop_destroy(hd_master.loop);
    hd_files_destroy();
    hd_generations_destroy();
    return hd_master.status;
}
