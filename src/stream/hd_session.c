#include "stream/hd_session.h"
#include "core/base/hd_hashes.h"
#include "core/base/hd_log.h"
#include "core/conf/hd_module_table.h"
#include "core/net/hd_overload.h"
#include "core/os/hd_os.h"
#include "stream/hd_udp.h"

static _Thread_local size_t sessions_n;

size_t hd_tcp_sessions(void)
{
    return sessions_n;
}

hd_attr_of_t hd_session_attr_of(const hd_session_t *s)
{
    return (hd_attr_of_t){
        .conn = s->down, .pool = hd_conn_pool(s->down), .member = s->member};
}

/* --- telling modules --- */

static void tell(hd_session_t *s, hd_session_event_t event)
{
    const hd_filter_chain_t *chain = s->chain;

    for (uint32_t i = 0; i < chain->filters_n; i++) {
        const hd_module_t *m = hd_module_get(chain->filters[i].module);

        if (m != NULL && m->on_session != NULL)
            m->on_session(s->down, chain->filters[i].conf, event);
    }
}

static void log_error(const hd_session_t *s)
{
    char remote[HD_ADDR_TEXT_MAX];

    if (s->err.code == HD_E_NONE)
        return;
    hd_log_at(s->conf->error_log, s->err.code == HD_E_RESET ? HD_LOG_INFO : HD_LOG_ERROR,
              s->down->id, "%s, client: %.*s, upstream: \"%.*s\"", s->err.text,
              HD_STR_ARG(hd_addr_print_ip(hd_conn_remote(s->down), remote)),
              HD_STR_ARG(s->last_try != NULL ? s->last_try->addr : HD_STR_NONE));
}

/* --- letting go --- */

void hd_session_give_counts(hd_session_t *s, hd_conn_t *up)
{
    for (size_t i = 0; i < hd_countof(s->counted); i++) {
        hd_conn_count(up, s->member, s->counted[i]);
        s->counted[i] = HD_GAUGE_NONE;
    }
}

static void release_pick(hd_session_t *s, hd_pick_result_t result)
{
    hd_session_give_counts(s, NULL);
    if (s->last_try != NULL)
        s->pick.head_ns = s->last_try->first_byte_ns;
    if (s->is_picked)
        hd_balancer->release(s->member, &s->pick, result, 0);
    s->is_picked = false;
}

static void end_try(hd_session_t *s)
{
    if (s->last_try != NULL && s->last_try->end_ns == 0) {
        s->ops->count(s);
        s->last_try->end_ns = hd_loop_now_ns(s->loop);
    }
}

void hd_session_end(hd_session_t *s, hd_pick_result_t result)
{
    end_try(s);
    s->ops->count(s);
    if (s->status == 0)
        s->status = 200;
    tell(s, HD_SESSION_ENDED);
    log_error(s);
    release_pick(s, result);
    if (s->is_waiting)
        hd_resolving->stop(&s->wait);
    hd_post_cancel(&s->wake);
    if (s->held != NULL)
        hd_slot_let_go(s->member, s->held);
    s->held = NULL;
    hd_unpin(s->member, s->listener);
    sessions_n--;
}

void hd_session_fail(hd_session_t *s, hd_pick_result_t result)
{
    end_try(s);
    s->ops->drop_upstream(s);
    if (s->status == 0)
        s->status = 502;
    hd_session_end(s, result);
    s->ops->close(s);
}

/* --- one server --- */

static void add_try(hd_session_t *s)
{
    char text[HD_ADDR_TEXT_MAX];
    hd_session_try_t *t = hd_pool_new(hd_conn_pool(s->down), hd_session_try_t);

    t->addr = hd_str_dup(hd_conn_pool(s->down), hd_addr_print(&s->pick.addr, text));
    t->start_ns = hd_loop_now_ns(s->loop);
    if (s->last_try != NULL)
        s->last_try->next = t;
    else
        s->tries = t;
    s->last_try = t;
}

static void avoid(hd_session_t *s)
{
    if (s->attempts <= HD_SESSION_TRIED_MAX)
        s->tried[s->attempts - 1] = s->pick.addr;
}

