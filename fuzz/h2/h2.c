/* HTTP/2 frames against the whole engine, in one process: as a client to our server, with
 * a service that echoes, and as an upstream to a call of our own. Whatever comes, all
 * that was taken is given back: requests, blocks, conns, counts.
 *
 * The first byte says how: bit 0 the side, bit 1 raw bytes or frames of a shorter
 * writing, bit 2 a peer that doesn't read, bit 3 bytes in small pieces, bit 4 the peer
 * closes at the end, bit 5 CONNECT leads to an upstream that greets.
 */
#include "../lib/frames.h"

/* What the tunnels lead to: greets, and ends every other one. */
static void serve_tunnels(void)
{
    int fds[16], n = 0, fd;

    fcntl(up_listen_fd, F_SETFL, O_NONBLOCK);
    while (n < 16 && (fd = accept(up_listen_fd, NULL, NULL)) >= 0) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        hd_ignore(send(fd, "hello", 5, MSG_NOSIGNAL) < 0);
        if (n % 2 == 1)
            shutdown(fd, SHUT_WR);
        fds[n++] = fd;
    }
    turn_some(loop);
    for (int i = 0; i < n; i++)
        close(fds[i]);
    turn_some(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    unsigned how;

    if (n < 1)
        return 0;
    start_engine();
    cluster->protocol = HD_UP_HTTP2;
    how = data[0];
    make_bytes(how, data + 1, n - 1);
    route->action = how & TUNNEL ? HD_ACT_TUNNEL : HD_ACT_SERVICE;
    http->is_xds = (how & TUNNEL) != 0;
    http->upgrade_websocket = true;
    if (how & UPSTREAM)
        fuzz_upstream(how, HD_UP_HTTP2);
    else
        fuzz_client(how, hd_h2_serve, how & TUNNEL ? serve_tunnels : NULL);
    check_end();
    return 0;
}
