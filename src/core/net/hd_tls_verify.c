/* hd_tls_verify: is the peer whom it should be? First OpenSSL's path check (signatures,
 * times, purposes, revocation), then names; each refusal is put in words here, where its
 * reason is known, and the alert follows from the error left in the store context. */
#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <time.h>

#define SCHEME HD_STR("spiffe://")

/* SPIFFE-ID §2: lower-case trust domain; path segments of letters, digits, '.', '-' and
 * '_', none of them empty, "." or "..". */
bool hd_tls_is_spiffe_id(hd_str_t id)
{
    hd_str_t rest, part;
    bool is_domain = true;

    if (id.len > 2048 || !hd_str_has_prefix(id, SCHEME))
        return false;
    rest = hd_str_sub(id, SCHEME.len, id.len);
    if (rest.len == 0 || rest.data[rest.len - 1] == '/')
        return false;
    while (hd_str_split(&rest, '/', &part)) {
        if (part.len == 0 || (is_domain && part.len > 255) ||
            (!is_domain &&
             (hd_str_eq(part, HD_STR(".")) || hd_str_eq(part, HD_STR("..")))))
            return false;
        for (size_t i = 0; i < part.len; i++) {
            char c = part.data[i];
            bool is_upper = c >= 'A' && c <= 'Z';

            if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
                  c == '-' || c == '_' || (is_upper && !is_domain)))
                return false;
        }
        is_domain = false;
    }
    return true;
}

bool hd_tls_is_trust_domain(hd_str_t name)
{
    char id[300];
    int n = snprintf(id, sizeof(id), "spiffe://%.*s", (int)hd_min(name.len, 256u),
                     name.len > 0 ? name.data : "");

    return name.len <= 255 && hd_str_find_char(name, '/') < 0 &&
           hd_tls_is_spiffe_id(hd_str_n(id, (size_t)n));
}

hd_str_t hd_tls_name_text(const ASN1_STRING *s)
{
    return hd_str_n((const char *)ASN1_STRING_get0_data(s),
                    (size_t)ASN1_STRING_length(s));
}

bool hd_tls_has_nul(const GENERAL_NAMES *names)
{
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if ((name->type == GEN_URI || name->type == GEN_DNS || name->type == GEN_EMAIL) &&
            hd_str_find_char(hd_tls_name_text(name->d.ia5), '\0') >= 0)
            return true;
    }
    return false;
}

int hd_tls_find_spiffe(const GENERAL_NAMES *names, hd_str_t *id, int *uris_n)
{
    int n = 0;

    *id = HD_STR_NONE;
    *uris_n = 0;
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        hd_str_t text;

        if (name->type != GEN_URI)
            continue;
        ++*uris_n;
        text = hd_tls_name_text(name->d.ia5);
        if (!hd_str_has_prefix_nocase(text, SCHEME))
            continue;
        if (!hd_tls_is_spiffe_id(text))
            return -1;
        if (n++ == 0)
            *id = text;
    }
    return n;
}

/* --- the path --- */

static void print_name(X509_NAME *name, char *out, size_t room)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int n;

    hd_bug_on(bio == NULL);
    hd_ignore(X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253));
    n = BIO_read(bio, out, (int)room - 1);
    out[n > 0 ? n : 0] = '\0';
    BIO_free(bio);
    if (out[0] == '\0')
        snprintf(out, room, "(no name)");
}

