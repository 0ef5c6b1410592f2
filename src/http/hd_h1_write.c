#include "http/hd_h1_write.h"

void hd_h1_writer_init(hd_h1_writer_t *w, hd_chain_t *out)
{
    *w = (hd_h1_writer_t){.out = out};
}

static void hand_over(hd_h1_writer_t *w)
{
    if (w->at > w->from)
        hd_chain_add(w->out, w->block, w->block->data + w->from, w->at - w->from, 0);
    w->from = w->at;
}

void hd_h1_put_slow(hd_h1_writer_t *w, const char *data, size_t len)
{
    while (len > 0 && !w->failed) {
        size_t n;

        if (w->block == NULL || w->at == HD_BLOCK_BYTES) {
            if (w->block != NULL) {
                hand_over(w);
                hd_block_unref(w->block);
            }
            w->block = hd_block_try_take();
            w->from = w->at = 0;
            if (w->block == NULL) {
                w->failed = true;
                return;
            }
        }
        n = hd_min(len, HD_BLOCK_BYTES - w->at);
        memcpy(w->block->data + w->at, data, n);
        w->at += n;
        data += n;
        len -= n;
    }
}

char *hd_h1_reserve(hd_h1_writer_t *w, size_t len)
{
    if (w->block != NULL && len > HD_BLOCK_BYTES - w->at) {
        hand_over(w);
        hd_block_unref(w->block);
        w->block = NULL;
    }
    if (w->block == NULL && !w->failed) {
        w->block = hd_block_try_take();
        w->from = w->at = 0;
    }
    if (w->block == NULL) {
        w->failed = true;
        return NULL;
    }
    w->at += len;
    return w->block->data + w->at - len;
}

void hd_h1_put_chain(hd_h1_writer_t *w, hd_chain_t *chain)
{
    if (w->block != NULL)
        hand_over(w);
    hd_chain_move(w->out, chain);
}

void hd_h1_put_u64(hd_h1_writer_t *w, uint64_t n)
{
    char digits[HD_U64_DIGITS_MAX];

    hd_h1_put_str(w, hd_str_from_u64(n, digits));
}

void hd_h1_put_length(hd_h1_writer_t *w, int64_t length)
{
    hd_h1_put_lit(w, "Content-Length: ");
    hd_h1_put_u64(w, (uint64_t)length);
    hd_h1_put(w, "\r\n", 2);
}

static bool may_forward(const hd_field_t *f)
{
    return (f->flags & (HD_FIELD_REMOVED | HD_FIELD_HOP)) == 0 &&
           f->id != HD_H_CONTENT_LENGTH && f->id != HD_H_HOST &&
           f->id != HD_H_TRANSFER_ENCODING;
}

/* Does it lie in memory as it is to be sent, but for the CRLF? */
static bool is_line(const hd_field_t *f)
{
    const char *colon = f->name.data + f->name.len;

    return f->value.data == colon + 2 && colon[0] == ':' && colon[1] == ' ';
}

static const char *end_of(const hd_field_t *f)
{
    return f->value.data + f->value.len;
}

static bool follows(const hd_field_t *next, const hd_field_t *f)
{
    return next->name.data == end_of(f) + 2 && memcmp(end_of(f), "\r\n", 2) == 0;
}

/* Lines that lie behind one another as they were received are copied in one go. */
void hd_h1_put_fields(hd_h1_writer_t *w, const hd_headers_t *h)
{
    const hd_field_t *f = h->fields, *end;

    if (h->n == 0)
        return;
    for (end = f + h->n; f < end; f++) {
        const char *from;

        if (!may_forward(f))
            continue;
        if (!is_line(f)) {
            hd_h1_put_str(w, f->name);
            hd_h1_put_lit(w, ": ");
            hd_h1_put_str(w, f->value);
            hd_h1_put_lit(w, "\r\n");
            continue;
        }
        for (from = f->name.data;
             f + 1 < end && follows(f + 1, f) && is_line(f + 1) && may_forward(f + 1);)
            f++;
        hd_h1_put(w, from, (size_t)(end_of(f) - from));
        hd_h1_put_lit(w, "\r\n");
    }
}

