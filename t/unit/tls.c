/* hd_tls: handshakes between two conns: who is let in, who is told what, which names and
 * protocols come out. */
#include "tls_pair.h"

static cert_t root_a, root_b, server_cert, good;
static const hd_slot_t *server_slot, *trust_a, *good_slot;

static hd_tls_conf_t mesh_server(hd_tls_verify_t verify)
{
    hd_tls_conf_t conf = conf_of(&server_slot, 1, trust_a);

    conf.verify = verify;
    conf.is_mesh = true;
    return conf;
}

static hd_tls_conf_t mesh_client(const hd_slot_t *const *cert)
{
    hd_tls_conf_t conf = conf_of(cert, cert != NULL, trust_a);

    conf.is_mesh = true;
    return conf;
}

static void test_plain(void)
{
    hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_NONE), cc = mesh_client(NULL);
    const hd_tls_peer_t *peer;
    uint64_t handshakes = hd_tls_stats.handshakes;

    pair_start();
    ok(!hd_tls_is_on(client.c) && hd_tls_peer(client.c) == NULL &&
           hd_tls_peer_pem(client.c).len == 0,
       "a conn without TLS has no such facts");
    pair_stop();
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened && client.opened, "both open: '%s' '%s'", server.error,
       client.error);
    is_int(hd_tls_stats.handshakes - handshakes, 2, "both counted");
    side_send(&client, "ping");
    side_send(&server, "pong");
    turns(4);
    ok(hd_str_eq(server.in, HD_STR("ping")) && hd_str_eq(client.in, HD_STR("pong")));
    peer = hd_tls_peer(client.c);
    ok(hd_str_eq(peer->version, HD_STR("TLSv1.3")), "TLS 1.3");
    ok(hd_str_eq(peer->cipher, HD_STR("TLS_AES_128_GCM_SHA256")), "AES-GCM first");
    ok(peer->verified &&
           hd_str_eq(peer->spiffe_id, HD_STR("spiffe://td/ns/shop/sa/details")),
       "the server's identity");
    ok(hd_str_eq(client.c->facts->peer_principal,
                 HD_STR("spiffe://td/ns/shop/sa/details")));
    ok(hd_str_eq(server.c->facts->local_principal,
                 HD_STR("spiffe://td/ns/shop/sa/details")));
    ok(hd_str_eq(peer->subject, HD_STR("CN=details")) &&
           hd_str_eq(peer->issuer, HD_STR("CN=Root A")),
       "subject and issuer: %.*s, %.*s", HD_STR_ARG(peer->subject),
       HD_STR_ARG(peer->issuer));
    ok(peer->uri_sans_n == 1 && peer->dns_sans_n == 1 &&
       peer->fingerprint_sha256.len == 64);
    ok(hd_str_has_prefix(hd_tls_peer_pem(client.c), HD_STR("-----BEGIN CERTIFICATE")));
    peer = hd_tls_peer(server.c);
    ok(!peer->verified && peer->spiffe_id.len == 0 && peer->subject.len == 0,
       "a client without a certificate is nobody");
    is_int(server.c->facts->peer_principal.len, 0);
    pair_stop();
}

/* Issue: a peer certificate that is expired, of another root, with no or two SPIFFE IDs.
 */
