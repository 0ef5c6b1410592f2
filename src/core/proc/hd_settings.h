/* hd_settings: process-level settings: what the loader found and tells the master. Flat,
 * in a page that both share; also compared at reload: what is marked (generation) can't
 * change in running processes: the master starts new ones. What is marked (start) is
 * settled once and for all: a change is refused. */
#pragma once
#include "core/base/hd_log.h"
#include "core/conf/hd_conf.h"
#include "core/net/hd_socket.h"

#define HD_WORKERS_MAX 64
#define HD_LISTENS_MAX 512
#define HD_LOG_FILES_MAX 1024
#define HD_ERROR_LOGS_MAX 8
#define HD_MODULES_MAX 64
#define HD_PATH_MAX_BYTES 512
#define HD_ENVS_BYTES 8192
#define HD_CPUS_MAX 1024 /* as the system's sched_setaffinity has */

typedef struct {
    uint64_t bits[HD_CPUS_MAX / 64];
} hd_cpus_t;

/* One of several error_log lines, as it is told from process to process. */
typedef struct {
    uint32_t level;
    char to[HD_PATH_MAX_BYTES]; /* as in hd_log_target_t; its file is in <logs>, too */
} hd_error_log_t;

/* A listening socket as it is told from process to process. */
typedef struct {
    hd_socket_spec_t spec; /* a unix path lies in <path>: hd_listen_item_fix */
    uint32_t roles;        /* HD_ROLE_…: who accepts on it */
    bool exclusive;        /* one socket that its processes share */
    char path[108];
} hd_listen_item_t;

typedef struct hd_settings_s {
    uint32_t workers_n;          /* generation */
    uint32_t worker_connections; /* generation */
    uint64_t rlimit_nofile;      /* generation; 0: leave */
    uint32_t uid, gid; /* generation; of workers, agent, control; UINT32_MAX: keep */
    uint64_t shutdown_timeout_ms; /* generation; worker_shutdown_timeout; 0: none */
    uint64_t shutdown_delay_ms; /* generation; worker_shutdown_delay */
    uint64_t drain_time_ms;     /* generation; worker_drain_time */
    int32_t priority;             /* generation; of workers; 0: leave */
    uint64_t core_bytes;          /* generation; UINT64_MAX: leave */
    char directory[HD_PATH_MAX_BYTES]; /* generation; where processes are; empty: leave */
    uint32_t envs_bytes;               /* generation; of <envs>: */
    char envs[HD_ENVS_BYTES]; /* NAME: as it was, or NAME=VALUE; each with its zero */
    bool cpus_auto; /* generation; a CPU for each worker, of cpus[0] if there is any */
    uint32_t cpus_n; /* generation; of <cpus>; 0, not auto: leave */
    hd_cpus_t cpus[HD_WORKERS_MAX]; /* by worker; the last is that of all others */
    uint64_t loom_bytes_max;        /* generation */
    uint64_t load_lines;          /* generation: of load_module's lines in their order */
    bool daemon, master_process;  /* start */
    bool has_agent;           /* xds, admin, checks, names at run time: an agent runs */
    bool has_control;         /* control block */
    hd_log_level_t log_level; /* of <error_log>; 0: nothing goes there */
    char pid_path[HD_PATH_MAX_BYTES];
    char error_log[HD_PATH_MAX_BYTES]; /* empty: stderr */
    uint32_t more_error_logs_n;
    hd_error_log_t more_error_logs[HD_ERROR_LOGS_MAX];
    uint32_t modules_n; /* generation: in order of loading */
    char modules[HD_MODULES_MAX][HD_PATH_MAX_BYTES];
    uint64_t module_files[HD_MODULES_MAX]; /* generation: which file each was */
    uint32_t logs_n;
    char logs[HD_LOG_FILES_MAX][HD_PATH_MAX_BYTES];
    uint32_t listens_n;
    hd_listen_item_t listens[HD_LISTENS_MAX];
} hd_settings_t;

void hd_settings_init(hd_settings_t *s); /* the defaults */
/* What is in use of <from>: the lists have room that nobody should touch. */
void hd_settings_copy(hd_settings_t *to, const hd_settings_t *from);
void hd_settings_copy_modules(hd_settings_t *to, const hd_settings_t *from);
/* What is written where from now on, but for the file that is hd_log_fd. */
void hd_settings_use_levels(const hd_settings_t *s);
void hd_error_logs_use(uint32_t level, const hd_error_log_t *more, uint32_t more_n);
/* The name of a directive whose change running processes can't follow; NULL: none. */
const char *hd_settings_differ(const hd_settings_t *running, const hd_settings_t *next);
/* The name of a directive that was settled at the start and has changed; NULL: none. */
const char *hd_settings_refused(const hd_settings_t *running, const hd_settings_t *next);
/* Copies <spec>, with its path; false: the path is too long. */
bool hd_listen_item_init(hd_listen_item_t *item, const hd_socket_spec_t *spec,
                         uint32_t roles);
/* After the item moved: its spec's path points into it again. False: it is not whole
 * (from another process). */
bool hd_listen_item_fix(hd_listen_item_t *item);
bool hd_listen_item_same(const hd_listen_item_t *a, const hd_listen_item_t *b);
