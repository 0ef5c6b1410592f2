/* Actions that need nobody: nginx's `return`, xDS direct responses and redirects. */
#include "http/hd_action_answer.h"
#include "http/hd_request_int.h"

static hd_rc_t eval_text(hd_req_t *req, hd_str_t *text)
{
    *text = HD_STR_NONE;
    if (req->route->text == NULL)
        return HD_OK;
    if (hd_expr_eval(req->route->text, req, text) != HD_OK)
        return hd_req_fail(req, 500, HD_E_INTERNAL, "no value for the answer's text");
    if (text->data == NULL)
        *text = HD_STR("");
    return HD_OK;
}

static hd_rc_t start_answer(hd_req_t *req)
{
    const hd_route_t *route = req->route;
    hd_str_t text, type;

    req->res.status = route->status; /* $status in the text */
    if (eval_text(req, &text) != HD_OK)
        return HD_ERROR;
    if (route->status == 444) /* nginx: close without an answer */
        return hd_req_abort(req, NULL);
    if (req->http != NULL && req->http->is_xds) {
        if (route->text == NULL)
            text = HD_STR("");
        hd_response_local(req, route->status, route->content_type, text, 0,
                          "direct_response");
        return HD_DONE;
    }
    type = route->content_type.len > 0 ? route->content_type
                                       : hd_http_type_of(req->loc, req->head.path);
    hd_response_local(req, route->status, type, text, 0, "direct_response");
    req->has_own_text = route->text != NULL;
    /* nginx names the type of an empty answer, too */
    if (route->status / 100 == 2 && route->status != 204 && text.len == 0 && type.len > 0)
        hd_headers_add_id(&req->res.headers, HD_H_CONTENT_TYPE, HD_STR("Content-Type"),
                          type);
    return HD_DONE;
}

/* "/path" becomes "scheme://host:port/path", the port being the listener's, as nginx
 * does. */
hd_str_t hd_http_absolute_url(hd_req_t *req, hd_str_t path)
{
    hd_str_t host = req->head.authority;
    bool is_tls = hd_str_eq(req->head.scheme, HD_STR("https"));
    uint16_t port = req->conn != NULL ? hd_conn_local(req->conn)->port : 0;
    ssize_t at;
    char local[HD_ADDR_TEXT_MAX];

    if (req->loc->relative_redirect)
        return path;
    if (req->loc->server_name_in_redirect && req->vhost != NULL &&
        req->vhost->name.len > 0)
        host = req->vhost->name;
    at = hd_str_find_char(host, ':');

    if (host.len == 0 && req->conn != NULL) {
        host = hd_addr_print_ip(hd_conn_local(req->conn), local);
        if (hd_conn_local(req->conn)->family == AF_INET6)
            host = hd_str_printf(req->pool, "[%.*s]", HD_STR_ARG(host));
        at = -1;
    }
    if (host.len > 0 && host.data[0] == '[') {
        ssize_t end = hd_str_find_char(host, ']');

        host = hd_str_sub(host, 0, end < 0 ? host.len : (size_t)end + 1);
    } else if (at >= 0) {
        host = hd_str_sub(host, 0, (size_t)at);
    }
    if (port == 0 || req->loc->no_port_in_redirect || port == (is_tls ? 443 : 80))
        return hd_str_printf(req->pool, "%.*s://%.*s%.*s", HD_STR_ARG(req->head.scheme),
                             HD_STR_ARG(host), HD_STR_ARG(path));
    return hd_str_printf(req->pool, "%.*s://%.*s:%u%.*s", HD_STR_ARG(req->head.scheme),
                         HD_STR_ARG(host), port, HD_STR_ARG(path));
}

/* The host of an authority, and its port with the colon. */
static void split_authority(hd_str_t authority, hd_str_t *host, hd_str_t *port)
{
    size_t at = authority.len;

    while (at > 0 && authority.data[at - 1] >= '0' && authority.data[at - 1] <= '9')
        at--;
    if (at > 0 && authority.data[at - 1] == ':') {
        *host = hd_str_sub(authority, 0, at - 1);
        *port = hd_str_sub(authority, at - 1, authority.len);
    } else {
        *host = authority;
        *port = HD_STR_NONE;
    }
}

