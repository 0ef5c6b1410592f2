/* SDS: certificates with keys, and roots. */
#include "mesh/xds/hd_xds_int.h"

#include <string.h>

/* A key lies in the secret area: not in core dumps, zeroed on release. */
static hd_rc_t set_key(hd_xds_t *x, hd_secret_t *s, hd_str_t key, hd_err_t *err)
{
    char *to;

    if (key.len == 0)
        return HD_OK;
    if (x->cf.region == NULL) { /* a tool's: nothing is kept */
        s->key_pem = hd_str_dup(x->cf.pool, key);
        return HD_OK;
    }
    to = hd_batch_secret(x->env->batch, x->cf.region, key.len, err);
    if (to == NULL)
        return HD_ERROR;
    memcpy(to, key.data, key.len);
    s->key_pem = hd_str_n(to, key.len);
    return HD_OK;
}

/* The key's text isn't copied to the region, as hd_xds_data would. */
static hd_rc_t inline_text(const PbCore__DataSource *msg, const char *what,
                           hd_str_t *text, hd_err_t *err)
{
    *text = HD_STR_NONE;
    if (msg == NULL)
        return HD_OK;
    if (msg->specifier_case == PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES)
        *text = hd_str_n((const char *)msg->inline_bytes.data, msg->inline_bytes.len);
    else if (msg->specifier_case == PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING)
        *text = hd_str_c(msg->inline_string);
    else
        return hd_err_set(err, HD_E_RESOURCE, "%s: only inline text is taken", what);
    return HD_OK;
}

static hd_rc_t build_cert(hd_xds_t *x, const PbTls__TlsCertificate *msg, hd_secret_t *s,
                          hd_err_t *err)
{
    hd_str_t chain, key;

    if (inline_text(msg->certificate_chain, "certificate_chain", &chain, err) != HD_OK ||
        inline_text(msg->private_key, "private_key", &key, err) != HD_OK)
        return HD_ERROR;
    if (chain.len == 0 || key.len == 0)
        return hd_err_set(err, HD_E_RESOURCE, "a certificate needs chain and key");
    s->chain_pem = hd_str_dup(x->cf.pool, chain);
    return set_key(x, s, key, err);
}

static hd_rc_t build_roots(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                           hd_secret_t *s, hd_err_t *err)
{
    if (msg->n_match_subject_alt_names + msg->n_match_typed_subject_alt_names > 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "SANs to match stand in the secret: they are taken from the "
                          "listener or cluster only");
    if (hd_xds_data(x, msg->trusted_ca, &s->trust_pem, err) != HD_OK ||
        hd_xds_data(x, msg->crl, &s->crl_pem, err) != HD_OK)
        return HD_ERROR;
    return s->trust_pem.len > 0
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE, "no roots (trusted_ca) in it");
}

hd_rc_t hd_xds_secret(hd_xds_t *x, const PbTls__Secret *msg, const void **root,
                      hd_err_t *err)
{
    hd_secret_t *s = hd_pool_new(x->cf.pool, hd_secret_t);
    hd_rc_t rc;

    switch (msg->type_case) {
    case PB_TLS__SECRET__TYPE_TLS_CERTIFICATE:
        rc = build_cert(x, msg->tls_certificate, s, err);
        break;
    case PB_TLS__SECRET__TYPE_VALIDATION_CONTEXT:
        rc = build_roots(x, msg->validation_context, s, err);
        break;
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "a secret that is neither certificate nor roots");
    }
    *root = s;
    return rc == HD_OK ? hd_secret_check(s, x->cf.pool, err) : HD_ERROR;
}

hd_rc_t hd_xds_put_secret(const hd_xds_env_t *env, hd_str_t name, hd_str_t chain_pem,
                          hd_str_t key_pem, hd_str_t trust_pem, hd_slot_t **slot,
                          hd_err_t *err)
{
    hd_xds_t x = {.env = env};
    uint64_t hash = hd_hash64(chain_pem.data, chain_pem.len, 1);
    hd_secret_t *s;
    hd_rc_t rc;

    *slot = hd_slot_find_or_add(env->arena, HD_RES_SECRET, name, err);
    if (*slot == NULL)
        return HD_ERROR;
    x.cf.region = hd_batch_region(env->batch, HD_RES_SECRET, name, HD_STR("agent"), 0,
                                  &x.cf.pool, err);
    if (x.cf.region == NULL)
        return HD_ERROR;
    s = hd_pool_new(x.cf.pool, hd_secret_t);
    s->chain_pem = hd_str_dup(x.cf.pool, chain_pem);
    s->trust_pem = hd_str_dup(x.cf.pool, trust_pem);
    if (set_key(&x, s, key_pem, err) != HD_OK ||
        hd_secret_check(s, x.cf.pool, err) != HD_OK) {
        hd_batch_drop(env->batch, x.cf.region);
        return HD_ERROR;
    }
    hash = hd_hash64(key_pem.data, key_pem.len, hash);
    hash = hd_hash64(trust_pem.data, trust_pem.len, hash);
    rc = hd_batch_put(env->batch, *slot, x.cf.region, s, hash != 0 ? hash : 1, err);
    return rc == HD_DONE ? HD_OK : rc;
}
