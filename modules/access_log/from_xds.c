#include "from_xds.h"

#include "ext/log_file.pb-c.h"
#include "hd_pb_value.h"
#include "lib/pb_unpack.h"
#include "xds/accesslog.pb-c.h"
#include <string.h>

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

static hd_rc_t read_text(const PbLogFile__FileAccessLog *f, hd_str_t *text,
                         bool *omit_empty)
{
    const PbCore__SubstitutionFormatString *s;

    switch (f->access_log_format_case) {
    case PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT__NOT_SET:
        *text = hd_str_c(envoy_default);
        return HD_OK;
    case PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_FORMAT:
        *text = hd_str_c(f->format);
        return HD_OK;
    case PB_LOG_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT:
        s = f->log_format;
        *omit_empty = s->omit_empty_values;
        if (s->format_case == PB_CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT) {
            *text = hd_str_c(s->text_format);
            return HD_OK;
        }
        if (s->format_case ==
                PB_CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE &&
            s->text_format_source->specifier_case ==
                PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING) {
            *text = hd_str_c(s->text_format_source->inline_string);
            return HD_OK;
        }
        break;
    default:
        break;
    }
    return leave_out("its format is JSON");
}

static hd_rc_t read_file(hd_conf_t *cf, const Pb__Any *any, hd_pb_arena_t *arena,
                         log_xds_t *to, hd_err_t *err)
{
    const PbLogFile__FileAccessLog *f;
    hd_str_t format;
    hd_rc_t rc;

    if (any == NULL || !hd_pb_any_is(any, HD_PB(pb_log_file__file_access_log)))
        return hd_err_set(err, HD_E_RESOURCE, "only FileAccessLog is known, not \"%s\"",
                          any != NULL ? any->type_url : "");
    f = pb_unpack(HD_PB(pb_log_file__file_access_log),
                  hd_str_n((const char *)any->value.data, any->value.len), arena, "",
                  err);
    if (f == NULL)
        return HD_ERROR;
    if (strcmp(f->path, "/dev/stdout") != 0 && strcmp(f->path, "/dev/stderr") != 0)
        return leave_out("/dev/stdout and /dev/stderr can be written to, no other file");
    rc = read_text(f, &format, &to->format.omit_empty);
    if (rc == HD_OK)
        rc = log_operators_compile(cf, format, &to->format, err);
    if (rc == HD_OK)
        to->path = hd_str_dup(cf->pool, hd_str_c(f->path));
    return rc;
}

hd_rc_t log_from_xds(hd_conf_t *cf, hd_str_t bytes, log_xds_t *to, hd_err_t *err)
{
    hd_pb_arena_t arena;
    const PbAccesslog__AccessLog *log;
    hd_rc_t rc;

    hd_pb_arena_init(&arena, 1 << 20);
    log = pb_unpack(HD_PB(pb_accesslog__access_log), bytes, &arena, "", err);
    if (log == NULL) {
        rc = HD_ERROR;
    } else if (log->filter != NULL) {
        rc = leave_out("it has a filter");
    } else {
        rc = read_file(cf,
                       log->config_type_case ==
                               PB_ACCESSLOG__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG
                           ? log->typed_config
                           : NULL,
                       &arena, to, err);
    }
    hd_pb_arena_deinit(&arena);
    return rc == HD_DECLINED ? HD_OK : rc;
}
