#include "core/proc/hd_files.h"
#include "core/base/hd_map.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES 16384
#define FLUSH_MS 1000

struct hd_file_s {
    char *path;
    int fd;
    size_t n;
    char *buffer; /* made at the first buffered line */
    hd_file_t *next;
};

static hd_file_t *files;
static hd_loop_t *flush_loop;
static hd_timer_t flush_timer;
static uint64_t dropped;

hd_file_t *hd_file_get(hd_str_t path)
{
    for (hd_file_t *f = files; f != NULL; f = f->next)
        if (hd_str_eq(hd_str_c(f->path), path))
            return f;
    return NULL;
}

/* Whole or not at all, as far as the system lets us: what can't be written now is lost.
 */
static void write_all(hd_file_t *f, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(f->fd, bytes, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            for (size_t i = 0; i < n; i++)
                dropped += bytes[i] == '\n';
            return;
        }
        bytes += done;
        n -= (size_t)done;
    }
}

static void flush(hd_file_t *f)
{
    if (f->n > 0)
        write_all(f, f->buffer, f->n);
    f->n = 0;
}

hd_file_t *hd_file_put(hd_str_t path, int fd)
{
    hd_file_t *f = hd_file_get(path);

    if (f != NULL) {
        flush(f); /* what was said before the reopen belongs to the old file */
        hd_ignore(close(f->fd)); /* written without delay; nothing is told here */
        f->fd = fd;
        return f;
    }
    f = calloc(1, sizeof(*f));
    hd_bug_on(f == NULL);
    f->path = strndup(path.data, path.len);
    hd_bug_on(f->path == NULL);
    f->fd = fd;
    f->next = files;
    files = f;
    return f;
}

void hd_file_write(hd_file_t *f, hd_str_t line, bool buffered)
{
    if (!buffered || line.len > BUFFER_BYTES) {
        flush(f); /* lines stay in order */
        write_all(f, line.data, line.len);
        return;
    }
    if (f->buffer == NULL) {
        f->buffer = malloc(BUFFER_BYTES);
        hd_bug_on(f->buffer == NULL);
    }
    if (f->n + line.len > BUFFER_BYTES)
        flush(f);
    memcpy(f->buffer + f->n, line.data, line.len);
    f->n += line.len;
    if (flush_loop != NULL && !hd_timer_is_set(&flush_timer))
        hd_timer_set(flush_loop, &flush_timer, FLUSH_MS);
}

void hd_files_flush(void)
{
    for (hd_file_t *f = files; f != NULL; f = f->next)
        flush(f);
}

static void on_flush_due(hd_timer_t *t)
{
    (void)t;
    hd_files_flush();
}

void hd_files_set_loop(hd_loop_t *loop)
{
    if (flush_loop != NULL)
        hd_timer_stop(flush_loop, &flush_timer);
    flush_loop = loop;
    hd_timer_init(&flush_timer, on_flush_due);
}

hd_file_t *hd_files_next(const hd_file_t *f)
{
    return f == NULL ? files : f->next;
}

const char *hd_file_path(const hd_file_t *f)
{
    return f->path;
}

int hd_file_fd(const hd_file_t *f)
{
    return f->fd;
}

void hd_files_destroy(void)
{
    hd_files_flush();
    while (files != NULL) {
        hd_file_t *f = files;

        files = f->next;
        hd_ignore(close(f->fd)); /* flushed above */
        free(f->path);
        free(f->buffer);
        free(f);
    }
}

uint64_t hd_files_dropped(void)
{
    return dropped;
}
