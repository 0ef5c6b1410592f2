#include "http/hd_file.h"
#include "http/hd_action_answer.h"
#include "http/hd_request_int.h"
#include "http/hd_uri.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES 65536    /* read at most so much before others get their turn */
#define SENDFILE_BYTES 16384 /* less is read, and goes out with the head in one call */
#define RETRY_MS 10          /* when no block is left */

static const hd_file_conf_t *conf_of(const hd_req_t *req)
{
    return req->route->file;
}

unsigned hd_req_conditional(hd_req_t *req, hd_str_t etag, int64_t mtime_s)
{
    const hd_file_conf_t *conf = req->route != NULL ? conf_of(req) : NULL;

    return hd_http_conditional(req, etag, mtime_s,
                               conf != NULL ? (hd_ims_t)conf->if_modified_since
                                            : HD_IMS_EXACT);
}

/* --- names --- */

static hd_rc_t absolute_root(hd_req_t *req, hd_str_t *root)
{
    const hd_file_conf_t *conf = conf_of(req);

    *root = HD_STR("html");
    if (conf->root != NULL && hd_expr_eval(conf->root, req, root) != HD_OK)
        return hd_req_err(req, HD_E_INTERNAL, "no value for root");
    if (conf->root != NULL && hd_expr_climbs(conf->root, *root))
        return hd_req_err(req, HD_E_PROTOCOL, "unsafe root \"%.*s\"", HD_STR_ARG(*root));
    if (root->len == 0 || root->data[0] != '/')
        *root = hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(conf->prefix),
                              HD_STR_ARG(*root));
    return HD_OK;
}

hd_rc_t hd_file_root(hd_req_t *req, hd_str_t *root)
{
    if (req->route == NULL || conf_of(req) == NULL)
        return HD_ERROR;
    if (absolute_root(req, root) != HD_OK)
        return HD_ERROR;
    if (!conf_of(req)->is_alias && root->len > 0 && root->data[root->len - 1] == '/')
        root->len--;
    return HD_OK;
}

hd_rc_t hd_file_name(hd_req_t *req, hd_str_t uri, hd_str_t *path, size_t *root_len)
{
    const hd_file_conf_t *conf = req->route == NULL ? NULL : conf_of(req);
    hd_str_t root;

    if (conf == NULL || hd_file_root(req, &root) != HD_OK)
        return HD_ERROR;
    if (hd_str_climbs(uri) > 0 || memchr(uri.data, 0, uri.len) != NULL)
        return hd_req_err(req, HD_E_PROTOCOL, "unsafe path \"%.*s\"", HD_STR_ARG(uri));
    *root_len = root.len;
    if (conf->is_alias) {
        if (req->leaves_location)
            return hd_req_err(req, HD_E_CONF,
                              "\"alias\" cannot be used where the URI was rewritten");
        if (conf->is_regex_alias && !req->adds_to_alias) {
            *path = hd_str_dup(req->pool, root);
            return HD_OK;
        }
        if (!conf->is_regex_alias)
            uri = hd_str_sub(uri, conf->alias_len, uri.len);
        /* "/alias" before "../x": a name of its own until it is cut, then the way out */
        if (hd_str_climbs(uri) > 0)
            return hd_req_err(req, HD_E_PROTOCOL, "unsafe path \"%.*s\"",
                              HD_STR_ARG(uri));
    }
    *path =
        hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(root), HD_STR_ARG(uri)); /* + 0 */
    return HD_OK;
}

/* --- opening --- */

/* With disable_symlinks each part behind the first <trusted> bytes of the path is opened
 * by itself, none of them followed. */
