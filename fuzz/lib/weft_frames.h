/* weft_frames: weft in a shorter writing, for targets of the engine: TYPE and flags,
 * SERIAL, INDEX, LENGTH, a byte each, and the payload; what lacks of it is zero. Types
 * 0xf0 and above are bytes as they are, without a head. HEAD of length 0 is a good
 * request or response, HELLO of length 0 a good one. */
#pragma once
#include "engine.h"
#include "http/hd_weft.h"

enum { HELLO = 1, HEAD, TYPE_MASK = 0x3f };

static hd_str_t good_head(bool is_request, bool ended)
{
    if (is_request)
        return ended
                   ? HD_STR("GET /up HTTP/1.1\r\nHost: a\r\n\r\n")
                   : HD_STR("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    return ended ? HD_STR("HTTP/1.1 200 OK\r\n\r\n")
                 : HD_STR("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
}

static void put_weft_frame(const uint8_t *f, hd_str_t payload, size_t n, bool by_client)
{
    static const char zeros[256];
    static const char hello[12] = {1, 0, 0, 0, 0, 0, 0, 100, 0, 1, 0, 0};
    uint8_t head[8] = {0, 0, 0, f[0], 0, f[1], 0, f[2]};

    if (f[0] >= 0xf0) {
        put(payload.data, payload.len);
        return;
    }
    if ((f[0] & TYPE_MASK) == HELLO && n == 0)
        payload = hd_str_n(hello, sizeof(hello));
    else if ((f[0] & TYPE_MASK) == HEAD && n == 0)
        payload = good_head(by_client, (f[0] & HD_WEFT_END) != 0);
    n = hd_max(n, payload.len);
    head[2] = (uint8_t)n;
    put(head, sizeof(head));
    put(payload.data, payload.len);
    put(zeros, n - payload.len);
}

/* A client's bytes, or a server's. */
static void make_weft_bytes(bool by_client, const uint8_t *data, size_t n)
{
    bytes_n = 0;
    while (n >= 4) {
        size_t have = hd_min((size_t)data[3], n - 4);

        put_weft_frame(data, hd_str_n((const char *)data + 4, have), data[3], by_client);
        data += 4 + have;
        n -= 4 + have;
    }
}
