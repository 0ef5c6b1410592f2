#include "http/hd_uri.h"

static bool needs_escape(unsigned char c)
{
    return c <= ' ' || c >= 0x7f || c == '%' || c == '?' || c == '#';
}

hd_str_t hd_uri_escape_where(hd_pool_t *pool, hd_str_t text,
                             bool (*needs)(unsigned char c))
{
    size_t extra = 0, n = 0;
    char *out;

    for (size_t i = 0; i < text.len; i++)
        extra += needs((unsigned char)text.data[i]) ? 2 : 0;
    if (extra == 0)
        return text;
    out = hd_pool_alloc_unaligned(pool, text.len + extra);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (!needs(c)) {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = "0123456789ABCDEF"[c >> 4];
        out[n++] = "0123456789ABCDEF"[c & 15];
    }
    return hd_str_n(out, n);
}

hd_str_t hd_uri_escape(hd_pool_t *pool, hd_str_t path)
{
    return hd_uri_escape_where(pool, path, needs_escape);
}

bool hd_uri_has_bad_bytes(hd_str_t uri)
{
    for (size_t i = 0; i < uri.len; i++) {
        unsigned char c = (unsigned char)uri.data[i];

        if (c <= ' ' || c == 0x7f)
            return true;
    }
    return false;
}

bool hd_uri_find_arg(hd_str_t query, hd_str_t name, hd_str_t *value)
{
    hd_str_t part;

    while (hd_str_split(&query, '&', &part)) {
        ssize_t at = hd_str_find_char(part, '=');

        if (at < 0 || !hd_str_eq_nocase(hd_str_sub(part, 0, (size_t)at), name))
            continue;
        *value = hd_str_sub(part, (size_t)at + 1, part.len);
        return true;
    }
    return false;
}

bool hd_uri_find_cookie(hd_req_t *req, hd_str_t name, bool ignore_case, hd_str_t *value)
{
    const hd_headers_t *h = req->received != NULL ? req->received : &req->head.headers;
    const hd_field_t *f = h->n == 0 ? NULL : hd_headers_get(h, HD_H_COOKIE);

    for (; f != NULL; f = hd_headers_find_next(h, f)) {
        hd_str_t rest = f->value, part;

        while (hd_str_split(&rest, ';', &part)) {
            hd_str_t own;
            ssize_t at;

            part = hd_str_trim(part);
            at = hd_str_find_char(part, '=');
            own = hd_str_sub(part, 0, at < 0 ? 0 : (size_t)at);
            if (at < 0 || (ignore_case ? !hd_str_eq_nocase(own, name)
                                       : !hd_str_eq(own, name)))
                continue;
            *value = hd_str_sub(part, (size_t)at + 1, part.len);
            return true;
        }
    }
    return false;
}
