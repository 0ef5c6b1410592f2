/* hd_client_hello: genuine hellos, cut at every byte and into records at every byte; and
 * hostile ones. */
#include "core/net/hd_tls.h"
#include "tap.h"
#include <dirent.h>
#include <openssl/ssl.h>

static hd_rc_t parse(const void *bytes, size_t len, hd_client_hello_t *hello)
{
    /* A copy of its exact size: reading beyond it is seen by ASan. */
    char *copy = malloc(len > 0 ? len : 1);
    hd_rc_t rc;

    memcpy(copy, bytes, len);
    rc = hd_tls_parse_client_hello(hd_str_n(copy, len), hello);
    if (rc == HD_OK && hello->sni.len > 0 && hello->sni.data >= copy &&
        hello->sni.data < copy + len)
        hello->sni.data = (const char *)bytes + (hello->sni.data - copy);
    if (rc == HD_OK && hello->alpn_wire.len > 0 && hello->alpn_wire.data >= copy &&
        hello->alpn_wire.data < copy + len)
        hello->alpn_wire.data = (const char *)bytes + (hello->alpn_wire.data - copy);
    free(copy);
    return rc;
}

/* What OpenSSL's client sends first. */
static size_t make_hello(char *out, size_t room, const char *sni, const char *alpn,
                         int version_max)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *to = BIO_new(BIO_s_mem());
    int n;

    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), to);
    if (sni != NULL)
        SSL_set_tlsext_host_name(ssl, sni);
    if (alpn != NULL)
        SSL_set_alpn_protos(ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
    SSL_set_max_proto_version(ssl, version_max);
    SSL_connect(ssl);
    n = BIO_read(to, out, (int)room);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return (size_t)n;
}

/* The same handshake message in two records, cut behind <at> bytes of it. */
static size_t cut_record(const char *hello, size_t len, size_t at, char *out)
{
    size_t rest = len - 5 - at;

    memcpy(out, "\x16\x03\x01", 3);
    out[3] = (char)(at >> 8);
    out[4] = (char)at;
    memcpy(out + 5, hello + 5, at);
    out += 5 + at;
    memcpy(out, "\x16\x03\x01", 3);
    out[3] = (char)(rest >> 8);
    out[4] = (char)rest;
    memcpy(out + 5, hello + 5 + at, rest);
    return len + 5;
}

static void test_genuine(void)
{
    char hello[4096], cut[4096];
    hd_client_hello_t h;
    size_t n, again_n = 0, cut_good_n = 0;

    n = make_hello(hello, sizeof(hello), "Shop.Example.com", "\x02h2\x08http/1.1",
                   TLS1_3_VERSION);
    is_int(parse(hello, n, &h), HD_OK, "TLS 1.3: parsed");
    ok(hd_str_eq(h.sni, HD_STR("Shop.Example.com")), "server name, case kept");
    ok(hd_str_eq(h.alpn_wire, HD_STR("\x02h2\x08http/1.1")), "protocols");
    is_int(h.version_max, 0x0304, "version");

    for (size_t i = 0; i < n; i++)
        again_n += parse(hello, i, &h) == HD_AGAIN;
    is_int(again_n, n, "each prefix asks for more");

    for (size_t at = 1; at < n - 5; at++) {
        size_t cut_len = cut_record(hello, n, at, cut);

        cut_good_n += parse(cut, cut_len, &h) == HD_OK &&
                      hd_str_eq(h.sni, HD_STR("Shop.Example.com")) &&
                      hd_str_eq(h.alpn_wire, HD_STR("\x02h2\x08http/1.1")) &&
                      parse(cut, cut_len - 1, &h) == HD_AGAIN;
    }
    is_int(cut_good_n, n - 6, "cut into two records at any byte (RFC 8446 5.1)");

    n = make_hello(hello, sizeof(hello), NULL, NULL, TLS1_2_VERSION);
    is_int(parse(hello, n, &h), HD_OK, "TLS 1.2 without a name: parsed");
    ok(h.sni.len == 0 && h.alpn_wire.len == 0, "no name, no protocols");
    is_int(h.version_max, 0x0303, "version");
}

