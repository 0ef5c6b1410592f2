#include "mesh/hd_dns.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"

#include <ares.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define SOCKETS_MAX 32
#define TTL_MIN_S 1
#define TTL_MAX_S 300
#define FAILED_S 5 /* asked again after a failure */
#define TIMEOUT_MS 2000
#define TRIES 3

typedef struct {
    hd_watch_t watch;
    hd_dns_t *dns;
    bool is_used;
} socket_t;

typedef struct {
    hd_dns_t *dns;
    hd_str_t host; /* its own copy, zero-terminated */
    hd_addr_t *addrs;
    uint32_t n;
    bool is_known, is_asking;
    uint64_t used_ns;
    hd_timer_t again;
} name_t;

struct hd_dns_s {
    hd_loop_t *loop;
    ares_channel channel;
    hd_map_t *names;
    socket_t sockets[SOCKETS_MAX];
    hd_timer_t timeout;
    hd_post_t tell;
    void (*changed)(void *arg);
    void *arg;
    bool is_ending;
};

/* --- c-ares on our loop --- */

static void set_timeout(hd_dns_t *d)
{
    struct timeval tv;

    if (ares_timeout(d->channel, NULL, &tv) == NULL) {
        hd_timer_stop(d->loop, &d->timeout);
        return;
    }
    hd_timer_set(d->loop, &d->timeout,
                 (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000 + 1);
}

static void on_timeout(hd_timer_t *t)
{
    hd_dns_t *d = hd_container_of(t, hd_dns_t, timeout);

    ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_timeout(d);
}

static void on_ready(hd_watch_t *w, unsigned events)
{
    socket_t *s = hd_container_of(w, socket_t, watch);
    hd_dns_t *d = s->dns;
    ares_socket_t fd = w->fd;

    ares_process_fd(d->channel,
                    events & (HD_EV_READ | HD_EV_HUP | HD_EV_ERR) ? fd : ARES_SOCKET_BAD,
                    events & HD_EV_WRITE ? fd : ARES_SOCKET_BAD);
    set_timeout(d);
}

static socket_t *find_socket(hd_dns_t *d, int fd)
{
    for (int i = 0; i < SOCKETS_MAX; i++) {
        if (d->sockets[i].is_used && d->sockets[i].watch.fd == fd)
            return &d->sockets[i];
    }
    return NULL;
}

/* c-ares opens and closes them; neither direction wanted: it is about to be closed. */
static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
    hd_dns_t *d = arg;
    socket_t *s = find_socket(d, fd);
    hd_err_t err = {0};

    if (!readable && !writable) {
        if (s != NULL) {
            hd_watch_stop(d->loop, &s->watch);
            s->is_used = false;
        }
        return;
    }
    if (s != NULL)
        return;
    for (int i = 0; i < SOCKETS_MAX && s == NULL; i++)
        s = d->sockets[i].is_used ? NULL : &d->sockets[i];
    if (s == NULL) /* its time-out ends the question */
        return;
    hd_watch_init(&s->watch);
    s->dns = d;
    if (hd_watch_start(d->loop, &s->watch, fd, on_ready, &err) == HD_OK)
        s->is_used = true;
    else
        hd_log(HD_LOG_ERROR, "dns: %s", err.text);
}

/* --- answers --- */

static int compare(const void *a, const void *b)
{
    const hd_addr_t *x = a, *y = b;

    if (x->family != y->family)
        return (int)x->family - (int)y->family;
    return memcmp(x->v6, y->v6, x->family == AF_INET ? 4 : 16);
}

static bool is_same(const name_t *n, const hd_addr_t *addrs, uint32_t count)
{
    if (n->n != count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!hd_addr_eq(&n->addrs[i], &addrs[i]))
            return false;
    }
    return true;
}

