#include "map.h"

#include <stdio.h>
#include <stdlib.h>

#define MAPS_MAX 100
#define PIECE_BYTES 1024 /* converted at a time */
#define GROWTH_MAX 10    /* a character becomes "&#1114111;" at most */
#define CODE_MAX 0xffff  /* nginx: of charset_map */

static bool is_utf8(hd_str_t charset)
{
    return hd_str_eq_nocase(charset, HD_STR("utf-8"));
}

/* --- characters in UTF-8 (RFC 3629 §3) --- */

static unsigned length_of(uint8_t first)
{
    return first < 0x80                     ? 1
           : first >= 0xc2 && first <= 0xdf ? 2
           : first >= 0xe0 && first <= 0xef ? 3
           : first >= 0xf0 && first <= 0xf4 ? 4
                                            : 0;
}

/* The character at <at>: how many bytes it takes, 0: more must come. What is no character
 * counts as one byte, *code is UINT32_MAX. */
static unsigned decode(const uint8_t *at, size_t len, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned n = length_of(at[0]);

    *code = n == 1 ? at[0] : at[0] & (0x7fu >> n);
    for (unsigned i = 1; i < n; i++) {
        if (i == len)
            return 0;
        if ((at[i] & 0xc0) != 0x80)
            n = 0;
        else
            *code = *code << 6 | (at[i] & 0x3f);
    }
    if (n == 0 || *code < least[n] || *code > 0x10ffff || (*code >> 11) == 0x1b) {
        *code = UINT32_MAX;
        return 1;
    }
    return n;
}

static unsigned encode(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 0x3f));
    out[2] = (char)(0x80 | (code & 0x3f));
    return 3;
}

/* --- charset_map FROM TO { BYTE BYTE|UTF-8; … } --- */

/* One to <max> bytes in hexadecimal digits; how many; 0: it is something else. */
static unsigned read_hex(hd_str_t text, uint8_t *bytes, size_t max)
{
    unsigned n = 0;

    if (text.len == 1 && hd_hex_value(text.data[0]) >= 0) {
        bytes[0] = (uint8_t)hd_hex_value(text.data[0]);
        return 1;
    }
    if (text.len == 0 || text.len % 2 != 0 || text.len / 2 > max)
        return 0;
    for (size_t i = 0; i < text.len; i += 2) {
        int high = hd_hex_value(text.data[i]), low = hd_hex_value(text.data[i + 1]);

        if (high < 0 || low < 0)
            return 0;
        bytes[n++] = (uint8_t)(high << 4 | low);
    }
    return n;
}

static hd_rc_t read_line(const hd_node_t *line, charset_map_t *map, hd_err_t *err)
{
    uint8_t from, to[3];
    uint32_t code = 0;
    unsigned n;

    if (line->is_block || line->args_n != 1 || read_hex(line->name, &from, 1) != 1)
        return hd_err_set(err, HD_E_CONF,
                          "invalid line \"%.*s\": two characters are needed, in "
                          "hexadecimal digits, as in \"80 E282AC;\"",
                          HD_STR_ARG(line->name));
    n = read_hex(line->args[0], to, map->to_utf8 ? 3 : 1);
    if (n == 0 || (map->to_utf8 && (decode(to, n, &code) != n || code > CODE_MAX)))
        return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": %s",
                          HD_STR_ARG(line->args[0]),
                          map->to_utf8 ? "a character in UTF-8, of up to three bytes in "
                                         "hexadecimal digits"
                                       : "a byte in two hexadecimal digits");
    if (map->to_utf8) {
        map->to_code[from] = code;
    } else {
        map->to_byte[from] = to[0];
        map->from_byte[to[0]] = from;
    }
    return HD_OK;
}

static int by_code(const void *a, const void *b)
{
    uint32_t x = ((const charset_pair_t *)a)->code, y = ((const charset_pair_t *)b)->code;

    return (x > y) - (x < y);
}

/* The way back from UTF-8. */
static void index_codes(hd_conf_t *cf, charset_map_t *map)
{
    charset_pair_t *pairs = hd_pool_new_n(cf->pool, charset_pair_t, 256);
    uint32_t n = 0;

    for (unsigned i = 0; i < 256; i++) {
        if (map->to_code[i] >= 0x80)
            pairs[n++] = (charset_pair_t){map->to_code[i], (uint8_t)i};
    }
    qsort(pairs, n, sizeof(*pairs), by_code);
    map->by_code = pairs;
    map->by_code_n = n;
}

static hd_rc_t read_map(hd_conf_t *cf, const hd_node_t *node, charset_map_t *map,
                        hd_err_t *err)
{
    hd_str_t from = node->args[0], to = node->args[1];

    if (hd_str_eq_nocase(from, to))
        return hd_err_set(err, HD_E_CONF,
                          "\"charset_map\" between the same charsets \"%.*s\" and "
                          "\"%.*s\"",
                          HD_STR_ARG(from), HD_STR_ARG(to));
    if (is_utf8(from))
        return hd_err_set(err, HD_E_CONF,
                          "\"%.*s\" must come second: the first charset has a byte a "
                          "character",
                          HD_STR_ARG(from));
    *map = (charset_map_t){.from = hd_str_dup(cf->pool, from),
                           .to = hd_str_dup(cf->pool, to),
                           .to_utf8 = is_utf8(to)};
    for (unsigned i = 0; i < 256; i++) {
        map->to_byte[i] = map->from_byte[i] = i < 0x80 ? (uint8_t)i : '?';
        map->to_code[i] = i < 0x80 ? i : 0;
    }
    for (const hd_node_t *line = node->first; line != NULL; line = line->next) {
        if (read_line(line, map, err) != HD_OK)
            return hd_conf_blame(cf, line, err);
    }
    if (map->to_utf8)
        index_codes(cf, map);
    return HD_OK;
}

