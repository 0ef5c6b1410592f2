/* AuthorizationPolicies to RBAC filters (istio-to-xds §11; AP-*). A rule that can't be
 * compiled is left out, its policy stays: an ALLOW without rules allows nothing
 * (AP-EVAL-16). */
#include "control/hd_translate_int.h"
#include "ext/http_rbac.pb-c.h"
#include "ext/net_rbac.pb-c.h"
#include "ext/uri_template.pb-c.h"

typedef PbRbac__Permission permission_t;
typedef PbRbac__Principal principal_t;

/* Where rules are for. On TCP nothing of a request is known (AP-TCP-1). */
typedef enum {
    FOR_HTTP,
    FOR_TCP_ALLOW, /* a rule that asks for something of a request is left out (AP-TCP-2)
                    */
    FOR_TCP_DENY,  /* only what it asks of the request is; the rest denies (AP-TCP-3) */
} use_t;

/* --- strings --- */

/* "abc", "abc*", "*abc", "*" (AP-VAL-1) behind <before>. */
static PbMatcher__StringMatcher *string_form(hd_tr_t *t, hd_str_t v, const char *before)
{
    PbMatcher__StringMatcher *m;

    if (hd_str_eq(v, HD_STR("*"))) {
        m = HD_TR_NEW(t, PbMatcher__StringMatcher, pb_matcher__string_matcher);
        m->match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
        m->safe_regex = hd_tr_regex(t, ".+");
    } else if (v.data[v.len - 1] == '*') {
        m = hd_tr_prefix(t, hd_tr_printf(t, "%s%.*s", before, (int)v.len - 1, v.data));
    } else if (v.data[0] == '*') {
        m = HD_TR_NEW(t, PbMatcher__StringMatcher, pb_matcher__string_matcher);
        if (before[0] != 0) { /* AP-FROM-8 */
            m->match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
            m->safe_regex = hd_tr_regex(
                t, hd_tr_printf(t, "%s.*%.*s", before, (int)v.len - 1, v.data + 1));
        } else {
            m->match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SUFFIX;
            m->suffix = hd_tr_text(t, hd_str_sub(v, 1, v.len));
        }
    } else {
        m = hd_tr_exact(t, hd_tr_printf(t, "%s%.*s", before, HD_STR_ARG(v)));
    }
    return m;
}

static PbRoute__HeaderMatcher *header(hd_tr_t *t, const char *name, hd_str_t v,
                                      bool ignore_case)
{
    PbRoute__HeaderMatcher *h =
        HD_TR_NEW(t, PbRoute__HeaderMatcher, pb_route__header_matcher);

    h->name = (char *)(uintptr_t)name;
    h->header_match_specifier_case =
        PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH;
    h->string_match = string_form(t, v, "");
    h->string_match->ignore_case = ignore_case;
    return h;
}

static PbMatcher__PathMatcher *path(hd_tr_t *t, hd_str_t v)
{
    PbMatcher__PathMatcher *p =
        HD_TR_NEW(t, PbMatcher__PathMatcher, pb_matcher__path_matcher);

    p->rule_case = PB_MATCHER__PATH_MATCHER__RULE_PATH;
    p->path = string_form(t, v, "");
    return p;
}

/* An address or range; NULL: it is none. */
static PbCore__CidrRange *cidr(hd_tr_t *t, hd_str_t v)
{
    ssize_t slash = hd_str_find_char(v, '/');
    PbCore__CidrRange *c = HD_TR_NEW(t, PbCore__CidrRange, pb_core__cidr_range);
    uint64_t bits = hd_str_find_char(v, ':') >= 0 ? 128 : 32;

    if (slash >= 0 &&
        !hd_str_to_u64(hd_str_sub(v, (size_t)slash + 1, v.len), bits, &bits))
        return NULL;
    c->address_prefix = hd_tr_text(t, slash < 0 ? v : hd_str_sub(v, 0, (size_t)slash));
    c->prefix_len = hd_tr_u32(t, (int64_t)bits);
    return c;
}

