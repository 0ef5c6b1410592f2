#include "mesh/xds/hd_xds_node.h"
#include "hd_version.h"
#include "proto/hd_pb.h"
#include "proto/hd_pb_value.h"
#include "xds/core.pb-c.h"

#include <jansson.h>
#include <string.h>

#define DEPTH_MAX 32
#define MEMORY_MAX ((size_t)16 << 20)

static void *take(hd_pb_arena_t *pb, size_t bytes)
{
    void *p = hd_pb_arena_alloc(pb, bytes);

    hd_bug_on(p == NULL); /* the JSON was bounded before */
    return memset(p, 0, bytes);
}

static const char *text(hd_pb_arena_t *pb, const char *s)
{
    size_t len = strlen(s) + 1;

    return memcpy(take(pb, len), s, len);
}

/* --- JSON as google.protobuf.Value --- */

static Pb__Value *make_value(hd_pb_arena_t *pb, const json_t *j, unsigned depth);

static Pb__Struct *make_struct(hd_pb_arena_t *pb, const json_t *j, unsigned depth)
{
    Pb__Struct *s = take(pb, sizeof(*s));
    const char *key;
    json_t *value;

    pb__struct__init(s);
    s->fields = take(pb, (json_object_size(j) + 1) * sizeof(*s->fields));
    json_object_foreach((json_t *)j, key, value)
    {
        Pb__Struct__FieldsEntry *e = take(pb, sizeof(*e));

        pb__struct__fields_entry__init(e);
        e->key = text(pb, key);
        e->value = make_value(pb, value, depth + 1);
        if (e->value == NULL)
            return NULL;
        s->fields[s->n_fields++] = e;
    }
    return s;
}

static Pb__ListValue *make_list(hd_pb_arena_t *pb, const json_t *j, unsigned depth)
{
    Pb__ListValue *l = take(pb, sizeof(*l));
    size_t i;
    json_t *value;

    pb__list_value__init(l);
    l->values = take(pb, (json_array_size(j) + 1) * sizeof(*l->values));
    json_array_foreach(j, i, value)
    {
        l->values[l->n_values] = make_value(pb, value, depth + 1);
        if (l->values[l->n_values++] == NULL)
            return NULL;
    }
    return l;
}

/* NULL: too deep. */
static Pb__Value *make_value(hd_pb_arena_t *pb, const json_t *j, unsigned depth)
{
    Pb__Value *v = take(pb, sizeof(*v));

    pb__value__init(v);
    if (depth > DEPTH_MAX)
        return NULL;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v->kind_case = PB__VALUE__KIND_STRUCT_VALUE;
        v->struct_value = make_struct(pb, j, depth);
        return v->struct_value != NULL ? v : NULL;
    case JSON_ARRAY:
        v->kind_case = PB__VALUE__KIND_LIST_VALUE;
        v->list_value = make_list(pb, j, depth);
        return v->list_value != NULL ? v : NULL;
    case JSON_STRING:
        v->kind_case = PB__VALUE__KIND_STRING_VALUE;
        v->string_value = text(pb, json_string_value(j));
        return v;
    case JSON_INTEGER:
    case JSON_REAL:
        v->kind_case = PB__VALUE__KIND_NUMBER_VALUE;
        v->number_value = json_number_value(j);
        return v;
    case JSON_TRUE:
    case JSON_FALSE:
        v->kind_case = PB__VALUE__KIND_BOOL_VALUE;
        v->bool_value = json_is_true(j);
        return v;
    default:
        v->kind_case = PB__VALUE__KIND_NULL_VALUE;
        return v;
    }
}

/* --- the node --- */

static hd_rc_t read_string(const json_t *object, const char *key, const char **to,
                           hd_err_t *err)
{
    const json_t *j = json_object_get(object, key);

    *to = "";
    if (j == NULL)
        return HD_OK;
    if (!json_is_string(j))
        return hd_err_set(err, HD_E_CONF, "\"%s\" of the node is no string", key);
    *to = json_string_value(j);
    return HD_OK;
}

/* "region/zone/subzone", or an object. <said>: what goes before it; NULL: nothing. */
static hd_rc_t set_locality(hd_pb_arena_t *pb, const char *said, const json_t *j,
                            PbCore__Node *node, hd_err_t *err)
{
    PbCore__Locality *l;
    const char *parts[3] = {"", "", ""};
    char *whole, *at;

    if (j == NULL && said == NULL)
        return HD_OK;
    if (said != NULL || json_is_string(j)) {
        whole = (char *)text(pb, said != NULL ? said : json_string_value(j));
        for (int i = 0; i < 3 && (at = strsep(&whole, "/")) != NULL; i++)
            parts[i] = at;
    } else if (!json_is_object(j) || read_string(j, "region", &parts[0], err) != HD_OK ||
               read_string(j, "zone", &parts[1], err) != HD_OK ||
               read_string(j, "sub_zone", &parts[2], err) != HD_OK) {
        return hd_err_set(err, HD_E_CONF,
                          "\"locality\" of the node: \"region/zone/subzone\" is right");
    }
    l = take(pb, sizeof(*l));
    pb_core__locality__init(l);
    l->region = text(pb, parts[0]);
    l->zone = text(pb, parts[1]);
    l->sub_zone = text(pb, parts[2]);
    node->locality = l;
    return HD_OK;
}

