/* A VirtualService's route that another one goes on with (VS-DEL-*): the delegate's
 * routes in its place, each merged with it. */
#include "control/hd_translate_int.h"

typedef HD_LIST(hd_http_match_t) matches_t;

/* --- matches: false where no request could fit both --- */

/* VS-DEL-7 */
static bool merge_string(const hd_strmatch_t *root, const hd_strmatch_t *own,
                         const hd_strmatch_t **out)
{
    *out = own != NULL ? own : root;
    if (root == NULL || own == NULL || root->kind == HD_STRMATCH_PRESENT)
        return true;
    if (root->kind == HD_STRMATCH_REGEX || own->kind == HD_STRMATCH_REGEX ||
        own->kind == HD_STRMATCH_PRESENT)
        return false;
    if (root->kind == HD_STRMATCH_EXACT)
        return own->kind == HD_STRMATCH_EXACT && hd_str_eq(root->value, own->value);
    return hd_str_has_prefix(own->value, root->value);
}

static const hd_keymatch_t *find_key(const hd_keymatches_t *list, hd_str_t key)
{
    for (hd_each(m, *list)) {
        if (hd_str_eq(m->key, key))
            return m;
    }
    return NULL;
}

static bool merge_keys(hd_tr_t *t, const hd_keymatches_t *root,
                       const hd_keymatches_t *own, hd_keymatches_t *out)
{
    hd_keymatch_t *items = hd_pool_new_n(t->pool, hd_keymatch_t, root->n + own->n + 1);
    const hd_strmatch_t *ignored;
    size_t n = 0;

    for (hd_each(m, *own))
        items[n++] = *m;
    for (hd_each(m, *root)) {
        const hd_keymatch_t *same = find_key(own, m->key);

        if (same == NULL)
            items[n++] = *m;
        else if (!merge_string(&m->match, &same->match, &ignored))
            return false;
    }
    *out = (hd_keymatches_t){items, n};
    return true;
}

static bool merge_labels(hd_tr_t *t, const hd_labels_t *root, const hd_labels_t *own,
                         hd_labels_t *out)
{
    hd_pair_t *items = hd_pool_new_n(t->pool, hd_pair_t, root->n + own->n + 1);
    size_t n = 0, r = 0, o = 0;

    while (r < root->n || o < own->n) { /* both are sorted */
        int c = r == root->n  ? 1
                : o == own->n ? -1
                              : hd_str_cmp(root->items[r].key, own->items[o].key);

        if (c == 0 && !hd_str_eq(root->items[r].value, own->items[o].value))
            return false;
        items[n++] = c < 0 ? root->items[r] : own->items[o];
        r += c <= 0;
        o += c >= 0;
    }
    *out = (hd_labels_t){items, n};
    return true;
}

static bool is_subset(const hd_strs_t *own, const hd_strs_t *root)
{
    for (hd_each(s, *own)) {
        if (!hd_strs_has(root, *s))
            return false;
    }
    return true;
}

static bool merge_match(hd_tr_t *t, const hd_http_match_t *root,
                        const hd_http_match_t *own, hd_http_match_t *out)
{
    *out = *own;
    if (root->ignore_uri_case != own->ignore_uri_case || /* VS-DEL-8 */
        (root->port != HD_UNSET && own->port != HD_UNSET && root->port != own->port) ||
        (root->source_namespace.len > 0 && own->source_namespace.len > 0 &&
         !hd_str_eq(root->source_namespace, own->source_namespace)) ||
        (root->gateways.n > 0 && !is_subset(&own->gateways, &root->gateways)))
        return false;
    if (own->port == HD_UNSET)
        out->port = root->port;
    if (own->source_namespace.len == 0)
        out->source_namespace = root->source_namespace;
    if (own->gateways.n == 0)
        out->gateways = root->gateways;
    return merge_string(root->uri, own->uri, &out->uri) &&
           merge_string(root->scheme, own->scheme, &out->scheme) &&
           merge_string(root->method, own->method, &out->method) &&
           merge_string(root->authority, own->authority, &out->authority) &&
           merge_keys(t, &root->headers, &own->headers, &out->headers) &&
           merge_keys(t, &root->without_headers, &own->without_headers,
                      &out->without_headers) &&
           merge_keys(t, &root->query_params, &own->query_params, &out->query_params) &&
           merge_labels(t, &root->source_labels, &own->source_labels,
                        &out->source_labels);
}

/* VS-DEL-6; false: none is left. */
static bool merge_matches(hd_tr_t *t, const hd_http_route_t *root,
                          const hd_http_route_t *own, hd_http_route_t *out)
{
    hd_http_match_t *items;
    size_t n = 0;

    if (root->match.n == 0 || own->match.n == 0) {
        out->match = own->match;
        if (own->match.n == 0)
            out->match = root->match;
        return true;
    }
    items = hd_pool_new_n(t->pool, hd_http_match_t, root->match.n * own->match.n);
    for (hd_each(o, own->match)) {
        size_t before = n;

        for (hd_each(r, root->match))
            n += merge_match(t, r, o, &items[n]);
        if (n == before)
            return false;
    }
    out->match.items = items;
    out->match.n = n;
    return true;
}

static bool has_edits(const hd_header_ops_t *h)
{
    return h->request.set.n + h->request.add.n + h->request.remove.n + h->response.set.n +
               h->response.add.n + h->response.remove.n >
           0;
}

bool hd_tr_merge_delegate(hd_tr_t *t, const hd_http_route_t *root,
                          const hd_http_route_t *own, hd_http_route_t *out)
{
    *out = *own;
    if (own->delegate != NULL || !merge_matches(t, root, own, out)) /* VS-DEL-1 */
        return false;
    if (root->name.len > 0 || own->name.len > 0)
        out->name = hd_str_printf(t->pool, "%.*s-%.*s", HD_STR_ARG(root->name),
                                  HD_STR_ARG(own->name));
    /* VS-DEL-5 */
    out->rewrite = own->rewrite != NULL ? own->rewrite : root->rewrite;
    out->timeout_ns = own->timeout_ns != HD_UNSET ? own->timeout_ns : root->timeout_ns;
    out->retries = own->retries != NULL ? own->retries : root->retries;
    out->fault = own->fault != NULL ? own->fault : root->fault;
    if (own->mirrors.n == 0)
        out->mirrors = root->mirrors;
    out->cors = own->cors != NULL ? own->cors : root->cors;
    if (!has_edits(&own->headers))
        out->headers = root->headers;
    return true;
}

const hd_object_t *hd_tr_find_delegate(hd_tr_t *t, const hd_object_t *root,
                                       const hd_delegate_t *delegate)
{
    const hd_object_t *o =
        hd_tr_get(t, HD_KIND_VIRTUAL_SERVICE,
                  delegate->ns.len > 0 ? delegate->ns : root->ns, delegate->name);

    if (o == NULL || o->virtual_service->hosts.n > 0 || /* VS-DEL-3 */
        !hd_is_exported(&o->virtual_service->export_to, o->ns, root->ns))
        return NULL;
    return o;
}
