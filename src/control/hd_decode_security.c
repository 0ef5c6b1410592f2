/* AuthorizationPolicy (AP-*), PeerAuthentication (PA-*), RequestAuthentication (RA-*) and
 * Telemetry, which attach to workloads alike (ATT-*). */
#include "control/hd_decode_int.h"
#include "control/hd_model_policy.h"

/* --- attachment (ATT-1 to ATT-5) --- */

static const hd_field_t target_fields[] = {
    HD_FIELD(hd_target_ref_t, group, "group", STR),
    HD_FIELD(hd_target_ref_t, kind, "kind", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_target_ref_t, name, "name", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_target_ref_t, ns, "namespace", STR),
    {0}};

static void check_target(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const struct {
        const char *group, *kind;
    } known[] = {{"gateway.networking.k8s.io", "Gateway"},
                 {"gateway.networking.k8s.io", "GatewayClass"},
                 {"", "Service"},
                 {"core", "Service"},
                 {"networking.istio.io", "ServiceEntry"}};
    const hd_target_ref_t *t = obj;
    bool found = false;

    for (size_t i = 0; i < hd_countof(known); i++)
        found |= hd_str_eq(t->group, hd_str_c(known[i].group)) &&
                 hd_str_eq(t->kind, hd_str_c(known[i].kind));
    if (!found)
        hd_decode_error(d, node,
                        "%.*s/%.*s can't be a target: Gateway, GatewayClass, "
                        "Service, ServiceEntry can",
                        HD_STR_ARG(hd_str_sub(t->group, 0, 60)),
                        HD_STR_ARG(hd_str_sub(t->kind, 0, 60)));
    if (t->ns.len > 0 && !hd_str_eq(t->ns, d->obj->ns))
        hd_decode_error(d, node, "namespace: a target lies in the policy's own");
}

static const hd_schema_t target_schema = {sizeof(hd_target_ref_t), target_fields, NULL,
                                          check_target};

static void read_target(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    hd_target_ref_t *one = hd_pool_new(d->pool, hd_target_ref_t);
    hd_target_refs_t *list = into;

    hd_decode_map(d, &target_schema, node, one);
    list->items = one;
    list->n = 1;
}

#define ATTACH_FIELDS(S)                                                                 \
    HD_FIELD(S, selector, "selector", FLAT, .schema = &hd_selector_schema),              \
        HD_FIELD(S, targets, "targetRefs", LIST, .schema = &target_schema),              \
        HD_FIELD(S, targets, "targetRef", READ, .read = read_target)

static void check_attachment(hd_decoder_t *d, const hd_yaml_t *node,
                             const hd_target_refs_t *targets)
{
    static const char *const one[] = {"selector", "targetRefs", "targetRef", NULL};

    hd_ignore(hd_decode_one_of(d, node, one, false)); /* reported */
    if (targets->n > 16)
        hd_decode_error(d, node, "targetRefs: at most 16");
}

/* --- AuthorizationPolicy --- */

/* ns/sa or sa, ≤ 320 bytes, no wildcards (AP-FROM-4, AP-EVAL-17) */
static const char *account_form(hd_str_t s)
{
    size_t slashes = 0;

    for (size_t i = 0; i < s.len; i++) {
        slashes += s.data[i] == '/';
        if (s.data[i] == '*')
            return "must not have a *";
    }
    return slashes > 1 ? "is no namespace/account" : s.len > 320 ? "is too long" : NULL;
}

/* AP-TO-5 */
static const char *path_form(hd_str_t s)
{
    hd_str_t rest = s, part;
    bool is_template =
        hd_str_find(s, HD_STR("{*}")) >= 0 || hd_str_find(s, HD_STR("{**}")) >= 0;
    bool ended = false;

    if (!is_template)
        return NULL;
    while (hd_str_split(&rest, '/', &part)) {
        if (ended && (hd_str_eq(part, HD_STR("{*}")) || hd_str_eq(part, HD_STR("{**}"))))
            return "has something after {**}: it must be the last operator";
        if (hd_str_eq(part, HD_STR("{*}")))
            continue;
        if (hd_str_eq(part, HD_STR("{**}"))) {
            ended = true;
            continue;
        }
        if (hd_str_find_char(part, '{') >= 0 || hd_str_find_char(part, '}') >= 0 ||
            hd_str_find_char(part, '*') >= 0)
            return "mixes a template with other text: {*} and {**} are whole segments";
    }
    return NULL;
}

