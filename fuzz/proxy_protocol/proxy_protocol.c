/* Fuzz target: PROXY protocol heads, and the HTTP inspector's guess on the same bytes.
 * What it finds goes to regression/ with its fix. */
#include "core/net/hd_listener_int.h"
#include "core/net/hd_proxy_protocol.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good)
        abort();
}

/* Written again and read again, the addresses are the same. */
static void check_round_trip(const hd_proxy_head_t *head)
{
    static char out[HD_PROXY_HEAD_MAX];
    hd_proxy_head_t again;
    hd_err_t err = {.code = HD_E_NONE};
    size_t n = hd_proxy_print(head->version, &head->remote, &head->local, HD_STR_NONE,
                              out, sizeof(out));

    check(n > 0 && hd_proxy_parse(hd_str_n(out, n), &again, &err) == HD_OK);
    check(again.len == n && !again.is_local);
    check(hd_addr_eq(&again.remote, &head->remote));
    check(hd_addr_eq(&again.local, &head->local));
}

static void check_head(hd_str_t bytes, const hd_proxy_head_t *head)
{
    hd_str_t rest = head->tlvs, value;
    hd_proxy_head_t again;
    hd_err_t err = {.code = HD_E_NONE};
    uint8_t type;

    check(head->len > 0 && head->len <= bytes.len && head->len <= HD_PROXY_HEAD_MAX);
    while (hd_proxy_next_tlv(&rest, &type, &value))
        check(value.data >= bytes.data &&
              value.data + value.len <= bytes.data + head->len);
    check(rest.len == 0);
    /* The head is complete where it says, and not a byte earlier. */
    check(hd_proxy_parse(hd_str_n(bytes.data, head->len), &again, &err) == HD_OK);
    check(hd_proxy_parse(hd_str_n(bytes.data, head->len - 1), &again, &err) == HD_AGAIN);
    if (!head->is_local && head->remote.family != AF_UNIX)
        check_round_trip(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_str_t bytes = hd_str_n((const char *)data, size), protocol;
    hd_proxy_head_t head;
    hd_err_t err = {.code = HD_E_NONE};
    hd_rc_t rc = hd_proxy_parse(bytes, &head, &err);

    if (rc == HD_OK)
        check_head(bytes, &head);
    else
        check(rc == HD_AGAIN || rc == HD_DECLINED ||
              (rc == HD_ERROR && err.text[0] != 0));
    if (size > 0)
        check(hd_guess_http(bytes, &protocol) <= HD_ERROR);
    return 0;
}
