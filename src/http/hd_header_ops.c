/* Fields added, set and removed by configuration, around the filters. */
#include "http/hd_expires.h"
#include "http/hd_request_int.h"

/* nginx's add_header without `always`: these statuses only. */
static bool is_ordinary(unsigned status)
{
    switch (status) {
    case 200:
    case 201:
    case 204:
    case 206:
    case 301:
    case 302:
    case 303:
    case 304:
    case 307:
    case 308:
        return true;
    default:
        return false;
    }
}

/* What isn't a field of the list: the target, and what framing makes. True: done. */
static bool apply_special(hd_req_t *req, const hd_header_op_conf_t *op, hd_header_id_t id,
                          hd_str_t value)
{
    if (id == HD_H_HOST || hd_str_eq(op->name, HD_STR(":authority"))) {
        if (op->how != HD_HOP_REMOVE && value.len > 0)
            req->up_host = value;
        return true;
    }
    if (hd_str_eq(op->name, HD_STR(":path"))) {
        if (op->how != HD_HOP_REMOVE && value.len > 0)
            req->up_path = value;
        return true;
    }
    if (id == HD_H_UPGRADE && value.len > 0) /* nginx's way to allow it */
        req->wants_upgrade = true;
    /* made anew by the codec, whatever is configured (RFC 9110 §7.6.1) */
    return id == HD_H_CONNECTION || id == HD_H_UPGRADE || id == HD_H_CONTENT_LENGTH ||
           id == HD_H_TRANSFER_ENCODING || id == HD_H_KEEP_ALIVE ||
           (op->name.len > 0 && op->name.data[0] == ':');
}

static void apply_one(hd_req_t *req, hd_headers_t *h, const hd_header_op_conf_t *op,
                      hd_str_t value)
{
    bool is_xds = req->http != NULL && req->http->is_xds;

    if (op->how == HD_HOP_REMOVE) {
        hd_headers_remove(h, op->name);
        return;
    }
    if (value.len == 0 && !op->keep_empty) {
        if (!is_xds && op->how == HD_HOP_SET) /* nginx: an empty value isn't passed */
            hd_headers_remove(h, op->name);
        return;
    }
    if (!hd_http_is_field_value(value)) /* CR or LF from a variable */
        return;
    if (op->how == HD_HOP_APPEND ||
        (op->how == HD_HOP_ADD_IF_ABSENT && hd_headers_find(h, op->name) == NULL))
        hd_ignore(hd_headers_add(h, op->name, value) == NULL); /* full: as it is */
    else if (op->how == HD_HOP_SET || (op->how == HD_HOP_OVERWRITE_IF_EXISTS &&
                                       hd_headers_find(h, op->name) != NULL))
        hd_ignore(hd_headers_set(h, op->name, value) == NULL);
}

static void apply(hd_req_t *req, hd_headers_t *h, const hd_header_op_conf_t *ops,
                  uint32_t n, bool is_response)
{
    for (uint32_t i = 0; i < n; i++) {
        const hd_header_op_conf_t *op = &ops[i];
        hd_str_t value = HD_STR_NONE;

        if (is_response && !op->always && !is_ordinary(req->res.status))
            continue;
        if (op->value != NULL && hd_expr_eval(op->value, req, &value) != HD_OK)
            continue;
        if (!is_response && apply_special(req, op, hd_header_id(op->name), value))
            continue;
        apply_one(req, h, op, value);
    }
}

void hd_header_ops_keep_received(hd_req_t *req)
{
    const hd_headers_t *h = &req->head.headers;
    hd_headers_t *copy;

    if (req->received != NULL || req->http == NULL || req->http->is_xds)
        return;
    copy = hd_pool_alloc(req->pool, sizeof(*copy));
    *copy = *h;
    copy->fields = hd_pool_alloc(req->pool, h->n * sizeof(hd_field_t));
    memcpy(copy->fields, h->fields, h->n * sizeof(hd_field_t));
    copy->_room = h->n;
    req->received = copy;
}

