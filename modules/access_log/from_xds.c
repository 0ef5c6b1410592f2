#include "from_xds.h"

#include "ext/log_file.pb-c.h"
#include "ext/log_stream.pb-c.h"
#include "hd_pb_value.h"
#include "lib/pb_unpack.h"
#include "xds/accesslog.pb-c.h"

/* Envoy's, where no format is given. */
static const char envoy_default[] =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" "
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" "
    "\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" "
    "\"%UPSTREAM_HOST%\"\n";

/* A log that we can't write is left out, and told of: what it would have said is no reason to
 * refuse the listener that it belongs to. */
static hd_rc_t leave_out(const char *why)
{
    hd_log(HD_LOG_WARN, "an access log by xDS isn't written: %s", why);
    return HD_DECLINED;
}

static hd_rc_t read_text(hd_conf_t *cf, const char *text, log_xds_t *to, hd_err_t *err)
{
    return log_operators_compile(cf, hd_str_c(text), &to->text, err);
}

static hd_rc_t read_json(hd_conf_t *cf, const Pb__Struct *s, bool keeps_types,
                         log_xds_t *to, hd_err_t *err)
{
    to->how.keeps_types = keeps_types;
    return log_json_compile(cf, s, &to->json, err);
}

static hd_rc_t read_string(hd_conf_t *cf, const PbCore__SubstitutionFormatString *s,
                           log_xds_t *to, hd_err_t *err)
{
    to->how.omit_empty = s->omit_empty_values != 0;
    switch (s->format_case) {
    case PB_CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT:
        return read_text(cf, s->text_format, to, err);
    case PB_CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_JSON_FORMAT:
        return read_json(cf, s->json_format, true, to, err);
    case PB_CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE:
        if (s->text_format_source->specifier_case ==
            PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING)
            return read_text(cf, s->text_format_source->inline_string, to, err);
        break;
    default:
        break;
    }
    return hd_err_set(err, HD_E_RESOURCE,
                      "the format must be text, inline, or JSON: files aren't read");
}

static hd_rc_t read_format(hd_conf_t *cf, const PbLogFile__FileAccessLog *f,
                           log_xds_t *to, hd_err_t *err)
{
    switch (f->access_log_format_case) {
    case PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_FORMAT:
        return read_text(cf, f->format, to, err);
    case PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_JSON_FORMAT:
        return read_json(cf, f->json_format, false, to, err);
    case PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_TYPED_JSON_FORMAT:
        return read_json(cf, f->typed_json_format, true, to, err);
    case PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT:
        return read_string(cf, f->log_format, to, err);
    default:
        return read_text(cf, envoy_default, to, err);
    }
}

static hd_rc_t read_file(hd_conf_t *cf, const Pb__Any *any, hd_pb_arena_t *arena,
                         log_xds_t *to, hd_err_t *err)
{
    const PbLogFile__FileAccessLog *f;
    hd_rc_t rc;

    if (any == NULL || !hd_pb_any_is(any, HD_PB(pb_log_file__file_access_log)))
        return hd_err_set(err, HD_E_RESOURCE, "only FileAccessLog, StdoutAccessLog and "
                          "StderrAccessLog are known, not \"%s\"",
                          any != NULL ? any->type_url : "");
    f = pb_unpack(HD_PB(pb_log_file__file_access_log),
                  hd_str_n((const char *)any->value.data, any->value.len), arena, "",
                  err);
    if (f == NULL)
        return HD_ERROR;
    if (strcmp(f->path, "/dev/stdout") != 0 && strcmp(f->path, "/dev/stderr") != 0)
        return leave_out("/dev/stdout and /dev/stderr can be written to, no other file");
    rc = read_format(cf, f, to, err);
    if (rc == HD_OK)
        to->path = hd_str_dup(cf->pool, hd_str_c(f->path));
    return rc;
}

static hd_rc_t read_stream(hd_conf_t *cf, const PbCore__SubstitutionFormatString *format,
                           const char *path, log_xds_t *to, hd_err_t *err)
{
    hd_rc_t rc = format != NULL ? read_string(cf, format, to, err)
                                : read_text(cf, envoy_default, to, err);

    if (rc == HD_OK)
        to->path = hd_str_dup(cf->pool, hd_str_c(path));
    return rc;
}

static hd_rc_t read_sink(hd_conf_t *cf, const Pb__Any *any, hd_pb_arena_t *arena,
                         log_xds_t *to, hd_err_t *err)
{
    const PbLogStream__StdoutAccessLog *out;
    const PbLogStream__StderrAccessLog *errors;
    hd_str_t bytes = any != NULL ? hd_str_n((const char *)any->value.data, any->value.len)
                                 : HD_STR_NONE;

    if (any != NULL && hd_pb_any_is(any, HD_PB(pb_log_stream__stdout_access_log))) {
        out = pb_unpack(HD_PB(pb_log_stream__stdout_access_log), bytes, arena, "", err);
        return out != NULL ? read_stream(cf, out->log_format, "/dev/stdout", to, err)
                           : HD_ERROR;
    }
    if (any != NULL && hd_pb_any_is(any, HD_PB(pb_log_stream__stderr_access_log))) {
        errors = pb_unpack(HD_PB(pb_log_stream__stderr_access_log), bytes, arena, "", err);
        return errors != NULL
                   ? read_stream(cf, errors->log_format, "/dev/stderr", to, err)
                   : HD_ERROR;
    }
    return read_file(cf, any, arena, to, err);
}

static hd_rc_t read_log(hd_conf_t *cf, const PbAccesslog__AccessLog *log,
                        hd_pb_arena_t *arena, log_xds_t *to, hd_err_t *err)
{
    bool is_typed = log->config_type_case ==
                    PB_ACCESSLOG__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG;
    hd_rc_t rc = log->filter == NULL
                     ? HD_OK
                     : log_filter_compile(cf, log->filter, &to->filter, err);

    if (rc == HD_DECLINED)
        return leave_out("its filter is of a kind that isn't known here");
    return rc == HD_OK ? read_sink(cf, is_typed ? log->typed_config : NULL, arena, to, err)
                       : rc;
}

hd_rc_t log_from_xds(hd_conf_t *cf, hd_str_t bytes, log_xds_t *to, hd_err_t *err)
{
    hd_pb_arena_t arena;
    const PbAccesslog__AccessLog *log;
    hd_rc_t rc;

    hd_pb_arena_init(&arena, 1 << 20);
    log = pb_unpack(HD_PB(pb_accesslog__access_log), bytes, &arena, "", err);
    rc = log != NULL ? read_log(cf, log, &arena, to, err) : HD_ERROR;
    hd_pb_arena_deinit(&arena);
    return rc == HD_DECLINED ? HD_OK : rc;
}

void log_xds_render(const log_xds_t *xds, const hd_attr_of_t *of, log_line_t *line)
{
    log_facts_t facts;

    log_facts_init(&facts, of);
    if (xds->filter != NULL && !log_filter_wants(xds->filter, &facts))
        return;
    if (xds->json != NULL)
        log_json_render(xds->json, &xds->how, &facts, line);
    else
        log_operators_render(&xds->text, &facts, xds->how.omit_empty, true, line);
    if (line->len == 0 || line->data[line->len - 1] != '\n')
        log_add(line, HD_STR("\n"));
}