hd_rc_t hd_session_set_bind(hd_session_t *s, hd_socket_spec_t *spec)
{
    hd_attr_of_t of = hd_session_attr_of(s);
    hd_str_t text;

    if (s->conf->bind == NULL)
        return HD_OK;
    spec->transparent = s->conf->transparent;
    if (hd_expr_eval_of(s->conf->bind, &of, &text) == HD_OK && text.len == 0)
        return HD_OK;
    return hd_addr_parse(of.pool, text, 0, &spec->bind, &s->err);
}

void hd_session_lose_try(hd_session_t *s, hd_pick_result_t result)
{
    end_try(s);
    s->ops->drop_upstream(s);
    hd_log_at(s->conf->error_log, HD_LOG_ERROR, s->down->id,
              "%s while connecting to upstream \"%.*s\"", s->err.text,
              HD_STR_ARG(s->last_try->addr));
    avoid(s);
    release_pick(s, hd_err_is_shortage(&s->err) ? HD_RESULT_CANCELLED : result);
    s->flags = "UF";
    hd_post(s->loop, &s->wake);
}

void hd_session_connected(hd_session_t *s)
{
    s->last_try->connected_ns = hd_loop_now_ns(s->loop);
    s->flags = NULL;
    if (!s->is_opened)
        tell(s, HD_SESSION_OPENED);
    s->is_opened = true;
}

/* A place among the endpoint's conns: conns that linger count, sessions that the
 * balancer counts don't. */
static bool try_count_endpoint(hd_session_t *s)
{
    const hd_endpoint_t *e = s->pick.endpoint;

    if (e == NULL || e->max_conns == 0 || e->state == NULL ||
        e->state->conns == HD_GAUGE_NONE)
        return true;
    if (!hd_gauge_try_up(s->member, e->state->conns, e->max_conns))
        return false;
    s->counted[1] = e->state->conns;
    return true;
}

/* --- choosing --- */

static uint64_t hash_source(const hd_conn_t *c)
{
    char text[HD_ADDR_TEXT_MAX];
    hd_str_t ip = hd_addr_print_ip(hd_conn_remote(c), text);

    return hd_xxh64(ip.data, ip.len, 0); /* as Envoy */
}

/* nginx and Envoy ask each server at most once. */
static bool may_try(const hd_session_t *s)
{
    const hd_region_t *r = hd_slot_get(s->member, s->target->cluster);
    const hd_cluster_t *c = r == NULL ? NULL : r->root;
    const hd_endpoints_t *eps;
    uint64_t time_ms = s->conf->tries_time_ms;

    if (s->attempts == 0)
        return true;
    if (time_ms > 0 && hd_loop_now_ns(s->loop) - s->start_ns >= time_ms * 1000000)
        return false;
    if (s->conf->tries_max > 0)
        return s->attempts < s->conf->tries_max;
    if (c == NULL || s->attempts >= HD_SESSION_TRIED_MAX)
        return false;
    if (s->addrs_n > 0)
        return s->attempts < s->addrs_n;
    r = hd_cluster_endpoints(s->member, c);
    eps = r == NULL ? NULL : r->root;
    return eps != NULL && s->attempts < eps->n;
}

/* What an nginx-style cluster hashes. */
static void set_key(hd_session_t *s)
{
    const hd_region_t *r = hd_slot_get(s->member, s->target->cluster);
    const hd_cluster_t *c = r == NULL ? NULL : r->root;
    hd_attr_of_t of = hd_session_attr_of(s);

    if (c != NULL && c->hash_key != NULL &&
        hd_expr_eval_of(c->hash_key, &of, &s->pick.key) != HD_OK)
        s->pick.key = HD_STR_NONE;
}

/* The balancer has none, or there is no such cluster. */
static void refuse(hd_session_t *s)
{
    s->flags = s->err.code == HD_E_NO_CLUSTER   ? "NC"
               : s->err.code == HD_E_NO_HEALTHY ? "UH"
               : s->err.code == HD_E_LIMIT      ? "UO"
                                                : s->flags;
    hd_session_fail(s, HD_RESULT_CANCELLED);
}

