/* Extensions: who has a type URL. Modules first; then those that are known to do no harm
 * when they do nothing; what is left is refused. */
#include "mesh/xds/hd_xds_int.h"
#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"
#include "xds/udpa_type.pb-c.h"
#include "xds/xds_type.pb-c.h"

#include <string.h>

#define PREFIX "type.googleapis.com/"
#define HTTP (1u << HD_XDS_EXT_HTTP)
#define ROUTE (1u << HD_XDS_EXT_ROUTE)
#define NETWORK (1u << HD_XDS_EXT_NETWORK)
#define LOGS (1u << HD_XDS_EXT_LOG | 1u << HD_XDS_EXT_CONN_LOG)

/* Known, and harmless to do without where no module has them. Never: what denies,
 * verifies, limits or changes a request. */
static const struct {
    const char *name; /* of the type */
    unsigned kinds;
    bool only_empty; /* without settings only: it waits for those of a route */
    const char *why;
} harmless[] = {
    {"io.istio.http.peer_metadata.Config", HTTP, false,
     "the peer's workload is told by its certificate; headers about it are neither "
     "trusted nor sent"},
    {"envoy.tcp.metadataexchange.config.MetadataExchange", NETWORK, false,
     "istio-peer-exchange is never negotiated, so no peer expects it"},
    {"istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", HTTP, false,
     "between Istio's workloads HTTP always offers what this filter would"},
    {"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", HTTP, false,
     "counts messages only"},
    {"envoy.extensions.filters.http.cors.v3.Cors", HTTP, false,
     "acts by a route's policy only"},
    {"envoy.extensions.filters.http.cors.v3.CorsPolicy", ROUTE, false,
     "no module cors: without its headers browsers refuse more, never less"},
    {"envoy.extensions.filters.http.fault.v3.HTTPFault", HTTP, true,
     "acts by a route's settings only"},
    {"stats.PluginConfig", HTTP | NETWORK, false, "no module metrics is loaded"},
    {"envoy.config.route.v3.RetryPolicy", ROUTE, false,
     "no module retry is loaded: a failed try is the answer"},
    {"envoy.config.accesslog.v3.AccessLog", LOGS, false,
     "no module access_log is loaded"},
};

uint16_t hd_xds_module_of(hd_str_t url, bool is_network, const hd_xds_type_t **type)
{
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        const hd_xds_type_t *t = hd_module_get(i)->xds_types;

        for (; t != NULL && t->url != NULL; t++) {
            if (t->is_network == is_network && hd_str_eq(hd_str_c(t->url), url)) {
                *type = t;
                return i;
            }
        }
    }
    return UINT16_MAX;
}

static const char *find_harmless(hd_xds_ext_t kind, hd_str_t url, bool is_empty)
{
    hd_str_t name = hd_str_sub(url, sizeof(PREFIX) - 1, url.len);

    for (size_t i = 0; i < hd_countof(harmless); i++) {
        if ((harmless[i].kinds & 1u << kind) != 0 &&
            hd_str_eq(hd_str_c(harmless[i].name), name) &&
            (is_empty || !harmless[i].only_empty))
            return harmless[i].why;
    }
    return NULL;
}

static hd_rc_t build_conf(hd_xds_t *x, hd_xds_ext_t kind, uint16_t module,
                          const hd_xds_type_t *type, hd_str_t bytes, const void **conf,
                          hd_err_t *err)
{
    const hd_module_t *m = hd_module_get(module);
    void *c = hd_pool_calloc(x->cf.pool, m->conf_size > 0 ? m->conf_size : 1);

    if (type->build != NULL &&
        type->build(&x->cf, bytes, kind == HD_XDS_EXT_ROUTE, c, err) != HD_OK)
        return hd_err_prefix(err, "module %s: ", m->name);
    *conf = c;
    return HD_OK;
}

hd_rc_t hd_xds_extension_of(hd_xds_t *x, hd_xds_ext_t kind, hd_str_t url, hd_str_t bytes,
                            bool optional, uint16_t *module, const void **conf,
                            hd_err_t *err)
{
    bool is_network = kind == HD_XDS_EXT_NETWORK || kind == HD_XDS_EXT_CONN_LOG;
    const hd_xds_type_t *type;
    const char *why;

    *module = hd_xds_module_of(url, is_network, &type);
    if (*module != UINT16_MAX)
        return build_conf(x, kind, *module, type, bytes, conf, err);
    why = find_harmless(kind, url, bytes.len == 0);
    if (why != NULL) {
        hd_xds_note(x, "%.*s: no effect: %s", HD_STR_ARG(url), why);
        return HD_DECLINED;
    }
    if (optional) {
        hd_xds_note(x, "%.*s: unknown, and marked as optional", HD_STR_ARG(url));
        return HD_DECLINED;
    }
    return hd_err_set(
        err, HD_E_RESOURCE,
        "no loaded module has the extension %.*s: load_module one that does",
        HD_STR_ARG(url));
}

