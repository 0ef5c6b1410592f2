#include "mesh/hd_conf_upstream.h"
#include "core/conf/hd_conf_resolver.h"
#include "core/proc/hd_modules.h"
#include "mesh/hd_conf_guard.h"
#include "mesh/hd_conf_sticky.h"
#include "mesh/hd_endpoint_state.h"
#include "mesh/hd_mesh_cluster.h"
#include "mesh/hd_named.h"

#include <netdb.h>
#include <stdlib.h>

#define SERVERS_MAX 4096
#define CONNECT_TIMEOUT_MS                                                               \
    60000 /* nginx's proxy_connect_timeout; a route may say otherwise */
#define IDLE_TIMEOUT_MS 60000 /* nginx's keepalive_timeout of upstreams */
#define LATENCY_DECAY_MS 10000
#define PING_TIMEOUT_MS 20000
#define KEEPALIVE 32 /* nginx's default since 1.29.7 */

/* A block while it is read; lists lie in cf->temp. */
typedef struct {
    hd_array_t *servers; /* hd_endpoint_t */
    hd_array_t *named;   /* hd_named_server_t: all, in order, once one has `resolve` */
    hd_resolver_t resolver;
    hd_str_t hash_key;  /* of `hash` */
    const char *method; /* the directive that said how to choose */
    uint32_t lb, keepalive, keepalive_requests;
    uint64_t keepalive_timeout_ms, keepalive_time_ms;
    uint64_t ping_ms, ping_timeout_ms; /* 0: none */
    uint64_t stream_ms;                /* max_stream_duration; 0: none */
    uint64_t preconnect_percent;       /* 0: none */
    bool has_keepalive, looks_at_all, is_consistent, resolves, is_sticky;
    bool by_last_byte, by_connect; /* least_time */
    const hd_guard_conf_t *guard;  /* NULL: no block */
    const hd_node_t *sticky;       /* NULL: none */
} upstream_conf_t;

/* --- server NAME parameters; --- */

static hd_rc_t set_number(hd_str_t text, uint32_t max, uint32_t *out, const char *what,
                          hd_err_t *err)
{
    uint64_t n;

    if (!hd_str_to_u64(text, max, &n))
        return hd_err_set(err, HD_E_CONF,
                          "%s=\"%.*s\": a number from 0 to %u is expected", what,
                          HD_STR_ARG(text), max);
    *out = (uint32_t)n;
    return HD_OK;
}

static hd_rc_t set_fail_timeout(hd_str_t text, hd_endpoint_t *e, hd_err_t *err)
{
    uint64_t ms;

    if (hd_parse_msec(text, &ms, err) != HD_OK)
        return HD_ERROR;
    e->fail_timeout_s = hd_min(ms / 1000, 86400u);
    return HD_OK;
}

static hd_rc_t set_max_fails(hd_str_t text, hd_endpoint_t *e, hd_err_t *err)
{
    uint32_t n = 0;

    if (set_number(text, 1000000, &n, "max_fails", err) != HD_OK)
        return HD_ERROR;
    e->max_fails = n;
    return HD_OK;
}

static hd_rc_t set_slow_start(hd_str_t text, hd_endpoint_t *e, hd_err_t *err)
{
    uint64_t ms;

    if (hd_parse_msec(text, &ms, err) != HD_OK)
        return HD_ERROR;
    e->slow_start_ms = hd_min(ms, 86400000u);
    return HD_OK;
}

/* What `server` says beside the endpoint. */
typedef struct {
    hd_endpoint_t e;
    hd_endpoint_more_t more;
    bool resolves;
    hd_str_t service; /* empty: none */
} server_t;

