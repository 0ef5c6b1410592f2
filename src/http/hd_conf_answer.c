/* return, add_header: answers made here, and fields added to any answer. */
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"

#define HEADERS_MAX 100

typedef struct {
    uint32_t return_of; /* the place that returns: not inherited */
    unsigned status;
    const hd_expr_t *text; /* body, or Location */
    const hd_header_op_conf_t *headers;
    uint32_t headers_n;
} answer_conf_t;

static bool is_redirect(unsigned status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 ||
           status == 308;
}

/* return CODE [TEXT|URL] | URL. The first one counts, as in nginx, where it ends the
 * rewrite phase. */
static hd_rc_t set_return(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    answer_conf_t *ac = conf;
    hd_str_t text = cf->node->args_n == 2 ? args[1] : HD_STR_NONE;
    uint64_t status;
    hd_expr_t *expr = NULL;

    if (hd_str_to_u64(args[0], 999, &status)) {
        if (cf->node->args_n == 2 && hd_expr_compile(cf, text, &expr, err) != HD_OK)
            return HD_ERROR;
    } else {
        if (cf->node->args_n == 2 || (!hd_str_has_prefix(args[0], HD_STR("http://")) &&
                                      !hd_str_has_prefix(args[0], HD_STR("https://")) &&
                                      !hd_str_has_prefix(args[0], HD_STR("$scheme"))))
            return hd_err_set(
                err, HD_E_CONF,
                "invalid return code \"%.*s\": CODE, CODE TEXT, CODE URL or "
                "a URL with http:// or https://",
                HD_STR_ARG(args[0]));
        status = 302;
        if (hd_expr_compile(cf, args[0], &expr, err) != HD_OK)
            return HD_ERROR;
    }
    if (!cf->is_first)
        return HD_OK;
    ac->return_of = hd_http_build_of(cf)->place->id;
    ac->status = (unsigned)status;
    ac->text = expr;
    return HD_OK;
}

hd_rc_t hd_http_answer_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                             hd_err_t *err)
{
    const answer_conf_t *ac = hd_http_look(cf, &hd_answer_module);

    (void)err;
    if (ac->return_of != place->id)
        return HD_DECLINED;
    route->action =
        is_redirect(ac->status) && ac->text != NULL ? HD_ACT_REDIRECT : HD_ACT_ANSWER;
    route->status = ac->status;
    route->text = ac->text;
    return HD_OK;
}

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

void hd_http_headers_route(const hd_conf_t *cf, hd_route_t *route)
{
    const answer_conf_t *ac = hd_http_look(cf, &hd_answer_module);

    route->response_ops = ac->headers;
    route->response_ops_n = ac->headers_n;
}

static const hd_directive_t directives[] = {
    {.name = "return",
     .scope = HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_return,
     .help = "CODE [TEXT] | CODE URL | URL: answers with it; 444 closes the connection"},
    {.name = "add_header",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 2,
     .args_max = 3,
     .repeats = true,
     .set = add_header,
     .help = "NAME VALUE [always]: adds a field to good answers (200, 201, 204, 206, 301 "
             "to 304, 307, 308), or to all; a block with one inherits none"},
    {0},
};

const hd_module_t hd_answer_module = {
    .abi = HD_MODULE_ABI,
    .name = "http_answer",
    .directives = directives,
    .conf_size = sizeof(answer_conf_t),
};
