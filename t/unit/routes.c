/* Route tables: which virtual host a name belongs to (nginx server_name, Envoy domains).
 */
#include "http/hd_router.h"

#include "tap.h"

static hd_vhost_t vhosts[16];
static hd_str_t domains[16];

static hd_routes_t table(hd_pool_t *pool, const char *const *names, uint32_t n,
                         bool first_wins, hd_rc_t *rc, hd_err_t *err)
{
    hd_routes_t routes = {
        .name = HD_STR("t"), .vhosts = vhosts, .vhosts_n = n, .ignore_port = true};

    for (uint32_t i = 0; i < n; i++) {
        domains[i] = hd_str_c(names[i]);
        vhosts[i] =
            (hd_vhost_t){.name = domains[i], .domains = &domains[i], .domains_n = 1};
    }
    *rc = hd_routes_index(pool, &routes, first_wins, err);
    return routes;
}

int main(void)
{
    static const char *const names[] = {"a.example.org",
                                        "*.example.org",
                                        "*.b.example.org",
                                        "mail.*",
                                        "mail.x.*",
                                        "*-z.example.org",
                                        "*",
                                        "[::1]"};
    static const struct {
        const char *host, *vhost;
    } rows[] = {
        {"a.example.org", "a.example.org"},
        {"a.example.org:8080", "a.example.org"},
        {"a.example.org.", "a.example.org"},
        {"c.example.org", "*.example.org"},
        {"c.b.example.org", "*.b.example.org"},
        {"example.org", "*"},
        {".example.org", "*"},
        {"mail.example.com", "mail.*"},
        {"mail.x.com", "mail.x.*"},
        {"mail.example.org", "*.example.org"}, /* suffixes before prefixes */
        {"y-z.example.org", "*-z.example.org"},
        {"-z.example.org", "*.example.org"},
        {"other", "*"},
        {"", "*"},
        {"[::1]:80", "[::1]"},
    };
    hd_pool_t *pool = hd_pool_create(0);
    hd_err_t err = {0};
    hd_rc_t rc;
    hd_routes_t routes = table(pool, names, hd_countof(names), false, &rc, &err);

    is_int(rc, HD_OK, "built");
    for (size_t i = 0; i < hd_countof(rows); i++) {
        const hd_vhost_t *v =
            hd_routes_find_vhost(NULL, NULL, &routes, hd_str_c(rows[i].host));

        ok(v != NULL && hd_str_eq(v->name, hd_str_c(rows[i].vhost)), "%s -> %s",
           rows[i].host, rows[i].vhost);
    }

    table(pool, (const char *const[]){"a", "a"}, 2, false, &rc, &err);
    is_int(rc, HD_ERROR, "xDS: a domain twice is refused");
    is_str(err.text, "domain \"a\" stands twice in route table t");
    routes = table(pool, (const char *const[]){"a", "a"}, 2, true, &rc, &err);
    ok(rc == HD_OK &&
           hd_routes_find_vhost(NULL, NULL, &routes, HD_STR("a")) == &vhosts[0],
       "nginx: the first one wins");
    ok(hd_routes_find_vhost(NULL, NULL, &routes, HD_STR("b")) == NULL,
       "no default: none");
    hd_pool_destroy(pool);
    return done_testing();
}
