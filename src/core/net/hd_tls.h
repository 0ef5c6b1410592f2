/* hd_tls: TLS as a layer on any conn, by OpenSSL through our own BIO, and its settings as
 * data.
 *
 * Settings (hd_tls_conf_t) lie in a region and name secrets by slot; the SSL_CTX is a
 * companion, one for each distinct content of settings in a process; certificates are
 * attached per handshake from the secret's current version, so that a rotated certificate
 * needs no new SSL_CTX. Sessions and tickets are bound to the settings' hash and the
 * version of the trusted roots: never reused across identities or servers that differ in
 * client verification, nor beyond the time of the certificate they stand for.
 *
 * Peer identity: the peer's one URI SAN with scheme spiffe:// (SPIFFE X.509-SVID §2, §5),
 * compared by length. Mesh settings (is_mesh) refuse a certificate without exactly one;
 * others take none for an empty principal, and refuse two where a certificate is
 * required.
 *
 * Nothing read is handed up, nothing written goes out, before the handshake's end, but for
 * early data, where settings take it: see hd_tls_is_early. The
 * peer's end without close_notify is an error of the conn: what came may be cut off (RFC
 * 8446 §6.1).
 */
#pragma once
#include "core/loom/hd_match.h"
#include "core/loom/hd_slot.h"
#include "core/net/hd_conn.h"

/* A key of session tickets: its length in nginx's form, 48 or 80, then that form: name of
 * 16 bytes, AES-128 key, HMAC key of 16, or name, HMAC key of 32, AES-256 key. */
#define HD_TLS_TICKET_KEY_BYTES 81

/* The roots of one SPIFFE trust domain. */
typedef struct {
    hd_str_t name;
    hd_str_t trust_pem;
} hd_tls_domain_t;

/* What is asked of a peer's certificate beside a path to the roots: fields of
 * hd_tls_conf_t, for who finds them with the roots. */
typedef struct {
    const hd_match_t *sans;
    uint32_t sans_n;
    const uint8_t *san_kinds;
    const hd_str_t *san_oids;
    hd_str_t cert_hashes, spki_hashes;
    uint16_t verify_depth; /* not 0: in place of the settings' */
    bool allow_expired, accept_untrusted, crl_leaf_only;
} hd_tls_checks_t;

/* A HD_RES_SECRET's root. PEM texts; the key lies in the secret area. */
typedef struct hd_secret_s {
    hd_str_t chain_pem; /* leaf first; empty: no certificate here */
    hd_str_t key_pem;
    hd_str_t trust_pem;      /* roots to verify peers by; empty: none here */
    hd_str_t more_trust_pem; /* further ones, which clients aren't told of */
    hd_str_t crl_pem;
    const hd_tls_domain_t *domains; /* in place of trust_pem: a peer's SPIFFE ID says
                                       which of these roots it is verified by */
    uint32_t domains_n;
    const hd_tls_checks_t *checks; /* beside those of settings: one of all SANs will do,
                                      one of all hashes; NULL: none */
    hd_str_t ticket_keys; /* HD_TLS_TICKET_KEY_BYTES each, the first writes; in the secret
                             area; empty: none here */
    hd_str_t ocsp_der;    /* stapled to the certificate; empty: none */
    hd_str_t staple;      /* HD_RES_POLICY that the agent keeps up to date (hd_ocsp.h), to
                             be stapled in place of ocsp_der; empty: none */
    hd_str_t passphrases; /* of the keys of hd_tls_pair_t, a line each; in the secret
                             area; empty: none */
    int64_t not_after_s;  /* of the leaf, Unix time; 0: unknown */
    hd_str_t spiffe_id;   /* of the leaf */
} hd_secret_t;

typedef enum {
    HD_TLS_VERIFY_NONE,
    HD_TLS_VERIFY_OPTIONAL,
    HD_TLS_VERIFY_REQUIRED,
    HD_TLS_VERIFY_OPTIONAL_NO_CA, /* verify_late; roots may be unknown */
} hd_tls_verify_t;

typedef enum {
    HD_TLS_SAN_ANY,
    HD_TLS_SAN_EMAIL,
    HD_TLS_SAN_DNS,
    HD_TLS_SAN_URI,
    HD_TLS_SAN_IP,
    HD_TLS_SAN_OTHER, /* by san_oids */
} hd_tls_san_kind_t;

#define HD_TLS_DEPTH_NONE UINT16_MAX

/* A server's certificate and an OCSP response that a client asks for (Envoy's
 * ocsp_staple_policy). One that is over is never sent. */
