/* hd_dns: names to addresses, by c-ares, in the agent's process: nothing blocks, one
 * question at a time for a name, asked again by the TTL or in a fixed rhythm. While DNS
 * is down (time-outs, SERVFAIL, REFUSED) the last answer stays; NXDOMAIN is an answer. */
#pragma once
#include "core/net/hd_addr.h"
#include "core/net/hd_loop.h"

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
    hd_dns_family_t family;
    bool respects_ttl;       /* 0 in an answer: <refresh_ms> */
    uint32_t refresh_ms;     /* 0: HD_DNS_REFRESH_MS */
    uint32_t jitter_ms;      /* at most so much later */
    uint32_t failure_ms;     /* after a failure, doubled with each; 0: <refresh_ms> */
    uint32_t failure_max_ms; /* 0: 10 * failure_ms */
} hd_dns_conf_t;

/* <changed>: some name has another answer than before (or its first). NULL: <err>. */
hd_dns_t *hd_dns_create(hd_loop_t *loop, void (*changed)(void *arg), void *arg,
                        hd_err_t *err);
void hd_dns_destroy(hd_dns_t *d);

typedef struct {
    const hd_addr_t *addrs; /* sorted, ports 0; good until the next change */
    uint32_t n;
    bool is_known; /* answered or failed at least once: there is no sense in waiting */
} hd_dns_answer_t;

/* What is known now; the first call for a name asks. NULL <conf>: all zero. Its servers
 * can't be used: an answer that is known and empty, and a line in the log. */
hd_dns_answer_t hd_dns_get(hd_dns_t *d, hd_str_t host, const hd_dns_conf_t *conf);
/* Names not asked for since <before_ns> are forgotten. */
void hd_dns_forget(hd_dns_t *d, uint64_t before_ns);
