/* loom_test: resources for tests of core/loom that can tell whether they are whole. */
#pragma once
#include "core/loom/hd_batch.h"
#include "core/loom/hd_loom_debug.h"
#include "core/os/hd_clock.h"
#include "tap.h"

/* A chain of nodes of odd sizes; each knows its number and what its bytes must be. */
typedef struct loom_node_s {
    const struct loom_node_s *next;
    uint32_t number, len;
    unsigned char bytes[];
} loom_node_t;

typedef struct {
    uint32_t nodes_n, seed;
    const loom_node_t *nodes;
    hd_str_t name;
    const unsigned char *secret; /* 32 bytes of seed, or NULL */
} loom_thing_t;

static hd_err_t loom_err;

TAP_UNUSED static uint32_t loom_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

TAP_UNUSED static hd_state_t *loom_state(void)
{
    static const hd_state_conf_t conf = {.regions_max = 4096,
                                         .gauges_max = 1024,
                                         .series_max = 8192,
                                         .cells_bytes = 1 << 20,
                                         .labels_bytes = 1 << 20};
    hd_state_t *s = hd_state_create(&conf, &loom_err);

    if (s == NULL) {
        printf("Bail out! %s\n", loom_err.text);
        exit(1);
    }
    return s;
}

TAP_UNUSED static hd_arena_t *loom_arena(hd_state_t *s, hd_arena_id_t id,
                                         size_t bytes_max)
{
    hd_arena_conf_t conf = {.bytes_max = bytes_max, .secret_bytes_max = 1 << 20};
    hd_arena_t *a = hd_arena_create(id, &conf, s, &loom_err);

    if (a == NULL) {
        printf("Bail out! %s\n", loom_err.text);
        exit(1);
    }
    return a;
}

/* Builds a thing of <nodes_n> nodes and puts it; HD_ERROR where there is no room. */
TAP_UNUSED static hd_rc_t loom_put_in(hd_batch_t *b, hd_slot_t *slot, uint32_t seed,
                                      uint32_t nodes_n, bool with_secret)
{
    hd_pool_t *pool;
    hd_region_t *r;
    loom_thing_t *t;

    hd_err_clear(&loom_err);
    if (slot == NULL)
        return HD_ERROR;
    r = hd_batch_region(b, (hd_res_type_t)slot->type, slot->name, HD_STR("test:1"), 0,
                        &pool, &loom_err);
    if (r == NULL)
        return HD_ERROR;
    t = hd_pool_new(pool, loom_thing_t);
    t->nodes_n = nodes_n;
    t->seed = seed;
    t->name = hd_str_dup(pool, slot->name);
    for (uint32_t i = 0; i < nodes_n; i++) {
        uint32_t mix = seed + i, len = loom_random(&mix) % 200;
        loom_node_t *n = hd_pool_alloc(pool, sizeof(*n) + len);

        n->number = i;
        n->len = len;
        memset(n->bytes, (int)((seed + i) & 255), len);
        n->next = t->nodes;
        t->nodes = n;
    }
    if (with_secret) {
        unsigned char *secret = hd_batch_secret(b, r, 32, &loom_err);

        if (secret != NULL)
            memset(secret, (int)(seed & 255), 32);
        t->secret = secret;
    }
    return hd_batch_put(b, slot, r, t, 0, &loom_err);
}

TAP_UNUSED static hd_rc_t loom_put(hd_batch_t *b, hd_arena_t *a, hd_res_type_t type,
                                   const char *name, uint32_t seed, uint32_t nodes_n)
{
    return loom_put_in(b, hd_slot_find_or_add(a, type, hd_str_c(name), &loom_err), seed,
                       nodes_n, type == HD_RES_SECRET);
}

TAP_UNUSED static bool loom_is_whole(const hd_region_t *r)
{
    const loom_thing_t *t = r->root;
    uint32_t seen = 0;

    if (r->magic != HD_REGION_MAGIC || !hd_str_eq(r->name, t->name))
        return false;
    for (const loom_node_t *n = t->nodes; n != NULL; n = n->next, seen++) {
        if (seen >= t->nodes_n || n->number != t->nodes_n - 1 - seen)
            return false;
        for (uint32_t i = 0; i < n->len; i++)
            if (n->bytes[i] != ((t->seed + n->number) & 255))
                return false;
    }
    for (int i = 0; t->secret != NULL && i < 32; i++)
        if (t->secret[i] != (t->seed & 255))
            return false;
    return seen == t->nodes_n;
}

TAP_UNUSED static uint32_t loom_seed_of(const hd_region_t *r)
{
    return ((const loom_thing_t *)r->root)->seed;
}
