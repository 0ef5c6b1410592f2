/* hd_temp_file: bytes beyond what memory is for: files without a name, so that nothing is
 * left of them however the process ends. */
#pragma once
#include "http/hd_request.h"

/* In <dir> (NUL-terminated; empty: /tmp), which is made if it is missing. The caller
 * closes it. -1: req->err says why. */
int hd_temp_file_open(hd_req_t *req, hd_str_t dir);
/* All bytes of <body>, which stays as it is, at <offset>. */
hd_rc_t hd_temp_file_write(hd_req_t *req, int fd, int64_t offset, const hd_chain_t *body);
void hd_temp_file_close(int *fd); /* -1 is none, and stands there afterwards */
