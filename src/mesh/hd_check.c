#include "mesh/hd_check.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/loom/hd_series.h"
#include "core/os/hd_os.h"
#include "core/proc/hd_process.h"
#include "core/hd_call.h"
#include "core/hd_grpc.h"
#include "http/hd_headers.h"
#include "mesh/hd_endpoint_state.h"
#include "mesh/hd_outlier.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define ANSWER_BYTES_MAX 16384 /* looked at for <receive> */

/* One endpoint under one check; found again by cluster, number of the check and address
 * after each batch. */
typedef struct {
    hd_str_t key; /* its own */
    const hd_slot_t *slot;
    hd_addr_t addr;
    uint32_t number; /* of the check among its cluster's */
    hd_timer_t timer;
    uint32_t good, bad; /* in a row */
    bool is_wanted, is_known;
    /* the check under way */
    hd_call_t *call;
    hd_conn_t *conn; /* TCP's */
    hd_cluster_t cluster;
    hd_fixed_pick_t fixed;
    const hd_region_t *region; /* pinned */
    unsigned status;
    bool is_mismatch; /* of its head */
    uint32_t grpc_status;
    char *answer;
    size_t answer_len;
    hd_timer_t deadline; /* TCP's */
} target_t;

/* What a target is about now; within the turn. */
typedef struct {
    const hd_region_t *region;
    const hd_cluster_t *cluster;
    const hd_check_conf_t *check;
    const hd_endpoints_t *eps;
    const hd_endpoint_t *endpoint;
} view_t;

static struct {
    hd_proc_t *proc;
    hd_map_t *targets;
} checker;

static bool is_checked(const hd_endpoint_t *e)
{
    const hd_endpoint_check_t *own = hd_endpoint_more(e)->check;

    return own == NULL || !own->is_unchecked;
}

/* What the check of that number says. */
static hd_checked_t state_of(uint32_t word, uint32_t number)
{
    return (hd_checked_t)(word >> 2 * number & 3);
}

static bool starts_down(const hd_check_conf_t *k, const hd_endpoint_t *e)
{
    return k->starts_down && (k->since_ns == 0 ||
                              atomic_load_explicit(&e->state->warm_since_ns,
                                                   memory_order_relaxed) >= k->since_ns);
}

bool hd_check_may_serve(const hd_cluster_t *c, const hd_endpoint_t *e)
{
    uint32_t word;

    if (c->check == NULL || e->state == NULL || !is_checked(e))
        return true;
    word = atomic_load_explicit(&e->state->health, memory_order_relaxed);
    for (const hd_check_conf_t *k = c->check; k != NULL; k = k->next, word >>= 2) {
        hd_checked_t state = state_of(word, 0);

        if (state != HD_CHECK_HEALTHY && !(state == HD_CHECK_NONE && !starts_down(k, e)))
            return false;
    }
    return true;
}

/* The check of that number; NULL: there are fewer. */
static const hd_check_conf_t *find_check(const hd_cluster_t *c, uint32_t number)
{
    const hd_check_conf_t *k = c->check;

    while (k != NULL && number-- > 0)
        k = k->next;
    return k;
}

static bool look(const target_t *t, view_t *v)
{
    hd_member_t *m = checker.proc->member;
    const hd_region_t *eps;

    v->region = hd_slot_get(m, t->slot);
    v->cluster = v->region != NULL ? v->region->root : NULL;
    v->check = v->cluster != NULL ? find_check(v->cluster, t->number) : NULL;
    if (v->check == NULL)
        return false;
    eps = hd_cluster_endpoints(m, v->cluster);
    if (eps == NULL)
        return false;
    v->eps = eps->root;
    for (uint32_t i = 0; i < v->eps->n; i++) {
        v->endpoint = &v->eps->items[i];
        if (v->endpoint->state != NULL && hd_addr_eq(&v->endpoint->addr, &t->addr))
            return true;
    }
    return false;
}