static int open_without_links(hd_pool_t *pool, const char *path, size_t trusted,
                              hd_symlinks_t how)
{
    const char *start = trusted == 0 ? "/" : hd_str_to_c(pool, hd_str_n(path, trusted));
    int dir = open(start, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;
    const char *at = path + trusted + strspn(path + trusted, "/");
    char part[NAME_MAX + 1];

    while (dir >= 0) {
        size_t len = strcspn(at, "/");
        const char *next = at + len + strspn(at + len, "/");
        struct stat link, target;

        if (len > NAME_MAX) {
            close(dir);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(part, at, len);
        part[len] = '\0';
        if (how == HD_SYMLINKS_OWNER &&
            fstatat(dir, part, &link, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISLNK(link.st_mode) && fstatat(dir, part, &target, 0) == 0 &&
            link.st_uid == target.st_uid)
            fd = openat(dir, part,
                        (*next != '\0' ? O_PATH : O_RDONLY | O_NONBLOCK) | O_CLOEXEC);
        else
            fd = openat(
                dir, len == 0 ? "." : part,
                O_NOFOLLOW | O_CLOEXEC |
                    (*next != '\0' ? O_PATH | O_DIRECTORY : O_RDONLY | O_NONBLOCK));
        close(dir);
        if (*next == '\0')
            return fd;
        dir = fd;
        at = next;
    }
    return -1;
}

/* from=: so much of <path> may have links; all of it where it names the file. */
static size_t trusted_part(hd_req_t *req, const char *path)
{
    const hd_file_conf_t *conf = conf_of(req);
    size_t len = strlen(path);
    hd_str_t from;

    if (conf->symlinks_from == NULL ||
        hd_expr_eval(conf->symlinks_from, req, &from) != HD_OK || from.len == 0 ||
        !hd_str_has_prefix(hd_str_n(path, len), from))
        return 0;
    if (from.len == len || path[from.len] == '/')
        return from.len;
    return from.data[from.len - 1] == '/' ? from.len - 1 : 0;
}

static int open_file(hd_req_t *req, const char *path)
{
    hd_symlinks_t how = (hd_symlinks_t)conf_of(req)->symlinks;
    size_t trusted = how == HD_SYMLINKS_ALL ? 0 : trusted_part(req, path);

    /* a FIFO must not hold up the worker: it is none of ours anyway */
    return how == HD_SYMLINKS_ALL || path[trusted] == '\0'
               ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
               : open_without_links(req->pool, path, trusted, how);
}

static unsigned status_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
        return 404;
    case EACCES:
    case ELOOP:
    case EMLINK:
        return 403;
    default:
        return 500;
    }
}

static hd_rc_t refuse(hd_req_t *req, hd_str_t path, int error)
{
    unsigned status = status_of(error);

    if (status != 404 || !conf_of(req)->quiet_not_found)
        hd_ignore(hd_req_err(req, HD_E_SYS, "open() \"%.*s\" failed (%d: %s)",
                             HD_STR_ARG(path), error, strerror(error)));
    hd_response_fail(req, status, 0, "file");
    return HD_ERROR;
}

static hd_rc_t fail(hd_req_t *req, unsigned status)
{
    hd_response_fail(req, status, 0, "file");
    return HD_ERROR;
}

/* --- what is sent --- */

typedef struct {
    hd_str_t text; /* goes before the bytes */
    hd_range_t of; /* from the file */
} piece_t;

typedef struct {
    hd_open_file_t *file;
    const piece_t *pieces;
    uint32_t n, at;
    bool started;   /* the text of the current piece is out */
    bool by_kernel; /* from the file to the socket */
    int64_t offset;
} sending_t;

static void let_go(void *arg)
{
    hd_open_file_unref(arg);
}

/* One block from the file; false: it failed, or there is no block. */
static hd_rc_t read_block(hd_req_t *req, sending_t *s, hd_chain_t *out)
{
    const piece_t *p = &s->pieces[s->at];
    size_t want = (size_t)hd_min(p->of.to - s->offset, (int64_t)HD_BLOCK_BYTES);
    hd_block_t *b = hd_block_try_take();
    ssize_t n;

    if (b == NULL)
        return hd_req_wait_ms(req, RETRY_MS);
    do
        n = pread(s->file->fd, b->data, want, s->offset);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        hd_chain_add(out, b, b->data, (size_t)n, 0);
    hd_block_unref(b);
    if (n <= 0)
        return hd_req_err(req, HD_E_SYS, "reading a file: %s",
                          n < 0 ? strerror(errno) : "it has become shorter");
    s->offset += n;
    return HD_OK;
}

/* What is large isn't read at all: its range goes to the conn, which hands it to the
 * kernel. */
static hd_rc_t add_range(hd_req_t *req, sending_t *s, hd_chain_t *out)
{
    uint64_t max = req->loc->sendfile_max_chunk;
    int64_t len = s->pieces[s->at].of.to - s->offset;

    if (max > 0)
        len = hd_min(len, (int64_t)hd_min(max, (uint64_t)INT64_MAX));
    hd_chain_add_file(out, s->file, s->offset, (size_t)len, 0);
    s->offset += len;
    return HD_OK;
}

/* The next bytes into <out>. HD_DONE: these were the last. */
static hd_rc_t read_some(hd_req_t *req, sending_t *s, hd_chain_t *out)
{
    while (s->at < s->n) {
        const piece_t *p = &s->pieces[s->at];

        if (!s->started) {
            s->started = true;
            s->offset = p->of.from;
            if (p->text.len > 0 && !hd_chain_try_add_copy(out, p->text.data, p->text.len))
                return hd_req_err(req, HD_E_LIMIT, "no block left");
        }
        if (s->offset < p->of.to)
            return s->by_kernel && p->of.to - p->of.from > SENDFILE_BYTES
                       ? add_range(req, s, out)
                       : read_block(req, s, out);
        s->started = false;
        s->at++;
    }
    return HD_DONE;
}

static void send_more(hd_req_t *req)
{
    sending_t *s = req->action;
    size_t sent = 0;
    hd_rc_t rc = HD_OK;

    while (rc == HD_OK && !hd_response_is_full(req) && !req->response_ended) {
        hd_chain_t out;

        hd_chain_init(&out);
        rc = read_some(req, s, &out);
        if (rc == HD_ERROR) {
            hd_chain_free(&out);
            hd_response_fail(req, 500, 0, "file");
            return;
        }
        sent += out.bytes;
        if (rc == HD_DONE)
            hd_chain_set_flags(&out, HD_SLICE_END);
        if (!hd_chain_is_empty(&out))
            hd_response_give_body(req, &out);
        if (rc == HD_OK && sent >= PIECE_BYTES) {
            hd_request_wake(req); /* others first */
            return;
        }
    }
}

/* --- the head --- */

static void add(hd_req_t *req, const char *name, hd_str_t value)
{
    hd_ignore(hd_headers_add(&req->res.headers, hd_str_c(name), value) == NULL);
}

static void begin_head(hd_req_t *req, unsigned status, int64_t length)
{
    req->res = (hd_res_head_t){.status = status,
                               .content_length = length,
                               .version = HD_HTTP_11,
                               .has_body = true,
                               .is_local = true};
    hd_headers_init(&req->res.headers, req->pool, 8);
    hd_headers_init(&req->res_trailers, req->pool, 0);
    req->is_local_reply = true;
}

static hd_str_t content_range(hd_req_t *req, const hd_range_t *r, int64_t size)
{
    return hd_str_printf(req->pool, "bytes %lld-%lld/%lld", (long long)r->from,
                         (long long)r->to - 1, (long long)size);
}

/* Several ranges: a part for each (RFC 9110 §14.6). The length of it all in *length. */
static const piece_t *make_parts(hd_req_t *req, const hd_range_t *ranges, uint32_t n,
                                 hd_str_t type, int64_t size, hd_str_t *multipart,
                                 int64_t *length)
{
    piece_t *pieces = hd_pool_new_n(req->pool, piece_t, n + 1);
    hd_str_t boundary =
        hd_str_printf(req->pool, "%020llu", (unsigned long long)hd_request_random());

    *length = 0;
    for (uint32_t i = 0; i <= n; i++) {
        if (i == n)
            pieces[i].text =
                hd_str_printf(req->pool, "\r\n--%.*s--\r\n", HD_STR_ARG(boundary));
        else
            pieces[i] = (piece_t){
                .text = hd_str_printf(
                    req->pool, "\r\n--%.*s\r\n%s%.*s%sContent-Range: %.*s\r\n\r\n",
                    HD_STR_ARG(boundary), type.len > 0 ? "Content-Type: " : "",
                    HD_STR_ARG(type), type.len > 0 ? "\r\n" : "",
                    HD_STR_ARG(content_range(req, &ranges[i], size))),
                .of = ranges[i]};
        *length += (int64_t)pieces[i].text.len + pieces[i].of.to - pieces[i].of.from;
    }
    *multipart = hd_str_printf(req->pool, "multipart/byteranges; boundary=%.*s",
                               HD_STR_ARG(boundary));
    return pieces;
}

typedef struct {
    hd_str_t etag, date, type, encoding;
    int64_t size, mtime;
    bool varies;
} file_t;

/* Is the answer the file's own, not that of an error? */
static bool is_whole(const hd_req_t *req)
{
    return req->error_status == 0 || req->error_status == 200;
}

static void add_validators(hd_req_t *req, const file_t *f)
{
    if (is_whole(req)) /* as nginx: not of an error page */
        add(req, "Last-Modified", f->date);
    if (f->etag.len > 0)
        add(req, "ETag", f->etag);
    if (f->encoding.len > 0)
        add(req, "Content-Encoding", f->encoding);
    if (f->varies)
        add(req, "Vary", HD_STR("Accept-Encoding"));
}

static hd_rc_t answer_not_modified(hd_req_t *req, const file_t *f)
{
    hd_chain_t end;

    begin_head(req, 304, HD_LEN_UNKNOWN);
    req->res.has_body = false;
    add(req, "Last-Modified", f->date);
    if (f->etag.len > 0)
        add(req, "ETag", f->etag);
    hd_chain_init(&end);
    hd_chain_set_flags(&end, HD_SLICE_END);
    hd_response_start(req);
    hd_response_give_body(req, &end);
    return HD_AGAIN;
}

/* 416, with what there is. */
static hd_rc_t refuse_range(hd_req_t *req, const file_t *f)
{
    hd_response_local(req, 416, HD_STR_NONE, HD_STR_NONE, 0, "range");
    add(req, "Content-Range",
        hd_str_printf(req->pool, "bytes */%lld", (long long)f->size));
    return HD_DONE;
}

static void begin_answer(hd_req_t *req, sending_t *s, const file_t *f,
                         const hd_range_t *ranges, uint32_t n, uint32_t max)
{
    piece_t *whole = hd_pool_new(req->pool, piece_t);
    hd_str_t type = f->type;
    int64_t length = f->size;

    whole->of = n == 1 ? ranges[0] : (hd_range_t){0, f->size};
    s->pieces = whole;
    s->n = 1;
    if (n == 1)
        length = ranges[0].to - ranges[0].from;
    if (n > 1) {
        s->pieces = make_parts(req, ranges, n, f->type, f->size, &type, &length);
        s->n = n + 1;
    }
    begin_head(req, n == 0 ? 200 : 206, length);
    add_validators(req, f);
    if (type.len > 0)
        hd_headers_add_id(&req->res.headers, HD_H_CONTENT_TYPE, HD_STR("Content-Type"),
                          type);
    if (n == 1)
        add(req, "Content-Range", content_range(req, &ranges[0], f->size));
    else if (n == 0 && max > 0)
        add(req, "Accept-Ranges", HD_STR("bytes"));
}

/* Will a filter change the file's bytes? It looks at the head that the whole would have. */
static bool is_changed(hd_req_t *req, sending_t *s, const file_t *f)
{
    if (!(req->hooks & HD_HOOK_RESPONSE_BODY))
        return false;
    begin_answer(req, s, f, NULL, 0, 0);
    return hd_filters_change_file(req, f->type, f->encoding, f->size);
}

/* The client's conditions and ranges decide what of the file goes out. */
static hd_rc_t send_file(hd_req_t *req, sending_t *s, file_t *f)
{
    const hd_file_conf_t *conf = conf_of(req);
    uint32_t max =
        conf->max_ranges_plus_1 == 0 ? UINT32_MAX : conf->max_ranges_plus_1 - 1;
    hd_range_t *ranges = NULL;
    uint32_t n = 0;
    hd_rc_t rc = HD_DECLINED;
    unsigned status = 0;

    if (is_whole(req) && !req->is_sub)
        status = hd_http_conditional(req, f->etag, f->mtime,
                                     (hd_ims_t)conf->if_modified_since);
    if (status == 304)
        return answer_not_modified(req, f);
    if (status != 0)
        return fail(req, status);
    if (is_changed(req, s, f))
        max = 0;
    if (max > 0 && is_whole(req) && !req->is_sub && req->head.version >= HD_HTTP_10)
        rc = hd_http_ranges(req, f->etag, f->mtime, f->size, max, &ranges, &n);
    if (rc == HD_ERROR)
        return refuse_range(req, f);
    begin_answer(req, s, f, ranges, rc == HD_OK ? n : 0, is_whole(req) ? max : 0);
    hd_response_start(req);
    s->by_kernel = req->loc->sendfile && hd_response_takes_files(req);
    send_more(req);
    return HD_AGAIN;
}

/* --- directories --- */

static hd_rc_t redirect_to_slash(hd_req_t *req)
{
    hd_str_t url = hd_str_printf(
        req->pool, "%.*s/%s%.*s", HD_STR_ARG(hd_uri_escape(req->pool, req->head.path)),
        req->head.query.len > 0 ? "?" : "", HD_STR_ARG(req->head.query));

    url = hd_http_absolute_url(req, url);
    if (!hd_http_is_field_value(url))
        return fail(req, 500);
    hd_response_local(req, 301, HD_STR_NONE, HD_STR_NONE, 0, "directory");
    hd_headers_add_id(&req->res.headers, HD_H_LOCATION, HD_STR("Location"), url);
    return HD_DONE;
}

static hd_rc_t go_to(hd_req_t *req, hd_str_t uri)
{
    req->reroute_to = hd_str_dup(req->pool, uri);
    req->reroute_args = req->head.query;
    req->reroute_is_exact = true;
    return HD_REROUTE;
}

static hd_rc_t try_index(hd_req_t *req, hd_str_t name, bool is_first)
{
    hd_str_t uri, path, dir;
    size_t root_len;
    struct stat st;
    hd_rc_t rc;

    if (name.len > 0 && name.data[0] == '/')
        return go_to(req, name);
    uri = hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(req->head.path),
                        HD_STR_ARG(name));
    req->adds_to_alias = conf_of(req)->is_regex_alias;
    rc = hd_file_name(req, req->adds_to_alias ? name : uri, &path, &root_len);
    req->adds_to_alias = false;
    if (rc != HD_OK)
        return fail(req, 500);
    if (stat(path.data, &st) == 0 && !S_ISDIR(st.st_mode))
        return go_to(req, uri);
    if (errno == EACCES || errno == ENOTDIR || errno == ENAMETOOLONG)
        return refuse(req, path, errno);
    if (!is_first)
        return HD_DECLINED;
    if (hd_file_name(req, req->head.path, &dir, &root_len) != HD_OK)
        return fail(req, 500);
    if (stat(dir.data, &st) != 0 && errno != EACCES)
        return refuse(req, path, errno);
    return HD_DECLINED;
}

