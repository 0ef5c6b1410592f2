/* What a route does: proxy, redirect, answer. */
#include "http/hd_sub.h"
#include "mesh/xds/hd_xds_int.h"

#include <string.h>

#define TIMEOUT_MS 15000
#define REPLAY_BYTES 65536
#define TRIES_MAX 64

typedef PbRoute__RouteAction action_t;

/* --- settings of filters --- */

static hd_rc_t add_override(hd_xds_t *x, const char *name, const Pb__Any *any,
                            hd_filter_conf_t *list, uint32_t *n, hd_err_t *err)
{
    hd_filter_conf_t *to = &list[*n];
    const PbRoute__FilterConfig *wrapped = NULL;
    bool optional = false;
    hd_rc_t rc;

    if (hd_pb_any_is(any, HD_PB(pb_route__filter_config))) {
        wrapped = hd_xds_unpack(x, any, HD_PB(pb_route__filter_config), err);
        if (wrapped == NULL)
            return HD_ERROR;
        optional = wrapped->is_optional;
        any = wrapped->config;
    }
    to->name = hd_xds_str(x, name);
    to->module = UINT16_MAX;
    to->is_disabled = wrapped != NULL && wrapped->disabled;
    rc = any != NULL ? hd_xds_extension(x, HD_XDS_EXT_ROUTE, any, optional, &to->module,
                                        &to->conf, err)
                     : HD_OK;
    if (rc == HD_ERROR)
        return hd_err_prefix(err, "typed_per_filter_config \"%s\": ", name);
    if (rc == HD_OK || to->is_disabled)
        ++*n;
    return HD_OK;
}

hd_rc_t hd_xds_overrides(hd_xds_t *x, hd_xds_override_t *const *msgs, size_t n,
                         const PbRoute__RetryPolicy *retry,
                         const hd_filter_conf_t **filters, uint32_t *filters_n,
                         hd_err_t *err)
{
    hd_filter_conf_t *list = n > 0 || retry != NULL
                                 ? hd_pool_new_n(x->cf.pool, hd_filter_conf_t, n + 1)
                                 : NULL;
    ProtobufCBinaryData bytes;
    hd_filter_conf_t *to;
    hd_rc_t rc;

    *filters = list;
    *filters_n = 0;
    for (size_t i = 0; i < n; i++) {
        if (msgs[i]->value != NULL &&
            add_override(x, msgs[i]->key, msgs[i]->value, list, filters_n, err) != HD_OK)
            return HD_ERROR;
    }
    if (retry == NULL)
        return HD_OK;
    if (!hd_pb_pack(retry, &x->pb, &bytes))
        return hd_err_set(err, HD_E_LIMIT, "its retry policy is too big");
    to = &list[*filters_n];
    rc = hd_xds_extension_of(x, HD_XDS_EXT_ROUTE, HD_STR(HD_XDS_RETRY_URL),
                             hd_str_n((const char *)bytes.data, bytes.len), false,
                             &to->module, &to->conf, err);
    if (rc == HD_ERROR)
        return hd_err_prefix(err, "retry_policy: ");
    if (rc == HD_OK) {
        to->name = hd_xds_str(x, HD_XDS_RETRY_URL);
        ++*filters_n;
    }
    return HD_OK;
}

/* --- clusters --- */

static hd_rc_t set_target(hd_xds_t *x, const char *name, hd_weighted_t *to, hd_err_t *err)
{
    to->cluster = hd_xds_led_to(x, hd_str_c(name), err);
    if (to->cluster == NULL)
        return HD_ERROR;
    to->cluster_name = to->cluster->name; /* lasts as long as the arena */
    if (x->must_exist && hd_slot_state(to->cluster) != HD_SLOT_LIVE &&
        (x->env->batch == NULL ||
         !hd_batch_has(x->env->batch, HD_RES_CLUSTER, hd_str_c(name))))
        return hd_err_set(err, HD_E_RESOURCE,
                          "there is no cluster %s, and validate_clusters asks for it",
                          name);
    return HD_OK;
}

