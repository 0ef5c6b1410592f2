/* Conns that are being opened. */
#include "http/hd_upool_int.h"
#include "core/net/hd_proxy_protocol.h"
#include "http/hd_weft.h"

#include <stdio.h>

#define KEEPALIVE_S 7200 /* the kernel's own (tcp(7)) */

static void on_connect_failed(hd_conn_t *c)
{
    hd_pooled_t *uc = c->owner;
    hd_upool_t *p = uc->u.pool;
    hd_err_t err = {0};

    if (c->err != NULL)
        err = *c->err;
    else
        hd_ignore(hd_err_set(&err, HD_E_RESET,
                             "upstream closed the connection while "
                             "it was being opened"));
    hd_pooled_close(uc);
    hd_upool_fail_waits(p, &err);
}

static bool has_alpn(const hd_conn_t *c, hd_str_t name)
{
    return c->facts != NULL && hd_str_eq(c->facts->alpn, name);
}

/* The codec that was agreed on. */
static hd_rc_t open_codec(hd_upool_t *p, hd_pooled_t *uc, hd_err_t *err)
{
    hd_conn_t *c = uc->u.conn;

    uc->u.is_http2 = p->key.protocol == HD_UP_HTTP2 ||
                     (p->key.protocol == HD_UP_AUTO && has_alpn(c, HD_STR("h2")));
    p->multiplexes = true;
    if (p->key.offers_weft && has_alpn(c, HD_STR(HD_WEFT_ALPN)))
        return hd_weft_client_open(&uc->u, err);
    if (uc->u.is_http2)
        return hd_h2_client_open(&uc->u, err);
    p->multiplexes = false;
    if (p->key.protocol == HD_UP_RAW)
        return hd_raw_client_open(&uc->u, err);
    return hd_h1_client_open(&uc->u, err);
}

static void on_open(hd_conn_t *c)
{
    hd_pooled_t *uc = c->owner;
    hd_upool_t *p = uc->u.pool;
    hd_err_t err = {0};

    if (open_codec(p, uc, &err) != HD_OK) {
        hd_pooled_close(uc);
        hd_upool_fail_waits(p, &err);
        return;
    }
    p->connecting_n--;
    uc->is_open = true;
    hd_pooled_settle(p, uc);
    hd_upool_serve(p);
}

static void on_early_bytes(hd_conn_t *c)
{
    (void)c; /* they stay unread until the codec has the conn */
}

static const hd_conn_handler_t connecting_handler = {
    .on_open = on_open, .on_readable = on_early_bytes, .on_closed = on_connect_failed};

static void fill_spec(const hd_upool_t *p, const hd_cluster_t *cluster,
                      hd_socket_spec_t *spec)
{
    const hd_cluster_more_t *more = hd_cluster_more(cluster);

    *spec = (hd_socket_spec_t){
        .bind = p->key.bind,
        .family = p->key.addr.family,
        .type = SOCK_STREAM,
        .nodelay = p->key.addr.family != AF_UNIX,
        .transparent = p->key.transparent,
        .mark = p->key.mark,
        .netns = p->key.netns,
        .keepalive_idle_s = more->tcp_keepalive_idle_s,
        .keepalive_interval_s = more->tcp_keepalive_interval_s,
        .keepalive_probes = more->tcp_keepalive_probes,
    };
    if (p->key.probes_idle && spec->keepalive_idle_s == 0)
        spec->keepalive_idle_s = KEEPALIVE_S;
}

/* A sidecar chooses its filter chain by what is offered (istio.alpn): between Istio's
 * workloads the offer tells that HTTP follows, and which. Elsewhere: as configured. */
static hd_str_t mesh_alpn(const hd_upool_t *p, hd_str_t offered)
{
    hd_str_t one;

    for (size_t at = 0; at < offered.len; at += 1 + one.len) {
        one = hd_str_sub(offered, at + 1, (unsigned char)offered.data[at]);
        if (hd_str_eq(one, HD_STR("istio")))
            return p->key.protocol == HD_UP_HTTP2
                       ? HD_STR("\010istio-h2\005istio\002h2")
                       : HD_STR("\016istio-http/1.1\005istio\010http/1.1");
    }
    return HD_STR_NONE;
}

/* What is spoken here, where settings don't say what to offer: servers of gRPC refuse who
 * offers nothing, and without an offer nobody could choose (HD_UP_AUTO). */
