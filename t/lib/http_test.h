/* http_test: a request engine on a bench: a loop with a clock of its own, a loom with one
 * listener, route and cluster, a client that records what it is given, modules made of
 * plain functions, a balancer that says what the test wants, and upstreams that are
 * sockets of the test. */
#pragma once
#include "core/conf/hd_module_table.h"
#include "core/loom/hd_batch.h"
#include "core/os/hd_clock.h"
#include "http/hd_codec.h"
#include "http/hd_http.h"
#include "http/hd_try.h"
#include "loom_test.h"
#include "nettest.h"

static hd_err_t err;
static hd_loop_t *loop;
static hd_member_t *member;
static hd_state_t *state;
static hd_arena_t *arena;
static hd_slot_t *listener_slot, *cluster_slot;
static uint64_t now_ns = 1000000000;

/* In regions, but writable for us, their writer: each test sets what it needs. */
static hd_http_conf_t *http;
static hd_filter_chain_t *filter_chain;
static hd_http_loc_t *loc;
static hd_route_t *route;
static hd_route_match_t *route_match;
static hd_proxy_conf_t *proxy;
static hd_weighted_t *target;
static hd_cluster_t *cluster;

TAP_UNUSED static uint64_t test_clock(void)
{
    return now_ns;
}

/* Time passes, and what is due happens. */
TAP_UNUSED static void tick(uint64_t ms)
{
    now_ns += ms * 1000000;
    hd_loop_turn(loop, 0);
    hd_loop_turn(loop, 0);
}

/* --- the client --- */

typedef struct {
    hd_req_t *req;   /* NULL: finished or gone */
    hd_conn_t *conn; /* given up for a tunnel */
    char seen[512];  /* "head 200;body 5;end;finished;" */
    char body[65536];
    size_t body_n;
    unsigned status;
    char fields[1024]; /* "name: value\n" */
    bool is_full, has_trailers;
    unsigned wanted, started;
} client_t;

static client_t client;

TAP_UNUSED __attribute__((format(printf, 2, 3))) static void note(client_t *c,
                                                                  const char *fmt, ...)
{
    size_t n = strlen(c->seen);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->seen + n, sizeof(c->seen) - n, fmt, ap);
    va_end(ap);
}

static void client_send_head(hd_req_t *req, bool is_interim)
{
    client_t *c = req->client_state;
    size_t n = 0;

    note(c, "%s %u;", is_interim ? "interim" : "head", req->res.status);
    if (is_interim)
        return;
    c->status = req->res.status;
    for (unsigned i = 0; i < req->res.headers.n; i++) {
        const hd_field_t *f = &req->res.headers.fields[i];

        if ((f->flags & (HD_FIELD_REMOVED | HD_FIELD_HOP)) == 0 && n < sizeof(c->fields))
            n += (size_t)snprintf(c->fields + n, sizeof(c->fields) - n, "%.*s: %.*s\n",
                                  HD_STR_ARG(f->name), HD_STR_ARG(f->value));
    }
}

static void client_send_body(hd_req_t *req, hd_chain_t *body)
{
    client_t *c = req->client_state;
    unsigned flags = hd_chain_flags(body);

    if (body->bytes > 0) {
        if (c->body_n < sizeof(c->body))
            hd_chain_peek(body, c->body + c->body_n, sizeof(c->body) - c->body_n);
        c->body_n += body->bytes;
    }
    c->has_trailers |= (flags & HD_SLICE_TRAILERS) != 0;
    if (flags & HD_SLICE_END)
        note(c, "end;");
    hd_chain_free(body);
}

static bool client_is_full(hd_req_t *req)
{
    return ((client_t *)req->client_state)->is_full;
}

static void client_want_body(hd_req_t *req)
{
    ((client_t *)req->client_state)->wanted++;
}

static void client_abort(hd_req_t *req, uint32_t h2_error)
{
    (void)h2_error;
    note(req->client_state, "abort;");
}

/* After an upgrade: one end of a pipe; the test has the other. */
static hd_conn_t *client_take_conn(hd_req_t *req)
{
    client_t *c = req->client_state;

    note(c, "taken;");
    c->req = NULL;
    return c->conn;
}

