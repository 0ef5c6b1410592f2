/* The main level's directives: process-level settings, and events {}. */
#include "core/proc/hd_process_int.h"
#include "core/proc/hd_surroundings.h"
#include "core/conf/hd_conf_log.h"
#include "core/net/hd_syslog.h"
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

static hd_rc_t copy_path(const hd_conf_t *cf, hd_str_t from, char *to, hd_err_t *err)
{
    hd_str_t path = hd_conf_path(cf, from, false);

    if (path.len >= HD_PATH_MAX_BYTES)
        return hd_err_set(err, HD_E_CONF, "a path of more than %d bytes",
                          HD_PATH_MAX_BYTES - 1);
    (void)snprintf(to, HD_PATH_MAX_BYTES, "%.*s", HD_STR_ARG(path));
    return HD_OK;
}

static uint32_t cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    return (uint32_t)hd_max(CPU_COUNT(&set), 1);
}

static hd_rc_t set_workers(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint64_t n;

    (void)conf;
    if (hd_str_eq(args[0], HD_STR("auto")))
        n = hd_min(cpus(), (uint32_t)HD_WORKERS_MAX);
    else if (!hd_str_to_u64(args[0], UINT64_MAX, &n) || n < 1 || n > HD_WORKERS_MAX)
        return hd_err_set(err, HD_E_CONF,
                          "invalid value \"%.*s\" in \"worker_processes\" directive: "
                          "\"auto\", or a number from 1 to %d",
                          HD_STR_ARG(args[0]), HD_WORKERS_MAX);
    cf->build->settings->workers_n = (uint32_t)n;
    return HD_OK;
}

static hd_rc_t set_user(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_settings_t *s = cf->build->settings;
    const struct passwd *user;
    const struct group *group;

    (void)conf;
    if (geteuid() != 0) {
        hd_conf_warn(cf, "the \"user\" directive makes sense only if the master process "
                         "runs with super-user privileges, ignored");
        return HD_OK;
    }
    user = getpwnam(hd_str_to_c(cf->temp, args[0]));
    if (user == NULL)
        return hd_err_set(err, HD_E_CONF,
                          "there is no user \"%.*s\": is its name in "
                          "/etc/passwd?",
                          HD_STR_ARG(args[0]));
    s->uid = user->pw_uid;
    s->gid = user->pw_gid;
    if (cf->node->args_n < 2)
        return HD_OK;
    group = getgrnam(hd_str_to_c(cf->temp, args[1]));
    if (group == NULL)
        return hd_err_set(err, HD_E_CONF, "there is no group \"%.*s\"",
                          HD_STR_ARG(args[1]));
    s->gid = group->gr_gid;
    return HD_OK;
}

static hd_rc_t set_pid(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    return copy_path(cf, args[0], cf->build->settings->pid_path, err);
}

/* The first file or stderr is hd_log_fd; what comes further goes beside it. */
static hd_rc_t set_error_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    hd_settings_t *s = cf->build->settings;
    hd_log_target_t target;
    hd_error_log_t *more;

    (void)conf;
    if (hd_conf_log_target(cf, args, &target, err) != HD_OK)
        return HD_ERROR;
    if (target.to.len >= HD_PATH_MAX_BYTES)
        return hd_err_set(err, HD_E_CONF, "a path of more than %d bytes",
                          HD_PATH_MAX_BYTES - 1);
    if (cf->is_first) {
        s->more_error_logs_n = 0;
        s->log_level = 0;
        s->error_log[0] = '\0';
    }
    if (s->log_level == 0 && !hd_syslog_is(target.to)) {
        s->log_level = target.level;
        (void)snprintf(s->error_log, HD_PATH_MAX_BYTES, "%.*s", HD_STR_ARG(target.to));
        return HD_OK;
    }
    if (s->more_error_logs_n == HD_ERROR_LOGS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d error logs", HD_ERROR_LOGS_MAX);
    more = &s->more_error_logs[s->more_error_logs_n++];
    more->level = (uint32_t)target.level;
    (void)snprintf(more->to, HD_PATH_MAX_BYTES, "%.*s", HD_STR_ARG(target.to));
    return hd_conf_log_need(cf, &target, err);
}

