/* hd_dict: the directives of all modules by name, for hd_conf: who has a name, where it
 * may stand, and which one was probably meant. Rebuilt when modules were added. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/conf/hd_module_table.h"

typedef struct hd_entry_s {
    const hd_directive_t *directive;
    uint16_t module;
    struct hd_entry_s *next; /* of the same name */
    /* The block in which it was last met, by hd_conf's running number, and where. */
    uint64_t met_in;
    const hd_node_t *met;
} hd_entry_t;

/* All directives of <name>, in the order of modules; NULL: none. */
hd_entry_t *hd_dict_find(hd_str_t name);
/* A known name that differs little from <name> and may stand in <scope>; empty: none. */
hd_str_t hd_dict_suggest(hd_str_t name, unsigned scope);
/* The same for any list of names: <best> so far (empty at first) or <candidate>. */
hd_str_t hd_closer_name(hd_str_t name, hd_str_t best, hd_str_t candidate);

/* By hd_conf_build, before anything is applied: loads the modules that the text names or
 * needs, and notes the variables that it declares. */
hd_rc_t hd_build_prepare(hd_conf_t *cf, const hd_node_t *root,
                         hd_err_t *err) HD_MUST_CHECK;
