/* relay: a client that asks and then asks again, and an upstream that answers the first
 * request with an input's bytes and the second as it should: what the client gets is one
 * well-framed response to each, and no byte of the first leaks into the second. */
#pragma once
#include "client.h"

/* How: bits of an input's first byte. */
enum { BY_HEAD = 1, WEFT = 16, LATE = 32, ENDS = 64, HTTP2 = 128, UPS_MAX = 16 };

static const char second[] =
    "HTTP/1.1 200 OK\r\nX-Second: 1\r\nContent-Length: 6\r\n\r\nsecond";

static struct {
    int fd;
    char bytes[8192];
    size_t n;
    bool has_begun; /* by frames */
} ups[UPS_MAX];
static unsigned ups_n, how;

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s: %.*s\n", what, (int)hd_min(answer_n, (size_t)2000), answer);
    abort();
}

/* --- the upstream --- */

static void answer_first(int fd)
{
    size_t n = hd_min(bytes_n, (size_t)60000), half = how & LATE ? n / 2 : n;

    hd_ignore(send(fd, bytes, half, MSG_NOSIGNAL | MSG_DONTWAIT) < 0);
    turn_some(loop);
    hd_ignore(send(fd, bytes + half, n - half, MSG_NOSIGNAL | MSG_DONTWAIT) < 0);
    if (how & ENDS)
        shutdown(fd, SHUT_WR);
    turn_some(loop);
}

/* Says whether anything happened. */
static bool serve_one(unsigned i)
{
    ssize_t got =
        recv(ups[i].fd, ups[i].bytes + ups[i].n, sizeof(ups[i].bytes) - ups[i].n, 0);
    ssize_t end;
    hd_str_t in;

    if (got <= 0)
        return false;
    if (how & (HTTP2 | WEFT)) {
        if (!ups[i].has_begun)
            answer_first(ups[i].fd);
        ups[i].has_begun = true;
        return true;
    }
    ups[i].n += (size_t)got;
    in = hd_str_n(ups[i].bytes, ups[i].n);
    end = hd_str_find(in, HD_STR("\r\n\r\n"));
    if (end < 0)
        return true;
    in = hd_str_sub(in, 0, (size_t)end);
    ups[i].n = 0; /* no request of ours has a body, none is pipelined */
    if (hd_str_find(in, HD_STR("/second ")) > 0)
        hd_ignore(send(ups[i].fd, second, sizeof(second) - 1, MSG_NOSIGNAL) < 0);
    else
        answer_first(ups[i].fd);
    return true;
}

static void serve_upstreams(void)
{
    bool more = true;
    int fd;

    fcntl(up_listen_fd, F_SETFL, O_NONBLOCK);
    while (more) {
        turn_some(loop);
        while (ups_n < UPS_MAX && (fd = accept(up_listen_fd, NULL, NULL)) >= 0) {
            fcntl(fd, F_SETFL, O_NONBLOCK);
            ups[ups_n].n = 0;
            ups[ups_n].has_begun = false;
            ups[ups_n++].fd = fd;
        }
        more = false;
        for (unsigned i = 0; i < ups_n; i++)
            more |= serve_one(i);
    }
    turn_some(loop);
}

static void close_upstreams(void)
{
    hd_upool_close_all(loop);
    serve_upstreams();
    for (unsigned i = 0; i < ups_n; i++)
        close(ups[i].fd);
    ups_n = 0;
}

/* --- the client --- */

typedef struct {
    hd_res_head_t head;
    hd_str_t body;
} response_t;

static const hd_h1_limits_t limits = {
    .bytes_max = 400000, .fields_max = 1000, .underscores = true};

/* The length of the body at <in>'s start; -1: not all is there. Chunks are put together
 * in place, behind each other. */
static ssize_t take_chunks(hd_str_t in, hd_pool_t *pool, hd_str_t *body)
{
    static char whole[sizeof(answer)];
    hd_chunked_t ch = {0};
    hd_h1_rc_t rc = HD_H1_MORE;
    hd_headers_t trailers;
    hd_str_t content;
    const char *why = "";
    size_t at = 0, took;

    *body = hd_str_n(whole, 0);
    while (rc == HD_H1_MORE && at < in.len) {
        rc = hd_chunked_next(&ch, hd_str_sub(in, at, in.len), &content, &took, &why);
        check(rc != HD_H1_BAD, why);
        if (content.len > 0)
            memcpy(whole + body->len, content.data, content.len);
        body->len += content.len;
        if (took == 0)
            return -1;
        at += took;
    }
    if (rc != HD_H1_OK)
        return -1;
    rc = hd_h1_parse_trailers(hd_str_sub(in, at, in.len), &limits, pool, &trailers, &took,
                              &why);
    check(rc != HD_H1_BAD, why);
    return rc == HD_H1_OK ? (ssize_t)(at + took) : -1;
}

/* Takes a final response off <in>; false: there is no whole one. */
static bool take_response(hd_str_t *in, bool is_head, hd_pool_t *pool, response_t *r)
{
    const char *why = "";
    hd_h1_rc_t rc;
    size_t used, scan_from;
    ssize_t n;
    bool keep_alive, until_close;

    do {
        scan_from = used = 0;
        rc = hd_h1_parse_response(*in, &scan_from, &limits, pool, is_head, false,
                                  &r->head, &keep_alive, &until_close, &used, &why);
        /* As many fields as an upstream may send, and those of our framing beside them:
         * well-framed, but more than this parser takes. */
        if (rc == HD_H1_TOO_LONG && strcmp(why, "too many fields") == 0)
            return false;
        check(rc == HD_H1_OK || rc == HD_H1_MORE, why);
        if (rc == HD_H1_MORE)
            return false;
        check(!until_close, "an end that only the conn's end shows");
        *in = hd_str_sub(*in, used, in->len);
    } while (r->head.status < 200);
    if (!r->head.has_body)
        n = 0;
    else if (r->head.content_length < 0)
        n = take_chunks(*in, pool, &r->body);
    else
        n = (size_t)r->head.content_length <= in->len ? (ssize_t)r->head.content_length
                                                      : -1;
    if (n < 0)
        return false;
    if (r->head.content_length >= 0 || !r->head.has_body)
        r->body = hd_str_sub(*in, 0, (size_t)n);
    *in = hd_str_sub(*in, (size_t)n, in->len);
    return true;
}

/* Asks, and gives the answer, if it doesn't come, all time there is. True: it is whole,
 * and nothing follows. */
static bool ask(hd_conn_t *c, const char *text, hd_pool_t *pool, response_t *r)
{
    hd_chain_t out;

    answer_n = 0;
    if (peer_closed)
        return false;
    hd_chain_init(&out);
    hd_bug_on(!hd_chain_try_add_copy(&out, text, strlen(text)));
    hd_conn_send(c, &out);
    for (int i = 0; i < 4; i++) {
        hd_str_t in;

        serve_upstreams();
        in = hd_str_n(answer, answer_n);
        if (take_response(&in, text[0] == 'H', pool, r)) {
            check(in.len == 0, "more than one response");
            return true;
        }
        tick(30000);
    }
    return false;
}

/* It is the second one's, or an error of our own, from <status> on. */
static void check_second(const response_t *r, unsigned status)
{
    bool is_second = hd_str_eq(r->body, HD_STR("second"));

    check(is_second ? r->head.status == 200 : r->head.status >= status,
          "the second response is not the second one's");
}
