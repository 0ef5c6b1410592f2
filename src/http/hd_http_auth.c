/* $remote_user: the name in an Authorization field (of a CONNECT: Proxy-Authorization) of
 * the Basic scheme (RFC 7617 §2). It is what the client says; nothing has checked it. */
#include "core/base/hd_base64.h"
#include "http/hd_request_int.h"

#define CREDENTIALS_MAX 1024

static void get_remote_user(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    hd_str_t auth = hd_req_header(of->req,
                                  of->req->head.method_id == HD_M_CONNECT
                                      ? HD_STR("Proxy-Authorization")
                                      : HD_STR("Authorization"),
                                  NULL); /* empty: none */
    ssize_t colon;
    size_t len;
    char *text;

    (void)rest;
    if (!hd_str_has_prefix_nocase(auth, HD_STR("Basic ")) || auth.len > CREDENTIALS_MAX)
        return;
    auth = hd_str_trim(hd_str_sub(auth, 6, auth.len));
    text = hd_pool_alloc_unaligned(of->pool, HD_BASE64_BYTES_MAX(auth.len));
    if (!hd_base64_decode(auth, HD_BASE64, HD_BASE64_LOOSE, text, &len))
        return;
    colon = hd_str_find_char(hd_str_n(text, len), ':');
    if (colon <= 0)
        return;
    hd_val_set_str(out, hd_str_n(text, (size_t)colon));
}

static const hd_attr_def_t defs[] = {
    {.name = "remote_user",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,
     .get = get_remote_user,
     .help = "the user's name as sent by Basic authentication, unchecked"},
    {0}};

void hd_http_auth_register(void)
{
    hd_attr_register(defs);
}
