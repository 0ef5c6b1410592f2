/* Envoy's conventions for a request that came through an HttpConnectionManager: who the
 * client is, x-forwarded-*, x-request-id, the client's certificate; and what the router
 * adds for the upstream and to its response. */
#include "http/hd_http_xds.h"
#include "core/net/hd_tls.h"
#include "http/hd_request_int.h"
#include "http/hd_uri.h"
#include <stdio.h>

#define HEADERS(req) (&(req)->head.headers)

static void set(hd_req_t *req, hd_str_t name, hd_str_t value)
{
    hd_ignore(hd_headers_set(HEADERS(req), name, value) == NULL); /* full: as it is */
}

static void remove_field(hd_req_t *req, hd_str_t name)
{
    hd_headers_remove(HEADERS(req), name);
}

/* --- who the client is (XFF-1 … XFF-4) --- */

/* The address <skip> places from the right of X-Forwarded-For. */
static bool address_in_xff(hd_req_t *req, uint32_t skip, hd_addr_t *addr)
{
    hd_str_t list;
    bool found;

    list = hd_headers_joined(HEADERS(req), HD_STR("x-forwarded-for"), req->pool, &found);
    if (!found)
        return false;
    for (;;) {
        size_t at = list.len;
        hd_str_t last;

        while (at > 0 && list.data[at - 1] != ',')
            at--;
        last = hd_str_trim(hd_str_sub(list, at, list.len));
        if (skip-- == 0)
            return hd_addr_parse_ip(last, addr);
        if (at == 0)
            return false;
        list = hd_str_sub(list, 0, at - 1);
    }
}

static void append_xff(hd_req_t *req, const hd_addr_t *peer)
{
    hd_field_t *f = hd_headers_get(HEADERS(req), HD_H_X_FORWARDED_FOR);
    char text[HD_ADDR_TEXT_MAX];
    hd_str_t own, theirs;

    if (peer->family != AF_INET && peer->family != AF_INET6)
        return;
    own = hd_addr_print_ip(peer, text);
    theirs = f == NULL ? HD_STR_NONE
                       : hd_headers_joined(HEADERS(req), HD_STR("x-forwarded-for"),
                                           req->pool, NULL);
    if (theirs.len == 0) {
        set(req, HD_STR("x-forwarded-for"), hd_str_dup(req->pool, own));
        return;
    }
    set(req, HD_STR("x-forwarded-for"),
        hd_str_printf(req->pool, "%.*s,%.*s", HD_STR_ARG(theirs), HD_STR_ARG(own)));
}

static void find_client(hd_req_t *req)
{
    const hd_http_conf_t *http = req->http;
    const hd_addr_t *peer = hd_conn_remote(req->conn);
    hd_addr_t addr;

    req->client_addr = *peer;
    if (http->use_remote_address) {
        if (http->xff_trusted_hops > 0 &&
            address_in_xff(req, http->xff_trusted_hops - 1, &addr))
            req->client_addr = addr;
        if (!http->skip_xff_append)
            append_xff(req, peer);
    } else if (hd_headers_get(HEADERS(req), HD_H_X_FORWARDED_FOR) != NULL &&
               address_in_xff(req, http->xff_trusted_hops, &addr)) {
        req->client_addr = addr;
    }
}

/* Who isn't the first proxy believes the one before it. HTTP/1 has no scheme of its own:
 * it is what the client came by, as far as that is told. */
static void set_forwarded_proto(hd_req_t *req)
{
    bool is_first = req->http->use_remote_address && req->http->xff_trusted_hops == 0;
    const hd_field_t *f = hd_headers_get(HEADERS(req), HD_H_X_FORWARDED_PROTO);

    if (is_first || f == NULL)
        set(req, HD_STR("x-forwarded-proto"), req->head.scheme);
    else if (req->head.version < HD_HTTP_20 &&
             hd_str_eq_nocase(f->value, HD_STR("https")))
        req->head.scheme = HD_STR("https");
    else if (req->head.version < HD_HTTP_20 && hd_str_eq_nocase(f->value, HD_STR("http")))
        req->head.scheme = HD_STR("http");
}

bool hd_http_xds_came_by_tls(const hd_req_t *req)
{
    const hd_field_t *f = hd_headers_get(HEADERS(req), HD_H_X_FORWARDED_PROTO);

    return hd_str_eq(f != NULL ? f->value : req->head.scheme, HD_STR("https"));
}

