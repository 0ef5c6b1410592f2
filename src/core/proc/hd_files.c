#include "core/proc/hd_files_int.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/os/hd_clock.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define FULL_PAUSE_NS 1000000000u   /* nginx: a full disk is tried again after this */
#define TELL_EACH_NS 60000000000ull /* nginx: and told of no more often */

struct hd_file_s {
    char *path;
    int fd;
    size_t n;
    char *buffer;      /* made at the first buffered line */
    hd_file_how_t how; /* of what is in the buffer */
    hd_timer_t timer;
    bool is_lasting;
    uint64_t full_until_ns, told_ns;
    hd_file_t *next;
};

static hd_file_t *files;
static hd_map_t *by_path;
static hd_loop_t *flush_loop;
static uint64_t dropped;

hd_file_t *hd_file_get(hd_str_t path)
{
    return by_path == NULL ? NULL : hd_map_get(by_path, path);
}

static void count_dropped(hd_str_t lines)
{
    for (size_t i = 0; i < lines.len; i++)
        dropped += lines.data[i] == '\n';
}

/* All of it, as far as the system lets us: what can't be written now is lost. 0, or why.
 */
static int write_whole(int fd, hd_str_t bytes)
{
    while (bytes.len > 0) {
        ssize_t done = write(fd, bytes.data, bytes.len);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        bytes = hd_str_sub(bytes, (size_t)done, bytes.len);
    }
    return 0;
}

static void write_all(hd_file_t *f, hd_str_t bytes)
{
    uint64_t now_ns;
    int error;

    if (hd_unlikely(f->full_until_ns != 0) && hd_clock_mono_ns() < f->full_until_ns) {
        count_dropped(bytes);
        return;
    }
    error = write_whole(f->fd, bytes);
    f->full_until_ns = 0;
    if (hd_likely(error == 0))
        return;
    count_dropped(bytes);
    now_ns = hd_clock_mono_ns();
    if (error == ENOSPC)
        f->full_until_ns = now_ns + FULL_PAUSE_NS;
    if (f->told_ns != 0 && now_ns - f->told_ns < TELL_EACH_NS)
        return;
    f->told_ns = now_ns; /* first: the error log may be this very file */
    hd_log(HD_LOG_ALERT, "write() to \"%s\" failed (%d: %s)", f->path, error,
           strerror(error));
}

bool hd_file_write_fd(int fd, const char *path, hd_str_t line)
{
    static uint64_t told_ns;
    int error = write_whole(fd, line);
    uint64_t now_ns;

    if (hd_likely(error == 0))
        return true;
    count_dropped(line);
    now_ns = hd_clock_mono_ns();
    if (told_ns == 0 || now_ns - told_ns >= TELL_EACH_NS) {
        told_ns = now_ns;
        hd_log(HD_LOG_ALERT, "write() to \"%s\" failed (%d: %s)", path, error,
               strerror(error));
    }
    return false;
}

/* As a member of its own: members one behind the other are a gzip file, too. */
static void write_gzip(hd_file_t *f, hd_str_t bytes)
{
    z_stream z = {.zalloc = NULL};
    size_t room = compressBound(bytes.len) + 64;
    char *packed = malloc(room);

    hd_bug_on(packed == NULL || deflateInit2(&z, f->how.gzip_level, Z_DEFLATED, 15 + 16,
                                             8, Z_DEFAULT_STRATEGY) != Z_OK);
    z.next_in = (Bytef *)(uintptr_t)bytes.data;
    z.avail_in = (uInt)bytes.len;
    z.next_out = (Bytef *)packed;
    z.avail_out = (uInt)room;
    hd_bug_on(deflate(&z, Z_FINISH) != Z_STREAM_END);
    write_all(f, hd_str_n(packed, room - z.avail_out));
    deflateEnd(&z);
    free(packed);
}

static void write_gathered(hd_file_t *f, hd_str_t lines)
{
    if (f->how.gzip_level > 0)
        write_gzip(f, lines);
    else
        write_all(f, lines);
}

