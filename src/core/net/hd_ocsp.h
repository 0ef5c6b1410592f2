/* hd_ocsp: has a certificate been revoked? What its issuer's responder is asked and what
 * its answer is worth (RFC 6960, RFC 5019). Nothing is sent from here: src/mesh fills
 * hd_ocsp_fetcher.
 *
 * An answer counts only if it was signed by the certificate's issuer, or by whom that
 * issuer has made a responder, and is about this certificate and this time.
 */
#pragma once
#include "core/loom/hd_slot.h"
#include "core/net/hd_loop.h"
#include "core/net/hd_resolve.h"

#define HD_OCSP_ANSWER_MAX 16384 /* bytes */
#define HD_OCSP_TIMEOUT_MS 10000 /* of a question as a whole: names, connecting, all */
#define HD_OCSP_REFRESH_S 3600   /* an answer isn't relied on for longer */
#define HD_OCSP_SKEW_S 300       /* how far the responder's clock may be off */

/* --- one certificate --- */

typedef struct hd_ocsp_s hd_ocsp_t; /* a certificate that is asked about */

/* Of texts: <chain_pem> is the leaf and what may be its issuer. <trust_pem>: more that
 * may be, and the roots where <verifies>: then an answer's signer needs a path to one of
 * them; else the leaf's issuer is enough. NULL: <err>: HD_E_CONF: its issuer isn't there;
 * else what is damaged. */
hd_ocsp_t *hd_ocsp_create(hd_str_t chain_pem, hd_str_t trust_pem, bool verifies,
                          hd_err_t *err);
void hd_ocsp_destroy(hd_ocsp_t *o);
/* These are lent by <o>. */
hd_str_t hd_ocsp_responder(const hd_ocsp_t *o); /* the certificate's own; empty: none */
hd_str_t hd_ocsp_request(const hd_ocsp_t *o);   /* DER */
/* SHA-256 of the certificate. */
const uint8_t *hd_ocsp_fingerprint(const hd_ocsp_t *o);

typedef enum { HD_OCSP_GOOD, HD_OCSP_REVOKED, HD_OCSP_UNKNOWN } hd_ocsp_status_t;

typedef struct {
    hd_ocsp_status_t status;
    int64_t this_s; /* Unix times: since when it is so */
    int64_t next_s; /* when there will be a newer answer; 0: that isn't said */
} hd_ocsp_answer_t;

/* HD_ERROR: <err>: <der> is no answer, or none that counts at <now_s>. */
hd_rc_t hd_ocsp_judge(const hd_ocsp_t *o, hd_str_t der, int64_t now_s,
                      hd_ocsp_answer_t *answer, hd_err_t *err) HD_MUST_CHECK;

/* --- asking --- */

/* Of http://HOST[:PORT][/PATH]; slices of the text. */
typedef struct {
    hd_str_t authority, host; /* host: without [] */
    uint16_t port;
    hd_str_t path; /* begins with '/' */
} hd_ocsp_url_t;

hd_rc_t hd_ocsp_parse_url(hd_str_t text, hd_ocsp_url_t *url, hd_err_t *err) HD_MUST_CHECK;

/* Copied, but for the slot. */
typedef struct {
    const hd_slot_t *cluster; /* hd_conf_cluster->any_slot's */
    hd_str_t url;
    hd_resolver_t resolver; /* servers_n 0: the system's */
    hd_str_t request;
} hd_ocsp_ask_t;

typedef struct hd_ocsp_fetch_s hd_ocsp_fetch_t; /* a question under way */

typedef struct {
    /* Starts, in a turn. <done> comes later and once, with the answer's body, lent, or
     * <err>; then the fetch is gone. NULL: <err>. */
    hd_ocsp_fetch_t *(*start)(hd_loop_t *loop, const hd_ocsp_ask_t *ask,
                              void (*done)(void *arg, hd_str_t der, const hd_err_t *err),
                              void *arg, hd_err_t *err);
    void (*cancel)(hd_ocsp_fetch_t *f); /* <done> doesn't come; it is gone */
} hd_ocsp_fetcher_t;

/* Set at process start; NULL (tests, tools): nobody can be asked. */
extern const hd_ocsp_fetcher_t *hd_ocsp_fetcher;

/* --- clients' certificates --- */

/* How a server asks about them, between the handshake and its end; data in a region. */
typedef struct hd_tls_ocsp_s {
    bool leaf_only;           /* else all of the path but the root */
    hd_str_t responder;       /* URL, for all; empty: each certificate's own */
    hd_resolver_t resolver;   /* servers_n 0: the system's */
    const hd_slot_t *cluster; /* hd_conf_cluster->any_slot's */
    hd_str_t zone; /* a cell of hd_tls_cache (hd_tls_make_zone) with answers that workers
                      share; empty: none are kept */
    uint32_t zone_bytes;
} hd_tls_ocsp_t;

/* --- stapling: loader -> agent -> workers --- */

/* Root of the files arena's HD_RES_POLICY "staple of SECRET": the agent's task; data in
 * its region. */
#define HD_STAPLING_PREFIX "staple of "
typedef struct {
    hd_str_t staple; /* the name under which the answer is published */
    hd_str_t label;  /* of the certificate, for messages */
    hd_str_t chain_pem, trust_pem;
    bool verifies;
    hd_str_t url;
    hd_resolver_t resolver;
    const hd_slot_t *cluster;
} hd_stapling_t;

/* Root of the dynamic arena's HD_RES_POLICY of that name: the agent's answer. */
#define HD_STAPLE_PREFIX "staple for "
typedef struct {
    hd_str_t der;
    uint8_t fingerprint[32]; /* hd_ocsp_fingerprint's: of the certificate it is about */
    int64_t fetched_s, until_s;
} hd_staple_t;
