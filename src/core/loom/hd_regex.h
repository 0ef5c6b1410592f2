/* hd_regex: one compiled regular expression (PCRE2 with JIT), in ordinary memory of this
 * process. For whoever keeps one itself; patterns in regions go through hd_match.h, which
 * keeps them as companions.
 *
 * Bytes, not characters, unless the pattern begins with (*UTF). `$` is the very end, also
 * before a final line end. A match takes a bounded number of steps, whatever pattern and
 * string are. A regex belongs to the thread that made it.
 */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

#define HD_CAPTURES_MAX 20
#define HD_REGEX_PATTERN_MAX 16384
#define HD_REGEX_OUT_MAX (1024 * 1024)

typedef struct {
    uint32_t n; /* groups set, 0 being the whole match */
    struct {
        int32_t from, to;
    } at[HD_CAPTURES_MAX]; /* byte offsets; -1: not taken part */
} hd_captures_t;

typedef struct hd_regex_s hd_regex_t;

/* NULL: <err> says what is wrong and where in the pattern. <part>: it may match a part of
 * a string; else the whole. */
hd_regex_t *hd_regex_create(hd_str_t pattern, bool ignore_case, bool part, hd_err_t *err);
/* Is it one of RE2's, too, which knows no back-references, no look-around, nothing that
 * takes what it tried? What control planes write is (Envoy compiles it so), and what isn't
 * is refused. Whether it compiles is not looked at. */
hd_rc_t hd_regex_check_re2(hd_str_t pattern, hd_err_t *err) HD_MUST_CHECK;
void hd_regex_destroy(hd_regex_t *re);
uint32_t hd_regex_groups(const hd_regex_t *re); /* without the whole match */
/* The number of the group of that name; -1: none. */
int hd_regex_group(const hd_regex_t *re, hd_str_t name);

/* HD_OK: it matches. HD_DECLINED: it doesn't. HD_ERROR: given up at the limit, logged.
 * <captures> may be NULL. */
hd_rc_t hd_regex_match(hd_regex_t *re, hd_str_t s, hd_captures_t *captures);
/* Each match (a regex made with <part>) by <subst>, in which \0 to \9 are groups and \\
 * is a backslash. *out is <s> itself if nothing matched, else in <pool>. HD_ERROR: given
 * up at the limit, or the result is over HD_REGEX_OUT_MAX. */
hd_rc_t hd_regex_replace(hd_regex_t *re, hd_str_t subst, hd_str_t s, hd_pool_t *pool,
                         hd_str_t *out) HD_MUST_CHECK;
/* Checks a <subst>, for configuration: unknown escapes, groups the pattern hasn't. */
hd_rc_t hd_regex_check_subst(const hd_regex_t *re, hd_str_t subst,
                             hd_err_t *err) HD_MUST_CHECK;
