#include "core/net/hd_tls_int.h"
#include "core/base/hd_log.h"
#include "core/net/hd_ocsp.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>

/* AES-GCM first: with the CPU's instructions half the cost of ChaCha20; forward secrecy
 * always. */
static const char default_ciphers[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char default_suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char default_groups[] = "X25519:P-256:P-384";

enum {
    KEPT_MAX = 64, /* settings whose SSL_CTX stays while no conn uses them */
    SESSION_TIMEOUT_S = 3600,
    EARLY_BYTES_MAX = 16384, /* nginx's */
};

/* Those used last, in order; an SSL_CTX with its sessions outlives the quiet hour between
 * two conns. */
static _Thread_local hd_link_t kept;
static _Thread_local size_t kept_n;

/* --- settings as bytes: for the hash, and to find equal ones --- */

typedef struct {
    char *data; /* NULL: only measured */
    size_t len;
} bytes_t;

static void add_bytes(bytes_t *b, const void *data, size_t len)
{
    if (b->data != NULL && len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void add_number(bytes_t *b, uint64_t n)
{
    add_bytes(b, &n, sizeof(n));
}

static void add_text(bytes_t *b, hd_str_t s)
{
    add_number(b, s.len);
    add_bytes(b, s.data, s.len);
}

/* By name, which is the same in all processes and generations, and belongs to one arena.
 */
static void add_slot(bytes_t *b, const hd_slot_t *slot)
{
    if (slot == NULL) {
        add_number(b, 0);
        return;
    }
    add_number(b, 1 + slot->arena);
    add_text(b, slot->name);
}

static void add_ocsp(bytes_t *b, const hd_tls_ocsp_t *o)
{
    add_number(b, o != NULL);
    if (o == NULL)
        return;
    add_number(b, o->leaf_only);
    add_text(b, o->responder);
    add_number(b, o->resolver.id);
    add_number(b, o->resolver.timeout_ms);
    add_slot(b, o->cluster);
    add_text(b, o->zone);
    add_number(b, o->zone_bytes);
}

static void add_conf(bytes_t *b, const hd_tls_conf_t *conf)
{
    add_number(b, conf->certs_n);
    for (uint32_t i = 0; i < conf->certs_n; i++)
        add_slot(b, conf->certs[i]);
    add_number(b, conf->pairs_n);
    for (uint32_t i = 0; i < conf->pairs_n; i++) {
        add_text(b, conf->pairs[i].cert_text);
        add_text(b, conf->pairs[i].key_text);
    }
    if (conf->pairs_n > 0) {
        add_text(b, conf->pairs_dir);
        add_slot(b, conf->passphrases);
        add_number(b, conf->pairs_kept);
        add_number(b, (uint64_t)conf->pairs_idle_s << 32 | conf->pairs_valid_s);
    }
    add_slot(b, conf->trust);
    add_number(b, conf->verify);
    add_number(b, conf->version_min);
    add_number(b, conf->version_max);
    add_number(b, conf->verify_depth);
    add_number(
        b, (uint64_t)conf->session_tickets | (uint64_t)conf->session_cache << 1 |
               (uint64_t)conf->prefer_server_ciphers << 2 | (uint64_t)conf->is_mesh << 3 |
               (uint64_t)conf->verify_late << 4 | (uint64_t)conf->rejects << 5 |
               (uint64_t)conf->skips_unknown_alpn << 6 | (uint64_t)conf->early_data << 7 |
               (uint64_t)conf->alpn_by_protocol << 8 |
               (uint64_t)conf->sni_by_endpoint << 9 | (uint64_t)conf->verifies_sni << 10 |
               (uint64_t)conf->staples << 11 | (uint64_t)conf->record_bytes << 16);
    add_text(b, conf->dh_pem);
    add_text(b, conf->commands);
    add_text(b, conf->ciphers);
    add_text(b, conf->ciphersuites);
    add_text(b, conf->groups);
    add_text(b, conf->alpn);
    add_text(b, conf->sni);
    add_number(b, conf->sans_n);
    for (uint32_t i = 0; i < conf->sans_n; i++) {
        const hd_match_t *p = &conf->sans[i];

        add_number(b, (uint64_t)p->kind | (uint64_t)p->ignore_case << 8 |
                          (uint64_t)p->part << 9 | (uint64_t)p->invert << 10);
        add_text(b, p->text);
        add_number(b, conf->san_kinds != NULL ? conf->san_kinds[i] : HD_TLS_SAN_ANY);
        add_text(b, conf->san_oids != NULL ? conf->san_oids[i] : HD_STR_NONE);
    }
    add_text(b, conf->cert_hashes);
    add_text(b, conf->spki_hashes);
    add_number(
        b, (uint64_t)conf->allow_expired | (uint64_t)conf->accept_untrusted << 1 |
               (uint64_t)conf->crl_leaf_only << 2 | (uint64_t)conf->revalidates << 3 |
               (uint64_t)conf->partial_chain << 4 | (uint64_t)conf->host_by_subject << 5);
    add_text(b, conf->verify_host);
    add_ocsp(b, conf->ocsp);
    add_text(b, conf->key_log);
    add_number(b, conf->session_timeout_s);
    add_slot(b, conf->ticket_keys);
    add_text(b, conf->session_zone);
    add_number(b, conf->session_zone_bytes);
}

static bytes_t make_bytes(const hd_tls_conf_t *conf, bool is_server)
{
    bytes_t b = {NULL, 0};

    add_number(&b, is_server);
    add_conf(&b, conf);
    b.data = malloc(b.len);
    hd_bug_on(b.data == NULL);
    b.len = 0;
    add_number(&b, is_server);
    add_conf(&b, conf);
    return b;
}

static uint64_t hash_bytes(const bytes_t *b)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    uint64_t hash;

    hd_bug_on(EVP_Digest(b->data, b->len, digest, NULL, EVP_sha256(), NULL) != 1);
    memcpy(&hash, digest, sizeof(hash));
    return hash != 0 ? hash : 1; /* 0 is "plain" for who compares */
}

static uint64_t hash_conf(const hd_tls_conf_t *conf, bool is_server)
{
    bytes_t b = make_bytes(conf, is_server);
    uint64_t hash = hash_bytes(&b);

    free(b.data);
    return hash;
}

/* What says who is let in, and nothing else. */
static hd_tls_conf_t client_part(const hd_tls_conf_t *conf)
{
    return (hd_tls_conf_t){.trust = conf->trust,
                           .verify = conf->verify,
                           .verify_late = conf->verify_late,
                           .verify_depth = conf->verify_depth,
                           .is_mesh = conf->is_mesh,
                           .sans = conf->sans,
                           .sans_n = conf->sans_n,
                           .san_kinds = conf->san_kinds,
                           .san_oids = conf->san_oids,
                           .cert_hashes = conf->cert_hashes,
                           .spki_hashes = conf->spki_hashes,
                           .allow_expired = conf->allow_expired,
                           .accept_untrusted = conf->accept_untrusted,
                           .crl_leaf_only = conf->crl_leaf_only,
                           .partial_chain = conf->partial_chain,
                           .ocsp = conf->ocsp};
}

void hd_tls_conf_seal(hd_tls_conf_t *conf)
{
    hd_tls_conf_t part = client_part(conf);

    conf->hash = hash_conf(conf, false);
    conf->client_hash = conf->verify != HD_TLS_VERIFY_NONE ? hash_conf(&part, true) : 0;
    part.rejects = conf->rejects;
    part.revalidates = conf->revalidates;
    conf->peer_hash = hash_conf(&part, true);
}

/* --- callbacks of a handshake --- */

/* OpenSSL reads the extension later, and of a session of TLS 1.2 doesn't tell it. That it
 * is damaged is OpenSSL's to say (RFC 6066 §3: a list of one name). */
static void take_server_name(hd_tls_layer_t *l)
{
    hd_conn_t *c = l->layer.conn;
    const unsigned char *at;
    size_t len;

    if (SSL_client_hello_get0_ext(l->ssl, TLSEXT_TYPE_server_name, &at, &len) == 1 &&
        len > 5 && at[2] == TLSEXT_NAMETYPE_host_name &&
        ((size_t)at[3] << 8 | at[4]) == len - 5)
        hd_conn_facts(c)->sni =
            hd_str_dup_lower(hd_conn_pool(c), hd_str_n((const char *)at + 5, len - 5));
}

static int on_hello(SSL *ssl, int *alert, void *arg)
{
    hd_tls_layer_t *l = hd_tls_layer_of(ssl);
    hd_err_t err = {0};

    (void)arg;
    take_server_name(l);
    if (hd_tls_pairs_choose(l, &err) == HD_OK)
        return SSL_CLIENT_HELLO_SUCCESS;
    hd_log_conn(HD_LOG_ERROR, l->layer.conn->id, "%s", err.text);
    hd_ignore(hd_conn_fail(l->layer.conn, HD_E_TLS, "%s", err.text) != HD_ERROR);
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

/* The server's order decides (RFC 7301 §3.2). */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
    const hd_tls_ctx_t *ctx = arg;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(
            &chosen, out_len, (const unsigned char *)ctx->conf.alpn.data,
            (unsigned)ctx->conf.alpn.len, in, in_len) == OPENSSL_NPN_NEGOTIATED) {
        *out = chosen;
        return SSL_TLSEXT_ERR_OK;
    }
    /* Mesh peers offer names of their own that differ from version to version, and Envoy
     * lets in whoever it is; where a file says what is spoken, the RFC's alert says it
     * best. */
    return ctx->conf.skips_unknown_alpn ? SSL_TLSEXT_ERR_NOACK
                                        : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool attach_cert(SSL *ssl, const hd_tls_cert_t *cert, unsigned *types)
{
    int type = EVP_PKEY_get_base_id(cert->key);
    unsigned bit = type == EVP_PKEY_RSA ? 1 : type == EVP_PKEY_EC ? 2 : 4;

    if ((*types & bit) != 0)
        return true; /* the first of a type is the one */
    *types |= bit;
    return SSL_use_cert_and_key(ssl, cert->leaf, cert->key, cert->chain, 1) == 1;
}

/* In TLS 1.2 ciphers, too, say which keys a client knows. */
static bool has_cipher_for(const SSL *ssl, const EVP_PKEY *key)
{
    STACK_OF(SSL_CIPHER) *offered = SSL_get_client_ciphers(ssl);
    int auth = EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA ? NID_auth_rsa : NID_auth_ecdsa;

    for (int i = 0; i < sk_SSL_CIPHER_num(offered); i++)
        if (SSL_CIPHER_get_auth_nid(sk_SSL_CIPHER_value(offered, i)) == auth)
            return true;
    return SSL_version(ssl) >= TLS1_3_VERSION;
}

/* It fits the name asked for, and the client can verify what its key signs: who knows RSA
 * alone gets one of RSA, of another name rather than none. */
static bool is_asked_for(SSL *ssl, const hd_tls_cert_t *cert, const char *name)
{
    return X509_check_host(cert->leaf, name, 0, 0, NULL) == 1 &&
           has_cipher_for(ssl, cert->key) &&
           (SSL_check_chain(ssl, cert->leaf, cert->key, cert->chain) & CERT_PKEY_SIGN) !=
               0;
}

static bool is_over(const hd_tls_layer_t *l, const hd_tls_cert_t *cert)
{
    return cert->ocsp_until_s != 0 && cert->ocsp_until_s < hd_tls_now_s(l);
}

/* Without what the client asked for, or with something else, it may not be shown. */
static bool lacks_staple(const hd_tls_layer_t *l, const hd_tls_cert_t *cert)
{
    hd_tls_staple_t policy = l->ctx->conf.staples;

    if (policy == HD_TLS_STAPLE_LENIENT ||
        SSL_get_tlsext_status_type(l->ssl) != TLSEXT_STATUSTYPE_ocsp)
        return false;
    return cert->ocsp_der.len > 0 ? is_over(l, cert) : policy == HD_TLS_STAPLE_MUST;
}

/* Attaches the certificates that are asked for, all if none is: OpenSSL then chooses by
 * key type. On a client: all. */
static int on_cert(SSL *ssl, void *arg)
{
    const hd_tls_ctx_t *ctx = arg;
    hd_tls_layer_t *l = hd_tls_layer_of(ssl);
    const char *sni = ctx->is_server && ctx->conf.certs_n > 1
                          ? SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
                          : NULL;
    unsigned types = 0;
    hd_err_t err = {0};

    for (int pass = sni != NULL ? 0 : 1; pass < 2 && types == 0; pass++) {
        for (uint32_t i = 0; i < ctx->conf.certs_n; i++) {
            const hd_tls_cert_t *cert = hd_tls_cert_of(l, i, &err);

            if (cert != NULL && lacks_staple(l, cert)) {
                hd_ignore(hd_err_set(&err, HD_E_TLS,
                                     "certificate '%.*s' has no OCSP response that is "
                                     "still good",
                                     HD_STR_ARG(ctx->conf.certs[i]->name)) != HD_ERROR);
                continue;
            }
            if (cert == NULL || (pass == 0 && !is_asked_for(ssl, cert, sni)))
                continue;
            if (!attach_cert(ssl, cert, &types))
                hd_ignore(hd_conn_fail(l->layer.conn, HD_E_TLS,
                                       "certificate '%.*s' can't be used here",
                                       HD_STR_ARG(ctx->conf.certs[i]->name)) != HD_ERROR);
        }
    }
    for (uint32_t i = 0; l->held != NULL && i < l->held->own_n; i++)
        if (!attach_cert(ssl, l->held->own[i], &types))
            return 0; /* OpenSSL says why */
    if (types != 0 || (ctx->conf.certs_n == 0 && !ctx->is_server))
        return 1;
    hd_ignore(
        hd_conn_fail(l->layer.conn, HD_E_TLS, "%s",
                     err.text[0] != '\0' ? err.text : "this server has no certificate") !=
        HD_ERROR);
    return 0;
}

/* Called whether a name was sent or not. */
static int on_reject(SSL *ssl, int *alert, void *arg)
{
    (void)arg;
    hd_ignore(hd_conn_fail(hd_tls_layer_of(ssl)->layer.conn, HD_E_TLS,
                           "handshake rejected (ssl_reject_handshake)") != HD_ERROR);
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* A session has a name, without which early data isn't taken, only where it was accepted. */
static int on_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl, (void)alert, (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

/* What the agent was answered last, if it is about this very certificate, and still true:
 * rather none than a wrong one. */
static hd_str_t find_staple(const hd_tls_layer_t *l, const hd_tls_cert_t *cert)
{
    const hd_slot_t *slot =
        cert->staple.len > 0
            ? hd_slot_find(l->ctx->member, NULL, HD_RES_POLICY, cert->staple)
            : NULL;
    const hd_region_t *r = slot != NULL ? hd_slot_get(l->ctx->member, slot) : NULL;
    const hd_staple_t *s = r != NULL ? r->root : NULL;

    if (s == NULL || s->until_s <= hd_tls_now_s(l) ||
        memcmp(s->fingerprint, cert->fingerprint, sizeof(s->fingerprint)) != 0)
        return is_over(l, cert) ? HD_STR_NONE : cert->ocsp_der;
    return s->der;
}

/* The answer of the certificate's issuer that it isn't revoked (RFC 6066 §8), where a
 * client asks for it. */
static int on_status(SSL *ssl, void *arg)
{
    const hd_tls_ctx_t *ctx = arg;
    const hd_tls_layer_t *l = hd_tls_layer_of(ssl);
    const X509 *leaf = SSL_get_certificate(ssl);

    for (uint32_t i = 0; i < ctx->conf.certs_n && leaf != NULL; i++) {
        const hd_tls_cert_t *cert = hd_tls_cert_of(l, i, NULL);
        unsigned char *copy;
        hd_str_t der;

        if (cert == NULL || X509_cmp(cert->leaf, leaf) != 0 ||
            (der = find_staple(l, cert)).len == 0)
            continue;
        copy = OPENSSL_memdup(der.data, der.len);
        hd_bug_on(copy == NULL);
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)der.len); /* taken */
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

void (*hd_tls_write_key_log)(hd_str_t path, hd_str_t line);

static void on_key(const SSL *ssl, const char *line)
{
    const hd_tls_ctx_t *ctx = hd_tls_layer_of(ssl)->ctx;
    char text[512]; /* a label and two values of up to 64 bytes each, in hex */
    int n = snprintf(text, sizeof(text), "%s\n", line);

    if (n > 0 && (size_t)n < sizeof(text) && hd_tls_write_key_log != NULL)
        hd_tls_write_key_log(ctx->conf.key_log, hd_str_n(text, (size_t)n));
    OPENSSL_cleanse(text, sizeof(text));
}

/* --- settings -> SSL_CTX --- */

static hd_rc_t fail(hd_err_t *err, const char *what, hd_str_t text)
{
    char why[160] = "";
    unsigned long e = ERR_peek_last_error();

    if (e != 0)
        ERR_error_string_n(e, why, sizeof(why));
    ERR_clear_error();
    return hd_err_set(err, HD_E_CONF, "%s \"%.*s\" can't be used%s%s", what,
                      HD_STR_ARG(text), why[0] != '\0' ? ": " : "", why);
}

/* BoringSSL's groups of equal preference, "[a|b]:c", become "a:b:c". */
static char *flatten_ciphers(hd_pool_t *pool, hd_str_t text)
{
    char *out = hd_pool_alloc_unaligned(pool, text.len + 1), *to = out;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];

        if (c != '[' && c != ']')
            *to++ = c == '|' ? ':' : c;
    }
    *to = '\0';
    return out;
}

static hd_rc_t set_algorithms(hd_tls_ctx_t *ctx, hd_err_t *err)
{
    const hd_tls_conf_t *conf = &ctx->conf;
    int min = conf->version_min != 0 ? conf->version_min : TLS1_2_VERSION;
    int max = conf->version_max != 0 ? conf->version_max : TLS1_3_VERSION;

    if (min > max || min < TLS1_VERSION || max > TLS1_3_VERSION ||
        SSL_CTX_set_min_proto_version(ctx->ssl_ctx, min) != 1 ||
        SSL_CTX_set_max_proto_version(ctx->ssl_ctx, max) != 1)
        return hd_err_set(err, HD_E_CONF,
                          "TLS versions from 0x%04x to 0x%04x: 0x0303 (1.2) and 0x0304 "
                          "(1.3) can be had",
                          (unsigned)min, (unsigned)max);
    if (SSL_CTX_set_cipher_list(ctx->ssl_ctx,
                                conf->ciphers.len > 0
                                    ? flatten_ciphers(ctx->pool, conf->ciphers)
                                    : default_ciphers) != 1)
        return fail(err, "cipher list", conf->ciphers);
    if (SSL_CTX_set_ciphersuites(ctx->ssl_ctx,
                                 conf->ciphersuites.len > 0
                                     ? hd_str_to_c(ctx->pool, conf->ciphersuites)
                                     : default_suites) != 1)
        return fail(err, "TLS 1.3 ciphersuites", conf->ciphersuites);
    if (SSL_CTX_set1_groups_list(ctx->ssl_ctx, conf->groups.len > 0
                                                   ? hd_str_to_c(ctx->pool, conf->groups)
                                                   : default_groups) != 1)
        return fail(err, "groups", conf->groups);
    return HD_OK;
}

static hd_rc_t set_dh(hd_tls_ctx_t *ctx, hd_err_t *err)
{
    hd_str_t pem = ctx->conf.dh_pem;
    EVP_PKEY *key;
    BIO *bio;

    if (pem.len == 0)
        return HD_OK;
    bio = BIO_new_mem_buf(pem.data, (int)hd_min(pem.len, 1u << 20));
    hd_bug_on(bio == NULL);
    key = PEM_read_bio_Parameters(bio, NULL);
    BIO_free(bio);
    if (key == NULL ||
        (EVP_PKEY_get_base_id(key) != EVP_PKEY_DH &&
         EVP_PKEY_get_base_id(key) != EVP_PKEY_DHX) ||
        SSL_CTX_set0_tmp_dh_pkey(ctx->ssl_ctx, key) != 1) { /* taken if it is good */
        EVP_PKEY_free(key);
        return fail(err, "DH parameters", HD_STR("-----BEGIN DH PARAMETERS-----"));
    }
    return HD_OK;
}

/* OpenSSL's own commands, in order, over what the other settings say. */
static hd_rc_t run_commands(hd_tls_ctx_t *ctx, hd_err_t *err)
{
    hd_str_t rest = ctx->conf.commands, name, value;
    SSL_CONF_CTX *cctx;
    hd_rc_t rc = HD_OK;

    if (rest.len == 0)
        return HD_OK;
    cctx = SSL_CONF_CTX_new();
    hd_bug_on(cctx == NULL);
    SSL_CONF_CTX_set_flags(
        cctx, SSL_CONF_FLAG_FILE | SSL_CONF_FLAG_SHOW_ERRORS | SSL_CONF_FLAG_CERTIFICATE |
                  (ctx->is_server ? SSL_CONF_FLAG_SERVER : SSL_CONF_FLAG_CLIENT));
    SSL_CONF_CTX_set_ssl_ctx(cctx, ctx->ssl_ctx);
    while (rc == HD_OK && hd_str_split(&rest, '\0', &name) &&
           hd_str_split(&rest, '\0', &value)) {
        int type;
        char *n = hd_str_to_c(ctx->pool, name), *v = hd_str_to_c(ctx->pool, value);

        type = SSL_CONF_cmd_value_type(cctx, n);
        if (type == SSL_CONF_TYPE_FILE || type == SSL_CONF_TYPE_DIR ||
            type == SSL_CONF_TYPE_STORE)
            rc = hd_err_set(err, HD_E_CONF,
                            "command \"%s\": files are not read this way, but by the "
                            "directives of certificates and roots",
                            n);
        else if (SSL_CONF_cmd(cctx, n, v) <= 0)
            rc = fail(err, "command", hd_str_printf(ctx->pool, "%s %s", n, v));
    }
    if (rc == HD_OK && SSL_CONF_CTX_finish(cctx) != 1)
        rc = fail(err, "commands", HD_STR_NONE);
    SSL_CONF_CTX_free(cctx);
    return rc;
}

static hd_rc_t check_alpn(hd_str_t alpn, hd_err_t *err)
{
    for (size_t at = 0; at < alpn.len;) {
        size_t n = (uint8_t)alpn.data[at];

        if (n == 0 || n > alpn.len - at - 1)
            return hd_err_set(err, HD_E_CONF,
                              "the ALPN list is damaged at byte %zu of %zu", at,
                              alpn.len);
        at += 1 + n;
    }
    return HD_OK;
}

static hd_rc_t set_names(hd_tls_ctx_t *ctx, hd_err_t *err)
{
    const hd_tls_conf_t *conf = &ctx->conf;

    if (conf->alpn.len > 65535 || check_alpn(conf->alpn, err) != HD_OK)
        return HD_ERROR;
    if (ctx->is_server && conf->alpn.len > 0)
        SSL_CTX_set_alpn_select_cb(ctx->ssl_ctx, on_alpn, ctx);
    else if (conf->alpn.len > 0 &&
             SSL_CTX_set_alpn_protos(ctx->ssl_ctx, (const unsigned char *)conf->alpn.data,
                                     (unsigned)conf->alpn.len) != 0)
        return fail(err, "ALPN list", conf->alpn);
    if (conf->sans_n > 0 && !hd_tls_checks_peer(conf))
        return hd_err_set(err, HD_E_CONF,
                          "names to look for in a certificate that isn't verified: set "
                          "the trusted roots too");
    if (ctx->is_server && conf->verify != HD_TLS_VERIFY_NONE &&
        conf->verify != HD_TLS_VERIFY_OPTIONAL_NO_CA && !hd_tls_checks_peer(conf))
        return hd_err_set(err, HD_E_CONF,
                          "a client's certificate is asked for, but by which roots is it "
                          "verified?");
    ctx->regexes = hd_pool_new_n(ctx->pool, hd_regex_t *, hd_max(conf->sans_n, 1u));
    for (uint32_t i = 0; i < conf->sans_n; i++) {
        const hd_match_t *p = &conf->sans[i];

        if (p->kind == HD_MATCH_REGEX &&
            (ctx->regexes[i] = hd_regex_create(p->text, p->ignore_case, p->part, err)) ==
                NULL)
            return HD_ERROR;
    }
    return HD_OK;
}

static void set_ways(hd_tls_ctx_t *ctx)
{
    const hd_tls_conf_t *conf = &ctx->conf;
    SSL_CTX *s = ctx->ssl_ctx;
    uint64_t options = SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION;
    int mode = SSL_VERIFY_NONE;

    if (conf->prefer_server_ciphers)
        options |= SSL_OP_CIPHER_SERVER_PREFERENCE;
    if (!conf->session_tickets)
        options |= SSL_OP_NO_TICKET;
    SSL_CTX_set_options(s, options);
    if (conf->is_mesh) /* no middlebox that would need a TLS 1.2 look */
        SSL_CTX_clear_options(s, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
    /* Idle conns hold no buffer; writes may be tried again from elsewhere; what is sent
     * is the chain as given, never one found in the roots. */
    SSL_CTX_set_mode(s, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_cert_cb(s, on_cert, ctx);
    if (ctx->is_server)
        SSL_CTX_set_client_hello_cb(s, on_hello, ctx);
    if (conf->key_log.len > 0)
        SSL_CTX_set_keylog_callback(s, on_key);
    if (ctx->is_server && conf->rejects)
        SSL_CTX_set_tlsext_servername_callback(s, on_reject);
    else if (ctx->is_server && conf->early_data)
        SSL_CTX_set_tlsext_servername_callback(s, on_name);
    if (ctx->is_server && conf->early_data)
        SSL_CTX_set_max_early_data(s, EARLY_BYTES_MAX);
    if (ctx->is_server) {
        SSL_CTX_set_tlsext_status_cb(s, on_status);
        SSL_CTX_set_tlsext_status_arg(s, ctx);
    }
    if (ctx->is_server && conf->verify != HD_TLS_VERIFY_NONE)
        mode = SSL_VERIFY_PEER |
               (conf->verify == HD_TLS_VERIFY_REQUIRED && !conf->verify_late
                    ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                    : 0);
    else if (!ctx->is_server && hd_tls_checks_peer(conf))
        mode = SSL_VERIFY_PEER;
    SSL_CTX_set_verify(s, mode, NULL);
    SSL_CTX_set_cert_verify_callback(s, hd_tls_verify, ctx);
    if (conf->verify_depth > 0)
        SSL_CTX_set_verify_depth(
            s, conf->verify_depth == HD_TLS_DEPTH_NONE ? 0 : conf->verify_depth);
    SSL_CTX_set_timeout(s, conf->session_timeout_s != 0 ? conf->session_timeout_s
                                                        : SESSION_TIMEOUT_S);
    if (conf->is_mesh)
        SSL_CTX_set_num_tickets(s, 1);
}

/* What they say is asked of the settings of each conn. */
static const hd_tls_pair_t *copy_pairs(hd_pool_t *pool, const hd_tls_conf_t *conf)
{
    hd_tls_pair_t *pairs = hd_pool_new_n(pool, hd_tls_pair_t, hd_max(conf->pairs_n, 1u));

    for (uint32_t i = 0; i < conf->pairs_n; i++)
        pairs[i] =
            (hd_tls_pair_t){.cert_text = hd_str_dup(pool, conf->pairs[i].cert_text),
                            .key_text = hd_str_dup(pool, conf->pairs[i].key_text)};
    return pairs;
}

/* <conf> but for its slots, which stay where they are. */
static void copy_conf(hd_tls_ctx_t *ctx, const hd_tls_conf_t *conf)
{
    hd_tls_conf_t *to = &ctx->conf;
    const hd_slot_t **certs =
        hd_pool_new_n(ctx->pool, const hd_slot_t *, hd_max(conf->certs_n, 1u));
    hd_match_t *sans = hd_pool_new_n(ctx->pool, hd_match_t, hd_max(conf->sans_n, 1u));
    hd_str_t *oids = conf->san_oids != NULL
                         ? hd_pool_new_n(ctx->pool, hd_str_t, hd_max(conf->sans_n, 1u))
                         : NULL;

    *to = *conf;
    to->san_oids = oids;
    for (uint32_t i = 0; i < conf->certs_n; i++)
        certs[i] = conf->certs[i];
    for (uint32_t i = 0; i < conf->sans_n; i++) {
        sans[i] = conf->sans[i];
        sans[i].text = hd_str_dup(ctx->pool, conf->sans[i].text);
        if (oids != NULL)
            oids[i] = hd_str_dup(ctx->pool, conf->san_oids[i]);
    }
    if (conf->san_kinds != NULL)
        to->san_kinds =
            (const uint8_t *)hd_str_dup(
                ctx->pool, hd_str_n((const char *)conf->san_kinds, conf->sans_n))
                .data;
    to->cert_hashes = hd_str_dup(ctx->pool, conf->cert_hashes);
    to->spki_hashes = hd_str_dup(ctx->pool, conf->spki_hashes);
    to->session_zone = hd_str_dup(ctx->pool, conf->session_zone);
    to->certs = certs;
    to->pairs = copy_pairs(ctx->pool, conf);
    to->pairs_dir = hd_str_dup(ctx->pool, conf->pairs_dir);
    to->sans = sans;
    to->ciphers = hd_str_dup(ctx->pool, conf->ciphers);
    to->ciphersuites = hd_str_dup(ctx->pool, conf->ciphersuites);
    to->groups = hd_str_dup(ctx->pool, conf->groups);
    to->dh_pem = hd_str_dup(ctx->pool, conf->dh_pem);
    to->commands = hd_str_dup(ctx->pool, conf->commands);
    to->alpn = hd_str_dup(ctx->pool, conf->alpn);
    to->sni = hd_str_dup(ctx->pool, conf->sni);
    to->verify_host = hd_str_dup(ctx->pool, conf->verify_host);
    to->key_log = hd_str_dup(ctx->pool, conf->key_log);
    if (conf->ocsp != NULL) {
        hd_tls_ocsp_t *o = hd_pool_new(ctx->pool, hd_tls_ocsp_t);

        *o = *conf->ocsp;
        o->responder = hd_str_dup(ctx->pool, conf->ocsp->responder);
        o->zone = hd_str_dup(ctx->pool, conf->ocsp->zone);
        to->ocsp = o;
    }
    hd_tls_conf_seal(to); /* sessions are bound to it: never to one that wasn't made */
}

/* Conns keep their settings longer than any region. <m> NULL: it is only tried. */
static void hold_slots(hd_member_t *m, const hd_tls_conf_t *conf,
                       void (*hold)(hd_member_t *m, const hd_slot_t *slot))
{
    for (uint32_t i = 0; m != NULL && i < conf->certs_n; i++)
        hold(m, conf->certs[i]);
    if (m != NULL && conf->trust != NULL)
        hold(m, conf->trust);
    if (m != NULL && conf->ticket_keys != NULL)
        hold(m, conf->ticket_keys);
    if (m != NULL && conf->passphrases != NULL)
        hold(m, conf->passphrases);
    if (m != NULL && conf->ocsp != NULL)
        hold(m, conf->ocsp->cluster);
}

static void destroy_ctx(hd_member_t *m, void *companion)
{
    hd_tls_ctx_t *ctx = companion;

    hold_slots(m, &ctx->conf, hd_slot_let_go);
    if (ctx->is_kept) {
        hd_list_remove(&ctx->kept);
        kept_n--;
    }
    if (ctx->regexes != NULL)
        for (uint32_t i = 0; i < ctx->conf.sans_n; i++)
            if (ctx->regexes[i] != NULL)
                hd_regex_destroy(ctx->regexes[i]);
    hd_tls_pairs_deinit(ctx);
    hd_tls_sessions_deinit(ctx);
    SSL_CTX_free(ctx->ssl_ctx);
    hd_pool_destroy(ctx->pool);
    free(ctx);
}

typedef struct {
    const hd_tls_conf_t *conf;
    bool is_server;
} wanted_t;

static void *create_ctx(hd_member_t *m, const void *owner, const void *arg, hd_err_t *err)
{
    const wanted_t *wanted = arg;
    hd_tls_ctx_t *ctx = calloc(1, sizeof(*ctx));

    (void)owner;
    hd_bug_on(ctx == NULL);
    ERR_clear_error();
    ctx->member = m;
    ctx->is_server = wanted->is_server;
    ctx->pool = hd_pool_create(0);
    hd_list_init(&ctx->kept);
    copy_conf(ctx, wanted->conf);
    hold_slots(m, &ctx->conf, hd_slot_hold);
    ctx->ssl_ctx =
        SSL_CTX_new(ctx->is_server ? TLS_server_method() : TLS_client_method());
    hd_bug_on(ctx->ssl_ctx == NULL);
    set_ways(ctx);
    hd_tls_sessions_init(ctx);
    if (set_algorithms(ctx, err) != HD_OK || set_dh(ctx, err) != HD_OK ||
        set_names(ctx, err) != HD_OK || run_commands(ctx, err) != HD_OK) {
        destroy_ctx(m, ctx);
        return NULL;
    }
    return ctx;
}

static const hd_companion_type_t ctx_type = {
    .name = "tls settings",
    .create = create_ctx,
    .destroy = destroy_ctx,
};

hd_rc_t hd_tls_conf_check(const hd_tls_conf_t *conf, bool is_server, hd_err_t *err)
{
    wanted_t wanted = {conf, is_server};
    hd_tls_ctx_t *ctx = create_ctx(NULL, NULL, &wanted, err);

    if (ctx == NULL)
        return HD_ERROR;
    destroy_ctx(NULL, ctx);
    return HD_OK;
}

hd_rc_t hd_tls_conf_check_cert(const hd_tls_conf_t *conf, bool is_server,
                               hd_str_t chain_pem, hd_err_t *err)
{
    wanted_t wanted = {conf, is_server};
    STACK_OF(X509) *chain = hd_tls_read_certs(chain_pem, "the certificate chain", err);
    hd_tls_ctx_t *ctx = chain != NULL ? create_ctx(NULL, NULL, &wanted, err) : NULL;
    hd_rc_t rc = ctx != NULL ? HD_OK : HD_ERROR;

    for (int i = 0; rc == HD_OK && i < sk_X509_num(chain); i++) {
        X509 *cert = sk_X509_value(chain, i);

        if ((i == 0 ? SSL_CTX_use_certificate(ctx->ssl_ctx, cert)
                    : (int)SSL_CTX_add1_chain_cert(ctx->ssl_ctx, cert)) != 1)
            rc = hd_err_set(err, HD_E_CONF,
                            "certificate %d of the chain can't be used: %s", i + 1,
                            ERR_reason_error_string(ERR_peek_last_error()));
    }
    ERR_clear_error();
    if (ctx != NULL)
        destroy_ctx(NULL, ctx);
    sk_X509_pop_free(chain, X509_free);
    return rc;
}

bool hd_tls_is_cipher(hd_str_t name)
{
    SSL_CTX *s = SSL_CTX_new(TLS_method());
    char text[128];
    bool is_one;

    hd_bug_on(s == NULL);
    snprintf(text, sizeof(text), "%.*s", HD_STR_ARG(name));
    is_one = name.len < sizeof(text) && SSL_CTX_set_cipher_list(s, text) == 1;
    SSL_CTX_free(s);
    ERR_clear_error();
    return is_one;
}

/* Holds one count more for <ctx>, so that it stays; the one unused longest goes. */
static void keep_ctx(hd_tls_ctx_t *ctx, hd_str_t content, const wanted_t *wanted)
{
    if (kept.next == NULL)
        hd_list_init(&kept);
    if (ctx->is_kept) {
        hd_list_remove(&ctx->kept);
        hd_list_add_first(&kept, &ctx->kept);
        return;
    }
    if (hd_companion_of_content(ctx->member, &ctx_type, content, wanted, NULL) != ctx)
        return;
    ctx->is_kept = true;
    hd_list_add_first(&kept, &ctx->kept);
    if (++kept_n > KEPT_MAX) {
        hd_tls_ctx_t *last = hd_list_entry(kept.prev, hd_tls_ctx_t, kept);

        hd_list_remove(&last->kept);
        last->is_kept = false;
        kept_n--;
        hd_tls_ctx_put(last);
    }
}

hd_tls_ctx_t *hd_tls_ctx_get(hd_member_t *m, const hd_tls_conf_t *conf, bool is_server,
                             hd_err_t *err)
{
    bytes_t b = make_bytes(conf, is_server);
    hd_str_t content = {b.data, b.len};
    wanted_t wanted = {conf, is_server};
    hd_tls_ctx_t *ctx = hd_companion_of_content(m, &ctx_type, content, &wanted, err);

    if (ctx != NULL)
        keep_ctx(ctx, content, &wanted);
    free(b.data);
    return ctx;
}

void hd_tls_ctx_put(hd_tls_ctx_t *ctx)
{
    hd_companion_release(ctx->member, &ctx_type, ctx);
}
