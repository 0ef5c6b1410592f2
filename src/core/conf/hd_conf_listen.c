#include "core/conf/hd_conf_listen.h"

#include <netdb.h>
#include <unistd.h>

/* --- the address --- */

static hd_rc_t add_address(hd_conf_t *cf, hd_array_t *listens, const hd_addr_t *addr,
                           hd_err_t *err)
{
    hd_conf_listen_t *l = hd_array_add(listens);
    char text[HD_ADDR_TEXT_MAX];

    if (l == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d addresses to listen on",
                          HD_CONF_LISTENS_MAX);
    l->socket = (hd_socket_spec_t){.bind = *addr,
                                   .family = addr->family,
                                   .type = SOCK_STREAM,
                                   .listen = true,
                                   .v6only = addr->family == AF_INET6,
                                   .nodelay = addr->family != AF_UNIX};
    l->name = hd_str_dup(cf->temp, hd_addr_print(addr, text));
    l->node = cf->node;
    return HD_OK;
}

static bool is_port(hd_str_t text, uint16_t *port)
{
    uint64_t n;

    if (!hd_str_to_u64(text, 65535, &n) || n == 0)
        return false;
    *port = (uint16_t)n;
    return true;
}

/* A host name, as in "localhost:8080". */
static hd_rc_t add_named(hd_conf_t *cf, hd_array_t *listens, hd_str_t text, hd_err_t *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
    ssize_t colon = hd_str_find_char(text, ':');
    hd_str_t host = colon < 0 ? text : hd_str_sub(text, 0, (size_t)colon);
    uint16_t port = 80;
    hd_rc_t rc = HD_OK;

    if (colon >= 0 && !is_port(hd_str_sub(text, (size_t)colon + 1, text.len), &port))
        return hd_err_set(err, HD_E_CONF,
                          "invalid port in \"%.*s\" of the \"listen\" directive: 1 to "
                          "65535",
                          HD_STR_ARG(text));
    if (host.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "no host in \"%.*s\" of the \"listen\" directive",
                          HD_STR_ARG(text));
    if (getaddrinfo(hd_str_to_c(cf->temp, host), NULL, &hints, &list) != 0)
        return hd_err_set(err, HD_E_CONF,
                          "host not found in \"%.*s\" of the \"listen\" directive",
                          HD_STR_ARG(text));
    for (struct addrinfo *ai = list; ai != NULL && rc == HD_OK; ai = ai->ai_next) {
        hd_addr_t addr;

        hd_addr_from_sockaddr(ai->ai_addr, ai->ai_addrlen, &addr);
        addr.port = port;
        rc = add_address(cf, listens, &addr, err);
    }
    freeaddrinfo(list);
    return rc;
}

static hd_rc_t add_unix(hd_conf_t *cf, hd_array_t *listens, hd_str_t path, hd_err_t *err)
{
    hd_addr_t addr = {.family = AF_UNIX, .path = hd_str_dup(cf->temp, path)};

    if (path.len == 0 || path.len > 107)
        return hd_err_set(err, HD_E_CONF,
                          "a unix socket's path has 1 to 107 bytes, not %zu", path.len);
    return add_address(cf, listens, &addr, err);
}

static hd_rc_t add_text(hd_conf_t *cf, hd_array_t *listens, hd_str_t text, hd_err_t *err)
{
    hd_addr_t addr = {.family = AF_INET};
    hd_err_t ignored = {0};

    if (hd_str_has_prefix(text, HD_STR("unix:")))
        return add_unix(cf, listens, hd_str_sub(text, 5, text.len), err);
    if (is_port(text, &addr.port))
        return add_address(cf, listens, &addr, err);
    if (hd_str_has_prefix(text, HD_STR("*:"))) {
        if (is_port(hd_str_sub(text, 2, text.len), &addr.port))
            return add_address(cf, listens, &addr, err);
        return hd_err_set(err, HD_E_CONF,
                          "invalid port in \"%.*s\" of the \"listen\" directive: 1 to "
                          "65535",
                          HD_STR_ARG(text));
    }
    if (hd_addr_parse(cf->temp, text, 80, &addr, &ignored) == HD_OK) {
        if (addr.port == 0)
            return hd_err_set(
                err, HD_E_CONF,
                "invalid port in \"%.*s\" of the \"listen\" directive: 1 to "
                "65535",
                HD_STR_ARG(text));
        return add_address(cf, listens, &addr, err);
    }
    if (text.len > 0 &&
        (text.data[0] == '[' || (text.data[0] >= '0' && text.data[0] <= '9')))
        return hd_err_set(err, HD_E_CONF,
                          "invalid address or port in \"%.*s\" of the "
                          "\"listen\" directive: %s",
                          HD_STR_ARG(text), ignored.text);
    return add_named(cf, listens, text, err);
}

/* --- parameters --- */

static bool take_value(hd_str_t arg, hd_str_t name, hd_str_t *value)
{
    if (!hd_str_has_prefix(arg, name))
        return false;
    *value = hd_str_sub(arg, name.len, arg.len);
    return true;
}

