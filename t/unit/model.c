/* The model: what is in force, what changed, what stays when a text goes bad, who is
 * found by which name. */
#include "control/hd_decode.h"
#include "control/hd_model_policy.h"
#include "control/hd_model_traffic.h"
#include "tap.h"

static hd_model_t *model;
static size_t commits_n;

static void on_commit(void *arg)
{
    (void)arg;
    commits_n++;
}

static void start(void)
{
    model = hd_model_create(NULL);
    commits_n = 0;
    hd_model_set_on_commit(model, on_commit, NULL);
}

/* Puts <text> as <unit> and commits; how many errors it had. */
static size_t put(const char *unit, const char *text)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_decode_conf_t conf = {hd_model_cluster_domain(model),
                             hd_model_root_namespace(model)};
    hd_decoded_t d;
    hd_err_t err = {0};
    size_t errors_n = 0;

    hd_decode_text(pool, &conf, hd_str_c(unit), hd_str_c(text), &d);
    for (size_t i = 0; i < d.statuses.n; i++)
        errors_n += d.statuses.items[i].severity == HD_STATUS_ERROR;
    if (hd_model_put_unit(model, hd_str_c(unit), d.objs, d.n, &d.statuses, d.keep,
                          &err) != HD_OK)
        diag("%s", err.text);
    hd_pool_destroy(pool);
    hd_model_commit(model);
    return errors_n;
}

/* "+Namespace /a ~Namespace /b -Pod x/c", then cleared. */
static const char *changes(void)
{
    static char text[4096];
    size_t n, len = 0;
    const hd_change_t *list = hd_model_changes(model, &n);

    text[0] = '\0';
    for (size_t i = 0; i < n && len < sizeof(text) - 100; i++)
        len += (size_t)snprintf(
            text + len, sizeof(text) - len, "%s%c%s %.*s/%.*s", i > 0 ? " " : "",
            list[i].was == NULL  ? '+'
            : list[i].is == NULL ? '-'
                                 : '~',
            hd_kind_name(list[i].kind), HD_STR_ARG(list[i].ns), HD_STR_ARG(list[i].name));
    hd_model_clear_changes(model);
    return text;
}

static const hd_object_t *get(hd_kind_t kind, const char *ns, const char *name)
{
    return hd_model_get(model, kind, hd_str_c(ns), hd_str_c(name));
}

/* Findings of <severity> whose text has <part>. */
static size_t count(hd_severity_t severity, const char *code, const char *part)
{
    size_t n, found = 0;
    const hd_status_t *list = hd_model_statuses(model, &n);

    for (size_t i = 0; i < n; i++)
        found += list[i].severity == severity &&
                 hd_str_eq(list[i].code, hd_str_c(code)) &&
                 hd_str_find(list[i].text, hd_str_c(part)) >= 0;
    return found;
}

#define NS(name) "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: " name "}\n"
#define NS_LABEL(name, value)                                                            \
    "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: " name                       \
    ", labels: {l: " value "}}\n"

static void test_changes(void)
{
    const hd_object_t *a;
    uint64_t generation;

    start();
    is_int(hd_model_generation(model), 0);
    put("f", NS("a") NS("b"));
    is_str(changes(), "+Namespace /a +Namespace /b");
    is_int(hd_model_generation(model), 1);
    is_int(commits_n, 1);
    a = get(HD_KIND_NAMESPACE, "", "a");
    ok(a != NULL);

    put("f", "# a comment more\n\n" NS("a") NS_LABEL("b", "x") NS("c"));
    is_str(changes(), "~Namespace /b +Namespace /c");
    ok(get(HD_KIND_NAMESPACE, "", "a") == a, "an equal object is the same object");
    is_int(a->place.line, 4, "with its new place");
    is_int(a->generation, 1);
    is_int(get(HD_KIND_NAMESPACE, "", "c")->generation, 2);

    generation = hd_model_generation(model);
    put("f", "# a comment more\n\n" NS("a") NS_LABEL("b", "x") NS("c"));
    is_str(changes(), "");
    is_int(hd_model_generation(model), generation, "nothing new, no new generation");

    /* Two commits between looks: one change a key, from what was seen last. */
    put("f", NS("a") NS_LABEL("b", "y"));
    put("f", NS("a") NS_LABEL("b", "z") NS("d"));
    is_str(changes(), "~Namespace /b -Namespace /c +Namespace /d");
    put("f", NS("a") NS_LABEL("b", "z") NS("d") NS("e"));
    put("f", NS("a") NS_LABEL("b", "z") NS("d"));
    is_str(changes(), "", "came and went again");

    hd_model_remove_unit(model, HD_STR("f"));
    hd_model_commit(model);
    {
        size_t n;
        const hd_change_t *list = hd_model_changes(model, &n);

        is_int(n, 3);
        ok(list[0].was == a && list[0].is == NULL, "what was can be read until cleared");
        is_str(list[0].was->name.data, "a");
    }
    is_str(changes(), "-Namespace /a -Namespace /b -Namespace /d");
    hd_model_destroy(model);
}

