#include "mesh/xds/hd_xds_ca.h"
#include "core/hd_grpc.h"
#include "proto/hd_pb.h"
#include "istio/ca.pb-c.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METHOD "/istio.v1.auth.IstioCertificateService/CreateCertificate"
#define ANSWER_MAX ((size_t)4 << 20)
#define TIMEOUT_MS 30000
#define RENEW_MIN_MS 1000
#define ROOTS_SPREAD_MS 1000
#define RENEW_MAX_MS ((uint64_t)24 * 3600 * 1000 * 30)

struct hd_xca_s {
    hd_proc_t *proc;
    hd_xstore_t *store;
    const hd_xds_conf_t *conf;
    hd_xds_peer_t peer;
    hd_call_t *call;
    hd_chain_t in;
    hd_str_t key_pem; /* of the request under way; zeroed when freed */
    hd_timer_t timer;
    hd_xds_backoff_t backoff;
    hd_xca_stats_t stats;
    char why[HD_ERR_TEXT_MAX]; /* the answer's own failure; empty: none */
    bool is_done;              /* a certificate was taken from the answer */
    /* Roots, hashed; 0: none yet. Came with the certificate, told of by the control plane,
     * and what was told when we asked last: one that never gives these isn't asked again. */
    uint64_t has, told, asked_for;
};

static void forget_key(hd_xca_t *ca)
{
    if (ca->key_pem.data == NULL)
        return;
    OPENSSL_cleanse((char *)ca->key_pem.data, ca->key_pem.len);
    free((char *)ca->key_pem.data);
    ca->key_pem = HD_STR_NONE;
}

/* --- key and request --- */

static hd_str_t take_text(BIO *bio)
{
    char *data, *copy;
    long len = BIO_get_mem_data(bio, &data);

    copy = malloc((size_t)len + 1);
    hd_bug_on(copy == NULL);
    memcpy(copy, data, (size_t)len);
    copy[len] = '\0';
    OPENSSL_cleanse(data, (size_t)len);
    return hd_str_n(copy, (size_t)len);
}

/* One extension: subjectAltName URI, critical since the subject is empty (RFC 5280
 * §4.2.1.6). */
static bool add_identity(X509_REQ *req, hd_str_t identity)
{
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    char text[2200];
    X509_EXTENSION *san;
    bool is_good;

    (void)snprintf(text, sizeof(text), "critical,URI:%.*s", HD_STR_ARG(identity));
    san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, text);
    is_good = san != NULL && list != NULL && sk_X509_EXTENSION_push(list, san) > 0 &&
              X509_REQ_add_extensions(req, list) == 1;
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    return is_good;
}

/* PEM texts; the caller's. */
static bool make_request(hd_str_t identity, hd_str_t *key_pem, hd_str_t *csr_pem)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509_REQ *req = X509_REQ_new();
    BIO *key_bio = BIO_new(BIO_s_mem()), *csr_bio = BIO_new(BIO_s_mem());
    bool is_good =
        key != NULL && req != NULL && key_bio != NULL && csr_bio != NULL &&
        X509_REQ_set_version(req, 0) == 1 && X509_REQ_set_pubkey(req, key) == 1 &&
        add_identity(req, identity) && X509_REQ_sign(req, key, EVP_sha256()) > 0 &&
        PEM_write_bio_X509_REQ(csr_bio, req) == 1 &&
        PEM_write_bio_PKCS8PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1;

    if (is_good) {
        *key_pem = take_text(key_bio);
        *csr_pem = take_text(csr_bio);
    }
    BIO_free(key_bio);
    BIO_free(csr_bio);
    X509_REQ_free(req);
    EVP_PKEY_free(key);
    return is_good;
}

/* --- the call --- */

static void retry(hd_xca_t *ca, const char *why)
{
    uint64_t ms = hd_xds_backoff_ms(&ca->backoff);

    ca->stats.failed++;
    hd_log(HD_LOG_ERROR, "xds: no certificate from %.*s: %s; asked again in %llu ms",
           HD_STR_ARG(ca->conf->ca.host), why, (unsigned long long)ms);
    forget_key(ca);
    hd_timer_set(ca->proc->loop, &ca->timer, ms);
}

/* Chain without the last element, which is the roots. */
static hd_str_t join(hd_pool_t *pool, const PbCa__IstioCertificateResponse *msg)
{
    hd_str_t all = HD_STR_NONE;

    for (size_t i = 0; i + 1 < msg->n_cert_chain; i++)
        all = hd_str_printf(
            pool, "%.*s%s%s", HD_STR_ARG(all), msg->cert_chain[i],
            hd_str_has_suffix(hd_str_c(msg->cert_chain[i]), HD_STR("\n")) ? "" : "\n");
    return all;
}