static hd_rc_t set_parameter(hd_str_t arg, server_t *s, hd_err_t *err)
{
    static const char allowed[] =
        "weight=, max_conns=, max_fails=, fail_timeout=, slow_start=, backup, down, "
        "resolve, service=, route=, drain";
    hd_endpoint_t *e = &s->e;
    ssize_t eq = hd_str_find_char(arg, '=');
    hd_str_t name = eq < 0 ? arg : hd_str_sub(arg, 0, (size_t)eq);
    hd_str_t value = eq < 0 ? HD_STR_NONE : hd_str_sub(arg, (size_t)eq + 1, arg.len);

    if (eq < 0 && hd_str_eq(name, HD_STR("backup"))) {
        e->backup = true;
        return HD_OK;
    }
    if (eq < 0 && hd_str_eq(name, HD_STR("down"))) {
        e->down = true;
        return HD_OK;
    }
    if (eq < 0 && hd_str_eq(name, HD_STR("resolve"))) {
        s->resolves = true;
        return HD_OK;
    }
    if (eq < 0 && hd_str_eq(name, HD_STR("drain"))) {
        e->health = 3; /* nobody new */
        return HD_OK;
    }
    if (eq > 0 && hd_str_eq(name, HD_STR("route"))) {
        s->more.route = value;
        return value.len > 0 && value.len <= HD_ROUTE_MAX
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF, "route=: 1 to %d characters",
                                HD_ROUTE_MAX);
    }
    if (eq > 0 && hd_str_eq(name, HD_STR("service"))) {
        s->service = value;
        return value.len > 0 ? HD_OK
                             : hd_err_set(err, HD_E_CONF, "\"service=\" is empty");
    }
    if (eq > 0 && hd_str_eq(name, HD_STR("weight"))) {
        if (set_number(value, 1000000, &e->weight, "weight", err) != HD_OK)
            return HD_ERROR;
        return e->weight > 0 ? HD_OK : hd_err_set(err, HD_E_CONF, "weight is at least 1");
    }
    if (eq > 0 && hd_str_eq(name, HD_STR("max_conns")))
        return set_number(value, UINT32_MAX - 1, &e->max_conns, "max_conns", err);
    if (eq > 0 && hd_str_eq(name, HD_STR("max_fails")))
        return set_max_fails(value, e, err);
    if (eq > 0 && hd_str_eq(name, HD_STR("fail_timeout")))
        return set_fail_timeout(value, e, err);
    if (eq > 0 && hd_str_eq(name, HD_STR("slow_start")))
        return set_slow_start(value, e, err);
    return hd_err_set(err, HD_E_CONF, "unknown parameter \"%.*s\"; allowed are %s",
                      HD_STR_ARG(arg), allowed);
}

/* Names are looked up once, while configuration is read, as nginx does; all addresses
 * count. */
static hd_rc_t resolve(hd_conf_t *cf, hd_array_t *servers, const hd_endpoint_t *like,
                       hd_str_t text, uint16_t default_port, hd_err_t *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list,
                    *ai;
    ssize_t colon = hd_str_find_char(text, ':');
    uint64_t port = default_port;
    char *host;
    int rc;

    if (colon >= 0 &&
        (!hd_str_to_u64(hd_str_sub(text, (size_t)colon + 1, text.len), 65535, &port) ||
         port == 0))
        return hd_err_set(err, HD_E_CONF, "invalid port in upstream \"%.*s\"",
                          HD_STR_ARG(text));
    host = hd_str_to_c(cf->temp, colon < 0 ? text : hd_str_sub(text, 0, (size_t)colon));
    rc = getaddrinfo(host, NULL, &hints, &list);
    if (rc != 0)
        return hd_err_set(err, HD_E_CONF, "host not found in upstream \"%.*s\": %s",
                          HD_STR_ARG(text), gai_strerror(rc));
    for (ai = list; ai != NULL; ai = ai->ai_next) {
        hd_endpoint_t *e = hd_array_add(servers);

        if (e == NULL)
            break;
        *e = *like;
        hd_addr_from_sockaddr(ai->ai_addr, ai->ai_addrlen, &e->addr);
        e->addr.port = (uint16_t)port;
    }
    freeaddrinfo(list);
    return ai == NULL ? HD_OK
                      : hd_err_set(err, HD_E_CONF, "more than %d servers", SERVERS_MAX);
}