static void print_date(const ASN1_TIME *t, char *out, size_t room)
{
    time_t s = (time_t)hd_tls_time_s(t);
    struct tm tm;

    if (gmtime_r(&s, &tm) == NULL ||
        strftime(out, room, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
        snprintf(out, room, "(unreadable)");
}

static hd_rc_t refuse_path(hd_tls_layer_t *l, X509_STORE_CTX *sctx)
{
    int error = X509_STORE_CTX_get_error(sctx);
    int depth = X509_STORE_CTX_get_error_depth(sctx);
    X509 *cert = X509_STORE_CTX_get_current_cert(sctx);
    const char *whose = depth == 0 ? "peer" : "issuer's";
    char name[200] = "", date[40] = "";
    hd_conn_t *c = l->layer.conn;

    if (cert == NULL)
        cert = X509_STORE_CTX_get0_cert(sctx);
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        print_date(X509_get0_notAfter(cert), date, sizeof(date));
        return hd_conn_fail(c, HD_E_TLS, "%s certificate expired on %s", whose, date);
    case X509_V_ERR_CERT_NOT_YET_VALID:
        print_date(X509_get0_notBefore(cert), date, sizeof(date));
        return hd_conn_fail(c, HD_E_TLS, "%s certificate is not valid before %s", whose,
                            date);
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        print_name(X509_get_issuer_name(cert), name, sizeof(name));
        return hd_conn_fail(c, HD_E_TLS,
                            "unknown issuer %s: it is none of the trusted roots, and the "
                            "peer sent no chain to one",
                            name);
    case X509_V_ERR_CERT_UNTRUSTED:
        return hd_conn_fail(
            c, HD_E_TLS,
            "the peer certificate is no workload's of a trust domain that "
            "is known here");
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        print_name(X509_get_issuer_name(cert), name, sizeof(name));
        return hd_conn_fail(c, HD_E_TLS,
                            "%s certificate isn't signed by the trusted %s, though it "
                            "says so (another root of the same name?)",
                            whose, name);
    case X509_V_ERR_CERT_REVOKED:
        print_name(X509_get_subject_name(cert), name, sizeof(name));
        return hd_conn_fail(c, HD_E_TLS, "%s certificate was revoked: %s", whose, name);
    case X509_V_ERR_UNABLE_TO_GET_CRL:
        print_name(X509_get_issuer_name(cert), name, sizeof(name));
        return hd_conn_fail(c, HD_E_TLS, "no revocation list of issuer %s", name);
    case X509_V_ERR_INVALID_PURPOSE:
        return hd_conn_fail(c, HD_E_TLS,
                            "%s certificate isn't made for a TLS %s (extended key usage)",
                            whose, l->ctx->is_server ? "client" : "server");
    default:
        return hd_conn_fail(c, HD_E_TLS, "%s certificate: %s", whose,
                            X509_verify_cert_error_string(error));
    }
}

/* --- the names --- */

/* A DNS name of a certificate, in lower case; false if it isn't one: so no text of
 * another kind (a URI) can be slipped in under this type. */
static bool read_dns_name(hd_str_t text, char *out, size_t room, hd_str_t *name)
{
    if (text.len == 0 || text.len > room)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = hd_ascii_lower(text.data[i]);

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
              c == '_' || c == '*'))
            return false;
        out[i] = c;
    }
    *name = hd_str_n(out, text.len);
    return true;
}

/* A wildcard stands for the leftmost label alone (RFC 6125 §6.4.3). */
static bool covers(hd_str_t wildcard, hd_str_t host)
{
    ssize_t dot = hd_str_find_char(host, '.');

    return hd_str_has_prefix(wildcard, HD_STR("*.")) && dot > 0 &&
           hd_str_eq_nocase(hd_str_sub(wildcard, 1, wildcard.len),
                            hd_str_sub(host, (size_t)dot, host.len));
}

static bool is_kind(uint8_t kind, int type)
{
    switch (kind) {
    case HD_TLS_SAN_EMAIL:
        return type == GEN_EMAIL;
    case HD_TLS_SAN_DNS:
        return type == GEN_DNS;
    case HD_TLS_SAN_URI:
        return type == GEN_URI;
    case HD_TLS_SAN_IP:
        return type == GEN_IPADD;
    case HD_TLS_SAN_OTHER:
        return type == GEN_OTHERNAME;
    default:
        return true;
    }
}

