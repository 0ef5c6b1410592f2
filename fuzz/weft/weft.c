/* Weft's frames against the whole engine, as a client to our server: whatever comes, all
 * that was taken is given back. The first byte says how (engine.h); then frames in a
 * shorter writing: TYPE and flags, SERIAL, INDEX, LENGTH, a byte each, and the payload;
 * what lacks of it is zero. Types 0xf0 and above are bytes as they are, without a head.
 * HEAD of length 0 is a good request, HELLO of length 0 a good one. What it finds goes to
 * regression/ with its fix. */
#include "../lib/engine.h"
#include "http/hd_weft.h"

enum { HELLO = 1, HEAD, TYPE_MASK = 0x3f };

static void put_frame(const uint8_t *f, const uint8_t *payload, size_t n, size_t have)
{
    static const uint8_t zeros[256];
    static const uint8_t hello[12] = {1, 0, 0, 0, 0, 0, 0, 100, 0, 1, 0, 0};
    static const char get[] = "GET /up HTTP/1.1\r\nHost: a\r\n\r\n",
                      post[] =
                          "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    uint8_t head[8] = {0, 0, 0, f[0], 0, f[1], 0, f[2]};

    if (f[0] >= 0xf0) {
        put(payload, have);
        return;
    }
    if ((f[0] & TYPE_MASK) == HELLO && n == 0) {
        payload = hello;
        n = have = sizeof(hello);
    } else if ((f[0] & TYPE_MASK) == HEAD && n == 0) {
        payload = (const uint8_t *)(f[0] & HD_WEFT_END ? get : post);
        n = have = f[0] & HD_WEFT_END ? sizeof(get) - 1 : sizeof(post) - 1;
    }
    head[2] = (uint8_t)n;
    put(head, sizeof(head));
    put(payload, have);
    put(zeros, n - have);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    unsigned how;

    if (n < 1)
        return 0;
    start_engine();
    how = data[0];
    bytes_n = 0;
    for (data++, n--; n >= 4;) {
        size_t len = data[3], have = hd_min(len, n - 4);

        put_frame(data, data + 4, len, have);
        data += 4 + have;
        n -= 4 + have;
    }
    fuzz_client(how, hd_weft_serve, NULL);
    check_end();
    return 0;
}
