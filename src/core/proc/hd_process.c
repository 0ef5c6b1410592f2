#include "core/proc/hd_inherited.h"
#include "core/proc/hd_notify.h"
#include "core/proc/hd_process_int.h"
#include "core/net/hd_syslog.h"
#include "core/proc/hd_publish.h"
#include "hd_auto_config.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

hd_proc_t hd_proc;
int hd_rings[HD_RINGS_MAX];

void hd_process_register(void)
{
    hd_ignore(hd_module_add(&hd_core_module) == 0);
}

/* --- hooks --- */

#define HOOKS_MAX 32

static const hd_process_hooks_t *all_hooks[HOOKS_MAX];
static uint32_t all_hooks_n;

void hd_process_add_hooks(const hd_process_hooks_t *hooks)
{
    hd_bug_on(all_hooks_n == HOOKS_MAX);
    all_hooks[all_hooks_n++] = hooks;
}

bool hd_takes_part(const hd_process_hooks_t *h, hd_proc_kind_t kind)
{
    unsigned all = 1u << HD_PROC_SINGLE | 1u << HD_PROC_WORKER | 1u << HD_PROC_AGENT |
                   1u << HD_PROC_CONTROL;

    return (h->kinds & (kind == HD_PROC_SINGLE ? all : 1u << kind)) != 0;
}

const hd_process_hooks_t *hd_hooks_next(uint32_t *at)
{
    while (*at < all_hooks_n) {
        const hd_process_hooks_t *h = all_hooks[(*at)++];

        if (hd_takes_part(h, hd_proc.kind))
            return h;
    }
    return NULL;
}

hd_rc_t hd_hooks_start(hd_proc_t *p, hd_err_t *err)
{
    const hd_process_hooks_t *h;
    uint32_t at = 0;

    while ((h = hd_hooks_next(&at)) != NULL)
        if (h->on_start != NULL && h->on_start(p, err) != HD_OK)
            return hd_err_prefix(err, "%s: ", h->name);
    return HD_OK;
}

void hd_hooks_batch(hd_proc_t *p)
{
    const hd_process_hooks_t *h;
    uint32_t at = 0;

    while ((h = hd_hooks_next(&at)) != NULL)
        if (h->on_batch != NULL)
            h->on_batch(p);
}

void hd_hooks_quit(hd_proc_t *p)
{
    const hd_process_hooks_t *h;
    uint32_t at = 0;

    while ((h = hd_hooks_next(&at)) != NULL)
        if (h->on_quit != NULL)
            h->on_quit(p);
}

bool hd_hooks_idle(hd_proc_t *p)
{
    const hd_process_hooks_t *h;
    uint32_t at = 0;

    while ((h = hd_hooks_next(&at)) != NULL)
        if (h->is_idle != NULL && !h->is_idle(p))
            return false;
    return true;
}

bool hd_hooks_warm(hd_proc_t *p)
{
    const hd_process_hooks_t *h;
    uint32_t at = 0;
    bool is_warm = true;

    while ((h = hd_hooks_next(&at)) != NULL)
        is_warm = (h->is_warm == NULL || h->is_warm(p)) && is_warm;
    return is_warm;
}

void hd_hooks_stop(hd_proc_t *p)
{
    for (uint32_t i = all_hooks_n; i-- > 0;)
        if (hd_takes_part(all_hooks[i], hd_proc.kind) && all_hooks[i]->on_stop != NULL)
            all_hooks[i]->on_stop(p);
}

void hd_hooks_ask(hd_proc_t *p, const void *payload, size_t len)
{
    const hd_process_hooks_t *h;
    uint32_t at = 0;

    while ((h = hd_hooks_next(&at)) != NULL)
        if (h->on_ask != NULL)
            h->on_ask(p, payload, len);
}

void hd_process_ask(hd_proc_t *p, const void *payload, size_t len)
{
    hd_err_t err = {0};

    if (p->kind == HD_PROC_SINGLE || p->kind == HD_PROC_AGENT)
        hd_hooks_ask(p, payload, len);
    else if (p->to_master != NULL)
        hd_ignore(
            hd_channel_send(p->to_master, HD_MSG_ASK, payload, len, NULL, 0, &err) == 0);
}

