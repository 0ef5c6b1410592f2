/* core/conf: attributes (lazy, cached once, families, names of configuration, reroute,
 * internal hops) and expressions over them. */
#include "core/base/hd_map.h"
#include "core/conf/hd_attr.h"
#include "core/conf/hd_conf.h"
#include "tap.h"

struct hd_req_s { /* stands in for http's */
    hd_attrs_t *attrs;
};

static hd_pool_t *pool;
static int evaluated;
static hd_attr_of_t of;

static hd_attrs_t **attrs_of(struct hd_req_s *req)
{
    return &req->attrs;
}

static void get_count(const hd_attr_of_t *o, hd_str_t rest, hd_val_t *out)
{
    (void)o;
    (void)rest;
    out->type = HD_VAL_INT;
    out->num = ++evaluated;
}

static void get_none(const hd_attr_of_t *o, hd_str_t rest, hd_val_t *out)
{
    (void)o;
    (void)rest;
    (void)out;
    evaluated++;
}

static void get_rest(const hd_attr_of_t *o, hd_str_t rest, hd_val_t *out)
{
    out->type = HD_VAL_STR;
    out->str = hd_str_printf(o->pool, "<%.*s>", HD_STR_ARG(rest));
}

static void get_flag(const hd_attr_of_t *o, hd_str_t rest, hd_val_t *out)
{
    (void)o;
    (void)rest;
    out->type = HD_VAL_BOOL;
    out->num = 1;
}

static const hd_attr_def_t defs[] = {
    {.name = "count", .flags = HD_ATTR_REQ, .get = get_count},
    {.name = "kept", .flags = HD_ATTR_REQ | HD_ATTR_KEPT, .get = get_count},
    {.name = "fresh", .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE, .get = get_count},
    {.name = "none", .flags = HD_ATTR_REQ, .get = get_none},
    {.name = "on_conn", .flags = HD_ATTR_CONN, .get = get_count},
    {.name = "rate", .flags = HD_ATTR_REQ | HD_ATTR_SETTABLE, .get = get_count},
    {.name = "head_", .flags = HD_ATTR_REQ | HD_ATTR_PREFIX, .get = get_rest},
    {.name = "head_sent_", .flags = HD_ATTR_REQ | HD_ATTR_PREFIX, .get = get_rest},
    {.name = "head_exact", .flags = HD_ATTR_REQ, .get = get_flag},
    {.name = NULL},
};

static const char *text_of(const char *name)
{
    hd_attr_t key;
    hd_err_t err = {0};

    if (hd_attr_key(pool, hd_str_c(name), true, &key, &err) != HD_OK)
        return hd_str_to_c(pool, hd_str_c(err.text));
    return hd_str_to_c(pool, hd_attr_text(&of, &key));
}

static void set(const char *name, const char *value)
{
    hd_attr_t key;

    ok(hd_attr_key(pool, hd_str_c(name), true, &key, NULL) == HD_OK &&
           hd_attr_set(&of, &key,
                       (hd_val_t){.type = HD_VAL_STR, .str = hd_str_c(value)}) == HD_OK,
       "set %s", name);
}

static void test_lazy(void)
{
    hd_attr_t key;
    hd_err_t err = {0};
    hd_val_t v;

    evaluated = 0;
    is_str(text_of("count"), "1", "evaluated when asked");
    is_str(text_of("count"), "1", "and once");
    is_str(text_of("fresh"), "2", "a volatile one");
    is_str(text_of("fresh"), "3", "each time");
    is_str(text_of("none"), "", "there is no such value");
    is_str(text_of("none"), "");
    is_int(evaluated, 4, "which is remembered, too");
    is_str(text_of("head_user_agent"), "<user_agent>", "a family");
    is_str(text_of("head_sent_x"), "<x>", "the longest prefix wins");
    is_str(text_of("head_exact"), "1", "a name of its own before families; a flag");
    ok(hd_attr_key(pool, HD_STR("head_"), false, &key, &err) == HD_ERROR,
       "a family needs a rest");
    hd_err_clear(&err);
    ok(hd_attr_key(pool, HD_STR("cuont"), false, &key, &err) == HD_ERROR);
    is_str(err.text, "unknown \"cuont\" variable: did you mean \"$count\"?");
    hd_attr_get_by_name(&of, HD_STR("head_x"), &v);
    ok(v.type == HD_VAL_STR && hd_str_eq(v.str, HD_STR("<x>")), "by name at run time");
    hd_attr_get_by_name(&of, HD_STR("nowhere"), &v);
    is_int(v.type, HD_VAL_NONE, "an unknown name has no value");
}

