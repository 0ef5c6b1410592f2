/* hd_files: log files by path, in each process: opened by the master, passed by the
 * channel, replaced at reopen. Writing is one write() a flush; lines may be gathered, so
 * that a busy log costs a system call per many lines. What a full disk or a broken file
 * loses is counted, and told in the error log once a minute. */
#pragma once
#include "core/base/hd_str.h"
#include "core/net/hd_loop.h"

typedef struct hd_file_s hd_file_t;

/* The file of <path>, NULL when this process was not given it. Stays good across reopen.
 */
hd_file_t *hd_file_get(hd_str_t path);
/* Takes <fd>; replaces the one held under that path. */
hd_file_t *hd_file_put(hd_str_t path, int fd);
/* A whole line with its newline; never mixed with others'. <buffered> false: at once;
 * else within a second, or when there are 16 KB. */
void hd_file_write(hd_file_t *f, hd_str_t line, bool buffered);

/* How lines are gathered: nginx's buffer=, flush=, gzip=. */
typedef struct {
    uint32_t buffer_bytes; /* 0: each is written at once */
    uint64_t flush_ms;     /* at the latest; 0: when the buffer is full, and at the end */
    uint8_t gzip_level;    /* 1 to 9: each buffer is a gzip member (RFC 1952); 0: plain */
} hd_file_how_t;
void hd_file_write_as(hd_file_t *f, hd_str_t line, const hd_file_how_t *how);
/* The same care for a descriptor of one's own: false, and counted, if it can't be written
 * whole. */
bool hd_file_write_fd(int fd, const char *path, hd_str_t line);
void hd_files_flush(void);
void hd_files_destroy(void); /* at the process's end */
/* All files of this process; start with NULL. */
hd_file_t *hd_files_next(const hd_file_t *f);
const char *hd_file_path(const hd_file_t *f);
int hd_file_fd(const hd_file_t *f);
/* The loop whose timers flush. */
void hd_files_set_loop(hd_loop_t *loop);
uint64_t hd_files_dropped(void); /* lines lost to a full disk or pipe */
