#include "http/hd_codec.h"
#include "http/hd_chars.h"

static const struct {
    hd_str_t name;
    hd_method_t id;
} methods[] = {
    {HD_STR_INIT("GET"), HD_M_GET},         {HD_STR_INIT("POST"), HD_M_POST},
    {HD_STR_INIT("HEAD"), HD_M_HEAD},       {HD_STR_INIT("PUT"), HD_M_PUT},
    {HD_STR_INIT("DELETE"), HD_M_DELETE},   {HD_STR_INIT("PATCH"), HD_M_PATCH},
    {HD_STR_INIT("OPTIONS"), HD_M_OPTIONS}, {HD_STR_INIT("CONNECT"), HD_M_CONNECT},
    {HD_STR_INIT("TRACE"), HD_M_TRACE},
};

uint8_t hd_http_method_id(hd_str_t method)
{
    for (unsigned i = 0; i < hd_countof(methods); i++) {
        if (hd_str_eq(methods[i].name, method))
            return (uint8_t)methods[i].id;
    }
    return HD_M_OTHER;
}

static hd_h1_rc_t refuse(hd_h1_rc_t rc, const char *text, const char **why)
{
    *why = text;
    return rc;
}

hd_h1_rc_t hd_h1_scan_head(hd_str_t bytes, size_t *scan_from, size_t bytes_max,
                           size_t *head_len, const char **why)
{
    size_t line = *scan_from;

    while (line < bytes.len) {
        const char *lf = memchr(bytes.data + line, '\n', bytes.len - line);
        size_t end;

        if (lf == NULL)
            break;
        end = (size_t)(lf - bytes.data);
        if (end == line || bytes.data[end - 1] != '\r')
            return refuse(HD_H1_BAD, "line ends without CR", why);
        if (end - line == 1) { /* an empty line ends the head */
            *scan_from = line; /* who looks again finds it at once */
            *head_len = end + 1;
            return *head_len > bytes_max ? refuse(HD_H1_TOO_LONG, "head too long", why)
                                         : HD_H1_OK;
        }
        line = end + 1;
    }
    *scan_from = line;
    if (bytes.len > bytes_max)
        return refuse(HD_H1_TOO_LONG, "head too long", why);
    return HD_H1_MORE;
}

/* Takes the line at the start of <*rest>, without its CRLF; a bare CR inside is left for
 * the callers' checks of characters to refuse. */
static hd_str_t take_line(hd_str_t *rest)
{
    const char *lf = memchr(rest->data, '\n', rest->len);
    size_t len = (size_t)(lf - rest->data);
    hd_str_t line = {rest->data, len - 1};

    *rest = hd_str_sub(*rest, len + 1, rest->len);
    return line;
}

static bool is_long_line(size_t len, const hd_h1_limits_t *limits)
{
    return hd_unlikely(limits->line_max > 0 && len > limits->line_max);
}

bool hd_h1_is_odd_name(hd_str_t name, const hd_h1_limits_t *limits)
{
    if (limits->odd_fields == HD_ODD_PASS)
        return false;
    if (!limits->is_strict)
        return !limits->underscores && hd_str_find_char(name, '_') >= 0;
    for (size_t i = 0; i < name.len; i++) {
        if (!hd_is_char((unsigned char)name.data[i], HD_CH_NAME) &&
            (name.data[i] != '_' || !limits->underscores))
            return true;
    }
    return false;
}

/* One field line at the start of <*rest>, which is past it then (RFC 9112 §5). Lines that
 * start with a space are obs-fold: refused. */
static hd_h1_rc_t parse_field(hd_str_t *rest, const hd_h1_limits_t *limits,
                              hd_headers_t *h, const char **why)
{
    hd_str_t name = {rest->data, 0}, value;
    unsigned classes = HD_CH_NAME; /* that all of the name's bytes have */
    size_t len;

    while (hd_is_char((unsigned char)name.data[name.len], HD_CH_TOKEN))
        classes &= hd_chars[(unsigned char)name.data[name.len++]];
    /* it stops at the line's CR at the latest */
    if (name.len == 0)
        return refuse(HD_H1_BAD, "field line without a name", why);
    if (name.data[name.len] != ':')
        return refuse(HD_H1_BAD, "bad character in a field name", why);
    value.data = name.data + name.len + 1;
    value.len = rest->len - name.len - 1;
    len = hd_span_value(value);
    /* each line ends with CRLF (hd_h1_scan_head): any other stop is a wrong byte */
    if (value.data[len] != '\r' || value.data[len + 1] != '\n')
        return refuse(HD_H1_BAD, "bad character in a field value", why);
    if (is_long_line(name.len + 1 + len + 2, limits))
        return refuse(HD_H1_TOO_LONG, "header line too long", why);
    *rest = hd_str_n(value.data + len + 2, value.len - len - 2);
    value.len = len;
    value = hd_str_trim(value);
    if (hd_unlikely(classes == 0) && hd_h1_is_odd_name(name, limits))
        return limits->odd_fields == HD_ODD_DROP
                   ? HD_H1_OK
                   : refuse(HD_H1_BAD, "odd character in a field name", why);
    if (h->n >= limits->fields_max || hd_headers_add(h, name, value) == NULL)
        return refuse(HD_H1_TOO_LONG, "too many fields", why);
    return HD_H1_OK;
}

