/* autoindex: a directory as a page, in nginx's form. */
#include "http/hd_file.h"
#include "http/hd_chars.h"
#include "http/hd_uri.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#define ENTRIES_MAX 100000
#define NAME_COLUMNS 50

typedef struct {
    hd_str_t name;
    bool is_dir;
    int64_t mtime, size;
    char kind; /* f, d, o: file, directory, other */
} entry_t;

/* --- the text --- */

typedef struct {
    hd_pool_t *pool;
    char *data;
    size_t len, room;
} text_t;

static void put(text_t *t, hd_str_t s)
{
    if (t->len + s.len > t->room) {
        size_t room = hd_max(t->room * 2, t->len + s.len + 4096);
        char *data = hd_pool_alloc_unaligned(t->pool, room);

        if (t->len > 0)
            memcpy(data, t->data, t->len);
        t->data = data;
        t->room = room;
    }
    if (s.len > 0)
        memcpy(t->data + t->len, s.data, s.len);
    t->len += s.len;
}

static void put_c(text_t *t, const char *s)
{
    put(t, hd_str_c(s));
}

static void put_html(text_t *t, hd_str_t s)
{
    for (size_t i = 0; i < s.len; i++) {
        switch (s.data[i]) {
        case '<':
            put_c(t, "&lt;");
            break;
        case '>':
            put_c(t, "&gt;");
            break;
        case '&':
            put_c(t, "&amp;");
            break;
        case '"':
            put_c(t, "&quot;");
            break;
        default:
            put(t, hd_str_sub(s, i, 1));
        }
    }
}

static void put_json(text_t *t, hd_str_t s)
{
    char code[8];

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];

        if (c == '"' || c == '\\') {
            put_c(t, c == '"' ? "\\\"" : "\\\\");
        } else if (c < 0x20) {
            snprintf(code, sizeof(code), "\\u%04X", c);
            put_c(t, c == '\n'   ? "\\n"
                     : c == '\r' ? "\\r"
                     : c == '\t' ? "\\t"
                     : c == '\b' ? "\\b"
                     : c == '\f' ? "\\f"
                                 : code);
        } else {
            put(t, hd_str_sub(s, i, 1));
        }
    }
}

/* --- the entries --- */

static int directories_first(const void *a, const void *b)
{
    const entry_t *x = a, *y = b;

    if (x->is_dir != y->is_dir)
        return x->is_dir ? -1 : 1;
    return hd_str_cmp(x->name, y->name);
}

static hd_rc_t read_entries(hd_req_t *req, hd_str_t path, hd_array_t *list, int *error)
{
    DIR *dir = opendir(path.data);
    struct dirent *d;

    if (dir == NULL) {
        *error = errno;
        return HD_ERROR;
    }
    while ((d = readdir(dir)) != NULL) {
        hd_str_t full;
        struct stat st;
        entry_t *e;

        if (d->d_name[0] == '.')
            continue;
        full = hd_str_printf(req->pool, "%.*s/%s", HD_STR_ARG(path), d->d_name);
        if (stat(full.data, &st) != 0 && lstat(full.data, &st) != 0)
            continue; /* it has gone meanwhile */
        e = hd_array_add(list);
        if (e == NULL)
            break;
        *e = (entry_t){.name = hd_str_dup(req->pool, hd_str_c(d->d_name)),
                       .is_dir = S_ISDIR(st.st_mode),
                       .mtime = st.st_mtime,
                       .size = st.st_size,
                       .kind = S_ISDIR(st.st_mode)   ? 'd'
                               : S_ISREG(st.st_mode) ? 'f'
                                                     : 'o'};
    }
    closedir(dir);
    if (list->n > 0)
        qsort(list->items, list->n, sizeof(entry_t), directories_first);
    return HD_OK;
}

/* --- html --- */

static bool needs_escape(unsigned char c)
{
    return c <= ' ' || c >= 0x7f || strchr("\"#%&+<>?:;=@[\\]^`{|}", c) != NULL;
}

