/* master_process off: everything in one process, for debugging. A reload builds in the
 * loop: traffic waits meanwhile. */
#include "core/proc/hd_inherited.h"
#include "core/proc/hd_notify.h"
#include "core/proc/hd_process_int.h"
#include "core/proc/hd_surroundings.h"
#include "core/base/hd_buf.h"
#include "core/os/hd_clock.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define RECLAIM_MS 100

static hd_proc_t *p;
static const hd_options_t *options;
static hd_settings_t in_force, next;
static hd_member_t *writer; /* of files' resources; p->member of the dynamic ones */
static hd_signals_t signals;
static hd_timer_t reclaim_timer, leave_timer, alive_timer;

/* What this process listens on, so that a reload opens only what is new. */
static hd_listen_item_t open_items[HD_LISTENS_MAX + 1]; /* the next is tried there */
static uint32_t open_items_n;

static hd_rc_t open_listen(const hd_listen_item_t *asked, hd_err_t *err)
{
    hd_listen_item_t *item = &open_items[open_items_n];
    hd_addr_t addr;
    bool own, lent;
    int fd;

    *item = *asked;
    hd_ignore(!hd_listen_item_fix(item)); /* it was whole */
    for (uint32_t i = 0; i < open_items_n; i++)
        if (hd_listen_item_same(&open_items[i], item))
            return HD_OK;
    if (open_items_n == HD_LISTENS_MAX)
        return hd_err_set(err, HD_E_LIMIT, "more than %d listening sockets",
                          HD_LISTENS_MAX);
    if (hd_inherited_take(&item->spec, &fd, 1, &own, &lent) == 0 &&
        hd_socket_make(&item->spec, &fd, err) != HD_OK)
        return HD_ERROR;
    open_items_n++;
    addr = hd_addr_keep(&item->spec.bind);
    hd_acceptor_add_fd(p->acceptor, &addr, item->spec.type, fd, false);
    return HD_OK;
}

static hd_rc_t open_file(hd_str_t path, hd_err_t *err)
{
    char *name = strndup(path.data, path.len);
    int fd;

    hd_bug_on(name == NULL);
    fd = hd_file_get(path) == NULL ? hd_open_log(name, err) : -1;
    free(name);
    if (fd >= 0)
        hd_ignore(hd_file_put(path, fd) == NULL);
    return hd_file_get(path) != NULL ? HD_OK : HD_ERROR;
}

static hd_rc_t open_all(const hd_settings_t *s, hd_err_t *err)
{
    for (uint32_t i = 0; i < s->listens_n; i++)
        if (open_listen(&s->listens[i], err) != HD_OK)
            return HD_ERROR;
    for (uint32_t i = 0; i < s->logs_n; i++)
        if (open_file(hd_str_c(s->logs[i]), err) != HD_OK)
            return HD_ERROR;
    return HD_OK;
}

hd_rc_t hd_single_prepare(hd_proc_t *proc, const hd_socket_spec_t *specs,
                          uint32_t specs_n, const hd_str_t *logs, uint32_t logs_n,
                          hd_err_t *err)
{
    (void)proc;
    for (uint32_t i = 0; i < specs_n; i++) {
        hd_listen_item_t item;

        if (!hd_listen_item_init(&item, &specs[i], HD_ROLE_WORKERS))
            return hd_err_set(err, HD_E_CONF,
                              "the path of a unix socket has at most 107 bytes");
        if (open_listen(&item, err) != HD_OK)
            return HD_ERROR;
    }
    for (uint32_t i = 0; i < logs_n; i++)
        if (open_file(logs[i], err) != HD_OK)
            return HD_ERROR;
    return HD_OK;
}

/* A socket that is no longer listened on was closed by the acceptor. */
static void forget_unneeded(const hd_settings_t *s)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < open_items_n; i++) {
        for (uint32_t k = 0; k < s->listens_n; k++) {
            if (hd_listen_item_same(&open_items[i], &s->listens[k])) {
                open_items[kept] = open_items[i];
                hd_ignore(!hd_listen_item_fix(&open_items[kept]));
                kept++;
                break;
            }
        }
    }
    open_items_n = kept;
}

static void on_reclaim_due(hd_timer_t *t)
{
    for (int i = 0; i < HD_ARENAS_MAX; i++)
        hd_ignore(hd_arena_reclaim(p->arenas[i], hd_loop_now_ns(p->loop)) > 0);
    hd_timer_set(p->loop, t, RECLAIM_MS);
}

static void on_alive_due(hd_timer_t *t)
{
    hd_notify_alive();
    hd_timer_set(p->loop, t, hd_notify_alive_ms());
}

static void reopen(void)
{
    hd_err_t err = {0};

    hd_ignore(hd_use_error_log(in_force.error_log, &err));
    for (hd_file_t *f = hd_files_next(NULL); f != NULL; f = hd_files_next(f)) {
        int fd = hd_open_log(hd_file_path(f), &err);

        if (fd >= 0)
            hd_ignore(hd_file_put(hd_str_c(hd_file_path(f)), fd) == NULL);
    }
    if (err.code != HD_E_NONE)
        hd_log(HD_LOG_EMERG, "%s", err.text);
}

