/* hd_file: files of this machine as answers: nginx's static, index and autoindex. Reads
 * are plain ones in the worker, block by block as the client takes them. */
#pragma once
#include "http/hd_request.h"

typedef enum {
    HD_AUTOINDEX_HTML,
    HD_AUTOINDEX_XML,
    HD_AUTOINDEX_JSON,
    HD_AUTOINDEX_JSONP,
} hd_autoindex_format_t;
typedef enum { HD_IMS_EXACT, HD_IMS_OFF, HD_IMS_BEFORE } hd_ims_t;
typedef enum { HD_SYMLINKS_ALL, HD_SYMLINKS_NONE, HD_SYMLINKS_OWNER } hd_symlinks_t;
typedef enum {
    HD_GZIP_STATIC_OFF,
    HD_GZIP_STATIC_ON,
    HD_GZIP_STATIC_ALWAYS
} hd_gzip_static_t;

/* try_files, compiled: the last one is where it goes when none is there. */
typedef struct {
    const hd_expr_t *name;
    bool is_dir; /* "name/" */
} hd_try_file_t;

/* Data in the route table's region; one for each place. */
typedef struct hd_file_conf_s {
    const hd_expr_t *root; /* NULL: "html" */
    hd_str_t prefix;       /* relative paths begin here */
    uint32_t alias_len;    /* of the location's path that `alias` takes the place of */
    bool is_alias, is_regex_alias /* the whole path */;
    const hd_expr_t *const *index;
    uint32_t index_n; /* 0: index.html */
    uint32_t no_etag, if_modified_since, autoindex_format, symlinks, gzip_static;
    const hd_expr_t *symlinks_from; /* links in this beginning count not; NULL: all do */
    uint32_t max_ranges_plus_1;     /* 0: no limit */
    uint32_t rough_size, quiet_not_found;
    bool autoindex, autoindex_localtime, random_index;
} hd_file_conf_t;

/* The file's name of <uri>: root and URI, or alias and what is behind it. *root_len: of
 * what comes before the URI's part. HD_ERROR: it can't be told (req->err). */
hd_rc_t hd_file_name(hd_req_t *req, hd_str_t uri, hd_str_t *path,
                     size_t *root_len) HD_MUST_CHECK;
/* The root alone, absolute. */
hd_rc_t hd_file_root(hd_req_t *req, hd_str_t *root) HD_MUST_CHECK;
/* Looks for the files in turn: HD_OK: one is there, req->head.path names it;
 * HD_DECLINED: none but the last. */
hd_rc_t hd_file_try(hd_req_t *req, const hd_try_file_t *list, uint32_t n) HD_MUST_CHECK;

extern const hd_action_ops_t hd_file_action; /* HD_ACT_FILE */

/* --- hd_autoindex.c --- */
/* The directory as a page; answers. */
hd_rc_t hd_autoindex_answer(hd_req_t *req, const hd_file_conf_t *conf, hd_str_t path);

/* --- hd_random_index.c --- */
/* The name of any file in the directory <path>, in the request's pool; HD_DECLINED: there
 * is none, HD_ERROR: *error says why it can't be read. nginx's random_index. */
hd_rc_t hd_random_index_choose(hd_req_t *req, hd_str_t path, hd_str_t *name,
                               int *error) HD_MUST_CHECK;

/* --- hd_conditional.c --- */
/* Of a 200 with <etag> (empty: none) and <mtime> (seconds; -1: none): does the client
 * have it (304), or does it refuse it (412)? 0: neither. RFC 9110 §13. */
unsigned hd_http_conditional(hd_req_t *req, hd_str_t etag, int64_t mtime, hd_ims_t ims);
typedef struct {
    int64_t from, to; /* to: behind the last byte */
} hd_range_t;
/* The ranges asked for of <size> bytes: *n of at most <max>. HD_DECLINED: all of it is to
 * be sent; HD_ERROR: 416. RFC 9110 §14. */
hd_rc_t hd_http_ranges(hd_req_t *req, hd_str_t etag, int64_t mtime, int64_t size,
                       uint32_t max, hd_range_t **ranges, uint32_t *n) HD_MUST_CHECK;
/* A date of HTTP in any of its three forms (RFC 9110 §5.6.7); -1: none. */
int64_t hd_http_parse_date(hd_str_t text);
/* IMF-fixdate; in <pool>. */
hd_str_t hd_http_print_date(hd_pool_t *pool, int64_t s);
