#include "http/hd_chars.h"
#include "http/hd_request.h"

hd_str_t hd_http_type_of(const hd_http_loc_t *loc, hd_str_t path)
{
    const hd_http_types_t *types = loc->types;
    uint32_t low = 0, high = types != NULL ? types->n : 0;
    size_t at = path.len;
    hd_str_t extension;
    char lower[32];

    while (at > 0 && path.data[at - 1] != '.' && path.data[at - 1] != '/')
        at--;
    extension = hd_str_sub(path, at, path.len);
    if (at == 0 || path.data[at - 1] != '.' || extension.len > sizeof(lower))
        return loc->default_type;
    for (size_t i = 0; i < extension.len; i++)
        lower[i] = hd_ascii_lower(extension.data[i]);
    extension.data = lower;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        int order = hd_str_cmp(types->items[mid].extension, extension);

        if (order == 0)
            return types->items[mid].type;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return loc->default_type;
}

/* How a %XX and a slash are read; see hd_http_conf_t.escaped_slashes. */
enum { SLASH_KEEP, SLASH_REJECT, SLASH_REDIRECT, SLASH_FORWARD };

/* Is there anything to do at all? Most paths are plain. */
static bool is_plain(hd_str_t path)
{
    for (size_t i = 0; i < path.len; i++) {
        char c = path.data[i];

        if (c == '%' || c == '\\' || c == '\0')
            return false;
        if (c == '/' && i + 1 < path.len &&
            (path.data[i + 1] == '/' || path.data[i + 1] == '.'))
            return false;
    }
    return true;
}

/* Decodes <in> to <out>. nginx's way: every %XX once. Envoy's (<is_xds>): only unreserved
 * ones, hex in upper case; others stay as they are. NUL is refused everywhere. */
static hd_rc_t decode(hd_str_t in, const hd_http_conf_t *http, char *out, size_t *out_len)
{
    size_t n = 0;

    for (size_t i = 0; i < in.len; i++) {
        int high, low, c;

        if (in.data[i] == '\\' && http->is_xds && http->normalize_path) {
            out[n++] = '/'; /* as browsers and Envoy read it */
            continue;
        }
        if (in.data[i] == '\0')
            return HD_ERROR;
        if (in.data[i] != '%') {
            out[n++] = in.data[i];
            continue;
        }
        high = i + 2 < in.len ? hd_hex_value(in.data[i + 1]) : -1;
        low = i + 2 < in.len ? hd_hex_value(in.data[i + 2]) : -1;
        if (high < 0 || low < 0)
            return HD_ERROR;
        c = high << 4 | low;
        if (c == 0)
            return HD_ERROR;
        if ((c == '/' || c == '\\') && http->is_xds) {
            if (http->escaped_slashes == SLASH_REJECT)
                return HD_ERROR;
            if (http->escaped_slashes != SLASH_KEEP) {
                out[n++] = '/';
                i += 2;
                continue;
            }
        }
        if (!http->is_xds || hd_is_char((unsigned char)c, HD_CH_UNRESERVED)) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = "0123456789ABCDEF"[high];
            out[n++] = "0123456789ABCDEF"[low];
        }
        i += 2;
    }
    *out_len = n;
    return HD_OK;
}

/* Removes dot segments in place (RFC 3986 §5.2.4); ".." above the root is refused, as by
 * nginx. With <merge>, runs of slashes become one. */
static hd_rc_t squash(char *p, size_t *len, bool merge)
{
    size_t n = 0;

    for (size_t i = 0; i < *len;) {
        size_t end = i + 1; /* p[i] is a slash */

        while (end < *len && p[end] != '/')
            end++;
        if (end - i == 2 && p[i + 1] == '.') {
            if (end == *len)
                p[n++] = '/';
        } else if (end - i == 3 && p[i + 1] == '.' && p[i + 2] == '.') {
            if (n == 0)
                return HD_ERROR;
            do
                n--;
            while (p[n] != '/');
            if (end == *len)
                p[n++] = '/';
        } else if (end - i == 1 && merge && end < *len) {
            /* an empty segment: its slash is dropped */
        } else {
            if (n != i)
                memmove(p + n, p + i, end - i);
            n += end - i;
        }
        i = end;
    }
    if (n == 0)
        p[n++] = '/';
    *len = n;
    return HD_OK;
}

hd_rc_t hd_http_normalize_path(hd_str_t raw, const hd_http_conf_t *http, hd_pool_t *pool,
                               hd_str_t *path, hd_str_t *query)
{
    ssize_t mark = hd_str_find_char(raw, '?');
    bool merge;
    size_t len;
    char *out;

    *path = mark < 0 ? raw : hd_str_sub(raw, 0, (size_t)mark);
    *query = mark < 0 ? HD_STR_NONE : hd_str_sub(raw, (size_t)mark + 1, raw.len);
    if (path->len == 0 || path->data[0] != '/' || is_plain(*path))
        return HD_OK;
    if (http->is_xds && !http->normalize_path)
        return HD_OK;
    out = hd_pool_alloc_unaligned(pool, path->len + 1);
    if (decode(*path, http, out, &len) != HD_OK)
        return HD_ERROR;
    merge = http->is_xds ? http->merge_slashes
                         : http->loc == NULL || http->loc->merge_slashes;
    if (squash(out, &len, merge) != HD_OK)
        return HD_ERROR;
    *path = hd_str_n(out, len);
    return HD_OK;
}
