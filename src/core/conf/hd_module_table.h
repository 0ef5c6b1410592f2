/* hd_module_table: the modules of this process: built-in ones first, then those loaded,
 * in an order that is equal in all processes of a generation. A module's number is its
 * index and stands for it in shared memory. Made at start, never shrinks.
 *
 * Elsewhere: opening shared objects (core/proc/hd_modules.h).
 */
#pragma once
#include "core/base/hd_str.h"

#define HD_MODULES_TABLE_MAX 128 /* built-in and loaded */

struct hd_module_s;

/* Built-in parts of the program register at start, the loader what it loads; returns the
 * number. Registers the module's attributes, too. */
uint16_t hd_module_add(const struct hd_module_s *module);
const struct hd_module_s *hd_module_get(uint16_t number); /* NULL beyond the last */
uint16_t hd_modules_n(void);
uint16_t hd_module_find(hd_str_t name); /* UINT16_MAX: none */
uint16_t hd_module_number(const struct hd_module_s *m);
