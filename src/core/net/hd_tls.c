#include "core/net/hd_tls.h"
#include "core/base/hd_log.h"
#include "core/net/hd_conn_int.h"
#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <stdlib.h>

hd_tls_stats_t hd_tls_stats;
int64_t hd_tls_skew_s;

int64_t hd_tls_now_s(const hd_tls_layer_t *l)
{
    return hd_loop_wall_ns(l->layer.conn->loop) / 1000000000 + hd_tls_skew_s;
}

hd_tls_layer_t *hd_tls_layer_of(const SSL *ssl)
{
    return BIO_get_data(SSL_get_rbio(ssl));
}

hd_tls_layer_t *hd_tls_layer(const hd_conn_t *c)
{
    for (hd_layer_t *l = c->top; l != NULL; l = l->below)
        if (l->ops == &hd_tls_ops)
            return (hd_tls_layer_t *)l;
    return NULL;
}

hd_str_t hd_tls_server_name(const hd_conn_t *c)
{
    return hd_tls_layer(c) != NULL && c->facts != NULL ? c->facts->sni : HD_STR_NONE;
}

bool hd_tls_is_on(const hd_conn_t *c)
{
    const hd_tls_layer_t *l = hd_tls_layer(c);

    return l != NULL && l->state >= HD_TLS_OPEN;
}

/* OpenSSL must not be asked again after such an error (SSL_get_error(3)). */
static hd_rc_t fail(hd_tls_layer_t *l, int ssl_error)
{
    char why[HD_ERR_TEXT_MAX];
    bool in_handshake = l->state < HD_TLS_OPEN;

    l->state = HD_TLS_FAILED;
    hd_tls_error_text(l, ssl_error, in_handshake, why, sizeof(why));
    return hd_conn_fail(l->layer.conn,
                        l->below_ended || l->below_failed || l->below_broken ? HD_E_RESET
                                                                             : HD_E_TLS,
                        "TLS%s: %s", in_handshake ? " handshake" : "", why);
}

/* --- handshake --- */

/* What resumption skipped: the certificate that a session stands for has an end, too. */
static hd_rc_t check_resumed(hd_tls_layer_t *l)
{
    X509 *peer = SSL_get0_peer_certificate(l->ssl);

    if (peer != NULL && l->verified &&
        hd_tls_session_is_expired(l, SSL_get_session(l->ssl), hd_tls_now_s(l))) {
        l->verified = false;
        l->state = HD_TLS_FAILED;
        return hd_conn_fail(l->layer.conn, HD_E_TLS,
                            "TLS handshake: the resumed session's certificate expired");
    }
    return HD_OK;
}

void hd_tls_settle(hd_tls_layer_t *l)
{
    SSL_certs_clear(l->ssl); /* ours: not needed any more */
    hd_tls_let_go(l);
}

/* All is known that will be of the peer. */
static hd_rc_t open_layer(hd_tls_layer_t *l)
{
    l->state = HD_TLS_OPEN;
    if (l->doubt != HD_TLS_NO_DOUBT) {
        l->verified = false;
        if (!l->ctx->conf.verify_late) { /* else hd_tls_judge_client tells */
            l->state = HD_TLS_FAILED;
            hd_tls_stats.failed++;
            return hd_conn_fail(l->layer.conn, HD_E_TLS, "TLS handshake: peer %s",
                                hd_tls_doubt_text(l->doubt));
        }
    }
    hd_tls_stats.handshakes++;
    hd_tls_stats.resumed += SSL_session_reused(l->ssl) == 1;
    hd_tls_facts_set(l);
    if (l->early == HD_TLS_LATE)
        hd_tls_settle(l);
    if (l->verified && l->ctx->conf.revalidates)
        hd_tls_watch_start(l);
    return HD_OK;
}

void hd_tls_asked(hd_tls_layer_t *l)
{
    hd_conn_handshake_done(l->layer.conn, open_layer(l) == HD_OK);
}

static hd_rc_t finish_handshake(hd_tls_layer_t *l)
{
    l->state = HD_TLS_OPEN;
    l->verified = SSL_get_verify_mode(l->ssl) != SSL_VERIFY_NONE &&
                  SSL_get0_peer_certificate(l->ssl) != NULL &&
                  SSL_get_verify_result(l->ssl) == X509_V_OK;
    if (SSL_session_reused(l->ssl) == 1 && check_resumed(l) != HD_OK) {
        hd_tls_stats.failed++;
        return HD_ERROR;
    }
    l->state = HD_TLS_ASKING;
    if (l->verified && l->ctx->conf.ocsp != NULL && hd_tls_ask(l) == HD_AGAIN)
        return HD_AGAIN;
    return open_layer(l);
}

