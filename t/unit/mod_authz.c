/* modules/authz: conditions and verdicts, built from directives and from RBAC messages,
 * asked of requests and conns without a network (AP-EVAL, AP-FROM, AP-TO, AP-VAL). */
#include "http/hd_request.h"
#include "loom_test.h"
#include "modules/authz/authz.c"
#include "modules/authz/cond.c"
#include "modules/authz/from_args.c"
#undef SCHEME
#include "modules/authz/from_xds.c"
#include "proto/hd_pb_reflect.h"
#include "xds/discovery.pb-c.h"

static hd_pool_t *pool;
static hd_member_t *member;
static hd_region_t *region;
static hd_err_t err;

/* --- whom we ask about --- */

typedef struct {
    const char *line;   /* "METHOD host /path" */
    const char *who;    /* the verified identity */
    const char *from;   /* the socket's other end */
    const char *fields; /* "Name: value|…" */
    const char *sni;
    uint16_t port;
} asked_t;

static hd_req_t *make_request(const asked_t *a)
{
    hd_req_t *req = hd_pool_new(pool, hd_req_t);
    hd_conn_t *c = hd_pool_new(pool, hd_conn_t);
    hd_str_t rest = hd_str_c(a->line != NULL ? a->line : "GET shop /"), one;
    hd_str_t fields = hd_str_c(a->fields);
    hd_proxied_t *proxied;

    req->pool = c->pool = pool;
    req->conn = c;
    req->member = member;
    ok(hd_addr_parse_ip(hd_str_c(a->from != NULL ? a->from : "10.0.0.9"), &c->remote));
    c->facts = hd_pool_new(pool, hd_conn_facts_t);
    c->facts->proxied = proxied = hd_pool_new(pool, hd_proxied_t);
    ok(hd_addr_parse_ip(HD_STR("10.0.0.1"), &proxied->local));
    proxied->local.port = a->port != 0 ? a->port : 9080;
    c->facts->peer_principal = hd_str_c(a->who);
    c->facts->sni = hd_str_c(a->sni);
    ok(hd_str_split(&rest, ' ', &req->head.method) &&
       hd_str_split(&rest, ' ', &req->head.authority));
    req->head.path = req->head.raw_path = rest;
    hd_headers_init(&req->head.headers, pool, 8);
    while (hd_str_split(&fields, '|', &one)) {
        ssize_t colon = hd_str_find_char(one, ':');

        hd_ignore(hd_headers_add(
                      &req->head.headers, hd_str_sub(one, 0, (size_t)colon),
                      hd_str_trim(hd_str_sub(one, (size_t)colon + 1, one.len))) == NULL);
    }
    return req;
}

/* "allowed", or the name of what refused. */
static const char *verdict(const authz_conf_t *ac, const asked_t *a, bool is_conn)
{
    hd_req_t *req = make_request(a);
    cond_subject_t s = {.req = is_conn ? NULL : req,
                        .conn = req->conn,
                        .member = member,
                        .region = region};
    const char *why = judge_all(ac, &s);

    if (why == NULL)
        return "allowed";
    why = strchr(why, '[') + 1;
    return hd_str_to_c(pool, hd_str_n(why, strlen(why) - 1));
}

/* --- directives --- */

static hd_rc_t apply(const char *text, bool is_first, unsigned scope, authz_conf_t *ac)
{
    hd_str_t args[16], rest = hd_str_c(text);
    hd_node_t node = {.file = HD_STR("t.conf"), .line = 1};
    hd_conf_t cf = {.pool = pool,
                    .temp = pool,
                    .region = region,
                    .node = &node,
                    .is_first = is_first,
                    .scope = scope};

    while (hd_str_split(&rest, ' ', &args[node.args_n]))
        node.args_n++;
    hd_err_clear(&err);
    return authz_set(&cf, args, ac, &err);
}