static hd_str_t alpn_of(const hd_upool_t *p)
{
    switch (p->key.protocol) {
    case HD_UP_RAW:
        return HD_STR_NONE;
    case HD_UP_HTTP2:
        return HD_STR("\002h2");
    case HD_UP_AUTO:
        return HD_STR("\002h2\010http/1.1");
    default:
        return HD_STR("\010http/1.1");
    }
}

/* What is offered anyway, and behind it that we'd rather speak weft: who doesn't know it
 * takes the other. */
static hd_str_t offer_weft(const hd_upool_t *p, hd_str_t alpn, char *to, size_t room)
{
    static const char weft[] = "\015" HD_WEFT_ALPN;

    if (!p->key.offers_weft)
        return alpn;
    if (alpn.len == 0)
        alpn = alpn_of(p);
    if (alpn.len + sizeof(weft) > room)
        return alpn;
    memcpy(to, alpn.data, alpn.len);
    memcpy(to + alpn.len, weft, sizeof(weft) - 1);
    return hd_str_n(to, alpn.len + sizeof(weft) - 1);
}

static hd_rc_t push_tls(hd_upool_t *p, hd_conn_t *c, const hd_pick_t *pick, hd_err_t *err)
{
    char addr[HD_ADDR_TEXT_MAX], key[512], alpn[256];
    hd_str_t text = hd_addr_print(&p->key.addr, addr);
    hd_tls_client_t ask = {0};
    int n;

    if (pick->tls == NULL)
        return HD_OK;
    n = snprintf(key, sizeof(key), "%.*s|%llu|%.*s|%.*s", HD_STR_ARG(text),
                 (unsigned long long)p->key.secret_version,
                 HD_STR_ARG(p->key.verify_host), HD_STR_ARG(p->key.source_identity));
    ask.session_key = hd_str_n(key, hd_min((size_t)n, sizeof(key) - 1));
    if (!hd_str_eq(p->key.sni, pick->tls->sni))
        ask.sni = p->key.sni;
    if (p->key.protocol != HD_UP_RAW)
        ask.alpn = mesh_alpn(p, pick->tls->alpn);
    if (ask.alpn.len == 0)
        ask.alpn = pick->tls->alpn.len == 0 && pick->tls->alpn_by_protocol
                       ? alpn_of(p)
                       : pick->tls->alpn;
    ask.alpn = offer_weft(p, ask.alpn, alpn, sizeof(alpn));
    ask.verify_host = p->key.verify_host;
    ask.cert = p->key.own_cert;
    ask.key = p->key.own_key;
    return hd_tls_push_client(c, pick->tls, &ask, err);
}

hd_rc_t hd_upool_connect(hd_upool_t *p, const hd_pick_t *pick, uint64_t timeout_ms,
                         hd_err_t *err)
{
    hd_gauge_id_t counted[2];
    hd_socket_spec_t spec;
    hd_conn_t *c;
    hd_pooled_t *uc;

    if (!hd_upool_try_count_conn(p, counted))
        return HD_AGAIN;
    fill_spec(p, pick->cluster, &spec);
    c = hd_conn_connect(p->loop, &p->key.addr, &spec, timeout_ms, &connecting_handler,
                        NULL, err);
    if (c == NULL) {
        for (size_t i = 0; i < hd_countof(counted); i++)
            if (counted[i] != HD_GAUGE_NONE)
                hd_gauge_down(p->m, counted[i]);
        return HD_ERROR;
    }
    uc = hd_pool_new(hd_conn_pool(c), hd_pooled_t);
    uc->u.conn = c;
    uc->u.pool = p;
    uc->u.born_ns = hd_loop_now_ns(p->loop);
    uc->m = p->m;
    memcpy(uc->conns, counted, sizeof(counted));
    hd_pool_defer(hd_conn_pool(c), hd_pooled_uncount, uc);
    hd_timer_init(&uc->u.idle, hd_pooled_on_idle);
    hd_list_init(&uc->idle_link);
    hd_list_add_last(&p->connecting, &uc->u.link);
    p->conns_n++;
    p->cluster->conns_n++;
    p->connecting_n++;
    hd_upool_table.conns_n++;
    c->is_upstream = true;
    hd_conn_set_handler(c, &connecting_handler, uc);
    if ((p->key.proxy_version != 0 &&
         hd_proxy_push(c, p->key.proxy_version, &p->key.proxy_source, &p->key.proxy_local,
                       HD_STR_NONE, err) != HD_OK) ||
        push_tls(p, c, pick, err) != HD_OK) {
        hd_pooled_close(uc);
        return HD_ERROR;
    }
    return HD_OK;
}
