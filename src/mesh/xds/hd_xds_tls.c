/* Transport sockets: TLS settings as data, secrets by slot. */
#include "mesh/xds/hd_xds_int.h"
#include "ext/internal_upstream.pb-c.h"
#include "ext/proxy_upstream.pb-c.h"
#include "ext/raw_buffer.pb-c.h"
#include "core/base/hd_base64.h"
#include "http/hd_weft.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <string.h>

#define PEER_EXCHANGE "istio-peer-exchange"

/* --- secrets that stand in the message itself --- */

static bool was_put(const hd_xds_built_t *out, const hd_slot_t *slot)
{
    hd_slot_t *const *secrets = out->secrets.items;

    for (size_t i = 0; i < out->secrets.n; i++) {
        if (secrets[i] == slot)
            return true;
    }
    return false;
}

/* Inline certificates become secrets of their own, named by what they are. */
static hd_rc_t put_inline(hd_xds_t *x, const hd_secret_t *texts, const hd_slot_t **slot,
                          hd_err_t *err)
{
    hd_str_t name = hd_str_printf(x->env->temp, "inline:%016llx",
                                  (unsigned long long)hd_xds_secret_hash(texts));
    hd_slot_t *s, **to;

    if (x->env->batch == NULL) {
        *slot = hd_xds_slot(x, HD_XDS_SECRET, name, err);
        return *slot != NULL ? HD_OK : HD_ERROR;
    }
    if (hd_xds_put_secret(x->env, name, texts, &s, err) != HD_OK)
        return HD_ERROR;
    *slot = s;
    if (was_put(x->out, s))
        return HD_OK;
    to = hd_array_add(&x->out->secrets);
    if (to == NULL)
        return hd_err_set(err, HD_E_LIMIT, "too many certificates");
    *to = s;
    return HD_OK;
}

/* --- what both sides share --- */

static hd_rc_t add_sds(hd_xds_t *x, const PbTls__SdsSecretConfig *msg, bool *is_local,
                       const hd_slot_t **slot, hd_err_t *err)
{
    const hd_xds_need_t *needs;

    if (msg->sds_config == NULL)
        return hd_err_set(
            err, HD_E_RESOURCE,
            "the secret \"%s\" is one of a bootstrap, which isn't read here", msg->name);
    *slot = hd_xds_need(x, HD_XDS_SECRET, hd_str_c(msg->name), msg->sds_config, err);
    if (*slot == NULL)
        return HD_ERROR;
    needs = x->out->needs.items;
    for (size_t i = 0; i < x->out->needs.n; i++) {
        if (needs[i].slot == *slot && needs[i].is_local)
            *is_local = true;
    }
    return HD_OK;
}

static hd_rc_t add_cert(hd_xds_t *x, const PbTls__TlsCertificate *msg,
                        const hd_slot_t **slot, hd_err_t *err)
{
    hd_secret_t texts = {0};

    if (hd_xds_cert_texts(x, msg, &texts, err) != HD_OK)
        return hd_err_prefix(err, "tls_certificates: ");
    return put_inline(x, &texts, slot, err);
}

static hd_rc_t add_certs(hd_xds_t *x, const PbTls__CommonTlsContext *msg,
                         hd_tls_conf_t *conf, hd_err_t *err)
{
    size_t n = msg->n_tls_certificates + msg->n_tls_certificate_sds_secret_configs;
    const hd_slot_t **certs;
    bool is_local = false;

    if (n == 0)
        return HD_OK;
    certs = hd_pool_new_n(x->cf.pool, const hd_slot_t *, n);
    for (size_t i = 0; i < msg->n_tls_certificates; i++) {
        if (add_cert(x, msg->tls_certificates[i], &certs[conf->certs_n++], err) != HD_OK)
            return HD_ERROR;
    }
    for (size_t i = 0; i < msg->n_tls_certificate_sds_secret_configs; i++) {
        if (add_sds(x, msg->tls_certificate_sds_secret_configs[i], &is_local,
                    &certs[conf->certs_n++], err) != HD_OK)
            return HD_ERROR;
        if (strcmp(msg->tls_certificate_sds_secret_configs[i]->name, "default") == 0)
            conf->is_mesh = is_local; /* the workload's own identity */
    }
    conf->certs = certs;
    return HD_OK;
}