static void test_clients(void)
{
    static const char good_uri[] = "spiffe://td/ns/shop/sa/page";
    cert_t inter = cert_make(
        &(cert_spec_t){.by = &root_a, .subject = "Intermediate", .is_ca = true});
    const struct {
        const char *name;
        cert_spec_t spec;
        const char *server_says; /* NULL: let in */
        const char *client_says; /* part of the alert */
    } rows[] = {
        {"good", {.by = &root_a, .uris = {good_uri}}, NULL, NULL},
        {"good, RSA", {.by = &root_a, .uris = {good_uri}, .type = "RSA"}, NULL, NULL},
        {"good, Ed25519",
         {.by = &root_a, .uris = {good_uri}, .type = "ED25519"},
         NULL,
         NULL},
        {"good, by an intermediate", {.by = &inter, .uris = {good_uri}}, NULL, NULL},
        {"for clients",
         {.by = &root_a, .uris = {good_uri}, .eku = "clientAuth"},
         NULL,
         NULL},
        {"for servers only",
         {.by = &root_a, .uris = {good_uri}, .eku = "serverAuth"},
         "isn't made for a TLS client",
         "unsupported certificate"},
        {"expired",
         {.by = &root_a, .uris = {good_uri}, .from_s = -7200, .to_s = -60},
         "peer certificate expired on 2",
         "certificate expired"},
        {"of the future",
         {.by = &root_a, .uris = {good_uri}, .from_s = 3600, .to_s = 7200},
         "not valid before 2",
         "bad certificate"},
        {"another root",
         {.by = &root_b, .uris = {good_uri}},
         "unknown issuer CN=Root B",
         "unknown CA"},
        {"self-signed",
         {.subject = "me", .uris = {good_uri}},
         "unknown issuer CN=me",
         "CA"},
        {"no SPIFFE ID",
         {.by = &root_a, .dns = {"page"}},
         "no SPIFFE ID",
         "bad certificate"},
        {"another scheme",
         {.by = &root_a, .uris = {"https://td/ns/shop/sa/page"}},
         "no SPIFFE ID",
         "bad certificate"},
        {"two SPIFFE IDs",
         {.by = &root_a, .uris = {good_uri, "spiffe://td/ns/shop/sa/admin"}},
         "2 SPIFFE IDs",
         "bad certificate"},
        {"a second URI",
         {.by = &root_a, .uris = {good_uri, "https://td/"}},
         "2 URI names",
         "bad certificate"},
        {"a NUL in the URI",
         {.by = &root_a,
          .raw_uri = "spiffe://td/ns/shop/sa/page\0.evil",
          .raw_uri_len = 33},
         "zero byte",
         "bad certificate"},
        {"a NUL in a DNS name beside",
         {.by = &root_a, .uris = {good_uri}, .raw_dns = "a\0b", .raw_dns_len = 3},
         "zero byte",
         "bad certificate"},
        {"an upper-case scheme",
         {.by = &root_a, .uris = {"SPIFFE://td/ns/shop/sa/page"}},
         "no valid SPIFFE ID",
         "bad certificate"},
        {"a dot segment",
         {.by = &root_a, .uris = {"spiffe://td/ns/shop/../admin"}},
         "no valid SPIFFE ID",
         "bad certificate"},
    };

    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (size_t i = 0; i < hd_countof(rows); i++) {
            const char *v = version == TLS1_3_VERSION ? "1.3" : "1.2";
            cert_t cert = cert_make(&rows[i].spec);
            const hd_slot_t *slot = secret_cert("client", &cert);
            hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_REQUIRED),
                          cc = mesh_client(&slot);
            uint64_t failed = hd_tls_stats.failed;

            cc.version_max = (uint16_t)version;
            pair_handshake(&sc, &cc, NULL);
            if (rows[i].server_says == NULL) {
                ok(server.opened && client.opened, "TLS %s, %s: let in ('%s' '%s')", v,
                   rows[i].name, server.error, client.error);
                ok(server.c != NULL &&
                       hd_str_eq(server.c->facts->peer_principal, hd_str_c(good_uri)),
                   "... as itself");
            } else {
                ok(!server.opened && strstr(server.error, rows[i].server_says) != NULL,
                   "TLS %s, %s: server: %s", v, rows[i].name, server.error);
                ok(client.closed && strstr(client.error, rows[i].client_says) != NULL,
                   "... client: %s", client.error);
                ok(hd_tls_stats.failed > failed, "... counted");
            }
            pair_stop();
            cert_free(&cert);
        }
    cert_free(&inter);
}

static void test_verify_modes(void)
{
    const hd_slot_t *expired_slot;
    cert_t expired = cert_make(&(cert_spec_t){
        .by = &root_a, .uris = {"spiffe://td/ns/a/sa/b"}, .from_s = -7200, .to_s = -60});
    hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_REQUIRED), cc = mesh_client(NULL);

    pair_handshake(&sc, &cc, NULL);
    ok(!server.opened &&
           strstr(server.error, "no certificate, and one is required") != NULL,
       "required: %s", server.error);
    ok(client.closed && strstr(client.error, "certificate required") != NULL,
       "client: %s", client.error);
    pair_stop();

    sc = mesh_server(HD_TLS_VERIFY_OPTIONAL);
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened && client.opened && !hd_tls_peer(server.c)->verified,
       "optional: none");
    pair_stop();
    cc = mesh_client(&good_slot);
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened && hd_str_eq(server.c->facts->peer_principal,
                                  HD_STR("spiffe://td/ns/shop/sa/page")),
       "optional: a good one");
    ok(client.c != NULL && hd_str_eq(client.c->facts->local_principal,
                                     HD_STR("spiffe://td/ns/shop/sa/page")),
       "the client knows who it is");
    pair_stop();
    expired_slot = secret_cert("expired", &expired);
    cc = mesh_client(&expired_slot);
    pair_handshake(&sc, &cc, NULL);
    ok(!server.opened && strstr(server.error, "expired") != NULL,
       "optional: a bad one is refused all the same");
    pair_stop();

    sc = mesh_server(HD_TLS_VERIFY_NONE);
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened && server.c->facts->peer_principal.len == 0 &&
           !hd_tls_peer(server.c)->verified,
       "none: nobody looks at it, so it counts for nobody");
    pair_stop();
    cert_free(&expired);
}