typedef enum {
    HD_TLS_STAPLE_LENIENT, /* it is shown without one, too */
    HD_TLS_STAPLE_STRICT,  /* it isn't shown with one that is over */
    HD_TLS_STAPLE_MUST,    /* nor without one */
} hd_tls_staple_t;

/* A certificate and its key whose names have variables (nginx): what they say is known
 * per handshake, and read then, by a process without privileges. */
typedef struct {
    hd_str_t cert_text, key_text; /* as configured: they tell settings apart */
    const struct hd_expr_s *cert, *key;
} hd_tls_pair_t;

typedef struct hd_tls_conf_s {
    const hd_slot_t *const
        *certs; /* secrets with chain and key; several key types or names */
    uint32_t certs_n;
    const hd_tls_pair_t *pairs; /* in place of certs: all of a server's, one of a client's,
                                   whose owner asks for them by name */
    uint32_t pairs_n;
    hd_str_t pairs_dir; /* of relative names, its last '/' included */
    const hd_slot_t *passphrases; /* of their keys; NULL: none */
    uint32_t pairs_kept;          /* so many that were read stay, in each process; 0: none */
    uint32_t pairs_idle_s;        /* for so long without use */
    uint32_t pairs_valid_s;       /* then it is seen whether the files have changed */
    const hd_slot_t *trust; /* NULL: the peer is not verified */
    hd_tls_verify_t
        verify; /* of the client, in a server; a client always verifies with trust */
    uint16_t version_min, version_max; /* 0x0303, 0x0304 */
    uint16_t verify_depth; /* 0: OpenSSL's; HD_TLS_DEPTH_NONE: no issuer between */
    bool session_tickets, session_cache, prefer_server_ciphers;
    bool early_data; /* server: takes it (RFC 8446 §2.3); only with session_cache, which
                        sees to it that a ticket is good once, and without verify */
    bool is_mesh;     /* its certificates are workload identities */
    bool verify_late; /* server: a client's certificate that is bad or missing doesn't end
                         the handshake: hd_tls_judge_client tells */
    bool rejects;     /* server: refuses every handshake, and needs no certificate */
    hd_tls_staple_t staples; /* server */
    bool skips_unknown_alpn; /* server: a client that offers none of <alpn> is spoken to as
                                one that offers nothing (Envoy), rather than refused */
    bool alpn_by_protocol;   /* client: without <alpn> HTTP offers what it speaks */
    bool sni_by_endpoint;  /* client: an endpoint's own name is sent in place of <sni> */
    bool verifies_sni;     /* client: the name that is sent is the peer's, whatever <sans>
                              say; without one they count */
    uint16_t record_bytes; /* plaintext of a record written; 0: 16384 */
    hd_str_t dh_pem;       /* parameters of finite-field DH for TLS 1.2; empty: none */
    hd_str_t commands;     /* OpenSSL's SSL_CONF_cmd: "Name\0value\0" each */
    hd_str_t ciphers;      /* OpenSSL's list for TLS 1.2; empty: default */
    hd_str_t ciphersuites;
    hd_str_t groups;
    hd_str_t alpn;          /* wire form (length-prefixed), in order of preference */
    hd_str_t sni;           /* client: sent; empty: none */
    const hd_match_t *sans; /* the peer needs one that matches; n 0: any */
    uint32_t sans_n;
    const uint8_t *san_kinds; /* one for each of sans, hd_tls_san_kind_t; NULL: any */
    const hd_str_t
        *san_oids; /* one for each of sans, in digits; NULL: none is of OTHER */
    hd_str_t cert_hashes;     /* SHA-256 of certificates, 32 bytes each, and ... */
    hd_str_t spki_hashes;  /* of public keys: the peer's leaf has one of all these; with
                              <trust> NULL that is all that is verified */
    bool allow_expired;    /* times aren't looked at */
    bool accept_untrusted; /* a peer of unknown roots is let in, as nobody */
    bool crl_leaf_only;
    bool partial_chain; /* whoever stands among the roots is one, self-signed or not */
    bool revalidates; /* a conn whose peer's certificate is over, or verified no longer
                         since roots or lists have changed, is told to its owner
                         (on_stale) */
    hd_str_t verify_host; /* client: DNS name or address of the peer, beside sans; empty:
                             none */
    bool host_by_subject; /* client: of a certificate without DNS names the subject's
                             common name counts (nginx) */
    uint32_t session_timeout_s;
    const hd_slot_t *ticket_keys; /* server; NULL: made here, and changed by time */
    const struct hd_tls_ocsp_s *ocsp; /* server: responders are asked about clients'
                                         certificates (hd_ocsp.h); NULL: they aren't */
    hd_str_t key_log; /* path of a log that gets sessions' secrets, for who looks into
                         recorded traffic; empty: none */
    hd_str_t session_zone;        /* server: a cell of hd_tls_cache, shared by workers;
                                     empty: with session_cache, each its own */
    uint32_t session_zone_bytes;
    /* By hd_tls_conf_seal */
    uint64_t hash;        /* of all above */
    uint64_t client_hash; /* server: of how clients are verified; 0: they aren't */
    uint64_t peer_hash;   /* server: of what a client has to show, and whether it stays
                             true: a conn outlives a change of our own certificate, but
                             none of what its peer is asked for; never 0 */
} hd_tls_conf_t;

