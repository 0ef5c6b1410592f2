/* access_log: a line a request, in stream a line a session, in nginx's form:
 *     log_format main escape=json '{"client":"$remote_addr","status":$status}';
 *     access_log logs/access.log main buffer=32k if=$loggable;
 *     access_log off;
 * Files are opened by the master and replaced when it is told to reopen them; those with
 * variables in their names by workers (opened.h). A syslog server gets a datagram a line.
 * Without `buffer` each line is written at once. By xDS an access log goes to standard
 * output or error, written within a second.
 */
#include "format.h"
#include "from_xds.h"
#include "opened.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTS_MAX 64

typedef struct {
    hd_str_t path;          /* or a syslog server's name (hd_syslog.h) */
    const hd_expr_t *named; /* a path with variables; else NULL */
    const log_format_t *format;
    const hd_expr_t *only_if; /* a value that is not empty and not "0"; NULL: always */
    hd_file_how_t how;
    bool is_syslog;
} log_t;

/* A block with access_log inherits none of the outer block's. */
typedef struct {
    const log_format_t *formats;
    uint32_t formats_n;
    const log_t *logs;
    uint32_t logs_n;
    log_cache_conf_t cache;
    const hd_expr_t *root; /* of files with variables; NULL: there are none */
    log_xds_t xds;         /* one log, by xDS */
} access_conf_t;

static const char combined[] =
    "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent "
    "\"$http_referer\" \"$http_user_agent\"";

/* --- log_format --- */

static hd_rc_t read_escape(hd_str_t arg, log_escape_t *escape, hd_err_t *err)
{
    static const char *const names[] = {"escape=default", "escape=json", "escape=none"};

    for (unsigned i = 0; i < hd_countof(names); i++) {
        if (hd_str_eq(arg, hd_str_c(names[i]))) {
            *escape = (log_escape_t)i;
            return HD_OK;
        }
    }
    return hd_err_set(err, HD_E_CONF,
                      "unknown escaping \"%.*s\": default, json or none are allowed",
                      HD_STR_ARG(arg));
}

static const log_format_t *find_format(const access_conf_t *ac, hd_str_t name)
{
    for (uint32_t i = 0; i < ac->formats_n; i++) {
        if (hd_str_eq(ac->formats[i].name, name))
            return &ac->formats[i];
    }
    return NULL;
}

static hd_rc_t add_format(hd_conf_t *cf, access_conf_t *ac, hd_str_t name,
                          log_escape_t escape, hd_str_t text, hd_err_t *err)
{
    log_format_t *list = hd_pool_new_n(cf->pool, log_format_t, ac->formats_n + 1);
    hd_expr_t *expr;

    if (hd_expr_compile(cf, text, &expr, err) != HD_OK)
        return HD_ERROR;
    if (ac->formats_n > 0)
        memcpy(list, ac->formats, ac->formats_n * sizeof(*list));
    list[ac->formats_n++] = (log_format_t){
        .name = hd_str_dup(cf->pool, name), .escape = escape, .text = expr};
    ac->formats = list;
    return HD_OK;
}

