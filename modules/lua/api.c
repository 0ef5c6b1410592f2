/* What policy scripts see: `hd`. */
#include "state.h"

#define SCRIPT_ARGS_MAX 16

static hd_req_t *request(lua_State *L)
{
    if (script_run.req == NULL)
        luaL_error(L, "there is no request here");
    return script_run.req;
}

static hd_req_t *response(lua_State *L)
{
    if (script_run.phase == PHASE_REQUEST)
        luaL_error(L, "there is no response yet");
    return request(L);
}

static void not_in_log(lua_State *L)
{
    if (script_run.phase == PHASE_LOG)
        luaL_error(L, "the request is over");
}

static hd_str_t check_str(lua_State *L, int at)
{
    size_t len;
    const char *s = luaL_checklstring(L, at, &len);

    return hd_str_n(s, len);
}

static void push_str(lua_State *L, hd_str_t s)
{
    lua_pushlstring(L, s.len > 0 ? s.data : "", s.len);
}

/* nil where there is none */
static int push_found(lua_State *L, hd_str_t s, bool found)
{
    if (found)
        push_str(L, s);
    else
        lua_pushnil(L);
    return 1;
}

static int check_set(lua_State *L, hd_rc_t rc)
{
    return rc == HD_OK ? 0 : luaL_error(L, "not a field that could be set");
}

/* --- hd.req --- */

static int req_header(lua_State *L)
{
    bool found;
    hd_str_t value = hd_req_header_joined(request(L), check_str(L, 1), &found);

    return push_found(L, value, found);
}

typedef bool next_pt(hd_req_t *req, uint32_t *at, hd_str_t *name, hd_str_t *value);

/* All fields, names in lower case; several of one name joined, as hd.req.header does. */
static int push_headers(lua_State *L, hd_req_t *req, next_pt *next)
{
    hd_str_t name, value;
    uint32_t at = 0;

    lua_newtable(L);
    while (next(req, &at, &name, &value)) {
        push_str(L, hd_str_dup_lower(hd_req_pool(req), name));
        lua_pushvalue(L, -1);
        lua_rawget(L, -3);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            push_str(L, value);
        } else {
            lua_pushliteral(L, ",");
            push_str(L, value);
            lua_concat(L, 3);
        }
        lua_rawset(L, -3);
    }
    return 1;
}

static int req_headers(lua_State *L)
{
    return push_headers(L, request(L), hd_req_next_header);
}

static int req_set_header(lua_State *L)
{
    hd_req_t *req = request(L);

    not_in_log(L);
    if (lua_isnoneornil(L, 2)) {
        hd_req_remove_header(req, check_str(L, 1));
        return 0;
    }
    return check_set(L, hd_req_set_header(req, check_str(L, 1), check_str(L, 2)));
}

static int req_add_header(lua_State *L)
{
    not_in_log(L);
    return check_set(L, hd_req_add_header(request(L), check_str(L, 1), check_str(L, 2)));
}

static int req_set_path(lua_State *L)
{
    hd_str_t path = check_str(L, 1);

    if (script_run.phase != PHASE_REQUEST)
        return luaL_error(L, "the request is on its way");
    for (size_t i = 0; i < path.len; i++) {
        if ((unsigned char)path.data[i] <= ' ' || path.data[i] == 0x7f)
            return luaL_error(L, "not a path");
    }
    if (path.len == 0 || path.data[0] != '/')
        return luaL_error(L, "a path begins with '/'");
    hd_req_set_path(request(L), path);
    return 0;
}

static int req_index(lua_State *L)
{
    static const struct {
        const char *name;
        hd_str_t (*get)(hd_req_t *req);
    } properties[] = {
        {"method", hd_req_method}, {"path", hd_req_path},     {"host", hd_req_authority},
        {"query", hd_req_query},   {"scheme", hd_req_scheme}, {"uri", hd_req_raw_path},
    };
    hd_str_t name = check_str(L, 2);

    for (unsigned i = 0; i < hd_countof(properties); i++) {
        if (hd_str_eq(name, hd_str_c(properties[i].name))) {
            push_str(L, properties[i].get(request(L)));
            return 1;
        }
    }
    return 0;
}

/* --- hd.res --- */

static int res_header(lua_State *L)
{
    bool found;
    hd_str_t value = hd_res_header(response(L), check_str(L, 1), &found);

    return push_found(L, value, found);
}

static int res_headers(lua_State *L)
{
    return push_headers(L, response(L), hd_res_next_header);
}

static int res_set_header(lua_State *L)
{
    hd_req_t *req = response(L);

    not_in_log(L);
    if (lua_isnoneornil(L, 2)) {
        hd_res_remove_header(req, check_str(L, 1));
        return 0;
    }
    return check_set(L, hd_res_set_header(req, check_str(L, 1), check_str(L, 2)));
}

