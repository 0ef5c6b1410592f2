#include "control/hd_translate_int.h"

/* Packed parts of one translation: a ceiling against runaways, far above any real mesh.
 */
#define PACKED_BYTES_MAX ((size_t)1 << 30)

bool hd_tr_begin(hd_tr_t *t, bool is_self, bool sees_all, const char *fmt, ...)
{
    hd_str_t name;
    hd_part_t *part;
    va_list args;

    hd_assert(t->part == NULL);
    va_start(args, fmt);
    name = hd_str_vprintf(t->view_pool, fmt, args);
    va_end(args);
    name = hd_str_printf(t->view_pool, "%.*s for %.*s", HD_STR_ARG(name),
                         HD_STR_ARG(is_self ? t->self_name : t->class_name));
    part = hd_parts_find(t->parts, name, t->labels_text);
    if (part != NULL) {
        if (part->last_view != t->serial)
            hd_view_add_part(t->view, part);
        part->last_view = t->serial;
        return false;
    }
    t->part = hd_part_begin(t->parts, name, sees_all ? HD_STR_NONE : t->proxy->ns,
                            t->labels_text);
    t->part->last_view = t->serial;
    t->pool = hd_pool_create(8192);
    hd_pb_arena_init(&t->pb, PACKED_BYTES_MAX);
    if (t->sidecar != NULL)
        hd_tr_depend_object(t, t->sidecar);
    return true;
}

void hd_tr_end(hd_tr_t *t)
{
    hd_part_finish(t->part);
    hd_view_add_part(t->view, t->part);
    hd_part_unref(t->part);
    t->part = NULL;
    t->stats->parts++;
    hd_pb_arena_deinit(&t->pb);
    hd_pool_destroy(t->pool);
    t->pool = t->view_pool;
}

const hd_labels_t *hd_tr_labels(hd_tr_t *t)
{
    t->part->uses_labels = true;
    return &t->_labels;
}

/* --- lookups that are entered --- */

void hd_tr_depend_kind(hd_tr_t *t, hd_kind_t kind)
{
    hd_part_depend(t->part, HD_DEP_KIND, hd_str_c(hd_kind_plural(kind)), HD_STR_NONE);
}

void hd_tr_depend_object(hd_tr_t *t, const hd_object_t *obj)
{
    hd_part_depend(
        t->part, HD_DEP_OBJECT, hd_str_c(hd_kind_plural(obj->kind)),
        hd_str_printf(t->pool, "%.*s/%.*s", HD_STR_ARG(obj->ns), HD_STR_ARG(obj->name)));
}

void hd_tr_depend_port(hd_tr_t *t, int64_t port)
{
    hd_part_depend(t->part, HD_DEP_PORT, hd_str_printf(t->pool, "%lld", (long long)port),
                   HD_STR_NONE);
}

const hd_object_t *const *hd_tr_list(hd_tr_t *t, hd_kind_t kind, size_t *n)
{
    hd_tr_depend_kind(t, kind);
    return hd_model_list(t->model, kind, n);
}

const hd_object_t *const *hd_tr_list_ns(hd_tr_t *t, hd_kind_t kind, hd_str_t ns,
                                        size_t *n)
{
    hd_part_depend(t->part, HD_DEP_IN_NS, hd_str_c(hd_kind_plural(kind)), ns);
    return hd_model_list_ns(t->model, kind, ns, n);
}

const hd_object_t *hd_tr_get(hd_tr_t *t, hd_kind_t kind, hd_str_t ns, hd_str_t name)
{
    hd_part_depend(t->part, HD_DEP_OBJECT, hd_str_c(hd_kind_plural(kind)),
                   hd_str_printf(t->pool, "%.*s/%.*s", HD_STR_ARG(ns), HD_STR_ARG(name)));
    return hd_model_get(t->model, kind, ns, name);
}

const hd_object_t *const *hd_tr_slices_of(hd_tr_t *t, const hd_object_t *svc, size_t *n)
{
    hd_part_depend(
        t->part, HD_DEP_SLICES,
        hd_str_printf(t->pool, "%.*s/%.*s", HD_STR_ARG(svc->ns), HD_STR_ARG(svc->name)),
        HD_STR_NONE);
    return hd_model_slices_of(t->model, svc->ns, svc->name, n);
}

const hd_object_t *hd_tr_pod_by_ip(hd_tr_t *t, hd_str_t ip)
{
    hd_part_depend(t->part, HD_DEP_POD, ip, HD_STR_NONE);
    return hd_model_pod_by_ip(t->model, ip);
}

const hd_object_t *hd_tr_find_service(hd_tr_t *t, hd_str_t host)
{
    hd_part_depend_host(t->part, HD_DEP_HOST, host);
    return hd_model_find_service(t->model, host, t->proxy->ns);
}

size_t hd_tr_find_rules(hd_tr_t *t, hd_str_t service_ns, hd_str_t host,
                        const hd_object_t **rules, size_t max)
{
    hd_part_depend_host(t->part, HD_DEP_RULE, host);
    return hd_model_find_rules(t->model, t->proxy->ns, service_ns, host, rules, max);
}
