/* hd_parse: nginx's grammar: text to a tree of directives, meaning left to hd_conf.
 *
 *   name arg "quoted \"arg\"" 'also' ${var} ; # comment
 *   name arg { … }
 *   include glob;          replaced by what the files hold, relative to the including
 * file's prefix (conf directory), sorted; a glob without a match is fine
 *
 * Quotes, escapes and the characters that end a token are nginx's. Limits: 100 levels of
 * blocks, 20 of includes, 16 MB a file, 4096 bytes an argument (Lua blocks: 1 MB).
 * A directive in the list of raw blocks (content_by_lua_block …) keeps its body unparsed,
 * braces balanced, as its last argument.
 */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

typedef struct hd_node_s {
    hd_str_t name;
    hd_str_t *args; /* without the name */
    uint32_t args_n;
    hd_str_t file;
    uint32_t line;
    bool is_block;
    struct hd_node_s *first, *last, *next; /* children; siblings */
    struct hd_node_s *parent;
    uint32_t index;     /* its number in its block, where order has a meaning */
    uint32_t uses;      /* hd_conf: how often it was applied */
    const void *_entry; /* hd_conf: the directive it is, in the block being applied */
    bool _is_first;     /* hd_conf: the first of its name in its block */
} hd_node_t;

typedef struct {
    hd_str_t file;
    hd_str_t text;
} hd_source_t;

typedef struct hd_sources_s hd_sources_t; /* all files read, for -T; in the pool */

/* Reads <file> and what it includes. <globals>: the text of -g, or empty. NULL: <err>. */
hd_node_t *hd_parse_file(hd_pool_t *pool, hd_str_t file, hd_str_t globals,
                         hd_sources_t **sources, hd_err_t *err) HD_MUST_CHECK;
/* The same from memory (tests, fuzzing); <name> stands in errors. */
hd_node_t *hd_parse_text(hd_pool_t *pool, hd_str_t name, hd_str_t text,
                         hd_err_t *err) HD_MUST_CHECK;
bool hd_sources_next(const hd_sources_t *s, size_t *at, hd_source_t *source);

/* Names of directives whose block is raw text (Lua's strings and comments don't count as
 * braces); a leading '*' stands for any beginning. NULL-terminated, set before parsing.
 */
void hd_parse_set_raw_blocks(const char *const *names);

/* nginx's units. Sizes: k m g. Times: ms s m h d w M y, combined "1h 30m" or "1h30m". */
hd_rc_t hd_parse_size(hd_str_t text, uint64_t max, uint64_t *bytes,
                      hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_parse_msec(hd_str_t text, uint64_t *ms, hd_err_t *err) HD_MUST_CHECK;