static bool is_oid(const char *text)
{
    ASN1_OBJECT *oid = OBJ_txt2obj(text, 1);
    bool is_one = oid != NULL && text[0] != '\0';

    ASN1_OBJECT_free(oid);
    ERR_clear_error();
    return is_one;
}

static hd_rc_t san_kind(const PbTls__SubjectAltNameMatcher *msg, uint8_t *kind,
                        hd_err_t *err)
{
    bool is_other =
        msg->san_type == PB_TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__OTHER_NAME;

    if (msg->matcher == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "a SAN matcher without a pattern");
    if (is_other ? !is_oid(msg->oid) : msg->oid[0] != '\0')
        return hd_err_set(err, HD_E_RESOURCE,
                          "oid \"%.100s\": OTHER_NAME needs one, like 1.3.6.1.5, others "
                          "have none",
                          msg->oid);
    switch (msg->san_type) {
    case PB_TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__EMAIL:
        *kind = HD_TLS_SAN_EMAIL;
        return HD_OK;
    case PB_TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__DNS:
        *kind = HD_TLS_SAN_DNS;
        return HD_OK;
    case PB_TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__URI:
        *kind = HD_TLS_SAN_URI;
        return HD_OK;
    case PB_TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__IP_ADDRESS:
        *kind = HD_TLS_SAN_IP;
        return HD_OK;
    case PB_TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__OTHER_NAME:
        *kind = HD_TLS_SAN_OTHER;
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "a SAN matcher of this kind: EMAIL, DNS, URI, IP_ADDRESS and "
                          "OTHER_NAME are known");
    }
}

static hd_rc_t add_sans(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                        hd_tls_conf_t *conf, hd_err_t *err)
{
    size_t n = msg->n_match_subject_alt_names + msg->n_match_typed_subject_alt_names;
    hd_match_t *sans;
    hd_str_t *oids;
    uint8_t *kinds;

    if (n == 0)
        return HD_OK;
    sans = hd_pool_new_n(x->cf.pool, hd_match_t, n);
    kinds = hd_pool_new_n(x->cf.pool, uint8_t, n);
    oids = hd_pool_new_n(x->cf.pool, hd_str_t, n);
    for (size_t i = 0; i < msg->n_match_subject_alt_names; i++) {
        if (hd_xds_match(x, msg->match_subject_alt_names[i], &sans[conf->sans_n++],
                         err) != HD_OK)
            return hd_err_prefix(err, "match_subject_alt_names: ");
    }
    for (size_t i = 0; i < msg->n_match_typed_subject_alt_names; i++) {
        const PbTls__SubjectAltNameMatcher *typed = msg->match_typed_subject_alt_names[i];

        oids[conf->sans_n] = hd_xds_str(x, typed->oid);
        if (oids[conf->sans_n].len > 0)
            conf->san_oids = oids;
        if (san_kind(typed, &kinds[conf->sans_n], err) != HD_OK ||
            hd_xds_match(x, typed->matcher, &sans[conf->sans_n++], err) != HD_OK)
            return hd_err_prefix(err, "match_typed_subject_alt_names: ");
    }
    conf->sans = sans;
    conf->san_kinds = kinds;
    return HD_OK;
}

/* "DF:6F…" or "df6f…" (openssl's fingerprint form), as Envoy. */
static bool read_hex(const char *text, unsigned char out[32])
{
    int n = 0;

    for (const char *at = text; *at != '\0'; at++) {
        int high, low;

        if (*at == ':')
            continue;
        high = OPENSSL_hexchar2int((unsigned char)at[0]);
        low = at[1] != '\0' ? OPENSSL_hexchar2int((unsigned char)at[1]) : -1;
        if (high < 0 || low < 0 || n == 32)
            return false;
        out[n++] = (unsigned char)(high << 4 | low);
        at++;
    }
    return n == 32;
}

static bool read_base64(const char *text, unsigned char out[32])
{
    unsigned char bytes[HD_BASE64_BYTES_MAX(44)];
    size_t n;

    if (strlen(text) != 44 ||
        !hd_base64_decode(hd_str_c(text), HD_BASE64, HD_BASE64_EXACT, bytes, &n) ||
        n != 32)
        return false;
    memcpy(out, bytes, 32);
    return true;
}

