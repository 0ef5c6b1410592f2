/* hd_tls_facts: what nginx's variables tell of a handshake and of the peer's certificate,
 * in nginx's words and forms. */
#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>

#define LIST_BYTES_MAX 8192

/* --- the handshake --- */

typedef struct {
    char *to;
    size_t len, room;
} list_t;

static void add_to_list(list_t *l, const char *name, unsigned number)
{
    int n = name != NULL ? snprintf(l->to + l->len, l->room - l->len, "%s%s",
                                    l->len > 0 ? ":" : "", name)
                         : snprintf(l->to + l->len, l->room - l->len, "%s0x%04x",
                                    l->len > 0 ? ":" : "", number);

    if (n > 0 && (size_t)n < l->room - l->len) /* else cut: a whole name, or none of it */
        l->len += (size_t)n;
}

static hd_str_t print_ciphers(SSL *ssl, hd_pool_t *pool)
{
    unsigned char *raw;
    size_t bytes = SSL_get0_raw_cipherlist(ssl, &raw);
    list_t l = {hd_pool_alloc_unaligned(pool, LIST_BYTES_MAX), 0, LIST_BYTES_MAX};

    for (size_t i = 0; i + 2 <= bytes; i += 2) {
        const SSL_CIPHER *c = SSL_CIPHER_find(ssl, raw + i);

        add_to_list(&l, c != NULL ? SSL_CIPHER_get_name(c) : NULL,
                    (unsigned)raw[i] << 8 | raw[i + 1]);
    }
    return hd_str_n(l.to, l.len);
}

static void add_group(list_t *l, int nid)
{
    bool is_unknown = (nid & TLSEXT_nid_unknown) != 0;

    add_to_list(l, is_unknown ? NULL : OBJ_nid2sn(nid), (unsigned)nid & 0xffff);
}

static hd_str_t print_curves(SSL *ssl, hd_pool_t *pool)
{
    list_t l = {hd_pool_alloc_unaligned(pool, LIST_BYTES_MAX), 0, LIST_BYTES_MAX};
    int n = (int)SSL_get1_curves(ssl, NULL);
    int *nids = n > 0 ? hd_pool_new_n(pool, int, n) : NULL;

    if (n > 0)
        n = (int)SSL_get1_curves(ssl, nids);
    for (int i = 0; i < n; i++)
        add_group(&l, nids[i]);
    return hd_str_n(l.to, l.len);
}

static hd_str_t print_curve(SSL *ssl, hd_pool_t *pool)
{
    list_t l = {hd_pool_alloc_unaligned(pool, 64), 0, 64};
    int nid = (int)SSL_get_negotiated_group(ssl);

    if (nid != NID_undef)
        add_group(&l, nid);
    return hd_str_n(l.to, l.len);
}

/* RFC 8446 §4.2.3; OpenSSL 3.0 tells only the parts. */
static hd_str_t name_sigalg(int type, int digest)
{
    static const struct {
        int type, digest;
        const char *name;
    } names[] = {
        {EVP_PKEY_RSA_PSS, NID_sha256, "rsa_pss_rsae_sha256"},
        {EVP_PKEY_RSA_PSS, NID_sha384, "rsa_pss_rsae_sha384"},
        {EVP_PKEY_RSA_PSS, NID_sha512, "rsa_pss_rsae_sha512"},
        {EVP_PKEY_RSA, NID_sha256, "rsa_pkcs1_sha256"},
        {EVP_PKEY_RSA, NID_sha384, "rsa_pkcs1_sha384"},
        {EVP_PKEY_RSA, NID_sha512, "rsa_pkcs1_sha512"},
        {EVP_PKEY_RSA, NID_sha1, "rsa_pkcs1_sha1"},
        {EVP_PKEY_EC, NID_sha256, "ecdsa_secp256r1_sha256"},
        {EVP_PKEY_EC, NID_sha384, "ecdsa_secp384r1_sha384"},
        {EVP_PKEY_EC, NID_sha512, "ecdsa_secp521r1_sha512"},
        {EVP_PKEY_EC, NID_sha1, "ecdsa_sha1"},
    };

    if (type == EVP_PKEY_ED25519)
        return HD_STR("ed25519");
    if (type == EVP_PKEY_ED448)
        return HD_STR("ed448");
    for (size_t i = 0; i < hd_countof(names); i++)
        if (names[i].type == type && names[i].digest == digest)
            return hd_str_c(names[i].name);
    return HD_STR_NONE;
}

