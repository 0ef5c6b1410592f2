#include "control/hd_translate_int.h"

#include <stdlib.h>

/* Packed parts of one translation: a ceiling against runaways, far above any real mesh.
 */
#define PACKED_BYTES_MAX ((size_t)1 << 30)

struct hd_translator_s {
    hd_model_t *model;
    hd_str_t trust_domain;
    hd_parts_t *parts;
    hd_xres_shelf_t shelf;
    uint64_t generation; /* of the model, at the last look */
    uint64_t serial;
    hd_translator_stats_t stats;
};

hd_translator_t *hd_translator_create(hd_model_t *model, hd_str_t trust_domain)
{
    hd_translator_t *t = calloc(1, sizeof(*t));

    hd_bug_on(t == NULL);
    t->model = model;
    t->trust_domain = trust_domain;
    t->parts = hd_parts_create();
    hd_xres_shelf_init(&t->shelf);
    return t;
}

void hd_translator_destroy(hd_translator_t *t)
{
    hd_parts_destroy(t->parts);
    hd_xres_shelf_deinit(&t->shelf);
    free(t);
}

bool hd_translator_on_commit(hd_translator_t *t)
{
    bool changed = hd_model_generation(t->model) != t->generation;
    size_t n;
    const hd_change_t *changes = hd_model_changes(t->model, &n);

    t->generation = hd_model_generation(t->model);
    hd_parts_touch(t->parts, changes, n);
    return changed;
}

void hd_translator_get_stats(const hd_translator_t *t, hd_translator_stats_t *stats)
{
    *stats = t->stats;
    stats->distinct = t->shelf.made_n;
    stats->kept = hd_parts_count(t->parts);
}

/* --- parts --- */

bool hd_tr_begin(hd_tr_t *t, bool is_self, bool sees_all, const char *fmt, ...)
{
    hd_str_t name;
    hd_part_t *part;
    va_list args;

    hd_assert(t->part == NULL);
    va_start(args, fmt);
    name = hd_str_vprintf(t->view_pool, fmt, args);
    va_end(args);
    name = hd_str_printf(t->view_pool, "%.*s for %.*s", HD_STR_ARG(name),
                         HD_STR_ARG(is_self ? t->self_name : t->class_name));
    part = hd_parts_find(t->parts, name, t->labels_text);
    if (part != NULL) {
        if (part->last_view != t->serial)
            hd_view_add_part(t->view, part);
        part->last_view = t->serial;
        return false;
    }
    t->part = hd_part_begin(t->parts, name, sees_all ? HD_STR_NONE : t->proxy->ns,
                            t->labels_text);
    t->part->last_view = t->serial;
    t->pool = hd_pool_create(8192);
    hd_pb_arena_init(&t->pb, PACKED_BYTES_MAX);
    if (t->sidecar != NULL)
        hd_tr_depend_object(t, t->sidecar);
    return true;
}

void hd_tr_end(hd_tr_t *t)
{
    hd_part_finish(t->part);
    hd_view_add_part(t->view, t->part);
    hd_part_unref(t->part);
    t->part = NULL;
    t->stats->parts++;
    hd_pb_arena_deinit(&t->pb);
    hd_pool_destroy(t->pool);
    t->pool = t->view_pool;
}

const hd_labels_t *hd_tr_labels(hd_tr_t *t)
{
    t->part->uses_labels = true;
    return &t->_labels;
}

/* --- lookups that are entered --- */

void hd_tr_depend_kind(hd_tr_t *t, hd_kind_t kind)
{
    hd_part_depend(t->part, HD_DEP_KIND, hd_str_c(hd_kind_plural(kind)), HD_STR_NONE);
}

void hd_tr_depend_object(hd_tr_t *t, const hd_object_t *obj)
{
    hd_part_depend(
        t->part, HD_DEP_OBJECT, hd_str_c(hd_kind_plural(obj->kind)),
        hd_str_printf(t->pool, "%.*s/%.*s", HD_STR_ARG(obj->ns), HD_STR_ARG(obj->name)));
}

void hd_tr_depend_port(hd_tr_t *t, int64_t port)
{
    hd_part_depend(t->part, HD_DEP_PORT, hd_str_printf(t->pool, "%lld", (long long)port),
                   HD_STR_NONE);
}

const hd_object_t *const *hd_tr_list(hd_tr_t *t, hd_kind_t kind, size_t *n)
{
    hd_tr_depend_kind(t, kind);
    return hd_model_list(t->model, kind, n);
}

const hd_object_t *const *hd_tr_list_ns(hd_tr_t *t, hd_kind_t kind, hd_str_t ns,
                                        size_t *n)
{
    hd_part_depend(t->part, HD_DEP_IN_NS, hd_str_c(hd_kind_plural(kind)), ns);
    return hd_model_list_ns(t->model, kind, ns, n);
}

const hd_object_t *hd_tr_get(hd_tr_t *t, hd_kind_t kind, hd_str_t ns, hd_str_t name)
{
    hd_part_depend(t->part, HD_DEP_OBJECT, hd_str_c(hd_kind_plural(kind)),
                   hd_str_printf(t->pool, "%.*s/%.*s", HD_STR_ARG(ns), HD_STR_ARG(name)));
    return hd_model_get(t->model, kind, ns, name);
}

