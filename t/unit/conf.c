/* core/conf/hd_conf: directive tables, scopes, inheritance, and that each error has its
 * place and a remedy. A small language of its own stands in for nginx's. */
#include "core/conf/hd_conf.h"
#include "core/conf/hd_dict.h"
#include "core/hd_module.h"
#include "tap.h"
#include <stddef.h>

typedef struct {
    bool flag;
    uint32_t number, kind;
    uint64_t size, ms;
    hd_str_t str;
    hd_expr_t *expr;
    char list[64]; /* a list-valued directive: replaced at its first occurrence */
    bool completed;
} shop_t;

static const hd_module_t shop;
static hd_pool_t *pool;
static char seen[1024]; /* what blocks saw, in order */

HD_PRINTF(1, 2) static void see(const char *fmt, ...)
{
    size_t n = strlen(seen);
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(seen + n, sizeof(seen) - n, fmt, args);
    va_end(args);
}

static hd_rc_t set_list(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    shop_t *s = conf;

    if (cf->is_first)
        s->list[0] = '\0';
    if (hd_str_eq(args[0], HD_STR("bad")))
        return hd_err_set(err, HD_E_CONF, "a bad item");
    strncat(s->list, args[0].data, sizeof(s->list) - strlen(s->list) - 1);
    return HD_OK;
}

static hd_rc_t server_block(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    void **confs;
    hd_rc_t rc = hd_conf_enter(cf, cf->node, HD_IN_SERVER, &confs, err);
    const shop_t *s = confs[hd_module_number(&shop)], *outer = conf;

    (void)args;
    if (rc == HD_OK) {
        see("[number %u list %s outer %u]", s->number, s->list, outer->number);
    }
    return rc;
}

static hd_rc_t http_block(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)args;
    (void)conf;
    return hd_conf_enter(cf, cf->node, HD_IN_HTTP, NULL, err);
}

/* Builds a resource of its own: walks the block anew into fresh confs. */
static hd_rc_t upstream_block(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    hd_conf_t inner;
    const shop_t *s;

    if (hd_conf_begin_resource(cf, HD_RES_CLUSTER, args[0], &inner, err) != HD_OK ||
        hd_conf_apply_simple(&inner, cf->node, HD_IN_UPSTREAM, err) != HD_OK ||
        hd_conf_complete(&inner, HD_IN_UPSTREAM, err) != HD_OK)
        return HD_ERROR;
    s = hd_conf_of(&inner, &shop);
    ok(s != conf, "a resource has confs of its own");
    see("<upstream %s %u>", args[0].data, s->number);
    return HD_OK;
}

static hd_rc_t types_block(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)args;
    (void)conf;
    (void)err;
    for (const hd_node_t *n = cf->node->first; n != NULL; n = n->next)
        see("{%s %u}", n->name.data, n->args_n);
    return HD_OK;
}

static hd_rc_t warn_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)args;
    (void)conf;
    (void)err;
    hd_conf_warn(cf, "mind the %s", "gap");
    return HD_OK;
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    shop_t *s = conf;

    (void)cf;
    s->completed = true;
    if (s->number == 666)
        return hd_err_set(err, HD_E_CONF, "not that number");
    return HD_OK;
}

#define ANY (HD_IN_MAIN | HD_IN_HTTP | HD_IN_SERVER | HD_IN_UPSTREAM)

static const hd_conf_enum_t kinds[] = {{"round", 1}, {"square", 2}, {NULL, 0}};
static const hd_conf_limits_t numbers = {1, 1000};

static const hd_directive_t directives[] = {
    {.name = "flag",
     .scope = ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(shop_t, flag),
     .help = "on | off: a flag"},
    {.name = "number",
     .scope = ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .post = &numbers,
     .offset = offsetof(shop_t, number),
     .help = "N: a number"},
    {.name = "size",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_size,
     .offset = offsetof(shop_t, size),
     .help = "SIZE: bytes"},
    {.name = "delay",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = offsetof(shop_t, ms),
     .help = "TIME: how long"},
    {.name = "text",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(shop_t, str),
     .help = "TEXT: any"},
    {.name = "shape",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_enum,
     .post = kinds,
     .offset = offsetof(shop_t, kind),
     .help = "round | square: a shape"},
    {.name = "value",
     .scope = HD_IN_MAIN | HD_IN_SERVER,
     .args_n = 1,
     .set = hd_set_expr,
     .offset = offsetof(shop_t, expr),
     .help = "TEXT: with variables"},
    {.name = "items",
     .scope = ANY,
     .args_n = 1,
     .repeats = true,
     .set = set_list,
     .help = "ITEM: one more"},
    {.name = "pair",
     .scope = HD_IN_MAIN,
     .args_n = 2,
     .args_max = 3,
     .help = "A B [C]: x"},
    {.name = "many",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .help = "A…: x"},
    {.name = "let",
     .scope = ANY,
     .args_n = 2,
     .repeats = true,
     .declares = 1,
     .help = "$NAME VALUE: x"},
    {.name = "odd", .scope = HD_IN_MAIN, .set = warn_set, .help = ": warns"},
    {.name = "http", .scope = HD_IN_MAIN, .block = http_block, .help = "{ … }: x"},
    {.name = "server",
     .scope = HD_IN_HTTP,
     .repeats = true,
     .block = server_block,
     .help = "{ … }: x"},
    {.name = "upstream",
     .scope = HD_IN_HTTP,
     .args_n = 1,
     .repeats = true,
     .block = upstream_block,
     .help = "NAME { … }: x"},
    {.name = "server",
     .scope = HD_IN_UPSTREAM,
     .args_n = 1,
     .repeats = true,
     .help = "ADDRESS: x"},
    {.name = "types", .scope = HD_IN_HTTP, .block = types_block, .help = "{ … }: x"},
    {0},
};

