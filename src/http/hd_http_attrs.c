/* nginx's variables of requests. Most are cheap to look up, so they are asked anew each
 * time rather than entered into the request's table of values (VOLATILE). */
#include "hd_version.h"
#include "core/net/hd_clients.h"
#include "core/net/hd_tls.h"
#include "core/conf/hd_parse.h"
#include "http/hd_body_file.h"
#include "http/hd_file.h"
#include "http/hd_pace.h"
#include "http/hd_request_int.h"
#include "http/hd_try.h"
#include "http/hd_uri.h"
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

typedef const hd_attr_of_t of_t;

static void set_str(hd_val_t *out, hd_str_t s)
{
    out->type = HD_VAL_STR;
    out->str = s;
}

/* An empty value counts as none, as in nginx's log ("-"). */
static void set_if_any(hd_val_t *out, hd_str_t s)
{
    if (s.len > 0)
        set_str(out, s);
}

static void set_int(hd_val_t *out, int64_t n)
{
    out->type = HD_VAL_INT;
    out->num = n;
}

#define GET(name) static void get_##name(of_t *of, hd_str_t rest, hd_val_t *out)
#define UNUSED_REST (void)rest, (void)of

/* --- the request line --- */

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
    set_str(out, host);
}

GET(uri)
{
    UNUSED_REST;
    set_if_any(out, of->req->head.path);
}

GET(request_uri)
{
    UNUSED_REST;
    set_str(out, of->req->head.raw_path);
}

GET(args)
{
    UNUSED_REST;
    set_str(out, of->req->head.query);
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
    set_int(out, (int64_t)hd_pace_rate(of->req));
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
    set_str(out, of->req->head.query.len > 0 ? HD_STR("?") : HD_STR(""));
}

GET(request_method)
{
    UNUSED_REST;
    set_if_any(out, of->req->client_method.len > 0 ? of->req->client_method
                                                   : of->req->head.method);
}

GET(scheme)
{
    UNUSED_REST;
    set_str(out, of->req->head.scheme);
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
    set_if_any(out, protocol_text(of->req));
}

GET(request)
{
    const hd_req_head_t *head = &of->req->head;
    hd_str_t protocol = protocol_text(of->req);
    size_t len = head->method.len + head->raw_path.len + protocol.len + 2, n = 0;
    char *text;

    UNUSED_REST;
    if (head->method.len == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, len);
    memcpy(text, head->method.data, head->method.len);
    n = head->method.len;
    text[n++] = ' ';
    if (head->raw_path.len > 0) /* CONNECT has none */
        memcpy(text + n, head->raw_path.data, head->raw_path.len);
    n += head->raw_path.len;
    text[n++] = ' ';
    memcpy(text + n, protocol.data, protocol.len);
    set_str(out, hd_str_n(text, len));
}

GET(request_length)
{
    UNUSED_REST;
    set_int(out, (int64_t)(of->req->head_bytes_received + of->req->bytes_received));
}

GET(request_completion)
{
    UNUSED_REST;
    set_str(out,
            of->req->response_ended && !of->req->client_gone ? HD_STR("OK") : HD_STR(""));
}

static hd_str_t seconds_text(hd_pool_t *pool, uint64_t ns)
{
    uint64_t ms = ns / 1000000;

    return hd_str_printf(pool, "%llu.%03u", (unsigned long long)(ms / 1000),
                         (unsigned)(ms % 1000));
}

GET(request_time)
{
    UNUSED_REST;
    set_str(out,
            seconds_text(of->pool, hd_loop_now_ns(of->req->loop) - of->req->start_ns));
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
    set_str(out, req->request_id);
}

GET(server_name)
{
    UNUSED_REST;
    set_str(out, of->req->vhost != NULL ? of->req->vhost->name : HD_STR(""));
}

/* --- files --- */

GET(document_root)
{
    hd_str_t root;

    UNUSED_REST;
    if (hd_file_root(of->req, &root) == HD_OK)
        set_str(out, root);
}

GET(realpath_root)
{
    hd_str_t root;
    char real[PATH_MAX];

    UNUSED_REST;
    if (hd_file_root(of->req, &root) == HD_OK &&
        realpath(hd_str_to_c(of->pool, root), real) != NULL)
        set_str(out, hd_str_dup(of->pool, hd_str_c(real)));
}

GET(request_filename)
{
    hd_str_t path;
    size_t root_len;

    UNUSED_REST;
    if (hd_file_name(of->req, of->req->head.path, &path, &root_len) == HD_OK)
        set_str(out, path);
}

/* --- fields --- */