static int res_add_header(lua_State *L)
{
    hd_req_t *req = response(L);

    not_in_log(L);
    return check_set(L, hd_res_add_header(req, check_str(L, 1), check_str(L, 2)));
}

static int res_set_status(lua_State *L)
{
    hd_req_t *req = response(L);
    lua_Integer status = luaL_checkinteger(L, 1);

    not_in_log(L);
    if (status < 200 || status > 599)
        return luaL_error(L, "a status is 200 to 599");
    hd_res_set_status(req, (unsigned)status);
    return 0;
}

static int res_index(lua_State *L)
{
    if (!hd_str_eq(check_str(L, 2), HD_STR("status")))
        return 0;
    lua_pushinteger(L, (lua_Integer)hd_res_status(response(L)));
    return 1;
}

/* --- hd.var --- */

static int var_index(lua_State *L)
{
    hd_attr_of_t of = hd_req_attr_of(request(L));
    hd_val_t value = {0};

    hd_attr_get_by_name(&of, check_str(L, 2), &value);
    switch (value.type) {
    case HD_VAL_STR:
        push_str(L, value.str);
        return 1;
    case HD_VAL_INT:
        lua_pushnumber(L, (lua_Number)value.num);
        return 1;
    case HD_VAL_BOOL:
        lua_pushboolean(L, value.num != 0);
        return 1;
    default:
        return 0;
    }
}

static int var_newindex(lua_State *L)
{
    hd_req_t *req = request(L);
    hd_attr_of_t of = hd_req_attr_of(req);
    hd_val_t value = {.type = HD_VAL_STR};
    hd_err_t err = {0};
    hd_attr_t key;

    value.str = hd_str_dup(hd_req_pool(req), check_str(L, 3));
    if (hd_attr_key(hd_req_pool(req), check_str(L, 2), true, &key, &err) != HD_OK ||
        hd_attr_set(&of, &key, value) != HD_OK)
        return luaL_error(L, "$%s can't be set", lua_tostring(L, 2));
    return 0;
}

/* --- hd.peer: the verified identity --- */

static int peer_index(lua_State *L)
{
    const hd_conn_t *c = hd_req_conn(request(L));
    hd_str_t id = c != NULL && c->facts != NULL ? c->facts->peer_principal : HD_STR_NONE;
    hd_str_t name = check_str(L, 2), rest, word, value;

    if (id.len == 0 || !hd_str_has_prefix(id, HD_STR("spiffe://")))
        return 0;
    if (hd_str_eq(name, HD_STR("principal"))) {
        push_str(L, id);
        return 1;
    }
    rest = hd_str_sub(id, 9, id.len);
    if (!hd_str_split(&rest, '/', &value))
        return 0;
    if (hd_str_eq(name, HD_STR("trust_domain"))) {
        push_str(L, value);
        return 1;
    }
    while (hd_str_split(&rest, '/', &word) && hd_str_split(&rest, '/', &value)) {
        if ((hd_str_eq(word, HD_STR("ns")) && hd_str_eq(name, HD_STR("namespace"))) ||
            (hd_str_eq(word, HD_STR("sa")) &&
             hd_str_eq(name, HD_STR("service_account")))) {
            push_str(L, value);
            return 1;
        }
    }
    return 0;
}

/* --- hd.exit, hd.log --- */

static int api_exit(lua_State *L)
{
    hd_req_t *req = request(L);
    lua_Integer status = luaL_checkinteger(L, 1);
    hd_str_t body = lua_isnoneornil(L, 2) ? HD_STR_NONE : check_str(L, 2);

    not_in_log(L);
    if (status != 0 && (status < 200 || status > 599))
        return luaL_error(L, "exit(STATUS, BODY): 200 to 599, or 0 to go on");
    script_run.exit_status = (unsigned)status;
    script_run.exit_body =
        body.data == NULL ? HD_STR_NONE : hd_str_dup(hd_req_pool(req), body);
    script_run.exit_fields_n = 0;
    return script_unwind(L);
}

static int api_log(lua_State *L)
{
    static const struct {
        const char *name;
        int level;
    } levels[] = {{"emerg", HD_LOG_EMERG}, {"alert", HD_LOG_ALERT},
                  {"crit", HD_LOG_CRIT},   {"error", HD_LOG_ERROR},
                  {"warn", HD_LOG_WARN},   {"notice", HD_LOG_NOTICE},
                  {"info", HD_LOG_INFO},   {"debug", HD_LOG_DEBUG}};
    bool has_level = lua_gettop(L) >= 2;
    hd_str_t text = check_str(L, has_level ? 2 : 1);
    int level = has_level ? -1 : HD_LOG_INFO;

    for (unsigned i = 0; has_level && i < hd_countof(levels); i++) {
        if (hd_str_eq(check_str(L, 1), hd_str_c(levels[i].name)))
            level = levels[i].level;
    }
    if (level < 0)
        return luaL_error(L, "log(LEVEL, TEXT): error, warn, notice, info, debug");
    /* a script's alarm is not the program's own */
    level = hd_max(level, (int)HD_LOG_ERROR);
    if (script_run.req != NULL)
        hd_req_log(script_run.req, (hd_log_level_t)level, "lua: %.*s", HD_STR_ARG(text));
    else
        hd_log((hd_log_level_t)level, "lua: %.*s", HD_STR_ARG(text));
    return 0;
}

