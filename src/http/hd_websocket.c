#include "http/hd_websocket.h"
#include "core/base/hd_base64.h"
#include "core/os/hd_os.h"

#include <openssl/evp.h>

#define KEY_BYTES 16

static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 §1.3 */

static bool is_websocket(const hd_req_t *req)
{
    return hd_str_eq_nocase(req->head.protocol, HD_STR("websocket"));
}

void hd_websocket_from_h2(hd_req_t *req)
{
    hd_headers_t *h = &req->head.headers;
    unsigned char key[KEY_BYTES];

    req->head.method = HD_STR("GET");
    req->head.is_upgrade = true;
    hd_headers_add(h, HD_STR("upgrade"), req->head.protocol);
    hd_headers_add(h, HD_STR("connection"), HD_STR("upgrade"));
    if (!is_websocket(req) || hd_headers_find(h, HD_STR("sec-websocket-key")) != NULL)
        return;
    hd_os_random(key, sizeof(key));
    hd_headers_add(h, HD_STR("sec-websocket-key"),
                   hd_base64_encode(req->pool, HD_BASE64, key, sizeof(key)));
}

void hd_websocket_answer_h2(hd_req_t *req)
{
    req->res.status = 200;
    hd_headers_remove(&req->res.headers, HD_STR("sec-websocket-accept"));
}

void hd_websocket_from_h2_answer(const hd_req_t *req, hd_res_head_t *res, hd_pool_t *pool)
{
    const hd_field_t *key =
        hd_headers_find(&req->head.headers, HD_STR("sec-websocket-key"));
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    hd_str_t text;

    res->status = 101;
    if (!is_websocket(req) || key == NULL ||
        hd_headers_find(&res->headers, HD_STR("sec-websocket-accept")) != NULL)
        return;
    text = hd_str_printf(pool, "%.*s%s", HD_STR_ARG(key->value), guid);
    if (EVP_Digest(text.data, text.len, sum, &n, EVP_sha1(), NULL) == 1)
        hd_headers_add(&res->headers, HD_STR("sec-websocket-accept"),
                       hd_base64_encode(pool, HD_BASE64, sum, n));
}
