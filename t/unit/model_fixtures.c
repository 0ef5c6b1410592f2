/* The meshes that a real istiod was given, and the demo's own, decode: no field unknown,
 * no reference dangling, and what is read is what was written. */
#include "control/hd_decode.h"
#include "control/hd_model_policy.h"
#include "control/hd_model_traffic.h"
#include <glob.h>
#include "tap.h"

#define FILES "t/fixtures/istiod/*/mesh.yaml"
#define EXAMPLE "examples/mesh/*.yaml"

static hd_str_t read_file(hd_pool_t *pool, const char *path)
{
    FILE *f = fopen(path, "rb");
    char *data = hd_pool_alloc(pool, HD_YAML_BYTES_MAX);
    size_t len = f == NULL ? 0 : fread(data, 1, HD_YAML_BYTES_MAX, f);

    if (f != NULL)
        fclose(f);
    return hd_str_n(data, len);
}

/* Objects of <path> into <model>; returns how many, and says each finding above <level>.
 */
static size_t load(hd_model_t *model, const char *path, size_t *errors_n)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_decode_conf_t conf = {HD_STR("cluster.local"), HD_STR("istio-system")};
    hd_decoded_t out;
    hd_err_t err = {0};
    size_t n;

    hd_decode_text(pool, &conf, hd_str_c(path), read_file(pool, path), &out);
    for (size_t i = 0; i < out.statuses.n; i++) {
        if (out.statuses.items[i].severity != HD_STATUS_ERROR)
            continue;
        (*errors_n)++;
        diag("%s", hd_status_print(pool, &out.statuses.items[i]).data);
    }
    n = out.n;
    if (hd_model_put_unit(model, hd_str_c(path), out.objs, out.n, &out.statuses, out.keep,
                          &err) != HD_OK)
        diag("%s", err.text);
    hd_pool_destroy(pool);
    return n;
}

/* Findings but those of kinds without effect. */
static size_t count_warnings(hd_model_t *model)
{
    size_t n, count = 0;
    const hd_status_t *s = hd_model_statuses(model, &n);
    hd_pool_t *pool = hd_pool_create(0);

    for (size_t i = 0; i < n; i++) {
        if (hd_str_find(s[i].text, HD_STR("not supported")) >= 0)
            continue;
        diag("%s", hd_status_print(pool, &s[i]).data);
        count++;
    }
    hd_pool_destroy(pool);
    return count;
}

static void test_all(void)
{
    glob_t found;

    if (glob(FILES, 0, NULL, &found) != 0) {
        fail("no fixtures: run from the repository's top");
        return;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        hd_model_t *model = hd_model_create(NULL);
        size_t errors_n = 0, n = load(model, found.gl_pathv[i], &errors_n);

        hd_model_commit(model);
        is_int(errors_n, 0, "%s: no errors", found.gl_pathv[i]);
        ok(n >= 24, "%s: %zu objects", found.gl_pathv[i], n);
        is_int(count_warnings(model), 0, "%s: nothing dangles", found.gl_pathv[i]);
        hd_model_destroy(model);
    }
    globfree(&found);
}

static hd_model_t *load_one(const char *path)
{
    hd_model_t *model = hd_model_create(NULL);
    size_t errors_n = 0;

    load(model, path, &errors_n);
    hd_model_commit(model);
    return model;
}

static const hd_object_t *need(hd_model_t *model, hd_kind_t kind, const char *ns,
                               const char *name)
{
    const hd_object_t *obj = hd_model_get(model, kind, hd_str_c(ns), hd_str_c(name));

    if (obj == NULL) {
        printf("Bail out! no %s %s/%s\n", hd_kind_name(kind), ns, name);
        exit(1);
    }
    return obj;
}

