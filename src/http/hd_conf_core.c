/* Settings of the client's side: limits, time-outs, types; and what is accepted because
 * every nginx.conf has it. */
#include "core/conf/hd_conf_log.h"
#include "core/conf/hd_module_table.h"
#include "http/hd_body_file.h"
#include "http/hd_conf_int.h"
#include "http/hd_headers.h"

#include <stdlib.h>

#define TYPES_MAX 4096

typedef struct {
    hd_http_loc_t loc; /* what requests see of it */
    uint64_t header_timeout_ms, head_buffer_bytes, head_line_bytes, body_buffer_bytes;
    uint32_t head_buffers_n, fields_max;
    uint32_t internal_of; /* the place that is internal: not inherited */
    bool http2;
    bool accepted; /* of flags that change nothing */
} core_conf_t;

static const core_conf_t *conf_of(const hd_conf_t *cf)
{
    return hd_http_look(cf, &hd_http_core_module);
}

static const hd_http_types_t *default_types(hd_pool_t *pool)
{
    static const char *const texts[][2] = {
        {"gif", "image/gif"}, {"html", "text/html"}, {"jpg", "image/jpeg"}};
    hd_http_types_t *types = hd_pool_new(pool, hd_http_types_t);
    hd_http_type_t *items = hd_pool_new_n(pool, hd_http_type_t, hd_countof(texts));

    for (size_t i = 0; i < hd_countof(texts); i++)
        items[i] = (hd_http_type_t){.extension = hd_str_dup(pool, hd_str_c(texts[i][0])),
                                    .type = hd_str_dup(pool, hd_str_c(texts[i][1]))};
    types->items = items;
    types->n = hd_countof(texts);
    return types;
}

void hd_http_core_defaults(hd_conf_t *cf)
{
    core_conf_t *cc = hd_conf_of(cf, &hd_http_core_module);

    *cc = (core_conf_t){
        .loc = hd_http_loc_defaults,
        .header_timeout_ms = 60000,
        .head_buffer_bytes = 8192,
        .head_buffers_n = 4,
    };
    cc->loc.client_max_body_size = 1 << 20;
    cc->loc.server_tokens = true;
    cc->loc.keepalive_disable = HD_BROWSER_MSIE6;
    cc->loc.warns_uninitialized = true;
    cc->loc.default_type = hd_str_dup(cf->pool, HD_STR("text/plain"));
    cc->loc.types = default_types(cf->pool);
}

const hd_http_loc_t *hd_http_core_loc(hd_conf_t *cf)
{
    const core_conf_t *cc = hd_conf_keep(cf, hd_module_number(&hd_http_core_module));

    return &cc->loc;
}

void hd_http_core_fill(const hd_conf_t *cf, hd_http_conf_t *http)
{
    const core_conf_t *cc = conf_of(cf);

    http->header_timeout_ms = cc->header_timeout_ms;
    http->head_bytes_max =
        (uint32_t)hd_min(cc->head_buffer_bytes * cc->head_buffers_n, 1u << 20);
    http->head_line_max = (uint32_t)hd_max(cc->head_buffer_bytes, cc->head_line_bytes);
    http->fields_max = cc->fields_max;
}

bool hd_http_core_is_http2(const hd_conf_t *cf)
{
    return conf_of(cf)->http2;
}

bool hd_http_core_is_internal(const hd_conf_t *cf, const hd_place_t *place)
{
    return conf_of(cf)->internal_of == place->id;
}

/* --- setters --- */

static hd_rc_t set_internal(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    core_conf_t *cc = conf;

    (void)args, (void)err;
    cc->internal_of = hd_http_build_of(cf)->place->id;
    return HD_OK;
}

/* keepalive_timeout TIME [TIME of the Keep-Alive field] */
static hd_rc_t set_keepalive_timeout(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                     hd_err_t *err)
{
    core_conf_t *cc = conf;
    uint64_t ms, field_ms = 0;

    if (hd_parse_msec(args[0], &ms, err) != HD_OK)
        return HD_ERROR;
    cc->loc.keepalive_timeout_ms = ms;
    cc->loc.no_keepalive = ms == 0;
    if (cf->node->args_n == 2 && hd_parse_msec(args[1], &field_ms, err) != HD_OK)
        return HD_ERROR;
    cc->loc.keepalive_field_s = (uint32_t)hd_min(field_ms / 1000, UINT32_MAX);
    return HD_OK;
}

