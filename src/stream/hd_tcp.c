#include "stream/hd_tcp.h"
#include "core/base/hd_hashes.h"
#include "core/base/hd_log.h"
#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"
#include "core/net/hd_proxy_protocol.h"
#include "core/net/hd_resolve.h"
#include "core/net/hd_tunnel.h"
#include "core/os/hd_os.h"

#define TRIED_MAX 16

typedef struct {
    hd_conn_t *down, *up; /* <up> NULL: none yet */
    hd_loop_t *loop;
    hd_member_t *member;
    const hd_region_t *listener; /* pinned */
    const hd_filter_chain_t *chain;
    const hd_tcp_conf_t *conf;
    const hd_tcp_target_t *target;
    hd_tcp_target_t named; /* the target, where variables name it */
    hd_pick_t pick;
    hd_addr_t tried[TRIED_MAX];
    /* Of a host that variables name: its addresses, in <down>'s pool. */
    const hd_addr_t *addrs;
    uint32_t addrs_n;
    hd_str_t host; /* without port */
    uint16_t port;
    bool is_name;           /* <host> is no address */
    hd_resolve_wait_t wait; /* for a name */
    uint32_t attempts;
    bool is_picked;           /* the balancer wants to know of the end */
    hd_gauge_id_t counted[2]; /* cluster's and endpoint's conns, until <up> has them */
    bool header_sent, is_tls_on, is_waiting;
    hd_tunnel_t *tunnel;
    hd_post_t wake;
    uint64_t start_ns;
    hd_str_t upstream; /* address text, in the down conn's pool */
    hd_tunnel_result_t result;
    hd_err_t err;
} session_t;

static _Thread_local size_t sessions_n;
static _Thread_local session_t *logged; /* whose end is being logged; else NULL */

/* --- letting go --- */

static void give_counts(session_t *s, hd_conn_t *up)
{
    for (size_t i = 0; i < hd_countof(s->counted); i++) {
        hd_conn_count(up, s->member, s->counted[i]);
        s->counted[i] = HD_GAUGE_NONE;
    }
}

static void release_pick(session_t *s, hd_pick_result_t result)
{
    give_counts(s, NULL);
    if (s->is_picked)
        hd_balancer->release(s->member, &s->pick, result, 0);
    s->is_picked = false;
}

static void drop_upstream(session_t *s)
{
    if (s->up != NULL)
        hd_conn_reset(s->up);
    s->up = NULL;
}

static void log_session(session_t *s)
{
    const hd_filter_chain_t *chain = s->chain;

    logged = s;
    for (uint32_t i = 0; i < chain->filters_n; i++) {
        const hd_module_t *m = hd_module_get(chain->filters[i].module);

        if (m != NULL && m->on_conn_log != NULL)
            m->on_conn_log(s->down, chain->filters[i].conf);
    }
    logged = NULL;
    if (s->err.code != HD_E_NONE) {
        char remote[HD_ADDR_TEXT_MAX];

        hd_log_conn(s->err.code == HD_E_RESET ? HD_LOG_INFO : HD_LOG_ERROR, s->down->id,
                    "%s, client: %.*s, upstream: \"%.*s\"", s->err.text,
                    HD_STR_ARG(hd_addr_print_ip(hd_conn_remote(s->down), remote)),
                    HD_STR_ARG(s->upstream));
    }
}

/* The memory lies in the down conn's pool and goes with it. */
static void end_session(session_t *s, hd_pick_result_t result)
{
    log_session(s);
    release_pick(s, result);
    if (s->is_waiting)
        hd_resolving->stop(&s->wait);
    hd_post_cancel(&s->wake);
    hd_unpin(s->member, s->listener);
    sessions_n--;
}

/* Before the tunnel: nothing was exchanged, the client is closed. */
static void fail_session(session_t *s, hd_pick_result_t result)
{
    hd_conn_t *down = s->down;

    drop_upstream(s);
    end_session(s, result);
    hd_conn_close(down, 0);
}

/* --- the tunnel --- */

static void on_tunnel_end(void *arg, const hd_tunnel_result_t *result)
{
    session_t *s = arg;

    s->result = *result;
    if (result->err != NULL)
        s->err = *result->err;
    end_session(s, HD_RESULT_OK);
}

