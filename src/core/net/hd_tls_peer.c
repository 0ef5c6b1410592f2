#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <openssl/pem.h>

/* --- errors in words --- */

static void print_reason(unsigned long e, bool in_handshake, char *out, size_t room)
{
    int reason = ERR_GET_REASON(e);
    const char *text = ERR_reason_error_string(e);

    if (ERR_GET_LIB(e) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET) {
        int alert = reason - SSL_AD_REASON_OFFSET;

        snprintf(out, room, "the peer refused it: alert \"%s\" (%d)",
                 alert == SSL_AD_CERTIFICATE_REQUIRED /* OpenSSL 3.0 has no word for it */
                     ? "certificate required"
                     : SSL_alert_desc_string_long(alert),
                 alert);
        return;
    }
    switch (ERR_GET_LIB(e) == ERR_LIB_SSL ? reason : 0) {
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        snprintf(
            out, room,
            in_handshake
                ? "the peer closed the connection in the middle of it"
                : "the peer closed the connection without close_notify: what came may "
                  "be cut off");
        break;
    case SSL_R_HTTP_REQUEST:
        snprintf(out, room, "the peer speaks plain HTTP");
        break;
    case SSL_R_WRONG_VERSION_NUMBER:
        snprintf(out, room, "the peer doesn't speak TLS (plain text on this port?)");
        break;
    case SSL_R_NO_SHARED_CIPHER:
        snprintf(out, room, "no cipher that both sides accept");
        break;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
        snprintf(out, room, "no TLS version that both sides accept");
        break;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        snprintf(out, room, "the peer showed no certificate, and one is required");
        break;
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
        snprintf(out, room, "a record was damaged on its way");
        break;
    default:
        snprintf(out, room, "%s", text != NULL ? text : "OpenSSL failed");
    }
}

/* The first of the library itself; what a provider says before it names no cause. */
static unsigned long take_error(void)
{
    unsigned long first = ERR_peek_error(), e;

    while ((e = ERR_get_error()) != 0 && ERR_GET_LIB(e) != ERR_LIB_SSL)
        ;
    ERR_clear_error();
    return e != 0 ? e : first;
}

void hd_tls_error_text(const hd_tls_layer_t *l, int ssl_error, bool in_handshake,
                       char *out, size_t room)
{
    unsigned long e = take_error();

    if (e != 0)
        print_reason(e, in_handshake, out, room);
    else if (l->below_ended)
        snprintf(out, room, "the peer closed the connection");
    else if (l->below_failed || l->below_broken)
        snprintf(out, room, "the connection below it failed");
    else
        snprintf(out, room, "OpenSSL failed (%d)", ssl_error);
}

/* --- facts --- */

static hd_str_t find_principal(hd_pool_t *pool, const X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    hd_str_t id = HD_STR_NONE;
    int uris_n;

    /* One, or it is nobody's. */
    id =
        hd_tls_find_spiffe(names, &id, &uris_n) == 1 ? hd_str_dup(pool, id) : HD_STR_NONE;
    GENERAL_NAMES_free(names);
    return id;
}

void hd_tls_facts_set(hd_tls_layer_t *l)
{
    hd_conn_t *c = l->layer.conn;
    hd_conn_facts_t *facts = hd_conn_facts(c);
    const hd_tls_conf_t *conf = &l->ctx->conf;
    const hd_tls_cert_t *own;
    const unsigned char *alpn;
    unsigned alpn_len;

    SSL_get0_alpn_selected(l->ssl, &alpn, &alpn_len);
    if (alpn_len > 0)
        facts->alpn = hd_str_dup(c->pool, hd_str_n((const char *)alpn, alpn_len));
    if (l->verified)
        facts->peer_principal =
            find_principal(c->pool, SSL_get0_peer_certificate(l->ssl));
    /* Not what was shown: a resumed handshake shows nothing. */
    if ((conf->is_mesh || facts->peer_principal.len > 0) &&
        (own = hd_tls_first_cert(l)) != NULL)
        facts->local_principal = find_principal(c->pool, own->leaf);
}

hd_str_t hd_tls_hex(hd_pool_t *pool, const unsigned char *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char *out = hd_pool_alloc_unaligned(pool, 2 * n + 1);

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
    return hd_str_n(out, 2 * n);
}

hd_str_t hd_tls_print_bio(hd_pool_t *pool, BIO *bio)
{
    char *data;
    long n = BIO_get_mem_data(bio, &data);

    return hd_str_dup(pool, hd_str_n(data, n > 0 ? (size_t)n : 0));
}

static hd_str_t print_name(hd_pool_t *pool, const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    hd_str_t text;

    hd_bug_on(bio == NULL);
    hd_ignore(X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253));
    text = hd_tls_print_bio(pool, bio);
    BIO_free(bio);
    return text;
}

