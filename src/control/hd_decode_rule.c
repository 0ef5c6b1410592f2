/* DestinationRule (DR-*), and connectionPool, which Sidecar has too. */
#include "control/hd_decode_int.h"
#include "control/hd_model_traffic.h"

/* --- loadBalancer (DR-LB-*, DR-LOC-*) --- */

static const hd_enum_t simple_kinds[] = {{"UNSPECIFIED", HD_DR_LB_UNSPECIFIED},
                                         {"LEAST_REQUEST", HD_DR_LB_LEAST_REQUEST},
                                         {"LEAST_CONN", HD_DR_LB_LEAST_REQUEST},
                                         {"ROUND_ROBIN", HD_DR_LB_ROUND_ROBIN},
                                         {"RANDOM", HD_DR_LB_RANDOM},
                                         {"PASSTHROUGH", HD_DR_LB_PASSTHROUGH},
                                         {0}};

/* [{name, value}] into labels. */
static void read_attributes(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t fields[] = {
        HD_FIELD(hd_pair_t, key, "name", STR, .flags = HD_F_REQUIRED),
        HD_FIELD(hd_pair_t, value, "value", STR),
        {0}};
    static const hd_schema_t schema = {sizeof(hd_pair_t), fields, NULL, NULL};
    static const hd_field_t list = {.name = "", .type = HD_D_LIST, .schema = &schema};

    hd_decode_typed(d, &list, node, into);
}

static const hd_field_t cookie_fields[] = {
    HD_FIELD(hd_hash_t, cookie, "name", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_hash_t, cookie_path, "path", STR),
    HD_FIELD(hd_hash_t, cookie_ttl_ns, "ttl", DURATION),
    HD_FIELD(hd_hash_t, cookie_attributes, "attributes", READ, .read = read_attributes),
    {0}};
static const hd_schema_t cookie_schema = {sizeof(hd_hash_t), cookie_fields, NULL, NULL};

static const hd_field_t ring_fields[] = {HD_FIELD(hd_hash_t, ring_size, "minimumRingSize",
                                                  INT, .flags = HD_F_ZERO_UNSET,
                                                  .max = 8 << 20),
                                         {0}};
static const hd_schema_t ring_schema = {sizeof(hd_hash_t), ring_fields, NULL, NULL};

static const hd_field_t maglev_fields[] = {
    HD_FIELD(hd_hash_t, table_size, "tableSize", INT, .min = 2, .max = 5000010), {0}};

static bool is_prime(int64_t n)
{
    for (int64_t i = 2; i * i <= n; i++) {
        if (n % i == 0)
            return false;
    }
    return n > 1;
}

static void check_maglev(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_hash_t *h = obj;

    if (h->table_size != HD_UNSET && !is_prime(h->table_size)) /* DR-LB-7 */
        hd_decode_error(d, node, "tableSize: %lld is no prime number",
                        (long long)h->table_size);
}

static const hd_schema_t maglev_schema = {sizeof(hd_hash_t), maglev_fields, NULL,
                                          check_maglev};
static const hd_field_t hash_fields[] = {
    HD_FIELD(hd_hash_t, header, "httpHeaderName", STR, .flags = HD_F_LOWER,
             .form = hd_form_header),
    {.name = "httpCookie", .type = HD_D_FLAT, .schema = &cookie_schema},
    HD_FIELD(hd_hash_t, source_ip, "useSourceIp", BOOL),
    HD_FIELD(hd_hash_t, query_param, "httpQueryParameterName", STR),
    {.name = "ringHash", .type = HD_D_FLAT, .schema = &ring_schema},
    {.name = "maglev", .type = HD_D_FLAT, .schema = &maglev_schema},
    HD_FIELD_NONE("minimumRingSize", LATER),
    {0}};

