/* hd_tls_ask: has the client's certificate been revoked? Its issuers' responders are
 * asked between the handshake's end and the conn's opening (hd_ocsp.h); the loop goes on
 * meanwhile, and nothing that the client sends is read before the answer is there.
 *
 *   handshake -> (verified) -> leaf -> its issuer … -> all good: open
 *                                  \-> revoked, unknown, no answer: refused, or open as
 *                                      unverified where HTTP is to tell (verify_late)
 *
 * Answers that count are kept in a zone that workers share, until there are newer ones.
 */
#include "core/base/hd_log.h"
#include "core/loom/hd_state.h"
#include "core/net/hd_ocsp_int.h"
#include "core/net/hd_tls_cache.h"
#include "core/net/hd_tls_int.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>

enum { QUESTIONS_MAX = 1024 /* under way in a worker */ };

struct hd_tls_asking_s {
    hd_tls_layer_t *l;
    STACK_OF(X509) * chain; /* the leaf first, the root last */
    int at;                 /* whom the question under way is about */
    hd_ocsp_t *cert;        /* the same; NULL: none is under way */
    hd_ocsp_fetch_t *fetch;
};

static _Thread_local unsigned questions_n;

const char *hd_tls_doubt_text(hd_tls_doubt_t doubt)
{
    switch (doubt) {
    case HD_TLS_UNANSWERED:
        return "certificate status request failed";
    case HD_TLS_REVOKED:
        return "certificate revoked";
    case HD_TLS_UNKNOWN:
        return "certificate status unknown";
    default:
        return NULL;
    }
}

static void end_question(hd_tls_asking_t *a)
{
    if (a->fetch != NULL)
        hd_ocsp_fetcher->cancel(a->fetch);
    if (a->cert != NULL)
        questions_n--;
    hd_ocsp_destroy(a->cert);
    a->fetch = NULL;
    a->cert = NULL;
}

void hd_tls_ask_stop(hd_tls_layer_t *l)
{
    hd_tls_asking_t *a = l->held != NULL ? l->held->asking : NULL;

    if (a == NULL)
        return;
    end_question(a);
    sk_X509_pop_free(a->chain, X509_free);
    free(a);
    l->held->asking = NULL;
}

/* --- answers that are known --- */

static hd_tls_cache_t *zone_of(const hd_tls_layer_t *l)
{
    hd_tls_ctx_t *ctx = l->ctx;
    const hd_tls_ocsp_t *o = ctx->conf.ocsp;

    if (ctx->answers == NULL && ctx->member != NULL && o->zone.len > 0)
        ctx->answers =
            hd_cell_get(ctx->member, HD_TLS_ZONE_KIND, o->zone, o->zone_bytes);
    return ctx->answers;
}

