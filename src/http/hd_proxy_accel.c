/* X-Accel-…: the upstream's word on how its answer is passed on, and on who is to answer
 * in its place. nginx keeps these fields of an upstream to itself. */
#include "http/hd_proxy_int.h"
#include "http/hd_uri.h"

uint32_t hd_proxy_accel_bit(hd_str_t name)
{
    static const struct {
        hd_str_t name;
        uint32_t bit;
    } fields[] = {{HD_STR_INIT("X-Accel-Redirect"), HD_IGNORES_REDIRECT},
                  {HD_STR_INIT("X-Accel-Buffering"), HD_IGNORES_BUFFERING},
                  {HD_STR_INIT("X-Accel-Limit-Rate"), HD_IGNORES_LIMIT_RATE},
                  {HD_STR_INIT("X-Accel-Charset"), HD_IGNORES_CHARSET},
                  {HD_STR_INIT("X-Accel-Expires"), HD_IGNORES_EXPIRES}};

    for (size_t i = 0; i < hd_countof(fields); i++) {
        if (hd_str_eq_nocase(name, fields[i].name))
            return fields[i].bit;
    }
    return 0;
}

static void obey_field(hd_proxy_t *p, hd_field_t *f)
{
    uint32_t bit = hd_proxy_accel_bit(f->name);
    uint64_t rate;

    if (bit != 0 && !(p->conf->passes & bit))
        f->flags |= HD_FIELD_REMOVED;
    if (bit == 0 || (p->conf->ignores & bit))
        return;
    if (bit == HD_IGNORES_REDIRECT) {
        if (p->redirect.len == 0)
            p->redirect = f->value;
    } else if (bit == HD_IGNORES_CHARSET) {
        p->req->wanted_charset = f->value;
    } else if (bit == HD_IGNORES_LIMIT_RATE &&
               hd_str_to_u64(f->value, INT64_MAX, &rate)) {
        p->req->rate = rate;
        p->req->has_rate = true;
    } else if (bit == HD_IGNORES_BUFFERING) {
        if (hd_str_eq_nocase(f->value, HD_STR("no")))
            p->buffers = false;
        else if (hd_str_eq_nocase(f->value, HD_STR("yes")))
            p->buffers = true;
    }
}

void hd_proxy_take_accel(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    hd_headers_t *h = &req->res.headers;

    if (req->http == NULL || req->http->is_xds)
        return;
    for (unsigned i = 0; i < h->n; i++) {
        hd_field_t *f = &h->fields[i];

        if (f->id == HD_H_X_ACCEL_REDIRECT ||
            (f->id == HD_H_OTHER &&
             hd_str_has_prefix_nocase(f->name, HD_STR("X-Accel-"))))
            obey_field(p, f);
        else if (f->id == HD_H_OTHER && hd_str_eq_nocase(f->name, HD_STR("X-Pad")))
            f->flags |= HD_FIELD_REMOVED;
    }
}

/* Of the upstream's answer these stay when another answers in its place, as in nginx. */
static bool is_kept(const hd_field_t *f)
{
    return f->id == HD_H_CONTENT_TYPE || f->id == HD_H_SET_COOKIE ||
           f->id == HD_H_CACHE_CONTROL ||
           hd_str_eq_nocase(f->name, HD_STR("Content-Disposition")) ||
           hd_str_eq_nocase(f->name, HD_STR("Accept-Ranges")) ||
           hd_str_eq_nocase(f->name, HD_STR("Expires"));
}

void hd_proxy_put_kept(hd_req_t *req)
{
    hd_headers_t *h = &req->res.headers;

    for (unsigned i = 0; i < req->kept->n; i++) {
        const hd_field_t *f = &req->kept->fields[i];

        if (f->flags & HD_FIELD_REMOVED) /* a file's answer has it already */
            continue;
        if (f->id == HD_H_CONTENT_TYPE &&
            (req->is_local_reply ? req->res.status >= 300
                                 : hd_headers_get(h, HD_H_CONTENT_TYPE) != NULL &&
                                       req->route != NULL && req->route->proxy != NULL))
            continue; /* an error page has its own, as another upstream's answer */
        if (f->id == HD_H_SET_COOKIE ||
            hd_str_eq_nocase(f->name, HD_STR("WWW-Authenticate")))
            hd_ignore(hd_headers_add(h, f->name, f->value) == NULL); /* full: as it is */
        else
            hd_ignore(hd_headers_set(h, f->name, f->value) == NULL);
    }
    req->kept = NULL;
}

/* nginx: no upstream has a reason to write "..". */
static bool leads_up(hd_str_t uri)
{
    ssize_t at = hd_str_find_char(uri, '?');

    return hd_str_climbs(hd_str_sub(uri, 0, at < 0 ? uri.len : (size_t)at)) > 0;
}

static void keep_fields(hd_req_t *req)
{
    const hd_headers_t *h = &req->res.headers;

    req->kept = hd_pool_new(req->pool, hd_headers_t);
    hd_headers_init(req->kept, req->pool, 4);
    for (unsigned i = 0; i < h->n; i++) {
        const hd_field_t *f = &h->fields[i];

        if (!(f->flags & (HD_FIELD_REMOVED | HD_FIELD_HOP)) && is_kept(f))
            hd_ignore(hd_headers_add(req->kept, f->name, f->value) == NULL);
    }
}

void hd_proxy_redirect(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    hd_str_t to = p->redirect, path, query;

    keep_fields(req);
    if (to.data[0] == '/' && !leads_up(to) &&
        hd_http_normalize_path(to, req->http, req->pool, &path, &query) == HD_OK) {
        to = path;
        if (query.len > 0)
            to = hd_str_printf(req->pool, "%.*s?%.*s", HD_STR_ARG(path),
                               HD_STR_ARG(query));
    } else if (to.data[0] != '@') {
        hd_ignore(hd_req_err(req, HD_E_PROTOCOL,
                             "upstream sent an unsafe X-Accel-Redirect \"%.*s\"",
                             HD_STR_ARG(to)));
        p->is_over = true;
        hd_response_fail(req, 404, HD_RF(UPSTREAM_PROTOCOL), "bad_redirect");
        return;
    }
    if (to.data[0] != '@') /* nginx: a named location gets the request as it is */
        hd_request_make_get(req);
    req->up_method = HD_STR_NONE;
    hd_request_reroute(req, to);
}
