/* core/base/hd_buf: blocks, slices, chains. */
#include "core/base/hd_buf.h"
#include "core/base/hd_spare.h"
#include "tap.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

static char out[256 * 1024];

/* What the chain's memory holds, as a C string. */
static const char *text_of(const hd_chain_t *c)
{
    out[hd_chain_peek(c, out, sizeof(out) - 1)] = '\0';
    return out;
}

static int slices_n(const hd_chain_t *c)
{
    int n = 0;

    for (const hd_slice_t *s = c->first; s != NULL; s = s->next)
        n++;
    return n;
}

static void test_blocks(void)
{
    hd_block_t *a = hd_block_try_take(), *b;

    is_int(hd_blocks_in_use(), 1, "one block");
    hd_block_ref(a);
    hd_block_unref(a);
    is_int(hd_blocks_in_use(), 1, "still referenced");
    hd_block_unref(a);
    is_int(hd_blocks_in_use(), 0, "none");
    b = hd_block_try_take();
    ok(a == b, "last freed, first taken");
    hd_blocks_set_max(1);
    ok(hd_block_try_take() == NULL, "ceiling");
    hd_blocks_set_max(SIZE_MAX);
    hd_block_unref(b);
    hd_blocks_trim(0);
}

/* Between two looks two of three kept blocks were wanted: the third one goes. */
static void test_spare_blocks(void)
{
    const size_t a_block = sizeof(hd_block_t) + HD_BLOCK_BYTES;
    hd_block_t *b[3];

    for (int i = 0; i < 3; i++)
        b[i] = hd_block_try_take();
    for (int i = 0; i < 3; i++)
        hd_block_unref(b[i]);
    ok(hd_spares_trim() == 0, "what was wanted since the last look stays");
    b[0] = hd_block_try_take();
    b[1] = hd_block_try_take();
    hd_block_unref(b[1]);
    b[1] = hd_block_try_take();
    ok(hd_spares_trim() == a_block, "what nobody wanted goes");
    hd_block_unref(b[0]);
    hd_block_unref(b[1]);
    ok(hd_spares_trim() == 0, "those that are given back now aren't old yet");
    ok(hd_spares_trim() == 2 * a_block, "in the end all go");
    ok(hd_spares_trim() == 0 && hd_blocks_in_use() == 0, "and nothing is left");
}

static void test_add(void)
{
    hd_open_file_t *file = hd_open_file_create(dup(1));
    hd_block_t *b = hd_block_try_take();
    struct iovec iov[4];
    hd_chain_t c;
    size_t bytes;

    hd_chain_init(&c);
    memcpy(b->data, "GET / HTTP", 10);
    hd_chain_add(&c, b, b->data, 4, 0);
    hd_chain_add(&c, b, b->data + 4, 2, 0);
    is_int(slices_n(&c), 1, "neighbours are one slice");
    hd_chain_add(&c, b, b->data + 7, 3, 0);
    hd_chain_add(&c, NULL, "+static", 7, HD_SLICE_FLUSH);
    is_str(text_of(&c), "GET / TTP+static", "text");
    is_int(c.bytes, 16, "bytes");
    is_int(hd_chain_to_iov(&c, iov, 4, &bytes), 3, "three pieces");
    is_int(bytes, 16, "of all bytes");
    ok(iov[0].iov_base == b->data && iov[0].iov_len == 6, "bytes stay where they are");
    hd_chain_add_file(&c, file, 100, 50, 0);
    is_int(hd_chain_to_iov(&c, iov, 4, &bytes), 3, "stops before a file");
    is_int(hd_chain_flags(&c), HD_SLICE_FLUSH, "flags or-ed");
    hd_block_unref(b);
    is_int(hd_blocks_in_use(), 1, "slices hold the block");
    hd_chain_drop(&c, 16 + 20);
    is_int(hd_blocks_in_use(), 0, "dropped bytes let it go");
    ok(c.bytes == 30 && c.first->offset == 120 && c.first->file == file,
       "within the file");
    hd_chain_free(&c);
    ok(hd_chain_is_empty(&c) && c.bytes == 0);
    hd_open_file_unref(file);
}

