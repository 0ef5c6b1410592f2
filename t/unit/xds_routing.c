/* What requests get by resources of a real istiod: the cluster, redirect or answer of a
 * route, and the filter chain of a conn. Reads t/fixtures/istiod. */
#include "xds_test.h"
#include "core/net/hd_listener.h"
#include "http/hd_request.h"

typedef struct {
    xds_world_t *w;
    hd_member_t *m;
    unsigned bad;
} mesh_t;

static void build(void *arg, hd_xds_kind_t kind, const PbDiscovery__Resource *r)
{
    mesh_t *mesh = arg;
    hd_xds_built_t out;
    hd_err_t err = {0};

    if (kind == HD_XDS_KINDS_N || strcmp(r->name, "connect_originate") == 0)
        return;
    if (hd_xds_build(&mesh->w->env, kind, hd_str_c(r->name),
                     hd_str_n((char *)r->resource->value.data, r->resource->value.len),
                     hd_str_c(r->version), &out, &err) != HD_OK) {
        diag("%s", err.text);
        mesh->bad++;
    }
}

static mesh_t load(const char *file)
{
    mesh_t mesh = {.w = xds_world(true)};

    mesh.w->env.batch = hd_batch_begin(mesh.w->arena);
    xds_each(file, build, &mesh);
    hd_ignore(hd_batch_publish(mesh.w->env.batch, 1) == 0);
    mesh.m = mesh.w->member;
    hd_turn_begin(mesh.m);
    ok(mesh.bad == 0, "%s is built", file);
    return mesh;
}

static void end(mesh_t *mesh)
{
    hd_turn_sleep(mesh->m);
    xds_world_end(mesh->w);
}

static const hd_region_t *get(mesh_t *mesh, hd_res_type_t type, const char *name)
{
    const hd_slot_t *slot = hd_slot_find(mesh->m, mesh->w->arena, type, hd_str_c(name));

    return slot != NULL ? hd_slot_get(mesh->m, slot) : NULL;
}

/* --- routes --- */

typedef struct {
    const char *what, *method, *host, *path; /* with query */
    const char *headers[5];                  /* name, value, … */
    const char *want;
} row_t;

/* "proxy A*90 B*10 to HOST prefix P timeout N tries N", "redirect 308 …", "answer 418" */
static hd_str_t describe(hd_pool_t *pool, const hd_route_t *r)
{
    const hd_proxy_conf_t *p;
    hd_str_t s;

    if (r == NULL)
        return HD_STR("none");
    if (r->action == HD_ACT_ANSWER)
        return hd_str_printf(pool, "answer %u %.*s", r->status,
                             HD_STR_ARG(r->text->parts[0].text));
    if (r->action == HD_ACT_REDIRECT)
        return hd_str_printf(pool, "redirect %u %.*s://%.*s%.*s", r->status,
                             HD_STR_ARG(r->redirect->scheme),
                             HD_STR_ARG(r->redirect->host), HD_STR_ARG(r->redirect->path));
    p = r->proxy;
    s = HD_STR("proxy");
    for (uint32_t i = 0; i < p->targets_n; i++) {
        ssize_t bar = hd_str_find(p->targets[i].cluster_name, HD_STR("|v"));
        hd_str_t name = bar < 0
                            ? p->targets[i].cluster_name
                            : hd_str_sub(p->targets[i].cluster_name, (size_t)bar + 1, 2);

        s = hd_str_printf(pool, "%.*s %.*s*%u", HD_STR_ARG(s), HD_STR_ARG(name),
                          p->targets[i].weight);
    }
    if (p->host.len > 0)
        s = hd_str_printf(pool, "%.*s host %.*s", HD_STR_ARG(s), HD_STR_ARG(p->host));
    if (p->has_uri)
        s = hd_str_printf(pool, "%.*s prefix %.*s by %.*s", HD_STR_ARG(s),
                          HD_STR_ARG(r->matched_prefix), HD_STR_ARG(p->uri_prefix));
    if (p->rewrite.text.len > 0)
        s = hd_str_printf(pool, "%.*s all by %.*s", HD_STR_ARG(s),
                          HD_STR_ARG(p->rewrite_to));
    if (p->timeout_ms > 0 || p->try_timeout_ms > 0)
        s = hd_str_printf(pool, "%.*s timeout %u/%u tries %u", HD_STR_ARG(s),
                          p->timeout_ms, p->try_timeout_ms, p->tries_max);
    return s;
}

