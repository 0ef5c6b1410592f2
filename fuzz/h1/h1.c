/* HTTP/1 text: requests, responses, chunked bodies, trailers, paths; and one property:
 * however the bytes are cut, the answer is the same. */
#include "http/hd_codec.h"

#include <stdlib.h>

static const hd_h1_limits_t limits = {
    .bytes_max = 8192, .fields_max = 50, .underscores = true};

static void fuzz_request(hd_str_t bytes)
{
    static const hd_http_conf_t nginx, xds = {.is_xds = true,
                                              .normalize_path = true,
                                              .merge_slashes = true,
                                              .escaped_slashes = 3};
    hd_pool_t *pool = hd_pool_create(0);
    hd_req_head_t whole = {0}, cut = {0};
    const char *why = "";
    size_t from = 0, used = 0, cut_used = 0;
    hd_h1_rc_t rc = hd_h1_parse_request(bytes, &from, &limits, pool, &whole, &used, &why),
               again;
    hd_str_t path, query;

    from = 0;
    again = HD_H1_MORE;
    for (size_t n = 1; n <= bytes.len && again == HD_H1_MORE; n += 1 + n / 8)
        again = hd_h1_parse_request(hd_str_n(bytes.data, n), &from, &limits, pool, &cut,
                                    &cut_used, &why);
    if (again != HD_H1_MORE && (again != rc || cut_used != used))
        abort();
    if (rc == HD_H1_OK) {
        hd_headers_mark_hops(&whole.headers);
        if (hd_http_normalize_path(whole.raw_path, &xds, pool, &path, &query) == HD_OK &&
            path.len > 0 && hd_str_find(path, HD_STR("/../")) >= 0)
            abort();
        hd_ignore(hd_http_normalize_path(whole.raw_path, &nginx, pool, &path, &query));
    }
    hd_pool_destroy(pool);
}

static void fuzz_response(hd_str_t bytes)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_res_head_t head = {0};
    const char *why = "";
    bool keep, until;
    size_t from = 0, used;

    hd_ignore(hd_h1_parse_response(bytes, &from, &limits, pool, false, false, &head,
                                   &keep, &until, &used, &why));
    hd_pool_destroy(pool);
}

static void fuzz_chunked(hd_str_t bytes, size_t step)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_chunked_t ch = {0};
    hd_headers_t trailers;
    const char *why = "";
    size_t used, at = 0;

    while (at < bytes.len) {
        hd_str_t piece = hd_str_sub(bytes, at, step), content;
        hd_h1_rc_t rc = hd_chunked_next(&ch, piece, &content, &used, &why);

        if (rc == HD_H1_BAD)
            break;
        if (used > piece.len || content.len > piece.len)
            abort();
        at += used;
        if (rc == HD_H1_OK) {
            hd_ignore(hd_h1_parse_trailers(hd_str_sub(bytes, at, bytes.len), &limits,
                                           pool, &trailers, &used, &why));
            break;
        }
    }
    hd_pool_destroy(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hd_str_t bytes = {(const char *)data, len};

    fuzz_request(bytes);
    fuzz_response(bytes);
    fuzz_chunked(bytes, 1);
    fuzz_chunked(bytes, 1000);
    return 0;
}
