/* Bytes that were peeked before a layer was pushed: they are read first by that layer
 * (a ClientHello that an inspector looked at), then this one takes itself out. */
#include "core/net/hd_conn_int.h"
#include <stdlib.h>

typedef struct {
    hd_layer_t layer;
    hd_chain_t bytes;
} hd_layer_replay_t;

static hd_layer_replay_t *replay_of(hd_layer_t *l)
{
    return hd_container_of(l, hd_layer_replay_t, layer);
}

static void destroy(hd_layer_t *l)
{
    hd_chain_free(&replay_of(l)->bytes);
    free(replay_of(l));
}

static void take_out(hd_layer_t *l)
{
    l->below->above = l->above;
    l->above->below = l->below;
    destroy(l);
}

static ssize_t replay_read(hd_layer_t *l, void *to, size_t len)
{
    hd_chain_t *bytes = &replay_of(l)->bytes;
    size_t n = hd_chain_peek(bytes, to, len);

    hd_chain_drop(bytes, n);
    if (bytes->bytes == 0 && l->above != NULL)
        take_out(l);
    return (ssize_t)n;
}

static ssize_t replay_writev(hd_layer_t *l, const struct iovec *iov, int n)
{
    return l->below->ops->writev(l->below, iov, n);
}

static hd_rc_t replay_shutdown(hd_layer_t *l)
{
    (void)l;
    return HD_OK;
}

static void replay_close(hd_layer_t *l, bool reset)
{
    (void)reset;
    destroy(l);
}

static const hd_layer_ops_t replay_ops = {
    .name = "replay",
    .read = replay_read,
    .writev = replay_writev,
    .shutdown = replay_shutdown,
    .close = replay_close,
};

hd_layer_t *hd_layer_replay_create(hd_chain_t *bytes)
{
    hd_layer_replay_t *r = hd_net_realloc(NULL, sizeof(*r));

    *r = (hd_layer_replay_t){.layer = {.ops = &replay_ops}};
    hd_chain_move(&r->bytes, bytes);
    return &r->layer;
}
