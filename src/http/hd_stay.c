#include "http/hd_stay.h"
#include "core/net/hd_sticky.h"
#include "http/hd_file.h"
#include "http/hd_uri.h"

/* The first variable that isn't empty. */
static hd_str_t first_of(hd_req_t *req, const hd_expr_t *const *list, uint32_t n)
{
    hd_str_t value;

    for (uint32_t i = 0; i < n; i++) {
        if (hd_expr_eval(list[i], req, &value) == HD_OK && value.len > 0)
            return value;
    }
    return HD_STR_NONE;
}

static uint64_t now_ms(const hd_req_t *req)
{
    return hd_loop_now_ns(req->loop) / 1000000;
}

void hd_stay_ask(hd_try_t *t, const hd_cluster_t *c)
{
    const hd_sticky_t *s = c->sticky;
    hd_req_t *req = t->req;
    hd_str_t id = HD_STR_NONE;

    if (s->kind == HD_STICKY_COOKIE) {
        if (!hd_uri_find_cookie(req, s->cookie, false, &id))
            return;
    } else {
        id = first_of(req, s->lookup, s->lookup_n);
    }
    if (id.len == 0)
        return;
    if (s->kind != HD_STICKY_LEARN)
        t->pick.sticky = hd_sticky_hash(id);
    else if (s->sessions != NULL)
        t->pick.sticky = hd_sessions_find(s->sessions, id, now_ms(req), s->timeout_ms);
}

/* --- the cookie --- */

static hd_str_t add(hd_req_t *req, hd_str_t to, const char *name, hd_str_t value)
{
    return value.len == 0 ? to
                          : hd_str_printf(req->pool, "%.*s; %s=%.*s", HD_STR_ARG(to),
                                          name, HD_STR_ARG(value));
}

static hd_str_t value_of(hd_req_t *req, const hd_expr_t *expr)
{
    hd_str_t value;

    return expr != NULL && hd_expr_eval(expr, req, &value) == HD_OK ? value : HD_STR_NONE;
}

static hd_str_t add_expires(hd_req_t *req, hd_str_t to, int64_t expires_s)
{
    int64_t now_s = hd_loop_wall_ns(req->loop) / 1000000000;

    if (expires_s == HD_STICKY_EXPIRES_NONE)
        return to;
    if (expires_s == HD_STICKY_EXPIRES_MAX)
        return hd_str_printf(
            req->pool, "%.*s; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000",
            HD_STR_ARG(to));
    to = add(req, to, "expires", hd_http_print_date(req->pool, now_s + expires_s));
    return hd_str_printf(req->pool, "%.*s; max-age=%lld", HD_STR_ARG(to),
                         (long long)expires_s);
}

static bool is_samesite(hd_str_t value)
{
    return hd_str_eq_nocase(value, HD_STR("strict")) ||
           hd_str_eq_nocase(value, HD_STR("lax")) ||
           hd_str_eq_nocase(value, HD_STR("none"));
}

/* As nginx words it, at each answer: its time begins anew. */
static void set_cookie(hd_req_t *req, const hd_sticky_t *s, hd_str_t route)
{
    hd_str_t samesite = value_of(req, s->samesite);
    hd_str_t text =
        hd_str_printf(req->pool, "%.*s=%.*s", HD_STR_ARG(s->cookie), HD_STR_ARG(route));

    if (samesite.len > 0 && !is_samesite(samesite))
        samesite = HD_STR("strict");
    text = add_expires(req, text, s->expires_s);
    text = add(req, text, "domain", value_of(req, s->domain));
    if (s->httponly)
        text = hd_str_printf(req->pool, "%.*s; httponly", HD_STR_ARG(text));
    if (s->secure)
        text = hd_str_printf(req->pool, "%.*s; secure", HD_STR_ARG(text));
    text = add(req, text, "samesite", samesite);
    text = add(req, text, "path", s->path);
    hd_ignore(hd_res_add_header(req, HD_STR("Set-Cookie"), text));
}

/* --- learning --- */

static void learn(hd_req_t *req, const hd_sticky_t *s, hd_str_t route)
{
    hd_str_t id = first_of(req, s->create, s->create_n);
    bool creates = id.len > 0;

    if (!creates)
        id = first_of(req, s->lookup, s->lookup_n);
    if (id.len > 0 && s->sessions != NULL)
        hd_sessions_put(s->sessions, id, hd_sticky_hash(route), creates, now_ms(req));
}

static const hd_sticky_t *sticky_of(const hd_try_t *t)
{
    return t->is_picked && t->pick.endpoint != NULL ? t->pick.cluster->sticky : NULL;
}

void hd_stay_head(hd_proxy_t *p, hd_try_t *t)
{
    const hd_sticky_t *s = sticky_of(t);

    if (s == NULL)
        return;
    if (s->kind == HD_STICKY_COOKIE)
        set_cookie(p->req, s, hd_endpoint_more(t->pick.endpoint)->route);
    else if (s->kind == HD_STICKY_LEARN && s->at_head)
        learn(p->req, s, hd_endpoint_more(t->pick.endpoint)->route);
}

void hd_stay_end(hd_proxy_t *p, hd_try_t *t)
{
    const hd_sticky_t *s = sticky_of(t);

    if (s != NULL && s->kind == HD_STICKY_LEARN && !s->at_head)
        learn(p->req, s, hd_endpoint_more(t->pick.endpoint)->route);
}