static void check_hash(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const keys[] = {"httpHeaderName", "httpCookie", "useSourceIp",
                                       "httpQueryParameterName", NULL};
    static const char *const kinds[] = {"ringHash", "maglev", "minimumRingSize", NULL};
    static const hd_field_t old = HD_FIELD(hd_hash_t, ring_size, "minimumRingSize", INT,
                                           .flags = HD_F_ZERO_UNSET, .max = 8 << 20);
    hd_hash_t *h = obj;

    hd_ignore(hd_decode_one_of(d, node, keys, true));   /* reported */
    hd_ignore(hd_decode_one_of(d, node, kinds, false)); /* reported */
    h->maglev = hd_decode_has(node, "maglev");
    if (hd_decode_has(node, "minimumRingSize"))
        hd_decode_value(d, &old, hd_yaml_get(node, "minimumRingSize"), h);
}

static const hd_schema_t hash_schema = {sizeof(hd_hash_t), hash_fields, NULL, check_hash};

static const hd_field_t distribute_fields[] = {
    HD_FIELD(hd_distribute_t, from, "from", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_distribute_t, to, "to", LABELS, .flags = HD_F_ANY_SCALAR | HD_F_REQUIRED),
    {0}};

/* DR-LOC-3 */
static void check_distribute(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_distribute_t *dist = obj;
    uint64_t sum = 0, n;

    for (hd_each(to, dist->to)) {
        if (!hd_str_to_u64(to->value, 100, &n) || n == 0)
            hd_decode_error(d, node, "to: each weight is 1 to 100");
        else
            sum += n;
    }
    if (sum != 100)
        hd_decode_error(d, node, "to: the weights' sum must be 100");
}

static const hd_schema_t distribute_schema = {sizeof(hd_distribute_t), distribute_fields,
                                              NULL, check_distribute};
static const hd_field_t failover_fields[] = {
    HD_FIELD(hd_failover_t, from, "from", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_failover_t, to, "to", STR, .flags = HD_F_REQUIRED),
    {0}};
static const hd_schema_t failover_schema = {sizeof(hd_failover_t), failover_fields, NULL,
                                            NULL};
static const hd_field_t locality_fields[] = {
    HD_FIELD(hd_locality_lb_t, enabled, "enabled", TRI),
    HD_FIELD(hd_locality_lb_t, distribute, "distribute", LIST,
             .schema = &distribute_schema),
    HD_FIELD(hd_locality_lb_t, failover, "failover", LIST, .schema = &failover_schema),
    HD_FIELD(hd_locality_lb_t, failover_priority, "failoverPriority", STRS),
    {0}};

static void check_locality(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const either[] = {"distribute", "failover", NULL};

    (void)obj;
    hd_ignore(hd_decode_one_of(d, node, either, false)); /* reported (DR-LOC-8) */
}

static const hd_schema_t locality_schema = {sizeof(hd_locality_lb_t), locality_fields,
                                            NULL, check_locality};
static const hd_field_t zone_aware_fields[] = {
    HD_FIELD(hd_locality_lb_t, enabled, "enabled", TRI),
    HD_FIELD(hd_locality_lb_t, failover, "failover", LIST, .schema = &failover_schema),
    HD_FIELD(hd_locality_lb_t, failover_priority, "failoverPriority", STRS),
    HD_FIELD(hd_locality_lb_t, min_cluster_size, "minClusterSize", INT),
    {0}};
static const hd_schema_t zone_aware_schema = {sizeof(hd_locality_lb_t), zone_aware_fields,
                                              NULL, NULL};

static const hd_field_t warmup_fields[] = {
    HD_FIELD(hd_dr_lb_t, warmup_ns, "duration", DURATION, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_dr_lb_t, warmup_min_percent, "minimumPercent", DOUBLE,
             .flags = HD_F_DEFAULT, .max = 100, .dflt = 10),
    HD_FIELD(hd_dr_lb_t, warmup_aggression, "aggression", DOUBLE, .flags = HD_F_DEFAULT,
             .min = 1, .dflt = 1),
    {0}};