/* Of the certificate, of who is its issuer here, and of who was asked. */
static void make_key(const hd_tls_asking_t *a, unsigned char key[32])
{
    hd_str_t responder = a->l->ctx->conf.ocsp->responder;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char issuer[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    hd_bug_on(md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1 ||
              X509_digest(sk_X509_value(a->chain, a->at + 1), EVP_sha256(), issuer, &n) !=
                  1 ||
              EVP_DigestUpdate(md, issuer, n) != 1 ||
              EVP_DigestUpdate(md, hd_ocsp_fingerprint(a->cert), 32) != 1 ||
              EVP_DigestUpdate(md, responder.data, responder.len) != 1 ||
              EVP_DigestFinal_ex(md, key, NULL) != 1);
    EVP_MD_CTX_free(md);
}

/* False: it must be asked for. */
static bool find_known(const hd_tls_asking_t *a, hd_ocsp_status_t *status)
{
    hd_tls_cache_t *zone = zone_of(a->l);
    unsigned char key[32];
    char known;

    if (zone == NULL)
        return false;
    make_key(a, key);
    if (hd_tls_cache_get(zone, a->l->ctx->conf.ocsp->zone_bytes,
                         hd_str_n((const char *)key, sizeof(key)), hd_tls_now_s(a->l),
                         &known, 1) != 1)
        return false;
    *status = known == 'g' ? HD_OCSP_GOOD : HD_OCSP_REVOKED;
    return known == 'g' || known == 'r';
}

static void keep(const hd_tls_asking_t *a, const hd_ocsp_answer_t *answer)
{
    hd_tls_cache_t *zone = zone_of(a->l);
    int64_t now_s = hd_tls_now_s(a->l);
    unsigned char key[32];

    if (zone == NULL || answer->next_s == 0 || answer->status == HD_OCSP_UNKNOWN)
        return;
    make_key(a, key);
    hd_ignore(hd_tls_cache_try_put(
        zone, a->l->ctx->conf.ocsp->zone_bytes, hd_str_n((const char *)key, sizeof(key)),
        answer->status == HD_OCSP_GOOD ? HD_STR("g") : HD_STR("r"),
        hd_min(answer->next_s, now_s + HD_OCSP_REFRESH_S), now_s));
}

/* --- asking --- */

static hd_tls_doubt_t doubt_of(hd_ocsp_status_t status)
{
    return status == HD_OCSP_GOOD      ? HD_TLS_NO_DOUBT
           : status == HD_OCSP_REVOKED ? HD_TLS_REVOKED
                                       : HD_TLS_UNKNOWN;
}

static hd_str_t responder_of(const hd_tls_asking_t *a)
{
    hd_str_t own = a->l->ctx->conf.ocsp->responder;

    return own.len > 0 ? own : hd_ocsp_responder(a->cert);
}

static void tell_failure(const hd_tls_asking_t *a, const char *why)
{
    hd_str_t url = responder_of(a);

    hd_log_conn(HD_LOG_ERROR, a->l->layer.conn->id,
                "no answer about the client's certificate from OCSP responder \"%.*s\": "
                "%s",
                HD_STR_ARG(url), why);
}

static void on_answer(void *arg, hd_str_t der, const hd_err_t *failure);

/* HD_AGAIN: it is under way. */
static hd_rc_t start_question(hd_tls_asking_t *a, const hd_tls_trust_t *trust)
{
    const hd_tls_ocsp_t *conf = a->l->ctx->conf.ocsp;
    hd_ocsp_status_t status;
    hd_err_t err = {0};
    hd_ocsp_ask_t ask;

    a->cert =
        hd_ocsp_create_of(sk_X509_value(a->chain, a->at),
                          sk_X509_value(a->chain, a->at + 1), trust->store, a->chain);
    questions_n++;
    if (find_known(a, &status)) {
        a->l->doubt = (uint8_t)doubt_of(status);
        end_question(a);
        return HD_OK;
    }
    ask = (hd_ocsp_ask_t){.cluster = conf->cluster,
                          .url = responder_of(a),
                          .resolver = conf->resolver,
                          .request = hd_ocsp_request(a->cert)};
    if (ask.url.len == 0)
        hd_ignore(hd_err_set(&err, HD_E_TLS, "none is named by the certificate") !=
                  HD_ERROR);
    else if (questions_n > QUESTIONS_MAX)
        hd_ignore(hd_err_set(&err, HD_E_LIMIT, "%d questions are under way",
                             QUESTIONS_MAX) != HD_ERROR);
    else if (hd_ocsp_fetcher == NULL)
        hd_ignore(hd_err_set(&err, HD_E_INTERNAL, "nobody can be asked") != HD_ERROR);
    else
        a->fetch = hd_ocsp_fetcher->start(a->l->layer.conn->loop, &ask, on_answer, a,
                                          &err);
    if (a->fetch != NULL)
        return HD_AGAIN;
    tell_failure(a, err.text);
    a->l->doubt = HD_TLS_UNANSWERED;
    end_question(a);
    return HD_OK;
}

/* Asks about one after the other, until there is a doubt; the root needs no answer. */
static hd_rc_t go_on(hd_tls_asking_t *a)
{
    hd_tls_layer_t *l = a->l;
    int last = sk_X509_num(a->chain) - 1;
    const hd_tls_trust_t *trust = hd_tls_trust_of(l, NULL);

    if (l->ctx->conf.ocsp->leaf_only)
        last = hd_min(last, 1);
    if (trust == NULL)
        l->doubt = HD_TLS_UNANSWERED;
    for (; a->at < last && l->doubt == HD_TLS_NO_DOUBT; a->at++)
        if (start_question(a, trust) == HD_AGAIN)
            return HD_AGAIN;
    hd_tls_ask_stop(l);
    return HD_OK;
}

static void on_answer(void *arg, hd_str_t der, const hd_err_t *failure)
{
    hd_tls_asking_t *a = arg;
    hd_tls_layer_t *l = a->l;
    hd_ocsp_answer_t answer;
    hd_err_t err = {0};

    a->fetch = NULL;
    if (failure != NULL) {
        tell_failure(a, failure->text);
        l->doubt = HD_TLS_UNANSWERED;
    } else if (hd_ocsp_judge(a->cert, der, hd_tls_now_s(l), &answer, &err) != HD_OK) {
        tell_failure(a, err.text);
        l->doubt = HD_TLS_UNANSWERED;
    } else {
        keep(a, &answer);
        l->doubt = (uint8_t)doubt_of(answer.status);
    }
    end_question(a);
    a->at++;
    if (go_on(a) == HD_OK)
        hd_tls_asked(l);
}

hd_rc_t hd_tls_ask(hd_tls_layer_t *l)
{
    hd_tls_asking_t *a;
    STACK_OF(X509) *chain = hd_tls_peer_path(l);

    if (chain == NULL) { /* resumed, and its issuers aren't known: see hd_tls_verify */
        l->doubt = HD_TLS_UNANSWERED;
        return HD_OK;
    }
    a = calloc(1, sizeof(*a));
    hd_bug_on(a == NULL);
    a->l = l;
    a->chain = chain;
    l->held->asking = a;
    return go_on(a);
}