/* Settings as a JSON-like struct, of a type named inside (Istio's own filters). */
static hd_rc_t extension_struct(hd_xds_t *x, hd_xds_ext_t kind, const char *url,
                                const Pb__Struct *value, bool optional, uint16_t *module,
                                const void **conf, hd_err_t *err)
{
    const hd_xds_type_t *type;
    hd_str_t plain = hd_xds_plain_url(x, url);
    ProtobufCBinaryData bytes = {0};

    /* a module that knows the type asks for it under the URL of the struct itself */
    *module = hd_xds_module_of(plain, kind == HD_XDS_EXT_NETWORK, &type);
    if (*module != UINT16_MAX && value != NULL && !hd_pb_pack(value, &x->pb, &bytes))
        return hd_err_set(err, HD_E_LIMIT, "it is too big");
    return hd_xds_extension_of(x, kind, plain,
                               hd_str_n((const char *)bytes.data, bytes.len), optional,
                               module, conf, err);
}

hd_rc_t hd_xds_extension(hd_xds_t *x, hd_xds_ext_t kind, const Pb__Any *any,
                         bool optional, uint16_t *module, const void **conf,
                         hd_err_t *err)
{
    const PbUdpa__TypedStruct *udpa;
    const PbXdsType__TypedStruct *xds;

    if (any == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "an extension without typed_config");
    if (hd_pb_any_is(any, HD_PB(pb_udpa__typed_struct))) {
        udpa = hd_xds_unpack(x, any, HD_PB(pb_udpa__typed_struct), err);
        return udpa == NULL ? HD_ERROR
                            : extension_struct(x, kind, udpa->type_url, udpa->value,
                                               optional, module, conf, err);
    }
    if (hd_pb_any_is(any, HD_PB(pb_xds_type__typed_struct))) {
        xds = hd_xds_unpack(x, any, HD_PB(pb_xds_type__typed_struct), err);
        return xds == NULL ? HD_ERROR
                           : extension_struct(x, kind, xds->type_url, xds->value,
                                              optional, module, conf, err);
    }
    return hd_xds_extension_of(x, kind, hd_xds_plain_url(x, any->type_url),
                               hd_str_n((const char *)any->value.data, any->value.len),
                               optional, module, conf, err);
}

/* A module gets the whole AccessLog, since its filter belongs to it. */
static hd_rc_t log_bytes(hd_xds_t *x, const PbAccesslog__AccessLog *msg, hd_str_t *bytes,
                         hd_err_t *err)
{
    ProtobufCBinaryData packed;

    if (!hd_pb_pack(msg, &x->pb, &packed))
        return hd_err_set(err, HD_E_LIMIT, "an access log is too big");
    *bytes = hd_str_n((const char *)packed.data, packed.len);
    return HD_OK;
}

hd_rc_t hd_xds_http_logs(hd_xds_t *x, PbAccesslog__AccessLog *const *msgs, size_t n,
                         const hd_filter_conf_t **logs, uint32_t *logs_n, hd_err_t *err)
{
    hd_filter_conf_t *list =
        n > 0 ? hd_pool_new_n(x->cf.pool, hd_filter_conf_t, n) : NULL;
    hd_str_t bytes;

    *logs = list;
    for (size_t i = 0; i < n; i++) {
        hd_filter_conf_t *to = &list[*logs_n];
        hd_rc_t rc;

        if (log_bytes(x, msgs[i], &bytes, err) != HD_OK)
            return HD_ERROR;
        rc = hd_xds_extension_of(x, HD_XDS_EXT_LOG, HD_STR(HD_XDS_LOG_URL), bytes, false,
                                 &to->module, &to->conf, err);
        if (rc == HD_ERROR)
            return HD_ERROR;
        if (rc == HD_OK) {
            to->name = hd_xds_str(x, msgs[i]->name);
            ++*logs_n;
        }
    }
    return HD_OK;
}

hd_rc_t hd_xds_conn_logs(hd_xds_t *x, PbAccesslog__AccessLog *const *msgs, size_t n,
                         const hd_net_filter_t **logs, uint32_t *logs_n, hd_err_t *err)
{
    hd_net_filter_t *list = n > 0 ? hd_pool_new_n(x->cf.pool, hd_net_filter_t, n) : NULL;
    hd_str_t bytes;

    *logs = list;
    for (size_t i = 0; i < n; i++) {
        hd_net_filter_t *to = &list[*logs_n];
        hd_rc_t rc;

        if (log_bytes(x, msgs[i], &bytes, err) != HD_OK)
            return HD_ERROR;
        rc = hd_xds_extension_of(x, HD_XDS_EXT_CONN_LOG, HD_STR(HD_XDS_LOG_URL), bytes,
                                 false, &to->module, &to->conf, err);
        if (rc == HD_ERROR)
            return HD_ERROR;
        if (rc == HD_OK) {
            to->name = hd_xds_str(x, msgs[i]->name);
            ++*logs_n;
        }
    }
    return HD_OK;
}
