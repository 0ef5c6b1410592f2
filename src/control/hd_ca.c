#include "control/hd_ca.h"
#include "core/base/hd_log.h"
#include "core/base/hd_small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CSR_BYTES_MAX 16384
#define ROOT_DAYS 3650
#define BACKDATE_S 60      /* clocks of one mesh differ a little */
#define SPIFFE_ID_MAX 2048 /* SPIFFE-ID §2.3 */

struct hd_ca_s {
    EVP_PKEY *key;
    X509 *cert; /* that signs */
    hd_pool_t *pool;
    hd_str_t root_pem; /* all that are trusted */
    char cert_path[1024], key_path[1024];
    hd_file_stamp_t cert_stamp, key_stamp;
};

static hd_rc_t fail(hd_err_t *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    char text[160] = "no reason given";

    if (code != 0)
        ERR_error_string_n(code, text, sizeof(text));
    ERR_clear_error();
    return hd_err_set(err, HD_E_TLS, "%s: %s", what, text);
}

static hd_str_t bio_to_str(BIO *bio, hd_pool_t *pool)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);

    return hd_str_dup(pool, hd_str_n(data, len > 0 ? (size_t)len : 0));
}

static hd_str_t cert_to_pem(X509 *cert, hd_pool_t *pool)
{
    BIO *bio = BIO_new(BIO_s_mem());
    hd_str_t pem = HD_STR_NONE;

    if (bio != NULL && PEM_write_bio_X509(bio, cert) == 1)
        pem = bio_to_str(bio, pool);
    BIO_free(bio);
    return pem;
}

/* --- building certificates --- */

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;
    bool good;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    good = ext != NULL && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return good;
}

/* The one URI SAN, set as data rather than through the configuration syntax, in which a
 * comma in an identity would start another name. */
static bool add_spiffe_san(X509 *cert, hd_str_t id)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *uri = ASN1_IA5STRING_new();
    bool good;

    if (names == NULL || name == NULL || uri == NULL ||
        ASN1_STRING_set(uri, id.data, (int)id.len) != 1) {
        ASN1_IA5STRING_free(uri);
        GENERAL_NAME_free(name);
        GENERAL_NAMES_free(names);
        return false;
    }
    GENERAL_NAME_set0_value(name, GEN_URI, uri);
    sk_GENERAL_NAME_push(names, name);
    /* critical, since the subject is empty (RFC 5280 §4.2.1.6; X.509-SVID §4.1) */
    good =
        X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return good;
}

static bool set_serial(X509 *cert)
{
    uint8_t bytes[16];
    BIGNUM *n;
    bool good;

    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40); /* positive, of full length */
    n = BN_bin2bn(bytes, sizeof(bytes), NULL);
    good = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
    BN_free(n);
    return good;
}

static bool set_times(X509 *cert, int64_t from_s, int64_t to_s)
{
    return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)from_s) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)to_s) != NULL;
}

static X509 *make_root(EVP_PKEY *key, hd_str_t trust_domain)
{
    X509 *cert = X509_new();
    X509_NAME *name;
    int64_t now_s = time(NULL);
    char uri[256];

    if (cert == NULL)
        return NULL;
    name = X509_get_subject_name(cert);
    snprintf(uri, sizeof(uri), "URI:spiffe://%.*s", HD_STR_ARG(trust_domain));
    if (X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
        set_times(cert, now_s - BACKDATE_S, now_s + (int64_t)ROOT_DAYS * 86400) &&
        X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8,
                                   (const uint8_t *)trust_domain.data,
                                   (int)trust_domain.len, -1, 0) == 1 &&
        X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1 &&
        add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE") &&
        add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
        add_extension(cert, cert, NID_subject_key_identifier, "hash") &&
        add_extension(cert, cert, NID_subject_alt_name, uri) &&
        X509_sign(cert, key, EVP_sha256()) > 0)
        return cert;
    X509_free(cert);
    return NULL;
}

/* --- the root on disk --- */

/* Written beside and renamed, so that nobody ever reads half a file. */
static hd_rc_t write_file(const char *path, hd_str_t text, mode_t mode, hd_err_t *err)
{
    char part[1100];
    int fd;

    snprintf(part, sizeof(part), "%s.new", path);
    fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return hd_err_set_sys(err, errno, "can't write %s", part);
    if (write(fd, text.data, text.len) != (ssize_t)text.len || fsync(fd) != 0 ||
        rename(part, path) != 0) {
        int why = errno;

        close(fd);
        unlink(part);
        return hd_err_set_sys(err, why, "can't write %s", path);
    }
    close(fd);
    return HD_OK;
}

static hd_rc_t create_root(hd_ca_t *ca, const char *cert_path, const char *key_path,
                           hd_str_t trust_domain, hd_err_t *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    hd_rc_t rc;

    ca->key = EVP_EC_gen("P-256");
    ca->cert = ca->key != NULL ? make_root(ca->key, trust_domain) : NULL;
    if (bio == NULL || ca->cert == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, ca->key, NULL, NULL, 0, NULL, NULL) != 1) {
        BIO_free(bio);
        return fail(err, "can't make a root certificate");
    }
    /* the key first: a certificate without its key would be taken for the user's */
    rc = write_file(key_path, bio_to_str(bio, ca->pool), 0600, err);
    if (rc == HD_OK)
        rc = write_file(cert_path, cert_to_pem(ca->cert, ca->pool), 0644, err);
    BIO_free(bio);
    return rc;
}