/* keepalive_disable none | BROWSER … */
static hd_rc_t set_keepalive_disable(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                     hd_err_t *err)
{
    core_conf_t *cc = conf;

    cc->loc.keepalive_disable = 0;
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("none")))
        return HD_OK;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (hd_str_eq(args[i], HD_STR("msie6")))
            cc->loc.keepalive_disable |= HD_BROWSER_MSIE6;
        else if (hd_str_eq(args[i], HD_STR("safari")))
            cc->loc.keepalive_disable |= HD_BROWSER_SAFARI;
        else
            return hd_err_set(err, HD_E_CONF,
                              "invalid value \"%.*s\": none by itself, or any of msie6 "
                              "and safari",
                              HD_STR_ARG(args[i]));
    }
    return HD_OK;
}

static hd_rc_t set_reset_timedout(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                  hd_err_t *err)
{
    core_conf_t *cc = conf;

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    cc->loc.timedout = cc->accepted ? HD_TIMEDOUT_RESETS : HD_TIMEDOUT_CLOSES;
    return HD_OK;
}

static hd_rc_t set_large_buffers(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    core_conf_t *cc = conf;
    uint64_t n;

    (void)cf;
    if (!hd_str_to_u64(args[0], 1024, &n) || n == 0)
        return hd_err_set(err, HD_E_CONF, "invalid number of buffers \"%.*s\": 1 to 1024",
                          HD_STR_ARG(args[0]));
    cc->head_buffers_n = (uint32_t)n;
    return hd_parse_size(args[1], 1u << 20, &cc->head_buffer_bytes, err);
}

static int by_extension(const void *a, const void *b)
{
    return hd_str_cmp(((const hd_http_type_t *)a)->extension,
                      ((const hd_http_type_t *)b)->extension);
}

/* types { TYPE EXTENSION …; }: of two lines for an extension the last counts, as in
 * nginx. */
static hd_rc_t set_types(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    core_conf_t *cc = conf;
    hd_http_types_t *types = hd_pool_new(cf->pool, hd_http_types_t);
    hd_array_t list;

    (void)args;
    hd_array_init(&list, cf->temp, sizeof(hd_http_type_t), TYPES_MAX);
    for (const hd_node_t *n = cf->node->first; n != NULL; n = n->next) {
        hd_str_t type = hd_str_dup(cf->pool, n->name);

        if (n->args_n == 0 || n->is_block) {
            hd_ignore(hd_err_set(err, HD_E_CONF,
                                 "in types a line is TYPE EXTENSION …; \"%.*s\" is none",
                                 HD_STR_ARG(n->name)));
            return hd_conf_blame(cf, n, err);
        }
        for (uint32_t i = 0; i < n->args_n; i++) {
            hd_str_t extension = hd_str_dup_lower(cf->pool, n->args[i]);
            hd_http_type_t *t = NULL;

            for (size_t k = 0; k < list.n && t == NULL; k++) {
                if (hd_str_eq(hd_array_at(&list, hd_http_type_t, k)->extension,
                              extension))
                    t = hd_array_at(&list, hd_http_type_t, k);
            }
            if (t == NULL)
                t = hd_array_add(&list);
            if (t == NULL)
                return hd_err_set(err, HD_E_CONF, "more than %d extensions", TYPES_MAX);
            *t = (hd_http_type_t){.extension = extension, .type = type};
        }
    }
    if (list.n > 0)
        qsort(list.items, list.n, sizeof(hd_http_type_t), by_extension);
    types->items = hd_array_copy(&list, cf->pool);
    types->n = (uint32_t)list.n;
    cc->loc.types = types;
    return HD_OK;
}

hd_rc_t hd_http_core_types(hd_conf_t *cf, const hd_node_t *block, hd_err_t *err)
{
    for (const hd_node_t *n = block->first; n != NULL; n = n->next) {
        hd_conf_t at = *cf;

        if (!hd_str_eq(n->name, HD_STR("types")))
            continue;
        at.node = n;
        if (set_types(&at, n->args, hd_conf_of(cf, &hd_http_core_module), err) != HD_OK)
            return hd_conf_blame(cf, n, err);
    }
    return HD_OK;
}

