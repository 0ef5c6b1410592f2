/* hd_ocsp: which answers count, at which time, signed by whom; responders' URLs. */
#include "core/net/hd_ocsp.h"
#include "t/lib/certs.h"
#include "t/lib/tap.h"
#include <openssl/ocsp.h>
#include <time.h>

static cert_t root, other_root, leaf, sibling, delegate, false_delegate;
static int64_t now_s;

typedef struct {
    int status;             /* V_OCSP_CERTSTATUS_GOOD… */
    int64_t this_s, next_s; /* from now; next_s 0: isn't said */
    const cert_t *by;       /* NULL: the root */
    const cert_t *about;    /* NULL: the leaf */
    bool is_bare;           /* the signer's certificate isn't sent along */
} told_t;

static ASN1_GENERALIZEDTIME *at(int64_t s)
{
    return ASN1_GENERALIZEDTIME_set(NULL, (time_t)(now_s + s));
}

static hd_str_t tell(const told_t *told)
{
    static unsigned char der[8192];
    const cert_t *by = told->by != NULL ? told->by : &root;
    const cert_t *about = told->about != NULL ? told->about : &leaf;
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, about->x509, root.x509);
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    ASN1_GENERALIZEDTIME *this_at = at(told->this_s),
                         *next_at = told->next_s != 0 ? at(told->next_s) : NULL;
    OCSP_RESPONSE *response;
    unsigned char *to = der;
    int len;

    OCSP_basic_add1_status(basic, id, told->status, 0,
                           told->status == V_OCSP_CERTSTATUS_REVOKED ? this_at : NULL,
                           this_at, next_at);
    OCSP_basic_sign(basic, by->x509, by->key, EVP_sha256(), NULL,
                    told->is_bare ? OCSP_NOCERTS : 0);
    response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    len = i2d_OCSP_RESPONSE(response, &to);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_GENERALIZEDTIME_free(this_at);
    ASN1_GENERALIZEDTIME_free(next_at);
    return hd_str_n((const char *)der, (size_t)len);
}

static hd_ocsp_t *make(const char *trust_pem, bool verifies)
{
    char chain[8192];
    hd_err_t err = {0};
    hd_ocsp_t *o;

    snprintf(chain, sizeof(chain), "%s%s", leaf.chain_pem, root.chain_pem);
    o = hd_ocsp_create(hd_str_c(chain), hd_str_c(trust_pem), verifies, &err);
    if (o == NULL)
        diag("%s", err.text);
    return o;
}

static void counts(const hd_ocsp_t *o, const told_t *told, hd_ocsp_status_t status,
                   const char *what)
{
    hd_ocsp_answer_t a;
    hd_err_t err = {0};
    hd_rc_t rc = hd_ocsp_judge(o, tell(told), now_s, &a, &err);

    ok(rc == HD_OK && a.status == status && a.this_s == now_s + told->this_s &&
           a.next_s == (told->next_s != 0 ? now_s + told->next_s : 0),
       "%s%s%s", what, rc != HD_OK ? ": " : "", err.text);
}

static void refused(const hd_ocsp_t *o, hd_str_t der, const char *says, const char *what)
{
    hd_ocsp_answer_t a;
    hd_err_t err = {0};

    ok(hd_ocsp_judge(o, der, now_s, &a, &err) == HD_ERROR &&
           strstr(err.text, says) != NULL,
       "%s: %s", what, err.text);
}

