#include "core/net/hd_ocsp.h"
#include "core/net/hd_ocsp_int.h"
#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <stdlib.h>

struct hd_ocsp_s {
    X509 *cert, *issuer;
    X509_STORE *store;          /* a signer needs a path to something in it */
    STACK_OF(X509) * others;    /* may be on that path, or sign; the issuer, too */
    OCSP_CERTID *id;
    unsigned char *request;
    size_t request_len;
    uint8_t fingerprint[32];
    char *responder; /* NULL: none */
};

const hd_ocsp_fetcher_t *hd_ocsp_fetcher;

/* --- one certificate --- */

/* The first one; a certificate may name several, and hardly any does. */
static char *find_responder(X509 *cert)
{
    STACK_OF(OPENSSL_STRING) *urls = X509_get1_ocsp(cert);
    char *first = NULL;

    if (urls != NULL && sk_OPENSSL_STRING_num(urls) > 0)
        first = strdup(sk_OPENSSL_STRING_value(urls, 0));
    X509_email_free(urls);
    return first;
}

static void make_request(hd_ocsp_t *o)
{
    OCSP_REQUEST *request = OCSP_REQUEST_new();
    OCSP_CERTID *id = OCSP_CERTID_dup(o->id);
    int len;

    hd_bug_on(request == NULL || id == NULL || OCSP_request_add0_id(request, id) == NULL);
    len = i2d_OCSP_REQUEST(request, &o->request);
    hd_bug_on(len <= 0);
    o->request_len = (size_t)len;
    OCSP_REQUEST_free(request);
}

hd_ocsp_t *hd_ocsp_create_of(X509 *cert, X509 *issuer, X509_STORE *store,
                             STACK_OF(X509) * others)
{
    hd_ocsp_t *o = calloc(1, sizeof(*o));
    unsigned n = 0;

    hd_bug_on(o == NULL || X509_up_ref(cert) != 1 || X509_up_ref(issuer) != 1 ||
              X509_STORE_up_ref(store) != 1);
    o->cert = cert;
    o->issuer = issuer;
    o->store = store;
    o->others = others != NULL ? X509_chain_up_ref(others) : sk_X509_new_null();
    /* who signs by himself sends no certificate along, and needn't be in the chain */
    hd_bug_on(o->others == NULL || X509_up_ref(issuer) != 1 ||
              sk_X509_push(o->others, issuer) == 0);
    o->id = OCSP_cert_to_id(NULL, cert, issuer); /* by SHA-1 (RFC 5019 §2.1.1) */
    hd_bug_on(o->id == NULL ||
              X509_digest(cert, EVP_sha256(), o->fingerprint, &n) != 1 || n != 32);
    o->responder = find_responder(cert);
    make_request(o);
    ERR_clear_error();
    return o;
}

void hd_ocsp_destroy(hd_ocsp_t *o)
{
    if (o == NULL)
        return;
    X509_free(o->cert);
    X509_free(o->issuer);
    X509_STORE_free(o->store);
    sk_X509_pop_free(o->others, X509_free);
    OCSP_CERTID_free(o->id);
    OPENSSL_free(o->request);
    free(o->responder);
    free(o);
}

static X509 *find_issuer(const STACK_OF(X509) * certs, X509 *cert)
{
    for (int i = 0; i < sk_X509_num(certs); i++)
        if (X509_check_issued(sk_X509_value(certs, i), cert) == X509_V_OK)
            return sk_X509_value(certs, i);
    ERR_clear_error();
    return NULL;
}

/* Of <trusted>, or, where no path to one of them is asked for, of the issuer alone. */
static X509_STORE *make_store(const STACK_OF(X509) * trusted, bool verifies, X509 *issuer)
{
    X509_STORE *store = X509_STORE_new();

    hd_bug_on(store == NULL);
    for (int i = 0; verifies && i < sk_X509_num(trusted); i++)
        hd_bug_on(X509_STORE_add_cert(store, sk_X509_value(trusted, i)) != 1);
    if (!verifies)
        hd_bug_on(X509_STORE_add_cert(store, issuer) != 1);
    return store;
}

