/* charset: tells in Content-Type in which charset a text is, and converts it if it comes in
 * another one:
 *     charset utf-8;
 *     charset_types text/html text/css application/json;
 *     source_charset koi8-r; include koi-utf;      # a charset_map
 */
#include "lib/bodies.h"
#include "map.h"

extern const hd_module_t hd_module;

typedef struct {
    const hd_expr_t *charset, *source; /* NULL: off, not given */
    charset_maps_t maps;
    types_t types;
    bool overrides; /* an upstream's charset is converted, too */
} charset_conf_t;

static hd_rc_t compile_name(hd_conf_t *cf, hd_str_t arg, const hd_expr_t **out,
                            hd_err_t *err)
{
    hd_expr_t *expr = NULL;

    if (arg.len == 0)
        return hd_err_set(err, HD_E_CONF, "the charset is empty: a name is needed");
    if (hd_expr_compile(cf, arg, &expr, err) != HD_OK)
        return HD_ERROR;
    *out = expr;
    return HD_OK;
}

static hd_rc_t set_charset(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    charset_conf_t *cc = conf;

    cc->charset = NULL;
    if (hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    return compile_name(cf, args[0], &cc->charset, err);
}

static hd_rc_t set_source(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return compile_name(cf, args[0], &((charset_conf_t *)conf)->source, err);
}

static hd_rc_t set_types(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return types_set(cf, args, &((charset_conf_t *)conf)->types, err);
}

/* Both are known beforehand: then a map must lead from the one to the other. */
static hd_rc_t check_names(const charset_conf_t *cc, hd_err_t *err)
{
    hd_str_t from, to;
    charset_converter_t c;

    if (cc->source == NULL || !hd_expr_is_literal(cc->charset) ||
        !hd_expr_is_literal(cc->source))
        return HD_OK;
    from = cc->source->parts[0].text;
    to = cc->charset->parts[0].text;
    if (hd_str_eq_nocase(from, to) || charset_find(&cc->maps, from, to, &c))
        return HD_OK;
    return hd_err_set(err, HD_E_CONF,
                      "no \"charset_map\" for the charsets \"%.*s\" and \"%.*s\"",
                      HD_STR_ARG(from), HD_STR_ARG(to));
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    charset_conf_t *cc = conf;

    if (cc->charset == NULL && cc->source == NULL)
        return HD_OK;
    if (cc->maps.list == NULL && charset_maps_read(cf, &cc->maps, err) != HD_OK)
        return HD_ERROR;
    return cc->charset == NULL ? HD_OK : check_names(cc, err);
}

/* --- the head --- */

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

/* Where the parameter begins, with its semicolon; what it says in *charset. -1: there is
 * none. */
static ssize_t find_charset(hd_str_t type, hd_str_t *charset)
{
    for (size_t at = 0; at < type.len; at++) {
        hd_str_t rest, part;

        if (type.data[at] != ';')
            continue;
        rest = hd_str_sub(type, at + 1, type.len);
        if (!hd_str_split(&rest, ';', &part))
            break;
        part = hd_str_trim(part);
        if (!hd_str_has_prefix_nocase(part, HD_STR("charset=")))
            continue;
        part = hd_str_trim(hd_str_sub(part, 8, part.len));
        if (part.len >= 2 && part.data[0] == '"' && part.data[part.len - 1] == '"')
            part = hd_str_sub(part, 1, part.len - 2);
        *charset = part;
        return (ssize_t)at;
    }
    return -1;
}

/* What is to become of a response. */
typedef struct {
    hd_str_t type;           /* without its charset */
    hd_str_t to;             /* empty: it stays as it is */
    charset_converter_t way; /* map NULL: only the head tells of it */
} change_t;

/* From what charset it is converted, if it is; empty: it is in the right one already. */
static hd_rc_t find_way(hd_req_t *req, const charset_conf_t *cc, hd_str_t own, change_t *ch)
{
    hd_str_t from = own;

    if (from.len == 0 && cc->source != NULL &&
        hd_expr_eval(cc->source, req, &from) != HD_OK)
        return HD_ERROR;
    if (from.len == 0 || hd_str_eq_nocase(from, ch->to) ||
        charset_find(&cc->maps, from, ch->to, &ch->way))
        return HD_OK;
    hd_req_log(req, HD_LOG_ERROR,
               "no \"charset_map\" between the charsets \"%.*s\" and \"%.*s\"",
               HD_STR_ARG(from), HD_STR_ARG(ch->to));
    ch->to = HD_STR_NONE;
    return HD_OK;
}

/* Is a charset that the upstream names one of those that configuration does? */
static bool is_known(hd_req_t *req, const charset_conf_t *cc, hd_str_t name)
{
    const hd_expr_t *const own[] = {cc->charset, cc->source};
    hd_str_t text;

    for (size_t i = 0; i < hd_countof(own); i++) {
        if (own[i] != NULL && hd_expr_eval(own[i], req, &text) == HD_OK &&
            hd_str_eq_nocase(text, name))
            return true;
    }
    for (uint32_t i = 0; i < cc->maps.n; i++) {
        if (hd_str_eq_nocase(cc->maps.list[i].from, name) ||
            hd_str_eq_nocase(cc->maps.list[i].to, name))
            return true;
    }
    hd_req_log(req, HD_LOG_ERROR, "unknown charset \"%.*s\" to override",
               HD_STR_ARG(name));
    return false;
}

/* In which charset it goes out; <own>: of which it says to be, at <at> of its type.
 * Empty: as it is. */
static hd_rc_t choose(hd_req_t *req, const charset_conf_t *cc, hd_str_t type, ssize_t at,
                      hd_str_t *to)
{
    hd_str_t wanted = hd_res_wanted_charset(req);

    *to = HD_STR_NONE;
    if (wanted.len > 0) {
        if (is_known(req, cc, wanted))
            *to = wanted;
        return HD_OK;
    }
    if (cc->charset == NULL || (at >= 0 ? !cc->overrides : !is_text(cc, type)))
        return HD_OK;
    return hd_expr_eval(cc->charset, req, to);
}

static hd_rc_t judge(hd_req_t *req, const charset_conf_t *cc, hd_str_t type,
                     hd_str_t encoding, change_t *ch)
{
    hd_str_t own = HD_STR_NONE;
    ssize_t at = find_charset(type, &own);
    unsigned status = hd_res_status(req);

    *ch = (change_t){.type = at < 0 ? type : hd_str_sub(type, 0, (size_t)at)};
    /* nginx: not with redirects, whose charset old browsers took for the next page's */
    if (hd_req_is_sub(req) || status == 301 || status == 302)
        return HD_OK;
    if (choose(req, cc, type, at, &ch->to) != HD_OK)
        return HD_ERROR;
    if (!hd_http_is_field_value(ch->to))
        ch->to = HD_STR_NONE;
    if (ch->to.len > 0 && find_way(req, cc, own, ch) != HD_OK)
        return HD_ERROR;
    if (ch->way.map != NULL && encoding.len > 0)
        ch->to = HD_STR_NONE; /* compressed, it has other bytes */
    return HD_OK;
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    bool found, is_encoded;
    hd_str_t type = hd_res_header(req, HD_STR("Content-Type"), &found);
    hd_str_t encoding = hd_res_header(req, HD_STR("Content-Encoding"), &is_encoded);
    charset_converter_t *way;
    change_t ch;

    hd_req_set_state(req, &hd_module, NULL);
    if (found && judge(req, conf, type, encoding, &ch) != HD_OK)
        return HD_ERROR;
    if (!found || ch.to.len == 0 || ch.way.map == NULL)
        hd_res_skip_body(req);
    if (!found || ch.to.len == 0)
        return HD_OK;
    if (ch.way.map != NULL) {
        way = hd_pool_new(hd_req_pool(req), charset_converter_t);
        *way = ch.way;
        hd_req_set_state(req, &hd_module, way);
        if (way->way != CHARSET_BYTES)
            hd_res_remove_header(req, HD_STR("Content-Length"));
    }
    return hd_res_set_header(req, HD_STR("Content-Type"),
                             hd_str_printf(hd_req_pool(req), "%.*s; charset=%.*s",
                                           HD_STR_ARG(ch.type), HD_STR_ARG(ch.to)));
}

/* Parts of a file can be converted byte by byte, but not where they come with heads of
 * their own. */
static bool changes_file(hd_req_t *req, const void *conf, hd_str_t type,
                         hd_str_t encoding, int64_t length)
{
    bool found;
    hd_str_t range = hd_req_header(req, HD_STR("Range"), &found);
    change_t ch;

    (void)length;
    if (judge(req, conf, type, encoding, &ch) != HD_OK || ch.to.len == 0 ||
        ch.way.map == NULL)
        return false;
    return ch.way.way != CHARSET_BYTES || (found && hd_str_find_char(range, ',') >= 0);
}

/* --- the body --- */

static hd_rc_t on_response_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    charset_converter_t *way = hd_req_state(req, &hd_module);
    bool ends = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    hd_chain_t out;

    (void)conf;
    if (way == NULL)
        return HD_OK;
    hd_chain_init(&out);
    for (const hd_slice_t *s = body->first; s != NULL; s = s->next) {
        if (!charset_convert(way, hd_str_n(s->data, s->len), false, &out))
            goto no_block;
    }
    if (ends && !charset_convert(way, HD_STR_NONE, true, &out))
        goto no_block;
    bodies_replace(body, &out);
    return HD_OK;
no_block:
    hd_chain_free(&out);
    return hd_req_fail(req, 503, HD_E_LIMIT, "charset: no block left");
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
     .set = hd_set_flag,
     .offset = offsetof(charset_conf_t, overrides),
     .help = "on|off: what an upstream says to be in another charset is converted, too; "
             "off"},
    {.name = "source_charset",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = set_source,
     .help = "CHARSET: in which the texts are; from another one than charset they are "
             "converted by a charset_map; not given: in that of charset"},
    {.name = "charset_map",
     .scope = HD_IN_HTTP,
     .args_n = 2,
     .repeats = true,
     .block = charset_map_check,
     .help = "CHARSET CHARSET { BYTE BYTE; … }: which characters are the same, in "
             "hexadecimal digits; what isn't named is if it is ASCII. The second one may "
             "be utf-8: BYTE UTF-8; as in 80 E282AC;"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "charset",
    .directives = directives,
    .conf_size = sizeof(charset_conf_t),
    .phase = HD_PHASE_CONTENT,
    .order = 2, /* behind sub, before what others are added by, as in nginx */
    .on_conf = on_conf,
    .on_response_headers = on_response_headers,
    .on_response_body = on_response_body,
    .changes_file = changes_file,
};
