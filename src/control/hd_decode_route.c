/* VirtualService (VS-*). */
#include "control/hd_decode_int.h"
#include "control/hd_model_traffic.h"
#include "core/base/hd_base64.h"

#define SECOND_NS INT64_C(1000000000)

/* --- gateways' names (HOST-6) --- */

static hd_str_t resolve_gateway(hd_decoder_t *d, hd_str_t name)
{
    ssize_t dot = hd_str_find_char(name, '.');

    if (hd_str_eq(name, HD_STR("mesh")))
        return name;
    if (hd_str_has_prefix(name, HD_STR("./")))
        return hd_str_printf(d->pool, "%.*s/%.*s", HD_STR_ARG(d->obj->ns),
                             HD_STR_ARG(hd_str_sub(name, 2, name.len)));
    if (hd_str_find_char(name, '/') >= 0)
        return name;
    if (dot > 0) { /* the old name.ns.svc… */
        hd_str_t rest = hd_str_sub(name, (size_t)dot + 1, name.len), ns;

        if (hd_str_split(&rest, '.', &ns) && ns.len > 0)
            return hd_str_printf(d->pool, "%.*s/%.*s", HD_STR_ARG(ns), (int)dot,
                                 name.data);
    }
    return hd_str_printf(d->pool, "%.*s/%.*s", HD_STR_ARG(d->obj->ns), HD_STR_ARG(name));
}

static void read_gateways(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t list = {.name = "", .type = HD_D_STRS};
    hd_strs_t names = {NULL, 0};
    hd_str_t *items;

    hd_decode_typed(d, &list, node, &names);
    if (names.n == 0)
        return;
    items = hd_pool_new_n(d->pool, hd_str_t, names.n);
    for (size_t i = 0; i < names.n; i++)
        items[i] = resolve_gateway(d, names.items[i]);
    names.items = items;
    memcpy(into, &names, sizeof(names));
}

/* --- destinations and headers --- */

static const hd_field_t port_selector_fields[] = {
    {.name = "number", .type = HD_D_INT, .flags = HD_F_REQUIRED, .min = 1, .max = 65535},
    {0}};
static const hd_schema_t port_selector_schema = {sizeof(int64_t), port_selector_fields,
                                                 NULL, NULL};

static const hd_field_t destination_fields[] = {
    HD_FIELD(hd_destination_t, host, "host", STR, .flags = HD_F_REQUIRED | HD_F_HOST),
    HD_FIELD(hd_destination_t, subset, "subset", STR),
    HD_FIELD(hd_destination_t, port, "port", FLAT, .schema = &port_selector_schema),
    {0}};

static void check_destination(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_destination_t *dest = obj;

    if (hd_host_is_wildcard(dest->host))
        hd_decode_error(d, node, "host: a destination can't be a wildcard");
}

const hd_schema_t hd_destination_schema = {sizeof(hd_destination_t), destination_fields,
                                           NULL, check_destination};

static const hd_field_t edit_fields[] = {
    HD_FIELD(hd_header_edits_t, set, "set", LABELS, .flags = HD_F_LOWER),
    HD_FIELD(hd_header_edits_t, add, "add", LABELS, .flags = HD_F_LOWER),
    HD_FIELD(hd_header_edits_t, remove, "remove", STRS, .flags = HD_F_LOWER,
             .form = hd_form_header),
    {0}};

/* VS-HDR-5; what goes on the wire may hold no line end. */
static void check_edits(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_header_edits_t *e = obj;
    const hd_labels_t *maps[] = {&e->set, &e->add};

    for (size_t m = 0; m < hd_countof(maps); m++) {
        for (size_t i = 0; i < maps[m]->n; i++) {
            const hd_pair_t *p = &maps[m]->items[i];
            const char *wrong = hd_form_header(p->key);

            if (wrong != NULL)
                hd_decode_error(d, node, "\"%.*s\" %s",
                                HD_STR_ARG(hd_str_sub(p->key, 0, 60)), wrong);
            if (hd_str_find_char(p->value, '\n') >= 0 ||
                hd_str_find_char(p->value, '\r') >= 0)
                hd_decode_error(d, node, "%.*s: has a line end in its value",
                                HD_STR_ARG(p->key));
        }
    }
}

static const hd_schema_t edits_schema = {sizeof(hd_header_edits_t), edit_fields, NULL,
                                         check_edits};
