/* Which filter chain a conn gets: Envoy's order of criteria, the most specific first, no
 * way back (xds-resources, "Selection algorithms"; FilterChainMatch). */
#include "core/net/hd_listener.h"
#include "tap.h"

#define NAMES(...)                                                                       \
    .server_names = (const hd_str_t[]){__VA_ARGS__},                                     \
    .server_names_n = sizeof((const hd_str_t[]){__VA_ARGS__}) / sizeof(hd_str_t)
#define APPS(...)                                                                        \
    .app_protocols = (const hd_str_t[]){__VA_ARGS__},                                    \
    .app_protocols_n = sizeof((const hd_str_t[]){__VA_ARGS__}) / sizeof(hd_str_t)
#define S(x) HD_STR_INIT(x)

typedef struct {
    const char *what;
    const char *dst, *src; /* "1.2.3.4:80" */
    const char *direct;    /* NULL: as src */
    const char *sni, *transport, *app, *alpn;
    const char *want; /* the chain's name; NULL: none */
} row_t;

static hd_addr_t addr(const char *text)
{
    hd_addr_t a;

    if (hd_addr_parse(NULL, hd_str_c(text), 0, &a, NULL) != HD_OK) {
        diag("%s", text);
        exit(1);
    }
    return a;
}

static hd_cidr_t cidr(const char *text)
{
    hd_cidr_t c;

    if (!hd_cidr_parse(hd_str_c(text), &c))
        exit(1);
    return c;
}

static void check(const hd_listener_t *l, const row_t *rows, size_t n)
{
    for (const row_t *r = rows; r < rows + n; r++) {
        hd_addr_t src = addr(r->src);
        hd_conn_facts_t facts = {.original_dst = addr(r->dst),
                                 .sni = hd_str_c(r->sni),
                                 .transport = hd_str_c(r->transport),
                                 .app_protocol = hd_str_c(r->app),
                                 .offered_alpn = hd_str_c(r->alpn)};
        hd_proxied_t proxied = {.remote = src};
        hd_conn_t c = {.facts = &facts, .remote = src};
        const hd_filter_chain_t *chain;

        if (r->direct != NULL) {
            facts.proxied = &proxied;
            c.remote = addr(r->direct);
        }
        chain = hd_listener_match(l, &c);
        is_str(chain != NULL ? chain->name.data : NULL, r->want, "%s", r->what);
    }
}

#define CHECK(l, rows) check(&(l), rows, sizeof(rows) / sizeof(rows[0]))

static void test_ports_and_addresses(void)
{
    hd_cidr_t net8 = cidr("10.0.0.0/8"), net16 = cidr("10.1.0.0/16"),
              all = cidr("0.0.0.0/0"), v6 = cidr("fd00::/8");
    const hd_filter_chain_t chains[] = {
        {.name = S("any")},
        {.name = S("p80"), .match = {.destination_port = 80}},
        {.name = S("p90-net16"),
         .match = {.destination_port = 90, .destinations = &net16, .destinations_n = 1}},
        {.name = S("net8"), .match = {.destinations = &net8, .destinations_n = 1}},
        {.name = S("net16"), .match = {.destinations = &net16, .destinations_n = 1}},
        {.name = S("v6"), .match = {.destinations = &v6, .destinations_n = 1}},
        {.name = S("p91-all"),
         .match = {.destination_port = 91, .destinations = &all, .destinations_n = 1}},
    };
    const hd_filter_chain_t fallback = {.name = S("default")};
    hd_listener_t l = {.chains = chains, .chains_n = 7};
    const row_t rows[] = {
        {"no criterion", "9.9.9.9:1", "1.1.1.1:1", .want = "any"},
        {"the port comes first", "10.1.0.1:80", "1.1.1.1:1", .want = "p80"},
        {"then the longest prefix", "10.1.0.1:1", "1.1.1.1:1", .want = "net16"},
        {"a shorter one", "10.2.0.1:1", "1.1.1.1:1", .want = "net8"},
        {"v6", "[fd00::1]:1", "1.1.1.1:1", .want = "v6"},
        {"v4-mapped v6 counts as v4", "[::ffff:10.1.0.1]:1", "1.1.1.1:1",
         .want = "net16"},
        {"port and prefix", "10.1.0.1:90", "1.1.1.1:1", .want = "p90-net16"},
        {"no way back once the port matched", "10.2.0.1:90", "1.1.1.1:1", .want = NULL},
        {"0.0.0.0/0 is any IPv4", "9.9.9.9:91", "1.1.1.1:1", .want = "p91-all"},
        {"but not IPv6", "[fd00::1]:91", "1.1.1.1:1", .want = NULL},
    };
    const row_t with_default[] = {
        {"the default chain instead", "10.2.0.1:90", "1.1.1.1:1", .want = "default"},
    };

    CHECK(l, rows);
    l.default_chain = &fallback;
    CHECK(l, with_default);
}