/* <rest>: whole lines up to the empty one. */
static hd_h1_rc_t parse_fields(hd_str_t rest, const hd_h1_limits_t *limits,
                               hd_headers_t *h, const char **why)
{
    while (rest.data[0] != '\r' || rest.data[1] != '\n') {
        hd_h1_rc_t rc = parse_field(&rest, limits, h, why);

        if (rc != HD_H1_OK)
            return rc;
    }
    return HD_H1_OK;
}

/* "HTTP/1.0", "HTTP/1.1"; a higher minor version is spoken to as 1.1 (RFC 9110 §2.5). */
static hd_h1_rc_t parse_version(hd_str_t text, uint8_t *version, const char **why)
{
    if (text.len != 8 || memcmp(text.data, "HTTP/", 5) != 0 || text.data[6] != '.' ||
        !hd_is_char((unsigned char)text.data[5], HD_CH_DIGIT) ||
        !hd_is_char((unsigned char)text.data[7], HD_CH_DIGIT))
        return refuse(HD_H1_BAD, "bad protocol version", why);
    if (text.data[5] != '1')
        return refuse(HD_H1_VERSION, "unsupported protocol version", why);
    *version = text.data[7] == '0' ? HD_HTTP_10 : HD_HTTP_11;
    return HD_H1_OK;
}

/* RFC 9112 §3.2: which form the target has, and what of it names the host. */
static hd_h1_rc_t parse_target(hd_str_t target, hd_pool_t *pool, hd_req_head_t *head,
                               hd_str_t *authority, const char **why)
{
    static const hd_str_t schemes[] = {HD_STR_INIT("http://"), HD_STR_INIT("https://")};

    *authority = HD_STR_NONE;
    if (head->method_id == HD_M_CONNECT) {
        if (!hd_http_is_connect_target(target))
            return refuse(HD_H1_BAD, "CONNECT needs host:port", why);
        *authority = target;
        head->raw_path = HD_STR("");
        return HD_H1_OK;
    }
    if (target.data[0] == '/') {
        head->raw_path = target;
        return HD_H1_OK;
    }
    if (target.len == 1 && target.data[0] == '*' && head->method_id == HD_M_OPTIONS) {
        head->raw_path = target;
        return HD_H1_OK;
    }
    for (unsigned i = 0; i < hd_countof(schemes); i++) {
        hd_str_t rest;
        size_t at = 0;

        if (!hd_str_has_prefix_nocase(target, schemes[i]))
            continue;
        rest = hd_str_sub(target, schemes[i].len, target.len);
        while (at < rest.len && rest.data[at] != '/' && rest.data[at] != '?')
            at++;
        *authority = hd_str_sub(rest, 0, at);
        head->raw_path = hd_str_sub(rest, at, rest.len);
        head->whole_target = target;
        if (!hd_http_is_authority(*authority))
            return refuse(HD_H1_BAD, "bad authority in the request target", why);
        if (head->raw_path.len == 0)
            head->raw_path = HD_STR("/");
        if (head->raw_path.data[0] == '?') /* an empty path is the root */
            head->raw_path = hd_str_printf(pool, "/%.*s", HD_STR_ARG(head->raw_path));
        return HD_H1_OK;
    }
    return refuse(HD_H1_BAD, "bad request target", why);
}

static hd_h1_rc_t parse_request_line(hd_str_t line, hd_pool_t *pool, hd_req_head_t *head,
                                     hd_str_t *authority, const char **why)
{
    size_t n = hd_span(line, HD_CH_TOKEN);
    hd_str_t rest, target;
    hd_h1_rc_t rc;

    head->method = hd_str_sub(line, 0, n);
    if (n == 0 || n == line.len || line.data[n] != ' ')
        return refuse(HD_H1_BAD, "bad method", why);
    rest = hd_str_sub(line, n + 1, line.len);
    n = hd_span(rest, HD_CH_TARGET);
    target = hd_str_sub(rest, 0, n);
    if (n == 0 || n == rest.len || rest.data[n] != ' ')
        return refuse(HD_H1_BAD, "bad character in the request target", why);
    rc = parse_version(hd_str_sub(rest, n + 1, rest.len), &head->version, why);
    if (rc != HD_H1_OK)
        return rc;
    head->method_id = hd_http_method_id(head->method);
    return parse_target(target, pool, head, authority, why);
}

