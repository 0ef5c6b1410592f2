/* hd_tls: what is resumed and what isn't: across settings, identities, roots, peers and
 * expiry; and that a rotated certificate is used by the next handshake. */
#include "tls_pair.h"
#include "core/base/hd_map.h"

static cert_t root_a, root_b, server_cert, client_cert;
static const hd_slot_t *server_slot, *client_slot, *trust;

static hd_tls_conf_t server_conf(void)
{
    hd_tls_conf_t conf = conf_of(&server_slot, 1, trust);

    conf.verify = HD_TLS_VERIFY_REQUIRED;
    conf.is_mesh = true;
    return conf;
}

static hd_tls_conf_t client_conf(int version)
{
    hd_tls_conf_t conf = conf_of(&client_slot, 1, trust);

    conf.is_mesh = true;
    conf.version_max = (uint16_t)version;
    return conf;
}

/* A handshake and an exchange, which brings TLS 1.3's tickets; whether it was resumed. */
static bool meet(const hd_tls_conf_t *sc, const hd_tls_conf_t *cc, const char *key)
{
    hd_tls_client_t ask = {.session_key = hd_str_c(key)};
    bool resumed;

    pair_handshake(sc, cc, &ask);
    if (!server.opened || !client.opened) {
        diag("%s / %s", server.error, client.error);
        pair_stop();
        return false;
    }
    side_send(&server, "x");
    turns(3);
    resumed = hd_tls_peer(server.c)->resumed;
    if (resumed != hd_tls_peer(client.c)->resumed)
        diag("the two sides differ");
    pair_stop();
    return resumed;
}

static void test_resumes(int version)
{
    hd_tls_conf_t sc = server_conf(), cc = client_conf(version);
    uint64_t resumed = hd_tls_stats.resumed;

    for (int way = 0; way < 3; way++) {
        static const char *const names[] = {"tickets", "the server's cache", "both"};

        sc.session_tickets = way != 1;
        sc.session_cache = way != 0;
        sc.session_timeout_s = 1000 + (uint32_t)way; /* settings of its own */
        ok(!meet(&sc, &cc, "k"), "by %s: a first handshake is full", names[way]);
        ok(meet(&sc, &cc, "k"), "... the second resumes");
        ok(meet(&sc, &cc, "k"), "... the third too");
    }
    is_int(hd_tls_stats.resumed - resumed, 12, "counted on both sides");

    sc.session_tickets = sc.session_cache = false;
    meet(&sc, &cc, "none");
    ok(!meet(&sc, &cc, "none"), "neither tickets nor cache: never");
    sc = server_conf();
    cc.session_tickets = cc.session_cache = false;
    meet(&sc, &cc, "off");
    ok(!meet(&sc, &cc, "off"), "nor when the client doesn't want it");
}

/* What a resumed handshake knows of the peer is what the full one verified. */
static void test_identity(int version)
{
    hd_tls_conf_t sc = server_conf(), cc = client_conf(version);
    hd_tls_client_t ask = {.session_key = HD_STR("id")};

    meet(&sc, &cc, "id");
    pair_handshake(&sc, &cc, &ask);
    ok(hd_tls_peer(server.c)->resumed && hd_tls_peer(server.c)->verified &&
           hd_str_eq(server.c->facts->peer_principal,
                     HD_STR("spiffe://td/ns/a/sa/client")),
       "resumed: the client's identity");
    ok(hd_str_eq(client.c->facts->peer_principal, HD_STR("spiffe://td/ns/a/sa/server")),
       "... the server's");
    ok(hd_str_eq(client.c->facts->local_principal,
                 HD_STR("spiffe://td/ns/a/sa/client")) &&
           hd_str_eq(server.c->facts->local_principal,
                     HD_STR("spiffe://td/ns/a/sa/server")),
       "... and each its own");
    pair_stop();
}

/* CVE-2025-23419's kind: a session of one server is no ticket into another that verifies
 * otherwise, though both have the same certificate and ticket keys. */
static void test_apart(int version)
{
    hd_tls_conf_t open_conf = server_conf(), strict = server_conf(),
                  cc = client_conf(version);
    const hd_slot_t *other_slot = secret_cert("other-client", &client_cert);
    const hd_slot_t *const *mine = cc.certs;

    open_conf.verify = HD_TLS_VERIFY_NONE;
    ok(!meet(&open_conf, &cc, "apart"), "at a server that verifies nobody");
    ok(!meet(&strict, &cc, "apart"), "not resumed at one that does");
    strict.sans =
        &(hd_match_t){.kind = HD_MATCH_PREFIX, .text = HD_STR_INIT("spiffe://td/ns/a")};
    strict.sans_n = 1;
    ok(!meet(&strict, &cc, "apart"), "nor at one that looks for other names");
    ok(meet(&strict, &cc, "apart"), "(it resumes its own)");

    ok(!meet(&strict, &cc, "endpoint 2"), "the client: not for another session key");
    cc.certs = &other_slot;
    ok(!meet(&strict, &cc, "apart"), "not under another identity's settings");
    cc.certs = mine;
    cc.sni = HD_STR("other.example");
    ok(!meet(&strict, &cc, "apart"), "not under another server name");
    cc.sni = HD_STR_NONE;
    cc.verify_host = HD_STR("host.example");
    pair_handshake(&strict, &cc, &(hd_tls_client_t){.session_key = HD_STR("apart")});
    ok(!client.opened && strstr(client.error, "not for 'host.example'") != NULL,
       "nor around a host to be verified: %s", client.error);
    pair_stop();
}

