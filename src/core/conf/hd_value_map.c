#include "core/conf/hd_value_map.h"
#include "core/base/hd_log.h"
#include "core/net/hd_addr.h"

#include <string.h>

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

static const hd_expr_t *find_regex(const hd_value_map_t *map,
                                   const hd_value_map_env_t *env, const hd_attr_of_t *of,
                                   hd_str_t s)
{
    hd_captures_t captures;

    for (uint32_t i = 0; i < map->regexes_n; i++) {
        const hd_map_regex_t *r = &map->regexes[i];

        if (hd_match(of->member, env->region, &r->match, s, &captures)) {
            /* $1 in the value, and behind, as in nginx */
            env->take_captures(of, &captures, s, r->groups, r->groups_n);
            return r->value;
        }
    }
    return NULL;
}

/* MurmurHash2 (Austin Appleby, public domain), with seed 0: the same shares as nginx. */
static uint32_t murmur2(hd_str_t s)
{
    uint32_t h = (uint32_t)s.len, k;
    const uint8_t *p = (const uint8_t *)s.data;
    size_t left = s.len;

    for (; left >= 4; left -= 4, p += 4) {
        k = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        k *= 0x5bd1e995;
        k ^= k >> 24;
        k *= 0x5bd1e995;
        h *= 0x5bd1e995;
        h ^= k;
    }
    if (left == 3)
        h ^= (uint32_t)p[2] << 16;
    if (left >= 2)
        h ^= (uint32_t)p[1] << 8;
    if (left >= 1) {
        h ^= p[0];
        h *= 0x5bd1e995;
    }
    h ^= h >> 13;
    h *= 0x5bd1e995;
    h ^= h >> 15;
    return h;
}

static hd_str_t find_part(const hd_value_map_t *map, hd_str_t source)
{
    uint32_t hash = murmur2(source);

    for (uint32_t i = 0; i < map->parts_n; i++) {
        if (hash < map->parts[i].below)
            return map->parts[i].value;
    }
    return map->rest;
}

/* <addr> with all but its first <bits> cleared. */
static void mask(const uint8_t *addr, unsigned bits, uint8_t *out)
{
    memset(out, 0, 16);
    memcpy(out, addr, bits / 8);
    if (bits % 8 != 0)
        out[bits / 8] = (uint8_t)(addr[bits / 8] & (0xff00 >> (bits % 8)));
}

static void put_bytes(const hd_addr_t *a, uint8_t *bytes)
{
    memset(bytes, 0, 16);
    if (a->family == AF_INET) {
        memcpy(bytes + 12, a->v4, 4);
        bytes[10] = bytes[11] = 0xff;
    } else {
        memcpy(bytes, a->v6, 16);
    }
}

bool hd_geo_bytes(hd_str_t text, uint8_t *bytes)
{
    hd_addr_t a;

    if (!hd_addr_parse_ip(text, &a))
        return false;
    put_bytes(&a, bytes);
    return true;
}

static hd_str_t find_net(const hd_value_map_t *map, const uint8_t *addr)
{
    uint32_t from = 0;

    while (from < map->nets_n) { /* a length after the other */
        uint32_t to = from, low = from, high;
        uint8_t masked[16];
        unsigned bits = map->nets[from].bits;

        while (to < map->nets_n && map->nets[to].bits == bits)
            to++;
        mask(addr, bits, masked);
        for (high = to; low < high;) {
            uint32_t mid = (low + high) / 2;
            int order = memcmp(map->nets[mid].addr, masked, 16);

            if (order == 0)
                return map->nets[mid].value;
            if (order < 0)
                low = mid + 1;
            else
                high = mid;
        }
        from = to;
    }
    return map->rest;
}

static hd_str_t find_range(const hd_value_map_t *map, const uint8_t *addr)
{
    uint32_t low = 0, high = map->ranges_n;
    uint32_t ip = (uint32_t)addr[12] << 24 | (uint32_t)addr[13] << 16 |
                  (uint32_t)addr[14] << 8 | addr[15];

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (ip < map->ranges[mid].from)
            high = mid;
        else if (ip > map->ranges[mid].to)
            low = mid + 1;
        else
            return map->ranges[mid].value;
    }
    return map->rest;
}

/* "1.2.3.4:80", "[::1]:80": some variables of addresses have a port, too. */
static hd_str_t without_port(hd_str_t text)
{
    bool is_literal = text.len > 0 && text.data[0] == '[';
    ssize_t end = hd_str_find_char(text, is_literal ? ']' : ':');
    hd_str_t rest = end < 0 ? HD_STR_NONE : hd_str_sub(text, (size_t)end + 1, text.len);

    if (end < 0 || (!is_literal && hd_str_find_char(rest, ':') >= 0)) /* 2001:db8::1 */
        return text;
    return is_literal ? hd_str_sub(text, 1, (size_t)end - 1)
                      : hd_str_sub(text, 0, (size_t)end);
}

