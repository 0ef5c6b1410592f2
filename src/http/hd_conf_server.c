/* Route tables and listeners out of the servers of an http block. */
#include "core/base/hd_map.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_http2.h"
#include "http/hd_conf_int.h"
#include "core/conf/hd_value_map.h"
#include "http/hd_weft.h"

/* --- route tables: one for all addresses that have the same servers --- */

static bool are_same_servers(const hd_conf_address_t *a, const hd_conf_address_t *b)
{
    return a->first == b->first && a->servers.n == b->servers.n &&
           memcmp(a->servers.items, b->servers.items,
                  a->servers.n * sizeof(hd_conf_server_t *)) == 0;
}

/* How the server's clients are verified: a conn whose handshake did it otherwise, or not
 * at all, is none of its. */
static hd_rc_t note_tls(hd_conf_t *cf, hd_vhost_t *vhost, hd_err_t *err)
{
    const hd_tls_conf_t *tls = NULL;

    if (hd_conf_ssl_verifies(cf) &&
        hd_conf_ssl_server(cf, HD_STR_NONE, &tls, err) != HD_OK)
        return HD_ERROR;
    vhost->tls_client_hash = tls != NULL ? tls->client_hash : 0;
    vhost->needs_client_cert = tls != NULL && tls->verify == HD_TLS_VERIFY_REQUIRED;
    return HD_OK;
}

static hd_rc_t make_vhost(hd_http_build_t *b, hd_conf_t *cf, hd_conf_server_t *s,
                          hd_vhost_t *vhost, hd_err_t *err)
{
    hd_place_t place = {.kind = HD_PLACE_SERVER};
    hd_route_t *route;
    hd_locations_t *locations;
    hd_str_t *domains = hd_pool_new_n(cf->pool, hd_str_t, s->names.n);
    hd_array_t groups;
    hd_conf_t at;

    b->has_tunnel = false;
    if (hd_http_enter(cf, s->node, &place, HD_IN_SERVER, &at, err) != HD_OK)
        return HD_ERROR;
    b->place = &place;
    if (hd_http_make_route(&at, &place, &route, err) != HD_OK)
        return hd_conf_blame(cf, s->node, err);
    b->place = NULL;
    locations = hd_http_make_locations(&at, &place);
    locations->server_route = route;
    for (size_t i = 0; i < s->names.n; i++)
        domains[i] = hd_str_dup(cf->pool, *hd_array_at(&s->names, hd_str_t, i));
    hd_array_init(&groups, cf->temp, sizeof(hd_named_group_t),
                  s->names.n * HD_CAPTURES_MAX);
    for (uint32_t i = 0; i < s->names.n; i++) {
        if (domains[i].len > 1 && domains[i].data[0] == '~' &&
            hd_conf_named_groups(cf, hd_str_sub(domains[i], 1, domains[i].len), i,
                                 &groups, err) != HD_OK)
            return hd_conf_blame(cf, s->node, err);
    }
    if (note_tls(&at, vhost, err) != HD_OK)
        return hd_conf_blame(cf, hd_conf_find(s->node, HD_STR("ssl_verify_client")), err);
    *vhost = (hd_vhost_t){.tls_client_hash = vhost->tls_client_hash,
                          .needs_client_cert = vhost->needs_client_cert,
                          .groups = hd_array_copy(&groups, cf->pool),
                          .groups_n = (uint32_t)groups.n,
                          .name = domains[0],
                          .domains = domains,
                          .domains_n = (uint32_t)s->names.n,
                          .router = HD_ROUTER_LOCATIONS,
                          .allows_connect = b->has_tunnel,
                          .routes = locations,
                          .loc = hd_http_core_loc(&at)};
    return HD_OK;
}

/* Names that two servers of an address have: the first one wins. */
static void warn_of_conflicts(hd_conf_t *cf, const hd_conf_address_t *a)
{
    hd_map_t *seen = hd_map_create();

    for (size_t i = 0; i < a->servers.n; i++) {
        hd_conf_server_t *s = *hd_array_at(&a->servers, hd_conf_server_t *, i);

        for (size_t k = 0; k < s->names.n; k++) {
            hd_str_t name = *hd_array_at(&s->names, hd_str_t, k);
            hd_str_t key = hd_str_printf(cf->temp, ".%.*s", HD_STR_ARG(name));
            hd_conf_t at = *cf;

            if (hd_map_get(seen, key) == NULL) {
                hd_ignore(hd_map_put(seen, key, s) == NULL);
                continue;
            }
            at.node = hd_conf_find(s->node, HD_STR("server_name"));
            if (at.node->parent != s->node)
                at.node = s->node;
            hd_conf_warn(&at, "conflicting server name \"%.*s\" on %.*s, ignored",
                         HD_STR_ARG(name), HD_STR_ARG(a->listen.name));
        }
    }
    hd_map_destroy(seen);
}

