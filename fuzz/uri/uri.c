/* Request targets and what is read out of them. The first byte chooses nginx's or Envoy's
 * way of normalising. A path that was normalised has no dot segments, stays as it is when
 * it is normalised again (nothing is decoded twice), and, nginx's way, comes back from
 * what is sent upstream. What it finds goes to regression/ with its fix. */
#include "http/hd_chars.h"
#include "core/hd_grpc.h"
#include "http/hd_http.h"
#include "http/hd_uri.h"
#include "core/net/hd_addr.h"
#include <stdlib.h>

static void check(bool good)
{
    if (!good)
        abort();
}

static bool is_within(hd_str_t part, hd_str_t whole)
{
    return part.len == 0 ||
           (part.data >= whole.data && part.data + part.len <= whole.data + whole.len);
}

static bool has_segment(hd_str_t path, const char *name)
{
    for (size_t at = 0; at < path.len;) {
        hd_str_t rest = hd_str_sub(path, at + 1, path.len);
        ssize_t end = hd_str_find_char(rest, '/');
        hd_str_t segment = end < 0 ? rest : hd_str_sub(rest, 0, (size_t)end);

        if (hd_str_eq(segment, hd_str_c(name)))
            return true;
        at += 1 + segment.len;
    }
    return false;
}

static void fuzz_path(unsigned how, hd_str_t raw, hd_pool_t *pool)
{
    hd_http_conf_t conf = {.is_xds = how & 1,
                           .normalize_path = how & 2,
                           .merge_slashes = how & 4,
                           .escaped_slashes = how >> 3 & 3};
    bool normal = !conf.is_xds || conf.normalize_path;
    hd_str_t path, query, again, none;

    if (raw.len == 0 || raw.data[0] != '/' ||
        hd_http_normalize_path(raw, &conf, pool, &path, &query) != HD_OK)
        return;
    check(path.len > 0 && path.len <= raw.len && path.data[0] == '/');
    check(is_within(query, raw));
    if (!conf.is_xds || conf.merge_slashes)
        check(hd_str_find(path, HD_STR("//")) < 0);
    if (!normal)
        return;
    check(!has_segment(path, ".") && !has_segment(path, ".."));
    again = conf.is_xds ? path : hd_uri_escape(pool, path);
    check(hd_http_normalize_path(again, &conf, pool, &again, &none) == HD_OK);
    check(hd_str_eq(again, path) && none.len == 0);
}

static void fuzz_parts(hd_str_t text, hd_pool_t *pool)
{
    hd_str_t value;
    hd_addr_t addr;

    if (hd_uri_find_arg(text, HD_STR("a"), &value))
        check(is_within(value, text));
    check(hd_str_eq(hd_grpc_unescape(pool, hd_grpc_escape(pool, text)), text));
    if (hd_http_is_authority(text))
        check(text.len > 0 && !hd_uri_has_bad_bytes(text) &&
              hd_str_find_char(text, '@') < 0 && hd_str_find_char(text, '/') < 0);
    if (hd_addr_parse(pool, text, 80, &addr, NULL) == HD_OK && addr.family != AF_UNIX) {
        char room[HD_ADDR_TEXT_MAX];
        hd_addr_t back;

        check(hd_addr_parse(pool, hd_addr_print(&addr, room), 0, &back, NULL) == HD_OK &&
              hd_addr_eq(&addr, &back));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    hd_pool_t *pool;

    if (n < 1)
        return 0;
    pool = hd_pool_create(0);
    fuzz_path(data[0], hd_str_n((const char *)data + 1, n - 1), pool);
    fuzz_parts(hd_str_n((const char *)data + 1, n - 1), pool);
    hd_pool_destroy(pool);
    return 0;
}
