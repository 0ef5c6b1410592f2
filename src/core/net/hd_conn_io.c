/* Reading, the output queue, and what goes through the layers in one flush. */
#include "core/net/hd_conn_int.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IOV_MAX_N 64
#define COPY_BELOW 1024 /* bytes that are copied rather than keep a block of 16 KB */
#define KB 1024u

/* Reading */

hd_chain_t *hd_conn_peeked(hd_conn_t *c)
{
    if (c->_in == NULL) {
        c->_in = hd_net_realloc(NULL, sizeof(*c->_in));
        hd_chain_init(c->_in);
    }
    return c->_in;
}

void hd_conn_free_peeked(hd_conn_t *c)
{
    if (c->_in == NULL)
        return;
    hd_chain_free(c->_in);
    free(c->_in);
    c->_in = NULL;
}

void hd_conn_drop_peeked(hd_conn_t *c, size_t len)
{
    if (c->_in == NULL)
        return;
    hd_chain_drop(c->_in, len);
    if (hd_chain_is_empty(c->_in))
        hd_conn_free_peeked(c);
}

static size_t take_peeked(hd_conn_t *c, void *to, size_t len)
{
    size_t n = hd_chain_peek(c->_in, to, len);

    hd_conn_drop_peeked(c, n);
    return n;
}

/* The end and errors are told once all bytes before them were taken. */
static ssize_t read_end(hd_conn_t *c, bool failed)
{
    c->is_readable = false;
    if (failed) {
        c->_flags |= HD_CF_READ_FAILED | HD_CF_TOLD;
        return HD_IO_ERROR;
    }
    c->peer_closing = c->peer_closed = true;
    return 0;
}

ssize_t hd_conn_read(hd_conn_t *c, void *to, size_t len)
{
    size_t got = 0;

    hd_assert(len > 0);
    if (c->state != HD_CONN_OPEN)
        return HD_IO_AGAIN;
    if (hd_unlikely(c->_in != NULL))
        got = take_peeked(c, to, len);
    if (hd_unlikely((c->_flags & (HD_CF_END_READ | HD_CF_READ_FAILED)) != 0) && got == 0)
        return read_end(c, (c->_flags & HD_CF_READ_FAILED) != 0);
    while (c->is_readable && got < len) {
        ssize_t n = c->top->ops->read(c->top, (char *)to + got, len - got);

        if (n > 0) {
            got += (size_t)n;
            /* Short: drained, unless the end is known to be there. Other layers may hold
             * more (the next record, the next frame) and are asked until they don't. */
            if (got < len && c->top->ops->reads_all && !c->peer_closing)
                c->is_readable = false;
            continue;
        }
        if (n == HD_IO_AGAIN) {
            c->is_readable = false;
            break;
        }
        if (got == 0)
            return read_end(c, n != 0);
        c->_flags |= n == 0 ? HD_CF_END_READ : HD_CF_READ_FAILED;
        break;
    }
    if (got == 0)
        return c->peer_closed ? 0 : HD_IO_AGAIN;
    c->bytes_in += got;
    return (ssize_t)got;
}

bool hd_conn_splices(const hd_conn_t *c)
{
    return c->state == HD_CONN_OPEN && c->_in == NULL && hd_conn_bare_fd(c) >= 0 &&
           (c->_flags & (HD_CF_END_READ | HD_CF_READ_FAILED)) == 0;
}

ssize_t hd_conn_read_pipe(hd_conn_t *c, hd_pipe_t *pipe, size_t max)
{
    ssize_t n = HD_IO_AGAIN;

    hd_assert(hd_conn_splices(c) && pipe->in == pipe->out);
    if ((c->_flags & HD_CF_DRAINED) == 0)
        n = hd_layer_socket_splice_in(c->top, pipe, hd_min(max, (size_t)HD_PIPE_BYTES));
    if (n > 0)
        c->bytes_in += (uint64_t)n;
    else if (n == HD_IO_AGAIN)
        c->is_readable = false;
    else
        return read_end(c, n != 0);
    return n;
}