static void flush(hd_file_t *f)
{
    if (flush_loop != NULL)
        hd_timer_stop(flush_loop, &f->timer);
    if (f->n > 0)
        write_gathered(f, hd_str_n(f->buffer, f->n));
    f->n = 0;
}

static void on_flush_due(hd_timer_t *t)
{
    flush(hd_container_of(t, hd_file_t, timer));
}

hd_file_t *hd_file_put(hd_str_t path, int fd)
{
    hd_file_t *f = hd_file_get(path);

    if (f != NULL) {
        flush(f); /* what was said before the reopen belongs to the old file */
        hd_ignore(close(f->fd)); /* written without delay; nothing is told here */
        f->fd = fd;
        f->full_until_ns = 0;
        return f;
    }
    f = calloc(1, sizeof(*f));
    hd_bug_on(f == NULL);
    f->path = strndup(path.data, path.len);
    hd_bug_on(f->path == NULL);
    f->fd = fd;
    f->next = files;
    hd_timer_init(&f->timer, on_flush_due);
    files = f;
    if (by_path == NULL)
        by_path = hd_map_create();
    hd_ignore(hd_map_put(by_path, hd_str_c(f->path), f) == NULL);
    return f;
}

static void free_file(hd_file_t *f)
{
    hd_ignore(close(f->fd)); /* flushed before */
    free(f->path);
    free(f->buffer);
    free(f);
}

void hd_file_remove(hd_str_t path)
{
    hd_file_t *f = hd_file_get(path), **at = &files;

    if (f == NULL)
        return;
    flush(f);
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    hd_ignore(hd_map_remove(by_path, path) == NULL);
    free_file(f);
}

void hd_file_set_lasting(hd_file_t *f)
{
    f->is_lasting = true;
}

bool hd_file_is_lasting(const hd_file_t *f)
{
    return f->is_lasting;
}

/* The buffer takes what is gathered in this way from now on. */
static void use_buffer(hd_file_t *f, const hd_file_how_t *how)
{
    bool fits = f->buffer != NULL && f->how.buffer_bytes == how->buffer_bytes;

    if (fits && f->how.gzip_level == how->gzip_level) {
        f->how.flush_ms = how->flush_ms;
        return;
    }
    flush(f);
    f->how = *how;
    if (fits)
        return;
    free(f->buffer);
    f->buffer = malloc(how->buffer_bytes);
    hd_bug_on(f->buffer == NULL);
}

void hd_file_write_as(hd_file_t *f, hd_str_t line, const hd_file_how_t *how)
{
    if (how->buffer_bytes == 0) {
        flush(f); /* lines stay in order */
        write_all(f, line);
        return;
    }
    use_buffer(f, how);
    if (f->n + line.len > how->buffer_bytes)
        flush(f);
    if (line.len > how->buffer_bytes) { /* longer than all there is room for */
        write_gathered(f, line);
        return;
    }
    memcpy(f->buffer + f->n, line.data, line.len);
    f->n += line.len;
    if (how->flush_ms > 0 && flush_loop != NULL && !hd_timer_is_set(&f->timer))
        hd_timer_set(flush_loop, &f->timer, how->flush_ms);
}

void hd_file_write(hd_file_t *f, hd_str_t line, bool buffered)
{
    static const hd_file_how_t at_once, within_a_second = {16384, 1000, 0};

    hd_file_write_as(f, line, buffered ? &within_a_second : &at_once);
}

void hd_files_flush(void)
{
    for (hd_file_t *f = files; f != NULL; f = f->next)
        flush(f);
}

void hd_files_set_loop(hd_loop_t *loop)
{
    for (hd_file_t *f = files; f != NULL; f = f->next) {
        if (flush_loop != NULL)
            hd_timer_stop(flush_loop, &f->timer);
        hd_timer_init(&f->timer, on_flush_due);
    }
    flush_loop = loop;
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
    if (by_path != NULL)
        hd_map_destroy(by_path);
    by_path = NULL;
    while (files != NULL) {
        hd_file_t *f = files;

        files = f->next;
        free_file(f);
    }
}

uint64_t hd_files_dropped(void)
{
    return dropped;
}