static hd_rc_t add_server(hd_conf_t *cf, hd_array_t *servers, hd_endpoint_t *like,
                          hd_str_t text, uint16_t default_port, hd_err_t *err)
{
    hd_endpoint_t *e;
    hd_addr_t addr;

    like->hostname = text;
    if (hd_addr_parse(cf->temp, text, default_port, &addr, NULL) != HD_OK)
        return resolve(cf, servers, like, text, default_port, err);
    if (addr.family != AF_UNIX && addr.port == 0)
        return hd_err_set(err, HD_E_CONF, "no port in upstream \"%.*s\"",
                          HD_STR_ARG(text));
    e = hd_array_add(servers);
    if (e == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d servers", SERVERS_MAX);
    *e = *like;
    e->addr = addr;
    return HD_OK;
}

static hd_endpoint_t plain_endpoint(void)
{
    return (hd_endpoint_t){.weight = 1, .max_fails = 1, .fail_timeout_s = 10};
}

/* nginx's reading of service=: without a dot it is a service over TCP. */
static hd_str_t service_name(hd_conf_t *cf, hd_str_t service, hd_str_t host)
{
    return hd_str_find_char(service, '.') < 0
               ? hd_str_printf(cf->temp, "_%.*s._tcp.%.*s", HD_STR_ARG(service),
                               HD_STR_ARG(host))
               : hd_str_printf(cf->temp, "%.*s.%.*s", HD_STR_ARG(service),
                               HD_STR_ARG(host));
}

/* A server that the agent will look up. */
static hd_rc_t add_named(hd_conf_t *cf, upstream_conf_t *uc, const server_t *s,
                         hd_str_t text, uint16_t default_port, hd_err_t *err)
{
    hd_named_server_t *n = hd_array_add(uc->named);
    hd_str_t host;
    uint16_t port;

    if (n == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d servers", SERVERS_MAX);
    *n = (hd_named_server_t){.like = s->e, .is_srv = s->service.len > 0};
    n->like.hostname = text;
    if (!hd_resolve_split(text, n->is_srv ? 1 : default_port, &host, &port))
        return hd_err_set(
            err, HD_E_CONF, "\"%.*s\": a name%s is expected to resolve at run time",
            HD_STR_ARG(text), default_port == 0 && !n->is_srv ? " and a port" : "");
    if (n->is_srv && host.len != text.len)
        return hd_err_set(err, HD_E_CONF,
                          "\"%.*s\": with service= the port comes from DNS",
                          HD_STR_ARG(text));
    n->host = n->is_srv ? service_name(cf, s->service, host) : host;
    n->port = port;
    return HD_OK;
}

static hd_array_t *new_list(hd_conf_t *cf, size_t item_bytes)
{
    hd_array_t *list = hd_pool_new(cf->temp, hd_array_t);

    hd_array_init(list, cf->temp, item_bytes, SERVERS_MAX);
    return list;
}

static hd_rc_t set_server(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint16_t default_port = cf->scope == HD_IN_STREAM_UPSTREAM ? 0 : 80;
    upstream_conf_t *uc = conf;
    server_t s = {.e = plain_endpoint()};
    hd_endpoint_more_t *more;
    hd_addr_t addr;
    size_t before;

    if (uc->servers == NULL) {
        uc->servers = new_list(cf, sizeof(hd_endpoint_t));
        uc->named = new_list(cf, sizeof(hd_named_server_t));
    }
    for (uint32_t i = 1; i < cf->node->args_n; i++) {
        if (set_parameter(args[i], &s, err) != HD_OK)
            return HD_ERROR;
    }
    if (s.service.len > 0 && !s.resolves)
        return hd_err_set(err, HD_E_CONF, "service \"%.*s\" requires \"resolve\"",
                          HD_STR_ARG(s.service));
    if (s.more.route.len > 0) {
        more = hd_pool_new(cf->temp, hd_endpoint_more_t);
        *more = s.more;
        s.e.more = more;
    }
    uc->resolves |= s.resolves;
    if (s.resolves &&
        (s.service.len > 0 || hd_addr_parse(cf->temp, args[0], 1, &addr, NULL) != HD_OK))
        return add_named(cf, uc, &s, args[0], default_port, err);
    before = uc->servers->n;
    if (add_server(cf, uc->servers, &s.e, args[0], default_port, err) != HD_OK)
        return HD_ERROR;
    for (size_t i = before; i < uc->servers->n; i++) {
        hd_named_server_t *n = hd_array_add(uc->named);

        if (n != NULL)
            n->like = *hd_array_at(uc->servers, hd_endpoint_t, i);
    }
    return HD_OK;
}

static hd_rc_t set_keepalive(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    upstream_conf_t *uc = conf;

    (void)cf;
    uc->has_keepalive = true;
    return set_number(args[0], 1000000, &uc->keepalive, "keepalive", err);
}

/* --- how to choose --- */

/* nginx takes the last of several with a warning; here one is enough. */
static hd_rc_t set_method(upstream_conf_t *uc, const char *name, hd_lb_policy_t lb,
                          hd_err_t *err)
{
    if (uc->method != NULL)
        return hd_err_set(err, HD_E_CONF, "\"%s\" after \"%s\": one of them is enough",
                          name, uc->method);
    uc->method = name;
    uc->lb = lb;
    return HD_OK;
}

static hd_rc_t set_ping(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    upstream_conf_t *uc = conf;

    uc->ping_timeout_ms = PING_TIMEOUT_MS;
    if (hd_parse_msec(args[0], &uc->ping_ms, err) != HD_OK)
        return HD_ERROR;
    if (cf->node->args_n == 2 && (!hd_str_has_prefix(args[1], HD_STR("timeout=")) ||
                                  hd_parse_msec(hd_str_sub(args[1], 8, args[1].len),
                                                &uc->ping_timeout_ms, err) != HD_OK))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": timeout=TIME is allowed here",
                          HD_STR_ARG(args[1]));
    if (uc->ping_ms > 86400000u || uc->ping_timeout_ms > 86400000u ||
        uc->ping_timeout_ms == 0)
        return hd_err_set(err, HD_E_CONF,
                          "times up to a day, and a timeout of 1ms or more");
    return HD_OK;
}

static hd_rc_t set_stream_ms(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    upstream_conf_t *uc = conf;

    (void)cf;
    if (hd_parse_msec(args[0], &uc->stream_ms, err) != HD_OK)
        return HD_ERROR;
    return uc->stream_ms <= UINT32_MAX
               ? HD_OK
               : hd_err_set(err, HD_E_CONF, "\"%.*s\": up to 49 days; 0 for no limit",
                            HD_STR_ARG(args[0]));
}

static hd_rc_t set_preconnect(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    upstream_conf_t *uc = conf;
    hd_str_t number = hd_str_sub(args[0], 0, args[0].len - 1);

    (void)cf;
    if (!hd_str_has_suffix(args[0], HD_STR("%")) ||
        !hd_str_to_u64(number, 300, &uc->preconnect_percent) ||
        uc->preconnect_percent < 100)
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": from 100%% to 300%%",
                          HD_STR_ARG(args[0]));
    return HD_OK;
}

