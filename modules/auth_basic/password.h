/* password: is a password the one that a line of a user file stands for? nginx's kinds:
 * crypt(3), Apache's $apr1$, {PLAIN}, {SHA}, {SSHA} (RFC 2307). */
#pragma once
#include "hd_module.h"

typedef enum {
    PASSWORD_RIGHT,
    PASSWORD_WRONG,
    PASSWORD_TOO_SLOW, /* it would hold the worker up for longer than is bearable */
    PASSWORD_UNKNOWN,  /* no such kind here */
} password_t;

/* <password> and <stored> end with NUL. Takes some milliseconds at most. */
password_t password_check(hd_str_t password, hd_str_t stored);
