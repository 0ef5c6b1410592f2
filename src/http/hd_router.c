#include "http/hd_router.h"
#include "http/hd_request.h"

#include <stdlib.h>

/* --- xDS: the first match in order (RT route matching) --- */

static hd_str_t pseudo_header(hd_req_t *req, hd_str_t name, bool *found)
{
    *found = true;
    if (hd_str_eq(name, HD_STR(":method")))
        return req->head.method;
    if (hd_str_eq(name, HD_STR(":authority")) || hd_str_eq(name, HD_STR("host")))
        return req->head.authority;
    if (hd_str_eq(name, HD_STR(":scheme")))
        return req->head.scheme;
    if (hd_str_eq(name, HD_STR(":path")))
        return req->head.raw_path;
    *found = false;
    return HD_STR_NONE;
}

/* Where a request belongs can't be told when a regular expression was given up: it is
 * refused, or who knows a slow one would get around what its route forbids. */
static bool match(hd_req_t *req, const hd_match_t *p, hd_str_t s, hd_captures_t *captures)
{
    hd_rc_t rc = hd_match_ask(req->member, req->routes_region, p, s, captures);

    if (rc == HD_ERROR)
        req->route_unknown = true;
    return rc == HD_OK;
}

/* A field that isn't there matches only a test for absence, even inverted: "not equal x"
 * needs something to compare, unless missing counts as empty. */
static bool match_value(hd_req_t *req, const hd_field_match_t *fm, hd_str_t value,
                        bool found)
{
    int64_t n;

    if (fm->match.kind == HD_MATCH_ANY && !fm->is_range)
        return found != fm->match.invert;
    if (!found && !fm->treat_missing_as_empty)
        return false;
    if (fm->is_range)
        return (hd_str_to_i64(value, &n) && n >= fm->from && n < fm->to) !=
               fm->match.invert;
    return match(req, &fm->match, value, NULL);
}

/* Several fields of the name: one of them by itself is enough (Envoy since
 * CVE-2026-26308), as is what they are together (VS-MATCH-18). */
static bool match_fields(hd_req_t *req, const hd_field_match_t *fm, hd_str_t joined)
{
    hd_field_match_t plain = *fm;
    const hd_field_t *f = hd_headers_find(&req->head.headers, fm->name);
    bool matches;

    plain.match.invert = false;
    matches = match_value(req, &plain, joined, true);
    for (; f != NULL && !matches; f = hd_headers_find_next(&req->head.headers, f))
        matches = match_value(req, &plain, f->value, true);
    return matches != fm->match.invert;
}

static bool match_header(hd_req_t *req, const hd_field_match_t *fm)
{
    const hd_field_t *f;
    bool found;
    hd_str_t value;

    if ((fm->name.len > 0 && fm->name.data[0] == ':') ||
        hd_str_eq(fm->name, HD_STR("host")))
        value = pseudo_header(req, fm->name, &found);
    else
        value = hd_headers_joined(&req->head.headers, fm->name, req->pool, &found);
    f = found && fm->name.data[0] != ':' ? hd_headers_find(&req->head.headers, fm->name)
                                         : NULL;
    if (f != NULL && (fm->is_range || fm->match.kind != HD_MATCH_ANY) &&
        hd_headers_find_next(&req->head.headers, f) != NULL)
        return match_fields(req, fm, value);
    return match_value(req, fm, value, found);
}

static bool match_query(hd_req_t *req, const hd_field_match_t *fm)
{
    hd_str_t rest = req->head.query, pair;

    while (hd_str_split(&rest, '&', &pair)) {
        ssize_t eq = hd_str_find_char(pair, '=');
        hd_str_t name = eq < 0 ? pair : hd_str_sub(pair, 0, (size_t)eq);

        if (hd_str_eq(name, fm->name))
            return match_value(
                req, fm,
                eq < 0 ? HD_STR_NONE : hd_str_sub(pair, (size_t)eq + 1, pair.len), true);
    }
    return match_value(req, fm, HD_STR_NONE, false);
}

