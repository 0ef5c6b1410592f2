/* metrics: Istio's standard metrics of requests, and the exchange of workload metadata by
 * headers that their labels come from:
 *     metrics_workload workload=page namespace=shop version=v1;     (main level)
 *     metrics on;                                                   (http, server, …)
 * or by xDS (stats.PluginConfig, io.istio.http.peer_metadata). A request hashes no
 * labels: the series of its outcome are cached for its conn, route and endpoint.
 *
 * What peers say of themselves in headers is believed only on conns whose identity was
 * verified, and goes no further (MLABEL-21, MLABEL-22).
 */
#include "metrics.h"

#include <stdio.h>

/* --- on a request --- */

typedef struct {
    workload_t *downstream, *upstream; /* who they said they are; NULL: unknown */
    bool downstream_asked;             /* it told us, so it wants to know */
} state_t;

static void free_state(void *arg)
{
    state_t *st = arg;

    workload_release(st->downstream);
    workload_release(st->upstream);
}

static state_t *state_of(hd_req_t *req)
{
    state_t *st = hd_req_state(req, &hd_module);

    if (st == NULL) {
        st = hd_pool_new(hd_req_pool(req), state_t);
        hd_pool_defer(hd_req_pool(req), free_state, st);
        hd_req_set_state(req, &hd_module, st);
    }
    return st;
}

static bool is_inbound(hd_req_t *req)
{
    const hd_listener_t *l = hd_req_listener(req);

    return l != NULL && l->is_inbound;
}

static bool is_source(hd_req_t *req, const metrics_conf_t *mc)
{
    return mc->side == SIDE_SOURCE || (mc->side == SIDE_BY_LISTENER && !is_inbound(req));
}

static bool is_verified(hd_req_t *req)
{
    const hd_conn_t *c = hd_req_conn(req);

    return c != NULL && c->facts != NULL && c->facts->peer_principal.len > 0;
}

static void remove_from_request(hd_req_t *req)
{
    hd_req_remove_header(req, HD_STR(WORKLOAD_HEADER));
    hd_req_remove_header(req, HD_STR(WORKLOAD_ID_HEADER));
}

/* What the client says of itself, for us alone. */
static void ask_downstream(hd_req_t *req)
{
    bool found;
    hd_str_t value = hd_req_header(req, HD_STR(WORKLOAD_HEADER), &found);
    state_t *st;

    if (found && is_verified(req)) {
        st = state_of(req);
        st->downstream_asked = true;
        if (st->downstream == NULL)
            st->downstream = workload_get(value);
    }
    remove_from_request(req);
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const metrics_conf_t *mc = conf;

    if (!mc->exchanges)
        return HD_OK;
    if (mc->is_filter ? mc->asks_downstream : !is_source(req, mc))
        ask_downstream(req);
    else if (!mc->is_filter || mc->tells_upstream)
        remove_from_request(req); /* what an application sends here is not ours */
    return HD_OK;
}

static bool is_external(hd_req_t *req, const hd_pick_t *pick)
{
    const hd_region_t *r = hd_slot_get(hd_req_member(req), pick->cluster_slot);
    const hd_cluster_t *c = r != NULL ? r->root : NULL;

    return c != NULL && c->is_external;
}

/* The cluster is known by now, and the head not sent. */
static hd_rc_t on_pick(hd_req_t *req, const void *conf, hd_pick_t *pick)
{
    const metrics_conf_t *mc = conf;
    const metrics_self_t *self;

    if (!mc->exchanges || !(mc->is_filter ? mc->tells_upstream : is_source(req, mc)))
        return HD_OK;
    self = metrics_self(hd_req_member(req));
    if (self->header.len == 0 || (mc->skips_external && is_external(req, pick)))
        return HD_OK;
    if (hd_req_set_header(req, HD_STR(WORKLOAD_HEADER), self->header) != HD_OK ||
        hd_req_set_header(req, HD_STR(WORKLOAD_ID_HEADER), self->id) != HD_OK)
        return HD_OK; /* no room in the head: the peer will not know us */
    return HD_OK;
}

