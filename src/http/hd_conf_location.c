/* location blocks, and what any place (server or location) does with a request. */
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_grpc.h"
#include "http/hd_conf_int.h"
#include "http/hd_conf_tunnel.h"
#include "core/conf/hd_value_map.h"

#include <stdlib.h>

#define LOCATIONS_MAX 100000

/* --- reading --- */

typedef struct {
    const char *text;
    hd_place_kind_t kind;
    bool stops_regex, ignore_case;
} modifier_t;

static const modifier_t modifiers[] = {
    {"=", HD_PLACE_EXACT, false, false},
    {"^~", HD_PLACE_PREFIX, true, false},
    {"~*", HD_PLACE_REGEX, false, true},
    {"~", HD_PLACE_REGEX, false, false},
};

/* "= /x", and in one word "=/x"; "@name" stands alone. */
static hd_rc_t parse_location(const hd_conf_t *cf, const hd_str_t *args, hd_place_t *p,
                              hd_err_t *err)
{
    p->kind = HD_PLACE_PREFIX;
    p->path = args[cf->node->args_n - 1];
    for (size_t i = 0; i < hd_countof(modifiers); i++) {
        hd_str_t text = hd_str_c(modifiers[i].text);

        if (cf->node->args_n == 2 ? !hd_str_eq(args[0], text)
                                  : !hd_str_has_prefix(args[0], text))
            continue;
        p->kind = modifiers[i].kind;
        p->stops_regex = modifiers[i].stops_regex;
        p->ignore_case = modifiers[i].ignore_case;
        if (cf->node->args_n == 1)
            p->path = hd_str_sub(args[0], text.len, args[0].len);
        break;
    }
    if (cf->node->args_n == 2 && p->kind == HD_PLACE_PREFIX && !p->stops_regex)
        return hd_err_set(err, HD_E_CONF,
                          "invalid location modifier \"%.*s\": allowed are =, ^~, ~, ~*",
                          HD_STR_ARG(args[0]));
    if (cf->node->args_n == 1 && args[0].len > 0 && args[0].data[0] == '@')
        p->kind = HD_PLACE_NAMED;
    if (p->path.len == 0 && p->kind != HD_PLACE_PREFIX)
        return hd_err_set(err, HD_E_CONF, "a location needs a path");
    return HD_OK;
}

/* nginx's rules of nesting. */
static hd_rc_t check_nesting(const hd_place_t *p, hd_err_t *err)
{
    const hd_place_t *outer = p->outer;

    if (p->kind == HD_PLACE_NAMED && outer->kind != HD_PLACE_SERVER)
        return hd_err_set(err, HD_E_CONF,
                          "named location \"%.*s\" can be on the server level only",
                          HD_STR_ARG(p->path));
    if (outer->kind == HD_PLACE_EXACT || outer->kind == HD_PLACE_NAMED)
        return hd_err_set(
            err, HD_E_CONF, "location \"%.*s\" cannot be inside the %s location \"%.*s\"",
            HD_STR_ARG(p->path), outer->kind == HD_PLACE_EXACT ? "exact" : "named",
            HD_STR_ARG(outer->path));
    if (outer->kind == HD_PLACE_PREFIX && p->kind != HD_PLACE_REGEX &&
        !hd_str_has_prefix(p->path, outer->path))
        return hd_err_set(err, HD_E_CONF,
                          "location \"%.*s\" is outside location \"%.*s\"",
                          HD_STR_ARG(p->path), HD_STR_ARG(outer->path));
    return HD_OK;
}

static bool is_same_location(const hd_location_t *a, const hd_location_t *b)
{
    return !a->is_regex && !b->is_regex && a->is_exact == b->is_exact &&
           a->is_named == b->is_named && hd_str_eq(a->path, b->path);
}

static hd_rc_t put_groups(hd_conf_t *cf, hd_str_t pattern, hd_location_t *l,
                          hd_err_t *err)
{
    hd_array_t groups;

    hd_array_init(&groups, cf->temp, sizeof(hd_named_group_t), HD_CAPTURES_MAX);
    if (hd_conf_named_groups(cf, pattern, 0, &groups, err) != HD_OK)
        return HD_ERROR;
    l->groups = hd_array_copy(&groups, cf->pool);
    l->groups_n = (uint32_t)groups.n;
    return HD_OK;
}