static void client_finished(hd_req_t *req)
{
    client_t *c = req->client_state;

    note(c, "finished;");
    c->req = NULL;
}

TAP_UNUSED static const hd_client_ops_t client_ops = {
    .name = "test",
    .send_head = client_send_head,
    .send_body = client_send_body,
    .is_full = client_is_full,
    .want_body = client_want_body,
    .abort = client_abort,
    .on_finished = client_finished,
    .take_conn = client_take_conn,
};

TAP_UNUSED static const hd_http_entry_t *test_entry(void)
{
    static hd_http_entry_t entry;

    entry.listener = listener_slot;
    entry.region = hd_slot_get(member, listener_slot);
    entry.chain = filter_chain;
    return &entry;
}

/* A request, not started. */
TAP_UNUSED static hd_req_t *new_request(const char *method, const char *path)
{
    hd_req_t *req;

    memset(&client, 0, sizeof(client));
    req = hd_request_create(NULL, loop, member, &client_ops, &client);
    client.req = req;
    req->head.method = hd_str_c(method);
    req->head.method_id = hd_http_method_id(req->head.method);
    req->head.scheme = HD_STR("http");
    req->head.authority = HD_STR("example.org");
    req->head.raw_path = hd_str_c(path);
    hd_ignore(hd_http_take_path(req, http) != HD_OK);
    req->head.version = HD_HTTP_11;
    req->head.keep_alive = true;
    hd_headers_init(&req->head.headers, req->pool, 16);
    return req;
}

TAP_UNUSED static hd_req_t *start_request(const char *method, const char *path)
{
    hd_req_t *req = new_request(method, path);

    hd_request_start(req, test_entry());
    return req;
}

TAP_UNUSED static hd_req_t *start_with_body(const char *method, int64_t length)
{
    hd_req_t *req = new_request(method, "/up");

    req->head.has_body = true;
    req->head.content_length = length;
    hd_request_start(req, test_entry());
    return req;
}

TAP_UNUSED static void give(hd_req_t *req, const char *text, bool is_last)
{
    hd_chain_t body;

    hd_chain_init(&body);
    hd_bug_on(!hd_chain_try_add_copy(&body, text, strlen(text)));
    if (is_last)
        hd_chain_set_flags(&body, HD_SLICE_END);
    hd_request_give_body(req, &body);
}

/* Until the request is over, however it ends. */
#define finish_request() turn_until(loop, client.req == NULL)

/* --- modules --- */

TAP_UNUSED static uint16_t add_module(const hd_module_t *module)
{
    return hd_module_add(module);
}

/* --- the balancer --- */

static struct {
    hd_rc_t rc; /* of the next picks */
    hd_err_code_t code;
    hd_addr_t addrs[4]; /* in turn */
    unsigned picks, reports, releases;
    hd_pick_result_t last_result;
    unsigned last_status;
    hd_post_t *wake;
} lb;

static hd_rc_t test_pick(hd_member_t *m, hd_pick_t *p, hd_post_t *wake, hd_err_t *e)
{
    const hd_region_t *r;

    if (lb.rc == HD_AGAIN) {
        lb.wake = wake;
        return HD_AGAIN;
    }
    if (lb.rc != HD_OK)
        return hd_err_set(e, lb.code, "the balancer says no");
    r = hd_slot_get(m, p->cluster_slot);
    hd_pin(m, r);
    p->cluster_region = r;
    p->cluster = r->root;
    p->addr = lb.addrs[lb.picks % 4];
    lb.picks++;
    return HD_OK;
}

static void test_report(hd_member_t *m, hd_pick_t *p, hd_pick_result_t result,
                        unsigned status)
{
    (void)m, (void)result, (void)status;
    lb.reports += !p->is_reported;
    p->is_reported = true;
}

static void test_release(hd_member_t *m, hd_pick_t *p, hd_pick_result_t result,
                         unsigned status)
{
    hd_unpin(m, p->cluster_region);
    lb.releases++;
    lb.last_result = result;
    lb.last_status = status;
}

