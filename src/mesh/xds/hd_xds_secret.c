/* SDS: certificates with keys, roots, keys of session tickets. */
#include "mesh/xds/hd_xds_int.h"

#include <string.h>

/* --- texts out of messages: lent, or in the temporary pool --- */

/* Keys aren't copied to the region, as hd_xds_data would. */
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

hd_rc_t hd_xds_cert_texts(hd_xds_t *x, const PbTls__TlsCertificate *msg,
                          hd_secret_t *texts, hd_err_t *err)
{
    hd_str_t password;

    if (inline_text(msg->certificate_chain, "certificate_chain", &texts->chain_pem,
                    err) != HD_OK ||
        inline_text(msg->private_key, "private_key", &texts->key_pem, err) != HD_OK ||
        inline_text(msg->ocsp_staple, "ocsp_staple", &texts->ocsp_der, err) != HD_OK ||
        inline_text(msg->password, "password", &password, err) != HD_OK)
        return HD_ERROR;
    if (texts->chain_pem.len == 0 || texts->key_pem.len == 0)
        return hd_err_set(err, HD_E_RESOURCE, "a certificate needs chain and key");
    return password.len == 0 ? HD_OK
                             : hd_tls_key_unlock(texts->key_pem, password, x->env->temp,
                                                 &texts->key_pem, err);
}

/* Roots by trust domain (envoy.tls.cert_validator.spiffe). */
static hd_rc_t spiffe_texts(hd_xds_t *x, const PbTls__SPIFFECertValidatorConfig *msg,
                            hd_secret_t *texts, hd_err_t *err)
{
    hd_tls_domain_t *list =
        hd_pool_new_n(x->env->temp, hd_tls_domain_t, hd_max(msg->n_trust_domains, 1u));

    if (msg->n_trust_domains == 0)
        return hd_err_set(err, HD_E_RESOURCE, "no trust domain");
    for (size_t i = 0; i < msg->n_trust_domains; i++) {
        hd_tls_domain_t *d = &list[i];

        d->name = hd_str_c(msg->trust_domains[i]->name);
        for (size_t k = 0; k < i; k++)
            if (hd_str_eq(list[k].name, d->name))
                return hd_err_set(err, HD_E_RESOURCE, "trust domain \"%.*s\" twice",
                                  HD_STR_ARG(d->name));
        if (!hd_tls_is_trust_domain(d->name))
            return hd_err_set(err, HD_E_RESOURCE, "\"%.*s\" is no trust domain",
                              HD_STR_ARG(d->name));
        if (inline_text(msg->trust_domains[i]->trust_bundle, "trust_bundle",
                        &d->trust_pem, err) != HD_OK)
            return HD_ERROR;
        if (d->trust_pem.len == 0)
            return hd_err_set(err, HD_E_RESOURCE, "trust domain \"%.*s\" has no roots",
                              HD_STR_ARG(d->name));
    }
    texts->domains = list;
    texts->domains_n = (uint32_t)msg->n_trust_domains;
    return HD_OK;
}

static hd_rc_t validator_texts(hd_xds_t *x, const PbCore__TypedExtensionConfig *msg,
                               hd_secret_t *texts, hd_err_t *err)
{
    const Pb__Any *any = msg->typed_config;
    const PbTls__SPIFFECertValidatorConfig *m;

    if (any == NULL || !hd_pb_any_is(any, HD_PB(pb_tls__spiffecert_validator_config)))
        return hd_err_set(err, HD_E_RESOURCE,
                          "the certificate validator %s isn't known here",
                          any != NULL ? any->type_url : msg->name);
    m = hd_xds_unpack(x, any, HD_PB(pb_tls__spiffecert_validator_config), err);
    if (m == NULL || spiffe_texts(x, m, texts, err) != HD_OK)
        return hd_err_prefix(err, "custom_validator_config: ");
    return HD_OK;
}

hd_rc_t hd_xds_trust_texts(hd_xds_t *x, const PbTls__CertificateValidationContext *msg,
                           hd_secret_t *texts, hd_err_t *err)
{
    if (inline_text(msg->trusted_ca, "trusted_ca", &texts->trust_pem, err) != HD_OK ||
        inline_text(msg->crl, "crl", &texts->crl_pem, err) != HD_OK ||
        (msg->custom_validator_config != NULL &&
         validator_texts(x, msg->custom_validator_config, texts, err) != HD_OK))
        return HD_ERROR;
    if (texts->domains_n > 0) {
        if (texts->crl_pem.len > 0)
            return hd_err_set(err, HD_E_RESOURCE,
                              "crl: not looked at where roots are by trust domain");
        texts->trust_pem = HD_STR_NONE; /* as in Envoy: it isn't looked at */
    }
    if (texts->crl_pem.len > 0 && texts->trust_pem.len == 0)
        return hd_err_set(err, HD_E_RESOURCE, "a crl without roots (trusted_ca)");
    return texts->trust_pem.len + texts->domains_n > 0 ? HD_OK : HD_DECLINED;
}