static hd_str_t peeked(const hd_conn_t *c)
{
    const hd_slice_t *s = c->_in != NULL ? c->_in->first : NULL;

    return s != NULL ? hd_str_n(s->data, s->len) : HD_STR_NONE;
}

/* The room behind what was peeked, in its block; a new block if there is none yet. NULL:
 * block ceiling. */
static hd_block_t *peek_room(hd_conn_t *c, char **to, size_t *room)
{
    hd_slice_t *s = c->_in != NULL ? c->_in->last : NULL;
    hd_block_t *b;

    if (s != NULL) {
        hd_assert(s == c->_in->first && s->block != NULL);
        *to = s->block->data + (s->data + s->len - s->block->data);
        *room = (size_t)(s->block->data + HD_BLOCK_BYTES - *to);
        hd_block_ref(s->block);
        return s->block;
    }
    b = hd_block_try_take();
    if (b != NULL) {
        *to = b->data;
        *room = HD_BLOCK_BYTES;
    }
    return b;
}

hd_rc_t hd_conn_peek(hd_conn_t *c, hd_str_t *bytes)
{
    hd_block_t *b;
    size_t room = 0;
    char *to = NULL;
    ssize_t n;

    *bytes = peeked(c);
    if ((c->_flags & HD_CF_READ_FAILED) != 0)
        return HD_ERROR;
    if ((c->_flags & HD_CF_END_READ) != 0 || c->peer_closed)
        return HD_DONE;
    if (!c->is_readable || c->state != HD_CONN_OPEN)
        return HD_AGAIN;
    b = peek_room(c, &to, &room);
    if (b == NULL)
        return hd_conn_fail(c, HD_E_LIMIT, "no block left to read into");
    if (room == 0) {
        hd_block_unref(b);
        return hd_conn_fail(c, HD_E_LIMIT,
                            "more than %d bytes before a protocol was known",
                            HD_BLOCK_BYTES);
    }
    n = c->top->ops->read(c->top, to, room);
    if (n > 0)
        hd_chain_add(hd_conn_peeked(c), b, to, (size_t)n, 0);
    hd_block_unref(b);
    *bytes = peeked(c);
    if (n == HD_IO_AGAIN ||
        (n > 0 && (size_t)n < room && c->top->ops->reads_all && !c->peer_closing))
        c->is_readable = false;
    if (n > 0)
        return HD_OK;
    if (n == HD_IO_AGAIN)
        return HD_AGAIN;
    c->_flags |= n == 0 ? HD_CF_END_READ : HD_CF_READ_FAILED;
    return n == 0 ? HD_DONE : HD_ERROR;
}

void hd_conn_unread(hd_conn_t *c, hd_block_t *block, const char *data, size_t len)
{
    hd_chain_t *in = hd_conn_peeked(c), rest = *in;

    hd_chain_init(in);
    hd_chain_add(in, block, data, len, 0);
    hd_chain_move(in, &rest);
    c->is_readable = true;
    c->bytes_in -= hd_min(c->bytes_in, (uint64_t)len); /* will be counted again */
}

/* The queue */

bool hd_conn_sends_files(const hd_conn_t *c)
{
    return c->top == c->bottom && hd_layer_is_socket(c->top);
}

bool hd_conn_has_output(const hd_conn_t *c)
{
    return (c->out.first != NULL || (c->_flags & HD_CF_HOLDS) != 0 ||
            (c->_flags & (HD_CF_SHUT_WANTED | HD_CF_SHUT_DONE)) == HD_CF_SHUT_WANTED) &&
           (c->_flags & HD_CF_BROKEN) == 0;
}

static size_t high_bytes(const hd_conn_t *c)
{
    return (size_t)c->_high_kb * KB;
}

