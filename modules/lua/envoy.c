/* Envoy's Lua: envoy_on_request(handle), envoy_on_response(handle). What a handle can't
 * do here is an error of the script, never silence. */
#include "state.h"

#define HANDLE "envoy.handle"
#define HEADERS "envoy.headers"

/* A handle or header object is good in its own run only. */
typedef struct {
    uint32_t run;
} object_t;

static hd_req_t *check(lua_State *L, const char *type)
{
    const object_t *o = luaL_checkudata(L, 1, type);

    if (script_run.req == NULL || o->run != script_run.id)
        luaL_error(L, "a handle of another request");
    return script_run.req;
}

static hd_str_t check_str(lua_State *L, int at)
{
    size_t len;
    const char *s = luaL_checklstring(L, at, &len);

    return hd_str_n(s, len);
}

static int push_object(lua_State *L, const char *type)
{
    object_t *o = lua_newuserdata(L, sizeof(*o));

    o->run = script_run.id;
    luaL_getmetatable(L, type);
    lua_setmetatable(L, -2);
    return 1;
}

static bool is_response(void)
{
    return script_run.phase == PHASE_RESPONSE;
}

/* --- headers --- */

static int headers_get(lua_State *L)
{
    hd_req_t *req = check(L, HEADERS);
    hd_str_t name = check_str(L, 2), value;
    bool found = true;

    if (is_response() && hd_str_eq(name, HD_STR(":status")))
        value = hd_str_printf(hd_req_pool(req), "%u", hd_res_status(req));
    else
        value = is_response() ? hd_res_header(req, name, &found)
                              : hd_req_header_joined(req, name, &found);
    if (!found)
        return 0;
    lua_pushlstring(L, value.len > 0 ? value.data : "", value.len);
    return 1;
}

static int done(lua_State *L, hd_rc_t rc)
{
    return rc == HD_OK ? 0 : luaL_error(L, "not a field that could be set");
}

static int headers_add(lua_State *L)
{
    hd_req_t *req = check(L, HEADERS);

    return done(L, is_response()
                       ? hd_res_add_header(req, check_str(L, 2), check_str(L, 3))
                       : hd_req_add_header(req, check_str(L, 2), check_str(L, 3)));
}

static int headers_replace(lua_State *L)
{
    hd_req_t *req = check(L, HEADERS);
    hd_str_t name = check_str(L, 2), value = check_str(L, 3);
    uint64_t status;

    if (is_response() && hd_str_eq(name, HD_STR(":status"))) {
        if (!hd_str_to_u64(value, 599, &status) || status < 200)
            return luaL_error(L, "a status is 200 to 599");
        hd_res_set_status(req, (unsigned)status);
        return 0;
    }
    return done(L, is_response() ? hd_res_set_header(req, name, value)
                                 : hd_req_set_header(req, name, value));
}

static int headers_remove(lua_State *L)
{
    hd_req_t *req = check(L, HEADERS);

    if (is_response())
        hd_res_remove_header(req, check_str(L, 2));
    else
        hd_req_remove_header(req, check_str(L, 2));
    return 0;
}

/* The state of a walk is the number of fields seen. */
static int next_header(lua_State *L)
{
    hd_req_t *req = check(L, HEADERS);
    uint32_t at = (uint32_t)lua_tointeger(L, lua_upvalueindex(1));
    hd_str_t name, value;

    if (!(is_response() ? hd_res_next_header(req, &at, &name, &value)
                        : hd_req_next_header(req, &at, &name, &value)))
        return 0;
    lua_pushinteger(L, (lua_Integer)at);
    lua_replace(L, lua_upvalueindex(1));
    name = hd_str_dup_lower(hd_req_pool(req), name);
    lua_pushlstring(L, name.data, name.len);
    lua_pushlstring(L, value.len > 0 ? value.data : "", value.len);
    return 2;
}

