#include "core/base/hd_buf.h"
#include "core/base/hd_asan.h"
#include "core/base/hd_log.h"
#include "core/base/hd_spare.h"
#include <stdlib.h>
#include <unistd.h>

#define SLAB_SLICES 64

/* Per thread, so that a worker run as a thread (TSan, master_process off) has its own. */
static _Thread_local hd_block_t *free_blocks; /* newest first: its bytes are in cache */
static _Thread_local size_t free_blocks_n, used_blocks_n;
static _Thread_local size_t free_blocks_low; /* the least since spares were trimmed */
static _Thread_local size_t blocks_max = SIZE_MAX;
static _Thread_local size_t fail_in; /* blocks_max being 0: after so many one fails */
static _Thread_local bool fails_for_ever, have_failed;
static _Thread_local hd_slice_t *free_slices;
static _Thread_local size_t open_files_n;

static void *take_memory(size_t bytes)
{
    void *p = malloc(bytes);

    if (hd_unlikely(p == NULL)) {
        hd_log(HD_LOG_EMERG, "out of memory (%zu bytes)", bytes);
        abort();
    }
    return p;
}

/* Blocks */

/* At the ceiling, or where a test counts. */
static bool is_refused(void)
{
    if (fail_in > 1) {
        fail_in--;
        return false;
    }
    if (fail_in == 1 && !fails_for_ever) {
        fail_in = 0;
        blocks_max = SIZE_MAX;
    }
    have_failed = true;
    return true;
}

hd_block_t *hd_block_try_take(void)
{
    hd_block_t *b = free_blocks;

    if (hd_unlikely(used_blocks_n >= blocks_max) && is_refused())
        return NULL;
    used_blocks_n++;
    if (hd_likely(b != NULL)) {
        free_blocks = b->_next;
        free_blocks_n--;
        free_blocks_low = hd_min(free_blocks_low, free_blocks_n);
        hd_asan_unpoison(b->data, HD_BLOCK_BYTES);
    } else {
        b = take_memory(sizeof(*b) + HD_BLOCK_BYTES);
        b->_room = HD_BLOCK_BYTES;
    }
    b->refs = 1;
    b->_next = NULL;
    return b;
}

void hd_block_ref(hd_block_t *b)
{
    hd_assert(b->refs > 0);
    b->refs++;
}

void hd_block_unref(hd_block_t *b)
{
    hd_assert(b->refs > 0);
    if (--b->refs > 0)
        return;
    hd_asan_poison(b->data, HD_BLOCK_BYTES);
    b->_next = free_blocks;
    free_blocks = b;
    free_blocks_n++;
    used_blocks_n--;
}

size_t hd_blocks_in_use(void)
{
    return used_blocks_n;
}

void hd_blocks_set_max(size_t blocks)
{
    blocks_max = blocks;
    fail_in = 0;
}

void hd_blocks_fail_at(size_t n, bool for_ever)
{
    blocks_max = n > 0 ? 0 : SIZE_MAX;
    fail_in = n;
    fails_for_ever = for_ever;
    have_failed = false;
}

bool hd_blocks_have_failed(void)
{
    return have_failed;
}

void hd_blocks_trim(size_t keep)
{
    while (free_blocks_n > keep) {
        hd_block_t *b = free_blocks;

        free_blocks = b->_next;
        free_blocks_n--;
        hd_asan_unpoison(b->data, HD_BLOCK_BYTES);
        free(b);
    }
}

static size_t trim_spare(void)
{
    size_t n = hd_min(free_blocks_low, free_blocks_n);

    hd_blocks_trim(free_blocks_n - n);
    free_blocks_low = free_blocks_n;
    return n * (sizeof(hd_block_t) + HD_BLOCK_BYTES);
}

static hd_spare_t spare = {.trim = trim_spare};

__attribute__((constructor)) static void register_spare(void)
{
    hd_spare_register(&spare);
}

/* Files */

