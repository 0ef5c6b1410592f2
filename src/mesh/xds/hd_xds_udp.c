/* udp_proxy, the listener filter that is all of a listener of datagrams: to the data that
 * nginx's "listen … udp" makes, too. */
#include "mesh/xds/hd_xds_int.h"
#include "ext/udp_proxy.pb-c.h"

#define IDLE_TIMEOUT_MS 60000

typedef PbUdpProxy__UdpProxyConfig udp_proxy_t;

/* Of a tree of matches only its end: one cluster for all. */
static hd_rc_t find_cluster(hd_xds_t *x, const udp_proxy_t *msg, const char **name,
                            hd_err_t *err)
{
    const PbXdsMatcher__Matcher *m = msg->matcher;
    const PbUdpProxy__Route *route;

    if (msg->route_specifier_case ==
        PB_UDP_PROXY__UDP_PROXY_CONFIG__ROUTE_SPECIFIER_CLUSTER) {
        *name = msg->cluster;
        return HD_OK;
    }
    if (msg->route_specifier_case !=
        PB_UDP_PROXY__UDP_PROXY_CONFIG__ROUTE_SPECIFIER_MATCHER)
        return hd_err_set(err, HD_E_RESOURCE, "it names no cluster");
    if (m->matcher_type_case != PB_XDS_MATCHER__MATCHER__MATCHER_TYPE__NOT_SET ||
        m->on_no_match == NULL ||
        m->on_no_match->on_match_case !=
            PB_XDS_MATCHER__MATCHER__ON_MATCH__ON_MATCH_ACTION ||
        !hd_pb_any_is(m->on_no_match->action->typed_config, HD_PB(pb_udp_proxy__route)))
        return hd_err_set(err, HD_E_RESOURCE,
                          "matcher: only on_no_match is known here, with a Route");
    route = hd_xds_unpack(x, m->on_no_match->action->typed_config,
                          HD_PB(pb_udp_proxy__route), err);
    if (route == NULL)
        return HD_ERROR;
    *name = route->cluster;
    return HD_OK;
}

static hd_rc_t set_hash(const udp_proxy_t *msg, hd_tcp_conf_t *conf, hd_err_t *err)
{
    const PbUdpProxy__UdpProxyConfig__HashPolicy *p;
    hd_str_t key;

    if (msg->n_hash_policies == 0)
        return HD_OK;
    p = msg->hash_policies[0];
    if (msg->n_hash_policies > 1)
        return hd_err_set(err, HD_E_RESOURCE, "hash_policies: one at most");
    switch (p->policy_specifier_case) {
    case PB_UDP_PROXY__UDP_PROXY_CONFIG__HASH_POLICY__POLICY_SPECIFIER_SOURCE_IP:
        conf->hash_source_ip = true;
        return HD_OK;
    case PB_UDP_PROXY__UDP_PROXY_CONFIG__HASH_POLICY__POLICY_SPECIFIER_KEY:
        key = hd_str_c(p->key);
        conf->has_hash = true;
        conf->hash = hd_xxh64(key.data, key.len, 0);
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "hash_policies: source_ip or a key");
    }
}

hd_rc_t hd_xds_udp_proxy(hd_xds_t *x, const Pb__Any *any, hd_filter_chain_t *chain,
                         hd_err_t *err)
{
    const udp_proxy_t *msg =
        hd_xds_unpack(x, any, HD_PB(pb_udp_proxy__udp_proxy_config), err);
    hd_tcp_conf_t *conf = hd_pool_new(x->cf.pool, hd_tcp_conf_t);
    hd_tcp_target_t *target = hd_pool_new(x->cf.pool, hd_tcp_target_t);
    const char *name = "";

    if (msg == NULL || find_cluster(x, msg, &name, err) != HD_OK ||
        set_hash(msg, conf, err) != HD_OK ||
        hd_xds_ms64(msg->idle_timeout, IDLE_TIMEOUT_MS, "idle_timeout",
                    &conf->idle_timeout_ms, err) != HD_OK)
        return HD_ERROR;
    target->name = hd_xds_str(x, name);
    target->weight = conf->weights_total = 1;
    target->cluster = hd_xds_led_to(x, hd_str_c(name), err);
    if (target->cluster == NULL)
        return HD_ERROR;
    conf->targets = target;
    conf->targets_n = 1;
    conf->tries_max = 1;
    conf->stat_prefix = hd_xds_str(x, msg->stat_prefix);
    chain->protocol_conf = conf;
    return hd_xds_add_conn_logs(x, msg->access_log, msg->n_access_log, chain, err);
}
