/* LDS: listeners, filter chains, their matches. */
#include "mesh/xds/hd_xds_int.h"
#include "core/hd_module.h"
#include "ext/lst_http_inspector.pb-c.h"
#include "ext/lst_original_dst.pb-c.h"
#include "ext/lst_proxy_protocol.pb-c.h"
#include "ext/lst_tls_inspector.pb-c.h"
#include "ext/udp_proxy.pb-c.h"
#include "http/hd_http.h"

#include <string.h>

#define CHAINS_MAX 100000
#define RANGES_MAX 4096
#define FILTERS_TIMEOUT_MS 15000

typedef PbListener__Listener listener_t;

/* --- listener filters --- */

typedef struct {
    uint32_t from, to;
} range_t;

static hd_rc_t find_filter(hd_xds_t *x, const PbListener__ListenerFilter *msg,
                           uint8_t *flag, hd_err_t *err)
{
    const Pb__Any *any = msg->typed_config;
    const PbLstProxyProtocol__ProxyProtocol *pp;

    if (msg->config_type_case != PB_LISTENER__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG)
        return hd_err_set(err, HD_E_RESOURCE, "its settings don't stand in it");
    if (hd_pb_any_is(any, HD_PB(pb_lst_original_dst__original_dst)))
        *flag = HD_LF_ORIGINAL_DST;
    else if (hd_pb_any_is(any, HD_PB(pb_lst_tls_inspector__tls_inspector)))
        *flag = HD_LF_TLS_INSPECTOR;
    else if (hd_pb_any_is(any, HD_PB(pb_lst_http_inspector__http_inspector)))
        *flag = HD_LF_HTTP_INSPECTOR;
    else if (hd_pb_any_is(any, HD_PB(pb_lst_proxy_protocol__proxy_protocol)))
        *flag = HD_LF_PROXY_PROTOCOL;
    else
        return hd_err_set(err, HD_E_RESOURCE, "%s isn't known here", any->type_url);
    if (*flag != HD_LF_PROXY_PROTOCOL)
        return HD_OK;
    pp = hd_xds_unpack(x, any, HD_PB(pb_lst_proxy_protocol__proxy_protocol), err);
    return pp != NULL ? HD_OK : HD_ERROR;
}

/* A predicate as ranges of destination ports; what can't be said so is refused. */
static hd_rc_t add_ranges(const PbListener__ListenerFilterChainMatchPredicate *msg,
                          hd_array_t *ranges, hd_err_t *err)
{
    const PbType__Int32Range *port;
    range_t *r;

    switch (msg->rule_case) {
    case PB_LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_OR_MATCH:
        for (size_t i = 0; i < msg->or_match->n_rules; i++) {
            if (add_ranges(msg->or_match->rules[i], ranges, err) != HD_OK)
                return HD_ERROR;
        }
        return HD_OK;
    case PB_LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_DESTINATION_PORT_RANGE:
        port = msg->destination_port_range;
        if (port->start < 0 || port->end > 65536 || port->start >= port->end)
            return hd_err_set(err, HD_E_RESOURCE, "ports from %d to below %d",
                              port->start, port->end);
        r = hd_array_add(ranges);
        if (r != NULL)
            *r = (range_t){(uint32_t)port->start, (uint32_t)port->end};
        break;
    case PB_LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_ANY_MATCH:
        r = hd_array_add(ranges);
        if (r != NULL)
            *r = (range_t){0, 65536};
        break;
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "filter_disabled: only ports, and any of them, are known here");
    }
    return r != NULL ? HD_OK : hd_err_set(err, HD_E_LIMIT, "too many ranges of ports");
}

