#include "control/hd_source_dir.h"
#include "control/hd_decode.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENT_BYTES 65536
#define READS_MAX 64 /* of EVENT_BYTES, in one turn */
#define WAIT_FOR_DIR_MS 500

#define EVENTS                                                                           \
    (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB |  \
     IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

/* What is known of a file. */
typedef struct {
    char *name;      /* also the map's key */
    uint64_t digest; /* of its text; 0: it couldn't be read */
    bool dirty;      /* to be read at the next flush */
} file_t;

struct hd_source_dir_s {
    hd_loop_t *loop;
    hd_model_t *model;
    hd_decode_conf_t decode;
    char *path;
    uint64_t quiet_ms, max_ms;
    size_t files_max;
    hd_watch_t watch;
    hd_timer_t timer;
    hd_post_t more; /* events left in the kernel after a long turn */
    int wd;         /* -1: the directory isn't there */
    bool pending;   /* something is dirty since <since_ns> */
    uint64_t since_ns;
    bool rescan; /* the directory is to be listed at the next flush */
    hd_map_t *files;
    hd_source_dir_stats_t stats;
    char buf[EVENT_BYTES] __attribute__((aligned(16)));
};

/* --- files --- */

static bool is_ours(const char *name)
{
    hd_str_t s = hd_str_c(name);

    return s.len > 0 && s.data[0] != '.' &&
           (hd_str_has_suffix(s, HD_STR(".yaml")) ||
            hd_str_has_suffix(s, HD_STR(".yml")) ||
            hd_str_has_suffix(s, HD_STR(".json")));
}

static void *take_zeroed(size_t bytes)
{
    void *p = calloc(1, bytes);

    hd_bug_on(p == NULL);
    return p;
}

static char *print_path(const hd_source_dir_t *dir, const char *name)
{
    char *path = NULL;

    hd_bug_on(asprintf(&path, "%s/%s", dir->path, name) < 0);
    return path;
}

/* NULL: files_max are known already. */
static file_t *need_file(hd_source_dir_t *dir, const char *name)
{
    file_t *f = hd_map_get(dir->files, hd_str_c(name));

    if (f != NULL)
        return f;
    if (hd_map_count(dir->files) >= dir->files_max) {
        hd_log(HD_LOG_ERROR, "%s: more than %zu files: %s is not read", dir->path,
               dir->files_max, name);
        return NULL;
    }
    f = take_zeroed(sizeof(*f));
    f->name = strdup(name);
    hd_bug_on(f->name == NULL);
    hd_map_put(dir->files, hd_str_c(f->name), f);
    return f;
}

static void forget_file(hd_source_dir_t *dir, file_t *f)
{
    hd_model_remove_unit(dir->model, hd_str_c(f->name));
    hd_map_remove(dir->files, hd_str_c(f->name));
    free(f->name);
    free(f);
}

/* HD_DECLINED: there is no such file. */
static hd_rc_t read_text(hd_source_dir_t *dir, const char *name, hd_pool_t *pool,
                         hd_str_t *text, hd_err_t *err)
{
    char *path = print_path(dir, name), *data;
    /* Not blocking, in case it is a pipe. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    size_t len = 0;
    hd_rc_t rc = HD_ERROR;

    free(path);
    if (fd < 0)
        return errno == ENOENT || errno == ELOOP || errno == ENOTDIR
                   ? HD_DECLINED
                   : hd_err_set_sys(err, errno, "can't be opened");
    if (fstat(fd, &st) != 0) {
        rc = hd_err_set_sys(err, errno, "can't be read");
        goto close_fd;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = hd_err_set(err, HD_E_CONF, "is no regular file");
        goto close_fd;
    }
    if ((uint64_t)st.st_size > HD_YAML_BYTES_MAX) {
        rc = hd_err_set(err, HD_E_LIMIT, "is larger than %u bytes", HD_YAML_BYTES_MAX);
        goto close_fd;
    }
    data = hd_pool_alloc_unaligned(pool, (size_t)st.st_size + 1);
    while (len < (size_t)st.st_size) {
        ssize_t n = read(fd, data + len, (size_t)st.st_size - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = hd_err_set_sys(err, errno, "can't be read");
            goto close_fd;
        }
        if (n == 0)
            break; /* cut meanwhile: its writer will close it */
        len += (size_t)n;
    }
    *text = hd_str_n(data, len);
    rc = HD_OK;
close_fd:
    close(fd);
    return rc;
}

