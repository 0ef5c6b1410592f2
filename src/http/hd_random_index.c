/* random_index: any file of a directory answers for it, nginx's. */
#include "http/hd_file.h"
#include "http/hd_request_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* A regular file that doesn't hide; nginx leaves symbolic links out, too. */
static bool is_file(DIR *dir, const struct dirent *d)
{
    struct stat st;

    if (d->d_name[0] == '.')
        return false;
    if (d->d_type != DT_UNKNOWN)
        return d->d_type == DT_REG;
    return fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(st.st_mode);
}

/* In one pass, however many there are: the n-th takes the place of the one found so far
 * with a chance of 1/n (reservoir sampling). */
hd_rc_t hd_random_index_choose(hd_req_t *req, hd_str_t path, hd_str_t *name, int *error)
{
    DIR *dir = opendir(path.data);
    const struct dirent *d;
    uint64_t n = 0;

    *error = errno;
    *name = HD_STR_NONE;
    if (dir == NULL)
        return HD_ERROR;
    while ((d = readdir(dir)) != NULL) {
        if (is_file(dir, d) && hd_request_random() % ++n == 0)
            *name = hd_str_dup(req->pool, hd_str_c(d->d_name));
    }
    closedir(dir);
    return n > 0 ? HD_OK : HD_DECLINED;
}