static void test_matches(void)
{
    hd_model_t *m = load_one("t/fixtures/istiod/matches/mesh.yaml");
    const hd_virtual_service_t *vs =
        need(m, HD_KIND_VIRTUAL_SERVICE, "shop", "reviews")->virtual_service;
    const hd_http_route_t *r = vs->http.items;

    is_str(vs->hosts.items[0].data, "reviews.shop.svc.cluster.local", "HOST-1");
    is_str(vs->gateways.items[0].data, "mesh", "VS-2");
    is_int(vs->http.n, 4);
    is_int(r[0].match.n, 3);
    is_int(r[0].match.items[0].uri->kind, HD_STRMATCH_EXACT);
    is_str(r[0].match.items[0].method->value.data, "GET");
    ok(r[0].match.items[1].ignore_uri_case);
    is_str(r[0].match.items[1].query_params.items[0].key.data, "lang");
    is_int(r[0].match.items[2].headers.items[0].match.kind, HD_STRMATCH_REGEX);
    is_int(r[0].match.items[0].port, HD_UNSET);
    is_str(r[0].rewrite->authority.data, "reviews.internal");
    is_str(r[0].headers.request.set.items[0].key.data, "x-route");
    is_str(r[0].headers.request.remove.items[0].data, "x-secret");
    is_int(r[0].route.items[0].destination.port, 9080);
    is_int(r[1].redirect->code, 308);
    is_int(r[1].match.items[0].without_headers.items[0].match.kind, HD_STRMATCH_PRESENT,
           "VS-MATCH-16: {} is presence");
    is_int(r[2].direct_response->status, 418);
    is_str(r[2].direct_response->body.data, "short and stout");
    is_int(r[3].timeout_ns, HD_UNSET);
    hd_model_destroy(m);
}

static void test_resilience(void)
{
    hd_model_t *m = load_one("t/fixtures/istiod/resilience/mesh.yaml");
    const hd_http_route_t *r =
        need(m, HD_KIND_VIRTUAL_SERVICE, "shop", "reviews")->virtual_service->http.items;
    const hd_traffic_blocks_t *b = &need(m, HD_KIND_DESTINATION_RULE, "shop", "reviews")
                                        ->destination_rule->policy->blocks;
    const hd_hash_t *hash = need(m, HD_KIND_DESTINATION_RULE, "shop", "details")
                                ->destination_rule->policy->blocks.lb->hash;

    is_int(r->timeout_ns, INT64_C(3000000000));
    is_int(r->retries->attempts, 4);
    is_int(r->retries->per_try_timeout_ns, 700000000);
    is_int(r->retries->conditions.n, 4);
    is_int(r->retries->status_codes.items[0], 503, "VS-RETRY-8");
    is_int(r->retries->remote_localities, 1);
    is_int(r->retries->ignore_previous_hosts, HD_UNSET);
    is_int(r->fault->delay_ppm, 125000, "VS-FAULT-1: 12.5 percent");
    is_int(r->fault->abort_ppm, 1000, "0.1 percent");
    is_int(r->fault->abort_http_status, 500);
    is_int(r->fault->abort_grpc_status, HD_UNSET);
    is_int(r->mirrors.items[0].ppm, 200000);
    is_int(r->cors->allow_origins.n, 2);
    is_int(r->cors->max_age_ns, INT64_C(86400000000000));
    is_int(b->lb->kind, HD_DR_LB_LEAST_REQUEST);
    is_int(b->lb->warmup_ns, INT64_C(30000000000));
    ok(b->lb->warmup_min_percent == 10, "DR-LB-10: its default");
    is_str(b->lb->locality->failover_priority.items[0].data,
           "topology.kubernetes.io/zone");
    is_int(b->pool->max_connections, 100);
    is_int(b->pool->max_concurrent_streams, 64);
    is_int(b->pool->tcp_keepalive->probes, 3);
    is_int(b->pool->tcp_idle_timeout_ns, HD_UNSET);
    is_int(b->pool->http_idle_timeout_ns, INT64_C(30000000000));
    is_int(b->outlier->min_health_percent, 20);
    is_int(b->outlier->consecutive_local, HD_UNSET);
    is_int(b->proxy_protocol, HD_UNSET);
    is_str(hash->cookie.data, "session");
    is_int(hash->ring_size, 2048);
    hd_model_destroy(m);
}