/* --- those whose field is one of the settings' --- */

#define SETTING(field) offsetof(hd_settings_t, field)

static hd_rc_t set_flag(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    return hd_set_flag(cf, args, cf->build->settings, err);
}

static hd_rc_t set_u32(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    return hd_set_u32(cf, args, cf->build->settings, err);
}

static hd_rc_t set_msec(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    return hd_set_msec(cf, args, cf->build->settings, err);
}

static hd_rc_t set_size(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    return hd_set_size(cf, args, cf->build->settings, err);
}

static hd_rc_t set_nofile(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    if (hd_str_to_u64(args[0], 1 << 30, &cf->build->settings->rlimit_nofile) &&
        cf->build->settings->rlimit_nofile >= 64)
        return HD_OK;
    return hd_err_set(err, HD_E_CONF,
                      "invalid number \"%.*s\" in \"worker_rlimit_nofile\" directive: 64 "
                      "or more",
                      HD_STR_ARG(args[0]));
}

/* --- events --- */

static hd_rc_t events_block(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    (void)args;
    (void)conf;
    return hd_conf_enter(cf, cf->node, HD_IN_EVENTS, NULL, err);
}

static hd_rc_t set_use(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)cf;
    (void)conf;
    if (hd_str_eq(args[0], HD_STR("epoll")))
        return HD_OK;
    return hd_err_set(err, HD_E_CONF, "invalid event type \"%.*s\": there is \"epoll\"",
                      HD_STR_ARG(args[0]));
}

/* on or off is checked, and then it's all the same. */
static hd_rc_t check_flag(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool flag[64]; /* .offset is 0 */

    (void)conf;
    return hd_set_flag(cf, args, flag, err);
}

static hd_rc_t check_time(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint64_t ms[8]; /* .offset is 0 */

    (void)conf;
    return hd_set_msec(cf, args, ms, err);
}

/* Tunes something that isn't here; the rest of the file means the same without it. */
static hd_rc_t warn_unused(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)args;
    (void)conf;
    (void)err;
    hd_conf_warn(cf, "\"%s\" has no effect here", cf->directive->name);
    return HD_OK;
}

static const hd_conf_limits_t connections_limits = {16, 1 << 24};
static const hd_conf_limits_t loom_limits = {(uint64_t)1 << 22, (uint64_t)32 << 30};

