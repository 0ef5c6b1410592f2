#include "stream/hd_conf_stream.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_listen.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"
#include "stream/hd_tcp.h"

#define SERVERS_MAX 100000

typedef struct {
    hd_node_t *node;
    hd_array_t listens; /* hd_conf_listen_t */
} server_t;

/* A walk through the block; see hd_conf_http.c, which does the same with more to do. */
typedef struct {
    hd_node_t *node;
    hd_array_t servers;
    server_t *server; /* being sketched */
    bool is_sketch;
} build_t;

typedef struct {
    const hd_slot_t *cluster;
    hd_str_t host_port;
    uint64_t connect_timeout_ms, timeout_ms, accepted, tries_time_ms; /* 0: default */
    uint32_t tries;
    bool has_pass, proxy_protocol, no_next_upstream, accepted_flag;
} stream_conf_t;

/* The block being built; NULL: none. Not in a conf: what lies in a resource must not
 * differ from build to build (HD_CONTENT_BUILT). */
static build_t *building;

/* --- directives --- */

static hd_rc_t set_listen(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    if (!building->is_sketch)
        return HD_OK;
    return hd_conf_parse_listen(cf, args, true, &building->server->listens, err);
}

static hd_rc_t set_pass(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    stream_conf_t *sc = conf;

    sc->has_pass = true;
    if (hd_str_find_char(args[0], '$') >= 0)
        return hd_err_set(err, HD_E_CONF,
                          "variables are not supported in proxy_pass of "
                          "stream");
    if (hd_str_find(args[0], HD_STR("://")) >= 0)
        return hd_err_set(err, HD_E_CONF,
                          "\"%.*s\" is a URL: in stream it is proxy_pass HOST:PORT or an "
                          "upstream's name",
                          HD_STR_ARG(args[0]));
    sc->host_port = hd_str_dup(cf->pool, args[0]);
    return hd_conf_cluster->slot_for(cf, args[0], 0, true, &sc->cluster, err);
}

static hd_rc_t set_inverse(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool *flag = (bool *)((char *)conf + cf->directive->offset);

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    *flag = !*flag;
    return HD_OK;
}

static hd_rc_t accept_error_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err)
{
    hd_log_level_t level;

    (void)conf;
    if (cf->node->args_n == 2 && !hd_log_parse_level(args[1], &level))
        return hd_err_set(err, HD_E_CONF, "invalid log level \"%.*s\"",
                          HD_STR_ARG(args[1]));
    if (cf->node->uses == 1)
        hd_conf_warn(cf, "an error_log of a block isn't kept apart: its lines go to the "
                         "main one");
    return HD_OK;
}

/* --- listeners --- */

static uint32_t time_or(uint64_t ms, uint32_t otherwise)
{
    return ms == 0 ? otherwise : (uint32_t)hd_min(ms, UINT32_MAX);
}

static hd_str_t without_port(hd_str_t host_port)
{
    ssize_t colon = hd_str_find_char(host_port, ':');

    return colon < 0 ? host_port : hd_str_sub(host_port, 0, (size_t)colon);
}

static hd_rc_t make_tcp(hd_conf_t *cf, const stream_conf_t *sc, hd_tcp_conf_t *tcp,
                        hd_err_t *err)
{
    hd_tcp_target_t *target = hd_pool_new(cf->pool, hd_tcp_target_t);

    *target =
        (hd_tcp_target_t){.cluster = sc->cluster, .name = sc->host_port, .weight = 1};
    *tcp = (hd_tcp_conf_t){
        .targets = target,
        .targets_n = 1,
        .weights_total = 1,
        .connect_timeout_ms = time_or(sc->connect_timeout_ms, 60000),
        .idle_timeout_ms = time_or(sc->timeout_ms, 600000),
        .tries_max = sc->no_next_upstream ? 1 : sc->tries,
        .send_proxy_protocol = sc->proxy_protocol,
        .stat_prefix = target->name,
    };
    if (!hd_conf_ssl_upstream_is_on(cf))
        return HD_OK;
    return hd_conf_ssl_upstream(cf, without_port(sc->host_port), HD_STR_NONE, &tcp->tls,
                                err);
}

/* Modules that look at conns: in the order of loading. */
static void make_filters(hd_conf_t *cf, hd_filter_chain_t *chain)
{
    hd_net_filter_t *list = hd_pool_new_n(cf->pool, hd_net_filter_t, hd_modules_n());

    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        const hd_module_t *m = hd_module_get(i);
        bool is_used = m->conf_size == 0;

        if (m->on_conn == NULL && m->on_conn_log == NULL)
            continue;
        for (size_t b = 0; b < m->conf_size && !is_used; b++)
            is_used = ((const char *)cf->confs[i])[b] != 0;
        if (is_used)
            list[chain->filters_n++] =
                (hd_net_filter_t){.name = hd_str_dup(cf->pool, hd_str_c(m->name)),
                                  .module = i,
                                  .conf = cf->confs[i]};
    }
    chain->filters = list;
}

