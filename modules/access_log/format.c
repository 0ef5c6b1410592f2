#include "format.h"

#define LINE_BYTES 1024

static void make_room(log_line_t *l, size_t more)
{
    size_t room = l->room > 0 ? l->room : LINE_BYTES;
    char *data;

    if (l->len + more <= l->room)
        return;
    while (room < l->len + more)
        room *= 2;
    data = hd_pool_alloc_unaligned(l->pool, room);
    if (l->len > 0)
        memcpy(data, l->data, l->len);
    l->data = data;
    l->room = room;
}

void log_add(log_line_t *l, hd_str_t s)
{
    make_room(l, s.len);
    if (s.len > 0)
        memcpy(l->data + l->len, s.data, s.len);
    l->len += s.len;
}

static const char digits[] = "0123456789ABCDEF";

static void add_default(log_line_t *l, hd_str_t s)
{
    char *to;

    make_room(l, s.len * 4);
    to = l->data + l->len;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];

        if (c == '"' || c == '\\' || c < 32 || c > 126) {
            *to++ = '\\';
            *to++ = 'x';
            *to++ = digits[c >> 4];
            *to++ = digits[c & 15];
        } else {
            *to++ = (char)c;
        }
    }
    l->len = (size_t)(to - l->data);
}

void log_add_clean(log_line_t *l, hd_str_t s)
{
    size_t from = 0;

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];
        char hex[4] = {'\\', 'x', digits[c >> 4], digits[c & 15]};

        if (c >= 32 && c != 127)
            continue;
        log_add(l, hd_str_sub(s, from, i));
        log_add(l, hd_str_n(hex, 4));
        from = i + 1;
    }
    log_add(l, hd_str_sub(s, from, s.len));
}

/* RFC 8259 §7. */
static void add_json(log_line_t *l, hd_str_t s)
{
    static const char named[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    char *to;

    make_room(l, s.len * 6);
    to = l->data + l->len;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];

        if (c == '"' || c == '\\') {
            *to++ = '\\';
            *to++ = (char)c;
        } else if (c >= 32) {
            *to++ = (char)c;
        } else if (named[c] != 0) {
            *to++ = '\\';
            *to++ = named[c];
        } else {
            memcpy(to, "\\u00", 4);
            to[4] = digits[c >> 4];
            to[5] = digits[c & 15];
            to += 6;
        }
    }
    l->len = (size_t)(to - l->data);
}

static void add_value(log_line_t *l, log_escape_t escape, const hd_attr_of_t *of,
                      const hd_attr_t *attr)
{
    hd_val_t value = {0};
    hd_str_t text;

    hd_attr_get(of, attr, &value);
    if (value.type == HD_VAL_NONE) {
        if (escape == LOG_ESCAPE_DEFAULT)
            log_add(l, HD_STR("-"));
        return;
    }
    text = value.type == HD_VAL_STR ? value.str : hd_attr_text(of, attr);
    if (escape == LOG_ESCAPE_DEFAULT)
        add_default(l, text);
    else if (escape == LOG_ESCAPE_JSON)
        add_json(l, text);
    else
        log_add(l, text);
}

void log_render(const log_format_t *format, const hd_attr_of_t *of, log_line_t *line)
{
    for (uint32_t i = 0; i < format->text->n; i++) {
        const hd_expr_part_t *part = &format->text->parts[i];

        if (part->attr.name.len == 0)
            log_add(line, part->text);
        else
            add_value(line, format->escape, of, &part->attr);
    }
    log_add(line, HD_STR("\n"));
}