/* Any of its files, by an internal redirection. */
static hd_rc_t try_any(hd_req_t *req)
{
    hd_str_t path, name;
    size_t root_len;
    int error;
    hd_rc_t rc;

    if (hd_file_name(req, req->head.path, &path, &root_len) != HD_OK)
        return fail(req, 500);
    rc = hd_random_index_choose(req, path, &name, &error);
    if (rc == HD_ERROR)
        return refuse(req, path, error);
    if (rc == HD_DECLINED)
        return rc;
    return go_to(req, hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(req->head.path),
                                    HD_STR_ARG(name)));
}

/* "/x/": any file, or its index file, by an internal redirection, else a list, else 403.
 */
static hd_rc_t answer_directory(hd_req_t *req)
{
    const hd_file_conf_t *conf = conf_of(req);
    hd_str_t path;
    size_t root_len;
    hd_rc_t any = conf->random_index ? try_any(req) : HD_DECLINED;

    if (any != HD_DECLINED)
        return any;
    for (uint32_t i = 0; i < conf->index_n || (i == 0 && conf->index_n == 0); i++) {
        hd_str_t name = HD_STR("index.html");
        hd_rc_t rc;

        if (conf->index_n > 0 && hd_expr_eval(conf->index[i], req, &name) != HD_OK)
            return fail(req, 500);
        rc = name.len == 0 ? HD_DECLINED : try_index(req, name, i == 0);
        if (rc != HD_DECLINED)
            return rc;
    }
    if (hd_file_name(req, req->head.path, &path, &root_len) != HD_OK)
        return fail(req, 500);
    if (conf->autoindex)
        return hd_autoindex_answer(req, conf, path);
    hd_ignore(hd_req_err(req, HD_E_DENIED, "directory index of \"%.*s\" is forbidden",
                         HD_STR_ARG(path)));
    return fail(req, 403);
}

