/* hd_proxy_filter: what nginx's proxy does around a try: proxy_redirect on a response's
 * head, proxy_next_upstream on a try's result. Its conf is a hd_proxy_filter_t in the
 * route's region. */
#pragma once
#include "core/loom/hd_match.h"
#include "http/hd_request.h"

enum {
    HD_NEXT_ERROR = 1,
    HD_NEXT_TIMEOUT = 2,
    HD_NEXT_INVALID = 4,
    HD_NEXT_500 = 8,
    HD_NEXT_502 = 16,
    HD_NEXT_503 = 32,
    HD_NEXT_504 = 64,
    HD_NEXT_403 = 128,
    HD_NEXT_404 = 256,
    HD_NEXT_429 = 512,
    HD_NEXT_NON_IDEMPOTENT = 1024,
    HD_NEXT_OFF = 2048,
    HD_NEXT_DENIED = 4096, /* by …_allow_upstream */
};

typedef struct {
    const hd_expr_t *from; /* NULL: by <regex> */
    hd_match_t regex;
    const hd_expr_t *to;
} hd_proxy_redirect_t;

/* proxy_cookie_flags: <on> and <off> are HD_COOKIE_…; what neither names stays. */
enum { HD_COOKIE_SECURE = 1, HD_COOKIE_HTTPONLY = 2, HD_COOKIE_SAMESITE = 4 };

typedef struct {
    const hd_expr_t *name; /* NULL: by <regex> */
    hd_match_t regex;
    uint8_t on, off;
    hd_str_t samesite; /* "strict", "lax", "none" */
} hd_proxy_cookie_flags_t;

typedef struct {
    const hd_proxy_redirect_t *redirects;
    const hd_proxy_redirect_t *domains, *paths; /* of cookies */
    const hd_proxy_cookie_flags_t *flags;
    uint32_t redirects_n, domains_n, paths_n, flags_n;
    uint32_t next; /* HD_NEXT_… */
    uint32_t tries;
    uint64_t tries_time_ms;
    /* `proxy_redirect default`, after all others: literal, empty: it is off. */
    hd_str_t usual_from, usual_to;
} hd_proxy_filter_t;

/* hd_proxy_cookie.c: changes Set-Cookie fields as configured. */
void hd_proxy_rewrite_cookies(hd_req_t *req, const hd_proxy_filter_t *f);
hd_rc_t hd_proxy_filter_response(hd_req_t *req, const void *conf);
hd_verdict_t hd_proxy_filter_result(hd_req_t *req, const void *conf,
                                    const hd_try_result_t *r, uint64_t *wait_ms);