static const hd_schema_t warmup_schema = {sizeof(hd_dr_lb_t), warmup_fields, NULL, NULL};

static const hd_field_t lb_fields[] = {
    HD_FIELD(hd_dr_lb_t, kind, "simple", ENUM, .values = simple_kinds),
    HD_FIELD(hd_dr_lb_t, hash, "consistentHash", OBJ, .schema = &hash_schema),
    HD_FIELD(hd_dr_lb_t, locality, "localityLbSetting", OBJ, .schema = &locality_schema),
    HD_FIELD(hd_dr_lb_t, zone_aware, "zoneAwareLbSetting", OBJ,
             .schema = &zone_aware_schema),
    {.name = "warmup", .type = HD_D_FLAT, .schema = &warmup_schema},
    HD_FIELD_NONE("warmupDurationSecs", LATER),
    {0}};

static void check_lb(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const kinds[] = {"simple", "consistentHash", NULL};
    static const char *const zones[] = {"localityLbSetting", "zoneAwareLbSetting", NULL};
    static const char *const warmups[] = {"warmup", "warmupDurationSecs", NULL};
    static const hd_field_t old =
        HD_FIELD(hd_dr_lb_t, warmup_ns, "warmupDurationSecs", DURATION);
    hd_dr_lb_t *lb = obj;

    hd_ignore(hd_decode_one_of(d, node, kinds, false));   /* reported */
    hd_ignore(hd_decode_one_of(d, node, zones, false));   /* reported (DR-LOC-11) */
    hd_ignore(hd_decode_one_of(d, node, warmups, false)); /* reported (DR-LB-10) */
    if (hd_decode_has(node, "warmupDurationSecs"))
        hd_decode_value(d, &old, hd_yaml_get(node, "warmupDurationSecs"), lb);
    if (lb->hash != NULL)
        lb->kind = HD_DR_LB_CONSISTENT_HASH;
}

static const hd_schema_t lb_schema = {sizeof(hd_dr_lb_t), lb_fields, NULL, check_lb};

/* --- connectionPool (DR-CP-*) --- */

static const hd_field_t keepalive_fields[] = {
    HD_FIELD(hd_keepalive_t, probes, "probes", INT, .flags = HD_F_ZERO_UNSET),
    HD_FIELD(hd_keepalive_t, time_ns, "time", DURATION),
    HD_FIELD(hd_keepalive_t, interval_ns, "interval", DURATION),
    {0}};
static const hd_schema_t keepalive_schema = {sizeof(hd_keepalive_t), keepalive_fields,
                                             NULL, NULL};
static const hd_field_t tcp_fields[] = {
    HD_FIELD(hd_connection_pool_t, max_connections, "maxConnections", INT,
             .flags = HD_F_ZERO_UNSET, .max = INT32_MAX),
    HD_FIELD(hd_connection_pool_t, connect_timeout_ns, "connectTimeout", DURATION,
             .min = 1000000),
    HD_FIELD(hd_connection_pool_t, tcp_keepalive, "tcpKeepalive", OBJ,
             .schema = &keepalive_schema),
    HD_FIELD(hd_connection_pool_t, max_connection_duration_ns, "maxConnectionDuration",
             DURATION, .min = 1000000),
    HD_FIELD(hd_connection_pool_t, tcp_idle_timeout_ns, "idleTimeout", DURATION),
    {0}};
static const hd_schema_t tcp_schema = {sizeof(hd_connection_pool_t), tcp_fields, NULL,
                                       NULL};
static const hd_field_t ping_fields[] = {
    HD_FIELD(hd_connection_pool_t, h2_ping_interval_ns, "interval", DURATION,
             .flags = HD_F_REQUIRED, .min = 1000000),
    HD_FIELD(hd_connection_pool_t, h2_ping_timeout_ns, "timeout", DURATION,
             .flags = HD_F_REQUIRED, .min = 1000000),
    {0}};