static hd_rc_t set_filters(hd_xds_t *x, const listener_t *msg, hd_listener_t *l,
                           hd_err_t *err)
{
    hd_array_t off;

    hd_array_init(&off, x->env->temp, sizeof(hd_filters_off_t), RANGES_MAX);
    for (size_t i = 0; i < msg->n_listener_filters; i++) {
        const PbListener__ListenerFilter *f = msg->listener_filters[i];
        hd_array_t ranges;
        uint8_t flag = 0;

        if (find_filter(x, f, &flag, err) != HD_OK)
            return hd_err_prefix(err, "listener filter \"%s\": ", f->name);
        l->filters |= flag;
        if (f->filter_disabled == NULL)
            continue;
        hd_array_init(&ranges, x->env->temp, sizeof(range_t), RANGES_MAX);
        if (add_ranges(f->filter_disabled, &ranges, err) != HD_OK)
            return hd_err_prefix(err, "listener filter \"%s\": ", f->name);
        for (size_t r = 0; r < ranges.n; r++) {
            hd_filters_off_t *to = hd_array_add(&off);

            if (to == NULL)
                return hd_err_set(err, HD_E_LIMIT, "too many ranges of ports");
            *to = (hd_filters_off_t){.from = hd_array_at(&ranges, range_t, r)->from,
                                     .to = hd_array_at(&ranges, range_t, r)->to,
                                     .filters = flag};
        }
    }
    l->filters_off = hd_array_copy(&off, x->cf.pool);
    l->filters_off_n = (uint32_t)off.n;
    l->continue_on_timeout = msg->continue_on_listener_filters_timeout;
    return hd_xds_ms(msg->listener_filters_timeout, FILTERS_TIMEOUT_MS,
                     "listener_filters_timeout", &l->filters_timeout_ms, err);
}

/* --- the match of a filter chain --- */

static const hd_str_t *copy_strings(hd_xds_t *x, const char *const *list, size_t n,
                                    uint32_t *count)
{
    hd_str_t *copy = n > 0 ? hd_pool_new_n(x->cf.pool, hd_str_t, n) : NULL;

    for (size_t i = 0; i < n; i++)
        copy[i] = hd_str_dup(x->cf.pool, hd_str_c(list[i]));
    *count = (uint32_t)n;
    return copy;
}

/* In lower case; ".x" is another way to say "*.x". */
static const hd_str_t *copy_names(hd_xds_t *x, const char *const *list, size_t n,
                                  uint32_t *count)
{
    hd_str_t *copy = n > 0 ? hd_pool_new_n(x->cf.pool, hd_str_t, n) : NULL;

    for (size_t i = 0; i < n; i++)
        copy[i] = hd_str_dup_lower(
            x->cf.pool, list[i][0] == '.' ? hd_str_printf(x->env->temp, "*%s", list[i])
                                          : hd_str_c(list[i]));
    *count = (uint32_t)n;
    return copy;
}

/* ".x" is another way to say "*.x". */
static hd_rc_t check_server_names(const hd_chain_match_t *m, hd_err_t *err)
{
    for (uint32_t i = 0; i < m->server_names_n; i++) {
        hd_str_t name = m->server_names[i];
        ssize_t star = hd_str_find_char(hd_str_sub(name, 1, name.len), '*');

        if (name.len == 0 || star >= 0 ||
            (name.data[0] == '*' && (name.len < 3 || name.data[1] != '.')))
            return hd_err_set(err, HD_E_RESOURCE,
                              "server name \"%.*s\": right are whole names and \"*.\" "
                              "with the end of one",
                              HD_STR_ARG(name));
    }
    return HD_OK;
}

static hd_rc_t set_source_ports(hd_xds_t *x, const PbListener__FilterChainMatch *msg,
                                hd_chain_match_t *m, hd_err_t *err)
{
    uint16_t *ports;

    if (msg->n_source_ports == 0)
        return HD_OK;
    ports = hd_pool_new_n(x->cf.pool, uint16_t, msg->n_source_ports);
    for (size_t i = 0; i < msg->n_source_ports; i++) {
        if (msg->source_ports[i] == 0 || msg->source_ports[i] > 65535)
            return hd_err_set(err, HD_E_RESOURCE, "source port %u", msg->source_ports[i]);
        ports[i] = (uint16_t)msg->source_ports[i];
    }
    m->source_ports = ports;
    m->source_ports_n = (uint32_t)msg->n_source_ports;
    return HD_OK;
}

