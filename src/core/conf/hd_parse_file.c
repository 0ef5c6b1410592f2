#include "core/conf/hd_parse_int.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void add_source(hd_reader_t *r, hd_str_t file, hd_str_t text)
{
    hd_sources_t *s = r->sources;

    if (s->n == s->room) {
        size_t room = s->room != 0 ? s->room * 2 : 8;
        hd_source_t *items = hd_pool_new_n(r->pool, hd_source_t, room);

        if (s->n > 0)
            memcpy(items, s->items, s->n * sizeof(*items));
        s->items = items;
        s->room = room;
    }
    s->items[s->n++] = (hd_source_t){file, text};
}

bool hd_sources_next(const hd_sources_t *s, size_t *at, hd_source_t *source)
{
    if (*at >= s->n)
        return false;
    *source = s->items[(*at)++];
    return true;
}

/* The whole of an open regular file; a name for its bytes in *text, in the pool. */
static hd_rc_t read_whole(hd_pool_t *pool, int fd, hd_str_t file, size_t size,
                          hd_str_t *text, hd_err_t *err)
{
    size_t room = size + 1, n = 0;
    char *bytes = hd_pool_alloc_unaligned(pool, room + 1);

    while (n < room) {
        ssize_t got = read(fd, bytes + n, room - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return hd_err_set_sys(err, errno, "read \"%.*s\"", HD_STR_ARG(file));
        if (got == 0)
            break;
        n += (size_t)got;
    }
    if (n > size)
        return hd_err_set_sys(err, EBUSY, "\"%.*s\" grows while it is read",
                              HD_STR_ARG(file));
    bytes[n] = '\0';
    *text = hd_str_n(bytes, n);
    return HD_OK;
}

static hd_rc_t refuse_cycle(const hd_including_t *in, const struct stat *st,
                            hd_str_t file, hd_err_t *err)
{
    for (const hd_including_t *i = in; i != NULL; i = i->outer) {
        if (i->dev == st->st_dev && i->ino == st->st_ino && st->st_ino != 0)
            return hd_err_set_sys(err, ELOOP,
                                  "include \"%.*s\": it is being read already",
                                  HD_STR_ARG(file));
    }
    return HD_OK;
}

static hd_rc_t parse_open_file(hd_reader_t *r, const hd_including_t *outer, int fd,
                               hd_str_t file, hd_node_t *parent, hd_err_t *err)
{
    hd_including_t in = {.outer = (hd_including_t *)outer, .file = file};
    hd_str_t text;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return hd_err_set_sys(err, errno, "stat \"%.*s\"", HD_STR_ARG(file));
    if (!S_ISREG(st.st_mode))
        return hd_err_set_sys(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
                              "\"%.*s\" is not a regular file", HD_STR_ARG(file));
    if ((size_t)st.st_size > HD_PARSE_FILE_MAX)
        return hd_err_set_sys(err, EFBIG, "\"%.*s\" has more than 16 MB",
                              HD_STR_ARG(file));
    if (refuse_cycle(outer, &st, file, err) != HD_OK)
        return HD_ERROR;
    in.dev = st.st_dev;
    in.ino = st.st_ino;
    in.depth = outer != NULL ? outer->depth + 1 : 0;
    if (in.depth > HD_PARSE_INCLUDES_MAX)
        return hd_err_set_sys(err, ELOOP, "include \"%.*s\": more than %d deep",
                              HD_STR_ARG(file), HD_PARSE_INCLUDES_MAX);
    if (read_whole(r->pool, fd, file, (size_t)st.st_size, &text, err) != HD_OK)
        return HD_ERROR;
    add_source(r, file, text);
    return hd_parse_into(r, &in, text, parent, err);
}

static hd_rc_t parse_file(hd_reader_t *r, const hd_including_t *outer, hd_str_t file,
                          hd_node_t *parent, hd_err_t *err)
{
    hd_str_t name = hd_str_dup(r->pool, file);
    /* O_NONBLOCK: a fifo must not make us wait. */
    int fd = open(name.data, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    hd_rc_t rc;

    if (fd < 0)
        return hd_err_set_sys(err, errno, "open \"%.*s\"", HD_STR_ARG(name));
    rc = parse_open_file(r, outer, fd, name, parent, err);
    hd_ignore(close(fd)); /* was only read */
    return rc;
}

static bool is_pattern(hd_str_t s)
{
    for (size_t i = 0; i < s.len; i++)
        if (strchr("*?[", s.data[i]) != NULL)
            return true;
    return false;
}

hd_rc_t hd_parse_include(hd_reader_t *r, const hd_including_t *in, hd_str_t pattern,
                         hd_node_t *parent, hd_err_t *err)
{
    hd_rc_t rc = HD_OK;
    hd_str_t path = pattern;
    glob_t found = {0};
    int why;

    if (r->sources == NULL)
        return hd_err_set_sys(err, ENOENT, "include \"%.*s\": no files here",
                              HD_STR_ARG(pattern));
    if (pattern.len == 0)
        return hd_err_set_sys(err, ENOENT, "include of an empty name");
    if (pattern.data[0] != '/')
        path = hd_str_printf(r->pool, "%.*s%.*s", HD_STR_ARG(r->conf_dir),
                             HD_STR_ARG(pattern));
    if (!is_pattern(path))
        return parse_file(r, in, path, parent, err);
    why = glob(path.data, 0, NULL, &found); /* sorted by name */
    if (why != 0 && why != GLOB_NOMATCH)
        rc = hd_err_set_sys(err, why == GLOB_NOSPACE ? ENOMEM : EIO, "include \"%.*s\"",
                            HD_STR_ARG(path));
    for (size_t i = 0; why == 0 && rc == HD_OK && i < found.gl_pathc; i++)
        rc = parse_file(r, in, hd_str_c(found.gl_pathv[i]), parent, err);
    globfree(&found);
    return rc;
}

hd_node_t *hd_parse_file(hd_pool_t *pool, hd_str_t file, hd_str_t globals,
                         hd_sources_t **sources, hd_err_t *err)
{
    hd_reader_t r = {.pool = pool, .sources = hd_pool_new(pool, hd_sources_t)};
    hd_including_t line = {.file = HD_STR("command line")};
    hd_node_t *root = hd_pool_new(pool, hd_node_t);
    size_t dir = file.len;

    while (dir > 0 && file.data[dir - 1] != '/')
        dir--;
    r.conf_dir = hd_str_n(file.data, dir);
    root->file = hd_str_dup(pool, file);
    root->is_block = true;
    root->line = 1;
    if (sources != NULL)
        *sources = r.sources;
    if (globals.len > 0 && hd_parse_into(&r, &line, globals, root, err) != HD_OK)
        return NULL;
    return parse_file(&r, NULL, file, root, err) == HD_OK ? root : NULL;
}