/* Literal text in a regular expression. */
static hd_str_t quoted(hd_tr_t *t, hd_str_t s, const char *for_star)
{
    size_t star = strlen(for_star), n = 0;
    char *out = hd_pool_alloc_unaligned(t->pool, s.len * (star + 2) + 1);

    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] == '*') {
            memcpy(out + n, for_star, star);
            n += star;
            continue;
        }
        if (strchr("\\.+?()|[]{}^$", s.data[i]) != NULL)
            out[n++] = '\\';
        out[n++] = s.data[i];
    }
    return hd_str_n(out, n);
}

/* --- principals --- */

static principal_t *new_principal(hd_tr_t *t, PbRbac__Principal__IdentifierCase which)
{
    principal_t *p = HD_TR_NEW(t, principal_t, pb_rbac__principal);

    p->identifier_case = which;
    return p;
}

static principal_t *authenticated(hd_tr_t *t, PbMatcher__StringMatcher *m)
{
    principal_t *p = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_AUTHENTICATED);

    p->authenticated =
        HD_TR_NEW(t, PbRbac__Principal__Authenticated, pb_rbac__principal__authenticated);
    p->authenticated->principal_name = m;
    return p;
}

static principal_t *authenticated_regex(hd_tr_t *t, const char *regex)
{
    PbMatcher__StringMatcher *m =
        HD_TR_NEW(t, PbMatcher__StringMatcher, pb_matcher__string_matcher);

    m->match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
    m->safe_regex = hd_tr_regex(t, regex);
    return authenticated(t, m);
}

static principal_t *by_principal(hd_tr_t *t, hd_str_t v)
{
    return authenticated(t,
                         string_form(t, v, hd_str_eq(v, HD_STR("*")) ? "" : "spiffe://"));
}

static principal_t *by_namespace(hd_tr_t *t, hd_str_t v) /* AP-FROM-9 */
{
    hd_str_t q = quoted(t, v, ".*");

    return authenticated_regex(t, hd_tr_printf(t, ".*/ns/%.*s/.*", HD_STR_ARG(q)));
}

static principal_t *by_account(hd_tr_t *t, hd_str_t ns,
                               hd_str_t v) /* AP-FROM-4, AP-FROM-10 */
{
    ssize_t slash = hd_str_find_char(v, '/');
    hd_str_t account = slash < 0 ? v : hd_str_sub(v, (size_t)slash + 1, v.len);

    ns = quoted(t, slash < 0 ? ns : hd_str_sub(v, 0, (size_t)slash), ".*");
    account = quoted(t, account, ".*");
    return authenticated_regex(t,
                               hd_tr_printf(t, "spiffe://.+/ns/%.*s/(.+/|)sa/%.*s(/.+)?",
                                            HD_STR_ARG(ns), HD_STR_ARG(account)));
}

static principal_t *by_trust_domain(hd_tr_t *t, hd_str_t v) /* AP-FROM-11 */
{
    hd_str_t q;

    if (hd_str_eq(v, HD_STR("*")))
        return authenticated(t, hd_tr_prefix(t, "spiffe://"));
    if (hd_str_find_char(v, '*') < 0)
        return authenticated(
            t, hd_tr_prefix(t, hd_tr_printf(t, "spiffe://%.*s/", HD_STR_ARG(v))));
    q = quoted(t, v, "[^/]*");
    return authenticated_regex(t, hd_tr_printf(t, "spiffe://%.*s/.*", HD_STR_ARG(q)));
}

static principal_t *by_ip(hd_tr_t *t, hd_str_t v, bool is_remote)
{
    principal_t *p =
        new_principal(t, is_remote ? PB_RBAC__PRINCIPAL__IDENTIFIER_REMOTE_IP
                                   : PB_RBAC__PRINCIPAL__IDENTIFIER_DIRECT_REMOTE_IP);
    PbCore__CidrRange *range = cidr(t, v);

    if (is_remote)
        p->remote_ip = range;
    else
        p->direct_remote_ip = range;
    return range != NULL ? p : NULL;
}

