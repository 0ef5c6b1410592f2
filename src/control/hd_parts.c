#include "control/hd_parts.h"
#include "control/hd_model_k8s.h"
#include "control/hd_model_policy.h"
#include "control/hd_model_traffic.h"
#include "control/hd_view.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_MAX 1024 /* two names of at most 253 bytes and some signs */

/* All parts that have entered one key. */
typedef struct {
    hd_str_t text;
    hd_link_t deps;
} index_key_t;

typedef struct {
    hd_link_t of_part, of_key;
    hd_part_t *part;
    index_key_t *key;
} dep_t;

typedef struct {
    hd_str_t name;
    hd_link_t parts; /* one for each set of labels, or one for all */
} variants_t;

struct hd_parts_s {
    hd_map_t *variants; /* name -> variants_t */
    hd_map_t *keys;     /* -> index_key_t */
    size_t parts_n;
};

static void *take(size_t bytes)
{
    void *p = calloc(1, bytes);

    hd_bug_on(p == NULL);
    return p;
}

hd_parts_t *hd_parts_create(void)
{
    hd_parts_t *store = take(sizeof(*store));

    store->variants = hd_map_create();
    store->keys = hd_map_create();
    return store;
}

/* --- being found --- */

hd_part_t *hd_parts_find(hd_parts_t *store, hd_str_t name, hd_str_t labels)
{
    variants_t *v = hd_map_get(store->variants, name);

    if (v == NULL)
        return NULL;
    hd_list_each(link, &v->parts)
    {
        hd_part_t *part = hd_list_entry(link, hd_part_t, _same);

        if (!part->uses_labels || hd_str_eq(part->labels, labels))
            return part;
    }
    return NULL;
}

static void free_dep(dep_t *d)
{
    hd_list_remove(&d->of_part);
    hd_list_remove(&d->of_key);
    if (hd_list_is_empty(&d->key->deps)) {
        hd_map_remove(d->part->_store->keys, d->key->text);
        free(d->key);
    }
    free(d);
}

/* Nobody finds it any more, and nothing touches it. */
static void forget(hd_part_t *part)
{
    hd_parts_t *store = part->_store;
    variants_t *v;

    if (store == NULL)
        return;
    hd_list_each(link, &part->_deps)
    {
        free_dep(hd_list_entry(link, dep_t, of_part));
    }
    if (!hd_list_is_empty(&part->_same)) {
        v = hd_map_get(store->variants, part->name);
        hd_list_remove(&part->_same);
        store->parts_n--;
        if (hd_list_is_empty(&v->parts)) {
            hd_map_remove(store->variants, v->name);
            free(v);
        }
    }
    part->_store = NULL;
}

void hd_parts_destroy(hd_parts_t *store)
{
    size_t at = 0;
    hd_str_t name;
    void *value;

    while (hd_map_next(store->variants, &at, &name, &value)) {
        variants_t *v = value;
        size_t left = 0;

        hd_list_each(count, &v->parts)
        {
            left++;
        }
        while (left-- > 0) /* the last one takes <v> along */
            forget(hd_list_entry(v->parts.next, hd_part_t, _same));
    }
    hd_map_destroy(store->variants);
    hd_map_destroy(store->keys);
    free(store);
}

/* --- being made --- */

static hd_str_t copy_to(char **at, hd_str_t s)
{
    char *to = *at;

    if (s.len > 0)
        memcpy(to, s.data, s.len);
    *at += s.len;
    return hd_str_n(to, s.len);
}

hd_part_t *hd_part_begin(hd_parts_t *store, hd_str_t name, hd_str_t ns, hd_str_t labels)
{
    hd_part_t *part = take(sizeof(*part) + name.len + ns.len + labels.len + 1);
    char *text = (char *)(part + 1);

    part->refs = 1;
    part->_store = store;
    part->name = copy_to(&text, name);
    if (ns.data != NULL)
        part->ns = copy_to(&text, ns);
    part->labels = copy_to(&text, labels);
    hd_list_init(&part->_deps);
    hd_list_init(&part->_same);
    return part;
}