hd_open_file_t *hd_open_file_create(int fd)
{
    hd_open_file_t *f = take_memory(sizeof(*f));

    *f = (hd_open_file_t){.refs = 1, .fd = fd};
    open_files_n++;
    return f;
}

void hd_open_file_ref(hd_open_file_t *f)
{
    hd_assert(f->refs > 0);
    f->refs++;
}

/* Out of line: slices of memory are far more often freed. */
__attribute__((noinline)) void hd_open_file_unref(hd_open_file_t *f)
{
    hd_assert(f->refs > 0);
    if (--f->refs > 0)
        return;
    hd_ignore(close(f->fd)); /* read, or of no more use: nothing to lose */
    free(f);
    open_files_n--;
}

size_t hd_open_files_n(void)
{
    return open_files_n;
}

/* Slices */

static void give_slice(hd_slice_t *s)
{
    s->next = free_slices;
    free_slices = s;
    hd_asan_poison(&s->block, sizeof(*s) - offsetof(hd_slice_t, block));
}

/* Slabs are never given back: slices are few, and where one lies they come again. */
static void add_slab(void)
{
    hd_slice_t *slab = take_memory(sizeof(hd_slice_t) * SLAB_SLICES);

    for (size_t i = SLAB_SLICES; i-- > 0;)
        give_slice(&slab[i]);
}

static hd_slice_t *take_slice(hd_chain_t *c)
{
    hd_slice_t *s;

    if (hd_unlikely(free_slices == NULL))
        add_slab();
    s = free_slices;
    free_slices = s->next;
    hd_asan_unpoison(s, sizeof(*s));
    *s = (hd_slice_t){.kind = HD_SLICE_BLOCK};
    if (c->last != NULL)
        c->last->next = s;
    else
        c->first = s;
    c->last = s;
    return s;
}

/* A copy of a slice has references of its own. */
static void ref_slice(const hd_slice_t *s)
{
    if (s->block != NULL)
        hd_block_ref(s->block);
    else if (s->kind == HD_SLICE_FILE)
        hd_open_file_ref(s->file);
    else if (s->kind == HD_SLICE_PIPE)
        hd_pipe_ref(s->pipe);
}

static void free_slice(hd_slice_t *s)
{
    if (hd_likely(s->block != NULL))
        hd_block_unref(s->block);
    else if (hd_unlikely(s->kind == HD_SLICE_FILE))
        hd_open_file_unref(s->file);
    else if (hd_unlikely(s->kind == HD_SLICE_PIPE))
        hd_pipe_unref(s->pipe);
    give_slice(s);
}

static void drop_first(hd_chain_t *c)
{
    hd_slice_t *s = c->first;

    c->first = s->next;
    if (c->first == NULL)
        c->last = NULL;
    free_slice(s);
}

/* The first <n> bytes of <s> are gone. */
static void advance(hd_slice_t *s, size_t n)
{
    if (n == 0)
        return;
    s->len -= n;
    if (s->kind == HD_SLICE_BLOCK)
        s->data += n;
    else
        s->offset += (int64_t)n;
}

/* Chains */

void hd_chain_add(hd_chain_t *c, hd_block_t *block, const char *data, size_t len,
                  unsigned flags)
{
    hd_slice_t *s = c->last;

    hd_assert(block == NULL || (data >= block->data && len <= block->_room &&
                                data + len <= block->data + block->_room));
    if (len == 0) {
        if (flags != 0)
            hd_chain_set_flags(c, flags);
        return;
    }
    c->bytes += len;
    if (s != NULL && block != NULL && s->block == block && s->flags == 0 &&
        s->data + s->len == data) { /* received right behind it: one slice */
        s->len += len;
        s->flags = (uint8_t)flags;
        s->_owns_tail = false;
        return;
    }
    s = take_slice(c);
    s->kind = HD_SLICE_BLOCK;
    s->block = block;
    s->data = data;
    s->len = len;
    s->flags = (uint8_t)flags;
    if (block != NULL)
        hd_block_ref(block);
}