static void test_names(void)
{
    const hd_filter_chain_t chains[] = {
        {.name = S("exact"), .match = {NAMES(S("a.b.example"), S("c.example"))}},
        {.name = S("*.b.example"), .match = {NAMES(S("*.b.example"))}},
        {.name = S("*.example"), .match = {NAMES(S("*.example"))}},
        {.name = S("none")},
    };
    hd_listener_t l = {.chains = chains, .chains_n = 4};
    const row_t rows[] = {
        {"exact", "1.1.1.1:1", "2.2.2.2:1", .sni = "a.b.example", .want = "exact"},
        {"its second", "1.1.1.1:1", "2.2.2.2:1", .sni = "c.example", .want = "exact"},
        {"longest suffix", "1.1.1.1:1", "2.2.2.2:1", .sni = "x.b.example",
         .want = "*.b.example"},
        {"over several labels", "1.1.1.1:1", "2.2.2.2:1", .sni = "x.y.b.example",
         .want = "*.b.example"},
        {"a shorter suffix", "1.1.1.1:1", "2.2.2.2:1", .sni = "b.example",
         .want = "*.example"},
        {"the bare domain is no part of its wildcard", "1.1.1.1:1", "2.2.2.2:1",
         .sni = "example", .want = "none"},
        {"nor what only ends alike", "1.1.1.1:1", "2.2.2.2:1", .sni = "notexample",
         .want = "none"},
        {"none sent", "1.1.1.1:1", "2.2.2.2:1", .want = "none"},
    };
    const hd_filter_chain_t strict[] = {
        {.name = S("name"), .match = {NAMES(S("a.example")), .transport = S("tls")}},
        {.name = S("any"), .match = {.transport = S("raw_buffer")}},
    };
    hd_listener_t ls = {.chains = strict, .chains_n = 2};
    const row_t strict_rows[] = {
        {"no way back once the name matched", "1.1.1.1:1", "2.2.2.2:1",
         .sni = "a.example", .transport = "raw_buffer", .want = NULL},
        {"VS-TLS-7: another name, no chain", "1.1.1.1:1", "2.2.2.2:1", .sni = "b.example",
         .transport = "tls", .want = NULL},
    };

    CHECK(l, rows);
    CHECK(ls, strict_rows);
}

/* What istiod writes for one port: PA-11 (permissive) and PA-12 (strict). */
static void test_permissive(void)
{
    const hd_filter_chain_t http[] = {
        {.name = S("mtls"),
         .match = {.destination_port = 80,
                   .transport = S("tls"),
                   APPS(S("istio"), S("istio-peer-exchange"), S("istio-http/1.0"),
                        S("istio-http/1.1"), S("istio-h2"))}},
        {.name = S("plain"),
         .match = {.destination_port = 80, .transport = S("raw_buffer")}},
        {.name = S("auto-mtls"),
         .match = {.destination_port = 81,
                   .transport = S("tls"),
                   APPS(S("istio-http/1.0"), S("istio-http/1.1"), S("istio-h2"))}},
        {.name = S("auto-http"),
         .match = {.destination_port = 81,
                   .transport = S("raw_buffer"),
                   APPS(S("http/1.1"), S("h2c"))}},
        {.name = S("auto-mtls-tcp"),
         .match = {.destination_port = 81,
                   .transport = S("tls"),
                   APPS(S("istio-peer-exchange"), S("istio"))}},
        {.name = S("auto-tcp"),
         .match = {.destination_port = 81, .transport = S("raw_buffer")}},
        {.name = S("auto-passthrough"),
         .match = {.destination_port = 81, .transport = S("tls")}},
        {.name = S("passthrough"), .match = {.transport = S("raw_buffer")}},
    };
    hd_listener_t l = {.chains = http, .chains_n = 8};
    const row_t rows[] = {
        {"PA-11: mesh ALPN", "1.1.1.1:80", "2.2.2.2:1", .transport = "tls",
         .alpn = "\x08istio-h2\x05istio", .want = "mtls"},
        {"PA-11: plain text", "1.1.1.1:80", "2.2.2.2:1", .transport = "raw_buffer",
         .want = "plain"},
        {"plain text without an inspector is raw_buffer too", "1.1.1.1:80", "2.2.2.2:1",
         .want = "plain"},
        {"PA-11: any other TLS at an HTTP port: no chain", "1.1.1.1:80", "2.2.2.2:1",
         .transport = "tls", .alpn = "\x02h2\x08http/1.1", .want = NULL},
        {"no ALPN", "1.1.1.1:80", "2.2.2.2:1", .transport = "tls", .want = NULL},
        {"detected port: mesh HTTP", "1.1.1.1:81", "2.2.2.2:1", .transport = "tls",
         .alpn = "\x0eistio-http/1.1", .want = "auto-mtls"},
        {"the client's first choice counts", "1.1.1.1:81", "2.2.2.2:1",
         .transport = "tls", .alpn = "\x13istio-peer-exchange\x08istio-h2",
         .want = "auto-mtls-tcp"},
        {"whichever chain stands first", "1.1.1.1:81", "2.2.2.2:1", .transport = "tls",
         .alpn = "\x08istio-h2\x13istio-peer-exchange", .want = "auto-mtls"},
        {"detected HTTP", "1.1.1.1:81", "2.2.2.2:1", .transport = "raw_buffer",
         .app = "http/1.1", .want = "auto-http"},
        {"HTTP/1.0 is not in the list", "1.1.1.1:81", "2.2.2.2:1",
         .transport = "raw_buffer", .app = "http/1.0", .want = "auto-tcp"},
        {"undetected", "1.1.1.1:81", "2.2.2.2:1", .transport = "raw_buffer",
         .want = "auto-tcp"},
        {"other TLS passes through", "1.1.1.1:81", "2.2.2.2:1", .transport = "tls",
         .alpn = "\x02h2", .want = "auto-passthrough"},
        {"an ALPN list cut short is no harm", "1.1.1.1:81", "2.2.2.2:1",
         .transport = "tls", .alpn = "\x20istio-h2", .want = "auto-passthrough"},
        {"another port", "1.1.1.1:82", "2.2.2.2:1", .transport = "raw_buffer",
         .want = "passthrough"},
    };

    CHECK(l, rows);
}

