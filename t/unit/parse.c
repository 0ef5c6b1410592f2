/* core/conf/hd_parse: nginx's grammar, includes, sizes and times; each error has its
 * place. */
#include "core/conf/hd_parse.h"
#include "tap.h"
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static hd_pool_t *pool;
static char dir[] = "/tmp/hd-parse-XXXXXX";

/* The tree as text: name(arg)(arg){children} … */
static size_t print(const hd_node_t *n, char *out, size_t at, size_t room)
{
    for (; n != NULL; n = n->next) {
        at += (size_t)snprintf(out + at, room - at, "%.*s", HD_STR_ARG(n->name));
        for (uint32_t i = 0; i < n->args_n; i++)
            at += (size_t)snprintf(out + at, room - at, "(%.*s)", HD_STR_ARG(n->args[i]));
        if (n->is_block) {
            at += (size_t)snprintf(out + at, room - at, "{");
            at = print(n->first, out, at, room);
            at += (size_t)snprintf(out + at, room - at, "}");
        } else {
            at += (size_t)snprintf(out + at, room - at, ";");
        }
    }
    return at;
}

static const char *parse_n(const char *text, size_t len)
{
    static char out[8192];
    hd_err_t err = {0};
    hd_node_t *root = hd_parse_text(pool, HD_STR("t"), hd_str_n(text, len), &err);

    out[0] = '\0';
    if (root == NULL)
        (void)snprintf(out, sizeof(out), "%s", err.text);
    else
        (void)print(root->first, out, 0, sizeof(out));
    return out;
}

static const char *parse(const char *text)
{
    return parse_n(text, strlen(text));
}

static void test_words(void)
{
    is_str(parse(""), "", "nothing");
    is_str(parse(" \t\r\n# only { a comment ;"), "", "a comment");
    is_str(parse("a;b c  d\n\te;"), "a;b(c)(d)(e);", "words");
    is_str(parse("a \"b c;{}#\" 'd \"e\"';"), "a(b c;{}#)(d \"e\");", "quotes");
    is_str(parse("a \"\" '';"), "a()();", "empty quoted words");
    is_str(parse("a b#c x'y z\"w;"), "a(b#c)(x'y)(z\"w);", "only at a word's start");
    is_str(parse("a # b ; \n c;"), "a(c);", "a comment inside a directive");
    is_str(parse("a \"x\\\"y\" 'x\\'y' x\\;y x\\ y;"), "a(x\"y)(x'y)(x\\;y)(x\\ y);",
           "escaped ends");
    is_str(parse("a \\.php$ \\\\ b\\tc \"d\\ne\\r\";"), "a(\\.php$)(\\)(b\tc)(d\ne\r);",
           "other backslashes stay, for regular expressions");
    is_str(parse("a ${x}y$z \"${x} {\" $x;"), "a(${x}y$z)(${x} {)($x);", "variables");
    is_str(parse("a b}c;"), "a(b}c);", "a closing brace inside a word");
    is_str(parse("if ($x = \"y\") { return 1; }"), "if(($x)(=)(y)()){return(1);}",
           "a bracket behind a quote");
    is_str(parse("\xef\xbb\xbf"
                 "a;"),
           "a;", "a byte order mark");
    is_str(parse("\"a b\" c;"), "a b(c);", "a quoted name");
}

static void test_blocks(void)
{
    hd_err_t err = {0};
    hd_node_t *root;

    is_str(parse("a{b{c;}d;}e;"), "a{b{c;}d;}e;", "nested");
    is_str(parse("a x{}"), "a(x){}", "empty");
    root = hd_parse_text(pool, HD_STR("t"), HD_STR("a\n\nb\n{\nc\n\"x\ny\";\nd;}"), &err);
    ok(root != NULL && root->first->line == 1 && root->first->first->line == 5 &&
           root->first->last->line == 8,
       "a directive's line is its name's");
    ok(root->first->first->parent == root->first && root->first->parent == root);
}

static void test_raw(void)
{
    static const char *const names[] = {"*_by_lua_block", NULL};

    hd_parse_set_raw_blocks(names);
    is_str(parse("x_by_lua_block { if a then b = {} end } c;"),
           "x_by_lua_block( if a then b = {} end );c;", "code stays as it is");
    is_str(
        parse("x_by_lua_block a {s='}' t=\"\\\"}\" -- }\nu=[[}]] --[==[ } ]] } ]==] }"),
        "x_by_lua_block(a)(s='}' t=\"\\\"}\" -- }\nu=[[}]] --[==[ } ]] } ]==] );",
        "braces in Lua's strings and comments don't count");
    is_str(parse("\nx_by_lua_block {\n a"),
           "t:2: unexpected end of file: the block that begins here is never closed");
    is_str(parse("x_by_lua_block {\n\n}\n}"),
           "t:4: unexpected \"}\": no block is open here", "lines are counted in it");
    hd_parse_set_raw_blocks(NULL);
}

