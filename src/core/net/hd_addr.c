#include "core/net/hd_addr.h"
#include "core/base/hd_map.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_mapped(const hd_addr_t *a)
{
    return a->family == AF_INET6 && memcmp(a->v6, mapped_prefix, 12) == 0;
}

/* The bytes of an IP address, a v4-mapped one as v4; how many. 0: not IP. */
static size_t ip_bytes(const hd_addr_t *a, const uint8_t **bytes)
{
    if (a->family == AF_INET) {
        *bytes = a->v4;
        return 4;
    }
    if (a->family != AF_INET6)
        return 0;
    *bytes = is_mapped(a) ? a->v6 + 12 : a->v6;
    return is_mapped(a) ? 4 : 16;
}

void hd_addr_unmap(hd_addr_t *a)
{
    if (!is_mapped(a))
        return;
    memmove(a->v4, a->v6 + 12, 4);
    memset(a->v6 + 4, 0, 12);
    a->family = AF_INET;
    a->scope = 0;
}

/* Parsing */

/* "fe80::1%eth0", "fe80::1%3" (RFC 4007 §11) */
static bool parse_scope(hd_str_t zone, uint32_t *scope)
{
    char name[IF_NAMESIZE];
    uint64_t n;

    if (zone.len == 0 || zone.len >= sizeof(name))
        return false;
    if (hd_str_to_u64(zone, UINT32_MAX, &n)) {
        *scope = (uint32_t)n;
        return n != 0;
    }
    if (memchr(zone.data, '\0', zone.len) != NULL)
        return false;
    memcpy(name, zone.data, zone.len);
    name[zone.len] = '\0';
    *scope = if_nametoindex(name);
    return *scope != 0;
}

bool hd_addr_parse_ip(hd_str_t text, hd_addr_t *addr)
{
    char literal[INET6_ADDRSTRLEN];
    ssize_t percent = hd_str_find_char(text, '%');
    hd_str_t ip = percent < 0 ? text : hd_str_sub(text, 0, (size_t)percent);

    *addr = (hd_addr_t){.family = AF_UNSPEC};
    if (ip.len == 0 || ip.len >= sizeof(literal) || memchr(ip.data, '\0', ip.len) != NULL)
        return false;
    memcpy(literal, ip.data, ip.len);
    literal[ip.len] = '\0';
    if (percent < 0 && inet_pton(AF_INET, literal, addr->v4) == 1) {
        addr->family = AF_INET;
        return true;
    }
    if (inet_pton(AF_INET6, literal, addr->v6) != 1)
        return false;
    if (percent >= 0 &&
        !parse_scope(hd_str_sub(text, (size_t)percent + 1, text.len), &addr->scope))
        return false;
    addr->family = AF_INET6;
    return true;
}

