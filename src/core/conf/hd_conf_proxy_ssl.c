/* proxy_ssl_*: TLS towards upstreams, of http and stream. */
#include "core/conf/hd_conf_secret.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_conf_ssl_int.h"
#include "core/conf/hd_module_table.h"

typedef struct {
    hd_str_t cert, key, trust, crls, ciphers, name, passwords, commands, key_log;
    hd_conf_tls_cache_t cache;
    uint16_t verify_depth; /* hd_tls_conf_t's; 0: 1 */
    uint8_t versions;      /* bits; 0: both */
    bool is_on, verify, server_name, no_session_reuse, no_revalidation;
    bool by_server;     /* its name is the server's */
    hd_str_t name_vars; /* or what these variables say; empty: neither */
} proxy_ssl_conf_t;

static const proxy_ssl_conf_t *conf_of(const hd_conf_t *cf)
{
    return cf->confs[hd_module_number(&hd_proxy_ssl_module)];
}

static hd_rc_t set_path(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t *path = (hd_str_t *)((char *)conf + cf->directive->offset);

    return hd_conf_tls_path(cf, args[0], path, err);
}

static hd_rc_t set_name(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    proxy_ssl_conf_t *pc = conf;

    (void)err;
    pc->name = pc->name_vars = HD_STR_NONE;
    pc->by_server = hd_str_eq(args[0], HD_STR("$upstream_last_server_name"));
    if (pc->by_server || hd_str_eq(args[0], HD_STR("$proxy_host")))
        return HD_OK;
    if (hd_str_find_char(args[0], '$') >= 0)
        pc->name_vars = hd_str_dup(cf->pool, args[0]);
    else
        pc->name = hd_str_dup_lower(cf->pool, args[0]);
    return HD_OK;
}

