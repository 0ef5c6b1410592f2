/* The cache of sessions that workers share: what is put is found, bounded, whole beside
 * writers, and a writer that died is no end of an entry. */
#include "core/net/hd_tls_cache.h"
#include "t/lib/tap.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { BYTES = 1 << 18 };

static hd_str_t id_of(int n, char room[32])
{
    return hd_str_n(room, (size_t)snprintf(room, 32, "session-%020d", n));
}

static hd_tls_cache_t *make(void)
{
    void *memory = aligned_alloc(64, BYTES);

    memset(memory, 0, BYTES);
    return memory;
}

static void test_one(void)
{
    hd_tls_cache_t *c = make();
    char large[3000], out[4096], room[32];
    hd_str_t id = id_of(1, room);

    memset(large, 'x', sizeof(large));
    ok(hd_tls_cache_get(c, BYTES, id, 100, out, sizeof(out)) == 0, "empty");
    ok(hd_tls_cache_try_put(c, BYTES, id, HD_STR("data"), 200, 100) &&
           hd_tls_cache_get(c, BYTES, id, 199, out, sizeof(out)) == 4 &&
           memcmp(out, "data", 4) == 0,
       "what is put is found");
    ok(hd_tls_cache_get(c, BYTES, id, 200, out, sizeof(out)) == 0, "until it is over");
    ok(hd_tls_cache_try_put(c, BYTES, id, hd_str_n(large, sizeof(large)), 300, 100),
       "a large one");
    hd_tls_cache_remove(c, BYTES, id, 100);
    ok(hd_tls_cache_get(c, BYTES, id, 100, out, sizeof(out)) == 0,
       "removed: of either size");
    ok(!hd_tls_cache_try_put(c, BYTES, id, hd_str_n(out, 4096), 300, 100), "too large");
    ok(hd_tls_cache_try_put(c, BYTES, id, hd_str_n(large, sizeof(large)), 300, 100) &&
           hd_tls_cache_get(c, BYTES, id, 100, out, 100) == 0,
       "no room to read it: none");
    ok(!hd_tls_cache_try_put(c, BYTES, HD_STR_NONE, HD_STR("x"), 300, 100), "no id");
    ok(hd_tls_cache_try_put(c, BYTES, id_of(2, room), HD_STR("data"), 200, 100) &&
           hd_tls_cache_take(c, BYTES, id_of(2, room), 100, out, sizeof(out)) == 4 &&
           hd_tls_cache_take(c, BYTES, id_of(2, room), 100, out, sizeof(out)) == 0,
       "taken: once");
    free(c);
}

static void test_full(void)
{
    hd_tls_cache_t *c = make();
    char out[64], room[32];
    int found_n = 0;

    for (int i = 0; i < 10000; i++)
        if (!hd_tls_cache_try_put(c, BYTES, id_of(i, room), id_of(i, room), 1000 + i,
                                  100))
            fail("no room though older ones could go");
    for (int i = 0; i < 10000; i++) {
        size_t n = hd_tls_cache_get(c, BYTES, id_of(i, room), 100, out, sizeof(out));

        found_n += n > 0;
        if (n > 0 && memcmp(out, id_of(i, room).data, n) != 0)
            fail("another's data");
    }
    /* five eighths of the memory in entries of 512 bytes */
    ok(found_n >= 300 && found_n <= 320, "bounded: %d sessions in 256 KB", found_n);
    ok(hd_tls_cache_get(c, BYTES, id_of(9999, room), 100, out, sizeof(out)) > 0,
       "the one that ends last is there");
    free(c);
}

static void test_dead_writer(void)
{
    hd_tls_cache_t *c = make();
    _Atomic uint64_t *words = (_Atomic uint64_t *)(void *)c;
    char out[64], room[32];
    hd_str_t id = id_of(7, room);
    bool was_there;

    /* All entries as their writers left them in the middle of it, at 50. */
    for (size_t at = 0; at < BYTES / 8; at += 64) {
        atomic_store(&words[at], 1);
        atomic_store(&words[at + 1], 50);
    }
    ok(!hd_tls_cache_try_put(c, BYTES, id, HD_STR("x"), 200, 55), "busy: not waited for");
    was_there = hd_tls_cache_get(c, BYTES, id, 55, out, sizeof(out)) > 0;
    ok(!was_there, "nor read");
    ok(hd_tls_cache_try_put(c, BYTES, id, HD_STR("x"), 200, 61) &&
           hd_tls_cache_get(c, BYTES, id, 61, out, sizeof(out)) == 1,
       "taken over in time");
    free(c);
}

/* --- readers beside writers --- */

static hd_tls_cache_t *shared;
static atomic_int torn_n;

static void *work(void *arg)
{
    int seed = *(int *)arg;
    char text[200], out[512], room[32];

    for (int i = 0; i < 20000; i++) {
        int n = (i * 7 + seed * 13) % 40;
        size_t len;

        memset(text, 'a' + (i + seed) % 26, sizeof(text));
        hd_ignore(hd_tls_cache_try_put(shared, BYTES, id_of(n, room),
                                       hd_str_n(text, sizeof(text)), 1000, 100));
        len = hd_tls_cache_get(shared, BYTES, id_of((n + 1) % 40, room), 100, out,
                               sizeof(out));
        for (size_t k = 1; k < len; k++)
            if (out[k] != out[0])
                atomic_fetch_add(&torn_n, 1);
    }
    return NULL;
}

static atomic_int taken_n;

static void *take_all(void *arg)
{
    char out[512], room[32];

    (void)arg;
    for (int i = 0; i < 300; i++)
        if (hd_tls_cache_take(shared, BYTES, id_of(i, room), 100, out, sizeof(out)) > 0)
            atomic_fetch_add(&taken_n, 1);
    return NULL;
}

static void test_takers(void)
{
    pthread_t threads[4];
    int put_n = 0;
    char out[64], room[32];

    for (int round = 0; round < 50; round++) {
        shared = make();
        for (int i = 0; i < 300; i++)
            hd_ignore(hd_tls_cache_try_put(shared, BYTES, id_of(i, room), HD_STR("data"),
                                           1000, 100));
        for (int i = 0; i < 300; i++) /* a full bucket has lost some */
            put_n += hd_tls_cache_get(shared, BYTES, id_of(i, room), 100, out,
                                      sizeof(out)) > 0;
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, take_all, NULL);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        free(shared);
    }
    ok(atomic_load(&taken_n) == put_n && put_n > 0,
       "of those who take one gets it: %d of %d", atomic_load(&taken_n), put_n);
}

static void test_threads(void)
{
    pthread_t threads[4];
    int seeds[4] = {1, 2, 3, 4};

    shared = make();
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work, &seeds[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ok(atomic_load(&torn_n) == 0, "nothing torn beside writers");
    free(shared);
}

int main(void)
{
    test_one();
    test_full();
    test_dead_writer();
    test_takers();
    test_threads();
    return done_testing();
}
