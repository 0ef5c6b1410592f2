/* What the master's files share: its children, the sockets it holds, and who waits for
 * what to be in place. */
#pragma once
#include "core/proc/hd_process_int.h"

/* Who asks for descriptors to be put in place before it publishes. Two agents: that of
 * the generation in force, and that of the next one. */
typedef enum {
    HD_BY_LOADER = 0,
    HD_BY_AGENT,
    HD_BY_OTHER_AGENT,
    HD_REQUESTERS_N
} hd_requester_t;

typedef struct hd_generation_s hd_generation_t;

typedef struct {
    hd_generation_t *gen;
    hd_proc_kind_t kind;
    uint32_t no;
    pid_t pid;     /* 0: not running */
    bool was_told; /* to end */
    hd_channel_t *channel;
    bool is_ready; /* it serves, as soon as it has sockets */
    bool is_warm;  /* agent, control: it has what it needs from elsewhere, too */
    bool is_held;  /* it has no listening sockets yet: another generation accepts */
    uint64_t started_ns;
    uint32_t quick_deaths; /* in a row, each within a second of its start */
    hd_timer_t respawn;
    uint64_t awaited[HD_REQUESTERS_N]; /* the ping to be acknowledged; 0: none */
} hd_child_t;

typedef enum {
    HD_MASTER_STARTING, /* until all are ready */
    HD_MASTER_RUNNING,
    HD_MASTER_LEAVING,  /* QUIT: not ready any more, but all goes on for a while */
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

/* What each waits for stands in hd_master_generation.c. */
typedef enum {
    HD_GEN_LOADING,   /* its loader is at work; there are no settings yet */
    HD_GEN_WARMING,   /* agent and control start; all are held */
    HD_GEN_STARTING,  /* the workers start, too */
    HD_GEN_IN_FORCE,  /* one, once there is any */
    HD_GEN_DRAINING,  /* was in force; serves what is open on what it has */
    HD_GEN_ABANDONED, /* never was; its processes end */
} hd_gen_step_t;

/* Processes that share arenas and state. */
struct hd_generation_s {
    uint32_t no; /* from 1 */
    hd_gen_step_t step;
    hd_child_t workers[HD_WORKERS_MAX], agent, control, loader;
    hd_state_t *state;
    hd_arena_t *arenas[HD_ARENAS_MAX];
    int rings[HD_RINGS_MAX];
    uint32_t worker_of[HD_WORKERS_MAX]; /* by seat (hd_master_upgrade.c): who serves */
    hd_requester_t agent_as;
    hd_err_t agent_err; /* what failed while the agent named what it needs */
    hd_timer_t late;    /* draining: its agent and control had their time */
    bool is_carried;    /* its last counts are being, or were, carried over */
    bool is_foreign;    /* an old binary's: there is but its state, for reading */
    hd_settings_t settings;
    hd_generation_t *older;
};

typedef struct hd_master_s {
    hd_proc_t *p;
    const hd_options_t *options;
    hd_settings_t *shared; /* the page that loaders fill */
    hd_loop_t *loop;
    hd_signals_t signals;
    hd_generation_t *gen;   /* in force, or the first; before it the others, by <older> */
    hd_generation_t *next;  /* being made beside it; NULL: none */
    const hd_child_t *self; /* in a forked child: which */
    hd_master_phase_t phase;
    hd_loader_state_t loader_state;
    bool reload_again;  /* HUP came while a loader was at work */
    bool was_published; /* there is a configuration in force */
    /* The last loader ended by itself: nothing of what was in force before is in use. */
    bool is_settled;
    bool is_wound_down; /* WINCH: nothing runs, until HUP */
    int started_fd;
    int status;
    hd_timer_t leave_timer, kill_timer, alive_timer;
} hd_master_t;

extern hd_master_t hd_master;

/* All children of a generation in order; the loader is the last. */
hd_child_t *hd_child_at(hd_generation_t *g, uint32_t i);
#define HD_CHILDREN_MAX (HD_WORKERS_MAX + 3)
/* All generations: the next, the one in force, older ones. NULL after the last. */
hd_generation_t *hd_generation_next(const hd_generation_t *g);
#define hd_each_child(g, c)                                                              \
    for (hd_generation_t *g = hd_generation_next(NULL); g != NULL;                       \
         g = hd_generation_next(g))                                                      \
        for (hd_child_t *c = hd_child_at(g, 0); c != NULL; c = hd_child_after(c))
hd_child_t *hd_child_after(const hd_child_t *c); /* in its generation */
void hd_child_tell(hd_child_t *c, int signo);    /* to end, if it runs */
/* Should it run, by its generation's settings and step? */
bool hd_child_is_wanted(const hd_child_t *c);
bool hd_child_send(hd_child_t *c, hd_msg_type_t type, const void *payload, size_t len,
                   const int *fds, unsigned fds_n);

/* --- hd_master.c --- */
void hd_master_fork(hd_child_t *c);
void hd_children_init(hd_generation_t *g);
/* Those that its configuration wants; others are ended. */
void hd_master_spawn_all(hd_generation_t *g);
void hd_master_stop(int status);

/* --- hd_master_generation.c --- */

/* With state, arenas and rings of its own, by <s>. NULL: <err>. */
hd_generation_t *hd_generation_create(const hd_settings_t *s, hd_err_t *err);
/* Behind the first: what an old binary counts is carried over from <fd>'s state. */
void hd_generation_add_foreign(int fd);
/* Was it made for such settings? */
bool hd_generation_fits(const hd_generation_t *g, const hd_settings_t *s);
/* What this process is says the generation: its state, arenas, rings, settings. */
void hd_generation_use(hd_generation_t *g);
/* In a child of <g>: lets go of the others. */
void hd_generation_leave_others(hd_generation_t *g);
/* The next one's resources are published: its processes start. */
void hd_generation_begin(void);
/* Takes the next one's next step, if all that it waits for is there. */
void hd_generation_advance(void);
/* The next one could not be had. */
void hd_generation_abandon(void);
/* At the end of any child's death: hands over, frees what has no process any more, <c>'s
 * generation among it. */
void hd_generation_on_death(hd_child_t *c);
/* The counters of older generations are in the one in force. */
void hd_generation_on_carried(void);
/* The agent's own sockets, at the latest now. */
void hd_generation_release(void);
void hd_generations_destroy(void);

/* --- hd_master_carry.c --- */

/* Adds up what older generations have counted into the one in force, in a process of its
 * own; then hd_generation_on_carried, whatever came of it. While one is at it: again
 * after it. */
void hd_carry_start(void);
/* Is <pid> that process? Then that was its end. */
bool hd_carry_on_end(pid_t pid, int status);
void hd_carry_stop(void); /* at the master's end */

/* --- hd_master_upgrade.c --- */

void hd_upgrade_start(void);     /* USR2 */
void hd_upgrade_wind_down(void); /* WINCH */
/* True: HUP was meant for this, and no reload follows. */
bool hd_upgrade_on_hup(void);
/* Is <pid> the new binary's master? Then that was its end. */
bool hd_upgrade_on_end(pid_t pid, int status);
/* The master that started this program runs still. */
bool hd_upgrade_is_old_there(void);
/* Another master has the same sockets: their files (unix) aren't ours to remove. */
bool hd_upgrade_shares_sockets(void);

/* The new binary's master; 0: none. */
pid_t hd_upgrade_successor(void);

/* --- hd_master_notify.c: what the service manager hears --- */
void hd_master_tell_serving(void);
void hd_master_tell_failed(const char *why); /* a reload */
void hd_master_tell_reloading(void);
void hd_master_tell_ending(void); /* or who goes on in its place */
void hd_master_start_alive(void); /* the watchdog's sign of life */

/* --- hd_master_reload.c --- */
void hd_master_reload(void);
void hd_master_reload_again(void); /* if HUP came meanwhile, and nothing is at work */
void hd_master_on_loader_message(const hd_msg_head_t *head, const void *payload);
void hd_master_on_loader_end(int wait_status);
/* hd_master.gen's settings are in force from here on; <old>: instead of these; NULL. */
void hd_master_put_in_force(const hd_settings_t *old);
/* The reload (or the start) failed. */
void hd_master_fail(const char *why);

/* --- hd_master_sockets.c --- */

/* Notes what <by> needs; false: <err>. */
hd_rc_t hd_sockets_need(hd_requester_t by, const hd_listen_item_t *item, hd_err_t *err);
hd_rc_t hd_sockets_need_log(hd_requester_t by, hd_str_t path, hd_err_t *err);
void hd_sockets_free(hd_requester_t by, const hd_listen_item_t *item);
/* Opens what was noted (a port in use is tried five times), gives it to all children and
 * waits for their word; then <done> with NULL or the reason. One at a time for each. */
void hd_sockets_prepare(hd_requester_t by,
                        void (*done)(hd_requester_t by, const hd_err_t *err));
/* What <by> asked for is in force. <whole>: what it didn't ask for this time goes. */
void hd_sockets_commit(hd_requester_t by, bool whole);
void hd_sockets_abort(hd_requester_t by);  /* forgets what it asked for */
void hd_sockets_forget(hd_requester_t by); /* and what it had */
/* To one that was held: all that it may accept on. */
void hd_sockets_release(hd_child_t *c);
void hd_sockets_on_ack(hd_child_t *c, uint64_t seq);
void hd_sockets_on_death(hd_child_t *c);
void hd_sockets_close_all(void);
void hd_sockets_each(void (*visit)(void *arg, int fd, bool is_lent), void *arg);
/* USR1: all logs anew, in all processes; a reload: those that its configuration names. */
void hd_sockets_reopen_logs(bool named_only);
/* Closes log files that the configuration in force doesn't name, in all processes, once
 * nothing of an earlier one is in use any more (is_settled, no older generation). */
void hd_sockets_close_logs(void);
