#include "core/base/hd_spare.h"
#include "core/os/hd_os.h"

#define WORTH_BYTES 131072 /* of free heap; less isn't looked for */

static hd_spare_t *spares;
static _Thread_local size_t free_before; /* the pages of so much are given back */

void hd_spare_register(hd_spare_t *s)
{
    s->_next = spares;
    spares = s;
}

size_t hd_spares_trim(void)
{
    size_t bytes = 0, heap_free;

    for (hd_spare_t *s = spares; s != NULL; s = s->_next)
        bytes += s->trim();
    heap_free = hd_os_heap_free();
    if (heap_free >= free_before + WORTH_BYTES) {
        hd_os_heap_trim();
        free_before = heap_free;
    }
    free_before = hd_min(free_before, heap_free);
    return bytes;
}