static const hd_schema_t ping_schema = {sizeof(hd_connection_pool_t), ping_fields, NULL,
                                        NULL};
static const hd_enum_t upgrades[] = {{"DEFAULT", HD_H2_UPGRADE_DEFAULT},
                                     {"DO_NOT_UPGRADE", HD_H2_DO_NOT_UPGRADE},
                                     {"UPGRADE", HD_H2_UPGRADE},
                                     {0}};
static const hd_field_t http_fields[] = {
    HD_FIELD(hd_connection_pool_t, max_pending_requests, "http1MaxPendingRequests", INT,
             .flags = HD_F_ZERO_UNSET, .max = INT32_MAX),
    HD_FIELD(hd_connection_pool_t, max_requests, "http2MaxRequests", INT,
             .flags = HD_F_ZERO_UNSET, .max = INT32_MAX),
    HD_FIELD(hd_connection_pool_t, max_requests_per_connection,
             "maxRequestsPerConnection", INT, .flags = HD_F_ZERO_UNSET, .max = 1 << 29),
    HD_FIELD(hd_connection_pool_t, max_retries, "maxRetries", INT,
             .flags = HD_F_ZERO_UNSET, .max = INT32_MAX),
    HD_FIELD(hd_connection_pool_t, http_idle_timeout_ns, "idleTimeout", DURATION),
    HD_FIELD(hd_connection_pool_t, h2_upgrade, "h2UpgradePolicy", ENUM,
             .values = upgrades),
    HD_FIELD(hd_connection_pool_t, use_client_protocol, "useClientProtocol", BOOL),
    HD_FIELD(hd_connection_pool_t, max_concurrent_streams, "maxConcurrentStreams", INT,
             .flags = HD_F_ZERO_UNSET, .max = INT32_MAX),
    {.name = "http2KeepAlive", .type = HD_D_FLAT, .schema = &ping_schema},
    {0}};

static void check_http(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_connection_pool_t *p = obj;

    if (p->use_client_protocol && p->h2_upgrade == HD_H2_UPGRADE) /* DR-CP-12 */
        hd_decode_error(d, node,
                        "useClientProtocol and h2UpgradePolicy UPGRADE exclude "
                        "each other");
}

static const hd_schema_t http_schema = {sizeof(hd_connection_pool_t), http_fields, NULL,
                                        check_http};
static const hd_field_t pool_fields[] = {
    {.name = "tcp", .type = HD_D_FLAT, .schema = &tcp_schema},
    {.name = "http", .type = HD_D_FLAT, .schema = &http_schema},
    {0}};
const hd_schema_t hd_pool_schema = {sizeof(hd_connection_pool_t), pool_fields, NULL,
                                    NULL};

/* --- outlierDetection (DR-OD-*) --- */

static const hd_field_t outlier_fields[] = {
    HD_FIELD(hd_outlier_t, consecutive_5xx, "consecutive5xxErrors", INT),
    HD_FIELD(hd_outlier_t, consecutive_gateway, "consecutiveGatewayErrors", INT),
    HD_FIELD(hd_outlier_t, split_local, "splitExternalLocalOriginErrors", BOOL),
    HD_FIELD(hd_outlier_t, consecutive_local, "consecutiveLocalOriginFailures", INT),
    HD_FIELD(hd_outlier_t, interval_ns, "interval", DURATION, .min = 1000000),
    HD_FIELD(hd_outlier_t, base_ejection_ns, "baseEjectionTime", DURATION,
             .min = 1000000),
    HD_FIELD(hd_outlier_t, max_ejection_percent, "maxEjectionPercent", INT, .max = 100),
    HD_FIELD(hd_outlier_t, min_health_percent, "minHealthPercent", INT, .max = 100),
    HD_FIELD(hd_outlier_t, http_error_codes, "outlierDetectionHttpErrorCodes", NUMS,
             .min = 100, .max = 599),
    HD_FIELD_NONE("consecutiveErrors", NO_EFFECT), /* DR-OD-11 */
    {0}};