static hd_rc_t add_hashes(hd_xds_t *x, const char *const *list, size_t n, bool is_spki,
                          hd_str_t *out, hd_err_t *err)
{
    char *to = hd_pool_alloc_unaligned(x->cf.pool, n * 32 + 1);

    *out = hd_str_n(to, n * 32);
    for (size_t i = 0; i < n; i++) {
        unsigned char *at = (unsigned char *)to + i * 32;

        if (!(is_spki ? read_base64(list[i], at) : read_hex(list[i], at)))
            return hd_err_set(err, HD_E_RESOURCE, "%s \"%.100s\" is no SHA-256 in %s",
                              is_spki ? "verify_certificate_spki"
                                      : "verify_certificate_hash",
                              list[i], is_spki ? "base64" : "hex");
    }
    return HD_OK;
}

/* All but roots and lists. */
static hd_rc_t add_checks(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                          hd_tls_conf_t *conf, hd_err_t *err)
{
    if (msg->max_verify_depth !=
        NULL) /* the root counts, too; OpenSSL doesn't count it */
        conf->verify_depth =
            (uint16_t)(msg->max_verify_depth->value <= 1
                           ? HD_TLS_DEPTH_NONE
                           : hd_min(msg->max_verify_depth->value, 101u) - 1);
    conf->allow_expired = msg->allow_expired_certificate;
    conf->crl_leaf_only = msg->only_verify_leaf_cert_crl;
    conf->accept_untrusted =
        msg->trust_chain_verification ==
        PB_TLS__CERTIFICATE_VALIDATION_CONTEXT__TRUST_CHAIN_VERIFICATION__ACCEPT_UNTRUSTED;
    if (add_hashes(x, (const char *const *)msg->verify_certificate_hash,
                   msg->n_verify_certificate_hash, false, &conf->cert_hashes,
                   err) != HD_OK ||
        add_hashes(x, (const char *const *)msg->verify_certificate_spki,
                   msg->n_verify_certificate_spki, true, &conf->spki_hashes,
                   err) != HD_OK)
        return HD_ERROR;
    return add_sans(x, msg, conf, err);
}

hd_rc_t hd_xds_checks(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                      const hd_tls_checks_t **checks, hd_err_t *err)
{
    hd_tls_conf_t as = {0};
    hd_tls_checks_t *c;

    *checks = NULL;
    if (add_checks(x, msg, &as, err) != HD_OK)
        return HD_ERROR;
    if (as.sans_n == 0 && as.cert_hashes.len + as.spki_hashes.len == 0 &&
        as.verify_depth == 0 && !as.allow_expired && !as.crl_leaf_only &&
        !as.accept_untrusted)
        return HD_OK;
    c = hd_pool_new(x->cf.pool, hd_tls_checks_t);
    *c = (hd_tls_checks_t){.sans = as.sans,
                           .sans_n = as.sans_n,
                           .san_kinds = as.san_kinds,
                           .san_oids = as.san_oids,
                           .cert_hashes = as.cert_hashes,
                           .spki_hashes = as.spki_hashes,
                           .verify_depth = as.verify_depth,
                           .allow_expired = as.allow_expired,
                           .accept_untrusted = as.accept_untrusted,
                           .crl_leaf_only = as.crl_leaf_only};
    *checks = c;
    return HD_OK;
}

static hd_rc_t add_validation(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                              hd_tls_conf_t *conf, hd_err_t *err)
{
    hd_secret_t texts = {0};
    hd_rc_t rc;

    if (msg == NULL)
        return HD_OK;
    rc = hd_xds_trust_texts(x, msg, &texts, err);
    if (rc == HD_ERROR ||
        (rc == HD_OK && put_inline(x, &texts, &conf->trust, err) != HD_OK))
        return HD_ERROR;
    return add_checks(x, msg, conf, err);
}