static bool match_path(hd_req_t *req, const hd_route_match_t *rm)
{
    hd_str_t path = req->head.path;

    if (!match(req, &rm->path, path, NULL))
        return false;
    if (!rm->path_is_segments)
        return true;
    return path.len == rm->path.text.len || path.data[rm->path.text.len] == '/';
}

static bool is_grpc(const hd_req_t *req)
{
    const hd_field_t *f = hd_headers_get(&req->head.headers, HD_H_CONTENT_TYPE);

    return f != NULL && hd_str_has_prefix(f->value, HD_STR("application/grpc")) &&
           (f->value.len == 16 || f->value.data[16] == '+' || f->value.data[16] == ';');
}

static bool match_route(hd_req_t *req, const hd_route_match_t *rm)
{
    if (rm->connect_only != (req->head.method_id == HD_M_CONNECT))
        return false;
    if (!rm->connect_only && !match_path(req, rm))
        return false;
    if (rm->grpc_only && !is_grpc(req))
        return false;
    for (uint32_t i = 0; i < rm->headers_n; i++) {
        if (!match_header(req, &rm->headers[i]))
            return false;
    }
    for (uint32_t i = 0; i < rm->queries_n; i++) {
        if (!match_query(req, &rm->queries[i]))
            return false;
    }
    if (rm->has_tls_presented) {
        const hd_tls_peer_t *tls = req->conn != NULL ? hd_tls_peer(req->conn) : NULL;
        bool presented = tls != NULL && tls->fingerprint_sha256.len > 0;

        if (presented != rm->tls_presented)
            return false;
    }
    return !rm->has_fraction || (uint32_t)(random() % 1000000) < rm->fraction_ppm;
}

static const hd_route_t *find_match(hd_req_t *req, const hd_matches_t *matches)
{
    for (uint32_t i = 0; i < matches->n; i++) {
        if (match_route(req, &matches->items[i]))
            return matches->items[i].route;
    }
    return NULL;
}

/* --- nginx: locations --- */