/* --- the action --- */

/* The compressed copy beside it, where the client takes one; *varies: there is one. */
static int open_compressed(hd_req_t *req, hd_str_t path, struct stat *st, bool *varies)
{
    const hd_file_conf_t *conf = conf_of(req);
    bool is_always = conf->gzip_static == HD_GZIP_STATIC_ALWAYS, takes;
    hd_str_t name;
    int fd;

    if (conf->gzip_static == HD_GZIP_STATIC_OFF)
        return -1;
    takes = is_always || hd_req_takes_gzip(req);
    if (!takes && !req->loc->gzip_vary)
        return -1;
    name = hd_str_printf(req->pool, "%.*s.gz", HD_STR_ARG(path));
    fd = open_file(req, name.data);
    if (fd < 0)
        return -1;
    if (fstat(fd, st) == 0 && S_ISREG(st->st_mode)) {
        *varies = !is_always && req->loc->gzip_vary;
        if (takes)
            return fd;
    }
    hd_ignore(close(fd)); /* read-only: nothing to lose */
    return -1;
}

/* That of the upstream which sent us here with X-Accel-Redirect comes first. */
static hd_str_t type_of(hd_req_t *req)
{
    hd_field_t *kept =
        req->kept == NULL ? NULL : hd_headers_get(req->kept, HD_H_CONTENT_TYPE);

    if (kept == NULL || !is_whole(req))
        return hd_http_type_of(req->loc, req->head.path);
    kept->flags |= HD_FIELD_REMOVED; /* of several ranges it is each part's */
    return kept->value;
}

