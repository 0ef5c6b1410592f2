/* map: charset_map, which characters of two charsets are the same, and texts of the one
 * made texts of the other. Data only: it lies in the region. One of the two has a byte a
 * character; the other one, too, or it is UTF-8. */
#pragma once
#include "hd_module.h"

typedef struct {
    uint32_t code; /* in UTF-8 */
    uint8_t byte;
} charset_pair_t;

typedef struct {
    hd_str_t from, to;
    bool to_utf8;
    uint8_t to_byte[256], from_byte[256]; /* '?' for what the other one hasn't */
    uint32_t to_code[256];                /* of UTF-8; 0: none */
    const charset_pair_t *by_code;        /* sorted; what isn't ASCII */
    uint32_t by_code_n;
} charset_map_t;

typedef struct {
    const charset_map_t *list;
    uint32_t n;
} charset_maps_t;

/* All charset_map of the http block around cf->node; in cf->pool. */
hd_rc_t charset_maps_read(hd_conf_t *cf, charset_maps_t *maps, hd_err_t *err);
/* The same of one, cf->node, to see whether it is right. */
hd_rc_t charset_map_check(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);

typedef enum {
    CHARSET_BYTES, /* a byte becomes a byte */
    CHARSET_TO_UTF8,
    CHARSET_FROM_UTF8,
} charset_way_t;

typedef struct {
    const charset_map_t *map;
    charset_way_t way;
    bool is_backward;
    uint8_t begun[4]; /* of a character in UTF-8 whose rest comes with the next piece */
    uint8_t begun_n;
} charset_converter_t;

/* The way from one charset to another, names in any case; false: no map leads there. */
bool charset_find(const charset_maps_t *maps, hd_str_t from, hd_str_t to,
                  charset_converter_t *c);
/* <text> made anew behind what is in <out>; <is_end>: nothing follows. False: there is no
 * block left. */
bool charset_convert(charset_converter_t *c, hd_str_t text, bool is_end,
                     hd_chain_t *out) HD_MUST_CHECK;
