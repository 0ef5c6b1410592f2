#include "core/net/hd_tls_int.h"
#include "core/base/hd_log.h"
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

enum { CERTS_MAX = 1000 }; /* of a chain or a bundle of roots */

static hd_rc_t fail(hd_err_t *err, const char *fmt, ...) HD_PRINTF(2, 3);
static hd_rc_t fail(hd_err_t *err, const char *fmt, ...)
{
    char text[HD_ERR_TEXT_MAX];
    unsigned long e = ERR_peek_last_error();
    const char *why = e != 0 ? ERR_reason_error_string(e) : NULL;
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    ERR_clear_error();
    return why != NULL ? hd_err_set(err, HD_E_TLS, "%s (%s)", text, why)
                       : hd_err_set(err, HD_E_TLS, "%s", text);
}

/* Without it OpenSSL would ask at the terminal. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    *(bool *)arg = true;
    return -1;
}

static BIO *open_text(hd_str_t pem)
{
    BIO *bio =
        BIO_new_mem_buf(pem.len > 0 ? pem.data : "", (int)hd_min(pem.len, 1u << 24));

    hd_bug_on(bio == NULL);
    return bio;
}

/* The end of the PEM texts, rather than a damaged one. */
static bool is_pem_end(void)
{
    unsigned long e = ERR_peek_last_error();

    if (ERR_GET_LIB(e) != ERR_LIB_PEM || ERR_GET_REASON(e) != PEM_R_NO_START_LINE)
        return false;
    ERR_clear_error();
    return true;
}

int64_t hd_tls_time_s(const ASN1_TIME *t)
{
    struct tm tm;

    return t != NULL && ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

STACK_OF(X509) * hd_tls_read_certs(hd_str_t pem, const char *what, hd_err_t *err)
{
    STACK_OF(X509) *certs = sk_X509_new_null();
    BIO *bio = open_text(pem);
    X509 *cert;

    hd_bug_on(certs == NULL);
    ERR_clear_error();
    while (sk_X509_num(certs) < CERTS_MAX &&
           (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, &(bool){false})) != NULL)
        hd_bug_on(sk_X509_push(certs, cert) == 0);
    BIO_free(bio);
    if (sk_X509_num(certs) == CERTS_MAX)
        hd_ignore(fail(err, "%s: %d certificates and more", what, CERTS_MAX) != HD_ERROR);
    else if (!is_pem_end())
        hd_ignore(fail(err, "%s: certificate %d is damaged", what,
                       sk_X509_num(certs) + 1) != HD_ERROR);
    else if (sk_X509_num(certs) == 0)
        hd_ignore(fail(err, "%s: no \"-----BEGIN CERTIFICATE-----\" in it", what) !=
                  HD_ERROR);
    else
        return certs;
    sk_X509_pop_free(certs, X509_free);
    return NULL;
}

static EVP_PKEY *read_key(hd_str_t pem, hd_err_t *err)
{
    BIO *bio = open_text(pem);
    bool is_locked = false;
    EVP_PKEY *key;
    int type;

    ERR_clear_error();
    key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &is_locked);
    BIO_free(bio);
    if (key == NULL) {
        if (is_locked) {
            ERR_clear_error();
            hd_ignore(fail(err, "the private key has a passphrase: store it without, or "
                                "give it by ssl_password_file") != HD_ERROR);
        } else if (hd_str_find(pem, HD_STR("PRIVATE KEY-----")) < 0) {
            ERR_clear_error();
            hd_ignore(fail(err, "the private key: no \"-----BEGIN PRIVATE KEY-----\" in "
                                "it") != HD_ERROR);
        } else {
            hd_ignore(fail(err, "the private key is damaged") != HD_ERROR);
        }
        return NULL;
    }
    type = EVP_PKEY_get_base_id(key);
    if (type == EVP_PKEY_RSA || type == EVP_PKEY_EC || type == EVP_PKEY_ED25519)
        return key;
    hd_ignore(fail(err, "a private key of type %s: RSA, EC and Ed25519 can be used",
                   EVP_PKEY_get0_type_name(key) != NULL ? EVP_PKEY_get0_type_name(key)
                                                        : "unknown") != HD_ERROR);
    EVP_PKEY_free(key);
    return NULL;
}

void hd_tls_cert_destroy(hd_tls_cert_t *cert)
{
    X509_free(cert->leaf);
    sk_X509_pop_free(cert->chain, X509_free);
    EVP_PKEY_free(cert->key);
    free((char *)(uintptr_t)cert->ocsp_der.data);
    free((char *)(uintptr_t)cert->staple.data);
    free(cert);
}

