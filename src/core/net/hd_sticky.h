/* hd_sticky: sessions that stay with a server (nginx's `sticky`): settings, as data in a
 * cluster's region, and the table of sessions that `sticky learn` keeps.
 *
 * A server is known by its route: `route=`, else the MD5 of its address, as in nginx.
 * What a request asks for and what the table holds is the route's hash.
 *
 * The table lies in a cell of the state arena: all workers read and write it, nobody
 * locks. An entry is claimed by its key (one CAS), then filled; what a dead worker left
 * half-way is taken over once it is old. A full bucket gives up its oldest session.
 */
#pragma once
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"
#include "core/net/hd_addr.h"

typedef enum { HD_STICKY_COOKIE, HD_STICKY_ROUTE, HD_STICKY_LEARN } hd_sticky_kind_t;

struct hd_expr_s;
typedef struct hd_sessions_s hd_sessions_t;

#define HD_STICKY_EXPIRES_NONE (-1)
#define HD_STICKY_EXPIRES_MAX INT64_MAX
#define HD_ROUTE_MAX 32 /* bytes of `route=` */

typedef struct hd_sticky_s {
    uint8_t kind; /* hd_sticky_kind_t */
    /* cookie */
    hd_str_t cookie, path; /* the cookie's name; path empty: none */
    int64_t expires_s;
    const struct hd_expr_s *domain, *samesite; /* NULL: none */
    bool httponly, secure;
    /* route, learn: the first that isn't empty counts */
    const struct hd_expr_s *const *lookup, *const *create;
    uint32_t lookup_n, create_n;
    hd_sessions_t *sessions; /* NULL (tests, -t): none are kept */
    uint32_t timeout_ms;     /* of a session that nobody uses */
    bool at_head;            /* learnt with the response's head, else at its end */
} hd_sticky_t;

uint64_t hd_sticky_hash(hd_str_t route); /* never 0 */
/* The route of a server that has none of its own: hexadecimal, in <pool>. */
hd_str_t hd_sticky_route(hd_pool_t *pool, const hd_addr_t *addr);

/* Of a cell of zeroed memory; repeating it is harmless. Which keys share a bucket is as
 * good as random, by <seed>. */
void hd_sessions_init(hd_sessions_t *t, size_t bytes, uint64_t seed);
/* The route's hash; 0: there is no such session, or it is too old. */
uint64_t hd_sessions_find(hd_sessions_t *t, hd_str_t id, uint64_t now_ms,
                          uint32_t timeout_ms);
/* It was used with that route just now; one that isn't there is made if <creates>. */
void hd_sessions_put(hd_sessions_t *t, hd_str_t id, uint64_t route, bool creates,
                     uint64_t now_ms);
