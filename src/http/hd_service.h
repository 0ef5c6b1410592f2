/* hd_service: requests answered by our own code: admin pages, the xDS and CA servers. A
 * service is registered by name at process start; a route's HD_ACT_SERVICE names its
 * number. */
#pragma once
#include "http/hd_request.h"

typedef struct {
    const char *name;
    /* The head is there. The service answers by hd_response_local, or hd_response_start
     * and hd_response_give_body, now or later; its state is req->action. */
    hd_rc_t (*on_start)(hd_req_t *req, const void *conf);
    void (*on_body)(hd_req_t *req, hd_chain_t *body); /* END flag: complete */
    void (*on_drained)(hd_req_t *req);
    void (*on_cancel)(hd_req_t *req); /* the client is gone */
} hd_service_t;

uint16_t hd_service_register(const hd_service_t *s);
uint16_t hd_service_find(hd_str_t name);        /* 0: none */
extern const hd_action_ops_t hd_service_action; /* HD_ACT_SERVICE */