static hd_rc_t set_least_conn(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    upstream_conf_t *uc = conf;

    (void)cf, (void)args;
    uc->looks_at_all = true;
    return set_method(uc, "least_conn", HD_LB_LEAST_REQUEST, err);
}

static hd_rc_t set_random(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    upstream_conf_t *uc = conf;

    if (cf->node->args_n == 0)
        return set_method(uc, "random", HD_LB_RANDOM, err);
    if (!hd_str_eq(args[0], HD_STR("two")) ||
        (cf->node->args_n == 2 && !hd_str_eq(args[1], HD_STR("least_conn"))))
        return hd_err_set(err, HD_E_CONF,
                          "allowed are \"random\", \"random two\" and \"random two "
                          "least_conn\"");
    return set_method(uc, "random", HD_LB_LEAST_REQUEST, err);
}

static hd_rc_t set_least_time(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    bool is_stream = cf->scope == HD_IN_STREAM_UPSTREAM;
    hd_str_t first = is_stream ? HD_STR("first_byte") : HD_STR("header");
    upstream_conf_t *uc = conf;

    uc->by_last_byte = hd_str_eq(args[0], HD_STR("last_byte"));
    uc->by_connect = is_stream && hd_str_eq(args[0], HD_STR("connect"));
    if (!uc->by_last_byte && !uc->by_connect && !hd_str_eq(args[0], first))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": %s or \"last_byte\"",
                          HD_STR_ARG(args[0]),
                          is_stream ? "\"connect\", \"first_byte\"" : "\"header\"");
    if (cf->node->args_n == 2 && !hd_str_eq(args[1], HD_STR("inflight")))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": \"inflight\" is allowed here",
                          HD_STR_ARG(args[1]));
    uc->looks_at_all = true;
    return set_method(uc, "least_time", HD_LB_PEAK_EWMA, err);
}

static hd_rc_t set_hash(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    upstream_conf_t *uc = conf;

    if (cf->node->args_n == 2 && !hd_str_eq(args[1], HD_STR("consistent")))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": \"consistent\" is allowed here",
                          HD_STR_ARG(args[1]));
    uc->hash_key = args[0];
    uc->is_consistent = cf->node->args_n == 2;
    return set_method(uc, "hash", uc->is_consistent ? HD_LB_RING_HASH : HD_LB_KEY_HASH,
                      err);
}

static hd_rc_t set_sticky(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    upstream_conf_t *uc = conf;

    (void)args;
    uc->sticky = cf->node;
    uc->is_sticky = true;
    return hd_conf_check_sticky(cf, err);
}

static hd_rc_t set_ip_hash(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)cf, (void)args;
    return set_method(conf, "ip_hash", HD_LB_IP_HASH, err);
}

static hd_rc_t refuse_queue(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    (void)cf, (void)args, (void)conf;
    return hd_err_set(err, HD_E_CONF,
                      "a queue of requests belongs to nginx's commercial edition: "
                      "max_conns= answers 502 when all servers are full");
}

/* nginx's shared memory for an upstream: here state is always shared. */
static hd_rc_t accept_zone(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint64_t bytes;

    (void)conf;
    return cf->node->args_n < 2 ? HD_OK : hd_parse_size(args[1], UINT64_MAX, &bytes, err);
}

/* --- clusters --- */

static const hd_table_spec_t ketama = {.kind = HD_TABLE_KETAMA, .max = HD_RING_MAX};

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_server(uint64_t h, const hd_endpoint_t *e)
{
    char text[HD_ADDR_TEXT_MAX];
    hd_str_t addr = hd_addr_print(&e->addr, text), route = hd_endpoint_more(e)->route;
    uint32_t facts[] = {e->weight,
                        e->max_conns,
                        (uint32_t)e->max_fails,
                        (uint32_t)e->fail_timeout_s,
                        (uint32_t)e->slow_start_ms,
                        (uint32_t)e->health << 2 | (uint32_t)e->backup << 1 | e->down,
                        (uint32_t)route.len};

    h = mix(h, addr.data, addr.len);
    h = mix(h, e->hostname.data, e->hostname.len);
    h = mix(h, route.data, route.len);
    return mix(h, facts, sizeof(facts));
}