static hd_rc_t add_trust(hd_xds_t *x, const PbTls__CommonTlsContext *msg,
                         hd_tls_conf_t *conf, hd_err_t *err)
{
    const PbTls__CommonTlsContext__CombinedCertificateValidationContext *both;
    bool is_local;

    switch (msg->validation_context_type_case) {
    case PB_TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE__NOT_SET:
        return HD_OK;
    case PB_TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT:
        if (add_validation(x, msg->validation_context, conf, err) != HD_OK)
            return HD_ERROR;
        break;
    case PB_TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT_SDS_SECRET_CONFIG:
        return add_sds(x, msg->validation_context_sds_secret_config, &is_local,
                       &conf->trust, err);
    case PB_TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_COMBINED_VALIDATION_CONTEXT:
        both = msg->combined_validation_context;
        if (both->default_validation_context != NULL &&
            both->default_validation_context->custom_validator_config != NULL &&
            both->validation_context_sds_secret_config != NULL)
            return hd_err_set(err, HD_E_RESOURCE,
                              "combined_validation_context: custom_validator_config is "
                              "taken from the secret, or where there is none");
        if (add_validation(x, both->default_validation_context, conf, err) != HD_OK)
            return HD_ERROR;
        if (both->validation_context_sds_secret_config != NULL &&
            add_sds(x, both->validation_context_sds_secret_config, &is_local,
                    &conf->trust, err) != HD_OK)
            return HD_ERROR;
        break;
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "a certificate provider of a bootstrap: not read here");
    }
    return conf->sans_n == 0 || conf->trust != NULL ||
                   conf->cert_hashes.len + conf->spki_hashes.len > 0
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE,
                            "SANs are to be matched, but there are no roots to verify "
                            "the certificate by");
}

static uint16_t version_of(PbTls__TlsParameters__TlsProtocol v, uint16_t unset)
{
    switch (v) {
    case PB_TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_0:
    case PB_TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_1:
    case PB_TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_2:
        return 0x0303; /* older ones aren't spoken: the peer is held to more, not less */
    case PB_TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_3:
        return 0x0304;
    default:
        return unset;
    }
}

/* BoringSSL's "[A|B]" is a group of equal preference; OpenSSL has a list in order. */
static hd_str_t join(hd_xds_t *x, const char *const *list, size_t n)
{
    hd_str_t all = HD_STR_NONE;

    for (size_t i = 0; i < n; i++)
        all = hd_str_printf(i + 1 < n ? x->env->temp : x->cf.pool, "%.*s%s%s",
                            HD_STR_ARG(all), i > 0 ? ":" : "", list[i]);
    for (size_t i = 0; i < all.len; i++) {
        char *c = (char *)&all.data[i];

        if (*c == '|')
            *c = ':';
        else if (*c == '[' || *c == ']')
            *c = ' ';
    }
    return all;
}

/* Of a list OpenSSL takes what it knows, and doesn't tell what it has left out. */
static hd_rc_t check_ciphers(hd_xds_t *x, hd_str_t list, hd_err_t *err)
{
    hd_str_t word, rest = list;

    while (hd_str_split(&rest, ':', &word)) {
        word = hd_str_trim(word);
        if (word.len == 0 || strchr("!-+@", word.data[0]) != NULL)
            continue;
        if (hd_str_eq(word, HD_STR("DES-CBC3-SHA")))
            hd_xds_note(x, "cipher_suites DES-CBC3-SHA: no longer spoken");
        else if (!hd_tls_is_cipher(word))
            return hd_err_set(err, HD_E_RESOURCE,
                              "cipher_suites: \"%.*s\" is no cipher of TLS 1.2 that is "
                              "known here",
                              HD_STR_ARG(word));
    }
    return HD_OK;
}

static hd_rc_t add_params(hd_xds_t *x, const PbTls__TlsParameters *msg,
                          hd_tls_conf_t *conf, hd_err_t *err)
{
    hd_str_t algorithms;

    conf->version_min = 0x0303;
    conf->version_max = 0x0304;
    if (msg == NULL)
        return HD_OK;
    conf->version_min = version_of(msg->tls_minimum_protocol_version, 0x0303);
    conf->version_max = version_of(msg->tls_maximum_protocol_version, 0x0304);
    conf->ciphers = join(x, msg->cipher_suites, msg->n_cipher_suites);
    conf->groups = join(x, msg->ecdh_curves, msg->n_ecdh_curves);
    algorithms = join(x, msg->signature_algorithms, msg->n_signature_algorithms);
    if (algorithms.len > 0) {
        static const char command[] = "SignatureAlgorithms";
        char *to =
            hd_pool_alloc_unaligned(x->cf.pool, sizeof(command) + algorithms.len + 1);

        memcpy(to, command, sizeof(command));
        memcpy(to + sizeof(command), algorithms.data, algorithms.len);
        to[sizeof(command) + algorithms.len] = '\0';
        conf->commands = hd_str_n(to, sizeof(command) + algorithms.len + 1);
    }
    return check_ciphers(x, conf->ciphers, err);
}

