/* Documents: which kind they are, their metadata, and what becomes of those that no table
 * knows. */
#include "control/hd_decode_int.h"
#include "control/hd_status_list.h"
#include <stdio.h>
#include <time.h>

static const hd_kind_desc_t *const tables[] = {hd_decode_k8s,     hd_decode_entry,
                                               hd_decode_route,   hd_decode_rule,
                                               hd_decode_gateway, hd_decode_security};

/* Known kinds of these groups without a table: no effect, and we say so. */
static const struct {
    const char *group, *kind, *instead;
} unsupported[] = {
    {"networking.istio.io", "EnvoyFilter", "it never will be (EF-1)"},
    {"networking.istio.io", "ProxyConfig", NULL},
    {"networking.istio.io", "WorkloadGroup", NULL},
    {"extensions.istio.io", "WasmPlugin", "write a module or a Lua policy (EF-2)"},
    {"extensions.istio.io", "TrafficExtension", "write a module or a Lua policy (EF-2)"},
};

/* --- metadata --- */

static const char *name_form(hd_str_t s)
{
    if (s.len == 0 || s.len > 253)
        return "is no name: 1 to 253 bytes";
    for (size_t i = 0; i < s.len; i++) {
        char c = s.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'))
            return "is no name: a-z, 0-9, - and . only";
    }
    return NULL;
}