#define PAGE "spiffe://cluster.local/ns/shop/sa/page"
#define ADMIN "spiffe://other.org/ns/ops/sa/admin"

static const struct {
    const char *conf; /* directives, one a line */
    asked_t asked;
    const char *want;
} rows[] = {
    /* deny first, then one allow must match if any stands (AP-EVAL-1) */
    {"deny policy=d path=/admin*", {.line = "GET shop /admin/x"}, "d"},
    {"deny policy=d path=/admin*", {.line = "GET shop /public"}, "allowed"},
    {"allow policy=a method=GET", {.line = "GET shop /"}, "allowed"},
    {"allow policy=a method=GET", {.line = "POST shop /"}, "none"},
    {"allow method=GET\ndeny policy=d path=/x", {.line = "GET shop /x"}, "d"},
    {"allow method=GET\nallow method=POST", {.line = "POST shop /"}, "allowed"},
    {"allow method=GET path=/a", {.line = "GET shop /b"}, "none"},
    {"allow", {.line = "GET shop /"}, "allowed"}, /* AP-EVAL-4 */
    {"deny policy=all", {.line = "GET shop /"}, "all"},
    /* value forms (AP-VAL-1); a '*' in the middle is literal */
    {"allow path=/a*c", {.line = "GET shop /abc"}, "none"},
    {"allow path=/a*c", {.line = "GET shop /a*c"}, "allowed"},
    {"allow path=*.png", {.line = "GET shop /x/y.png"}, "allowed"},
    {"allow path=*.png", {.line = "GET shop /x/y.png/z"}, "none"},
    {"allow path=/a,/b", {.line = "GET shop /b"}, "allowed"},
    {"allow method=get", {.line = "GET shop /"}, "none"}, /* AP-VAL-2 */
    {"allow host=SHOP", {.line = "GET shop /"}, "allowed"},
    {"allow host=*.x.com", {.line = "GET x.com /"}, "none"},
    /* templates (AP-TO-5): a whole segment, not empty; any number of them */
    {"allow path=/a/{*}/c", {.line = "GET shop /a/b/c"}, "allowed"},
    {"allow path=/a/{*}/c", {.line = "GET shop /a//c"}, "none"},
    {"allow path=/a/{*}/c", {.line = "GET shop /a/b/b/c"}, "none"},
    {"allow path=/a/{*}", {.line = "GET shop /a/b/"}, "none"},
    {"allow path=/a/{**}", {.line = "GET shop /a/"}, "allowed"},
    {"allow path=/a/{**}", {.line = "GET shop /a"}, "none"},
    {"allow path=/a/{*}/x/{**}", {.line = "GET shop /a/b/x/y/z"}, "allowed"},
    {"allow path=/a/{**}/z", {.line = "GET shop /a/b/c/z"}, "allowed"},
    {"allow path=/a/{**}/z", {.line = "GET shop /a/z"}, "none"},
    /* identities (AP-FROM-1, -3, -4, -7); without a certificate never (AP-FROM-8) */
    {"allow principal=cluster.local/ns/shop/sa/page", {.who = PAGE}, "allowed"},
    {"allow principal=" PAGE, {.who = PAGE}, "allowed"},
    {"allow principal=cluster.local/ns/shop/sa/pag", {.who = PAGE}, "none"},
    {"allow principal=cluster.local/*", {.who = PAGE}, "allowed"},
    {"allow principal=cluster.local/*", {.who = ADMIN}, "none"},
    {"allow principal=*/sa/page", {.who = PAGE}, "allowed"},
    {"allow principal=*", {.who = PAGE}, "allowed"},
    {"allow principal=*", {.who = NULL}, "none"},
    {"allow not_principal=*", {.who = NULL}, "allowed"},
    {"deny policy=d not_namespace=shop", {.who = NULL}, "d"}, /* AP-FROM-15 */
    {"deny policy=d not_namespace=shop", {.who = PAGE}, "allowed"},
    {"allow namespace=shop", {.who = PAGE}, "allowed"},
    {"allow namespace=sho", {.who = PAGE}, "none"},
    {"allow namespace=s*,x", {.who = PAGE}, "allowed"},
    {"allow namespace=shop", {.who = "spiffe://td/ns/other/sa/ns/shop"}, "none"},
    {"allow service_account=shop/page", {.who = PAGE}, "allowed"},
    {"allow service_account=shop/pag", {.who = PAGE}, "none"},
    {"allow service_account=sho/p/page", {.who = PAGE}, "none"},
    {"allow trust_domain=cluster.local", {.who = ADMIN}, "none"},
    {"allow trust_domain=*.org", {.who = ADMIN}, "allowed"},
    {"allow namespace=shop", {.who = "spiffe://td"}, "none"},
    {"allow namespace=shop", {.who = "https://td/ns/shop/sa/x"}, "none"},
    /* addresses and ports (AP-FROM-5, AP-TO-2) */
    {"allow ip=10.0.0.0/8", {.from = "10.9.9.9"}, "allowed"},
    {"allow ip=10.0.0.0/8", {.from = "11.9.9.9"}, "none"},
    {"allow ip=2001:db8::/32", {.from = "2001:db8::1"}, "allowed"},
    {"allow not_ip=10.0.0.0/8", {.from = "11.9.9.9"}, "allowed"},
    {"allow remote_ip=10.0.0.9", {.from = "10.0.0.9"}, "allowed"},
    {"allow port=9080", {.port = 9080}, "allowed"},
    {"allow port=9080", {.port = 9081}, "none"},
    {"allow sni=*.shop", {.sni = "a.shop"}, "allowed"},
    {"allow sni=*", {.sni = NULL}, "none"},
    /* fields (AP-WHEN-1): name in any case, several joined */
    {"allow header=X-Env:prod", {.fields = "x-env: prod"}, "allowed"},
    {"allow header=x-env:prod", {.fields = "X-Env: test"}, "none"},
    {"allow header=x-env:prod,test", {.fields = "X-Env: test"}, "allowed"},
    {"allow header=x-env", {.fields = "X-Env: "}, "allowed"}, /* AP-VAL-3 */
    {"allow header=x-env", {.fields = NULL}, "none"},
    {"allow not_header=x-env:prod", {.fields = NULL}, "allowed"},
    {"allow header=x:1 header=y:2", {.fields = "x: 1|y: 2"}, "allowed"},
    {"allow header=x:1 header=y:2", {.fields = "x: 1"}, "none"},
    {"allow header=x:a", {.fields = "x: a|x: b"}, "none"},
    {"off", {.line = "GET shop /"}, "allowed"},
};

