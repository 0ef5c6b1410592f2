/* Who the client is behind trusted proxies, from X-Forwarded-For (XFF-1 to XFF-3). */
#include "http/hd_request_int.h"

/* The <nth> address from the right of all X-Forwarded-For fields together; false: there
 * is none, or it is no address. */
static bool nth_from_right(const hd_headers_t *h, uint32_t nth, hd_pool_t *pool,
                           hd_addr_t *addr)
{
    bool found;
    hd_str_t all = hd_headers_joined(h, HD_STR("x-forwarded-for"), pool, &found);
    size_t end = all.len;

    while (found) {
        size_t from = end;

        while (from > 0 && all.data[from - 1] != ',')
            from--;
        if (nth == 0)
            return hd_addr_parse_ip(hd_str_trim(hd_str_sub(all, from, end - from)), addr);
        if (from == 0)
            return false;
        end = from - 1;
        nth--;
    }
    return false;
}

/* At an edge (use_remote_address) the peer itself is the nearest address and the proxies
 * counted stand before us; inside the mesh the list's end is what the last proxy wrote.
 */
static bool forwarded_remote(hd_req_t *req, hd_addr_t *addr)
{
    const hd_http_conf_t *http = req->http;
    uint32_t hops;

    if (http == NULL || !http->is_xds || req->head.headers.n == 0)
        return false;
    hops = http->xff_trusted_hops;
    if (http->use_remote_address && hops == 0)
        return false;
    return nth_from_right(req->received != NULL ? req->received : &req->head.headers,
                          http->use_remote_address ? hops - 1 : hops, req->pool, addr);
}

const hd_addr_t *hd_req_remote(hd_req_t *req)
{
    if (req->conn == NULL)
        return NULL;
    if (req->remote.family == AF_UNSPEC && !forwarded_remote(req, &req->remote))
        req->remote = *hd_conn_remote(req->conn);
    return &req->remote;
}
