/* Heads of HTTP/2 frames, whole and cut at each byte: what is refused before nghttp2 sees
 * it (RFC 9113 §5.1, §6.9, §6.10), and what is counted. */
#include "http/hd_h2_frames.h"
#include "tap.h"
#include <nghttp2/nghttp2.h>

#define MAX 8192

static uint8_t bytes[MAX];
static uint32_t n;

static void preface(void)
{
    memcpy(bytes, NGHTTP2_CLIENT_MAGIC, HD_H2_PREFACE_BYTES);
    n = HD_H2_PREFACE_BYTES;
}

static uint32_t sum(const hd_h2_verdict_t *v)
{
    uint32_t all = 0;

    for (int i = 0; i < HD_H2_KINDS; i++)
        all += v->counts[i];
    return all;
}

/* A frame; its payload is zero but for <last> in the last byte. */
static void frame(uint8_t type, uint8_t flags, uint32_t id, uint32_t length, uint8_t last)
{
    uint8_t head[] = {(uint8_t)(length >> 16),
                      (uint8_t)(length >> 8),
                      (uint8_t)length,
                      type,
                      flags,
                      (uint8_t)(id >> 24),
                      (uint8_t)(id >> 16),
                      (uint8_t)(id >> 8),
                      (uint8_t)id};

    memcpy(bytes + n, head, sizeof(head));
    memset(bytes + n + sizeof(head), 0, length);
    n += (uint32_t)sizeof(head) + length;
    if (length > 0)
        bytes[n - 1] = last;
}

static hd_h2_frames_t fresh(void)
{
    return (hd_h2_frames_t){
        .is_server = true, .preface = HD_H2_PREFACE_BYTES, .block_bytes_max = 1000};
}

/* The verdict on all bytes, which must be the same however they are cut. */
static hd_h2_verdict_t pass_all(void)
{
    hd_h2_frames_t f = fresh();
    hd_h2_verdict_t whole = hd_h2_frames_pass(&f, bytes, n);

    for (uint32_t cut = 1; cut < n; cut++) {
        hd_h2_verdict_t a, b = {0};

        f = fresh();
        a = hd_h2_frames_pass(&f, bytes, cut);
        if (a.error == 0)
            b = hd_h2_frames_pass(&f, bytes + cut, n - cut);
        if ((a.error | b.error) != whole.error ||
            (whole.error == 0 && sum(&a) + sum(&b) != sum(&whole))) {
            fail("cut at %u: another verdict", cut);
            break;
        }
    }
    return whole;
}

#define END NGHTTP2_FLAG_END_STREAM
#define HEADS NGHTTP2_HEADERS

static void test_streams(void)
{
    hd_h2_verdict_t v;
    uint32_t before;

    preface();
    frame(HEADS, 0, 1, 10, 0);
    frame(NGHTTP2_DATA, 0, 1, 50, 0);
    frame(HEADS, END, 3, 10, 0);
    frame(NGHTTP2_DATA, END, 1, 0, 0);
    frame(NGHTTP2_WINDOW_UPDATE, 0, 1, 4, 200);
    frame(NGHTTP2_RST_STREAM, 0, 1, 4, 8);
    v = pass_all();
    ok(v.error == 0 && sum(&v) == 0 && v.good == n, "two streams, ended");

    before = n;
    frame(NGHTTP2_DATA, 0, 1, 5, 0);
    v = pass_all();
    is_int(v.error, NGHTTP2_STREAM_CLOSED, "DATA after END_STREAM");
    is_int(v.good, before, "what was before it is good");

    n = before;
    frame(HEADS, END, 3, 5, 0);
    is_int(pass_all().error, NGHTTP2_STREAM_CLOSED, "HEADERS after END_STREAM");

    preface();
    frame(HEADS, 0, 1, 5, 0);
    frame(NGHTTP2_RST_STREAM, 0, 1, 4, 8);
    frame(NGHTTP2_DATA, 0, 1, 5, 0);
    is_int(pass_all().error, NGHTTP2_STREAM_CLOSED, "DATA after RST_STREAM");

    preface();
    frame(HEADS, END, 5, 5, 0);
    frame(HEADS, END, 3, 5, 0);
    is_int(pass_all().error, NGHTTP2_PROTOCOL_ERROR, "a smaller id, never used");

    preface();
    frame(HEADS, 0, 1, 5, 0);
    for (uint32_t id = 3; id < 300; id += 2)
        frame(HEADS, END, id, 1, 0);
    frame(NGHTTP2_DATA, END, 1, 5, 0);
    is_int(hd_h2_frames_pass(
               &(hd_h2_frames_t){.is_server = true, .preface = HD_H2_PREFACE_BYTES},
               bytes, n)
               .error,
           0, "an old stream goes on");
}

static void test_blocks(void)
{
    preface();
    frame(HEADS, END, 1, 100, 0);
    for (int i = 0; i < 8; i++)
        frame(NGHTTP2_CONTINUATION, 0, 1, 1, 0);
    is_int(pass_all().error, 0, "eight CONTINUATION");
    frame(NGHTTP2_CONTINUATION, NGHTTP2_FLAG_END_HEADERS, 1, 1, 0);
    is_int(pass_all().error, NGHTTP2_ENHANCE_YOUR_CALM, "one more");
    is_int(hd_h2_continuations_max(65536), 8, "as many where a head is of usual size");
    ok(hd_h2_continuations_max(1 << 20) >= (1 << 20) / 16384, "and those of a large one");

    preface();
    frame(HEADS, END, 1, 500, 0);
    frame(NGHTTP2_CONTINUATION, 0, 1, 500, 0);
    is_int(pass_all().error, 0, "a block of the most bytes");
    frame(NGHTTP2_CONTINUATION, 0, 1, 1, 0);
    is_int(pass_all().error, NGHTTP2_ENHANCE_YOUR_CALM, "one byte more");

    preface();
    frame(HEADS, END, 1, 5, 0);
    frame(NGHTTP2_CONTINUATION, 0, 1, 0, 0);
    ok(pass_all().counts[HD_H2_CONTINUATIONS] >= 20, "an empty CONTINUATION costs much");
}

static void test_rest(void)
{
    preface();
    frame(NGHTTP2_WINDOW_UPDATE, 0, 0, 4, 0);
    is_int(pass_all().error, NGHTTP2_PROTOCOL_ERROR, "a window changed by 0");

    preface();
    frame(NGHTTP2_WINDOW_UPDATE, 0, 0, 4, 1);
    frame(NGHTTP2_WINDOW_UPDATE, 0, 0, 4, 2);
    is_int(pass_all().counts[HD_H2_TINY_WINDOWS], 2, "tiny increments are counted");

    preface();
    frame(0xbb, 0, 0, 40, 1);
    is_int(pass_all().counts[HD_H2_UNKNOWN], 1, "unknown frames are counted");

    preface();
    bytes[20] = 'X';
    is_int(pass_all().error, NGHTTP2_PROTOCOL_ERROR, "another preface");
}

int main(void)
{
    test_streams();
    test_blocks();
    test_rest();
    return done_testing();
}
