#include "core/conf/hd_conf_secret.h"
#include "core/base/hd_small_file.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_resolver.h"
#include "core/net/hd_ocsp.h"
#include "core/net/hd_tls.h"
#include "core/os/hd_os.h"

#include <unistd.h>

#define FILE_BYTES_MAX (4u << 20) /* system-wide roots are some 220 KB */

/* nginx's "data:…": the text stands in the configuration. */
static bool is_data(hd_str_t path)
{
    return hd_str_has_prefix(path, HD_STR("data:"));
}

static char *take_room(hd_conf_t *cf, hd_pool_t *pool, hd_region_t *r, size_t bytes,
                       hd_err_t *err)
{
    return r != NULL ? hd_batch_secret(cf->batch, r, bytes + 1, err)
                     : hd_pool_alloc_unaligned(pool, bytes + 1);
}

static hd_rc_t copy_text(hd_conf_t *cf, hd_str_t from, hd_pool_t *pool, hd_region_t *r,
                         hd_str_t *text, hd_err_t *err)
{
    char *to = take_room(cf, pool, r, from.len, err);

    if (to == NULL)
        return HD_ERROR;
    if (from.len > 0)
        memcpy(to, from.data, from.len);
    *text = hd_str_n(to, from.len);
    return HD_OK;
}

/* Reads <path> into <pool>, or for a key (<r> set) into the secret area. */
static hd_rc_t read_file(hd_conf_t *cf, hd_str_t path, const char *what, hd_pool_t *pool,
                         hd_region_t *r, hd_str_t *text, hd_err_t *err)
{
    hd_small_file_t f;
    char *to;

    if (path.len == 0)
        return HD_OK;
    if (is_data(path))
        return copy_text(cf, hd_str_sub(path, 5, path.len), pool, r, text, err);
    if (hd_small_file_open(&f, hd_str_to_c(cf->temp, path), FILE_BYTES_MAX, what, err) !=
        HD_OK)
        return HD_ERROR;
    to = take_room(cf, pool, r, f.bytes, err);
    if (to == NULL) {
        hd_ignore(close(f.fd)); /* read only: nothing to lose */
        return HD_ERROR;
    }
    return hd_small_file_take(&f, to, text, err) == HD_OK
               ? HD_OK
               : hd_err_prefix(err, "%s \"%.*s\": ", what, HD_STR_ARG(path));
}

/* A key that has a passphrase is unlocked here, once: workers get it open, in the secret
 * area. */
static hd_rc_t read_key(hd_conf_t *cf, const hd_conf_secret_t *files, hd_region_t *r,
                        hd_secret_t *s, hd_err_t *err)
{
    hd_str_t locked, words, key;
    hd_pool_t *temp;
    hd_rc_t rc = HD_ERROR;

    if (files->passwords.len == 0 || files->key.len == 0)
        return read_file(cf, files->key, "certificate key", NULL, r, &s->key_pem, err);
    temp = hd_pool_create(0);
    if (read_file(cf, files->key, "certificate key", temp, NULL, &locked, err) == HD_OK &&
        read_file(cf, files->passwords, "passphrases", temp, NULL, &words, err) ==
            HD_OK &&
        hd_tls_key_unlock(locked, words, temp, &key, err) == HD_OK) {
        rc = copy_text(cf, key, NULL, r, &s->key_pem, err);
        explicit_bzero((char *)(uintptr_t)key.data, key.len);
        explicit_bzero((char *)(uintptr_t)words.data, words.len);
    }
    hd_pool_destroy(temp);
    return rc;
}

