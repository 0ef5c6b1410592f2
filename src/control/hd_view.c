#include "control/hd_view.h"

#include <stdlib.h>

static const char *const urls[HD_VIEW_KINDS_N] = {
    [HD_VIEW_CLUSTERS] = "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    [HD_VIEW_ENDPOINTS] =
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    [HD_VIEW_LISTENERS] = "type.googleapis.com/envoy.config.listener.v3.Listener",
    [HD_VIEW_ROUTES] = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
};

const char *hd_view_url(hd_view_kind_t kind)
{
    return urls[kind];
}

hd_view_kind_t hd_view_kind(hd_str_t url)
{
    unsigned kind = 0;

    while (kind < HD_VIEW_KINDS_N && !hd_str_eq(url, hd_str_c(urls[kind])))
        kind++;
    return (hd_view_kind_t)kind;
}

bool hd_view_is_wildcard(hd_view_kind_t kind)
{
    return kind == HD_VIEW_CLUSTERS || kind == HD_VIEW_LISTENERS;
}

/* FNV-1a, 64 bits: equal content is found again, no secret depends on it. */
static uint64_t hash(hd_str_t s)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (uint8_t)s.data[i]) * 0x100000001b3u;
    return h;
}

hd_xres_t *hd_xres_create(hd_view_kind_t kind, hd_str_t name, hd_str_t bytes)
{
    hd_xres_t *r = malloc(sizeof(*r) + name.len + bytes.len + 1);
    char *text = (char *)(r + 1);

    hd_bug_on(r == NULL);
    if (name.len > 0)
        memcpy(text, name.data, name.len);
    if (bytes.len > 0)
        memcpy(text + name.len, bytes.data, bytes.len);
    *r = (hd_xres_t){.refs = 1,
                     .kind = kind,
                     .version = hash(bytes),
                     .name = hd_str_n(text, name.len),
                     .bytes = hd_str_n(text + name.len, bytes.len)};
    return r;
}

hd_xres_t *hd_xres_ref(hd_xres_t *r)
{
    r->refs++;
    return r;
}

/* --- the shelf: a name's resources are chained; the first one's name is the key --- */

void hd_xres_shelf_init(hd_xres_shelf_t *shelf)
{
    *shelf = (hd_xres_shelf_t){0};
    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++)
        shelf->_by_name[k] = hd_map_create();
}

void hd_xres_shelf_deinit(hd_xres_shelf_t *shelf)
{
    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++) {
        size_t at = 0;
        hd_str_t name;
        void *first;

        while (hd_map_next(shelf->_by_name[k], &at, &name, &first)) {
            for (hd_xres_t *r = first; r != NULL; r = r->_next_same)
                r->_shelf = NULL;
        }
        hd_map_destroy(shelf->_by_name[k]);
    }
}

hd_xres_t *hd_xres_share(hd_xres_shelf_t *shelf, hd_view_kind_t kind, hd_str_t name,
                         hd_str_t bytes)
{
    hd_xres_t *first = hd_map_get(shelf->_by_name[kind], name), *r;
    uint64_t version = hash(bytes);

    for (r = first; r != NULL; r = r->_next_same) {
        if (r->version == version && hd_str_eq(r->bytes, bytes))
            return hd_xres_ref(r);
    }
    r = hd_xres_create(kind, name, bytes);
    r->_shelf = shelf;
    shelf->made_n++;
    if (first == NULL) {
        hd_map_put(shelf->_by_name[kind], r->name, r);
    } else {
        r->_next_same = first->_next_same;
        first->_next_same = r;
    }
    return r;
}

static void unshelve(hd_xres_t *r)
{
    hd_map_t *map = r->_shelf->_by_name[r->kind];
    hd_xres_t *first = hd_map_get(map, r->name);

    if (first != r) {
        while (first->_next_same != r)
            first = first->_next_same;
        first->_next_same = r->_next_same;
        return;
    }
    hd_map_remove(map, r->name);
    if (r->_next_same != NULL)
        hd_map_put(map, r->_next_same->name, r->_next_same);
}

void hd_xres_unref(hd_xres_t *r)
{
    if (--r->refs > 0)
        return;
    if (r->_shelf != NULL)
        unshelve(r);
    free(r);
}

void hd_view_init(hd_view_t *v)
{
    *v = (hd_view_t){0};
}

void hd_view_deinit(hd_view_t *v)
{
    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++) {
        for (uint32_t i = 0; i < v->sets[k].n; i++)
            hd_xres_unref(v->sets[k].items[i]);
        free(v->sets[k].items);
    }
    for (uint32_t i = 0; i < v->_parts_n; i++)
        hd_part_unref(v->_parts[i]);
    free(v->_parts);
    hd_view_init(v);
}

void hd_view_give(hd_view_t *v, hd_xres_t *r)
{
    hd_xres_set_t *s = &v->sets[r->kind];

    if (s->n == s->_room) {
        s->_room = s->_room == 0 ? 16 : s->_room * 2;
        s->items = realloc(s->items, s->_room * sizeof(s->items[0]));
        hd_bug_on(s->items == NULL);
    }
    s->items[s->n++] = r;
}

void hd_view_add_part(hd_view_t *v, hd_part_t *part)
{
    if (v->_parts_n == v->_parts_room) {
        v->_parts_room = v->_parts_room == 0 ? 16 : v->_parts_room * 2;
        v->_parts = realloc(v->_parts, v->_parts_room * sizeof(v->_parts[0]));
        hd_bug_on(v->_parts == NULL);
    }
    v->_parts[v->_parts_n++] = hd_part_ref(part);
    for (uint32_t i = 0; i < part->n; i++)
        hd_view_give(v, hd_xres_ref(part->items[i]));
}

bool hd_view_is_current(const hd_view_t *v)
{
    for (uint32_t i = 0; i < v->_parts_n; i++) {
        if (v->_parts[i]->is_stale)
            return false;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    return hd_str_cmp((*(hd_xres_t *const *)a)->name, (*(hd_xres_t *const *)b)->name);
}

void hd_view_seal(hd_view_t *v)
{
    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++) {
        hd_xres_set_t *s = &v->sets[k];
        uint32_t kept = 0;

        if (s->n == 0)
            continue;
        qsort(s->items, s->n, sizeof(s->items[0]), by_name);
        for (uint32_t i = 0; i < s->n; i++) {
            if (kept > 0 && hd_str_eq(s->items[kept - 1]->name, s->items[i]->name))
                hd_xres_unref(s->items[--kept]);
            s->items[kept++] = s->items[i];
        }
        s->n = kept;
    }
}

hd_xres_t *hd_view_find(const hd_view_t *v, hd_view_kind_t kind, hd_str_t name)
{
    const hd_xres_set_t *s = &v->sets[kind];
    uint32_t low = 0, high = s->n;

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        int order = hd_str_cmp(s->items[mid]->name, name);

        if (order == 0)
            return s->items[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}
