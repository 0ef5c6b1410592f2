#include "opened.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NS_PER_MS 1000000u

/* One that is kept, or counted until it is worth it: most recently used first. */
typedef struct {
    hd_link_t link;
    char *path;
    int fd; /* -1: not kept */
    uint32_t uses;
    uint64_t used_ns, checked_ns;
} opened_t;

static hd_link_t all = {&all, &all};
static hd_map_t *by_path;

/* A pipe that nobody reads must not hold a worker up. */
static int open_log(const char *path, const hd_attr_of_t *of)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                  0644);

    if (fd < 0 && of->req != NULL)
        hd_req_log(of->req, HD_LOG_CRIT, "open() \"%s\" failed (%d: %s)", path, errno,
                   strerror(errno));
    else if (fd < 0)
        hd_log(HD_LOG_CRIT, "open() \"%s\" failed (%d: %s)", path, errno,
               strerror(errno));
    return fd;
}

static void forget(opened_t *o)
{
    hd_list_remove(&o->link);
    hd_ignore(hd_map_remove(by_path, hd_str_c(o->path)) == NULL);
    if (o->fd >= 0)
        hd_ignore(close(o->fd)); /* each line was written at once */
    free(o->path);
    free(o);
}

static opened_t *remember(const char *path, uint64_t now_ns)
{
    opened_t *o = calloc(1, sizeof(*o));

    hd_bug_on(o == NULL);
    o->path = strdup(path);
    hd_bug_on(o->path == NULL);
    o->fd = -1;
    o->checked_ns = now_ns;
    hd_list_add_first(&all, &o->link);
    hd_ignore(hd_map_put(by_path, hd_str_c(o->path), o) == NULL);
    return o;
}

/* The least recently used ones beyond what may be kept, and who was not used for long. */
static void drop_old(const log_cache_conf_t *conf, uint64_t now_ns)
{
    while (!hd_list_is_empty(&all)) {
        opened_t *last = hd_container_of(all.prev, opened_t, link);

        if (hd_map_count(by_path) <= conf->max &&
            now_ns - last->used_ns < conf->inactive_ms * NS_PER_MS)
            return;
        forget(last);
    }
}

/* Was it renamed or removed meanwhile? */
static bool is_same_file(const opened_t *o)
{
    struct stat by_name, by_fd;

    return stat(o->path, &by_name) == 0 && fstat(o->fd, &by_fd) == 0 &&
           by_name.st_ino == by_fd.st_ino && by_name.st_dev == by_fd.st_dev;
}

static opened_t *find(const log_cache_conf_t *conf, const char *path, uint64_t now_ns)
{
    opened_t *o;

    if (by_path == NULL)
        by_path = hd_map_create();
    o = hd_map_get(by_path, hd_str_c(path));
    if (o == NULL)
        o = remember(path, now_ns);
    hd_list_remove(&o->link);
    hd_list_add_first(&all, &o->link);
    if (now_ns - o->used_ns >= conf->inactive_ms * NS_PER_MS)
        o->uses = 0;
    o->uses++;
    o->used_ns = now_ns;
    if (o->fd >= 0 && now_ns - o->checked_ns >= conf->valid_ms * NS_PER_MS) {
        o->checked_ns = now_ns;
        if (!is_same_file(o)) {
            hd_ignore(close(o->fd)); /* each line was written at once */
            o->fd = -1;
        }
    }
    drop_old(conf, now_ns);
    return o;
}

void log_opened_write(const log_cache_conf_t *conf, hd_str_t path, hd_str_t line,
                      const hd_attr_of_t *of)
{
    char name[PATH_MAX];
    opened_t *o = NULL;
    int fd;

    if (path.len >= sizeof(name))
        return;
    memcpy(name, path.data, path.len);
    name[path.len] = '\0';
    if (conf->max > 0)
        o = find(conf, name,
                 hd_loop_now_ns(of->req != NULL ? hd_req_loop(of->req) : of->conn->loop));
    fd = o != NULL && o->fd >= 0 ? o->fd : open_log(name, of);
    if (fd < 0)
        return;
    hd_ignore(!hd_file_write_fd(fd, name, line)); /* counted and told there */
    if (o != NULL && o->uses >= conf->min_uses)
        o->fd = fd;
    else
        hd_ignore(close(fd)); /* the line was written at once */
}

void log_opened_close_all(void)
{
    while (!hd_list_is_empty(&all))
        forget(hd_container_of(all.next, opened_t, link));
    if (by_path != NULL)
        hd_map_destroy(by_path);
    by_path = NULL;
}