/* A rotation is in force for the next handshake; open conns go on with the old. */
static void test_rotation(int version)
{
    cert_t next = cert_make(&(cert_spec_t){
        .by = &root_a, .uris = {"spiffe://td/ns/a/sa/server"}, .serial = 0x7777});
    cert_t next_client = cert_make(&(cert_spec_t){
        .by = &root_a, .uris = {"spiffe://td/ns/a/sa/client"}, .serial = 0x8888});
    hd_tls_conf_t sc = server_conf(), cc = client_conf(version);
    hd_tls_client_t ask = {.session_key = HD_STR("rot")};
    side_t old_server, old_client;

    meet(&sc, &cc, "rot");
    pair_handshake(&sc, &cc, &ask);
    ok(hd_tls_peer(client.c)->resumed, "before the rotation: resumed");
    old_server = server;
    old_client = client;
    old_server.c->owner = &old_server;
    old_client.c->owner = &old_client;

    secret_cert("server", &next);
    pair_handshake(&sc, &cc, &ask);
    ok(!hd_tls_peer(client.c)->resumed &&
           hd_str_eq(hd_tls_peer(client.c)->serial, HD_STR("7777")),
       "the server's next certificate, in a full handshake: %.*s",
       HD_STR_ARG(hd_tls_peer(client.c)->serial));
    pair_stop();
    secret_cert("client", &next_client);
    pair_handshake(&sc, &cc, &ask);
    ok(!hd_tls_peer(server.c)->resumed &&
           hd_str_eq(hd_tls_peer(server.c)->serial, HD_STR("8888")),
       "the client's, too");
    pair_stop();
    ok(meet(&sc, &cc, "rot"), "and then it resumes again");

    side_send(&old_client, "still");
    turns(4);
    ok(hd_str_eq(old_server.in, HD_STR("still")), "a conn from before goes on");
    server = old_server;
    client = old_client;
    server.c->owner = &server;
    client.c->owner = &client;
    pair_stop();
    secret_cert("server", &server_cert);
    secret_cert("client", &client_cert);
    cert_free(&next);
    cert_free(&next_client);
}

/* Roots that are taken away end what was trusted by them. */
static void test_roots(int version)
{
    hd_tls_conf_t sc = server_conf(), cc = client_conf(version);
    const hd_slot_t *server_trust = secret_trust("server-trust", &root_a);

    sc.trust = server_trust;
    meet(&sc, &cc, "roots");
    ok(meet(&sc, &cc, "roots"), "resumed while the root is trusted");
    secret_trust("server-trust", &root_b);
    pair_handshake(&sc, &cc, &(hd_tls_client_t){.session_key = HD_STR("roots")});
    ok(!server.opened && strstr(server.error, "unknown issuer CN=Root A") != NULL,
       "not any more: %s", server.error);
    pair_stop();
}

/* Time is what the test says it is. A certificate that has expired ends its sessions, on
 * both sides. */
static void test_expiry(int version)
{
    cert_t brief = cert_make(&(cert_spec_t){.by = &root_a,
                                            .uris = {"spiffe://td/ns/a/sa/brief"},
                                            .from_s = -60,
                                            .to_s = 600});
    const hd_slot_t *brief_slot = secret_cert("brief", &brief);
    hd_tls_conf_t sc = server_conf(), cc = client_conf(version);

    sc.session_timeout_s = cc.session_timeout_s = 100000;
    cc.certs = &brief_slot;
    for (int way = 0; way < 2; way++) {
        const char *key = way == 0 ? "brief tickets" : "brief cache";
        hd_tls_client_t ask = {.session_key = hd_str_c(key)};

        sc.session_tickets = way == 0;
        sc.session_cache = way == 1;
        meet(&sc, &cc, key);
        hd_tls_skew_s = 500;
        ok(meet(&sc, &cc, key), "%s: resumed while the client's certificate is good",
           key);
        hd_tls_skew_s = 700;
        pair_handshake(&sc, &cc, &ask);
        ok(!server.opened && strstr(server.error, "expired") != NULL,
           "... and not beyond its end: %s", server.error);
        pair_stop();
        hd_tls_skew_s = 0;
    }

    sc = server_conf();
    sc.verify = HD_TLS_VERIFY_NONE;
    sc.certs = &brief_slot;
    cc.certs_n = 0;
    meet(&sc, &cc, "brief server");
    hd_tls_skew_s = 500;
    ok(meet(&sc, &cc, "brief server"), "resumed while the server's certificate is good");
    hd_tls_skew_s = 700;
    pair_handshake(&sc, &cc, &(hd_tls_client_t){.session_key = HD_STR("brief server")});
    ok(!client.opened && strstr(client.error, "expired") != NULL, "not beyond: %s",
       client.error);
    pair_stop();
    hd_tls_skew_s = 0;
    cert_free(&brief);
}