static hd_rc_t take_certificate(hd_xca_t *ca, const PbCa__IstioCertificateResponse *msg,
                                hd_pool_t *pool, hd_err_t *err)
{
    hd_secret_t s = {.key_pem = ca->key_pem};
    hd_secret_t roots = {0};

    if (msg->n_cert_chain < 2)
        return hd_err_set(err, HD_E_TLS, "the answer has no certificate and roots");
    s.chain_pem = join(pool, msg);
    roots.trust_pem = hd_str_c(msg->cert_chain[msg->n_cert_chain - 1]);
    if (hd_secret_check(&s, pool, err) != HD_OK ||
        hd_secret_check(&roots, pool, err) != HD_OK)
        return HD_ERROR;
    if (!hd_str_eq(s.spiffe_id, ca->conf->identity))
        return hd_err_set(err, HD_E_TLS,
                          "the certificate is for \"%.*s\", asked for was "
                          "\"%.*s\"",
                          HD_STR_ARG(s.spiffe_id), HD_STR_ARG(ca->conf->identity));
    hd_xstore_put_local(ca->store, HD_STR("ROOTCA"), HD_STR_NONE, HD_STR_NONE,
                        roots.trust_pem);
    hd_xstore_put_local(ca->store, HD_STR("default"), s.chain_pem, s.key_pem,
                        HD_STR_NONE);
    ca->has = hd_hash64(roots.trust_pem.data, roots.trust_pem.len, 0);
    ca->stats.issued++;
    ca->stats.not_after_s = s.not_after_s;
    return HD_OK;
}

static bool lacks_roots(const hd_xca_t *ca)
{
    return ca->told != 0 && ca->told != ca->has && ca->told != ca->asked_for;
}

static uint64_t spread_ms(void)
{
    uint16_t random = 0;

    hd_ignore(RAND_bytes((uint8_t *)&random, sizeof(random)) == 1); /* 0 is as good */
    return random % ROOTS_SPREAD_MS;
}

static void renew_later(hd_xca_t *ca)
{
    int64_t now_s = hd_loop_wall_ns(ca->proc->loop) / 1000000000;
    int64_t left_s = ca->stats.not_after_s - now_s;
    uint64_t ms = left_s > 0 ? (uint64_t)left_s * 500 : 0;

    ca->backoff.failures = 0;
    hd_log(HD_LOG_NOTICE, "xds: certificate for %.*s, good for %lld s",
           HD_STR_ARG(ca->conf->identity), (long long)left_s);
    ms = lacks_roots(ca) ? spread_ms()
                         : hd_min(hd_max(ms, (uint64_t)RENEW_MIN_MS), RENEW_MAX_MS);
    hd_timer_set(ca->proc->loop, &ca->timer, ms);
}

static void take_answer(hd_xca_t *ca, const uint8_t *bytes, size_t len)
{
    const PbCa__IstioCertificateResponse *msg;
    hd_pool_t *pool = hd_pool_create(0);
    hd_err_t err = {0};
    hd_pb_arena_t pb;

    hd_pb_arena_init(&pb, 4 * ANSWER_MAX);
    msg = hd_pb_unpack(HD_PB(pb_ca__istio_certificate_response), bytes, len, &pb, NULL);
    if (msg == NULL)
        (void)snprintf(ca->why, sizeof(ca->why), "an answer that can't be read");
    else if (take_certificate(ca, msg, pool, &err) != HD_OK)
        (void)snprintf(ca->why, sizeof(ca->why), "%s", err.text);
    else
        ca->is_done = true;
    hd_pb_arena_deinit(&pb);
    hd_pool_destroy(pool);
}

static void on_head(hd_call_t *call, unsigned status, const hd_headers_t *headers)
{
    hd_xca_t *ca = hd_call_arg(call);
    hd_str_t message;
    unsigned grpc = hd_xds_peer_status(headers, &message);

    if (status != 200)
        (void)snprintf(ca->why, sizeof(ca->why), "HTTP status %u", status);
    else if (grpc != HD_GRPC_NO_STATUS && grpc != 0)
        (void)snprintf(ca->why, sizeof(ca->why), "%s: %.*s", hd_grpc_status_name(grpc),
                       HD_STR_ARG(message));
}