static hd_rc_t set_format(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    access_conf_t *ac = conf;
    log_escape_t escape = LOG_ESCAPE_DEFAULT;
    uint32_t from = 1;
    hd_str_t text = HD_STR_NONE;

    if (hd_str_eq(args[0], HD_STR("combined")) || find_format(ac, args[0]) != NULL)
        return hd_err_set(err, HD_E_CONF, "duplicate \"log_format\" name \"%.*s\"",
                          HD_STR_ARG(args[0]));
    if (ac->formats_n == LISTS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d formats", LISTS_MAX);
    if (hd_str_has_prefix(args[1], HD_STR("escape="))) {
        if (read_escape(args[1], &escape, err) != HD_OK)
            return HD_ERROR;
        from = 2;
    }
    for (uint32_t i = from; i < cf->node->args_n; i++)
        text = hd_str_printf(cf->temp, "%.*s%.*s", HD_STR_ARG(text), HD_STR_ARG(args[i]));
    return add_format(cf, ac, args[0], escape, text, err);
}

/* --- access_log --- */

#define BUFFER_BYTES 65536 /* nginx: of gzip without buffer= */

static hd_rc_t set_gzip(hd_str_t arg, log_t *log, hd_err_t *err)
{
    uint64_t level = 1;

    if (arg.len > 4 &&
        (!hd_str_to_u64(hd_str_sub(arg, 5, arg.len), 9, &level) || level == 0))
        return hd_err_set(err, HD_E_CONF, "invalid compression level \"%.*s\": 1 to 9",
                          HD_STR_ARG(arg));
    log->how.gzip_level = (uint8_t)level;
    return HD_OK;
}

static hd_rc_t set_parameter(hd_conf_t *cf, hd_str_t arg, log_t *log, hd_err_t *err)
{
    uint64_t n;
    hd_expr_t *expr;

    if (hd_str_has_prefix(arg, HD_STR("buffer="))) {
        if (hd_parse_size(hd_str_sub(arg, 7, arg.len), 1u << 30, &n, err) != HD_OK)
            return HD_ERROR;
        log->how.buffer_bytes = (uint32_t)n;
        return n > 0 ? HD_OK : hd_err_set(err, HD_E_CONF, "invalid buffer size \"0\"");
    }
    if (hd_str_has_prefix(arg, HD_STR("flush=")))
        return hd_parse_msec(hd_str_sub(arg, 6, arg.len), &log->how.flush_ms, err);
    if (hd_str_eq(arg, HD_STR("gzip")) || hd_str_has_prefix(arg, HD_STR("gzip=")))
        return set_gzip(arg, log, err);
    if (hd_str_has_prefix(arg, HD_STR("if="))) {
        if (hd_expr_compile(cf, hd_str_sub(arg, 3, arg.len), &expr, err) != HD_OK)
            return HD_ERROR;
        log->only_if = expr;
        return HD_OK;
    }
    return hd_err_set(err, HD_E_CONF,
                      "invalid parameter \"%.*s\"; allowed are buffer=SIZE, flush=TIME, "
                      "gzip[=LEVEL], if=CONDITION",
                      HD_STR_ARG(arg));
}

#define IN_STREAM (HD_IN_STREAM | HD_IN_STREAM_SERVER)
/* What parameters mean together. */
static hd_rc_t check_parameters(log_t *log, hd_err_t *err)
{
    if (log->how.gzip_level > 0 && log->how.buffer_bytes == 0)
        log->how.buffer_bytes = BUFFER_BYTES;
    if (log->how.buffer_bytes > 0 && log->is_syslog)
        return hd_err_set(err, HD_E_CONF, "logs to syslog cannot be buffered");
    if (log->how.buffer_bytes > 0 && log->named != NULL)
        return hd_err_set(err, HD_E_CONF, "buffered logs cannot have variables in name");
    if (log->how.flush_ms > 0 && log->how.buffer_bytes == 0)
        return hd_err_set(err, HD_E_CONF,
                          "flush= without a buffer=: nothing is gathered");
    return HD_OK;
}

static hd_rc_t find_or_combined(hd_conf_t *cf, access_conf_t *ac, hd_str_t name,
                                const log_format_t **format, hd_err_t *err)
{
    *format = find_format(ac, name);
    if (*format != NULL)
        return HD_OK;
    if (!hd_str_eq(name, HD_STR("combined")) || (cf->scope & IN_STREAM) != 0)
        return hd_err_set(err, HD_E_CONF,
                          "unknown log format \"%.*s\": its log_format line comes first",
                          HD_STR_ARG(name));
    if (add_format(cf, ac, name, LOG_ESCAPE_DEFAULT, hd_str_c(combined), err) != HD_OK)
        return HD_ERROR;
    *format = find_format(ac, name);
    return HD_OK;
}

/* Where it goes: a syslog server, a file whose name depends on the request, a file. */
static hd_rc_t set_target(hd_conf_t *cf, access_conf_t *ac, hd_str_t arg, log_t *log,
                          hd_err_t *err)
{
    hd_expr_t *named, *root;

    log->is_syslog = hd_syslog_is(arg);
    if (log->is_syslog)
        return hd_syslog_check(cf->pool, arg, &log->path, err);
    log->path = hd_conf_path(cf, arg, false);
    if (hd_str_find_char(arg, '$') < 0)
        return hd_build_need_log(cf, log->path, err);
    if (hd_expr_compile(cf, log->path, &named, err) != HD_OK)
        return HD_ERROR;
    log->named = named;
    if ((cf->scope & IN_STREAM) != 0)
        return HD_OK;
    if (hd_expr_compile(cf, HD_STR("$document_root"), &root, err) != HD_OK)
        return HD_ERROR;
    ac->root = root;
    return HD_OK;
}

static hd_rc_t set_access_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    access_conf_t *ac = conf;
    uint32_t n = cf->is_first ? 0 : ac->logs_n, from = 1;
    log_t log = {0}, *list;
    hd_str_t name = HD_STR("combined");

    if (hd_str_eq(args[0], HD_STR("off"))) {
        if (cf->node->args_n > 1)
            return hd_err_set(err, HD_E_CONF, "invalid parameter \"%.*s\" behind \"off\"",
                              HD_STR_ARG(args[1]));
        ac->logs_n = 0;
        return HD_OK;
    }
    if (n == LISTS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d logs here", LISTS_MAX);
    if (cf->node->args_n > 1 && hd_str_find_char(args[1], '=') < 0) {
        name = args[1];
        from = 2;
    }
    if (from == 1 && (cf->scope & IN_STREAM) != 0)
        return hd_err_set(err, HD_E_CONF,
                          "log format is not specified: in stream there "
                          "is none but those of log_format");
    if (find_or_combined(cf, ac, name, &log.format, err) != HD_OK)
        return HD_ERROR;
    for (uint32_t i = from; i < cf->node->args_n; i++) {
        if (set_parameter(cf, args[i], &log, err) != HD_OK)
            return HD_ERROR;
    }
    if (set_target(cf, ac, args[0], &log, err) != HD_OK ||
        check_parameters(&log, err) != HD_OK)
        return HD_ERROR;
    list = hd_pool_new_n(cf->pool, log_t, n + 1);
    if (n > 0)
        memcpy(list, ac->logs, n * sizeof(*list));
    list[n] = log;
    ac->logs = list;
    ac->logs_n = n + 1;
    return HD_OK;
}

/* --- open_log_file_cache --- */

static hd_rc_t set_cache(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    log_cache_conf_t c = {.min_uses = 1, .inactive_ms = 10000, .valid_ms = 60000};
    uint64_t n;

    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        ssize_t at = hd_str_find_char(args[i], '=');
        hd_str_t name = at < 0 ? args[i] : hd_str_sub(args[i], 0, (size_t)at);
        hd_str_t value =
            at < 0 ? HD_STR_NONE : hd_str_sub(args[i], (size_t)at + 1, SIZE_MAX);
        hd_rc_t rc = HD_OK;

        if (hd_str_eq(args[i], HD_STR("off")) && cf->node->args_n == 1) {
            ((access_conf_t *)conf)->cache = (log_cache_conf_t){0};
            return HD_OK;
        }
        n = 0;
        if (hd_str_eq(name, HD_STR("max")) && hd_str_to_u64(value, 1 << 20, &n) && n > 0)
            c.max = (uint32_t)n;
        else if (hd_str_eq(name, HD_STR("min_uses")) &&
                 hd_str_to_u64(value, 1 << 20, &n) && n > 0)
            c.min_uses = (uint32_t)n;
        else if (hd_str_eq(name, HD_STR("inactive")))
            rc = hd_parse_msec(value, &c.inactive_ms, err);
        else if (hd_str_eq(name, HD_STR("valid")))
            rc = hd_parse_msec(value, &c.valid_ms, err);
        else
            rc = hd_err_set(err, HD_E_CONF,
                            "invalid parameter \"%.*s\": off, or max=N [inactive=TIME] "
                            "[min_uses=N] [valid=TIME]",
                            HD_STR_ARG(args[i]));
        if (rc != HD_OK)
            return HD_ERROR;
    }
    if (c.max == 0)
        return hd_err_set(err, HD_E_CONF,
                          "\"open_log_file_cache\" must have \"max\" parameter");
    ((access_conf_t *)conf)->cache = c;
    return HD_OK;
}

