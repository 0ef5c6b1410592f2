/* proxy_pass and what goes with it. */
#include "http/hd_conf_proxy_int.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_module_table.h"
#include "http/hd_codec.h"

static bool may_have_uri(const hd_place_t *p)
{
    return p->kind == HD_PLACE_PREFIX || p->kind == HD_PLACE_EXACT;
}

static hd_rc_t set_pass(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_place_t *place = hd_http_build_of(cf)->place;
    hd_conf_proxy_t *pc = conf;
    hd_str_t rest = args[0];
    hd_expr_t *expr;
    ssize_t slash;

    pc->pass_of = place->id;
    pc->cluster = pc->any = NULL;
    pc->url = NULL;
    pc->is_variable = hd_str_find_char(args[0], '$') >= 0;
    pc->is_https = hd_str_has_prefix_nocase(args[0], HD_STR("https://"));
    if (pc->is_https || hd_str_has_prefix_nocase(args[0], HD_STR("http://")))
        rest = hd_str_sub(args[0], pc->is_https ? 8 : 7, args[0].len);
    else if (!hd_str_has_prefix(args[0], HD_STR("$")))
        return hd_err_set(
            err, HD_E_CONF,
            "invalid URL prefix in \"%.*s\": http:// or https:// is expected",
            HD_STR_ARG(args[0]));
    if (pc->is_variable) {
        if (hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
            return HD_ERROR;
        pc->url = expr;
    }
    pc->has_scheme_var = pc->is_variable && rest.data == args[0].data;
    slash = hd_str_has_prefix(rest, HD_STR("unix:"))
                ? hd_str_find(hd_str_sub(rest, 5, rest.len), HD_STR(":/"))
                : hd_str_find_char(rest, '/');
    if (slash >= 0 && hd_str_has_prefix(rest, HD_STR("unix:")))
        slash += 6; /* unix:/path:/uri */
    pc->has_uri = slash >= 0;
    pc->host_port = slash < 0 ? rest : hd_str_sub(rest, 0, (size_t)slash);
    pc->uri = slash < 0 ? HD_STR_NONE : hd_str_sub(rest, (size_t)slash, rest.len);
    if (hd_str_has_prefix(pc->host_port, HD_STR("unix:")) &&
        hd_str_has_suffix(pc->host_port, HD_STR(":")))
        pc->host_port.len--;
    if (pc->host_port.len == 0)
        return hd_err_set(err, HD_E_CONF, "no host in upstream \"%.*s\"",
                          HD_STR_ARG(args[0]));
    pc->host_port = hd_str_dup(cf->pool, pc->host_port);
    pc->uri = hd_str_dup(cf->pool, pc->uri);
    if (pc->has_uri && !pc->is_variable && !may_have_uri(hd_http_location_of(place)))
        return hd_err_set(err, HD_E_CONF,
                          "\"proxy_pass\" cannot have URI part in location given by "
                          "regular expression, or inside named location");
    if (hd_str_find_char(pc->host_port, '$') >= 0)
        return hd_conf_cluster->any_slot(cf, false, &pc->any, err);
    return hd_conf_cluster->slot_for(cf, pc->host_port, pc->is_https ? 443 : 80, false,
                                     &pc->cluster, err);
}

static hd_rc_t set_expr(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_expr_t **to =
        (const hd_expr_t **)(void *)((char *)conf + cf->directive->offset);
    hd_expr_t *expr;

    if (hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
        return HD_ERROR;
    *to = expr;
    return HD_OK;
}

static hd_rc_t set_rate(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint64_t n;

    if (hd_str_find_char(args[0], '$') < 0 &&
        hd_parse_size(args[0], INT64_MAX, &n, err) != HD_OK)
        return HD_ERROR;
    return set_expr(cf, args, conf, err);
}

static hd_rc_t set_method(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    if (hd_str_find_char(args[0], '$') < 0 && !hd_http_is_field_name(args[0]))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is not a method",
                          HD_STR_ARG(args[0]));
    return set_expr(cf, args, conf, err);
}

/* proxy_bind ADDRESS [transparent] | off */
static hd_rc_t set_bind(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;
    hd_addr_t addr;

    pc->bind = NULL;
    pc->bind_transparent = false;
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    if (cf->node->args_n == 2) {
        if (!hd_str_eq(args[1], HD_STR("transparent")))
            return hd_err_set(err, HD_E_CONF, "invalid parameter \"%.*s\": transparent",
                              HD_STR_ARG(args[1]));
        pc->bind_transparent = true;
    }
    if (hd_str_find_char(args[0], '$') < 0 &&
        hd_addr_parse(cf->temp, args[0], 0, &addr, err) != HD_OK)
        return HD_ERROR;
    return set_expr(cf, args, conf, err);
}

static const hd_conf_enum_t next_names[] = {
    {"error", HD_NEXT_ERROR},
    {"timeout", HD_NEXT_TIMEOUT},
    {"invalid_header", HD_NEXT_INVALID},
    {"http_500", HD_NEXT_500},
    {"http_502", HD_NEXT_502},
    {"http_503", HD_NEXT_503},
    {"http_504", HD_NEXT_504},
    {"http_403", HD_NEXT_403},
    {"http_404", HD_NEXT_404},
    {"http_429", HD_NEXT_429},
    {"denied", HD_NEXT_DENIED},
    {"non_idempotent", HD_NEXT_NON_IDEMPOTENT},
    {"off", HD_NEXT_OFF},
    {NULL, 0},
};

/* In which cases another server is asked: those that the directive's table has. */
static hd_rc_t set_next(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_conf_enum_t *names = cf->directive->post, *e;
    hd_conf_proxy_t *pc = conf;
    hd_str_t all = HD_STR_NONE;

    pc->filter.next = 0;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        for (e = names; e->name != NULL && !hd_str_eq(args[i], hd_str_c(e->name)); e++)
            ;
        if (e->name == NULL) {
            for (e = names; e->name != NULL; e++)
                all = hd_str_printf(cf->temp, "%.*s%s%s", HD_STR_ARG(all),
                                    e == names ? "" : ", ", e->name);
            return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\"; allowed are %.*s",
                              HD_STR_ARG(args[i]), HD_STR_ARG(all));
        }
        pc->filter.next |= e->value;
    }
    return HD_OK;
}