static bool matches_name(const hd_match_t *p, hd_regex_t *re, const GENERAL_NAME *name)
{
    char buf[256];
    hd_addr_t addr = {.family = AF_INET};
    hd_str_t text;

    switch (name->type) {
    case GEN_URI:
    case GEN_EMAIL:
        return hd_match_with(re, p, hd_tls_name_text(name->d.ia5), NULL);
    case GEN_DNS:
        if (!read_dns_name(hd_tls_name_text(name->d.ia5), buf, sizeof(buf), &text))
            return false;
        if (p->kind == HD_MATCH_EXACT && !p->invert)
            return hd_str_eq_nocase(p->text, text) || covers(text, p->text);
        return hd_match_with(re, p, text, NULL);
    case GEN_IPADD:
        text = hd_tls_name_text(name->d.ip);
        if (text.len != 4 && text.len != 16)
            return false;
        addr.family = text.len == 4 ? AF_INET : AF_INET6;
        memcpy(text.len == 4 ? addr.v4 : addr.v6, text.data, text.len);
        return hd_match_with(re, p, hd_addr_print_ip(&addr, buf), NULL);
    default:
        return false;
    }
}

/* A name of a kind that an OID tells (RFC 5280 §4.2.1.6), whose value is a text. */
static bool matches_other(const hd_match_t *p, hd_regex_t *re, hd_str_t oid,
                          const OTHERNAME *other)
{
    char id[128];
    int n = OBJ_obj2txt(id, sizeof(id), other->type_id, 1);

    if (n <= 0 || n >= (int)sizeof(id) || !hd_str_eq(oid, hd_str_n(id, (size_t)n)))
        return false;
    switch (other->value->type) {
    case V_ASN1_UTF8STRING:
    case V_ASN1_IA5STRING:
    case V_ASN1_PRINTABLESTRING:
    case V_ASN1_VISIBLESTRING:
    case V_ASN1_NUMERICSTRING:
        return hd_match_with(re, p, hd_tls_name_text(other->value->value.asn1_string),
                             NULL);
    default:
        return false;
    }
}

static hd_tls_checks_t own_checks(const hd_tls_conf_t *conf)
{
    return (hd_tls_checks_t){.sans = conf->sans,
                             .sans_n = conf->sans_n,
                             .san_kinds = conf->san_kinds,
                             .san_oids = conf->san_oids,
                             .cert_hashes = conf->cert_hashes,
                             .spki_hashes = conf->spki_hashes};
}

/* What stands beside the roots. Never NULL. */
static const hd_tls_checks_t *more_checks(const hd_tls_layer_t *l,
                                          hd_regex_t *const **regexes)
{
    static const hd_tls_checks_t none;
    const hd_tls_trust_t *trust =
        l->ctx->conf.trust != NULL ? hd_tls_trust_of(l, NULL) : NULL;

    if (trust == NULL || trust->checks == NULL)
        return &none;
    if (regexes != NULL)
        *regexes = trust->regexes;
    return trust->checks;
}

bool hd_tls_allows_expired(const hd_tls_layer_t *l)
{
    return l->ctx->conf.allow_expired || more_checks(l, NULL)->allow_expired;
}

static bool matches_sans(const hd_tls_checks_t *checks, hd_regex_t *const *regexes,
                         const GENERAL_NAMES *names)
{
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        for (uint32_t p = 0; p < checks->sans_n; p++) {
            if (checks->san_kinds != NULL && !is_kind(checks->san_kinds[p], name->type))
                continue;
            if (name->type != GEN_OTHERNAME
                    ? matches_name(&checks->sans[p], regexes[p], name)
                    : checks->san_oids != NULL &&
                          matches_other(&checks->sans[p], regexes[p], checks->san_oids[p],
                                        name->d.otherName))
                return true;
        }
    }
    return false;
}

static void print_sans(const GENERAL_NAMES *names, char *out, size_t room)
{
    size_t at = 0;

    out[0] = '\0';
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names) && at < room; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        hd_str_t text;

        if (name->type != GEN_URI && name->type != GEN_DNS)
            continue;
        text = hd_tls_name_text(name->d.ia5);
        at += (size_t)snprintf(out + at, room - at, "%s%.*s", at > 0 ? ", " : "",
                               (int)hd_min(text.len, 120u), text.data);
    }
    if (at == 0)
        snprintf(out, room, "none");
}