static void log_findings(hd_pool_t *pool, const hd_statuses_t *list)
{
    for (hd_each(s, *list)) {
        hd_log_level_t level = s->severity == HD_STATUS_ERROR     ? HD_LOG_ERROR
                               : s->severity == HD_STATUS_WARNING ? HD_LOG_WARN
                                                                  : HD_LOG_INFO;
        hd_str_t line = hd_status_print(pool, s);

        hd_log(level, "%.*s", HD_STR_ARG(line));
    }
}

/* Puts what a file gave; false: a limit was met, and its former objects stay. */
static bool put(hd_source_dir_t *dir, hd_pool_t *pool, const char *unit, hd_decoded_t *d)
{
    hd_err_t err = {0};
    hd_status_t s;

    log_findings(pool, &d->statuses);
    if (hd_model_put_unit(dir->model, hd_str_c(unit), d->objs, d->n, &d->statuses,
                          d->keep, &err) == HD_OK)
        return true;
    s = (hd_status_t){.severity = HD_STATUS_ERROR,
                      .place = {hd_str_c(unit), 0, 0},
                      .text = hd_str_c(err.text)};
    *d = (hd_decoded_t){.statuses = {&s, 1}, .keep = HD_KEEP_ALL};
    log_findings(pool, &d->statuses);
    hd_ignore(hd_model_put_unit(dir->model, hd_str_c(unit), NULL, 0, &d->statuses,
                                d->keep, NULL)); /* adds no object: can't fail */
    return false;
}

/* An error of a whole unit: what it brought stays. */
static void put_error(hd_source_dir_t *dir, hd_pool_t *pool, const char *unit,
                      const char *text)
{
    hd_status_t s = {.severity = HD_STATUS_ERROR,
                     .place = {hd_str_c(unit), 0, 0},
                     .text = hd_str_c(text)};
    hd_decoded_t d = {.statuses = {&s, 1}, .keep = HD_KEEP_ALL};

    hd_ignore(put(dir, pool, unit, &d)); /* adds no object: can't fail */
}

static void read_file(hd_source_dir_t *dir, file_t *f)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_err_t err = {0};
    hd_str_t text;
    hd_decoded_t d;
    uint64_t digest;
    hd_rc_t rc;

    f->dirty = false;
    rc = read_text(dir, f->name, pool, &text, &err);
    if (rc == HD_DECLINED) {
        forget_file(dir, f);
        goto done;
    }
    dir->stats.files_read++;
    if (rc != HD_OK) {
        f->digest = 0;
        put_error(dir, pool, f->name, err.text);
        goto done;
    }
    digest = hd_hash64(text.data, text.len, 1) | 1;
    if (digest == f->digest)
        goto done; /* written again, the same */
    f->digest = digest;
    hd_decode_text(pool, &dir->decode, hd_str_c(f->name), text, &d);
    if (!put(dir, pool, f->name, &d))
        f->digest = 0; /* tried again when it's written again */
done:
    hd_pool_destroy(pool);
}

/* --- the directory --- */

/* Lists it: what is new or was known is dirty, what is gone too (reading will tell). */
static hd_rc_t scan(hd_source_dir_t *dir, hd_err_t *err)
{
    DIR *d = opendir(dir->path);
    struct dirent *e;
    size_t at = 0;
    hd_str_t key;
    void *value;

    if (d == NULL)
        return hd_err_set_sys(err, errno, "%s: can't be read", dir->path);
    while ((e = readdir(d)) != NULL) {
        file_t *f = is_ours(e->d_name) ? need_file(dir, e->d_name) : NULL;

        if (f != NULL)
            f->dirty = true;
    }
    closedir(d);
    while (hd_map_next(dir->files, &at, &key, &value))
        ((file_t *)value)->dirty = true;
    return HD_OK;
}

static int cmp_files(const void *a, const void *b)
{
    return strcmp((*(file_t *const *)a)->name, (*(file_t *const *)b)->name);
}

