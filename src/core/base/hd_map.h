/* hd_map: string -> pointer, open addressing, in a pool or on the heap; for cold code and
 * per-process indexes. Keys are borrowed: they must live as long as the entry. */
#pragma once
#include "core/base/hd_str.h"

typedef struct hd_map_s hd_map_t;

hd_map_t *hd_map_create(void);      /* heap */
void hd_map_destroy(hd_map_t *map); /* values are the caller's */
void *hd_map_get(const hd_map_t *map, hd_str_t key);
/* Returns the value that stood there before, NULL if none. <value> not NULL. */
void *hd_map_put(hd_map_t *map, hd_str_t key, void *value);
void *hd_map_remove(hd_map_t *map, hd_str_t key); /* what stood there, or NULL */
size_t hd_map_count(const hd_map_t *map);
/* In no order; the body may remove the current entry only. Start with *at = 0. */
bool hd_map_next(const hd_map_t *map, size_t *at, hd_str_t *key, void **value);
