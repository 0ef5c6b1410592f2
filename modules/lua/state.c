#include "state.h"
#include "prelude.h"

#include <luajit.h>
#include <lualib.h>
#include <stdlib.h>
#include <time.h>

#define HOOK_STEP 1000 /* instructions between two looks */
#define CHECK_MEMORY_MAX (64u << 20)
#define NS_PER_INSTRUCTION 500 /* some 50 times what one takes */
#define NS_MIN 100000000u

script_run_t script_run;
uint64_t script_memory_max = 16u << 20;

typedef struct {
    uint64_t used, max;
} memory_t;

static lua_State *state;
static memory_t memory;
static uint32_t generation; /* of the state: scripts are compiled anew for another one */

/* --- memory --- */

static void *allocate(void *arg, void *p, size_t old, size_t size)
{
    memory_t *m = arg;
    void *to;

    if (size == 0) {
        m->used -= old;
        free(p);
        return NULL;
    }
    if (size > old && m->used + (size - old) > m->max)
        return NULL; /* Lua collects garbage, then fails the script */
    to = realloc(p, size);
    if (to != NULL)
        m->used += size - old;
    return to;
}

/* --- instructions --- */

static void on_count(lua_State *L, lua_Debug *ar);

static uint64_t cpu_ns(void)
{
    struct timespec t;

    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0
               ? (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec
               : 0;
}

/* Out of instructions; or of time, since some of them, on large strings and tables, are
 * worth thousands. */
static void check_spent(lua_State *L)
{
    script_run_t *r = &script_run;

    if (r->used <= r->max && cpu_ns() <= r->until_ns)
        return;
    r->is_spent = true;
    lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
    luaL_error(L, "more than %d instructions", (int)r->max);
}

static void on_count(lua_State *L, lua_Debug *ar)
{
    script_run_t *r = &script_run;

    (void)ar;
    if (r->is_exited || r->is_spent)
        luaL_error(L, r->is_exited ? "exit" : "more than %d instructions", (int)r->max);
    r->used += HOOK_STEP;
    check_spent(L);
}

void script_charge(lua_State *L, uint64_t instructions)
{
    script_run.used += instructions;
    if (instructions > 0 && script_run.until_ns > 0)
        check_spent(L);
}

int script_unwind(lua_State *L)
{
    script_run.is_exited = true;
    lua_sethook(L, on_count, LUA_MASKCOUNT, 1); /* a pcall gets no further than here */
    return luaL_error(L, "exit");
}

/* --- sandbox --- */

static const char *const kept[] = {"assert",       "error",    "ipairs",   "next",
                                   "pcall",        "select",   "tonumber", "tostring",
                                   "type",         "unpack",   "xpcall",   "setmetatable",
                                   "getmetatable", "rawequal", "rawget"};
static const char *const libraries[] = {"string", "table", "math", "bit"};

/* What scripts reach through a value of any string, and would share. */
static void protect_strings(lua_State *L)
{
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
    lua_getglobal(L, "string");
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    lua_pop(L, 1);
}

static void open_library(lua_State *L, const char *name, lua_CFunction open)
{
    lua_pushcfunction(L, open);
    lua_pushstring(L, name);
    lua_call(L, 1, 0);
}

/* table.sort, with a price. */
static int sort(lua_State *L)
{
    size_t n = lua_type(L, 1) == LUA_TTABLE ? lua_objlen(L, 1) : 0;

    for (size_t left = n; left > 1; left /= 2)
        script_charge(L, n);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 0);
    return 0;
}

static void price_sort(lua_State *L)
{
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_pushcclosure(L, sort, 1);
    lua_setfield(L, -2, "sort");
    lua_pop(L, 1);
}

static int open_state(lua_State *L)
{
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    open_library(L, "", luaopen_base);
    open_library(L, LUA_TABLIBNAME, luaopen_table);
    open_library(L, LUA_STRLIBNAME, luaopen_string);
    open_library(L, LUA_MATHLIBNAME, luaopen_math);
    open_library(L, LUA_BITLIBNAME, luaopen_bit);
    protect_strings(L);
    patterns_open(L);
    price_sort(L);
    envoy_open(L);
    api_open(L);
    if (luaL_loadbufferx(L, prelude, sizeof(prelude) - 1, "=prelude", "t") != 0)
        return lua_error(L);
    lua_getglobal(L, "hd");
    lua_call(L, 1, 0);
    return 0;
}

