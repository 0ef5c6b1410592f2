#include "control/hd_translate_int.h"

/* --- PeerAuthentication --- */

static hd_mtls_mode_t mode_of(const hd_peer_auth_t *pa, int64_t port)
{
    for (hd_each(p, pa->ports)) {
        if (p->port == port && p->mode != HD_MTLS_UNSET)
            return p->mode;
    }
    return pa->mode;
}

/* The oldest of a namespace that has a selector which matches, or has none (PA-4, PA-5).
 */
static hd_mtls_mode_t mode_in(hd_tr_t *t, hd_str_t ns, const hd_labels_t *labels,
                              int64_t port)
{
    size_t n;
    const hd_object_t *const *list =
        hd_tr_list_ns(t, HD_KIND_PEER_AUTHENTICATION, ns, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_peer_auth_t *pa = list[i]->peer_auth;
        hd_mtls_mode_t mode = mode_of(pa, port);

        if (labels == NULL
                ? pa->selector.n > 0
                : pa->selector.n == 0 || !hd_labels_match(&pa->selector, labels))
            continue;
        if (mode != HD_MTLS_UNSET)
            return mode;
    }
    return HD_MTLS_UNSET;
}

/* Workload, namespace, mesh: the first that says anything; PERMISSIVE if nobody does. */
hd_mtls_mode_t hd_tr_mtls_mode(hd_tr_t *t, hd_str_t ns, const hd_labels_t *labels,
                               int64_t port)
{
    hd_mtls_mode_t mode = mode_in(t, ns, labels, port);

    if (mode == HD_MTLS_UNSET)
        mode = mode_in(t, ns, NULL, port);
    if (mode == HD_MTLS_UNSET)
        mode = mode_in(t, hd_model_root_namespace(t->model), NULL, port);
    return mode == HD_MTLS_UNSET ? HD_MTLS_PERMISSIVE : mode;
}

/* --- contexts --- */

static PbCore__ConfigSource *sds_source(hd_tr_t *t)
{
    PbCore__ConfigSource *s = HD_TR_NEW(t, PbCore__ConfigSource, pb_core__config_source);
    PbCore__ApiConfigSource *api =
        HD_TR_NEW(t, PbCore__ApiConfigSource, pb_core__api_config_source);
    PbCore__GrpcService *grpc = HD_TR_NEW(t, PbCore__GrpcService, pb_core__grpc_service);
    PbCore__GrpcService__EnvoyGrpc *envoy =
        HD_TR_NEW(t, PbCore__GrpcService__EnvoyGrpc, pb_core__grpc_service__envoy_grpc);

    envoy->cluster_name = "sds-grpc";
    grpc->target_specifier_case = PB_CORE__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC;
    grpc->envoy_grpc = envoy;
    api->api_type = PB_CORE__API_CONFIG_SOURCE__API_TYPE__GRPC;
    api->transport_api_version = PB_CORE__API_VERSION__V3;
    api->set_node_on_first_message_only = true;
    HD_TR_ADD(t, api, grpc_services, grpc);
    s->config_source_specifier_case =
        PB_CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_API_CONFIG_SOURCE;
    s->api_config_source = api;
    s->initial_fetch_timeout = hd_tr_duration(t, 0);
    s->resource_api_version = PB_CORE__API_VERSION__V3;
    return s;
}

static PbTls__SdsSecretConfig *secret(hd_tr_t *t, const char *name)
{
    PbTls__SdsSecretConfig *c =
        HD_TR_NEW(t, PbTls__SdsSecretConfig, pb_tls__sds_secret_config);

    c->name = (char *)(uintptr_t)name;
    c->sds_config = sds_source(t);
    return c;
}

