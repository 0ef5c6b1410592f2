/* hd_dns: names to addresses, by c-ares, in the agent's process: nothing blocks, one
 * question a name, answers kept while they are asked for, by their TTL. While DNS is down
 * the last answer stays. */
#pragma once
#include "core/net/hd_addr.h"
#include "core/net/hd_loop.h"

typedef struct hd_dns_s hd_dns_t;

/* <changed>: some name has another answer than before (or its first). NULL: <err>. */
hd_dns_t *hd_dns_create(hd_loop_t *loop, void (*changed)(void *arg), void *arg,
                        hd_err_t *err);
void hd_dns_destroy(hd_dns_t *d);

typedef struct {
    const hd_addr_t *addrs; /* sorted, ports 0; good until the next change */
    uint32_t n;
    bool is_known; /* answered or failed at least once: there is no sense in waiting */
} hd_dns_answer_t;

/* What is known now; the first call for a name asks. */
hd_dns_answer_t hd_dns_get(hd_dns_t *d, hd_str_t host);
/* Names not asked for since <before_ns> are forgotten. */
void hd_dns_forget(hd_dns_t *d, uint64_t before_ns);
