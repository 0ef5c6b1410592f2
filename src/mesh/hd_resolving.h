/* hd_resolving: names that requests bring along (`proxy_pass http://$host`), behind
 * core/net/hd_resolve.h's table.
 *
 *   worker: not in the shared table -> asks the agent, parks the request
 *   agent:  DNS -> a piece of the shared table (HD_RES_POLICY "names N"), ring
 *   worker: ring -> those that wait look again
 *
 * An answer counts for its TTL (or valid=); then the next request asks anew, and waits
 * for a while only, if the old one is at hand. Bounded: names in the table (the oldest
 * go), requests that wait in a worker, and for how long.
 */
#pragma once
#include "core/net/hd_resolve.h"

#define HD_RESOLVING_WAITS_MAX 1024 /* requests, a worker */
#define HD_RESOLVING_PIECES 64
#define HD_RESOLVING_PIECE_MAX 64 /* names a piece of the table */

extern const hd_resolving_t hd_mesh_resolving;

void hd_resolving_register(void); /* at process start: worker's and agent's parts */
