/* The master and its loaders: one configuration after another, each wholly or not at all.
 *
 *   HUP -> BUILDING -SETTINGS-> PREPARING -all have the descriptors-> PUBLISHING
 *       -PUBLISHED-> RECLAIMING -> (ends by itself)
 */
#include "core/proc/hd_master_int.h"
#include "core/os/hd_clock.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static hd_settings_t in_force;

void hd_master_reload(void)
{
    if (hd_master.phase > HD_MASTER_RUNNING)
        return;
    if (hd_master.loader_state != HD_LOADER_NONE) {
        hd_master.reload_again = true;
        /* It only waits for what it retired: the next one takes that over. */
        if (hd_master.loader_state == HD_LOADER_RECLAIMING)
            hd_ignore(hd_child_send(&hd_master.loader, HD_MSG_STOP, NULL, 0, NULL, 0));
        return;
    }
    if (hd_master.was_published)
        hd_log(HD_LOG_NOTICE, "reconfiguring");
    hd_master.loader_state = HD_LOADER_BUILDING;
    hd_master_fork(&hd_master.loader);
}

static void fail(const char *why)
{
    hd_sockets_abort(HD_BY_LOADER);
    if (hd_master.was_published) {
        hd_log(HD_LOG_EMERG,
               "reload failed: %s; the configuration in force before stays so", why);
    } else {
        hd_tell(HD_LOG_EMERG, "%s", why);
        hd_master_stop(1);
    }
}

/* Failed after SETTINGS: the loader is told to go. */
static void refuse(const char *why)
{
    hd_master.loader_state = HD_LOADER_RECLAIMING;
    hd_ignore(hd_child_send(&hd_master.loader, HD_MSG_STOP, NULL, 0, NULL, 0));
    fail(why);
}

/* --- SETTINGS --- */

static void on_prepared(const hd_err_t *err)
{
    if (hd_master.loader_state != HD_LOADER_PREPARING)
        return;
    if (err != NULL) {
        refuse(err->text);
        return;
    }
    hd_master.loader_state = HD_LOADER_PUBLISHING;
    hd_ignore(hd_child_send(&hd_master.loader, HD_MSG_PUBLISH, NULL, 0, NULL, 0));
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
    char text[32];
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd >= 0 && write(fd, text, (size_t)n) == n && close(fd) == 0)
        return;
    if (hd_master.phase == HD_MASTER_STARTING) {
        hd_tell(HD_LOG_EMERG, "open() \"%s\" failed: %s", path, strerror(errno));
        hd_master_stop(1);
    } else {
        hd_log(HD_LOG_ALERT, "open() \"%s\" failed: %s", path, strerror(errno));
    }
}

static bool is_log_kept(const hd_settings_t *s)
{
    return strcmp(in_force.error_log, s->error_log) == 0 &&
           in_force.log_level == s->log_level;
}

static void follow_pid_file(const char *old_path)
{
    if (strcmp(old_path, in_force.pid_path) == 0)
        return;
    write_pid_file(in_force.pid_path);
    if (old_path[0] != '\0')
        hd_ignore(unlink(old_path)); /* may be gone */
}

static void put_in_force(void)
{
    bool had_old = hd_master.was_published;
    bool keeps_log = had_old && is_log_kept(hd_master.shared);
    char old_pid_path[HD_PATH_MAX_BYTES] = "";
    hd_err_t err = {0};

    if (had_old)
        memcpy(old_pid_path, in_force.pid_path, sizeof(old_pid_path));
    hd_settings_copy(&in_force, hd_master.shared);
    hd_master.p->settings = &in_force;
    hd_master.was_published = true;
    hd_log_level = in_force.log_level;
    if (!had_old && hd_use_error_log(in_force.error_log, &err) != HD_OK)
        hd_tell(HD_LOG_ALERT, "%s", err.text);
    else if (had_old && !keeps_log)
        hd_sockets_reopen_logs();
    hd_sockets_commit(HD_BY_LOADER, true);
    follow_pid_file(old_pid_path);
}

static void on_published(uint64_t changed)
{
    bool is_first = !hd_master.was_published;

    hd_master.loader_state = HD_LOADER_RECLAIMING;
    put_in_force();
    if (!is_first)
        hd_log(HD_LOG_NOTICE, "reload done: %llu resources changed",
               (unsigned long long)changed);
    if (hd_master.phase <= HD_MASTER_RUNNING)
        hd_master_spawn_all();
    if (hd_master.reload_again)
        hd_ignore(hd_child_send(&hd_master.loader, HD_MSG_STOP, NULL, 0, NULL, 0));
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
        fail(text);
    } else {
        hd_log(HD_LOG_ALERT, "the loader says %u in state %d", head->type, (int)state);
    }
}

void hd_master_on_loader_end(int wait_status)
{
    hd_loader_state_t state = hd_master.loader_state;
    char why[128];

    hd_master.loader_state = HD_LOADER_NONE;
    if (state != HD_LOADER_RECLAIMING && hd_master.phase <= HD_MASTER_RUNNING) {
        (void)snprintf(why, sizeof(why), "the loader %s %d while it was at work",
                       WIFSIGNALED(wait_status) ? "exited on signal" : "exited with code",
                       WIFSIGNALED(wait_status) ? WTERMSIG(wait_status)
                                                : WEXITSTATUS(wait_status));
        fail(why);
    }
    if (hd_master.reload_again && hd_master.phase <= HD_MASTER_RUNNING) {
        hd_master.reload_again = false;
        hd_master_reload();
    }
}
