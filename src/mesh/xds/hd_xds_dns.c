/* How a STRICT_DNS or LOGICAL_DNS cluster has its names resolved. */
#include "mesh/xds/hd_xds_int.h"
#include "ext/dns_cares.pb-c.h"

#define CARES "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"

static hd_dns_family_t family_of(const PbCluster__Cluster *msg)
{
    switch (msg->dns_lookup_family) {
    case PB_CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V4_ONLY:
        return HD_DNS_V4_ONLY;
    case PB_CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V6_ONLY:
        return HD_DNS_V6_ONLY;
    case PB_CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V4_PREFERRED:
        return HD_DNS_V4_PREFERRED;
    case PB_CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__ALL:
        return HD_DNS_ALL;
    default:
        return HD_DNS_AUTO;
    }
}

static hd_rc_t add_servers(hd_xds_t *x, PbCore__Address *const *msgs, size_t n,
                           hd_dns_conf_t *conf, hd_err_t *err)
{
    if (n > HD_DNS_SERVERS_MAX)
        return hd_err_set(err, HD_E_LIMIT, "more than %d DNS servers",
                          HD_DNS_SERVERS_MAX);
    conf->servers_n = 0;
    for (size_t i = 0; i < n; i++) {
        hd_addr_t *to = &conf->servers[conf->servers_n++];

        if (hd_xds_addr(x, msgs[i], to, err) != HD_OK)
            return hd_err_prefix(err, "DNS server: ");
        if (to->family == AF_UNIX)
            return hd_err_set(err, HD_E_RESOURCE, "a DNS server has an IP address");
    }
    return HD_OK;
}

static void set_options(const PbCore__DnsResolverOptions *msg, hd_dns_conf_t *conf)
{
    if (msg == NULL)
        return;
    conf->uses_tcp = msg->use_tcp_for_dns_lookups;
    conf->has_no_search = msg->no_default_search_domain;
}

static hd_rc_t set_typed(hd_xds_t *x, const PbCore__TypedExtensionConfig *msg,
                         hd_dns_conf_t *conf, hd_err_t *err)
{
    const PbDnsCares__CaresDnsResolverConfig *cares;

    if (msg->typed_config == NULL ||
        !hd_str_has_suffix(hd_str_c(msg->typed_config->type_url), HD_STR("/" CARES))) {
        hd_xds_note(x, "typed_dns_resolver_config %s: names are resolved by c-ares",
                    msg->name);
        return HD_OK;
    }
    cares = hd_xds_unpack(x, msg->typed_config,
                          HD_PB(pb_dns_cares__cares_dns_resolver_config), err);
    if (cares == NULL)
        return HD_ERROR;
    set_options(cares->dns_resolver_options, conf);
    conf->is_fallback = cares->use_resolvers_as_fallback;
    return add_servers(x, cares->resolvers, cares->n_resolvers, conf, err);
}

static hd_rc_t set_rates(const PbCluster__Cluster *msg, hd_dns_conf_t *conf,
                         hd_err_t *err)
{
    const PbCluster__Cluster__RefreshRate *failure = msg->dns_failure_refresh_rate;

    conf->respects_ttl = msg->respect_dns_ttl;
    if (hd_xds_ms(msg->dns_refresh_rate, HD_DNS_REFRESH_MS, "dns_refresh_rate",
                  &conf->refresh_ms, err) != HD_OK ||
        hd_xds_ms(msg->dns_jitter, 0, "dns_jitter", &conf->jitter_ms, err) != HD_OK)
        return HD_ERROR;
    if (conf->refresh_ms <= 1)
        return hd_err_set(err, HD_E_RESOURCE, "dns_refresh_rate: more than 1ms");
    if (failure == NULL)
        return HD_OK;
    if (hd_xds_ms(failure->base_interval, 0, "dns_failure_refresh_rate.base_interval",
                  &conf->failure_ms, err) != HD_OK ||
        hd_xds_ms(failure->max_interval, 0, "dns_failure_refresh_rate.max_interval",
                  &conf->failure_max_ms, err) != HD_OK)
        return HD_ERROR;
    if (conf->failure_ms == 0 ||
        (conf->failure_max_ms > 0 && conf->failure_max_ms < conf->failure_ms))
        return hd_err_set(err, HD_E_RESOURCE,
                          "dns_failure_refresh_rate: base_interval is 1ms or more, and "
                          "max_interval no less");
    return HD_OK;
}

hd_rc_t hd_xds_dns(hd_xds_t *x, const PbCluster__Cluster *msg, const hd_dns_conf_t **dns,
                   hd_err_t *err)
{
    hd_dns_conf_t *conf = hd_pool_new(x->env->temp, hd_dns_conf_t);
    const PbCore__DnsResolutionConfig *r = msg->dns_resolution_config;

    conf->family = family_of(msg);
    conf->is_logical = msg->type == PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS;
    conf->uses_tcp = msg->use_tcp_for_dns_lookups;
    *dns = conf;
    if (set_rates(msg, conf, err) != HD_OK)
        return HD_ERROR;
    /* the newest form that is there counts */
    if (msg->typed_dns_resolver_config != NULL)
        return set_typed(x, msg->typed_dns_resolver_config, conf, err);
    if (r != NULL) {
        set_options(r->dns_resolver_options, conf);
        return add_servers(x, r->resolvers, r->n_resolvers, conf, err);
    }
    return add_servers(x, msg->dns_resolvers, msg->n_dns_resolvers, conf, err);
}