#define VALUES(S, member, yaml, not_yaml, check)                                         \
    HD_FIELD(S, member.is, yaml, STRS, .form = check),                                   \
        HD_FIELD(S, member.is_not, not_yaml, STRS, .form = check)

static const hd_field_t source_fields[] = {
    VALUES(hd_authz_source_t, principals, "principals", "notPrincipals", NULL),
    VALUES(hd_authz_source_t, request_principals, "requestPrincipals",
           "notRequestPrincipals", NULL),
    VALUES(hd_authz_source_t, namespaces, "namespaces", "notNamespaces", NULL),
    VALUES(hd_authz_source_t, service_accounts, "serviceAccounts", "notServiceAccounts",
           account_form),
    VALUES(hd_authz_source_t, ip_blocks, "ipBlocks", "notIpBlocks", hd_form_cidr),
    VALUES(hd_authz_source_t, remote_ip_blocks, "remoteIpBlocks", "notRemoteIpBlocks",
           hd_form_cidr),
    VALUES(hd_authz_source_t, trust_domains, "trustDomains", "notTrustDomains", NULL),
    {0}};

static bool is_given(const hd_values_t *v)
{
    return v->is.n > 0 || v->is_not.n > 0;
}

static void check_source(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_authz_source_t *s = obj;

    if (!is_given(&s->principals) && !is_given(&s->request_principals) &&
        !is_given(&s->namespaces) && !is_given(&s->service_accounts) &&
        !is_given(&s->ip_blocks) && !is_given(&s->remote_ip_blocks) &&
        !is_given(&s->trust_domains)) /* AP-FROM-14 */
        hd_decode_error(d, node,
                        "is empty: it would match anyone; leave from out if that "
                        "is meant");
    if (is_given(&s->service_accounts) &&
        (is_given(&s->principals) || is_given(&s->namespaces))) /* AP-FROM-12 */
        hd_decode_error(d, node, "serviceAccounts excludes principals and namespaces");
    if (s->service_accounts.is.n > 16 || s->service_accounts.is_not.n > 16)
        hd_decode_error(d, node, "serviceAccounts: at most 16");
}

static const hd_schema_t source_schema = {sizeof(hd_authz_source_t), source_fields, NULL,
                                          check_source};
static const hd_field_t from_fields[] = {{.name = "source",
                                          .type = HD_D_FLAT,
                                          .flags = HD_F_REQUIRED,
                                          .schema = &source_schema},
                                         {0}};
static const hd_schema_t from_schema = {sizeof(hd_authz_source_t), from_fields, NULL,
                                        NULL};

static const hd_field_t operation_fields[] = {
    VALUES(hd_authz_operation_t, hosts, "hosts", "notHosts", NULL),
    VALUES(hd_authz_operation_t, ports, "ports", "notPorts", hd_form_port),
    VALUES(hd_authz_operation_t, methods, "methods", "notMethods", NULL),
    VALUES(hd_authz_operation_t, paths, "paths", "notPaths", path_form),
    {0}};

static void check_operation(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_authz_operation_t *o = obj;

    if (!is_given(&o->hosts) && !is_given(&o->ports) && !is_given(&o->methods) &&
        !is_given(&o->paths)) /* AP-TO-9 */
        hd_decode_error(d, node,
                        "is empty: it would match anything; leave to out if that "
                        "is meant");
}

static const hd_schema_t operation_schema = {sizeof(hd_authz_operation_t),
                                             operation_fields, NULL, check_operation};
static const hd_field_t to_fields[] = {{.name = "operation",
                                        .type = HD_D_FLAT,
                                        .flags = HD_F_REQUIRED,
                                        .schema = &operation_schema},
                                       {0}};