static hd_rc_t reload(hd_err_t *err)
{
    hd_loading_t l = {.options = options, .settings = &next, .running = &in_force};
    hd_rc_t rc = hd_loading_read(&l, err);

    if (rc == HD_OK)
        rc = hd_loading_build(&l, p->arenas[HD_ARENA_FILES], writer, err);
    if (rc == HD_OK)
        rc = open_all(&next, err);
    if (rc == HD_OK) {
        hd_settings_copy(&in_force, &next);
        for (uint32_t i = 0; i < in_force.listens_n; i++)
            hd_ignore(!hd_listen_item_fix(&in_force.listens[i]));
        reopen();
        hd_settings_use_levels(&in_force);
        hd_log(HD_LOG_NOTICE, "reload done: %zu resources changed",
               hd_loading_publish(&l, p));
        forget_unneeded(&in_force);
    }
    hd_loading_end(&l);
    return rc;
}

static void on_leave_due(hd_timer_t *t)
{
    (void)t;
    hd_serve_quit(p);
}

/* As hd_master.c's: not ready, but all goes on for a while; told twice: at once. */
static void quit(void)
{
    uint64_t ms = in_force.shutdown_delay_ms;

    if (in_force.shutdown_timeout_ms > 0)
        ms = hd_min(ms, in_force.shutdown_timeout_ms);
    if (p->is_leaving) {
        hd_serve_quit(p);
        return;
    }
    hd_log(HD_LOG_NOTICE, "gracefully shutting down");
    hd_notify_stopping();
    hd_serve_leave(p);
    hd_timer_init(&leave_timer, on_leave_due);
    hd_timer_set(p->loop, &leave_timer, ms);
}

static void on_signal(int signo)
{
    hd_err_t err = {0};

    switch (signo) {
    case SIGTERM:
    case SIGINT:
        hd_notify_stopping();
        hd_loop_stop(p->loop);
        break;
    case SIGQUIT:
        quit();
        break;
    case SIGHUP:
        hd_notify_reloading();
        if (reload(&err) != HD_OK)
            hd_log(HD_LOG_EMERG,
                   "reload failed: %s; the configuration in force before stays so",
                   err.text);
        hd_notify_ready(err.code == HD_E_NONE ? "Serving" : err.text);
        break;
    case SIGUSR1:
        hd_log(HD_LOG_NOTICE, "reopening logs");
        reopen();
        break;
    default:
        break;
    }
}

/* The one member that serves reads what the loader's writes, and is the agent, too. */
static hd_rc_t open_loom(hd_err_t *err)
{
    hd_member_add_arena(p->member, p->arenas[HD_ARENA_FILES]);
    return hd_arena_open_writer(p->arenas[HD_ARENA_DYNAMIC], p->member, err);
}

static hd_rc_t start(hd_err_t *err)
{
    p->loop =
        hd_loop_create(p->member, in_force.worker_connections + HD_LISTENS_MAX + 64, err);
    if (p->loop == NULL || hd_signals_start(&signals, p->loop, on_signal, err) != HD_OK ||
        hd_loop_set_ring(p->loop, hd_rings[0], hd_on_ring, p, err) != HD_OK)
        return HD_ERROR;
    p->acceptor = hd_acceptor_create(p->loop, in_force.worker_connections);
    for (int i = 0; i < HD_ARENAS_MAX; i++)
        hd_acceptor_add_arena(p->acceptor, p->arenas[i]);
    return open_all(&in_force, err);
}

int hd_single_main(hd_proc_t *proc, const hd_options_t *o)
{
    hd_loading_t l = {.options = o, .settings = &in_force};
    hd_err_t err = {0};
    bool is_at_work;
    hd_rc_t rc;

    p = proc;
    options = o;
    p->kind = HD_PROC_SINGLE;
    p->settings = &in_force;
    rc = hd_load_alone(p, &l, &err);
    writer = p->writer = p->member;
    if (rc == HD_OK) {
        p->member = hd_member_start(p->state, 0, HD_MEMBER_WORKER, &err);
        rc = p->member != NULL ? open_loom(&err) : HD_ERROR;
    }
    if (rc == HD_OK)
        rc = start(&err);
    if (rc == HD_OK)
        rc = hd_use_error_log(in_force.error_log, &err);
    if (rc == HD_OK) {
        hd_surroundings_take(p);
        hd_settings_use_levels(&in_force);
        hd_ignore(hd_loading_publish(&l, p));
        rc = hd_serve_start(p, &err);
    }
    hd_loading_end(&l);
    if (rc != HD_OK) {
        hd_tell(HD_LOG_EMERG, "%s", err.text);
        return 1;
    }
    hd_timer_init(&reclaim_timer, on_reclaim_due);
    hd_timer_set(p->loop, &reclaim_timer, RECLAIM_MS);
    hd_inherited_tell_unused();
    hd_inherited_close();
    hd_notify_ready("Serving");
    hd_timer_init(&alive_timer, on_alive_due);
    if (hd_notify_alive_ms() > 0)
        hd_timer_set(p->loop, &alive_timer, hd_notify_alive_ms());
    hd_loop_run(p->loop);
    is_at_work = hd_conns_open(p->loop) > 0;
    hd_serve_stop(p);
    hd_signals_stop(&signals);
    hd_loop_destroy(p->loop);
    if (is_at_work)
        hd_member_break_off(p->member);
    else
        hd_member_stop(p->member);
    hd_member_stop(writer);
    hd_blocks_trim(0);
    hd_drop_shared(p);
    return 0;
}
