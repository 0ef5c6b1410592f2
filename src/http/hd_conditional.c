/* Conditions and ranges of requests, as nginx reads them. */
#include "http/hd_file.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t hd_http_parse_date(hd_str_t text)
{
    static const char *const forms[] = {
        "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"};
    char copy[64];

    if (text.len >= sizeof(copy))
        return -1;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    for (size_t i = 0; i < hd_countof(forms); i++) {
        struct tm tm = {0};
        const char *end = strptime(copy, forms[i], &tm);

        if (end != NULL && *end == '\0')
            return (int64_t)timegm(&tm);
    }
    return -1;
}

hd_str_t hd_http_print_date(hd_pool_t *pool, int64_t s)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t t = (time_t)s;
    struct tm tm;

    gmtime_r(&t, &tm);
    return hd_str_printf(pool, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                         days + tm.tm_wday * 3, tm.tm_mday, months + tm.tm_mon * 3,
                         tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* --- conditions --- */

static bool find(hd_req_t *req, const char *name, hd_str_t *value)
{
    bool found;

    *value = hd_req_header(req, hd_str_c(name), &found);
    return found;
}

static hd_str_t strip_weak(hd_str_t tag)
{
    return hd_str_has_prefix(tag, HD_STR("W/")) ? hd_str_sub(tag, 2, tag.len) : tag;
}

/* Is <etag> in the list? <weak>: W/ doesn't count. */
static bool is_listed(hd_str_t list, hd_str_t etag, bool weak)
{
    hd_str_t part;

    if (hd_str_eq(list, HD_STR("*")))
        return true;
    if (etag.len == 0)
        return false;
    if (weak)
        etag = strip_weak(etag);
    while (hd_str_split(&list, ',', &part)) {
        part = hd_str_trim(part);
        if (hd_str_eq(weak ? strip_weak(part) : part, etag))
            return true;
    }
    return false;
}

static bool is_newer(hd_str_t since, int64_t mtime, hd_ims_t ims)
{
    int64_t at;

    if (mtime < 0 || ims == HD_IMS_OFF)
        return true;
    at = hd_http_parse_date(since);
    if (at == mtime)
        return false;
    return ims == HD_IMS_EXACT || at < mtime;
}

unsigned hd_http_conditional(hd_req_t *req, hd_str_t etag, int64_t mtime, hd_ims_t ims)
{
    hd_str_t value, none_match;
    bool has_since, has_none_match;

    if (find(req, "If-Unmodified-Since", &value) &&
        (mtime < 0 || hd_http_parse_date(value) < mtime))
        return 412;
    if (find(req, "If-Match", &value) && !is_listed(value, etag, false))
        return 412;
    has_since = find(req, "If-Modified-Since", &value);
    has_none_match = find(req, "If-None-Match", &none_match);
    if ((!has_since && !has_none_match) || (has_since && is_newer(value, mtime, ims)) ||
        (has_none_match && !is_listed(none_match, etag, true)))
        return 0;
    return 304;
}

/* --- ranges --- */

static void skip_spaces(hd_str_t *s)
{
    while (s->len > 0 && s->data[0] == ' ')
        *s = hd_str_sub(*s, 1, s->len);
}

static bool read_number(hd_str_t *s, int64_t *n)
{
    if (s->len == 0 || s->data[0] < '0' || s->data[0] > '9')
        return false;
    for (*n = 0; s->len > 0 && s->data[0] >= '0' && s->data[0] <= '9';
         *s = hd_str_sub(*s, 1, s->len)) {
        if (__builtin_mul_overflow(*n, 10, n) ||
            __builtin_add_overflow(*n, s->data[0] - '0', n))
            return false;
    }
    skip_spaces(s);
    return true;
}

static bool is_at_end(hd_str_t s)
{
    return s.len == 0 || s.data[0] == ',';
}

/* FROM-TO, FROM- or -LAST. */
static bool read_range(hd_str_t *s, int64_t size, hd_range_t *r)
{
    int64_t last;

    skip_spaces(s);
    if (s->len > 0 && s->data[0] == '-') {
        *s = hd_str_sub(*s, 1, s->len);
        if (!read_number(s, &last) || !is_at_end(*s))
            return false;
        *r = (hd_range_t){last < size ? size - last : 0, size};
        return true;
    }
    if (!read_number(s, &r->from) || s->len == 0 || s->data[0] != '-')
        return false;
    *s = hd_str_sub(*s, 1, s->len);
    skip_spaces(s);
    r->to = size;
    if (is_at_end(*s))
        return true;
    if (!read_number(s, &last) || !is_at_end(*s))
        return false;
    r->to = last >= size ? size : last + 1;
    return true;
}

static bool still_holds(hd_str_t condition, hd_str_t etag, int64_t mtime)
{
    if (condition.len >= 2 && condition.data[condition.len - 1] == '"')
        return etag.len > 0 && hd_str_eq(condition, etag);
    return mtime >= 0 && hd_http_parse_date(condition) == mtime;
}

hd_rc_t hd_http_ranges(hd_req_t *req, hd_str_t etag, int64_t mtime, int64_t size,
                       uint32_t max, hd_range_t **out, uint32_t *n)
{
    hd_str_t rest, condition;
    int64_t total = 0;
    uint32_t room = 4;
    hd_range_t *list;

    *n = 0;
    if (!find(req, "Range", &rest) || rest.len < 7 ||
        !hd_str_has_prefix_nocase(rest, HD_STR("bytes=")))
        return HD_DECLINED;
    if (find(req, "If-Range", &condition) && !still_holds(condition, etag, mtime))
        return HD_DECLINED;
    rest = hd_str_sub(rest, 6, rest.len);
    list = hd_pool_new_n(req->pool, hd_range_t, room);
    for (;;) {
        hd_range_t r;

        if (!read_range(&rest, size, &r))
            return HD_ERROR;
        if (r.from < r.to) {
            if (*n == max)
                return HD_DECLINED;
            if (*n == room) {
                hd_range_t *more = hd_pool_new_n(req->pool, hd_range_t, room * 2);

                memcpy(more, list, room * sizeof(*list));
                list = more;
                room *= 2;
            }
            list[(*n)++] = r;
            total += r.to - r.from;
        } else if (r.from == 0) {
            return HD_DECLINED;
        }
        if (rest.len == 0)
            break;
        rest = hd_str_sub(rest, 1, rest.len);
    }
    *out = list;
    if (*n == 0)
        return HD_ERROR;
    return total > size ? HD_DECLINED : HD_OK; /* more than the whole: the whole */
}
