/* What of hd_ocsp deals in OpenSSL's own types: for hd_tls*.c. */
#pragma once
#include "core/net/hd_ocsp.h"
#include <openssl/x509.h>

/* Of parts, which get a reference more each; <others> may be NULL. A responder's signer
 * needs a path by <others> to something in <store>. */
hd_ocsp_t *hd_ocsp_create_of(X509 *cert, X509 *issuer, X509_STORE *store,
                             STACK_OF(X509) * others);
