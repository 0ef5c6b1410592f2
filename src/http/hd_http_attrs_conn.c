/* Variables of the client's conn: addresses, PROXY protocol, identities, what the kernel
 * measures of it. Stream has them, too. */
#include "http/hd_http_attrs_int.h"
#include "core/net/hd_proxy_protocol.h"
#include "http/hd_request_int.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

void hd_http_attr_set_addr(of_t *of, const hd_addr_t *a, hd_val_t *out)
{
    char text[HD_ADDR_TEXT_MAX];

    hd_val_set_str(out, a->family == AF_UNIX
                            ? HD_STR("unix:")
                            : hd_str_dup(of->pool, hd_addr_print_ip(a, text)));
}

const hd_addr_t *hd_http_attr_client(of_t *of)
{
    if (of->req != NULL && of->req->conn != NULL)
        return hd_request_peer(of->req);
    return of->conn != NULL ? hd_conn_remote(of->conn) : NULL;
}

GET(remote_addr)
{
    const hd_addr_t *a = hd_http_attr_client(of);

    UNUSED_REST;
    if (a != NULL)
        hd_http_attr_set_addr(of, a, out);
}

/* xDS: the client behind trusted proxies; else the conn's. */
GET(client_ip)
{
    UNUSED_REST;
    if (of->req != NULL && of->req->client_addr.family != AF_UNSPEC)
        hd_http_attr_set_addr(of, &of->req->client_addr, out);
    else if (of->conn != NULL)
        hd_http_attr_set_addr(of, hd_conn_remote(of->conn), out);
}

GET(binary_remote_addr)
{
    const hd_addr_t *a = hd_http_attr_client(of);

    UNUSED_REST;
    if (a != NULL && (a->family == AF_INET || a->family == AF_INET6))
        hd_val_set_str(out, hd_str_n((const char *)a->v6, a->family == AF_INET ? 4 : 16));
}

GET(remote_port)
{
    const hd_addr_t *a = hd_http_attr_client(of);

    UNUSED_REST;
    if (a != NULL && (a->port != 0 || !of->req || !of->req->has_real_addr))
        hd_val_set_int(out, a->port);
}

GET(realip_remote_addr)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_http_attr_set_addr(of, &of->conn->remote, out);
}

GET(proxy_protocol_tlv)
{
    const hd_conn_facts_t *facts = of->conn != NULL ? of->conn->facts : NULL;
    hd_str_t value;

    if (facts != NULL && facts->proxied != NULL &&
        hd_proxy_find_tlv(facts->proxied->tlvs, rest, of->pool, &value))
        hd_val_set_str(out, value);
}

GET(realip_remote_port)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_val_set_int(out, of->conn->remote.port);
}

/* Where the client went, as the kernel knows it; what a PROXY head says has names of its
 * own. */
static const hd_addr_t *server_of(const hd_conn_t *c)
{
    return c->facts != NULL && c->facts->original_dst.family != AF_UNSPEC
               ? &c->facts->original_dst
               : hd_conn_socket_local(c);
}

GET(server_addr)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_http_attr_set_addr(of, server_of(of->conn), out);
}

GET(server_port)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_val_set_int(out, server_of(of->conn)->port);
}

GET(original_dst)
{
    const hd_conn_facts_t *facts = of->conn != NULL ? of->conn->facts : NULL;
    char text[HD_ADDR_TEXT_MAX];

    UNUSED_REST;
    if (facts != NULL && facts->original_dst.family != AF_UNSPEC)
        hd_val_set_str(
            out, hd_str_dup(of->pool, hd_addr_print(&facts->original_dst, text)));
}

GET(connection)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_val_set_int(out, (int64_t)of->conn->id);
}

GET(connection_time)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_val_set_str(out, hd_attr_seconds(of->pool, hd_loop_now_ns(of->conn->loop) -
                                                          of->conn->opened_ns));
}

