/* $remote_user: the name in an Authorization field of the Basic scheme (RFC 7617 §2). It
 * is what the client says; nothing has checked it. */
#include "http/hd_request_int.h"

#define CREDENTIALS_MAX 1024

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Base64 (RFC 4648 §4); false: it is none. */
static bool decode(hd_str_t in, char *out, size_t *out_len)
{
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;

    while (in.len > 0 && in.data[in.len - 1] == '=')
        in.len--;
    for (size_t i = 0; i < in.len; i++) {
        int v = value_of(in.data[i]);

        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have & 0xff);
        }
    }
    *out_len = n;
    return true;
}

static void get_remote_user(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    hd_str_t auth =
        hd_req_header(of->req, HD_STR("Authorization"), NULL); /* empty: none */
    ssize_t colon;
    size_t len;
    char *text;

    (void)rest;
    if (!hd_str_has_prefix_nocase(auth, HD_STR("Basic ")) || auth.len > CREDENTIALS_MAX)
        return;
    auth = hd_str_trim(hd_str_sub(auth, 6, auth.len));
    text = hd_pool_alloc_unaligned(of->pool, auth.len + 1);
    if (!decode(auth, text, &len))
        return;
    colon = hd_str_find_char(hd_str_n(text, len), ':');
    if (colon <= 0)
        return;
    out->type = HD_VAL_STR;
    out->str = hd_str_n(text, (size_t)colon);
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