static uint64_t hash_servers(uint64_t h, const upstream_conf_t *uc)
{
    for (size_t i = 0; i < uc->servers->n; i++)
        h = hash_server(h, hd_array_at(uc->servers, hd_endpoint_t, i));
    return h;
}

/* By outlier detection, or by the choice of a server. */
static bool is_counted(const upstream_conf_t *uc)
{
    return uc->lb == HD_LB_PEAK_EWMA || (uc->guard != NULL && uc->guard->has_outlier);
}

/* A cluster whose servers are names: what the agent is to ask. */
static hd_rc_t put_named(hd_conf_t *cf, hd_str_t name, hd_str_t place,
                         const upstream_conf_t *uc, hd_str_t resolved, hd_err_t *err)
{
    hd_str_t own = hd_str_printf(cf->temp, HD_NAMED_PREFIX "%.*s", HD_STR_ARG(name));
    hd_slot_t *s = hd_slot_find_or_add(cf->arena, HD_RES_POLICY, own, err);
    hd_named_server_t *servers;
    hd_named_t *n;
    hd_region_t *r;
    hd_pool_t *pool;
    hd_rc_t rc;

    if (s == NULL)
        return HD_ERROR;
    if (uc->resolver.servers_n == 0)
        return hd_err_set(err, HD_E_CONF,
                          "no resolver defined to resolve names at run time in upstream "
                          "\"%.*s\"",
                          HD_STR_ARG(name));
    cf->build->needs_agent = true;
    r = hd_batch_region(cf->batch, HD_RES_POLICY, own, place, 0, &pool, err);
    if (r == NULL)
        return HD_ERROR;
    n = hd_pool_new(pool, hd_named_t);
    n->resolved = hd_str_dup(pool, resolved);
    n->resolver = uc->resolver;
    n->is_sticky = uc->is_sticky;
    n->is_load_read = uc->lb == HD_LB_LEAST_REQUEST || uc->lb == HD_LB_PEAK_EWMA;
    n->is_counted = is_counted(uc);
    if (uc->is_consistent)
        n->table = ketama;
    servers = hd_array_copy(uc->named, pool);
    n->servers = servers;
    n->servers_n = (uint32_t)uc->named->n;
    for (uint32_t i = 0; i < n->servers_n; i++) {
        hd_endpoint_t *e = &servers[i].like;

        servers[i].host = hd_str_dup(pool, servers[i].host);
        e->hostname = hd_str_dup(pool, e->hostname);
        e->more = hd_endpoint_copy_more(pool, e, false);
        if (e->addr.family == AF_UNIX)
            e->addr.path = hd_str_dup(pool, e->addr.path);
    }
    rc = hd_batch_put(cf->batch, s, r, n, HD_CONTENT_BUILT, err);
    return rc == HD_DONE ? HD_OK : rc;
}

static hd_rc_t put_endpoints(hd_conf_t *cf, hd_str_t name, hd_str_t place,
                             const upstream_conf_t *uc, uint64_t hash,
                             const hd_slot_t **slot, hd_err_t *err)
{
    const hd_array_t *servers = uc->servers;
    hd_slot_t *s = hd_slot_find_or_add(cf->arena, HD_RES_ENDPOINTS, name, err);
    hd_endpoints_t *eps;
    hd_region_t *r;
    hd_pool_t *pool;
    hd_rc_t rc;

    if (s == NULL)
        return HD_ERROR;
    r = hd_batch_region(cf->batch, HD_RES_ENDPOINTS, name, place,
                        servers->n * sizeof(hd_endpoint_t), &pool, err);
    if (r == NULL)
        return HD_ERROR;
    eps = hd_pool_new(pool, hd_endpoints_t);
    eps->items = hd_array_copy(servers, pool);
    eps->n = (uint32_t)servers->n;
    eps->overprovisioning_factor = 140;
    for (uint32_t i = 0; i < eps->n; i++) {
        hd_endpoint_t *e = (hd_endpoint_t *)&eps->items[i];

        e->hostname = hd_str_dup(pool, e->hostname);
        e->more = hd_endpoint_copy_more(pool, e, uc->is_sticky);
        if (e->addr.family == AF_UNIX)
            e->addr.path = hd_str_dup(pool, e->addr.path);
        if (eps->n == 1) /* who is alone is never given up, as in nginx */
            e->max_fails = e->slow_start_ms = 0;
    }
    if (cf->member != NULL)
        hd_endpoints_attach_state(cf->member, name, eps,
                                  uc->lb == HD_LB_LEAST_REQUEST ||
                                      uc->lb == HD_LB_PEAK_EWMA);
    if (is_counted(uc))
        hd_endpoints_count(cf->member, name);
    if (uc->is_consistent)
        hd_tables_build(eps, &ketama, pool, cf->temp);
    *slot = s;
    rc = hd_batch_put(cf->batch, s, r, eps, hash, err);
    return rc == HD_DONE ? HD_OK : rc;
}

