/* lua: policies as scripts, at the places where they decide:
 *     access_by_lua_block { if not hd.peer.principal then hd.exit(403, "who?") end }
 *     header_filter_by_lua_file conf/headers.lua;
 *     log_by_lua_block { hd.log("info", hd.req.path) }
 * or by xDS, as Envoy's Lua filter has them. state.h says what keeps them in bounds. A
 * script that fails answers 500, with the reason in the log: a policy that broke down
 * must not let everyone in.
 */
#include "state.h"

#include "ext/http_lua.pb-c.h"
#include "lib/pb_unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define INSTRUCTIONS_MAX 1000000u
#define SOURCE_MAX (1u << 20)

typedef struct {
    const script_t *access, *header_filter, *log;
    const script_t *envoy;
    uint32_t instructions_max; /* 0: default */
    uint64_t memory_max;       /* main level; 0: default */
} lua_conf_t;

/* --- running --- */

static hd_rc_t fail(hd_req_t *req, const hd_err_t *err)
{
    return hd_req_fail(req, 500, HD_E_MODULE, "lua: %s", err->text);
}

static hd_rc_t answer(hd_req_t *req)
{
    const script_run_t *r = &script_run;
    hd_str_t type = HD_STR("text/plain");
    hd_rc_t rc;

    if (r->exit_status == 0)
        return HD_OK;
    rc = hd_req_answer(req, r->exit_status, type, r->exit_body, NULL, "lua_response");
    for (uint32_t i = 0; i < r->exit_fields_n; i++) {
        if (hd_res_set_header(req, r->exit_fields[i].key, r->exit_fields[i].value) !=
            HD_OK)
            return hd_req_fail(req, 500, HD_E_MODULE, "lua: too many fields");
    }
    return rc;
}

static hd_rc_t execute(hd_req_t *req, const script_t *s, const char *function,
                       script_phase_t phase)
{
    hd_err_t err = {0};
    hd_rc_t rc = script_execute(s, function, phase, req, &err);

    return rc == HD_OK ? HD_OK : rc == HD_DONE ? answer(req) : fail(req, &err);
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const lua_conf_t *lc = conf;

    if (lc->access != NULL)
        return execute(req, lc->access, NULL, PHASE_REQUEST);
    return lc->envoy == NULL ? HD_OK
                             : execute(req, lc->envoy, "envoy_on_request", PHASE_REQUEST);
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const lua_conf_t *lc = conf;

    if (lc->header_filter != NULL)
        return execute(req, lc->header_filter, NULL, PHASE_RESPONSE);
    return lc->envoy == NULL
               ? HD_OK
               : execute(req, lc->envoy, "envoy_on_response", PHASE_RESPONSE);
}

static void on_log(hd_req_t *req, const void *conf)
{
    const lua_conf_t *lc = conf;
    hd_err_t err = {0};

    if (lc->log != NULL &&
        script_execute(lc->log, NULL, PHASE_LOG, req, &err) == HD_ERROR)
        hd_log(HD_LOG_ERROR, "lua: %s", err.text);
}

/* --- directives --- */

static hd_rc_t make_script(hd_conf_t *cf, hd_str_t source, hd_str_t name,
                           script_kind_t kind, uint32_t instructions_max,
                           const script_t **to, hd_err_t *err)
{
    script_t *s = hd_pool_new(cf->pool, script_t);

    if (source.len > SOURCE_MAX)
        return hd_err_set(err, HD_E_CONF, "a script of more than %u bytes", SOURCE_MAX);
    s->source = hd_str_dup(cf->pool, source);
    s->name = hd_str_dup(cf->pool, name);
    s->region = cf->region;
    s->kind = (uint8_t)kind;
    s->instructions_max = instructions_max;
    *to = s;
    return kind == SCRIPT_BLOCK ? script_check(s->source, s->name, err) : HD_OK;
}

static const script_t **place_of(hd_conf_t *cf, lua_conf_t *lc)
{
    hd_str_t name = cf->node->name;

    return hd_str_has_prefix(name, HD_STR("access"))   ? &lc->access
           : hd_str_has_prefix(name, HD_STR("header")) ? &lc->header_filter
                                                       : &lc->log;
}

