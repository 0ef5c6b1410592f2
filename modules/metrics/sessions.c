/* TCP metrics (METRIC-7 to METRIC-10, METRIC-12): a session counts as opened once it has
 * its upstream, its bytes at each interval and at its end, then it counts as closed. One
 * that never had an upstream counts as opened and closed at its end. */
#include "metrics.h"

/* In the session's pool; its end is always told. */
typedef struct {
    hd_conn_t *conn;
    const metrics_conf_t *conf;
    hd_timer_t report;
    uint64_t received, sent; /* counted so far */
    bool is_opened;
} state_t;

static bool is_source(const metrics_conf_t *mc, const hd_listener_t *l)
{
    return mc->side == SIDE_SOURCE || (mc->side == SIDE_BY_LISTENER && !l->is_inbound);
}

static void fill(const state_t *st, const hd_session_info_t *info, hd_str_t *values)
{
    const hd_conn_facts_t *down = st->conn->facts;
    const hd_conn_facts_t *up = info->upstream != NULL ? info->upstream->facts : NULL;
    workload_names_t peer = {0};
    metrics_facts_t f = {
        .is_source = is_source(st->conf, info->listener),
        .self = metrics_self(hd_loop_member(st->conn->loop)),
        .peer = &peer,
        .cluster = info->cluster_conf,
        .cluster_name = info->cluster,
    };

    if (f.is_source) {
        if (up != NULL && up->peer_principal.len > 0) {
            f.source_principal = up->local_principal;
            f.destination_principal = up->peer_principal;
        }
        if (info->endpoint != NULL)
            workload_read_endpoint(hd_endpoint_more(info->endpoint)->workload, &peer);
    } else if (down != NULL && down->peer_principal.len > 0) {
        f.source_principal = down->peer_principal;
        f.destination_principal = down->local_principal;
        peer.namespace = workload_namespace_of(down->peer_principal);
    }
    metrics_fill(&f, values);
    values[L_REQUEST_PROTOCOL] = HD_STR("tcp"); /* MLABEL-12, for UDP too */
    values[L_RESPONSE_FLAGS] = info->flags;
}

static void add(const state_t *st, const hd_str_t *values, metric_t metric, uint64_t n)
{
    hd_member_t *m = hd_loop_member(st->conn->loop);

    if (n > 0)
        hd_counter_add(m, metrics_enter(m, st->conf, metric, values), n);
}

static void report(state_t *st, bool is_end)
{
    hd_str_t values[L_HTTP_N] = {{0}};
    hd_session_info_t info;

    if (!hd_session_get_info(st->conn, &info))
        return;
    fill(st, &info, values);
    add(st, values, M_TCP_OPENED, !st->is_opened);
    add(st, values, M_TCP_SENT, info.bytes_sent - st->sent);
    add(st, values, M_TCP_RECEIVED, info.bytes_received - st->received);
    add(st, values, M_TCP_CLOSED, is_end);
    st->is_opened = true;
    st->sent = info.bytes_sent;
    st->received = info.bytes_received;
}

static void on_report(hd_timer_t *t)
{
    state_t *st = hd_container_of(t, state_t, report);

    report(st, false);
    hd_timer_set(st->conn->loop, t, st->conf->report_ms);
}

void metrics_on_session(hd_conn_t *c, const void *conf, hd_session_event_t event)
{
    const metrics_conf_t *mc = conf;
    state_t *st = hd_session_state(c, &hd_module);

    if (!mc->is_on)
        return;
    if (st == NULL) {
        st = hd_pool_new(hd_conn_pool(c), state_t);
        st->conn = c;
        st->conf = mc;
        hd_timer_init(&st->report, on_report);
        hd_session_set_state(c, &hd_module, st);
    }
    report(st, event == HD_SESSION_ENDED);
    if (event == HD_SESSION_ENDED)
        hd_timer_stop(c->loop, &st->report);
    else if (mc->report_ms > 0)
        hd_timer_set(c->loop, &st->report, mc->report_ms);
}