hd_ocsp_t *hd_ocsp_create(hd_str_t chain_pem, hd_str_t trust_pem, bool verifies,
                          hd_err_t *err)
{
    STACK_OF(X509) *chain = hd_tls_read_certs(chain_pem, "the certificate chain", err);
    STACK_OF(X509) *trust = NULL;
    hd_ocsp_t *o = NULL;

    if (chain != NULL && trust_pem.len > 0)
        trust = hd_tls_read_certs(trust_pem, "the trusted roots", err);
    if (chain != NULL && (trust != NULL || trust_pem.len == 0)) {
        X509 *cert = sk_X509_value(chain, 0), *issuer = find_issuer(chain, cert);
        X509_STORE *store;

        if (issuer == NULL || issuer == cert)
            issuer = find_issuer(trust, cert);
        if (issuer == NULL) {
            hd_ignore(hd_err_set(err, HD_E_CONF, "issuer certificate not found") !=
                      HD_ERROR);
        } else {
            store = make_store(trust, verifies, issuer);
            o = hd_ocsp_create_of(cert, issuer, store, chain);
            X509_STORE_free(store);
        }
    }
    sk_X509_pop_free(chain, X509_free);
    sk_X509_pop_free(trust, X509_free);
    return o;
}

hd_str_t hd_ocsp_responder(const hd_ocsp_t *o)
{
    return hd_str_c(o->responder);
}

hd_str_t hd_ocsp_request(const hd_ocsp_t *o)
{
    return hd_str_n((const char *)o->request, o->request_len);
}

const uint8_t *hd_ocsp_fingerprint(const hd_ocsp_t *o)
{
    return o->fingerprint;
}

/* --- its answer --- */

static hd_rc_t fail(hd_err_t *err, const char *what)
{
    unsigned long e = ERR_peek_last_error();
    const char *why = e != 0 ? ERR_reason_error_string(e) : NULL;

    ERR_clear_error();
    return why != NULL ? hd_err_set(err, HD_E_TLS, "%s (%s)", what, why)
                       : hd_err_set(err, HD_E_TLS, "%s", what);
}

static int64_t time_of(const ASN1_GENERALIZEDTIME *t)
{
    return hd_tls_time_s(t);
}

/* RFC 6960 §4.2.2.1, §3.2 */
static hd_rc_t check_times(const ASN1_GENERALIZEDTIME *this_at,
                           const ASN1_GENERALIZEDTIME *next_at, int64_t now_s,
                           hd_ocsp_answer_t *a, hd_err_t *err)
{
    a->this_s = this_at != NULL ? time_of(this_at) : 0;
    a->next_s = next_at != NULL ? time_of(next_at) : 0;
    if (a->this_s == 0 || (next_at != NULL && a->next_s < a->this_s))
        return hd_err_set(err, HD_E_TLS, "the OCSP response's times make no sense");
    if (a->this_s > now_s + HD_OCSP_SKEW_S)
        return hd_err_set(err, HD_E_TLS, "the OCSP response is not valid before %lld s",
                          (long long)(a->this_s - now_s));
    if (a->next_s != 0 && a->next_s < now_s - HD_OCSP_SKEW_S)
        return hd_err_set(err, HD_E_TLS, "the OCSP response ended %lld s ago",
                          (long long)(now_s - a->next_s));
    return HD_OK;
}

