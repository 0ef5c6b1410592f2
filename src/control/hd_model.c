/* The store: units, keys, generations, changes. Lookups are in hd_model_lookup.c. */
#include "control/hd_model_int.h"
#include "core/base/hd_log.h"
#include <stdlib.h>

static const struct {
    const char *name, *plural;
} kinds[HD_KIND_N] = {
    [HD_KIND_NAMESPACE] = {"Namespace", "namespaces"},
    [HD_KIND_NODE] = {"Node", "nodes"},
    [HD_KIND_SERVICE] = {"Service", "services"},
    [HD_KIND_ENDPOINT_SLICE] = {"EndpointSlice", "endpointslices"},
    [HD_KIND_POD] = {"Pod", "pods"},
    [HD_KIND_SERVICE_ENTRY] = {"ServiceEntry", "serviceentries"},
    [HD_KIND_WORKLOAD_ENTRY] = {"WorkloadEntry", "workloadentries"},
    [HD_KIND_VIRTUAL_SERVICE] = {"VirtualService", "virtualservices"},
    [HD_KIND_DESTINATION_RULE] = {"DestinationRule", "destinationrules"},
    [HD_KIND_GATEWAY] = {"Gateway", "gateways"},
    [HD_KIND_SIDECAR] = {"Sidecar", "sidecars"},
    [HD_KIND_AUTHORIZATION_POLICY] = {"AuthorizationPolicy", "authorizationpolicies"},
    [HD_KIND_PEER_AUTHENTICATION] = {"PeerAuthentication", "peerauthentications"},
    [HD_KIND_REQUEST_AUTHENTICATION] = {"RequestAuthentication",
                                        "requestauthentications"},
    [HD_KIND_TELEMETRY] = {"Telemetry", "telemetries"},
};

const char *hd_kind_name(hd_kind_t kind)
{
    return kinds[kind].name;
}

const char *hd_kind_plural(hd_kind_t kind)
{
    return kinds[kind].plural;
}

/* --- objects --- */

hd_object_t *hd_object_create(void)
{
    hd_pool_t *pool = hd_pool_create(2048);
    hd_object_t *obj = hd_pool_new(pool, hd_object_t);

    obj->_pool = pool;
    return obj;
}

void hd_object_destroy(hd_object_t *obj)
{
    if (obj != NULL)
        hd_pool_destroy(obj->_pool);
}

static hd_object_t *ref_object(hd_object_t *obj)
{
    if (obj != NULL)
        obj->_refs++;
    return obj;
}

static void unref_object(hd_object_t *obj)
{
    if (obj == NULL)
        return;
    hd_assert(obj->_refs > 0);
    if (--obj->_refs == 0)
        hd_object_destroy(obj);
}

/* By unit, document, line. */
static int cmp_place(const hd_object_t *a, const hd_object_t *b)
{
    int c = hd_str_cmp(a->place.file, b->place.file);

    if (c != 0)
        return c;
    if (a->place.doc != b->place.doc)
        return a->place.doc < b->place.doc ? -1 : 1;
    return a->place.line < b->place.line ? -1 : a->place.line > b->place.line;
}

/* --- cells --- */

static void *take_zeroed(size_t bytes)
{
    void *p = calloc(1, bytes);

    hd_bug_on(p == NULL);
    return p;
}

#define KEY_MAX 1024 /* a name and a namespace are at most 253 bytes each */

static hd_str_t print_key(char out[KEY_MAX], hd_kind_t kind, hd_str_t ns, hd_str_t name)
{
    size_t len = 0;

    if (ns.len + name.len + 2 > KEY_MAX)
        return HD_STR_NONE;
    out[len++] = (char)('A' + kind);
    if (ns.len > 0)
        memcpy(out + len, ns.data, ns.len);
    len += ns.len;
    out[len++] = '/';
    if (name.len > 0)
        memcpy(out + len, name.data, name.len);
    return hd_str_n(out, len + name.len);
}

