#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_resolver.h"
#include "core/conf/hd_conf_secret.h"
#include "core/conf/hd_conf_ssl_int.h"
#include "core/conf/hd_module_table.h"
#include "core/net/hd_ocsp.h"
#include "core/net/hd_tls_cache.h"

/* Lists and texts lie in cf->pool. Zero is the default of each. */
typedef struct {
    const hd_str_t *certs, *keys; /* paths */
    uint32_t certs_n, keys_n;
    const hd_str_t *ticket_keys; /* paths */
    uint32_t ticket_keys_n;
    hd_str_t zone; /* name and size; empty: none */
    uint64_t zone_bytes;
    hd_str_t ciphers, groups, client_ca, trusted_ca, crls, dhparam, passwords, stapling,
        commands;
    hd_str_t responder;        /* of stapling: URL */
    hd_str_t client_responder; /* of clients' certificates: URL */
    hd_str_t answers;          /* zone of them, as <zone>; empty: none */
    uint64_t answers_bytes;
    hd_str_t key_log;              /* path */
    uint32_t ocsp;                 /* enum, below */
    hd_str_t alpn;                 /* wire form */
    uint64_t session_timeout_ms;   /* 0: 5 minutes */
    uint64_t handshake_timeout_ms; /* 0: 60 s */
    uint64_t buffer_bytes;         /* 0: 16 KB */
    hd_conf_tls_cache_t certs_cache;
    uint32_t verify;       /* hd_tls_verify_t */
    uint16_t verify_depth; /* hd_tls_conf_t's; 0: 1 */
    uint8_t versions;      /* bits; 0: both */
    bool prefer_server_ciphers, cache, no_tickets, early_data, rejects, staples,
        verifies_staples, no_revalidation;
} ssl_conf_t;

enum { TLS_1_2 = 1, TLS_1_3 = 2 };
enum { OCSP_OFF, OCSP_LEAF, OCSP_PATH }; /* whom responders are asked about */

static const ssl_conf_t *conf_of(const hd_conf_t *cf)
{
    return cf->confs[hd_module_number(&hd_ssl_module)];
}

/* --- directives --- */

static void add_item(hd_conf_t *cf, hd_str_t item, const hd_str_t **list, uint32_t *n)
{
    hd_str_t *longer;

    if (cf->is_first)
        *n = 0;
    longer = hd_pool_new_n(cf->pool, hd_str_t, *n + 1);
    if (*n > 0)
        memcpy(longer, *list, *n * sizeof(*longer));
    longer[(*n)++] = item;
    *list = longer;
}

static hd_rc_t add_path(hd_conf_t *cf, hd_str_t arg, const hd_str_t **list, uint32_t *n,
                        hd_err_t *err)
{
    hd_str_t path;

    if (hd_conf_tls_path(cf, arg, &path, err) != HD_OK)
        return HD_ERROR;
    add_item(cf, path, list, n);
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

hd_rc_t hd_conf_add_tls_command(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                hd_err_t *err)
{
    hd_str_t *list = (hd_str_t *)((char *)conf + cf->directive->offset);
    hd_str_t before = cf->is_first ? HD_STR_NONE : *list;
    size_t len = before.len + args[0].len + args[1].len + 2;
    char *to;

    if (len > 65536)
        return hd_err_set(err, HD_E_CONF, "more than 64 KB of commands");
    to = hd_pool_alloc_unaligned(cf->pool, len + 1);
    if (before.len > 0)
        memcpy(to, before.data, before.len);
    memcpy(to + before.len, args[0].data, args[0].len);
    to[before.len + args[0].len] = '\0';
    if (args[1].len > 0)
        memcpy(to + before.len + args[0].len + 1, args[1].data, args[1].len);
    to[len - 1] = '\0';
    *list = hd_str_n(to, len);
    return HD_OK;
}

/* Needs OpenSSL 3.2 (RFC 8879); nginx warns where it is built with an older one, too. */
static hd_rc_t set_compression(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    bool is_on = hd_str_eq(args[0], HD_STR("on"));

    (void)conf;
    if (!is_on && !hd_str_eq(args[0], HD_STR("off")))
        return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": on or off",
                          HD_STR_ARG(args[0]));
    if (is_on && cf->node->uses == 1)
        hd_conf_warn(cf, "\"ssl_certificate_compression\" ignored, not supported: "
                         "certificates are sent as they are");
    return HD_OK;
}

