/* map SOURCE $NAME { … }: variables made by configuration. */
#include "core/conf/hd_module_table.h"
#include "core/conf/hd_value_map.h"
#include "core/hd_module.h"

#include <stdlib.h>

#define ENTRIES_MAX 100000

/* --- map --- */

typedef struct {
    hd_value_map_t *map;
    hd_array_t exact, suffixes, prefixes; /* hd_map_entry_t */
    hd_array_t regexes;                   /* hd_map_regex_t */
    bool hostnames;
} reading_t;

static hd_rc_t add_entry(hd_conf_t *cf, hd_array_t *list, hd_str_t key,
                         const hd_expr_t *value, hd_err_t *err)
{
    hd_map_entry_t *e;

    for (size_t i = 0; i < list->n; i++) {
        if (hd_str_eq_nocase(hd_array_at(list, hd_map_entry_t, i)->key, key))
            return hd_err_set(err, HD_E_CONF, "conflicting parameter \"%.*s\"",
                              HD_STR_ARG(key));
    }
    e = hd_array_add(list);
    if (e == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d lines", ENTRIES_MAX);
    *e = (hd_map_entry_t){.key = hd_str_dup_lower(cf->pool, key), .value = value};
    return HD_OK;
}

static hd_rc_t add_regex(hd_conf_t *cf, reading_t *r, hd_str_t key,
                         const hd_expr_t *value, hd_err_t *err)
{
    hd_map_regex_t *e = hd_array_add(&r->regexes);
    size_t at = key.len > 1 && key.data[1] == '*' ? 2 : 1;
    hd_array_t groups;

    if (e == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d lines", ENTRIES_MAX);
    e->value = value;
    e->match = (hd_match_t){.kind = HD_MATCH_REGEX,
                            .part = true,
                            .ignore_case = at == 2,
                            .text = hd_str_dup(cf->pool, hd_str_sub(key, at, key.len))};
    hd_array_init(&groups, cf->temp, sizeof(hd_named_group_t), HD_CAPTURES_MAX);
    if (hd_match_check(&e->match, err) != HD_OK ||
        hd_conf_named_groups(cf, e->match.text, 0, &groups, err) != HD_OK)
        return HD_ERROR;
    e->groups = hd_array_copy(&groups, cf->pool);
    e->groups_n = (uint32_t)groups.n;
    return HD_OK;
}

static hd_rc_t add_hostname(hd_conf_t *cf, reading_t *r, hd_str_t key,
                            const hd_expr_t *value, hd_err_t *err)
{
    if (key.len > 1 && key.data[0] == '.') { /* x and *.x */
        if (add_entry(cf, &r->exact, hd_str_sub(key, 1, key.len), value, err) != HD_OK)
            return HD_ERROR;
        return add_entry(cf, &r->suffixes, key, value, err);
    }
    if (hd_str_has_prefix(key, HD_STR("*.")))
        return add_entry(cf, &r->suffixes, hd_str_sub(key, 1, key.len), value, err);
    if (hd_str_has_suffix(key, HD_STR(".*")))
        return add_entry(cf, &r->prefixes, hd_str_sub(key, 0, key.len - 1), value, err);
    return add_entry(cf, &r->exact, key, value, err);
}

static hd_rc_t read_line(hd_conf_t *cf, reading_t *r, const hd_node_t *n, hd_err_t *err)
{
    hd_str_t key = n->name;
    hd_expr_t *value;

    if (n->is_block)
        return hd_err_set(err, HD_E_CONF, "no block is expected here");
    if (n->args_n == 0 && hd_str_eq(key, HD_STR("hostnames"))) {
        r->hostnames = true;
        return HD_OK;
    }
    if (n->args_n == 0 && hd_str_eq(key, HD_STR("volatile"))) {
        r->map->is_volatile = true;
        return HD_OK;
    }
    if (n->args_n != 1)
        return hd_err_set(err, HD_E_CONF,
                          "in map a line is VALUE RESULT, hostnames or volatile");
    if (hd_expr_compile(cf, n->args[0], &value, err) != HD_OK)
        return HD_ERROR;
    if (hd_str_eq(key, HD_STR("default"))) {
        if (r->map->otherwise != NULL)
            return hd_err_set(err, HD_E_CONF, "duplicate default map parameter");
        r->map->otherwise = value;
        return HD_OK;
    }
    if (key.len > 0 && key.data[0] == '~')
        return add_regex(cf, r, key, value, err);
    if (key.len > 0 && key.data[0] == '\\') /* a value that looks like a word of ours */
        key = hd_str_sub(key, 1, key.len);
    return r->hostnames ? add_hostname(cf, r, key, value, err)
                        : add_entry(cf, &r->exact, key, value, err);
}

static int by_key(const void *a, const void *b)
{
    return hd_str_cmp(((const hd_map_entry_t *)a)->key, ((const hd_map_entry_t *)b)->key);
}

static int longer_first(const void *a, const void *b)
{
    size_t x = ((const hd_map_entry_t *)a)->key.len;
    size_t y = ((const hd_map_entry_t *)b)->key.len;

    return x < y ? 1 : x > y ? -1 : 0;
}

static hd_rc_t read_map(hd_conf_t *cf, const hd_node_t *node, hd_value_map_t *map,
                        hd_err_t *err)
{
    reading_t r = {.map = map};
    hd_str_t name = node->args[1];
    hd_expr_t *source;

    if (name.len < 2 || name.data[0] != '$')
        return hd_err_set(err, HD_E_CONF,
                          "invalid variable name \"%.*s\": it begins with $",
                          HD_STR_ARG(name));
    name = hd_str_dup_lower(cf->temp, hd_str_sub(name, 1, name.len));
    if (hd_attr_key(cf->pool, name, true, &map->name, err) != HD_OK ||
        hd_expr_compile(cf, node->args[0], &source, err) != HD_OK)
        return HD_ERROR;
    if (map->name.def != 0)
        return hd_err_set(err, HD_E_CONF,
                          "the duplicate \"%.*s\" variable: it is built in",
                          HD_STR_ARG(name));
    map->source = source;
    hd_array_init(&r.exact, cf->temp, sizeof(hd_map_entry_t), ENTRIES_MAX);
    hd_array_init(&r.suffixes, cf->temp, sizeof(hd_map_entry_t), ENTRIES_MAX);
    hd_array_init(&r.prefixes, cf->temp, sizeof(hd_map_entry_t), ENTRIES_MAX);
    hd_array_init(&r.regexes, cf->temp, sizeof(hd_map_regex_t), ENTRIES_MAX);
    for (const hd_node_t *n = node->first; n != NULL; n = n->next) {
        if (read_line(cf, &r, n, err) != HD_OK)
            return hd_conf_blame(cf, n, err);
    }
    if (r.exact.n > 0)
        qsort(r.exact.items, r.exact.n, sizeof(hd_map_entry_t), by_key);
    if (r.suffixes.n > 0)
        qsort(r.suffixes.items, r.suffixes.n, sizeof(hd_map_entry_t), longer_first);
    if (r.prefixes.n > 0)
        qsort(r.prefixes.items, r.prefixes.n, sizeof(hd_map_entry_t), longer_first);
    map->exact = hd_array_copy(&r.exact, cf->pool);
    map->exact_n = (uint32_t)r.exact.n;
    map->suffixes = hd_array_copy(&r.suffixes, cf->pool);
    map->suffixes_n = (uint32_t)r.suffixes.n;
    map->prefixes = hd_array_copy(&r.prefixes, cf->pool);
    map->prefixes_n = (uint32_t)r.prefixes.n;
    map->regexes = hd_array_copy(&r.regexes, cf->pool);
    map->regexes_n = (uint32_t)r.regexes.n;
    return HD_OK;
}

static bool is_map(const hd_node_t *n)
{
    return hd_str_eq(n->name, HD_STR("map")) || hd_str_eq(n->name, HD_STR("geo")) ||
           hd_str_eq(n->name, HD_STR("split_clients"));
}

static hd_rc_t read_any(hd_conf_t *cf, const hd_node_t *node, hd_value_map_t *map,
                        hd_err_t *err)
{
    return hd_str_eq(node->name, HD_STR("geo")) ? hd_conf_read_geo(cf, node, map, err)
           : hd_str_eq(node->name, HD_STR("map"))
               ? read_map(cf, node, map, err)
               : hd_conf_read_split(cf, node, map, err);
}

/* Where the block is read, a map is only checked; each route table or listener builds its
 * own. */
static hd_rc_t check_map(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_value_map_t map = {.otherwise = NULL};

    (void)args, (void)conf;
    return read_any(cf, cf->node, &map, err);
}

hd_rc_t hd_conf_make_maps(hd_conf_t *cf, const hd_node_t *block,
                          const hd_value_maps_t **out, hd_err_t *err)
{
    hd_value_maps_t *maps = hd_pool_new(cf->pool, hd_value_maps_t);
    hd_value_map_t *items;
    uint32_t n = 0;

    for (const hd_node_t *c = block->first; c != NULL; c = c->next)
        n += is_map(c);
    items = hd_pool_new_n(cf->pool, hd_value_map_t, n);
    for (const hd_node_t *c = block->first; c != NULL; c = c->next) {
        if (is_map(c) && read_any(cf, c, &items[maps->n++], err) != HD_OK)
            return hd_conf_blame(cf, c, err);
    }
    maps->items = items;
    *out = n > 0 ? maps : NULL;
    return HD_OK;
}

static hd_rc_t accept_size(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint64_t bytes;

    (void)cf, (void)conf;
    return hd_parse_size(args[0], UINT32_MAX, &bytes, err);
}

static const hd_directive_t directives[] = {
    {.name = "map",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 2,
     .repeats = true,
     .block = check_map,
     .declares = 2,
     .help =
         "SOURCE $NAME { [hostnames;] [volatile;] VALUE RESULT; ~REGEX RESULT; default "
         "RESULT; }: a variable whose value depends on SOURCE"},
    {.name = "geo",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .block = check_map,
     .declares = HD_ARG_LAST,
     .help =
         "[$ADDRESS] $NAME { [ranges;] [volatile;] NETWORK VALUE; delete NETWORK; default "
         "VALUE; }: a variable by an address, the client's if none is named"},
    {.name = "split_clients",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 2,
     .repeats = true,
     .block = check_map,
     .declares = 2,
     .help =
         "STRING $NAME { PERCENT% VALUE; * VALUE; }: a variable by STRING's hash, for "
         "shares of clients"},
    {.name = "map_hash_max_size",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 1,
     .set = accept_size,
     .help = "N: accepted; tables size themselves"},
    {.name = "map_hash_bucket_size",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 1,
     .set = accept_size,
     .help = "N: accepted; tables size themselves"},
    {0},
};

const hd_module_t hd_map_module = {
    .abi = HD_MODULE_ABI,
    .name = "map",
    .directives = directives,
};