static const hd_route_t *find(mesh_t *mesh, const hd_region_t *r, const row_t *row,
                              hd_pool_t *pool)
{
    hd_req_t *req = hd_pool_new(pool, hd_req_t);
    hd_str_t path = hd_str_c(row->path);
    ssize_t at = hd_str_find_char(path, '?');

    req->pool = pool;
    req->member = mesh->m;
    req->routes_region = r;
    req->head.method = hd_str_c(row->method);
    req->head.authority = hd_str_c(row->host);
    req->head.scheme = HD_STR("http");
    req->head.raw_path = path;
    req->head.path = at < 0 ? path : hd_str_sub(path, 0, (size_t)at);
    req->head.query = at < 0 ? HD_STR_NONE : hd_str_sub(path, (size_t)at + 1, path.len);
    hd_headers_init(&req->head.headers, pool, 16);
    for (int i = 0; row->headers[i] != NULL; i += 2)
        hd_headers_add(&req->head.headers, hd_str_c(row->headers[i]),
                       hd_str_c(row->headers[i + 1]));
    req->vhost = hd_routes_find_vhost(mesh->m, r, r->root, req->head.authority);
    return req->vhost != NULL ? hd_router_find(req, req->vhost) : NULL;
}

static void check(mesh_t *mesh, const char *table, const row_t *rows, size_t n)
{
    const hd_region_t *r = get(mesh, HD_RES_ROUTES, table);

    ok(r != NULL, "there is a route table %s", table);
    for (size_t i = 0; r != NULL && i < n; i++) {
        hd_pool_t *pool = hd_pool_create(0);
        hd_str_t got = describe(pool, find(mesh, r, &rows[i], pool));

        is_str(hd_str_to_c(pool, got), rows[i].want, "%s", rows[i].what);
        hd_pool_destroy(pool);
    }
}

#define CHECK(mesh, table, rows) check(mesh, table, rows, hd_countof(rows))
#define PAGE "-delta.pb"

static void test_canary(void)
{
    static const row_t rows[] = {
        {"a tester", "GET", "reviews:9080", "/", {"end-user", "jason"}, "proxy v2*1"},
        {"near miss: another",
         "GET",
         "reviews:9080",
         "/",
         {"end-user", "jasons"},
         "proxy v1*90 v3*10"},
        {"everybody else", "GET", "reviews.shop", "/x", {0}, "proxy v1*90 v3*10"},
        {"an unknown host", "GET", "elsewhere", "/", {0}, "proxy PassthroughCluster*1"},
    };
    mesh_t mesh = load("t/fixtures/istiod/canary/shop-page-delta.pb");

    CHECK(&mesh, "9080", rows);
    end(&mesh);
}

static void test_matches(void)
{
    static const char a[] = "proxy v2*1 host reviews.internal prefix ";
    static char health[128], v2[128], isbn[128];
    const row_t rows[] = {
        {"VS-MATCH exact path and method", "GET", "reviews", "/health", {0}, health},
        {"near miss: another method", "POST", "reviews", "/health", {0}, "proxy v1*1"},
        {"near miss: more path", "GET", "reviews", "/health/x", {0}, "proxy v1*1"},
        {"prefix in any case, a query parameter",
         "GET",
         "reviews",
         "/V2/x?lang=en",
         {0},
         v2},
        {"near miss: another value",
         "GET",
         "reviews",
         "/v2/x?lang=de",
         {0},
         "proxy v1*1"},
        {"near miss: no query", "GET", "reviews", "/v2/x", {0}, "proxy v1*1"},
        {"regexes of path and header",
         "GET",
         "reviews",
         "/isbn/0123456789",
         {"cookie", "a=b;user=jason"},
         isbn},
        {"near miss: the regex matches a part only",
         "GET",
         "reviews",
         "/isbn/01234567890123",
         {"cookie", "user=jason"},
         "proxy v1*1"},
        {"near miss: another cookie",
         "GET",
         "reviews",
         "/isbn/0123456789",
         {"cookie", "user=jasons"},
         "proxy v1*1"},
        {"redirect", "GET", "reviews", "/old", {0}, "redirect 308 https://page.shop/new"},
        {"near miss: the header that must not be there",
         "GET",
         "reviews",
         "/old",
         {"x-keep", ""},
         "proxy v1*1"},
        {"direct response",
         "GET",
         "reviews",
         "/teapot",
         {0},
         "answer 418 short and stout"},
        {"the rest", "GET", "reviews", "/", {0}, "proxy v1*1"},
    };
    mesh_t mesh = load("t/fixtures/istiod/matches/shop-page-delta.pb");

    snprintf(health, sizeof(health), "%s/health by /reviews/", a);
    snprintf(v2, sizeof(v2), "%s/v2/ by /reviews/", a);
    snprintf(isbn, sizeof(isbn), "proxy v2*1 host reviews.internal all by /reviews/");
    CHECK(&mesh, "9080", rows);
    end(&mesh);
}

