/* Incremental translation: after each of many random edits, what a translator with a past
 * makes is what one without makes, byte for byte; and one edit makes anew what depends on
 * it, counted in translations: a mesh of 1,000 services and 100 proxies, one
 * VirtualService changed. */
#include "control/hd_decode.h"
#include "control/hd_translate.h"
#include "tap.h"

#include <stdlib.h>

static hd_model_t *model;
static hd_translator_t *translator;

static void on_commit(void *arg)
{
    (void)arg;
    hd_translator_on_commit(translator);
    hd_model_clear_changes(model);
}

static void start(void)
{
    model = hd_model_create(NULL);
    translator = hd_translator_create(model, HD_STR("cluster.local"));
    hd_model_set_on_commit(model, on_commit, NULL);
}

static void stop(void)
{
    hd_translator_destroy(translator);
    hd_model_destroy(model);
}

static void put(const char *unit, const char *text)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_decode_conf_t conf = {hd_model_cluster_domain(model),
                             hd_model_root_namespace(model)};
    hd_decoded_t d;
    hd_err_t err = {0};

    hd_decode_text(pool, &conf, hd_str_c(unit), hd_str_c(text), &d);
    for (size_t i = 0; i < d.statuses.n; i++) {
        if (d.statuses.items[i].severity == HD_STATUS_ERROR)
            diag("%s: %.*s in\n%s", unit, HD_STR_ARG(d.statuses.items[i].text), text);
    }
    if (hd_model_put_unit(model, hd_str_c(unit), d.objs, d.n, &d.statuses, d.keep,
                          &err) != HD_OK)
        diag("%s", err.text);
    hd_pool_destroy(pool);
}

static char text[65536];

#define PUT(unit, ...)                                                                   \
    do {                                                                                 \
        snprintf(text, sizeof(text), __VA_ARGS__);                                       \
        put(unit, text);                                                                 \
    } while (0)

/* --- a mesh of random edits --- */

static uint32_t seed;