static const hd_field_t header_ops_fields[] = {
    HD_FIELD(hd_header_ops_t, request, "request", FLAT, .schema = &edits_schema),
    HD_FIELD(hd_header_ops_t, response, "response", FLAT, .schema = &edits_schema),
    {0}};
static const hd_schema_t header_ops_schema = {sizeof(hd_header_ops_t), header_ops_fields,
                                              NULL, NULL};

static const hd_field_t route_dest_fields[] = {
    HD_FIELD(hd_route_dest_t, destination, "destination", FLAT, .flags = HD_F_REQUIRED,
             .schema = &hd_destination_schema),
    HD_FIELD(hd_route_dest_t, weight, "weight", INT, .min = 0, .max = 1000000),
    HD_FIELD(hd_route_dest_t, headers, "headers", FLAT, .schema = &header_ops_schema),
    {0}};
static const hd_schema_t route_dest_schema = {sizeof(hd_route_dest_t), route_dest_fields,
                                              NULL, NULL};
static const hd_field_t l4_dest_fields[] = {
    HD_FIELD(hd_route_dest_t, destination, "destination", FLAT, .flags = HD_F_REQUIRED,
             .schema = &hd_destination_schema),
    HD_FIELD(hd_route_dest_t, weight, "weight", INT, .min = 0, .max = 1000000),
    {0}};
static const hd_schema_t l4_dest_schema = {sizeof(hd_route_dest_t), l4_dest_fields, NULL,
                                           NULL};

static void check_weights(hd_decoder_t *d, const hd_yaml_t *node,
                          const hd_route_dests_t *dests)
{
    int64_t sum = 0;

    for (hd_each(it, *dests))
        sum += it->weight == HD_UNSET ? 0 : it->weight;
    if (dests->n > 1 && sum == 0)
        hd_decode_error(d, hd_yaml_get(node, "route"),
                        "route: the weights' sum is 0: with several destinations it must "
                        "be more");
}

/* --- matches --- */

static const hd_field_t match_fields[] = {
    HD_FIELD(hd_http_match_t, name, "name", STR),
    HD_FIELD(hd_http_match_t, uri, "uri", MATCH),
    HD_FIELD(hd_http_match_t, scheme, "scheme", MATCH),
    HD_FIELD(hd_http_match_t, method, "method", MATCH),
    HD_FIELD(hd_http_match_t, authority, "authority", MATCH),
    HD_FIELD(hd_http_match_t, headers, "headers", KEYMATCHES, .flags = HD_F_LOWER),
    HD_FIELD(hd_http_match_t, without_headers, "withoutHeaders", KEYMATCHES,
             .flags = HD_F_LOWER),
    HD_FIELD(hd_http_match_t, query_params, "queryParams", KEYMATCHES),
    HD_FIELD(hd_http_match_t, ignore_uri_case, "ignoreUriCase", BOOL),
    HD_FIELD(hd_http_match_t, port, "port", INT, .min = 1, .max = 65535),
    HD_FIELD(hd_http_match_t, source_labels, "sourceLabels", LABELS),
    HD_FIELD(hd_http_match_t, source_namespace, "sourceNamespace", STR),
    HD_FIELD(hd_http_match_t, gateways, "gateways", READ, .read = read_gateways),
    HD_FIELD(hd_http_match_t, stat_prefix, "statPrefix", STR),
    {0}};
static const hd_schema_t match_schema = {sizeof(hd_http_match_t), match_fields, NULL,
                                         NULL};

static const hd_field_t tls_match_fields[] = {
    HD_FIELD(hd_l4_match_t, sni_hosts, "sniHosts", STRS,
             .flags = HD_F_REQUIRED | HD_F_LOWER),
    HD_FIELD(hd_l4_match_t, destination_subnets, "destinationSubnets", STRS,
             .form = hd_form_cidr),
    HD_FIELD(hd_l4_match_t, port, "port", INT, .min = 1, .max = 65535),
    HD_FIELD(hd_l4_match_t, source_labels, "sourceLabels", LABELS),
    HD_FIELD(hd_l4_match_t, source_namespace, "sourceNamespace", STR),
    HD_FIELD(hd_l4_match_t, gateways, "gateways", READ, .read = read_gateways),
    {0}};
static const hd_schema_t tls_match_schema = {sizeof(hd_l4_match_t), tls_match_fields,
                                             NULL, NULL};