static bool is_proxy(const hd_value_map_t *map, const hd_addr_t *addr)
{
    for (uint32_t i = 0; i < map->proxies_n; i++) {
        if (hd_cidr_has(&map->proxies[i], addr))
            return true;
    }
    return false;
}

/* A proxy's word takes its own address's place. */
static void follow(const hd_value_map_t *map, const hd_attr_of_t *of, hd_addr_t *addr)
{
    hd_addr_t next;
    hd_str_t list;

    if (!is_proxy(map, addr) || hd_expr_eval_of(map->forwarded, of, &list) != HD_OK)
        return;
    while (hd_addr_take_last(&list, &next)) {
        *addr = next;
        if (!map->proxy_recursive || !is_proxy(map, addr))
            break;
    }
}

static hd_str_t find_geo(const hd_value_map_t *map, const hd_attr_of_t *of,
                         hd_str_t source)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    hd_addr_t a = {0};
    uint8_t addr[16];

    if (!hd_addr_parse_ip(source, &a) && !hd_addr_parse_ip(without_port(source), &a)) {
        a.family = AF_INET; /* nginx: 255.255.255.255, which only /0 holds */
        memset(a.v4, 0xff, 4);
    }
    if (map->proxies_n > 0)
        follow(map, of, &a);
    put_bytes(&a, addr);
    if (map->ranges_n == 0)
        return find_net(map, addr);
    return memcmp(addr, mapped, 12) == 0 ? find_range(map, addr) : map->rest;
}

hd_rc_t hd_value_map_eval(const hd_value_map_t *map, const hd_value_map_env_t *env,
                          const hd_attr_of_t *of, hd_str_t *out)
{
    static _Thread_local unsigned depth;
    const hd_expr_t *value;
    hd_str_t source, key;
    hd_rc_t rc = HD_ERROR;

    *out = HD_STR("");
    if (depth == DEPTH_MAX)
        return HD_ERROR;
    depth++;
    if (hd_expr_eval_of(map->source, of, &source) == HD_OK) {
        if (map->kind != HD_VALUE_MAP) {
            *out = map->kind == HD_VALUE_SPLIT ? find_part(map, source)
                                               : find_geo(map, of, source);
            depth--;
            return HD_OK;
        }
        key = hd_str_dup_lower(of->pool, source);
        value = find_exact(map, key);
        if (value == NULL)
            value = find_wildcard(map, key);
        if (value == NULL)
            value = find_regex(map, env, of, source);
        if (value == NULL)
            value = map->otherwise;
        rc = value == NULL ? HD_OK : hd_expr_eval_of(value, of, out);
    }
    depth--;
    return rc;
}

/* --- on conns without a request --- */

static bool (*finders[4])(const hd_conn_t *c, hd_maps_at_t *at);
static unsigned finders_n;

/* By name alone: on the conn, where hd_attr_get looks first. */
static void keep_group(const hd_attr_of_t *of, hd_attr_t key, const hd_captures_t *c,
                       uint32_t group, hd_str_t in)
{
    hd_val_t value = {.type = HD_VAL_STR};

    if (group < c->n && c->at[group].from >= 0)
        value.str = hd_str_sub(in, (size_t)c->at[group].from,
                               (size_t)(c->at[group].to - c->at[group].from));
    key.def = 0;
    hd_ignore(hd_attr_set(of, &key, value)); /* nothing refuses a name */
}

static void take_captures(const hd_attr_of_t *of, const hd_captures_t *c, hd_str_t in,
                          const hd_named_group_t *groups, uint32_t groups_n)
{
    for (uint32_t i = 1; i <= 9; i++) {
        char digit = (char)('0' + i);
        hd_attr_t key;

        if (hd_attr_key(of->pool, hd_str_n(&digit, 1), true, &key, NULL) == HD_OK)
            keep_group(of, key, c, i, in);
    }
    for (uint32_t i = 0; i < groups_n; i++)
        keep_group(of, groups[i].attr, c, groups[i].group, in);
}

static void resolve_on_conn(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t *out)
{
    hd_maps_at_t at = {NULL, NULL};
    const hd_value_map_t *map;
    hd_value_map_env_t env = {.take_captures = take_captures};

    for (unsigned i = 0; i < finders_n && !finders[i](of->conn, &at); i++)
        ;
    map = hd_value_map_find(at.maps, key);
    env.region = at.region;
    if (map == NULL)
        return;
    if (hd_value_map_eval(map, &env, of, &out->str) == HD_OK)
        out->type = HD_VAL_STR;
    else
        hd_log_conn(HD_LOG_ERROR, of->conn->id, "maps use one another in a ring");
}

void hd_value_maps_on_conns(bool (*find)(const hd_conn_t *c, hd_maps_at_t *at))
{
    hd_bug_on(finders_n == hd_countof(finders));
    finders[finders_n++] = find;
    hd_attr_resolve_conn = resolve_on_conn;
}
