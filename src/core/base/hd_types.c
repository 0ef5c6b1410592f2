#include "core/base/hd_types.h"
#include "core/base/hd_log.h"
#include <stdlib.h>

void hd_bug(const char *file, int line, const char *what)
{
    hd_log_write(HD_LOG_ALERT, 0, "bug at %s:%d: %s", file, line, what);
    abort();
}
