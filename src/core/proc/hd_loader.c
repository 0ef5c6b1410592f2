/* The loader process: reads, builds, talks with the master, publishes, and stays while
 * what it retired is in use. And -t, which does the first half. */
#include "core/proc/hd_publish.h"
#include "core/proc/hd_process_int.h"
#include "core/os/hd_clock.h"
#include "core/os/hd_os.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define RECLAIM_MS 50
#define REMOVE_MS 1000 /* so long those who came by it are served by what is removed */

static hd_loading_t l;
static hd_timer_t reclaim_timer, remove_timer;
static bool was_published;

static void on_reclaim_due(hd_timer_t *t)
{
    hd_arena_t *files = hd_proc.arenas[HD_ARENA_FILES];

    if (hd_arena_reclaim(files, hd_loop_now_ns(hd_proc.loop)) == 0 &&
        hd_arena_slots_going(files) == 0 && !hd_timer_is_set(&remove_timer))
        hd_loop_stop(hd_proc.loop);
    else
        hd_timer_set(hd_proc.loop, t, RECLAIM_MS);
}

static void remove_rest(void)
{
    if (l.batch != NULL && was_published)
        hd_ignore(hd_loading_publish(&l, &hd_proc));
}

static void on_remove_due(hd_timer_t *t)
{
    (void)t;
    remove_rest();
}

static void on_message(void *arg, const hd_msg_head_t *head, const void *payload,
                       int *fds)
{
    hd_err_t err = {0};
    uint64_t changed;
    size_t n;

    (void)arg;
    (void)payload;
    (void)fds;
    if (head->type != HD_MSG_PUBLISH || l.batch == NULL || was_published) {
        remove_rest(); /* the next loader is to have everything */
        hd_loop_stop(hd_proc.loop);
        return;
    }
    was_published = true;
    if (hd_loading_publish_first(&l, &hd_proc, &n))
        hd_timer_set(hd_proc.loop, &remove_timer, REMOVE_MS);
    changed = n;
    if (hd_channel_send(hd_proc.to_master, HD_MSG_PUBLISHED, &changed, sizeof(changed),
                        NULL, 0, &err) == 0)
        hd_log(HD_LOG_ALERT, "loader: %s", err.text);
    hd_timer_set(hd_proc.loop, &reclaim_timer, 0);
}

static void on_closed(void *arg)
{
    (void)arg;
    hd_loop_stop(hd_proc.loop);
}

/* What runs in the others, in their order. A file that was replaced since is another
 * module: its settings would be wrong for them. */