static file_t describe(hd_req_t *req, const struct stat *st, bool is_compressed)
{
    file_t f = {.size = st->st_size, .mtime = st->st_mtime};

    f.date = hd_http_print_date(req->pool, f.mtime);
    f.type = type_of(req);
    if (is_compressed)
        f.encoding = HD_STR("gzip");
    if (!conf_of(req)->no_etag)
        f.etag = hd_str_printf(req->pool, "\"%llx-%llx\"", (unsigned long long)f.mtime,
                               (unsigned long long)f.size);
    return f;
}

static hd_rc_t start(hd_req_t *req)
{
    sending_t *s = hd_pool_new(req->pool, sending_t);
    bool is_compressed, varies = false;
    hd_str_t path;
    size_t root_len;
    struct stat st;
    file_t f;
    int fd;

    if (req->head.method_id != HD_M_GET && req->head.method_id != HD_M_HEAD &&
        req->head.method_id != HD_M_POST)
        return fail(req, 405);
    if (!req->adds_to_alias &&
        (req->head.path.len == 0 || req->head.path.data[0] != '/'))
        return fail(req, 400); /* "*" */
    if (hd_str_has_suffix(req->head.path, HD_STR("/")))
        return answer_directory(req);
    if (hd_file_name(req, req->head.path, &path, &root_len) != HD_OK)
        return fail(req, 500);
    fd = open_compressed(req, path, &st, &varies);
    is_compressed = fd >= 0;
    if (!is_compressed)
        fd = open_file(req, path.data);
    if (fd < 0)
        return refuse(req, path, errno);
    s->file = hd_open_file_create(fd);
    hd_pool_defer(req->pool, let_go, s->file);
    if (!is_compressed && fstat(fd, &st) != 0)
        return refuse(req, path, errno);
    if (S_ISDIR(st.st_mode))
        return redirect_to_slash(req);
    if (!S_ISREG(st.st_mode)) {
        hd_ignore(hd_req_err(req, HD_E_SYS, "\"%.*s\" is not a regular file",
                             HD_STR_ARG(path)));
        return fail(req, 404);
    }
    if (req->head.method_id == HD_M_POST)
        return fail(req, 405);
    req->action = s;
    f = describe(req, &st, is_compressed);
    f.varies = varies;
    return send_file(req, s, &f);
}

