#include "control/hd_translate_int.h"
#include "ext/common_fault.pb-c.h"
#include "ext/http_fault.pb-c.h"
#include "ext/retry_hosts.pb-c.h"

/* Where a route is for: what of a VirtualService counts there. */
typedef struct {
    hd_tr_t *t;
    const char *gateway; /* "mesh", or "NS/NAME" */
    int64_t port;        /* of the listener */
    bool any_port;       /* services of other ports are known there, too: gateways */
    hd_map_t *domains;   /* a sidecar's table: those in it so far; a gateway's: what
                            has joined which virtual host */
} scope_t;

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

static PbRoute__RouteMatch *route_match(hd_tr_t *t, const hd_http_match_t *m)
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
static PbRoute__RetryPolicy *retry_policy(hd_tr_t *t, const hd_retries_t *r)
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
static char *destination(const scope_t *s, const hd_destination_t *d)
{
    const hd_object_t *svc = hd_tr_find_service(s->t, d->host);
    int64_t port = d->port;

    if (port == HD_UNSET && svc != NULL && svc->service->ports.n == 1 &&
        (s->any_port || svc->service->ports.items[0].number == s->port))
        port = svc->service->ports.items[0].number;
    return hd_tr_cluster_name(s->t, port == HD_UNSET ? s->port : port, d->subset,
                              d->host);
}

