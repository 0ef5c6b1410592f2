/* Fuzz target: the ClientHello reader. What it finds goes to regression/ with its fix. */
#include "core/net/hd_tls.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What it lends must lie in the bytes or in the result, and no prefix may say more than
 * "more bytes needed" does. */
static void check_text(hd_str_t text, const uint8_t *data, size_t size,
                       const hd_client_hello_t *hello)
{
    const char *bytes = (const char *)data, *own = (const char *)hello;

    if (text.len == 0)
        return;
    if ((text.data >= bytes && text.data + text.len <= bytes + size) ||
        (text.data >= own && text.data + text.len <= own + sizeof(*hello)))
        return;
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_client_hello_t hello;
    hd_rc_t rc = hd_tls_parse_client_hello(hd_str_n((const char *)data, size), &hello);

    if (rc == HD_OK) {
        check_text(hello.sni, data, size, &hello);
        check_text(hello.alpn_wire, data, size, &hello);
        if (hello.version_max > 0x0304 || hello.sni.len > 255)
            abort();
    } else if (rc != HD_AGAIN && rc != HD_DECLINED && rc != HD_ERROR) {
        abort();
    }
    return 0;
}
