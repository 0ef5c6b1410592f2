/* hd_err: why something failed, in words for a person; set once, where it is known.
 *
 * In cold code it is the last parameter: `return hd_err_set(err, HD_E_CONF, "…")`. A conn
 * and a request have one of their own that ends in the access log. Say what is wrong and
 * what would be right.
 */
#pragma once
#include "core/base/hd_types.h"

typedef enum {
    HD_E_NONE = 0,
    HD_E_CONF,     /* configuration: the text starts with file:line where there is one */
    HD_E_SYS,      /* a system call; sys_errno says which way */
    HD_E_PROTOCOL, /* the peer broke a protocol */
    HD_E_TLS,
    HD_E_TIMEOUT,
    HD_E_RESET, /* the peer closed or reset */
    HD_E_LIMIT, /* a ceiling of ours was met */
    HD_E_NO_ROUTE,
    HD_E_NO_CLUSTER,
    HD_E_NO_HEALTHY,
    HD_E_DENIED, /* a policy said no */
    HD_E_MODULE,
    HD_E_RESOURCE, /* an xDS or CRD resource was refused */
    HD_E_INTERNAL,
} hd_err_code_t;

#define HD_ERR_TEXT_MAX 512

typedef struct hd_err_s {
    hd_err_code_t code;
    int sys_errno;
    char text[HD_ERR_TEXT_MAX]; /* zero-terminated, cut if longer */
} hd_err_t;

/* Both return HD_ERROR. <err> may be NULL. The first reason stays: a set error is kept.
 */
hd_rc_t hd_err_set(hd_err_t *err, hd_err_code_t code, const char *fmt, ...)
    HD_PRINTF(3, 4);
/* Appends ": " and errno's text. */
hd_rc_t hd_err_set_sys(hd_err_t *err, int sys_errno, const char *fmt, ...)
    HD_PRINTF(3, 4);
/* Puts a place or circumstance in front of the reason ("t.conf:3: " …). */
hd_rc_t hd_err_prefix(hd_err_t *err, const char *fmt, ...) HD_PRINTF(2, 3);
/* This process or machine has no more descriptors or memory: no peer has a part in it. */
bool hd_err_is_shortage(const hd_err_t *err);
void hd_err_clear(hd_err_t *err);