static void test_judge(void)
{
    hd_ocsp_t *o = make(NULL, false);
    char bytes[8192];
    hd_str_t der;

    counts(o, &(told_t){V_OCSP_CERTSTATUS_GOOD, -10, 100, NULL, NULL, false},
           HD_OCSP_GOOD, "good");
    counts(o, &(told_t){V_OCSP_CERTSTATUS_REVOKED, -10, 100, NULL, NULL, false},
           HD_OCSP_REVOKED, "revoked");
    counts(o, &(told_t){V_OCSP_CERTSTATUS_UNKNOWN, -10, 100, NULL, NULL, false},
           HD_OCSP_UNKNOWN, "unknown");
    counts(o, &(told_t){.this_s = -10}, HD_OCSP_GOOD, "without an end");
    counts(o, &(told_t){.this_s = HD_OCSP_SKEW_S, .next_s = 1000}, HD_OCSP_GOOD,
           "a clock that is a little ahead");
    refused(o, tell(&(told_t){.this_s = HD_OCSP_SKEW_S + 1, .next_s = 1000}),
            "not valid before", "one that is more so");
    counts(o, &(told_t){.this_s = -1000, .next_s = -HD_OCSP_SKEW_S}, HD_OCSP_GOOD,
           "just over, by a clock that may be behind");
    refused(o, tell(&(told_t){.this_s = -1000, .next_s = -HD_OCSP_SKEW_S - 1}),
            "ended 301 s ago", "over");
    refused(o, tell(&(told_t){.this_s = -10, .next_s = -20}), "make no sense",
            "an end before its beginning");
    counts(o, &(told_t){.this_s = -10, .by = &delegate}, HD_OCSP_GOOD,
           "by whom the issuer has made a responder");
    refused(o, tell(&(told_t){.this_s = -10, .by = &false_delegate}), "isn't signed",
            "by whom it hasn't");
    refused(o, tell(&(told_t){.this_s = -10, .by = &leaf}), "isn't signed",
            "by the certificate itself");
    refused(o, tell(&(told_t){.this_s = -10, .by = &other_root}), "isn't signed",
            "by a stranger of the issuer's name");
    refused(o, tell(&(told_t){.this_s = -10, .about = &sibling}), "another certificate",
            "about another");
    der = tell(&(told_t){.this_s = -10});
    memcpy(bytes, der.data, der.len);
    bytes[der.len] = '\0';
    refused(o, hd_str_n(bytes, der.len + 1), "damaged", "a byte behind it");
    refused(o, hd_str_n(bytes, der.len - 1), "damaged", "a byte less");
    refused(o, hd_str_n(bytes, 0), "0 bytes", "nothing");
    for (size_t i = 0, wrong_n = 0; i <= der.len; i++) {
        hd_ocsp_answer_t a;
        hd_err_t err = {0};

        if (i == der.len) {
            ok(wrong_n == 0, "no byte of it can be changed without notice");
            break;
        }
        bytes[i] ^= 1;
        /* What OpenSSL doesn't hold signed: a few bytes of the frame, and of the
         * certificate that is sent along; then it says the same. */
        wrong_n += hd_ocsp_judge(o, hd_str_n(bytes, der.len), now_s, &a, &err) == HD_OK &&
                   (a.status != HD_OCSP_GOOD || a.this_s != now_s - 10);
        bytes[i] ^= 1;
    }
    hd_ocsp_destroy(o);
}

static void test_trust(void)
{
    hd_ocsp_t *o = make(root.chain_pem, true);
    hd_err_t err = {0};

    counts(o, &(told_t){.this_s = -10}, HD_OCSP_GOOD, "with a path to a root");
    hd_ocsp_destroy(o);
    o = make(other_root.chain_pem, true);
    refused(o, tell(&(told_t){.this_s = -10}), "isn't signed", "without one");
    hd_ocsp_destroy(o);
    o = make(NULL, true);
    refused(o, tell(&(told_t){.this_s = -10}), "isn't signed", "with no roots at all");
    hd_ocsp_destroy(o);
    ok(hd_ocsp_create(hd_str_c(leaf.chain_pem), HD_STR_NONE, false, &err) == NULL &&
           err.code == HD_E_CONF,
       "no issuer: %s", err.text);
    hd_err_clear(&err);
    ok(hd_ocsp_create(HD_STR("x"), HD_STR_NONE, false, &err) == NULL &&
           err.code != HD_E_CONF,
       "no certificate: %s", err.text);
    o = hd_ocsp_create(hd_str_c(leaf.chain_pem), hd_str_c(root.chain_pem), false, &err);
    ok(o != NULL && hd_ocsp_responder(o).len == 0, "an issuer among the trusted");
    counts(o, &(told_t){.this_s = -10, .is_bare = true}, HD_OCSP_GOOD,
           "... who signs and sends no certificate");
    refused(o, tell(&(told_t){.this_s = -10, .by = &other_root, .is_bare = true}),
            "isn't signed", "... and a stranger who sends none");
    hd_ocsp_destroy(o);
}

