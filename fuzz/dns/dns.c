/* Fuzz target: SRV records of a DNS answer. What it finds goes to regression/ with its
 * fix.
 */
#include "mesh/hd_dns_srv.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good)
        abort();
}

static void check_target(const char *target)
{
    size_t len = strnlen(target, HD_DNS_NAME_MAX), label = 0;

    check(len > 0 && len < HD_DNS_NAME_MAX);
    for (size_t i = 0; i < len; i++) {
        label = target[i] == '.' ? 0 : label + 1;
        check(label <= 63 && (label > 0 || (i > 0 && target[i - 1] != '.')));
        check(target[i] == hd_ascii_lower(target[i]));
    }
    check(label > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static hd_srv_t records[HD_SRV_MAX];
    hd_err_t err = {.code = HD_E_NONE};
    uint32_t n;

    if (hd_dns_read_srv(hd_str_n((const char *)data, size), records, &n, &err) != HD_OK) {
        check(err.code != HD_E_NONE);
        return 0;
    }
    check(n <= HD_SRV_MAX);
    for (uint32_t i = 0; i < n; i++) {
        check(records[i].ttl <= 0x7fffffff);
        check_target(records[i].target);
    }
    return 0;
}
