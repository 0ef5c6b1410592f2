/* The master: forks and supervises. It never parses and never touches traffic. */
#include "core/proc/hd_master_int.h"
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
#define KILL_MS 10000 /* what doesn't end on TERM is killed after this */

hd_master_t hd_master;

/* --- children --- */

hd_child_t *hd_child_at(uint32_t i)
{
    switch (i) {
    case HD_WORKERS_MAX:
        return &hd_master.agent;
    case HD_WORKERS_MAX + 1:
        return &hd_master.control;
    case HD_WORKERS_MAX + 2:
        return &hd_master.loader;
    default:
        return &hd_master.workers[i];
    }
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

/* Should it run, by the configuration in force? */
static bool is_wanted(const hd_child_t *c)
{
    const hd_settings_t *s = hd_master.p->settings;

    if (s == NULL || hd_master.phase > HD_MASTER_RUNNING)
        return false;
    return c->kind == HD_PROC_WORKER  ? c->no < s->workers_n
           : c->kind == HD_PROC_AGENT ? s->has_agent
                                      : s->has_control;
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

static void on_agent_prepared(const hd_err_t *err)
{
    hd_child_t *agent = &hd_master.agent;
    const char *text = err != NULL ? err->text : "";

    if (err != NULL)
        hd_sockets_abort(HD_BY_AGENT);
    else
        hd_sockets_commit(HD_BY_AGENT, false);
    if (agent->pid != 0)
        hd_ignore(hd_child_send(agent, HD_MSG_PREPARED, text, strlen(text), NULL, 0));
}

/* What failed while the agent named what it needs; told at PREPARE. */
static hd_err_t agent_err;

static void on_agent_message(const hd_msg_head_t *head, const void *payload)
{
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
            hd_sockets_free(HD_BY_AGENT, &item);
        else
            hd_ignore(hd_sockets_need(HD_BY_AGENT, &item, &agent_err));
        break;
    case HD_MSG_NEED_LOG:
        hd_ignore(
            hd_sockets_need_log(HD_BY_AGENT, hd_str_n(payload, head->len), &agent_err));
        break;
    case HD_MSG_PREPARE:
        if (agent_err.code != HD_E_NONE)
            on_agent_prepared(&agent_err);
        else
            hd_sockets_prepare(HD_BY_AGENT, on_agent_prepared);
        hd_err_clear(&agent_err);
        break;
    default:
        break;
    }
}

static void tell_started(void)
{
    if (hd_master.phase != HD_MASTER_STARTING)
        return;
    for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++) {
        const hd_child_t *c = hd_child_at(i);

        if (c->kind != HD_PROC_LOADER && is_wanted(c) && !c->is_ready)
            return;
    }
    hd_master.phase = HD_MASTER_RUNNING;
    hd_log(HD_LOG_NOTICE, "all processes are ready");
    if (hd_master.started_fd < 0)
        return;
    hd_ignore(write(hd_master.started_fd, "", 1) != 1); /* whoever started us has gone */
    hd_ignore(close(hd_master.started_fd));
    hd_master.started_fd = -1;
    if (hd_log_fd() != STDERR_FILENO)
        hd_ignore(dup2(hd_log_fd(), STDERR_FILENO) < 0); /* the terminal is not ours */
}

/* Lost when the agent is away or behind: the worker says it again. */
static void pass_to_agent(const hd_msg_head_t *head, const void *payload)
{
    hd_err_t err = {0};

    if (hd_master.agent.channel != NULL)
        hd_ignore(hd_channel_send(hd_master.agent.channel, HD_MSG_ASK, payload, head->len,
                                  NULL, 0, &err) == 0);
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
        break;
    case HD_MSG_ACK:
        if (head->len == sizeof(seq)) {
            memcpy(&seq, payload, sizeof(seq));
            hd_sockets_on_ack(c, seq);
        }
        break;
    case HD_MSG_ASK:
        pass_to_agent(head, payload);
        break;
    case HD_MSG_SOCKET:
        hd_broker_serve(c->channel, head, payload);
        break;
    default:
        if (c->kind == HD_PROC_AGENT)
            on_agent_message(head, payload);
        break;
    }
}