/* --- requests and sessions --- */

static bool is_wanted(const log_t *log, const hd_attr_of_t *of)
{
    hd_str_t value;

    if (log->only_if == NULL)
        return true;
    if (hd_expr_eval_of(log->only_if, of, &value) != HD_OK)
        return false;
    return value.len > 0 && !hd_str_eq(value, HD_STR("0"));
}

static void log_by_xds(const log_xds_t *xds, const hd_attr_of_t *of)
{
    hd_file_t *file = hd_file_get(xds->path);
    log_line_t line = {.pool = of->pool};

    if (file == NULL)
        return;
    log_xds_render(xds, of, &line);
    if (line.len > 0)
        hd_file_write(file, hd_str_n(line.data, line.len), true);
}

/* nginx: a site whose root isn't there gets no files for whatever name it is asked by. An
 * alias may be a file. */
static bool has_root(const access_conf_t *ac, const hd_attr_of_t *of)
{
    struct stat st;
    hd_str_t root;

    if (hd_expr_eval_of(ac->root, of, &root) != HD_OK || root.len == 0)
        return false;
    if (stat(hd_str_to_c(of->pool, root), &st) == 0)
        return true;
    if (of->req != NULL)
        hd_req_log(of->req, HD_LOG_ERROR, "no access log is written: \"%.*s\" (%d: %s)",
                   HD_STR_ARG(root), errno, strerror(errno));
    return false;
}

