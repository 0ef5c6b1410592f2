/* hd_match, hd_regex: each kind, case, captures, replacing; what takes too long is given
 * up. */
#include "core/base/hd_log.h"
#include "core/loom/hd_match.h"
#include "tap.h"
#include <unistd.h>

static bool matches(hd_match_kind_t kind, const char *text, const char *s, bool nocase,
                    bool part, bool invert)
{
    hd_match_t p = {.kind = (uint8_t)kind,
                    .ignore_case = nocase,
                    .part = part,
                    .invert = invert,
                    .text = hd_str_c(text)};
    hd_err_t err = {0};
    hd_regex_t *re = NULL;
    bool found;

    if (hd_match_check(&p, &err) != HD_OK) {
        diag("%s", err.text);
        return false;
    }
    if (kind == HD_MATCH_REGEX)
        re = hd_regex_create(p.text, nocase, part, &err);
    found = hd_match_with(re, &p, hd_str_c(s), NULL);
    if (re != NULL)
        hd_regex_destroy(re);
    return found;
}

static void test_kinds(void)
{
    static const struct {
        hd_match_kind_t kind;
        const char *text, *s;
        bool nocase, part, found;
    } rows[] = {
        {HD_MATCH_ANY, "", "", false, false, true},
        {HD_MATCH_ANY, "", "x", false, false, true},
        {HD_MATCH_EXACT, "abc", "abc", false, false, true},
        {HD_MATCH_EXACT, "abc", "abcd", false, false, false},
        {HD_MATCH_EXACT, "abc", "ABC", false, false, false},
        {HD_MATCH_EXACT, "abc", "aBC", true, false, true},
        {HD_MATCH_EXACT, "", "", false, false, true},
        {HD_MATCH_EXACT, "", "x", false, false, false},
        {HD_MATCH_PREFIX, "/a", "/a/b", false, false, true},
        {HD_MATCH_PREFIX, "/a", "/A/b", false, false, false},
        {HD_MATCH_PREFIX, "/a", "/A/b", true, false, true},
        {HD_MATCH_PREFIX, "/a", "/", false, false, false},
        {HD_MATCH_SUFFIX, ".io", "x.io", false, false, true},
        {HD_MATCH_SUFFIX, ".io", "x.iO", true, false, true},
        {HD_MATCH_SUFFIX, ".io", "x.io.", false, false, false},
        {HD_MATCH_SUFFIX, ".io", "io", false, false, false},
        {HD_MATCH_CONTAINS, "bc", "abcd", false, false, true},
        {HD_MATCH_CONTAINS, "bc", "aBCd", false, false, false},
        {HD_MATCH_CONTAINS, "bc", "aBCd", true, false, true},
        {HD_MATCH_CONTAINS, "bc", "ab", true, false, false},
        {HD_MATCH_CONTAINS, "cd", "abcd", true, false, true},
        {HD_MATCH_REGEX, "a.c", "abc", false, false, true},
        {HD_MATCH_REGEX, "a.c", "xabc", false, false, false},
        {HD_MATCH_REGEX, "a.c", "abcx", false, false, false},
        {HD_MATCH_REGEX, "a|ab", "ab", false, false, true},
        {HD_MATCH_REGEX, "a.c", "xabcx", false, true, true},
        {HD_MATCH_REGEX, "A.c", "aBC", true, false, true},
        {HD_MATCH_REGEX, "a", "a\n", false, false, false},
        {HD_MATCH_REGEX, "a$", "a\n", false, true, false},
        {HD_MATCH_REGEX, "", "", false, false, true},
        {HD_MATCH_REGEX, "", "a", false, false, false},
        {HD_MATCH_REGEX, ".*", "\xff\xfe", false, false, true},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        is_int(matches(rows[i].kind, rows[i].text, rows[i].s, rows[i].nocase,
                       rows[i].part, false),
               rows[i].found, "row %zu: kind %d '%s' on '%s'", i, rows[i].kind,
               rows[i].text, rows[i].s);
        is_int(matches(rows[i].kind, rows[i].text, rows[i].s, rows[i].nocase,
                       rows[i].part, true),
               !rows[i].found, "row %zu: inverted", i);
    }
}

