#include "core/net/hd_tls_cache.h"
#include <stdatomic.h>

enum {
    WAYS = 4,
    SMALL_BYTES = 512,  /* of an entry: a session without a client's certificate */
    LARGE_BYTES = 4096, /* with one */
    BUSY_S = 10,        /* a writer needs microseconds: this one is dead */
};

/* Words, so that a reader beside a writer reads whole ones; <check> tells whether all are
 * of one entry. */
typedef struct {
    _Atomic uint64_t state; /* even: what it holds is whole; odd: being written */
    _Atomic uint64_t busy_since_s;
    _Atomic uint64_t ends_s;  /* 0: empty */
    _Atomic uint64_t lengths; /* id | data << 8 */
    _Atomic uint64_t check;   /* hash of id and data */
    _Atomic uint64_t id[HD_TLS_CACHE_ID_MAX / 8];
    _Atomic uint64_t data[];
} entry_t;

typedef struct {
    char *at;
    size_t entry_bytes, buckets_n;
} part_t;

/* Small entries get five eighths, large ones the rest. */
static part_t part_of(hd_tls_cache_t *cache, size_t bytes, bool is_large)
{
    size_t split = bytes / 8 * 5 / 64 * 64;
    size_t entry = is_large ? LARGE_BYTES : SMALL_BYTES;
    size_t room = is_large ? bytes - split : split;

    return (part_t){(char *)cache + (is_large ? split : 0), entry, room / (entry * WAYS)};
}

static entry_t *entry_at(const part_t *p, uint64_t hash, int way)
{
    size_t bucket = (size_t)(hash % p->buckets_n);

    return (entry_t *)(void *)(p->at + (bucket * WAYS + (size_t)way) * p->entry_bytes);
}

static size_t room_of(const part_t *p)
{
    return p->entry_bytes - sizeof(entry_t);
}

static void store_words(_Atomic uint64_t *to, const char *from, size_t len)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = 0;

        memcpy(&word, from + at, hd_min(len - at, 8u));
        atomic_store_explicit(&to[at / 8], word, memory_order_relaxed);
    }
}

static void load_words(const _Atomic uint64_t *from, char *to, size_t len)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = atomic_load_explicit(&from[at / 8], memory_order_relaxed);

        memcpy(to + at, &word, hd_min(len - at, 8u));
    }
}

static uint64_t check_of(hd_str_t id, const char *data, size_t len)
{
    return hd_hash64(data, len, hd_hash64(id.data, id.len, 7));
}

static bool has_id(const entry_t *e, hd_str_t id)
{
    char own[HD_TLS_CACHE_ID_MAX];

    if ((atomic_load_explicit(&e->lengths, memory_order_relaxed) & 0xff) != id.len)
        return false;
    load_words(e->id, own, id.len);
    return memcmp(own, id.data, id.len) == 0;
}

/* Takes an entry for writing; false: another one has it. */
static bool try_lock(entry_t *e, int64_t now_s, uint64_t *state)
{
    uint64_t since;

    *state = atomic_load(&e->state);
    if ((*state & 1) != 0) {
        since = atomic_load(&e->busy_since_s);
        if (since == 0 || (int64_t)since + BUSY_S > now_s)
            return false;
        *state -= 1; /* its writer is dead: in its place */
        if (!atomic_compare_exchange_strong(&e->state, &(uint64_t){*state + 1},
                                            *state + 3))
            return false;
        *state += 2;
    } else if (!atomic_compare_exchange_strong(&e->state, &(uint64_t){*state},
                                               *state + 1)) {
        return false;
    }
    atomic_store(&e->busy_since_s, (uint64_t)hd_max(now_s, 1));
    return true;
}

/* Not if it was taken for dead meanwhile. */
static void unlock(entry_t *e, uint64_t state)
{
    hd_ignore(
        atomic_compare_exchange_strong(&e->state, &(uint64_t){state + 1}, state + 2));
}

/* The entry that <id> has, else one that is empty or over, else the one that ends first.
 */