/* $http_user_agent asks for User-Agent: '_' stands for '-'. */
static const hd_field_t *find_field(const hd_headers_t *h, hd_str_t rest)
{
    for (unsigned i = 0; i < h->n; i++) {
        const hd_field_t *f = &h->fields[i];
        size_t n = 0;

        if (f->name.len != rest.len || (f->flags & HD_FIELD_REMOVED))
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
    set_str(out, value);
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
        set_if_any(out, of->req->head.authority);
}

GET(sent_http)
{
    if (hd_str_eq(rest, HD_STR("content_length"))) {
        if (of->req->res.content_length >= 0)
            set_int(out, of->req->res.content_length);
        return;
    }
    set_field(of, &of->req->res.headers, rest, out);
}

static const hd_try_t *last_try(const hd_req_t *req)
{
    return req->tries;
}

GET(upstream_http)
{
    if (of->req->upstream_status != 0 && !of->req->is_local_reply)
        set_field(of, &of->req->res.headers, rest, out);
}

/* $upstream_cookie_NAME: what Set-Cookie of the answer gives NAME; the first one. */
GET(upstream_cookie)
{
    const hd_headers_t *h = &of->req->res.headers;
    const hd_field_t *f = NULL;

    if (of->req->upstream_status == 0 || of->req->is_local_reply || h->n == 0)
        return;
    for (f = hd_headers_get(h, HD_H_SET_COOKIE); f != NULL;
         f = hd_headers_find_next(h, f)) {
        hd_str_t list = f->value, pair;
        ssize_t at;

        if (!hd_str_split(&list, ';', &pair))
            continue;
        at = hd_str_find_char(pair, '=');
        if (at < 0 ||
            !hd_str_eq_nocase(hd_str_trim(hd_str_sub(pair, 0, (size_t)at)), rest))
            continue;
        set_str(out, hd_str_trim(hd_str_sub(pair, (size_t)at + 1, pair.len)));
        return;
    }
}

GET(upstream_trailer)
{
    const hd_try_t *t = last_try(of->req);

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
        set_str(out, value);
}

GET(cookie)
{
    hd_str_t value;

    if (hd_uri_find_cookie(of->req, rest, &value))
        set_str(out, value);
}

static void set_known(of_t *of, hd_header_id_t id, hd_val_t *out)
{
    const hd_headers_t *h = received(of->req);
    const hd_field_t *f = h->n == 0 ? NULL : hd_headers_get(h, id);

    if (f != NULL)
        set_str(out, f->value);
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
        set_int(out, of->req->head.content_length);
    else
        set_known(of, HD_H_CONTENT_LENGTH, out);
}

/* --- the client's conn --- */

static void set_addr(of_t *of, const hd_addr_t *a, hd_val_t *out)
{
    char text[HD_ADDR_TEXT_MAX];

    set_str(out, a->family == AF_UNIX ? HD_STR("unix:")
                                      : hd_str_dup(of->pool, hd_addr_print_ip(a, text)));
}

static const hd_addr_t *remote_of(of_t *of)
{
    if (of->req != NULL && of->req->conn != NULL)
        return hd_request_peer(of->req);
    return of->conn != NULL ? hd_conn_remote(of->conn) : NULL;
}

GET(remote_addr)
{
    const hd_addr_t *a = remote_of(of);

    UNUSED_REST;
    if (a != NULL)
        set_addr(of, a, out);
}

/* xDS: the client behind trusted proxies; else the conn's. */
GET(client_ip)
{
    UNUSED_REST;
    if (of->req != NULL && of->req->client_addr.family != AF_UNSPEC)
        set_addr(of, &of->req->client_addr, out);
    else if (of->conn != NULL)
        set_addr(of, hd_conn_remote(of->conn), out);
}

GET(binary_remote_addr)
{
    const hd_addr_t *a = remote_of(of);

    UNUSED_REST;
    if (a != NULL && (a->family == AF_INET || a->family == AF_INET6))
        set_str(out, hd_str_n((const char *)a->v6, a->family == AF_INET ? 4 : 16));
}

GET(remote_port)
{
    const hd_addr_t *a = remote_of(of);

    UNUSED_REST;
    if (a != NULL && (a->port != 0 || !of->req || !of->req->has_real_addr))
        set_int(out, a->port);
}

GET(realip_remote_addr)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_addr(of, &of->conn->remote, out);
}

GET(server_addr)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_addr(of, hd_conn_socket_local(of->conn), out);
}

GET(server_port)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_int(out, hd_conn_socket_local(of->conn)->port);
}

GET(connection)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_int(out, (int64_t)of->conn->id);
}

GET(connection_time)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_str(out, seconds_text(of->pool,
                                  hd_loop_now_ns(of->conn->loop) - of->conn->opened_ns));
}

GET(connection_requests)
{
    UNUSED_REST;
    set_int(out, of->req->conn_requests);
}

static const hd_tls_peer_t *tls_of(of_t *of)
{
    return of->conn != NULL ? hd_tls_peer(of->conn) : NULL;
}