/* A cluster's own host rewrite is a change of the header like any other. */
static hd_rc_t set_weighted_ops(hd_xds_t *x,
                                const PbRoute__WeightedCluster__ClusterWeight *msg,
                                hd_weighted_t *to, hd_err_t *err)
{
    hd_header_op_conf_t *list;
    hd_expr_t *host;

    if (hd_xds_header_ops(x, msg->request_headers_to_add, msg->n_request_headers_to_add,
                          msg->request_headers_to_remove,
                          msg->n_request_headers_to_remove, &to->request_ops,
                          &to->request_ops_n, err) != HD_OK ||
        hd_xds_header_ops(x, msg->response_headers_to_add, msg->n_response_headers_to_add,
                          msg->response_headers_to_remove,
                          msg->n_response_headers_to_remove, &to->response_ops,
                          &to->response_ops_n, err) != HD_OK)
        return HD_ERROR;
    if (msg->host_rewrite_specifier_case !=
        PB_ROUTE__WEIGHTED_CLUSTER__CLUSTER_WEIGHT__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL)
        return HD_OK;
    list = hd_pool_new_n(x->cf.pool, hd_header_op_conf_t, to->request_ops_n + 1);
    if (to->request_ops_n > 0)
        memcpy(list, to->request_ops, to->request_ops_n * sizeof(*list));
    host = hd_pool_new(x->cf.pool, hd_expr_t);
    host->parts = hd_pool_new(x->cf.pool, hd_expr_part_t);
    ((hd_expr_part_t *)host->parts)->text = hd_xds_str(x, msg->host_rewrite_literal);
    host->n = 1;
    list[to->request_ops_n++] =
        (hd_header_op_conf_t){.name = hd_str_dup(x->cf.pool, HD_STR("host")),
                              .value = host,
                              .how = HD_HOP_SET,
                              .always = true};
    to->request_ops = list;
    return HD_OK;
}

static hd_rc_t set_weighted(hd_xds_t *x, const PbRoute__WeightedCluster *msg,
                            hd_proxy_conf_t *p, hd_err_t *err)
{
    hd_weighted_t *list = hd_pool_new_n(x->cf.pool, hd_weighted_t, msg->n_clusters + 1);
    uint64_t total = 0;

    for (size_t i = 0; i < msg->n_clusters; i++) {
        const PbRoute__WeightedCluster__ClusterWeight *w = msg->clusters[i];
        hd_weighted_t *to = &list[i];

        to->weight = hd_pb_u32(w->weight, 0);
        total += to->weight;
        if (set_target(x, w->name, to, err) != HD_OK ||
            set_weighted_ops(x, w, to, err) != HD_OK ||
            hd_xds_overrides(x, (hd_xds_override_t *const *)w->typed_per_filter_config,
                             w->n_typed_per_filter_config, NULL, &to->filters,
                             &to->filters_n, err) != HD_OK)
            return hd_err_prefix(err, "weighted_clusters \"%s\": ", w->name);
    }
    if (total == 0 || total > UINT32_MAX)
        return hd_err_set(err, HD_E_RESOURCE,
                          "the weights of its clusters sum to %llu: 1 to %u is right",
                          (unsigned long long)total, UINT32_MAX);
    p->targets = list;
    p->targets_n = (uint32_t)msg->n_clusters;
    p->weights_total = (uint32_t)total;
    return HD_OK;
}

