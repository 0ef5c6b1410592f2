/* Variables of header fields and of what stands in them: $http_NAME, $sent_http_NAME,
 * $upstream_http_NAME, trailers, cookies, arguments of the query. */
#include "http/hd_http_attrs_int.h"
#include "http/hd_request_int.h"
#include "http/hd_try.h"
#include "http/hd_uri.h"

/* $http_user_agent asks for User-Agent: '_' stands for '-'. */
static const hd_field_t *find_field_of(const hd_headers_t *h, hd_str_t rest,
                                       bool is_removed)
{
    for (unsigned i = 0; i < h->n; i++) {
        const hd_field_t *f = &h->fields[i];
        size_t n = 0;

        if (f->name.len != rest.len ||
            ((f->flags & HD_FIELD_REMOVED) != 0) != is_removed)
            continue;
        while (n < rest.len) {
            char c = hd_ascii_lower(f->name.data[n]);

            if ((c == '-' ? '_' : c) != hd_ascii_lower(rest.data[n]))
                break;
            n++;
        }
        if (n == rest.len)
            return f;
    }
    return NULL;
}

static const hd_field_t *find_field(const hd_headers_t *h, hd_str_t rest)
{
    return find_field_of(h, rest, false);
}

/* Several fields of one name: joined by ", ", as nginx does since 1.23. */
static void set_field(of_t *of, const hd_headers_t *h, hd_str_t rest, hd_val_t *out)
{
    const hd_field_t *f = h->n == 0 ? NULL : find_field(h, rest);
    const hd_field_t *next;
    hd_str_t value;

    if (f == NULL)
        return;
    value = f->value;
    for (next = hd_headers_find_next(h, f); next != NULL;
         next = hd_headers_find_next(h, next))
        value =
            hd_str_printf(of->pool, "%.*s%s%.*s", HD_STR_ARG(value),
                          f->id == HD_H_COOKIE ? "; " : ", ", HD_STR_ARG(next->value));
    hd_val_set_str(out, value);
}

static const hd_headers_t *received(const hd_req_t *req)
{
    return req->received != NULL ? req->received : &req->head.headers;
}

GET(http)
{
    set_field(of, received(of->req), rest, out);
    if (out->type == HD_VAL_NONE &&
        hd_str_eq_nocase(rest, HD_STR("host"))) /* HTTP/2's is :authority */
        hd_val_set_if_any(out, of->req->head.authority);
}

/* What the codec writes beside the fields of the answer: HTTP/1 alone has these. */
static bool set_framing(of_t *of, hd_str_t name, hd_val_t *out)
{
    const hd_req_t *req = of->req;
    bool is_connection = hd_str_eq(name, HD_STR("connection")), ends;

    if (hd_str_eq(name, HD_STR("transfer_encoding"))) {
        if (req->client->ends_conn != NULL && req->head.version == HD_HTTP_11 &&
            req->res.content_length < 0 && req->res.has_body && !req->loc->no_chunked)
            hd_val_set_str(out, HD_STR("chunked"));
        return true;
    }
    if (!is_connection && !hd_str_eq(name, HD_STR("keep_alive")))
        return false;
    if (req->client->ends_conn == NULL)
        return true;
    ends = req->client->ends_conn(req);
    if (is_connection)
        hd_val_set_str(out, req->res.status == 101 ? HD_STR("upgrade")
                            : ends                 ? HD_STR("close")
                                                   : HD_STR("keep-alive"));
    else if (!ends && req->loc->keepalive_field_s > 0)
        hd_val_set_str(
            out, hd_str_printf(of->pool, "timeout=%u", req->loc->keepalive_field_s));
    return true;
}

GET(sent_http)
{
    if (hd_str_eq(rest, HD_STR("content_length"))) {
        if (of->req->res.content_length >= 0 && of->req->res.status != 204)
            hd_val_set_int(out, of->req->res.content_length);
        return;
    }
    if (!set_framing(of, rest, out))
        set_field(of, &of->req->res.headers, rest, out);
}

/* The fields of the last upstream's answer as it came, whatever answers now; false: there
 * are none. */
static bool get_upstream_fields(const hd_req_t *req, hd_headers_t *h)
{
    if (req->upstream_status == 0 || (req->is_local_reply && req->up_headers == NULL))
        return false;
    *h = req->is_local_reply ? *req->up_headers : req->res.headers;
    if (!req->is_local_reply)
        h->n = (uint16_t)hd_response_fields_n(req);
    return h->n > 0;
}

/* Those that aren't passed on, too, as X-Accel-Redirect. */
GET(upstream_http)
{
    const hd_field_t *f;
    hd_headers_t h;

    if (!get_upstream_fields(of->req, &h))
        return;
    set_field(of, &h, rest, out);
    if (out->type == HD_VAL_NONE && (f = find_field_of(&h, rest, true)) != NULL)
        hd_val_set_str(out, f->value);
}

