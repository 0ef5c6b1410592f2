/* Weft's frames (lib/weft_frames.h) against the whole engine, as a client to our server:
 * whatever comes, all that was taken is given back. The first byte says how (engine.h).
 * What it finds goes to regression/ with its fix. */
#include "../lib/weft_frames.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1)
        return 0;
    start_engine();
    make_weft_bytes(true, data + 1, n - 1);
    fuzz_client(data[0], hd_weft_serve, NULL);
    check_end();
    return 0;
}
