/* hd_xds_ca: the workload's certificate: a key made here, a request signed with it, and
 * Istio's CreateCertificate (hbone §11). What comes back is published as the secrets
 * "default" and "ROOTCA"; renewed at half of its life, and at once when the control plane
 * trusts other roots than came with it. The key never leaves the process
 * but for the loom's secret area. In the agent. */
#pragma once
#include "mesh/xds/hd_xds_peer.h"
#include "mesh/xds/hd_xds_store.h"

typedef struct hd_xca_s hd_xca_t;

/* <conf> must outlive it. Starts at once. */
hd_xca_t *hd_xca_create(hd_proc_t *p, hd_xstore_t *store, const hd_xds_conf_t *conf,
                        hd_pool_t *pool);
void hd_xca_destroy(hd_xca_t *ca);
/* What the control plane wants trusted (PEM). If that is another than came with the
 * certificate, both are asked for anew, within a second: not by all agents at once. */
void hd_xca_roots_told(hd_xca_t *ca, hd_str_t pem);

typedef struct {
    uint64_t issued, failed;
    int64_t not_after_s; /* of the certificate in force; 0: none yet */
} hd_xca_stats_t;
void hd_xca_get_stats(const hd_xca_t *ca, hd_xca_stats_t *stats);
