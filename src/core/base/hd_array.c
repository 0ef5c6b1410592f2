#include "core/base/hd_array.h"
#include <string.h>

void hd_array_init(hd_array_t *a, hd_pool_t *pool, size_t item_bytes, size_t max_n)
{
    *a = (hd_array_t){._item_bytes = item_bytes, ._max = max_n, ._pool = pool};
}

void *hd_array_add(hd_array_t *a)
{
    if (a->n == a->_max)
        return NULL;
    if (a->n == a->_room) {
        size_t room = hd_min(hd_max(a->_room * 2, (size_t)8), a->_max);
        void *items;

        hd_bug_on(room > SIZE_MAX / 4 / hd_max(a->_item_bytes, (size_t)1));
        items = hd_pool_alloc(a->_pool, room * a->_item_bytes);
        if (a->n > 0)
            memcpy(items, a->items, a->n * a->_item_bytes);
        a->items = items;
        a->_room = room;
    }
    return memset((char *)a->items + a->n++ * a->_item_bytes, 0, a->_item_bytes);
}

void *hd_array_copy(const hd_array_t *a, hd_pool_t *pool)
{
    if (a->n == 0)
        return NULL;
    return memcpy(hd_pool_alloc(pool, a->n * a->_item_bytes), a->items,
                  a->n * a->_item_bytes);
}
