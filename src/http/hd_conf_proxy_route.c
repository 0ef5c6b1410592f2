/* What proxy_… directives have set, as a route's action. */
#include "http/hd_conf_proxy_int.h"
#include "core/conf/hd_conf_resolver.h"
#include "core/conf/hd_conf_ssl.h"
#include "http/hd_proxy_int.h"

#define BUFFER_BYTES (8 * 4096)               /* nginx's default: 8 of a page */
#define TEMP_FILE_MAX (1024ull * 1024 * 1024) /* the same */
#define TRIES_MAX 64 /* where nginx has no limit but the number of servers */

static const hd_conf_proxy_t *conf_of(const hd_conf_t *cf)
{
    return hd_http_look(cf, &hd_proxy_module);
}

/* Client's fields that take the connection's side only never pass; the rest of nginx's
 * defaults (Host $proxy_host) is proxy->host. */
static void put_request_ops(hd_conf_t *cf, const hd_conf_proxy_t *pc,
                            hd_weighted_t *target)
{
    hd_header_op_conf_t *ops;

    if (pc->set_headers_n == 0)
        return;
    ops = hd_pool_new_n(cf->pool, hd_header_op_conf_t, pc->set_headers_n);
    for (uint32_t i = 0; i < pc->set_headers_n; i++)
        ops[i] = (hd_header_op_conf_t){.name = pc->set_headers[i].name,
                                       .value = pc->set_headers[i].value,
                                       .how = HD_HOP_SET};
    target->request_ops = ops;
    target->request_ops_n = pc->set_headers_n;
}

static bool has_name(const hd_str_t *list, uint32_t n, hd_str_t name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq_nocase(list[i], name))
            return true;
    }
    return false;
}

static void put_response_ops(hd_conf_t *cf, const hd_conf_proxy_t *pc, hd_route_t *route)
{
    uint32_t n = pc->hidden_n + route->response_ops_n, at = 0;
    hd_header_op_conf_t *ops;

    if (pc->hidden_n == 0)
        return;
    /* what is hidden goes before add_header adds */
    ops = hd_pool_new_n(cf->pool, hd_header_op_conf_t, n);
    for (uint32_t i = 0; i < pc->hidden_n; i++) {
        if (!has_name(pc->passed, pc->passed_n, pc->hidden[i]))
            ops[at++] = (hd_header_op_conf_t){
                .name = pc->hidden[i], .how = HD_HOP_REMOVE, .always = true};
    }
    for (uint32_t i = 0; i < route->response_ops_n; i++)
        ops[at++] = route->response_ops[i];
    route->response_ops = ops;
    route->response_ops_n = at;
}

static uint32_t time_or(uint64_t ms, uint32_t otherwise)
{
    return ms == 0 ? otherwise : (uint32_t)hd_min(ms, UINT32_MAX);
}

static hd_str_t without_port(hd_str_t host_port)
{
    ssize_t colon = hd_str_find_char(host_port, ':');

    if (host_port.len > 0 && host_port.data[0] == '[') {
        ssize_t end = hd_str_find_char(host_port, ']');

        return end < 0 ? host_port : hd_str_sub(host_port, 0, (size_t)end + 1);
    }
    return colon < 0 ? host_port : hd_str_sub(host_port, 0, (size_t)colon);
}

/* nginx: Location: <what proxy_pass names> becomes <the location>. */
static void put_default_redirect(hd_conf_t *cf, const hd_conf_proxy_t *pc,
                                 const hd_route_t *route, hd_proxy_filter_t *f)
{
    if (pc->no_redirect || pc->is_variable)
        return;
    f->usual_from = hd_str_printf(
        cf->pool, "%s%.*s%.*s", pc->is_https ? "https://" : "http://",
        HD_STR_ARG(pc->host_port), HD_STR_ARG(pc->has_uri ? pc->uri : HD_STR("/")));
    f->usual_to =
        pc->has_uri ? route->name : hd_str_sub(f->usual_from, f->usual_from.len - 1, 1);
}

static hd_rc_t put_tls(hd_conf_t *cf, const hd_conf_proxy_t *pc, hd_proxy_conf_t *proxy,
                       hd_err_t *err)
{
    bool is_h2 = pc->version == HD_UP_HTTP2;

    if (!pc->is_https && !pc->has_scheme_var)
        return HD_OK;
    proxy->tls_by_server = hd_conf_ssl_is_by_server(cf);
    if (pc->any != NULL || proxy->tls_by_server)
        proxy->tls_by_host = hd_conf_ssl_is_by_host(cf, &proxy->sni_by_host);
    if (hd_conf_ssl_name(cf, &proxy->tls_name, &proxy->sni_by_host, err) != HD_OK)
        return HD_ERROR;
    return hd_conf_ssl_upstream(
        cf, pc->any != NULL ? HD_STR_NONE : without_port(pc->host_port),
        is_h2 ? HD_STR("\x02h2") : HD_STR_NONE, &proxy->tls, err);
}

