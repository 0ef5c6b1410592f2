/* What only hd_tls*.c share.
 *
 *   hd_tls.c          the layer: handshake, reading, writing, closing
 *   hd_tls_bio.c      ciphertext between OpenSSL and the layer below
 *   hd_tls_memory.c   OpenSSL's buffers of records
 *   hd_tls_ctx.c      settings -> SSL_CTX, a companion by content
 *   hd_tls_secret.c   PEM texts -> certificates, keys, roots: companions of their regions
 *   hd_tls_pair.c     certificates whose names have variables: read as they are needed
 *   hd_tls_verify.c   is the peer whom it should be?
 *   hd_tls_early.c    early data
 *   hd_tls_session.c  what may be resumed; a server's and a client's sessions
 *   hd_tls_ticket.c   keys of session tickets
 *   hd_tls_cache.c    sessions that workers share
 *   hd_tls_ask.c      has a client's certificate been revoked?
 *   hd_tls_watch.c    is a peer that was verified still good?
 *   hd_tls_peer.c     facts of the peer's certificate
 *   hd_tls_facts.c    facts that few ask for
 */
#pragma once
#include "core/loom/hd_regex.h"
#include "core/net/hd_tls.h"
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define HD_TLS_RECORD_MAX 16384
#define HD_TLS_SESSION_KEY_BYTES 32

/* Bytes that wait in a layer, no more than there are. */
typedef struct {
    size_t at, end;
    char data[];
} hd_tls_rest_t;

typedef struct {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    hd_str_t ocsp_der;       /* its own copy; empty: none */
    int64_t ocsp_until_s;    /* Unix time; 0: its end isn't said */
    hd_str_t staple;         /* its own copy of the secret's; empty: none */
    uint8_t fingerprint[32]; /* SHA-256 of the leaf, where there is <staple> */
    uint32_t uses;           /* of hd_tls_pair.c's: who holds it */
    uint64_t content;        /* likewise: hash of its texts */
} hd_tls_cert_t;

typedef struct {
    X509_STORE *store;
    STACK_OF(X509_NAME) * names;
    struct {
        char *name;
        X509_STORE *store;
    } * domains; /* in place of store, if there are any */
    uint32_t domains_n;
    const hd_tls_checks_t *checks; /* the secret's; NULL: none */
    hd_regex_t **regexes;          /* of checks->sans; NULL where none is needed */
} hd_tls_trust_t;

/* Companion of distinct settings and role. */
typedef struct hd_tls_ctx_s {
    SSL_CTX *ssl_ctx;
    hd_tls_conf_t conf; /* a copy in <pool>, slots excepted */
    hd_pool_t *pool;
    hd_regex_t **regexes; /* one a SAN; NULL: it is none */
    hd_member_t *member;
    bool is_server;
    bool is_kept;   /* by kept, below */
    hd_link_t kept; /* those kept over times without a conn, latest first */
    struct hd_tls_cache_s
        *zone; /* a server's, shared; NULL: none, or not looked for yet */
    struct hd_tls_cache_s *answers; /* the same of answers about clients' certificates */
    struct hd_map_s *pairs;     /* certificates that were read, by names; NULL: none */
    hd_link_t pairs_by_use;     /* latest first */
    struct hd_map_s *sessions;  /* a client's, by key */
    hd_link_t sessions_by_time; /* latest first */
} hd_tls_ctx_t;

/* What a conn needs until its handshake is over. The versions of its secrets that it
 * began with are pinned: it ends with them, whatever is published or removed meanwhile.
 */
typedef struct {
    const hd_region_t *trust;       /* NULL: none */
    struct hd_tls_asking_s *asking; /* in HD_TLS_ASKING; else NULL */
    const hd_tls_pair_t *pairs;     /* a server's settings' own, see hd_tls_push_server */
    hd_tls_cert_t **own; /* those of the pairs, once they are known; else NULL */
    uint32_t own_n;
    uint32_t n;
    const hd_region_t *certs[]; /* as the settings' certs; NULL: wasn't there */
} hd_tls_held_t;

typedef enum {
    HD_TLS_HANDSHAKE, /* waits for the peer's handshake messages */
    HD_TLS_ASKING,    /* has them all; waits for what is said of the peer's certificate */
    HD_TLS_OPEN,
    HD_TLS_ENDED,  /* the peer's close_notify was read */
    HD_TLS_FAILED, /* conn->err says why; OpenSSL isn't asked again */
} hd_tls_state_t;

/* Why a certificate that passed every check of ours isn't taken for good. */
typedef enum {
    HD_TLS_NO_DOUBT,
    HD_TLS_UNANSWERED,
    HD_TLS_REVOKED,
    HD_TLS_UNKNOWN,
} hd_tls_doubt_t;

