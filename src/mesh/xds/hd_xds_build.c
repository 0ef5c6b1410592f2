#include "mesh/xds/hd_xds_int.h"
#include "mesh/hd_breakers.h"
#include "core/loom/hd_gauge.h"

#include <stdio.h>
#include <string.h>

#define NEEDS_MAX 65536
#define NOTES_MAX 4096
#define CLUSTERS_MAX (1u << 20)
#define PREFIX "type.googleapis.com/"
#define FETCH_TIMEOUT_MS 15000 /* Envoy's initial_fetch_timeout */

typedef hd_rc_t build_pt(hd_xds_t *x, const void *msg, const void **root, hd_err_t *err);
typedef const char *name_pt(const void *msg);

static const char *cluster_name(const void *msg)
{
    return ((const PbCluster__Cluster *)msg)->name;
}

static const char *endpoints_name(const void *msg)
{
    return ((const PbEndpoint__ClusterLoadAssignment *)msg)->cluster_name;
}

static const char *listener_name(const void *msg)
{
    return ((const PbListener__Listener *)msg)->name;
}

static const char *routes_name(const void *msg)
{
    return ((const PbRoute__RouteConfiguration *)msg)->name;
}

static const char *secret_name(const void *msg)
{
    return ((const PbTls__Secret *)msg)->name;
}

static hd_rc_t build_cluster(hd_xds_t *x, const void *msg, const void **root,
                             hd_err_t *err)
{
    return hd_xds_cluster(x, msg, root, err);
}

static hd_rc_t build_endpoints(hd_xds_t *x, const void *msg, const void **root,
                               hd_err_t *err)
{
    return hd_xds_endpoints(x, msg, root, err);
}

static hd_rc_t build_listener(hd_xds_t *x, const void *msg, const void **root,
                              hd_err_t *err)
{
    return hd_xds_listener(x, msg, root, err);
}

static hd_rc_t build_routes(hd_xds_t *x, const void *msg, const void **root,
                            hd_err_t *err)
{
    return hd_xds_routes(x, msg, root, err);
}

static hd_rc_t build_secret(hd_xds_t *x, const void *msg, const void **root,
                            hd_err_t *err)
{
    return hd_xds_secret(x, msg, root, err);
}

static const struct {
    const char *url, *word;
    hd_res_type_t res;
    const ProtobufCMessageDescriptor *type;
    name_pt *name;
    build_pt *build;
} kinds[HD_XDS_KINDS_N] = {
    [HD_XDS_CLUSTER] = {PREFIX "envoy.config.cluster.v3.Cluster", "CDS", HD_RES_CLUSTER,
                        HD_PB(pb_cluster__cluster), cluster_name, build_cluster},
    [HD_XDS_ENDPOINTS] = {PREFIX "envoy.config.endpoint.v3.ClusterLoadAssignment", "EDS",
                          HD_RES_ENDPOINTS, HD_PB(pb_endpoint__cluster_load_assignment),
                          endpoints_name, build_endpoints},
    [HD_XDS_LISTENER] = {PREFIX "envoy.config.listener.v3.Listener", "LDS",
                         HD_RES_LISTENER, HD_PB(pb_listener__listener), listener_name,
                         build_listener},
    [HD_XDS_ROUTES] = {PREFIX "envoy.config.route.v3.RouteConfiguration", "RDS",
                       HD_RES_ROUTES, HD_PB(pb_route__route_configuration), routes_name,
                       build_routes},
    [HD_XDS_SECRET] = {PREFIX "envoy.extensions.transport_sockets.tls.v3.Secret", "SDS",
                       HD_RES_SECRET, HD_PB(pb_tls__secret), secret_name, build_secret},
};

const char *hd_xds_url(hd_xds_kind_t kind)
{
    return kinds[kind].url;
}

const char *hd_xds_short(hd_xds_kind_t kind)
{
    return kinds[kind].word;
}

hd_res_type_t hd_xds_res_type(hd_xds_kind_t kind)
{
    return kinds[kind].res;
}

