#include "control/hd_translate_int.h"

#include <stdlib.h>

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