static hd_rc_t put_cluster(hd_conf_t *cf, hd_str_t name, const upstream_conf_t *uc,
                           const hd_slot_t **slot, hd_err_t *err)
{
    hd_slot_t *s = hd_slot_find_or_add(cf->arena, HD_RES_CLUSTER, name, err);
    hd_str_t place = hd_conf_place(cf), resolved = HD_STR_NONE;
    const hd_slot_t *endpoints = NULL;
    uint64_t hash;
    hd_region_t *r;
    hd_cluster_t *c;
    hd_mesh_cluster_t *mesh;
    hd_cluster_more_t *more;
    hd_pool_t *pool;
    hd_rc_t rc;

    if (s == NULL)
        return HD_ERROR;
    hash = hash_servers(0xcbf29ce484222325u, uc);
    hash = mix(hash, &uc->is_consistent, sizeof(uc->is_consistent));
    hash = mix(hash, &uc->is_sticky, sizeof(uc->is_sticky));
    if (uc->resolves) {
        /* another name than the file's own: the text may say it without `resolve` next */
        resolved = hd_str_printf(cf->temp, "%.*s's servers", HD_STR_ARG(name));
        if (put_named(cf, name, place, uc, resolved, err) != HD_OK)
            return HD_ERROR;
    } else if (uc->lb != HD_LB_ORIGINAL_DST &&
               put_endpoints(cf, name, place, uc, hash, &endpoints, err) != HD_OK) {
        return HD_ERROR;
    }
    r = hd_batch_region(cf->batch, HD_RES_CLUSTER, name, place, sizeof(hd_cluster_t),
                        &pool, err);
    if (r == NULL)
        return HD_ERROR;
    c = hd_pool_new(pool, hd_cluster_t);
    *c = (hd_cluster_t){
        .name = s->name, /* lasts as long as the arena */
        .endpoints = endpoints,
        .resolved = hd_str_dup(pool, resolved),
        .lb = (hd_lb_policy_t)uc->lb,
        .lb_choices = 2,
        .protocol = HD_UP_HTTP1,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .max_conns = UINT32_MAX,
        .max_pending = UINT32_MAX,
        .max_requests = UINT32_MAX,
        .max_retries = UINT32_MAX,
        .max_pools = UINT32_MAX,
        .idle_timeout_ms = uc->keepalive_timeout_ms > 0
                               ? (uint32_t)uc->keepalive_timeout_ms
                               : IDLE_TIMEOUT_MS,
        .keepalive = uc->has_keepalive ? uc->keepalive : KEEPALIVE,
        .requests_per_conn = uc->keepalive_requests > 0 ? uc->keepalive_requests : 1000,
        .is_per_client = uc->keepalive_requests == 0, /* nobody said it */
        .h2_ping_ms = (uint32_t)uc->ping_ms,
        .h2_ping_timeout_ms = (uint32_t)uc->ping_timeout_ms,
        .conn_lifetime_ms =
            uc->keepalive_time_ms > 0 ? (uint32_t)uc->keepalive_time_ms : 3600000,
    };
    mesh = hd_pool_new(pool, hd_mesh_cluster_t);
    mesh->is_nginx = true;
    mesh->looks_at_all = uc->looks_at_all;
    mesh->decay_ms = LATENCY_DECAY_MS;
    mesh->by_last_byte = uc->by_last_byte;
    mesh->by_connect = uc->by_connect;
    if (uc->is_consistent)
        mesh->table = ketama;
    c->mesh = mesh;
    if (uc->stream_ms > 0 || uc->preconnect_percent > 100) {
        c->more = more = hd_pool_new(pool, hd_cluster_more_t);
        more->stream_ms = (uint32_t)uc->stream_ms;
        more->preconnect_percent =
            uc->preconnect_percent > 100 ? (uint32_t)uc->preconnect_percent : 0;
    }
    if (uc->hash_key.len > 0) {
        hd_conf_t inside = *cf;
        hd_expr_t *key;

        inside.pool = pool;
        if (hd_expr_compile(&inside, uc->hash_key, &key, err) != HD_OK)
            return hd_err_prefix(err, "hash: ");
        c->hash_key = key;
    }
    *slot = s;
    /* the pointers differ at each reading, so they are left out of the hash */
    hash = mix(hash_servers(uc->resolves ? 2 : 1, uc), &uc->lb,
               offsetof(upstream_conf_t, guard) - offsetof(upstream_conf_t, lb));
    hash = mix(hash, uc->hash_key.data, uc->hash_key.len);
    if (uc->sticky != NULL) {
        for (uint32_t i = 0; i < uc->sticky->args_n; i++)
            hash =
                mix(mix(hash, "", 1), uc->sticky->args[i].data, uc->sticky->args[i].len);
        if (hd_conf_make_sticky(cf, uc->sticky, pool, &c->sticky, err) != HD_OK)
            return hd_conf_blame(cf, uc->sticky, err);
    }
    if (uc->guard != NULL) {
        hash = hd_guard_hash(uc->guard, hash);
        if (hd_guard_apply(cf, uc->guard, s, c, pool, err) != HD_OK)
            return HD_ERROR;
    }
    rc = hd_batch_put(cf->batch, s, r, c, hash, err);
    return rc == HD_DONE ? HD_OK : rc;
}