static hd_rc_t read_ticket_keys(hd_conf_t *cf, const hd_conf_secret_t *files,
                                hd_region_t *r, hd_secret_t *s, hd_err_t *err)
{
    hd_pool_t *temp = hd_pool_create(0);
    hd_rc_t rc = HD_OK;
    char *to;

    to = hd_batch_secret(cf->batch, r, files->ticket_keys_n * HD_TLS_TICKET_KEY_BYTES,
                         err);
    if (to == NULL)
        rc = HD_ERROR;
    s->ticket_keys = hd_str_n(to, files->ticket_keys_n * HD_TLS_TICKET_KEY_BYTES);
    for (uint32_t i = 0; i < files->ticket_keys_n && rc == HD_OK; i++) {
        hd_str_t text = HD_STR_NONE;

        rc = read_file(cf, files->ticket_keys[i], "session ticket key", temp, NULL, &text,
                       err);
        if (rc == HD_OK && text.len != 48 && text.len != 80)
            rc = hd_err_set(err, HD_E_CONF, "\"%.*s\" must be 48 or 80 bytes, it has %zu",
                            HD_STR_ARG(files->ticket_keys[i]), text.len);
        if (rc != HD_OK)
            break;
        to[i * HD_TLS_TICKET_KEY_BYTES] = (char)text.len;
        memcpy(to + i * HD_TLS_TICKET_KEY_BYTES + 1, text.data, text.len);
        explicit_bzero((char *)(uintptr_t)text.data, text.len);
    }
    hd_pool_destroy(temp);
    return rc;
}

/* A key's text is no part of a message. */
static hd_str_t shown(hd_str_t path)
{
    return is_data(path) ? HD_STR("data:...") : path;
}

static hd_rc_t read_secret(hd_conf_t *cf, const hd_conf_secret_t *files, hd_region_t *r,
                           hd_pool_t *pool, hd_secret_t *s, hd_err_t *err)
{
    if (read_file(cf, files->cert, "certificate", pool, NULL, &s->chain_pem, err) !=
            HD_OK ||
        read_key(cf, files, r, s, err) != HD_OK ||
        read_file(cf, files->ocsp, "OCSP response", pool, NULL, &s->ocsp_der, err) !=
            HD_OK ||
        read_file(cf, files->trust, "trusted certificates", pool, NULL, &s->trust_pem,
                  err) != HD_OK ||
        read_file(cf, files->more_trust, "trusted certificates", pool, NULL,
                  &s->more_trust_pem, err) != HD_OK ||
        read_file(cf, files->crls, "revocation list", pool, NULL, &s->crl_pem, err) !=
            HD_OK)
        return HD_ERROR;
    if (files->key.len == 0 && read_file(cf, files->passwords, "passphrases", NULL, r,
                                         &s->passphrases, err) != HD_OK)
        return HD_ERROR;
    if (files->ticket_keys_n > 0 && read_ticket_keys(cf, files, r, s, err) != HD_OK)
        return HD_ERROR;
    if (hd_secret_check(s, pool, err) == HD_OK)
        return HD_OK;
    return files->cert.len > 0
               ? hd_err_prefix(err, "certificate \"%.*s\" with key \"%.*s\": ",
                               HD_STR_ARG(shown(files->cert)),
                               HD_STR_ARG(shown(files->key)))
               : hd_err_prefix(
                     err, "trusted certificates \"%.*s\": ",
                     HD_STR_ARG(files->trust.len > 0 ? files->trust : files->more_trust));
}

static uint64_t hash_secret(const hd_secret_t *s)
{
    uint64_t h = hd_hash64(s->chain_pem.data, s->chain_pem.len, 1);

    h = hd_hash64(s->key_pem.data, s->key_pem.len, h);
    h = hd_hash64(s->trust_pem.data, s->trust_pem.len, h);
    h = hd_hash64(s->more_trust_pem.data, s->more_trust_pem.len, h);
    h = hd_hash64(s->ticket_keys.data, s->ticket_keys.len, h);
    h = hd_hash64(s->passphrases.data, s->passphrases.len, h);
    h = hd_hash64(s->ocsp_der.data, s->ocsp_der.len, h);
    h = hd_hash64(s->staple.data, s->staple.len, h);
    return hd_hash64(s->crl_pem.data, s->crl_pem.len, h) | 1;
}

