/* hd_syslog: lines to a syslog server (RFC 3164, as nginx sends them):
 *     <190>Nov 29 02:05:07 host heddle: text
 *
 * A server is named by nginx's parameters, as one text: configuration has it checked, and
 * what hd_syslog_check made of it is the name from then on. Each process has a socket of
 * its own for each, made at the first line. Datagrams: nobody ever waits, and what can't
 * be sent is dropped and counted.
 */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

/* Is it such a text? */
static inline bool hd_syslog_is(hd_str_t text)
{
    return hd_str_has_prefix(text, HD_STR("syslog:"));
}

/* "syslog:server=ADDRESS[:PORT][,facility=…][,severity=…][,tag=…][,nohostname]" into
 * <name>, in <pool>. A host name is looked up, which may take its time. */
hd_rc_t hd_syslog_check(hd_pool_t *pool, hd_str_t text, hd_str_t *name,
                        hd_err_t *err) HD_MUST_CHECK;
/* Sends <text>, its newline left out. <severity> 0 to 7 as in RFC 3164 §4.1.1; -1: what
 * <name> says. */
void hd_syslog_send(hd_str_t name, int severity, hd_str_t text);
uint64_t hd_syslog_dropped(void); /* lines, in this process */
