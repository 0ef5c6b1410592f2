/* Settings of metrics: directives, and xDS's stats and peer metadata. */
#include "hd_pb.h"
#include "hd_pb_value.h"
#include "istio/stats.pb-c.h"
#include "lib/pb_unpack.h"
#include "metrics.h"

#include "xds/core.pb-c.h"

/* Settings that give other labels are another number (the cache asks). */
static void stamp(metrics_conf_t *mc)
{
    mc->stamp = (uint32_t)hd_hash64(mc->removed, sizeof(mc->removed),
                                    (uint64_t)mc->dropped << 8 |
                                        (uint64_t)mc->no_host_fallback << 2 | mc->side);
}

/* --- directives --- */

#define REPORT_MS 5000 /* Istio's tcp_reporting_duration, if unset */

hd_rc_t metrics_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    metrics_conf_t *mc = conf;

    *mc = (metrics_conf_t){0}; /* replaces what was inherited */
    if (hd_str_eq(args[0], HD_STR("off")))
        return cf->node->args_n == 1
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF, "\"metrics off\" stands alone");
    if (!hd_str_eq(args[0], HD_STR("on")))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": on or off is needed",
                          HD_STR_ARG(args[0]));
    mc->is_on = mc->exchanges = true;
    mc->report_ms = REPORT_MS;
    for (uint32_t i = 1; i < cf->node->args_n; i++) {
        if (hd_str_eq(args[i], HD_STR("reporter=source")))
            mc->side = SIDE_SOURCE;
        else if (hd_str_eq(args[i], HD_STR("reporter=destination")))
            mc->side = SIDE_DESTINATION;
        else if (hd_str_eq(args[i], HD_STR("exchange=off")))
            mc->exchanges = false;
        else if (hd_str_eq(args[i], HD_STR("host_fallback=off")))
            mc->no_host_fallback = true;
        else if (hd_str_has_prefix(args[i], HD_STR("report="))) {
            uint64_t ms;

            if (hd_parse_msec(hd_str_sub(args[i], 7, args[i].len), &ms, err) != HD_OK)
                return HD_ERROR;
            mc->report_ms = (uint32_t)hd_min(ms, (uint64_t)UINT32_MAX);
        } else
            return hd_err_set(err, HD_E_CONF,
                              "unknown parameter \"%.*s\"; allowed are reporter=source, "
                              "reporter=destination, exchange=off, host_fallback=off, "
                              "report=TIME",
                              HD_STR_ARG(args[i]));
    }
    stamp(mc);
    return HD_OK;
}

hd_rc_t metrics_set_workload(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    metrics_conf_t *mc = conf;
    const struct {
        const char *name;
        hd_str_t *to;
    } names[] = {
        {"workload", &mc->self.name},   {"namespace", &mc->self.namespace},
        {"app", &mc->self.app},         {"version", &mc->self.version},
        {"service", &mc->self.service}, {"revision", &mc->self.revision},
        {"cluster", &mc->self.cluster}, {"host", &mc->self_host},
        {"id", &mc->self_id},
    };

    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        ssize_t eq = hd_str_find_char(args[i], '=');
        unsigned n = 0;

        while (n < hd_countof(names) &&
               (eq < 0 ||
                !hd_str_eq(hd_str_sub(args[i], 0, (size_t)eq), hd_str_c(names[n].name))))
            n++;
        if (n == hd_countof(names))
            return hd_err_set(err, HD_E_CONF,
                              "unknown parameter \"%.*s\"; allowed are workload= "
                              "namespace= app= version= service= revision= cluster= "
                              "host= id=",
                              HD_STR_ARG(args[i]));
        *names[n].to =
            hd_str_dup(cf->pool, hd_str_sub(args[i], (size_t)eq + 1, args[i].len));
    }
    /* MLABEL-6 */
    if (mc->self.service.len == 0)
        mc->self.service = mc->self.app.len > 0 ? mc->self.app : mc->self.name;
    if (mc->self.revision.len == 0)
        mc->self.revision =
            mc->self.version.len > 0 ? mc->self.version : HD_STR("latest");
    mc->self.revision = hd_str_dup(cf->pool, mc->self.revision); /* into the arena */
    mc->is_named = true;
    return HD_OK;
}