const hd_object_t *const *hd_tr_slices_of(hd_tr_t *t, const hd_object_t *svc, size_t *n)
{
    hd_part_depend(
        t->part, HD_DEP_SLICES,
        hd_str_printf(t->pool, "%.*s/%.*s", HD_STR_ARG(svc->ns), HD_STR_ARG(svc->name)),
        HD_STR_NONE);
    return hd_model_slices_of(t->model, svc->ns, svc->name, n);
}

const hd_object_t *hd_tr_pod_by_ip(hd_tr_t *t, hd_str_t ip)
{
    hd_part_depend(t->part, HD_DEP_POD, ip, HD_STR_NONE);
    return hd_model_pod_by_ip(t->model, ip);
}

const hd_object_t *hd_tr_find_service(hd_tr_t *t, hd_str_t host)
{
    hd_part_depend_host(t->part, HD_DEP_HOST, host);
    return hd_model_find_service(t->model, host, t->proxy->ns);
}

size_t hd_tr_find_rules(hd_tr_t *t, hd_str_t service_ns, hd_str_t host,
                        const hd_object_t **rules, size_t max)
{
    hd_part_depend_host(t->part, HD_DEP_RULE, host);
    return hd_model_find_rules(t->model, t->proxy->ns, service_ns, host, rules, max);
}

/* --- one proxy --- */

static int by_key(const void *a, const void *b)
{
    return hd_str_cmp(((const hd_pair_t *)a)->key, ((const hd_pair_t *)b)->key);
}

/* The model's pod knows better than the node what its labels are. */
static hd_labels_t labels_of(hd_tr_t *tr)
{
    const hd_proxy_t *p = tr->proxy;
    const hd_object_t *pod = hd_model_pod_by_ip(tr->model, p->ips[0]);
    hd_pair_t *pairs = hd_pool_new_n(tr->pool, hd_pair_t, HD_PROXY_LABELS_MAX);

    if (pod != NULL && hd_str_eq(pod->ns, p->ns))
        return pod->labels;
    for (uint32_t i = 0; i < p->labels_n; i++)
        pairs[i] = (hd_pair_t){p->labels[i].key, p->labels[i].value};
    qsort(pairs, p->labels_n, sizeof(pairs[0]), by_key);
    return (hd_labels_t){.items = pairs, .n = p->labels_n};
}

static hd_str_t print_labels(hd_tr_t *t)
{
    hd_str_t text = HD_STR("");

    for (hd_each(l, t->_labels))
        text = hd_str_printf(t->pool, "%.*s%.*s=%.*s,", HD_STR_ARG(text),
                             HD_STR_ARG(l->key), HD_STR_ARG(l->value));
    return text;
}

/* Whatever of hd_proxy_t a part of the class, or of the one proxy, may look at. */
static void name_proxy(hd_tr_t *t)
{
    const hd_proxy_t *p = t->proxy;

    t->_labels = labels_of(t);
    t->labels_text = print_labels(t);
    hd_tr_choose_scope(t);
    t->class_name =
        hd_str_printf(t->pool, "%d %.*s %.*s %d", (int)p->kind, HD_STR_ARG(p->ns),
                      HD_STR_ARG(p->cluster_id), p->is_heddle);
    if (t->sidecar != NULL)
        t->class_name =
            hd_str_printf(t->pool, "%.*s %.*s/%.*s %llx", HD_STR_ARG(t->class_name),
                          HD_STR_ARG(t->sidecar->ns), HD_STR_ARG(t->sidecar->name),
                          (unsigned long long)t->brought_hash);
    t->self_name = hd_str_printf(t->pool, "%.*s %.*s %.*s %.*s %.*s %u",
                                 HD_STR_ARG(t->class_name), HD_STR_ARG(p->id),
                                 HD_STR_ARG(p->ips[0]), HD_STR_ARG(p->interception_mode),
                                 HD_STR_ARG(p->app_address), p->http_proxy_port);
}

hd_rc_t hd_translate(hd_translator_t *t, const hd_proxy_t *proxy, hd_view_t *view,
                     hd_err_t *err)
{
    hd_tr_t tr = {.model = t->model,
                  .trust_domain = t->trust_domain,
                  .proxy = proxy,
                  .view = view,
                  .parts = t->parts,
                  .shelf = &t->shelf,
                  .stats = &t->stats,
                  .serial = ++t->serial};

    if (proxy->kind != HD_PROXY_SIDECAR && proxy->kind != HD_PROXY_ROUTER)
        return hd_err_set(err, HD_E_RESOURCE,
                          "only sidecars and gateways (node type router) are served");
    t->stats.views++;
    tr.pool = tr.view_pool = hd_pool_create(65536);
    name_proxy(&tr);
    if (hd_tr_begin(&tr, true, false, "labels")) { /* without resources: what it is */
        hd_tr_labels(&tr);
        hd_tr_pod_by_ip(&tr, proxy->ips[0]);
        hd_tr_depend_scope(&tr);
        hd_tr_end(&tr);
    }
    hd_tr_fixed_clusters(&tr);
    hd_tr_outbound_clusters(&tr);
    if (proxy->kind == HD_PROXY_SIDECAR) {
        hd_tr_inbound_clusters(&tr);
        hd_tr_sidecar_listeners(&tr);
    } else {
        hd_tr_gateway_listeners(&tr);
    }
    hd_view_seal(view);
    hd_tr_end_scope(&tr);
    hd_pool_destroy(tr.view_pool);
    return HD_OK;
}