static void check_outlier(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_outlier_t *o = obj;

    if (o->consecutive_local != HD_UNSET && !o->split_local) /* DR-OD-9 */
        hd_decode_error(d, node,
                        "consecutiveLocalOriginFailures: needs "
                        "splitExternalLocalOriginErrors");
}

static const hd_schema_t outlier_schema = {sizeof(hd_outlier_t), outlier_fields, NULL,
                                           check_outlier};

/* --- tls (DR-TLS-*) --- */

static const hd_enum_t tls_modes[] = {{"DISABLE", HD_CLIENT_TLS_DISABLE},
                                      {"SIMPLE", HD_CLIENT_TLS_SIMPLE},
                                      {"MUTUAL", HD_CLIENT_TLS_MUTUAL},
                                      {"ISTIO_MUTUAL", HD_CLIENT_TLS_ISTIO_MUTUAL},
                                      {0}};
static const hd_field_t tls_fields[] = {
    HD_FIELD(hd_client_tls_t, mode, "mode", ENUM, .values = tls_modes),
    HD_FIELD(hd_client_tls_t, client_certificate, "clientCertificate", STR),
    HD_FIELD(hd_client_tls_t, private_key, "privateKey", STR),
    HD_FIELD(hd_client_tls_t, ca_certificates, "caCertificates", STR),
    HD_FIELD(hd_client_tls_t, ca_crl, "caCrl", STR),
    HD_FIELD(hd_client_tls_t, credential_name, "credentialName", STR),
    HD_FIELD(hd_client_tls_t, subject_alt_names, "subjectAltNames", STRS),
    HD_FIELD(hd_client_tls_t, sni, "sni", STR, .flags = HD_F_LOWER),
    HD_FIELD(hd_client_tls_t, insecure_skip_verify, "insecureSkipVerify", TRI),
    {0}};

static void check_tls(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_client_tls_t *t = obj;
    bool files = t->client_certificate.len > 0 || t->private_key.len > 0 ||
                 t->ca_certificates.len > 0;

    if (t->credential_name.len > 0 && files) /* DR-TLS-5 */
        hd_decode_error(d, node,
                        "credentialName excludes clientCertificate, privateKey "
                        "and caCertificates");
    if (t->mode == HD_CLIENT_TLS_MUTUAL && t->credential_name.len == 0 &&
        (t->client_certificate.len == 0 || t->private_key.len == 0)) /* DR-TLS-3 */
        hd_decode_error(d, node,
                        "MUTUAL needs clientCertificate and privateKey, or "
                        "credentialName");
    if (t->mode == HD_CLIENT_TLS_ISTIO_MUTUAL && (files || t->credential_name.len > 0))
        hd_decode_error(d, node,
                        "ISTIO_MUTUAL uses the workload's own certificate: no "
                        "other can be named");
    if (t->insecure_skip_verify == 1 &&
        (t->ca_certificates.len > 0 || t->subject_alt_names.n > 0)) /* DR-TLS-9 */
        hd_decode_error(d, node,
                        "insecureSkipVerify excludes caCertificates and "
                        "subjectAltNames");
}

static const hd_schema_t tls_schema = {sizeof(hd_client_tls_t), tls_fields, NULL,
                                       check_tls};

/* --- the rest of a policy --- */

static void read_tunnel_protocol(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_enum_t words[] = {{"CONNECT", 0}, {"POST", 1}, {0}};
    static const hd_field_t word = {.name = "", .type = HD_D_ENUM, .values = words};
    int value = 0;
    bool *post = into;

    hd_decode_typed(d, &word, node, &value);
    *post = value == 1;
}

static const hd_field_t tunnel_fields[] = {
    HD_FIELD(hd_dr_tunnel_t, post, "protocol", READ, .read = read_tunnel_protocol),
    HD_FIELD(hd_dr_tunnel_t, host, "targetHost", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_dr_tunnel_t, port, "targetPort", INT, .flags = HD_F_REQUIRED, .min = 1,
             .max = 65535),
    {0}};