/* What only our own side may say (attack class: trusted-header spoofing). */
static void drop_internal_fields(hd_req_t *req)
{
    static const hd_str_t internal[] = {
        HD_STR_INIT("x-envoy-retriable-status-codes"),
        HD_STR_INIT("x-envoy-retriable-header-names"),
        HD_STR_INIT("x-envoy-retry-on"),
        HD_STR_INIT("x-envoy-retry-grpc-on"),
        HD_STR_INIT("x-envoy-max-retries"),
        HD_STR_INIT("x-envoy-upstream-alt-stat-name"),
        HD_STR_INIT("x-envoy-upstream-rq-timeout-ms"),
        HD_STR_INIT("x-envoy-upstream-rq-per-try-timeout-ms"),
        HD_STR_INIT("x-envoy-upstream-rq-timeout-alt-response"),
        HD_STR_INIT("x-envoy-expected-rq-timeout-ms"),
        HD_STR_INIT("x-envoy-force-trace"),
        HD_STR_INIT("x-envoy-ip-tags"),
        HD_STR_INIT("x-envoy-original-url"),
        HD_STR_INIT("x-envoy-hedge-on-per-try-timeout"),
        HD_STR_INIT("x-envoy-internal"),
    };
    static const hd_str_t edge[] = {
        HD_STR_INIT("x-envoy-decorator-operation"),
        HD_STR_INIT("x-envoy-downstream-service-cluster"),
        HD_STR_INIT("x-envoy-downstream-service-node"),
        HD_STR_INIT("x-envoy-original-host"),
        HD_STR_INIT("x-envoy-original-path"),
        HD_STR_INIT("x-envoy-attempt-count"),
        HD_STR_INIT("x-envoy-peer-metadata"),
        HD_STR_INIT("x-envoy-peer-metadata-id"),
    };
    const hd_headers_t *h = HEADERS(req);
    bool has_any = false;

    for (unsigned i = 0; i < h->n && !has_any; i++)
        has_any = h->fields[i].name.len > 8 &&
                  hd_str_has_prefix_nocase(h->fields[i].name, HD_STR("x-envoy-"));
    if (!has_any)
        return;
    for (size_t i = 0; i < hd_countof(internal); i++)
        remove_field(req, internal[i]);
    for (size_t i = 0; i < hd_countof(edge) && req->http->use_remote_address; i++)
        remove_field(req, edge[i]);
}

/* --- x-request-id (TRACE-1) --- */

/* A UUID of version 4 (RFC 9562 §5.4). */
static hd_str_t make_uuid(hd_pool_t *pool)
{
    uint64_t a = hd_request_random(), b = hd_request_random();

    a = (a & ~0xf000ull) | 0x4000;
    b = (b & ~(3ull << 62)) | 1ull << 63;
    return hd_str_printf(pool, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(a >> 32),
                         (unsigned)(a >> 16) & 0xffff, (unsigned)a & 0xffff,
                         (unsigned)(b >> 48),
                         (unsigned long long)(b & 0xffffffffffffull));
}

static void set_request_id(hd_req_t *req)
{
    const hd_http_conf_t *http = req->http;
    const hd_field_t *f = hd_headers_get(HEADERS(req), HD_H_X_REQUEST_ID);
    bool is_edge = http->use_remote_address && !http->preserve_request_id;

    if (f != NULL && (!is_edge || !http->generate_request_id)) {
        req->request_id = f->value;
        return;
    }
    if (!http->generate_request_id)
        return;
    req->request_id = make_uuid(req->pool);
    set(req, HD_STR("x-request-id"), req->request_id);
}

/* --- x-forwarded-client-cert (XFCC-1 … XFCC-7) --- */

typedef struct {
    char *text;
    size_t n, room;
} element_t;

static void put(element_t *e, hd_str_t s)
{
    size_t n = hd_min(s.len, e->room - e->n);

    if (n > 0)
        memcpy(e->text + e->n, s.data, n);
    e->n += n;
}

static void put_pair(element_t *e, hd_str_t key, hd_str_t value, bool quoted)
{
    if (e->n > 0)
        put(e, HD_STR(";"));
    put(e, key);
    put(e, quoted ? HD_STR("=\"") : HD_STR("="));
    put(e, value);
    if (quoted)
        put(e, HD_STR("\""));
}

static bool is_no_text(unsigned char c)
{
    return c < ' ' || c >= 0x7f;
}

/* A certificate's own words. What ends a value has it quoted (Envoy's rule), and what
 * ends a field is encoded: neither makes another pair or field. */
static void put_name(hd_pool_t *pool, element_t *e, hd_str_t key, hd_str_t name)
{
    bool quoted = false;
    char *text;
    size_t n = 0;

    name = hd_uri_escape_where(pool, name, is_no_text);
    text = hd_pool_alloc_unaligned(pool, 2 * name.len + 1);
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] == '"' || name.data[i] == '\\')
            text[n++] = '\\';
        quoted |= strchr(",;=\"\\", name.data[i]) != NULL;
        text[n++] = name.data[i];
    }
    put_pair(e, key, hd_str_n(text, n), quoted);
}