GET(https)
{
    UNUSED_REST;
    set_str(out, of->conn != NULL && hd_tls_is_on(of->conn) ? HD_STR("on") : HD_STR(""));
}

GET(ssl_protocol)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        set_if_any(out, tls_of(of)->version);
}

GET(ssl_cipher)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        set_if_any(out, tls_of(of)->cipher);
}

GET(ssl_server_name)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        set_if_any(out, of->conn->facts->sni);
}

GET(ssl_alpn_protocol)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        set_if_any(out, of->conn->facts->alpn);
}

GET(ssl_session_reused)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        set_str(out, tls_of(of)->resumed ? HD_STR("r") : HD_STR("."));
}

GET(ssl_client_s_dn)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        set_if_any(out, tls_of(of)->subject);
}

GET(ssl_client_i_dn)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        set_if_any(out, tls_of(of)->issuer);
}

/* Upper case, as in nginx. */
GET(ssl_client_serial)
{
    const hd_tls_peer_t *tls = tls_of(of);
    char *text;

    UNUSED_REST;
    if (tls == NULL || tls->serial.len == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, tls->serial.len);
    for (size_t i = 0; i < tls->serial.len; i++)
        text[i] = tls->serial.data[i] >= 'a' ? (char)(tls->serial.data[i] - 'a' + 'A')
                                             : tls->serial.data[i];
    set_str(out, hd_str_n(text, tls->serial.len));
}

static void set_fact(of_t *of, hd_tls_fact_t what, hd_val_t *out)
{
    if (of->conn != NULL)
        set_if_any(out, hd_tls_fact(of->conn, what, of->pool));
}

#define FACT(name, what)                                                                 \
    GET(name)                                                                            \
    {                                                                                    \
        (void)rest;                                                                      \
        set_fact(of, what, out);                                                         \
    }

FACT(ssl_ciphers, HD_TLS_CIPHERS)
FACT(ssl_curve, HD_TLS_CURVE)
FACT(ssl_curves, HD_TLS_CURVES)
FACT(ssl_session_id, HD_TLS_SESSION_ID)
FACT(ssl_sigalg, HD_TLS_SIGALG)
FACT(ssl_client_sigalg, HD_TLS_PEER_SIGALG)
FACT(ssl_client_fingerprint, HD_TLS_PEER_FINGERPRINT)
FACT(ssl_client_s_dn_legacy, HD_TLS_PEER_SUBJECT_LEGACY)
FACT(ssl_client_i_dn_legacy, HD_TLS_PEER_ISSUER_LEGACY)
FACT(ssl_client_v_start, HD_TLS_PEER_START)
FACT(ssl_client_v_end, HD_TLS_PEER_END)
FACT(ssl_client_v_remain, HD_TLS_PEER_REMAIN)

/* What lies in memory of it, once it is all there. */
GET(request_body)
{
    const hd_chain_t *body = hd_proxy_request_body(of->req);
    char *text;

    UNUSED_REST;
    if (body == NULL || body->bytes == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, body->bytes);
    if (hd_chain_peek(body, text, body->bytes) == body->bytes)
        set_str(out, hd_str_n(text, body->bytes));
}

GET(request_body_file)
{
    UNUSED_REST;
    if (of->req->body_file != NULL)
        set_str(out, of->req->body_file->name);
}

/* Early data is never taken. */
GET(ssl_early_data)
{
    UNUSED_REST;
    (void)out;
}

GET(ssl_client_raw_cert)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_if_any(out, hd_tls_peer_pem(of->conn));
}

/* nginx: without the last line end, each further line begun by a tab, so that it is a
 * field value continued (which HTTP no longer has). */
GET(ssl_client_cert)
{
    hd_str_t pem = of->conn != NULL ? hd_tls_peer_pem(of->conn) : HD_STR_NONE;
    char *text;
    size_t n = 0;

    UNUSED_REST;
    if (pem.len == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, 2 * pem.len);
    for (size_t i = 0; i + 1 < pem.len; i++) {
        text[n++] = pem.data[i];
        if (pem.data[i] == '\n')
            text[n++] = '\t';
    }
    set_str(out, hd_str_n(text, n));
}

static bool is_reserved(unsigned char c)
{
    return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '.' || c == '_' || c == '~');
}

GET(ssl_client_escaped_cert)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_if_any(out,
                   hd_uri_escape_where(of->pool, hd_tls_peer_pem(of->conn), is_reserved));
}

GET(ssl_client_verify)
{
    const hd_tls_peer_t *tls = tls_of(of);

    UNUSED_REST;
    if (tls == NULL)
        return;
    if (tls->verified)
        set_str(out, HD_STR("SUCCESS"));
    else if (tls->subject.len == 0)
        set_str(out, HD_STR("NONE"));
    else
        set_str(out,
                hd_str_printf(of->pool, "FAILED:%.*s", HD_STR_ARG(tls->verify_error)));
}