static const hd_schema_t to_schema = {sizeof(hd_authz_operation_t), to_fields, NULL,
                                      NULL};

/* --- when (AP-WHEN-*) --- */

static const char *const plain_keys[] = {"source.ip",
                                         "remote.ip",
                                         "source.namespace",
                                         "source.principal",
                                         "source.serviceAccount",
                                         "source.trustDomain",
                                         "request.auth.principal",
                                         "request.auth.audiences",
                                         "request.auth.presenter",
                                         "destination.ip",
                                         "destination.port",
                                         "connection.sni",
                                         "request.headers[NAME]",
                                         "request.auth.claims[NAME]",
                                         NULL};

/* "request.headers[x]" with <prefix> "request.headers": <nested>: [a][b] too. */
static bool is_indexed(hd_str_t key, const char *prefix, bool nested)
{
    hd_str_t rest;
    size_t n = 0;

    if (!hd_str_has_prefix(key, hd_str_c(prefix)))
        return false;
    rest = hd_str_sub(key, strlen(prefix), key.len);
    while (rest.len > 0) {
        ssize_t end = hd_str_find_char(rest, ']');

        if (rest.data[0] != '[' || end < 2)
            return false;
        rest = hd_str_sub(rest, (size_t)end + 1, rest.len);
        n++;
    }
    return n == 1 || (nested && n > 1);
}

static bool is_known_key(hd_str_t key)
{
    for (size_t i = 0; plain_keys[i] != NULL; i++) {
        if (strchr(plain_keys[i], '[') == NULL && hd_str_eq(key, hd_str_c(plain_keys[i])))
            return true;
    }
    return is_indexed(key, "request.headers", false) ||
           is_indexed(key, "request.auth.claims", true) ||
           (hd_str_has_prefix(key, HD_STR("experimental.envoy.filters.")) &&
            hd_str_has_suffix(key, HD_STR("]")));
}

static const hd_field_t condition_fields[] = {
    HD_FIELD(hd_authz_condition_t, key, "key", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_authz_condition_t, values.is, "values", STRS),
    HD_FIELD(hd_authz_condition_t, values.is_not, "notValues", STRS),
    {0}};

static void check_condition(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_authz_condition_t *c = obj;
    const hd_strs_t *lists[] = {&c->values.is, &c->values.is_not};
    const char *(*form)(hd_str_t) = NULL;

    if (!is_known_key(c->key)) { /* AP-WHEN-16 */
        hd_str_t choice = hd_decode_choice(d->scratch, c->key, plain_keys, false);

        hd_decode_error(d, node, "key: unknown attribute %.*s: %.*s",
                        HD_STR_ARG(hd_str_sub(c->key, 0, 60)), HD_STR_ARG(choice));
    }
    if (!is_given(&c->values)) /* AP-WHEN-17 */
        hd_decode_error(d, node, "needs values or notValues");
    if (hd_str_has_suffix(c->key, HD_STR(".ip")))
        form = hd_form_cidr;
    else if (hd_str_eq(c->key, HD_STR("destination.port")))
        form = hd_form_port;
    for (size_t l = 0; l < hd_countof(lists) && form != NULL; l++) {
        for (hd_each(v, *lists[l])) {
            if (form(*v) != NULL)
                hd_decode_error(d, node, "\"%.*s\" %s", HD_STR_ARG(hd_str_sub(*v, 0, 60)),
                                form(*v));
        }
    }
}

static const hd_schema_t condition_schema = {sizeof(hd_authz_condition_t),
                                             condition_fields, NULL, check_condition};

static const hd_field_t rule_fields[] = {
    HD_FIELD(hd_authz_rule_t, from, "from", LIST, .schema = &from_schema),
    HD_FIELD(hd_authz_rule_t, to, "to", LIST, .schema = &to_schema),
    HD_FIELD(hd_authz_rule_t, when, "when", LIST, .schema = &condition_schema),
    {0}};