static const hd_field_t tcp_match_fields[] = {
    HD_FIELD(hd_l4_match_t, destination_subnets, "destinationSubnets", STRS,
             .form = hd_form_cidr),
    HD_FIELD(hd_l4_match_t, port, "port", INT, .min = 1, .max = 65535),
    HD_FIELD(hd_l4_match_t, source_labels, "sourceLabels", LABELS),
    HD_FIELD(hd_l4_match_t, source_namespace, "sourceNamespace", STR),
    HD_FIELD(hd_l4_match_t, gateways, "gateways", READ, .read = read_gateways),
    HD_FIELD_NONE("sourceSubnet", NO_EFFECT), /* VS-TCP-1 */
    {0}};
static const hd_schema_t tcp_match_schema = {sizeof(hd_l4_match_t), tcp_match_fields,
                                             NULL, NULL};

/* --- what a route does --- */

static const hd_field_t regex_rewrite_fields[] = {
    HD_FIELD(hd_rewrite_t, regex_match, "match", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_rewrite_t, regex_rewrite, "rewrite", STR, .flags = HD_F_REQUIRED),
    {0}};
static const hd_schema_t regex_rewrite_schema = {sizeof(hd_rewrite_t),
                                                 regex_rewrite_fields, NULL, NULL};
static const hd_field_t rewrite_fields[] = {
    HD_FIELD(hd_rewrite_t, uri, "uri", STR),
    HD_FIELD(hd_rewrite_t, authority, "authority", STR),
    {.name = "uriRegexRewrite", .type = HD_D_FLAT, .schema = &regex_rewrite_schema},
    {0}};

static void check_rewrite(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const uri[] = {"uri", "uriRegexRewrite", NULL};

    (void)obj;
    if (hd_decode_one_of(d, node, uri, false) == 0 && !hd_decode_has(node, "authority"))
        hd_decode_error(d, node, "needs one of uri, uriRegexRewrite, authority");
}

static const hd_schema_t rewrite_schema = {sizeof(hd_rewrite_t), rewrite_fields, NULL,
                                           check_rewrite};

static const hd_enum_t derive_ports[] = {
    {"FROM_PROTOCOL_DEFAULT", HD_DERIVE_FROM_PROTOCOL_DEFAULT},
    {"FROM_REQUEST_PORT", HD_DERIVE_FROM_REQUEST_PORT},
    {0}};

static const char *scheme_form(hd_str_t s)
{
    return hd_str_eq(s, HD_STR("http")) || hd_str_eq(s, HD_STR("https"))
               ? NULL
               : "must be http or https";
}

static const hd_field_t redirect_fields[] = {
    HD_FIELD(hd_redirect_t, uri, "uri", STR),
    HD_FIELD(hd_redirect_t, prefix_rewrite, "prefixRewrite", STR),
    HD_FIELD(hd_redirect_t, authority, "authority", STR),
    HD_FIELD(hd_redirect_t, scheme, "scheme", STR, .form = scheme_form),
    HD_FIELD(hd_redirect_t, port, "port", INT, .min = 1, .max = 65535),
    HD_FIELD(hd_redirect_t, derive_port, "derivePort", ENUM, .values = derive_ports),
    HD_FIELD(hd_redirect_t, code, "redirectCode", INT, .flags = HD_F_DEFAULT, .min = 300,
             .max = 399, .dflt = 301),
    {0}};

static void check_redirect(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const paths[] = {"uri", "prefixRewrite", NULL};
    static const char *const ports[] = {"port", "derivePort", NULL};
    const hd_redirect_t *r = obj;

    if (hd_decode_one_of(d, node, paths, false) +
                hd_decode_one_of(d, node, ports, false) ==
            0 &&
        r->authority.len == 0 && r->scheme.len == 0) /* VS-RD-5 */
        hd_decode_error(d, node,
                        "needs one of uri, prefixRewrite, authority, scheme, port");
    if (r->code != 301 && r->code != 302 && r->code != 303 && r->code != 307 &&
        r->code != 308) /* VS-RD-4 */
        hd_decode_warn(d, node, "",
                       "redirectCode %lld gives no redirect: use 301, 302, 303, 307, 308",
                       (long long)r->code);
}

static const hd_schema_t redirect_schema = {sizeof(hd_redirect_t), redirect_fields, NULL,
                                            check_redirect};

/* Standard base64, padded or not. */
static bool decode_base64(hd_pool_t *pool, hd_str_t s, hd_str_t *out)
{
    char *to = hd_pool_alloc_unaligned(pool, HD_BASE64_BYTES_MAX(s.len));
    size_t n;

    if (!hd_base64_decode(s, HD_BASE64, HD_BASE64_LOOSE, to, &n))
        return false;
    *out = hd_str_n(to, n);
    return true;
}

