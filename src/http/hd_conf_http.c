/* http { … }, server, listen, server_name: who is there, then resources. */
#include "http/hd_conf_http.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_http2.h"
#include "http/hd_conf_grpc.h"
#include "http/hd_conf_tunnel.h"
#include "http/hd_conf_int.h"

#include <unistd.h>

#define SERVERS_MAX 100000
#define NAMES_MAX 100000

/* The block being built; NULL: none. Not in a conf: what lies in a resource must not
 * differ from build to build (HD_CONTENT_BUILT). */
static hd_http_build_t *building;

hd_http_build_t *hd_http_build_of(const hd_conf_t *cf)
{
    (void)cf;
    return building;
}

const void *hd_http_look(const hd_conf_t *cf, const hd_module_t *module)
{
    return cf->confs[hd_module_number(module)];
}

/* --- directives of a server --- */

static hd_rc_t set_listen(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    if (building->server == NULL)
        return HD_OK;
    return hd_conf_parse_listen(cf, args, false, &building->server->listens, err);
}

static hd_rc_t add_name(hd_http_build_t *b, hd_str_t name, hd_err_t *err)
{
    hd_str_t *added = hd_array_add(&b->server->names);

    if (added == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d names", NAMES_MAX);
    *added = name;
    return HD_OK;
}

/* A star is a whole label, first or last: "*.x", "x.*", and ".x" for "x" and "*.x". */
static bool is_good_wildcard(hd_str_t name)
{
    ssize_t star = hd_str_find_char(name, '*');

    if (hd_str_find(name, HD_STR("..")) >= 0 || hd_str_eq(name, HD_STR(".")))
        return false;
    if (star < 0)
        return true;
    if (hd_str_find_char(hd_str_sub(name, (size_t)star + 1, name.len), '*') >= 0)
        return false;
    return (hd_str_has_prefix(name, HD_STR("*.")) && name.len > 2) ||
           (hd_str_has_suffix(name, HD_STR(".*")) && name.len > 2);
}

static hd_rc_t set_one_name(hd_conf_t *cf, hd_http_build_t *b, hd_str_t arg,
                            hd_err_t *err)
{
    hd_str_t name = hd_str_dup_lower(cf->temp, arg);

    if (arg.len > 0 && arg.data[0] == '~') {
        hd_match_t regex = {.kind = HD_MATCH_REGEX,
                            .part = true,
                            .ignore_case = true,
                            .text = hd_str_sub(arg, 1, arg.len)};

        if (regex.text.len == 0)
            return hd_err_set(err, HD_E_CONF, "empty regex in server name \"~\"");
        if (hd_match_check(&regex, err) != HD_OK)
            return HD_ERROR;
        return add_name(b, hd_str_dup(cf->temp, arg), err);
    }
    if (hd_str_eq(arg, HD_STR("$hostname"))) {
        char host[256] = "";

        hd_ignore(gethostname(host, sizeof(host) - 1)); /* then it names nothing */
        return add_name(b, hd_str_dup_lower(cf->temp, hd_str_c(host)), err);
    }
    if (!is_good_wildcard(name))
        return hd_err_set(err, HD_E_CONF,
                          "invalid server name or wildcard \"%.*s\": a star is the whole "
                          "first or last part, as in *.example.com",
                          HD_STR_ARG(arg));
    if (hd_str_find_char(name, '/') >= 0 || hd_str_find_char(name, '$') >= 0)
        hd_conf_warn(cf, "server name \"%.*s\" has suspicious symbols", HD_STR_ARG(arg));
    if (name.len > 1 && name.data[0] == '.') {
        if (add_name(b, hd_str_sub(name, 1, name.len), err) != HD_OK)
            return HD_ERROR;
        return add_name(b, hd_str_printf(cf->temp, "*%.*s", HD_STR_ARG(name)), err);
    }
    return add_name(b, name, err);
}

static hd_rc_t set_server_name(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    (void)conf;
    if (building->server == NULL)
        return HD_OK;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (set_one_name(cf, building, args[i], err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

/* --- the blocks --- */

/* Upstreams may stand behind the servers that use them, so servers are only noted. */
static hd_rc_t note_server(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_conf_server_t *s = hd_array_add(&building->servers);

    (void)args;
    (void)conf;
    if (s == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d servers", SERVERS_MAX);
    s->node = (hd_node_t *)(uintptr_t)cf->node;
    hd_array_init(&s->listens, cf->temp, sizeof(hd_conf_listen_t), HD_CONF_LISTENS_MAX);
    hd_array_init(&s->names, cf->temp, sizeof(hd_str_t), NAMES_MAX);
    return HD_OK;
}

static hd_rc_t sketch_server(hd_http_build_t *b, hd_conf_t *cf, hd_conf_server_t *s,
                             hd_err_t *err)
{
    hd_place_t place = {.kind = HD_PLACE_SERVER};
    hd_conf_t at;

    b->server = s;
    if (hd_http_enter(cf, s->node, &place, HD_IN_SERVER, &at, err) != HD_OK)
        return HD_ERROR;
    s->has_cert = hd_conf_ssl_has_cert(&at);
    s->verifies = hd_conf_ssl_verifies(&at);
    s->is_http2 = hd_http_core_is_http2(&at);
    if (s->names.n == 0 && add_name(b, HD_STR_NONE, err) != HD_OK)
        return HD_ERROR;
    at.node = s->node;
    hd_conf_ssl_warn(&at);
    return s->listens.n > 0 ? HD_OK : hd_conf_default_listen(&at, &s->listens, err);
}

static hd_conf_address_t *find_address(hd_http_build_t *b, hd_str_t name)
{
    for (size_t i = 0; i < b->addresses.n; i++) {
        hd_conf_address_t *a = hd_array_at(&b->addresses, hd_conf_address_t, i);

        if (hd_str_eq(a->listen.name, name))
            return a;
    }
    return NULL;
}

static hd_rc_t add_to_address(hd_http_build_t *b, hd_conf_t *cf, hd_conf_server_t *s,
                              const hd_conf_listen_t *l, hd_err_t *err)
{
    hd_conf_address_t *a = find_address(b, l->name);
    hd_conf_server_t **added;

    if (a == NULL) {
        a = hd_array_add(&b->addresses);
        if (a == NULL)
            return hd_err_set(err, HD_E_CONF, "more than %d addresses to listen on",
                              HD_CONF_LISTENS_MAX);
        a->listen = *l;
        a->first = s;
        hd_array_init(&a->servers, cf->temp, sizeof(s), SERVERS_MAX);
    } else if (hd_conf_merge_listen(&a->listen, l, err) != HD_OK) {
        return hd_conf_blame(cf, l->node, err);
    }
    if (l->is_default)
        a->first = s;
    added = hd_array_add(&a->servers);
    hd_bug_on(added == NULL); /* no more than there are servers */
    *added = s;
    return HD_OK;
}

static hd_rc_t sketch(hd_http_build_t *b, hd_conf_t *cf, hd_err_t *err)
{
    b->is_sketch = true;
    for (size_t i = 0; i < b->servers.n; i++) {
        hd_conf_server_t *s = hd_array_at(&b->servers, hd_conf_server_t, i);

        if (sketch_server(b, cf, s, err) != HD_OK)
            return HD_ERROR;
        for (size_t k = 0; k < s->listens.n; k++) {
            if (add_to_address(b, cf, s, hd_array_at(&s->listens, hd_conf_listen_t, k),
                               err) != HD_OK)
                return HD_ERROR;
        }
    }
    b->is_sketch = false;
    b->server = NULL;
    return HD_OK;
}

static hd_rc_t enter_http(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_http_build_t *b = hd_pool_new(cf->temp, hd_http_build_t);
    hd_conf_t at = *cf;
    hd_rc_t rc;

    (void)args;
    (void)conf;
    building = b;
    b->node = (hd_node_t *)(uintptr_t)cf->node;
    hd_array_init(&b->servers, cf->temp, sizeof(hd_conf_server_t), SERVERS_MAX);
    hd_array_init(&b->addresses, cf->temp, sizeof(hd_conf_address_t),
                  HD_CONF_LISTENS_MAX);
    hd_http_core_defaults(cf);
    at.pool = cf->temp; /* what is read here is only looked at */
    at.region = NULL;
    rc = hd_conf_enter(&at, b->node, HD_IN_HTTP, &at.confs, err);
    at.scope = HD_IN_HTTP;
    if (rc == HD_OK)
        rc = sketch(b, &at, err);
    if (rc == HD_OK)
        rc = hd_http_build_tables(b, cf, err);
    if (rc == HD_OK)
        rc = hd_http_build_listeners(b, cf, err);
    building = NULL;
    return rc;
}

hd_rc_t hd_http_begin(hd_http_build_t *b, hd_conf_t *outer, hd_res_type_t type,
                      hd_str_t name, hd_conf_t *cf, hd_err_t *err)
{
    if (hd_conf_begin_resource(outer, type, name, cf, err) != HD_OK)
        return HD_ERROR;
    b->place = NULL;
    hd_http_core_defaults(cf);
    hd_http_file_defaults(cf);
    cf->node = b->node;
    if (hd_conf_apply_simple(cf, b->node, HD_IN_HTTP, err) != HD_OK ||
        hd_http_core_types(cf, b->node, err) != HD_OK)
        return HD_ERROR;
    cf->scope = HD_IN_HTTP;
    return hd_conf_complete(cf, HD_IN_HTTP, err);
}

static const hd_directive_t directives[] = {
    {.name = "http",
     .scope = HD_IN_MAIN,
     .block = enter_http,
     .help = "{ … }: HTTP servers"},
    {.name = "server",
     .scope = HD_IN_HTTP,
     .repeats = true,
     .block = note_server,
     .help = "{ … }: a server, chosen by the address a request came to and its Host"},
    {.name = "listen",
     .scope = HD_IN_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_listen,
     .help = "ADDRESS[:PORT]|PORT|unix:PATH [ssl] [http2] [default_server] "
             "[proxy_protocol] [original_dst] [transparent] [reuseport] [backlog=N] "
             "[rcvbuf=SIZE] [sndbuf=SIZE] "
             "[ipv6only=on|off] [so_keepalive=on|off|IDLE:INTERVAL:PROBES]: where the "
             "server is reached"},
    {.name = "server_name",
     .scope = HD_IN_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_server_name,
     .help = "NAME …: names of the server: exact, *.x, x.*, .x (both x and *.x), ~regex, "
             "\"\" (no Host)"},
    {.name = "location",
     .scope = HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .block = hd_http_enter_location,
     .help = "[=|^~|~|~*] PATH { … } or @NAME { … }: what becomes of requests by path"},
    {.name = "limit_except",
     .scope = HD_IN_LOCATION,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .block = hd_http_enter_limit_except,
     .help = "METHOD … { … }: what holds for requests of all other methods; GET means "
             "HEAD, too"},
    {0},
};

const hd_module_t hd_http_module = {
    .abi = HD_MODULE_ABI,
    .name = "http",
    .directives = directives,
};

void hd_http_conf_register(void)
{
    hd_ignore(hd_module_add(&hd_http_module) == 0); /* numbers are asked for by name */
    hd_ignore(hd_module_add(&hd_http_core_module) == 0);
    hd_ignore(hd_module_add(&hd_proxy_module) == 0);
    hd_grpc_register();
    hd_tunnel_register();
    hd_ignore(hd_module_add(&hd_answer_module) == 0);
    hd_ignore(hd_module_add(&hd_http2_module) == 0);
    hd_ignore(hd_module_add(&hd_error_page_module) == 0);
    hd_ignore(hd_module_add(&hd_map_module) == 0);
    hd_ignore(hd_module_add(&hd_rewrite_module) == 0);
    hd_ignore(hd_module_add(&hd_file_module) == 0);
    hd_ignore(hd_module_add(&hd_try_files_module) == 0);
}
