/* A listener in PERMISSIVE mode with real handshakes: the ClientHello that the inspector
 * looked at is TLS's to read (PA-11), plain text goes to the plain chain, and a conn ends
 * its handshake by the listener and the secrets that it was accepted with, whatever
 * becomes of them meanwhile. */
#include "tls_pair.h"
#include "core/net/hd_listener.h"
#include <unistd.h>

static uint16_t note;
static char chain_name[32], principal[64];
static const hd_slot_t *cert_slot, *trust_slot;

static void on_conn(hd_conn_t *c, const hd_entrance_t *in)
{
    snprintf(chain_name, sizeof(chain_name), "%.*s", HD_STR_ARG(in->chain->name));
    principal[0] = '\0';
    if (c->facts != NULL)
        snprintf(principal, sizeof(principal), "%.*s",
                 HD_STR_ARG(c->facts->peer_principal));
    server.c = c;
    server.opened = true;
    hd_conn_set_handler(c, &side_handler, &server);
}

static const hd_protocol_t note_protocol = {.name = "note", .on_conn = on_conn};

/* <has_tls> false: only the plain chain. <version_min> is ours, <depth> what a client is
 * asked for. */
static hd_slot_t *publish_with(bool has_tls, uint16_t version_min, uint16_t depth)
{
    hd_err_t err = {0};
    hd_batch_t *b = hd_batch_begin(arena);
    hd_slot_t *slot = hd_slot_find_or_add(arena, HD_RES_LISTENER, HD_STR("in"), &err);
    hd_pool_t *pool;
    hd_region_t *r =
        hd_batch_region(b, HD_RES_LISTENER, HD_STR("in"), HD_STR("test"), 0, &pool, &err);
    hd_listener_t *l = hd_pool_new(pool, hd_listener_t);
    hd_filter_chain_t *chains = hd_pool_new_n(pool, hd_filter_chain_t, 2);
    hd_tls_conf_t *tls = hd_pool_new(pool, hd_tls_conf_t);
    const hd_slot_t **certs = hd_pool_new(pool, const hd_slot_t *);
    hd_str_t *apps = hd_pool_new_n(pool, hd_str_t, 1);

    certs[0] = cert_slot;
    *tls = conf_of(certs, 1, trust_slot);
    tls->verify = HD_TLS_VERIFY_REQUIRED;
    tls->is_mesh = true;
    tls->skips_unknown_alpn = true;
    tls->version_min = version_min;
    tls->verify_depth = depth;
    tls->alpn = hd_str_dup(pool, HD_STR("\x02h2"));
    hd_tls_conf_seal(tls);
    apps[0] = hd_str_dup(pool, HD_STR("istio"));
    chains[0] =
        (hd_filter_chain_t){.name = hd_str_dup(pool, HD_STR("plain")),
                            .match.transport = hd_str_dup(pool, HD_STR("raw_buffer")),
                            .protocol = note};
    chains[1] =
        (hd_filter_chain_t){.name = hd_str_dup(pool, HD_STR("mtls")),
                            .match = {.transport = hd_str_dup(pool, HD_STR("tls")),
                                      .app_protocols = apps,
                                      .app_protocols_n = 1},
                            .tls = tls,
                            .handshake_timeout_ms = 15000,
                            .protocol = note};
    l->name = hd_str_dup(pool, HD_STR("in"));
    l->filters = HD_LF_TLS_INSPECTOR;
    l->chains = chains;
    l->chains_n = has_tls ? 2 : 1;
    if (hd_batch_put(b, slot, r, l, 0, &err) != HD_OK)
        abort();
    hd_batch_publish(b, 0);
    return slot;
}

static void remove_slot(const hd_slot_t *slot)
{
    hd_batch_t *b = hd_batch_begin(arena);
    hd_err_t err = {0};

    hd_batch_remove(
        b, hd_slot_find_or_add(arena, (hd_res_type_t)slot->type, slot->name, &err));
    hd_batch_publish(b, 0);
}

static hd_slot_t *publish(bool has_tls, uint16_t depth)
{
    return publish_with(has_tls, 0x0303, depth);
}

/* The listener takes the server's end; what the client does is the test's. */
static void enter(const hd_slot_t *slot)
{
    hd_conn_t *c;

    pair_start();
    c = server.c;
    server.c = NULL;
    chain_name[0] = '\0';
    hd_listener_enter(c, slot);
}

static void push_client(const hd_tls_conf_t *cc, const char *alpn)
{
    hd_tls_client_t ask = {.sni = HD_STR("Shop.Example"), .alpn = hd_str_c(alpn)};
    hd_err_t err = {0};

    if (hd_tls_push_client(client.c, cc, &ask, &err) != HD_OK) {
        diag("%s", err.text);
        abort();
    }
}