/* Outside the mesh: two SPIFFE IDs are nobody's where none is required. */
static void test_not_mesh(void)
{
    cert_t two = cert_make(&(cert_spec_t){
        .by = &root_a, .uris = {"spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c"}});
    cert_t dns = cert_make(&(cert_spec_t){.by = &root_a, .dns = {"page.example"}});
    const hd_slot_t *two_slot = secret_cert("two", &two),
                    *dns_slot = secret_cert("dns", &dns);
    hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_OPTIONAL), cc = mesh_client(&two_slot);

    sc.is_mesh = cc.is_mesh = false;
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened && server.c->facts->peer_principal.len == 0 &&
           hd_tls_peer(server.c)->uri_sans_n == 2,
       "optional, two SPIFFE IDs: nobody");
    pair_stop();
    sc.verify = HD_TLS_VERIFY_REQUIRED;
    pair_handshake(&sc, &cc, NULL);
    ok(!server.opened && strstr(server.error, "2 SPIFFE IDs") != NULL,
       "required: refused");
    pair_stop();
    cc = mesh_client(&dns_slot);
    cc.is_mesh = false;
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened && server.c->facts->peer_principal.len == 0 &&
           hd_tls_peer(server.c)->verified,
       "required, no SPIFFE ID: verified, without a principal");
    pair_stop();
    cert_free(&two);
    cert_free(&dns);
}

/* What a client looks for in the server's certificate. */
static void test_server_names(void)
{
    cert_t cert = cert_make(&(cert_spec_t){.by = &root_a,
                                           .subject = "cn.example",
                                           .uris = {"spiffe://td/ns/shop/sa/details"},
                                           .dns = {"details.example", "*.wild.example"},
                                           .ip = "127.0.0.7"});
    cert_t trick = cert_make(&(cert_spec_t){.by = &root_a,
                                            .dns = {"spiffe://td/ns/shop/sa/details"},
                                            .uris = {"spiffe://td/x"}});
    const struct {
        const char *name, *host, *san;
        hd_match_kind_t kind;
        bool good, is_trick;
    } rows[] = {
        {"host", "details.example", NULL, 0, true, false},
        {"host, other case", "Details.Example", NULL, 0, true, false},
        {"host by wildcard", "a.wild.example", NULL, 0, true, false},
        {"two labels under a wildcard", "a.b.wild.example", NULL, 0, false, false},
        {"another host", "evil.example", NULL, 0, false, false},
        {"the common name doesn't count", "cn.example", NULL, 0, false, false},
        {"an address", "127.0.0.7", NULL, 0, true, false},
        {"another address", "127.0.0.8", NULL, 0, false, false},
        {"exact URI", NULL, "spiffe://td/ns/shop/sa/details", HD_MATCH_EXACT, true,
         false},
        {"a prefix taken as exact", NULL, "spiffe://td/ns/shop/sa/detail", HD_MATCH_EXACT,
         false, false},
        {"prefix", NULL, "spiffe://td/", HD_MATCH_PREFIX, true, false},
        {"another trust domain", NULL, "spiffe://te/", HD_MATCH_PREFIX, false, false},
        {"regex", NULL, "spiffe://[^/]+/ns/shop/sa/.*", HD_MATCH_REGEX, true, false},
        {"regex for the whole", NULL, "spiffe://td", HD_MATCH_REGEX, false, false},
        {"DNS", NULL, "details.example", HD_MATCH_EXACT, true, false},
        {"DNS by wildcard", NULL, "b.wild.example", HD_MATCH_EXACT, true, false},
        {"an address as SAN", NULL, "127.0.0.7", HD_MATCH_EXACT, true, false},
        {"a URI in a DNS name", NULL, "spiffe://td/ns/shop/sa/details", HD_MATCH_EXACT,
         false, true},
        {"sans and the host", "details.example", "spiffe://td/", HD_MATCH_PREFIX, true,
         false},
        {"sans, another host", "evil.example", "spiffe://td/", HD_MATCH_PREFIX, false,
         false},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        const hd_slot_t *slot = secret_cert("named", rows[i].is_trick ? &trick : &cert);
        hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_NONE), cc = mesh_client(NULL);
        hd_match_t san = {.kind = (uint8_t)rows[i].kind};
        hd_tls_client_t ask = {.verify_host = hd_str_c(rows[i].host)};

        sc.certs = &slot;
        san.text = hd_str_c(rows[i].san);
        cc.sans = &san;
        cc.sans_n = rows[i].san != NULL;
        pair_handshake(&sc, &cc, i % 2 != 0 ? &ask : NULL);
        if (i % 2 == 0) { /* the same from the settings */
            pair_stop();
            cc.verify_host = hd_str_c(rows[i].host);
            pair_handshake(&sc, &cc, NULL);
        }
        is_int(client.opened, rows[i].good, "%s: %s", rows[i].name, client.error);
        if (!rows[i].good)
            ok(strstr(server.error, "bad certificate") != NULL, "... alert: %s",
               server.error);
        pair_stop();
    }
    cert_free(&cert);
    cert_free(&trick);
}

