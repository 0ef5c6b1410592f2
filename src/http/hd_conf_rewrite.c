/* if, set, rewrite, break, return: nginx's rewrite directives, compiled in the order of
 * the text. */
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"
#include "core/conf/hd_value_map.h"
#include "http/hd_rewrite.h"

#include <stdlib.h>

#define OPS_MAX 10000

typedef struct {
    bool log;
} rewrite_conf_t;

/* An operation as read. Its place in the text orders it: simple directives are applied
 * before blocks. */
typedef struct {
    hd_rw_op_t op;
    const hd_node_t *node;
    hd_array_t *inner; /* of an `if` (entry_t) */
    /* of a RETURN */
    unsigned status;
    const hd_expr_t *text;
} entry_t;

static const rewrite_conf_t *conf_of(const hd_conf_t *cf)
{
    return hd_http_look(cf, &hd_rewrite_module);
}

const hd_place_t *hd_http_location_of(const hd_place_t *place)
{
    while (place->kind == HD_PLACE_IF)
        place = place->outer;
    return place;
}

bool hd_http_is_of(const hd_place_t *place, uint32_t id)
{
    for (; place != NULL; place = place->outer) {
        if (place->id == id)
            return true;
        if (place->kind != HD_PLACE_IF)
            return false;
    }
    return false;
}

static entry_t *add_entry(hd_conf_t *cf, hd_rw_kind_t kind, hd_err_t *err)
{
    hd_place_t *place = hd_http_build_of(cf)->place;
    entry_t *e;

    if (place->rewrites == NULL) {
        place->rewrites = hd_pool_new(cf->temp, hd_array_t);
        hd_array_init(place->rewrites, cf->temp, sizeof(entry_t), OPS_MAX);
    }
    e = hd_array_add(place->rewrites);
    if (e == NULL) {
        hd_ignore(
            hd_err_set(err, HD_E_CONF, "more than %d rewrite directives here", OPS_MAX));
        return NULL;
    }
    e->op.kind = (uint8_t)kind;
    e->node = cf->node;
    return e;
}

static hd_rc_t compile_regex(hd_conf_t *cf, hd_str_t pattern, bool ignore_case,
                             hd_rw_op_t *op, hd_err_t *err)
{
    hd_array_t groups;

    op->regex = (hd_match_t){.kind = HD_MATCH_REGEX,
                             .part = true,
                             .ignore_case = ignore_case,
                             .text = hd_str_dup(cf->pool, pattern)};
    hd_array_init(&groups, cf->temp, sizeof(hd_named_group_t), HD_CAPTURES_MAX);
    if (hd_match_check(&op->regex, err) != HD_OK ||
        hd_conf_named_groups(cf, op->regex.text, 0, &groups, err) != HD_OK)
        return HD_ERROR;
    op->groups = hd_array_copy(&groups, cf->pool);
    op->groups_n = (uint32_t)groups.n;
    return HD_OK;
}

static hd_rc_t compile(hd_conf_t *cf, hd_str_t text, const hd_expr_t **out, hd_err_t *err)
{
    hd_expr_t *e;

    if (hd_expr_compile(cf, text, &e, err) != HD_OK)
        return HD_ERROR;
    *out = e;
    return HD_OK;
}

/* --- set $NAME VALUE --- */

static hd_rc_t compile_name(hd_conf_t *cf, hd_str_t arg, hd_attr_t *name, hd_err_t *err)
{
    if (arg.len < 2 || arg.data[0] != '$')
        return hd_err_set(err, HD_E_CONF,
                          "invalid variable name \"%.*s\": it begins with $",
                          HD_STR_ARG(arg));
    if (hd_attr_key(cf->pool, hd_str_dup_lower(cf->temp, hd_str_sub(arg, 1, arg.len)),
                    true, name, err) != HD_OK)
        return HD_ERROR;
    if (name->def != 0 && !(hd_attr_def(name->def)->flags & HD_ATTR_SETTABLE))
        return hd_err_set(err, HD_E_CONF,
                          "the duplicate \"%.*s\" variable: it is built in",
                          HD_STR_ARG(name->name));
    return HD_OK;
}

static hd_rc_t add_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    entry_t *e;

    (void)conf;
    if (hd_http_build_of(cf)->is_sketch)
        return HD_OK;
    e = add_entry(cf, HD_RW_SET, err);
    if (e == NULL || compile_name(cf, args[0], &e->op.name, err) != HD_OK)
        return HD_ERROR;
    return compile(cf, args[1], &e->op.value, err);
}

/* --- rewrite REGEX REPLACEMENT [last|break|redirect|permanent] --- */

