/* hd_listener: what is listened on and what becomes of a conn: listener filters, then the
 * choice of a filter chain, then transport, then the protocol's server (http, tcp).
 *
 * All structs here are data in a HD_RES_LISTENER region, built alike by the nginx-style
 * parser and the xDS decoders. Behaviour is a protocol number, resolved by
 * hd_protocol_get. Matching order is Envoy's: destination port, destination IP (longest
 * prefix), server name (exact, then longest suffix), transport protocol, application
 * protocols, direct source IP, source type, source IP, source port.
 *
 * A conn goes its way from accept to its protocol by the version of the listener that it
 * was accepted with, which is pinned so long; HTTP keeps that for its first request. Then
 * a conn that idles holds no pin: at each request the protocol asks hd_listener_refresh,
 * and a conn whose chain is gone, or has other TLS settings, is drained.
 */
#pragma once
#include "core/net/hd_tls.h"

typedef struct {
    uint16_t destination_port; /* 0: any */
    const hd_cidr_t *destinations;
    uint32_t destinations_n;      /* 0: any */
    const hd_str_t *server_names; /* lower case; "*.x" is a suffix, "x.*" a beginning */
    uint32_t server_names_n;
    const hd_match_t *server_regexes; /* asked behind all names, in order (nginx) */
    uint32_t server_regexes_n;
    hd_str_t transport; /* "tls", "raw_buffer"; empty: any */
    const hd_str_t *app_protocols;
    uint32_t app_protocols_n;
    const hd_cidr_t *direct_sources, *sources;
    uint32_t direct_sources_n, sources_n;
    const uint16_t *source_ports;
    uint32_t source_ports_n;
    uint8_t source_type; /* 0 any, 1 same IP or loopback, 2 external */
} hd_chain_match_t;

/* One L4 filter of a module (network rbac, metadata exchange, stats) before the protocol.
 */
typedef struct {
    hd_str_t name;
    uint16_t module; /* number in the module table */
    const void *conf;
} hd_net_filter_t;

typedef struct {
    hd_str_t name;
    hd_chain_match_t match;
    const hd_tls_conf_t *tls; /* NULL: plain */
    const hd_net_filter_t *filters;
    uint32_t filters_n;
    uint16_t protocol;         /* hd_protocol_register's number */
    const void *protocol_conf; /* http: hd_http_conf_t; tcp: hd_tcp_conf_t */
    uint32_t handshake_timeout_ms;
} hd_filter_chain_t;

enum {
    HD_LF_PROXY_PROTOCOL = 1,
    HD_LF_ORIGINAL_DST = 2,
    HD_LF_TLS_INSPECTOR = 4,
    HD_LF_HTTP_INSPECTOR = 8,
};

/* Listener filters that are off for conns to these original destination ports (Envoy's
 * filter_disabled; a NOT is written as the ranges beside it). */
typedef struct {
    uint32_t from, to; /* [from, to) */
    uint8_t filters;   /* HD_LF_… */
} hd_filters_off_t;

typedef struct hd_listener_s {
    hd_str_t name;
    const hd_region_t *region; /* its own; NULL where no chain has regexes */
    hd_addr_t addr;
    hd_socket_spec_t socket;
    const hd_socket_spec_t *more; /* of its further addresses (xDS) */
    uint32_t more_n;
    bool bind;             /* false: reached only by hand-off from another listener */
    bool use_original_dst; /* hand over to the listener that matches the original
                              destination */
    bool unmaps_v4;        /* to all, IPv4 clients of its IPv6 socket have their IPv4
                              address (Envoy), and not ::ffff:… (nginx) */
    bool hands_over_local; /* of a wildcard address: a conn to an address that another
                              listener of the port has is that one's (nginx) */
    bool is_inbound, is_outbound; /* traffic direction */
    bool bypasses_overload;       /* its new work is never refused (hd_overload.h) */
    bool continue_on_timeout;
    uint8_t filters; /* HD_LF_… */
    const hd_filters_off_t *filters_off;
    uint32_t filters_off_n;
    uint32_t filters_timeout_ms; /* of all listener filters together; 0: none */
    uint32_t conn_buffer_bytes;  /* per_connection_buffer_limit_bytes; 0: default */
    const struct hd_log_place_s
        *error_log; /* until a server is known; NULL: the program's */
    const hd_filter_chain_t *chains;
    uint32_t chains_n;
    const hd_filter_chain_t *default_chain; /* NULL: a conn that matches none is closed */
    const hd_filter_chain_t *untaken; /* whose protocol and filters are told of conns that
                                         came to no chain; NULL: the default one's */
} hd_listener_t;

/* Conns are drained in rounds, a fixed time apart, until all have ended. */
typedef struct {
    uint32_t no;       /* from 0: right behind the last accept */
    uint32_t left;     /* with this one; in each an equal share is told. 1: all, from now on
                        */
    uint32_t patience; /* so many rounds later one that is idle, and has no word for it, is
                          closed */
} hd_drain_round_t;