static hd_str_t after_slash(hd_str_t url)
{
    size_t at = url.len;

    while (at > 0 && url.data[at - 1] != '/')
        at--;
    return hd_str_sub(url, at, url.len);
}

hd_xds_kind_t hd_xds_kind(hd_str_t url)
{
    hd_xds_kind_t kind = 0;

    while (kind < HD_XDS_KINDS_N &&
           !hd_str_eq(after_slash(url), after_slash(hd_str_c(kinds[kind].url))))
        kind++;
    return kind;
}

hd_str_t hd_xds_plain_url(hd_xds_t *x, const char *url)
{
    hd_str_t name = after_slash(hd_str_c(url));

    return hd_str_printf(x->env->temp, PREFIX "%.*s", HD_STR_ARG(name));
}

void hd_xds_note(hd_xds_t *x, const char *fmt, ...)
{
    hd_str_t text, *notes = x->out->notes.items, *note;
    va_list args;

    va_start(args, fmt);
    text = hd_str_vprintf(x->env->temp, fmt, args);
    va_end(args);
    for (size_t i = 0; i < x->out->notes.n; i++) {
        if (hd_str_eq(notes[i], text))
            return;
    }
    note = hd_array_add(&x->out->notes);
    if (note != NULL) /* beyond the ceiling there is enough to read */
        *note = text;
}

void *hd_xds_unpack(hd_xds_t *x, const Pb__Any *any,
                    const ProtobufCMessageDescriptor *type, hd_err_t *err)
{
    hd_pb_fault_t fault;
    char why[256];
    void *msg;

    if (any == NULL) {
        hd_ignore(hd_err_set(err, HD_E_RESOURCE, "no %s where one belongs", type->name));
        return NULL;
    }
    msg = hd_pb_unpack_any_as(any, type, &x->pb, &fault);
    if (msg != NULL)
        return msg;
    hd_pb_fault_print(&fault, why, sizeof(why));
    hd_ignore(hd_err_set(err, HD_E_RESOURCE, "%s where %s belongs: %s", any->type_url,
                         type->name, why));
    return NULL;
}

const hd_slot_t *hd_xds_slot(hd_xds_t *x, hd_xds_kind_t kind, hd_str_t name,
                             hd_err_t *err)
{
    if (name.len == 0) {
        hd_ignore(hd_err_set(err, HD_E_RESOURCE, "a reference to a %s without a name",
                             kinds[kind].word));
        return NULL;
    }
    return hd_slot_find_or_add(x->env->arena, kinds[kind].res, name, err);
}

const hd_slot_t *hd_xds_led_to(hd_xds_t *x, hd_str_t name, hd_err_t *err)
{
    const hd_slot_t *slot = hd_xds_slot(x, HD_XDS_CLUSTER, name, err);
    hd_array_t *all = &x->out->clusters;
    const hd_str_t *last = all->n > 0 ? (hd_str_t *)all->items + all->n - 1 : NULL;
    hd_str_t *to;

    if (slot == NULL || (last != NULL && hd_str_eq(*last, name)))
        return slot;
    to = hd_array_add(all);
    if (to != NULL) /* nobody waits for more */
        *to = hd_str_dup(x->env->temp, name);
    return slot;
}

/* Secrets by the cluster "sds-grpc" are the agent's own (Istio's node agent elsewhere).
 */
static hd_rc_t read_source(const PbCore__ConfigSource *source, hd_xds_need_t *need,
                           hd_err_t *err)
{
    const PbCore__ApiConfigSource *api;

    need->wait_ms = FETCH_TIMEOUT_MS;
    if (source == NULL)
        return HD_OK;
    if (hd_xds_ms(source->initial_fetch_timeout, FETCH_TIMEOUT_MS,
                  "initial_fetch_timeout", &need->wait_ms, err) != HD_OK)
        return HD_ERROR;
    switch (source->config_source_specifier_case) {
    case PB_CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS:
    case PB_CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_SELF:
        return HD_OK;
    case PB_CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_API_CONFIG_SOURCE:
        api = source->api_config_source;
        if (need->kind == HD_XDS_SECRET && api->n_grpc_services == 1 &&
            api->grpc_services[0]->target_specifier_case ==
                PB_CORE__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC &&
            strcmp(api->grpc_services[0]->envoy_grpc->cluster_name, "sds-grpc") == 0) {
            need->is_local = true;
            return HD_OK;
        }
        return hd_err_set(err, HD_E_RESOURCE,
                          "a config source of its own: only ADS, and sds-grpc for "
                          "secrets, are known here");
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "a config source that is no ADS: it would never be asked");
    }
}