static size_t low_bytes(const hd_conn_t *c)
{
    return (size_t)c->_low_kb * KB;
}

bool hd_conn_may_tell_writable(const hd_conn_t *c)
{
    return (c->_flags & HD_CF_WANT_WRITABLE) != 0 && (c->_flags & HD_CF_HIGH) == 0 &&
           c->is_writable && c->out.bytes <= low_bytes(c);
}

void hd_conn_set_marks(hd_conn_t *c, size_t high, size_t low)
{
    c->_high_kb = (uint16_t)hd_min((high + KB - 1) / KB, (size_t)UINT16_MAX);
    c->_low_kb = (uint16_t)hd_min(low / KB, (size_t)c->_high_kb);
}

bool hd_conn_is_high(const hd_conn_t *c)
{
    return (c->_flags & HD_CF_HIGH) != 0;
}

void hd_conn_want_writable(hd_conn_t *c)
{
    c->_flags |= HD_CF_WANT_WRITABLE;
    if (hd_conn_may_tell_writable(c))
        hd_conn_tell_later(c, HD_TELL_WRITABLE);
}

static bool may_send(const hd_conn_t *c)
{
    return c->state <= HD_CONN_OPEN &&
           (c->_flags & (HD_CF_BROKEN | HD_CF_SHUT_WANTED)) == 0;
}

static void queue_grew(hd_conn_t *c)
{
    if (c->out.bytes >= high_bytes(c))
        c->_flags |= HD_CF_HIGH | HD_CF_WANT_WRITABLE;
    if (c->out.first != NULL && c->is_writable)
        hd_conn_set_list(c);
}

/* A few bytes behind others are copied to them: a peer that sends byte by byte to one
 * that doesn't read would otherwise make us keep a block for each. */
static bool try_append_small(hd_conn_t *c, const hd_chain_t *chain)
{
    char bytes[COPY_BELOW];
    size_t n = chain->bytes;

    if (n >= COPY_BELOW || n == 0 || c->out.first == NULL)
        return false;
    return hd_chain_peek(chain, bytes, n) == n &&
           hd_chain_try_add_copy(&c->out, bytes, n);
}

void hd_conn_send(hd_conn_t *c, hd_chain_t *chain)
{
    if (!may_send(c) || try_append_small(c, chain)) {
        hd_chain_free(chain);
    } else {
        /* The end of a message isn't the end of the stream: more may follow it. */
        for (hd_slice_t *s = chain->first; s != NULL; s = s->next)
            s->flags &= (uint8_t) ~(HD_SLICE_END | HD_SLICE_TRAILERS);
        hd_chain_move(&c->out, chain);
    }
    queue_grew(c);
}

bool hd_conn_try_send_copy(hd_conn_t *c, const char *data, size_t len)
{
    if (may_send(c) && !hd_chain_try_add_copy(&c->out, data, len))
        return false;
    queue_grew(c);
    return true;
}

void hd_conn_shutdown(hd_conn_t *c)
{
    if (!may_send(c))
        return;
    c->_flags |= HD_CF_SHUT_WANTED;
    if (c->is_writable)
        hd_conn_set_list(c);
}

void hd_conn_flush_later(hd_conn_t *c)
{
    c->_flags |= HD_CF_HOLDS;
    hd_conn_set_list(c);
}

/* Flushing */

static ssize_t read_piece(hd_slice_t *s, char *to, size_t want)
{
    ssize_t n;

    do
        n = s->kind == HD_SLICE_FILE ? pread(s->file->fd, to, want, s->offset)
                                     : read(s->pipe->fd[0], to, want);
    while (n < 0 && errno == EINTR);
    if (n > 0 && s->kind == HD_SLICE_PIPE)
        s->pipe->out += (size_t)n;
    return n;
}

/* The bytes of a file or a pipe for a stack that can't take those: the next piece becomes
 * memory. */
