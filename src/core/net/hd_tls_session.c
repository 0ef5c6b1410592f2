/* hd_tls_session: what may be resumed, and by whom. A session stands for a handshake
 * whose certificates were verified; so it is bound to the settings' hash and the roots'
 * version (the session id context), lives no longer than those certificates, and a client
 * offers it only for the same identity, peer and names. */
#include "core/base/hd_map.h"
#include "core/loom/hd_state.h"
#include "core/net/hd_tls_cache.h"
#include "core/net/hd_tls_int.h"
#include <openssl/evp.h>
#include <stdlib.h>
#include <time.h>

enum {
    CLIENT_KEYS_MAX = 512,      /* peers with a session, a process and settings */
    SESSIONS_A_KEY = 2,         /* servers send two tickets at a time */
    SHARED_BYTES_MAX = 4096,    /* of a session in a shared zone */
    SERVER_SESSIONS_MAX = 1024, /* a process and settings; with a client's certificate
                                   some 3 KB each */
    PASSING_MAX = 8, /* sessions of a zone on their way through OpenSSL's own cache */
    NEVER_S = 1,     /* a time-out of who isn't resumed; OpenSSL makes 3 of 0 */
};

/* --- what is too old --- */

bool hd_tls_session_is_expired(const hd_tls_layer_t *l, const SSL_SESSION *s,
                               int64_t now_s)
{
    X509 *peer = SSL_SESSION_get0_peer((SSL_SESSION *)(uintptr_t)s);

    return SSL_SESSION_get_timeout(s) <= NEVER_S ||
           SSL_SESSION_get_time(s) + SSL_SESSION_get_timeout(s) < now_s ||
           (peer != NULL && !l->ctx->conf.allow_expired &&
            hd_tls_time_s(X509_get0_notAfter(peer)) < now_s);
}

void hd_tls_session_limit(SSL *ssl, const STACK_OF(X509) * chain, int64_t now_s)
{
    SSL_SESSION *s = SSL_get_session(ssl);
    int64_t left_s;

    if (s == NULL)
        return;
    left_s = SSL_SESSION_get_timeout(s);
    for (int i = 0; i < sk_X509_num(chain); i++)
        left_s = hd_min(
            left_s, hd_tls_time_s(X509_get0_notAfter(sk_X509_value(chain, i))) - now_s);
    SSL_SESSION_set_timeout(s, (long)(chain != NULL ? hd_max(left_s, NEVER_S) : NEVER_S));
}

