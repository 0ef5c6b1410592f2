/* hd_websocket: the one request in two forms: HTTP/1's Upgrade (RFC 6455) and HTTP/2's
 * extended CONNECT (RFC 8441). Inside the program it is HTTP/1's: GET, is_upgrade. */
#pragma once
#include "http/hd_request.h"

/* An extended CONNECT becomes GET with Upgrade; a websocket without a key gets one. */
void hd_websocket_from_h2(hd_req_t *req);
/* 101 becomes 200 for an HTTP/2 client. */
void hd_websocket_answer_h2(hd_req_t *req);
/* An HTTP/2 upstream agreed by 200: what an HTTP/1 client has to hear, in <res>. */
void hd_websocket_from_h2_answer(const hd_req_t *req, hd_res_head_t *res,
                                 hd_pool_t *pool);
