#include "core/os/hd_os.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static char *title_at; /* the strings of argv and environ, one run of bytes */
static size_t title_room;
/* Stays ours when setenv makes a copy of its own; used: nobody reads it but a leak
 * checker. */
static __attribute__((used)) char **environ_copy;

void hd_os_random(void *out, size_t bytes)
{
    char *p = out;

    while (bytes > 0) {
        ssize_t n = getrandom(p, bytes, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            fputs("getrandom() failed: no source of random numbers\n", stderr);
            abort();
        }
        p += n;
        bytes -= (size_t)n;
    }
}

int hd_os_open_statm(void)
{
    return open("/proc/self/statm", O_RDONLY | O_CLOEXEC); /* proc(5) */
}

size_t hd_os_private_bytes(int fd)
{
    char text[128];
    unsigned long long resident, shared;
    ssize_t n;

    do
        n = fd < 0 ? 0 : pread(fd, text, sizeof(text) - 1, 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    if (sscanf(text, "%*u %llu %llu", &resident, &shared) != 2 || resident < shared)
        return 0;
    return (size_t)(resident - shared) * hd_os_page_bytes();
}

/* Copies the environment to the heap and counts how far the strings reach that the
 * kernel laid behind one another; ps reads just those. */
void hd_os_init_title(int argc, char **argv)
{
    char *end;
    size_t n = 0;
    char **copy;

    if (title_at != NULL || argc < 1)
        return;
    end = argv[0];
    for (int i = 0; i < argc; i++)
        if (argv[i] == end)
            end = argv[i] + strlen(argv[i]) + 1;
    while (environ[n] != NULL)
        n++;
    copy = calloc(n + 1, sizeof(*copy));
    if (copy == NULL)
        return;
    for (size_t i = 0; i < n; i++) {
        if (environ[i] == end)
            end = environ[i] + strlen(environ[i]) + 1;
        copy[i] = strdup(environ[i]);
        if (copy[i] == NULL)
            return; /* no titles then; what was copied so far is a few bytes, once */
    }
    environ_copy = environ = copy;
    title_at = argv[0];
    title_room = (size_t)(end - argv[0]);
}

void hd_os_set_title(const char *title)
{
    int n;

    if (title_at == NULL)
        return;
    n = snprintf(title_at, title_room, "heddle: %s", title);
    if (n >= 0 && (size_t)n < title_room)
        memset(title_at + n, 0, title_room - (size_t)n);
    (void)prctl(PR_SET_NAME, "heddle");
}

pid_t hd_os_tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}
