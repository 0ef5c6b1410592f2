/* hd_famine: a conn for which there is no block now (hd_buf.h's limit): it tries again in
 * a moment, and is given up when there was none for ten seconds. */
#pragma once
#include "core/net/hd_conn.h"
#include "core/net/hd_loop.h"

typedef struct hd_famine_s hd_famine_t;

struct hd_famine_s {
    hd_timer_t timer; /* set: there was none */
    hd_conn_t *conn;
    uint64_t since_ns; /* 0: the last time there was one */
    /* Time to try again; <is_over>: to give up. */
    void (*on_again)(hd_famine_t *f, bool is_over);
};

void hd_famine_init(hd_famine_t *f, hd_conn_t *c,
                    void (*on_again)(hd_famine_t *f, bool is_over));
void hd_famine_wait(hd_famine_t *f); /* there was none */
void hd_famine_stop(hd_famine_t *f); /* with its conn */
/* There was one. */
static inline void hd_famine_end(hd_famine_t *f)
{
    f->since_ns = 0;
}