void hd_part_give(hd_part_t *part, hd_xres_t *r)
{
    if (part->n == part->_room) {
        part->_room = part->_room == 0 ? 4 : part->_room * 2;
        part->items = realloc(part->items, part->_room * sizeof(part->items[0]));
        hd_bug_on(part->items == NULL);
    }
    part->items[part->n++] = r;
}

void hd_part_finish(hd_part_t *part)
{
    hd_parts_t *store = part->_store;
    variants_t *v = hd_map_get(store->variants, part->name);

    if (v == NULL) {
        v = take(sizeof(*v) + part->name.len);
        v->name = hd_str_n((char *)(v + 1), part->name.len);
        memcpy(v + 1, part->name.data, part->name.len);
        hd_list_init(&v->parts);
        hd_map_put(store->variants, v->name, v);
    }
    hd_list_add_last(&v->parts, &part->_same);
    store->parts_n++;
}

hd_part_t *hd_part_ref(hd_part_t *part)
{
    part->refs++;
    return part;
}

void hd_part_unref(hd_part_t *part)
{
    if (--part->refs > 0)
        return;
    forget(part);
    for (uint32_t i = 0; i < part->n; i++)
        hd_xres_unref(part->items[i]);
    free(part->items);
    free(part);
}

size_t hd_parts_count(const hd_parts_t *store)
{
    return store->parts_n;
}

/* --- keys --- */

static hd_str_t print_key(char out[KEY_MAX], hd_dep_t dep, hd_str_t a, hd_str_t b)
{
    int n =
        snprintf(out, KEY_MAX, "%c%.*s %.*s", (char)dep, HD_STR_ARG(a), HD_STR_ARG(b));

    return hd_str_n(out, n < KEY_MAX ? (size_t)n : KEY_MAX - 1);
}

void hd_part_depend(hd_part_t *part, hd_dep_t dep, hd_str_t a, hd_str_t b)
{
    char out[KEY_MAX];
    hd_str_t text = print_key(out, dep, a, b);
    index_key_t *key = hd_map_get(part->_store->keys, text);
    dep_t *d;

    if (key == NULL) {
        key = take(sizeof(*key) + text.len);
        key->text = hd_str_n((char *)(key + 1), text.len);
        memcpy(key + 1, text.data, text.len);
        hd_list_init(&key->deps);
        hd_map_put(part->_store->keys, key->text, key);
    } else if (!hd_list_is_empty(&key->deps) &&
               hd_list_entry(key->deps.prev, dep_t, of_key)->part == part) {
        return; /* the part being made is the last of each list that it is on */
    }
    d = take(sizeof(*d));
    d->part = part;
    d->key = key;
    hd_list_add_last(&part->_deps, &d->of_part);
    hd_list_add_last(&key->deps, &d->of_key);
}

void hd_part_depend_host(hd_part_t *part, hd_dep_t dep, hd_str_t host)
{
    char wild[256];

    hd_part_depend(part, dep, host, HD_STR_NONE);
    for (size_t i = 1; i < host.len && host.len < sizeof(wild); i++) {
        if (host.data[i] != '.')
            continue;
        wild[0] = '*';
        memcpy(wild + 1, host.data + i, host.len - i);
        hd_part_depend(part, dep, hd_str_n(wild, host.len - i + 1), HD_STR_NONE);
    }
    hd_part_depend(part, dep, HD_STR("*"), HD_STR_NONE);
}

/* --- changes --- */

/* Of one object: whose export list, if any, says who sees it. */
typedef struct {
    hd_parts_t *store;
    const hd_object_t *obj;
    const hd_strs_t *export_to; /* NULL: everybody */
    size_t touched_n;
} touch_t;

static bool concerns(const touch_t *t, const hd_part_t *part)
{
    return t->export_to == NULL || part->ns.data == NULL ||
           hd_str_eq(part->ns, t->obj->ns) ||
           hd_is_exported(t->export_to, t->obj->ns, part->ns);
}