/* Ranges of a file hold it, as slices hold blocks. */
static void test_files(void)
{
    int ends[2], dup_fd;
    hd_open_file_t *file;
    hd_chain_t c, d;
    char byte;

    ok(pipe(ends) == 0);
    file = hd_open_file_create(dup_fd = ends[0]);
    hd_chain_init(&c);
    hd_chain_init(&d);
    hd_chain_add_file(&c, file, 0, 100, 0);
    hd_chain_add_file(&c, file, 100, 50, 0);
    ok(slices_n(&c) == 1 && c.bytes == 150, "neighbours are one slice");
    hd_chain_add_file(&c, file, 200, 10, HD_SLICE_END);
    is_int(slices_n(&c), 2, "others aren't");
    hd_open_file_unref(file);
    is_int(hd_open_files_n(), 1, "slices hold the file");
    hd_chain_move_bytes(&d, &c, 70);
    ok(d.bytes == 70 && c.bytes == 90 && c.first->offset == 70, "a range is split");
    hd_chain_free(&c);
    hd_chain_share(&c, &d);
    hd_chain_free(&d);
    is_int(hd_open_files_n(), 1, "the last range still does");
    is_int(hd_chain_peek(&c, &byte, 1), 0, "no bytes to be had without reading");
    hd_chain_drop(&c, 70);
    is_int(hd_open_files_n(), 0, "with it goes the file");
    ok(read(dup_fd, &byte, 1) < 0 && errno == EBADF, "its descriptor is closed");
    hd_chain_init(&c);
    file = hd_open_file_create(dup(ends[1]));
    hd_chain_add_file(&c, file, 5, 0, HD_SLICE_END);
    ok(file->refs == 1 && hd_chain_flags(&c) == HD_SLICE_END,
       "an empty range is but flags");
    hd_chain_free(&c);
    hd_open_file_unref(file);
    close(ends[1]);
}

static void test_copy(void)
{
    static char big[3 * HD_BLOCK_BYTES];
    hd_chain_t c, replay;

    hd_chain_init(&c);
    hd_chain_init(&replay);
    ok(hd_chain_try_add_copy(&c, "ab", 2) && hd_chain_try_add_copy(&c, "cd", 2));
    ok(slices_n(&c) == 1 && hd_blocks_in_use() == 1, "copies fill the last block");
    hd_chain_share(&replay, &c);
    ok(hd_chain_try_add_copy(&c, "ef", 2) && hd_blocks_in_use() == 1,
       "behind a shared slice too");
    ok(hd_chain_try_add_copy(&replay, "XY", 2));
    is_str(text_of(&c), "abcdef", "one chain");
    is_str(text_of(&replay), "abcdXY", "and the other, apart");
    hd_chain_set_flags(&c, HD_SLICE_FLUSH);
    ok(hd_chain_try_add_copy(&c, "g", 1) && hd_blocks_in_use() == 2 && slices_n(&c) == 2,
       "after a flag: a slice of its own in the same block");
    hd_chain_free(&c);
    is_str(text_of(&replay), "abcdXY", "shared bytes live on");
    hd_chain_free(&replay);
    is_int(hd_blocks_in_use(), 0, "all back");

    memset(big, 'x', sizeof(big));
    hd_blocks_set_max(2);
    ok(!hd_chain_try_add_copy(&c, big, sizeof(big)) && hd_chain_is_empty(&c),
       "all or nothing at the ceiling");
    hd_blocks_set_max(3);
    ok(hd_chain_try_add_copy(&c, big, sizeof(big)) && c.bytes == sizeof(big));
    hd_blocks_set_max(SIZE_MAX);
    hd_chain_free(&c);
}

static void test_move(void)
{
    hd_chain_t c, to;

    hd_chain_init(&c);
    hd_chain_init(&to);
    ok(hd_chain_try_add_copy(&c, "abcdef", 6));
    hd_chain_set_flags(&c, HD_SLICE_END);
    hd_chain_move_bytes(&to, &c, 2);
    ok(hd_chain_flags(&to) == 0 && hd_chain_flags(&c) == HD_SLICE_END,
       "a split leaves the flag with the last byte");
    is_str(text_of(&to), "ab", "moved");
    is_str(text_of(&c), "cdef", "left");
    hd_chain_move_bytes(&to, &c, 4);
    ok(hd_chain_flags(&to) == HD_SLICE_END && hd_chain_is_empty(&c),
       "the flag came along");
    is_str(text_of(&to), "abcdef", "all moved");
    is_int(hd_blocks_in_use(), 1, "and nothing was copied");
    hd_chain_add(&c, NULL, "xy", 2, 0);
    hd_chain_move(&c, &to);
    ok(hd_chain_is_empty(&to) && c.bytes == 8);
    hd_chain_drop(&c, 8);
    ok(c.bytes == 0 && !hd_chain_is_empty(&c), "END is not lost by dropping its bytes");
    is_int(hd_blocks_in_use(), 1, "(its slice holds on to the block)");
    is_int(hd_chain_take_flags(&c), HD_SLICE_END, "taken at the end");
    ok(hd_chain_is_empty(&c) && hd_chain_take_flags(&c) == 0);
    is_int(hd_blocks_in_use(), 0, "all back");

    hd_chain_add(&c, NULL, "data", 4, HD_SLICE_FLUSH);
    hd_chain_set_flags(&to, HD_SLICE_END);
    hd_chain_move(&c, &to);
    is_int(hd_chain_take_flags(&c), 0, "bytes come first");
    hd_chain_move_bytes(&to, &c, 4);
    ok(hd_chain_is_empty(&c) && hd_chain_flags(&to) == (HD_SLICE_FLUSH | HD_SLICE_END),
       "empty slices behind the bytes move with them");
    hd_chain_drop(&to, 4);
    is_int(hd_chain_take_flags(&to), HD_SLICE_END, "FLUSH is done once its bytes are");
    hd_chain_free(&to);
}

