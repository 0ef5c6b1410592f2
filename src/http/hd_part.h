/* hd_part: of an upstream's response that comes whole the client is sent the part that it
 * asked for by Range (nginx's proxy_force_ranges, RFC 9110 §14). */
#pragma once
#include "http/hd_request.h"

/* The response that has come may be had in parts, whatever its own Accept-Ranges says:
 * before its filters, which say no by removing that field. */
void hd_part_offer(hd_req_t *req);
/* Before its head goes to the client: for a part it becomes that of a 206. False: there
 * is no such part, and 416 has been answered. */
bool hd_part_start(hd_req_t *req) HD_MUST_CHECK;
/* Leaves of <body>, as it comes, what belongs to the part, and its flags. */
void hd_part_cut(hd_req_t *req, hd_chain_t *body);