static hd_rc_t put_table(hd_http_build_t *b, hd_conf_t *outer, hd_conf_address_t *a,
                         hd_err_t *err)
{
    hd_str_t name = hd_str_printf(outer->temp, "http:%.*s", HD_STR_ARG(a->listen.name));
    hd_slot_t *slot = hd_slot_find_or_add(outer->arena, HD_RES_ROUTES, name, err);
    hd_routes_t *routes;
    hd_vhost_t *vhosts;
    hd_conf_t cf;
    hd_rc_t rc;

    if (slot == NULL || hd_http_begin(b, outer, HD_RES_ROUTES, name, &cf, err) != HD_OK)
        return HD_ERROR;
    routes = hd_pool_new(cf.pool, hd_routes_t);
    if (hd_conf_make_maps(&cf, b->node, &routes->maps, err) != HD_OK)
        return HD_ERROR;
    vhosts = hd_pool_new_n(cf.pool, hd_vhost_t, a->servers.n);
    for (size_t i = 0; i < a->servers.n; i++) {
        hd_conf_server_t *s = *hd_array_at(&a->servers, hd_conf_server_t *, i);

        if (make_vhost(b, &cf, s, &vhosts[i], err) != HD_OK)
            return HD_ERROR;
        if (s == a->first)
            routes->default_vhost = &vhosts[i];
    }
    routes->name = hd_str_dup(cf.pool, name);
    routes->vhosts = vhosts;
    routes->vhosts_n = (uint32_t)a->servers.n;
    routes->ignore_port = true;
    if (hd_routes_index(cf.pool, routes, true, err) != HD_OK)
        return HD_ERROR;
    a->routes = slot;
    rc = hd_batch_put(cf.batch, slot, cf.region, routes, HD_CONTENT_BUILT, err);
    return rc == HD_DONE ? HD_OK : rc;
}

