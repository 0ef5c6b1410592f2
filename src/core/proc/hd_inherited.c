#include "core/proc/hd_inherited.h"
#include "core/base/hd_log.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FDS_MAX 4096

static int fds[FDS_MAX]; /* -1: taken */
static uint32_t fds_n;
/* The variable's text, which nobody else points to once it has left the environment;
 * used: by a leak checker alone. */
static __attribute__((used)) const char *text;

static int get_option(int fd, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : -1;
}

static void add(int fd)
{
    if (fds_n == FDS_MAX || get_option(fd, SO_TYPE) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        hd_log(HD_LOG_ALERT, HD_INHERITED_NAME ": %d is no socket, or one too many", fd);
        return;
    }
    fds[fds_n++] = fd;
}

bool hd_inherited_read(void)
{
    const char *list = getenv(HD_INHERITED_NAME);
    char *end;

    text = list;
    if (list == NULL)
        return false;
    while (*list != '\0') {
        long fd = strtol(list, &end, 10);

        if (end == list || *end != ';' || fd <= STDERR_FILENO || fd > INT32_MAX) {
            hd_log(HD_LOG_ALERT,
                   HD_INHERITED_NAME ": \"%s\": numbers of sockets are "
                                     "expected, each with a semicolon",
                   list);
            break;
        }
        add((int)fd);
        list = end + 1;
    }
    hd_ignore(unsetenv(HD_INHERITED_NAME));
    return true;
}

static __attribute__((used)) const char *kept_state; /* as <text> */

int hd_inherited_state(void)
{
    const char *value = getenv(HD_INHERITED_STATE_NAME);
    int fd = value != NULL ? (int)strtol(value, NULL, 10) : -1;

    kept_state = value;
    hd_ignore(unsetenv(HD_INHERITED_STATE_NAME));
    return fd > STDERR_FILENO && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? fd : -1;
}

static bool is_at(int fd, const hd_socket_spec_t *spec)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    hd_addr_t addr;

    if (spec->netns != 0 || get_option(fd, SO_TYPE) != spec->type ||
        getsockname(fd, (struct sockaddr *)&ss, &len) != 0)
        return false;
    hd_addr_from_sockaddr((struct sockaddr *)&ss, len, &addr);
    return hd_addr_eq(&addr, &spec->bind);
}

uint32_t hd_inherited_take(const hd_socket_spec_t *spec, int *to, uint32_t max, bool *own)
{
    uint32_t n = 0;

    *own = true;
    for (uint32_t i = 0; i < fds_n && n < max; i++) {
        if (fds[i] < 0 || !is_at(fds[i], spec))
            continue;
        *own = *own && get_option(fds[i], SO_REUSEPORT) > 0;
        to[n++] = fds[i];
        fds[i] = -1;
    }
    return n;
}

void hd_inherited_close(void)
{
    for (uint32_t i = 0; i < fds_n; i++)
        if (fds[i] >= 0)
            hd_ignore(close(fds[i])); /* its queue is the other program's */
    fds_n = 0;
}
