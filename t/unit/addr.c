/* Addresses: parsing, printing, ranges, the kernel's form. */
#include "core/net/hd_addr.h"
#include "tap.h"
#include <netinet/in.h>
#include <sys/un.h>

static hd_pool_t *pool;
static hd_err_t err;

static void test_parse(void)
{
    static const struct {
        const char *text, *want; /* as printed; NULL: refused */
    } rows[] = {
        {"1.2.3.4", "1.2.3.4:99"},
        {"1.2.3.4:80", "1.2.3.4:80"},
        {"[::1]:80", "[::1]:80"},
        {"[::1]", "[::1]:99"},
        {"::1", "[::1]:99"},
        {"[2001:db8::1]:65535", "[2001:db8::1]:65535"},
        {"[fe80::1%7]:80", "[fe80::1%7]:80"},
        {"[::ffff:1.2.3.4]:5", "[::ffff:1.2.3.4]:5"},
        {"unix:/run/x.sock", "unix:/run/x.sock"},
        {"unix:@abstract", "unix:@abstract"},
        {"", NULL},
        {":80", NULL},
        {"1.2.3", NULL},
        {"1.2.3.4.5", NULL},
        {"1.2.3.256", NULL},
        {"01.2.3.4", NULL},
        {" 1.2.3.4", NULL},
        {"1.2.3.4 ", NULL},
        {"1.2.3.4:", NULL},
        {"1.2.3.4:0", NULL},
        {"1.2.3.4:65536", NULL},
        {"1.2.3.4:+80", NULL},
        {"1.2.3.4:80:80", NULL},
        {"[::1", NULL},
        {"[::1]80", NULL},
        {"[::1]:", NULL},
        {"[1.2.3.4]:80", NULL},
        {"[]:80", NULL},
        {":::1", NULL},
        {"fe80::1%", NULL},
        {"fe80::1%nosuchinterface", NULL},
        {"1.2.3.4%1", NULL},
        {"localhost:80", NULL},
        {"unix:", NULL},
    };
    char out[HD_ADDR_TEXT_MAX], path[200] = "unix:/";
    hd_addr_t a;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        hd_rc_t rc;

        hd_err_clear(&err);
        rc = hd_addr_parse(pool, hd_str_c(rows[i].text), 99, &a, &err);
        if (rows[i].want == NULL)
            ok(rc == HD_ERROR && err.code == HD_E_CONF, "\"%s\" is refused",
               rows[i].text);
        else if (ok(rc == HD_OK, "\"%s\"", rows[i].text))
            is_str(hd_addr_print(&a, out).data, rows[i].want);
    }
    hd_err_clear(&err);
    ok(hd_addr_parse(pool, hd_str_n("1.2.3.4\0", 8), 1, &a, &err) == HD_ERROR,
       "a zero byte");
    memset(path + 6, 'x', 107);
    hd_err_clear(&err);
    ok(hd_addr_parse(pool, hd_str_n(path, 5 + 107), 0, &a, &err) == HD_OK,
       "107 bytes of path");
    ok(strlen(hd_addr_print(&a, out).data) == 112);
    ok(hd_addr_parse(pool, hd_str_n(path, 5 + 108), 0, &a, &err) == HD_ERROR, "not 108");
    ok(hd_addr_parse(pool, hd_str_n("unix:a\0b", 8), 0, &a, &err) == HD_ERROR,
       "nor a zero byte in it");
}

static bool has(const char *cidr, const char *ip)
{
    hd_cidr_t c;
    hd_addr_t a;

    return hd_cidr_parse(hd_str_c(cidr), &c) && hd_addr_parse_ip(hd_str_c(ip), &a) &&
           hd_cidr_has(&c, &a);
}