static hd_rc_t read_flag(hd_str_t flag, entry_t *e, hd_err_t *err)
{
    hd_rw_op_t *op = &e->op;

    if (hd_str_eq(flag, HD_STR("break"))) {
        op->is_break = true;
    } else if (hd_str_eq(flag, HD_STR("redirect")) ||
               hd_str_eq(flag, HD_STR("permanent"))) {
        op->is_redirect = true;
        e->status = flag.data[0] == 'r' ? 302 : 301;
    } else if (!hd_str_eq(flag, HD_STR("last"))) {
        return hd_err_set(err, HD_E_CONF,
                          "invalid parameter \"%.*s\": last, break, redirect, permanent",
                          HD_STR_ARG(flag));
    }
    op->is_last = true;
    return HD_OK;
}

static hd_rc_t add_rewrite(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t to = args[1];
    hd_rw_op_t *op;
    entry_t *e;
    ssize_t mark;

    (void)conf;
    if (hd_http_build_of(cf)->is_sketch)
        return HD_OK;
    e = add_entry(cf, HD_RW_REWRITE, err);
    if (e == NULL)
        return HD_ERROR;
    op = &e->op;
    if (compile_regex(cf, args[0], false, op, err) != HD_OK)
        return HD_ERROR;
    if (to.len == 0)
        return hd_err_set(err, HD_E_CONF, "empty replacement");
    op->adds_args = to.data[to.len - 1] != '?';
    if (!op->adds_args)
        to.len--;
    if (hd_str_has_prefix(to, HD_STR("http://")) ||
        hd_str_has_prefix(to, HD_STR("https://")) ||
        hd_str_has_prefix(to, HD_STR("$scheme"))) {
        op->is_redirect = op->is_last = true;
        e->status = 302;
    }
    if (cf->node->args_n == 3 && read_flag(args[2], e, err) != HD_OK)
        return HD_ERROR;
    mark = hd_str_find_char(to, '?');
    op->has_mark = mark >= 0;
    if (mark >= 0 && !op->is_redirect) {
        if (compile(cf, hd_str_sub(to, (size_t)mark + 1, to.len), &op->other, err) !=
            HD_OK)
            return HD_ERROR;
        to = hd_str_sub(to, 0, (size_t)mark);
    }
    return compile(cf, to, &op->value, err);
}

static hd_rc_t add_break(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)args, (void)conf;
    if (hd_http_build_of(cf)->is_sketch)
        return HD_OK;
    return add_entry(cf, HD_RW_BREAK, err) != NULL ? HD_OK : HD_ERROR;
}

/* --- return CODE [TEXT|URL] | URL --- */

static hd_rc_t add_return(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    entry_t *e;
    uint64_t status;

    (void)conf;
    if (hd_http_build_of(cf)->is_sketch)
        return HD_OK;
    e = add_entry(cf, HD_RW_RETURN, err);
    if (e == NULL)
        return HD_ERROR;
    if (hd_str_to_u64(args[0], 999, &status)) {
        e->status = (unsigned)status;
        if (cf->node->args_n == 1 || (status >= 400 && args[1].len == 0))
            return HD_OK; /* nginx: an error without a text is one by itself */
        return compile(cf, args[1], &e->text, err);
    }
    if (cf->node->args_n == 2 || (!hd_str_has_prefix(args[0], HD_STR("http://")) &&
                                  !hd_str_has_prefix(args[0], HD_STR("https://")) &&
                                  !hd_str_has_prefix(args[0], HD_STR("$scheme"))))
        return hd_err_set(err, HD_E_CONF,
                          "invalid return code \"%.*s\": CODE, CODE TEXT, CODE URL or "
                          "a URL with http:// or https://",
                          HD_STR_ARG(args[0]));
    e->status = 302;
    return compile(cf, args[0], &e->text, err);
}

/* --- if (CONDITION) { … } --- */

static hd_rc_t refuse_condition(hd_str_t at, hd_err_t *err)
{
    return hd_err_set(err, HD_E_CONF,
                      "invalid condition \"%.*s\": ($NAME), ($NAME =|!= TEXT), ($NAME "
                      "~|~*|!~|!~* REGEX) or (-f|-d|-e|-x PATH), the latter with ! too",
                      HD_STR_ARG(at));
}

