#include "control/hd_translate_int.h"

#include <stdlib.h>

/* Packed parts of one translation: a ceiling against runaways, far above any real mesh.
 */
#define PACKED_BYTES_MAX ((size_t)1 << 30)

struct hd_translator_s {
    hd_model_t *model;
    hd_str_t trust_domain;
    uint64_t generation; /* of the model, at the last look */
};

hd_translator_t *hd_translator_create(hd_model_t *model, hd_str_t trust_domain)
{
    hd_translator_t *t = calloc(1, sizeof(*t));

    hd_bug_on(t == NULL);
    t->model = model;
    t->trust_domain = trust_domain;
    return t;
}

void hd_translator_destroy(hd_translator_t *t)
{
    free(t);
}

bool hd_translator_on_commit(hd_translator_t *t)
{
    bool changed = hd_model_generation(t->model) != t->generation;

    t->generation = hd_model_generation(t->model);
    return changed;
}

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

hd_rc_t hd_translate(hd_translator_t *t, const hd_proxy_t *proxy, hd_view_t *view,
                     hd_err_t *err)
{
    hd_tr_t tr = {
        .model = t->model, .trust_domain = t->trust_domain, .proxy = proxy, .view = view};

    if (proxy->kind != HD_PROXY_SIDECAR && proxy->kind != HD_PROXY_ROUTER)
        return hd_err_set(err, HD_E_RESOURCE,
                          "only sidecars and gateways (node type router) are served");
    tr.pool = hd_pool_create(65536);
    hd_pb_arena_init(&tr.pb, PACKED_BYTES_MAX);
    tr.labels = labels_of(&tr);
    hd_tr_fixed_clusters(&tr);
    hd_tr_outbound_clusters(&tr);
    if (proxy->kind == HD_PROXY_SIDECAR) {
        hd_tr_inbound_clusters(&tr);
        hd_tr_sidecar_listeners(&tr);
    } else {
        hd_tr_gateway_listeners(&tr);
    }
    hd_view_seal(view);
    hd_pb_arena_deinit(&tr.pb);
    hd_pool_destroy(tr.pool);
    return HD_OK;
}