hd_rc_t hd_xds_ticket_keys(hd_xds_t *x, const PbTls__TlsSessionTicketKeys *msg,
                           hd_secret_t *texts, hd_err_t *err)
{
    char *to =
        hd_pool_alloc_unaligned(x->env->temp, msg->n_keys * HD_TLS_TICKET_KEY_BYTES + 1);

    if (msg->n_keys == 0)
        return hd_err_set(err, HD_E_RESOURCE, "session_ticket_keys: none");
    texts->ticket_keys = hd_str_n(to, msg->n_keys * HD_TLS_TICKET_KEY_BYTES);
    for (size_t i = 0; i < msg->n_keys; i++, to += HD_TLS_TICKET_KEY_BYTES) {
        hd_str_t key;

        if (inline_text(msg->keys[i], "session_ticket_keys", &key, err) != HD_OK)
            return HD_ERROR;
        if (key.len != 80)
            return hd_err_set(err, HD_E_RESOURCE,
                              "session_ticket_keys: a key has 80 bytes, not %zu",
                              key.len);
        to[0] = 80;
        memcpy(to + 1, key.data, key.len);
    }
    return HD_OK;
}

/* --- a secret out of texts --- */

/* Keys lie in the secret area: not in core dumps, zeroed on release. */
static hd_rc_t copy_secret(hd_xds_t *x, hd_str_t text, hd_str_t *to, hd_err_t *err)
{
    char *room;

    if (text.len == 0)
        return HD_OK;
    if (x->cf.region == NULL) { /* a tool's: nothing is kept */
        *to = hd_str_dup(x->cf.pool, text);
        return HD_OK;
    }
    room = hd_batch_secret(x->env->batch, x->cf.region, text.len, err);
    if (room == NULL)
        return HD_ERROR;
    memcpy(room, text.data, text.len);
    *to = hd_str_n(room, text.len);
    return HD_OK;
}

static hd_rc_t copy_texts(hd_xds_t *x, const hd_secret_t *texts, hd_secret_t *s,
                          hd_err_t *err)
{
    hd_tls_domain_t *domains =
        hd_pool_new_n(x->cf.pool, hd_tls_domain_t, hd_max(texts->domains_n, 1u));

    s->chain_pem = hd_str_dup(x->cf.pool, texts->chain_pem);
    s->trust_pem = hd_str_dup(x->cf.pool, texts->trust_pem);
    s->crl_pem = hd_str_dup(x->cf.pool, texts->crl_pem);
    s->ocsp_der = hd_str_dup(x->cf.pool, texts->ocsp_der);
    for (uint32_t i = 0; i < texts->domains_n; i++) {
        domains[i].name = hd_str_dup(x->cf.pool, texts->domains[i].name);
        domains[i].trust_pem = hd_str_dup(x->cf.pool, texts->domains[i].trust_pem);
    }
    s->domains = domains;
    s->domains_n = texts->domains_n;
    if (copy_secret(x, texts->key_pem, &s->key_pem, err) != HD_OK ||
        copy_secret(x, texts->ticket_keys, &s->ticket_keys, err) != HD_OK)
        return HD_ERROR;
    if (hd_secret_check(s, x->cf.pool, err) != HD_OK)
        return HD_ERROR;
    return s->chain_pem.len > 0
               ? hd_tls_conf_check_cert(&(hd_tls_conf_t){0}, true, s->chain_pem, err)
               : HD_OK;
}

hd_rc_t hd_xds_secret(hd_xds_t *x, const PbTls__Secret *msg, const void **root,
                      hd_err_t *err)
{
    hd_secret_t *s = hd_pool_new(x->cf.pool, hd_secret_t), texts = {0};
    hd_rc_t rc;

    switch (msg->type_case) {
    case PB_TLS__SECRET__TYPE_TLS_CERTIFICATE:
        rc = hd_xds_cert_texts(x, msg->tls_certificate, &texts, err);
        break;
    case PB_TLS__SECRET__TYPE_VALIDATION_CONTEXT:
        rc = hd_xds_trust_texts(x, msg->validation_context, &texts, err);
        if (rc == HD_DECLINED)
            return hd_err_set(err, HD_E_RESOURCE, "no roots (trusted_ca) in it");
        if (rc == HD_OK)
            rc = hd_xds_checks(x, msg->validation_context, &s->checks, err);
        break;
    case PB_TLS__SECRET__TYPE_SESSION_TICKET_KEYS:
        rc = hd_xds_ticket_keys(x, msg->session_ticket_keys, &texts, err);
        break;
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "a secret that is neither certificate, roots nor ticket keys");
    }
    *root = s;
    return rc == HD_OK ? copy_texts(x, &texts, s, err) : HD_ERROR;
}

uint64_t hd_xds_secret_hash(const hd_secret_t *texts)
{
    const hd_str_t all[] = {texts->chain_pem, texts->key_pem,  texts->trust_pem,
                            texts->crl_pem,   texts->ocsp_der, texts->ticket_keys};
    uint64_t h = 1;

    for (size_t i = 0; i < hd_countof(all); i++)
        h = hd_hash64(all[i].data, all[i].len, h);
    for (uint32_t i = 0; i < texts->domains_n; i++) {
        h = hd_hash64(texts->domains[i].name.data, texts->domains[i].name.len, h);
        h = hd_hash64(texts->domains[i].trust_pem.data, texts->domains[i].trust_pem.len,
                      h);
    }
    return h != 0 ? h : 1;
}

hd_rc_t hd_xds_put_secret(const hd_xds_env_t *env, hd_str_t name,
                          const hd_secret_t *texts, hd_slot_t **slot, hd_err_t *err)
{
    hd_xds_t x = {.env = env};
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
    if (copy_texts(&x, texts, s, err) != HD_OK) {
        hd_batch_drop(env->batch, x.cf.region);
        return HD_ERROR;
    }
    rc = hd_batch_put(env->batch, *slot, x.cf.region, s, hd_xds_secret_hash(texts), err);
    return rc == HD_DONE ? HD_OK : rc;
}