static void start_tunnel(session_t *s)
{
    hd_tunnel_conf_t conf = {.idle_timeout_ms = s->conf->idle_timeout_ms};
    hd_conn_t *up = s->up;

    s->up = NULL; /* the tunnel's */
    s->tunnel = hd_tunnel_start(s->down, up, &conf, on_tunnel_end, s);
}

/* --- connecting --- */

/* The version of the PROXY head that goes before all else; 0: none. */
static uint8_t proxy_version(const session_t *s)
{
    return s->conf->send_proxy_protocol ? 1 : s->pick.proxy_version;
}

/* As ordinary bytes rather than by a layer, so that the stack stays one to splice. */
static bool send_proxy_header(session_t *s)
{
    char head[256];
    size_t n = hd_proxy_print(proxy_version(s), hd_conn_remote(s->down),
                              hd_conn_local(s->down), HD_STR_NONE, head, sizeof(head));

    return hd_conn_try_send_copy(s->up, head, n);
}

static const hd_tls_conf_t *tls_of(const session_t *s)
{
    return s->conf->tls != NULL ? s->conf->tls : s->pick.tls;
}

/* A host that variables made is the peer's name. */
static hd_rc_t push_tls(session_t *s)
{
    const hd_tls_conf_t *tls = tls_of(s);
    bool is_named = s->addrs_n > 0 && s->conf->tls_by_host;
    hd_tls_client_t ask = {.verify_host = is_named ? s->host : HD_STR_NONE};

    if (is_named) /* no session of another name at the same address */
        ask.session_key = hd_str_printf(hd_conn_pool(s->down), "%.*s|%.*s",
                                        HD_STR_ARG(s->upstream), HD_STR_ARG(s->host));

    if (is_named && s->conf->sni_by_host && s->is_name)
        ask.sni = s->host;
    s->is_tls_on = true;
    return tls == NULL ? HD_OK : hd_tls_push_client(s->up, tls, &ask, &s->err);
}

/* This server couldn't be reached: another one, if there is one. */
static void lose_try(session_t *s, hd_pick_result_t result)
{
    drop_upstream(s);
    hd_log_conn(HD_LOG_ERROR, s->down->id, "%s while connecting to upstream \"%.*s\"",
                s->err.text, HD_STR_ARG(s->upstream));
    if (s->attempts <= TRIED_MAX)
        s->tried[s->attempts - 1] = s->pick.addr;
    release_pick(s, result);
    hd_post(s->loop, &s->wake);
}

static void on_up_open(hd_conn_t *c)
{
    session_t *s = c->owner;

    if (proxy_version(s) != 0 && !s->header_sent) {
        s->header_sent = true;
        if (!send_proxy_header(s)) {
            hd_ignore(hd_err_set(&s->err, HD_E_LIMIT, "no buffer left"));
            fail_session(s, HD_RESULT_CANCELLED);
            return;
        }
        hd_conn_flush(c);
        if (tls_of(s) != NULL) {
            if (push_tls(s) != HD_OK)
                lose_try(s, HD_RESULT_CONNECT);
            return; /* on_open comes again */
        }
    }
    hd_balancer->report(s->member, &s->pick, HD_RESULT_OK, 0);
    start_tunnel(s);
}

static void on_up_closed(hd_conn_t *c)
{
    session_t *s = c->owner;

    if (c->err != NULL)
        s->err = *c->err;
    else
        hd_ignore(hd_err_set(&s->err, HD_E_RESET, "upstream closed"));
    lose_try(s, s->err.code == HD_E_TIMEOUT ? HD_RESULT_TIMEOUT : HD_RESULT_CONNECT);
}

static void ignore(hd_conn_t *c)
{
    (void)c; /* read by the tunnel */
}

static const hd_conn_handler_t up_handler = {.on_open = on_up_open,
                                             .on_readable = ignore,
                                             .on_writable = ignore,
                                             .on_closed = on_up_closed};

