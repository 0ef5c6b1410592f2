/* hd_pace: limit_rate: a response goes to its client no faster than so many bytes a
 * second, after limit_rate_after bytes at full speed, whatever the client speaks. As in
 * nginx a second's worth may go at once, and time counts from the request's begin.
 *
 *   source --hd_response_give_body--> filters --> held here --as time allows--> client
 */
#pragma once
#include "http/hd_request.h"

/* Bytes a second that the response is held to; 0: none. Of X-Accel-Limit-Rate, `set
 * $limit_rate`, or limit_rate, which is evaluated once. */
uint64_t hd_pace_rate(hd_req_t *req);
/* The size that <value> is on the request; 0: none, or not a size, which is logged. */
uint64_t hd_pace_eval(hd_req_t *req, const hd_expr_t *value, const char *what);
/* With the head: req->pace, if there is a rate. */
void hd_pace_start(hd_req_t *req);
/* What may go of <body> and of what was held before it is in <body> then; false:
 * nothing. */
bool hd_pace_pass(hd_req_t *req, hd_chain_t *body) HD_MUST_CHECK;
bool hd_pace_is_holding(const hd_req_t *req); /* the source is to stop */
/* The client has room again, or time has passed: gives it what may go. False: more is
 * held. */
bool hd_pace_go_on(hd_req_t *req);
void hd_pace_stop(hd_req_t *req); /* drops what is held */
