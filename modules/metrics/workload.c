#include "workload.h"
#include "hd_pb.h"
#include "hd_pb_value.h"

#include <stdlib.h>

#define TABLE 256u /* a power of two */

static workload_t *table[TABLE]; /* by the header's hash; a newer one takes the place */
static uint32_t last_id;

/* --- names --- */

static hd_str_t text_of(const Pb__Struct *s, const char *name)
{
    return s == NULL ? HD_STR_NONE : hd_str_c(hd_pb_struct_text(s, name, ""));
}

static hd_str_t first_of(hd_str_t a, hd_str_t b)
{
    return a.len > 0 ? a : b;
}

void workload_read_struct(const Pb__Struct *s, workload_names_t *names)
{
    const Pb__Value *v = hd_pb_struct_get(s, "LABELS");
    const Pb__Struct *labels = v != NULL && v->kind_case == PB__VALUE__KIND_STRUCT_VALUE
                                   ? v->struct_value
                                   : NULL;

    *names = (workload_names_t){
        .name = text_of(s, "WORKLOAD_NAME"),
        .namespace = text_of(s, "NAMESPACE"),
        .app = text_of(labels, "app"),
        .version = text_of(labels, "version"),
        .service = text_of(labels, "service.istio.io/canonical-name"),
        .revision = text_of(labels, "service.istio.io/canonical-revision"),
        .cluster = text_of(s, "CLUSTER_ID"),
    };
    names->service = first_of(names->service, text_of(labels, "app.kubernetes.io/name"));
    names->service = first_of(names->service, first_of(names->app, names->name));
    names->revision =
        first_of(names->revision, text_of(labels, "app.kubernetes.io/version"));
    names->revision =
        first_of(names->revision, first_of(names->version, HD_STR("latest")));
}

void workload_read_endpoint(hd_str_t text, workload_names_t *names)
{
    hd_str_t *const parts[] = {&names->name, &names->namespace, &names->service,
                               &names->revision, &names->cluster};

    *names = (workload_names_t){0};
    for (unsigned i = 0; i < hd_countof(parts); i++) {
        if (!hd_str_split(&text, ';', parts[i]))
            break;
    }
}

hd_str_t workload_namespace_of(hd_str_t principal)
{
    ssize_t at = hd_str_find(principal, HD_STR("/ns/"));
    hd_str_t rest, ns;

    if (at < 0 || !hd_str_has_prefix(principal, HD_STR("spiffe://")))
        return HD_STR_NONE;
    rest = hd_str_sub(principal, (size_t)at + 4, principal.len);
    return hd_str_split(&rest, '/', &ns) ? ns : HD_STR_NONE;
}

/* --- the header: base64 (RFC 4648 §4) of a Struct --- */

typedef struct {
    Pb__Struct__FieldsEntry entry;
    Pb__Value value;
} member_t;

static void add_text(Pb__Struct *s, member_t *m, const char *key, hd_str_t text,
                     hd_pool_t *pool)
{
    if (text.len == 0)
        return;
    pb__struct__fields_entry__init(&m->entry);
    pb__value__init(&m->value);
    m->entry.key = key;
    m->entry.value = &m->value;
    m->value.kind_case = PB__VALUE__KIND_STRING_VALUE;
    m->value.string_value = hd_str_to_c(pool, text);
    s->fields[s->n_fields++] = &m->entry;
}

