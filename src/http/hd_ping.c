#include "http/hd_ping.h"

static void on_timer(hd_timer_t *t)
{
    hd_ping_t *p = hd_container_of(t, hd_ping_t, timer);

    if (p->waits) {
        p->on_due(p, true);
        return;
    }
    p->waits = true;
    hd_timer_set(p->loop, t, p->timeout_ms);
    p->on_due(p, false);
}

void hd_ping_init(hd_ping_t *p, hd_loop_t *loop,
                  void (*on_due)(hd_ping_t *p, bool is_dead))
{
    *p = (hd_ping_t){.loop = loop, .on_due = on_due};
    hd_timer_init(&p->timer, on_timer);
}

void hd_ping_start(hd_ping_t *p, uint64_t every_ms, uint64_t timeout_ms)
{
    p->every_ms = every_ms;
    p->timeout_ms = timeout_ms;
    if (every_ms > 0)
        hd_timer_set(p->loop, &p->timer, every_ms);
}

void hd_ping_answered(hd_ping_t *p)
{
    if (!p->waits)
        return;
    p->waits = false;
    hd_timer_set(p->loop, &p->timer, p->every_ms);
}

void hd_ping_stop(hd_ping_t *p)
{
    hd_timer_stop(p->loop, &p->timer);
}
