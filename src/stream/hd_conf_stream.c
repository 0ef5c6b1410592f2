#include "stream/hd_conf_stream.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_listen.h"
#include "core/conf/hd_conf_log.h"
#include "core/conf/hd_conf_resolver.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"
#include "stream/hd_session.h"
#include "stream/hd_udp.h"

#include <string.h>

#define SERVERS_MAX 100000
#define NAMES_MAX 10000
#define PREREAD_TIMEOUT_MS 30000 /* of the PROXY protocol's head, too */

typedef struct {
    hd_node_t *node;
    hd_array_t listens; /* hd_conf_listen_t */
    hd_array_t names;   /* hd_str_t, as server_name has them */
} server_t;

/* What is listened on, and by whom; one of several is told by the ClientHello's name. */
typedef struct {
    hd_conf_listen_t listen;
    hd_array_t servers; /* server_t *; the first is the default one */
} address_t;

/* A walk through the block; see hd_conf_http.c, which does the same with more to do. */
typedef struct {
    hd_node_t *node;
    hd_array_t servers;          /* server_t */
    hd_array_t addresses;        /* address_t */
    server_t *server;            /* being sketched */
    const hd_value_maps_t *maps; /* in the listener being built */
    bool is_sketch;
} build_t;

typedef struct {
    const hd_slot_t *cluster;
    const hd_expr_t *pass; /* with variables */
    const hd_slot_t *any;  /* of hosts that it makes */
    hd_str_t host_port;
    /* 0: default */
    uint64_t connect_timeout_ms, timeout_ms, preread_timeout_ms, head_timeout_ms;
    uint64_t accepted, tries_time_ms;
    const hd_expr_t *upload_rate, *download_rate, *bind; /* NULL: none */
    uint32_t tries;
    uint32_t proxy_version; /* of the PROXY head; 0: 1 */
    bool has_pass, proxy_protocol, no_next_upstream, ssl_preread;
    bool half_close, keepalive, no_nodelay, transparent;
    hd_udp_conf_t udp;
    const hd_tcp_set_t *sets;
    uint32_t sets_n;
    const hd_expr_t *answer;
    const hd_log_place_t *error_log;
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
    sc->pass = NULL;
    sc->cluster = NULL;
    if (hd_str_find(args[0], HD_STR("://")) >= 0)
        return hd_err_set(err, HD_E_CONF,
                          "\"%.*s\" is a URL: in stream it is proxy_pass HOST:PORT or an "
                          "upstream's name",
                          HD_STR_ARG(args[0]));
    sc->host_port = hd_str_dup(cf->pool, args[0]);
    if (hd_str_find_char(args[0], '$') >= 0) {
        hd_expr_t *expr;

        if (hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
            return HD_ERROR;
        sc->pass = expr;
        return hd_conf_cluster->any_slot(cf, true, &sc->any, err);
    }
    return hd_conf_cluster->slot_for(cf, args[0], 0, true, &sc->cluster, err);
}

static hd_rc_t set_one_name(hd_conf_t *cf, server_t *s, hd_str_t arg, hd_err_t *err)
{
    bool is_regex = arg.len > 1 && arg.data[0] == '~';
    hd_str_t name = is_regex ? arg : hd_str_dup_lower(cf->temp, arg);
    ssize_t star = is_regex ? -1 : hd_str_find_char(name, '*');
    hd_match_t match = {.kind = HD_MATCH_REGEX,
                        .part = true,
                        .ignore_case = true,
                        .text = hd_str_sub(name, 1, name.len)};
    hd_str_t *to;

    if (is_regex && hd_match_check(&match, err) != HD_OK)
        return HD_ERROR;
    if (star >= 0 &&
        (hd_str_find_char(hd_str_sub(name, (size_t)star + 1, name.len), '*') >= 0 ||
         (!hd_str_has_prefix(name, HD_STR("*.")) &&
          !hd_str_has_suffix(name, HD_STR(".*")))))
        return hd_err_set(err, HD_E_CONF,
                          "invalid server name or wildcard \"%.*s\": NAME, *.NAME, "
                          ".NAME, NAME.* or ~REGEX is expected",
                          HD_STR_ARG(arg));
    if (name.len > 1 && name.data[0] == '.') { /* x and *.x */
        to = hd_array_add(&s->names);
        if (to != NULL)
            *to = hd_str_printf(cf->temp, "*%.*s", HD_STR_ARG(name));
        name = hd_str_sub(name, 1, name.len);
    }
    to = hd_array_add(&s->names);
    if (to == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d names", NAMES_MAX);
    *to = hd_str_dup(cf->temp, name);
    return HD_OK;
}

static hd_rc_t set_server_name(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    (void)conf;
    for (uint32_t i = 0; i < cf->node->args_n && building->is_sketch; i++) {
        if (args[i].len > 0 && set_one_name(cf, building->server, args[i], err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t set_inverse(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool *flag = (bool *)((char *)conf + cf->directive->offset);

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    *flag = !*flag;
    return HD_OK;
}

static hd_rc_t set_responses(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    ((stream_conf_t *)conf)->udp.has_responses = true;
    return hd_set_size(cf, args, conf, err);
}

static hd_rc_t add_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    stream_conf_t *sc = conf;
    uint32_t n = cf->is_first ? 0 : sc->sets_n;
    hd_tcp_set_t *list = hd_pool_new_n(cf->pool, hd_tcp_set_t, n + 1);
    hd_expr_t *value;

    if (args[0].len < 2 || args[0].data[0] != '$')
        return hd_err_set(err, HD_E_CONF,
                          "invalid variable name \"%.*s\": it begins with $",
                          HD_STR_ARG(args[0]));
    if (n > 0)
        memcpy(list, sc->sets, n * sizeof(*list));
    if (hd_attr_key(cf->pool,
                    hd_str_dup_lower(cf->temp, hd_str_sub(args[0], 1, args[0].len)), true,
                    &list[n].attr, err) != HD_OK ||
        hd_expr_compile(cf, args[1], &value, err) != HD_OK)
        return HD_ERROR;
    if (list[n].attr.def != 0)
        return hd_err_set(err, HD_E_CONF,
                          "the duplicate \"%.*s\" variable: it is built in",
                          HD_STR_ARG(args[0]));
    list[n].value = value;
    sc->sets = list;
    sc->sets_n = n + 1;
    return HD_OK;
}

/* A size, or variables that make one for each conn. */
static hd_rc_t set_rate(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint64_t rate;

    if (hd_str_find_char(args[0], '$') < 0 &&
        hd_parse_size(args[0], HD_TCP_RATE_MAX, &rate, err) != HD_OK)
        return HD_ERROR;
    return hd_set_expr(cf, args, conf, err);
}

/* proxy_bind ADDRESS [transparent] | off */
static hd_rc_t set_bind(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    stream_conf_t *sc = conf;
    hd_addr_t addr;

    sc->bind = NULL;
    sc->transparent = false;
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    if (cf->node->args_n == 2) {
        if (!hd_str_eq(args[1], HD_STR("transparent")))
            return hd_err_set(err, HD_E_CONF, "invalid parameter \"%.*s\": transparent",
                              HD_STR_ARG(args[1]));
        sc->transparent = true;
    }
    if (hd_str_find_char(args[0], '$') < 0 &&
        hd_addr_parse(cf->temp, args[0], 0, &addr, err) != HD_OK)
        return HD_ERROR;
    return hd_set_expr(cf, args, conf, err);
}

static hd_rc_t set_error_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    return hd_conf_log_place(cf, args, &((stream_conf_t *)conf)->error_log, err);
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
        .pass = sc->pass,
        .any = sc->pass != NULL ? sc->any : NULL,
        .resolver = sc->pass != NULL ? hd_conf_resolver(cf) : NULL,
        .weights_total = 1,
        .connect_timeout_ms = time_or(sc->connect_timeout_ms, 60000),
        .idle_timeout_ms = time_or(sc->timeout_ms, 600000),
        .tries_max = sc->no_next_upstream ? 1 : sc->tries,
        .tries_time_ms = sc->tries_time_ms,
        .upload_rate = sc->upload_rate,
        .download_rate = sc->download_rate,
        .bind = sc->bind,
        .transparent = sc->transparent,
        .proxy_version = !sc->proxy_protocol ? 0 : (uint8_t)hd_max(sc->proxy_version, 1u),
        .ends_together = !sc->half_close,
        .keepalive = sc->keepalive,
        .no_nodelay = sc->no_nodelay,
        .stat_prefix = target->name,
        .udp = sc->udp,
        .sets = sc->sets,
        .sets_n = sc->sets_n,
        .answer = sc->answer,
        .maps = building->maps,
        .region = cf->region,
        .error_log = sc->error_log,
    };
    if (!sc->has_pass)
        tcp->targets_n = 0;
    if (!hd_conf_ssl_upstream_is_on(cf))
        return HD_OK;
    if (hd_conf_ssl_is_by_server(cf))
        return hd_err_set(err, HD_E_CONF,
                          "proxy_ssl_name $upstream_last_server_name is for http");
    if (sc->pass != NULL)
        tcp->tls_by_host = hd_conf_ssl_is_by_host(cf, &tcp->sni_by_host);
    if (hd_conf_ssl_name(cf, &tcp->tls_name, &tcp->sni_by_host, err) != HD_OK)
        return HD_ERROR;
    return hd_conf_ssl_upstream(
        cf, sc->pass != NULL ? HD_STR_NONE : without_port(sc->host_port), HD_STR_NONE,
        &tcp->tls, err);
}

/* Modules that look at conns, of one phase. */
static void add_filters(hd_conf_t *cf, hd_phase_t phase, hd_net_filter_t *list,
                        hd_filter_chain_t *chain)
{
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        const hd_module_t *m = hd_module_get(i);
        bool is_used = m->conf_size == 0;

        if ((m->on_conn == NULL && m->on_session == NULL) || m->phase != phase)
            continue;
        for (size_t b = 0; b < m->conf_size && !is_used; b++)
            is_used = ((const char *)cf->confs[i])[b] != 0;
        if (is_used)
            list[chain->filters_n++] =
                (hd_net_filter_t){.name = hd_str_dup(cf->pool, hd_str_c(m->name)),
                                  .module = i,
                                  .conf = hd_conf_keep(cf, i)};
    }
}

/* By phase, within one in the order of loading. */
static void make_filters(hd_conf_t *cf, hd_filter_chain_t *chain)
{
    hd_net_filter_t *list = hd_pool_new_n(cf->pool, hd_net_filter_t, hd_modules_n());

    for (int phase = HD_PHASE_NONE; phase <= HD_PHASE_CONTENT; phase++)
        add_filters(cf, (hd_phase_t)phase, list, chain);
    chain->filters = list;
}

/* What a server of datagrams can't do is said, rather than left out. */
static hd_rc_t check_udp(hd_conf_t *cf, const server_t *s, const hd_tcp_conf_t *tcp,
                         hd_err_t *err)
{
    const char *what = tcp->tls != NULL             ? "proxy_ssl"
                       : tcp->proxy_version != 0    ? "proxy_protocol"
                       : tcp->upload_rate != NULL   ? "proxy_upload_rate"
                       : tcp->download_rate != NULL ? "proxy_download_rate"
                                                    : NULL;

    if (what == NULL)
        return HD_OK;
    hd_ignore(hd_err_set(err, HD_E_CONF,
                         "\"%s\" has no meaning for \"listen … udp\" here", what));
    return hd_conf_blame(cf, hd_conf_find(s->node, hd_str_c(what)), err);
}

/* <cf>: the server's block, in the listener's region. */
static hd_rc_t make_chain(hd_conf_t *cf, const server_t *s, const hd_conf_listen_t *l,
                          hd_filter_chain_t *chain, hd_err_t *err)
{
    const stream_conf_t *sc = cf->confs[hd_module_number(&hd_stream_module)];
    hd_tcp_conf_t *tcp = hd_pool_new(cf->pool, hd_tcp_conf_t);
    bool is_udp = l->socket.type == SOCK_DGRAM;

    if (sc->has_pass == (sc->answer != NULL)) {
        hd_ignore(hd_err_set(err, HD_E_CONF,
                             sc->has_pass ? "\"proxy_pass\" and \"return\" in one server"
                                          : "no \"proxy_pass\" in this server"));
        return hd_conf_blame(cf, s->node, err);
    }
    if (make_tcp(cf, sc, tcp, err) != HD_OK)
        return hd_conf_blame(cf, hd_conf_find(s->node, HD_STR("proxy_ssl")), err);
    if (is_udp && check_udp(cf, s, tcp, err) != HD_OK)
        return HD_ERROR;
    *chain =
        (hd_filter_chain_t){.name = tcp->stat_prefix,
                            .protocol = is_udp ? hd_udp_protocol() : hd_tcp_protocol(),
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

/* The names that a ClientHello is matched with. */
static void match_names(hd_conf_t *cf, const server_t *s, hd_filter_chain_t *chain)
{
    hd_str_t *names = hd_pool_new_n(cf->pool, hd_str_t, s->names.n);
    hd_match_t *regexes = hd_pool_new_n(cf->pool, hd_match_t, s->names.n);
    hd_chain_match_t *m = &chain->match;

    for (size_t i = 0; i < s->names.n; i++) {
        hd_str_t name = *hd_array_at(&s->names, hd_str_t, i);

        if (name.data[0] == '~')
            regexes[m->server_regexes_n++] =
                (hd_match_t){.kind = HD_MATCH_REGEX,
                             .part = true,
                             .ignore_case = true,
                             .text = hd_str_dup(cf->pool, hd_str_sub(name, 1, name.len))};
        else
            names[m->server_names_n++] = hd_str_dup(cf->pool, name);
    }
    m->server_names = names;
    m->server_regexes = regexes;
}

/* Whether a ClientHello is looked at is up to the default server, as in nginx. */
static void set_preread(const hd_conf_t *cf, const address_t *a, hd_listener_t *l)
{
    const stream_conf_t *sc = cf->confs[hd_module_number(&hd_stream_module)];

    l->error_log = sc->error_log;
    if (sc->ssl_preread || (a->listen.is_ssl && l->chains_n > 0)) {
        l->filters |= HD_LF_TLS_INSPECTOR;
        l->filters_timeout_ms = time_or(sc->preread_timeout_ms, PREREAD_TIMEOUT_MS);
    }
    if (a->listen.original_dst)
        l->filters |= HD_LF_ORIGINAL_DST;
    if (a->listen.proxy_protocol) {
        l->filters |= HD_LF_PROXY_PROTOCOL;
        l->filters_timeout_ms += time_or(sc->head_timeout_ms, PREREAD_TIMEOUT_MS);
    }
}

/* The default server's chain is the listener's default; each other one has names. */
static hd_rc_t make_chains(hd_conf_t *cf, const address_t *a, hd_listener_t *l,
                           hd_err_t *err)
{
    hd_filter_chain_t *chains = hd_pool_new_n(cf->pool, hd_filter_chain_t, a->servers.n);
    uint32_t n = 0;

    for (size_t i = a->servers.n; i-- > 0;) { /* set_preread wants the first one's <at> */
        const server_t *s = *hd_array_at(&a->servers, server_t *, i);
        hd_filter_chain_t *chain = &chains[i];
        hd_conf_t at = *cf;

        at.scope = HD_IN_STREAM_SERVER;
        at.node = s->node;
        if (hd_conf_enter(cf, s->node, HD_IN_STREAM_SERVER, &at.confs, err) != HD_OK ||
            make_chain(&at, s, &a->listen, chain, err) != HD_OK)
            return HD_ERROR;
        if (i > 0) {
            match_names(cf, s, chain);
            n++;
            continue;
        }
        l->default_chain = chain;
        l->chains = chains + 1;
        l->chains_n = n;
        l->socket.nodelay &=
            !((stream_conf_t *)hd_conf_of(&at, &hd_stream_module))->no_nodelay;
        set_preread(&at, a, l);
    }
    return HD_OK;
}

static hd_rc_t put_listener(build_t *b, hd_conf_t *outer, const address_t *a,
                            hd_err_t *err)
{
    const hd_conf_listen_t *listen = &a->listen;
    hd_slot_t *slot =
        hd_slot_find_or_add(outer->arena, HD_RES_LISTENER, listen->name, err);
    hd_listener_t *l;
    hd_conf_t cf;
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
    if (begin(b, outer, listen->name, &cf, err) != HD_OK ||
        hd_conf_make_maps(&cf, b->node, &b->maps, err) != HD_OK)
        return HD_ERROR;
    l = hd_pool_new(cf.pool, hd_listener_t);
    l->name = hd_str_dup(cf.pool, listen->name);
    l->region = cf.region;
    l->socket = listen->socket;
    if (l->socket.bind.family == AF_UNIX)
        l->socket.bind.path = hd_str_dup(cf.pool, l->socket.bind.path);
    l->addr = l->socket.bind;
    l->bind = true;
    if (make_chains(&cf, a, l, err) != HD_OK)
        return HD_ERROR;
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
    hd_array_init(&s->names, cf->temp, sizeof(hd_str_t), NAMES_MAX);
    return HD_OK;
}

static address_t *find_address(build_t *b, hd_str_t name)
{
    for (size_t i = 0; i < b->addresses.n; i++) {
        address_t *a = hd_array_at(&b->addresses, address_t, i);

        if (hd_str_eq(a->listen.name, name))
            return a;
    }
    return NULL;
}

/* Servers may share an address when names tell which of them is meant. */
static hd_rc_t add_to_address(build_t *b, hd_conf_t *cf, server_t *s,
                              const hd_conf_listen_t *listen, hd_err_t *err)
{
    address_t *a = find_address(b, listen->name);
    bool is_new = a == NULL;
    server_t **to;

    if (is_new) {
        a = hd_array_add(&b->addresses);
        if (a == NULL)
            return hd_err_set(err, HD_E_CONF, "more than %d addresses", SERVERS_MAX);
        a->listen = *listen;
        hd_array_init(&a->servers, cf->temp, sizeof(server_t *), SERVERS_MAX);
    } else if (*hd_array_at(&a->servers, server_t *, a->servers.n - 1) == s ||
               (s->names.n == 0 && !listen->is_default) ||
               listen->socket.type == SOCK_DGRAM) {
        return hd_err_set(err, HD_E_CONF,
                          "duplicate \"%.*s\" address and port pair: another server "
                          "listens there; a server_name would tell them apart",
                          HD_STR_ARG(listen->name));
    } else if (hd_conf_merge_listen(&a->listen, listen, err) != HD_OK) {
        return HD_ERROR;
    }
    to = hd_array_add(&a->servers);
    if (to == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d servers", SERVERS_MAX);
    *to = s;
    if (listen->is_default && !is_new) { /* first, whatever its place */
        server_t **first = hd_array_at(&a->servers, server_t *, 0);

        *to = *first;
        *first = s;
    }
    return HD_OK;
}

static hd_rc_t sketch_server(build_t *b, hd_conf_t *cf, const hd_conf_t *http_level,
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
        const hd_conf_listen_t *l = hd_array_at(&s->listens, hd_conf_listen_t, i);

        if (add_to_address(b, cf, s, l, err) != HD_OK)
            return hd_conf_blame(cf, l->node, err);
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
    hd_array_init(&b->addresses, cf->temp, sizeof(address_t), SERVERS_MAX);
    at.pool = cf->temp; /* what is read here is only looked at */
    at.region = NULL;
    rc = hd_conf_enter(&at, b->node, HD_IN_STREAM, &at.confs, err);
    at.scope = HD_IN_STREAM;
    for (size_t i = 0; rc == HD_OK && i < b->servers.n; i++)
        rc = sketch_server(b, cf, &at, hd_array_at(&b->servers, server_t, i), err);
    for (size_t i = 0; rc == HD_OK && i < b->addresses.n; i++)
        rc = put_listener(b, cf, hd_array_at(&b->addresses, address_t, i), err);
    building = NULL;
    return rc;
}

#define IN_ANY (HD_IN_STREAM | HD_IN_STREAM_SERVER)
#define AT(field) offsetof(stream_conf_t, field)

static const hd_conf_limits_t versions = {1, 2};

static const hd_directive_t directives[] = {
    {.name = "stream",
     .scope = HD_IN_MAIN,
     .block = enter_stream,
     .help = "{ … }: TCP and UDP proxies"},
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
     .help = "ADDRESS:PORT|PORT|unix:PATH [udp] [default_server] [ssl] [proxy_protocol] "
             "[original_dst] [transparent] [reuseport] [backlog=N] [rcvbuf=SIZE] [sndbuf=SIZE] [ipv6only=on|off] "
             "[so_keepalive=…]"},
    {.name = "proxy_pass",
     .scope = HD_IN_STREAM_SERVER,
     .args_n = 1,
     .set = set_pass,
     .help = "HOST:PORT|UPSTREAM|unix:PATH: where connections go; with variables: the "
             "name of an upstream or of an address that stands in another proxy_pass"},
    {.name = "server_name",
     .scope = HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_server_name,
     .help = "NAME …: of servers that share an address, the one that the ClientHello "
             "names: exact, *.x, x.*, .x, ~regex; wants ssl or ssl_preread"},
    {.name = "ssl_preread",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(ssl_preread),
     .help = "on|off: look at the ClientHello without ending TLS here; off"},
    {.name = "preread_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(preread_timeout_ms),
     .help = "TIME: for the ClientHello to come; 30s"},
    {.name = "preread_buffer_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; a ClientHello may have 16 KB"},
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
     .help = "on|off: tell the upstream who the client is; off"},
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
    {.name = "proxy_next_upstream_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(tries_time_ms),
     .help = "TIME: since the session began; after it no further server is asked; 0: no "
             "limit"},
    {.name = "proxy_upload_rate",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_rate,
     .offset = AT(upload_rate),
     .help =
         "SIZE: bytes a second that are read from the client; with variables, too; 0: "
         "no limit"},
    {.name = "proxy_download_rate",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_rate,
     .offset = AT(download_rate),
     .help = "SIZE: bytes a second that are read from the upstream; with variables, too; "
             "0: no limit"},
    {.name = "proxy_half_close",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(half_close),
     .help = "on|off: when one side has ended, the other may still send; off: what was "
             "read is still sent, then both end"},
    {.name = "proxy_socket_keepalive",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(keepalive),
     .help = "on|off: TCP keep-alive towards upstreams; off"},
    {.name = "proxy_bind",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .set = set_bind,
     .offset = AT(bind),
     .help = "ADDRESS [transparent] | off: where connections to upstreams come from"},
    {.name = "proxy_protocol_version",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(proxy_version),
     .post = &versions,
     .help = "1|2: what proxy_protocol sends: a line, or a binary head; 1"},
    {.name = "proxy_protocol_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(head_timeout_ms),
     .help = "TIME: for the head to come that listen … proxy_protocol waits for; 30s"},
    {.name = "set",
     .scope = IN_ANY,
     .args_n = 2,
     .repeats = true,
     .declares = 1,
     .set = add_set,
     .help = "$NAME VALUE: sets a variable where a session begins; in order"},
    {.name = "return",
     .scope = HD_IN_STREAM_SERVER,
     .args_n = 1,
     .set = hd_set_expr,
     .offset = AT(answer),
     .help = "VALUE: is sent to the client, and the session ends"},
    {.name = "proxy_requests",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(udp.requests),
     .help = "N: UDP: so many datagrams of a client are a session, the next one begins "
             "another; 0: no limit"},
    {.name = "proxy_responses",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_responses,
     .offset = AT(udp.responses),
     .help = "N: UDP: so many datagrams are expected for each of the client's; then the "
             "session ends; fewer within proxy_timeout are the server's failure. Not "
             "given: any number"},
    {.name = "proxy_sessions_max",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(udp.sessions_max),
     .help = "N: UDP: sessions of a worker with this server's clients; datagrams of "
             "further ones are dropped; 0: as worker_connections says"},
    {.name = "proxy_buffer_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; bytes lie in blocks of 16 KB"},
    {.name = "tcp_nodelay",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_nodelay),
     .help = "on|off: small pieces are sent at once, both ways; on"},
    {.name = "error_log",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_error_log,
     .help =
         HD_CONF_LOG_ARGS ": of what is said about connections here; a block with one "
                          "inherits none"},
    {0},
};

const hd_module_t hd_stream_module = {
    .abi = HD_MODULE_ABI,
    .name = "stream",
    .directives = directives,
    .attributes = hd_stream_attrs,
    .conf_size = sizeof(stream_conf_t),
};
