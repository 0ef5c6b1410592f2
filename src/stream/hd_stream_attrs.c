/* nginx's variables of stream: of the ClientHello that was looked at, and of sessions.
 * Those of a conn (client, server, TLS, time) are HTTP's, too:
 * src/http/hd_http_attrs_*.c
 */
#include "stream/hd_session.h"
#include "stream/hd_udp.h"

#include <string.h>

#define GET(name)                                                                        \
    static void get_##name(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)

/* --- the ClientHello --- */

static const hd_conn_facts_t *hello_of(const hd_attr_of_t *of)
{
    const hd_conn_facts_t *f = of->conn != NULL ? of->conn->facts : NULL;

    return f != NULL && hd_str_eq(f->transport, HD_STR("tls")) ? f : NULL;
}

GET(preread_name)
{
    const hd_conn_facts_t *f = hello_of(of);

    (void)rest;
    if (f != NULL)
        hd_val_set_str(out, f->sni);
}

/* From wire form (RFC 7301 §3.1) to a list with commas, which has the same length but
 * for the first one's. */
GET(preread_alpn)
{
    const hd_conn_facts_t *f = hello_of(of);
    hd_str_t wire = f != NULL ? f->offered_alpn : HD_STR_NONE;
    char *text;
    size_t at = 0;

    (void)rest;
    if (wire.len < 2)
        return;
    text = hd_pool_alloc_unaligned(of->pool, wire.len);
    memcpy(text, wire.data + 1, wire.len - 1);
    for (at = (unsigned char)wire.data[0]; at < wire.len - 1;
         at += 1 + (unsigned char)wire.data[1 + at])
        text[at] = ',';
    hd_val_set_str(out, hd_str_n(text, wire.len - 1));
}

GET(preread_protocol)
{
    static const char *const names[] = {"SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2",
                                        "TLSv1.3"};
    const hd_conn_facts_t *f = hello_of(of);

    (void)rest;
    if (f != NULL && f->offered_version >= 0x0300 &&
        f->offered_version < 0x0300 + hd_countof(names))
        hd_val_set_str(out, hd_str_c(names[f->offered_version - 0x0300]));
}

/* --- the session --- */

static hd_session_t *counted_session(const hd_attr_of_t *of)
{
    hd_session_t *s = hd_session_of(of->conn);

    if (s != NULL)
        s->ops->count(s);
    return s;
}

GET(bytes_received)
{
    const hd_session_t *s = counted_session(of);

    (void)rest;
    hd_val_set_int(out, s != NULL ? s->count.bytes_received : 0);
}

GET(bytes_sent)
{
    const hd_session_t *s = counted_session(of);

    (void)rest;
    hd_val_set_int(out, s != NULL ? s->count.bytes_sent : 0);
}

GET(session_time)
{
    (void)rest;
    hd_val_set_str(out, hd_attr_seconds(of->pool, hd_loop_now_ns(of->conn->loop) -
                                                      of->conn->opened_ns));
}

GET(status)
{
    const hd_session_t *s = hd_session_of(of->conn);

    (void)rest;
    hd_val_set_str(out, hd_str_printf(of->pool, "%03u", s != NULL ? s->status : 0u));
}

GET(protocol)
{
    hd_session_info_t info;

    (void)rest;
    hd_val_set_str(out, of->conn != NULL && hd_session_get_info(of->conn, &info)
                            ? info.protocol
                            : HD_STR("TCP"));
}

GET(flags)
{
    const hd_session_t *s = hd_session_of(of->conn);

    (void)rest;
    hd_val_set_str(out, s != NULL && s->flags != NULL ? hd_str_c(s->flags) : HD_STR("-"));
}

GET(cluster)
{
    const hd_session_t *s = hd_session_of(of->conn);

    (void)rest;
    if (s != NULL && s->target != NULL)
        hd_val_set_str(out, s->target->name);
}

/* --- map, geo, split_clients --- */

static bool find_maps(const hd_conn_t *c, hd_maps_at_t *at)
{
    const hd_session_t *s = hd_session_of(c);
    const hd_filter_chain_t *chain = s != NULL ? s->chain : hd_listener_chain_of(c);
    const hd_tcp_conf_t *conf;

    if (chain == NULL ||
        (chain->protocol != hd_tcp_protocol() && chain->protocol != hd_udp_protocol()))
        return false;
    conf = chain->protocol_conf;
    at->maps = conf->maps;
    at->region = conf->region;
    return true;
}

void hd_stream_maps_register(void)
{
    hd_value_maps_on_conns(find_maps);
}

