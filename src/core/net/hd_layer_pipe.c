/* The bottom layer of a conn whose peer is another conn of this process: internal
 * listeners, HBONE hops. What one end sends moves to the other's inbox without a copy. */
#include "core/net/hd_conn_int.h"
#include <stdlib.h>
#include <string.h>

#define INBOX_BYTES 65536 /* unread bytes of one end; beyond it the other waits */

typedef struct hd_layer_pipe_s {
    hd_layer_t layer;
    struct hd_layer_pipe_s *peer; /* NULL: closed */
    hd_chain_t inbox;
    bool was_full;  /* the peer waits for room */
    bool has_ended; /* the peer sends no more */
    bool was_reset;
} hd_layer_pipe_t;

static const hd_layer_ops_t pipe_ops;

static hd_layer_pipe_t *pipe_of(hd_layer_t *l)
{
    return hd_container_of(l, hd_layer_pipe_t, layer);
}

bool hd_layer_is_pipe(const hd_layer_t *l)
{
    return l->ops == &pipe_ops;
}

static void tell(hd_layer_pipe_t *p, unsigned events)
{
    if ((events & (HD_EV_READ | HD_EV_HUP | HD_EV_ERR)) != 0)
        p->layer.conn->_flags &= (uint16_t)~HD_CF_DRAINED;
    hd_conn_post_bottom(p->layer.conn, events);
}

static ssize_t pipe_read(hd_layer_t *l, void *to, size_t len)
{
    hd_layer_pipe_t *p = pipe_of(l);
    size_t n;

    if (p->was_reset) {
        (void)hd_conn_fail(l->conn, HD_E_RESET, "the other end was reset");
        return HD_IO_ERROR;
    }
    n = hd_chain_peek(&p->inbox, to, len);
    hd_chain_drop(&p->inbox, n);
    if (p->was_full && p->inbox.bytes <= INBOX_BYTES / 2 && p->peer != NULL) {
        p->was_full = false;
        tell(p->peer, HD_EV_WRITE);
    }
    if (n == 0)
        return p->has_ended ? 0 : HD_IO_AGAIN;
    if (p->inbox.bytes == 0 && !p->has_ended)
        l->conn->_flags |= HD_CF_DRAINED;
    return (ssize_t)n;
}

static ssize_t fail_write(hd_layer_t *l)
{
    (void)hd_conn_fail(l->conn, HD_E_RESET, "the other end is closed");
    return HD_IO_ERROR;
}

/* How many of <want> bytes the peer's inbox takes now. */
static size_t room_for(hd_layer_pipe_t *p, size_t want)
{
    size_t used = hd_min(p->peer->inbox.bytes, (size_t)INBOX_BYTES);

    if (want <= INBOX_BYTES - used)
        return want;
    p->peer->was_full = true;
    return INBOX_BYTES - used;
}

ssize_t hd_layer_pipe_move(hd_layer_t *l, hd_chain_t *out)
{
    hd_layer_pipe_t *p = pipe_of(l);
    size_t n;

    if (p->peer == NULL)
        return fail_write(l);
    n = room_for(p, out->bytes);
    if (n == 0 && out->bytes > 0)
        return HD_IO_AGAIN;
    hd_chain_move_bytes(&p->peer->inbox, out, n);
    tell(p->peer, HD_EV_READ);
    return (ssize_t)n;
}

static ssize_t pipe_writev(hd_layer_t *l, const struct iovec *iov, int n)
{
    hd_layer_pipe_t *p = pipe_of(l);
    size_t sent = 0;

    if (p->peer == NULL)
        return fail_write(l);
    for (int i = 0; i < n; i++) {
        size_t len = room_for(p, iov[i].iov_len);

        if (len > 0 && !hd_chain_try_add_copy(&p->peer->inbox, iov[i].iov_base, len)) {
            if (sent > 0) {
                p->peer->was_full = true; /* what it has goes: then we are told */
                break;
            }
            (void)hd_conn_fail(l->conn, HD_E_LIMIT, "no block left for a pipe");
            return HD_IO_ERROR;
        }
        sent += len;
        if (len < iov[i].iov_len)
            break;
    }
    if (sent == 0)
        return HD_IO_AGAIN;
    tell(p->peer, HD_EV_READ);
    return (ssize_t)sent;
}

static void end_peer(hd_layer_pipe_t *p, bool reset)
{
    if (p->peer == NULL)
        return;
    if (reset && !p->peer->has_ended) {
        p->peer->was_reset = true;
        hd_chain_free(&p->peer->inbox);
    }
    p->peer->has_ended = true;
    tell(p->peer, HD_EV_READ | HD_EV_HUP | (p->peer->was_reset ? HD_EV_ERR : 0));
}

static hd_rc_t pipe_shutdown(hd_layer_t *l)
{
    end_peer(pipe_of(l), false);
    return HD_OK;
}

static void pipe_close(hd_layer_t *l, bool reset)
{
    hd_layer_pipe_t *p = pipe_of(l);

    end_peer(p, reset);
    if (p->peer != NULL) {
        p->peer->peer = NULL;
        tell(p->peer, HD_EV_WRITE); /* if it waits for room: its next write fails */
    }
    hd_chain_free(&p->inbox);
    free(p);
}

static const hd_layer_ops_t pipe_ops = {
    .name = "pipe",
    .reads_all = true,
    .read = pipe_read,
    .writev = pipe_writev,
    .shutdown = pipe_shutdown,
    .close = pipe_close,
};

hd_rc_t hd_conn_create_pipe(hd_loop_t *loop, hd_conn_t *ends[2], hd_err_t *err)
{
    hd_layer_pipe_t *p[2];

    (void)err; /* memory is all it needs */
    for (int i = 0; i < 2; i++) {
        p[i] = hd_net_realloc(NULL, sizeof(*p[i]));
        memset(p[i], 0, sizeof(*p[i]));
        ends[i] = hd_conn_set_take(loop);
        hd_conn_set_bottom(ends[i], &p[i]->layer, &pipe_ops);
        ends[i]->state = HD_CONN_OPEN;
        ends[i]->is_writable = true;
        ends[i]->_flags = HD_CF_DRAINED;
    }
    p[0]->peer = p[1];
    p[1]->peer = p[0];
    return HD_OK;
}