/* on, off, or [idle]:[interval]:[probes]; the kernel's usual figures for what is left
 * out. */
static hd_rc_t set_keepalive(hd_str_t value, hd_socket_spec_t *s, hd_err_t *err)
{
    hd_str_t rest = value, part;
    uint32_t *field[] = {&s->keepalive_idle_s, &s->keepalive_interval_s,
                         &s->keepalive_probes};
    unsigned i;

    if (hd_str_eq(value, HD_STR("off")))
        return HD_OK;
    s->keepalive_idle_s = 7200;
    s->keepalive_interval_s = 75;
    s->keepalive_probes = 9;
    if (hd_str_eq(value, HD_STR("on")))
        return HD_OK;
    for (i = 0; i < 3 && hd_str_split(&rest, ':', &part); i++) {
        uint64_t n;

        if (part.len == 0)
            continue;
        if (i < 2) {
            if (hd_parse_msec(part, &n, err) != HD_OK)
                return HD_ERROR;
            n /= 1000;
        } else if (!hd_str_to_u64(part, 1000, &n)) {
            break;
        }
        if (n == 0)
            break;
        *field[i] = (uint32_t)hd_min(n, UINT32_MAX);
    }
    if (i == 3 && rest.len == 0)
        return HD_OK;
    return hd_err_set(err, HD_E_CONF,
                      "invalid so_keepalive \"%.*s\": on, off, or "
                      "[idle]:[interval]:[probes] as in 30m::10",
                      HD_STR_ARG(value));
}

static hd_rc_t set_buffer(hd_str_t value, int *bytes, hd_err_t *err)
{
    uint64_t n;

    if (hd_parse_size(value, INT32_MAX, &n, err) != HD_OK)
        return HD_ERROR;
    *bytes = (int)n;
    return HD_OK;
}

/* Options of the socket, which may stand once for an address. HD_DECLINED: not one. */
static hd_rc_t set_option(hd_str_t arg, hd_socket_spec_t *s, hd_err_t *err)
{
    hd_str_t value;
    uint64_t n;

    if (hd_str_eq(arg, HD_STR("bind")))
        return HD_OK; /* each address is bound by itself anyway */
    if (hd_str_eq(arg, HD_STR("reuseport"))) {
        s->reuseport = true;
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("transparent"))) {
        if (s->bind.family == AF_UNIX)
            return hd_err_set(err, HD_E_CONF, "transparent is for IP addresses");
        s->transparent = true;
        return HD_OK;
    }
    if (take_value(arg, HD_STR("backlog="), &value)) {
        if (!hd_str_to_u64(value, 1000000, &n) || n == 0)
            return hd_err_set(err, HD_E_CONF, "invalid backlog \"%.*s\": 1 to 1000000",
                              HD_STR_ARG(value));
        s->backlog = (int)n;
        return HD_OK;
    }
    if (take_value(arg, HD_STR("fastopen="), &value)) {
        if (!hd_str_to_u64(value, 65535, &n) || n == 0)
            return hd_err_set(err, HD_E_CONF, "invalid fastopen \"%.*s\": 1 to 65535",
                              HD_STR_ARG(value));
        s->fastopen = (int)n;
        return HD_OK;
    }
    if (take_value(arg, HD_STR("rcvbuf="), &value))
        return set_buffer(value, &s->rcvbuf, err);
    if (take_value(arg, HD_STR("sndbuf="), &value))
        return set_buffer(value, &s->sndbuf, err);
    if (take_value(arg, HD_STR("so_keepalive="), &value))
        return set_keepalive(value, s, err);
    if (take_value(arg, HD_STR("ipv6only="), &value)) {
        if (s->family != AF_INET6)
            return hd_err_set(err, HD_E_CONF, "ipv6only is only for an IPv6 address");
        if (!hd_str_eq(value, HD_STR("on")) && !hd_str_eq(value, HD_STR("off")))
            return hd_err_set(err, HD_E_CONF, "invalid ipv6only flag \"%.*s\": on or off",
                              HD_STR_ARG(value));
        s->v6only = hd_str_eq(value, HD_STR("on"));
        return HD_OK;
    }
    return HD_DECLINED;
}

/* Each worker has a socket of its own, so that a client's datagrams come to one of them.
 */
static hd_rc_t set_udp(hd_conf_t *cf, hd_conf_listen_t *l, hd_err_t *err)
{
    if (l->socket.bind.family == AF_UNIX)
        return hd_err_set(err, HD_E_CONF, "udp is for IP addresses");
    if (l->socket.type == SOCK_DGRAM)
        return HD_OK;
    l->socket.type = SOCK_DGRAM;
    l->socket.listen = l->socket.nodelay = false;
    l->socket.reuseport = true;
    l->name = hd_str_printf(cf->temp, "%.*s udp", HD_STR_ARG(l->name));
    return HD_OK;
}