/* Random steps on two chains against a plain model. */
static void test_against_model(void)
{
    static char model[2][256 * 1024], next = 'a';
    size_t len[2] = {0, 0};
    hd_chain_t c[2];
    uint32_t seed = 42;
    bool same = true;

    hd_chain_init(&c[0]);
    hd_chain_init(&c[1]);
    for (int step = 0; step < 5000 && same; step++) {
        char bytes[64];
        int w, o;
        size_t n;

        seed = seed * 1664525u + 1013904223u;
        w = seed >> 31;
        o = 1 - w;
        n = (seed >> 8) % sizeof(bytes);
        memset(bytes, next, sizeof(bytes));
        next = next == 'z' ? 'a' : next + 1;
        switch ((seed >> 20) % 6) {
        case 0:
        case 1:
            if (len[w] + n > 20000)
                break;
            same = hd_chain_try_add_copy(&c[w], bytes, n);
            memcpy(model[w] + len[w], bytes, n);
            len[w] += n;
            break;
        case 2:
            n = hd_min(n, len[w]);
            hd_chain_drop(&c[w], n);
            memmove(model[w], model[w] + n, len[w] - n);
            len[w] -= n;
            break;
        case 3:
            n = hd_min(n, len[w]);
            if (len[o] + n > 20000)
                break;
            hd_chain_move_bytes(&c[o], &c[w], n);
            memcpy(model[o] + len[o], model[w], n);
            len[o] += n;
            memmove(model[w], model[w] + n, len[w] - n);
            len[w] -= n;
            break;
        case 4:
            if (len[o] > 2000 || len[w] + len[o] > 20000)
                break;
            hd_chain_share(&c[w], &c[o]);
            memcpy(model[w] + len[w], model[o], len[o]);
            len[w] += len[o];
            break;
        default:
            hd_chain_set_flags(&c[w], HD_SLICE_FLUSH);
        }
        for (int i = 0; i < 2; i++)
            same = same && c[i].bytes == len[i] &&
                   hd_chain_peek(&c[i], out, sizeof(out)) == len[i] &&
                   memcmp(out, model[i], len[i]) == 0;
    }
    ok(same, "5000 random steps agree with a plain model");
    hd_chain_free(&c[0]);
    hd_chain_free(&c[1]);
    is_int(hd_blocks_in_use(), 0, "no block lost");
    hd_blocks_trim(0);
}

static void fill(hd_pipe_t *p, const char *text)
{
    ssize_t n = write(p->fd[1], text, strlen(text));

    p->in += n > 0 ? (uint64_t)n : 0;
}

static void test_pipes(void)
{
    hd_pipe_t *a = hd_pipe_try_take(), *b;
    hd_chain_t c, d;
    char bytes[8];

    ok(a != NULL && hd_pipes_in_use() == 1, "a pipe");
    fill(a, "abcdef");
    hd_chain_init(&c);
    hd_chain_init(&d);
    hd_chain_add_pipe(&c, a, 6, HD_SLICE_END);
    hd_pipe_unref(a);
    is_int(c.bytes, 6, "its bytes are the chain's");
    is_int(hd_chain_peek(&c, out, 6), 0, "and not seen");
    hd_chain_move_bytes(&d, &c, 2);
    ok(d.bytes == 2 && c.bytes == 4 && d.first->offset == 0 && c.first->offset == 2,
       "in two chains, each knows its place");
    is_int(read(a->fd[0], bytes, 2), 2, "the first are taken out");
    a->out += 2;
    hd_chain_free(&d);
    is_int(hd_pipes_in_use(), 1, "the other's remain");
    is_int(read(a->fd[0], bytes, 4), 4, "all are");
    a->out += 4;
    hd_chain_drop(&c, 4);
    is_int(hd_chain_take_flags(&c), HD_SLICE_END, "then comes the flag");
    is_int(hd_pipes_in_use(), 0, "none is in use");
    b = hd_pipe_try_take();
    ok(b == a && b->in == 0 && b->out == 0, "an empty one is used again");
    fill(b, "xyz");
    hd_chain_add_pipe(&c, b, 3, 0);
    hd_pipe_unref(b);
    hd_chain_free(&c);
    a = hd_pipe_try_take();
    ok(a != NULL && read(a->fd[0], bytes, 1) < 0 && errno == EAGAIN,
       "nothing that was left in one comes out of another");
    hd_pipe_unref(a);
    hd_pipes_set_max(0);
    ok(hd_pipe_try_take() == NULL, "ceiling");
    hd_pipes_set_max(SIZE_MAX);
    is_int(hd_pipes_in_use(), 0, "none");
    hd_ignore(hd_spares_trim() > 0); /* the first look notes how few were wanted */
    ok(hd_spares_trim() >= sizeof(hd_pipe_t), "spare ones are closed");
}

int main(void)
{
    test_blocks();
    test_spare_blocks();
    test_add();
    test_files();
    test_copy();
    test_move();
    test_against_model();
    test_pipes();
    return done_testing();
}