static hd_str_t name_of(hd_conf_t *cf, hd_str_t path)
{
    return is_data(path)
               ? hd_str_printf(cf->temp, "data:%016llx",
                               (unsigned long long)hd_hash64(path.data, path.len, 1))
               : path;
}

/* --- stapling --- */

static hd_rc_t put_task(hd_conf_t *cf, hd_str_t secret_name, const hd_stapling_t *task,
                        hd_err_t *err)
{
    hd_str_t name =
        hd_str_printf(cf->temp, HD_STAPLING_PREFIX "%.*s", HD_STR_ARG(secret_name));
    hd_slot_t *slot = hd_slot_find_or_add(cf->arena, HD_RES_POLICY, name, err);
    hd_stapling_t *copy;
    hd_region_t *r;
    hd_pool_t *pool;
    hd_rc_t rc;

    if (slot == NULL)
        return HD_ERROR;
    r = hd_batch_region(cf->batch, HD_RES_POLICY, name, hd_conf_place(cf), 0, &pool, err);
    if (r == NULL)
        return HD_ERROR;
    copy = hd_pool_new(pool, hd_stapling_t);
    copy->staple = hd_str_dup(pool, task->staple);
    copy->label = hd_str_dup(pool, task->label);
    copy->chain_pem = hd_str_dup(pool, task->chain_pem);
    copy->trust_pem = hd_str_dup(pool, task->trust_pem);
    copy->verifies = task->verifies;
    copy->url = hd_str_dup(pool, task->url);
    copy->resolver = task->resolver;
    copy->cluster = task->cluster;
    rc = hd_batch_put(cf->batch, slot, r, copy, HD_CONTENT_BUILT, err);
    return rc == HD_DONE ? HD_OK : rc;
}

/* As in nginx a certificate that nobody can be asked about is served without. */
static hd_rc_t add_stapling(hd_conf_t *cf, const hd_conf_secret_t *files,
                            hd_str_t secret_name, hd_pool_t *pool, hd_secret_t *s,
                            hd_err_t *err)
{
    hd_str_t cert = shown(files->cert), trust_pem = HD_STR_NONE;
    hd_ocsp_url_t url;
    hd_err_t why = {0};
    hd_ocsp_t *o;
    hd_stapling_t task;
    hd_rc_t rc = HD_OK;

    if (read_file(cf, files->stapling->trust, "trusted certificates", cf->temp, NULL,
                  &trust_pem, err) != HD_OK)
        return HD_ERROR;
    o = hd_ocsp_create(s->chain_pem, trust_pem, files->stapling->verifies, &why);
    if (o == NULL && why.code != HD_E_CONF)
        return hd_err_set(err, HD_E_CONF, "%s", why.text);
    task = (hd_stapling_t){
        .staple = hd_str_printf(cf->temp, HD_STAPLE_PREFIX "%.*s",
                                HD_STR_ARG(secret_name)),
        .label = cert,
        .chain_pem = s->chain_pem,
        .trust_pem = trust_pem,
        .verifies = files->stapling->verifies,
        .url = files->stapling->responder,
        .resolver = hd_conf_resolver_of(cf->confs),
    };
    if (o != NULL && task.url.len == 0)
        task.url = hd_str_dup(cf->temp, hd_ocsp_responder(o));
    hd_ocsp_destroy(o);
    if (o == NULL)
        hd_conf_warn(cf, "\"ssl_stapling\" ignored, %s for certificate \"%.*s\"",
                     why.text, HD_STR_ARG(cert));
    else if (task.url.len == 0)
        hd_conf_warn(cf,
                     "\"ssl_stapling\" ignored, no OCSP responder URL in the certificate "
                     "\"%.*s\"",
                     HD_STR_ARG(cert));
    else if (hd_ocsp_parse_url(task.url, &url, &why) != HD_OK)
        hd_conf_warn(cf, "\"ssl_stapling\" ignored, %s in the certificate \"%.*s\"",
                     why.text, HD_STR_ARG(cert));
    else
        rc = hd_conf_cluster->any_slot(cf, false, &task.cluster, err);
    if (rc != HD_OK || task.cluster == NULL)
        return rc;
    cf->build->needs_agent = true;
    s->staple = hd_str_dup(pool, task.staple);
    return put_task(cf, secret_name, &task, err);
}