/* --- telling --- */

void hd_tell(hd_log_level_t level, const char *fmt, ...)
{
    static const char *const names[] = {"",     "emerg",  "alert", "crit", "error",
                                        "warn", "notice", "info",  "debug"};
    char text[1024];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    (void)fprintf(stderr, "heddle: [%s] %s\n", names[level], text);
    if (hd_log_fd() != STDERR_FILENO)
        hd_log(level, "%s", text);
}

int hd_open_log(const char *path, hd_err_t *err)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);

    if (fd < 0)
        hd_ignore(hd_err_set_sys(err, errno, "open() \"%s\" failed", path));
    return fd;
}

hd_rc_t hd_use_error_log(const char *path, hd_err_t *err)
{
    int fd, old = hd_log_fd();

    if (path[0] == '\0') {
        hd_log_set_fd(STDERR_FILENO);
    } else {
        fd = hd_open_log(path, err);
        if (fd < 0)
            return HD_ERROR;
        hd_log_set_fd(fd);
    }
    if (old != STDERR_FILENO)
        hd_ignore(close(old)); /* each line was written at once */
    return HD_OK;
}

/* --- signals --- */

static void fill_set(sigset_t *set)
{
    static const int all[] = {SIGTERM, SIGINT,  SIGQUIT,  SIGHUP,
                              SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD};

    sigemptyset(set);
    for (size_t i = 0; i < hd_countof(all); i++)
        sigaddset(set, all[i]);
}

