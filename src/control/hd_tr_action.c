#include "control/hd_tr_route_int.h"
#include "ext/common_fault.pb-c.h"
#include "ext/http_fault.pb-c.h"
#include "ext/retry_hosts.pb-c.h"

/* --- small parts --- */

static PbRoute__HeaderMatcher *header_matcher(hd_tr_t *t, const char *name,
                                              const hd_strmatch_t *m)
{
    PbRoute__HeaderMatcher *h =
        HD_TR_NEW(t, PbRoute__HeaderMatcher, pb_route__header_matcher);
    PbMatcher__StringMatcher *s;

    h->name = (char *)(uintptr_t)name;
    if (m->kind == HD_STRMATCH_PRESENT) {
        h->header_match_specifier_case =
            PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH;
        h->present_match = true;
        return h;
    }
    if (m->kind == HD_STRMATCH_REGEX) {
        s = HD_TR_NEW(t, PbMatcher__StringMatcher, pb_matcher__string_matcher);
        s->match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
        s->safe_regex = hd_tr_regex(t, hd_tr_text(t, m->value));
    } else if (m->kind == HD_STRMATCH_PREFIX) {
        s = hd_tr_prefix(t, hd_tr_text(t, m->value));
    } else {
        s = hd_tr_exact(t, hd_tr_text(t, m->value));
    }
    h->header_match_specifier_case =
        PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH;
    h->string_match = s;
    return h;
}

static void add_query(hd_tr_t *t, PbRoute__RouteMatch *rm, const hd_keymatch_t *q)
{
    PbRoute__QueryParameterMatcher *m =
        HD_TR_NEW(t, PbRoute__QueryParameterMatcher, pb_route__query_parameter_matcher);
    PbRoute__HeaderMatcher *h = header_matcher(t, "", &q->match);

    m->name = hd_tr_text(t, q->key);
    if (q->match.kind == HD_STRMATCH_PRESENT) {
        m->query_parameter_match_specifier_case =
            PB_ROUTE__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_PRESENT_MATCH;
        m->present_match = true;
    } else {
        m->query_parameter_match_specifier_case =
            PB_ROUTE__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_STRING_MATCH;
        m->string_match = h->string_match;
    }
    HD_TR_ADD(t, rm, query_parameters, m);
}

static void set_prefix(PbRoute__RouteMatch *rm, const char *prefix)
{
    rm->path_specifier_case = PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX;
    rm->prefix = (char *)(uintptr_t)prefix;
}

static void set_uri(hd_tr_t *t, PbRoute__RouteMatch *rm, const hd_strmatch_t *uri)
{
    if (uri == NULL || uri->kind == HD_STRMATCH_PRESENT) {
        set_prefix(rm, "/");
    } else if (uri->kind == HD_STRMATCH_PREFIX) {
        set_prefix(rm, hd_tr_text(t, uri->value));
    } else if (uri->kind == HD_STRMATCH_EXACT) {
        rm->path_specifier_case = PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH;
        rm->path = hd_tr_text(t, uri->value);
    } else {
        rm->path_specifier_case = PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX;
        rm->safe_regex = hd_tr_regex(t, hd_tr_text(t, uri->value));
    }
}

PbRoute__RouteMatch *hd_tr_route_match(hd_tr_t *t, const hd_http_match_t *m)
{
    PbRoute__RouteMatch *rm = HD_TR_NEW(t, PbRoute__RouteMatch, pb_route__route_match);

    if (m == NULL) {
        set_prefix(rm, "/");
        return rm;
    }
    set_uri(t, rm, m->uri);
    rm->case_sensitive = hd_tr_bool(t, !m->ignore_uri_case);
    for (hd_each(h, m->headers))
        HD_TR_ADD(t, rm, headers, header_matcher(t, hd_tr_text(t, h->key), &h->match));
    for (hd_each(h, m->without_headers)) {
        PbRoute__HeaderMatcher *not = header_matcher(t, hd_tr_text(t, h->key), &h->match);

        not ->invert_match = true;
        not ->treat_missing_header_as_empty = h->match.kind != HD_STRMATCH_PRESENT;
        HD_TR_ADD(t, rm, headers, not );
    }
    if (m->method != NULL)
        HD_TR_ADD(t, rm, headers, header_matcher(t, ":method", m->method));
    if (m->authority != NULL)
        HD_TR_ADD(t, rm, headers, header_matcher(t, ":authority", m->authority));
    if (m->scheme != NULL)
        HD_TR_ADD(t, rm, headers, header_matcher(t, ":scheme", m->scheme));
    for (hd_each(q, m->query_params))
        add_query(t, rm, q);
    return rm;
}

