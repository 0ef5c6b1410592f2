#include "stream/hd_tcp.h"
#include "core/base/hd_list.h"
#include "core/base/hd_log.h"
#include "core/conf/hd_parse.h"
#include "core/net/hd_proxy_protocol.h"
#include "core/net/hd_tunnel.h"
#include "stream/hd_session.h"

#define ANSWER_LINGER_MS 5000
#define KEEPALIVE_S 7200 /* the kernel's own (tcp(7)) */

typedef struct {
    hd_session_t s;      /* first: ops get this */
    hd_conn_t *up;       /* NULL: none yet */
    hd_tunnel_t *tunnel; /* has both conns from then on */
    hd_timer_t lifetime;
    hd_link_t watched; /* among <watched> below */
    bool is_over;      /* its time is */
    hd_err_t end_err;
} tcp_t;

/* Tunnels to servers of clusters that say so: they end when checks fail. */
static _Thread_local hd_link_t watched;

static tcp_t *tcp_of(hd_session_t *s)
{
    return (tcp_t *)s;
}

/* --- what a session does with its conns --- */

static void drop_upstream(hd_session_t *s)
{
    tcp_t *t = tcp_of(s);

    if (t->up != NULL)
        hd_conn_reset(t->up);
    t->up = NULL;
}

static void answer(hd_session_t *s, hd_str_t text)
{
    if (text.len > 0 && hd_conn_try_send_copy(s->down, text.data, text.len))
        hd_conn_flush(s->down);
}

/* An answer isn't lost to a reset for what the client still says. */
static void close_down(hd_session_t *s)
{
    hd_timer_stop(s->loop, &tcp_of(s)->lifetime);
    hd_conn_close(s->down, s->conf->answer != NULL ? ANSWER_LINGER_MS : 0);
}

static void count(hd_session_t *s)
{
    tcp_t *t = tcp_of(s);
    hd_session_try_t *last = s->last_try;

    s->count.bytes_received = s->down->bytes_in;
    s->count.bytes_sent = s->down->bytes_out;
    if (t->up == NULL || last == NULL || last->end_ns != 0)
        return;
    last->bytes_sent = t->up->bytes_out;
    last->bytes_received = t->up->bytes_in;
    if (t->tunnel != NULL)
        last->first_byte_ns = hd_tunnel_first_byte_ns(t->tunnel);
}

/* --- the tunnel --- */

/* What is queued still goes when all is well: it counts as sent. */
static void on_tunnel_end(void *arg, const hd_tunnel_result_t *result)
{
    tcp_t *t = arg;
    hd_session_t *s = &t->s;

    hd_timer_stop(s->loop, &t->lifetime);
    if (t->watched.next != NULL)
        hd_list_remove(&t->watched);
    s->ended_by = result->ended_by;
    if (result->err == NULL) { /* what is queued still goes, and counts */
        hd_conn_flush(t->up);
        hd_conn_flush(s->down);
    }
    count(s);
    if (result->err != NULL) {
        s->err = *result->err;
        s->flags = s->err.code == HD_E_TIMEOUT                                 ? "SI"
                   : hd_str_eq(hd_str_c(result->ended_by), HD_STR("upstream")) ? "UC"
                                                                               : "DC";
    } else {
        s->down->bytes_out = hd_max(s->down->bytes_out, result->bytes_up_down);
        s->flags = t->is_over ? "DT" : s->flags;
    }
    hd_session_end(s, HD_RESULT_OK);
    t->up = NULL;
    t->tunnel = NULL;
}

/* As configured, or as variables say; what is no size is no limit. */
static uint64_t rate_of(const hd_session_t *s, const hd_expr_t *expr)
{
    hd_attr_of_t of = hd_session_attr_of(s);
    hd_str_t text;
    uint64_t rate;

    if (expr == NULL || hd_expr_eval_of(expr, &of, &text) != HD_OK || text.len == 0 ||
        hd_parse_size(text, HD_TCP_RATE_MAX, &rate, NULL) != HD_OK)
        return 0;
    return rate;
}