static SSL_TICKET_RETURN on_ticket(SSL *ssl, SSL_SESSION *s, const unsigned char *name,
                                   size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    (void)name;
    (void)name_len;
    (void)arg;
    switch (status) {
    case SSL_TICKET_SUCCESS:
    case SSL_TICKET_SUCCESS_RENEW:
        if (hd_tls_session_is_expired(hd_tls_layer_of(ssl), s,
                                      hd_tls_now_s(hd_tls_layer_of(ssl))))
            return SSL_TICKET_RETURN_IGNORE_RENEW;
        /* A TLS 1.3 client uses a ticket once (RFC 8446 §C.4): it needs another. */
        return status == SSL_TICKET_SUCCESS_RENEW || SSL_version(ssl) == TLS1_3_VERSION
                   ? SSL_TICKET_RETURN_USE_RENEW
                   : SSL_TICKET_RETURN_USE;
    default:
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
}

/* --- a server's, in a zone that workers share --- */

hd_rc_t hd_tls_make_zone(hd_member_t *m, hd_str_t name, size_t bytes, hd_err_t *err)
{
    if (hd_cell_get(m, HD_TLS_ZONE_KIND, name, bytes) != NULL)
        return HD_OK;
    return hd_err_set(err, HD_E_LIMIT,
                      "no room for a session cache \"%.*s\" of %zu bytes: all zones "
                      "together have some 60 MB",
                      HD_STR_ARG(name), bytes);
}

static hd_tls_cache_t *zone_of(hd_tls_ctx_t *ctx)
{
    if (ctx->zone == NULL && ctx->member != NULL)
        ctx->zone = hd_cell_get(ctx->member, HD_TLS_ZONE_KIND, ctx->conf.session_zone,
                                ctx->conf.session_zone_bytes);
    return ctx->zone;
}

static hd_str_t id_of(const SSL_SESSION *s)
{
    unsigned n = 0;
    const unsigned char *id = SSL_SESSION_get_id(s, &n);

    return hd_str_n((const char *)id, n);
}

static int on_server_session(SSL *ssl, SSL_SESSION *s)
{
    hd_tls_layer_t *l = hd_tls_layer_of(ssl);
    hd_tls_cache_t *zone = zone_of(l->ctx);
    unsigned char der[SHARED_BYTES_MAX], *to = der;
    int64_t now_s = hd_tls_now_s(l);
    int len = i2d_SSL_SESSION(s, NULL);

    /* With a ticket the client has all itself, unless it is to be good only once. */
    if (zone == NULL || len <= 0 || len > (int)sizeof(der) ||
        (SSL_version(ssl) == TLS1_3_VERSION && l->ctx->conf.session_tickets &&
         !l->ctx->conf.early_data))
        return 0;
    len = i2d_SSL_SESSION(s, &to);
    hd_ignore(hd_tls_cache_try_put(zone, l->ctx->conf.session_zone_bytes, id_of(s),
                                   hd_str_n((const char *)der, (size_t)len),
                                   now_s + SSL_SESSION_get_timeout(s), now_s));
    OPENSSL_cleanse(der, sizeof(der));
    return 0; /* no reference is kept */
}

static SSL_SESSION *on_wanted_session(SSL *ssl, const unsigned char *id, int len,
                                      int *copy)
{
    hd_tls_layer_t *l = hd_tls_layer_of(ssl);
    hd_tls_cache_t *zone = zone_of(l->ctx);
    unsigned char der[SHARED_BYTES_MAX];
    const unsigned char *at = der;
    SSL_SESSION *s = NULL;
    size_t n;

    *copy = 0;
    if (zone == NULL)
        return NULL;
    n = (SSL_version(ssl) == TLS1_3_VERSION && l->ctx->conf.early_data
             ? hd_tls_cache_take
             : hd_tls_cache_get)(zone, l->ctx->conf.session_zone_bytes,
                                 hd_str_n((const char *)id, (size_t)len), hd_tls_now_s(l),
                                 (char *)der, sizeof(der));
    if (n > 0)
        s = d2i_SSL_SESSION(NULL, &at, (long)n);
    OPENSSL_cleanse(der, sizeof(der));
    if (s != NULL && hd_tls_session_is_expired(l, s, hd_tls_now_s(l))) {
        SSL_SESSION_free(s);
        s = NULL;
    }
    return s;
}

static void on_bad_session(SSL_CTX *ssl_ctx, SSL_SESSION *s)
{
    hd_tls_ctx_t *ctx = SSL_CTX_get_app_data(ssl_ctx);
    hd_tls_cache_t *zone = zone_of(ctx);

    if (zone != NULL)
        hd_tls_cache_remove(zone, ctx->conf.session_zone_bytes, id_of(s),
                            (int64_t)time(NULL));
}

/* --- the client's sessions --- */

typedef struct {
    hd_link_t by_time;
    uint8_t key[HD_TLS_SESSION_KEY_BYTES];
    SSL_SESSION *sessions[SESSIONS_A_KEY]; /* the latest first; NULL behind the last */
} entry_t;

static hd_str_t key_of(const uint8_t *key)
{
    return hd_str_n((const char *)key, HD_TLS_SESSION_KEY_BYTES);
}

static void remove_entry(hd_tls_ctx_t *ctx, entry_t *e)
{
    hd_ignore(hd_map_remove(ctx->sessions, key_of(e->key)) != e);
    hd_list_remove(&e->by_time);
    for (int i = 0; i < SESSIONS_A_KEY; i++)
        SSL_SESSION_free(e->sessions[i]);
    free(e);
}

static entry_t *add_entry(hd_tls_ctx_t *ctx, const uint8_t *key)
{
    entry_t *e = calloc(1, sizeof(*e));

    hd_bug_on(e == NULL);
    memcpy(e->key, key, sizeof(e->key));
    hd_ignore(hd_map_put(ctx->sessions, key_of(e->key), e) != NULL);
    hd_list_add_first(&ctx->sessions_by_time, &e->by_time);
    if (hd_map_count(ctx->sessions) > CLIENT_KEYS_MAX)
        remove_entry(ctx, hd_list_entry(ctx->sessions_by_time.prev, entry_t, by_time));
    return e;
}

static int on_new_session(SSL *ssl, SSL_SESSION *s)
{
    hd_tls_layer_t *l = hd_tls_layer_of(ssl);
    entry_t *e;

    if (l->session_key == NULL || SSL_SESSION_is_resumable(s) != 1)
        return 0;
    e = hd_map_get(l->ctx->sessions, key_of(l->session_key));
    if (e == NULL)
        e = add_entry(l->ctx, l->session_key);
    SSL_SESSION_free(e->sessions[SESSIONS_A_KEY - 1]);
    for (int i = SESSIONS_A_KEY - 1; i > 0; i--)
        e->sessions[i] = e->sessions[i - 1];
    e->sessions[0] = s;
    return 1; /* its reference is ours */
}

/* Offers the latest one that is still good; those of TLS 1.3 are used once. */
static void offer_session(hd_tls_layer_t *l)
{
    entry_t *e = hd_map_get(l->ctx->sessions, key_of(l->session_key));
    int64_t now_s = hd_tls_now_s(l);

    while (e != NULL && e->sessions[0] != NULL) {
        SSL_SESSION *s = e->sessions[0];
        bool is_good =
            !hd_tls_session_is_expired(l, s, now_s) && SSL_SESSION_is_resumable(s) == 1;

        if (is_good)
            hd_ignore(SSL_set_session(l->ssl, s)); /* else a full handshake */
        if (is_good && SSL_SESSION_get_protocol_version(s) < TLS1_3_VERSION)
            return;
        for (int i = 1; i < SESSIONS_A_KEY; i++)
            e->sessions[i - 1] = e->sessions[i];
        e->sessions[SESSIONS_A_KEY - 1] = NULL;
        SSL_SESSION_free(s);
        if (is_good)
            break;
    }
    if (e != NULL && e->sessions[0] == NULL)
        remove_entry(l->ctx, e);
}

static void add_text(EVP_MD_CTX *md, hd_str_t s)
{
    uint64_t len = s.len;

    hd_bug_on(EVP_DigestUpdate(md, &len, sizeof(len)) != 1 ||
              EVP_DigestUpdate(md, s.data, s.len) != 1);
}

static void make_key(hd_tls_layer_t *l, const hd_tls_client_t *ask,
                     uint64_t trust_version, uint64_t own_version)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();

    hd_bug_on(md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1);
    hd_bug_on(EVP_DigestUpdate(md, &trust_version, sizeof(trust_version)) != 1 ||
              EVP_DigestUpdate(md, &own_version, sizeof(own_version)) != 1);
    add_text(md, ask->sni);
    add_text(md, ask->verify_host);
    add_text(md, ask->alpn);
    add_text(md, ask->session_key);
    l->session_key = malloc(HD_TLS_SESSION_KEY_BYTES);
    hd_bug_on(l->session_key == NULL ||
              EVP_DigestFinal_ex(md, l->session_key, NULL) != 1);
    EVP_MD_CTX_free(md);
}

