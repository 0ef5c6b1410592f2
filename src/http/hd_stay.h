/* hd_stay: sessions that stay with a server (core/net/hd_sticky.h): what a request asks
 * of the balancer, and what its answer tells the client or the table of sessions. */
#pragma once
#include "http/hd_proxy_int.h"

/* Before the choice: sets t->pick.sticky. */
void hd_stay_ask(hd_try_t *t, const hd_cluster_t *c);
/* With the winner's head: `sticky cookie` sets the cookie; `learn … header` learns. */
void hd_stay_head(hd_proxy_t *p, hd_try_t *t);
/* When the winner's response has ended: `learn` learns. */
void hd_stay_end(hd_proxy_t *p, hd_try_t *t);
