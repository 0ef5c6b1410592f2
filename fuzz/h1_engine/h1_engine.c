/* HTTP/1 bytes against the whole engine. Bit 0 of the first byte: as the upstream's
 * answer to a call of our own; else as a client of our server, which proxies to an
 * upstream (bit 6: answers by itself; bit 7: the client speaks HTTP/2). What the upstream
 * is sent must then be requests with one meaning, whatever the client sent, and not more
 * of them than the client had answered; and nothing that was taken is left. What it finds
 * goes to regression/ with its fix. */
#include "../lib/frames.h"

enum { OWN_ANSWER = 64, BY_HTTP2 = 128, UPS_MAX = 16 };

static struct {
    char bytes[400000];
    size_t n, answered_at; /* so much of it was answered */
    int fd;
} ups[UPS_MAX];
static unsigned ups_n;

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* The length of the message at the start of <in>, 0: not all is there. */
static size_t message_of(hd_str_t in)
{
    static const hd_h1_limits_t limits = {
        .bytes_max = 400000, .fields_max = 1000, .underscores = true};
    hd_pool_t *pool = hd_pool_create(0);
    hd_req_head_t head = {0};
    const char *why = "";
    size_t from = 0, used = 0, n = 0;
    hd_h1_rc_t rc = hd_h1_parse_request(in, &from, &limits, pool, &head, &used, &why);

    /* RFC 9110 §7.2: who named no host (HTTP/1.0) has an empty one sent for it */
    check(rc != HD_H1_BAD || hd_str_find(in, HD_STR("\r\nHost: \r\n")) >= 0, why);
    if (rc == HD_H1_OK) {
        const hd_field_t *te = hd_headers_get(&head.headers, HD_H_TRANSFER_ENCODING);

        check(te == NULL || hd_headers_get(&head.headers, HD_H_CONTENT_LENGTH) == NULL,
              "both lengths were sent upstream");
        if (te == NULL) {
            n = used + (head.has_body ? (size_t)head.content_length : 0);
            n = n <= in.len ? n : 0;
        } else {
            hd_chunked_t ch = {0};
            hd_str_t content;
            size_t took;

            rc = HD_H1_MORE;
            for (n = used; n < in.len && rc == HD_H1_MORE; n += took) {
                rc = hd_chunked_next(&ch, hd_str_sub(in, n, in.len), &content, &took,
                                     &why);
                check(rc != HD_H1_BAD, why);
                if (took == 0)
                    break;
            }
            if (rc == HD_H1_OK) {
                hd_headers_t trailers;

                rc = hd_h1_parse_trailers(hd_str_sub(in, n, in.len), &limits, pool,
                                          &trailers, &took, &why);
                check(rc != HD_H1_BAD, why);
                n += took;
            }
            if (rc != HD_H1_OK)
                n = 0;
        }
    }
    hd_pool_destroy(pool);
    return n;
}

static void accept_some(void)
{
    int fd;

    while (ups_n < UPS_MAX && (fd = accept(up_listen_fd, NULL, NULL)) >= 0) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        ups[ups_n].n = ups[ups_n].answered_at = 0;
        ups[ups_n++].fd = fd;
    }
}

/* Takes what came and answers each whole request; says whether anything happened. */
static bool serve_one(unsigned i)
{
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    ssize_t got =
        recv(ups[i].fd, ups[i].bytes + ups[i].n, sizeof(ups[i].bytes) - ups[i].n, 0);
    size_t n;

    if (got > 0)
        ups[i].n += (size_t)got;
    while ((n = message_of(hd_str_n(ups[i].bytes + ups[i].answered_at,
                                    ups[i].n - ups[i].answered_at))) > 0) {
        ups[i].answered_at += n;
        hd_ignore(send(ups[i].fd, ok, sizeof(ok) - 1, MSG_NOSIGNAL) < 0);
    }
    return got > 0;
}

static void serve_upstream(void)
{
    bool more = true;

    fcntl(up_listen_fd, F_SETFL, O_NONBLOCK);
    while (more) {
        turn_some(loop);
        accept_some();
        more = false;
        for (unsigned i = 0; i < ups_n; i++)
            more |= serve_one(i);
    }
    turn_some(loop);
}

static void close_upstream(void)
{
    serve_upstream();
    for (unsigned i = 0; i < ups_n; i++)
        close(ups[i].fd);
    ups_n = 0;
    hd_upool_close_all(loop);
    turn_some(loop);
    accept_some(); /* conns that were made and not used */
    for (unsigned i = 0; i < ups_n; i++)
        close(ups[i].fd);
    ups_n = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    unsigned how;

    if (n < 1)
        return 0;
    start_engine();
    how = data[0];
    if (how & BY_HTTP2 && !(how & UPSTREAM)) {
        make_bytes(how & SHORT, data + 1, n - 1);
    } else {
        bytes_n = 0;
        put(data + 1, n - 1);
    }
    route->action = how & OWN_ANSWER ? HD_ACT_SERVICE : HD_ACT_PROXY;
    proxy->replay_bytes = 65536;
    if (how & UPSTREAM) {
        fuzz_upstream(how, HD_UP_HTTP1);
    } else {
        fuzz_client(how, how & BY_HTTP2 ? hd_h2_serve : hd_h1_serve, serve_upstream);
        close_upstream();
    }
    check_end();
    return 0;
}