static hd_addr_t *read_addrs(const struct ares_addrinfo *answer, uint32_t *n, int *ttl)
{
    const struct ares_addrinfo_node *node;
    hd_addr_t *addrs;
    uint32_t max = 0;

    for (node = answer->nodes; node != NULL; node = node->ai_next)
        max++;
    addrs = calloc(max + 1, sizeof(*addrs));
    hd_bug_on(addrs == NULL);
    *n = 0;
    *ttl = TTL_MAX_S;
    for (node = answer->nodes; node != NULL; node = node->ai_next) {
        hd_addr_from_sockaddr(node->ai_addr, node->ai_addrlen, &addrs[*n]);
        addrs[*n].port = 0;
        if (addrs[*n].family != AF_UNSPEC)
            ++*n;
        *ttl = hd_min(*ttl, node->ai_ttl);
    }
    qsort(addrs, *n, sizeof(*addrs), compare);
    return addrs;
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer)
{
    name_t *n = arg;
    hd_dns_t *d = n->dns;
    bool was_known = n->is_known, is_new = false;
    int ttl = FAILED_S;

    (void)timeouts;
    n->is_asking = false;
    if (d->is_ending) {
        if (answer != NULL)
            ares_freeaddrinfo(answer);
        return;
    }
    if (status == ARES_SUCCESS && answer != NULL) {
        uint32_t count;
        hd_addr_t *addrs = read_addrs(answer, &count, &ttl);

        is_new = !is_same(n, addrs, count);
        free(n->addrs);
        n->addrs = addrs;
        n->n = count;
    } else {
        hd_log(HD_LOG_WARN, "dns: \"%.*s\": %s%s", HD_STR_ARG(n->host),
               ares_strerror(status), n->n > 0 ? "; the last answer stays" : "");
    }
    if (answer != NULL)
        ares_freeaddrinfo(answer);
    n->is_known = true;
    if (is_new || !was_known)
        hd_post(d->loop, &d->tell);
    hd_timer_set(d->loop, &n->again,
                 (uint64_t)hd_min(hd_max(ttl, TTL_MIN_S), TTL_MAX_S) * 1000);
}

static void ask(name_t *n)
{
    static const struct ares_addrinfo_hints hints = {
        .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    if (n->is_asking)
        return;
    n->is_asking = true;
    ares_getaddrinfo(n->dns->channel, n->host.data, NULL, &hints, on_answer, n);
    set_timeout(n->dns);
}

static void on_again(hd_timer_t *t)
{
    ask(hd_container_of(t, name_t, again));
}

static void on_tell(hd_post_t *p)
{
    hd_dns_t *d = hd_container_of(p, hd_dns_t, tell);

    d->changed(d->arg);
}

hd_dns_answer_t hd_dns_get(hd_dns_t *d, hd_str_t host)
{
    name_t *n = hd_map_get(d->names, host);

    if (n == NULL) {
        n = calloc(1, sizeof(*n));
        hd_bug_on(n == NULL);
        n->dns = d;
        n->host = hd_str_n(strndup(host.data, host.len), host.len);
        hd_bug_on(n->host.data == NULL);
        hd_timer_init(&n->again, on_again);
        hd_ignore(hd_map_put(d->names, n->host, n) == NULL);
        ask(n);
    }
    n->used_ns = hd_loop_now_ns(d->loop);
    return (hd_dns_answer_t){n->addrs, n->n, n->is_known};
}

/* --- life --- */

static void free_name(name_t *n)
{
    hd_timer_stop(n->dns->loop, &n->again);
    free((char *)n->host.data);
    free(n->addrs);
    free(n);
}

void hd_dns_forget(hd_dns_t *d, uint64_t before_ns)
{
    size_t at = 0;
    hd_str_t key;
    void *value;

    while (hd_map_next(d->names, &at, &key, &value)) {
        name_t *n = value;

        if (n->is_asking || n->used_ns >= before_ns)
            continue;
        hd_ignore(hd_map_remove(d->names, key) == NULL);
        free_name(n);
    }
}

hd_dns_t *hd_dns_create(hd_loop_t *loop, void (*changed)(void *arg), void *arg,
                        hd_err_t *err)
{
    hd_dns_t *d = calloc(1, sizeof(*d));
    struct ares_options options = {.timeout = TIMEOUT_MS,
                                   .tries = TRIES,
                                   .sock_state_cb = on_socket,
                                   .sock_state_cb_data = d};
    int rc;

    hd_bug_on(d == NULL);
    d->loop = loop;
    d->changed = changed;
    d->arg = arg;
    rc = ares_library_init(ARES_LIB_INIT_ALL);
    if (rc == ARES_SUCCESS)
        rc = ares_init_options(&d->channel, &options,
                               ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                   ARES_OPT_SOCK_STATE_CB);
    if (rc != ARES_SUCCESS) {
        hd_ignore(hd_err_set(err, HD_E_SYS, "c-ares: %s", ares_strerror(rc)));
        free(d);
        return NULL;
    }
    d->names = hd_map_create();
    hd_timer_init(&d->timeout, on_timeout);
    hd_post_init(&d->tell, on_tell);
    return d;
}

void hd_dns_destroy(hd_dns_t *d)
{
    size_t at = 0;
    void *value;

    d->is_ending = true;
    ares_destroy(d->channel);
    while (hd_map_next(d->names, &at, NULL, &value))
        free_name(value);
    hd_map_destroy(d->names);
    hd_timer_stop(d->loop, &d->timeout);
    hd_post_cancel(&d->tell);
    ares_library_cleanup();
    free(d);
}