static hd_rc_t preload(const hd_settings_t *running, hd_err_t *err)
{
    for (uint32_t i = 0; running != NULL && i < running->modules_n; i++) {
        hd_str_t path = hd_str_c(running->modules[i]);

        if (hd_module_file(path.data) != running->module_files[i]) {
            hd_loading_need_generation(&l, path);
            return hd_err_set(err, HD_E_CONF, "module \"%s\" was replaced", path.data);
        }
        if (hd_module_load(path, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t start(hd_proc_t *p, int channel_fd, hd_err_t *err)
{
    hd_arena_t *files = p->arenas[HD_ARENA_FILES];

    p->member = hd_member_start(p->state, HD_ROW_LOADER, HD_MEMBER_LOADER, err);
    if (p->member == NULL || hd_arena_open_writer(files, p->member, err) != HD_OK ||
        hd_arena_open_reader(p->arenas[HD_ARENA_DYNAMIC], p->member, err) != HD_OK)
        return HD_ERROR;
    p->loop = hd_loop_create(p->member, 16, err);
    if (p->loop == NULL)
        return HD_ERROR;
    p->to_master =
        hd_channel_create(p->loop, channel_fd, on_message, on_closed, NULL, err);
    hd_timer_init(&reclaim_timer, on_reclaim_due);
    hd_timer_init(&remove_timer, on_remove_due);
    return p->to_master != NULL ? HD_OK : HD_ERROR;
}

static hd_rc_t load(hd_proc_t *p, hd_err_t *err)
{
    if (hd_loading_read(&l, err) != HD_OK || preload(l.running, err) != HD_OK ||
        hd_loading_build(&l, p->arenas[HD_ARENA_FILES], p->member, err) != HD_OK)
        return HD_ERROR;
    return hd_channel_send(p->to_master, HD_MSG_SETTINGS, NULL, 0, NULL, 0, err) != 0
               ? HD_OK
               : HD_ERROR;
}

int hd_loader_main(hd_proc_t *p, const hd_options_t *options, hd_settings_t *shared,
                   int channel_fd)
{
    hd_err_t err = {0}, ignored = {0};
    int status = 0;

    hd_os_set_title("loader process");
    l = (hd_loading_t){.options = options, .settings = shared, .running = p->settings};
    if (start(p, channel_fd, &err) != HD_OK) {
        hd_tell(HD_LOG_EMERG, "loader: %s", err.text);
        return 2;
    }
    if (load(p, &err) == HD_OK) {
        hd_loop_run(p->loop);
    } else if (l.needs_generation[0] != '\0') {
        hd_ignore(hd_channel_send(p->to_master, HD_MSG_GENERATION, l.needs_generation,
                                  strlen(l.needs_generation), NULL, 0, &ignored) == 0);
    } else {
        hd_ignore(hd_channel_send(p->to_master, HD_MSG_FAILED, err.text, strlen(err.text),
                                  NULL, 0, &ignored) == 0);
        status = 1;
        hd_loading_end(
            &l); /* names that nobody has a use for go now: the next needs room */
        hd_timer_set(p->loop, &reclaim_timer, 0);
        hd_loop_run(p->loop);
    }
    hd_loading_end(&l);
    hd_channel_destroy(p->to_master);
    hd_loop_destroy(p->loop);
    hd_member_stop(p->member);
    hd_drop_shared(p);
    return status;
}

/* --- -t and -T --- */

static void dump(const hd_sources_t *sources)
{
    hd_source_t s;
    size_t at = 0;

    while (hd_sources_next(sources, &at, &s)) {
        printf("# configuration file %.*s:\n", HD_STR_ARG(s.file));
        fwrite(s.text.data, 1, s.text.len, stdout);
        printf("\n");
    }
    fflush(stdout);
}

/* The files the master would open, as nginx does at -t. */
static hd_rc_t try_files(const hd_settings_t *s, hd_err_t *err)
{
    int fd;

    for (uint32_t i = 0; i <= s->logs_n; i++) {
        const char *path = i < s->logs_n ? s->logs[i] : s->error_log;

        if (path[0] == '\0')
            continue;
        fd = hd_open_log(path, err);
        if (fd < 0)
            return HD_ERROR;
        hd_ignore(close(fd)); /* nothing was written */
    }
    return HD_OK;
}

/* As if it were to be written: a file that isn't there yet needs a folder that may. */
static hd_rc_t try_pid_file(const char *path, hd_err_t *err)
{
    const char *slash = strrchr(path, '/');
    char dir[HD_PATH_MAX_BYTES];

    if (slash == NULL)
        return HD_OK;
    (void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path) + 1, path);
    if (access(path, W_OK) == 0 || (errno == ENOENT && access(dir, W_OK | X_OK) == 0))
        return HD_OK;
    return hd_err_set_sys(err, errno, "open() \"%s\" failed", path);
}

/* The addresses are this machine's, and ours to bind. One in use is most likely our own
 * program's that runs; without reuseport, so that no connection comes here. */
static hd_rc_t try_sockets(const hd_settings_t *s, hd_err_t *err)
{
    for (uint32_t i = 0; i < s->listens_n; i++) {
        hd_socket_spec_t spec = s->listens[i].spec;
        hd_err_t why = {0};
        int fd;

        if (spec.bind.family == AF_UNIX) /* it would leave a file, or take one */
            continue;
        spec.listen = spec.reuseport = false;
        if (hd_socket_make(&spec, &fd, &why) == HD_OK)
            hd_ignore(close(fd)); /* nobody has heard of it */
        else if (why.sys_errno != EADDRINUSE) {
            *err = why;
            return HD_ERROR;
        }
    }
    return HD_OK;
}

hd_rc_t hd_load_alone(hd_proc_t *p, hd_loading_t *loading, hd_err_t *err)
{
    if (hd_loading_read(loading, err) != HD_OK ||
        hd_make_shared(p, loading->settings, err) != HD_OK)
        return HD_ERROR;
    p->member = hd_member_start(p->state, HD_ROW_LOADER, HD_MEMBER_LOADER, err);
    if (p->member == NULL ||
        hd_arena_open_writer(p->arenas[HD_ARENA_FILES], p->member, err) != HD_OK ||
        hd_arena_open_writer(p->arenas[HD_ARENA_DYNAMIC], p->member, err) != HD_OK)
        return HD_ERROR;
    return hd_loading_build(loading, p->arenas[HD_ARENA_FILES], p->member, err);
}

int hd_loader_test(const hd_options_t *options)
{
    static hd_settings_t settings;
    hd_loading_t t = {.options = options, .settings = &settings};
    hd_err_t err = {0};
    hd_rc_t rc;

    hd_proc.kind = HD_PROC_LOADER;
    rc = hd_load_alone(&hd_proc, &t, &err);
    if (rc == HD_OK && !options->quiet)
        fprintf(stderr, "heddle: the configuration file %s syntax is ok\n",
                options->conf.data);
    if (rc == HD_OK && (try_files(&settings, &err) != HD_OK ||
                        try_pid_file(settings.pid_path, &err) != HD_OK ||
                        try_sockets(&settings, &err) != HD_OK))
        rc = HD_ERROR;
    if (rc != HD_OK)
        hd_tell(HD_LOG_EMERG, "%s", err.text);
    if (rc != HD_OK || !options->quiet)
        fprintf(stderr, "heddle: configuration file %s test %s\n", options->conf.data,
                rc == HD_OK ? "is successful" : "failed");
    if (rc == HD_OK && options->dump)
        dump(t.sources);
    hd_loading_end(&t);
    if (hd_proc.member != NULL)
        hd_member_stop(hd_proc.member);
    hd_drop_shared(&hd_proc);
    return rc == HD_OK ? 0 : 1;
}
