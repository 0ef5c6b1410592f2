#include "core/hd_grpc.h"
#include "core/base/hd_pool.h"
#include "http/hd_chars.h"
#include "http/hd_uri.h"
#include <stdlib.h>

#define HEAD_BYTES 5 /* compressed flag, length in network order */

hd_rc_t hd_grpc_take_message(hd_chain_t *in, size_t max, uint8_t **bytes, size_t *len,
                             hd_err_t *err)
{
    uint8_t head[HEAD_BYTES];
    size_t n;

    if (in->bytes < HEAD_BYTES)
        return HD_AGAIN;
    if (hd_chain_peek(in, head, HEAD_BYTES) < HEAD_BYTES)
        return hd_err_set(err, HD_E_INTERNAL, "gRPC: a message can't be in a file");
    if (head[0] != 0)
        return hd_err_set(err, HD_E_PROTOCOL,
                          head[0] == 1
                              ? "gRPC: a compressed message, which was not asked "
                                "for"
                              : "gRPC: not a message");
    n = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
    if (n > max)
        return hd_err_set(err, HD_E_LIMIT, "gRPC: a message of %zu bytes, at most %zu", n,
                          max);
    if (in->bytes < HEAD_BYTES + n)
        return HD_AGAIN;
    hd_chain_drop(in, HEAD_BYTES);
    *bytes = malloc(n > 0 ? n : 1);
    hd_bug_on(*bytes == NULL);
    *len = n;
    if (n > 0) {
        size_t got = hd_chain_peek(in, *bytes, n);

        hd_bug_on(got != n);
        hd_chain_drop(in, n);
    }
    return HD_OK;
}

bool hd_grpc_try_add_message(hd_chain_t *out, const void *bytes, size_t len)
{
    const char head[HEAD_BYTES] = {0, (char)(len >> 24), (char)(len >> 16),
                                   (char)(len >> 8), (char)len};
    hd_chain_t message;

    if (len > UINT32_MAX)
        return false;
    hd_chain_init(&message);
    if (!hd_chain_try_add_copy(&message, head, HEAD_BYTES) ||
        !hd_chain_try_add_copy(&message, bytes, len)) {
        hd_chain_free(&message);
        return false;
    }
    hd_chain_move(out, &message);
    return true;
}

/* github.com/grpc/grpc doc/http-grpc-status-mapping.md */
unsigned hd_grpc_status_from_http(unsigned status)
{
    switch (status) {
    case 400:
        return 13; /* INTERNAL */
    case 401:
        return 16; /* UNAUTHENTICATED */
    case 403:
        return 7; /* PERMISSION_DENIED */
    case 404:
        return 12; /* UNIMPLEMENTED */
    case 429:
    case 502:
    case 503:
    case 504:
        return 14; /* UNAVAILABLE */
    default:
        return 2; /* UNKNOWN */
    }
}

const char *hd_grpc_status_name(unsigned status)
{
    static const char *const names[] = {"OK",
                                        "Canceled",
                                        "Unknown",
                                        "InvalidArgument",
                                        "DeadlineExceeded",
                                        "NotFound",
                                        "AlreadyExists",
                                        "PermissionDenied",
                                        "ResourceExhausted",
                                        "FailedPrecondition",
                                        "Aborted",
                                        "OutOfRange",
                                        "Unimplemented",
                                        "Internal",
                                        "Unavailable",
                                        "DataLoss",
                                        "Unauthenticated"};

    return status < hd_countof(names) ? names[status] : "InvalidCode";
}

static bool needs_escape(unsigned char c)
{
    return c < 0x20 || c > 0x7e || c == '%';
}

hd_str_t hd_grpc_escape(hd_pool_t *pool, hd_str_t text)
{
    return hd_uri_escape_where(pool, text, needs_escape);
}

/* What isn't well encoded stays as it is: it is a text for people. */
hd_str_t hd_grpc_unescape(hd_pool_t *pool, hd_str_t text)
{
    char *out;
    size_t n = 0;

    if (hd_str_find_char(text, '%') < 0)
        return text;
    out = hd_pool_alloc_unaligned(pool, text.len);
    for (size_t i = 0; i < text.len; i++) {
        int high = i + 2 < text.len ? hd_hex_value(text.data[i + 1]) : -1;
        int low = i + 2 < text.len ? hd_hex_value(text.data[i + 2]) : -1;

        if (text.data[i] == '%' && high >= 0 && low >= 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = text.data[i];
        }
    }
    return hd_str_n(out, n);
}