static const hd_directive_t directives[] = {
    {.name = "load_module",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .repeats = true, /* was done before all else: see hd_conf_build */
     .help =
         "FILE: loads a module; modules of the modules directory load themselves when "
         "a directive of theirs is used"},
    {.name = "worker_processes",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_workers,
     .help = "N | auto: how many workers; auto: one for each CPU"},
    {.name = "worker_rlimit_nofile",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_nofile,
     .help = "N: how many files and sockets a worker may have open"},
    {.name = "worker_rlimit_core",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_size,
     .offset = SETTING(core_bytes),
     .help = "SIZE: how large a core file of a process may be"},
    {.name = "worker_priority",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_priority,
     .help = "N: the scheduling priority of workers, as nice(1) has it: -20 to 20"},
    {.name = "worker_cpu_affinity",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = hd_set_affinity,
     .help = "MASK … | auto [MASK]: CPUs of each worker, a binary digit for each CPU, "
             "the first one's last; the last mask is that of all further workers; auto: "
             "a CPU for each"},
    {.name = "working_directory",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_directory,
     .help = "DIR: where processes are, and their core files"},
    {.name = "env",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .repeats = true,
     .set = hd_set_env,
     .help = "NAME | NAME=VALUE: what processes keep of the environment, or have instead; "
             "without it they keep TZ alone"},
    {.name = "worker_shutdown_timeout",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_msec,
     .offset = SETTING(shutdown_timeout_ms),
     .help = "TIME: at a graceful end, conns still open after it are closed"},
    {.name = "worker_shutdown_delay",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_msec,
     .offset = SETTING(shutdown_delay_ms),
     .help = "TIME: after QUIT /ready says 503, and so long new conns are taken all the "
             "same, until no balancer sends any; default 0"},
    {.name = "worker_drain_time",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_msec,
     .offset = SETTING(drain_time_ms),
     .help = "TIME: at a graceful end, clients are told (GOAWAY, Connection: close) one "
             "after another within it, not all at once; default 0"},
    {.name = "user",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .args_max = 2,
     .set = set_user,
     .help = "NAME [GROUP]: whom workers and agent run as when started by root; default "
             "nobody"},
    {.name = "pid",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_pid,
     .help = "FILE: where the master's process id is kept"},
    {.name = "error_log",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_error_log,
     .help = HD_CONF_LOG_ARGS
     ": where and from which level on (debug, info, notice, warn, error, crit, alert, "
     "emerg) the program tells what happens; several lines: to each of them"},
    {.name = "daemon",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_flag,
     .offset = SETTING(daemon),
     .help = "on | off: go to the background"},
    {.name = "master_process",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_flag,
     .offset = SETTING(master_process),
     .help = "on | off: off runs everything in one process, for debugging"},
    {.name = "loom_size",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_size,
     .post = &loom_limits,
     .offset = SETTING(loom_bytes_max),
     .help = "SIZE: how large the shared configuration may grow, files' and xDS's each; "
             "default 1g, taken only as it is used"},
    {.name = "pcre_jit",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = check_flag,
     .help =
         "on | off: accepted without effect: regular expressions are always compiled"},
    {.name = "lock_file",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = warn_unused,
     .help = "FILE: accepted without effect: nothing is locked by a file"},
    {.name = "timer_resolution",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = warn_unused,
     .help = "TIME: accepted without effect: the time is asked for once a turn"},
    {.name = "thread_pool",
     .scope = HD_IN_MAIN,
     .args_n = 2,
     .args_max = 3,
     .repeats = true,
     .set = warn_unused,
     .help = "NAME threads=N [max_queue=N]: accepted without effect: there are no threads"},
    {.name = "debug_points",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = warn_unused,
     .help = "abort | stop: accepted without effect: a bug that is found ends the process"},
    {.name = "events",
     .scope = HD_IN_MAIN,
     .block = events_block,
     .help = "{ … }: how connections are processed"},
    {.name = "worker_connections",
     .scope = HD_IN_EVENTS,
     .args_n = 1,
     .set = set_u32,
     .post = &connections_limits,
     .offset = SETTING(worker_connections),
     .help = "N: how many connections, to clients and upstreams together, a worker has; "
             "default 1024"},
    {.name = "use",
     .scope = HD_IN_EVENTS,
     .args_n = 1,
     .set = set_use,
     .help = "epoll: the only method"},
    {.name = "multi_accept",
     .scope = HD_IN_EVENTS,
     .args_n = 1,
     .set = check_flag,
     .help = "on | off: accepted without effect: a worker takes what is there, a bounded "
             "number a turn"},
    {.name = "worker_aio_requests",
     .scope = HD_IN_EVENTS,
     .args_n = 1,
     .set = warn_unused,
     .help = "N: accepted without effect: files are read by the worker itself"},
    {.name = "debug_connection",
     .scope = HD_IN_EVENTS,
     .args_n = 1,
     .repeats = true,
     .set = warn_unused,
     .help = "ADDRESS | CIDR | unix: accepted without effect: error_log's level says of "
             "which connections debug lines are written"},
    {.name = "accept_mutex",
     .scope = HD_IN_EVENTS,
     .args_n = 1,
     .set = check_flag,
     .help =
         "on | off: accepted without effect: the kernel wakes one worker a connection"},
    {.name = "accept_mutex_delay",
     .scope = HD_IN_EVENTS,
     .args_n = 1,
     .set = check_time,
     .help = "TIME: accepted without effect: there is no accept mutex"},
    {0},
};

const hd_module_t hd_core_module = {
    .abi = HD_MODULE_ABI,
    .name = "core",
    .directives = directives,
};
