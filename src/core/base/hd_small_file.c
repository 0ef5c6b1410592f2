#include "core/base/hd_small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static hd_file_stamp_t stamp_of(const struct stat *st)
{
    return (hd_file_stamp_t){.device = (uint64_t)st->st_dev,
                             .inode = (uint64_t)st->st_ino,
                             .size = (uint64_t)st->st_size,
                             .changed_ns = (uint64_t)st->st_mtim.tv_sec * 1000000000 +
                                           (uint64_t)st->st_mtim.tv_nsec};
}

hd_rc_t hd_small_file_open(hd_small_file_t *f, const char *path, size_t bytes_max,
                           const char *what, hd_err_t *err)
{
    struct stat st;

    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f->fd < 0)
        return hd_err_set_sys(err, errno, "cannot load %s \"%s\"", what, path);
    if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 0 ||
        (uint64_t)st.st_size > bytes_max) {
        hd_ignore(close(f->fd)); /* read only: nothing to lose */
        return hd_err_set(
            err, HD_E_CONF,
            "cannot load %s \"%s\": it is no regular file of at most %zu MB", what, path,
            bytes_max >> 20);
    }
    f->bytes = (size_t)st.st_size;
    f->stamp = stamp_of(&st);
    return HD_OK;
}

hd_rc_t hd_small_file_take(hd_small_file_t *f, char *to, hd_str_t *text, hd_err_t *err)
{
    size_t n = 0;
    ssize_t got = 1;

    while (n < f->bytes && got != 0) {
        got = read(f->fd, to + n, f->bytes - n);
        if (got < 0 && errno != EINTR)
            break;
        n += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        hd_ignore(hd_err_set_sys(err, errno, "cannot read it") == HD_ERROR);
    hd_ignore(close(f->fd)); /* read only: nothing to lose */
    *text = hd_str_n(to, n);
    return got < 0 ? HD_ERROR : HD_OK;
}

bool hd_file_stamp_get(const char *path, hd_file_stamp_t *stamp)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return false;
    *stamp = stamp_of(&st);
    return true;
}

bool hd_file_stamp_eq(const hd_file_stamp_t *a, const hd_file_stamp_t *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed_ns == b->changed_ns;
}