static hd_str_t slot_name(hd_conf_t *cf, hd_str_t name, bool is_stream)
{
    return is_stream ? hd_str_printf(cf->temp, "stream:%.*s", HD_STR_ARG(name)) : name;
}

static hd_rc_t enter_upstream(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    bool is_stream = cf->scope == HD_IN_STREAM;
    const hd_slot_t *slot;
    upstream_conf_t *uc;
    void **confs;

    (void)conf;
    if (hd_conf_enter(cf, cf->node, is_stream ? HD_IN_STREAM_UPSTREAM : HD_IN_UPSTREAM,
                      &confs, err) != HD_OK)
        return HD_ERROR;
    uc = confs[hd_module_number(&hd_upstream_module)];
    if (uc->servers == NULL)
        return hd_err_set(err, HD_E_CONF, "upstream \"%.*s\" has no server",
                          HD_STR_ARG(args[0]));
    if (hd_batch_has(cf->batch, HD_RES_CLUSTER, slot_name(cf, args[0], is_stream)))
        return hd_err_set(err, HD_E_CONF, "duplicate upstream \"%.*s\"",
                          HD_STR_ARG(args[0]));
    uc->resolver = hd_conf_resolver_of(confs);
    uc->guard = confs[hd_module_number(&hd_guard_module)];
    return put_cluster(cf, slot_name(cf, args[0], is_stream), uc, &slot, err);
}

/* An upstream block of that name, or a cluster of its own for host:port, built once a
 * batch. */
static hd_rc_t slot_for(hd_conf_t *cf, hd_str_t host_port, uint16_t default_port,
                        bool is_stream, const hd_slot_t **slot, hd_err_t *err)
{
    upstream_conf_t uc = {.lb = HD_LB_ROUND_ROBIN};
    hd_endpoint_t e = plain_endpoint();
    hd_str_t name = slot_name(cf, host_port, is_stream);
    hd_array_t servers;

    if (hd_batch_has(cf->batch, HD_RES_CLUSTER, name)) {
        *slot = hd_slot_find_or_add(cf->arena, HD_RES_CLUSTER, name, err);
        return *slot != NULL ? HD_OK : HD_ERROR;
    }
    name = slot_name(
        cf, hd_str_printf(cf->temp, "%.*s|%u", HD_STR_ARG(host_port), default_port),
        is_stream);
    if (hd_batch_has(cf->batch, HD_RES_CLUSTER, name)) {
        *slot = hd_slot_find_or_add(cf->arena, HD_RES_CLUSTER, name, err);
        return *slot != NULL ? HD_OK : HD_ERROR;
    }
    hd_array_init(&servers, cf->temp, sizeof(hd_endpoint_t), SERVERS_MAX);
    uc.servers = &servers;
    e.max_fails = 0; /* a single server is never given up, as in nginx */
    if (add_server(cf, &servers, &e, host_port, default_port, err) != HD_OK)
        return HD_ERROR;
    return put_cluster(cf, name, &uc, slot, err);
}

/* One cluster for all whose address is said with each request: not an upstream block's
 * name, since those have no spaces. */
static hd_rc_t any_slot(hd_conf_t *cf, bool is_stream, const hd_slot_t **slot,
                        hd_err_t *err)
{
    upstream_conf_t uc = {.lb = HD_LB_ORIGINAL_DST};
    hd_str_t name = slot_name(cf, HD_STR("any address"), is_stream);
    hd_array_t none;

    if (hd_batch_has(cf->batch, HD_RES_CLUSTER, name)) {
        *slot = hd_slot_find_or_add(cf->arena, HD_RES_CLUSTER, name, err);
        return *slot != NULL ? HD_OK : HD_ERROR;
    }
    hd_array_init(&none, cf->temp, sizeof(hd_endpoint_t), 1);
    uc.servers = &none;
    return put_cluster(cf, name, &uc, slot, err);
}

const hd_conf_cluster_t hd_mesh_conf_cluster = {.slot_for = slot_for,
                                                .any_slot = any_slot};

