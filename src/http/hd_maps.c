#include "http/hd_maps.h"
#include "core/base/hd_log.h"
#include "http/hd_request_int.h"

static void take_captures(const hd_attr_of_t *of, const hd_captures_t *captures,
                          hd_str_t in, const hd_named_group_t *groups, uint32_t groups_n)
{
    hd_router_take_captures(of->req, captures, in, groups, groups_n, 0);
}

static void resolve(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t *out)
{
    const hd_req_t *req = of->req;
    hd_value_map_env_t env = {.region = req->routes_region,
                              .take_captures = take_captures};
    const hd_value_map_t *map =
        req->routes == NULL ? NULL : hd_value_map_find(req->routes->maps, key);

    if (map == NULL && req->loc->warns_uninitialized)
        hd_req_log(of->req, HD_LOG_WARN, "using uninitialized \"%.*s\" variable",
                   HD_STR_ARG(key->name));
    if (map == NULL)
        return;
    if (hd_value_map_eval(map, &env, of, &out->str) != HD_OK) {
        hd_ignore(hd_req_err(of->req, HD_E_CONF, "maps use one another in a ring"));
        return;
    }
    out->type = HD_VAL_STR;
    out->no_cache = map->is_volatile;
}

/* In the handshake, which has no request yet. */
static bool find_on_conn(const hd_conn_t *c, hd_maps_at_t *at)
{
    const hd_filter_chain_t *chain = hd_listener_chain_of(c);
    const hd_http_conf_t *http;

    if (chain == NULL || chain->protocol != hd_http_protocol())
        return false;
    http = chain->protocol_conf;
    at->region =
        http->routes != NULL ? hd_slot_get(hd_loop_member(c->loop), http->routes) : NULL;
    at->maps = at->region != NULL ? ((const hd_routes_t *)at->region->root)->maps : NULL;
    return true;
}

void hd_http_maps_register(void)
{
    hd_value_maps_on_conns(find_on_conn);
    hd_attr_resolve = resolve;
}