static void check_rule(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_authz_rule_t *r = obj;

    if (r->from.n > 512 || r->to.n > 512) /* AP-EVAL-17 */
        hd_decode_error(d, node, "from, to: at most 512 each");
    /* An empty list is no missing one: it would mean any while nobody is named. */
    if (hd_decode_has(node, "from") && r->from.n == 0)
        hd_decode_error(d, node, "from: must not be empty");
    if (hd_decode_has(node, "to") && r->to.n == 0)
        hd_decode_error(d, node, "to: must not be empty");
}

static const hd_schema_t rule_schema = {sizeof(hd_authz_rule_t), rule_fields, NULL,
                                        check_rule};

static const hd_enum_t actions[] = {{"ALLOW", HD_AUTHZ_ALLOW},
                                    {"DENY", HD_AUTHZ_DENY},
                                    {"AUDIT", HD_AUTHZ_AUDIT},
                                    {"CUSTOM", HD_AUTHZ_CUSTOM},
                                    {0}};
static const hd_field_t provider_fields[] = {
    {.name = "name", .type = HD_D_STR, .flags = HD_F_REQUIRED}, {0}};
static const hd_schema_t provider_schema = {sizeof(hd_str_t), provider_fields, NULL,
                                            NULL};
static const hd_field_t authz_spec_fields[] = {
    ATTACH_FIELDS(hd_authz_policy_t),
    HD_FIELD(hd_authz_policy_t, action, "action", ENUM, .values = actions),
    HD_FIELD(hd_authz_policy_t, provider, "provider", FLAT, .schema = &provider_schema),
    HD_FIELD(hd_authz_policy_t, rules, "rules", LIST, .schema = &rule_schema),
    {0}};

/* AP-CUST-2: what comes later in the chain than CUSTOM can't be asked for. */
static void check_custom(hd_decoder_t *d, const hd_yaml_t *node,
                         const hd_authz_policy_t *p)
{
    for (hd_each(r, p->rules)) {
        for (hd_each(s, r->from)) {
            if (is_given(&s->principals) || is_given(&s->request_principals) ||
                is_given(&s->namespaces) || is_given(&s->service_accounts) ||
                is_given(&s->trust_domains))
                hd_decode_error(d, node,
                                "rules: CUSTOM knows ipBlocks and remoteIpBlocks "
                                "in source only");
        }
        for (hd_each(w, r->when)) {
            if (hd_str_has_prefix(w->key, HD_STR("request.auth.")) ||
                (hd_str_has_prefix(w->key, HD_STR("source.")) &&
                 !hd_str_eq(w->key, HD_STR("source.ip"))))
                hd_decode_error(d, node, "rules: CUSTOM can't ask for %.*s",
                                HD_STR_ARG(w->key));
        }
    }
}

static void check_authz(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_authz_policy_t *p = obj;
    hd_str_t dry = hd_labels_get(&d->obj->annotations, HD_STR("istio.io/dry-run"));

    check_attachment(d, node, &p->targets);
    if (p->rules.n > 512)
        hd_decode_error(d, node, "rules: at most 512");
    if (p->rules.n == 0 && (p->action == HD_AUTHZ_DENY || p->action == HD_AUTHZ_CUSTOM))
        hd_decode_error(d, node,
                        "rules: is missing: without rules it never matches; "
                        "[{}] matches all");                     /* AP-EVAL-5 */
    if ((p->action == HD_AUTHZ_CUSTOM) != (p->provider.len > 0)) /* AP-CUST-1 */
        hd_decode_error(d, node,
                        p->provider.len > 0
                            ? "provider: only with action CUSTOM"
                            : "provider: is missing, and action is CUSTOM");
    if (p->action == HD_AUTHZ_CUSTOM)
        check_custom(d, node, p);
    /* As Go reads a flag. */
    p->dry_run = hd_str_eq(dry, HD_STR("1")) || hd_str_eq_nocase(dry, HD_STR("t")) ||
                 hd_str_eq_nocase(dry, HD_STR("true"));
}

static const hd_schema_t authz_spec_schema = {sizeof(hd_authz_policy_t),
                                              authz_spec_fields, NULL, check_authz};
static const hd_field_t authz_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .schema = &authz_spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

/* --- PeerAuthentication --- */

