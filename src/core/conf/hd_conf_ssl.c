#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_conf_secret.h"
#include "core/conf/hd_conf_ssl_int.h"
#include "core/conf/hd_module_table.h"

/* Lists and texts lie in cf->pool. Zero is the default of each. */
typedef struct {
    const hd_str_t *certs, *keys; /* paths */
    uint32_t certs_n, keys_n;
    hd_str_t ciphers, groups, client_ca, trusted_ca, crls;
    uint64_t session_timeout_ms; /* 0: 5 minutes */
    uint32_t verify;             /* hd_tls_verify_t */
    uint32_t verify_depth;
    uint8_t versions; /* bits; 0: both */
    bool prefer_server_ciphers, cache, no_tickets;
} ssl_conf_t;

enum { TLS_1_2 = 1, TLS_1_3 = 2 };

static const ssl_conf_t *conf_of(const hd_conf_t *cf)
{
    return cf->confs[hd_module_number(&hd_ssl_module)];
}

/* --- directives --- */

static hd_rc_t add_path(hd_conf_t *cf, hd_str_t arg, const hd_str_t **list, uint32_t *n,
                        hd_err_t *err)
{
    hd_str_t *longer;

    if (hd_str_find_char(arg, '$') >= 0)
        return hd_err_set(err, HD_E_CONF,
                          "variables in the name of a certificate are not "
                          "supported");
    if (hd_str_has_prefix(arg, HD_STR("data:")) ||
        hd_str_has_prefix(arg, HD_STR("engine:")))
        return hd_err_set(err, HD_E_CONF, "a file is expected, not \"%.*s\"",
                          HD_STR_ARG(arg));
    if (cf->is_first)
        *n = 0;
    longer = hd_pool_new_n(cf->pool, hd_str_t, *n + 1);
    if (*n > 0)
        memcpy(longer, *list, *n * sizeof(*longer));
    longer[(*n)++] = hd_conf_path(cf, arg, true);
    *list = longer;
    return HD_OK;
}

static hd_rc_t set_certificate(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    ssl_conf_t *sc = conf;

    return add_path(cf, args[0], &sc->certs, &sc->certs_n, err);
}

static hd_rc_t set_key(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    ssl_conf_t *sc = conf;

    return add_path(cf, args[0], &sc->keys, &sc->keys_n, err);
}

static hd_rc_t set_path(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t *path = (hd_str_t *)((char *)conf + cf->directive->offset);

    (void)err;
    *path = hd_conf_path(cf, args[0], true);
    return HD_OK;
}

/* TLS 1.0 and 1.1 are no longer spoken (RFC 8996). */
hd_rc_t hd_conf_set_tls_versions(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    uint8_t *versions = (uint8_t *)conf + cf->directive->offset;

    *versions = 0;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (hd_str_eq_nocase(args[i], HD_STR("TLSv1.2")))
            *versions |= TLS_1_2;
        else if (hd_str_eq_nocase(args[i], HD_STR("TLSv1.3")))
            *versions |= TLS_1_3;
        else if (!hd_str_eq_nocase(args[i], HD_STR("TLSv1")) &&
                 !hd_str_eq_nocase(args[i], HD_STR("TLSv1.1")))
            return hd_err_set(err, HD_E_CONF,
                              "invalid value \"%.*s\": allowed are TLSv1.2 and TLSv1.3",
                              HD_STR_ARG(args[i]));
        else if (cf->node->uses == 1)
            hd_conf_warn(cf, "%.*s is not spoken (RFC 8996)", HD_STR_ARG(args[i]));
    }
    if (*versions == 0)
        return hd_err_set(err, HD_E_CONF,
                          "no version is left: TLSv1.2 and TLSv1.3 are "
                          "spoken");
    return HD_OK;
}

static hd_rc_t set_inverse(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool *flag = (bool *)((char *)conf + cf->directive->offset);

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    *flag = !*flag;
    return HD_OK;
}

/* Sessions are kept by this program's own store, in memory that TLS sizes itself; the
 * figures are checked and not needed. */
