/* What a proxy may see: what is exported to its namespace, and of that what its Sidecar
 * resource imports (SC-3, SC-6 … SC-9). */
#include "control/hd_translate_int.h"

/* SC-6: the oldest that selects the workload, else the oldest without a selector, of its
 * namespace; else one without a selector of the root namespace. */
static const hd_object_t *choose_in(hd_tr_t *t, hd_str_t ns, bool may_select)
{
    size_t n;
    const hd_object_t *const *list = hd_model_list_ns(t->model, HD_KIND_SIDECAR, ns, &n);
    const hd_object_t *plain = NULL;

    for (size_t i = 0; i < n; i++) {
        const hd_labels_t *selector = &list[i]->sidecar->selector;

        if (selector->n == 0 && plain == NULL)
            plain = list[i];
        if (may_select && selector->n > 0 && hd_labels_match(selector, &t->_labels))
            return list[i];
    }
    return plain;
}

static bool is_of_ns(hd_str_t pattern, hd_str_t ns)
{
    return pattern.len == 0 || hd_str_eq(pattern, HD_STR("*")) || hd_str_eq(pattern, ns);
}

typedef enum { NOT_LISTED, IMPORTED, EXCLUDED } import_t;

/* SC-8: an exclusion beats all else. */
static import_t import_of(const hd_sidecar_t *sidecar, hd_str_t ns, hd_str_t host)
{
    import_t found = sidecar->egress.n == 0 ? IMPORTED : NOT_LISTED;

    for (hd_each(e, sidecar->egress)) {
        for (hd_each(h, e->hosts)) {
            bool excludes = h->ns.len > 0 && h->ns.data[0] == '~';
            hd_str_t of = excludes ? hd_str_sub(h->ns, 1, h->ns.len) : h->ns;

            if (!is_of_ns(of, ns) || !hd_host_covers(h->host, host))
                continue;
            if (excludes)
                return EXCLUDED;
            found = IMPORTED;
        }
    }
    return found;
}

bool hd_tr_sees_vs(hd_tr_t *t, const hd_object_t *vs)
{
    if (!hd_is_exported(&vs->virtual_service->export_to, vs->ns, t->proxy->ns))
        return false;
    if (t->sidecar == NULL)
        return true;
    for (hd_each(host, vs->virtual_service->hosts)) {
        if (import_of(t->sidecar->sidecar, vs->ns, *host) == IMPORTED)
            return true;
    }
    return false;
}

static void bring(hd_tr_t *t, hd_str_t host)
{
    if (hd_map_put(t->brought, host, t->brought) != NULL)
        return;
    for (size_t i = 0; i < host.len; i++) /* FNV-1a */
        t->brought_hash = (t->brought_hash ^ (uint8_t)host.data[i]) * 0x100000001b3u;
    t->brought_hash = (t->brought_hash ^ 0) * 0x100000001b3u;
}

/* SC-9: an imported VirtualService brings along what it routes to. */
static void bring_destinations(hd_tr_t *t)
{
    size_t n;
    const hd_object_t *const *list = hd_model_list(t->model, HD_KIND_VIRTUAL_SERVICE, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_virtual_service_t *vs = list[i]->virtual_service;

        if (!hd_strs_has(&vs->gateways, HD_STR("mesh")) || !hd_tr_sees_vs(t, list[i]))
            continue;
        for (hd_each(http, vs->http)) {
            for (hd_each(d, http->route))
                bring(t, d->destination.host);
            for (hd_each(m, http->mirrors))
                bring(t, m->destination.host);
        }
        for (hd_each(tls, vs->tls)) {
            for (hd_each(d, tls->route))
                bring(t, d->destination.host);
        }
        for (hd_each(tcp, vs->tcp)) {
            for (hd_each(d, tcp->route))
                bring(t, d->destination.host);
        }
    }
}

void hd_tr_choose_scope(hd_tr_t *t)
{
    if (t->proxy->kind != HD_PROXY_SIDECAR)
        return;
    t->sidecar = choose_in(t, t->proxy->ns, true);
    if (t->sidecar == NULL)
        t->sidecar = choose_in(t, hd_model_root_namespace(t->model), false);
    if (t->sidecar == NULL)
        return;
    t->brought = hd_map_create();
    t->brought_hash = 0xcbf29ce484222325u;
    bring_destinations(t);
}

void hd_tr_end_scope(hd_tr_t *t)
{
    if (t->brought != NULL)
        hd_map_destroy(t->brought);
}

void hd_tr_depend_scope(hd_tr_t *t)
{
    hd_str_t plural = hd_str_c(hd_kind_plural(HD_KIND_SIDECAR));

    if (t->proxy->kind != HD_PROXY_SIDECAR)
        return;
    hd_part_depend(t->part, HD_DEP_IN_NS, plural, t->proxy->ns);
    hd_part_depend(t->part, HD_DEP_IN_NS, plural, hd_model_root_namespace(t->model));
    if (t->sidecar != NULL) /* whose destinations were brought along */
        hd_tr_depend_kind(t, HD_KIND_VIRTUAL_SERVICE);
}

bool hd_tr_sees_host(hd_tr_t *t, const hd_object_t *svc, hd_str_t host)
{
    if (t->sidecar == NULL)
        return true;
    switch (import_of(t->sidecar->sidecar, svc->ns, host)) {
    case IMPORTED:
        return true;
    case EXCLUDED:
        return false;
    default:
        return hd_map_get(t->brought, host) != NULL;
    }
}

bool hd_tr_sees(hd_tr_t *t, const hd_object_t *svc)
{
    if (!hd_is_exported(&svc->service->export_to, svc->ns, t->proxy->ns))
        return false;
    for (hd_each(host, svc->service->hosts)) {
        if (hd_tr_sees_host(t, svc, *host))
            return true;
    }
    return false;
}

bool hd_tr_is_registry_only(const hd_tr_t *t)
{
    return t->sidecar != NULL &&
           t->sidecar->sidecar->outbound_mode == HD_OUTBOUND_REGISTRY_ONLY;
}