/* proxy_allow_upstream CONDITION … */
static hd_rc_t set_allow(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return hd_http_conf_conditions(cf, args, &((hd_conf_proxy_t *)conf)->allow, err);
}

/* proxy_buffers N SIZE */
static hd_rc_t set_buffers(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;
    uint64_t n, size;

    (void)cf;
    if (!hd_str_to_u64(args[0], 1000000, &n) || n < 2)
        return hd_err_set(err, HD_E_CONF,
                          "invalid number of buffers \"%.*s\": 2 and more",
                          HD_STR_ARG(args[0]));
    if (hd_parse_size(args[1], 1u << 30, &size, err) != HD_OK)
        return HD_ERROR;
    if (size == 0)
        return hd_err_set(err, HD_E_CONF, "buffers of no bytes: 1 and more");
    pc->buffer_bytes = n * size;
    return HD_OK;
}

static hd_rc_t set_temp_max(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;
    uint64_t size;

    (void)cf;
    if (hd_parse_size(args[0], INT64_MAX - 1, &size, err) != HD_OK)
        return HD_ERROR;
    pc->temp_max_plus_1 = size + 1;
    return HD_OK;
}

/* proxy_temp_path PATH [LEVEL …]; kept with its NUL, for open(2). */
static hd_rc_t set_temp_path(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;

    (void)err;
    pc->temp_path = hd_str_printf(cf->pool, "%.*s%c",
                                  HD_STR_ARG(hd_conf_path(cf, args[0], false)), '\0');
    hd_build_need_dir(cf, pc->temp_path);
    return HD_OK;
}

static hd_rc_t set_inverse(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool *flag = (bool *)((char *)conf + cf->directive->offset);

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    *flag = !*flag;
    return HD_OK;
}

static const hd_conf_enum_t versions[] = {
    {"1.0", HD_CONF_PROXY_HTTP10}, {"1.1", HD_UP_HTTP1}, {"2", HD_UP_HTTP2}, {NULL, 0}};

