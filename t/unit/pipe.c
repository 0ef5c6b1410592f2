/* A pipe: two conns of one process. Bytes move without a copy; ends, resets and
 * back-pressure as with sockets. */
#include "nettest.h"

static hd_loop_t *loop;
static hd_err_t err;
static owner_t left, right;
static hd_conn_t *ends[2];

static void make(void)
{
    memset(&left, 0, sizeof(left));
    memset(&right, 0, sizeof(right));
    ok(hd_conn_create_pipe(loop, ends, &err) == HD_OK);
    hd_conn_set_handler(ends[0], &owner_handler, &left);
    hd_conn_set_handler(ends[1], &owner_handler, &right);
}

static void test_both_ways(void)
{
    make();
    right.read_all = true;
    ok(hd_conn_try_send_copy(ends[0], "ping", 4));
    turn_until(loop, right.got == 4);
    is_str(right.text, "ping");
    ok(hd_conn_bare_fd(ends[0]) == -1 && !ends[1]->is_readable);
    ok(hd_conn_try_send_copy(ends[1], "pong", 4));
    turn_until(loop, left.readables > 0);
    owner_read(ends[0], &left);
    is_str(left.text, "pong");

    ok(hd_conn_try_send_copy(ends[0], "end", 3));
    hd_conn_shutdown(ends[0]);
    turn_until(loop, right.ended);
    is_str(right.text, "pingend", "bytes come before the end");
    ok(ends[1]->peer_closed && right.closes == 0);
    left.read_all = true;
    ok(hd_conn_try_send_copy(ends[1], "half", 4), "the other half is open");
    turn_until(loop, left.got == 8);
    hd_conn_close(ends[1], 0);
    turn_until(loop, left.ended);
    hd_conn_close(ends[0], 0);
    hd_loop_turn(loop, 0);
    is_int(hd_conns_open(loop), 0);
}

static void test_no_copy(void)
{
    hd_block_t *b = hd_block_try_take();
    hd_chain_t chain;

    make();
    memset(b->data, 'z', HD_BLOCK_BYTES);
    hd_chain_init(&chain);
    hd_chain_add(&chain, b, b->data, HD_BLOCK_BYTES, 0);
    hd_block_unref(b);
    hd_conn_send(ends[0], &chain);
    turn_until(loop, right.readables > 0);
    is_int(hd_blocks_in_use(), 1, "the block itself has moved");
    owner_read(ends[1], &right);
    ok(right.got == HD_BLOCK_BYTES && hd_blocks_in_use() == 0);
    hd_conn_close(ends[0], 0);
    hd_conn_close(ends[1], 0);
    hd_loop_turn(loop, 0);
}

static void test_back_pressure(void)
{
    static char data[300000];
    uint32_t sum = 0;

    make();
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 7 + i / 255);
    ok(hd_conn_try_send_copy(ends[0], data, sizeof(data)));
    turn_some(loop);
    ok(!ends[0]->is_writable && ends[0]->out.bytes >= sizeof(data) - 65536 - 16384,
       "who isn't read must wait");
    ok(hd_conn_is_high(ends[0]) && left.writables == 0);
    right.read_n = 10000;
    while (right.got < sizeof(data)) {
        if (owner_read(ends[1], &right) == HD_IO_AGAIN)
            hd_loop_turn(loop, -1);
    }
    sum = add_sum(0, data, sizeof(data));
    ok(right.sum == sum, "all came, in order");
    turn_some(loop);
    ok(left.writables == 1 && !hd_conn_is_high(ends[0]), "and the writer was told");
    hd_conn_close(ends[0], 1000);
    hd_loop_turn(loop, 0);
    is_int(hd_conns_open(loop), 2, "one end lingers");
    hd_conn_close(ends[1], 0);
    turn_until(loop, hd_conns_open(loop) == 0);
    pass("until the other ends");
}

static void test_reset(void)
{
    make();
    ok(hd_conn_try_send_copy(ends[0], "lost", 4));
    hd_loop_turn(loop, 0);
    hd_conn_reset(ends[0]);
    turn_until(loop, right.closes > 0);
    ok(ends[1]->err->code == HD_E_RESET && right.closes == 1);
    is_int(owner_read(ends[1], &right), HD_IO_ERROR);
    hd_conn_close(ends[1], 0);
    hd_loop_turn(loop, 0);

    make();
    hd_conn_close(ends[1], 0);
    ok(hd_conn_try_send_copy(ends[0], "to nobody", 9));
    turn_until(loop, left.closes > 0);
    pass("writing to an end that was closed is a reset");
    hd_conn_close(ends[0], 0);
    hd_loop_turn(loop, 0);
    is_int(hd_conns_open(loop), 0);
}

int main(void)
{
    alarm(HANG_S);
    loop = hd_loop_create(NULL, 100, &err);
    test_both_ways();
    test_no_copy();
    test_back_pressure();
    test_reset();
    make(); /* the loop's end ends them */
    hd_loop_destroy(loop);
    is_int(hd_blocks_in_use(), 0);
    return done_testing();
}
