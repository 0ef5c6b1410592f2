/* geo [$ADDRESS] $NAME { … } and split_clients STRING $NAME { … }: variables by address
 * and by share. */
#include "core/conf/hd_value_map.h"
#include "core/net/hd_addr.h"

#include <stdlib.h>

#define NETS_MAX 1000000
#define PROXIES_MAX 10000
#define PARTS_MAX 1000

static hd_rc_t read_name(hd_conf_t *cf, hd_str_t name, hd_value_map_t *map, hd_err_t *err)
{
    if (name.len < 2 || name.data[0] != '$')
        return hd_err_set(err, HD_E_CONF,
                          "invalid variable name \"%.*s\": it begins with $",
                          HD_STR_ARG(name));
    name = hd_str_dup_lower(cf->temp, hd_str_sub(name, 1, name.len));
    if (hd_attr_key(cf->pool, name, true, &map->name, err) != HD_OK)
        return HD_ERROR;
    if (map->name.def != 0)
        return hd_err_set(err, HD_E_CONF,
                          "the duplicate \"%.*s\" variable: it is built in",
                          HD_STR_ARG(name));
    return HD_OK;
}

/* --- split_clients --- */

/* "0.5%": in hundredths of a percent. */
static bool read_percent(hd_str_t text, uint32_t *hundredths)
{
    ssize_t dot;
    uint64_t whole, part = 0;
    hd_str_t after;

    if (text.len < 2 || text.data[text.len - 1] != '%')
        return false;
    text.len--;
    dot = hd_str_find_char(text, '.');
    after = dot < 0 ? HD_STR_NONE : hd_str_sub(text, (size_t)dot + 1, text.len);
    if (dot >= 0)
        text = hd_str_sub(text, 0, (size_t)dot);
    if (!hd_str_to_u64(text, 100, &whole) || after.len > 2 ||
        (dot >= 0 && !hd_str_to_u64(after, 99, &part)))
        return false;
    *hundredths = (uint32_t)(whole * 100 + (after.len == 1 ? part * 10 : part));
    return *hundredths > 0 && *hundredths <= 10000;
}

hd_rc_t hd_conf_read_split(hd_conf_t *cf, const hd_node_t *node, hd_value_map_t *map,
                           hd_err_t *err)
{
    hd_expr_t *source;
    hd_array_t parts;
    uint32_t sum = 0, share;

    map->kind = HD_VALUE_SPLIT;
    if (read_name(cf, node->args[1], map, err) != HD_OK ||
        hd_expr_compile(cf, node->args[0], &source, err) != HD_OK)
        return HD_ERROR;
    map->source = source;
    hd_array_init(&parts, cf->temp, sizeof(hd_split_part_t), PARTS_MAX);
    for (const hd_node_t *n = node->first; n != NULL; n = n->next) {
        hd_split_part_t *p;

        if (n->args_n != 1 || n->is_block) {
            hd_ignore(hd_err_set(
                err, HD_E_CONF, "in split_clients a line is PERCENT%% VALUE or * VALUE"));
            return hd_conf_blame(cf, n, err);
        }
        if (hd_str_eq(n->name, HD_STR("*"))) {
            map->rest = hd_str_dup(cf->pool, n->args[0]);
            continue;
        }
        p = hd_array_add(&parts);
        if (p == NULL || !read_percent(n->name, &share) || sum + share > 10000) {
            hd_ignore(hd_err_set(err, HD_E_CONF,
                                 "invalid percent value \"%.*s\": as in 0.5%%, 100%% "
                                 "together",
                                 HD_STR_ARG(n->name)));
            return hd_conf_blame(cf, n, err);
        }
        sum += share;
        p->below = (uint64_t)sum * 0xffffffffu / 10000;
        p->value = hd_str_dup(cf->pool, n->args[0]);
    }
    map->parts = hd_array_copy(&parts, cf->pool);
    map->parts_n = (uint32_t)parts.n;
    return HD_OK;
}

/* --- geo --- */

typedef struct {
    hd_array_t nets;   /* hd_geo_net_t */
    hd_array_t ranges; /* hd_geo_range_t */
    hd_array_t proxies; /* hd_cidr_t */
    bool by_ranges;
} reading_t;