static hd_rc_t set_block(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    lua_conf_t *lc = conf;
    hd_str_t name = hd_str_printf(cf->temp, "%.*s(%.*s)", HD_STR_ARG(cf->node->name),
                                  HD_STR_ARG(hd_conf_place(cf)));

    return make_script(cf, args[0], name, SCRIPT_BLOCK, 0, place_of(cf, lc), err);
}

static hd_rc_t read_source(hd_conf_t *cf, hd_str_t path, hd_str_t *source, hd_err_t *err)
{
    int fd = open(path.data, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *text;
    ssize_t n;

    if (fd < 0)
        return hd_err_set_sys(err, errno, "open() \"%s\" failed", path.data);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)SOURCE_MAX) {
        hd_ignore(close(fd)); /* was only read */
        return hd_err_set(err, HD_E_CONF, "\"%s\" is no file of up to %u bytes",
                          path.data, SOURCE_MAX);
    }
    text = hd_pool_alloc_unaligned(cf->temp, (size_t)st.st_size + 1);
    n = read(fd, text, (size_t)st.st_size);
    hd_ignore(close(fd));
    if (n != (ssize_t)st.st_size)
        return hd_err_set_sys(err, errno, "read() \"%s\" failed", path.data);
    *source = hd_str_n(text, (size_t)n);
    return HD_OK;
}

static hd_rc_t set_file(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t path = hd_conf_path(cf, args[0], true), source;
    lua_conf_t *lc = conf;

    path = hd_str_dup(cf->temp, path);
    if (read_source(cf, path, &source, err) != HD_OK)
        return HD_ERROR;
    return make_script(cf, source, path, SCRIPT_BLOCK, 0, place_of(cf, lc), err);
}

static const script_t *limited(hd_conf_t *cf, const script_t *s, uint32_t max)
{
    script_t *copy;

    if (s == NULL || s->instructions_max == max)
        return s;
    copy = hd_pool_new(cf->pool, script_t);
    *copy = *s;
    copy->instructions_max = max;
    return copy;
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    lua_conf_t *lc = conf;
    uint32_t max = lc->instructions_max > 0 ? lc->instructions_max : INSTRUCTIONS_MAX;

    (void)err;
    lc->access = limited(cf, lc->access, max);
    lc->header_filter = limited(cf, lc->header_filter, max);
    lc->log = limited(cf, lc->log, max);
    return HD_OK;
}

/* --- xDS --- */

static hd_rc_t read_data(const PbCore__DataSource *d, hd_str_t *source, hd_err_t *err)
{
    switch (d->specifier_case) {
    case PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        *source = hd_str_c(d->inline_string);
        return HD_OK;
    case PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        *source = hd_str_n((const char *)d->inline_bytes.data, d->inline_bytes.len);
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "lua: only inline source is taken from a control plane");
    }
}

static hd_rc_t set_envoy(hd_conf_t *cf, hd_str_t source, lua_conf_t *lc, hd_err_t *err)
{
    if (source.len == 0)
        return HD_OK;
    if (make_script(cf, source, HD_STR("lua"), SCRIPT_ENVOY, INSTRUCTIONS_MAX, &lc->envoy,
                    err) != HD_OK)
        return HD_ERROR;
    return script_check(lc->envoy->source, lc->envoy->name, err);
}

static hd_rc_t read_lua(hd_conf_t *cf, const void *of, lua_conf_t *lc, hd_err_t *err)
{
    const PbHttpLua__Lua *msg = of;
    hd_str_t source = hd_str_c(msg->inline_code);

    if (msg->default_source_code != NULL &&
        read_data(msg->default_source_code, &source, err) != HD_OK)
        return HD_ERROR;
    if (msg->n_source_codes > 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "lua: source_codes, which routes choose from, are not "
                          "supported");
    return set_envoy(cf, source, lc, err);
}

static hd_rc_t read_route(hd_conf_t *cf, const void *of, lua_conf_t *lc, hd_err_t *err)
{
    const PbHttpLua__LuaPerRoute *msg = of;
    hd_str_t source = HD_STR_NONE;

    if (msg->filter_context != NULL)
        return hd_err_set(err, HD_E_RESOURCE, "lua: filter_context is not supported");
    switch (msg->override_case) {
    case PB_HTTP_LUA__LUA_PER_ROUTE__OVERRIDE_DISABLED:
        return HD_OK;
    case PB_HTTP_LUA__LUA_PER_ROUTE__OVERRIDE_SOURCE_CODE:
        if (read_data(msg->source_code, &source, err) != HD_OK)
            return HD_ERROR;
        return set_envoy(cf, source, lc, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "lua: of a route disabled or source_code is supported");
    }
}

