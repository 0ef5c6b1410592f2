/* Gateway (GW-*) and Sidecar (SC-*). */
#include "control/hd_decode_int.h"
#include "control/hd_model_traffic.h"

/* --- tls of servers (GW-TLS-*) --- */

static const hd_enum_t tls_modes[] = {
    {"PASSTHROUGH", HD_SERVER_TLS_PASSTHROUGH},
    {"SIMPLE", HD_SERVER_TLS_SIMPLE},
    {"MUTUAL", HD_SERVER_TLS_MUTUAL},
    {"OPTIONAL_MUTUAL", HD_SERVER_TLS_OPTIONAL_MUTUAL},
    {"AUTO_PASSTHROUGH", HD_SERVER_TLS_AUTO_PASSTHROUGH},
    {"ISTIO_MUTUAL", HD_SERVER_TLS_ISTIO_MUTUAL},
    {0}};

static const char *version_form(hd_str_t s)
{
    static const hd_enum_t words[] = {{"TLS_AUTO", 0}, {"TLSV1_0", 0}, {"TLSV1_1", 0},
                                      {"TLSV1_2", 0},  {"TLSV1_3", 0}, {0}};
    int value;

    return hd_find_enum(words, s, false, &value)
               ? NULL
               : "must be TLS_AUTO, TLSV1_0, TLSV1_1, TLSV1_2 or TLSV1_3";
}

/* credentialName and credentialNames end in one list. */
static void read_credential(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t text = {.name = "", .type = HD_D_STR, .flags = HD_F_REQUIRED};
    hd_strs_t *list = into;
    hd_str_t *one = hd_pool_new(d->pool, hd_str_t);

    hd_decode_typed(d, &text, node, one);
    *list = (hd_strs_t){one, 1};
}

static const hd_field_t tls_fields[] = {
    HD_FIELD(hd_server_tls_t, https_redirect, "httpsRedirect", BOOL),
    HD_FIELD(hd_server_tls_t, mode, "mode", ENUM, .values = tls_modes),
    HD_FIELD(hd_server_tls_t, server_certificate, "serverCertificate", STR),
    HD_FIELD(hd_server_tls_t, private_key, "privateKey", STR),
    HD_FIELD(hd_server_tls_t, ca_certificates, "caCertificates", STR),
    HD_FIELD(hd_server_tls_t, ca_crl, "caCrl", STR),
    HD_FIELD(hd_server_tls_t, credential_names, "credentialName", READ,
             .read = read_credential),
    HD_FIELD(hd_server_tls_t, credential_names, "credentialNames", STRS),
    HD_FIELD(hd_server_tls_t, ca_cert_credential_name, "caCertCredentialName", STR),
    HD_FIELD(hd_server_tls_t, subject_alt_names, "subjectAltNames", STRS),
    HD_FIELD(hd_server_tls_t, verify_spki, "verifyCertificateSpki", STRS),
    HD_FIELD(hd_server_tls_t, verify_hash, "verifyCertificateHash", STRS),
    HD_FIELD(hd_server_tls_t, min_version, "minProtocolVersion", STR,
             .form = version_form),
    HD_FIELD(hd_server_tls_t, max_version, "maxProtocolVersion", STR,
             .form = version_form),
    HD_FIELD(hd_server_tls_t, cipher_suites, "cipherSuites", STRS),
    HD_FIELD_NONE("tlsCertificates", NO_EFFECT),
    HD_FIELD_NONE("insecureSkipVerify", NO_EFFECT),
    {0}};

