#include "core/net/hd_syslog.h"
#include "core/net/hd_addr.h"
#include "core/os/hd_clock.h"
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PORT 514
#define TAG_MAX_BYTES 32
#define LOCAL7 23
#define INFO 6

/* What a text says; <server> and <tag> are lent by it. */
typedef struct {
    hd_str_t server, tag;
    uint8_t facility, severity;
    bool no_hostname;
} params_t;

/* A server that this process writes to. */
typedef struct syslog_s {
    char *name; /* as configured */
    params_t params;
    hd_addr_t addr;
    int fd; /* -1: not open now */
    struct syslog_s *next;
} syslog_t;

static syslog_t *all;
static uint64_t dropped;

/* --- reading --- */

/* By number: RFC 3164 §4.1.1, in nginx's words. */
static const char *const facilities[] = {
    "kern",   "user",   "mail",     "daemon", "auth",   "intern", "lpr",    "news",
    "uucp",   "clock",  "authpriv", "ftp",    "ntp",    "audit",  "alert",  "cron",
    "local0", "local1", "local2",   "local3", "local4", "local5", "local6", "local7"};
static const char *const severities[] = {"emerg", "alert",  "crit", "error",
                                         "warn",  "notice", "info", "debug"};

static bool find_word(const char *const *words, size_t n, hd_str_t word, uint8_t *at)
{
    for (size_t i = 0; i < n; i++) {
        if (hd_str_eq(hd_str_c(words[i]), word)) {
            *at = (uint8_t)i;
            return true;
        }
    }
    return false;
}

static hd_rc_t set_tag(params_t *p, hd_str_t tag, hd_err_t *err)
{
    if (tag.len > TAG_MAX_BYTES)
        return hd_err_set(err, HD_E_CONF, "a syslog tag has at most %d bytes",
                          TAG_MAX_BYTES);
    for (size_t i = 0; i < tag.len; i++) {
        char c = hd_ascii_lower(tag.data[i]);

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return hd_err_set(err, HD_E_CONF,
                              "syslog \"tag\" only allows alphanumeric characters and "
                              "underscore");
    }
    p->tag = tag;
    return HD_OK;
}

static hd_rc_t set_param(params_t *p, hd_str_t name, hd_str_t value, hd_err_t *err)
{
    if (hd_str_eq(name, HD_STR("server"))) {
        if (p->server.len > 0)
            return hd_err_set(err, HD_E_CONF, "duplicate syslog \"server\"");
        p->server = value;
        return HD_OK;
    }
    if (hd_str_eq(name, HD_STR("facility")))
        return find_word(facilities, hd_countof(facilities), value, &p->facility)
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF,
                                "unknown syslog facility \"%.*s\": kern, user, mail, "
                                "daemon, auth, intern, lpr, news, uucp, clock, authpriv, "
                                "ftp, ntp, audit, alert, cron, local0 to local7",
                                HD_STR_ARG(value));
    if (hd_str_eq(name, HD_STR("severity")))
        return find_word(severities, hd_countof(severities), value, &p->severity)
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF,
                                "unknown syslog severity \"%.*s\": emerg, alert, crit, "
                                "error, warn, notice, info, debug",
                                HD_STR_ARG(value));
    if (hd_str_eq(name, HD_STR("tag")))
        return set_tag(p, value, err);
    return hd_err_set(err, HD_E_CONF,
                      "unknown syslog parameter \"%.*s\": server=, facility=, severity=, "
                      "tag=, nohostname",
                      HD_STR_ARG(name));
}

static hd_rc_t read_params(hd_str_t text, params_t *p, hd_err_t *err)
{
    hd_str_t part;

    *p = (params_t){.facility = LOCAL7, .severity = INFO, .tag = HD_STR("heddle")};
    text = hd_str_sub(text, HD_STR("syslog:").len, SIZE_MAX);
    while (hd_str_split(&text, ',', &part)) {
        ssize_t at = hd_str_find_char(part, '=');

        if (hd_str_eq(part, HD_STR("nohostname"))) {
            p->no_hostname = true;
            continue;
        }
        if (set_param(p, at < 0 ? part : hd_str_sub(part, 0, (size_t)at),
                      at < 0 ? HD_STR_NONE : hd_str_sub(part, (size_t)at + 1, SIZE_MAX),
                      err) != HD_OK)
            return HD_ERROR;
    }
    return p->server.len > 0
               ? HD_OK
               : hd_err_set(err, HD_E_CONF, "no syslog server specified: server=ADDRESS");
}