static hd_rc_t fail_handshake(hd_tls_layer_t *l, int ssl_error)
{
    hd_tls_stats.failed++;
    return fail(l, ssl_error);
}

/* HD_AGAIN: it goes on with the peer's next bytes, or with an answer about it. */
static hd_rc_t step_handshake(hd_tls_layer_t *l)
{
    int n, error;
    hd_rc_t rc = HD_OK;

    hd_tls_enter(l);
    ERR_clear_error();
    n = l->early == HD_TLS_EARLY_ASKED ? hd_tls_early_start(l) : SSL_do_handshake(l->ssl);
    error = n == 1 ? SSL_ERROR_NONE : SSL_get_error(l->ssl, n);
    if (n == 1)
        rc = finish_handshake(l);
    else if (error == SSL_ERROR_WANT_READ)
        rc = HD_AGAIN;
    else
        rc = fail_handshake(l, error);
    /* An alert is among what goes out now. */
    if (hd_tls_leave(l) == HD_ERROR && rc != HD_ERROR) {
        hd_tls_ask_stop(l);
        rc = fail_handshake(l, SSL_ERROR_SYSCALL);
    }
    return rc;
}

static void go_on(hd_tls_layer_t *l)
{
    hd_rc_t rc = step_handshake(l);

    if (rc != HD_AGAIN)
        hd_conn_handshake_done(l->layer.conn, rc == HD_OK);
}

static unsigned on_event(hd_layer_t *layer, unsigned events)
{
    hd_tls_layer_t *l = (hd_tls_layer_t *)layer;

    if (l->state < HD_TLS_OPEN) {
        if (layer->conn->state != HD_CONN_HANDSHAKE) /* isn't connected yet */
            return 0;
        if (l->state == HD_TLS_HANDSHAKE)
            go_on(l);
        else if (l->out != NULL)
            hd_ignore(hd_tls_push_out(l) != HD_OK); /* a failure comes again */
        /* Its end is told by the conn (on_open first); here only what would get lost. */
        if ((l->state == HD_TLS_OPEN || l->state == HD_TLS_ASKING) &&
            (events & (HD_EV_HUP | HD_EV_ERR)) != 0)
            layer->conn->peer_closing = true;
        return 0;
    }
    if (l->state == HD_TLS_FAILED) /* the handshake tells; later the owner learns it */
        return layer->conn->state == HD_CONN_OPEN ? events : 0;
    if ((events & HD_EV_WRITE) != 0 && l->out != NULL && hd_tls_push_out(l) == HD_AGAIN)
        events &= ~(unsigned)HD_EV_WRITE;
    return events;
}

/* --- reading and writing --- */

/* A ticket or new keys leave OpenSSL with a write buffer of 16 KB until the next write,
 * which an idle conn may never see. Between records only: SSL_free_buffers doesn't look
 * at a record's head that was read alone. It is dear, so not for nothing. */
static void drop_buffer(hd_tls_layer_t *l)
{
    if (!l->holds_buffer || l->early != HD_TLS_LATE ||
        SSL_rstate_string(l->ssl)[1] != 'H')
        return;
    hd_ignore(SSL_free_buffers(l->ssl) == 1);
    l->holds_buffer = false;
}

/* Why a read gave nothing. SSL_get_error is right only of an empty error queue, which
 * would have to be looked at before each call; somebody else's errors may be in it. */
static int read_error(const hd_tls_layer_t *l)
{
    int error;

    if (SSL_want_read(l->ssl) && BIO_should_retry(SSL_get_rbio(l->ssl)))
        return SSL_ERROR_WANT_READ;
    error = SSL_get_error(l->ssl, 0);
    /* After close_notify; an alert would have left an error, the last one. */
    if (error == SSL_ERROR_SSL &&
        (SSL_get_shutdown(l->ssl) & SSL_RECEIVED_SHUTDOWN) != 0 &&
        ERR_GET_LIB(ERR_peek_last_error()) != ERR_LIB_SSL)
        return SSL_ERROR_ZERO_RETURN;
    return error;
}

static int read_plain(hd_tls_layer_t *l, void *to, size_t len, size_t *n)
{
    return hd_likely(l->early == HD_TLS_LATE) ? SSL_read_ex(l->ssl, to, len, n)
                                              : hd_tls_early_read(l, to, len, n);
}