typedef hd_rc_t read_pt(hd_conf_t *cf, const void *msg, lua_conf_t *lc, hd_err_t *err);

static hd_rc_t build(hd_conf_t *cf, const ProtobufCMessageDescriptor *type,
                     hd_str_t bytes, read_pt *read, lua_conf_t *lc, hd_err_t *err)
{
    hd_pb_arena_t arena;
    const void *msg;
    hd_rc_t rc;

    hd_pb_arena_init(&arena, 4 << 20);
    msg = pb_unpack(type, bytes, &arena, "lua: ", err);
    rc = msg != NULL ? read(cf, msg, lc, err) : HD_ERROR;
    hd_pb_arena_deinit(&arena);
    return rc;
}

static hd_rc_t build_lua(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                         hd_err_t *err)
{
    (void)is_route;
    return build(cf, HD_PB(pb_http_lua__lua), bytes, read_lua, conf, err);
}

static hd_rc_t build_route(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                           hd_err_t *err)
{
    (void)is_route;
    return build(cf, HD_PB(pb_http_lua__lua_per_route), bytes, read_route, conf, err);
}

/* --- the module --- */

static hd_rc_t on_process_start(hd_member_t *m, hd_loop_t *loop, hd_err_t *err)
{
    const lua_conf_t *main = hd_conf_main_of(m, &hd_module);

    (void)loop;
    (void)err;
    if (main != NULL && main->memory_max > 0)
        script_memory_max = main->memory_max;
    return HD_OK;
}

static void on_process_stop(hd_member_t *m)
{
    (void)m;
    script_stop();
}

#define PLACES (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_conf_limits_t instructions_limits = {.min = 1000, .max = 1000000000};
static const hd_conf_limits_t memory_limits = {.min = 1 << 20, .max = 1u << 30};

static const hd_directive_t directives[] = {
    {.name = "access_by_lua_block",
     .scope = PLACES,
     .args_n = 1,
     .set = set_block,
     .help = "{ SCRIPT }: decides about a request before it goes on: hd.exit(403, "
             "\"why\") refuses"},
    {.name = "access_by_lua_file",
     .scope = PLACES,
     .args_n = 1,
     .set = set_file,
     .help = "FILE: the same, from a file beside the configuration"},
    {.name = "header_filter_by_lua_block",
     .scope = PLACES,
     .args_n = 1,
     .set = set_block,
     .help = "{ SCRIPT }: sees a response's head, may change it"},
    {.name = "header_filter_by_lua_file",
     .scope = PLACES,
     .args_n = 1,
     .set = set_file,
     .help = "FILE: the same, from a file beside the configuration"},
    {.name = "log_by_lua_block",
     .scope = PLACES,
     .args_n = 1,
     .set = set_block,
     .help = "{ SCRIPT }: runs at a request's end"},
    {.name = "log_by_lua_file",
     .scope = PLACES,
     .args_n = 1,
     .set = set_file,
     .help = "FILE: the same, from a file beside the configuration"},
    {.name = "lua_max_instructions",
     .scope = PLACES,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = offsetof(lua_conf_t, instructions_max),
     .post = &instructions_limits,
     .help = "N: a script that runs longer fails its request; 1000000 if not given"},
    {.name = "lua_max_memory",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_size,
     .offset = offsetof(lua_conf_t, memory_max),
     .post = &memory_limits,
     .help = "SIZE: of all scripts of a process together; 16m if not given"},
    {0},
};

static const hd_xds_type_t xds_types[] = {
    {.url = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
     .build = build_lua},
    {.url = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute",
     .build = build_route},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "lua",
    .directives = directives,
    .conf_size = sizeof(lua_conf_t),
    .phase = HD_PHASE_ACCESS,
    .order = 4,
    .xds_types = xds_types,
    .on_conf = on_conf,
    .on_process_start = on_process_start,
    .on_process_stop = on_process_stop,
    .on_request_headers = on_request_headers,
    .on_response_headers = on_response_headers,
    .on_log = on_log,
};
