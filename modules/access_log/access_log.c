/* access_log: a line a request, in stream a line a session, in nginx's form:
 *     log_format main escape=json '{"client":"$remote_addr","status":$status}';
 *     access_log logs/access.log main buffer=32k if=$loggable;
 *     access_log off;
 * Files are opened by the master and replaced when it is told to reopen them. Without
 * `buffer` or `flush` each line is written at once, with them within a second. By xDS an
 * access log goes to standard output or error, written within a second.
 */
#include "format.h"
#include "from_xds.h"

#include <fcntl.h>
#include <unistd.h>

#define LISTS_MAX 64

typedef struct {
    hd_str_t path;
    const log_format_t *format;
    const hd_expr_t *only_if; /* a value that is not empty and not "0"; NULL: always */
    bool is_buffered;
} log_t;

/* A block with access_log inherits none of the outer block's. */
typedef struct {
    const log_format_t *formats;
    uint32_t formats_n;
    const log_t *logs;
    uint32_t logs_n;
    log_xds_t xds; /* one log, by xDS */
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

static hd_rc_t set_parameter(hd_conf_t *cf, hd_str_t arg, log_t *log, hd_err_t *err)
{
    uint64_t n;
    hd_expr_t *expr;

    if (hd_str_has_prefix(arg, HD_STR("buffer="))) {
        log->is_buffered = true;
        return hd_parse_size(hd_str_sub(arg, 7, arg.len), INT64_MAX, &n, err);
    }
    if (hd_str_has_prefix(arg, HD_STR("flush="))) {
        log->is_buffered = true;
        return hd_parse_msec(hd_str_sub(arg, 6, arg.len), &n, err);
    }
    if (hd_str_has_prefix(arg, HD_STR("if="))) {
        if (hd_expr_compile(cf, hd_str_sub(arg, 3, arg.len), &expr, err) != HD_OK)
            return HD_ERROR;
        log->only_if = expr;
        return HD_OK;
    }
    return hd_err_set(err, HD_E_CONF,
                      "invalid parameter \"%.*s\"; allowed are buffer=SIZE, flush=TIME, "
                      "if=CONDITION",
                      HD_STR_ARG(arg));
}

#define IN_STREAM (HD_IN_STREAM | HD_IN_STREAM_SERVER)

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

static hd_rc_t check_path(hd_str_t path, hd_err_t *err)
{
    if (hd_str_has_prefix(path, HD_STR("syslog:")))
        return hd_err_set(err, HD_E_CONF, "syslog is not supported: name a file");
    if (hd_str_find_char(path, '$') >= 0)
        return hd_err_set(err, HD_E_CONF,
                          "variables in a log's path are not supported: "
                          "files are opened before requests come");
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
    if (check_path(args[0], err) != HD_OK)
        return HD_ERROR;
    if (n == LISTS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d logs here", LISTS_MAX);
    log.path = hd_conf_path(cf, args[0], false);
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
    list = hd_pool_new_n(cf->pool, log_t, n + 1);
    if (n > 0)
        memcpy(list, ac->logs, n * sizeof(*list));
    list[n] = log;
    ac->logs = list;
    ac->logs_n = n + 1;
    return hd_build_need_log(cf, log.path, err);
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
    log_operators_render(&xds->format, of, &line);
    hd_file_write(file, hd_str_n(line.data, line.len), true);
}

static void write_all(const access_conf_t *ac, const hd_attr_of_t *of)
{
    if (ac->xds.path.len > 0)
        log_by_xds(&ac->xds, of);
    for (uint32_t i = 0; i < ac->logs_n; i++) {
        const log_t *log = &ac->logs[i];
        hd_file_t *file = hd_file_get(log->path);
        log_line_t line = {.pool = of->pool};

        if (file == NULL || !is_wanted(log, of))
            continue;
        log_render(log->format, of, &line);
        hd_file_write(file, hd_str_n(line.data, line.len), log->is_buffered);
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
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_IF | HD_IN_STREAM |
              HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_access_log,
     .help =
         "off | FILE [FORMAT] [buffer=SIZE] [flush=TIME] [if=CONDITION]: a line for "
         "each request, in stream for each session (there FORMAT must be named); a block "
         "with one inherits none"},
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

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "access_log",
    .directives = directives,
    .conf_size = sizeof(access_conf_t),
    .xds_types = xds_types,
    .on_process_start = on_process_start,
    .on_log = on_log,
    .on_session = on_session,
};