/* What the Connection field says; shared by both directions. */
typedef struct {
    bool close, keep_alive, upgrade;
} connection_t;

static connection_t read_connection(const hd_headers_t *h)
{
    connection_t c = {0};

    for (const hd_field_t *f = hd_headers_get(h, HD_H_CONNECTION); f != NULL;
         f = hd_headers_find_next(h, f)) {
        hd_str_t rest = f->value, token;

        while (hd_str_split(&rest, ',', &token)) {
            token = hd_str_trim(token);
            c.close |= hd_str_eq_nocase(token, HD_STR("close"));
            c.keep_alive |= hd_str_eq_nocase(token, HD_STR("keep-alive"));
            c.upgrade |= hd_str_eq_nocase(token, HD_STR("upgrade"));
        }
    }
    return c;
}

/* RFC 9112 §6: one Content-Length of digits, or one Transfer-Encoding of "chunked", never
 * both: every other combination has been read in two ways by somebody. *length:
 * HD_LEN_UNKNOWN when chunked; *has_any false when neither field is there. */
static hd_h1_rc_t read_framing(const hd_headers_t *h, uint8_t version, int64_t *length,
                               bool *has_any, const char **why)
{
    const hd_field_t *cl = hd_headers_get(h, HD_H_CONTENT_LENGTH);
    const hd_field_t *te = hd_headers_get(h, HD_H_TRANSFER_ENCODING);
    uint64_t n;

    *has_any = cl != NULL || te != NULL;
    if (cl != NULL) {
        if (te != NULL)
            return refuse(HD_H1_BAD, "both Content-Length and Transfer-Encoding", why);
        if (hd_headers_find_next(h, cl) != NULL)
            return refuse(HD_H1_BAD, "more than one Content-Length", why);
        if (!hd_str_to_u64(cl->value, INT64_MAX, &n))
            return refuse(HD_H1_BAD, "bad Content-Length", why);
        *length = (int64_t)n;
        return HD_H1_OK;
    }
    if (te == NULL)
        return HD_H1_OK;
    if (version == HD_HTTP_10)
        return refuse(HD_H1_BAD, "Transfer-Encoding in HTTP/1.0", why);
    if (hd_headers_find_next(h, te) != NULL)
        return refuse(HD_H1_BAD, "more than one Transfer-Encoding", why);
    if (!hd_str_eq_nocase(te->value, HD_STR("chunked")))
        return hd_http_is_field_name(te->value)
                   ? refuse(HD_H1_TE, "unknown transfer coding", why)
                   : refuse(HD_H1_BAD, "bad Transfer-Encoding", why);
    *length = HD_LEN_UNKNOWN;
    return HD_H1_OK;
}

/* RFC 9112 §3.2: exactly one Host; an absolute target's authority takes its place, for
 * everyone who looks at it. */
static hd_h1_rc_t read_authority(hd_req_head_t *head, hd_str_t from_target,
                                 hd_pool_t *pool, const char **why)
{
    hd_field_t *host = hd_headers_get(&head->headers, HD_H_HOST);
    hd_str_t authority = from_target;

    if (host == NULL) {
        if (head->version != HD_HTTP_10)
            return refuse(HD_H1_BAD, "no Host", why);
    } else {
        if (hd_headers_find_next(&head->headers, host) != NULL)
            return refuse(HD_H1_BAD, "more than one Host", why);
        if (!hd_http_is_authority(host->value))
            return refuse(HD_H1_BAD, "bad Host", why);
        if (authority.len > 0)
            host->value = authority;
        else
            authority = host->value;
    }
    head->authority =
        hd_str_is_lower(authority) ? authority : hd_str_dup_lower(pool, authority);
    return HD_H1_OK;
}

static void name_authority(hd_req_head_t *head, hd_str_t authority, hd_pool_t *pool)
{
    if (head->authority.len == 0 && hd_http_is_authority(authority))
        head->authority = hd_str_dup_lower(pool, authority);
}

/* Of a head that is refused: whose it would have been, by its first word on that. */
static void guess_authority(hd_req_head_t *head, hd_str_t from_target, hd_pool_t *pool)
{
    const hd_field_t *host = hd_headers_get(&head->headers, HD_H_HOST);

    name_authority(head, from_target.len > 0 || host == NULL ? from_target : host->value,
                   pool);
}

