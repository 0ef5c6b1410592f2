/* hd_uri: small readers and writers of a request's target and cookies. */
#pragma once
#include "http/hd_request.h"

/* <text> with %XX for each byte that <needs> it: <text> itself where none does. */
hd_str_t hd_uri_escape_where(hd_pool_t *pool, hd_str_t text,
                             bool (*needs)(unsigned char c));
/* As nginx writes a normalised path into a request line: space, %, ?, # and what isn't
 * visible ASCII become %XX. Unchanged (and not copied) where there is none. */
hd_str_t hd_uri_escape(hd_pool_t *pool, hd_str_t path);
/* Space, control bytes: would break a request line. */
bool hd_uri_has_bad_bytes(hd_str_t uri);
/* The first value of a query argument; names are compared without case, as nginx's $arg_.
 */
bool hd_uri_find_arg(hd_str_t query, hd_str_t name, hd_str_t *value);
bool hd_uri_find_cookie(hd_req_t *req, hd_str_t name, bool ignore_case, hd_str_t *value);