static hd_cell_t *find_cell(const hd_model_t *model, hd_kind_t kind, hd_str_t ns,
                            hd_str_t name)
{
    char text[KEY_MAX];
    hd_str_t key = print_key(text, kind, ns, name);

    return key.len == 0 ? NULL : hd_map_get(model->cells, key);
}

static hd_cell_t *take_cell(hd_model_t *model, const hd_object_t *obj)
{
    char text[KEY_MAX];
    hd_cell_t *cell = find_cell(model, obj->kind, obj->ns, obj->name);
    hd_str_t key;
    char *copy;

    if (cell != NULL)
        return cell;
    key = print_key(text, obj->kind, obj->ns, obj->name);
    hd_bug_on(key.len == 0); /* the decoder has bounded both */
    cell = take_zeroed(sizeof(*cell) + key.len);
    copy = (char *)(cell + 1);
    memcpy(copy, key.data, key.len);
    cell->key = hd_str_n(copy, key.len);
    cell->ns_len = obj->ns.len;
    cell->kind = obj->kind;
    hd_list_init(&cell->touched);
    hd_list_init(&cell->changed);
    hd_list_init(&cell->of_kind);
    hd_list_add_last(&model->kinds[obj->kind], &cell->of_kind);
    hd_map_put(model->cells, cell->key, cell);
    return cell;
}

static hd_str_t cell_ns(const hd_cell_t *cell)
{
    return hd_str_sub(cell->key, 1, cell->ns_len);
}

static hd_str_t cell_name(const hd_cell_t *cell)
{
    return hd_str_sub(cell->key, cell->ns_len + 2, cell->key.len);
}

static void touch_cell(hd_model_t *model, hd_cell_t *cell)
{
    hd_list_remove(&cell->touched);
    hd_list_add_last(&model->touched, &cell->touched);
}

/* Ends a cell that nobody claims and no change names. */
static void try_end_cell(hd_model_t *model, hd_cell_t *cell)
{
    if (cell->first != NULL || cell->in_force != NULL || cell->was != NULL ||
        !hd_list_is_empty(&cell->changed) || !hd_list_is_empty(&cell->touched))
        return;
    hd_list_remove(&cell->of_kind);
    hd_map_remove(model->cells, cell->key);
    free(cell);
}

/* The chain's reference is the caller's to give. */
static void add_to_cell(hd_model_t *model, hd_object_t *obj)
{
    hd_cell_t *cell = take_cell(model, obj);
    hd_object_t **at = &cell->first;

    while (*at != NULL && cmp_place(*at, obj) < 0)
        at = &(*at)->_next_same;
    obj->_next_same = *at;
    *at = obj;
    touch_cell(model, cell);
}

/* The chain's reference is the caller's afterwards. */
static void remove_from_cell(hd_model_t *model, hd_object_t *obj)
{
    hd_cell_t *cell = find_cell(model, obj->kind, obj->ns, obj->name);
    hd_object_t **at;

    hd_bug_on(cell == NULL);
    for (at = &cell->first; *at != obj; at = &(*at)->_next_same)
        hd_bug_on(*at == NULL);
    *at = obj->_next_same;
    obj->_next_same = NULL;
    touch_cell(model, cell);
}

/* --- units --- */

static hd_unit_t *create_unit(hd_str_t name, size_t objs_max)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_unit_t *unit = hd_pool_new(pool, hd_unit_t);

    unit->pool = pool;
    unit->name = hd_str_dup(pool, name);
    unit->objs = hd_pool_new_n(pool, hd_object_t *, objs_max == 0 ? 1 : objs_max);
    return unit;
}

/* The unit's former object with the key of <obj>, not yet marked. */
static hd_object_t *find_former(hd_model_t *model, hd_str_t unit, const hd_object_t *obj)
{
    hd_cell_t *cell = find_cell(model, obj->kind, obj->ns, obj->name);

    for (hd_object_t *o = cell == NULL ? NULL : cell->first; o != NULL;
         o = o->_next_same) {
        if (hd_str_eq(o->place.file, unit) && !o->_marked)
            return o;
    }
    return NULL;
}

