/* The HTTP/1 parser in its strict reading (RFC 9112): what is taken, what is refused and
 * how. */
#include "http/hd_codec.h"

#include "tap.h"

static const hd_h1_limits_t limits = {
    .bytes_max = 4096, .fields_max = 20, .underscores = false, .odd_fields = HD_ODD_DROP};

typedef struct {
    const char *name, *bytes;
    hd_h1_rc_t rc;
    const char *why; /* of a refusal */
} row_t;

#define H "Host: a\r\n"

/* clang-format off */
static const row_t requests[] = {
    {"a plain one", "GET / HTTP/1.1\r\n" H "\r\n", HD_H1_OK, ""},
    {"1.0 without Host", "GET / HTTP/1.0\r\n\r\n", HD_H1_OK, ""},
    {"1.2 is spoken to as 1.1", "GET / HTTP/1.2\r\n" H "\r\n", HD_H1_OK, ""},
    {"nothing yet", "", HD_H1_MORE, ""},
    {"half a head", "GET / HTTP/1.1\r\n" H, HD_H1_MORE, ""},
    {"empty value", "GET / HTTP/1.1\r\n" H "X:\r\n\r\n", HD_H1_OK, ""},
    {"obs-text in a value", "GET / HTTP/1.1\r\n" H "X: \xc3\xa4\r\n\r\n", HD_H1_OK, ""},
    {"absolute form", "GET http://a/x?y HTTP/1.1\r\n" H "\r\n", HD_H1_OK, ""},
    {"asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", HD_H1_OK, ""},
    {"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", HD_H1_OK, ""},
    {"IPv6 host", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", HD_H1_OK, ""},
    {"chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n", HD_H1_OK, ""},
    /* RFC 9112 §2.2: line ends */
    {"bare LF", "GET / HTTP/1.1\n" H "\n", HD_H1_BAD, "line ends without CR"},
    {"bare LF at the end", "GET / HTTP/1.1\r\n" H "\n", HD_H1_BAD, "line ends without CR"},
    {"bare CR in a value", "GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", HD_H1_BAD, "bad character in a field value"},
    {"NUL in a value", "GET / HTTP/1.1\r\n" H "X: a\1b\r\n\r\n", HD_H1_BAD, "bad character in a field value"},
    {"CR CR LF", "GET / HTTP/1.1\r\n" H "X: a\r\r\n\r\n", HD_H1_BAD, "bad character in a field value"},
    /* §3: request line */
    {"no version (0.9)", "GET /\r\n\r\n", HD_H1_BAD, "bad character in the request target"},
    {"two spaces", "GET  / HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "bad character in the request target"},
    {"tab", "GET\t/ HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "bad method"},
    {"space at the end", "GET / HTTP/1.1 \r\n" H "\r\n", HD_H1_BAD, "bad protocol version"},
    {"version 2.0", "GET / HTTP/2.0\r\n" H "\r\n", HD_H1_VERSION, "unsupported protocol version"},
    {"lower-case http", "GET / http/1.1\r\n" H "\r\n", HD_H1_BAD, "bad protocol version"},
    {"version 1.11", "GET / HTTP/1.11\r\n" H "\r\n", HD_H1_BAD, "bad protocol version"},
    {"a control byte in the target", "GET /\1 HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "bad character in the request target"},
    {"a fragment", "GET /#a HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "bad character in the request target"},
    {"no leading slash", "GET x HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "bad request target"},
    {"asterisk but GET", "GET * HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "bad request target"},
    {"CONNECT without a port", "CONNECT a HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "CONNECT needs host:port"},
    {"CONNECT with an empty port", "CONNECT a: HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "CONNECT needs host:port"},
    {"CONNECT to port 0", "CONNECT a:0 HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "CONNECT needs host:port"},
    {"CONNECT to an IPv6 address", "CONNECT [::1]:1 HTTP/1.1\r\n" H "\r\n", HD_H1_OK, ""},
    {"CONNECT to an IPv6 address without a port", "CONNECT [::1] HTTP/1.1\r\n" H "\r\n", HD_H1_BAD, "CONNECT needs host:port"},
    {"CONNECT with a body", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n", HD_H1_BAD, "CONNECT with a body"},
    /* §3.2: Host */
    {"no Host", "GET / HTTP/1.1\r\n\r\n", HD_H1_BAD, "no Host"},
    {"two Hosts", "GET / HTTP/1.1\r\n" H H "\r\n", HD_H1_BAD, "more than one Host"},
    {"a list as Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HD_H1_BAD, "bad Host"},
    {"userinfo in Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HD_H1_BAD, "bad Host"},
    {"path in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HD_H1_BAD, "bad Host"},
    {"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", HD_H1_BAD, "bad Host"},
    {"port beyond 65535", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", HD_H1_BAD, "bad Host"},
    {"two authorities: the target's counts", "GET http://b/ HTTP/1.1\r\n" H "\r\n", HD_H1_OK, ""},
    {"CONNECT elsewhere than Host", "CONNECT b:1 HTTP/1.1\r\n" H "\r\n", HD_H1_OK, ""},
    /* §5: fields */
    {"space before the colon", "GET / HTTP/1.1\r\n" H "X : a\r\n\r\n", HD_H1_BAD, "bad character in a field name"},
    {"no name", "GET / HTTP/1.1\r\n" H ": a\r\n\r\n", HD_H1_BAD, "field line without a name"},
    {"no colon", "GET / HTTP/1.1\r\n" H "X\r\n\r\n", HD_H1_BAD, "bad character in a field name"},
    {"obs-fold", "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", HD_H1_BAD, "field line without a name"},
    {"fold of the first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", HD_H1_BAD, "field line without a name"},
    /* §6: framing (smuggling classes CL.TE, TE.CL, TE.TE) */
    {"CL and TE", "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", HD_H1_BAD, "both Content-Length and Transfer-Encoding"},
    {"two equal CLs", "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", HD_H1_BAD, "more than one Content-Length"},
    {"two CLs", "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", HD_H1_BAD, "more than one Content-Length"},
    {"a list as CL", "POST / HTTP/1.1\r\n" H "Content-Length: 3, 3\r\n\r\n", HD_H1_BAD, "bad Content-Length"},
    {"+ in CL", "POST / HTTP/1.1\r\n" H "Content-Length: +3\r\n\r\n", HD_H1_BAD, "bad Content-Length"},
    {"- in CL", "POST / HTTP/1.1\r\n" H "Content-Length: -3\r\n\r\n", HD_H1_BAD, "bad Content-Length"},
    {"hex CL", "POST / HTTP/1.1\r\n" H "Content-Length: 0x3\r\n\r\n", HD_H1_BAD, "bad Content-Length"},
    {"empty CL", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", HD_H1_BAD, "bad Content-Length"},
    {"CL of 2^63", "POST / HTTP/1.1\r\n" H "Content-Length: 9223372036854775808\r\n\r\n", HD_H1_BAD, "bad Content-Length"},
    {"CL of 2^64", "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n", HD_H1_BAD, "bad Content-Length"},
    {"TE gzip", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", HD_H1_TE, "unknown transfer coding"},
    {"TE identity", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", HD_H1_TE, "unknown transfer coding"},
    {"TE gzip, chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", HD_H1_BAD, "bad Transfer-Encoding"},
    {"TE chunked twice", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", HD_H1_BAD, "more than one Transfer-Encoding"},
    {"TE \\vchunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: \vchunked\r\n\r\n", HD_H1_BAD, "bad character in a field value"},
    {"TE in 1.0", "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", HD_H1_BAD, "Transfer-Encoding in HTTP/1.0"},
};

static const row_t responses[] = {
    {"a plain one", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", HD_H1_OK, ""},
    {"no reason", "HTTP/1.1 200\r\n\r\n", HD_H1_OK, ""},
    {"1.0", "HTTP/1.0 200 OK\r\n\r\n", HD_H1_OK, ""},
    {"not HTTP", "hello\r\n\r\n", HD_H1_BAD, "bad protocol version"},
    {"bare LF", "HTTP/1.1 200 OK\n\n", HD_H1_BAD, "line ends without CR"},
    {"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", HD_H1_BAD, "bad status line"},
    {"status of four", "HTTP/1.1 2000 OK\r\n\r\n", HD_H1_BAD, "bad status line"},
    {"CL and TE", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", HD_H1_BAD, "both Content-Length and Transfer-Encoding"},
    {"two CLs", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", HD_H1_BAD, "more than one Content-Length"},
    {"TE gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HD_H1_BAD, "unknown transfer coding"},
};
/* clang-format on */

static void test_refusals(void)
{
    for (size_t i = 0; i < hd_countof(requests); i++) {
        const row_t *r = &requests[i];
        hd_pool_t *pool = hd_pool_create(0);
        hd_req_head_t head = {0};
        const char *why = "";
        size_t from = 0, used = 0;
        hd_h1_rc_t rc = hd_h1_parse_request(hd_str_c(r->bytes), &from, &limits, pool,
                                            &head, &used, &why);

        ok(rc == r->rc && strcmp(why, r->why) == 0, "request: %s (%d %s)", r->name, rc,
           why);
        hd_pool_destroy(pool);
    }
    for (size_t i = 0; i < hd_countof(responses); i++) {
        const row_t *r = &responses[i];
        hd_pool_t *pool = hd_pool_create(0);
        hd_res_head_t head = {0};
        bool keep, until;
        const char *why = "";
        size_t from = 0, used = 0;
        hd_h1_rc_t rc =
            hd_h1_parse_response(hd_str_c(r->bytes), &from, &limits, pool, false, false,
                                 &head, &keep, &until, &used, &why);

        ok(rc == r->rc && strcmp(why, r->why) == 0, "response: %s (%d %s)", r->name, rc,
           why);
        hd_pool_destroy(pool);
    }
}

static bool is(hd_str_t s, const char *want)
{
    return hd_str_eq(s, hd_str_c(want));
}

static void test_head(void)
{
    static const char bytes[] = "POST /a%20b?c=d HTTP/1.1\r\nhOsT: EXAMPLE.org:80\r\n"
                                "Connection: X-One, close\r\nX-One: 1\r\nX_Two: 2\r\n"
                                "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
    hd_pool_t *pool = hd_pool_create(0);
    hd_req_head_t head = {0};
    const char *why = "";
    size_t from = 0, used = 0;

    is_int(hd_h1_parse_request(hd_str_c(bytes), &from, &limits, pool, &head, &used, &why),
           HD_H1_OK);
    is_int(used, sizeof(bytes) - 1 - 5);
    ok(is(head.method, "POST") && head.method_id == HD_M_POST);
    ok(is(head.raw_path, "/a%20b?c=d"));
    ok(is(head.authority, "example.org:80"), "authority is lower case");
    is_int(head.content_length, 5);
    ok(head.has_body && head.expects_continue && !head.keep_alive);
    is_int(head.headers.n, 5, "a name with an underscore is dropped, as nginx does");
    ok(is(head.headers.fields[0].name, "hOsT"), "the case received is kept");
    hd_headers_mark_hops(&head.headers);
    ok(hd_headers_find(&head.headers, HD_STR("x-one"))->flags & HD_FIELD_HOP,
       "what Connection names is hop-by-hop (RFC 9110 §7.6.1)");
    hd_pool_destroy(pool);
}

/* RFC 9112 §3.2.2: an absolute target's authority replaces the Host received. */
static void test_two_authorities(void)
{
    static const char bytes[] = "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n";
    hd_pool_t *pool = hd_pool_create(0);
    hd_req_head_t head = {0};
    const char *why = "";
    size_t from = 0, used = 0;

    is_int(hd_h1_parse_request(hd_str_c(bytes), &from, &limits, pool, &head, &used, &why),
           HD_H1_OK);
    ok(is(head.authority, "b"));
    ok(is(hd_headers_get(&head.headers, HD_H_HOST)->value, "b"),
       "who looks at the field sees the same");
    hd_pool_destroy(pool);
}

/* However the bytes are cut, the answer is the same. */
static void test_cuts(void)
{
    static const char bytes[] = "GET /x HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    size_t bad = 0;
    hd_pool_t *pool = hd_pool_create(0);
    size_t from = 0;

    for (size_t n = 0; n < sizeof(bytes) - 1; n++) {
        hd_req_head_t head = {0};
        const char *why = "";
        size_t used;

        bad += hd_h1_parse_request(hd_str_n(bytes, n), &from, &limits, pool, &head, &used,
                                   &why) != HD_H1_MORE;
    }
    is_int(bad, 0, "every prefix wants more");
    ok(from > 0, "and the search went on where it stood");
    hd_pool_destroy(pool);
}

static void test_limits(void)
{
    char bytes[8192];
    hd_pool_t *pool = hd_pool_create(0);
    hd_req_head_t head = {0};
    const char *why = "";
    size_t from = 0, used, n;

    n = (size_t)snprintf(bytes, sizeof(bytes), "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(bytes + n, 'x', sizeof(bytes) - n);
    is_int(hd_h1_parse_request(hd_str_n(bytes, 5000), &from, &limits, pool, &head, &used,
                               &why),
           HD_H1_TOO_LONG, "a head without an end, beyond the limit");
    n = (size_t)snprintf(bytes, sizeof(bytes), "GET / HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 0; i < 25; i++)
        n += (size_t)snprintf(bytes + n, sizeof(bytes) - n, "X: %u\r\n", i);
    n += (size_t)snprintf(bytes + n, sizeof(bytes) - n, "\r\n");
    from = 0;
    is_int(
        hd_h1_parse_request(hd_str_n(bytes, n), &from, &limits, pool, &head, &used, &why),
        HD_H1_TOO_LONG, "too many fields");
    hd_pool_destroy(pool);
}

/* Response framing (RFC 9112 §6.3). */
static void test_response_framing(void)
{
    static const struct {
        const char *bytes;
        bool was_head, was_connect, has_body, keep_alive, until_close;
        int64_t length;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 0, 0, 1, 1, 0, 3},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 1, 0, 0, 1, 0, 3},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, 0, 0, 1, 0, 0},
        {"HTTP/1.1 200 OK\r\n\r\n", 0, 0, 1, 0, 1, HD_LEN_UNKNOWN},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, 1, 1, 0,
         HD_LEN_UNKNOWN},
        {"HTTP/1.1 204 No Content\r\n\r\n", 0, 0, 0, 1, 0, HD_LEN_UNKNOWN},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0, 0, 0, 1, 0, 9},
        {"HTTP/1.1 100 Continue\r\n\r\n", 0, 0, 0, 1, 0, HD_LEN_UNKNOWN},
        {"HTTP/1.1 200 OK\r\n\r\n", 0, 1, 0, 1, 0, HD_LEN_UNKNOWN},
        {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", 0, 0, 1, 0, 0, 3},
        {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", 0, 0,
         1, 1, 0, 3},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_pool_t *pool = hd_pool_create(0);
        hd_res_head_t head = {0};
        bool keep = false, until = false;
        const char *why = "";
        size_t from = 0, used;

        ok(hd_h1_parse_response(hd_str_c(rows[i].bytes), &from, &limits, pool,
                                rows[i].was_head, rows[i].was_connect, &head, &keep,
                                &until, &used, &why) == HD_H1_OK &&
               head.has_body == rows[i].has_body && keep == rows[i].keep_alive &&
               until == rows[i].until_close && head.content_length == rows[i].length,
           "framing of row %zu", i);
        hd_pool_destroy(pool);
    }
}

/* Decodes in pieces of <step> bytes; the content, or NULL when refused. */
static const char *dechunk(const char *bytes, size_t step, char *out, const char **why)
{
    hd_chunked_t ch = {0};
    size_t at = 0, len = strlen(bytes), n = 0;

    *why = "";
    while (at < len) {
        hd_str_t content;
        size_t used = 0;
        hd_h1_rc_t rc = hd_chunked_next(&ch, hd_str_n(bytes + at, hd_min(step, len - at)),
                                        &content, &used, why);

        if (rc == HD_H1_BAD)
            return NULL;
        memcpy(out + n, content.data != NULL ? content.data : "", content.len);
        n += content.len;
        at += used;
        if (rc == HD_H1_OK) {
            out[n] = 0;
            return out;
        }
    }
    return NULL;
}

static void test_chunked(void)
{
    static const struct {
        const char *bytes, *content, *why;
    } rows[] = {
        {"3\r\nabc\r\n0\r\n", "abc", ""},
        {"3;x=y;z=\"q\"\r\nabc\r\nA\r\n0123456789\r\n0\r\n", "abc0123456789", ""},
        {"0\r\n", "", ""},
        {"00000003\r\nabc\r\n0\r\n", "abc", ""},
        {"\r\n", NULL, "bad chunk size"},
        {"g\r\n", NULL, "bad chunk size"},
        {"-1\r\n", NULL, "bad chunk size"},
        {"+1\r\na\r\n", NULL, "bad chunk size"},
        {"0x3\r\nabc\r\n", NULL, "bad chunk size"},
        {" 3\r\nabc\r\n", NULL, "bad chunk size"},
        {"3 \r\nabc\r\n", NULL, "bad chunk size"},
        {"3\nabc\r\n0\r\n", NULL, "bad chunk size"},
        {"3\rxabc\r\n", NULL, "chunk line ends without LF"},
        {"3;a\nb\r\nabc\r\n", NULL, "bad character in a chunk extension"},
        {"3;a\rb\r\nabc\r\n", NULL, "chunk line ends without LF"},
        {"3\r\nabcd\r\n0\r\n", NULL, "chunk doesn't end where its size says"},
        {"3\r\nabc\n0\r\n", NULL, "chunk doesn't end where its size says"},
        {"3\r\nabc\rx0\r\n", NULL, "chunk ends without LF"},
        {"8000000000000000\r\n", NULL, "chunk size too large"},
        {"10000000000000000\r\n", NULL, "chunk size too large"},
    };
    char out[256], line[2048];
    const char *why, *got;
    size_t n;

    for (size_t i = 0; i < hd_countof(rows); i++) {
        for (size_t step = 1; step < 5; step++) {
            got = dechunk(rows[i].bytes, step, out, &why);
            ok((got == NULL) == (rows[i].content == NULL) &&
                   strcmp(why, rows[i].why) == 0 &&
                   (got == NULL || strcmp(got, rows[i].content) == 0),
               "chunked row %zu by %zu bytes (%s)", i, step, why);
        }
    }
    n = (size_t)snprintf(line, sizeof(line), "3;");
    memset(line + n, 'x', 1500);
    line[n + 1500] = 0;
    dechunk(line, 100, out, &why);
    is_str(why, "chunk line too long", "extensions are bounded");
}

static void test_trailers(void)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_headers_t trailers;
    const char *why = "";
    size_t used;

    is_int(hd_h1_parse_trailers(HD_STR("\r\nGET"), &limits, pool, &trailers, &used, &why),
           HD_H1_OK);
    ok(used == 2 && trailers.n == 0, "none");
    is_int(hd_h1_parse_trailers(
               HD_STR("grpc-status: 0\r\nContent-Length: 3\r\nHost: b\r\n\r\n"), &limits,
               pool, &trailers, &used, &why),
           HD_H1_OK);
    ok(hd_headers_find(&trailers, HD_STR("Grpc-Status")) != NULL);
    ok(hd_headers_find(&trailers, HD_STR("content-length")) == NULL &&
           hd_headers_find(&trailers, HD_STR("host")) == NULL,
       "framing and routing fields are dropped (RFC 9110 §6.5.1)");
    is_int(hd_h1_parse_trailers(HD_STR("a b: 1\r\n\r\n"), &limits, pool, &trailers, &used,
                                &why),
           HD_H1_BAD);
    is_int(
        hd_h1_parse_trailers(HD_STR("a: 1\r\n"), &limits, pool, &trailers, &used, &why),
        HD_H1_MORE);
    hd_pool_destroy(pool);
}

static void test_paths(void)
{
    static const hd_http_loc_t loc = {.merge_slashes = true};
    static const hd_http_conf_t
        nginx = {.loc = &loc},
        xds = {.is_xds = true, .normalize_path = true},
        merging = {.is_xds = true, .normalize_path = true, .merge_slashes = true},
        rejecting = {.is_xds = true, .normalize_path = true, .escaped_slashes = 1},
        forwarding = {.is_xds = true, .normalize_path = true, .escaped_slashes = 3},
        none = {.is_xds = true}, only_merging = {.is_xds = true, .merge_slashes = true},
        only_forwarding = {.is_xds = true, .escaped_slashes = 3};
    static const struct {
        const hd_http_conf_t *http;
        const char *raw, *path; /* NULL: refused */
    } rows[] = {
        {&nginx, "/a/b", "/a/b"},
        {&nginx, "/a//b/./c/../d", "/a/b/d"},
        {&nginx, "/a%2fb%20c", "/a/b c"},
        {&nginx, "/a/%2e%2e/b", "/b"},
        {&nginx, "/..", NULL},
        {&nginx, "/a/../../b", NULL},
        {&nginx, "/%2e%2e/b", NULL},
        {&nginx, "/a%00b", NULL},
        {&nginx, "/a%zzb", NULL},
        {&nginx, "/a%2", NULL},
        {&nginx, "/a/.", "/a/"},
        {&nginx, "/a/b/..", "/a/"},
        {&nginx, "/...", "/..."},
        {&nginx, "/a/..b", "/a/..b"},
        {&nginx, "/%252e", "/%2e"}, /* decoded once, never twice */
        {&xds, "/a%2fb", "/a%2Fb"},
        {&xds, "/%61%7e%20", "/a~%20"},
        {&xds, "/a\\b", "/a/b"},
        {&xds, "/a//b", "/a//b"},
        {&xds, "/a/../b", "/b"},
        {&merging, "/a//b///c", "/a/b/c"},
        {&rejecting, "/a%2Fb", NULL},
        {&rejecting, "/a%5cb", NULL},
        {&forwarding, "/a%2F..%2fb", "/b"},
        {&merging, "/a//../b", "/a/b"}, /* dots first, as Envoy */
        {&forwarding, "/a/%255cb%5c..", "/a/"},
        {&none, "/a//../%zz%2f\\", "/a//../%zz%2f\\"},
        {&only_merging, "//a///..//%2f/", "/a/../%2f/"},
        {&only_forwarding, "/a%2F..%5cb%zz%252f", "/a/..\\b%zz%252f"},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_pool_t *pool = hd_pool_create(0);
        hd_str_t path, query;
        hd_rc_t rc = hd_http_normalize_path(hd_str_c(rows[i].raw), rows[i].http, pool,
                                            &path, &query);

        ok(rows[i].path == NULL ? rc == HD_ERROR : rc == HD_OK && is(path, rows[i].path),
           "path %s (%.*s)", rows[i].raw, HD_STR_ARG(path));
        hd_pool_destroy(pool);
    }
}

int main(void)
{
    test_refusals();
    test_head();
    test_two_authorities();
    test_cuts();
    test_limits();
    test_response_framing();
    test_chunked();
    test_trailers();
    test_paths();
    return done_testing();
}