static bool is_host(const X509 *cert, hd_str_t host, bool by_subject)
{
    unsigned flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                     (by_subject ? 0 : X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    hd_addr_t ip;
    size_t n;

    if (hd_addr_parse_ip(host, &ip)) {
        n = ip.family == AF_INET ? 4 : 16;
        return X509_check_ip((X509 *)cert, n == 4 ? ip.v4 : ip.v6, n, 0) == 1;
    }
    return X509_check_host((X509 *)cert, host.data, host.len, flags, NULL) == 1;
}

/* SPIFFE X.509-SVID §2: one URI name, and that is the identity. */
static hd_rc_t check_identity(hd_tls_layer_t *l, const GENERAL_NAMES *names, int *error)
{
    const hd_tls_conf_t *conf = &l->ctx->conf;
    hd_conn_t *c = l->layer.conn;
    hd_str_t id;
    int uris_n, ids_n = hd_tls_find_spiffe(names, &id, &uris_n);

    *error = X509_V_ERR_CERT_REJECTED;
    if (hd_tls_has_nul(names))
        return hd_conn_fail(c, HD_E_TLS,
                            "a name in the peer certificate holds a zero byte");
    if (conf->is_mesh && ids_n == 0)
        return hd_conn_fail(c, HD_E_TLS, "no SPIFFE ID in the peer certificate");
    if (conf->is_mesh && ids_n < 0)
        return hd_conn_fail(c, HD_E_TLS,
                            "no valid SPIFFE ID in the peer certificate (SPIFFE-ID §2)");
    if (ids_n > 1 && (conf->is_mesh || conf->verify == HD_TLS_VERIFY_REQUIRED))
        return hd_conn_fail(
            c, HD_E_TLS, "%d SPIFFE IDs in the peer certificate: one is allowed", ids_n);
    if (conf->is_mesh && uris_n > 1)
        return hd_conn_fail(c, HD_E_TLS,
                            "%d URI names in the peer certificate: a workload's has one "
                            "(SPIFFE X.509-SVID §2)",
                            uris_n);
    return HD_OK;
}

static bool has_hash(hd_str_t hashes, const unsigned char digest[32])
{
    for (size_t at = 0; at + 32 <= hashes.len; at += 32)
        if (memcmp(hashes.data + at, digest, 32) == 0)
            return true;
    return false;
}

static bool matches_hashes(const hd_tls_checks_t *checks, const X509 *leaf)
{
    unsigned char digest[EVP_MAX_MD_SIZE], *der = NULL;
    unsigned n = 0;
    bool is_one = false;
    int len;

    if (checks->cert_hashes.len > 0 && X509_digest(leaf, EVP_sha256(), digest, &n) == 1 &&
        n == 32)
        is_one = has_hash(checks->cert_hashes, digest);
    if (is_one || checks->spki_hashes.len == 0)
        return is_one;
    len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &der);
    if (len > 0 && EVP_Digest(der, (size_t)len, digest, &n, EVP_sha256(), NULL) == 1)
        is_one = has_hash(checks->spki_hashes, digest);
    OPENSSL_free(der);
    return is_one;
}

/* One of the hashes, if there are any. */
static bool fits_hashes(const hd_tls_layer_t *l, const X509 *leaf)
{
    hd_tls_checks_t own = own_checks(&l->ctx->conf);
    const hd_tls_checks_t *more = more_checks(l, NULL);

    return own.cert_hashes.len + own.spki_hashes.len + more->cert_hashes.len +
                   more->spki_hashes.len ==
               0 ||
           matches_hashes(&own, leaf) || matches_hashes(more, leaf);
}

/* One of the SANs, if there are any that count. */
static bool fits_sans(const hd_tls_layer_t *l, const GENERAL_NAMES *names)
{
    hd_tls_checks_t own = own_checks(&l->ctx->conf);
    hd_regex_t *const *regexes = NULL;
    const hd_tls_checks_t *more = more_checks(l, &regexes);

    return own.sans_n + more->sans_n == 0 ||
           (l->ctx->conf.verifies_sni && l->verify_host != NULL) ||
           matches_sans(&own, l->ctx->regexes, names) ||
           matches_sans(more, regexes, names);
}