static hd_str_t redirect_path(hd_req_t *req, const hd_redirect_t *to)
{
    hd_str_t path = req->head.raw_path, rest, query = HD_STR_NONE;
    ssize_t at = hd_str_find_char(path, '?');

    if (at >= 0) {
        query = hd_str_sub(path, (size_t)at, path.len);
        path = hd_str_sub(path, 0, (size_t)at);
    }
    if (to->strips_query)
        query = HD_STR_NONE;
    if (to->path.len > 0) {
        if (hd_str_find_char(to->path, '?') >= 0)
            query = HD_STR_NONE;
        path = to->path;
    } else if (to->rewrite.text.len > 0) {
        if (hd_match_replace(req->member, req->routes_region, &to->rewrite, to->rewrite_to,
                             path, req->pool, &path) != HD_OK)
            return HD_STR_NONE;
    } else if (to->prefix.len > 0) {
        rest = hd_str_sub(path, req->route->matched_prefix.len, path.len);
        path = hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(to->prefix),
                             HD_STR_ARG(rest));
    }
    return query.len == 0 ? path
                          : hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(path),
                                          HD_STR_ARG(query));
}

/* VS-REDIRECT: parts not given stay; a port that is its scheme's default goes when the
 * scheme changes. */
static hd_str_t compose_location(hd_req_t *req)
{
    static const hd_redirect_t nowhere;
    const hd_redirect_t *to =
        req->route->redirect != NULL ? req->route->redirect : &nowhere;
    hd_str_t scheme = req->head.scheme, host, port, path = redirect_path(req, to);

    if (path.data == NULL) /* it could not be rewritten */
        return HD_STR_NONE;
    split_authority(req->head.authority, &host, &port);
    if (to->scheme.len > 0) {
        scheme = to->scheme;
        if (hd_str_eq(port, HD_STR(":80")) || hd_str_eq(port, HD_STR(":443")))
            port = HD_STR_NONE;
    }
    if (to->host.len > 0) { /* with its own port, if any */
        host = to->host;
        port = HD_STR_NONE;
    }
    if (to->port != 0)
        port = hd_str_printf(req->pool, ":%u", to->port);
    return hd_str_printf(req->pool, "%.*s://%.*s%.*s%.*s", HD_STR_ARG(scheme),
                         HD_STR_ARG(host), HD_STR_ARG(port), HD_STR_ARG(path));
}

static hd_rc_t start_redirect(hd_req_t *req)
{
    const hd_route_t *route = req->route;
    bool is_xds = req->http != NULL && req->http->is_xds;
    hd_str_t location;

    if (req->redirect_to.len > 0) {
        location = req->redirect_to;
        if (location.data[0] == '/')
            location = hd_http_absolute_url(req, location);
    } else if (route->text == NULL) {
        location = compose_location(req);
        if (location.len == 0)
            return hd_req_fail(req, 500, HD_E_INTERNAL, "the path could not be rewritten");
    } else {
        if (eval_text(req, &location) != HD_OK)
            return HD_ERROR;
        if (!is_xds && location.len > 0 && location.data[0] == '/')
            location = hd_http_absolute_url(req, location);
    }
    if (!hd_http_is_field_value(location))
        return hd_req_fail(req, 500, HD_E_INTERNAL, "not a field value: Location");
    hd_response_local(req, route->status, HD_STR_NONE, is_xds ? HD_STR("") : HD_STR_NONE,
                      0, "direct_response");
    hd_headers_add_id(&req->res.headers, HD_H_LOCATION,
                      is_xds ? HD_STR("location") : HD_STR("Location"), location);
    return HD_DONE;
}

const hd_action_ops_t hd_answer_action = {.name = "answer", .start = start_answer};
const hd_action_ops_t hd_redirect_action = {.name = "redirect", .start = start_redirect};