static void check_tls(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    static const char *const either[] = {"credentialName", "credentialNames",
                                         "tlsCertificates", NULL};
    const hd_server_tls_t *t = obj;
    bool named = t->credential_names.n > 0 || hd_decode_has(node, "tlsCertificates");
    bool terminates = t->mode == HD_SERVER_TLS_SIMPLE ||
                      t->mode == HD_SERVER_TLS_MUTUAL ||
                      t->mode == HD_SERVER_TLS_OPTIONAL_MUTUAL;
    bool verifies =
        t->mode == HD_SERVER_TLS_MUTUAL || t->mode == HD_SERVER_TLS_OPTIONAL_MUTUAL;

    hd_ignore(hd_decode_one_of(d, node, either, false)); /* reported (GW-TLS-9) */
    if (t->credential_names.n > 2)
        hd_decode_error(d, node, "credentialNames: at most 2, for RSA and ECDSA");
    if (terminates && !named &&
        (t->server_certificate.len == 0 || t->private_key.len == 0))
        hd_decode_error(d, node,
                        "needs serverCertificate and privateKey, or "
                        "credentialName");
    if (verifies && !named && t->ca_certificates.len == 0 &&
        t->ca_cert_credential_name.len == 0)
        hd_decode_error(d, node, "MUTUAL needs caCertificates or credentialName");
    if (t->mode == HD_SERVER_TLS_ISTIO_MUTUAL &&
        (named || t->server_certificate.len > 0 || t->private_key.len > 0))
        hd_decode_error(d, node,
                        "ISTIO_MUTUAL uses the workload's own certificate: no "
                        "other can be named"); /* GW-TLS-7 */
}

const hd_schema_t hd_server_tls_schema = {sizeof(hd_server_tls_t), tls_fields, NULL,
                                          check_tls};

/* --- hosts with a namespace: [ns/]host (GW-4, SC-8) --- */

static bool read_scoped_host(hd_decoder_t *d, const hd_yaml_t *node, bool need_ns,
                             hd_str_t text, hd_scoped_host_t *out)
{
    ssize_t slash = hd_str_find_char(text, '/');
    hd_str_t ns = slash < 0 ? HD_STR("*") : hd_str_sub(text, 0, (size_t)slash);
    hd_str_t host = slash < 0 ? text : hd_str_sub(text, (size_t)slash + 1, text.len);

    if ((need_ns && slash < 0) || ns.len == 0 || host.len == 0 ||
        hd_str_find_char(host, '/') >= 0) {
        hd_decode_error(d, node, "\"%.*s\" is no %s",
                        HD_STR_ARG(hd_str_sub(text, 0, 100)),
                        need_ns ? "namespace/host" : "host or namespace/host");
        return false;
    }
    if (hd_str_find_char(hd_str_sub(host, 1, host.len), '*') >= 0 ||
        (hd_host_is_wildcard(host) && host.len > 1 && host.data[1] != '.')) {
        hd_decode_error(d, node, "\"%.*s\" has a * that isn't its first part",
                        HD_STR_ARG(hd_str_sub(text, 0, 100)));
        return false;
    }
    out->ns = hd_str_eq(ns, HD_STR(".")) ? d->obj->ns
              : hd_str_eq(ns, HD_STR("~.")) /* an exclusion of one's own */
                  ? hd_str_printf(d->pool, "~%.*s", HD_STR_ARG(d->obj->ns))
                  : ns;
    out->host = hd_str_dup_lower(d->pool, host);
    return true;
}

static void read_scoped_hosts(hd_decoder_t *d, const hd_yaml_t *node, bool need_ns,
                              hd_scoped_hosts_t *out)
{
    static const hd_field_t list = {
        .name = "", .type = HD_D_STRS, .flags = HD_F_REQUIRED};
    hd_strs_t texts = {NULL, 0};
    hd_scoped_host_t *items;

    hd_decode_typed(d, &list, node, &texts);
    if (texts.n == 0)
        return;
    items = hd_pool_new_n(d->pool, hd_scoped_host_t, texts.n);
    for (size_t i = 0; i < texts.n; i++) {
        if (texts.items[i].data != NULL)
            hd_ignore(read_scoped_host(d, node->entries[i].value, need_ns, texts.items[i],
                                       &items[i])); /* reported */
    }
    out->items = items;
    out->n = texts.n;
}

static void read_server_hosts(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    read_scoped_hosts(d, node, false, into);
}

static void read_egress_hosts(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    read_scoped_hosts(d, node, true, into);
}

/* --- Gateway --- */

static const hd_field_t port_fields[] = {
    HD_FIELD(hd_port_t, number, "number", INT, .flags = HD_F_REQUIRED, .max = 65535),
    HD_FIELD(hd_port_t, name, "name", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_port_t, protocol, "protocol", READ, .flags = HD_F_REQUIRED,
             .read = hd_read_protocol),
    HD_FIELD_NONE("targetPort", SKIP), /* deprecated, read by nobody (GW-2) */
    {0}};