static const hd_conf_enum_t tokens_names[] = {
    {"on", 1}, {"off", 0}, {"build", 1}, {NULL, 0}};

static hd_rc_t set_server_tokens(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    core_conf_t *cc = conf;
    hd_directive_t plain = *cf->directive;
    hd_conf_t at = *cf;
    uint32_t value = 1;

    if (hd_str_find_char(args[0], '$') >= 0)
        return hd_err_set(err, HD_E_CONF,
                          "a string in server_tokens is not supported: on, "
                          "off, build");
    plain.post = tokens_names;
    at.directive = &plain;
    if (hd_set_enum(&at, args, (char *)&value - plain.offset, err) != HD_OK)
        return HD_ERROR;
    cc->loc.server_tokens = value != 0;
    return HD_OK;
}

/* A size, or variables that make one. */
static hd_rc_t set_rate(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_expr_t **to =
        (const hd_expr_t **)(void *)((char *)conf + cf->directive->offset);
    hd_expr_t *expr;
    uint64_t n;

    if (hd_str_find_char(args[0], '$') < 0 &&
        hd_parse_size(args[0], INT64_MAX, &n, err) != HD_OK)
        return HD_ERROR;
    if (hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
        return HD_ERROR;
    *to = expr;
    return HD_OK;
}

/* Kept with its NUL, for open(2). */
static hd_rc_t set_temp_path(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    core_conf_t *cc = conf;

    (void)err;
    cc->loc.body_temp_path = hd_str_printf(
        cf->pool, "%.*s%c", HD_STR_ARG(hd_conf_path(cf, args[0], false)), '\0');
    hd_build_need_dir(cf, cc->loc.body_temp_path);
    return HD_OK;
}

static hd_rc_t set_error_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    return hd_conf_log_place(cf, args, &((core_conf_t *)conf)->loc.error_log, err);
}

static const hd_conf_enum_t proxied_names[] = {{"any", HD_GZIP_ANY},
                                               {"auth", HD_GZIP_AUTH},
                                               {"expired", HD_GZIP_EXPIRED},
                                               {"no-cache", HD_GZIP_NO_CACHE},
                                               {"no-store", HD_GZIP_NO_STORE},
                                               {"private", HD_GZIP_PRIVATE},
                                               {"no_last_modified", HD_GZIP_NO_LM},
                                               {"no_etag", HD_GZIP_NO_ETAG},
                                               {"off", 0},
                                               {NULL, 0}};

static hd_rc_t set_gzip_proxied(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err)
{
    core_conf_t *cc = conf;

    cc->loc.gzip_proxied = 0;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        const hd_conf_enum_t *e = proxied_names;

        while (e->name != NULL && !hd_str_eq(hd_str_c(e->name), args[i]))
            e++;
        if (e->name == NULL)
            return hd_err_set(
                err, HD_E_CONF,
                "invalid value \"%.*s\": off, any, auth, expired, no-cache, "
                "no-store, private, no_last_modified, no_etag",
                HD_STR_ARG(args[i]));
        cc->loc.gzip_proxied |= e->value;
    }
    return HD_OK;
}

static hd_rc_t set_gzip_disable(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err)
{
    core_conf_t *cc = conf;
    hd_match_t *list = hd_pool_new_n(cf->pool, hd_match_t, cf->node->args_n);

    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_str_t text = args[i];

        if (hd_str_eq(text, HD_STR("msie6"))) /* nginx's short name */
            text = HD_STR("MSIE [4-6]\\.(?!.*SV1)");
        list[i] = (hd_match_t){.kind = HD_MATCH_REGEX,
                               .part = true,
                               .ignore_case = true,
                               .text = hd_str_dup(cf->pool, text)};
        if (hd_match_check(&list[i], err) != HD_OK)
            return HD_ERROR;
    }
    cc->loc.gzip_disable = list;
    cc->loc.gzip_disable_n = cf->node->args_n;
    return HD_OK;
}

hd_rc_t hd_http_conf_conditions(hd_conf_t *cf, const hd_str_t *args,
                                const hd_expr_t *const **to, hd_err_t *err)
{
    const hd_expr_t **list =
        hd_pool_new_n(cf->pool, const hd_expr_t *, cf->node->args_n + 1u);

    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_expr_t *e;

        if (hd_expr_compile(cf, args[i], &e, err) != HD_OK)
            return HD_ERROR;
        list[i] = e;
    }
    *to = list;
    return HD_OK;
}

