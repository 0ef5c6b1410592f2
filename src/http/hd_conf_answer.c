/* add_header: fields added to any answer. */
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"
#include "http/hd_expires.h"

#define HEADERS_MAX 100

typedef struct {
    const hd_header_op_conf_t *headers;
    uint32_t headers_n;
    const hd_expires_t *expires;
} answer_conf_t;

/* add_header NAME VALUE [always]: a block with one inherits none, as in nginx. */
static hd_rc_t add_header(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    answer_conf_t *ac = conf;
    uint32_t n = cf->is_first ? 0 : ac->headers_n;
    hd_header_op_conf_t *list;
    hd_expr_t *value;

    if (cf->node->args_n == 3 && !hd_str_eq(args[2], HD_STR("always")))
        return hd_err_set(err, HD_E_CONF,
                          "invalid parameter \"%.*s\": \"always\" is meant?",
                          HD_STR_ARG(args[2]));
    if (!hd_http_is_field_name(args[0]))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is not a field name",
                          HD_STR_ARG(args[0]));
    if (n == HEADERS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d add_header here", HEADERS_MAX);
    if (hd_expr_compile(cf, args[1], &value, err) != HD_OK)
        return HD_ERROR;
    list = hd_pool_new_n(cf->pool, hd_header_op_conf_t, n + 1);
    if (n > 0)
        memcpy(list, ac->headers, n * sizeof(*list));
    list[n] = (hd_header_op_conf_t){.name = hd_str_dup(cf->pool, args[0]),
                                    .value = value,
                                    .how = HD_HOP_APPEND,
                                    .always = cf->node->args_n == 3};
    ac->headers = list;
    ac->headers_n = n + 1;
    return HD_OK;
}

/* expires [modified] TIME | epoch | max | off | @TIME | $VARIABLE */
static hd_rc_t set_expires(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    answer_conf_t *ac = conf;
    bool modified = cf->node->args_n == 2;
    hd_str_t text = args[cf->node->args_n - 1];
    hd_expires_t *e = hd_pool_new(cf->pool, hd_expires_t);
    hd_expr_t *value;

    if (modified && !hd_str_eq(args[0], HD_STR("modified")))
        return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": modified TIME",
                          HD_STR_ARG(args[0]));
    ac->expires = e;
    if (hd_str_find_char(text, '$') >= 0) {
        if (hd_expr_compile(cf, text, &value, err) != HD_OK)
            return HD_ERROR;
        e->kind = modified ? HD_EXPIRES_MODIFIED : HD_EXPIRES_ACCESS;
        e->value = value;
        return HD_OK;
    }
    if (!hd_expires_parse(text, modified, e))
        return hd_err_set(err, HD_E_CONF,
                          "invalid value \"%.*s\": TIME, @TIME of day, epoch, max, off",
                          HD_STR_ARG(text));
    return HD_OK;
}

void hd_http_headers_route(const hd_conf_t *cf, hd_route_t *route)
{
    const answer_conf_t *ac = hd_http_look(cf, &hd_answer_module);

    route->expires = ac->expires;
    route->response_ops = ac->headers;
    route->response_ops_n = ac->headers_n;
}

static const hd_directive_t directives[] = {
    {.name = "add_header",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_IF,
     .args_n = 2,
     .args_max = 3,
     .repeats = true,
     .set = add_header,
     .help = "NAME VALUE [always]: adds a field to good answers (200, 201, 204, 206, 301 "
             "to 304, 307, 308), or to all; a block with one inherits none"},
    {.name = "expires",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_IF,
     .args_n = 1,
     .args_max = 2,
     .set = set_expires,
     .help =
         "[modified] TIME | @TIME | epoch | max | off: sets Expires and Cache-Control "
         "of good answers"},
    {0},
};

const hd_module_t hd_answer_module = {
    .abi = HD_MODULE_ABI,
    .name = "http_answer",
    .directives = directives,
    .conf_size = sizeof(answer_conf_t),
};