/* It ended (SIGCHLD tells how), or it said what no child of ours says. */
static void on_closed(void *arg)
{
    hd_child_t *c = arg;

    if (c->pid != 0 && c->is_ready && hd_master.phase <= HD_MASTER_RUNNING)
        hd_ignore(kill(c->pid, SIGKILL)); /* a zombie doesn't mind */
}

/* In the child: lets go of what is the master's own. */
static void leave_master(void)
{
    for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++)
        if (hd_child_at(i)->channel != NULL)
            hd_ignore(close(hd_channel_fd(hd_child_at(i)->channel)));
    hd_ignore(close(hd_master.signals.watch.fd));
    if (hd_master.started_fd >= 0)
        hd_ignore(close(hd_master.started_fd));
    hd_loop_destroy(hd_master.loop);
}

HD_NORETURN static void run_child(hd_child_t *c, int fd)
{
    leave_master();
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
    c->is_ready = false;
    c->started_ns = hd_clock_mono_ns();
    c->pid = fork();
    if (c->pid == 0) {
        hd_ignore(close(fds[0]));
        run_child(c, fds[1]);
    }
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
    else if (is_wanted(c))
        hd_master_fork(c);
}

void hd_master_spawn_all(void)
{
    for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++) {
        hd_child_t *c = hd_child_at(i);

        if (c->kind == HD_PROC_LOADER)
            continue;
        if (is_wanted(c) && c->pid == 0 && !hd_timer_is_set(&c->respawn))
            hd_master_fork(c);
        else if (!is_wanted(c) && c->pid != 0)
            hd_ignore(kill(c->pid, SIGQUIT)); /* its block is gone */
    }
    tell_started();
}

/* --- deaths --- */

static void log_death(const hd_child_t *c, int status)
{
    bool was_told = hd_master.phase > HD_MASTER_RUNNING && WIFSIGNALED(status) &&
                    WTERMSIG(status) == SIGTERM;

    if (WIFSIGNALED(status) && !was_told)
        hd_log(HD_LOG_ALERT, "%s process %d exited on signal %d%s", name_of(c),
               (int)c->pid, WTERMSIG(status), WCOREDUMP(status) ? " (core dumped)" : "");
    else if (!was_told && WEXITSTATUS(status) != 0 && c->kind != HD_PROC_LOADER)
        hd_log(HD_LOG_ALERT, "%s process %d exited with code %d", name_of(c), (int)c->pid,
               WEXITSTATUS(status));
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

    if (hd_master.phase <= HD_MASTER_RUNNING)
        return;
    for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++) {
        any_left = any_left || hd_child_at(i)->pid != 0;
        workers_left = workers_left || (i < HD_WORKERS_MAX && hd_child_at(i)->pid != 0);
    }
    if (!any_left) {
        hd_loop_stop(hd_master.loop);
    } else if (!workers_left && hd_master.phase == HD_MASTER_QUITTING) {
        /* Metrics, certificates and discovery were there until the last conn ended. */
        if (hd_master.agent.pid != 0)
            hd_ignore(kill(hd_master.agent.pid, SIGQUIT));
        if (hd_master.control.pid != 0)
            hd_ignore(kill(hd_master.control.pid, SIGQUIT));
    }
}

static void on_death(hd_child_t *c, int status)
{
    bool was_ready = c->is_ready;

    log_death(c, status);
    if (c->kind == HD_PROC_LOADER && c->channel != NULL)
        hd_channel_drain(c->channel); /* its reason may lie there still */
    hd_member_reap(hd_master.p->state, row_of(c));
    c->pid = 0;
    c->is_ready = false;
    hd_channel_destroy(c->channel);
    c->channel = NULL;
    hd_sockets_on_death(c);
    if (c->kind == HD_PROC_LOADER) {
        hd_master_on_loader_end(status);
    } else if (c->kind == HD_PROC_AGENT) {
        hd_err_clear(&agent_err);
        hd_sockets_abort(HD_BY_AGENT);
    }
    if (c->kind != HD_PROC_LOADER && is_wanted(c)) {
        if (hd_master.phase == HD_MASTER_STARTING && !was_ready) {
            hd_tell(HD_LOG_EMERG, "the %s process could not start", name_of(c));
            hd_master_stop(1);
        } else {
            replace(c);
        }
    }
    look_whether_over();
}

