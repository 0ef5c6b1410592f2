/* mtls: whether a workload is spoken to in plain, and who its callers are:
 *     mtls strict;        only callers whose certificate was verified (STRICT)
 *     mtls permissive;    anyone; policies see who is who (PERMISSIVE)
 * What verifies is TLS (`listen … ssl`, `ssl_client_certificate`, by xDS the transport
 * socket); this module refuses who comes without, and names the parts of the peer's
 * identity for logs, headers and scripts.
 */
#include "hd_module.h"

enum { UNSET, OFF, PERMISSIVE, STRICT };

typedef struct {
    uint32_t mode; /* UNSET: not used here */
} mtls_conf_t;

static const hd_conf_enum_t modes[] = {
    {"off", OFF}, {"permissive", PERMISSIVE}, {"strict", STRICT}, {0}};

static bool is_known(const hd_conn_t *c)
{
    return c != NULL && c->facts != NULL && c->facts->peer_principal.len > 0;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const mtls_conf_t *mc = conf;

    if (mc->mode != STRICT || is_known(hd_req_conn(req)))
        return HD_OK;
    if (hd_req_is_grpc(req)) /* 16: UNAUTHENTICATED */
        return hd_req_answer_grpc(req, 16, HD_STR("mutual TLS required"), NULL,
                                  "mtls_no_peer_identity");
    return hd_req_answer(req, 403, HD_STR("text/plain"), HD_STR("mutual TLS required"),
                         NULL, "mtls_no_peer_identity");
}

static hd_rc_t on_conn(hd_conn_t *c, const void *conf)
{
    const mtls_conf_t *mc = conf;

    if (mc->mode != STRICT || is_known(c))
        return HD_OK;
    return hd_conn_fail(c, HD_E_DENIED, "mutual TLS required: the peer has no identity");
}

/* --- attributes: parts of spiffe://TD/ns/NS/sa/SA --- */

/* The segment after <word>, or (<word> empty) the first; empty: there is none. */
static hd_str_t part_after(hd_str_t id, hd_str_t word)
{
    hd_str_t rest = hd_str_sub(id, sizeof("spiffe://") - 1, id.len), one;

    if (!hd_str_has_prefix(id, HD_STR("spiffe://")) || !hd_str_split(&rest, '/', &one))
        return HD_STR_NONE;
    if (word.len == 0)
        return one;
    while (hd_str_split(&rest, '/', &one)) {
        bool is_it = hd_str_eq(one, word);

        if (!hd_str_split(&rest, '/', &one))
            break;
        if (is_it)
            return one;
    }
    return HD_STR_NONE;
}

static void set_part(const hd_attr_of_t *of, hd_str_t word, hd_val_t *out)
{
    hd_str_t part = is_known(of->conn) ? part_after(of->conn->facts->peer_principal, word)
                                       : HD_STR_NONE;

    if (part.len == 0)
        return;
    out->type = HD_VAL_STR;
    out->str = part;
}

static void get_namespace(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    (void)rest;
    set_part(of, HD_STR("ns"), out);
}

static void get_account(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    (void)rest;
    set_part(of, HD_STR("sa"), out);
}

static void get_domain(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    (void)rest;
    set_part(of, HD_STR_NONE, out);
}

/* Istio's words (MLABEL-16). */
static void get_policy(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    (void)rest;
    out->type = HD_VAL_STR;
    out->str = is_known(of->conn) ? HD_STR("mutual_tls") : HD_STR("none");
}

static const hd_attr_def_t attributes[] = {
    {.name = "peer_namespace",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_CONN | HD_ATTR_VOLATILE,
     .get = get_namespace,
     .help = "the namespace in the peer's verified identity"},
    {.name = "peer_service_account",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_CONN | HD_ATTR_VOLATILE,
     .get = get_account,
     .help = "the service account in the peer's verified identity"},
    {.name = "peer_trust_domain",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_CONN | HD_ATTR_VOLATILE,
     .get = get_domain,
     .help = "the trust domain in the peer's verified identity"},
    {.name = "connection_security_policy",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_CONN | HD_ATTR_VOLATILE,
     .get = get_policy,
     .help = "mutual_tls where the peer's identity was verified, else none"},
    {0},
};

static const hd_directive_t directives[] = {
    {.name = "mtls",
     .scope =
         HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_STREAM | HD_IN_STREAM_SERVER,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = offsetof(mtls_conf_t, mode),
     .post = modes,
     .help = "strict | permissive | off: strict refuses callers without a verified "
             "identity (403; a conn of stream is closed), permissive lets them in as "
             "nobody"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "mtls",
    .directives = directives,
    .conf_size = sizeof(mtls_conf_t),
    .phase = HD_PHASE_AUTHN,
    .attributes = attributes,
    .on_request_headers = on_request_headers,
    .on_conn = on_conn,
};
