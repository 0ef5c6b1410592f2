/* Values on requests and conns: a small open table in the owner's pool. */
#include "core/conf/hd_attr.h"
#include <stdio.h>

typedef struct {
    uint32_t hash;
    uint16_t def;
    bool kept; /* survives a reroute */
    hd_str_t name;
    hd_val_t value;
    bool used;
} cell_t;

struct hd_attrs_s {
    hd_pool_t *pool;
    cell_t *cells;
    uint32_t room, n; /* room: a power of two, or 0 */
};

void (*hd_attr_resolve)(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t *out);
void (*hd_attr_resolve_conn)(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t *out);
hd_attrs_t **(*hd_attrs_of_req)(struct hd_req_s *req);

hd_attrs_t *hd_attrs_create(hd_pool_t *pool)
{
    hd_attrs_t *attrs = hd_pool_new(pool, hd_attrs_t);

    attrs->pool = pool;
    return attrs;
}

static cell_t *find(const hd_attrs_t *attrs, uint32_t hash, hd_str_t name)
{
    if (attrs == NULL || attrs->room == 0)
        return NULL;
    for (uint32_t i = hash;; i++) {
        cell_t *c = &attrs->cells[i & (attrs->room - 1)];

        if (!c->used)
            return NULL;
        if (c->hash == hash && hd_str_eq(c->name, name))
            return c;
    }
}

static cell_t *insert(hd_attrs_t *attrs, uint32_t hash)
{
    uint32_t i = hash;

    while (attrs->cells[i & (attrs->room - 1)].used)
        i++;
    return &attrs->cells[i & (attrs->room - 1)];
}

static void grow(hd_attrs_t *attrs)
{
    cell_t *old = attrs->cells;
    uint32_t old_room = attrs->room;

    attrs->room = old_room != 0 ? old_room * 2 : 16;
    attrs->cells = hd_pool_new_n(attrs->pool, cell_t, attrs->room);
    for (uint32_t i = 0; i < old_room; i++)
        if (old[i].used)
            *insert(attrs, old[i].hash) = old[i];
}

/* A string stays where it is: it lives as long as the store's pool. */
static void put(hd_attrs_t *attrs, const hd_attr_t *key, hd_val_t value, bool kept)
{
    cell_t *c = find(attrs, key->hash, key->name);

    if (c == NULL) {
        if ((attrs->n + 1) * 4 > attrs->room * 3)
            grow(attrs);
        attrs->n++;
        c = insert(attrs, key->hash);
        *c = (cell_t){.hash = key->hash, .def = key->def, .used = true};
        /* The key may lie in a region that the store outlives. */
        c->name = hd_str_dup(attrs->pool, key->name);
    }
    c->value = value;
    c->kept = kept;
}

static hd_attrs_t *store_of_req(const hd_attr_of_t *of, bool make)
{
    hd_attrs_t **at;

    if (of->req == NULL || hd_attrs_of_req == NULL)
        return NULL;
    at = hd_attrs_of_req(of->req);
    if (*at == NULL && make)
        *at = hd_attrs_create(of->pool);
    return *at;
}

static hd_attrs_t *store_of_conn(const hd_attr_of_t *of, bool make)
{
    if (of->conn == NULL)
        return NULL;
    if (of->conn->attrs == NULL && make)
        of->conn->attrs = hd_attrs_create(hd_conn_pool(of->conn));
    return of->conn->attrs;
}

/* Keeps an evaluated value. A request inside another shares its store, which outlives its
 * pool. */
static void keep(hd_attrs_t *store, const hd_attr_of_t *of, const hd_attr_t *key,
                 hd_val_t *value, bool kept)
{
    if (store->pool != of->pool && value->type == HD_VAL_STR)
        value->str = hd_str_dup(store->pool, value->str);
    put(store, key, *value, kept);
}

