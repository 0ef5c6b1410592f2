/* hd_base64: bytes as letters (RFC 4648 §4, §5), both ways. */
#pragma once
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

typedef enum {
    HD_BASE64,    /* the standard alphabet, with + and / */
    HD_BASE64URL, /* safe in URLs and names of files: - and _ */
} hd_base64_alphabet_t;

/* How a text may end that isn't a multiple of four letters. */
typedef enum {
    HD_BASE64_EXACT, /* padded with '=' to such a multiple (RFC 4648 §3.2) */
    HD_BASE64_LOOSE, /* the same, or unpadded, or with any number of '=' */
} hd_base64_padding_t;

/* Enough for what <letters> decode to, whatever they are. */
#define HD_BASE64_BYTES_MAX(letters) ((letters) / 4 * 3 + 3)

/* <out> has room for HD_BASE64_BYTES_MAX(text.len) bytes; *n were written. False: it is
 * no such text (a letter of no alphabet or of the other, wrong padding, a letter too
 * many). Bits of the last letter beyond the last byte are not looked at (RFC 4648 §3.5).
 */
bool hd_base64_decode(hd_str_t text, hd_base64_alphabet_t alphabet,
                      hd_base64_padding_t padding, void *out, size_t *n) HD_MUST_CHECK;
/* Padded; in <pool>, behind it a NUL. */
hd_str_t hd_base64_encode(hd_pool_t *pool, hd_base64_alphabet_t alphabet,
                          const void *bytes, size_t n);
