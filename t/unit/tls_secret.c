/* hd_secret_check: what builders learn of a secret's texts before anybody uses them. */
#include "core/base/hd_log.h"
#include "tls_pair.h"
#include <unistd.h>

static hd_pool_t *pool;

static hd_rc_t check(const char *chain, const char *key, const char *roots,
                     const char *crl, hd_secret_t *s, hd_err_t *err)
{
    *s = (hd_secret_t){.chain_pem = hd_str_c(chain),
                       .key_pem = hd_str_c(key),
                       .trust_pem = hd_str_c(roots),
                       .crl_pem = hd_str_c(crl)};
    hd_err_clear(err);
    return hd_secret_check(s, pool, err);
}

static void refused(const char *name, const char *chain, const char *key,
                    const char *roots, const char *crl, const char *says)
{
    hd_err_t err = {0};
    hd_secret_t s;
    hd_rc_t rc = check(chain, key, roots, crl, &s, &err);

    ok(rc == HD_ERROR && strstr(err.text, says) != NULL, "%s: %s", name, err.text);
}

static char *join(const char *a, const char *b)
{
    char *text = malloc(strlen(a) + strlen(b) + 1);

    memcpy(text, a, strlen(a));
    memcpy(text + strlen(a), b, strlen(b) + 1);
    return text;
}

static char *locked_key(const cert_t *c)
{
    BIO *bio = BIO_new(BIO_s_mem());

    PEM_write_bio_PKCS8PrivateKey(bio, c->key, EVP_aes_128_cbc(), "pass", 4, NULL, NULL);
    return cert_take_text(bio);
}

static char *traditional_key(const cert_t *c)
{
    BIO *bio = BIO_new(BIO_s_mem());

    PEM_write_bio_PrivateKey_traditional(bio, c->key, NULL, NULL, 0, NULL, NULL);
    return cert_take_text(bio);
}

static void test_good(const cert_t *root)
{
    static const char *const types[] = {"EC", "RSA", "ED25519"};
    hd_err_t err = {0};
    hd_secret_t s;

    for (size_t i = 0; i < hd_countof(types); i++) {
        cert_t c = cert_make(&(cert_spec_t){
            .by = root, .type = types[i], .uris = {"spiffe://td/ns/a/sa/b"}});
        char *old = traditional_key(&c);

        is_int(check(c.chain_pem, c.key_pem, root->chain_pem, NULL, &s, &err), HD_OK,
               "%s: %s", types[i], err.text);
        ok(hd_str_eq(s.spiffe_id, HD_STR("spiffe://td/ns/a/sa/b")), "its SPIFFE ID");
        ok(s.not_after_s == hd_tls_time_s(X509_get0_notAfter(c.x509)) &&
               s.not_after_s > 1700000000,
           "its end");
        if (strcmp(types[i], "ED25519") != 0) /* has no such form */
            is_int(check(c.chain_pem, old, NULL, NULL, &s, &err), HD_OK, "%s, old form",
                   types[i]);
        free(old);
        cert_free(&c);
    }
    is_int(check(NULL, NULL, root->chain_pem, NULL, &s, &err), HD_OK, "roots alone");
    is_int(check(NULL, NULL, NULL, NULL, &s, &err), HD_OK, "nothing is no error here");
}