static void reap_children(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++)
            if (hd_child_at(i)->pid == pid) {
                on_death(hd_child_at(i), status);
                break;
            }
}

/* --- the end --- */

static void signal_all(int signo)
{
    for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++)
        if (hd_child_at(i)->pid != 0)
            hd_ignore(kill(hd_child_at(i)->pid, signo)); /* or it has just ended */
}

static void on_kill_due(hd_timer_t *t)
{
    (void)t;
    signal_all(SIGKILL);
}

void hd_master_stop(int status)
{
    if (hd_master.phase == HD_MASTER_STOPPING)
        return;
    hd_master.phase = HD_MASTER_STOPPING;
    hd_master.status = status;
    signal_all(SIGTERM);
    hd_timer_set(hd_master.loop, &hd_master.kill_timer, KILL_MS);
    look_whether_over();
}

static void quit(void)
{
    if (hd_master.phase == HD_MASTER_STARTING) {
        hd_master_stop(0);
        return;
    }
    if (hd_master.phase != HD_MASTER_RUNNING)
        return;
    hd_log(HD_LOG_NOTICE, "gracefully shutting down");
    hd_master.phase = HD_MASTER_QUITTING;
    hd_sockets_close_all();
    if (hd_master.loader.pid != 0)
        hd_ignore(kill(hd_master.loader.pid, SIGTERM));
    for (uint32_t i = 0; i < HD_WORKERS_MAX; i++)
        if (hd_master.workers[i].pid != 0)
            hd_ignore(kill(hd_master.workers[i].pid, SIGQUIT));
    look_whether_over();
}

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
        hd_master_reload(); /* while all is starting, too: then once that is published */
        break;
    case SIGUSR1:
        if (hd_master.phase != HD_MASTER_RUNNING)
            break;
        hd_log(HD_LOG_NOTICE, "reopening logs");
        hd_sockets_reopen_logs();
        break;
    default:
        break;
    }
}

/* --- start --- */

static void init_children(void)
{
    for (uint32_t i = 0; i < HD_CHILDREN_MAX; i++) {
        hd_child_t *c = hd_child_at(i);

        c->kind = i < HD_WORKERS_MAX ? HD_PROC_WORKER : HD_PROC_LOADER;
        c->no = i < HD_WORKERS_MAX ? i : 0;
        hd_timer_init(&c->respawn, on_respawn);
    }
    hd_master.agent.kind = HD_PROC_AGENT;
    hd_master.control.kind = HD_PROC_CONTROL;
    hd_timer_init(&hd_master.kill_timer, on_kill_due);
}

static hd_rc_t start(hd_err_t *err)
{
    hd_tls_make_ticket_seed();
    if (hd_make_shared(hd_master.p, hd_master.shared, err) != HD_OK)
        return HD_ERROR;
    hd_master.loop = hd_loop_create(NULL, HD_CHILDREN_MAX + 16, err);
    if (hd_master.loop == NULL)
        return HD_ERROR;
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
    init_children();
    if (start(&err) != HD_OK) {
        hd_tell(HD_LOG_EMERG, "%s", err.text);
        return 1;
    }
    hd_master_reload();
    hd_loop_run(hd_master.loop);
    hd_log(HD_LOG_NOTICE, "exit");
    hd_sockets_close_all();
    if (p->settings != NULL)
        hd_ignore(unlink(p->settings->pid_path)); /* may have been taken away */
    hd_signals_stop(&hd_master.signals);
    hd_loop_destroy(hd_master.loop);
    hd_files_destroy();
    hd_drop_shared(p);
    return hd_master.status;
}