/* The first is the one that signs; those behind it are trusted as well. */
static hd_rc_t read_certs(hd_ca_t *ca, FILE *f, const char *cert_path, hd_err_t *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    X509 *other;

    ca->cert = PEM_read_X509(f, NULL, NULL, NULL);
    hd_bug_on(bio == NULL);
    if (ca->cert == NULL || PEM_write_bio_X509(bio, ca->cert) != 1) {
        BIO_free(bio);
        return fail(err, cert_path);
    }
    while ((other = PEM_read_X509(f, NULL, NULL, NULL)) != NULL) {
        hd_ignore(PEM_write_bio_X509(bio, other) != 1); /* into memory */
        X509_free(other);
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) { /* half written */
        BIO_free(bio);
        return fail(err, cert_path);
    }
    ERR_clear_error(); /* the end of the file */
    ca->root_pem = bio_to_str(bio, ca->pool);
    BIO_free(bio);
    return HD_OK;
}

static hd_rc_t load_root(hd_ca_t *ca, const char *cert_path, const char *key_path,
                         hd_err_t *err)
{
    FILE *f = fopen(cert_path, "re");
    hd_rc_t rc;

    if (f == NULL)
        return hd_err_set_sys(err, errno, "can't read %s", cert_path);
    rc = read_certs(ca, f, cert_path, err);
    fclose(f);
    if (rc != HD_OK)
        return HD_ERROR;
    f = fopen(key_path, "re");
    if (f == NULL)
        return hd_err_set_sys(err, errno, "can't read %s", key_path);
    ca->key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    if (ca->key == NULL)
        return fail(err, key_path);
    if (X509_check_private_key(ca->cert, ca->key) != 1) {
        ERR_clear_error();
        return hd_err_set(err, HD_E_TLS, "%s is not the key of %s", key_path, cert_path);
    }
    if (X509_check_ca(ca->cert) == 0)
        return hd_err_set(err, HD_E_TLS,
                          "%s is no CA certificate (basicConstraints CA:TRUE)",
                          cert_path);
    if (X509_cmp_current_time(X509_get0_notAfter(ca->cert)) < 0)
        return hd_err_set(err, HD_E_TLS, "%s has expired", cert_path);
    return HD_OK;
}

hd_ca_t *hd_ca_open(hd_str_t dir, hd_str_t trust_domain, hd_err_t *err)
{
    hd_ca_t *ca = calloc(1, sizeof(*ca));
    char dir_path[1000];
    char *cert_path, *key_path;
    hd_rc_t rc;

    hd_bug_on(ca == NULL);
    ca->pool = hd_pool_create(0);
    cert_path = ca->cert_path;
    key_path = ca->key_path;
    snprintf(dir_path, sizeof(dir_path), "%.*s", HD_STR_ARG(dir));
    snprintf(cert_path, sizeof(ca->cert_path), "%s/root-cert.pem", dir_path);
    snprintf(key_path, sizeof(ca->key_path), "%s/root-key.pem", dir_path);
    if (mkdir(dir_path, 0700) != 0 && errno != EEXIST)
        rc = hd_err_set_sys(err, errno, "can't make the directory %s", dir_path);
    else if (access(cert_path, F_OK) == 0)
        rc = load_root(ca, cert_path, key_path, err);
    else
        rc = create_root(ca, cert_path, key_path, trust_domain, err);
    if (rc != HD_OK) {
        hd_ca_close(ca);
        return NULL;
    }
    if (ca->root_pem.len == 0) /* we have just made it */
        ca->root_pem = cert_to_pem(ca->cert, ca->pool);
    hd_ignore(hd_file_stamp_get(cert_path, &ca->cert_stamp));
    hd_ignore(hd_file_stamp_get(key_path, &ca->key_stamp));
    return ca;
}

static bool is_as_read(const char *path, const hd_file_stamp_t *stamp)
{
    hd_file_stamp_t now;

    return hd_file_stamp_get(path, &now) && hd_file_stamp_eq(&now, stamp);
}

void hd_ca_renew(hd_ca_t *ca)
{
    hd_ca_t next = {0};
    hd_err_t err = {0};

    if (is_as_read(ca->cert_path, &ca->cert_stamp) &&
        is_as_read(ca->key_path, &ca->key_stamp))
        return;
    hd_ignore(hd_file_stamp_get(ca->cert_path, &ca->cert_stamp));
    hd_ignore(hd_file_stamp_get(ca->key_path, &ca->key_stamp));
    next.pool = hd_pool_create(0);
    if (load_root(&next, ca->cert_path, ca->key_path, &err) != HD_OK) {
        hd_log(HD_LOG_ERROR, "control: %s; the last good roots stay in force", err.text);
    } else {
        const hd_ca_t old = *ca;

        ca->key = next.key;
        ca->cert = next.cert;
        ca->pool = next.pool;
        ca->root_pem = next.root_pem;
        next = old;
        hd_log(HD_LOG_NOTICE, "control: the roots of %s are in force", ca->cert_path);
    }
    X509_free(next.cert);
    EVP_PKEY_free(next.key);
    hd_pool_destroy(next.pool);
}