static const hd_conf_enum_t priorities[] = {{"default", 0}, {"high", 1}, {NULL, 0}};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)
#define AT(field) offsetof(hd_conf_proxy_t, field)

/* More than a weft takes has no effect. */
static hd_rc_t set_head_bytes(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    hd_conf_proxy_t *pc = conf;

    if (hd_parse_size(args[0], UINT64_MAX, &pc->head_bytes, err) != HD_OK)
        return HD_ERROR;
    if (pc->head_bytes > HD_WEFT_HEAD_BYTES)
        hd_conf_warn(cf, "heads of responses have at most %uk",
                     HD_WEFT_HEAD_BYTES / 1024);
    return HD_OK;
}

static const hd_directive_t directives[] = {
    {.name = "proxy_pass",
     .scope = HD_IN_LOCATION | HD_IN_IF | HD_IN_LIMIT_EXCEPT,
     .args_n = 1,
     .set = set_pass,
     .help = "http[s]://UPSTREAM[URI]: where requests go; a URI replaces what the "
             "location matched"},
    {.name = "proxy_set_header",
     .scope = IN_ANY,
     .args_n = 2,
     .repeats = true,
     .set = hd_conf_proxy_set_header,
     .help = "NAME VALUE: a field towards the upstream; empty: none. A block with one "
             "inherits none. Host is $proxy_host if not given"},
    {.name = "proxy_http_version",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(version),
     .post = versions,
     .help = "1.0|1.1|2: spoken with the upstream; 1.1"},
    {.name = "proxy_method",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_method,
     .offset = AT(method),
     .help = "METHOD: towards the upstream, in place of the client's"},
    {.name = "proxy_set_body",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_expr,
     .offset = AT(body),
     .help = "TEXT: the request's body towards the upstream"},
    {.name = "proxy_pass_request_headers",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(drops_headers),
     .help = "on|off: the client's fields go to the upstream; on"},
    {.name = "proxy_pass_request_body",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(drops_body),
     .help = "on|off: the client's body goes to the upstream; on. Off, Content-Length "
             "doesn't go either"},
    {.name = "proxy_bind",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .set = set_bind,
     .offset = AT(bind),
     .help = "ADDRESS [transparent]|off: where connections to servers come from; "
             "transparent: an address that isn't ours"},
    {.name = "proxy_bind_dynamic",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(binds_each),
     .help = "on|off: where connections come from is asked for each server anew, once it "
             "is known ($upstream_last_addr); off"},
    {.name = "proxy_allow_upstream",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_allow,
     .help = "CONDITION …: a server is asked only if all of these are neither empty nor "
             "0, once it is known ($upstream_last_addr); else 403, or the next one"},
    {.name = "proxy_socket_keepalive",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(socket_keepalive),
     .help = "on|off: TCP keep-alive towards servers; off"},
    {.name = "proxy_pass_trailers",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(drops_trailers),
     .help = "on|off: the trailers of a response go to the client; on"},
    {.name = "proxy_force_ranges",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(force_ranges),
     .help =
         "on|off: a client that asks for a part gets it, though the server sends all; "
         "off"},
    {.name = "proxy_ignore_headers",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = hd_conf_proxy_set_ignored,
     .help = "NAME …: fields of a response that have no effect; of these, "
             "X-Accel-Redirect, X-Accel-Buffering, X-Accel-Limit-Rate and "
             "X-Accel-Charset have one"},
    {.name = "proxy_cookie_domain",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = hd_conf_proxy_set_cookie_domain,
     .help = "off|FROM TO: how Domain in Set-Cookie is changed"},
    {.name = "proxy_cookie_path",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = hd_conf_proxy_set_cookie_path,
     .help = "off|FROM TO: how Path in Set-Cookie is changed"},
    {.name = "proxy_cookie_flags",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = hd_conf_proxy_set_cookie_flags,
     .help = "off|COOKIE FLAG …: Secure, HttpOnly and SameSite in Set-Cookie"},
    {.name = "proxy_priority",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(is_high),
     .post = priorities,
     .help = "default|high: which of the group's circuit_breaker limits count; default"},
    {.name = "proxy_connect_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(connect_timeout_ms),
     .help = "TIME: for connecting to a server; 60s"},
    {.name = "proxy_send_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(send_timeout_ms),
     .help = "TIME: between two writes to a server; 60s"},
    {.name = "proxy_read_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(read_timeout_ms),
     .help = "TIME: between two reads from a server; 60s"},
    {.name = "proxy_buffering",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_buffering),
     .help = "on|off: the response of a client that is slow is read ahead, into "
             "proxy_buffers and then a file, so that the server is free early; on. "
             "X-Accel-Buffering of a response says otherwise"},
    {.name = "proxy_request_buffering",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_request_buffering),
     .help = "on|off: a request's body is read before a server is asked; on"},
    {.name = "proxy_buffers",
     .scope = IN_ANY,
     .args_n = 2,
     .set = set_buffers,
     .help = "N SIZE: of a response that is read ahead, N times SIZE bytes are in "
             "memory; 8 4k"},
    {.name = "proxy_buffer_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_head_bytes,
     .help = "SIZE: a response's head may be so long, up to 120 KB; 80k"},
    {.name = "proxy_busy_buffers_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; what a client has been given is sent whatever it is"},
    {.name = "proxy_send_lowat",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; nginx doesn't heed it on Linux either"},
    {.name = "proxy_max_temp_file_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_temp_max,
     .help = "SIZE: of a response that is read ahead, what proxy_buffers don't hold goes "
             "to a file of so much; 1024m; 0: none"},
    {.name = "proxy_temp_file_write_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(temp_write_bytes),
     .help = "SIZE: gathered before it is written to that file; 16k"},
    {.name = "proxy_temp_path",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 4,
     .set = set_temp_path,
     .help = "PATH [LEVEL …]: the folder of those files, which have no name, so that "
             "LEVEL has no effect; /tmp"},
    {.name = "proxy_limit_rate",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_rate,
     .offset = AT(limit_rate),
     .help = "SIZE: bytes a second that a response is read with, where proxy_buffering "
             "is on; 0: no limit"},
    {.name = "proxy_redirect",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = hd_conf_proxy_set_redirect,
     .help = "default|off|FROM TO: how Location and Refresh of responses are changed; "
             "default"},
    {.name = "proxy_hide_header",
     .scope = IN_ANY,
     .args_n = 1,
     .repeats = true,
     .set = hd_conf_proxy_hide_header,
     .help = "NAME: a response field that isn't passed on"},
    {.name = "proxy_pass_header",
     .scope = IN_ANY,
     .args_n = 1,
     .repeats = true,
     .set = hd_conf_proxy_pass_header,
     .help = "NAME: passes on a field that is hidden otherwise, as Server and Date are"},
    {.name = "proxy_ignore_client_abort",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(ignore_client_abort),
     .help = "on|off: a request goes on upstream when its client closes its side; off"},
    {.name = "proxy_multiplex",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_multiplex),
     .help =
         "on|off: over mutual TLS, another Heddle is recognised and gets the requests "
         "of one identity over one connection; on"},
    {.name = "proxy_intercept_errors",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(intercepts),
     .help = "on|off: error_page applies to the upstream's answers, too; off"},
    {.name = "proxy_next_upstream",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_next,
     .post = next_names,
     .help =
         "error|timeout|invalid_header|http_500|…|denied|non_idempotent|off …: when the "
         "next server is asked; error timeout"},
    {.name = "proxy_next_upstream_tries",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(filter.tries),
     .help = "N: at most so many servers are asked; 0: all there are"},
    {.name = "proxy_next_upstream_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(filter.tries_time_ms),
     .help = "TIME: after it no further server is asked; 0: no limit"},
    {0},
};

const hd_module_t hd_proxy_module = {
    .abi = HD_MODULE_ABI,
    .name = "proxy",
    .directives = directives,
    .conf_size = sizeof(hd_conf_proxy_t),
    .phase = HD_PHASE_CONTENT,
    .on_response_headers = hd_proxy_filter_response,
    .on_try_result = hd_proxy_filter_result,
};
