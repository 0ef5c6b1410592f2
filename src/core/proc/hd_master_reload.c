/* The master and its loaders: one configuration after another, each wholly or not at all.
 *
 *   HUP -> BUILDING -SETTINGS-> PREPARING -all have the descriptors-> PUBLISHING
 *       -PUBLISHED-> RECLAIMING -> (ends by itself)
 */
#include "core/proc/hd_master_int.h"
#include "core/proc/hd_pid_file.h"
#include "core/os/hd_clock.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static bool needs_generation; /* the loader at work has said so */
static bool did_publish;      /* it has, and wasn't told to stop since */

static hd_generation_t *at_work(void)
{
    return hd_master.next != NULL ? hd_master.next : hd_master.gen;
}

static void stop_loader(void)
{
    did_publish = false;
    hd_ignore(hd_child_send(&at_work()->loader, HD_MSG_STOP, NULL, 0, NULL, 0));
}

void hd_master_reload(void)
{
    if (hd_master.phase > HD_MASTER_RUNNING) {
        hd_log(HD_LOG_NOTICE, "nothing is read any more: the program is ending");
        return;
    }
    if (hd_master.loader_state != HD_LOADER_NONE || hd_master.next != NULL) {
        hd_master.reload_again = true;
        /* It only waits for what it retired: the next one takes that over. */
        if (hd_master.loader_state == HD_LOADER_RECLAIMING)
            stop_loader();
        return;
    }
    if (hd_master.was_published)
        hd_log(HD_LOG_NOTICE, "reconfiguring");
    hd_master.loader_state = HD_LOADER_BUILDING;
    hd_master_fork(&hd_master.gen->loader);
}

void hd_master_fail(const char *why)
{
    hd_sockets_abort(HD_BY_LOADER);
    hd_generation_abandon();
    if (hd_master.was_published) {
        hd_log(HD_LOG_EMERG,
               "reload failed: %s; the configuration in force before stays so", why);
        if (hd_master.phase == HD_MASTER_RUNNING && !hd_master.reload_again)
            hd_master_tell_failed(why);
    } else {
        hd_tell(HD_LOG_EMERG, "%s", why);
        hd_master_stop(1);
    }
}

/* Failed after SETTINGS: the loader is told to go. */
static void refuse(const char *why)
{
    hd_master.loader_state = HD_LOADER_RECLAIMING;
    stop_loader();
    hd_master_fail(why);
}

/* --- SETTINGS --- */

static void on_prepared(hd_requester_t by, const hd_err_t *err)
{
    (void)by;
    if (hd_master.loader_state != HD_LOADER_PREPARING)
        return;
    if (err != NULL) {
        refuse(err->text);
        return;
    }
    hd_master.loader_state = HD_LOADER_PUBLISHING;
    hd_ignore(hd_child_send(&at_work()->loader, HD_MSG_PUBLISH, NULL, 0, NULL, 0));
}

static hd_rc_t need_all(const hd_settings_t *s, hd_err_t *err)
{
    int fd;

    for (uint32_t i = 0; i < s->listens_n; i++)
        if (hd_sockets_need(HD_BY_LOADER, &s->listens[i], err) != HD_OK)
            return HD_ERROR;
    for (uint32_t i = 0; i < s->logs_n; i++)
        if (hd_sockets_need_log(HD_BY_LOADER, hd_str_c(s->logs[i]), err) != HD_OK)
            return HD_ERROR;
    if (s->error_log[0] == '\0')
        return HD_OK;
    fd = hd_open_log(s->error_log, err);
    if (fd < 0)
        return HD_ERROR;
    hd_ignore(close(fd)); /* it can be opened: that was the question */
    return HD_OK;
}

static void on_settings(void)
{
    hd_settings_t *s = hd_master.shared;
    hd_err_t err = {0};

    if (hd_master.next != NULL && !hd_generation_fits(hd_master.next, s)) {
        hd_master.reload_again = true;
        refuse("the configuration changed again while it was read");
        return;
    }
    s->listens_n = hd_min(s->listens_n, (uint32_t)HD_LISTENS_MAX);
    s->logs_n = hd_min(s->logs_n, (uint32_t)HD_LOG_FILES_MAX);
    for (uint32_t i = 0; i < s->listens_n; i++)
        hd_ignore(!hd_listen_item_fix(&s->listens[i])); /* each has an address */
    hd_master.loader_state = HD_LOADER_PREPARING;
    if (need_all(s, &err) != HD_OK)
        refuse(err.text);
    else
        hd_sockets_prepare(HD_BY_LOADER, on_prepared);
}

/* --- PUBLISHED --- */

static void write_pid_file(const char *path)
{
    hd_err_t err = {0};

    if (hd_pid_file_write(path, &err) == HD_OK)
        return;
    if (hd_master.phase == HD_MASTER_STARTING) {
        hd_tell(HD_LOG_EMERG, "%s", err.text);
        hd_master_stop(1);
    } else {
        hd_log(HD_LOG_ALERT, "%s", err.text);
    }
}

