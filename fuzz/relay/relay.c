/* An upstream's bytes on their way to a client, through the whole engine: whatever it
 * answers to a first request, what the client gets is one well-framed response to it, and
 * the second request's response is the second one's, or an error of our own: no byte of
 * the first leaks into it, by the client's conn or by a pooled one (response splitting,
 * RFC 9112 §11.1). By HTTP/2 and weft, where a response belongs to its stream, there is
 * just the first. The first byte says how the peers behave. What it finds goes to
 * regression/ with its fix. */
#include "../lib/frames.h"
#include "../lib/relay.h"
#include "../lib/weft_frames.h"

/* The linker's: weft is agreed upon by TLS, which isn't here. */
hd_rc_t __real_hd_h1_client_open(hd_upconn_t *u, hd_err_t *e);
hd_rc_t __wrap_hd_h1_client_open(hd_upconn_t *u, hd_err_t *e);
hd_rc_t __wrap_hd_h1_client_open(hd_upconn_t *u, hd_err_t *e)
{
    return how & WEFT ? hd_weft_client_open(u, e) : __real_hd_h1_client_open(u, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    hd_pool_t *pool;
    hd_conn_t *c;
    response_t r;

    if (n < 1)
        return 0;
    start_engine();
    pool = hd_pool_create(0);
    how = data[0];
    if (how & HTTP2) {
        make_bytes(UPSTREAM | (how & SHORT), data + 1, n - 1);
    } else if (how & WEFT) {
        make_weft_bytes(false, data + 1, n - 1);
    } else {
        bytes_n = 0;
        put(data + 1, n - 1);
    }
    route->action = HD_ACT_PROXY;
    proxy->has_protocol = true;
    proxy->protocol = how & HTTP2 ? HD_UP_HTTP2 : HD_UP_HTTP1;
    c = connect_client(0, hd_h1_serve);
    if (ask(c,
            how & BY_HEAD ? "HEAD /up/first HTTP/1.1\r\nHost: a\r\n\r\n"
                          : "GET /up/first HTTP/1.1\r\nHost: a\r\n\r\n",
            pool, &r) &&
        !(how & (HTTP2 | WEFT)) &&
        ask(c, "GET /up/second HTTP/1.1\r\nHost: a\r\n\r\n", pool, &r))
        check_second(&r, 500);
    if (!peer_closed)
        hd_conn_reset(c);
    close_upstreams();
    check_end();
    hd_pool_destroy(pool);
    return 0;
}
