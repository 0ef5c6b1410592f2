#include "password.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

/* A hash is made to be slow, and a worker has others to serve meanwhile. */
#define BCRYPT_COST_MAX 8 /* some 15 ms; htpasswd's own is 5 */
#define ROUNDS_MAX 10000  /* of $5$ and $6$, which have 5000 by themselves */
#define MD5_BYTES 16
#define SHA1_BYTES 20

static bool is_same(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

static password_t verdict(bool is_right)
{
    return is_right ? PASSWORD_RIGHT : PASSWORD_WRONG;
}

/* --- {SHA}, {SSHA} --- */

static password_t check_sha(hd_str_t password, hd_str_t coded, bool is_salted)
{
    uint8_t stored[256], made[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool is_right = false;
    int n;

    hd_bug_on(md == NULL);
    n = coded.len == 0 || coded.len > 300
            ? -1
            : EVP_DecodeBlock(stored, (const uint8_t *)coded.data, (int)coded.len);
    while (n > 0 && coded.len > 0 && coded.data[coded.len - 1] == '=') {
        coded.len--;
        n--;
    }
    if (n >= SHA1_BYTES && (is_salted || n == SHA1_BYTES) &&
        EVP_DigestInit_ex(md, EVP_sha1(), NULL) == 1 &&
        EVP_DigestUpdate(md, password.data, password.len) == 1 &&
        EVP_DigestUpdate(md, stored + SHA1_BYTES, (size_t)(n - SHA1_BYTES)) == 1 &&
        EVP_DigestFinal_ex(md, made, NULL) == 1)
        is_right = is_same(made, stored, SHA1_BYTES);
    EVP_MD_CTX_free(md);
    return verdict(is_right);
}

/* --- $apr1$: Apache's variant of the MD5 scheme of FreeBSD's crypt --- */

static void begin(EVP_MD_CTX *md)
{
    hd_bug_on(EVP_DigestInit_ex(md, EVP_md5(), NULL) != 1);
}

static void add(EVP_MD_CTX *md, const void *bytes, size_t n)
{
    hd_bug_on(EVP_DigestUpdate(md, bytes, n) != 1);
}

static void finish(EVP_MD_CTX *md, uint8_t sum[MD5_BYTES])
{
    hd_bug_on(EVP_DigestFinal_ex(md, sum, NULL) != 1);
}

static void stretch(EVP_MD_CTX *md, hd_str_t password, hd_str_t salt,
                    uint8_t sum[MD5_BYTES])
{
    for (unsigned i = 0; i < 1000; i++) {
        begin(md);
        if (i & 1)
            add(md, password.data, password.len);
        else
            add(md, sum, MD5_BYTES);
        if (i % 3 != 0)
            add(md, salt.data, salt.len);
        if (i % 7 != 0)
            add(md, password.data, password.len);
        if (i & 1)
            add(md, sum, MD5_BYTES);
        else
            add(md, password.data, password.len);
        finish(md, sum);
    }
}

static char *put_base64(char *to, uint32_t bits, int digits)
{
    static const char alphabet[] =
        "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    for (; digits > 0; digits--, bits >>= 6)
        *to++ = alphabet[bits & 63];
    return to;
}

static void make_apr1(hd_str_t password, hd_str_t salt, char out[22])
{
    static const uint8_t order[5][3] = {
        {0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}};
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint8_t sum[MD5_BYTES];
    size_t left;

    hd_bug_on(md == NULL);
    begin(md);
    add(md, password.data, password.len);
    add(md, salt.data, salt.len);
    add(md, password.data, password.len);
    finish(md, sum);

    begin(md);
    add(md, password.data, password.len);
    add(md, "$apr1$", 6);
    add(md, salt.data, salt.len);
    for (left = password.len; left > 0; left -= hd_min(left, (size_t)MD5_BYTES))
        add(md, sum, hd_min(left, (size_t)MD5_BYTES));
    for (left = password.len; left > 0; left >>= 1)
        add(md, left & 1 ? "" : password.data, 1); /* "": a zero byte */
    finish(md, sum);
    stretch(md, password, salt, sum);
    for (int i = 0; i < 5; i++)
        out = put_base64(out,
                         (uint32_t)sum[order[i][0]] << 16 |
                             (uint32_t)sum[order[i][1]] << 8 | sum[order[i][2]],
                         4);
    put_base64(out, sum[11], 2);
    EVP_MD_CTX_free(md);
}

static password_t check_apr1(hd_str_t password, hd_str_t stored)
{
    hd_str_t rest = hd_str_sub(stored, 6, stored.len), salt;
    char made[22];

    if (!hd_str_split(&rest, '$', &salt) || rest.len != sizeof(made))
        return PASSWORD_WRONG;
    salt = hd_str_sub(salt, 0, 8);
    make_apr1(password, salt, made);
    return verdict(is_same(made, rest.data, sizeof(made)));
}

/* --- crypt(3) --- */

/* Is it one that crypt(3) may be asked for? */
static password_t judge_kind(hd_str_t stored)
{
    hd_str_t rest, rounds;
    uint64_t n;

    if (stored.len < 13)
        return PASSWORD_UNKNOWN;
    if (stored.data[0] != '$' || hd_str_has_prefix(stored, HD_STR("$1$")))
        return PASSWORD_RIGHT; /* DES, MD5 */
    rest = hd_str_sub(stored, 3, stored.len);
    if (hd_str_has_prefix(stored, HD_STR("$5$")) ||
        hd_str_has_prefix(stored, HD_STR("$6$"))) {
        if (!hd_str_has_prefix(rest, HD_STR("rounds=")))
            return PASSWORD_RIGHT;
        rest = hd_str_sub(rest, 7, rest.len);
        return hd_str_split(&rest, '$', &rounds) && hd_str_to_u64(rounds, ROUNDS_MAX, &n)
                   ? PASSWORD_RIGHT
                   : PASSWORD_TOO_SLOW;
    }
    if (hd_str_has_prefix(stored, HD_STR("$2")) && stored.len > 7)
        return hd_str_to_u64(hd_str_sub(stored, 4, 2), BCRYPT_COST_MAX, &n)
                   ? PASSWORD_RIGHT
                   : PASSWORD_TOO_SLOW;
    return PASSWORD_UNKNOWN;
}

static password_t check_crypt(hd_str_t password, hd_str_t stored)
{
    static struct crypt_data data; /* 32 KB: one for all */
    password_t kind = judge_kind(stored);
    const char *made;

    if (kind != PASSWORD_RIGHT)
        return kind;
    /* of libxcrypt: AddressSanitizer takes crypt_r for the program's own, which has none */
    made = crypt_rn(password.data, stored.data, &data, sizeof(data));
    if (made == NULL)
        return PASSWORD_UNKNOWN;
    return verdict(strlen(made) == stored.len && is_same(made, stored.data, stored.len));
}

password_t password_check(hd_str_t password, hd_str_t stored)
{
    if (hd_str_has_prefix(stored, HD_STR("{PLAIN}")))
        return verdict(password.len == stored.len - 7 &&
                       is_same(password.data, stored.data + 7, password.len));
    if (hd_str_has_prefix(stored, HD_STR("{SHA}")))
        return check_sha(password, hd_str_sub(stored, 5, stored.len), false);
    if (hd_str_has_prefix(stored, HD_STR("{SSHA}")))
        return check_sha(password, hd_str_sub(stored, 6, stored.len), true);
    if (hd_str_has_prefix(stored, HD_STR("$apr1$")))
        return check_apr1(password, stored);
    return check_crypt(password, stored);
}
