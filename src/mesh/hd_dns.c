#include "mesh/hd_dns.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/os/hd_os.h"

#include <ares.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define SOCKETS_MAX 32
#define CHANNELS_MAX 32 /* of the same settings */
#define AGAIN_MIN_MS 50
#define AGAIN_MAX_MS (24 * 3600 * 1000u)
#define HOST_MAX 255
#define KEY_MAX (HOST_MAX + 1 + 128 + HD_DNS_SERVERS_MAX * HD_ADDR_TEXT_MAX)
#define TURNS_MAX 64 /* of c-ares at one socket in one event */
#define TIMEOUT_MS 2000
#define TRIES 3
#define CLASS_IN 1
#define TYPE_SRV 33

typedef struct {
    hd_watch_t watch;
    struct channel_s *channel;
    bool is_used, wants_write;
} socket_t;

/* c-ares with one set of servers and options; lasts as long as hd_dns_t. A channel asks
 * all it is asked at a time from one port, which it closes when all is answered: so that
 * a forger has to guess the port, too (RFC 5452 §9.2), each question has a channel of its
 * own while there are not too many. */
typedef struct channel_s {
    struct channel_s *next;
    hd_dns_t *dns;
    hd_str_t key; /* its own copy */
    uint32_t asking_n;
    ares_channel ares;
    bool has_ares; /* its settings could be used */
    socket_t sockets[SOCKETS_MAX];
    hd_timer_t timeout;
} channel_t;

typedef struct hd_dns_name_s {
    hd_dns_t *dns;
    channel_t *channel; /* of the last question */
    hd_dns_conf_t conf;
    hd_str_t key;  /* its own copy: the host, 0, the settings */
    hd_str_t host; /* in <key>, zero-terminated */
    hd_addr_t *addrs, first;
    uint32_t n;
    hd_srv_t *srvs;
    uint32_t srvs_n;
    bool is_known, is_asking;
    bool is_dropped;   /* forgotten: goes with the answer */
    uint32_t failures; /* one after the other */
    uint32_t holds;
    hd_dns_failure_t failure;
    uint64_t answered_ns, until_ns;
    hd_timer_t again;
} name_t;

struct hd_dns_s {
    hd_loop_t *loop;
    channel_t *channels;
    hd_map_t *names;
    hd_post_t tell;
    void (*changed)(void *arg);
    void *arg;
    bool is_ending;
};

/* --- c-ares on our loop --- */

