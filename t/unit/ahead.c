/* http/hd_ahead: what is read ahead of a slow client comes out as it went in, whatever
 * lies in memory and what in a file, also when the file fails in the middle. */
#include "http_test.h"
#include "http/hd_ahead.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static hd_proxy_conf_t conf;
static unsigned seed = 1;

static unsigned dice(unsigned sides)
{
    seed = seed * 1103515245 + 12345;
    return (seed >> 8) % sides;
}

/* Byte <i> of the response. */
static char byte_at(size_t i)
{
    return (char)(i * 31 + i / 251 + i / 65521);
}

static void add(hd_ahead_t *a, size_t *in, size_t n, unsigned flags)
{
    hd_block_t *b = hd_block_try_take();
    hd_chain_t body;

    hd_chain_init(&body);
    for (size_t i = 0; i < n; i++)
        b->data[i] = byte_at(*in + i);
    hd_chain_add(&body, b, b->data, n, flags);
    hd_block_unref(b);
    *in += n;
    hd_ahead_add(a, &body);
    hd_bug_on(!hd_chain_is_empty(&body));
}

/* The client: checks what it gets, and is full after some of it. */
static size_t got, room;
static bool is_right, has_end;

static void take_body(hd_req_t *req, hd_chain_t *body)
{
    static char bytes[HD_BLOCK_BYTES * 8];
    size_t n = body->bytes;

    (void)req;
    has_end |= (hd_chain_flags(body) & HD_SLICE_END) != 0;
    is_right &= n <= sizeof(bytes) && hd_chain_peek(body, bytes, n) == n;
    for (size_t i = 0; i < n && is_right; i++)
        is_right = bytes[i] == byte_at(got + i);
    got += n;
    room = n < room ? room - n : 0;
    hd_chain_free(body);
}

static bool is_full(hd_req_t *req)
{
    (void)req;
    return room == 0;
}

static hd_client_ops_t ops;

static hd_req_t *begin(void)
{
    hd_req_t *req = new_request("GET", "/up");

    ops = client_ops;
    ops.send_body = take_body;
    ops.is_full = is_full;
    req->client = &ops;
    req->loc = &hd_http_loc_defaults;
    req->res.status = 200;
    req->res.has_body = true;
    hd_headers_init(&req->res.headers, req->pool, 0);
    req->is_acting = true;
    got = room = 0;
    is_right = true;
    has_end = false;
    hd_response_start(req);
    return req;
}

static void end(hd_req_t *req, hd_ahead_t *a)
{
    hd_ahead_free(a);
    hd_ahead_free(a); /* harmless */
    req->is_acting = false;
    hd_response_fail(req, 500, 0, "over");
    req->step = HD_STEP_FINISH;
    hd_request_wake(req);
    finish_request();
    is_int(hd_open_files_n(), 0, "no file is left open");
    is_int(hd_blocks_in_use(), 0, "no block is left");
}

static int64_t file_size(const hd_ahead_t *a)
{
    struct stat st;

    return a->file != NULL && fstat(a->file->fd, &st) == 0 ? st.st_size : 0;
}

/* In steps of any size, more read ahead than taken and the other way round; the reader
 * minds hd_ahead_is_full. */
static void run(const char *what, size_t total)
{
    hd_req_t *req = begin();
    hd_ahead_t *a = hd_ahead_create(req, &conf);
    size_t in = 0, most_memory = 0;
    int64_t most_file = 0;
    bool was_full = false;

    for (unsigned i = 0; !has_end && i < 1000000 && is_right; i++) {
        bool is_filling = i / 100 % 3 != 2;

        while (in < total && dice(3) > 0 && !hd_ahead_is_full(a)) {
            size_t n = dice(dice(2) ? 600 : HD_BLOCK_BYTES + 1);

            n = hd_min(n, total - in);
            add(a, &in, n, in + n == total ? HD_SLICE_END : 0);
        }
        was_full |= hd_ahead_is_full(a);
        most_memory = hd_max(most_memory, a->memory_bytes + a->tail.bytes);
        most_file = hd_max(most_file, file_size(a));
        room = dice(is_filling ? 4000 : 60000);
        hd_bug_on(hd_ahead_give(a) != HD_OK);
    }
    ok(is_right && has_end && got == total, "%s: %zu of %zu bytes, as they were", what,
       got, total);
    ok(most_memory <= conf.buffer_bytes + conf.temp_write_bytes + HD_BLOCK_BYTES,
       "in memory at most %zu", most_memory);
    ok(most_file <= (int64_t)conf.temp_file_max, "in the file at most %lld",
       (long long)most_file);
    ok(conf.temp_file_max == 0 ? was_full : most_file > 0, "both were used");
    end(req, a);
}