/* PEM in a field: percent-encoded. */
static hd_str_t encode_pem(hd_pool_t *pool, hd_str_t pem)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789-._~";
    char *out = hd_pool_alloc_unaligned(pool, pem.len * 3 + 1);
    size_t n = 0;

    for (size_t i = 0; i < pem.len; i++) {
        unsigned char c = (unsigned char)pem.data[i];

        if (c != '\0' && strchr(plain, c) != NULL) {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = "0123456789ABCDEF"[c >> 4];
        out[n++] = "0123456789ABCDEF"[c & 15];
    }
    return hd_str_n(out, n);
}

#define NAME_ROOM(len) (3 * (len) + 8) /* with its key, encoded or quoted */

static size_t element_room(const hd_tls_peer_t *peer, hd_str_t by, hd_str_t pem)
{
    size_t room = 128 + NAME_ROOM(by.len) + peer->fingerprint_sha256.len +
                  peer->subject.len + pem.len;

    for (uint32_t i = 0; i < peer->uri_sans_n; i++)
        room += NAME_ROOM(peer->uri_sans[i].len);
    for (uint32_t i = 0; i < peer->dns_sans_n; i++)
        room += NAME_ROOM(peer->dns_sans[i].len);
    return room;
}

static hd_str_t make_element(hd_req_t *req, const hd_tls_peer_t *peer)
{
    const hd_http_conf_t *http = req->http;
    hd_str_t by = req->conn->facts->local_principal, pem = HD_STR_NONE,
             chain = HD_STR_NONE;
    element_t e = {0};

    if (http->xfcc_cert)
        pem = encode_pem(req->pool, hd_tls_peer_pem(req->conn));
    if (http->xfcc_chain)
        chain = encode_pem(req->pool, hd_tls_peer_chain_pem(req->conn));
    e.room = element_room(peer, by, pem) + NAME_ROOM(chain.len);
    e.text = hd_pool_alloc_unaligned(req->pool, e.room);
    if (by.len > 0)
        put_name(req->pool, &e, HD_STR("By"), by);
    if (peer->fingerprint_sha256.len > 0)
        put_pair(&e, HD_STR("Hash"), peer->fingerprint_sha256, false);
    if (pem.len > 0)
        put_pair(&e, HD_STR("Cert"), pem, true);
    if (chain.len > 0)
        put_pair(&e, HD_STR("Chain"), chain, true);
    if (http->xfcc_subject)
        put_pair(&e, HD_STR("Subject"), peer->subject, true);
    for (uint32_t i = 0; i < peer->uri_sans_n && http->xfcc_uri; i++)
        put_name(req->pool, &e, HD_STR("URI"), peer->uri_sans[i]);
    for (uint32_t i = 0; i < peer->dns_sans_n && http->xfcc_dns; i++)
        put_name(req->pool, &e, HD_STR("DNS"), peer->dns_sans[i]);
    return hd_str_n(e.text, e.n);
}

static void set_xfcc(hd_req_t *req)
{
    const hd_tls_peer_t *peer = hd_tls_peer(req->conn);
    bool is_mtls = peer != NULL && peer->fingerprint_sha256.len > 0;
    hd_str_t name = HD_STR("x-forwarded-client-cert"), own, theirs;
    bool found = false;

    if (req->http->xfcc == HD_XFCC_ALWAYS_FORWARD_ONLY)
        return;
    if (!is_mtls || req->http->xfcc == HD_XFCC_SANITIZE) {
        hd_headers_remove_id(HEADERS(req), HD_H_X_FORWARDED_CLIENT_CERT);
        return;
    }
    if (req->http->xfcc == HD_XFCC_FORWARD_ONLY)
        return;
    own = make_element(req, peer);
    theirs = req->http->xfcc == HD_XFCC_APPEND_FORWARD
                 ? hd_headers_joined(HEADERS(req), name, req->pool, &found)
                 : HD_STR_NONE;
    if (found && theirs.len > 0)
        own = hd_str_printf(req->pool, "%.*s,%.*s", HD_STR_ARG(theirs), HD_STR_ARG(own));
    set(req, name, own);
}

/* --- the whole --- */