static hd_rc_t add_location(hd_conf_t *cf, const hd_place_t *p, hd_location_t **added,
                            hd_err_t *err)
{
    hd_location_t *l = hd_array_add(p->outer->inner);

    if (l == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d locations", LOCATIONS_MAX);
    l->path = hd_str_dup(cf->pool, p->path);
    l->is_exact = p->kind == HD_PLACE_EXACT;
    l->is_regex = p->kind == HD_PLACE_REGEX;
    l->is_named = p->kind == HD_PLACE_NAMED;
    l->stops_regex = p->stops_regex;
    if (l->is_regex) {
        l->regex = (hd_match_t){.kind = HD_MATCH_REGEX,
                                .part = true,
                                .ignore_case = p->ignore_case,
                                .text = l->path};
        if (hd_match_check(&l->regex, err) != HD_OK ||
            put_groups(cf, l->path, l, err) != HD_OK)
            return HD_ERROR;
    }
    for (size_t i = 0; i + 1 < p->outer->inner->n; i++) {
        if (is_same_location(hd_array_at(p->outer->inner, hd_location_t, i), l))
            return hd_err_set(err, HD_E_CONF, "duplicate location \"%.*s\"",
                              HD_STR_ARG(p->path));
    }
    *added = l;
    return HD_OK;
}

hd_rc_t hd_http_enter(hd_conf_t *cf, hd_node_t *node, hd_place_t *place, unsigned scope,
                      hd_conf_t *at, hd_err_t *err)
{
    hd_http_build_t *b = hd_http_build_of(cf);
    hd_place_t *outer = b->place;
    hd_rc_t rc;

    place->id = ++b->places_n;
    place->node = node;
    place->outer = outer;
    place->inner = hd_pool_new(cf->temp, hd_array_t);
    hd_array_init(place->inner, cf->temp, sizeof(hd_location_t), LOCATIONS_MAX);
    *at = *cf;
    at->scope = scope;
    at->node = node;
    b->place = place;
    rc = hd_conf_enter(cf, node, scope, &at->confs, err);
    b->place = outer;
    return rc;
}

/* "/x" answers with a redirect to "/x/" where a proxied location "/x/" stands. */
static hd_rc_t make_slash_redirect(hd_conf_t *cf, const hd_place_t *p, hd_location_t *l,
                                   hd_err_t *err)
{
    hd_route_t *route;
    hd_expr_t *text;

    if (p->kind != HD_PLACE_PREFIX || l->path.len < 2 ||
        l->path.data[l->path.len - 1] != '/' || l->route->action != HD_ACT_PROXY ||
        hd_str_find_char(l->path, '$') >= 0)
        return HD_OK;
    if (hd_expr_compile(cf,
                        hd_str_printf(cf->temp, "%.*s$is_args$args", HD_STR_ARG(l->path)),
                        &text, err) != HD_OK)
        return HD_ERROR;
    route = hd_pool_new(cf->pool, hd_route_t);
    *route = *l->route;
    route->action = HD_ACT_REDIRECT;
    route->status = 301;
    route->text = text;
    route->proxy = NULL;
    route->rewrite = NULL;
    route->except = NULL;
    l->slash_redirect = route;
    return HD_OK;
}

/* 404, with the location's own settings: its error_page, its logs. */
static const hd_route_t *make_refused(hd_conf_t *cf, const hd_route_t *route)
{
    hd_route_t *refused = hd_pool_new(cf->pool, hd_route_t);

    *refused = *route;
    refused->action = HD_ACT_NONE;
    refused->proxy = NULL;
    refused->text = NULL;
    refused->rewrite = NULL;
    refused->except = NULL;
    return refused;
}

hd_rc_t hd_http_enter_location(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    hd_http_build_t *b = hd_http_build_of(cf);
    hd_place_t place = {.outer = b->place};
    hd_location_t *l = NULL;
    hd_route_t *route;
    hd_conf_t at;

    (void)conf;
    if (b->is_sketch)
        return HD_OK;
    if (parse_location(cf, args, &place, err) != HD_OK ||
        check_nesting(&place, err) != HD_OK || add_location(cf, &place, &l, err) != HD_OK)
        return HD_ERROR;
    if (hd_http_enter(cf, (hd_node_t *)(uintptr_t)cf->node, &place, HD_IN_LOCATION, &at,
                      err) != HD_OK ||
        hd_http_make_route(&at, &place, &route, err) != HD_OK)
        return HD_ERROR;
    route->except = place.except;
    l->route = route;
    l->is_internal = hd_http_core_is_internal(&at, &place);
    if (l->is_internal)
        l->refused = make_refused(&at, route);
    if (place.inner->n > 0)
        l->inner = hd_http_make_locations(&at, &place);
    return make_slash_redirect(&at, &place, l, err);
}

/* --- limit_except --- */

static hd_rc_t check_method(hd_str_t method, hd_err_t *err)
{
    static const char *const names[] = {
        "GET",  "HEAD", "POST",    "PUT",      "DELETE",    "MKCOL", "COPY",
        "MOVE", "LOCK", "OPTIONS", "PROPFIND", "PROPPATCH", "PATCH", "UNLOCK"};

    for (size_t i = 0; i < hd_countof(names); i++) {
        if (hd_str_eq(method, hd_str_c(names[i])))
            return HD_OK;
    }
    return hd_err_set(err, HD_E_CONF, "invalid method \"%.*s\"", HD_STR_ARG(method));
}

/* nginx: who names GET means HEAD, too. */
static const hd_except_t *make_except(hd_conf_t *cf, const hd_str_t *args, uint32_t n,
                                      const hd_route_t *route)
{
    hd_except_t *except = hd_pool_new(cf->pool, hd_except_t);
    hd_str_t *methods = hd_pool_new_n(cf->pool, hd_str_t, n + 1);

    *except = (hd_except_t){.methods = methods, .route = route};
    for (uint32_t i = 0; i < n; i++) {
        methods[except->methods_n++] = hd_str_dup(cf->pool, args[i]);
        if (hd_str_eq(args[i], HD_STR("GET")))
            methods[except->methods_n++] = hd_str_dup(cf->pool, HD_STR("HEAD"));
    }
    return except;
}

/* The block is a place of its own, as that of an `if`: its settings are those around it,
 * with what it says. */
hd_rc_t hd_http_enter_limit_except(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                   hd_err_t *err)
{
    hd_http_build_t *b = hd_http_build_of(cf);
    hd_place_t *outer = b->place;
    hd_place_t place = {.kind = HD_PLACE_IF};
    hd_route_t *route;
    hd_conf_t at;

    (void)conf;
    if (b->is_sketch)
        return HD_OK;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (check_method(args[i], err) != HD_OK)
            return HD_ERROR;
    }
    place.path = outer->path;
    if (hd_http_enter(cf, (hd_node_t *)(uintptr_t)cf->node, &place, HD_IN_LIMIT_EXCEPT,
                      &at, err) != HD_OK ||
        hd_http_make_route(&at, &place, &route, err) != HD_OK)
        return HD_ERROR;
    outer->except = make_except(cf, args, cf->node->args_n, route);
    return HD_OK;
}

