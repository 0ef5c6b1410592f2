/* hd_modules: the module table of a process: built-in ones first, then those loaded, in
 * an order that is equal in all processes of a generation. A module's number is its
 * index. */
#pragma once
#include "core/hd_module.h"

/* Built-in parts of the program register at start; returns the number. */
uint16_t hd_module_add(const hd_module_t *module);
/* Opens a shared object, checks ABI and build signature, adds it. Loading twice is an
 * error that names the first. */
hd_rc_t hd_module_load(hd_str_t path, hd_err_t *err) HD_MUST_CHECK;
const hd_module_t *hd_module_get(uint16_t number); /* NULL beyond the last */
uint16_t hd_modules_n(void);
uint16_t hd_module_find(hd_str_t name); /* UINT16_MAX: none */
uint16_t hd_module_number(const hd_module_t *m);
/* Who owns a directive or an xDS type URL; UINT16_MAX: nobody. */
uint16_t hd_module_by_type_url(hd_str_t url, const struct hd_xds_type_s **type);
/* The module file in <dir> that its index names for a directive; empty: none. The index
 * (DIR/modules.index, lines "directive NAME file.so" and "type URL file.so") is written
 * by the build from the modules' own tables. */
hd_str_t hd_module_index_find(hd_str_t dir, hd_str_t what, hd_str_t name,
                              hd_pool_t *pool);
