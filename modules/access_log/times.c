#include "times.h"

#include <stdio.h>
#include <time.h>

#define FORMAT_MAX 256
#define TEXT_MAX 512

/* Digits of the second in place of their names, which strftime hasn't, and seconds since
 * 1970, which it takes for local time. */
static void put_fractions(char *to, size_t room, hd_str_t format, time_t s, int ns)
{
    size_t n = 0;

    for (size_t i = 0; i < format.len && n + 24 < room; i++) {
        const char *p = format.data + i;
        size_t left = format.len - i;
        size_t digits = 9;

        if (left >= 2 && p[0] == '%' && p[1] == 's') {
            n += (size_t)snprintf(to + n, room - n, "%lld", (long long)s);
            i += 1;
            continue;
        }
        if (left >= 2 && p[0] == '%' && p[1] == 'f') {
            i += 1;
        } else if (left >= 3 && p[0] == '%' && p[1] >= '1' && p[1] <= '9' && p[2] == 'f') {
            digits = (size_t)(p[1] - '0');
            i += 2;
        } else {
            to[n++] = p[0];
            if (p[0] == '%' && left >= 2) /* "%%f" is none */
                to[n++] = format.data[++i];
            continue;
        }
        snprintf(to + n, room - n, "%09d", ns);
        n += digits;
    }
    to[n] = '\0';
}

hd_str_t log_time(hd_pool_t *pool, hd_str_t format, int64_t wall_ns)
{
    time_t s = (time_t)(wall_ns / 1000000000);
    char own[FORMAT_MAX], text[TEXT_MAX];
    struct tm tm;

    if (gmtime_r(&s, &tm) == NULL)
        return HD_STR_NONE;
    if (format.len == 0)
        format = HD_STR("%Y-%m-%dT%H:%M:%S.%3fZ");
    put_fractions(own, sizeof(own), format, s, (int)(wall_ns % 1000000000));
    return hd_str_dup(pool, hd_str_n(text, strftime(text, sizeof(text), own, &tm)));
}