/* A hello of our own making: <exts> is the body of the extensions, raw. */
static size_t build(char *out, const char *exts, size_t exts_len)
{
    static const char head[] = "\x03\x03"
                               "0123456789abcdef0123456789abcdef" /* random */
                               "\x00"                             /* session id */
                               "\x00\x02\x13\x01"                 /* one cipher suite */
                               "\x01\x00";                        /* compression */
    size_t body = sizeof(head) - 1 + 2 + exts_len, at = 0;

    memcpy(out, "\x16\x03\x01", 3);
    out[3] = (char)((body + 4) >> 8);
    out[4] = (char)(body + 4);
    out[5] = 1;
    out[6] = (char)(body >> 16);
    out[7] = (char)(body >> 8);
    out[8] = (char)body;
    at = 9;
    memcpy(out + at, head, sizeof(head) - 1);
    at += sizeof(head) - 1;
    out[at++] = (char)(exts_len >> 8);
    out[at++] = (char)exts_len;
    memcpy(out + at, exts, exts_len);
    return at + exts_len;
}

#define EXTS(text) text, sizeof(text) - 1

static void test_hostile(void)
{
    static const struct {
        const char *name, *exts;
        size_t len;
        hd_rc_t rc;
    } rows[] = {
        {"a name", EXTS("\0\0\0\x06\0\x04\0\0\x01x"), HD_OK},
        {"no extension at all", EXTS(""), HD_OK},
        {"GREASE", EXTS("\x0a\x0a\0\0\0\x2b\0\x05\x04\x0a\x0a\x03\x04"), HD_OK},
        {"an empty name", EXTS("\0\0\0\x05\0\x03\0\0\0"), HD_ERROR},
        {"a NUL in the name", EXTS("\0\0\0\x08\0\x06\0\0\x03x\0y"), HD_ERROR},
        {"two names", EXTS("\0\0\0\x0a\0\x08\0\0\x01x\0\0\x01y"), HD_ERROR},
        {"the list longer than the extension", EXTS("\0\0\0\x06\0\x05\0\0\x01x"),
         HD_ERROR},
        {"the list shorter than the extension", EXTS("\0\0\0\x07\0\x04\0\0\x01xy"),
         HD_ERROR},
        {"the name longer than the list", EXTS("\0\0\0\x06\0\x04\0\0\x02x"), HD_ERROR},
        {"an empty list", EXTS("\0\0\0\x02\0\0"), HD_ERROR},
        {"an empty server_name", EXTS("\0\0\0\0"), HD_ERROR},
        {"server_name twice", EXTS("\0\0\0\x06\0\x04\0\0\x01x\0\0\0\x06\0\x04\0\0\x01x"),
         HD_ERROR},
        {"the extension longer than all", EXTS("\0\x05\0\x02x"), HD_ERROR},
        {"half an extension's head", EXTS("\0\x05\0"), HD_ERROR},
        {"an empty protocol", EXTS("\0\x10\0\x03\0\x01\0"), HD_ERROR},
        {"a protocol longer than the list", EXTS("\0\x10\0\x05\0\x03\x03h2"), HD_ERROR},
        {"no protocol", EXTS("\0\x10\0\x02\0\0"), HD_ERROR},
        {"versions of odd length", EXTS("\0\x2b\0\x04\x03\x03\x04\x03"), HD_ERROR},
        {"an unknown kind of name", EXTS("\0\0\0\x06\0\x04\x07\0\x01x"), HD_OK},
    };
    char hello[2048];
    hd_client_hello_t h;
    size_t n;

    for (size_t i = 0; i < hd_countof(rows); i++) {
        n = build(hello, rows[i].exts, rows[i].len);
        is_int(parse(hello, n, &h), rows[i].rc, "%s", rows[i].name);
    }
    n = build(hello, EXTS("\0\x05\0\x01x"));
    ok(parse(hello, n, &h) == HD_OK);
    hello[8]++; /* the message says one byte more than its parts have */
    is_int(parse(hello, n, &h), HD_ERROR, "bytes behind the extensions");
    hello[8]--;
    hello[6] = 1;
    is_int(parse(hello, n, &h), HD_ERROR, "a hello of 64 KB and more");
    hello[6] = 0;
    hello[5] = 2;
    is_int(parse(hello, n, &h), HD_ERROR, "a ServerHello");
}

