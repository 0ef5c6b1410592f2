/* The listener filters: each looks at a new conn (mostly at its first bytes, which stay
 * to be read) and notes what it found among the conn's facts. */
#include "core/net/hd_conn_int.h"
#include "core/net/hd_listener_int.h"
#include "core/net/hd_proxy_protocol.h"
#include <netinet/in.h>

/* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST: linux/netfilter_ipv4.h doesn't go together
 * with netinet/in.h. */
#define ORIGINAL_DST 80

/* Asks <judge> about the bytes so far, then about more, as long as there are any. */
static hd_rc_t look(hd_conn_t *c, hd_rc_t (*judge)(hd_conn_t *c, hd_str_t bytes))
{
    const hd_slice_t *peeked = c->_in != NULL ? c->_in->first : NULL;
    hd_str_t bytes = peeked != NULL ? hd_str_n(peeked->data, peeked->len) : HD_STR_NONE;
    hd_rc_t rc;

    for (;;) {
        rc = bytes.len > 0 ? judge(c, bytes) : HD_AGAIN;
        if (rc != HD_AGAIN)
            return rc;
        rc = hd_conn_peek(c, &bytes);
        if (rc == HD_DONE)
            return hd_conn_fail(c, HD_E_RESET, "closed before its protocol was known");
        if (rc != HD_OK)
            return rc;
    }
}

/* PROXY protocol */

static hd_addr_t keep_addr(hd_conn_t *c, const hd_addr_t *a)
{
    hd_addr_t kept = *a;

    if (a->family == AF_UNIX)
        kept.path = hd_str_dup(hd_conn_pool(c), a->path);
    return kept;
}

static hd_rc_t judge_proxy(hd_conn_t *c, hd_str_t bytes)
{
    hd_err_t err = {.code = HD_E_NONE};
    hd_proxy_head_t head;
    hd_rc_t rc = hd_proxy_parse(bytes, &head, &err);

    if (rc == HD_AGAIN)
        return rc;
    if (rc == HD_DECLINED)
        return hd_conn_fail(c, HD_E_PROTOCOL,
                            "no PROXY head, which this listener asks for");
    if (rc != HD_OK)
        return hd_conn_fail(c, err.code, "%s", err.text);
    if (!head.is_local) {
        hd_proxied_t *proxied = hd_pool_new(hd_conn_pool(c), hd_proxied_t);

        proxied->remote = keep_addr(c, &head.remote);
        proxied->local = keep_addr(c, &head.local);
        proxied->tlvs = hd_str_dup(hd_conn_pool(c), head.tlvs);
        hd_conn_facts(c)->proxied = proxied;
    }
    hd_conn_drop_peeked(c, head.len);
    return HD_OK;
}

hd_rc_t hd_inspect_proxy(hd_conn_t *c)
{
    return look(c, judge_proxy);
}

/* Original destination */

/* What iptables' REDIRECT has rewritten. Without conntrack there is no answer. */
static bool ask_conntrack(int fd, uint16_t family, hd_addr_t *dst)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    bool v6 = family == AF_INET6;

    if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, ORIGINAL_DST, &ss, &len) != 0)
        return false;
    hd_addr_from_sockaddr((struct sockaddr *)&ss, len, dst);
    return dst->family != AF_UNSPEC;
}

hd_rc_t hd_inspect_original_dst(hd_conn_t *c)
{
    int fd = hd_conn_bare_fd(c);
    hd_addr_t local = *hd_conn_socket_local(c), dst;

    /* On a pipe whoever made it has set it (HBONE's authority), with TPROXY the acceptor.
     * Of a conn that nobody redirected conntrack says what it came to: that is us. */
    hd_addr_unmap(&local);
    if (fd >= 0 && (local.family == AF_INET || local.family == AF_INET6) &&
        ask_conntrack(fd, local.family, &dst) && !hd_addr_eq(&dst, &local))
        hd_conn_facts(c)->original_dst = dst;
    return HD_OK;
}

