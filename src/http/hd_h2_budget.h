/* hd_h2_budget: what HTTP/2's peers may do rarely and at no cost to themselves (resets,
 * pings, settings, empty frames …), counted. Each kind has a price; a conn has a budget
 * that comes back with time and with honest work. Towards clients an address has one,
 * too, over all its conns and all workers: its bucket lies in the shared state arena, so
 * that who reconnects elsewhere goes on where it was.
 *
 * Counts of each kind are metrics: heddle_http2_glitches_total, and of conns that were
 * ended for it heddle_http2_calmed_total.
 */
#pragma once
#include "core/loom/hd_series.h"
#include "core/net/hd_addr.h"

typedef enum {
    HD_H2_RESETS,        /* RST_STREAM of the peer (rapid reset, CVE-2023-44487) */
    HD_H2_PROVOKED,      /* RST_STREAM that its fault made us send (CVE-2025-8671) */
    HD_H2_REFUSED,       /* streams beyond the number allowed */
    HD_H2_SETTINGS_SENT, /* (CVE-2019-9515) */
    HD_H2_PINGS,         /* (CVE-2019-9512) */
    HD_H2_PRIORITIES,    /* (CVE-2019-9513) */
    HD_H2_EMPTY,         /* DATA without bytes or end (CVE-2019-9518) */
    HD_H2_CONTINUATIONS, /* (CVE-2024-28182) */
    HD_H2_TINY_WINDOWS,  /* windows opened by a few bytes (CVE-2019-9511) */
    HD_H2_UNKNOWN,       /* frames of a type that nobody knows */
    HD_H2_LATE,          /* frames on streams that are over */
    HD_H2_LARGE_HEADS,   /* field sections beyond the limit, once decoded (HPACK bombs) */
    HD_H2_SLOW,          /* responses that weren't taken in time: none of the budget */
    HD_H2_KINDS
} hd_h2_kind_t;

#define HD_H2_BUDGET 1000          /* of a conn; 100 come back each second */
#define HD_H2_CLIENT_BUDGET 10000  /* of an address; a tenth comes back each second */
#define HD_H2_NO_BUDGET UINT32_MAX /* no limit */

typedef struct hd_h2_clients_s hd_h2_clients_t;
/* The addresses' buckets: by a writer of the arena made, by others found; NULL: not
 * there. Lives as long as the arena. */
hd_h2_clients_t *hd_h2_clients_get(hd_member_t *m);
/* Takes <price> of the bucket of <key>, which holds <max>; false: it is empty. Any
 * process, any time. */
bool hd_h2_clients_take(hd_h2_clients_t *t, uint64_t key, uint32_t max, uint32_t price,
                        uint64_t now_ns);
/* An address; of IPv6 its /64. 0: none that could be told from others. */
uint64_t hd_h2_client_key(const hd_addr_t *a);

typedef struct {
    hd_member_t *member;
    hd_h2_clients_t *clients; /* NULL: the conn's budget alone */
    uint64_t client_key, at_ns;
    uint32_t max, client_max;
    uint32_t left;
    uint32_t served; /* points of hd_h2_budget_serve */
    bool is_server;
} hd_h2_budget_t;

#define HD_H2_EARNED_BY_REQUEST 5 /* that ends well: a reset's price */
/* <n> times <kind>; false: a budget is used up, and the conn should end with
 * ENHANCE_YOUR_CALM. */
bool hd_h2_budget_take(hd_h2_budget_t *b, hd_h2_kind_t kind, uint32_t n, uint64_t now_ns);
/* The peer did something useful. */
void hd_h2_budget_earn(hd_h2_budget_t *b, uint32_t n);
/* The peer takes what it is sent: a frame of DATA, its window left open. gRPC's answer to
 * each, a PING and windows of just these bytes, costs neither the conn nor the address.
 */
void hd_h2_budget_serve(hd_h2_budget_t *b);
/* Counts only. */
void hd_h2_count(const hd_h2_budget_t *b, hd_h2_kind_t kind, uint32_t n);
const char *hd_h2_kind_name(hd_h2_kind_t kind);