static void test_last_good(void)
{
    start();
    put("f", NS("a") NS("b"));
    changes();
    is_int(put("f", NS("a") "broken: [\n"), 1, "not YAML");
    is_str(changes(), "", "the last good objects stay");
    ok(get(HD_KIND_NAMESPACE, "", "b") != NULL);
    is_int(count(HD_STATUS_ERROR, "", ""), 1, "and the error is there");

    is_int(put("f", NS_LABEL("a", "1") NS_LABEL("b", "x") NS("c")), 1, "a wrong type");
    is_str(changes(), "~Namespace /b +Namespace /c",
           "its last good stays, the rest goes on");
    ok(get(HD_KIND_NAMESPACE, "", "a") != NULL);
    is_int(put("f", NS_LABEL("a", "1") NS("c")), 1);
    is_str(changes(), "-Namespace /b", "what is gone without an error is gone");
    is_int(put("f", "---\nkind: Namespace\nmetadata: {name: x}\n"), 1, "what is this?");
    is_str(changes(), "", "nothing of the file is removed while it can't be told");
    is_int(put("f", ""), 0);
    is_str(changes(), "-Namespace /a -Namespace /c");
    is_int(count(HD_STATUS_ERROR, "", ""), 0, "mended: no error left");
    is_int(put("f", NS_LABEL("n", "1")), 1, "bad from the start");
    ok(get(HD_KIND_NAMESPACE, "", "n") == NULL, "there is no last good one");
    hd_model_destroy(model);
}

static void test_doubles(void)
{
    start();
    put("b", NS_LABEL("a", "of-b"));
    put("a", NS_LABEL("a", "of-a"));
    is_str(get(HD_KIND_NAMESPACE, "", "a")->place.file.data, "a", "by the unit's name");
    is_int(count(HD_STATUS_ERROR, "", "is there twice: in force is the one of a:2"), 1);
    changes();
    hd_model_remove_unit(model, HD_STR("a"));
    hd_model_commit(model);
    is_str(changes(), "~Namespace /a");
    is_str(get(HD_KIND_NAMESPACE, "", "a")->labels.items[0].value.data, "of-b",
           "the other steps in");
    is_int(count(HD_STATUS_ERROR, "", "twice"), 0);
    put("b", NS_LABEL("a", "first") NS_LABEL("a", "second"));
    is_str(get(HD_KIND_NAMESPACE, "", "a")->labels.items[0].value.data, "first");
    is_int(count(HD_STATUS_ERROR, "", "twice"), 1, "in one file, too");
    put("b", NS_LABEL("a", "second") NS_LABEL("a", "first"));
    is_str(get(HD_KIND_NAMESPACE, "", "a")->labels.items[0].value.data, "second");
    hd_model_destroy(model);
}

static void test_limit(void)
{
    hd_model_conf_t conf = {.objects_max = 3};

    start();
    hd_model_destroy(model);
    model = hd_model_create(&conf);
    put("f", NS("a") NS("b"));
    put("g", NS("c") NS("d"));
    ok(get(HD_KIND_NAMESPACE, "", "c") == NULL, "one too many: none of the file's");
    put("g", NS("c"));
    ok(get(HD_KIND_NAMESPACE, "", "c") != NULL);
    put("f", NS("x") NS("y"));
    ok(get(HD_KIND_NAMESPACE, "", "y") != NULL, "replacing counts once");
    hd_model_destroy(model);
}

