/* hd_temp_file: bytes beyond what memory is for: files without a name, so that nothing is
 * left of them however the process ends. */
#pragma once
#include "core/base/hd_buf.h"
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"

/* In <dir> (NUL-terminated; empty: /tmp), which is made if it is missing. The caller
 * closes it. -1: <err> says why. */
int hd_temp_file_open(hd_pool_t *temp, hd_str_t dir, hd_err_t *err);
/* The same with a name, which is the caller's to remove: *name, NUL-terminated, in
 * <pool>. */
int hd_temp_file_open_named(hd_pool_t *pool, hd_str_t dir, hd_str_t *name, hd_err_t *err);
/* All bytes of <body>, which stays as it is, at <offset>. */
hd_rc_t hd_temp_file_write(int fd, int64_t offset, const hd_chain_t *body,
                           hd_err_t *err) HD_MUST_CHECK;
void hd_temp_file_close(int *fd); /* -1 is none, and stands there afterwards */