static void start_tunnel(tcp_t *t)
{
    const hd_tcp_conf_t *c = t->s.conf;
    hd_tunnel_conf_t conf = {.idle_timeout_ms = c->idle_timeout_ms,
                             .ends_together = c->ends_together,
                             .up_rate = rate_of(&t->s, c->upload_rate),
                             .down_rate = rate_of(&t->s, c->download_rate)};

    hd_session_connected(&t->s);
    t->tunnel = hd_tunnel_start(t->s.down, t->up, &conf, on_tunnel_end, t);
    if (hd_unlikely(t->s.pick.cluster->closes_failed) && t->s.pick.endpoint != NULL) {
        if (watched.next == NULL)
            hd_list_init(&watched);
        hd_list_add_last(&watched, &t->watched);
    }
}

void hd_tcp_refresh(void)
{
    static const hd_err_t failed = {.code = HD_E_NO_HEALTHY,
                                    .text = "the server failed its health checks"};

    if (watched.next == NULL)
        return;
    hd_list_each(link, &watched)
    {
        tcp_t *t = hd_list_entry(link, tcp_t, watched);

        if (!hd_balancer->is_well(t->s.pick.cluster, t->s.pick.endpoint))
            hd_tunnel_fail(t->tunnel, "upstream", &failed);
    }
}

/* --- connecting --- */

/* The version of the PROXY head that goes before all else; 0: none. */
static uint8_t proxy_version(const tcp_t *t)
{
    return t->s.conf->proxy_version != 0 ? t->s.conf->proxy_version
                                         : t->s.pick.proxy_version;
}

/* Without TLS: as ordinary bytes rather than by a layer, so that the stack stays one to
 * splice. */
static bool send_proxy_header(tcp_t *t)
{
    const hd_conn_t *down = t->s.down;
    char head[256];
    size_t n = hd_proxy_print(proxy_version(t), hd_conn_remote(down), hd_conn_local(down),
                              HD_STR_NONE, head, sizeof(head));

    return hd_conn_try_send_copy(t->up, head, n);
}

static const hd_tls_conf_t *tls_of(const tcp_t *t)
{
    return t->s.conf->tls != NULL ? t->s.conf->tls : t->s.pick.tls;
}

/* The names of our certificate, where they have variables. */
static hd_rc_t name_own_cert(tcp_t *t, const hd_tls_conf_t *tls, hd_tls_client_t *ask)
{
    hd_attr_of_t of = hd_session_attr_of(&t->s);
    const hd_tls_pair_t *p = tls->pairs;

    if (p == NULL)
        return HD_OK;
    if (hd_expr_eval_of(p->cert, &of, &ask->cert) == HD_OK &&
        hd_expr_eval_of(p->key, &of, &ask->key) == HD_OK &&
        !hd_expr_climbs(p->cert, ask->cert) && !hd_expr_climbs(p->key, ask->key))
        return HD_OK;
    return hd_err_set(&t->s.err, HD_E_CONF,
                      "unsafe name of a certificate \"%.*s\" with key \"%.*s\"",
                      HD_STR_ARG(ask->cert), HD_STR_ARG(ask->key));
}