/* RFC 3339 as Kubernetes writes it, in UTC. */
static void read_time(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    struct tm tm = {0};
    int64_t *out = into;
    int used = 0;

    if (node->type != HD_YAML_SCALAR ||
        sscanf(node->text.data, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon,
               &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 6 ||
        used != 19 || node->text.data[node->text.len - 1] != 'Z' || tm.tm_year < 1900) {
        hd_decode_error(d, node, "must be a time like 2026-01-31T12:00:00Z");
        return;
    }
    tm.tm_year -= 1900;
    tm.tm_mon--;
    *out = timegm(&tm);
}

static const hd_field_t metadata_fields[] = {
    HD_FIELD(hd_object_t, name, "name", STR, .flags = HD_F_REQUIRED, .form = name_form),
    HD_FIELD(hd_object_t, ns, "namespace", STR, .form = name_form),
    HD_FIELD(hd_object_t, labels, "labels", LABELS),
    HD_FIELD(hd_object_t, annotations, "annotations", LABELS),
    HD_FIELD(hd_object_t, created_s, "creationTimestamp", READ, .read = read_time),
    {0}};
static const char *const metadata_skip[] = {"uid",
                                            "resourceVersion",
                                            "generation",
                                            "generateName",
                                            "managedFields",
                                            "ownerReferences",
                                            "finalizers",
                                            "deletionTimestamp",
                                            "deletionGracePeriodSeconds",
                                            "selfLink",
                                            NULL};
static const hd_schema_t metadata_schema = {sizeof(hd_object_t), metadata_fields,
                                            metadata_skip, NULL};

/* A text field of the document's top, for finding out what it is. */
static hd_str_t peek(const hd_yaml_t *map, const char *key)
{
    const hd_yaml_t *node = hd_yaml_get(map, key);

    return node != NULL && node->type == HD_YAML_SCALAR && !hd_yaml_is_null(node)
               ? node->text
               : HD_STR("");
}

/* --- kinds --- */

/* "networking.istio.io/v1" */
static void split_version(hd_str_t api, hd_str_t *group, hd_str_t *version)
{
    ssize_t slash = hd_str_find_char(api, '/');

    *group = slash < 0 ? HD_STR("") : hd_str_sub(api, 0, (size_t)slash);
    *version = hd_str_sub(api, (size_t)(slash + 1), api.len);
}

static const hd_kind_desc_t *find_kind(hd_str_t group, hd_str_t kind)
{
    for (size_t t = 0; t < hd_countof(tables); t++) {
        for (const hd_kind_desc_t *k = tables[t]; k->group != NULL; k++) {
            if (hd_str_eq(hd_str_c(k->group), group) &&
                hd_str_eq(hd_str_c(hd_kind_name(k->kind)), kind))
                return k;
        }
    }
    return NULL;
}

typedef struct {
    hd_pool_t *pool;
    const hd_decode_conf_t *conf;
    hd_status_list_t statuses;
    hd_array_t objs; /* hd_object_t pointers */
    hd_keep_t keep;
    hd_place_t place;
} text_t;

static void add_finding(text_t *t, hd_severity_t severity, const hd_yaml_t *doc,
                        hd_str_t kind, hd_str_t text)
{
    const hd_yaml_t *meta = hd_yaml_get(doc, "metadata");
    hd_status_t s = {.severity = severity,
                     .place = t->place,
                     .kind = kind,
                     .ns = peek(meta, "namespace"),
                     .name = peek(meta, "name"),
                     .text = text};

    if (doc != NULL && doc->line != 0)
        s.place.line = doc->line;
    hd_status_list_add(&t->statuses, &s);
}

/* Names of kinds, for a message. */
static hd_str_t kinds_choice(text_t *t, hd_str_t group, hd_str_t given)
{
    const char *names[HD_KIND_N + hd_countof(unsupported) + 1];
    size_t n = 0;

    for (size_t i = 0; i < hd_countof(tables); i++) {
        for (const hd_kind_desc_t *k = tables[i]; k->group != NULL; k++) {
            if (hd_str_eq(hd_str_c(k->group), group))
                names[n++] = hd_kind_name(k->kind);
        }
    }
    for (size_t i = 0; i < hd_countof(unsupported); i++) {
        if (hd_str_eq(hd_str_c(unsupported[i].group), group))
            names[n++] = unsupported[i].kind;
    }
    names[n] = NULL;
    return hd_decode_choice(t->pool, given, names, false);
}

/* A kind without a table: an error in our groups, a remark in others. */
static void report_kind(text_t *t, const hd_yaml_t *doc, hd_str_t group, hd_str_t kind)
{
    for (size_t i = 0; i < hd_countof(unsupported); i++) {
        if (!hd_str_eq(hd_str_c(unsupported[i].group), group) ||
            !hd_str_eq(hd_str_c(unsupported[i].kind), kind))
            continue;
        add_finding(t, HD_STATUS_WARNING, doc, kind,
                    hd_str_printf(
                        t->pool, "%.*s is not supported%s%s: it has no effect",
                        HD_STR_ARG(kind), unsupported[i].instead != NULL ? ", " : " yet",
                        unsupported[i].instead != NULL ? unsupported[i].instead : ""));
        return;
    }
    if (hd_str_has_suffix(group, HD_STR("istio.io"))) {
        hd_str_t choice = kinds_choice(t, group, kind);

        t->keep = HD_KEEP_ALL; /* whose last good object is this? */
        add_finding(t, HD_STATUS_ERROR, doc, HD_STR(""),
                    hd_str_printf(t->pool, "unknown kind %.*s of %.*s: %.*s",
                                  HD_STR_ARG(hd_str_sub(kind, 0, 60)),
                                  HD_STR_ARG(hd_str_sub(group, 0, 60)),
                                  HD_STR_ARG(choice)));
        return;
    }
    if (hd_str_eq(group, HD_STR("gateway.networking.k8s.io")))
        add_finding(t, HD_STATUS_WARNING, doc, kind,
                    hd_str_printf(t->pool,
                                  "%.*s of the Gateway API is not supported yet: it has "
                                  "no effect",
                                  HD_STR_ARG(hd_str_sub(kind, 0, 60))));
    else
        add_finding(t, HD_STATUS_INFO, doc, kind,
                    hd_str_printf(t->pool, "%.*s%s%.*s is nothing to a mesh: not read",
                                  HD_STR_ARG(hd_str_sub(group, 0, 60)),
                                  group.len > 0 ? "/" : "",
                                  HD_STR_ARG(hd_str_sub(kind, 0, 60))));
}

/* --- one document --- */

static void check_version(hd_decoder_t *d, const hd_kind_desc_t *k, hd_str_t version,
                          const hd_yaml_t *doc)
{
    hd_str_t choice;

    for (size_t i = 0; k->versions[i] != NULL; i++) {
        if (hd_str_eq(hd_str_c(k->versions[i]), version))
            return;
    }
    choice = hd_decode_choice(d->scratch, version, k->versions, false);
    hd_decode_error(d, hd_yaml_get(doc, "apiVersion"), "unknown version \"%.*s\": %.*s",
                    HD_STR_ARG(hd_str_sub(version, 0, 60)), HD_STR_ARG(choice));
}

static void read_metadata(hd_decoder_t *d, const hd_kind_desc_t *k, const hd_yaml_t *doc)
{
    const hd_yaml_t *meta = hd_yaml_get(doc, "metadata");
    hd_object_t *obj = d->obj;

    hd_decode_push(d, "metadata");
    if (hd_yaml_is_null(meta)) {
        hd_decode_error(d, meta != NULL ? meta : doc, "is missing");
    } else {
        /* For messages before it is read; the copies of what passes replace these. */
        obj->name = hd_str_dup(d->pool, peek(meta, "name"));
        obj->ns = k->is_global ? HD_STR("")
                  : hd_decode_has(meta, "namespace")
                      ? hd_str_dup(d->pool, peek(meta, "namespace"))
                      : HD_STR("default"); /* kubectl's */
        hd_decode_map(d, &metadata_schema, meta, obj);
        if (k->is_global && hd_decode_has(meta, "namespace"))
            hd_decode_error(d, meta, "a %s has no namespace", hd_kind_name(k->kind));
    }
    hd_decode_pop(d);
}

/* What isn't metadata, by the kind's table. */
static void read_body(hd_decoder_t *d, const hd_kind_desc_t *k, const hd_yaml_t *doc)
{
    hd_yaml_t body = *doc;
    hd_yaml_entry_t *entries = hd_pool_new_n(d->scratch, hd_yaml_entry_t, doc->n);

    body.n = 0;
    for (uint32_t i = 0; i < doc->n; i++) {
        hd_str_t key = doc->entries[i].key;

        if (!hd_str_eq(key, HD_STR("apiVersion")) && !hd_str_eq(key, HD_STR("kind")) &&
            !hd_str_eq(key, HD_STR("metadata")))
            entries[body.n++] = doc->entries[i];
    }
    body.entries = entries;
    d->obj->spec = hd_pool_calloc(d->pool, k->schema.size);
    hd_decode_map(d, &k->schema, &body, d->obj->spec);
}

static void decode_known(text_t *t, const hd_kind_desc_t *k, hd_str_t version,
                         const hd_yaml_t *doc)
{
    hd_object_t *obj = hd_object_create();
    hd_decoder_t *d = hd_pool_new(t->pool, hd_decoder_t);
    hd_object_t **item;

    *d = (hd_decoder_t){.conf = t->conf,
                        .pool = obj->_pool,
                        .obj = obj,
                        .scratch = t->pool,
                        .place = t->place,
                        .statuses = &t->statuses};
    obj->kind = k->kind;
    obj->api_version = hd_str_dup(obj->_pool, peek(doc, "apiVersion"));
    obj->place =
        (hd_place_t){hd_str_dup(obj->_pool, t->place.file), t->place.doc, t->place.line};
    obj->_digest = hd_yaml_digest(doc);
    check_version(d, k, version, doc);
    read_metadata(d, k, doc);
    if (d->errors_n == 0 || obj->name.len > 0)
        read_body(d, k, doc);
    if (d->errors_n == 0) {
        if (k->not_supported)
            hd_decode_warn(d, doc, "", "%s is not supported yet: it has no effect",
                           hd_kind_name(k->kind));
        item = hd_array_add(&t->objs);
        *item = obj;
        return;
    }
    if (name_form(obj->name) != NULL || (!k->is_global && name_form(obj->ns) != NULL))
        t->keep = HD_KEEP_ALL;
    hd_object_destroy(obj);
}

static void decode_document(text_t *t, const hd_yaml_t *doc, unsigned level);

/* `kubectl get -o yaml` gives one document with many. */
static void decode_list(text_t *t, const hd_yaml_t *doc, unsigned level)
{
    const hd_yaml_t *items = hd_yaml_get(doc, "items");

    if (items == NULL || items->type != HD_YAML_LIST || level > 0) {
        t->keep = HD_KEEP_ALL;
        add_finding(t, HD_STATUS_ERROR, doc, HD_STR("List"),
                    HD_STR("items: must be a list of objects that are no Lists"));
        return;
    }
    for (uint32_t i = 0; i < items->n; i++)
        decode_document(t, items->entries[i].value, level + 1);
}

static void decode_document(text_t *t, const hd_yaml_t *doc, unsigned level)
{
    hd_str_t api = peek(doc, "apiVersion"), kind = peek(doc, "kind"), group, version;
    const hd_kind_desc_t *k;

    if (hd_yaml_is_null(doc))
        return;
    t->place.line = doc->line;
    if (api.len == 0 || kind.len == 0) {
        t->keep = HD_KEEP_ALL;
        add_finding(t, HD_STATUS_ERROR, doc, HD_STR(""),
                    doc->type != HD_YAML_MAP
                        ? HD_STR("an object must be a map with apiVersion, kind, "
                                 "metadata")
                    : api.len == 0 ? HD_STR("apiVersion: is missing or no text")
                                   : HD_STR("kind: is missing or no text"));
        return;
    }
    split_version(api, &group, &version);
    if (group.len == 0 && hd_str_eq(kind, HD_STR("List"))) {
        decode_list(t, doc, level);
        return;
    }
    k = find_kind(group, kind);
    if (k != NULL)
        decode_known(t, k, version, doc);
    else
        report_kind(t, doc, group, kind);
}

void hd_decode_text(hd_pool_t *pool, const hd_decode_conf_t *conf, hd_str_t unit,
                    hd_str_t text, hd_decoded_t *out)
{
    text_t t = {.pool = pool, .conf = conf, .keep = HD_KEEP_NAMED, .place = {unit, 0, 0}};
    const hd_yaml_t *const *docs;
    size_t docs_n;
    uint32_t line;
    hd_err_t err = {0};

    hd_status_list_init(&t.statuses, pool);
    hd_array_init(&t.objs, pool, sizeof(hd_object_t *), HD_YAML_NODES_MAX);
    if (hd_yaml_parse(pool, text, &docs, &docs_n, &line, &err) != HD_OK) {
        t.place.line = line;
        t.keep = HD_KEEP_ALL;
        add_finding(&t, HD_STATUS_ERROR, NULL, HD_STR(""),
                    hd_str_printf(pool, "%s", err.text));
        docs_n = 0; /* half a file is none */
    }
    for (size_t i = 0; i < docs_n; i++) {
        t.place.doc = (uint32_t)i + 1;
        decode_document(&t, docs[i], 0);
    }
    out->objs = t.objs.items;
    out->n = t.objs.n;
    out->statuses = hd_status_list_end(&t.statuses);
    out->keep = t.keep;
}