static void copy_table(lua_State *L, const char *name)
{
    lua_newtable(L);
    lua_getglobal(L, name);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_settable(L, -6);
    }
    lua_pop(L, 1);
}

static int refuse_global(lua_State *L)
{
    return luaL_error(L, "a new global \"%s\" while a request runs: use local",
                      lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "?");
}

/* The globals that a script sees. */
static void push_environment(lua_State *L)
{
    lua_newtable(L);
    for (unsigned i = 0; i < hd_countof(kept); i++) {
        lua_getglobal(L, kept[i]);
        lua_setfield(L, -2, kept[i]);
    }
    for (unsigned i = 0; i < hd_countof(libraries); i++) {
        copy_table(L, libraries[i]);
        lua_setfield(L, -2, libraries[i]);
    }
    lua_pushcfunction(L, envoy_pairs);
    lua_setfield(L, -2, "pairs");
    lua_getglobal(L, "hd");
    lua_setfield(L, -2, "hd");
    lua_getglobal(L, "ngx");
    lua_setfield(L, -2, "ngx");
}

static void close_environment(lua_State *L)
{
    lua_newtable(L);
    lua_pushcfunction(L, refuse_global);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

/* --- protected calls --- */

typedef struct {
    const script_t *s;
    const char *function;
    int ref; /* in the registry: of the chunk, for Envoy's of its environment */
} call_t;

static hd_rc_t explain(lua_State *L, int status, hd_err_t *err)
{
    const char *text =
        lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "an error without a text";

    hd_ignore(hd_err_set(err, HD_E_MODULE, "%s",
                         status == LUA_ERRMEM ? "more memory than lua_max_memory"
                                              : text) != HD_ERROR);
    lua_settop(L, 0);
    if (status == LUA_ERRMEM)
        lua_gc(L, LUA_GCCOLLECT, 0);
    return HD_ERROR;
}

/* Any C function of ours under the limits. */
static hd_rc_t protect(lua_State *L, lua_CFunction f, call_t *c, hd_err_t *err)
{
    int status;

    script_run.used = 0;
    script_run.max = c->s->instructions_max;
    script_run.until_ns =
        cpu_ns() + hd_max((uint64_t)NS_MIN, script_run.max * NS_PER_INSTRUCTION);
    script_run.is_spent = script_run.is_exited = false;
    lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_STEP);
    status = lua_cpcall(L, f, c);
    lua_sethook(L, NULL, 0, 0);
    script_run.until_ns = 0;
    if (script_run.is_exited) {
        lua_settop(L, 0);
        return HD_DONE;
    }
    return status == 0 ? HD_OK : explain(L, status, err);
}

static void load(lua_State *L, hd_str_t source, hd_str_t name)
{
    const char *chunk = lua_pushfstring(L, "=%s", name.data);

    /* "t": bytecode could do anything, and is refused */
    if (luaL_loadbufferx(L, source.data != NULL ? source.data : "", source.len, chunk,
                         "t") != 0)
        lua_error(L);
    lua_remove(L, -2);
}

static int compile_protected(lua_State *L)
{
    call_t *c = lua_touserdata(L, 1);

    load(L, c->s->source, c->s->name);
    push_environment(L);
    lua_pushvalue(L, -1);
    lua_setfenv(L, -3);
    if (c->s->kind == SCRIPT_ENVOY) {
        lua_pushvalue(L, -2);
        lua_call(L, 0, 0); /* its functions are globals of its own */
        close_environment(L);
    } else {
        close_environment(L);
        lua_pop(L, 1);
    }
    c->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int run_protected(lua_State *L)
{
    const call_t *c = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref);
    if (c->s->kind == SCRIPT_ENVOY) {
        lua_pushstring(L, c->function);
        lua_rawget(L, -2);
        if (!lua_isfunction(L, -1))
            return 0;
        envoy_push_handle(L);
        lua_call(L, 1, 0);
    } else {
        lua_call(L, 0, 0);
    }
    return 0;
}