/* The peer's name, where variables made it or its host; empty: settings say. */
static hd_rc_t name_peer(tcp_t *t, hd_tls_client_t *ask)
{
    hd_session_t *s = &t->s;
    hd_attr_of_t of = hd_session_attr_of(s);
    hd_str_t name = s->host;
    hd_addr_t ip;

    if (s->pick.tls != NULL && s->pick.tls->sni_by_endpoint && s->pick.endpoint != NULL)
        ask->sni = s->pick.endpoint->hostname;
    if (s->conf->tls_name == NULL && (s->addrs_n == 0 || !s->conf->tls_by_host))
        return HD_OK;
    if (s->conf->tls_name != NULL &&
        (hd_expr_eval_of(s->conf->tls_name, &of, &name) != HD_OK || name.len == 0 ||
         memchr(name.data, '\0', name.len) != NULL))
        return hd_err_set(&s->err, HD_E_CONF, "no name of the upstream \"%.*s\"",
                          HD_STR_ARG(name)); /* nothing to verify by would be anybody */
    ask->verify_host = name;
    /* no session of another name at the same address */
    ask->session_key = hd_str_printf(hd_conn_pool(s->down), "%.*s|%.*s",
                                     HD_STR_ARG(s->last_try->addr), HD_STR_ARG(name));
    if (s->conf->sni_by_host && !hd_addr_parse_ip(name, &ip))
        ask->sni = name;
    return HD_OK;
}

static hd_rc_t push_tls(tcp_t *t)
{
    const hd_session_t *s = &t->s;
    const hd_tls_conf_t *tls = tls_of(t);
    hd_tls_client_t ask = {0};

    if (tls == NULL)
        return HD_OK;
    if (name_peer(t, &ask) != HD_OK)
        return HD_ERROR;
    /* Below TLS by a layer, which sees to it that nothing goes before all of it. */
    if (proxy_version(t) != 0 &&
        hd_proxy_push(t->up, proxy_version(t), hd_conn_remote(s->down),
                      hd_conn_local(s->down), HD_STR_NONE, &t->s.err) != HD_OK)
        return HD_ERROR;
    if (name_own_cert(t, tls, &ask) != HD_OK)
        return HD_ERROR;
    return hd_tls_push_client(t->up, tls, &ask, &t->s.err);
}

static void on_up_open(hd_conn_t *c)
{
    tcp_t *t = c->owner;

    if (proxy_version(t) != 0 && tls_of(t) == NULL && !send_proxy_header(t)) {
        hd_ignore(hd_err_set(&t->s.err, HD_E_LIMIT, "no buffer left"));
        hd_session_fail(&t->s, HD_RESULT_CANCELLED);
        return;
    }
    hd_balancer->report(t->s.member, &t->s.pick, HD_RESULT_OK, 0);
    start_tunnel(t);
}

static void on_up_closed(hd_conn_t *c)
{
    hd_session_t *s = c->owner;

    if (c->err != NULL)
        s->err = *c->err;
    else
        hd_ignore(hd_err_set(&s->err, HD_E_RESET, "upstream closed"));
    hd_session_lose_try(s, s->err.code == HD_E_TIMEOUT ? HD_RESULT_TIMEOUT
                                                       : HD_RESULT_CONNECT);
}

static void ignore(hd_conn_t *c)
{
    (void)c; /* read by the tunnel */
}

static const hd_conn_handler_t up_handler = {.on_open = on_up_open,
                                             .on_readable = ignore,
                                             .on_writable = ignore,
                                             .on_closed = on_up_closed};

static void connect_upstream(hd_session_t *s)
{
    tcp_t *t = tcp_of(s);
    const hd_cluster_t *cluster = s->pick.cluster;
    const hd_cluster_more_t *more = hd_cluster_more(cluster);
    uint64_t timeout_ms = s->conf->connect_timeout_ms > 0 ? s->conf->connect_timeout_ms
                                                          : cluster->connect_timeout_ms;
    hd_socket_spec_t bind = {.bind = *hd_cluster_bind(cluster, s->pick.addr.family),
                             .type = SOCK_STREAM,
                             .nodelay = !s->conf->no_nodelay,
                             .keepalive_idle_s = more->tcp_keepalive_idle_s,
                             .keepalive_interval_s = more->tcp_keepalive_interval_s,
                             .keepalive_probes = more->tcp_keepalive_probes};

    bind.family = s->pick.addr.family;
    if (s->conf->keepalive && bind.keepalive_idle_s == 0)
        bind.keepalive_idle_s = KEEPALIVE_S;
    if (hd_session_set_bind(s, &bind) != HD_OK) {
        hd_session_lose_try(s, HD_RESULT_CANCELLED);
        return;
    }
    t->up = hd_conn_connect(s->loop, &s->pick.addr, &bind, timeout_ms, &up_handler, t,
                            &s->err);
    hd_session_give_counts(s, t->up);
    if (t->up == NULL || push_tls(t) != HD_OK)
        hd_session_lose_try(s, HD_RESULT_CONNECT);
}

