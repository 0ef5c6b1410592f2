#include "http/hd_temp_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define IOV_N 16

static int make_named(hd_pool_t *pool, const char *dir, hd_str_t *name)
{
    *name = hd_str_printf(pool, "%s/heddle-XXXXXX%c", dir, '\0');
    name->len--;
    return mkostemp((char *)(uintptr_t)name->data, O_CLOEXEC);
}

/* For file systems that have no files without a name (open(2), O_TMPFILE). */
static int open_named(hd_pool_t *temp, const char *dir)
{
    hd_str_t name;
    int fd = make_named(temp, dir, &name);

    if (fd >= 0 && unlink(name.data) != 0) {
        hd_ignore(close(fd)); /* nothing was written */
        return -1;
    }
    return fd;
}

static int open_in(hd_pool_t *temp, const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        fd = open_named(temp, dir);
    return fd;
}

int hd_temp_file_open(hd_pool_t *temp, hd_str_t dir, hd_err_t *err)
{
    const char *path = dir.len > 0 ? dir.data : "/tmp";
    int fd = open_in(temp, path);

    if (fd < 0 && errno == ENOENT && mkdir(path, 0700) == 0)
        fd = open_in(temp, path);
    if (fd < 0)
        hd_ignore(
            hd_err_set(err, HD_E_SYS, "a temp file in %s: %s", path, strerror(errno)));
    return fd;
}

int hd_temp_file_open_named(hd_pool_t *pool, hd_str_t dir, hd_str_t *name, hd_err_t *err)
{
    const char *path = dir.len > 0 ? dir.data : "/tmp";
    int fd = make_named(pool, path, name);

    if (fd < 0 && errno == ENOENT && mkdir(path, 0700) == 0)
        fd = make_named(pool, path, name);
    if (fd < 0)
        hd_ignore(
            hd_err_set(err, HD_E_SYS, "a temp file in %s: %s", path, strerror(errno)));
    return fd;
}

/* The slices from <s> on, skipping <*skip> bytes of it; how many pieces. */
static int to_iov(const hd_slice_t *s, size_t skip, struct iovec *iov)
{
    int n = 0;

    for (; s != NULL && n < IOV_N; s = s->next, skip = 0) {
        hd_assert(s->len == 0 || s->kind == HD_SLICE_BLOCK);
        if (s->len > skip)
            iov[n++] = (struct iovec){(void *)(uintptr_t)(s->data + skip), s->len - skip};
    }
    return n;
}

hd_rc_t hd_temp_file_write(int fd, int64_t offset, const hd_chain_t *body, hd_err_t *err)
{
    const hd_slice_t *s = body->first;
    size_t left = body->bytes, skip = 0;
    struct iovec iov[IOV_N];

    while (left > 0) {
        ssize_t n = pwritev(fd, iov, to_iov(s, skip, iov), offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hd_err_set(err, HD_E_SYS, "writing a temp file: %s",
                              strerror(n < 0 ? errno : ENOSPC));
        left -= (size_t)n;
        offset += n;
        for (skip += (size_t)n; s != NULL && skip >= s->len; s = s->next)
            skip -= s->len;
    }
    return HD_OK;
}

void hd_temp_file_close(int *fd)
{
    if (*fd >= 0)
        hd_ignore(close(*fd)); /* its bytes are of no more use */
    *fd = -1;
}
