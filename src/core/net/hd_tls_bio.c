/* hd_tls_bio: ciphertext between OpenSSL and the layer below, through buffers that all
 * conns of a thread share: one read below feeds several records, the records of a flush
 * go down in one writev, and an idle conn owns no buffer. What is left over is kept in
 * pieces of its exact size, outside the block ceiling: there it must not get lost, and it
 * is bounded (IN_BYTES, REST_BYTES_MAX a conn). */
#include "core/net/hd_tls_int.h"
#include <pthread.h>
#include <stdlib.h>

enum {
    IN_BYTES = 32768,
    RECORD_ROOM = HD_TLS_RECORD_MAX + 512, /* with head, padding and tag */
    OUT_BYTES = 4 * RECORD_ROOM,
    REST_BYTES_MAX = 4 * OUT_BYTES, /* handshake messages and alerts come on top */
    NESTED_MAX = 3,                 /* TLS within TLS within TLS */
};

typedef struct {
    hd_tls_layer_t *layer; /* whose call is going on */
    size_t in_at, in_end, out_end;
    bool below_drained; /* by the last read: asking again is of no use now */
    char in[IN_BYTES], out[OUT_BYTES], plain[HD_TLS_RECORD_MAX];
} work_t;

/* A layer below may be TLS too, and works while the upper one's call goes on. Pages that
 * are never touched cost nothing. */
static _Thread_local work_t works[NESTED_MAX];
static _Thread_local int works_n;

static work_t *work_of(const hd_tls_layer_t *l)
{
    work_t *w = &works[works_n - 1];

    hd_bug_on(works_n == 0 || w->layer != l);
    return w;
}

hd_tls_rest_t *hd_tls_rest_create(const char *data, size_t len)
{
    hd_tls_rest_t *r = malloc(sizeof(*r) + len);

    hd_bug_on(r == NULL);
    r->at = 0;
    r->end = len;
    if (len > 0)
        memcpy(r->data, data, len);
    return r;
}

static bool add_rest(hd_tls_rest_t **rest, const char *data, size_t len)
{
    hd_tls_rest_t *old = *rest, *r;
    size_t left = old != NULL ? old->end - old->at : 0;

    if (left + len > REST_BYTES_MAX)
        return false;
    r = malloc(sizeof(*r) + left + len);
    hd_bug_on(r == NULL);
    r->at = 0;
    r->end = left + len;
    if (left > 0)
        memcpy(r->data, old->data + old->at, left);
    memcpy(r->data + left, data, len);
    free(old);
    *rest = r;
    return true;
}

/* --- reading --- */

static size_t take_from(char *to, size_t len, const char *from, size_t *at, size_t end)
{
    size_t n = hd_min(len, end - *at);

    memcpy(to, from + *at, n);
    *at += n;
    return n;
}

static int bio_read(BIO *bio, char *to, int len)
{
    hd_tls_layer_t *l = BIO_get_data(bio);
    work_t *w = work_of(l);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    if (to == NULL || len <= 0)
        return 0;
    if (l->in != NULL) {
        n = (ssize_t)take_from(to, (size_t)len, l->in->data, &l->in->at, l->in->end);
        if (l->in->at == l->in->end) {
            free(l->in);
            l->in = NULL;
        }
        return (int)n;
    }
    if (w->in_at == w->in_end) {
        if (l->below_ended)
            return 0;
        if (l->below_failed)
            return -1;
        n = l->layer.below->ops->read(l->layer.below, w->in, IN_BYTES);
        if (n <= 0) {
            l->below_ended = n == 0;
            l->below_failed = n != 0 && n != HD_IO_AGAIN;
            if (n == HD_IO_AGAIN)
                BIO_set_retry_read(bio);
            return n == 0 ? 0 : -1;
        }
        w->in_at = 0;
        w->in_end = (size_t)n;
        w->below_drained = n < IN_BYTES && l->layer.below->ops->reads_all &&
                           !l->layer.conn->peer_closing;
    }
    return (int)take_from(to, (size_t)len, w->in, &w->in_at, w->in_end);
}

/* --- writing --- */