static bool is_needed(hd_xds_t *x, hd_xds_kind_t kind, hd_str_t name)
{
    const hd_xds_need_t *needs = x->out->needs.items;

    for (size_t i = 0; i < x->out->needs.n; i++) {
        if (needs[i].kind == kind && hd_str_eq(needs[i].name, name))
            return true;
    }
    return false;
}

const hd_slot_t *hd_xds_need(hd_xds_t *x, hd_xds_kind_t kind, hd_str_t name,
                             const PbCore__ConfigSource *source, hd_err_t *err)
{
    hd_xds_need_t need = {.kind = kind}, *to;

    need.slot = hd_xds_slot(x, kind, name, err);
    if (need.slot == NULL || read_source(source, &need, err) != HD_OK)
        return NULL;
    if (is_needed(x, kind, name))
        return need.slot;
    need.name = hd_str_dup(x->env->temp, name);
    to = hd_array_add(&x->out->needs);
    if (to == NULL) {
        hd_ignore(hd_err_set(err, HD_E_LIMIT, "it names more than %d others", NEEDS_MAX));
        return NULL;
    }
    *to = need;
    return need.slot;
}

static void init_out(hd_xds_built_t *out, hd_xds_kind_t kind, hd_pool_t *temp)
{
    *out = (hd_xds_built_t){.kind = kind};
    hd_array_init(&out->needs, temp, sizeof(hd_xds_need_t), NEEDS_MAX);
    hd_array_init(&out->names, temp, sizeof(hd_xds_name_t), NEEDS_MAX);
    hd_array_init(&out->clusters, temp, sizeof(hd_str_t), CLUSTERS_MAX);
    hd_array_init(&out->secrets, temp, sizeof(hd_slot_t *), NEEDS_MAX);
    hd_array_init(&out->notes, temp, sizeof(hd_str_t), NOTES_MAX);
}

static void init_x(hd_xds_t *x, const hd_xds_env_t *env, hd_xds_built_t *out,
                   hd_str_t place)
{
    *x = (hd_xds_t){.env = env,
                    .out = out,
                    .node = {.file = place, .name = HD_STR("xds")},
                    .cf = {.temp = env->temp,
                           .batch = env->batch,
                           .arena = env->arena,
                           .member = env->member,
                           .build = env->build,
                           .scope = HD_IN_XDS}};
    x->cf.node = &x->node;
    hd_pb_arena_init(&x->pb, HD_XDS_MEMORY_MAX);
}

static const void *unpack(hd_xds_t *x, hd_xds_kind_t kind, hd_str_t bytes, hd_err_t *err)
{
    hd_pb_fault_t fault;
    char why[256];
    const void *msg =
        hd_pb_unpack(kinds[kind].type, bytes.data, bytes.len, &x->pb, &fault);

    if (msg != NULL)
        return msg;
    hd_pb_fault_print(&fault, why, sizeof(why));
    hd_ignore(hd_err_set(err, HD_E_RESOURCE, "%s", why));
    return NULL;
}

static hd_rc_t read_name(hd_xds_kind_t kind, hd_str_t given, const void *msg,
                         hd_str_t *name, hd_err_t *err)
{
    *name = hd_str_c(kinds[kind].name(msg));
    if (name->len == 0)
        return hd_err_set(err, HD_E_RESOURCE, "it has no name");
    if (given.len > 0 && !hd_str_eq(given, *name))
        return hd_err_set(err, HD_E_RESOURCE,
                          "it came as \"%.*s\" and calls itself "
                          "\"%.*s\"",
                          HD_STR_ARG(given), HD_STR_ARG(*name));
    return HD_OK;
}