typedef enum {
    OF_PRINCIPAL,
    OF_NAMESPACE,
    OF_ACCOUNT,
    OF_TRUST_DOMAIN,
    OF_IP,
    OF_REMOTE_IP,
    OF_HEADER
} source_kind_t;

static principal_t *one_source(hd_tr_t *t, source_kind_t kind, hd_str_t policy_ns,
                               const char *name, hd_str_t v)
{
    principal_t *p;

    switch (kind) {
    case OF_PRINCIPAL:
        return by_principal(t, v);
    case OF_NAMESPACE:
        return by_namespace(t, v);
    case OF_ACCOUNT:
        return by_account(t, policy_ns, v);
    case OF_TRUST_DOMAIN:
        return by_trust_domain(t, v);
    case OF_IP:
        return by_ip(t, v, false);
    case OF_REMOTE_IP:
        return by_ip(t, v, true);
    default:
        p = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_HEADER);
        p->header = header(t, name, v, false);
        return p;
    }
}

/* Values or-ed; NULL: one of them isn't right. */
static principal_t *any_source(hd_tr_t *t, source_kind_t kind, hd_str_t policy_ns,
                               const char *name, const hd_strs_t *values)
{
    principal_t *p = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_OR_IDS);

    p->or_ids = HD_TR_NEW(t, PbRbac__Principal__Set, pb_rbac__principal__set);
    for (hd_each(v, *values)) {
        principal_t *one = v->len > 0 ? one_source(t, kind, policy_ns, name, *v) : NULL;

        if (one == NULL)
            return NULL;
        HD_TR_ADD(t, p->or_ids, ids, one);
    }
    return p;
}

static bool add_source(hd_tr_t *t, PbRbac__Principal__Set *all, source_kind_t kind,
                       hd_str_t policy_ns, const char *name, const hd_values_t *values)
{
    principal_t *p;

    if (values->is.n > 0) {
        p = any_source(t, kind, policy_ns, name, &values->is);
        if (p == NULL)
            return false;
        HD_TR_ADD(t, all, ids, p);
    }
    if (values->is_not.n > 0) {
        principal_t *not = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_NOT_ID);

        p = any_source(t, kind, policy_ns, name, &values->is_not);
        if (p == NULL)
            return false;
        not ->not_id = p;
        HD_TR_ADD(t, all, ids, not );
    }
    return true;
}

static bool is_given(const hd_values_t *v)
{
    return v->is.n + v->is_not.n > 0;
}

/* Nobody has shown a token that was checked (there is no JWT filter): no value fits, and
 * what must not fit doesn't. So an ALLOW that asks for one allows nobody, and a DENY of
 * all without one denies all. */
static void add_absent(hd_tr_t *t, PbRbac__Principal__Set *all, const hd_values_t *values)
{
    principal_t *any = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_ANY);
    principal_t *none = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_NOT_ID);

    if (values->is.n == 0)
        return;
    any->any = true;
    none->not_id = any;
    HD_TR_ADD(t, all, ids, none);
}

/* Something of a request: whether the rule stays, and in *counts whether the field does.
 */
static bool http_only(use_t use, const hd_values_t *values, bool *counts)
{
    *counts = is_given(values) && use == FOR_HTTP;
    return !is_given(values) || use != FOR_TCP_ALLOW;
}

static bool add_from(hd_tr_t *t, use_t use, PbRbac__Principal__Set *all, hd_str_t ns,
                     const hd_authz_source_t *s)
{
    bool counts;

    if (!http_only(use, &s->request_principals, &counts))
        return false;
    if (counts)
        add_absent(t, all, &s->request_principals);
    return add_source(t, all, OF_PRINCIPAL, ns, NULL, &s->principals) &&
           add_source(t, all, OF_NAMESPACE, ns, NULL, &s->namespaces) &&
           add_source(t, all, OF_ACCOUNT, ns, NULL, &s->service_accounts) &&
           add_source(t, all, OF_TRUST_DOMAIN, ns, NULL, &s->trust_domains) &&
           add_source(t, all, OF_IP, ns, NULL, &s->ip_blocks) &&
           add_source(t, all, OF_REMOTE_IP, ns, NULL, &s->remote_ip_blocks);
}