/* --- when next --- */

static uint32_t random_below(uint32_t n)
{
    uint32_t r;

    hd_os_random(&r, sizeof(r));
    return n > 0 ? r % n : 0;
}

static uint32_t or_else(uint32_t ms, uint32_t otherwise)
{
    return ms > 0 ? ms : otherwise;
}

static uint32_t interval_of(const view_t *v, bool is_healthy, bool has_changed)
{
    const hd_check_conf_t *k = v->check;
    bool is_used = v->eps->state == NULL || atomic_load(&v->eps->state->is_used);
    uint32_t usual = k->interval_ms;

    if (!is_used && k->no_traffic_ms > 0)
        return is_healthy ? or_else(k->no_traffic_healthy_ms, k->no_traffic_ms)
                          : k->no_traffic_ms;
    if (is_healthy)
        return has_changed ? or_else(k->healthy_edge_ms, usual) : usual;
    usual = or_else(k->unhealthy_ms, usual);
    return has_changed ? or_else(k->unhealthy_edge_ms, usual) : usual;
}

static void set_next(target_t *t, const view_t *v, bool is_healthy, bool has_changed)
{
    const hd_check_conf_t *k = v->check;
    uint64_t ms = interval_of(v, is_healthy, has_changed);

    ms += random_below(k->jitter_ms + 1) +
          random_below((uint32_t)hd_min(ms * k->jitter_percent / 100 + 1, UINT32_MAX));
    hd_timer_set(checker.proc->loop, &t->timer, ms);
}

/* --- results --- */

static void count(const hd_cluster_t *c, const char *outcome)
{
    static const char *const labels[] = {"cluster", "outcome", NULL};
    static const hd_family_t family = {.name = "heddle_health_checks_total",
                                       .help = "Active health checks, by outcome.",
                                       .kind = HD_COUNTER,
                                       .labels = labels};
    const hd_str_t values[] = {c->name, hd_str_c(outcome)};
    hd_member_t *m = checker.proc->member;

    hd_counter_add(m, hd_series_enter(m, hd_family_enter(m, &family), values), 1);
}

/* All say that it is well, or one says that it isn't; NONE: neither yet. */
static hd_checked_t sum_up(const hd_cluster_t *c, uint32_t word)
{
    hd_checked_t sum = HD_CHECK_HEALTHY;

    for (const hd_check_conf_t *k = c->check; k != NULL; k = k->next, word >>= 2) {
        if (state_of(word, 0) == HD_CHECK_UNHEALTHY)
            return HD_CHECK_UNHEALTHY;
        if (state_of(word, 0) == HD_CHECK_NONE)
            sum = HD_CHECK_NONE;
    }
    return sum;
}

static void change(const target_t *t, const view_t *v, hd_checked_t to, const char *why)
{
    _Atomic uint32_t *health = &v->endpoint->state->health;
    uint32_t word = atomic_load_explicit(health, memory_order_relaxed);
    hd_checked_t before = sum_up(v->cluster, word);
    char text[HD_ADDR_TEXT_MAX];

    word = (word & ~(3u << 2 * t->number)) | (uint32_t)to << 2 * t->number;
    atomic_store_explicit(health, word, memory_order_release);
    hd_endpoint_health_changed(v->endpoint);
    to = sum_up(v->cluster, word);
    if (to == before || to == HD_CHECK_NONE)
        return; /* another one decides */
    if (to == HD_CHECK_UNHEALTHY && v->cluster->closes_failed)
        hd_process_ring(checker.proc); /* its conns are drained now */
    hd_log(to == HD_CHECK_HEALTHY ? HD_LOG_NOTICE : HD_LOG_WARN,
           "upstream \"%.*s\": server %.*s is %s: %s", HD_STR_ARG(v->cluster->name),
           HD_STR_ARG(hd_addr_print(&v->endpoint->addr, text)),
           to == HD_CHECK_HEALTHY ? "healthy" : "unhealthy", why);
}