static void test_rows(void)
{
    for (unsigned i = 0; i < hd_countof(rows); i++) {
        hd_str_t rest = hd_str_c(rows[i].conf), line;
        authz_conf_t ac = {0};
        bool is_first = true;

        while (hd_str_split(&rest, '\n', &line)) {
            is_int(apply(hd_str_to_c(pool, line), is_first, HD_IN_LOCATION, &ac), HD_OK,
                   "%.*s%s", HD_STR_ARG(line), err.text);
            is_first = false;
        }
        is_str(verdict(&ac, &rows[i].asked, false), rows[i].want, "%s: %s %s %s",
               rows[i].conf, rows[i].asked.line != NULL ? rows[i].asked.line : "",
               rows[i].asked.who != NULL ? rows[i].asked.who : "",
               rows[i].asked.fields != NULL ? rows[i].asked.fields : "");
    }
}

static void test_conn(void)
{
    authz_conf_t ac = {0};
    asked_t asked = {.who = PAGE};

    is_int(apply("allow namespace=shop", true, HD_IN_STREAM_SERVER, &ac), HD_OK);
    is_str(verdict(&ac, &asked, true), "allowed", "an identity on a conn");
    asked.who = ADMIN;
    is_str(verdict(&ac, &asked, true), "none");
    ac = (authz_conf_t){0};
    is_int(apply("allow method=GET", true, HD_IN_LOCATION, &ac), HD_OK);
    is_str(verdict(&ac, &asked, true), "none", "what needs a request is false on a conn");
}