static void set_hash(hd_tr_t *t, PbRoute__RouteAction *a, hd_str_t host)
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
static void set_clusters(const scope_t *s, PbRoute__RouteAction *a, PbRoute__Route *route,
                         const hd_route_dests_t *dests)
{
    hd_tr_t *t = s->t;
    PbRoute__WeightedCluster *wc;

    if (dests->n == 1) {
        a->cluster_specifier_case = PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER;
        a->cluster = destination(s, &dests->items[0].destination);
        PUT_HEADERS(t, route, &dests->items[0].headers);
    } else {
        wc = HD_TR_NEW(t, PbRoute__WeightedCluster, pb_route__weighted_cluster);
        for (hd_each(d, *dests)) {
            PbRoute__WeightedCluster__ClusterWeight *w;

            if (d->weight <= 0)
                continue;
            w = HD_TR_NEW(t, PbRoute__WeightedCluster__ClusterWeight,
                          pb_route__weighted_cluster__cluster_weight);
            w->name = destination(s, &d->destination);
            w->weight = hd_tr_u32(t, d->weight);
            PUT_HEADERS(t, w, &d->headers);
            HD_TR_ADD(t, wc, clusters, w);
        }
        a->cluster_specifier_case =
            PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS;
        a->weighted_clusters = wc;
    }
    set_hash(t, a, dests->items[0].destination.host);
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

static void add_mirrors(const scope_t *s, PbRoute__RouteAction *a,
                        const hd_http_route_t *http)
{
    hd_tr_t *t = s->t;

    for (hd_each(m, http->mirrors)) {
        PbRoute__RouteAction__RequestMirrorPolicy *p =
            HD_TR_NEW(t, PbRoute__RouteAction__RequestMirrorPolicy,
                      pb_route__route_action__request_mirror_policy);

        p->cluster = destination(s, &m->destination);
        p->runtime_fraction = HD_TR_NEW(t, PbCore__RuntimeFractionalPercent,
                                        pb_core__runtime_fractional_percent);
        p->runtime_fraction->default_value = hd_tr_ppm(t, m->ppm);
        p->trace_sampled = hd_tr_bool(t, false);
        p->disable_shadow_host_suffix_append = true;
        HD_TR_ADD(t, a, request_mirror_policies, p);
    }
}

static PbRoute__RouteAction *forward(const scope_t *s, PbRoute__Route *route,
                                     const hd_http_route_t *http)
{
    hd_tr_t *t = s->t;
    PbRoute__RouteAction *a = HD_TR_NEW(t, PbRoute__RouteAction, pb_route__route_action);

    set_clusters(s, a, route, &http->route);
    a->timeout = hd_tr_duration(t, http->timeout_ns == HD_UNSET ? 0 : http->timeout_ns);
    a->max_grpc_timeout = a->timeout;
    a->retry_policy = retry_policy(t, http->retries);
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

static void set_action(const scope_t *s, PbRoute__Route *route,
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

/* --- VirtualServices --- */

static bool has_gateway(const hd_strs_t *list, const char *gateway)
{
    return hd_strs_has(list, hd_str_c(gateway));
}

/* Whether a match can hold for this proxy and port at all (VS-MATCH-9 … 12). */
static bool is_for(const scope_t *s, const hd_http_match_t *m)
{
    if (m->gateways.n > 0 && !has_gateway(&m->gateways, s->gateway))
        return false;
    if (m->port != HD_UNSET && m->port != s->port)
        return false;
    if (m->source_labels.n > 0 && !hd_labels_match(&m->source_labels, hd_tr_labels(s->t)))
        return false;
    return m->source_namespace.len == 0 ||
           hd_str_eq(m->source_namespace, s->t->proxy->ns);
}

static void add_route(const scope_t *s, PbRoute__VirtualHost *vh, const hd_object_t *vs,
                      const hd_http_route_t *http, const hd_http_match_t *m)
{
    hd_tr_t *t = s->t;
    PbRoute__Route *route = HD_TR_NEW(t, PbRoute__Route, pb_route__route);
    Pb__Struct *istio = hd_tr_struct(t);

    route->name =
        m != NULL && m->name.len > 0
            ? hd_tr_printf(t, "%.*s.%.*s", HD_STR_ARG(http->name), HD_STR_ARG(m->name))
            : hd_tr_text(t, http->name);
    route->match = route_match(t, m);
    set_action(s, route, http);
    hd_tr_struct_text(t, istio, "config",
                      hd_tr_printf(t,
                                   "/apis/networking.istio.io/v1/namespaces/%.*s/"
                                   "virtual-service/%.*s",
                                   HD_STR_ARG(vs->ns), HD_STR_ARG(vs->name)));
    hd_tr_metadata(t, &route->metadata, "istio", istio);
    route->decorator = HD_TR_NEW(t, PbRoute__Decorator, pb_route__decorator);
    route->decorator->operation = hd_tr_printf(t, "%s/*", vh->name);
    HD_TR_ADD(t, vh, routes, route);
}

static bool catches_all(const hd_http_match_t *m)
{
    return (m->uri == NULL || (m->uri->kind == HD_STRMATCH_PREFIX &&
                               hd_str_eq(m->uri->value, HD_STR("/")))) &&
           m->headers.n == 0 && m->without_headers.n == 0 && m->query_params.n == 0 &&
           m->method == NULL && m->authority == NULL && m->scheme == NULL;
}

/* One Route for each match. True: the last one has no conditions, so that what comes
 * behind can't be reached. */
static bool add_http_route(const scope_t *s, PbRoute__VirtualHost *vh,
                           const hd_object_t *vs, const hd_http_route_t *http)
{
    if (http->match.n == 0) {
        add_route(s, vh, vs, http, NULL);
        return true;
    }
    for (hd_each(m, http->match)) {
        if (!is_for(s, m))
            continue;
        add_route(s, vh, vs, http, m);
        if (catches_all(m))
            return true;
    }
    return false;
}

static bool add_delegated(const scope_t *s, PbRoute__VirtualHost *vh,
                          const hd_object_t *vs, const hd_http_route_t *root)
{
    const hd_object_t *delegate = hd_tr_find_delegate(s->t, vs, root->delegate);

    if (delegate == NULL)
        return false;
    for (hd_each(own, delegate->virtual_service->http)) {
        hd_http_route_t http;

        if (hd_tr_merge_delegate(s->t, root, own, &http) &&
            add_http_route(s, vh, vs, &http))
            return true;
    }
    return false;
}

static void add_routes(const scope_t *s, PbRoute__VirtualHost *vh, const hd_object_t *vs)
{
    for (hd_each(http, vs->virtual_service->http)) {
        if (http->delegate != NULL ? add_delegated(s, vh, vs, http)
                                   : add_http_route(s, vh, vs, http))
            return;
    }
}

/* The oldest of those that list exactly <host> and count here. */
static const hd_object_t *find_vs_of(const scope_t *s, hd_str_t host)
{
    size_t n;
    const hd_object_t *const *list = hd_model_virtual_services_of(s->t->model, host, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (vs->http.n > 0 && has_gateway(&vs->gateways, s->gateway) &&
            hd_tr_sees_vs(s->t, list[i]))
            return list[i];
    }
    return NULL;
}

/* The VirtualService of a host for these routes: the most specific host that covers it
 * (HOST-5), the oldest of those. */
static const hd_object_t *find_vs(const scope_t *s, hd_str_t host)
{
    const hd_object_t *found = find_vs_of(s, host);
    char wild[256];

    hd_part_depend_host(s->t->part, HD_DEP_VS, host);
    for (size_t i = 1; found == NULL && i < host.len && host.len < sizeof(wild); i++) {
        if (host.data[i] != '.')
            continue;
        wild[0] = '*';
        memcpy(wild + 1, host.data + i, host.len - i);
        found = find_vs_of(s, hd_str_n(wild, host.len - i + 1));
    }
    return found != NULL ? found : find_vs_of(s, HD_STR("*"));
}

/* <host>: the service's, for retries and hashing; unset: neither. */
static void add_default_route(hd_tr_t *t, PbRoute__VirtualHost *vh, const char *cluster,
                              const char *name, hd_str_t host)
{
    PbRoute__Route *route = HD_TR_NEW(t, PbRoute__Route, pb_route__route);
    PbRoute__RouteAction *a = HD_TR_NEW(t, PbRoute__RouteAction, pb_route__route_action);

    route->name = (char *)(uintptr_t)name;
    route->match = route_match(t, NULL);
    route->action_case = PB_ROUTE__ROUTE__ACTION_ROUTE;
    route->route = a;
    a->cluster_specifier_case = PB_ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER;
    a->cluster = (char *)(uintptr_t)cluster;
    a->timeout = hd_tr_duration(t, 0);
    a->max_grpc_timeout = a->timeout;
    if (host.len > 0) {
        a->retry_policy = retry_policy(t, NULL);
        set_hash(t, a, host);
    }
    HD_TR_ADD(t, vh, routes, route);
}

/* --- domains --- */

static void add_domain(hd_tr_t *t, PbRoute__VirtualHost *vh, const char *domain,
                       int64_t with_port)
{
    HD_TR_ADD(t, vh, domains, (char *)(uintptr_t)domain);
    if (with_port != HD_UNSET)
        HD_TR_ADD(t, vh, domains,
                  hd_tr_printf(t, "%s:%lld", domain, (long long)with_port));
}

/* A name and what a client in its namespace may shorten it to (istio-to-xds §7). */
static void add_domains(hd_tr_t *t, PbRoute__VirtualHost *vh, const hd_object_t *svc,
                        hd_str_t host, int64_t with_port)
{
    add_domain(t, vh, hd_tr_text(t, host), with_port);
    add_domain(t, vh, hd_tr_printf(t, "%.*s.", HD_STR_ARG(host)), with_port);
    if (svc->kind == HD_KIND_SERVICE) {
        if (hd_str_eq(svc->ns, t->proxy->ns))
            add_domain(t, vh, hd_tr_text(t, svc->name), with_port);
        add_domain(
            t, vh,
            hd_tr_printf(t, "%.*s.%.*s.svc", HD_STR_ARG(svc->name), HD_STR_ARG(svc->ns)),
            with_port);
        add_domain(
            t, vh,
            hd_tr_printf(t, "%.*s.%.*s", HD_STR_ARG(svc->name), HD_STR_ARG(svc->ns)),
            with_port);
    }
    for (hd_each(vip, svc->service->addresses)) {
        if (hd_str_find_char(*vip, '/') >= 0)
            continue;
        add_domain(t, vh,
                   hd_str_find_char(*vip, ':') >= 0
                       ? hd_tr_printf(t, "[%.*s]", HD_STR_ARG(*vip))
                       : hd_tr_text(t, *vip),
                   with_port);
    }
}

/* A domain stands once in a table: the first virtual host has it. */
static void add_vhost(const scope_t *s, PbRoute__RouteConfiguration *rc,
                      PbRoute__VirtualHost *vh)
{
    hd_tr_t *t = s->t;
    size_t kept = 0;

    for (size_t d = 0; d < vh->n_domains; d++) {
        hd_str_t domain = hd_str_c(vh->domains[d]);

        if (hd_map_get(s->domains, domain) != NULL)
            continue;
        hd_map_put(s->domains, domain, vh);
        vh->domains[kept++] = vh->domains[d];
    }
    vh->n_domains = kept;
    vh->include_request_attempt_count = true;
    if (kept > 0)
        HD_TR_ADD(t, rc, virtual_hosts, vh);
}

static PbRoute__RouteConfiguration *new_table(hd_tr_t *t, char *name)
{
    PbRoute__RouteConfiguration *rc =
        HD_TR_NEW(t, PbRoute__RouteConfiguration, pb_route__route_configuration);

    rc->name = name;
    rc->validate_clusters = hd_tr_bool(t, false);
    rc->max_direct_response_body_size_bytes = hd_tr_u32(t, 1048576);
    return rc;
}

/* --- sidecars --- */

static void add_service_vhost(const scope_t *s, PbRoute__RouteConfiguration *rc,
                              const hd_object_t *svc, hd_str_t host,
                              const hd_service_port_t *port, bool is_proxy)
{
    hd_tr_t *t = s->t;
    scope_t here = {
        .t = t, .gateway = "mesh", .port = port->number, .domains = s->domains};
    PbRoute__VirtualHost *vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);
    const hd_object_t *vs = find_vs(&here, host);

    vh->name = hd_tr_printf(t, "%.*s:%lld", HD_STR_ARG(host), (long long)port->number);
    add_domains(t, vh, svc, host, is_proxy ? port->number : HD_UNSET);
    if (vs != NULL)
        add_routes(&here, vh, vs);
    if (vh->n_routes == 0 && vs == NULL)
        add_default_route(t, vh, hd_tr_cluster_name(t, port->number, HD_STR_NONE, host),
                          "default", host);
    add_vhost(s, rc, vh);
}

/* Hosts of VirtualServices that no service of this port has: virtual hosts of their own,
 * on port 80 (istio-to-xds §7). */
static void add_vs_hosts(const scope_t *s, PbRoute__RouteConfiguration *rc)
{
    hd_tr_t *t = s->t;
    size_t n;
    const hd_object_t *const *list = hd_tr_list(t, HD_KIND_VIRTUAL_SERVICE, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (vs->http.n == 0 || !has_gateway(&vs->gateways, s->gateway) ||
            !hd_tr_sees_vs(t, list[i]))
            continue;
        for (hd_each(h, vs->hosts)) {
            PbRoute__VirtualHost *vh;
            char *domain = hd_tr_text(t, *h);

            if (hd_map_get(s->domains, *h) != NULL)
                continue;
            vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);
            vh->name = hd_tr_printf(t, "%s:80", domain);
            HD_TR_ADD(t, vh, domains, domain);
            add_routes(s, vh, list[i]);
            add_vhost(s, rc, vh);
        }
    }
}

static void add_catch_all(const scope_t *s, PbRoute__RouteConfiguration *rc,
                          bool is_proxy)
{
    hd_tr_t *t = s->t;
    PbRoute__VirtualHost *vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);

    HD_TR_ADD(t, vh, domains, "*");
    if (!is_proxy && !hd_tr_is_registry_only(t)) {
        vh->name = "allow_any";
        add_default_route(t, vh, "PassthroughCluster", "allow_any", HD_STR_NONE);
    } else { /* nowhere to pass it to: an explicit proxy, or SC-16 */
        PbRoute__Route *route = HD_TR_NEW(t, PbRoute__Route, pb_route__route);

        vh->name = "block_all";
        route->name = "block_all";
        route->match = route_match(t, NULL);
        route->action_case = PB_ROUTE__ROUTE__ACTION_DIRECT_RESPONSE;
        route->direct_response =
            HD_TR_NEW(t, PbRoute__DirectResponseAction, pb_route__direct_response_action);
        route->direct_response->status = 502;
        HD_TR_ADD(t, vh, routes, route);
    }
    add_vhost(s, rc, vh);
}

