/* Variables of the request: its line, the file that it names, its body. */
#include "http/hd_http_attrs_int.h"
#include "core/conf/hd_parse.h"
#include "http/hd_body_file.h"
#include "http/hd_chars.h"
#include "http/hd_file.h"
#include "http/hd_pace.h"
#include "http/hd_request_int.h"
#include "http/hd_try.h"

#include <limits.h>
#include <stdlib.h>

GET(host)
{
    hd_str_t host = of->req->head.authority;
    ssize_t at;

    UNUSED_REST;
    if (host.len > 0 && host.data[0] == '[') {
        at = hd_str_find_char(host, ']');
        if (at >= 0)
            host = hd_str_sub(host, 0, (size_t)at + 1);
    } else if ((at = hd_str_find_char(host, ':')) >= 0) {
        host = hd_str_sub(host, 0, (size_t)at);
    }
    if (host.len > 1 && host.data[host.len - 1] == '.') /* an absolute name */
        host.len--;
    if (host.len == 0 && of->req->vhost != NULL)
        host = of->req->vhost->name;
    hd_val_set_str(out, host);
}

GET(uri)
{
    UNUSED_REST;
    hd_val_set_if_any(out, of->req->head.path);
}

GET(request_uri)
{
    UNUSED_REST;
    hd_val_set_if_any(out, of->req->head.raw_path);
}

/* "/x?" has an empty one, "/x" has none. */
GET(args)
{
    UNUSED_REST;
    if (of->req->head.query.data != NULL)
        hd_val_set_str(out, of->req->head.query);
}

static hd_rc_t set_args(of_t *of, hd_val_t value)
{
    if (value.type != HD_VAL_STR)
        return HD_ERROR;
    of->req->head.query = value.str;
    of->req->path_changed = true;
    return HD_OK;
}

GET(limit_rate)
{
    UNUSED_REST;
    hd_val_set_int(out, (int64_t)hd_pace_rate(of->req));
}

/* As in nginx, what is no size changes nothing. */
static hd_rc_t set_limit_rate(of_t *of, hd_val_t value)
{
    hd_err_t err = {0};
    uint64_t rate;

    if (value.type != HD_VAL_STR ||
        hd_parse_size(value.str, INT64_MAX, &rate, &err) != HD_OK) {
        hd_log_conn(HD_LOG_ERROR, of->conn != NULL ? of->conn->id : 0,
                    "invalid $limit_rate \"%.*s\"", HD_STR_ARG(value.str));
        return HD_OK;
    }
    of->req->rate = rate;
    of->req->has_rate = true;
    return HD_OK;
}

GET(is_args)
{
    UNUSED_REST;
    hd_val_set_str(out, of->req->head.query.len > 0 ? HD_STR("?") : HD_STR(""));
}

GET(request_method)
{
    UNUSED_REST;
    hd_val_set_if_any(out, of->req->client_method.len > 0 ? of->req->client_method
                                                          : of->req->head.method);
}

GET(scheme)
{
    UNUSED_REST;
    hd_val_set_str(out, of->req->head.scheme);
}

static hd_str_t protocol_text(const hd_req_t *req)
{
    switch (req->head.version) {
    case HD_HTTP_20:
        return HD_STR("HTTP/2.0");
    case HD_HTTP_10:
        return HD_STR("HTTP/1.0");
    case HD_HTTP_11:
        return HD_STR("HTTP/1.1");
    default:
        return HD_STR("");
    }
}

GET(server_protocol)
{
    UNUSED_REST;
    hd_val_set_if_any(out, protocol_text(of->req));
}

GET(http2)
{
    UNUSED_REST;
    hd_val_set_str(out, of->req->head.version != HD_HTTP_20 ? HD_STR("")
                        : of->conn != NULL && hd_tls_is_on(of->conn) ? HD_STR("h2")
                                                                     : HD_STR("h2c"));
}

GET(request)
{
    const hd_req_head_t *head = &of->req->head;
    hd_str_t protocol = protocol_text(of->req);
    hd_str_t method = head->line_method.len > 0 ? head->line_method : head->method;
    hd_str_t target = hd_req_target(of->req);
    size_t len = method.len + target.len + protocol.len + 2, n = 0;
    char *text;

    UNUSED_REST;
    if (method.len == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, len);
    memcpy(text, method.data, method.len);
    n = method.len;
    text[n++] = ' ';
    if (target.len > 0)
        memcpy(text + n, target.data, target.len);
    n += target.len;
    text[n++] = ' ';
    memcpy(text + n, protocol.data, protocol.len);
    hd_val_set_str(out, hd_str_n(text, len));
}

GET(request_length)
{
    UNUSED_REST;
    hd_val_set_int(
        out, (int64_t)((of->req->head_wire_bytes > 0 ? of->req->head_wire_bytes
                                                     : of->req->head_bytes_received) +
                       of->req->bytes_received));
}

GET(request_completion)
{
    UNUSED_REST;
    hd_val_set_str(out, of->req->response_ended && !of->req->client_gone ? HD_STR("OK")
                                                                         : HD_STR(""));
}

GET(request_time)
{
    UNUSED_REST;
    hd_val_set_str(out, hd_attr_seconds(of->pool, hd_loop_now_ns(of->req->loop) -
                                                      of->req->start_ns));
}

