#include "core/os/hd_os.h"
#include <stdlib.h> /* tells whose libc it is */

#ifdef __GLIBC__
#include <malloc.h>

size_t hd_os_heap_free(void)
{
    return mallinfo2().fordblks;
}

void hd_os_heap_trim(void)
{
    (void)malloc_trim(0);
}
#else
size_t hd_os_heap_free(void)
{
    return 0;
}

void hd_os_heap_trim(void)
{
}
#endif