/* --- its tries: a value each, in the order asked --- */

typedef hd_str_t (*try_text_pt)(const hd_attr_of_t *of, const hd_session_try_t *t);

static void put_tries(const hd_attr_of_t *of, hd_val_t *out, try_text_pt text_of)
{
    const hd_session_t *s = counted_session(of);
    hd_str_t all = HD_STR_NONE;

    if (s == NULL || s->tries == NULL)
        return;
    for (const hd_session_try_t *t = s->tries; t != NULL; t = t->next) {
        hd_str_t one = text_of(of, t);

        all = t == s->tries ? one
                            : hd_str_printf(of->pool, "%.*s, %.*s", HD_STR_ARG(all),
                                            HD_STR_ARG(one));
    }
    hd_val_set_str(out, all);
}

static hd_str_t since_start(const hd_attr_of_t *of, const hd_session_try_t *t,
                            uint64_t at_ns)
{
    return at_ns == 0 ? HD_STR("-") : hd_attr_seconds(of->pool, at_ns - t->start_ns);
}

static hd_str_t try_addr(const hd_attr_of_t *of, const hd_session_try_t *t)
{
    (void)of;
    return t->addr;
}

static hd_str_t try_connect_time(const hd_attr_of_t *of, const hd_session_try_t *t)
{
    return since_start(of, t, t->connected_ns);
}

static hd_str_t try_first_byte_time(const hd_attr_of_t *of, const hd_session_try_t *t)
{
    return since_start(of, t, t->first_byte_ns);
}

static hd_str_t try_session_time(const hd_attr_of_t *of, const hd_session_try_t *t)
{
    return since_start(of, t,
                       t->end_ns != 0 ? t->end_ns : hd_loop_now_ns(of->conn->loop));
}

static hd_str_t try_sent(const hd_attr_of_t *of, const hd_session_try_t *t)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)t->bytes_sent);
}

static hd_str_t try_received(const hd_attr_of_t *of, const hd_session_try_t *t)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)t->bytes_received);
}

#define GET_TRIES(name, fn)                                                              \
    GET(name)                                                                            \
    {                                                                                    \
        (void)rest;                                                                      \
        put_tries(of, out, fn);                                                          \
    }

GET_TRIES(upstream_addr, try_addr)
GET_TRIES(upstream_connect_time, try_connect_time)
GET_TRIES(upstream_first_byte_time, try_first_byte_time)
GET_TRIES(upstream_session_time, try_session_time)
GET_TRIES(upstream_bytes_sent, try_sent)
GET_TRIES(upstream_bytes_received, try_received)

#define ON_CONN(text, fn, kind, about)                                                   \
    {                                                                                    \
        .name = text, .type = kind, .flags = HD_ATTR_CONN | HD_ATTR_VOLATILE,            \
        .get = get_##fn, .help = about                                                   \
    }
#define STR HD_VAL_STR
#define INT HD_VAL_INT

const hd_attr_def_t hd_stream_attrs[] = {
    ON_CONN("ssl_preread_server_name", preread_name, STR,
            "the name that the ClientHello asks for"),
    ON_CONN("ssl_preread_alpn_protocols", preread_alpn, STR,
            "the protocols that the ClientHello offers, with commas"),
    ON_CONN("ssl_preread_protocol", preread_protocol, STR,
            "the highest version of TLS that the ClientHello offers"),
    ON_CONN("bytes_received", bytes_received, INT, "bytes that came from the client"),
    ON_CONN("bytes_sent", bytes_sent, INT, "bytes sent to the client"),
    ON_CONN("session_time", session_time, STR, "seconds since it began"),
    ON_CONN("status", status, STR, "200, 400, 403, 500, 502, 503; 000: it goes on"),
    ON_CONN("protocol", protocol, STR, "TCP or UDP"),
    ON_CONN("response_flags", flags, STR, "Envoy's: UF, UH, …"),
    ON_CONN("upstream_cluster", cluster, STR, "name of the cluster"),
    ON_CONN("upstream_addr", upstream_addr, STR, "addresses tried"),
    ON_CONN("upstream_connect_time", upstream_connect_time, STR, "seconds, each try"),
    ON_CONN("upstream_first_byte_time", upstream_first_byte_time, STR,
            "seconds until the upstream's first byte, each try"),
    ON_CONN("upstream_session_time", upstream_session_time, STR, "seconds, each try"),
    ON_CONN("upstream_bytes_sent", upstream_bytes_sent, STR, "bytes, each try"),
    ON_CONN("upstream_bytes_received", upstream_bytes_received, STR, "bytes, each try"),
    {0},
};