/* Reads what is dirty, in order of names, so that messages come in order too. */
static void read_dirty(hd_source_dir_t *dir)
{
    size_t at = 0, n = 0;
    file_t **list = take_zeroed(sizeof(*list) * (hd_map_count(dir->files) + 1));
    hd_str_t key;
    void *value;

    while (hd_map_next(dir->files, &at, &key, &value)) {
        if (((file_t *)value)->dirty)
            list[n++] = value;
    }
    qsort(list, n, sizeof(*list), cmp_files);
    for (size_t i = 0; i < n; i++)
        read_file(dir, list[i]);
    free(list);
    dir->stats.files_n = hd_map_count(dir->files);
}

static hd_rc_t start_watch(hd_source_dir_t *dir, hd_err_t *err)
{
    dir->wd = inotify_add_watch(dir->watch.fd, dir->path, EVENTS);
    if (dir->wd >= 0)
        return HD_OK;
    dir->wd = -1;
    return hd_err_set_sys(err, errno, "%s: can't be watched", dir->path);
}

/* The directory is gone, or can't be read: what it brought stays in force. */
static void report_missing(hd_source_dir_t *dir, const char *text)
{
    hd_pool_t *pool = hd_pool_create(0);

    put_error(dir, pool, dir->path, text);
    hd_pool_destroy(pool);
}

/* --- waiting for quiet --- */

static void wait_for_quiet(hd_source_dir_t *dir)
{
    uint64_t now = hd_loop_now_ns(dir->loop), gone_ms;

    if (!dir->pending) {
        dir->pending = true;
        dir->since_ns = now;
    }
    gone_ms = (now - dir->since_ns) / 1000000;
    hd_timer_set(dir->loop, &dir->timer,
                 gone_ms >= dir->max_ms ? 0
                                        : hd_min(dir->quiet_ms, dir->max_ms - gone_ms));
}

static void commit(hd_source_dir_t *dir)
{
    dir->pending = false;
    hd_model_commit(dir->model);
    dir->stats.commits++;
}

/* Looks for a directory that went. */
static void retry_directory(hd_source_dir_t *dir)
{
    hd_err_t err = {0};

    if (start_watch(dir, &err) != HD_OK) {
        hd_timer_set(dir->loop, &dir->timer, WAIT_FOR_DIR_MS);
        return;
    }
    hd_log(HD_LOG_NOTICE, "%s: is there again", dir->path);
    hd_model_remove_unit(dir->model, hd_str_c(dir->path)); /* the report */
    dir->rescan = true;
}

static void flush(hd_source_dir_t *dir)
{
    hd_err_t err = {0};

    hd_timer_stop(dir->loop, &dir->timer);
    if (dir->wd < 0)
        retry_directory(dir);
    if (dir->rescan && dir->wd >= 0) {
        dir->rescan = false;
        if (scan(dir, &err) != HD_OK)
            report_missing(dir, err.text);
        else
            hd_model_remove_unit(dir->model, hd_str_c(dir->path));
    }
    /* Without the directory all files look deleted: they stay as they are. */
    if (dir->wd >= 0)
        read_dirty(dir);
    commit(dir);
}

static void on_due(hd_timer_t *t)
{
    flush(hd_container_of(t, hd_source_dir_t, timer));
}

/* --- inotify --- */

/* A new name is a whole file only if it is a link; a file being written is closed later.
 */
static bool is_link(hd_source_dir_t *dir, const char *name)
{
    char *path = print_path(dir, name);
    struct stat st;
    bool link = lstat(path, &st) == 0 && (S_ISLNK(st.st_mode) || st.st_nlink > 1);

    free(path);
    return link;
}

static void lose_directory(hd_source_dir_t *dir)
{
    if (dir->wd < 0)
        return;
    hd_ignore(inotify_rm_watch(dir->watch.fd, dir->wd)); /* may have ended by itself */
    dir->wd = -1;
    report_missing(dir, "the directory is gone: what it held stays in force until it is "
                        "there again");
    wait_for_quiet(dir);
}