hd_rc_t charset_map_check(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    charset_map_t map;

    (void)args, (void)conf;
    return read_map(cf, cf->node, &map, err);
}

static bool is_map(const hd_node_t *n)
{
    return n->is_block && n->args_n == 2 && hd_str_eq(n->name, HD_STR("charset_map"));
}

hd_rc_t charset_maps_read(hd_conf_t *cf, charset_maps_t *maps, hd_err_t *err)
{
    const hd_node_t *http = cf->node;
    charset_map_t *list;
    uint32_t n = 0;

    while (http->parent != NULL && !hd_str_eq(http->name, HD_STR("http")))
        http = http->parent;
    for (const hd_node_t *c = http->first; c != NULL; c = c->next)
        n += is_map(c);
    if (n > MAPS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d charset_map", MAPS_MAX);
    list = hd_pool_new_n(cf->pool, charset_map_t, n + 1);
    *maps = (charset_maps_t){.list = list};
    for (const hd_node_t *c = http->first; c != NULL; c = c->next) {
        if (is_map(c) && read_map(cf, c, &list[maps->n++], err) != HD_OK)
            return hd_conf_blame(cf, c, err);
    }
    return HD_OK;
}

/* --- texts --- */

bool charset_find(const charset_maps_t *maps, hd_str_t from, hd_str_t to,
                  charset_converter_t *c)
{
    for (uint32_t i = 0; i < maps->n; i++) {
        const charset_map_t *m = &maps->list[i];
        bool forward = hd_str_eq_nocase(m->from, from) && hd_str_eq_nocase(m->to, to);

        if (!forward && !(hd_str_eq_nocase(m->to, from) && hd_str_eq_nocase(m->from, to)))
            continue;
        *c = (charset_converter_t){.map = m,
                                   .is_backward = !forward,
                                   .way = !m->to_utf8 ? CHARSET_BYTES
                                          : forward   ? CHARSET_TO_UTF8
                                                      : CHARSET_FROM_UTF8};
        return true;
    }
    return false;
}

static size_t put_bytes(const charset_converter_t *c, hd_str_t text, char *out)
{
    const uint8_t *table = c->is_backward ? c->map->from_byte : c->map->to_byte;

    for (size_t i = 0; i < text.len; i++)
        out[i] = (char)table[(uint8_t)text.data[i]];
    return text.len;
}

static size_t put_utf8(const charset_converter_t *c, hd_str_t text, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = (uint8_t)text.data[i];
        uint32_t code = c->map->to_code[byte];

        n += encode(code == 0 && byte != 0 ? '?' : code, out + n);
    }
    return n;
}

/* What the charset hasn't is written in HTML's way, what is no UTF-8 as '?'. */
static size_t put_character(const charset_converter_t *c, uint32_t code, char *out)
{
    charset_pair_t wanted = {.code = code};
    const charset_pair_t *found;
    int n;

    if (code < 0x80 || code == UINT32_MAX) {
        out[0] = code < 0x80 ? (char)code : '?';
        return 1;
    }
    found = bsearch(&wanted, c->map->by_code, c->map->by_code_n, sizeof(wanted), by_code);
    if (found != NULL) {
        out[0] = (char)found->byte;
        return 1;
    }
    n = snprintf(out, GROWTH_MAX + 1, "&#%u;", code);
    return n > 0 ? (size_t)n : 0;
}

/* <text> begins with what was begun before. */
static size_t put_from_utf8(charset_converter_t *c, hd_str_t text, bool is_end, char *out)
{
    size_t at = 0, n = 0;

    c->begun_n = 0;
    while (at < text.len) {
        uint32_t code;
        unsigned used =
            decode((const uint8_t *)text.data + at, text.len - at, &code);

        if (used == 0 && !is_end) {
            c->begun_n = (uint8_t)(text.len - at);
            memcpy(c->begun, text.data + at, c->begun_n);
            break;
        }
        n += put_character(c, used == 0 ? UINT32_MAX : code, out + n);
        at += used == 0 ? text.len - at : used;
    }
    return n;
}

bool charset_convert(charset_converter_t *c, hd_str_t text, bool is_end, hd_chain_t *out)
{
    char in[PIECE_BYTES + sizeof(c->begun)], made[sizeof(in) * GROWTH_MAX + 1];

    do {
        hd_str_t piece = hd_str_sub(text, 0, PIECE_BYTES);
        size_t n;

        text = hd_str_sub(text, piece.len, text.len);
        if (c->way == CHARSET_BYTES) {
            n = put_bytes(c, piece, made);
        } else if (c->way == CHARSET_TO_UTF8) {
            n = put_utf8(c, piece, made);
        } else {
            memcpy(in, c->begun, c->begun_n);
            if (piece.len > 0)
                memcpy(in + c->begun_n, piece.data, piece.len);
            n = put_from_utf8(c, hd_str_n(in, c->begun_n + piece.len),
                              is_end && text.len == 0, made);
        }
        if (n > 0 && !hd_chain_try_add_copy(out, made, n))
            return false;
    } while (text.len > 0);
    return true;
}