static hd_rc_t set_match(hd_xds_t *x, const PbListener__FilterChainMatch *msg,
                         hd_chain_match_t *m, hd_err_t *err)
{
    uint32_t port;

    if (msg == NULL)
        return HD_OK;
    port = hd_pb_u32(msg->destination_port, 0);
    if (port > 65535 || (port == 0 && msg->destination_port != NULL))
        return hd_err_set(err, HD_E_RESOURCE, "destination port %u", port);
    m->destination_port = (uint16_t)port;
    if (hd_xds_cidrs(x, msg->prefix_ranges, msg->n_prefix_ranges, &m->destinations,
                     &m->destinations_n, err) != HD_OK ||
        hd_xds_cidrs(x, msg->direct_source_prefix_ranges,
                     msg->n_direct_source_prefix_ranges, &m->direct_sources,
                     &m->direct_sources_n, err) != HD_OK ||
        hd_xds_cidrs(x, msg->source_prefix_ranges, msg->n_source_prefix_ranges,
                     &m->sources, &m->sources_n, err) != HD_OK)
        return HD_ERROR;
    m->server_names =
        copy_names(x, msg->server_names, msg->n_server_names, &m->server_names_n);
    m->app_protocols = copy_strings(x, msg->application_protocols,
                                    msg->n_application_protocols, &m->app_protocols_n);
    m->transport = hd_xds_str(x, msg->transport_protocol);
    m->source_type = (uint8_t)msg->source_type;
    if (msg->source_type >
        PB_LISTENER__FILTER_CHAIN_MATCH__CONNECTION_SOURCE_TYPE__EXTERNAL)
        return hd_err_set(err, HD_E_RESOURCE, "source type %d", (int)msg->source_type);
    if (set_source_ports(x, msg, m, err) != HD_OK)
        return HD_ERROR;
    return check_server_names(m, err);
}

/* Chains with equal matches can't both be meant: Envoy refuses them, too. */
static hd_rc_t check_distinct(hd_xds_t *x, const listener_t *msg, hd_err_t *err)
{
    ProtobufCBinaryData *packed =
        hd_pool_new_n(x->env->temp, ProtobufCBinaryData, msg->n_filter_chains + 1);

    for (size_t i = 0; i < msg->n_filter_chains; i++) {
        const PbListener__FilterChainMatch *m = msg->filter_chains[i]->filter_chain_match;

        if (m != NULL && !hd_pb_pack(m, &x->pb, &packed[i]))
            return hd_err_set(err, HD_E_LIMIT, "it is too big");
        for (size_t j = 0; j < i; j++) {
            if (packed[i].len == packed[j].len &&
                (packed[i].len == 0 ||
                 memcmp(packed[i].data, packed[j].data, packed[i].len) == 0))
                return hd_err_set(err, HD_E_RESOURCE,
                                  "filter chains \"%s\" and \"%s\" have the same match",
                                  msg->filter_chains[j]->name,
                                  msg->filter_chains[i]->name);
        }
    }
    return HD_OK;
}

/* --- network filters --- */

static hd_rc_t set_protocol(const char *name, hd_filter_chain_t *chain, hd_err_t *err)
{
    chain->protocol = hd_protocol_find(hd_str_c(name));
    return chain->protocol != 0
               ? HD_OK
               : hd_err_set(err, HD_E_INTERNAL, "this program serves no %s", name);
}

/* HD_OK: it was the chain's last one; HD_DECLINED: it is none of ours. */
static hd_rc_t add_terminal(hd_xds_t *x, const Pb__Any *any, hd_filter_chain_t *chain,
                            hd_err_t *err)
{
    const PbHcm__HttpConnectionManager *hcm;
    const hd_http_conf_t *http;
    hd_str_t url = hd_xds_plain_url(x, any->type_url);

    if (hd_pb_any_is(any, HD_PB(pb_hcm__http_connection_manager))) {
        hcm = hd_xds_unpack(x, any, HD_PB(pb_hcm__http_connection_manager), err);
        if (hcm == NULL || hd_xds_hcm(x, hcm, &http, err) != HD_OK)
            return HD_ERROR;
        chain->protocol_conf = http;
        return set_protocol("http", chain, err);
    }
    if (hd_str_has_suffix(url, HD_STR(".tcp_proxy.v3.TcpProxy"))) {
        return hd_xds_tcp_proxy(x, any, chain, err) == HD_OK
                   ? set_protocol("tcp", chain, err)
                   : HD_ERROR;
    }
    return HD_DECLINED;
}