/* The same by number. NULL: unknown. */
static const char *name_scheme(unsigned number)
{
    static const struct {
        uint16_t number;
        const char *name;
    } names[] = {
        {0x0201, "rsa_pkcs1_sha1"},         {0x0203, "ecdsa_sha1"},
        {0x0301, "rsa_pkcs1_sha224"},       {0x0303, "ecdsa_sha224"},
        {0x0401, "rsa_pkcs1_sha256"},       {0x0501, "rsa_pkcs1_sha384"},
        {0x0601, "rsa_pkcs1_sha512"},       {0x0403, "ecdsa_secp256r1_sha256"},
        {0x0503, "ecdsa_secp384r1_sha384"}, {0x0603, "ecdsa_secp521r1_sha512"},
        {0x0804, "rsa_pss_rsae_sha256"},    {0x0805, "rsa_pss_rsae_sha384"},
        {0x0806, "rsa_pss_rsae_sha512"},    {0x0807, "ed25519"},
        {0x0808, "ed448"},                  {0x0809, "rsa_pss_pss_sha256"},
        {0x080a, "rsa_pss_pss_sha384"},     {0x080b, "rsa_pss_pss_sha512"},
    };

    for (size_t i = 0; i < hd_countof(names); i++)
        if (names[i].number == number)
            return names[i].name;
    return NULL;
}

static hd_str_t sigalg_of(SSL *ssl, bool of_peer)
{
    int type = NID_undef, digest = NID_undef;

    if (of_peer) {
        if (SSL_get_peer_signature_type_nid(ssl, &type) != 1)
            return HD_STR_NONE;
        hd_ignore(SSL_get_peer_signature_nid(ssl, &digest)); /* Ed25519 has none */
    } else {
        if (SSL_get_signature_type_nid(ssl, &type) != 1)
            return HD_STR_NONE;
        hd_ignore(SSL_get_signature_nid(ssl, &digest));
    }
    return name_sigalg(type, digest);
}

static hd_str_t print_sigalgs(SSL *ssl, hd_pool_t *pool)
{
    list_t l = {hd_pool_alloc_unaligned(pool, LIST_BYTES_MAX), 0, LIST_BYTES_MAX};
    int n = SSL_get_sigalgs(ssl, -1, NULL, NULL, NULL, NULL, NULL);

    for (int i = 0; i < n; i++) {
        unsigned char low = 0, high = 0; /* as they were sent */
        unsigned number;

        hd_ignore(SSL_get_sigalgs(ssl, i, NULL, NULL, NULL, &low, &high));
        number = (unsigned)high << 8 | low;
        add_to_list(&l, name_scheme(number), number);
    }
    return hd_str_n(l.to, l.len);
}

static hd_str_t print_session_id(SSL *ssl, hd_pool_t *pool)
{
    unsigned n = 0;
    const SSL_SESSION *s = SSL_get0_session(ssl);
    const unsigned char *id = s != NULL ? SSL_SESSION_get_id(s, &n) : NULL;

    return n > 0 ? hd_tls_hex(pool, id, n) : HD_STR_NONE;
}

/* --- the certificate --- */

static hd_str_t print_sha1(const X509 *cert, hd_pool_t *pool)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    return X509_digest(cert, EVP_sha1(), digest, &n) == 1 ? hd_tls_hex(pool, digest, n)
                                                          : HD_STR_NONE;
}

static hd_str_t print_oneline(const X509_NAME *name, hd_pool_t *pool)
{
    char *text = X509_NAME_oneline(name, NULL, 0);
    hd_str_t out = text != NULL ? hd_str_dup(pool, hd_str_c(text)) : HD_STR_NONE;

    OPENSSL_free(text);
    return out;
}

static hd_str_t print_time(const ASN1_TIME *t, hd_pool_t *pool)
{
    BIO *bio = BIO_new(BIO_s_mem());
    hd_str_t text = HD_STR_NONE;

    hd_bug_on(bio == NULL);
    if (ASN1_TIME_print(bio, t) == 1)
        text = hd_tls_print_bio(pool, bio);
    BIO_free(bio);
    return text;
}

