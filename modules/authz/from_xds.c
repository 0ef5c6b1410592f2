/* RBAC messages to rules. What istiod writes as a regular expression for want of a better
 * matcher becomes a plain comparison here. */
#include "rules.h"

#include "ext/uri_template.pb-c.h"

#include <stdlib.h>

#define SCHEME "spiffe://"

static hd_rc_t refuse(hd_err_t *err, const char *what)
{
    return hd_err_set(err, HD_E_RESOURCE,
                      "rbac: %s is not supported, and access can't be judged without it",
                      what);
}

static hd_rc_t read_string(hd_conf_t *cf, const PbMatcher__StringMatcher *msg,
                           cond_kind_t kind, cond_t *c, hd_err_t *err)
{
    *c = (cond_t){.kind = (uint8_t)kind};
    return pb_string_match(cf->pool, msg, &c->match, err);
}

/* Text of a pattern that matches just that text; false: it means more. */
static bool is_literal(hd_str_t pattern, hd_pool_t *pool, hd_str_t *text)
{
    char *to = hd_pool_alloc_unaligned(pool, pattern.len + 1);
    size_t n = 0;

    for (size_t i = 0; i < pattern.len; i++) {
        char c = pattern.data[i];

        if (c == '\\' && i + 1 < pattern.len &&
            strchr("\\.+*?()|[]{}^$-/", pattern.data[i + 1]) != NULL)
            c = pattern.data[++i];
        else if (strchr("\\.+*?()|[]{}^$", c) != NULL)
            return false;
        to[n++] = c;
    }
    *text = hd_str_n(to, n);
    return true;
}

static hd_str_t between(hd_str_t s, size_t before, size_t after)
{
    return s.len < before + after ? HD_STR_NONE
                                  : hd_str_sub(s, before, s.len - before - after);
}

/* Istio's regular expressions on identities (AP-FROM-8 to AP-FROM-11). An identity has no
 * line end (a URI hasn't), so "." is any character. */
static void simplify_identity(hd_pool_t *pool, cond_t *c)
{
    static const hd_str_t ns = HD_STR_INIT(".*/ns/");
    hd_match_t *m = &c->match;
    hd_str_t p = m->text, text;

    if (m->kind != HD_MATCH_REGEX)
        return;
    if (hd_str_eq(p, HD_STR(".+")) || hd_str_eq(p, HD_STR(".*"))) {
        *m = (hd_match_t){.kind = HD_MATCH_ANY}; /* none is empty */
    } else if (hd_str_has_prefix(p, ns) && hd_str_has_suffix(p, HD_STR("/.*")) &&
               is_literal(between(p, ns.len, 3), pool, &text) && text.len > 0) {
        *m = (hd_match_t){.kind = HD_MATCH_CONTAINS,
                          .text = hd_str_printf(pool, "/ns/%.*s/", HD_STR_ARG(text))};
    } else if (hd_str_has_prefix(p, HD_STR(SCHEME ".*")) &&
               is_literal(between(p, sizeof(SCHEME ".*") - 1, 0), pool, &text) &&
               text.len > 0) {
        c->kind = COND_PRINCIPAL_ID;
        *m = (hd_match_t){.kind = HD_MATCH_SUFFIX, .text = text};
    }
}

/* ".+" in what can hold any byte: a regex in form, "not empty" in meaning, but for line
 * ends, which neither a path nor a field can have. */
static void simplify_text(hd_match_t *m)
{
    if (m->kind == HD_MATCH_REGEX && hd_str_eq(m->text, HD_STR(".*")))
        *m = (hd_match_t){.kind = HD_MATCH_ANY};
}

static hd_rc_t read_header(hd_conf_t *cf, const PbRoute__HeaderMatcher *msg, cond_t *c,
                           hd_err_t *err)
{
    pb_header_match_t *h = hd_pool_new(cf->pool, pb_header_match_t);
    bool is_method, is_host;

    if (msg == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "rbac: header matcher is missing");
    if (pb_header_match(cf->pool, msg, h, err) != HD_OK)
        return HD_ERROR;
    simplify_text(&h->match);
    *c = (cond_t){.kind = COND_HEADER, .header = h};
    is_method = hd_str_eq(h->name, HD_STR(":method"));
    is_host = hd_str_eq(h->name, HD_STR(":authority"));
    if ((is_method || is_host) && !h->is_range && !h->invert &&
        h->match.kind != HD_MATCH_ANY)
        *c = (cond_t){.kind = is_method ? COND_METHOD : COND_HOST, .match = h->match};
    return HD_OK;
}

