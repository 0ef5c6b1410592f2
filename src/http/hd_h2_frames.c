#include "http/hd_h2_frames.h"
#include <nghttp2/nghttp2.h>
#include <string.h>

#define WINDOW_TINY 64 /* increments below it are counted (CVE-2019-9511) */
#define SEEN_N 64

#define EMPTY_COSTS 20 /* CONTINUATION without a byte: as so many others */

typedef struct {
    uint32_t length, increment;
    int32_t id;
    uint8_t type, flags;
} frame_t;

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static frame_t read_head(const uint8_t *p)
{
    return (frame_t){
        .length = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2],
        .type = p[3],
        .flags = p[4],
        .id = (int32_t)(read_u32(p + 5) & INT32_MAX),
    };
}

static bool has_increment(const frame_t *f)
{
    return f->type == NGHTTP2_WINDOW_UPDATE && f->length == 4;
}

static void fault(hd_h2_verdict_t *v, uint32_t error, const char *why)
{
    v->error = error;
    v->why = why;
}

/* The place of <id> in the memory of streams; -1: too old for it. */
static int place_of(const hd_h2_frames_t *f, int32_t id)
{
    int32_t at = (f->_last_id - id) / 2;

    return at < SEEN_N ? (int)at : -1;
}

static void note_new(hd_h2_frames_t *f, int32_t id)
{
    int32_t by = f->_last_id == 0 ? SEEN_N : (id - f->_last_id) / 2;

    f->_seen = by >= SEEN_N ? 0 : f->_seen << by;
    f->_ended = by >= SEEN_N ? 0 : f->_ended << by;
    f->_seen |= 1;
    f->_last_id = id;
}

/* RFC 9113 §5.1: what comes on a stream that its sender has ended, or has passed by, is
 * an error of the conn. What comes on one that we have reset is in flight, and no error.
 */
static void check_old_stream(hd_h2_frames_t *f, int32_t id, hd_h2_verdict_t *v)
{
    int at = place_of(f, id);

    if (at < 0)
        v->counts[HD_H2_LATE]++;
    else if (f->_ended >> at & 1)
        fault(v, NGHTTP2_STREAM_CLOSED, "a frame on a stream that was ended");
    else if (!(f->_seen >> at & 1))
        fault(v, NGHTTP2_PROTOCOL_ERROR, "a stream id below the last one");
}

static void note_end(hd_h2_frames_t *f, int32_t id)
{
    int at = id <= f->_last_id ? place_of(f, id) : -1;

    if (at >= 0)
        f->_ended |= 1ull << at;
}

static void check_stream(hd_h2_frames_t *f, const frame_t *frame, hd_h2_verdict_t *v)
{
    if (!f->is_server || frame->id % 2 == 0) /* nghttp2 refuses what is wrong */
        return;
    if (frame->id <= f->_last_id)
        check_old_stream(f, frame->id, v);
    else if (frame->type == NGHTTP2_HEADERS)
        note_new(f, frame->id);
    if (v->error == 0 && (frame->flags & NGHTTP2_FLAG_END_STREAM))
        note_end(f, frame->id);
}

static void check_block(hd_h2_frames_t *f, const frame_t *frame, hd_h2_verdict_t *v)
{
    if (frame->type == NGHTTP2_HEADERS) {
        f->_block_bytes = f->_continuations = 0;
    } else {
        f->_continuations++;
        v->counts[HD_H2_CONTINUATIONS] += frame->length == 0 ? EMPTY_COSTS : 1;
    }
    f->_block_bytes += frame->length;
    if (f->_continuations >
        hd_h2_continuations_max(f->block_bytes_max)) /* CVE-2024-28182 */
        fault(v, NGHTTP2_ENHANCE_YOUR_CALM, "too many CONTINUATION frames");
    else if (f->block_bytes_max > 0 && f->_block_bytes > f->block_bytes_max)
        fault(v, NGHTTP2_ENHANCE_YOUR_CALM, "a header block is too long");
}

static void check(hd_h2_frames_t *f, const frame_t *frame, hd_h2_verdict_t *v)
{
    switch (frame->type) {
    case NGHTTP2_HEADERS:
        check_stream(f, frame, v);
        check_block(f, frame, v);
        return;
    case NGHTTP2_CONTINUATION:
        check_block(f, frame, v);
        return;
    case NGHTTP2_DATA:
        check_stream(f, frame, v);
        return;
    case NGHTTP2_RST_STREAM:
        if (f->is_server)
            note_end(f, frame->id);
        return;
    case NGHTTP2_WINDOW_UPDATE:
        if (!has_increment(frame)) /* nghttp2 refuses it */
            return;
        if (frame->increment == 0) /* RFC 9113 §6.9; on a closed stream, too */
            fault(v, NGHTTP2_PROTOCOL_ERROR, "a window is changed by 0");
        else if (frame->increment < WINDOW_TINY)
            v->counts[HD_H2_TINY_WINDOWS]++;
        return;
    case NGHTTP2_PRIORITY:
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PUSH_PROMISE:
    case NGHTTP2_PING:
    case NGHTTP2_GOAWAY:
        return;
    default:
        v->counts[HD_H2_UNKNOWN]++;
        return;
    }
}

/* More of a frame's head; false: it isn't complete yet. */
static bool take_head(hd_h2_frames_t *f, const uint8_t *bytes, uint32_t n, uint32_t *at,
                      frame_t *frame)
{
    uint32_t want = HD_H2_HEAD_BYTES;

    for (;;) {
        if (f->_have >= HD_H2_HEAD_BYTES) {
            *frame = read_head(f->_head);
            want = HD_H2_HEAD_BYTES + (has_increment(frame) ? 4 : 0);
        }
        if (f->_have == want)
            break;
        if (*at == n)
            return false;
        f->_head[f->_have++] = bytes[(*at)++];
    }
    f->_left = frame->length - (want - HD_H2_HEAD_BYTES);
    if (has_increment(frame))
        frame->increment = read_u32(f->_head + HD_H2_HEAD_BYTES) & INT32_MAX;
    f->_have = 0;
    return true;
}

/* RFC 9113 §3.4; false: it is another. */
static bool take_preface(hd_h2_frames_t *f, const uint8_t *bytes, uint32_t n)
{
    const char *rest = &NGHTTP2_CLIENT_MAGIC[HD_H2_PREFACE_BYTES - f->preface];

    f->preface -= (uint8_t)n;
    return memcmp(bytes, rest, n) == 0;
}

hd_h2_verdict_t hd_h2_frames_pass(hd_h2_frames_t *f, const uint8_t *bytes, uint32_t n)
{
    hd_h2_verdict_t v = {0};
    uint32_t at = 0;

    while (at < n) {
        uint32_t start = at, skip = hd_min(n - at, (uint32_t)f->preface);
        frame_t frame;

        if (skip > 0 && !take_preface(f, bytes + at, skip)) {
            fault(&v, NGHTTP2_PROTOCOL_ERROR, "not the preface of HTTP/2");
            return v;
        }
        at += skip;
        skip = hd_min(n - at, f->_left);
        at += skip;
        f->_left -= skip;
        if (at > start)
            continue;
        if (!take_head(f, bytes, n, &at, &frame))
            break;
        check(f, &frame, &v);
        if (v.error != 0) {
            v.good = start;
            return v;
        }
    }
    v.good = n;
    return v;
}