/* Of a head that is too long, whose end isn't here: its first line and whose it is, for
 * who tells of it. Its fields are nobody's. */
static void read_beginning(hd_str_t bytes, hd_pool_t *pool, hd_req_head_t *head)
{
    hd_str_t authority, line;
    const char *why;

    if (hd_str_find_char(bytes, '\n') <= 0 ||
        parse_request_line(take_line(&bytes), pool, head, &authority, &why) != HD_H1_OK)
        return;
    while (authority.len == 0 && hd_str_find_char(bytes, '\n') > 0) {
        line = take_line(&bytes);
        if (hd_str_has_prefix_nocase(line, HD_STR("Host:")))
            authority = hd_str_trim(hd_str_sub(line, 5, line.len));
    }
    name_authority(head, authority, pool);
}

hd_h1_rc_t hd_h1_parse_request(hd_str_t bytes, size_t *scan_from,
                               const hd_h1_limits_t *limits, hd_pool_t *pool,
                               hd_req_head_t *head, size_t *used, const char **why)
{
    hd_str_t rest, line, authority = HD_STR_NONE;
    connection_t connection;
    const hd_field_t *f;
    hd_h1_rc_t rc;
    bool has_framing;
    size_t len;

    rc = hd_h1_scan_head(bytes, scan_from, limits->bytes_max, &len, why);
    if (rc == HD_H1_TOO_LONG)
        read_beginning(hd_str_sub(bytes, 0, limits->bytes_max), pool, head);
    if (rc != HD_H1_OK)
        return rc;
    *used = len;
    rest = hd_str_sub(bytes, 0, len);
    hd_headers_init(&head->headers, pool, 16);
    line = take_line(&rest);
    rc = parse_request_line(line, pool, head, &authority, why);
    if (rc == HD_H1_OK && is_long_line(line.len + 2, limits))
        rc = refuse(HD_H1_TOO_LONG, "request line too long", why);
    if (rc == HD_H1_OK)
        rc = parse_fields(rest, limits, &head->headers, why);
    if (rc == HD_H1_OK)
        rc = read_authority(head, authority, pool, why);
    head->content_length = 0;
    if (rc == HD_H1_OK)
        rc = read_framing(&head->headers, head->version, &head->content_length,
                          &has_framing, why);
    if (rc != HD_H1_OK) {
        guess_authority(head, authority, pool);
        return rc;
    }
    head->has_body = head->content_length != 0;
    if (head->has_body && head->method_id == HD_M_CONNECT)
        return refuse(HD_H1_BAD, "CONNECT with a body", why);

    connection = read_connection(&head->headers);
    head->keep_alive =
        !connection.close && (head->version == HD_HTTP_11 || connection.keep_alive);
    f = hd_headers_get(&head->headers, HD_H_EXPECT);
    head->expects_continue = f != NULL && head->has_body && head->version == HD_HTTP_11 &&
                             hd_str_eq_nocase(f->value, HD_STR("100-continue"));
    f = hd_headers_get(&head->headers, HD_H_UPGRADE);
    head->is_upgrade = f != NULL && connection.upgrade && head->version == HD_HTTP_11 &&
                       !head->has_body && /* it would end in the new protocol's bytes */
                       hd_http_is_protocol(f->value);
    head->protocol = head->is_upgrade ? f->value : HD_STR_NONE;
    return HD_H1_OK;
}

/* "HTTP/1.1 200 OK"; the reason and the space before it may be missing, as many servers
 * send it. */
static hd_h1_rc_t parse_status_line(hd_str_t line, hd_res_head_t *head, const char **why)
{
    uint64_t status;
    hd_h1_rc_t rc;

    rc = parse_version(hd_str_sub(line, 0, 8), &head->version, why);
    if (rc != HD_H1_OK)
        return rc == HD_H1_VERSION ? HD_H1_BAD : rc;
    if (line.len < 12 || line.data[8] != ' ' ||
        !hd_str_to_u64(hd_str_sub(line, 9, 3), 999, &status) || status < 100 ||
        (line.len > 12 && line.data[12] != ' '))
        return refuse(HD_H1_BAD, "bad status line", why);
    head->status = (unsigned)status;
    head->reason = hd_str_sub(line, 13, line.len);
    return hd_span_value(head->reason) == head->reason.len
               ? HD_H1_OK
               : refuse(HD_H1_BAD, "bad character in the status line", why);
}