/* --- the state --- */

static int on_panic(lua_State *L)
{
    (void)L;
    hd_bug(__FILE__, __LINE__, "Lua outside of protection");
}

static lua_State *make_state(memory_t *m, hd_err_t *err)
{
    lua_State *L = lua_newstate(allocate, m);

    if (L == NULL) {
        hd_ignore(hd_err_set(err, HD_E_MODULE, "no Lua state: too little memory") == 0);
        return NULL;
    }
    lua_atpanic(L, on_panic);
    if (lua_cpcall(L, open_state, NULL) != 0) {
        hd_ignore(explain(L, 0, err) == HD_OK);
        lua_close(L);
        return NULL;
    }
    return L;
}

static lua_State *get_state(hd_err_t *err)
{
    if (state != NULL)
        return state;
    memory = (memory_t){.max = script_memory_max};
    state = make_state(&memory, err);
    generation++;
    return state;
}

void script_stop(void)
{
    if (state != NULL)
        lua_close(state);
    state = NULL;
}

/* Scripts that keep memory in their globals until none is left lose them all. */
static void renew_state(void)
{
    if (memory.used < memory.max / 10 * 9)
        return;
    hd_log(HD_LOG_WARN, "lua: scripts keep %llu of %llu bytes: their globals begin anew",
           (unsigned long long)memory.used, (unsigned long long)memory.max);
    script_stop();
}

/* --- scripts, compiled --- */

typedef struct {
    int ref;
    uint32_t generation;
} compiled_t;

static void *create_compiled(hd_member_t *m, const void *owner, const void *arg,
                             hd_err_t *err)
{
    call_t c = {.s = arg};
    compiled_t *to;
    lua_State *L = get_state(err);

    (void)m;
    (void)owner;
    if (L == NULL || protect(L, compile_protected, &c, err) != HD_OK)
        return NULL;
    to = calloc(1, sizeof(*to));
    hd_bug_on(to == NULL);
    *to = (compiled_t){.ref = c.ref, .generation = generation};
    return to;
}

static void destroy_compiled(hd_member_t *m, void *companion)
{
    compiled_t *c = companion;

    (void)m;
    if (state != NULL && c->generation == generation)
        luaL_unref(state, LUA_REGISTRYINDEX, c->ref);
    free(c);
}

static const hd_companion_type_t compiled_type = {
    .name = "lua", .create = create_compiled, .destroy = destroy_compiled};

hd_rc_t script_check(hd_str_t source, hd_str_t name, hd_err_t *err)
{
    memory_t m = {.max = CHECK_MEMORY_MAX};
    script_t s = {.source = source, .name = name, .instructions_max = 1};
    call_t c = {.s = &s};
    lua_State *L = make_state(&m, err);
    hd_rc_t rc;

    if (L == NULL)
        return HD_ERROR;
    rc = protect(L, compile_protected, &c, err);
    lua_close(L);
    return rc;
}

hd_rc_t script_execute(const script_t *s, const char *function, script_phase_t phase,
                       hd_req_t *req, hd_err_t *err)
{
    call_t c = {.s = s, .function = function};
    lua_State *L = get_state(err);
    compiled_t *compiled;
    hd_rc_t rc;

    if (L == NULL)
        return HD_ERROR;
    compiled =
        hd_companion_of_part(hd_req_member(req), &compiled_type, s->region, s, s, err);
    if (compiled == NULL)
        return HD_ERROR;
    if (compiled->generation != generation) {
        rc = protect(L, compile_protected, &c, err);
        if (rc != HD_OK)
            return HD_ERROR;
        *compiled = (compiled_t){.ref = c.ref, .generation = generation};
    }
    c.ref = compiled->ref;
    script_run.req = req;
    script_run.phase = phase;
    script_run.id++;
    rc = protect(L, run_protected, &c, err);
    script_run.req = NULL;
    if (rc == HD_ERROR)
        renew_state();
    return rc;
}
