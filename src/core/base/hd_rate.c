#include "core/base/hd_rate.h"
#include "core/base/hd_hashes.h"
#include <stdatomic.h>

/* A bucket is its key's hash and one word: when it will be full again, in ticks, and some
 * bits of the key besides. A bucket whose word has other bits was just taken over and is
 * full; a step on the key that was there before can't reach the new one's word.
 *
 * A new key has one bucket, however many workers bring it at once: each claims a place
 * first, then looks for others, takes their claims back, and only then, if its own still
 * stands, makes it count. Of two one sees the other's, so at most one comes through. A
 * claim of a worker that died is taken back likewise. */
#define WAYS 8
#define CLAIM UINT64_C(1) /* in a key: it doesn't count yet */
#define CHECK_BITS 12
#define TICK_SHIFT 6 /* 64 ns: 52 bits of them are nine years */
#define TICKS_MAX ((UINT64_MAX >> CHECK_BITS) - 1)
#define TRIES_MAX 64

typedef struct {
    _Atomic uint64_t key;  /* 0: free; CLAIM may be set */
    _Atomic uint64_t word; /* check << 52 | ticks */
} bucket_t;

struct hd_rates_s {
    _Atomic uint64_t seed;
    uint64_t _reserved[15];
    bucket_t sets[][WAYS];
};

static uint64_t ticks_of(uint64_t word)
{
    return word & (UINT64_MAX >> CHECK_BITS);
}

static uint64_t check_of(uint64_t key)
{
    return key << (64 - CHECK_BITS); /* the set is chosen by other bits */
}

static bool is_of(uint64_t word, uint64_t key)
{
    return ((word ^ check_of(key)) >> (64 - CHECK_BITS)) == 0;
}

static uint64_t hash_key(hd_rates_t *t, hd_str_t key)
{
    uint64_t h =
        hd_xxh64(key.data, key.len, atomic_load_explicit(&t->seed, memory_order_relaxed));

    h &= ~CLAIM;
    return h != 0 ? h : 2 * CLAIM;
}

static bucket_t *set_of(hd_rates_t *t, size_t bytes, uint64_t key)
{
    uint64_t n = (bytes - sizeof(*t)) / sizeof(t->sets[0]);

    return t->sets[(key >> CHECK_BITS) % n];
}

static bucket_t *find(bucket_t *set, uint64_t key)
{
    for (int i = 0; i < WAYS; i++) {
        if (atomic_load_explicit(&set[i].key, memory_order_acquire) == key)
            return &set[i];
    }
    return NULL;
}

/* A place for a new key: a free one, or that of the bucket that is full first. NULL:
 * somebody else took it meanwhile. */
static bucket_t *claim(bucket_t *set, uint64_t key)
{
    bucket_t *oldest = NULL;
    uint64_t theirs = 0, old = 0, least = UINT64_MAX;

    for (int i = 0; i < WAYS; i++) {
        uint64_t k = atomic_load(&set[i].key);
        uint64_t word = atomic_load(&set[i].word);
        uint64_t full = k == 0 ? 0 : 1 + ticks_of(word);

        if (full < least) {
            least = full;
            oldest = &set[i];
            theirs = k;
            old = word;
        }
    }
    if (!atomic_compare_exchange_strong(&oldest->key, &theirs, key | CLAIM))
        return NULL;
    /* The bits may be the same by chance; unless it is used already: full. */
    (void)atomic_compare_exchange_strong(&oldest->word, &old, 0);
    return oldest;
}

/* Takes back others' claims of the key. False: somebody's counts already. */
static bool is_alone(bucket_t *set, const bucket_t *mine, uint64_t key)
{
    for (int i = 0; i < WAYS; i++) {
        uint64_t theirs = key | CLAIM;

        if (&set[i] == mine || atomic_compare_exchange_strong(&set[i].key, &theirs, 0))
            continue;
        if (theirs == key)
            return false;
    }
    return true;
}

static bucket_t *find_or_add(bucket_t *set, uint64_t key)
{
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        bucket_t *b = find(set, key);
        uint64_t mine = key | CLAIM;
        bool is_first;

        if (b != NULL)
            return b;
        b = claim(set, key);
        if (b == NULL)
            continue;
        is_first = is_alone(set, b, key);
        if (atomic_compare_exchange_strong(&b->key, &mine, is_first ? key : 0) &&
            is_first)
            return b;
    }
    return &set[0]; /* the whole set changes hands all the time: a bound, not a bill */
}

void hd_rates_init(hd_rates_t *t, uint64_t seed)
{
    uint64_t none = 0;

    (void)atomic_compare_exchange_strong(&t->seed, &none, seed | 1);
}

bool hd_rates_try_take(hd_rates_t *t, size_t bytes, hd_str_t name,
                       const hd_rate_conf_t *conf, uint64_t now_ns,
                       uint64_t *excess_milli)
{
    uint64_t key = hash_key(t, name), now = now_ns >> TICK_SHIFT;
    uint64_t token = hd_max(conf->token_ns >> TICK_SHIFT, UINT64_C(1)), full, word;
    bucket_t *set = set_of(t, bytes, key), *b = find_or_add(set, key);

    word = atomic_load_explicit(&b->word, memory_order_relaxed);
    for (;;) {
        full = is_of(word, key) ? ticks_of(word) : 0;
        full = hd_min(hd_max(full, now), TICKS_MAX - token) + token;
        *excess_milli = (full - now - token) * 1000 / token;
        if (full - now - token > conf->burst * token)
            return false;
        if (atomic_compare_exchange_weak(&b->word, &word, check_of(key) | full))
            return true;
        if (atomic_load_explicit(&b->key, memory_order_acquire) != key) {
            b = find_or_add(set, key); /* it was taken away meanwhile */
            word = atomic_load_explicit(&b->word, memory_order_relaxed);
        }
    }
}

void hd_rates_give_back(hd_rates_t *t, size_t bytes, hd_str_t name,
                        const hd_rate_conf_t *conf)
{
    uint64_t key = hash_key(t, name), word;
    uint64_t token = hd_max(conf->token_ns >> TICK_SHIFT, UINT64_C(1));
    bucket_t *b = find(set_of(t, bytes, key), key);

    if (b == NULL)
        return;
    word = atomic_load_explicit(&b->word, memory_order_relaxed);
    while (is_of(word, key) && ticks_of(word) > token &&
           !atomic_compare_exchange_weak(&b->word, &word, word - token)) {
    }
}