static void test_errors(void)
{
    static const struct {
        const char *text, *want;
        unsigned scope;
    } bad[] = {
        {"permit", "allow, deny or off", HD_IN_LOCATION},
        {"allow colour=red",
         "unknown parameter \"colour=red\"; allowed are policy=", HD_IN_LOCATION},
        {"allow GET", "unknown parameter", HD_IN_LOCATION},
        {"allow method=", "empty value", HD_IN_LOCATION},
        {"allow method=a,,b", "empty value", HD_IN_LOCATION},
        {"allow method=GET method=PUT", "stands twice", HD_IN_LOCATION},
        {"allow ip=10.0.0.0/40", "no IP address", HD_IN_LOCATION},
        {"allow ip=host", "no IP address", HD_IN_LOCATION},
        {"allow port=70000", "0 to 65535", HD_IN_LOCATION},
        {"allow path=/a/{**}/{*}", "nothing that varies", HD_IN_LOCATION},
        {"allow path=/a{*", "without its '}'", HD_IN_LOCATION},
        {"allow path=a/{*}", "must begin with", HD_IN_LOCATION},
        {"allow header=b[d:x", "no field name", HD_IN_LOCATION},
        {"allow service_account=page", "NAMESPACE/NAME", HD_IN_LOCATION},
        {"allow path=/x", "needs HTTP", HD_IN_STREAM_SERVER},
    };

    for (unsigned i = 0; i < hd_countof(bad); i++) {
        authz_conf_t ac = {0};

        is_int(apply(bad[i].text, true, bad[i].scope, &ac), HD_ERROR, "%s", bad[i].text);
        ok(strstr(err.text, bad[i].want) != NULL, "%s: %s", bad[i].text, err.text);
    }
}

/* --- messages --- */

static PbRbac__Permission any_permission(void)
{
    PbRbac__Permission p = PB_RBAC__PERMISSION__INIT;

    p.rule_case = PB_RBAC__PERMISSION__RULE_ANY;
    p.any = 1;
    return p;
}

/* One policy "p" for one principal, and what became of it. */
static hd_rc_t build_principal(PbRbac__Principal *principal, authz_conf_t *ac)
{
    PbRbac__Permission any = any_permission(), *anys[] = {&any};
    PbRbac__Principal *principals[] = {principal};
    PbRbac__Policy policy = PB_RBAC__POLICY__INIT;
    PbRbac__RBAC__PoliciesEntry entry = PB_RBAC__RBAC__POLICIES_ENTRY__INIT,
                                *entries[] = {&entry};
    PbRbac__RBAC rbac = PB_RBAC__RBAC__INIT;
    hd_conf_t cf = {.pool = pool, .temp = pool, .region = region};

    policy.permissions = anys;
    policy.principals = principals;
    policy.n_permissions = policy.n_principals = 1;
    entry.key = "p";
    entry.value = &policy;
    rbac.policies = entries;
    rbac.n_policies = 1;
    hd_err_clear(&err);
    return rules_read(&cf, &rbac, &ac->rules[0], &err);
}

