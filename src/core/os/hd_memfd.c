#include "core/os/hd_os.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int hd_os_memfd(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -1;
    if (fchmod(fd, 0600) != 0 || ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int hd_os_memfd_reopen_ro(int fd)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int hd_os_reserve(int fd, size_t offset, size_t bytes)
{
    int rc;

    do
        rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    while (rc != 0 && errno == EINTR);
    return rc;
}

int hd_os_punch(int fd, size_t offset, size_t bytes)
{
    int rc;

    do
        rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                       (off_t)bytes);
    while (rc != 0 && errno == EINTR);
    return rc;
}

size_t hd_os_file_bytes(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? (size_t)st.st_blocks * 512 : 0;
}

void *hd_os_map(int fd, void *at, size_t bytes, bool writable)
{
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = MAP_SHARED | MAP_NORESERVE;
    void *p;

    if (fd < 0)
        flags |= MAP_ANONYMOUS;
    if (at != NULL)
        flags |= MAP_FIXED_NOREPLACE;
    p = mmap(at, bytes, prot, flags, fd, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (at != NULL && p != at) { /* a kernel before 4.17 takes the address for a hint */
        munmap(p, bytes);
        errno = EEXIST;
        return NULL;
    }
    return p;
}

int hd_os_unmap(void *at, size_t bytes)
{
    return munmap(at, bytes);
}

void hd_os_dont_dump(void *at, size_t bytes)
{
    (void)madvise(at, bytes, MADV_DONTDUMP);
}

void hd_os_wipe(void *at, size_t bytes)
{
    explicit_bzero(at, bytes);
}

size_t hd_os_page_bytes(void)
{
    static size_t bytes;

    if (bytes == 0)
        bytes = (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}