/* The words between the brackets: at most three. */
static hd_rc_t strip_brackets(const hd_node_t *node, hd_str_t *words, uint32_t *n,
                              hd_err_t *err)
{
    const hd_str_t *args = node->args;
    hd_str_t last = args[node->args_n - 1];

    *n = 0;
    if (args[0].len == 0 || args[0].data[0] != '(')
        return refuse_condition(args[0], err);
    if (last.len == 0 || last.data[last.len - 1] != ')')
        return refuse_condition(last, err);
    for (uint32_t i = 0; i < node->args_n; i++) {
        hd_str_t word = args[i];

        if (i == 0)
            word = hd_str_sub(word, 1, word.len);
        if (i == node->args_n - 1 && word.len > 0)
            word.len--;
        if (word.len == 0 && (i == 0 || i == node->args_n - 1) && args[i].len == 1)
            continue; /* a bracket by itself */
        if (*n == 3)
            return refuse_condition(word, err);
        words[(*n)++] = word;
    }
    return *n > 0 ? HD_OK : refuse_condition(last, err);
}

static hd_rc_t compile_comparison(hd_conf_t *cf, const hd_str_t *words, uint32_t n,
                                  hd_rw_op_t *op, hd_err_t *err)
{
    hd_str_t how;

    if (n == 2)
        return refuse_condition(words[1], err);
    if (compile(cf, words[0], &op->value, err) != HD_OK)
        return HD_ERROR;
    op->test = HD_RW_TRUE;
    if (n == 1)
        return HD_OK;
    how = words[1];
    op->negative = how.len > 0 && how.data[0] == '!';
    if (hd_str_eq(how, HD_STR("=")) || hd_str_eq(how, HD_STR("!="))) {
        op->test = HD_RW_EQUAL;
        return compile(cf, words[2], &op->other, err);
    }
    if (op->negative)
        how = hd_str_sub(how, 1, how.len);
    if (!hd_str_eq(how, HD_STR("~")) && !hd_str_eq(how, HD_STR("~*")))
        return refuse_condition(words[1], err);
    op->test = HD_RW_REGEX;
    return compile_regex(cf, words[2], how.len == 2, op, err);
}

static hd_rc_t compile_file_test(hd_conf_t *cf, const hd_str_t *words, hd_rw_op_t *op,
                                 hd_err_t *err)
{
    static const char letters[] = "fdex"; /* in the order of hd_rw_test_t */
    const char *at = strchr(letters, words[0].data[words[0].len - 1]);

    if (at == NULL)
        return refuse_condition(words[0], err);
    op->test = (uint8_t)(HD_RW_FILE + (at - letters));
    op->negative = words[0].len == 3;
    return compile(cf, words[1], &op->value, err);
}

static hd_rc_t compile_condition(hd_conf_t *cf, hd_rw_op_t *op, hd_err_t *err)
{
    hd_str_t words[3];
    uint32_t n;

    if (strip_brackets(cf->node, words, &n, err) != HD_OK)
        return HD_ERROR;
    if (words[0].len > 1 && words[0].data[0] == '$')
        return compile_comparison(cf, words, n, op, err);
    if (n == 2 && ((words[0].len == 2 && words[0].data[0] == '-') ||
                   (words[0].len == 3 && hd_str_has_prefix(words[0], HD_STR("!-")))))
        return compile_file_test(cf, words, op, err);
    return refuse_condition(words[0], err);
}

/* The block is a place of its own: its settings are those around it, with what it says.
 */
static hd_rc_t enter_if(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_http_build_t *b = hd_http_build_of(cf);
    hd_node_t *node = (hd_node_t *)(uintptr_t)cf->node;
    hd_place_t place = {.kind = HD_PLACE_IF, .path = b->place->path};
    bool in_server = hd_http_location_of(b->place)->kind == HD_PLACE_SERVER;
    hd_route_t *route;
    entry_t *e;
    hd_conf_t at;

    (void)args, (void)conf;
    if (b->is_sketch)
        return HD_OK;
    e = add_entry(cf, HD_RW_IF, err);
    if (e == NULL || compile_condition(cf, &e->op, err) != HD_OK ||
        hd_http_enter(cf, node, &place, in_server ? HD_IN_SERVER_IF : HD_IN_IF, &at,
                      err) != HD_OK)
        return HD_ERROR;
    if (hd_http_make_route(&at, &place, &route, err) != HD_OK)
        return HD_ERROR;
    e->inner = place.rewrites;
    if (!in_server)
        e->op.route = route;
    return HD_OK;
}

/* --- compiling --- */

static void skip_access(hd_conf_t *cf, hd_route_t *answer)
{
    hd_filter_conf_t *list = hd_pool_new_n(cf->pool, hd_filter_conf_t, answer->filters_n);
    uint32_t n = 0;

    for (uint32_t i = 0; i < answer->filters_n; i++) {
        if (!hd_module_get(answer->filters[i].module)->follows_rewrite)
            list[n++] = answer->filters[i];
    }
    answer->filters = list;
    answer->filters_n = n;
}

