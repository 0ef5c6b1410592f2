/* -s: finds the master by its pid file and sends a signal. */
#include "core/proc/hd_process_int.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
    hd_str_t name;
    int signo;
} names[] = {
    {HD_STR_INIT("stop"), SIGTERM},
    {HD_STR_INIT("quit"), SIGQUIT},
    {HD_STR_INIT("reload"), SIGHUP},
    {HD_STR_INIT("reopen"), SIGUSR1},
};

/* A reload checks all, as nginx does; for the others the pid file's name is enough: one
 * wants to stop what runs on a configuration that is broken by now. */
static hd_rc_t read_settings(const hd_options_t *options, hd_settings_t *settings,
                             bool all, hd_err_t *err)
{
    hd_loading_t l = {.options = options, .settings = settings};
    hd_rc_t rc;

    hd_proc.kind = HD_PROC_LOADER;
    if (!all)
        rc = hd_loading_read(&l, err);
    else
        rc = hd_load_alone(&hd_proc, &l, err);
    hd_loading_end(&l);
    if (hd_proc.member != NULL)
        hd_member_stop(hd_proc.member);
    hd_drop_shared(&hd_proc);
    return rc;
}

static pid_t read_pid(const char *path)
{
    char text[32];
    uint64_t pid;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        hd_tell(HD_LOG_ERROR, "open() \"%s\" failed: %s: is heddle running?", path,
                strerror(errno));
        return -1;
    }
    n = read(fd, text, sizeof(text));
    hd_ignore(close(fd)); /* only read */
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    if (n <= 0 || !hd_str_to_u64(hd_str_n(text, (size_t)n), INT32_MAX, &pid) ||
        pid == 0) {
        hd_tell(HD_LOG_ERROR, "invalid PID number in \"%s\"", path);
        return -1;
    }
    return (pid_t)pid;
}

int hd_signal_main(const hd_options_t *options)
{
    static hd_settings_t settings;
    hd_err_t err = {0};
    pid_t pid;
    size_t i = 0;

    while (!hd_str_eq(names[i].name, options->signal))
        i++; /* the command line was checked */
    if (read_settings(options, &settings, names[i].signo == SIGHUP, &err) != HD_OK) {
        hd_tell(HD_LOG_EMERG, "%s", err.text);
        return 1;
    }
    pid = read_pid(settings.pid_path);
    if (pid < 0)
        return 1;
    if (kill(pid, names[i].signo) == 0)
        return 0;
    hd_tell(HD_LOG_ALERT, "kill(%d, %d) failed: %s", (int)pid, names[i].signo,
            strerror(errno));
    return 1;
}