static void connect_upstream(session_t *s)
{
    const hd_cluster_t *cluster = s->pick.cluster;
    uint64_t timeout_ms = s->conf->connect_timeout_ms > 0 ? s->conf->connect_timeout_ms
                                                          : cluster->connect_timeout_ms;
    hd_socket_spec_t bind = {.bind = cluster->bind,
                             .type = SOCK_STREAM,
                             .nodelay = true,
                             .keepalive_idle_s = cluster->tcp_keepalive_idle_s,
                             .keepalive_interval_s = cluster->tcp_keepalive_interval_s,
                             .keepalive_probes = cluster->tcp_keepalive_probes};
    char text[HD_ADDR_TEXT_MAX];

    bind.family = s->pick.addr.family;
    s->upstream = hd_str_dup(hd_conn_pool(s->down), hd_addr_print(&s->pick.addr, text));
    s->header_sent = s->is_tls_on = false;
    s->up = hd_conn_connect(s->loop, &s->pick.addr, &bind, timeout_ms, &up_handler, s,
                            &s->err);
    give_counts(s, s->up);
    if (s->up == NULL || (proxy_version(s) == 0 && push_tls(s) != HD_OK))
        lose_try(s, HD_RESULT_CONNECT);
}

/* A place among the endpoint's conns: conns that linger count, sessions that the
 * balancer counts don't. */
static bool try_count_endpoint(session_t *s)
{
    const hd_endpoint_t *e = s->pick.endpoint;

    if (e == NULL || e->max_conns == 0 || e->state == NULL ||
        e->state->conns == HD_GAUGE_NONE)
        return true;
    if (!hd_gauge_try_up(s->member, e->state->conns, e->max_conns))
        return false;
    s->counted[1] = e->state->conns;
    return true;
}

/* --- choosing --- */

static uint64_t hash_source(const hd_conn_t *c)
{
    char text[HD_ADDR_TEXT_MAX];
    hd_str_t ip = hd_addr_print_ip(hd_conn_remote(c), text);

    return hd_xxh64(ip.data, ip.len, 0); /* as Envoy */
}

/* nginx and Envoy ask each server at most once. */
static bool may_try(const session_t *s)
{
    const hd_region_t *r = hd_slot_get(s->member, s->target->cluster);
    const hd_cluster_t *c = r == NULL ? NULL : r->root;
    const hd_endpoints_t *eps;

    if (s->attempts == 0)
        return true;
    if (s->conf->tries_max > 0)
        return s->attempts < s->conf->tries_max;
    if (c == NULL || s->attempts >= TRIED_MAX)
        return false;
    if (s->addrs_n > 0)
        return s->attempts < s->addrs_n;
    r = hd_cluster_endpoints(s->member, c);
    eps = r == NULL ? NULL : r->root;
    return eps != NULL && s->attempts < eps->n;
}

/* What an nginx-style cluster hashes. */
static void set_key(session_t *s)
{
    const hd_region_t *r = hd_slot_get(s->member, s->target->cluster);
    const hd_cluster_t *c = r == NULL ? NULL : r->root;
    hd_attr_of_t of = {.conn = s->down, .pool = s->down->pool, .member = s->member};

    if (c != NULL && c->hash_key != NULL &&
        hd_expr_eval_of(c->hash_key, &of, &s->pick.key) != HD_OK)
        s->pick.key = HD_STR_NONE;
}

static void start_try(session_t *s)
{
    hd_rc_t rc;

    if (!may_try(s)) { /* s->err tells of the last one */
        fail_session(s, HD_RESULT_CANCELLED);
        return;
    }
    hd_err_clear(&s->err);
    s->pick = (hd_pick_t){.cluster_slot = s->target->cluster,
                          .has_hash = s->conf->hash_source_ip,
                          .subset = s->target->subset,
                          .subset_n = s->target->subset_n,
                          .original_dst = *hd_conn_local(s->down),
                          .addrs = s->addrs,
                          .addrs_n = s->addrs_n,
                          .tried = s->tried,
                          .tried_n = hd_min(s->attempts, (uint32_t)TRIED_MAX)};
    if (s->conf->hash_source_ip)
        s->pick.hash = hash_source(s->down);
    set_key(s);
    rc = hd_balancer->pick(s->member, &s->pick, &s->wake, &s->err);
    if (rc == HD_AGAIN)
        return;
    if (rc != HD_OK) {
        fail_session(s, HD_RESULT_CANCELLED);
        return;
    }
    s->is_picked = true;
    s->attempts++;
    if (!try_count_endpoint(s)) {
        hd_ignore(hd_err_set(&s->err, HD_E_LIMIT, "a server has its %u connections",
                             s->pick.endpoint->max_conns));
        if (s->attempts <= TRIED_MAX)
            s->tried[s->attempts - 1] = s->pick.addr;
        release_pick(s, HD_RESULT_CANCELLED);
        hd_post(s->loop, &s->wake);
        return;
    }
    if (!hd_cluster_try_count(s->member, s->target->cluster, s->pick.cluster, false,
                              HD_CG_CONNS, &s->counted[0])) {
        hd_ignore(hd_err_set(&s->err, HD_E_LIMIT,
                             "cluster \"%.*s\" has its %u connections",
                             HD_STR_ARG(s->target->name), s->pick.cluster->max_conns));
        fail_session(s, HD_RESULT_CANCELLED);
        return;
    }
    connect_upstream(s);
}

