/* What the upstream gets to see: path, host, fields; and which cluster it is. */
#include "core/base/hd_word.h"
#include "http/hd_proxy_int.h"
#include "core/base/hd_hashes.h"
#include "http/hd_action_tunnel.h"
#include "http/hd_http_xds.h"
#include "http/hd_uri.h"

#include <stdio.h>

static bool ends_target(unsigned char c)
{
    return c <= ' ' || c == 0x7f || c == '#';
}

/* What configuration wrote of variables (try_files … /index?q=$uri) may have decoded
 * bytes in it. */
static hd_str_t with_query(hd_req_t *req, hd_str_t path)
{
    hd_str_t query = hd_uri_escape_where(req->pool, req->head.query, ends_target);

    if (query.len == 0)
        return path;
    return hd_str_printf(req->pool, "%.*s?%.*s", HD_STR_ARG(path), HD_STR_ARG(query));
}

static hd_str_t concat(hd_pool_t *pool, hd_str_t a, hd_str_t b)
{
    char *text = hd_pool_alloc_unaligned(pool, a.len + b.len + 1);

    if (a.len > 0)
        memcpy(text, a.data, a.len);
    if (b.len > 0)
        memcpy(text + a.len, b.data, b.len);
    return hd_str_n(text, a.len + b.len);
}

static hd_str_t raw_path_only(const hd_req_t *req)
{
    ssize_t at = hd_str_find_char(req->head.raw_path, '?');

    return at < 0 ? req->head.raw_path : hd_str_sub(req->head.raw_path, 0, (size_t)at);
}

/* nginx: without a URI the client's own bytes pass; with one it replaces the matched
 * part of the normalised path, which is escaped again. */
static void set_path_nginx(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    const hd_proxy_conf_t *conf = p->conf;
    hd_str_t path = req->head.path;

    if (!conf->has_uri || req->leaves_location) {
        if (req->path_changed)
            req->up_path = with_query(req, hd_uri_escape(req->pool, path));
        return;
    }
    path = hd_str_sub(path, req->route->matched_prefix.len, path.len);
    path = concat(req->pool, conf->uri_prefix, hd_uri_escape(req->pool, path));
    req->up_path = with_query(req, path);
}

/* Envoy: rewriting works on the path as it is after normalisation. */
static hd_rc_t set_path_xds(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    const hd_proxy_conf_t *conf = p->conf;
    hd_str_t path = req->head.path.len > 0 ? req->head.path : raw_path_only(req);
    bool is_rewritten = false;

    if (conf->rewrite.text.len > 0) {
        if (hd_match_replace(req->member, req->routes_region, &conf->rewrite,
                             conf->rewrite_to, path, req->pool, &path) != HD_OK)
            return hd_req_err(req, HD_E_INTERNAL, "the path could not be rewritten");
        is_rewritten = true;
    } else if (conf->has_uri) {
        path = concat(req->pool, conf->uri_prefix,
                      hd_str_sub(path, req->route->matched_prefix.len, path.len));
        is_rewritten = true;
    }
    if (!is_rewritten)
        return HD_OK;
    if (!req->http->suppress_envoy_headers)
        hd_headers_set(&req->head.headers, HD_STR("x-envoy-original-path"),
                       req->head.raw_path);
    req->up_path = with_query(req, path);
    return HD_OK;
}

/* proxy_pass with variables: the URI as evaluated, if it has one. */
static hd_rc_t set_path_expr(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    hd_str_t uri;
    ssize_t at;

    if (hd_expr_eval(p->conf->uri, req, &uri) != HD_OK)
        return hd_req_err(req, HD_E_INTERNAL, "no value for proxy_pass");
    at = hd_str_find(uri, HD_STR("://"));
    if (at >= 0)
        uri = hd_str_sub(uri, (size_t)at + 3, uri.len);
    at = hd_str_find_char(uri, '/');
    if (at < 0) {
        set_path_nginx(p);
        return HD_OK;
    }
    uri = hd_str_sub(uri, (size_t)at, uri.len);
    req->up_path = hd_uri_escape_where(req->pool, uri, ends_target);
    return HD_OK;
}

