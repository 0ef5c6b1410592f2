/* hd_router: from (authority, path, …) to a route: a route table holds virtual hosts,
 * each with a router behind one small interface; nginx's location tree and xDS's ordered
 * match list are its two implementations. Data in a HD_RES_ROUTES region. */
#pragma once
#include "core/conf/hd_value_map.h"
#include "http/hd_route.h"

typedef enum { HD_ROUTER_LOCATIONS = 1, HD_ROUTER_MATCHES = 2 } hd_router_kind_t;

typedef struct hd_vhost_s {
    hd_str_t name;
    const hd_str_t *domains; /* lower case: exact, "*.suffix", "prefix.*", "*", "~regex",
                                and for nginx's servers "": no authority */
    uint32_t domains_n;
    uint64_t tls_client_hash; /* how its clients are verified (hd_tls_conf_t); 0: not */
    bool needs_client_cert;
    uint8_t router;     /* hd_router_kind_t */
    const void *routes; /* hd_locations_t or hd_matches_t */
    const hd_header_op_conf_t *request_ops, *response_ops;
    uint32_t request_ops_n, response_ops_n;
    const hd_filter_conf_t *filters; /* overrides */
    uint32_t filters_n;
    bool require_tls;
    bool allows_connect; /* nginx's servers: one of its places is a tunnel */
    bool attempt_count_to_upstream, attempt_count_in_response; /* x-envoy-attempt-count */
    bool tells_timeout_retry; /* x-envoy-is-timeout-retry, to the upstream */
    const hd_http_loc_t *loc;
    const hd_named_group_t *groups;
    uint32_t groups_n;
} hd_vhost_t;

typedef struct hd_routes_s {
    hd_str_t name;
    const hd_vhost_t *vhosts;
    uint32_t vhosts_n;
    const hd_vhost_t *default_vhost;         /* NULL: 404 NR */
    const struct hd_value_maps_s *maps;      /* nginx's `map`; NULL: none */
    bool ignore_port;                        /* of the authority when matching */
    bool specific_wins; /* header changes: the route's come last, else they come first */
    const struct hd_domain_index_s *domains; /* built by hd_routes_index */
    const hd_header_op_conf_t *request_ops, *response_ops;
    uint32_t request_ops_n, response_ops_n;
    const hd_filter_conf_t *filters;
    uint32_t filters_n;
} hd_routes_t;

/* Builds the index of domains in <pool>: hash of exact names, tries of suffixes and
 * prefixes. A domain twice is an error (xDS) or a warning with the first kept (nginx:
 * <first_wins>). */
hd_rc_t hd_routes_index(hd_pool_t *pool, hd_routes_t *routes, bool first_wins,
                        hd_err_t *err);
/* Precedence: exact, longest "*.suffix", longest "prefix.*", regexes in order, "*" or
 * default. */
const hd_vhost_t *hd_routes_find_vhost(hd_member_t *m, const hd_region_t *r,
                                       const hd_routes_t *routes, hd_str_t authority);
/* The same, with the groups of the regular expression that matched; captures.n 0: none
 * did. */
typedef struct {
    hd_captures_t captures;
    hd_str_t of;
    uint32_t domain;
} hd_host_match_t;
const hd_vhost_t *hd_routes_match_vhost(hd_member_t *m, const hd_region_t *r,
                                        const hd_routes_t *routes, hd_str_t authority,
                                        hd_host_match_t *match);

struct hd_req_s;
/* The groups of a regular expression that matched <of>: $1… and the named ones among
 * <groups> of <domain>. */
void hd_router_take_captures(struct hd_req_s *req, const hd_captures_t *captures,
                             hd_str_t of, const hd_named_group_t *groups,
                             uint32_t groups_n, uint32_t domain);
/* The virtual host for <req>; groups of a regular expression go to the request. */
const hd_vhost_t *hd_router_find_vhost(struct hd_req_s *req);
/* The route for <req>; NULL: none (404, NR). Captures of regexes go to the request. With
 * req->route_unknown it isn't to be used (500). */
const hd_route_t *hd_router_find(struct hd_req_s *req, const hd_vhost_t *vhost);

/* --- xDS: an ordered list of matches; the first that fits wins --- */
typedef struct {
    hd_str_t
        name; /* of header or query parameter; ":method" etc. are fields of the request */
    hd_match_t match;
    bool treat_missing_as_empty;
    bool is_range; /* match an integer in [from, to) */
    int64_t from, to;
} hd_field_match_t;

typedef struct {
    hd_match_t path;       /* EXACT, PREFIX, REGEX, ANY */
    bool path_is_segments; /* PREFIX ends at a '/' (path_separated_prefix) */
    const hd_field_match_t *headers, *queries;
    uint32_t headers_n, queries_n;
    bool grpc_only, connect_only, tls_presented, has_tls_presented;
    uint32_t fraction_ppm; /* of requests, when has_fraction */
    bool has_fraction;
    const hd_route_t *route;
} hd_route_match_t;

typedef struct {
    const hd_route_match_t *items;
    uint32_t n;
} hd_matches_t;

/* --- nginx: locations (ngx_http_core find_location's precedence) --- */
typedef struct hd_location_s {
    hd_str_t path; /* of exact and prefix ones */
    hd_match_t regex;
    bool is_exact, is_regex, stops_regex /* ^~ */, is_named, is_internal;
    const hd_route_t *route;
    const hd_named_group_t *groups;
    uint32_t groups_n;
    const hd_route_t *refused; /* of an internal one, for who asks from outside */
    const hd_route_t
        *slash_redirect; /* "/x" to "/x/" for a proxied location "/x/"; NULL: none */
    const struct hd_locations_s *inner; /* nested */
} hd_location_t;

typedef struct hd_locations_s {
    const hd_location_t *exact, *prefixes, *regexes,
        *named; /* exact and prefixes sorted by path */
    uint32_t exact_n, prefixes_n, regexes_n, named_n;
    const hd_route_t *server_route; /* no location fits: the server's own settings */
} hd_locations_t;

/* A named location (error_page @name, try_files); NULL: none. */
const hd_route_t *hd_router_find_named(const hd_vhost_t *vhost, hd_str_t name);
