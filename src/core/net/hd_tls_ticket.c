/* hd_tls_ticket: the keys of session tickets: of files or of SDS, or made here: then all
 * processes that began with the same seed go the same way, without a word between them.
 */
#include "core/net/hd_tls_int.h"
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <time.h>

enum { EPOCH_S = 43200 /* a key's time of use; good for one more to read */ };

typedef struct {
    uint64_t epoch;
    unsigned char name[16], aes[32], mac[32];
} made_key_t;

typedef struct {
    const unsigned char *name, *aes, *mac;
    bool is_256;
} ticket_key_t;

/* --- made here --- */

/* The secret of an epoch; that of the next one is made of it, never the other way. */
typedef struct {
    uint64_t epoch;
    uint8_t secret[32];
} seed_t;

static seed_t begun;                 /* what a fork hands on */
static _Thread_local seed_t current; /* epoch 0: not begun */
static _Thread_local made_key_t keys[2];

static void derive(const seed_t *s, const char *what, unsigned char out[32])
{
    unsigned n = 0;

    hd_bug_on(HMAC(EVP_sha256(), s->secret, sizeof(s->secret),
                   (const unsigned char *)what, strlen(what), out, &n) == NULL ||
              n != 32);
}

static void advance(seed_t *s, uint64_t epoch)
{
    unsigned char next[32];

    while (s->epoch < epoch) {
        derive(s, "next", next);
        memcpy(s->secret, next, sizeof(next));
        s->epoch++;
    }
    OPENSSL_cleanse(next, sizeof(next));
}

void hd_tls_set_ticket_seed(const uint8_t seed[32], int64_t now_s)
{
    memcpy(begun.secret, seed, sizeof(begun.secret));
    begun.epoch = (uint64_t)now_s / EPOCH_S - 1; /* tickets of the last one are read */
    current.epoch = keys[0].epoch = keys[1].epoch = 0;
}

void hd_tls_make_ticket_seed(void)
{
    uint8_t seed[32];

    hd_bug_on(RAND_priv_bytes(seed, sizeof(seed)) != 1);
    hd_tls_set_ticket_seed(seed, (int64_t)time(NULL));
    OPENSSL_cleanse(seed, sizeof(seed));
}

void hd_tls_advance_ticket_seed(int64_t now_s)
{
    if (begun.epoch != 0)
        advance(&begun, (uint64_t)now_s / EPOCH_S - 1);
}

static void make_key(const seed_t *s, made_key_t *key)
{
    unsigned char bytes[32];

    derive(s, "name", bytes);
    memcpy(key->name, bytes, sizeof(key->name));
    derive(s, "aes", key->aes);
    derive(s, "mac", key->mac);
    key->epoch = s->epoch;
}

/* The keys in force at <epoch>, its own first; how many. */
static int get_made(uint64_t epoch, ticket_key_t out[2])
{
    int n = 0;

    if (begun.epoch == 0)
        hd_tls_make_ticket_seed();
    if (current.epoch == 0) {
        current = begun;
        make_key(&current, &keys[current.epoch % 2]);
    }
    while (current.epoch < epoch) {
        advance(&current, current.epoch + 1);
        make_key(&current, &keys[current.epoch % 2]);
    }
    for (int i = 0; i < 2; i++) { /* a clock set back: the latest stays in use */
        const made_key_t *k = &keys[(current.epoch + (uint64_t)i) % 2];

        if (k->epoch != 0) /* or all may know it */
            out[n++] = (ticket_key_t){k->name, k->aes, k->mac, true};
    }
    return n;
}

/* --- given --- */

static ticket_key_t read_key(const char *record)
{
    const unsigned char *k = (const unsigned char *)record + 1;

    return (unsigned char)record[0] == 80 ? (ticket_key_t){k, k + 48, k + 16, true}
                                          : (ticket_key_t){k, k + 16, k + 32, false};
}

/* --- OpenSSL asks --- */

static bool is_named(const ticket_key_t *k, const unsigned char *name)
{
    return CRYPTO_memcmp(name, k->name, 16) == 0;
}

/* -1: none of them. */
static int find_key(hd_tls_layer_t *l, const unsigned char *name, ticket_key_t *key)
{
    const hd_slot_t *slot = l->ctx->conf.ticket_keys;
    const hd_region_t *r = slot != NULL ? hd_slot_get(l->ctx->member, slot) : NULL;
    const hd_secret_t *s = r != NULL ? r->root : NULL;
    ticket_key_t made[2];
    int made_n;

    if (slot != NULL) { /* before they are there: no tickets */
        size_t n = s != NULL ? s->ticket_keys.len / HD_TLS_TICKET_KEY_BYTES : 0;

        for (size_t i = 0; i < n; i++) {
            *key = read_key(s->ticket_keys.data + i * HD_TLS_TICKET_KEY_BYTES);
            if (name == NULL || is_named(key, name))
                return (int)i;
        }
        return -1;
    }
    made_n = get_made((uint64_t)hd_tls_now_s(l) / EPOCH_S, made);
    for (int i = 0; i < made_n; i++) {
        *key = made[i];
        if (name == NULL || is_named(key, name))
            return i;
    }
    return -1;
}

int hd_tls_on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv,
                         EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[3];
    const EVP_CIPHER *c;
    ticket_key_t key;
    int at = find_key(hd_tls_layer_of(ssl), enc ? NULL : name, &key);

    if (at < 0)
        return 0;
    c = key.is_256 ? EVP_aes_256_cbc() : EVP_aes_128_cbc();
    if (enc) {
        memcpy(name, key.name, 16);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(c)) != 1)
            return -1;
    }
    params[0] = OSSL_PARAM_construct_octet_string(
        OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key.mac, key.is_256 ? 32 : 16);
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
    params[2] = OSSL_PARAM_construct_end();
    if (EVP_CipherInit_ex(cipher, c, NULL, key.aes, iv, enc) != 1 ||
        EVP_MAC_CTX_set_params(mac, params) != 1)
        return -1;
    return at == 0 ? 1 : 2;
}