static hd_rc_t set_path(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (req->up_path.len > 0) /* a filter has set it */
        return HD_OK;
    if (p->conf->uri != NULL)
        return set_path_expr(p);
    if (req->http == NULL)
        return HD_OK;
    if (req->http->is_xds)
        return set_path_xds(p);
    set_path_nginx(p);
    return HD_OK;
}

static hd_rc_t set_host_by(hd_proxy_t *p, const hd_host_rewrite_t *by)
{
    hd_req_t *req = p->req;
    hd_str_t host;

    if (by->header.len > 0)
        host = hd_req_header(req, by->header, NULL);
    else if (hd_match_replace(req->member, req->routes_region, &by->path, by->path_to,
                              raw_path_only(req), req->pool, &host) != HD_OK)
        return hd_req_err(req, HD_E_INTERNAL, "the path could not be made a host");
    if (host.len > 0)
        hd_http_xds_set_host(req, p->conf, host);
    return HD_OK;
}

static hd_rc_t set_host(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (req->up_host.len > 0) /* a filter has set it */
        return HD_OK;
    if (hd_unlikely(p->conf->host_by != NULL))
        return set_host_by(p, p->conf->host_by);
    if (p->conf->host.len > 0) {
        if (req->http != NULL && req->http->is_xds)
            hd_http_xds_set_host(req, p->conf, p->conf->host);
        else
            req->up_host = p->conf->host;
    } else if (p->conf->host_is_upstreams && (req->http == NULL || !req->http->is_xds)) {
        req->up_host = p->cluster_name;
    }
    return HD_OK;
}

/* What <list> says of <type>, in *is_on; false: nothing. */
static bool find_upgrade(const hd_upgrades_t *list, hd_str_t type, bool *is_on)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (hd_str_eq_nocase(list->items[i].type, type)) {
            *is_on = list->items[i].is_on;
            return true;
        }
    }
    return false;
}

static hd_rc_t check_upgrade(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    bool is_connect = req->head.method_id == HD_M_CONNECT, is_on = false;
    hd_str_t type = is_connect ? HD_STR("CONNECT") : req->head.protocol;

    if ((!req->head.is_upgrade && !is_connect) || p->conf->allow_upgrade ||
        req->wants_upgrade || req->http == NULL || hd_action_is_tunnel(req))
        return HD_OK;
    if (!req->http->is_xds) {
        req->head.is_upgrade = false; /* nginx: an ordinary request then */
        return HD_OK;
    }
    if (!find_upgrade(&p->conf->upgrades, type, &is_on))
        (void)find_upgrade(&req->http->upgrades, type, &is_on);
    return is_on ? HD_OK
                 : hd_req_fail(req, 403, HD_E_DENIED, "upgrade to %.*s is not allowed",
                               HD_STR_ARG(type));
}

hd_rc_t hd_proxy_eval_bind(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    hd_str_t value;

    p->bind = (hd_addr_t){.family = AF_UNSPEC};
    if (hd_expr_eval(p->conf->bind, req, &value) != HD_OK)
        return hd_req_err(req, HD_E_INTERNAL, "no value for proxy_bind");
    if (value.len > 0 && hd_addr_parse(req->pool, value, 0, &p->bind, NULL) != HD_OK)
        return hd_req_err(req, HD_E_INTERNAL, "proxy_bind: \"%.*s\" is no address",
                          HD_STR_ARG(value));
    return HD_OK;
}