/* VS-RETRY-*: what is retried when nothing is said, and what the rule says. NULL:
 * attempts 0. */
PbRoute__RetryPolicy *hd_tr_retry_policy(hd_tr_t *t, const hd_retries_t *r)
{
    PbRoute__RetryPolicy *p;

    if (r != NULL && r->attempts == 0)
        return NULL;
    p = HD_TR_NEW(t, PbRoute__RetryPolicy, pb_route__retry_policy);
    p->retry_on =
        "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
    p->num_retries = hd_tr_u32(t, r != NULL && r->attempts != HD_UNSET ? r->attempts : 2);
    if (r != NULL && r->conditions.n + r->status_codes.n > 0) {
        hd_str_t on = HD_STR_NONE;

        for (hd_each(c, r->conditions))
            on = hd_str_printf(t->pool, "%.*s%s%.*s", HD_STR_ARG(on),
                               on.len > 0 ? "," : "", HD_STR_ARG(*c));
        if (r->status_codes.n > 0)
            on = hd_str_printf(t->pool, "%.*s%sretriable-status-codes", HD_STR_ARG(on),
                               on.len > 0 ? "," : "");
        p->retry_on = hd_tr_text(t, on);
        for (hd_each(code, r->status_codes))
            HD_TR_ADD(t, p, retriable_status_codes, (uint32_t)*code);
    }
    if (r != NULL && r->per_try_timeout_ns > 0)
        p->per_try_timeout = hd_tr_duration(t, r->per_try_timeout_ns);
    if (r != NULL && r->backoff_ns > 0) {
        p->retry_back_off = HD_TR_NEW(t, PbRoute__RetryPolicy__RetryBackOff,
                                      pb_route__retry_policy__retry_back_off);
        p->retry_back_off->base_interval = hd_tr_duration(t, r->backoff_ns);
    }
    if (r == NULL || r->ignore_previous_hosts != 0) {
        PbRoute__RetryPolicy__RetryHostPredicate *hp =
            HD_TR_NEW(t, PbRoute__RetryPolicy__RetryHostPredicate,
                      pb_route__retry_policy__retry_host_predicate);

        hp->name = "envoy.retry_host_predicates.previous_hosts";
        hp->config_type_case =
            PB_ROUTE__RETRY_POLICY__RETRY_HOST_PREDICATE__CONFIG_TYPE_TYPED_CONFIG;
        hp->typed_config =
            hd_tr_any(t, HD_TR_NEW(t, PbRetryHosts__PreviousHostsPredicate,
                                   pb_retry_hosts__previous_hosts_predicate));
        HD_TR_ADD(t, p, retry_host_predicate, hp);
        p->host_selection_retry_max_attempts = 5;
    }
    return p;
}

static PbCore__HeaderValueOption *header_option(hd_tr_t *t, const hd_pair_t *pair,
                                                bool overwrite)
{
    PbCore__HeaderValueOption *o =
        HD_TR_NEW(t, PbCore__HeaderValueOption, pb_core__header_value_option);

    o->header = HD_TR_NEW(t, PbCore__HeaderValue, pb_core__header_value);
    o->header->key = hd_tr_text(t, pair->key);
    o->header->value = hd_tr_text(t, pair->value);
    o->append_action =
        overwrite
            ? PB_CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD
            : PB_CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__APPEND_IF_EXISTS_OR_ADD;
    return o;
}

static bool names_host(hd_str_t key)
{
    return hd_str_eq_nocase(key, HD_STR("host")) || hd_str_eq(key, HD_STR(":authority"));
}

/* Puts header edits on <msg>, a Route or a ClusterWeight, whose fields are named alike.
 */
