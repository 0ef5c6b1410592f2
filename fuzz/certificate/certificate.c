/* Fuzz target: who a certificate says its holder is, and the texts that configuration and
 * SDS bring. The first byte chooses: a SPIFFE ID, a certificate (DER), roots, revocation
 * lists, a chain with its key (PEM). What it finds goes to regression/ with its fix. */
#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* SPIFFE-ID §2, written anew: what is let through must be one by this, too. */
static bool is_id(hd_str_t id)
{
    size_t segment = 0, parts = 0, dots = 0;

    if (id.len > 2048 || id.len <= 9 || memcmp(id.data, "spiffe://", 9) != 0)
        return false;
    for (size_t i = 9; i <= id.len; i++) {
        char c = i < id.len ? id.data[i] : '/';

        if (c == '/') {
            if (segment == 0 || (parts > 0 && dots == segment && segment <= 2))
                return false;
            parts++;
            segment = dots = 0;
            continue;
        }
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789.-_", c) == NULL || c == '\0')
            if (parts == 0 || c < 'A' || c > 'Z')
                return false;
        segment++;
        dots += c == '.';
    }
    return id.data[id.len - 1] != '/';
}

static void read_id(hd_str_t text)
{
    if (hd_tls_is_spiffe_id(text) && !is_id(text))
        abort();
    if (hd_tls_is_trust_domain(text) && hd_str_find_char(text, '/') >= 0)
        abort();
}

static void read_cert(const uint8_t *data, size_t size)
{
    X509 *cert = d2i_X509(NULL, &data, (long)size);
    GENERAL_NAMES *names;
    hd_str_t id;
    int uris_n, n;

    if (cert == NULL)
        return;
    names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    n = hd_tls_find_spiffe(names, &id, &uris_n);
    if (n > uris_n || (n > 0 && !is_id(id)) || (n == 0 && id.len != 0))
        abort();
    if (n > 0 && hd_str_find_char(id, '\0') >= 0)
        abort();
    hd_ignore(hd_tls_has_nul(names));
    hd_ignore(hd_tls_time_s(X509_get0_notAfter(cert)) != 0);
    GENERAL_NAMES_free(names);
    X509_free(cert);
}

static void read_secret(const hd_secret_t *texts)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_secret_t s = *texts;
    hd_err_t err = {0};

    if (hd_secret_check(&s, pool, &err) == HD_OK) {
        if (s.spiffe_id.len > 0 && !is_id(s.spiffe_id))
            abort();
    } else if (err.text[0] == '\0') { /* each refusal says why */
        abort();
    }
    hd_pool_destroy(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_str_t text = hd_str_n((const char *)data + 1, size > 0 ? size - 1 : 0);
    hd_str_t key;
    hd_pool_t *pool;
    hd_err_t err = {0};
    ssize_t at;

    if (size == 0)
        return 0;
    switch (data[0] % 6) {
    case 0:
        read_id(text);
        break;
    case 1:
        read_cert(data + 1, size - 1);
        break;
    case 2:
        read_secret(&(hd_secret_t){.trust_pem = text});
        break;
    case 3:
        read_secret(&(hd_secret_t){.trust_pem = text, .crl_pem = text});
        break;
    case 4:
        at = hd_str_find(text, HD_STR("-----BEGIN PRIVATE"));
        at = at < 0 ? (ssize_t)(text.len / 2) : at;
        read_secret(&(hd_secret_t){.chain_pem = hd_str_sub(text, 0, (size_t)at),
                                   .key_pem = hd_str_sub(text, (size_t)at, text.len)});
        break;
    default:
        pool = hd_pool_create(0);
        hd_ignore(hd_tls_key_unlock(text, HD_STR("a\nbc\n"), pool, &key, &err) != HD_OK);
        hd_pool_destroy(pool);
    }
    ERR_clear_error();
    return 0;
}