static PbTls__CommonTlsContext *
common_context(hd_tr_t *t, PbTls__CertificateValidationContext *validation)
{
    PbTls__CommonTlsContext *c =
        HD_TR_NEW(t, PbTls__CommonTlsContext, pb_tls__common_tls_context);
    PbTls__CommonTlsContext__CombinedCertificateValidationContext *combined =
        HD_TR_NEW(t, PbTls__CommonTlsContext__CombinedCertificateValidationContext,
                  pb_tls__common_tls_context__combined_certificate_validation_context);

    HD_TR_ADD(t, c, tls_certificate_sds_secret_configs, secret(t, "default"));
    combined->default_validation_context = validation;
    combined->validation_context_sds_secret_config = secret(t, "ROOTCA");
    c->validation_context_type_case =
        PB_TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_COMBINED_VALIDATION_CONTEXT;
    c->combined_validation_context = combined;
    return c;
}

static PbTls__TlsParameters *server_parameters(hd_tr_t *t)
{
    static const char *const ciphers[] = {"ECDHE-ECDSA-AES256-GCM-SHA384",
                                          "ECDHE-RSA-AES256-GCM-SHA384",
                                          "ECDHE-ECDSA-AES128-GCM-SHA256",
                                          "ECDHE-RSA-AES128-GCM-SHA256",
                                          "AES256-GCM-SHA384",
                                          "AES128-GCM-SHA256"};
    PbTls__TlsParameters *p = HD_TR_NEW(t, PbTls__TlsParameters, pb_tls__tls_parameters);

    p->tls_minimum_protocol_version = PB_TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_2;
    p->tls_maximum_protocol_version = PB_TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_3;
    for (unsigned i = 0; i < hd_countof(ciphers); i++)
        HD_TR_ADD(t, p, cipher_suites, (void *)(uintptr_t)ciphers[i]);
    return p;
}

PbCore__TransportSocket *hd_tr_downstream_mtls(hd_tr_t *t, bool is_http)
{
    PbTls__DownstreamTlsContext *d =
        HD_TR_NEW(t, PbTls__DownstreamTlsContext, pb_tls__downstream_tls_context);
    PbTls__CertificateValidationContext *v = HD_TR_NEW(
        t, PbTls__CertificateValidationContext, pb_tls__certificate_validation_context);
    PbTls__CommonTlsContext *c;

    HD_TR_ADD(
        t, v, match_subject_alt_names,
        hd_tr_prefix(t, hd_tr_printf(t, "spiffe://%.*s/", HD_STR_ARG(t->trust_domain))));
    c = common_context(t, v);
    c->tls_params = server_parameters(t);
    if (!is_http)
        HD_TR_ADD(t, c, alpn_protocols, "istio-peer-exchange");
    HD_TR_ADD(t, c, alpn_protocols, "h2");
    HD_TR_ADD(t, c, alpn_protocols, "http/1.1");
    d->common_tls_context = c;
    d->require_client_certificate = hd_tr_bool(t, true);
    return hd_tr_socket(t, "envoy.transport_sockets.tls", d);
}

PbCore__TransportSocket *hd_tr_upstream_mtls(hd_tr_t *t, const char *sni,
                                             const hd_strs_t *identities, bool is_http2)
{
    PbTls__UpstreamTlsContext *u =
        HD_TR_NEW(t, PbTls__UpstreamTlsContext, pb_tls__upstream_tls_context);
    PbTls__CertificateValidationContext *v = HD_TR_NEW(
        t, PbTls__CertificateValidationContext, pb_tls__certificate_validation_context);
    PbTls__CommonTlsContext *c;

    for (hd_each(id, *identities))
        HD_TR_ADD(t, v, match_subject_alt_names, hd_tr_exact(t, hd_tr_text(t, *id)));
    c = common_context(t, v);
    HD_TR_ADD(t, c, alpn_protocols, "istio-peer-exchange");
    HD_TR_ADD(t, c, alpn_protocols, "istio");
    if (is_http2)
        HD_TR_ADD(t, c, alpn_protocols, "h2");
    u->common_tls_context = c;
    u->sni = (char *)(uintptr_t)sni;
    return hd_tr_socket(t, "envoy.transport_sockets.tls", u);
}