static const hd_module_t shop = {
    .abi = HD_MODULE_ABI,
    .name = "shop",
    .directives = directives,
    .conf_size = sizeof(shop_t),
    .on_conf = on_conf,
};

static const hd_directive_t late_directives[] = {
    {.name = "late", .scope = HD_IN_SERVER, .args_n = 1, .help = "X: comes by need"},
    {0},
};
static const hd_module_t late = {
    .abi = HD_MODULE_ABI, .name = "late", .directives = late_directives, .conf_size = 8};

static char warned[256], asked[256];

static hd_rc_t find_module(hd_conf_t *cf, hd_str_t what, hd_str_t name, hd_err_t *err)
{
    (void)cf;
    if (hd_str_eq(what, HD_STR("variable"))) {
        size_t n = strlen(asked);

        (void)snprintf(asked + n, sizeof(asked) - n, "[%.*s]", HD_STR_ARG(name));
    }
    if (hd_str_eq(name, HD_STR("broken")))
        return hd_err_set(err, HD_E_CONF, "its module is broken");
    if (!hd_str_eq(name, HD_STR("late")) || hd_module_find(HD_STR("late")) != UINT16_MAX)
        return HD_DECLINED;
    hd_ignore(hd_module_add(&late) == 0);
    return HD_OK;
}

static hd_rc_t load_module(hd_conf_t *cf, hd_str_t path, hd_err_t *err)
{
    (void)cf;
    return hd_err_set(err, HD_E_CONF, "no file %.*s", HD_STR_ARG(path));
}

static void on_warning(hd_conf_t *cf, const char *text)
{
    (void)cf;
    (void)snprintf(warned, sizeof(warned), "%s", text);
}

static const hd_build_ops_t ops = {
    .load_module = load_module, .find_module = find_module, .on_warning = on_warning};

static hd_build_t build;

/* Builds; what blocks saw, or the reason. */
static const char *run(const char *text)
{
    static hd_err_t err;
    hd_node_t *root;

    hd_err_clear(&err);
    seen[0] = asked[0] = '\0';
    build = (hd_build_t){.ops = &ops, .prefix = HD_STR("/p"), .conf_dir = HD_STR("/c/")};
    root = hd_parse_text(pool, HD_STR("t"), hd_str_c(text), &err);
    if (root == NULL ||
        hd_conf_build(root, NULL, NULL, NULL, pool, &build, &err) != HD_OK)
        return err.text;
    return seen;
}

static void test_order(void)
{
    is_str(run("http { server { } number 7; items a; items b; server { number 8; "
               "items c; } } number 1;"),
           "[number 7 list ab outer 7][number 8 list c outer 7]",
           "simple directives first, inner blocks inherit, a list is replaced");
    is_str(run("number 3; http { server { } }"), "[number 3 list  outer 3]",
           "over two levels");
    is_str(run("number 3; http { upstream a { number 9; server b; } server { } }"),
           "<upstream a 9>[number 3 list  outer 3]",
           "a resource starts afresh; one name in two scopes");
    is_str(run("http { types { a/b c d; number; } }"), "{a/b 2}{number 0}",
           "free-form lines are the block's own affair");
}

static void test_setters(void)
{
    hd_err_t err = {0};
    hd_node_t *root =
        hd_parse_text(pool, HD_STR("t"),
                      HD_STR("flag on; size 4k; delay 2s; text x; shape square;"), &err);
    hd_build_t b = {.prefix = HD_STR("/p")};

    ok(root != NULL && hd_conf_read_main(root, &shop, &b, pool, &err) == HD_OK,
       "main only");
    is_str(run("flag maybe;"),
           "t:1: invalid value \"maybe\" in \"flag\" directive: it must "
           "be \"on\" or \"off\"");
    is_str(run("number 0;"), "t:1: \"number 0\" is out of range: from 1 to 1000");
    is_str(run("number x;"),
           "t:1: invalid number \"x\" in \"number\" directive: digits only");
    is_str(run("size 1q;"),
           "t:1: \"1q\" is not a size: bytes, or with k, m or g, as in 64k");
    is_str(run("delay soon;"),
           "t:1: \"soon\" is not a time: seconds, or with a unit (ms s "
           "m h d w M y), as in 500ms or 1h30m");
    is_str(run("shape flat;"),
           "t:1: invalid value \"flat\" in \"shape\" directive: it must "
           "be one of \"round\", \"square\"");
}