static hd_str_t size_text(hd_pool_t *pool, const entry_t *e, bool is_rough)
{
    static const struct {
        int64_t unit;
        char letter;
    } units[] = {{1 << 30, 'G'}, {1 << 20, 'M'}, {1 << 10, 'K'}};
    int64_t size = e->size;

    if (e->is_dir)
        return is_rough ? HD_STR("      -") : HD_STR("                  -");
    if (!is_rough)
        return hd_str_printf(pool, "%19lld", (long long)size);
    for (size_t i = 0; i < hd_countof(units); i++) {
        int64_t unit = units[i].unit, n = size / unit;

        if (size <= (i == 0 ? (1 << 30) - 1 : i == 1 ? (1 << 20) - 1 : 9999))
            continue;
        n += size % unit > unit / 2 - 1;
        return hd_str_printf(pool, "%6lld%c", (long long)n, units[i].letter);
    }
    return hd_str_printf(pool, " %6lld", (long long)size);
}

static void put_html_entry(hd_req_t *req, text_t *t, const entry_t *e,
                           const hd_file_conf_t *conf)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    size_t chars = e->name.len; /* bytes, as where no charset is set */
    time_t at = (time_t)e->mtime;
    struct tm tm;

    put_c(t, "<a href=\"");
    put(t, hd_uri_escape_where(req->pool, e->name, needs_escape));
    put_c(t, e->is_dir ? "/\">" : "\">");
    if (chars > NAME_COLUMNS) {
        put_html(t, hd_str_sub(e->name, 0, NAME_COLUMNS - 3));
        put_c(t, "..&gt;</a>");
    } else {
        put_html(t, e->name);
        if (e->is_dir && chars < NAME_COLUMNS)
            put_c(t, "/");
        put_c(t, "</a>");
        for (size_t n = chars + (e->is_dir && chars < NAME_COLUMNS); n < NAME_COLUMNS;
             n++)
            put_c(t, " ");
    }
    put_c(t, " ");
    if (conf->autoindex_localtime)
        localtime_r(&at, &tm);
    else
        gmtime_r(&at, &tm);
    put(t,
        hd_str_printf(req->pool, "%02d-%.3s-%d %02d:%02d ", tm.tm_mday,
                      months + tm.tm_mon * 3, tm.tm_year + 1900, tm.tm_hour, tm.tm_min));
    put(t, size_text(req->pool, e, conf->rough_size));
    put_c(t, "\r\n");
}

static void put_html_page(hd_req_t *req, text_t *t, const hd_array_t *list,
                          const hd_file_conf_t *conf)
{
    put_c(t, "<html>\r\n<head><title>Index of ");
    put_html(t, req->head.path);
    put_c(t, "</title></head>\r\n<body>\r\n<h1>Index of ");
    put_html(t, req->head.path);
    put_c(t, "</h1><hr><pre><a href=\"../\">../</a>\r\n");
    for (size_t i = 0; i < list->n; i++)
        put_html_entry(req, t, hd_array_at(list, entry_t, i), conf);
    put_c(t, "</pre><hr></body>\r\n</html>\r\n");
}

/* --- json --- */

static void put_json_page(hd_req_t *req, text_t *t, const hd_array_t *list)
{
    put_c(t, "[");
    for (size_t i = 0; i < list->n; i++) {
        const entry_t *e = hd_array_at(list, entry_t, i);

        put_c(t, i > 0 ? ",\r\n{ \"name\":\"" : "\r\n{ \"name\":\"");
        put_json(t, e->name);
        put_c(t, "\", \"type\":\"");
        put_c(t, e->kind == 'd' ? "directory" : e->kind == 'f' ? "file" : "other");
        put_c(t, "\", \"mtime\":\"");
        put(t, hd_http_print_date(req->pool, e->mtime));
        put_c(t, "\"");
        if (e->kind == 'f')
            put(t, hd_str_printf(req->pool, ", \"size\":%lld", (long long)e->size));
        put_c(t, " }");
    }
    put_c(t, "\r\n]");
}

/* --- xml --- */