static void read_body(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const char *const kinds[] = {"string", "bytes", NULL};
    static const hd_field_t fields[] = {
        {.name = "string", .type = HD_D_STR},
        {.name = "bytes", .type = HD_D_STR, .at = sizeof(hd_str_t)},
        {0}};
    static const hd_schema_t schema = {2 * sizeof(hd_str_t), fields, NULL, NULL};
    hd_str_t bodies[2] = {{NULL, 0}, {NULL, 0}}, *body = into;

    hd_decode_map(d, &schema, node, bodies);
    if (node->type != HD_YAML_MAP || hd_decode_one_of(d, node, kinds, true) != 1)
        return;
    *body = bodies[0];
    if (bodies[1].data != NULL && !decode_base64(d->pool, bodies[1], body))
        hd_decode_error(d, node, "bytes: is no base64");
    if (body->len > 1 << 20)
        hd_decode_error(d, node, "is longer than 1 MiB"); /* VS-RD-6 */
    else if (body->len > 100 << 10)
        hd_decode_warn(d, node, "", "is longer than 100 KiB");
}

static const hd_field_t direct_fields[] = {
    HD_FIELD(hd_direct_response_t, status, "status", INT, .flags = HD_F_REQUIRED,
             .min = 200, .max = 599),
    HD_FIELD(hd_direct_response_t, body, "body", READ, .read = read_body),
    {0}};
static const hd_schema_t direct_schema = {sizeof(hd_direct_response_t), direct_fields,
                                          NULL, NULL};

static const hd_field_t delegate_fields[] = {
    HD_FIELD(hd_delegate_t, name, "name", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_delegate_t, ns, "namespace", STR),
    {0}};

static void check_delegate(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_delegate_t *del = obj;

    if (del->ns.len == 0)
        del->ns = d->obj->ns;
    hd_decode_warn(d, node, "", "delegation is not supported yet: this route is skipped");
}

static const hd_schema_t delegate_schema = {sizeof(hd_delegate_t), delegate_fields, NULL,
                                            check_delegate};

/* --- retries (VS-RETRY-*) --- */

static bool is_retry_word(hd_str_t word)
{
    static const hd_enum_t words[] = {{"5xx", 1},
                                      {"gateway-error", 1},
                                      {"reset", 1},
                                      {"reset-before-request", 1},
                                      {"connect-failure", 1},
                                      {"refused-stream", 1},
                                      {"retriable-4xx", 1},
                                      {"retriable-status-codes", 1},
                                      {"retriable-headers", 1},
                                      {"envoy-ratelimited", 1},
                                      {"http3-post-connect-failure", 1},
                                      {"cancelled", 1},
                                      {"deadline-exceeded", 1},
                                      {"internal", 1},
                                      {"resource-exhausted", 1},
                                      {"unavailable", 1},
                                      {0}};
    int value;

    return hd_find_enum(words, word, false, &value);
}

static void read_retry_on(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t text = {.name = "",
                                    .type = HD_D_STR,
                                    .flags = HD_F_ANY_SCALAR}; /* "503" may stand alone */
    hd_retries_t *r = hd_container_of(into, hd_retries_t, retry_on);
    hd_str_t rest, word, *words;
    int64_t *codes;

    hd_decode_typed(d, &text, node, &r->retry_on);
    if (r->retry_on.len == 0 || r->retry_on.len > 4096)
        return;
    words = hd_pool_new_n(d->pool, hd_str_t, r->retry_on.len);
    codes = hd_pool_new_n(d->pool, int64_t, r->retry_on.len);
    r->conditions.items = words;
    r->status_codes.items = codes;
    rest = r->retry_on;
    while (hd_str_split(&rest, ',', &word)) {
        uint64_t code;

        word = hd_str_trim(word);
        if (hd_str_to_u64(word, 599, &code) && code >= 100)
            codes[r->status_codes.n++] = (int64_t)code;
        else if (is_retry_word(word))
            words[r->conditions.n++] = word;
        else if (word.len > 0)
            hd_decode_error(d, node, "unknown condition \"%.*s\"", /* VS-RETRY-32 */
                            HD_STR_ARG(hd_str_sub(word, 0, 60)));
    }
}