/* early_hints CONDITION … */
static hd_rc_t set_early_hints(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    return hd_http_conf_conditions(cf, args, &((core_conf_t *)conf)->loc.early_hints,
                                   err);
}

/* satisfy all|any */
static hd_rc_t set_satisfy(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    core_conf_t *cc = conf;

    (void)cf;
    cc->loc.satisfy_any = hd_str_eq(args[0], HD_STR("any"));
    return cc->loc.satisfy_any || hd_str_eq(args[0], HD_STR("all"))
               ? HD_OK
               : hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": all or any",
                            HD_STR_ARG(args[0]));
}

static hd_rc_t set_gzip_version(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err)
{
    core_conf_t *cc = conf;

    (void)cf;
    cc->loc.gzip_on_http10 = hd_str_eq(args[0], HD_STR("1.0"));
    return cc->loc.gzip_on_http10 || hd_str_eq(args[0], HD_STR("1.1"))
               ? HD_OK
               : hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": 1.0 or 1.1",
                            HD_STR_ARG(args[0]));
}

/* on|off for a field that says the opposite. */
static hd_rc_t set_not_flag(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    bool *field = (bool *)((char *)conf + cf->directive->offset);

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    *field = !*field;
    return HD_OK;
}

static const hd_conf_enum_t in_file_names[] = {{"off", HD_BODY_IN_MEMORY},
                                               {"on", HD_BODY_FILE_KEPT},
                                               {"clean", HD_BODY_FILE_CLEANED},
                                               {NULL, 0}};
static const hd_conf_enum_t lingering_names[] = {
    {"off", HD_LINGERS_NOT}, {"on", HD_LINGERS}, {"always", HD_LINGERS}, {NULL, 0}};
static const hd_conf_limits_t one_and_more = {1, UINT32_MAX};
static const hd_conf_limits_t fields = {1, HD_FIELDS_MAX};
static const hd_conf_limits_t small = {1, 1u << 20};
static const hd_conf_limits_t frame_sizes = {1, 16384};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)
#define IN_SERVERS (HD_IN_HTTP | HD_IN_SERVER)
#define AT(field) offsetof(core_conf_t, field)

#define ACCEPTED_FLAG(NAME, SCOPE, HELP)                                                 \
    {                                                                                    \
        .name = NAME, .scope = SCOPE, .args_n = 1, .set = hd_set_flag,                   \
        .offset = AT(accepted), .help = HELP                                             \
    }
#define ACCEPTED_SIZE(NAME)                                                              \
    {                                                                                    \
        .name = NAME, .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION, .args_n = 1,  \
        .set = hd_set_size, .offset = AT(body_buffer_bytes),                             \
        .help = "SIZE: accepted; tables size themselves"                                 \
    }