GET(connection_requests)
{
    UNUSED_REST;
    hd_val_set_int(out, of->req->conn_requests);
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
        hd_val_set_int(out, a->port);
    else
        hd_http_attr_set_addr(of, a, out);
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

/* The peer's verified identity: set by the TLS or HBONE layer alone. */
GET(peer_principal)
{
    UNUSED_REST;
    if (of->conn != NULL && of->conn->facts != NULL)
        hd_val_set_if_any(out, of->conn->facts->peer_principal);
}

GET(local_principal)
{
    UNUSED_REST;
    if (of->conn != NULL && of->conn->facts != NULL)
        hd_val_set_if_any(out, of->conn->facts->local_principal);
}

/* $tcpinfo_rtt, …: microseconds and segments, as the kernel has them. */
static bool tcpinfo(of_t *of, struct tcp_info *info)
{
    socklen_t len = sizeof(*info);
    int fd = of->conn != NULL ? hd_conn_fd(of->conn) : -1;

    return fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0;
}

#define GET_TCPINFO(name, field)                                                         \
    GET(tcpinfo_##name)                                                                  \
    {                                                                                    \
        struct tcp_info info;                                                            \
                                                                                         \
        UNUSED_REST;                                                                     \
        if (tcpinfo(of, &info))                                                          \
            hd_val_set_int(out, info.field);                                             \
    }
GET_TCPINFO(rtt, tcpi_rtt)
GET_TCPINFO(rttvar, tcpi_rttvar)
GET_TCPINFO(snd_cwnd, tcpi_snd_cwnd)
GET_TCPINFO(rcv_space, tcpi_rcv_space)

const hd_attr_def_t hd_http_attrs_conn[] = {
    A("remote_addr", remote_addr, HD_VAL_STR, C, "the client's address"),
    A("client_ip", client_ip, HD_VAL_STR, C, "the client behind trusted proxies"),
    A("binary_remote_addr", binary_remote_addr, HD_VAL_STR, C, "the same, 4 or 16 bytes"),
    A("remote_port", remote_port, HD_VAL_INT, C, "the client's port"),
    A("realip_remote_addr", realip_remote_addr, HD_VAL_STR, C, "of the socket itself"),
    A("proxy_protocol_tlv_", proxy_protocol_tlv, HD_VAL_STR, C | HD_ATTR_PREFIX,
      "a TLV of PROXY protocol: alpn, authority, unique_id, ssl, netns, ssl_version, "
      "ssl_cn, ssl_cipher, ssl_sig_alg, ssl_key_alg, ssl_verify, 0xNN"),
    A("realip_remote_port", realip_remote_port, HD_VAL_INT, C, "of the socket itself"),
    A("proxy_protocol_addr", proxy_protocol_addr, HD_VAL_STR, C, "from PROXY protocol"),
    A("proxy_protocol_port", proxy_protocol_port, HD_VAL_INT, C, "from PROXY protocol"),
    A("proxy_protocol_server_addr", proxy_protocol_server_addr, HD_VAL_STR, C,
      "where PROXY protocol says it went to"),
    A("proxy_protocol_server_port", proxy_protocol_server_port, HD_VAL_INT, C,
      "where PROXY protocol says it went to"),
    A("tcpinfo_rtt", tcpinfo_rtt, HD_VAL_INT, C, "round trip time, in microseconds"),
    A("tcpinfo_rttvar", tcpinfo_rttvar, HD_VAL_INT, C, "how it varies"),
    A("tcpinfo_snd_cwnd", tcpinfo_snd_cwnd, HD_VAL_INT, C, "congestion window"),
    A("tcpinfo_rcv_space", tcpinfo_rcv_space, HD_VAL_INT, C, "receive window, in bytes"),
    A("server_addr", server_addr, HD_VAL_STR, C, "the address it came to"),
    A("server_port", server_port, HD_VAL_INT, C, "the port it came to"),
    A("original_dst", original_dst, HD_VAL_STR, C,
      "address and port that the client went to before it was redirected here"),
    A("connection", connection, HD_VAL_INT, C, "number of the connection"),
    A("connection_time", connection_time, HD_VAL_STR, C, "seconds since it was opened"),
    A("connection_requests", connection_requests, HD_VAL_INT, R, "of this connection"),
    A("peer_principal", peer_principal, HD_VAL_STR, C, "the peer's verified SPIFFE id"),
    A("local_principal", local_principal, HD_VAL_STR, C, "our own SPIFFE id"),
    {0},
};