static hd_rc_t read_path(hd_conf_t *cf, const PbMatcher__PathMatcher *msg, cond_t *c,
                         hd_err_t *err)
{
    if (msg == NULL || msg->rule_case != PB_MATCHER__PATH_MATCHER__RULE_PATH)
        return hd_err_set(err, HD_E_RESOURCE, "rbac: url_path without a path");
    if (read_string(cf, msg->path, COND_PATH, c, err) != HD_OK)
        return HD_ERROR;
    simplify_text(&c->match);
    return HD_OK;
}

static hd_rc_t read_cidr(const PbCore__CidrRange *msg, cond_kind_t kind, cond_t *c,
                         hd_err_t *err)
{
    *c = (cond_t){.kind = (uint8_t)kind};
    return pb_cidr(msg, &c->cidr, err);
}

static hd_rc_t read_template(hd_conf_t *cf, const PbCore__TypedExtensionConfig *msg,
                             cond_t *c, hd_err_t *err)
{
    const PbUriTemplate__UriTemplateMatchConfig *t;
    hd_pb_fault_t fault = {0};
    hd_pb_arena_t arena;
    char text[256];
    hd_rc_t rc;

    if (msg == NULL || msg->typed_config == NULL ||
        !hd_pb_any_is(msg->typed_config,
                      HD_PB(pb_uri_template__uri_template_match_config)))
        return refuse(err, "a uri_template of that type");
    hd_pb_arena_init(&arena, 1 << 16);
    t = hd_pb_unpack_any(msg->typed_config, &arena, &fault);
    if (t != NULL) {
        rc = cond_template(cf->pool, hd_str_c(t->path_template), c, err);
    } else {
        hd_pb_fault_print(&fault, text, sizeof(text));
        rc = hd_err_set(err, HD_E_RESOURCE, "rbac: uri_template: %s", text);
    }
    hd_pb_arena_deinit(&arena);
    return rc;
}

/* --- what: permissions --- */

static hd_rc_t read_permission(hd_conf_t *cf, const PbRbac__Permission *p, cond_t *c,
                               hd_err_t *err);

static hd_rc_t read_permissions(hd_conf_t *cf, PbRbac__Permission **list, size_t n,
                                cond_kind_t kind, cond_t *c, hd_err_t *err)
{
    cond_t *kids = hd_pool_new_n(cf->pool, cond_t, n);

    if (n == 0)
        return hd_err_set(err, HD_E_RESOURCE, "rbac: an empty list of permissions");
    for (size_t i = 0; i < n; i++) {
        if (read_permission(cf, list[i], &kids[i], err) != HD_OK)
            return HD_ERROR;
    }
    *c = cond_of(cf->pool, kind, kids, (uint32_t)n);
    return HD_OK;
}