static const hd_session_ops_t ops = {.protocol = "TCP",
                                     .connect = connect_upstream,
                                     .drop_upstream = drop_upstream,
                                     .count = count,
                                     .answer = answer,
                                     .close = close_down};

/* --- the client's side until the tunnel --- */

static void on_down_closed(hd_conn_t *c)
{
    hd_session_t *s = c->owner;

    hd_err_clear(&s->err);
    if (c->err != NULL)
        s->err = *c->err;
    s->flags = "DC";
    s->ended_by = "downstream";
    hd_session_fail(s, HD_RESULT_CANCELLED);
}

static const hd_conn_handler_t down_handler = {
    .on_readable = ignore, .on_writable = ignore, .on_closed = on_down_closed};

static void on_time_over(hd_timer_t *timer)
{
    tcp_t *t = hd_container_of(timer, tcp_t, lifetime);

    t->is_over = true;
    if (t->tunnel != NULL) {
        hd_tunnel_stop(t->tunnel, false);
        return;
    }
    t->s.flags = "DT";
    hd_ignore(hd_err_set(&t->s.err, HD_E_TIMEOUT, "the connection's time is over"));
    hd_session_fail(&t->s, HD_RESULT_CANCELLED);
}

/* The pool that a session lies in may go by other ways. */
static void stop_lifetime(void *session)
{
    hd_timer_stop(((tcp_t *)session)->s.loop, &((tcp_t *)session)->lifetime);
}

static void start_lifetime(tcp_t *t)
{
    hd_timer_init(&t->lifetime, on_time_over);
    hd_pool_defer(hd_conn_pool(t->s.down), stop_lifetime, t);
    hd_timer_set(t->s.loop, &t->lifetime, t->s.conf->lifetime_ms);
}

static void on_conn(hd_conn_t *c, const hd_entrance_t *in)
{
    hd_session_t *s = hd_session_create(c, in, &ops, sizeof(tcp_t));

    hd_conn_set_handler(c, &down_handler, s);
    if (s->conf->lifetime_ms > 0)
        start_lifetime(tcp_of(s));
    hd_session_start(s);
}

static void on_refused(hd_conn_t *c, const hd_entrance_t *in, unsigned status)
{
    hd_session_t *s = hd_session_create(c, in, &ops, sizeof(tcp_t));

    c->protocol = hd_tcp_protocol();
    c->handler = &down_handler; /* variables find it so; it is closed right after */
    c->owner = s;
    hd_session_refuse(s, status);
    c->handler = NULL;
}

/* Sessions end by themselves, as in nginx; worker_shutdown_timeout bounds the wait. */
static void drain(hd_loop_t *loop, const hd_drain_round_t *round)
{
    (void)loop;
    (void)round;
}

uint16_t hd_tcp_protocol(void)
{
    static const hd_protocol_t protocol = {
        .name = "tcp", .on_conn = on_conn, .on_refused = on_refused, .drain = drain};
    static uint16_t number;

    if (number == 0)
        number = hd_protocol_register(&protocol);
    return number;
}

hd_session_t *hd_tcp_session_of(const hd_conn_t *c)
{
    return c->handler == &down_handler ? c->owner : hd_tunnel_arg(c);
}

const hd_conn_t *hd_tcp_upstream_of(const hd_session_t *s)
{
    return s->ops == &ops ? ((const tcp_t *)s)->up : NULL;
}
