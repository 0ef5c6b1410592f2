/* certs: certificates made on the spot, for C unit tests.
 *
 *     cert_t root = cert_root("Root A");
 *     cert_t leaf = cert_make(&(cert_spec_t){.by = &root, .uris =
 * {"spiffe://td/ns/a/sa/b"}}); leaf.chain_pem, leaf.key_pem, root.chain_pem     PEM texts
 *     cert_free(&leaf);
 */
#pragma once
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CERT_NAMES_MAX 4

typedef struct {
    X509 *x509;
    EVP_PKEY *key;
    char *chain_pem, *key_pem; /* the chain holds <by> as well, unless that is a root */
} cert_t;

typedef struct {
    const cert_t *by;    /* NULL: by itself */
    const char *subject; /* CN; NULL: none */
    const char *uris[CERT_NAMES_MAX], *dns[CERT_NAMES_MAX];
    const char *raw_uri; /* one more URI with its length: may hold a zero byte */
    size_t raw_uri_len;
    const char *raw_dns;
    size_t raw_dns_len;
    const char *ip;
    long from_s, to_s; /* from now; both 0: an hour before, a day after */
    bool is_ca;
    const char *eku;  /* OpenSSL's words; NULL: none */
    const char *type; /* "EC" (NULL), "RSA", "ED25519", "X25519" */
    long serial;
} cert_spec_t;

__attribute__((unused)) static char *cert_take_text(BIO *bio)
{
    char *data, *text;
    long n = BIO_get_mem_data(bio, &data);

    text = malloc((size_t)n + 1);
    if (n > 0)
        memcpy(text, data, (size_t)n);
    text[n] = '\0';
    BIO_free(bio);
    return text;
}

static void cert_add_name(GENERAL_NAMES *names, int type, const char *text, size_t len)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *s =
        ASN1_STRING_type_new(type == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);

    ASN1_STRING_set(s, text, (int)len);
    GENERAL_NAME_set0_value(name, type, s);
    sk_GENERAL_NAME_push(names, name);
}

static void cert_add_names(X509 *x, const cert_spec_t *spec)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    ASN1_OCTET_STRING *ip;

    for (int i = 0; i < CERT_NAMES_MAX && spec->uris[i] != NULL; i++)
        cert_add_name(names, GEN_URI, spec->uris[i], strlen(spec->uris[i]));
    for (int i = 0; i < CERT_NAMES_MAX && spec->dns[i] != NULL; i++)
        cert_add_name(names, GEN_DNS, spec->dns[i], strlen(spec->dns[i]));
    if (spec->raw_uri != NULL)
        cert_add_name(names, GEN_URI, spec->raw_uri, spec->raw_uri_len);
    if (spec->raw_dns != NULL)
        cert_add_name(names, GEN_DNS, spec->raw_dns, spec->raw_dns_len);
    if (spec->ip != NULL && (ip = a2i_IPADDRESS(spec->ip)) != NULL) {
        cert_add_name(names, GEN_IPADD, (const char *)ASN1_STRING_get0_data(ip),
                      (size_t)ASN1_STRING_length(ip));
        ASN1_OCTET_STRING_free(ip);
    }
    if (sk_GENERAL_NAME_num(names) > 0)
        X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0);
    GENERAL_NAMES_free(names);
}

static void cert_add_ext(X509 *x, const cert_t *by, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, by != NULL ? by->x509 : x, x, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
}

static cert_t cert_make(const cert_spec_t *spec)
{
    const char *type = spec->type != NULL ? spec->type : "EC";
    bool is_window_set = spec->from_s != 0 || spec->to_s != 0;
    static long last_serial = 1000;
    cert_t c = {X509_new(), NULL, NULL, NULL};
    EVP_PKEY *signer;
    X509_NAME *name = X509_NAME_new();
    BIO *bio;

    if (strcmp(type, "EC") == 0)
        c.key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    else if (strcmp(type, "RSA") == 0)
        c.key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
    else
        c.key = EVP_PKEY_Q_keygen(NULL, NULL, type);
    X509_set_version(c.x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(c.x509),
                     spec->serial != 0 ? spec->serial : ++last_serial);
    if (spec->subject != NULL)
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                   (const unsigned char *)spec->subject, -1, -1, 0);
    X509_set_subject_name(c.x509, name);
    X509_NAME_free(name);
    X509_set_issuer_name(
        c.x509, X509_get_subject_name(spec->by != NULL ? spec->by->x509 : c.x509));
    X509_gmtime_adj(X509_getm_notBefore(c.x509), is_window_set ? spec->from_s : -3600);
    X509_gmtime_adj(X509_getm_notAfter(c.x509), is_window_set ? spec->to_s : 86400);
    X509_set_pubkey(c.x509, c.key);
    cert_add_names(c.x509, spec);
    if (spec->is_ca)
        cert_add_ext(c.x509, spec->by, NID_basic_constraints, "critical,CA:TRUE");
    if (spec->is_ca)
        cert_add_ext(c.x509, spec->by, NID_key_usage, "keyCertSign,cRLSign");
    cert_add_ext(c.x509, spec->by, NID_subject_key_identifier, "hash");
    cert_add_ext(c.x509, spec->by, NID_authority_key_identifier, "keyid");
    if (spec->eku != NULL)
        cert_add_ext(c.x509, spec->by, NID_ext_key_usage, spec->eku);
    signer = spec->by != NULL ? spec->by->key : c.key;
    if (EVP_PKEY_get_base_id(signer) == EVP_PKEY_ED25519)
        X509_sign(c.x509, signer, NULL);
    else if (strcmp(type, "X25519") != 0 || spec->by != NULL)
        X509_sign(c.x509, signer, EVP_sha256());

    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, c.x509);
    if (spec->by != NULL && X509_NAME_cmp(X509_get_subject_name(spec->by->x509),
                                          X509_get_issuer_name(spec->by->x509)) != 0)
        BIO_puts(bio, spec->by->chain_pem);
    c.chain_pem = cert_take_text(bio);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, c.key, NULL, NULL, 0, NULL, NULL);
    c.key_pem = cert_take_text(bio);
    return c;
}

__attribute__((unused)) static cert_t cert_root(const char *subject)
{
    return cert_make(&(cert_spec_t){
        .subject = subject, .is_ca = true, .from_s = -86400, .to_s = 86400 * 3650L});
}

/* The list of <by> in PEM, with <revoked> on it unless NULL; the caller frees it. */
__attribute__((unused)) static char *cert_crl(const cert_t *by, const cert_t *revoked)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *t = X509_gmtime_adj(NULL, -60);
    BIO *bio = BIO_new(BIO_s_mem());
    X509_REVOKED *entry;

    X509_CRL_set_version(crl, X509_CRL_VERSION_2);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(by->x509));
    X509_CRL_set1_lastUpdate(crl, t);
    if (revoked != NULL) {
        entry = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->x509));
        X509_REVOKED_set_revocationDate(entry, t);
        X509_CRL_add0_revoked(crl, entry);
    }
    X509_gmtime_adj(t, 86400);
    X509_CRL_set1_nextUpdate(crl, t);
    ASN1_TIME_free(t);
    X509_CRL_sign(crl, by->key, EVP_sha256());
    PEM_write_bio_X509_CRL(bio, crl);
    X509_CRL_free(crl);
    return cert_take_text(bio);
}

static void cert_free(cert_t *c)
{
    X509_free(c->x509);
    EVP_PKEY_free(c->key);
    free(c->chain_pem);
    free(c->key_pem);
}
