/* tcp_proxy. */
#include "mesh/xds/hd_xds_int.h"
#include "ext/net_tcp_proxy.pb-c.h"

#include <string.h>

#define IDLE_TIMEOUT_MS 3600000

typedef PbNetTcpProxy__TcpProxy tcp_proxy_t;

static hd_rc_t set_target(hd_xds_t *x, const char *name, uint32_t weight,
                          hd_tcp_conf_t *conf, hd_tcp_target_t *to, hd_err_t *err)
{
    to->name = hd_xds_str(x, name);
    to->weight = weight;
    if (weight > UINT32_MAX - conf->weights_total)
        return hd_err_set(err, HD_E_RESOURCE, "the weights of its clusters sum to 2^32");
    conf->weights_total += weight;
    to->cluster = hd_xds_led_to(x, hd_str_c(name), err);
    return to->cluster != NULL ? HD_OK : HD_ERROR;
}

static hd_rc_t set_targets(hd_xds_t *x, const tcp_proxy_t *msg, hd_tcp_conf_t *conf,
                           hd_err_t *err)
{
    const PbNetTcpProxy__TcpProxy__WeightedCluster *w;
    hd_tcp_target_t *list;

    if (msg->cluster_specifier_case ==
        PB_NET_TCP_PROXY__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER) {
        list = hd_pool_new(x->cf.pool, hd_tcp_target_t);
        conf->targets = list;
        conf->targets_n = 1;
        if (hd_xds_wanted_labels(x, msg->metadata_match, NULL, &list->subset,
                                 &list->subset_n, err) != HD_OK)
            return HD_ERROR;
        return set_target(x, msg->cluster, 1, conf, list, err);
    }
    if (msg->cluster_specifier_case !=
        PB_NET_TCP_PROXY__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS)
        return hd_err_set(err, HD_E_RESOURCE, "it names no cluster");
    w = msg->weighted_clusters;
    list = hd_pool_new_n(x->cf.pool, hd_tcp_target_t, w->n_clusters);
    conf->targets = list;
    conf->targets_n = (uint32_t)w->n_clusters;
    for (size_t i = 0; i < w->n_clusters; i++) {
        if (set_target(x, w->clusters[i]->name, w->clusters[i]->weight, conf, &list[i],
                       err) != HD_OK)
            return HD_ERROR;
    }
    for (size_t i = 0; i < w->n_clusters; i++) {
        if (hd_xds_wanted_labels(x, w->clusters[i]->metadata_match, msg->metadata_match,
                                 &list[i].subset, &list[i].subset_n, err) != HD_OK)
            return HD_ERROR;
    }
    return conf->weights_total > 0
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE, "the weights of its clusters sum to 0");
}

static hd_rc_t set_hash(const tcp_proxy_t *msg, hd_tcp_conf_t *conf, hd_err_t *err)
{
    for (size_t i = 0; i < msg->n_hash_policy; i++) {
        if (msg->hash_policy[i]->policy_specifier_case !=
            PB_TYPE__HASH_POLICY__POLICY_SPECIFIER_SOURCE_IP)
            return hd_err_set(err, HD_E_RESOURCE,
                              "hash_policy: only source_ip is known here");
        conf->hash_source_ip = true;
    }
    return HD_OK;
}

/* Loggers hear of a conn's end as filters do. */
hd_rc_t hd_xds_add_conn_logs(hd_xds_t *x, PbAccesslog__AccessLog *const *msgs, size_t n,
                             hd_filter_chain_t *chain, hd_err_t *err)
{
    const hd_net_filter_t *logs;
    hd_net_filter_t *all;
    uint32_t logs_n = 0;

    if (hd_xds_conn_logs(x, msgs, n, &logs, &logs_n, err) != HD_OK)
        return HD_ERROR;
    if (logs_n == 0)
        return HD_OK;
    all = hd_pool_new_n(x->cf.pool, hd_net_filter_t, chain->filters_n + logs_n);
    if (chain->filters_n > 0)
        memcpy(all, chain->filters, chain->filters_n * sizeof(*all));
    memcpy(all + chain->filters_n, logs, logs_n * sizeof(*all));
    chain->filters = all;
    chain->filters_n += logs_n;
    return HD_OK;
}

hd_rc_t hd_xds_tcp_proxy(hd_xds_t *x, const Pb__Any *any, hd_filter_chain_t *chain,
                         hd_err_t *err)
{
    const tcp_proxy_t *msg =
        hd_xds_unpack(x, any, HD_PB(pb_net_tcp_proxy__tcp_proxy), err);
    hd_tcp_conf_t *conf = hd_pool_new(x->cf.pool, hd_tcp_conf_t);

    if (msg == NULL)
        return HD_ERROR;
    conf->stat_prefix = hd_xds_str(x, msg->stat_prefix);
    conf->tries_max = hd_max(hd_pb_u32(msg->max_connect_attempts, 1), 1u);
    if (set_targets(x, msg, conf, err) != HD_OK || set_hash(msg, conf, err) != HD_OK ||
        hd_xds_ms64(msg->idle_timeout, IDLE_TIMEOUT_MS, "idle_timeout",
                    &conf->idle_timeout_ms, err) != HD_OK ||
        hd_xds_ms64(msg->max_downstream_connection_duration, 0,
                    "max_downstream_connection_duration", &conf->lifetime_ms,
                    err) != HD_OK)
        return HD_ERROR;
    if (msg->max_downstream_connection_duration != NULL && conf->lifetime_ms == 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "max_downstream_connection_duration: 1 ms at least");
    chain->protocol_conf = conf;
    return hd_xds_add_conn_logs(x, msg->access_log, msg->n_access_log, chain, err);
}