/* --- permissions --- */

static permission_t *new_permission(hd_tr_t *t, PbRbac__Permission__RuleCase which)
{
    permission_t *p = HD_TR_NEW(t, permission_t, pb_rbac__permission);

    p->rule_case = which;
    return p;
}

typedef enum {
    OF_HOST,
    OF_PORT,
    OF_METHOD,
    OF_PATH,
    OF_SNI,
    OF_DEST_IP
} operation_kind_t;

/* "{*}" and "{**}" of Istio are "*" and "**" of the URI template (AP-TO-5). */
static permission_t *by_template(hd_tr_t *t, hd_str_t v)
{
    PbUriTemplate__UriTemplateMatchConfig *c =
        HD_TR_NEW(t, PbUriTemplate__UriTemplateMatchConfig,
                  pb_uri_template__uri_template_match_config);
    permission_t *p = new_permission(t, PB_RBAC__PERMISSION__RULE_URI_TEMPLATE);
    char *out = hd_tr_text(t, v);
    size_t n = 0;

    for (size_t i = 0; i < v.len; i++) {
        if (v.data[i] != '{' && v.data[i] != '}')
            out[n++] = v.data[i];
    }
    out[n] = 0;
    c->path_template = out;
    p->uri_template =
        HD_TR_NEW(t, PbCore__TypedExtensionConfig, pb_core__typed_extension_config);
    p->uri_template->name = "uri-template";
    p->uri_template->typed_config = hd_tr_any(t, c);
    return p;
}

static permission_t *one_operation(hd_tr_t *t, operation_kind_t kind, hd_str_t v)
{
    permission_t *p;
    uint64_t port;

    switch (kind) {
    case OF_HOST:
        p = new_permission(t, PB_RBAC__PERMISSION__RULE_HEADER);
        p->header = header(t, ":authority", v, true);
        return p;
    case OF_METHOD:
        p = new_permission(t, PB_RBAC__PERMISSION__RULE_HEADER);
        p->header = header(t, ":method", v, false);
        return p;
    case OF_PATH:
        if (hd_str_find(v, HD_STR("{*")) >= 0)
            return by_template(t, v);
        p = new_permission(t, PB_RBAC__PERMISSION__RULE_URL_PATH);
        p->url_path = path(t, v);
        return p;
    case OF_PORT:
        if (!hd_str_to_u64(v, 65535, &port))
            return NULL;
        p = new_permission(t, PB_RBAC__PERMISSION__RULE_DESTINATION_PORT);
        p->destination_port = (uint32_t)port;
        return p;
    case OF_SNI:
        p = new_permission(t, PB_RBAC__PERMISSION__RULE_REQUESTED_SERVER_NAME);
        p->requested_server_name = string_form(t, v, "");
        return p;
    default:
        p = new_permission(t, PB_RBAC__PERMISSION__RULE_DESTINATION_IP);
        p->destination_ip = cidr(t, v);
        return p->destination_ip != NULL ? p : NULL;
    }
}

static permission_t *any_operation(hd_tr_t *t, operation_kind_t kind,
                                   const hd_strs_t *values)
{
    permission_t *p = new_permission(t, PB_RBAC__PERMISSION__RULE_OR_RULES);

    p->or_rules = HD_TR_NEW(t, PbRbac__Permission__Set, pb_rbac__permission__set);
    for (hd_each(v, *values)) {
        permission_t *one = v->len > 0 ? one_operation(t, kind, *v) : NULL;

        if (one == NULL)
            return NULL;
        HD_TR_ADD(t, p->or_rules, rules, one);
    }
    return p;
}