/* Istio's exchange of metadata follows the handshake when its ALPN was chosen; we don't
 * speak it, so it is never offered. */
static hd_rc_t add_alpn(hd_xds_t *x, const PbTls__CommonTlsContext *msg,
                        hd_tls_conf_t *conf, hd_err_t *err)
{
    size_t len = 0;
    char *to;

    for (size_t i = 0; i < msg->n_alpn_protocols; i++) {
        size_t one = strlen(msg->alpn_protocols[i]);

        if (one == 0 || one > 255)
            return hd_err_set(err, HD_E_RESOURCE, "an ALPN of %zu bytes", one);
        len += one + 1;
    }
    to = hd_pool_alloc_unaligned(x->cf.pool, len + 1);
    conf->alpn = hd_str_n(to, 0);
    for (size_t i = 0; i < msg->n_alpn_protocols; i++) {
        const char *p = msg->alpn_protocols[i];
        size_t one = strlen(p);

        if (strcmp(p, PEER_EXCHANGE) == 0) {
            hd_xds_note(x, "ALPN " PEER_EXCHANGE ": not offered: nobody here speaks it");
            continue;
        }
        *to++ = (char)one;
        memcpy(to, p, one);
        to += one;
        conf->alpn.len += one + 1;
    }
    return HD_OK;
}

static hd_rc_t add_common(hd_xds_t *x, const PbTls__CommonTlsContext *msg,
                          hd_tls_conf_t *conf, hd_err_t *err)
{
    static const PbTls__CommonTlsContext none = PB_TLS__COMMON_TLS_CONTEXT__INIT;

    if (msg == NULL)
        msg = &none;
    conf->revalidates = true;
    conf->partial_chain = true;
    if (add_params(x, msg->tls_params, conf, err) != HD_OK ||
        add_certs(x, msg, conf, err) != HD_OK || add_trust(x, msg, conf, err) != HD_OK ||
        add_alpn(x, msg, conf, err) != HD_OK)
        return HD_ERROR;
    return HD_OK;
}

static hd_rc_t seal(hd_tls_conf_t *conf, bool is_server, const hd_tls_conf_t **tls,
                    hd_err_t *err)
{
    /* most have no names that OpenSSL could refuse: then no SSL_CTX is made to see */
    if (conf->ciphers.len + conf->groups.len + conf->commands.len > 0 &&
        hd_tls_conf_check(conf, is_server, err) != HD_OK)
        return HD_ERROR;
    hd_tls_conf_seal(conf);
    *tls = conf;
    return HD_OK;
}

/* Another Heddle's offer to multiplex is taken before anything else. */
static void accept_weft(hd_xds_t *x, hd_tls_conf_t *conf)
{
    if (conf->alpn.len > 0 || conf->is_mesh)
        conf->alpn =
            hd_str_printf(x->cf.pool, "\015" HD_WEFT_ALPN "%.*s", HD_STR_ARG(conf->alpn));
}

static bool has_checks(const hd_tls_conf_t *conf)
{
    return conf->trust != NULL || conf->cert_hashes.len + conf->spki_hashes.len > 0;
}

/* Envoy's cache of sessions is one for all its workers. */
#define ZONE_BYTES ((size_t)1 << 20)
#define ZONE_NAME HD_STR("xds:1048576")

