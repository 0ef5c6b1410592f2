/* hd_xds_server: ADS over gRPC, delta and state of the world (xds-transport §2, §3): who
 * asked for what, what they have, what differs.
 *
 * A stream belongs to one proxy: its node is read and its identity checked before
 * anything is answered. After a commit of the model each stream's view is made anew and
 * only what differs is sent, in the order clusters, endpoints, listeners, routes. A
 * stream that doesn't take what is sent gets the newest state once it does, not every
 * state between.
 */
#pragma once
#include "control/hd_tokens.h"
#include "control/hd_translate.h"
#include "core/net/hd_loop.h"

typedef struct {
    hd_loop_t *loop;
    hd_translator_t *translator;
    hd_tokens_t *tokens; /* NULL: any caller is believed (directive `tokens off`) */
    hd_str_t trust_domain;
} hd_xds_server_conf_t;

/* One a process; <conf> is copied, what it points to must outlive the server. */
void hd_xds_server_start(const hd_xds_server_conf_t *conf);
/* A graceful end begins: streams, which have no end of their own, are ended; no new ones.
 */
void hd_xds_server_quit(void);
void hd_xds_server_stop(void);
/* The roots that everyone is to trust, copied; agents that ask for istiod's ProxyConfig
 * (PCDS) are told at once when they change. Between start and stop. */
void hd_xds_server_set_roots(hd_str_t pem);
/* The model has changed. */
void hd_xds_server_on_commit(void);
void hd_xds_server_register(void); /* its gRPC methods; at process start */

typedef struct {
    uint32_t streams;
    uint64_t pushes, rejects; /* responses sent; refused by proxies */
} hd_xds_server_stats_t;
void hd_xds_server_get_stats(hd_xds_server_stats_t *stats);