static entry_t *choose(const part_t *p, uint64_t hash, hd_str_t id, int64_t now_s)
{
    entry_t *best = NULL;
    uint64_t best_ends_s = UINT64_MAX;

    for (int way = 0; way < WAYS; way++) {
        entry_t *e = entry_at(p, hash, way);
        uint64_t ends_s = atomic_load_explicit(&e->ends_s, memory_order_relaxed);

        if ((atomic_load(&e->state) & 1) != 0 &&
            (int64_t)atomic_load(&e->busy_since_s) + BUSY_S > now_s)
            continue;
        if (ends_s != 0 && has_id(e, id))
            return e;
        if ((int64_t)ends_s <= now_s)
            ends_s = 0;
        if (ends_s < best_ends_s) {
            best_ends_s = ends_s;
            best = e;
        }
    }
    return best;
}

bool hd_tls_cache_try_put(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, hd_str_t data,
                          int64_t ends_s, int64_t now_s)
{
    part_t p = part_of(cache, bytes, data.len > SMALL_BYTES - sizeof(entry_t));
    uint64_t hash = hd_hash64(id.data, id.len, 3), state;
    entry_t *e;

    if (id.len == 0 || id.len > HD_TLS_CACHE_ID_MAX || data.len > room_of(&p) ||
        p.buckets_n == 0 || ends_s <= now_s)
        return false;
    e = choose(&p, hash, id, now_s);
    if (e == NULL || !try_lock(e, now_s, &state))
        return false;
    atomic_store_explicit(&e->ends_s, (uint64_t)ends_s, memory_order_relaxed);
    atomic_store_explicit(&e->lengths, id.len | (uint64_t)data.len << 8,
                          memory_order_relaxed);
    atomic_store_explicit(&e->check, check_of(id, data.data, data.len),
                          memory_order_relaxed);
    store_words(e->id, id.data, id.len);
    store_words(e->data, data.data, data.len);
    unlock(e, state);
    return true;
}

/* What was read is whole if no writer was there before or after, and as it was put. */
static size_t read_entry(const part_t *p, entry_t *e, hd_str_t id, int64_t now_s,
                         char *to, size_t room)
{
    uint64_t state = atomic_load(&e->state), check;
    size_t len;

    if ((state & 1) != 0 ||
        (int64_t)atomic_load_explicit(&e->ends_s, memory_order_relaxed) <= now_s ||
        !has_id(e, id))
        return 0;
    len = (size_t)(atomic_load_explicit(&e->lengths, memory_order_relaxed) >> 8);
    check = atomic_load_explicit(&e->check, memory_order_relaxed);
    if (len > room || len > room_of(p))
        return 0;
    load_words(e->data, to, len);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&e->state) == state && check_of(id, to, len) == check ? len : 0;
}

/* False: another one has it, or it isn't that any more. */
static bool try_empty(entry_t *e, hd_str_t id, int64_t now_s)
{
    uint64_t state;
    bool is_there;

    if (!has_id(e, id) || !try_lock(e, now_s, &state))
        return false;
    is_there = has_id(e, id) && (int64_t)atomic_load(&e->ends_s) > now_s;
    if (has_id(e, id))
        atomic_store(&e->ends_s, 0);
    unlock(e, state);
    return is_there;
}

static size_t get(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, int64_t now_s,
                  char *to, size_t room, bool takes)
{
    uint64_t hash = hd_hash64(id.data, id.len, 3);
    size_t len = 0;

    if (id.len == 0 || id.len > HD_TLS_CACHE_ID_MAX)
        return 0;
    for (int large = 0; large < 2; large++) {
        part_t p = part_of(cache, bytes, large);

        for (int way = 0; way < WAYS && p.buckets_n > 0 && len == 0; way++) {
            entry_t *e = entry_at(&p, hash, way);

            len = read_entry(&p, e, id, now_s, to, room);
            if (len > 0 && takes && !try_empty(e, id, now_s))
                return 0;
        }
    }
    return len;
}

size_t hd_tls_cache_get(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, int64_t now_s,
                        char *to, size_t room)
{
    return get(cache, bytes, id, now_s, to, room, false);
}

size_t hd_tls_cache_take(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, int64_t now_s,
                         char *to, size_t room)
{
    return get(cache, bytes, id, now_s, to, room, true);
}

void hd_tls_cache_remove(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, int64_t now_s)
{
    uint64_t hash = hd_hash64(id.data, id.len, 3);

    if (id.len == 0 || id.len > HD_TLS_CACHE_ID_MAX)
        return;
    for (int large = 0; large < 2; large++) {
        part_t p = part_of(cache, bytes, large);

        for (int way = 0; way < WAYS && p.buckets_n > 0; way++)
            (void)try_empty(entry_at(&p, hash, way), id, now_s);
    }
}