/* $upstream_cookie_NAME: what Set-Cookie of the answer gives NAME; the first one. */
GET(upstream_cookie)
{
    hd_headers_t h;

    if (!get_upstream_fields(of->req, &h))
        return;
    for (const hd_field_t *f = hd_headers_get(&h, HD_H_SET_COOKIE);
         f != NULL && f < h.fields + h.n; f = hd_headers_find_next(&h, f)) {
        hd_str_t list = f->value, pair;
        ssize_t at;

        if (!hd_str_split(&list, ';', &pair))
            continue;
        at = hd_str_find_char(pair, '=');
        if (at < 0 ||
            !hd_str_eq_nocase(hd_str_trim(hd_str_sub(pair, 0, (size_t)at)), rest))
            continue;
        hd_val_set_str(out, hd_str_trim(hd_str_sub(pair, (size_t)at + 1, pair.len)));
        return;
    }
}

GET(upstream_trailer)
{
    const hd_try_t *t = of->req->tries;

    if (t != NULL && t->trailers != NULL)
        set_field(of, t->trailers, rest, out);
}

GET(trailer)
{
    set_field(of, &of->req->trailers, rest, out);
}

GET(sent_trailer)
{
    set_field(of, &of->req->res_trailers, rest, out);
}

GET(arg)
{
    hd_str_t value;

    if (hd_uri_find_arg(of->req->head.query, rest, &value))
        hd_val_set_str(out, value);
}

GET(cookie)
{
    hd_str_t value;

    if (hd_uri_find_cookie(of->req, rest, true, &value))
        hd_val_set_str(out, value);
}

GET(proxy_add_x_forwarded_for)
{
    const hd_headers_t *h = received(of->req);
    const hd_field_t *f = h->n == 0 ? NULL : hd_headers_get(h, HD_H_X_FORWARDED_FOR);
    const hd_addr_t *client = hd_http_attr_client(of);
    hd_val_t own = {0}, theirs = {0};

    UNUSED_REST;
    if (client == NULL)
        return;
    hd_http_attr_set_addr(of, client, &own);
    if (f != NULL)
        set_field(of, h, HD_STR("x_forwarded_for"), &theirs);
    if (theirs.type == HD_VAL_STR)
        hd_val_set_str(out, hd_str_printf(of->pool, "%.*s, %.*s", HD_STR_ARG(theirs.str),
                                          HD_STR_ARG(own.str)));
    else
        hd_val_set_str(out, own.str);
}

static void set_known(of_t *of, hd_header_id_t id, hd_val_t *out)
{
    const hd_headers_t *h = received(of->req);
    const hd_field_t *f = h->n == 0 ? NULL : hd_headers_get(h, id);

    if (f != NULL)
        hd_val_set_str(out, f->value);
}

GET(content_type)
{
    UNUSED_REST;
    set_known(of, HD_H_CONTENT_TYPE, out);
}

GET(content_length)
{
    UNUSED_REST;
    if (of->req->head.has_body && of->req->head.content_length >= 0)
        hd_val_set_int(out, of->req->head.content_length);
    else if (of->req->head.has_body && of->req->body_ended)
        hd_val_set_int(out, (int64_t)of->req->bytes_received); /* of chunks: known now */
    else
        set_known(of, HD_H_CONTENT_LENGTH, out);
}

const hd_attr_def_t hd_http_attrs_fields[] = {
    A("http_", http, HD_VAL_STR, FAMILY, "a field of the request"),
    A("sent_http_", sent_http, HD_VAL_STR, FAMILY, "a field of the response"),
    A("upstream_http_", upstream_http, HD_VAL_STR, FAMILY, "a field of the upstream's"),
    A("upstream_cookie_", upstream_cookie, HD_VAL_STR, FAMILY, "from its Set-Cookie"),
    A("upstream_trailer_", upstream_trailer, HD_VAL_STR, FAMILY, "a trailer of its"),
    A("trailer_", trailer, HD_VAL_STR, FAMILY, "a trailer of the request"),
    A("sent_trailer_", sent_trailer, HD_VAL_STR, FAMILY, "a trailer of the response"),
    A("arg_", arg, HD_VAL_STR, FAMILY, "an argument of the query"),
    A("cookie_", cookie, HD_VAL_STR, FAMILY, "a cookie"),
    A("content_type", content_type, HD_VAL_STR, R, "Content-Type of the request"),
    A("content_length", content_length, HD_VAL_STR, R, "Content-Length of the request"),
    A("proxy_add_x_forwarded_for", proxy_add_x_forwarded_for, HD_VAL_STR, R,
      "X-Forwarded-For with $remote_addr appended"),
    {0},
};
