/* hd_small_file: regular files that are read whole: certificates, keys, lists. What else
 * lies in the place of one (a pipe, a device) is refused rather than waited for. */
#pragma once
#include "core/base/hd_str.h"
#include "core/base/hd_err.h"

/* Equal as long as the file wasn't changed or replaced. */
typedef struct {
    uint64_t device, inode, size, changed_ns;
} hd_file_stamp_t;

typedef struct {
    int fd;
    size_t bytes; /* its size when it was opened */
    hd_file_stamp_t stamp;
} hd_small_file_t;

/* The error calls it <what>: cannot load WHAT "PATH". Larger than <bytes_max> is one. */
hd_rc_t hd_small_file_open(hd_small_file_t *f, const char *path, size_t bytes_max,
                           const char *what, hd_err_t *err) HD_MUST_CHECK;
/* Reads it into f->bytes at <to>, and closes it in any case; less if it has shrunk. */
hd_rc_t hd_small_file_take(hd_small_file_t *f, char *to, hd_str_t *text,
                           hd_err_t *err) HD_MUST_CHECK;
/* False: it can't be looked at. */
bool hd_file_stamp_get(const char *path, hd_file_stamp_t *stamp);
bool hd_file_stamp_eq(const hd_file_stamp_t *a, const hd_file_stamp_t *b);