static void finish_check(target_t *t)
{
    if (t->region != NULL)
        hd_unpin(checker.proc->member, t->region);
    t->region = NULL;
    free(t->answer);
    t->answer = NULL;
    t->answer_len = 0;
    t->status = 0;
    t->is_mismatch = false;
    t->grpc_status = HD_GRPC_NO_STATUS;
}

static void tell_each(const view_t *v, bool is_good, const char *why)
{
    const hd_check_conf_t *k = v->check;
    char text[HD_ADDR_TEXT_MAX];

    count(v->cluster, is_good ? "success" : "failure");
    if (is_good ? k->log_successes : k->log_failures)
        hd_log(HD_LOG_NOTICE, "upstream \"%.*s\": health check of %.*s: %s",
               HD_STR_ARG(v->cluster->name),
               HD_STR_ARG(hd_addr_print(&v->endpoint->addr, text)), why);
}

/* <is_final>: a failure that needs no others. */
static void take_result(target_t *t, bool is_good, bool is_final, const char *why)
{
    hd_checked_t now;
    bool is_first, has_changed = false;
    view_t v;

    finish_check(t);
    if (!look(t, &v)) /* gone meanwhile; the next refresh ends it */
        return;
    tell_each(&v, is_good, why);
    t->good = is_good ? t->good + 1 : 0;
    t->bad = is_good ? 0 : t->bad + 1;
    now = state_of(atomic_load(&v.endpoint->state->health), t->number);
    is_first = !t->is_known && now == HD_CHECK_NONE;
    t->is_known = true;
    if (is_good && now != HD_CHECK_HEALTHY &&
        (is_first || t->good >= v.check->healthy_threshold)) {
        change(t, &v, HD_CHECK_HEALTHY, why);
        has_changed = true;
    } else if (!is_good && now != HD_CHECK_UNHEALTHY &&
               (is_final || (is_first && v.check->starts_down) ||
                t->bad >= v.check->unhealthy_threshold)) {
        change(t, &v, HD_CHECK_UNHEALTHY, why);
        has_changed = true;
    }
    if (is_good && hd_check_may_serve(v.cluster, v.endpoint))
        hd_outlier_checked(checker.proc->member, v.cluster, v.eps, v.endpoint);
    now = state_of(atomic_load(&v.endpoint->state->health), t->number);
    set_next(t, &v, now != HD_CHECK_UNHEALTHY, has_changed);
}

/* Each of them after the one before it. */
static bool has_all(const hd_check_conf_t *k, const char *bytes, size_t len)
{
    const char *at = bytes, *end = bytes + len;

    for (uint32_t i = 0; i < k->receive_n; i++) {
        const char *found = at == NULL ? NULL
                                       : memmem(at, (size_t)(end - at),
                                                k->receive[i].data, k->receive[i].len);

        if (found == NULL)
            return false;
        at = found + k->receive[i].len;
    }
    return true;
}

static void keep_answer(target_t *t, const void *bytes, size_t len)
{
    len = hd_min(len, ANSWER_BYTES_MAX - t->answer_len);
    if (t->answer == NULL)
        t->answer = malloc(ANSWER_BYTES_MAX);
    hd_bug_on(t->answer == NULL);
    memcpy(t->answer + t->answer_len, bytes, len);
    t->answer_len += len;
}

/* --- HTTP and gRPC --- */

/* <r>: the region that <p> lies in. */
static bool fits(const hd_region_t *r, const hd_match_t *p, hd_str_t s)
{
    return hd_match(checker.proc->member, r, p, s, NULL);
}