static const hd_schema_t port_schema = {sizeof(hd_port_t), port_fields, NULL, NULL};

static const hd_field_t server_fields[] = {
    HD_FIELD(hd_server_t, port, "port", FLAT, .flags = HD_F_REQUIRED,
             .schema = &port_schema),
    HD_FIELD(hd_server_t, bind, "bind", STR),
    HD_FIELD(hd_server_t, hosts, "hosts", READ, .flags = HD_F_REQUIRED,
             .read = read_server_hosts),
    HD_FIELD(hd_server_t, tls, "tls", OBJ, .schema = &hd_server_tls_schema),
    HD_FIELD(hd_server_t, name, "name", STR),
    HD_FIELD_NONE("defaultEndpoint", NO_EFFECT), /* GW-7 */
    {0}};

static void check_server(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_server_t *s = obj;
    bool is_unix = hd_str_has_prefix(s->bind, HD_STR("unix://"));

    s->line = node->line;
    if (is_unix != (s->port.number == 0)) /* GW-3 */
        hd_decode_error(d, node,
                        is_unix ? "port.number: must be 0 with a unix:// bind"
                                : "port.number: 0 is for a unix:// bind only");
    if (s->bind.len > 0 && !is_unix && hd_form_ip(s->bind) != NULL)
        hd_decode_error(d, node, "bind: \"%.*s\" is no IP address or unix:// path",
                        HD_STR_ARG(hd_str_sub(s->bind, 0, 60)));
    if (s->port.protocol == HD_PROTO_UDP || s->port.protocol == HD_PROTO_HTTP_PROXY)
        hd_decode_error(d, node, "port.protocol: is not for gateways");
    if (hd_proto_is_tls(s->port.protocol) && s->tls == NULL) /* GW-5 */
        hd_decode_error(d, node, "tls: is missing on a TLS port");
    if (s->tls != NULL && !hd_proto_is_tls(s->port.protocol) &&
        hd_decode_has(hd_yaml_get(node, "tls"), "mode") &&
        hd_proto_is_http(s->port.protocol))
        hd_decode_warn(d, node, "", "tls.mode: has no effect on a port without TLS");
}

static const hd_schema_t server_schema = {sizeof(hd_server_t), server_fields, NULL,
                                          check_server};
static const hd_field_t gateway_spec_fields[] = {
    HD_FIELD(hd_gateway_t, selector, "selector", LABELS, .form = hd_form_label_value),
    HD_FIELD(hd_gateway_t, servers, "servers", LIST, .flags = HD_F_REQUIRED,
             .schema = &server_schema),
    {0}};

/* GW-13 */
static void check_gateway(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_gateway_t *g = obj;

    for (size_t i = 0; i < g->servers.n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (hd_str_eq(g->servers.items[i].port.name, g->servers.items[j].port.name))
                hd_decode_error(d, hd_yaml_get(node, "servers"),
                                "servers: port name %.*s is there twice",
                                HD_STR_ARG(g->servers.items[i].port.name));
        }
    }
}

static const hd_schema_t gateway_spec_schema = {sizeof(hd_gateway_t), gateway_spec_fields,
                                                NULL, check_gateway};
static const hd_field_t gateway_fields[] = {{.name = "spec",
                                             .type = HD_D_FLAT,
                                             .flags = HD_F_REQUIRED,
                                             .schema = &gateway_spec_schema},
                                            HD_FIELD_NONE("status", SKIP),
                                            {0}};

/* --- Sidecar --- */

static const char *capture_form(hd_str_t s)
{
    return hd_str_eq(s, HD_STR("DEFAULT")) || hd_str_eq(s, HD_STR("IPTABLES")) ||
                   hd_str_eq(s, HD_STR("NONE"))
               ? NULL
               : "must be DEFAULT, IPTABLES or NONE";
}

static const hd_field_t sidecar_port_fields[] = {
    HD_FIELD(hd_port_t, number, "number", INT, .flags = HD_F_REQUIRED, .max = 65535),
    HD_FIELD(hd_port_t, name, "name", STR),
    HD_FIELD(hd_port_t, protocol, "protocol", READ, .read = hd_read_protocol),
    HD_FIELD_NONE("targetPort", SKIP),
    {0}};
static const hd_schema_t sidecar_port_schema = {sizeof(hd_port_t), sidecar_port_fields,
                                                NULL, NULL};