bool hd_http_proxy_passes(const void *conf, const hd_place_t *place)
{
    return hd_http_is_of(place, ((const hd_conf_proxy_t *)conf)->pass_of);
}

hd_rc_t hd_http_proxy_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                            hd_err_t *err)
{
    hd_conf_proxy_t *pc;
    hd_proxy_conf_t *proxy;
    hd_proxy_filter_t *filter;
    hd_weighted_t *target;

    if (!hd_http_proxy_passes(conf_of(cf), place))
        return HD_DECLINED;
    pc = hd_conf_of(cf, &hd_proxy_module);
    proxy = hd_pool_new(cf->pool, hd_proxy_conf_t);
    target = hd_pool_new(cf->pool, hd_weighted_t);
    put_request_ops(cf, pc, target);
    *proxy = (hd_proxy_conf_t){
        .targets = target,
        .targets_n = 1,
        .weights_total = 1,
        .protocol = pc->version == HD_UP_HTTP2 ? HD_UP_HTTP2 : HD_UP_HTTP1,
        .is_high = pc->is_high != 0,
        .has_protocol = true,
        .uri = pc->is_variable ? pc->url : NULL,
        .has_uri = pc->has_uri && !pc->is_variable,
        .uri_prefix = pc->uri,
        .any = pc->any,
        .resolver = pc->any != NULL ? hd_conf_resolver(cf) : NULL,
        .is_https = pc->is_https,
        .has_scheme_var = pc->has_scheme_var,
        .connect_timeout_ms = time_or(pc->connect_timeout_ms, 60000),
        .send_timeout_ms = time_or(pc->send_timeout_ms, 60000),
        .read_timeout_ms = time_or(pc->read_timeout_ms, 60000),
        .buffer_request = !pc->no_request_buffering,
        .buffer_response = !pc->no_buffering,
        .tries_max = pc->filter.tries > 0 ? pc->filter.tries : TRIES_MAX,
        .pass_errors = !pc->intercepts,
        .no_multiplex = pc->no_multiplex,
        .ignore_client_abort = pc->ignore_client_abort,
        .no_cluster_status = 502,
        .method = pc->method,
        .body = pc->body,
        .bind = pc->bind,
        .bind_transparent = pc->bind_transparent,
        .binds_each = pc->binds_each,
        .allow = pc->allow,
        .socket_keepalive = pc->socket_keepalive,
        .drops_trailers = pc->drops_trailers,
        .force_ranges = pc->force_ranges,
        .limit_rate = pc->limit_rate,
        .no_request_headers = pc->drops_headers,
        .no_request_body = pc->drops_body,
        .is_http10 = pc->version == HD_CONF_PROXY_HTTP10,
        .ignores = pc->ignores,
        .head_bytes_max = (uint32_t)hd_min(pc->head_bytes, (uint64_t)HD_WEFT_HEAD_BYTES),
        .buffer_bytes = pc->buffer_bytes > 0 ? (size_t)pc->buffer_bytes : BUFFER_BYTES,
        .temp_write_bytes = (size_t)hd_min(
            pc->temp_write_bytes > 0 ? pc->temp_write_bytes : HD_BLOCK_BYTES,
            pc->buffer_bytes > 0 ? pc->buffer_bytes : BUFFER_BYTES),
        .temp_file_max =
            pc->temp_max_plus_1 > 0 ? pc->temp_max_plus_1 - 1 : TEMP_FILE_MAX,
        .temp_path = pc->temp_path,
    };
    target->cluster = pc->cluster;
    target->cluster_name = pc->host_port;
    target->weight = 1;
    if (pc->cluster != NULL)
        proxy->host = hd_str_has_prefix(pc->host_port, HD_STR("unix:")) ? HD_STR_NONE
                                                                        : pc->host_port;
    else
        proxy->host_is_upstreams = true;
    if (pc->cluster != NULL && proxy->host.len == 0)
        proxy->host = hd_str_dup(cf->pool, HD_STR("localhost")); /* as nginx says */
    if (pc->filter.next == 0)
        pc->filter.next = HD_NEXT_ERROR | HD_NEXT_TIMEOUT;
    proxy->pass_server = has_name(pc->passed, pc->passed_n, HD_STR("Server"));
    for (uint32_t i = 0; i < pc->passed_n; i++)
        proxy->passes |= hd_proxy_accel_bit(pc->passed[i]);
    proxy->pass_date = has_name(pc->passed, pc->passed_n, HD_STR("Date"));
    if (put_tls(cf, pc, proxy, err) != HD_OK)
        return hd_conf_blame(cf, hd_conf_find(place->node, HD_STR("proxy_pass")), err);
    put_response_ops(cf, pc, route);
    filter = hd_pool_new(cf->pool, hd_proxy_filter_t);
    *filter = pc->filter;
    put_default_redirect(cf, pc, route, filter);
    proxy->filter = filter;
    route->action = HD_ACT_PROXY;
    route->proxy = proxy;
    return HD_OK;
}