/* Inverted: no field of that name fits; else: one does. */
static bool has_field(const target_t *t, const hd_headers_t *headers,
                      const hd_check_field_t *wanted)
{
    const hd_match_t *p = &wanted->value;
    const hd_field_t *f = hd_headers_find(headers, wanted->name);

    for (; f != NULL; f = hd_headers_find_next(headers, f)) {
        if (p->kind == HD_MATCH_ANY || fits(t->region, p, f->value) != p->invert)
            return !p->invert;
    }
    return p->invert;
}

static void on_head(hd_call_t *call, unsigned status, const hd_headers_t *headers)
{
    target_t *t = hd_call_arg(call);
    const hd_field_t *f = hd_headers_get(headers, HD_H_GRPC_STATUS);
    const hd_check_conf_t *k = find_check(&t->cluster, t->number);
    uint64_t n;

    t->status = status;
    for (uint32_t i = 0; i < k->fields_n && !t->is_mismatch; i++)
        t->is_mismatch = !has_field(t, headers, &k->fields[i]);
    if (f != NULL && hd_str_to_u64(f->value, 1000, &n)) /* trailers only */
        t->grpc_status = (uint32_t)n;
}

static void on_body(hd_call_t *call, hd_chain_t *body)
{
    target_t *t = hd_call_arg(call);
    char bytes[4096];

    while (body->bytes > 0) {
        size_t n = hd_chain_peek(body, bytes, sizeof(bytes));

        keep_answer(t, bytes, n);
        hd_chain_drop(body, n);
    }
}

static bool is_expected(const target_t *t, const view_t *v)
{
    const hd_check_conf_t *k = v->check;

    return has_all(k, t->answer, t->answer_len) &&
           (k->body == NULL ||
            fits(v->region, k->body, hd_str_n(t->answer, t->answer_len)));
}

static bool is_in(const hd_status_range_t *ranges, uint32_t n, unsigned status)
{
    for (uint32_t i = 0; i < n; i++) {
        if (status >= ranges[i].from && status <= ranges[i].to)
            return true;
    }
    return false;
}

static void judge_http(target_t *t, const view_t *v)
{
    const hd_check_conf_t *k = v->check;
    bool is_good = k->expected_n == 0
                       ? t->status == 200
                       : is_in(k->expected, k->expected_n, t->status) != k->is_unexpected;
    bool is_final = !is_in(k->retriable, k->retriable_n, t->status);
    char why[64];

    snprintf(why, sizeof(why), "status %u", t->status);
    if (!is_good)
        take_result(t, false, is_final, why);
    else if (t->is_mismatch)
        take_result(t, false, is_final, "the response's head isn't as expected");
    else if (!is_expected(t, v))
        take_result(t, false, is_final, "the response isn't as expected");
    else
        take_result(t, true, false, why);
}

/* grpc.health.v1.HealthCheckResponse{status = 1}: SERVING is 1. */
static void judge_grpc(target_t *t, const view_t *v)
{
    const hd_check_conf_t *k = v->check;
    static const unsigned char serving[] = {0, 0, 0, 0, 2, 0x08, 1};
    char why[64];

    if (t->status != 200)
        snprintf(why, sizeof(why), "status %u", t->status);
    else if (t->grpc_status != 0)
        snprintf(why, sizeof(why), "gRPC status %u", t->grpc_status);
    else
        snprintf(why, sizeof(why), "%s",
                 t->answer_len == sizeof(serving) &&
                         memcmp(t->answer, serving, sizeof(serving)) == 0
                     ? "SERVING"
                     : "not SERVING");
    take_result(t, strcmp(why, "SERVING") == 0,
                !is_in(k->retriable, k->retriable_n, t->status), why);
}

static void on_end(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *err)
{
    target_t *t = hd_call_arg(call);
    const hd_field_t *f =
        trailers != NULL ? hd_headers_get(trailers, HD_H_GRPC_STATUS) : NULL;
    char why[HD_ERR_TEXT_MAX];
    uint64_t n;
    view_t v;

    t->call = NULL;
    if (f != NULL && hd_str_to_u64(f->value, 1000, &n))
        t->grpc_status = (uint32_t)n;
    if (err != NULL) {
        snprintf(why, sizeof(why), "%s", err->text);
        take_result(t, false, false, why);
    } else if (!look(t, &v)) {
        finish_check(t);
    } else if (v.check->kind == HD_CHECK_GRPC) {
        judge_grpc(t, &v);
    } else {
        judge_http(t, &v);
    }
}