static void on_event(hd_source_dir_t *dir, const struct inotify_event *e)
{
    file_t *f;

    if (e->mask & IN_Q_OVERFLOW) {
        dir->stats.overflows++;
        dir->rescan = true;
        wait_for_quiet(dir);
        return;
    }
    if (e->wd != dir->wd)
        return; /* of a watch that ended */
    if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) {
        lose_directory(dir);
        return;
    }
    if (e->len == 0)
        return;
    if (strncmp(e->name, "..", 2) == 0) { /* a ConfigMap's ..data: all links changed */
        if (e->mask & (IN_MOVED_TO | IN_CREATE | IN_DELETE)) {
            dir->rescan = true;
            wait_for_quiet(dir);
        }
        return;
    }
    if (!is_ours(e->name) || ((e->mask & IN_CREATE) && !is_link(dir, e->name)))
        return;
    f = need_file(dir, e->name);
    if (f != NULL) {
        f->dirty = true;
        wait_for_quiet(dir);
    }
}

static void read_events(hd_source_dir_t *dir)
{
    for (unsigned i = 0; i < READS_MAX; i++) {
        ssize_t n = read(dir->watch.fd, dir->buf, sizeof(dir->buf));

        if (n <= 0) {
            if (n < 0 && errno == EINTR)
                continue;
            return; /* EAGAIN: the next edge comes */
        }
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *e = (const void *)(dir->buf + at);

            on_event(dir, e);
            at += (ssize_t)(sizeof(*e) + e->len);
        }
    }
    hd_post(dir->loop, &dir->more);
}

static void on_ready(hd_watch_t *w, unsigned events)
{
    if (events & HD_EV_READ)
        read_events(hd_container_of(w, hd_source_dir_t, watch));
}

static void on_more(hd_post_t *p)
{
    read_events(hd_container_of(p, hd_source_dir_t, more));
}

/* --- its life --- */

static hd_rc_t start(hd_source_dir_t *dir, hd_err_t *err)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    if (fd < 0)
        return hd_err_set_sys(err, errno,
                              "inotify: fs.inotify.max_user_instances is "
                              "too low?");
    if (hd_watch_start(dir->loop, &dir->watch, fd, on_ready, err) != HD_OK) {
        close(fd);
        return HD_ERROR;
    }
    /* Watched before it is listed, so that nothing falls between. */
    return start_watch(dir, err) != HD_OK ? HD_ERROR : scan(dir, err);
}

hd_rc_t hd_source_dir_create(hd_loop_t *loop, hd_model_t *model,
                             const hd_source_dir_conf_t *conf, hd_source_dir_t **out,
                             hd_err_t *err)
{
    hd_source_dir_t *dir = take_zeroed(sizeof(*dir));

    dir->loop = loop;
    dir->model = model;
    dir->decode = (hd_decode_conf_t){hd_model_cluster_domain(model),
                                     hd_model_root_namespace(model)};
    dir->path = strndup(conf->path.data, conf->path.len);
    hd_bug_on(dir->path == NULL);
    dir->quiet_ms = conf->quiet_ms != 0 ? conf->quiet_ms : 20;
    dir->max_ms = conf->max_ms != 0 ? conf->max_ms : 500;
    dir->files_max = conf->files_max != 0 ? conf->files_max : HD_SOURCE_FILES_MAX;
    dir->wd = -1;
    dir->files = hd_map_create();
    hd_watch_init(&dir->watch);
    hd_timer_init(&dir->timer, on_due);
    hd_post_init(&dir->more, on_more);
    if (start(dir, err) != HD_OK) {
        hd_source_dir_destroy(dir);
        return HD_ERROR;
    }
    read_dirty(dir);
    commit(dir);
    *out = dir;
    return HD_OK;
}

void hd_source_dir_destroy(hd_source_dir_t *dir)
{
    size_t at = 0;
    hd_str_t key;
    void *value;

    if (dir == NULL)
        return;
    hd_timer_stop(dir->loop, &dir->timer);
    hd_post_cancel(&dir->more);
    if (dir->watch.fd >= 0)
        hd_watch_close(dir->loop, &dir->watch);
    while (hd_map_next(dir->files, &at, &key, &value)) {
        file_t *f = value;

        hd_map_remove(dir->files, key);
        free(f->name);
        free(f);
    }
    hd_map_destroy(dir->files);
    free(dir->path);
    free(dir);
}

void hd_source_dir_reread(hd_source_dir_t *dir)
{
    dir->rescan = true;
    flush(dir);
}

void hd_source_dir_get_stats(const hd_source_dir_t *dir, hd_source_dir_stats_t *stats)
{
    *stats = dir->stats;
}
