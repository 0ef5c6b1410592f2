/* What the service manager hears of the master (hd_notify.h). While an old binary's master
 * is still there, that one is the service's main process and speaks; when it is told to
 * end, it names its successor. */
#include "core/proc/hd_master_int.h"
#include "core/proc/hd_notify.h"
#include <stdio.h>

#define LOOK_MS 200 /* whether the old binary's master is still there */

static hd_timer_t look_timer;

static bool is_main(void)
{
    return !hd_upgrade_is_old_there();
}

void hd_master_tell_serving(void)
{
    const hd_generation_t *g = hd_master.gen;
    char text[128];

    (void)snprintf(text, sizeof(text), "Serving: %u worker%s, generation %u",
                   g->settings.workers_n, g->settings.workers_n == 1 ? "" : "s", g->no);
    if (is_main())
        hd_notify_ready(text);
}

void hd_master_tell_failed(const char *why)
{
    char text[600];

    (void)snprintf(text, sizeof(text),
                   "Serving, but the last reload failed: %.500s; the configuration before "
                   "is in force",
                   why);
    if (is_main())
        hd_notify_ready(text);
}

void hd_master_tell_reloading(void)
{
    if (is_main())
        hd_notify_reloading();
}

void hd_master_tell_ending(void)
{
    if (hd_upgrade_successor() != 0)
        hd_notify_main(hd_upgrade_successor());
    else if (is_main())
        hd_notify_stopping();
}

static void on_alive_due(hd_timer_t *t)
{
    if (is_main())
        hd_notify_alive();
    hd_timer_set(hd_master.loop, t, hd_notify_alive_ms());
}

/* With the old binary's master gone the service is this one, and says how it is. */
static void on_look_due(hd_timer_t *t)
{
    if (!is_main())
        hd_timer_set(hd_master.loop, t, LOOK_MS);
    else if (hd_master.phase == HD_MASTER_RUNNING)
        hd_master_tell_serving();
}

void hd_master_start_alive(void)
{
    hd_timer_init(&look_timer, on_look_due);
    if (!is_main())
        hd_timer_set(hd_master.loop, &look_timer, LOOK_MS);
    hd_timer_init(&hd_master.alive_timer, on_alive_due);
    if (hd_notify_alive_ms() > 0)
        hd_timer_set(hd_master.loop, &hd_master.alive_timer, hd_notify_alive_ms());
}