#define PUT_HEADERS(t, msg, ops)                                                         \
    do {                                                                                 \
        for (hd_each(p_, (ops)->request.set))                                            \
            if (!names_host(p_->key))                                                    \
                HD_TR_ADD(t, msg, request_headers_to_add, header_option(t, p_, true));   \
        for (hd_each(p_, (ops)->request.add))                                            \
            HD_TR_ADD(t, msg, request_headers_to_add, header_option(t, p_, false));      \
        for (hd_each(p_, (ops)->request.remove))                                         \
            HD_TR_ADD(t, msg, request_headers_to_remove, hd_tr_text(t, *p_));            \
        for (hd_each(p_, (ops)->response.set))                                           \
            HD_TR_ADD(t, msg, response_headers_to_add, header_option(t, p_, true));      \
        for (hd_each(p_, (ops)->response.add))                                           \
            HD_TR_ADD(t, msg, response_headers_to_add, header_option(t, p_, false));     \
        for (hd_each(p_, (ops)->response.remove))                                        \
            HD_TR_ADD(t, msg, response_headers_to_remove, hd_tr_text(t, *p_));           \
    } while (0)

/* VS-FAULT-*: as the fault filter's settings of this route. */
static void put_fault(hd_tr_t *t, PbRoute__Route *route, const hd_fault_t *f)
{
    PbHttpFault__HTTPFault *msg =
        HD_TR_NEW(t, PbHttpFault__HTTPFault, pb_http_fault__httpfault);
    PbRoute__Route__TypedPerFilterConfigEntry *e =
        HD_TR_NEW(t, PbRoute__Route__TypedPerFilterConfigEntry,
                  pb_route__route__typed_per_filter_config_entry);

    if (f->delay_ns > 0) {
        msg->delay =
            HD_TR_NEW(t, PbCommonFault__FaultDelay, pb_common_fault__fault_delay);
        msg->delay->fault_delay_secifier_case =
            PB_COMMON_FAULT__FAULT_DELAY__FAULT_DELAY_SECIFIER_FIXED_DELAY;
        msg->delay->fixed_delay = hd_tr_duration(t, f->delay_ns);
        msg->delay->percentage = hd_tr_ppm(t, f->delay_ppm);
    }
    if (f->abort_http_status != HD_UNSET || f->abort_grpc_status != HD_UNSET) {
        msg->abort = HD_TR_NEW(t, PbHttpFault__FaultAbort, pb_http_fault__fault_abort);
        msg->abort->percentage = hd_tr_ppm(t, f->abort_ppm);
        if (f->abort_http_status != HD_UNSET) {
            msg->abort->error_type_case =
                PB_HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_HTTP_STATUS;
            msg->abort->http_status = (uint32_t)f->abort_http_status;
        } else {
            msg->abort->error_type_case =
                PB_HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_GRPC_STATUS;
            msg->abort->grpc_status = (uint32_t)f->abort_grpc_status;
        }
    }
    e->key = "envoy.filters.http.fault";
    e->value = hd_tr_any(t, msg);
    HD_TR_ADD(t, route, typed_per_filter_config, e);
}

/* --- actions --- */

/* VS-ROUTE-15: a destination without a port means the service's only one, else the
 * listener's. */
char *hd_tr_destination(const hd_tr_place_t *s, const hd_destination_t *d)
{
    const hd_object_t *svc = hd_tr_find_service(s->t, d->host);
    int64_t port = d->port;

    if (port == HD_UNSET && svc != NULL && svc->service->ports.n == 1 &&
        (s->any_port || svc->service->ports.items[0].number == s->port))
        port = svc->service->ports.items[0].number;
    return hd_tr_cluster_name(s->t, port == HD_UNSET ? s->port : port, d->subset,
                              d->host);
}