typedef enum { ASKS_MORE, CHAIN_GOES, LISTENER_GOES, SECRETS_GO } change_t;

/* The hello is there when the conn enters; then comes <change>, before the handshake's
 * end. */
static void changes_meanwhile(const hd_slot_t *slot, const hd_tls_conf_t *cc,
                              change_t change, const char *name)
{
    hd_conn_t *c;

    publish(true, 0);
    pair_start();
    c = server.c;
    server.c = NULL;
    server.paused = true;
    push_client(cc, "\x05istio");
    turns(2);
    hd_listener_enter(c, slot);
    is_int(c->state, HD_CONN_HANDSHAKE, "the handshake is under way");
    chain_name[0] = '\0';
    if (change == ASKS_MORE || change == CHAIN_GOES) {
        publish(change == ASKS_MORE, 3);
    } else if (change == LISTENER_GOES) {
        remove_slot(slot);
    } else {
        remove_slot(cert_slot);
        remove_slot(trust_slot);
    }
    for (int i = 0; i < 20 && !(server.opened && client.opened); i++)
        turns(1);
    ok(server.opened && client.opened, "%s: the handshake ends well", name);
    is_str(chain_name, "mtls", "%s: by the chain it began with", name);
    is_str(principal, "spiffe://td/ns/shop/sa/page", "%s: its peer is known", name);
    ok((hd_listener_refresh(server.c, slot) != NULL) == (change == SECRETS_GO),
       "%s: later requests are the new listener's affair", name);
    pair_stop();
}

int main(void)
{
    cert_t root = cert_root("Root");
    cert_t leaf =
        cert_make(&(cert_spec_t){.by = &root, .uris = {"spiffe://td/ns/shop/sa/page"}});
    hd_tls_conf_t cc;
    hd_slot_t *slot;
    const hd_slot_t *certs[1];

    alarm(120);
    loom_start();
    note = hd_protocol_register(&note_protocol);
    cert_slot = certs[0] = secret_cert("cert", &leaf);
    trust_slot = secret_trust("trust", &root);
    slot = publish(true, 0);
    cc = conf_of(certs, 1, trust_slot);
    cc.is_mesh = true;
    hd_tls_conf_seal(&cc);

    enter(slot);
    push_client(&cc, "\x05istio\x02h2");
    for (int i = 0; i < 20 && !(server.opened && client.opened); i++)
        turns(1);
    is_str(chain_name, "mtls", "mesh TLS: by the ALPN that the client offers");
    is_str(principal, "spiffe://td/ns/shop/sa/page",
           "the identity is known before serving");
    ok(server.c != NULL && hd_str_eq(server.c->facts->sni, HD_STR("shop.example")) &&
           hd_str_eq(server.c->facts->transport, HD_STR("tls")),
       "what the inspector saw");
    is_str(client.alpn, "h2", "what was negotiated");
    side_send(&client, "request");
    turns(3);
    side_send(&server, "answer");
    turns(3);
    ok(hd_str_eq(server.in, HD_STR("request")) && hd_str_eq(client.in, HD_STR("answer")));
    ok(hd_listener_refresh(server.c, slot) != NULL, "by the same facts: its chain");
    publish_with(true, 0x0304, 0);
    ok(hd_listener_refresh(server.c, slot) != NULL,
       "with other settings of our own, too");
    publish(true, 3);
    ok(hd_listener_refresh(server.c, slot) == NULL,
       "clients are asked for other proofs: drained");
    pair_stop();

    publish(true, 0);
    enter(slot);
    side_send(&client, "GET / HTTP/1.1\r\n\r\n");
    turns(5);
    is_str(chain_name, "plain", "plain text at the same port");
    ok(hd_str_eq(server.in, HD_STR("GET / HTTP/1.1\r\n\r\n")), "all of it");
    pair_stop();

    enter(slot);
    push_client(&cc, "\x02h2");
    for (int i = 0; i < 20 && !client.closed && !client.ended; i++)
        turns(1);
    ok(!server.opened && (client.closed || client.ended), "other TLS: no chain, closed");
    pair_stop();

    changes_meanwhile(slot, &cc, ASKS_MORE, "more is asked of clients");
    changes_meanwhile(slot, &cc, CHAIN_GOES, "the chain goes");
    changes_meanwhile(slot, &cc, LISTENER_GOES, "the listener goes");
    changes_meanwhile(slot, &cc, SECRETS_GO, "certificate and roots go");
    is_int(hd_conns_open(loop), 0);
    is_int(hd_blocks_in_use(), 0);
    loom_stop();
    cert_free(&leaf);
    cert_free(&root);
    return done_testing();
}