/* --- the client's side until the tunnel --- */

static void on_down_closed(hd_conn_t *c)
{
    session_t *s = c->owner;

    hd_err_clear(&s->err);
    if (c->err != NULL)
        s->err = *c->err;
    fail_session(s, HD_RESULT_CANCELLED);
}

static const hd_conn_handler_t down_handler = {
    .on_readable = ignore, .on_writable = ignore, .on_closed = on_down_closed};

static const hd_tcp_target_t *choose_target(const hd_tcp_conf_t *conf)
{
    uint64_t random;
    uint32_t at;

    if (conf->targets_n <= 1 || conf->weights_total == 0)
        return conf->targets;
    hd_os_random(&random, sizeof(random));
    at = (uint32_t)(random % conf->weights_total);
    for (uint32_t i = 0; i < conf->targets_n; i++) {
        if (at < conf->targets[i].weight)
            return &conf->targets[i];
        at -= conf->targets[i].weight;
    }
    return conf->targets;
}

static hd_rc_t take_addrs(session_t *s, const hd_addr_t *addrs, uint32_t n, uint16_t port)
{
    s->addrs = hd_resolve_take(hd_conn_pool(s->down), addrs, n, port);
    s->addrs_n = n;
    return HD_OK;
}

static hd_rc_t look_up(session_t *s)
{
    const hd_addr_t *addrs;
    uint32_t n;
    hd_rc_t rc = hd_resolving->find(s->loop, s->conf->resolver, s->host, &s->wait,
                                    &s->wake, &addrs, &n, &s->err);

    return rc == HD_OK ? take_addrs(s, addrs, n, s->port) : rc;
}

/* A host that is no cluster's name: an address, or a name to be looked up. */
static hd_rc_t find_address(session_t *s)
{
    hd_str_t text = s->named.name;
    hd_addr_t addr;

    if (hd_addr_parse(hd_conn_pool(s->down), text, 0, &addr, NULL) == HD_OK) {
        char *ip = hd_pool_alloc(hd_conn_pool(s->down), HD_ADDR_TEXT_MAX);

        s->host = hd_addr_print_ip(&addr, ip);
        return addr.family == AF_UNIX || addr.port != 0
                   ? take_addrs(s, &addr, 1, addr.port)
                   : hd_err_set(&s->err, HD_E_NO_CLUSTER, "no port in upstream \"%.*s\"",
                                HD_STR_ARG(text));
    }
    if (hd_str_find_char(text, ':') < 0)
        return hd_err_set(&s->err, HD_E_NO_CLUSTER, "no port in upstream \"%.*s\"",
                          HD_STR_ARG(text));
    if (!hd_resolve_split(text, 0, &s->host, &s->port))
        return hd_err_set(&s->err, HD_E_NO_CLUSTER, "invalid host in upstream \"%.*s\"",
                          HD_STR_ARG(text));
    if (s->conf->resolver == NULL || hd_resolving == NULL)
        return hd_err_set(&s->err, HD_E_NO_CLUSTER, "no resolver defined to resolve %.*s",
                          HD_STR_ARG(s->host));
    s->is_name = true;
    return look_up(s);
}