static void test_errors(void)
{
    char long_word[5100], deep[300] = "";

    is_str(parse("a\nb"), "t:1: unexpected end of file, expecting \";\" or \"}\"");
    is_str(
        parse("\na {\n b;\n"),
        "t:4: unexpected end of file, expecting \"}\": the block \"a\" begins in line 2");
    is_str(parse("a;\n}"), "t:2: unexpected \"}\": no block is open here");
    is_str(parse("a { b }"), "t:1: unexpected \"}\": a \";\" is missing before it");
    is_str(parse("a;;"), "t:1: unexpected \";\": no directive stands before it");
    is_str(parse(" {"), "t:1: unexpected \"{\": no directive stands before it");
    is_str(parse("a \"b\"c;"),
           "t:1: unexpected \"c\" behind a closing quote: a space belongs there");
    is_str(parse("\na \"b;\nc;"),
           "t:2: unexpected end of file: the quote that begins here "
           "is never closed");
    is_str(parse_n("a b\0c;", 6), "t:1: there is a zero byte in it: is it a text file?");
    is_str(parse("include x;"),
           "t:1: include \"x\": no files here: No such file or directory");
    is_str(parse("include x y;"), "t:1: invalid number of arguments in \"include\" "
                                  "directive: one file or pattern");
    memset(long_word, 'a', sizeof(long_word));
    memcpy(long_word, "\nb \"", 4);
    memcpy(long_word + sizeof(long_word) - 3, "\";", 3);
    is_str(parse(long_word), "t:2: a quoted argument of more than 4096 bytes: is its "
                             "closing quote missing?");
    for (int i = 0; i < 101; i++)
        memcpy(deep + 2 * i, "a{", 2);
    is_str(parse(deep), "t:1: blocks more than 100 deep");
}

static const char *write_file(const char *name, const char *text)
{
    static char path[256];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        exit(1);
    close(fd);
    return path;
}

static const char *parse_file(const char *text, const char *globals)
{
    static char out[8192];
    hd_str_t main_file = hd_str_dup(pool, hd_str_c(write_file("main.conf", text)));
    hd_sources_t *sources;
    hd_err_t err = {0};
    hd_node_t *root = hd_parse_file(pool, main_file, hd_str_c(globals), &sources, &err);
    char *at;

    out[0] = '\0';
    if (root == NULL)
        (void)snprintf(out, sizeof(out), "%s", err.text);
    else
        (void)print(root->first, out, 0, sizeof(out));
    while ((at = strstr(out, dir)) != NULL) /* the directory's name differs each time */
        memmove(at, at + strlen(dir), strlen(at + strlen(dir)) + 1);
    return out;
}

static void test_include(void)
{
    hd_sources_t *sources = NULL;
    hd_source_t source;
    hd_err_t err = {0};
    hd_node_t *root;
    size_t at = 0;
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/sub", dir);
    mkdir(path, 0700);
    write_file("sub/b.conf", "b;");
    write_file("sub/a.conf", "a { include sub/c.inc; }");
    write_file("sub/c.inc", "\nc;");
    is_str(parse_file("x { include sub/*.conf; y; }", ""), "x{a{c;}b;y;}",
           "sorted, relative to the main file's directory, in a block");
    is_str(parse_file("include none/*; x;", ""), "x;", "a pattern may match nothing");
    is_str(parse_file("\ninclude none;", ""),
           "/main.conf:2: open \"/none\": No such file or directory", "a name may not");
    is_str(parse_file("include sub;", ""),
           "/main.conf:1: \"/sub\" is not a regular file: Is a directory");
    write_file("sub/c.inc", "c");
    is_str(parse_file("include sub/c.inc;", ""),
           "/sub/c.inc:1: unexpected end of file, expecting \";\" or \"}\"",
           "an error inside has that file's place");
    write_file("sub/c.inc", "}");
    is_str(parse_file("x { include sub/c.inc;", ""),
           "/sub/c.inc:1: unexpected \"}\": no block is open here",
           "a file can't close the block it is included in");
    write_file("sub/c.inc", "\ninclude sub/d.inc;");
    write_file("sub/d.inc", "include sub/c.inc;");
    ok(strstr(parse_file("include sub/c.inc;", ""),
              "/sub/d.inc:1: include \"/sub/c.inc\": "
              "it is being read already") != NULL,
       "a cycle");
    for (int i = 0; i < 22; i++) {
        char name[32], text[64];

        (void)snprintf(name, sizeof(name), "sub/%d.inc", i);
        (void)snprintf(text, sizeof(text), "include sub/%d.inc;", i + 1);
        write_file(name, text);
    }
    ok(strstr(parse_file("include sub/0.inc;", ""), "more than 20 deep") != NULL,
       "depth");
    is_str(parse_file("x;", "g 1; h 2;"), "g(1);h(2);x;", "-g comes first");
    is_str(parse_file("x;", "g 1"),
           "command line:1: unexpected end of file, expecting \";\" or \"}\"");
    is_str(parse_file("x;", ""), "x;");
    (void)snprintf(path, sizeof(path), "%s/fifo", dir);
    ok(mkfifo(path, 0600) == 0 &&
           strstr(parse_file("include fifo;", ""), "is not a regular file") != NULL,
       "a fifo is refused, not waited for");

    write_file("sub/c.inc", "c;");
    parse_file("include sub/c.inc;", "");
    (void)snprintf(path, sizeof(path), "%s/main.conf", dir);
    root = hd_parse_file(pool, hd_str_c(path), HD_STR_NONE, &sources, &err);
    ok(root != NULL && hd_sources_next(sources, &at, &source) &&
           hd_str_has_suffix(source.file, HD_STR("/main.conf")) &&
           hd_str_eq(source.text, HD_STR("include sub/c.inc;")) &&
           hd_sources_next(sources, &at, &source) &&
           hd_str_has_suffix(source.file, HD_STR("/sub/c.inc")) &&
           !hd_sources_next(sources, &at, &source),
       "the files read, for -T");
    is_int(root->first->line, 1, "line");
    ok(hd_str_has_suffix(root->first->file, HD_STR("/sub/c.inc")), "a node's file");
}

