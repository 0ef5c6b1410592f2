/* resolver, resolver_timeout: whom to ask for names at run time. */
#include "core/conf/hd_conf_resolver.h"
#include "core/conf/hd_module_table.h"

#include <netdb.h>

#define TIMEOUT_MS 30000

typedef struct {
    hd_resolver_t resolver;
    uint64_t timeout_ms; /* 0: TIMEOUT_MS */
} resolver_conf_t;

static hd_rc_t add_server(hd_resolver_t *r, const hd_addr_t *addr, hd_err_t *err)
{
    if (r->servers_n == HD_RESOLVER_SERVERS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d name servers",
                          HD_RESOLVER_SERVERS_MAX);
    r->servers[r->servers_n++] = *addr;
    return HD_OK;
}

/* A name server may itself be a name: looked up once, with the system's means. */
static hd_rc_t add_named(hd_conf_t *cf, hd_resolver_t *r, hd_str_t text, hd_err_t *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM}, *list;
    ssize_t colon = hd_str_find_char(text, ':');
    uint64_t port = 53;
    int failed;
    hd_rc_t rc = HD_OK;

    if (colon >= 0 &&
        (!hd_str_to_u64(hd_str_sub(text, (size_t)colon + 1, text.len), 65535, &port) ||
         port == 0))
        return hd_err_set(err, HD_E_CONF, "invalid port in resolver \"%.*s\"",
                          HD_STR_ARG(text));
    failed = getaddrinfo(
        hd_str_to_c(cf->temp, colon < 0 ? text : hd_str_sub(text, 0, (size_t)colon)),
        NULL, &hints, &list);
    if (failed != 0)
        return hd_err_set(err, HD_E_CONF, "host not found in resolver \"%.*s\": %s",
                          HD_STR_ARG(text), gai_strerror(failed));
    for (struct addrinfo *ai = list; ai != NULL && rc == HD_OK; ai = ai->ai_next) {
        hd_addr_t addr;

        hd_addr_from_sockaddr(ai->ai_addr, ai->ai_addrlen, &addr);
        addr.port = (uint16_t)port;
        rc = add_server(r, &addr, err);
    }
    freeaddrinfo(list);
    return rc;
}

static hd_rc_t set_parameter(resolver_conf_t *rc, hd_str_t arg, bool *is_taken,
                             hd_err_t *err)
{
    static const struct {
        hd_str_t name;
        size_t offset;
    } families[] = {{HD_STR_INIT("ipv4="), offsetof(hd_resolver_t, no_ipv4)},
                    {HD_STR_INIT("ipv6="), offsetof(hd_resolver_t, no_ipv6)}};
    uint64_t ms;

    *is_taken = true;
    for (size_t i = 0; i < hd_countof(families); i++) {
        hd_str_t value = hd_str_sub(arg, families[i].name.len, arg.len);
        bool *is_off = (bool *)((char *)&rc->resolver + families[i].offset);

        if (!hd_str_has_prefix(arg, families[i].name))
            continue;
        *is_off = hd_str_eq(value, HD_STR("off"));
        return *is_off || hd_str_eq(value, HD_STR("on"))
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF,
                                "invalid parameter \"%.*s\": on or off is expected",
                                HD_STR_ARG(arg));
    }
    if (hd_str_has_prefix(arg, HD_STR("status_zone=")))
        return arg.len > 12 ? HD_OK
                            : hd_err_set(err, HD_E_CONF, "status_zone= without a name");
    *is_taken = hd_str_has_prefix(arg, HD_STR("valid="));
    if (!*is_taken)
        return HD_OK;
    if (hd_parse_msec(hd_str_sub(arg, 6, arg.len), &ms, err) != HD_OK)
        return hd_err_prefix(err, "valid=: ");
    if (ms == 0 || ms > UINT32_MAX)
        return hd_err_set(err, HD_E_CONF, "valid=: more than 0 is expected");
    rc->resolver.valid_ms = (uint32_t)ms;
    return HD_OK;
}

static hd_rc_t set_resolver(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    resolver_conf_t *rc = conf;

    rc->resolver = (hd_resolver_t){0};
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_addr_t addr;
        bool is_taken;

        if (set_parameter(rc, args[i], &is_taken, err) != HD_OK)
            return HD_ERROR;
        if (is_taken)
            continue;
        if (hd_str_find_char(args[i], '=') >= 0)
            return hd_err_set(err, HD_E_CONF,
                              "unknown parameter \"%.*s\"; allowed are valid=, ipv4=, "
                              "ipv6=, status_zone=",
                              HD_STR_ARG(args[i]));
        if (hd_addr_parse(cf->temp, args[i], 53, &addr, NULL) != HD_OK) {
            if (add_named(cf, &rc->resolver, args[i], err) != HD_OK)
                return HD_ERROR;
            continue;
        }
        if (addr.family == AF_UNIX)
            return hd_err_set(err, HD_E_CONF, "\"%.*s\": a name server has an IP address",
                              HD_STR_ARG(args[i]));
        if (add_server(&rc->resolver, &addr, err) != HD_OK)
            return HD_ERROR;
    }
    if (rc->resolver.servers_n == 0)
        return hd_err_set(err, HD_E_CONF, "no name servers defined");
    if (rc->resolver.no_ipv4 && rc->resolver.no_ipv6)
        return hd_err_set(err, HD_E_CONF, "\"ipv4\" and \"ipv6\" cannot both be \"off\"");
    return HD_OK;
}

static uint64_t identify(const hd_resolver_t *r)
{
    uint32_t how[] = {r->valid_ms, r->no_ipv4, r->no_ipv6};
    uint64_t h = hd_hash64(how, sizeof(how), 0);

    for (uint32_t i = 0; i < r->servers_n; i++) {
        char text[HD_ADDR_TEXT_MAX];
        hd_str_t addr = hd_addr_print(&r->servers[i], text);

        h = hd_hash64(addr.data, addr.len, h);
    }
    return h;
}

hd_resolver_t hd_conf_resolver_of(void *const *confs)
{
    const resolver_conf_t *rc = confs[hd_module_number(&hd_resolver_module)];
    hd_resolver_t r = rc->resolver;

    r.timeout_ms =
        rc->timeout_ms > 0 ? (uint32_t)hd_min(rc->timeout_ms, 86400000u) : TIMEOUT_MS;
    r.id = identify(&r);
    return r;
}

const hd_resolver_t *hd_conf_resolver(hd_conf_t *cf)
{
    hd_resolver_t *r = hd_pool_new(cf->pool, hd_resolver_t);

    *r = hd_conf_resolver_of(cf->confs);
    if (r->servers_n == 0)
        return NULL;
    cf->build->needs_agent = true;
    return r;
}

#define IN_ANY                                                                           \
    (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_UPSTREAM | HD_IN_STREAM |        \
     HD_IN_STREAM_SERVER | HD_IN_STREAM_UPSTREAM)

static const hd_directive_t directives[] = {
    {.name = "resolver",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_resolver,
     .help = "ADDRESS[:PORT] … [valid=TIME] [ipv4=on|off] [ipv6=on|off] "
             "[status_zone=NAME]: whom the agent asks for names at run time; an answer "
             "counts for its TTL, or valid=; status_zone has no effect"},
    {.name = "resolver_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = offsetof(resolver_conf_t, timeout_ms),
     .help = "TIME: how long a request waits for a name; 30s"},
    {0},
};

const hd_module_t hd_resolver_module = {
    .abi = HD_MODULE_ABI,
    .name = "resolver",
    .directives = directives,
    .conf_size = sizeof(resolver_conf_t),
};
