#include "core/net/hd_sticky.h"

#include <openssl/evp.h>
#include <stdatomic.h>

#define BUCKET 8
#define BUSY 1 /* a key that is being claimed */

typedef struct {
    _Atomic uint64_t key; /* 0: free */
    _Atomic uint64_t route, used_ms;
} session_t;

struct hd_sessions_s {
    _Atomic uint64_t seed; /* not 0 */
    _Atomic uint64_t buckets;
    session_t items[];
};

uint64_t hd_sticky_hash(hd_str_t route)
{
    uint64_t h = hd_hash64(route.data, route.len, 0);

    return h != 0 ? h : 1;
}

hd_str_t hd_sticky_route(hd_pool_t *pool, const hd_addr_t *addr)
{
    static const char digits[] = "0123456789abcdef";
    char text[HD_ADDR_TEXT_MAX], *out = hd_pool_alloc(pool, 2 * EVP_MAX_MD_SIZE);
    hd_str_t name = hd_addr_print(addr, text);
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (EVP_Digest(name.data, name.len, md, &len, EVP_md5(), NULL) != 1)
        return hd_str_printf(pool, "%016llx", /* no MD5 here (FIPS) */
                             (unsigned long long)hd_sticky_hash(name));
    for (unsigned i = 0; i < len; i++) {
        out[2 * i] = digits[md[i] >> 4];
        out[2 * i + 1] = digits[md[i] & 15];
    }
    return hd_str_n(out, 2 * len);
}

void hd_sessions_init(hd_sessions_t *t, size_t bytes, uint64_t seed)
{
    uint64_t none = 0;

    atomic_store(&t->buckets, (bytes - sizeof(*t)) / (BUCKET * sizeof(session_t)));
    hd_ignore(!atomic_compare_exchange_strong(&t->seed, &none, seed | 1));
}

static uint64_t key_of(const hd_sessions_t *t, hd_str_t id)
{
    uint64_t key = hd_hash64(id.data, id.len, atomic_load(&t->seed));

    return key > BUSY ? key : key + 2;
}

static session_t *bucket_of(hd_sessions_t *t, uint64_t key)
{
    return &t->items[key % atomic_load(&t->buckets) * BUCKET];
}

uint64_t hd_sessions_find(hd_sessions_t *t, hd_str_t id, uint64_t now_ms,
                          uint32_t timeout_ms)
{
    uint64_t key = key_of(t, id);
    session_t *s = bucket_of(t, key);

    for (int i = 0; i < BUCKET; i++, s++) {
        uint64_t route, used_ms;

        if (atomic_load_explicit(&s->key, memory_order_acquire) != key)
            continue;
        route = atomic_load_explicit(&s->route, memory_order_acquire);
        used_ms = atomic_load_explicit(&s->used_ms, memory_order_acquire);
        if (atomic_load_explicit(&s->key, memory_order_relaxed) != key)
            return 0; /* given to another meanwhile */
        return used_ms + timeout_ms >= now_ms ? route : 0;
    }
    return 0;
}

/* Free ones and old ones first, else the one that was used least lately. */
static session_t *choose_victim(session_t *bucket)
{
    session_t *victim = bucket;
    uint64_t oldest = UINT64_MAX;

    for (int i = 0; i < BUCKET; i++) {
        uint64_t used_ms =
            atomic_load_explicit(&bucket[i].key, memory_order_relaxed) == 0
                ? 0
                : atomic_load_explicit(&bucket[i].used_ms, memory_order_relaxed);

        if (used_ms < oldest) {
            oldest = used_ms;
            victim = &bucket[i];
        }
    }
    return victim;
}

void hd_sessions_put(hd_sessions_t *t, hd_str_t id, uint64_t route, bool creates,
                     uint64_t now_ms)
{
    uint64_t key = key_of(t, id), old;
    session_t *bucket = bucket_of(t, key), *s = bucket;

    for (int i = 0; i < BUCKET; i++, s++) {
        if (atomic_load_explicit(&s->key, memory_order_acquire) != key)
            continue;
        atomic_store_explicit(&s->route, route, memory_order_relaxed);
        atomic_store_explicit(&s->used_ms, now_ms, memory_order_relaxed);
        return;
    }
    if (!creates)
        return;
    s = choose_victim(bucket);
    old = atomic_load_explicit(&s->key, memory_order_relaxed);
    /* acquire: nobody reads the old key with what follows */
    if (!atomic_compare_exchange_strong_explicit(
            &s->key, &old, BUSY, memory_order_acq_rel, memory_order_relaxed))
        return; /* another session's: this one is learnt with its next request */
    atomic_store_explicit(&s->used_ms, now_ms, memory_order_release);
    atomic_store_explicit(&s->route, route, memory_order_release);
    atomic_store_explicit(&s->key, key, memory_order_release);
}