static const uint8_t seed[32] = "seed of the test";

/* Ticket keys change; a ticket of the time before is still read, one of long ago isn't.
 */
static void test_ticket_keys(int version)
{
    hd_tls_conf_t sc = server_conf(), cc = client_conf(version);
    int64_t now_s = hd_loop_wall_ns(loop) / 1000000000;
    int64_t to_next = 43200 - now_s % 43200;
    cert_t long_cert = cert_make(&(cert_spec_t){.by = &root_a,
                                                .uris = {"spiffe://td/ns/a/sa/l"},
                                                .from_s = -60,
                                                .to_s = 86400 * 30L});
    const hd_slot_t *long_slot = secret_cert("long", &long_cert);

    sc.session_cache = false;
    sc.session_timeout_s = cc.session_timeout_s = 86400 * 6;
    sc.certs = cc.certs = &long_slot;
    meet(&sc, &cc, "keys");
    hd_tls_skew_s = to_next + 60;
    ok(meet(&sc, &cc, "keys"), "by the key before");
    /* Keys go one way: the clock can be set back only with them. */
    hd_tls_skew_s = 0;
    hd_tls_set_ticket_seed(seed, now_s);
    meet(&sc, &cc, "keys 2");
    hd_tls_skew_s = to_next + 43200 + 60;
    ok(!meet(&sc, &cc, "keys 2"), "not by the one before that");
    hd_tls_skew_s = 0;
    hd_tls_set_ticket_seed(seed, now_s);
    cert_free(&long_cert);
}

/* The client's sessions are bounded; the first go first. */
static void test_bound(void)
{
    hd_tls_conf_t sc = server_conf(), cc = client_conf(TLS1_3_VERSION);
    hd_tls_ctx_t *ctx;
    char key[16];

    cc.groups = HD_STR("P-256"); /* cheaper */
    for (int i = 0; i < 520; i++) {
        snprintf(key, sizeof(key), "peer %d", i);
        meet(&sc, &cc, key);
    }
    ctx = hd_tls_ctx_get(member, &cc, false, NULL);
    is_int(hd_map_count(ctx->sessions), 512, "at most 512 peers");
    hd_tls_ctx_put(ctx);
    ok(!meet(&sc, &cc, "peer 0"), "the first was forgotten");
    ok(meet(&sc, &cc, "peer 519"), "the last wasn't");
}

/* A session survives a conn that is reset, and settings without a conn. */
static void test_kept(int version)
{
    hd_tls_conf_t sc = server_conf(), cc = client_conf(version);
    hd_tls_client_t ask = {.session_key = HD_STR("reset")};

    cc.session_timeout_s = 77;
    pair_handshake(&sc, &cc, &ask);
    side_send(&server, "x");
    turns(3);
    hd_conn_reset(client.c);
    client.c = NULL;
    turns(3);
    pair_stop();
    ok(meet(&sc, &cc, "reset"), "resumed after a reset");
}

/* Settings that nobody uses stay for a while, but not all for ever. */
static void test_settings_bound(void)
{
    hd_tls_conf_t sc = server_conf();
    size_t before = hd_companion_count(member);
    hd_tls_ctx_t *ctx, *again;

    for (uint32_t i = 0; i < 200; i++) {
        sc.session_timeout_s = 100000 + i;
        ctx = hd_tls_ctx_get(member, &sc, true, NULL);
        hd_tls_ctx_put(ctx);
        again = hd_tls_ctx_get(member, &sc, true, NULL);
        if (again != ctx)
            fail("settings are made once");
        hd_tls_ctx_put(again);
    }
    ok(hd_companion_count(member) <= before + 64,
       "200 settings came by, %zu more are kept", hd_companion_count(member) - before);
}

int main(void)
{
    loom_start();
    hd_tls_set_ticket_seed(seed, (int64_t)time(NULL));
    root_a = cert_root("Root A");
    root_b = cert_root("Root B");
    server_cert =
        cert_make(&(cert_spec_t){.by = &root_a, .uris = {"spiffe://td/ns/a/sa/server"}});
    client_cert =
        cert_make(&(cert_spec_t){.by = &root_a, .uris = {"spiffe://td/ns/a/sa/client"}});
    server_slot = secret_cert("server", &server_cert);
    client_slot = secret_cert("client", &client_cert);
    trust = secret_trust("trust", &root_a);

    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        diag("TLS 1.%d", version - TLS1_VERSION);
        test_resumes(version);
        test_identity(version);
        test_apart(version);
        test_rotation(version);
        test_roots(version);
        test_expiry(version);
        test_ticket_keys(version);
        test_kept(version);
    }
    test_bound();
    test_settings_bound();

    loom_stop();
    cert_free(&root_a);
    cert_free(&root_b);
    cert_free(&server_cert);
    cert_free(&client_cert);
    return done_testing();
}
