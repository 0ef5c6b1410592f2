#include "core/base/hd_base64.h"

static int value_of(char c, hd_base64_alphabet_t alphabet)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (alphabet == HD_BASE64URL)
        return c == '-' ? 62 : c == '_' ? 63 : -1;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool hd_base64_decode(hd_str_t text, hd_base64_alphabet_t alphabet,
                      hd_base64_padding_t padding, void *out, size_t *n)
{
    uint8_t *to = out;
    size_t len = text.len;
    uint32_t bits = 0;
    unsigned bits_n = 0;

    *n = 0;
    while (len > 0 && text.data[len - 1] == '=')
        len--;
    if (len % 4 == 1 || (padding == HD_BASE64_EXACT && text.len != (len + 3) / 4 * 4))
        return false;
    for (size_t i = 0; i < len; i++) {
        int value = value_of(text.data[i], alphabet);

        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        bits_n += 6;
        if (bits_n >= 8) {
            bits_n -= 8;
            to[(*n)++] = (uint8_t)(bits >> bits_n);
        }
    }
    return true;
}

hd_str_t hd_base64_encode(hd_pool_t *pool, hd_base64_alphabet_t alphabet,
                          const void *bytes, size_t n)
{
    static const char *const digits[] = {
        [HD_BASE64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        [HD_BASE64URL] =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    };
    const char *digit = digits[alphabet];
    const uint8_t *from = bytes;
    char *out = hd_pool_alloc_unaligned(pool, (n + 2) / 3 * 4 + 1);
    size_t len = 0;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)from[i] << 16 |
                        (i + 1 < n ? (uint32_t)from[i + 1] << 8 : 0u) |
                        (i + 2 < n ? from[i + 2] : 0u);

        out[len++] = digit[bits >> 18];
        out[len++] = digit[bits >> 12 & 63];
        out[len++] = i + 1 < n ? digit[bits >> 6 & 63] : '=';
        out[len++] = i + 2 < n ? digit[bits & 63] : '=';
    }
    out[len] = '\0';
    return hd_str_n(out, len);
}