static hd_rc_t check_fit(hd_tls_cert_t *cert, hd_err_t *err)
{
    if (X509_check_private_key(cert->leaf, cert->key) == 1)
        return HD_OK;
    ERR_clear_error();
    for (int i = 0; i < sk_X509_num(cert->chain); i++)
        if (X509_check_private_key(sk_X509_value(cert->chain, i), cert->key) == 1)
            return fail(err,
                        "the private key belongs to certificate %d of the chain: the "
                        "leaf must come first",
                        i + 2);
    ERR_clear_error();
    return fail(err, "the private key doesn't belong to the certificate");
}

/* Only what clients would read as an answer, and as one about this certificate. */
static hd_rc_t check_ocsp(hd_tls_cert_t *cert, hd_str_t der, hd_err_t *err)
{
    const unsigned char *at = (const unsigned char *)der.data;
    OCSP_RESPONSE *answer = d2i_OCSP_RESPONSE(NULL, &at, (long)der.len);
    OCSP_BASICRESP *basic = NULL;
    bool is_about = false;
    int status = answer != NULL ? OCSP_response_status(answer) : -1;

    if (answer != NULL && status == OCSP_RESPONSE_STATUS_SUCCESSFUL)
        basic = OCSP_response_get1_basic(answer);
    for (int i = 0; basic != NULL && i < OCSP_resp_count(basic) && !is_about; i++) {
        OCSP_SINGLERESP *one = OCSP_resp_get0(basic, i);
        const OCSP_CERTID *id = OCSP_SINGLERESP_get0_id(one);
        ASN1_GENERALIZEDTIME *next_at = NULL;
        ASN1_INTEGER *serial = NULL;

        hd_ignore(
            OCSP_id_get0_info(NULL, NULL, NULL, &serial, (OCSP_CERTID *)(uintptr_t)id));
        is_about = serial != NULL &&
                   ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(cert->leaf)) == 0;
        hd_ignore(OCSP_single_get0_status(one, NULL, NULL, NULL, &next_at) < 0);
        cert->ocsp_until_s = hd_tls_time_s(next_at);
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(answer);
    ERR_clear_error();
    if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        return fail(err, status < 0 ? "the OCSP response is damaged (DER is expected)"
                                    : "the OCSP response tells of a failure");
    return is_about ? HD_OK : fail(err, "the OCSP response is about another certificate");
}

static hd_str_t copy_text(hd_str_t text)
{
    char *copy = malloc(text.len + 1);

    hd_bug_on(copy == NULL);
    memcpy(copy, text.data, text.len);
    return hd_str_n(copy, text.len);
}

static hd_rc_t take_ocsp(hd_tls_cert_t *cert, const hd_secret_t *s, hd_err_t *err)
{
    unsigned n = 0;

    if (s->staple.len > 0) {
        cert->staple = copy_text(s->staple);
        hd_bug_on(X509_digest(cert->leaf, EVP_sha256(), cert->fingerprint, &n) != 1);
    }
    if (s->ocsp_der.len == 0)
        return HD_OK;
    if (check_ocsp(cert, s->ocsp_der, err) != HD_OK)
        return HD_ERROR;
    cert->ocsp_der = copy_text(s->ocsp_der);
    return HD_OK;
}

hd_tls_cert_t *hd_tls_cert_create(const hd_secret_t *s, hd_err_t *err)
{
    hd_tls_cert_t *cert = calloc(1, sizeof(*cert));

    hd_bug_on(cert == NULL);
    if ((cert->chain = hd_tls_read_certs(s->chain_pem, "the certificate chain", err)) !=
            NULL &&
        (cert->key = read_key(s->key_pem, err)) != NULL) {
        cert->leaf = sk_X509_shift(cert->chain);
        if (check_fit(cert, err) == HD_OK && take_ocsp(cert, s, err) == HD_OK)
            return cert;
    }
    hd_tls_cert_destroy(cert);
    return NULL;
}

static hd_rc_t add_crls(X509_STORE *store, hd_str_t pem, hd_err_t *err)
{
    BIO *bio = open_text(pem);
    X509_CRL *crl;
    int n = 0;

    ERR_clear_error();
    while ((crl = PEM_read_bio_X509_CRL(bio, NULL, no_passphrase, &(bool){false})) !=
           NULL) {
        hd_bug_on(X509_STORE_add_crl(store, crl) != 1);
        X509_CRL_free(crl);
        n++;
    }
    BIO_free(bio);
    if (!is_pem_end())
        return fail(err, "the revocation lists: list %d is damaged", n + 1);
    if (n == 0)
        return fail(err, "the revocation lists: no \"-----BEGIN X509 CRL-----\" in it");
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return HD_OK;
}