static void test_security(void)
{
    hd_model_t *m = load_one("t/fixtures/istiod/mtls/mesh.yaml");
    const hd_peer_auth_t *pa =
        need(m, HD_KIND_PEER_AUTHENTICATION, "shop", "reviews")->peer_auth;
    hd_model_t *a = load_one("t/fixtures/istiod/authz/mesh.yaml");
    const hd_authz_policy_t *p =
        need(a, HD_KIND_AUTHORIZATION_POLICY, "shop", "allow-page")->authz;

    is_int(pa->mode, HD_MTLS_PERMISSIVE);
    is_int(pa->ports.n, 2);
    is_int(pa->ports.items[1].port, 9090);
    is_int(pa->ports.items[1].mode, HD_MTLS_DISABLE);
    is_int(need(m, HD_KIND_DESTINATION_RULE, "shop", "stock")
               ->destination_rule->policy->blocks.tls->mode,
           HD_CLIENT_TLS_DISABLE);
    is_int(p->rules.n, 2);
    is_str(p->rules.items[0].from.items[0].remote_ip_blocks.is_not.items[0].data,
           "192.0.2.0/24");
    is_str(p->rules.items[1].when.items[1].values.is_not.items[0].data, "*/sa/evil");
    is_int(need(a, HD_KIND_AUTHORIZATION_POLICY, "shop", "audit")->authz->action,
           HD_AUTHZ_AUDIT);
    hd_model_destroy(m);
    hd_model_destroy(a);
}

static void test_services(void)
{
    hd_model_t *m = load_one("t/fixtures/istiod/serviceentry/mesh.yaml");
    const hd_object_t *page = need(m, HD_KIND_SERVICE, "shop", "page"), *found;
    const hd_mesh_service_t *vm = need(m, HD_KIND_SERVICE_ENTRY, "shop", "vm")->service;
    const hd_mesh_service_t *books =
        need(m, HD_KIND_SERVICE_ENTRY, "shop", "ext-static")->service;
    const hd_pod_t *pod = need(m, HD_KIND_POD, "shop", "page-1")->pod;
    size_t n;

    is_int(page->service->ports.items[0].target, 9080);
    is_int(page->service->ports.items[0].protocol, HD_PROTO_HTTP, "PROTO-1");
    is_int(need(m, HD_KIND_SERVICE, "shop", "ratings")->service->ports.items[0].protocol,
           HD_PROTO_GRPC);
    is_str(pod->service_account.data, "page");
    ok(pod->ready);
    is_str(pod->ip.data, "127.0.5.1");
    is_str(need(m, HD_KIND_NODE, "", "node-zone2")->node->zone.data, "zone2");
    ok(!vm->external && vm->resolution == HD_RESOLVE_STATIC);
    is_str(vm->selector.items[0].value.data, "billing");
    ok(books->external);
    is_int(books->endpoints.items[1].weight, 3);
    is_str(books->endpoints.items[1].ports.items[0].value.data, "8080");
    is_int(books->endpoints.items[0].weight, HD_UNSET);

    ok(hd_model_find_service(m, HD_STR("page.shop.svc.cluster.local"),
                             HD_STR("legacy")) == page);
    found = hd_model_find_service(m, HD_STR("a.b.wild.example"), HD_STR("shop"));
    ok(found == need(m, HD_KIND_SERVICE_ENTRY, "shop", "ext-none"), "HOST-4, HOST-5");
    ok(hd_model_find_service(m, HD_STR("wild.example"), HD_STR("shop")) == NULL);
    ok(hd_model_pod_by_ip(m, HD_STR("127.0.5.12")) ==
       need(m, HD_KIND_POD, "shop", "reviews-v2"));
    ok(hd_model_slices_of(m, HD_STR("shop"), HD_STR("reviews"), &n) != NULL && n == 1);
    is_int(need(m, HD_KIND_ENDPOINT_SLICE, "shop", "reviews-1")->slice->endpoints.n, 3);
    ok(hd_model_slices_of(m, HD_STR("legacy"), HD_STR("reviews"), &n) == NULL && n == 0);
    hd_model_list_ns(m, HD_KIND_POD, HD_STR("legacy"), &n);
    is_int(n, 1);
    hd_model_destroy(m);
}

static void test_example(void)
{
    hd_model_t *model = hd_model_create(NULL);
    glob_t found;
    size_t errors_n = 0, n = 0;

    if (glob(EXAMPLE, 0, NULL, &found) != 0) {
        fail("no examples: run from the repository's top");
        return;
    }
    for (size_t i = 0; i < found.gl_pathc; i++)
        n += load(model, found.gl_pathv[i], &errors_n);
    hd_model_commit(model);
    is_int(errors_n, 0, "the demo's mesh: no errors");
    ok(n > 30, "%zu objects", n);
    is_int(count_warnings(model), 0, "nothing dangles");
    hd_model_destroy(model);
    globfree(&found);
}

int main(void)
{
    test_all();
    test_matches();
    test_resilience();
    test_security();
    test_services();
    test_example();
    return done_testing();
}
