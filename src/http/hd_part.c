#include "http/hd_part.h"
#include "http/hd_file.h"
#include "http/hd_request_int.h"

typedef struct hd_part_s {
    uint64_t skip, left; /* bytes before it, and of it, that are to come */
} hd_part_t;

static bool has_ranges(const hd_req_t *req)
{
    const hd_file_conf_t *conf = req->route != NULL ? req->route->file : NULL;

    return conf == NULL || conf->max_ranges_plus_1 != 1;
}

void hd_part_offer(hd_req_t *req)
{
    hd_headers_t *h = &req->res.headers;

    hd_headers_remove(h, HD_STR("Accept-Ranges"));
    if (req->res.status != 200 || req->res.content_length < 0 || req->is_sub ||
        req->head.version < HD_HTTP_10 || !has_ranges(req))
        return;
    req->may_be_cut = hd_headers_add(h, HD_STR("Accept-Ranges"), HD_STR("bytes")) != NULL;
}

static bool refuse(hd_req_t *req, int64_t size)
{
    req->response_filters_n = UINT16_MAX; /* as for any error */
    hd_response_local(req, 416, HD_STR_NONE, HD_STR_NONE, 0, "range");
    hd_ignore(hd_headers_add(&req->res.headers, HD_STR("Content-Range"),
                             hd_str_printf(req->pool, "bytes */%lld", (long long)size)) ==
              NULL);
    return false;
}

bool hd_part_start(hd_req_t *req)
{
    int64_t size = req->res.content_length;
    hd_headers_t *h = &req->res.headers;
    hd_str_t etag, modified;
    hd_range_t *range;
    uint32_t n;
    bool found;
    hd_rc_t rc;

    hd_ignore(hd_res_header(req, HD_STR("Accept-Ranges"), &found).len == 0);
    if (!found || req->res.status != 200 || size < 0)
        return true;
    etag = hd_res_header(req, HD_STR("ETag"), &found);
    modified = hd_res_header(req, HD_STR("Last-Modified"), &found);
    rc = hd_http_ranges(req, etag, found ? hd_http_parse_date(modified) : -1, size, 1,
                        &range, &n);
    if (rc == HD_ERROR)
        return refuse(req, size);
    if (rc != HD_OK)
        return true;
    req->part = hd_pool_new(req->pool, hd_part_t);
    req->part->skip = (uint64_t)range->from;
    req->part->left = (uint64_t)(range->to - range->from);
    req->res.status = 206;
    req->res.reason = HD_STR_NONE;
    req->res.content_length = range->to - range->from;
    hd_headers_remove(h, HD_STR("Accept-Ranges"));
    hd_ignore(hd_headers_set(
                  h, HD_STR("Content-Range"),
                  hd_str_printf(req->pool, "bytes %lld-%lld/%lld", (long long)range->from,
                                (long long)range->to - 1, (long long)size)) == NULL);
    return true;
}

void hd_part_cut(hd_req_t *req, hd_chain_t *body)
{
    size_t skip = (size_t)hd_min(req->part->skip, (uint64_t)body->bytes), keep;
    unsigned flags = hd_chain_flags(body);
    hd_chain_t part;

    hd_chain_drop(body, skip);
    keep = (size_t)hd_min(req->part->left, (uint64_t)body->bytes);
    hd_chain_init(&part);
    hd_chain_move_bytes(&part, body, keep);
    hd_chain_free(body);
    hd_chain_move(body, &part);
    req->part->skip -= skip;
    req->part->left -= keep;
    if (flags != 0)
        hd_chain_set_flags(body, flags);
}
