/* tls_pair: two conns over a pipe in one process, TLS on both, and the secrets they use;
 * for C unit tests of core/net/hd_tls. */
#pragma once
#include "certs.h"
#include "core/loom/hd_batch.h"
#include "core/net/hd_tls_int.h"
#include "tap.h"

typedef struct {
    hd_conn_t *c; /* NULL once closed by us */
    bool opened, closed, ended, paused;
    char error[HD_ERR_TEXT_MAX], alpn[64];
    hd_str_t in; /* all that was read, in heap memory */
    size_t in_room;
    bool keeps_in; /* else only counted: in.len */
} side_t;

static hd_loop_t *loop;
static side_t server, client;

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *member;

static void loom_start(void)
{
    hd_err_t err = {0};
    hd_arena_conf_t conf = {.bytes_max = 64 << 20};

    state = hd_state_create(&(hd_state_conf_t){.regions_max = 4096}, &err);
    arena = hd_arena_create(HD_ARENA_FILES, &conf, state, &err);
    member = hd_member_start(state, -1, HD_MEMBER_WORKER, &err);
    if (member == NULL || hd_arena_open_writer(arena, member, &err) != HD_OK) {
        diag("%s", err.text);
        abort();
    }
    hd_member_add_arena(member, arena);
    loop = hd_loop_create(member, 64, &err);
    hd_turn_begin(member);
}

static void loom_stop(void)
{
    hd_loop_destroy(loop);
    hd_turn_sleep(member);
    hd_member_stop(member);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

/* Publishes a secret (its next version); NULL texts: none. The slot. */
static const hd_slot_t *secret_set(const char *name, const char *chain, const char *key,
                                   const char *trust, const char *crl)
{
    hd_err_t err = {0};
    hd_batch_t *b = hd_batch_begin(arena);
    hd_slot_t *slot = hd_slot_find_or_add(arena, HD_RES_SECRET, hd_str_c(name), &err);
    hd_pool_t *pool;
    hd_region_t *r =
        hd_batch_region(b, HD_RES_SECRET, hd_str_c(name), HD_STR("test"), 0, &pool, &err);
    hd_secret_t *s = hd_pool_new(pool, hd_secret_t);

    s->chain_pem = hd_str_dup(pool, hd_str_c(chain));
    s->key_pem = hd_str_dup(pool, hd_str_c(key));
    s->trust_pem = hd_str_dup(pool, hd_str_c(trust));
    s->crl_pem = hd_str_dup(pool, hd_str_c(crl));
    if (hd_batch_put(b, slot, r, s, 0, &err) != HD_OK)
        abort();
    hd_batch_publish(b, 0);
    return slot;
}

TAP_UNUSED static const hd_slot_t *secret_absent(const char *name)
{
    return hd_slot_find_or_add(arena, HD_RES_SECRET, hd_str_c(name), NULL);
}

TAP_UNUSED static const hd_slot_t *secret_cert(const char *name, const cert_t *c)
{
    return secret_set(name, c->chain_pem, c->key_pem, NULL, NULL);
}

TAP_UNUSED static const hd_slot_t *secret_trust(const char *name, const cert_t *root)
{
    return secret_set(name, NULL, NULL, root->chain_pem, NULL);
}

/* --- the handler of both ends --- */

static void side_close(side_t *s)
{
    if (s->c == NULL)
        return;
    if (s->c->err != NULL && s->error[0] == '\0')
        snprintf(s->error, sizeof(s->error), "%s", s->c->err->text);
    hd_conn_close(s->c, 0);
    s->c = NULL;
}

static void on_open(hd_conn_t *c)
{
    side_t *s = c->owner;

    s->opened = true;
    if (c->facts != NULL)
        snprintf(s->alpn, sizeof(s->alpn), "%.*s", HD_STR_ARG(c->facts->alpn));
}

static void on_readable(hd_conn_t *c)
{
    side_t *s = c->owner;
    char buf[20000];
    ssize_t n;

    while (!s->paused && c->is_readable &&
           (n = hd_conn_read(c, buf, sizeof(buf))) != HD_IO_AGAIN) {
        if (n <= 0) {
            s->ended = n == 0;
            if (n < 0) {
                s->closed = true;
                snprintf(s->error, sizeof(s->error), "%s",
                         c->err != NULL ? c->err->text : "(no reason)");
            }
            return;
        }
        if (s->keeps_in) {
            if (s->in.len + (size_t)n > s->in_room)
                s->in_room = 2 * (s->in.len + (size_t)n);
            s->in.data = realloc((void *)(uintptr_t)s->in.data, s->in_room);
            memcpy((char *)(uintptr_t)s->in.data + s->in.len, buf, (size_t)n);
        }
        s->in.len += (size_t)n;
    }
}

static void on_closed(hd_conn_t *c)
{
    side_t *s = c->owner;

    s->closed = true;
    snprintf(s->error, sizeof(s->error), "%s", c->err != NULL ? c->err->text : "(none)");
}

static const hd_conn_handler_t side_handler = {
    .on_open = on_open, .on_readable = on_readable, .on_closed = on_closed};

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        hd_loop_turn(loop, 0);
    hd_turn_begin(member); /* the test's own turn: it reads slots too */
}

/* Two bare conns; each end's TLS is the test's to push. */
static void pair_start(void)
{
    hd_conn_t *ends[2];
    hd_err_t err = {0};

    memset(&server, 0, sizeof(server));
    memset(&client, 0, sizeof(client));
    server.keeps_in = client.keeps_in = true;
    if (hd_conn_create_pipe(loop, ends, &err) != HD_OK)
        abort();
    server.c = ends[0];
    client.c = ends[1];
    hd_conn_set_handler(server.c, &side_handler, &server);
    hd_conn_set_handler(client.c, &side_handler, &client);
}

TAP_UNUSED static void pair_stop(void)
{
    side_close(&client);
    side_close(&server);
    turns(2);
    free((void *)(uintptr_t)client.in.data);
    free((void *)(uintptr_t)server.in.data);
    client.in = server.in = HD_STR_NONE;
}

static bool is_settled(const side_t *s)
{
    return s->opened || s->closed;
}

/* A handshake between two settings; both have settled then, and TLS 1.3's late refusals
 * have come. */
TAP_UNUSED static void pair_handshake(const hd_tls_conf_t *sc, const hd_tls_conf_t *cc,
                                      const hd_tls_client_t *ask)
{
    hd_err_t err = {0};

    pair_start();
    if (hd_tls_push_server(server.c, sc, &err) != HD_OK) {
        snprintf(server.error, sizeof(server.error), "%s", err.text);
        return;
    }
    if (hd_tls_push_client(client.c, cc, ask, &err) != HD_OK) {
        snprintf(client.error, sizeof(client.error), "%s", err.text);
        return;
    }
    for (int i = 0; i < 100 && !(is_settled(&server) && is_settled(&client)); i++) {
        turns(1);
        /* A failed end hangs up, as its owner would. */
        if (server.closed)
            side_close(&server);
        if (client.closed)
            side_close(&client);
    }
    turns(4);
}

/* --- settings to begin with --- */

TAP_UNUSED static hd_tls_conf_t conf_of(const hd_slot_t *const *certs, uint32_t certs_n,
                                        const hd_slot_t *trust)
{
    return (hd_tls_conf_t){.certs = certs,
                           .certs_n = certs_n,
                           .trust = trust,
                           .session_tickets = true,
                           .session_cache = true};
}

TAP_UNUSED static void side_send(side_t *s, const char *text)
{
    if (!hd_conn_try_send_copy(s->c, text, strlen(text)))
        abort();
}