void hd_attr_get(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t *out)
{
    const hd_attr_def_t *def = hd_attr_def(key->def);
    hd_attrs_t *store = store_of_req(of, false);
    const cell_t *c = find(store, key->hash, key->name);

    if (c == NULL)
        c = find(store_of_conn(of, false), key->hash, key->name);
    if (c != NULL) {
        *out = c->value;
        return;
    }
    *out = (hd_val_t){.type = HD_VAL_NONE};
    if (def == NULL) {
        if (of->req == NULL && of->conn != NULL && hd_attr_resolve_conn != NULL)
            hd_attr_resolve_conn(of, key, out);
        if (of->req == NULL || hd_attr_resolve == NULL)
            return;
        hd_attr_resolve(of, key, out);
        if (out->type != HD_VAL_NONE && !out->no_cache &&
            (store = store_of_req(of, true)) != NULL)
            keep(store, of, key, out, false);
        return;
    }
    if ((def->flags & HD_ATTR_REQ) != 0 && of->req == NULL) {
        def = of->conn != NULL ? hd_attr_conn_def(key->def) : NULL;
        if (def == NULL)
            return;
    }
    def->get(of, hd_str_sub(key->name, key->rest_at, SIZE_MAX), out);
    /* Evaluated once a request. What is asked of a conn alone isn't kept: an idle conn
     * owns no memory. */
    if ((def->flags & HD_ATTR_VOLATILE) == 0 && !out->no_cache &&
        (store = store_of_req(of, true)) != NULL)
        keep(store, of, key, out, (def->flags & HD_ATTR_KEPT) != 0);
}

hd_rc_t hd_attr_set(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t value)
{
    const hd_attr_def_t *def = hd_attr_def(key->def);
    bool on_conn = def != NULL ? (def->flags & HD_ATTR_CONN) != 0 : of->req == NULL;
    hd_attrs_t *store;

    if (def != NULL && def->set != NULL)
        return def->set(of, value);
    if (def != NULL && (def->flags & (HD_ATTR_SETTABLE | HD_ATTR_CONN)) == 0)
        return HD_ERROR;
    store = on_conn ? store_of_conn(of, true) : store_of_req(of, true);
    if (store == NULL)
        return HD_ERROR;
    if (store->pool != of->pool && value.type == HD_VAL_STR)
        value.str = hd_str_dup(store->pool, value.str);
    /* What configuration sets by name lasts through a reroute, as nginx's variables do.
     */
    put(store, key, value, def == NULL || (def->flags & HD_ATTR_KEPT) != 0);
    return HD_OK;
}

hd_str_t hd_attr_text(const hd_attr_of_t *of, const hd_attr_t *key)
{
    hd_val_t v;

    hd_attr_get(of, key, &v);
    switch (v.type) {
    case HD_VAL_STR:
        return v.str;
    case HD_VAL_INT:
        return hd_str_printf(of->pool, "%lld", (long long)v.num);
    case HD_VAL_BOOL:
        return v.num != 0 ? HD_STR("1") : HD_STR("0"); /* as nginx's `if` reads it */
    default:
        return HD_STR_NONE;
    }
}

void hd_attrs_on_reroute(hd_attrs_t *attrs)
{
    cell_t *old;
    uint32_t room;

    if (attrs == NULL || attrs->n == 0)
        return;
    old = attrs->cells;
    room = attrs->room;
    attrs->cells = hd_pool_new_n(attrs->pool, cell_t, room);
    attrs->n = 0;
    for (uint32_t i = 0; i < room; i++) {
        if (old[i].used && old[i].kept) {
            *insert(attrs, old[i].hash) = old[i];
            attrs->n++;
        }
    }
}

void hd_attrs_inherit(hd_attrs_t *to, const hd_attrs_t *from, hd_pool_t *pool)
{
    for (uint32_t i = 0; from != NULL && i < from->room; i++) {
        const cell_t *c = &from->cells[i];
        hd_attr_t key = {.def = c->def, .hash = c->hash, .name = c->name};
        hd_val_t value = c->value;

        if (!c->used)
            continue;
        if (value.type == HD_VAL_STR)
            value.str = hd_str_dup(pool, value.str);
        put(to, &key, value, c->kept);
    }
}