static hd_rc_t read_permission(hd_conf_t *cf, const PbRbac__Permission *p, cond_t *c,
                               hd_err_t *err)
{
    switch (p->rule_case) {
    case PB_RBAC__PERMISSION__RULE_AND_RULES:
        return read_permissions(cf, p->and_rules->rules, p->and_rules->n_rules, COND_AND,
                                c, err);
    case PB_RBAC__PERMISSION__RULE_OR_RULES:
        return read_permissions(cf, p->or_rules->rules, p->or_rules->n_rules, COND_OR, c,
                                err);
    case PB_RBAC__PERMISSION__RULE_ANY:
        if (!p->any)
            return hd_err_set(err, HD_E_RESOURCE, "rbac: any must be true");
        *c = (cond_t){.kind = COND_ANY};
        return HD_OK;
    case PB_RBAC__PERMISSION__RULE_HEADER:
        return read_header(cf, p->header, c, err);
    case PB_RBAC__PERMISSION__RULE_DESTINATION_IP:
        return read_cidr(p->destination_ip, COND_DST_IP, c, err);
    case PB_RBAC__PERMISSION__RULE_DESTINATION_PORT:
        if (p->destination_port > 65535)
            return hd_err_set(err, HD_E_RESOURCE, "rbac: destination_port is over 65535");
        *c = (cond_t){.kind = COND_DST_PORT,
                      .from = p->destination_port,
                      .to = p->destination_port + 1};
        return HD_OK;
    case PB_RBAC__PERMISSION__RULE_DESTINATION_PORT_RANGE:
        *c = (cond_t){.kind = COND_DST_PORT,
                      .from = (uint32_t)hd_max(p->destination_port_range->start, 0),
                      .to = (uint32_t)hd_max(p->destination_port_range->end, 0)};
        return HD_OK;
    case PB_RBAC__PERMISSION__RULE_NOT_RULE:
        if (read_permission(cf, p->not_rule, c, err) != HD_OK)
            return HD_ERROR;
        *c = cond_not(cf->pool, *c);
        return HD_OK;
    case PB_RBAC__PERMISSION__RULE_REQUESTED_SERVER_NAME:
        return read_string(cf, p->requested_server_name, COND_SNI, c, err);
    case PB_RBAC__PERMISSION__RULE_URL_PATH:
        return read_path(cf, p->url_path, c, err);
    case PB_RBAC__PERMISSION__RULE_URI_TEMPLATE:
        return read_template(cf, p->uri_template, c, err);
    case PB_RBAC__PERMISSION__RULE_METADATA:
    case PB_RBAC__PERMISSION__RULE_SOURCED_METADATA:
        return refuse(err, "permission.metadata");
    case PB_RBAC__PERMISSION__RULE_MATCHER:
        return refuse(err, "permission.matcher");
    default:
        return refuse(err, "a permission of an unknown kind");
    }
}

/* --- who: principals --- */

static hd_rc_t read_principal(hd_conf_t *cf, const PbRbac__Principal *p, cond_t *c,
                              hd_err_t *err);

static hd_rc_t read_principals(hd_conf_t *cf, PbRbac__Principal **list, size_t n,
                               cond_kind_t kind, cond_t *c, hd_err_t *err)
{
    cond_t *kids = hd_pool_new_n(cf->pool, cond_t, n);

    if (n == 0)
        return hd_err_set(err, HD_E_RESOURCE, "rbac: an empty list of principals");
    for (size_t i = 0; i < n; i++) {
        if (read_principal(cf, list[i], &kids[i], err) != HD_OK)
            return HD_ERROR;
    }
    *c = cond_of(cf->pool, kind, kids, (uint32_t)n);
    return HD_OK;
}

/* Without a name: anyone with a verified certificate. */
static hd_rc_t read_authenticated(hd_conf_t *cf,
                                  const PbRbac__Principal__Authenticated *a, cond_t *c,
                                  hd_err_t *err)
{
    *c = (cond_t){.kind = COND_PRINCIPAL, .match = {.kind = HD_MATCH_ANY}};
    if (a->principal_name == NULL)
        return HD_OK;
    if (read_string(cf, a->principal_name, COND_PRINCIPAL, c, err) != HD_OK)
        return HD_ERROR;
    simplify_identity(cf->pool, c);
    return HD_OK;
}

static hd_rc_t read_filter_state(hd_conf_t *cf, const PbMatcher__FilterStateMatcher *f,
                                 cond_t *c, hd_err_t *err)
{
    if (strcmp(f->key, "io.istio.peer_principal") != 0 ||
        f->matcher_case != PB_MATCHER__FILTER_STATE_MATCHER__MATCHER_STRING_MATCH)
        return refuse(err, "filter_state other than io.istio.peer_principal");
    if (read_string(cf, f->string_match, COND_PRINCIPAL, c, err) != HD_OK)
        return HD_ERROR;
    simplify_identity(cf->pool, c);
    return HD_OK;
}