static hd_rc_t add_filter(hd_xds_t *x, const PbListener__Filter *msg, bool is_last,
                          hd_net_filter_t *list, hd_filter_chain_t *chain, hd_err_t *err)
{
    hd_net_filter_t *to = &list[chain->filters_n];
    hd_rc_t rc;

    if (msg->config_type_case != PB_LISTENER__FILTER__CONFIG_TYPE_TYPED_CONFIG)
        return hd_err_set(err, HD_E_RESOURCE, "its settings don't stand in it (ECDS)");
    rc = add_terminal(x, msg->typed_config, chain, err);
    if (rc == HD_OK && !is_last)
        return hd_err_set(err, HD_E_RESOURCE, "it must be the last one");
    if (rc != HD_DECLINED)
        return rc;
    if (is_last)
        return hd_err_set(err, HD_E_RESOURCE,
                          "it is the last one, and ends no connection (%s)",
                          msg->typed_config->type_url);
    rc = hd_xds_extension(x, HD_XDS_EXT_NETWORK, msg->typed_config, false, &to->module,
                          &to->conf, err);
    if (rc != HD_OK)
        return rc == HD_DECLINED ? HD_OK : HD_ERROR;
    to->name = hd_xds_str(x, msg->name);
    chain->filters_n++;
    return HD_OK;
}

static hd_rc_t set_chain(hd_xds_t *x, const PbListener__FilterChain *msg,
                         hd_filter_chain_t *chain, hd_err_t *err)
{
    hd_net_filter_t *list;

    chain->name = hd_xds_str(x, msg->name);
    if (set_match(x, msg->filter_chain_match, &chain->match, err) != HD_OK ||
        hd_xds_ms(msg->transport_socket_connect_timeout, 0,
                  "transport_socket_connect_timeout", &chain->handshake_timeout_ms,
                  err) != HD_OK)
        return HD_ERROR;
    if (msg->n_filters == 0)
        return hd_err_set(err, HD_E_RESOURCE, "it has no filters");
    list = hd_pool_new_n(x->cf.pool, hd_net_filter_t, msg->n_filters);
    chain->filters = list;
    for (size_t i = 0; i < msg->n_filters; i++) {
        if (add_filter(x, msg->filters[i], i + 1 == msg->n_filters, list, chain, err) !=
            HD_OK)
            return hd_err_prefix(err, "filter \"%s\": ", msg->filters[i]->name);
    }
    return hd_xds_downstream_tls(x, msg->transport_socket,
                                 chain->protocol == hd_http_protocol(), &chain->tls, err);
}

static hd_rc_t set_chains(hd_xds_t *x, const listener_t *msg, hd_listener_t *l,
                          hd_err_t *err)
{
    hd_filter_chain_t *list, *one;

    if (msg->n_filter_chains > CHAINS_MAX)
        return hd_err_set(err, HD_E_LIMIT, "more than %d filter chains", CHAINS_MAX);
    if (msg->n_filter_chains == 0 && msg->default_filter_chain == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "it has no filter chain");
    list = hd_pool_new_n(x->cf.pool, hd_filter_chain_t, msg->n_filter_chains + 1);
    for (size_t i = 0; i < msg->n_filter_chains; i++) {
        if (set_chain(x, msg->filter_chains[i], &list[i], err) != HD_OK)
            return hd_err_prefix(err, "filter chain %zu \"%s\": ", i,
                                 msg->filter_chains[i]->name);
    }
    l->chains = list;
    l->chains_n = (uint32_t)msg->n_filter_chains;
    if (msg->default_filter_chain != NULL) {
        one = &list[msg->n_filter_chains];
        if (set_chain(x, msg->default_filter_chain, one, err) != HD_OK)
            return hd_err_prefix(err, "default filter chain: ");
        l->default_chain = one;
    }
    return check_distinct(x, msg, err);
}

