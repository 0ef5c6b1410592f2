/* hd_tls_memory: OpenSSL takes a buffer for each record that it reads or writes and gives
 * it back at once, since idle conns are to hold none. To malloc these are large pieces:
 * it cuts and joins them each time, which costs more than all else that OpenSSL allocates
 * for a record. So a few stay at hand. */
#include "core/base/hd_asan.h"
#include "core/base/hd_spare.h"
#include "core/net/hd_tls_int.h"
#include <malloc.h>
#include <stdlib.h>

#ifndef HD_ASAN /* who uses a buffer that was given back is to be found */

enum {
    /* OpenSSL's for reading and for writing, with heads and padding, have different sizes
     * between these. */
    BUFFER_MIN = HD_TLS_RECORD_MAX,
    BUFFER_BYTES = HD_TLS_RECORD_MAX + 1024,
    KEPT_MAX = 4,
};

static _Thread_local void *kept[KEPT_MAX];
static _Thread_local unsigned kept_n, kept_low;

static void *take(size_t bytes, const char *file, int line)
{
    (void)file;
    (void)line;
    if (hd_likely(bytes <= BUFFER_MIN || bytes > BUFFER_BYTES))
        return bytes > 0 ? malloc(bytes) : NULL;
    if (kept_n == 0)
        return malloc(BUFFER_BYTES);
    kept_n--;
    kept_low = hd_min(kept_low, kept_n);
    return kept[kept_n];
}

static void give(void *at, const char *file, int line)
{
    size_t bytes = at != NULL ? malloc_usable_size(at) : 0;

    (void)file;
    (void)line;
    if (hd_likely(bytes < BUFFER_BYTES || bytes > BUFFER_BYTES + 64 ||
                  kept_n == KEPT_MAX))
        free(at);
    else
        kept[kept_n++] = at;
}

static void *change(void *at, size_t bytes, const char *file, int line)
{
    if (bytes == 0) {
        give(at, file, line);
        return NULL;
    }
    return realloc(at, bytes);
}

static size_t trim(void)
{
    unsigned n = hd_min(kept_low, kept_n);

    for (unsigned i = 0; i < n; i++)
        free(kept[--kept_n]);
    kept_low = kept_n;
    return (size_t)n * BUFFER_BYTES;
}

static hd_spare_t spare = {.trim = trim};

/* Before OpenSSL's first allocation, or it refuses. */
__attribute__((constructor)) static void start(void)
{
    if (CRYPTO_set_mem_functions(take, change, give) == 1)
        hd_spare_register(&spare);
}

#endif