GET(http2)
{
    UNUSED_REST;
    if (of->req->head.version == HD_HTTP_20)
        set_str(out, of->conn != NULL && hd_tls_is_on(of->conn) ? HD_STR("h2")
                                                                : HD_STR("h2c"));
}

/* The peer's verified identity: set by the TLS or HBONE layer alone. */
GET(peer_principal)
{
    UNUSED_REST;
    if (of->conn != NULL && of->conn->facts != NULL)
        set_if_any(out, of->conn->facts->peer_principal);
}

GET(local_principal)
{
    UNUSED_REST;
    if (of->conn != NULL && of->conn->facts != NULL)
        set_if_any(out, of->conn->facts->local_principal);
}

static void set_proxied(of_t *of, bool is_local, bool is_port, hd_val_t *out)
{
    const hd_conn_facts_t *facts = of->conn != NULL ? of->conn->facts : NULL;
    const hd_addr_t *a;

    if (facts == NULL || facts->proxied == NULL)
        return;
    a = is_local ? &facts->proxied->local : &facts->proxied->remote;
    if (a->family == AF_UNSPEC)
        return;
    if (is_port)
        set_int(out, a->port);
    else
        set_addr(of, a, out);
}

GET(proxy_protocol_addr)
{
    UNUSED_REST;
    set_proxied(of, false, false, out);
}

GET(proxy_protocol_port)
{
    UNUSED_REST;
    set_proxied(of, false, true, out);
}

GET(proxy_protocol_server_addr)
{
    UNUSED_REST;
    set_proxied(of, true, false, out);
}

GET(proxy_protocol_server_port)
{
    UNUSED_REST;
    set_proxied(of, true, true, out);
}

GET(realip_remote_port)
{
    UNUSED_REST;
    if (of->conn != NULL)
        set_int(out, of->conn->remote.port);
}

GET(pipe)
{
    UNUSED_REST;
    set_str(out, of->req->is_pipelined ? HD_STR("p") : HD_STR("."));
}

GET(nginx_version)
{
    UNUSED_REST;
    set_str(out, HD_STR(HD_VERSION));
}

/* $tcpinfo_rtt, …: microseconds and segments, as the kernel has them. */
static bool tcpinfo(of_t *of, struct tcp_info *info)
{
    socklen_t len = sizeof(*info);
    int fd = of->conn != NULL ? hd_conn_bare_fd(of->conn) : -1;

    return fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0;
}

#define GET_TCPINFO(name, field)                                                         \
    GET(tcpinfo_##name)                                                                  \
    {                                                                                    \
        struct tcp_info info;                                                            \
                                                                                         \
        UNUSED_REST;                                                                     \
        if (tcpinfo(of, &info))                                                          \
            set_int(out, info.field);                                                    \
    }
GET_TCPINFO(rtt, tcpi_rtt)
GET_TCPINFO(rttvar, tcpi_rttvar)
GET_TCPINFO(snd_cwnd, tcpi_snd_cwnd)
GET_TCPINFO(rcv_space, tcpi_rcv_space)

/* --- the response --- */

/* On the way to an error page that error's. */
GET(status)
{
    unsigned status =
        of->req->error_status != 0 ? of->req->error_status : of->req->res.status;

    UNUSED_REST;
    out->type = HD_VAL_STR;
    out->str = hd_str_printf(of->pool, "%03u", status);
}

GET(body_bytes_sent)
{
    UNUSED_REST;
    set_int(out, (int64_t)(of->req->bytes_sent + of->req->framing_bytes_sent));
}

GET(bytes_sent)
{
    UNUSED_REST;
    set_int(out, (int64_t)(of->req->head_bytes_sent + of->req->bytes_sent +
                           of->req->framing_bytes_sent));
}

GET(response_flags)
{
    hd_req_info_t info;

    UNUSED_REST;
    hd_req_get_info(of->req, &info);
    set_str(out, info.flags);
}

GET(response_code_details)
{
    hd_req_info_t info;

    UNUSED_REST;
    hd_req_get_info(of->req, &info);
    set_if_any(out, info.details);
}

GET(route_name)
{
    UNUSED_REST;
    if (of->req->route != NULL)
        set_if_any(out, of->req->route->name);
}

/* --- the upstream: one value a try, as nginx has it: "a, b" --- */

typedef hd_str_t (*try_text_pt)(of_t *of, const hd_try_t *t);

static hd_str_t each_try(of_t *of, const hd_try_t *t, try_text_pt text)
{
    hd_str_t earlier, own;

    if (t == NULL)
        return HD_STR_NONE;
    own = text(of, t);
    if (own.len == 0)
        own = HD_STR("-");
    earlier = each_try(of, t->next, text);
    if (earlier.len == 0)
        return own;
    /* an internal redirection leads to another group, behind a colon */
    return hd_str_printf(of->pool, "%.*s%s%.*s", HD_STR_ARG(earlier),
                         t->next->proxy == t->proxy ? ", " : " : ", HD_STR_ARG(own));
}

static hd_str_t addr_of_try(of_t *of, const hd_try_t *t)
{
    char text[HD_ADDR_TEXT_MAX];

    if (t->pick.addr.family == AF_UNSPEC)
        return HD_STR_NONE;
    return hd_str_dup(of->pool, hd_addr_print(&t->pick.addr, text));
}

/* Without an answer: what nginx counts it as. */
static hd_str_t status_of_try(of_t *of, const hd_try_t *t)
{
    unsigned status = t->status;

    if (status == 0 && t->step == HD_TRY_STEP_END && t->result != HD_RESULT_CANCELLED)
        status = t->result == HD_RESULT_TIMEOUT ? 504 : 502;
    return status == 0 ? HD_STR_NONE : hd_str_printf(of->pool, "%u", status);
}

static hd_str_t since_start(of_t *of, const hd_try_t *t, uint64_t at_ns)
{
    return at_ns == 0 ? HD_STR_NONE : seconds_text(of->pool, at_ns - t->start_ns);
}

static hd_str_t connect_time_of(of_t *of, const hd_try_t *t)
{
    return since_start(of, t, t->connected_ns);
}

static hd_str_t header_time_of(of_t *of, const hd_try_t *t)
{
    return since_start(of, t, t->head_ns);
}

static hd_str_t response_time_of(of_t *of, const hd_try_t *t)
{
    return since_start(of, t, t->end_ns != 0 ? t->end_ns : hd_loop_now_ns(of->req->loop));
}

#define GET_EACH_TRY(name, text)                                                         \
    GET(name)                                                                            \
    {                                                                                    \
        UNUSED_REST;                                                                     \
        set_if_any(out, each_try(of, last_try(of->req), text));                          \
    }

GET_EACH_TRY(upstream_addr, addr_of_try)
GET_EACH_TRY(upstream_status, status_of_try)
static hd_str_t response_length_of(of_t *of, const hd_try_t *t)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)t->body_bytes);
}

