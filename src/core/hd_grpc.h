/* hd_grpc: message framing (5 bytes: compressed flag, length), status texts,
 * percent-encoding of grpc-message. Pure functions over chains. */
#pragma once
#include "core/base/hd_buf.h"
#include "core/base/hd_err.h"

#define HD_GRPC_NO_STATUS UINT32_MAX
#define HD_GRPC_DEADLINE_EXCEEDED 4

/* Cuts the next whole message off <in>, copied into one run of the heap (free it).
 * HD_AGAIN: not all there. HD_ERROR: compressed, or longer than <max>. */
hd_rc_t hd_grpc_take_message(hd_chain_t *in, size_t max, uint8_t **bytes, size_t *len,
                             hd_err_t *err) HD_MUST_CHECK;
/* Appends a framed message; false: block ceiling. */
bool hd_grpc_try_add_message(hd_chain_t *out, const void *bytes,
                             size_t len) HD_MUST_CHECK;
/* gRPC's table for answers without a status of gRPC's: 200 is no success, either. */
unsigned hd_grpc_status_from_http(unsigned status);
const char *hd_grpc_status_name(unsigned status);
/* grpc-message's percent-encoding: visible ASCII but '%' stays; not copied if all does.
 */
hd_str_t hd_grpc_escape(struct hd_pool_s *pool, hd_str_t text);
hd_str_t hd_grpc_unescape(struct hd_pool_s *pool, hd_str_t text);
