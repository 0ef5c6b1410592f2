/* hd_process: who runs what: master, loader, worker, agent, control.
 *
 *   master   owns listening sockets and privilege; forks, supervises; never parses, never
 *            touches traffic
 *   loader   parses files, publishes to the files arena; stays only while something that
 *            it retired is not freed
 *   worker   all traffic
 *   agent    writes the dynamic arena: xDS, certificates, DNS, health; admin port
 *   control  the control plane
 *
 * Parts of upper layers take part by hooks (hd_process_hooks_t), registered at start in
 * src/heddle.c: so core/proc knows neither http nor mesh.
 */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/net/hd_listener.h"
#include "core/proc/hd_channel.h"
#include "core/proc/hd_settings.h"

typedef enum {
    HD_PROC_MASTER,
    HD_PROC_LOADER,
    HD_PROC_WORKER,
    HD_PROC_AGENT,
    HD_PROC_CONTROL,
    HD_PROC_SINGLE /* master_process off: all in one */
} hd_proc_kind_t;

typedef struct hd_proc_s {
    hd_proc_kind_t kind;
    uint32_t worker_no; /* of a worker: 0… */
    hd_loop_t *loop;
    hd_member_t *member;
    hd_member_t *writer; /* of the dynamic arena, where this process is the agent */
    hd_state_t *state;
    hd_arena_t *arenas[HD_ARENAS_MAX];
    const hd_settings_t *settings;
    hd_acceptor_t *acceptor; /* workers, agent and control (their own ports) */
    hd_channel_t *to_master; /* NULL in the master */
    bool is_leaving;  /* the program is about to end: readiness fails, all goes on */
    bool is_quitting; /* this process drains */
    hd_str_t prefix, conf_path;
} hd_proc_t;

extern hd_proc_t hd_proc; /* this process */

typedef struct {
    const char *name;
    unsigned kinds; /* bits 1 << hd_proc_kind_t in which it takes part; SINGLE implies
                       worker… */
    hd_rc_t (*on_start)(hd_proc_t *p, hd_err_t *err); /* loop and arenas are there */
    void (*on_batch)(hd_proc_t *p);                   /* something was published */
    void (*on_quit)(hd_proc_t *p);                    /* graceful end has begun: drain */
    bool (*is_idle)(hd_proc_t *p); /* nothing left to serve; NULL: always */
    bool (*is_warm)(
        hd_proc_t *p);             /* agent, control: what it needs from elsewhere is
                                      there, or given up; asked until true; NULL: always */
    void (*on_stop)(hd_proc_t *p); /* last: free what it owns */
    /* In the agent: what some worker says by hd_process_ask, or a broken one. */
    void (*on_ask)(hd_proc_t *p, const void *payload, size_t len);
} hd_process_hooks_t;

void hd_process_add_hooks(const hd_process_hooks_t *hooks); /* before hd_process_main */
/* First of all in main: the main level's own directives. */
void hd_process_register(void);

typedef struct {
    hd_str_t conf, prefix, error_log; /* absolute, zero-terminated */
    hd_str_t globals;
    hd_str_t program;       /* the file to execute at USR2 */
    char **argv;            /* as given, for USR2 */
    hd_str_t signal;        /* -s: stop, quit, reload, reopen; empty */
    bool test, dump, quiet; /* -t -T -q */
} hd_options_t;

/* Runs until the end; the exit status. */
int hd_process_main(const hd_options_t *options);

/* Rings all workers (and agent, control) after a batch. By whoever publishes. */
void hd_process_ring(hd_proc_t *p);

/* By a worker: tells the agent something, by way of the master. It may be lost (a full
 * queue, an agent that has just died): who waits for an effect says it again. */
void hd_process_ask(hd_proc_t *p, const void *payload, size_t len);

/* By the agent: asks the master to open listening sockets and log files in all workers;
 * <done> is called once all have acknowledged (or with the reason of a failure). Then
 * publish. */
void hd_process_prepare(hd_proc_t *p, const hd_socket_spec_t *specs, uint32_t specs_n,
                        const hd_str_t *logs, uint32_t logs_n,
                        void (*done)(void *arg, const hd_err_t *err), void *arg);
/* After a batch that removed listeners: the master closes its copies of their sockets. */
void hd_process_release(hd_proc_t *p, const hd_socket_spec_t *specs, uint32_t specs_n);
