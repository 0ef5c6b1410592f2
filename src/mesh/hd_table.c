#include "mesh/hd_table.h"
#include "core/base/hd_hashes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 512

bool hd_table_spec_eq(const hd_table_spec_t *a, const hd_table_spec_t *b)
{
    return a->kind == b->kind && a->by_hostname == b->by_hostname &&
           a->by_locality == b->by_locality && a->min == b->min && a->max == b->max;
}

/* What an endpoint is called on the ring: its metadata's hash_key, its host name, its
 * address. */
static hd_str_t name_of(const hd_table_spec_t *spec, const hd_endpoint_t *e,
                        char room[HD_ADDR_TEXT_MAX])
{
    const hd_endpoint_more_t *more = hd_endpoint_more(e);

    for (uint32_t i = 0; i < more->labels_n; i++) {
        if (hd_str_eq(more->labels[i].key, HD_STR("hash_key")))
            return more->labels[i].value;
    }
    if (spec->by_hostname && e->hostname.len > 0)
        return e->hostname;
    return hd_addr_print(&e->addr, room);
}

/* --- shares of the whole, which sum to 1 --- */

static void set_shares(const hd_table_spec_t *spec, const hd_endpoints_t *eps,
                       const uint32_t *at, uint32_t n, double *shares)
{
    double *by_locality = NULL, total = 0, all = 0;

    if (spec->by_locality && eps->localities_n > 0) {
        by_locality = calloc(eps->localities_n, sizeof(double));
        hd_bug_on(by_locality == NULL);
        for (uint32_t i = 0; i < n; i++)
            by_locality[eps->items[at[i]].locality] += eps->items[at[i]].weight;
        for (uint32_t i = 0; i < eps->localities_n; i++)
            all += by_locality[i] > 0 ? eps->localities[i].weight : 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        const hd_endpoint_t *e = &eps->items[at[i]];

        shares[i] = all > 0 ? eps->localities[e->locality].weight * (double)e->weight /
                                  by_locality[e->locality]
                            : e->weight;
        total += shares[i];
    }
    free(by_locality);
    for (uint32_t i = 0; i < n; i++)
        shares[i] /= total;
}

/* --- rings --- */

typedef struct {
    uint64_t hash;
    uint32_t owner, order;
} point_t;