void hd_header_ops_undo(hd_req_t *req)
{
    hd_headers_t *h = &req->head.headers;

    if (req->http == NULL || req->http->is_xds)
        return;
    req->up_host = req->up_path = HD_STR_NONE;
    req->wants_upgrade = false;
    if (req->received == NULL)
        return;
    hd_headers_init(h, req->pool, req->received->n);
    for (unsigned i = 0; i < req->received->n; i++) {
        const hd_field_t *f = &req->received->fields[i];
        hd_field_t *again;

        if (f->flags & HD_FIELD_REMOVED)
            continue;
        again = hd_headers_add_id(h, (hd_header_id_t)f->id, f->name, f->value);
        if (again != NULL)
            again->flags = f->flags;
    }
}

/* Of all that has changes for both ways: a macro, since only their names are alike. */
#define APPLY_OF(of, req, h, is_response)                                                \
    do {                                                                                 \
        if (is_response)                                                                 \
            apply(req, h, (of)->response_ops, (of)->response_ops_n, true);               \
        else                                                                             \
            apply(req, h, (of)->request_ops, (of)->request_ops_n, false);                \
    } while (0)

/* From the most specific outwards, as Envoy does; or, if the route table says so, from
 * the outermost inwards. */
static void apply_levels(hd_req_t *req, hd_headers_t *h, bool is_response)
{
    bool is_inwards = req->vhost != NULL && req->routes->specific_wins;

    if (hd_unlikely(is_inwards)) {
        APPLY_OF(req->routes, req, h, is_response);
        APPLY_OF(req->vhost, req, h, is_response);
        APPLY_OF(req->route, req, h, is_response);
    }
    if (req->target != NULL)
        APPLY_OF(req->target, req, h, is_response);
    if (hd_unlikely(is_inwards))
        return;
    APPLY_OF(req->route, req, h, is_response);
    if (req->vhost == NULL)
        return;
    APPLY_OF(req->vhost, req, h, is_response);
    APPLY_OF(req->routes, req, h, is_response);
}

void hd_header_ops_request(hd_req_t *req)
{
    hd_headers_t *h = &req->head.headers;
    const hd_route_t *route = req->route;
    uint32_t n = route->request_ops_n;

    if (req->target != NULL)
        n += req->target->request_ops_n;
    if (req->vhost != NULL)
        n += req->vhost->request_ops_n + req->routes->request_ops_n;
    if (n == 0)
        return;
    hd_header_ops_keep_received(req);
    apply_levels(req, h, false);
}

bool hd_header_ops_has_trailers(const hd_req_t *req)
{
    const hd_route_t *route = req->route;

    for (uint32_t i = 0; route != NULL && i < route->trailer_ops_n; i++) {
        if (route->trailer_ops[i].always || is_ordinary(req->res.status))
            return true;
    }
    return false;
}

void hd_header_ops_trailers(hd_req_t *req)
{
    const hd_route_t *route = req->route;

    if (req->res_trailers.pool == NULL)
        hd_headers_init(&req->res_trailers, req->pool, route->trailer_ops_n);
    apply(req, &req->res_trailers, route->trailer_ops, route->trailer_ops_n, true);
}

/* Envoy: an answer of our own is text/plain unless the configuration gives it a type. */
static hd_str_t take_type(hd_headers_t *h)
{
    const hd_field_t *f = hd_headers_get(h, HD_H_CONTENT_TYPE);
    hd_str_t type = f != NULL ? f->value : HD_STR_NONE;

    if (f != NULL)
        hd_headers_remove_id(h, HD_H_CONTENT_TYPE);
    return type;
}

void hd_header_ops_response(hd_req_t *req)
{
    hd_headers_t *h = &req->res.headers;
    const hd_route_t *route = req->route;
    hd_str_t type = HD_STR_NONE;

    if (route == NULL)
        return;
    /* Envoy's local replies other than the route's own answer stay as they are. */
    if (req->is_local_reply && req->http != NULL && req->http->is_xds &&
        route->action != HD_ACT_ANSWER && route->action != HD_ACT_REDIRECT)
        return;
    if (req->is_local_reply && req->http != NULL && req->http->is_xds)
        type = take_type(h);
    if (route->expires != NULL && is_ordinary(req->res.status))
        hd_expires_put(req, route->expires);
    apply_levels(req, h, true);
    if (type.len > 0 && hd_headers_get(h, HD_H_CONTENT_TYPE) == NULL)
        hd_headers_add_id(h, HD_H_CONTENT_TYPE, HD_STR("content-type"), type);
}
