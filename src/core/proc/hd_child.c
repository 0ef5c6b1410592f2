/* Worker, agent, control: from the fork to the end. */
#include "core/proc/hd_files_int.h"
#include "core/proc/hd_process_int.h"
#include "core/proc/hd_surroundings.h"
#include "core/base/hd_buf.h"
#include "core/os/hd_os.h"
#include "hd_auto_config.h"
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define WARM_LOOK_MS 10 /* how often is_warm is asked */

static hd_proc_t *p;
static hd_signals_t signals;
static hd_timer_t warm_timer;

/* --- rights --- */

static hd_rc_t set_rlimits(const hd_settings_t *s, hd_err_t *err)
{
    struct rlimit limit = {s->rlimit_nofile, s->rlimit_nofile};

    if (s->rlimit_nofile != 0 && setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return hd_err_set_sys(err, errno, "setrlimit(RLIMIT_NOFILE, %llu) failed",
                              (unsigned long long)s->rlimit_nofile);
    return HD_OK;
}

static hd_rc_t drop_privileges(const hd_settings_t *s, hd_err_t *err)
{
    const struct passwd *user;

    if (geteuid() != 0 || s->uid == UINT32_MAX || s->uid == 0)
        return HD_OK;
    user = getpwuid(s->uid);
    if (setgid(s->gid) != 0)
        return hd_err_set_sys(err, errno, "setgid(%u) failed", s->gid);
    if (user != NULL ? initgroups(user->pw_name, s->gid) != 0 : setgroups(0, NULL) != 0)
        return hd_err_set_sys(err, errno, "setting the groups of user %u failed", s->uid);
    if (setuid(s->uid) != 0)
        return hd_err_set_sys(err, errno, "setuid(%u) failed", s->uid);
    return HD_OK;
}

static hd_rc_t restrict_self(hd_err_t *err)
{
    bool keeps_secrets = p->kind == HD_PROC_AGENT || p->kind == HD_PROC_CONTROL;

    hd_surroundings_take(p);
    if (set_rlimits(p->settings, err) != HD_OK ||
        drop_privileges(p->settings, err) != HD_OK ||
        hd_surroundings_enter_directory(p->settings, err) != HD_OK)
        return HD_ERROR;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return hd_err_set_sys(err, errno, "prctl(PR_SET_NO_NEW_PRIVS) failed");
#if defined(HD_SANITIZE_ADDRESS)
    keeps_secrets = false; /* the leak checker is a tracer */
#endif
    /* Workers may dump core, as nginx's do; setuid had switched it off. */
    if (prctl(PR_SET_DUMPABLE, keeps_secrets ? 0 : 1, 0, 0, 0) != 0)
        return hd_err_set_sys(err, errno, "prctl(PR_SET_DUMPABLE) failed");
    return HD_OK;
}

/* --- what the master says --- */

static void take_listens(const hd_msg_head_t *head, const void *payload, int *fds)
{
    size_t n = head->len / sizeof(hd_listen_item_t);

    hd_bug_on(n != head->fds_n || n * sizeof(hd_listen_item_t) != head->len);
    for (size_t i = 0; i < n; i++) {
        hd_listen_item_t item;
        hd_addr_t addr;

        memcpy(&item, (const char *)payload + i * sizeof(item), sizeof(item));
        hd_bug_on(!hd_listen_item_fix(&item));
        addr = hd_addr_keep(&item.spec.bind);
        if (p->is_quitting)
            continue;
        hd_acceptor_add_fd(p->acceptor, &addr, item.spec.type, fds[i], item.exclusive);
        fds[i] = -1;
    }
}

static void drop_listen(const hd_msg_head_t *head, const void *payload)
{
    hd_listen_item_t item;

    hd_bug_on(head->len != sizeof(item));
    memcpy(&item, payload, sizeof(item));
    hd_bug_on(!hd_listen_item_fix(&item));
    if (!p->is_quitting)
        hd_acceptor_drop_fds(p->acceptor, &item.spec.bind, item.spec.type);
}

static void take_error_log(const hd_msg_head_t *head, const void *payload, int *fds)
{
    static hd_error_log_t logs[HD_ERROR_LOGS_MAX + 1]; /* the first one's file is <fds> */
    uint32_t n = head->len / sizeof(logs[0]);

    hd_bug_on(n == 0 || n > hd_countof(logs) || n * sizeof(logs[0]) != head->len ||
              head->fds_n > 1);
    memcpy(logs, payload, head->len);
    hd_error_logs_use(logs[0].level, logs + 1, n - 1);
    if (head->fds_n == 0)
        return;
    if (hd_log_fd() != STDERR_FILENO)
        hd_ignore(close(hd_log_fd())); /* each line was written at once */
    hd_log_set_fd(fds[0]);
    fds[0] = -1;
}

static void on_message(void *arg, const hd_msg_head_t *head, const void *payload,
                       int *fds)
{
    hd_err_t err = {0};

    (void)arg;
    switch (head->type) {
    case HD_MSG_LISTEN:
        take_listens(head, payload, fds);
        break;
    case HD_MSG_UNLISTEN:
        drop_listen(head, payload);
        break;
    case HD_MSG_LOG:
        hd_bug_on(head->fds_n != 1);
        hd_ignore(hd_file_put(hd_str_n(payload, head->len), fds[0]) == NULL);
        fds[0] = -1;
        break;
    case HD_MSG_LOG_GONE:
        hd_file_remove(hd_str_n(payload, head->len));
        break;
    case HD_MSG_ERROR_LOG:
        take_error_log(head, payload, fds);
        break;
    case HD_MSG_PING:
        if (hd_channel_send(p->to_master, HD_MSG_ACK, &head->seq, sizeof(head->seq), NULL,
                            0, &err) == 0)
            hd_log(HD_LOG_ALERT, "%s", err.text);
        break;
    case HD_MSG_SOCKET_MADE:
        hd_broker_on_made(head, payload, fds);
        break;
    case HD_MSG_ASK:
        if (p->kind == HD_PROC_AGENT && !p->is_quitting)
            hd_hooks_ask(p, payload, head->len);
        break;
    case HD_MSG_LEAVING:
        hd_serve_leave(p);
        break;
    case HD_MSG_PREPARED:
        hd_prepare_done(hd_str_n(payload, head->len));
        break;
    default:
        break;
    }
}

/* The master is gone: nobody would replace us or tell us anything. */
static void on_closed(void *arg)
{
    (void)arg;
    hd_log(HD_LOG_NOTICE, "the master is gone: gracefully shutting down");
    hd_channel_destroy(p->to_master);
    p->to_master = NULL;
    hd_serve_quit(p);
}

static void on_signal(int signo)
{
    switch (signo) {
    case SIGTERM:
    case SIGINT:
        hd_loop_stop(p->loop);
        break;
    case SIGQUIT:
        hd_log(HD_LOG_NOTICE, "gracefully shutting down");
        hd_os_set_title(p->kind == HD_PROC_WORKER ? "worker process is shutting down"
                                                  : "process is shutting down");
        hd_serve_quit(p);
        break;
    default:
        break; /* HUP and USR1 to the whole group are the master's affair */
    }
}

/* --- start --- */

static const struct {
    const char *title;
    hd_member_kind_t member;
} kinds[] = {
    [HD_PROC_WORKER] = {"worker process", HD_MEMBER_WORKER},
    [HD_PROC_AGENT] = {"agent process", HD_MEMBER_AGENT},
    [HD_PROC_CONTROL] = {"control process", HD_MEMBER_CONTROL},
};

static int row(void)
{
    return p->kind == HD_PROC_WORKER  ? (int)p->worker_no
           : p->kind == HD_PROC_AGENT ? HD_ROW_AGENT
                                      : HD_ROW_CONTROL;
}

static hd_rc_t open_loom(hd_err_t *err)
{
    hd_arena_t *dynamic = p->arenas[HD_ARENA_DYNAMIC];

    p->member = hd_member_start(p->state, row(), kinds[p->kind].member, err);
    if (p->member == NULL ||
        hd_arena_open_reader(p->arenas[HD_ARENA_FILES], p->member, err) != HD_OK)
        return HD_ERROR;
    p->writer = p->kind == HD_PROC_AGENT ? p->member : NULL;
    return p->kind == HD_PROC_AGENT ? hd_arena_open_writer(dynamic, p->member, err)
                                    : hd_arena_open_reader(dynamic, p->member, err);
}

static hd_rc_t start(int channel_fd, hd_err_t *err)
{
    const hd_settings_t *s = p->settings;

    for (uint32_t i = 0; i < s->modules_n; i++)
        if (hd_module_load(hd_str_c(s->modules[i]), err) != HD_OK)
            return HD_ERROR;
    if (open_loom(err) != HD_OK || restrict_self(err) != HD_OK)
        return HD_ERROR;
    /* Besides conns: listening sockets, channel, ring, a few of the hooks'. */
    p->loop = hd_loop_create(p->member, s->worker_connections + HD_LISTENS_MAX + 64, err);
    if (p->loop == NULL)
        return HD_ERROR;
    p->to_master =
        hd_channel_create(p->loop, channel_fd, on_message, on_closed, NULL, err);
    if (p->to_master == NULL ||
        hd_signals_start(&signals, p->loop, on_signal, err) != HD_OK ||
        hd_loop_set_ring(p->loop, hd_rings[row()], hd_on_ring, p, err) != HD_OK)
        return HD_ERROR;
    hd_broker_use(p);
    p->acceptor = hd_acceptor_create(p->loop, s->worker_connections);
    for (int i = 0; i < HD_ARENAS_MAX; i++)
        hd_acceptor_add_arena(p->acceptor, p->arenas[i]);
    hd_master_give_listens(p);
    return hd_serve_start(p, err);
}

static hd_rc_t tell(hd_msg_type_t type, hd_err_t *err)
{
    return hd_channel_send(p->to_master, type, NULL, 0, NULL, 0, err) != 0 ? HD_OK
                                                                           : HD_ERROR;
}

static void on_warm_look(hd_timer_t *t)
{
    hd_err_t err = {0};

    if (p->to_master == NULL || p->is_quitting)
        return;
    if (!hd_hooks_warm(p))
        hd_timer_set(p->loop, t, WARM_LOOK_MS);
    else if (tell(HD_MSG_WARM, &err) != HD_OK)
        hd_log(HD_LOG_ALERT, "%s", err.text);
}

/* False: conns were still open (TERM, worker_shutdown_timeout), and what their owners
 * have goes with the process. */
static bool stop(void)
{
    bool is_at_work = hd_conns_open(p->loop) > 0;

    hd_serve_stop(p);
    hd_channel_destroy(p->to_master);
    hd_signals_stop(&signals);
    hd_loop_destroy(p->loop);
    if (is_at_work)
        hd_member_break_off(p->member);
    else
        hd_member_stop(p->member);
    hd_blocks_trim(0);
    hd_drop_shared(p);
    return !is_at_work;
}

int hd_child_main(hd_proc_t *proc, int channel_fd)
{
    hd_err_t err = {0};

    p = proc;
    hd_os_set_title(kinds[p->kind].title);
    if (start(channel_fd, &err) != HD_OK) {
        hd_tell(HD_LOG_EMERG, "%s: %s", kinds[p->kind].title, err.text);
        return 2;
    }
    hd_timer_init(&warm_timer, on_warm_look);
    if (p->kind != HD_PROC_WORKER)
        hd_timer_set(p->loop, &warm_timer, 0);
    if (tell(HD_MSG_READY, &err) != HD_OK) {
        hd_tell(HD_LOG_EMERG, "%s: %s", kinds[p->kind].title, err.text);
        return 2;
    }
    /* what a terminal or a pipe shows of the start ends here; a reader of it isn't to
     * wait */
    if (p->settings->daemon && hd_log_fd() != STDERR_FILENO)
        hd_ignore(dup2(hd_log_fd(), STDERR_FILENO) < 0);
    hd_loop_run(p->loop);
    if (!stop())
        _exit(0);
    return 0;
}
