/* hd_value_map: nginx's `map`, `geo` and `split_clients`: the value of a variable by the
 * value of another, as data of a route table or a listener of stream; looked up when the
 * variable is asked for: once a request, on a session each time. */
#pragma once
#include "core/base/hd_array.h"
#include "core/conf/hd_conf.h"
#include "core/conf/hd_expr.h"
#include "core/loom/hd_match.h"
#include "core/net/hd_addr.h"

/* (?<name>…) of a regular expression: the variable that gets it. */
typedef struct hd_named_group_s {
    hd_attr_t attr;
    uint32_t group;
    uint32_t domain; /* of a virtual host: which of its domains */
} hd_named_group_t;

/* Adds the named groups of <pattern> to <groups> (hd_named_group_t). */
hd_rc_t hd_conf_named_groups(hd_conf_t *cf, hd_str_t pattern, uint32_t domain,
                             hd_array_t *groups, hd_err_t *err) HD_MUST_CHECK;

typedef struct {
    hd_str_t key; /* lower case; of a wildcard, without the star */
    const hd_expr_t *value;
} hd_map_entry_t;

typedef struct {
    hd_match_t match;
    const hd_expr_t *value;
    const hd_named_group_t *groups;
    uint32_t groups_n;
} hd_map_regex_t;

typedef enum { HD_VALUE_MAP, HD_VALUE_SPLIT, HD_VALUE_GEO } hd_value_kind_t;

/* split_clients: hashes below <below> that none before took. */
typedef struct {
    uint64_t below; /* of 2^32 */
    hd_str_t value;
} hd_split_part_t;

/* geo: a network; of those that hold an address the longest prefix counts. */
typedef struct {
    uint8_t addr[16]; /* IPv4: in the last four */
    uint8_t bits;     /* of 128 */
    hd_str_t value;
} hd_geo_net_t;
/* geo with `ranges`: IPv4, sorted, apart from one another. */
typedef struct {
    uint32_t from, to;
    hd_str_t value;
} hd_geo_range_t;

typedef struct hd_value_map_s {
    hd_attr_t name; /* whose value it is */
    uint8_t kind;   /* hd_value_kind_t */
    const hd_expr_t *source;
    const hd_map_entry_t *exact;    /* sorted */
    const hd_map_entry_t *suffixes; /* ".x" of "*.x", the longest first */
    const hd_map_entry_t *prefixes; /* "x." of "x.*", the longest first */
    const hd_map_regex_t *regexes;  /* in order */
    uint32_t exact_n, suffixes_n, prefixes_n, regexes_n;
    const hd_split_part_t *parts;
    uint32_t parts_n;
    const hd_geo_net_t *nets; /* sorted by length, the longest first, then by address */
    uint32_t nets_n;
    const hd_geo_range_t *ranges;
    uint32_t ranges_n;
    /* Of geo: whose word on the client's address counts, NULL: nobody's, what they said,
     * and whether an address of theirs gives way to the one before it. */
    const hd_cidr_t *proxies;
    uint32_t proxies_n;
    bool proxy_recursive;
    const hd_expr_t *forwarded;
    hd_str_t rest;              /* of split_clients and geo: none of these */
    const hd_expr_t *otherwise; /* NULL: empty */
    bool is_volatile;
} hd_value_map_t;

typedef struct hd_value_maps_s {
    const hd_value_map_t *items;
    uint32_t n;
} hd_value_maps_t;

/* An IP literal as 16 bytes, IPv4 mapped (RFC 4291 §2.5.5.2); false: it is none. */
bool hd_geo_bytes(hd_str_t text, uint8_t *bytes);
/* The map of that name; NULL: none. */
const hd_value_map_t *hd_value_map_find(const hd_value_maps_t *maps,
                                        const hd_attr_t *name);
/* Where its regular expressions lie, and who takes their groups. */
typedef struct {
    const hd_region_t *region;
    void (*take_captures)(const hd_attr_of_t *of, const hd_captures_t *captures,
                          hd_str_t in, const hd_named_group_t *groups, uint32_t groups_n);
} hd_value_map_env_t;
/* HD_ERROR: maps use one another in a ring; *out is empty. */
hd_rc_t hd_value_map_eval(const hd_value_map_t *map, const hd_value_map_env_t *env,
                          const hd_attr_of_t *of, hd_str_t *out) HD_MUST_CHECK;

/* Where the maps of a conn without a request are: of a stream, or in its handshake. */
typedef struct {
    const hd_value_maps_t *maps; /* NULL: there are none */
    const hd_region_t *region;
} hd_maps_at_t;
/* At start: of conns of one protocol; false: it is none of those. */
void hd_value_maps_on_conns(bool (*find)(const hd_conn_t *c, hd_maps_at_t *at));

/* All maps of <block> (http or stream), in <cf>'s region; *maps NULL: there are none. */
hd_rc_t hd_conf_make_maps(hd_conf_t *cf, const hd_node_t *block,
                          const hd_value_maps_t **maps, hd_err_t *err) HD_MUST_CHECK;
/* hd_conf_geo.c: the blocks of those names, into <map>. */
hd_rc_t hd_conf_read_geo(hd_conf_t *cf, const hd_node_t *node, hd_value_map_t *map,
                         hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_conf_read_split(hd_conf_t *cf, const hd_node_t *node, hd_value_map_t *map,
                           hd_err_t *err) HD_MUST_CHECK;
extern const struct hd_module_s hd_map_module;