void hd_master_put_in_force(const hd_settings_t *old)
{
    const hd_settings_t *s = &hd_master.gen->settings;
    hd_err_t err = {0};

    hd_master.was_published = true;
    hd_settings_use_levels(s);
    if (old == NULL && hd_use_error_log(s->error_log, &err) != HD_OK)
        hd_tell(HD_LOG_ALERT, "%s", err.text);
    else if (old != NULL) /* as nginx: a file that was moved away is begun anew */
        hd_sockets_reopen_logs(true);
    hd_sockets_commit(HD_BY_LOADER, true);
    write_pid_file(s->pid_path);
}

/* Into living processes, or as the first of all. */
static void put_shared_in_force(void)
{
    static hd_settings_t old;
    hd_generation_t *g = hd_master.gen;
    bool had_old = hd_master.was_published;

    if (had_old)
        hd_settings_copy(&old, &g->settings);
    hd_settings_copy(&g->settings, hd_master.shared);
    g->step = HD_GEN_IN_FORCE;
    hd_generation_use(g);
    hd_master_put_in_force(had_old ? &old : NULL);
}

static void on_published(uint64_t changed)
{
    bool is_first = !hd_master.was_published;

    did_publish = true;
    hd_master.is_settled = false; /* what it replaced may be in use still */
    hd_master.loader_state = HD_LOADER_RECLAIMING;
    if (hd_master.next != NULL) {
        hd_generation_begin();
        return;
    }
    put_shared_in_force();
    if (!is_first)
        hd_log(HD_LOG_NOTICE, "reload done: %llu resources changed",
               (unsigned long long)changed);
    if (hd_master.phase <= HD_MASTER_RUNNING)
        hd_master_spawn_all(hd_master.gen);
    if (hd_master.phase == HD_MASTER_RUNNING && !is_first && !hd_master.reload_again)
        hd_master_tell_serving();
    if (hd_master.reload_again)
        stop_loader();
}

/* --- what living processes can't follow --- */

static void on_generation(const hd_msg_head_t *head, const void *payload)
{
    hd_log(HD_LOG_NOTICE, "%.*s changed: new processes are started", (int)head->len,
           (const char *)payload);
    hd_master.loader_state = HD_LOADER_RECLAIMING; /* it ends now */
    needs_generation = true;
}

static void make_generation(void)
{
    hd_err_t err = {0};

    needs_generation = false;
    hd_master.next = hd_generation_create(hd_master.shared, &err);
    if (hd_master.next == NULL) {
        hd_master_fail(err.text);
        return;
    }
    hd_master.loader_state = HD_LOADER_BUILDING;
    hd_master_fork(&hd_master.next->loader);
}

/* --- what the loader says --- */

void hd_master_on_loader_message(const hd_msg_head_t *head, const void *payload)
{
    hd_loader_state_t state = hd_master.loader_state;
    char text[HD_ERR_TEXT_MAX];
    uint64_t changed = 0;

    if (head->type == HD_MSG_SETTINGS && state == HD_LOADER_BUILDING) {
        on_settings();
    } else if (head->type == HD_MSG_PUBLISHED && state == HD_LOADER_PUBLISHING) {
        if (head->len == sizeof(changed))
            memcpy(&changed, payload, sizeof(changed));
        on_published(changed);
    } else if (head->type == HD_MSG_FAILED && state == HD_LOADER_BUILDING) {
        (void)snprintf(text, sizeof(text), "%.*s", (int)head->len, (const char *)payload);
        hd_master.loader_state = HD_LOADER_RECLAIMING;
        hd_master_fail(text);
    } else if (head->type == HD_MSG_GENERATION && state == HD_LOADER_BUILDING) {
        on_generation(head, payload);
    } else {
        hd_log(HD_LOG_ALERT, "the loader says %u in state %d", head->type, (int)state);
    }
}

void hd_master_on_loader_end(int wait_status)
{
    hd_loader_state_t state = hd_master.loader_state;
    char why[128];

    hd_master.loader_state = HD_LOADER_NONE;
    if (state == HD_LOADER_RECLAIMING && did_publish && wait_status == 0)
        hd_master.is_settled = true;
    did_publish = false;
    hd_sockets_close_logs();
    if (state != HD_LOADER_RECLAIMING && hd_master.phase <= HD_MASTER_LEAVING) {
        (void)snprintf(why, sizeof(why), "the loader %s %d while it was at work",
                       WIFSIGNALED(wait_status) ? "exited on signal" : "exited with code",
                       WIFSIGNALED(wait_status) ? WTERMSIG(wait_status)
                                                : WEXITSTATUS(wait_status));
        hd_master_fail(why);
    }
    if (needs_generation && hd_master.phase <= HD_MASTER_RUNNING)
        make_generation();
    else
        hd_master_reload_again();
}

void hd_master_reload_again(void)
{
    if (!hd_master.reload_again || hd_master.phase > HD_MASTER_RUNNING ||
        hd_master.loader_state != HD_LOADER_NONE || hd_master.next != NULL)
        return;
    hd_master.reload_again = false;
    hd_master_reload();
}