/* proxy_pass with variables: the cluster of that name. */
static hd_rc_t find_named(session_t *s)
{
    hd_attr_of_t of = {
        .conn = s->down, .pool = hd_conn_pool(s->down), .member = s->member};
    hd_str_t name = HD_STR_NONE;
    const hd_slot_t *slot;

    s->named = *s->target;
    s->target = &s->named;
    if (hd_expr_eval_of(s->conf->pass, &of, &name) != HD_OK || name.len == 0)
        return hd_err_set(&s->err, HD_E_NO_CLUSTER,
                          "the variables of proxy_pass name no upstream");
    s->named.name = hd_str_dup(of.pool, name);
    /* As src/mesh names the clusters of stream: of an upstream block, of an address. */
    slot = hd_slot_find(s->member, NULL, HD_RES_CLUSTER,
                        hd_str_printf(of.pool, "stream:%.*s", HD_STR_ARG(name)));
    if (slot == NULL)
        slot = hd_slot_find(s->member, NULL, HD_RES_CLUSTER,
                            hd_str_printf(of.pool, "stream:%.*s|0", HD_STR_ARG(name)));
    s->named.cluster = slot != NULL ? slot : s->conf->any;
    return slot != NULL ? HD_OK : find_address(s);
}

/* Where servers are names that nobody has asked for yet, there may soon be some. */
static hd_rc_t wait_for_servers(session_t *s)
{
    const hd_region_t *r =
        s->target->cluster != NULL ? hd_slot_get(s->member, s->target->cluster) : NULL;
    const hd_cluster_t *c = r != NULL ? r->root : NULL;

    return c == NULL || c->resolved.len == 0
               ? HD_OK
               : hd_resolving->wait_for(s->loop, c, &s->wait, &s->wake);
}

static void begin(session_t *s, hd_rc_t found)
{
    s->is_waiting = found == HD_AGAIN;
    if (found == HD_ERROR)
        fail_session(s, HD_RESULT_CANCELLED);
    else if (found == HD_OK)
        start_try(s);
}

static void on_wake(hd_post_t *p)
{
    session_t *s = hd_container_of(p, session_t, wake);

    if (!s->is_waiting)
        start_try(s);
    else
        begin(s, s->is_name && s->addrs_n == 0 ? look_up(s) : wait_for_servers(s));
}

static void on_conn(hd_conn_t *c, const hd_slot_t *listener,
                    const hd_filter_chain_t *chain)
{
    session_t *s = hd_pool_new(hd_conn_pool(c), session_t);
    hd_rc_t rc;

    s->down = c;
    s->loop = c->loop;
    s->member = hd_loop_member(c->loop);
    s->listener = hd_listener_serving(); /* <chain> is of this version */
    if (s->listener == NULL)
        s->listener = hd_slot_get(s->member, listener);
    s->chain = chain;
    s->conf = chain->protocol_conf;
    s->start_ns = hd_loop_now_ns(c->loop);
    hd_post_init(&s->wake, on_wake);
    if (s->listener == NULL || s->conf->targets_n == 0) {
        hd_conn_close(c, 0);
        return;
    }
    hd_pin(s->member, s->listener);
    sessions_n++;
    s->target = choose_target(s->conf);
    hd_conn_set_handler(c, &down_handler, s);
    rc = s->conf->pass != NULL ? find_named(s) : HD_OK;
    begin(s, rc == HD_OK ? wait_for_servers(s) : rc);
}

/* Sessions end by themselves, as in nginx; worker_shutdown_timeout bounds the wait. */
static void drain(hd_loop_t *loop)
{
    (void)loop;
}

uint16_t hd_tcp_protocol(void)
{
    static const hd_protocol_t protocol = {
        .name = "tcp", .on_conn = on_conn, .drain = drain};
    static uint16_t number;

    if (number == 0)
        number = hd_protocol_register(&protocol);
    return number;
}

bool hd_tcp_get_info(const hd_conn_t *c, hd_tcp_info_t *info)
{
    const session_t *s = logged;

    if (s == NULL || s->down != c)
        return false;
    *info = (hd_tcp_info_t){
        .cluster = s->target->name,
        .upstream = s->upstream,
        .bytes_received = s->result.bytes_down_up,
        .bytes_sent = s->result.bytes_up_down,
        .duration_ns = hd_loop_now_ns(s->loop) - s->start_ns,
        .ended_by = s->result.ended_by,
        .err = s->err.code != HD_E_NONE ? &s->err : NULL,
        .connected = s->tunnel != NULL,
        .cluster_conf = s->is_picked ? s->pick.cluster : NULL,
        .endpoint = s->is_picked ? s->pick.endpoint : NULL,
    };
    return true;
}

size_t hd_tcp_sessions(void)
{
    return sessions_n;
}