/* <cf>: the server's block, in the listener's region. */
static hd_rc_t make_chain(hd_conf_t *cf, const server_t *s, const hd_conf_listen_t *l,
                          hd_filter_chain_t *chain, hd_err_t *err)
{
    const stream_conf_t *sc = cf->confs[hd_module_number(&hd_stream_module)];
    hd_tcp_conf_t *tcp = hd_pool_new(cf->pool, hd_tcp_conf_t);

    if (!sc->has_pass) {
        hd_ignore(hd_err_set(err, HD_E_CONF, "no \"proxy_pass\" in this server"));
        return hd_conf_blame(cf, s->node, err);
    }
    if (make_tcp(cf, sc, tcp, err) != HD_OK)
        return hd_conf_blame(cf, hd_conf_find(s->node, HD_STR("proxy_ssl")), err);
    *chain =
        (hd_filter_chain_t){.name = tcp->stat_prefix,
                            .protocol = hd_tcp_protocol(),
                            .protocol_conf = tcp,
                            .handshake_timeout_ms = hd_conf_ssl_handshake_timeout_ms(cf)};
    make_filters(cf, chain);
    if (!l->is_ssl)
        return HD_OK;
    if (hd_conf_ssl_server(cf, HD_STR_NONE, &chain->tls, err) != HD_OK)
        return hd_conf_blame(cf, hd_conf_find(s->node, HD_STR("ssl_certificate")), err);
    if (chain->tls != NULL)
        return HD_OK;
    hd_ignore(hd_err_set(err, HD_E_CONF,
                         "no \"ssl_certificate\" is defined for the \"listen … ssl\" "
                         "directive in %.*s:%u",
                         HD_STR_ARG(l->node->file), l->node->line));
    return hd_conf_blame(cf, s->node, err);
}

static hd_rc_t begin(build_t *b, hd_conf_t *outer, hd_str_t name, hd_conf_t *cf,
                     hd_err_t *err)
{
    if (hd_conf_begin_resource(outer, HD_RES_LISTENER, name, cf, err) != HD_OK)
        return HD_ERROR;
    cf->node = b->node;
    if (hd_conf_apply_simple(cf, b->node, HD_IN_STREAM, err) != HD_OK)
        return HD_ERROR;
    cf->scope = HD_IN_STREAM;
    return hd_conf_complete(cf, HD_IN_STREAM, err);
}

static hd_rc_t put_listener(build_t *b, hd_conf_t *outer, const server_t *s,
                            const hd_conf_listen_t *listen, hd_err_t *err)
{
    hd_slot_t *slot =
        hd_slot_find_or_add(outer->arena, HD_RES_LISTENER, listen->name, err);
    hd_filter_chain_t *chain;
    hd_listener_t *l;
    hd_conf_t cf, at;
    hd_rc_t rc;

    if (slot == NULL)
        return HD_ERROR;
    if (hd_batch_has(outer->batch, HD_RES_LISTENER, listen->name)) {
        hd_ignore(hd_err_set(err, HD_E_CONF,
                             "duplicate \"%.*s\" address and port pair: another server "
                             "listens there",
                             HD_STR_ARG(listen->name)));
        return hd_conf_blame(outer, listen->node, err);
    }
    if (begin(b, outer, listen->name, &cf, err) != HD_OK)
        return HD_ERROR;
    at = cf;
    at.scope = HD_IN_STREAM_SERVER;
    at.node = s->node;
    if (hd_conf_enter(&cf, s->node, HD_IN_STREAM_SERVER, &at.confs, err) != HD_OK)
        return HD_ERROR;
    l = hd_pool_new(cf.pool, hd_listener_t);
    chain = hd_pool_new(cf.pool, hd_filter_chain_t);
    if (make_chain(&at, s, listen, chain, err) != HD_OK)
        return HD_ERROR;
    l->name = hd_str_dup(cf.pool, listen->name);
    l->socket = listen->socket;
    if (l->socket.bind.family == AF_UNIX)
        l->socket.bind.path = hd_str_dup(cf.pool, l->socket.bind.path);
    l->addr = l->socket.bind;
    l->bind = true;
    l->default_chain = chain;
    if (listen->proxy_protocol) {
        l->filters |= HD_LF_PROXY_PROTOCOL;
        l->filters_timeout_ms = 30000; /* nginx's proxy_protocol_timeout */
    }
    cf.node = listen->node;
    if (hd_build_need_listen(&cf, &l->socket, err) != HD_OK)
        return hd_conf_blame(outer, listen->node, err);
    rc = hd_batch_put(cf.batch, slot, cf.region, l, HD_CONTENT_BUILT, err);
    return rc == HD_DONE ? HD_OK : rc;
}