static hd_rc_t parse_unix(hd_pool_t *pool, hd_str_t text, hd_addr_t *addr, hd_err_t *err)
{
    hd_str_t path = hd_str_sub(text, 5, text.len);

    if (path.len == 0)
        return hd_err_set(err, HD_E_CONF, "no path in \"%.*s\": unix:/path or unix:@name",
                          HD_STR_ARG(text));
    if (path.len >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return hd_err_set(err, HD_E_CONF, "the path in \"%.*s\" is longer than 107 bytes",
                          HD_STR_ARG(text));
    if (memchr(path.data, '\0', path.len) != NULL)
        return hd_err_set(err, HD_E_CONF, "a zero byte in the path of a unix socket");
    *addr = (hd_addr_t){.family = AF_UNIX, .path = hd_str_dup(pool, path)};
    return HD_OK;
}

/* Cuts "host:port" and "[v6]:port"; false: nothing like it. A bare v6 has no port. */
static bool split_port(hd_str_t text, hd_str_t *host, hd_str_t *port)
{
    ssize_t at = hd_str_find_char(text, ':');

    *port = HD_STR_NONE;
    *host = text;
    if (text.len > 0 && text.data[0] == '[') {
        ssize_t end = hd_str_find_char(text, ']');

        if (end < 0)
            return false;
        *host = hd_str_sub(text, 1, (size_t)end - 1);
        text = hd_str_sub(text, (size_t)end + 1, text.len);
        if (hd_str_find_char(*host, ':') < 0) /* brackets are for v6 */
            return false;
        if (text.len == 0)
            return true;
        *port = hd_str_sub(text, 1, text.len);
        return text.data[0] == ':' && port->len > 0;
    }
    if (at < 0 || hd_str_find_char(hd_str_sub(text, (size_t)at + 1, text.len), ':') >= 0)
        return true;
    *host = hd_str_sub(text, 0, (size_t)at);
    *port = hd_str_sub(text, (size_t)at + 1, text.len);
    return port->len > 0;
}

static bool is_between(char c)
{
    return c == ' ' || c == ',';
}

bool hd_addr_take_last(hd_str_t *list, hd_addr_t *addr)
{
    size_t end = list->len, at;
    hd_str_t item, host, port;
    uint64_t n = 0;

    while (end > 0 && is_between(list->data[end - 1]))
        end--;
    for (at = end; at > 0 && !is_between(list->data[at - 1]);)
        at--;
    item = hd_str_sub(*list, at, end - at);
    *list = hd_str_sub(*list, 0, at);
    *addr = (hd_addr_t){0};
    if (hd_addr_parse_ip(item, addr))
        return true;
    if (!split_port(item, &host, &port) || !hd_addr_parse_ip(host, addr) ||
        (port.len > 0 && !hd_str_to_u64(port, 65535, &n)))
        return false;
    addr->port = (uint16_t)n;
    return true;
}

hd_rc_t hd_addr_parse(hd_pool_t *pool, hd_str_t text, uint16_t default_port,
                      hd_addr_t *addr, hd_err_t *err)
{
    hd_str_t host, port;
    uint64_t n = default_port;

    *addr = (hd_addr_t){.family = AF_UNSPEC};
    if (hd_str_has_prefix(text, HD_STR("unix:")))
        return parse_unix(pool, text, addr, err);
    if (!split_port(text, &host, &port) || !hd_addr_parse_ip(host, addr))
        return hd_err_set(
            err, HD_E_CONF,
            "\"%.*s\" is no address: 1.2.3.4:80, [::1]:80 or unix:/path is expected",
            HD_STR_ARG(text));
    if (port.len > 0 && (!hd_str_to_u64(port, 65535, &n) || n == 0))
        return hd_err_set(err, HD_E_CONF, "the port in \"%.*s\" is not one of 1 to 65535",
                          HD_STR_ARG(text));
    addr->port = (uint16_t)n;
    return HD_OK;
}

bool hd_cidr_parse(hd_str_t text, hd_cidr_t *cidr)
{
    ssize_t slash = hd_str_find_char(text, '/');
    hd_str_t ip = slash < 0 ? text : hd_str_sub(text, 0, (size_t)slash);
    uint64_t bits, most;

    if (!hd_addr_parse_ip(ip, &cidr->addr))
        return false;
    most = cidr->addr.family == AF_INET ? 32 : 128;
    bits = most;
    if (slash >= 0 &&
        !hd_str_to_u64(hd_str_sub(text, (size_t)slash + 1, text.len), most, &bits))
        return false;
    if (is_mapped(&cidr->addr) && bits >= 96) { /* ::ffff:10.0.0.0/104 is 10.0.0.0/8 */
        hd_addr_t v4 = {.family = AF_INET};

        memcpy(v4.v4, cidr->addr.v6 + 12, 4);
        cidr->addr = v4;
        bits -= 96;
    }
    cidr->bits = (uint8_t)bits;
    return true;
}

/* Comparing */

bool hd_cidr_has(const hd_cidr_t *cidr, const hd_addr_t *addr)
{
    const uint8_t *net = cidr->addr.family == AF_INET ? cidr->addr.v4 : cidr->addr.v6;
    const uint8_t *ip = NULL;
    size_t len = ip_bytes(addr, &ip);
    size_t whole = cidr->bits / 8, rest = cidr->bits % 8;

    if (len == 0 || len != (cidr->addr.family == AF_INET ? 4u : 16u) || whole > len)
        return false;
    if (memcmp(net, ip, whole) != 0)
        return false;
    return rest == 0 || (net[whole] ^ ip[whole]) >> (8 - rest) == 0;
}

bool hd_addr_eq_ip(const hd_addr_t *a, const hd_addr_t *b)
{
    const uint8_t *x = NULL, *y = NULL;
    size_t n = ip_bytes(a, &x), m = ip_bytes(b, &y);

    return n != 0 && n == m && memcmp(x, y, n) == 0;
}

bool hd_addr_eq(const hd_addr_t *a, const hd_addr_t *b)
{
    if (a->family != b->family || a->port != b->port)
        return false;
    switch (a->family) {
    case AF_INET:
        return memcmp(a->v4, b->v4, 4) == 0;
    case AF_INET6:
        return a->scope == b->scope && memcmp(a->v6, b->v6, 16) == 0;
    case AF_UNIX:
        return hd_str_eq(a->path, b->path);
    default:
        return true;
    }
}

uint32_t hd_addr_hash(const hd_addr_t *a)
{
    uint64_t seed = (uint64_t)a->family << 16 | a->port;

    switch (a->family) {
    case AF_INET:
        return (uint32_t)hd_hash64(a->v4, 4, seed);
    case AF_INET6:
        return (uint32_t)hd_hash64(a->v6, 16, seed ^ (uint64_t)a->scope << 32);
    case AF_UNIX:
        return (uint32_t)hd_hash64(a->path.data, a->path.len, seed);
    default:
        return (uint32_t)seed;
    }
}

bool hd_addr_is_loopback(const hd_addr_t *a)
{
    static const uint8_t one[16] = {[15] = 1};

    if (a->family == AF_INET)
        return a->v4[0] == 127;
    if (a->family == AF_INET6)
        return is_mapped(a) ? a->v6[12] == 127 : memcmp(a->v6, one, 16) == 0;
    return a->family == AF_UNIX;
}

bool hd_addr_is_any(const hd_addr_t *a)
{
    static const uint8_t zero[16];

    if (a->family == AF_INET)
        return memcmp(a->v4, zero, 4) == 0;
    return a->family == AF_INET6 && memcmp(a->v6, zero, 16) == 0;
}

/* Printing */

static hd_str_t print(const hd_addr_t *a, bool with_port, char out[HD_ADDR_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN + 12] = "";
    int n;

    switch (a->family) {
    case AF_INET:
        (void)inet_ntop(AF_INET, a->v4, ip, sizeof(ip)); /* there is room for any */
        break;
    case AF_INET6:
        (void)inet_ntop(AF_INET6, a->v6, ip, sizeof(ip));
        if (a->scope != 0)
            snprintf(ip + strlen(ip), sizeof(ip) - strlen(ip), "%%%u", a->scope);
        break;
    case AF_UNIX:
        n = snprintf(out, HD_ADDR_TEXT_MAX, "unix:%.*s", HD_STR_ARG(a->path));
        return hd_str_n(out, (size_t)hd_min(n, HD_ADDR_TEXT_MAX - 1));
    default:
        out[0] = '\0';
        return hd_str_n(out, 0);
    }
    if (!with_port || a->port == 0)
        n = snprintf(out, HD_ADDR_TEXT_MAX, "%s", ip);
    else if (a->family == AF_INET6)
        n = snprintf(out, HD_ADDR_TEXT_MAX, "[%s]:%u", ip, a->port);
    else
        n = snprintf(out, HD_ADDR_TEXT_MAX, "%s:%u", ip, a->port);
    return hd_str_n(out, (size_t)n);
}

hd_str_t hd_addr_print(const hd_addr_t *a, char out[HD_ADDR_TEXT_MAX])
{
    return print(a, true, out);
}

hd_str_t hd_addr_print_ip(const hd_addr_t *a, char out[HD_ADDR_TEXT_MAX])
{
    return print(a, false, out);
}

/* The kernel's form */

static socklen_t to_sockaddr_un(const hd_addr_t *a, struct sockaddr_un *un)
{
    size_t len = hd_min(a->path.len, sizeof(un->sun_path) - 1);

    un->sun_family = AF_UNIX;
    if (len == 0)
        return offsetof(struct sockaddr_un, sun_path);
    memcpy(un->sun_path, a->path.data, len);
    if (un->sun_path[0] == '@') { /* abstract: no file, its length counts */
        un->sun_path[0] = '\0';
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
}

socklen_t hd_addr_to_sockaddr(const hd_addr_t *a, struct sockaddr_storage *ss)
{
    struct sockaddr_in *in = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

    memset(ss, 0, sizeof(*ss));
    switch (a->family) {
    case AF_INET:
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->v4, 4);
        return sizeof(*in);
    case AF_INET6:
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(a->port);
        in6->sin6_scope_id = a->scope;
        memcpy(&in6->sin6_addr, a->v6, 16);
        return sizeof(*in6);
    case AF_UNIX:
        return to_sockaddr_un(a, (struct sockaddr_un *)ss);
    default:
        return 0;
    }
}

static void from_sockaddr_un(const struct sockaddr_un *un, socklen_t len, hd_addr_t *a)
{
    size_t n = len - offsetof(struct sockaddr_un, sun_path);

    a->family = AF_UNIX;
    if (len <= offsetof(struct sockaddr_un, sun_path))
        return; /* unnamed: a client's */
    n = hd_min(n, sizeof(un->sun_path));
    if (un->sun_path[0] != '\0')
        a->path = hd_str_n(un->sun_path, strnlen(un->sun_path, n));
    /* An abstract name would have to be copied to get its '@'; no use needs it. */
}

void hd_addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, hd_addr_t *a)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;

    memset(a, 0, sizeof(*a));
    if (len < (socklen_t)sizeof(sa->sa_family))
        return;
    if (sa->sa_family == AF_INET && len >= (socklen_t)sizeof(*in)) {
        a->family = AF_INET;
        a->port = ntohs(in->sin_port);
        memcpy(a->v4, &in->sin_addr, 4);
    } else if (sa->sa_family == AF_INET6 && len >= (socklen_t)sizeof(*in6)) {
        a->family = AF_INET6;
        a->port = ntohs(in6->sin6_port);
        a->scope = in6->sin6_scope_id;
        memcpy(a->v6, &in6->sin6_addr, 16);
    } else if (sa->sa_family == AF_UNIX) {
        from_sockaddr_un((const struct sockaddr_un *)sa, len, a);
    }
}

hd_addr_t hd_addr_keep(const hd_addr_t *a)
{
    static _Thread_local hd_map_t *paths;
    hd_addr_t kept = *a;
    char *copy;

    if (a->family != AF_UNIX || a->path.len == 0)
        return kept;
    if (paths == NULL)
        paths = hd_map_create();
    copy = hd_map_get(paths, a->path);
    if (copy == NULL) {
        copy = malloc(a->path.len + 1);
        hd_bug_on(copy == NULL);
        memcpy(copy, a->path.data, a->path.len);
        copy[a->path.len] = '\0';
        hd_ignore(hd_map_put(paths, hd_str_n(copy, a->path.len), copy)); /* is new */
    }
    kept.path.data = copy;
    return kept;
}
