/* /config_dump: Envoy's JSON form (envoy.admin.v3.ConfigDump), one resource at a time;
 * what is private is redacted. Beside Envoy's members stands "heddle": what of a resource
 * has no effect here. */
#include "mesh/admin/hd_admin_int.h"
#include "proto/hd_pb_json.h"

#include <stdio.h>
#include <time.h>

#define MEMORY_MAX ((size_t)64 << 20)

static const struct {
    const char *type, *list, *member;
} sections[HD_XDS_KINDS_N] = {
    [HD_XDS_CLUSTER] = {"ClustersConfigDump", "dynamic_active_clusters", "cluster"},
    [HD_XDS_ENDPOINTS] = {"EndpointsConfigDump", "dynamic_endpoint_configs",
                          "endpoint_config"},
    [HD_XDS_LISTENER] = {"ListenersConfigDump", "dynamic_listeners", "listener"},
    [HD_XDS_ROUTES] = {"RoutesConfigDump", "dynamic_route_configs", "route_config"},
    [HD_XDS_SECRET] = {"SecretsConfigDump", "dynamic_active_secrets", "secret"},
};

static bool write_piece(void *to, const char *text, size_t len)
{
    hd_admin_answer_t *a = to;

    hd_admin_put(a, hd_str_n(text, len));
    return !a->failed;
}

static void put_message(hd_admin_answer_t *a, const hd_xres_t *r)
{
    static const hd_pb_json_opts_t opts = {.redact = true, .max_bytes = MEMORY_MAX};
    Pb__Any any;

    pb__any__init(&any);
    any.type_url = hd_xds_url(r->kind);
    any.value = (ProtobufCBinaryData){r->bytes.len, (uint8_t *)r->bytes.data};
    if (hd_pb_to_json(&any, &opts, write_piece, a, NULL) != HD_PB_OK)
        a->failed = true;
}

static void put_time(hd_admin_answer_t *a, int64_t wall_ns)
{
    time_t s = (time_t)(wall_ns / 1000000000);
    char text[64];
    struct tm tm;

    if (gmtime_r(&s, &tm) == NULL ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        return;
    hd_admin_print(a, ",\"last_updated\":\"%s.%03dZ\"", text,
                   (int)(wall_ns / 1000000 % 1000));
}

static void put_notes(hd_admin_answer_t *a, const hd_xres_t *r)
{
    static const char *const states[] = {"none", "warming", "live", "absent"};

    hd_admin_print(a, ",\"heddle\":{\"state\":\"%s\",\"no_effect\":[", states[r->state]);
    for (uint32_t i = 0; i < r->notes_n; i++) {
        if (i > 0)
            hd_admin_put(a, HD_STR(","));
        hd_admin_put_json(a, r->notes[i]);
    }
    hd_admin_put(a, HD_STR("]}"));
}

static void put_error(hd_admin_answer_t *a, const hd_xres_t *r)
{
    if (r->refused_why.len == 0)
        return;
    hd_admin_put(a, HD_STR(",\"error_state\":{\"version_info\":"));
    hd_admin_put_json(a, r->refused_version);
    hd_admin_put(a, HD_STR(",\"details\":"));
    hd_admin_put_json(a, r->refused_why);
    hd_admin_put(a, HD_STR("}"));
}

static void put_state(hd_admin_answer_t *a, const hd_xres_t *r)
{
    hd_admin_put(a, HD_STR("\"version_info\":"));
    hd_admin_put_json(a, r->version);
    if (r->bytes.len > 0) {
        hd_admin_print(a, ",\"%s\":", sections[r->kind].member);
        put_message(a, r);
    }
    put_time(a, r->updated_wall_ns);
}

static void put_resource(hd_admin_answer_t *a, const hd_xres_t *r)
{
    bool is_listener = r->kind == HD_XDS_LISTENER;

    hd_admin_put(a, a->has_some ? HD_STR(",\n{") : HD_STR("\n{"));
    a->has_some = true;
    if (is_listener || r->kind == HD_XDS_SECRET) {
        hd_admin_put(a, HD_STR("\"name\":"));
        hd_admin_put_json(a, r->name);
        hd_admin_put(a, HD_STR(","));
    }
    if (is_listener)
        hd_admin_print(a, "\"%s\":{",
                       r->state == HD_XRES_WAITING ? "warming_state" : "active_state");
    put_state(a, r);
    if (is_listener)
        hd_admin_put(a, HD_STR("}"));
    put_error(a, r);
    put_notes(a, r);
    hd_admin_put(a, HD_STR("}"));
}

/* Names rather than pointers: a resource may go while the page is written. */
static void list_names(hd_admin_answer_t *a, hd_xds_kind_t kind)
{
    const hd_xstore_t *s = hd_xds_agent_store();
    size_t n = 0;

    a->names_n = a->names_at = 0;
    if (s == NULL)
        return;
    for (hd_xres_t *r = hd_xstore_next(s, kind, NULL); r != NULL;
         r = hd_xstore_next(s, kind, r))
        n++;
    a->names = hd_pool_alloc(a->req->pool, (n + 1) * sizeof(*a->names));
    for (hd_xres_t *r = hd_xstore_next(s, kind, NULL); r != NULL;
         r = hd_xstore_next(s, kind, r)) {
        if (r->bytes.len > 0 || r->is_local || r->refused_why.len > 0)
            a->names[a->names_n++] = hd_str_dup(a->req->pool, r->name);
    }
}

/* A step for each kind: its head, its resources, its end. */
bool hd_admin_config_dump(hd_admin_answer_t *a)
{
    hd_xds_kind_t kind = a->step;
    const hd_xres_t *r;

    if (a->at == 0) {
        hd_admin_print(
            a, "%s{\"@type\":\"type.googleapis.com/envoy.admin.v3.%s\",\n\"%s\":[",
            a->step == 0 ? "{\"configs\":[\n" : ",\n", sections[kind].type,
            sections[kind].list);
        list_names(a, kind);
        a->has_some = false;
        a->at = 1;
    }
    while (a->names_at < a->names_n && !hd_admin_is_slice_full(a)) {
        r = hd_xds_agent_store() != NULL
                ? hd_xstore_find(hd_xds_agent_store(), kind, a->names[a->names_at])
                : NULL;
        a->names_at++;
        if (r != NULL)
            put_resource(a, r);
    }
    if (a->names_at < a->names_n)
        return true;
    hd_admin_put(a, HD_STR("]}"));
    a->at = 0;
    if (++a->step < HD_XDS_KINDS_N)
        return true;
    hd_admin_put(a, HD_STR("]}\n"));
    return false;
}