/* The labels that endpoints must have: a weighted cluster's own before the route's. */
static hd_rc_t set_labels(hd_xds_t *x, const action_t *msg, hd_proxy_conf_t *p,
                          hd_err_t *err)
{
    bool is_weighted = msg->cluster_specifier_case ==
                       PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS;

    for (uint32_t i = 0; i < p->targets_n; i++) {
        hd_weighted_t *to = (hd_weighted_t *)&p->targets[i];

        if (hd_xds_wanted_labels(
                x, is_weighted ? msg->weighted_clusters->clusters[i]->metadata_match : NULL,
                msg->metadata_match, &to->subset, &to->subset_n, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t set_clusters(hd_xds_t *x, const action_t *msg, hd_proxy_conf_t *p,
                            hd_err_t *err)
{
    hd_weighted_t *one;
    hd_expr_t *name;

    switch (msg->cluster_specifier_case) {
    case PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER:
        one = hd_pool_new(x->cf.pool, hd_weighted_t);
        one->weight = 1;
        p->targets = one;
        p->targets_n = p->weights_total = 1;
        return set_target(x, msg->cluster, one, err);
    case PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
        return set_weighted(x, msg->weighted_clusters, p, err);
    case PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER_HEADER:
        if (hd_xds_format(x,
                          hd_str_printf(x->env->temp, "%%REQ(%s)%%", msg->cluster_header),
                          &name, err) != HD_OK)
            return HD_ERROR;
        p->cluster_expr = name;
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "it names no cluster");
    }
}

static unsigned no_cluster_status(const action_t *msg)
{
    switch (msg->cluster_not_found_response_code) {
    case PB_ROUTE__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__NOT_FOUND:
        return 404;
    case PB_ROUTE__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__INTERNAL_SERVER_ERROR:
        return 500;
    default:
        return 503;
    }
}

/* --- towards the upstream --- */

/* The whole path is replaced where what was matched isn't a part of it (a regex). */
static hd_rc_t replace_all(hd_xds_t *x, const char *by, hd_proxy_conf_t *p)
{
    size_t len = strlen(by);
    char *subst = hd_pool_alloc_unaligned(x->cf.pool, 2 * len + 1), *to = subst;

    for (size_t i = 0; i < len; i++) {
        if (by[i] == '\\')
            *to++ = '\\';
        *to++ = by[i];
    }
    p->rewrite = (hd_match_t){.kind = HD_MATCH_REGEX,
                              .part = true,
                              .text = hd_str_dup(x->cf.pool, HD_STR("(?s)^.*$"))};
    p->rewrite_to = hd_str_n(subst, (size_t)(to - subst));
    return HD_OK;
}

static hd_rc_t set_rewrites(hd_xds_t *x, const action_t *msg,
                            const hd_route_match_t *match, hd_proxy_conf_t *p,
                            hd_err_t *err)
{
    if (*msg->prefix_rewrite != '\0' && msg->regex_rewrite != NULL)
        return hd_err_set(err, HD_E_RESOURCE, "prefix_rewrite beside regex_rewrite");
    if (msg->regex_rewrite != NULL)
        return hd_xds_rewrite(x, msg->regex_rewrite, &p->rewrite, &p->rewrite_to, err);
    if (*msg->prefix_rewrite == '\0')
        return HD_OK;
    if (match->path.kind == HD_MATCH_REGEX)
        return replace_all(x, msg->prefix_rewrite, p);
    p->uri_prefix = hd_xds_str(x, msg->prefix_rewrite);
    p->has_uri = true;
    return HD_OK;
}

static hd_rc_t set_host(hd_xds_t *x, const action_t *msg, hd_proxy_conf_t *p,
                        hd_err_t *err)
{
    hd_host_rewrite_t *by;

    p->tells_host = msg->append_x_forwarded_host;
    switch (msg->host_rewrite_specifier_case) {
    case PB_ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER__NOT_SET:
        return HD_OK;
    case PB_ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL:
        p->host = hd_xds_str(x, msg->host_rewrite_literal);
        return HD_OK;
    case PB_ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_AUTO_HOST_REWRITE:
        p->host_is_upstreams = hd_pb_bool(msg->auto_host_rewrite, false);
        return HD_OK;
    case PB_ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_HEADER:
        by = hd_pool_new(x->cf.pool, hd_host_rewrite_t);
        by->header = hd_str_dup_lower(x->cf.pool, hd_str_c(msg->host_rewrite_header));
        p->host_by = by;
        return HD_OK;
    case PB_ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_PATH_REGEX:
        by = hd_pool_new(x->cf.pool, hd_host_rewrite_t);
        p->host_by = by;
        return hd_xds_rewrite(x, msg->host_rewrite_path_regex, &by->path, &by->path_to, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE, "a host of a kind that isn't known here");
    }
}

/* With max_stream_duration timeout and max_grpc_timeout mean nothing (Envoy's "new
 * timeouts"). */
static hd_rc_t set_duration(const PbRoute__RouteAction__MaxStreamDuration *max,
                            hd_proxy_conf_t *p, hd_err_t *err)
{
    if (max == NULL ||
        (max->max_stream_duration == NULL && max->grpc_timeout_header_max == NULL))
        return HD_OK;
    p->timeout_ms = p->max_grpc_timeout_ms = 0;
    p->has_duration = max->max_stream_duration != NULL;
    p->has_grpc_timeout = max->grpc_timeout_header_max != NULL;
    return hd_xds_ms64(max->max_stream_duration, 0, "max_stream_duration", &p->duration_ms,
                       err) == HD_OK
               ? hd_xds_ms(max->grpc_timeout_header_max, 0, "grpc_timeout_header_max",
                           &p->max_grpc_timeout_ms, err)
               : HD_ERROR;
}

static hd_rc_t set_times(const action_t *msg, hd_proxy_conf_t *p, hd_err_t *err)
{
    if (hd_xds_ms(msg->timeout, TIMEOUT_MS, "timeout", &p->timeout_ms, err) != HD_OK ||
        hd_xds_ms(msg->idle_timeout, 0, "idle_timeout", &p->idle_timeout_ms, err) !=
            HD_OK ||
        hd_xds_ms(msg->max_grpc_timeout, 0, "max_grpc_timeout", &p->max_grpc_timeout_ms,
                  err) != HD_OK)
        return HD_ERROR;
    p->never_idles = msg->idle_timeout != NULL && p->idle_timeout_ms == 0;
    p->has_grpc_timeout = msg->max_grpc_timeout != NULL;
    return set_duration(msg->max_stream_duration, p, err);
}

static hd_rc_t set_tries(const PbRoute__RetryPolicy *msg, hd_proxy_conf_t *p,
                         hd_err_t *err)
{
    p->tries_max = 1;
    p->replay_bytes = REPLAY_BYTES;
    if (msg == NULL)
        return HD_OK;
    p->tries_max = hd_min(hd_pb_u32(msg->num_retries, 1), TRIES_MAX - 1u) + 1;
    return hd_xds_ms(msg->per_try_timeout, 0, "per_try_timeout", &p->try_timeout_ms, err);
}

static hd_rc_t set_hash(hd_xds_t *x, const PbRoute__RouteAction__HashPolicy *msg,
                        hd_hash_policy_t *to, hd_err_t *err)
{
    uint64_t ttl_ms;

    to->terminal = msg->terminal;
    switch (msg->policy_specifier_case) {
    case PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_HEADER:
        if (msg->header->regex_rewrite != NULL &&
            hd_xds_rewrite(x, msg->header->regex_rewrite, &to->rewrite, &to->rewrite_to,
                           err) != HD_OK)
            return hd_err_prefix(err, "regex_rewrite: ");
        to->header = hd_str_dup_lower(x->cf.pool, hd_str_c(msg->header->header_name));
        return HD_OK;
    case PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_COOKIE:
        to->cookie = hd_xds_str(x, msg->cookie->name);
        to->cookie_path = hd_xds_str(x, msg->cookie->path);
        if (hd_xds_ms64(msg->cookie->ttl, 0, "ttl", &ttl_ms, err) != HD_OK)
            return HD_ERROR;
        to->makes_cookie = msg->cookie->ttl != NULL;
        to->cookie_ttl_s = (ttl_ms + 999) / 1000;
        to->cookie_attributes = HD_STR("");
        for (size_t i = 0; i < msg->cookie->n_attributes; i++)
            to->cookie_attributes = hd_str_printf(
                x->cf.pool, "%.*s; %s%s%s", HD_STR_ARG(to->cookie_attributes),
                msg->cookie->attributes[i]->name,
                *msg->cookie->attributes[i]->value != '\0' ? "=" : "",
                msg->cookie->attributes[i]->value);
        if (!hd_http_is_field_value(to->cookie_attributes) ||
            !hd_http_is_field_value(to->cookie) ||
            !hd_http_is_field_value(to->cookie_path))
            return hd_err_set(err, HD_E_RESOURCE, "cookie: no such text in a header");
        return HD_OK;
    case PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_CONNECTION_PROPERTIES:
        to->source_ip = msg->connection_properties->source_ip;
        return HD_OK;
    case PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_QUERY_PARAMETER:
        to->query = hd_xds_str(x, msg->query_parameter->name);
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "a kind that isn't known here");
    }
}

static hd_rc_t set_hashes(hd_xds_t *x, const action_t *msg, hd_proxy_conf_t *p,
                          hd_err_t *err)
{
    hd_hash_policy_t *list =
        msg->n_hash_policy > 0
            ? hd_pool_new_n(x->cf.pool, hd_hash_policy_t, msg->n_hash_policy)
            : NULL;

    for (size_t i = 0; i < msg->n_hash_policy; i++) {
        if (set_hash(x, msg->hash_policy[i], &list[i], err) != HD_OK)
            return hd_err_prefix(err, "hash_policy: ");
    }
    p->hashes = list;
    p->hashes_n = (uint32_t)msg->n_hash_policy;
    return HD_OK;
}

static bool ends_here(const PbRoute__RouteAction__UpgradeConfig *u)
{
    return u->connect_config != NULL && hd_pb_bool(u->enabled, true);
}

/* A CONNECT with connect_config ends here: its bytes go to the endpoint as they are. No
 * route but one of a connect_matcher gets any. */
static void put_upgrades(hd_xds_t *x, const action_t *msg, const hd_route_match_t *match,
                         hd_proxy_conf_t *p, hd_route_t *route)
{
    hd_upgrade_t *list = hd_pool_new_n(x->cf.pool, hd_upgrade_t, msg->n_upgrade_configs);

    for (size_t i = 0; i < msg->n_upgrade_configs; i++) {
        const PbRoute__RouteAction__UpgradeConfig *u = msg->upgrade_configs[i];

        list[i] = (hd_upgrade_t){.type = hd_xds_str(x, u->upgrade_type),
                                 .is_on = hd_pb_bool(u->enabled, true)};
        if (ends_here(u) && match->connect_only)
            route->action = HD_ACT_TUNNEL;
    }
    p->upgrades = (hd_upgrades_t){list, (uint32_t)msg->n_upgrade_configs};
}

static hd_rc_t set_upgrades(const action_t *msg, hd_proxy_conf_t *p, hd_err_t *err)
{
    for (uint32_t i = 0; i < p->upgrades.n; i++) {
        const PbRoute__RouteAction__UpgradeConfig *u = msg->upgrade_configs[i];

        if (ends_here(u) && strcasecmp(u->upgrade_type, "CONNECT") != 0)
            return hd_err_set(err, HD_E_RESOURCE,
                              "upgrade_configs: connect_config is for CONNECT, not %s",
                              u->upgrade_type);
    }
    return HD_OK;
}

/* request_mirror_policies (VS-MIRROR-1 to VS-MIRROR-5): one try, no word about it. */
static hd_rc_t set_shadow(hd_xds_t *x,
                          const PbRoute__RouteAction__RequestMirrorPolicy *msg,
                          hd_shadow_t *to, hd_err_t *err)
{
    if (*msg->cluster == '\0' || msg->n_request_headers_mutations > 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "only cluster says where to: cluster_header and "
                          "request_headers_mutations are not supported");
    if (set_target(x, msg->cluster, &to->target, err) != HD_OK)
        return HD_ERROR;
    to->target.weight = 1;
    to->proxy = (hd_proxy_conf_t){.targets = &to->target,
                                  .targets_n = 1,
                                  .weights_total = 1,
                                  .tries_max = 1,
                                  .replay_bytes = REPLAY_BYTES,
                                  .timeout_ms = TIMEOUT_MS,
                                  .no_cluster_status = 503,
                                  .host = hd_xds_str(x, msg->host_rewrite_literal)};
    to->route = (hd_route_t){
        .name = hd_xds_str(x, "shadow"), .action = HD_ACT_PROXY, .proxy = &to->proxy};
    to->keeps_host = msg->disable_shadow_host_suffix_append;
    to->fraction_ppm = 1000000;
    if (msg->runtime_fraction != NULL)
        to->fraction_ppm =
            hd_pb_fraction_ppm(msg->runtime_fraction->default_value, 1000000);
    return HD_OK;
}

/* The route's own; else the virtual host's; else those of the whole table. */
static hd_rc_t set_shadows(hd_xds_t *x, const action_t *msg,
                           const PbRoute__VirtualHost *vhost, hd_proxy_conf_t *p,
                           hd_err_t *err)
{
    PbRoute__RouteAction__RequestMirrorPolicy *const *msgs = msg->request_mirror_policies;
    size_t n = msg->n_request_mirror_policies;
    hd_shadow_t *list;

    if (n == 0) {
        msgs = vhost->request_mirror_policies;
        n = vhost->n_request_mirror_policies;
    }
    if (n == 0) {
        msgs = x->routes->request_mirror_policies;
        n = x->routes->n_request_mirror_policies;
    }
    list = n > 0 ? hd_pool_new_n(x->cf.pool, hd_shadow_t, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (set_shadow(x, msgs[i], &list[i], err) != HD_OK)
            return hd_err_prefix(err, "request_mirror_policies: ");
    }
    p->shadows = list;
    p->shadows_n = (uint32_t)n;
    return HD_OK;
}

static hd_rc_t set_proxy(hd_xds_t *x, const action_t *msg,
                         const PbRoute__VirtualHost *vhost,
                         const PbRoute__RetryPolicy *retry, const hd_route_match_t *match,
                         hd_route_t *route, hd_err_t *err)
{
    hd_proxy_conf_t *p = hd_pool_new(x->cf.pool, hd_proxy_conf_t);

    route->action = HD_ACT_PROXY;
    route->proxy = p;
    put_upgrades(x, msg, match, p, route);
    p->no_cluster_status = no_cluster_status(msg);
    p->is_high = msg->priority == PB_CORE__ROUTING_PRIORITY__HIGH;
    if (set_clusters(x, msg, p, err) != HD_OK)
        return HD_ERROR;
    for (uint32_t i = 0; p->is_high && i < p->targets_n; i++)
        hd_xds_want_high(p->targets[i].cluster_name);
    if (set_labels(x, msg, p, err) != HD_OK || set_rewrites(x, msg, match, p, err) != HD_OK ||
        set_host(x, msg, p, err) != HD_OK || set_times(msg, p, err) != HD_OK ||
        set_tries(retry, p, err) != HD_OK || set_hashes(x, msg, p, err) != HD_OK ||
        set_upgrades(msg, p, err) != HD_OK || set_shadows(x, msg, vhost, p, err) != HD_OK)
        return HD_ERROR;
    return HD_OK;
}

/* --- redirect, answer --- */

static hd_rc_t set_redirect(hd_xds_t *x, const PbRoute__RedirectAction *msg,
                            const hd_route_match_t *match, hd_route_t *route,
                            hd_err_t *err)
{
    static const unsigned codes[] = {301, 302, 303, 307, 308};
    hd_redirect_t *to = hd_pool_new(x->cf.pool, hd_redirect_t);

    if ((unsigned)msg->response_code >= hd_countof(codes) || msg->port_redirect > 65535)
        return hd_err_set(err, HD_E_RESOURCE, "redirect: code %d, port %u",
                          (int)msg->response_code, msg->port_redirect);
    route->action = HD_ACT_REDIRECT;
    route->status = codes[msg->response_code];
    route->redirect = to;
    to->host = hd_xds_str(x, msg->host_redirect);
    to->port = (uint16_t)msg->port_redirect;
    to->strips_query = msg->strip_query;
    if (msg->scheme_rewrite_specifier_case ==
        PB_ROUTE__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_SCHEME_REDIRECT)
        to->scheme = hd_xds_str(x, msg->scheme_redirect);
    else if (msg->scheme_rewrite_specifier_case ==
                 PB_ROUTE__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_HTTPS_REDIRECT &&
             msg->https_redirect)
        to->scheme = hd_xds_str(x, "https");
    switch (msg->path_rewrite_specifier_case) {
    case PB_ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER__NOT_SET:
        return HD_OK;
    case PB_ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REDIRECT:
        to->path = hd_xds_str(x, msg->path_redirect);
        return HD_OK;
    case PB_ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PREFIX_REWRITE:
        if (match->path.kind == HD_MATCH_REGEX) /* as a whole, see replace_all */
            to->path = hd_xds_str(x, msg->prefix_rewrite);
        else
            to->prefix = hd_xds_str(x, msg->prefix_rewrite);
        return HD_OK;
    case PB_ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_REGEX_REWRITE:
        return hd_xds_rewrite(x, msg->regex_rewrite, &to->rewrite, &to->rewrite_to, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE, "redirect: a path of a kind that isn't known");
    }
}

static hd_rc_t set_answer(hd_xds_t *x, const PbRoute__DirectResponseAction *msg,
                          hd_route_t *route, hd_err_t *err)
{
    hd_expr_part_t *part;
    hd_expr_t *text;
    hd_str_t body;

    if (msg->status < 200 || msg->status > 599)
        return hd_err_set(err, HD_E_RESOURCE, "direct_response: status %u: 200 to 599",
                          msg->status);
    if (hd_xds_data(x, msg->body, &body, err) != HD_OK)
        return hd_err_prefix(err, "direct_response: ");
    if (body.len > x->answer_bytes_max)
        return hd_err_set(err, HD_E_RESOURCE,
                          "direct_response: a body of %zu bytes: "
                          "max_direct_response_body_size_bytes is %u",
                          body.len, x->answer_bytes_max);
    route->action = HD_ACT_ANSWER;
    route->status = msg->status;
    if (body.len == 0)
        return HD_OK;
    part = hd_pool_new(x->cf.pool, hd_expr_part_t);
    part->text = body;
    text = hd_pool_new(x->cf.pool, hd_expr_t);
    text->parts = part;
    text->n = 1;
    route->text = text;
    route->content_type = hd_xds_str(x, "text/plain");
    return HD_OK;
}

hd_rc_t hd_xds_route_action(hd_xds_t *x, const PbRoute__Route *msg,
                            const PbRoute__VirtualHost *vhost,
                            const hd_route_match_t *match, hd_route_t *route,
                            hd_err_t *err)
{
    const PbRoute__RetryPolicy *retry = NULL;
    hd_rc_t rc;

    route->name = hd_xds_str(x, msg->name);
    if (match->path.kind == HD_MATCH_PREFIX || match->path.kind == HD_MATCH_EXACT)
        route->matched_prefix = match->path.text;
    switch (msg->action_case) {
    case PB_ROUTE__ROUTE__ACTION_ROUTE:
        retry = msg->route->retry_policy != NULL ? msg->route->retry_policy
                                                 : vhost->retry_policy;
        rc = set_proxy(x, msg->route, vhost, retry, match, route, err);
        break;
    case PB_ROUTE__ROUTE__ACTION_REDIRECT:
        rc = set_redirect(x, msg->redirect, match, route, err);
        break;
    case PB_ROUTE__ROUTE__ACTION_DIRECT_RESPONSE:
        rc = set_answer(x, msg->direct_response, route, err);
        break;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "an action that isn't known here");
    }
    if (rc != HD_OK ||
        hd_xds_header_ops(x, msg->request_headers_to_add, msg->n_request_headers_to_add,
                          msg->request_headers_to_remove,
                          msg->n_request_headers_to_remove, &route->request_ops,
                          &route->request_ops_n, err) != HD_OK ||
        hd_xds_header_ops(x, msg->response_headers_to_add, msg->n_response_headers_to_add,
                          msg->response_headers_to_remove,
                          msg->n_response_headers_to_remove, &route->response_ops,
                          &route->response_ops_n, err) != HD_OK)
        return HD_ERROR;
    return hd_xds_overrides(x, (hd_xds_override_t *const *)msg->typed_per_filter_config,
                            msg->n_typed_per_filter_config, retry, &route->filters,
                            &route->filters_n, err);
}
