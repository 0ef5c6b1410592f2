/* hd_proxy_protocol: the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt):
 * a line or a binary head in front of a conn that tells where it came from. Whoever sends
 * it is believed, so a listener reads it only where its configuration says so. */
#pragma once
#include "core/net/hd_conn.h"

#define HD_PROXY_HEAD_MAX 16384 /* a head with its TLVs; longer ones are refused */

typedef struct {
    size_t len; /* bytes of the head */
    uint8_t version;
    bool is_local; /* no addresses: a health check of the proxy itself, or UNKNOWN */
    hd_addr_t remote, local; /* source and destination; unix paths lie in the bytes */
    hd_str_t tlvs;           /* version 2; well-formed, see hd_proxy_next_tlv */
} hd_proxy_head_t;

enum {
    HD_PROXY_TLV_ALPN = 0x01,
    HD_PROXY_TLV_AUTHORITY = 0x02,
    HD_PROXY_TLV_CRC32C = 0x03,
    HD_PROXY_TLV_NOOP = 0x04,
    HD_PROXY_TLV_UNIQUE_ID = 0x05,
    HD_PROXY_TLV_SSL = 0x20, /* a byte, whether the client's certificate was good (0) in
                                four, then TLVs */
    HD_PROXY_TLV_NETNS = 0x30,
    HD_PROXY_TLV_PRINCIPAL = 0xd0, /* ztunnel's: the source's SPIFFE id */
    HD_PROXY_TLV_HOSTNAME = 0xd1,
};

/* HD_OK: *head; HD_AGAIN: more bytes are needed; HD_DECLINED: no PROXY head; HD_ERROR: a
 * broken one, <err>. */
hd_rc_t hd_proxy_parse(hd_str_t bytes, hd_proxy_head_t *head,
                       hd_err_t *err) HD_MUST_CHECK;
/* Takes the next TLV off <*rest>, which begins as head->tlvs; false: none is left. */
bool hd_proxy_next_tlv(hd_str_t *rest, uint8_t *type, hd_str_t *value);
/* The value of the first TLV that nginx's $proxy_protocol_tlv_<name> names: one of those
 * above or a number as 0xNN, of the SSL TLV also ssl_version, ssl_cn, ssl_cipher,
 * ssl_sig_alg, ssl_key_alg and ssl_verify (printed, in <pool>). False: it isn't there. */
bool hd_proxy_find_tlv(hd_str_t tlvs, hd_str_t name, hd_pool_t *pool, hd_str_t *value);

/* Writes a head of <version> 1 or 2 for <remote> and <local> (other families than IP:
 * UNKNOWN or LOCAL), with <tlvs> as they are (version 2). Bytes; 0: no room. */
size_t hd_proxy_print(uint8_t version, const hd_addr_t *remote, const hd_addr_t *local,
                      hd_str_t tlvs, char *out, size_t room);
/* Pushes a layer onto an upstream conn (right after hd_conn_connect, before TLS) that
 * sends such a head before anything else. */
hd_rc_t hd_proxy_push(hd_conn_t *c, uint8_t version, const hd_addr_t *remote,
                      const hd_addr_t *local, hd_str_t tlvs, hd_err_t *err) HD_MUST_CHECK;