static unsigned below(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

#define NAMESPACES_N 3
#define SERVICES_N 6
#define PROXIES_N 9

static const char *const namespaces[NAMESPACES_N] = {"shop", "bank", "istio-system"};

static const char *export_list(void)
{
    static const char *const lists[] = {"", "", "  exportTo: ['*']\n",
                                        "  exportTo: ['.']\n", "  exportTo: [bank]\n"};

    return lists[below(hd_countof(lists))];
}

/* As many metadata annotations have it: networking.istio.io/exportTo. */
static const char *export_note(void)
{
    static const char *const notes[] = {
        "", "", ", annotations: {networking.istio.io/exportTo: '.'}"};

    return notes[below(hd_countof(notes))];
}

static void edit_service(const char *unit, const char *ns, unsigned i)
{
    static const char *const ports[] = {
        "  - {name: http, port: 80, targetPort: 8080}\n",
        "  - {name: http, port: 9080}\n",
        "  - {name: http, port: 80}\n  - {name: grpc, port: 9080}\n",
        "  - {name: tcp-x, port: 7000}\n",
        "  - {name: web, port: 80, targetPort: named}\n",
    };

    PUT(unit,
        "apiVersion: v1\nkind: Service\nmetadata: {name: s%u, namespace: %s%s}\n"
        "spec:\n  clusterIP: 10.1.0.%u\n  selector: {app: s%u}\n  ports:\n%s",
        i, ns, export_note(), i + 1, below(4) == 0 ? below(SERVICES_N) : i,
        ports[below(hd_countof(ports))]);
}

static void edit_slice(const char *unit, const char *ns, unsigned i)
{
    static const char *const names[] = {"http", "grpc", "web", "tcp-x"};

    PUT(unit,
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: s%u-a, namespace: %s, labels: {kubernetes.io/service-name: "
        "s%u}}\n"
        "addressType: IPv4\nports:\n- {name: %s, port: 8080}\nendpoints:\n"
        "- {addresses: [10.0.0.%u], conditions: {ready: true}}\n"
        "- {addresses: [10.0.0.%u], conditions: {ready: %s}, nodeName: n%u}\n",
        i, ns, below(5) == 0 ? below(SERVICES_N) : i, names[below(hd_countof(names))],
        below(PROXIES_N) + 1, below(PROXIES_N) + 1, below(2) ? "true" : "false",
        below(2));
}

static void edit_pod(const char *unit, const char *ns, unsigned i)
{
    PUT(unit,
        "apiVersion: v1\nkind: Pod\n"
        "metadata: {name: p%u, namespace: %s, labels: {app: s%u, version: v%u, "
        "security.istio.io/tlsMode: istio}}\n"
        "spec: {serviceAccountName: sa%u, containers: [{name: c, image: i, ports: "
        "[{name: named, containerPort: %u}]}]}\n"
        "status: {phase: Running, podIP: 10.0.0.%u, podIPs: [{ip: 10.0.0.%u}]}\n",
        i, ns, below(SERVICES_N), below(2) + 1, below(3), 8080 + below(2), i + 1, i + 1);
}

static void edit_vs(const char *unit, const char *ns, unsigned i)
{
    static const char *const hosts[] = {"s0",
                                        "s1",
                                        "s2.shop.svc.cluster.local",
                                        "'*.shop.svc.cluster.local'",
                                        "out.example.com",
                                        "'*.example.com'"};
    static const char *const matches[] = {
        "",
        "    match: [{uri: {prefix: /a}}, {headers: {x: {exact: y}}}]\n",
        "    match: [{sourceLabels: {version: v1}}]\n",
        "    match: [{sourceNamespace: bank}]\n",
        "    match: [{port: 80}]\n",
    };
    static const char *const gateways[] = {"", "  gateways: [shop/edge]\n",
                                           "  gateways: [mesh, shop/edge]\n"};

    PUT(unit,
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        "metadata: {name: v%u, namespace: %s}\nspec:\n  hosts: [%s]\n%s%s  http:\n"
        "  - route:\n    - {destination: {host: s%u, subset: v1}, weight: %u}\n"
        "    - {destination: {host: s%u}, weight: 50}\n%s",
        i, ns, hosts[below(hd_countof(hosts))], export_list(),
        gateways[below(hd_countof(gateways))], below(SERVICES_N), below(100) + 1,
        below(SERVICES_N), matches[below(hd_countof(matches))]);
}

static void edit_rule(const char *unit, const char *ns, unsigned i)
{
    static const char selector[] = "  workloadSelector: {matchLabels: {version: v1}}\n";
    static const char *const hosts[] = {"s0",
                                        "s1",
                                        "s2.shop.svc.cluster.local",
                                        "'*.shop.svc.cluster.local'",
                                        "'*.svc.cluster.local'",
                                        "out.example.com"};
    static const char *const policies[] = {
        "  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}\n",
        "  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}\n",
        "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}\n",
        "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n",
    };

    PUT(unit,
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        "metadata: {name: d%u, namespace: %s}\nspec:\n  host: %s\n%s%s"
        "  subsets: [{name: v1, labels: {version: v%u}}]\n",
        i, ns, hosts[below(hd_countof(hosts))], below(3) ? export_list() : selector,
        policies[below(hd_countof(policies))], below(2) + 1);
}

/* Goes on with another VirtualService, or is one to go on with. */
static void edit_delegate(const char *unit, const char *ns, unsigned i)
{
    if (i < 2)
        PUT(unit,
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
            "metadata: {name: root%u, namespace: %s}\nspec:\n  hosts: [s%u]\n  http:\n"
            "  - match: [{uri: {prefix: /d}}]\n    delegate: {name: part%u, namespace: "
            "%s}\n",
            i, ns, below(SERVICES_N), 2 + below(2), namespaces[below(NAMESPACES_N)]);
    else
        PUT(unit,
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
            "metadata: {name: part%u, namespace: %s}\nspec:\n%s  http:\n"
            "  - match: [{uri: {exact: /d%u}}]\n    route: [{destination: {host: "
            "s%u}}]\n",
            i, ns, export_list(), below(3), below(SERVICES_N));
}

static void edit_sidecar(const char *unit, const char *ns, unsigned i)
{
    static const char *const hosts[] = {
        "*/*", "./*", "shop/*", "~/*", "*/s1.shop.svc.cluster.local", "*/*.example.com"};

    PUT(unit,
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\n"
        "metadata: {name: c%u, namespace: %s}\nspec:\n%s  egress: [{hosts: ['%s', "
        "'%s']}]\n"
        "%s",
        i, ns, below(3) ? "  workloadSelector: {labels: {version: v1}}\n" : "",
        hosts[below(hd_countof(hosts))], hosts[below(hd_countof(hosts))],
        below(2) ? "  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n" : "");
}

static void edit_entry(const char *unit, const char *ns, unsigned i)
{
    PUT(unit,
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        "metadata: {name: e%u, namespace: %s}\nspec:\n  hosts: [%s.example.com]\n%s"
        "  location: MESH_EXTERNAL\n  resolution: STATIC\n"
        "  ports: [{number: %u, name: http, protocol: HTTP}]\n"
        "  endpoints: [{address: 192.0.2.%u, labels: {version: v%u}}]\n",
        i, ns, below(2) ? "out" : "other", export_list(), below(2) ? 80 : 9080,
        below(9) + 1, below(2) + 1);
}

static void edit_peers(const char *unit, const char *ns, unsigned i)
{
    static const char *const modes[] = {"STRICT", "PERMISSIVE", "DISABLE"};
    static const char *const selectors[] = {"", "  selector: {matchLabels: {app: s1}}\n"};

    PUT(unit,
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        "metadata: {name: m%u, namespace: %s}\nspec:\n%s  mtls: {mode: %s}\n",
        i, ns, selectors[below(2)], modes[below(3)]);
}

static void edit_policy(const char *unit, const char *ns, unsigned i)
{
    PUT(unit,
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: a%u, namespace: %s}\nspec:\n%s  action: %s\n"
        "  rules: [{from: [{source: {namespaces: [n%u]}}]}]\n",
        i, ns, below(2) ? "" : "  selector: {matchLabels: {app: s2}}\n",
        below(2) ? "ALLOW" : "DENY", below(9));
}

static void edit_gateway(const char *unit, const char *ns, unsigned i)
{
    (void)i;
    PUT(unit,
        "apiVersion: networking.istio.io/v1\nkind: Gateway\n"
        "metadata: {name: edge, namespace: %s}\nspec:\n  selector: {istio: gw}\n"
        "  servers:\n  - port: {number: %u, name: x, protocol: %s}\n"
        "    hosts: [%s]\n%s",
        ns, below(2) ? 80 : 8080, below(3) ? "HTTP" : "TCP",
        below(2) ? "'*'" : "'*.example.com'",
        below(3) ? ""
                 : "  - {port: {number: 81, name: y, protocol: HTTP}, hosts: ['*'], "
                   "tls: {httpsRedirect: true}}\n");
}

static void edit_node(const char *unit, const char *ns, unsigned i)
{
    (void)ns;
    PUT(unit,
        "apiVersion: v1\nkind: Node\nmetadata: {name: n%u, labels: "
        "{topology.kubernetes.io/region: r%u}}\n",
        i % 2, below(3));
}

static const struct {
    const char *name;
    void (*edit)(const char *unit, const char *ns, unsigned i);
    unsigned weight;
} edits[] = {
    {"service", edit_service, 5},   {"slice", edit_slice, 5},
    {"pod", edit_pod, 5},           {"vs", edit_vs, 6},
    {"rule", edit_rule, 6},         {"entry", edit_entry, 2},
    {"peers", edit_peers, 3},       {"policy", edit_policy, 3},
    {"gateway", edit_gateway, 1},   {"node", edit_node, 1},
    {"delegate", edit_delegate, 3}, {"sidecar", edit_sidecar, 2},
};

/* One file is written anew or removed; which, in <what>. */
static void edit_one(char what[128])
{
    unsigned pick = below(42), kind = 0;
    const char *ns = namespaces[below(NAMESPACES_N)];
    unsigned i = below(SERVICES_N);
    bool removes = below(5) == 0;

    while (pick >= edits[kind].weight)
        pick -= edits[kind++].weight;
    snprintf(what, 128, "%s-%s-%u.yaml", edits[kind].name, ns, i);
    if (removes)
        hd_model_remove_unit(model, hd_str_c(what));
    else
        edits[kind].edit(what, ns, i);
}

static void set_proxy(hd_proxy_t *p, unsigned i, hd_pool_t *pool)
{
    *p = (hd_proxy_t){
        .kind = i % 4 == 3 ? HD_PROXY_ROUTER : HD_PROXY_SIDECAR,
        .id = hd_str_printf(pool, "proxy%u", i),
        .ns = hd_str_c(namespaces[i % NAMESPACES_N]),
        .cluster_id = HD_STR("Kubernetes"),
        .interception_mode = i % 5 == 4 ? HD_STR("NONE") : HD_STR("REDIRECT"),
        .http_proxy_port = i % 5 == 4 ? 15080 : 0,
        .ips = {hd_str_printf(pool, "10.0.0.%u", i + 1)},
        .ips_n = 1,
        .labels = {{HD_STR("istio"), HD_STR("gw")}},
        .labels_n = i % 4 == 3,
        .is_heddle = i % 2 == 0,
    };
}

/* Where they differ, in words; NULL: nowhere. */
static const char *difference(const hd_view_t *a, const hd_view_t *b)
{
    static char out[512];

    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++) {
        const hd_xres_set_t *x = &a->sets[k], *y = &b->sets[k];

        for (uint32_t i = 0; i < x->n && i < y->n; i++) {
            if (hd_str_eq(x->items[i]->name, y->items[i]->name) &&
                hd_str_eq(x->items[i]->bytes, y->items[i]->bytes))
                continue;
            snprintf(out, sizeof(out), "%s: %.*s / %.*s", hd_view_url((hd_view_kind_t)k),
                     HD_STR_ARG(x->items[i]->name), HD_STR_ARG(y->items[i]->name));
            return out;
        }
        if (x->n != y->n) {
            snprintf(out, sizeof(out), "%s: %u / %u", hd_view_url((hd_view_kind_t)k),
                     x->n, y->n);
            return out;
        }
    }
    return NULL;
}

