#include "http/hd_value_map.h"
#include "http/hd_request.h"

#define DEPTH_MAX 16 /* a map may use another; a ring of them ends here */

const hd_value_map_t *hd_value_map_find(const hd_value_maps_t *maps,
                                        const hd_attr_t *name)
{
    for (uint32_t i = 0; maps != NULL && i < maps->n; i++) {
        if (maps->items[i].name.hash == name->hash &&
            hd_str_eq(maps->items[i].name.name, name->name))
            return &maps->items[i];
    }
    return NULL;
}

static const hd_expr_t *find_exact(const hd_value_map_t *map, hd_str_t key)
{
    uint32_t low = 0, high = map->exact_n;

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        int order = hd_str_cmp(map->exact[mid].key, key);

        if (order == 0)
            return map->exact[mid].value;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* A star stands for one byte at least. */
static const hd_expr_t *find_wildcard(const hd_value_map_t *map, hd_str_t key)
{
    for (uint32_t i = 0; i < map->suffixes_n; i++) {
        if (key.len > map->suffixes[i].key.len &&
            hd_str_has_suffix(key, map->suffixes[i].key))
            return map->suffixes[i].value;
    }
    for (uint32_t i = 0; i < map->prefixes_n; i++) {
        if (key.len > map->prefixes[i].key.len &&
            hd_str_has_prefix(key, map->prefixes[i].key))
            return map->prefixes[i].value;
    }
    return NULL;
}

static const hd_expr_t *find_regex(const hd_value_map_t *map, hd_req_t *req, hd_str_t s)
{
    hd_captures_t captures;

    for (uint32_t i = 0; i < map->regexes_n; i++) {
        const hd_map_regex_t *r = &map->regexes[i];

        if (hd_match(req->member, req->routes_region, &r->match, s, &captures)) {
            /* $1 in the value, and behind, as in nginx */
            hd_router_take_captures(req, &captures, s, r->groups, r->groups_n, 0);
            return r->value;
        }
    }
    return NULL;
}

hd_rc_t hd_value_map_eval(const hd_value_map_t *map, hd_req_t *req, hd_str_t *out)
{
    static _Thread_local unsigned depth;
    const hd_expr_t *value;
    hd_str_t source, key;
    hd_rc_t rc = HD_ERROR;

    *out = HD_STR("");
    if (depth == DEPTH_MAX)
        return hd_req_err(req, HD_E_CONF, "maps use one another in a ring");
    depth++;
    if (hd_expr_eval(map->source, req, &source) == HD_OK) {
        key = hd_str_dup_lower(req->pool, source);
        value = find_exact(map, key);
        if (value == NULL)
            value = find_wildcard(map, key);
        if (value == NULL)
            value = find_regex(map, req, source);
        if (value == NULL)
            value = map->otherwise;
        rc = value == NULL ? HD_OK : hd_expr_eval(value, req, out);
    }
    depth--;
    return rc;
}

static void resolve(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t *out)
{
    const hd_req_t *req = of->req;
    const hd_value_map_t *map =
        req->routes == NULL ? NULL : hd_value_map_find(req->routes->maps, key);

    if (map == NULL && req->loc->warns_uninitialized)
        hd_log_conn(HD_LOG_WARN, of->conn != NULL ? of->conn->id : 0,
                    "using uninitialized \"%.*s\" variable", HD_STR_ARG(key->name));
    if (map == NULL || hd_value_map_eval(map, of->req, &out->str) != HD_OK)
        return;
    out->type = HD_VAL_STR;
    out->no_cache = map->is_volatile;
}

void hd_value_map_register(void)
{
    hd_attr_resolve = resolve;
}
