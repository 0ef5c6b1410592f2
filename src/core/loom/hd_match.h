/* hd_match: a string pattern as data, and regular expressions by PCRE2 (companions). Used
 * by routes, policies, TLS names.
 *
 * Regular expressions match the whole string (Envoy's and Istio's meaning) unless <part>
 * is set (nginx's `~`). Matching is bounded (see hd_regex.h); what is given up is no
 * match, inverted or not, and logged.
 */
#pragma once
#include "core/base/hd_pool.h"
#include "core/loom/hd_companion.h"
#include "core/loom/hd_regex.h"

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

/* Checks a pattern where configuration is read; says what is wrong and where in it. */
hd_rc_t hd_match_check(const hd_match_t *p, hd_err_t *err) HD_MUST_CHECK;
/* The same, and a regular expression is one of RE2's (hd_regex_check_re2): of what a
 * control plane says. */
hd_rc_t hd_match_check_re2(const hd_match_t *p, hd_err_t *err) HD_MUST_CHECK;
/* <r> is the region the pattern lies in. <captures> may be NULL. */
bool hd_match(hd_member_t *m, const hd_region_t *r, const hd_match_t *p, hd_str_t s,
              hd_captures_t *captures);
/* For policies and routing, which must refuse what they can't judge. HD_OK: it matches;
 * HD_DECLINED: it doesn't; HD_ERROR: the regex was given up at its limit, or can't be
 * made. <captures> may be NULL. */
hd_rc_t hd_match_ask(hd_member_t *m, const hd_region_t *r, const hd_match_t *p,
                     hd_str_t s, hd_captures_t *captures) HD_MUST_CHECK;
/* The same for who keeps the regex itself (<re> NULL: <p> is none, or it is no match). */
bool hd_match_with(hd_regex_t *re, const hd_match_t *p, hd_str_t s,
                   hd_captures_t *captures);
/* hd_regex_replace with a pattern of a region: *out is <s> if nothing matched or it
 * failed. */
hd_rc_t hd_match_replace(hd_member_t *m, const hd_region_t *r, const hd_match_t *p,
                         hd_str_t subst, hd_str_t s, hd_pool_t *pool,
                         hd_str_t *out) HD_MUST_CHECK;