/* --- stats.PluginConfig --- */

static const char *const metric_names[M_N] = {
    [M_REQUESTS] = "requests_total",
    [M_DURATION] = "request_duration_milliseconds",
    [M_REQUEST_BYTES] = "request_bytes",
    [M_RESPONSE_BYTES] = "response_bytes",
    [M_TCP_OPENED] = "tcp_connections_opened_total",
    [M_TCP_CLOSED] = "tcp_connections_closed_total",
    [M_TCP_SENT] = "tcp_sent_bytes_total",
    [M_TCP_RECEIVED] = "tcp_received_bytes_total",
};

static void remove_label(metrics_conf_t *mc, unsigned metric, const char *name)
{
    const char *const *labels = metrics_families[metric].labels;

    for (unsigned i = 0; labels[i] != NULL; i++) {
        if (strcmp(labels[i], name) == 0)
            mc->removed[metric] |= 1u << i;
    }
}

/* What can't be had is said: a metric without a label that was asked for misleads nobody
 * about access, so the listener isn't refused for it. */
static void read_override(const PbStats__MetricConfig *msg, metrics_conf_t *mc)
{
    if (msg->match[0] != '\0') {
        hd_log(HD_LOG_WARN,
               "metrics: an override of %s with match \"%s\" has no effect: expressions "
               "are not supported",
               msg->name, msg->match);
        return;
    }
    for (size_t i = 0; i < msg->n_dimensions; i++)
        hd_log(HD_LOG_WARN,
               "metrics: the dimension %s of %s has no effect: expressions "
               "are not supported",
               msg->dimensions[i]->key, msg->name);
    for (unsigned metric = 0; metric < M_N; metric++) {
        if (msg->name[0] != '\0' && strcmp(msg->name, metric_names[metric]) != 0)
            continue;
        if (msg->drop)
            mc->dropped |= (uint16_t)(1u << metric);
        for (size_t i = 0; i < msg->n_tags_to_remove; i++)
            remove_label(mc, metric, msg->tags_to_remove[i]);
    }
}

static uint32_t duration_ms(const Pb__Duration *d, uint32_t unset)
{
    if (d == NULL)
        return unset;
    if (d->seconds < 0 || d->nanos < 0 || d->seconds > UINT32_MAX / 1000 - 1)
        return UINT32_MAX;
    return (uint32_t)(d->seconds * 1000 + d->nanos / 1000000);
}

hd_rc_t metrics_build_stats(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                            hd_err_t *err)
{
    metrics_conf_t *mc = conf;
    const PbStats__PluginConfig *msg;
    hd_pb_arena_t arena;

    (void)cf;
    (void)is_route;
    hd_pb_arena_init(&arena, 1 << 20);
    msg = pb_unpack(HD_PB(pb_stats__plugin_config), bytes, &arena, "stats: ", err);
    if (msg != NULL) {
        mc->is_on = true;
        mc->no_host_fallback = msg->disable_host_header_fallback;
        mc->report_ms = duration_ms(msg->tcp_reporting_duration, REPORT_MS);
        for (size_t i = 0; i < msg->n_metrics; i++)
            read_override(msg->metrics[i], mc);
        stamp(mc);
    }
    hd_pb_arena_deinit(&arena);
    return mc->is_on ? HD_OK : HD_ERROR;
}

/* --- io.istio.http.peer_metadata.Config, which comes as a struct --- */

static const Pb__Struct *struct_in(const Pb__Value *v)
{
    return v != NULL && v->kind_case == PB__VALUE__KIND_STRUCT_VALUE ? v->struct_value
                                                                     : NULL;
}

/* Does the list <name> hold a method istio_headers? */
static bool has_headers(const Pb__Struct *s, const char *name, bool *skips_external)
{
    const Pb__Value *list = hd_pb_struct_get(s, name), *skip;

    if (list == NULL || list->kind_case != PB__VALUE__KIND_LIST_VALUE)
        return false;
    for (size_t i = 0; i < list->list_value->n_values; i++) {
        const Pb__Struct *method = struct_in(list->list_value->values[i]);

        if (method == NULL || hd_pb_struct_get(method, "istio_headers") == NULL)
            continue;
        skip = hd_pb_struct_get(struct_in(hd_pb_struct_get(method, "istio_headers")),
                                "skip_external_clusters");
        *skips_external |= skip != NULL &&
                           skip->kind_case == PB__VALUE__KIND_BOOL_VALUE &&
                           skip->bool_value;
        return true;
    }
    return false;
}