/* Whether an error among <statuses> is about <obj>. */
static bool is_blamed(const hd_object_t *obj, const hd_statuses_t *statuses)
{
    for (hd_each(s, *statuses)) {
        if (s->severity == HD_STATUS_ERROR && hd_str_eq(s->name, obj->name) &&
            hd_str_eq(s->ns, obj->ns) &&
            hd_str_eq(s->kind, hd_str_c(hd_kind_name(obj->kind))))
            return true;
    }
    return false;
}

/* Former objects that stay though the new text doesn't have them. */
static void keep_former(hd_unit_t *to, const hd_unit_t *from,
                        const hd_statuses_t *statuses, hd_keep_t keep)
{
    for (size_t i = 0; from != NULL && i < from->n; i++) {
        hd_object_t *old = from->objs[i];

        if (old->_marked)
            continue;
        if (keep == HD_KEEP_ALL || (keep == HD_KEEP_NAMED && is_blamed(old, statuses))) {
            old->_marked = true;
            to->objs[to->n++] = old;
        }
    }
}

hd_rc_t hd_model_put_unit(hd_model_t *model, hd_str_t name, hd_object_t **objs, size_t n,
                          const hd_statuses_t *statuses, hd_keep_t keep, hd_err_t *err)
{
    static const hd_statuses_t none = {NULL, 0};
    hd_unit_t *old = hd_map_get(model->units, name), *unit;
    size_t old_n = old != NULL ? old->n : 0;

    if (statuses == NULL)
        statuses = &none;
    if (model->objects_n + n > model->objects_max + old_n) {
        for (size_t i = 0; i < n; i++)
            hd_object_destroy(objs[i]);
        return hd_err_set(err, HD_E_LIMIT,
                          "more than %zu objects: raise the limit or remove some",
                          model->objects_max);
    }
    unit = create_unit(name, n + old_n);
    unit->statuses = hd_statuses_dup(unit->pool, statuses);
    for (size_t i = 0; i < n; i++) {
        hd_object_t *former = find_former(model, name, objs[i]);

        if (former != NULL && former->_digest == objs[i]->_digest) {
            former->_marked = true;
            if (cmp_place(former, objs[i]) != 0) {
                remove_from_cell(model, former);
                former->place.doc = objs[i]->place.doc;
                former->place.line = objs[i]->place.line;
                add_to_cell(model, former);
            }
            hd_object_destroy(objs[i]);
            unit->objs[unit->n++] = former;
            continue;
        }
        objs[i]->_marked = true;
        unit->objs[unit->n++] = ref_object(objs[i]);
        add_to_cell(model, objs[i]);
    }
    keep_former(unit, old, statuses, keep);
    for (size_t i = 0; i < old_n; i++) {
        if (!old->objs[i]->_marked) {
            remove_from_cell(model, old->objs[i]);
            unref_object(old->objs[i]);
        }
    }
    for (size_t i = 0; i < unit->n; i++)
        unit->objs[i]->_marked = false;
    model->objects_n += unit->n - old_n;
    if (old != NULL) {
        hd_map_remove(model->units, name);
        hd_pool_destroy(old->pool);
    }
    hd_map_put(model->units, unit->name, unit);
    model->dirty = true;
    return HD_OK;
}

static void end_unit(hd_model_t *model, hd_unit_t *unit)
{
    for (size_t i = 0; i < unit->n; i++) {
        remove_from_cell(model, unit->objs[i]);
        unref_object(unit->objs[i]);
    }
    model->objects_n -= unit->n;
    hd_pool_destroy(unit->pool);
}

void hd_model_remove_unit(hd_model_t *model, hd_str_t name)
{
    hd_unit_t *unit = hd_map_remove(model->units, name);

    if (unit == NULL)
        return;
    end_unit(model, unit);
    model->dirty = true;
}

bool hd_model_next_unit(const hd_model_t *model, size_t *at, hd_str_t *unit)
{
    void *value;

    return hd_map_next(model->units, at, unit, &value);
}

/* --- commit and changes --- */