/* What configuration says instead of the client: method, source address, body. */
static hd_rc_t set_own(hd_proxy_t *p)
{
    const hd_proxy_conf_t *conf = p->conf;
    hd_req_t *req = p->req;
    hd_str_t value;

    if (conf->method != NULL) {
        if (hd_expr_eval(conf->method, req, &value) != HD_OK ||
            !hd_http_is_field_name(value))
            return hd_req_err(req, HD_E_INTERNAL, "proxy_method: not a method");
        req->up_method = value;
    }
    if (conf->bind != NULL && !conf->binds_each && hd_proxy_eval_bind(p) != HD_OK)
        return HD_ERROR;
    if (conf->body == NULL)
        return HD_OK;
    if (hd_expr_eval(conf->body, req, &value) != HD_OK ||
        (value.len > 0 && !hd_chain_try_add_copy(&p->replay, value.data, value.len)))
        return hd_req_err(req, HD_E_INTERNAL, "no value for proxy_set_body");
    hd_chain_set_flags(&p->replay, HD_SLICE_END);
    p->length = (int64_t)value.len;
    p->has_body = true;
    return HD_OK;
}

/* ends_target of none of eight bytes. */
static bool is_clean_word(uint64_t w)
{
    uint64_t hash = w ^ HD_WORD_ONES * '#', del = w ^ HD_WORD_ONES * 0x7f;
    uint64_t hits = ((w - HD_WORD_ONES * (' ' + 1)) & ~w) |
                    ((hash - HD_WORD_ONES) & ~hash) | ((del - HD_WORD_ONES) & ~del);

    return (hits & HD_WORD_HIGHS) == 0;
}

static bool is_clean(hd_str_t s)
{
    if (s.len < 4) {
        for (size_t i = 0; i < s.len; i++) {
            if (ends_target((unsigned char)s.data[i]))
                return false;
        }
        return true;
    }
    for (size_t i = 0; i + 8 < s.len; i += 8) {
        if (!is_clean_word(hd_word_load(s.data + i)))
            return false;
    }
    return is_clean_word(s.len < 8 ? hd_word_load_short(s.data, s.len)
                                   : hd_word_load(s.data + s.len - 8));
}

/* Path and Host as variables, scripts and control planes have made them, or the request
 * that a subrequest comes of: neither may be a line of its own. */
static hd_rc_t check_target(hd_req_t *req)
{
    if (req->up_path.len > 0 || req->is_sub) {
        hd_str_t path = hd_req_up_path(req);

        if (path.len == 0 || path.data[0] != '/' || !is_clean(path))
            return hd_req_err(req, HD_E_INTERNAL, "not a path for the upstream");
    }
    return is_clean(req->up_host)
               ? HD_OK
               : hd_req_err(req, HD_E_INTERNAL, "not a Host for the upstream");
}

hd_rc_t hd_proxy_prepare(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (set_host(p) != HD_OK || set_path(p) != HD_OK || set_own(p) != HD_OK)
        return HD_ERROR;
    if (hd_unlikely(p->conf->no_request_headers)) {
        hd_header_ops_keep_received(req);
        for (unsigned i = 0; i < req->head.headers.n; i++)
            req->head.headers.fields[i].flags |= HD_FIELD_REMOVED;
    }
    if (hd_unlikely(p->drops_body)) { /* it says of another body */
        hd_header_ops_keep_received(req);
        hd_headers_remove_id(&req->head.headers, HD_H_CONTENT_LENGTH);
    }
    hd_header_ops_request(req);
    /* 100 (Continue) is between the client and us */
    if (hd_headers_get(&req->head.headers, HD_H_EXPECT) != NULL)
        hd_headers_remove_id(&req->head.headers, HD_H_EXPECT);
    return check_target(req) == HD_OK ? check_upgrade(p) : HD_ERROR;
}

/* The host part of an evaluated proxy_pass. */
static hd_str_t host_of_uri(hd_str_t uri)
{
    ssize_t at = hd_str_find(uri, HD_STR("://"));

    if (at >= 0)
        uri = hd_str_sub(uri, (size_t)at + 3, uri.len);
    at = hd_str_find_char(uri, '/');
    return at < 0 ? uri : hd_str_sub(uri, 0, (size_t)at);
}