static hd_rc_t read_principal(hd_conf_t *cf, const PbRbac__Principal *p, cond_t *c,
                              hd_err_t *err)
{
    switch (p->identifier_case) {
    case PB_RBAC__PRINCIPAL__IDENTIFIER_AND_IDS:
        return read_principals(cf, p->and_ids->ids, p->and_ids->n_ids, COND_AND, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_OR_IDS:
        return read_principals(cf, p->or_ids->ids, p->or_ids->n_ids, COND_OR, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_ANY:
        if (!p->any)
            return hd_err_set(err, HD_E_RESOURCE, "rbac: any must be true");
        *c = (cond_t){.kind = COND_ANY};
        return HD_OK;
    case PB_RBAC__PRINCIPAL__IDENTIFIER_AUTHENTICATED:
        return read_authenticated(cf, p->authenticated, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_SOURCE_IP: /* deprecated, as remote_ip was */
    case PB_RBAC__PRINCIPAL__IDENTIFIER_REMOTE_IP:
        return read_cidr(p->identifier_case == PB_RBAC__PRINCIPAL__IDENTIFIER_SOURCE_IP
                             ? p->source_ip
                             : p->remote_ip,
                         COND_REMOTE_IP, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_DIRECT_REMOTE_IP:
        return read_cidr(p->direct_remote_ip, COND_DIRECT_IP, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_HEADER:
        return read_header(cf, p->header, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_NOT_ID:
        if (read_principal(cf, p->not_id, c, err) != HD_OK)
            return HD_ERROR;
        *c = cond_not(cf->pool, *c);
        return HD_OK;
    case PB_RBAC__PRINCIPAL__IDENTIFIER_URL_PATH:
        return read_path(cf, p->url_path, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_FILTER_STATE:
        return read_filter_state(cf, p->filter_state, c, err);
    case PB_RBAC__PRINCIPAL__IDENTIFIER_METADATA:
    case PB_RBAC__PRINCIPAL__IDENTIFIER_SOURCED_METADATA:
        return refuse(err, "principal.metadata (JWT claims)");
    case PB_RBAC__PRINCIPAL__IDENTIFIER_CUSTOM:
        return refuse(err, "principal.custom");
    default:
        return refuse(err, "a principal of an unknown kind");
    }
}

/* --- policies --- */

static hd_rc_t read_policy(hd_conf_t *cf, const PbRbac__RBAC__PoliciesEntry *entry,
                           policy_t *p, hd_err_t *err)
{
    const PbRbac__Policy *msg = entry->value;
    cond_t both[2];

    if (msg == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "rbac: policy \"%s\" is empty", entry->key);
    if (msg->condition != NULL || msg->checked_condition != NULL)
        return refuse(err, "a policy's condition (CEL)");
    if (read_permissions(cf, msg->permissions, msg->n_permissions, COND_OR, &both[0],
                         err) != HD_OK ||
        read_principals(cf, msg->principals, msg->n_principals, COND_OR, &both[1], err) !=
            HD_OK)
        return hd_err_prefix(err, "policy \"%s\": ", entry->key);
    policy_init(cf->pool, p, pb_str(cf->pool, entry->key),
                cond_of(cf->pool, COND_AND, both, 2));
    return HD_OK;
}

static int by_name(const void *a, const void *b)
{
    return hd_str_cmp(((const policy_t *)a)->name, ((const policy_t *)b)->name);
}

/* Of entries with one key the last counts, as in any map. */
static bool is_last_of_key(const PbRbac__RBAC *msg, size_t at)
{
    for (size_t i = at + 1; i < msg->n_policies; i++) {
        if (strcmp(msg->policies[i]->key, msg->policies[at]->key) == 0)
            return false;
    }
    return true;
}

hd_rc_t rules_read(hd_conf_t *cf, const PbRbac__RBAC *msg, const rules_t **rules,
                   hd_err_t *err)
{
    policy_t *policies;
    rules_t *r;

    *rules = NULL;
    if (msg == NULL)
        return HD_OK;
    if (msg->action < PB_RBAC__RBAC__ACTION__ALLOW ||
        msg->action > PB_RBAC__RBAC__ACTION__LOG)
        return refuse(err, "an action other than ALLOW, DENY, LOG");
    r = hd_pool_new(cf->pool, rules_t);
    r->action = msg->action == PB_RBAC__RBAC__ACTION__ALLOW  ? RULES_ALLOW
                : msg->action == PB_RBAC__RBAC__ACTION__DENY ? RULES_DENY
                                                             : RULES_LOG;
    policies = hd_pool_new_n(cf->pool, policy_t, msg->n_policies);
    for (size_t i = 0; i < msg->n_policies; i++) {
        if (!is_last_of_key(msg, i))
            continue;
        if (read_policy(cf, msg->policies[i], &policies[r->policies_n++], err) != HD_OK)
            return HD_ERROR;
    }
    qsort(policies, r->policies_n, sizeof(*policies), by_name);
    r->policies = policies;
    *rules = r;
    return HD_OK;
}