void hd_tr_set_hash(hd_tr_t *t, PbRoute__RouteAction *a, hd_str_t host)
{
    const hd_object_t *rules[4];
    size_t n = hd_tr_find_rules(t, HD_STR_NONE, host, rules, hd_countof(rules));
    const hd_dr_lb_t *lb = n > 0 && rules[0]->destination_rule->policy != NULL
                               ? rules[0]->destination_rule->policy->blocks.lb
                               : NULL;
    PbRoute__RouteAction__HashPolicy *p;

    if (lb == NULL || lb->kind != HD_DR_LB_CONSISTENT_HASH)
        return;
    p = HD_TR_NEW(t, PbRoute__RouteAction__HashPolicy,
                  pb_route__route_action__hash_policy);
    if (lb->hash->header.len > 0) {
        p->policy_specifier_case =
            PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_HEADER;
        p->header = HD_TR_NEW(t, PbRoute__RouteAction__HashPolicy__Header,
                              pb_route__route_action__hash_policy__header);
        p->header->header_name = hd_tr_text(t, lb->hash->header);
    } else if (lb->hash->query_param.len > 0) {
        p->policy_specifier_case =
            PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_QUERY_PARAMETER;
        p->query_parameter =
            HD_TR_NEW(t, PbRoute__RouteAction__HashPolicy__QueryParameter,
                      pb_route__route_action__hash_policy__query_parameter);
        p->query_parameter->name = hd_tr_text(t, lb->hash->query_param);
    } else if (lb->hash->cookie.len > 0) {
        p->policy_specifier_case =
            PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_COOKIE;
        p->cookie = HD_TR_NEW(t, PbRoute__RouteAction__HashPolicy__Cookie,
                              pb_route__route_action__hash_policy__cookie);
        p->cookie->name = hd_tr_text(t, lb->hash->cookie);
        p->cookie->path = hd_tr_text(t, lb->hash->cookie_path);
        if (lb->hash->cookie_ttl_ns != HD_UNSET)
            p->cookie->ttl = hd_tr_duration(t, lb->hash->cookie_ttl_ns);
    } else {
        p->policy_specifier_case =
            PB_ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_CONNECTION_PROPERTIES;
        p->connection_properties =
            HD_TR_NEW(t, PbRoute__RouteAction__HashPolicy__ConnectionProperties,
                      pb_route__route_action__hash_policy__connection_properties);
        p->connection_properties->source_ip = true;
    }
    HD_TR_ADD(t, a, hash_policy, p);
}

/* One destination is a cluster; several are weighted, those without weight left out
 * (VS-ROUTE-16). */
static void set_clusters(const hd_tr_place_t *s, PbRoute__RouteAction *a,
                         PbRoute__Route *route, const hd_route_dests_t *dests)
{
    hd_tr_t *t = s->t;
    PbRoute__WeightedCluster *wc;

    if (dests->n == 1) {
        a->cluster_specifier_case = PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER;
        a->cluster = hd_tr_destination(s, &dests->items[0].destination);
        PUT_HEADERS(t, route, &dests->items[0].headers);
    } else {
        wc = HD_TR_NEW(t, PbRoute__WeightedCluster, pb_route__weighted_cluster);
        for (hd_each(d, *dests)) {
            PbRoute__WeightedCluster__ClusterWeight *w;

            if (d->weight <= 0)
                continue;
            w = HD_TR_NEW(t, PbRoute__WeightedCluster__ClusterWeight,
                          pb_route__weighted_cluster__cluster_weight);
            w->name = hd_tr_destination(s, &d->destination);
            w->weight = hd_tr_u32(t, d->weight);
            PUT_HEADERS(t, w, &d->headers);
            HD_TR_ADD(t, wc, clusters, w);
        }
        a->cluster_specifier_case =
            PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS;
        a->weighted_clusters = wc;
    }
    hd_tr_set_hash(t, a, dests->items[0].destination.host);
}

static void set_rewrite(hd_tr_t *t, PbRoute__RouteAction *a, const hd_http_route_t *http)
{
    const hd_rewrite_t *r = http->rewrite;

    for (hd_each(p, http->headers.request.set)) {
        if (names_host(p->key)) {
            a->host_rewrite_specifier_case =
                PB_ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL;
            a->host_rewrite_literal = hd_tr_text(t, p->value);
        }
    }
    if (r == NULL)
        return;
    if (r->uri.data != NULL)
        a->prefix_rewrite = hd_tr_text(t, r->uri);
    if (r->regex_match.len > 0) {
        a->regex_rewrite = HD_TR_NEW(t, PbMatcher__RegexMatchAndSubstitute,
                                     pb_matcher__regex_match_and_substitute);
        a->regex_rewrite->pattern = hd_tr_regex(t, hd_tr_text(t, r->regex_match));
        a->regex_rewrite->substitution = hd_tr_text(t, r->regex_rewrite);
    }
    if (r->authority.data != NULL) {
        a->host_rewrite_specifier_case =
            PB_ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL;
        a->host_rewrite_literal = hd_tr_text(t, r->authority);
    }
}

