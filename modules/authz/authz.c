/* authz: who may do what, by the peer's verified identity and the request:
 *     authz deny  policy=no-admin path=/admin*;
 *     authz allow policy=callers  principal=cluster.local/ns/shop/sa/page method=GET;
 * or by xDS (HTTP and network RBAC). A deny that matches refuses; else, where any allow
 * stands, one must match (AP-EVAL-1). Refused is 403 "RBAC: access denied", for gRPC
 * status 7, for a conn its end (AP-EVAL-10, AP-EVAL-11).
 */
#include "ext/http_rbac.pb-c.h"
#include "ext/net_rbac.pb-c.h"
#include "lib/pb_unpack.h"
#include "rules.h"

#include <stdlib.h>

#define DETAILS "rbac_access_denied_matched_policy"

void policy_init(hd_pool_t *pool, policy_t *p, hd_str_t name, cond_t cond)
{
    p->name = name;
    p->details =
        hd_str_to_c(pool, hd_str_printf(pool, DETAILS "[%.*s]", HD_STR_ARG(name)));
    p->cond = cond;
}

/* --- counts --- */

enum { ALLOWED, DENIED, LOGGED, SHADOW_ALLOWED, SHADOW_DENIED, RESULTS_N };

static const char *const result_names[] = {"allowed", "denied", "logged",
                                           "shadow_allowed", "shadow_denied"};
static const char *const labels[] = {"policy", "result", NULL};
static const hd_family_t family = {
    .name = "heddle_authz_decisions_total",
    .help = "What authorization policies decided, by the policy that did",
    .kind = HD_COUNTER,
    .labels = labels,
};

/* One series for each policy ("none" comes last) and result, entered when it is first
 * counted in. */
static void *create_series(hd_member_t *m, const void *owner, const void *arg,
                           hd_err_t *err)
{
    const rules_t *rules = arg;

    (void)m;
    (void)owner;
    (void)err;
    return calloc((size_t)rules->policies_n + 1, sizeof(hd_series_t[RESULTS_N]));
}

static void destroy_series(hd_member_t *m, void *companion)
{
    (void)m;
    free(companion);
}

static const hd_companion_type_t series_type = {
    .name = "authz series", .create = create_series, .destroy = destroy_series};

static hd_series_t enter_series(hd_member_t *m, const policy_t *p, hd_str_t prefix,
                                int result)
{
    hd_family_id_t id = hd_family_enter(m, &family);
    hd_str_t values[2] = {p != NULL ? p->name : HD_STR("none"),
                          hd_str_c(result_names[result])};
    char name[256];
    int n;

    if (prefix.len > 0) {
        n = snprintf(name, sizeof(name), "%.*s%.*s", HD_STR_ARG(prefix),
                     HD_STR_ARG(values[0]));
        values[0] = hd_str_n(name, hd_min((size_t)n, sizeof(name) - 1));
    }
    return id == 0 ? 0 : hd_series_enter(m, id, values);
}

static void count(const cond_subject_t *s, const rules_t *rules, const policy_t *p,
                  hd_str_t prefix, int result)
{
    size_t at = p != NULL ? (size_t)(p - rules->policies) : rules->policies_n;
    hd_series_t(*all)[RESULTS_N];

    if (s->region == NULL) /* built for a test */
        return;
    all = hd_companion_of_part(s->member, &series_type, s->region, rules, rules, NULL);
    if (all == NULL)
        return;
    if (all[at][result] == 0)
        all[at][result] = enter_series(s->member, p, prefix, result);
    hd_counter_add(s->member, all[at][result], 1);
}

/* --- judging --- */

static const policy_t *find_policy(const rules_t *rules, cond_subject_t *s)
{
    s->keeps_out = rules->action == RULES_DENY;
    for (uint32_t i = 0; i < rules->policies_n; i++) {
        if (cond_is_true(&rules->policies[i].cond, s))
            return &rules->policies[i];
    }
    return NULL;
}

/* NULL: let in; else why not, for the log. */
static const char *judge(const rules_t *rules, cond_subject_t *s)
{
    const policy_t *p;

    s->failed = false;
    p = find_policy(rules, s);
    if (rules->action == RULES_LOG) {
        if (p != NULL)
            count(s, rules, p, HD_STR_NONE, LOGGED);
        return NULL;
    }
    if (s->failed) { /* a pattern that gave up: nobody knows what it would have said */
        count(s, rules, NULL, HD_STR_NONE, DENIED);
        return DETAILS "[unknown]";
    }
    if (rules->action == RULES_DENY) {
        if (p == NULL)
            return NULL;
        count(s, rules, p, HD_STR_NONE, DENIED);
        return p->details;
    }
    count(s, rules, p, HD_STR_NONE, p != NULL ? ALLOWED : DENIED);
    return p != NULL ? NULL : DETAILS "[none]";
}

static void judge_shadow(const authz_conf_t *ac, cond_subject_t *s)
{
    const policy_t *p = find_policy(ac->shadow, s);
    bool is_allowed = (ac->shadow->action == RULES_DENY) == (p == NULL);

    if (ac->shadow->action != RULES_LOG)
        count(s, ac->shadow, p, ac->shadow_prefix,
              is_allowed ? SHADOW_ALLOWED : SHADOW_DENIED);
}