static bool add_operation(hd_tr_t *t, PbRbac__Permission__Set *all, operation_kind_t kind,
                          const hd_values_t *values)
{
    permission_t *p;

    if (values->is.n > 0) {
        p = any_operation(t, kind, &values->is);
        if (p == NULL)
            return false;
        HD_TR_ADD(t, all, rules, p);
    }
    if (values->is_not.n > 0) {
        permission_t *not = new_permission(t, PB_RBAC__PERMISSION__RULE_NOT_RULE);

        p = any_operation(t, kind, &values->is_not);
        if (p == NULL)
            return false;
        not ->not_rule = p;
        HD_TR_ADD(t, all, rules, not );
    }
    return true;
}

static bool add_http_operation(hd_tr_t *t, use_t use, PbRbac__Permission__Set *all,
                               operation_kind_t kind, const hd_values_t *values)
{
    bool counts;

    if (!http_only(use, values, &counts))
        return false;
    return !counts || add_operation(t, all, kind, values);
}

static bool add_to(hd_tr_t *t, use_t use, PbRbac__Permission__Set *all,
                   const hd_authz_operation_t *o)
{
    return add_http_operation(t, use, all, OF_HOST, &o->hosts) &&
           add_http_operation(t, use, all, OF_METHOD, &o->methods) &&
           add_http_operation(t, use, all, OF_PATH, &o->paths) &&
           add_operation(t, all, OF_PORT, &o->ports);
}

/* --- conditions (AP-WHEN-*) --- */

typedef struct {
    PbRbac__Permission__Set *permissions;
    PbRbac__Principal__Set *principals;
} rule_parts_t;

static bool add_when(hd_tr_t *t, use_t use, rule_parts_t *r, hd_str_t ns,
                     const hd_authz_condition_t *c)
{
    static const struct {
        const char *key;
        source_kind_t kind;
    } sources[] = {{"source.ip", OF_IP},
                   {"remote.ip", OF_REMOTE_IP},
                   {"source.namespace", OF_NAMESPACE},
                   {"source.principal", OF_PRINCIPAL},
                   {"source.serviceAccount", OF_ACCOUNT},
                   {"source.trustDomain", OF_TRUST_DOMAIN}};

    for (unsigned i = 0; i < hd_countof(sources); i++) {
        if (hd_str_eq(c->key, hd_str_c(sources[i].key)))
            return add_source(t, r->principals, sources[i].kind, ns, NULL, &c->values);
    }
    if (hd_str_has_prefix(c->key, HD_STR("request."))) {
        bool counts;

        if (!http_only(use, &c->values, &counts))
            return false;
        if (!counts)
            return true;
    }
    if (hd_str_has_prefix(c->key, HD_STR("request.auth."))) {
        add_absent(t, r->principals, &c->values);
        return true;
    }
    if (hd_str_has_prefix(c->key, HD_STR("request.headers[")) &&
        hd_str_has_suffix(c->key, HD_STR("]"))) {
        hd_str_t name = hd_str_sub(c->key, 16, c->key.len - 17);

        return add_source(t, r->principals, OF_HEADER, ns, hd_tr_text(t, name),
                          &c->values);
    }
    if (hd_str_eq(c->key, HD_STR("destination.ip")))
        return add_operation(t, r->permissions, OF_DEST_IP, &c->values);
    if (hd_str_eq(c->key, HD_STR("destination.port")))
        return add_operation(t, r->permissions, OF_PORT, &c->values);
    if (hd_str_eq(c->key, HD_STR("connection.sni")))
        return add_operation(t, r->permissions, OF_SNI, &c->values);
    return false; /* experimental.*: needs filters that aren't there */
}

/* --- rules and policies --- */

static PbRbac__Permission__Set *permission_set(hd_tr_t *t)
{
    return HD_TR_NEW(t, PbRbac__Permission__Set, pb_rbac__permission__set);
}

static void add_permissions(hd_tr_t *t, PbRbac__Policy *policy,
                            PbRbac__Permission__Set *set,
                            const PbRbac__Permission__Set *when)
{
    permission_t *p = new_permission(t, PB_RBAC__PERMISSION__RULE_AND_RULES);

    for (size_t i = 0; i < when->n_rules; i++)
        HD_TR_ADD(t, set, rules, when->rules[i]);
    if (set->n_rules == 0) {
        permission_t *any = new_permission(t, PB_RBAC__PERMISSION__RULE_ANY);

        any->any = true;
        HD_TR_ADD(t, set, rules, any);
    }
    p->and_rules = set;
    HD_TR_ADD(t, policy, permissions, p);
}