static void test_sources(void)
{
    hd_cidr_t lb = cidr("192.168.0.0/16"), net = cidr("10.0.0.0/8"),
              host = cidr("10.0.0.7/32");
    const uint16_t ports[] = {1000, 2000};
    const hd_filter_chain_t chains[] = {
        {.name = S("lb"), .match = {.direct_sources = &lb, .direct_sources_n = 1}},
        {.name = S("local"), .match = {.source_type = 1}},
        {.name = S("external-net"),
         .match = {.source_type = 2, .sources = &net, .sources_n = 1}},
        {.name = S("external-host-port"),
         .match = {.source_type = 2,
                   .sources = &host,
                   .sources_n = 1,
                   .source_ports = ports,
                   .source_ports_n = 2}},
        {.name = S("external-host"),
         .match = {.source_type = 2, .sources = &host, .sources_n = 1}},
    };
    hd_listener_t l = {.chains = chains, .chains_n = 5};
    const row_t rows[] = {
        {"the socket's source goes before the announced one", "1.1.1.1:1", "10.0.0.7:1",
         .direct = "192.168.3.4:5", .want = "lb"},
        {"loopback", "1.1.1.1:1", "127.0.0.9:1", .want = "local"},
        {"our own address", "10.0.0.7:1", "10.0.0.7:5", .want = "local"},
        {"external by prefix", "1.1.1.1:1", "10.0.0.8:1", .want = "external-net"},
        {"a longer prefix", "1.1.1.1:1", "10.0.0.7:1", .want = "external-host"},
        {"and a port", "1.1.1.1:1", "10.0.0.7:2000", .want = "external-host-port"},
        {"outside", "1.1.1.1:1", "11.0.0.1:1", .want = NULL},
        {"an announced source is the source", "1.1.1.1:1", "10.0.0.8:1",
         .direct = "12.0.0.1:1", .want = "external-net"},
    };

    CHECK(l, rows);
}

static void test_many(void)
{
    enum { N = 3000 };
    static hd_filter_chain_t chains[N];
    static char names[N][32];
    static hd_str_t strs[N];
    hd_listener_t l = {.chains = chains, .chains_n = N};
    int wrong = 0;

    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "host%d.example", i);
        strs[i] = hd_str_c(names[i]);
        chains[i] = (hd_filter_chain_t){
            .name = strs[i], .match = {.server_names = &strs[i], .server_names_n = 1}};
    }
    for (int i = 0; i < N; i += 100) {
        hd_conn_facts_t facts = {.sni = strs[i]};
        hd_conn_t c = {.facts = &facts};

        wrong += hd_listener_match(&l, &c) != &chains[i];
    }
    is_int(wrong, 0, "a gateway with 3,000 names");
}

int main(void)
{
    test_ports_and_addresses();
    test_names();
    test_permissive();
    test_sources();
    test_many();
    return done_testing();
}
