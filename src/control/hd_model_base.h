/* hd_model_base: what all kinds of the control plane's model are made of: lists, labels,
 * string matches, places.
 *
 * Everything here lies in the pool of the object it belongs to and never changes once the
 * object is in the model.
 */
#pragma once
#include "core/base/hd_str.h"

/* A number, duration or three-valued flag that the YAML doesn't set. All numbers and
 * durations of the model are int64_t, so that "not set" and 0 differ. */
#define HD_UNSET (-1)

/* A run of items. Every list has this layout, whatever its items are. */
#define HD_LIST(type)                                                                    \
    struct {                                                                             \
        const type *items;                                                               \
        size_t n;                                                                        \
    }
/* for (hd_each(route, vs->http)) … */
#define hd_each(it, list)                                                                \
    __typeof__((list).items + 0) it = (list).items;                                      \
    (it) != NULL && (it) < (list).items + (list).n;                                      \
    (it)++

typedef HD_LIST(hd_str_t) hd_strs_t;
typedef HD_LIST(int64_t) hd_nums_t;

typedef struct {
    hd_str_t key, value;
} hd_pair_t;
typedef HD_LIST(hd_pair_t) hd_labels_t; /* sorted by key, each key once */

/* Where a thing was written. */
typedef struct {
    hd_str_t file; /* as the source names it: relative to the watched directory */
    uint32_t doc;  /* the document in it, from 1 */
    uint32_t line; /* from 1; 0: the file as a whole */
} hd_place_t;

typedef enum {
    HD_STRMATCH_PRESENT, /* {} in headers and queryParams: there, whatever it is */
    HD_STRMATCH_EXACT,
    HD_STRMATCH_PREFIX,
    HD_STRMATCH_REGEX, /* RE2's syntax, matches the whole value (VS-MATCH-15) */
} hd_strmatch_kind_t;

typedef struct {
    hd_strmatch_kind_t kind;
    hd_str_t value;
} hd_strmatch_t;
typedef HD_LIST(hd_strmatch_t) hd_strmatches_t;

typedef struct {
    hd_str_t key; /* a header's or parameter's name */
    hd_strmatch_t match;
} hd_keymatch_t;
typedef HD_LIST(hd_keymatch_t) hd_keymatches_t;

/* {NULL, 0} if there is none; an empty value has data. */
hd_str_t hd_labels_get(const hd_labels_t *labels, hd_str_t key);
/* Whether <labels> has every pair of <selector>: an empty selector matches all. */
bool hd_labels_match(const hd_labels_t *selector, const hd_labels_t *labels);
bool hd_strs_has(const hd_strs_t *list, hd_str_t s);

/* --- hosts (HOST-1 to HOST-5) --- */

/* A short name (no dot) becomes NAME.<ns>.svc.<domain>; "*", IPs and dotted names stay.
 * Lower case. */
hd_str_t hd_host_resolve(struct hd_pool_s *pool, hd_str_t host, hd_str_t ns,
                         hd_str_t domain);
static inline bool hd_host_is_wildcard(hd_str_t host)
{
    return host.len > 0 && host.data[0] == '*';
}
/* Whether <pattern> ("*", "*.x.com" at any depth, or a name) covers <host>, which may be
 * a wildcard itself: "*.x.com" covers "*.y.x.com". */
bool hd_host_covers(hd_str_t pattern, hd_str_t host);
/* Whether one of the two covers the other (GW-9); *narrow, if wanted, is the narrower. */
bool hd_host_intersects(hd_str_t a, hd_str_t b, hd_str_t *narrow);
/* Below 0: <a> is more specific and goes first: exact names, then longer suffixes. */
int hd_host_cmp_specific(hd_str_t a, hd_str_t b);

/* --- visibility (EXP-1) --- */

/* Whether what <owner_ns> exports by <list> is seen in <ns>; an empty list is the mesh's
 * default, "*". */
bool hd_is_exported(const hd_strs_t *list, hd_str_t owner_ns, hd_str_t ns);