/* <port> 0: the explicit proxy's table, with all ports. */
PbRoute__RouteConfiguration *hd_tr_sidecar_routes(hd_tr_t *t, int64_t port)
{
    static const hd_kind_t kinds[] = {HD_KIND_SERVICE, HD_KIND_SERVICE_ENTRY};
    bool is_proxy = port == 0;
    PbRoute__RouteConfiguration *rc =
        new_table(t, is_proxy ? hd_tr_printf(t, "http_proxy")
                              : hd_tr_printf(t, "%lld", (long long)port));
    scope_t s = {.t = t, .gateway = "mesh", .port = port, .domains = hd_map_create()};

    if (is_proxy) {
        hd_tr_depend_kind(t, HD_KIND_SERVICE);
        hd_tr_depend_kind(t, HD_KIND_SERVICE_ENTRY);
    } else {
        hd_tr_depend_port(t, port);
    }
    rc->ignore_port_in_host_matching = !is_proxy;
    for (unsigned k = 0; k < hd_countof(kinds); k++) {
        size_t n;
        const hd_object_t *const *list = hd_model_list(t->model, kinds[k], &n);

        for (size_t i = 0; i < n; i++) {
            const hd_mesh_service_t *svc = list[i]->service;

            if (!hd_tr_sees(t, list[i]))
                continue;
            for (hd_each(host, svc->hosts)) {
                for (hd_each(p, svc->ports)) {
                    if ((is_proxy || p->number == port) &&
                        (hd_proto_is_http(p->protocol) || p->protocol == HD_PROTO_AUTO) &&
                        !hd_host_is_wildcard(*host) && hd_tr_sees_host(t, list[i], *host))
                        add_service_vhost(&s, rc, list[i], *host, p, is_proxy);
                }
            }
        }
    }
    if (port == 80)
        add_vs_hosts(&s, rc);
    add_catch_all(&s, rc, is_proxy);
    hd_map_destroy(s.domains);
    return rc;
}

