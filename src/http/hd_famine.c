#include "http/hd_famine.h"

#define AGAIN_MS 10 /* until one may be free again */
#define MAX_NS 10000000000u

static void on_due(hd_timer_t *t)
{
    hd_famine_t *f = hd_container_of(t, hd_famine_t, timer);

    f->on_again(f,
                f->since_ns != 0 && hd_loop_now_ns(f->conn->loop) - f->since_ns > MAX_NS);
}

void hd_famine_init(hd_famine_t *f, hd_conn_t *c,
                    void (*on_again)(hd_famine_t *f, bool is_over))
{
    hd_timer_init(&f->timer, on_due);
    f->conn = c;
    f->since_ns = 0;
    f->on_again = on_again;
}

void hd_famine_wait(hd_famine_t *f)
{
    if (hd_timer_is_set(&f->timer))
        return;
    if (f->since_ns == 0)
        f->since_ns = hd_loop_now_ns(f->conn->loop);
    hd_timer_set(f->conn->loop, &f->timer, AGAIN_MS);
}

void hd_famine_stop(hd_famine_t *f)
{
    hd_timer_stop(f->conn->loop, &f->timer);
}