static void add_principals(hd_tr_t *t, PbRbac__Policy *policy,
                           PbRbac__Principal__Set *set,
                           const PbRbac__Principal__Set *when)
{
    principal_t *p = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_AND_IDS);

    for (size_t i = 0; i < when->n_ids; i++)
        HD_TR_ADD(t, set, ids, when->ids[i]);
    if (set->n_ids == 0) {
        principal_t *any = new_principal(t, PB_RBAC__PRINCIPAL__IDENTIFIER_ANY);

        any->any = true;
        HD_TR_ADD(t, set, ids, any);
    }
    p->and_ids = set;
    HD_TR_ADD(t, policy, principals, p);
}

/* NULL: the rule can't be compiled. */
static PbRbac__Policy *compile_rule(hd_tr_t *t, use_t use, hd_str_t ns,
                                    const hd_authz_rule_t *rule)
{
    PbRbac__Policy *policy = HD_TR_NEW(t, PbRbac__Policy, pb_rbac__policy);
    rule_parts_t when = {permission_set(t),
                         HD_TR_NEW(t, PbRbac__Principal__Set, pb_rbac__principal__set)};

    for (hd_each(c, rule->when)) {
        if (!add_when(t, use, &when, ns, c))
            return NULL;
    }
    for (hd_each(to, rule->to)) {
        PbRbac__Permission__Set *set = permission_set(t);

        if (!add_to(t, use, set, to))
            return NULL;
        add_permissions(t, policy, set, when.permissions);
    }
    for (hd_each(from, rule->from)) {
        PbRbac__Principal__Set *set =
            HD_TR_NEW(t, PbRbac__Principal__Set, pb_rbac__principal__set);

        if (!add_from(t, use, set, ns, from))
            return NULL;
        add_principals(t, policy, set, when.principals);
    }
    if (rule->to.n == 0)
        add_permissions(t, policy, permission_set(t), when.permissions);
    if (rule->from.n == 0)
        add_principals(t, policy,
                       HD_TR_NEW(t, PbRbac__Principal__Set, pb_rbac__principal__set),
                       when.principals);
    return policy;
}

static void add_policies(hd_tr_t *t, use_t use, PbRbac__RBAC *rbac, const hd_object_t *o)
{
    const hd_authz_policy_t *ap = o->authz;
    size_t i = 0;

    for (hd_each(rule, ap->rules)) {
        PbRbac__Policy *policy = compile_rule(t, use, o->ns, rule);
        PbRbac__RBAC__PoliciesEntry *e;

        if (policy != NULL) {
            e = HD_TR_NEW(t, PbRbac__RBAC__PoliciesEntry, pb_rbac__rbac__policies_entry);
            e->key = hd_tr_printf(t, "ns[%.*s]-policy[%.*s]-rule[%zu]", HD_STR_ARG(o->ns),
                                  HD_STR_ARG(o->name), i);
            e->value = policy;
            HD_TR_ADD(t, rbac, policies, e);
        }
        i++;
    }
}

static bool applies(hd_tr_t *t, const hd_object_t *o)
{
    const hd_authz_policy_t *ap = o->authz;

    if (ap->targets.n > 0) /* waypoints and gateways by reference: not translated */
        return false;
    if (!hd_str_eq(o->ns, t->proxy->ns) &&
        !hd_str_eq(o->ns, hd_model_root_namespace(t->model)))
        return false;
    return hd_labels_match(&ap->selector, hd_tr_labels(t));
}