static const hd_call_user_t call_user = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

/* HealthCheckRequest{service = 1}, framed. */
static bool add_grpc_request(hd_chain_t *body, hd_str_t service)
{
    uint8_t bytes[2 + 127];
    size_t len = 0;

    if (service.len > 0) { /* at most 127: checked when it was configured */
        bytes[0] = 1 << 3 | 2;
        bytes[1] = (uint8_t)service.len;
        memcpy(bytes + 2, service.data, service.len);
        len = 2 + service.len;
    }
    return hd_grpc_try_add_message(body, bytes, len);
}

/* Where the check goes: the endpoint may say, else the check does. */
static hd_addr_t addr_of(const view_t *v)
{
    const hd_endpoint_check_t *own = hd_endpoint_more(v->endpoint)->check;
    bool has_addr = own != NULL && own->addr.family != AF_UNSPEC;
    hd_addr_t addr = has_addr ? own->addr : v->endpoint->addr;
    uint16_t port = own != NULL && own->port != 0 ? own->port
                    : has_addr                    ? 0
                                                  : v->check->port;

    if (port != 0 && addr.family != AF_UNIX)
        addr.port = port;
    return addr;
}

static const hd_tls_conf_t *tls_of(const view_t *v)
{
    const hd_check_conf_t *k = v->check;
    hd_endpoint_more_t more = *hd_endpoint_more(v->endpoint);
    hd_endpoint_t like = *v->endpoint;

    if (k->transport_match_n > 0) {
        more.transport_match = k->transport_match;
        more.transport_match_n = k->transport_match_n;
        like.more = &more;
    }
    return hd_balancer->tls_of(v->cluster, &like);
}

static hd_str_t host_of(const view_t *v)
{
    const hd_endpoint_check_t *own = hd_endpoint_more(v->endpoint)->check;

    if (own != NULL && own->host.len > 0)
        return own->host;
    if (v->check->host.len > 0)
        return v->check->host;
    return v->endpoint->hostname.len > 0 ? v->endpoint->hostname : v->cluster->name;
}

/* The cluster as it is for checks: without limits, with connections of its own. */
static void fix_pick(target_t *t, const view_t *v)
{
    const hd_check_conf_t *k = v->check;

    t->cluster = *v->cluster;
    t->cluster.max_conns = t->cluster.max_pending = t->cluster.max_requests =
        t->cluster.max_retries = t->cluster.max_pools = HD_GAUGE_NO_LIMIT;
    t->cluster.high = NULL;
    t->cluster.requests_per_conn = k->reuse ? 0 : 1;
    t->cluster.connect_timeout_ms = k->timeout_ms;
    t->cluster.keepalive = UINT32_MAX;
    t->fixed = (hd_fixed_pick_t){.cluster = &t->cluster,
                                 .endpoint = v->endpoint,
                                 .addr = addr_of(v),
                                 .tls = tls_of(v)};
    t->region = v->region;
    hd_pin(checker.proc->member, t->region);
}

/* The check's fields behind those that make a request gRPC's (servers refuse others);
 * the caller's to free. */
static hd_kv_t *grpc_headers(const hd_check_conf_t *k, uint32_t *n)
{
    static const hd_kv_t own[] = {
        {HD_STR_INIT("content-type"), HD_STR_INIT("application/grpc")},
        {HD_STR_INIT("te"), HD_STR_INIT("trailers")},
    };
    hd_kv_t *all = malloc((hd_countof(own) + k->headers_n) * sizeof(*all));

    hd_bug_on(all == NULL);
    memcpy(all, own, sizeof(own));
    for (uint32_t i = 0; i < k->headers_n; i++)
        all[hd_countof(own) + i] = k->headers[i];
    *n = hd_countof(own) + k->headers_n;
    return all;
}