static hd_str_t print_serial(hd_pool_t *pool, const X509 *cert)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber((X509 *)(uintptr_t)cert);

    return hd_tls_hex(pool, ASN1_STRING_get0_data(serial),
                      (size_t)ASN1_STRING_length(serial));
}

static const hd_str_t *copy_names(hd_pool_t *pool, const GENERAL_NAMES *names, int type,
                                  uint32_t *n)
{
    int all_n = names != NULL ? sk_GENERAL_NAME_num(names) : 0;
    hd_str_t *out = all_n > 0 ? hd_pool_new_n(pool, hd_str_t, all_n) : NULL;

    *n = 0;
    for (int i = 0; i < all_n; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type == type)
            out[(*n)++] = hd_str_dup(pool, hd_tls_name_text(name->d.ia5));
    }
    return out;
}

static void read_cert(hd_tls_peer_t *p, hd_pool_t *pool, X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;

    p->subject = print_name(pool, X509_get_subject_name(cert));
    p->issuer = print_name(pool, X509_get_issuer_name(cert));
    p->serial = print_serial(pool, cert);
    if (X509_digest(cert, EVP_sha256(), digest, &digest_len) == 1)
        p->fingerprint_sha256 = hd_tls_hex(pool, digest, digest_len);
    p->not_before_s = hd_tls_time_s(X509_get0_notBefore(cert));
    p->not_after_s = hd_tls_time_s(X509_get0_notAfter(cert));
    p->uri_sans = copy_names(pool, names, GEN_URI, &p->uri_sans_n);
    p->dns_sans = copy_names(pool, names, GEN_DNS, &p->dns_sans_n);
    GENERAL_NAMES_free(names);
    ERR_clear_error();
}

const hd_tls_peer_t *hd_tls_peer(hd_conn_t *c)
{
    hd_tls_layer_t *l = hd_tls_layer(c);
    hd_tls_peer_t *p;
    X509 *cert;

    if (l == NULL || l->state < HD_TLS_OPEN)
        return NULL;
    if (hd_conn_facts(c)->tls != NULL)
        return c->facts->tls;
    p = hd_pool_new(hd_conn_pool(c), hd_tls_peer_t);
    cert = SSL_get0_peer_certificate(l->ssl);
    p->version = hd_str_c(SSL_get_version(l->ssl));
    p->cipher = hd_str_c(SSL_get_cipher_name(l->ssl));
    p->resumed = SSL_session_reused(l->ssl) == 1;
    p->verified = l->verified;
    p->spiffe_id = c->facts->peer_principal;
    if (cert != NULL) {
        read_cert(p, c->pool, cert);
        if (l->doubt != HD_TLS_NO_DOUBT)
            p->verify_error = hd_str_c(hd_tls_doubt_text(l->doubt));
        else if (!p->verified)
            p->verify_error = SSL_get_verify_mode(l->ssl) == SSL_VERIFY_NONE
                                  ? HD_STR("nobody asked for it to be verified")
                                  : hd_str_c(X509_verify_cert_error_string(
                                        SSL_get_verify_result(l->ssl)));
    }
    c->facts->tls = p;
    return p;
}

static hd_str_t print_pem(hd_conn_t *c, X509 *leaf, const STACK_OF(X509) *others)
{
    BIO *bio = BIO_new(BIO_s_mem());
    bool is_good;
    hd_str_t text;

    hd_bug_on(bio == NULL);
    is_good = PEM_write_bio_X509(bio, leaf) == 1;
    for (int i = 0; others != NULL && is_good && i < sk_X509_num(others); i++)
        is_good = PEM_write_bio_X509(bio, sk_X509_value(others, i)) == 1;
    text = is_good ? hd_tls_print_bio(c->pool, bio) : HD_STR_NONE;
    BIO_free(bio);
    return text;
}

static hd_str_t peer_pem(hd_conn_t *c, bool is_whole)
{
    hd_tls_peer_t *p = (hd_tls_peer_t *)(uintptr_t)hd_tls_peer(c);
    hd_str_t *text = p == NULL ? NULL : is_whole ? &p->chain_pem : &p->leaf_pem;
    SSL *ssl = p != NULL ? hd_tls_layer(c)->ssl : NULL;
    X509 *cert;

    if (p == NULL || text->len > 0 || (cert = SSL_get0_peer_certificate(ssl)) == NULL)
        return p != NULL ? *text : HD_STR_NONE;
    /* of a client the chain is without its own certificate */
    *text = print_pem(c, cert,
                      is_whole && SSL_is_server(ssl) ? SSL_get_peer_cert_chain(ssl) : NULL);
    return *text;
}

hd_str_t hd_tls_peer_pem(hd_conn_t *c)
{
    return peer_pem(c, false);
}

hd_str_t hd_tls_peer_chain_pem(hd_conn_t *c)
{
    return peer_pem(c, true);
}