GET(request_id)
{
    static const char digits[] = "0123456789abcdef";
    hd_req_t *req = of->req;

    UNUSED_REST;
    if (req->request_id.len == 0) {
        char *text = hd_pool_alloc_unaligned(req->pool, 32);

        for (int half = 0; half < 2; half++) {
            uint64_t r = hd_request_random();

            for (int i = 0; i < 16; i++, r >>= 4)
                text[half * 16 + i] = digits[r & 15];
        }
        req->request_id = hd_str_n(text, 32);
    }
    hd_val_set_str(out, req->request_id);
}

GET(server_name)
{
    UNUSED_REST;
    hd_val_set_str(out, of->req->vhost != NULL ? of->req->vhost->name : HD_STR(""));
}

GET(pipe)
{
    UNUSED_REST;
    hd_val_set_str(out, of->req->is_pipelined ? HD_STR("p") : HD_STR("."));
}

GET(request_port)
{
    uint64_t port;

    UNUSED_REST;
    if (hd_str_to_u64(hd_http_port_of(of->req->head.authority), 65535, &port))
        hd_val_set_int(out, (int64_t)port);
}

GET(is_request_port)
{
    UNUSED_REST;
    hd_val_set_str(out, hd_http_port_of(of->req->head.authority).len > 0 ? HD_STR(":")
                                                                         : HD_STR(""));
}

/* --- files --- */

GET(document_root)
{
    hd_str_t root;

    UNUSED_REST;
    if (hd_file_root(of->req, &root) == HD_OK)
        hd_val_set_str(out, root);
}

GET(realpath_root)
{
    hd_str_t root;
    char real[PATH_MAX];

    UNUSED_REST;
    if (hd_file_root(of->req, &root) == HD_OK &&
        realpath(hd_str_to_c(of->pool, root), real) != NULL)
        hd_val_set_str(out, hd_str_dup(of->pool, hd_str_c(real)));
}

GET(request_filename)
{
    hd_str_t path;
    size_t root_len;

    UNUSED_REST;
    if (hd_file_name(of->req, of->req->head.path, &path, &root_len) == HD_OK)
        hd_val_set_str(out, path);
}

/* The client's, once it is all there, if it lies in memory. */
GET(request_body)
{
    const hd_chain_t *body = hd_proxy_request_body(of->req);
    char *text;

    UNUSED_REST;
    if (body == NULL || body->bytes == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, body->bytes);
    if (hd_chain_peek(body, text, body->bytes) == body->bytes)
        hd_val_set_str(out, hd_str_n(text, body->bytes));
}

GET(request_body_file)
{
    UNUSED_REST;
    if (of->req->body_file != NULL)
        hd_val_set_str(out, of->req->body_file->name);
}

GET(http3)
{
    UNUSED_REST;
    hd_val_set_str(out, HD_STR(""));
}

const hd_attr_def_t hd_http_attrs_request[] = {
    A("host", host, HD_VAL_STR, R, "host of the request, without port"),
    A("uri", uri, HD_VAL_STR, R, "normalised path"),
    A("document_uri", uri, HD_VAL_STR, R, "the same as $uri"),
    A("request_uri", request_uri, HD_VAL_STR, R, "path and query as received"),
    {.name = "args",
     .type = HD_VAL_STR,
     .flags = R | HD_ATTR_SETTABLE,
     .get = get_args,
     .set = set_args,
     .help = "query"},
    {.name = "limit_rate",
     .type = HD_VAL_INT,
     .flags = R | HD_ATTR_VOLATILE | HD_ATTR_SETTABLE,
     .get = get_limit_rate,
     .set = set_limit_rate,
     .help = "bytes a second that the response is held to; 0: no limit"},
    A("query_string", args, HD_VAL_STR, R, "the same as $args"),
    A("is_args", is_args, HD_VAL_STR, R, "\"?\" if there is a query"),
    A("request_method", request_method, HD_VAL_STR, R, "GET, POST, …"),
    A("scheme", scheme, HD_VAL_STR, R, "http or https"),
    A("server_protocol", server_protocol, HD_VAL_STR, R, "HTTP/1.1, HTTP/2.0"),
    A("request", request, HD_VAL_STR, R, "the request line"),
    A("request_length", request_length, HD_VAL_INT, R, "bytes received, head and body"),
    A("request_body", request_body, HD_VAL_STR, R | HD_ATTR_VOLATILE,
      "the request's body, of up to 16k, once it is all there"),
    A("request_body_file", request_body_file, HD_VAL_STR, R | HD_ATTR_VOLATILE,
      "file of the request's body, with client_body_in_file_only"),
    A("request_completion", request_completion, HD_VAL_STR, R, "OK if it was answered"),
    A("request_time", request_time, HD_VAL_STR, R, "seconds since it began"),
    A("request_id", request_id, HD_VAL_STR, R, "32 hex digits, unique"),
    A("document_root", document_root, HD_VAL_STR, R, "root or alias in force"),
    A("realpath_root", realpath_root, HD_VAL_STR, R, "the same without symbolic links"),
    A("request_filename", request_filename, HD_VAL_STR, R, "the file's name"),
    A("server_name", server_name, HD_VAL_STR, R, "name of the server that answers"),
    A("pipe", pipe, HD_VAL_STR, R, "\"p\" if the request was pipelined, else \".\""),
    A("http2", http2, HD_VAL_STR, R, "h2, h2c or empty"),
    A("request_port", request_port, HD_VAL_INT, R, "port in Host, if there is one"),
    A("is_request_port", is_request_port, HD_VAL_STR, R, "\":\" if there is one"),
    A("http3", http3, HD_VAL_STR, R, "empty: there is no HTTP/3"),
    {0},
};