static hd_rc_t check_names(hd_tls_layer_t *l, X509 *leaf, const GENERAL_NAMES *names,
                           int *error)
{
    const hd_tls_conf_t *conf = &l->ctx->conf;
    hd_str_t host = l->verify_host != NULL ? hd_str_c(l->verify_host) : conf->verify_host;
    char text[300];

    if (check_identity(l, names, error) != HD_OK)
        return HD_ERROR;
    *error = X509_V_ERR_CERT_REJECTED;
    if (!fits_hashes(l, leaf))
        return hd_conn_fail(l->layer.conn, HD_E_TLS,
                            "the peer certificate has none of the hashes that are "
                            "expected");
    *error = X509_V_ERR_HOSTNAME_MISMATCH;
    if (!fits_sans(l, names)) {
        const hd_tls_checks_t *more = more_checks(l, NULL);
        hd_str_t first = conf->sans_n > 0 ? conf->sans[0].text : more->sans[0].text;

        print_sans(names, text, sizeof(text));
        return hd_conn_fail(l->layer.conn, HD_E_TLS,
                            "the peer certificate's names (%s) don't match: expected "
                            "'%.*s'%s",
                            text, (int)hd_min(first.len, 100u), first.data,
                            conf->sans_n + more->sans_n > 1 ? " or others" : "");
    }
    if (!l->ctx->is_server && host.len > 0 &&
        !is_host(leaf, host, conf->host_by_subject)) {
        print_sans(names, text, sizeof(text));
        return hd_conn_fail(l->layer.conn, HD_E_TLS,
                            "the peer certificate is for %s, not for '%.*s'", text,
                            (int)hd_min(host.len, 100u), host.data);
    }
    return HD_OK;
}

/* nginx goes on to the end, so that the last error is what $ssl_client_verify tells. */
static _Thread_local bool late_failed;

static int go_on(int good, X509_STORE_CTX *sctx)
{
    (void)sctx;
    late_failed |= good != 1;
    return 1;
}

/* The roots of the trust domain that the leaf says it is of; NULL: it has none here. What
 * may sign others is no workload's (SPIFFE X.509-SVID §5.2). */
static X509_STORE *find_domain(const hd_tls_trust_t *trust, X509 *leaf)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    X509_STORE *found = NULL;
    hd_str_t id, domain;
    int uris_n;

    if (hd_tls_find_spiffe(names, &id, &uris_n) == 1 && uris_n == 1 &&
        X509_check_ca(leaf) == 0 &&
        (X509_get_key_usage(leaf) == UINT32_MAX ||
         (X509_get_key_usage(leaf) & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) == 0)) {
        id = hd_str_sub(id, SCHEME.len, id.len);
        hd_ignore(hd_str_split(&id, '/', &domain));
        for (uint32_t i = 0; i < trust->domains_n && found == NULL; i++)
            if (hd_str_eq(domain, hd_str_c(trust->domains[i].name)))
                found = trust->domains[i].store;
    }
    GENERAL_NAMES_free(names);
    return found;
}

static void prepare(const hd_tls_layer_t *l, X509_STORE_CTX *sctx, int64_t now_s)
{
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(sctx);
    const hd_tls_checks_t *more = more_checks(l, NULL);

    if (l->ctx->conf.allow_expired ||
        more->allow_expired) /* a time set would count more */
        hd_ignore(X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_NO_CHECK_TIME) != 1);
    else
        X509_VERIFY_PARAM_set_time(param, (time_t)now_s);
    if (l->ctx->conf.partial_chain)
        hd_ignore(X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN) != 1);
    if (more->verify_depth != 0)
        X509_VERIFY_PARAM_set_depth(
            param, more->verify_depth == HD_TLS_DEPTH_NONE ? 0 : more->verify_depth);
    if (l->ctx->conf.crl_leaf_only || more->crl_leaf_only)
        hd_ignore(X509_VERIFY_PARAM_clear_flags(param, X509_V_FLAG_CRL_CHECK_ALL) != 1);
}