static void start_try(hd_session_t *s)
{
    hd_rc_t rc;

    if (!may_try(s)) { /* s->err tells of the last one */
        s->flags = s->flags != NULL ? "UF,URX" : "URX";
        hd_session_fail(s, HD_RESULT_CANCELLED);
        return;
    }
    hd_err_clear(&s->err);
    s->pick = (hd_pick_t){.cluster_slot = s->target->cluster,
                          .has_hash = s->conf->hash_source_ip || s->conf->has_hash,
                          .hash = s->conf->hash,
                          .client = hd_conn_remote(s->down),
                          .subset = s->target->subset,
                          .subset_n = s->target->subset_n,
                          .original_dst = *hd_conn_original_dst(s->down),
                          .addrs = s->addrs,
                          .addrs_n = s->addrs_n,
                          .tried = s->tried,
                          .tried_n = hd_min(s->attempts, (uint32_t)HD_SESSION_TRIED_MAX)};
    if (s->conf->hash_source_ip)
        s->pick.hash = hash_source(s->down);
    set_key(s);
    rc = hd_balancer->pick(s->member, &s->pick, &s->wake, &s->err);
    if (rc == HD_AGAIN)
        return;
    if (rc != HD_OK) {
        refuse(s);
        return;
    }
    s->is_picked = true;
    s->attempts++;
    if (!try_count_endpoint(s)) {
        hd_ignore(hd_err_set(&s->err, HD_E_LIMIT, "a server has its %u connections",
                             s->pick.endpoint->max_conns));
        avoid(s);
        release_pick(s, HD_RESULT_CANCELLED);
        hd_post(s->loop, &s->wake);
        return;
    }
    if (!hd_cluster_try_count(s->member, s->target->cluster, s->pick.cluster, false,
                              HD_CG_CONNS, &s->counted[0])) {
        hd_ignore(hd_err_set(&s->err, HD_E_LIMIT,
                             "cluster \"%.*s\" has its %u connections",
                             HD_STR_ARG(s->target->name), s->pick.cluster->max_conns));
        refuse(s);
        return;
    }
    add_try(s);
    s->ops->connect(s);
}

static const hd_tcp_target_t *choose_target(const hd_tcp_conf_t *conf)
{
    uint64_t random;
    uint32_t at;

    if (conf->targets_n <= 1 || conf->weights_total == 0)
        return conf->targets;
    hd_os_random(&random, sizeof(random));
    at = (uint32_t)(random % conf->weights_total);
    for (uint32_t i = 0; i < conf->targets_n; i++) {
        if (at < conf->targets[i].weight)
            return &conf->targets[i];
        at -= conf->targets[i].weight;
    }
    return conf->targets;
}

static hd_rc_t take_addrs(hd_session_t *s, const hd_addr_t *addrs, uint32_t n,
                          uint16_t port)
{
    s->addrs = hd_resolve_take(hd_conn_pool(s->down), addrs, n, port);
    s->addrs_n = n;
    return HD_OK;
}

static hd_rc_t look_up(hd_session_t *s)
{
    const hd_addr_t *addrs;
    uint32_t n;
    hd_rc_t rc = hd_resolving->find(s->loop, s->conf->resolver, s->host, &s->wait,
                                    &s->wake, &addrs, &n, &s->err);

    return rc == HD_OK ? take_addrs(s, addrs, n, s->port) : rc;
}

/* A host that is no cluster's name: an address, or a name to be looked up. */
static hd_rc_t find_address(hd_session_t *s)
{
    hd_str_t text = s->named.name;
    hd_addr_t addr;

    if (hd_addr_parse(hd_conn_pool(s->down), text, 0, &addr, NULL) == HD_OK) {
        char *ip = hd_pool_alloc(hd_conn_pool(s->down), HD_ADDR_TEXT_MAX);

        s->host = hd_addr_print_ip(&addr, ip);
        return addr.family == AF_UNIX || addr.port != 0
                   ? take_addrs(s, &addr, 1, addr.port)
                   : hd_err_set(&s->err, HD_E_NO_CLUSTER, "no port in upstream \"%.*s\"",
                                HD_STR_ARG(text));
    }
    if (hd_str_find_char(text, ':') < 0)
        return hd_err_set(&s->err, HD_E_NO_CLUSTER, "no port in upstream \"%.*s\"",
                          HD_STR_ARG(text));
    if (!hd_resolve_split(text, 0, &s->host, &s->port))
        return hd_err_set(&s->err, HD_E_NO_CLUSTER, "invalid host in upstream \"%.*s\"",
                          HD_STR_ARG(text));
    if (s->conf->resolver == NULL || hd_resolving == NULL)
        return hd_err_set(&s->err, HD_E_NO_CLUSTER, "no resolver defined to resolve %.*s",
                          HD_STR_ARG(s->host));
    s->is_name = true;
    return look_up(s);
}