static void touch(touch_t *t, hd_dep_t dep, hd_str_t a, hd_str_t b)
{
    char out[KEY_MAX];
    hd_str_t text = print_key(out, dep, a, b);
    index_key_t *key = hd_map_get(t->store->keys, text);
    hd_link_t *link;

    if (key == NULL)
        return;
    /* forgetting a part may end the key: what follows is known before */
    for (link = key->deps.next; link != &key->deps;) {
        hd_part_t *part = hd_list_entry(link, dep_t, of_key)->part;
        bool is_last = link->next == &key->deps;

        link = link->next;
        if (concerns(t, part)) {
            part->is_stale = true;
            forget(part);
            t->touched_n++;
        }
        if (is_last)
            break;
    }
}

static void touch_named(touch_t *t, hd_dep_t dep, hd_str_t ns, hd_str_t name)
{
    char text[KEY_MAX];
    int n = snprintf(text, sizeof(text), "%.*s/%.*s", HD_STR_ARG(ns), HD_STR_ARG(name));

    touch(t, dep, hd_str_n(text, (size_t)n < sizeof(text) ? (size_t)n : KEY_MAX - 1),
          HD_STR_NONE);
}

static void touch_service(touch_t *t, const hd_mesh_service_t *svc)
{
    t->export_to = &svc->export_to;
    for (hd_each(host, svc->hosts))
        touch(t, HD_DEP_HOST, *host, HD_STR_NONE);
    for (hd_each(port, svc->ports)) {
        char number[32];
        int n = snprintf(number, sizeof(number), "%lld", (long long)port->number);

        touch(t, HD_DEP_PORT, hd_str_n(number, (size_t)n), HD_STR_NONE);
    }
}

static void touch_vs(touch_t *t, const hd_virtual_service_t *vs)
{
    t->export_to = &vs->export_to;
    for (hd_each(host, vs->hosts))
        touch(t, HD_DEP_VS, *host, HD_STR_NONE);
    for (hd_each(gateway, vs->gateways))
        touch(t, HD_DEP_GATEWAY, *gateway, HD_STR_NONE);
}

/* What is only so for one kind. */
static void touch_by_kind(touch_t *t)
{
    const hd_object_t *o = t->obj;

    switch (o->kind) {
    case HD_KIND_SERVICE:
    case HD_KIND_SERVICE_ENTRY:
        touch_service(t, o->service);
        break;
    case HD_KIND_ENDPOINT_SLICE:
        touch_named(t, HD_DEP_SLICES, o->ns, o->slice->service);
        break;
    case HD_KIND_POD:
        for (hd_each(ip, o->pod->ips))
            touch(t, HD_DEP_POD, *ip, HD_STR_NONE);
        break;
    case HD_KIND_VIRTUAL_SERVICE:
        touch_vs(t, o->virtual_service);
        break;
    case HD_KIND_DESTINATION_RULE:
        t->export_to = &o->destination_rule->export_to;
        touch(t, HD_DEP_RULE, o->destination_rule->host, HD_STR_NONE);
        break;
    default:
        break;
    }
}

static size_t touch_object(hd_parts_t *store, const hd_object_t *o)
{
    touch_t t = {.store = store, .obj = o};
    hd_str_t plural = hd_str_c(hd_kind_plural(o->kind));
    char name[KEY_MAX];
    int n =
        snprintf(name, sizeof(name), "%.*s/%.*s", HD_STR_ARG(o->ns), HD_STR_ARG(o->name));

    touch(&t, HD_DEP_OBJECT, plural,
          hd_str_n(name, (size_t)n < sizeof(name) ? (size_t)n : KEY_MAX - 1));
    touch(&t, HD_DEP_IN_NS, plural, o->ns); /* exported or not */
    touch_by_kind(&t);
    touch(&t, HD_DEP_KIND, plural, HD_STR_NONE);
    return t.touched_n;
}

size_t hd_parts_touch(hd_parts_t *store, const hd_change_t *changes, size_t n)
{
    size_t touched = 0;

    for (size_t i = 0; i < n; i++) {
        if (changes[i].was != NULL)
            touched += touch_object(store, changes[i].was);
        if (changes[i].is != NULL)
            touched += touch_object(store, changes[i].is);
    }
    return touched;
}