static hd_rc_t add_sessions(hd_xds_t *x, const PbTls__DownstreamTlsContext *msg,
                            hd_tls_conf_t *conf, hd_err_t *err)
{
    hd_secret_t texts = {0};
    bool is_local;

    conf->session_tickets = true;
    conf->session_cache = !msg->disable_stateful_session_resumption;
    switch (msg->session_ticket_keys_type_case) {
    case PB_TLS__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_SESSION_TICKET_KEYS:
        if (hd_xds_ticket_keys(x, msg->session_ticket_keys, &texts, err) != HD_OK ||
            put_inline(x, &texts, &conf->ticket_keys, err) != HD_OK)
            return HD_ERROR;
        break;
    case PB_TLS__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_SESSION_TICKET_KEYS_SDS_SECRET_CONFIG:
        return add_sds(x, msg->session_ticket_keys_sds_secret_config, &is_local,
                       &conf->ticket_keys, err);
    case PB_TLS__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_DISABLE_STATELESS_SESSION_RESUMPTION:
        conf->session_tickets = !msg->disable_stateless_session_resumption;
        break;
    default:
        break;
    }
    if (conf->session_cache && !conf->session_tickets && x->env->batch != NULL) {
        conf->session_zone = hd_str_dup(x->cf.pool, ZONE_NAME);
        conf->session_zone_bytes = ZONE_BYTES;
        return hd_tls_make_zone(x->env->member, ZONE_NAME, ZONE_BYTES, err);
    }
    return HD_OK;
}

static hd_rc_t set_staples(const PbTls__DownstreamTlsContext *msg, hd_tls_conf_t *conf,
                           hd_err_t *err)
{
    const PbTls__CommonTlsContext *common = msg->common_tls_context;

    switch (msg->ocsp_staple_policy) {
    case PB_TLS__DOWNSTREAM_TLS_CONTEXT__OCSP_STAPLE_POLICY__STRICT_STAPLING:
        conf->staples = HD_TLS_STAPLE_STRICT;
        return HD_OK;
    case PB_TLS__DOWNSTREAM_TLS_CONTEXT__OCSP_STAPLE_POLICY__MUST_STAPLE:
        conf->staples = HD_TLS_STAPLE_MUST;
        break;
    default:
        return HD_OK;
    }
    for (size_t i = 0; common != NULL && i < common->n_tls_certificates; i++)
        if (common->tls_certificates[i]->ocsp_staple == NULL)
            return hd_err_set(err, HD_E_RESOURCE,
                              "MUST_STAPLE, but a certificate has no ocsp_staple");
    return HD_OK;
}

static hd_rc_t build_downstream(hd_xds_t *x, const PbTls__DownstreamTlsContext *msg,
                                bool is_http, const hd_tls_conf_t **tls, hd_err_t *err)
{
    hd_tls_conf_t *conf = hd_pool_new(x->cf.pool, hd_tls_conf_t);
    uint64_t timeout_ms;

    if (add_common(x, msg->common_tls_context, conf, err) != HD_OK ||
        hd_xds_ms64(msg->session_timeout, 0, "session_timeout", &timeout_ms, err) !=
            HD_OK)
        return HD_ERROR;
    if (conf->certs_n == 0)
        return hd_err_set(err, HD_E_RESOURCE, "a TLS server without a certificate");
    if (hd_pb_bool(msg->require_client_certificate, false))
        conf->verify = HD_TLS_VERIFY_REQUIRED;
    else
        conf->verify = has_checks(conf) ? HD_TLS_VERIFY_OPTIONAL : HD_TLS_VERIFY_NONE;
    if (conf->verify == HD_TLS_VERIFY_REQUIRED && !has_checks(conf))
        return hd_err_set(err, HD_E_RESOURCE,
                          "clients must have a certificate, but there are no roots to "
                          "verify it by");
    if (is_http && conf->verify != HD_TLS_VERIFY_NONE)
        accept_weft(x, conf);
    if (set_staples(msg, conf, err) != HD_OK)
        return HD_ERROR;
    conf->session_timeout_s = (uint32_t)hd_min(timeout_ms / 1000, (uint64_t)UINT32_MAX);
    if (add_sessions(x, msg, conf, err) != HD_OK)
        return HD_ERROR;
    conf->prefer_server_ciphers = !msg->prefer_client_ciphers;
    conf->skips_unknown_alpn = true;
    return seal(conf, true, tls, err);
}

static hd_rc_t build_upstream(hd_xds_t *x, const PbTls__UpstreamTlsContext *msg,
                              const hd_tls_conf_t **tls, hd_err_t *err)
{
    hd_tls_conf_t *conf = hd_pool_new(x->cf.pool, hd_tls_conf_t);

    if (add_common(x, msg->common_tls_context, conf, err) != HD_OK)
        return HD_ERROR;
    conf->sni = hd_xds_str(x, msg->sni);
    conf->session_cache = hd_pb_u32(msg->max_session_keys, 1) > 0;
    conf->session_tickets = conf->session_cache;
    conf->alpn_by_protocol = true;
    conf->sni_by_endpoint = msg->auto_host_sni;
    conf->verifies_sni = msg->auto_sni_san_validation;
    if (conf->verifies_sni && conf->trust == NULL)
        return hd_err_set(err, HD_E_RESOURCE,
                          "auto_sni_san_validation, but there are no roots to verify the "
                          "certificate by");
    return seal(conf, false, tls, err);
}