static void ask_upstream(hd_req_t *req)
{
    bool found;
    hd_str_t value = hd_res_header(req, HD_STR(WORKLOAD_HEADER), &found);
    hd_req_info_t info;

    if (!found)
        return;
    hd_req_get_info(req, &info);
    if (info.upstream_peer.len > 0 && info.upstream_status != 0) {
        state_t *st = state_of(req);

        workload_release(st->upstream);
        st->upstream = workload_get(value);
    }
    hd_res_remove_header(req, HD_STR(WORKLOAD_HEADER));
    hd_res_remove_header(req, HD_STR(WORKLOAD_ID_HEADER));
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const metrics_conf_t *mc = conf;
    const metrics_self_t *self;
    state_t *st;

    if (!mc->exchanges)
        return HD_OK;
    if (mc->is_filter ? mc->asks_upstream : is_source(req, mc))
        ask_upstream(req);
    st = hd_req_state(req, &hd_module);
    if (!(mc->is_filter ? mc->tells_downstream : !is_source(req, mc)) || st == NULL ||
        !st->downstream_asked)
        return HD_OK;
    self = metrics_self(hd_req_member(req));
    if (self->header.len == 0)
        return HD_OK;
    if (hd_res_set_header(req, HD_STR(WORKLOAD_HEADER), self->header) != HD_OK)
        return HD_OK; /* as above */
    hd_ignore(hd_res_set_header(req, HD_STR(WORKLOAD_ID_HEADER), self->id) != HD_OK);
    return HD_OK;
}

/* --- at its end --- */

static void find_facts(hd_req_t *req, const metrics_conf_t *mc, const hd_req_info_t *info,
                       workload_names_t *endpoint, metrics_facts_t *f)
{
    const state_t *st = hd_req_state(req, &hd_module);
    const hd_conn_t *c = hd_req_conn(req);
    const hd_conn_facts_t *facts = c != NULL ? c->facts : NULL;

    *f = (metrics_facts_t){
        .is_source = is_source(req, mc),
        .self = metrics_self(hd_req_member(req)),
        .cluster = info->cluster_conf,
        .cluster_name = info->cluster,
        .host = mc->no_host_fallback ? HD_STR_NONE : hd_req_authority(req),
    };
    *endpoint = (workload_names_t){0};
    if (f->is_source) {
        f->source_principal = info->upstream_self;
        f->destination_principal = info->upstream_peer;
        if (info->endpoint != NULL)
            workload_read_endpoint(hd_endpoint_more(info->endpoint)->workload, endpoint);
        f->peer = st != NULL && st->upstream != NULL ? &st->upstream->names : endpoint;
        return;
    }
    if (facts != NULL && facts->peer_principal.len > 0) {
        f->source_principal = facts->peer_principal;
        f->destination_principal = facts->local_principal;
        endpoint->namespace = workload_namespace_of(facts->peer_principal);
    }
    f->peer = st != NULL && st->downstream != NULL ? &st->downstream->names : endpoint;
}

static void enter_all(hd_req_t *req, const metrics_conf_t *mc, const hd_req_info_t *info,
                      hd_series_t *series)
{
    char code[12], status[12];
    hd_str_t values[L_HTTP_N];
    workload_names_t endpoint;
    metrics_facts_t f;

    find_facts(req, mc, info, &endpoint, &f);
    metrics_fill(&f, values);
    values[L_REQUEST_PROTOCOL] = info->is_grpc ? HD_STR("grpc") : HD_STR("http");
    values[L_RESPONSE_CODE] =
        hd_str_n(code, (size_t)snprintf(code, sizeof(code), "%u", info->status % 1000));
    values[L_GRPC_RESPONSE_STATUS] =
        info->is_grpc && info->grpc_status != UINT32_MAX
            ? hd_str_n(status, (size_t)snprintf(status, sizeof(status), "%u",
                                                info->grpc_status % 1000))
            : HD_STR_NONE;
    values[L_RESPONSE_FLAGS] = info->flags;
    for (unsigned i = 0; i < M_HTTP_N; i++)
        series[i] = metrics_enter(hd_req_member(req), mc, (metric_t)i, values);
}

/* The cache's slots: which settings and peers it is for, then outcomes, each a tag and
 * its series. */
enum { C_STAMP, C_DOWNSTREAM, C_UPSTREAM, C_OUTCOMES, C_OUTCOME_LEN = M_HTTP_N + 1 };
_Static_assert(C_OUTCOMES + 2 * C_OUTCOME_LEN <= HD_SERIES_CACHE, "two outcomes");

