/* hd_hangup: the end of a conn whose last bytes are queued: a client's with its last
 * response, a tunnel's.
 *
 *   sending --all is out--> our half ends --what still comes is dropped--> gone
 *      \--nothing taken for <send_timeout_ms>: reset
 *
 * A slow reader gets all of it, however long that takes; and an answer given before the
 * request was read isn't lost by a reset (RFC 9112 §9.6). */
#pragma once
#include "core/net/hd_conn.h"

/* How long a client may go on sending (nginx: lingering_close, _time, _timeout). */
typedef struct {
    uint32_t time_ms; /* in all; 0: the conn is closed once all is out */
    uint32_t gap_ms;  /* without a byte; 0: as long as <time_ms> */
} hd_linger_t;

/* At most what 32 bits hold. */
static inline uint32_t hd_ms32(uint64_t ms)
{
    return (uint32_t)hd_min(ms, (uint64_t)UINT32_MAX);
}
/* Takes <c>; its handler hears nothing more. <send_timeout_ms> 0: a minute. */
void hd_hangup(hd_conn_t *c, uint64_t send_timeout_ms, hd_linger_t linger);
