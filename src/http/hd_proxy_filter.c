#include "http/hd_proxy_filter.h"
#include "core/loom/hd_slot.h"
#include "http/hd_action_answer.h"
#include "http/hd_proxy_int.h"

/* --- proxy_redirect --- */

static hd_str_t replace_beginning(hd_req_t *req, hd_str_t value, size_t len, hd_str_t by)
{
    return hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(by),
                         HD_STR_ARG(hd_str_sub(value, len, value.len)));
}

/* <value> with its beginning replaced by the first pair that fits. */
static bool rewrite(hd_req_t *req, const hd_proxy_filter_t *f, hd_str_t value,
                    hd_str_t *out)
{
    for (uint32_t i = 0; i < f->redirects_n; i++) {
        const hd_proxy_redirect_t *r = &f->redirects[i];
        hd_str_t from = HD_STR_NONE, to;

        if (r->from == NULL) {
            if (!hd_match(req->member, req->routes_region, &r->regex, value,
                          &req->captures))
                continue;
            req->capture_of = value;
            if (hd_expr_eval(r->to, req, out) == HD_OK)
                return true;
            continue;
        }
        if (hd_expr_eval(r->from, req, &from) != HD_OK || from.len == 0 ||
            !hd_str_has_prefix(value, from) || hd_expr_eval(r->to, req, &to) != HD_OK)
            continue;
        *out = replace_beginning(req, value, from.len, to);
        return true;
    }
    if (f->usual_from.len == 0 || !hd_str_has_prefix(value, f->usual_from))
        return false;
    *out = replace_beginning(req, value, f->usual_from.len, f->usual_to);
    return true;
}

static void rewrite_location(hd_req_t *req, const hd_proxy_filter_t *f)
{
    hd_field_t *location = hd_headers_get(&req->res.headers, HD_H_LOCATION);
    hd_str_t value;

    if (location == NULL || !rewrite(req, f, location->value, &value))
        return;
    if (value.len > 0 && value.data[0] == '/')
        value = hd_http_absolute_url(req, value);
    if (hd_http_is_field_value(value)) /* CR or LF from a variable */
        location->value = value;
}

/* Refresh: SECONDS; url=URL */
static void rewrite_refresh(hd_req_t *req, const hd_proxy_filter_t *f)
{
    hd_field_t *refresh = hd_headers_find(&req->res.headers, HD_STR("Refresh"));
    hd_str_t value;
    ssize_t at;

    if (refresh == NULL)
        return;
    at = hd_str_find(refresh->value, HD_STR("url="));
    if (at < 0 ||
        !rewrite(req, f, hd_str_sub(refresh->value, (size_t)at + 4, refresh->value.len),
                 &value))
        return;
    value = hd_str_printf(req->pool, "%.*s%.*s", (int)at + 4, refresh->value.data,
                          HD_STR_ARG(value));
    if (hd_http_is_field_value(value))
        refresh->value = value;
}

hd_rc_t hd_proxy_filter_response(hd_req_t *req, const void *conf)
{
    const hd_proxy_filter_t *f = conf;

    if (req->is_local_reply)
        return HD_OK;
    if (hd_unlikely(f->domains_n + f->paths_n + f->flags_n > 0))
        hd_proxy_rewrite_cookies(req, f);
    if (f->redirects_n == 0 && f->usual_from.len == 0)
        return HD_OK;
    rewrite_location(req, f);
    if (req->res.status == 200 || req->res.status / 100 == 3)
        rewrite_refresh(req, f);
    return HD_OK;
}

/* --- proxy_next_upstream --- */

static uint32_t kind_of(const hd_try_result_t *r)
{
    if (r->is_denied)
        return HD_NEXT_DENIED;
    switch (r->result) {
    case HD_RESULT_CONNECT:
    case HD_RESULT_RESET:
        return r->is_invalid ? HD_NEXT_INVALID : HD_NEXT_ERROR;
    case HD_RESULT_TIMEOUT:
        return HD_NEXT_TIMEOUT;
    case HD_RESULT_CANCELLED:
        return 0;
    case HD_RESULT_OK:
        break;
    }
    switch (r->status) {
    case 500:
        return HD_NEXT_500;
    case 502:
        return HD_NEXT_502;
    case 503:
        return HD_NEXT_503;
    case 504:
        return HD_NEXT_504;
    case 403:
        return HD_NEXT_403;
    case 404:
        return HD_NEXT_404;
    case 429:
        return HD_NEXT_429;
    default:
        return 0;
    }
}

/* RFC 9110 §9.2.2; nginx: POST, LOCK and PATCH aren't. */
static bool is_idempotent(const hd_req_t *req)
{
    uint8_t id = hd_req_up_method_id(req);

    return id != HD_M_POST && id != HD_M_PATCH &&
           !hd_str_eq(hd_req_up_method(req), HD_STR("LOCK"));
}

/* Each server is asked once. */
static uint32_t count_servers(hd_req_t *req)
{
    const hd_proxy_t *p = req->action;
    const hd_region_t *r =
        p->cluster == NULL ? NULL : hd_slot_get(req->member, p->cluster);
    const hd_cluster_t *c = r == NULL ? NULL : r->root;
    const hd_endpoints_t *eps;
    uint32_t n = 0;

    if (p->addrs_n > 0)
        return p->addrs_n;
    r = c != NULL ? hd_cluster_endpoints(req->member, c) : NULL;
    if (r == NULL)
        return 1;
    eps = r->root;
    for (uint32_t i = 0; i < eps->n; i++)
        n += !eps->items[i].down;
    return n;
}

hd_verdict_t hd_proxy_filter_result(hd_req_t *req, const void *conf,
                                    const hd_try_result_t *r, uint64_t *wait_ms)
{
    const hd_proxy_filter_t *f = conf;

    *wait_ms = 0;
    if ((f->next & HD_NEXT_OFF) || !(f->next & kind_of(r)))
        return HD_TRY_DONE;
    if (r->head_sent && !(f->next & HD_NEXT_NON_IDEMPOTENT) && !is_idempotent(req))
        return HD_TRY_DONE;
    if (f->tries_time_ms > 0 &&
        hd_loop_now_ns(req->loop) - req->start_ns > f->tries_time_ms * 1000000)
        return HD_TRY_DONE;
    return r->attempt < count_servers(req) ? HD_TRY_RETRY : HD_TRY_DONE;
}
