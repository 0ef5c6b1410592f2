/* tap: what C unit tests print their results with (TAP, read by prove).
 *
 *     #include "tap.h"
 *     int main(void)
 *     {
 *         ok(hd_str_eq(a, b));                     the expression is the name
 *         is_int(len, 3, "length of %s", name);    or a name, printf-like
 *         is_str(text, "abc", "text");             C strings; NULL equals NULL
 *         is_mem(p, "abc", 3, "bytes");
 *         return done_testing();
 *     }
 *
 * plan_tests(n) at the start instead makes done_testing() fail when the count differs.
 * Each returns whether it passed. Threads and forked children must not call these.
 */
#pragma once
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_run_n, tap_failed_n, tap_planned_n = -1;

#define TAP_UNUSED __attribute__((unused))
#define TAP_LABEL(...) __VA_OPT__(1 ? tap_label(__VA_ARGS__) :) NULL

#define ok(e, ...)                                                                       \
    tap_ok((e) ? true : false, #e, __FILE__, __LINE__, TAP_LABEL(__VA_ARGS__))
#define is_int(got, want, ...)                                                           \
    tap_is_int((intmax_t)(got), (intmax_t)(want), #got " is " #want, __FILE__, __LINE__, \
               TAP_LABEL(__VA_ARGS__))
#define is_str(got, want, ...)                                                           \
    tap_is_str((got), (want), #got " is " #want, __FILE__, __LINE__,                     \
               TAP_LABEL(__VA_ARGS__))
#define is_mem(got, want, n, ...)                                                        \
    tap_is_mem((got), (want), (n), #got " is " #want, __FILE__, __LINE__,                \
               TAP_LABEL(__VA_ARGS__))
#define pass(...) tap_ok(true, "pass", __FILE__, __LINE__, TAP_LABEL(__VA_ARGS__))
#define fail(...) tap_ok(false, "fail", __FILE__, __LINE__, TAP_LABEL(__VA_ARGS__))

/* A line of explanation; prove shows it beside a failure. */
TAP_UNUSED __attribute__((format(printf, 1, 2))) static void diag(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    va_start(ap, fmt);
    fputs("# ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

TAP_UNUSED __attribute__((format(printf, 1, 2))) static const char *
tap_label(const char *fmt, ...)
{
    static char label[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(label, sizeof(label), fmt, ap);
    va_end(ap);
    return label;
}

TAP_UNUSED static bool tap_ok(bool passed, const char *expr, const char *file, int line,
                              const char *label)
{
    tap_run_n++;
    /* TAP reads "#" as the start of a directive and a line end as the end. */
    printf("%sok %d - ", passed ? "" : "not ", tap_run_n);
    for (const char *c = label ? label : expr; *c != '\0'; c++) {
        if (*c == '#')
            putchar('\\');
        putchar(*c == '\n' ? ' ' : *c);
    }
    putchar('\n');
    fflush(stdout);
    if (!passed) {
        tap_failed_n++;
        diag("failed: %s (%s:%d)", expr, file, line);
    }
    return passed;
}

TAP_UNUSED static bool tap_is_int(intmax_t got, intmax_t want, const char *expr,
                                  const char *file, int line, const char *label)
{
    if (tap_ok(got == want, expr, file, line, label))
        return true;
    diag("     got: %" PRIdMAX, got);
    diag("expected: %" PRIdMAX, want);
    return false;
}

TAP_UNUSED static bool tap_is_str(const char *got, const char *want, const char *expr,
                                  const char *file, int line, const char *label)
{
    bool same = got == NULL || want == NULL ? got == want : strcmp(got, want) == 0;

    if (tap_ok(same, expr, file, line, label))
        return true;
    diag("     got: %s", got ? got : "(NULL)");
    diag("expected: %s", want ? want : "(NULL)");
    return false;
}

TAP_UNUSED static bool tap_is_mem(const void *got, const void *want, size_t n,
                                  const char *expr, const char *file, int line,
                                  const char *label)
{
    const unsigned char *g = got, *w = want;
    size_t at = 0;

    while (at < n && g[at] == w[at])
        at++;
    if (tap_ok(at == n, expr, file, line, label))
        return true;
    diag("byte %zu of %zu: got 0x%02x, expected 0x%02x", at, n, g[at], w[at]);
    return false;
}

TAP_UNUSED static void plan_tests(int n)
{
    tap_planned_n = n;
    printf("1..%d\n", n);
    fflush(stdout);
}

/* What main() returns: 0 when all planned tests ran and passed. */
TAP_UNUSED static int done_testing(void)
{
    if (tap_planned_n < 0) {
        printf("1..%d\n", tap_run_n);
    } else if (tap_planned_n != tap_run_n) {
        diag("planned %d tests, ran %d", tap_planned_n, tap_run_n);
        return 1;
    }
    fflush(stdout);
    return tap_failed_n == 0 ? 0 : 1;
}
