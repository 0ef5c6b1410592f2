/* hd_conf: directives with a meaning: tables, scopes, and resources built from the tree.
 *
 * Every module, the core's own parts too, declares its directives in a table. Each module
 * may have a conf struct (conf_size bytes, zeroed) for every block; an inner block starts
 * as a copy of the outer one ("locations inherit the outer one"), then its own directives
 * are set. Conf structs last until the whole is built; those that requests look at are
 * copied into the region. Because simple directives are applied before inner blocks, order in the text
 * doesn't matter. A list-valued directive replaces the inherited list at its first
 * occurrence in a block: cf->is_first says so.
 *
 * Blocks are directives with .block set. Building is by resource: the http part walks the
 * http-level directives anew for each route table that it builds, so that all of a table
 * lies in its own region and cf->pool is always "the region being built".
 */
#pragma once
#include "core/conf/hd_expr.h"
#include "core/conf/hd_parse.h"
#include "core/loom/hd_batch.h"

#define HD_IN_MAIN 0x001u
#define HD_IN_EVENTS 0x002u
#define HD_IN_HTTP 0x004u
#define HD_IN_SERVER 0x008u
#define HD_IN_LOCATION 0x010u
#define HD_IN_UPSTREAM 0x020u
#define HD_IN_IF 0x040u
#define HD_IN_STREAM 0x080u
#define HD_IN_STREAM_SERVER 0x100u
#define HD_IN_STREAM_UPSTREAM 0x200u
#define HD_IN_CONTROL 0x400u
#define HD_IN_XDS 0x800u /* xds { … }: where the agent gets its configuration */
#define HD_IN_ADMIN 0x1000u
#define HD_IN_LIMIT_EXCEPT 0x2000u
#define HD_IN_TYPES 0x4000u     /* blocks of free-form lines: map, types, split_clients */
#define HD_IN_SERVER_IF 0x8000u /* an `if` of a server: rewrite directives only */

#define HD_ARGS_ANY 255
#define HD_ARG_LAST 255

struct hd_module_s;
struct hd_directive_s;

typedef struct hd_conf_s {
    hd_pool_t *pool;     /* of the region being built */
    hd_pool_t *temp;     /* until the whole configuration is built */
    hd_region_t *region; /* being built; NULL: none (main level) */
    hd_batch_t *batch;   /* regions of other resources may be begun beside this one */
    hd_arena_t *arena;
    hd_member_t *member;
    const hd_node_t *node; /* the directive being applied */
    const struct hd_directive_s *directive;
    unsigned scope;           /* HD_IN_… of the block it stands in */
    bool is_first;            /* of this name in this block */
    void **confs;             /* of the block: a conf struct for each module by number */
    struct hd_conf_s *outer;  /* the enclosing block's; NULL at main */
    struct hd_build_s *build; /* the whole: settings, listeners, declared variables */
    uint64_t _own[2];         /* which of <confs> are this block's, not an outer one's */
} hd_conf_t;