static int compare_points(const void *a, const void *b)
{
    const point_t *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* Sorted, from <points> (heap, freed) into the table. */
static void set_points(hd_table_t *t, point_t *points, uint32_t n, hd_pool_t *pool)
{
    uint64_t *hashes = hd_pool_alloc(pool, n * sizeof(*hashes));
    uint32_t *owners = hd_pool_alloc(pool, n * sizeof(*owners));

    qsort(points, n, sizeof(*points), compare_points);
    for (uint32_t i = 0; i < n; i++) {
        hashes[i] = points[i].hash;
        owners[i] = points[i].owner;
    }
    free(points);
    t->hashes = hashes;
    t->owners = owners;
    t->n = n;
}

static uint64_t hash_point(const hd_table_spec_t *spec, hd_str_t name, uint32_t number)
{
    char key[KEY_MAX];
    int len = snprintf(key, sizeof(key), "%.*s_%u", (int)hd_min(name.len, KEY_MAX - 16u),
                       name.data, number);

    return spec->kind == HD_TABLE_RING_MURMUR2
               ? hd_murmur64(key, (size_t)len, HD_MURMUR_SEED)
               : hd_xxh64(key, (size_t)len, 0);
}

/* So many points that the smallest share has a whole one, the ring at least <min> and at
 * most <max> (Envoy's ring_hash). What is rounded away of one endpoint goes to the next.
 */
static void build_ring(hd_table_t *t, const hd_endpoints_t *eps, const uint32_t *at,
                       uint32_t n, const double *shares, hd_pool_t *pool)
{
    double least = 1, scale, target = 0;
    uint32_t size, used = 0;
    point_t *points;

    for (uint32_t i = 0; i < n; i++)
        least = shares[i] > 0 ? hd_min(least, shares[i]) : least;
    scale = hd_min(ceil(least * t->spec.min) / least, (double)t->spec.max);
    size = (uint32_t)ceil(scale);
    points = malloc((size + 1) * sizeof(*points));
    hd_bug_on(points == NULL);
    for (uint32_t i = 0; i < n; i++) {
        char room[HD_ADDR_TEXT_MAX];
        hd_str_t name = name_of(&t->spec, &eps->items[at[i]], room);

        target += scale * shares[i];
        for (uint32_t number = 0; used < target && used < size; number++, used++)
            points[used] = (point_t){hash_point(&t->spec, name, number), at[i], used};
    }
    set_points(t, points, used, pool);
}

/* nginx: CRC-32 of HOST 0 PORT and the point before, 160 a weight. HOST and PORT are the
 * server's name as it was written. */
static void build_ketama(hd_table_t *t, const hd_endpoints_t *eps, const uint32_t *at,
                         uint32_t n, hd_pool_t *pool)
{
    uint64_t size = 0;
    uint32_t used = 0;
    point_t *points;

    for (uint32_t i = 0; i < n; i++)
        size += 160ull * eps->items[at[i]].weight;
    size = hd_min(size, (uint64_t)t->spec.max);
    points = malloc((size + 1) * sizeof(*points));
    hd_bug_on(points == NULL);
    for (uint32_t i = 0; i < n; i++) {
        const hd_endpoint_t *e = &eps->items[at[i]];
        hd_str_t host = e->hostname, port = HD_STR_NONE;
        size_t colon = host.len;
        uint32_t base, before = 0;

        while (colon > 0 && host.data[colon - 1] >= '0' && host.data[colon - 1] <= '9')
            colon--;
        if (hd_str_has_prefix_nocase(host, HD_STR("unix:"))) {
            host = hd_str_sub(host, 5, host.len);
        } else if (colon > 0 && host.data[colon - 1] == ':') {
            port = hd_str_sub(host, colon, host.len);
            host = hd_str_sub(host, 0, colon - 1);
        }
        base = hd_crc32(0, host.data, host.len);
        base = hd_crc32(base, "", 1);
        base = hd_crc32(base, port.data, port.len);
        for (uint64_t k = 0; k < 160ull * e->weight && used < size; k++, used++) {
            uint8_t bytes[4] = {(uint8_t)before, (uint8_t)(before >> 8),
                                (uint8_t)(before >> 16), (uint8_t)(before >> 24)};

            before = hd_crc32(base, bytes, sizeof(bytes));
            points[used] = (point_t){before, at[i], used};
        }
    }
    set_points(t, points, used, pool);
}

/* --- Maglev --- */

typedef struct {
    uint64_t offset, skip, next;
    double share, target;
    uint32_t owner;
    hd_str_t name;
} claimant_t;

static int compare_names(const void *a, const void *b)
{
    return hd_str_cmp(((const claimant_t *)a)->name, ((const claimant_t *)b)->name);
}

static uint32_t claim(claimant_t *c, const uint32_t *owners, uint32_t size)
{
    uint32_t place;

    do
        place = (uint32_t)((c->offset + c->skip * c->next++) % size);
    while (owners[place] != UINT32_MAX);
    return place;
}

/* In turn each takes the next free place of its own permutation, until all are taken; one
 * with half the greatest share sits out every second turn. In order of names, so that
 * everybody makes the same table of the same endpoints. */
static void fill_places(uint32_t *owners, uint32_t size, claimant_t *list, uint32_t n)
{
    double most = 0;
    uint32_t taken = 0;

    for (uint32_t i = 0; i < n; i++)
        most = hd_max(most, list[i].share);
    for (uint32_t turn = 1; taken < size; turn++) {
        for (uint32_t i = 0; i < n && taken < size; i++) {
            claimant_t *c = &list[i];

            if (turn * c->share < c->target)
                continue;
            c->target += most;
            owners[claim(c, owners, size)] = c->owner;
            taken++;
        }
    }
}

static void build_maglev(hd_table_t *t, const hd_endpoints_t *eps, const uint32_t *at,
                         uint32_t n, const double *shares, hd_pool_t *pool)
{
    uint32_t size = t->spec.max;
    uint32_t *owners = hd_pool_alloc(pool, size * sizeof(*owners));
    claimant_t *list = calloc(n, sizeof(*list));
    char(*rooms)[HD_ADDR_TEXT_MAX] = calloc(n, sizeof(*rooms));

    hd_bug_on(list == NULL || rooms == NULL);
    memset(owners, 0xff, size * sizeof(*owners));
    for (uint32_t i = 0; i < n; i++) {
        hd_str_t name = name_of(&t->spec, &eps->items[at[i]], rooms[i]);

        list[i] = (claimant_t){
            .offset = hd_xxh64(name.data, name.len, 0) % size,
            .skip = hd_xxh64(name.data, name.len, 1) % (size - 1) + 1,
            .share = shares[i],
            .owner = at[i],
            .name = name,
        };
    }
    qsort(list, n, sizeof(*list), compare_names);
    fill_places(owners, size, list, n);
    free(list);
    free(rooms);
    t->owners = owners;
    t->n = size;
}

void hd_table_build(hd_table_t *t, const hd_table_spec_t *spec, const hd_endpoints_t *eps,
                    const uint32_t *at, uint32_t n, hd_pool_t *pool)
{
    double *shares;

    *t = (hd_table_t){.spec = *spec};
    if (n == 0)
        return;
    t->priority = hd_endpoint_rank(&eps->items[at[0]]);
    shares = calloc(n, sizeof(*shares));
    hd_bug_on(shares == NULL);
    set_shares(spec, eps, at, n, shares);
    if (spec->kind == HD_TABLE_MAGLEV)
        build_maglev(t, eps, at, n, shares, pool);
    else if (spec->kind == HD_TABLE_KETAMA)
        build_ketama(t, eps, at, n, pool);
    else
        build_ring(t, eps, at, n, shares, pool);
    free(shares);
}

/* The next rank above <rank> (or the first, with UINT32_MAX); UINT32_MAX: none. */
static uint32_t next_rank(const hd_endpoints_t *eps, uint32_t rank)
{
    uint32_t next = UINT32_MAX;

    for (uint32_t i = 0; i < eps->n; i++) {
        uint32_t r = hd_endpoint_rank(&eps->items[i]);

        if ((rank == UINT32_MAX || r > rank) && r < next)
            next = r;
    }
    return next;
}

void hd_tables_build(hd_endpoints_t *eps, const hd_table_spec_t *spec, hd_pool_t *pool,
                     hd_pool_t *temp)
{
    uint32_t *at = hd_pool_alloc(temp, (eps->n + 1) * sizeof(*at)), ranks = 0;
    hd_table_t *tables;

    for (uint32_t r = next_rank(eps, UINT32_MAX); r != UINT32_MAX; r = next_rank(eps, r))
        ranks++;
    tables = hd_pool_new_n(pool, hd_table_t, ranks + 1);
    eps->tables = tables;
    for (uint32_t r = next_rank(eps, UINT32_MAX); r != UINT32_MAX;
         r = next_rank(eps, r)) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < eps->n; i++) {
            /* nginx's `down` keeps a server's place for when it is back */
            if (hd_endpoint_rank(&eps->items[i]) == r &&
                (!eps->items[i].down || spec->kind == HD_TABLE_KETAMA))
                at[n++] = i;
        }
        hd_table_build(&tables[eps->tables_n++], spec, eps, at, n, pool);
        tables[eps->tables_n - 1].priority = r;
    }
}

uint32_t hd_table_find(const hd_table_t *t, uint64_t hash, uint32_t attempt)
{
    uint32_t low = 0, high = t->n;

    if (t->hashes == NULL) {
        if (attempt > 0)
            hash ^= ~(uint64_t)0 - attempt + 1;
        return t->owners[hash % t->n];
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (t->hashes[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return t->owners[(low + attempt) % t->n];
}
