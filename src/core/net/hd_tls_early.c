/* hd_tls_early: what a client that resumes a session sends along with its hello (RFC 8446
 * §2.3, §4.2.10). The conn is open from then on; answers go out at once, under keys that
 * the client's Finished has yet to confirm.
 *
 *   asked -(none, or refused)-> late
 *         \-> byte -> read -(EndOfEarlyData)-> finish -(Finished)-> late
 *
 * A ticket is good once, in whatever worker (hd_tls_session.c): so early data is taken
 * once, and a copy of it is a client with an unknown ticket. It stays possible that who
 * sits between makes the client send the same again, in time: hence hd_tls_is_early. Once
 * Finished is there, it was no copy.
 */
#include "core/net/hd_tls_int.h"

/* Reads a byte, no more: what is more waits in OpenSSL until the owner reads. */
int hd_tls_early_start(hd_tls_layer_t *l)
{
    size_t n = 0;

    switch (SSL_read_early_data(l->ssl, &l->early_byte, 1, &n)) {
    case SSL_READ_EARLY_DATA_SUCCESS:
        l->early = n == 1 ? HD_TLS_EARLY_BYTE : HD_TLS_EARLY_READ;
        return 1;
    case SSL_READ_EARLY_DATA_FINISH:
        l->early = HD_TLS_LATE;
        return SSL_do_handshake(l->ssl);
    default:
        return 0;
    }
}

int hd_tls_early_read(hd_tls_layer_t *l, void *to, size_t len, size_t *n)
{
    int rc;

    *n = 0;
    if (l->early == HD_TLS_EARLY_BYTE) {
        *(uint8_t *)to = l->early_byte;
        *n = 1;
        l->early = HD_TLS_EARLY_READ;
        return 1;
    }
    if (l->early == HD_TLS_EARLY_READ) {
        rc = SSL_read_early_data(l->ssl, to, len, n);
        if (rc != SSL_READ_EARLY_DATA_FINISH)
            return rc == SSL_READ_EARLY_DATA_SUCCESS;
        l->early = HD_TLS_EARLY_FINISH;
    }
    rc = SSL_read_ex(l->ssl, to, len, n);
    if (SSL_is_init_finished(l->ssl) == 1) {
        l->early = HD_TLS_LATE;
        hd_tls_settle(l);
    }
    return rc;
}

int hd_tls_early_write(hd_tls_layer_t *l, const void *from, size_t len, size_t *n)
{
    return SSL_is_init_finished(l->ssl) == 1 ? SSL_write_ex(l->ssl, from, len, n)
                                             : SSL_write_early_data(l->ssl, from, len, n);
}

bool hd_tls_is_early(const hd_conn_t *c)
{
    const hd_tls_layer_t *l = hd_tls_layer(c);

    return l != NULL && l->early > HD_TLS_EARLY_ASKED;
}