typedef struct hd_directive_s {
    const char *name;
    unsigned scope;   /* HD_IN_… where it may stand */
    uint8_t args_n;   /* exactly; with args_max: at least */
    uint8_t args_max; /* 0: args_n; HD_ARGS_ANY: no ceiling */
    bool repeats;     /* may stand more than once in a block */
    uint8_t declares; /* the number of the argument, from 1, that names a variable which
                         the directive makes (`set $x …`); HD_ARG_LAST; 0: none */
    /* A simple directive. <args> are args_n.. strings; <conf> the module's struct of this
     * block. Reasons don't repeat file:line: that is put in front. */
    hd_rc_t (*set)(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
    /* A block: is called with cf->node; usually hd_conf_enter. */
    hd_rc_t (*block)(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
    size_t offset;    /* for the ready-made setters below */
    const void *post; /* for the same: hd_conf_enum_t table, limits */
    const char *help; /* "ARGS: what it does" */
} hd_directive_t;

/* Ready-made setters for .set with .offset. Each says what is allowed; u32, size and msec
 * take a hd_conf_limits_t as .post. */
hd_rc_t hd_set_flag(hd_conf_t *cf, const hd_str_t *args, void *conf,
                    hd_err_t *err); /* bool */
hd_rc_t hd_set_str(hd_conf_t *cf, const hd_str_t *args, void *conf,
                   hd_err_t *err); /* hd_str_t */
hd_rc_t hd_set_u32(hd_conf_t *cf, const hd_str_t *args, void *conf,
                   hd_err_t *err); /* uint32_t */
hd_rc_t hd_set_size(hd_conf_t *cf, const hd_str_t *args, void *conf,
                    hd_err_t *err); /* uint64_t */
hd_rc_t hd_set_msec(hd_conf_t *cf, const hd_str_t *args, void *conf,
                    hd_err_t *err); /* uint64_t */
hd_rc_t hd_set_enum(hd_conf_t *cf, const hd_str_t *args, void *conf,
                    hd_err_t *err); /* uint32_t */
hd_rc_t hd_set_expr(hd_conf_t *cf, const hd_str_t *args, void *conf,
                    hd_err_t *err); /* hd_expr_t * */

typedef struct {
    const char *name;
    uint32_t value;
} hd_conf_enum_t; /* ends with name NULL */

typedef struct {
    uint64_t min, max;
} hd_conf_limits_t;

/* Applies the inner directives of cf->node in <scope>: simple ones first, then blocks.
 * Conf structs are inherited; <confs> gets the block's own array. Unknown, misplaced and
 * repeated directives are errors that name where they may stand. */
hd_rc_t hd_conf_enter(hd_conf_t *cf, const hd_node_t *block, unsigned scope,
                      void ***confs, hd_err_t *err) HD_MUST_CHECK;
/* Only the simple directives of <block>, of scopes in <scope> (http walked for each
 * table). */
hd_rc_t hd_conf_apply_simple(hd_conf_t *cf, const hd_node_t *block, unsigned scope,
                             hd_err_t *err) HD_MUST_CHECK;
/* A cf like <outer> for building another resource: own region and pool, fresh zeroed
 * confs. */
hd_rc_t hd_conf_begin_resource(hd_conf_t *outer, hd_res_type_t type, hd_str_t name,
                               hd_conf_t *inner, hd_err_t *err) HD_MUST_CHECK;
/* After hd_conf_apply_simple: the modules' on_conf, which hd_conf_enter calls by itself.
 */
hd_rc_t hd_conf_complete(hd_conf_t *cf, unsigned scope, hd_err_t *err) HD_MUST_CHECK;
/* The module's conf in this block, writable while the block is built. A conf that a block
 * doesn't change is the outer block's, shared. It lies in cf->temp: a resource that is to
 * point to it asks for what hd_conf_keep gives. */
void *hd_conf_of(hd_conf_t *cf, const struct hd_module_s *module);
/* The conf of <module>, by its number, in the region being built: once for all blocks
 * that say the same. What is set in it until the block's end is in it, too. NULL: the
 * module has no conf. */
const void *hd_conf_keep(hd_conf_t *cf, uint16_t module);
/* A copy of <from>, a conf of <module>, in cf->temp; NULL: a zeroed one. */
void *hd_conf_copy(hd_conf_t *cf, uint16_t module, void *from);
/* A warning with place, in the error log or on stderr with -t. */
void hd_conf_warn(const hd_conf_t *cf, const char *fmt, ...) HD_PRINTF(2, 3);
/* Puts the place of <node> in front of the reason, unless a place stands there already:
 * for what is found wrong after a directive was applied. Returns HD_ERROR. */
hd_rc_t hd_conf_blame(hd_conf_t *cf, const hd_node_t *node, hd_err_t *err);
/* The first directive of that name in <block>, else in the blocks around it; else
 * <block>. */
const hd_node_t *hd_conf_find(const hd_node_t *block, hd_str_t name);
/* "file:line" of the directive. */
hd_str_t hd_conf_place(const hd_conf_t *cf);
/* A path relative to the prefix or the conf directory made absolute, in cf->pool. */
hd_str_t hd_conf_path(const hd_conf_t *cf, hd_str_t path, bool in_conf_dir);

/* What building needs from whoever builds (the loader, a test); NULL: can't be done here.
 */
typedef struct {
    hd_rc_t (*load_module)(hd_conf_t *cf, hd_str_t path, hd_err_t *err);
    /* Loads the module whose directive or variable (<what>: "directive", "variable")
     * <name> is, if one is known: HD_OK; HD_DECLINED. */
    hd_rc_t (*find_module)(hd_conf_t *cf, hd_str_t what, hd_str_t name, hd_err_t *err);
    /* Loads all modules that understand an xDS type: what a control plane will send is
     * not known beforehand. */
    hd_rc_t (*find_xds_modules)(hd_conf_t *cf, hd_err_t *err);
    hd_rc_t (*need_listen)(hd_conf_t *cf, const hd_socket_spec_t *spec, unsigned roles,
                           hd_err_t *err);
    hd_rc_t (*need_log)(hd_conf_t *cf, hd_str_t path, hd_err_t *err);
    void (*need_dir)(hd_conf_t *cf, hd_str_t path);
    void (*on_warning)(hd_conf_t *cf, const char *text); /* NULL: the error log */
} hd_build_ops_t;

/* What the loader found that isn't a resource: told to the master
 * (core/proc/hd_settings.h). */
typedef struct hd_build_s {
    struct hd_settings_s *settings;
    const hd_build_ops_t *ops; /* may be NULL */
    hd_node_t *root;
    hd_str_t prefix, conf_dir; /* absolute; without or with a slash at the end */
    void *declared;            /* hd_map_t: variables that configuration declares */
    bool is_test;     /* -t: files and sockets are checked, nothing is published */
    bool needs_agent; /* something of the configuration is the agent's work */
    uint32_t warnings;
    bool _placed; /* the error has its file:line */
} hd_build_t;

/* Who accepts on a listening socket. */
#define HD_ROLE_WORKERS 1u
#define HD_ROLE_AGENT 2u
#define HD_ROLE_CONTROL 4u

/* The sockets and files a batch needs open in all workers before it is published. */
hd_rc_t hd_build_need_listen(hd_conf_t *cf, const hd_socket_spec_t *spec,
                             hd_err_t *err) HD_MUST_CHECK;
/* The same for the agent's or control's own ports. */
hd_rc_t hd_build_need_listen_for(hd_conf_t *cf, const hd_socket_spec_t *spec,
                                 unsigned roles, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_build_need_log(hd_conf_t *cf, hd_str_t path, hd_err_t *err) HD_MUST_CHECK;
/* A folder that workers write into, NUL-terminated: made, theirs, if it is missing. That it
 * can't be is a warning. */
void hd_build_need_dir(hd_conf_t *cf, hd_str_t path);

/* Only what the main level and events {} say with <module>'s simple directives:
 * process-level settings, before there is anywhere to build. The rest isn't looked at. */
hd_rc_t hd_conf_read_main(hd_node_t *root, const struct hd_module_s *module,
                          hd_build_t *build, hd_pool_t *pool,
                          hd_err_t *err) HD_MUST_CHECK;
/* Loader, -t: text to a whole batch, unpublished. Modules named by load_module, or whose
 * directives are used and known to the modules directory's index, are loaded on the way.
 * <temp>: what lives until the batch is published. <arena>, <m>, <batch> NULL: for tests,
 * all goes to <temp>. The main level's confs become a resource "main" of HD_RES_SETTINGS.
 */
hd_rc_t hd_conf_build(hd_node_t *root, hd_arena_t *arena, hd_member_t *m,
                      hd_batch_t *batch, hd_pool_t *temp, hd_build_t *build,
                      hd_err_t *err) HD_MUST_CHECK;

/* Root of the resource "main": a module's conf at the main level, for its process start.
 */
typedef struct {
    uint32_t n;
    const void *const *confs; /* by module number */
} hd_main_confs_t;
/* That conf, in a turn; NULL: nothing is published yet. */
const void *hd_conf_main_of(hd_member_t *m, const struct hd_module_s *module);
/* The node as the control plane is told of it: an encoded envoy.config.core.v3.Node, good
 * in this turn; empty: there is none. Set by src/mesh; may be NULL. */
extern hd_str_t (*hd_node_bytes)(hd_member_t *m);

/* Walks all directives of all modules: for docs and checks. <at> starts 0. */
bool hd_directives_next(uint32_t *at, const struct hd_module_s **module,
                        const hd_directive_t **directive);
/* "http, server, location": the names of scopes, into <out>. */
hd_str_t hd_scope_names(unsigned scope, char *out, size_t room);
