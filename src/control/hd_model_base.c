#include "control/hd_model_base.h"
#include "core/base/hd_pool.h"
#include <arpa/inet.h>

hd_str_t hd_labels_get(const hd_labels_t *labels, hd_str_t key)
{
    size_t low = 0, high = labels->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = hd_str_cmp(labels->items[mid].key, key);

        if (c == 0)
            return labels->items[mid].value;
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return HD_STR_NONE;
}

bool hd_labels_match(const hd_labels_t *selector, const hd_labels_t *labels)
{
    for (hd_each(p, *selector)) {
        hd_str_t value = hd_labels_get(labels, p->key);

        if (value.data == NULL || !hd_str_eq(value, p->value))
            return false;
    }
    return true;
}

bool hd_strs_has(const hd_strs_t *list, hd_str_t s)
{
    for (hd_each(it, *list)) {
        if (hd_str_eq(*it, s))
            return true;
    }
    return false;
}

static bool is_ip(hd_str_t s)
{
    char text[INET6_ADDRSTRLEN + 1];
    unsigned char addr[16];

    if (s.len >= sizeof(text))
        return false;
    memcpy(text, s.data, s.len);
    text[s.len] = '\0';
    return inet_pton(AF_INET, text, addr) == 1 || inet_pton(AF_INET6, text, addr) == 1;
}

hd_str_t hd_host_resolve(struct hd_pool_s *pool, hd_str_t host, hd_str_t ns,
                         hd_str_t domain)
{
    hd_str_t lower = hd_str_dup_lower(pool, host);

    if (lower.len == 0 || hd_str_find_char(lower, '.') >= 0 ||
        hd_str_eq(lower, HD_STR("*")) || is_ip(lower))
        return lower;
    return hd_str_printf(pool, "%.*s.%.*s.svc.%.*s", HD_STR_ARG(lower), HD_STR_ARG(ns),
                         HD_STR_ARG(domain));
}

bool hd_host_covers(hd_str_t pattern, hd_str_t host)
{
    hd_str_t suffix;

    if (!hd_host_is_wildcard(pattern))
        return hd_str_eq_nocase(pattern, host);
    suffix = hd_str_sub(pattern, 1, pattern.len); /* "" or ".x.com" */
    if (hd_host_is_wildcard(host))
        host = hd_str_sub(host, 1, host.len);
    else if (host.len == suffix.len)
        return suffix.len == 0; /* "*.x.com" isn't ".x.com" */
    return host.len >= suffix.len &&
           hd_str_eq_nocase(hd_str_sub(host, host.len - suffix.len, suffix.len), suffix);
}

bool hd_host_intersects(hd_str_t a, hd_str_t b, hd_str_t *narrow)
{
    bool covers = hd_host_covers(a, b);

    if (!covers && !hd_host_covers(b, a))
        return false;
    if (narrow != NULL)
        *narrow = covers ? b : a;
    return true;
}

int hd_host_cmp_specific(hd_str_t a, hd_str_t b)
{
    bool wild_a = hd_host_is_wildcard(a), wild_b = hd_host_is_wildcard(b);

    if (wild_a != wild_b)
        return wild_a ? 1 : -1;
    if (wild_a && a.len != b.len)
        return a.len > b.len ? -1 : 1;
    return hd_str_cmp(a, b);
}

bool hd_is_exported(const hd_strs_t *list, hd_str_t owner_ns, hd_str_t ns)
{
    if (list->n == 0)
        return true;
    for (hd_each(it, *list)) {
        if (hd_str_eq(*it, HD_STR("*")) || hd_str_eq(*it, ns) ||
            (hd_str_eq(*it, HD_STR(".")) && hd_str_eq(owner_ns, ns)))
            return true;
    }
    return false;
}