/* While it goes on: 0, as far as nobody asks the codec. */
static hd_str_t bytes_received_of(of_t *of, const hd_try_t *t)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)t->bytes_received);
}

static hd_str_t bytes_sent_of(of_t *of, const hd_try_t *t)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)t->bytes_sent);
}

GET_EACH_TRY(upstream_response_length, response_length_of)
GET_EACH_TRY(upstream_bytes_received, bytes_received_of)
GET_EACH_TRY(upstream_bytes_sent, bytes_sent_of)
GET_EACH_TRY(upstream_connect_time, connect_time_of)
GET_EACH_TRY(upstream_header_time, header_time_of)
GET_EACH_TRY(upstream_response_time, response_time_of)

GET(upstream_cluster)
{
    UNUSED_REST;
    set_if_any(out, of->req->cluster_name);
}

/* What proxy_pass names, or its variables do. */
static hd_str_t proxy_host_of(const hd_req_t *req)
{
    return req->target != NULL && req->target->cluster != NULL ? req->target->cluster_name
                                                               : req->cluster_name;
}

GET(proxy_host)
{
    UNUSED_REST;
    set_if_any(out, proxy_host_of(of->req));
}

GET(proxy_port)
{
    hd_str_t name = proxy_host_of(of->req);
    ssize_t at = hd_str_find_char(name, ':');

    UNUSED_REST;
    if (name.len > 0)
        set_str(out, at < 0 ? HD_STR("80") : hd_str_sub(name, (size_t)at + 1, name.len));
}

GET(proxy_add_x_forwarded_for)
{
    const hd_headers_t *h = received(of->req);
    const hd_field_t *f = h->n == 0 ? NULL : hd_headers_get(h, HD_H_X_FORWARDED_FOR);
    hd_val_t own = {0}, theirs = {0};

    UNUSED_REST;
    get_remote_addr(of, HD_STR_NONE, &own);
    if (own.type != HD_VAL_STR)
        return;
    if (f != NULL)
        set_field(of, h, HD_STR("x_forwarded_for"), &theirs);
    if (theirs.type == HD_VAL_STR)
        set_str(out, hd_str_printf(of->pool, "%.*s, %.*s", HD_STR_ARG(theirs.str),
                                   HD_STR_ARG(own.str)));
    else
        set_str(out, own.str);
}

/* --- all clients of the program: nginx's stub_status --- */

static hd_clients_t clients_now(void)
{
    hd_clients_t c;

    hd_clients_sum(&c);
    return c;
}

GET(connections_active)
{
    UNUSED_REST;
    set_int(out, (int64_t)clients_now().now[HD_CLIENTS_ACTIVE]);
}