/* Names are looked up once, when configuration is read, as nginx does. */
static hd_rc_t look_up(hd_pool_t *pool, hd_str_t text, hd_addr_t *addr, hd_err_t *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM}, *list;
    ssize_t colon = hd_str_find_char(text, ':');
    hd_str_t host = colon < 0 ? text : hd_str_sub(text, 0, (size_t)colon);
    uint64_t port = PORT;

    if (hd_addr_parse(pool, text, PORT, addr, NULL) == HD_OK)
        return HD_OK;
    if ((colon >= 0 &&
         (!hd_str_to_u64(hd_str_sub(text, (size_t)colon + 1, SIZE_MAX), 65535, &port) ||
          port == 0)) ||
        host.len == 0)
        return hd_err_set(err, HD_E_CONF, "invalid syslog server \"%.*s\"",
                          HD_STR_ARG(text));
    if (getaddrinfo(hd_str_to_c(pool, host), NULL, &hints, &list) != 0)
        return hd_err_set(err, HD_E_CONF, "host not found in syslog server \"%.*s\"",
                          HD_STR_ARG(text));
    hd_addr_from_sockaddr(list->ai_addr, list->ai_addrlen, addr);
    addr->port = (uint16_t)port;
    freeaddrinfo(list);
    return HD_OK;
}

hd_rc_t hd_syslog_check(hd_pool_t *pool, hd_str_t text, hd_str_t *name, hd_err_t *err)
{
    char server[HD_ADDR_TEXT_MAX];
    hd_addr_t addr;
    params_t p;

    if (read_params(text, &p, err) != HD_OK ||
        look_up(pool, p.server, &addr, err) != HD_OK)
        return HD_ERROR;
    *name = hd_str_printf(pool, "syslog:server=%.*s,facility=%s,severity=%s,tag=%.*s%s",
                          HD_STR_ARG(hd_addr_print(&addr, server)),
                          facilities[p.facility], severities[p.severity],
                          HD_STR_ARG(p.tag), p.no_hostname ? ",nohostname" : "");
    return HD_OK;
}

/* --- writing --- */

static syslog_t *find(hd_str_t name)
{
    syslog_t *s = all;
    hd_pool_t *pool;

    while (s != NULL && !hd_str_eq(hd_str_c(s->name), name))
        s = s->next;
    if (s != NULL)
        return s;
    s = calloc(1, sizeof(*s));
    hd_bug_on(s == NULL);
    s->name = strndup(name.data, name.len);
    hd_bug_on(s->name == NULL);
    s->fd = -1;
    pool = hd_pool_create(0);
    if (read_params(hd_str_c(s->name), &s->params, NULL) == HD_OK &&
        hd_addr_parse(pool, s->params.server, PORT, &s->addr, NULL) == HD_OK)
        s->addr = hd_addr_keep(&s->addr);
    hd_pool_destroy(pool);
    s->next = all;
    all = s;
    return s;
}

static bool open_socket(syslog_t *s)
{
    struct sockaddr_storage to;
    socklen_t len;

    if (s->fd >= 0)
        return true;
    s->fd = socket(s->addr.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return false;
    len = hd_addr_to_sockaddr(&s->addr, &to);
    if (connect(s->fd, (struct sockaddr *)&to, len) == 0)
        return true;
    hd_ignore(close(s->fd)); /* nothing was sent; the next line tries again */
    s->fd = -1;
    return false;
}

/* "Nov 29 02:05:07" */
static const char *time_text(void)
{
    static _Thread_local char text[24];
    static _Thread_local time_t shown;
    time_t now = (time_t)(hd_clock_wall_ns() / 1000000000);
    struct tm tm;

    if (now != shown && localtime_r(&now, &tm) != NULL &&
        strftime(text, sizeof(text), "%b %e %H:%M:%S", &tm) > 0)
        shown = now;
    return text;
}

static const char *host_name(void)
{
    static char name[256];

    if (name[0] == '\0' && gethostname(name, sizeof(name) - 1) != 0)
        name[0] = '-';
    return name;
}

static bool send_line(syslog_t *s, const struct iovec *parts, int n)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)parts,
                         .msg_iovlen = (size_t)n};

    /* A refusal belongs to an earlier line: this one is sent again. */
    for (int tries = 0; tries < 2; tries++) {
        if (sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return true;
        if (errno != ECONNREFUSED && errno != EINTR)
            break;
    }
    if (errno != EAGAIN && errno != ENOBUFS && errno != EMSGSIZE) {
        hd_ignore(close(s->fd)); /* who restarts on a unix socket has another one */
        s->fd = -1;
    }
    return false;
}

void hd_syslog_send(hd_str_t name, int severity, hd_str_t text)
{
    syslog_t *s = find(name);
    const params_t *p = &s->params;
    char head[400];
    int saved = errno, n;

    if (severity < 0)
        severity = p->severity;
    n = snprintf(head, sizeof(head), "<%d>%s %s%s%.*s: ", p->facility * 8 + severity,
                 time_text(), p->no_hostname ? "" : host_name(),
                 p->no_hostname ? "" : " ", HD_STR_ARG(p->tag));
    if (text.len > 0 && text.data[text.len - 1] == '\n')
        text.len--;
    if (s->addr.family == AF_UNSPEC || !open_socket(s) ||
        !send_line(
            s,
            (struct iovec[]){{head, (size_t)n}, {(void *)(uintptr_t)text.data, text.len}},
            2))
        dropped++;
    errno = saved;
}

uint64_t hd_syslog_dropped(void)
{
    return dropped;
}
