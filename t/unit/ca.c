/* The mesh's CA and its callers' tokens: who gets which certificate, and what is refused.
 */
#include "control/hd_ca.h"
#include "control/hd_tokens.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tap.h"

static char dir[64] = "/tmp/heddle-ca-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(in_dir(name), "w");

    fputs(text, f);
    fclose(f);
    chmod(in_dir(name), mode);
}

static hd_str_t make_csr(hd_pool_t *pool, EVP_PKEY *key, EVP_PKEY *signer)
{
    X509_REQ *req = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    hd_str_t pem;

    X509_REQ_set_pubkey(req, key);
    X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_ASC,
                               (const uint8_t *)"admin", -1, -1, 0);
    X509_REQ_sign(req, signer, EVP_sha256());
    PEM_write_bio_X509_REQ(bio, req);
    pem.len = (size_t)BIO_get_mem_data(bio, &data);
    pem = hd_str_dup(pool, hd_str_n(data, pem.len));
    BIO_free(bio);
    X509_REQ_free(req);
    return pem;
}

static X509 *read_cert(hd_str_t pem)
{
    BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return cert;
}

static void test_sign(hd_ca_t *ca, hd_pool_t *pool)
{
    static const char id[] = "spiffe://cluster.local/ns/shop/sa/page,DNS:evil";
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256"),
             *weak = EVP_RSA_gen(1024);
    hd_err_t err = {0};
    GENERAL_NAMES *names;
    hd_str_t leaf;
    X509 *cert, *root;

    is_int(
        hd_ca_sign(ca, make_csr(pool, key, key), hd_str_c(id), 3600, pool, &leaf, &err),
        HD_OK);
    cert = read_cert(leaf);
    root = read_cert(hd_ca_root_pem(ca));
    EVP_PKEY *root_key = X509_get_pubkey(root);

    is_int(X509_verify(cert, root_key), 1, "signed by the root");
    is_int(X509_NAME_entry_count(X509_get_subject_name(cert)), 0,
           "nothing of the CSR's subject is taken over");
    names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    is_int(sk_GENERAL_NAME_num(names), 1, "one SAN, whatever stands in the identity");
    is_mem(ASN1_STRING_get0_data(sk_GENERAL_NAME_value(names, 0)->d.ia5), id,
           sizeof(id) - 1, "the caller's identity");
    ok(X509_check_ca(cert) == 0, "a leaf is no CA");
    GENERAL_NAMES_free(names);
    EVP_PKEY_free(root_key);
    X509_free(cert);
    X509_free(root);

    is_int(hd_ca_sign(ca, make_csr(pool, key, other), hd_str_c(id), 0, pool, &leaf, &err),
           HD_ERROR, "a CSR signed by another key");
    hd_err_clear(&err);
    is_int(hd_ca_sign(ca, make_csr(pool, weak, weak), hd_str_c(id), 0, pool, &leaf, &err),
           HD_ERROR);
    ok(strstr(err.text, "2048 bits") != NULL, "a weak key: %s", err.text);
    hd_err_clear(&err);
    is_int(
        hd_ca_sign(ca, HD_STR("-----BEGIN nonsense"), hd_str_c(id), 0, pool, &leaf, &err),
        HD_ERROR);
    hd_err_clear(&err);
    is_int(hd_ca_sign(ca, make_csr(pool, key, key), HD_STR("https://x"), 0, pool, &leaf,
                      &err),
           HD_ERROR, "no SPIFFE ID");
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    EVP_PKEY_free(weak);
}

/* As a root that follows another is put there: trusted by all first, then it signs. */
static void test_next_root(hd_ca_t *ca, hd_pool_t *pool)
{
    hd_str_t other_dir = hd_str_printf(pool, "%s/other", dir);
    hd_err_t err = {0};
    hd_ca_t *other = hd_ca_open(other_dir, HD_STR("cluster.local"), &err);
    hd_str_t old = hd_str_dup(pool, hd_ca_root_pem(ca)), leaf, both;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert, *root = read_cert(hd_ca_root_pem(other));
    EVP_PKEY *root_key = X509_get_pubkey(root);

    both = hd_str_printf(pool, "%.*s%.*s", HD_STR_ARG(old),
                         HD_STR_ARG(hd_ca_root_pem(other)));
    put("ca/root-cert.pem", both.data, 0644);
    hd_ca_renew(ca);
    ok(hd_str_eq(hd_ca_root_pem(ca), both), "two roots are given out");
    put("ca/root-cert.pem", hd_ca_root_pem(other).data, 0644);
    hd_ca_renew(ca);
    ok(hd_str_eq(hd_ca_root_pem(ca), both), "not without the key: what was good stays");
    rename(in_dir("other/root-key.pem"),
           hd_str_printf(pool, "%s/ca/root-key.pem", dir).data);
    hd_ca_renew(ca);
    ok(hd_str_eq(hd_ca_root_pem(ca), hd_ca_root_pem(other)), "with its key it is taken");
    is_int(hd_ca_sign(ca, make_csr(pool, key, key), HD_STR("spiffe://a/ns/b/sa/c"), 0,
                      pool, &leaf, &err),
           HD_OK, "%s", err.text);
    cert = read_cert(leaf);
    is_int(X509_verify(cert, root_key), 1, "and signs");
    X509_free(cert);
    X509_free(root);
    EVP_PKEY_free(root_key);
    EVP_PKEY_free(key);
    hd_ca_close(other);
    unlink(in_dir("other/root-cert.pem"));
    rmdir(in_dir("other"));
}