static void set_timeout(channel_t *c)
{
    struct timeval tv;

    if (ares_timeout(c->ares, NULL, &tv) == NULL) {
        hd_timer_stop(c->dns->loop, &c->timeout);
        return;
    }
    hd_timer_set(c->dns->loop, &c->timeout,
                 (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000 + 1);
}

static void on_timeout(hd_timer_t *t)
{
    channel_t *c = hd_container_of(t, channel_t, timeout);

    ares_process_fd(c->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_timeout(c);
}

static socket_t *find_socket(channel_t *c, int fd)
{
    for (int i = 0; i < SOCKETS_MAX; i++) {
        if (c->sockets[i].is_used && c->sockets[i].watch.fd == fd)
            return &c->sockets[i];
    }
    return NULL;
}

/* What c-ares may do now on a socket of its, without waiting. */
static unsigned ready_events(const socket_t *s)
{
    struct pollfd p = {.fd = s->watch.fd,
                       .events = (short)(POLLIN | (s->wants_write ? POLLOUT : 0))};

    if (poll(&p, 1, 0) <= 0)
        return 0;
    return (p.revents & (POLLIN | POLLHUP | POLLERR) ? HD_EV_READ : 0u) |
           (p.revents & POLLOUT ? HD_EV_WRITE : 0u);
}

/* c-ares reads less than there is, and the loop tells of each edge once. */
static void on_ready(hd_watch_t *w, unsigned events)
{
    socket_t *s = hd_container_of(w, socket_t, watch);
    channel_t *c = s->channel;
    ares_socket_t fd = w->fd;

    for (int turns = TURNS_MAX; turns > 0 && events != 0; turns--) {
        ares_process_fd(
            c->ares, events & (HD_EV_READ | HD_EV_HUP | HD_EV_ERR) ? fd : ARES_SOCKET_BAD,
            events & HD_EV_WRITE ? fd : ARES_SOCKET_BAD);
        s = find_socket(c, fd);
        events = s != NULL ? ready_events(s) : 0;
    }
    set_timeout(c);
}

/* c-ares opens and closes them; neither direction wanted: it is about to be closed. */
static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
    channel_t *c = arg;
    socket_t *s = find_socket(c, fd);
    hd_err_t err = {0};

    if (!readable && !writable) {
        if (s != NULL) {
            hd_watch_stop(c->dns->loop, &s->watch);
            s->is_used = false;
        }
        return;
    }
    if (s != NULL && (s->wants_write || !writable)) {
        s->wants_write = writable;
        return;
    }
    if (s != NULL) /* to write, too: another edge is needed */
        hd_watch_stop(c->dns->loop, &s->watch);
    for (int i = 0; i < SOCKETS_MAX && s == NULL; i++)
        s = c->sockets[i].is_used ? NULL : &c->sockets[i];
    if (s == NULL) /* its time-out ends the question */
        return;
    hd_watch_init(&s->watch);
    s->channel = c;
    s->wants_write = writable;
    s->is_used = false;
    if (hd_watch_start(c->dns->loop, &s->watch, fd, on_ready, &err) == HD_OK)
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

static bool has_family(const hd_addr_t *addrs, uint32_t n, uint16_t family)
{
    for (uint32_t i = 0; i < n; i++) {
        if (addrs[i].family == family)
            return true;
    }
    return false;
}

/* Of both families, what <family> wants. */
static uint32_t choose_family(hd_dns_family_t family, hd_addr_t *addrs, uint32_t n)
{
    uint16_t wanted = family == HD_DNS_AUTO ? AF_INET6 : AF_INET;
    uint32_t kept = 0;

    if ((family != HD_DNS_AUTO && family != HD_DNS_V4_PREFERRED) ||
        !has_family(addrs, n, wanted))
        return n;
    for (uint32_t i = 0; i < n; i++) {
        if (addrs[i].family == wanted)
            addrs[kept++] = addrs[i];
    }
    return kept;
}

/* Those that <family> wants, sorted. <ttl>: the least one, in seconds. <first>: in the
 * answer's order; AF_UNSPEC: there is none. */
static hd_addr_t *read_addrs(const struct ares_addrinfo *answer, hd_dns_family_t family,
                             uint32_t *n, int *ttl, hd_addr_t *first)
{
    const struct ares_addrinfo_node *node;
    hd_addr_t *addrs;
    uint32_t max = 0;

    for (node = answer->nodes; node != NULL; node = node->ai_next)
        max++;
    addrs = calloc(max + 1, sizeof(*addrs));
    hd_bug_on(addrs == NULL);
    *n = 0;
    *ttl = INT_MAX;
    for (node = answer->nodes; node != NULL; node = node->ai_next) {
        hd_addr_from_sockaddr(node->ai_addr, node->ai_addrlen, &addrs[*n]);
        addrs[*n].port = 0;
        if (addrs[*n].family != AF_UNSPEC)
            ++*n;
        *ttl = hd_min(*ttl, node->ai_ttl);
    }
    *n = choose_family(family, addrs, *n);
    *first = *n > 0 ? addrs[0] : (hd_addr_t){0};
    qsort(addrs, *n, sizeof(*addrs), compare);
    return addrs;
}

/* When to ask again, in milliseconds. <ttl> in seconds; 0: none is known. */
static uint64_t again_ms(const name_t *n, int ttl)
{
    const hd_dns_conf_t *conf = &n->conf;
    uint64_t refresh = conf->refresh_ms > 0 ? conf->refresh_ms : HD_DNS_REFRESH_MS;
    uint64_t ms = refresh;

    if (n->failures > 0) {
        uint64_t base = conf->failure_ms > 0 ? conf->failure_ms : refresh;
        uint64_t max = conf->failure_max_ms > 0 ? conf->failure_max_ms : base * 10;

        if (conf->failure_ms == 0) /* no back-off was asked for */
            max = base;
        ms = hd_min(base << hd_min(n->failures - 1, 20u), hd_max(max, base));
    } else if (conf->respects_ttl && ttl > 0) {
        ms = (uint64_t)ttl * 1000;
    }
    if (conf->jitter_ms > 0) {
        uint64_t random;

        hd_os_random(&random, sizeof(random));
        ms += random % ((uint64_t)conf->jitter_ms + 1);
    }
    return hd_min(hd_max(ms, (uint64_t)AGAIN_MIN_MS), (uint64_t)AGAIN_MAX_MS);
}

/* Takes <addrs>. True: another answer than before. */
static bool take_addrs(name_t *n, hd_addr_t *addrs, uint32_t count,
                       const hd_addr_t *first)
{
    bool is_new = !is_same(n, addrs, count) ||
                  (n->conf.is_logical && !hd_addr_eq(&n->first, first));

    free(n->addrs);
    n->addrs = addrs;
    n->n = count;
    n->first = *first;
    return is_new;
}

static bool take_srvs(name_t *n, const hd_srv_t *srvs, uint32_t count)
{
    bool is_new = n->srvs_n != count;
    hd_srv_t *copy = calloc(count + 1, sizeof(*copy));

    hd_bug_on(copy == NULL);
    for (uint32_t i = 0; i < count; i++) {
        copy[i] = srvs[i];
        copy[i].ttl = 0; /* tells nobody anything from here on */
        is_new |= i < n->srvs_n && memcmp(&n->srvs[i], &copy[i], sizeof(copy[i])) != 0;
    }
    free(n->srvs);
    n->srvs = copy;
    n->srvs_n = count;
    return is_new;
}

static void free_name(name_t *n)
{
    hd_timer_stop(n->dns->loop, &n->again);
    free((char *)n->key.data);
    free(n->addrs);
    free(n->srvs);
    free(n);
}

/* A question has ended: nobody may want to know. */
static bool is_unwanted(name_t *n)
{
    n->is_asking = false;
    n->channel->asking_n--;
    if (n->is_dropped)
        free_name(n);
    else if (!n->dns->is_ending)
        return false;
    return true;
}

static hd_dns_failure_t failure_of(int status)
{
    switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
        return HD_DNS_NO_NAME;
    case ARES_EREFUSED:
        return HD_DNS_REFUSED;
    case ARES_EFORMERR:
    case ARES_EBADNAME:
        return HD_DNS_BAD_QUERY;
    case ARES_ETIMEOUT:
        return HD_DNS_TIMED_OUT;
    default: /* c-ares tells SERVFAIL of all servers as ECONNREFUSED */
        return HD_DNS_SERVER_FAILED;
    }
}

const char *hd_dns_failure_text(hd_dns_failure_t failure)
{
    switch (failure) {
    case HD_DNS_OK:
        return "Success";
    case HD_DNS_BAD_QUERY:
        return "Format error";
    case HD_DNS_SERVER_FAILED:
        return "Server failure";
    case HD_DNS_NO_NAME:
        return "Host not found";
    case HD_DNS_REFUSED:
        return "Operation refused";
    case HD_DNS_TIMED_OUT:
        return "Operation timed out";
    }
    return "Unknown error";
}

static void note_failure(name_t *n, int status)
{
    bool is_answer = status == ARES_ENOTFOUND || status == ARES_ENODATA;

    n->failure = failure_of(status);
    if (is_answer)
        n->failures = 0;
    else
        n->failures++;
    if (!is_answer || n->n > 0 || n->srvs_n > 0 || !n->is_known)
        hd_log(HD_LOG_WARN, "dns: \"%.*s\": %s%s", HD_STR_ARG(n->host),
               ares_strerror(status),
               !is_answer && (n->n > 0 || n->srvs_n > 0) ? "; the last answer stays"
                                                         : "");
}

/* <ttl> in seconds; 0: none is known. */
static void end_question(name_t *n, bool is_new, int ttl)
{
    uint64_t ms = again_ms(n, ttl);

    n->answered_ns = hd_loop_now_ns(n->dns->loop);
    n->until_ns = n->answered_ns + ms * 1000000;
    if (is_new || !n->is_known || n->conf.is_once)
        hd_post(n->dns->loop, &n->dns->tell);
    n->is_known = true;
    if (!n->conf.is_once)
        hd_timer_set(n->dns->loop, &n->again, ms);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer)
{
    static const hd_addr_t none;
    name_t *n = arg;
    bool is_new = false;
    int ttl = 0;

    (void)timeouts;
    if (is_unwanted(n)) {
        if (answer != NULL)
            ares_freeaddrinfo(answer);
        return;
    }
    n->failure = HD_DNS_OK;
    if (status == ARES_SUCCESS && answer != NULL) {
        uint32_t count;
        hd_addr_t first,
            *addrs = read_addrs(answer, n->conf.family, &count, &ttl, &first);

        n->failures = 0;
        is_new = take_addrs(n, addrs, count, &first);
    } else {
        note_failure(n, status);
        if (n->failures == 0 && !n->conf.is_logical)
            is_new = take_addrs(n, NULL, 0, &none);
    }
    if (answer != NULL)
        ares_freeaddrinfo(answer);
    end_question(n, is_new, ttl);
}

static void on_srv_answer(void *arg, int status, int timeouts, unsigned char *answer,
                          int len)
{
    name_t *n = arg;
    bool is_new = false;
    hd_err_t err = {0};
    hd_srv_t *srvs = NULL;
    uint32_t count = 0, ttl = 0;

    (void)timeouts;
    if (is_unwanted(n))
        return;
    n->failure = HD_DNS_OK;
    if (status == ARES_SUCCESS) {
        srvs = calloc(HD_SRV_MAX, sizeof(*srvs));
        hd_bug_on(srvs == NULL);
        if (hd_dns_read_srv(hd_str_n((const char *)answer, (size_t)len), srvs, &count,
                            &err) != HD_OK) {
            hd_log(HD_LOG_WARN, "dns: \"%.*s\": %s", HD_STR_ARG(n->host), err.text);
            status = ARES_EBADRESP;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        ttl = i == 0 ? srvs[i].ttl : hd_min(ttl, srvs[i].ttl);
    if (status == ARES_SUCCESS)
        n->failures = 0;
    else
        note_failure(n, status);
    if (n->failures == 0)
        is_new = take_srvs(n, srvs, count);
    free(srvs);
    end_question(n, is_new, (int)hd_min(ttl, (uint32_t)INT_MAX));
}

static int ares_family(hd_dns_family_t family)
{
    return family == HD_DNS_V4_ONLY   ? AF_INET
           : family == HD_DNS_V6_ONLY ? AF_INET6
                                      : AF_UNSPEC;
}

static channel_t *free_channel(hd_dns_t *d, hd_str_t key, const hd_dns_conf_t *conf);

static void ask(name_t *n)
{
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT,
                                        .ai_family = ares_family(n->conf.family),
                                        .ai_socktype = SOCK_STREAM};
    channel_t *c; /* a dropped <n> may be gone after the call */

    if (n->is_asking || !n->channel->has_ares)
        return;
    n->channel = c = free_channel(n->dns, n->channel->key, &n->conf);
    n->is_asking = true;
    c->asking_n++;
    if (n->conf.is_srv)
        ares_query(n->channel->ares, n->host.data, CLASS_IN, TYPE_SRV, on_srv_answer, n);
    else
        ares_getaddrinfo(n->channel->ares, n->host.data, NULL, &hints, on_answer, n);
    set_timeout(c);
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

/* --- channels --- */

static uint32_t add_text(char *to, uint32_t at, const char *fmt, ...) HD_PRINTF(3, 4);

static uint32_t add_text(char *to, uint32_t at, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(to + at, KEY_MAX - at, fmt, args);
    va_end(args);
    hd_bug_on(n < 0 || (uint32_t)n >= KEY_MAX - at);
    return at + (uint32_t)n;
}

/* What of <conf> is c-ares's. */
static uint32_t channel_key(const hd_dns_conf_t *conf, char *to, uint32_t at)
{
    char text[HD_ADDR_TEXT_MAX];

    at = add_text(to, at, "%d%d%d%d", conf->is_fallback, conf->uses_tcp,
                  conf->has_no_search, conf->has_no_files);
    for (uint32_t i = 0; i < conf->servers_n; i++) {
        hd_str_t server = hd_addr_print(&conf->servers[i], text);

        at = add_text(to, at, " %.*s", HD_STR_ARG(server));
    }
    return at;
}

static hd_str_t name_key(hd_str_t host, const hd_dns_conf_t *conf, char *to)
{
    uint32_t at;

    memcpy(to, host.data, host.len);
    to[host.len] = '\0';
    at = add_text(to, (uint32_t)host.len + 1, "%d%d%d%d%d %u %u %u %u ", conf->family,
                  conf->respects_ttl, conf->is_logical, conf->is_srv, conf->is_once,
                  conf->refresh_ms, conf->jitter_ms, conf->failure_ms,
                  conf->failure_max_ms);
    return hd_str_n(to, channel_key(conf, to, at));
}

static hd_str_t copy_str(hd_str_t s)
{
    char *copy = malloc(s.len + 1);

    hd_bug_on(copy == NULL);
    memcpy(copy, s.data, s.len);
    copy[s.len] = '\0';
    return hd_str_n(copy, s.len);
}

static int set_servers(channel_t *c, const hd_dns_conf_t *conf)
{
    struct ares_addr_port_node nodes[HD_DNS_SERVERS_MAX] = {0};

    for (uint32_t i = 0; i < conf->servers_n; i++) {
        const hd_addr_t *from = &conf->servers[i];

        nodes[i].next = i + 1 < conf->servers_n ? &nodes[i + 1] : NULL;
        nodes[i].family = from->family;
        memcpy(&nodes[i].addr, from->v6, from->family == AF_INET ? 4 : 16);
        nodes[i].udp_port = nodes[i].tcp_port = from->port > 0 ? from->port : 53;
    }
    return ares_set_servers_ports(c->ares, nodes);
}

/* c-ares takes 127.0.0.1 where the system names no server. */
static bool has_own_servers(channel_t *c)
{
    struct ares_addr_port_node *nodes = NULL;
    bool has = ares_get_servers_ports(c->ares, &nodes) == ARES_SUCCESS && nodes != NULL &&
               (nodes->next != NULL || nodes->family != AF_INET ||
                nodes->addr.addr4.s_addr != htonl(INADDR_LOOPBACK));

    if (nodes != NULL)
        ares_free_data(nodes);
    return has;
}

static int open_channel(channel_t *c, const hd_dns_conf_t *conf)
{
    static char dns_only[] = "b"; /* c-ares copies it */
    struct ares_options options = {.timeout = TIMEOUT_MS,
                                   .tries = TRIES,
                                   .sock_state_cb = on_socket,
                                   .sock_state_cb_data = c};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB, rc;

    options.flags = (conf->uses_tcp ? ARES_FLAG_USEVC : 0) |
                    (conf->has_no_search ? ARES_FLAG_NOSEARCH : 0);
    if (options.flags != 0)
        mask |= ARES_OPT_FLAGS;
    if (conf->has_no_files) {
        options.lookups = dns_only;
        mask |= ARES_OPT_LOOKUPS | ARES_OPT_ROTATE;
    }
    rc = ares_init_options(&c->ares, &options, mask);
    c->has_ares = rc == ARES_SUCCESS;
    if (!c->has_ares || conf->servers_n == 0 || (conf->is_fallback && has_own_servers(c)))
        return rc;
    return set_servers(c, conf);
}

static channel_t *add_channel(hd_dns_t *d, hd_str_t key, const hd_dns_conf_t *conf)
{
    channel_t *c = calloc(1, sizeof(*c));
    int rc;

    hd_bug_on(c == NULL);
    c->dns = d;
    c->key = copy_str(key);
    hd_timer_init(&c->timeout, on_timeout);
    rc = open_channel(c, conf);
    if (rc != ARES_SUCCESS)
        hd_log(HD_LOG_ERROR, "dns: c-ares: %s", ares_strerror(rc));
    c->next = d->channels;
    d->channels = c;
    return c;
}

static void close_channel(channel_t *c)
{
    if (c->has_ares)
        ares_destroy(c->ares);
    hd_timer_stop(c->dns->loop, &c->timeout);
    free((char *)c->key.data);
    free(c);
}

/* Of the settings <key>, which some channel has: one that asks nothing, or that which
 * asks the least. */
static channel_t *free_channel(hd_dns_t *d, hd_str_t key, const hd_dns_conf_t *conf)
{
    channel_t *best = NULL, *c;
    uint32_t n = 0;

    for (c = d->channels; c != NULL; c = c->next) {
        if (!hd_str_eq(c->key, key))
            continue;
        n++;
        if (best == NULL || c->asking_n < best->asking_n)
            best = c;
    }
    if (n >= CHANNELS_MAX || best->asking_n == 0)
        return best;
    c = add_channel(d, key, conf);
    if (c->has_ares)
        return c;
    d->channels = c->next;
    close_channel(c);
    return best;
}

/* One of these settings, made with the first name. */
static channel_t *get_channel(hd_dns_t *d, const hd_dns_conf_t *conf)
{
    char buf[KEY_MAX];
    hd_str_t key = hd_str_n(buf, channel_key(conf, buf, 0));

    for (channel_t *c = d->channels; c != NULL; c = c->next)
        if (hd_str_eq(c->key, key))
            return c;
    return add_channel(d, key, conf);
}

static name_t *add_name(hd_dns_t *d, hd_str_t host, const hd_dns_conf_t *conf)
{
    char key[KEY_MAX];
    name_t *n = calloc(1, sizeof(*n));

    hd_bug_on(n == NULL);
    n->dns = d;
    n->conf = *conf;
    n->channel = get_channel(d, conf);
    n->key = copy_str(name_key(host, conf, key));
    n->host = hd_str_n(n->key.data, host.len);
    hd_timer_init(&n->again, on_again);
    hd_ignore(hd_map_put(d->names, n->key, n) == NULL);
    if (n->channel->has_ares)
        ask(n);
    else
        n->is_known = true;
    return n;
}

static const hd_dns_conf_t plain;

hd_dns_answer_t hd_dns_get(hd_dns_t *d, hd_str_t host, const hd_dns_conf_t *conf)
{
    char key[KEY_MAX];
    name_t *n;

    if (conf == NULL)
        conf = &plain;
    if (host.len == 0 || host.len > HOST_MAX)
        return (hd_dns_answer_t){.is_known = true};
    n = hd_map_get(d->names, name_key(host, conf, key));
    if (n == NULL)
        n = add_name(d, host, conf);
    return (hd_dns_answer_t){.addrs = n->addrs,
                             .n = n->n,
                             .first = n->n > 0 ? &n->first : NULL,
                             .srvs = n->srvs,
                             .srvs_n = n->srvs_n,
                             .is_known = n->is_known,
                             .failure = n->failure,
                             .answered_ns = n->answered_ns,
                             .until_ns = n->until_ns};
}

static name_t *find_name(hd_dns_t *d, hd_str_t host, const hd_dns_conf_t *conf)
{
    char key[KEY_MAX];

    return host.len == 0 || host.len > HOST_MAX
               ? NULL
               : hd_map_get(d->names, name_key(host, conf != NULL ? conf : &plain, key));
}

void hd_dns_ask(hd_dns_t *d, hd_str_t host, const hd_dns_conf_t *conf)
{
    name_t *n = find_name(d, host, conf);

    if (n != NULL)
        ask(n);
    else
        hd_ignore(hd_dns_get(d, host, conf).n == 0); /* asks by itself */
}

void hd_dns_names_add(hd_dns_t *d, hd_dns_names_t *held, hd_str_t host,
                      const hd_dns_conf_t *conf)
{
    name_t *n;

    hd_ignore(hd_dns_get(d, host, conf).n == 0);
    n = find_name(d, host, conf);
    if (n == NULL)
        return;
    held->items = realloc(held->items, (held->n + 1) * sizeof(*held->items));
    hd_bug_on(held->items == NULL);
    held->items[held->n++] = n;
    n->holds++;
}

void hd_dns_names_clear(hd_dns_names_t *held)
{
    for (uint32_t i = 0; i < held->n; i++)
        held->items[i]->holds--;
    free(held->items);
    *held = (hd_dns_names_t){NULL, 0};
}

size_t hd_dns_count(const hd_dns_t *d)
{
    return hd_map_count(d->names);
}

/* --- life --- */

void hd_dns_forget(hd_dns_t *d)
{
    size_t at = 0;
    hd_str_t key;
    void *value;

    while (hd_map_next(d->names, &at, &key, &value)) {
        name_t *n = value;

        if (n->holds > 0)
            continue;
        hd_ignore(hd_map_remove(d->names, key) == NULL);
        hd_timer_stop(d->loop, &n->again);
        n->is_dropped = n->is_asking; /* c-ares has it until then */
        if (!n->is_asking)
            free_name(n);
    }
}

hd_dns_t *hd_dns_create(hd_loop_t *loop, void (*changed)(void *arg), void *arg,
                        hd_err_t *err)
{
    hd_dns_t *d = calloc(1, sizeof(*d));
    int rc;

    hd_bug_on(d == NULL);
    d->loop = loop;
    d->changed = changed;
    d->arg = arg;
    rc = ares_library_init(ARES_LIB_INIT_ALL);
    if (rc != ARES_SUCCESS) {
        hd_ignore(hd_err_set(err, HD_E_SYS, "c-ares: %s", ares_strerror(rc)));
        free(d);
        return NULL;
    }
    d->names = hd_map_create();
    hd_post_init(&d->tell, on_tell);
    return d;
}

void hd_dns_destroy(hd_dns_t *d)
{
    size_t at = 0;
    void *value;

    d->is_ending = true;
    for (channel_t *c = d->channels, *next; c != NULL; c = next) {
        next = c->next;
        close_channel(c);
    }
    while (hd_map_next(d->names, &at, NULL, &value))
        free_name(value);
    hd_map_destroy(d->names);
    hd_post_cancel(&d->tell);
    ares_library_cleanup();
    free(d);
}