static ssize_t read_layer(hd_layer_t *layer, void *to, size_t len)
{
    hd_tls_layer_t *l = (hd_tls_layer_t *)layer;
    size_t done = 0;

    if (l->state != HD_TLS_OPEN)
        return l->state < HD_TLS_OPEN     ? HD_IO_AGAIN
               : l->state == HD_TLS_ENDED ? 0
                                          : HD_IO_ERROR;
    hd_tls_enter(l);
    while (done < len && l->state == HD_TLS_OPEN) {
        size_t n = 0;
        int error;

        if (read_plain(l, (char *)to + done, len - done, &n) == 1) {
            done += n;
            if (hd_tls_is_drained(l) && SSL_has_pending(l->ssl) == 0) {
                drop_buffer(l); /* a second call would find nothing */
                break;
            }
            continue;
        }
        error = read_error(l);
        if (error == SSL_ERROR_WANT_READ) {
            drop_buffer(l);
            break;
        }
        if (error == SSL_ERROR_ZERO_RETURN)
            l->state = HD_TLS_ENDED;
        else
            hd_ignore(fail(l, error) != HD_ERROR);
    }
    if (hd_tls_leave(l) == HD_ERROR && l->state == HD_TLS_OPEN && !l->below_broken)
        hd_ignore(fail(l, SSL_ERROR_SYSCALL) != HD_ERROR);
    if (done > 0) {
        if (l->state != HD_TLS_OPEN)
            layer->conn->peer_closing = true; /* read once more: the end comes then */
        return (ssize_t)done;
    }
    return l->state == HD_TLS_OPEN    ? HD_IO_AGAIN
           : l->state == HD_TLS_ENDED ? 0
                                      : HD_IO_ERROR;
}

/* The next record's plaintext: one piece as it lies there if it is large, else several
 * gathered. Moves (*iov, *n, *at) on. */
static const char *gather(hd_tls_layer_t *l, const struct iovec **iov, int *n, size_t *at,
                          size_t *len)
{
    char *to = hd_tls_plain_buffer(l);
    size_t max = l->ctx->conf.record_bytes;

    if (max == 0)
        max = HD_TLS_RECORD_MAX;
    *len = 0;
    while (*n > 0 && *len < max) {
        const char *from = (const char *)(*iov)->iov_base + *at;
        size_t left = (*iov)->iov_len - *at;
        size_t piece = hd_min(left, max - *len);
        bool is_alone = *len == 0 && (piece == max || *n == 1);

        if (!is_alone && piece > 0)
            memcpy(to + *len, from, piece);
        *len += piece;
        *at += piece;
        if (piece == left) {
            ++*iov;
            --*n;
            *at = 0;
        }
        if (is_alone)
            return from;
    }
    return to;
}

static ssize_t writev_layer(hd_layer_t *layer, const struct iovec *iov, int n)
{
    hd_tls_layer_t *l = (hd_tls_layer_t *)layer;
    size_t at = 0, done = 0;
    hd_rc_t rc;

    if (l->state < HD_TLS_OPEN)
        return HD_IO_AGAIN;
    if (l->state == HD_TLS_FAILED)
        return HD_IO_ERROR;
    if (l->out != NULL && (rc = hd_tls_push_out(l)) != HD_OK)
        return rc == HD_AGAIN ? HD_IO_AGAIN : HD_IO_ERROR;
    hd_tls_enter(l);
    while (n > 0 && (rc = hd_tls_make_room(l)) == HD_OK) {
        size_t len, written = 0;
        const char *from = gather(l, &iov, &n, &at, &len);

        if (len == 0)
            break;
        if ((hd_likely(l->early == HD_TLS_LATE)
                 ? SSL_write_ex(l->ssl, from, len, &written)
                 : hd_tls_early_write(l, from, len, &written)) != 1 ||
            written != len) {
            /* Our BIO takes all; so this is no "later". */
            hd_ignore(fail(l, SSL_get_error(l->ssl, 0)) != HD_ERROR);
            break;
        }
        l->holds_buffer = false;
        done += len;
    }
    if (hd_tls_leave(l) == HD_ERROR && l->state != HD_TLS_FAILED && !l->below_broken)
        hd_ignore(fail(l, SSL_ERROR_SYSCALL) != HD_ERROR);
    if (l->state == HD_TLS_FAILED || l->below_broken)
        return HD_IO_ERROR;
    return done > 0 ? (ssize_t)done : HD_IO_AGAIN;
}

static hd_rc_t flush_layer(hd_layer_t *layer)
{
    hd_tls_layer_t *l = (hd_tls_layer_t *)layer;

    return l->out == NULL ? HD_OK : hd_tls_push_out(l);
}

/* --- the end --- */