static void test_root(hd_pool_t *pool)
{
    hd_str_t ca_dir = hd_str_printf(pool, "%s/ca", dir);
    hd_err_t err = {0};
    hd_ca_t *ca = hd_ca_open(ca_dir, HD_STR("cluster.local"), &err);
    hd_str_t first;
    struct stat st;

    ok(ca != NULL, "made (%s)", err.text);
    first = hd_str_dup(pool, hd_ca_root_pem(ca));
    test_sign(ca, pool);
    hd_ca_close(ca);
    ok(stat(in_dir("ca/root-key.pem"), &st) == 0 && (st.st_mode & 0777) == 0600,
       "key is private");
    ca = hd_ca_open(ca_dir, HD_STR("cluster.local"), &err);
    ok(hd_str_eq(first, hd_ca_root_pem(ca)), "the root on disk is taken up again");
    test_next_root(ca, pool);
    hd_ca_close(ca);
    put("ca/root-key.pem", "garbage", 0600);
    ok(hd_ca_open(ca_dir, HD_STR("cluster.local"), &err) == NULL &&
           strstr(err.text, "root-key.pem") != NULL,
       "a broken key: %s", err.text);
}

static void test_tokens(hd_pool_t *pool)
{
    hd_str_t path = hd_str_printf(pool, "%s/tokens", dir);
    hd_err_t err = {0};
    hd_caller_t caller;
    hd_tokens_t *t;

    put("tokens", "# who\n0123456789abcdef shop page\nfedcba9876543210 shop reviews\n",
        0600);
    t = hd_tokens_open(path, &err);
    ok(t != NULL, "read (%s)", err.text);
    ok(hd_tokens_find(t, HD_STR("fedcba9876543210"), &caller) &&
       hd_str_eq(caller.account, HD_STR("reviews")));
    ok(!hd_tokens_find(t, HD_STR("fedcba987654321"), &caller), "a prefix isn't enough");
    ok(!hd_tokens_find(t, HD_STR(""), &caller));

    put("tokens", "0123456789abcdef shop page\nshort shop reviews\n", 0600);
    is_int(hd_tokens_refresh(t, &err), HD_ERROR);
    ok(strstr(err.text, "tokens:2: a token has at least 16 bytes") != NULL, "%s",
       err.text);
    ok(hd_tokens_find(t, HD_STR("fedcba9876543210"), &caller),
       "the last good one stays in force");

    hd_err_clear(&err);
    put("tokens", "0123456789abcdef shop page extra\n", 0600);
    ok(hd_tokens_refresh(t, &err) == HD_ERROR && strstr(err.text, "three words") != NULL,
       "%s", err.text);
    hd_err_clear(&err);
    put("tokens", "0123456789abcdef shop Page\n\n", 0600);
    ok(hd_tokens_refresh(t, &err) == HD_ERROR && strstr(err.text, "a-z") != NULL, "%s",
       err.text);
    hd_err_clear(&err);
    put("tokens", "0123456789abcdef shop page\n\n\n", 0644);
    ok(hd_tokens_refresh(t, &err) == HD_ERROR && strstr(err.text, "chmod 600") != NULL,
       "%s", err.text);
    put("tokens", "0123456789abcdef shop page\n", 0600);
    is_int(hd_tokens_refresh(t, &err), HD_OK);
    ok(!hd_tokens_find(t, HD_STR("fedcba9876543210"), &caller),
       "what was taken out is out");
    hd_tokens_close(t);
}

int main(void)
{
    hd_pool_t *pool = hd_pool_create(0);

    ok(mkdtemp(dir) != NULL);
    test_root(pool);
    test_tokens(pool);
    hd_pool_destroy(pool);
    unlink(in_dir("ca/root-key.pem"));
    unlink(in_dir("ca/root-cert.pem"));
    rmdir(in_dir("ca"));
    unlink(in_dir("tokens"));
    rmdir(dir);
    return done_testing();
}