static void start_call(target_t *t, const view_t *v)
{
    const hd_check_conf_t *k = v->check;
    hd_kv_t *headers = NULL;
    bool is_grpc = k->kind == HD_CHECK_GRPC;
    hd_call_spec_t spec = {
        .cluster = t->slot,
        .fixed = &t->fixed,
        .method = is_grpc ? HD_STR("POST") : k->method,
        .path = is_grpc ? HD_STR("/grpc.health.v1.Health/Check") : k->path,
        .authority = host_of(v),
        .scheme = t->fixed.tls != NULL ? HD_STR("https") : HD_STR("http"),
        .headers = k->headers,
        .headers_n = k->headers_n,
        .timeout_ms = k->timeout_ms,
        .protocol = k->is_h2 || is_grpc ? HD_UP_HTTP2 : HD_UP_HTTP1,
    };
    hd_chain_t body;
    hd_err_t err = {0};

    if (is_grpc)
        spec.headers = headers = grpc_headers(k, &spec.headers_n);
    t->call = hd_call_start(checker.proc->loop, checker.proc->member, &spec, &call_user,
                            t, &err);
    free(headers);
    if (t->call == NULL) {
        take_result(t, false, false, err.text);
        return;
    }
    hd_chain_init(&body);
    if (is_grpc && !add_grpc_request(&body, k->service))
        hd_log(HD_LOG_ERROR, "health check: no memory");
    hd_chain_set_flags(&body, HD_SLICE_END);
    hd_call_send(t->call, &body);
}

/* --- TCP --- */

static void end_tcp(target_t *t, bool is_good, const char *why)
{
    hd_conn_t *c = t->conn;

    t->conn = NULL;
    hd_timer_stop(checker.proc->loop, &t->deadline);
    take_result(t, is_good, false, why);
    hd_conn_reset(c);
}

static void on_tcp_open(hd_conn_t *c)
{
    target_t *t = c->owner;
    view_t v;

    if (!look(t, &v) || v.check->kind != HD_CHECK_TCP) {
        end_tcp(t, false, "the check has changed");
        return;
    }
    if (v.check->send.len > 0 &&
        !hd_conn_try_send_copy(c, v.check->send.data, v.check->send.len))
        end_tcp(t, false, "no memory");
    else if (v.check->receive_n == 0 && v.check->body == NULL)
        end_tcp(t, true, "connected");
}

static void on_tcp_readable(hd_conn_t *c)
{
    target_t *t = c->owner;
    char bytes[4096];
    ssize_t n = HD_IO_AGAIN;
    view_t v;

    /* One who never stops to talk isn't listened to for ever. */
    while (t->answer_len < ANSWER_BYTES_MAX &&
           (n = hd_conn_read(c, bytes, sizeof(bytes))) > 0)
        keep_answer(t, bytes, (size_t)n);
    if (!look(t, &v) || v.check->kind != HD_CHECK_TCP)
        end_tcp(t, false, "the check has changed");
    else if (is_expected(t, &v))
        end_tcp(t, true, "the answer is as expected");
    else if (n == 0 || n == HD_IO_ERROR || t->answer_len == ANSWER_BYTES_MAX)
        end_tcp(t, false, "the answer isn't as expected");
}

static void on_tcp_closed(hd_conn_t *c)
{
    char why[HD_ERR_TEXT_MAX];

    snprintf(why, sizeof(why), "%s", c->err != NULL ? c->err->text : "closed");
    end_tcp(c->owner, false, why);
}

static void on_tcp_writable(hd_conn_t *c)
{
    (void)c;
}