static void test_refused(const cert_t *root)
{
    cert_t a = cert_make(&(cert_spec_t){.by = root, .dns = {"a"}});
    cert_t b = cert_make(&(cert_spec_t){.by = root, .dns = {"b"}});
    cert_t two =
        cert_make(&(cert_spec_t){.by = root, .uris = {"spiffe://a/b", "spiffe://a/c"}});
    cert_t nul =
        cert_make(&(cert_spec_t){.by = root, .raw_dns = "a\0b", .raw_dns_len = 3});
    cert_t odd = cert_make(&(cert_spec_t){.by = root, .uris = {"spiffe://a/../b"}});
    cert_t x = cert_make(&(cert_spec_t){.by = root, .type = "X25519"});
    char *b_first = join(b.chain_pem, a.chain_pem), *locked = locked_key(&a);
    char *cut = join(a.chain_pem, a.chain_pem), *bad = join(a.chain_pem, "");
    char *crl = cert_crl(root, NULL);

    refused("another's key", a.chain_pem, b.key_pem, NULL, NULL, "doesn't belong");
    refused("the leaf isn't first", b_first, a.key_pem, NULL, NULL,
            "belongs to certificate 2 of the chain: the leaf must come first");
    refused("no key", a.chain_pem, NULL, NULL, NULL, "without its private key");
    refused("no certificate", NULL, a.key_pem, NULL, NULL, "without its certificate");
    refused("garbage as certificate", "garbage", a.key_pem, NULL, NULL,
            "BEGIN CERTIFICATE");
    refused("garbage as key", a.chain_pem, "garbage", NULL, NULL, "BEGIN PRIVATE KEY");
    refused("they are swapped", a.key_pem, a.chain_pem, NULL, NULL, "BEGIN CERTIFICATE");
    refused("a passphrase", a.chain_pem, locked, NULL, NULL, "passphrase");
    refused("a key of another kind", a.chain_pem, x.key_pem, NULL, NULL,
            "X25519: RSA, EC and Ed25519");
    cut[strlen(a.chain_pem) + 200] = '\0';
    refused("a chain cut off", cut, a.key_pem, NULL, NULL, "certificate 2 is damaged");
    bad[100] = bad[100] == 'A' ? 'B' : 'A';
    bad[101] = '!';
    refused("a damaged certificate", bad, a.key_pem, NULL, NULL,
            "certificate 1 is damaged");
    refused("two SPIFFE IDs", two.chain_pem, two.key_pem, NULL, NULL, "2 SPIFFE IDs");
    refused("a zero byte in a name", nul.chain_pem, nul.key_pem, NULL, NULL, "zero byte");
    refused("no SPIFFE ID, though it says so", odd.chain_pem, odd.key_pem, NULL, NULL,
            "no SPIFFE ID");
    refused("garbage as roots", NULL, NULL, "garbage", NULL, "trusted roots");
    refused("garbage as revocation list", NULL, NULL, root->chain_pem, "garbage",
            "revocation lists");
    refused("a revocation list alone", NULL, NULL, NULL, crl, "without roots");
    free(b_first);
    free(locked);
    free(cut);
    free(bad);
    free(crl);
    cert_free(&a);
    cert_free(&b);
    cert_free(&two);
    cert_free(&nul);
    cert_free(&odd);
    cert_free(&x);
}

static void test_warned(const cert_t *root)
{
    cert_t old = cert_make(&(cert_spec_t){
        .by = root, .uris = {"spiffe://td/old"}, .from_s = -90000, .to_s = -7300});
    cert_t young = cert_make(&(cert_spec_t){
        .by = root, .uris = {"spiffe://td/young"}, .from_s = 3600, .to_s = 7200});
    int fds[2], log_fd = hd_log_fd();
    char log[1024] = "";
    hd_err_t err = {0};
    hd_secret_t s;

    if (pipe(fds) != 0)
        abort();
    hd_log_level = HD_LOG_WARN;
    hd_log_set_fd(fds[1]);
    is_int(check(old.chain_pem, old.key_pem, NULL, NULL, &s, &err), HD_OK,
           "expired: it is published all the same, for peers will say so");
    is_int(check(young.chain_pem, young.key_pem, NULL, NULL, &s, &err), HD_OK);
    hd_log_set_fd(log_fd);
    close(fds[1]);
    hd_ignore(read(fds[0], log, sizeof(log) - 1) < 0);
    close(fds[0]);
    ok(strstr(log, "'spiffe://td/old' has expired 2 hours ago") != NULL, "but said: %s",
       log);
    ok(strstr(log, "'spiffe://td/young' becomes valid in 60 minutes") != NULL);
    cert_free(&old);
    cert_free(&young);
}

static void test_spiffe_id(void)
{
    static const char *const good[] = {"spiffe://td", "spiffe://a.b-c_1/ns/X/sa/y",
                                       "spiffe://td/A.b-c_d"};
    static const char *const bad[] = {"",
                                      "spiffe://",
                                      "spiffe:///ns",
                                      "spiffe://td/",
                                      "spiffe://td//a",
                                      "spiffe://td/./a",
                                      "spiffe://td/..",
                                      "spiffe://TD/a",
                                      "SPIFFE://td/a",
                                      "spiffe://td:80/a",
                                      "spiffe://u@td/a",
                                      "spiffe://td/a?b",
                                      "spiffe://td/a#b",
                                      "spiffe://td/a%20b",
                                      "spiffe://td/a b",
                                      "https://td/a"};

    for (size_t i = 0; i < hd_countof(good); i++)
        ok(hd_tls_is_spiffe_id(hd_str_c(good[i])), "an ID: %s", good[i]);
    for (size_t i = 0; i < hd_countof(bad); i++)
        ok(!hd_tls_is_spiffe_id(hd_str_c(bad[i])), "none: '%s'", bad[i]);
}

int main(void)
{
    cert_t root = cert_root("Root");

    (void)loom_start;
    (void)loom_stop;
    (void)pair_start;
    (void)turns;
    pool = hd_pool_create(0);
    test_good(&root);
    test_refused(&root);
    test_warned(&root);
    test_spiffe_id();
    hd_pool_destroy(pool);
    cert_free(&root);
    return done_testing();
}