static void test_resilience(void)
{
    static const row_t rows[] = {
        {"VS-RETRY: timeouts and tries",
         "GET",
         "reviews",
         "/",
         {0},
         "proxy v1*1 timeout 3000/700 tries 5"},
    };
    mesh_t mesh = load("t/fixtures/istiod/resilience/shop-page-delta.pb");
    const hd_region_t *r = get(&mesh, HD_RES_ROUTES, "9080");
    hd_pool_t *pool = hd_pool_create(0);
    const hd_route_t *route = find(&mesh, r, rows, pool);
    const xds_stub_conf_t *conf;

    CHECK(&mesh, "9080", rows);
    is_int(route->filters_n, 2, "the module of faults and that of retries get their own");
    conf = route->filters[0].conf;
    ok(hd_str_eq(route->filters[0].name, HD_STR("envoy.filters.http.fault")) &&
           conf->is_route && conf->bytes.len > 10,
       "faults by the filter's name");
    conf = route->filters[1].conf;
    ok(conf->is_route && conf->bytes.len > 20, "the retry policy as it came");
    hd_pool_destroy(pool);
    end(&mesh);
}

/* --- chains --- */

typedef struct {
    const char *what;
    uint16_t port;
    const char *transport, *app, *alpn; /* alpn: in wire form */
    const char *want;                   /* name, TLS, protocol, filters */
} chain_row_t;

static hd_str_t describe_chain(hd_pool_t *pool, const hd_filter_chain_t *c)
{
    const hd_http_conf_t *http;
    hd_str_t s;

    if (c == NULL)
        return HD_STR("none");
    s = hd_str_printf(pool, "%.*s %s %s", HD_STR_ARG(c->name),
                      c->tls == NULL ? "plain"
                      : c->tls->verify == HD_TLS_VERIFY_REQUIRED && c->tls->is_mesh
                          ? "mtls"
                          : "tls",
                      hd_protocol_get(c->protocol)->name);
    for (uint32_t i = 0; i < c->filters_n; i++)
        if (hd_str_has_prefix(c->filters[i].name, HD_STR("envoy.filters.network.")))
            s = hd_str_printf(pool, "%.*s +%.*s", HD_STR_ARG(s),
                              HD_STR_ARG(hd_str_sub(c->filters[i].name, 22, 99)));
    if (c->protocol != hd_http_protocol())
        return s;
    http = c->protocol_conf;
    for (uint32_t i = 0; i < http->filters_n; i++)
        if (hd_str_has_prefix(http->filters[i].name, HD_STR("envoy.filters.http.")))
            s = hd_str_printf(pool, "%.*s +%.*s", HD_STR_ARG(s),
                              HD_STR_ARG(hd_str_sub(http->filters[i].name, 19, 99)));
    return s;
}