static void test_alpn(void)
{
    static const struct {
        const char *server, *client, *chosen; /* NULL: no handshake */
        bool skips_unknown;
    } rows[] = {
        {"\x02h2\x08http/1.1", "\x08http/1.1\x02h2", "h2", false},
        {"\x08http/1.1\x02h2", "\x02h2\x08http/1.1", "http/1.1", false},
        {"\x02h2\x08http/1.1", "\x08http/1.1", "http/1.1", false},
        {"\x02h2\x08http/1.1", "", "", false},
        {"", "\x02h2", "", false},
        {"\x02h2", "\x08http/1.1", NULL, false},
        {"\x02h2", "\x05istio", "", true},
        {"\x0eistio-http/1.1\x05istio", "\x05istio", "istio", true},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_NONE), cc = mesh_client(NULL);

        sc.skips_unknown_alpn = rows[i].skips_unknown;
        sc.alpn = hd_str_c(rows[i].server);
        cc.alpn = hd_str_c(rows[i].client);
        pair_handshake(&sc, &cc, NULL);
        if (rows[i].chosen != NULL) {
            is_str(server.alpn, rows[i].chosen, "ALPN, row %zu: server", i);
            is_str(client.alpn, rows[i].chosen, "... client");
            ok(server.opened && client.opened);
        } else {
            ok(!server.opened && strstr(client.error, "no application protocol") != NULL,
               "nothing in common: %s (RFC 7301 3.2)", client.error);
        }
        pair_stop();
    }
    {
        hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_NONE), cc = mesh_client(NULL);
        hd_tls_client_t ask = {.alpn = HD_STR("\x02h2")};

        sc.alpn = HD_STR("\x08http/1.1\x02h2");
        cc.alpn = HD_STR("\x08http/1.1");
        pair_handshake(&sc, &cc, &ask);
        is_str(client.alpn, "h2", "what the conn asks for goes before the settings");
        pair_stop();
    }
}

static void test_sni(void)
{
    cert_t one = cert_make(&(cert_spec_t){.by = &root_a, .dns = {"one.example"}});
    cert_t two = cert_make(&(cert_spec_t){.by = &root_a, .dns = {"*.two.example"}});
    cert_t two_rsa =
        cert_make(&(cert_spec_t){.by = &root_a, .dns = {"*.two.example"}, .type = "RSA"});
    const hd_slot_t *slots[] = {secret_cert("one", &one), secret_cert("two", &two),
                                secret_cert("two-rsa", &two_rsa), secret_absent("later")};
    static const struct {
        const char *sni, *names, *ciphers;
    } rows[] = {
        {"one.example", "one.example", NULL},
        {"a.two.example", "*.two.example", NULL},
        {"A.Two.Example", "*.two.example", NULL},
        {"other.example", "one.example", NULL}, /* the first is for the rest */
        {"", "one.example", NULL},
        {"127.0.0.1", "one.example", NULL},
        {"a.two.example", "*.two.example", "ECDHE-RSA-AES128-GCM-SHA256"},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_tls_conf_t sc = conf_of(slots, hd_countof(slots), NULL),
                      cc = mesh_client(NULL);
        const hd_tls_peer_t *peer;

        cc.is_mesh = false;
        cc.sni = HD_STR("default.example");
        if (rows[i].ciphers != NULL) {
            cc.ciphers = hd_str_c(rows[i].ciphers);
            cc.version_max = TLS1_2_VERSION;
        }
        pair_handshake(&sc, &cc, &(hd_tls_client_t){.sni = hd_str_c(rows[i].sni)});
        peer = client.opened ? hd_tls_peer(client.c) : NULL;
        ok(peer != NULL && peer->dns_sans_n == 1 &&
               hd_str_eq(peer->dns_sans[0], hd_str_c(rows[i].names)),
           "SNI '%s': %s %s", rows[i].sni, rows[i].names, client.error);
        if (i == 2)
            ok(hd_str_eq(server.c->facts->sni, HD_STR("a.two.example")), "in lower case");
        if (i == 4)
            ok(hd_str_eq(server.c->facts->sni, HD_STR("default.example")),
               "the settings' name if none is asked for");
        if (i == 5)
            is_int(server.c->facts->sni.len, 0, "an address isn't sent (RFC 6066 3)");
        pair_stop();
    }
    cert_free(&one);
    cert_free(&two);
    cert_free(&two_rsa);
}

