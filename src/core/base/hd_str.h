/* hd_str: a borrowed run of bytes, {data, len}; not zero-terminated, may hold any byte.
 *
 * Functions never keep what they are given; the _dup ones copy into a pool. An unset
 * string is {NULL, 0} and equals the empty one.
 */
#pragma once
#include "core/base/hd_types.h"
#include <stdarg.h>
#include <string.h>

struct hd_pool_s;

typedef struct {
    const char *data;
    size_t len;
} hd_str_t;

#define HD_STR(literal) ((hd_str_t){("" literal), sizeof(literal) - 1})
#define HD_STR_INIT(literal)                                                             \
    {                                                                                    \
        ("" literal), sizeof(literal) - 1                                                \
    }
#define HD_STR_NONE ((hd_str_t){NULL, 0})
#define HD_STR_ARG(s) (int)(s).len, (s).data /* for "%.*s" */

static inline hd_str_t hd_str_c(const char *cstr)
{
    return (hd_str_t){cstr, cstr != NULL ? strlen(cstr) : 0};
}

static inline hd_str_t hd_str_n(const char *data, size_t len)
{
    return (hd_str_t){data, len};
}

static inline bool hd_str_eq(hd_str_t a, hd_str_t b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline char hd_ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool hd_str_eq_nocase(hd_str_t a, hd_str_t b); /* ASCII only */
bool hd_str_is_lower(hd_str_t s);              /* no ASCII upper case in it */
int hd_str_cmp(hd_str_t a, hd_str_t b);        /* as memcmp, the shorter first */
bool hd_str_has_prefix(hd_str_t s, hd_str_t prefix);
bool hd_str_has_suffix(hd_str_t s, hd_str_t suffix);
bool hd_str_has_prefix_nocase(hd_str_t s, hd_str_t prefix);

/* Where <c> or <needle> first stands in <s>; -1 if nowhere. */
ssize_t hd_str_find_char(hd_str_t s, char c);
ssize_t hd_str_find(hd_str_t s, hd_str_t needle);

/* <s> without the spaces and tabs at both ends. */
static inline hd_str_t hd_str_trim(hd_str_t s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* <s> from <at>; at most <len> bytes. Both are cut to what there is. */
static inline hd_str_t hd_str_sub(hd_str_t s, size_t at, size_t len)
{
    at = hd_min(at, s.len);
    return hd_str_n(at == 0 ? s.data : s.data + at, hd_min(len, s.len - at));
}

/* Takes the next part of <*rest> up to <sep> (dropped); false once <*rest> is used up. */
bool hd_str_split(hd_str_t *rest, char sep, hd_str_t *part);

/* How many of a path's segments are "..": lead up. */
unsigned hd_str_climbs(hd_str_t path);

enum { HD_U64_DIGITS_MAX = 20 };

/* Decimal digits only, no sign, no space; false on anything else or beyond <max>. */
bool hd_str_to_u64(hd_str_t s, uint64_t max, uint64_t *out) HD_MUST_CHECK;
/* The same with a "-" allowed before the digits; up to INT64_MAX either way. */
bool hd_str_to_i64(hd_str_t s, int64_t *out) HD_MUST_CHECK;

/* <n> in decimal, in the last bytes of <digits>, which the caller lends. */
static inline hd_str_t hd_str_from_u64(uint64_t n, char digits[static HD_U64_DIGITS_MAX])
{
    char *p = digits + HD_U64_DIGITS_MAX;

    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    return hd_str_n(p, (size_t)(digits + HD_U64_DIGITS_MAX - p));
}

/* Copies live as long as <pool>. The copy is followed by a zero byte that len does not
 * count. */
hd_str_t hd_str_dup(struct hd_pool_s *pool, hd_str_t s);
hd_str_t hd_str_dup_lower(struct hd_pool_s *pool, hd_str_t s);
char *hd_str_to_c(struct hd_pool_s *pool, hd_str_t s);
hd_str_t hd_str_printf(struct hd_pool_s *pool, const char *fmt, ...) HD_PRINTF(2, 3);
hd_str_t hd_str_vprintf(struct hd_pool_s *pool, const char *fmt, va_list args);

/* A hash for tables (not secret, but seeded per process start where input is hostile). */
uint32_t hd_str_hash(hd_str_t s);
uint32_t hd_str_hash_nocase(hd_str_t s);
/* The same bytes and <seed> give the same number in every process: for tables in shared
 * memory and consistent hashing. */
uint64_t hd_hash64(const void *data, size_t len, uint64_t seed);
