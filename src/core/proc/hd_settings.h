/* hd_settings: process-level settings: what the loader found and tells the master. Sent
 * as one message, flat; also compared at reload: a difference marked (generation) starts
 * a new one. */
#pragma once
#include "core/base/hd_log.h"
#include "core/net/hd_socket.h"

#define HD_LISTENS_MAX 512
#define HD_LOG_FILES_MAX 128
#define HD_MODULES_MAX 64
#define HD_PATH_MAX_BYTES 512

typedef struct hd_settings_s {
    uint32_t workers_n;           /* generation */
    uint32_t worker_connections;  /* generation */
    uint64_t rlimit_nofile;       /* 0: leave */
    uint32_t uid, gid;            /* of workers, agent, control; UINT32_MAX: keep */
    uint64_t shutdown_timeout_ms; /* worker_shutdown_timeout; 0: none */
    uint64_t loom_bytes_max;      /* generation */
    bool daemon, master_process, reuseport;
    bool has_agent;   /* xds or admin block: an agent runs */
    bool has_control; /* control block */
    hd_log_level_t log_level;
    char pid_path[HD_PATH_MAX_BYTES];
    char error_log[HD_PATH_MAX_BYTES];
    uint32_t modules_n; /* generation: in order of loading */
    char modules[HD_MODULES_MAX][HD_PATH_MAX_BYTES];
    uint32_t logs_n;
    char logs[HD_LOG_FILES_MAX][HD_PATH_MAX_BYTES];
    uint32_t listens_n;
    hd_socket_spec_t listens[HD_LISTENS_MAX]; /* unix paths in listen_paths */
    char listen_paths[HD_LISTENS_MAX][108];
} hd_settings_t;

void hd_settings_init(hd_settings_t *s); /* the defaults */