static void test_revoked(void)
{
    char *empty = cert_crl(&root_a, NULL), *full = cert_crl(&root_a, &good);
    hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_REQUIRED), cc = mesh_client(&good_slot);
    const hd_slot_t *slot = secret_set("crl", NULL, NULL, root_a.chain_pem, empty);

    sc.trust = slot;
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened, "an empty revocation list: let in");
    pair_stop();
    secret_set("crl", NULL, NULL, root_a.chain_pem, full);
    pair_handshake(&sc, &cc, NULL);
    ok(!server.opened && strstr(server.error, "revoked") != NULL, "revoked: %s",
       server.error);
    ok(strstr(client.error, "certificate revoked") != NULL, "alert: %s", client.error);
    pair_stop();
    free(empty);
    free(full);
}

/* An intermediate among the roots is no root: paths end in one that signed itself. */
static void test_partial_chain(void)
{
    cert_t inter = cert_make(
        &(cert_spec_t){.by = &root_a, .subject = "Intermediate", .is_ca = true});
    cert_t leaf =
        cert_make(&(cert_spec_t){.by = &inter, .uris = {"spiffe://td/ns/shop/sa/page"}});
    cert_t deep_ca =
        cert_make(&(cert_spec_t){.by = &inter, .subject = "Deep", .is_ca = true});
    cert_t deep = cert_make(&(cert_spec_t){.by = &deep_ca, .uris = {"spiffe://td/deep"}});
    const hd_slot_t *leaf_slot = secret_cert("leaf", &leaf);
    const hd_slot_t *inter_slot = secret_trust("inter", &inter);
    const hd_slot_t *deep_slot;
    hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_REQUIRED), cc = mesh_client(&leaf_slot);
    char chain[8192];

    sc.trust =
        secret_set("only-inter", NULL, NULL, strstr(inter.chain_pem, "-----BEGIN"), NULL);
    pair_handshake(&sc, &cc, NULL);
    ok(!server.opened && strstr(server.error, "unknown issuer CN=Root A") != NULL,
       "an intermediate alone isn't trusted: %s", server.error);
    pair_stop();
    (void)inter_slot;

    snprintf(chain, sizeof(chain), "%s%s", deep.chain_pem, inter.chain_pem);
    deep_slot = secret_set("deep", chain, deep.key_pem, NULL, NULL);
    sc = mesh_server(HD_TLS_VERIFY_REQUIRED);
    cc = mesh_client(&deep_slot);
    pair_handshake(&sc, &cc, NULL);
    ok(server.opened, "two intermediates: let in: %s", server.error);
    pair_stop();
    sc.verify_depth = 1;
    pair_handshake(&sc, &cc, NULL);
    ok(!server.opened, "deeper than verify_depth: %s", server.error);
    pair_stop();
    cert_free(&inter);
    cert_free(&leaf);
    cert_free(&deep_ca);
    cert_free(&deep);
}