/* Early data of a client's. In all but the first two the layer is HD_TLS_OPEN. */
typedef enum {
    HD_TLS_LATE,         /* none, or no more: the handshake goes its way, or is over */
    HD_TLS_EARLY_ASKED,  /* the hello will tell whether there is any */
    HD_TLS_EARLY_BYTE,   /* the first byte was read, early_byte */
    HD_TLS_EARLY_READ,   /* it is being read */
    HD_TLS_EARLY_FINISH, /* all was read; waits for the client's Finished */
} hd_tls_early_t;

typedef struct {
    hd_layer_t layer;
    SSL *ssl;
    hd_tls_ctx_t *ctx;
    hd_tls_rest_t *in;    /* ciphertext from below that OpenSSL hasn't taken; else NULL */
    hd_tls_rest_t *out;   /* ciphertext that the layer below didn't take; else NULL */
    char *verify_host;    /* client, when asked for; else NULL */
    uint8_t *session_key; /* client; HD_TLS_SESSION_KEY_BYTES */
    uint8_t state;        /* hd_tls_state_t */
    uint8_t doubt;        /* hd_tls_doubt_t */
    uint8_t early;        /* hd_tls_early_t */
    uint8_t early_byte;
    bool below_ended : 1, below_failed : 1;
    bool below_broken : 1; /* a write failed; what came before may be read yet */
    bool
        holds_buffer : 1; /* OpenSSL has kept a buffer for writing since the last write */
    bool verified : 1;    /* the peer showed a certificate that passed every check */
    hd_link_t watched;    /* of those that are verified, by hd_tls_watch.c */
    int64_t good_until_s; /* end of the first certificate of the path; 0: unknown */
    uint64_t trust_content; /* what it was verified by, see hd_tls_content_of */
    hd_tls_held_t *held;    /* while the handshake lasts; else NULL */
} hd_tls_layer_t;

extern const hd_layer_ops_t hd_tls_ops;
hd_tls_layer_t *hd_tls_layer(const hd_conn_t *c); /* the topmost; NULL: none */
hd_tls_layer_t *hd_tls_layer_of(const SSL *ssl);
int64_t hd_tls_now_s(const hd_tls_layer_t *l); /* wall clock */
extern int64_t hd_tls_skew_s;                  /* added to it: for tests */

/* --- bio --- */
BIO *hd_tls_bio_create(hd_tls_layer_t *l);
/* Around each call of OpenSSL that may read or write: lends the shared buffers. Never
 * fails; leave pushes down what was written and answers as hd_tls_push_out. */
void hd_tls_enter(hd_tls_layer_t *l);
hd_rc_t hd_tls_leave(hd_tls_layer_t *l);
/* Within enter and leave: all ciphertext that is here was taken, and no more is there. */
bool hd_tls_is_drained(const hd_tls_layer_t *l);
/* Within enter and leave, between records: makes room for one of full size. HD_AGAIN: the
 * layer below is full, write no more. */
hd_rc_t hd_tls_make_room(hd_tls_layer_t *l);
/* HD_OK: nothing is left; HD_AGAIN: the layer below is full; HD_ERROR: it failed. */
hd_rc_t hd_tls_push_out(hd_tls_layer_t *l);
/* 16 KB in which small pieces are gathered into one record; good until leave. */
char *hd_tls_plain_buffer(hd_tls_layer_t *l);
hd_tls_rest_t *hd_tls_rest_create(const char *data, size_t len);

/* --- ctx --- */
/* Counted: balance with put. NULL: <err>. */
hd_tls_ctx_t *hd_tls_ctx_get(hd_member_t *m, const hd_tls_conf_t *conf, bool is_server,
                             hd_err_t *err);
void hd_tls_ctx_put(hd_tls_ctx_t *ctx);

/* --- secret --- */
/* Holds the current versions of the secrets of its settings. */
void hd_tls_hold(hd_tls_layer_t *l);
void hd_tls_let_go(hd_tls_layer_t *l); /* harmless when nothing is held */
/* The certificate of that place in the settings, and the roots: the versions held, else
 * the current ones; good in this turn. NULL: <err>. */
const hd_tls_cert_t *hd_tls_cert_of(const hd_tls_layer_t *l, uint32_t i, hd_err_t *err);
const hd_tls_trust_t *hd_tls_trust_of(const hd_tls_layer_t *l, hd_err_t *err);
/* That of the settings' first place; NULL: there is none, or not yet. */
const hd_tls_cert_t *hd_tls_first_cert(const hd_tls_layer_t *l);
/* Of PEM texts, the caller's; NULL: <err>. */
hd_tls_cert_t *hd_tls_cert_create(const hd_secret_t *s, hd_err_t *err);
void hd_tls_cert_destroy(hd_tls_cert_t *cert);
int64_t hd_tls_time_s(const ASN1_TIME *t); /* Unix time; 0: unreadable */
/* All certificates of <pem>, the caller's; NULL: <err>, which calls the whole <what>. */
STACK_OF(X509) * hd_tls_read_certs(hd_str_t pem, const char *what, hd_err_t *err);