/* How many of <n> conns that are left are told in this round. */
static inline size_t hd_drain_share(const hd_drain_round_t *round, size_t n)
{
    return (n + round->left - 1) / round->left;
}

/* Which way a conn came in; good in this turn. */
typedef struct {
    const hd_slot_t *listener;
    const hd_region_t *version; /* of it, to be pinned: <chain> lies there. It may be
                                   older than the slot's */
    const hd_filter_chain_t *chain;
} hd_entrance_t;

/* A protocol's server. Numbers are equal in all processes of a generation, since
 * registration order is. */
typedef struct {
    const char *name;
    /* Takes an open conn: sets its handler. */
    void (*on_conn)(hd_conn_t *c, const hd_entrance_t *in);
    /* Told of a conn that goes no further, before it is closed; c->err says why, unless
     * the client left. <status> is what nginx would call it: 400 before the chain was
     * chosen (it is the default one), 500 in the handshake, 403 by a filter. May be NULL.
     */
    void (*on_refused)(hd_conn_t *c, const hd_entrance_t *in, unsigned status);
    /* A round of the graceful end: its share of this process's conns is told of it, as the
     * protocol has a word for that, and ends when it may. */
    void (*drain)(hd_loop_t *loop, const hd_drain_round_t *round);
} hd_protocol_t;

uint16_t hd_protocol_register(const hd_protocol_t *p);
const hd_protocol_t *hd_protocol_get(uint16_t number);
uint16_t hd_protocol_find(hd_str_t name); /* 0: none */

/* Between transport (the peer's identity is known) and protocol: the L4 filters, by
 * core/proc's module table. Set once; NULL: there are none. HD_OK go on, HD_AGAIN it will
 * call hd_listener_go_on, else the conn is closed. <from> is where to begin: 0, or what
 * hd_listener_go_on was told. */
extern hd_rc_t (*hd_listener_run_filters)(hd_conn_t *c, const hd_filter_chain_t *chain,
                                          uint32_t from);
/* The chain of a conn that is in its handshake or among these filters; else NULL. */
const hd_filter_chain_t *hd_listener_chain_of(const hd_conn_t *c);
void hd_listener_go_on(hd_conn_t *c,
                       uint32_t from); /* once, even if the conn has ended */

/* The chain for a conn by its facts; NULL: none. */
const hd_filter_chain_t *hd_listener_match(const hd_listener_t *l, const hd_conn_t *c);
/* In a worker: starts accepting for the listeners of its arenas whose sockets it holds,
 * and keeps in step after each batch: new ones start; a socket whose listener was removed
 * is emptied and closed. One a loop. Pauses for a while, logged once, when descriptors or
 * memory run out or <conns_max> conns are open. */
typedef struct hd_acceptor_s hd_acceptor_t;
hd_acceptor_t *hd_acceptor_create(hd_loop_t *loop, uint32_t conns_max);
void hd_acceptor_add_arena(hd_acceptor_t *a, const hd_arena_t *arena);
/* Takes a listening socket that the master opened for <addr>. <exclusive>: the processes
 * share it; else it is this one's own (SO_REUSEPORT). */
void hd_acceptor_add_fd(hd_acceptor_t *a, const hd_addr_t *addr, uint8_t type, int fd,
                        bool exclusive);
/* Those of <addr> won't have a listener any more, or never had one: they are closed. One
 * that has is closed when the listener goes. */
void hd_acceptor_drop_fds(hd_acceptor_t *a, const hd_addr_t *addr, uint8_t type);
void hd_acceptor_refresh(hd_acceptor_t *a); /* after a batch, in a turn */
void hd_acceptor_stop(hd_acceptor_t *a);    /* closes the sockets: no new conns */
void hd_acceptor_destroy(hd_acceptor_t *a);
/* The listener whose address is <to>: exactly, else the wildcard of its port; NULL: none.
 */
const hd_slot_t *hd_acceptor_find(const hd_acceptor_t *a, const hd_addr_t *to);

/* Counts of the process, for /metrics. */
typedef struct {
    uint64_t accepted, pauses, no_chain, filter_failed, filter_timeouts;
} hd_listener_stats_t;
extern hd_listener_stats_t hd_listener_stats;

/* Enters a conn as if <listener> had accepted it (internal listeners, hand-off, tests).
 * Takes the conn. */
void hd_listener_enter(hd_conn_t *c, const hd_slot_t *listener);

/* For a conn kept over turns: its slot's current chain for the same facts, or NULL when
 * it should be drained: the listener or chain is gone, or asks clients for other
 * proofs, or has another protocol. */
const hd_filter_chain_t *hd_listener_refresh(hd_conn_t *c, const hd_slot_t *listener);
