/* EDS, and the endpoints that stand in a cluster. */
#include "mesh/xds/hd_xds_int.h"
#include "mesh/hd_endpoint_state.h"

#include "core/base/hd_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDPOINTS_MAX 1000000
#define PRIORITIES_MAX 128

/* The list while it grows: lies in env->temp, copied to the region at the end. */
typedef struct {
    hd_xds_t *x;
    hd_array_t items; /* hd_endpoint_t */
    hd_array_t localities;
    hd_map_t *seen; /* "PRIORITY ADDRESS"; NULL: one that comes twice counts twice */
    bool resolves;  /* addresses may be names */
} list_t;

static uint8_t health_of(PbCore__HealthStatus status)
{
    return status <= PB_CORE__HEALTH_STATUS__DEGRADED ? (uint8_t)status : 0;
}

/* Envoy: of what discovery says twice of one priority the first counts. */
static bool was_seen(list_t *l, const hd_endpoint_t *e)
{
    char text[HD_ADDR_TEXT_MAX], room[HD_ADDR_TEXT_MAX + 8];
    hd_str_t addr = hd_addr_print(&e->addr, text), key;

    if (l->seen == NULL)
        return false;
    key = hd_str_n(room, (size_t)snprintf(room, sizeof(room), "%u %.*s", e->priority,
                                          HD_STR_ARG(addr)));
    if (hd_map_get(l->seen, key) != NULL)
        return true;
    key = hd_str_dup(l->x->env->temp, key);
    hd_ignore(hd_map_put(l->seen, key, (void *)key.data) == NULL);
    return false;
}

static hd_rc_t add_item(list_t *l, const hd_endpoint_t *e, hd_err_t *err)
{
    hd_endpoint_t *to;

    if (was_seen(l, e))
        return HD_OK;
    to = hd_array_add(&l->items);

    if (to == NULL)
        return hd_err_set(err, HD_E_LIMIT, "more than %d endpoints", ENDPOINTS_MAX);
    *to = *e;
    return HD_OK;
}

static hd_rc_t note_name(list_t *l, hd_str_t host, hd_err_t *err)
{
    hd_xds_name_t *name = hd_array_add(&l->x->out->names);

    if (name == NULL)
        return hd_err_set(err, HD_E_LIMIT, "too many names to resolve");
    *name = (hd_xds_name_t){hd_str_dup(l->x->env->temp, host), l->x->dns};
    return HD_OK;
}

