#include "http/hd_chars.h"
#include "http/hd_codec.h"

/* RFC 9112 §7.1. What each state waits for. */
enum {
    SIZE_FIRST, /* the first hex digit of a size */
    SIZE,       /* more digits, an extension, or CR */
    EXTENSION,  /* CR; its content means nothing to us (§7.1.1) and is bounded */
    SIZE_LF,
    CONTENT, /* <left> bytes */
    CONTENT_CR,
    CONTENT_LF,
    DONE,
};

#define LINE_MAX_BYTES 1024 /* of a size line with its extensions */
#define SIZE_MAX_BYTES (INT64_MAX >> 8)

static hd_h1_rc_t bad(const char *text, const char **why)
{
    *why = text;
    return HD_H1_BAD;
}

/* One byte of a size line; *done: it was the last chunk's. */
static hd_h1_rc_t take_line_byte(hd_chunked_t *ch, char c, bool *done, const char **why)
{
    int digit;

    if (++ch->line_bytes > LINE_MAX_BYTES)
        return bad("chunk line too long", why);
    switch (ch->state) {
    case SIZE_FIRST:
        ch->left = 0;
        /* fall through */
    case SIZE:
        digit = hd_hex_value(c);
        if (digit >= 0) {
            if (ch->left > (uint64_t)SIZE_MAX_BYTES >> 4)
                return bad("chunk size too large", why);
            ch->left = ch->left << 4 | (unsigned)digit;
            ch->state = SIZE;
            return HD_H1_OK;
        }
        if (ch->state == SIZE_FIRST)
            return bad("bad chunk size", why);
        if (c == '\r')
            ch->state = SIZE_LF;
        else if (c == ';')
            ch->state = EXTENSION;
        else
            return bad("bad chunk size", why);
        return HD_H1_OK;
    case EXTENSION:
        if (c == '\r')
            ch->state = SIZE_LF;
        else if (!hd_is_char((unsigned char)c, HD_CH_VALUE))
            return bad("bad character in a chunk extension", why);
        return HD_H1_OK;
    default: /* SIZE_LF */
        if (c != '\n')
            return bad("chunk line ends without LF", why);
        ch->line_bytes = 0;
        *done = ch->left == 0;
        ch->state = *done ? DONE : CONTENT;
        return HD_H1_OK;
    }
}

hd_h1_rc_t hd_chunked_next(hd_chunked_t *ch, hd_str_t bytes, hd_str_t *content,
                           size_t *used, const char **why)
{
    size_t at = 0;

    *content = HD_STR_NONE;
    while (at < bytes.len) {
        char c = bytes.data[at];
        bool done = false;
        hd_h1_rc_t rc;

        switch (ch->state) {
        case CONTENT:
            *content = hd_str_sub(bytes, at, ch->left);
            ch->left -= content->len;
            *used = at + content->len;
            if (ch->left == 0)
                ch->state = CONTENT_CR;
            return HD_H1_MORE;
        case CONTENT_CR:
            if (c != '\r')
                return bad("chunk doesn't end where its size says", why);
            ch->state = CONTENT_LF;
            at++;
            break;
        case CONTENT_LF:
            if (c != '\n')
                return bad("chunk ends without LF", why);
            ch->state = SIZE_FIRST;
            at++;
            break;
        case DONE:
            *used = at;
            return HD_H1_OK;
        default:
            rc = take_line_byte(ch, c, &done, why);
            at++;
            if (rc != HD_H1_OK)
                return rc;
            if (done) {
                *used = at;
                return HD_H1_OK;
            }
        }
    }
    *used = at;
    return ch->state == DONE ? HD_H1_OK : HD_H1_MORE;
}