int envoy_pairs(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TUSERDATA) {
        hd_ignore(check(L, HEADERS) == NULL);
        lua_pushinteger(L, 0);
        lua_pushcclosure(L, next_header, 1);
        lua_pushvalue(L, 1);
        return 2;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getglobal(L, "next");
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* --- the handle --- */

static int handle_headers(lua_State *L)
{
    hd_ignore(check(L, HANDLE) == NULL);
    return push_object(L, HEADERS);
}

static int log_at(lua_State *L, hd_log_level_t level)
{
    hd_str_t text;

    text = check_str(L, 2);
    hd_req_log(check(L, HANDLE), level, "lua: %.*s", HD_STR_ARG(text));
    return 0;
}

static int handle_log_debug(lua_State *L)
{
    return log_at(L, HD_LOG_DEBUG);
}

static int handle_log_info(lua_State *L)
{
    return log_at(L, HD_LOG_INFO);
}

static int handle_log_warn(lua_State *L)
{
    return log_at(L, HD_LOG_WARN);
}

static int handle_log_error(lua_State *L)
{
    return log_at(L, HD_LOG_ERROR);
}

#define RESPOND_FIELDS_MAX 32

/* respond({[":status"] = "403", name = value, …}, body) */
static int handle_respond(lua_State *L)
{
    hd_req_t *req = check(L, HANDLE);
    hd_kv_t *fields = hd_pool_new_n(hd_req_pool(req), hd_kv_t, RESPOND_FIELDS_MAX);
    uint64_t status = 0;
    uint32_t n = 0;

    if (is_response())
        return luaL_error(L, "respond: the response is already there");
    luaL_checktype(L, 2, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, 2) != 0; lua_pop(L, 1)) {
        hd_str_t name, value;

        if (lua_type(L, -2) != LUA_TSTRING)
            return luaL_error(L, "respond: a field's name is a string");
        name = check_str(L, -2);
        lua_pushvalue(L, -1); /* not converted in place: it is walked */
        value = check_str(L, -1);
        if (hd_str_eq(name, HD_STR(":status"))) {
            if (!hd_str_to_u64(value, 599, &status))
                return luaL_error(L, "respond: :status is 200 to 599");
        } else if (n == RESPOND_FIELDS_MAX || !hd_http_is_field_name(name) ||
                   !hd_http_is_field_value(value)) {
            return luaL_error(L, "respond: not fields, or more than %d",
                              RESPOND_FIELDS_MAX);
        } else {
            fields[n++] = (hd_kv_t){.key = hd_str_dup(hd_req_pool(req), name),
                                    .value = hd_str_dup(hd_req_pool(req), value)};
        }
        lua_pop(L, 1);
    }
    if (status < 200)
        return luaL_error(L, "respond: :status is 200 to 599");
    script_run.exit_status = (unsigned)status;
    script_run.exit_body = lua_isnoneornil(L, 3)
                               ? HD_STR("")
                               : hd_str_dup(hd_req_pool(req), check_str(L, 3));
    script_run.exit_fields = fields;
    script_run.exit_fields_n = n;
    return script_unwind(L);
}

static int handle_refuse(lua_State *L)
{
    return luaL_error(L, "this method of Envoy's handle is not supported here");
}

static const luaL_Reg headers_methods[] = {{"get", headers_get},
                                           {"add", headers_add},
                                           {"replace", headers_replace},
                                           {"remove", headers_remove},
                                           {NULL, NULL}};
static const luaL_Reg handle_methods[] = {{"headers", handle_headers},
                                          {"respond", handle_respond},
                                          {"logTrace", handle_log_debug},
                                          {"logDebug", handle_log_debug},
                                          {"logInfo", handle_log_info},
                                          {"logWarn", handle_log_warn},
                                          {"logErr", handle_log_error},
                                          {"logCritical", handle_log_error},
                                          {"body", handle_refuse},
                                          {"bodyChunks", handle_refuse},
                                          {"trailers", handle_refuse},
                                          {"httpCall", handle_refuse},
                                          {"metadata", handle_refuse},
                                          {"streamInfo", handle_refuse},
                                          {"connection", handle_refuse},
                                          {"importPublicKey", handle_refuse},
                                          {"verifySignature", handle_refuse},
                                          {"base64Escape", handle_refuse},
                                          {"timestamp", handle_refuse},
                                          {NULL, NULL}};

static void open_type(lua_State *L, const char *type, const luaL_Reg *methods)
{
    luaL_newmetatable(L, type);
    lua_newtable(L);
    for (; methods->name != NULL; methods++) {
        lua_pushcfunction(L, methods->func);
        lua_setfield(L, -2, methods->name);
    }
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void envoy_open(lua_State *L)
{
    open_type(L, HANDLE, handle_methods);
    open_type(L, HEADERS, headers_methods);
}

void envoy_push_handle(lua_State *L)
{
    push_object(L, HANDLE);
}