/* A verification beside OpenSSL's own; the caller frees it. */
static X509_STORE_CTX *begin_own(const hd_tls_layer_t *l, X509_STORE *store, X509 *leaf,
                                 STACK_OF(X509) * others, int depth, int64_t now_s)
{
    X509_STORE_CTX *own = X509_STORE_CTX_new();

    hd_bug_on(own == NULL || X509_STORE_CTX_init(own, store, leaf, others) != 1 ||
              X509_STORE_CTX_set_default(own, l->ctx->is_server ? "ssl_client"
                                                                : "ssl_server") != 1);
    if (depth >= 0) /* else nobody said one (xDS): the library's is in force */
        X509_VERIFY_PARAM_set_depth(X509_STORE_CTX_get0_param(own), depth);
    prepare(l, own, now_s);
    return own;
}

/* What a conn keeps of the peer's chain: a resumed one nothing but the leaf; then issuers
 * between are unknown, and the answer may be no where a new conn would be let in. */
bool hd_tls_verify_again(hd_tls_layer_t *l)
{
    const hd_tls_trust_t *trust = hd_tls_trust_of(l, NULL); /* those of now */
    X509 *leaf = SSL_get0_peer_certificate(l->ssl);
    X509_STORE *store;
    X509_STORE_CTX *own;
    bool is_good;

    if (trust == NULL || leaf == NULL)
        return false;
    store = trust->domains_n > 0 ? find_domain(trust, leaf) : trust->store;
    if (store == NULL)
        return false;
    own = begin_own(l, store, leaf, SSL_get_peer_cert_chain(l->ssl),
                    SSL_get_verify_depth(l->ssl), hd_tls_now_s(l));
    is_good = X509_verify_cert(own) == 1;
    X509_STORE_CTX_free(own);
    if (is_good && trust->checks != NULL) { /* of the settings' own none has changed */
        GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);

        is_good = fits_hashes(l, leaf) && fits_sans(l, names);
        GENERAL_NAMES_free(names);
    }
    ERR_clear_error();
    return is_good;
}

STACK_OF(X509) * hd_tls_peer_path(const hd_tls_layer_t *l)
{
    STACK_OF(X509) *path = SSL_get0_verified_chain(l->ssl);
    const hd_tls_trust_t *trust;
    X509_STORE_CTX *own;

    if (path != NULL)
        return X509_chain_up_ref(path);
    if ((trust = hd_tls_trust_of(l, NULL)) == NULL)
        return NULL;
    own = begin_own(l, trust->store, SSL_get0_peer_certificate(l->ssl),
                    SSL_get_peer_cert_chain(l->ssl), SSL_get_verify_depth(l->ssl),
                    hd_tls_now_s(l));
    if (X509_verify_cert(own) == 1)
        path = X509_STORE_CTX_get1_chain(own);
    X509_STORE_CTX_free(own);
    ERR_clear_error();
    return path;
}

/* By the roots of the peer's own trust domain, in place of those of <sctx>, which gets
 * the result. */
static bool verify_by_domain(const hd_tls_layer_t *l, const hd_tls_trust_t *trust,
                             X509_STORE_CTX *sctx, int64_t now_s)
{
    X509 *leaf = X509_STORE_CTX_get0_cert(sctx);
    X509_STORE *store = find_domain(trust, leaf);
    X509_STORE_CTX *own;
    bool is_good;

    if (store == NULL) {
        X509_STORE_CTX_set_error(sctx, X509_V_ERR_CERT_UNTRUSTED);
        return false;
    }
    own = begin_own(l, store, leaf, X509_STORE_CTX_get0_untrusted(sctx),
                    X509_VERIFY_PARAM_get_depth(X509_STORE_CTX_get0_param(sctx)), now_s);
    is_good = X509_verify_cert(own) == 1;
    X509_STORE_CTX_set_error(sctx, X509_STORE_CTX_get_error(own));
    X509_STORE_CTX_set_error_depth(sctx, X509_STORE_CTX_get_error_depth(own));
    if (is_good)
        X509_STORE_CTX_set0_verified_chain(sctx, X509_STORE_CTX_get1_chain(own));
    X509_STORE_CTX_free(own);
    return is_good;
}

