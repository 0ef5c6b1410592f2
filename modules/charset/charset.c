/* charset: tells in Content-Type in which charset a text is:
 *     charset utf-8;
 *     charset_types text/html text/css application/json;
 * Nothing is converted: the texts are in that charset already. */
#include "lib/bodies.h"

typedef struct {
    const hd_expr_t *charset; /* NULL: off */
    types_t types;
    hd_str_t source; /* empty: not given */
} charset_conf_t;

static hd_rc_t set_charset(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    charset_conf_t *cc = conf;
    hd_expr_t *expr = NULL;

    if (args[0].len == 0)
        return hd_err_set(err, HD_E_CONF, "the charset is empty: its name or off is "
                                          "allowed");
    if (!hd_str_eq(args[0], HD_STR("off")) &&
        hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
        return HD_ERROR;
    cc->charset = expr;
    return HD_OK;
}

static hd_rc_t set_types(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return types_set(cf, args, &((charset_conf_t *)conf)->types, err);
}

static hd_rc_t set_override(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    (void)conf;
    if (hd_str_eq(args[0], HD_STR("on")))
        hd_conf_warn(cf, "\"override_charset on\" has no effect: nothing is converted");
    else if (!hd_str_eq(args[0], HD_STR("off")))
        return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": on or off is allowed",
                          HD_STR_ARG(args[0]));
    return HD_OK;
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    const charset_conf_t *cc = conf;

    (void)cf;
    if (cc->source.len > 0 && cc->charset != NULL && hd_expr_is_literal(cc->charset) &&
        !hd_str_eq_nocase(cc->charset->parts[0].text, cc->source))
        return hd_err_set(err, HD_E_CONF,
                          "no \"charset_map\" for the charsets \"%.*s\" and \"%.*s\": "
                          "nothing is converted, both must be the same",
                          HD_STR_ARG(cc->source),
                          HD_STR_ARG(cc->charset->parts[0].text));
    return HD_OK;
}

static bool is_text(const charset_conf_t *cc, hd_str_t type)
{
    static const hd_str_t usual_list[] = {
        HD_STR_INIT("text/html"),         HD_STR_INIT("text/xml"),
        HD_STR_INIT("text/plain"),        HD_STR_INIT("text/vnd.wap.wml"),
        HD_STR_INIT("application/javascript"), HD_STR_INIT("application/rss+xml"),
    };
    static const types_t usual = {.list = usual_list, .n = hd_countof(usual_list)};

    return types_have(cc->types.n > 0 ? &cc->types : &usual, type);
}

static bool has_charset(hd_str_t type)
{
    hd_str_t rest = type, part;

    while (hd_str_split(&rest, ';', &part)) {
        if (hd_str_has_prefix_nocase(hd_str_trim(part), HD_STR("charset=")))
            return true;
    }
    return false;
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const charset_conf_t *cc = conf;
    hd_str_t type, charset;
    unsigned status = hd_res_status(req);
    bool found;

    hd_res_skip_body(req);
    type = hd_res_header(req, HD_STR("Content-Type"), &found);
    /* nginx: not with redirects, whose charset old browsers took for the next page's */
    if (cc->charset == NULL || hd_req_is_sub(req) || !found || status == 301 ||
        status == 302 || has_charset(type) || !is_text(cc, type))
        return HD_OK;
    if (hd_expr_eval(cc->charset, req, &charset) != HD_OK)
        return HD_ERROR;
    if (charset.len == 0 || !hd_http_is_field_value(charset))
        return HD_OK;
    return hd_res_set_header(req, HD_STR("Content-Type"),
                             hd_str_printf(hd_req_pool(req), "%.*s; charset=%.*s",
                                           HD_STR_ARG(type), HD_STR_ARG(charset)));
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "charset",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = set_charset,
     .help = "CHARSET|off: what Content-Type says of texts that say nothing; off"},
    {.name = "charset_types",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_types,
     .help = "TYPE …|*: which are texts, besides text/html; not given: text/xml "
             "text/plain text/vnd.wap.wml application/javascript application/rss+xml"},
    {.name = "override_charset",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = set_override,
     .help =
         "on|off: accepted; nothing is converted, so that an upstream's charset stays"},
    {.name = "source_charset",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(charset_conf_t, source),
     .help = "CHARSET: in which the texts are; the same as charset, since nothing is "
             "converted"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "charset",
    .directives = directives,
    .conf_size = sizeof(charset_conf_t),
    .phase = HD_PHASE_CONTENT,
    .on_conf = on_conf,
    .on_response_headers = on_response_headers,
};