static void test_settings(void)
{
    const struct {
        const char *name;
        hd_tls_conf_t conf;
        bool is_server;
        const char *says; /* NULL: fine */
    } rows[] = {
        {"defaults", {0}, true, NULL},
        {"ciphers of BoringSSL",
         {.ciphers = HD_STR_INIT("[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-"
                                 "POLY1305]:ECDHE-RSA-AES128-GCM-SHA256")},
         true,
         NULL},
        {"no such cipher", {.ciphers = HD_STR_INIT("NONSENSE")}, true, "\"NONSENSE\""},
        {"no such suite", {.ciphersuites = HD_STR_INIT("TLS_X")}, true, "\"TLS_X\""},
        {"no such group", {.groups = HD_STR_INIT("P-257")}, false, "\"P-257\""},
        {"versions the wrong way",
         {.version_min = TLS1_3_VERSION, .version_max = TLS1_2_VERSION},
         false,
         "0x0304 to 0x0303"},
        {"a damaged ALPN list", {.alpn = HD_STR_INIT("\x09h2")}, false, "byte 0 of 3"},
        {"SANs without roots",
         {.sans = &(hd_match_t){.kind = HD_MATCH_ANY}, .sans_n = 1},
         false,
         "trusted roots"},
        {"a damaged regex",
         {.trust = trust_a,
          .sans = &(hd_match_t){.kind = HD_MATCH_REGEX, .text = HD_STR_INIT("a(")},
          .sans_n = 1},
         false,
         "a("},
        {"verify without roots", {.verify = HD_TLS_VERIFY_REQUIRED}, true, "which roots"},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_err_t err = {0};
        hd_rc_t rc = hd_tls_conf_check(&rows[i].conf, rows[i].is_server, &err);

        ok(rows[i].says == NULL
               ? rc == HD_OK
               : rc == HD_ERROR && strstr(err.text, rows[i].says) != NULL,
           "%s: %s", rows[i].name, err.text);
    }
}

static void test_disagreements(void)
{
    hd_tls_conf_t sc = mesh_server(HD_TLS_VERIFY_NONE), cc = mesh_client(NULL);
    const hd_slot_t *absent = secret_absent("not-yet");

    sc.version_min = TLS1_3_VERSION;
    cc.version_max = TLS1_2_VERSION;
    pair_handshake(&sc, &cc, NULL);
    ok(!server.opened && strstr(server.error, "no TLS version") != NULL, "%s",
       server.error);
    ok(strstr(client.error, "protocol version") != NULL, "%s", client.error);
    pair_stop();

    sc = mesh_server(HD_TLS_VERIFY_NONE);
    sc.certs = &absent;
    pair_handshake(&sc, &cc, NULL);
    ok(strstr(server.error, "'not-yet' isn't there") != NULL, "%s", server.error);
    pair_stop();

    sc = mesh_server(HD_TLS_VERIFY_NONE);
    cc.trust = absent;
    pair_handshake(&sc, &cc, NULL);
    ok(strstr(client.error, "'not-yet' isn't there") != NULL, "%s", client.error);
    pair_stop();
}

static void test_hash(void)
{
    hd_tls_conf_t a = mesh_server(HD_TLS_VERIFY_NONE), b = a;
    hd_match_t san = {.kind = HD_MATCH_PREFIX, .text = HD_STR("x")};

    hd_tls_conf_seal(&a);
    hd_tls_conf_seal(&b);
    ok(a.hash != 0 && a.hash == b.hash, "equal settings, equal hash");
    b.verify = HD_TLS_VERIFY_OPTIONAL;
    hd_tls_conf_seal(&b);
    ok(a.hash != b.hash, "another way to verify");
    b = a;
    b.sans = &san;
    b.sans_n = 1;
    hd_tls_conf_seal(&b);
    ok(a.hash != b.hash, "names to look for");
    b = a;
    b.certs = &good_slot;
    hd_tls_conf_seal(&b);
    ok(a.hash != b.hash, "another certificate's name");
}

int main(void)
{
    loom_start();
    root_a = cert_root("Root A");
    root_b = cert_root("Root B");
    server_cert = cert_make(&(cert_spec_t){.by = &root_a,
                                           .subject = "details",
                                           .uris = {"spiffe://td/ns/shop/sa/details"},
                                           .dns = {"details"}});
    good =
        cert_make(&(cert_spec_t){.by = &root_a, .uris = {"spiffe://td/ns/shop/sa/page"}});
    server_slot = secret_cert("server", &server_cert);
    good_slot = secret_cert("good", &good);
    trust_a = secret_trust("root-a", &root_a);

    test_plain();
    test_clients();
    test_verify_modes();
    test_not_mesh();
    test_server_names();
    test_alpn();
    test_sni();
    test_revoked();
    test_partial_chain();
    test_settings();
    test_disagreements();
    test_hash();

    loom_stop();
    cert_free(&root_a);
    cert_free(&root_b);
    cert_free(&server_cert);
    cert_free(&good);
    return done_testing();
}