static const hd_schema_t tunnel_schema = {sizeof(hd_dr_tunnel_t), tunnel_fields, NULL,
                                          NULL};

static void read_proxy_version(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_enum_t words[] = {{"V1", 1}, {"V2", 2}, {0}};
    static const hd_field_t word = {.name = "", .type = HD_D_ENUM, .values = words};
    int value = 1;
    int64_t *version = into;

    hd_decode_typed(d, &word, node, &value);
    *version = value;
}

/* {version} into the number itself; {} is V1 (DR-PP-1). */
static void read_proxy_protocol(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t fields[] = {
        {.name = "version", .type = HD_D_READ, .read = read_proxy_version}, {0}};
    static const hd_schema_t schema = {sizeof(int64_t), fields, NULL, NULL};
    int64_t *version = into;

    *version = 1;
    hd_decode_map(d, &schema, node, version);
}

static const hd_field_t budget_fields[] = {
    HD_FIELD(hd_retry_budget_t, percent_ppm, "percent", PERCENT, .flags = HD_F_DEFAULT,
             .dflt = 200000),
    HD_FIELD(hd_retry_budget_t, min_concurrency, "minRetryConcurrency", INT,
             .flags = HD_F_DEFAULT, .dflt = 3),
    HD_FIELD(hd_retry_budget_t, interval_ns, "budgetInterval", DURATION,
             .flags = HD_F_DEFAULT),
    {0}};
static const hd_schema_t budget_schema = {sizeof(hd_retry_budget_t), budget_fields, NULL,
                                          NULL};

#define BLOCK_FIELDS                                                                     \
    HD_FIELD(hd_traffic_blocks_t, lb, "loadBalancer", OBJ, .schema = &lb_schema),        \
        HD_FIELD(hd_traffic_blocks_t, pool, "connectionPool", OBJ,                       \
                 .schema = &hd_pool_schema),                                             \
        HD_FIELD(hd_traffic_blocks_t, outlier, "outlierDetection", OBJ,                  \
                 .schema = &outlier_schema),                                             \
        HD_FIELD(hd_traffic_blocks_t, tls, "tls", OBJ, .schema = &tls_schema)

static void check_blocks(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const either[] = {"tunnel", "proxyProtocol", NULL};
    hd_traffic_blocks_t *b = obj;

    if (node->n == 0) /* DR-17 */
        hd_decode_error(d, node,
                        "is empty: set loadBalancer, connectionPool, "
                        "outlierDetection, tls …");
    hd_ignore(hd_decode_one_of(d, node, either, false)); /* reported */
    if (!hd_decode_has(node, "proxyProtocol"))
        b->proxy_protocol = HD_UNSET;
}

static const hd_field_t port_number_fields[] = {
    {.name = "number", .type = HD_D_INT, .flags = HD_F_REQUIRED, .min = 1, .max = 65535},
    {0}};
static const hd_schema_t port_number_schema = {sizeof(int64_t), port_number_fields, NULL,
                                               NULL};

/* The blocks come first in this one, so that BLOCK_FIELDS fit. */
typedef struct {
    hd_traffic_blocks_t blocks;
    int64_t port;
} port_policy_t;

static const hd_field_t port_policy_fields[] = {BLOCK_FIELDS,
                                                HD_FIELD(port_policy_t, port, "port",
                                                         FLAT, .flags = HD_F_REQUIRED,
                                                         .schema = &port_number_schema),
                                                {0}};
static const hd_schema_t port_policy_schema = {sizeof(port_policy_t), port_policy_fields,
                                               NULL, check_blocks};