static hd_rc_t set_responder(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    hd_str_t *text = (hd_str_t *)((char *)conf + cf->directive->offset);
    hd_ocsp_url_t url;

    *text = hd_str_dup(cf->pool, args[0]);
    return hd_ocsp_parse_url(*text, &url, err);
}

static hd_rc_t set_alpn(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    ssl_conf_t *sc = conf;
    size_t len = 0;
    char *to;

    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (args[i].len == 0 || args[i].len > 255)
            return hd_err_set(err, HD_E_CONF, "a protocol's name has 1 to 255 bytes");
        len += args[i].len + 1;
    }
    to = hd_pool_alloc_unaligned(cf->pool, len + 1);
    sc->alpn = hd_str_n(to, len);
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        *to++ = (char)args[i].len;
        memcpy(to, args[i].data, args[i].len);
        to += args[i].len;
    }
    return HD_OK;
}

static hd_rc_t set_buffer_size(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err)
{
    const ssl_conf_t *sc = conf;

    if (hd_set_size(cf, args, conf, err) != HD_OK)
        return HD_ERROR;
    return sc->buffer_bytes > 0
               ? HD_OK
               : hd_err_set(
                     err, HD_E_CONF,
                     "\"ssl_buffer_size\" must be greater than 0 (records hold 16k "
                     "at most)");
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

hd_rc_t hd_conf_set_tls_depth(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    uint16_t *depth = (uint16_t *)(void *)((char *)conf + cf->directive->offset);
    uint64_t n;

    if (!hd_str_to_u64(args[0], HD_TLS_DEPTH_NONE - 1, &n))
        return hd_err_set(err, HD_E_CONF, "invalid number \"%.*s\": 0 to %d",
                          HD_STR_ARG(args[0]), HD_TLS_DEPTH_NONE - 1);
    *depth = n > 0 ? (uint16_t)n : HD_TLS_DEPTH_NONE;
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

/* <what>: of what it is; sessions' names have no prefix. */
static hd_rc_t read_zone(hd_conf_t *cf, hd_str_t arg, const char *what,
                         const char *prefix, hd_str_t *zone, uint64_t *bytes,
                         hd_err_t *err)
{
    hd_str_t rest = arg, name;

    hd_ignore(hd_str_split(&rest, ':', &name));
    if (!hd_str_split(&rest, ':', &name) || name.len == 0 ||
        hd_parse_size(rest, (uint64_t)1 << 30, bytes, NULL) != HD_OK)
        return hd_err_set(err, HD_E_CONF, "invalid %s \"%.*s\": as in shared:SSL:10m",
                          what, HD_STR_ARG(arg));
    if (*bytes < HD_TLS_CACHE_BYTES_MIN)
        return hd_err_set(err, HD_E_CONF, "%s \"%.*s\" is too small: 32k at least", what,
                          HD_STR_ARG(arg));
    *bytes &= ~(uint64_t)63;
    /* Another size is another zone: the old one's content goes with its last server. */
    *zone = hd_str_printf(cf->pool, "%s%.*s:%llu", prefix, HD_STR_ARG(name),
                          (unsigned long long)*bytes);
    return HD_OK;
}

static hd_rc_t set_ocsp_cache(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    ssl_conf_t *sc = conf;

    sc->answers = HD_STR_NONE;
    if (hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    if (!hd_str_has_prefix(args[0], HD_STR("shared:")))
        return hd_err_set(err, HD_E_CONF,
                          "invalid OCSP cache \"%.*s\": off or shared:NAME:SIZE",
                          HD_STR_ARG(args[0]));
    return read_zone(cf, args[0], "OCSP cache", "ocsp:", &sc->answers, &sc->answers_bytes,
                     err);
}

/* --- key logs: of proxy_ssl_…, too --- */

hd_rc_t hd_conf_set_key_log(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    hd_str_t *path = (hd_str_t *)((char *)conf + cf->directive->offset);

    if (hd_str_find_char(args[0], '$') >= 0)
        return hd_err_set(err, HD_E_CONF, "a file's name without variables is expected");
    *path = args[0].len > 0 ? hd_conf_path(cf, args[0], false) : HD_STR_NONE;
    return HD_OK;
}

hd_rc_t hd_conf_need_key_log(hd_conf_t *cf, hd_str_t path, hd_tls_conf_t *tls,
                             hd_err_t *err)
{
    tls->key_log = hd_str_dup(cf->pool, path);
    return path.len > 0 ? hd_build_need_log(cf, path, err) : HD_OK;
}

static hd_rc_t set_session_cache(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err)
{
    ssl_conf_t *sc = conf;

    sc->zone = HD_STR_NONE;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_str_t arg = args[i];

        if (hd_str_eq(arg, HD_STR("off")) || hd_str_eq(arg, HD_STR("none"))) {
            sc->cache = false;
        } else if (hd_str_eq(arg, HD_STR("builtin")) ||
                   hd_str_has_prefix(arg, HD_STR("builtin:"))) {
            sc->cache = true;
        } else if (hd_str_has_prefix(arg, HD_STR("shared:"))) {
            if (read_zone(cf, arg, "session cache", "", &sc->zone, &sc->zone_bytes,
                          err) != HD_OK)
                return HD_ERROR;
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

static hd_rc_t add_ticket_key(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    ssl_conf_t *sc = conf;

    (void)err;
    add_item(cf, hd_conf_path(cf, args[0], true), &sc->ticket_keys, &sc->ticket_keys_n);
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
    const hd_slot_t **certs =
        hd_pool_new_n(cf->pool, const hd_slot_t *, hd_max(sc->certs_n, 1u));
    hd_conf_stapling_t how = {.responder = sc->responder,
                              .trust = sc->trusted_ca,
                              .verifies = sc->verifies_staples};
    hd_conf_tls_pairs_t pairs = {.certs = sc->certs,
                                 .keys = sc->keys,
                                 .n = sc->certs_n,
                                 .passwords = sc->passwords,
                                 .cache = &sc->certs_cache,
                                 .is_early = true};

    if (sc->stapling.len > 0 && sc->certs_n > 1)
        return hd_err_set(err, HD_E_CONF,
                          "ssl_stapling_file is for one certificate, and there are %u",
                          sc->certs_n);
    if (sc->keys_n < sc->certs_n) /* as in nginx a key more is nobody's */
        return hd_err_set(err, HD_E_CONF,
                          "no \"ssl_certificate_key\" is defined for "
                          "certificate \"%.*s\"",
                          HD_STR_ARG(sc->certs[sc->keys_n]));
    if (hd_conf_tls_has_variables(&pairs)) {
        if (sc->staples)
            hd_conf_warn(cf, "\"ssl_stapling\" ignored: the certificate's name has "
                             "variables");
        return hd_conf_tls_put_pairs(cf, &pairs, tls, err);
    }
    for (uint32_t i = 0; i < sc->certs_n; i++) {
        hd_conf_secret_t files = {.cert = sc->certs[i],
                                  .key = sc->keys[i],
                                  .passwords = sc->passwords,
                                  .ocsp = sc->staples ? sc->stapling : HD_STR_NONE};

        if (sc->staples && sc->stapling.len == 0)
            files.stapling = &how;

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
    hd_conf_secret_t files = {
        .trust = sc->client_ca, .more_trust = sc->trusted_ca, .crls = sc->crls};

    if (sc->verify == HD_TLS_VERIFY_NONE)
        return HD_OK;
    if (files.trust.len + files.more_trust.len == 0 &&
        sc->verify != HD_TLS_VERIFY_OPTIONAL_NO_CA)
        return hd_err_set(err, HD_E_CONF,
                          "no \"ssl_client_certificate\" or \"ssl_trusted_certificate\" "
                          "for ssl_verify_client");
    tls->verify = (hd_tls_verify_t)sc->verify;
    tls->verify_depth = sc->verify_depth > 0 ? sc->verify_depth : 1;
    /* HTTP can say what is wrong (495, 496), to who sees no alerts; stream can't. */
    tls->verify_late = (cf->scope & (HD_IN_STREAM | HD_IN_STREAM_SERVER)) == 0 ||
                       sc->verify == HD_TLS_VERIFY_OPTIONAL_NO_CA;
    return files.trust.len + files.more_trust.len > 0
               ? hd_conf_secret_slot(cf, &files, &tls->trust, err)
               : HD_OK;
}

static hd_rc_t put_ocsp(hd_conf_t *cf, const ssl_conf_t *sc, hd_tls_conf_t *tls,
                        hd_err_t *err)
{
    hd_tls_ocsp_t *o;

    if (sc->ocsp == OCSP_OFF || sc->verify == HD_TLS_VERIFY_NONE)
        return HD_OK;
    if (sc->verify == HD_TLS_VERIFY_OPTIONAL_NO_CA)
        return hd_err_set(err, HD_E_CONF,
                          "\"ssl_ocsp\" is incompatible with \"ssl_verify_client "
                          "optional_no_ca\": by whom would answers be signed?");
    o = hd_pool_new(cf->pool, hd_tls_ocsp_t);
    o->leaf_only = sc->ocsp == OCSP_LEAF;
    o->responder = hd_str_dup(cf->pool, sc->client_responder);
    o->resolver = hd_conf_resolver_of(cf->confs);
    o->zone = hd_str_dup(cf->pool, sc->answers);
    o->zone_bytes = (uint32_t)sc->answers_bytes;
    tls->ocsp = o;
    cf->build->needs_agent = true; /* to look up responders' names */
    if (o->zone.len > 0 &&
        hd_tls_make_zone(cf->member, o->zone, o->zone_bytes, err) != HD_OK)
        return HD_ERROR;
    return hd_conf_cluster->any_slot(cf, false, &o->cluster, err);
}

/* NULL: it is taken. */
static const char *why_no_early_data(const ssl_conf_t *sc)
{
    if (sc->verify != HD_TLS_VERIFY_NONE)
        return "with \"ssl_verify_client\"";
    if (!sc->cache)
        return "without \"ssl_session_cache shared:NAME:SIZE\": it sees to it that a "
               "ticket is good once";
    return sc->versions == TLS_1_2 ? "without TLSv1.3" : NULL;
}

void hd_conf_ssl_warn(const hd_conf_t *cf)
{
    const ssl_conf_t *sc = conf_of(cf);
    const char *why = sc->early_data && sc->certs_n > 0 ? why_no_early_data(sc) : NULL;

    if (why != NULL)
        hd_conf_warn(cf, "\"ssl_early_data\" has no effect %s", why);
}

static hd_rc_t put_sessions(hd_conf_t *cf, const ssl_conf_t *sc, hd_tls_conf_t *tls,
                            hd_err_t *err)
{
    hd_conf_secret_t files = {.ticket_keys = sc->ticket_keys,
                              .ticket_keys_n = sc->ticket_keys_n};

    tls->session_tickets = !sc->no_tickets;
    tls->session_cache = sc->cache;
    tls->session_timeout_s =
        sc->session_timeout_ms == 0
            ? 300
            : (uint32_t)hd_min(sc->session_timeout_ms / 1000, UINT32_MAX);
    if (sc->cache && sc->zone.len > 0) {
        tls->session_zone = hd_str_dup(cf->pool, sc->zone);
        tls->session_zone_bytes = (uint32_t)sc->zone_bytes;
        if (hd_tls_make_zone(cf->member, sc->zone, sc->zone_bytes, err) != HD_OK)
            return HD_ERROR;
    }
    /* A ticket that is good only once is one whose session lies here. */
    tls->early_data = sc->early_data && why_no_early_data(sc) == NULL;
    return sc->ticket_keys_n > 0 ? hd_conf_secret_slot(cf, &files, &tls->ticket_keys, err)
                                 : HD_OK;
}

bool hd_conf_ssl_has_cert(const hd_conf_t *cf)
{
    return conf_of(cf)->certs_n > 0 || conf_of(cf)->rejects;
}

uint32_t hd_conf_ssl_handshake_timeout_ms(const hd_conf_t *cf)
{
    uint64_t ms = conf_of(cf)->handshake_timeout_ms;

    return ms == 0 ? 60000 : (uint32_t)hd_min(ms, UINT32_MAX);
}

bool hd_conf_ssl_verifies(const hd_conf_t *cf)
{
    return conf_of(cf)->verify != HD_TLS_VERIFY_NONE;
}

hd_rc_t hd_conf_ssl_server(hd_conf_t *cf, hd_str_t alpn, const hd_tls_conf_t **out,
                           hd_err_t *err)
{
    const ssl_conf_t *sc = conf_of(cf);
    hd_tls_conf_t *tls = hd_pool_new(cf->pool, hd_tls_conf_t);

    *out = NULL;
    if (sc->certs_n == 0 && !sc->rejects)
        return HD_OK;
    if (put_certs(cf, sc, tls, err) != HD_OK || put_trust(cf, sc, tls, err) != HD_OK ||
        put_ocsp(cf, sc, tls, err) != HD_OK ||
        hd_conf_need_key_log(cf, sc->key_log, tls, err) != HD_OK)
        return HD_ERROR;
    if (sc->dhparam.len > 0 &&
        hd_conf_read_text(cf, sc->dhparam, "DH parameters", &tls->dh_pem, err) != HD_OK)
        return HD_ERROR;
    hd_conf_tls_versions(sc->versions, tls);
    tls->revalidates = !sc->no_revalidation;
    tls->prefer_server_ciphers = sc->prefer_server_ciphers;
    tls->rejects = sc->rejects;
    tls->record_bytes = (uint16_t)hd_min(sc->buffer_bytes, 16384u);
    tls->ciphers = hd_str_dup(cf->pool, sc->ciphers);
    tls->groups = hd_str_dup(cf->pool, sc->groups);
    tls->commands = hd_str_dup(cf->pool, sc->commands);
    tls->alpn = hd_str_dup(cf->pool, sc->alpn.len > 0 ? sc->alpn : alpn);
    if (put_sessions(cf, sc, tls, err) != HD_OK)
        return HD_ERROR;
    if (hd_tls_conf_check(tls, true, err) != HD_OK)
        return HD_ERROR;
    for (uint32_t i = 0; i < tls->certs_n; i++)
        if (hd_conf_check_cert(cf, sc->certs[i], tls, true, err) != HD_OK)
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

static const hd_conf_enum_t ocsp_names[] = {
    {"off", OCSP_OFF}, {"on", OCSP_PATH}, {"leaf", OCSP_LEAF}, {NULL, 0}};

static const hd_conf_enum_t verify_names[] = {
    {"off", HD_TLS_VERIFY_NONE},
    {"on", HD_TLS_VERIFY_REQUIRED},
    {"optional", HD_TLS_VERIFY_OPTIONAL},
    {"optional_no_ca", HD_TLS_VERIFY_OPTIONAL_NO_CA},
    {NULL, 0}};

#define IN_SERVERS (HD_IN_HTTP | HD_IN_SERVER | HD_IN_STREAM | HD_IN_STREAM_SERVER)
#define AT(field) offsetof(ssl_conf_t, field)

static const hd_directive_t directives[] = {
    {.name = "ssl_certificate",
     .scope = IN_SERVERS,
     .args_n = 1,
     .repeats = true,
     .set = set_certificate,
     .help =
         "FILE: certificate and its chain, PEM; one for each kind of key. A name with "
         "variables is read in the handshake, by a worker"},
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
     .set = set_path,
     .offset = AT(dhparam),
     .help =
         "FILE: parameters of finite-field Diffie-Hellman, for DHE ciphers of TLS 1.2"},
    {.name = "ssl_conf_command",
     .scope = IN_SERVERS,
     .args_n = 2,
     .repeats = true,
     .set = hd_conf_add_tls_command,
     .offset = AT(commands),
     .help = "NAME VALUE: a command of OpenSSL's SSL_CONF_cmd, as in Options "
             "PrioritizeChaCha; over the other settings"},
    {.name = "ssl_password_file",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(passwords),
     .help = "FILE: passphrases of private keys, a line each, tried in turn"},
    {.name = "ssl_buffer_size",
     .scope = HD_IN_HTTP | HD_IN_SERVER,
     .args_n = 1,
     .set = set_buffer_size,
     .offset = AT(buffer_bytes),
     .help = "SIZE: the largest record sent; 16k"},
    {.name = "ssl_early_data",
     .scope = HD_IN_HTTP | HD_IN_SERVER,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(early_data),
     .help = "on|off: early data (0-RTT, TLS 1.3) is taken from clients that resume a "
             "session of ssl_session_cache; $ssl_early_data is \"1\" for such requests; "
             "off"},
    {.name = "ssl_reject_handshake",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(rejects),
     .help = "on|off: every handshake is refused (unrecognized_name), as by a default "
             "server for names that nobody has; off"},
    {.name = "ssl_alpn",
     .scope = HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_alpn,
     .help =
         "PROTOCOL …: protocols that are agreed on, in order; clients that offer none "
         "of them are refused"},
    {.name = "ssl_handshake_timeout",
     .scope = HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(handshake_timeout_ms),
     .help = "TIME: how long a handshake may take; 60s"},
    {.name = "ssl_stapling",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(staples),
     .help = "on|off: the answer of the issuer's OCSP responder is stapled to the "
             "certificate: the agent asks for it; off"},
    {.name = "ssl_stapling_file",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(stapling),
     .help = "FILE: the OCSP response, DER (openssl ocsp -respout), read with the "
             "configuration; nobody is asked"},
    {.name = "ssl_stapling_responder",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_responder,
     .offset = AT(responder),
     .help = "http://HOST[:PORT][/PATH]: who is asked, in place of whom the certificate "
             "names"},
    {.name = "ssl_stapling_verify",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(verifies_staples),
     .help = "on|off: who signed an answer needs a path to ssl_trusted_certificate; off: "
             "the certificate's issuer, or whom it has made a responder, is enough"},
    {.name = "ssl_ocsp",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = AT(ocsp),
     .post = ocsp_names,
     .help = "on|leaf|off: OCSP responders are asked about clients' certificates that "
             "are verified, and about their issuers (leaf: not); off"},
    {.name = "ssl_ocsp_responder",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_responder,
     .offset = AT(client_responder),
     .help = "http://HOST[:PORT][/PATH]: who is asked about all of them, in place of "
             "whom each names"},
    {.name = "ssl_ocsp_cache",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_ocsp_cache,
     .help = "off|shared:NAME:SIZE: answers about clients' certificates are kept for all "
             "workers, until there is a newer one, an hour at most; off"},
    {.name = "ssl_key_log",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_conf_set_key_log,
     .offset = AT(key_log),
     .help = "FILE: gets the secrets of all sessions, in the form that Wireshark reads "
             "(SSLKEYLOGFILE), for who has to look into recorded traffic"},
    {.name = "ssl_certificate_cache",
     .scope = IN_SERVERS,
     .args_n = 1,
     .args_max = 3,
     .set = hd_conf_set_tls_cache,
     .offset = AT(certs_cache),
     .help =
         "off|max=N [inactive=TIME] [valid=TIME]: so many certificates whose names have "
         "variables stay in each worker, 10s without use (inactive); after 60s (valid) "
         "it is seen whether the files have changed; off"},
    {.name = "ssl_certificate_compression",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_compression,
     .help = "on|off: accepted; certificates are sent as they are"},
    {.name = "ssl_session_cache",
     .scope = IN_SERVERS,
     .args_n = 1,
     .args_max = 2,
     .set = set_session_cache,
     .help =
         "off|none|builtin[:SIZE]|shared:NAME:SIZE: resumption without tickets, in each "
         "worker (builtin) or all together (shared); none"},
    {.name = "ssl_session_ticket_key",
     .scope = IN_SERVERS,
     .args_n = 1,
     .repeats = true,
     .set = add_ticket_key,
     .help =
         "FILE: 48 or 80 random bytes: the key of session tickets; of several the first "
         "writes, all read. Without one, keys are made here and change every 12 hours"},
    {.name = "ssl_revalidate",
     .scope = HD_IN_HTTP | HD_IN_SERVER,
     .args_n = 1,
     .set = set_inverse,
     .offset = AT(no_revalidation),
     .help =
         "on|off: connections of clients whose certificate ends, or is verified no "
         "longer since roots or lists have changed, are ended after the request under "
         "way; on. Upgraded ones stay"},
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
     .help = "FILE: further ones, which clients aren't told of"},
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
     .help =
         "on|off|optional|optional_no_ca: whether clients need a certificate: on and "
         "optional refuse bad ones (400, by error_page as 495 and 496), optional_no_ca "
         "lets in those of unknown roots; off"},
    {.name = "ssl_verify_depth",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_conf_set_tls_depth,
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