static void on_body(hd_call_t *call, hd_chain_t *body)
{
    hd_xca_t *ca = hd_call_arg(call);
    uint8_t *bytes;
    size_t len;
    hd_err_t err = {0};
    hd_rc_t rc;

    hd_chain_move(&ca->in, body);
    if (ca->is_done || ca->why[0] != '\0')
        return;
    rc = hd_grpc_take_message(&ca->in, ANSWER_MAX, &bytes, &len, &err);
    if (rc == HD_OK) {
        take_answer(ca, bytes, len);
        free(bytes);
    } else if (rc == HD_ERROR) {
        (void)snprintf(ca->why, sizeof(ca->why), "%s", err.text);
    }
}

static void on_end(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *err)
{
    hd_xca_t *ca = hd_call_arg(call);
    hd_str_t message;
    unsigned status = hd_xds_peer_status(trailers, &message);

    ca->call = NULL;
    hd_chain_free(&ca->in);
    if (ca->is_done) {
        forget_key(ca);
        renew_later(ca);
        return;
    }
    if (ca->why[0] == '\0' && err != NULL)
        (void)snprintf(ca->why, sizeof(ca->why), "%s", err->text);
    if (ca->why[0] == '\0')
        (void)snprintf(ca->why, sizeof(ca->why), "%s: %.*s",
                       status != HD_GRPC_NO_STATUS ? hd_grpc_status_name(status)
                                                   : "no answer",
                       HD_STR_ARG(message));
    retry(ca, ca->why);
}

static const hd_call_user_t call_user = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

static bool send_request(hd_xca_t *ca, hd_str_t csr)
{
    PbCa__IstioCertificateRequest msg;
    ProtobufCBinaryData bytes;
    hd_pb_arena_t pb;
    hd_chain_t out;
    bool is_good;

    pb_ca__istio_certificate_request__init(&msg);
    msg.csr = csr.data;
    msg.validity_duration = (int64_t)(ca->conf->cert_ttl_ms / 1000);
    hd_pb_arena_init(&pb, ANSWER_MAX);
    hd_chain_init(&out);
    is_good = hd_pb_pack(&msg, &pb, &bytes) &&
              hd_grpc_try_add_message(&out, bytes.data, bytes.len);
    if (is_good) {
        hd_chain_set_flags(&out, HD_SLICE_END);
        hd_call_send(ca->call, &out);
    }
    hd_pb_arena_deinit(&pb);
    return is_good;
}

static void ask(hd_xca_t *ca)
{
    hd_str_t csr = HD_STR_NONE;
    hd_err_t err = {0};

    ca->is_done = false;
    ca->why[0] = '\0';
    ca->asked_for = ca->told;
    if (!make_request(ca->conf->identity, &ca->key_pem, &csr)) {
        retry(ca, "the key couldn't be made");
        return;
    }
    ca->call = hd_xds_peer_call(&ca->peer, ca->proc->loop, ca->proc->member, METHOD,
                                TIMEOUT_MS, &call_user, ca, &err);
    if (ca->call == NULL)
        retry(ca, err.text);
    else if (!send_request(ca, csr))
        (void)snprintf(ca->why, sizeof(ca->why), "no room for the request");
    free((char *)csr.data);
}

static void on_timer(hd_timer_t *t)
{
    ask(hd_container_of(t, hd_xca_t, timer));
}

void hd_xca_roots_told(hd_xca_t *ca, hd_str_t pem)
{
    ca->told = hd_hash64(pem.data, pem.len, 0);
    if (!lacks_roots(ca) || ca->call != NULL)
        return; /* what is under way is looked at when it has ended */
    hd_log(HD_LOG_NOTICE, "xds: other roots are to be trusted: asking for them");
    hd_timer_set(ca->proc->loop, &ca->timer, spread_ms());
}

hd_xca_t *hd_xca_create(hd_proc_t *p, hd_xstore_t *store, const hd_xds_conf_t *conf,
                        hd_pool_t *pool)
{
    hd_xca_t *ca = calloc(1, sizeof(*ca));

    hd_bug_on(ca == NULL);
    ca->proc = p;
    ca->store = store;
    ca->conf = conf;
    hd_xds_peer_init(&ca->peer, &conf->ca, conf, pool);
    hd_chain_init(&ca->in);
    hd_timer_init(&ca->timer, on_timer);
    ask(ca);
    return ca;
}

void hd_xca_destroy(hd_xca_t *ca)
{
    if (ca->call != NULL)
        hd_call_cancel(ca->call);
    hd_timer_stop(ca->proc->loop, &ca->timer);
    hd_chain_free(&ca->in);
    forget_key(ca);
    free(ca);
}

void hd_xca_get_stats(const hd_xca_t *ca, hd_xca_stats_t *stats)
{
    *stats = ca->stats;
}
