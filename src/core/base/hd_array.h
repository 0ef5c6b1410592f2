/* hd_array: a growing run of equal items in a pool, made with its ceiling. While building
 * only: items move when it grows, so keep indexes, not pointers. */
#pragma once
#include "core/base/hd_pool.h"

typedef struct {
    void *items;
    size_t n;
    size_t _room, _item_bytes, _max;
    hd_pool_t *_pool;
} hd_array_t;

/* At most <max_n> items. */
void hd_array_init(hd_array_t *a, hd_pool_t *pool, size_t item_bytes, size_t max_n);
/* A zeroed new last item; NULL at the ceiling. */
void *hd_array_add(hd_array_t *a);
/* The items, copied tightly into <pool>; NULL for none. */
void *hd_array_copy(const hd_array_t *a, hd_pool_t *pool);
#define hd_array_at(a, type, i) (&((type *)(a)->items)[i])
