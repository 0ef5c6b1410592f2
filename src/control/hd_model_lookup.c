/* Lookups: sorted indexes of what is in force, built when first asked for and dropped
 * when a commit changes an object of their kind. */
#include "control/hd_model_int.h"
#include "control/hd_model_k8s.h"
#include "control/hd_model_traffic.h"
#include <stdlib.h>

static void drop_index(hd_index_t *index)
{
    if (index->pool != NULL)
        hd_pool_destroy(index->pool);
    *index = (hd_index_t){0};
}

void hd_model_drop_indexes(hd_model_t *model, hd_kind_t kind)
{
    drop_index(&model->by_age[kind]);
    drop_index(&model->by_ns[kind]);
    if (kind == HD_KIND_ENDPOINT_SLICE)
        drop_index(&model->slices);
    if (kind == HD_KIND_SERVICE || kind == HD_KIND_SERVICE_ENTRY)
        drop_index(&model->hosts);
    if (kind == HD_KIND_VIRTUAL_SERVICE)
        drop_index(&model->vs_hosts);
    if (kind == HD_KIND_POD)
        drop_index(&model->pod_ips);
}

void hd_model_drop_all_indexes(hd_model_t *model)
{
    for (int kind = 0; kind < HD_KIND_N; kind++)
        hd_model_drop_indexes(model, (hd_kind_t)kind);
}

static int cmp_keys(const hd_index_entry_t *a, hd_str_t k1, hd_str_t k2)
{
    int c = hd_str_cmp(a->k1, k1);

    return c != 0 ? c : hd_str_cmp(a->k2, k2);
}

/* Keys, then Services before ServiceEntries, then EXP-5. */
static int cmp_entries(const void *a, const void *b)
{
    const hd_index_entry_t *x = a, *y = b;
    int c = cmp_keys(x, y->k1, y->k2);

    if (c != 0)
        return c;
    if (x->obj->kind != y->obj->kind)
        return x->obj->kind < y->obj->kind ? -1 : 1;
    if (x->obj->created_s != y->obj->created_s)
        return x->obj->created_s < y->obj->created_s ? -1 : 1;
    c = hd_str_cmp(x->obj->name, y->obj->name);
    return c != 0 ? c : hd_str_cmp(x->obj->ns, y->obj->ns);
}

/* How many entries <add> makes of <obj>; it writes them if <to> isn't NULL. */
typedef size_t (*add_pt)(const hd_object_t *obj, hd_index_entry_t *to);

static size_t add_plain(const hd_object_t *obj, hd_index_entry_t *to)
{
    if (to != NULL)
        *to = (hd_index_entry_t){HD_STR_NONE, HD_STR_NONE, obj};
    return 1;
}

static size_t add_by_ns(const hd_object_t *obj, hd_index_entry_t *to)
{
    if (to != NULL)
        *to = (hd_index_entry_t){obj->ns, HD_STR_NONE, obj};
    return 1;
}

static size_t add_slice(const hd_object_t *obj, hd_index_entry_t *to)
{
    if (to != NULL)
        *to = (hd_index_entry_t){obj->ns, obj->slice->service, obj};
    return 1;
}

static size_t add_hosts(const hd_object_t *obj, hd_index_entry_t *to)
{
    const hd_strs_t *hosts = &obj->service->hosts;

    for (size_t i = 0; to != NULL && i < hosts->n; i++)
        to[i] = (hd_index_entry_t){hosts->items[i], HD_STR_NONE, obj};
    return hosts->n;
}

static size_t add_vs_hosts(const hd_object_t *obj, hd_index_entry_t *to)
{
    const hd_strs_t *hosts = &obj->virtual_service->hosts;

    for (size_t i = 0; to != NULL && i < hosts->n; i++)
        to[i] = (hd_index_entry_t){hosts->items[i], HD_STR_NONE, obj};
    return hosts->n;
}

static size_t add_pod_ips(const hd_object_t *obj, hd_index_entry_t *to)
{
    const hd_strs_t *ips = &obj->pod->ips;

    if (obj->pod->host_network)
        return 0;
    for (size_t i = 0; to != NULL && i < ips->n; i++)
        to[i] = (hd_index_entry_t){ips->items[i], HD_STR_NONE, obj};
    return ips->n;
}

