/* state: one Lua state a process, and what keeps scripts in bounds.
 *
 * Scripts run in LuaJIT's interpreter, its compiler off: compiled code asks no hook, so
 * it could not be stopped. A hook counts instructions, to which what costs more in C adds
 * (patterns, sorting), and looks at the clock; an allocator bounds memory. Each
 * script has an environment of its own: no os, io, ffi, debug, package, load, and no way
 * to reach another script's globals. Everything runs protected: an error of a script is
 * an error of its request.
 *
 *   script (data in a region) --companion--> compiled once a process, run for each
 * request
 */
#pragma once
#include "hd_module.h"
#include <lauxlib.h>
#include <lua.h>

typedef enum {
    SCRIPT_BLOCK, /* a chunk, run as a whole for each request */
    SCRIPT_ENVOY, /* a chunk run once, which defines envoy_on_request, envoy_on_response
                   */
} script_kind_t;

/* In a region; its address is its name. */
typedef struct {
    hd_str_t source, name; /* name: of the chunk, in errors */
    const hd_region_t *region;
    uint32_t instructions_max;
    uint8_t kind;
} script_t;

typedef enum { PHASE_REQUEST, PHASE_RESPONSE, PHASE_LOG } script_phase_t;

/* What runs now; one at a time, since nothing in a script waits. */
typedef struct {
    hd_req_t *req;
    script_phase_t phase;
    uint32_t id; /* of this run: what a script kept from another one is dead */
    uint64_t used, max, until_ns;
    bool is_spent;        /* out of instructions or time: nothing in it may go on */
    bool is_exited;       /* the script has said what becomes of the request */
    unsigned exit_status; /* 0: it goes on */
    hd_str_t exit_body;
    const hd_kv_t *exit_fields;
    uint32_t exit_fields_n;
} script_run_t;

extern const hd_module_t hd_module;
extern script_run_t script_run;

/* Checks the syntax, where configuration is read. */
hd_rc_t script_check(hd_str_t source, hd_str_t name, hd_err_t *err) HD_MUST_CHECK;
/* Runs <s>, for SCRIPT_ENVOY its function <function> (a script without it: HD_OK). HD_OK:
 * go on; HD_DONE: script_run says how it ended; HD_ERROR: <err>. */
hd_rc_t script_execute(const script_t *s, const char *function, script_phase_t phase,
                       hd_req_t *req, hd_err_t *err) HD_MUST_CHECK;
void script_stop(void); /* at the end of the process */

/* For api.c, envoy.c and patterns.c. */
extern uint64_t script_memory_max; /* bytes, of the state */
/* Ends the script at once, whatever it has wrapped itself in; never returns. */
int script_unwind(lua_State *L);
/* What a C function did counts as so many instructions; ends the script that has none
 * left. */
void script_charge(lua_State *L, uint64_t instructions);
/* string.find, match, gmatch and gsub. */
void patterns_open(lua_State *L);
/* Pushes the functions that scripts see as `hd` (and `ngx`). */
void api_open(lua_State *L);
/* Metatables of Envoy's handles; pushes a handle. */
void envoy_open(lua_State *L);
void envoy_push_handle(lua_State *L);
/* `pairs` that knows Envoy's header objects. */
int envoy_pairs(lua_State *L);