static hd_rc_t set_session_cache(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    ssl_conf_t *sc = conf;

    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_str_t arg = args[i], rest = arg, part;
        uint64_t bytes;

        if (hd_str_eq(arg, HD_STR("off")) || hd_str_eq(arg, HD_STR("none"))) {
            sc->cache = false;
        } else if (hd_str_eq(arg, HD_STR("builtin")) ||
                   hd_str_has_prefix(arg, HD_STR("builtin:"))) {
            sc->cache = true;
        } else if (hd_str_has_prefix(arg, HD_STR("shared:"))) {
            hd_ignore(hd_str_split(&rest, ':', &part));
            if (!hd_str_split(&rest, ':', &part) || part.len == 0 ||
                hd_parse_size(rest, INT64_MAX, &bytes, NULL) != HD_OK)
                return hd_err_set(err, HD_E_CONF,
                                  "invalid session cache \"%.*s\": as in shared:SSL:10m",
                                  HD_STR_ARG(arg));
            sc->cache = true;
        } else {
            return hd_err_set(err, HD_E_CONF,
                              "invalid session cache \"%.*s\": off, none, builtin[:SIZE] "
                              "or shared:NAME:SIZE",
                              HD_STR_ARG(arg));
        }
    }
    return HD_OK;
}

static hd_rc_t set_dhparam(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)args, (void)conf, (void)err;
    if (cf->node->uses == 1)
        hd_conf_warn(cf, "not used: key exchange is by elliptic curves");
    return HD_OK;
}

/* --- settings --- */

void hd_conf_tls_versions(uint8_t versions, hd_tls_conf_t *tls)
{
    tls->version_min = versions == TLS_1_3 ? 0x0304 : 0x0303;
    tls->version_max = versions == TLS_1_2 ? 0x0303 : 0x0304;
}

static hd_rc_t put_certs(hd_conf_t *cf, const ssl_conf_t *sc, hd_tls_conf_t *tls,
                         hd_err_t *err)
{
    const hd_slot_t **certs = hd_pool_new_n(cf->pool, const hd_slot_t *, sc->certs_n);

    if (sc->keys_n != sc->certs_n)
        return hd_err_set(err, HD_E_CONF,
                          "no \"ssl_certificate_key\" is defined for "
                          "certificate \"%.*s\"",
                          HD_STR_ARG(sc->certs[hd_min(sc->keys_n, sc->certs_n - 1)]));
    for (uint32_t i = 0; i < sc->certs_n; i++) {
        hd_conf_secret_t files = {.cert = sc->certs[i], .key = sc->keys[i]};

        if (hd_conf_secret_slot(cf, &files, &certs[i], err) != HD_OK)
            return HD_ERROR;
    }
    tls->certs = certs;
    tls->certs_n = sc->certs_n;
    return HD_OK;
}

static hd_rc_t put_trust(hd_conf_t *cf, const ssl_conf_t *sc, hd_tls_conf_t *tls,
                         hd_err_t *err)
{
    hd_conf_secret_t files = {.trust =
                                  sc->client_ca.len > 0 ? sc->client_ca : sc->trusted_ca,
                              .crls = sc->crls};

    if (sc->verify == HD_TLS_VERIFY_NONE)
        return HD_OK;
    if (files.trust.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "no \"ssl_client_certificate\" or \"ssl_trusted_certificate\" "
                          "for ssl_verify_client");
    tls->verify = (hd_tls_verify_t)sc->verify;
    tls->verify_depth = (uint16_t)(sc->verify_depth > 0 ? sc->verify_depth : 1);
    return hd_conf_secret_slot(cf, &files, &tls->trust, err);
}

bool hd_conf_ssl_has_cert(const hd_conf_t *cf)
{
    return conf_of(cf)->certs_n > 0;
}

