/* hd_tokens: who a caller of the control plane is, by bearer token: a file of lines
 *     TOKEN NAMESPACE SERVICE-ACCOUNT
 * as a machine's administrator hands them out where there is no Kubernetes to vouch for a
 * pod. Read anew when it changes; a broken file leaves the last good one in force.
 * Compared in constant time.
 */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_str.h"

typedef struct hd_tokens_s hd_tokens_t;

typedef struct {
    hd_str_t namespace, account; /* good until the next hd_tokens_find */
} hd_caller_t;

/* The file must exist, belong to nobody else and be unreadable for others (mode 0600 or
 * 0640). */
hd_tokens_t *hd_tokens_open(hd_str_t path, hd_err_t *err) HD_MUST_CHECK;
/* What of that can be told before it is opened, and by another user: it is there, and
 * unreadable for others. */
hd_rc_t hd_tokens_check(hd_str_t path, hd_err_t *err) HD_MUST_CHECK;
void hd_tokens_close(hd_tokens_t *t);
/* Reads it again if it changed. HD_ERROR: what is wrong; the last good content stays. */
hd_rc_t hd_tokens_refresh(hd_tokens_t *t, hd_err_t *err) HD_MUST_CHECK;
/* The same for whoever is about to look one up: what is wrong goes to the log. */
void hd_tokens_renew(hd_tokens_t *t);
bool hd_tokens_find(hd_tokens_t *t, hd_str_t token, hd_caller_t *caller);