static void put_xml_page(hd_req_t *req, text_t *t, const hd_array_t *list)
{
    put_c(t, "<?xml version=\"1.0\"?>\r\n<list>\r\n");
    for (size_t i = 0; i < list->n; i++) {
        const entry_t *e = hd_array_at(list, entry_t, i);
        const char *tag = e->kind == 'd' ? "directory" : e->kind == 'f' ? "file" : "other";
        time_t at = (time_t)e->mtime;
        char time[32];
        struct tm tm;

        gmtime_r(&at, &tm);
        if (strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
            time[0] = '\0';
        put(t, hd_str_printf(req->pool, "<%s mtime=\"%s\"", tag, time));
        if (e->kind == 'f')
            put(t, hd_str_printf(req->pool, " size=\"%lld\"", (long long)e->size));
        put_c(t, ">");
        put_html(t, e->name);
        put(t, hd_str_printf(req->pool, "</%s>\r\n", tag));
    }
    put_c(t, "</list>\r\n");
}

/* --- jsonp: JSON as a call of the function that the query names --- */

static bool is_function_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           c == '_' || c == '.';
}

/* callback=NAME; empty: none. Nothing but a name goes into a script. */
static hd_rc_t read_callback(hd_req_t *req, hd_str_t *name)
{
    if (!hd_uri_find_arg(req->head.query, HD_STR("callback"), name)) {
        *name = HD_STR_NONE;
        return HD_OK;
    }
    for (size_t i = 0; i < name->len; i++) {
        if (!is_function_byte(name->data[i]))
            return hd_req_fail(req, 400, HD_E_PROTOCOL,
                               "client sent invalid callback name: \"%.*s\"",
                               HD_STR_ARG(*name));
    }
    return HD_OK;
}

static hd_str_t put_page(hd_req_t *req, text_t *t, const hd_array_t *list,
                         const hd_file_conf_t *conf, hd_str_t callback)
{
    switch (conf->autoindex_format) {
    case HD_AUTOINDEX_XML:
        put_xml_page(req, t, list);
        return HD_STR("text/xml; charset=utf-8");
    case HD_AUTOINDEX_JSON:
    case HD_AUTOINDEX_JSONP:
        if (callback.len == 0) {
            put_json_page(req, t, list);
            return HD_STR("application/json");
        }
        put_c(t, "/* callback */\r\n");
        put(t, callback);
        put_c(t, "(");
        put_json_page(req, t, list);
        put_c(t, ");");
        return HD_STR("application/javascript");
    default:
        put_html_page(req, t, list, conf);
        return HD_STR("text/html");
    }
}

hd_rc_t hd_autoindex_answer(hd_req_t *req, const hd_file_conf_t *conf, hd_str_t path)
{
    hd_str_t callback = HD_STR_NONE, type;
    text_t text = {.pool = req->pool};
    hd_array_t list;
    int error = 0;

    if (req->head.method_id != HD_M_GET && req->head.method_id != HD_M_HEAD)
        return hd_req_fail(req, req->head.method_id == HD_M_POST ? 403 : 405, HD_E_DENIED,
                           "autoindex: not a GET");
    if (conf->autoindex_format == HD_AUTOINDEX_JSONP &&
        read_callback(req, &callback) != HD_OK)
        return HD_ERROR;
    hd_array_init(&list, req->pool, sizeof(entry_t), ENTRIES_MAX);
    while (path.len > 1 && path.data[path.len - 1] == '/')
        path = hd_str_dup(req->pool, hd_str_sub(path, 0, path.len - 1));
    if (read_entries(req, path, &list, &error) != HD_OK)
        return hd_req_fail(req,
                           error == EACCES   ? 403
                           : error == ENOENT ? 404
                                             : 500,
                           HD_E_SYS, "opendir() \"%.*s\" failed (%d: %s)",
                           HD_STR_ARG(path), error, strerror(error));
    type = put_page(req, &text, &list, conf, callback);
    hd_response_local(req, 200, type, hd_str_n(text.data, text.len), 0, "autoindex");
    req->res.content_length = HD_LEN_UNKNOWN;
    return HD_DONE;
}
