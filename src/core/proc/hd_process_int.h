/* What core/proc's files share: who has which row, ring and descriptor; loader; master.
 */
#pragma once
#include "core/proc/hd_files.h"
#include "core/proc/hd_modules.h"
#include "core/proc/hd_process.h"

extern const hd_module_t hd_core_module;

/* --- rows of the state arena, rings --- */

#define HD_RINGS_MAX (HD_WORKERS_MAX + 2)
enum {
    HD_ROW_AGENT = HD_WORKERS_MAX,
    HD_ROW_CONTROL,
    HD_ROW_LOADER,
    HD_ROW_CARRY, /* what earlier generations counted */
    HD_ROWS_USED,
}; /* a worker's row is its number */

/* eventfds made by the master before the first fork, by row; -1: none. */
extern int hd_rings[HD_RINGS_MAX];

/* --- hooks --- */
bool hd_takes_part(const hd_process_hooks_t *h, hd_proc_kind_t kind);
const hd_process_hooks_t *hd_hooks_next(uint32_t *at);
hd_rc_t hd_hooks_start(hd_proc_t *p, hd_err_t *err) HD_MUST_CHECK;
void hd_hooks_batch(hd_proc_t *p);
void hd_hooks_quit(hd_proc_t *p);
bool hd_hooks_idle(hd_proc_t *p);
bool hd_hooks_warm(hd_proc_t *p);
void hd_hooks_stop(hd_proc_t *p);
void hd_hooks_ask(hd_proc_t *p, const void *payload, size_t len);

/* --- telling --- */

/* To the log and, when that is not the terminal, to stderr as nginx does: "heddle:
 * [emerg] …". */
void hd_tell(hd_log_level_t level, const char *fmt, ...) HD_PRINTF(2, 3);
/* Opens for appending; the reason as nginx words it. -1: <err>. */
int hd_open_log(const char *path, hd_err_t *err);
/* Opens the error log and writes there from now on; keeps what was open on failure.
 * <path> empty: stderr. */
hd_rc_t hd_use_error_log(const char *path, hd_err_t *err) HD_MUST_CHECK;

/* --- loader --- */

typedef struct {
    const hd_options_t *options;
    hd_settings_t *settings;      /* filled */
    const hd_settings_t *running; /* at a reload: of the processes there are; else NULL */
    char needs_generation[HD_PATH_MAX_BYTES + 64]; /* what these can't follow; or empty */
    hd_pool_t *pool;
    hd_node_t *root;
    hd_sources_t *sources;
    hd_build_t build;
    hd_batch_t *batch; /* between build and publish */
    bool is_reading;
    uint32_t named_n; /* modules that load_module named in this run */
    uint16_t named[HD_MODULES_MAX];
} hd_loading_t;

/* Running processes can't follow a change of <what>, a directive or a file. */
void hd_loading_need_generation(hd_loading_t *l, hd_str_t what);
/* Reads text and process-level settings. */
hd_rc_t hd_loading_read(hd_loading_t *l, hd_err_t *err) HD_MUST_CHECK;
/* Builds the whole; <arena> NULL: nowhere. */
hd_rc_t hd_loading_build(hd_loading_t *l, hd_arena_t *arena, hd_member_t *m,
                         hd_err_t *err) HD_MUST_CHECK;
/* Publishes what was built and rings; returns how many slots changed. */
size_t hd_loading_publish(hd_loading_t *l, hd_proc_t *p);
/* The same, but what is only removed stays for those that are still being served by it,
 * until hd_loading_publish. True: something is left for that. */
bool hd_loading_publish_first(hd_loading_t *l, hd_proc_t *p, size_t *changed);
/* All of it in this process, unpublished: reads, makes shared memory, becomes the writer,
 * builds. For -t and master_process off. */
hd_rc_t hd_load_alone(hd_proc_t *p, hd_loading_t *l, hd_err_t *err) HD_MUST_CHECK;
void hd_loading_end(hd_loading_t *l); /* aborts what wasn't published; frees */

/* --- processes --- */

/* Master: runs until the end; the exit status. <started_fd>: gets one byte when all is
 * up; -1: nobody waits. */
int hd_master_run(hd_proc_t *p, const hd_options_t *options, hd_settings_t *settings,
                  int started_fd);
/* Before it: <is_inheriting>: another master has started this program (USR2). */
void hd_upgrade_init(bool is_inheriting);
/* In a forked worker, agent or control: runs until the end; the exit status. */
int hd_child_main(hd_proc_t *p, int channel_fd);
int hd_single_main(hd_proc_t *p, const hd_options_t *options);
/* -s: the exit status. */
int hd_signal_main(const hd_options_t *options);

/* State, arenas and rings (hd_rings), before a generation's first fork. */
hd_rc_t hd_make_shared(hd_proc_t *p, const hd_settings_t *s, hd_err_t *err) HD_MUST_CHECK;
void hd_drop_shared(hd_proc_t *p); /* not the rings */

/* What children and SINGLE have in common: member, arenas, loop, acceptor are there. */
hd_rc_t hd_serve_start(hd_proc_t *p, hd_err_t *err) HD_MUST_CHECK;
/* The program is about to end: worker_shutdown_timeout counts from here. */
void hd_serve_leave(hd_proc_t *p);
/* Begins the graceful end: the loop ends when idle or late. */
void hd_serve_quit(hd_proc_t *p);
void hd_serve_stop(hd_proc_t *p);
void hd_on_ring(void *arg);

/* TERM, INT, QUIT, HUP, USR1, USR2, WINCH, CHLD as events. */
typedef struct {
    hd_watch_t watch;
    hd_loop_t *loop;
    void (*on_signal)(int signo);
} hd_signals_t;
hd_rc_t hd_signals_start(hd_signals_t *s, hd_loop_t *loop, void (*on_signal)(int signo),
                         hd_err_t *err) HD_MUST_CHECK;
void hd_signals_stop(hd_signals_t *s);
void hd_signals_block(void);
void hd_signals_unblock(void);

/* In a child, right after the fork: the sockets that the master holds for it. */
void hd_master_give_listens(hd_proc_t *p);
hd_rc_t hd_single_prepare(hd_proc_t *p, const hd_socket_spec_t *specs, uint32_t specs_n,
                          const hd_str_t *logs, uint32_t logs_n,
                          hd_err_t *err) HD_MUST_CHECK;
/* The answer to the oldest hd_process_prepare; <reason> empty: good. */
void hd_prepare_done(hd_str_t reason);

/* --- broker --- */

/* In a child: requests go over p->to_master. */
void hd_broker_use(hd_proc_t *p);
void hd_broker_on_made(const hd_msg_head_t *head, const void *payload, int *fds);
/* In the master: makes the socket and answers. */
void hd_broker_serve(hd_channel_t *ch, const hd_msg_head_t *head, const void *payload);