static void say_goodbye(hd_tls_layer_t *l)
{
    if ((l->state != HD_TLS_OPEN && l->state != HD_TLS_ENDED) ||
        (SSL_get_shutdown(l->ssl) & SSL_SENT_SHUTDOWN) != 0)
        return;
    hd_tls_enter(l);
    ERR_clear_error();
    if (SSL_shutdown(l->ssl) < 0)
        ERR_clear_error(); /* 0: sent, the peer's isn't there yet */
    hd_ignore(hd_tls_leave(l) != HD_OK);
}

/* There is no close_notify before the handshake's end. HD_AGAIN: it isn't over yet. */
static hd_rc_t end_early(hd_tls_layer_t *l)
{
    size_t n;
    int rc = 1;

    hd_tls_enter(l);
    while (l->early != HD_TLS_LATE && rc == 1)
        rc = hd_tls_early_read(l, hd_tls_plain_buffer(l), HD_TLS_RECORD_MAX, &n);
    if (rc != 1 && l->early != HD_TLS_LATE && read_error(l) != SSL_ERROR_WANT_READ)
        hd_ignore(fail(l, SSL_ERROR_SSL) != HD_ERROR);
    hd_ignore(hd_tls_leave(l) != HD_OK);
    return l->early != HD_TLS_LATE && l->state == HD_TLS_OPEN ? HD_AGAIN : HD_OK;
}

static hd_rc_t shutdown_layer(hd_layer_t *layer)
{
    hd_tls_layer_t *l = (hd_tls_layer_t *)layer;

    if (hd_unlikely(l->early != HD_TLS_LATE) && end_early(l) == HD_AGAIN)
        return HD_AGAIN;
    say_goodbye(l);
    return l->out == NULL ? HD_OK : hd_tls_push_out(l);
}

