/* Base64 both ways: RFC 4648's own examples, both alphabets, the two rules of padding. */
#include "core/base/hd_base64.h"
#include "t/lib/tap.h"

static hd_pool_t *pool;

static bool decodes(const char *text, hd_base64_alphabet_t alphabet,
                    hd_base64_padding_t padding, hd_str_t expected)
{
    uint8_t *out = hd_pool_alloc(pool, HD_BASE64_BYTES_MAX(strlen(text)));
    size_t n = 77;

    return hd_base64_decode(hd_str_c(text), alphabet, padding, out, &n) &&
           hd_str_eq(hd_str_n((char *)out, n), expected);
}

static bool is_refused(const char *text, hd_base64_alphabet_t alphabet,
                       hd_base64_padding_t padding)
{
    uint8_t out[256];
    size_t n;

    return !hd_base64_decode(hd_str_c(text), alphabet, padding, out, &n);
}

/* RFC 4648 §10. */
static void test_vectors(void)
{
    static const char *const pairs[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };

    for (size_t i = 0; i < hd_countof(pairs); i++) {
        hd_str_t plain = hd_str_c(pairs[i][0]);

        is_str(hd_base64_encode(pool, HD_BASE64, plain.data, plain.len).data, pairs[i][1],
               "\"%s\" encoded", pairs[i][0]);
        ok(decodes(pairs[i][1], HD_BASE64, HD_BASE64_EXACT, plain), "and decoded");
    }
}

static void test_alphabets(void)
{
    static const uint8_t bytes[] = {0xfb, 0xef, 0xff, 0xfe};
    hd_str_t plain = hd_str_n((const char *)bytes, sizeof(bytes));

    is_str(hd_base64_encode(pool, HD_BASE64, bytes, sizeof(bytes)).data,
           "++///g==", "the standard alphabet");
    is_str(hd_base64_encode(pool, HD_BASE64URL, bytes, sizeof(bytes)).data,
           "--___g==", "that of URLs");
    ok(decodes("++///g==", HD_BASE64, HD_BASE64_EXACT, plain) &&
           decodes("--___g==", HD_BASE64URL, HD_BASE64_EXACT, plain),
       "each is decoded by its own");
    ok(is_refused("--___g==", HD_BASE64, HD_BASE64_LOOSE) &&
           is_refused("++///g==", HD_BASE64URL, HD_BASE64_LOOSE),
       "and refused by the other");
}

static void test_all_bytes(void)
{
    uint8_t bytes[256], back[HD_BASE64_BYTES_MAX(344)];
    bool all = true;
    size_t n;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + 3);
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        for (int url = 0; url < 2; url++) {
            hd_base64_alphabet_t a = url ? HD_BASE64URL : HD_BASE64;
            hd_str_t text = hd_base64_encode(pool, a, bytes, len);

            all = all && text.len == (len + 2) / 3 * 4 &&
                  hd_base64_decode(text, a, HD_BASE64_EXACT, back, &n) && n == len &&
                  memcmp(back, bytes, len) == 0;
        }
    }
    ok(all, "0 to 256 bytes there and back, by both alphabets");
}

static void test_padding(void)
{
    hd_str_t f = HD_STR("f"), fo = HD_STR("fo");

    ok(decodes("Zg", HD_BASE64, HD_BASE64_LOOSE, f) &&
           decodes("Zg=", HD_BASE64, HD_BASE64_LOOSE, f) &&
           decodes("Zg==", HD_BASE64, HD_BASE64_LOOSE, f) &&
           decodes("Zg====", HD_BASE64, HD_BASE64_LOOSE, f) &&
           decodes("Zm8", HD_BASE64, HD_BASE64_LOOSE, fo) &&
           decodes("====", HD_BASE64, HD_BASE64_LOOSE, HD_STR("")),
       "loose: whatever number of = there is");
    ok(is_refused("Zg", HD_BASE64, HD_BASE64_EXACT) &&
           is_refused("Zg=", HD_BASE64, HD_BASE64_EXACT) &&
           is_refused("Zg===", HD_BASE64, HD_BASE64_EXACT) &&
           is_refused("Zm8", HD_BASE64, HD_BASE64_EXACT) &&
           is_refused("Zm9v====", HD_BASE64, HD_BASE64_EXACT) &&
           is_refused("====", HD_BASE64, HD_BASE64_EXACT),
       "exact: to four letters, and no further");
    ok(is_refused("Z", HD_BASE64, HD_BASE64_LOOSE) &&
           is_refused("Zm9vZ", HD_BASE64, HD_BASE64_LOOSE) &&
           is_refused("Zm9vZ===", HD_BASE64, HD_BASE64_EXACT),
       "a single letter more is no byte");
    ok(is_refused("Zg==Zg==", HD_BASE64, HD_BASE64_LOOSE) &&
           is_refused("Z===g", HD_BASE64, HD_BASE64_LOOSE),
       "= stands at the end alone");
    ok(decodes("Zh==", HD_BASE64, HD_BASE64_EXACT, f), "bits beyond the last byte: any");
}

static void test_refused(void)
{
    static const char *const texts[] = {"Zm9 v", " Zm9v", "Zm9v\n", "Zm\x80v", "Zm9*",
                                        "Zm,v",  "Zm9{",  "Zm9[",   "Zm9`",    "Zm9@"};
    uint8_t out[8];
    size_t n;

    for (size_t i = 0; i < hd_countof(texts); i++)
        ok(is_refused(texts[i], HD_BASE64, HD_BASE64_LOOSE) &&
               is_refused(texts[i], HD_BASE64URL, HD_BASE64_LOOSE),
           "text %zu has a letter of no alphabet", i);
    ok(!hd_base64_decode(hd_str_n("Zm\0v", 4), HD_BASE64, HD_BASE64_EXACT, out, &n),
       "so has one with a NUL");
}

int main(void)
{
    pool = hd_pool_create(0);
    test_vectors();
    test_alphabets();
    test_all_bytes();
    test_padding();
    test_refused();
    hd_pool_destroy(pool);
    return done_testing();
}