PbRoute__RouteConfiguration *hd_tr_inbound_routes(hd_tr_t *t, const char *cluster,
                                                  int64_t port)
{
    PbRoute__RouteConfiguration *rc = new_table(t, hd_tr_printf(t, "%s", cluster));
    PbRoute__VirtualHost *vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);

    vh->name = hd_tr_printf(t, "inbound|http|%lld", (long long)port);
    HD_TR_ADD(t, vh, domains, "*");
    add_default_route(t, vh, rc->name, "default", HD_STR_NONE);
    HD_TR_ADD(t, rc, virtual_hosts, vh);
    return rc;
}

/* --- gateways --- */

/* A server's host as a domain: "*" stays, others as they are. */
bool hd_tr_serves_host(const hd_server_t *server, hd_str_t vs_ns, hd_str_t host,
                       hd_str_t *narrow)
{
    for (hd_each(h, server->hosts)) {
        if (!hd_str_eq(h->ns, HD_STR("*")) && !hd_str_eq(h->ns, vs_ns))
            continue;
        if (hd_host_intersects(h->host, host, narrow))
            return true;
    }
    return false;
}

static PbRoute__VirtualHost *vhost_of(PbRoute__RouteConfiguration *rc, const char *domain)
{
    for (size_t v = 0; v < rc->n_virtual_hosts; v++) {
        if (strcmp(rc->virtual_hosts[v]->domains[0], domain) == 0)
            return rc->virtual_hosts[v];
    }
    return NULL;
}