/* A host that is no cluster's name: an address, or a name to be looked up. */
static hd_rc_t find_address(hd_proxy_t *p)
{
    const hd_proxy_conf_t *conf = p->conf;
    hd_req_t *req = p->req;
    hd_str_t text = p->cluster_name, host;
    const hd_addr_t *addrs;
    hd_err_t err = {0};
    hd_addr_t addr;
    uint32_t n = 1;
    uint16_t port = 0, default_port = hd_action_is_tunnel(req) ? 0
                                      : p->is_https            ? 443
                                                               : 80;
    hd_rc_t rc;

    if (hd_addr_parse(req->pool, text, default_port, &addr, NULL) == HD_OK) {
        addrs = &addr;
        port = addr.port;
        if (port == 0 && addr.family != AF_UNIX)
            return hd_req_err(req, HD_E_NO_CLUSTER, "no port in upstream \"%.*s\"",
                              HD_STR_ARG(text));
    } else if (!hd_resolve_split(text, default_port, &host, &port)) {
        return hd_req_err(req, HD_E_NO_CLUSTER, "invalid host in upstream \"%.*s\"",
                          HD_STR_ARG(text));
    } else if (conf->resolver == NULL || hd_resolving == NULL) {
        return hd_req_err(req, HD_E_NO_CLUSTER, "no resolver defined to resolve %.*s",
                          HD_STR_ARG(host));
    } else {
        rc = hd_resolving->find(req->loop, conf->resolver, host, &p->wait, &req->wake,
                                &addrs, &n, &err);
        if (rc != HD_OK)
            return rc == HD_AGAIN ? rc : hd_req_err(req, err.code, "%s", err.text);
    }
    p->addrs = hd_resolve_take(req->pool, addrs, n, port);
    p->addrs_n = n;
    p->cluster = conf->any;
    return HD_OK;
}

/* Where servers are names that nobody has asked for yet, there may soon be some. */
static hd_rc_t wait_for_servers(hd_proxy_t *p)
{
    const hd_region_t *r = hd_slot_get(p->req->member, p->cluster);
    const hd_cluster_t *c = r != NULL ? r->root : NULL;

    return hd_likely(c == NULL || c->resolved.len == 0)
               ? HD_OK
               : hd_resolving->wait_for(p->req->loop, c, &p->wait, &p->req->wake);
}

static hd_rc_t read_scheme(hd_proxy_t *p, hd_str_t uri)
{
    p->is_https = p->conf->is_https;
    if (!p->conf->has_scheme_var)
        return HD_OK;
    p->is_https = hd_str_has_prefix_nocase(uri, HD_STR("https://"));
    return p->is_https || hd_str_has_prefix_nocase(uri, HD_STR("http://"))
               ? HD_OK
               : hd_req_err(p->req, HD_E_NO_CLUSTER, "invalid URL prefix in \"%.*s\"",
                            HD_STR_ARG(uri));
}

/* What variables or a header name. */
static hd_rc_t find_named(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    const hd_expr_t *expr = p->conf->cluster_expr;
    hd_str_t name;

    if (expr == NULL)
        expr = p->conf->uri;
    if (expr == NULL)
        return hd_req_err(req, HD_E_NO_CLUSTER, "the route names no cluster");
    if (hd_expr_eval(expr, req, &name) != HD_OK)
        return hd_req_err(req, HD_E_NO_CLUSTER, "no value for the cluster's name");
    if (p->conf->cluster_expr == NULL && read_scheme(p, name) != HD_OK)
        return HD_ERROR;
    if (p->conf->cluster_expr == NULL)
        name = host_of_uri(name);
    if (name.len > 0)
        p->cluster = hd_slot_find(req->member, NULL, HD_RES_CLUSTER, name);
    if (p->cluster != NULL) {
        hd_slot_hold(req->member, p->cluster);
        p->named = p->cluster;
    }
    if (p->cluster == NULL && (name.len == 0 || p->conf->any == NULL))
        return hd_req_err(req, HD_E_NO_CLUSTER, "no cluster \"%.*s\"", HD_STR_ARG(name));
    p->cluster_name = hd_str_dup(req->pool, name);
    return HD_OK;
}