TAP_UNUSED static const hd_balancer_t test_balancer = {
    .pick = test_pick, .report = test_report, .release = test_release};

/* --- the upstream: a socket of the test --- */

static int up_listen_fd = -1;

TAP_UNUSED static void set_upstream(const hd_addr_t *addr)
{
    for (unsigned i = 0; i < hd_countof(lb.addrs); i++)
        lb.addrs[i] = *addr;
}

TAP_UNUSED static int up_accept(void)
{
    int fd = -1;

    fcntl(up_listen_fd, F_SETFL, O_NONBLOCK);
    while ((fd = accept(up_listen_fd, NULL, NULL)) < 0)
        hd_loop_turn(loop, 1);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* What came until <until> is in it; zero-terminated, in place until the next call. */
TAP_UNUSED static const char *up_read(int fd, const char *until)
{
    static char text[300000];
    size_t n = 0;

    text[0] = '\0';
    while (strstr(text, until) == NULL) {
        ssize_t got = recv(fd, text + n, sizeof(text) - 1 - n, 0);

        if (got > 0)
            text[n += (size_t)got] = '\0';
        else if (got == 0)
            break;
        else
            hd_loop_turn(loop, 1);
    }
    return text;
}

TAP_UNUSED static void up_write(int fd, const char *text)
{
    size_t len = strlen(text);

    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

        if (n > 0) {
            text += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            hd_loop_turn(loop, 1);
        } else {
            break;
        }
    }
}

/* --- the bench --- */

static hd_route_match_t *build_match(hd_pool_t *pool, const char *path,
                                     const hd_route_t *r)
{
    hd_route_match_t *rm = hd_pool_new(pool, hd_route_match_t);

    rm->path = (hd_match_t){.kind = HD_MATCH_PREFIX, .text = hd_str_c(path)};
    rm->path.text = hd_str_dup(pool, rm->path.text);
    rm->route = r;
    return rm;
}

static void build_listener(hd_batch_t *b)
{
    hd_pool_t *pool;
    hd_region_t *r;
    hd_routes_t *routes;
    hd_vhost_t *vhost;
    hd_matches_t *matches;
    hd_listener_t *l;

    r = hd_batch_region(b, HD_RES_LISTENER, HD_STR("test"), HD_STR("test:1"), 0, &pool,
                        &err);
    hd_bug_on(r == NULL);
    l = hd_pool_new(pool, hd_listener_t);
    http = hd_pool_new(pool, hd_http_conf_t);
    loc = hd_pool_new(pool, hd_http_loc_t);
    route = hd_pool_new(pool, hd_route_t);
    proxy = hd_pool_new(pool, hd_proxy_conf_t);
    target = hd_pool_new(pool, hd_weighted_t);
    routes = hd_pool_new(pool, hd_routes_t);
    vhost = hd_pool_new(pool, hd_vhost_t);
    matches = hd_pool_new(pool, hd_matches_t);
    route_match = build_match(pool, "/up", route);
    matches->items = route_match;
    matches->n = 1;
    vhost->name = hd_str_dup(pool, HD_STR("example.org"));
    vhost->router = HD_ROUTER_MATCHES;
    vhost->routes = matches;
    routes->default_vhost = routes->vhosts = vhost;
    routes->vhosts_n = 1;
    hd_bug_on(hd_routes_index(pool, routes, false, &err) != HD_OK);
    routes->default_vhost = vhost;
    http->inline_routes = routes;
    http->loc = loc;
    filter_chain = hd_pool_new(pool, hd_filter_chain_t);
    filter_chain->protocol = hd_http_protocol();
    filter_chain->protocol_conf = http;
    l->default_chain = filter_chain;
    l->name = hd_str_dup(pool, HD_STR("test"));
    hd_bug_on(hd_batch_put(b, listener_slot, r, l, 0, &err) != HD_OK);
}

