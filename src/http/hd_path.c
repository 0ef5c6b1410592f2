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

/* hd_http_conf_t.escaped_slashes */
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

/* The byte of the %XX at <at>; -1: there is none. */
static int escaped_at(hd_str_t s, size_t at)
{
    int high, low;

    if (s.data[at] != '%' || at + 2 >= s.len)
        return -1;
    high = hd_hex_value(s.data[at + 1]);
    low = hd_hex_value(s.data[at + 2]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static bool is_slash(int c)
{
    return c == '/' || c == '\\';
}

/* Decodes every %XX of <p> in place, once: nginx's way; by <is_xds> unreserved ones,
 * others stay with their hex in upper case, and a backslash is a slash, as browsers and
 * Envoy read it. NUL is refused everywhere. */
static hd_rc_t decode(char *p, size_t *len, bool is_xds)
{
    hd_str_t in = hd_str_n(p, *len);
    size_t n = 0;

    for (size_t i = 0; i < in.len; i++) {
        int c = in.data[i];

        if (c == '\0')
            return HD_ERROR;
        if (c != '%') {
            p[n++] = is_xds && c == '\\' ? '/' : (char)c;
            continue;
        }
        c = escaped_at(in, i);
        if (c <= 0)
            return HD_ERROR;
        if (!is_xds || hd_is_char((unsigned char)c, HD_CH_UNRESERVED)) {
            p[n++] = (char)c;
        } else {
            p[n++] = '%';
            p[n++] = "0123456789ABCDEF"[c >> 4];
            p[n++] = "0123456789ABCDEF"[c & 15];
        }
        i += 2;
    }
    *len = n;
    return HD_OK;
}

static bool has_escaped_slash(hd_str_t path)
{
    for (size_t i = 0; i + 2 < path.len; i++) {
        if (is_slash(escaped_at(path, i)))
            return true;
    }
    return false;
}

static void unescape_slashes(char *p, size_t *len)
{
    hd_str_t in = hd_str_n(p, *len);
    size_t n = 0;

    for (size_t i = 0; i < in.len; i++) {
        int c = escaped_at(in, i);

        p[n++] = is_slash(c) ? (char)c : in.data[i];
        i += is_slash(c) ? 2 : 0;
    }
    *len = n;
}

static void merge_slashes(char *p, size_t *len)
{
    size_t n = 0;

    for (size_t i = 0; i < *len; i++) {
        if (n == 0 || p[i] != '/' || p[n - 1] != '/')
            p[n++] = p[i];
    }
    *len = n;
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

/* Envoy's settings, each for itself and in its order: what merging does to dots, and dots
 * to empty segments, depends on it. */
static hd_rc_t normalize_xds(char *p, size_t *len, const hd_http_conf_t *http)
{
    if (http->escaped_slashes == SLASH_REJECT && has_escaped_slash(hd_str_n(p, *len)))
        return HD_ERROR;
    if (http->escaped_slashes != SLASH_KEEP)
        unescape_slashes(p, len);
    if (http->normalize_path &&
        (decode(p, len, true) != HD_OK || squash(p, len, false) != HD_OK))
        return HD_ERROR;
    if (http->merge_slashes)
        merge_slashes(p, len);
    return HD_OK;
}

static hd_rc_t normalize_nginx(char *p, size_t *len, const hd_http_conf_t *http)
{
    return decode(p, len, false) == HD_OK
               ? squash(p, len, http->loc == NULL || http->loc->merge_slashes)
               : HD_ERROR;
}

hd_rc_t hd_http_normalize_path(hd_str_t raw, const hd_http_conf_t *http, hd_pool_t *pool,
                               hd_str_t *path, hd_str_t *query)
{
    ssize_t mark = hd_str_find_char(raw, '?');
    size_t len;
    char *out;

    *path = mark < 0 ? raw : hd_str_sub(raw, 0, (size_t)mark);
    *query = mark < 0 ? HD_STR_NONE : hd_str_sub(raw, (size_t)mark + 1, raw.len);
    if (path->len == 0 || path->data[0] != '/' || is_plain(*path))
        return HD_OK;
    len = path->len;
    out = hd_pool_alloc_unaligned(pool, len);
    memcpy(out, path->data, len);
    if ((http->is_xds ? normalize_xds : normalize_nginx)(out, &len, http) != HD_OK)
        return HD_ERROR;
    if (len != path->len || memcmp(out, path->data, len) != 0)
        *path = hd_str_n(out, len);
    return HD_OK;
}

hd_rc_t hd_http_take_path(hd_req_t *req, const hd_http_conf_t *http)
{
    hd_req_head_t *head = &req->head;
    hd_str_t raw = head->raw_path, plain;

    if (hd_http_normalize_path(raw, http, req->pool, &head->path, &head->query) != HD_OK)
        return HD_ERROR;
    if (!http->is_xds || head->path.data == raw.data)
        return HD_OK;
    plain = hd_str_sub(raw, 0, raw.len - head->query.len); /* with its '?' */
    head->is_unescaped =
        http->escaped_slashes == SLASH_REDIRECT && has_escaped_slash(plain);
    head->raw_path = head->query.data == NULL
                         ? head->path
                         : hd_str_printf(req->pool, "%.*s?%.*s", HD_STR_ARG(head->path),
                                         HD_STR_ARG(head->query));
    return HD_OK;
}
