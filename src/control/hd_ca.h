/* hd_ca: the mesh's certificate authority: a root made by ourselves and kept on disk, or
 * the one that the user put there, and workload certificates signed by it (X.509-SVID §4,
 * §5).
 *
 * DIR/root-cert.pem, DIR/root-key.pem (0600), made at the first start: EC P-256, ten
 * years. Of several certificates in root-cert.pem the first is the one that signs, the
 * others are trusted as well: how one root follows another. A certificate holds what the caller's verified identity is, never what the CSR
 * asks for: of the CSR only the key is taken, after its signature was checked. In the
 * control process only.
 *
 * Elsewhere: who has which identity (hd_tokens.h), the gRPC service (hd_ca_service.c).
 */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

typedef struct hd_ca_s hd_ca_t;

#define HD_CA_TTL_MAX_S (90 * 86400)
#define HD_CA_TTL_DEFAULT_S 86400
#define HD_CA_TTL_MIN_S 60

/* Opens or makes the root in <dir>. NULL: <err> names the file and what is wrong with it.
 */
hd_ca_t *hd_ca_open(hd_str_t dir, hd_str_t trust_domain, hd_err_t *err) HD_MUST_CHECK;
void hd_ca_close(hd_ca_t *ca);
/* Takes up files that were replaced; if they can't be, the log says why, and what was in
 * force stays. */
void hd_ca_renew(hd_ca_t *ca);
hd_str_t hd_ca_root_pem(const hd_ca_t *ca); /* lives until the next hd_ca_renew */

/* A leaf for <spiffe_id>, valid from a minute ago for <ttl_s> (0: the default; cut to the
 * limits). PEM into <pool>. HD_ERROR: the CSR is malformed, too large (16 KB), its
 * signature is wrong, or its key is too weak (RSA below 2048 bits, curves other than
 * P-256, P-384, Ed25519). */
hd_rc_t hd_ca_sign(hd_ca_t *ca, hd_str_t csr_pem, hd_str_t spiffe_id, uint64_t ttl_s,
                   hd_pool_t *pool, hd_str_t *leaf_pem, hd_err_t *err) HD_MUST_CHECK;