#define IN_UPSTREAM (HD_IN_UPSTREAM | HD_IN_STREAM_UPSTREAM)

static const hd_directive_t directives[] = {
    {.name = "upstream",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 1,
     .repeats = true,
     .block = enter_upstream,
     .help = "NAME { … }: a group of servers to proxy to"},
    {.name = "server",
     .scope = IN_UPSTREAM,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_server,
     .help = "ADDRESS [weight=N] [max_conns=N] [max_fails=N] [fail_timeout=TIME] "
             "[slow_start=TIME] [backup] [down] [drain] [route=NAME] [resolve] "
             "[service=NAME]: "
             "one server of the group; a name is looked up when configuration is read, "
             "with `resolve` again and again by the `resolver`; service: its ports and "
             "weights, too, are DNS's (SRV)"},
    {.name = "keepalive",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .set = set_keepalive,
     .help = "N: idle connections that each worker keeps; 32 if not given, 0 for none"},
    {.name = "keepalive_requests",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = offsetof(upstream_conf_t, keepalive_requests),
     .help = "N: requests over one connection before it is closed; 1000"},
    {.name = "keepalive_timeout",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = offsetof(upstream_conf_t, keepalive_timeout_ms),
     .help = "TIME: how long an idle connection is kept; 60s"},
    {.name = "keepalive_time",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = offsetof(upstream_conf_t, keepalive_time_ms),
     .help = "TIME: how long a connection is used at all; 1h"},
    {.name = "keepalive_ping",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .args_max = 2,
     .set = set_ping,
     .help =
         "TIME [timeout=TIME]: HTTP/2 connections, and links to another Heddle, get a "
         "PING so often, and are closed where none answers in time (20s); 0, none, "
         "if not given"},
    {.name = "max_stream_duration",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .set = set_stream_ms,
     .help = "TIME: how long a request may take once it is sent, the answer's body "
             "included; then it is ended: 504 (408 while the client's body isn't all "
             "here), or another try. 0, for ever, if not given"},
    {.name = "preconnect",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .set = set_preconnect,
     .help =
         "N%: each worker has so many connections to a server, in percent of its "
         "requests under way there, within `keepalive` idle ones: the next requests "
         "find them open; 100% to 300%; HTTP/1. Not given: opened when requests come"},
    {.name = "least_conn",
     .scope = IN_UPSTREAM,
     .args_n = 0,
     .set = set_least_conn,
     .help = "the server with the fewest requests under way by weight, over all workers"},
    {.name = "least_time",
     .scope = IN_UPSTREAM,
     .args_n = 1,
     .args_max = 2,
     .set = set_least_time,
     .help = "header | last_byte [inflight] (in stream: connect | first_byte | "
             "last_byte): the server with the least response time (a moving average of "
             "all workers) times requests under way, by weight; these always count"},
    {.name = "hash",
     .scope = IN_UPSTREAM,
     .args_n = 1,
     .args_max = 2,
     .set = set_hash,
     .help = "KEY [consistent]: the same server for the same key, as nginx chooses it; "
             "consistent: a change of servers moves few keys"},
    {.name = "ip_hash",
     .scope = HD_IN_UPSTREAM,
     .args_n = 0,
     .set = set_ip_hash,
     .help = "the same server for the same client's address (of IPv4 the first three "
             "bytes), as nginx chooses it"},
    {.name = "queue",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .args_max = 2,
     .set = refuse_queue,
     .help = "N [timeout=TIME]: refused, as nginx's open source edition has none"},
    {.name = "random",
     .scope = IN_UPSTREAM,
     .args_n = 0,
     .args_max = 2,
     .set = set_random,
     .help = "[two [least_conn]]: a random server, or the less loaded of two"},
    {.name = "sticky",
     .scope = HD_IN_UPSTREAM,
     .args_n = 2,
     .args_max = HD_ARGS_ANY,
     .set = set_sticky,
     .help = "cookie NAME [expires=TIME|max] [domain=NAME] [httponly] "
             "[samesite=strict|lax|none|$x] [secure] [path=PATH] | route $x … | learn "
             "create=$x lookup=$x zone=NAME:SIZE [timeout=TIME] [header]: requests of a "
             "session go to the same server, known by a cookie of ours, by its `route` "
             "in a variable, or by what it set itself; sessions are shared by all "
             "workers"},
    {.name = "zone",
     .scope = IN_UPSTREAM,
     .args_n = 1,
     .args_max = 2,
     .set = accept_zone,
     .help = "NAME [SIZE]: accepted as in nginx; state is always shared here"},
    {0},
};

const hd_module_t hd_upstream_module = {
    .abi = HD_MODULE_ABI,
    .name = "upstream",
    .directives = directives,
    .conf_size = sizeof(upstream_conf_t),
};