char *hd_tr_gateway_destination(hd_tr_t *t, const hd_server_t *server,
                                const hd_destination_t *d)
{
    scope_t s = {.t = t, .port = server->port.number, .any_port = true};

    return destination(&s, d);
}

/* VirtualServices of one host on one gateway are joined, the oldest first (VS-12). */
static PbRoute__VirtualHost *need_vhost(const scope_t *s, PbRoute__RouteConfiguration *rc,
                                        hd_str_t host)
{
    hd_tr_t *t = s->t;
    char *domain = hd_tr_text(t, host);
    PbRoute__VirtualHost *vh = vhost_of(rc, domain);

    if (vh == NULL) {
        vh = HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);
        vh->name = hd_tr_printf(t, "%s:%lld", domain, (long long)s->port);
        vh->include_request_attempt_count = true;
        HD_TR_ADD(t, vh, domains, domain);
        HD_TR_ADD(t, rc, virtual_hosts, vh);
    }
    return vh;
}

/* Whatever comes for one of the server's hosts is sent to HTTPS (GW-TLS-1). */
static void add_redirects(const scope_t *s, PbRoute__RouteConfiguration *rc,
                          const hd_server_t *server)
{
    for (hd_each(h, server->hosts))
        need_vhost(s, rc, h->host)->require_tls =
            PB_ROUTE__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__ALL;
}

/* A VirtualService's host meets each of the server's hosts that it may serve (GW-9); in a
 * virtual host it stands once, however many of its hosts lead there. */
