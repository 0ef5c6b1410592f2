/* hd_splice: bytes from one socket to another through a kernel pipe, without coming up
 * here: the tunnel's fast path. Private to core/net. */
#pragma once
#include "core/net/hd_conn.h"

typedef struct {
    int pipe[2];      /* -1: closed */
    size_t in_pipe;   /* bytes that were taken and not yet given */
    size_t since_dry; /* taken since the source last had nothing */
    unsigned dry_n;   /* times running that it had little to give */
} hd_splice_t;

typedef enum {
    HD_SPLICE_DRY,   /* the source has nothing now, and the pipe neither */
    HD_SPLICE_FULL,  /* the target takes nothing now; on_writable will come */
    HD_SPLICE_MORE,  /* <budget> is used up */
    HD_SPLICE_ENDED, /* the source's end, all was given */
    HD_SPLICE_FROM_FAILED,
    HD_SPLICE_TO_FAILED, /* the conn's err is set */
} hd_splice_end_t;

void hd_splice_init(hd_splice_t *s);
/* May <from> be spliced to <to>? Both bare sockets with nothing of theirs in our hands.
 */
bool hd_splice_may(const hd_conn_t *from, const hd_conn_t *to);
/* False: no pipe to be had now. */
bool hd_splice_try_open(hd_splice_t *s) HD_MUST_CHECK;
static inline bool hd_splice_is_open(const hd_splice_t *s)
{
    return s->pipe[0] >= 0;
}
/* Bytes are counted in both conns; *moved is what reached <to>. */
hd_splice_end_t hd_splice_run(hd_splice_t *s, hd_conn_t *from, hd_conn_t *to,
                              size_t budget, size_t *moved);
/* Little came several times running: recv and send are cheaper. The pipe is empty. */
bool hd_splice_is_idle(const hd_splice_t *s);
void hd_splice_close(hd_splice_t *s);
/* For heddle_spliced_bytes_total; <m> NULL: counts nowhere. */
void hd_splice_count(hd_member_t *m, size_t bytes);