/* proxy_pass with variables: the cluster of that name. */
static hd_rc_t find_named(hd_session_t *s)
{
    hd_attr_of_t of = hd_session_attr_of(s);
    hd_str_t name = HD_STR_NONE;
    const hd_slot_t *slot;

    s->named = *s->target;
    s->target = &s->named;
    if (hd_expr_eval_of(s->conf->pass, &of, &name) != HD_OK || name.len == 0)
        return hd_err_set(&s->err, HD_E_NO_CLUSTER,
                          "the variables of proxy_pass name no upstream");
    s->named.name = hd_str_dup(of.pool, name);
    /* As src/mesh names the clusters of stream: of an upstream block, of an address. */
    slot = hd_slot_find(s->member, NULL, HD_RES_CLUSTER,
                        hd_str_printf(of.pool, "stream:%.*s", HD_STR_ARG(name)));
    if (slot == NULL)
        slot = hd_slot_find(s->member, NULL, HD_RES_CLUSTER,
                            hd_str_printf(of.pool, "stream:%.*s|0", HD_STR_ARG(name)));
    if (slot != NULL)
        hd_slot_hold(s->member, slot);
    s->held = slot;
    s->named.cluster = slot != NULL ? slot : s->conf->any;
    return slot != NULL ? HD_OK : find_address(s);
}

/* Where servers are names that nobody has asked for yet, there may soon be some. */
static hd_rc_t wait_for_servers(hd_session_t *s)
{
    const hd_region_t *r =
        s->target->cluster != NULL ? hd_slot_get(s->member, s->target->cluster) : NULL;
    const hd_cluster_t *c = r != NULL ? r->root : NULL;

    return c == NULL || c->resolved.len == 0
               ? HD_OK
               : hd_resolving->wait_for(s->loop, c, &s->wait, &s->wake);
}

static void choose(hd_session_t *s, hd_rc_t found)
{
    s->is_waiting = found == HD_AGAIN;
    if (found == HD_ERROR) {
        if (s->conf->pass != NULL)
            s->status = 500; /* as nginx: what variables make is no server */
        refuse(s);
    } else if (found == HD_OK) {
        start_try(s);
    }
}

static void on_wake(hd_post_t *p)
{
    hd_session_t *s = hd_container_of(p, hd_session_t, wake);

    if (!s->is_waiting)
        start_try(s);
    else
        choose(s, s->is_name && s->addrs_n == 0 ? look_up(s) : wait_for_servers(s));
}

/* --- the way in --- */

hd_session_t *hd_session_create(hd_conn_t *c, const hd_entrance_t *in,
                                const hd_session_ops_t *ops, size_t bytes)
{
    hd_session_t *s = hd_pool_calloc(hd_conn_pool(c), bytes);

    s->ops = ops;
    s->down = c;
    s->loop = c->loop;
    s->member = hd_loop_member(c->loop);
    s->listener = in->version;
    s->chain = in->chain;
    s->conf = in->chain->protocol_conf;
    s->start_ns = hd_loop_now_ns(c->loop);
    s->counted[0] = s->counted[1] = HD_GAUGE_NONE;
    hd_post_init(&s->wake, on_wake);
    hd_pin(s->member, s->listener);
    sessions_n++;
    return s;
}

void hd_session_refuse(hd_session_t *s, unsigned status)
{
    const hd_err_t *err = s->down->err;

    s->status = (uint16_t)status;
    if (err != NULL && err->code == HD_E_NO_ROUTE) { /* the listener says so */
        s->flags = "NR";
    } else if (err != NULL) {
        s->err = *err;
        s->status = err->code == HD_E_DENIED  ? 403
                    : err->code == HD_E_LIMIT ? 503
                                              : s->status;
    }
    hd_session_end(s, HD_RESULT_CANCELLED);
}

