/* hd_addr: a socket address in few bytes: IPv4, IPv6 or a unix path; arena-safe but for
 * <path>, which must lie where the address lies. */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"
#include <sys/socket.h>

typedef struct {
    uint16_t family; /* AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: none */
    uint16_t port;   /* host order */
    uint32_t scope;
    union {
        uint8_t v4[4];
        uint8_t v6[16];
        hd_str_t path; /* a leading '@': abstract */
    };
} hd_addr_t;

typedef struct {
    hd_addr_t addr; /* port unused */
    uint8_t bits;
} hd_cidr_t;

#define HD_ADDR_TEXT_MAX 128

/* "1.2.3.4", "[::1]:80", "1.2.3.4:80", "unix:/path"; literals only, no names. Without a
 * port, <default_port>. */
hd_rc_t hd_addr_parse(hd_pool_t *pool, hd_str_t text, uint16_t default_port,
                      hd_addr_t *addr, hd_err_t *err) HD_MUST_CHECK;
/* An IP literal without a port. */
bool hd_addr_parse_ip(hd_str_t text, hd_addr_t *addr) HD_MUST_CHECK;
/* Takes the last item off <*list>, a field's value as X-Forwarded-For has it: addresses
 * with or without a port, between commas and spaces. False: there is none, or it isn't an
 * IP address. The port is 0 where none is said. */
bool hd_addr_take_last(hd_str_t *list, hd_addr_t *addr) HD_MUST_CHECK;
bool hd_cidr_parse(hd_str_t text,
                   hd_cidr_t *cidr) HD_MUST_CHECK; /* "10.0.0.0/8", "::1" */
bool hd_cidr_has(const hd_cidr_t *cidr,
                 const hd_addr_t *addr); /* v4-mapped v6 counts as v4 */
/* A v4-mapped v6 address becomes v4 itself; others stay. */
void hd_addr_unmap(hd_addr_t *a);
bool hd_addr_eq(const hd_addr_t *a, const hd_addr_t *b);
uint32_t hd_addr_hash(const hd_addr_t *a);
/* Into <out>; with the port unless it is 0. */
hd_str_t hd_addr_print(const hd_addr_t *a, char out[HD_ADDR_TEXT_MAX]);
hd_str_t hd_addr_print_ip(const hd_addr_t *a, char out[HD_ADDR_TEXT_MAX]);
socklen_t hd_addr_to_sockaddr(const hd_addr_t *a, struct sockaddr_storage *ss);
/* A unix path is lent by <sa>. */
void hd_addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, hd_addr_t *a);
/* The same address with its path, if any, in memory that lasts as long as the process
 * (each distinct one is kept once: for addresses of configuration, not of peers). */
hd_addr_t hd_addr_keep(const hd_addr_t *a);
/* 127.0.0.0/8, ::1 or a unix path. */
bool hd_addr_is_loopback(const hd_addr_t *a);
/* 0.0.0.0 or ::. */
bool hd_addr_is_any(const hd_addr_t *a);
bool hd_addr_eq_ip(const hd_addr_t *a, const hd_addr_t *b); /* whatever the ports */
