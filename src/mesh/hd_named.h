/* hd_named: a file's clusters whose servers are names (`server NAME resolve`). The loader
 * puts beside the cluster what is to be asked; the agent asks DNS, and publishes the
 * endpoints into its own arena under hd_cluster_t.resolved.
 *
 *   files arena:    cluster --resolved--> (name)          HD_RES_POLICY "servers of NAME"
 *   dynamic arena:                        HD_RES_ENDPOINTS "NAME's servers" <--agent--'
 *
 * Endpoints are published when all names are answered or failed (at first: when there is
 * anybody); later answers replace them; while DNS is down the last ones stay.
 */
#pragma once
#include "core/net/hd_resolve.h"
#include "mesh/hd_dns.h"
#include "mesh/hd_table.h"

typedef struct {
    hd_str_t host;      /* asked for; empty: like.addr is the address */
    uint16_t port;      /* of its addresses */
    bool is_srv;        /* <host> has SRV records, with ports and weights of their own */
    hd_endpoint_t like; /* what all its endpoints have */
} hd_named_server_t;

/* Root of the resource; data in its region. */
typedef struct {
    hd_str_t resolved;
    const hd_named_server_t *servers;
    uint32_t servers_n;
    hd_resolver_t resolver;
    hd_table_spec_t table;
    bool is_sticky;    /* servers have routes */
    bool is_load_read; /* requests under way are read by the choice of a server */
    bool is_counted;   /* as by hd_endpoints_count */
} hd_named_t;

#define HD_NAMED_PREFIX "servers of "

/* How hd_dns is to ask, where a file says so; without servers: as the system does. */
hd_dns_conf_t hd_named_dns_conf(const hd_resolver_t *r);

void hd_named_register(void); /* at process start: the agent's part */