GET(connections_reading)
{
    UNUSED_REST;
    set_int(out, (int64_t)clients_now().now[HD_CLIENTS_READING]);
}

GET(connections_writing)
{
    UNUSED_REST;
    set_int(out, (int64_t)clients_now().now[HD_CLIENTS_WRITING]);
}

GET(connections_waiting)
{
    hd_clients_t c = clients_now();

    UNUSED_REST;
    set_int(out, (int64_t)hd_clients_waiting(&c));
}

/* --- the process and its time --- */

GET(hostname)
{
    static char name[256];

    UNUSED_REST;
    if (name[0] == '\0' && gethostname(name, sizeof(name) - 1) != 0)
        name[0] = '-';
    set_str(out, hd_str_c(name));
}

GET(pid)
{
    UNUSED_REST;
    (void)of;
    set_int(out, getpid());
}

static int64_t wall_ns(of_t *of)
{
    return hd_loop_wall_ns(of->req != NULL ? of->req->loop : of->conn->loop);
}

GET(msec)
{
    UNUSED_REST;
    set_str(out, seconds_text(of->pool, (uint64_t)wall_ns(of)));
}

/* Local time, made once a second. */
static hd_str_t time_text(of_t *of, const char *format, char *cache, size_t room,
                          int64_t *cached_s)
{
    int64_t now_s = wall_ns(of) / 1000000000;
    time_t t = (time_t)now_s;
    struct tm tm;

    if (*cached_s != now_s) {
        localtime_r(&t, &tm);
        if (strftime(cache, room, format, &tm) == 0)
            cache[0] = '\0';
        *cached_s = now_s;
    }
    return hd_str_dup(of->pool, hd_str_c(cache));
}

/* nginx's ssi module, with its format where none is configured. */
GET(date_local)
{
    static _Thread_local char cache[64];
    static _Thread_local int64_t at_s = -1;

    UNUSED_REST;
    set_str(out, time_text(of, "%A, %d-%b-%Y %H:%M:%S %Z", cache, sizeof(cache), &at_s));
}

GET(date_gmt)
{
    time_t t = (time_t)(wall_ns(of) / 1000000000);
    char text[64];
    struct tm tm;

    UNUSED_REST;
    gmtime_r(&t, &tm);
    if (strftime(text, sizeof(text), "%A, %d-%b-%Y %H:%M:%S GMT", &tm) > 0)
        set_str(out, hd_str_dup(of->pool, hd_str_c(text)));
}

GET(http3)
{
    UNUSED_REST;
    (void)out;
}

GET(upstream_cache_status)
{
    UNUSED_REST;
    (void)out;
}

/* The port that the client's Host names. */
static hd_str_t port_of(const hd_req_t *req)
{
    hd_str_t host = req->head.authority;
    size_t at = host.len;

    while (at > 0 && host.data[at - 1] >= '0' && host.data[at - 1] <= '9')
        at--;
    return at > 0 && host.data[at - 1] == ':' ? hd_str_sub(host, at, host.len)
                                              : HD_STR_NONE;
}

GET(request_port)
{
    uint64_t port;

    UNUSED_REST;
    if (hd_str_to_u64(port_of(of->req), 65535, &port))
        set_int(out, (int64_t)port);
}

GET(is_request_port)
{
    UNUSED_REST;
    set_str(out, port_of(of->req).len > 0 ? HD_STR(":") : HD_STR(""));
}

GET(time_local)
{
    static _Thread_local char cache[64];
    static _Thread_local int64_t at_s = -1;

    UNUSED_REST;
    set_str(out, time_text(of, "%d/%b/%Y:%H:%M:%S %z", cache, sizeof(cache), &at_s));
}

GET(time_iso8601)
{
    static _Thread_local char cache[64];
    static _Thread_local int64_t at_s = -1;
    hd_str_t text;

    UNUSED_REST;
    text = time_text(of, "%Y-%m-%dT%H:%M:%S%z", cache, sizeof(cache), &at_s);
    if (text.len >= 5) /* +0000 to +00:00 */
        text = hd_str_printf(of->pool, "%.*s:%.*s", (int)(text.len - 2), text.data, 2,
                             text.data + text.len - 2);
    set_str(out, text);
}

#define R (HD_ATTR_REQ | HD_ATTR_VOLATILE)
#define C HD_ATTR_VOLATILE
#define FAMILY (HD_ATTR_REQ | HD_ATTR_VOLATILE | HD_ATTR_PREFIX)
#define A(text, fn, kind, how, about)                                                    \
    {                                                                                    \
        .name = text, .type = kind, .flags = how, .get = get_##fn, .help = about         \
    }