void hd_tls_session_bind(hd_tls_layer_t *l, uint64_t trust_version, uint64_t own_version)
{
    unsigned char id_context[24];

    memcpy(id_context, &l->ctx->conf.hash, 8);
    memcpy(id_context + 8, &trust_version, 8);
    memcpy(id_context + 16, &own_version, 8);
    hd_bug_on(SSL_set_session_id_context(l->ssl, id_context, sizeof(id_context)) != 1);
}

void hd_tls_session_start(hd_tls_layer_t *l, const hd_tls_client_t *ask,
                          uint64_t trust_version, uint64_t own_version)
{
    if (!l->ctx->is_server) {
        if (l->ctx->sessions == NULL)
            return;
        make_key(l, ask, trust_version, own_version);
        offer_session(l);
        return;
    }
    hd_tls_session_bind(l, trust_version, own_version);
}

void hd_tls_sessions_init(hd_tls_ctx_t *ctx)
{
    const hd_tls_conf_t *conf = &ctx->conf;
    SSL_CTX *s = ctx->ssl_ctx;
    long mode = SSL_SESS_CACHE_OFF;

    hd_list_init(&ctx->sessions_by_time);
    SSL_CTX_set_app_data(s, ctx);
    SSL_CTX_sess_set_cache_size(s, SERVER_SESSIONS_MAX);
    if (ctx->is_server) {
        if (conf->session_cache)
            mode = SSL_SESS_CACHE_SERVER;
        if (conf->session_cache && conf->session_zone.len > 0) {
            mode = SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL;
            SSL_CTX_sess_set_new_cb(s, on_server_session);
            SSL_CTX_sess_set_get_cb(s, on_wanted_session);
            if (!conf->early_data)
                SSL_CTX_sess_set_remove_cb(s, on_bad_session);
        }
        /* OpenSSL takes early data only of a session that it could remove from its own
         * cache; the zone alone says whether it is there. */
        if (conf->early_data && conf->session_zone.len > 0) {
            mode = SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL_LOOKUP;
            SSL_CTX_sess_set_cache_size(s, PASSING_MAX);
        }
        if (!conf->session_cache && !conf->session_tickets)
            SSL_CTX_set_num_tickets(s, 0); /* TLS 1.3 would send some all the same */
        SSL_CTX_set_tlsext_ticket_key_evp_cb(s, hd_tls_on_ticket_key);
        SSL_CTX_set_session_ticket_cb(s, NULL, on_ticket, NULL);
    } else if (conf->session_cache || conf->session_tickets) {
        mode = SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL;
        ctx->sessions = hd_map_create();
        SSL_CTX_sess_set_new_cb(s, on_new_session);
    }
    SSL_CTX_set_session_cache_mode(s, mode);
}

void hd_tls_sessions_deinit(hd_tls_ctx_t *ctx)
{
    if (ctx->sessions == NULL)
        return;
    while (!hd_list_is_empty(&ctx->sessions_by_time))
        remove_entry(ctx, hd_list_entry(ctx->sessions_by_time.next, entry_t, by_time));
    hd_map_destroy(ctx->sessions);
}