/* A view that still counts as current is kept, as the server keeps it. */
static bool renew(hd_view_t *view, const hd_proxy_t *proxy)
{
    hd_view_t fresh;
    hd_err_t err = {0};

    if (hd_view_is_current(view) && view->sets[HD_VIEW_CLUSTERS].n > 0)
        return false;
    hd_view_init(&fresh);
    if (hd_translate(translator, proxy, &fresh, &err) != HD_OK)
        diag("%s", err.text);
    hd_view_deinit(view);
    *view = fresh;
    return true;
}

static bool is_as_if_new(const hd_view_t *view, const hd_proxy_t *proxy,
                         const char *after)
{
    hd_translator_t *fresh = hd_translator_create(model, HD_STR("cluster.local"));
    hd_view_t full;
    hd_err_t err = {0};
    const char *differs;

    hd_view_init(&full);
    if (hd_translate(fresh, proxy, &full, &err) != HD_OK)
        diag("%s", err.text);
    differs = difference(view, &full);
    if (differs != NULL)
        diag("after %s, proxy %.*s: %s", after, HD_STR_ARG(proxy->id), differs);
    hd_view_deinit(&full);
    hd_translator_destroy(fresh);
    return differs == NULL;
}

static void random_edits(uint32_t from, unsigned edits_n)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_proxy_t proxies[PROXIES_N];
    hd_view_t views[PROXIES_N];
    unsigned kept = 0, renewed = 0, same = 0;
    hd_translator_stats_t stats;
    char what[128];

    seed = from;
    start();
    for (unsigned i = 0; i < PROXIES_N; i++) {
        set_proxy(&proxies[i], i, pool);
        hd_view_init(&views[i]);
    }
    for (unsigned e = 0; e < edits_n; e++) {
        edit_one(what);
        while (e < 30 || below(6) == 0) { /* a mesh first; sometimes several at once */
            edit_one(what);
            if (e < 30)
                break;
        }
        hd_model_commit(model);
        for (unsigned i = 0; i < PROXIES_N; i++) {
            if (renew(&views[i], &proxies[i]))
                renewed++;
            else
                kept++;
            same += is_as_if_new(&views[i], &proxies[i], what);
        }
    }
    is_int(same, (long long)edits_n * PROXIES_N,
           "seed %u: after each edit, as if translated anew", from);
    ok(kept > 0 && renewed > 0, "views were kept (%u) and renewed (%u)", kept, renewed);
    for (unsigned i = 0; i < PROXIES_N; i++)
        hd_view_deinit(&views[i]);
    hd_translator_get_stats(translator, &stats);
    is_int(stats.kept, 0, "what no view holds is not kept");
    stop();
    hd_pool_destroy(pool);
}