hd_rc_t hd_http_build_tables(hd_http_build_t *b, hd_conf_t *cf, hd_err_t *err)
{
    for (size_t i = 0; i < b->addresses.n; i++) {
        hd_conf_address_t *a = hd_array_at(&b->addresses, hd_conf_address_t, i);

        warn_of_conflicts(cf, a);
        for (size_t k = 0; k < i && a->routes == NULL; k++) {
            hd_conf_address_t *before = hd_array_at(&b->addresses, hd_conf_address_t, k);

            if (are_same_servers(a, before))
                a->routes = before->routes;
        }
        if (a->routes == NULL && put_table(b, cf, a, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

/* --- listeners --- */

#define WEFT "\015" HD_WEFT_ALPN /* another Heddle, over mutual TLS, is heard first */

static hd_str_t alpn_of(bool is_http2, bool is_mutual)
{
    if (is_mutual)
        return is_http2 ? HD_STR(WEFT "\x02h2\x08http/1.1") : HD_STR(WEFT "\x08http/1.1");
    return is_http2 ? HD_STR("\x02h2\x08http/1.1") : HD_STR("\x08http/1.1");
}

static hd_rc_t fill_http(hd_conf_t *cf, const hd_conf_address_t *a, bool is_http2,
                         hd_http_conf_t *http, hd_err_t *err)
{
    for (size_t i = 0; i < a->servers.n && a->listen.is_ssl; i++)
        if ((*hd_array_at(&a->servers, hd_conf_server_t *, i))->verifies)
            http->tls_checks = HD_HTTP_TLS_CLIENT;
    http->codec = is_http2 ? HD_CODEC_AUTO : HD_CODEC_HTTP1;
    http->routes = a->routes;
    http->loc = hd_http_core_loc(cf);
    http->upgrade_websocket = true;
    http->normalize_path = true;
    http->merge_slashes = http->loc->merge_slashes;
    hd_http_core_fill(cf, http);
    hd_http2_fill(cf, http);
    if (hd_http_make_filters(cf, HD_FILTERS_LOG, NULL, &http->logs, &http->logs_n, err) !=
        HD_OK)
        return HD_ERROR;
    return hd_http_make_filters(cf, HD_FILTERS_POST_READ, NULL, &http->filters,
                                &http->filters_n, err);
}

/* The chain of one server on an address; <is_first>: of the default one. */
static hd_rc_t make_chain(hd_http_build_t *b, hd_conf_t *cf, const hd_conf_address_t *a,
                          hd_conf_server_t *s, hd_filter_chain_t *chain, hd_err_t *err)
{
    hd_place_t place = {.kind = HD_PLACE_SERVER};
    hd_http_conf_t *http = hd_pool_new(cf->pool, hd_http_conf_t);
    bool is_http2 = a->listen.is_http2 || s->is_http2;
    hd_conf_t at;
    hd_rc_t rc;

    b->is_sketch = true; /* no locations here */
    rc = hd_http_enter(cf, s->node, &place, HD_IN_SERVER, &at, err);
    b->is_sketch = false;
    if (rc != HD_OK)
        return HD_ERROR;
    *chain = (hd_filter_chain_t){
        .name = hd_str_dup(cf->pool, *hd_array_at(&s->names, hd_str_t, 0)),
        .protocol = hd_http_protocol(),
        .protocol_conf = http,
        .handshake_timeout_ms = 60000, /* nginx: client_header_timeout covers it */
    };
    if (a->listen.is_ssl &&
        hd_conf_ssl_server(&at, alpn_of(is_http2, hd_conf_ssl_verifies(&at)), &chain->tls,
                           err) != HD_OK)
        return hd_conf_blame(cf, hd_conf_find(s->node, HD_STR("ssl_certificate")), err);
    if (fill_http(&at, a, is_http2, http, err) != HD_OK)
        return hd_conf_blame(cf, s->node, err);
    if (chain->tls != NULL && chain->tls->early_data)
        http->tls_checks |= HD_HTTP_TLS_EARLY;
    chain->handshake_timeout_ms = (uint32_t)http->header_timeout_ms;
    return HD_OK;
}

/* The names of a server that a ClientHello can be matched with. */
static void match_names(hd_conf_t *cf, const hd_conf_server_t *s,
                        hd_filter_chain_t *chain)
{
    hd_str_t *names = hd_pool_new_n(cf->pool, hd_str_t, s->names.n);
    hd_match_t *regexes = hd_pool_new_n(cf->pool, hd_match_t, s->names.n);
    uint32_t n = 0, regexes_n = 0;

    for (size_t i = 0; i < s->names.n; i++) {
        hd_str_t name = *hd_array_at(&s->names, hd_str_t, i);

        if (name.len == 0)
            continue;
        if (name.data[0] == '~')
            regexes[regexes_n++] =
                (hd_match_t){.kind = HD_MATCH_REGEX,
                             .part = true,
                             .ignore_case = true,
                             .text = hd_str_dup(cf->pool, hd_str_sub(name, 1, name.len))};
        else
            names[n++] = hd_str_dup(cf->pool, name);
    }
    chain->match.server_names = names;
    chain->match.server_names_n = n;
    chain->match.server_regexes = regexes;
    chain->match.server_regexes_n = regexes_n;
}

/* Who speaks plain HTTP to an ssl address is told so (497), as by nginx. */
static void make_plain_chain(hd_conf_t *cf, const hd_filter_chain_t *first,
                             hd_filter_chain_t *chain)
{
    hd_http_conf_t *http = hd_pool_new(cf->pool, hd_http_conf_t);

    *http = *(const hd_http_conf_t *)first->protocol_conf;
    http->codec = HD_CODEC_HTTP1;
    http->tls_checks = HD_HTTP_TLS_MISSING;
    *chain =
        (hd_filter_chain_t){.name = hd_str_dup(cf->pool, HD_STR("plain HTTP")),
                            .match.transport = hd_str_dup(cf->pool, HD_STR("raw_buffer")),
                            .protocol = first->protocol,
                            .protocol_conf = http,
                            .handshake_timeout_ms = first->handshake_timeout_ms};
}

/* A server of an ssl address that isn't the default one gets a chain if its settings
 * differ from the default's. */
static hd_rc_t make_chains(hd_http_build_t *b, hd_conf_t *cf, const hd_conf_address_t *a,
                           hd_listener_t *l, hd_err_t *err)
{
    hd_filter_chain_t *chains =
        hd_pool_new_n(cf->pool, hd_filter_chain_t, a->servers.n + 1);
    hd_filter_chain_t *first = hd_pool_new(cf->pool, hd_filter_chain_t);
    uint32_t n = 0, differ = 0;

    if (make_chain(b, cf, a, a->first, first, err) != HD_OK)
        return HD_ERROR;
    l->default_chain = first;
    l->error_log = ((const hd_http_conf_t *)first->protocol_conf)->loc->error_log;
    if (!a->listen.is_ssl)
        return HD_OK;
    if (first->tls == NULL) {
        hd_ignore(hd_err_set(err, HD_E_CONF,
                             "no \"ssl_certificate\" is defined for the \"listen … ssl\" "
                             "directive in %.*s:%u",
                             HD_STR_ARG(a->listen.node->file), a->listen.node->line));
        return hd_conf_blame(cf, a->first->node, err);
    }
    for (size_t i = 0; i < a->servers.n; i++) {
        hd_conf_server_t *s = *hd_array_at(&a->servers, hd_conf_server_t *, i);

        if (!s->has_cert)
            continue; /* the default's */
        if (make_chain(b, cf, a, s, &chains[n], err) != HD_OK)
            return HD_ERROR;
        match_names(cf, s, &chains[n]);
        differ += chains[n].tls->hash != first->tls->hash;
        n += chains[n].match.server_names_n + chains[n].match.server_regexes_n > 0;
    }
    if (differ == 0)
        n = 0; /* any chain is the default one */
    make_plain_chain(cf, first, &chains[n++]);
    l->filters |= HD_LF_TLS_INSPECTOR;
    l->filters_timeout_ms = first->handshake_timeout_ms;
    l->continue_on_timeout = false;
    l->chains = chains;
    l->chains_n = n;
    return HD_OK;
}

/* Is <b> reached through the socket of <a>, a wildcard address of its port? */
static bool covers(const hd_conf_listen_t *a, const hd_conf_listen_t *b)
{
    const hd_addr_t *any = &a->socket.bind, *addr = &b->socket.bind;

    if (a == b || any->family == AF_UNIX || addr->family == AF_UNIX ||
        any->port != addr->port || !hd_addr_is_any(any))
        return false;
    return any->family == addr->family ? !hd_addr_is_any(addr)
                                       : any->family == AF_INET6 && !a->socket.v6only;
}

/* nginx binds a wildcard address once, and tells by a connection's own address which of
 * the others of that port is meant. */
static void share_socket(const hd_http_build_t *b, const hd_conf_address_t *own,
                         hd_listener_t *l)
{
    l->bind = true;
    for (size_t i = 0; i < b->addresses.n; i++) {
        const hd_conf_listen_t *other =
            &hd_array_at(&b->addresses, hd_conf_address_t, i)->listen;

        if (covers(other, &own->listen))
            l->bind = false;
        l->hands_over_local |= covers(&own->listen, other);
    }
}

static hd_rc_t put_listener(hd_http_build_t *b, hd_conf_t *outer, hd_conf_address_t *a,
                            hd_err_t *err)
{
    hd_str_t name = a->listen.name;
    hd_slot_t *slot = hd_slot_find_or_add(outer->arena, HD_RES_LISTENER, name, err);
    hd_listener_t *l;
    hd_conf_t cf;
    hd_rc_t rc;

    if (slot == NULL)
        return HD_ERROR;
    if (hd_batch_has(outer->batch, HD_RES_LISTENER, name)) {
        hd_ignore(hd_err_set(err, HD_E_CONF,
                             "a duplicate listen %.*s: stream or another "
                             "http block has it",
                             HD_STR_ARG(name)));
        return hd_conf_blame(outer, a->listen.node, err);
    }
    if (hd_http_begin(b, outer, HD_RES_LISTENER, name, &cf, err) != HD_OK)
        return HD_ERROR;
    l = hd_pool_new(cf.pool, hd_listener_t);
    l->name = hd_str_dup(cf.pool, name);
    l->region = cf.region;
    l->socket = a->listen.socket;
    if (l->socket.bind.family == AF_UNIX)
        l->socket.bind.path = hd_str_dup(cf.pool, l->socket.bind.path);
    l->addr = l->socket.bind;
    share_socket(b, a, l);
    if (a->listen.proxy_protocol)
        l->filters |= HD_LF_PROXY_PROTOCOL;
    if (a->listen.original_dst)
        l->filters |= HD_LF_ORIGINAL_DST;
    if (make_chains(b, &cf, a, l, err) != HD_OK)
        return HD_ERROR;
    if (l->filters_timeout_ms == 0 && l->default_chain != NULL)
        l->filters_timeout_ms = l->default_chain->handshake_timeout_ms;
    cf.node = a->listen.node;
    if (l->bind && hd_build_need_listen(&cf, &l->socket, err) != HD_OK)
        return hd_conf_blame(outer, a->listen.node, err);
    rc = hd_batch_put(cf.batch, slot, cf.region, l, HD_CONTENT_BUILT, err);
    return rc == HD_DONE ? HD_OK : rc;
}

hd_rc_t hd_http_build_listeners(hd_http_build_t *b, hd_conf_t *cf, hd_err_t *err)
{
    for (size_t i = 0; i < b->addresses.n; i++) {
        if (put_listener(b, cf, hd_array_at(&b->addresses, hd_conf_address_t, i), err) !=
            HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}
