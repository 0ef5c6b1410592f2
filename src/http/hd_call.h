/* hd_call: requests of our own to a cluster: xDS and CA clients, ext_authz, checks. They
 * use the same tries and pools as proxied ones. Streaming both ways. */
#pragma once
#include "http/hd_request.h"

typedef struct hd_call_s hd_call_t;

typedef struct {
    void (*on_head)(hd_call_t *call, unsigned status, const hd_headers_t *headers);
    void (*on_body)(hd_call_t *call,
                    hd_chain_t *body); /* take from the chain; END: complete */
    /* Once, last: <err> NULL: complete. trailers may be NULL. The call is gone
     * afterwards. */
    void (*on_end)(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *err);
    void (*on_writable)(hd_call_t *call);
} hd_call_user_t;

typedef struct {
    const hd_slot_t *cluster;
    hd_str_t method, authority, path, scheme; /* copied */
    const hd_kv_t *headers;
    uint32_t headers_n;
    uint64_t timeout_ms; /* of the whole; 0: none */
    hd_up_protocol_t protocol;
    const hd_fixed_pick_t *fixed; /* this endpoint; must outlive the call; NULL */
    const hd_tls_conf_t *tls; /* overrides the cluster's; must outlive the call; NULL */
} hd_call_spec_t;

/* Starts; the body follows by hd_call_send. Never calls back at once. */
hd_call_t *hd_call_start(hd_loop_t *loop, hd_member_t *m, const hd_call_spec_t *spec,
                         const hd_call_user_t *user, void *arg, hd_err_t *err);
void *hd_call_arg(const hd_call_t *call);
void hd_call_send(hd_call_t *call, hd_chain_t *body); /* END flag: our half is over */
bool hd_call_is_full(const hd_call_t *call);
void hd_call_cancel(hd_call_t *call); /* no callback follows */