static void build_cluster(hd_batch_t *b)
{
    hd_pool_t *pool;
    hd_region_t *r = hd_batch_region(b, HD_RES_CLUSTER, HD_STR("up"), HD_STR("test:2"), 0,
                                     &pool, &err);

    hd_bug_on(r == NULL);
    cluster = hd_pool_new(pool, hd_cluster_t);
    cluster->name = hd_str_dup(pool, HD_STR("up"));
    hd_bug_on(hd_batch_put(b, cluster_slot, r, cluster, 0, &err) != HD_OK);
}

/* What every test begins with. */
TAP_UNUSED static void reset_conf(void)
{
    *loc = hd_http_loc_defaults;
    loc->default_type = HD_STR("text/plain");
    http->filters = NULL;
    http->filters_n = 0;
    http->is_xds = false;
    route_match->connect_only = false;
    *target = (hd_weighted_t){
        .cluster = cluster_slot, .cluster_name = HD_STR("up"), .weight = 1};
    *proxy = (hd_proxy_conf_t){.targets = target,
                               .targets_n = 1,
                               .weights_total = 1,
                               .connect_timeout_ms = 5000,
                               .tries_max = 3};
    *route = (hd_route_t){.name = HD_STR("r"), .action = HD_ACT_PROXY, .proxy = proxy};
    *cluster = (hd_cluster_t){.name = HD_STR("up"),
                              .connect_timeout_ms = 5000,
                              .max_conns = UINT32_MAX,
                              .max_pools = UINT32_MAX,
                              .max_pending = UINT32_MAX,
                              .max_requests = UINT32_MAX,
                              .max_retries = UINT32_MAX,
                              .keepalive = 100};
    memset(&lb, 0, sizeof(lb));
    lb.rc = HD_OK;
}

TAP_UNUSED static void start_bench(void)
{
    hd_addr_t addr;
    hd_batch_t *b;

    hd_log_level = HD_LOG_ALERT;
    alarm(HANG_S);
    hd_http_register();
    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, 16 << 20);
    member = hd_member_start(state, -1, HD_MEMBER_WORKER, &err);
    hd_bug_on(member == NULL || hd_arena_open_writer(arena, member, &err) != HD_OK);
    hd_member_add_arena(member, arena);
    loop = hd_loop_create(member, 256, &err);
    hd_bug_on(loop == NULL);
    hd_loop_set_clock(loop, test_clock);
    hd_turn_begin(member);
    listener_slot = hd_slot_find_or_add(arena, HD_RES_LISTENER, HD_STR("test"), &err);
    cluster_slot = hd_slot_find_or_add(arena, HD_RES_CLUSTER, HD_STR("up"), &err);
    hd_bug_on(hd_slot_add_gauges(arena, cluster_slot, HD_CG_N, &err) != HD_OK);
    b = hd_batch_begin(arena);
    build_listener(b);
    build_cluster(b);
    hd_batch_publish(b, hd_clock_mono_ns());
    hd_balancer = &test_balancer;
    up_listen_fd = tcp_listen(&addr);
    reset_conf();
    set_upstream(&addr);
}

/* Nothing is left: requests, conns, gauges, blocks. */
TAP_UNUSED static void check_clean(const char *after)
{
    unsigned sum = 0;

    turn_some(loop);
    for (unsigned i = HD_CG_PENDING; i < HD_CG_N; i++)
        sum += hd_gauge_sum(state, cluster_slot->gauges_first + i);
    is_int(hd_requests_active(), 0, "%s: no request is left", after);
    is_int(sum, 0, "%s: no request, pending or retry is counted", after);
    is_int(lb.picks, lb.releases, "%s: every pick was released", after);
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS),
           hd_upool_conns(), "%s: conns are counted", after);
}

TAP_UNUSED static void end_bench(void)
{
    hd_upool_close_all(loop);
    turn_some(loop);
    is_int(hd_gauge_sum(state, cluster_slot->gauges_first + HD_CG_CONNS), 0,
           "no conn is counted at the end");
    is_int(hd_conns_open(loop), 0, "nor open");
    is_int(hd_blocks_in_use(), 0, "no block is in use");
    close(up_listen_fd);
    hd_loop_destroy(loop);
    hd_member_stop(member);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}
