#include "core/base/hd_map.h"
#include "core/base/hd_log.h"
#include <stdlib.h>

#define ROOM_MIN 8

/* A cell is free (no value, hash 0), a grave (no value, hash 1: a search goes on past
 * it), or taken. Graves keep the others in place, so that one may remove while walking.
 */
typedef struct {
    hd_str_t key;
    void *value;
    uint32_t hash;
} cell_t;

struct hd_map_s {
    cell_t *cells;
    size_t room; /* a power of two; 0 before the first entry */
    size_t n, graves_n;
};

static void *take_zeroed(size_t n, size_t bytes)
{
    void *p = calloc(n, bytes);

    if (p == NULL) {
        hd_log(HD_LOG_EMERG, "out of memory (%zu times %zu bytes)", n, bytes);
        abort();
    }
    return p;
}

hd_map_t *hd_map_create(void)
{
    return take_zeroed(1, sizeof(hd_map_t));
}

void hd_map_destroy(hd_map_t *map)
{
    if (map == NULL)
        return;
    free(map->cells);
    free(map);
}

/* The cell of <key>, NULL if there is none; <*put> is where it would go. */
static cell_t *find_cell(const hd_map_t *map, hd_str_t key, uint32_t hash, cell_t **put)
{
    cell_t *free_cell = NULL;

    for (size_t i = hash;; i++) {
        cell_t *c = &map->cells[i & (map->room - 1)];

        if (c->value != NULL) {
            if (c->hash == hash && hd_str_eq(c->key, key))
                return c;
            continue;
        }
        if (free_cell == NULL)
            free_cell = c;
        if (c->hash == 0)
            break;
    }
    if (put != NULL)
        *put = free_cell;
    return NULL;
}

static void resize(hd_map_t *map, size_t room)
{
    hd_map_t old = *map;
    cell_t *put = NULL;

    map->cells = take_zeroed(room, sizeof(cell_t));
    map->room = room;
    map->graves_n = 0;
    for (size_t i = 0; i < old.room; i++) {
        if (old.cells[i].value == NULL)
            continue;
        (void)find_cell(map, old.cells[i].key, old.cells[i].hash, &put);
        *put = old.cells[i];
    }
    free(old.cells);
}

void *hd_map_get(const hd_map_t *map, hd_str_t key)
{
    cell_t *c = map->n == 0 ? NULL : find_cell(map, key, hd_str_hash(key), NULL);

    return c == NULL ? NULL : c->value;
}

void *hd_map_put(hd_map_t *map, hd_str_t key, void *value)
{
    uint32_t hash = hd_str_hash(key);
    cell_t *c, *put = NULL;

    hd_bug_on(value == NULL);
    if ((map->n + map->graves_n + 1) * 4 > map->room * 3)
        resize(map, map->n * 2 < map->room ? hd_max(map->room, (size_t)ROOM_MIN)
                                           : hd_max(map->room * 2, (size_t)ROOM_MIN));
    c = find_cell(map, key, hash, &put);
    if (c != NULL) {
        void *old = c->value;

        c->key = key; /* the old key may go away with the old value */
        c->value = value;
        return old;
    }
    if (put->hash == 1)
        map->graves_n--;
    *put = (cell_t){key, value, hash};
    map->n++;
    return NULL;
}

void *hd_map_remove(hd_map_t *map, hd_str_t key)
{
    cell_t *c = map->n == 0 ? NULL : find_cell(map, key, hd_str_hash(key), NULL);
    void *old;

    if (c == NULL)
        return NULL;
    old = c->value;
    *c = (cell_t){.hash = 1};
    map->n--;
    map->graves_n++;
    return old;
}

size_t hd_map_count(const hd_map_t *map)
{
    return map->n;
}

bool hd_map_next(const hd_map_t *map, size_t *at, hd_str_t *key, void **value)
{
    for (; *at < map->room; ++*at) {
        const cell_t *c = &map->cells[*at];

        if (c->value == NULL)
            continue;
        if (key != NULL)
            *key = c->key;
        if (value != NULL)
            *value = c->value;
        ++*at;
        return true;
    }
    return false;
}