static const hd_conn_handler_t tcp_handler = {.on_open = on_tcp_open,
                                              .on_readable = on_tcp_readable,
                                              .on_writable = on_tcp_writable,
                                              .on_closed = on_tcp_closed};

static void on_tcp_deadline(hd_timer_t *timer)
{
    end_tcp(hd_container_of(timer, target_t, deadline), false, "timed out");
}

static void start_tcp(target_t *t, const view_t *v)
{
    hd_socket_spec_t spec = {.bind = *hd_cluster_bind(v->cluster, t->fixed.addr.family),
                             .family = t->fixed.addr.family,
                             .type = SOCK_STREAM,
                             .nodelay = t->fixed.addr.family != AF_UNIX};
    hd_tls_client_t ask = {0};
    hd_err_t err = {0};

    t->conn = hd_conn_connect(checker.proc->loop, &t->fixed.addr, &spec, 0, &tcp_handler,
                              t, &err);
    if (t->conn == NULL) {
        take_result(t, false, false, err.text);
        return;
    }
    hd_timer_set(checker.proc->loop, &t->deadline, v->check->timeout_ms);
    if (t->fixed.tls != NULL && t->fixed.tls->sni_by_endpoint &&
        t->fixed.endpoint != NULL)
        ask.sni = t->fixed.endpoint->hostname;
    if (t->fixed.tls != NULL &&
        hd_tls_push_client(t->conn, t->fixed.tls, &ask, &err) != HD_OK)
        end_tcp(t, false, err.text);
}

/* --- targets --- */

static void on_due(hd_timer_t *timer)
{
    target_t *t = hd_container_of(timer, target_t, timer);
    view_t v;

    if (t->call != NULL || t->conn != NULL || !look(t, &v))
        return;
    fix_pick(t, &v);
    if (v.check->kind == HD_CHECK_TCP)
        start_tcp(t, &v);
    else
        start_call(t, &v);
}

static void end_target(target_t *t)
{
    hd_timer_stop(checker.proc->loop, &t->timer);
    hd_timer_stop(checker.proc->loop, &t->deadline);
    if (t->call != NULL)
        hd_call_cancel(t->call);
    if (t->conn != NULL)
        hd_conn_reset(t->conn);
    finish_check(t);
    hd_slot_let_go(checker.proc->member, t->slot);
    free((char *)t->key.data);
    free(t);
}

static hd_str_t key_of(const hd_slot_t *slot, uint32_t number, const hd_addr_t *addr,
                       char *room, size_t n)
{
    char text[HD_ADDR_TEXT_MAX];
    hd_str_t a = hd_addr_print(addr, text);

    return hd_str_n(room, hd_min((size_t)snprintf(room, n, "%u %u %u %.*s", slot->arena,
                                                  slot->id, number, HD_STR_ARG(a)),
                                 n - 1));
}

static void want_target(const hd_slot_t *slot, const hd_check_conf_t *k, uint32_t number,
                        const hd_endpoint_t *e)
{
    char room[HD_ADDR_TEXT_MAX + 40];
    hd_str_t key = key_of(slot, number, &e->addr, room, sizeof(room));
    target_t *t = hd_map_get(checker.targets, key);

    if (t == NULL) {
        t = calloc(1, sizeof(*t));
        hd_bug_on(t == NULL);
        t->key = hd_str_n(strndup(key.data, key.len), key.len);
        t->slot = slot;
        hd_slot_hold(checker.proc->member, slot);
        t->addr = e->addr;
        t->number = number;
        if (e->addr.family == AF_UNIX) /* the slot's name holds no path; the key does */
            t->addr.path = hd_str_n(strstr(t->key.data, "unix:") + 5, e->addr.path.len);
        t->grpc_status = HD_GRPC_NO_STATUS;
        hd_timer_init(&t->timer, on_due);
        hd_timer_init(&t->deadline, on_tcp_deadline);
        hd_ignore(hd_map_put(checker.targets, t->key, t) == NULL);
        hd_timer_set(checker.proc->loop, &t->timer,
                     random_below(k->initial_jitter_ms + 1));
    }
    t->is_wanted = true;
}