static hd_rc_t too_many(hd_err_t *err)
{
    return hd_err_set(err, HD_E_CONF, "more than %d networks", NETS_MAX);
}

static bool read_net(hd_str_t text, hd_geo_net_t *net)
{
    hd_cidr_t cidr;

    if (!hd_cidr_parse(text, &cidr))
        return false;
    memset(net->addr, 0, 16);
    net->bits = cidr.bits;
    if (cidr.addr.family == AF_INET) {
        net->bits = (uint8_t)(cidr.bits + 96);
        net->addr[10] = net->addr[11] = 0xff;
        memcpy(net->addr + 12, cidr.addr.v4, 4);
    } else {
        memcpy(net->addr, cidr.addr.v6, 16);
    }
    for (unsigned bit = net->bits; bit < 128; bit++)
        net->addr[bit / 8] &= (uint8_t) ~(0x80 >> (bit % 8));
    return true;
}

/* A line for a network that is there already takes its place. */
static hd_rc_t add_net(hd_conf_t *cf, reading_t *r, hd_str_t text, hd_str_t value,
                       bool deletes, hd_err_t *err)
{
    hd_geo_net_t net, *to = NULL;

    if (!read_net(text, &net))
        return hd_err_set(err, HD_E_CONF, "invalid network \"%.*s\"", HD_STR_ARG(text));
    for (size_t i = 0; i < r->nets.n && to == NULL; i++) {
        hd_geo_net_t *other = hd_array_at(&r->nets, hd_geo_net_t, i);

        if (other->bits == net.bits && memcmp(other->addr, net.addr, 16) == 0)
            to = other;
    }
    if (deletes) {
        if (to != NULL)
            *to = *hd_array_at(&r->nets, hd_geo_net_t, --r->nets.n);
        return HD_OK;
    }
    if (to == NULL)
        to = hd_array_add(&r->nets);
    if (to == NULL)
        return too_many(err);
    *to = net;
    to->value = hd_str_dup(cf->pool, value);
    return HD_OK;
}

static bool read_ip(hd_str_t text, uint32_t *ip)
{
    hd_addr_t a;

    if (!hd_addr_parse_ip(text, &a) || a.family != AF_INET)
        return false;
    *ip = (uint32_t)a.v4[0] << 24 | (uint32_t)a.v4[1] << 16 | (uint32_t)a.v4[2] << 8 |
          a.v4[3];
    return true;
}

static hd_rc_t add_range(hd_conf_t *cf, reading_t *r, hd_str_t text, hd_str_t value,
                         hd_err_t *err)
{
    ssize_t dash = hd_str_find_char(text, '-');
    hd_geo_range_t range, *to;

    if (dash < 0 || !read_ip(hd_str_sub(text, 0, (size_t)dash), &range.from) ||
        !read_ip(hd_str_sub(text, (size_t)dash + 1, text.len), &range.to) ||
        range.from > range.to)
        return hd_err_set(err, HD_E_CONF, "invalid range \"%.*s\": FROM-TO, of IPv4",
                          HD_STR_ARG(text));
    for (size_t i = 0; i < r->ranges.n; i++) {
        hd_geo_range_t *other = hd_array_at(&r->ranges, hd_geo_range_t, i);

        if (range.from <= other->to && range.to >= other->from)
            return hd_err_set(err, HD_E_CONF, "range \"%.*s\" overlaps another",
                              HD_STR_ARG(text));
    }
    to = hd_array_add(&r->ranges);
    if (to == NULL)
        return too_many(err);
    *to = range;
    to->value = hd_str_dup(cf->pool, value);
    return HD_OK;
}

