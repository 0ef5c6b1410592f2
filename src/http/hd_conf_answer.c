/* add_header, add_trailer, expires: fields added to any answer. */
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"
#include "http/hd_expires.h"

#define HEADERS_MAX 100

typedef enum { INHERIT_ON, INHERIT_OFF, INHERIT_MERGE } inherit_t;

/* What a block adds. Inner blocks are read before an outer one is complete, so what they
 * see of it is settled last, when a route is made. */
typedef struct list_s {
    const hd_header_op_conf_t *items;
    uint32_t n;
    uint32_t of;                 /* the block whose <items> are: http is 0 */
    const struct list_s *outer;  /* as it was before them */
    uint32_t inherit;            /* inherit_t, in force */
    uint32_t inherit_of, before; /* who said so, and what it was before */
} list_t;

typedef struct {
    list_t headers, trailers;
    const hd_expires_t *expires;
} answer_conf_t;

static uint32_t block_of(const hd_conf_t *cf)
{
    const hd_place_t *place = hd_http_build_of(cf)->place;

    return place == NULL ? 0 : place->id;
}

/* nginx sets these rather than adds them. */
static bool is_replaced(hd_str_t name)
{
    return hd_str_eq_nocase(name, HD_STR("Last-Modified")) ||
           hd_str_eq_nocase(name, HD_STR("ETag"));
}

/* NAME VALUE [always]: a block with one inherits none, as in nginx, unless it says so. */
static hd_rc_t add_to(hd_conf_t *cf, const hd_str_t *args, list_t *l, hd_err_t *err)
{
    hd_header_op_conf_t *list;
    hd_expr_t *value;

    if (cf->is_first) {
        list_t *outer = hd_pool_new(cf->pool, list_t);

        *outer = *l;
        if (l->inherit_of == block_of(cf))
            outer->inherit = l->before;
        l->outer = outer;
        l->n = 0;
        l->of = block_of(cf);
    }
    if (cf->node->args_n == 3 && !hd_str_eq(args[2], HD_STR("always")))
        return hd_err_set(err, HD_E_CONF,
                          "invalid parameter \"%.*s\": \"always\" is meant?",
                          HD_STR_ARG(args[2]));
    if (!hd_http_is_field_name(args[0]))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is not a field name",
                          HD_STR_ARG(args[0]));
    if (l->n == HEADERS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d %s here", HEADERS_MAX,
                          cf->directive->name);
    if (hd_expr_compile(cf, args[1], &value, err) != HD_OK)
        return HD_ERROR;
    list = hd_pool_new_n(cf->pool, hd_header_op_conf_t, l->n + 1);
    if (l->n > 0)
        memcpy(list, l->items, l->n * sizeof(*list));
    list[l->n] =
        (hd_header_op_conf_t){.name = hd_str_dup(cf->pool, args[0]),
                              .value = value,
                              .how = is_replaced(args[0]) ? HD_HOP_SET : HD_HOP_APPEND,
                              .always = cf->node->args_n == 3};
    l->items = list;
    l->n++;
    return HD_OK;
}

static hd_rc_t add_header(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return add_to(cf, args, &((answer_conf_t *)conf)->headers, err);
}

static hd_rc_t add_trailer(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return add_to(cf, args, &((answer_conf_t *)conf)->trailers, err);
}

static const hd_conf_enum_t inherit_names[] = {
    {"on", INHERIT_ON}, {"off", INHERIT_OFF}, {"merge", INHERIT_MERGE}, {NULL, 0}};

static hd_rc_t set_inherit(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    list_t *l = (list_t *)((char *)conf + cf->directive->offset);
    hd_directive_t plain = *cf->directive;
    hd_conf_t at = *cf;

    l->before = l->inherit;
    l->inherit_of = block_of(cf);
    plain.offset += offsetof(list_t, inherit);
    plain.post = inherit_names;
    at.directive = &plain;
    return hd_set_enum(&at, args, conf, err);
}

/* The list with what it inherits, into <out> (NULL: only counted). */
static uint32_t gather(const list_t *l, hd_header_op_conf_t *out)
{
    uint32_t n = 0;

    if (l->inherit == INHERIT_MERGE && l->outer != NULL)
        n = gather(l->outer, out);
    if (out != NULL && l->n > 0)
        memcpy(out + n, l->items, l->n * sizeof(*out));
    return n + l->n;
}

static const hd_header_op_conf_t *settle(hd_conf_t *cf, const hd_place_t *place,
                                         const list_t *l, uint32_t *n)
{
    hd_header_op_conf_t *list;

    *n = l->n;
    if (l->inherit == INHERIT_OFF && !hd_http_is_of(place, l->of)) {
        *n = 0;
        return NULL;
    }
    if (l->inherit != INHERIT_MERGE || l->outer == NULL)
        return l->items;
    *n = gather(l, NULL);
    list = hd_pool_new_n(cf->pool, hd_header_op_conf_t, *n);
    hd_ignore(gather(l, list) == 0);
    return list;
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

void hd_http_headers_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route)
{
    const answer_conf_t *ac = hd_http_look(cf, &hd_answer_module);

    route->expires = ac->expires;
    route->response_ops = settle(cf, place, &ac->headers, &route->response_ops_n);
    route->trailer_ops = settle(cf, place, &ac->trailers, &route->trailer_ops_n);
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
    {.name = "add_trailer",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_IF,
     .args_n = 2,
     .args_max = 3,
     .repeats = true,
     .set = add_trailer,
     .help =
         "NAME VALUE [always]: the same behind the body, where the protocol allows it"},
    {.name = "add_header_inherit",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = set_inherit,
     .offset = offsetof(answer_conf_t, headers),
     .help =
         "on|off|merge: add_header of the blocks around: if there is none here, never, "
         "beside those here; on"},
    {.name = "add_trailer_inherit",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = set_inherit,
     .offset = offsetof(answer_conf_t, trailers),
     .help = "on|off|merge: the same for add_trailer; on"},
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
