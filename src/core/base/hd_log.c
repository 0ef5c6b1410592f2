#include "core/base/hd_log.h"
#include "core/os/hd_clock.h"
#include "core/os/hd_os.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

hd_log_level_t hd_log_level = HD_LOG_ERROR;

static int log_fd = STDERR_FILENO;
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

static void write_line(const char *line, size_t n)
{
    int saved = errno;
    ssize_t rc;

    do
        rc = write(log_fd, line, n);
    while (rc < 0 && errno == EINTR);
    errno = saved; /* a line lost on a full disk has no better place to be told */
}

void hd_log_write(hd_log_level_t level, uint64_t conn_id, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES], text[LINE_MAX_BYTES];
    size_t at, len;
    va_list args;
    int n;

    n = snprintf(line, sizeof(line), "%s [%s] %d#%d: ", format_time(),
                 level_names[level].data, (int)getpid(), (int)hd_os_tid());
    at = n < 0 ? 0 : (size_t)n;
    if (conn_id != 0) {
        n = snprintf(line + at, sizeof(line) - at, "*%llu ", (unsigned long long)conn_id);
        at += n < 0 ? 0 : (size_t)n;
    }
    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    len = n < 0 ? 0 : hd_min((size_t)n, sizeof(text) - 1);
    at = append_escaped(line, at, sizeof(line) - 1, text, len);
    line[at++] = '\n';
    write_line(line, at);
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