static hd_str_t keep(hd_pool_t *pool, const char *s)
{
    return hd_str_dup(pool, hd_str_c(s));
}

static hd_rc_t fill(const hd_xds_node_t *from, const json_t *j, hd_pb_arena_t *pb,
                    hd_pool_t *pool, hd_xds_node_out_t *out, hd_err_t *err)
{
    PbCore__Node node;
    const char *id, *cluster;
    ProtobufCBinaryData bytes;

    pb_core__node__init(&node);
    if (read_string(j, "id", &id, err) != HD_OK ||
        read_string(j, "cluster", &cluster, err) != HD_OK ||
        set_locality(pb,
                     from->locality.len > 0 ? hd_str_to_c(pool, from->locality) : NULL,
                     json_object_get(j, "locality"), &node, err) != HD_OK)
        return HD_ERROR;
    node.id = from->id.len > 0 ? hd_str_to_c(pool, from->id) : id;
    node.cluster = from->cluster.len > 0 ? hd_str_to_c(pool, from->cluster) : cluster;
    node.user_agent_name = "heddle";
    node.user_agent_version_type_case =
        PB_CORE__NODE__USER_AGENT_VERSION_TYPE_USER_AGENT_VERSION;
    node.user_agent_version = HD_VERSION;
    node.metadata = make_struct(pb, json_object_get(j, "metadata"), 0);
    if (node.metadata == NULL)
        return hd_err_set(err, HD_E_CONF, "the node's metadata is nested too deeply");
    if (*node.id == '\0')
        return hd_err_set(err, HD_E_CONF,
                          "no node id: \"node_id sidecar~IP~POD.NAMESPACE~DOMAIN;\" or "
                          "\"id\" in the node's file");
    if (!hd_pb_pack(&node, pb, &bytes))
        return hd_err_set(err, HD_E_CONF, "the node is too big");
    out->bytes = hd_str_dup(pool, hd_str_n((const char *)bytes.data, bytes.len));
    out->id = keep(pool, node.id);
    out->namespace_ = keep(pool, hd_pb_struct_text(node.metadata, "NAMESPACE", ""));
    out->service_account =
        keep(pool, hd_pb_struct_text(node.metadata, "SERVICE_ACCOUNT", ""));
    out->region = out->zone = out->subzone = HD_STR_NONE;
    if (node.locality != NULL) {
        out->region = keep(pool, node.locality->region);
        out->zone = keep(pool, node.locality->zone);
        out->subzone = keep(pool, node.locality->sub_zone);
    }
    out->cluster_id = keep(pool, hd_pb_struct_text(node.metadata, "CLUSTER_ID", ""));
    return HD_OK;
}

static hd_rc_t add_extra(const hd_xds_node_t *from, json_t *j, hd_err_t *err)
{
    json_t *metadata = json_object_get(j, "metadata");

    if (metadata == NULL) {
        metadata = json_object();
        hd_bug_on(json_object_set_new(j, "metadata", metadata) != 0);
    }
    if (!json_is_object(metadata))
        return hd_err_set(err, HD_E_CONF, "\"metadata\" of the node is no object");
    for (uint32_t i = 0; i + 1 < from->extra_n; i += 2) {
        char key[256];
        hd_str_t k = from->extra[i], v = from->extra[i + 1];

        if (k.len >= sizeof(key))
            return hd_err_set(err, HD_E_CONF, "a name of 256 bytes and more");
        memcpy(key, k.data, k.len);
        key[k.len] = '\0';
        if (json_object_set_new(metadata, key, json_stringn(v.data, v.len)) != 0)
            return hd_err_set(err, HD_E_CONF, "metadata \"%s\" isn't UTF-8", key);
    }
    return HD_OK;
}

hd_rc_t hd_xds_node_build(const hd_xds_node_t *node, hd_pool_t *pool,
                          hd_xds_node_out_t *out, hd_err_t *err)
{
    json_error_t where;
    hd_pb_arena_t pb;
    hd_rc_t rc;
    json_t *j = node->json.len > 0 ? json_loadb(node->json.data, node->json.len,
                                                JSON_REJECT_DUPLICATES, &where)
                                   : json_object();

    if (j == NULL)
        return hd_err_set(err, HD_E_CONF, "line %d: %s", where.line, where.text);
    if (!json_is_object(j)) {
        json_decref(j);
        return hd_err_set(err, HD_E_CONF, "the node is no JSON object");
    }
    hd_pb_arena_init(&pb, MEMORY_MAX);
    rc = add_extra(node, j, err);
    if (rc == HD_OK)
        rc = fill(node, j, &pb, pool, out, err);
    hd_pb_arena_deinit(&pb);
    json_decref(j);
    return rc;
}
