/* hd_call: requests of our own to a cluster, HTTP or gRPC (hd_grpc.h frames its
 * messages): what xDS and CA clients, checks and modules (ext_authz, rate limits) ask.
 * They use the same tries, pools and limits as proxied ones. Streaming both ways. */
#pragma once
#include "core/base/hd_buf.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_loop.h"

typedef struct hd_call_s hd_call_t;
typedef struct hd_headers_s hd_headers_t; /* hd_headers_value, hd_headers_next */

typedef struct {
    void (*on_head)(hd_call_t *call, unsigned status, const hd_headers_t *headers);
    /* Take from the chain; END: complete. NULL: the body isn't wanted. */
    void (*on_body)(hd_call_t *call, hd_chain_t *body);
    /* Once, last: <err> NULL: complete. trailers may be NULL. The call is gone
     * afterwards. */
    void (*on_end)(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *err);
    void (*on_writable)(hd_call_t *call); /* room for more of our body; may be NULL */
} hd_call_user_t;

typedef struct {
    /* By hd_conf_cluster->slot_for, or, for what a control plane names,
     * hd_slot_find_or_add(cf->arena, HD_RES_CLUSTER, …). */
    const hd_slot_t *cluster;
    hd_str_t method, authority, path, scheme; /* copied */
    const hd_kv_t *headers;                   /* copied */
    uint32_t headers_n;
    uint64_t timeout_ms; /* of the whole; 0: none */
    hd_up_protocol_t protocol;
    const hd_fixed_pick_t *fixed; /* this endpoint; must outlive the call; NULL */
    const hd_tls_conf_t *tls; /* overrides the cluster's; must outlive the call; NULL */
} hd_call_spec_t;

/* Starts, in a turn; a body follows by hd_call_send (GET and HEAD have none). Never calls
 * back at once. <arg> must live until on_end, or until hd_call_cancel: who calls for a
 * request cancels in hd_pool_defer of its pool. NULL: <err>. */
hd_call_t *hd_call_start(hd_loop_t *loop, hd_member_t *m, const hd_call_spec_t *spec,
                         const hd_call_user_t *user, void *arg, hd_err_t *err);
void *hd_call_arg(const hd_call_t *call);
void hd_call_send(hd_call_t *call, hd_chain_t *body); /* END flag: our half is over */
bool hd_call_is_full(const hd_call_t *call);
void hd_call_cancel(hd_call_t *call); /* no callback follows; the call is gone */

/* Of an answer's headers or trailers, lent for the callback: the first value; empty when
 * absent (*found tells, may be NULL). <name> in any case. */
hd_str_t hd_headers_value(const hd_headers_t *h, hd_str_t name, bool *found);
/* Walk: start with *at = 0. */
bool hd_headers_next(const hd_headers_t *h, uint32_t *at, hd_str_t *name,
                     hd_str_t *value);