static hd_rc_t add_proxy(hd_conf_t *cf, reading_t *r, hd_value_map_t *map, hd_str_t text,
                         hd_err_t *err)
{
    hd_expr_t *forwarded = NULL;
    hd_cidr_t cidr, *to;

    if (!hd_cidr_parse(text, &cidr))
        return hd_err_set(err, HD_E_CONF,
                          "invalid network \"%.*s\": ADDRESS or ADDRESS/BITS of proxies",
                          HD_STR_ARG(text));
    if (map->forwarded == NULL &&
        hd_expr_compile(cf, HD_STR("$http_x_forwarded_for"), &forwarded, err) != HD_OK) {
        hd_err_clear(err);
        return hd_err_set(err, HD_E_CONF,
                          "\"proxy\" is for geo in http: fields of requests say so");
    }
    if (forwarded != NULL)
        map->forwarded = forwarded;
    to = hd_array_add(&r->proxies);
    if (to == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d proxies", PROXIES_MAX);
    *to = cidr;
    return HD_OK;
}

static hd_rc_t read_line(hd_conf_t *cf, reading_t *r, hd_value_map_t *map,
                         const hd_node_t *n, hd_err_t *err)
{
    if (n->is_block || n->args_n > 1)
        return hd_err_set(err, HD_E_CONF, "in geo a line is NETWORK VALUE");
    if (n->args_n == 0 && hd_str_eq(n->name, HD_STR("volatile"))) {
        map->is_volatile = true;
        return HD_OK;
    }
    if (n->args_n == 0 && hd_str_eq(n->name, HD_STR("proxy_recursive"))) {
        map->proxy_recursive = true;
        return HD_OK;
    }
    if (n->args_n == 0) {
        if (!hd_str_eq(n->name, HD_STR("ranges")))
            return hd_err_set(err, HD_E_CONF,
                              "invalid parameter \"%.*s\": ranges, proxy_recursive or "
                              "volatile",
                              HD_STR_ARG(n->name));
        r->by_ranges = true;
        return HD_OK;
    }
    if (hd_str_eq(n->name, HD_STR("default"))) {
        map->rest = hd_str_dup(cf->pool, n->args[0]);
        return HD_OK;
    }
    if (hd_str_eq(n->name, HD_STR("proxy")))
        return add_proxy(cf, r, map, n->args[0], err);
    if (hd_str_eq(n->name, HD_STR("delete")))
        return add_net(cf, r, n->args[0], HD_STR_NONE, true, err);
    return r->by_ranges ? add_range(cf, r, n->name, n->args[0], err)
                        : add_net(cf, r, n->name, n->args[0], false, err);
}

static int longest_first(const void *a, const void *b)
{
    const hd_geo_net_t *x = a, *y = b;

    if (x->bits != y->bits)
        return x->bits > y->bits ? -1 : 1;
    return memcmp(x->addr, y->addr, 16);
}

static int by_address(const void *a, const void *b)
{
    const hd_geo_range_t *x = a, *y = b;

    return x->from < y->from ? -1 : x->from > y->from;
}

hd_rc_t hd_conf_read_geo(hd_conf_t *cf, const hd_node_t *node, hd_value_map_t *map,
                         hd_err_t *err)
{
    reading_t r = {.by_ranges = false};
    hd_expr_t *source;

    map->kind = HD_VALUE_GEO;
    if (read_name(cf, node->args[node->args_n - 1], map, err) != HD_OK ||
        hd_expr_compile(cf, node->args_n == 2 ? node->args[0] : HD_STR("$remote_addr"),
                        &source, err) != HD_OK)
        return HD_ERROR;
    map->source = source;
    hd_array_init(&r.nets, cf->temp, sizeof(hd_geo_net_t), NETS_MAX);
    hd_array_init(&r.ranges, cf->temp, sizeof(hd_geo_range_t), NETS_MAX);
    hd_array_init(&r.proxies, cf->temp, sizeof(hd_cidr_t), PROXIES_MAX);
    for (const hd_node_t *n = node->first; n != NULL; n = n->next) {
        if (read_line(cf, &r, map, n, err) != HD_OK)
            return hd_conf_blame(cf, n, err);
    }
    if (r.nets.n > 0)
        qsort(r.nets.items, r.nets.n, sizeof(hd_geo_net_t), longest_first);
    if (r.ranges.n > 0)
        qsort(r.ranges.items, r.ranges.n, sizeof(hd_geo_range_t), by_address);
    map->nets = hd_array_copy(&r.nets, cf->pool);
    map->nets_n = (uint32_t)r.nets.n;
    map->ranges = hd_array_copy(&r.ranges, cf->pool);
    map->ranges_n = (uint32_t)r.ranges.n;
    map->proxies = hd_array_copy(&r.proxies, cf->pool);
    map->proxies_n = (uint32_t)r.proxies.n;
    return HD_OK;
}
