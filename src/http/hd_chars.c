#include "http/hd_chars.h"
#include "core/hd_module.h"
#include "core/net/hd_addr.h"

#define T HD_CH_TOKEN
#define V HD_CH_VALUE
#define G HD_CH_TARGET
#define H HD_CH_HOST
#define U HD_CH_UNRESERVED
#define X HD_CH_HEX
#define D HD_CH_DIGIT
#define N HD_CH_NAME

/* One line per class would hide which byte is what: rows are ranges, in order. */
const uint8_t hd_chars[256] = {
    ['\t'] = V,
    [' '] = V,
    ['!'] = T | V | G | H,
    ['"'] = V | G,
    ['#'] = T | V,
    ['$'] = T | V | G | H,
    ['%'] = T | V | G | H,
    ['&'] = T | V | G | H,
    ['\''] = T | V | G | H,
    ['('] = V | G | H,
    [')'] = V | G | H,
    ['*'] = T | V | G | H,
    ['+'] = T | V | G | H,
    [','] = V | G | H,
    ['-'] = T | V | G | H | U | N,
    ['.'] = T | V | G | H | U,
    ['/'] = V | G,
    ['0' ... '9'] = T | V | G | H | U | X | D | N,
    [':'] = V | G | H,
    [';'] = V | G | H,
    ['<'] = V | G,
    ['='] = V | G | H,
    ['>'] = V | G,
    ['?'] = V | G,
    ['@'] = V | G,
    ['A' ... 'F'] = T | V | G | H | U | X | N,
    ['G' ... 'Z'] = T | V | G | H | U | N,
    ['['] = V | G | H,
    ['\\'] = V | G,
    [']'] = V | G | H,
    ['^'] = T | V | G,
    ['_'] = T | V | G | H | U,
    ['`'] = T | V | G,
    ['a' ... 'f'] = T | V | G | H | U | X | N,
    ['g' ... 'z'] = T | V | G | H | U | N,
    ['{'] = V | G,
    ['|'] = T | V | G,
    ['}'] = V | G,
    ['~'] = T | V | G | H | U,
    [0x80 ... 0xff] = V,
};

int hd_hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = hd_ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hd_http_is_field_name(hd_str_t name)
{
    return name.len > 0 && hd_span(name, HD_CH_TOKEN) == name.len;
}

bool hd_http_is_field_value(hd_str_t value)
{
    return hd_span_value(value) == value.len;
}

static bool is_port(hd_str_t port)
{
    uint64_t n;

    return port.len == 0 || hd_str_to_u64(port, 65535, &n);
}

bool hd_http_is_authority(hd_str_t a)
{
    hd_str_t host = a, port = HD_STR_NONE;
    hd_addr_t ip;
    ssize_t at;

    if (a.len == 0 || hd_span(a, HD_CH_HOST) != a.len)
        return false;
    if (a.data[0] == '[') { /* an IP literal: only there may '[' and several ':' stand */
        at = hd_str_find_char(a, ']');
        if (at < 0)
            return false;
        host = hd_str_sub(a, 1, (size_t)at - 1);
        port = hd_str_sub(a, (size_t)at + 1, a.len);
        if (port.len > 0 && port.data[0] != ':')
            return false;
        return hd_addr_parse_ip(host, &ip) && ip.family == AF_INET6 &&
               is_port(hd_str_sub(port, 1, port.len));
    }
    at = hd_str_find_char(a, ':');
    if (at >= 0) {
        host = hd_str_sub(a, 0, (size_t)at);
        port = hd_str_sub(a, (size_t)at + 1, a.len);
    }
    return host.len > 0 && hd_str_find_char(host, '[') < 0 &&
           hd_str_find_char(host, ']') < 0 && is_port(port);
}

hd_str_t hd_http_port_of(hd_str_t a)
{
    size_t at = a.len;

    while (at > 0 && a.data[at - 1] >= '0' && a.data[at - 1] <= '9')
        at--;
    return at > 0 && a.data[at - 1] == ':' ? hd_str_sub(a, at, a.len) : HD_STR_NONE;
}

bool hd_http_is_connect_target(hd_str_t a)
{
    uint64_t port;

    return hd_http_is_authority(a) && hd_str_to_u64(hd_http_port_of(a), 65535, &port) &&
           port > 0;
}

static bool is_token(hd_str_t s)
{
    return s.len > 0 && hd_span(s, HD_CH_TOKEN) == s.len;
}

bool hd_http_is_protocol(hd_str_t s)
{
    ssize_t slash = hd_str_find_char(s, '/');
    hd_str_t name = slash < 0 ? s : hd_str_sub(s, 0, (size_t)slash);

    return is_token(name) && !hd_str_eq_nocase(name, HD_STR("h2c")) &&
           (slash < 0 || is_token(hd_str_sub(s, (size_t)slash + 1, s.len)));
}