static hd_rc_t load_piece(hd_conn_t *c)
{
    hd_slice_t *s = c->out.first;
    size_t want = hd_min(s->len, (size_t)HD_BLOCK_BYTES);
    hd_block_t *b = hd_block_try_take();
    hd_chain_t head;
    ssize_t n;

    if (b == NULL)
        return hd_conn_fail(c, HD_E_LIMIT, "no block left for a file's bytes");
    n = read_piece(s, b->data, want);
    if (n <= 0) {
        hd_block_unref(b);
        return hd_conn_fail(c, HD_E_SYS, "reading a file or pipe: %s",
                            n < 0 ? strerror(errno) : "it has become shorter");
    }
    hd_chain_init(&head);
    hd_chain_add(&head, b, b->data, (size_t)n, 0);
    hd_block_unref(b);
    hd_chain_drop(&c->out, (size_t)n);
    hd_chain_move(&head, &c->out);
    c->out = head;
    return HD_OK;
}

static bool is_memory(const hd_slice_t *s)
{
    return s->kind == HD_SLICE_BLOCK || s->len == 0;
}

/* The first slice, of a file or a pipe, to a bare socket. */
static ssize_t write_kernels(hd_conn_t *c)
{
    const hd_slice_t *s = c->out.first;

    if (s->kind == HD_SLICE_FILE)
        return hd_layer_socket_sendfile(c->top, s->file->fd, s->offset, s->len);
    return hd_layer_socket_splice_out(c->top, s->pipe, s->len);
}

/* One system call's worth of the queue: bytes sent, HD_IO_…; *all: nothing of what was
 * offered is left. 0 and *all: there was nothing but flags. */
static ssize_t write_some(hd_conn_t *c, bool *all)
{
    struct iovec iov[IOV_MAX_N];
    size_t bytes = 0;
    ssize_t sent;
    bool bare = c->top == c->bottom;
    int n;

    if (bare && hd_layer_is_pipe(c->top)) {
        bytes = c->out.bytes;
        sent = hd_layer_pipe_move(c->top, &c->out);
        *all = sent == (ssize_t)bytes;
        return sent;
    }
    if (hd_unlikely(!is_memory(c->out.first))) {
        hd_bug_on(c->out.first->kind == HD_SLICE_PIPE &&
                  (uint64_t)c->out.first->offset != c->out.first->pipe->out);
        if (bare && hd_layer_is_socket(c->top)) {
            *all = true; /* less may be the file's end: the next call tells */
            return write_kernels(c);
        }
        if (load_piece(c) != HD_OK)
            return HD_IO_ERROR;
    }
    n = hd_chain_to_iov(&c->out, iov, IOV_MAX_N, &bytes);
    *all = true;
    if (n == 0) {
        hd_bug_on(bytes < c->out.bytes && c->out.first->len > 0); /* a kind of slice that
                                                                     nobody queues */
        return 0;
    }
    if (bare && hd_layer_is_socket(c->top))
        sent = hd_layer_socket_send(c->top, iov, n, bytes < c->out.bytes);
    else
        sent = c->top->ops->writev(c->top, iov, n);
    *all = sent == (ssize_t)bytes;
    return sent;
}

static hd_rc_t write_queue(hd_conn_t *c)
{
    bool moves = c->top == c->bottom && hd_layer_is_pipe(c->top);

    while (c->out.first != NULL) {
        bool all;
        ssize_t sent = write_some(c, &all);

        if (sent == HD_IO_ERROR)
            return HD_ERROR;
        if (sent > 0) {
            c->bytes_out += (uint64_t)sent;
            if (!moves)
                hd_chain_drop(&c->out, (size_t)sent);
        }
        hd_ignore(hd_chain_take_flags(&c->out) != 0); /* they mean nothing on a socket */
        if (sent == HD_IO_AGAIN || !all) {
            c->is_writable = false;
            return HD_AGAIN;
        }
    }
    return HD_OK;
}