static const Pb__Any *typed_config(const PbCore__TransportSocket *msg)
{
    return msg->config_type_case == PB_CORE__TRANSPORT_SOCKET__CONFIG_TYPE_TYPED_CONFIG
               ? msg->typed_config
               : NULL;
}

static hd_rc_t refuse_socket(const PbCore__TransportSocket *msg, hd_err_t *err)
{
    const Pb__Any *any = typed_config(msg);

    return hd_err_set(err, HD_E_RESOURCE, "the transport socket %s isn't known here",
                      any != NULL ? any->type_url : msg->name);
}

hd_rc_t hd_xds_downstream_tls(hd_xds_t *x, const PbCore__TransportSocket *msg,
                              bool is_http, const hd_tls_conf_t **tls, hd_err_t *err)
{
    const Pb__Any *any = msg != NULL ? typed_config(msg) : NULL;
    const PbTls__DownstreamTlsContext *m;

    *tls = NULL;
    if (msg == NULL ||
        (any != NULL && hd_pb_any_is(any, HD_PB(pb_raw_buffer__raw_buffer))))
        return HD_OK;
    if (any == NULL || !hd_pb_any_is(any, HD_PB(pb_tls__downstream_tls_context)))
        return refuse_socket(msg, err);
    m = hd_xds_unpack(x, any, HD_PB(pb_tls__downstream_tls_context), err);
    if (m == NULL || build_downstream(x, m, is_http, tls, err) != HD_OK)
        return hd_err_prefix(err, "DownstreamTlsContext: ");
    return HD_OK;
}

/* A PROXY head, then what another transport socket says. */
static hd_rc_t unwrap_proxy(hd_xds_t *x, const Pb__Any *any, uint8_t *proxy,
                            const PbCore__TransportSocket **inner, hd_err_t *err)
{
    const PbProxyUpstream__ProxyProtocolUpstreamTransport *m = hd_xds_unpack(
        x, any, HD_PB(pb_proxy_upstream__proxy_protocol_upstream_transport), err);

    if (m == NULL)
        return HD_ERROR;
    *inner = m->transport_socket;
    if (*inner == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "it has no transport_socket");
    *proxy = m->config != NULL &&
                     m->config->version == PB_CORE__PROXY_PROTOCOL_CONFIG__VERSION__V2
                 ? 2
                 : 1;
    return HD_OK;
}

hd_rc_t hd_xds_upstream_tls(hd_xds_t *x, const PbCore__TransportSocket *msg,
                            uint8_t *proxy, const hd_tls_conf_t **tls, hd_err_t *err)
{
    const Pb__Any *any = msg != NULL ? typed_config(msg) : NULL;
    const PbTls__UpstreamTlsContext *m;

    *tls = NULL;
    *proxy = 0;
    if (any != NULL &&
        hd_pb_any_is(any, HD_PB(pb_proxy_upstream__proxy_protocol_upstream_transport))) {
        if (unwrap_proxy(x, any, proxy, &msg, err) != HD_OK)
            return hd_err_prefix(err, "ProxyProtocolUpstreamTransport: ");
        any = typed_config(msg);
    }
    if (msg == NULL ||
        (any != NULL && hd_pb_any_is(any, HD_PB(pb_raw_buffer__raw_buffer))))
        return HD_OK;
    if (any != NULL &&
        hd_pb_any_is(any, HD_PB(pb_internal_upstream__internal_upstream_transport)))
        return HD_DECLINED;
    if (any == NULL || !hd_pb_any_is(any, HD_PB(pb_tls__upstream_tls_context)))
        return refuse_socket(msg, err);
    m = hd_xds_unpack(x, any, HD_PB(pb_tls__upstream_tls_context), err);
    if (m == NULL || build_upstream(x, m, tls, err) != HD_OK)
        return hd_err_prefix(err, "UpstreamTlsContext: ");
    return HD_OK;
}