static void test_errors(void)
{
    is_str(run("nubmer 1;"),
           "t:1: unknown directive \"nubmer\": did you mean \"number\"?");
    is_str(run("\nhttp { servre { } }"),
           "t:2: unknown directive \"servre\": did you mean \"server\"?");
    is_str(run("proxy_cache_lock on;"),
           "t:1: unknown directive \"proxy_cache_lock\": no module in the modules' directory "
           "has it; what of nginx isn't there is in docs/nginx-users.md, and load_module "
           "names a module from elsewhere");
    is_str(run("\n\nserver { }"), "t:3: \"server\" directive is not allowed here: it may "
                                  "stand in http, upstream");
    is_str(run("http { text x; }"),
           "t:1: \"text\" directive is not allowed here: it may stand in main");
    is_str(run("number 1;\nnumber 2;"),
           "t:2: \"number\" directive is duplicate: it stands in t:1 already");
    is_str(run("http { }\nhttp { }"),
           "t:2: \"http\" directive is duplicate: it stands in t:1 already");
    is_str(run("http { server { number 1; } server { number 2; } }"),
           "[number 1 list  outer 0][number 2 list  outer 0]",
           "the same in two blocks is no duplicate");
    is_str(run("number;"),
           "t:1: invalid number of arguments in \"number\" directive (0): N: a number");
    is_str(run("pair 1;"),
           "t:1: invalid number of arguments in \"pair\" directive (1): A B [C]: x");
    is_str(run("pair 1 2 3 4;"),
           "t:1: invalid number of arguments in \"pair\" directive (4): A B [C]: x");
    is_str(run("pair 1 2;"), "", "as many as needed");
    is_str(run("many 1 2 3 4 5 6 7;"), "", "any number");
    is_str(run("http;"), "t:1: directive \"http\" has no opening \"{\"");
    is_str(run("number 1 { }"),
           "t:1: directive \"number\" is not terminated by \";\": it has no block");
    is_str(run("http { server {\n items a;\n items bad; } }"), "t:3: a bad item",
           "one place only, the innermost");
    is_str(run("number 666;"), "t:1: not that number", "on_conf's reason has the block");
    is_str(run("http {\n server { number 666; } }"), "t:2: not that number");
    is_str(run("\nload_module x.so;"), "t:2: no file x.so");
}

static void test_modules(void)
{
    is_str(run("http { server { late 1; number 4; } }"), "[number 4 list  outer 0]",
           "a module is loaded because its directive is used");
    is_str(run("late 1;"),
           "t:1: \"late\" directive is not allowed here: it may stand in server");
    is_str(run("http {\n broken; }"), "t:2: its module is broken");
    is_str(run("many 'a $One ${two}x$' $it; http { server { late $1$three; let $it 1; } }"),
           "[number 0 list  outer 0]");
    is_str(asked, "[one][two][1][three]", "variables that nothing declares are asked for");
}

static void test_variables(void)
{
    is_str(run("value $it;\nhttp { server { let $it 1; } }"), "[number 0 list  outer 0]",
           "declared anywhere is enough");
    is_str(run("value x$nobody;"),
           "t:1: unknown \"nobody\" variable: nothing defines or sets it");
    is_str(run("value \"${it\";"),
           "t:1: the closing bracket in \"it\" variable is missing");
    is_str(run("value \"a$\";"),
           "t:1: invalid variable name: behind \"$\" belongs a name, "
           "as in $host or ${host}");
    is_str(run("value $year$2; many '^/(?<year>\\d+)/(?P<m_1>.)';"), "",
           "captures, by name and number");
}

static void test_rest(void)
{
    char names[64];
    hd_conf_t cf = {.pool = pool, .temp = pool, .build = &build};
    const hd_module_t *module;
    const hd_directive_t *d;
    uint32_t at = 0, n = 0;

    is_str(run("\nodd;"), "");
    is_str(warned, "t:2: mind the gap", "a warning has its place");
    is_int(build.warnings, 1, "and is counted");
    is_str(hd_conf_path(&cf, HD_STR("/abs"), false).data, "/abs");
    is_str(hd_conf_path(&cf, HD_STR("rel"), false).data, "/p/rel", "under the prefix");
    is_str(hd_conf_path(&cf, HD_STR("rel"), true).data, "/c/rel", "beside the file");
    is_str(hd_scope_names(HD_IN_SERVER | HD_IN_MAIN, names, sizeof(names)).data,
           "main, server");
    while (hd_directives_next(&at, &module, &d))
        n += module == &shop || module == &late ? 1 : 0;
    is_int(n, hd_countof(directives) - 1 + 1, "all directives are walked");
}

int main(void)
{
    pool = hd_pool_create(0);
    hd_ignore(hd_module_add(&shop) == 0);
    test_order();
    test_setters();
    test_errors();
    test_modules();
    test_variables();
    test_rest();
    hd_pool_destroy(pool);
    return done_testing();
}