static const hd_directive_t directives[] = {
    {.name = "client_max_body_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(loc.client_max_body_size),
     .help = "SIZE: larger bodies are answered with 413; 1m; 0: no limit"},
    {.name = "client_body_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(loc.client_body_timeout_ms),
     .help = "TIME: between two reads of a body; 60s"},
    {.name = "client_body_buffer_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(loc.body_buffer_bytes),
     .help = "SIZE: of a body that is buffered so much is kept in memory, the rest in a "
             "file; 256k"},
    {.name = "client_body_temp_path",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 4,
     .set = set_temp_path,
     .help = "PATH [LEVEL …]: the folder for bodies beyond client_body_buffer_size; its "
             "files have no name, so that LEVEL has no effect; /tmp"},
    {.name = "client_header_timeout",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(header_timeout_ms),
     .help = "TIME: for the whole head of a request; 60s"},
    {.name = "client_header_buffer_size",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(head_line_bytes),
     .post = &small,
     .help = "SIZE: a line of a request's head may be so long, whatever "
             "large_client_header_buffers says; memory is 16 KB at a time; 1k"},
    {.name = "large_client_header_buffers",
     .scope = IN_SERVERS,
     .args_n = 2,
     .set = set_large_buffers,
     .help = "N SIZE: a request's head has at most N times SIZE bytes, a line of it "
             "SIZE; 4 8k"},
    {.name = "max_headers",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(fields_max),
     .post = &fields,
     .help = "N: a request has at most so many header lines, 255 at the most; 100"},
    {.name = "send_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(loc.send_timeout_ms),
     .help = "TIME: between two writes of a response; 60s"},
    {.name = "keepalive_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .set = set_keepalive_timeout,
     .help = "TIME [TIME]: how long an idle connection is kept; 75s; 0: not at all. The "
             "second one is told to HTTP/1 clients in Keep-Alive"},
    {.name = "keepalive_requests",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(loc.keepalive_requests),
     .post = &one_and_more,
     .help = "N: requests over one connection; 1000"},
    {.name = "keepalive_time",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(loc.keepalive_time_ms),
     .help = "TIME: a connection that is older ends with its next response; 1h"},
    {.name = "lingering_close",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(loc.lingers),
     .post = lingering_names,
     .help = "off|on|always: at the end of a connection, read and drop what the client "
             "still sends, so that the response isn't lost; on, which is as always; off: "
             "close at once"},
    {.name = "lingering_time",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(loc.lingering_time_ms),
     .help = "TIME: how long in all a client may send after the last response; 30s"},
    {.name = "lingering_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(loc.lingering_gap_ms),
     .help = "TIME: how long it may be silent meanwhile; 5s"},
    {.name = "default_type",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(loc.default_type),
     .help = "TYPE: Content-Type of answers made here; text/plain"},
    {.name = "types",
     .scope = IN_ANY,
     .block = set_types,
     .help = "{ TYPE EXTENSION …; }: Content-Type of answers made here by the path's "
             "extension; text/html html, image/gif gif, image/jpeg jpg"},
    {.name = "server_tokens",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_server_tokens,
     .help = "on|off|build: whether Server and error pages say the version; on"},
    {.name = "overload_exempt",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.overload_exempt),
     .help = "on | off: requests that overload_memory and overload_lag never refuse, as "
             "health checks; default off"},
    {.name = "merge_slashes",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.merge_slashes),
     .help = "on|off: // counts as / where a location is looked for; on"},
    {.name = "underscores_in_headers",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.underscores_in_headers),
     .help = "on|off: fields with an underscore in their name are valid; off"},
    {.name = "ignore_invalid_headers",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.ignore_invalid_headers),
     .help = "on|off: fields with an invalid name are dropped; on"},
    {.name = "http2",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(http2),
     .help = "on|off: HTTP/2 by ALPN, and by its preface without TLS; off"},
    {.name = "http2_chunk_size",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(loc.h2_chunk_bytes),
     .post = &frame_sizes,
     .help = "SIZE: a frame of HTTP/2 has at most so much of a response's body; 16k"},
    {.name = "internal",
     .scope = HD_IN_LOCATION,
     .args_n = 0,
     .set = set_internal,
     .help = "the location is for internal redirections only"},
    {.name = "error_log",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_error_log,
     .help = HD_CONF_LOG_ARGS ": of what is said about requests here; a block with one "
                              "inherits none"},
    {.name = "chunked_transfer_encoding",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_not_flag,
     .offset = AT(loc.no_chunked),
     .help = "on|off: bodies of unknown length go in chunks, or to the connection's end; "
             "on"},
    {.name = "early_hints",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_early_hints,
     .help = "CONDITION …: 103 (Early Hints) of an upstream is passed on if one of them is "
             "neither empty nor 0; without the directive it is"},
    {.name = "satisfy",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_satisfy,
     .help = "all|any: every access module must let a request in, or one of them; all"},
    {.name = "absolute_redirect",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_not_flag,
     .offset = AT(loc.relative_redirect),
     .help = "on|off: Location of redirects made here is a whole URL; on"},
    {.name = "port_in_redirect",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_not_flag,
     .offset = AT(loc.no_port_in_redirect),
     .help = "on|off: with the port listened on; on"},
    {.name = "server_name_in_redirect",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.server_name_in_redirect),
     .help = "on|off: with the server's first name, whatever Host says; off"},
    {.name = "uninitialized_variable_warn",
     .scope = IN_ANY | HD_IN_IF | HD_IN_SERVER_IF,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.warns_uninitialized),
     .help = "on|off: variables used before they have a value are logged; on"},
    {.name = "gzip_vary",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.gzip_vary),
     .help = "on|off: Vary: Accept-Encoding where gzip or gzip_static may change the "
             "answer; off"},
    {.name = "gzip_http_version",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_gzip_version,
     .help = "1.0|1.1: the least version that gets compressed answers; 1.1"},
    {.name = "gzip_proxied",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_gzip_proxied,
     .help = "off|any|expired|no-cache|no-store|private|no_last_modified|no_etag|auth …: "
             "which answers to proxies (with Via) are compressed; off"},
    {.name = "gzip_disable",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_gzip_disable,
     .help = "REGEX …: user agents that get no compressed answers"},
    {.name = "limit_rate",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = set_rate,
     .offset = AT(loc.limit_rate),
     .help = "SIZE: bytes a second of each response's way to its client; 0: no limit. "
             "X-Accel-Limit-Rate of a response and `set $limit_rate` come before it"},
    {.name = "limit_rate_after",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = set_rate,
     .offset = AT(loc.limit_rate_after),
     .help = "SIZE: so much goes at full speed; 0"},
    {.name = "sendfile",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.sendfile),
     .help =
         "on|off: over HTTP/1 without TLS, files and temp files of more than 16 KB go "
         "to the socket without being read; off"},
    {.name = "sendfile_max_chunk",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(loc.sendfile_max_chunk),
     .help = "SIZE: so much of a file at most before others get their turn; 2m; 0: all"},
    {.name = "log_subrequest",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(loc.log_subrequest),
     .help = "on|off: requests of auth_request and mirror are logged, too; off"},
    {.name = "client_body_in_file_only",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(loc.body_in_file),
     .post = in_file_names,
     .help = "on|clean|off: a body that is buffered lies in a file, $request_body_file, "
             "which stays there or goes with its request; off"},
    {.name = "keepalive_disable",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 3,
     .set = set_keepalive_disable,
     .help = "none|BROWSER …: whose connections end with a response: msie6 (after POST), "
             "safari (on macOS); msie6"},
    ACCEPTED_FLAG("client_body_in_single_buffer", IN_ANY,
                  "on|off: accepted; bodies lie in blocks of 16 KB"),
    ACCEPTED_SIZE("connection_pool_size"),
    ACCEPTED_SIZE("proxy_headers_hash_max_size"),
    ACCEPTED_SIZE("proxy_headers_hash_bucket_size"),
    ACCEPTED_SIZE("referer_hash_max_size"),
    ACCEPTED_SIZE("referer_hash_bucket_size"),
    ACCEPTED_SIZE("request_pool_size"),
    ACCEPTED_SIZE("postpone_output"),
    ACCEPTED_SIZE("send_lowat"),
    ACCEPTED_SIZE("subrequest_output_buffer_size"),
    {.name = "keepalive_min_timeout",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(loc.keepalive_min_ms),
     .help = "TIME: an idle HTTP/1 connection isn't closed before to make room for others "
             "or at the program's end, in whole seconds; 0"},
    {.name = "auth_delay",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(loc.auth_delay_ms),
     .help = "TIME: a 401 of access control is held back for so long, so that its time "
             "tells nothing; 0"},
    ACCEPTED_FLAG("msie_padding", IN_ANY, "on|off: accepted; error pages aren't padded"),
    ACCEPTED_FLAG("msie_refresh", IN_ANY, "on|off: accepted; redirects stay redirects"),
    ACCEPTED_FLAG("tcp_nopush", IN_ANY, "on|off: accepted; writes are gathered anyway"),
    ACCEPTED_FLAG("tcp_nodelay", IN_ANY, "on|off: accepted; it is always on"),
    {.name = "reset_timedout_connection",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_reset_timedout,
     .offset = AT(accepted),
     .help = "on|off: a connection that timed out or is closed by 444 is reset; off: it "
             "is closed, unless only a reset tells that an answer isn't whole. If not "
             "given, time-outs reset and 444 closes"},
    ACCEPTED_SIZE("server_names_hash_max_size"),
    ACCEPTED_SIZE("server_names_hash_bucket_size"),
    ACCEPTED_SIZE("types_hash_max_size"),
    ACCEPTED_SIZE("types_hash_bucket_size"),
    ACCEPTED_SIZE("variables_hash_max_size"),
    ACCEPTED_SIZE("variables_hash_bucket_size"),
    {0},
};

const hd_module_t hd_http_core_module = {
    .abi = HD_MODULE_ABI,
    .name = "http_core",
    .directives = directives,
    .conf_size = sizeof(core_conf_t),
};