static hd_rc_t set_session_reuse(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    proxy_ssl_conf_t *pc = conf;

    if (hd_set_flag(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    pc->no_session_reuse = !pc->no_session_reuse;
    return HD_OK;
}

static hd_rc_t set_no_revalidation(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                   hd_err_t *err)
{
    proxy_ssl_conf_t *pc = conf;
    bool is_on = hd_str_eq(args[0], HD_STR("on"));

    (void)cf;
    if (!is_on && !hd_str_eq(args[0], HD_STR("off")))
        return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": on or off",
                          HD_STR_ARG(args[0]));
    pc->no_revalidation = !is_on;
    return HD_OK;
}

bool hd_conf_ssl_upstream_is_on(const hd_conf_t *cf)
{
    return conf_of(cf)->is_on;
}

bool hd_conf_ssl_is_by_host(const hd_conf_t *cf, bool *is_sent)
{
    const proxy_ssl_conf_t *pc = conf_of(cf);

    *is_sent = pc->server_name;
    return pc->name.len == 0;
}

bool hd_conf_ssl_is_by_server(const hd_conf_t *cf)
{
    return conf_of(cf)->by_server;
}

hd_rc_t hd_conf_ssl_name(hd_conf_t *cf, const hd_expr_t **name, bool *is_sent,
                         hd_err_t *err)
{
    const proxy_ssl_conf_t *pc = conf_of(cf);
    hd_expr_t *e;

    *name = NULL;
    if (pc->name_vars.len == 0)
        return HD_OK;
    *is_sent = pc->server_name;
    if (hd_expr_compile(cf, pc->name_vars, &e, err) != HD_OK)
        return HD_ERROR;
    *name = e;
    return HD_OK;
}

static hd_rc_t put_cert(hd_conf_t *cf, const proxy_ssl_conf_t *pc, hd_tls_conf_t *tls,
                        hd_err_t *err)
{
    const hd_slot_t **certs = hd_pool_new_n(cf->pool, const hd_slot_t *, 1);
    hd_conf_secret_t files = {
        .cert = pc->cert, .key = pc->key, .passwords = pc->passwords};
    hd_conf_tls_pairs_t pair = {.certs = &pc->cert,
                                .keys = &pc->key,
                                .n = 1,
                                .passwords = pc->passwords,
                                .cache = &pc->cache};

    if (pc->cert.len == 0)
        return HD_OK;
    if (pc->key.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "no \"proxy_ssl_certificate_key\" is defined for certificate "
                          "\"%.*s\"",
                          HD_STR_ARG(pc->cert));
    if (hd_conf_tls_has_variables(&pair))
        return hd_conf_tls_put_pairs(cf, &pair, tls, err);
    tls->certs = certs;
    tls->certs_n = 1;
    return hd_conf_secret_slot(cf, &files, &certs[0], err);
}

static hd_rc_t put_trust(hd_conf_t *cf, const proxy_ssl_conf_t *pc, hd_str_t name,
                         hd_tls_conf_t *tls, hd_err_t *err)
{
    hd_conf_secret_t files = {.trust = pc->trust, .crls = pc->crls};

    if (!pc->verify)
        return HD_OK;
    if (pc->trust.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "no \"proxy_ssl_trusted_certificate\" for proxy_ssl_verify");
    tls->verify = HD_TLS_VERIFY_REQUIRED;
    tls->verify_host = name;
    tls->host_by_subject = true;
    tls->verify_depth = pc->verify_depth > 0 ? pc->verify_depth : 1;
    return hd_conf_secret_slot(cf, &files, &tls->trust, err);
}

static bool is_ip(hd_str_t name)
{
    hd_addr_t addr;

    if (name.len > 2 && name.data[0] == '[')
        name = hd_str_sub(name, 1, name.len - 2);
    return hd_addr_parse_ip(name, &addr);
}

hd_rc_t hd_conf_ssl_upstream(hd_conf_t *cf, hd_str_t host, hd_str_t alpn,
                             const hd_tls_conf_t **out, hd_err_t *err)
{
    const proxy_ssl_conf_t *pc = conf_of(cf);
    hd_tls_conf_t *tls = hd_pool_new(cf->pool, hd_tls_conf_t);
    hd_str_t name = pc->name_vars.len > 0
                        ? HD_STR_NONE /* each request's own */
                        : hd_str_dup_lower(cf->pool, pc->name.len > 0 ? pc->name : host);

    if (put_cert(cf, pc, tls, err) != HD_OK || put_trust(cf, pc, name, tls, err) != HD_OK)
        return HD_ERROR;
    hd_conf_tls_versions(pc->versions, tls);
    tls->session_cache = tls->session_tickets = !pc->no_session_reuse;
    tls->ciphers = hd_str_dup(cf->pool, pc->ciphers);
    tls->revalidates = !pc->no_revalidation;
    tls->commands = hd_str_dup(cf->pool, pc->commands);
    tls->alpn = hd_str_dup(cf->pool, alpn);
    if (hd_conf_need_key_log(cf, pc->key_log, tls, err) != HD_OK)
        return HD_ERROR;
    if (pc->server_name && !is_ip(name)) /* RFC 6066 §3: no literal addresses */
        tls->sni = name;
    if (hd_tls_conf_check(tls, false, err) != HD_OK ||
        (tls->certs_n > 0 && hd_conf_check_cert(cf, pc->cert, tls, false, err) != HD_OK))
        return HD_ERROR;
    hd_tls_conf_seal(tls);
    *out = tls;
    return HD_OK;
}

#define IN_PROXIES                                                                       \
    (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_STREAM | HD_IN_STREAM_SERVER)
#define AT(field) offsetof(proxy_ssl_conf_t, field)

static const hd_directive_t directives[] = {
    {.name = "proxy_ssl",
     .scope = HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(is_on),
     .help = "on|off: TLS towards the upstream; off"},
    {.name = "proxy_ssl_certificate",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = set_path,
     .offset = AT(cert),
     .help = "FILE: our certificate towards the upstream, PEM"},
    {.name = "proxy_ssl_certificate_key",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = set_path,
     .offset = AT(key),
     .help = "FILE: its private key, PEM"},
    {.name = "proxy_ssl_trusted_certificate",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = set_path,
     .offset = AT(trust),
     .help = "FILE: roots by which the upstream is verified"},
    {.name = "proxy_ssl_crl",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = set_path,
     .offset = AT(crls),
     .help = "FILE: revoked certificates of upstreams"},
    {.name = "proxy_ssl_verify",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(verify),
     .help = "on|off: the upstream's certificate is verified, its name too; off"},
    {.name = "proxy_ssl_verify_depth",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = hd_conf_set_tls_depth,
     .offset = AT(verify_depth),
     .help = "N: intermediate certificates allowed; 1"},
    {.name = "proxy_ssl_name",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = set_name,
     .help = "NAME: the upstream's name for verification and SNI, with variables; "
             "proxy_pass's host"},
    {.name = "proxy_ssl_server_name",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(server_name),
     .help = "on|off: send the name by SNI; off"},
    {.name = "proxy_ssl_protocols",
     .scope = IN_PROXIES,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = hd_conf_set_tls_versions,
     .offset = AT(versions),
     .help = "[TLSv1.2] [TLSv1.3]: versions spoken with upstreams; both"},
    {.name = "proxy_ssl_ciphers",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(ciphers),
     .help = "LIST: ciphers of TLS 1.2 with upstreams"},
    {.name = "proxy_ssl_session_reuse",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = set_session_reuse,
     .offset = AT(no_session_reuse),
     .help = "on|off: sessions with upstreams are resumed; on"},
    {.name = "proxy_ssl_revalidate",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = set_no_revalidation,
     .help = "on|off: connections to upstreams whose certificate ends, or is verified no "
             "longer, take no further request; on"},
    {.name = "proxy_ssl_conf_command",
     .scope = IN_PROXIES,
     .args_n = 2,
     .repeats = true,
     .set = hd_conf_add_tls_command,
     .offset = AT(commands),
     .help = "NAME VALUE: a command of OpenSSL's SSL_CONF_cmd, for TLS with upstreams"},
    {.name = "proxy_ssl_password_file",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = set_path,
     .offset = AT(passwords),
     .help = "FILE: passphrases of proxy_ssl_certificate_key, a line each"},
    {.name = "proxy_ssl_key_log",
     .scope = IN_PROXIES,
     .args_n = 1,
     .set = hd_conf_set_key_log,
     .offset = AT(key_log),
     .help = "FILE: gets the secrets of all sessions with upstreams, in the form that "
             "Wireshark reads (SSLKEYLOGFILE)"},
    {.name = "proxy_ssl_certificate_cache",
     .scope = IN_PROXIES,
     .args_n = 1,
     .args_max = 3,
     .set = hd_conf_set_tls_cache,
     .offset = AT(cache),
     .help = "off|max=N [inactive=TIME] [valid=TIME]: as ssl_certificate_cache, of "
             "proxy_ssl_certificate; off"},
    {0},
};

const hd_module_t hd_proxy_ssl_module = {
    .abi = HD_MODULE_ABI,
    .name = "proxy_ssl",
    .directives = directives,
    .conf_size = sizeof(proxy_ssl_conf_t),
};