static const hd_location_t *find_exact(const hd_locations_t *l, hd_str_t path)
{
    uint32_t low = 0, high = l->exact_n;

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        int order = hd_str_cmp(l->exact[mid].path, path);

        if (order == 0)
            return &l->exact[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* The longest location path that <path> begins with: those that are a prefix of it sort
 * before it, longer ones later. */
static const hd_location_t *find_prefix(const hd_locations_t *l, hd_str_t path)
{
    uint32_t low = 0, high = l->prefixes_n;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (hd_str_cmp(l->prefixes[mid].path, path) <= 0)
            low = mid + 1;
        else
            high = mid;
    }
    while (low-- > 0) {
        if (hd_str_has_prefix(path, l->prefixes[low].path))
            return &l->prefixes[low];
    }
    return NULL;
}

/* "/x" where a location "/x/" stands that wants the redirect. */
static const hd_route_t *find_slash_redirect(const hd_locations_t *l, hd_str_t path)
{
    for (uint32_t i = 0; i < l->prefixes_n; i++) {
        const hd_location_t *loc = &l->prefixes[i];

        if (loc->slash_redirect != NULL && loc->path.len == path.len + 1 &&
            memcmp(loc->path.data, path.data, path.len) == 0)
            return loc->slash_redirect;
    }
    return NULL;
}

void hd_router_take_captures(hd_req_t *req, const hd_captures_t *captures, hd_str_t of,
                             const hd_named_group_t *groups, uint32_t groups_n,
                             uint32_t domain)
{
    hd_attr_of_t attr_of = {
        .conn = req->conn, .req = req, .pool = req->pool, .member = req->member};

    req->captures = *captures;
    req->capture_of = of;
    for (uint32_t i = 0; i < groups_n; i++) {
        const hd_named_group_t *g = &groups[i];
        hd_val_t value = {.type = HD_VAL_STR};

        if (g->domain != domain)
            continue;
        if (g->group < captures->n && captures->at[g->group].from >= 0)
            value.str = hd_str_sub(
                of, (size_t)captures->at[g->group].from,
                (size_t)(captures->at[g->group].to - captures->at[g->group].from));
        hd_ignore(hd_attr_set(&attr_of, &g->attr, value)); /* no setter refuses it */
    }
}

const hd_vhost_t *hd_router_find_vhost(hd_req_t *req)
{
    hd_host_match_t match;
    const hd_vhost_t *vhost;

    match.captures.n = 0;
    vhost = hd_routes_match_vhost(req->member, req->routes_region, req->routes,
                                  req->head.authority, &match);
    if (vhost != NULL && match.captures.n > 0)
        hd_router_take_captures(req, &match.captures, match.of, vhost->groups,
                                vhost->groups_n, match.domain);
    return vhost;
}

static const hd_location_t *find_regex(hd_req_t *req, const hd_locations_t *l,
                                       hd_str_t path)
{
    hd_captures_t captures;

    for (uint32_t i = 0; i < l->regexes_n; i++) {
        const hd_location_t *loc = &l->regexes[i];

        if (match(req, &loc->regex, path, &captures)) {
            hd_router_take_captures(req, &captures, path, loc->groups, loc->groups_n, 0);
            return loc;
        }
    }
    return NULL;
}

/* nginx's order: exact; else the longest prefix, in which nested locations are looked for
 * first; unless it says ^~, the first regular expression that matches wins over it. */
static const hd_location_t *find_location(hd_req_t *req, const hd_locations_t *l,
                                          hd_str_t path)
{
    const hd_location_t *exact = find_exact(l, path), *prefix, *inner = NULL, *regex;

    if (exact != NULL)
        return exact;
    prefix = find_prefix(l, path);
    if (prefix != NULL && prefix->inner != NULL) {
        inner = find_location(req, prefix->inner, path);
        if (inner != NULL && (inner->is_exact || inner->is_regex || inner->stops_regex))
            return inner;
    }
    if (prefix == NULL || !prefix->stops_regex) {
        regex = find_regex(req, l, path);
        if (regex != NULL) {
            const hd_location_t *deeper =
                regex->inner != NULL ? find_location(req, regex->inner, path) : NULL;

            return deeper != NULL ? deeper : regex;
        }
    }
    return inner != NULL ? inner : prefix;
}

static const hd_route_t *find_by_location(hd_req_t *req, const hd_locations_t *l)
{
    hd_str_t path = req->head.path;
    const hd_location_t *loc = find_location(req, l, path);

    if (loc == NULL || !loc->is_exact) {
        const hd_route_t *redirect = find_slash_redirect(l, path);

        if (redirect != NULL && (loc == NULL || !loc->is_regex))
            return redirect;
    }
    if (loc == NULL)
        return l->server_route;
    if (loc->is_internal && !req->is_internal)
        return loc->refused;
    return loc->route;
}

const hd_route_t *hd_router_find(hd_req_t *req, const hd_vhost_t *vhost)
{
    req->route_unknown = false;
    if (vhost->router == HD_ROUTER_LOCATIONS)
        return find_by_location(req, vhost->routes);
    if (vhost->router == HD_ROUTER_MATCHES)
        return find_match(req, vhost->routes);
    return NULL;
}

const hd_route_t *hd_router_find_named(const hd_vhost_t *vhost, hd_str_t name)
{
    const hd_locations_t *l = vhost->routes;

    if (vhost->router != HD_ROUTER_LOCATIONS)
        return NULL;
    for (uint32_t i = 0; i < l->named_n; i++) {
        if (hd_str_eq(l->named[i].path, name))
            return l->named[i].route;
    }
    return NULL;
}