static void test_other(void)
{
    hd_client_hello_t h;
    static const struct {
        const char *bytes;
        size_t len;
        hd_rc_t rc;
    } rows[] = {
        {EXTS(""), HD_AGAIN},
        {EXTS("\x16"), HD_AGAIN},
        {EXTS("\x16\x03"), HD_AGAIN},
        {EXTS("\x16\x03\x01"), HD_AGAIN},
        {EXTS("G"), HD_DECLINED},
        {EXTS("GET / HTTP/1.1\r\n"), HD_DECLINED},
        {EXTS("\x80\x2e\x01\x03\x01"), HD_DECLINED}, /* SSL 2 */
        {EXTS("\x16\x02\x00"), HD_DECLINED},
        {EXTS("\x16\x03\x09"), HD_DECLINED},
        {EXTS("\x16\x03\x01\x00\x00\x01"), HD_ERROR}, /* an empty record */
        {EXTS("\x16\x03\x01\x40\x01\x01"), HD_ERROR}, /* one over 2^14 */
        {EXTS("\x16\x03\x01\x00\x01\x01\x17\x03"), HD_ERROR},
    };

    for (size_t i = 0; i < hd_countof(rows); i++)
        is_int(parse(rows[i].bytes, rows[i].len, &h), rows[i].rc, "first bytes, row %zu",
               i);
}

/* A name cut by a border is copied; there is an end to the room for copies. */
static void test_cut_far(void)
{
    char hello[4096], cut[4200], exts[2100] = "\0\x10";
    hd_client_hello_t h;
    size_t n, len = 2000;

    exts[2] = (char)((len + 2) >> 8);
    exts[3] = (char)(len + 2);
    exts[4] = (char)(len >> 8);
    exts[5] = (char)len;
    for (size_t at = 0; at < len; at += 100) {
        exts[6 + at] = 99;
        memset(exts + 7 + at, 'a', 99);
    }
    n = build(hello, exts, 6 + len);
    is_int(parse(hello, n, &h), HD_OK, "many protocols");
    n = cut_record(hello, n, n - 500, cut);
    is_int(parse(cut, n, &h), HD_ERROR, "the same, cut: more than is worth copying");
}

/* No single changed byte leads out of bounds (ASan watches), whatever the answer. */
static void test_flipped(void)
{
    char hello[4096];
    size_t n = make_hello(hello, sizeof(hello), "a.example", "\x02h2", TLS1_3_VERSION);
    hd_client_hello_t h;
    size_t answers[HD_ERROR + 1] = {0};

    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            hello[i] = (char)(hello[i] ^ 1 << bit);
            answers[parse(hello, n, &h)]++;
            hello[i] = (char)(hello[i] ^ 1 << bit);
        }
    is_int(answers[HD_OK] + answers[HD_AGAIN] + answers[HD_DECLINED] + answers[HD_ERROR],
           n * 8, "every flipped bit is answered");
    ok(answers[HD_ERROR] > 0 && answers[HD_OK] > 0);
}

static void test_corpus(void)
{
    static const char path[] = "fuzz/client_hello/corpus";
    DIR *dir = opendir(path);
    struct dirent *d;
    size_t files_n = 0, tls_n = 0;

    while (dir != NULL && (d = readdir(dir)) != NULL) {
        char name[512], bytes[8192];
        hd_client_hello_t h;
        FILE *f;

        if (d->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, d->d_name);
        if ((f = fopen(name, "rb")) == NULL)
            continue;
        files_n++;
        tls_n += parse(bytes, fread(bytes, 1, sizeof(bytes), f), &h) == HD_OK;
        fclose(f);
    }
    if (dir != NULL)
        closedir(dir);
    ok(files_n >= 4 && tls_n >= 3, "the fuzzer's first corpus: %zu files, %zu hellos",
       files_n, tls_n);
}

int main(void)
{
    test_genuine();
    test_hostile();
    test_other();
    test_cut_far();
    test_flipped();
    test_corpus();
    return done_testing();
}