/* The file can't grow: what was gathered for it stays in memory, and all arrives. */
static void test_full_disk(void)
{
    struct rlimit old, limit;
    hd_req_t *req = begin();
    hd_ahead_t *a = hd_ahead_create(req, &conf);
    size_t in = 0;

    ok(getrlimit(RLIMIT_FSIZE, &old) == 0);
    limit = old;
    limit.rlim_cur = 100000; /* not at a piece's end: the last write is a short one */
    ok(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    while (!a->has_failed && in < 1000000)
        add(a, &in, 16000, 0);
    ok(setrlimit(RLIMIT_FSIZE, &old) == 0);
    ok(a->has_failed && in < 400000, "a full disk is seen after %zu bytes", in);
    ok(hd_ahead_is_full(a), "and the upstream held back");
    add(a, &in, 1, HD_SLICE_END);
    room = SIZE_MAX;
    ok(hd_ahead_give(a) == HD_OK && has_end && is_right && got == in,
       "all %zu bytes arrive", in);
    end(req, a);
}

/* Its bytes are gone when they are asked for. */
static void test_lost_file(void)
{
    hd_req_t *req = begin();
    hd_ahead_t *a = hd_ahead_create(req, &conf);
    size_t in = 0;

    while (in < 300000)
        add(a, &in, 16000, 0);
    ok(a->file != NULL && ftruncate(a->file->fd, 20000) == 0);
    room = SIZE_MAX;
    ok(hd_ahead_give(a) == HD_ERROR && is_right, "a file that was cut is an error");
    ok(req->err != NULL && strstr(req->err->text, "shorter") != NULL);
    end(req, a);
}

/* A client to whom files go as the kernel's pages, which wait in a pipe as in a socket. */
static int pages[2];
static size_t in_pipe, pipe_from; /* which of the response's bytes */

static bool sends_files(hd_req_t *req)
{
    (void)req;
    return true;
}

static void take_pages(hd_req_t *req, hd_chain_t *body)
{
    hd_slice_t *s = body->first;

    if (s->kind != HD_SLICE_FILE) {
        take_body(req, body);
        return;
    }
    while (s->len > 0) {
        off_t at = s->offset;
        ssize_t n = splice(s->file->fd, &at, pages[1], NULL, s->len, 0);

        hd_bug_on(n <= 0);
        pipe_from = in_pipe == 0 ? got : pipe_from;
        in_pipe += (size_t)n;
        got += (size_t)n;
        if (s->len == (size_t)n)
            break;
        hd_chain_drop(body, (size_t)n);
        s = body->first;
    }
    hd_chain_free(body);
}

/* The file is written anew while what was in it is on its way. */
static void test_lent_pages(void)
{
    static const hd_http_loc_t by_pages = {.sendfile = true};
    hd_req_t *req = begin();
    hd_ahead_t *a = hd_ahead_create(req, &conf);
    size_t in = 0;
    char c;

    hd_bug_on(pipe(pages) != 0 || fcntl(pages[1], F_SETPIPE_SZ, 1 << 20) < 0);
    ops.sends_files = sends_files;
    ops.send_body = take_pages;
    req->loc = &by_pages;
    in_pipe = 0;
    while (in < 300000)
        add(a, &in, 16000, 0);
    room = SIZE_MAX;
    ok(hd_ahead_give(a) == HD_OK && hd_ahead_is_empty(a) && is_right);
    ok(in_pipe > 0 && got == in, "%zu bytes wait as the file's pages", in_pipe);
    while (in < 600000)
        add(a, &in, 16000, 0);
    for (size_t i = 0; i < in_pipe && is_right; i++)
        is_right = read(pages[0], &c, 1) == 1 && c == byte_at(pipe_from + i);
    ok(is_right, "they are as they were");
    ok(close(pages[0]) == 0 && close(pages[1]) == 0);
    ops.send_body = take_body;
    end(req, a);
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN); /* as the program does */
    start_bench();
    conf = (hd_proxy_conf_t){
        .buffer_bytes = 32768, .temp_write_bytes = 16384, .temp_file_max = 1u << 30};
    run("a file without bounds", 5000000);
    conf.temp_file_max = 200000;
    run("a small file, used again", 5000000);
    conf.temp_write_bytes = 1000;
    run("written in small pieces", 2000000);
    conf.temp_write_bytes = 70000;
    conf.buffer_bytes = 100000;
    run("in large ones", 5000000);
    conf.temp_file_max = 0;
    run("no file", 2000000);
    conf.temp_file_max = 1u << 30;
    conf.temp_write_bytes = 16384;
    test_full_disk();
    test_lost_file();
    test_lent_pages();
    end_bench();
    return done_testing();
}
