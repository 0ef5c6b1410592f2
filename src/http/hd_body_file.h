/* hd_body_file: client_body_in_file_only: a request's body as a file with a name, which
 * other programs may read: $request_body_file. */
#pragma once
#include "http/hd_request.h"

typedef enum {
    HD_BODY_IN_MEMORY, /* as much as client_body_buffer_size says */
    HD_BODY_FILE_KEPT,
    HD_BODY_FILE_CLEANED, /* it goes with its request */
} hd_body_in_file_t;

typedef struct hd_body_file_s {
    int fd; /* the request's; closed at its end */
    int64_t bytes;
    hd_str_t name; /* NUL-terminated */
    bool is_kept;
} hd_body_file_t;

/* Makes req->body_file, empty, if there is none yet, in client_body_temp_path. HD_ERROR:
 * req->err says why. */
hd_rc_t hd_body_file_open(hd_req_t *req) HD_MUST_CHECK;
/* Appends <body>, which stays as it is. */
hd_rc_t hd_body_file_add(hd_req_t *req, const hd_chain_t *body) HD_MUST_CHECK;
