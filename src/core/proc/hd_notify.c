#include "core/proc/hd_notify.h"
#include "core/base/hd_log.h"
#include "core/base/hd_str.h"
#include "core/os/hd_clock.h"
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un to;
static socklen_t to_len; /* 0: nobody is told */
static uint64_t watchdog_us;

/* "/path", or "@name": abstract. What is of another kind isn't for us. */
static bool read_address(const char *text)
{
    size_t len = strlen(text);

    if ((text[0] != '/' && text[0] != '@') || len < 2 || len >= sizeof(to.sun_path))
        return false;
    to.sun_family = AF_UNIX;
    memcpy(to.sun_path, text, len + 1);
    to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    if (text[0] != '@')
        return true;
    to.sun_path[0] = '\0'; /* its name is all that stands behind, without a zero */
    to_len--;
    return true;
}

static uint64_t read_number(const char *name)
{
    const char *text = getenv(name);
    uint64_t n;

    return text != NULL && hd_str_to_u64(hd_str_c(text), UINT64_MAX, &n) ? n : 0;
}

void hd_notify_init(void)
{
    const char *text = getenv("NOTIFY_SOCKET");

    if (text == NULL || text[0] == '\0')
        return;
    if (!read_address(text)) {
        hd_log(HD_LOG_WARN,
               "NOTIFY_SOCKET \"%s\": a path or \"@NAME\" of at most %zu bytes is "
               "expected: nobody is notified",
               text, sizeof(to.sun_path) - 1);
        return;
    }
    if (getenv("WATCHDOG_PID") == NULL ||
        read_number("WATCHDOG_PID") == (uint64_t)getpid())
        watchdog_us = read_number("WATCHDOG_USEC");
}

static void send_text(const char *text, size_t len)
{
    int fd;

    if (to_len == 0)
        return;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || sendto(fd, text, len, MSG_NOSIGNAL, (struct sockaddr *)&to, to_len) < 0)
        hd_log(HD_LOG_WARN, "the service manager isn't told \"%.20s…\": %s", text,
               strerror(errno));
    if (fd >= 0)
        hd_ignore(close(fd)); /* a datagram: it is out */
}

static void tell(const char *fmt, ...) HD_PRINTF(1, 2);

static void tell(const char *fmt, ...)
{
    char text[1024];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    send_text(text, hd_min((size_t)hd_max(n, 0), sizeof(text) - 1));
}

void hd_notify_ready(const char *status)
{
    char line[700];
    size_t n = 0;

    for (; status[n] != '\0' && n < sizeof(line) - 1; n++)
        line[n] = (unsigned char)status[n] < ' ' ? ' ' : status[n];
    line[n] = '\0';
    tell("READY=1\nMAINPID=%d\nSTATUS=%s\n", (int)getpid(), line);
}

void hd_notify_reloading(void)
{
    tell("RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=Reading the configuration\n",
         (unsigned long long)(hd_clock_mono_ns() / 1000));
}

void hd_notify_stopping(void)
{
    tell("STOPPING=1\nSTATUS=Ending: what is open is waited for\n");
}

void hd_notify_main(pid_t pid)
{
    tell("MAINPID=%d\nSTATUS=A new binary has taken over\n", (int)pid);
}

void hd_notify_alive(void)
{
    tell("WATCHDOG=1\n");
}

uint64_t hd_notify_alive_ms(void)
{
    uint64_t ms = watchdog_us / 2000;

    return watchdog_us > 0 && ms == 0 ? 1 : ms;
}

void hd_notify_hand_on(void)
{
    char pid[32];

    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (getenv("WATCHDOG_PID") != NULL)
        hd_ignore(setenv("WATCHDOG_PID", pid, 1)); /* else it isn't watched */
}