static const hd_field_t egress_fields[] = {
    HD_FIELD(hd_sidecar_egress_t, port, "port", OBJ, .schema = &sidecar_port_schema),
    HD_FIELD(hd_sidecar_egress_t, bind, "bind", STR),
    HD_FIELD(hd_sidecar_egress_t, capture_mode, "captureMode", STR, .form = capture_form),
    HD_FIELD(hd_sidecar_egress_t, hosts, "hosts", READ, .flags = HD_F_REQUIRED,
             .read = read_egress_hosts),
    {0}};
static const hd_schema_t egress_schema = {sizeof(hd_sidecar_egress_t), egress_fields,
                                          NULL, NULL};
static const hd_field_t ingress_fields[] = {
    HD_FIELD(hd_sidecar_ingress_t, port, "port", FLAT, .flags = HD_F_REQUIRED,
             .schema = &sidecar_port_schema),
    HD_FIELD(hd_sidecar_ingress_t, bind, "bind", STR),
    HD_FIELD(hd_sidecar_ingress_t, capture_mode, "captureMode", STR,
             .form = capture_form),
    HD_FIELD(hd_sidecar_ingress_t, default_endpoint, "defaultEndpoint", STR),
    HD_FIELD(hd_sidecar_ingress_t, pool, "connectionPool", OBJ,
             .schema = &hd_pool_schema),
    HD_FIELD(hd_sidecar_ingress_t, tls, "tls", OBJ, .schema = &hd_server_tls_schema),
    {0}};
static const hd_schema_t ingress_schema = {sizeof(hd_sidecar_ingress_t), ingress_fields,
                                           NULL, NULL};
static const hd_enum_t outbound_modes[] = {{"REGISTRY_ONLY", HD_OUTBOUND_REGISTRY_ONLY},
                                           {"ALLOW_ANY", HD_OUTBOUND_ALLOW_ANY},
                                           {0}};
static const hd_field_t outbound_fields[] = {
    HD_FIELD(hd_sidecar_t, outbound_mode, "mode", ENUM, .values = outbound_modes),
    HD_FIELD(hd_sidecar_t, egress_proxy, "egressProxy", OBJ,
             .schema = &hd_destination_schema),
    {0}};
static const hd_schema_t outbound_schema = {sizeof(hd_sidecar_t), outbound_fields, NULL,
                                            NULL};
static const hd_field_t sidecar_spec_fields[] = {
    HD_FIELD(hd_sidecar_t, selector, "workloadSelector", FLAT,
             .schema = &hd_labels_selector_schema),
    HD_FIELD(hd_sidecar_t, ingress, "ingress", LIST, .schema = &ingress_schema),
    HD_FIELD(hd_sidecar_t, egress, "egress", LIST, .schema = &egress_schema),
    HD_FIELD(hd_sidecar_t, inbound_pool, "inboundConnectionPool", OBJ,
             .schema = &hd_pool_schema),
    {.name = "outboundTrafficPolicy", .type = HD_D_FLAT, .schema = &outbound_schema},
    {0}};

/* SC-11 */
static void check_sidecar(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_sidecar_t *s = obj;

    for (size_t i = 0; i + 1 < s->egress.n; i++) {
        if (s->egress.items[i].port == NULL)
            hd_decode_error(d, hd_yaml_get(node, "egress"),
                            "egress[%zu]: only the last may be without port", i);
    }
}

static const hd_schema_t sidecar_spec_schema = {sizeof(hd_sidecar_t), sidecar_spec_fields,
                                                NULL, check_sidecar};
static const hd_field_t sidecar_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .schema = &sidecar_spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

const hd_kind_desc_t hd_decode_gateway[] = {
    {.kind = HD_KIND_GATEWAY,
     .group = "networking.istio.io",
     .versions = {"v1", "v1beta1", "v1alpha3"},
     .schema = {sizeof(hd_gateway_t), gateway_fields, NULL, NULL}},
    {.kind = HD_KIND_SIDECAR,
     .group = "networking.istio.io",
     .versions = {"v1", "v1beta1", "v1alpha3"},
     .schema = {sizeof(hd_sidecar_t), sidecar_fields, NULL, NULL}},
    {.group = NULL}};