/* --- counted --- */

#define MANY_SERVICES 1000
#define MANY_PROXIES 100

static void put_many_services(void)
{
    char unit[64];

    for (unsigned i = 0; i < MANY_SERVICES; i++) {
        snprintf(unit, sizeof(unit), "s%u.yaml", i);
        PUT(unit,
            "apiVersion: v1\nkind: Service\nmetadata: {name: s%u, namespace: n%u}\n"
            "spec:\n  clusterIP: 10.1.%u.%u\n  ports: [{name: http, port: %u}]\n---\n"
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
            "metadata: {name: s%u-a, namespace: n%u, labels: "
            "{kubernetes.io/service-name: "
            "s%u}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\n"
            "endpoints: [{addresses: [10.2.%u.%u]}]\n",
            i, i % 10, i / 250, i % 250 + 1, 9080 + i % 2, i, i % 10, i, i / 250,
            i % 250 + 1);
    }
}

static void put_vs(unsigned weight, const char *export_to)
{
    PUT("v.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        "metadata: {name: v, namespace: n3}\nspec:\n  hosts: [s3]\n%s  http:\n"
        "  - route:\n    - {destination: {host: s3}, weight: %u}\n"
        "    - {destination: {host: s13}, weight: 50}\n",
        export_to, weight);
}