/* --- datagrams --- */

static hd_rc_t set_datagrams(hd_xds_t *x, const listener_t *msg, hd_listener_t *l,
                             hd_err_t *err)
{
    const PbListener__ListenerFilter *f =
        msg->n_listener_filters == 1 ? msg->listener_filters[0] : NULL;
    hd_filter_chain_t *chain = hd_pool_new(x->cf.pool, hd_filter_chain_t);

    if (f == NULL ||
        f->config_type_case != PB_LISTENER__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG ||
        !hd_pb_any_is(f->typed_config, HD_PB(pb_udp_proxy__udp_proxy_config)) ||
        f->filter_disabled != NULL || msg->n_filter_chains > 0 ||
        msg->default_filter_chain != NULL)
        return hd_err_set(err, HD_E_RESOURCE,
                          "a listener of UDP: one listener filter, udp_proxy, and no "
                          "filter chain is known here");
    chain->name = hd_xds_str(x, f->name);
    l->default_chain = chain;
    if (hd_xds_udp_proxy(x, f->typed_config, chain, err) != HD_OK)
        return hd_err_prefix(err, "listener filter \"%s\": ", f->name);
    return set_protocol("udp", chain, err);
}

/* Envoy tells the listener's access log of each conn; here of those that no chain took,
 * of which nobody else tells. */
static hd_rc_t set_untaken(hd_xds_t *x, const listener_t *msg, hd_listener_t *l,
                           hd_err_t *err)
{
    hd_filter_chain_t *chain;

    if (msg->n_access_log == 0)
        return HD_OK;
    chain = hd_pool_new(x->cf.pool, hd_filter_chain_t);
    chain->protocol_conf = hd_pool_new(x->cf.pool, hd_tcp_conf_t);
    if (set_protocol("tcp", chain, err) != HD_OK ||
        hd_xds_add_conn_logs(x, msg->access_log, msg->n_access_log, chain, err) != HD_OK)
        return HD_ERROR;
    if (chain->filters_n > 0)
        l->untaken = chain;
    return HD_OK;
}

/* --- address --- */

/* Each worker has a socket of its own, so that a client's datagrams come to one of them.
 */
static void make_datagram(hd_socket_spec_t *s)
{
    s->type = SOCK_DGRAM;
    s->listen = s->nodelay = false;
    s->reuseport = true;
}

static bool is_udp(const PbCore__Address *msg)
{
    return msg->address_case == PB_CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS &&
           msg->socket_address->protocol == PB_CORE__SOCKET_ADDRESS__PROTOCOL__UDP;
}

static void set_keepalive(hd_socket_spec_t *s, const PbCore__TcpKeepalive *msg)
{
    s->keepalive_idle_s = hd_pb_u32(msg->keepalive_time, 7200);
    s->keepalive_interval_s = hd_pb_u32(msg->keepalive_interval, 75);
    s->keepalive_probes = hd_pb_u32(msg->keepalive_probes, 9);
}

static hd_rc_t check_port(const hd_addr_t *addr, hd_err_t *err)
{
    if (addr->family != AF_UNIX && addr->port == 0)
        return hd_err_set(err, HD_E_RESOURCE, "it has no port");
    return HD_OK;
}

/* One of its further addresses: a socket like the first, but for what is said here. */
static hd_rc_t set_more(hd_xds_t *x, const PbListener__AdditionalAddress *msg,
                        const hd_listener_t *l, hd_socket_spec_t *to, hd_err_t *err)
{
    *to = l->socket;
    if (hd_xds_addr(x, msg->address, &to->bind, err) != HD_OK ||
        check_port(&to->bind, err) != HD_OK)
        return HD_ERROR;
    if (to->bind.family == AF_UNIX) {
        to->reuseport = false;
    } else if (is_udp(msg->address) != (to->type == SOCK_DGRAM)) {
        return hd_err_set(err, HD_E_RESOURCE,
                          "its protocol isn't that of the listener's address");
    }
    to->v6only =
        to->bind.family == AF_INET6 && !msg->address->socket_address->ipv4_compat;
    if (msg->tcp_keepalive != NULL)
        set_keepalive(to, msg->tcp_keepalive);
    for (const hd_socket_spec_t *s = l->more; s < to; s++) {
        if (hd_addr_eq(&s->bind, &to->bind))
            return hd_err_set(err, HD_E_RESOURCE, "it stands there twice");
    }
    if (hd_addr_eq(&l->addr, &to->bind))
        return hd_err_set(err, HD_E_RESOURCE, "it is the listener's address");
    return HD_OK;
}