static void on_drained(hd_req_t *req)
{
    if (req->response_started)
        send_more(req);
}

const hd_action_ops_t hd_file_action = {
    .name = "file",
    .start = start,
    .on_drained = on_drained,
    .on_wake = on_drained,
};

/* --- try_files --- */

static bool is_there(hd_str_t path, bool is_dir)
{
    struct stat st;

    return stat(path.data, &st) == 0 && S_ISDIR(st.st_mode) == is_dir;
}

hd_rc_t hd_file_try(hd_req_t *req, const hd_try_file_t *list, uint32_t n)
{
    const hd_file_conf_t *conf = conf_of(req);

    for (uint32_t i = 0; i + 1 < n; i++) {
        hd_str_t name, uri, path;
        size_t root_len;

        if (hd_expr_eval(list[i].name, req, &name) != HD_OK)
            return hd_req_err(req, HD_E_INTERNAL, "no value for try_files");
        name = hd_str_dup(req->pool, name);
        uri = name;
        if (conf->is_alias && !conf->is_regex_alias) {
            /* what alias takes the place of isn't part of the file's name */
            hd_str_t part = hd_str_sub(req->head.path, 0, conf->alias_len);

            if (!hd_str_has_prefix(name, part))
                uri = hd_str_printf(req->pool, "%.*s%.*s", HD_STR_ARG(part),
                                    HD_STR_ARG(name));
        }
        req->adds_to_alias = conf->is_alias && conf->is_regex_alias;
        if (hd_file_name(req, uri, &path, &root_len) != HD_OK)
            return HD_ERROR;
        if (is_there(path, list[i].is_dir)) {
            if (conf->is_regex_alias && list[i].is_dir)
                req->adds_to_alias = false;
            else
                req->head.path = uri;
            return HD_OK;
        }
        req->adds_to_alias = false;
    }
    return HD_DECLINED;
}
