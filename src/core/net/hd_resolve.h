/* hd_resolve: names that are looked up while requests wait: what http and stream ask
 * without knowing who asks DNS (src/mesh fills the table; the agent alone asks).
 *
 *   find -> OK | ERROR | AGAIN: waits -> <wake> is posted, now and then in vain -> find …
 *
 * A wait is embedded in its owner and ends with an answer, an error, its time, or stop.
 */
#pragma once
#include "core/base/hd_list.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_loop.h"

#define HD_RESOLVER_SERVERS_MAX 8

/* nginx's resolver and resolver_timeout; data in a region, flat: it may be copied. */
typedef struct hd_resolver_s {
    hd_addr_t servers[HD_RESOLVER_SERVERS_MAX]; /* IP addresses */
    uint32_t servers_n; /* 0: there is no resolver; who looks a name up all the same, asks
                           the system's */
    uint32_t valid_ms;                          /* instead of answers' TTL; 0: the TTL */
    uint32_t timeout_ms;                        /* how long a request waits */
    bool no_ipv4, no_ipv6;
    uint64_t id; /* of whom is asked and how: answers of others aren't its */
} hd_resolver_t;

/* Zeroed at first. */
typedef struct hd_resolve_wait_s {
    hd_post_t *_wake;
    hd_link_t _link;
    uint64_t _asked_ns, _until_ns, _hash;
    hd_str_t _host;
    const hd_resolver_t *_resolver; /* NULL: waits for a cluster */
    bool _is_waiting, _is_asker;
} hd_resolve_wait_t;

typedef struct {
    /* The addresses of <host> (ports 0), good in this turn. HD_AGAIN: <w> waits; <host>,
     * <r> and <w> stay in place until it doesn't. HD_ERROR: <err>, in nginx's words. */
    hd_rc_t (*find)(hd_loop_t *loop, const hd_resolver_t *r, hd_str_t host,
                    hd_resolve_wait_t *w, hd_post_t *wake, const hd_addr_t **addrs,
                    uint32_t *n, hd_err_t *err);
    /* Until the endpoints of <c>, whose servers are names, are known for the first time,
     * or <timeout_ms> is over: HD_OK, whatever is known then. */
    hd_rc_t (*wait_for)(hd_loop_t *loop, const hd_cluster_t *c, hd_resolve_wait_t *w,
                        hd_post_t *wake);
    /* Harmless when it doesn't wait. */
    void (*stop)(hd_resolve_wait_t *w);
} hd_resolving_t;

/* Set at process start; NULL (tests, tools): names can't be looked up. */
extern const hd_resolving_t *hd_resolving;

/* HOST[:PORT], where HOST is no literal address, into its parts. False: it is none. */
bool hd_resolve_split(hd_str_t text, uint16_t default_port, hd_str_t *host,
                      uint16_t *port) HD_MUST_CHECK;
/* <addrs> with <port>, copied. */
const hd_addr_t *hd_resolve_take(hd_pool_t *pool, const hd_addr_t *addrs, uint32_t n,
                                 uint16_t port);
