/* hd_log: the error log, in nginx's form:
 *     2026/11/23 09:10:11 [error] 812#812: *5 text
 *
 * One log a process (a file or stderr), opened before privileges are dropped and replaced
 * by reopen. A line is one write() of at most 2 KB: lines of several processes never mix.
 */
#pragma once
#include "core/base/hd_str.h"

typedef enum {
    HD_LOG_EMERG = 1,
    HD_LOG_ALERT,
    HD_LOG_CRIT,
    HD_LOG_ERROR,
    HD_LOG_WARN,
    HD_LOG_NOTICE,
    HD_LOG_INFO,
    HD_LOG_DEBUG,
} hd_log_level_t;

extern hd_log_level_t hd_log_level; /* lines above it are not written */

/* Where the lines of a place go: nginx's error_log lines of one block. Data of
 * configuration: a region's. */
typedef struct {
    hd_str_t to; /* a file's path, or "syslog:…" (hd_syslog.h); empty: stderr */
    hd_log_level_t level;
} hd_log_target_t;

typedef struct hd_log_place_s {
    const hd_log_target_t *targets;
    uint32_t n;
    hd_log_level_t level; /* the highest of theirs */
} hd_log_place_t;

/* <conn_id> 0: none. Cheap when the level is off: arguments are not evaluated. */
#define hd_log(level, ...) hd_log_conn(level, 0, __VA_ARGS__)
#define hd_log_conn(level, conn_id, ...)                                                 \
    do {                                                                                 \
        if (hd_unlikely((level) <= hd_log_level))                                        \
            hd_log_write(level, conn_id, __VA_ARGS__);                                   \
    } while (0)

void hd_log_write(hd_log_level_t level, uint64_t conn_id, const char *fmt, ...)
    HD_PRINTF(3, 4);

/* The same for a place; <place> NULL: the program's log. */
static inline bool hd_log_is_on(const hd_log_place_t *place, hd_log_level_t level)
{
    return level <= (place == NULL ? hd_log_level : place->level);
}
#define hd_log_at(place, level, conn_id, ...)                                            \
    do {                                                                                 \
        if (hd_unlikely(hd_log_is_on(place, level)))                                     \
            hd_log_write_at(place, level, conn_id, __VA_ARGS__);                         \
    } while (0)
void hd_log_write_at(const hd_log_place_t *place, hd_log_level_t level, uint64_t conn_id,
                     const char *fmt, ...) HD_PRINTF(4, 5);

/* The program's log: what is written to hd_log_fd up to <level> (0: nothing), and further
 * targets (copied). hd_log_level becomes the highest. */
void hd_log_set_main(hd_log_level_t level, const hd_log_target_t *more, uint32_t n);
/* Writes a line, newline included, to a named target; set by core/proc. False: this
 * process has none of that name; the line goes to the program's log. */
extern bool (*hd_log_sink)(hd_str_t to, hd_log_level_t level, hd_str_t line);

/* Writes to <fd> from now on (not owned) and, before that, to stderr. */
void hd_log_set_fd(int fd);
int hd_log_fd(void);
bool hd_log_parse_level(hd_str_t name, hd_log_level_t *level) HD_MUST_CHECK;
/* Called by hd_log with the wall clock; the loop caches it once a turn. */
void hd_log_set_time(int64_t wall_ns);