static void test_check(void)
{
    static const struct {
        hd_match_t p;
        const char *says;
    } rows[] = {
        {{.kind = HD_MATCH_REGEX, .text = HD_STR_INIT("a(b")}, "at byte 3"},
        {{.kind = HD_MATCH_REGEX, .text = HD_STR_INIT("a[")}, "\"a[\""},
        {{.kind = HD_MATCH_REGEX, .text = HD_STR_INIT("\\C")}, "\\C"},
        {{.kind = HD_MATCH_PREFIX}, "empty"},
        {{.kind = HD_MATCH_EXACT, .ignore_case = true, .text = HD_STR_INIT("A")},
         "lower case"},
        {{.kind = 99}, "unknown kind"},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_err_t err = {0};

        ok(hd_match_check(&rows[i].p, &err) == HD_ERROR &&
               strstr(err.text, rows[i].says) != NULL,
           "refused: %s", err.text);
    }
}

/* Which is RE2's, as Envoy 1.40 takes it; else what isn't. */
static void test_re2(void)
{
    static const struct {
        const char *pattern, *says;
    } rows[] = {
        {"/a/(?P<n>\\d+)/(?:x|y)*?/[^]]+\\.js$", NULL},
        {"(?i)/a[[:alpha:]]{2,3}?b{2}c+", NULL},
        {"\\+\\(?=\\[(?m:a)b}+", NULL},
        {"[(?=\\]*+](?-s:.)", NULL},
        {"\\Q(?=a)\\1\\E/[*+]+", NULL},
        {"a{,2}+", NULL}, /* text */
        {"(a)\\1", "a back-reference at byte 3"},
        {"(?P<n>a)(?P=n)", "a back-reference at byte 8"},
        {"(?<n>a)\\k<n>", "a back-reference at byte 7"},
        {"(?=a)b", "look-around at byte 0"},
        {"a(?!b)", "look-around at byte 1"},
        {"(?<=a)b", "look-around"},
        {"(?<!a)b", "look-around"},
        {"(?>a)", "a kind of group"},
        {"(?R)", "a kind of group"},
        {"(*COMMIT)a", "a verb"},
        {"a*+", "a possessive repetition at byte 1"},
        {"a{2}+", "a possessive repetition"},
        {"[]a]+(?=b)", "look-around at byte 5"},
        {"\\Ka", "an escape"},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_match_t p = {.kind = HD_MATCH_REGEX, .text = hd_str_c(rows[i].pattern)};
        hd_err_t err = {0};
        hd_rc_t rc = hd_match_check_re2(&p, &err);

        if (rows[i].says == NULL)
            is_int(rc, HD_OK, "RE2's: %s %s", rows[i].pattern, err.text);
        else
            ok(rc == HD_ERROR && strstr(err.text, rows[i].says) != NULL, "refused: %s",
               err.text);
    }
}