static const hd_enum_t mtls_modes[] = {{"UNSET", HD_MTLS_UNSET},
                                       {"DISABLE", HD_MTLS_DISABLE},
                                       {"PERMISSIVE", HD_MTLS_PERMISSIVE},
                                       {"STRICT", HD_MTLS_STRICT},
                                       {0}};
static const hd_field_t mtls_fields[] = {
    {.name = "mode", .type = HD_D_ENUM, .values = mtls_modes}, {0}};
static const hd_schema_t mtls_schema = {sizeof(hd_mtls_mode_t), mtls_fields, NULL, NULL};

/* {9080: {mode: STRICT}} (PA-3) */
static void read_port_mtls(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    hd_peer_auth_t *p = hd_container_of(into, hd_peer_auth_t, ports);
    hd_port_mtls_t *ports;
    uint64_t number;

    if (node->type != HD_YAML_MAP || node->n == 0) {
        hd_decode_error(d, node, "must be a map of ports, and not empty");
        return;
    }
    ports = hd_pool_new_n(d->pool, hd_port_mtls_t, node->n);
    for (uint32_t i = 0; i < node->n; i++) {
        const hd_yaml_entry_t *e = &node->entries[i];

        if (!hd_str_to_u64(e->key, 65535, &number) || number == 0) {
            hd_decode_error(d, e->value, "\"%.*s\" is no port: 1 to 65535",
                            HD_STR_ARG(hd_str_sub(e->key, 0, 40)));
            continue;
        }
        ports[i].port = (int64_t)number;
        hd_decode_push(d, e->key.data); /* zero-terminated: hd_str_dup */
        if (!hd_yaml_is_null(e->value))
            hd_decode_map(d, &mtls_schema, e->value, &ports[i].mode);
        hd_decode_pop(d);
    }
    p->ports.items = ports;
    p->ports.n = node->n;
}

static const hd_field_t peer_spec_fields[] = {
    HD_FIELD(hd_peer_auth_t, selector, "selector", FLAT, .schema = &hd_selector_schema),
    HD_FIELD(hd_peer_auth_t, mode, "mtls", FLAT, .schema = &mtls_schema),
    HD_FIELD(hd_peer_auth_t, ports, "portLevelMtls", READ, .read = read_port_mtls),
    {0}};

static void check_peer(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_peer_auth_t *p = obj;

    if (p->ports.n > 0 && p->selector.n == 0) /* PA-8 */
        hd_decode_error(d, hd_yaml_get(node, "portLevelMtls"),
                        "portLevelMtls: needs a selector");
}

static const hd_schema_t peer_spec_schema = {sizeof(hd_peer_auth_t), peer_spec_fields,
                                             NULL, check_peer};
static const hd_field_t peer_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .schema = &peer_spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

/* --- RequestAuthentication --- */

static const char *jwks_uri_form(hd_str_t s)
{
    bool http = hd_str_has_prefix(s, HD_STR("http://")) && s.len > 7;
    bool https = hd_str_has_prefix(s, HD_STR("https://")) && s.len > 8;

    return s.len > 2048    ? "is longer than 2048 bytes"
           : http || https ? NULL
                           : "must begin with http:// or https:// and a host";
}

static const hd_field_t jwt_header_fields[] = {
    HD_FIELD(hd_jwt_header_t, name, "name", STR, .flags = HD_F_REQUIRED,
             .form = hd_form_header),
    HD_FIELD(hd_jwt_header_t, prefix, "prefix", STR),
    {0}};
static const hd_schema_t jwt_header_schema = {sizeof(hd_jwt_header_t), jwt_header_fields,
                                              NULL, NULL};
static const hd_field_t jwt_claim_fields[] = {
    HD_FIELD(hd_jwt_claim_t, header, "header", STR, .flags = HD_F_REQUIRED,
             .form = hd_form_header),
    HD_FIELD(hd_jwt_claim_t, claim, "claim", STR, .flags = HD_F_REQUIRED),
    {0}};
static const hd_schema_t jwt_claim_schema = {sizeof(hd_jwt_claim_t), jwt_claim_fields,
                                             NULL, NULL};
