/* hd_clients: how many conns and requests of clients there are and were, over all
 * processes: nginx's stub_status and $connections_…. Each process writes its share into
 * series of the shared state, where scrapes find them, too.
 */
#pragma once
#include "core/loom/hd_series.h"

typedef enum {
    HD_CLIENTS_ACTIVE,  /* conns that are open */
    HD_CLIENTS_READING, /* of these: a request's head is being read */
    HD_CLIENTS_WRITING, /* requests between head and end of their answer */
    HD_CLIENTS_STATES
} hd_clients_state_t;

/* At the start of a process that serves clients; until then nothing is counted. */
void hd_clients_start(hd_member_t *m);
void hd_clients_accepted(void); /* another conn: counts it active, too */
void hd_clients_requested(void);
void hd_clients_reused(uint64_t n); /* idle conns that gave their places up */
void hd_clients_enter(hd_clients_state_t state);
void hd_clients_leave(hd_clients_state_t state);

typedef struct {
    uint64_t accepted, requests; /* since the start; who died counts */
    uint64_t now[HD_CLIENTS_STATES];
} hd_clients_t;
void hd_clients_sum(hd_clients_t *sum);
/* Conns in which nothing happens: nginx's "Waiting". */
uint64_t hd_clients_waiting(const hd_clients_t *c);