static void join_host(const scope_t *s, PbRoute__RouteConfiguration *rc,
                      const hd_server_t *server, const hd_object_t *vs, hd_str_t host)
{
    for (hd_each(h, server->hosts)) {
        PbRoute__VirtualHost *vh;
        hd_str_t narrow, pair;

        if ((!hd_str_eq(h->ns, HD_STR("*")) && !hd_str_eq(h->ns, vs->ns)) ||
            !hd_host_intersects(h->host, host, &narrow))
            continue;
        vh = need_vhost(s, rc, narrow);
        pair = hd_str_printf(s->t->pool, "%p %p", (const void *)vh, (const void *)vs);
        if (hd_map_put(s->domains, pair, vh) == NULL)
            add_routes(s, vh, vs);
    }
}

static bool is_catch_all(const PbRoute__RouteMatch *m)
{
    return m->path_specifier_case == PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX &&
           strcmp(m->prefix, "/") == 0 && m->n_headers == 0 && m->n_query_parameters == 0;
}

/* What takes all comes behind what other VirtualServices of the host take (VS-12). */
static void sort_routes(hd_tr_t *t, PbRoute__VirtualHost *vh)
{
    PbRoute__Route **sorted = hd_pool_new_n(t->pool, PbRoute__Route *, vh->n_routes + 1);
    size_t n = 0;

    for (int last = 0; last < 2; last++) {
        for (size_t i = 0; i < vh->n_routes; i++) {
            if (is_catch_all(vh->routes[i]->match) == (last == 1))
                sorted[n++] = vh->routes[i];
        }
    }
    vh->routes = sorted;
}

static void add_server(hd_tr_t *t, PbRoute__RouteConfiguration *rc, hd_map_t *joined,
                       const hd_object_t *gateway, const hd_server_t *server)
{
    scope_t s = {.t = t,
                 .gateway = hd_tr_printf(t, "%.*s/%.*s", HD_STR_ARG(gateway->ns),
                                         HD_STR_ARG(gateway->name)),
                 .port = server->port.number,
                 .any_port = true,
                 .domains = joined};
    size_t n;
    const hd_object_t *const *list = hd_model_list(t->model, HD_KIND_VIRTUAL_SERVICE, &n);

    hd_part_depend(t->part, HD_DEP_GATEWAY, hd_str_c(s.gateway), HD_STR_NONE);
    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (!has_gateway(&vs->gateways, s.gateway) ||
            !hd_is_exported(&vs->export_to, list[i]->ns, gateway->ns))
            continue;
        for (hd_each(h, vs->hosts))
            join_host(&s, rc, server, list[i], *h);
    }
    if (server->tls != NULL && server->tls->https_redirect)
        add_redirects(&s, rc, server);
}

PbRoute__RouteConfiguration *hd_tr_gateway_routes(hd_tr_t *t, int64_t target)
{
    PbRoute__RouteConfiguration *rc =
        new_table(t, hd_tr_printf(t, "http.%lld", (long long)target));
    hd_map_t *joined = hd_map_create();
    size_t n;
    const hd_object_t *const *list = hd_tr_list(t, HD_KIND_GATEWAY, &n);

    rc->ignore_port_in_host_matching = true;
    for (size_t i = 0; i < n; i++) {
        const hd_gateway_t *gw = list[i]->gateway;

        if (!hd_labels_match(&gw->selector, hd_tr_labels(t)))
            continue;
        for (hd_each(server, gw->servers)) {
            if (hd_proto_is_http(server->port.protocol) &&
                hd_tr_gateway_target(t, server->port.number, true) == target)
                add_server(t, rc, joined, list[i], server);
        }
    }
    hd_map_destroy(joined);
    for (size_t v = 0; v < rc->n_virtual_hosts; v++)
        sort_routes(t, rc->virtual_hosts[v]);
    if (rc->n_virtual_hosts == 0) { /* an empty table answers 404 to all */
        PbRoute__VirtualHost *vh =
            HD_TR_NEW(t, PbRoute__VirtualHost, pb_route__virtual_host);

        vh->name = hd_tr_printf(t, "blackhole:%lld", (long long)target);
        HD_TR_ADD(t, vh, domains, "*");
        HD_TR_ADD(t, rc, virtual_hosts, vh);
    }
    return rc;
}