static const char *judge_all(const authz_conf_t *ac, cond_subject_t *s)
{
    const char *why = NULL;

    if (ac->shadow != NULL)
        judge_shadow(ac, s);
    for (unsigned i = 0; i < hd_countof(ac->rules) && why == NULL; i++) {
        if (ac->rules[i] != NULL)
            why = judge(ac->rules[i], s);
    }
    return why;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const authz_conf_t *ac = conf;
    cond_subject_t s = {.req = req,
                        .conn = hd_req_conn(req),
                        .member = hd_req_member(req),
                        .region = ac->region};
    const char *why = judge_all(ac, &s);

    if (why == NULL)
        return HD_OK;
    if (hd_req_is_grpc(req))
        return hd_req_answer_grpc(req, 7, HD_STR("RBAC: access denied"), NULL, why);
    return hd_req_answer(req, 403, HD_STR("text/plain"), HD_STR("RBAC: access denied"),
                         NULL, why);
}

static hd_rc_t on_conn(hd_conn_t *c, const void *conf)
{
    const authz_conf_t *ac = conf;
    cond_subject_t s = {
        .conn = c, .member = hd_loop_member(c->loop), .region = ac->region};
    const char *why = judge_all(ac, &s);

    return why == NULL ? HD_OK : hd_conn_fail(c, HD_E_DENIED, "%s", why);
}

/* --- xDS --- */

typedef hd_rc_t read_pt(hd_conf_t *cf, const void *msg, authz_conf_t *ac, hd_err_t *err);

static hd_rc_t build(hd_conf_t *cf, const ProtobufCMessageDescriptor *type,
                     hd_str_t bytes, read_pt *read, authz_conf_t *ac, hd_err_t *err)
{
    hd_pb_arena_t arena;
    const void *msg;
    hd_rc_t rc = HD_ERROR;

    ac->region = cf->region;
    hd_pb_arena_init(&arena, 8 << 20);
    msg = pb_unpack(type, bytes, &arena, "rbac: ", err);
    if (msg != NULL)
        rc = read(cf, msg, ac, err);
    hd_pb_arena_deinit(&arena);
    return rc;
}

static hd_rc_t refuse_matcher(hd_err_t *err)
{
    return hd_err_set(
        err, HD_E_RESOURCE,
        "rbac: matcher is not supported, rules are; access can't be judged");
}

static hd_rc_t set_http(hd_conf_t *cf, const PbHttpRbac__RBAC *r, authz_conf_t *ac,
                        hd_err_t *err)
{
    if (r->matcher != NULL || r->shadow_matcher != NULL)
        return refuse_matcher(err);
    ac->shadow_prefix = pb_str(cf->pool, r->shadow_rules_stat_prefix);
    if (rules_read(cf, r->rules, &ac->rules[0], err) != HD_OK)
        return HD_ERROR;
    return rules_read(cf, r->shadow_rules, &ac->shadow, err);
}

static hd_rc_t read_http(hd_conf_t *cf, const void *msg, authz_conf_t *ac, hd_err_t *err)
{
    return set_http(cf, msg, ac, err);
}

static hd_rc_t read_route(hd_conf_t *cf, const void *msg, authz_conf_t *ac, hd_err_t *err)
{
    const PbHttpRbac__RBACPerRoute *r = msg;

    return r->rbac == NULL ? HD_OK : set_http(cf, r->rbac, ac, err);
}

static hd_rc_t read_network(hd_conf_t *cf, const void *msg, authz_conf_t *ac,
                            hd_err_t *err)
{
    const PbNetRbac__RBAC *r = msg;

    if (r->matcher != NULL || r->shadow_matcher != NULL)
        return refuse_matcher(err);
    if (r->enforcement_type !=
        PB_NET_RBAC__RBAC__ENFORCEMENT_TYPE__ONE_TIME_ON_FIRST_BYTE)
        return hd_err_set(err, HD_E_RESOURCE,
                          "rbac: enforcement_type CONTINUOUS is not supported");
    ac->shadow_prefix = pb_str(cf->pool, r->shadow_rules_stat_prefix);
    if (rules_read(cf, r->rules, &ac->rules[0], err) != HD_OK)
        return HD_ERROR;
    return rules_read(cf, r->shadow_rules, &ac->shadow, err);
}

static hd_rc_t build_http(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                          hd_err_t *err)
{
    return build(
        cf, is_route ? HD_PB(pb_http_rbac__rbacper_route) : HD_PB(pb_http_rbac__rbac),
        bytes, is_route ? read_route : read_http, conf, err);
}

static hd_rc_t build_route(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                           hd_err_t *err)
{
    (void)is_route;
    return build(cf, HD_PB(pb_http_rbac__rbacper_route), bytes, read_route, conf, err);
}

static hd_rc_t build_network(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                             hd_err_t *err)
{
    (void)is_route;
    return build(cf, HD_PB(pb_net_rbac__rbac), bytes, read_network, conf, err);
}

static const hd_directive_t directives[] = {
    {.name = "authz",
     .scope =
         HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = authz_set,
     .help = "off | allow|deny [policy=NAME] [[not_]principal=V,…] [[not_]namespace=V,…] "
             "[[not_]service_account=NS/NAME,…] [[not_]trust_domain=V,…] "
             "[[not_]ip=CIDR,…] [[not_]remote_ip=CIDR,…] [[not_]port=N,…] "
             "[[not_]sni=V,…] [[not_]method=V,…] [[not_]host=V,…] [[not_]path=V,…] "
             "[[not_]header=NAME:V,…]: a request is refused where a deny matches, or "
             "where allows stand and none does. All parameters must match, of each one "
             "value; V is x, x*, *x or *, in path= also with {*} and {**}"},
    {0},
};

static const hd_xds_type_t xds_types[] = {
    {.url = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
     .build = build_http},
    {.url = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
     .build = build_route},
    {.url = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
     .build = build_network,
     .is_network = true},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "authz",
    .directives = directives,
    .conf_size = sizeof(authz_conf_t),
    .phase = HD_PHASE_ACCESS,
    .order = 3,
    .xds_types = xds_types,
    .on_request_headers = on_request_headers,
    .on_conn = on_conn,
};
