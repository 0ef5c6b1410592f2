/* hd_files: log files by path, in each process: opened by the master, passed by the
 * channel, replaced at reopen. Writing is one write() a flush; buffered per process up to
 * 16 KB or one second, so that a busy log costs a system call per many lines. */
#pragma once
#include "core/base/hd_str.h"
#include "core/net/hd_loop.h"

typedef struct hd_file_s hd_file_t;

/* The file of <path>, NULL when this process was not given it. Stays good across reopen.
 */
hd_file_t *hd_file_get(hd_str_t path);
/* Takes <fd>; replaces the one held under that path. */
hd_file_t *hd_file_put(hd_str_t path, int fd);
/* A whole line with its newline; never mixed with others'. <buffered> false: at once. */
void hd_file_write(hd_file_t *f, hd_str_t line, bool buffered);
void hd_files_flush(void);
void hd_files_destroy(void); /* at the process's end */
/* All files of this process; start with NULL. */
hd_file_t *hd_files_next(const hd_file_t *f);
const char *hd_file_path(const hd_file_t *f);
int hd_file_fd(const hd_file_t *f);
/* The loop whose timer flushes once a second. */
void hd_files_set_loop(hd_loop_t *loop);
uint64_t hd_files_dropped(void); /* lines lost to a full disk or pipe */