void hd_signals_block(void)
{
    sigset_t set;

    fill_set(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

void hd_signals_unblock(void)
{
    sigset_t set;

    fill_set(&set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void on_signalfd(hd_watch_t *w, unsigned events)
{
    hd_signals_t *s = hd_container_of(w, hd_signals_t, watch);
    struct signalfd_siginfo info;

    (void)events;
    while (read(w->fd, &info, sizeof(info)) == sizeof(info))
        s->on_signal((int)info.ssi_signo);
}

hd_rc_t hd_signals_start(hd_signals_t *s, hd_loop_t *loop, void (*on_signal)(int signo),
                         hd_err_t *err)
{
    sigset_t set;
    int fd;

    fill_set(&set);
    hd_signals_block();
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return hd_err_set_sys(err, errno, "signalfd()");
    s->loop = loop;
    s->on_signal = on_signal;
    hd_watch_init(&s->watch);
    return hd_watch_start(loop, &s->watch, fd, on_signalfd, err);
}

void hd_signals_stop(hd_signals_t *s)
{
    int fd = s->watch.fd;

    hd_watch_stop(s->loop, &s->watch);
    if (fd >= 0)
        hd_ignore(close(fd)); /* only read */
}

/* --- shared memory and rings --- */

hd_rc_t hd_make_shared(hd_proc_t *p, const hd_settings_t *s, hd_err_t *err)
{
    hd_arena_conf_t conf = {.bytes_max = s->loom_bytes_max};

    for (uint32_t i = 0; i < HD_RINGS_MAX; i++)
        hd_rings[i] = -1;
    p->state = hd_state_create(NULL, err);
    if (p->state == NULL)
        return HD_ERROR;
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        p->arenas[i] = hd_arena_create((hd_arena_id_t)i, &conf, p->state, err);
        if (p->arenas[i] == NULL)
            return HD_ERROR;
    }
    for (uint32_t i = 0; i < HD_RINGS_MAX; i++) {
        if (i >= s->workers_n && i < HD_WORKERS_MAX)
            continue;
        hd_rings[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (hd_rings[i] < 0)
            return hd_err_set_sys(err, errno, "eventfd()");
    }
    return HD_OK;
}

void hd_drop_shared(hd_proc_t *p)
{
    for (int i = HD_ARENAS_MAX; i-- > 0;) {
        hd_arena_destroy(p->arenas[i]);
        p->arenas[i] = NULL;
    }
    if (p->state != NULL)
        hd_state_destroy(p->state);
    p->state = NULL;
}

void hd_process_ring(hd_proc_t *p)
{
    uint64_t one = 1;

    (void)p;
    for (uint32_t i = 0; i < HD_RINGS_MAX; i++)
        if (hd_rings[i] >= 0)
            hd_ignore(write(hd_rings[i], &one, sizeof(one))); /* full: it rings already */
}

/* --- start --- */

/* Process-level settings, read in a child of its own: the master never parses. */
static hd_rc_t probe(const hd_options_t *options, hd_settings_t *shared, int *status)
{
    pid_t pid = fork();

    *status = 1;
    if (pid < 0) {
        hd_tell(HD_LOG_EMERG, "fork() failed: %s", strerror(errno));
        return HD_ERROR;
    }
    if (pid == 0) {
        hd_loading_t l = {.options = options, .settings = shared};
        hd_err_t err = {0};
        hd_rc_t rc = hd_loading_read(&l, &err);

        if (rc != HD_OK)
            hd_tell(HD_LOG_EMERG, "%s", err.text);
        hd_loading_end(&l);
        exit(rc == HD_OK ? 0 : 1);
    }
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(*status) && WEXITSTATUS(*status) == 0)
        return HD_OK;
    if (WIFSIGNALED(*status))
        hd_tell(HD_LOG_EMERG,
                "the configuration can't be read: the reader exited on "
                "signal %d",
                WTERMSIG(*status));
    *status = 1;
    return HD_ERROR;
}

/* In the background: returns the descriptor to tell of success on; the foreground process
 * waits for that and exits. -1: fork failed. */
static int daemonize(void)
{
    int fds[2], null;
    char byte;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
        hd_tell(HD_LOG_EMERG, "going to the background: %s", strerror(errno));
        return -1;
    }
    if (pid != 0) {
        close(fds[1]);
        _exit(read(fds[0], &byte, 1) == 1 ? 0 : 1);
    }
    close(fds[0]);
    setsid();
    umask(0);
    null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        if (null > STDERR_FILENO)
            close(null);
    }
    return fds[1];
}

static bool write_to_target(hd_str_t to, hd_log_level_t level, hd_str_t line)
{
    hd_file_t *f;

    if (hd_syslog_is(to)) {
        hd_syslog_send(to, (int)level - 1, line);
        return true;
    }
    f = hd_file_get(to);
    if (f != NULL)
        hd_file_write(f, line, false);
    return f != NULL;
}

static void open_early_log(const hd_options_t *options)
{
    const char *path = options->error_log.data;
    hd_err_t err = {0};

    hd_log_level = HD_LOG_NOTICE;
    hd_log_sink = write_to_target;
    if (hd_use_error_log(path, &err) != HD_OK)
        hd_tell(HD_LOG_ALERT, "could not open error log file: %s", err.text);
}

int hd_process_main(const hd_options_t *options)
{
    hd_settings_t *shared;
    int status, started_fd = -1;
    bool is_inheriting;

    hd_proc.prefix = options->prefix;
    hd_proc.conf_path = options->conf;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is an error of write(2) */
    open_early_log(options);
    if (options->signal.len > 0)
        return hd_signal_main(options);
    if (options->test)
        return hd_loader_test(options);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        hd_tell(HD_LOG_EMERG, "mmap() failed: %s", strerror(errno));
        return 1;
    }
    hd_notify_init();
    is_inheriting = hd_inherited_read();
    if (probe(options, shared, &status) != HD_OK)
        return status;
    if (!shared->master_process) {
        munmap(shared, sizeof(*shared));
        return hd_single_main(&hd_proc, options);
    }
    /* Started by a master, it is in the background already. */
    if (shared->daemon && !is_inheriting && (started_fd = daemonize()) < 0)
        return 1;
    hd_upgrade_init(is_inheriting);
    status = hd_master_run(&hd_proc, options, shared, started_fd);
    munmap(shared, sizeof(*shared));
    return status;
}
