/* secure_link: links that only the site itself can make, and for a time:
 *     secure_link $arg_md5,$arg_expires;
 *     secure_link_md5 "$secure_link_expires$uri secret";
 *     if ($secure_link = "") { return 403; }
 *     if ($secure_link = "0") { return 410; }
 * or, the older way, /PREFIX/HASH/LINK with secure_link_secret. */
#include "hd_module.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define MD5_BYTES 16
#define MD5_BASE64_MAX 24

typedef struct {
    const hd_expr_t *link; /* CHECKSUM[,EXPIRES]; NULL: not given */
    const hd_expr_t *text; /* what the checksum is of; NULL: not given */
    hd_str_t secret;       /* of the older way; empty: not given */
} link_conf_t;

static hd_rc_t set_secret(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    if (args[0].len == 0)
        return hd_err_set(err, HD_E_CONF, "the secret is empty: a word is needed");
    ((link_conf_t *)conf)->secret = hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    const link_conf_t *lc = conf;

    (void)cf;
    if (lc->secret.len > 0 && (lc->link != NULL || lc->text != NULL))
        return hd_err_set(err, HD_E_CONF,
                          "\"secure_link_secret\" cannot be mixed with \"secure_link\" "
                          "and \"secure_link_md5\"");
    return HD_OK;
}

static bool md5_of(hd_str_t a, hd_str_t b, uint8_t sum[MD5_BYTES])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_md5(), NULL) == 1 &&
              EVP_DigestUpdate(md, a.data, a.len) == 1 &&
              EVP_DigestUpdate(md, b.data, b.len) == 1 &&
              EVP_DigestFinal_ex(md, sum, NULL) == 1;

    EVP_MD_CTX_free(md);
    return ok; /* false: there is no MD5 here (FIPS) */
}

/* --- the older way: /PREFIX/HASH/LINK, the MD5 of link and secret in hex --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = hd_ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_hex_of(hd_str_t text, const uint8_t sum[MD5_BYTES])
{
    uint8_t given[MD5_BYTES];

    if (text.len != 2 * MD5_BYTES)
        return false;
    for (size_t i = 0; i < MD5_BYTES; i++) {
        int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        given[i] = (uint8_t)(high << 4 | low);
    }
    return CRYPTO_memcmp(given, sum, MD5_BYTES) == 0;
}

/* The link, or what is empty: it isn't one of ours. As in nginx, of the path as it was
 * received, with its query. */
static hd_str_t link_of(const link_conf_t *lc, hd_req_t *req)
{
    hd_str_t rest = hd_req_raw_path(req), part, hash;
    uint8_t sum[MD5_BYTES];

    if (rest.len == 0 || rest.data[0] != '/')
        return HD_STR_NONE;
    rest = hd_str_sub(rest, 1, rest.len);
    if (hd_str_find_char(rest, '/') < 0 || !hd_str_split(&rest, '/', &part) ||
        hd_str_find_char(rest, '/') < 0 || !hd_str_split(&rest, '/', &hash) ||
        rest.len == 0 || !md5_of(rest, lc->secret, sum) || !is_hex_of(hash, sum))
        return HD_STR_NONE;
    return rest;
}

/* --- the newer way --- */

/* Base64url of just an MD5, with or without its padding. */
static bool decode(hd_str_t text, uint8_t sum[MD5_BYTES])
{
    uint8_t bytes[HD_BASE64_BYTES_MAX(MD5_BASE64_MAX)];
    size_t n;

    if (text.len > MD5_BASE64_MAX ||
        !hd_base64_decode(text, HD_BASE64URL, HD_BASE64_LOOSE, bytes, &n) ||
        n != MD5_BYTES)
        return false;
    memcpy(sum, bytes, MD5_BYTES);
    return true;
}

static bool split_link(const link_conf_t *lc, hd_req_t *req, hd_str_t *sum,
                       hd_str_t *expires)
{
    hd_str_t value;
    ssize_t comma;

    if (lc->link == NULL || hd_expr_eval(lc->link, req, &value) != HD_OK)
        return false;
    comma = hd_str_find_char(value, ',');
    *sum = comma < 0 ? value : hd_str_sub(value, 0, (size_t)comma);
    *expires = comma < 0 ? HD_STR_NONE : hd_str_sub(value, (size_t)comma + 1, value.len);
    return true;
}

/* "1", "0" once its time is over, or what is empty. */
static hd_str_t verdict(const link_conf_t *lc, hd_req_t *req)
{
    uint8_t given[MD5_BYTES], right[MD5_BYTES];
    hd_str_t sum, expires, text;
    uint64_t until = 0;

    if (lc->text == NULL || !split_link(lc, req, &sum, &expires))
        return HD_STR_NONE;
    if (expires.data != NULL &&
        (!hd_str_to_u64(expires, INT64_MAX, &until) || until == 0))
        return HD_STR_NONE;
    if (!decode(sum, given) || hd_expr_eval(lc->text, req, &text) != HD_OK ||
        !md5_of(text, HD_STR(""), right) || CRYPTO_memcmp(given, right, MD5_BYTES) != 0)
        return HD_STR_NONE;
    if (until > 0 && until < (uint64_t)hd_loop_wall_ns(hd_req_loop(req)) / 1000000000)
        return HD_STR("0");
    return HD_STR("1");
}

static void get_link(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out);
static void get_expires(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out);

static const hd_attr_def_t attributes[] = {
    {.name = "secure_link",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,
     .get = get_link,
     .help = "of a true link 1, or 0 once its time is over (with secure_link_secret the "
             "link); else empty"},
    {.name = "secure_link_expires",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,
     .get = get_expires,
     .help = "until when the link is good, in seconds since 1970, as the request says"},
    {0},
};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "secure_link",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_expr,
     .offset = offsetof(link_conf_t, link),
     .help = "CHECKSUM[,EXPIRES]: where they stand in the request; the checksum is an "
             "MD5 in base64url, the time seconds since 1970"},
    {.name = "secure_link_md5",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_expr,
     .offset = offsetof(link_conf_t, text),
     .help = "TEXT: of what the checksum is; a secret belongs to it"},
    {.name = "secure_link_secret",
     .scope = HD_IN_LOCATION,
     .args_n = 1,
     .set = set_secret,
     .help = "WORD: the older way: /PREFIX/HASH/LINK, where HASH is the MD5 of LINK and "
             "the word"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "secure_link",
    .directives = directives,
    .conf_size = sizeof(link_conf_t),
    .attributes = attributes,
    .on_conf = on_conf,
};

static void set_text(hd_val_t *out, hd_str_t s)
{
    if (s.len == 0)
        return;
    out->type = HD_VAL_STR;
    out->str = s;
}

/* Variables may be made of each other in a circle: a value that is being made is empty.
 */
static void get_link(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    static bool is_being_made;
    const link_conf_t *lc = hd_req_conf(of->req, &hd_module);

    (void)rest;
    if (lc == NULL || is_being_made)
        return;
    is_being_made = true;
    set_text(out, lc->secret.len > 0 ? link_of(lc, of->req) : verdict(lc, of->req));
    is_being_made = false;
}

static void get_expires(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    static bool is_being_made;
    const link_conf_t *lc = hd_req_conf(of->req, &hd_module);
    hd_str_t sum, expires;

    (void)rest;
    if (lc == NULL || is_being_made)
        return;
    is_being_made = true;
    if (split_link(lc, of->req, &sum, &expires))
        set_text(out, expires);
    is_being_made = false;
}