/* Entries of all objects in force of <kind>: counted, or written to <to>. */
static size_t add_kind(const hd_model_t *model, hd_kind_t kind, add_pt add,
                       hd_index_entry_t *to)
{
    size_t n = 0;

    hd_list_each(link, (hd_link_t *)&model->kinds[kind])
    {
        const hd_cell_t *cell = hd_list_entry(link, hd_cell_t, of_kind);

        if (cell->in_force != NULL)
            n += add(cell->in_force, to != NULL ? to + n : NULL);
    }
    return n;
}

/* <other> HD_KIND_N: one kind only. */
static hd_index_t *need_index(hd_model_t *model, hd_index_t *index, hd_kind_t kind,
                              hd_kind_t other, add_pt add)
{
    size_t n, first;

    if (index->pool != NULL)
        return index;
    first = add_kind(model, kind, add, NULL);
    n = first + (other != HD_KIND_N ? add_kind(model, other, add, NULL) : 0);
    index->pool = hd_pool_create(0);
    index->n = n;
    if (n == 0)
        return index;
    index->entries = hd_pool_new_n(index->pool, hd_index_entry_t, n);
    add_kind(model, kind, add, index->entries);
    if (other != HD_KIND_N)
        add_kind(model, other, add, index->entries + first);
    qsort(index->entries, n, sizeof(*index->entries), cmp_entries);
    index->objs = hd_pool_new_n(index->pool, const hd_object_t *, n);
    for (size_t i = 0; i < n; i++)
        index->objs[i] = index->entries[i].obj;
    return index;
}