static hd_rc_t set_all_more(hd_xds_t *x, const listener_t *msg, hd_listener_t *l,
                            hd_err_t *err)
{
    hd_socket_spec_t *more =
        hd_pool_new_n(x->cf.pool, hd_socket_spec_t, msg->n_additional_addresses);

    l->more = more;
    for (; l->more_n < msg->n_additional_addresses; l->more_n++) {
        if (set_more(x, msg->additional_addresses[l->more_n], l, &more[l->more_n], err) !=
            HD_OK)
            return hd_err_prefix(err, "additional_addresses[%u]: ", l->more_n);
    }
    return HD_OK;
}

static hd_rc_t set_socket(hd_xds_t *x, const listener_t *msg, hd_listener_t *l,
                          hd_err_t *err)
{
    if (msg->listener_specifier_case ==
        PB_LISTENER__LISTENER__LISTENER_SPECIFIER_INTERNAL_LISTENER)
        return hd_err_set(err, HD_E_RESOURCE, "an internal listener: not supported yet");
    if (hd_xds_addr(x, msg->address, &l->addr, err) != HD_OK)
        return hd_err_prefix(err, "address: ");
    if (check_port(&l->addr, err) != HD_OK)
        return HD_ERROR;
    l->unmaps_v4 =
        l->addr.family == AF_INET6 && msg->address->socket_address->ipv4_compat;
    l->bind = hd_pb_bool(msg->bind_to_port, true);
    l->bypasses_overload = msg->bypass_overload_manager;
    l->use_original_dst = hd_pb_bool(msg->use_original_dst, false);
    if (l->use_original_dst) /* Envoy puts that filter in front */
        l->filters |= HD_LF_ORIGINAL_DST;
    l->socket = (hd_socket_spec_t){
        .bind = l->addr,
        .type = SOCK_STREAM,
        .listen = true,
        .reuseport =
            hd_pb_bool(msg->enable_reuse_port, true) && l->addr.family != AF_UNIX,
        .transparent = hd_pb_bool(msg->transparent, false),
        .freebind = hd_pb_bool(msg->freebind, false),
        .v6only = l->addr.family == AF_INET6 && !l->unmaps_v4,
        .nodelay = true,
        .backlog = (int)hd_min(hd_pb_u32(msg->tcp_backlog_size, 0), 65535u)};
    if (msg->tcp_keepalive != NULL)
        set_keepalive(&l->socket, msg->tcp_keepalive);
    if (is_udp(msg->address))
        make_datagram(&l->socket);
    return set_all_more(x, msg, l, err);
}

hd_rc_t hd_xds_listener(hd_xds_t *x, const listener_t *msg, const void **root,
                        hd_err_t *err)
{
    hd_listener_t *l = hd_pool_new(x->cf.pool, hd_listener_t);

    l->name = hd_xds_str(x, msg->name);
    l->is_inbound = msg->traffic_direction == PB_CORE__TRAFFIC_DIRECTION__INBOUND;
    l->is_outbound = msg->traffic_direction == PB_CORE__TRAFFIC_DIRECTION__OUTBOUND;
    l->conn_buffer_bytes = hd_pb_u32(msg->per_connection_buffer_limit_bytes, 0);
    if (set_socket(x, msg, l, err) != HD_OK)
        return HD_ERROR;
    if (l->socket.type == SOCK_DGRAM ? set_datagrams(x, msg, l, err) != HD_OK
                                     : set_filters(x, msg, l, err) != HD_OK ||
                                           set_chains(x, msg, l, err) != HD_OK ||
                                           set_untaken(x, msg, l, err) != HD_OK)
        return HD_ERROR;
    *root = l;
    return HD_OK;
}