typedef struct {
    hd_proxy_t proxies[MANY_PROXIES];
    hd_view_t views[MANY_PROXIES];
} many_t;

/* Commits, renews what isn't current; how many views that were, and what it took. */
static unsigned settle(many_t *m, hd_translator_stats_t *took)
{
    hd_translator_stats_t before, after;
    unsigned renewed = 0;

    hd_translator_get_stats(translator, &before);
    hd_model_commit(model);
    for (unsigned i = 0; i < MANY_PROXIES; i++)
        renewed += renew(&m->views[i], &m->proxies[i]);
    hd_translator_get_stats(translator, &after);
    took->parts = after.parts - before.parts;
    took->resources = after.resources - before.resources;
    took->distinct = after.distinct - before.distinct;
    return renewed;
}

static void counted(void)
{
    many_t *m = calloc(1, sizeof(*m));
    hd_pool_t *pool = hd_pool_create(0);
    hd_translator_stats_t took;
    const hd_xres_t *one, *other;

    start();
    put_many_services();
    put_vs(50, "");
    for (unsigned i = 0; i < MANY_PROXIES; i++) {
        m->proxies[i] = (hd_proxy_t){.kind = HD_PROXY_SIDECAR,
                                     .id = hd_str_printf(pool, "proxy%u", i),
                                     .ns = hd_str_printf(pool, "n%u", i % 10),
                                     .cluster_id = HD_STR("Kubernetes"),
                                     .interception_mode = HD_STR("REDIRECT"),
                                     .ips = {hd_str_printf(pool, "10.9.0.%u", i + 1)},
                                     .ips_n = 1,
                                     .is_heddle = true};
        hd_view_init(&m->views[i]);
    }
    is_int(settle(m, &took), MANY_PROXIES, "all proxies get a view");
    ok(took.parts < 10 * (MANY_SERVICES + 20) + 3 * MANY_PROXIES,
       "made once a namespace, not once a proxy: %llu", (unsigned long long)took.parts);
    ok(took.distinct < 2 * MANY_SERVICES + 20 * MANY_PROXIES,
       "equal bytes lie there once, over namespaces too: %llu of %llu",
       (unsigned long long)took.distinct, (unsigned long long)took.resources);
    one = hd_view_find(&m->views[0], HD_VIEW_ROUTES, HD_STR("9081"));
    other = hd_view_find(&m->views[10], HD_VIEW_ROUTES, HD_STR("9081"));
    ok(one != NULL && one == other, "proxies of a namespace share a table's bytes");

    put_vs(60, "");
    is_int(settle(m, &took), MANY_PROXIES, "a VirtualService that all see: all views");
    is_int(took.parts, 10, "one table, once for each namespace");
    is_int(took.resources, 10, "and nothing else is encoded");

    put_vs(60, "  exportTo: ['.']\n");
    settle(m, &took);
    put_vs(70, "  exportTo: ['.']\n");
    is_int(settle(m, &took), MANY_PROXIES / 10, "only its namespace sees it: ten views");
    is_int(took.resources, 1, "made once for the ten");

    PUT("s7.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: s7, namespace: n7}\n"
        "spec:\n  clusterIP: 10.1.0.8\n  ports: [{name: http, port: 9081}]\n---\n"
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: s7-a, namespace: n7, labels: {kubernetes.io/service-name: "
        "s7}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\n"
        "endpoints: [{addresses: [10.2.9.9]}]\n");
    is_int(settle(m, &took), MANY_PROXIES, "an endpoint moves");
    is_int(took.resources, 20, "its cluster and endpoints, once for each namespace");
    is_int(took.distinct, 1, "of which only the endpoints are new");

    PUT("w.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n");
    is_int(settle(m, &took), 0, "what nobody depends on renews nothing");
    for (unsigned i = 0; i < MANY_PROXIES; i++)
        hd_view_deinit(&m->views[i]);
    stop();
    hd_pool_destroy(pool);
    free(m);
}

int main(void)
{
    random_edits(1, 150);
    random_edits(20260101, 150);
    counted();
    return done_testing();
}
