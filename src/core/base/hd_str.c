#include "core/base/hd_str.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_word.h"
#include "core/os/hd_os.h"
#include <stdio.h>

static bool is_same_nocase(uint64_t a, uint64_t b)
{
    return a == b || hd_word_lower(a) == hd_word_lower(b);
}

bool hd_str_eq_nocase(hd_str_t a, hd_str_t b)
{
    size_t n = a.len, at;

    if (n != b.len)
        return false;
    if (n < 8)
        return is_same_nocase(hd_word_load_short(a.data, n),
                              hd_word_load_short(b.data, n));
    for (at = 0; n - at > 8; at += 8) {
        if (!is_same_nocase(hd_word_load(a.data + at), hd_word_load(b.data + at)))
            return false;
    }
    /* the last eight, some of them once more */
    return is_same_nocase(hd_word_load(a.data + n - 8), hd_word_load(b.data + n - 8));
}

int hd_str_cmp(hd_str_t a, hd_str_t b)
{
    size_t n = hd_min(a.len, b.len);
    int d = n == 0 ? 0 : memcmp(a.data, b.data, n);

    return d != 0 ? d : (a.len > b.len) - (a.len < b.len);
}

bool hd_str_has_prefix(hd_str_t s, hd_str_t prefix)
{
    return s.len >= prefix.len && hd_str_eq(hd_str_n(s.data, prefix.len), prefix);
}

bool hd_str_has_suffix(hd_str_t s, hd_str_t suffix)
{
    return s.len >= suffix.len &&
           (suffix.len == 0 ||
            memcmp(s.data + (s.len - suffix.len), suffix.data, suffix.len) == 0);
}

bool hd_str_has_prefix_nocase(hd_str_t s, hd_str_t prefix)
{
    return s.len >= prefix.len && hd_str_eq_nocase(hd_str_n(s.data, prefix.len), prefix);
}

ssize_t hd_str_find_char(hd_str_t s, char c)
{
    const char *p = s.len == 0 ? NULL : memchr(s.data, c, s.len);

    return p == NULL ? -1 : p - s.data;
}

ssize_t hd_str_find(hd_str_t s, hd_str_t needle)
{
    const char *p;

    if (needle.len == 0)
        return 0;
    if (s.len < needle.len)
        return -1;
    p = memmem(s.data, s.len, needle.data, needle.len);
    return p == NULL ? -1 : p - s.data;
}

bool hd_str_split(hd_str_t *rest, char sep, hd_str_t *part)
{
    ssize_t at;

    if (rest->data == NULL) /* how the part after the last <sep> leaves it */
        return false;
    at = hd_str_find_char(*rest, sep);
    if (at < 0) {
        *part = *rest;
        *rest = HD_STR_NONE;
        return true;
    }
    *part = hd_str_n(rest->data, (size_t)at);
    *rest = hd_str_sub(*rest, (size_t)at + 1, rest->len);
    return true;
}

unsigned hd_str_climbs(hd_str_t path)
{
    unsigned n = 0;
    hd_str_t part;

    while (hd_str_split(&path, '/', &part))
        n += hd_str_eq(part, HD_STR(".."));
    return n;
}

bool hd_str_to_u64(hd_str_t s, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.data[i] - '0';

        /* 19 digits always fit */
        if (digit > 9 || (i >= 19 && n > (UINT64_MAX - digit) / 10))
            return false;
        n = n * 10 + digit;
    }
    if (n > max)
        return false;
    *out = n;
    return true;
}

bool hd_str_to_i64(hd_str_t s, int64_t *out)
{
    bool minus = s.len > 0 && s.data[0] == '-';
    uint64_t n;

    if (!hd_str_to_u64(hd_str_sub(s, minus, s.len), INT64_MAX, &n))
        return false;
    *out = minus ? -(int64_t)n : (int64_t)n;
    return true;
}

char *hd_str_to_c(struct hd_pool_s *pool, hd_str_t s)
{
    char *p = hd_pool_alloc_unaligned(pool, s.len + 1);

    if (s.len > 0)
        memcpy(p, s.data, s.len);
    p[s.len] = '\0';
    return p;
}

hd_str_t hd_str_dup(struct hd_pool_s *pool, hd_str_t s)
{
    return hd_str_n(hd_str_to_c(pool, s), s.len);
}

bool hd_str_is_lower(hd_str_t s)
{
    size_t at = 0;

    for (; s.len - at >= 8; at += 8) {
        if (hd_word_lower(hd_word_load(s.data + at)) != hd_word_load(s.data + at))
            return false;
    }
    for (; at < s.len; at++) {
        if (hd_ascii_lower(s.data[at]) != s.data[at])
            return false;
    }
    return true;
}

hd_str_t hd_str_dup_lower(struct hd_pool_s *pool, hd_str_t s)
{
    char *p = hd_str_to_c(pool, s);

    for (size_t i = 0; i < s.len; i++)
        p[i] = hd_ascii_lower(p[i]);
    return hd_str_n(p, s.len);
}

hd_str_t hd_str_vprintf(struct hd_pool_s *pool, const char *fmt, va_list args)
{
    char small[256];
    va_list again;
    char *p;
    int n;

    va_copy(again, args);
    n = vsnprintf(small, sizeof(small), fmt, args);
    hd_bug_on(n < 0);
    if ((size_t)n < sizeof(small)) {
        va_end(again);
        return hd_str_dup(pool, hd_str_n(small, (size_t)n));
    }
    p = hd_pool_alloc_unaligned(pool, (size_t)n + 1);
    (void)vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return hd_str_n(p, (size_t)n);
}

hd_str_t hd_str_printf(struct hd_pool_s *pool, const char *fmt, ...)
{
    va_list args;
    hd_str_t s;

    va_start(args, fmt);
    s = hd_str_vprintf(pool, fmt, args);
    va_end(args);
    return s;
}
