/* hd_ca_service: Istio's CreateCertificate over gRPC (IstioCertificateService): a
 * certificate for the caller's verified identity, whatever its CSR asks for. */
#pragma once
#include "control/hd_ca.h"
#include "control/hd_tokens.h"

typedef struct {
    hd_ca_t *ca;
    hd_tokens_t *tokens; /* NULL: nobody can be verified, every call is refused */
    hd_str_t trust_domain;
} hd_ca_service_conf_t;

void hd_ca_service_register(void); /* at process start */
void hd_ca_service_start(const hd_ca_service_conf_t *conf);