static const hd_attr_def_t defs[] = {
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
      "the request's body, of up to 16k, once it is passed on"),
    A("request_body_file", request_body_file, HD_VAL_STR, R | HD_ATTR_VOLATILE,
      "file of the request's body, with client_body_in_file_only"),
    A("request_completion", request_completion, HD_VAL_STR, R, "OK if it was answered"),
    A("request_time", request_time, HD_VAL_STR, R, "seconds since it began"),
    A("request_id", request_id, HD_VAL_STR, R, "32 hex digits, unique"),
    A("document_root", document_root, HD_VAL_STR, R, "root or alias in force"),
    A("realpath_root", realpath_root, HD_VAL_STR, R, "the same without symbolic links"),
    A("request_filename", request_filename, HD_VAL_STR, R, "the file's name"),
    A("server_name", server_name, HD_VAL_STR, R, "name of the server that answers"),
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
    A("remote_addr", remote_addr, HD_VAL_STR, C, "the client's address"),
    A("client_ip", client_ip, HD_VAL_STR, C, "the client behind trusted proxies"),
    A("binary_remote_addr", binary_remote_addr, HD_VAL_STR, C, "the same, 4 or 16 bytes"),
    A("remote_port", remote_port, HD_VAL_INT, C, "the client's port"),
    A("realip_remote_addr", realip_remote_addr, HD_VAL_STR, C, "of the socket itself"),
    A("realip_remote_port", realip_remote_port, HD_VAL_INT, C, "of the socket itself"),
    A("proxy_protocol_addr", proxy_protocol_addr, HD_VAL_STR, C, "from PROXY protocol"),
    A("proxy_protocol_port", proxy_protocol_port, HD_VAL_INT, C, "from PROXY protocol"),
    A("proxy_protocol_server_addr", proxy_protocol_server_addr, HD_VAL_STR, C,
      "where PROXY protocol says it went to"),
    A("proxy_protocol_server_port", proxy_protocol_server_port, HD_VAL_INT, C,
      "where PROXY protocol says it went to"),
    A("pipe", pipe, HD_VAL_STR, R, "\"p\" if the request was pipelined, else \".\""),
    A("nginx_version", nginx_version, HD_VAL_STR, C, "version of this program"),
    A("tcpinfo_rtt", tcpinfo_rtt, HD_VAL_INT, C, "round trip time, in microseconds"),
    A("tcpinfo_rttvar", tcpinfo_rttvar, HD_VAL_INT, C, "how it varies"),
    A("tcpinfo_snd_cwnd", tcpinfo_snd_cwnd, HD_VAL_INT, C, "congestion window"),
    A("tcpinfo_rcv_space", tcpinfo_rcv_space, HD_VAL_INT, C, "receive window, in bytes"),
    A("server_addr", server_addr, HD_VAL_STR, C, "the address it came to"),
    A("server_port", server_port, HD_VAL_INT, C, "the port it came to"),
    A("connection", connection, HD_VAL_INT, C, "number of the connection"),
    A("connection_time", connection_time, HD_VAL_STR, C, "seconds since it was opened"),
    A("connection_requests", connection_requests, HD_VAL_INT, R, "of this connection"),
    A("https", https, HD_VAL_STR, C, "\"on\" over TLS"),
    A("ssl_protocol", ssl_protocol, HD_VAL_STR, C, "TLSv1.3, …"),
    A("ssl_cipher", ssl_cipher, HD_VAL_STR, C, "cipher suite"),
    A("ssl_server_name", ssl_server_name, HD_VAL_STR, C, "server name of the handshake"),
    A("ssl_alpn_protocol", ssl_alpn_protocol, HD_VAL_STR, C, "protocol agreed on"),
    A("ssl_session_reused", ssl_session_reused, HD_VAL_STR, C, "\"r\" if resumed, \".\""),
    A("ssl_client_s_dn", ssl_client_s_dn, HD_VAL_STR, C, "subject of the client's"),
    A("ssl_client_i_dn", ssl_client_i_dn, HD_VAL_STR, C, "issuer of the client's"),
    A("ssl_client_serial", ssl_client_serial, HD_VAL_STR, C, "serial number of it"),
    A("ssl_ciphers", ssl_ciphers, HD_VAL_STR, C, "cipher suites that the client offers"),
    A("ssl_curve", ssl_curve, HD_VAL_STR, C, "group of the key exchange"),
    A("ssl_curves", ssl_curves, HD_VAL_STR, C, "groups that the client offers"),
    A("ssl_session_id", ssl_session_id, HD_VAL_STR, C, "session id, hex"),
    A("ssl_sigalg", ssl_sigalg, HD_VAL_STR, C, "by which the server signed"),
    A("ssl_client_sigalg", ssl_client_sigalg, HD_VAL_STR, C, "by which the client did"),
    A("ssl_early_data", ssl_early_data, HD_VAL_STR, C, "empty: early data isn't taken"),
    A("ssl_client_cert", ssl_client_cert, HD_VAL_STR, C, "the client's, PEM with tabs"),
    A("ssl_client_raw_cert", ssl_client_raw_cert, HD_VAL_STR, C, "the client's, PEM"),
    A("ssl_client_escaped_cert", ssl_client_escaped_cert, HD_VAL_STR, C, "URL-encoded"),
    A("ssl_client_fingerprint", ssl_client_fingerprint, HD_VAL_STR, C, "its SHA-1, hex"),
    A("ssl_client_s_dn_legacy", ssl_client_s_dn_legacy, HD_VAL_STR, C, "as /O=…/CN=…"),
    A("ssl_client_i_dn_legacy", ssl_client_i_dn_legacy, HD_VAL_STR, C, "as /O=…/CN=…"),
    A("ssl_client_v_start", ssl_client_v_start, HD_VAL_STR, C, "from when it is valid"),
    A("ssl_client_v_end", ssl_client_v_end, HD_VAL_STR, C, "until when it is valid"),
    A("ssl_client_v_remain", ssl_client_v_remain, HD_VAL_STR, C, "days until then"),
    A("ssl_client_verify", ssl_client_verify, HD_VAL_STR, C, "SUCCESS, FAILED:…, NONE"),
    A("http2", http2, HD_VAL_STR, R, "h2, h2c or empty"),
    A("peer_principal", peer_principal, HD_VAL_STR, C, "the peer's verified SPIFFE id"),
    A("local_principal", local_principal, HD_VAL_STR, C, "our own SPIFFE id"),
    A("status", status, HD_VAL_STR, R, "status of the response"),
    A("body_bytes_sent", body_bytes_sent, HD_VAL_INT, R, "bytes sent without the head"),
    A("bytes_sent", bytes_sent, HD_VAL_INT, R, "bytes sent"),
    A("response_flags", response_flags, HD_VAL_STR, R, "Envoy's: UF, UC, …"),
    A("response_code_details", response_code_details, HD_VAL_STR, R, "why this status"),
    A("route_name", route_name, HD_VAL_STR, R, "name of the route"),
    A("upstream_addr", upstream_addr, HD_VAL_STR, R, "addresses tried"),
    A("upstream_status", upstream_status, HD_VAL_STR, R, "statuses of the tries"),
    A("upstream_connect_time", upstream_connect_time, HD_VAL_STR, R, "seconds, each try"),
    A("upstream_response_length", upstream_response_length, HD_VAL_STR, R,
      "bytes of the upstreams' bodies"),
    A("upstream_bytes_received", upstream_bytes_received, HD_VAL_STR, R,
      "bytes that came from the upstreams"),
    A("upstream_bytes_sent", upstream_bytes_sent, HD_VAL_STR, R,
      "bytes that went to the upstreams"),
    A("upstream_header_time", upstream_header_time, HD_VAL_STR, R, "seconds, each try"),
    A("upstream_response_time", upstream_response_time, HD_VAL_STR, R, "the same"),
    A("upstream_cluster", upstream_cluster, HD_VAL_STR, R, "name of the cluster"),
    A("proxy_host", proxy_host, HD_VAL_STR, R, "name and port in proxy_pass"),
    A("proxy_port", proxy_port, HD_VAL_STR, R, "port in proxy_pass"),
    A("proxy_add_x_forwarded_for", proxy_add_x_forwarded_for, HD_VAL_STR, R,
      "X-Forwarded-For with $remote_addr appended"),
    A("connections_active", connections_active, HD_VAL_INT, C, "clients' connections"),
    A("connections_reading", connections_reading, HD_VAL_INT, C, "a head is read in"),
    A("connections_writing", connections_writing, HD_VAL_INT, C, "that are answered"),
    A("connections_waiting", connections_waiting, HD_VAL_INT, C, "in which all is idle"),
    A("request_port", request_port, HD_VAL_INT, R, "port in Host, if there is one"),
    A("is_request_port", is_request_port, HD_VAL_STR, R, "\":\" if there is one"),
    A("date_local", date_local, HD_VAL_STR, C, "local time, as in SSI"),
    A("date_gmt", date_gmt, HD_VAL_STR, C, "the same in GMT"),
    A("http3", http3, HD_VAL_STR, R, "empty: there is no HTTP/3"),
    A("upstream_cache_status", upstream_cache_status, HD_VAL_STR, R, "empty: no cache"),
    A("hostname", hostname, HD_VAL_STR, C, "name of this machine"),
    A("pid", pid, HD_VAL_INT, C, "of the worker"),
    A("msec", msec, HD_VAL_STR, C, "seconds since 1970, with milliseconds"),
    A("time_local", time_local, HD_VAL_STR, C, "local time in the common log format"),
    A("time_iso8601", time_iso8601, HD_VAL_STR, C, "local time in ISO 8601"),
    {0},
};

void hd_http_attrs_register(void)
{
    hd_attr_register(defs);
}
