/* hd_xds_peer: what the agent's calls have in common: whom they go to, how they say who
 * we are, how long to wait after a failure. */
#pragma once
#include "core/net/hd_tls.h"
#include "core/hd_call.h"
#include "mesh/xds/hd_xds_conf.h"

typedef struct {
    hd_str_t host;
    const hd_slot_t *cluster;
    const hd_tls_conf_t *tls; /* NULL: plain */
    hd_str_t token_path, cluster_id;
} hd_xds_peer_t;

/* Everything is copied to <pool>. */
void hd_xds_peer_init(hd_xds_peer_t *peer, const hd_xds_server_t *server,
                      const hd_xds_conf_t *conf, hd_pool_t *pool);
/* A gRPC call of <path>, with the headers that authenticate us. */
hd_call_t *hd_xds_peer_call(const hd_xds_peer_t *peer, hd_loop_t *loop, hd_member_t *m,
                            const char *path, uint64_t timeout_ms,
                            const hd_call_user_t *user, void *arg, hd_err_t *err);
/* grpc-status of an answer's end, HD_GRPC_NO_STATUS if there is none; *message of it. */
unsigned hd_xds_peer_status(const hd_headers_t *trailers, hd_str_t *message);

/* Full jitter over a doubling bound: base 0.5 s, at most 30 s (xds-transport §9). */
typedef struct {
    uint32_t failures;
} hd_xds_backoff_t;
uint64_t hd_xds_backoff_ms(hd_xds_backoff_t *b);