hd_rc_t hd_conf_ssl_server(hd_conf_t *cf, hd_str_t alpn, const hd_tls_conf_t **out,
                           hd_err_t *err)
{
    const ssl_conf_t *sc = conf_of(cf);
    hd_tls_conf_t *tls = hd_pool_new(cf->pool, hd_tls_conf_t);

    *out = NULL;
    if (sc->certs_n == 0)
        return HD_OK;
    if (put_certs(cf, sc, tls, err) != HD_OK || put_trust(cf, sc, tls, err) != HD_OK)
        return HD_ERROR;
    hd_conf_tls_versions(sc->versions, tls);
    tls->session_tickets = !sc->no_tickets;
    tls->session_cache = sc->cache;
    tls->prefer_server_ciphers = sc->prefer_server_ciphers;
    tls->ciphers = hd_str_dup(cf->pool, sc->ciphers);
    tls->groups = hd_str_dup(cf->pool, sc->groups);
    tls->alpn = hd_str_dup(cf->pool, alpn);
    tls->session_timeout_s =
        sc->session_timeout_ms == 0
            ? 300
            : (uint32_t)hd_min(sc->session_timeout_ms / 1000, UINT32_MAX);
    if (hd_tls_conf_check(tls, true, err) != HD_OK)
        return HD_ERROR;
    hd_tls_conf_seal(tls);
    *out = tls;
    return HD_OK;
}

/* "auto" leaves the choice to OpenSSL. */
static hd_rc_t set_groups(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    ssl_conf_t *sc = conf;

    (void)err;
    sc->groups =
        hd_str_eq(args[0], HD_STR("auto")) ? HD_STR_NONE : hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

static const hd_conf_enum_t verify_names[] = {{"off", HD_TLS_VERIFY_NONE},
                                              {"on", HD_TLS_VERIFY_REQUIRED},
                                              {"optional", HD_TLS_VERIFY_OPTIONAL},
                                              {NULL, 0}};

#define IN_SERVERS (HD_IN_HTTP | HD_IN_SERVER | HD_IN_STREAM | HD_IN_STREAM_SERVER)
#define AT(field) offsetof(ssl_conf_t, field)

static const hd_directive_t directives[] = {
    {.name = "ssl_certificate",
     .scope = IN_SERVERS,
     .args_n = 1,
     .repeats = true,
     .set = set_certificate,
     .help = "FILE: certificate and its chain, PEM; one for each kind of key"},
    {.name = "ssl_certificate_key",
     .scope = IN_SERVERS,
     .args_n = 1,
     .repeats = true,
     .set = set_key,
     .help = "FILE: the private key of the certificate, PEM, in the same order"},
    {.name = "ssl_protocols",
     .scope = IN_SERVERS,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = hd_conf_set_tls_versions,
     .offset = AT(versions),
     .help = "[TLSv1.2] [TLSv1.3]: versions spoken; both. Older ones never are"},
    {.name = "ssl_ciphers",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(ciphers),
     .help = "LIST: ciphers of TLS 1.2, in OpenSSL's form"},
    {.name = "ssl_prefer_server_ciphers",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(prefer_server_ciphers),
     .help = "on|off: the server's order of ciphers counts, not the client's; off"},
    {.name = "ssl_ecdh_curve",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_groups,
     .help = "GROUPS|auto: groups of the key exchange, separated by ':'"},
    {.name = "ssl_dhparam",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_dhparam,
     .help = "FILE: accepted; key exchange is by elliptic curves only"},
    {.name = "ssl_session_cache",
     .scope = IN_SERVERS,
     .args_n = 1,
     .args_max = 2,
     .set = set_session_cache,
     .help =
         "off|none|builtin[:SIZE]|shared:NAME:SIZE: resumption without tickets; none. "
         "Sizes are accepted"},
    {.name = "ssl_session_timeout",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(session_timeout_ms),
     .help = "TIME: how long a session may be resumed; 5m"},
    {.name = "ssl_session_tickets",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_tickets),
     .help = "on|off: resumption by tickets; on"},
    {.name = "ssl_client_certificate",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(client_ca),
     .help = "FILE: roots by which client certificates are verified"},
    {.name = "ssl_trusted_certificate",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(trusted_ca),
     .help = "FILE: the same; used where ssl_client_certificate is not given"},
    {.name = "ssl_crl",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(crls),
     .help = "FILE: revoked client certificates"},
    {.name = "ssl_verify_client",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(verify),
     .post = verify_names,
     .help = "on|off|optional: whether clients need a certificate; off"},
    {.name = "ssl_verify_depth",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(verify_depth),
     .help = "N: intermediate certificates allowed; 1"},
    {0},
};

const hd_module_t hd_ssl_module = {
    .abi = HD_MODULE_ABI,
    .name = "ssl",
    .directives = directives,
    .conf_size = sizeof(ssl_conf_t),
};