/* --- */

static const luaL_Reg req_functions[] = {
    {"header", req_header},         {"headers", req_headers},
    {"set_header", req_set_header}, {"add_header", req_add_header},
    {"set_path", req_set_path},     {NULL, NULL}};
static const luaL_Reg res_functions[] = {
    {"header", res_header},         {"headers", res_headers},
    {"set_header", res_set_header}, {"add_header", res_add_header},
    {"set_status", res_set_status}, {NULL, NULL}};
static const luaL_Reg functions[] = {{"exit", api_exit}, {"log", api_log}, {NULL, NULL}};

static int no_property(lua_State *L)
{
    lua_pushnil(L);
    return 1;
}

static int refuse_set(lua_State *L)
{
    return luaL_error(L, "\"%s\" can't be set like this", luaL_checkstring(L, 2));
}

/* A table of functions, closed, with properties by <index>; into the one on top. */
static void add_object(lua_State *L, const char *name, const luaL_Reg *list,
                       lua_CFunction index, lua_CFunction newindex)
{
    lua_newtable(L);
    for (; list != NULL && list->name != NULL; list++) {
        lua_pushcfunction(L, list->func);
        lua_setfield(L, -2, list->name);
    }
    lua_newtable(L);
    lua_pushcfunction(L, index);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_setfield(L, -2, name);
}

/* --- functions of other modules: hd.MODULE.NAME --- */

static hd_script_value_t to_value(lua_State *L, int at)
{
    hd_script_value_t v = {.type = HD_SCRIPT_NIL};

    switch (lua_type(L, at)) {
    case LUA_TNIL:
        break;
    case LUA_TBOOLEAN:
        v.type = HD_SCRIPT_BOOL;
        v.boolean = lua_toboolean(L, at);
        break;
    case LUA_TNUMBER:
        v.type = HD_SCRIPT_NUMBER;
        v.number = lua_tonumber(L, at);
        break;
    default:
        v.type = HD_SCRIPT_STRING;
        v.string = check_str(L, at);
    }
    return v;
}

static int push_value(lua_State *L, const hd_script_value_t *v)
{
    switch (v->type) {
    case HD_SCRIPT_BOOL:
        lua_pushboolean(L, v->boolean);
        break;
    case HD_SCRIPT_NUMBER:
        lua_pushnumber(L, v->number);
        break;
    case HD_SCRIPT_STRING:
        push_str(L, v->string);
        break;
    default:
        lua_pushnil(L);
    }
    return 1;
}

static int call_function(lua_State *L)
{
    const hd_script_function_t *f = lua_touserdata(L, lua_upvalueindex(1));
    hd_script_value_t args[SCRIPT_ARGS_MAX], out = {.type = HD_SCRIPT_NIL};
    int n = lua_gettop(L);
    hd_err_t err = {0};

    if (n > SCRIPT_ARGS_MAX)
        return luaL_error(L, "%s: at most %d arguments", f->name, SCRIPT_ARGS_MAX);
    for (int i = 0; i < n; i++)
        args[i] = to_value(L, i + 1);
    if (f->call(request(L), args, (uint32_t)n, &out, &err) != HD_OK)
        return luaL_error(L, "%s: %s", f->name, err.text);
    return push_value(L, &out);
}

/* A name of our own stays ours. */
static void add_functions(lua_State *L, const hd_module_t *m)
{
    lua_getfield(L, -1, m->name);
    if (!lua_isnil(L, -1)) {
        hd_log(HD_LOG_WARN, "lua: hd.%s is taken: module \"%s\" has no functions here",
               m->name, m->name);
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    add_object(L, m->name, NULL, no_property, refuse_set);
    lua_getfield(L, -1, m->name);
    for (const hd_script_function_t *f = m->script_functions; f->name != NULL; f++) {
        lua_pushstring(L, f->name);
        lua_pushlightuserdata(L, (void *)(uintptr_t)f);
        lua_pushcclosure(L, call_function, 1);
        lua_rawset(L, -3);
    }
    lua_pop(L, 1);
}

void api_open(lua_State *L)
{
    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name != NULL; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    add_object(L, "req", req_functions, req_index, refuse_set);
    add_object(L, "res", res_functions, res_index, refuse_set);
    add_object(L, "var", NULL, var_index, var_newindex);
    add_object(L, "peer", NULL, peer_index, refuse_set);
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        if (hd_module_get(i)->script_functions != NULL)
            add_functions(L, hd_module_get(i));
    }
    lua_setglobal(L, "hd");
}