static void write_line(const access_conf_t *ac, const log_t *log, const hd_attr_of_t *of,
                       hd_str_t line)
{
    hd_file_t *file;
    hd_str_t path;

    if (log->is_syslog) {
        hd_syslog_send(log->path, -1, line);
    } else if (log->named != NULL) {
        if (hd_expr_eval_of(log->named, of, &path) == HD_OK &&
            (ac->root == NULL || has_root(ac, of)))
            log_opened_write(&ac->cache, path, line, of);
    } else {
        file = hd_file_get(log->path);
        if (file != NULL)
            hd_file_write_as(file, line, &log->how);
    }
}

static void write_all(const access_conf_t *ac, const hd_attr_of_t *of)
{
    if (ac->xds.path.len > 0)
        log_by_xds(&ac->xds, of);
    for (uint32_t i = 0; i < ac->logs_n; i++) {
        const log_t *log = &ac->logs[i];
        log_line_t line = {.pool = of->pool};

        if (!is_wanted(log, of))
            continue;
        log_render(log->format, of, &line);
        write_line(ac, log, of, hd_str_n(line.data, line.len));
    }
}

static void on_log(hd_req_t *req, const void *conf)
{
    hd_attr_of_t of = hd_req_attr_of(req);

    write_all(conf, &of);
}

/* Of stream: a line a session. */
static void on_session(hd_conn_t *c, const void *conf, hd_session_event_t event)
{
    hd_attr_of_t of = {
        .conn = c, .pool = hd_conn_pool(c), .member = hd_loop_member(c->loop)};

    if (event == HD_SESSION_ENDED)
        write_all(conf, &of);
}

static const hd_directive_t directives[] = {
    {.name = "log_format",
     .scope = HD_IN_HTTP | HD_IN_STREAM,
     .args_n = 2,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_format,
     .help = "NAME [escape=default|json|none] TEXT …: a line of variables; in http "
             "\"combined\" is there already"},
    {.name = "access_log",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_IF | HD_IN_LIMIT_EXCEPT |
              HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_access_log,
     .help = "off | FILE | syslog:server=ADDRESS[,PARAMETER…] [FORMAT] [buffer=SIZE "
             "[flush=TIME]] [gzip[=LEVEL]] [if=CONDITION]: a line for each request, in "
             "stream for each session (there FORMAT must be named); a block with one "
             "inherits "
             "none"},
    {.name = "open_log_file_cache",
     .scope =
         HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = 4,
     .set = set_cache,
     .help = "off | max=N [inactive=TIME] [min_uses=N] [valid=TIME]: access logs with "
             "variables in their names are kept open"},
    {0},
};

static hd_rc_t build_xds(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                         hd_err_t *err)
{
    access_conf_t *ac = conf;

    (void)is_route;
    return log_from_xds(cf, bytes, &ac->xds, err);
}

static const hd_xds_type_t xds_types[] = {
    {.url = "type.googleapis.com/envoy.config.accesslog.v3.AccessLog",
     .build = build_xds},
    {.url = "type.googleapis.com/envoy.config.accesslog.v3.AccessLog",
     .build = build_xds,
     .is_network = true},
    {0},
};

/* What control planes log to are this process's own descriptors, as the master left them.
 */
static hd_rc_t on_process_start(hd_member_t *m, hd_loop_t *loop, hd_err_t *err)
{
    static const char *const paths[] = {"/dev/stdout", "/dev/stderr"};

    (void)m;
    (void)loop;
    for (int i = 0; i < 2; i++) {
        hd_str_t path = hd_str_c(paths[i]);
        int fd = hd_file_get(path) == NULL ? fcntl(i + 1, F_DUPFD_CLOEXEC, 3) : -1;

        if (fd >= 0 && hd_file_put(path, fd) == NULL)
            return hd_err_set(err, HD_E_SYS, "no log to %s", paths[i]);
    }
    return HD_OK;
}

static void on_process_stop(hd_member_t *m)
{
    (void)m;
    log_opened_close_all();
}

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "access_log",
    .directives = directives,
    .conf_size = sizeof(access_conf_t),
    .xds_types = xds_types,
    .on_process_start = on_process_start,
    .on_process_stop = on_process_stop,
    .on_log = on_log,
    .on_session = on_session,
};
