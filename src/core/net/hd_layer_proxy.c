/* The PROXY layer of an upstream conn: its head goes before anything else does, a TLS
 * handshake too. It stays where it is afterwards, and passes everything on. */
#include "core/net/hd_conn_int.h"
#include "core/net/hd_proxy_protocol.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    hd_layer_t layer;
    size_t at, len; /* of the head, sent so far and all */
    char head[];
} hd_layer_proxy_t;

static hd_layer_proxy_t *proxy_of(hd_layer_t *l)
{
    return hd_container_of(l, hd_layer_proxy_t, layer);
}

/* HD_OK: the head is out. */
static hd_rc_t proxy_flush(hd_layer_t *l)
{
    hd_layer_proxy_t *p = proxy_of(l);

    while (p->at < p->len) {
        struct iovec iov = {p->head + p->at, p->len - p->at};
        ssize_t n = l->below->ops->writev(l->below, &iov, 1);

        if (n == HD_IO_ERROR)
            return HD_ERROR;
        if (n <= 0)
            return HD_AGAIN;
        p->at += (size_t)n;
    }
    return HD_OK;
}

static ssize_t proxy_read(hd_layer_t *l, void *to, size_t len)
{
    return l->below->ops->read(l->below, to, len);
}

static ssize_t proxy_writev(hd_layer_t *l, const struct iovec *iov, int n)
{
    hd_rc_t rc = proxy_flush(l);

    if (rc != HD_OK)
        return rc == HD_AGAIN ? HD_IO_AGAIN : HD_IO_ERROR;
    return l->below->ops->writev(l->below, iov, n);
}

static hd_rc_t proxy_shutdown(hd_layer_t *l)
{
    return proxy_flush(l);
}

static void proxy_close(hd_layer_t *l, bool reset)
{
    (void)reset;
    free(proxy_of(l));
}

static const hd_layer_ops_t proxy_ops = {
    .name = "proxy",
    .read = proxy_read,
    .writev = proxy_writev,
    .flush = proxy_flush,
    .shutdown = proxy_shutdown,
    .close = proxy_close,
};

hd_rc_t hd_proxy_push(hd_conn_t *c, uint8_t version, const hd_addr_t *remote,
                      const hd_addr_t *local, hd_str_t tlvs, hd_err_t *err)
{
    size_t room = 128 + tlvs.len; /* the longest line, or a head with two IPv6 */
    hd_layer_proxy_t *p = hd_net_realloc(NULL, sizeof(*p) + room);

    memset(p, 0, sizeof(*p));
    p->layer.ops = &proxy_ops;
    p->len = hd_proxy_print(version, remote, local, tlvs, p->head, room);
    if (p->len == 0) {
        free(p);
        return hd_err_set(err, HD_E_LIMIT, "PROXY head longer than %d bytes",
                          HD_PROXY_HEAD_MAX);
    }
    hd_conn_push(c, &p->layer);
    hd_conn_flush_later(c); /* even if the upstream is to speak first */
    return HD_OK;
}
