/* hd_dns: names to addresses or SRV records, by c-ares, in the agent's process: nothing
 * blocks, one question at a time for a name, asked again by the TTL or in a fixed rhythm.
 * While DNS is down (time-outs, SERVFAIL, REFUSED) the last answer stays; NXDOMAIN is an
 * answer.
 *
 *   (get) -> asked -> known <-> asked again … -> (nobody holds it, forget) -> gone
 */
#pragma once
#include "core/net/hd_addr.h"
#include "core/net/hd_loop.h"
#include "mesh/hd_dns_srv.h"

typedef struct hd_dns_s hd_dns_t;

#define HD_DNS_SERVERS_MAX 8
#define HD_DNS_REFRESH_MS 5000

/* How a name is resolved; the same name is another one with other settings. All zero: by
 * the system's servers, both families, every HD_DNS_REFRESH_MS. */
typedef enum {
    HD_DNS_ALL = 0,
    HD_DNS_AUTO, /* IPv6; IPv4 if there are none */
    HD_DNS_V4_PREFERRED,
    HD_DNS_V4_ONLY,
    HD_DNS_V6_ONLY,
} hd_dns_family_t;

typedef struct {
    hd_addr_t servers[HD_DNS_SERVERS_MAX]; /* port 0: 53 */
    uint32_t servers_n;                    /* 0: the system's */
    bool is_fallback;                      /* <servers> only when the system names none */
    bool uses_tcp;
    bool has_no_search; /* no search domains */
    bool has_no_files;  /* nor /etc/hosts: DNS alone, the servers in turn */
    bool is_logical;    /* the first address counts; an empty answer takes nothing away */
    bool is_srv;        /* SRV records are asked for */
    bool is_once;       /* asked by hd_dns_ask alone, not again by itself */
    hd_dns_family_t family;
    bool respects_ttl;       /* 0 in an answer: <refresh_ms> */
    uint32_t refresh_ms;     /* 0: HD_DNS_REFRESH_MS */
    uint32_t jitter_ms;      /* at most so much later */
    uint32_t failure_ms;     /* after a failure, doubled with each; 0: <refresh_ms> */
    uint32_t failure_max_ms; /* 0: 10 * failure_ms */
} hd_dns_conf_t;

/* <changed>: some name has another answer than before (or its first), or one of is_once
 * an answer or a failure. NULL: <err>. */
hd_dns_t *hd_dns_create(hd_loop_t *loop, void (*changed)(void *arg), void *arg,
                        hd_err_t *err);
void hd_dns_destroy(hd_dns_t *d);

/* Numbers as nginx logs them: DNS's, and of a time-out. */
typedef enum {
    HD_DNS_OK = 0,
    HD_DNS_BAD_QUERY = 1,
    HD_DNS_SERVER_FAILED = 2,
    HD_DNS_NO_NAME = 3, /* there is none, or none of the kind asked for: an answer */
    HD_DNS_REFUSED = 5,
    HD_DNS_TIMED_OUT = 110,
} hd_dns_failure_t;
const char *hd_dns_failure_text(hd_dns_failure_t failure);

typedef struct {
    const hd_addr_t *addrs; /* sorted, ports 0; good until the next change */
    uint32_t n;
    const hd_addr_t *first; /* in DNS's own order; NULL: there is none */
    const hd_srv_t *srvs;   /* of is_srv, in the answer's order */
    uint32_t srvs_n;
    bool is_known; /* answered or failed at least once: there is no sense in waiting */
    hd_dns_failure_t failure; /* of the last question */
    uint64_t answered_ns;     /* or failed; 0: not yet */
    uint64_t until_ns;        /* the answer counts until then; of is_once */
} hd_dns_answer_t;

/* What is known now; the first call for a name asks. NULL <conf>: all zero. Its servers
 * can't be used: an answer that is known and empty, and a line in the log. */
hd_dns_answer_t hd_dns_get(hd_dns_t *d, hd_str_t host, const hd_dns_conf_t *conf);
/* Asks now, unless it is being asked. */
void hd_dns_ask(hd_dns_t *d, hd_str_t host, const hd_dns_conf_t *conf);
/* The names that one user holds. */
typedef struct {
    struct hd_dns_name_s **items;
    uint32_t n;
} hd_dns_names_t;
void hd_dns_names_add(hd_dns_t *d, hd_dns_names_t *held, hd_str_t host,
                      const hd_dns_conf_t *conf);
void hd_dns_names_clear(hd_dns_names_t *held);
/* Names that nobody holds are forgotten, and asked for no more. */
void hd_dns_forget(hd_dns_t *d);
size_t hd_dns_count(const hd_dns_t *d);