hd_rc_t metrics_build_exchange(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                               hd_err_t *err)
{
    metrics_conf_t *mc = conf;
    const Pb__Struct *msg;
    hd_pb_arena_t arena;

    (void)cf;
    (void)is_route;
    hd_pb_arena_init(&arena, 1 << 18);
    msg = hd_pb_unpack(HD_PB(pb__struct), bytes.data, bytes.len, &arena, NULL);
    if (msg != NULL) {
        mc->exchanges = mc->is_filter = true;
        mc->asks_downstream =
            has_headers(msg, "downstream_discovery", &mc->skips_external);
        mc->asks_upstream = has_headers(msg, "upstream_discovery", &mc->skips_external);
        mc->tells_downstream =
            has_headers(msg, "downstream_propagation", &mc->skips_external);
        mc->tells_upstream =
            has_headers(msg, "upstream_propagation", &mc->skips_external);
    }
    hd_pb_arena_deinit(&arena);
    return msg != NULL ? HD_OK
                       : hd_err_set(err, HD_E_RESOURCE, "peer_metadata: no struct");
}

/* --- who we are --- */

static metrics_self_t self;
static hd_pool_t *self_pool;
static uint64_t self_hash; /* of what it was made from */

static void read_node(hd_str_t bytes, metrics_conf_t *as)
{
    hd_pb_arena_t arena;
    const PbCore__Node *node;
    hd_str_t *const names[] = {&as->self.name,    &as->self.namespace, &as->self.app,
                               &as->self.version, &as->self.service,   &as->self.revision,
                               &as->self.cluster};

    hd_pb_arena_init(&arena, 1 << 20);
    node = hd_pb_unpack(HD_PB(pb_core__node), bytes.data, bytes.len, &arena, NULL);
    if (node != NULL) {
        workload_read_struct(node->metadata, &as->self);
        for (unsigned i = 0; i < hd_countof(names); i++)
            *names[i] = hd_str_dup(self_pool, *names[i]);
        as->self_id = hd_str_dup(self_pool, hd_str_c(node->id));
        as->is_named = true;
    }
    hd_pb_arena_deinit(&arena);
}

static hd_str_t keep(hd_str_t s)
{
    return s.len > 0 ? hd_str_dup(self_pool, s) : HD_STR_NONE;
}

static void make_self(const metrics_conf_t *mc)
{
    const workload_names_t *n = &mc->self;

    self = (metrics_self_t){
        .names = {.name = keep(n->name),
                  .namespace = keep(n->namespace),
                  .app = keep(n->app),
                  .version = keep(n->version),
                  .service = keep(n->service),
                  .revision = keep(n->revision),
                  .cluster = keep(n->cluster)},
        .host = keep(mc->self_host),
    };
    if (!mc->is_named)
        return;
    self.header = workload_encode(&self.names, self_pool);
    self.id = keep(mc->self_id.len > 0 ? mc->self_id : n->name);
}

const metrics_self_t *metrics_self(hd_member_t *m)
{
    const metrics_conf_t *main = hd_conf_main_of(m, &hd_module);
    hd_str_t node = hd_node_bytes != NULL ? hd_node_bytes(m) : HD_STR_NONE;
    metrics_conf_t as = {0};
    uint64_t hash;

    if (main != NULL && main->is_named) {
        as = *main;
        node = HD_STR_NONE;
    }
    /* by place: strings of a published region never change, a new one is elsewhere */
    hash = hd_hash64(&as.self, sizeof(as.self),
                     (uintptr_t)node.data ^ (uintptr_t)as.self_id.data);
    if (self_pool != NULL && hash == self_hash)
        return &self;
    if (self_pool == NULL)
        self_pool = hd_pool_create(0);
    else
        hd_pool_reset(self_pool);
    self_hash = hash;
    if (!as.is_named && node.len > 0)
        read_node(node, &as);
    make_self(&as);
    return &self;
}
