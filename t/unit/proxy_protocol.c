/* PROXY protocol heads (proxy-protocol.txt §2): good ones, hostile ones, cut at each
 * byte. */
#include "core/net/hd_proxy_protocol.h"
#include "tap.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define B(literal) hd_str_n(literal, sizeof(literal) - 1)

static hd_err_t err;
static char text[2][HD_ADDR_TEXT_MAX];

/* "remote local" or "local", or the reason of a refusal. */
static const char *parse(hd_str_t bytes)
{
    static char out[HD_ERR_TEXT_MAX + 16];
    hd_proxy_head_t head;

    hd_err_clear(&err);
    switch (hd_proxy_parse(bytes, &head, &err)) {
    case HD_OK:
        if (head.is_local)
            snprintf(out, sizeof(out), "local %zu", head.len);
        else
            snprintf(out, sizeof(out), "%s %s %zu",
                     hd_addr_print(&head.remote, text[0]).data,
                     hd_addr_print(&head.local, text[1]).data, head.len);
        return out;
    case HD_AGAIN:
        return "more";
    case HD_DECLINED:
        return "none";
    default:
        return "error";
    }
}

static void test_v1(void)
{
    static const struct {
        const char *bytes, *want;
    } rows[] = {
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\nGET", "1.2.3.4:1111 5.6.7.8:80 36"},
        {"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "[2001:db8::1]:1 [::1]:2 32"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n", "1.2.3.4 5.6.7.8:65535 36"},
        {"PROXY UNKNOWN\r\n", "local 15"},
        {"PROXY UNKNOWN ffff:f...f:ffff whatever\r\n", "local 40"},
        {"P", "more"},
        {"PROXY", "more"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r", "more"},
        {"PROXY\r\n", "none"},
        {"PROXX ", "none"},
        {"GET / HTTP/1.1\r\n", "none"},
        {"PROXY \r\n", "error"},
        {"PROXY UNKNOWNX\r\n", "error"},
        {"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "error"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "error"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", "error"},
        {"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "error"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", "error"},
        {"PROXY TCP4 1.2.3.4 ::1 1 2\r\n", "error"},
        {"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "error"},
        {"PROXY TCP6 fe80::1%1 ::1 1 2\r\n", "error"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", "error"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "error"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", "error"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n", "error"},
        {"PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n", "error"},
    };
    char line[200] = "PROXY UNKNOWN ";

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        is_str(parse(hd_str_c(rows[i].bytes)), rows[i].want, "\"%.40s\"", rows[i].bytes);
    memset(line + 14, 'x', sizeof(line) - 14);
    is_str(parse(hd_str_n(line, 106)), "more", "a line of 106 bytes may end yet");
    is_str(parse(hd_str_n(line, 107)), "error", "107 without an end is too long");
    memcpy(line + 105, "\r\n", 2);
    is_str(parse(hd_str_n(line, 200)), "local 107", "107 with it is the longest");
}

static void test_v2(void)
{
    static char head[70000] = V2 "\x21\x11";
    hd_str_t paths;

    is_str(parse(B(V2 "\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\x04\x57\0\x50")),
           "1.2.3.4:1111 5.6.7.8:80 28", "TCP4");
    is_str(parse(B(V2 "\x21\x21\0\x24\x20\1\r\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                      "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\1\0\2")),
           "[2001:db8::1]:1 [::1]:2 52", "TCP6");
    memcpy(head, V2 "\x21\x31\0\xd8", 16);
    memset(head + 16, 0, 216);
    memcpy(head + 16, "/a", 2);
    memset(head + 16 + 108, 'b', 108);
    paths = hd_str_n(head, 16 + 216);
    ok(strncmp(parse(paths), "unix:/a unix:bbbb", 17) == 0,
       "unix, a path without an end");
    is_str(parse(B(V2 "\x20\0\0\0")), "local 16", "LOCAL");
    is_str(parse(B(V2 "\x20\x11\0\2xx")), "local 18", "LOCAL: what follows is skipped");
    is_str(parse(B(V2 "\x21\0\0\3xyz")), "local 19", "UNSPEC: too");

    is_str(parse(B("\r\n\r\n")), "more");
    is_str(parse(B("\r\n\r\nX")), "none");
    is_str(parse(B(V2 "\x21")), "more");
    is_str(parse(B(V2 "\x11\x11\0\x0c............")), "error",
           "version 1 in a binary head");
    is_str(parse(B(V2 "\x22\x11\0\x0c............")), "error", "an unknown command");
    is_str(parse(B(V2 "\x21\x12\0\x0c............")), "error", "a datagram");
    is_str(parse(B(V2 "\x21\x41\0\x0c............")), "error", "an unknown family");
    is_str(parse(B(V2 "\x21\x11\0\x0b...........")), "error", "too short for its family");
    is_str(parse(B(V2 "\x21\x21\0\x23...................................")), "error");
    is_str(parse(B(V2 "\x21\x31\0\x10................")), "error");
    is_str(parse(B(V2 "\x21\x11\xff\xff")), "error",
           "64 KB are refused before they came");
    is_str(parse(B(V2 "\x21\x11\0\x0d............x")), "error", "a TLV of one byte");
    is_str(parse(B(V2 "\x21\x11\0\x10............\x04\0\2x")), "error",
           "a TLV longer than the head");
    is_str(parse(B(V2 "\x21\x11\0\x0f............\x04\0\0")),
           "46.46.46.46:11822 46.46.46.46:11822 31", "an empty TLV");
}

static uint32_t slow_crc32c(const char *p, size_t n)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < n; i++) {
        crc ^= (unsigned char)p[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void test_tlvs(void)
{
    char head[] = V2 "\x21\x11\0\x26"
                     "............"
                     "\x03\0\4....\x02\0\3sni\xd0\0\x0aspiffe://x";
    hd_str_t bytes = hd_str_n(head, sizeof(head) - 1), rest, value;
    hd_proxy_head_t parsed;
    uint32_t crc;
    uint8_t type;

    is_int(slow_crc32c("123456789", 9), 0xe3069283, "CRC-32C's check value");
    memset(head + 31, 0, 4);
    crc = slow_crc32c(head, bytes.len);
    for (int i = 0; i < 4; i++)
        head[31 + i] = (char)(crc >> (24 - 8 * i));
    ok(hd_proxy_parse(bytes, &parsed, &err) == HD_OK, "a good checksum");
    rest = parsed.tlvs;
    ok(hd_proxy_next_tlv(&rest, &type, &value) && type == HD_PROXY_TLV_CRC32C);
    ok(hd_proxy_next_tlv(&rest, &type, &value) && type == HD_PROXY_TLV_AUTHORITY &&
       hd_str_eq(value, HD_STR("sni")));
    ok(hd_proxy_next_tlv(&rest, &type, &value) && type == HD_PROXY_TLV_PRINCIPAL &&
       hd_str_eq(value, HD_STR("spiffe://x")));
    ok(!hd_proxy_next_tlv(&rest, &type, &value));
    head[20] ^= 1;
    is_str(parse(bytes), "error", "and a wrong one");
}

static void test_cut(void)
{
    static const char v1[] = "PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n";
    static const char v2[] = V2 "\x21\x11\0\x0f............\x04\0\0";
    int wrong = 0;

    for (size_t n = 0; n < sizeof(v1) - 1; n++) {
        char *copy = malloc(n + 1); /* of its exact size: ASan sees a byte too far */

        memcpy(copy, v1, n);
        wrong += strcmp(parse(hd_str_n(copy, n)), "more") != 0;
        free(copy);
    }
    for (size_t n = 0; n < sizeof(v2) - 1; n++) {
        char *copy = malloc(n + 1);

        memcpy(copy, v2, n);
        wrong += strcmp(parse(hd_str_n(copy, n)), "more") != 0;
        free(copy);
    }
    is_int(wrong, 0, "cut at each byte: more is wanted");
}

static void test_print(void)
{
    static const char *const pairs[][2] = {{"1.2.3.4:5", "6.7.8.9:10"},
                                           {"[fd00::1]:5", "[fd00::2]:10"}};
    hd_addr_t a, b, unix_addr = {.family = AF_UNIX};
    char out[200], want[200];
    size_t n;

    for (int i = 0; i < 4; i++) {
        hd_ignore(hd_addr_parse(NULL, hd_str_c(pairs[i / 2][0]), 0, &a, &err) != HD_OK);
        hd_ignore(hd_addr_parse(NULL, hd_str_c(pairs[i / 2][1]), 0, &b, &err) != HD_OK);
        n = hd_proxy_print((uint8_t)(i % 2 + 1), &a, &b, HD_STR_NONE, out, sizeof(out));
        snprintf(want, sizeof(want), "%s %s %zu", pairs[i / 2][0], pairs[i / 2][1], n);
        is_str(parse(hd_str_n(out, n)), want, "version %d: written and read", i % 2 + 1);
        is_int(hd_proxy_print((uint8_t)(i % 2 + 1), &a, &b, HD_STR_NONE, out, n - 1), 0,
               "no room");
    }
    n = hd_proxy_print(2, &a, &b, HD_STR("\xd0\0\1x"), out, sizeof(out));
    ok(n == 16 + 36 + 4 && strcmp(parse(hd_str_n(out, n)), "error") != 0, "with a TLV");
    n = hd_proxy_print(1, &unix_addr, &b, HD_STR_NONE, out, sizeof(out));
    is_str(parse(hd_str_n(out, n)), "local 15", "no addresses to tell");
    n = hd_proxy_print(2, &unix_addr, &b, HD_STR_NONE, out, sizeof(out));
    is_str(parse(hd_str_n(out, n)), "local 16");
}

int main(void)
{
    test_v1();
    test_v2();
    test_tlvs();
    test_cut();
    test_print();
    return done_testing();
}