static const hd_field_t jwt_rule_fields[] = {
    HD_FIELD(hd_jwt_rule_t, issuer, "issuer", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_jwt_rule_t, audiences, "audiences", STRS),
    HD_FIELD(hd_jwt_rule_t, jwks_uri, "jwksUri", STR, .form = jwks_uri_form),
    HD_FIELD(hd_jwt_rule_t, jwks, "jwks", STR),
    HD_FIELD(hd_jwt_rule_t, from_headers, "fromHeaders", LIST,
             .schema = &jwt_header_schema),
    HD_FIELD(hd_jwt_rule_t, from_params, "fromParams", STRS),
    HD_FIELD(hd_jwt_rule_t, from_cookies, "fromCookies", STRS),
    HD_FIELD(hd_jwt_rule_t, output_payload_to_header, "outputPayloadToHeader", STR,
             .form = hd_form_header),
    HD_FIELD(hd_jwt_rule_t, output_claims, "outputClaimToHeaders", LIST,
             .schema = &jwt_claim_schema),
    HD_FIELD(hd_jwt_rule_t, forward_original_token, "forwardOriginalToken", BOOL),
    HD_FIELD(hd_jwt_rule_t, timeout_ns, "timeout", DURATION, .min = 1000000),
    HD_FIELD(hd_jwt_rule_t, space_delimited_claims, "spaceDelimitedClaims", STRS),
    {0}};

static void check_jwt_rule(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const one[] = {"jwksUri", "jwks", NULL};

    (void)obj;
    hd_ignore(hd_decode_one_of(d, node, one, false)); /* reported (RA-5) */
}

static const hd_schema_t jwt_rule_schema = {sizeof(hd_jwt_rule_t), jwt_rule_fields, NULL,
                                            check_jwt_rule};
static const hd_field_t request_spec_fields[] = {
    ATTACH_FIELDS(hd_request_auth_t),
    HD_FIELD(hd_request_auth_t, rules, "jwtRules", LIST, .schema = &jwt_rule_schema),
    {0}};

static void check_request(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    check_attachment(d, node, &((hd_request_auth_t *)obj)->targets);
}

static const hd_schema_t request_spec_schema = {sizeof(hd_request_auth_t),
                                                request_spec_fields, NULL, check_request};
static const hd_field_t request_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .schema = &request_spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

/* --- Telemetry --- */

static const hd_field_t telemetry_spec_fields[] = {ATTACH_FIELDS(hd_telemetry_t),
                                                   HD_FIELD_NONE("tracing", SKIP),
                                                   HD_FIELD_NONE("metrics", SKIP),
                                                   HD_FIELD_NONE("accessLogging", SKIP),
                                                   {0}};

static void check_telemetry(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    check_attachment(d, node, &((hd_telemetry_t *)obj)->targets);
}

static const hd_schema_t telemetry_spec_schema = {
    sizeof(hd_telemetry_t), telemetry_spec_fields, NULL, check_telemetry};
static const hd_field_t telemetry_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .schema = &telemetry_spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

const hd_kind_desc_t hd_decode_security[] = {
    {.kind = HD_KIND_AUTHORIZATION_POLICY,
     .group = "security.istio.io",
     .versions = {"v1", "v1beta1"},
     .schema = {sizeof(hd_authz_policy_t), authz_fields, NULL, NULL}},
    {.kind = HD_KIND_PEER_AUTHENTICATION,
     .group = "security.istio.io",
     .versions = {"v1", "v1beta1"},
     .schema = {sizeof(hd_peer_auth_t), peer_fields, NULL, NULL}},
    {.kind = HD_KIND_REQUEST_AUTHENTICATION,
     .group = "security.istio.io",
     .versions = {"v1", "v1beta1"},
     .schema = {sizeof(hd_request_auth_t), request_fields, NULL, NULL},
     .not_supported = true},
    {.kind = HD_KIND_TELEMETRY,
     .group = "telemetry.istio.io",
     .versions = {"v1", "v1alpha1"},
     .schema = {sizeof(hd_telemetry_t), telemetry_fields, NULL, NULL},
     .not_supported = true},
    {.group = NULL}};
