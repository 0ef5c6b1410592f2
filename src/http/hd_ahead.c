#include "http/hd_ahead.h"
#include "http/hd_temp_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define COPY_BELOW 1024 /* bytes that are copied rather than keep a block of 16 KB */

hd_ahead_t *hd_ahead_create(hd_req_t *req, const hd_proxy_conf_t *conf)
{
    hd_ahead_t *a = hd_pool_new(req->pool, hd_ahead_t);

    a->req = req;
    a->conf = conf;
    return a;
}

/* --- in --- */

/* Of what was written all is gone: its room is used again. But what went by sendfile may
 * still wait in a socket, as pages of the file: it gets others then. A file that can't be
 * cut is written on. */
static void rewind_file(hd_ahead_t *a)
{
    if (a->file == NULL || a->file->refs > 1 || a->file_at == 0 ||
        (a->is_lent && ftruncate(a->file->fd, 0) != 0))
        return;
    a->file_at = 0;
    a->is_lent = false;
}

static bool has_file_room(const hd_ahead_t *a, size_t bytes)
{
    return !a->has_failed && a->conf->temp_file_max > 0 &&
           (uint64_t)a->file_at + bytes <= a->conf->temp_file_max;
}

bool hd_ahead_is_full(const hd_ahead_t *a)
{
    return a->memory_bytes + a->tail.bytes >= a->conf->buffer_bytes &&
           !has_file_room(a, a->tail.bytes + HD_BLOCK_BYTES);
}

static void add_memory(hd_ahead_t *a, hd_chain_t *body)
{
    char bytes[COPY_BELOW];
    size_t n = body->bytes;

    a->memory_bytes += n;
    if (n > 0 && n < COPY_BELOW && !hd_chain_is_empty(&a->chain) &&
        hd_chain_peek(body, bytes, n) == n &&
        hd_chain_try_add_copy(&a->chain, bytes, n)) {
        unsigned flags = hd_chain_flags(body);

        if (flags != 0)
            hd_chain_set_flags(&a->chain, flags);
        hd_chain_free(body);
        return;
    }
    hd_chain_move(&a->chain, body);
}

static void tail_to_memory(hd_ahead_t *a)
{
    a->memory_bytes += a->tail.bytes;
    hd_chain_move(&a->chain, &a->tail);
}

static bool open_file(hd_ahead_t *a, hd_err_t *err)
{
    int fd = hd_temp_file_open(a->req->pool, a->conf->temp_path, err);

    if (fd < 0)
        return false;
    a->file = hd_open_file_create(fd);
    return true;
}

/* The tail goes to the file, or, where that fails, stays in memory. */
static void write_tail(hd_ahead_t *a)
{
    hd_req_t *req = a->req;
    size_t n = a->tail.bytes;
    hd_err_t err = {0};

    if ((a->file != NULL || open_file(a, &err)) &&
        hd_temp_file_write(a->file->fd, a->file_at, &a->tail, &err) == HD_OK) {
        hd_chain_add_file(&a->chain, a->file, a->file_at, n, hd_chain_flags(&a->tail));
        a->file_at += (int64_t)n;
        hd_chain_free(&a->tail);
        return;
    }
    hd_req_log(req, HD_LOG_ERROR, "%s: a response is no longer read ahead of its client",
               err.text);
    a->has_failed = true;
    tail_to_memory(a);
}

void hd_ahead_add(hd_ahead_t *a, hd_chain_t *body)
{
    size_t n = body->bytes;
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;

    if (hd_chain_is_empty(&a->tail) &&
        (n == 0 || a->memory_bytes + n <= a->conf->buffer_bytes)) {
        add_memory(a, body);
        return;
    }
    rewind_file(a);
    if (!has_file_room(a, a->tail.bytes + n)) {
        tail_to_memory(a);
        add_memory(a, body);
        return;
    }
    hd_chain_move(&a->tail, body);
    if (a->tail.bytes > 0 && (is_last || a->tail.bytes >= a->conf->temp_write_bytes))
        write_tail(a);
}

/* --- out --- */

/* A piece of the file as memory. */
static hd_rc_t read_piece(hd_ahead_t *a, hd_chain_t *out)
{
    const hd_slice_t *s = a->chain.first;
    size_t want = hd_min(s->len, (size_t)HD_BLOCK_BYTES);
    hd_block_t *b = hd_block_try_take();
    hd_chain_t range;
    ssize_t n;

    if (b == NULL)
        return HD_AGAIN;
    do
        n = pread(s->file->fd, b->data, want, s->offset);
    while (n < 0 && errno == EINTR);
    if (n <= 0) {
        hd_block_unref(b);
        return hd_req_err(a->req, HD_E_SYS, "reading the response's temp file: %s",
                          n < 0 ? strerror(errno) : "it has become shorter");
    }
    hd_chain_init(&range);
    hd_chain_move_bytes(&range, &a->chain, (size_t)n);
    hd_chain_add(out, b, b->data, (size_t)n, hd_chain_flags(&range));
    hd_chain_free(&range);
    hd_block_unref(b);
    return HD_OK;
}

/* The next piece, with the flags that follow it. */
static hd_rc_t take_piece(hd_ahead_t *a, hd_chain_t *out)
{
    const hd_slice_t *s = a->chain.first;
    uint64_t max = a->req->loc->sendfile_max_chunk;
    size_t n = s->len;

    if (s->kind != HD_SLICE_FILE || s->len == 0) {
        a->memory_bytes -= n;
    } else if (!a->req->loc->sendfile || !hd_response_takes_files(a->req)) {
        return read_piece(a, out);
    } else {
        a->is_lent = true;
        if (max > 0)
            n = (size_t)hd_min((uint64_t)n, max);
    }
    hd_chain_move_bytes(out, &a->chain, n);
    return HD_OK;
}

hd_rc_t hd_ahead_give(hd_ahead_t *a)
{
    hd_req_t *req = a->req;

    while (!req->response_ended && !hd_ahead_is_empty(a) && !hd_response_is_full(req)) {
        hd_chain_t piece;
        hd_rc_t rc;

        if (hd_chain_is_empty(&a->chain))
            tail_to_memory(a);
        hd_chain_init(&piece);
        rc = take_piece(a, &piece);
        if (rc != HD_OK)
            return rc;
        hd_response_give_body(req, &piece);
    }
    return HD_OK;
}

void hd_ahead_free(hd_ahead_t *a)
{
    hd_chain_free(&a->chain);
    hd_chain_free(&a->tail);
    a->memory_bytes = 0;
    if (a->file != NULL)
        hd_open_file_unref(a->file);
    a->file = NULL;
    a->has_failed = true; /* nothing is kept any more */
}
