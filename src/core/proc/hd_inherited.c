#include "core/proc/hd_inherited.h"
#include "core/base/hd_log.h"
#include "core/base/hd_str.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FDS_MAX 4096
#define FIRST_LENT 3 /* SD_LISTEN_FDS_START */

static struct {
    int fd; /* -1: taken */
    bool is_lent;
} fds[FDS_MAX];
static uint32_t fds_n;

/* A variable's text, out of the environment, where nobody points to it any more. */
static const char *take_variable(const char *name)
{
    static __attribute__((used)) const char *taken[8]; /* for a leak checker */
    static uint32_t taken_n;
    const char *text = getenv(name);

    if (text != NULL && taken_n < hd_countof(taken))
        taken[taken_n++] = text;
    hd_ignore(unsetenv(name));
    return text;
}

static int get_option(int fd, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : -1;
}

static void add(int fd, bool is_lent)
{
    bool listens = get_option(fd, SO_TYPE) == SOCK_DGRAM ||
                   get_option(fd, SO_ACCEPTCONN) > 0;

    if (fds_n == FDS_MAX || !listens || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        hd_log(HD_LOG_ALERT, "%s: %d is no listening socket, or one too many",
               is_lent ? "LISTEN_FDS" : HD_INHERITED_NAME, fd);
        return;
    }
    fds[fds_n].fd = fd;
    fds[fds_n++].is_lent = is_lent;
}

/* The next of "5;6;9;"; -1: that was all. */
static int next_number(const char **list)
{
    char *end;
    long fd;

    if (**list == '\0')
        return -1;
    fd = strtol(*list, &end, 10);
    if (end == *list || *end != ';' || fd <= STDERR_FILENO || fd > INT32_MAX) {
        hd_log(HD_LOG_ALERT,
               HD_INHERITED_NAME ": \"%s\": numbers of sockets are "
                                 "expected, each with a semicolon",
               *list);
        return -1;
    }
    *list = end + 1;
    return (int)fd;
}

static bool is_in(const char *list, int fd)
{
    int one;

    while ((one = next_number(&list)) >= 0)
        if (one == fd)
            return true;
    return false;
}

static uint64_t number_of(const char *text)
{
    uint64_t n;

    return text != NULL && hd_str_to_u64(hd_str_c(text), INT32_MAX, &n) ? n : 0;
}

static void read_lent(void)
{
    const char *pid = getenv("LISTEN_PID");
    uint64_t n;

    if (pid == NULL || number_of(pid) != (uint64_t)getpid())
        return; /* another process's */
    hd_ignore(take_variable("LISTEN_PID") == NULL);
    hd_ignore(take_variable("LISTEN_FDNAMES") == NULL);
    n = number_of(take_variable("LISTEN_FDS"));
    for (uint64_t i = 0; i < hd_min(n, (uint64_t)FDS_MAX); i++)
        add((int)(FIRST_LENT + i), true);
}

bool hd_inherited_read(void)
{
    const char *list = take_variable(HD_INHERITED_NAME);
    const char *lent = take_variable(HD_INHERITED_LENT_NAME);
    bool is_inheriting = list != NULL;
    int fd;

    read_lent();
    while (list != NULL && (fd = next_number(&list)) >= 0)
        add(fd, lent != NULL && is_in(lent, fd));
    return is_inheriting;
}

int hd_inherited_state(void)
{
    const char *value = take_variable(HD_INHERITED_STATE_NAME);
    int fd = value != NULL ? (int)strtol(value, NULL, 10) : -1;

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

uint32_t hd_inherited_take(const hd_socket_spec_t *spec, int *to, uint32_t max, bool *own,
                           bool *lent)
{
    uint32_t n = 0;

    *own = true;
    *lent = false;
    for (uint32_t i = 0; i < fds_n && n < max; i++) {
        if (fds[i].fd < 0 || !is_at(fds[i].fd, spec))
            continue;
        *own = *own && get_option(fds[i].fd, SO_REUSEPORT) > 0;
        *lent = *lent || fds[i].is_lent;
        to[n++] = fds[i].fd;
        fds[i].fd = -1;
    }
    return n;
}

void hd_inherited_tell_unused(void)
{
    for (uint32_t i = 0; i < fds_n; i++) {
        char text[HD_ADDR_TEXT_MAX];
        struct sockaddr_storage ss;
        socklen_t len = sizeof(ss);
        hd_addr_t addr;

        if (fds[i].fd < 0 || !fds[i].is_lent ||
            getsockname(fds[i].fd, (struct sockaddr *)&ss, &len) != 0)
            continue;
        hd_addr_from_sockaddr((struct sockaddr *)&ss, len, &addr);
        hd_log(HD_LOG_WARN,
               "the service manager's socket %.*s isn't used: no \"listen\" has exactly "
               "this address",
               HD_STR_ARG(hd_addr_print(&addr, text)));
    }
}

void hd_inherited_close(void)
{
    for (uint32_t i = 0; i < fds_n; i++)
        if (fds[i].fd >= 0)
            hd_ignore(close(fds[i].fd)); /* its queue is whose it is */
    fds_n = 0;
}