static const hd_field_t retry_fields[] = {
    HD_FIELD(hd_retries_t, attempts, "attempts", INT, .min = INT32_MIN, .max = INT32_MAX),
    HD_FIELD(hd_retries_t, per_try_timeout_ns, "perTryTimeout", DURATION, .min = 1000000),
    HD_FIELD(hd_retries_t, retry_on, "retryOn", READ, .read = read_retry_on),
    HD_FIELD(hd_retries_t, remote_localities, "retryRemoteLocalities", TRI),
    HD_FIELD(hd_retries_t, ignore_previous_hosts, "retryIgnorePreviousHosts", TRI),
    HD_FIELD(hd_retries_t, backoff_ns, "backoff", DURATION, .min = 1000000),
    {0}};

static void check_retries(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_retries_t *r = obj;

    if (r->attempts < 0 && hd_decode_has(node, "attempts"))
        r->attempts = 0; /* VS-RETRY-1 */
    if (r->attempts == 0 && (r->retry_on.len > 0 || r->per_try_timeout_ns != HD_UNSET ||
                             r->remote_localities != HD_UNSET)) /* VS-RETRY-9 */
        hd_decode_error(d, node,
                        "attempts: 0 means no retry: then retryOn, perTryTimeout and "
                        "retryRemoteLocalities can't be set");
}

static const hd_schema_t retry_schema = {sizeof(hd_retries_t), retry_fields, NULL,
                                         check_retries};

/* --- faults (VS-FAULT-*) --- */

static const hd_field_t percent_fields[] = {
    {.name = "value", .type = HD_D_PERCENT, .flags = HD_F_DEFAULT}, {0}};
static const hd_schema_t percent_schema = {sizeof(int64_t), percent_fields, NULL, NULL};

static const hd_enum_t grpc_codes[] = {{"OK", 0},
                                       {"CANCELLED", 1},
                                       {"UNKNOWN", 2},
                                       {"INVALID_ARGUMENT", 3},
                                       {"DEADLINE_EXCEEDED", 4},
                                       {"NOT_FOUND", 5},
                                       {"ALREADY_EXISTS", 6},
                                       {"PERMISSION_DENIED", 7},
                                       {"RESOURCE_EXHAUSTED", 8},
                                       {"FAILED_PRECONDITION", 9},
                                       {"ABORTED", 10},
                                       {"OUT_OF_RANGE", 11},
                                       {"UNIMPLEMENTED", 12},
                                       {"INTERNAL", 13},
                                       {"UNAVAILABLE", 14},
                                       {"DATA_LOSS", 15},
                                       {"UNAUTHENTICATED", 16},
                                       {0}};

static void read_grpc_status(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t word = {.name = "", .type = HD_D_ENUM, .values = grpc_codes};
    int64_t *out = into;
    int value = HD_UNSET;

    hd_decode_typed(d, &word, node, &value);
    *out = value;
}

typedef struct {
    hd_fault_t fault; /* first */
    int64_t delay_percent, abort_percent;
} fault_t;

static const hd_field_t delay_fields[] = {
    HD_FIELD(fault_t, fault.delay_ns, "fixedDelay", DURATION, .flags = HD_F_REQUIRED,
             .min = 1000000),
    HD_FIELD(fault_t, fault.delay_ppm, "percentage", FLAT, .schema = &percent_schema),
    HD_FIELD(fault_t, delay_percent, "percent", INT, .min = 0, .max = 100),
    {0}};
static const hd_schema_t delay_schema = {sizeof(fault_t), delay_fields, NULL, NULL};
static const hd_field_t abort_fields[] = {
    HD_FIELD(fault_t, fault.abort_http_status, "httpStatus", INT, .min = 200, .max = 599),
    HD_FIELD(fault_t, fault.abort_grpc_status, "grpcStatus", READ,
             .read = read_grpc_status),
    HD_FIELD(fault_t, fault.abort_ppm, "percentage", FLAT, .schema = &percent_schema),
    HD_FIELD(fault_t, abort_percent, "percent", INT, .min = 0, .max = 100),
    {0}};

static void check_abort(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const kinds[] = {"httpStatus", "grpcStatus", NULL};

    (void)obj;
    hd_ignore(hd_decode_one_of(d, node, kinds, true)); /* reported */
}

static const hd_schema_t abort_schema = {sizeof(fault_t), abort_fields, NULL,
                                         check_abort};
static const hd_field_t fault_fields[] = {
    {.name = "delay", .type = HD_D_FLAT, .schema = &delay_schema},
    {.name = "abort", .type = HD_D_FLAT, .schema = &abort_schema},
    {0}};