hd_str_t workload_encode(const workload_names_t *names, hd_pool_t *pool)
{
    Pb__Struct__FieldsEntry *top_fields[4], *label_fields[4];
    Pb__Struct top = PB__STRUCT__INIT, labels = PB__STRUCT__INIT;
    member_t m[8];
    ProtobufCBinaryData bytes;
    hd_pb_arena_t arena;
    hd_str_t text = HD_STR_NONE;

    top.fields = top_fields;
    labels.fields = label_fields;
    add_text(&labels, &m[0], "app", names->app, pool);
    add_text(&labels, &m[1], "version", names->version, pool);
    add_text(&labels, &m[2], "service.istio.io/canonical-name", names->service, pool);
    add_text(&labels, &m[3], "service.istio.io/canonical-revision", names->revision,
             pool);
    add_text(&top, &m[4], "CLUSTER_ID", names->cluster, pool);
    add_text(&top, &m[5], "NAMESPACE", names->namespace, pool);
    add_text(&top, &m[6], "WORKLOAD_NAME", names->name, pool);
    pb__struct__fields_entry__init(&m[7].entry);
    pb__value__init(&m[7].value);
    m[7].entry.key = "LABELS";
    m[7].entry.value = &m[7].value;
    m[7].value.kind_case = PB__VALUE__KIND_STRUCT_VALUE;
    m[7].value.struct_value = &labels;
    top.fields[top.n_fields++] = &m[7].entry;
    hd_pb_arena_init(&arena, 1 << 16);
    if (hd_pb_pack(&top, &arena, &bytes))
        text = hd_base64_encode(pool, HD_BASE64, bytes.data, bytes.len);
    hd_pb_arena_deinit(&arena);
    return text;
}

/* --- what peers told --- */

static hd_str_t *nth_name(workload_names_t *names, unsigned i)
{
    hd_str_t *const all[] = {&names->name,    &names->namespace, &names->app,
                             &names->version, &names->service,   &names->revision,
                             &names->cluster};

    return i < hd_countof(all) ? all[i] : NULL;
}

/* A copy with strings of its own; longer ones than a label may be are cut there. */
static workload_t *make_workload(hd_str_t header, const workload_names_t *from)
{
    size_t len = header.len, at = header.len;
    workload_names_t names = *from;
    workload_t *w;

    for (unsigned i = 0; nth_name(&names, i) != NULL; i++)
        len += nth_name(&names, i)->len;
    w = calloc(1, sizeof(*w) + len);
    hd_bug_on(w == NULL);
    memcpy(w->_text, header.data, header.len);
    w->_len = header.len;
    for (unsigned i = 0; nth_name(&names, i) != NULL; i++) {
        hd_str_t *s = nth_name(&names, i);

        if (s->len > 0)
            memcpy(w->_text + at, s->data, s->len);
        s->data = w->_text + at;
        at += s->len;
    }
    w->names = names;
    w->id = ++last_id != 0 ? last_id : ++last_id;
    w->_refs = 1;
    return w;
}

static workload_t *decode(hd_str_t header)
{
    uint8_t *bytes = malloc(HD_BASE64_BYTES_MAX(header.len));
    workload_t *w = NULL;
    workload_names_t names;
    hd_pb_arena_t arena;
    const Pb__Struct *s;
    size_t len;

    hd_bug_on(bytes == NULL);
    hd_pb_arena_init(&arena, 1 << 18);
    s = hd_base64_decode(header, HD_BASE64, HD_BASE64_LOOSE, bytes, &len)
            ? hd_pb_unpack(HD_PB(pb__struct), bytes, len, &arena, NULL)
            : NULL;
    if (s != NULL) {
        workload_read_struct(s, &names);
        w = make_workload(header, &names);
    }
    hd_pb_arena_deinit(&arena);
    free(bytes);
    return w;
}

workload_t *workload_get(hd_str_t header)
{
    workload_t **place, *w;

    if (header.len == 0 || header.len > WORKLOAD_HEADER_MAX)
        return NULL;
    place = &table[hd_hash64(header.data, header.len, 0) % TABLE];
    w = *place;
    if (w == NULL || !hd_str_eq(hd_str_n(w->_text, w->_len), header)) {
        w = decode(header);
        if (w == NULL)
            return NULL;
        workload_release(*place);
        *place = w; /* the table's own */
    }
    w->_refs++;
    return w;
}

void workload_release(workload_t *w)
{
    if (w != NULL && --w->_refs == 0)
        free(w);
}