/* The policies of an action, as one filter's rules; NULL: there are none. */
static PbRbac__RBAC *rules_of(hd_tr_t *t, use_t use, hd_authz_action_t action)
{
    static const PbRbac__RBAC__Action actions[] = {
        [HD_AUTHZ_ALLOW] = PB_RBAC__RBAC__ACTION__ALLOW,
        [HD_AUTHZ_DENY] = PB_RBAC__RBAC__ACTION__DENY,
        [HD_AUTHZ_AUDIT] = PB_RBAC__RBAC__ACTION__LOG,
        /* whose provider we don't know: it denies what it matches (AP-CUST-3) */
        [HD_AUTHZ_CUSTOM] = PB_RBAC__RBAC__ACTION__DENY,
    };
    size_t n;
    const hd_object_t *const *list =
        hd_model_list(t->model, HD_KIND_AUTHORIZATION_POLICY, &n);
    PbRbac__RBAC *rules = NULL;

    for (size_t i = 0; i < n; i++) {
        if (list[i]->authz->action != action || list[i]->authz->dry_run ||
            !applies(t, list[i]))
            continue;
        if (rules == NULL)
            rules = HD_TR_NEW(t, PbRbac__RBAC, pb_rbac__rbac);
        rules->action = actions[action];
        add_policies(t, use, rules, list[i]);
    }
    return rules;
}

/* In the order in which they decide (AP-EVAL-1). */
static const hd_authz_action_t order[] = {HD_AUTHZ_CUSTOM, HD_AUTHZ_AUDIT, HD_AUTHZ_DENY,
                                          HD_AUTHZ_ALLOW};
#define DRY_RUN_PREFIX "istio_dry_run_allow_"

static void depend_policies(hd_tr_t *t)
{
    hd_str_t plural = hd_str_c(hd_kind_plural(HD_KIND_AUTHORIZATION_POLICY));

    hd_part_depend(t->part, HD_DEP_IN_NS, plural, t->proxy->ns);
    hd_part_depend(t->part, HD_DEP_IN_NS, plural, hd_model_root_namespace(t->model));
}

void hd_tr_rbac_filters(hd_tr_t *t, PbHcm__HttpConnectionManager *hcm)
{
    depend_policies(t);
    for (unsigned i = 0; i < hd_countof(order); i++) {
        PbRbac__RBAC *rules = rules_of(t, FOR_HTTP, order[i]);
        PbHttpRbac__RBAC *msg;
        PbHcm__HttpFilter *f;

        if (rules == NULL)
            continue;
        msg = HD_TR_NEW(t, PbHttpRbac__RBAC, pb_http_rbac__rbac);
        msg->rules = rules;
        msg->shadow_rules_stat_prefix = DRY_RUN_PREFIX;
        f = HD_TR_NEW(t, PbHcm__HttpFilter, pb_hcm__http_filter);
        f->name = "envoy.filters.http.rbac";
        f->config_type_case = PB_HCM__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG;
        f->typed_config = hd_tr_any(t, msg);
        HD_TR_ADD(t, hcm, http_filters, f);
    }
}

void hd_tr_network_rbac_filters(hd_tr_t *t, PbListener__FilterChain *chain)
{
    depend_policies(t);
    for (unsigned i = 0; i < hd_countof(order); i++) {
        PbRbac__RBAC *rules = rules_of(
            t, order[i] == HD_AUTHZ_ALLOW ? FOR_TCP_ALLOW : FOR_TCP_DENY, order[i]);
        PbNetRbac__RBAC *msg;
        PbListener__Filter *f;

        if (rules == NULL)
            continue;
        msg = HD_TR_NEW(t, PbNetRbac__RBAC, pb_net_rbac__rbac);
        msg->rules = rules;
        msg->shadow_rules_stat_prefix = DRY_RUN_PREFIX;
        msg->stat_prefix = "tcp.";
        f = HD_TR_NEW(t, PbListener__Filter, pb_listener__filter);
        f->name = "envoy.filters.network.rbac";
        f->config_type_case = PB_LISTENER__FILTER__CONFIG_TYPE_TYPED_CONFIG;
        f->typed_config = hd_tr_any(t, msg);
        HD_TR_ADD(t, chain, filters, f);
    }
}