static void test_identities(void)
{
    static const struct {
        const char *regex, *who, *want;
        int kind; /* what it became */
    } names[] = {
        {".+", PAGE, "allowed", HD_MATCH_ANY},
        {".+", NULL, "none", HD_MATCH_ANY},
        {".*/ns/shop/.*", PAGE, "allowed", HD_MATCH_CONTAINS},
        {".*/ns/sho/.*", PAGE, "none", HD_MATCH_CONTAINS},
        {".*/ns/a\\.b/.*", "spiffe://t/ns/a.b/sa/x", "allowed", HD_MATCH_CONTAINS},
        {"spiffe://.*/sa/page", PAGE, "allowed", HD_MATCH_SUFFIX},
        {"spiffe://.*/sa/pag", PAGE, "none", HD_MATCH_SUFFIX},
        {".*/ns/s.*/.*", PAGE, "allowed", HD_MATCH_REGEX},
        {"spiffe://.+/ns/shop/(.+/|)sa/page(/.+)?", PAGE, "allowed", HD_MATCH_REGEX},
        {"spiffe://.+/ns/shop/(.+/|)sa/pag(/.+)?", PAGE, "none", HD_MATCH_REGEX},
    };

    for (unsigned i = 0; i < hd_countof(names); i++) {
        PbMatcher__RegexMatcher regex = PB_MATCHER__REGEX_MATCHER__INIT;
        PbMatcher__StringMatcher string = PB_MATCHER__STRING_MATCHER__INIT;
        PbRbac__Principal__Authenticated a = PB_RBAC__PRINCIPAL__AUTHENTICATED__INIT;
        PbRbac__Principal p = PB_RBAC__PRINCIPAL__INIT;
        asked_t asked = {.who = names[i].who};
        authz_conf_t ac = {.region = region};

        regex.regex = names[i].regex;
        string.match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
        string.safe_regex = &regex;
        a.principal_name = &string;
        p.identifier_case = PB_RBAC__PRINCIPAL__IDENTIFIER_AUTHENTICATED;
        p.authenticated = &a;
        is_int(build_principal(&p, &ac), HD_OK, "%s", names[i].regex);
        is_int(ac.rules[0]->policies[0].cond.kids[1].match.kind, names[i].kind);
        is_str(verdict(&ac, &asked, false), names[i].want, "%s: %s", names[i].regex,
               names[i].who != NULL ? names[i].who : "nobody");
    }
}

/* A pattern that gives up says neither yes nor no: refused, by DENY as by ALLOW. */
static void test_given_up(void)
{
    static const cond_t costly = {
        .kind = COND_PATH,
        .match = {.kind = HD_MATCH_REGEX, .text = HD_STR_INIT("/(a|a|a)*b")}};
    char path[128] = "GET shop /";
    policy_t policy;
    rules_t rules = {.action = RULES_DENY, .policies_n = 1, .policies = &policy};
    authz_conf_t ac = {.rules = {&rules}, .region = region};
    asked_t asked = {.line = path};

    memset(path + 10, 'a', sizeof(path) - 11);
    memcpy(path + 80, "bc", 3);
    policy_init(pool, &policy, HD_STR("costly"), costly);
    is_str(verdict(&ac, &asked, false), "unknown", "a DENY that gave up refuses");
    rules.action = RULES_ALLOW;
    is_str(verdict(&ac, &asked, false), "unknown", "an ALLOW that gave up refuses");
    rules.action = RULES_LOG;
    is_str(verdict(&ac, &asked, false), "allowed", "LOG never refuses (AP-AUD-1)");
}

static void test_refused(void)
{
    PbRbac__Principal p = PB_RBAC__PRINCIPAL__INIT;
    PbMatcher__MetadataMatcher metadata = PB_MATCHER__METADATA_MATCHER__INIT;
    PbMatcher__FilterStateMatcher fs = PB_MATCHER__FILTER_STATE_MATCHER__INIT;
    authz_conf_t ac = {0};

    is_int(build_principal(&p, &ac), HD_ERROR, "no kind set");
    p.identifier_case = PB_RBAC__PRINCIPAL__IDENTIFIER_METADATA;
    p.metadata = &metadata;
    is_int(build_principal(&p, &ac), HD_ERROR, "JWT claims: refused, not 'anyone'");
    ok(strstr(err.text, "metadata") != NULL, "%s", err.text);
    p.identifier_case = PB_RBAC__PRINCIPAL__IDENTIFIER_FILTER_STATE;
    p.filter_state = &fs;
    fs.key = "something";
    is_int(build_principal(&p, &ac), HD_ERROR, "an unknown filter state");
    p.identifier_case = PB_RBAC__PRINCIPAL__IDENTIFIER_ANY;
    p.any = 0;
    is_int(build_principal(&p, &ac), HD_ERROR, "any: false");
    p.any = 1;
    is_int(build_principal(&p, &ac), HD_OK);
}

