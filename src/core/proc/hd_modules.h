/* hd_modules: loads modules: opens shared objects and checks that they fit this program.
 * What is loaded joins the module table (core/conf/hd_module_table.h). */
#pragma once
#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"

/* Opens a shared object, checks ABI and layout, adds it. Loading twice is an error that
 * names the first. */
hd_rc_t hd_module_load(hd_str_t path, hd_err_t *err) HD_MUST_CHECK;
/* Which file lies at <path> now: another number after it was replaced. 0: none. */
uint64_t hd_module_file(const char *path);
/* The path that a loaded module came from; empty: built in. */
hd_str_t hd_module_path(uint16_t number);
/* Who owns an xDS type URL; UINT16_MAX: nobody. */
uint16_t hd_module_by_type_url(hd_str_t url, const struct hd_xds_type_s **type);
/* Where the modules lie: beside the program in a build directory, else as configured. */
hd_str_t hd_modules_dir(hd_pool_t *pool);
/* The module file in <dir> that its index names for <what> <name>; empty: none. The index
 * (DIR/modules.index, lines "directive NAME file.so", "type URL file.so" and "variable
 * NAME file.so") is written by the build from the modules' own tables. */
hd_str_t hd_module_index_find(hd_str_t dir, hd_str_t what, hd_str_t name,
                              hd_pool_t *pool);
/* Calls <each> with the path of every module that has a line <what> in the index, in its
 * order, at least once each; HD_ERROR at the first that fails. */
hd_rc_t hd_module_index_each(hd_str_t dir, hd_str_t what, hd_pool_t *pool,
                             hd_rc_t (*each)(hd_str_t path, hd_err_t *err),
                             hd_err_t *err);
