/* Which endpoints a request's labels lead to: Envoy's load balancer subsets. */
#include "mesh/hd_balance_int.h"

#define LABELS_MAX 32 /* of a request; more lead to the fallback */

static const hd_kv_t *find_label(const hd_kv_t *labels, uint32_t n, hd_str_t key)
{
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq(labels[i].key, key))
            return &labels[i];
    }
    return NULL;
}

/* The labels of these keys, into <out>; 0: one is missing. */
static uint32_t take_labels(const hd_kv_t *labels, uint32_t n, const hd_str_t *keys,
                            uint32_t keys_n, hd_kv_t out[LABELS_MAX])
{
    for (uint32_t i = 0; i < keys_n && i < LABELS_MAX; i++) {
        const hd_kv_t *l = find_label(labels, n, keys[i]);

        if (l == NULL)
            return 0;
        out[i] = *l;
    }
    return keys_n <= LABELS_MAX ? keys_n : 0;
}

/* The selector of just these keys; where more keys are allowed, the one that uses most of
 * them. */
static const hd_subset_selector_t *find_selector(const hd_subsets_t *s,
                                                 const hd_kv_t *labels, uint32_t n,
                                                 hd_kv_t out[LABELS_MAX])
{
    const hd_subset_selector_t *best = NULL;

    for (uint32_t i = 0; i < s->selectors_n; i++) {
        const hd_subset_selector_t *sel = &s->selectors[i];

        if ((sel->keys_n != n && !(s->allows_more_keys && sel->keys_n < n)) ||
            (best != NULL && sel->keys_n <= best->keys_n) ||
            take_labels(labels, n, sel->keys, sel->keys_n, out) == 0)
            continue;
        best = sel;
    }
    if (best != NULL)
        hd_ignore(take_labels(labels, n, best->keys, best->keys_n, out) == 0);
    return best;
}

static hd_lb_group_t *fall_back(hd_lb_view_t *v, uint8_t how, uint64_t now_ns)
{
    const hd_subsets_t *s = v->conf->subsets;

    switch (how) {
    case HD_SUBSET_FALLBACK_ANY:
        return &v->whole;
    case HD_SUBSET_FALLBACK_DEFAULT:
        return hd_lb_group(v, s->default_labels, s->default_labels_n, now_ns);
    default:
        return NULL;
    }
}

hd_lb_group_t *hd_lb_subset(hd_lb_view_t *v, const hd_kv_t *labels, uint32_t n,
                            uint64_t now_ns)
{
    const hd_subsets_t *s = v->conf->subsets;
    hd_kv_t rooms[2][LABELS_MAX];
    uint32_t turn = 0;

    if (s == NULL)
        return &v->whole;
    while (n > 0) {
        hd_kv_t *out = rooms[turn++ & 1]; /* <labels> may lie in the other */
        const hd_subset_selector_t *sel = find_selector(s, labels, n, out);
        hd_lb_group_t *g = sel != NULL ? hd_lb_group(v, out, sel->keys_n, now_ns) : NULL;

        if (g != NULL)
            return g;
        if (sel == NULL || sel->fallback == HD_SUBSET_FALLBACK_UNSET)
            break;
        if (sel->fallback != HD_SUBSET_FALLBACK_KEYS)
            return fall_back(v, sel->fallback, now_ns);
        n = sel->fallback_keys_n < n ? take_labels(labels, n, sel->fallback_keys,
                                                   sel->fallback_keys_n, rooms[turn & 1])
                                     : 0;
        labels = rooms[turn++ & 1];
    }
    return fall_back(v, s->fallback, now_ns);
}
