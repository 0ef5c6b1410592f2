/* realip: who the client is, from a field that a trusted proxy sets:
 *     set_real_ip_from 10.0.0.0/8;
 *     real_ip_header X-Forwarded-For;
 *     real_ip_recursive on;
 * From then on $remote_addr, access rules, limits and balancing mean that address;
 * $realip_remote_addr is the proxy's. */
#include "hd_module.h"

#define TRUSTED_MAX 10000

typedef struct {
    hd_cidr_t cidr;
    bool is_unix; /* every peer over a unix socket */
} trusted_t;

typedef struct {
    const trusted_t *trusted;
    uint32_t n, room;
    hd_str_t field; /* empty: X-Real-IP */
    bool is_list;   /* X-Forwarded-For: all of its lines are one list */
    bool by_proxy_protocol, recursive;
} realip_conf_t;

static hd_rc_t add_trusted(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    realip_conf_t *rc = conf;
    trusted_t *list = (trusted_t *)rc->trusted, *t;

    if (cf->is_first) {
        rc->n = rc->room = 0;
        list = NULL;
    }
    if (rc->n == TRUSTED_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d set_real_ip_from here",
                          TRUSTED_MAX);
    if (rc->n == rc->room) {
        rc->room = hd_max(8u, rc->room * 2);
        list = hd_pool_new_n(cf->pool, trusted_t, rc->room);
        if (rc->n > 0)
            memcpy(list, rc->trusted, rc->n * sizeof(*list));
        rc->trusted = list;
    }
    t = &list[rc->n];
    t->is_unix = hd_str_eq(args[0], HD_STR("unix:"));
    if (!t->is_unix && !hd_cidr_parse(args[0], &t->cidr))
        return hd_err_set(
            err, HD_E_CONF,
            "invalid parameter \"%.*s\": an address, ADDRESS/BITS or unix: is "
            "allowed",
            HD_STR_ARG(args[0]));
    rc->n++;
    return HD_OK;
}

static hd_rc_t set_field(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    realip_conf_t *rc = conf;

    rc->by_proxy_protocol = hd_str_eq(args[0], HD_STR("proxy_protocol"));
    rc->is_list = hd_str_eq_nocase(args[0], HD_STR("X-Forwarded-For"));
    if (!hd_http_is_field_name(args[0]))
        return hd_err_set(err, HD_E_CONF,
                          "invalid value \"%.*s\": the name of a field or proxy_protocol "
                          "is allowed",
                          HD_STR_ARG(args[0]));
    rc->field = hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

static bool is_trusted(const realip_conf_t *rc, const hd_addr_t *peer)
{
    for (uint32_t i = 0; i < rc->n; i++) {
        const trusted_t *t = &rc->trusted[i];

        if (t->is_unix ? peer->family == AF_UNIX : hd_cidr_has(&t->cidr, peer))
            return true;
    }
    return false;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const realip_conf_t *rc = conf;
    hd_conn_t *c = hd_req_conn(req);
    hd_str_t field = rc->field.len > 0 ? rc->field : HD_STR("X-Real-IP"), list;
    hd_addr_t client, next;
    bool found;

    if (rc->n == 0 || c == NULL || hd_req_is_sub(req))
        return HD_OK;
    if (rc->by_proxy_protocol) {
        /* the address is there already: is who said so believed? */
        if (c->facts != NULL)
            c->facts->proxied_untrusted = !is_trusted(rc, &c->remote);
        return HD_OK;
    }
    if (hd_req_remote(req) != hd_conn_remote(c))
        return HD_OK; /* the server's settings have said who it is */
    list = rc->is_list ? hd_req_header_joined(req, field, &found)
                       : hd_req_header(req, field, &found);
    client = *hd_conn_remote(c);
    if (!found || !is_trusted(rc, &client))
        return HD_OK;
    found = false;
    while (hd_addr_take_last(&list, &next)) {
        client = next;
        found = true;
        if (!rc->recursive || !is_trusted(rc, &client))
            break;
    }
    if (found)
        hd_req_set_remote(req, &client);
    return HD_OK;
}

/* Of stream: what the PROXY protocol says counts only if a trusted proxy says it. */
static hd_rc_t on_conn(hd_conn_t *c, const void *conf)
{
    const realip_conf_t *rc = conf;

    if (rc->n > 0 && c->facts != NULL && !is_trusted(rc, &c->remote))
        c->facts->proxied_untrusted = true;
    return HD_OK;
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "set_real_ip_from",
     .scope = IN_ANY | HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .repeats = true,
     .set = add_trusted,
     .help = "ADDRESS | ADDRESS/BITS | unix:: a proxy whose word on the client's address "
             "is believed; in stream the PROXY protocol's (not given there: anybody's)"},
    {.name = "real_ip_header",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_field,
     .help = "FIELD | X-Real-IP | X-Forwarded-For | proxy_protocol: where it says so "
             "(X-Real-IP)"},
    {.name = "real_ip_recursive",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(realip_conf_t, recursive),
     .help = "on | off: of a list the last address that is not trusted, rather than the "
             "last (off)"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "realip",
    .directives = directives,
    .conf_size = sizeof(realip_conf_t),
    .phase = HD_PHASE_POST_READ,
    .is_again_in_location = true,
    .follows_rewrite = true, /* in a location: nginx's preaccess phase */
    .on_request_headers = on_request_headers,
    .on_conn = on_conn,
};