static void check_chains(mesh_t *mesh, const chain_row_t *rows, size_t n)
{
    const hd_region_t *r = get(mesh, HD_RES_LISTENER, "virtualInbound");

    ok(r != NULL, "there is a listener virtualInbound");
    for (size_t i = 0; r != NULL && i < n; i++) {
        hd_conn_facts_t facts = {.transport = hd_str_c(rows[i].transport),
                                 .app_protocol = hd_str_c(rows[i].app),
                                 .offered_alpn = hd_str_c(rows[i].alpn),
                                 .original_dst = {.family = AF_INET,
                                                  .v4 = {127, 0, 0, 9},
                                                  .port = rows[i].port}};
        hd_conn_t c = {.facts = &facts,
                       .remote = {.family = AF_INET, .v4 = {127, 0, 0, 8}, .port = 999}};
        hd_pool_t *pool = hd_pool_create(0);

        is_str(hd_str_to_c(pool, describe_chain(pool, hd_listener_match(r->root, &c))),
               rows[i].want, "%s", rows[i].what);
        hd_pool_destroy(pool);
    }
}

#define HTTP_ALPN "\016istio-http/1.1\005istio\010http/1.1"

static void test_mtls(void)
{
    static const chain_row_t rows[] = {
        {"STRICT: HTTP port, TLS", 9080, "tls", "", HTTP_ALPN,
         "0.0.0.0_9080 mtls http +fault"},
        {"STRICT: HTTP port, plain", 9080, "raw_buffer", "http/1.1", "", "none"},
        {"a port with mTLS off: plain HTTP", 9090, "raw_buffer", "http/1.1", "",
         "virtualInbound-catchall-http plain http +fault"},
        {"the same port, no HTTP", 9090, "raw_buffer", "", "",
         "virtualInbound plain tcp"},
        {"the same port, TLS", 9090, "tls", "", HTTP_ALPN, "none"},
        {"another port, HTTP of the mesh", 7000, "tls", "", HTTP_ALPN,
         "virtualInbound-catchall-http mtls http +fault"},
        {"another port, TCP of the mesh", 7000, "tls", "", "\005istio",
         "virtualInbound mtls tcp"},
        {"another port, TLS of the application", 7000, "tls", "", "\002h2",
         "virtualInbound plain tcp"},
        {"our own port: nothing serves it", 15006, "raw_buffer", "http/1.1", "",
         "virtualInbound-blackhole plain tcp"},
    };
    mesh_t mesh = load("t/fixtures/istiod/mtls/shop-reviews-delta.pb");
    const hd_region_t *r = get(&mesh, HD_RES_LISTENER, "virtualInbound");
    const hd_listener_t *l = r->root;
    const hd_tls_conf_t *tls = NULL;

    check_chains(&mesh, rows, hd_countof(rows));
    is_int(l->filters, HD_LF_ORIGINAL_DST | HD_LF_TLS_INSPECTOR | HD_LF_HTTP_INSPECTOR,
           "its listener filters");
    for (uint32_t i = 0; i < l->chains_n && tls == NULL; i++)
        tls = l->chains[i].tls;
    ok(tls->certs_n == 1 && hd_str_eq(tls->certs[0]->name, HD_STR("default")) &&
           hd_str_eq(tls->trust->name, HD_STR("ROOTCA")),
       "certificate and roots by name");
    ok(tls->sans_n == 1 && tls->sans[0].kind == HD_MATCH_PREFIX &&
           hd_str_eq(tls->sans[0].text, HD_STR("spiffe://cluster.local/")),
       "the trust domain is checked");
    ok(hd_str_find(tls->alpn, HD_STR("istio-peer-exchange")) < 0,
       "the exchange that we don't speak isn't agreed to");
    end(&mesh);
}

static void test_authz(void)
{
    static const chain_row_t rows[] = {
        {"authz: HTTP, mTLS", 9080, "tls", "", HTTP_ALPN,
         "0.0.0.0_9080 mtls http +rbac +rbac +rbac +fault"},
        {"authz: HTTP, plain", 9080, "raw_buffer", "http/1.1", "",
         "0.0.0.0_9080 plain http +rbac +rbac +rbac +fault"},
        {"authz: TCP", 7000, "raw_buffer", "", "",
         "virtualInbound plain tcp +rbac +rbac +rbac"},
    };
    mesh_t mesh = load("t/fixtures/istiod/authz/shop-reviews-delta.pb");

    check_chains(&mesh, rows, hd_countof(rows));
    end(&mesh);
}

int main(void)
{
    test_canary();
    test_matches();
    test_resilience();
    test_mtls();
    test_authz();
    return done_testing();
}
