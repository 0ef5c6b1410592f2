/* The bottom of a conn that carries no bytes: a UDP client's addresses, facts and pool.
 */
#include "core/net/hd_conn_int.h"

static ssize_t read_none(hd_layer_t *l, void *to, size_t len)
{
    (void)l, (void)to, (void)len;
    return HD_IO_AGAIN;
}

static ssize_t write_none(hd_layer_t *l, const struct iovec *iov, int n)
{
    (void)l, (void)iov, (void)n;
    return HD_IO_AGAIN;
}

static hd_rc_t shutdown_none(hd_layer_t *l)
{
    (void)l;
    return HD_OK;
}

static void close_none(hd_layer_t *l, bool reset)
{
    (void)l, (void)reset;
}

static const hd_layer_ops_t none_ops = {.name = "none",
                                        .read = read_none,
                                        .writev = write_none,
                                        .shutdown = shutdown_none,
                                        .close = close_none};

hd_conn_t *hd_conn_create_bare(hd_loop_t *loop, const hd_addr_t *remote,
                               const hd_addr_t *local)
{
    hd_conn_t *c = hd_conn_set_take(loop);

    hd_conn_set_bottom(c, &((hd_conn_cell_t *)c)->socket.layer, &none_ops);
    c->state = HD_CONN_OPEN;
    c->remote = *remote;
    hd_conn_set_local(c, local);
    return c;
}