/* --- what was read, as the router wants it --- */

static int by_path(const void *a, const void *b)
{
    return hd_str_cmp(((const hd_location_t *)a)->path, ((const hd_location_t *)b)->path);
}

typedef enum { EXACT, PREFIX, REGEX, NAMED } list_t;

static list_t list_of(const hd_location_t *l)
{
    return l->is_exact ? EXACT : l->is_regex ? REGEX : l->is_named ? NAMED : PREFIX;
}

static const hd_location_t *pick(hd_conf_t *cf, const hd_array_t *all, list_t which,
                                 uint32_t *n)
{
    hd_location_t *list;
    uint32_t found = 0;

    for (size_t i = 0; i < all->n; i++)
        found += list_of(hd_array_at(all, hd_location_t, i)) == which;
    if (found == 0)
        return NULL;
    list = hd_pool_new_n(cf->pool, hd_location_t, found);
    for (size_t i = 0; i < all->n; i++) {
        if (list_of(hd_array_at(all, hd_location_t, i)) == which)
            list[(*n)++] = *hd_array_at(all, hd_location_t, i);
    }
    if (which == EXACT || which == PREFIX)
        qsort(list, found, sizeof(*list), by_path);
    return list;
}

hd_locations_t *hd_http_make_locations(hd_conf_t *cf, const hd_place_t *place)
{
    hd_locations_t *l = hd_pool_new(cf->pool, hd_locations_t);

    l->exact = pick(cf, place->inner, EXACT, &l->exact_n);
    l->prefixes = pick(cf, place->inner, PREFIX, &l->prefixes_n);
    l->regexes = pick(cf, place->inner, REGEX, &l->regexes_n);
    l->named = pick(cf, place->inner, NAMED, &l->named_n);
    return l;
}

/* --- filters --- */