static void test_hosts(void)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_str_t narrow;
    hd_strs_t none = {NULL, 0}, own = {(hd_str_t[]){HD_STR(".")}, 1},
              hidden = {(hd_str_t[]){HD_STR("~")}, 1},
              two = {(hd_str_t[]){HD_STR("x"), HD_STR("y")}, 2};
    hd_str_t d = HD_STR("cluster.local"), ns = HD_STR("shop");

    is_str(hd_host_resolve(pool, HD_STR("Reviews"), ns, d).data,
           "reviews.shop.svc.cluster.local", "HOST-1");
    is_str(hd_host_resolve(pool, HD_STR("reviews.prod"), ns, d).data, "reviews.prod",
           "HOST-2");
    is_str(hd_host_resolve(pool, HD_STR("*"), ns, d).data, "*");
    is_str(hd_host_resolve(pool, HD_STR("::1"), ns, d).data, "::1");
    ok(hd_host_covers(HD_STR("*.x.com"), HD_STR("a.b.X.com")), "HOST-4");
    ok(!hd_host_covers(HD_STR("*.x.com"), HD_STR("x.com")));
    ok(!hd_host_covers(HD_STR("*.x.com"), HD_STR(".x.com")));
    ok(!hd_host_covers(HD_STR("*.x.com"), HD_STR("ax.com")));
    ok(hd_host_covers(HD_STR("*"), HD_STR("*.x.com")));
    ok(hd_host_covers(HD_STR("*.x.com"), HD_STR("*.y.x.com")));
    ok(!hd_host_covers(HD_STR("*.y.x.com"), HD_STR("*.x.com")));
    ok(!hd_host_covers(HD_STR("a.x.com"), HD_STR("*.x.com")));
    ok(hd_host_intersects(HD_STR("*.x.com"), HD_STR("a.x.com"), &narrow) &&
           hd_str_eq(narrow, HD_STR("a.x.com")),
       "GW-9");
    ok(hd_host_intersects(HD_STR("a.x.com"), HD_STR("*"), &narrow) &&
       hd_str_eq(narrow, HD_STR("a.x.com")));
    ok(!hd_host_intersects(HD_STR("a.x.com"), HD_STR("b.x.com"), NULL));
    ok(hd_host_cmp_specific(HD_STR("a"), HD_STR("*.looooooooong")) < 0, "HOST-5");
    ok(hd_host_cmp_specific(HD_STR("*.b.com"), HD_STR("*.com")) < 0);

    ok(hd_is_exported(&none, ns, HD_STR("x")), "EXP-1");
    ok(hd_is_exported(&own, ns, ns) && !hd_is_exported(&own, ns, HD_STR("x")));
    ok(!hd_is_exported(&hidden, ns, ns));
    ok(hd_is_exported(&two, ns, HD_STR("y")) && !hd_is_exported(&two, ns, ns));
    hd_pool_destroy(pool);
}

#define SVC(name, ns, more)                                                              \
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: " name ", namespace: " ns more \
    "}\nspec: {clusterIP: 127.1.1.1, ports: [{name: http, port: 80}]}\n"
#define SE(name, ns, host, more)                                                         \
    "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: "            \
    "{name: " name ", namespace: " ns "}\nspec: {hosts: ['" host                         \
    "'], ports: [{number: 80, name: http, protocol: HTTP}]" more "}\n"
#define DR(name, ns, more)                                                               \
    "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: "         \
    "{name: " name ", namespace: " ns ", creationTimestamp: '2026-01-0" more "}\n"

static const char *found_service(const char *host, const char *ns)
{
    const hd_object_t *s = hd_model_find_service(model, hd_str_c(host), hd_str_c(ns));

    return s != NULL ? s->name.data : "none";
}

static void test_services(void)
{
    start();
    put("f", SVC("a", "one", "") SE("far", "two", "a.one.svc.cluster.local",
                                    "") SE("own", "three", "a.one.svc.cluster.local", "")
                 SE("wild", "one", "*.b.example", "") SE("wilder", "one", "*.example", "")
                     SE("private", "one", "p.c.example", ", exportTo: [.]"));
    is_str(found_service("a.one.svc.cluster.local", "one"), "a");
    is_str(found_service("a.one.svc.cluster.local", "four"), "a", "SC-10: k8s first");
    is_str(found_service("a.one.svc.cluster.local", "three"), "own", "one's own first");
    is_str(found_service("x.b.example", "one"), "wild", "HOST-5");
    is_str(found_service("x.y.b.example", "one"), "wild");
    is_str(found_service("b.example", "one"), "wilder");
    is_str(found_service("p.c.example", "one"), "private");
    is_str(found_service("p.c.example", "two"), "wilder", "EXP-1: it doesn't see it");
    is_str(found_service("nowhere", "one"), "none");
    put("f", "");
    is_str(found_service("a.one.svc.cluster.local", "one"), "none", "no stale index");
    hd_model_destroy(model);
}

/* The names of the rules found, in order. */
static const char *rules(const char *client, const char *service, const char *host)
{
    static char text[256];
    const hd_object_t *found[8];
    size_t n = hd_model_find_rules(model, hd_str_c(client), hd_str_c(service),
                                   hd_str_c(host), found, 8);
    size_t len = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i > 0 ? " " : "",
                                found[i]->name.data);
    return text;
}