/* 0: too rare an outcome to be kept. */
static uint32_t tag_of(const hd_req_info_t *info)
{
    uint32_t grpc = info->grpc_status == UINT32_MAX ? 31 : info->grpc_status;

    if (!hd_str_eq(info->flags, HD_STR("-")) || grpc > 31 || info->status > 999)
        return 0;
    return 1u << 31 | (uint32_t)info->is_grpc << 20 | grpc << 12 | info->status;
}

static hd_series_t *find_cached(hd_req_t *req, const metrics_conf_t *mc, uint32_t tag)
{
    const state_t *st = hd_req_state(req, &hd_module);
    uint32_t down = st != NULL && st->downstream != NULL ? st->downstream->id : 0;
    uint32_t up = st != NULL && st->upstream != NULL ? st->upstream->id : 0;
    hd_series_t *cache = hd_req_series_cache(req, &hd_module, 0);

    if (cache == NULL || tag == 0)
        return NULL;
    if (cache[C_STAMP] != mc->stamp || cache[C_DOWNSTREAM] != down ||
        cache[C_UPSTREAM] != up) {
        memset(cache, 0, HD_SERIES_CACHE * sizeof(*cache));
        cache[C_STAMP] = mc->stamp;
        cache[C_DOWNSTREAM] = down;
        cache[C_UPSTREAM] = up;
    }
    return cache + C_OUTCOMES + (tag & 1) * C_OUTCOME_LEN;
}

static void on_log(hd_req_t *req, const void *conf)
{
    const metrics_conf_t *mc = conf;
    hd_series_t fresh[M_HTTP_N], *series = fresh, *cached;
    hd_member_t *m = hd_req_member(req);
    hd_req_info_t info;
    uint32_t tag;

    if (!mc->is_on)
        return;
    hd_req_get_info(req, &info);
    tag = tag_of(&info);
    cached = find_cached(req, mc, tag);
    if (cached != NULL)
        series = cached + 1;
    if (cached == NULL || cached[0] != tag) {
        enter_all(req, mc, &info, series);
        if (cached != NULL)
            cached[0] = tag;
    }
    hd_counter_add(m, series[M_REQUESTS], 1);
    hd_histogram_observe(m, &metrics_families[M_DURATION], series[M_DURATION],
                         (double)info.duration_ns / 1e6);
    hd_histogram_observe(m, &metrics_families[M_REQUEST_BYTES], series[M_REQUEST_BYTES],
                         (double)(info.head_bytes_received + info.bytes_received));
    hd_histogram_observe(m, &metrics_families[M_RESPONSE_BYTES], series[M_RESPONSE_BYTES],
                         (double)(info.head_bytes_sent + info.bytes_sent));
}

static const hd_directive_t directives[] = {
    {.name = "metrics",
     .scope =
         HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = 6,
     .set = metrics_set,
     .help =
         "off | on [reporter=source|destination] [exchange=off] "
         "[host_fallback=off] [report=TIME]: counts requests, in stream sessions, in "
         "Istio's standard metrics; "
         "reporter: which side we are, if not as the listener's direction says; "
         "exchange: whether peers are told who we are and asked who they are; "
         "host_fallback: whether Host may name the service where nothing else does; "
         "report: how often the bytes of a session that goes on are counted, 5s; 0: at "
         "its end"},
    {.name = "metrics_workload",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .args_max = 9,
     .set = metrics_set_workload,
     .help =
         "[workload=NAME] [namespace=NAME] [app=NAME] [version=NAME] [service=NAME] "
         "[revision=NAME] [cluster=NAME] [host=NAME] [id=NAME]: who we are, in the "
         "labels of metrics; service and revision are Istio's canonical ones, host is "
         "our service's; without it, the node's metadata of xDS says"},
    {0},
};

static const hd_xds_type_t xds_types[] = {
    {.url = "type.googleapis.com/stats.PluginConfig", .build = metrics_build_stats},
    {.url = "type.googleapis.com/stats.PluginConfig",
     .build = metrics_build_stats,
     .is_network = true},
    {.url = "type.googleapis.com/io.istio.http.peer_metadata.Config",
     .build = metrics_build_exchange},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "metrics",
    .directives = directives,
    .conf_size = sizeof(metrics_conf_t),
    .phase = HD_PHASE_REWRITE, /* the first of a location: its end sees all others */
    .xds_types = xds_types,
    .on_request_headers = on_request_headers,
    .on_response_headers = on_response_headers,
    .on_log = on_log,
    .on_session = metrics_on_session,
    .on_pick = on_pick,
};
