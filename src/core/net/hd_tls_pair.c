/* hd_tls_pair: certificates whose names have variables. A server's are known when the
 * ClientHello is there; they are chosen before OpenSSL looks for a session, so that none
 * goes over from one certificate to another. What was read may stay, as settings say:
 *
 *   read -> kept -(valid_s)-> the same files? -> kept
 *                 \-(idle_s unused, or kept others)-> gone
 *
 * The client's words must not choose files beyond what names allow: a server name is one
 * of letters, digits, '-', '_' and '.', and no value brings "..".
 */
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/base/hd_small_file.h"
#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>

#define FILE_BYTES_MAX (1u << 20)

typedef struct {
    hd_str_t cert, key;
} names_t;

typedef struct {
    hd_link_t by_use;
    uint8_t key[32]; /* SHA-256 of the names */
    hd_tls_cert_t *cert;
    hd_file_stamp_t stamps[2]; /* of certificate and key; zeros: it is no file */
    int64_t read_s, used_s;
} kept_t;

/* --- reading --- */

static bool is_data(hd_str_t name)
{
    return hd_str_has_prefix(name, HD_STR("data:"));
}

/* As far as it is fit for a message. */
static hd_str_t shown(hd_str_t name)
{
    return is_data(name) ? HD_STR("data:...") : name;
}

static const char *path_of(const hd_tls_ctx_t *ctx, hd_str_t name, hd_pool_t *pool)
{
    bool is_absolute = name.len > 0 && name.data[0] == '/';

    return hd_str_printf(pool, "%.*s%.*s",
                         HD_STR_ARG(is_absolute ? HD_STR_NONE : ctx->conf.pairs_dir),
                         HD_STR_ARG(name))
        .data;
}

static hd_rc_t read_text(const hd_tls_ctx_t *ctx, hd_str_t name, const char *what,
                         hd_pool_t *pool, hd_str_t *text, hd_file_stamp_t *stamp,
                         hd_err_t *err)
{
    hd_small_file_t f;

    *stamp = (hd_file_stamp_t){0};
    if (is_data(name)) {
        *text = hd_str_sub(name, 5, name.len);
        return HD_OK;
    }
    if (name.len == 0 || memchr(name.data, '\0', name.len) != NULL ||
        hd_str_has_prefix(name, HD_STR("engine:")) ||
        hd_str_has_prefix(name, HD_STR("store:")))
        return hd_err_set(err, HD_E_CONF,
                          "cannot load %s \"%.*s\": a file is expected, or data: and PEM "
                          "text",
                          what, HD_STR_ARG(name));
    if (hd_small_file_open(&f, path_of(ctx, name, pool), FILE_BYTES_MAX, what, err) !=
        HD_OK)
        return HD_ERROR;
    *stamp = f.stamp;
    return hd_small_file_take(&f, hd_pool_alloc_unaligned(pool, f.bytes + 1), text,
                              err) == HD_OK
               ? HD_OK
               : hd_err_prefix(err, "cannot load %s \"%.*s\": ", what, HD_STR_ARG(name));
}

static hd_str_t passphrases_of(const hd_tls_ctx_t *ctx)
{
    const hd_slot_t *slot = ctx->conf.passphrases;
    const hd_region_t *r = slot != NULL ? hd_slot_get(ctx->member, slot) : NULL;

    return r != NULL ? ((const hd_secret_t *)r->root)->passphrases : HD_STR_NONE;
}

static void wipe(hd_str_t text)
{
    if (text.len > 0)
        OPENSSL_cleanse((char *)(uintptr_t)text.data, text.len);
}

static hd_tls_cert_t *read_pair(const hd_tls_ctx_t *ctx, const names_t *names,
                                hd_file_stamp_t stamps[2], hd_err_t *err)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_str_t locked = HD_STR_NONE, words = passphrases_of(ctx);
    hd_tls_cert_t *cert = NULL;
    hd_secret_t s = {0};

    if (read_text(ctx, names->cert, "certificate", pool, &s.chain_pem, &stamps[0], err) ==
            HD_OK &&
        read_text(ctx, names->key, "certificate key", pool, &locked, &stamps[1], err) ==
            HD_OK) {
        s.key_pem = locked;
        if (words.len == 0 ||
            hd_tls_key_unlock(locked, words, pool, &s.key_pem, err) == HD_OK)
            cert = hd_tls_cert_create(&s, err);
        if (cert == NULL)
            hd_ignore(hd_err_prefix(err,
                                    "cannot load certificate \"%.*s\" with key "
                                    "\"%.*s\": ",
                                    HD_STR_ARG(shown(names->cert)),
                                    HD_STR_ARG(shown(names->key))) == HD_ERROR);
        else
            cert->content = hd_hash64(s.chain_pem.data, s.chain_pem.len,
                                      hd_hash64(s.key_pem.data, s.key_pem.len, 1));
    }
    if (s.key_pem.data != locked.data)
        wipe(s.key_pem);
    if (!is_data(names->key)) /* else a variable's, lent */
        wipe(locked);
    hd_pool_destroy(pool);
    return cert;
}

