/* hd_expr: "text $with ${variables}", compiled where configuration is read, evaluated on
 * a request or conn. Data only, so that it lies in the arena. */
#pragma once
#include "core/conf/hd_attr.h"

struct hd_conf_s;

typedef struct {
    hd_str_t text; /* literal, when attr.name.len == 0 */
    hd_attr_t attr;
    uint32_t max_bytes; /* more of it is cut off; 0: all */
    bool instead;       /* only where the part before it is empty */
} hd_expr_part_t;

typedef struct hd_expr_s {
    const hd_expr_part_t *parts;
    uint32_t n;
} hd_expr_t;

/* Into cf->pool. A name that nothing defines is an error, unless `set`, map or a capture
 * declares it somewhere in the configuration (cf->declared). */
hd_rc_t hd_expr_compile(struct hd_conf_s *cf, hd_str_t text, hd_expr_t **expr,
                        hd_err_t *err) HD_MUST_CHECK;
/* The name of the next variable in <*rest>, which goes on behind it; false: there is none
 * any more. */
bool hd_expr_next_name(hd_str_t *rest, hd_str_t *name);
/* Without variables? Then its text is parts[0].text. */
bool hd_expr_is_literal(const hd_expr_t *e);
/* <value>, which <e> has given, is a path with ".." that its variables have brought: who
 * sent them would choose the file. */
bool hd_expr_climbs(const hd_expr_t *e, hd_str_t value);
/* HD_OK; *out lives as long as of->pool (a single part isn't copied). */
hd_rc_t hd_expr_eval_of(const hd_expr_t *e, const hd_attr_of_t *of,
                        hd_str_t *out) HD_MUST_CHECK;