/* Where the next copied byte may go: the room behind the last slice if nobody else can
 * claim it. */
static size_t tail_room(const hd_chain_t *c)
{
    const hd_slice_t *s = c->last;

    if (s == NULL || s->kind != HD_SLICE_BLOCK || s->block == NULL)
        return 0;
    if (!s->_owns_tail && s->block->refs != 1)
        return 0;
    return (size_t)(s->block->data + s->block->_room - (s->data + s->len));
}

static void fill_tail(hd_chain_t *c, const char *data, size_t n)
{
    hd_slice_t *s = c->last;
    char *to = s->block->data + (s->data + s->len - s->block->data);

    memcpy(to, data, n);
    c->bytes += n;
    if (s->flags == 0) {
        s->len += n;
        s->_owns_tail = true;
        return;
    }
    s->_owns_tail =
        false; /* flags take effect before these bytes: a slice of their own */
    hd_block_ref(s->block);
    take_slice(c);
    c->last->block = s->block;
    c->last->data = to;
    c->last->len = n;
    c->last->_owns_tail = true;
}

bool hd_chain_try_add_copy(hd_chain_t *c, const char *data, size_t len)
{
    size_t room = tail_room(c);
    size_t rest = len > room ? len - room : 0;
    size_t blocks = (rest + HD_BLOCK_BYTES - 1) / HD_BLOCK_BYTES;
    size_t n = hd_min(len, room);

    if (blocks > 0 &&
        (used_blocks_n >= blocks_max || blocks > blocks_max - used_blocks_n))
        return false;
    if (n > 0)
        fill_tail(c, data, n);
    for (data += n; rest > 0; data += n, rest -= n) {
        hd_slice_t *s = take_slice(c);

        n = hd_min(rest, (size_t)HD_BLOCK_BYTES);
        s->block = hd_block_try_take();
        hd_bug_on(s->block == NULL); /* counted above */
        memcpy(s->block->data, data, n);
        s->data = s->block->data;
        s->len = n;
        s->_owns_tail = true;
        c->bytes += n;
    }
    return true;
}

void hd_chain_add_file(hd_chain_t *c, hd_open_file_t *file, int64_t offset, size_t len,
                       unsigned flags)
{
    hd_slice_t *s = c->last;

    if (len == 0) {
        if (flags != 0)
            hd_chain_set_flags(c, flags);
        return;
    }
    c->bytes += len;
    if (s != NULL && s->kind == HD_SLICE_FILE && s->file == file && s->flags == 0 &&
        s->offset + (int64_t)s->len == offset) { /* written right behind it: one slice */
        s->len += len;
        s->flags = (uint8_t)flags;
        return;
    }
    hd_open_file_ref(file);
    s = take_slice(c);
    s->kind = HD_SLICE_FILE;
    s->file = file;
    s->offset = offset;
    s->len = len;
    s->flags = (uint8_t)flags;
}

void hd_chain_add_pipe(hd_chain_t *c, hd_pipe_t *pipe, size_t len, unsigned flags)
{
    hd_slice_t *s;

    hd_assert(len > 0 && len <= pipe->in - pipe->out);
    c->bytes += len;
    hd_pipe_ref(pipe);
    s = take_slice(c);
    s->kind = HD_SLICE_PIPE;
    s->pipe = pipe;
    s->offset = (int64_t)(pipe->in - len);
    s->len = len;
    s->flags = (uint8_t)flags;
}

void hd_chain_set_flags(hd_chain_t *c, unsigned flags)
{
    if (c->last == NULL)
        take_slice(c);
    c->last->flags |= (uint8_t)flags;
}

unsigned hd_chain_flags(const hd_chain_t *c)
{
    unsigned flags = 0;

    for (const hd_slice_t *s = c->first; s != NULL; s = s->next)
        flags |= s->flags;
    return flags;
}