/* --- what stays --- */

static void let_go(hd_tls_cert_t *cert)
{
    if (--cert->uses == 0)
        hd_tls_cert_destroy(cert);
}

static hd_str_t key_of(const uint8_t *key)
{
    return hd_str_n((const char *)key, 32);
}

static void remove_kept(hd_tls_ctx_t *ctx, kept_t *k)
{
    hd_ignore(hd_map_remove(ctx->pairs, key_of(k->key)) != k);
    hd_list_remove(&k->by_use);
    let_go(k->cert);
    free(k);
}

static void make_key(const names_t *names, uint8_t key[32])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint64_t len = names->cert.len;

    hd_bug_on(md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1 ||
              EVP_DigestUpdate(md, &len, sizeof(len)) != 1 ||
              EVP_DigestUpdate(md, names->cert.data, names->cert.len) != 1 ||
              EVP_DigestUpdate(md, names->key.data, names->key.len) != 1 ||
              EVP_DigestFinal_ex(md, key, NULL) != 1);
    EVP_MD_CTX_free(md);
}

static bool is_as_read(const hd_tls_ctx_t *ctx, hd_str_t name, const hd_file_stamp_t *was,
                       hd_pool_t *pool)
{
    hd_file_stamp_t is;

    return is_data(name) || (hd_file_stamp_get(path_of(ctx, name, pool), &is) &&
                             hd_file_stamp_eq(&is, was));
}

static bool is_still_good(const hd_tls_ctx_t *ctx, const names_t *names, kept_t *k,
                          int64_t now_s)
{
    hd_pool_t *pool;
    bool good;

    if (now_s - k->read_s < (int64_t)ctx->conf.pairs_valid_s)
        return true;
    pool = hd_pool_create(0);
    good = is_as_read(ctx, names->cert, &k->stamps[0], pool) &&
           is_as_read(ctx, names->key, &k->stamps[1], pool);
    hd_pool_destroy(pool);
    if (good)
        k->read_s = now_s;
    return good;
}

/* NULL: it isn't kept, or no longer. */
static kept_t *find_kept(hd_tls_ctx_t *ctx, const names_t *names, const uint8_t *key,
                         int64_t now_s)
{
    kept_t *k;

    if (ctx->pairs == NULL)
        return NULL;
    while (!hd_list_is_empty(&ctx->pairs_by_use)) {
        k = hd_list_entry(ctx->pairs_by_use.prev, kept_t, by_use);
        if (now_s - k->used_s < (int64_t)ctx->conf.pairs_idle_s)
            break;
        remove_kept(ctx, k);
    }
    k = hd_map_get(ctx->pairs, key_of(key));
    if (k != NULL && !is_still_good(ctx, names, k, now_s)) {
        remove_kept(ctx, k);
        return NULL;
    }
    return k;
}

static kept_t *keep(hd_tls_ctx_t *ctx, const uint8_t *key, hd_tls_cert_t *cert,
                    const hd_file_stamp_t stamps[2], int64_t now_s)
{
    kept_t *k = calloc(1, sizeof(*k));

    hd_bug_on(k == NULL);
    if (ctx->pairs == NULL) {
        ctx->pairs = hd_map_create();
        hd_list_init(&ctx->pairs_by_use);
    }
    if (hd_map_count(ctx->pairs) >= ctx->conf.pairs_kept)
        remove_kept(ctx, hd_list_entry(ctx->pairs_by_use.prev, kept_t, by_use));
    memcpy(k->key, key, sizeof(k->key));
    memcpy(k->stamps, stamps, sizeof(k->stamps));
    k->cert = cert;
    k->read_s = now_s;
    cert->uses++;
    hd_list_init(&k->by_use);
    hd_ignore(hd_map_put(ctx->pairs, key_of(k->key), k) != NULL);
    return k;
}

