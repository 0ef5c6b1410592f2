#include "http/hd_h1_input.h"

#include <stdlib.h>

#define ROOM_MIN 1024 /* what is left of a block must be worth a system call */

void hd_h1_input_drop_block(hd_h1_input_t *in)
{
    if (in->block != NULL)
        hd_block_unref(in->block);
    in->block = NULL;
    in->from = in->to = 0;
    in->scan_from = 0;
}

static void drop_long(hd_h1_input_t *in)
{
    in->_long = NULL;
    in->_long_len = in->_long_room = 0;
}

void hd_h1_input_free(hd_h1_input_t *in)
{
    hd_h1_input_drop_block(in);
    free(in->_long);
    drop_long(in);
}

void hd_h1_input_skip_empty_lines(hd_h1_input_t *in)
{
    for (unsigned i = 0; i < 2 && in->_long == NULL && in->scan_from == 0; i++) {
        if (in->to - in->from < 2 || memcmp(in->block->data + in->from, "\r\n", 2) != 0)
            return;
        in->from += 2;
    }
}

/* --- receiving --- */

/* A head that doesn't fit into what is left of its block moves to the front of a fresh
 * one. */
static bool make_room(hd_h1_input_t *in)
{
    size_t rest = in->to - in->from;
    hd_block_t *fresh;

    if (in->block != NULL && rest == 0 && in->block->refs == 1) {
        in->from = in->to = 0;
        return true;
    }
    if (in->block != NULL && (size_t)HD_BLOCK_BYTES - in->to > ROOM_MIN)
        return true;
    fresh = hd_block_try_take();
    if (fresh == NULL)
        return false;
    if (rest > 0)
        memcpy(fresh->data, in->block->data + in->from, rest);
    if (in->block != NULL)
        hd_block_unref(in->block);
    in->block = fresh;
    in->from = 0;
    in->to = (uint32_t)rest;
    return true;
}

/* It fills its block: on in a buffer of its own. */
static void lengthen(hd_h1_input_t *in, size_t head_max)
{
    size_t scan_from = in->scan_from;

    in->_long_room = head_max + HD_BLOCK_BYTES;
    in->_long = malloc(in->_long_room);
    hd_bug_on(in->_long == NULL);
    in->_long_len = in->to - in->from;
    memcpy(in->_long, in->block->data + in->from, in->_long_len);
    hd_h1_input_drop_block(in);
    in->scan_from = scan_from;
}

static ssize_t receive_long(hd_h1_input_t *in, hd_conn_t *c)
{
    size_t room = hd_min(in->_long_room - in->_long_len, (size_t)HD_BLOCK_BYTES);
    ssize_t n = hd_conn_read(c, in->_long + in->_long_len, room);

    if (n > 0)
        in->_long_len += (size_t)n;
    return n;
}

ssize_t hd_h1_input_receive(hd_h1_input_t *in, hd_conn_t *c, size_t head_max)
{
    ssize_t n;

    if (hd_unlikely(head_max > 0 && in->_long == NULL && in->block != NULL &&
                    in->from == 0 && (size_t)HD_BLOCK_BYTES - in->to <= ROOM_MIN))
        lengthen(in, head_max);
    if (hd_unlikely(in->_long != NULL))
        return receive_long(in, c);
    if (!make_room(in))
        return HD_IO_ERROR;
    n = hd_conn_read(c, in->block->data + in->to, HD_BLOCK_BYTES - in->to);
    if (n > 0)
        in->to += (uint32_t)n;
    return n;
}

/* --- giving heads away --- */

/* What of a long head's buffer lies behind the head goes back into a block. */
static bool keep_rest(hd_h1_input_t *in, size_t used)
{
    size_t rest = in->_long_len - used;

    hd_h1_input_drop_block(in);
    if (rest == 0)
        return true;
    hd_bug_on(rest > HD_BLOCK_BYTES); /* each read took a block at most */
    in->block = hd_block_try_take();
    if (in->block == NULL)
        return false;
    memcpy(in->block->data, in->_long + used, rest);
    in->to = (uint32_t)rest;
    return true;
}

void hd_h1_input_hold_block(const hd_h1_input_t *in, hd_pool_t *pool)
{
    hd_block_ref(in->block);
    hd_pool_defer(pool, (void (*)(void *))hd_block_unref, in->block);
}

bool hd_h1_input_hold_head(hd_h1_input_t *in, hd_pool_t *pool, size_t used)
{
    bool good;

    if (hd_likely(in->_long == NULL)) {
        hd_h1_input_hold_block(in, pool);
        in->from += (uint32_t)used;
        return true;
    }
    good = keep_rest(in, used);
    hd_pool_defer(pool, free, in->_long);
    drop_long(in);
    return good;
}
