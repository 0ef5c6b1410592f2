#include "core/base/hd_err.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

hd_rc_t hd_err_set(hd_err_t *err, hd_err_code_t code, const char *fmt, ...)
{
    va_list args;

    if (err == NULL || err->code != HD_E_NONE)
        return HD_ERROR;
    err->code = code;
    err->sys_errno = 0;
    va_start(args, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    return HD_ERROR;
}

hd_rc_t hd_err_set_sys(hd_err_t *err, int sys_errno, const char *fmt, ...)
{
    char why[128];
    va_list args;
    int n;

    if (err == NULL || err->code != HD_E_NONE)
        return HD_ERROR;
    err->code = HD_E_SYS;
    err->sys_errno = sys_errno;
    va_start(args, fmt);
    n = vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof(err->text))
        (void)snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s",
                       strerror_r(sys_errno, why, sizeof(why)));
    return HD_ERROR;
}

hd_rc_t hd_err_prefix(hd_err_t *err, const char *fmt, ...)
{
    char text[HD_ERR_TEXT_MAX];
    va_list args;
    size_t n, room;
    int rc;

    if (err == NULL || err->code == HD_E_NONE)
        return HD_ERROR;
    va_start(args, fmt);
    rc = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    n = rc < 0 ? 0 : hd_min((size_t)rc, sizeof(text) - 1);
    room = sizeof(text) - 1 - n;
    memmove(err->text + n, err->text, hd_min(strlen(err->text), room) + 1);
    memcpy(err->text, text, n);
    err->text[sizeof(err->text) - 1] = '\0';
    return HD_ERROR;
}

bool hd_err_is_shortage(const hd_err_t *err)
{
    return err->sys_errno == EMFILE || err->sys_errno == ENFILE ||
           err->sys_errno == ENOBUFS || err->sys_errno == ENOMEM;
}

void hd_err_clear(hd_err_t *err)
{
    if (err == NULL)
        return;
    err->code = HD_E_NONE;
    err->sys_errno = 0;
    err->text[0] = '\0';
}