void hd_tls_conf_seal(
    hd_tls_conf_t *conf); /* computes the hashes; last step of building */

/* Facts of the peer's certificate, in the conn's pool. */
typedef struct hd_tls_peer_s {
    hd_str_t version, cipher;
    hd_str_t spiffe_id;                                   /* verified only */
    hd_str_t subject, issuer, serial, fingerprint_sha256; /* hex where binary */
    const hd_str_t *uri_sans, *dns_sans;
    uint32_t uri_sans_n, dns_sans_n;
    int64_t not_before_s, not_after_s;
    bool verified, resumed;
    hd_str_t
        verify_error;  /* why not verified; empty: it is, or there is no certificate */
    hd_str_t leaf_pem, chain_pem; /* for XFCC; lazily: hd_tls_peer_pem, …_chain_pem */
} hd_tls_peer_t;

/* Pushes a TLS layer and starts its handshake; on_open follows when it is done. <conf> is
 * used in this turn only: what is needed longer is a companion. One with <pairs> stays
 * until the handshake's end. */
hd_rc_t hd_tls_push_server(hd_conn_t *c, const hd_tls_conf_t *conf,
                           hd_err_t *err) HD_MUST_CHECK;
/* What one conn wants other than its settings say; empty: as they say. */
typedef struct {
    hd_str_t sni;
    hd_str_t verify_host; /* auto_san */
    hd_str_t alpn;        /* wire form; Istio's alpn filter */
    hd_str_t session_key; /* tells apart what must never share a session: source
                             identity, endpoint */
    hd_str_t cert, key;   /* for settings with <pairs>: their names, or "data:" and the
                             PEM text; empty: no certificate is shown */
} hd_tls_client_t;
/* <ask> may be NULL. May be pushed while the conn connects. */
hd_rc_t hd_tls_push_client(hd_conn_t *c, const hd_tls_conf_t *conf,
                           const hd_tls_client_t *ask, hd_err_t *err) HD_MUST_CHECK;
/* What the client asked for by SNI, in lower case, known from its hello on; empty: nothing,
 * or not TLS. */
hd_str_t hd_tls_server_name(const hd_conn_t *c);
bool hd_tls_is_on(const hd_conn_t *c); /* there is a TLS layer, its handshake is done */
/* It is on, and its handshake isn't over: what was read so far is early data, which may be
 * another one's copy of what a client has sent (RFC 8446 §8). */
bool hd_tls_is_early(const hd_conn_t *c);
/* The facts, gathered on first use into the conn's pool (and c->facts->tls). NULL: not
 * TLS, or the handshake isn't done. */
const hd_tls_peer_t *hd_tls_peer(hd_conn_t *c);
/* The peer's certificate; empty: none. */
hd_str_t hd_tls_peer_pem(hd_conn_t *c);
/* The same, and behind it what else was shown, in its order. A resumed session has the
 * certificate alone. */
hd_str_t hd_tls_peer_chain_pem(hd_conn_t *c);
/* Facts that few ask for: made anew in <pool>, in nginx's form; empty: there is none. */
typedef enum {
    HD_TLS_CIPHERS, /* offered by the client: names, or 0x1301, between ':' */
    HD_TLS_CURVE,
    HD_TLS_CURVES,
    HD_TLS_SIGALGS, /* offered by the client: names, or 0x0804, between ':' */
    HD_TLS_SESSION_ID, /* hex */
    HD_TLS_SIGALG,     /* by which we signed; as RFC 8446 §4.2.3 calls it */
    HD_TLS_PEER_SIGALG,
    HD_TLS_PEER_FINGERPRINT, /* SHA-1, hex */
    HD_TLS_PEER_SUBJECT_LEGACY,
    HD_TLS_PEER_ISSUER_LEGACY,
    HD_TLS_PEER_START, /* as "Nov 28 23:05:25 2026 GMT" */
    HD_TLS_PEER_END,
    HD_TLS_PEER_REMAIN, /* days */
} hd_tls_fact_t;
hd_str_t hd_tls_fact(hd_conn_t *c, hd_tls_fact_t what, hd_pool_t *pool);
/* What verify_late left open. <why>: OpenSSL's words, or NULL. */
typedef enum {
    HD_TLS_CLIENT_GOOD,
    HD_TLS_CLIENT_BAD,
    HD_TLS_CLIENT_NO_CERT
} hd_tls_client_state_t;
hd_tls_client_state_t hd_tls_judge_client(const hd_conn_t *c, const char **why);
/* client_hash of the settings that the handshake was made by; 0: not TLS. */
uint64_t hd_tls_client_hash(const hd_conn_t *c);
uint64_t hd_tls_peer_hash(const hd_conn_t *c); /* their peer_hash; 0: not TLS */