static void test_captures(void)
{
    hd_err_t err = {0};
    hd_regex_t *re =
        hd_regex_create(HD_STR("/(?<v>v[0-9]+)(/x)?/(.*)"), false, false, &err);
    hd_captures_t c;
    char many[256] = "";

    is_int(hd_regex_match(re, HD_STR("/v12/rest/of"), &c), HD_OK);
    is_int(c.n, 4);
    ok(c.at[0].from == 0 && c.at[0].to == 12, "the whole");
    ok(c.at[1].from == 1 && c.at[1].to == 4, "a group");
    ok(c.at[2].from == -1 && c.at[2].to == -1, "one that took no part");
    ok(c.at[3].from == 5 && c.at[3].to == 12, "the last");
    is_int(hd_regex_group(re, HD_STR("v")), 1, "by name");
    is_int(hd_regex_group(re, HD_STR("w")), -1, "no such name");
    is_int(hd_regex_match(re, HD_STR("/x"), &c), HD_DECLINED);
    is_int(c.n, 0, "no captures of what doesn't match");
    hd_regex_destroy(re);

    for (size_t i = 0; i < 30; i++)
        memcpy(many + 4 * i, "(a)?", 5);
    re = hd_regex_create(hd_str_c(many), false, false, &err);
    is_int(hd_regex_match(re, HD_STR("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), &c), HD_OK,
           "more groups than there is room for");
    ok(c.n == HD_CAPTURES_MAX && c.at[19].from == 18);
    hd_regex_destroy(re);
}

static void test_replace(void)
{
    static const struct {
        const char *pattern, *subst, *s, *out;
    } rows[] = {
        {"^/service/([^/]+)(/.*)$", "\\2/instance/\\1", "/service/foo/v1/api",
         "/v1/api/instance/foo"}, /* Envoy's own example */
        {"one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"},
        {"^(.*?)one(.*)$", "\\1two\\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"},
        {"(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"},
        {"b", "[\\0]", "abcb", "a[b]c[b]"},
        {"x*", "-", "abc", "-a-b-c-"},
        {"x*", "-", "axc", "-a-c-"},
        {"", "-", "", "-"},
        {"a", "\\\\", "bab", "b\\b"},
        {"(a)|b", "<\\1>", "ab", "<a><>"},
        {"z", "y", "abc", "abc"},
        {"abc", "", "abc", ""},
    };
    hd_pool_t *pool = hd_pool_create(0);
    hd_err_t err = {0};
    hd_regex_t *re;
    hd_str_t out;
    char *big;

    for (size_t i = 0; i < hd_countof(rows); i++) {
        re = hd_regex_create(hd_str_c(rows[i].pattern), false, true, &err);
        is_int(hd_regex_replace(re, hd_str_c(rows[i].subst), hd_str_c(rows[i].s), pool,
                                &out),
               HD_OK);
        ok(hd_str_eq(out, hd_str_c(rows[i].out)), "s/%s/%s/ on %s: %.*s", rows[i].pattern,
           rows[i].subst, rows[i].s, HD_STR_ARG(out));
        hd_regex_destroy(re);
    }

    re = hd_regex_create(HD_STR("a"), false, true, &err);
    big = malloc(20000);
    memset(big, 'a', 20000);
    is_int(hd_regex_replace(re,
                            HD_STR("0123456789012345678901234567890123456789"
                                   "0123456789012345678901234567890123456789"),
                            hd_str_n(big, 20000), pool, &out),
           HD_ERROR, "a result of over 1 MB is refused");
    is_int(hd_regex_check_subst(re, HD_STR("\\0\\\\"), &err), HD_OK);
    is_int(hd_regex_check_subst(re, HD_STR("\\1"), &err), HD_ERROR, "a missing group");
    ok(strstr(err.text, "0 groups") != NULL, "it says: %s", err.text);
    is_int(hd_regex_check_subst(re, HD_STR("a\\"), NULL), HD_ERROR);
    is_int(hd_regex_check_subst(re, HD_STR("\\n"), NULL), HD_ERROR);
    hd_regex_destroy(re);
    free(big);
    hd_pool_destroy(pool);
}

/* Exponential without a limit: the test would not end. */
static void test_bounded(void)
{
    static const char s[] =
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabc"; /* the c, or PCRE2
                                                                         needn't try */
    hd_match_t p = {
        .kind = HD_MATCH_REGEX, .part = true, .text = HD_STR_INIT("^(a|a|a)*c")};
    hd_err_t err = {0};
    hd_regex_t *re = hd_regex_create(p.text, false, true, &err);
    hd_pool_t *pool = hd_pool_create(0);
    char log[1024] = "";
    hd_str_t out;
    int fds[2], old = hd_log_fd();

    if (pipe(fds) != 0)
        abort();
    hd_log_level = HD_LOG_WARN;
    hd_log_set_fd(fds[1]);
    is_int(hd_regex_match(re, hd_str_c(s), NULL), HD_ERROR, "given up");
    ok(!hd_match_with(re, &p, hd_str_c(s), NULL), "which is no match");
    p.invert = true;
    ok(!hd_match_with(re, &p, hd_str_c(s), NULL), "nor one inverted");
    is_int(hd_regex_replace(re, HD_STR("x"), hd_str_c(s), pool, &out), HD_ERROR);
    ok(out.data == s, "nothing is replaced then");
    hd_log_set_fd(old);
    close(fds[1]);
    hd_ignore(read(fds[0], log, sizeof(log) - 1) < 0);
    close(fds[0]);
    ok(strstr(log, "^(a|a|a)*c") != NULL && strstr(log, "no match") != NULL, "logged: %s",
       log);
    is_int(hd_regex_match(re, HD_STR("aac"), NULL), HD_OK, "and goes on working");
    hd_regex_destroy(re);
    hd_pool_destroy(pool);
}

int main(void)
{
    test_kinds();
    test_check();
    test_re2();
    test_captures();
    test_replace();
    test_bounded();
    return done_testing();
}