/* TLS */

static hd_rc_t judge_tls(hd_conn_t *c, hd_str_t bytes)
{
    hd_conn_facts_t *facts = hd_conn_facts(c);
    hd_client_hello_t hello;
    hd_rc_t rc = hd_tls_parse_client_hello(bytes, &hello);

    if (rc == HD_AGAIN)
        return rc;
    if (rc != HD_OK) { /* as Envoy: a broken hello is not TLS; no TLS chain takes it */
        facts->transport = HD_STR("raw_buffer");
        return HD_OK;
    }
    facts->transport = HD_STR("tls");
    facts->sni = hd_str_dup_lower(hd_conn_pool(c), hello.sni);
    facts->offered_version = hello.version_max;
    facts->offered_alpn = hd_str_dup(hd_conn_pool(c), hello.alpn_wire);
    return HD_OK;
}

hd_rc_t hd_inspect_tls(hd_conn_t *c)
{
    return look(c, judge_tls);
}

/* HTTP */

static bool is_token_char(char c)
{
    /* RFC 9110 §5.6.2 */
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

#define METHOD_MAX 32

/* METHOD SP target SP HTTP/1.x: each part ends where an impossible byte stands, so that
 * other protocols are let go at once (RFC 9112 §3). */
static hd_rc_t guess_http1(hd_str_t s, hd_str_t *protocol)
{
    hd_str_t version = HD_STR("HTTP/1.");
    size_t at = 0, start, left;

    while (at < s.len && is_token_char(s.data[at]))
        at++;
    if (at > METHOD_MAX || (at < s.len && (at == 0 || s.data[at] != ' ')))
        return HD_DECLINED;
    if (at == s.len)
        return HD_AGAIN;
    start = ++at;
    while (at < s.len && (unsigned char)s.data[at] > ' ' && s.data[at] != 0x7f)
        at++;
    if (at < s.len && (at == start || s.data[at] != ' '))
        return HD_DECLINED;
    if (at == s.len)
        return HD_AGAIN;
    at++;
    left = hd_min(s.len - at, version.len);
    if (memcmp(s.data + at, version.data, left) != 0)
        return HD_DECLINED;
    if (s.len - at <= version.len)
        return HD_AGAIN;
    if (s.data[at + version.len] != '0' && s.data[at + version.len] != '1')
        return HD_DECLINED;
    *protocol = s.data[at + version.len] == '0' ? HD_STR("http/1.0") : HD_STR("http/1.1");
    return HD_OK;
}

hd_rc_t hd_guess_http(hd_str_t bytes, hd_str_t *protocol)
{
    hd_str_t preface = HD_STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); /* RFC 9113 §3.4 */
    size_t n = hd_min(bytes.len, preface.len);

    *protocol = HD_STR_NONE;
    if (memcmp(bytes.data, preface.data, n) == 0) {
        if (n < preface.len)
            return HD_AGAIN;
        *protocol = HD_STR("h2c");
        return HD_OK;
    }
    for (int i = 0; i < 2 && bytes.len > 0;
         i++) { /* RFC 9112 §2.2: an empty line first */
        if (bytes.data[0] == '\r' || bytes.data[0] == '\n')
            bytes = hd_str_sub(bytes, 1, bytes.len);
    }
    return bytes.len == 0 ? HD_AGAIN : guess_http1(bytes, protocol);
}

static hd_rc_t judge_http(hd_conn_t *c, hd_str_t bytes)
{
    hd_str_t protocol;
    hd_rc_t rc = hd_guess_http(bytes, &protocol);

    if (rc == HD_AGAIN)
        return rc;
    hd_conn_facts(c)->app_protocol = protocol;
    return HD_OK;
}

hd_rc_t hd_inspect_http(hd_conn_t *c)
{
    if (hd_str_eq(hd_conn_facts(c)->transport, HD_STR("tls")))
        return HD_OK; /* what is inside isn't seen */
    return look(c, judge_http);
}
