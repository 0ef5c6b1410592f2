/* hd_chars: which bytes may stand where in HTTP (RFC 9110 §5.6.2, §5.5; RFC 3986). */
#pragma once
#include "core/base/hd_str.h"
#include "core/base/hd_word.h"

enum {
    HD_CH_TOKEN = 1,  /* tchar: methods, field names */
    HD_CH_VALUE = 2,  /* field values: HTAB, SP, VCHAR, obs-text */
    HD_CH_TARGET = 4, /* request target: visible ASCII but '#' */
    HD_CH_HOST = 8,   /* reg-name, IP literals, port: no '@', no '/' */
    HD_CH_UNRESERVED = 16,
    HD_CH_HEX = 32,
    HD_CH_DIGIT = 64,
    HD_CH_NAME = 128, /* of field names that nginx calls valid, without '_' */
};

extern const uint8_t hd_chars[256];

static inline bool hd_is_char(unsigned char c, unsigned classes)
{
    return (hd_chars[c] & classes) != 0;
}

/* Length of the run at the start of <s> made of bytes of <classes>. */
static inline size_t hd_span(hd_str_t s, unsigned classes)
{
    size_t n = 0;

    while (n < s.len && hd_is_char((unsigned char)s.data[n], classes))
        n++;
    return n;
}

/* The same for HD_CH_VALUE, eight bytes at a time: values are long. */
static inline size_t hd_span_value(hd_str_t s)
{
    size_t n = 0;

    while (n + 8 <= s.len) {
        size_t run = hd_word_find_control(s.data + n);

        n += run;
        if (run < 8 && s.data[n++] != '\t')
            return n - 1;
    }
    while (n < s.len && hd_is_char((unsigned char)s.data[n], HD_CH_VALUE))
        n++;
    return n;
}

int hd_hex_value(char c); /* 0…15, -1 */
/* host[:port]: not empty, port digits only and at most 65535 (RFC 9110 §4.2.1). */
bool hd_http_is_authority(hd_str_t authority);
/* The digits of <authority>'s port, of one that is right; empty: it has none. */
hd_str_t hd_http_port_of(hd_str_t authority);
/* May CONNECT lead there: does it name a port (RFC 9110 §9.3.6)? */
bool hd_http_is_connect_target(hd_str_t authority);
/* A protocol to upgrade to (RFC 9110 §7.8: a name, and maybe "/" and a version), but not
 * h2c: that is by prior knowledge or ALPN only (h2c smuggling). */
bool hd_http_is_protocol(hd_str_t s);