static bool is_zero(const void *bytes, size_t n)
{
    const char *p = bytes;

    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

static bool has_callbacks(const hd_module_t *m)
{
    return m->on_request_headers != NULL || m->on_request_body != NULL ||
           m->on_request_trailers != NULL || m->on_response_headers != NULL ||
           m->on_response_body != NULL || m->on_response_trailers != NULL ||
           m->on_log != NULL || m->on_pick != NULL || m->on_try_result != NULL;
}

/* Has this place settings that its server doesn't have? */
static bool has_own_conf(const hd_conf_t *cf, uint16_t number)
{
    const hd_conf_t *server = cf;

    while (server->outer != NULL && server->scope != HD_IN_SERVER)
        server = server->outer;
    return cf->confs[number] != server->confs[number];
}

/* Is it a module of this phase, or of location's filters?  */
static bool is_of(const hd_conf_t *cf, uint16_t number, hd_filters_t which)
{
    const hd_module_t *m = hd_module_get(number);

    if (m->phase != HD_PHASE_POST_READ || which == HD_FILTERS_POST_READ)
        return (m->phase == HD_PHASE_POST_READ) == (which == HD_FILTERS_POST_READ);
    return m->is_again_in_location && which == HD_FILTERS_OF_ROUTE &&
           has_own_conf(cf, number);
}

/* Is the module used here? One without a conf is used wherever it is loaded; the proxy's
 * own part goes where proxy_pass is. Who has nothing but variables is found by them, in
 * logs, too. */
static bool is_used(const hd_conf_t *cf, uint16_t number, hd_filters_t which)
{
    const hd_module_t *m = hd_module_get(number);

    if ((!has_callbacks(m) && m->attributes == NULL) || m == &hd_proxy_module ||
        !is_of(cf, number, which) ||
        (which == HD_FILTERS_LOG && m->on_log == NULL && has_callbacks(m)))
        return false;
    return m->conf_size == 0 || !is_zero(cf->confs[number], m->conf_size);
}

static unsigned rank(const hd_module_t *m)
{
    /* who only looks at the result comes last: NONE */
    unsigned phase =
        m->phase == HD_PHASE_NONE ? HD_PHASE_CONTENT + 1u : (unsigned)m->phase;

    return phase * HD_ORDERS + hd_min(m->order, HD_ORDERS - 1);
}

hd_rc_t hd_http_make_filters(hd_conf_t *cf, hd_filters_t which, const hd_route_t *route,
                             const hd_filter_conf_t **filters, uint32_t *n, hd_err_t *err)
{
    uint32_t found = 0, max = 0;
    hd_filter_conf_t *list;

    for (uint16_t i = 0; i < hd_modules_n(); i++)
        max += is_used(cf, i, which);
    *n = 0;
    if (route != NULL && route->proxy != NULL)
        max++;
    if (max == 0)
        return HD_OK;
    if (max > 255)
        return hd_err_set(err, HD_E_CONF, "more than 255 modules are used here");
    list = hd_pool_new_n(cf->pool, hd_filter_conf_t, max);
    for (unsigned at = 0; at < (HD_PHASE_CONTENT + 2u) * HD_ORDERS; at++) {
        for (uint16_t i = 0; i < hd_modules_n(); i++) {
            const hd_module_t *m = hd_module_get(i);

            if (rank(m) == at && is_used(cf, i, which))
                list[found++] = (hd_filter_conf_t){
                    .name = hd_str_c(m->name), .module = i, .conf = hd_conf_keep(cf, i)};
        }
    }
    for (uint32_t i = 0; i < found; i++)
        list[i].name = hd_str_dup(cf->pool, list[i].name);
    if (route != NULL && route->proxy != NULL)
        list[found++] = (hd_filter_conf_t){.name = hd_str_dup(cf->pool, HD_STR("proxy")),
                                           .module = hd_module_number(&hd_proxy_module),
                                           .conf = route->proxy->filter};
    *filters = list;
    *n = found;
    return HD_OK;
}

/* --- what a place does --- */

hd_rc_t hd_http_make_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t **out,
                           hd_err_t *err)
{
    hd_route_t *route = hd_pool_new(cf->pool, hd_route_t);
    const hd_place_t *where = hd_http_location_of(place);
    hd_rc_t rc;

    route->name = hd_str_dup(cf->pool, place->path);
    route->loc = hd_http_core_loc(cf);
    if (where->kind == HD_PLACE_PREFIX || where->kind == HD_PLACE_EXACT)
        route->matched_prefix = route->name;
    hd_http_headers_route(cf, place, route);
    rc = hd_http_proxy_route(cf, place, route, err);
    if (rc == HD_DECLINED)
        rc = hd_http_grpc_route(cf, place, route, err);
    if (rc == HD_DECLINED)
        rc = hd_http_tunnel_route(cf, place, route, err);
    if (rc != HD_OK && rc != HD_DECLINED)
        return rc;
    hd_http_file_route(cf, route);
    route->filters_are_chain = true;
    *out = route;
    if (hd_http_make_filters(cf, HD_FILTERS_OF_ROUTE, route, &route->filters,
                             &route->filters_n, err) != HD_OK)
        return HD_ERROR;
    hd_http_make_rewrite(cf, place, route);
    return HD_OK;
}
