/* What the master's files share: its children, the sockets it holds, and who waits for
 * what to be in place. */
#pragma once
#include "core/proc/hd_process_int.h"

/* Who asks for descriptors to be put in place before it publishes. */
typedef enum { HD_BY_LOADER = 0, HD_BY_AGENT, HD_REQUESTERS_N } hd_requester_t;

typedef struct {
    hd_proc_kind_t kind;
    uint32_t no;
    pid_t pid; /* 0: not running */
    hd_channel_t *channel;
    bool is_ready;
    uint64_t started_ns;
    uint32_t quick_deaths; /* in a row, each within a second of its start */
    hd_timer_t respawn;
    uint64_t awaited[HD_REQUESTERS_N]; /* the ping to be acknowledged; 0: none */
} hd_child_t;

typedef enum {
    HD_MASTER_STARTING, /* until all are ready */
    HD_MASTER_RUNNING,
    HD_MASTER_QUITTING, /* workers drain; then the others end */
    HD_MASTER_STOPPING,
} hd_master_phase_t;

typedef enum {
    HD_LOADER_NONE,
    HD_LOADER_BUILDING,
    HD_LOADER_PREPARING, /* sockets and logs are put in place */
    HD_LOADER_PUBLISHING,
    HD_LOADER_RECLAIMING, /* its work is done; it waits for what it retired */
} hd_loader_state_t;

typedef struct hd_master_s {
    hd_proc_t *p;
    const hd_options_t *options;
    hd_settings_t *shared; /* the page that loaders fill */
    hd_loop_t *loop;
    hd_signals_t signals;
    hd_child_t workers[HD_WORKERS_MAX], agent, control, loader;
    hd_master_phase_t phase;
    hd_loader_state_t loader_state;
    bool reload_again;  /* HUP came while a loader was at work */
    bool was_published; /* there is a configuration in force */
    int started_fd;
    int status;
    hd_timer_t kill_timer;
} hd_master_t;

extern hd_master_t hd_master;

/* All children in order; NULL after the last. */
hd_child_t *hd_child_at(uint32_t i);
#define HD_CHILDREN_MAX (HD_WORKERS_MAX + 3)
bool hd_child_send(hd_child_t *c, hd_msg_type_t type, const void *payload, size_t len,
                   const int *fds, unsigned fds_n);

/* --- hd_master.c --- */
void hd_master_fork(hd_child_t *c);
void hd_master_spawn_all(void); /* those that the configuration wants; others are ended */
void hd_master_stop(int status);

/* --- hd_master_reload.c --- */
void hd_master_reload(void);
void hd_master_on_loader_message(const hd_msg_head_t *head, const void *payload);
void hd_master_on_loader_end(int wait_status);

/* --- hd_master_sockets.c --- */

/* Notes what <by> needs; false: <err>. */
hd_rc_t hd_sockets_need(hd_requester_t by, const hd_listen_item_t *item, hd_err_t *err);
hd_rc_t hd_sockets_need_log(hd_requester_t by, hd_str_t path, hd_err_t *err);
void hd_sockets_free(hd_requester_t by, const hd_listen_item_t *item);
/* Opens what was noted (a port in use is tried five times), gives it to all children and
 * waits for their word; then <done> with NULL or the reason. One at a time for each. */
void hd_sockets_prepare(hd_requester_t by, void (*done)(const hd_err_t *err));
/* What <by> asked for is in force. <whole>: what it didn't ask for this time goes. */
void hd_sockets_commit(hd_requester_t by, bool whole);
void hd_sockets_abort(hd_requester_t by); /* forgets what it asked for */
void hd_sockets_on_ack(hd_child_t *c, uint64_t seq);
void hd_sockets_on_death(hd_child_t *c);
void hd_sockets_close_all(void);
/* USR1: all logs anew, in all processes. */
void hd_sockets_reopen_logs(void);