static hd_str_t fact_of_cert(const hd_tls_layer_t *l, const X509 *cert,
                             hd_tls_fact_t what, hd_pool_t *pool)
{
    int64_t left_s;

    switch (what) {
    case HD_TLS_PEER_FINGERPRINT:
        return print_sha1(cert, pool);
    case HD_TLS_PEER_SUBJECT_LEGACY:
        return print_oneline(X509_get_subject_name(cert), pool);
    case HD_TLS_PEER_ISSUER_LEGACY:
        return print_oneline(X509_get_issuer_name(cert), pool);
    case HD_TLS_PEER_START:
        return print_time(X509_get0_notBefore(cert), pool);
    case HD_TLS_PEER_END:
        return print_time(X509_get0_notAfter(cert), pool);
    case HD_TLS_PEER_REMAIN:
        left_s = hd_tls_time_s(X509_get0_notAfter(cert)) - hd_tls_now_s(l);
        return hd_str_printf(pool, "%lld", (long long)(hd_max(left_s, 0) / 86400));
    default:
        return HD_STR_NONE;
    }
}

hd_str_t hd_tls_fact(hd_conn_t *c, hd_tls_fact_t what, hd_pool_t *pool)
{
    const hd_tls_layer_t *l = hd_tls_layer(c);
    const X509 *cert;
    hd_str_t out;

    if (l == NULL || l->state < HD_TLS_OPEN)
        return HD_STR_NONE;
    switch (what) {
    case HD_TLS_CIPHERS:
        return print_ciphers(l->ssl, pool);
    case HD_TLS_CURVE:
        return print_curve(l->ssl, pool);
    case HD_TLS_CURVES:
        return print_curves(l->ssl, pool);
    case HD_TLS_SIGALGS:
        return print_sigalgs(l->ssl, pool);
    case HD_TLS_SESSION_ID:
        return print_session_id(l->ssl, pool);
    case HD_TLS_SIGALG:
        return sigalg_of(l->ssl, false);
    case HD_TLS_PEER_SIGALG:
        return sigalg_of(l->ssl, true);
    default:
        cert = SSL_get0_peer_certificate(l->ssl);
        out = cert != NULL ? fact_of_cert(l, cert, what, pool) : HD_STR_NONE;
        ERR_clear_error();
        return out;
    }
}

/* --- what verify_late left open --- */

hd_tls_client_state_t hd_tls_judge_client(const hd_conn_t *c, const char **why)
{
    const hd_tls_layer_t *l = hd_tls_layer(c);
    long error;

    *why = NULL;
    if (l == NULL || !l->ctx->conf.verify_late)
        return HD_TLS_CLIENT_GOOD;
    if (SSL_get0_peer_certificate(l->ssl) == NULL)
        return l->ctx->conf.verify == HD_TLS_VERIFY_REQUIRED ? HD_TLS_CLIENT_NO_CERT
                                                             : HD_TLS_CLIENT_GOOD;
    error = SSL_get_verify_result(l->ssl);
    if (error == X509_V_OK && l->doubt != HD_TLS_NO_DOUBT) {
        *why = hd_tls_doubt_text(l->doubt);
        return HD_TLS_CLIENT_BAD;
    }
    if (error == X509_V_OK)
        return HD_TLS_CLIENT_GOOD;
    if (l->ctx->conf.verify == HD_TLS_VERIFY_OPTIONAL_NO_CA)
        switch (error) {
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        case X509_V_ERR_CERT_UNTRUSTED:
            return HD_TLS_CLIENT_GOOD;
        default:
            break;
        }
    *why = X509_verify_cert_error_string(error);
    return HD_TLS_CLIENT_BAD;
}

uint64_t hd_tls_client_hash(const hd_conn_t *c)
{
    const hd_tls_layer_t *l = hd_tls_layer(c);

    return l != NULL ? l->ctx->conf.client_hash : 0;
}

uint64_t hd_tls_peer_hash(const hd_conn_t *c)
{
    const hd_tls_layer_t *l = hd_tls_layer(c);

    return l != NULL ? l->ctx->conf.peer_hash : 0;
}
