/* proxy_cookie_domain, _path, _flags: what an upstream's Set-Cookie says to the client.
 */
#include "core/loom/hd_slot.h"
#include "http/hd_proxy_filter.h"
#include "http/hd_request_int.h"
#include <stdio.h>

#define ATTRIBUTES_MAX 32 /* of one cookie; the rest stays as it is */

typedef struct {
    hd_str_t name, value;
    bool has_value, is_dropped;
} attribute_t;

typedef struct {
    attribute_t items[ATTRIBUTES_MAX]; /* the first is the cookie itself */
    uint32_t n;
    hd_str_t rest; /* beyond ATTRIBUTES_MAX */
    bool is_changed;
} cookie_t;

static void read_cookie(hd_str_t text, cookie_t *c)
{
    hd_str_t part;

    c->n = 0;
    c->is_changed = false;
    while (c->n < ATTRIBUTES_MAX && hd_str_split(&text, ';', &part)) {
        attribute_t *a = &c->items[c->n++];
        ssize_t at;

        part = hd_str_trim(part);
        at = hd_str_find_char(part, '=');
        *a = (attribute_t){.name = part};
        if (at < 0)
            continue;
        a->has_value = true;
        a->name = hd_str_trim(hd_str_sub(part, 0, (size_t)at));
        a->value = hd_str_trim(hd_str_sub(part, (size_t)at + 1, part.len));
    }
    c->rest = text;
}

static attribute_t *find_attribute(cookie_t *c, hd_str_t name)
{
    for (uint32_t i = 1; i < c->n; i++) {
        if (!c->items[i].is_dropped && hd_str_eq_nocase(c->items[i].name, name))
            return &c->items[i];
    }
    return NULL;
}

static hd_str_t without_dot(hd_str_t s)
{
    return s.len > 0 && s.data[0] == '.' ? hd_str_sub(s, 1, s.len) : s;
}

/* The first rule that fits; a domain is replaced as a whole, a path's beginning. */
static bool apply_rule(hd_req_t *req, const hd_proxy_redirect_t *r, bool is_domain,
                       hd_str_t *value)
{
    hd_str_t from = HD_STR_NONE, to;

    if (r->from == NULL) {
        if (!hd_match(req->member, req->routes_region, &r->regex, *value, &req->captures))
            return false;
        req->capture_of = *value;
        return hd_expr_eval(r->to, req, value) == HD_OK;
    }
    if (hd_expr_eval(r->from, req, &from) != HD_OK ||
        hd_expr_eval(r->to, req, &to) != HD_OK)
        return false;
    if (is_domain) {
        if (!hd_str_eq_nocase(without_dot(*value), without_dot(from)))
            return false;
        to = without_dot(to); /* the cookie's own stays */
        *value = value->len == without_dot(*value).len
                     ? to
                     : hd_str_printf(req->pool, ".%.*s", HD_STR_ARG(to));
        return true;
    }
    if (!hd_str_has_prefix(*value, from))
        return false;
    *value = hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(to),
                           HD_STR_ARG(hd_str_sub(*value, from.len, value->len)));
    return true;
}

static void rewrite_attribute(hd_req_t *req, cookie_t *c, hd_str_t name, bool is_domain,
                              const hd_proxy_redirect_t *rules, uint32_t n)
{
    attribute_t *a = n == 0 ? NULL : find_attribute(c, name);

    if (a == NULL || !a->has_value)
        return;
    for (uint32_t i = 0; i < n; i++) {
        if (apply_rule(req, &rules[i], is_domain, &a->value)) {
            c->is_changed = true;
            return;
        }
    }
}

static void drop_attribute(cookie_t *c, hd_str_t name)
{
    attribute_t *a = find_attribute(c, name);

    if (a == NULL)
        return;
    a->is_dropped = true;
    c->is_changed = true;
}

static void add_attribute(cookie_t *c, hd_str_t name, hd_str_t value)
{
    if (c->n == ATTRIBUTES_MAX)
        return;
    c->items[c->n++] =
        (attribute_t){.name = name, .value = value, .has_value = value.len > 0};
    c->is_changed = true;
}

static bool is_for(hd_req_t *req, const hd_proxy_cookie_flags_t *f, hd_str_t name)
{
    hd_str_t wanted;

    if (f->name == NULL)
        return hd_match(req->member, req->routes_region, &f->regex, name, &req->captures);
    return hd_expr_eval(f->name, req, &wanted) == HD_OK && hd_str_eq_nocase(wanted, name);
}

static void set_flags(hd_req_t *req, cookie_t *c, const hd_proxy_filter_t *conf)
{
    static const struct {
        uint8_t bit;
        hd_str_t name;
    } flags[] = {{HD_COOKIE_SECURE, {"Secure", 6}},
                 {HD_COOKIE_HTTPONLY, {"HttpOnly", 8}},
                 {HD_COOKIE_SAMESITE, {"SameSite", 8}}};

    for (uint32_t i = 0; i < conf->flags_n; i++) {
        const hd_proxy_cookie_flags_t *f = &conf->flags[i];

        if (!is_for(req, f, c->items[0].name))
            continue;
        for (size_t k = 0; k < hd_countof(flags); k++) {
            bool is_samesite = flags[k].bit == HD_COOKIE_SAMESITE;

            if ((f->off & flags[k].bit) || ((f->on & flags[k].bit) && is_samesite))
                drop_attribute(c, flags[k].name);
            if ((f->on & flags[k].bit) && find_attribute(c, flags[k].name) == NULL)
                add_attribute(c, flags[k].name, is_samesite ? f->samesite : HD_STR_NONE);
        }
        return;
    }
}

static hd_str_t write_cookie(hd_pool_t *pool, const cookie_t *c)
{
    size_t len = c->rest.len + 2, at = 0;
    char *text;

    for (uint32_t i = 0; i < c->n; i++)
        len += c->items[i].name.len + c->items[i].value.len + 3;
    text = hd_pool_alloc_unaligned(pool, len);
    for (uint32_t i = 0; i < c->n; i++) {
        const attribute_t *a = &c->items[i];

        if (a->is_dropped)
            continue;
        at += (size_t)snprintf(text + at, len - at, "%s%.*s%s%.*s", i > 0 ? "; " : "",
                               HD_STR_ARG(a->name), a->has_value ? "=" : "",
                               HD_STR_ARG(a->value));
    }
    if (c->rest.len > 0)
        at += (size_t)snprintf(text + at, len - at, ";%.*s", HD_STR_ARG(c->rest));
    return hd_str_n(text, at);
}

void hd_proxy_rewrite_cookies(hd_req_t *req, const hd_proxy_filter_t *conf)
{
    hd_headers_t *h = &req->res.headers;

    for (unsigned i = 0; i < h->n; i++) {
        hd_field_t *f = &h->fields[i];
        hd_str_t value;
        cookie_t c;

        if (f->id != HD_H_SET_COOKIE || (f->flags & HD_FIELD_REMOVED))
            continue;
        read_cookie(f->value, &c);
        rewrite_attribute(req, &c, HD_STR("Domain"), true, conf->domains,
                          conf->domains_n);
        rewrite_attribute(req, &c, HD_STR("Path"), false, conf->paths, conf->paths_n);
        if (c.n > 0)
            set_flags(req, &c, conf);
        if (!c.is_changed)
            continue;
        value = write_cookie(req->pool, &c);
        if (hd_http_is_field_value(value)) /* CR or LF from a variable */
            f->value = value;
    }
}