/* Where entries not below the keys begin; with <after>, those above them. */
static size_t find_bound(const hd_index_t *index, hd_str_t k1, hd_str_t k2, bool after)
{
    size_t low = 0, high = index->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = cmp_keys(&index->entries[mid], k1, k2);

        if (c < 0 || (after && c == 0))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static const hd_object_t *const *find_range(const hd_index_t *index, hd_str_t k1,
                                            hd_str_t k2, size_t *n)
{
    size_t first = find_bound(index, k1, k2, false);

    *n = find_bound(index, k1, k2, true) - first;
    return *n == 0 ? NULL : index->objs + first;
}

const hd_object_t *const *hd_model_list(hd_model_t *model, hd_kind_t kind, size_t *n)
{
    hd_index_t *index =
        need_index(model, &model->by_age[kind], kind, HD_KIND_N, add_plain);

    *n = index->n;
    return index->objs;
}

const hd_object_t *const *hd_model_list_ns(hd_model_t *model, hd_kind_t kind, hd_str_t ns,
                                           size_t *n)
{
    return find_range(need_index(model, &model->by_ns[kind], kind, HD_KIND_N, add_by_ns),
                      ns, HD_STR_NONE, n);
}

const hd_object_t *const *hd_model_slices_of(hd_model_t *model, hd_str_t ns,
                                             hd_str_t service, size_t *n)
{
    return find_range(
        need_index(model, &model->slices, HD_KIND_ENDPOINT_SLICE, HD_KIND_N, add_slice),
        ns, service, n);
}

const hd_object_t *hd_model_pod_by_ip(hd_model_t *model, hd_str_t ip)
{
    size_t n;
    const hd_object_t *const *found = find_range(
        need_index(model, &model->pod_ips, HD_KIND_POD, HD_KIND_N, add_pod_ips), ip,
        HD_STR_NONE, &n);

    return n == 0 ? NULL : found[0];
}

const hd_object_t *const *hd_model_services_of(hd_model_t *model, hd_str_t host,
                                               size_t *n)
{
    return find_range(need_index(model, &model->hosts, HD_KIND_SERVICE,
                                 HD_KIND_SERVICE_ENTRY, add_hosts),
                      host, HD_STR_NONE, n);
}

const hd_object_t *const *hd_model_virtual_services_of(hd_model_t *model, hd_str_t host,
                                                       size_t *n)
{
    return find_range(need_index(model, &model->vs_hosts, HD_KIND_VIRTUAL_SERVICE,
                                 HD_KIND_N, add_vs_hosts),
                      host, HD_STR_NONE, n);
}

/* SC-10 among the services of exactly <host>. */
static const hd_object_t *find_exact(hd_model_t *model, hd_str_t host, hd_str_t ns)
{
    size_t n;
    const hd_object_t *const *found = hd_model_services_of(model, host, &n);
    const hd_object_t *best = NULL;

    for (size_t i = 0; i < n; i++) {
        if (!hd_is_exported(&found[i]->service->export_to, found[i]->ns, ns))
            continue;
        if (hd_str_eq(found[i]->ns, ns))
            return found[i];
        if (best == NULL)
            best = found[i];
    }
    return best;
}

const hd_object_t *hd_model_find_service(hd_model_t *model, hd_str_t host, hd_str_t ns)
{
    const hd_object_t *found = find_exact(model, host, ns);
    char wild[256];

    /* *.b.c before *.c: the longest suffix first (HOST-5) */
    for (size_t i = 0; i < host.len && found == NULL && host.len < sizeof(wild); i++) {
        if (host.data[i] != '.' || i == 0)
            continue;
        wild[0] = '*';
        memcpy(wild + 1, host.data + i, host.len - i);
        found = find_exact(model, hd_str_n(wild, host.len - i + 1), ns);
    }
    return found;
}

/* --- DestinationRules (DR-6, DR-7) --- */

typedef enum {
    RULES_AT_HOME,    /* of the client's own namespace, which isn't the root's */
    RULES_ROOT_LOCAL, /* of the root namespace, exported nowhere, for clients there */
    RULES_EXPORTED,   /* of another namespace, which shows them */
} rules_t;

static bool is_private(const hd_object_t *rule)
{
    const hd_destination_rule_t *r = rule->destination_rule;

    return r->selector.n > 0 ||
           (r->export_to.n == 1 && hd_str_eq(r->export_to.items[0], HD_STR(".")));
}

static bool is_visible(const hd_object_t *rule, rules_t rules, hd_str_t client_ns)
{
    const hd_strs_t *list = &rule->destination_rule->export_to;

    switch (rules) {
    case RULES_AT_HOME:
        return rule->destination_rule->selector.n > 0 ||
               hd_is_exported(list, rule->ns, client_ns);
    case RULES_ROOT_LOCAL:
        return is_private(rule);
    case RULES_EXPORTED:
        break;
    }
    return !is_private(rule) && hd_is_exported(list, rule->ns, client_ns);
}

static size_t find_rules_in(hd_model_t *model, hd_str_t ns, rules_t rules,
                            hd_str_t client_ns, hd_str_t host, const hd_object_t **out,
                            size_t max)
{
    size_t list_n, n = 0;
    const hd_object_t *const *list =
        hd_model_list_ns(model, HD_KIND_DESTINATION_RULE, ns, &list_n);
    hd_str_t best = HD_STR_NONE;

    for (size_t i = 0; i < list_n; i++) {
        hd_str_t of = list[i]->destination_rule->host;

        if (is_visible(list[i], rules, client_ns) && hd_host_covers(of, host) &&
            (best.data == NULL || hd_host_cmp_specific(of, best) < 0))
            best = of;
    }
    for (size_t i = 0; best.data != NULL && i < list_n && n < max; i++) {
        if (is_visible(list[i], rules, client_ns) &&
            hd_str_eq(list[i]->destination_rule->host, best))
            out[n++] = list[i];
    }
    return n;
}

size_t hd_model_find_rules(hd_model_t *model, hd_str_t client_ns, hd_str_t service_ns,
                           hd_str_t host, const hd_object_t **rules, size_t max)
{
    bool at_root = hd_str_eq(client_ns, model->root_namespace);
    size_t n = find_rules_in(model, client_ns, at_root ? RULES_ROOT_LOCAL : RULES_AT_HOME,
                             client_ns, host, rules, max);

    if (n == 0 && service_ns.len > 0)
        n = find_rules_in(model, service_ns, RULES_EXPORTED, client_ns, host, rules, max);
    if (n == 0)
        n = find_rules_in(model, model->root_namespace, RULES_EXPORTED, client_ns, host,
                          rules, max);
    return n;
}