static void free_trust(hd_tls_trust_t *trust)
{
    X509_STORE_free(trust->store);
    sk_X509_NAME_pop_free(trust->names, X509_NAME_free);
    for (uint32_t i = 0; i < trust->domains_n; i++) {
        X509_STORE_free(trust->domains[i].store);
        free(trust->domains[i].name);
    }
    free(trust->domains);
    for (uint32_t i = 0; trust->regexes != NULL && i < trust->checks->sans_n; i++)
        if (trust->regexes[i] != NULL)
            hd_regex_destroy(trust->regexes[i]);
    free(trust->regexes);
    free(trust);
}

static hd_rc_t add_checks(hd_tls_trust_t *trust, const hd_tls_checks_t *checks,
                          hd_err_t *err)
{
    if (checks == NULL)
        return HD_OK;
    trust->checks = checks;
    trust->regexes = calloc(hd_max(checks->sans_n, 1u), sizeof(*trust->regexes));
    hd_bug_on(trust->regexes == NULL);
    for (uint32_t i = 0; i < checks->sans_n; i++) {
        const hd_match_t *p = &checks->sans[i];

        if (p->kind == HD_MATCH_REGEX &&
            (trust->regexes[i] =
                 hd_regex_create(p->text, p->ignore_case, p->part, err)) == NULL)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t add_roots(hd_tls_trust_t *trust, X509_STORE *store, hd_str_t pem,
                         bool is_told, hd_err_t *err)
{
    STACK_OF(X509) * certs;

    if (pem.len == 0)
        return HD_OK;
    if ((certs = hd_tls_read_certs(pem, "the trusted roots", err)) == NULL)
        return HD_ERROR;
    for (int i = 0; i < sk_X509_num(certs); i++) {
        X509 *cert = sk_X509_value(certs, i);
        X509_NAME *name;

        hd_bug_on(X509_STORE_add_cert(store, cert) != 1); /* twice is fine */
        if (!is_told)
            continue;
        name = X509_NAME_dup(X509_get_subject_name(cert));
        hd_bug_on(name == NULL || sk_X509_NAME_push(trust->names, name) == 0);
    }
    sk_X509_pop_free(certs, X509_free);
    return HD_OK;
}

static hd_rc_t add_domains(hd_tls_trust_t *trust, const hd_secret_t *s, hd_err_t *err)
{
    trust->domains = calloc(hd_max(s->domains_n, 1u), sizeof(*trust->domains));
    hd_bug_on(trust->domains == NULL);
    for (uint32_t i = 0; i < s->domains_n; i++) {
        const hd_tls_domain_t *d = &s->domains[i];

        trust->domains_n++;
        trust->domains[i].name = malloc(d->name.len + 1);
        trust->domains[i].store = X509_STORE_new();
        hd_bug_on(trust->domains[i].name == NULL || trust->domains[i].store == NULL);
        memcpy(trust->domains[i].name, d->name.data, d->name.len);
        trust->domains[i].name[d->name.len] = '\0';
        if (d->trust_pem.len == 0 ||
            add_roots(trust, trust->domains[i].store, d->trust_pem, false, err) != HD_OK)
            return hd_err_prefix(err, "trust domain \"%.*s\": ", HD_STR_ARG(d->name));
    }
    return HD_OK;
}

static hd_tls_trust_t *make_trust(const hd_secret_t *s, hd_err_t *err)
{
    hd_tls_trust_t *trust = calloc(1, sizeof(*trust));

    hd_bug_on(trust == NULL || (trust->store = X509_STORE_new()) == NULL ||
              (trust->names = sk_X509_NAME_new_null()) == NULL);
    if (add_roots(trust, trust->store, s->trust_pem, true, err) == HD_OK &&
        add_roots(trust, trust->store, s->more_trust_pem, false, err) == HD_OK &&
        add_domains(trust, s, err) == HD_OK &&
        add_checks(trust, s->checks, err) == HD_OK &&
        (s->crl_pem.len == 0 || add_crls(trust->store, s->crl_pem, err) == HD_OK))
        return trust;
    free_trust(trust);
    return NULL;
}

/* --- companions of the secret's region --- */

static void *create_cert(hd_member_t *m, const void *owner, const void *arg,
                         hd_err_t *err)
{
    (void)m;
    (void)owner;
    return hd_tls_cert_create(arg, err);
}

static void destroy_cert(hd_member_t *m, void *companion)
{
    (void)m;
    hd_tls_cert_destroy(companion);
}

static void *create_trust(hd_member_t *m, const void *owner, const void *arg,
                          hd_err_t *err)
{
    (void)m;
    (void)owner;
    return make_trust(arg, err);
}

static void destroy_trust(hd_member_t *m, void *companion)
{
    (void)m;
    free_trust(companion);
}

static const hd_companion_type_t cert_type = {
    .name = "certificate", .create = create_cert, .destroy = destroy_cert};
static const hd_companion_type_t trust_type = {
    .name = "trusted roots", .create = create_trust, .destroy = destroy_trust};

static const void *get_of(hd_member_t *m, const hd_slot_t *slot, const hd_region_t *held,
                          const hd_companion_type_t *type, hd_err_t *err)
{
    const hd_region_t *r = held != NULL ? held : hd_slot_get(m, slot);
    const void *found;

    if (r == NULL) {
        hd_ignore(hd_err_set(err, HD_E_TLS, "secret '%.*s' isn't there (yet)",
                             HD_STR_ARG(slot->name)) != HD_ERROR);
        return NULL;
    }
    found = hd_companion_of_region(m, type, r, r->root, err);
    if (found == NULL)
        hd_ignore(hd_err_prefix(err, "secret '%.*s': ", HD_STR_ARG(slot->name)) !=
                  HD_ERROR);
    return found;
}

const hd_tls_cert_t *hd_tls_cert_of(const hd_tls_layer_t *l, uint32_t i, hd_err_t *err)
{
    return get_of(l->ctx->member, l->ctx->conf.certs[i],
                  l->held != NULL ? l->held->certs[i] : NULL, &cert_type, err);
}

const hd_tls_cert_t *hd_tls_first_cert(const hd_tls_layer_t *l)
{
    if (l->held != NULL && l->held->own_n > 0)
        return l->held->own[0];
    return l->ctx->conf.certs_n > 0 ? hd_tls_cert_of(l, 0, NULL) : NULL;
}

const hd_tls_trust_t *hd_tls_trust_of(const hd_tls_layer_t *l, hd_err_t *err)
{
    return get_of(l->ctx->member, l->ctx->conf.trust,
                  l->held != NULL ? l->held->trust : NULL, &trust_type, err);
}

/* --- what a handshake holds --- */

static const hd_region_t *pin(hd_member_t *m, const hd_slot_t *slot)
{
    const hd_region_t *r = slot != NULL ? hd_slot_get(m, slot) : NULL;

    if (r != NULL)
        hd_pin(m, r);
    return r;
}

void hd_tls_hold(hd_tls_layer_t *l)
{
    const hd_tls_conf_t *conf = &l->ctx->conf;
    hd_tls_held_t *held = malloc(sizeof(*held) + conf->certs_n * sizeof(held->certs[0]));

    hd_bug_on(held == NULL);
    held->asking = NULL;
    held->pairs = NULL;
    held->own = NULL;
    held->own_n = 0;
    held->trust = pin(l->ctx->member, conf->trust);
    held->n = conf->certs_n;
    for (uint32_t i = 0; i < held->n; i++)
        held->certs[i] = pin(l->ctx->member, conf->certs[i]);
    l->held = held;
}

void hd_tls_let_go(hd_tls_layer_t *l)
{
    if (l->held == NULL)
        return;
    if (l->held->trust != NULL)
        hd_unpin(l->ctx->member, l->held->trust);
    for (uint32_t i = 0; i < l->held->n; i++)
        if (l->held->certs[i] != NULL)
            hd_unpin(l->ctx->member, l->held->certs[i]);
    hd_tls_pairs_let_go(l->held);
    free(l->held);
    l->held = NULL;
}

/* --- for builders --- */

typedef struct {
    hd_str_t passphrase;
    bool was_asked;
} ask_t;

static int tell_passphrase(char *buf, int size, int writing, void *arg)
{
    ask_t *ask = arg;

    (void)writing;
    ask->was_asked = true;
    if (ask->passphrase.len > (size_t)size)
        return -1;
    memcpy(buf, ask->passphrase.data, ask->passphrase.len);
    return (int)ask->passphrase.len;
}

static EVP_PKEY *try_key(hd_str_t pem, ask_t *ask)
{
    BIO *bio = open_text(pem);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, tell_passphrase, ask);

    BIO_free(bio);
    ERR_clear_error();
    return key;
}

static hd_str_t print_key(EVP_PKEY *key, hd_pool_t *pool)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    char *data;
    long n;
    hd_str_t out;

    hd_bug_on(bio == NULL ||
              PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1);
    n = BIO_get_mem_data(bio, &data);
    out = hd_str_dup(pool, hd_str_n(data, (size_t)n));
    OPENSSL_cleanse(data, (size_t)n);
    BIO_free(bio);
    return out;
}

