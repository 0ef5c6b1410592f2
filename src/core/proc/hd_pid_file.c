#include "core/proc/hd_pid_file.h"
#include "core/proc/hd_settings.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char current[HD_PATH_MAX_BYTES]; /* empty: none is written */
static bool is_aside;

static const char *aside_of(const char *path, char *to, size_t bytes)
{
    (void)snprintf(to, bytes, "%s.oldbin", path);
    return to;
}

hd_rc_t hd_pid_file_write(const char *path, hd_err_t *err)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    int fd;

    if (strcmp(path, current) == 0)
        return HD_OK;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, (size_t)n) != n || close(fd) != 0)
        return hd_err_set_sys(err, errno, "open() \"%s\" failed", path);
    hd_pid_file_remove();
    (void)snprintf(current, sizeof(current), "%s", path);
    return HD_OK;
}

static hd_rc_t rename_to(const char *from, const char *to, bool aside, hd_err_t *err)
{
    if (rename(from, to) != 0)
        return hd_err_set_sys(err, errno, "rename() \"%s\" to \"%s\" failed", from, to);
    is_aside = aside;
    return HD_OK;
}

hd_rc_t hd_pid_file_step_aside(hd_err_t *err)
{
    char aside[HD_PATH_MAX_BYTES + 8];

    return rename_to(current, aside_of(current, aside, sizeof(aside)), true, err);
}

hd_rc_t hd_pid_file_step_back(hd_err_t *err)
{
    char aside[HD_PATH_MAX_BYTES + 8];

    return rename_to(aside_of(current, aside, sizeof(aside)), current, false, err);
}

void hd_pid_file_remove(void)
{
    char aside[HD_PATH_MAX_BYTES + 8];

    if (current[0] != '\0')
        hd_ignore(unlink(is_aside ? aside_of(current, aside, sizeof(aside)) : current));
    current[0] = '\0'; /* it may have been gone */
    is_aside = false;
}