static void check_fault(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    fault_t *f = obj;
    const hd_yaml_t *delay = hd_yaml_get(node, "delay");
    const hd_yaml_t *abort_node = hd_yaml_get(node, "abort");

    if (hd_yaml_is_null(delay) && hd_yaml_is_null(abort_node)) /* VS-FAULT-6 */
        hd_decode_error(d, node, "needs delay or abort");
    if (!hd_decode_has(delay, "percentage") && f->delay_percent != HD_UNSET)
        f->fault.delay_ppm = f->delay_percent * 10000;
    if (!hd_decode_has(abort_node, "percentage") && f->abort_percent != HD_UNSET)
        f->fault.abort_ppm = f->abort_percent * 10000;
    /* read_grpc_status is not asked where it isn't set */
    if (!hd_decode_has(abort_node, "grpcStatus"))
        f->fault.abort_grpc_status = HD_UNSET;
}

static const hd_schema_t fault_schema = {sizeof(fault_t), fault_fields, NULL,
                                         check_fault};

/* --- CORS (VS-CORS-*) --- */

typedef struct {
    hd_cors_t cors; /* first */
    hd_strs_t old_origins;
} cors_t;

static const hd_enum_t preflights[] = {{"UNSPECIFIED", HD_PREFLIGHT_UNSPECIFIED},
                                       {"FORWARD", HD_PREFLIGHT_FORWARD},
                                       {"IGNORE", HD_PREFLIGHT_IGNORE},
                                       {0}};

static const hd_field_t cors_fields[] = {
    HD_FIELD(cors_t, cors.allow_origins, "allowOrigins", MATCHES),
    HD_FIELD(cors_t, old_origins, "allowOrigin", STRS),
    HD_FIELD(cors_t, cors.allow_methods, "allowMethods", STRS),
    HD_FIELD(cors_t, cors.allow_headers, "allowHeaders", STRS),
    HD_FIELD(cors_t, cors.expose_headers, "exposeHeaders", STRS),
    HD_FIELD(cors_t, cors.max_age_ns, "maxAge", DURATION),
    HD_FIELD(cors_t, cors.allow_credentials, "allowCredentials", TRI),
    HD_FIELD(cors_t, cors.unmatched_preflights, "unmatchedPreflights", ENUM,
             .values = preflights),
    {0}};

static void check_cors(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    cors_t *c = obj;
    hd_strmatch_t *origins;

    if (c->cors.max_age_ns > 0 && c->cors.max_age_ns % SECOND_NS != 0)
        hd_decode_error(d, hd_yaml_get(node, "maxAge"), "maxAge: whole seconds only");
    if (c->cors.allow_origins.n > 0 || c->old_origins.n == 0)
        return;
    origins = hd_pool_new_n(d->pool, hd_strmatch_t, c->old_origins.n);
    for (size_t i = 0; i < c->old_origins.n; i++) {
        bool all = hd_str_eq(c->old_origins.items[i], HD_STR("*"));

        origins[i] = all ? (hd_strmatch_t){HD_STRMATCH_REGEX, HD_STR(".*")}
                         : (hd_strmatch_t){HD_STRMATCH_EXACT, c->old_origins.items[i]};
    }
    c->cors.allow_origins.items = origins;
    c->cors.allow_origins.n = c->old_origins.n;
}

static const hd_schema_t cors_schema = {sizeof(cors_t), cors_fields, NULL, check_cors};

/* --- mirrors (VS-MIRROR-1) --- */

static const hd_field_t mirror_fields[] = {
    HD_FIELD(hd_mirror_t, destination, "destination", FLAT, .flags = HD_F_REQUIRED,
             .schema = &hd_destination_schema),
    HD_FIELD(hd_mirror_t, ppm, "percentage", FLAT, .schema = &percent_schema),
    {0}};

static void check_mirror(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_mirror_t *m = obj;

    (void)d;
    if (!hd_decode_has(node, "percentage"))
        m->ppm = 1000000;
}

static const hd_schema_t mirror_schema = {sizeof(hd_mirror_t), mirror_fields, NULL,
                                          check_mirror};