/* --- what a real istiod sent --- */

static unsigned rbacs_n, refused_n;

static void on_place(void *arg, const hd_pb_place_t *at)
{
    const Pb__Any *any;
    authz_conf_t ac = {0};
    hd_conf_t cf = {.pool = pool, .temp = pool, .region = region};
    hd_rc_t rc;

    (void)arg;
    if (at->field == NULL || at->field->descriptor != HD_PB(pb__any) ||
        at->field->label == PROTOBUF_C_LABEL_REPEATED)
        return;
    any = (const void *)hd_pb_message_at(at->message, at->field, 0);
    for (const hd_xds_type_t *t = xds_types; t->url != NULL; t++) {
        if (strcmp(t->url, any->type_url) != 0)
            continue;
        hd_err_clear(&err);
        rc = t->build(&cf, hd_str_n((const char *)any->value.data, any->value.len), false,
                      &ac, &err);
        rbacs_n++;
        if (rc != HD_OK) {
            refused_n++;
            ok(strstr(err.text, "JWT claims") != NULL, "%s", err.text);
        }
    }
}

static void test_fixture(const char *name)
{
    FILE *f = fopen(name, "rb");
    uint8_t *bytes = malloc(1 << 20), *at = bytes, *end;
    hd_pb_arena_t arena;

    if (!ok(f != NULL, "%s is there", name))
        return;
    end = bytes + fread(bytes, 1, 1 << 20, f);
    fclose(f);
    while (at < end) {
        PbDiscovery__DeltaDiscoveryResponse *res;
        size_t len = 0;

        for (unsigned shift = 0;; shift += 7) {
            len |= (size_t)(*at & 0x7f) << shift;
            if (*at++ < 0x80)
                break;
        }
        hd_pb_arena_init(&arena, (size_t)64 << 20);
        res = hd_pb_unpack(HD_PB(pb_discovery__delta_discovery_response), at, len, &arena,
                           NULL);
        ok(res != NULL && hd_pb_walk(res, (size_t)64 << 20, on_place, NULL) == HD_PB_OK);
        hd_pb_arena_deinit(&arena);
        at += len;
    }
    free(bytes);
}

int main(void)
{
    hd_state_t *state = loom_state();
    hd_arena_t *arena = loom_arena(state, HD_ARENA_FILES, 64 << 20);
    hd_batch_t *batch;
    member = hd_member_start(state, -1, HD_MEMBER_LOADER, &err);
    is_int(hd_arena_open_writer(arena, member, &err), HD_OK, "%s", err.text);
    hd_turn_begin(member);
    batch = hd_batch_begin(arena);
    region = hd_batch_region(batch, HD_RES_POLICY, HD_STR("authz"), HD_STR("test"), 0,
                             &pool, &err);
    test_rows();
    test_conn();
    test_errors();
    test_identities();
    test_given_up();
    test_refused();
    test_fixture("t/fixtures/istiod/authz/shop-reviews-delta.pb");
    ok(rbacs_n > 0, "%u RBAC filters of istiod's", rbacs_n);
    is_int(refused_n, 0, "all understood");
    test_fixture("t/fixtures/istiod/jwt/shop-reviews-delta.pb");
    ok(refused_n > 0, "those on JWT claims are refused");
    hd_batch_abort(batch);
    return done_testing();
}
