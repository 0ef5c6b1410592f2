#include "core/net/hd_resolve.h"

#define HOST_MAX 253 /* RFC 1035 3.1, as text */

const hd_resolving_t *hd_resolving;

static bool is_name(hd_str_t host)
{
    if (host.len == 0 || host.len > HOST_MAX || host.data[0] == '.')
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = hd_ascii_lower(host.data[i]);

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' &&
            c != '.')
            return false;
    }
    return hd_str_find(host, HD_STR("..")) < 0;
}

bool hd_resolve_split(hd_str_t text, uint16_t default_port, hd_str_t *host,
                      uint16_t *port)
{
    ssize_t colon = hd_str_find_char(text, ':');
    uint64_t n = default_port;

    *host = colon < 0 ? text : hd_str_sub(text, 0, (size_t)colon);
    if (colon >= 0 &&
        !hd_str_to_u64(hd_str_sub(text, (size_t)colon + 1, text.len), 65535, &n))
        return false;
    *port = (uint16_t)n;
    return n > 0 && is_name(*host);
}

const hd_addr_t *hd_resolve_take(hd_pool_t *pool, const hd_addr_t *addrs, uint32_t n,
                                 uint16_t port)
{
    hd_addr_t *copy = hd_pool_alloc(pool, n * sizeof(*copy));

    for (uint32_t i = 0; i < n; i++) {
        copy[i] = addrs[i];
        copy[i].port = port;
    }
    return copy;
}