static void add_mirror(hd_decoder_t *d, const hd_yaml_t *node, hd_http_route_t *route)
{
    static const hd_field_t dest = HD_FIELD(hd_mirror_t, destination, "mirror", FLAT,
                                            .schema = &hd_destination_schema);
    static const hd_field_t percentage =
        HD_FIELD(hd_mirror_t, ppm, "mirrorPercentage", FLAT, .schema = &percent_schema);
    static const hd_field_t percent =
        HD_FIELD(hd_mirror_t, ppm, "mirrorPercent", INT, .min = 0, .max = 100);
    hd_mirror_t *m = hd_pool_new(d->pool, hd_mirror_t);

    hd_decode_value(d, &dest, hd_yaml_get(node, "mirror"), m);
    m->ppm = 1000000;
    if (hd_decode_has(node, "mirrorPercentage")) {
        hd_decode_value(d, &percentage, hd_yaml_get(node, "mirrorPercentage"), m);
    } else if (hd_decode_has(node, "mirrorPercent")) {
        hd_decode_value(d, &percent, hd_yaml_get(node, "mirrorPercent"), m);
        m->ppm *= 10000;
    }
    route->mirrors.items = m;
    route->mirrors.n = 1;
}

/* --- routes --- */

static const hd_field_t http_fields[] = {
    HD_FIELD(hd_http_route_t, name, "name", STR),
    HD_FIELD(hd_http_route_t, match, "match", LIST, .schema = &match_schema),
    HD_FIELD(hd_http_route_t, route, "route", LIST, .schema = &route_dest_schema),
    HD_FIELD(hd_http_route_t, redirect, "redirect", OBJ, .schema = &redirect_schema),
    HD_FIELD(hd_http_route_t, direct_response, "directResponse", OBJ,
             .schema = &direct_schema),
    HD_FIELD(hd_http_route_t, delegate, "delegate", OBJ, .schema = &delegate_schema),
    HD_FIELD(hd_http_route_t, rewrite, "rewrite", OBJ, .schema = &rewrite_schema),
    HD_FIELD(hd_http_route_t, timeout_ns, "timeout", DURATION),
    HD_FIELD(hd_http_route_t, retries, "retries", OBJ, .schema = &retry_schema),
    HD_FIELD(hd_http_route_t, fault, "fault", OBJ, .schema = &fault_schema),
    HD_FIELD(hd_http_route_t, mirrors, "mirrors", LIST, .schema = &mirror_schema),
    HD_FIELD_NONE("mirror", LATER),
    HD_FIELD_NONE("mirrorPercentage", LATER),
    HD_FIELD_NONE("mirrorPercent", LATER),
    HD_FIELD(hd_http_route_t, cors, "corsPolicy", OBJ, .schema = &cors_schema),
    HD_FIELD(hd_http_route_t, headers, "headers", FLAT, .schema = &header_ops_schema),
    {0}};

/* VS-ROUTE-14 and what belongs together */
static void check_http(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const actions[] = {"route", "redirect", "directResponse",
                                          "delegate", NULL};
    static const char *const one[][4] = {{"rewrite", "redirect", "directResponse", NULL},
                                         {"fault", "redirect", "directResponse", NULL},
                                         {"mirror", "mirrors", NULL}};
    hd_http_route_t *r = obj;

    r->line = node->line;
    hd_ignore(hd_decode_one_of(d, node, actions, true)); /* reported */
    for (size_t i = 0; i < hd_countof(one); i++) {
        if (hd_decode_has(node, one[i][0]))
            hd_ignore(hd_decode_one_of(d, node, one[i], false)); /* reported */
    }
    check_weights(d, node, &r->route);
    if (hd_decode_has(node, "mirror"))
        add_mirror(d, node, r);
    else if (hd_decode_has(node, "mirrorPercentage") ||
             hd_decode_has(node, "mirrorPercent"))
        hd_decode_error(d, node, "mirrorPercentage: without mirror");
    if (r->redirect != NULL && r->redirect->prefix_rewrite.data != NULL) {
        for (hd_each(m, r->match)) {
            if (m->uri != NULL && m->uri->kind != HD_STRMATCH_PREFIX) /* VS-RD-1 */
                hd_decode_error(d, node,
                                "redirect.prefixRewrite: needs every match's uri to be a "
                                "prefix");
        }
    }
}

static const hd_schema_t http_schema = {sizeof(hd_http_route_t), http_fields, NULL,
                                        check_http};

static void check_l4(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_l4_route_t *r = obj;

    r->line = node->line;
    check_weights(d, node, &r->route);
}