static void add_mirrors(const hd_tr_place_t *s, PbRoute__RouteAction *a,
                        const hd_http_route_t *http)
{
    hd_tr_t *t = s->t;

    for (hd_each(m, http->mirrors)) {
        PbRoute__RouteAction__RequestMirrorPolicy *p =
            HD_TR_NEW(t, PbRoute__RouteAction__RequestMirrorPolicy,
                      pb_route__route_action__request_mirror_policy);

        p->cluster = hd_tr_destination(s, &m->destination);
        p->runtime_fraction = HD_TR_NEW(t, PbCore__RuntimeFractionalPercent,
                                        pb_core__runtime_fractional_percent);
        p->runtime_fraction->default_value = hd_tr_ppm(t, m->ppm);
        p->trace_sampled = hd_tr_bool(t, false);
        p->disable_shadow_host_suffix_append = true;
        HD_TR_ADD(t, a, request_mirror_policies, p);
    }
}

static PbRoute__RouteAction *forward(const hd_tr_place_t *s, PbRoute__Route *route,
                                     const hd_http_route_t *http)
{
    hd_tr_t *t = s->t;
    PbRoute__RouteAction *a = HD_TR_NEW(t, PbRoute__RouteAction, pb_route__route_action);

    set_clusters(s, a, route, &http->route);
    a->timeout = hd_tr_duration(t, http->timeout_ns == HD_UNSET ? 0 : http->timeout_ns);
    a->max_grpc_timeout = a->timeout;
    a->retry_policy = hd_tr_retry_policy(t, http->retries);
    set_rewrite(t, a, http);
    add_mirrors(s, a, http);
    return a;
}

static PbRoute__RedirectAction *redirect(hd_tr_t *t, const hd_redirect_t *r)
{
    PbRoute__RedirectAction *a =
        HD_TR_NEW(t, PbRoute__RedirectAction, pb_route__redirect_action);

    if (r->authority.data != NULL)
        a->host_redirect = hd_tr_text(t, r->authority);
    if (r->uri.data != NULL) {
        a->path_rewrite_specifier_case =
            PB_ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REDIRECT;
        a->path_redirect = hd_tr_text(t, r->uri);
    } else if (r->prefix_rewrite.data != NULL) {
        a->path_rewrite_specifier_case =
            PB_ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PREFIX_REWRITE;
        a->prefix_rewrite = hd_tr_text(t, r->prefix_rewrite);
    }
    if (r->scheme.data != NULL) {
        a->scheme_rewrite_specifier_case =
            PB_ROUTE__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_SCHEME_REDIRECT;
        a->scheme_redirect = hd_tr_text(t, r->scheme);
    }
    if (r->port != HD_UNSET)
        a->port_redirect = (uint32_t)r->port;
    a->response_code =
        r->code == 302   ? PB_ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__FOUND
        : r->code == 303 ? PB_ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__SEE_OTHER
        : r->code == 307
            ? PB_ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__TEMPORARY_REDIRECT
        : r->code == 308
            ? PB_ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__PERMANENT_REDIRECT
            : PB_ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__MOVED_PERMANENTLY;
    return a;
}

static PbRoute__DirectResponseAction *direct_response(hd_tr_t *t,
                                                      const hd_direct_response_t *d)
{
    PbRoute__DirectResponseAction *a =
        HD_TR_NEW(t, PbRoute__DirectResponseAction, pb_route__direct_response_action);

    a->status = (uint32_t)d->status;
    if (d->body.data != NULL) {
        a->body = HD_TR_NEW(t, PbCore__DataSource, pb_core__data_source);
        a->body->specifier_case = PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING;
        a->body->inline_string = hd_tr_text(t, d->body);
    }
    return a;
}

void hd_tr_set_action(const hd_tr_place_t *s, PbRoute__Route *route,
                      const hd_http_route_t *http)
{
    hd_tr_t *t = s->t;

    if (http->redirect != NULL) {
        route->action_case = PB_ROUTE__ROUTE__ACTION_REDIRECT;
        route->redirect = redirect(t, http->redirect);
    } else if (http->direct_response != NULL) {
        route->action_case = PB_ROUTE__ROUTE__ACTION_DIRECT_RESPONSE;
        route->direct_response = direct_response(t, http->direct_response);
    } else {
        route->action_case = PB_ROUTE__ROUTE__ACTION_ROUTE;
        route->route = forward(s, route, http);
    }
    PUT_HEADERS(t, route, &http->headers);
    if (http->fault != NULL)
        put_fault(t, route, http->fault);
}
