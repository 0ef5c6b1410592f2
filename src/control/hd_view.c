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

void hd_xres_unref(hd_xres_t *r)
{
    if (--r->refs == 0)
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
