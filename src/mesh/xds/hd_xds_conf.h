/* hd_xds_conf: `xds { … }`: where the agent gets its configuration and its certificate.
 * Data in the region "main"; the agent copies what it needs. */
#pragma once
#include "core/hd_module.h"

typedef struct {
    const hd_slot_t *cluster; /* NULL: not given */
    hd_str_t host;            /* as configured: authority, and the name to verify */
    bool tls;
} hd_xds_server_t;

typedef struct {
    hd_xds_server_t server, ca;
    hd_str_t server_name;   /* instead of the host; empty: the host */
    const hd_slot_t *roots; /* HD_RES_SECRET: to verify servers by */
    hd_str_t node;          /* encoded envoy.config.core.v3.Node */
    hd_str_t node_id, cluster_id;
    hd_str_t local_cluster; /* that we belong to, for zone-aware routing; empty: none */
    hd_str_t region, zone, subzone; /* where we are */
    hd_str_t identity; /* spiffe://…, for the certificate */
    hd_str_t token_path, snapshot_path;
    uint64_t cert_ttl_ms;
    uint64_t ready_timeout_ms; /* not in <hash>: it changes no call */
    uint32_t protocol;         /* hd_xds_protocol_t */
    uint64_t hash;             /* of all above; 0: there is no xds block */
} hd_xds_conf_t;

typedef enum { HD_XDS_DELTA, HD_XDS_SOTW } hd_xds_protocol_t;

extern const hd_module_t hd_xds_module;