/* The value of a pair's name for a conn in its handshake, in <pool>. HD_ERROR: <err>. Set
 * by who knows variables. */
extern hd_rc_t (*hd_tls_name_eval)(hd_conn_t *c, const struct hd_expr_s *name,
                                   hd_pool_t *pool, hd_str_t *out, hd_err_t *err);
/* Writes a line of a key log, its newline included. Set by who has log files. */
extern void (*hd_tls_write_key_log)(hd_str_t path, hd_str_t line);
bool hd_tls_is_trust_domain(hd_str_t name); /* SPIFFE-ID §2.1 */
/* Tries what the settings say, for builders: ciphers, groups, versions, regexes. Secrets
 * are not looked at. */
hd_rc_t hd_tls_conf_check(const hd_tls_conf_t *conf, bool is_server,
                          hd_err_t *err) HD_MUST_CHECK;
/* Tickets of one process are good in another that had the same seed at the same time. By
 * the master before it forks; without it each process has its own. Keys change every 12
 * hours, and the seed with them, one way: an old key can't be made again. */
void hd_tls_set_ticket_seed(const uint8_t seed[32], int64_t now_s);
void hd_tls_make_ticket_seed(void); /* at random, now */
/* By the master, before each fork: a new child begins where the others are. */
void hd_tls_advance_ticket_seed(int64_t now_s);
/* A zone for session_zone: made by a writer. NULL: <err>. */
#define HD_TLS_ZONE_KIND 0x544c5353u /* of cells: "TLSS" */
hd_rc_t hd_tls_make_zone(hd_member_t *m, hd_str_t name, size_t bytes,
                         hd_err_t *err) HD_MUST_CHECK;

/* By these settings a certificate and its chain can be shown: keys aren't too short, nor
 * signatures too weak. */
hd_rc_t hd_tls_conf_check_cert(const hd_tls_conf_t *conf, bool is_server,
                               hd_str_t chain_pem, hd_err_t *err) HD_MUST_CHECK;
/* A name of OpenSSL's for a cipher, or ciphers, of TLS 1.2. */
bool hd_tls_is_cipher(hd_str_t name);

/* Checks that chain and key fit and parse, and roots and CRLs; fills not_after_s and
 * spiffe_id; for builders. Says which part is wrong and how. An expired certificate is a
 * warning in the log. */
hd_rc_t hd_secret_check(hd_secret_t *s, hd_pool_t *pool, hd_err_t *err) HD_MUST_CHECK;
/* A private key, PEM, without its passphrase: <pem> itself if it has none, else in
 * <pool>. <passphrases>: a line each, the first that fits is taken. */
hd_rc_t hd_tls_key_unlock(hd_str_t pem, hd_str_t passphrases, hd_pool_t *pool,
                          hd_str_t *out, hd_err_t *err) HD_MUST_CHECK;
/* Counts across the process, for /metrics. */
typedef struct {
    uint64_t handshakes, resumed, failed;
} hd_tls_stats_t;
extern hd_tls_stats_t hd_tls_stats;

/* Reads a ClientHello out of the first bytes (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301):
 * for the TLS inspector. HD_OK: parsed; HD_AGAIN: more bytes needed; HD_DECLINED: not
 * TLS; HD_ERROR: TLS, but broken (or over 64 KB). Slices point into <bytes>, or, where
 * records cut the hello in the middle of one, into <hello>, which must stay in place. */
typedef struct {
    hd_str_t sni, alpn_wire; /* as sent: case kept; empty: none */
    uint16_t version_max;    /* 0x0300 to 0x0304; 0: none that we know */
    char _copy[1024];
} hd_client_hello_t;
hd_rc_t hd_tls_parse_client_hello(hd_str_t bytes, hd_client_hello_t *hello) HD_MUST_CHECK;