static void url_is(const char *text, const char *host, unsigned port, const char *path)
{
    hd_ocsp_url_t url;
    hd_err_t err = {0};
    bool good = hd_ocsp_parse_url(hd_str_c(text), &url, &err) == HD_OK;

    if (host == NULL)
        ok(!good && err.text[0] != '\0', "%s: %s", text, err.text);
    else
        ok(good && hd_str_eq(url.host, hd_str_c(host)) && url.port == port &&
               hd_str_eq(url.path, hd_str_c(path)),
           "%s %s", text, err.text);
}

static void test_url(void)
{
    url_is("http://ocsp.test", "ocsp.test", 80, "/");
    url_is("HTTP://ocsp.test:8080/a/b", "ocsp.test", 8080, "/a/b");
    url_is("http://10.0.0.1/", "10.0.0.1", 80, "/");
    url_is("http://[::1]:81/x", "::1", 81, "/x");
    url_is("http://[::1]", "::1", 80, "/");
    url_is("https://ocsp.test/", NULL, 0, NULL);
    url_is("ldap://ocsp.test/", NULL, 0, NULL);
    url_is("", NULL, 0, NULL);
    url_is("http://", NULL, 0, NULL);
    url_is("http:///path", NULL, 0, NULL);
    url_is("http://host:0/", NULL, 0, NULL);
    url_is("http://host:65536/", NULL, 0, NULL);
    url_is("http://host:80x/", NULL, 0, NULL);
    url_is("http://user@host/", NULL, 0, NULL);
    url_is("http://a..b/", NULL, 0, NULL);
    url_is("http://[::1/", NULL, 0, NULL);
    url_is("http://[]/", NULL, 0, NULL);
    url_is("http://[::1]80/", NULL, 0, NULL);
    url_is("http://[10.0.0.1]/", NULL, 0, NULL);
    url_is("http://host/a b", NULL, 0, NULL);
    url_is("http://host/\r\nX: y", NULL, 0, NULL);
    url_is("http://host/#x", NULL, 0, NULL);
    url_is("http://host/\xc3\xa4", NULL, 0, NULL);
}

int main(void)
{
    now_s = (int64_t)time(NULL);
    root = cert_make(&(cert_spec_t){.subject = "Root", .is_ca = true, .serial = 1});
    other_root = cert_make(&(cert_spec_t){.subject = "Root", .is_ca = true, .serial = 1});
    leaf = cert_make(&(cert_spec_t){.by = &root, .dns = {"a.test"}, .serial = 2});
    sibling = cert_make(&(cert_spec_t){.by = &root, .dns = {"b.test"}, .serial = 3});
    delegate = cert_make(&(cert_spec_t){
        .by = &root, .subject = "Responder", .eku = "OCSPSigning", .serial = 4});
    false_delegate = cert_make(&(cert_spec_t){
        .by = &root, .subject = "Server", .eku = "serverAuth", .serial = 5});
    test_judge();
    test_trust();
    test_url();
    cert_free(&root);
    cert_free(&other_root);
    cert_free(&leaf);
    cert_free(&sibling);
    cert_free(&delegate);
    cert_free(&false_delegate);
    return done_testing();
}