static void read_port_policies(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t list = {
        .name = "", .type = HD_D_LIST, .schema = &port_policy_schema};
    HD_LIST(port_policy_t) items = {NULL, 0};
    hd_traffic_policy_t *policy = hd_container_of(into, hd_traffic_policy_t, ports);
    hd_port_policy_t *ports;

    hd_decode_typed(d, &list, node, &items);
    if (items.n == 0)
        return;
    ports = hd_pool_new_n(d->pool, hd_port_policy_t, items.n);
    for (size_t i = 0; i < items.n; i++)
        ports[i] = (hd_port_policy_t){items.items[i].port, items.items[i].blocks};
    policy->ports.items = ports;
    policy->ports.n = items.n;
}

static const hd_field_t policy_fields[] = {
    BLOCK_FIELDS, /* hd_traffic_policy_t begins with its blocks */
    HD_FIELD(hd_traffic_blocks_t, tunnel, "tunnel", OBJ, .schema = &tunnel_schema),
    HD_FIELD(hd_traffic_blocks_t, retry_budget, "retryBudget", OBJ,
             .schema = &budget_schema),
    HD_FIELD(hd_traffic_blocks_t, proxy_protocol, "proxyProtocol", READ,
             .read = read_proxy_protocol),
    HD_FIELD(hd_traffic_policy_t, ports, "portLevelSettings", READ,
             .read = read_port_policies),
    {0}};
static const hd_schema_t policy_schema = {sizeof(hd_traffic_policy_t), policy_fields,
                                          NULL, check_blocks};

/* --- the rule --- */

static void check_subset(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    (void)d;
    ((hd_subset_t *)obj)->line = node->line;
}

static const hd_field_t subset_fields[] = {
    HD_FIELD(hd_subset_t, name, "name", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_subset_t, labels, "labels", LABELS),
    HD_FIELD(hd_subset_t, policy, "trafficPolicy", OBJ, .schema = &policy_schema),
    {0}};
static const hd_schema_t subset_schema = {sizeof(hd_subset_t), subset_fields, NULL,
                                          check_subset};

static const hd_field_t spec_fields[] = {
    HD_FIELD(hd_destination_rule_t, host, "host", STR,
             .flags = HD_F_REQUIRED | HD_F_HOST),
    HD_FIELD(hd_destination_rule_t, policy, "trafficPolicy", OBJ,
             .schema = &policy_schema),
    HD_FIELD(hd_destination_rule_t, subsets, "subsets", LIST, .schema = &subset_schema),
    HD_FIELD(hd_destination_rule_t, export_to, "exportTo", READ,
             .read = hd_read_export_to),
    HD_FIELD(hd_destination_rule_t, selector, "workloadSelector", FLAT,
             .schema = &hd_selector_schema),
    {0}};

static void check_spec(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_destination_rule_t *r = obj;

    for (size_t i = 0; i < r->subsets.n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (hd_str_eq(r->subsets.items[i].name, r->subsets.items[j].name))
                hd_decode_error(d, hd_yaml_get(node, "subsets"),
                                "subsets: %.*s is there twice",
                                HD_STR_ARG(r->subsets.items[i].name));
        }
    }
    if (r->selector.n > 0 &&
        (r->export_to.n > 1 ||
         (r->export_to.n == 1 && !hd_str_eq(r->export_to.items[0], HD_STR(".")))))
        hd_decode_error(d, hd_yaml_get(node, "exportTo"), /* EXP-3 */
                        "exportTo: with workloadSelector only [.]");
}

static const hd_schema_t spec_schema = {sizeof(hd_destination_rule_t), spec_fields, NULL,
                                        check_spec};
static const hd_field_t rule_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .flags = HD_F_REQUIRED, .schema = &spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

const hd_kind_desc_t hd_decode_rule[] = {
    {.kind = HD_KIND_DESTINATION_RULE,
     .group = "networking.istio.io",
     .versions = {"v1", "v1beta1", "v1alpha3"},
     .schema = {sizeof(hd_destination_rule_t), rule_fields, NULL, NULL}},
    {.group = NULL}};