hd_rc_t hd_proxy_find_cluster(hd_proxy_t *p)
{
    const hd_weighted_t *target = p->req->target;

    if (p->cluster_name.len > 0) {
        /* it was looked up, and waits for what it named */
    } else if (target != NULL && target->cluster != NULL) {
        p->cluster = target->cluster;
        p->cluster_name = target->cluster_name;
    } else if (find_named(p) != HD_OK) {
        return HD_ERROR;
    }
    return p->cluster == NULL ? find_address(p) : wait_for_servers(p);
}

/* --- consistent hashing --- */

/* The same for all requests of a conn, so that those that race get the same one; as Envoy
 * makes it. */
static hd_str_t make_cookie(hd_proxy_t *p, const hd_hash_policy_t *h)
{
    hd_req_t *req = p->req;
    char room[2][HD_ADDR_TEXT_MAX], age[40] = "";
    hd_set_cookie_t *cookie = hd_pool_new(req->pool, hd_set_cookie_t);
    hd_str_t value, remote = HD_STR_NONE, local = HD_STR_NONE;

    if (req->conn != NULL) {
        remote = hd_addr_print(hd_conn_remote(req->conn), room[0]);
        local = hd_addr_print(hd_conn_local(req->conn), room[1]);
    }
    value = hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(remote), HD_STR_ARG(local));
    value = hd_str_printf(req->pool, "%016llx",
                          (unsigned long long)hd_xxh64(value.data, value.len, 0));
    if (h->cookie_ttl_s > 0)
        snprintf(age, sizeof(age), "; Max-Age=%llu", (unsigned long long)h->cookie_ttl_s);
    cookie->value = hd_str_printf(
        req->pool, "%.*s=\"%.*s\"%s%s%.*s%.*s; HttpOnly", HD_STR_ARG(h->cookie),
        HD_STR_ARG(value), age, h->cookie_path.len > 0 ? "; Path=" : "",
        HD_STR_ARG(h->cookie_path), HD_STR_ARG(h->cookie_attributes));
    cookie->next = p->cookies;
    p->cookies = cookie;
    return value;
}

static bool cookie_for(hd_proxy_t *p, const hd_hash_policy_t *h, hd_str_t *value)
{
    if (hd_uri_find_cookie(p->req, h->cookie, false, value) && value->len > 0)
        return true;
    if (!h->makes_cookie)
        return false;
    *value = make_cookie(p, h);
    return true;
}

static bool header_for(hd_req_t *req, const hd_hash_policy_t *h, hd_str_t *value)
{
    bool found = false;

    *value = hd_req_header_joined(req, h->header, &found);
    if (found && h->rewrite.text.len > 0 &&
        hd_match_replace(req->member, req->routes_region, &h->rewrite, h->rewrite_to,
                         *value, req->pool, value) != HD_OK)
        return false;
    return found;
}

static bool value_for(hd_proxy_t *p, const hd_hash_policy_t *h, hd_str_t *value)
{
    hd_req_t *req = p->req;
    char *text;

    if (h->header.len > 0)
        return header_for(req, h, value);
    if (h->cookie.len > 0)
        return cookie_for(p, h, value);
    if (h->query.len > 0)
        return hd_uri_find_arg(req->head.query, h->query, value);
    if (h->source_ip && req->conn != NULL) {
        const hd_addr_t *a = hd_request_peer(req);

        if (a->family != AF_INET && a->family != AF_INET6)
            return false;
        text = hd_pool_alloc(req->pool, HD_ADDR_TEXT_MAX);
        *value = hd_addr_print_ip(a, text);
        return true;
    }
    return false;
}

/* Envoy combines what it finds in this way; a terminal policy that found something ends
 * the list. */
void hd_proxy_hash(hd_proxy_t *p)
{
    for (uint32_t i = 0; i < p->conf->hashes_n; i++) {
        const hd_hash_policy_t *h = &p->conf->hashes[i];
        hd_str_t value;

        if (value_for(p, h, &value)) {
            uint64_t v = hd_xxh64(value.data, value.len, 0);

            p->hash = p->has_hash ? ((p->hash << 1) | (p->hash >> 63)) ^ v : v;
            p->has_hash = true;
        }
        if (h->terminal && p->has_hash)
            break;
    }
}