bool hd_h1_writer_end(hd_h1_writer_t *w)
{
    if (w->block != NULL) {
        if (!w->failed)
            hand_over(w);
        hd_block_unref(w->block);
        w->block = NULL;
    }
    return !w->failed;
}

void hd_h1_put_status_line(hd_h1_writer_t *w, const hd_res_head_t *res)
{
    hd_str_t reason = res->reason.len > 0 ? res->reason : hd_http_reason(res->status);

    hd_h1_put_lit(w, "HTTP/1.1 ");
    hd_h1_put_u64(w, res->status);
    hd_h1_put_lit(w, " ");
    hd_h1_put_str(w, reason);
    hd_h1_put(w, "\r\n", 2);
}

static void put_hex(hd_h1_writer_t *w, uint64_t n)
{
    char digits[16];
    size_t at = sizeof(digits);

    do {
        digits[--at] = "0123456789abcdef"[n & 15];
        n >>= 4;
    } while (n > 0);
    hd_h1_put(w, digits + at, sizeof(digits) - at);
}

bool hd_h1_try_chunk(hd_chain_t *out, hd_chain_t *body, const hd_headers_t *trailers)
{
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    size_t bytes = body->bytes;
    hd_h1_writer_t w;

    if (bytes > 0) {
        hd_h1_writer_init(&w, out);
        put_hex(&w, bytes);
        hd_h1_put(&w, "\r\n", 2);
        if (!hd_h1_writer_end(&w))
            return false;
    }
    hd_chain_move(out, body);
    if (bytes == 0 && !is_last)
        return true;
    hd_h1_writer_init(&w, out);
    if (bytes > 0)
        hd_h1_put(&w, "\r\n", 2);
    if (is_last) {
        hd_h1_put_lit(&w, "0\r\n");
        if (trailers != NULL)
            hd_h1_put_fields(&w, trailers);
        hd_h1_put(&w, "\r\n", 2);
    }
    return hd_h1_writer_end(&w);
}

hd_str_t hd_http_reason(unsigned status)
{
    switch (status) {
#define R(code, text)                                                                    \
    case code:                                                                           \
        return HD_STR(text)
        R(100, "Continue");
        R(101, "Switching Protocols");
        R(103, "Early Hints");
        R(200, "OK");
        R(201, "Created");
        R(202, "Accepted");
        R(203, "Non-Authoritative Information");
        R(204, "No Content");
        R(205, "Reset Content");
        R(206, "Partial Content");
        R(207, "Multi-Status");
        R(300, "Multiple Choices");
        R(301, "Moved Permanently");
        R(302, "Moved Temporarily"); /* nginx's and HTTP/1.0's words for Found */
        R(303, "See Other");
        R(304, "Not Modified");
        R(307, "Temporary Redirect");
        R(308, "Permanent Redirect");
        R(400, "Bad Request");
        R(401, "Unauthorized");
        R(402, "Payment Required");
        R(403, "Forbidden");
        R(404, "Not Found");
        R(405, "Not Allowed"); /* nginx's */
        R(406, "Not Acceptable");
        R(407, "Proxy Authentication Required");
        R(408, "Request Time-out");
        R(409, "Conflict");
        R(410, "Gone");
        R(411, "Length Required");
        R(412, "Precondition Failed");
        R(413, "Request Entity Too Large");
        R(414, "Request-URI Too Large");
        R(415, "Unsupported Media Type");
        R(416, "Requested Range Not Satisfiable");
        R(417, "Expectation Failed");
        R(421, "Misdirected Request");
        R(425, "Too Early");
        R(426, "Upgrade Required");
        R(429, "Too Many Requests");
        R(431, "Request Header Fields Too Large");
        R(500, "Internal Server Error");
        R(501, "Not Implemented");
        R(502, "Bad Gateway");
        R(503, "Service Temporarily Unavailable");
        R(504, "Gateway Time-out");
        R(505, "HTTP Version Not Supported");
        R(507, "Insufficient Storage");
#undef R
    default:
        return HD_STR_NONE;
    }
}
