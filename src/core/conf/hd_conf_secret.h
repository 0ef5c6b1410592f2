/* hd_conf_secret: certificates, keys, roots and revocation lists out of files, as
 * HD_RES_SECRET resources of the batch being built; each distinct set of files once. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/net/hd_tls.h"

/* The issuer's responder is asked about <cert>, and its answer stapled. */
typedef struct {
    hd_str_t responder; /* URL; empty: the certificate says */
    hd_str_t trust;     /* path: issuers, and roots that answers are verified by */
    bool verifies;
} hd_conf_stapling_t;

/* Absolute paths; empty: none. <cert> and <key> may be "data:" and the text itself. */
typedef struct {
    hd_str_t cert, key;          /* both or none */
    hd_str_t passwords;          /* of the key, or of keys read later; a line each */
    hd_str_t ocsp;               /* DER: what is stapled to the certificate, or … */
    const hd_conf_stapling_t *stapling; /* … who is asked for it; NULL: nobody */
    hd_str_t trust, crls;        /* roots to verify peers by */
    const hd_str_t *ticket_keys; /* nginx's files of 48 or 80 bytes */
    uint32_t ticket_keys_n;
    hd_str_t more_trust; /* further roots, which clients aren't told of */
} hd_conf_secret_t;

/* Reads and checks the files. The error names the file and what is wrong with it. */
hd_rc_t hd_conf_secret_slot(hd_conf_t *cf, const hd_conf_secret_t *files,
                            const hd_slot_t **slot, hd_err_t *err) HD_MUST_CHECK;
/* The text of a file that is no secret, in cf->pool. */
hd_rc_t hd_conf_read_text(hd_conf_t *cf, hd_str_t path, const char *what, hd_str_t *text,
                          hd_err_t *err) HD_MUST_CHECK;
/* The certificate in a file can be shown by these settings. */
hd_rc_t hd_conf_check_cert(hd_conf_t *cf, hd_str_t path, const hd_tls_conf_t *tls,
                           bool is_server, hd_err_t *err) HD_MUST_CHECK;