static const hd_field_t tls_fields[] = {
    HD_FIELD(hd_l4_route_t, match, "match", LIST, .flags = HD_F_REQUIRED,
             .schema = &tls_match_schema), /* VS-TLS-8 */
    HD_FIELD(hd_l4_route_t, route, "route", LIST, .flags = HD_F_REQUIRED,
             .schema = &l4_dest_schema),
    {0}};
static const hd_schema_t tls_schema = {sizeof(hd_l4_route_t), tls_fields, NULL, check_l4};
static const hd_field_t tcp_fields[] = {
    HD_FIELD(hd_l4_route_t, match, "match", LIST, .schema = &tcp_match_schema),
    HD_FIELD(hd_l4_route_t, route, "route", LIST, .flags = HD_F_REQUIRED,
             .schema = &l4_dest_schema),
    {0}};
static const hd_schema_t tcp_schema = {sizeof(hd_l4_route_t), tcp_fields, NULL, check_l4};

static const hd_field_t spec_fields[] = {
    HD_FIELD(hd_virtual_service_t, hosts, "hosts", STRS, .flags = HD_F_HOST),
    HD_FIELD(hd_virtual_service_t, gateways, "gateways", READ, .read = read_gateways),
    HD_FIELD(hd_virtual_service_t, http, "http", LIST, .schema = &http_schema),
    HD_FIELD(hd_virtual_service_t, tls, "tls", LIST, .schema = &tls_schema),
    HD_FIELD(hd_virtual_service_t, tcp, "tcp", LIST, .schema = &tcp_schema),
    HD_FIELD(hd_virtual_service_t, export_to, "exportTo", READ,
             .read = hd_read_export_to),
    {0}};

static void check_hosts(hd_decoder_t *d, const hd_yaml_t *node,
                        const hd_virtual_service_t *vs)
{
    const hd_yaml_t *hosts = hd_yaml_get(node, "hosts");

    for (size_t i = 0; i < vs->hosts.n; i++) {
        if (hd_str_eq(vs->hosts.items[i], HD_STR("*")) &&
            hd_strs_has(&vs->gateways, HD_STR("mesh")))
            hd_decode_error(d, hosts, "hosts: * is for gateways only, not for mesh");
        for (size_t j = 0; j < i; j++) {
            /* A short and a long name of one host are two hosts to Istio's webhook. */
            if (hd_str_eq(hosts->entries[i].value->text, hosts->entries[j].value->text))
                hd_decode_error(d, hosts, "hosts: %.*s is there twice",
                                HD_STR_ARG(vs->hosts.items[i]));
        }
    }
    /* TLS: SNI within the hosts (VS-TLS-1) */
    for (hd_each(route, vs->tls)) {
        for (hd_each(m, route->match)) {
            for (hd_each(sni, m->sni_hosts)) {
                bool covered = false;

                for (hd_each(host, vs->hosts))
                    covered |= hd_host_covers(*host, *sni);
                if (!covered)
                    hd_decode_error(d, hd_yaml_get(node, "tls"),
                                    "tls: sniHosts %.*s is not among the hosts",
                                    HD_STR_ARG(*sni));
            }
        }
    }
}

/* VS-7, VS-DEL-1 */
static void check_spec(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const hd_str_t mesh[] = {HD_STR_INIT("mesh")};
    hd_virtual_service_t *vs = obj;

    if (vs->hosts.n == 0) { /* a delegate */
        if (hd_decode_has(node, "gateways") || vs->tls.n > 0 || vs->tcp.n > 0)
            hd_decode_error(d, node,
                            "hosts: is missing (without hosts it is a delegate, which "
                            "has http only)");
    } else if (vs->gateways.n == 0) {
        vs->gateways = (hd_strs_t){mesh, 1};
    }
    if (vs->http.n == 0 && vs->tls.n == 0 && vs->tcp.n == 0)
        hd_decode_error(d, node, "needs one of http, tls, tcp");
    check_hosts(d, node, vs);
}

static const hd_schema_t spec_schema = {sizeof(hd_virtual_service_t), spec_fields, NULL,
                                        check_spec};
static const hd_field_t virtual_service_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .flags = HD_F_REQUIRED, .schema = &spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

const hd_kind_desc_t hd_decode_route[] = {
    {.kind = HD_KIND_VIRTUAL_SERVICE,
     .group = "networking.istio.io",
     .versions = {"v1", "v1beta1", "v1alpha3"},
     .schema = {sizeof(hd_virtual_service_t), virtual_service_fields, NULL, NULL}},
    {.group = NULL}};
