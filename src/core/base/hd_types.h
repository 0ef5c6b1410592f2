/* hd_types: the words that every file speaks: result codes, checks, small macros.
 *
 * Elsewhere: why something failed (hd_err.h), strings (hd_str.h).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What the caller does next. Why lies in hd_err_t. Test with `!= HD_OK` and pass it on.
 */
typedef enum {
    HD_OK = 0,
    HD_AGAIN,    /* parked: an event resumes it */
    HD_DONE,     /* finished early, nothing more to do */
    HD_REROUTE,  /* find a route anew */
    HD_DECLINED, /* not mine: ask the next */
    HD_ERROR,    /* failed: the reason is set */
} hd_rc_t;

#define HD_MUST_CHECK __attribute__((warn_unused_result))
#define HD_PRINTF(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))
#define HD_EXPORT __attribute__((visibility("default")))
#define HD_NORETURN __attribute__((noreturn))
#define hd_likely(x) __builtin_expect(!!(x), 1)
#define hd_unlikely(x) __builtin_expect(!!(x), 0)

/* Spells that a result is not looked at; the reason stands beside it. */
#define hd_ignore(expr)                                                                  \
    do {                                                                                 \
        if (expr) {                                                                      \
        }                                                                                \
    } while (0)

#define hd_countof(array) (sizeof(array) / sizeof((array)[0]))
#define hd_container_of(ptr, type, member)                                               \
    ((type *)((char *)(ptr)-offsetof(type, member)))
#define hd_min(a, b) ((a) < (b) ? (a) : (b))
#define hd_max(a, b) ((a) > (b) ? (a) : (b))
#define hd_align_up(n, to)                                                               \
    (((n) + (to)-1) & ~((size_t)(to)-1)) /* <to>: a power of two                         \
                                          */

#define HD_CACHE_LINE 64

/* Ends the process with a line in the error log: an invariant of ours is broken. The
 * master replaces a worker that ends so. */
HD_NORETURN void hd_bug(const char *file, int line, const char *what);

/* Cheap, always on. Never reached by what a peer sends: that is an error, not a bug. */
#define hd_bug_on(cond)                                                                  \
    do {                                                                                 \
        if (hd_unlikely(cond))                                                           \
            hd_bug(__FILE__, __LINE__, #cond);                                           \
    } while (0)

/* An invariant, checked in debug, sanitizer and fuzz builds (HD_DEBUG). */
#ifdef HD_DEBUG
#define hd_assert(cond) hd_bug_on(!(cond))
#else
#define hd_assert(cond) ((void)0)
#endif
