/* What a proxied request costs where it can be counted exactly: allocations (none once
 * all is warm), bytes of its pool, timers and pins left over. */
#include "core/base/hd_asan.h"
#include "http_test.h"

static unsigned long allocations;

#ifndef HD_ASAN
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);

void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}
#endif

#define ANSWER                                                                           \
    "HTTP/1.1 200 OK\r\nServer: up\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\n"           \
    "Content-Type: text/plain\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\nhello"

static void one(int fd)
{
    char buf[4096];
    hd_req_t *req = start_request("GET", "/up");

    hd_headers_add(&req->head.headers, HD_STR("User-Agent"), HD_STR("test"));
    hd_headers_add(&req->head.headers, HD_STR("Accept"), HD_STR("*/*"));
    while (recv(fd, buf, sizeof(buf), 0) < 0)
        hd_loop_turn(loop, 1);
    hd_ignore(send(fd, ANSWER, sizeof(ANSWER) - 1, MSG_NOSIGNAL) < 0);
    while (client.status == 0)
        hd_loop_turn(loop, 1);
    finish_request();
}

int main(void)
{
    unsigned long before;
    hd_req_t *req;
    int fd;

    start_bench();
    proxy->read_timeout_ms = proxy->send_timeout_ms = 60000;
    route->filters_are_chain = true;
    req = start_request("GET", "/up");
    (void)req;
    fd = up_accept();
    up_read(fd, "\r\n\r\n");
    up_write(fd, ANSWER);
    finish_request();
    for (int i = 0; i < 20; i++)
        one(fd);
    before = allocations;
    for (int i = 0; i < 1000; i++)
        one(fd);
    is_int(allocations - before, 0, "1000 requests take no memory from malloc");
    is_int(hd_upool_conns(), 1);
    close(fd);
    req = start_request("GET", "/nowhere");
    ok(hd_pool_bytes(req->pool) < 3000, "a request begins with %zu bytes",
       hd_pool_bytes(req->pool));
    finish_request();
    check_clean("cost");
    end_bench();
    return done_testing();
}