static hd_rc_t flush_layers(hd_conn_t *c)
{
    hd_rc_t rc = HD_OK;

    for (hd_layer_t *l = c->top; l != NULL && rc == HD_OK; l = l->below) {
        if (l->ops->flush != NULL)
            rc = l->ops->flush(l);
    }
    if (rc == HD_AGAIN) {
        c->_flags |= HD_CF_HOLDS;
        c->is_writable = false;
    } else {
        c->_flags &= (uint16_t)~HD_CF_HOLDS;
    }
    return rc;
}

hd_rc_t hd_conn_shut_layers(hd_conn_t *c)
{
    for (hd_layer_t *l = c->top; l != NULL; l = l->below) {
        hd_rc_t rc = l->ops->shutdown(l);

        if (rc == HD_OK && l->ops->flush != NULL)
            rc = l->ops->flush(l);
        if (rc == HD_AGAIN) {
            c->_flags |= HD_CF_HOLDS;
            c->is_writable = false;
        }
        if (rc != HD_OK)
            return rc;
    }
    c->_flags |= HD_CF_SHUT_DONE;
    return HD_OK;
}

/* A write failed. What came from the peer before may still be read (RFC 9112 §9.5: an
 * answer before it closed), so its owner is asked to read first. */
static void break_output(hd_conn_t *c)
{
    (void)hd_conn_fail(c, HD_E_RESET, "writing failed");
    c->_flags |= HD_CF_BROKEN;
    c->_flags &= (uint16_t) ~(HD_CF_HIGH | HD_CF_WANT_WRITABLE | HD_CF_HOLDS);
    hd_chain_free(&c->out);
    if (c->state == HD_CONN_OPEN)
        hd_conn_post_bottom(c, HD_EV_READ | HD_EV_ERR);
    else if (c->state == HD_CONN_HANDSHAKE)
        hd_conn_tell_later(c, HD_TELL_CLOSED);
}

static hd_rc_t flush_all(hd_conn_t *c)
{
    hd_rc_t rc = HD_OK, layers;

    if (c->state == HD_CONN_OPEN || c->state == HD_CONN_CLOSING)
        rc = write_queue(c);
    if (rc == HD_ERROR)
        return HD_ERROR;
    if (c->top != c->bottom) {
        layers = flush_layers(c);
        if (layers != HD_OK)
            return layers;
    }
    if (rc == HD_OK && c->state != HD_CONN_HANDSHAKE &&
        (c->_flags & (HD_CF_SHUT_WANTED | HD_CF_SHUT_DONE)) == HD_CF_SHUT_WANTED)
        rc = hd_conn_shut_layers(c);
    return rc;
}

void hd_conn_flush(hd_conn_t *c)
{
    if (c->state == HD_CONN_CONNECTING || c->state == HD_CONN_CLOSED ||
        (c->_flags & HD_CF_BROKEN) != 0 || !c->is_writable)
        return;
    if (flush_all(c) == HD_ERROR) {
        break_output(c);
        return;
    }
    if (c->out.bytes <= low_bytes(c))
        c->_flags &= (uint16_t)~HD_CF_HIGH;
    if (hd_conn_may_tell_writable(c))
        hd_conn_tell_later(c, HD_TELL_WRITABLE);
}

size_t hd_conn_try_write(hd_conn_t *c, const char *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    ssize_t sent;

    if (c->out.first != NULL || c->state != HD_CONN_OPEN || !c->is_writable ||
        !may_send(c) || !hd_conn_sends_files(c))
        return 0;
    sent = hd_layer_socket_send(c->top, &iov, 1, false);
    if (sent == HD_IO_ERROR) {
        break_output(c);
        return len;
    }
    if (sent < (ssize_t)len)
        c->is_writable = false;
    if (sent <= 0)
        return 0;
    c->bytes_out += (uint64_t)sent;
    return (size_t)sent;
}