static void strip_port(hd_req_t *req)
{
    hd_str_t a = req->head.authority;
    size_t at = a.len;
    uint64_t port;

    while (at > 0 && a.data[at - 1] >= '0' && a.data[at - 1] <= '9')
        at--;
    if (at <= 1 || at == a.len || a.data[at - 1] != ':')
        return;
    if (req->http->strip_own_port &&
        (!hd_str_to_u64(hd_str_sub(a, at, a.len), UINT16_MAX, &port) ||
         port != hd_conn_local(req->conn)->port))
        return;
    req->head.authority = hd_str_sub(a, 0, at - 1);
}

void hd_http_xds_request(hd_req_t *req)
{
    if (req->conn == NULL)
        return;
    if (req->http->strip_port || req->http->strip_own_port)
        strip_port(req);
    find_client(req);
    set_forwarded_proto(req);
    drop_internal_fields(req);
    if (req->http->use_remote_address) {
        char text[HD_ADDR_TEXT_MAX];

        set(req, HD_STR("x-envoy-external-address"),
            hd_str_dup(req->pool, hd_addr_print_ip(&req->client_addr, text)));
    }
    set_request_id(req);
    set_xfcc(req);
}

/* In milliseconds; 0: for ever. */
static uint64_t expected_timeout(const hd_req_t *req, const hd_proxy_conf_t *proxy,
                                 uint32_t attempt)
{
    uint64_t now_ns = hd_loop_now_ns(req->loop), ms = proxy->timeout_ms;

    if (hd_timer_is_set(&req->deadline) && (attempt > 1 || req->has_grpc_deadline))
        ms = req->deadline.at_ns <= now_ns
                 ? 1
                 : (req->deadline.at_ns - now_ns + 999999) / 1000000;
    return proxy->try_timeout_ms > 0 && (ms == 0 || proxy->try_timeout_ms < ms)
               ? proxy->try_timeout_ms
               : ms;
}

void hd_http_xds_try(hd_req_t *req, const hd_proxy_conf_t *proxy, uint32_t attempt)
{
    uint64_t ms = expected_timeout(req, proxy, attempt);

    if (req->vhost != NULL && req->vhost->tells_timeout_retry && attempt > 1)
        set(req, HD_STR("x-envoy-is-timeout-retry"),
            req->try_timed_out ? HD_STR("true") : HD_STR("false"));
    if (req->vhost != NULL && req->vhost->attempt_count_to_upstream)
        set(req, HD_STR("x-envoy-attempt-count"),
            hd_str_printf(req->pool, "%u", attempt));
    if (ms > 0 && !req->http->suppress_envoy_headers)
        set(req, HD_STR("x-envoy-expected-rq-timeout-ms"),
            hd_str_printf(req->pool, "%llu", (unsigned long long)ms));
}

void hd_http_xds_set_host(hd_req_t *req, const hd_proxy_conf_t *proxy, hd_str_t host)
{
    hd_str_t name = HD_STR("x-forwarded-host"), theirs;

    if (proxy->tells_host && req->up_host.len == 0) {
        theirs = hd_headers_joined(HEADERS(req), name, req->pool, NULL);
        set(req, name,
            theirs.len == 0 ? req->head.authority
                            : hd_str_printf(req->pool, "%.*s,%.*s", HD_STR_ARG(theirs),
                                            HD_STR_ARG(req->head.authority)));
    }
    req->up_host = host;
    if (!req->http->suppress_envoy_headers)
        set(req, HD_STR("x-envoy-original-host"), req->head.authority);
}

void hd_http_xds_routed(hd_req_t *req)
{
    hd_headers_t *h = &req->res.headers;

    if (req->vhost != NULL && req->vhost->attempt_count_in_response && req->tries_n > 0)
        hd_ignore(hd_headers_set(h, HD_STR("x-envoy-attempt-count"),
                                 hd_str_printf(req->pool, "%u", req->tries_n)) == NULL);
    if (req->http->suppress_envoy_headers)
        return;
    if (req->is_local_reply) {
        if (req->flags & HD_RF(UPSTREAM_OVERFLOW))
            hd_ignore(hd_headers_add(h, HD_STR("x-envoy-overloaded"), HD_STR("true")) ==
                      NULL);
        return;
    }
    if (req->upstream_head_ns >= req->upstream_start_ns && req->upstream_head_ns != 0)
        hd_ignore(
            hd_headers_set(h, HD_STR("x-envoy-upstream-service-time"),
                           hd_str_printf(req->pool, "%llu",
                                         (unsigned long long)(req->upstream_head_ns -
                                                              req->upstream_start_ns) /
                                             1000000)) == NULL);
}

void hd_http_xds_response(hd_req_t *req)
{
    if (req->http->always_set_request_id && req->request_id.len > 0)
        hd_ignore(hd_headers_set(&req->res.headers, HD_STR("x-request-id"),
                                 req->request_id) == NULL);
}