static void test_rules(void)
{
    const char *h = "a.shop.svc.cluster.local";

    start();
    put("f",
        DR("own", "client", "1T00:00:00Z'}\nspec: {host: a.shop.svc.cluster.local")
            DR("svc-new", "shop", "3T00:00:00Z'}\nspec: {host: a")
                DR("svc-old", "shop", "2T00:00:00Z'}\nspec: {host: a")
                    DR("svc-wild", "shop", "1T00:00:00Z'}\nspec: {host: '*.local'")
                        DR("root", "istio-system", "1T00:00:00Z'}\nspec: {host: '*'") DR(
                            "root-own", "istio-system",
                            "1T00:00:00Z'}\nspec: {host: '*.c.example', exportTo: [.]"));
    is_str(rules("client", "shop", h), "own", "DR-6: the client's namespace first");
    is_str(rules("other", "shop", h), "svc-old svc-new",
           "then the service's: the most specific host, oldest first");
    is_str(rules("other", "shop", "b.shop.svc.cluster.local"), "svc-wild");
    is_str(rules("other", "else", "x.example"), "root", "then the root's");
    is_str(rules("other", "else", "x.c.example"), "root", "that it shows");
    is_str(rules("istio-system", "else", "x.c.example"), "root-own");
    put("f",
        DR("own", "client",
           "1T00:00:00Z'}\nspec: {host: a.shop.svc.cluster.local, exportTo: [other]"));
    is_str(rules("client", "shop", h), "", "DR-7: shown elsewhere only");
    hd_model_destroy(model);
}

static void test_order(void)
{
    size_t n;
    const hd_object_t *const *list;

    start();
    put("f", DR("b", "x", "2T00:00:00Z'}\nspec: {host: a")
                 DR("a", "z", "2T00:00:00Z'}\nspec: {host: a")
                     DR("a", "y", "2T00:00:00Z'}\nspec: {host: a")
                         DR("c", "x", "1T00:00:00Z'}\nspec: {host: a"));
    list = hd_model_list(model, HD_KIND_DESTINATION_RULE, &n);
    is_int(n, 4);
    ok(hd_str_eq(list[0]->name, HD_STR("c")) && hd_str_eq(list[1]->ns, HD_STR("y")) &&
           hd_str_eq(list[2]->ns, HD_STR("z")) && hd_str_eq(list[3]->name, HD_STR("b")),
       "EXP-5: oldest first, then name, then namespace");
    list = hd_model_list_ns(model, HD_KIND_DESTINATION_RULE, HD_STR("x"), &n);
    ok(n == 2 && hd_str_eq(list[0]->name, HD_STR("c")));
    hd_model_destroy(model);
}

#define VS(name, body)                                                                   \
    "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: "          \
    "{name: " name ", namespace: shop}\nspec: " body "\n"

static void test_references(void)
{
    start();
    put("f", SVC("a", "shop", "") VS("gone", "{hosts: [a], http: [{route: [{destination: "
                                             "{host: gone}}]}]}"));
    is_int(count(HD_STATUS_WARNING, "IST0101",
                 "no service has the host gone.shop.svc.cluster.local"),
           1);
    ok(get(HD_KIND_VIRTUAL_SERVICE, "shop", "gone") != NULL,
       "it is in force all the same");
    put("g", SVC("gone", "shop", ""));
    is_int(count(HD_STATUS_WARNING, "IST0101", ""), 0, "mended by another file");

    put("f", SVC("a", "shop", "")
                 VS("v", "{hosts: [a], http: [{route: [{destination: {host: a, subset: "
                         "v1}}]}]}"));
    is_int(count(HD_STATUS_WARNING, "IST0101", "a subset v1"), 1);
    put("h", DR("a", "shop",
                "1T00:00:00Z'}\nspec: {host: a, subsets: [{name: v1, labels: {v: v1}}]"));
    is_int(count(HD_STATUS_WARNING, "IST0101", "a subset v1"), 0);
    put("h", DR("a", "shop", "1T00:00:00Z'}\nspec: {host: nobody"));
    is_int(count(HD_STATUS_WARNING, "KIA0202", "nobody"), 1);

    put("f", SVC("a", "shop", "")
                 VS("v", "{hosts: [a], gateways: [edge], http: [{route: [{destination: "
                         "{host: a, port: {number: 81}}}]}]}"));
    is_int(count(HD_STATUS_WARNING, "IST0101", "no Gateway shop/edge"), 1);
    is_int(count(HD_STATUS_WARNING, "IST0101", "has no port 81"), 1);

    put("f", SVC("a", "shop",
                 "") VS("v", "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}")
                 VS("w", "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}"));
    is_int(count(HD_STATUS_WARNING, "IST0109", "that of VirtualService shop/v"), 1,
           "VS-8");
    put("f",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: "
        "p, namespace: shop}\nspec: {selector: {matchLabels: {app: none}}}\n");
    is_int(count(HD_STATUS_WARNING, "KIA0004", ""), 1);
    hd_model_destroy(model);
}

int main(void)
{
    test_changes();
    test_last_good();
    test_doubles();
    test_limit();
    test_hosts();
    test_services();
    test_rules();
    test_order();
    test_references();
    return done_testing();
}
