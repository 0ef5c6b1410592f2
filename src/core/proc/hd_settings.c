#include "core/proc/hd_settings.h"
#include "hd_auto_config.h"
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

void hd_settings_init(hd_settings_t *s)
{
    memset(s, 0, offsetof(hd_settings_t, modules_n));
    s->modules_n = s->logs_n = s->listens_n = 0;
    s->workers_n = 1;
    s->worker_connections = 1024;
    s->uid = s->gid = UINT32_MAX;
    if (geteuid() == 0) {
        const struct passwd *nobody = getpwnam("nobody");

        s->uid = nobody != NULL ? nobody->pw_uid : 65534;
        s->gid = nobody != NULL ? nobody->pw_gid : 65534;
    }
    s->core_bytes = UINT64_MAX;
    s->loom_bytes_max = (uint64_t)1 << 30;
    s->daemon = true;
    s->master_process = true;
    s->log_level = HD_LOG_ERROR;
    (void)snprintf(s->pid_path, sizeof(s->pid_path), "%s", HD_PID_PATH);
    (void)snprintf(s->error_log, sizeof(s->error_log), "%s", HD_ERROR_LOG_PATH);
}

void hd_settings_copy_modules(hd_settings_t *to, const hd_settings_t *from)
{
    to->modules_n = hd_min(from->modules_n, (uint32_t)HD_MODULES_MAX);
    memcpy(to->modules, from->modules, to->modules_n * sizeof(to->modules[0]));
    memcpy(to->module_files, from->module_files,
           to->modules_n * sizeof(to->module_files[0]));
}

void hd_settings_copy(hd_settings_t *to, const hd_settings_t *from)
{
    memcpy(to, from, offsetof(hd_settings_t, modules_n));
    hd_settings_copy_modules(to, from);
    to->logs_n = hd_min(from->logs_n, (uint32_t)HD_LOG_FILES_MAX);
    memcpy(to->logs, from->logs, to->logs_n * sizeof(to->logs[0]));
    to->listens_n = hd_min(from->listens_n, (uint32_t)HD_LISTENS_MAX);
    memcpy(to->listens, from->listens, to->listens_n * sizeof(to->listens[0]));
}

void hd_error_logs_use(uint32_t level, const hd_error_log_t *more, uint32_t more_n)
{
    hd_log_target_t targets[HD_ERROR_LOGS_MAX];

    more_n = hd_min(more_n, (uint32_t)HD_ERROR_LOGS_MAX);
    for (uint32_t i = 0; i < more_n; i++)
        targets[i] = (hd_log_target_t){
            .to = hd_str_n(more[i].to, strnlen(more[i].to, HD_PATH_MAX_BYTES)),
            .level = (hd_log_level_t)more[i].level};
    hd_log_set_main((hd_log_level_t)level, targets, more_n);
}

void hd_settings_use_levels(const hd_settings_t *s)
{
    hd_error_logs_use((uint32_t)s->log_level, s->more_error_logs, s->more_error_logs_n);
}

static const char *surroundings_differ(const hd_settings_t *a, const hd_settings_t *b)
{
    if (a->priority != b->priority)
        return "worker_priority";
    if (a->core_bytes != b->core_bytes)
        return "worker_rlimit_core";
    if (strcmp(a->directory, b->directory) != 0)
        return "working_directory";
    if (a->envs_bytes != b->envs_bytes || memcmp(a->envs, b->envs, a->envs_bytes) != 0)
        return "env";
    if (a->cpus_auto != b->cpus_auto || a->cpus_n != b->cpus_n ||
        memcmp(a->cpus, b->cpus, a->cpus_n * sizeof(a->cpus[0])) != 0)
        return "worker_cpu_affinity";
    return NULL;
}

const char *hd_settings_differ(const hd_settings_t *running, const hd_settings_t *next)
{
    if (running->workers_n != next->workers_n)
        return "worker_processes";
    if (running->worker_connections != next->worker_connections)
        return "worker_connections";
    if (running->loom_bytes_max != next->loom_bytes_max)
        return "loom_size";
    if (running->uid != next->uid || running->gid != next->gid)
        return "user";
    if (running->rlimit_nofile != next->rlimit_nofile)
        return "worker_rlimit_nofile";
    if (running->shutdown_timeout_ms != next->shutdown_timeout_ms)
        return "worker_shutdown_timeout";
    if (running->shutdown_delay_ms != next->shutdown_delay_ms)
        return "worker_shutdown_delay";
    if (running->drain_time_ms != next->drain_time_ms)
        return "worker_drain_time";
    return surroundings_differ(running, next);
}

const char *hd_settings_refused(const hd_settings_t *running, const hd_settings_t *next)
{
    if (running->master_process != next->master_process)
        return "master_process";
    if (running->daemon != next->daemon)
        return "daemon";
    return NULL;
}

bool hd_listen_item_init(hd_listen_item_t *item, const hd_socket_spec_t *spec,
                         uint32_t roles)
{
    *item = (hd_listen_item_t){.spec = *spec, .roles = roles};
    if (spec->bind.family == AF_UNIX) {
        if (spec->bind.path.len >= sizeof(item->path))
            return false;
        memcpy(item->path, spec->bind.path.data, spec->bind.path.len);
    }
    return hd_listen_item_fix(item);
}

bool hd_listen_item_fix(hd_listen_item_t *item)
{
    if (item->spec.bind.family != AF_UNIX)
        return true;
    item->path[sizeof(item->path) - 1] = '\0';
    item->spec.bind.path = hd_str_c(item->path);
    return item->path[0] != '\0';
}

bool hd_listen_item_same(const hd_listen_item_t *a, const hd_listen_item_t *b)
{
    return a->spec.type == b->spec.type && a->spec.netns == b->spec.netns &&
           hd_addr_eq(&a->spec.bind, &b->spec.bind);
}