hd_rc_t hd_tls_key_unlock(hd_str_t pem, hd_str_t passphrases, hd_pool_t *pool,
                          hd_str_t *out, hd_err_t *err)
{
    ask_t ask = {HD_STR_NONE, false};
    hd_str_t rest = passphrases;
    EVP_PKEY *key = NULL;
    int n = 0;

    *out = pem;
    while (key == NULL && hd_str_split(&rest, '\n', &ask.passphrase)) {
        if (ask.passphrase.len > 0 && ask.passphrase.data[ask.passphrase.len - 1] == '\r')
            ask.passphrase.len--;
        n++;
        key = try_key(pem, &ask);
        if (!ask.was_asked) { /* it has none, or is damaged: hd_secret_check tells */
            EVP_PKEY_free(key);
            return HD_OK;
        }
    }
    if (key == NULL)
        return fail(err, "none of the %d passphrases opens the private key", n);
    *out = print_key(key, pool);
    EVP_PKEY_free(key);
    return HD_OK;
}

static hd_rc_t fill_facts(hd_secret_t *s, const X509 *leaf, hd_pool_t *pool,
                          hd_err_t *err)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int64_t now_s = (int64_t)time(NULL),
            from_s = hd_tls_time_s(X509_get0_notBefore(leaf));
    hd_str_t id = HD_STR_NONE;
    int uris_n, n = hd_tls_find_spiffe(names, &id, &uris_n);
    hd_rc_t rc = HD_OK;

    s->not_after_s = hd_tls_time_s(X509_get0_notAfter(leaf));
    if (hd_tls_has_nul(names))
        rc = hd_err_set(err, HD_E_TLS, "a name in the certificate holds a zero byte");
    else if (n > 1)
        rc = hd_err_set(err, HD_E_TLS,
                        "the certificate has %d SPIFFE IDs: it may have one", n);
    else if (n < 0)
        rc = hd_err_set(err, HD_E_TLS,
                        "the certificate's spiffe:// name is no SPIFFE ID (like "
                        "spiffe://trust.domain/ns/NAMESPACE/sa/ACCOUNT)");
    else if (n == 1)
        s->spiffe_id = hd_str_dup(pool, id);
    GENERAL_NAMES_free(names);
    if (rc == HD_OK && s->not_after_s < now_s)
        hd_log(HD_LOG_WARN, "the certificate '%.*s' has expired %" PRId64 " hours ago",
               HD_STR_ARG(s->spiffe_id), (now_s - s->not_after_s) / 3600);
    if (rc == HD_OK && from_s > now_s)
        hd_log(HD_LOG_WARN, "the certificate '%.*s' becomes valid in %" PRId64 " minutes",
               HD_STR_ARG(s->spiffe_id), (from_s - now_s + 59) / 60);
    return rc;
}

hd_rc_t hd_secret_check(hd_secret_t *s, hd_pool_t *pool, hd_err_t *err)
{
    hd_rc_t rc = HD_OK;

    if (s->chain_pem.len == 0 && s->key_pem.len > 0)
        return hd_err_set(err, HD_E_TLS, "a private key without its certificate");
    if (s->chain_pem.len > 0 && s->key_pem.len == 0)
        return hd_err_set(err, HD_E_TLS, "a certificate without its private key");
    if (s->trust_pem.len + s->more_trust_pem.len == 0 && s->crl_pem.len > 0)
        return hd_err_set(err, HD_E_TLS, "revocation lists without roots");
    if (s->chain_pem.len > 0) {
        hd_tls_cert_t *cert = hd_tls_cert_create(s, err);

        if (cert == NULL)
            return HD_ERROR;
        rc = fill_facts(s, cert->leaf, pool, err);
        hd_tls_cert_destroy(cert);
    }
    if (rc == HD_OK && s->trust_pem.len + s->more_trust_pem.len + s->domains_n > 0) {
        hd_tls_trust_t *trust = make_trust(s, err);

        if (trust == NULL)
            return HD_ERROR;
        free_trust(trust);
    }
    return rc;
}
