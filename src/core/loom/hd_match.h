/* hd_match: a string pattern as data, and regular expressions by PCRE2 (companions). Used
 * by routes, policies, TLS names.
 *
 * Regular expressions match the whole string (Envoy's and Istio's meaning) unless <part>
 * is set (nginx's `~`). Matching is bounded (match limit); beyond the limit it is no
 * match, logged.
 */
#pragma once
#include "core/base/hd_pool.h"
#include "core/loom/hd_companion.h"

typedef enum {
    HD_MATCH_ANY, /* present, whatever it is */
    HD_MATCH_EXACT,
    HD_MATCH_PREFIX,
    HD_MATCH_SUFFIX,
    HD_MATCH_CONTAINS,
    HD_MATCH_REGEX,
} hd_match_kind_t;

typedef struct hd_match_s {
    uint8_t kind; /* hd_match_kind_t */
    bool ignore_case;
    bool part; /* a regex may match a part of the string */
    bool invert;
    hd_str_t text; /* lower case when ignore_case and no regex */
} hd_match_t;

#define HD_CAPTURES_MAX 20

typedef struct {
    uint32_t n; /* groups set, 0 being the whole match */
    struct {
        int32_t from, to;
    } at[HD_CAPTURES_MAX]; /* byte offsets; -1: not taken part */
} hd_captures_t;

/* Checks a pattern where configuration is read; says what is wrong and where in it. */
hd_rc_t hd_match_check(const hd_match_t *p, hd_err_t *err) HD_MUST_CHECK;
/* <r> is the region the pattern lies in. <captures> may be NULL. */
bool hd_match(hd_member_t *m, const hd_region_t *r, const hd_match_t *p, hd_str_t s,
              hd_captures_t *captures);
/* Replaces all (or the first) matches of a regex by <subst> with \1 … groups; into
 * <pool>. */
hd_rc_t hd_match_replace(hd_member_t *m, const hd_region_t *r, const hd_match_t *p,
                         hd_str_t subst, hd_str_t s, hd_pool_t *pool, hd_str_t *out);