static void test_set(void)
{
    hd_attr_t key;
    struct hd_req_s req = {0}, *before = of.req;
    hd_val_t v;

    of.req = &req;
    set("mine", "a");
    is_str(text_of("mine"), "a", "a name of configuration");
    set("mine", "b");
    is_str(text_of("mine"), "b", "set again");
    set("rate", "9k");
    is_str(text_of("rate"), "9k", "what is set hides what is defined");
    ok(hd_attr_key(pool, HD_STR("count"), false, &key, NULL) == HD_OK &&
           hd_attr_set(&of, &key, (hd_val_t){.type = HD_VAL_INT}) == HD_ERROR,
       "what isn't settable can't be set");
    for (int i = 0; i < 200; i++) {
        hd_str_t name = hd_str_printf(pool, "many_%d", i);

        hd_ignore(hd_attr_key(pool, name, true, &key, NULL) != HD_OK);
        hd_ignore(hd_attr_set(&of, &key, (hd_val_t){.type = HD_VAL_INT, .num = i}) !=
                  HD_OK);
    }
    is_str(text_of("many_0"), "0", "of many");
    is_str(text_of("many_199"), "199");

    evaluated = 0;
    is_str(text_of("count"), "1");
    is_str(text_of("kept"), "2");
    hd_attrs_on_reroute(req.attrs);
    is_str(text_of("count"), "3", "a reroute: evaluated anew");
    is_str(text_of("kept"), "2", "unless it is kept");
    is_str(text_of("mine"), "b", "what configuration set is kept");
    of.req = NULL;
    hd_attr_get_by_name(&of, HD_STR("count"), &v);
    is_int(v.type, HD_VAL_NONE, "without a request there is none of its values");
    of.req = before;
}

static void test_inherit(void)
{
    struct hd_req_s inner = {0}, *outer = of.req;

    set("tunnel", "x");
    inner.attrs = hd_attrs_create(pool);
    hd_attrs_inherit(inner.attrs, outer->attrs, pool);
    of.req = &inner;
    is_str(text_of("tunnel"), "x", "through an internal hop");
    set("tunnel", "y");
    of.req = outer;
    is_str(text_of("tunnel"), "x", "not back");
}

static const char *eval(const char *text)
{
    hd_build_t build = {.declared = hd_map_create()};
    hd_conf_t cf = {.pool = pool, .temp = pool, .build = &build};
    hd_err_t err = {0};
    hd_expr_t *e;
    hd_str_t out;
    hd_rc_t rc;

    hd_ignore(hd_map_put(build.declared, HD_STR("mine"), &build) != NULL);
    rc = hd_expr_compile(&cf, hd_str_c(text), &e, &err);
    hd_map_destroy(build.declared);
    if (rc != HD_OK)
        return hd_str_to_c(pool, hd_str_c(err.text));
    if (hd_expr_eval_of(e, &of, &out) != HD_OK)
        return "failed";
    return hd_str_to_c(pool, out);
}

static void test_expr(void)
{
    hd_conf_t cf = {.pool = pool, .temp = pool};
    hd_expr_t *e;

    set("mine", "M");
    set("1", "one");
    evaluated = 6;
    is_str(eval("plain"), "plain");
    is_str(eval(""), "");
    is_str(eval("$mine"), "M");
    is_str(eval("$MINE"), "M", "names are lower case");
    is_str(eval("a${mine}b$head_x-$1"), "aMb<x>-one");
    is_str(eval("$mine$mine"), "MM");
    is_str(eval("$none"), "", "no value is empty");
    is_str(eval("${mine"), "the closing bracket in \"mine\" variable is missing");
    is_str(eval("${}"),
           "invalid variable name: behind \"$\" belongs a name, as in $host or "
           "${host}");
    is_str(eval("$other"), "unknown \"other\" variable: nothing defines or sets it");
    ok(hd_expr_compile(&cf, HD_STR("x"), &e, NULL) == HD_OK && hd_expr_is_literal(e));
    ok(hd_expr_compile(&cf, HD_STR("$count"), &e, NULL) == HD_OK &&
       !hd_expr_is_literal(e));
}

int main(void)
{
    struct hd_req_s req = {0};

    pool = hd_pool_create(0);
    hd_attr_register(defs);
    hd_attrs_of_req = attrs_of;
    of = (hd_attr_of_t){.req = &req, .pool = pool};
    test_lazy();
    test_set();
    test_inherit();
    test_expr();
    hd_pool_destroy(pool);
    return done_testing();
}