/* What makes no sense for datagrams. */
static hd_rc_t check_udp(const hd_conf_listen_t *l, hd_err_t *err)
{
    const char *what = l->socket.type != SOCK_DGRAM      ? NULL
                       : l->is_ssl                       ? "ssl"
                       : l->proxy_protocol               ? "proxy_protocol"
                       : l->original_dst                 ? "original_dst"
                       : l->socket.transparent           ? "transparent"
                       : l->socket.backlog != 0          ? "backlog"
                       : l->socket.fastopen != 0         ? "fastopen"
                       : l->socket.keepalive_idle_s != 0 ? "so_keepalive"
                                                         : NULL;

    return what == NULL ? HD_OK
                        : hd_err_set(err, HD_E_CONF,
                                     "\"%s\" is for connections, not for udp", what);
}

static hd_rc_t set_parameter(hd_conf_t *cf, hd_str_t arg, bool is_stream,
                             hd_conf_listen_t *l, hd_err_t *err)
{
    hd_rc_t rc = set_option(arg, &l->socket, err);

    if (rc != HD_DECLINED) {
        l->has_options = true;
        return rc;
    }
    if (hd_str_eq(arg, HD_STR("ssl"))) {
        l->is_ssl = true;
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("proxy_protocol"))) {
        l->proxy_protocol = true;
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("original_dst"))) {
        l->original_dst = true;
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("deferred"))) {
        if (cf->node->uses == 1)
            hd_conf_warn(cf, "\"deferred\" has no effect: connections are read at once");
        return HD_OK;
    }
    if (!is_stream && hd_str_eq(arg, HD_STR("http2"))) {
        l->is_http2 = true;
        return HD_OK;
    }
    if (hd_str_eq(arg, HD_STR("default_server")) ||
        (!is_stream && hd_str_eq(arg, HD_STR("default")))) {
        l->is_default = true;
        return HD_OK;
    }
    if (is_stream && hd_str_eq(arg, HD_STR("udp")))
        return set_udp(cf, l, err);
    if (hd_str_eq(arg, HD_STR("udp")) || hd_str_eq(arg, HD_STR("quic")))
        return hd_err_set(err, HD_E_CONF,
                          "\"%.*s\" is not supported: HTTP is served over TCP",
                          HD_STR_ARG(arg));
    return hd_err_set(
        err, HD_E_CONF,
        "invalid parameter \"%.*s\"; allowed are ssl, %sdefault_server, "
        "proxy_protocol, original_dst, transparent, bind, reuseport, backlog=, "
        "fastopen=, rcvbuf=, sndbuf=, ipv6only=, so_keepalive=, deferred%s",
        HD_STR_ARG(arg), is_stream ? "" : "http2, ", is_stream ? ", udp" : "");
}

hd_rc_t hd_conf_parse_listen(hd_conf_t *cf, const hd_str_t *args, bool is_stream,
                             hd_array_t *listens, hd_err_t *err)
{
    size_t first = listens->n;

    if (add_text(cf, listens, args[0], err) != HD_OK)
        return HD_ERROR;
    for (size_t i = first; i < listens->n; i++) {
        hd_conf_listen_t *l = hd_array_at(listens, hd_conf_listen_t, i);

        for (uint32_t a = 1; a < cf->node->args_n; a++) {
            if (set_parameter(cf, args[a], is_stream, l, err) != HD_OK)
                return HD_ERROR;
        }
        for (size_t k = 0; k < i; k++) {
            if (hd_str_eq(hd_array_at(listens, hd_conf_listen_t, k)->name, l->name))
                return hd_err_set(err, HD_E_CONF, "a duplicate listen %.*s",
                                  HD_STR_ARG(l->name));
        }
        if (check_udp(l, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

hd_rc_t hd_conf_default_listen(hd_conf_t *cf, hd_array_t *listens, hd_err_t *err)
{
    hd_addr_t addr = {.family = AF_INET, .port = geteuid() == 0 ? 80 : 8000};

    return add_address(cf, listens, &addr, err);
}

hd_rc_t hd_conf_merge_listen(hd_conf_listen_t *to, const hd_conf_listen_t *from,
                             hd_err_t *err)
{
    if (from->is_default && to->is_default)
        return hd_err_set(err, HD_E_CONF,
                          "a duplicate default server for %.*s: the other is in %.*s:%u",
                          HD_STR_ARG(to->name), HD_STR_ARG(to->node->file),
                          to->node->line);
    if (from->has_options && to->has_options)
        return hd_err_set(err, HD_E_CONF,
                          "duplicate listen options for %.*s: the others are in %.*s:%u",
                          HD_STR_ARG(to->name), HD_STR_ARG(to->node->file),
                          to->node->line);
    if (from->has_options)
        to->socket = from->socket;
    to->has_options |= from->has_options;
    to->is_default |= from->is_default;
    to->is_ssl |= from->is_ssl;
    to->is_http2 |= from->is_http2;
    to->proxy_protocol |= from->proxy_protocol;
    to->original_dst |= from->original_dst;
    return HD_OK;
}