static hd_str_t add_stapling_name(hd_conf_t *cf, hd_str_t name,
                                  const hd_conf_stapling_t *s)
{
    hd_resolver_t r = hd_conf_resolver_of(cf->confs);

    return hd_str_printf(cf->temp, "%.*s|ocsp:%.*s|%.*s|%d|%llx", HD_STR_ARG(name),
                         HD_STR_ARG(s->responder), HD_STR_ARG(s->trust), s->verifies,
                         (unsigned long long)r.id);
}

hd_rc_t hd_conf_secret_slot(hd_conf_t *cf, const hd_conf_secret_t *files,
                            const hd_slot_t **slot, hd_err_t *err)
{
    hd_str_t cert = name_of(cf, files->cert), key = name_of(cf, files->key);
    hd_str_t name =
        hd_str_printf(cf->temp, "file:%.*s|%.*s|%.*s|%.*s", HD_STR_ARG(cert),
                      HD_STR_ARG(key), HD_STR_ARG(files->trust), HD_STR_ARG(files->crls));
    hd_slot_t *s;
    hd_secret_t *secret;
    hd_region_t *r;
    hd_pool_t *pool;
    hd_rc_t rc;

    if (files->more_trust.len + files->ocsp.len + files->passwords.len > 0)
        name = hd_str_printf(cf->temp, "%.*s|%.*s|%.*s|%.*s", HD_STR_ARG(name),
                             HD_STR_ARG(files->more_trust), HD_STR_ARG(files->ocsp),
                             HD_STR_ARG(files->passwords));
    for (uint32_t i = 0; i < files->ticket_keys_n; i++)
        name = hd_str_printf(cf->temp, "%.*s|ticket:%.*s", HD_STR_ARG(name),
                             HD_STR_ARG(files->ticket_keys[i]));
    if (files->stapling != NULL)
        name = add_stapling_name(cf, name, files->stapling);
    s = hd_slot_find_or_add(cf->arena, HD_RES_SECRET, name, err);
    if (s == NULL)
        return HD_ERROR;
    *slot = s;
    if (hd_batch_has(cf->batch, HD_RES_SECRET, name))
        return HD_OK;
    r = hd_batch_region(cf->batch, HD_RES_SECRET, name, hd_conf_place(cf), 0, &pool, err);
    if (r == NULL)
        return HD_ERROR;
    secret = hd_pool_new(pool, hd_secret_t);
    if (read_secret(cf, files, r, pool, secret, err) != HD_OK ||
        (files->stapling != NULL &&
         add_stapling(cf, files, name, pool, secret, err) != HD_OK)) {
        hd_batch_drop(cf->batch, r);
        return HD_ERROR;
    }
    rc = hd_batch_put(cf->batch, s, r, secret, hash_secret(secret), err);
    return rc == HD_DONE ? HD_OK : rc;
}

hd_rc_t hd_conf_read_text(hd_conf_t *cf, hd_str_t path, const char *what, hd_str_t *text,
                          hd_err_t *err)
{
    return read_file(cf, path, what, cf->pool, NULL, text, err);
}

hd_rc_t hd_conf_check_cert(hd_conf_t *cf, hd_str_t path, const hd_tls_conf_t *tls,
                           bool is_server, hd_err_t *err)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_str_t text;
    hd_rc_t rc = read_file(cf, path, "certificate", pool, NULL, &text, err);

    if (rc == HD_OK && hd_tls_conf_check_cert(tls, is_server, text, err) != HD_OK)
        rc = hd_err_prefix(err, "\"%.*s\": ", HD_STR_ARG(path));
    hd_pool_destroy(pool);
    return rc;
}