/* One endpoint for each address that the name has now; none while it isn't known. */
static hd_rc_t add_named(list_t *l, hd_endpoint_t *e, const PbCore__SocketAddress *addr,
                         hd_err_t *err)
{
    const hd_xds_env_t *env = l->x->env;
    hd_str_t host = hd_str_c(addr->address);
    hd_xds_names_t names = {0};

    if (!l->resolves)
        return hd_err_set(err, HD_E_RESOURCE,
                          "\"%s\" is no IP address, and this cluster resolves no names",
                          addr->address);
    if (addr->port_value == 0 || addr->port_value > 65535)
        return hd_err_set(err, HD_E_RESOURCE, "port %u", addr->port_value);
    if (note_name(l, host, err) != HD_OK)
        return HD_ERROR;
    if (e->hostname.len == 0)
        e->hostname = hd_str_dup(l->x->cf.pool, host);
    if (env->resolve != NULL)
        names = env->resolve(env->resolve_arg, host, l->x->dns);
    if (l->x->dns != NULL && l->x->dns->is_logical && names.first != NULL)
        names = (hd_xds_names_t){.addrs = names.first, .n = 1};
    for (uint32_t i = 0; i < names.n; i++) {
        e->addr = names.addrs[i];
        e->addr.port = (uint16_t)addr->port_value;
        if (add_item(l, e, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t add_address(list_t *l, hd_endpoint_t *e, const PbCore__Address *addr,
                           hd_err_t *err)
{
    if (addr == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "an endpoint without an address");
    if (addr->address_case == PB_CORE__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS) {
        /* it stands for a tunnel (HBONE), and must not be reached without it */
        hd_xds_note(l->x,
                    "an endpoint behind the internal listener %s: not used, "
                    "tunnels aren't supported yet",
                    addr->envoy_internal_address->server_listener_name);
        return HD_OK;
    }
    if (addr->address_case == PB_CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS &&
        !hd_addr_parse_ip(hd_str_c(addr->socket_address->address), &e->addr))
        return add_named(l, e, addr->socket_address, err);
    if (hd_xds_addr(l->x, addr, &e->addr, err) != HD_OK)
        return HD_ERROR;
    if (e->addr.family != AF_UNIX && e->addr.port == 0)
        return hd_err_set(err, HD_E_RESOURCE, "an endpoint without a port");
    return add_item(l, e, err);
}

static hd_rc_t read_check(hd_xds_t *x, const PbEndpoint__Endpoint__HealthCheckConfig *msg,
                          const hd_endpoint_check_t **check, hd_err_t *err)
{
    hd_endpoint_check_t *to;

    if (msg == NULL)
        return HD_OK;
    *check = to = hd_pool_new(x->cf.pool, hd_endpoint_check_t);
    if (msg->port_value > 65535)
        return hd_err_set(err, HD_E_RESOURCE, "health_check_config: port_value %u",
                          msg->port_value);
    if (msg->address != NULL && hd_xds_addr(x, msg->address, &to->addr, err) != HD_OK)
        return hd_err_prefix(err, "health_check_config: ");
    if (!hd_http_is_field_value(hd_str_c(msg->hostname)))
        return hd_err_set(err, HD_E_RESOURCE,
                          "health_check_config: hostname \"%s\": what a field may have",
                          msg->hostname);
    to->port = (uint16_t)msg->port_value;
    to->host = hd_xds_str(x, msg->hostname);
    to->is_unchecked = msg->disable_active_health_check;
    return HD_OK;
}

static hd_rc_t read_more(hd_xds_t *x, const PbCore__Metadata *md,
                         const PbEndpoint__Endpoint *ep, const hd_endpoint_more_t **more,
                         hd_err_t *err)
{
    const Pb__Struct *istio = hd_xds_metadata(md, "istio");
    hd_endpoint_more_t m = {0}, *to;

    hd_xds_labels(x, hd_xds_metadata(md, "envoy.transport_socket_match"),
                  &m.transport_match, &m.transport_match_n);
    hd_xds_labels(x, hd_xds_metadata(md, "envoy.lb"), &m.labels, &m.labels_n);
    m.workload = hd_xds_str(x, hd_pb_struct_text(istio, "workload", ""));
    if (read_check(x, ep->health_check_config, &m.check, err) != HD_OK)
        return HD_ERROR;
    if (m.transport_match_n + m.labels_n == 0 && m.workload.len == 0 && m.check == NULL)
        return HD_OK;
    *more = to = hd_pool_new(x->cf.pool, hd_endpoint_more_t);
    *to = m;
    return HD_OK;
}

static hd_rc_t add_endpoint(list_t *l, const PbEndpoint__LbEndpoint *msg,
                            uint8_t priority, uint16_t locality, hd_err_t *err)
{
    hd_endpoint_t e = {.weight = hd_pb_u32(msg->load_balancing_weight, 1),
                       .health = health_of(msg->health_status),
                       .priority = priority,
                       .locality = locality};
    const PbEndpoint__Endpoint *ep = msg->endpoint;

    if (msg->host_identifier_case != PB_ENDPOINT__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT)
        return hd_err_set(err, HD_E_RESOURCE, "an endpoint by name: not supported");
    if (e.weight == 0)
        return hd_err_set(err, HD_E_RESOURCE, "an endpoint of weight 0");
    e.hostname = hd_xds_str(l->x, ep->hostname);
    if (read_more(l->x, msg->metadata, ep, &e.more, err) != HD_OK)
        return HD_ERROR;
    return add_address(l, &e, ep->address, err);
}

static hd_rc_t add_locality(list_t *l, const PbEndpoint__LocalityLbEndpoints *msg,
                            hd_err_t *err)
{
    hd_locality_t *loc = hd_array_add(&l->localities);
    uint16_t index = (uint16_t)(l->localities.n - 1);

    if (loc == NULL)
        return hd_err_set(err, HD_E_LIMIT, "more than %d localities", UINT16_MAX);
    if (msg->priority >= PRIORITIES_MAX)
        return hd_err_set(err, HD_E_RESOURCE, "priority %u: below %d is right",
                          msg->priority, PRIORITIES_MAX);
    if (msg->load_balancing_weight != NULL && msg->load_balancing_weight->value == 0)
        return hd_err_set(err, HD_E_RESOURCE, "load_balancing_weight 0: above 0");
    *loc = (hd_locality_t){.weight = hd_pb_u32(msg->load_balancing_weight, 0),
                           .priority = (uint8_t)msg->priority};
    if (msg->locality != NULL) {
        loc->region = hd_xds_str(l->x, msg->locality->region);
        loc->zone = hd_xds_str(l->x, msg->locality->zone);
        loc->subzone = hd_xds_str(l->x, msg->locality->sub_zone);
    }
    for (size_t i = 0; i < msg->n_lb_endpoints; i++) {
        if (add_endpoint(l, msg->lb_endpoints[i], (uint8_t)msg->priority, index, err) !=
            HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

/* --- what a cluster wants of its endpoints --- */

typedef struct {
    hd_table_spec_t spec;
    bool reads_load;
    size_t len;
    char name[];
} wanted_t;

static hd_map_t *wanted; /* of the process: few, and no more than clusters */

static wanted_t *add_wanted(hd_str_t endpoints)
{
    wanted_t *w = calloc(1, sizeof(*w) + endpoints.len);

    hd_bug_on(w == NULL);
    w->len = endpoints.len;
    memcpy(w->name, endpoints.data, endpoints.len);
    hd_ignore(hd_map_put(wanted, hd_str_n(w->name, w->len), w) == NULL);
    return w;
}

void hd_xds_want_table(hd_str_t endpoints, const hd_table_spec_t *spec)
{
    if (wanted == NULL)
        wanted = hd_map_create();
    free(hd_map_remove(wanted, endpoints));
    if (spec->kind != HD_TABLE_NONE)
        add_wanted(endpoints)->spec = *spec;
}

void hd_xds_want_load(hd_str_t endpoints)
{
    wanted_t *w = hd_map_get(wanted, endpoints);

    if (w == NULL)
        w = add_wanted(endpoints);
    w->reads_load = true;
}

static void make_tables(hd_xds_t *x, hd_str_t name, hd_endpoints_t *eps)
{
    const wanted_t *w = wanted != NULL ? hd_map_get(wanted, name) : NULL;
    const hd_table_spec_t *spec = x->table.kind != HD_TABLE_NONE ? &x->table
                                  : w != NULL                    ? &w->spec
                                                                 : NULL;

    if (spec != NULL && spec->kind != HD_TABLE_NONE)
        hd_tables_build(eps, spec, x->cf.pool, x->env->temp);
}

/* A count that is read on the request's way is kept as a total. */
bool hd_xds_reads_load(hd_lb_policy_t lb)
{
    return lb == HD_LB_LEAST_REQUEST || lb == HD_LB_RING_HASH || lb == HD_LB_MAGLEV ||
           lb == HD_LB_PEAK_EWMA;
}

static bool is_load_read(const hd_xds_t *x, hd_str_t name)
{
    const wanted_t *w = wanted != NULL ? hd_map_get(wanted, name) : NULL;

    return x->reads_load || (w != NULL && w->reads_load);
}

static hd_rc_t set_policy(const PbEndpoint__ClusterLoadAssignment__Policy *msg,
                          hd_endpoints_t *eps, hd_err_t *err)
{
    eps->overprovisioning_factor =
        hd_pb_u32(msg != NULL ? msg->overprovisioning_factor : NULL, 140);
    eps->weighted_priority_health = msg != NULL && msg->weighted_priority_health;
    return eps->overprovisioning_factor > 0
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE, "overprovisioning_factor 0: above 0");
}

static hd_rc_t build(hd_xds_t *x, const PbEndpoint__ClusterLoadAssignment *msg,
                     hd_str_t name, list_t *l, const void **root, hd_err_t *err)
{
    hd_endpoints_t *eps = hd_pool_new(x->cf.pool, hd_endpoints_t);

    l->x = x;
    hd_array_init(&l->items, x->env->temp, sizeof(hd_endpoint_t), ENDPOINTS_MAX);
    hd_array_init(&l->localities, x->env->temp, sizeof(hd_locality_t), UINT16_MAX);
    for (size_t i = 0; msg != NULL && i < msg->n_endpoints; i++) {
        if (add_locality(l, msg->endpoints[i], err) != HD_OK)
            return hd_err_prefix(err, "locality %zu: ", i);
    }
    eps->items = hd_array_copy(&l->items, x->cf.pool);
    eps->n = (uint32_t)l->items.n;
    eps->localities = hd_array_copy(&l->localities, x->cf.pool);
    eps->localities_n = (uint32_t)l->localities.n;
    if (set_policy(msg != NULL ? msg->policy : NULL, eps, err) != HD_OK)
        return HD_ERROR;
    hd_endpoints_attach_state(x->env->member, name, eps, is_load_read(x, name));
    make_tables(x, name, eps);
    *root = eps;
    return HD_OK;
}

hd_rc_t hd_xds_endpoints(hd_xds_t *x, const PbEndpoint__ClusterLoadAssignment *msg,
                         const void **root, hd_err_t *err)
{
    list_t l = {.seen = hd_map_create()};
    hd_rc_t rc = build(x, msg, hd_str_c(msg->cluster_name), &l, root, err);

    hd_map_destroy(l.seen);
    return rc;
}

hd_rc_t hd_xds_inline_endpoints(hd_xds_t *x, const PbEndpoint__ClusterLoadAssignment *msg,
                                hd_str_t name, bool resolves, const hd_slot_t **slot,
                                hd_err_t *err)
{
    hd_slot_t *s = hd_slot_find_or_add(x->env->arena, HD_RES_ENDPOINTS, name, err);
    hd_region_t *r;
    hd_xds_t inner = *x; /* shares all but the region */
    list_t l = {.resolves = resolves};
    hd_rc_t rc;

    *slot = s;
    if (s == NULL)
        return HD_ERROR;
    if (x->env->batch == NULL)
        return build(x, msg, name, &l, &x->out->inline_endpoints, err);
    r = hd_batch_region(x->env->batch, HD_RES_ENDPOINTS, name, x->node.file, 0,
                        &inner.cf.pool, err);
    if (r == NULL)
        return HD_ERROR;
    inner.cf.region = r;
    if (build(&inner, msg, name, &l, &x->out->inline_endpoints, err) != HD_OK) {
        hd_batch_drop(x->env->batch, r);
        return HD_ERROR;
    }
    rc = hd_batch_put(x->env->batch, s, r, x->out->inline_endpoints, 0, err);
    return rc == HD_DONE ? HD_OK : rc;
}
