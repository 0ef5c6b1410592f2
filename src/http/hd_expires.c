#include "http/hd_expires.h"
#include "core/conf/hd_parse.h"
#include "http/hd_file.h"
#include "http/hd_request_int.h"

#include <time.h>

#define DAY_S 86400

bool hd_expires_parse(hd_str_t text, bool modified, hd_expires_t *e)
{
    bool negative = false;
    uint64_t ms;

    *e = (hd_expires_t){.kind = modified ? HD_EXPIRES_MODIFIED : HD_EXPIRES_ACCESS};
    if (!modified) {
        if (hd_str_eq(text, HD_STR("epoch")))
            e->kind = HD_EXPIRES_EPOCH;
        else if (hd_str_eq(text, HD_STR("max")))
            e->kind = HD_EXPIRES_MAX;
        else if (hd_str_eq(text, HD_STR("off")))
            e->kind = HD_EXPIRES_NOT;
        if (e->kind != HD_EXPIRES_ACCESS)
            return true;
    }
    if (text.len > 0 && text.data[0] == '@') {
        if (modified)
            return false;
        e->kind = HD_EXPIRES_DAILY;
        text = hd_str_sub(text, 1, text.len);
    } else if (text.len > 0 && (text.data[0] == '-' || text.data[0] == '+')) {
        negative = text.data[0] == '-';
        text = hd_str_sub(text, 1, text.len);
    }
    if (text.len == 0 || hd_parse_msec(text, &ms, NULL) != HD_OK)
        return false;
    e->seconds = (int64_t)(ms / 1000);
    if (e->kind == HD_EXPIRES_DAILY && e->seconds > DAY_S)
        return false;
    if (negative)
        e->seconds = -e->seconds;
    return true;
}

/* The next moment at which it is so many seconds past midnight, local time. */
static int64_t next_at(int64_t now, int64_t seconds)
{
    time_t t = (time_t)now, next;
    struct tm tm;

    localtime_r(&t, &tm);
    tm.tm_hour = (int)(seconds / 3600);
    tm.tm_min = (int)(seconds / 60 % 60);
    tm.tm_sec = (int)(seconds % 60);
    next = mktime(&tm);
    if (next > t)
        return (int64_t)next;
    tm.tm_mday++;
    return (int64_t)mktime(&tm);
}

static int64_t last_modified(hd_req_t *req)
{
    bool found;
    hd_str_t value = hd_res_header(req, HD_STR("Last-Modified"), &found);

    return found ? hd_http_parse_date(value) : -1;
}

static void set(hd_req_t *req, hd_str_t expires, hd_str_t control)
{
    hd_ignore(hd_headers_set(&req->res.headers, HD_STR("Expires"), expires) == NULL);
    hd_ignore(hd_headers_set(&req->res.headers, HD_STR("Cache-Control"), control) ==
              NULL);
}

void hd_expires_put(hd_req_t *req, const hd_expires_t *e)
{
    int64_t now = hd_loop_wall_ns(req->loop) / 1000000000, at = now, modified;
    hd_expires_t evaluated;
    hd_str_t text;

    if (e->value != NULL) {
        if (hd_expr_eval(e->value, req, &text) != HD_OK || text.len == 0 ||
            !hd_expires_parse(text, e->kind == HD_EXPIRES_MODIFIED, &evaluated))
            return;
        e = &evaluated;
    }
    switch (e->kind) {
    case HD_EXPIRES_NOT:
        return;
    case HD_EXPIRES_EPOCH:
        set(req, HD_STR("Thu, 01 Jan 1970 00:00:01 GMT"), HD_STR("no-cache"));
        return;
    case HD_EXPIRES_MAX:
        set(req, HD_STR("Thu, 31 Dec 2037 23:55:55 GMT"), HD_STR("max-age=315360000"));
        return;
    case HD_EXPIRES_DAILY:
        at = next_at(now, e->seconds);
        break;
    case HD_EXPIRES_MODIFIED:
        modified = last_modified(req);
        at = (modified >= 0 ? modified : now) + e->seconds;
        break;
    default:
        at = now + e->seconds;
    }
    set(req, hd_http_print_date(req->pool, at),
        at < now || e->seconds < 0
            ? HD_STR("no-cache")
            : hd_str_printf(req->pool, "max-age=%lld", (long long)(at - now)));
}