/* What `return` and redirects answer with: the place's settings, another action. nginx's
 * rewrite phase comes before access control. */
static const hd_route_t *make_answer(hd_conf_t *cf, const hd_route_t *route, entry_t *e)
{
    hd_route_t *answer = hd_pool_new(cf->pool, hd_route_t);
    bool has_url = e->op.kind == HD_RW_REWRITE ||
                   (e->text != NULL &&
                    (e->status / 100 == 3 && e->status != 300 && e->status != 304 &&
                     e->status != 305 && e->status != 306 && e->status <= 308));

    *answer = *route;
    skip_access(cf, answer);
    answer->proxy = NULL;
    answer->rewrite = NULL;
    answer->action = has_url ? HD_ACT_REDIRECT : HD_ACT_ANSWER;
    answer->status = e->status;
    answer->text = e->text;
    return answer;
}

static int by_text(const void *a, const void *b)
{
    const entry_t *x = a, *y = b;

    return x->node->index < y->node->index ? -1 : x->node->index > y->node->index;
}

static void flatten(hd_array_t *entries, hd_array_t *ops)
{
    for (size_t i = 0; i < entries->n; i++) {
        entry_t *e = hd_array_at(entries, entry_t, i);
        hd_rw_op_t *op = hd_array_add(ops);
        size_t at = ops->n - 1;

        hd_bug_on(op == NULL);
        *op = e->op;
        if (e->inner != NULL)
            flatten(e->inner, ops);
        hd_array_at(ops, hd_rw_op_t, at)->skip = (uint32_t)(ops->n - at - 1);
    }
}

void hd_http_make_rewrite(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route)
{
    hd_rewrite_t *rw;
    hd_array_t ops;
    uint32_t index = 0;

    route->rewrite = NULL;
    if (place->rewrites == NULL)
        return;
    for (hd_node_t *n = place->node->first; n != NULL; n = n->next)
        n->index = ++index;
    qsort(place->rewrites->items, place->rewrites->n, sizeof(entry_t), by_text);
    for (size_t i = 0; i < place->rewrites->n; i++) {
        entry_t *e = hd_array_at(place->rewrites, entry_t, i);

        if (e->op.kind == HD_RW_RETURN || e->op.is_redirect)
            e->op.route = make_answer(cf, route, e);
    }
    if (place->kind == HD_PLACE_IF) /* it is a part of the place around it */
        return;
    hd_array_init(&ops, cf->temp, sizeof(hd_rw_op_t), SIZE_MAX / sizeof(hd_rw_op_t));
    flatten(place->rewrites, &ops);
    rw = hd_pool_new(cf->pool, hd_rewrite_t);
    rw->ops = hd_array_copy(&ops, cf->pool);
    rw->n = (uint32_t)ops.n;
    rw->log = conf_of(cf)->log;
    route->rewrite = rw;
}

#define IN_REWRITE (HD_IN_SERVER | HD_IN_SERVER_IF | HD_IN_LOCATION | HD_IN_IF)

static const hd_directive_t directives[] = {
    {.name = "if",
     .scope = HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .block = enter_if,
     .help = "(CONDITION) { … }: what holds where $NAME is true, = or != TEXT, ~, ~*, !~ "
             "or !~* REGEX, or a path is -f a file, -d a directory, -e there, -x "
             "executable"},
    {.name = "set",
     .scope = IN_REWRITE,
     .args_n = 2,
     .repeats = true,
     .set = add_set,
     .declares = 1,
     .help = "$NAME VALUE: gives a variable a value for the request"},
    {.name = "rewrite",
     .scope = IN_REWRITE,
     .args_n = 2,
     .args_max = 3,
     .repeats = true,
     .set = add_rewrite,
     .help = "REGEX REPLACEMENT [last|break|redirect|permanent]: changes the URI; a "
             "replacement that ends with ? drops the arguments, a URL is a redirect"},
    {.name = "break",
     .scope = IN_REWRITE,
     .repeats = true,
     .set = add_break,
     .help = "ends the rewrite directives of this place"},
    {.name = "return",
     .scope = IN_REWRITE,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = add_return,
     .help = "CODE [TEXT] | CODE URL | URL: answers with it; 444 closes the connection"},
    {.name = "rewrite_log",
     .scope = HD_IN_HTTP | IN_REWRITE,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(rewrite_conf_t, log),
     .help = "on|off: what rewrite directives do is logged at level notice; off"},
    {0},
};

const hd_module_t hd_rewrite_module = {
    .abi = HD_MODULE_ABI,
    .name = "rewrite",
    .directives = directives,
    .conf_size = sizeof(rewrite_conf_t),
};