static void close_layer(hd_layer_t *layer, bool reset)
{
    hd_tls_layer_t *l = (hd_tls_layer_t *)layer;

    if (!reset)
        say_goodbye(l);
    if (l->state == HD_TLS_OPEN || l->state == HD_TLS_ENDED)
        /* Or OpenSSL would take the session for a bad one. */
        SSL_set_shutdown(l->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    hd_tls_watch_stop(l);
    hd_tls_ask_stop(l);
    hd_tls_let_go(l);
    SSL_free(l->ssl);
    ERR_clear_error();
    hd_tls_ctx_put(l->ctx);
    free(l->in);
    free(l->out);
    free(l->verify_host);
    free(l->session_key);
    free(l);
}

const hd_layer_ops_t hd_tls_ops = {
    .name = "tls",
    .reads_all = true,
    .read = read_layer,
    .writev = writev_layer,
    .flush = flush_layer,
    .shutdown = shutdown_layer,
    .close = close_layer,
    .on_event = on_event,
};

/* --- pushing --- */

/* The roots of this moment; *version changes with them. */
static hd_rc_t set_trust(hd_tls_layer_t *l, uint64_t *version, hd_err_t *err)
{
    const hd_tls_conf_t *conf = &l->ctx->conf;
    const hd_tls_trust_t *trust;

    *version = 0;
    if (conf->trust == NULL || SSL_get_verify_mode(l->ssl) == SSL_VERIFY_NONE)
        return HD_OK;
    if (l->held->trust == NULL)
        return hd_err_set(err, HD_E_TLS, "secret '%.*s' isn't there (yet)",
                          HD_STR_ARG(conf->trust->name));
    if ((trust = hd_tls_trust_of(l, err)) == NULL)
        return HD_ERROR;
    *version = hd_tls_content_of(l->held->trust);
    hd_bug_on(SSL_set1_verify_cert_store(l->ssl, trust->store) != 1);
    if (l->ctx->is_server && !conf->is_mesh) {
        /* So that a browser can choose; mesh peers have one identity. */
        STACK_OF(X509_NAME) *names = SSL_dup_CA_list(trust->names);

        SSL_set0_CA_list(l->ssl, names);
    }
    return HD_OK;
}

/* Says early, and readably, what the handshake would fail of; *version changes with them.
 * A server with several certificates may do with those that are there. */
static hd_rc_t check_certs(hd_tls_layer_t *l, uint64_t *version, hd_err_t *err)
{
    const hd_tls_conf_t *conf = &l->ctx->conf;
    hd_err_t why = {0};
    uint32_t good_n = 0;

    *version = 0;
    for (uint32_t i = 0; i < conf->certs_n; i++) {
        const hd_region_t *r = l->held->certs[i];

        if (hd_tls_cert_of(l, i, &why) == NULL)
            continue;
        /* NULL: it has come just now, and may have gone by the client's hello */
        *version = *version * 1000003 + (r != NULL ? hd_tls_content_of(r) : 0);
        good_n++;
    }
    if (good_n > 0 || conf->pairs_n > 0 ||
        (conf->certs_n == 0 && (!l->ctx->is_server || conf->rejects)))
        return HD_OK;
    return hd_err_set(err, HD_E_TLS, "%s",
                      conf->certs_n > 0 ? why.text : "this server has no certificate");
}

static hd_rc_t set_client(hd_tls_layer_t *l, const hd_tls_client_t *ask, hd_err_t *err)
{
    hd_str_t sni = ask->sni.len > 0 ? ask->sni : l->ctx->conf.sni;
    hd_str_t host =
        ask->verify_host.len > 0 || !l->ctx->conf.verifies_sni ? ask->verify_host : sni;
    hd_addr_t ip;
    char name[256];

    if (ask->alpn.len > 0 &&
        SSL_set_alpn_protos(l->ssl, (const unsigned char *)ask->alpn.data,
                            (unsigned)ask->alpn.len) != 0)
        return hd_err_set(err, HD_E_TLS, "ALPN list of %zu bytes", ask->alpn.len);
    if (host.len > 0) {
        l->verify_host = malloc(host.len + 1);
        hd_bug_on(l->verify_host == NULL);
        memcpy(l->verify_host, host.data, host.len);
        l->verify_host[host.len] = '\0';
    }
    if (sni.len == 0 || hd_addr_parse_ip(sni, &ip)) /* RFC 6066 §3: no addresses */
        return HD_OK;
    if (sni.len >= sizeof(name) || hd_str_find_char(sni, '\0') >= 0)
        return hd_err_set(err, HD_E_TLS, "server name of %zu bytes: 255 at most, no NUL",
                          sni.len);
    memcpy(name, sni.data, sni.len);
    name[sni.len] = '\0';
    hd_bug_on(SSL_set_tlsext_host_name(l->ssl, name) != 1);
    return HD_OK;
}

static hd_rc_t push(hd_conn_t *c, const hd_tls_conf_t *conf, bool is_server,
                    const hd_tls_client_t *ask, hd_err_t *err)
{
    hd_member_t *m = hd_loop_member(c->loop);
    uint64_t trust_version, own_version;
    hd_tls_layer_t *l;
    BIO *bio;

    ERR_clear_error();
    l = calloc(1, sizeof(*l));
    hd_bug_on(l == NULL);
    if ((l->ctx = hd_tls_ctx_get(m, conf, is_server, err)) == NULL) {
        free(l);
        return HD_ERROR;
    }
    l->layer.ops = &hd_tls_ops;
    l->layer.conn = c;
    hd_list_init(&l->watched);
    l->ssl = SSL_new(l->ctx->ssl_ctx);
    hd_bug_on(l->ssl == NULL);
    bio = hd_tls_bio_create(l);
    SSL_set_bio(l->ssl, bio, bio);
    if (is_server)
        SSL_set_accept_state(l->ssl);
    else
        SSL_set_connect_state(l->ssl);
    hd_tls_hold(l);
    l->held->pairs = conf->pairs;
    if (set_trust(l, &trust_version, err) != HD_OK ||
        check_certs(l, &own_version, err) != HD_OK ||
        (!is_server && set_client(l, ask, err) != HD_OK) ||
        (!is_server && hd_tls_pair_take(l, ask, &own_version, err) != HD_OK)) {
        close_layer(&l->layer, true);
        hd_tls_stats.failed++;
        return HD_ERROR;
    }
    l->early =
        l->ctx->is_server && l->ctx->conf.early_data ? HD_TLS_EARLY_ASKED : HD_TLS_LATE;
    l->trust_content = trust_version;
    hd_tls_session_start(l, ask, trust_version, own_version);
    hd_conn_push(c, &l->layer);
    hd_conn_await_handshake(c);
    /* Not from within: the caller may go on to set it up. */
    hd_conn_tell_later(c, HD_EV_WRITE);
    return HD_OK;
}

hd_rc_t hd_tls_push_server(hd_conn_t *c, const hd_tls_conf_t *conf, hd_err_t *err)
{
    return push(c, conf, true, NULL, err);
}

hd_rc_t hd_tls_push_client(hd_conn_t *c, const hd_tls_conf_t *conf,
                           const hd_tls_client_t *ask, hd_err_t *err)
{
    static const hd_tls_client_t nothing;

    return push(c, conf, false, ask != NULL ? ask : &nothing, err);
}