unsigned hd_chain_take_flags(hd_chain_t *c)
{
    unsigned flags = 0;

    while (c->first != NULL && c->first->len == 0) {
        flags |= c->first->flags;
        drop_first(c);
    }
    return flags;
}

void hd_chain_move(hd_chain_t *to, hd_chain_t *from)
{
    if (from->first == NULL)
        return;
    if (to->last != NULL)
        to->last->next = from->first;
    else
        to->first = from->first;
    to->last = from->last;
    to->bytes += from->bytes;
    hd_chain_init(from);
}

static void move_first(hd_chain_t *to, hd_chain_t *from)
{
    hd_slice_t *s = from->first;

    from->first = s->next;
    if (from->first == NULL)
        from->last = NULL;
    from->bytes -= s->len;
    s->next = NULL;
    if (to->last != NULL)
        to->last->next = s;
    else
        to->first = s;
    to->last = s;
    to->bytes += s->len;
}

void hd_chain_move_bytes(hd_chain_t *to, hd_chain_t *from, size_t len)
{
    hd_slice_t *s, *part;

    hd_assert(len <= from->bytes);
    while ((s = from->first) != NULL && s->len <= len) { /* empty ones that follow too */
        len -= s->len;
        move_first(to, from);
    }
    if (len == 0 || s == NULL)
        return;
    part = take_slice(to);
    *part = *s;
    part->next = NULL;
    part->len = len;
    part->flags = 0;
    part->_owns_tail = false;
    ref_slice(part);
    to->bytes += len;
    from->bytes -= len;
    advance(s, len);
    /* <s> may have looked like its block's only user; its tail is still free. */
    if (s->kind == HD_SLICE_BLOCK && s->block != NULL && s->block->refs == 2)
        s->_owns_tail = true;
}

void hd_chain_share(hd_chain_t *to, const hd_chain_t *from)
{
    for (const hd_slice_t *s = from->first; s != NULL; s = s->next) {
        hd_slice_t *copy = take_slice(to);

        hd_bug_on(s->kind == HD_SLICE_PIPE); /* comes out once */
        *copy = *s;
        copy->next = NULL;
        copy->_owns_tail = false;
        ref_slice(copy);
    }
    to->bytes += from->bytes;
}

void hd_chain_drop(hd_chain_t *c, size_t len)
{
    hd_slice_t *s;

    hd_assert(len <= c->bytes);
    len = hd_min(len, c->bytes);
    c->bytes -= len;
    while ((s = c->first) != NULL) {
        if (s->len > len) {
            advance(s, len);
            return;
        }
        len -= s->len;
        if ((s->flags & (HD_SLICE_END | HD_SLICE_TRAILERS)) != 0) {
            advance(s, s->len);
            if (len == 0)
                return;
            hd_assert(false); /* bytes behind the end of a body */
        }
        drop_first(c);
    }
}

void hd_chain_free_slices(hd_chain_t *c)
{
    while (c->first != NULL)
        drop_first(c);
    c->bytes = 0;
}

int hd_chain_to_iov(const hd_chain_t *c, struct iovec *iov, int max, size_t *bytes)
{
    int n = 0;

    *bytes = 0;
    for (const hd_slice_t *s = c->first; s != NULL && n < max; s = s->next) {
        if (s->len == 0)
            continue;
        if (s->kind != HD_SLICE_BLOCK)
            break;
        iov[n++] =
            (struct iovec){.iov_base = (void *)(uintptr_t)s->data, .iov_len = s->len};
        *bytes += s->len;
    }
    return n;
}

size_t hd_chain_peek(const hd_chain_t *c, void *out, size_t len)
{
    size_t at = 0;

    for (const hd_slice_t *s = c->first; s != NULL && at < len; s = s->next) {
        size_t n = hd_min(s->len, len - at);

        if (n == 0)
            continue;
        if (s->kind != HD_SLICE_BLOCK)
            break;
        memcpy((char *)out + at, s->data, n);
        at += n;
    }
    return at;
}
