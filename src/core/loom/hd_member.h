/* hd_member: the handle of one who takes part in shared state: a worker, the agent, a
 * loader, or (in tests and with master_process off) a thread or a role within one
 * process. ◆
 *
 * Loom and shared state take a member rather than "this process", so that the same code
 * runs as threads under TSan, as processes under kill -9, and all in one process.
 *
 *   FREE --start--> ASLEEP <--turn--> AWAKE --stop or death--> (master: hd_member_reap)
 * FREE
 *
 * A turn is what a loop does between two waits. Within a turn a member may use what it
 * read from a slot; hd_turn_begin says so to the writers, hd_turn_sleep takes it back.
 * Whoever has no loop (a test, a tool) begins and ends turns by hand.
 */
#pragma once
#include "core/base/hd_err.h"

struct hd_state_s;
struct hd_arena_s;

#define HD_MEMBERS_MAX                                                                   \
    80 /* 64 workers, 8 draining ones, agents, loaders, control, spare */

typedef enum {
    HD_MEMBER_NONE = 0,
    HD_MEMBER_MASTER,
    HD_MEMBER_WORKER,
    HD_MEMBER_AGENT,
    HD_MEMBER_LOADER,
    HD_MEMBER_CONTROL,
    HD_MEMBER_TOOL,
} hd_member_kind_t;

typedef struct hd_member_s hd_member_t;

/* Takes row <index> of <state> (the master assigns it; -1: the first free one) for this
 * thread of control. The handle is private memory; destroy it with hd_member_stop. NULL:
 * <err>. */
hd_member_t *hd_member_start(struct hd_state_s *state, int index, hd_member_kind_t kind,
                             hd_err_t *err) HD_MUST_CHECK;
/* Destroys the companions, ends being a writer, gives the row back. Pins and gauge rows
 * must be 0 by then (asserted in debug builds; otherwise taken back as at a death). */
void hd_member_stop(hd_member_t *m);
/* The same in the midst of its work: pins and gauge rows are taken back as at a death. */
void hd_member_break_off(hd_member_t *m);

int hd_member_index(const hd_member_t *m);
hd_member_kind_t hd_member_kind(const hd_member_t *m);
struct hd_state_s *hd_member_state(const hd_member_t *m);

/* The arenas this member reads (it may be writer of one of them). At most HD_ARENAS_MAX.
 */
void hd_member_add_arena(hd_member_t *m, struct hd_arena_s *arena);

/* Announces the writers' sequence numbers (one seq_cst store an arena), then lets go of
 * the companions of regions that retired since. O(arenas) when nothing was published. */
void hd_turn_begin(hd_member_t *m);
/* Says "asleep": nothing read before may be used any more. Before every wait. */
void hd_turn_sleep(hd_member_t *m);

/* Has row <index> an owner? */
bool hd_member_is_there(const struct hd_state_s *state, int index);

/* By the supervisor, after the process of row <index> ended by any means: zeroes its
 * pins, subtracts its gauge rows from the shared totals, frees its reservations. Counters
 * stay, for the replacement inherits the row. Idempotent: a reaper may itself die and be
 * run again. */
void hd_member_reap(struct hd_state_s *state, int index);
