#include "http/hd_temp_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* For file systems that have no files without a name (open(2), O_TMPFILE). */
static int open_named(hd_req_t *req, const char *dir)
{
    hd_str_t name = hd_str_printf(req->pool, "%s/heddle-XXXXXX%c", dir, '\0');
    char *path = (char *)(uintptr_t)name.data;
    int fd = mkostemp(path, O_CLOEXEC);

    if (fd >= 0 && unlink(path) != 0) {
        hd_ignore(close(fd)); /* nothing was written */
        return -1;
    }
    return fd;
}

static int open_in(hd_req_t *req, const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        fd = open_named(req, dir);
    return fd;
}

int hd_temp_file_open(hd_req_t *req, hd_str_t dir)
{
    const char *path = dir.len > 0 ? dir.data : "/tmp";
    int fd = open_in(req, path);

    if (fd < 0 && errno == ENOENT && mkdir(path, 0700) == 0)
        fd = open_in(req, path);
    if (fd < 0)
        hd_ignore(
            hd_req_err(req, HD_E_SYS, "a temp file in %s: %s", path, strerror(errno)));
    return fd;
}

static hd_rc_t write_all(hd_req_t *req, int fd, int64_t offset, const char *data,
                         size_t len)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, data, len, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hd_req_err(req, HD_E_SYS, "writing a temp file: %s",
                              strerror(n < 0 ? errno : ENOSPC));
        data += n;
        len -= (size_t)n;
        offset += n;
    }
    return HD_OK;
}

hd_rc_t hd_temp_file_write(hd_req_t *req, int fd, int64_t offset, const hd_chain_t *body)
{
    for (const hd_slice_t *s = body->first; s != NULL; s = s->next) {
        hd_assert(s->len == 0 || s->kind == HD_SLICE_BLOCK);
        if (write_all(req, fd, offset, s->data, s->len) != HD_OK)
            return HD_ERROR;
        offset += (int64_t)s->len;
    }
    return HD_OK;
}

void hd_temp_file_close(int *fd)
{
    if (*fd >= 0)
        hd_ignore(close(*fd)); /* its bytes are of no more use */
    *fd = -1;
}
