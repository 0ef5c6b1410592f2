/* SRV records with their TTLs, of answers as they come. */
#include "mesh/hd_dns_srv.h"
#include "tap.h"
#include <string.h>

static hd_srv_t srv[HD_SRV_MAX];
static uint32_t n;

#define HEAD(answers) "\0\1\x81\x80\0\1\0" answers "\0\0\0\0"
#define QUESTION "\5_http\4test\0\0\x21\0\1" /* at 12; "test" at 18 */
#define SRV(ttl, len, data) "\xc0\x0c\0\x21\0\1" ttl "\0" len data
#define READ(bytes) read_bytes(bytes, sizeof(bytes) - 1)

static hd_rc_t read_bytes(const char *bytes, size_t len)
{
    hd_err_t err = {0};

    return hd_dns_read_srv(hd_str_n(bytes, len), srv, &n, &err);
}

static void test_records(void)
{
    ok(READ(HEAD("\2") QUESTION SRV("\0\0\0\x1e", "\x0a", "\0\1\0\2\x1f\x90\1A\xc0\x12")
                SRV("\0\1\0\0", "\x0d", "\0\3\0\4\0\x50\1b\3net\0")) == HD_OK,
       "two records");
    is_int(n, 2, "are two");
    is_str(srv[0].target, "a.test", "a target through a pointer, in lower case");
    ok(srv[0].priority == 1 && srv[0].weight == 2 && srv[0].port == 8080 &&
           srv[0].ttl == 30,
       "its priority, weight, port and TTL");
    is_str(srv[1].target, "b.net", "a target in full");
    is_int(srv[1].ttl, 65536, "its own TTL");
}

static void test_ttl(void)
{
    ok(READ(HEAD("\2") QUESTION "\xc0\x0c\0\5\0\1\0\0\0\7\0\3\1c\0" SRV(
           "\0\0\0\x1e", "\x09", "\0\1\0\2\0\x50\1a\0")) == HD_OK &&
           n == 1 && srv[0].ttl == 7,
       "a CNAME before it that lasts less");
    ok(READ(HEAD("\1") QUESTION SRV("\x80\0\0\0", "\x09", "\0\1\0\2\0\x50\1a\0")) ==
               HD_OK &&
           srv[0].ttl == 0,
       "a TTL with the highest bit is none (RFC 2181 8)");
}

static void test_left_out(void)
{
    ok(READ(HEAD("\1") QUESTION SRV("\0\0\0\1", "\x07", "\0\0\0\0\0\0\0")) == HD_OK &&
           n == 0,
       "a target of \".\": no such service (RFC 2782)");
    ok(READ(HEAD("\1") QUESTION SRV("\0\0\0\1", "\x0a", "\0\0\0\0\0\1\2a/\0")) == HD_OK &&
           n == 0,
       "a target that is no host");
}

static void test_malformed(void)
{
    static const char good[] =
        HEAD("\1") QUESTION SRV("\0\0\0\1", "\x0a", "\0\1\0\2\0\x50\1a\xc0\x12");
    int refused = 0;

    for (size_t len = 0; len < sizeof(good) - 1; len++)
        refused += read_bytes(good, len) == HD_ERROR;
    is_int(refused, (int)sizeof(good) - 1, "cut anywhere: refused");
    ok(READ(HEAD("\1") QUESTION SRV("\0\0\0\1", "\x08", "\0\1\0\2\0\x50\xc0\x2e")) ==
           HD_ERROR,
       "a pointer to itself");
    ok(READ(HEAD("\1") QUESTION SRV("\0\0\0\1", "\x08", "\0\1\0\2\0\x50\xc0\xff")) ==
           HD_ERROR,
       "a pointer forwards");
    ok(READ(HEAD("\1") QUESTION SRV("\0\0\0\1", "\x08", "\0\1\0\2\0\x50\xc0\x02")) ==
           HD_ERROR,
       "a pointer into the head");
    ok(READ(HEAD("\1") QUESTION SRV("\0\0\0\1", "\x0a", "\0\1\0\2\0\x50\1a\0\0")) ==
           HD_ERROR,
       "bytes behind the target");
    ok(READ("\0\1\x83\x80\0\0\0\0\0\0\0\0") == HD_ERROR, "truncated (TC)");
    ok(READ("\0\1\1\0\0\0\0\0\0\0\0\0") == HD_ERROR, "a question");
    ok(READ("\0\1\x81\x83\0\0\0\0\0\0\0\0") == HD_ERROR, "NXDOMAIN");
}

int main(void)
{
    test_records();
    test_ttl();
    test_left_out();
    test_malformed();
    return done_testing();
}