hd_rc_t hd_tls_push_out(hd_tls_layer_t *l)
{
    work_t *w = works_n > 0 && works[works_n - 1].layer == l ? &works[works_n - 1] : NULL;
    struct iovec iov[2];
    size_t out_at = 0;
    ssize_t sent = 0;
    int n = 0;

    if (l->below_failed || l->below_broken)
        return HD_ERROR;
    if (l->out != NULL)
        iov[n++] = (struct iovec){l->out->data + l->out->at, l->out->end - l->out->at};
    if (w != NULL && w->out_end > 0)
        iov[n++] = (struct iovec){w->out, w->out_end};
    if (n == 0)
        return HD_OK;
    sent = l->layer.below->ops->writev(l->layer.below, iov, n);
    if (sent < 0 && sent != HD_IO_AGAIN) {
        l->below_broken = true;
        return HD_ERROR;
    }
    if (sent < 0)
        sent = 0;
    if (l->out != NULL) {
        size_t from_rest = hd_min((size_t)sent, iov[0].iov_len);

        l->out->at += from_rest;
        sent -= (ssize_t)from_rest;
        if (l->out->at == l->out->end) {
            free(l->out);
            l->out = NULL;
        }
    }
    if (w != NULL && w->out_end > 0) {
        out_at = (size_t)sent;
        if (out_at < w->out_end &&
            !add_rest(&l->out, w->out + out_at, w->out_end - out_at)) {
            l->below_failed = true;
            return hd_conn_fail(l->layer.conn, HD_E_LIMIT,
                                "TLS: %d bytes of control messages wait for the peer",
                                REST_BYTES_MAX);
        }
        w->out_end = 0;
    }
    return l->out == NULL ? HD_OK : HD_AGAIN;
}

static int bio_write(BIO *bio, const char *from, int len)
{
    hd_tls_layer_t *l = BIO_get_data(bio);
    work_t *w = work_of(l);
    int done = 0;

    BIO_clear_retry_flags(bio);
    l->holds_buffer = true;
    while (done < len) {
        size_t n = hd_min((size_t)(len - done), OUT_BYTES - w->out_end);

        memcpy(w->out + w->out_end, from + done, n);
        w->out_end += n;
        done += (int)n;
        if (done < len && hd_tls_push_out(l) == HD_ERROR)
            return -1;
    }
    return len;
}

hd_rc_t hd_tls_make_room(hd_tls_layer_t *l)
{
    if (l->out == NULL && work_of(l)->out_end + RECORD_ROOM <= OUT_BYTES)
        return HD_OK;
    return hd_tls_push_out(l);
}

char *hd_tls_plain_buffer(hd_tls_layer_t *l)
{
    return work_of(l)->plain;
}

void hd_tls_enter(hd_tls_layer_t *l)
{
    work_t *w;

    hd_bug_on(works_n == NESTED_MAX);
    w = &works[works_n++];
    w->layer = l;
    w->in_at = w->in_end = w->out_end = 0;
    w->below_drained = false;
}

bool hd_tls_is_drained(const hd_tls_layer_t *l)
{
    const work_t *w = work_of(l);

    return w->below_drained && w->in_at == w->in_end && l->in == NULL;
}

hd_rc_t hd_tls_leave(hd_tls_layer_t *l)
{
    work_t *w = work_of(l);
    hd_rc_t rc = hd_tls_push_out(l);

    /* The layer below is read only when nothing is left of before. */
    if (w->in_at < w->in_end)
        l->in = hd_tls_rest_create(w->in + w->in_at, w->in_end - w->in_at);
    w->layer = NULL;
    works_n--;
    return rc;
}

static long bio_ctrl(BIO *bio, int what, long n, void *p)
{
    (void)n;
    (void)p;
    switch (what) {
    case BIO_CTRL_FLUSH: /* by leave, once for all */
    case BIO_CTRL_DUP:
        return 1;
    case BIO_CTRL_EOF:
        return ((hd_tls_layer_t *)BIO_get_data(bio))->below_ended;
    default:
        return 0;
    }
}

static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "heddle layer");
    hd_bug_on(method == NULL);
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_ctrl(method, bio_ctrl);
}

BIO *hd_tls_bio_create(hd_tls_layer_t *l)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    hd_bug_on(pthread_once(&once, make_method) != 0);
    bio = BIO_new(method);
    hd_bug_on(bio == NULL);
    BIO_set_data(bio, l);
    BIO_set_init(bio, 1);
    return bio;
}