static hd_rc_t judge_basic(const hd_ocsp_t *o, OCSP_BASICRESP *basic, int64_t now_s,
                           hd_ocsp_answer_t *a, hd_err_t *err)
{
    ASN1_GENERALIZEDTIME *this_at = NULL, *next_at = NULL;
    int status, reason;

    if (OCSP_basic_verify(basic, o->others, o->store,
                          OCSP_PARTIAL_CHAIN | OCSP_NOEXPLICIT) != 1)
        return fail(err, "the OCSP response isn't signed by the certificate's issuer, or "
                         "for it");
    if (OCSP_resp_find_status(basic, o->id, &status, &reason, NULL, &this_at, &next_at) !=
        1)
        return fail(err, "the OCSP response is about another certificate");
    a->status = status == V_OCSP_CERTSTATUS_GOOD      ? HD_OCSP_GOOD
                : status == V_OCSP_CERTSTATUS_REVOKED ? HD_OCSP_REVOKED
                                                      : HD_OCSP_UNKNOWN;
    return check_times(this_at, next_at, now_s, a, err);
}

hd_rc_t hd_ocsp_judge(const hd_ocsp_t *o, hd_str_t der, int64_t now_s,
                      hd_ocsp_answer_t *answer, hd_err_t *err)
{
    const unsigned char *at = (const unsigned char *)der.data;
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic = NULL;
    hd_rc_t rc;
    int status;

    ERR_clear_error();
    if (der.len == 0 || der.len > HD_OCSP_ANSWER_MAX)
        return hd_err_set(err, HD_E_TLS, "an OCSP response of %zu bytes", der.len);
    response = d2i_OCSP_RESPONSE(NULL, &at, (long)der.len);
    if (response == NULL || at != (const unsigned char *)der.data + der.len) {
        OCSP_RESPONSE_free(response);
        return fail(err, "the OCSP response is damaged");
    }
    status = OCSP_response_status(response);
    if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        rc = hd_err_set(err, HD_E_TLS, "the OCSP response tells of a failure (%d: %s)",
                        status, OCSP_response_status_str(status));
    else if ((basic = OCSP_response_get1_basic(response)) == NULL)
        rc = fail(err, "the OCSP response is of a kind that isn't known");
    else
        rc = judge_basic(o, basic, now_s, answer, err);
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return rc;
}

/* --- asking --- */

static bool is_plain(hd_str_t text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] <= ' ' || text.data[i] >= 0x7f || text.data[i] == '#')
            return false;
    return true;
}

static bool split_authority(hd_ocsp_url_t *url)
{
    hd_str_t rest = url->authority;
    uint64_t port = 80;
    ssize_t at;

    if (rest.len > 0 && rest.data[0] == '[') {
        hd_addr_t ip;

        if ((at = hd_str_find_char(rest, ']')) < 0)
            return false;
        url->host = hd_str_sub(rest, 1, (size_t)at - 1);
        rest = hd_str_sub(rest, (size_t)at + 1, rest.len);
        if (!hd_addr_parse_ip(url->host, &ip) || ip.family != AF_INET6 ||
            (rest.len > 0 &&
             (rest.data[0] != ':' ||
              !hd_str_to_u64(hd_str_sub(rest, 1, rest.len), 65535, &port))))
            return false;
        url->port = (uint16_t)port;
        return port > 0;
    }
    return hd_resolve_split(url->authority, 80, &url->host, &url->port);
}

hd_rc_t hd_ocsp_parse_url(hd_str_t text, hd_ocsp_url_t *url, hd_err_t *err)
{
    hd_str_t rest = hd_str_sub(text, 7, text.len);
    ssize_t slash = hd_str_find_char(rest, '/');

    if (!hd_str_has_prefix_nocase(text, HD_STR("http://")))
        return hd_err_set(err, HD_E_CONF,
                          "invalid URL prefix in OCSP responder \"%.*s\": http:// is "
                          "expected",
                          (int)hd_min(text.len, 200u), text.data);
    url->authority = slash < 0 ? rest : hd_str_sub(rest, 0, (size_t)slash);
    url->path = slash < 0 ? HD_STR("/") : hd_str_sub(rest, (size_t)slash, rest.len);
    if (text.len > 2048 || !is_plain(text) || !split_authority(url))
        return hd_err_set(err, HD_E_CONF, "invalid host in OCSP responder \"%.*s\"",
                          (int)hd_min(text.len, 200u), text.data);
    return HD_OK;
}