/* --- the blocks --- */

/* Upstreams may stand behind the servers that use them, so servers are only noted. */
static hd_rc_t note_server(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    server_t *s = hd_array_add(&building->servers);

    (void)args;
    (void)conf;
    if (s == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d servers", SERVERS_MAX);
    s->node = (hd_node_t *)(uintptr_t)cf->node;
    hd_array_init(&s->listens, cf->temp, sizeof(hd_conf_listen_t), HD_CONF_LISTENS_MAX);
    return HD_OK;
}

static hd_rc_t build_server(build_t *b, hd_conf_t *cf, const hd_conf_t *http_level,
                            server_t *s, hd_err_t *err)
{
    hd_conf_t sketch = *http_level;
    hd_rc_t rc;

    b->server = s;
    b->is_sketch = true;
    rc = hd_conf_enter(&sketch, s->node, HD_IN_STREAM_SERVER, NULL, err);
    b->is_sketch = false;
    if (rc != HD_OK)
        return HD_ERROR;
    if (s->listens.n == 0) {
        hd_ignore(hd_err_set(err, HD_E_CONF, "no \"listen\" is defined for this server"));
        return hd_conf_blame(cf, s->node, err);
    }
    for (size_t i = 0; i < s->listens.n; i++) {
        if (put_listener(b, cf, s, hd_array_at(&s->listens, hd_conf_listen_t, i), err) !=
            HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t enter_stream(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    build_t *b = hd_pool_new(cf->temp, build_t);
    hd_conf_t at = *cf;
    hd_rc_t rc;

    (void)args;
    (void)conf;
    building = b;
    b->node = (hd_node_t *)(uintptr_t)cf->node;
    hd_array_init(&b->servers, cf->temp, sizeof(server_t), SERVERS_MAX);
    at.pool = cf->temp; /* what is read here is only looked at */
    at.region = NULL;
    rc = hd_conf_enter(&at, b->node, HD_IN_STREAM, &at.confs, err);
    at.scope = HD_IN_STREAM;
    for (size_t i = 0; rc == HD_OK && i < b->servers.n; i++)
        rc = build_server(b, cf, &at, hd_array_at(&b->servers, server_t, i), err);
    building = NULL;
    return rc;
}

#define IN_ANY (HD_IN_STREAM | HD_IN_STREAM_SERVER)
#define AT(field) offsetof(stream_conf_t, field)

static const hd_directive_t directives[] = {
    {.name = "stream",
     .scope = HD_IN_MAIN,
     .block = enter_stream,
     .help = "{ … }: TCP proxies"},
    {.name = "server",
     .scope = HD_IN_STREAM,
     .repeats = true,
     .block = note_server,
     .help = "{ … }: addresses, and the upstream that their connections go to"},
    {.name = "listen",
     .scope = HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_listen,
     .help = "ADDRESS:PORT|PORT|unix:PATH [ssl] [proxy_protocol] [reuseport] [backlog=N] "
             "[rcvbuf=SIZE] [sndbuf=SIZE] [ipv6only=on|off] [so_keepalive=…]"},
    {.name = "proxy_pass",
     .scope = HD_IN_STREAM_SERVER,
     .args_n = 1,
     .set = set_pass,
     .help = "HOST:PORT|UPSTREAM|unix:PATH: where connections go"},
    {.name = "proxy_connect_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(connect_timeout_ms),
     .help = "TIME: for connecting to a server; 60s"},
    {.name = "proxy_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(timeout_ms),
     .help = "TIME: a connection that says nothing either way is closed; 10m"},
    {.name = "proxy_protocol",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(proxy_protocol),
     .help = "on|off: tell the upstream who the client is (version 1); off"},
    {.name = "proxy_next_upstream",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_next_upstream),
     .help = "on|off: ask the next server when one can't be reached; on"},
    {.name = "proxy_next_upstream_tries",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(tries),
     .help = "N: at most so many servers are asked; 0: all there are"},
    {.name = "proxy_buffer_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; bytes lie in blocks of 16 KB"},
    {.name = "tcp_nodelay",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(accepted_flag),
     .help = "on|off: accepted; it is always on"},
    {.name = "error_log",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .set = accept_error_log,
     .help = "FILE [LEVEL]: accepted; all lines go to the program's log"},
    {0},
};

const hd_module_t hd_stream_module = {
    .abi = HD_MODULE_ABI,
    .name = "stream",
    .directives = directives,
    .conf_size = sizeof(stream_conf_t),
};