static uint64_t hash_of(hd_str_t bytes)
{
    uint64_t h = hd_hash64(bytes.data, bytes.len, 0);

    return h != 0 ? h : 1;
}

/* A cluster's limits are counted where a finite one is to be held (circuit breakers). */
static hd_rc_t add_gauges(hd_xds_t *x, hd_slot_t *slot, const hd_cluster_t *c,
                          hd_err_t *err)
{
    if (hd_slot_add_gauges(x->env->arena, slot, HD_CG_N, err) != HD_OK)
        return HD_ERROR;
    hd_breakers_share(x->env->member, slot, c);
    return HD_OK;
}

/* Builds in a region of its own and puts it. */
static hd_rc_t build_region(hd_xds_t *x, const void *msg, hd_str_t place, uint64_t hash,
                            hd_err_t *err)
{
    hd_xds_built_t *out = x->out;
    hd_region_t *r;
    hd_rc_t rc;

    r = hd_batch_region(x->env->batch, kinds[out->kind].res, out->name, place, 0,
                        &x->cf.pool, err);
    if (r == NULL)
        return HD_ERROR;
    x->cf.region = r;
    if (kinds[out->kind].build(x, msg, &out->root, err) != HD_OK ||
        (out->kind == HD_XDS_CLUSTER &&
         add_gauges(x, out->slot, out->root, err) != HD_OK)) {
        hd_batch_drop(x->env->batch, r);
        return HD_ERROR;
    }
    if (x->env->may_put != NULL && !x->env->may_put(x->env->may_put_arg, out)) {
        out->is_waiting = true;
        hd_batch_drop(x->env->batch, r);
        return HD_OK;
    }
    if (out->has_default_high) /* other limits under the same bytes */
        hash = ~hash | 1;
    if (out->names.n > 0) /* they resolve to other addresses under the same bytes */
        hash = 0;
    rc = hd_batch_put(x->env->batch, out->slot, r, out->root, hash, err);
    out->is_unchanged = rc == HD_DONE;
    if (out->is_unchanged) /* what was built is gone: the live version says the same */
        out->root = hd_slot_get(x->env->member, out->slot)->root;
    return rc == HD_DONE ? HD_OK : rc;
}

static hd_rc_t build(hd_xds_t *x, hd_str_t given, hd_str_t bytes, hd_str_t place,
                     hd_err_t *err)
{
    hd_xds_built_t *out = x->out;
    const void *msg = unpack(x, out->kind, bytes, err);
    hd_str_t name;

    if (msg == NULL || read_name(out->kind, given, msg, &name, err) != HD_OK)
        return HD_ERROR;
    out->name = hd_str_dup(x->env->temp, name);
    if (hd_xds_check_fields(x, msg, err) != HD_OK)
        return HD_ERROR;
    out->slot = hd_slot_find_or_add(x->env->arena, kinds[out->kind].res, name, err);
    if (out->slot == NULL)
        return HD_ERROR;
    if (x->env->batch != NULL)
        return build_region(x, msg, place, hash_of(bytes), err);
    x->cf.pool = x->env->pool;
    return kinds[out->kind].build(x, msg, &out->root, err);
}

hd_rc_t hd_xds_build(const hd_xds_env_t *env, hd_xds_kind_t kind, hd_str_t name,
                     hd_str_t bytes, hd_str_t version, hd_xds_built_t *out, hd_err_t *err)
{
    hd_str_t place =
        hd_str_printf(env->temp, "xds:%s:%.*s", kinds[kind].word, HD_STR_ARG(version));
    hd_xds_t x;
    hd_rc_t rc;

    init_out(out, kind, env->temp);
    init_x(&x, env, out, place);
    rc = build(&x, name, bytes, place, err);
    hd_pb_arena_deinit(&x.pb);
    if (rc == HD_OK)
        return HD_OK;
    if (name.len == 0)
        name = out->name;
    return hd_err_prefix(err, "%s \"%.*s\": ", kinds[kind].word, HD_STR_ARG(name));
}