static void test_units(void)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } times[] = {
        {"0", 0},           {"60", 60000},       {"1m", 60000},      {"500ms", 500},
        {"1h30m", 5400000}, {"1h 30m", 5400000}, {"1d", 86400000},   {"1s500ms", 1500},
        {"1M", 2592000000}, {"1y", 31536000000}, {"2w", 1209600000}, {"1m30", 90000},
    };
    static const char *const bad[] = {"",     "m",     "1x",   "-1",
                                      "1m1h", "1s 1s", "1.5s", " 1",
                                      "1 ",   "1ms1",  "1  s", "999999999999y"};
    uint64_t n = 0;
    hd_err_t err = {0};

    for (size_t i = 0; i < hd_countof(times); i++)
        ok(hd_parse_msec(hd_str_c(times[i].text), &n, NULL) == HD_OK && n == times[i].ms,
           "time %s", times[i].text);
    for (size_t i = 0; i < hd_countof(bad); i++)
        ok(hd_parse_msec(hd_str_c(bad[i]), &n, NULL) == HD_ERROR, "no time: '%s'",
           bad[i]);
    ok(hd_parse_size(HD_STR("0"), 9, &n, NULL) == HD_OK && n == 0);
    ok(hd_parse_size(HD_STR("8k"), UINT64_MAX, &n, NULL) == HD_OK && n == 8192);
    ok(hd_parse_size(HD_STR("2M"), UINT64_MAX, &n, NULL) == HD_OK && n == 2097152);
    ok(hd_parse_size(HD_STR("1g"), 1 << 30, &n, NULL) == HD_OK && n == 1 << 30);
    is_int(hd_parse_size(HD_STR("2g"), 1 << 30, &n, &err), HD_ERROR, "beyond max");
    is_str(err.text, "\"2g\" is too large: at most 1073741824 bytes");
    ok(hd_parse_size(HD_STR("18446744073709551615k"), UINT64_MAX, &n, NULL) == HD_ERROR &&
           hd_parse_size(HD_STR("99999999999999999999"), UINT64_MAX, &n, NULL) ==
               HD_ERROR,
       "overflow");
    ok(hd_parse_size(HD_STR("1kb"), UINT64_MAX, &n, NULL) == HD_ERROR &&
           hd_parse_size(HD_STR("k"), UINT64_MAX, &n, NULL) == HD_ERROR &&
           hd_parse_size(HD_STR("-1"), UINT64_MAX, &n, NULL) == HD_ERROR &&
           hd_parse_size(HD_STR("1t"), UINT64_MAX, &n, NULL) == HD_ERROR,
       "no sizes");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

int main(void)
{
    pool = hd_pool_create(0);
    if (mkdtemp(dir) == NULL)
        return 1;
    test_words();
    test_blocks();
    test_raw();
    test_errors();
    test_include();
    test_units();
    hd_pool_destroy(pool);
    return done_testing() != 0 || nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0;
}
