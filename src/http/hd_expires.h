/* hd_expires: nginx's `expires`: how long a client may keep an answer. */
#pragma once
#include "http/hd_request.h"

/* TIME (may be negative), @TIME of day, epoch, max, off. False: none of these. */
bool hd_expires_parse(hd_str_t text, bool modified, hd_expires_t *e);
/* Sets Expires and Cache-Control of the response. */
void hd_expires_put(hd_req_t *req, const hd_expires_t *e);
