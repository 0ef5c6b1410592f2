/* hd_gauge: a count that goes up and down, exact over all members, with or without a
 * limit. ◆
 *
 * The truth is a row a member ([member][gauge]) that only this member writes. A shared
 * total on a cache line of its own exists only where somebody must read it on a request's
 * way: a finite limit, or least-request. A try-acquire is one compare-and-swap on the
 * total, so that a limit is never overshot. At a death hd_member_reap takes the row out
 * of the total; a step that was in only one of the two is found and healed at once or by
 * hd_gauge_heal within a second.
 *
 * Order of stores: up: total first, then row; down: row first, then total. So a death in
 * between leaves the total too high, never too low, until healed. A member says which
 * gauge it is stepping before it steps, so that healing never mistakes a step under way
 * for a lost one, however long its thread waits for a CPU.
 */
#pragma once
#include "core/loom/hd_state.h"

#define HD_GAUGE_NONE 0u
#define HD_GAUGE_NO_LIMIT UINT32_MAX

typedef uint32_t hd_gauge_id_t; /* index into the rows; 0 is none */

/* By a writer: <n> neighbouring gauges under a name, found or made; HD_GAUGE_NONE: no
 * room. They live until dropped; the name is usually a slot's. */
hd_gauge_id_t hd_gauge_get(hd_member_t *m, hd_str_t name, uint32_t n);
/* The same for those that belong to a cell, under its kind and name (hd_state.h), and go
 * with it. */
hd_gauge_id_t hd_cell_gauges(hd_member_t *m, uint32_t kind, hd_str_t name, uint32_t n);
void hd_gauge_drop(hd_member_t *m, hd_str_t name); /* freed once all rows are 0 */
/* Gives the gauge a shared total (or takes it away); by its writer. The total is summed
 * from the rows, then kept. */
void hd_gauge_share(hd_member_t *m, hd_gauge_id_t id, bool shared);

/* Up by one unless the total has reached <limit>. Without a shared total it always
 * succeeds. */
bool hd_gauge_try_up(hd_member_t *m, hd_gauge_id_t id, uint32_t limit) HD_MUST_CHECK;
void hd_gauge_up(hd_member_t *m, hd_gauge_id_t id);
void hd_gauge_down(hd_member_t *m, hd_gauge_id_t id);

uint32_t hd_gauge_read(hd_member_t *m,
                       hd_gauge_id_t id); /* the total, or the sum of rows */
uint32_t hd_gauge_sum(hd_state_t *state,
                      hd_gauge_id_t id); /* of rows: slow, exact at rest */
/* Compares all shared totals with their rows and corrects those that differ while nobody
 * is stepping them. Once a second, by the agent. Returns corrections made. */
size_t hd_gauge_heal(hd_member_t *m);