/* --- early; as OpenSSL's functions, within enter and leave --- */
int hd_tls_early_start(hd_tls_layer_t *l); /* as SSL_do_handshake; 1: early data, too */
int hd_tls_early_read(hd_tls_layer_t *l, void *to, size_t len, size_t *n);
int hd_tls_early_write(hd_tls_layer_t *l, const void *from, size_t len, size_t *n);
/* The handshake is over: what only it needed goes. */
void hd_tls_settle(hd_tls_layer_t *l);

/* --- pair --- */
/* On a server, before OpenSSL looks for a session: what its pairs say for this client,
 * l->held->own; what may be resumed is bound to it. HD_OK, too, if there are none. */
hd_rc_t hd_tls_pairs_choose(hd_tls_layer_t *l, hd_err_t *err) HD_MUST_CHECK;
/* On a client: what it was asked to show, l->held->own; *version changes with it. */
hd_rc_t hd_tls_pair_take(hd_tls_layer_t *l, const hd_tls_client_t *ask, uint64_t *version,
                         hd_err_t *err) HD_MUST_CHECK;
void hd_tls_pairs_let_go(hd_tls_held_t *held);
void hd_tls_pairs_deinit(hd_tls_ctx_t *ctx);

/* --- verify --- */
int hd_tls_verify(X509_STORE_CTX *store_ctx, void *arg);
/* The URI SANs with scheme spiffe://: how many, and the first, lent by <names> (which may
 * be NULL); -1: one of them is no SPIFFE ID. *uris_n: URI SANs of any scheme. */
int hd_tls_find_spiffe(const GENERAL_NAMES *names, hd_str_t *id, int *uris_n);
/* A name holds a zero byte: a try to fool whoever compares C strings. */
bool hd_tls_has_nul(const GENERAL_NAMES *names);
hd_str_t hd_tls_name_text(const ASN1_STRING *s); /* lent */
/* Certificates that have ended are let in. */
bool hd_tls_allows_expired(const hd_tls_layer_t *l);
/* There is something by which a peer's certificate is judged. */
bool hd_tls_checks_peer(const hd_tls_conf_t *conf);
bool hd_tls_is_spiffe_id(hd_str_t id);

/* The certificates from the peer's to a root, the caller's; NULL: a resumed session
 * doesn't tell. */
STACK_OF(X509) * hd_tls_peer_path(const hd_tls_layer_t *l);

/* --- ask --- */
typedef struct hd_tls_asking_s hd_tls_asking_t;
/* Whether responders say that the peer's certificates are good: l->doubt. HD_OK: that is
 * known; HD_AGAIN: hd_tls_asked follows, unless it is stopped. */
hd_rc_t hd_tls_ask(hd_tls_layer_t *l);
void hd_tls_ask_stop(hd_tls_layer_t *l);             /* harmless when nobody is asked */
void hd_tls_asked(hd_tls_layer_t *l);                /* hd_tls.c's: goes on */
const char *hd_tls_doubt_text(hd_tls_doubt_t doubt); /* nginx's words; NULL: none */

/* --- session --- */
void hd_tls_sessions_init(hd_tls_ctx_t *ctx);
void hd_tls_sessions_deinit(hd_tls_ctx_t *ctx);
/* Binds what may be resumed to the settings, the roots (<trust_version>) and, on a
 * client, to what it asks for and who it is (<own_version>); there it offers a session.
 */
void hd_tls_session_start(hd_tls_layer_t *l, const hd_tls_client_t *ask,
                          uint64_t trust_version, uint64_t own_version);
/* A server's part of that. */
void hd_tls_session_bind(hd_tls_layer_t *l, uint64_t trust_version, uint64_t own_version);
/* A session lives no longer than the certificates it stands for; NULL: it is never
 * resumed. */
void hd_tls_session_limit(SSL *ssl, const STACK_OF(X509) * chain, int64_t now_s);
bool hd_tls_session_is_expired(const hd_tls_layer_t *l, const SSL_SESSION *s,
                               int64_t now_s);
/* Tells OpenSSL the key of a ticket. -1 error, 0 not ours, 1 good, 2 good but wrap it
 * anew. */
int hd_tls_on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv,
                         EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc);

/* --- watch --- */
/* The handshake is over, and the peer was verified. */
void hd_tls_watch_start(hd_tls_layer_t *l);
void hd_tls_watch_stop(hd_tls_layer_t *l);
/* What a version holds: equal in all processes and after a restart. */
uint64_t hd_tls_content_of(const hd_region_t *r);
/* By what is trusted now. */
bool hd_tls_verify_again(hd_tls_layer_t *l);

/* --- peer --- */
/* Takes what OpenSSL left in its error queue, in words. */
void hd_tls_error_text(const hd_tls_layer_t *l, int ssl_error, bool in_handshake,
                       char *out, size_t room);
/* At the handshake's end: names and protocols into the conn's facts. */
void hd_tls_facts_set(hd_tls_layer_t *l);
hd_str_t hd_tls_hex(hd_pool_t *pool, const unsigned char *bytes, size_t n);
hd_str_t hd_tls_print_bio(hd_pool_t *pool, BIO *bio);