void hd_ca_close(hd_ca_t *ca)
{
    X509_free(ca->cert);
    EVP_PKEY_free(ca->key);
    hd_pool_destroy(ca->pool);
    free(ca);
}

hd_str_t hd_ca_root_pem(const hd_ca_t *ca)
{
    return ca->root_pem;
}

/* --- leaves --- */

static bool is_key_good(EVP_PKEY *key)
{
    char group[32];
    size_t len;

    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
        return EVP_PKEY_get_bits(key) >= 2048 && EVP_PKEY_get_bits(key) <= 8192;
    case EVP_PKEY_EC:
        return EVP_PKEY_get_group_name(key, group, sizeof(group), &len) == 1 &&
               (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0);
    case EVP_PKEY_ED25519:
        return true;
    default:
        return false;
    }
}

/* The key of a CSR whose signature proves that the caller has it. NULL: <err>. */
static EVP_PKEY *take_csr_key(hd_str_t pem, hd_err_t *err)
{
    BIO *bio;
    X509_REQ *req;
    EVP_PKEY *key;

    if (pem.len == 0 || pem.len > CSR_BYTES_MAX) {
        hd_ignore(
            hd_err_set(err, HD_E_TLS, "a CSR has 1 to %d bytes of PEM", CSR_BYTES_MAX));
        return NULL;
    }
    bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    req = bio != NULL ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (req == NULL) {
        hd_ignore(fail(err, "malformed CSR"));
        return NULL;
    }
    key = X509_REQ_get_pubkey(req);
    if (key == NULL || !is_key_good(key)) {
        hd_ignore(hd_err_set(err, HD_E_TLS,
                             "the CSR's key must be RSA of 2048 bits or more, EC "
                             "P-256 or P-384, or Ed25519"));
        EVP_PKEY_free(key);
        key = NULL;
    } else if (X509_REQ_verify(req, key) != 1) {
        hd_ignore(fail(err, "the CSR's signature is wrong"));
        EVP_PKEY_free(key);
        key = NULL;
    }
    ERR_clear_error();
    X509_REQ_free(req);
    return key;
}

static int64_t expiry_of(X509 *cert)
{
    int days = 0, seconds = 0;

    if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) != 1)
        return 0;
    return (int64_t)time(NULL) + (int64_t)days * 86400 + seconds;
}

static X509 *make_leaf(hd_ca_t *ca, EVP_PKEY *key, hd_str_t spiffe_id, uint64_t ttl_s)
{
    X509 *cert = X509_new();
    int64_t now_s = time(NULL);
    int64_t until_s = hd_min(now_s + (int64_t)ttl_s, expiry_of(ca->cert));
    const EVP_MD *digest =
        EVP_PKEY_get_base_id(ca->key) == EVP_PKEY_ED25519 ? NULL : EVP_sha256();

    if (cert == NULL)
        return NULL;
    if (X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
        set_times(cert, now_s - BACKDATE_S, until_s) &&
        X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) == 1 &&
        X509_set_pubkey(cert, key) == 1 &&
        add_extension(cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE") &&
        add_extension(cert, ca->cert, NID_key_usage,
                      "critical,digitalSignature,keyEncipherment") &&
        add_extension(cert, ca->cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
        add_extension(cert, ca->cert, NID_authority_key_identifier, "keyid") &&
        add_spiffe_san(cert, spiffe_id) && X509_sign(cert, ca->key, digest) > 0)
        return cert;
    X509_free(cert);
    return NULL;
}

hd_rc_t hd_ca_sign(hd_ca_t *ca, hd_str_t csr_pem, hd_str_t spiffe_id, uint64_t ttl_s,
                   hd_pool_t *pool, hd_str_t *leaf_pem, hd_err_t *err)
{
    EVP_PKEY *key;
    X509 *leaf;

    if (!hd_str_has_prefix(spiffe_id, HD_STR("spiffe://")) ||
        spiffe_id.len > SPIFFE_ID_MAX)
        return hd_err_set(err, HD_E_TLS, "no SPIFFE ID: %.*s", HD_STR_ARG(spiffe_id));
    key = take_csr_key(csr_pem, err);
    if (key == NULL)
        return HD_ERROR;
    if (ttl_s == 0)
        ttl_s = HD_CA_TTL_DEFAULT_S;
    ttl_s = hd_max(hd_min(ttl_s, (uint64_t)HD_CA_TTL_MAX_S), (uint64_t)HD_CA_TTL_MIN_S);
    leaf = make_leaf(ca, key, spiffe_id, ttl_s);
    EVP_PKEY_free(key);
    if (leaf == NULL)
        return fail(err, "can't sign the certificate");
    *leaf_pem = cert_to_pem(leaf, pool);
    X509_free(leaf);
    return leaf_pem->len > 0 ? HD_OK : fail(err, "can't encode the certificate");
}