static void drop_changes(hd_model_t *model)
{
    if (model->changes_pool != NULL)
        hd_pool_destroy(model->changes_pool);
    model->changes_pool = NULL;
    model->changes = NULL;
    model->changes_n = 0;
}

static void drop_statuses(hd_model_t *model)
{
    if (model->statuses_pool != NULL)
        hd_pool_destroy(model->statuses_pool);
    model->statuses_pool = NULL;
    model->statuses = (hd_statuses_t){NULL, 0};
}

/* <cell> has another first object than the one in force: that one is, from now on. */
static void change_cell(hd_model_t *model, hd_cell_t *cell)
{
    if (hd_list_is_empty(&cell->changed)) {
        cell->was = ref_object(cell->in_force);
        hd_list_add_last(&model->changed, &cell->changed);
    }
    unref_object(cell->in_force);
    cell->in_force = ref_object(cell->first);
    cell->generation = model->generation;
    if (cell->in_force != NULL)
        cell->in_force->generation = model->generation;
    hd_model_drop_indexes(model, cell->kind);
}

void hd_model_commit(hd_model_t *model)
{
    bool any = false;

    if (!model->dirty)
        return;
    model->dirty = false;
    drop_statuses(model);
    drop_changes(model);
    hd_list_each(link, &model->touched)
    {
        hd_cell_t *cell = hd_list_entry(link, hd_cell_t, touched);

        hd_list_remove(link);
        if (cell->first != cell->in_force) {
            model->generation += !any;
            any = true;
            change_cell(model, cell);
        }
        try_end_cell(model, cell);
    }
    if (model->on_commit != NULL)
        model->on_commit(model->arg);
}

void hd_model_set_on_commit(hd_model_t *model, void (*on_commit)(void *arg), void *arg)
{
    model->on_commit = on_commit;
    model->arg = arg;
}

uint64_t hd_model_generation(const hd_model_t *model)
{
    return model->generation;
}

static int cmp_changes(const void *a, const void *b)
{
    const hd_change_t *x = a, *y = b;
    int c;

    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    c = hd_str_cmp(x->ns, y->ns);
    return c != 0 ? c : hd_str_cmp(x->name, y->name);
}

const hd_change_t *hd_model_changes(hd_model_t *model, size_t *n)
{
    size_t room = 0;

    if (model->changes_pool == NULL && !hd_list_is_empty(&model->changed)) {
        hd_list_each(link, &model->changed) room++;
        model->changes_pool = hd_pool_create(0);
        model->changes = hd_pool_new_n(model->changes_pool, hd_change_t, room);
        hd_list_each(link, &model->changed)
        {
            const hd_cell_t *cell = hd_list_entry(link, hd_cell_t, changed);

            if (cell->was == cell->in_force)
                continue; /* came and went again */
            model->changes[model->changes_n++] =
                (hd_change_t){cell->kind,       cell_ns(cell), cell_name(cell),
                              cell->generation, cell->was,     cell->in_force};
        }
        qsort(model->changes, model->changes_n, sizeof(hd_change_t), cmp_changes);
    }
    *n = model->changes_n;
    return model->changes;
}

void hd_model_clear_changes(hd_model_t *model)
{
    drop_changes(model);
    hd_list_each(link, &model->changed)
    {
        hd_cell_t *cell = hd_list_entry(link, hd_cell_t, changed);

        hd_list_remove(link);
        unref_object(cell->was);
        cell->was = NULL;
        try_end_cell(model, cell);
    }
}

const hd_object_t *hd_model_get(const hd_model_t *model, hd_kind_t kind, hd_str_t ns,
                                hd_str_t name)
{
    const hd_cell_t *cell = find_cell(model, kind, ns, name);

    return cell != NULL ? cell->in_force : NULL;
}

/* --- statuses --- */