static void test_cidr(void)
{
    hd_cidr_t c;

    ok(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
    ok(has("10.1.2.3", "10.1.2.3") && !has("10.1.2.3", "10.1.2.4"), "a single address");
    ok(has("10.1.2.0/23", "10.1.3.255") && !has("10.1.2.0/23", "10.1.4.0"));
    ok(has("10.9.9.9/8", "10.1.1.1"), "bits beyond the prefix don't count");
    ok(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1"));
    ok(has("::/0", "fe80::1") && !has("::/0", "1.2.3.4"));
    ok(has("2001:db8::/33", "2001:db8:7fff::1") &&
       !has("2001:db8::/33", "2001:db8:8000::"));
    ok(has("10.0.0.0/8", "::ffff:10.1.1.1"), "v4-mapped v6 counts as v4");
    ok(has("::ffff:10.0.0.0/104", "10.1.1.1"), "in the range, too");
    ok(!hd_cidr_parse(HD_STR("10.0.0.0/33"), &c) &&
       !hd_cidr_parse(HD_STR("10.0.0.0/"), &c) && !hd_cidr_parse(HD_STR("/8"), &c) &&
       !hd_cidr_parse(HD_STR("10.0.0.0/-1"), &c) &&
       !hd_cidr_parse(HD_STR("::/129"), &c) && !hd_cidr_parse(HD_STR("a/8"), &c));
}

static void test_sockaddr(void)
{
    static const char *const texts[] = {"1.2.3.4:80", "[2001:db8::5]:443", "unix:/tmp/x",
                                        "[fe80::1%2]:1"};
    struct sockaddr_storage ss;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    hd_addr_t a, b;
    socklen_t len;

    for (int i = 0; i < 4; i++) {
        ok(hd_addr_parse(pool, hd_str_c(texts[i]), 0, &a, &err) == HD_OK);
        len = hd_addr_to_sockaddr(&a, &ss);
        hd_addr_from_sockaddr((struct sockaddr *)&ss, len, &b);
        ok(hd_addr_eq(&a, &b) && hd_addr_hash(&a) == hd_addr_hash(&b),
           "%s there and back", texts[i]);
    }
    hd_addr_from_sockaddr((struct sockaddr *)&un, sizeof(sa_family_t), &a);
    ok(a.family == AF_UNIX && a.path.len == 0, "an unnamed unix peer");
    hd_addr_from_sockaddr((struct sockaddr *)&un, 1, &a);
    is_int(a.family, AF_UNSPEC, "a sockaddr too short");
    un.sun_family = AF_INET;
    hd_addr_from_sockaddr((struct sockaddr *)&un, 4, &a);
    is_int(a.family, AF_UNSPEC, "and one cut");
}

static void test_eq(void)
{
    hd_addr_t a, b, kept;

    ok(hd_addr_parse_ip(HD_STR("127.0.0.1"), &a) && hd_addr_is_loopback(&a));
    ok(hd_addr_parse_ip(HD_STR("::ffff:127.0.0.1"), &b) && hd_addr_is_loopback(&b));
    ok(!hd_addr_eq(&a, &b) && hd_addr_eq_ip(&a, &b), "equal as IP only");
    ok(hd_addr_parse_ip(HD_STR("::"), &a) && hd_addr_is_any(&a) &&
       !hd_addr_is_loopback(&a));
    ok(hd_addr_parse(pool, HD_STR("unix:/kept"), 0, &a, &err) == HD_OK);
    kept = hd_addr_keep(&a);
    ok(kept.path.data != a.path.data && hd_addr_eq(&kept, &a) &&
           hd_addr_keep(&a).path.data == kept.path.data,
       "kept once");
}

/* The items of a list from its end, as far as they are addresses; each before a slash. */
static hd_str_t take_all(const char *list)
{
    hd_str_t rest = hd_str_c(list), all = HD_STR_NONE;
    char text[HD_ADDR_TEXT_MAX];
    hd_addr_t a;

    while (hd_addr_take_last(&rest, &a))
        all = hd_str_printf(pool, "%.*s%.*s/", HD_STR_ARG(all),
                            HD_STR_ARG(hd_addr_print(&a, text)));
    return all;
}

static void test_take_last(void)
{
    static const struct {
        const char *list, *want;
    } rows[] = {
        {"", ""},
        {" , ,", ""},
        {"1.2.3.4", "1.2.3.4/"},
        {"1.2.3.4, ", "1.2.3.4/"},
        {"1.2.3.4, ::1,5.6.7.8:80", "5.6.7.8:80/::1/1.2.3.4/"},
        {"1.2.3.4,[::1]:5 [::2]", "::2/[::1]:5/1.2.3.4/"},
        {"1.2.3.4, unknown", ""},
        {"unknown, 1.2.3.4", "1.2.3.4/"},
        {"1.2.3.4:", ""},
        {"1.2.3.4:65536", ""},
        {"[::1", ""},
        {"unix:/x", ""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        is_str(take_all(rows[i].list).len == 0 ? "" : take_all(rows[i].list).data,
               rows[i].want);
}

int main(void)
{
    pool = hd_pool_create(0);
    test_take_last();
    test_parse();
    test_cidr();
    test_sockaddr();
    test_eq();
    hd_pool_destroy(pool);
    return done_testing();
}