/* False: the error in <sctx> says why. */
static bool verify_path(const hd_tls_layer_t *l, X509_STORE_CTX *sctx, int64_t now_s)
{
    const hd_tls_conf_t *conf = &l->ctx->conf;
    const hd_tls_trust_t *trust;
    bool is_good;

    if (conf->trust == NULL && !conf->verify_late) /* by its hash, see check_hashes */
        return true;
    prepare(l, sctx, now_s);
    trust = conf->trust != NULL ? hd_tls_trust_of(l, NULL) : NULL;
    late_failed = false;
    if (trust != NULL && trust->domains_n > 0) {
        is_good = verify_by_domain(l, trust, sctx, now_s);
    } else {
        if (conf->verify_late)
            X509_STORE_CTX_set_verify_cb(sctx, go_on);
        is_good = X509_verify_cert(sctx) == 1 && !late_failed;
    }
    if (is_good && conf->verify_late)
        is_good = X509_STORE_CTX_get_error(sctx) == X509_V_OK;
    if (!is_good && X509_STORE_CTX_get_error(sctx) == X509_V_OK)
        X509_STORE_CTX_set_error(sctx, X509_V_ERR_UNSPECIFIED);
    return is_good;
}

bool hd_tls_checks_peer(const hd_tls_conf_t *conf)
{
    return conf->trust != NULL || conf->cert_hashes.len + conf->spki_hashes.len > 0;
}

/* 0: no chain. */
static int64_t first_end(const STACK_OF(X509) * chain)
{
    int64_t first = 0;

    for (int i = 0; i < sk_X509_num(chain); i++) {
        int64_t ends_s = hd_tls_time_s(X509_get0_notAfter(sk_X509_value(chain, i)));

        if (first == 0 || ends_s < first)
            first = ends_s;
    }
    return first;
}

int hd_tls_verify(X509_STORE_CTX *sctx, void *arg)
{
    const hd_tls_ctx_t *ctx = arg;
    SSL *ssl = X509_STORE_CTX_get_ex_data(sctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    hd_tls_layer_t *l = hd_tls_layer_of(ssl);
    X509 *leaf = X509_STORE_CTX_get0_cert(sctx);
    int64_t now_s = hd_tls_now_s(l);
    GENERAL_NAMES *names;
    hd_rc_t rc;
    int error = X509_V_OK;
    bool is_trusted = true, accepts;

    if (SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE) {
        /* Nobody asked; so it counts as nobody (l->verified stays false). */
        X509_STORE_CTX_set_error(sctx, X509_V_OK);
        return 1;
    }
    accepts = ctx->conf.accept_untrusted || more_checks(l, NULL)->accept_untrusted;
    if (!verify_path(l, sctx, now_s)) {
        if (ctx->conf.verify_late) /* hd_tls_judge_client tells, by the error */
            return 1;
        if (!accepts) {
            hd_ignore(refuse_path(l, sctx) != HD_ERROR);
            return 0;
        }
        is_trusted = false; /* the error stays: it is let in as nobody */
    }
    names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    rc = check_names(l, leaf, names, &error);
    GENERAL_NAMES_free(names);
    if (rc != HD_OK) {
        X509_STORE_CTX_set_error(sctx, error);
        if (!accepts)
            return 0;
        l->layer.conn->err = NULL; /* nothing is wrong with it */
        is_trusted = false;
    }
    if (is_trusted)
        X509_STORE_CTX_set_error(sctx, X509_V_OK);
    if (is_trusted && !hd_tls_allows_expired(l)) {
        hd_tls_session_limit(ssl, X509_STORE_CTX_get0_chain(sctx), now_s);
        l->good_until_s = first_end(X509_STORE_CTX_get0_chain(sctx));
        /* Each conn asks about the whole path, of which a session keeps the leaf alone:
         * with issuers between it and a root there is nothing to be resumed. */
        if (ctx->conf.ocsp != NULL && sk_X509_num(X509_STORE_CTX_get0_chain(sctx)) > 2)
            hd_tls_session_limit(ssl, NULL, now_s);
    }
    return 1;
}
