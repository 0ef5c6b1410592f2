#include "control/hd_ca_service.h"
#include "control/hd_grpc_server.h"
#include "core/base/hd_log.h"
#include "istio/ca.pb-c.h"
#include "proto/hd_pb.h"

#define REQUEST_BYTES_MAX 65536u

static hd_ca_service_conf_t service;

typedef struct {
    bool answered;
} call_t;

static void on_open(hd_grpc_stream_t *s, void *state)
{
    (void)state;
    if (service.ca == NULL)
        hd_grpc_stream_end(s, HD_GRPC_UNAVAILABLE, HD_STR("not ready yet"));
}

/* Who calls: by token, or by a certificate of ours that is being renewed. */
static hd_rc_t identify(hd_grpc_stream_t *s, hd_str_t *spiffe_id, hd_err_t *err)
{
    hd_str_t token = hd_grpc_stream_token(s);
    hd_caller_t caller;

    if (hd_grpc_stream_peer(s).len > 0) {
        *spiffe_id = hd_grpc_stream_peer(s);
        return HD_OK;
    }
    if (service.tokens != NULL)
        hd_tokens_renew(service.tokens);
    if (service.tokens == NULL || token.len == 0 ||
        !hd_tokens_find(service.tokens, token, &caller))
        return hd_err_set(err, HD_E_DENIED,
                          "a bearer token that the control plane knows is needed");
    *spiffe_id = hd_str_printf(hd_grpc_stream_pool(s), "spiffe://%.*s/ns/%.*s/sa/%.*s",
                               HD_STR_ARG(service.trust_domain),
                               HD_STR_ARG(caller.namespace), HD_STR_ARG(caller.account));
    return HD_OK;
}

static void send_chain(hd_grpc_stream_t *s, hd_str_t leaf_pem)
{
    PbCa__IstioCertificateResponse msg = PB_CA__ISTIO_CERTIFICATE_RESPONSE__INIT;
    hd_pool_t *pool = hd_grpc_stream_pool(s);
    char *chain[] = {hd_str_to_c(pool, leaf_pem),
                     hd_str_to_c(pool, hd_ca_root_pem(service.ca))};
    ProtobufCBinaryData bytes;
    hd_pb_arena_t arena;

    msg.cert_chain = (void *)chain;
    msg.n_cert_chain = hd_countof(chain);
    hd_pb_arena_init(&arena, 1 << 20);
    if (hd_pb_pack(&msg, &arena, &bytes)) {
        hd_grpc_stream_send(s, bytes.data, bytes.len);
        hd_grpc_stream_end(s, HD_GRPC_OK, HD_STR_NONE);
    } else {
        hd_grpc_stream_end(s, HD_GRPC_INTERNAL, HD_STR("response too large"));
    }
    hd_pb_arena_deinit(&arena);
}

static void on_message(hd_grpc_stream_t *s, void *state, hd_str_t bytes)
{
    call_t *call = state;
    hd_pb_arena_t arena;
    const PbCa__IstioCertificateRequest *msg;
    hd_str_t id, leaf;
    hd_err_t err = {0};

    if (call->answered)
        return;
    call->answered = true;
    if (identify(s, &id, &err) != HD_OK) {
        hd_grpc_stream_end(s, HD_GRPC_UNAUTHENTICATED, hd_str_c(err.text));
        return;
    }
    hd_ca_renew(service.ca);
    hd_pb_arena_init(&arena, 1 << 20);
    msg = hd_pb_unpack(HD_PB(pb_ca__istio_certificate_request), bytes.data, bytes.len,
                       &arena, NULL);
    if (msg == NULL) {
        hd_grpc_stream_end(s, HD_GRPC_INVALID_ARGUMENT, HD_STR("malformed request"));
    } else if (hd_ca_sign(service.ca, hd_str_c(msg->csr), id,
                          msg->validity_duration > 0 ? (uint64_t)msg->validity_duration
                                                     : 0,
                          hd_grpc_stream_pool(s), &leaf, &err) != HD_OK) {
        hd_grpc_stream_end(s, HD_GRPC_INVALID_ARGUMENT, hd_str_c(err.text));
    } else {
        hd_log(HD_LOG_NOTICE, "ca: issued a certificate for %.*s", HD_STR_ARG(id));
        send_chain(s, leaf);
    }
    hd_pb_arena_deinit(&arena);
}

static void on_half_close(hd_grpc_stream_t *s, void *state)
{
    const call_t *call = state;

    if (!call->answered)
        hd_grpc_stream_end(s, HD_GRPC_INVALID_ARGUMENT, HD_STR("no request"));
}

static const hd_grpc_method_t methods[] = {
    {.path = "/istio.v1.auth.IstioCertificateService/CreateCertificate",
     .message_max = REQUEST_BYTES_MAX,
     .state_size = sizeof(call_t),
     .on_open = on_open,
     .on_message = on_message,
     .on_half_close = on_half_close},
    {0},
};

void hd_ca_service_register(void)
{
    hd_grpc_server_add(methods);
}

void hd_ca_service_start(const hd_ca_service_conf_t *conf)
{
    service = *conf;
}