hd_h1_rc_t hd_h1_parse_response(hd_str_t bytes, size_t *scan_from,
                                const hd_h1_limits_t *limits, hd_pool_t *pool,
                                bool was_head, bool was_connect, hd_res_head_t *head,
                                bool *keep_alive, bool *until_close, size_t *used,
                                const char **why)
{
    connection_t connection;
    bool has_framing, is_bodiless;
    hd_str_t rest;
    hd_h1_rc_t rc;
    size_t len;

    rc = hd_h1_scan_head(bytes, scan_from, limits->bytes_max, &len, why);
    if (rc != HD_H1_OK)
        return rc;
    *used = len;
    rest = hd_str_sub(bytes, 0, len);
    hd_headers_init(&head->headers, pool, 16);
    rc = parse_status_line(take_line(&rest), head, why);
    if (rc == HD_H1_OK)
        rc = parse_fields(rest, limits, &head->headers, why);
    head->content_length = HD_LEN_UNKNOWN;
    if (rc == HD_H1_OK)
        rc = read_framing(&head->headers, head->version, &head->content_length,
                          &has_framing, why);
    if (rc != HD_H1_OK)
        return rc == HD_H1_TE ? HD_H1_BAD : rc;

    connection = read_connection(&head->headers);
    *keep_alive =
        !connection.close && (head->version == HD_HTTP_11 || connection.keep_alive);
    *until_close = false;
    /* RFC 9112 §6.3 */
    is_bodiless = head->status < 200 || head->status == 204 || head->status == 304 ||
                  was_head || (was_connect && head->status < 300);
    head->has_body = !is_bodiless && head->content_length != 0;
    if (!is_bodiless && !has_framing) {
        *until_close = true;
        *keep_alive = false;
    }
    return HD_H1_OK;
}

/* Fields that say how a message is framed or who sent it have no place after the body
 * (RFC 9110 §6.5.1): dropped, never merged. */
static bool may_trail(hd_header_id_t id)
{
    switch (id) {
    case HD_H_AUTHORIZATION:
    case HD_H_CACHE_CONTROL:
    case HD_H_CONNECTION:
    case HD_H_CONTENT_ENCODING:
    case HD_H_CONTENT_LENGTH:
    case HD_H_CONTENT_TYPE:
    case HD_H_COOKIE:
    case HD_H_EXPECT:
    case HD_H_HOST:
    case HD_H_KEEP_ALIVE:
    case HD_H_PROXY_AUTHENTICATE:
    case HD_H_PROXY_CONNECTION:
    case HD_H_RANGE:
    case HD_H_SET_COOKIE:
    case HD_H_TE:
    case HD_H_TRAILER:
    case HD_H_TRANSFER_ENCODING:
    case HD_H_UPGRADE:
    case HD_H_WWW_AUTHENTICATE:
    case HD_H_X_FORWARDED_CLIENT_CERT:
    case HD_H_X_FORWARDED_FOR:
        return false;
    default:
        return true;
    }
}

hd_h1_rc_t hd_h1_parse_trailers(hd_str_t bytes, const hd_h1_limits_t *limits,
                                hd_pool_t *pool, hd_headers_t *trailers, size_t *used,
                                const char **why)
{
    size_t scan_from = 0, len;
    hd_h1_rc_t rc;

    if (bytes.len >= 2 && bytes.data[0] == '\r' && bytes.data[1] == '\n') { /* none */
        *used = 2;
        hd_headers_init(trailers, pool, 0);
        return HD_H1_OK;
    }
    rc = hd_h1_scan_head(bytes, &scan_from, limits->bytes_max, &len, why);
    if (rc != HD_H1_OK)
        return rc;
    *used = len;
    hd_headers_init(trailers, pool, 4);
    rc = parse_fields(hd_str_sub(bytes, 0, len), limits, trailers, why);
    for (unsigned i = 0; rc == HD_H1_OK && i < trailers->n; i++) {
        if (!may_trail((hd_header_id_t)trailers->fields[i].id))
            trailers->fields[i].flags |= HD_FIELD_REMOVED;
    }
    return rc;
}

hd_str_t hd_h1_longest_field(hd_str_t head, size_t *line_len)
{
    hd_str_t line, longest = HD_STR_NONE;

    hd_ignore(!hd_str_split(&head, '\n', &line)); /* the first line is none */
    while (hd_str_split(&head, '\n', &line)) {
        if (line.len > longest.len)
            longest = line;
    }
    if (line_len != NULL)
        *line_len = longest.len + 1; /* its LF */
    return hd_str_sub(longest, 0, hd_min(hd_span(longest, HD_CH_TOKEN), (size_t)64));
}