/* `set`, in order: a later one may use an earlier one's. */
static void set_variables(hd_session_t *s)
{
    hd_attr_of_t of = hd_session_attr_of(s);

    for (uint32_t i = 0; i < s->conf->sets_n; i++) {
        hd_val_t value = {.type = HD_VAL_STR};

        if (hd_expr_eval_of(s->conf->sets[i].value, &of, &value.str) == HD_OK)
            hd_ignore(hd_attr_set(&of, &s->conf->sets[i].attr, value)); /* by name */
    }
}

static void answer(hd_session_t *s)
{
    hd_attr_of_t of = hd_session_attr_of(s);
    hd_str_t text = HD_STR_NONE;

    if (hd_expr_eval_of(s->conf->answer, &of, &text) == HD_OK)
        s->ops->answer(s, text);
    hd_session_end(s, HD_RESULT_OK);
    s->ops->close(s);
}

static bool is_exempt(const hd_session_t *s)
{
    return ((const hd_listener_t *)s->listener->root)->bypasses_overload;
}

void hd_session_start(hd_session_t *s)
{
    hd_rc_t rc;

    set_variables(s);
    if (hd_unlikely(hd_overload_now.share != 0) && !is_exempt(s) &&
        hd_overload_refuses()) {
        s->flags = "OM";
        s->status = 503;
        hd_session_fail(s, HD_RESULT_CANCELLED);
        return;
    }
    if (s->conf->answer != NULL) {
        answer(s);
        return;
    }
    if (s->conf->targets_n == 0) {
        hd_session_fail(s, HD_RESULT_CANCELLED);
        return;
    }
    s->target = choose_target(s->conf);
    rc = s->conf->pass != NULL ? find_named(s) : HD_OK;
    choose(s, rc == HD_OK ? wait_for_servers(s) : rc);
}

/* --- what modules ask --- */

hd_session_t *hd_session_of(const hd_conn_t *c)
{
    if (c == NULL || c->protocol == 0)
        return NULL;
    if (c->protocol == hd_tcp_protocol())
        return hd_tcp_session_of(c);
    return c->protocol == hd_udp_protocol() ? hd_udp_session_of(c) : NULL;
}

bool hd_session_get_info(hd_conn_t *c, hd_session_info_t *info)
{
    hd_session_t *s = hd_session_of(c);
    const hd_session_try_t *last;

    if (s == NULL)
        return false;
    s->ops->count(s);
    last = s->last_try;
    *info = (hd_session_info_t){
        .status = s->status,
        .duration_ns = hd_loop_now_ns(s->loop) - s->start_ns,
        .bytes_received = s->count.bytes_received,
        .bytes_sent = s->count.bytes_sent,
        .flags = hd_str_c(s->flags != NULL ? s->flags : "-"),
        .upstream_host = last != NULL ? last->addr : HD_STR_NONE,
        .cluster = s->target != NULL ? s->target->name : HD_STR_NONE,
        .protocol = hd_str_c(s->ops->protocol),
        .error = s->err.code != HD_E_NONE ? hd_str_c(s->err.text) : HD_STR_NONE,
        .ended_by = s->ended_by,
        .is_opened = s->is_opened,
        .chain = s->chain,
        .listener = s->listener->root,
        .cluster_conf = s->is_picked ? s->pick.cluster : NULL,
        .endpoint = s->is_picked ? s->pick.endpoint : NULL,
        .upstream = hd_tcp_upstream_of(s),
    };
    info->start_wall_ns = hd_loop_wall_ns(s->loop) - (int64_t)info->duration_ns;
    return true;
}

void *hd_session_state(hd_conn_t *c, const hd_module_t *module)
{
    const hd_session_t *s = hd_session_of(c);

    return s != NULL && s->states != NULL ? s->states[hd_module_number(module)] : NULL;
}

void hd_session_set_state(hd_conn_t *c, const hd_module_t *module, void *state)
{
    hd_session_t *s = hd_session_of(c);

    if (s == NULL)
        return;
    if (s->states == NULL)
        s->states = hd_pool_new_n(hd_conn_pool(c), void *, hd_modules_n());
    s->states[hd_module_number(module)] = state;
}
