#include "http/hd_h2_tube.h"
#include "core/net/hd_hangup.h"
#include <stdlib.h>

#define PATIENCE_MS 3600000 /* the tunnel at the other end has times of its own */
#define BLOCKS_A_TURN 16

struct hd_h2_tube_s {
    hd_conn_t *conn; /* the stream's end */
    const hd_h2_tube_ops_t *ops;
    void *stream;
    bool ended; /* the tunnel's half is over */
};

static void break_off(hd_h2_tube_t *t)
{
    void *stream = t->stream;
    const hd_h2_tube_ops_t *ops = t->ops;

    hd_conn_reset(t->conn);
    free(t);
    ops->on_reset(stream);
}

static void send_end(hd_h2_tube_t *t)
{
    hd_chain_t end;

    t->ended = true;
    hd_chain_init(&end);
    hd_chain_set_flags(&end, HD_SLICE_END);
    t->ops->send(t->stream, &end);
    hd_chain_free(&end);
}

static void pass_bytes(hd_h2_tube_t *t)
{
    for (unsigned i = 0; i < BLOCKS_A_TURN; i++) {
        hd_block_t *block;
        hd_chain_t bytes;
        ssize_t n;

        if (t->ended || !t->conn->is_readable || t->ops->is_full(t->stream))
            return;
        if ((block = hd_block_try_take()) == NULL)
            break;
        n = hd_conn_read(t->conn, block->data, HD_BLOCK_BYTES);
        if (n > 0) {
            hd_chain_init(&bytes);
            hd_chain_add(&bytes, block, block->data, (size_t)n, 0);
            t->ops->send(t->stream, &bytes);
            hd_chain_free(&bytes);
        }
        hd_block_unref(block);
        if (n == 0) {
            send_end(t);
        } else if (n == HD_IO_ERROR) {
            break_off(t);
            return;
        } else if (n < 0) {
            return;
        }
    }
    hd_conn_yield(t->conn);
}

static void on_readable(hd_conn_t *c)
{
    pass_bytes(c->owner);
}

static void on_writable(hd_conn_t *c)
{
    hd_h2_tube_t *t = c->owner;

    t->ops->on_room(t->stream);
}

static void on_closed(hd_conn_t *c)
{
    break_off(c->owner);
}

static const hd_conn_handler_t handler = {
    .on_readable = on_readable, .on_writable = on_writable, .on_closed = on_closed};

hd_h2_tube_t *hd_h2_tube_open(hd_loop_t *loop, const hd_h2_tube_ops_t *ops, void *stream,
                              hd_conn_t **other, hd_err_t *err)
{
    hd_h2_tube_t *t;
    hd_conn_t *ends[2];

    if (hd_conn_create_pipe(loop, ends, err) != HD_OK)
        return NULL;
    t = calloc(1, sizeof(*t));
    hd_bug_on(t == NULL);
    t->conn = ends[0];
    t->ops = ops;
    t->stream = stream;
    hd_conn_set_handler(t->conn, &handler, t);
    *other = ends[1];
    return t;
}

void hd_h2_tube_give(hd_h2_tube_t *t, hd_chain_t *bytes)
{
    if (bytes->bytes > 0)
        hd_conn_send(t->conn, bytes);
    else
        hd_chain_free(bytes);
}

void hd_h2_tube_end(hd_h2_tube_t *t)
{
    hd_conn_shutdown(t->conn);
}

bool hd_h2_tube_is_full(const hd_h2_tube_t *t)
{
    return hd_conn_is_high(t->conn);
}

void hd_h2_tube_pull(hd_h2_tube_t *t)
{
    hd_conn_wake(t->conn);
}

void hd_h2_tube_close(hd_h2_tube_t *t, bool reset)
{
    if (reset)
        hd_conn_reset(t->conn);
    else
        hd_hangup(t->conn, PATIENCE_MS, (hd_linger_t){0});
    free(t);
}