static void want_cluster(const hd_slot_t *slot, const hd_region_t *r)
{
    hd_member_t *m = checker.proc->member;
    const hd_cluster_t *c = r->root;
    const hd_endpoints_t *eps;

    r = c->check != NULL ? hd_cluster_endpoints(m, c) : NULL;
    eps = r != NULL ? r->root : NULL;
    for (uint32_t i = 0; eps != NULL && i < eps->n; i++) {
        uint32_t number = 0;

        if (eps->items[i].state == NULL || eps->items[i].down ||
            !is_checked(&eps->items[i]))
            continue;
        for (const hd_check_conf_t *k = c->check; k != NULL; k = k->next)
            want_target(slot, k, number++, &eps->items[i]);
    }
}

static void end_unwanted(void)
{
    hd_str_t key;
    size_t at = 0;
    void *value;

    while (hd_map_next(checker.targets, &at, &key, &value)) {
        target_t *t = value;

        if (t->is_wanted)
            continue;
        hd_ignore(hd_map_remove(checker.targets, key) == NULL);
        end_target(t);
    }
}

void hd_check_refresh(hd_proc_t *p)
{
    size_t at = 0;
    void *value;

    checker.proc = p;
    if (checker.targets == NULL)
        checker.targets = hd_map_create();
    while (hd_map_next(checker.targets, &at, NULL, &value))
        ((target_t *)value)->is_wanted = false;
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        const hd_slot_t *slot = NULL;

        while (p->arenas[i] != NULL &&
               (slot = hd_slot_next(p->arenas[i], slot)) != NULL) {
            const hd_region_t *r =
                slot->type == HD_RES_CLUSTER ? hd_slot_get(p->member, slot) : NULL;

            if (r != NULL)
                want_cluster(slot, r);
        }
    }
    end_unwanted();
}

static bool is_waited_for(const hd_check_conf_t *k, const hd_endpoint_t *e)
{
    uint32_t word;

    if (e->state == NULL || e->down || !is_checked(e))
        return false;
    word = atomic_load_explicit(&e->state->health, memory_order_relaxed);
    for (; k != NULL; k = k->next, word >>= 2) {
        if (state_of(word, 0) == HD_CHECK_NONE && starts_down(k, e) && !k->no_wait)
            return true;
    }
    return false;
}

static bool is_warm(hd_member_t *m, const hd_cluster_t *c)
{
    const hd_region_t *r = c->check != NULL ? hd_cluster_endpoints(m, c) : NULL;
    const hd_endpoints_t *eps = r != NULL ? r->root : NULL;

    for (uint32_t i = 0; eps != NULL && i < eps->n; i++) {
        if (is_waited_for(c->check, &eps->items[i]))
            return false;
    }
    return true;
}

bool hd_checks_are_warm(hd_proc_t *p)
{
    for (int i = 0; i < HD_ARENAS_MAX; i++) {
        const hd_slot_t *slot = NULL;

        while (p->arenas[i] != NULL &&
               (slot = hd_slot_next(p->arenas[i], slot)) != NULL) {
            const hd_region_t *r =
                slot->type == HD_RES_CLUSTER ? hd_slot_get(p->member, slot) : NULL;

            if (r != NULL && !is_warm(p->member, r->root))
                return false;
        }
    }
    return true;
}

void hd_check_stop(hd_proc_t *p)
{
    size_t at = 0;
    void *value;

    (void)p;
    if (checker.targets == NULL)
        return;
    while (hd_map_next(checker.targets, &at, NULL, &value))
        ((target_t *)value)->is_wanted = false;
    end_unwanted();
    hd_map_destroy(checker.targets);
    checker.targets = NULL;
}