/* One use of it is the caller's; NULL: <err>. */
static hd_tls_cert_t *get_pair(hd_tls_ctx_t *ctx, const names_t *names, int64_t now_s,
                               hd_err_t *err)
{
    hd_file_stamp_t stamps[2];
    hd_tls_cert_t *cert;
    uint8_t key[32];
    kept_t *k = NULL;

    if (ctx->conf.pairs_kept > 0) {
        make_key(names, key);
        k = find_kept(ctx, names, key, now_s);
    }
    cert = k != NULL ? k->cert : read_pair(ctx, names, stamps, err);
    if (cert == NULL)
        return NULL;
    cert->uses++;
    if (k == NULL && ctx->conf.pairs_kept > 0)
        k = keep(ctx, key, cert, stamps, now_s);
    if (k != NULL) {
        k->used_s = now_s;
        hd_list_remove(&k->by_use);
        hd_list_add_first(&ctx->pairs_by_use, &k->by_use);
    }
    return cert;
}

void hd_tls_pairs_deinit(hd_tls_ctx_t *ctx)
{
    if (ctx->pairs == NULL)
        return;
    while (!hd_list_is_empty(&ctx->pairs_by_use))
        remove_kept(ctx, hd_list_entry(ctx->pairs_by_use.next, kept_t, by_use));
    hd_map_destroy(ctx->pairs);
}

/* --- what a handshake holds --- */

static void hold_own(hd_tls_held_t *held, hd_tls_cert_t *cert, uint64_t *version)
{
    hd_tls_cert_t **longer =
        realloc(held->own, (held->own_n + 1) * sizeof(hd_tls_cert_t *));

    hd_bug_on(longer == NULL);
    held->own = longer;
    held->own[held->own_n++] = cert;
    *version = *version * 1000003 + cert->content;
}

void hd_tls_pairs_let_go(hd_tls_held_t *held)
{
    for (uint32_t i = 0; i < held->own_n; i++)
        let_go(held->own[i]);
    free(held->own);
    held->own = NULL;
    held->own_n = 0;
}

hd_rc_t hd_tls_pair_take(hd_tls_layer_t *l, const hd_tls_client_t *ask, uint64_t *version,
                         hd_err_t *err)
{
    names_t names = {ask->cert, ask->key};
    hd_tls_cert_t *cert;
    hd_err_t why = {0};

    if (l->ctx->conf.pairs_n == 0 || ask->cert.len == 0)
        return HD_OK;
    cert = get_pair(l->ctx, &names, hd_tls_now_s(l), &why);
    if (cert == NULL) /* our own fault, not the peer's */
        return hd_err_set(err, HD_E_INTERNAL, "%s", why.text);
    hold_own(l->held, cert, version);
    return HD_OK;
}

hd_rc_t (*hd_tls_name_eval)(hd_conn_t *c, const struct hd_expr_s *name, hd_pool_t *pool,
                            hd_str_t *out, hd_err_t *err);

static bool is_host_name(hd_str_t name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = hd_ascii_lower(name.data[i]);

        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' &&
            c != '.')
            return false;
    }
    return name.len <= 255 && name.data[0] != '.' && hd_str_find(name, HD_STR("..")) < 0;
}

static hd_rc_t take_pairs(hd_tls_layer_t *l, uint64_t *version, hd_err_t *err)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_rc_t rc = hd_tls_name_eval != NULL ? HD_OK : HD_ERROR;

    for (uint32_t i = 0; rc == HD_OK && i < l->ctx->conf.pairs_n; i++) {
        const hd_tls_pair_t *p = &l->held->pairs[i];
        hd_tls_cert_t *cert;
        names_t names;

        rc = HD_ERROR;
        if (hd_tls_name_eval(l->layer.conn, p->cert, pool, &names.cert, err) == HD_OK &&
            hd_tls_name_eval(l->layer.conn, p->key, pool, &names.key, err) == HD_OK &&
            (cert = get_pair(l->ctx, &names, hd_tls_now_s(l), err)) != NULL) {
            hold_own(l->held, cert, version);
            rc = HD_OK;
        }
    }
    hd_pool_destroy(pool);
    return rc;
}

hd_rc_t hd_tls_pairs_choose(hd_tls_layer_t *l, hd_err_t *err)
{
    hd_str_t asked = hd_tls_server_name(l->layer.conn);
    uint64_t version = 0;

    if (l->ctx->conf.pairs_n == 0 || l->held->own_n > 0)
        return HD_OK; /* own_n: it was asked for a second hello, of the same name */
    if (asked.len > 0 && !is_host_name(asked))
        return hd_err_set(err, HD_E_TLS,
                          "the client's server name is no name of a host: no certificate "
                          "is looked for");
    if (take_pairs(l, &version, err) != HD_OK)
        return HD_ERROR;
    hd_tls_session_bind(l, l->trust_content, version);
    return HD_OK;
}
