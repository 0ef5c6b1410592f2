/* hd_dns_srv: SRV records with their TTLs, from a DNS answer as it came (RFC 1035 4.1,
 * RFC 2782). Hostile bytes: nothing outside of the answer is read, and a name's pointers
 * only lead backwards. */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_str.h"

#define HD_SRV_MAX 256
#define HD_DNS_NAME_MAX 254 /* as text, without the last dot, and a zero */

typedef struct {
    uint16_t priority, weight, port;
    uint32_t ttl; /* seconds; the least one of the record and the CNAMEs before it */
    char target[HD_DNS_NAME_MAX]; /* zero-terminated, in lower case; never empty */
} hd_srv_t;

/* The SRV records of <answer>'s answer section, in its order, into <out> (room for
 * HD_SRV_MAX). A target of "." says that there is no such service: left out. Labels with
 * other bytes than letters, digits, '-' and '_' can't be hosts: left out, too.
 * HD_ERROR: malformed, truncated (TC), no answer, or too many; <err>. */
hd_rc_t hd_dns_read_srv(hd_str_t answer, hd_srv_t *out, uint32_t *n,
                        hd_err_t *err) HD_MUST_CHECK;