/* Keys that several objects claim: those that aren't in force are errors. */
static void report_doubles(const hd_model_t *model, hd_status_list_t *list)
{
    size_t at = 0;
    hd_str_t key;
    void *value;

    while (hd_map_next(model->cells, &at, &key, &value)) {
        const hd_cell_t *cell = value;
        const hd_object_t *first = cell->in_force;

        for (const hd_object_t *o = cell->first == NULL ? NULL : cell->first->_next_same;
             o != NULL && first != NULL; o = o->_next_same) {
            hd_status_t s = {.severity = HD_STATUS_ERROR,
                             .place = o->place,
                             .kind = hd_str_c(hd_kind_name(o->kind)),
                             .ns = o->ns,
                             .name = o->name,
                             .text = hd_str_printf(
                                 list->pool,
                                 "%s %.*s/%.*s is there twice: in force is the one of "
                                 "%.*s:%u",
                                 hd_kind_name(o->kind), HD_STR_ARG(o->ns),
                                 HD_STR_ARG(o->name), HD_STR_ARG(first->place.file),
                                 first->place.line)};

            hd_status_list_add(list, &s);
        }
    }
}

const hd_status_t *hd_model_statuses(hd_model_t *model, size_t *n)
{
    hd_status_list_t list;
    hd_statuses_t all;
    hd_status_t *items;
    size_t at = 0, room = 0;
    hd_str_t name;
    void *value;

    if (model->statuses_pool != NULL) {
        *n = model->statuses.n;
        return model->statuses.items;
    }
    model->statuses_pool = hd_pool_create(0);
    hd_status_list_init(&list, model->statuses_pool);
    report_doubles(model, &list);
    hd_model_check(model, &list);
    all = hd_status_list_end(&list);
    while (hd_map_next(model->units, &at, &name, &value))
        room += ((const hd_unit_t *)value)->statuses.n;
    items = hd_pool_new_n(model->statuses_pool, hd_status_t, room + all.n + 1);
    if (all.n > 0)
        memcpy(items, all.items, all.n * sizeof(*items));
    model->statuses = (hd_statuses_t){items, all.n};
    for (at = 0; hd_map_next(model->units, &at, &name, &value);) {
        const hd_statuses_t *of = &((const hd_unit_t *)value)->statuses;

        if (of->n > 0)
            memcpy(items + model->statuses.n, of->items, of->n * sizeof(*items));
        model->statuses.n += of->n;
    }
    qsort(items, model->statuses.n, sizeof(*items), hd_status_cmp);
    *n = model->statuses.n;
    return items;
}

/* --- the model itself --- */

hd_model_t *hd_model_create(const hd_model_conf_t *conf)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_model_t *model = hd_pool_new(pool, hd_model_t);

    model->pool = pool;
    model->cluster_domain = conf != NULL && conf->cluster_domain.len > 0
                                ? hd_str_dup(pool, conf->cluster_domain)
                                : HD_STR("cluster.local");
    model->root_namespace = conf != NULL && conf->root_namespace.len > 0
                                ? hd_str_dup(pool, conf->root_namespace)
                                : HD_STR("istio-system");
    model->objects_max =
        conf != NULL && conf->objects_max > 0 ? conf->objects_max : 200000;
    model->cells = hd_map_create();
    model->units = hd_map_create();
    for (size_t i = 0; i < HD_KIND_N; i++)
        hd_list_init(&model->kinds[i]);
    hd_list_init(&model->touched);
    hd_list_init(&model->changed);
    return model;
}

void hd_model_destroy(hd_model_t *model)
{
    size_t at = 0;
    hd_str_t key;
    void *value;

    if (model == NULL)
        return;
    model->on_commit = NULL;
    while (hd_map_next(model->units, &at, &key, &value)) {
        hd_map_remove(model->units, key);
        end_unit(model, value);
    }
    model->dirty = true;
    hd_model_commit(model);
    hd_model_clear_changes(model);
    hd_assert(hd_map_count(model->cells) == 0);
    drop_statuses(model);
    hd_model_drop_all_indexes(model);
    hd_map_destroy(model->cells);
    hd_map_destroy(model->units);
    hd_pool_destroy(model->pool);
}

hd_str_t hd_model_cluster_domain(const hd_model_t *model)
{
    return model->cluster_domain;
}

hd_str_t hd_model_root_namespace(const hd_model_t *model)
{
    return model->root_namespace;
}
