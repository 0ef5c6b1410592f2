#include "core/base/hd_log.h"
#include "core/os/hd_clock.h"
#include "core/os/hd_os.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

hd_log_level_t hd_log_level = HD_LOG_ERROR;

bool (*hd_log_sink)(hd_str_t to, hd_log_level_t level, hd_str_t line);

static int log_fd = STDERR_FILENO;
static hd_log_level_t fd_level = HD_LOG_DEBUG; /* lines above it don't go to <log_fd> */
static hd_log_place_t more; /* of the program's log, beside <log_fd>; on the heap */
/* Of this thread: a loop caches its own turn's time. 0: read the clock for each line. */
static _Thread_local int64_t log_wall_ns;

static const hd_str_t level_names[] = {
    HD_STR_INIT("stderr"), HD_STR_INIT("emerg"), HD_STR_INIT("alert"),
    HD_STR_INIT("crit"),   HD_STR_INIT("error"), HD_STR_INIT("warn"),
    HD_STR_INIT("notice"), HD_STR_INIT("info"),  HD_STR_INIT("debug"),
};

/* "2026/11/23 09:10:11", local time as nginx has it; made anew when the second changes.
 */
static const char *format_time(void)
{
    static _Thread_local time_t shown;
    static _Thread_local char text[24];
    int64_t ns = log_wall_ns != 0 ? log_wall_ns : hd_clock_wall_ns();
    time_t now = (time_t)(ns / 1000000000);
    struct tm tm;

    if (now != shown || text[0] == '\0') {
        if (localtime_r(&now, &tm) == NULL ||
            strftime(text, sizeof(text), "%Y/%m/%d %H:%M:%S", &tm) == 0)
            memcpy(text, "0000/00/00 00:00:00", 20);
        shown = now;
    }
    return text;
}

/* Appends <text>, which may quote a peer: a control character would forge or hide lines,
 * so it is written as \xNN. */
static size_t append_escaped(char *line, size_t at, size_t max, const char *text,
                             size_t n)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c >= 0x20 && c != 0x7f) {
            if (at + 1 > max)
                break;
            line[at++] = (char)c;
            continue;
        }
        if (at + 4 > max)
            break;
        line[at++] = '\\';
        line[at++] = 'x';
        line[at++] = hex[c >> 4];
        line[at++] = hex[c & 15];
    }
    return at;
}

static void write_fd(int fd, hd_str_t line)
{
    ssize_t rc;

    do
        rc = write(fd, line.data, line.len);
    while (rc < 0 && errno == EINTR); /* one lost on a full disk has no better place */
}

static void write_targets(const hd_log_place_t *place, hd_log_level_t level,
                          hd_str_t line)
{
    for (uint32_t i = 0; i < place->n; i++) {
        const hd_log_target_t *t = &place->targets[i];

        if (level > t->level)
            continue;
        if (t->to.len == 0)
            write_fd(STDERR_FILENO, line);
        else if (hd_log_sink == NULL || !hd_log_sink(t->to, level, line))
            write_fd(log_fd, line);
    }
}

static void write_line(const hd_log_place_t *place, hd_log_level_t level,
                       uint64_t conn_id, const char *fmt, va_list args)
{
    char line[LINE_MAX_BYTES], text[LINE_MAX_BYTES];
    int saved = errno;
    size_t at, len;
    int n;

    n = snprintf(line, sizeof(line), "%s [%s] %d#%d: ", format_time(),
                 level_names[level].data, (int)getpid(), (int)hd_os_tid());
    at = n < 0 ? 0 : (size_t)n;
    if (conn_id != 0) {
        n = snprintf(line + at, sizeof(line) - at, "*%llu ", (unsigned long long)conn_id);
        at += n < 0 ? 0 : (size_t)n;
    }
    n = vsnprintf(text, sizeof(text), fmt, args);
    len = n < 0 ? 0 : hd_min((size_t)n, sizeof(text) - 1);
    at = append_escaped(line, at, sizeof(line) - 1, text, len);
    line[at++] = '\n';
    if (place == NULL && level <= fd_level)
        write_fd(log_fd, hd_str_n(line, at));
    write_targets(place == NULL ? &more : place, level, hd_str_n(line, at));
    errno = saved;
}

void hd_log_write(hd_log_level_t level, uint64_t conn_id, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    write_line(NULL, level, conn_id, fmt, args);
    va_end(args);
}

void hd_log_write_at(const hd_log_place_t *place, hd_log_level_t level, uint64_t conn_id,
                     const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    write_line(place, level, conn_id, fmt, args);
    va_end(args);
}

void hd_log_set_main(hd_log_level_t level, const hd_log_target_t *targets, uint32_t n)
{
    hd_log_target_t *copy = n == 0 ? NULL : calloc(n, sizeof(*copy));

    hd_bug_on(n > 0 && copy == NULL);
    fd_level = hd_log_level = level;
    for (uint32_t i = 0; i < n; i++) {
        char *to = strndup(targets[i].to.data, targets[i].to.len);

        hd_bug_on(to == NULL);
        copy[i] = (hd_log_target_t){.to = hd_str_c(to), .level = targets[i].level};
        hd_log_level = hd_max(hd_log_level, targets[i].level);
    }
    for (uint32_t i = 0; i < more.n; i++)
        free((char *)(uintptr_t)more.targets[i].to.data);
    free((hd_log_target_t *)(uintptr_t)more.targets);
    more = (hd_log_place_t){.targets = copy, .n = n};
}

void hd_log_set_fd(int fd)
{
    log_fd = fd;
}

int hd_log_fd(void)
{
    return log_fd;
}

bool hd_log_parse_level(hd_str_t name, hd_log_level_t *level)
{
    for (unsigned i = HD_LOG_EMERG; i < hd_countof(level_names); i++) {
        if (hd_str_eq(name, level_names[i])) {
            *level = (hd_log_level_t)i;
            return true;
        }
    }
    return false;
}

void hd_log_set_time(int64_t wall_ns)
{
    log_wall_ns = wall_ns;
}
